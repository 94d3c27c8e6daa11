-- From version 3 to version 4: deadlines by device, and rechecks in an order of their own.

CREATE TABLE lanes (
    id INTEGER PRIMARY KEY,
    device TEXT NOT NULL UNIQUE,
    -- virtual time: the greatest rank that was taken since nobody was rechecked
    virtual REAL NOT NULL DEFAULT 0,
    -- subjects that are rechecked, counted by the triggers below
    rechecks INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT INTO lanes (device) SELECT DISTINCT device FROM subjects;

-- what was learnt of all people together
ALTER TABLE meta ADD COLUMN lessons BLOB;

ALTER TABLE subjects ADD COLUMN lane INTEGER NOT NULL DEFAULT 0;
-- from when on it may be rechecked; null: not until somebody asks
ALTER TABLE subjects ADD COLUMN recheck_at INTEGER;
-- 1: that time has come, and its rank says when
ALTER TABLE subjects ADD COLUMN ready INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subjects ADD COLUMN rank REAL NOT NULL DEFAULT 0;
ALTER TABLE subjects ADD COLUMN outlook BLOB;

ALTER TABLE entries ADD COLUMN lane INTEGER NOT NULL DEFAULT 0;

-- what a lease stands in the place of; null: nobody has it in hand. No lease outlives the process that took it.
ALTER TABLE entries ADD COLUMN due_before INTEGER;
ALTER TABLE subjects ADD COLUMN recheck_before INTEGER;
CREATE INDEX entries_leased ON entries (id) WHERE due_before IS NOT NULL;
CREATE INDEX subjects_leased ON subjects (id) WHERE recheck_before IS NOT NULL;

UPDATE subjects SET
    lane = (SELECT id FROM lanes WHERE lanes.device = subjects.device),
    recheck_at = (SELECT min(due) FROM entries WHERE entries.id BETWEEN subjects.id * 4 AND subjects.id * 4 + 3);

UPDATE entries SET lane = (SELECT lane FROM subjects WHERE subjects.id = entries.id >> 2);

UPDATE lanes SET rechecks = (SELECT count(*) FROM subjects WHERE subjects.device = lanes.device AND recheck_at IS NOT NULL);

DROP INDEX entries_due;
CREATE INDEX entries_due ON entries (lane, due) WHERE due IS NOT NULL;
CREATE INDEX subjects_waiting ON subjects (lane, recheck_at) WHERE recheck_at IS NOT NULL AND ready = 0;
CREATE INDEX subjects_ready ON subjects (lane, rank) WHERE ready = 1;

CREATE TRIGGER recheck_made AFTER INSERT ON subjects WHEN new.recheck_at IS NOT NULL
BEGIN UPDATE lanes SET rechecks = rechecks + 1 WHERE id = new.lane; END;

CREATE TRIGGER recheck_begun AFTER UPDATE OF recheck_at ON subjects WHEN old.recheck_at IS NULL AND new.recheck_at IS NOT NULL
BEGIN UPDATE lanes SET rechecks = rechecks + 1 WHERE id = new.lane; END;

CREATE TRIGGER recheck_ended AFTER UPDATE OF recheck_at ON subjects WHEN old.recheck_at IS NOT NULL AND new.recheck_at IS NULL
BEGIN UPDATE lanes SET rechecks = rechecks - 1, virtual = iif(rechecks = 1, 0, virtual) WHERE id = new.lane; END;

CREATE TRIGGER recheck_gone AFTER DELETE ON subjects WHEN old.recheck_at IS NOT NULL
BEGIN UPDATE lanes SET rechecks = rechecks - 1, virtual = iif(rechecks = 1, 0, virtual) WHERE id = old.lane; END;

CREATE TRIGGER lane_gone AFTER DELETE ON subjects WHEN NOT EXISTS (SELECT 1 FROM subjects WHERE device = old.device)
BEGIN DELETE FROM lanes WHERE id = old.lane; END;
