-- What the store asks of the database. Each query stands under its name; `{schema}` is quoted in, `%(name)s` is a
-- parameter, and other braces hold a part of the query that depends on the question.


-- prepare_session --
-- Roles and databases can set any of these otherwise. Where commits are not even flushed, they are from here on: a slot
-- confirmed past a checkpoint or a dead letter that a crash takes back is a loss. A stronger setting is kept. What would
-- end a session that waits, as a replay's, is turned off; older servers lack some of it.
SELECT
    pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false),
    pg_catalog.set_config('timezone', 'UTC', false),
    pg_catalog.set_config('datestyle', 'ISO', false),
    pg_catalog.set_config('default_transaction_isolation', 'read committed', false),
    pg_catalog.set_config('statement_timeout', %(statement_timeout)s, false),
    pg_catalog.set_config('lock_timeout', %(lock_timeout)s, false),
    pg_catalog.set_config('idle_in_transaction_session_timeout', %(idle_in_transaction_timeout)s, false),
    pg_catalog.set_config('jit', 'off', false),
    pg_catalog.set_config(
        'synchronous_commit',
        CASE WHEN pg_catalog.current_setting('synchronous_commit') IN ('off', 'local') THEN 'on'
        ELSE pg_catalog.current_setting('synchronous_commit') END,
        false
    ),
    (
        SELECT pg_catalog.count(pg_catalog.set_config(name, '0', false))
        FROM pg_catalog.pg_settings WHERE name IN ('idle_session_timeout', 'transaction_timeout')
    )


-- has_version_table --
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = %(schema)s AND relname = 'schema_version'
)


-- has_schema --
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s)


-- installed_version --
SELECT coalesce(max(version), 0) FROM {schema}.schema_version


-- take_migration_lock --
SELECT pg_advisory_xact_lock(%(key)s)


-- progress --
SELECT s.epoch, s.confirmed_lsn, s.system_identifier, s.timeline, s.database, c.trigger, c.commit_lsn, c.ordinal
FROM {schema}.slots AS s LEFT JOIN {schema}.checkpoints AS c USING (slot)
WHERE s.slot = %(slot)s


-- raise_epoch --
-- Waits for a save that is under way and bars those of older epochs. What it stored must be read by a later statement:
-- this one's snapshot may be older than the lock.
INSERT INTO {schema}.slots AS old (slot, system_identifier, timeline, database, epoch)
VALUES (%(slot)s, %(system_identifier)s, %(timeline)s, %(database)s, 1)
ON CONFLICT (slot) DO UPDATE SET
    epoch = old.epoch + 1,
    system_identifier = coalesce(old.system_identifier, excluded.system_identifier),
    timeline = coalesce(old.timeline, excluded.timeline),
    database = coalesce(old.database, excluded.database),
    updated_at = now()


-- backend --
SELECT pg_backend_pid()


-- end_what_holds_up --
-- Sessions of the same role and program alone: an operator's is left to the operator.
SELECT pg_terminate_backend(a.pid)
FROM pg_stat_activity a
WHERE a.pid = ANY (pg_blocking_pids(%(backend)s))
  AND a.usename = current_user
  AND a.application_name = current_setting('application_name')


-- adopt_identity --
UPDATE {schema}.slots SET
    system_identifier = %(system_identifier)s,
    timeline = %(timeline)s,
    database = %(database)s,
    updated_at = now()
WHERE slot = %(slot)s AND epoch = %(epoch)s


-- forget_slot --
-- The row stays, with a higher epoch: a process of before must not find its old epoch again.
UPDATE {schema}.slots SET
    epoch = epoch + 1,
    system_identifier = NULL,
    timeline = NULL,
    database = NULL,
    confirmed_lsn = NULL,
    updated_at = now()
WHERE slot = %(slot)s


-- forget_checkpoints --
DELETE FROM {schema}.checkpoints WHERE slot = %(slot)s


