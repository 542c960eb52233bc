-- What users call: ask for runs, wait for them, stop them, decide about held ones.

CREATE FUNCTION _flohsync.trigger_sync(connector text, resource_type text, strategy text, restart boolean)
  RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _connector uuid := _flohsync.hold_connector(connector);
  _type text := _flohsync.check_resource_type(trigger_sync.resource_type);
  _id bigint;
  r flohsync.sync_run;
  _default text;
BEGIN
  IF pg_is_in_recovery() THEN
    PERFORM _flohsync.raise('25006', 'cannot request a run on a standby', NULL, 'Request it on the primary.');
  END IF;
  IF (SELECT d.home <> _flohsync.home() FROM flohsync.connector_definition d WHERE d.id = _connector) THEN
    PERFORM _flohsync.raise('55000',
      _flohsync.clean(format('connector "%s" was restored from a dump of another database', connector)), NULL,
      'To sync it in this database, call flohsync.adopt().');
  END IF;
  IF trigger_sync.restart IS NULL THEN
    PERFORM _flohsync.invalid('restart', 'it must be true or false');
  END IF;
  IF trigger_sync.strategy IS NOT NULL AND trigger_sync.strategy NOT IN ('full', 'incremental') THEN
    PERFORM _flohsync.invalid('strategy', format('%L is not a strategy', trigger_sync.strategy),
                              'Strategies are full and incremental.');
  END IF;
  SELECT c.strategy INTO _default FROM flohsync.connector_sync_config c WHERE c.connector_id = _connector
      AND c.resource_type = _type;
  IF NOT FOUND THEN
    PERFORM _flohsync.raise('42704',
      _flohsync.clean(format('connector "%s" has no configuration for resource type "%s"', connector, _type)),
      NULL,
      'Create one with flohsync.configure_sync().');
  END IF;
  PERFORM _flohsync.check_strategy(d.definition, _type, trigger_sync.strategy)
     FROM flohsync.connector_definition d WHERE d.id = _connector AND d.kind = 'rest';
  LOOP
    -- A run that is about to end is not waited for: its worker may be waiting for us.
    SELECT q.* INTO r FROM flohsync.sync_run q
     WHERE q.connector_id = _connector AND q.resource_type = _type AND q.status IN ('queued', 'running');
    IF FOUND THEN
      _id := r.id;
      IF r.status = 'queued' AND (trigger_sync.strategy = 'full' OR trigger_sync.restart) THEN
        -- The configuration before its run, as everywhere.
        PERFORM FROM flohsync.connector_sync_config c WHERE c.connector_id = _connector AND c.resource_type = _type
          FOR NO KEY UPDATE;
        UPDATE flohsync.sync_run q
           SET strategy = CASE trigger_sync.strategy WHEN 'full' THEN 'full' ELSE q.strategy END, restart = q.restart
               OR trigger_sync.restart
         WHERE q.id = r.id AND q.status = 'queued' RETURNING q.* INTO r;
        CONTINUE WHEN NOT FOUND;
      END IF;
      RAISE NOTICE USING
        MESSAGE = format('run %s of that configuration is already %s (strategy %s): it is '
                         'returned instead of a new one', r.id,
                         CASE r.status WHEN 'queued' THEN 'queued' ELSE 'running' END, coalesce(r.strategy, _default));
      EXIT;
    END IF;
    PERFORM _flohsync.lock_queue(_connector, _type, true);
    INSERT INTO flohsync.sync_run AS q (connector_id, resource_type, strategy, trigger, requested_by, restart)
    VALUES (_connector, _type, trigger_sync.strategy, 'manual', _flohsync.caller_name(), trigger_sync.restart)
    ON CONFLICT (connector_id, resource_type) WHERE status IN ('queued', 'running') DO NOTHING
    RETURNING q.id INTO _id;
    EXIT WHEN FOUND;
  END LOOP;
  PERFORM _flohsync.wake();
  RETURN _id;
