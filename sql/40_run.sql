-- Runs: queue and history in one table, and the ledger of what a pass has seen.
--
-- status: queued -> running -> success | error | cancelled | held
--         held -> success (approve_run) | cancelled (reject_run, or a later pass)
-- The process of a run is identified by a session lock (db.c), never by the status: a row
-- with status running while the lock is free is a run whose worker died, and the
-- next worker resumes it.
-- A pass is one walk over the upstream.  A run that fails keeps its cursor;
-- the next run of the configuration gets the same pass_id and resumes, so the
-- ledger of the pass is all pages of all runs with that pass_id.
--
-- In which order a transaction locks what it needs.  Each function takes what it
-- needs of this from the top down; what it does not need it leaves out.
--
--    1  the lock of the runs            who decides about a held run; a worker's session has it
--    2  the lock of the connector       hold_connector, lock_config: shared for all but those who drop it
--    3  the connector's row             who changes connector or configurations: NO KEY UPDATE
--    4  the lock of the queue           trigger_sync
--    5  the configuration's row         NO KEY UPDATE for who changes it, KEY SHARE for who must not
--                                       lose it, UPDATE for who deletes it
--    6  the row of the run, held runs   only when the configuration's row is held
--    7  the lock of events              a webhook with several events (hold_matchings)
--    8  the lock of the matching        exclusive or shared; of several configurations in the order of their ids
--    9  the lock of users' changes
--   10  records                         many in the order of their external ids, or SKIP LOCKED
--   11  matches                         many in the order of their ids, or under the exclusive lock of the matching
--   12  the lock of addresses
--   13  users, profiles, identities
--   14  workflow jobs and their runs
--   15  the row of the run              to note what was done: the last thing of the transaction
--
-- - Notes for others (record_change, departure, user_change, cache_outbox, sync_error)
--   are only ever inserted, so that nothing waits for them; their removal
--   skips locked ones.
-- - Rows of runs and configurations are locked no more than their keys need
--   (NO KEY UPDATE), so that a page, or an uncommitted request, does not
--   block others.
-- - A webhook with several events comes back to records after it has locked users. What
--   keeps others away from both is its turn, and the exclusive locks of the matching of its types.
-- - The lock of the runs is never waited for; it is tried again while no other
--   lock is held.
-- - What remains: the matches and the profiles of one user, matched in
--   two configurations, may be locked in two orders.  Then the server aborts one of
--   two transactions, and a worker retries its own (db.c).

CREATE TABLE flohsync.sync_run (
  id                bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  connector_id      uuid NOT NULL REFERENCES flohsync.connector_definition ON DELETE CASCADE,
  resource_type     varchar(64) COLLATE "C" NOT NULL,
  strategy          varchar(32) CHECK (strategy IN ('full', 'incremental')),
  trigger           text NOT NULL CHECK (trigger IN ('schedule', 'manual', 'retry', 'api')),
  requested_by      name DEFAULT current_user,
  requested_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  started_at        timestamptz,
  finished_at       timestamptz,
  status            text NOT NULL DEFAULT 'queued'
                    CHECK (status IN ('queued', 'running', 'success', 'error', 'cancelled', 'held')),
  cursor            text,
  pages             integer NOT NULL DEFAULT 0,
  complete          boolean,
  incomplete_reason text,
  error             text,
  error_class       text,
  stats             jsonb,
  cancel_requested  boolean NOT NULL DEFAULT false,
  restart           boolean NOT NULL DEFAULT false,
  pass_id           bigint,
  pass_started_at   timestamptz,
  pass_pages        integer,
  modified_since    timestamptz,
  fingerprint       text,
  decided_under     text,
  staled            bigint NOT NULL DEFAULT 0,
  removed           bigint NOT NULL DEFAULT 0,
  crashes           integer NOT NULL DEFAULT 0,
  crash_page        integer,
  timings           jsonb,
  post_sync         jsonb,
  resolved_by       name,
  resolved_at       timestamptz,
  notes             text
);
CREATE UNIQUE INDEX sync_run_open ON flohsync.sync_run (connector_id, resource_type)
 WHERE status IN ('queued', 'running');
