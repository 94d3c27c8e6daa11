-- Version 1. Instants are milliseconds since the Unix epoch. Records are MessagePack arrays, see `encode` of their types.

CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    -- names this log in cursors
    epoch TEXT NOT NULL,
    -- no token in any record is greater
    tokens INTEGER NOT NULL,
    -- counted by the triggers below, so that nobody has to scan
    entries INTEGER NOT NULL,
    subjects INTEGER NOT NULL
) STRICT;

INSERT INTO meta VALUES (1, lower(hex(randomblob(8))), 0, 0, 0);

CREATE TABLE subjects (
    id INTEGER PRIMARY KEY,
    device TEXT NOT NULL,
    jid TEXT NOT NULL,
    revision INTEGER NOT NULL,
    state BLOB NOT NULL,
    UNIQUE (device, jid)
) STRICT;

CREATE TABLE entries (
    -- subject * 4 + variant: a subject's entries lie side by side, and an index needs no more than this to find one
    id INTEGER PRIMARY KEY,
    due INTEGER,
    requested INTEGER,
    -- null: a look was asked for before anything was held
    record BLOB,
    idle_since INTEGER NOT NULL AS (coalesce(requested, due, -9223372036854775808))
) STRICT;

CREATE INDEX entries_due ON entries (due) WHERE due IS NOT NULL;
CREATE INDEX entries_idle ON entries (idle_since);

CREATE TABLE devices (
    device TEXT PRIMARY KEY,
    record BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE changes (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    jid TEXT NOT NULL,
    event_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    reason TEXT,
    old_id TEXT,
    new_id TEXT,
    version INTEGER NOT NULL,
    noticed_at INTEGER NOT NULL,
    not_before INTEGER NOT NULL
) STRICT;

CREATE INDEX changes_subject ON changes (device, jid, sequence);

CREATE TRIGGER entry_made AFTER INSERT ON entries WHEN new.record IS NOT NULL
BEGIN UPDATE meta SET entries = entries + 1; END;

CREATE TRIGGER entry_filled AFTER UPDATE OF record ON entries WHEN old.record IS NULL AND new.record IS NOT NULL
BEGIN UPDATE meta SET entries = entries + 1; END;

CREATE TRIGGER entry_gone AFTER DELETE ON entries WHEN old.record IS NOT NULL
BEGIN UPDATE meta SET entries = entries - 1; END;

CREATE TRIGGER subject_made AFTER INSERT ON subjects
BEGIN UPDATE meta SET subjects = subjects + 1; END;

CREATE TRIGGER subject_gone AFTER DELETE ON subjects
BEGIN UPDATE meta SET subjects = subjects - 1; END;