END
$$;
COMMENT ON FUNCTION _flohsync.trigger_sync(text, text, text, boolean) IS
  'Implementation of the public function of this name, run as its owner';

CREATE FUNCTION flohsync.trigger_sync(connector text, resource_type text, strategy text DEFAULT NULL,
                                      restart boolean DEFAULT false) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_owner';
COMMENT ON FUNCTION flohsync.trigger_sync(text, text, text, boolean) IS
  'Requests a run (strategy full or incremental; null: the configuration''s) and returns its id at once; a run that is '
  'already queued or running is returned instead of a second one, with a notice (a queued one becomes full, or starts '
  'a new pass, when that is requested); restart: starts a new pass instead of resuming one that failed; 42704 for an '
  'unknown connector or configuration, 22023 for an invalid strategy';
SELECT _flohsync.allow('manager', 'flohsync.trigger_sync(text, text, text, boolean)');

CREATE FUNCTION flohsync.adopt() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  n bigint;
BEGIN
  PERFORM _flohsync.check_tables();
  UPDATE flohsync.connector_definition d SET home = _flohsync.home() WHERE d.home <> _flohsync.home();
  GET DIAGNOSTICS n = ROW_COUNT;
  -- A dump has no run that was under way or waited for a decision.
  UPDATE flohsync.workflow_job j SET run_id = NULL
   WHERE j.run_id IS NOT NULL AND NOT EXISTS (SELECT FROM flohsync.sync_run r WHERE r.id = j.run_id);
  PERFORM _flohsync.wake();
  RETURN n;
END
$$;
COMMENT ON FUNCTION flohsync.adopt() IS
  'Lets this database sync the connectors that were restored from a dump of another one, and returns their number; '
  'until then they are neither scheduled nor run';
SELECT _flohsync.allow('manager', 'flohsync.adopt()');

