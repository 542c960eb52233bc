-- Workflows: the queue of sync-workflow-trigger jobs, and what the handler made of them.
--
-- A job is queued in the transaction that changed what it tells of, and the
-- handler makes a workflow_run of it there and then.  Doing the workflow is
-- outside of flohsync: an external worker claims the job, or an application
-- that listens to flohsync_workflow reads workflow_run.

CREATE TABLE flohsync.workflow_job (
  id           bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  run_id       bigint,
  workflow_id  uuid REFERENCES flohsync.workflow_definition ON DELETE SET NULL,
  data         jsonb NOT NULL,
  status       text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'running', 'done', 'failed')),
  attempts     integer NOT NULL DEFAULT 0,
  run_after    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  claimed_at   timestamptz,
  error        text,
  created_at   timestamptz NOT NULL DEFAULT pg_catalog.now(),
  finished_at  timestamptz
);
CREATE INDEX workflow_job_queue ON flohsync.workflow_job (run_after, id) WHERE status = 'queued';
CREATE INDEX workflow_job_claimed ON flohsync.workflow_job (claimed_at) WHERE status = 'running';
CREATE INDEX workflow_job_workflow ON flohsync.workflow_job (workflow_id);
CREATE INDEX workflow_job_run ON flohsync.workflow_job (run_id);
CREATE INDEX workflow_job_done ON flohsync.workflow_job (created_at) WHERE status = 'done';
CREATE INDEX workflow_job_left ON flohsync.workflow_job (created_at) WHERE status IN ('queued', 'failed');
COMMENT ON TABLE flohsync.workflow_job IS 'Queue of sync-workflow-trigger jobs';
COMMENT ON COLUMN flohsync.workflow_job.id IS 'Identity of the job';
COMMENT ON COLUMN flohsync.workflow_job.run_id IS 'Run that queued it; null when it was removed from the history';
COMMENT ON COLUMN flohsync.workflow_job.workflow_id IS 'Workflow to run';
COMMENT ON COLUMN flohsync.workflow_job.data IS 'Payload of the job';
COMMENT ON COLUMN flohsync.workflow_job.status IS 'queued, running, done or failed';
COMMENT ON COLUMN flohsync.workflow_job.attempts IS 'Number of attempts';
COMMENT ON COLUMN flohsync.workflow_job.run_after IS 'Earliest time of the next attempt';
COMMENT ON COLUMN flohsync.workflow_job.claimed_at IS 'When a worker last claimed it';
COMMENT ON COLUMN flohsync.workflow_job.error IS 'Message of the last failure';
COMMENT ON COLUMN flohsync.workflow_job.created_at IS 'When it was queued';
COMMENT ON COLUMN flohsync.workflow_job.finished_at IS 'When it ended';
SELECT _flohsync.allow('reader', 'flohsync.workflow_job');

-- No foreign key: a dump carries the jobs of a run that waits for a decision, and not the run.
CREATE FUNCTION _flohsync.runs_removed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  UPDATE flohsync.workflow_job j SET run_id = NULL WHERE j.run_id IN (SELECT r.id FROM removed r);
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION _flohsync.runs_removed() IS 'Clears run_id of the jobs of removed runs';
CREATE TRIGGER runs_removed AFTER DELETE ON flohsync.sync_run REFERENCING OLD TABLE AS removed
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.runs_removed();

CREATE TABLE flohsync.workflow_run (
  id          uuid PRIMARY KEY DEFAULT _flohsync.new_id(),
  job_id      bigint REFERENCES flohsync.workflow_job ON DELETE SET NULL,
  workflow_id uuid REFERENCES flohsync.workflow_definition ON DELETE SET NULL,
  variables   jsonb NOT NULL,
  status      text NOT NULL DEFAULT 'pending',
  created_at  timestamptz NOT NULL DEFAULT pg_catalog.now()
);
CREATE INDEX workflow_run_job ON flohsync.workflow_run (job_id);
CREATE INDEX workflow_run_workflow ON flohsync.workflow_run (workflow_id);
CREATE INDEX workflow_run_left ON flohsync.workflow_run (created_at)
 WHERE job_id IS NULL AND status IN ('done', 'failed');
