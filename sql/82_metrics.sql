-- What Prometheus scrapes.  All of it comes from the configurations, the open
-- runs and the processes: its cost does not grow with records or history.

CREATE FUNCTION _flohsync.metric_label(_name text, _value text) RETURNS text
LANGUAGE sql IMMUTABLE
RETURN pg_catalog.format('%s="%s"', _name,
  pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(_value, E'\\', E'\\\\'), '"', E'\\"'), E'\n', E'\\n'));
COMMENT ON FUNCTION _flohsync.metric_label(text, text) IS 'A label as the text format of Prometheus writes it';

CREATE FUNCTION _flohsync.metric_samples() RETURNS TABLE (family text, labels text, value numeric)
LANGUAGE sql STABLE
BEGIN ATOMIC
  WITH job AS (
    SELECT pg_catalog.concat_ws(',', _flohsync.metric_label('connector', d.name),
                                _flohsync.metric_label('resource_type', c.resource_type)) AS labels,
           c.*, d.enabled AND c.enabled AND d.home = (SELECT _flohsync.home()) AS scheduled,
           _flohsync.next_due(c) AS next_due, d.enabled AS connector_enabled
      FROM flohsync.connector_sync_config c JOIN flohsync.connector_definition d ON d.id = c.connector_id
  -- By the indexes of the open runs and of those that are held: not all runs of a configuration are read.
  ), open_runs AS (
    SELECT r.connector_id, r.resource_type, r.status, pg_catalog.count(*) AS n FROM flohsync.sync_run r
     WHERE r.status IN ('queued', 'running') GROUP BY 1, 2, 3
    UNION ALL
    SELECT r.connector_id, r.resource_type, r.status, pg_catalog.count(*) FROM flohsync.sync_run r
     WHERE r.status = 'held' GROUP BY 1, 2, 3)
  SELECT 'flohsync_info',
    _flohsync.metric_label('version', (SELECT e.extversion FROM pg_catalog.pg_extension e
                                       WHERE e.extname = 'flohsync')), 1::numeric
  UNION ALL SELECT 'flohsync_launcher_up', NULL,
    (SELECT pg_catalog.count(*) FROM flohsync.processes() p WHERE p.kind = 'flohsync launcher')
  UNION ALL SELECT 'flohsync_workers', NULL,
    (SELECT pg_catalog.count(*) FROM flohsync.processes() p WHERE p.kind = 'flohsync worker')
  UNION ALL SELECT 'flohsync_workers_limit', NULL, pg_catalog.current_setting('flohsync.max_workers', true)::numeric
  UNION ALL SELECT 'flohsync_enabled', NULL,
    (pg_catalog.current_setting('flohsync.enabled', true) IS DISTINCT FROM 'off')::int
  UNION ALL SELECT 'flohsync_scheduled', j.labels, (j.scheduled AND NOT j.parked)::int FROM job j
  UNION ALL SELECT 'flohsync_parked', j.labels, j.parked::int FROM job j
  UNION ALL SELECT 'flohsync_schedule_unusable', j.labels, (j.schedule_error IS NOT NULL)::int FROM job j
  UNION ALL SELECT 'flohsync_retries', j.labels, j.retries FROM job j
  UNION ALL SELECT 'flohsync_next_run_timestamp_seconds', j.labels, extract(epoch FROM j.next_due) FROM job j
    WHERE j.connector_enabled
  UNION ALL SELECT 'flohsync_last_run_timestamp_seconds', j.labels, extract(epoch FROM j.last_sync_at) FROM job j
  UNION ALL SELECT 'flohsync_last_success_timestamp_seconds', j.labels, extract(epoch FROM j.last_success_at) FROM job j
  UNION ALL SELECT 'flohsync_last_full_pass_timestamp_seconds', j.labels, extract(epoch FROM j.last_full_pass_at)
    FROM job j
  UNION ALL SELECT 'flohsync_last_complete_pass_timestamp_seconds', j.labels, extract(epoch FROM j.last_complete_at)
    FROM job j
  UNION ALL SELECT 'flohsync_last_pass_incomplete', j.labels, (j.incomplete_reason IS NOT NULL)::int FROM job j
  UNION ALL SELECT 'flohsync_last_run_failed', j.labels, (j.last_sync_status = 'error')::int FROM job j
  UNION ALL SELECT 'flohsync_last_run_duration_seconds', j.labels, (j.last_sync_stats ->> 'durationMs')::numeric / 1000
    FROM job j
  UNION ALL SELECT 'flohsync_open_runs', j.labels || ',' || _flohsync.metric_label('status', s.status),
      coalesce(o.n, 0)
    FROM job j CROSS JOIN pg_catalog.unnest(ARRAY['queued', 'running', 'held']) AS s(status)
    LEFT JOIN open_runs o ON o.connector_id = j.connector_id AND o.resource_type = j.resource_type
     AND o.status = s.status
  UNION ALL SELECT 'flohsync_runs_total', j.labels || ',' || _flohsync.metric_label('status', s.status),
    coalesce((j.totals ->> s.status)::numeric, 0)
    FROM job j, pg_catalog.unnest(ARRAY['success', 'error', 'cancelled', 'held']) AS s(status)
  UNION ALL SELECT 'flohsync_records_total', j.labels || ',' || _flohsync.metric_label('outcome', s.outcome),
    coalesce((j.totals ->> s.outcome)::numeric, 0)
    FROM job j, (SELECT c.counter FROM _flohsync.page_counters() c WHERE c.in_metrics
                 UNION ALL SELECT o.name FROM (VALUES ('staled'), ('removed')) o(name)) AS s(outcome)
  UNION ALL SELECT 'flohsync_upstream_records_total', j.labels,
    coalesce((j.totals ->> 'totalUpstreamRecords')::numeric, 0) FROM job j
  UNION ALL SELECT 'flohsync_upstream_bytes_total', j.labels, coalesce((j.totals ->> 'bytes')::numeric, 0) FROM job j
  UNION ALL SELECT 'flohsync_users_total', j.labels || ',' || _flohsync.metric_label('action', s.action),
    coalesce((j.totals ->> s.key)::numeric, 0)
    FROM job j, (VALUES ('created', 'usersCreated'), ('deactivated', 'usersDeactivated'),
                 ('reactivated', 'usersReactivated')) AS s(action, key)
  UNION ALL SELECT 'flohsync_profiles_updated_total', j.labels, coalesce((j.totals ->> 'profilesUpdated')::numeric, 0)
    FROM job j
  UNION ALL SELECT 'flohsync_workflow_jobs', _flohsync.metric_label('status', s.status),
                   (SELECT pg_catalog.count(*) FROM flohsync.workflow_job w WHERE w.status = s.status)
    FROM pg_catalog.unnest(ARRAY['queued', 'running', 'failed']) AS s(status)
  UNION ALL SELECT 'flohsync_cache_outbox', NULL, (SELECT pg_catalog.count(*) FROM _flohsync.cache_outbox)
  UNION ALL SELECT m.family, m.labels, m.value FROM _flohsync.cache_metrics() m
  UNION ALL SELECT 'flohsync_pages_total', j.labels, coalesce((j.totals ->> 'pagesProcessed')::numeric, 0) FROM job j
  UNION ALL SELECT 'flohsync_run_seconds_total', j.labels, coalesce((j.totals ->> 'durationMs')::numeric, 0) / 1000
    FROM job j;