CREATE PROCEDURE flohsync.sync(connector text, resource_type text, INOUT stats jsonb DEFAULT NULL,
                               strategy text DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', 'flohsync_sync';
COMMENT ON PROCEDURE flohsync.sync(text, text, jsonb, text) IS
  'Requests a run as trigger_sync() does and waits for its end; raises the run''s error; cancelling the call does not '
  'cancel the run; not inside a transaction block. When no worker takes the run within a second a notice says why, or '
  'an error (55000) if waiting cannot change that';
SELECT _flohsync.allow('manager', 'flohsync.sync(text, text, jsonb, text)');

CREATE FUNCTION _flohsync.interrupt_run(_connector uuid, _type text) RETURNS boolean
LANGUAGE c VOLATILE STRICT
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_interrupt_run';
COMMENT ON FUNCTION _flohsync.interrupt_run(uuid, text) IS
  'Cancels the current statement of the process that holds the lock of the run; false when none does';

CREATE FUNCTION flohsync.cancel_sync(run_id bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
BEGIN
  PERFORM _flohsync.lock_config(cancel_sync.run_id);
  UPDATE flohsync.sync_run x SET cancel_requested = true
   WHERE x.id = cancel_sync.run_id AND x.status IN ('queued', 'running')
  RETURNING x.* INTO r;
  IF NOT FOUND THEN
    PERFORM FROM flohsync.sync_run x WHERE x.id = cancel_sync.run_id;
    IF NOT FOUND THEN
      PERFORM _flohsync.raise('42704', format('run %s does not exist', coalesce(cancel_sync.run_id::text, 'NULL')));
    END IF;
    RETURN false;
  END IF;
  IF r.status = 'queued' THEN
    PERFORM _flohsync.finish_run(r.id, 'cancelled', false, 'run was cancelled', 'run was cancelled', 'cancelled', NULL);
  ELSIF NOT _flohsync.interrupt_run(r.connector_id, r.resource_type) THEN
    PERFORM _flohsync.wake();
  END IF;
  RETURN true;
END
$$;
COMMENT ON FUNCTION flohsync.cancel_sync(bigint) IS
  'Stops a queued or running run; false when it has ended already; 42704 when there is none';
SELECT _flohsync.allow('manager', 'flohsync.cancel_sync(bigint)');

CREATE FUNCTION _flohsync.try_run_lock(_connector uuid, _type text) RETURNS boolean
LANGUAGE c VOLATILE STRICT
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_try_run_lock';
COMMENT ON FUNCTION _flohsync.try_run_lock(uuid, text) IS
  'Takes the lock of a configuration''s runs until the end of the transaction; false when a worker has it';

CREATE FUNCTION _flohsync.held_run(_run bigint) RETURNS flohsync.sync_run
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r flohsync.sync_run;
  locked boolean := false;
  patience timestamptz := clock_timestamp() + interval '10 seconds';
BEGIN
  LOOP
    -- The holder of the lock of the runs may be waiting for the configuration.
    IF locked THEN
      PERFORM _flohsync.lock_config(_run);
    END IF;
    SELECT * INTO r FROM flohsync.sync_run x WHERE x.id = _run;
    IF NOT FOUND THEN
      PERFORM _flohsync.raise('42704', format('run %s does not exist', coalesce(_run::text, 'NULL')));
    ELSIF r.status <> 'held' THEN
      PERFORM _flohsync.raise('55000',
        format('run %s is not held', _run),
        concat_ws('; ', format('Its status is %s', r.status), r.notes) || '.');
    END IF;
    EXIT WHEN locked;
    locked := _flohsync.try_run_lock(r.connector_id, r.resource_type);
    CONTINUE WHEN locked;
    -- A worker that has just reported the end of its run has not released the lock yet.
    IF clock_timestamp() > patience
       OR EXISTS (SELECT FROM flohsync.sync_run x
                   WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type
                     AND x.status = 'running') THEN
      PERFORM _flohsync.raise('55006',
        format('another run of resource type "%s" is in progress', r.resource_type),
        NULL,
        'Wait until it ends; if it is complete, it supersedes the held run.');
    END IF;
    PERFORM pg_sleep(0.005);
  END LOOP;
  RETURN r;
END
$$;
COMMENT ON FUNCTION _flohsync.held_run(bigint) IS
  'A held run, locked against other decisions until the end of the transaction';

-- What the approval of a held run would do: the records that would go stale, and
-- the users who would be deactivated, each with one of their records.
CREATE FUNCTION _flohsync.held_effects(_run bigint)
RETURNS TABLE (external_id text, display_name text, email text, op text, user_id uuid, user_email text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
  c flohsync.connector_sync_config;
  gone uuid[];
BEGIN
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  SELECT * INTO c FROM flohsync.connector_sync_config x WHERE x.connector_id = r.connector_id
      AND x.resource_type = r.resource_type;
  SELECT g.ids INTO gone FROM _flohsync.gone_records(_run, coalesce(r.complete, false)) g;
  RETURN QUERY
    SELECT x.external_id::text, x.display_name::text, x.email::text, 'staled', u.id, u.email
      FROM unnest(gone) g(id) JOIN flohsync.resource_record x ON x.id = g.id
      LEFT JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id
          AND m.match_status IN ('matched', 'manual_override')
      LEFT JOIN _flohsync.app_user u ON u.id = m.user_id;
  IF NOT coalesce(c.deactivate_users, false) THEN
    RETURN;
  END IF;
  RETURN QUERY
    SELECT DISTINCT ON (l.user_id) x.external_id::text, x.display_name::text, x.email::text, 'deactivated',
      l.user_id, u.email
      FROM (SELECT * FROM _flohsync.users_to_deactivate(c, NULL)
            UNION
            -- those who leave by what would go stale
            SELECT o.user_id FROM unnest(gone) g(id)
              JOIN flohsync.connector_sync_match o ON o.connector_resource_id = g.id
                  AND o.match_status IN ('matched', 'manual_override')
             WHERE NOT EXISTS (SELECT FROM flohsync.connector_sync_match n JOIN flohsync.resource_record y
                               ON y.id = n.connector_resource_id
                                WHERE n.user_id = o.user_id AND n.match_status IN ('matched', 'manual_override')
                                  AND y.stale_since IS NULL
                                  AND y.id NOT IN (SELECT i.id FROM unnest(gone) i(id)))) l(user_id)
      JOIN _flohsync.app_user u ON u.id = l.user_id AND coalesce(u.active, true)
      JOIN flohsync.connector_sync_match m ON m.user_id = l.user_id AND m.connector_id = c.connector_id
          AND m.resource_type = c.resource_type
      JOIN flohsync.resource_record x ON x.id = m.connector_resource_id
     ORDER BY l.user_id, x.external_id;
END
$$;
COMMENT ON FUNCTION _flohsync.held_effects(bigint) IS 'Effects of the approval of a held run on records and users';

CREATE FUNCTION _flohsync.held_changes(run_id bigint, page int, page_size int) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
  _total bigint;
  _data jsonb;
BEGIN
  PERFORM _flohsync.check_page(held_changes.page, held_changes.page_size);
  SELECT * INTO r FROM flohsync.sync_run x WHERE x.id = held_changes.run_id;
  IF NOT FOUND THEN
    PERFORM _flohsync.raise('42704', format('run %s does not exist', coalesce(held_changes.run_id::text, 'NULL')));
  ELSIF r.status <> 'held' THEN
    PERFORM _flohsync.raise('55000', format('run %s is not held', r.id),
                            concat_ws('; ', format('Its status is %s', r.status), r.notes) || '.');
  END IF;
  WITH effect AS MATERIALIZED (SELECT * FROM _flohsync.held_effects(r.id))
  SELECT (SELECT count(*) FROM effect),
         (SELECT coalesce(jsonb_agg(jsonb_build_object('externalId', e.external_id, 'displayName', e.display_name,
                                                       'email', e.email, 'op', e.op,
                                                       'userId', e.user_id, 'userEmail', e.user_email)
                                                         ORDER BY e.external_id COLLATE "C", e.op DESC,
                                                         e.user_id), '[]')
            FROM (SELECT * FROM effect f ORDER BY f.external_id COLLATE "C", f.op DESC, f.user_id
                   LIMIT held_changes.page_size OFFSET (held_changes.page - 1)::bigint * held_changes.page_size) e)
    INTO _total, _data;
  RETURN jsonb_build_object('data', _data, 'total', _total, 'page', held_changes.page, 'pageSize',
                            held_changes.page_size,
                            'totalPages', (_total + held_changes.page_size - 1) / held_changes.page_size);
END
$$;
COMMENT ON FUNCTION _flohsync.held_changes(bigint, int, int) IS
  'Implementation of the public function of this name, run as the workers'' role';

CREATE FUNCTION flohsync.held_changes(run_id bigint, page int DEFAULT 1, page_size int DEFAULT 50) RETURNS jsonb
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_as_worker';
COMMENT ON FUNCTION flohsync.held_changes(bigint, int, int) IS
  'A page of what the approval of a held run would do now: {externalId, displayName, email, op, userId, userEmail}, op '
  'staled (the record) or deactivated (the user), an item each, in the order of external ids; pages of 1 to 2000 (50), '
  'counted from 1; 42704 for an unknown run, 55000 for one that is not held, 22023 for an invalid page';
SELECT _flohsync.allow('reader', 'flohsync.held_changes(bigint, int, int)');

CREATE FUNCTION _flohsync.approve_run(run_id bigint, notes text, except_ids text[]) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run := _flohsync.held_run(approve_run.run_id);
  c flohsync.connector_sync_config;
  d flohsync.connector_definition;
  s record;
  n bigint;
  before jsonb := coalesce(r.post_sync, '{}');
BEGIN
  SELECT * INTO STRICT d FROM flohsync.connector_definition x WHERE x.id = r.connector_id;
  SELECT * INTO c FROM flohsync.connector_sync_config x WHERE x.connector_id = r.connector_id
      AND x.resource_type = r.resource_type;
  PERFORM _flohsync.invalid('except_ids', format('there is no record %s', _flohsync.excerpt(e.id)),
                            'flohsync.held_changes() lists those that the run is about. Nothing was changed.')
     FROM unnest(approve_run.except_ids) e(id)
    WHERE NOT EXISTS (SELECT FROM flohsync.resource_record x
                       WHERE x.external_id = e.id AND x.resource_type = r.resource_type
                         AND x.connector_id = r.connector_id) LIMIT 1;
  IF c.id IS NULL OR r.decided_under IS DISTINCT FROM _flohsync.decided_under(d, c) THEN
    PERFORM _flohsync.raise('55000', format('the configuration has changed since run %s was held', r.id),
      'The connector, the strategy or the filters have changed, and so may have the records that are missing.',
      'Run the sync again, so that a complete pass decides; or drop the run with flohsync.reject_run().');
  END IF;
  -- A pass that was not complete says nothing about what it did not see, approved or not.
  s := _flohsync.settle_pass(r.id, coalesce(r.complete, false), except_ids);
  -- The decision about a spared record is final, unless something else happens to the record.
  PERFORM _flohsync.settle_departures(ARRAY(
    SELECT DISTINCT m.user_id FROM flohsync.connector_sync_match m
     WHERE m.connector_id = r.connector_id AND m.resource_type = r.resource_type AND m.user_id IS NOT NULL
       AND m.external_id IN (SELECT e.id FROM unnest(except_ids) e(id))));
  PERFORM _flohsync.post_sync(r.id, false);
  n := CASE WHEN r.complete THEN _flohsync.purge_run(r.id, NULL) ELSE 0 END;
  UPDATE flohsync.sync_run x
     SET status = 'success', resolved_by = _flohsync.caller_name(), resolved_at = clock_timestamp(),
         error = NULL, error_class = NULL, notes = concat_ws('; ', approve_run.notes, 'it was held: ' || x.error)
   WHERE x.id = r.id RETURNING x.* INTO r;
  UPDATE flohsync.sync_run x
     SET stats = x.stats || jsonb_build_object('staled', x.staled, 'removed', x.removed)
                 || CASE WHEN x.post_sync IS NULL THEN '{}' ELSE jsonb_build_object('postSync', x.post_sync) END
   WHERE x.id = r.id RETURNING x.* INTO r;
  PERFORM _flohsync.trigger_summary(r.id, r.stats);
  -- The configuration tells of its last run; that may be a later one.
  UPDATE flohsync.connector_sync_config c
     SET last_sync_status = 'success', last_sync_error = NULL, last_sync_stats = r.stats,
       last_success_at = clock_timestamp()
   WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type
     AND NOT EXISTS (SELECT FROM flohsync.sync_run x
                      WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.id > r.id);
  -- Counters never fall: the run was held, and has succeeded now.
  UPDATE flohsync.connector_sync_config c
     SET totals = _flohsync.add_counters(c.totals, jsonb_build_object('success', 1, 'staled', s.staled, 'removed', n,
           'usersDeactivated', coalesce((r.post_sync ->> 'usersDeactivated')::bigint, 0)
             - coalesce((before ->> 'usersDeactivated')::bigint, 0),
           'usersCreated', coalesce((r.post_sync ->> 'usersCreated')::bigint, 0)
             - coalesce((before ->> 'usersCreated')::bigint, 0)))
   WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type;
  PERFORM pg_notify('flohsync_run', jsonb_build_object('id', r.id, 'status', r.status)::text);
  -- A run requested meanwhile found the lock taken.
  PERFORM _flohsync.wake();
  RETURN jsonb_build_object('runId', r.id, 'status', r.status, 'staled', s.staled, 'removed', n, 'stats', r.stats);
END
$$;
COMMENT ON FUNCTION _flohsync.approve_run(bigint, text, text[]) IS
  'Implementation of the public function of this name, run as the workers'' role';

CREATE FUNCTION flohsync.approve_run(run_id bigint, notes text DEFAULT NULL, except_ids text[] DEFAULT NULL)
  RETURNS jsonb
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_worker';
COMMENT ON FUNCTION flohsync.approve_run(bigint, text, text[]) IS
  'Approves a held run: determines again which records are missing, and marks them stale, except those of except_ids '
  'and those that any later run has seen; deactivates users likewise; 42704 for an unknown run; 22023 for an id that '
  'no record has; 55000 for a run that is not held, or when the connector, the strategy or the filters have changed '
  'since; 55006 while another run is in progress';
SELECT _flohsync.allow('manager', 'flohsync.approve_run(bigint, text, text[])');

CREATE FUNCTION _flohsync.reject_run(run_id bigint, notes text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run := _flohsync.held_run(reject_run.run_id);
BEGIN
  UPDATE flohsync.sync_run x
     SET status = 'cancelled', resolved_by = _flohsync.caller_name(), resolved_at = clock_timestamp(),
       notes = reject_run.notes
   WHERE x.id = r.id;
  -- The decision about the users is final, unless something else happens to the record.
  PERFORM _flohsync.settle_departures(ARRAY(SELECT * FROM _flohsync.users_to_deactivate(c, NULL)))
     FROM flohsync.connector_sync_config c
    WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type AND c.deactivate_users;
  PERFORM _flohsync.forget_changes(ARRAY(
    SELECT q.seq FROM _flohsync.record_change q JOIN flohsync.resource_record x ON x.id = q.resource_id
     WHERE q.connector_id = r.connector_id AND q.resource_type = r.resource_type AND q.change = 'recheck'
       AND x.stale_since IS NOT NULL));
  UPDATE flohsync.connector_sync_config c SET last_sync_status = 'idle', last_sync_error = NULL
   WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type
     AND NOT EXISTS (SELECT FROM flohsync.sync_run x
                      WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.id > r.id);
  PERFORM pg_notify('flohsync_run', jsonb_build_object('id', r.id, 'status', 'cancelled')::text);
  -- A run requested meanwhile found the lock taken.
  PERFORM _flohsync.wake();
END
$$;
COMMENT ON FUNCTION _flohsync.reject_run(bigint, text) IS
  'Implementation of the public function of this name, run as the workers'' role';

CREATE FUNCTION flohsync.reject_run(run_id bigint, notes text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_worker';
COMMENT ON FUNCTION flohsync.reject_run(bigint, text) IS
  'Rejects a held run; the records that it missed and the users that it would have deactivated remain unchanged';
SELECT _flohsync.allow('manager', 'flohsync.reject_run(bigint, text)');

CREATE FUNCTION flohsync.delete_sync_config(connector text, resource_type text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _connector uuid := _flohsync.hold_connector(connector);
  _run bigint;
BEGIN
  -- A running worker is cancelled, and releases the locks needed here.
  PERFORM _flohsync.interrupt_run(r.connector_id, r.resource_type) FROM flohsync.sync_run r
    WHERE r.connector_id = _connector AND r.resource_type = delete_sync_config.resource_type AND r.status = 'running';
  PERFORM FROM flohsync.connector_definition d WHERE d.id = _connector FOR NO KEY UPDATE;
  PERFORM FROM flohsync.connector_sync_config c
    WHERE c.connector_id = _connector AND c.resource_type = delete_sync_config.resource_type FOR UPDATE;
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
  'Removes a configuration with its schedules; the records remain; false when there was none';
SELECT _flohsync.allow('manager', 'flohsync.delete_sync_config(text, text)');

CREATE FUNCTION flohsync.test_connector(connector text) RETURNS jsonb
LANGUAGE c VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_test_connector';
COMMENT ON FUNCTION flohsync.test_connector(text) IS
  'Requests one record of each resource type from the upstream: {"ok":true,"types":{…}} or {"ok":false,"error":…}; an '
  'upstream''s failure is never raised';
SELECT _flohsync.allow('manager', 'flohsync.test_connector(text)');
