-- Runs: queue and history in one table, and the ledger of what a pass has seen.
--
-- status: queued -> running -> success | error | cancelled | held
--         held -> success (approve_run) | cancelled (reject_run, or a later pass)
-- Who runs a run is told by a session lock (db.c), never by the status: a row
-- that says running while the lock is free is a run whose worker died, and the
-- next worker goes on with it.
-- A pass is one walk over the upstream.  A run that fails keeps its cursor;
-- the next run of the configuration gets the same pass_id and goes on, so the
-- ledger of the pass is all pages of all runs with that pass_id.

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
  pass_id           bigint,
  pass_started_at   timestamptz,
  pass_pages        integer,
  modified_since    timestamptz,
  fingerprint       text,
  staled            bigint NOT NULL DEFAULT 0,
  removed           bigint NOT NULL DEFAULT 0,
  crashes           integer NOT NULL DEFAULT 0,
  crash_page        integer,
  timings           jsonb,
  resolved_by       name,
  resolved_at       timestamptz,
  notes             text
);
CREATE UNIQUE INDEX sync_run_open ON flohsync.sync_run (connector_id, resource_type)
 WHERE status IN ('queued', 'running');
CREATE INDEX sync_run_history ON flohsync.sync_run (connector_id, resource_type, id DESC);
CREATE INDEX sync_run_pass ON flohsync.sync_run (pass_id);
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
COMMENT ON COLUMN flohsync.sync_run.cursor IS 'Where a failed run stopped, and the next one goes on';
COMMENT ON COLUMN flohsync.sync_run.pages IS 'Pages applied by this run';
COMMENT ON COLUMN flohsync.sync_run.complete IS 'Whether the pass saw everything there is';
COMMENT ON COLUMN flohsync.sync_run.incomplete_reason IS 'Why it did not';
COMMENT ON COLUMN flohsync.sync_run.error IS 'What went wrong, or why the run is held';
COMMENT ON COLUMN flohsync.sync_run.error_class IS 'Kind of the error, for machines';
COMMENT ON COLUMN flohsync.sync_run.stats IS 'Statistics of the run';
COMMENT ON COLUMN flohsync.sync_run.cancel_requested IS 'Somebody asked the run to stop';
COMMENT ON COLUMN flohsync.sync_run.pass_id IS 'First run of the pass that this run is part of';
COMMENT ON COLUMN flohsync.sync_run.pass_started_at IS 'When the pass began';
COMMENT ON COLUMN flohsync.sync_run.pass_pages IS 'Pages of the pass at the end of the run';
COMMENT ON COLUMN flohsync.sync_run.modified_since IS 'What an incremental pass asks for';
COMMENT ON COLUMN flohsync.sync_run.fingerprint IS 'Of all that makes a pass what it is; a failed pass goes on only under the same';
COMMENT ON COLUMN flohsync.sync_run.staled IS 'Records that the run marked stale';
COMMENT ON COLUMN flohsync.sync_run.removed IS 'Stale records that the run purged';
COMMENT ON COLUMN flohsync.sync_run.crashes IS 'How often in a row its worker died on the same page';
COMMENT ON COLUMN flohsync.sync_run.crash_page IS 'Pages applied when its worker last died';
COMMENT ON COLUMN flohsync.sync_run.timings IS 'Where the time of the run went: milliseconds by stage';
COMMENT ON COLUMN flohsync.sync_run.resolved_by IS 'Role that approved or rejected a held run';
COMMENT ON COLUMN flohsync.sync_run.resolved_at IS 'When it did';
COMMENT ON COLUMN flohsync.sync_run.notes IS 'What it noted';

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
  PRIMARY KEY (run_id, page)
);
ALTER TABLE flohsync.sync_run_page ALTER COLUMN seen SET STORAGE EXTERNAL;
COMMENT ON TABLE flohsync.sync_run_page IS 'One row per applied page: the ledger of a pass';
COMMENT ON COLUMN flohsync.sync_run_page.run_id IS 'Run that applied the page';
COMMENT ON COLUMN flohsync.sync_run_page.page IS 'Number of the page in its pass, from 1';
COMMENT ON COLUMN flohsync.sync_run_page.cursor IS 'Cursor that the page was asked with';
COMMENT ON COLUMN flohsync.sync_run_page.next_cursor IS 'Cursor of the next page; null on the last one';
COMMENT ON COLUMN flohsync.sync_run_page.fetched_at IS 'When the request was sent: the page is no newer than that';
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
COMMENT ON COLUMN flohsync.sync_run_page.duplicates IS 'Records whose id came again on the page';
COMMENT ON COLUMN flohsync.sync_run_page.truncated IS 'Display names cut to 255 characters';
COMMENT ON COLUMN flohsync.sync_run_page.unidentified IS 'Records set aside whose id could not be read';
COMMENT ON COLUMN flohsync.sync_run_page.total_estimate IS 'What the upstream said there is in all';
COMMENT ON COLUMN flohsync.sync_run_page.seen IS 'While the pass is open: the num of every record seen, as ranges (ledger.c)';
COMMENT ON COLUMN flohsync.sync_run_page.deleted IS 'While the pass is open: ids that the upstream said are deleted';