END;
COMMENT ON FUNCTION _flohsync.metric_samples() IS 'The samples of metrics(), one row each; a null value is not shown';

CREATE FUNCTION flohsync.metrics() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- One statement, whose plan a session that is asked again keeps.
  RETURN (
  WITH family (position, name, type, help) AS (VALUES
    (1, 'flohsync_info', 'gauge', 'Version of the extension'),
    (2, 'flohsync_launcher_up', 'gauge', 'Whether the launcher is running'),
    (3, 'flohsync_workers', 'gauge', 'Workers in the cluster'),
    (4, 'flohsync_workers_limit', 'gauge', 'Maximum number of workers (flohsync.max_workers)'),
    (5, 'flohsync_enabled', 'gauge', 'Whether workers are enabled (flohsync.enabled)'),
    (6, 'flohsync_scheduled', 'gauge', 'Whether schedules of the configuration are enabled'),
    (7, 'flohsync_parked', 'gauge', 'Whether schedules are suspended because runs crashed their worker'),
    (27, 'flohsync_schedule_unusable', 'gauge',
     'Whether the schedules cannot be used, for example because of an unknown time zone'),
    (8, 'flohsync_retries', 'gauge', 'Number of retries of the failed scheduled run'),
    (9, 'flohsync_next_run_timestamp_seconds', 'gauge', 'When the next run is due'),
    (10, 'flohsync_last_run_timestamp_seconds', 'gauge', 'End of the last run'),
    (11, 'flohsync_last_success_timestamp_seconds', 'gauge', 'End of the last run that succeeded'),
    (12, 'flohsync_last_full_pass_timestamp_seconds', 'gauge', 'Start of the last complete full pass'),
    (25, 'flohsync_last_complete_pass_timestamp_seconds', 'gauge', 'End of the last run whose pass was complete'),
    (26, 'flohsync_last_pass_incomplete', 'gauge', 'Whether the pass of the last run was not complete'),
    (13, 'flohsync_last_run_failed', 'gauge', 'Whether the last run failed or is held'),
    (14, 'flohsync_last_run_duration_seconds', 'gauge', 'Duration of the last run'),
    (15, 'flohsync_open_runs', 'gauge', 'Runs that are queued, running, or held for a decision'),
    (16, 'flohsync_runs_total', 'counter', 'Runs that ended, by status'),
    (17, 'flohsync_records_total', 'counter', 'Records, by what a run did with them'),
    (18, 'flohsync_upstream_records_total', 'counter', 'Records received from the upstream'),
    (19, 'flohsync_upstream_bytes_total', 'counter', 'Bytes received from the upstream'),
    (20, 'flohsync_pages_total', 'counter', 'Pages applied'),
    (21, 'flohsync_run_seconds_total', 'counter', 'Time spent in runs'),
    (22, 'flohsync_users_total', 'counter', 'Users, by what a run did with them'),
    (23, 'flohsync_profiles_updated_total', 'counter', 'Profiles in which a run wrote something'),
    (24, 'flohsync_workflow_jobs', 'gauge', 'Workflow jobs, by status'),
    (40, 'flohsync_cache_reads_total', 'counter',
     'Reads of the cache since the server started, by outcome; bypassed: Redis was not asked'),
    (41, 'flohsync_cache_stores_total', 'counter',
     'Values stored in the cache, and those not stored because the record was invalidated meanwhile'),
    (42, 'flohsync_cache_waits_total', 'counter', 'Reads that waited for a concurrent fetch of the same value'),
    (43, 'flohsync_cache_poisoned_total', 'counter', 'Invalid values found in Redis and removed'),
    (44, 'flohsync_cache_errors_total', 'counter', 'Failed commands and error replies of Redis'),
    (45, 'flohsync_cache_invalidations_total', 'counter', 'Records invalidated in Redis'),
    (46, 'flohsync_cache_clears_total', 'counter',
     'Invalidations of all records of a type, a connector or the database'),
    (47, 'flohsync_cache_outbox', 'gauge', 'Invalidations not yet delivered to Redis'),
    (48, 'flohsync_cache_breaker_open', 'gauge', 'Whether the circuit breaker for Redis is open'),
    (49, 'flohsync_cache_breaker_opened_total', 'counter', 'Number of times that the circuit breaker opened'))
  SELECT pg_catalog.string_agg(
           pg_catalog.format(E'# HELP %1$s %2$s\n# TYPE %1$s %3$s\n%4$s', f.name, f.help, f.type, s.lines), ''
             ORDER BY f.position)
    FROM family f
    JOIN (SELECT m.family, pg_catalog.string_agg(
                   m.family || coalesce('{' || m.labels || '}', '') || ' ' || pg_catalog.trim_scale(m.value) || E'\n',
                     '' ORDER BY m.labels) AS lines
            FROM _flohsync.metric_samples() m WHERE m.value IS NOT NULL
           GROUP BY m.family) s ON s.family = f.name);
END
$$;
COMMENT ON FUNCTION flohsync.metrics() IS
  'Figures of this database in the text format of Prometheus; counters cover all runs, independent of '
  'the retention of the history';
SELECT _flohsync.allow('reader', 'flohsync.metrics()');
