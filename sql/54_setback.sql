-- Records for which a stage of post-sync could not be done, and calls of what is
-- behind the seam that leave such ones out.

CREATE TABLE _flohsync.setback (
  config_id   uuid NOT NULL REFERENCES flohsync.connector_sync_config ON DELETE CASCADE,
  stage       text NOT NULL CHECK (stage IN ('reactivate', 'create', 'deactivate', 'map', 'workflow')),
  resource_id uuid NOT NULL,
  change      text,
  tried_at    timestamptz NOT NULL,
  PRIMARY KEY (config_id, stage, resource_id)
);
COMMENT ON TABLE _flohsync.setback IS
  'Rows for which a stage of post-sync failed, to be retried; written under the exclusive lock of the matching';
COMMENT ON COLUMN _flohsync.setback.config_id IS 'Configuration';
COMMENT ON COLUMN _flohsync.setback.stage IS 'Stage that failed: reactivate, create, deactivate, map or workflow';
COMMENT ON COLUMN _flohsync.setback.resource_id IS 'Record, or one of the records of the user';
COMMENT ON COLUMN _flohsync.setback.change IS 'Change for which the workflow was not triggered';
COMMENT ON COLUMN _flohsync.setback.tried_at IS 'When it was last tried';

CREATE FUNCTION _flohsync.known_setbacks(_c flohsync.connector_sync_config, _stage text) RETURNS uuid[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN ARRAY(SELECT m.user_id FROM _flohsync.setback s JOIN flohsync.connector_sync_match m
               ON m.connector_resource_id = s.resource_id
                WHERE s.config_id = _c.id AND s.stage = _stage AND m.user_id IS NOT NULL
                GROUP BY m.user_id ORDER BY min(s.tried_at), m.user_id);
END
$$;
COMMENT ON FUNCTION _flohsync.known_setbacks(flohsync.connector_sync_config, text) IS
  'Users that a stage has failed for before, least recently tried first';

-- One call for some rows: the seam's, or that of the queue of workflow jobs.
CREATE FUNCTION _flohsync.call_seam(_stage text, _c flohsync.connector_sync_config, _run bigint,
  _users uuid[], _emails text[], _names text[], _values jsonb[],
  OUT positions int[], OUT users uuid[], OUT problems text[], OUT jobs bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  jobs := 0;
  CASE _stage
    WHEN 'create' THEN
      SELECT array_agg(n."position"), array_agg(n.user_id), array_agg(n.problem) INTO positions, users, problems
        FROM flohsync._user_create(_emails, _names) n;
      -- A user without the initial values is not created.
      PERFORM _flohsync.apply_defaults(_c, array_agg(u.id)) FROM unnest(users) u(id) WHERE u.id IS NOT NULL;
    WHEN 'reactivate' THEN
      users := ARRAY(SELECT * FROM flohsync._user_reactivate(_users));
    WHEN 'deactivate' THEN
      users := ARRAY(SELECT * FROM flohsync._user_deactivate(_users, _run));
    WHEN 'map' THEN
      users := ARRAY(SELECT * FROM flohsync._profile_update(_users, _values, 'connector'));
    WHEN 'workflow' THEN
      jobs := _flohsync.queue_record_jobs(_c, _run, _values);
  END CASE;
END
$$;
COMMENT ON FUNCTION _flohsync.call_seam(text, flohsync.connector_sync_config, bigint, uuid[], text[],
                                        text[], jsonb[]) IS
  'Runs a stage for some rows: returns the user created for each position or why none was, the users '
  'processed, or the number of jobs';

-- k rows of n that fail cost about 2 k log2 (n / k) calls.  A failure that is
-- not about rows is told by this: nothing has succeeded, and all rows that were
-- alone failed with one SQLSTATE: all that there are, or, of many, the first few and
-- those in the middle of all that is left.  Then it is raised, and all is as
-- before the call.
CREATE FUNCTION _flohsync.in_halves(_stage text, _c flohsync.connector_sync_config, _run bigint,
  _n int, _known int, _users uuid[], _emails text[], _names text[], _values jsonb[], _succeeded boolean DEFAULT false,
  OUT positions int[], OUT users uuid[], OUT problems text[], OUT jobs bigint,
  OUT failed int[], OUT states text[], OUT messages text[], OUT untried int[], OUT passed_over int[])
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  again constant int := 100;      -- number of rows known to have failed that are retried in a run
  few constant int := 5;          -- so many single rows that fail make one suspicious,
  many constant int := 20;        -- where there are more than these
  too_many constant int := 1000;  -- so many that fail, but for those known to, end it
  new constant int := greatest(_n - greatest(_known, 0), 0);
  -- Ranges of rows that are to be tried, the last one first; of the rows, those known to have failed are the last ones.
  lows int[] := ARRAY[1, new + 1];
  highs int[] := ARRAY[new, least(_n, new + again)];
  low int;
  high int;
  probes int;
  succeeded boolean := _succeeded;
  lost int := 0;      -- new rows that failed
  one text;           -- SQLSTATE of the first of them
  alike boolean := true;
  did record;
BEGIN
  IF coalesce(_n, 0) <> coalesce(greatest(cardinality(_users), cardinality(_emails), cardinality(_values)), 0) THEN
    PERFORM _flohsync.invalid('_n', 'it must be the number of rows');
  END IF;
  positions := '{}';
  users := '{}';
  problems := '{}';
  jobs := 0;
  failed := '{}';
  states := '{}';
  messages := '{}';
  WHILE cardinality(lows) > 0 AND lost < too_many LOOP
    low := lows[cardinality(lows)];
    high := highs[cardinality(highs)];
    lows := trim_array(lows, 1);
    highs := trim_array(highs, 1);
    CONTINUE WHEN low > high;
    BEGIN
      did := _flohsync.call_seam(_stage, _c, _run, _users[low:high], _emails[low:high], _names[low:high],
                                 _values[low:high]);
      positions := positions || ARRAY(SELECT p.position + low - 1 FROM unnest(did.positions)
                                      WITH ORDINALITY p(position, i) ORDER BY p.i);
      users := users || did.users;
      problems := problems || did.problems;
      jobs := jobs + did.jobs;
      succeeded := true;
    EXCEPTION WHEN OTHERS THEN
      IF _flohsync.passes(SQLSTATE) THEN
        RAISE;
      ELSIF low < high THEN
        lows := lows || ARRAY[(low + high) / 2 + 1, low];
        highs := highs || ARRAY[high, (low + high) / 2];
      ELSE
        failed := failed || low;
        states := states || SQLSTATE;
        messages := messages || _flohsync.clean(SQLERRM);
        IF low <= new THEN
          lost := lost + 1;
          one := coalesce(one, SQLSTATE);
          alike := alike AND one = SQLSTATE;
        END IF;
      END IF;
    END;
    CONTINUE WHEN succeeded OR NOT alike OR lost < few OR new <= many;
    IF probes IS NULL THEN
      SELECT array_agg(r.low ORDER BY r.rank, r.i), array_agg(r.high ORDER BY r.rank, r.i),
        count(*) FILTER (WHERE r.rank = 2)
        INTO lows, highs, probes
        FROM (SELECT x.i, v.rank, v.low, v.high
                FROM unnest(lows, highs) WITH ORDINALITY AS x(low, high, i)
               CROSS JOIN LATERAL (VALUES (1, x.low, (x.low + x.high) / 2 - 1), (1, (x.low + x.high) / 2 + 1, x.high),
                                          (2, (x.low + x.high) / 2, (x.low + x.high) / 2)) v(rank, low, high)) r;
    ELSIF probes > 1 THEN
      probes := probes - 1;
    ELSE
      RAISE EXCEPTION USING ERRCODE = one, MESSAGE = _flohsync.clean(messages[cardinality(messages)]);
    END IF;
  END LOOP;
  IF NOT succeeded AND alike AND lost = new AND lost > 2 THEN
    RAISE EXCEPTION USING ERRCODE = one, MESSAGE = _flohsync.clean(messages[cardinality(messages)]);
  END IF;
  untried := ARRAY(SELECT g.i FROM unnest(lows, highs) r(low, high)
                   CROSS JOIN LATERAL generate_series(r.low, r.high) g(i));
  passed_over := ARRAY(SELECT generate_series(new + again + 1, _n));
END
$$;
COMMENT ON FUNCTION _flohsync.in_halves(text, flohsync.connector_sync_config, bigint, int, int, uuid[], text[],
                                        text[], jsonb[], boolean) IS
  'Runs a stage for n rows, of which the last have failed before, least recently tried first (_succeeded: others have '
  'not): returns the result of call_seam(), the rows that failed and why, those not tried because too many failed, and '
  'those not due for a retry';

-- Who calls for one record of a webhook does not hold the matching alone: the record is noted elsewhere then.
CREATE FUNCTION _flohsync.note_setbacks(_stage text, _c flohsync.connector_sync_config, _run bigint,
                                        _record flohsync.resource_record,
  _resources uuid[], _externals text[], _states text[], _messages text[], _changes text[] DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF coalesce(cardinality(_states), 0) = 0 THEN
    RETURN '[]';
  END IF;
  IF _record.id IS NULL THEN
    INSERT INTO _flohsync.setback AS s (config_id, stage, resource_id, change, tried_at)
    SELECT _c.id, _stage, f.id, f.change, clock_timestamp()
      FROM unnest(_resources, _changes) AS f(id, change) WHERE f.id IS NOT NULL
    ON CONFLICT (config_id, stage, resource_id) DO UPDATE SET change = EXCLUDED.change, tried_at = EXCLUDED.tried_at;
  END IF;
  INSERT INTO flohsync.sync_error (run_id, connector_id, resource_type, external_id, error_class, message)
  SELECT _run, CASE WHEN _run IS NULL THEN _c.connector_id END, CASE WHEN _run IS NULL THEN _c.resource_type END,
         f.external_id, _flohsync.error_class('post_sync'), format('%s: %s', _stage, f.message)
    FROM unnest(_externals, _messages) WITH ORDINALITY AS f(external_id, message, position) ORDER BY f.position;
  RETURN (SELECT jsonb_agg(jsonb_build_object('stage', _stage, 'externalId', f.external_id, 'sqlstate', f.state,
                                              'message', f.message) ORDER BY f.position)
            FROM unnest(_externals, _states, _messages) WITH ORDINALITY AS f(external_id, state, message, position)
              WHERE f.position <= 20);
END
$$;
COMMENT ON FUNCTION _flohsync.note_setbacks(text, flohsync.connector_sync_config, bigint, flohsync.resource_record,
                                            uuid[], text[], text[], text[], text[]) IS
  'Records the rows for which a stage failed, to be retried by later runs (except for the record of a webhook); '
  'returns the first of them for the report';

-- The same for users: each by one of their records.
CREATE FUNCTION _flohsync.note_user_setbacks(_stage text, _c flohsync.connector_sync_config, _run bigint,
                                             _record flohsync.resource_record,
  _users uuid[], _states text[], _messages text[]) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF coalesce(greatest(cardinality(_users), cardinality(_states), cardinality(_messages)), 0) = 0 THEN
    RETURN '[]';
  END IF;
  RETURN (
    SELECT _flohsync.note_setbacks(_stage, _c, _run, _record, array_agg(x.id ORDER BY f.position),
                                   array_agg(x.external_id::text ORDER BY f.position),
                                   array_agg(f.state ORDER BY f.position), array_agg(f.message ORDER BY f.position))
      FROM unnest(_users, _states, _messages) WITH ORDINALITY AS f(id, state, message, position)
      LEFT JOIN LATERAL (
           SELECT r.id, r.external_id
             FROM flohsync.connector_sync_match m JOIN flohsync.resource_record r ON r.id = m.connector_resource_id
            WHERE m.user_id = f.id AND m.connector_id = _c.connector_id AND m.resource_type = _c.resource_type
              AND m.match_status IN ('matched', 'manual_override')
              AND (r.stale_since IS NOT NULL) = (_stage = 'deactivate')
            ORDER BY r.external_id LIMIT 1) x ON true);
END
$$;
COMMENT ON FUNCTION _flohsync.note_user_setbacks(text, flohsync.connector_sync_config, bigint, flohsync.resource_record,
                                                 uuid[], text[], text[]) IS
  'Records the users that a stage failed for; see note_setbacks()';