CREATE TABLE flohsync.sync_error (
  id          bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  run_id      bigint NOT NULL REFERENCES flohsync.sync_run ON DELETE CASCADE,
  page        integer,
  external_id text,
  error_class text NOT NULL,
  message     text NOT NULL,
  payload     text,
  created_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE INDEX sync_error_run ON flohsync.sync_error (run_id);
COMMENT ON TABLE flohsync.sync_error IS 'Records that were set aside';
COMMENT ON COLUMN flohsync.sync_error.id IS 'Identity of the error';
COMMENT ON COLUMN flohsync.sync_error.run_id IS 'Run';
COMMENT ON COLUMN flohsync.sync_error.page IS 'Page';
COMMENT ON COLUMN flohsync.sync_error.external_id IS 'Id of the record, where it has one';
COMMENT ON COLUMN flohsync.sync_error.error_class IS 'Kind of the error, for machines';
COMMENT ON COLUMN flohsync.sync_error.message IS 'What is wrong with the record';
COMMENT ON COLUMN flohsync.sync_error.payload IS 'The record, cut at 4 kB';
COMMENT ON COLUMN flohsync.sync_error.created_at IS 'When the record was set aside';

-- Ledger of a pass, in C: ledger.c tells the format.
CREATE FUNCTION flohsync._ledger_union(_pages bytea[]) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_ledger_union';
COMMENT ON FUNCTION flohsync._ledger_union(bytea[]) IS 'What a set of pages has seen, made for _ledger_has';
CREATE FUNCTION flohsync._ledger_has(_seen bytea, _num bigint) RETURNS boolean
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'flohsync_ledger_has';
COMMENT ON FUNCTION flohsync._ledger_has(bytea, bigint) IS 'Whether a num is in what _ledger_union returned';

CREATE FUNCTION flohsync._pass_pages(_pass bigint) RETURNS SETOF flohsync.sync_run_page
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT p.* FROM flohsync.sync_run r JOIN flohsync.sync_run_page p ON p.run_id = r.id
   WHERE r.pass_id = _pass;
END;
COMMENT ON FUNCTION flohsync._pass_pages(bigint) IS 'The ledger of a pass';

CREATE FUNCTION flohsync._forget_pass(_pass bigint) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  UPDATE flohsync.sync_run_page p SET seen = NULL, deleted = NULL
    FROM flohsync.sync_run r
   WHERE r.pass_id = _pass AND p.run_id = r.id AND (p.seen IS NOT NULL OR p.deleted IS NOT NULL);
END;
COMMENT ON FUNCTION flohsync._forget_pass(bigint) IS 'Drops what a pass has seen, once nothing needs it';

CREATE FUNCTION flohsync._run_stats(_run bigint) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT pg_catalog.jsonb_build_object(
      'added', coalesce(pg_catalog.sum(p.added), 0), 'updated', coalesce(pg_catalog.sum(p.updated), 0),
      'staled', r.staled, 'unchanged', coalesce(pg_catalog.sum(p.unchanged), 0), 'removed', r.removed,
      'durationMs', coalesce(pg_catalog.round(extract(epoch FROM coalesce(r.finished_at, pg_catalog.clock_timestamp()) - r.started_at) * 1000), 0),
      'pagesProcessed', pg_catalog.count(p.page), 'totalUpstreamRecords', coalesce(pg_catalog.sum(p.records), 0),
      'restored', coalesce(pg_catalog.sum(p.restored), 0), 'filtered', coalesce(pg_catalog.sum(p.filtered), 0),
      'errored', coalesce(pg_catalog.sum(p.errored), 0), 'ignored', coalesce(pg_catalog.sum(p.ignored), 0),
      'duplicates', coalesce(pg_catalog.sum(p.duplicates), 0), 'truncated', coalesce(pg_catalog.sum(p.truncated), 0),
      'bytes', coalesce(pg_catalog.sum(p.bytes), 0), 'complete', coalesce(r.complete, false))
    FROM flohsync.sync_run r LEFT JOIN flohsync.sync_run_page p ON p.run_id = r.id
   WHERE r.id = _run
   GROUP BY r.id;
END;
COMMENT ON FUNCTION flohsync._run_stats(bigint) IS 'Statistics of a run, summed from its pages';

CREATE FUNCTION flohsync._fingerprint(_strategy text, _d flohsync.connector_definition, _c flohsync.connector_sync_config) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN pg_catalog.md5(pg_catalog.jsonb_build_array(
  _strategy, (_d).kind, (_d).config, (_d).definition, (_c).filter_rules, (_c).hash_ignore)::text);
COMMENT ON FUNCTION flohsync._fingerprint(text, flohsync.connector_definition, flohsync.connector_sync_config) IS
  'Of all that makes a pass what it is';

-- The worker's calls.  Each is made by the holder of the run's lock.

CREATE FUNCTION flohsync._start_run(_run bigint,
  OUT outcome text, OUT strategy text, OUT pass_id bigint, OUT pass_started_at timestamptz,
  OUT modified_since timestamptz, OUT kind text, OUT config jsonb, OUT connector_id uuid,
  OUT connector_name text, OUT resource_type text, OUT filter_rules jsonb, OUT hash_ignore jsonb,
  OUT owner name, OUT list_command text, OUT resumed boolean, OUT last_page integer, OUT next_cursor text,
  OUT passed bigint, OUT received bigint, OUT unidentified bigint, OUT fingerprint text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
  prev flohsync.sync_run;
  d flohsync.connector_definition;
  c flohsync.connector_sync_config;
  p record;
  problem text;
  class text;
BEGIN
  SELECT * INTO r FROM flohsync.sync_run x WHERE x.id = _run AND x.status IN ('queued', 'running') FOR UPDATE;
  IF NOT FOUND THEN
    outcome := 'gone';
    RETURN;
  END IF;
  SELECT * INTO d FROM flohsync.connector_definition x WHERE x.id = r.connector_id;
  SELECT * INTO c FROM flohsync.connector_sync_config x
   WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type;

  IF r.status = 'running' THEN
    SELECT coalesce(max(l.page), 0) AS page INTO p FROM flohsync._pass_pages(r.pass_id) l;
    r.crashes := CASE WHEN r.crash_page = p.page THEN r.crashes + 1 ELSE 1 END;
    r.crash_page := p.page;
  END IF;

  IF r.cancel_requested THEN
    problem := 'run was cancelled';
    class := 'cancelled';
  ELSIF c.id IS NULL THEN
    problem := format('connector "%s" has no configuration for resource type "%s" any more', d.name, r.resource_type);
    class := 'configuration';
  ELSIF NOT d.enabled THEN
    problem := format('connector "%s" is disabled', d.name);
    class := 'configuration';
  ELSIF r.crashes >= 3 THEN
    problem := format('the worker died %s times on page %s', r.crashes, r.crash_page + 1);
    class := 'crash_loop';
  END IF;
  strategy := coalesce(r.strategy, c.strategy, 'full');
  IF problem IS NOT NULL THEN
    UPDATE flohsync.sync_run x
       SET started_at = coalesce(x.started_at, clock_timestamp()), crashes = r.crashes, crash_page = r.crash_page,
           strategy = coalesce(x.strategy, _start_run.strategy)
     WHERE x.id = _run;
    PERFORM flohsync._finish_run(_run, CASE class WHEN 'cancelled' THEN class ELSE 'error' END,
                                 false, problem, problem, class, NULL);
    outcome := 'refused';
    RETURN;
  END IF;

  resumed := false;
  IF r.status = 'queued' THEN
    fingerprint := flohsync._fingerprint(strategy, d, c);
    pass_id := r.id;
    pass_started_at := clock_timestamp();
    modified_since := CASE WHEN strategy = 'incremental' THEN c.watermark - c.overlap END;
    -- The last run before this one: if it failed and kept its cursor, its pass goes on.
    SELECT * INTO prev FROM flohsync.sync_run x
     WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.id < r.id
       AND x.status <> 'held'
     ORDER BY x.id DESC LIMIT 1;
    IF prev.status = 'error' THEN
      IF prev.cursor IS NOT NULL AND prev.fingerprint = fingerprint
         AND prev.finished_at > clock_timestamp() - interval '7 days'
         AND (SELECT count(*) = prev.pass_pages FROM flohsync._pass_pages(prev.pass_id) l WHERE l.seen IS NOT NULL) THEN
        pass_id := prev.pass_id;
        pass_started_at := prev.pass_started_at;
        modified_since := prev.modified_since;
        resumed := true;
      ELSE
        PERFORM flohsync._forget_pass(prev.pass_id);
      END IF;
    END IF;
  ELSE
    fingerprint := r.fingerprint;
    pass_id := r.pass_id;
    pass_started_at := r.pass_started_at;
    modified_since := r.modified_since;
    resumed := r.crash_page > 0;
  END IF;

  UPDATE flohsync.sync_run x
     SET status = 'running', started_at = coalesce(x.started_at, clock_timestamp()),
         strategy = _start_run.strategy, pass_id = _start_run.pass_id, pass_started_at = _start_run.pass_started_at,
         modified_since = _start_run.modified_since, fingerprint = _start_run.fingerprint,
         crashes = r.crashes, crash_page = r.crash_page
   WHERE x.id = _run;
  UPDATE flohsync.connector_sync_config x SET last_sync_status = 'running' WHERE x.id = c.id;

  SELECT l.page, l.next_cursor INTO p FROM flohsync._pass_pages(pass_id) l ORDER BY l.page DESC LIMIT 1;
  last_page := coalesce(p.page, 0);
  next_cursor := p.next_cursor;
  SELECT coalesce(sum(l.added + l.updated + l.unchanged + l.restored + l.ignored), 0), coalesce(sum(l.records), 0),
         coalesce(sum(l.unidentified), 0)
    INTO passed, received, unidentified FROM flohsync._pass_pages(pass_id) l;

  outcome := 'run';
  kind := d.kind;
  config := d.config;
  connector_id := d.id;
  connector_name := d.name;
  resource_type := r.resource_type;
  filter_rules := c.filter_rules;
  hash_ignore := c.hash_ignore;
  owner := c.owner;
  list_command := flohsync._list_command(d.config, r.resource_type);
END
$$;
COMMENT ON FUNCTION flohsync._start_run(bigint) IS 'Begins or goes on with a run and returns all that its worker needs';

CREATE FUNCTION flohsync._restart_pass(_run bigint) RETURNS timestamptz
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r flohsync.sync_run;
BEGIN
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run FOR UPDATE;
  PERFORM flohsync._forget_pass(r.pass_id);
  DELETE FROM flohsync.sync_run_page p WHERE p.run_id = _run;
  UPDATE flohsync.sync_run x SET pass_id = x.id, pass_started_at = clock_timestamp()
   WHERE x.id = _run RETURNING x.* INTO r;
  RETURN r.pass_started_at;
END
$$;
COMMENT ON FUNCTION flohsync._restart_pass(bigint) IS 'Begins the pass of a run again because the upstream does not take its cursor any more';

-- _settle_pass does what a pass as a whole says about records: the missing
-- ones go stale, if the pass is complete and under the safeguard.
CREATE FUNCTION flohsync._settle_pass(_run bigint, _complete boolean,
  OUT held boolean, OUT staled bigint, OUT active bigint, OUT message text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
  c flohsync.connector_sync_config;
  seen bytea;
  gone text[];
  full_pass boolean;
  max_fraction numeric;
  min_records numeric;
BEGIN
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run FOR UPDATE;
  SELECT * INTO STRICT c FROM flohsync.connector_sync_config x
   WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type;
  held := false;
  staled := 0;
  full_pass := r.strategy = 'full' AND _complete;

  -- What the upstream said is deleted and did not list again later in the pass.
  SELECT array_agg(g.external_id) INTO gone
    FROM (SELECT DISTINCT ON (e.id) e.id AS external_id, l.page, l.fetched_at
            FROM flohsync._pass_pages(r.pass_id) l, unnest(l.deleted) AS e(id)
           WHERE l.deleted IS NOT NULL
           ORDER BY e.id, l.page DESC) g
    JOIN flohsync.resource_record x
      ON x.external_id = g.external_id COLLATE "C" AND x.resource_type = r.resource_type AND x.connector_id = r.connector_id
   WHERE x.stale_since IS NULL AND x.observed_at <= g.fetched_at
     AND NOT EXISTS (SELECT FROM flohsync._pass_pages(r.pass_id) l
                      WHERE l.page > g.page AND flohsync._ledger_has(flohsync._ledger_union(ARRAY[l.seen]), x.num));

  IF full_pass THEN
    SELECT flohsync._ledger_union(coalesce(array_agg(l.seen), '{}')) INTO seen
      FROM flohsync._pass_pages(r.pass_id) l WHERE l.seen IS NOT NULL;
    SELECT count(*), count(*) FILTER (WHERE (x.observed_at < r.pass_started_at AND NOT flohsync._ledger_has(seen, x.num))
                                         OR x.external_id = ANY (gone))
      INTO active, staled
      FROM flohsync.resource_record x
     WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.stale_since IS NULL;
  ELSIF gone IS NOT NULL THEN
    SELECT count(*) INTO active FROM flohsync.resource_record x
     WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.stale_since IS NULL;
    staled := cardinality(gone);
  END IF;

  -- A held run that comes back here was approved: only then is the guard open.
  max_fraction := (c.safeguards ->> 'maxStaleFraction')::numeric;
  min_records := coalesce((c.safeguards ->> 'minRecords')::numeric, 0);
  IF staled > 0 AND r.status <> 'held' AND staled > max_fraction * active AND staled > min_records THEN
    held := true;
    message := format('would mark %s of %s active records stale (%s %%), more than the safeguard of %s %% allows',
                      staled, active, round(100.0 * staled / active, 1), round(100 * max_fraction, 1));
    staled := 0;
    RETURN;
  END IF;

  IF staled > 0 THEN
    IF full_pass THEN
      UPDATE flohsync.resource_record x
         SET stale_since = clock_timestamp(), observed_at = greatest(x.observed_at, c.last_full_pass_at)
       WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.stale_since IS NULL
         AND ((x.observed_at < r.pass_started_at AND NOT flohsync._ledger_has(seen, x.num)) OR x.external_id = ANY (gone));
    ELSE
      UPDATE flohsync.resource_record x
         SET stale_since = clock_timestamp(), observed_at = greatest(x.observed_at, c.last_full_pass_at)
       WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.stale_since IS NULL
         AND x.external_id = ANY (gone);
    END IF;
    GET DIAGNOSTICS staled = ROW_COUNT;
    UPDATE flohsync.sync_run x SET staled = x.staled + _settle_pass.staled WHERE x.id = _run;
  END IF;
  IF full_pass THEN
    UPDATE flohsync.connector_sync_config x
       SET last_full_pass_at = greatest(x.last_full_pass_at, r.pass_started_at)
     WHERE x.id = c.id;
    -- This pass says what an older, held one wanted to.
    PERFORM flohsync._supersede_held(r.connector_id, r.resource_type, _run);
  END IF;
END
$$;
COMMENT ON FUNCTION flohsync._settle_pass(bigint, boolean) IS 'Marks what a pass did not see stale, unless the safeguard holds the run';

CREATE FUNCTION flohsync._supersede_held(_connector uuid, _type text, _run bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  h record;
BEGIN
  FOR h IN SELECT x.id, x.pass_id FROM flohsync.sync_run x
            WHERE x.connector_id = _connector AND x.resource_type = _type AND x.status = 'held' AND x.id < _run
              FOR UPDATE LOOP
    UPDATE flohsync.sync_run x
       SET status = 'cancelled', notes = concat_ws('; ', x.notes, format('superseded by run %s', _run)), resolved_at = clock_timestamp()
     WHERE x.id = h.id;
    PERFORM flohsync._forget_pass(h.pass_id);
  END LOOP;
END
$$;
COMMENT ON FUNCTION flohsync._supersede_held(uuid, text, bigint) IS 'Ends held runs that a later pass has made void';

CREATE FUNCTION flohsync._purge_run(_run bigint, _limit bigint) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  n bigint;
BEGIN
  SELECT flohsync._purge(c.connector_id, c.resource_type, flohsync._duration(c.stale_retention), _limit) INTO n
    FROM flohsync.sync_run r
    JOIN flohsync.connector_sync_config c ON c.connector_id = r.connector_id AND c.resource_type = r.resource_type
   WHERE r.id = _run;
  IF n > 0 THEN
    UPDATE flohsync.sync_run r SET removed = r.removed + n WHERE r.id = _run;
  END IF;
  RETURN coalesce(n, 0);
END
$$;
COMMENT ON FUNCTION flohsync._purge_run(bigint, bigint) IS 'Purges one batch of old stale records on behalf of a run';

CREATE FUNCTION flohsync._finish_run(_run bigint, _status text, _complete boolean, _reason text,
  _error text, _class text, _watermark timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
  last record;
BEGIN
  SELECT l.page, l.next_cursor INTO last
    FROM flohsync.sync_run x, flohsync._pass_pages(x.pass_id) l
   WHERE x.id = _run ORDER BY l.page DESC LIMIT 1;
  UPDATE flohsync.sync_run x
     SET status = _status, finished_at = clock_timestamp(), complete = _complete,
         incomplete_reason = CASE WHEN NOT _complete THEN _reason END,
         error = _error, error_class = _class,
         -- a pass whose cursors went in circles, or that was stopped by hand, is not gone on with
         cursor = CASE WHEN _status = 'error' AND _class NOT IN ('pagination_loop', 'configuration', 'crash_loop') THEN last.next_cursor END,
         pages = (SELECT count(*) FROM flohsync.sync_run_page p WHERE p.run_id = _run),
         pass_pages = coalesce(last.page, 0)
   WHERE x.id = _run AND x.status IN ('queued', 'running')
  RETURNING x.* INTO r;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  UPDATE flohsync.sync_run x SET stats = flohsync._run_stats(_run) WHERE x.id = _run RETURNING x.* INTO r;
  IF r.cursor IS NULL AND r.status <> 'held' AND r.pass_id IS NOT NULL THEN
    PERFORM flohsync._forget_pass(r.pass_id);
  END IF;
  UPDATE flohsync.connector_sync_config c
     SET last_sync_at = r.finished_at,
         last_sync_cursor = r.cursor,
         last_sync_status = CASE _status WHEN 'success' THEN 'success' WHEN 'cancelled' THEN 'idle' ELSE 'error' END,
         last_sync_error = _error,
         last_sync_stats = r.stats,
         watermark = CASE WHEN _status IN ('success', 'held') AND _complete THEN coalesce(_watermark, c.watermark) ELSE c.watermark END
   WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type;
  PERFORM pg_notify('flohsync_run', jsonb_build_object('id', r.id, 'status', r.status)::text);
END
$$;
COMMENT ON FUNCTION flohsync._finish_run(bigint, text, boolean, text, text, text, timestamptz) IS 'Ends a run: history, configuration, notification';

CREATE FUNCTION flohsync._enqueue_due() RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  c flohsync.connector_sync_config;
  t timestamptz := clock_timestamp();
  n int := 0;
BEGIN
  FOR c IN SELECT x.* FROM flohsync.connector_sync_config x JOIN flohsync.connector_definition d ON d.id = x.connector_id
            WHERE x.enabled AND d.enabled AND (x.cron_schedule IS NOT NULL OR x.full_cron_schedule IS NOT NULL)
              AND (x.next_run_at <= t OR x.next_full_run_at <= t
                   OR (x.cron_schedule IS NOT NULL AND x.next_run_at IS NULL)
                   OR (x.full_cron_schedule IS NOT NULL AND x.next_full_run_at IS NULL))
            ORDER BY least(x.next_run_at, x.next_full_run_at) NULLS LAST
              FOR UPDATE OF x SKIP LOCKED LOOP
    -- One bad row must not stop the others.
    BEGIN
      IF c.next_run_at <= t OR c.next_full_run_at <= t THEN
        INSERT INTO flohsync.sync_run AS q (connector_id, resource_type, strategy, trigger)
        VALUES (c.connector_id, c.resource_type, CASE WHEN c.next_full_run_at <= t THEN 'full' ELSE c.strategy END, 'schedule')
        ON CONFLICT (connector_id, resource_type) WHERE status IN ('queued', 'running') DO NOTHING;
        n := n + 1;
      END IF;
      UPDATE flohsync.connector_sync_config x
         SET next_run_at = CASE WHEN x.next_run_at > t THEN x.next_run_at ELSE flohsync._cron_next(c.cron_schedule, t, c.timezone) END,
             next_full_run_at = CASE WHEN x.next_full_run_at > t THEN x.next_full_run_at ELSE flohsync._cron_next(c.full_cron_schedule, t, c.timezone) END
       WHERE x.id = c.id;
    EXCEPTION WHEN OTHERS THEN
      UPDATE flohsync.connector_sync_config x
         SET enabled = false, last_sync_status = 'error', last_sync_error = 'schedule: ' || SQLERRM
       WHERE x.id = c.id;
    END;
  END LOOP;
  RETURN n;
END
$$;
COMMENT ON FUNCTION flohsync._enqueue_due() IS 'Queues the scheduled runs that are due; missed ticks collapse into one';

-- What users call.

CREATE FUNCTION flohsync.trigger_sync(connector text, resource_type text, strategy text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _connector uuid := flohsync._connector_id(connector);
  _type text := flohsync._check_resource_type(trigger_sync.resource_type);
  _id bigint;
BEGIN
  IF trigger_sync.strategy IS NOT NULL AND trigger_sync.strategy NOT IN ('full', 'incremental') THEN
    PERFORM flohsync._invalid('strategy', format('%L is not a strategy', trigger_sync.strategy), 'Strategies are full and incremental.');
  END IF;
  PERFORM FROM flohsync.connector_sync_config c WHERE c.connector_id = _connector AND c.resource_type = _type;
  IF NOT FOUND THEN
    RAISE undefined_object USING
      MESSAGE = format('connector "%s" has no configuration for resource type "%s"', connector, _type),
      HINT = 'Make one with flohsync.configure_sync().';
  END IF;
  LOOP
    INSERT INTO flohsync.sync_run AS q (connector_id, resource_type, strategy, trigger)
    VALUES (_connector, _type, trigger_sync.strategy, 'manual')
    ON CONFLICT (connector_id, resource_type) WHERE status IN ('queued', 'running') DO NOTHING
    RETURNING q.id INTO _id;
    IF _id IS NULL THEN
      SELECT q.id INTO _id FROM flohsync.sync_run q
       WHERE q.connector_id = _connector AND q.resource_type = _type AND q.status IN ('queued', 'running');
    END IF;
    EXIT WHEN _id IS NOT NULL;
  END LOOP;
  PERFORM flohsync._wake();
  RETURN _id;
END
$$;
COMMENT ON FUNCTION flohsync.trigger_sync(text, text, text) IS
  'Asks for a run and returns its id at once; the run that is already queued or running is returned instead of a second one';

CREATE PROCEDURE flohsync.sync(connector text, resource_type text, INOUT stats jsonb DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', 'flohsync_sync';
COMMENT ON PROCEDURE flohsync.sync(text, text, jsonb) IS
  'Asks for a run and waits for its end; raises the run''s error; cancelling the call leaves the run alone; not inside a transaction block';

CREATE FUNCTION flohsync._interrupt_run(_connector uuid, _type text) RETURNS boolean
LANGUAGE c VOLATILE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_interrupt_run';
COMMENT ON FUNCTION flohsync._interrupt_run(uuid, text) IS 'After commit, interrupts whoever holds the lock of the run; false when nobody does';

CREATE FUNCTION flohsync.cancel_sync(run_id bigint) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
BEGIN
  UPDATE flohsync.sync_run x SET cancel_requested = true
   WHERE x.id = cancel_sync.run_id AND x.status IN ('queued', 'running')
  RETURNING x.* INTO r;
  IF NOT FOUND THEN
    PERFORM FROM flohsync.sync_run x WHERE x.id = cancel_sync.run_id;
    IF NOT FOUND THEN
      RAISE undefined_object USING MESSAGE = format('run %s does not exist', coalesce(cancel_sync.run_id::text, 'NULL'));
    END IF;
    RETURN false;
  END IF;
  IF r.status = 'queued' THEN
    PERFORM flohsync._finish_run(r.id, 'cancelled', false, 'run was cancelled', 'run was cancelled', 'cancelled', NULL);
  ELSIF NOT flohsync._interrupt_run(r.connector_id, r.resource_type) THEN
    PERFORM flohsync._wake();
  END IF;
  RETURN true;
END
$$;
COMMENT ON FUNCTION flohsync.cancel_sync(bigint) IS
  'Stops a queued or running run; false when it has ended already; 42704 when there is none';

CREATE FUNCTION flohsync._try_run_lock(_connector uuid, _type text) RETURNS boolean
LANGUAGE c VOLATILE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_try_run_lock';
COMMENT ON FUNCTION flohsync._try_run_lock(uuid, text) IS 'Takes the lock of a configuration''s runs until the end of the transaction; false when a worker has it';

CREATE FUNCTION flohsync._held_run(_run bigint) RETURNS flohsync.sync_run
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r flohsync.sync_run;
BEGIN
  SELECT * INTO r FROM flohsync.sync_run x WHERE x.id = _run FOR UPDATE;
  IF NOT FOUND THEN
    RAISE undefined_object USING MESSAGE = format('run %s does not exist', coalesce(_run::text, 'NULL'));
  ELSIF r.status <> 'held' THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('run %s is not held', _run), DETAIL = concat_ws('; ', format('Its status is %s', r.status), r.notes) || '.';
  ELSIF NOT flohsync._try_run_lock(r.connector_id, r.resource_type) THEN
    RAISE object_in_use USING
      MESSAGE = format('another run of resource type "%s" is going on', r.resource_type),
      HINT = 'Wait for its end; if it is complete, it decides instead of the held one.';
  END IF;
  RETURN r;
END
$$;
COMMENT ON FUNCTION flohsync._held_run(bigint) IS 'A held run, locked for a decision about it';

CREATE FUNCTION flohsync.approve_run(run_id bigint, notes text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run := flohsync._held_run(approve_run.run_id);
  s record;
  n bigint;
BEGIN
  s := flohsync._settle_pass(r.id, true);
  n := flohsync._purge_run(r.id, NULL);
  UPDATE flohsync.sync_run x
     SET status = 'success', resolved_by = current_user, resolved_at = clock_timestamp(),
         notes = approve_run.notes
   WHERE x.id = r.id RETURNING x.* INTO r;
  UPDATE flohsync.sync_run x
     SET stats = x.stats || jsonb_build_object('staled', x.staled, 'removed', x.removed)
   WHERE x.id = r.id RETURNING x.* INTO r;
  PERFORM flohsync._forget_pass(r.pass_id);
  -- The configuration tells of its last run; that may be a later one.
  UPDATE flohsync.connector_sync_config c
     SET last_sync_status = 'success', last_sync_error = NULL, last_sync_stats = r.stats
   WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type
     AND NOT EXISTS (SELECT FROM flohsync.sync_run x
                      WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.id > r.id);
  PERFORM pg_notify('flohsync_run', jsonb_build_object('id', r.id, 'status', r.status)::text);
  -- A run that was asked for meanwhile found the lock taken.
  PERFORM flohsync._wake();
  RETURN jsonb_build_object('runId', r.id, 'status', r.status, 'staled', s.staled, 'removed', n, 'stats', r.stats);
END
$$;
COMMENT ON FUNCTION flohsync.approve_run(bigint, text) IS
  'Lets a held run do what the safeguard stopped: looks again which records are missing and marks them stale';

CREATE FUNCTION flohsync.reject_run(run_id bigint, notes text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run := flohsync._held_run(reject_run.run_id);
BEGIN
  UPDATE flohsync.sync_run x
     SET status = 'cancelled', resolved_by = current_user, resolved_at = clock_timestamp(), notes = reject_run.notes
   WHERE x.id = r.id;
  PERFORM flohsync._forget_pass(r.pass_id);
  UPDATE flohsync.connector_sync_config c SET last_sync_status = 'idle', last_sync_error = NULL
   WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type
     AND NOT EXISTS (SELECT FROM flohsync.sync_run x
                      WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.id > r.id);
  PERFORM pg_notify('flohsync_run', jsonb_build_object('id', r.id, 'status', 'cancelled')::text);
  -- A run that was asked for meanwhile found the lock taken.
  PERFORM flohsync._wake();
END
$$;
COMMENT ON FUNCTION flohsync.reject_run(bigint, text) IS 'Drops a held run; the records that it missed stay as they are';

CREATE FUNCTION flohsync.delete_sync_config(connector text, resource_type text) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _connector uuid := flohsync._connector_id(connector);
  _run bigint;
BEGIN
  FOR _run IN SELECT r.id FROM flohsync.sync_run r
               WHERE r.connector_id = _connector AND r.resource_type = delete_sync_config.resource_type
                 AND r.status IN ('queued', 'running') LOOP
    PERFORM flohsync.cancel_sync(_run);
  END LOOP;
  DELETE FROM flohsync.connector_sync_config c
   WHERE c.connector_id = _connector AND c.resource_type = delete_sync_config.resource_type;
  RETURN FOUND;
END
$$;
COMMENT ON FUNCTION flohsync.delete_sync_config(text, text) IS
  'Removes a configuration with its schedules; the records stay; false when there was none';

CREATE FUNCTION flohsync.test_connector(connector text) RETURNS jsonb
LANGUAGE c VOLATILE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_test_connector';
COMMENT ON FUNCTION flohsync.test_connector(text) IS
  'Asks the upstream for one record of each resource type: {"ok":true,"types":{…}} or {"ok":false,"error":…}; an upstream''s failure is never raised';
