-- What is going on: progress, jobs, workers.

-- A view's functions run with the rights of who reads it, who may not see what other sessions do.
CREATE FUNCTION flohsync.processes()
RETURNS TABLE (pid integer, kind text, database name, started_at timestamptz, doing text, state text,
               wait_event_type text, wait_event text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT a.pid, a.backend_type, a.datname, a.backend_start, a.application_name, a.state, a.wait_event_type, a.wait_event
    FROM pg_catalog.pg_stat_activity a
   WHERE a.backend_type LIKE 'flohsync %';
END;
COMMENT ON FUNCTION flohsync.processes() IS 'Processes of flohsync in this cluster; the view workers shows them';
SELECT _flohsync.allow('reader', 'flohsync.processes()');

CREATE VIEW flohsync.sync_progress WITH (security_barrier) AS
SELECT r.id AS run_id, d.name AS connector, r.connector_id, r.resource_type, r.strategy, r.trigger, r.status,
       r.requested_at, r.started_at, l.page, l.records, l.total_estimate,
       CASE WHEN l.total_estimate > 0 THEN least(100, pg_catalog.round(100.0 * l.records / l.total_estimate, 1))
         END AS percent,
       l.added, l.updated, l.unchanged, l.errored, l.next_cursor AS cursor, r.pass_id, r.pass_started_at,
       CASE WHEN r.status = 'running' THEN coalesce(w.stage, 'waiting') END AS stage,
       pg_catalog.round(l.own_records / nullif(l.own_seconds, 0), 1) AS records_per_s,
       CASE WHEN l.own_records > 0 AND l.total_estimate >= l.records AND w.stage = 'fetching'
            THEN pg_catalog.clock_timestamp()
              + pg_catalog.make_interval(secs => (l.own_seconds * (l.total_estimate - l.records)
                                                  / l.own_records)::double precision) END AS eta
  FROM flohsync.sync_run r
  JOIN flohsync.connector_definition d ON d.id = r.connector_id
 CROSS JOIN LATERAL (
       SELECT coalesce(pg_catalog.max(p.page), 0) AS page, coalesce(pg_catalog.sum(p.records), 0) AS records,
              coalesce(pg_catalog.sum(p.added), 0) AS added, coalesce(pg_catalog.sum(p.updated), 0) AS updated,
              coalesce(pg_catalog.sum(p.unchanged), 0) AS unchanged, coalesce(pg_catalog.sum(p.errored), 0) AS errored,
              (pg_catalog.array_agg(p.total_estimate ORDER BY p.page DESC)
               FILTER (WHERE p.total_estimate IS NOT NULL))[1] AS total_estimate,
              (pg_catalog.array_agg(p.next_cursor ORDER BY p.page DESC))[1] AS next_cursor,
              pg_catalog.sum(p.records) FILTER (WHERE x.id = r.id) AS own_records,
              extract(epoch FROM pg_catalog.clock_timestamp() - r.started_at) AS own_seconds
         FROM flohsync.sync_run x JOIN flohsync.sync_run_page p ON p.run_id = x.id
        WHERE x.pass_id = r.pass_id) l
  LEFT JOIN (SELECT pg_catalog.substring(p.doing, '^flohsync run ([0-9]+)')::bigint AS run_id,
             coalesce(nullif(pg_catalog.split_part(p.doing, ': ', 2), ''), 'fetching') AS stage
               FROM flohsync.processes() p WHERE p.database = pg_catalog.current_database()
                   AND p.doing ~ '^flohsync run [0-9]+') w ON w.run_id = r.id
 WHERE r.status IN ('queued', 'running');
COMMENT ON VIEW flohsync.sync_progress IS 'Queued and running runs, with the progress of their passes';
COMMENT ON COLUMN flohsync.sync_progress.run_id IS 'Run';
COMMENT ON COLUMN flohsync.sync_progress.connector IS 'Name of the connector';
COMMENT ON COLUMN flohsync.sync_progress.connector_id IS 'Connector';
COMMENT ON COLUMN flohsync.sync_progress.resource_type IS 'Resource type';
COMMENT ON COLUMN flohsync.sync_progress.strategy IS 'full or incremental';
COMMENT ON COLUMN flohsync.sync_progress.trigger IS 'What asked for the run';
COMMENT ON COLUMN flohsync.sync_progress.status IS 'queued or running';
COMMENT ON COLUMN flohsync.sync_progress.requested_at IS 'When it was asked for';
COMMENT ON COLUMN flohsync.sync_progress.started_at IS 'When a worker took it';
COMMENT ON COLUMN flohsync.sync_progress.page IS 'Pages applied in the pass';
COMMENT ON COLUMN flohsync.sync_progress.records IS 'Records received in the pass';
COMMENT ON COLUMN flohsync.sync_progress.total_estimate IS 'Total number of records reported by the upstream';
COMMENT ON COLUMN flohsync.sync_progress.percent IS 'records of total_estimate, in percent';
COMMENT ON COLUMN flohsync.sync_progress.added IS 'New records';
COMMENT ON COLUMN flohsync.sync_progress.updated IS 'Changed records';
COMMENT ON COLUMN flohsync.sync_progress.unchanged IS 'Records as stored';
COMMENT ON COLUMN flohsync.sync_progress.errored IS 'Records set aside';
COMMENT ON COLUMN flohsync.sync_progress.cursor IS 'Cursor of the page to come';
COMMENT ON COLUMN flohsync.sync_progress.pass_id IS 'First run of the pass';
COMMENT ON COLUMN flohsync.sync_progress.pass_started_at IS 'When the pass began';
COMMENT ON COLUMN flohsync.sync_progress.stage IS
  'Stage of the run: fetching, settling, matching, creating, deactivating, mapping, purging; '
  'waiting: no worker is executing it';
COMMENT ON COLUMN flohsync.sync_progress.records_per_s IS
  'Records that the run has received per second since it started';
COMMENT ON COLUMN flohsync.sync_progress.eta IS
  'Estimated time at which all records will have been received; null without a total from the upstream';
SELECT _flohsync.allow('reader', 'flohsync.sync_progress');

CREATE FUNCTION flohsync.hindrance() RETURNS text
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_hindrance';
COMMENT ON FUNCTION flohsync.hindrance() IS
  'Why no worker can take a run, or a scheduled run, in this database until that is changed: flohsync.enabled, the '
  'role of flohsync.worker_role, row level security, flohsync.databases; null: no known reason';
SELECT _flohsync.allow('reader', 'flohsync.hindrance()');

CREATE VIEW flohsync.jobs AS
SELECT 'cr-sync-' || c.connector_id || '-' || c.resource_type AS job_id,
       d.name AS connector, c.resource_type, c.enabled AND d.enabled AS enabled, c.strategy,
       c.cron_schedule AS schedule, c.full_cron_schedule AS full_schedule, c.timezone,
       CASE WHEN d.enabled AND d.home = (SELECT h.id FROM _flohsync.home h) AND c.enabled AND NOT c.parked
           AND c.schedule_error IS NULL THEN least(c.next_run_at, c.next_full_run_at, c.retry_at) END AS next_run_at,
       nullif(pg_catalog.concat_ws('; ',
         CASE WHEN d.home <> (SELECT h.id FROM _flohsync.home h) THEN 'the connector was restored from a dump of '
                                                                      'another database; call adopt() to sync it in '
                                                                      'this one'
            WHEN NOT d.enabled THEN 'the connector is disabled'
            WHEN NOT c.enabled THEN 'the configuration is disabled'
            WHEN c.cron_schedule IS NULL AND c.full_cron_schedule IS NULL THEN 'there is no schedule'
            WHEN c.schedule_error IS NOT NULL THEN 'the schedule cannot be used: ' || c.schedule_error
            WHEN c.parked THEN 'runs crashed their worker; trigger_sync() resumes the schedules'
            WHEN g.hindrance IS NOT NULL THEN g.hindrance
            WHEN NOT EXISTS (SELECT FROM flohsync.processes() p WHERE p.kind = 'flohsync launcher')
              THEN CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'the server is a standby'
                ELSE 'there is no launcher; see shared_preload_libraries' END
            WHEN c.retry_at IS NOT NULL THEN pg_catalog.format('the last run failed; retry %s of 3 is pending',
                                                               c.retries + 1)
       END,
         CASE WHEN r.status = 'queued' AND w.busy >= pg_catalog.current_setting('flohsync.max_workers', true)::bigint
              THEN pg_catalog.format('waiting for a worker (%s of %s busy)', w.busy,
                                     pg_catalog.current_setting('flohsync.max_workers', true)) END,
         CASE WHEN h.id IS NOT NULL
              THEN pg_catalog.format('run %s is held since %s: call approve_run() or reject_run()', h.id,
                                     pg_catalog.to_char(h.finished_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'))
                                     END,
         CASE WHEN (c.last_complete_at IS NULL OR c.last_sync_at > c.last_complete_at)
             AND c.incomplete_reason IS NOT NULL
              THEN CASE WHEN coalesce(c.last_complete_at, c.created_at) < pg_catalog.now()
                - greatest(interval '1 day', 3 * (c.next_run_at - c.last_sync_at))
                        THEN coalesce('no pass has been complete since '
                                      || pg_catalog.to_char(c.last_complete_at AT TIME ZONE 'UTC',
                                                            'YYYY-MM-DD HH24:MI "UTC"'),
                                                            'no pass has ever been complete')
                        WHEN r.status = 'success' THEN 'the last pass was not complete' END || ': '
                          || c.incomplete_reason END), '') AS remark,
       r.id AS last_run_id, r.started_at AS last_run_at, r.status AS last_status, r.error AS last_error,
       c.last_success_at
  FROM flohsync.connector_sync_config c
  JOIN flohsync.connector_definition d ON d.id = c.connector_id
 CROSS JOIN flohsync.hindrance() g(hindrance)
 CROSS JOIN (SELECT pg_catalog.count(*) AS busy FROM flohsync.processes() p WHERE p.kind = 'flohsync worker') w
  -- A range, so that it is read in the order of sync_run_history: in that of the ids of all
  -- runs, a configuration without one would be looked for to the end.
  LEFT JOIN LATERAL (SELECT x.id, x.started_at, x.status, x.error FROM flohsync.sync_run x
                      WHERE x.connector_id BETWEEN c.connector_id AND c.connector_id
                        AND x.resource_type = c.resource_type
                      ORDER BY x.connector_id, x.id DESC LIMIT 1) r ON true
  LEFT JOIN LATERAL (SELECT x.id, x.finished_at FROM flohsync.sync_run x
                      WHERE x.connector_id = c.connector_id AND x.resource_type = c.resource_type AND x.status = 'held'
                      ORDER BY x.id DESC LIMIT 1) h ON true;
COMMENT ON VIEW flohsync.jobs IS 'Schedules, when they are next due, and their last runs';
COMMENT ON COLUMN flohsync.jobs.job_id IS 'cr-sync-{connectorId}-{resourceType}';
COMMENT ON COLUMN flohsync.jobs.connector IS 'Name of the connector';
COMMENT ON COLUMN flohsync.jobs.resource_type IS 'Resource type';
COMMENT ON COLUMN flohsync.jobs.enabled IS 'Whether schedules run';
COMMENT ON COLUMN flohsync.jobs.strategy IS 'Strategy of the first schedule';
COMMENT ON COLUMN flohsync.jobs.schedule IS 'First schedule';
COMMENT ON COLUMN flohsync.jobs.full_schedule IS 'Schedule of full passes beside it';
COMMENT ON COLUMN flohsync.jobs.timezone IS 'Time zone of both';
COMMENT ON COLUMN flohsync.jobs.next_run_at IS 'When the next run is due';
COMMENT ON COLUMN flohsync.jobs.remark IS 'Why nothing is scheduled, or what needs attention';
COMMENT ON COLUMN flohsync.jobs.last_success_at IS 'End of the last run that succeeded';
COMMENT ON COLUMN flohsync.jobs.last_run_id IS 'Last run';
COMMENT ON COLUMN flohsync.jobs.last_run_at IS 'When it started';
COMMENT ON COLUMN flohsync.jobs.last_status IS 'Status of the last run';
COMMENT ON COLUMN flohsync.jobs.last_error IS 'Error of the last run';
SELECT _flohsync.allow('reader', 'flohsync.jobs');

CREATE VIEW flohsync.workers AS
SELECT p.pid, p.kind, p.database, p.started_at, p.doing, p.state, p.wait_event_type, p.wait_event
  FROM flohsync.processes() p;
COMMENT ON VIEW flohsync.workers IS 'Processes of flohsync in this cluster';
COMMENT ON COLUMN flohsync.workers.pid IS 'Process id';
COMMENT ON COLUMN flohsync.workers.kind IS 'flohsync launcher, flohsync worker or flohsync invalidator';
COMMENT ON COLUMN flohsync.workers.database IS 'Database that it is connected to; null for the launcher';
COMMENT ON COLUMN flohsync.workers.started_at IS 'When it started';
COMMENT ON COLUMN flohsync.workers.doing IS 'Current activity';
COMMENT ON COLUMN flohsync.workers.state IS 'State of its backend';
COMMENT ON COLUMN flohsync.workers.wait_event_type IS 'Type of the wait event';
COMMENT ON COLUMN flohsync.workers.wait_event IS 'Wait event';
SELECT _flohsync.allow('reader', 'flohsync.workers');

CREATE FUNCTION flohsync.sync_status(connector text, resource_type text) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT pg_catalog.jsonb_build_object(
      'resourceType', c.resource_type, 'lastSyncAt', _flohsync.iso(c.last_sync_at),
      'lastSyncStatus', c.last_sync_status, 'lastSyncError', c.last_sync_error, 'lastSyncStats', c.last_sync_stats,
      'running', (SELECT pg_catalog.jsonb_build_object(
                           'runId', p.run_id, 'page', p.page, 'records', p.records,
                           'totalEstimate', p.total_estimate, 'startedAt', _flohsync.iso(p.started_at))
                    FROM flohsync.sync_progress p
                   WHERE p.connector_id = c.connector_id AND p.resource_type = c.resource_type
                     AND p.status = 'running'),
      'nextRunAt', _flohsync.iso(_flohsync.next_due(c))) || _flohsync.standing(c)
    FROM flohsync.connector_sync_config c
   WHERE c.connector_id = _flohsync.connector_id(sync_status.connector) AND c.resource_type = sync_status.resource_type;
END;
COMMENT ON FUNCTION flohsync.sync_status(text, text) IS
  'Status of the last run and of the current one; null when there is no configuration';
SELECT _flohsync.allow('reader', 'flohsync.sync_status(text, text)');