CREATE INDEX sync_run_history ON flohsync.sync_run (connector_id, resource_type, id DESC);
CREATE INDEX sync_run_held ON flohsync.sync_run (connector_id, resource_type, id) WHERE status = 'held';
CREATE INDEX sync_run_pass ON flohsync.sync_run (pass_id);
CREATE INDEX sync_run_finished ON flohsync.sync_run (finished_at) WHERE finished_at IS NOT NULL;
-- For forget_history(): what ended well does not stay as long as what failed.
CREATE INDEX sync_run_ended ON flohsync.sync_run (finished_at) WHERE status IN ('success', 'cancelled');
CREATE INDEX sync_run_failed ON flohsync.sync_run (finished_at) WHERE status = 'error';
COMMENT ON TABLE flohsync.sync_run IS 'Queue and history of runs';
COMMENT ON COLUMN flohsync.sync_run.id IS 'Identity of the run';
COMMENT ON COLUMN flohsync.sync_run.connector_id IS 'Connector';
COMMENT ON COLUMN flohsync.sync_run.resource_type IS 'Resource type';
COMMENT ON COLUMN flohsync.sync_run.strategy IS 'full or incremental; null in the queue: the configuration''s';
COMMENT ON COLUMN flohsync.sync_run.trigger IS 'What asked for the run: schedule, manual, retry or api';
COMMENT ON COLUMN flohsync.sync_run.requested_by IS 'Role that asked for it';
COMMENT ON COLUMN flohsync.sync_run.requested_at IS 'When it was asked for';
COMMENT ON COLUMN flohsync.sync_run.started_at IS 'When a worker first took it';
COMMENT ON COLUMN flohsync.sync_run.finished_at IS 'When it ended';
COMMENT ON COLUMN flohsync.sync_run.status IS 'queued, running, success, error, cancelled or held';
COMMENT ON COLUMN flohsync.sync_run.cursor IS 'Cursor at which a failed run stopped and the next one resumes';
COMMENT ON COLUMN flohsync.sync_run.pages IS 'Pages applied by this run';
COMMENT ON COLUMN flohsync.sync_run.complete IS 'Whether the pass is complete';
COMMENT ON COLUMN flohsync.sync_run.incomplete_reason IS 'Why it is not';
COMMENT ON COLUMN flohsync.sync_run.error IS 'What went wrong, or why the run is held';
COMMENT ON COLUMN flohsync.sync_run.error_class IS 'Machine-readable class of the error';
COMMENT ON COLUMN flohsync.sync_run.stats IS 'Statistics of the run';
COMMENT ON COLUMN flohsync.sync_run.cancel_requested IS 'Whether cancelling the run has been requested';
COMMENT ON COLUMN flohsync.sync_run.restart IS 'Whether a new pass has been requested instead of resuming a failed one';
COMMENT ON COLUMN flohsync.sync_run.pass_id IS 'First run of the pass that this run belongs to';
COMMENT ON COLUMN flohsync.sync_run.pass_started_at IS 'When the pass began';
COMMENT ON COLUMN flohsync.sync_run.pass_pages IS 'Pages of the pass at the end of the run';
COMMENT ON COLUMN flohsync.sync_run.modified_since IS 'Start of the changes that an incremental pass requests';
COMMENT ON COLUMN flohsync.sync_run.fingerprint IS
  'Fingerprint of the settings that define the pass; a failed pass is resumed only while it is unchanged';
COMMENT ON COLUMN flohsync.sync_run.decided_under IS
  'Fingerprint of the connector, the strategy and the filters when the run began; a held run can be approved '
  'only while it is unchanged';
COMMENT ON COLUMN flohsync.sync_run.staled IS 'Records that the run marked stale';
COMMENT ON COLUMN flohsync.sync_run.removed IS 'Stale records that the run purged';
COMMENT ON COLUMN flohsync.sync_run.crashes IS 'Number of consecutive crashes of its worker without progress';
COMMENT ON COLUMN flohsync.sync_run.crash_page IS 'Highest number of applied pages at a crash of a worker';
COMMENT ON COLUMN flohsync.sync_run.timings IS 'Duration of the stages of the run, in milliseconds';
COMMENT ON COLUMN flohsync.sync_run.post_sync IS
  'Results and failures of post-sync processing; null when there was nothing to do';
