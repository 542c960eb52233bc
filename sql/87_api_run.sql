-- What HTTP serves of runs.

CREATE FUNCTION _flohsync.run_dto(_r flohsync.sync_run) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN pg_catalog.jsonb_build_object(
  'id', (_r).id, 'connectorId', (_r).connector_id,
  'connector', (SELECT d.name FROM flohsync.connector_definition d WHERE d.id = (_r).connector_id),
  'resourceType', (_r).resource_type, 'mode', 'sync', 'strategy', (_r).strategy, 'trigger', (_r).trigger,
  'requestedBy', (_r).requested_by, 'requestedAt', _flohsync.iso((_r).requested_at),
  'startedAt', _flohsync.iso((_r).started_at), 'finishedAt', _flohsync.iso((_r).finished_at),
  'status', (_r).status, 'cancelRequested', (_r).cancel_requested, 'pages', (_r).pages, 'complete', (_r).complete,
  'incompleteReason', (_r).incomplete_reason, 'error', (_r).error, 'errorClass', (_r).error_class,
  'stats', (_r).stats, 'resolvedBy', (_r).resolved_by, 'resolvedAt', _flohsync.iso((_r).resolved_at),
  'notes', (_r).notes);
COMMENT ON FUNCTION _flohsync.run_dto(flohsync.sync_run) IS 'A run in its public JSON form';

CREATE FUNCTION _flohsync.progress_dto(_p flohsync.sync_progress) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN pg_catalog.jsonb_build_object(
  'runId', (_p).run_id, 'connectorId', (_p).connector_id, 'connector', (_p).connector,
  'resourceType', (_p).resource_type, 'status', (_p).status, 'stage', (_p).stage, 'page', (_p).page,
  'records', (_p).records, 'totalEstimate', (_p).total_estimate, 'percent', (_p).percent, 'added', (_p).added,
  'updated', (_p).updated, 'unchanged', (_p).unchanged, 'errored', (_p).errored,
  'recordsPerSecond', (_p).records_per_s, 'startedAt', _flohsync.iso((_p).started_at),
  'eta', _flohsync.iso((_p).eta));
COMMENT ON FUNCTION _flohsync.progress_dto(flohsync.sync_progress) IS
  'The progress of a run in its public JSON form';

CREATE FUNCTION _flohsync.run_of(_connector text, _run bigint) RETURNS flohsync.sync_run
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _id uuid := _flohsync.connector_id(_connector);
  r flohsync.sync_run;
BEGIN
  SELECT * INTO r FROM flohsync.sync_run x WHERE x.id = _run AND x.connector_id = _id;
  IF NOT FOUND THEN
    PERFORM _flohsync.raise('42704', _flohsync.clean(format('connector "%s" has no run %s', _connector,
                                                            coalesce(_run::text, 'NULL'))));
  END IF;
  RETURN r;
END
$$;
COMMENT ON FUNCTION _flohsync.run_of(text, bigint) IS 'A run of a connector; 42704 when it is none of its runs';

CREATE FUNCTION _flohsync.run_location(_r flohsync.sync_run) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN pg_catalog.format('/api/connectors/%s/runs/%s', (_r).connector_id, (_r).id);
COMMENT ON FUNCTION _flohsync.run_location(flohsync.sync_run) IS 'Path at which HTTP serves a run';

CREATE FUNCTION _flohsync.api_trigger_sync(connector text, resource_type text, strategy text DEFAULT NULL)
  RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _id uuid;
  _type text := _flohsync.check_resource_type(resource_type);
  r flohsync.sync_run;
