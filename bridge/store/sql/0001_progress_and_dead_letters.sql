-- One row for each slot that is read into this schema.
CREATE TABLE {schema}.slots (
    slot text PRIMARY KEY,
    -- What must still be true of the source for the positions to mean anything; null before the first claim.
    system_identifier text,
    timeline bigint,
    database text,
    -- Counts claims. A process writes only while the epoch is the one that its claim returned.
    epoch bigint NOT NULL,
    -- Saved before the slot is confirmed to it.
    confirmed_lsn pg_lsn,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK (num_nulls(system_identifier, timeline, database) IN (0, 3))
)
-- Updated many times a second. Nothing but the primary key is indexed and there is room in the page, so updates are
-- heap-only and leave nothing behind for vacuum but the page itself.
WITH (fillfactor = 10);

-- Everything of a trigger at or below its position is settled.
CREATE TABLE {schema}.checkpoints (
    slot text NOT NULL REFERENCES {schema}.slots,
    trigger text NOT NULL,
    -- pg_lsn: unsigned 64 bits, which bigint would not hold.
    commit_lsn pg_lsn NOT NULL,
    -- -1: nothing of that transaction.
    ordinal bigint NOT NULL CHECK (ordinal >= -1),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (slot, trigger)
)
WITH (fillfactor = 10);

CREATE TABLE {schema}.dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slot text NOT NULL,
    trigger text NOT NULL,
    -- Sorts in commit order, byte by byte, whatever the collation of the database.
    event_id text COLLATE "C" NOT NULL,
    table_name text NOT NULL,
    event bytea NOT NULL,
    error text NOT NULL,
    detail text NOT NULL,
    status integer,
    request_id text,
    log_tail text,
    attempts integer NOT NULL,
    first_failed_at timestamptz NOT NULL,
    last_failed_at timestamptz NOT NULL,
    ordering_key bytea,
    old_ordering_key bytea,
    barrier boolean NOT NULL DEFAULT false,
    UNIQUE (slot, trigger, event_id)
);

COMMENT ON COLUMN {schema}.dead_letters.event IS
    'The JSON as it was to be sent, in UTF-8, byte for byte. To read it: convert_from(event, ''UTF8'')';

-- One for each way to choose letters, so that a million stay listable in commit order. No column that a failed replay
-- changes is indexed.
CREATE INDEX ON {schema}.dead_letters (slot, event_id, id);
CREATE INDEX ON {schema}.dead_letters (slot, table_name, event_id, id);
CREATE INDEX ON {schema}.dead_letters (slot, first_failed_at);

-- Saves progress, or raises PB001 (fenced) or PB002 (would move back), each with the sentence to tell.
--
-- A function, because fence, comparison and writing have to be one transaction and one round trip. Its first statement
-- locks the slot's row; the later ones, being statements of a volatile function, see what was committed before the lock
-- was given. So no save and no claim of the same slot can come between.
CREATE FUNCTION {schema}.save_progress(
    writer_slot text,
    writer_epoch bigint,
    new_confirmed_lsn pg_lsn,
    new_triggers text[],
    new_commit_lsns pg_lsn[],
    new_ordinals bigint[]
) RETURNS void
LANGUAGE plpgsql
SET search_path = {schema}, pg_temp
AS $function$
DECLARE
    stored record;
BEGIN
    UPDATE slots SET
        confirmed_lsn = coalesce(new_confirmed_lsn, confirmed_lsn),
        updated_at = clock_timestamp()
    WHERE slot = writer_slot
        AND epoch = writer_epoch
        AND (confirmed_lsn <= new_confirmed_lsn) IS NOT FALSE;
    IF NOT FOUND THEN
        SELECT epoch, confirmed_lsn INTO stored FROM slots WHERE slot = writer_slot;
        IF stored.epoch IS DISTINCT FROM writer_epoch THEN
            RAISE EXCEPTION USING errcode = 'PB001', message = format(
                'slot "%s" was claimed by another process (epoch %s, ours is %s)',
                writer_slot, coalesce(stored.epoch::text, 'none'), writer_epoch);
        END IF;
        RAISE EXCEPTION USING errcode = 'PB002', message = format(
            'the confirmed position of slot "%s" would move back from %s to %s',
            writer_slot, stored.confirmed_lsn, new_confirmed_lsn);
    END IF;

    SELECT given.trigger, checkpoints.commit_lsn, checkpoints.ordinal,
        given.commit_lsn AS new_commit_lsn, given.ordinal AS new_ordinal
    INTO stored
    FROM unnest(new_triggers, new_commit_lsns, new_ordinals) AS given (trigger, commit_lsn, ordinal)
    JOIN checkpoints ON checkpoints.slot = writer_slot AND checkpoints.trigger = given.trigger
    WHERE (checkpoints.commit_lsn, checkpoints.ordinal) > (given.commit_lsn, given.ordinal)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING errcode = 'PB002', message = format(
            'the checkpoint of trigger "%s" would move back from %s, ordinal %s, to %s, ordinal %s',
            stored.trigger, stored.commit_lsn, stored.ordinal, stored.new_commit_lsn, stored.new_ordinal);
    END IF;

    INSERT INTO checkpoints AS old (slot, trigger, commit_lsn, ordinal, updated_at)
    SELECT writer_slot, given.trigger, given.commit_lsn, given.ordinal, clock_timestamp()
    FROM unnest(new_triggers, new_commit_lsns, new_ordinals) AS given (trigger, commit_lsn, ordinal)
    ON CONFLICT (slot, trigger) DO UPDATE SET
        commit_lsn = excluded.commit_lsn,
        ordinal = excluded.ordinal,
        updated_at = excluded.updated_at
    -- What has not moved costs no row version.
    WHERE (old.commit_lsn, old.ordinal) <> (excluded.commit_lsn, excluded.ordinal);
END
$function$;