COMMENT ON TABLE flohsync.workflow_run IS 'Workflow runs started by jobs';
COMMENT ON COLUMN flohsync.workflow_run.id IS 'Identity of the workflow run';
COMMENT ON COLUMN flohsync.workflow_run.job_id IS 'Job that started it';
COMMENT ON COLUMN flohsync.workflow_run.workflow_id IS 'Workflow';
COMMENT ON COLUMN flohsync.workflow_run.variables IS 'Variables that it starts with';
COMMENT ON COLUMN flohsync.workflow_run.status IS
  'pending; with a worker that claims jobs, the state of the job: running, done or failed; else set by the application';
COMMENT ON COLUMN flohsync.workflow_run.created_at IS 'When the row was created';
SELECT _flohsync.allow('reader', 'flohsync.workflow_run');

-- What queues the jobs.

CREATE FUNCTION _flohsync.changed_record(_id uuid, _external_id text, _display_name text, _email text, _change text,
                                         _user uuid, _status text) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN pg_catalog.jsonb_build_object('resourceId', _id, 'externalId', _external_id, 'displayName', _display_name,
                                     'email', _email,
                                     'change', _change, 'userId', _user, 'matchStatus', _status);
COMMENT ON FUNCTION _flohsync.changed_record(uuid, text, text, text, text, uuid, text) IS
  'A changed record in the form passed to workflows';

CREATE FUNCTION _flohsync.job_data(_c flohsync.connector_sync_config, _run bigint) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN pg_catalog.jsonb_build_object('connectorId', (_c).connector_id, 'resourceType', (_c).resource_type,
                                     'workflowId', (_c).post_sync_workflow_id, 'triggerMode', (_c).sync_trigger_mode,
                                       'runId', _run);
COMMENT ON FUNCTION _flohsync.job_data(flohsync.connector_sync_config, bigint) IS 'Data that every job has';

CREATE FUNCTION _flohsync.queue_jobs(_c flohsync.connector_sync_config, _run bigint, _data jsonb[]) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  jobs bigint[];
BEGIN
  WITH made AS (
    INSERT INTO flohsync.workflow_job AS j (run_id, workflow_id, data)
    SELECT _run, _c.post_sync_workflow_id, d.data FROM unnest(_data) WITH ORDINALITY AS d(data, position)
      ORDER BY d.position
    RETURNING j.id)
  SELECT array_agg(m.id) INTO jobs FROM made m;
  PERFORM _flohsync.start_workflows(jobs);
  RETURN coalesce(cardinality(jobs), 0);
END
$$;
COMMENT ON FUNCTION _flohsync.queue_jobs(flohsync.connector_sync_config, bigint, jsonb[]) IS
  'Queues sync-workflow-trigger jobs and calls the handler for them; returns their number';

CREATE FUNCTION _flohsync.queue_record_jobs(_c flohsync.connector_sync_config, _run bigint, _records jsonb[])
  RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT _flohsync.queue_jobs(_c, _run, (
    SELECT pg_catalog.array_agg(_flohsync.job_data(_c, _run) || pg_catalog.jsonb_build_object('records', b.records)
                                ORDER BY b.nr)
      FROM (SELECT (e.position - 1) / 500 AS nr, pg_catalog.jsonb_agg(e.record ORDER BY e.position) AS records
              FROM pg_catalog.unnest(_records) WITH ORDINALITY AS e(record, position)
             GROUP BY 1) b));
END;
COMMENT ON FUNCTION _flohsync.queue_record_jobs(flohsync.connector_sync_config, bigint, jsonb[]) IS
  'Queues jobs of at most 500 changed records each';

CREATE FUNCTION _flohsync.trigger_per_record(_c flohsync.connector_sync_config, _run bigint, _seqs bigint[],
                                             _setbacks uuid[],
  OUT jobs bigint, OUT refused bigint, OUT errors jsonb)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET work_mem = '64MB'
AS $$
DECLARE
  records jsonb[];
  known int;
  did record;