BEGIN
  -- Before a lock: on a standby there are none.
  IF pg_is_in_recovery() THEN
    PERFORM _flohsync.raise('25006', 'cannot request a run on a standby', NULL, 'Request it on the primary.');
  END IF;
  _id := _flohsync.hold_connector(connector);
  -- Nobody else queues a run meanwhile.
  PERFORM _flohsync.lock_queue(_id, _type, true);
  SELECT * INTO r FROM flohsync.sync_run x
   WHERE x.connector_id = _id AND x.resource_type = _type AND x.status IN ('queued', 'running');
  IF FOUND THEN
    PERFORM _flohsync.respond(409, _flohsync.run_location(r));
    RETURN jsonb_build_object(
      'runId', r.id, 'code', '55006',
      'message', format('run %s of that configuration is already %s', r.id, r.status), 'details', NULL,
      'hint', 'Wait until it ends, or cancel it.');
  END IF;
  r.id := _flohsync.trigger_sync(connector, _type, nullif(strategy, ''), false);
  r.connector_id := _id;
  PERFORM _flohsync.respond(202, _flohsync.run_location(r));
  RETURN jsonb_build_object('runId', r.id);
END
$$;
SELECT _flohsync.serve('{manager}', 'trigger_sync(text, text, text)',
  'Requests a run, and returns its {runId} with status 202; with status 409 when one is queued or running already: its '
  'runId, with code, message, details and hint; 42704 without a configuration, 22023 for an invalid strategy');

