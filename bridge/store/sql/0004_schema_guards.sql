-- What triggers with on_schema_change: pause take of each relation, and where they wait: read when a process starts, and
-- written when a relation is first seen, has changed, or a trigger is let go on.
CREATE TABLE {schema}.schema_guards (
    slot text NOT NULL,
    trigger text NOT NULL,
    -- relation:<OID> or stop:<event id>.
    item text COLLATE "C" NOT NULL,
    -- JSON; no row values.
    content text NOT NULL,
    PRIMARY KEY (slot, trigger, item)
);