-- save_progress --
SELECT {schema}.save_progress(
    %(slot)s, %(epoch)s, %(confirmed_lsn)s::pg_lsn,
    %(triggers)s::text[], %(commit_lsns)s::pg_lsn[], %(ordinals)s::bigint[]
)


-- set_aside --
-- Repeating it changes nothing: a save whose answer was lost is made again.
INSERT INTO {schema}.dead_letters AS old (
    slot, trigger, event_id, table_name, event, error, detail, status, request_id, log_tail, attempts,
    first_failed_at, last_failed_at, ordering_key, old_ordering_key, barrier, report
)
VALUES (
    %(slot)s, %(trigger)s, %(event_id)s, %(table)s, %(event)b, %(error)s, %(detail)s, %(status)s, %(request_id)s,
    %(log_tail)s, %(attempts)s, %(first_failed_at)s, %(last_failed_at)s, %(ordering_key)b, %(old_ordering_key)b,
    %(barrier)s, %(report)s
)
ON CONFLICT (slot, trigger, event_id) DO UPDATE SET
    event = excluded.event,
    error = excluded.error,
    detail = excluded.detail,
    status = excluded.status,
    request_id = excluded.request_id,
    log_tail = excluded.log_tail,
    attempts = greatest(old.attempts, excluded.attempts),
    first_failed_at = least(old.first_failed_at, excluded.first_failed_at),
    last_failed_at = greatest(old.last_failed_at, excluded.last_failed_at),
    ordering_key = excluded.ordering_key,
    old_ordering_key = excluded.old_ordering_key,
    barrier = excluded.barrier,
    report = excluded.report


-- page_of_letters --
-- The sizes come from the rows' headers, so what is over the page's bytes is not fetched from its TOAST table.
SELECT {columns} FROM (
    SELECT page.*, sum({size}) OVER (ORDER BY event_id, id) - {size} AS bytes_before
    FROM (
        SELECT * FROM {schema}.dead_letters WHERE {conditions} ORDER BY event_id, id LIMIT %(rows)s
    ) AS page
) AS sized
WHERE bytes_before < %(bytes)s
ORDER BY event_id, id


-- survey_letters --
SELECT trigger, count(*), max(id) FROM {schema}.dead_letters WHERE {conditions} GROUP BY trigger


-- letter_keys --
SELECT DISTINCT key, barrier
FROM {schema}.dead_letters, unnest(ARRAY[ordering_key, old_ordering_key]) AS key
WHERE slot = %(slot)s AND trigger = %(trigger)s


-- schema_guards --
SELECT trigger, item, content FROM {schema}.schema_guards WHERE slot = %(slot)s


-- hold_epoch --
-- Until the end of the transaction no other process claims the slot; no row where one has.
SELECT FROM {schema}.slots WHERE slot = %(slot)s AND epoch = %(epoch)s FOR SHARE


-- keep_schema_item --
INSERT INTO {schema}.schema_guards (slot, trigger, item, content)
VALUES (%(slot)s, %(trigger)s, %(item)s, %(content)s)
ON CONFLICT (slot, trigger, item) DO UPDATE SET content = excluded.content


-- pauses --
SELECT trigger, reason, remedy, target FROM {schema}.pauses WHERE slot = %(slot)s


-- keep_pause --
-- The same again is no new pause.
INSERT INTO {schema}.pauses AS old (slot, trigger, reason, remedy, target)
VALUES (%(slot)s, %(trigger)s, %(reason)s, %(remedy)s, %(target)s)
ON CONFLICT (slot, trigger) DO UPDATE SET
    reason = excluded.reason, remedy = excluded.remedy, target = excluded.target, paused_at = now()
WHERE (old.reason, old.remedy, old.target) IS DISTINCT FROM (excluded.reason, excluded.remedy, excluded.target)


