-- From version 1 to version 2: watches; a log that can be trimmed and that records forgetting.

-- how far the log was trimmed
ALTER TABLE meta ADD COLUMN trimmed INTEGER NOT NULL DEFAULT 0;
-- counted by the triggers below
ALTER TABLE meta ADD COLUMN watches INTEGER NOT NULL DEFAULT 0;
ALTER TABLE meta ADD COLUMN logged INTEGER NOT NULL DEFAULT 0;

-- how often it is looked at though nobody asks (ms)
ALTER TABLE subjects ADD COLUMN watch INTEGER;

-- its subject is watched: never idle
ALTER TABLE entries ADD COLUMN watched INTEGER NOT NULL DEFAULT 0;

DROP INDEX entries_idle;
CREATE INDEX entries_idle ON entries (idle_since) WHERE watched = 0;
CREATE INDEX subjects_watched ON subjects (device, jid) WHERE watch IS NOT NULL;

CREATE TABLE log (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    -- set, changed, removed; or forgotten, which says nothing more than when
    kind TEXT NOT NULL,
    appended_at INTEGER NOT NULL,
    device TEXT,
    jid TEXT,
    event_id TEXT UNIQUE,
    reason TEXT,
    old_id TEXT,
    new_id TEXT,
    version INTEGER,
    not_before INTEGER,
    CHECK (kind = 'forgotten' OR (device IS NOT NULL AND jid IS NOT NULL AND event_id IS NOT NULL
        AND version IS NOT NULL AND not_before IS NOT NULL))
) STRICT;

CREATE TRIGGER record_appended AFTER INSERT ON log BEGIN UPDATE meta SET logged = logged + 1; END;

CREATE TRIGGER record_gone AFTER DELETE ON log BEGIN UPDATE meta SET logged = logged - 1; END;

INSERT INTO log SELECT sequence, kind, noticed_at, device, jid, event_id, reason, old_id, new_id, version, not_before
    FROM changes ORDER BY sequence;
DROP TABLE changes;

CREATE INDEX log_subject ON log (device, jid, sequence) WHERE device IS NOT NULL;

CREATE TRIGGER entry_made_watched AFTER INSERT ON entries
    WHEN (SELECT watch FROM subjects WHERE id = new.id >> 2) IS NOT NULL
BEGIN UPDATE entries SET watched = 1 WHERE id = new.id; END;

CREATE TRIGGER watch_made AFTER UPDATE OF watch ON subjects WHEN old.watch IS NULL AND new.watch IS NOT NULL
BEGIN
    UPDATE meta SET watches = watches + 1;
    UPDATE entries SET watched = 1 WHERE id BETWEEN new.id * 4 AND new.id * 4 + 3;
END;

CREATE TRIGGER watch_ended AFTER UPDATE OF watch ON subjects WHEN old.watch IS NOT NULL AND new.watch IS NULL
BEGIN
    UPDATE meta SET watches = watches - 1;
    UPDATE entries SET watched = 0 WHERE id BETWEEN new.id * 4 AND new.id * 4 + 3;
END;

CREATE TRIGGER watch_gone AFTER DELETE ON subjects WHEN old.watch IS NOT NULL
BEGIN UPDATE meta SET watches = watches - 1; END;
