-- What users call: ask for runs, wait for them, stop them, decide about held ones.

CREATE FUNCTION _flohsync.trigger_sync(connector text, resource_type text, strategy text) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _connector uuid := _flohsync.hold_connector(connector);
  _type text := _flohsync.check_resource_type(trigger_sync.resource_type);
  _id bigint;
BEGIN
  IF trigger_sync.strategy IS NOT NULL AND trigger_sync.strategy NOT IN ('full', 'incremental') THEN
    PERFORM _flohsync.invalid('strategy', format('%L is not a strategy', trigger_sync.strategy), 'Strategies are full and incremental.');
  END IF;
  PERFORM FROM flohsync.connector_sync_config c WHERE c.connector_id = _connector AND c.resource_type = _type;
  IF NOT FOUND THEN
    PERFORM _flohsync.raise('42704',
      _flohsync.clean(format('connector "%s" has no configuration for resource type "%s"', connector, _type)),
      NULL,
      'Make one with flohsync.configure_sync().');
  END IF;
  PERFORM _flohsync.check_strategy(d.definition, _type, trigger_sync.strategy)
     FROM flohsync.connector_definition d WHERE d.id = _connector AND d.kind = 'rest';
  LOOP
    -- A run that is about to end is not waited for: its worker may be waiting for us.
    SELECT q.id INTO _id FROM flohsync.sync_run q
     WHERE q.connector_id = _connector AND q.resource_type = _type AND q.status IN ('queued', 'running');
    EXIT WHEN FOUND;
    PERFORM _flohsync.lock_queue(_connector, _type, true);
    INSERT INTO flohsync.sync_run AS q (connector_id, resource_type, strategy, trigger, requested_by)
    VALUES (_connector, _type, trigger_sync.strategy, 'manual', _flohsync.caller_name())
    ON CONFLICT (connector_id, resource_type) WHERE status IN ('queued', 'running') DO NOTHING
    RETURNING q.id INTO _id;
    EXIT WHEN FOUND;
  END LOOP;
  PERFORM _flohsync.wake();
  RETURN _id;
END
$$;
COMMENT ON FUNCTION _flohsync.trigger_sync(text, text, text) IS 'What the public function of this name does, as its owner';