CREATE FUNCTION _flohsync.api_trigger_result(connector text, run_id bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r flohsync.sync_run := _flohsync.run_of(connector, run_id);
  cancelled boolean := r.status = 'cancelled';
BEGIN
  CASE r.status
    WHEN 'success' THEN
      RETURN jsonb_build_object('message', 'Sync completed', 'stats', r.stats);
    WHEN 'held' THEN
      RETURN jsonb_build_object('message', 'Sync held: ' || coalesce(r.error, ''), 'stats', r.stats, 'held', true,
                                'runId', r.id);
    WHEN 'queued', 'running' THEN
      PERFORM _flohsync.respond(202, _flohsync.run_location(r));
      RETURN jsonb_build_object('runId', r.id);
    ELSE
      PERFORM _flohsync.respond(CASE WHEN cancelled THEN 409 ELSE 502 END);
      RETURN jsonb_build_object(
        'code', CASE WHEN cancelled THEN '57014' ELSE '38000' END,
        'message', format('run %s %s: %s', r.id, CASE WHEN cancelled THEN 'was cancelled' ELSE 'failed' END,
                          coalesce(_flohsync.clean(r.error), 'no message')),
        'details', 'Error class: ' || r.error_class || '.', 'hint', NULL, 'runId', r.id, 'stats', r.stats);
  END CASE;
END
$$;
SELECT _flohsync.serve('{manager}', 'trigger_result(text, bigint)',
  'How a run that was requested has ended: {message, stats}, with held: true when it waits for a decision; an error '
  'with status 502 when it failed, 409 when it was cancelled; {runId} with status 202 while it goes on');

CREATE FUNCTION _flohsync.api_runs(connector text DEFAULT NULL, resource_type text DEFAULT NULL,
                                   status text DEFAULT NULL, mode text DEFAULT NULL, page int DEFAULT 1,
                                   page_size int DEFAULT 50) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  _id uuid := CASE WHEN connector IS NOT NULL THEN _flohsync.connector_id(connector) END;
  _type text := CASE WHEN api_runs.resource_type <> '' THEN _flohsync.check_resource_type(api_runs.resource_type) END;
  _status text := nullif(api_runs.status, '');
  _total bigint;
  _data jsonb;
BEGIN
  PERFORM _flohsync.check_tables();
  PERFORM _flohsync.check_page(api_runs.page, api_runs.page_size);
  IF _status NOT IN ('queued', 'running', 'success', 'error', 'cancelled', 'held') THEN
    PERFORM _flohsync.invalid('status', format('%L is not a status of a run', _status),
                              'A run is queued, running, success, error, cancelled or held.');
  ELSIF nullif(api_runs.mode, '') <> 'sync' THEN
    PERFORM _flohsync.invalid('mode', format('%L is not a mode of a run', api_runs.mode), 'The mode is sync.');
  END IF;
  SELECT count(*) INTO _total FROM flohsync.sync_run r
   WHERE (_id IS NULL OR r.connector_id = _id) AND (_type IS NULL OR r.resource_type = _type)
     AND (_status IS NULL OR r.status = _status);
  SELECT jsonb_agg(_flohsync.run_dto(x.r) ORDER BY (x.r).id DESC) INTO _data
    FROM (SELECT r FROM flohsync.sync_run r
           WHERE (_id IS NULL OR r.connector_id = _id) AND (_type IS NULL OR r.resource_type = _type)
             AND (_status IS NULL OR r.status = _status)
           ORDER BY r.id DESC LIMIT api_runs.page_size
          OFFSET (api_runs.page - 1)::bigint * api_runs.page_size) x;
  RETURN _flohsync.page_object(_data, _total, api_runs.page, api_runs.page_size);
END
$$;
SELECT _flohsync.serve('{reader}', 'runs(text, text, text, text, int, int)',
  'A page of runs, the newest first: of a connector, a resource type, a status (queued, running, success, error, '
  'cancelled, held) and a mode (sync), where these are given');

CREATE FUNCTION _flohsync.run_answer(_run bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN (SELECT _flohsync.run_dto(r) || jsonb_build_object('progress', (
                   SELECT _flohsync.progress_dto(p) FROM flohsync.sync_progress p WHERE p.run_id = r.id))
            FROM flohsync.sync_run r WHERE r.id = _run);
END
$$;
COMMENT ON FUNCTION _flohsync.run_answer(bigint) IS 'A run in its public JSON form, with its progress';

CREATE FUNCTION _flohsync.api_run(connector text, run_id bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN _flohsync.run_answer((_flohsync.run_of(connector, run_id)).id);
END
$$;
SELECT _flohsync.serve('{reader}', 'run(text, bigint)',
  'A run with its stats and, while it is queued or running, its progress; 42704 when it is none of the connector''s');

CREATE FUNCTION _flohsync.api_run_errors(connector text, run_id bigint, page int DEFAULT 1, page_size int DEFAULT 50)
  RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run := _flohsync.run_of(connector, api_run_errors.run_id);
  _total bigint;
  _data jsonb;
BEGIN
  PERFORM _flohsync.check_page(api_run_errors.page, api_run_errors.page_size);
  SELECT count(*) INTO _total FROM flohsync.sync_error e WHERE e.run_id = r.id;
  SELECT jsonb_agg(jsonb_build_object('id', e.id, 'page', e.page, 'externalId', e.external_id,
                                      'errorClass', e.error_class, 'message', e.message, 'payload', e.payload,
                                      'createdAt', _flohsync.iso(e.created_at)) ORDER BY e.id) INTO _data
    FROM (SELECT * FROM flohsync.sync_error x WHERE x.run_id = r.id ORDER BY x.id LIMIT api_run_errors.page_size
          OFFSET (api_run_errors.page - 1)::bigint * api_run_errors.page_size) e;
  RETURN _flohsync.page_object(_data, _total, api_run_errors.page, api_run_errors.page_size);
END
$$;
SELECT _flohsync.serve('{reader}', 'run_errors(text, bigint, int, int)',
  'A page of the records that a run set aside, and of the steps that failed: {id, page, externalId, errorClass, '
  'message, payload, createdAt}');

CREATE FUNCTION _flohsync.api_run_pages(connector text, run_id bigint, page int DEFAULT 1, page_size int DEFAULT 50)
  RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run := _flohsync.run_of(connector, api_run_pages.run_id);
  _total bigint;
  _data jsonb;
BEGIN
  PERFORM _flohsync.check_page(api_run_pages.page, api_run_pages.page_size);
  SELECT count(*) INTO _total FROM flohsync.sync_run_page p WHERE p.run_id = r.id;
  SELECT jsonb_agg(jsonb_build_object(
           'page', p.page, 'cursor', p.cursor, 'nextCursor', p.next_cursor, 'fetchedAt', _flohsync.iso(p.fetched_at),
           'records', p.records, 'bytes', p.bytes, 'fetchMs', p.fetch_ms, 'applyMs', p.apply_ms, 'added', p.added,
           'updated', p.updated, 'unchanged', p.unchanged, 'restored', p.restored, 'filtered', p.filtered,
           'errored', p.errored, 'ignored', p.ignored, 'duplicates', p.duplicates, 'truncated', p.truncated,
           'totalEstimate', p.total_estimate, 'incomplete', p.incomplete) ORDER BY p.page) INTO _data
    FROM (SELECT * FROM flohsync.sync_run_page x WHERE x.run_id = r.id ORDER BY x.page LIMIT api_run_pages.page_size
          OFFSET (api_run_pages.page - 1)::bigint * api_run_pages.page_size) p;
  RETURN _flohsync.page_object(_data, _total, api_run_pages.page, api_run_pages.page_size);
END
$$;
SELECT _flohsync.serve('{reader}', 'run_pages(text, bigint, int, int)',
  'A page of the pages that a run applied, in their order, with figures of each');

CREATE FUNCTION _flohsync.api_held_changes(connector text, run_id bigint, page int DEFAULT 1,
                                           page_size int DEFAULT 50) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN flohsync.held_changes((_flohsync.run_of(connector, run_id)).id, page, page_size);
END
$$;
SELECT _flohsync.serve('{reader}', 'held_changes(text, bigint, int, int)',
  'A page of what the approval of a held run would do now: {externalId, displayName, email, op, userId, userEmail}, op '
  'staled (the record) or deactivated (the user); 55000 for a run that is not held');

CREATE FUNCTION _flohsync.api_approve_run(connector text, run_id bigint, notes text DEFAULT NULL,
                                          except_ids text[] DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _run bigint := (_flohsync.run_of(connector, run_id)).id;
BEGIN
  PERFORM flohsync.approve_run(_run, notes, except_ids);
  RETURN _flohsync.run_answer(_run);
END
$$;
SELECT _flohsync.serve('{manager}', 'approve_run(text, bigint, text, text[])',
  'Approves a held run, but for the records of except_ids, and returns it; 55000 for a run that is not held, or when '
  'the connector, the strategy or the filters have changed since; 55006 while another run is in progress');

CREATE FUNCTION _flohsync.api_reject_run(connector text, run_id bigint, notes text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _run bigint := (_flohsync.run_of(connector, run_id)).id;
BEGIN
  PERFORM flohsync.reject_run(_run, notes);
  RETURN _flohsync.run_answer(_run);
END
$$;
SELECT _flohsync.serve('{manager}', 'reject_run(text, bigint, text)',
  'Rejects a held run, and returns it; 55000 for a run that is not held, 55006 while another run is in progress');

CREATE FUNCTION _flohsync.api_cancel_run(connector text, run_id bigint, notes text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r flohsync.sync_run := _flohsync.run_of(connector, run_id);
BEGIN
  IF NOT flohsync.cancel_sync(r.id) THEN
    r := _flohsync.run_of(connector, run_id);
    PERFORM _flohsync.raise('55000', format('run %s is not queued or running', r.id),
                            format('Its status is %s.', r.status),
                            CASE r.status WHEN 'held' THEN 'A held run is approved or rejected.' END);
  END IF;
  -- A worker that is ending the run does not write them.
  IF notes IS NOT NULL THEN
    UPDATE flohsync.sync_run x SET notes = concat_ws('; ', x.notes, api_cancel_run.notes) WHERE x.id = r.id;
  END IF;
  RETURN _flohsync.run_answer(r.id);
END
$$;
SELECT _flohsync.serve('{manager}', 'cancel_run(text, bigint, text)',
  'Stops a queued or running run, and returns it: a running one ends soon; 55000 for one that has ended');