BEGIN
  jobs := 0;
  refused := 0;
  errors := '[]';
  SELECT array_agg(f.record ORDER BY f.tried_at NULLS FIRST, f.external_id), count(f.tried_at) INTO records, known
    FROM (SELECT x.external_id, e.tried_at,
                 _flohsync.changed_record(x.id, x.external_id, x.display_name, x.email,
                   -- What several changes come to is what the record is now.
                   CASE WHEN x.stale_since IS NOT NULL AND 'staled' = ANY (e.changes) THEN 'staled'
                     WHEN 'added' = ANY (e.changes) THEN 'added'
                        WHEN 'staled' = ANY (e.changes) OR 'restored' = ANY (e.changes) THEN 'restored'
                          ELSE 'updated' END,
                   m.user_id, m.match_status) AS record
            FROM (SELECT y.resource_id, array_agg(DISTINCT y.change) AS changes, min(y.tried_at) AS tried_at
                    FROM (SELECT g.resource_id, g.change, NULL::timestamptz AS tried_at
                            FROM flohsync.sync_run_page p JOIN flohsync.sync_run r ON r.id = p.run_id
                              CROSS JOIN LATERAL _flohsync.page_changes(p) g
                           WHERE p.changed IS NOT NULL AND r.connector_id = _c.connector_id
                             AND r.resource_type = _c.resource_type
                          UNION ALL
                          SELECT q.resource_id, q.change, NULL FROM _flohsync.record_change q WHERE q.seq = ANY (_seqs)
                              AND q.change <> 'recheck'
                          UNION ALL
                          SELECT s.resource_id, s.change, s.tried_at FROM _flohsync.setback s
                           WHERE s.config_id = _c.id AND s.stage = 'workflow' AND s.resource_id = ANY (_setbacks)) y
                   GROUP BY y.resource_id) e
            JOIN flohsync.resource_record x ON x.id = e.resource_id
            LEFT JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id) f;
  IF records IS NULL THEN
    RETURN;
  END IF;
  did := _flohsync.in_halves('workflow', _c, _run, cardinality(records), known, NULL, NULL, NULL, records);
  jobs := did.jobs;
  refused := cardinality(did.failed);
  SELECT _flohsync.note_setbacks('workflow', _c, _run, NULL, array_agg((f.record ->> 'resourceId')::uuid ORDER BY f.i),
                                 array_agg(f.record ->> 'externalId' ORDER BY f.i),
           array_agg(f.state ORDER BY f.i), array_agg(f.message ORDER BY f.i),
             array_agg(f.record ->> 'change' ORDER BY f.i)) INTO errors
    FROM (SELECT records[u.nr] AS record, u.state, u.message, u.i FROM unnest(did.failed, did.states, did.messages)
          WITH ORDINALITY AS u(nr, state, message, i)) f;
  IF did.untried <> '{}' THEN
    errors := errors || _flohsync.stage_failed(_run, 'workflow', '54000',
                                               'too many rows failed: the others wait for the next run');
    PERFORM _flohsync.note_changes(_c.connector_id, _c.resource_type, array_agg((records[u.nr] ->> 'resourceId')::uuid),
                                   records[u.nr] ->> 'change')
       FROM unnest(did.untried) AS u(nr) GROUP BY records[u.nr] ->> 'change';
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.trigger_per_record(flohsync.connector_sync_config, bigint, bigint[], uuid[]) IS
  'Queues the jobs for each record changed since the workflow was last triggered; returns their number, and the '
  'records for which that failed';