CREATE FUNCTION flohsync.trigger_sync(connector text, resource_type text, strategy text DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_owner';
COMMENT ON FUNCTION flohsync.trigger_sync(text, text, text) IS
  'Asks for a run and returns its id at once; the run that is already queued or running is returned instead of a second one';
SELECT _flohsync.allow('manager', 'flohsync.trigger_sync(text, text, text)');

CREATE PROCEDURE flohsync.sync(connector text, resource_type text, INOUT stats jsonb DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', 'flohsync_sync';
COMMENT ON PROCEDURE flohsync.sync(text, text, jsonb) IS
  'Asks for a run and waits for its end; raises the run''s error; cancelling the call leaves the run alone; not inside a transaction block';
SELECT _flohsync.allow('manager', 'flohsync.sync(text, text, jsonb)');

CREATE FUNCTION _flohsync.interrupt_run(_connector uuid, _type text) RETURNS boolean
LANGUAGE c VOLATILE STRICT
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_interrupt_run';
COMMENT ON FUNCTION _flohsync.interrupt_run(uuid, text) IS 'Interrupts whoever holds the lock of the run; false when nobody does';

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
COMMENT ON FUNCTION _flohsync.try_run_lock(uuid, text) IS 'Takes the lock of a configuration''s runs until the end of the transaction; false when a worker has it';

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
    -- The row is locked last: who has the lock of the runs may be waiting for it.
    IF locked THEN
      PERFORM _flohsync.lock_config(_run);
      SELECT * INTO r FROM flohsync.sync_run x WHERE x.id = _run FOR NO KEY UPDATE;
    ELSE
      SELECT * INTO r FROM flohsync.sync_run x WHERE x.id = _run;
    END IF;
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
    -- A worker that has just told of the end of its run has not let go of the lock yet.
    IF clock_timestamp() > patience
       OR EXISTS (SELECT FROM flohsync.sync_run x
                   WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.status = 'running') THEN
      PERFORM _flohsync.raise('55006',
        format('another run of resource type "%s" is going on', r.resource_type),
        NULL,
        'Wait for its end; if it is complete, it decides instead of the held one.');
    END IF;
    PERFORM pg_sleep(0.005);
  END LOOP;
  RETURN r;
END
$$;
COMMENT ON FUNCTION _flohsync.held_run(bigint) IS 'A held run, locked for a decision about it';

CREATE FUNCTION _flohsync.approve_run(run_id bigint, notes text) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run := _flohsync.held_run(approve_run.run_id);
  s record;
  n bigint;
  before jsonb := coalesce(r.post_sync, '{}');
BEGIN
  -- A pass that was not complete says nothing about what it did not see, approved or not.
  s := _flohsync.settle_pass(r.id, coalesce(r.complete, false));
  PERFORM _flohsync.post_sync(r.id, false);
  n := CASE WHEN r.complete THEN _flohsync.purge_run(r.id, NULL) ELSE 0 END;
  UPDATE flohsync.sync_run x
     SET status = 'success', resolved_by = _flohsync.caller_name(), resolved_at = clock_timestamp(),
         notes = approve_run.notes
   WHERE x.id = r.id RETURNING x.* INTO r;
  UPDATE flohsync.sync_run x
     SET stats = x.stats || jsonb_build_object('staled', x.staled, 'removed', x.removed)
                 || CASE WHEN x.post_sync IS NULL THEN '{}' ELSE jsonb_build_object('postSync', x.post_sync) END
   WHERE x.id = r.id RETURNING x.* INTO r;
  PERFORM _flohsync.trigger_summary(r.id, r.stats);
  PERFORM _flohsync.forget_pass(r.pass_id);
  -- The configuration tells of its last run; that may be a later one.
  UPDATE flohsync.connector_sync_config c
     SET last_sync_status = 'success', last_sync_error = NULL, last_sync_stats = r.stats, last_success_at = clock_timestamp()
   WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type
     AND NOT EXISTS (SELECT FROM flohsync.sync_run x
                      WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.id > r.id);
  UPDATE flohsync.connector_sync_config c
     SET totals = _flohsync.sum(c.totals, jsonb_build_object('success', 1, 'held', -1, 'staled', s.staled, 'removed', n,
           'usersDeactivated', coalesce((r.post_sync ->> 'usersDeactivated')::bigint, 0) - coalesce((before ->> 'usersDeactivated')::bigint, 0),
           'usersCreated', coalesce((r.post_sync ->> 'usersCreated')::bigint, 0) - coalesce((before ->> 'usersCreated')::bigint, 0)))
   WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type;
  PERFORM pg_notify('flohsync_run', jsonb_build_object('id', r.id, 'status', r.status)::text);
  -- A run that was asked for meanwhile found the lock taken.
  PERFORM _flohsync.wake();
  RETURN jsonb_build_object('runId', r.id, 'status', r.status, 'staled', s.staled, 'removed', n, 'stats', r.stats);
END
$$;
COMMENT ON FUNCTION _flohsync.approve_run(bigint, text) IS 'What the public function of this name does, as the workers'' role';

CREATE FUNCTION flohsync.approve_run(run_id bigint, notes text DEFAULT NULL) RETURNS jsonb
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_worker';
COMMENT ON FUNCTION flohsync.approve_run(bigint, text) IS
  'Lets a held run do what the safeguard stopped: looks again which records are missing and marks them stale';
SELECT _flohsync.allow('manager', 'flohsync.approve_run(bigint, text)');

CREATE FUNCTION _flohsync.reject_run(run_id bigint, notes text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run := _flohsync.held_run(reject_run.run_id);
BEGIN
  UPDATE flohsync.sync_run x
     SET status = 'cancelled', resolved_by = _flohsync.caller_name(), resolved_at = clock_timestamp(), notes = reject_run.notes
   WHERE x.id = r.id;
  -- Who was to be deactivated is not asked about again, unless something else happens to the record.
  PERFORM _flohsync.settle_departures(ARRAY(SELECT * FROM _flohsync.leavers(c, NULL)))
     FROM flohsync.connector_sync_config c
    WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type AND c.deactivate_users;
  PERFORM _flohsync.forget_changes(ARRAY(
    SELECT q.seq FROM _flohsync.record_change q JOIN flohsync.resource_record x ON x.id = q.resource_id
     WHERE q.connector_id = r.connector_id AND q.resource_type = r.resource_type AND q.change = 'again' AND x.stale_since IS NOT NULL));
  PERFORM _flohsync.forget_pass(r.pass_id);
  UPDATE flohsync.connector_sync_config c SET last_sync_status = 'idle', last_sync_error = NULL
   WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type
     AND NOT EXISTS (SELECT FROM flohsync.sync_run x
                      WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.id > r.id);
  PERFORM pg_notify('flohsync_run', jsonb_build_object('id', r.id, 'status', 'cancelled')::text);
  -- A run that was asked for meanwhile found the lock taken.
  PERFORM _flohsync.wake();
END
$$;
COMMENT ON FUNCTION _flohsync.reject_run(bigint, text) IS 'What the public function of this name does, as the workers'' role';

CREATE FUNCTION flohsync.reject_run(run_id bigint, notes text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_worker';
COMMENT ON FUNCTION flohsync.reject_run(bigint, text) IS 'Drops a held run; the records that it missed, and the users it would have deactivated, stay as they are';
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
  -- Who is at work stops at once, and lets go of what is wanted here.
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
  'Removes a configuration with its schedules; the records stay; false when there was none';
SELECT _flohsync.allow('manager', 'flohsync.delete_sync_config(text, text)');

CREATE FUNCTION flohsync.test_connector(connector text) RETURNS jsonb
LANGUAGE c VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_test_connector';
COMMENT ON FUNCTION flohsync.test_connector(text) IS
  'Asks the upstream for one record of each resource type: {"ok":true,"types":{…}} or {"ok":false,"error":…}; an upstream''s failure is never raised';
SELECT _flohsync.allow('manager', 'flohsync.test_connector(text)');
