-- What is due is queued.
--
-- What is due is found by the index connector_sync_config_due: its cost is that of
-- what is due, however many configurations there are.  An update that moves a due
-- time pays for it, one a run.  Times that cannot be right, because the clock was
-- set back or others wrote the row, are in no order of time: for these all
-- configurations are read, once a minute (src/server/worker_look.c).

CREATE FUNCTION _flohsync.enqueue_due(_all boolean DEFAULT true) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- The plan does not depend on how many configurations there were when it was made.
SET enable_seqscan = off
AS $$
DECLARE
  c flohsync.connector_sync_config;
  t timestamptz := clock_timestamp();
  -- As cron does: a smaller step is waited for, so that no tick comes twice.
  clock_step constant interval := '3 hours';
  again constant interval := '5 minutes';
  odd uuid[] := '{}';
  set_back boolean;
  problem text;
  n int := 0;
BEGIN
  IF _all THEN
    odd := ARRAY(SELECT x.id FROM flohsync.connector_sync_config x
                  WHERE x.enabled AND NOT x.parked
                    AND (greatest(x.last_sync_at, x.updated_at) > t + clock_step
                         OR (x.cron_schedule IS NOT NULL AND x.next_run_at IS NULL)
                         OR (x.full_cron_schedule IS NOT NULL AND x.next_full_run_at IS NULL)));
  END IF;
  -- Nothing here is waited for: locked rows are left for the next time.
  FOR c IN SELECT x.* FROM flohsync.connector_sync_config x JOIN flohsync.connector_definition d
    ON d.id = x.connector_id
            WHERE x.enabled AND d.enabled AND d.home = (SELECT _flohsync.home()) AND NOT x.parked
              AND (least(x.next_run_at, x.next_full_run_at, x.retry_at) <= t OR x.id = ANY (odd))
            ORDER BY _flohsync.next_due(x) NULLS LAST
              FOR NO KEY UPDATE OF x SKIP LOCKED LOOP
    CONTINUE WHEN NOT _flohsync.try_lock('connector', c.connector_id::text, true)
        OR NOT _flohsync.lock_queue(c.connector_id, c.resource_type, false);
    -- One invalid row must not stop the others.
    BEGIN
      IF EXISTS (SELECT FROM flohsync.sync_run r
                  WHERE r.connector_id = c.connector_id AND r.resource_type = c.resource_type
                    AND r.status IN ('queued', 'running')) THEN
        NULL;  -- that run is the one
      ELSIF c.next_run_at <= t OR c.next_full_run_at <= t THEN
        INSERT INTO flohsync.sync_run AS q (connector_id, resource_type, strategy, trigger)
        VALUES (c.connector_id, c.resource_type, CASE WHEN c.next_full_run_at <= t THEN 'full' ELSE c.strategy END,
                'schedule')
        ON CONFLICT (connector_id, resource_type) WHERE status IN ('queued', 'running') DO NOTHING;
        n := n + 1;
      ELSIF c.retry_at <= t THEN
        INSERT INTO flohsync.sync_run AS q (connector_id, resource_type, strategy, trigger)
        SELECT x.connector_id, x.resource_type, x.strategy, 'retry' FROM flohsync.sync_run x
         WHERE x.connector_id BETWEEN c.connector_id AND c.connector_id AND x.resource_type = c.resource_type
         ORDER BY x.connector_id, x.id DESC LIMIT 1
        ON CONFLICT (connector_id, resource_type) WHERE status IN ('queued', 'running') DO NOTHING;
        n := n + 1;
      END IF;
      -- The clock has been set back since: what it said then does not count.
      set_back := coalesce(greatest(c.last_sync_at, c.updated_at) > t + clock_step, false);
      UPDATE flohsync.connector_sync_config x
         SET next_run_at = CASE WHEN x.next_run_at > t AND NOT set_back THEN x.next_run_at
                                ELSE _flohsync.cron_next(c.cron_schedule, t, c.timezone) END,
             next_full_run_at = CASE WHEN x.next_full_run_at > t AND NOT set_back THEN x.next_full_run_at
                                     ELSE _flohsync.cron_next(c.full_cron_schedule, t, c.timezone) END,
             -- whatever is queued now is the next try
             retry_at = CASE WHEN least(x.next_run_at, x.next_full_run_at, x.retry_at) > t
                 AND NOT set_back THEN x.retry_at END,
             schedule_error = NULL
       WHERE x.id = c.id;
    EXCEPTION WHEN OTHERS THEN
      CONTINUE WHEN _flohsync.passes(SQLSTATE);
      -- Only a person switches a configuration off: what is wrong, a time zone that the system lost, may come right.
      problem := _flohsync.clean(SQLERRM);
      IF problem IS DISTINCT FROM c.schedule_error THEN
        RAISE WARNING USING
          MESSAGE = _flohsync.clean(format('schedules of %s/%s cannot be used: %s',
                                           (SELECT d.name FROM flohsync.connector_definition d
                                            WHERE d.id = c.connector_id), c.resource_type, problem)),
          HINT = 'They are checked again every five minutes.';
      END IF;
      UPDATE flohsync.connector_sync_config x
         SET schedule_error = problem,
             next_run_at = CASE WHEN x.cron_schedule IS NOT NULL THEN greatest(x.next_run_at, t + again) END,
             next_full_run_at = CASE WHEN x.full_cron_schedule IS NOT NULL
               THEN greatest(x.next_full_run_at, t + again) END,
             retry_at = greatest(x.retry_at, CASE WHEN x.retry_at IS NOT NULL THEN t + again END)
       WHERE x.id = c.id;
    END;
  END LOOP;
  RETURN n;
END
$$;
COMMENT ON FUNCTION _flohsync.enqueue_due(boolean) IS
  'Queues the scheduled runs and retries that are due, and returns their number; missed ticks collapse into one. _all: '
  'also looks for due times that are missing or that a wrong clock has left, which reads all configurations';
