-- From version 2 to version 3: webhook endpoints and what could not be delivered to them yet.

CREATE TABLE endpoints (
    id TEXT PRIMARY KEY,
    -- what it is
    record BLOB NOT NULL,
    -- how it stands
    standing BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE deliveries (
    endpoint TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    noticed_at INTEGER NOT NULL,
    -- null: nobody's
    device TEXT,
    jid TEXT,
    attempts INTEGER NOT NULL,
    first_at INTEGER,
    due_at INTEGER NOT NULL,
    dead INTEGER NOT NULL,
    json BLOB NOT NULL,
    PRIMARY KEY (endpoint, sequence)
) STRICT, WITHOUT ROWID;

CREATE INDEX deliveries_dead ON deliveries (endpoint, dead, sequence);
CREATE INDEX deliveries_dead_age ON deliveries (noticed_at) WHERE dead = 1;
CREATE INDEX deliveries_subject ON deliveries (device, jid) WHERE device IS NOT NULL;
