-- Changes that neither memory nor the slot should hold any longer, until their target takes them.
--
-- A queue in a table that only grows at one end and is emptied at the other leaves dead rows behind, and vacuum neither
-- keeps up with a fast one nor gives the space back to the disk; a transaction that is open somewhere for hours keeps it
-- from removing anything at all. So the rows stand in *segments*: tables of their own, each of one trigger, filled one
-- after the other and dropped whole once all of their rows are gone. However long the backlog lasts, what was delivered
-- takes space in the segment at work only; a change that keeps failing holds back the segment it stands in and no other.
--
-- Inheritance, not declarative partitions, because dropping a partition locks the whole table against everybody who
-- reads it, a dump for one, and the other way round; segments are read and written by their own names, and this table is
-- empty itself and shows all of them to people.
CREATE TABLE {schema}.backlog (
    trigger text NOT NULL,
    -- Sorts in commit order, byte by byte, whatever the collation of the database. A key also lets rows be deleted where
    -- the table is published FOR ALL TABLES.
    event_id text COLLATE "C" PRIMARY KEY,
    committed_at timestamptz NOT NULL,
    table_name text NOT NULL,
    action text NOT NULL,
    ordering_key bytea,
    old_ordering_key bytea,
    barrier boolean NOT NULL,
    attempts integer NOT NULL,
    first_failed_at timestamptz,
    event bytea NOT NULL
);

COMMENT ON COLUMN {schema}.backlog.event IS
    'The JSON in UTF-8, up to the end that names trigger and idempotency key. To read it: convert_from(event, ''UTF8'')';

CREATE TABLE {schema}.backlog_segments (
    -- Names the table: backlog_1, backlog_2 and so on.
    segment bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slot text NOT NULL,
    trigger text NOT NULL,
    -- Of all rows that ever stood in it; the ranges of two segments may overlap.
    first_event_id text COLLATE "C",
    last_event_id text COLLATE "C",
    -- Of those that stand in it now.
    events bigint NOT NULL DEFAULT 0,
    body_bytes bigint NOT NULL DEFAULT 0,
    -- Of all rows that ever stood in it.
    written_bytes bigint NOT NULL DEFAULT 0
)
-- Updated with every save; nothing that changes is indexed, so updates stay within their page.
WITH (fillfactor = 20);

CREATE INDEX ON {schema}.backlog_segments (slot, trigger);

-- Begins a segment; returns its number. Called in the transaction of a save, behind its fence.
--
-- With the rights of its owner, since a role that may write the backlog need not be the one that owns the tables; that
-- role then has the same rights on the segment as it has on the backlog.
CREATE FUNCTION {schema}.open_backlog_segment(of_slot text, of_trigger text) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = {schema}, pg_temp
AS $function$
DECLARE
    opened bigint;
    writer name;
BEGIN
    INSERT INTO backlog_segments (slot, trigger) VALUES (of_slot, of_trigger) RETURNING segment INTO opened;
    -- Rows come and go; freezing them after insertion would be work for nothing.
    EXECUTE format(
        'CREATE TABLE %I (PRIMARY KEY (event_id)) INHERITS (backlog) WITH (autovacuum_vacuum_insert_threshold = -1)',
        'backlog_' || opened);
    FOR writer IN
        SELECT DISTINCT pg_get_userbyid(acl.grantee)
        FROM pg_class, aclexplode(relacl) AS acl
        WHERE pg_class.oid = 'backlog'::regclass AND acl.privilege_type = 'INSERT' AND acl.grantee <> 0
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, DELETE ON %I TO %I', 'backlog_' || opened, writer);
    END LOOP;
    RETURN opened;
END
$function$;

-- Drops a segment that is empty; returns whether it did. Raises PB001 (fenced), or gives up where somebody reads it.
CREATE FUNCTION {schema}.close_backlog_segment(writer_slot text, writer_epoch bigint, closing bigint) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = {schema}, pg_temp
-- Saves wait for this one, so it does not wait for others.
SET lock_timeout = '50ms'
AS $function$
DECLARE
    segment_table text := 'backlog_' || closing;
    leftover boolean;
BEGIN
    PERFORM FROM slots WHERE slot = writer_slot AND epoch = writer_epoch FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING errcode = 'PB001', message = format(
            'slot "%s" was claimed by another process (our epoch is %s)', writer_slot, writer_epoch);
    END IF;
    PERFORM FROM backlog_segments WHERE segment = closing AND slot = writer_slot AND events = 0;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', segment_table);
    -- What counts is the table, whatever was counted.
    EXECUTE format('SELECT EXISTS (SELECT FROM %I)', segment_table) INTO leftover;
    IF leftover THEN
        EXECUTE format(
            'UPDATE backlog_segments SET (events, body_bytes) ='
            ' (SELECT count(*), coalesce(sum(octet_length(event)), 0) FROM %I) WHERE segment = $1', segment_table)
        USING closing;
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE %I', segment_table);
    DELETE FROM backlog_segments WHERE segment = closing;
    RETURN true;
END
$function$;

REVOKE ALL ON FUNCTION {schema}.open_backlog_segment(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION {schema}.close_backlog_segment(text, bigint, bigint) FROM PUBLIC;