COMMENT ON COLUMN flohsync.sync_run.resolved_by IS 'Role that approved or rejected a held run';
COMMENT ON COLUMN flohsync.sync_run.resolved_at IS 'When that was';
COMMENT ON COLUMN flohsync.sync_run.notes IS 'Notes given with it';
SELECT _flohsync.allow('reader', 'flohsync.sync_run');

CREATE TABLE flohsync.sync_run_page (
  run_id         bigint NOT NULL REFERENCES flohsync.sync_run ON DELETE CASCADE,
  page           integer NOT NULL,
  cursor         text,
  next_cursor    text,
  fetched_at     timestamptz NOT NULL,
  records        integer NOT NULL,
  bytes          bigint NOT NULL,
  fetch_ms       real NOT NULL,
  apply_ms       real NOT NULL,
  added          integer NOT NULL,
  updated        integer NOT NULL,
  unchanged      integer NOT NULL,
  restored       integer NOT NULL,
  filtered       integer NOT NULL,
  errored        integer NOT NULL,
  ignored        integer NOT NULL,
  duplicates     integer NOT NULL,
  truncated      integer NOT NULL,
  unidentified   integer NOT NULL,
  total_estimate bigint,
  seen           bytea,
  deleted        text[],
  changed        uuid[],
  incomplete     text,
  link           text,
  unread         boolean NOT NULL DEFAULT false,
  print          bigint,
  PRIMARY KEY (run_id, page)
);
ALTER TABLE flohsync.sync_run_page ALTER COLUMN seen SET STORAGE EXTERNAL;
ALTER TABLE flohsync.sync_run_page ALTER COLUMN changed SET STORAGE EXTERNAL;
CREATE INDEX sync_run_page_seen ON flohsync.sync_run_page (run_id) WHERE seen IS NOT NULL;
CREATE INDEX sync_run_page_changed ON flohsync.sync_run_page (run_id) WHERE changed IS NOT NULL;
COMMENT ON TABLE flohsync.sync_run_page IS 'One row per applied page: the ledger of a pass';
COMMENT ON COLUMN flohsync.sync_run_page.run_id IS 'Run that applied the page';
COMMENT ON COLUMN flohsync.sync_run_page.page IS 'Number of the page in its pass, from 1';
COMMENT ON COLUMN flohsync.sync_run_page.cursor IS 'Cursor of the request for the page';
COMMENT ON COLUMN flohsync.sync_run_page.next_cursor IS 'Cursor of the next page; null on the last one';
COMMENT ON COLUMN flohsync.sync_run_page.fetched_at IS 'When the request was sent; the records count as observed then';
COMMENT ON COLUMN flohsync.sync_run_page.records IS 'Records received, before filters';
COMMENT ON COLUMN flohsync.sync_run_page.bytes IS 'Size of the answer';
COMMENT ON COLUMN flohsync.sync_run_page.fetch_ms IS 'Milliseconds from request to answer';
COMMENT ON COLUMN flohsync.sync_run_page.apply_ms IS 'Milliseconds of reading, comparing and writing';
COMMENT ON COLUMN flohsync.sync_run_page.added IS 'New records';
COMMENT ON COLUMN flohsync.sync_run_page.updated IS 'Changed records';
COMMENT ON COLUMN flohsync.sync_run_page.unchanged IS 'Records as stored';
COMMENT ON COLUMN flohsync.sync_run_page.restored IS 'Stale records that are back';
COMMENT ON COLUMN flohsync.sync_run_page.filtered IS 'Records out of scope';
COMMENT ON COLUMN flohsync.sync_run_page.errored IS 'Records set aside (see sync_error)';
COMMENT ON COLUMN flohsync.sync_run_page.ignored IS 'Records older than what is stored';
COMMENT ON COLUMN flohsync.sync_run_page.duplicates IS 'Records whose id occurred again on the page';
COMMENT ON COLUMN flohsync.sync_run_page.truncated IS 'Display names cut to 255 characters';
COMMENT ON COLUMN flohsync.sync_run_page.unidentified IS 'Records set aside whose id could not be read';
COMMENT ON COLUMN flohsync.sync_run_page.total_estimate IS 'Total number of records reported by the upstream';
COMMENT ON COLUMN flohsync.sync_run_page.seen IS
  'record_no of every record seen, as ranges (ledger.c); kept until a later full pass is complete; null while the run '
  'of a page with a print is running: then that has them';