CREATE FUNCTION _flohsync.trigger_summary(_run bigint, _stats jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF (_stats ->> 'added')::bigint + (_stats ->> 'updated')::bigint + (_stats ->> 'restored')::bigint
     + (_stats ->> 'staled')::bigint + (_stats ->> 'removed')::bigint > 0 IS NOT TRUE THEN
    RETURN;
  END IF;
  FOR _attempt IN 1 .. 3 LOOP
    BEGIN
      PERFORM _flohsync.queue_jobs(c, _run, ARRAY[_flohsync.job_data(c, _run) || jsonb_build_object('stats', _stats)])
         FROM flohsync.sync_run r
         JOIN flohsync.connector_sync_config c ON c.connector_id = r.connector_id AND c.resource_type = r.resource_type
        WHERE r.id = _run AND c.sync_trigger_mode = 'summary' AND c.post_sync_workflow_id IS NOT NULL;
      RETURN;
    EXCEPTION WHEN OTHERS THEN
      IF _flohsync.stage_failed(_run, 'workflow', SQLSTATE, SQLERRM, _attempt) <> '[]' THEN
        RETURN;
      END IF;
    END;
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.trigger_summary(bigint, jsonb) IS
  'Queues the one job of a run in which something changed';

-- The handler: what a job becomes.

CREATE FUNCTION _flohsync.job_problem(_j flohsync.workflow_job) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE
  WHEN pg_catalog.jsonb_typeof((_j).data) <> 'object' THEN 'the data of the job is not an object'
  WHEN coalesce((_j).data ->> 'connectorId', '') !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
    THEN '"connectorId" is missing or not an id'
  WHEN coalesce((_j).data ->> 'resourceType', '') !~ '^[A-Za-z][A-Za-z0-9_.-]{0,63}$'
    THEN '"resourceType" is missing or malformed'
  WHEN coalesce((_j).data ->> 'workflowId', '') !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
    THEN '"workflowId" is missing or not an id'
  WHEN coalesce((_j).data ->> 'triggerMode', '') NOT IN ('per_record', 'summary')
    THEN '"triggerMode" is neither per_record nor summary'
  WHEN coalesce(pg_catalog.jsonb_typeof((_j).data -> 'records'), 'array') <> 'array' THEN '"records" is not an array'
  WHEN coalesce(pg_catalog.jsonb_typeof((_j).data -> 'stats'), 'object') <> 'object' THEN '"stats" is not an object'
  WHEN NOT EXISTS (SELECT FROM flohsync.workflow_definition w WHERE w.id = ((_j).data ->> 'workflowId')::uuid)
    THEN pg_catalog.format('workflow %s does not exist', (_j).data ->> 'workflowId')
END;
COMMENT ON FUNCTION _flohsync.job_problem(flohsync.workflow_job) IS 'Why a job is invalid; null when it is valid';

CREATE FUNCTION _flohsync.start_workflows(_jobs bigint[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  started uuid[];
BEGIN
  UPDATE flohsync.workflow_job j SET status = 'failed', error = _flohsync.job_problem(j),
    finished_at = clock_timestamp()
   WHERE j.id = ANY (_jobs) AND j.status = 'queued' AND _flohsync.job_problem(j) IS NOT NULL;
  WITH made AS (
    INSERT INTO flohsync.workflow_run AS r (job_id, workflow_id, variables)
    SELECT j.id, (j.data ->> 'workflowId')::uuid,
           jsonb_strip_nulls(jsonb_build_object('connectorId', j.data -> 'connectorId', 'resourceType',
                                                j.data -> 'resourceType',
             'workflowId', j.data -> 'workflowId', 'triggerMode', j.data -> 'triggerMode', 'runId', j.data -> 'runId'))
           || CASE WHEN j.data ? 'records' THEN jsonb_build_object('records', j.data -> 'records') ELSE '{}' END
           || CASE WHEN j.data ? 'stats' THEN jsonb_build_object('stats', j.data -> 'stats') ELSE '{}' END
      FROM flohsync.workflow_job j
     WHERE j.id = ANY (_jobs) AND j.status = 'queued'
       AND EXISTS (SELECT FROM flohsync.workflow_definition w WHERE w.id = j.workflow_id AND w.enabled)
       AND NOT EXISTS (SELECT FROM flohsync.workflow_run x WHERE x.job_id = j.id)
     ORDER BY j.id
    RETURNING r.job_id, r.workflow_id)
  SELECT array_agg(DISTINCT m.workflow_id) INTO started FROM made m;
  -- A notification has less than 8000 bytes.
  PERFORM pg_notify('flohsync_workflow', jsonb_build_object('workflowIds', jsonb_agg(w.id ORDER BY w.position))::text)
     FROM unnest(started) WITH ORDINALITY AS w(id, position) GROUP BY (w.position - 1) / 100;
END
$$;
COMMENT ON FUNCTION _flohsync.start_workflows(bigint[]) IS
  'The handler of sync-workflow-trigger jobs: checks the data and creates a workflow_run with its variables; '
  'invalid jobs fail permanently';

CREATE FUNCTION _flohsync.workflow_enabled() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.start_workflows(ARRAY(SELECT j.id FROM flohsync.workflow_job j WHERE j.workflow_id = NEW.id
                                          AND j.status = 'queued' ORDER BY j.id));
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION _flohsync.workflow_enabled() IS
  'Calls the handler for the jobs that waited while their workflow was disabled';
CREATE TRIGGER workflow_enabled AFTER UPDATE OF enabled ON flohsync.workflow_definition
FOR EACH ROW WHEN (NEW.enabled AND NOT OLD.enabled) EXECUTE FUNCTION _flohsync.workflow_enabled();

-- For an external worker that executes the workflows.

CREATE FUNCTION flohsync.claim_workflow_jobs(max int) RETURNS SETOF flohsync.workflow_job
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  jobs bigint[];
BEGIN
  PERFORM _flohsync.check_tables();
  IF claim_workflow_jobs.max IS NULL OR claim_workflow_jobs.max < 1 THEN
    PERFORM _flohsync.invalid('max', 'it must be at least 1');
  END IF;
  -- The claiming workers of these are gone.
  UPDATE flohsync.workflow_job j
     SET status = CASE WHEN j.attempts < 3 THEN 'queued' ELSE 'failed' END,
       error = 'the worker did not finish the job within 30 minutes',
         finished_at = CASE WHEN j.attempts >= 3 THEN clock_timestamp() END
   WHERE j.id IN (SELECT x.id FROM flohsync.workflow_job x
                   WHERE x.status = 'running' AND x.claimed_at < clock_timestamp() - interval '30 minutes'
                     FOR UPDATE SKIP LOCKED);
  SELECT array_agg(q.id) INTO jobs
    FROM (SELECT j.id FROM flohsync.workflow_job j
           WHERE j.status = 'queued' AND j.run_after <= clock_timestamp()
             AND NOT EXISTS (SELECT FROM flohsync.workflow_definition w WHERE w.id = j.workflow_id AND NOT w.enabled)
           ORDER BY j.run_after, j.id
           LIMIT claim_workflow_jobs.max FOR UPDATE SKIP LOCKED) q;
  PERFORM _flohsync.start_workflows(jobs);
  RETURN QUERY
  WITH claimed AS (
    UPDATE flohsync.workflow_job j SET status = 'running', attempts = j.attempts + 1, claimed_at = clock_timestamp()
     WHERE j.id = ANY (jobs) AND j.status = 'queued'
    RETURNING j.*
  ), told AS (
    UPDATE flohsync.workflow_run r SET status = 'running' FROM claimed c WHERE r.job_id = c.id
  )
  SELECT * FROM claimed c ORDER BY c.run_after, c.id;
END
$$;
COMMENT ON FUNCTION flohsync.claim_workflow_jobs(int) IS
  'Claims at most a number of jobs for the caller, which must end them with complete_workflow_job() or '
  'fail_workflow_job() within 30 minutes, or they can be claimed again';
SELECT _flohsync.allow('manager', 'flohsync.claim_workflow_jobs(int)');

CREATE FUNCTION _flohsync.claimed_job(_id bigint) RETURNS flohsync.workflow_job
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  j flohsync.workflow_job;
BEGIN
  PERFORM _flohsync.check_tables();
  SELECT * INTO j FROM flohsync.workflow_job x WHERE x.id = _id FOR UPDATE;
  IF NOT FOUND THEN
    PERFORM _flohsync.raise('42704', format('workflow job %s does not exist', coalesce(_id::text, 'NULL')));
  ELSIF j.status <> 'running' THEN
    PERFORM _flohsync.raise('55000',
      format('workflow job %s is not claimed', _id),
      format('Its status is %s.', j.status),
      'Claim jobs with flohsync.claim_workflow_jobs().');
  END IF;
  RETURN j;
END
$$;
COMMENT ON FUNCTION _flohsync.claimed_job(bigint) IS
  'A claimed job, locked; 42704 when there is none, 55000 when it is not claimed';

CREATE FUNCTION _flohsync.end_job(_id bigint, _status text, _error text, _run_after timestamptz) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  UPDATE flohsync.workflow_run r SET status = CASE _status WHEN 'queued' THEN 'pending' ELSE _status END
    WHERE r.job_id = _id;
  UPDATE flohsync.workflow_job j
     SET status = _status, error = _error, run_after = coalesce(_run_after, j.run_after),
         finished_at = CASE WHEN _status <> 'queued' THEN pg_catalog.clock_timestamp() END
   WHERE j.id = _id;
END;
COMMENT ON FUNCTION _flohsync.end_job(bigint, text, text, timestamptz) IS 'Ends a job, or queues it again for later';

CREATE FUNCTION flohsync.complete_workflow_job(id bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.claimed_job(complete_workflow_job.id);
  PERFORM _flohsync.end_job(complete_workflow_job.id, 'done', NULL, NULL);
END
$$;
COMMENT ON FUNCTION flohsync.complete_workflow_job(bigint) IS
  'Marks a claimed job as done; 42704 when there is none, 55000 when it is not claimed';
SELECT _flohsync.allow('manager', 'flohsync.complete_workflow_job(bigint)');

CREATE FUNCTION flohsync.fail_workflow_job(id bigint, error text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  j flohsync.workflow_job := _flohsync.claimed_job(fail_workflow_job.id);
  outcome text := CASE WHEN j.attempts < 3 THEN 'queued' ELSE 'failed' END;
BEGIN
  PERFORM _flohsync.end_job(j.id, outcome, coalesce(fail_workflow_job.error, 'unknown error'),
                            clock_timestamp() + interval '5 seconds' * (1 << least(j.attempts - 1, 2)));
  RETURN outcome;
END
$$;
COMMENT ON FUNCTION flohsync.fail_workflow_job(bigint, text) IS
  'Marks a claimed job as failed: it is queued again after 5, then 10 seconds, and fails permanently at the third '
  'attempt; returns queued or failed';
SELECT _flohsync.allow('manager', 'flohsync.fail_workflow_job(bigint, text)');

-- The history of runs and of jobs.  What is old is at the beginning of an index for
-- each retention, so the cost is that of what is removed, however long the history
-- is: sync_run_ended and sync_run_failed, workflow_job_done and workflow_job_left.

CREATE FUNCTION _flohsync.forget_history(_retention interval) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- In the order of these indexes up to the limit, however much is old.
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
DECLARE
  old constant timestamptz := clock_timestamp() - _retention;
  old_failed constant timestamptz := clock_timestamp() - 3 * _retention;
  batch constant integer := 1000;
  n bigint;
BEGIN
  -- Jobs that nobody claims count as failures: what is to be done is in workflow_run.
  DELETE FROM flohsync.workflow_job j
   WHERE j.id IN (SELECT x.id FROM flohsync.workflow_job x
                   WHERE x.status <> 'running'
                     AND x.id = ANY (ARRAY(
                       (SELECT d.id FROM flohsync.workflow_job d WHERE d.status = 'done' AND d.created_at < old
                         ORDER BY d.created_at LIMIT batch)
                       UNION ALL
                       (SELECT d.id FROM flohsync.workflow_job d
                         WHERE d.status IN ('queued', 'failed') AND d.created_at < old_failed
                         ORDER BY d.created_at LIMIT batch)))
                     FOR UPDATE SKIP LOCKED);
  DELETE FROM flohsync.workflow_run r
   WHERE r.id IN (SELECT x.id FROM flohsync.workflow_run x
                   WHERE x.job_id IS NULL AND x.status IN ('done', 'failed') AND x.created_at < old
                   ORDER BY x.created_at LIMIT batch FOR UPDATE SKIP LOCKED);
  -- The last run of a configuration stays: by the history's index, as in 80_status.
  DELETE FROM flohsync.sync_run r
   WHERE r.id IN (SELECT x.id FROM flohsync.sync_run x
                   WHERE x.id = ANY (ARRAY(
                     (SELECT e.id FROM flohsync.sync_run e
                       WHERE e.status IN ('success', 'cancelled') AND e.finished_at < old
                         AND e.id < (SELECT n.id FROM flohsync.sync_run n
                                      WHERE n.connector_id BETWEEN e.connector_id AND e.connector_id
                                        AND n.resource_type = e.resource_type
                                      ORDER BY n.connector_id, n.id DESC LIMIT 1)
                       ORDER BY e.finished_at LIMIT batch)
                     UNION ALL
                     (SELECT e.id FROM flohsync.sync_run e
                       WHERE e.status = 'error' AND e.finished_at < old_failed
                         AND e.id < (SELECT n.id FROM flohsync.sync_run n
                                      WHERE n.connector_id BETWEEN e.connector_id AND e.connector_id
                                        AND n.resource_type = e.resource_type
                                      ORDER BY n.connector_id, n.id DESC LIMIT 1)
                       ORDER BY e.finished_at LIMIT batch)))
                     FOR UPDATE SKIP LOCKED);
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN n;
END
$$;
COMMENT ON FUNCTION _flohsync.forget_history(interval) IS
  'Removes the oldest of the runs and workflow jobs that ended longer ago than the retention, failed ones after three '
  'times that, and returns the number of runs: when it is 1000 or more there may be others';