-- drop_pause --
DELETE FROM {schema}.pauses WHERE slot = %(slot)s AND trigger = %(trigger)s


-- drop_schema_item --
DELETE FROM {schema}.schema_guards WHERE slot = %(slot)s AND trigger = %(trigger)s AND item = %(item)s


-- forget_schema_guards --
DELETE FROM {schema}.schema_guards WHERE slot = %(slot)s


-- mark_reported --
UPDATE {schema}.dead_letters SET report = NULL WHERE id = ANY (%(ids)s) AND report IS NOT NULL


-- discard_letters --
DELETE FROM {schema}.dead_letters WHERE id = ANY (%(ids)s)


-- fail_letter_again --
UPDATE {schema}.dead_letters SET
    error = %(error)s,
    detail = %(detail)s,
    status = %(status)s,
    request_id = %(request_id)s,
    log_tail = %(log_tail)s,
    attempts = attempts + 1,
    last_failed_at = greatest(last_failed_at, now())
WHERE id = %(id)s


-- try_replay_lock --
SELECT pg_try_advisory_lock(%(key)s)


-- check_replay_lock --
-- Asked through a pooler that lends connections by the transaction, another session would answer.
SELECT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (classid::bigint << 32 | objid::bigint) = %(key)s AND objsubid = 1
)


-- backlogs --
SELECT trigger, sum(events)::bigint, sum(body_bytes)::bigint
FROM {schema}.backlog_segments
WHERE slot = %(slot)s AND events > 0
GROUP BY trigger
ORDER BY trigger


-- segments --
SELECT segment, trigger, first_event_id, last_event_id, written_bytes
FROM {schema}.backlog_segments
WHERE slot = %(slot)s
ORDER BY segment


-- open_segment --
SELECT {schema}.open_backlog_segment(%(slot)s, %(trigger)s)


-- park --
COPY {table} (
    trigger, event_id, committed_at, table_name, action, ordering_key, old_ordering_key, barrier, attempts,
    first_failed_at, event
) FROM STDIN (FORMAT binary)


-- count_parked --
UPDATE {schema}.backlog_segments SET
    first_event_id = least(first_event_id, %(first)s),
    last_event_id = greatest(last_event_id, %(last)s),
    events = events + %(events)s,
    body_bytes = body_bytes + %(body_bytes)s,
    written_bytes = written_bytes + %(body_bytes)s
WHERE segment = %(segment)s


-- take_out --
WITH gone AS (
    DELETE FROM {table} WHERE event_id = ANY (%(ids)s::text[]) RETURNING octet_length(event) AS size
)
UPDATE {schema}.backlog_segments SET
    events = events - (SELECT count(*) FROM gone),
    body_bytes = body_bytes - (SELECT coalesce(sum(size), 0) FROM gone)
WHERE segment = %(segment)s


-- page_of_backlog --
-- As for letters: the sizes come from the rows' headers.
SELECT
    event_id, extract(epoch FROM committed_at)::float8, table_name, action, ordering_key, old_ordering_key, barrier,
    attempts, coalesce(extract(epoch FROM first_failed_at), 0)::float8, event
FROM (
    SELECT page.*, sum(octet_length(event)) OVER (ORDER BY event_id) - octet_length(event) AS bytes_before
    FROM (SELECT * FROM ({segments}) AS merged ORDER BY event_id LIMIT %(rows)s) AS page
) AS sized
WHERE bytes_before < %(bytes)s
ORDER BY event_id


-- page_of_segment --
(SELECT * FROM {table} WHERE event_id > %(after)s AND event_id < %(until)s ORDER BY event_id LIMIT %(rows)s)


-- empty_segments --
SELECT segment FROM {schema}.backlog_segments WHERE slot = %(slot)s AND events = 0 ORDER BY segment LIMIT %(most)s


-- close_segment --
SELECT {schema}.close_backlog_segment(%(slot)s, %(epoch)s, %(segment)s)