COMMENT ON COLUMN flohsync.sync_run_page.deleted IS 'While the pass is open: ids that the upstream reported as deleted';
COMMENT ON COLUMN flohsync.sync_run_page.changed IS
  'Records added, updated and restored, in this order, until post-sync has processed them; null where '
  'post-sync does not need them';
COMMENT ON COLUMN flohsync.sync_run_page.incomplete IS 'Why the pass cannot be complete from this page on';
COMMENT ON COLUMN flohsync.sync_run_page.unread IS
  'Whether that is because something was not read and must be requested again, so that the watermark stays';
COMMENT ON COLUMN flohsync.sync_run_page.link IS
  'Delta link from which the next incremental pass starts; empty: it starts without one';
COMMENT ON COLUMN flohsync.sync_run_page.print IS
  'Fingerprint of the last complete pass that the page had, byte for byte, so that it was not read again; null: none';
SELECT _flohsync.allow('reader', 'flohsync.sync_run_page');

CREATE TABLE flohsync.sync_error (
  id          bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  run_id      bigint REFERENCES flohsync.sync_run ON DELETE CASCADE,
  page        integer,
  external_id text,
  error_class text NOT NULL,
  message     text NOT NULL,
  payload     text,
  created_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  connector_id  uuid REFERENCES flohsync.connector_definition ON DELETE CASCADE,
  resource_type varchar(64) COLLATE "C",
  CHECK ((run_id IS NULL) = (connector_id IS NOT NULL))
);
CREATE INDEX sync_error_webhook ON flohsync.sync_error (created_at) WHERE run_id IS NULL;
CREATE INDEX sync_error_run ON flohsync.sync_error (run_id);
COMMENT ON TABLE flohsync.sync_error IS 'Records that were set aside';
COMMENT ON COLUMN flohsync.sync_error.id IS 'Identity of the error';
COMMENT ON COLUMN flohsync.sync_error.run_id IS 'Run; null: a webhook, or upsert_resources()';
COMMENT ON COLUMN flohsync.sync_error.page IS 'Page';
COMMENT ON COLUMN flohsync.sync_error.external_id IS 'Id of the record, where it has one';
COMMENT ON COLUMN flohsync.sync_error.error_class IS 'Machine-readable class of the error';
COMMENT ON COLUMN flohsync.sync_error.message IS 'What is wrong with the record';
COMMENT ON COLUMN flohsync.sync_error.payload IS 'The record, cut at 4 kB';
COMMENT ON COLUMN flohsync.sync_error.created_at IS 'When the record was set aside';
COMMENT ON COLUMN flohsync.sync_error.connector_id IS 'Connector of the webhook or the records; null: see the run';
COMMENT ON COLUMN flohsync.sync_error.resource_type IS 'Resource type of the webhook or the records; null: see the run';
SELECT _flohsync.allow('reader', 'flohsync.sync_error');

CREATE FUNCTION _flohsync.passes(_state text) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN _state = '55P03' OR pg_catalog.left(_state, 2) IN ('08', '40', '53', '57', '58');
COMMENT ON FUNCTION _flohsync.passes(text) IS
  'Whether an error is transient: a lock or transaction of another session, a connection, insufficient resources, a '
  'shutdown';

CREATE FUNCTION _flohsync.lock_queue(_connector uuid, _type text, _wait boolean) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  key text := concat_ws('/', _connector, _type);
BEGIN
  IF _wait THEN
    PERFORM _flohsync.lock('queue', key, false);
    RETURN true;
  END IF;
  RETURN _flohsync.try_lock('queue', key, false);
END
$$;
COMMENT ON FUNCTION _flohsync.lock_queue(uuid, text, boolean) IS
  'Lock of the queue of a configuration, held until a newly queued run is committed; false when it is '
  'not available without waiting';

-- Ledger of a pass, in C: ledger.c tells the format.
CREATE FUNCTION _flohsync.ledger_union(_pages bytea[]) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_ledger_union';
COMMENT ON FUNCTION _flohsync.ledger_union(bytea[]) IS
  'Union of the records that a set of pages has seen, for ledger_has';
