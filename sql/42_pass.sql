-- What a worker calls on the way through a run; it holds the run's lock.
-- start -> (pages, by store.c) -> settle -> purge -> finish

-- Whoever changes a run has its configuration locked first (40_run.sql has the order).
CREATE FUNCTION _flohsync.lock_config(_run bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _connector uuid;
  _type text;
BEGIN
  SELECT r.connector_id, r.resource_type INTO _connector, _type FROM flohsync.sync_run r WHERE r.id = _run;
  PERFORM _flohsync.lock('connector', _connector::text, true);
  PERFORM FROM flohsync.connector_sync_config c
    WHERE c.connector_id = _connector AND c.resource_type = _type FOR NO KEY UPDATE;
END
$$;
COMMENT ON FUNCTION _flohsync.lock_config(bigint) IS
  'Locks the configuration of a run until the end of the transaction';

CREATE FUNCTION _flohsync.keep_config(_run bigint) RETURNS flohsync.connector_sync_config
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  r flohsync.sync_run;
  c flohsync.connector_sync_config;
BEGIN
  SELECT * INTO r FROM flohsync.sync_run x WHERE x.id = _run;
  PERFORM _flohsync.lock('connector', r.connector_id::text, true);
  SELECT * INTO c FROM flohsync.connector_sync_config x
   WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type FOR KEY SHARE;
  RETURN c;
END
$$;
COMMENT ON FUNCTION _flohsync.keep_config(bigint) IS
  'The configuration of a run, locked against deletion, but not changes, until the end of the transaction; null when '
  'there is none';

CREATE FUNCTION _flohsync.start_run(_run bigint, _left boolean,
  OUT outcome text, OUT strategy text, OUT pass_id bigint, OUT pass_started_at timestamptz,
  OUT modified_since timestamptz, OUT connector_id uuid,
  OUT connector_name text, OUT resource_type text, OUT filter_rules jsonb, OUT hash_ignore jsonb,
  OUT resumed boolean, OUT last_page integer, OUT next_cursor text,
  OUT passed bigint, OUT received bigint, OUT unidentified bigint, OUT total_estimate bigint,
  OUT note_changes boolean, OUT incomplete text, OUT kept_link text, OUT unread boolean,
  OUT rehash boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
  prev flohsync.sync_run;
  d flohsync.connector_definition;
  c flohsync.connector_sync_config;
  applied integer; -- pages of the pass so far
  under text; -- the fingerprint of the pass
  problem text;
  class text;
BEGIN
  PERFORM _flohsync.lock_config(_run);
  SELECT * INTO r FROM flohsync.sync_run x WHERE x.id = _run AND x.status IN ('queued', 'running') FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    outcome := 'gone';
    RETURN;
  END IF;
  SELECT * INTO d FROM flohsync.connector_definition x WHERE x.id = r.connector_id;
  SELECT * INTO c FROM flohsync.connector_sync_config x
   WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type;

  IF r.status = 'running' THEN
    SELECT coalesce(max(l.page), 0) INTO applied FROM _flohsync.pass_pages(r.pass_id) l;
    -- Where the server went down as well, the last pages may be lost: only new ground is progress.
    -- A worker that ended by an error, or was terminated, did not crash.
    IF NOT _left THEN
      r.crashes := CASE WHEN r.crash_page >= applied THEN r.crashes + 1 ELSE 1 END;
      r.crash_page := greatest(r.crash_page, applied);
    END IF;
  END IF;

  IF r.cancel_requested THEN
    problem := 'run was cancelled';
    class := _flohsync.error_class('cancelled');
  ELSIF c.id IS NULL THEN
    problem := _flohsync.clean(format('connector "%s" no longer has a configuration for resource type "%s"', d.name,
                                      r.resource_type));
    class := _flohsync.error_class('configuration');
  ELSIF NOT d.enabled THEN
    problem := _flohsync.clean(format('connector "%s" is disabled', d.name));
    class := _flohsync.error_class('configuration');
  ELSIF r.crashes >= 3 THEN
    problem := format('the worker died %s times on page %s', r.crashes, r.crash_page + 1);
    class := _flohsync.error_class('crash_loop');
  END IF;
  strategy := coalesce(r.strategy, c.strategy, 'full');
  IF problem IS NOT NULL THEN
    UPDATE flohsync.sync_run x
       SET started_at = coalesce(x.started_at, clock_timestamp()), crashes = r.crashes, crash_page = r.crash_page,
           strategy = coalesce(x.strategy, start_run.strategy)
     WHERE x.id = _run;
    PERFORM _flohsync.finish_run(_run, CASE WHEN r.cancel_requested THEN 'cancelled' ELSE 'error' END,
                                 false, problem, problem, class, NULL);
    outcome := 'refused';
    RETURN;
  END IF;

  resumed := false;
  IF r.status = 'queued' THEN
    under := _flohsync.fingerprint(strategy, d, c);
    pass_id := r.id;
    pass_started_at := clock_timestamp();
    -- A watermark in the future, which a clock that was wrong has left, says nothing.
    modified_since := CASE WHEN strategy = 'incremental' AND c.watermark <= clock_timestamp() + c.overlap
                           THEN c.watermark - greatest(c.overlap, _flohsync.duration(
                             d.definition #>> ARRAY['resources', r.resource_type, 'list', 'incremental', 'lookback']))
                               END;
    -- The last run before this one: if it failed and kept its cursor, its pass goes on.
    -- By the history's index, as in 80_status: by that of all runs, a first run would be looked for to the end.
    SELECT * INTO prev FROM flohsync.sync_run x
     WHERE x.connector_id BETWEEN r.connector_id AND r.connector_id AND x.resource_type = r.resource_type
       AND x.id < r.id
     ORDER BY x.connector_id, x.id DESC LIMIT 1;
    IF prev.status = 'error' AND NOT r.restart THEN
      IF prev.cursor IS NOT NULL AND prev.fingerprint = under
         AND prev.pass_started_at > clock_timestamp() - interval '7 days'
         -- Where a page keeps failing, those before it are read again at times.
         AND (SELECT count(*) < 5 FROM flohsync.sync_run x
               WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.pass_id = prev.pass_id
                 AND x.pages = 0
                 AND x.id > (SELECT max(y.id) FROM flohsync.sync_run y
                              WHERE y.connector_id = r.connector_id AND y.resource_type = r.resource_type
                                AND y.pass_id = prev.pass_id AND y.pages > 0))
         AND (SELECT count(*) = prev.pass_pages FROM _flohsync.pass_pages(prev.pass_id) l WHERE l.seen IS NOT NULL) THEN
        pass_id := prev.pass_id;
        pass_started_at := prev.pass_started_at;
        modified_since := prev.modified_since;
        resumed := true;
      END IF;
    END IF;
  ELSE
    under := _flohsync.fingerprint(strategy, d, c);
    pass_started_at := r.pass_started_at;
    modified_since := r.modified_since;
    -- What the pass is about has changed while nobody was working on it.
    IF under IS DISTINCT FROM r.fingerprint AND applied > 0 THEN
      pass_started_at := _flohsync.restart_pass(_run, false);
      r.pass_id := r.id;
      r.crash_page := 0;
      applied := 0;
    END IF;
    pass_id := r.pass_id;
    resumed := applied > 0;
  END IF;

  UPDATE flohsync.sync_run x
     SET status = 'running', started_at = coalesce(x.started_at, clock_timestamp()),
         strategy = start_run.strategy, pass_id = start_run.pass_id, pass_started_at = start_run.pass_started_at,
         modified_since = start_run.modified_since, fingerprint = under,
         decided_under = coalesce(x.decided_under, _flohsync.decided_under(d, c)), crashes = r.crashes,
           crash_page = r.crash_page
   WHERE x.id = _run;
  UPDATE flohsync.connector_sync_config x SET last_sync_status = 'running', retry_at = NULL, parked = false
    WHERE x.id = c.id;

  received := 0;
  unidentified := 0;
  unread := false;
  last_page := 0;
  passed := 0;
  IF resumed THEN
    PERFORM _flohsync.fill_ledger(_run);
    SELECT coalesce(sum(l.records), 0), coalesce(sum(l.unidentified), 0), max(l.total_estimate),
           (array_agg(l.incomplete ORDER BY l.page) FILTER (WHERE l.incomplete IS NOT NULL))[1],
           coalesce(bool_or(l.unread), false), coalesce(max(l.page), 0)
      INTO received, unidentified, total_estimate, incomplete, unread, last_page
      FROM _flohsync.pass_pages(pass_id) l;
    SELECT l.next_cursor INTO next_cursor FROM _flohsync.pass_pages(pass_id) l ORDER BY l.page DESC LIMIT 1;
    SELECT s.passed INTO passed
      FROM _flohsync.page_sums(ARRAY(SELECT x.id FROM flohsync.sync_run x WHERE x.pass_id = start_run.pass_id)) s;
  END IF;
  kept_link := CASE WHEN strategy = 'incremental' AND c.delta_fingerprint = under THEN c.delta_link END;

  outcome := 'run';
  connector_id := d.id;
  connector_name := d.name;
  resource_type := r.resource_type;
  filter_rules := c.filter_rules;
  hash_ignore := c.hash_ignore;
  rehash := c.hash_ignore_since >= coalesce(c.last_full_pass_at, '-infinity');
  -- Without a row in match_progress post-sync looks at everything anyway.
  note_changes := _flohsync.triggers_per_record(c) OR EXISTS (SELECT FROM _flohsync.match_progress m
                                                              WHERE m.config_id = c.id);
END
$$;
COMMENT ON FUNCTION _flohsync.start_run(bigint, boolean) IS
  'Starts or resumes a run (_left: its worker ended by an error) and returns everything that the worker needs';

CREATE FUNCTION _flohsync.restart_pass(_run bigint, _forget_link boolean) RETURNS timestamptz
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r flohsync.sync_run;
BEGIN
  PERFORM _flohsync.lock_config(_run);
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  -- When this pass is resumed it must not be mistaken for one that began with the link.
  IF _forget_link THEN
    UPDATE flohsync.connector_sync_config c SET delta_link = NULL, delta_fingerprint = NULL
     WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type;
  END IF;
  PERFORM _flohsync.forget_pass(r.pass_id);
  PERFORM _flohsync.keep_page_changes(_run);
  DELETE FROM flohsync.sync_run_page p WHERE p.run_id = _run;
  DELETE FROM _flohsync.page_print p
   USING flohsync.connector_sync_config c
   WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type
     AND p.config_id = c.id AND p.pass_id = _run;
  UPDATE flohsync.sync_run x SET pass_id = x.id, pass_started_at = clock_timestamp()
   WHERE x.id = _run RETURNING x.* INTO r;
  RETURN r.pass_started_at;
END
$$;
COMMENT ON FUNCTION _flohsync.restart_pass(bigint, boolean) IS
  'Restarts the pass of a run because the upstream rejects its cursor, or the delta link that it started from';

-- Where pages are requested by position, a record that occurs on two of them has
-- moved, and another one may have moved past.
CREATE FUNCTION _flohsync.pass_overlap(_run bigint) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  r flohsync.sync_run;
  list jsonb;
  seen bytea;
  came bigint;
  there bigint;
BEGIN
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  SELECT d.definition #> ARRAY['resources', r.resource_type] INTO list
    FROM flohsync.connector_definition d WHERE d.id = r.connector_id AND d.kind = 'rest';
  -- With own_ids a record may well be in the lists of several parents.
  IF r.strategy <> 'full' OR list #>> '{list,pagination,type}' NOT IN ('offset', 'page')
      OR list #>> '{list,pagination,type}' IS NULL
     OR list #>> '{for_each,own_ids}' = 'true' OR _flohsync.pass_is_as_before(_run) THEN
    RETURN NULL;
  END IF;
  SELECT _flohsync.ledger_union(coalesce(array_agg(l.seen) FILTER (WHERE l.seen IS NOT NULL), '{}')),
         sum(l.added + l.updated + l.unchanged + l.restored)
    INTO seen, came FROM _flohsync.pass_pages(r.pass_id) l;
  IF _flohsync.pass_was_alone(_run) THEN
    there := _flohsync.ledger_count(seen);
  ELSE
    SELECT count(*) INTO there FROM flohsync.resource_record x
     WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type
       AND _flohsync.ledger_has(seen, x.record_no);
  END IF;
  IF came > there THEN
    RETURN format('pages are requested by position, and records occurred on more than one (%s): the list has '
                  'shifted, or is not ordered', came - there);
  END IF;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION _flohsync.pass_overlap(bigint) IS
  'Why a pass that reached its end may have missed records; null: no sign of that';

-- What a pass says is gone: what a complete full pass did not see, and what the
-- upstream said is deleted.  Whatever a later run has seen, complete or not, is
-- there: only a held pass has later ones.
CREATE FUNCTION _flohsync.gone_records(_run bigint, _complete boolean, OUT active bigint, OUT ids uuid[],
                                       OUT observed timestamptz[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
  seen bytea;
  later bytea;
  gone text[];
  gone_pages integer[];
  gone_nums bigint[];
BEGIN
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  active := 0;
  ids := '{}';
  observed := '{}';
  later := _flohsync.seen_since(r.connector_id, r.resource_type, '-infinity', _run);

  -- What the upstream said is deleted and did not list again later in the pass.
  SELECT array_agg(g.external_id), array_agg(g.page), array_agg(x.record_no) INTO gone, gone_pages, gone_nums
    FROM (SELECT DISTINCT ON (e.id) e.id AS external_id, l.page, l.fetched_at
            FROM _flohsync.pass_pages(r.pass_id) l, unnest(l.deleted) AS e(id)
           WHERE l.deleted IS NOT NULL
           ORDER BY e.id, l.page DESC) g
    JOIN flohsync.resource_record x
      ON x.external_id = g.external_id COLLATE "C" AND x.resource_type = r.resource_type
        AND x.connector_id = r.connector_id
   WHERE x.stale_since IS NULL AND x.observed_at <= g.fetched_at AND NOT _flohsync.ledger_has(later, x.record_no);
  IF gone IS NOT NULL THEN
    SELECT array_agg(g.external_id) INTO gone
      FROM (SELECT _flohsync.ledger_last(coalesce(array_agg(l.seen), '{}'), coalesce(array_agg(l.page), '{}'),
                                         gone_nums) AS last
              FROM _flohsync.pass_pages(r.pass_id) l WHERE l.seen IS NOT NULL) l,
           unnest(gone, gone_pages, l.last) AS g(external_id, page, last_page)
     WHERE g.last_page <= g.page;
  END IF;

  IF r.strategy = 'full' AND _complete THEN
    -- Without a complete ledger, nothing counts as missing.
    IF EXISTS (SELECT FROM _flohsync.pass_pages(r.pass_id) l
                HAVING count(*) <> coalesce(max(l.page), 0) OR count(l.seen) <> count(*)) THEN
      PERFORM _flohsync.raise('55000', format('the ledger of pass %s is incomplete', r.pass_id), NULL,
                              'Run the sync again.');
    END IF;
    SELECT _flohsync.ledger_union(coalesce(array_agg(l.seen), '{}')) INTO seen
      FROM _flohsync.pass_pages(r.pass_id) l WHERE l.seen IS NOT NULL;
    -- Observed later than the pass began, but not later than now: a clock that was wrong has left such.
    SELECT count(*), coalesce(array_agg(m.id) FILTER (WHERE m.missing), '{}'),
      coalesce(array_agg(m.observed_at) FILTER (WHERE m.missing), '{}')
      INTO active, ids, observed
      FROM (SELECT x.id, x.observed_at,
                   ((x.observed_at < r.pass_started_at OR x.observed_at > clock_timestamp())
                    AND NOT _flohsync.ledger_has(seen, x.record_no) AND NOT _flohsync.ledger_has(later, x.record_no))
                   OR x.external_id IN (SELECT g.id FROM unnest(gone) g(id)) AS missing
              FROM flohsync.resource_record x
             WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.stale_since IS NULL
            OFFSET 0) m;  -- so that "missing" is computed once
  ELSIF gone IS NOT NULL THEN
    SELECT count(*), coalesce(array_agg(m.id) FILTER (WHERE m.missing), '{}'),
      coalesce(array_agg(m.observed_at) FILTER (WHERE m.missing), '{}')
      INTO active, ids, observed
      FROM (SELECT x.id, x.observed_at, x.external_id IN (SELECT g.id FROM unnest(gone) g(id)) AS missing
              FROM flohsync.resource_record x
             WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.stale_since IS NULL
            OFFSET 0) m;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.gone_records(bigint, boolean) IS
  'Active records that are missing or deleted according to the pass of a run, when each was observed, and the number '
  'of all active records (on request)';

-- settle_pass does what a pass as a whole says about records: the missing ones
-- go stale, if the pass is complete and under the safeguard.
CREATE FUNCTION _flohsync.settle_pass(_run bigint, _complete boolean, _except text[] DEFAULT NULL,
  OUT held boolean, OUT staled bigint, OUT active bigint, OUT message text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
  c flohsync.connector_sync_config;
  gone record;
  full_pass boolean;
  max_fraction numeric;
  min_records numeric;
BEGIN
  PERFORM _flohsync.lock_config(_run);
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  SELECT * INTO STRICT c FROM flohsync.connector_sync_config x
   WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type;
  held := false;
  full_pass := r.strategy = 'full' AND _complete;
  -- This pass says what an older, held one wanted to.
  IF full_pass THEN
    PERFORM _flohsync.supersede_held(r.connector_id, r.resource_type, _run);
  END IF;
  IF full_pass AND r.status <> 'held' AND _flohsync.pass_is_as_before(_run) THEN
    staled := 0;
    UPDATE flohsync.connector_sync_config x
       SET last_full_pass_at = greatest(x.last_full_pass_at, r.pass_started_at)
     WHERE x.id = c.id;
    RETURN;
  END IF;
  IF full_pass AND r.status <> 'held' AND _except IS NULL AND _flohsync.pass_misses_nothing(_run) THEN
    staled := 0;
    UPDATE flohsync.connector_sync_config x
       SET last_full_pass_at = greatest(x.last_full_pass_at, r.pass_started_at)
     WHERE x.id = c.id;
    PERFORM _flohsync.keep_page_prints(_run);
    RETURN;
  END IF;
  gone := _flohsync.gone_records(_run, _complete);
  active := gone.active;
  staled := cardinality(gone.ids);

  -- A held run that comes back here was approved: only then is the guard open.
  max_fraction := (c.safeguards ->> 'maxStaleFraction')::numeric;
  min_records := coalesce((c.safeguards ->> 'minRecords')::numeric, 0);
  IF staled > 0 AND r.status <> 'held' THEN
    IF full_pass AND NOT EXISTS (SELECT FROM _flohsync.pass_pages(r.pass_id) l WHERE l.records > 0) THEN
      held := true;
      message := format('the upstream gave no record at all: would mark all %s active records stale', staled);
    ELSIF staled > max_fraction * active AND staled > min_records THEN
      held := true;
      message := format('would mark %s of %s active records stale (%s %%), more than the safeguard of %s %% allows',
                        staled, active, round(100.0 * staled / active, 1), round(100 * max_fraction, 1));
    END IF;
  END IF;
  IF held THEN
    IF c.deactivate_users THEN
      SELECT concat(message, '; ', count(DISTINCT u.id), ' users have such a record') INTO message
        FROM unnest(gone.ids) x(id)
        JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id
            AND m.match_status IN ('matched', 'manual_override')
        JOIN _flohsync.app_user u ON u.id = m.user_id AND coalesce(u.active, true);
    END IF;
    staled := 0;
    RETURN;
  END IF;

  IF staled > 0 THEN
    staled := _flohsync.records_staled(r.connector_id, r.resource_type, ARRAY(
      -- Whatever has been observed since that was decided is there.
      SELECT x.id FROM flohsync.resource_record x JOIN unnest(gone.ids, gone.observed) g(id, observed_at) ON g.id = x.id
       WHERE x.stale_since IS NULL AND (x.observed_at <= g.observed_at OR x.observed_at < r.pass_started_at)
         AND (_except IS NULL OR x.external_id NOT IN (SELECT e.id FROM unnest(_except) e(id) WHERE e.id IS NOT NULL))
       ORDER BY x.external_id FOR NO KEY UPDATE OF x), _flohsync.confirmed_at(r.connector_id, r.resource_type));
    UPDATE flohsync.sync_run x SET staled = x.staled + settle_pass.staled WHERE x.id = _run;
  END IF;
  -- Spared records were not confirmed by this pass.
  IF full_pass AND _except IS NULL THEN
    UPDATE flohsync.connector_sync_config x
       SET last_full_pass_at = greatest(x.last_full_pass_at, r.pass_started_at)
     WHERE x.id = c.id;
    -- A run that was held is over: whatever it has seen is not noted any more.
    IF r.status <> 'held' THEN
      PERFORM _flohsync.keep_page_prints(_run);
    END IF;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.settle_pass(bigint, boolean, text[]) IS
  'Marks the records stale that are missing or deleted according to a pass, except some external ids, '
  'unless a safeguard holds the run';

CREATE FUNCTION _flohsync.supersede_held(_connector uuid, _type text, _run bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  UPDATE flohsync.sync_run x
     SET status = 'cancelled',
       notes = pg_catalog.concat_ws('; ', x.notes, pg_catalog.format('superseded by run %s', _run)),
       resolved_at = pg_catalog.clock_timestamp()
   WHERE x.connector_id = _connector AND x.resource_type = _type AND x.status = 'held' AND x.id < _run;
END
$$;
COMMENT ON FUNCTION _flohsync.supersede_held(uuid, text, bigint) IS 'Cancels held runs that a later pass supersedes';

CREATE FUNCTION _flohsync.purge_in_halves(c flohsync.connector_sync_config, _run bigint, _limit bigint,
                                          OUT removed bigint, OUT refused bigint, OUT message text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  too_many constant int := 200;  -- so many that are refused end it: each takes subtransactions
  -- At random: those that can never go must not stand before the others in each run.
  ids uuid[] := _flohsync.purgeable(c.connector_id, c.resource_type, _flohsync.duration(c.stale_retention), _limit,
                                    _run, true);
  -- Ranges that are to be tried, the last one first.
  lows int[] := ARRAY[1];
  highs int[] := ARRAY[cardinality(ids)];
  low int;
  high int;
BEGIN
  removed := 0;
  refused := 0;
  WHILE cardinality(lows) > 0 AND refused < too_many LOOP
    low := lows[cardinality(lows)];
    high := highs[cardinality(highs)];
    lows := trim_array(lows, 1);
    highs := trim_array(highs, 1);
    CONTINUE WHEN low > high;
    BEGIN
      removed := removed + _flohsync.records_removed(c.connector_id, c.resource_type, ids[low:high], true, _run);
    EXCEPTION WHEN integrity_constraint_violation THEN
      IF low < high THEN
        lows := lows || ARRAY[(low + high) / 2 + 1, low];
        highs := highs || ARRAY[high, (low + high) / 2];
      ELSE
        refused := refused + 1;
        message := _flohsync.clean(SQLERRM);
      END IF;
    END;
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.purge_in_halves(flohsync.connector_sync_config, bigint, bigint) IS
  'Purges records, some of a batch of which cannot be deleted because foreign tables refer to them, in halves until '
  'these are alone; returns how many were, and why';

CREATE FUNCTION _flohsync.purge_run(_run bigint, _limit bigint) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  n bigint;
  c flohsync.connector_sync_config := _flohsync.keep_config(_run);
  halves record;
BEGIN
  PERFORM _flohsync.share_matching(c.connector_id, c.resource_type);
  -- While it is not known who has to be deactivated, the records that tell it stay.
  BEGIN
    SELECT _flohsync.purge(c.connector_id, c.resource_type, _flohsync.duration(c.stale_retention), _limit, _run) INTO n
      FROM flohsync.sync_run r
     WHERE r.id = _run AND c.id IS NOT NULL
       AND NOT (c.deactivate_users
                AND coalesce(jsonb_path_exists(r.post_sync, '$.errors[*] ? (!exists(@.externalId))'), false));
  EXCEPTION WHEN integrity_constraint_violation THEN
    halves := _flohsync.purge_in_halves(c, _run, _limit);
    n := halves.removed;
    IF halves.refused > 0 THEN
      PERFORM _flohsync.stage_failed(_run, 'purge', '23503',
                                     format('%s records cannot be purged: %s', halves.refused, halves.message));
    END IF;
  WHEN OTHERS THEN
    IF _flohsync.passes(SQLSTATE) THEN
      RAISE;
    END IF;
    -- A workflow that nobody can tell of anything: the next run purges them.
    PERFORM _flohsync.stage_failed(_run, 'purge', SQLSTATE, SQLERRM);
  END;
  IF n > 0 THEN
    UPDATE flohsync.sync_run r SET removed = r.removed + n WHERE r.id = _run;
  END IF;
  RETURN coalesce(n, 0);
END
$$;
COMMENT ON FUNCTION _flohsync.purge_run(bigint, bigint) IS 'Purges one batch of old stale records on behalf of a run';

CREATE FUNCTION _flohsync.finish_run(_run bigint, _status text, _complete boolean, _reason text,
  _error text, _class text, _watermark timestamptz, _retry_after interval DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
  pass bigint;
  last record;
  forget boolean;
  read_on boolean := _status IN ('success', 'held') AND _watermark IS NOT NULL;
  retry_delay interval := coalesce(current_setting('flohsync.retry_delay', true), '5s')::interval;
  again boolean;
  class record; -- of the error
BEGIN
  SELECT e.* INTO class FROM _flohsync.error_classes() e WHERE e.class = _class;
  PERFORM _flohsync.lock_config(_run);
  SELECT x.pass_id INTO pass FROM flohsync.sync_run x WHERE x.id = _run;
  IF _status <> 'success' OR NOT _complete THEN
    PERFORM _flohsync.fill_ledger(_run);
  END IF;
  SELECT l.page, l.next_cursor, l.link INTO last FROM _flohsync.pass_pages(pass) l ORDER BY l.page DESC LIMIT 1;
  -- A page that could not use what came says so with an empty link: the next pass begins without one.
  SELECT coalesce(bool_or(l.link = ''), false) AND _status IN ('success', 'held') INTO forget
    FROM _flohsync.pass_pages(pass) l;
  UPDATE flohsync.sync_run x
     SET status = _status, finished_at = clock_timestamp(), complete = _complete,
         incomplete_reason = CASE WHEN NOT _complete THEN _reason END,
         error = _error, error_class = _class,
         -- a pass whose cursors went in circles, or that was stopped by hand, is not gone on with
         cursor = CASE WHEN _status = 'error' AND class.keeps_cursor THEN last.next_cursor END,
         pages = (SELECT count(*) FROM flohsync.sync_run_page p WHERE p.run_id = _run),
         pass_pages = coalesce(last.page, 0)
   WHERE x.id = _run AND x.status IN ('queued', 'running')
  RETURNING x.* INTO r;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  UPDATE flohsync.sync_run x SET stats = _flohsync.run_stats(_run) WHERE x.id = _run RETURNING x.* INTO r;
  IF _status IN ('success', 'held') THEN
    PERFORM _flohsync.trigger_summary(_run, r.stats);
  END IF;
  -- The ledger of a run is kept until a pass is complete.
  IF _status = 'success' AND _complete AND r.strategy = 'full' THEN
    PERFORM _flohsync.forget_seen(r.connector_id, r.resource_type, _run);
  END IF;
  -- A schedule's run is tried again three times, where a later try may go better.
  again := _status = 'error' AND r.trigger IN ('schedule', 'retry') AND retry_delay > '0'
           AND coalesce(class.retried_by_schedule, false);
  UPDATE flohsync.connector_sync_config c
     SET retries = CASE WHEN _status = 'cancelled' OR NOT again THEN 0 WHEN r.trigger = 'retry' THEN c.retries + 1
       ELSE 0 END,
         retry_at = CASE WHEN again AND (r.trigger = 'schedule' OR c.retries + 1 < 3)
                         THEN clock_timestamp() + greatest(_retry_after,
                                                           retry_delay * (1 << CASE r.trigger
                                                               WHEN 'retry' THEN c.retries + 1 ELSE 0 END)) END,
         parked = _status = 'error' AND _class = _flohsync.error_class('crash_loop'),
         last_success_at = CASE _status WHEN 'success' THEN r.finished_at ELSE c.last_success_at END,
         -- What a full pass missed, no incremental one makes up for.
         last_complete_at = CASE WHEN _complete AND _status IN ('success', 'held')
             AND (r.strategy = 'full' OR c.full_incomplete_reason IS NULL)
                                 THEN r.finished_at ELSE c.last_complete_at END,
         incomplete_reason = CASE WHEN _status = 'cancelled' THEN c.incomplete_reason WHEN NOT _complete
           THEN coalesce(_reason, _error)
                                  WHEN r.strategy <> 'full' THEN c.full_incomplete_reason END,
         full_incomplete_reason = CASE WHEN _status = 'cancelled' OR r.strategy <> 'full' THEN c.full_incomplete_reason
                                       WHEN NOT _complete THEN coalesce(_reason, _error) END,
         totals = _flohsync.add_counters(c.totals, _flohsync.totals_of(r.stats) || jsonb_build_object(_status, 1)),
         last_sync_at = r.finished_at,
         last_sync_cursor = r.cursor,
         last_sync_status = CASE _status WHEN 'success' THEN 'success' WHEN 'cancelled' THEN 'idle' ELSE 'error' END,
         last_sync_error = _error,
         last_sync_stats = r.stats,
         -- Everything requested was received, though perhaps not all of it could be identified.
         delta_link = CASE WHEN forget THEN NULL WHEN read_on THEN coalesce(last.link, c.delta_link)
           ELSE c.delta_link END,
         delta_fingerprint = CASE WHEN forget THEN NULL WHEN read_on AND last.link IS NOT NULL THEN r.fingerprint
           ELSE c.delta_fingerprint END,
         watermark = CASE WHEN read_on THEN _watermark ELSE c.watermark END
   WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type;
  PERFORM pg_notify('flohsync_run', jsonb_build_object('id', r.id, 'status', r.status)::text);
END
$$;
COMMENT ON FUNCTION _flohsync.finish_run(bigint, text, boolean, text, text, text, timestamptz, interval) IS
  'Ends a run: history, configuration, notification; the watermark is null when the pass did not '
  'receive everything it requested';
