-- What HTTP serves of the whole: progress, ends of runs, health, metrics; and
-- webhooks.  A program for HTTP asks for these as itself.

CREATE FUNCTION _flohsync.api_events(since timestamptz DEFAULT NULL, max int DEFAULT 1000) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
BEGIN
  IF max IS NULL OR max NOT BETWEEN 1 AND 10000 THEN
    PERFORM _flohsync.invalid('max', 'it must be from 1 to 10000', 'The default is 1000.');
  END IF;
  RETURN jsonb_build_object(
    'at', _flohsync.iso(clock_timestamp()),
    'runs', (SELECT coalesce(jsonb_agg(_flohsync.progress_dto(p) ORDER BY p.run_id), '[]')
               FROM flohsync.sync_progress p),
    'ended', (
      WITH ended AS MATERIALIZED (
        -- With ties: who asks for what is later misses none of them.
        SELECT r FROM flohsync.sync_run r WHERE r.finished_at > since
         ORDER BY r.finished_at FETCH FIRST (api_events.max) ROWS WITH TIES
      ), stats AS MATERIALIZED (
        SELECT c.connector_id, c.resource_type, flohsync.match_stats(c.connector_id::text, c.resource_type) AS counts
          FROM flohsync.connector_sync_config c
         WHERE (c.connector_id, c.resource_type) IN (SELECT (e.r).connector_id, (e.r).resource_type FROM ended e)
           AND _flohsync.matches_users(c)
      )
      SELECT coalesce(jsonb_agg(jsonb_build_object(
               'id', format('%s-%s', (extract(epoch FROM (e.r).finished_at) * 1000000)::bigint, (e.r).id),
               'at', _flohsync.iso((e.r).finished_at), 'run', _flohsync.run_dto(e.r), 'matchStats', s.counts)
               ORDER BY (e.r).finished_at, (e.r).id), '[]')
        FROM ended e
        LEFT JOIN stats s ON s.connector_id = (e.r).connector_id AND s.resource_type = (e.r).resource_type));
END
$$;
SELECT _flohsync.serve('{reader,gateway}', 'events(timestamptz, int)',
  'What goes on: {at, runs, ended}; runs: the progress of queued and running runs; ended: those that ended after a '
  'time, oldest first, {id, at, run, matchStats}; none without a time; at most max (1000), and those that ended with '
  'the last of them. A run is seen when its transaction is committed, a little after it ended: ask with an overlap');

CREATE FUNCTION _flohsync.redis_state() RETURNS text
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_redis_state';
COMMENT ON FUNCTION _flohsync.redis_state() IS
  'What is known of Redis without asking it: off, up, down (the breaker is open) or unknown (nothing is shared)';

CREATE FUNCTION _flohsync.oldest_due_job(_at timestamptz, OUT connector text, OUT resource_type text,
                                         OUT due_at timestamptz)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  SELECT j.name, j.resource_type, j.due INTO oldest_due_job.connector, oldest_due_job.resource_type,
    oldest_due_job.due_at
    FROM (SELECT d.name, c.resource_type, _flohsync.next_due(c) AS due
            FROM flohsync.connector_sync_config c JOIN flohsync.connector_definition d ON d.id = c.connector_id
           WHERE d.enabled AND d.home = _flohsync.home() AND c.schedule_error IS NULL
          UNION ALL
          SELECT d.name, r.resource_type, r.requested_at
            FROM flohsync.sync_run r JOIN flohsync.connector_definition d ON d.id = r.connector_id
           WHERE r.status = 'queued' AND d.enabled) j
   WHERE j.due <= _at ORDER BY j.due LIMIT 1;
END
$$;
COMMENT ON FUNCTION _flohsync.oldest_due_job(timestamptz) IS
  'What has been due for longest and does not run: a schedule that nobody has looked at, or a queued run';

CREATE FUNCTION _flohsync.api_health() RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
  standby boolean := pg_is_in_recovery();
  at timestamptz := clock_timestamp();
  launcher boolean := EXISTS (SELECT FROM flohsync.processes() p WHERE p.kind = 'flohsync launcher');
  hindrance text := flohsync.hindrance();
  due record := _flohsync.oldest_due_job(at);
BEGIN
  RETURN jsonb_build_object(
    -- What a standby lacks, its primary does.
    'status', CASE WHEN NOT standby AND (NOT launcher OR hindrance IS NOT NULL
                                         OR coalesce(due.due_at < at - interval '5 minutes', false))
                   THEN 'degraded' ELSE 'ok' END,
    'database', CASE WHEN standby THEN 'standby' ELSE 'primary' END,
    'version', (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'flohsync'),
    'launcher', launcher, 'redis', _flohsync.redis_state(), 'hindrance', hindrance,
    'oldestDueJob', CASE WHEN due.due_at IS NOT NULL THEN
      jsonb_build_object('connector', due.connector, 'resourceType', due.resource_type,
                         'dueAt', _flohsync.iso(due.due_at),
                         'lateSeconds', floor(extract(epoch FROM at - due.due_at))) END,
    'heldRuns', (SELECT count(*) FROM flohsync.sync_run r WHERE r.status = 'held'));
END
$$;
SELECT _flohsync.serve('{reader,gateway}', 'health()',
  'Whether syncs happen: {status, database, version, launcher, redis, hindrance, oldestDueJob, heldRuns}; status '
  'degraded: on a primary without a launcher, where something hinders workers, or where what is due has waited for '
  'more than five minutes');

CREATE FUNCTION _flohsync.api_metrics() RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN flohsync.metrics();
END
$$;
SELECT _flohsync.serve('{reader,gateway}', 'metrics()', 'Figures in the text format of Prometheus');

CREATE FUNCTION _flohsync.api_webhook(connector text, method text, query jsonb, headers jsonb, body bytea)
  RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN _flohsync.answer_webhook(connector, method, query, headers, body);
END
$$;
SELECT _flohsync.serve('{gateway}', 'webhook(text, text, jsonb, jsonb, bytea)',
  'Verifies and processes a webhook, and says what to answer: {status, contentType, body}; 28000 when it is not '
  'authentic, FLS05 for another method than POST');