CREATE FUNCTION _flohsync.ledger_count(_seen bytea) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_ledger_count';
COMMENT ON FUNCTION _flohsync.ledger_count(bytea) IS 'How many record_no are in what ledger_union returned';
CREATE FUNCTION _flohsync.ledger_has(_seen bytea, _num bigint) RETURNS boolean
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'flohsync_ledger_has';
COMMENT ON FUNCTION _flohsync.ledger_has(bytea, bigint) IS 'Whether a record_no is in what ledger_union returned';
CREATE FUNCTION _flohsync.ledger_last(_pages bytea[], _numbers integer[], _nums bigint[]) RETURNS integer[]
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_ledger_last';
COMMENT ON FUNCTION _flohsync.ledger_last(bytea[], integer[], bigint[]) IS
  'For each of some record_no the highest number of a page that has seen it, 0 when none has';

-- By the index of these pages, which are few, whatever the planner knows of the table; the next two as well.
CREATE FUNCTION _flohsync.runs_with_changes(_connector uuid, _type text) RETURNS bigint[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
  RETURN ARRAY(
    WITH changed AS MATERIALIZED (SELECT DISTINCT p.run_id FROM flohsync.sync_run_page p WHERE p.changed IS NOT NULL)
    SELECT c.run_id FROM changed c
     WHERE (SELECT r.connector_id = _connector AND r.resource_type = _type FROM flohsync.sync_run r
             WHERE r.id = c.run_id));
END
$$;
COMMENT ON FUNCTION _flohsync.runs_with_changes(uuid, text) IS
  'Runs of a configuration with pages whose changes post-sync has not processed';

CREATE FUNCTION _flohsync.changed_by_pages(_runs bigint[]) RETURNS uuid[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
  RETURN ARRAY(SELECT e.id FROM flohsync.sync_run_page p CROSS JOIN LATERAL unnest(p.changed) e(id)
                WHERE p.changed IS NOT NULL AND p.run_id = ANY (_runs));
END
$$;
COMMENT ON FUNCTION _flohsync.changed_by_pages(bigint[]) IS
  'Records that the pages of some runs have changed and post-sync has not processed';

CREATE FUNCTION _flohsync.forget_page_changes(_runs bigint[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
  UPDATE flohsync.sync_run_page p SET changed = NULL WHERE p.changed IS NOT NULL AND p.run_id = ANY (_runs);
END
$$;
COMMENT ON FUNCTION _flohsync.forget_page_changes(bigint[]) IS
  'Notes that post-sync has processed what the pages of some runs have changed';

CREATE FUNCTION _flohsync.page_changes(_page flohsync.sync_run_page, OUT resource_id uuid, OUT change text)
  RETURNS SETOF record
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT e.id, CASE WHEN e.position <= (_page).added THEN 'added'
                    WHEN e.position <= (_page).added + (_page).updated THEN 'updated' ELSE 'restored' END
    FROM pg_catalog.unnest((_page).changed) WITH ORDINALITY AS e(id, position);
END;
COMMENT ON FUNCTION _flohsync.page_changes(flohsync.sync_run_page) IS 'The records that a page changed, and how';

CREATE FUNCTION _flohsync.forget_pass(_pass bigint) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  UPDATE flohsync.sync_run_page p SET seen = NULL, deleted = NULL
    FROM flohsync.sync_run r
   WHERE r.pass_id = _pass AND p.run_id = r.id AND (p.seen IS NOT NULL OR p.deleted IS NOT NULL);
END;
COMMENT ON FUNCTION _flohsync.forget_pass(bigint) IS 'Removes the ledger of a pass when it is not needed any more';

-- When a full pass was complete it forgot what was before it, so that no more is looked
-- at than the runs since the one before: the history of a configuration may be long.
-- By index: a worker keeps a plan that it made while there were few pages.
CREATE FUNCTION _flohsync.forget_seen(_connector uuid, _type text, _run bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
  before bigint;
BEGIN
  SELECT r.id INTO before FROM flohsync.sync_run r
   WHERE r.connector_id BETWEEN _connector AND _connector AND r.resource_type = _type AND r.id < _run
     AND r.status = 'success' AND r.complete AND r.strategy = 'full'
   ORDER BY r.connector_id, r.id DESC LIMIT 1;
  UPDATE flohsync.sync_run_page p SET seen = NULL, deleted = NULL
   WHERE p.seen IS NOT NULL
     AND p.run_id = ANY (ARRAY(
       SELECT r.id FROM flohsync.sync_run r
        WHERE r.connector_id = _connector AND r.resource_type = _type AND r.id BETWEEN coalesce(before, 0) AND _run
          AND r.status NOT IN ('queued', 'running', 'held')));
END
$$;
COMMENT ON FUNCTION _flohsync.forget_seen(uuid, text, bigint) IS
  'Removes the ledgers of the runs of a configuration up to one, after a complete pass';

-- Made from page_counters(); by index, as in forget_seen().
DO $do$
BEGIN
  EXECUTE format($create$
    CREATE FUNCTION _flohsync.page_sums(_runs bigint[],
      OUT pages bigint, OUT records bigint, OUT bytes numeric, OUT passed bigint, OUT stats jsonb)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off
    AS $$
    BEGIN
      SELECT count(*), coalesce(sum(p.records), 0), coalesce(sum(p.bytes), 0), coalesce(sum(%s), 0),
        jsonb_build_object(%s)
        INTO pages, records, bytes, passed, stats
        FROM flohsync.sync_run_page p WHERE p.run_id = ANY (_runs);
    END
    $$ $create$,
    (SELECT string_agg(format('p.%I', c.counter), ' + ') FROM _flohsync.page_counters() c WHERE c.passed),
    (SELECT string_agg(format('%1$L, coalesce(sum(p.%1$I), 0)', c.counter), ', ')
       FROM _flohsync.page_counters() c WHERE c.in_stats));
END
$do$;
COMMENT ON FUNCTION _flohsync.page_sums(bigint[]) IS
  'Sums over the pages of some runs: pages, records, bytes, records that passed the filters, and '
  'what the stats of a run show';

CREATE FUNCTION _flohsync.run_stats(_run bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN (
    SELECT s.stats || jsonb_build_object(
        'staled', r.staled, 'removed', r.removed,
        'durationMs', coalesce(round(extract(epoch FROM coalesce(r.finished_at, clock_timestamp()) - r.started_at)
                                     * 1000), 0),
        'pagesProcessed', s.pages, 'totalUpstreamRecords', s.records, 'bytes', s.bytes, 'complete',
          coalesce(r.complete, false))
        || CASE WHEN r.post_sync IS NULL THEN '{}' ELSE jsonb_build_object('postSync', r.post_sync) END
      FROM flohsync.sync_run r CROSS JOIN LATERAL _flohsync.page_sums(ARRAY[r.id]) s
     WHERE r.id = _run);
END
$$;
COMMENT ON FUNCTION _flohsync.run_stats(bigint) IS 'Statistics of a run, summed from its pages';

CREATE FUNCTION _flohsync.totals_of(_stats jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN (
    SELECT coalesce(jsonb_object_agg(e.key, e.value), '{}')
      FROM jsonb_each((_stats - 'postSync') || coalesce(_stats -> 'postSync', '{}')) e
     WHERE jsonb_typeof(e.value) = 'number');
END
$$;
COMMENT ON FUNCTION _flohsync.totals_of(jsonb) IS 'The figures of a run''s statistics that are summed over all runs';

CREATE FUNCTION _flohsync.decided_under(_d flohsync.connector_definition, _c flohsync.connector_sync_config)
  RETURNS text
LANGUAGE sql STABLE
RETURN _flohsync.digest(pg_catalog.jsonb_build_array(
  (_c).strategy, (_d).kind, (_d).config, (_d).definition, (_c).filter_rules)::text);
COMMENT ON FUNCTION _flohsync.decided_under(flohsync.connector_definition, flohsync.connector_sync_config) IS
  'Fingerprint of everything that determines which records are in scope of a configuration';

CREATE FUNCTION _flohsync.fingerprint(_strategy text, _d flohsync.connector_definition,
                                      _c flohsync.connector_sync_config) RETURNS text
LANGUAGE sql STABLE
RETURN _flohsync.digest(pg_catalog.jsonb_build_array(
  _strategy, (_d).kind, (_d).config, (_d).definition, (_c).filter_rules, (_c).hash_ignore)::text);
COMMENT ON FUNCTION _flohsync.fingerprint(text, flohsync.connector_definition, flohsync.connector_sync_config) IS
  'Fingerprint of the settings that define a pass';
