-- What follows a pass: match, create, deactivate and reactivate, map
-- attributes, trigger workflows.
--
-- _post_sync is one transaction of the run's worker, or of approve_run; each
-- stage is a subtransaction of its own, whose failure is recorded and fails
-- nothing else.  Errors that pass by themselves are raised: the worker does the
-- transaction again.
--
-- What is behind the seam, and the application's own rules about its tables, can
-- refuse one user or one profile.  So a stage gives all rows to the seam at once,
-- and where that fails halves them until those that fail are alone
-- (_in_halves).  These are noted, in sync_error and in setback, and the others are
-- done.  The next run tries them again: apart from the others, so that its one
-- statement for these succeeds, and no more than a hundred of them in a stage,
-- those that have waited longest, so that no run becomes slow by what was refused
-- before.

CREATE TABLE _flohsync.setback (
  config_id   uuid NOT NULL REFERENCES flohsync.connector_sync_config ON DELETE CASCADE,
  stage       text NOT NULL CHECK (stage IN ('reactivate', 'create', 'deactivate', 'map', 'workflow')),
  resource_id uuid NOT NULL,
  change      text,
  tried_at    timestamptz NOT NULL,
  PRIMARY KEY (config_id, stage, resource_id)
);
COMMENT ON TABLE _flohsync.setback IS 'Rows for which a stage of post-sync failed, to be retried; written under the exclusive lock of the matching';
COMMENT ON COLUMN _flohsync.setback.config_id IS 'Configuration';
COMMENT ON COLUMN _flohsync.setback.stage IS 'Stage that failed: reactivate, create, deactivate, map or workflow';
COMMENT ON COLUMN _flohsync.setback.resource_id IS 'Record, or one of the records of the user';
COMMENT ON COLUMN _flohsync.setback.change IS 'Change for which the workflow was not triggered';
COMMENT ON COLUMN _flohsync.setback.tried_at IS 'When it was last tried';

CREATE FUNCTION _flohsync.known_setbacks(_c flohsync.connector_sync_config, _stage text) RETURNS uuid[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN ARRAY(SELECT m.user_id FROM _flohsync.setback s JOIN flohsync.connector_sync_match m ON m.connector_resource_id = s.resource_id
              WHERE s.config_id = (_c).id AND s.stage = _stage AND m.user_id IS NOT NULL
              GROUP BY m.user_id ORDER BY pg_catalog.min(s.tried_at), m.user_id);
COMMENT ON FUNCTION _flohsync.known_setbacks(flohsync.connector_sync_config, text) IS 'Users that a stage has failed for before, least recently tried first';

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
COMMENT ON FUNCTION _flohsync.call_seam(text, flohsync.connector_sync_config, bigint, uuid[], text[], text[], jsonb[]) IS
  'Runs a stage for some rows: returns the user created for each position or why none was, the users processed, or the number of jobs';

-- k rows of n that fail cost about 2 k log2 (n / k) calls.  A failure that is
-- not about rows is told by this: nothing has succeeded, and all rows that were
-- alone failed with one SQLSTATE: all that there are, or, of many, the first few and
-- those in the middle of all that is left.  Then it is raised, and all is as
-- before the call.
CREATE FUNCTION _flohsync.in_halves(_stage text, _c flohsync.connector_sync_config, _run bigint,
  _n int, _known int, _users uuid[], _emails text[], _names text[], _values jsonb[],
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
  succeeded boolean := false;
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
      did := _flohsync.call_seam(_stage, _c, _run, _users[low:high], _emails[low:high], _names[low:high], _values[low:high]);
      positions := positions || ARRAY(SELECT p.position + low - 1 FROM unnest(did.positions) WITH ORDINALITY p(position, i) ORDER BY p.i);
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
      SELECT array_agg(r.low ORDER BY r.rank, r.i), array_agg(r.high ORDER BY r.rank, r.i), count(*) FILTER (WHERE r.rank = 2)
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
  untried := ARRAY(SELECT g.i FROM unnest(lows, highs) r(low, high) CROSS JOIN LATERAL generate_series(r.low, r.high) g(i));
  passed_over := ARRAY(SELECT generate_series(new + again + 1, _n));
END
$$;
COMMENT ON FUNCTION _flohsync.in_halves(text, flohsync.connector_sync_config, bigint, int, int, uuid[], text[], text[], jsonb[]) IS
  'Runs a stage for n rows, of which the last have failed before, least recently tried first: returns the result of call_seam(), the rows that failed and why, those not tried because too many failed, and those not due for a retry';

-- Who calls for one record of a webhook does not hold the matching alone: the record is noted elsewhere then.
CREATE FUNCTION _flohsync.note_setbacks(_stage text, _c flohsync.connector_sync_config, _run bigint, _record flohsync.resource_record,
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
  RETURN (SELECT jsonb_agg(jsonb_build_object('stage', _stage, 'externalId', f.external_id, 'sqlstate', f.state, 'message', f.message) ORDER BY f.position)
            FROM unnest(_externals, _states, _messages) WITH ORDINALITY AS f(external_id, state, message, position) WHERE f.position <= 20);
END
$$;
COMMENT ON FUNCTION _flohsync.note_setbacks(text, flohsync.connector_sync_config, bigint, flohsync.resource_record, uuid[], text[], text[], text[], text[]) IS
  'Records the rows for which a stage failed, to be retried by later runs (except for the record of a webhook); returns the first of them for the report';

-- The same for users: each by one of their records.
CREATE FUNCTION _flohsync.note_user_setbacks(_stage text, _c flohsync.connector_sync_config, _run bigint, _record flohsync.resource_record,
  _users uuid[], _states text[], _messages text[]) RETURNS jsonb
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT _flohsync.note_setbacks(_stage, _c, _run, _record, pg_catalog.array_agg(x.id ORDER BY f.position), pg_catalog.array_agg(x.external_id::text ORDER BY f.position),
                                 pg_catalog.array_agg(f.state ORDER BY f.position), pg_catalog.array_agg(f.message ORDER BY f.position))
    FROM ROWS FROM (pg_catalog.unnest(_users), pg_catalog.unnest(_states), pg_catalog.unnest(_messages)) WITH ORDINALITY AS f(id, state, message, position)
    LEFT JOIN LATERAL (
         SELECT r.id, r.external_id
           FROM flohsync.connector_sync_match m JOIN flohsync.resource_record r ON r.id = m.connector_resource_id
          WHERE m.user_id = f.id AND m.connector_id = (_c).connector_id AND m.resource_type = (_c).resource_type
            AND m.match_status IN ('matched', 'manual_override') AND (r.stale_since IS NOT NULL) = (_stage = 'deactivate')
          ORDER BY r.external_id LIMIT 1) x ON true;
END;
COMMENT ON FUNCTION _flohsync.note_user_setbacks(text, flohsync.connector_sync_config, bigint, flohsync.resource_record, uuid[], text[], text[]) IS
  'Records the users that a stage failed for; see note_setbacks()';

-- Users who left and whose record is back.  They come first: matching does not see them otherwise.
CREATE FUNCTION _flohsync.back_cached(_sql text, _connector uuid, _type text, _ids uuid[], OUT records uuid[], OUT users uuid[])
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'flohsync_execute_cached_plan';
COMMENT ON FUNCTION _flohsync.back_cached(text, uuid, text, uuid[]) IS
  'Runs the statement of reactivate() with a cached plan, for a few records, with users in floh_user';

CREATE FUNCTION _flohsync.reactivate(_c flohsync.connector_sync_config, _ids uuid[], _run bigint DEFAULT NULL,
  _record flohsync.resource_record DEFAULT NULL, OUT records uuid[], OUT users uuid[], OUT reactivated bigint, OUT refused bigint, OUT errors jsonb)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  statement text := format($sql$
  SELECT coalesce(array_agg(b.id), '{}'), coalesce(array_agg(b.user_id), '{}')
    FROM (SELECT DISTINCT ON (x.id) x.id, g.user_id
            FROM flohsync.resource_record x
            LEFT JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id
           CROSS JOIN LATERAL (SELECT m.user_id WHERE m.match_status IN ('matched', 'manual_override')
                               UNION ALL
                               -- the record was purged meanwhile, and its match with it
                               SELECT i.user_id FROM flohsync.user_external_identity i
                                WHERE m.id IS NULL AND i.external_id = x.external_id AND i.connector_id = x.connector_id
                                  -- an id that was reassigned to another person is not the same record
                                  AND _flohsync.match_key(i.external_email) IS NOT DISTINCT FROM _flohsync.match_key(x.email)
                                  AND i.source = 'connector_sync') g
           WHERE %s AND x.stale_since IS NULL
             AND g.user_id IS NOT NULL AND NOT EXISTS (SELECT FROM _flohsync.app_user u WHERE u.id = g.user_id)
           ORDER BY x.id, g.user_id) b
  $sql$, _flohsync.records_of_sql(_ids IS NOT NULL));
  wanted uuid[];
  firsts uuid[];
  known int;
  did record;
BEGIN
  IF _flohsync.use_cached_plan(_ids) THEN
    SELECT b.records, b.users INTO records, users FROM _flohsync.back_cached(statement, _c.connector_id, _c.resource_type, _ids) b;
  ELSE
    EXECUTE statement INTO records, users USING _c.connector_id, _c.resource_type::text, _ids;
  END IF;
  reactivated := 0;
  refused := 0;
  errors := '[]';
  IF records = '{}' THEN
    RETURN;
  END IF;
  SELECT array_agg(w.user_id ORDER BY w.tried_at NULLS FIRST, w.user_id), array_agg(w.id ORDER BY w.tried_at NULLS FIRST, w.user_id), count(w.tried_at)
    INTO wanted, firsts, known
    FROM (SELECT b.user_id, (array_agg(b.id ORDER BY b.id))[1] AS id, min(s.tried_at) AS tried_at
            FROM unnest(records, users) AS b(id, user_id)
            LEFT JOIN _flohsync.setback s ON s.config_id = _c.id AND s.stage = 'reactivate' AND s.resource_id = b.id
           GROUP BY b.user_id) w;
  did := _flohsync.in_halves('reactivate', _c, _run, cardinality(wanted), known, wanted, NULL, NULL, NULL);
  reactivated := cardinality(did.users);
  refused := cardinality(did.failed);
  SELECT _flohsync.note_setbacks('reactivate', _c, _run, _record, array_agg(x.id ORDER BY f.position), array_agg(x.external_id::text ORDER BY f.position),
                                 array_agg(f.state ORDER BY f.position), array_agg(f.message ORDER BY f.position)) INTO errors
    FROM unnest(did.failed, did.states, did.messages) WITH ORDINALITY AS f(nr, state, message, position)
    JOIN flohsync.resource_record x ON x.id = firsts[f.nr];
  -- Users that it failed for are not deleted: their records stay matched to them.
  SELECT coalesce(array_agg(b.id), '{}'), coalesce(array_agg(b.user_id), '{}') INTO records, users
    FROM unnest(records, users) AS b(id, user_id)
    JOIN (SELECT unnest(did.users) UNION SELECT wanted[f.nr] FROM unnest(did.failed || did.untried || did.passed_over) AS f(nr)) AS d(id) ON d.id = b.user_id;
END
$$;
COMMENT ON FUNCTION _flohsync.reactivate(flohsync.connector_sync_config, uuid[], bigint, flohsync.resource_record) IS
  'Reactivates users that a sync deactivated and whose record is back; returns those records with their users, including failures, and the number of each';

CREATE FUNCTION _flohsync.profile_field(_field text, _value jsonb, _c flohsync.connector_sync_config, OUT value jsonb, OUT problem text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  t text := _value #>> '{}';
  u uuid;
BEGIN
  IF octet_length(_value::text) > 4096 THEN
    problem := 'the value is larger than 4096 bytes';
  ELSIF _field NOT IN ('title', 'department', 'phoneNumber', 'location', 'employeeId', 'costCenter', 'startDate', 'managerId') THEN
    value := _value;
  ELSIF jsonb_typeof(_value) IN ('object', 'array') THEN
    problem := format('a %s is not a string', jsonb_typeof(_value));
  ELSIF _field = 'startDate' AND t ~ '\S' THEN
    IF t ~ '^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])([T ].*)?$' AND t !~ '^0000'
       AND extract(month FROM make_date(left(t, 4)::int, substr(t, 6, 2)::int, 1) + (substr(t, 9, 2)::int - 1)) = substr(t, 6, 2)::int THEN
      value := to_jsonb(left(t, 10)::date);
    ELSE
      problem := _flohsync.clean(format('%L is not a date', left(t, 100)));
    END IF;
  ELSIF _field = 'managerId' AND t ~ '\S' THEN
    -- A user's id, or the external id of somebody in the same directory.
    IF t ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
      SELECT v.id INTO u FROM _flohsync.app_user v WHERE v.id = t::uuid;
    END IF;
    IF u IS NULL THEN
      SELECT m.user_id INTO u
        FROM flohsync.resource_record x
        JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id
        JOIN _flohsync.app_user v ON v.id = m.user_id
       WHERE x.external_id = t COLLATE "C" AND x.resource_type = _c.resource_type AND x.connector_id = _c.connector_id
         AND m.match_status IN ('matched', 'manual_override');
    END IF;
    value := to_jsonb(u);
    IF u IS NULL THEN
      problem := _flohsync.clean(format('%L is no user', left(t, 100)));
    END IF;
  ELSIF _field IN ('startDate', 'managerId') THEN
    value := 'null';
  ELSE
    value := to_jsonb(t);
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.profile_field(text, jsonb, flohsync.connector_sync_config) IS
  'A value converted for a profile field, or why it is invalid';

CREATE FUNCTION _flohsync.as_worker_profile_field(_field text, _value jsonb, _c flohsync.connector_sync_config, OUT value jsonb, OUT problem text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_as_worker';
COMMENT ON FUNCTION _flohsync.as_worker_profile_field(text, jsonb, flohsync.connector_sync_config) IS
  'Like profile_field(), run as the workers'' role, since users may be those of an application';

CREATE FUNCTION _flohsync.map_sql(_c flohsync.connector_sync_config) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN string_agg(format('(%s, %L, %L, %s)', r.position, r.rule ->> 'targetField',
           coalesce(r.rule ->> 'writeMode', 'overwrite_if_empty'), _flohsync.source_sql(r.rule ->> 'sourcePath')), ', ' ORDER BY r.position)
    FROM jsonb_array_elements(_c.attribute_mappings) WITH ORDINALITY AS r(rule, position)
   WHERE coalesce((r.rule ->> 'enabled')::boolean, true) AND coalesce(r.rule ->> 'transform', '') = ''
     AND coalesce(r.rule ->> 'writeMode', 'overwrite_if_empty') <> 'never_overwrite';
END
$$;
COMMENT ON FUNCTION _flohsync.map_sql(flohsync.connector_sync_config) IS
  'SQL for the attribute mappings of the record x, as rows (position, field, mode, value); null when no rule writes anything';

CREATE FUNCTION _flohsync.map_cached(_sql text, _connector uuid, _type text, _c flohsync.connector_sync_config, _run bigint, _ids uuid[],
  _error_connector uuid, OUT users uuid[], OUT patches jsonb[], OUT failed bigint)
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'flohsync_execute_cached_plan';
COMMENT ON FUNCTION _flohsync.map_cached(text, uuid, text, flohsync.connector_sync_config, bigint, uuid[], uuid) IS
  'Runs the statement of map_attributes() with a cached plan, for a few records, with users in floh_user';

-- Rules for one field act one after the other, which comes to: the last one that
-- always writes, else the first one that has something for an empty field.
CREATE FUNCTION _flohsync.map_attributes(_c flohsync.connector_sync_config, _ids uuid[], _run bigint, _record flohsync.resource_record DEFAULT NULL,
  OUT updated bigint, OUT failed bigint, OUT refused bigint, OUT errors jsonb, OUT complete boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET jit = off
SET work_mem = '64MB'
SET enable_nestloop = on
AS $$
DECLARE
  rules text := _flohsync.map_sql(_c);
  statement text;
  users uuid[];
  patches jsonb[];
  known uuid[];
  n int := 0;
  did record;
BEGIN
  updated := 0;
  failed := 0;
  refused := 0;
  errors := '[]';
  complete := true;
  IF rules IS NULL THEN
    RETURN;
  END IF;
  statement := format($sql$
  WITH field AS MATERIALIZED (
    SELECT m.user_id, x.external_id, f.field, f.mode, f.source, f.position,
           CASE WHEN jsonb_typeof(f.source) = 'string' AND octet_length(f.source #>> '{}') <= 2000 AND f.field NOT IN ('startDate', 'managerId')
                THEN f.source ELSE v.value END AS value, v.problem
      FROM flohsync.resource_record x
      JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id
      JOIN _flohsync.app_user u ON u.id = m.user_id
     CROSS JOIN LATERAL (VALUES %s) AS f(position, field, mode, source)
      LEFT JOIN LATERAL _flohsync.profile_field(f.field, f.source, $3) v
        ON NOT (jsonb_typeof(f.source) = 'string' AND octet_length(f.source #>> '{}') <= 2000 AND f.field NOT IN ('startDate', 'managerId'))
     WHERE %s AND x.stale_since IS NULL
       AND m.match_status IN ('matched', 'manual_override')
       AND f.source IS NOT NULL AND f.source <> 'null'
  ), noted AS (
    INSERT INTO flohsync.sync_error (run_id, connector_id, resource_type, external_id, error_class, message, payload)
    SELECT $4, $6, CASE WHEN $6 IS NOT NULL THEN $2 END, f.external_id, _flohsync.error_class('mapping'), format('%%s: %%s', f.field, f.problem), _flohsync.clean(left(f.source::text, 1000))
      FROM field f WHERE f.problem IS NOT NULL AND coalesce($4::text, $6::text) IS NOT NULL
    RETURNING 1
  ), patch AS (
    SELECT e.user_id, jsonb_object_agg(e.field, coalesce(e.always, e.first)) AS patch
      FROM (SELECT f.user_id, f.field,
                   (array_agg(jsonb_build_object('mode', f.mode, 'value', f.value) ORDER BY f.external_id DESC, f.position DESC)
                      FILTER (WHERE f.mode = 'overwrite_always'))[1] AS always,
                   (array_agg(jsonb_build_object('mode', f.mode, 'value', f.value) ORDER BY f.external_id, f.position)
                      FILTER (WHERE f.mode = 'overwrite_if_empty' AND NOT _flohsync.is_blank(f.value)))[1] AS first
              FROM field f WHERE f.problem IS NULL
             GROUP BY f.user_id, f.field) e
     WHERE e.always IS NOT NULL OR e.first IS NOT NULL
     GROUP BY e.user_id
  )
  SELECT array_agg(p.user_id ORDER BY p.user_id), array_agg(p.patch ORDER BY p.user_id), (SELECT count(*) FROM field f WHERE f.problem IS NOT NULL)
    FROM patch p
  $sql$, rules, CASE WHEN _ids IS NOT NULL THEN
           -- all records of their users: which one has the last word does not depend on which one changed
           _flohsync.type_of_sql(true) || ' AND x.id IN (SELECT o.connector_resource_id FROM flohsync.connector_sync_match t
                            JOIN flohsync.connector_sync_match o ON o.user_id = t.user_id
                           WHERE t.connector_resource_id = ANY ($5) OFFSET 0)' ELSE _flohsync.type_of_sql(false) END);
  IF _flohsync.use_cached_plan(_ids) THEN
    SELECT m.users, m.patches, m.failed INTO users, patches, failed
      FROM _flohsync.map_cached(statement, _c.connector_id, _c.resource_type, _c, _run, _ids, _record.connector_id) m;
  ELSE
    PERFORM set_config('enable_nestloop', (_ids IS NOT NULL)::text, true);
    EXECUTE statement INTO users, patches, failed USING _c.connector_id, _c.resource_type::text, _c, _run, _ids, _record.connector_id;
  END IF;
  IF users IS NULL THEN
    RETURN;
  END IF;
  known := _flohsync.known_setbacks(_c, 'map');
  IF known <> '{}' THEN
    SELECT array_agg(u.id ORDER BY k.place NULLS FIRST, u.id), array_agg(u.patch ORDER BY k.place NULLS FIRST, u.id), count(k.place) INTO users, patches, n
      FROM unnest(users, patches) AS u(id, patch) LEFT JOIN unnest(known) WITH ORDINALITY AS k(id, place) ON k.id = u.id;
  END IF;
  did := _flohsync.in_halves('map', _c, _run, cardinality(users), n, users, NULL, NULL, patches);
  updated := cardinality(did.users);
  refused := cardinality(did.failed);
  errors := _flohsync.note_user_setbacks('map', _c, _run, _record, ARRAY(SELECT users[f.nr] FROM unnest(did.failed) WITH ORDINALITY AS f(nr, i) ORDER BY f.i),
                                         did.states, did.messages);
  complete := did.untried = '{}';
END
$$;
COMMENT ON FUNCTION _flohsync.map_attributes(flohsync.connector_sync_config, uuid[], bigint, flohsync.resource_record) IS
  'Applies the attribute mappings of some records (null: all) to the profiles of their users; returns the numbers of changed profiles, of invalid values and of profiles whose update failed, and whether all were tried';

-- Only the users that are given, already there, and not linked by now: who calls made them from these matches.
CREATE FUNCTION _flohsync.link_created(_matches uuid[], _users uuid[]) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  WITH linked AS (
    UPDATE flohsync.connector_sync_match m
       SET user_id = u.user_id, match_status = 'matched', match_confidence = 'exact', match_strategy = NULL,
           candidate_user_ids = NULL, updated_at = pg_catalog.now()
      FROM unnest(_matches, _users) AS u(id, user_id)
     WHERE m.id = u.id
    RETURNING m.connector_id, m.external_id, m.user_id, m.external_email, m.external_display_name
  )
  INSERT INTO flohsync.user_external_identity AS i (user_id, connector_id, external_id, external_email, external_display_name, source, verified_at)
  SELECT l.user_id, l.connector_id, l.external_id, l.external_email, l.external_display_name, 'connector_sync', pg_catalog.now() FROM linked l
  ON CONFLICT (external_id, connector_id, user_id) DO UPDATE
     SET external_email = EXCLUDED.external_email, external_display_name = EXCLUDED.external_display_name, verified_at = EXCLUDED.verified_at;
END;
COMMENT ON FUNCTION _flohsync.link_created(uuid[], uuid[]) IS 'Links matches to the users that were created from them';

-- _apply_defaults gives new users the configured profile values.
CREATE FUNCTION _flohsync.apply_defaults(_c flohsync.connector_sync_config, _users uuid[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  patch jsonb;
BEGIN
  SELECT jsonb_object_agg(d.key, jsonb_build_object('mode', 'overwrite_always', 'value', f.value)) INTO patch
    FROM jsonb_each(_c.create_user_defaults) d
   CROSS JOIN LATERAL _flohsync.profile_field(d.key, d.value, _c) f
   WHERE f.problem IS NULL AND d.value <> 'null';
  IF patch IS NOT NULL AND cardinality(_users) > 0 THEN
    PERFORM flohsync._profile_update(_users, array_fill(patch, ARRAY[cardinality(_users)]), 'connector');
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.apply_defaults(flohsync.connector_sync_config, uuid[]) IS 'Writes createUserDefaults into the profiles of users just created';

-- _create_users makes a user of each unmatched record with an e-mail address.
-- While the run is held none is made: ids that were all given out anew look
-- like that.  A record that was linked to somebody before is an operator's case.
CREATE FUNCTION _flohsync.create_users(_c flohsync.connector_sync_config, _ids uuid[], _run bigint, _held boolean,
  _record flohsync.resource_record DEFAULT NULL, OUT created bigint, OUT pending bigint, OUT refused bigint, OUT errors jsonb, OUT complete boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  matches uuid[];
  resources uuid[];
  externals text[];
  emails text[];
  names text[];
  problems text[];
  wanted_emails text[];
  wanted_names text[];
  positions int[];
  users uuid[];
  known int;
  did record;
  untried int[] := '{}';
  excused int[] := '{}';
BEGIN
  SELECT array_agg(w.id), array_agg(w.resource_id), array_agg(w.external_id), array_agg(w.email), array_agg(w.name), array_agg(w.problem)
    INTO matches, resources, externals, emails, names, problems
    FROM (SELECT m.id, x.id AS resource_id, x.external_id::text, x.email::text, x.display_name::text AS name,
                 CASE WHEN _held THEN 'the run is held' WHEN m.candidate_user_ids IS NOT NULL
                      THEN format('the record was linked to user %s before', m.candidate_user_ids -> 0 ->> 'userId') END AS problem
            FROM flohsync.connector_sync_match m
            JOIN flohsync.resource_record x ON x.id = m.connector_resource_id
           WHERE m.connector_id = _c.connector_id AND m.resource_type = _c.resource_type
             AND m.match_status IN ('unmatched', 'create_pending') AND x.stale_since IS NULL
             AND _flohsync.match_key(x.email) IS NOT NULL
             AND (_ids IS NULL OR x.id = ANY (_ids))
           ORDER BY x.external_id
             FOR UPDATE OF m) w;
  created := 0;
  pending := 0;
  refused := 0;
  errors := '[]';
  complete := true;
  IF matches IS NULL THEN
    RETURN;
  END IF;
  SELECT array_agg(e.email ORDER BY e.tried_at NULLS FIRST, e.position), array_agg(e.name ORDER BY e.tried_at NULLS FIRST, e.position),
         array_agg(e.position ORDER BY e.tried_at NULLS FIRST, e.position), count(e.tried_at)
    INTO wanted_emails, wanted_names, positions, known
    FROM (SELECT w.email, w.name, w.position::int, s.tried_at
            FROM unnest(resources, emails, names, problems) WITH ORDINALITY AS w(id, email, name, problem, position)
            LEFT JOIN _flohsync.setback s ON s.config_id = _c.id AND s.stage = 'create' AND s.resource_id = w.id
           WHERE w.problem IS NULL) e;
  IF positions IS NOT NULL THEN
    -- All of them now, in one order: who halves them would come to them in another.
    PERFORM _flohsync.lock_addresses(wanted_emails);
    did := _flohsync.in_halves('create', _c, _run, cardinality(positions), known, NULL, wanted_emails, wanted_names, NULL);
    refused := cardinality(did.failed);
    SELECT _flohsync.note_setbacks('create', _c, _run, _record, array_agg(resources[positions[f.nr]] ORDER BY f.position),
             array_agg(externals[positions[f.nr]] ORDER BY f.position), array_agg(f.state ORDER BY f.position), array_agg(f.message ORDER BY f.position))
      INTO errors FROM unnest(did.failed, did.states, did.messages) WITH ORDINALITY AS f(nr, state, message, position);
    SELECT array_agg(n.user_id ORDER BY p.position), array_agg(coalesce(p.problem, n.problem) ORDER BY p.position)
      INTO users, problems
      FROM unnest(problems) WITH ORDINALITY AS p(problem, position)
      LEFT JOIN unnest(positions) WITH ORDINALITY AS w(position, nth) ON w.position = p.position
      LEFT JOIN unnest(did.positions, did.users, did.problems) AS n("position", user_id, problem) ON n."position" = w.nth;
    untried := ARRAY(SELECT positions[f.nr] FROM unnest(did.untried) AS f(nr));
    complete := untried = '{}';
    -- These have an error of their own, in this run or another.
    excused := ARRAY(SELECT positions[f.nr] FROM unnest(did.failed || did.passed_over) AS f(nr));
  END IF;

  SELECT count(*) INTO created FROM unnest(users) u(id) WHERE u.id IS NOT NULL;
  PERFORM _flohsync.link_created(array_agg(u.match), array_agg(u.id))
     FROM unnest(matches, users) AS u(match, id) WHERE u.id IS NOT NULL;

  UPDATE flohsync.connector_sync_match m SET match_status = 'create_pending', updated_at = now()
    FROM unnest(matches, users) WITH ORDINALITY AS u(match, id, position)
   WHERE u.id IS NULL AND m.id = u.match AND m.match_status <> 'create_pending' AND u.position <> ALL (untried);
  IF NOT _held THEN
    INSERT INTO flohsync.sync_error (run_id, connector_id, resource_type, external_id, error_class, message, payload)
    SELECT _run, _record.connector_id, _record.resource_type, f.external_id, _flohsync.error_class('create_user'),
           coalesce(f.problem, 'no user was created'), jsonb_build_object('email', f.email)::text
      FROM unnest(externals, emails, users, problems) WITH ORDINALITY AS f(external_id, email, user_id, problem, position)
     WHERE f.user_id IS NULL AND (_run IS NOT NULL OR _record.id IS NOT NULL) AND f.position <> ALL (untried || excused);
  END IF;
  pending := cardinality(matches) - created;
END
$$;
COMMENT ON FUNCTION _flohsync.create_users(flohsync.connector_sync_config, uuid[], bigint, boolean, flohsync.resource_record) IS
  'Creates users from unmatched records with an e-mail address; those that fail become create_pending, with the reason in sync_error; complete: all were tried';

-- A user leaves when all of their records, here and elsewhere, are stale, and
-- one of them is of this configuration.  It is decided once for an absence of a
-- record: a user who is restored meanwhile stays.
CREATE FUNCTION _flohsync.users_to_deactivate(_c flohsync.connector_sync_config, _ids uuid[]) RETURNS SETOF uuid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT DISTINCT u.id
    FROM flohsync.resource_record x
    JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id AND m.match_status IN ('matched', 'manual_override')
    JOIN _flohsync.app_user u ON u.id = m.user_id
   WHERE x.connector_id = (_c).connector_id AND x.resource_type = (_c).resource_type AND x.stale_since IS NOT NULL
     AND coalesce(u.active, true)
     -- departure_open(), for as many rows as it takes
     AND coalesce((SELECT d.settled_at < x.stale_since FROM _flohsync.departure d WHERE d.resource_id = x.id ORDER BY d.seq DESC LIMIT 1), true)
     AND (_ids IS NULL OR x.id = ANY (_ids))
     AND NOT EXISTS (SELECT FROM flohsync.connector_sync_match o
                       JOIN flohsync.resource_record y ON y.id = o.connector_resource_id
                      WHERE o.user_id = u.id AND o.match_status IN ('matched', 'manual_override') AND y.stale_since IS NULL);
END;
COMMENT ON FUNCTION _flohsync.users_to_deactivate(flohsync.connector_sync_config, uuid[]) IS
  'Active users whose records are all stale, one of the given ones (null: any of the configuration) among them';

CREATE FUNCTION _flohsync.requeue_in_other_configs(_c flohsync.connector_sync_config, _ids uuid[]) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  -- A user who leaves here may have been kept by another configuration because of this one.
  SELECT _flohsync.requeue_stale((
    SELECT pg_catalog.array_agg(DISTINCT u.id)
      FROM flohsync.resource_record x
      JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id AND m.match_status IN ('matched', 'manual_override')
      JOIN _flohsync.app_user u ON u.id = m.user_id
     WHERE x.connector_id = (_c).connector_id AND x.resource_type = (_c).resource_type AND x.stale_since IS NOT NULL
       AND (_ids IS NULL OR x.id = ANY (_ids))), (_c).id);
END;
COMMENT ON FUNCTION _flohsync.requeue_in_other_configs(flohsync.connector_sync_config, uuid[]) IS
  'Queues the stale records of users whose record here became stale for the other configurations';

CREATE FUNCTION _flohsync.settle_departures(_users uuid[]) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT _flohsync.note_departures(ARRAY(
    SELECT DISTINCT x.id FROM flohsync.connector_sync_match m JOIN flohsync.resource_record x ON x.id = m.connector_resource_id
     WHERE m.user_id = ANY (_users) AND m.match_status IN ('matched', 'manual_override') AND x.stale_since IS NOT NULL), pg_catalog.clock_timestamp());
END;
COMMENT ON FUNCTION _flohsync.settle_departures(uuid[]) IS 'Records that the deactivation because of the stale records of some users has been decided';

CREATE FUNCTION _flohsync.deactivate(_c flohsync.connector_sync_config, _ids uuid[], _run bigint, _approved boolean,
  OUT deactivated bigint, OUT message text, OUT refused bigint, OUT errors jsonb, OUT complete boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  known uuid[] := _flohsync.known_setbacks(_c, 'deactivate');
  users uuid[] := ARRAY(SELECT l.id FROM _flohsync.users_to_deactivate(_c, _ids) l(id) LEFT JOIN unnest(known) WITH ORDINALITY AS k(id, place) ON k.id = l.id
                         ORDER BY k.place NULLS FIRST, l.id);
  max_fraction numeric := (_c.safeguards ->> 'maxDeactivateFraction')::numeric;
  min_records numeric := coalesce((_c.safeguards ->> 'minRecords')::numeric, 0);
  -- Those that failed before were let through once.
  n bigint := (SELECT count(*) FROM unnest(users) u(id) WHERE u.id <> ALL (known));
  active bigint;
  did record;
BEGIN
  deactivated := 0;
  refused := 0;
  errors := '[]';
  complete := true;
  IF users = '{}' THEN
    RETURN;
  END IF;
  IF n > min_records AND max_fraction IS NOT NULL AND NOT _approved THEN
    SELECT count(DISTINCT u.id) INTO active
      FROM flohsync.connector_sync_match m
      JOIN _flohsync.app_user u ON u.id = m.user_id
     WHERE m.connector_id = _c.connector_id AND m.resource_type = _c.resource_type
       AND m.match_status IN ('matched', 'manual_override') AND coalesce(u.active, true);
    IF n > max_fraction * active THEN
      message := format('would deactivate %s of %s active users (%s %%), more than the safeguard of %s %% allows',
                        n, active, round(100.0 * n / active, 1), round(100 * max_fraction, 1));
      RETURN;
    END IF;
  END IF;
  did := _flohsync.in_halves('deactivate', _c, _run, cardinality(users), cardinality(users) - n::int, users, NULL, NULL, NULL);
  deactivated := cardinality(did.users);
  refused := cardinality(did.failed);
  errors := _flohsync.note_user_setbacks('deactivate', _c, _run, NULL, ARRAY(SELECT users[f.nr] FROM unnest(did.failed) WITH ORDINALITY AS f(nr, i) ORDER BY f.i),
                                         did.states, did.messages);
  complete := did.untried = '{}';
  PERFORM _flohsync.settle_departures(CASE WHEN complete AND refused = 0 AND did.passed_over = '{}' THEN users ELSE ARRAY(
    SELECT u.id FROM unnest(users) WITH ORDINALITY AS u(id, nr) WHERE u.nr <> ALL (did.failed || did.untried || did.passed_over)) END);
END
$$;
COMMENT ON FUNCTION _flohsync.deactivate(flohsync.connector_sync_config, uuid[], bigint, boolean) IS
  'Deactivates the users without active records, unless they are more than the safeguard allows, which the message then says';

-- Each probe by its own index and the scope afterwards: without statistics, as
-- right after a first load, the planner takes the scope for the better index.
CREATE FUNCTION _flohsync.reached_by_users(_c flohsync.connector_sync_config, _since xid8, _but xid8) RETURNS TABLE (id uuid, user_id uuid)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
BEGIN ATOMIC
  SELECT m.id, u.user_id
    FROM _flohsync.user_change u
   CROSS JOIN LATERAL (
         SELECT x.connector_resource_id AS id, x.connector_id, x.resource_type
           FROM flohsync.connector_sync_match x WHERE x.user_id = u.user_id OFFSET 0) m
   WHERE u.xid >= _since AND u.xid IS DISTINCT FROM _but AND m.connector_id = (_c).connector_id AND m.resource_type = (_c).resource_type
  UNION ALL
  SELECT m.id, u.user_id
    FROM _flohsync.user_change u
   CROSS JOIN LATERAL (
         SELECT x.connector_resource_id AS id, x.connector_id, x.resource_type
           FROM flohsync.connector_sync_match x WHERE _flohsync.match_key(x.external_email) COLLATE "C" = u.email_key OFFSET 0) m
   WHERE u.xid >= _since AND u.xid IS DISTINCT FROM _but AND m.connector_id = (_c).connector_id AND m.resource_type = (_c).resource_type
  UNION ALL
  SELECT x.id, u.user_id
    FROM _flohsync.user_change u
    JOIN flohsync.resource_record x ON x.external_id = u.sub
   WHERE 'external_id' = ANY (_flohsync.strategies(_c)) AND u.xid >= _since AND u.xid IS DISTINCT FROM _but
     AND x.connector_id = (_c).connector_id AND x.resource_type = (_c).resource_type
  UNION ALL
  SELECT x.id, u.user_id
    FROM _flohsync.user_change u
    JOIN flohsync.resource_record x ON x.external_id = u.upstream_id
   WHERE 'upstream_identity' = ANY (_flohsync.strategies(_c)) AND u.xid >= _since AND u.xid IS DISTINCT FROM _but
     AND x.connector_id = (_c).connector_id AND x.resource_type = (_c).resource_type
  UNION ALL
  -- those that wait because they once belonged to the user
  SELECT m.connector_resource_id, u.user_id
    FROM flohsync.connector_sync_match m
    JOIN _flohsync.user_change u ON u.user_id::text = m.candidate_user_ids -> 0 ->> 'userId'
   WHERE m.connector_id = (_c).connector_id AND m.resource_type = (_c).resource_type
     AND m.match_status IN ('unmatched', 'create_pending') AND m.candidate_user_ids IS NOT NULL
     AND u.xid >= _since AND u.xid IS DISTINCT FROM _but;
END;
COMMENT ON FUNCTION _flohsync.reached_by_users(flohsync.connector_sync_config, xid8, xid8) IS
  'Records of a configuration that match, matched or may match users changed since a transaction, except by one transaction';

-- _pending_records collects the records that post-sync has to process.  The page rows are
-- few: only those not dealt with have something in "changed".
CREATE FUNCTION _flohsync.pending_records(_c flohsync.connector_sync_config, _p _flohsync.match_progress,
  OUT ids uuid[], OUT by_record uuid[], OUT queued uuid[], OUT seqs bigint[], OUT setbacks uuid[])
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  SELECT coalesce(array_agg(r.resource_id), '{}'), coalesce(array_agg(r.seq), '{}') INTO queued, seqs FROM _flohsync.record_change r
   WHERE r.connector_id = _c.connector_id AND r.resource_type = _c.resource_type;
  setbacks := ARRAY(SELECT s.resource_id FROM _flohsync.setback s WHERE s.config_id = _c.id
                     ORDER BY s.tried_at LIMIT 100);
  IF _p.config_id IS NULL THEN
    RETURN;
  END IF;
  SELECT array_agg(d.id) INTO by_record
    FROM (SELECT e.id FROM flohsync.sync_run_page p JOIN flohsync.sync_run r ON r.id = p.run_id CROSS JOIN LATERAL unnest(p.changed) e(id)
           WHERE p.changed IS NOT NULL AND r.connector_id = _c.connector_id AND r.resource_type = _c.resource_type
          UNION
          SELECT unnest(queued || setbacks)) d;
  SELECT array_agg(d.id) INTO ids
    FROM (SELECT unnest(by_record) UNION SELECT u.id FROM _flohsync.reached_by_users(_c, _p.users_seen, _p.own_xid) u) d(id);
END
$$;
COMMENT ON FUNCTION _flohsync.pending_records(flohsync.connector_sync_config, _flohsync.match_progress) IS
  'Records that post-sync has to process (null when _p is: all), those of them that changed themselves, the rows of record_change read for that, and the failed rows to retry';

CREATE FUNCTION _flohsync.stage_failed(_run bigint, _stage text, _state text, _message text, _attempt int DEFAULT 3,
  _record flohsync.resource_record DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  _message := _flohsync.clean(_message);
  -- Of a deadlock, what the transaction holds already may be part: a run does it again as a whole.
  IF _run IS NOT NULL AND _state = '40P01' THEN
    RAISE deadlock_detected USING MESSAGE = _message;
  END IF;
  -- A lock, deadlock or deletion of another session: worth a retry.
  IF _attempt < 3 AND _state IN ('40P01', '40001', '55P03', '23503', '23505') THEN
    RETURN '[]';
  END IF;
  INSERT INTO flohsync.sync_error (run_id, connector_id, resource_type, external_id, error_class, message)
  VALUES (_run, _record.connector_id, _record.resource_type, _record.external_id, _flohsync.error_class('post_sync'),
          format('%s: %s', _stage, _message));
  RETURN jsonb_build_array(jsonb_build_object('stage', _stage, 'sqlstate', _state, 'message', _message));
END
$$;
COMMENT ON FUNCTION _flohsync.stage_failed(bigint, text, text, text, int, flohsync.resource_record) IS
  'Records the failure of a stage of post-sync, of a run or (null) of a webhook about a record, and returns it; an empty list when it should be retried; re-raises 40P01 for a run';

-- _process_users does what is configured about the users of some records.  Each stage
-- is a subtransaction of its own, with three attempts.
CREATE FUNCTION _flohsync.process_users(_c flohsync.connector_sync_config, _ids uuid[], INOUT touched uuid[], _run bigint, _held boolean,
  _deactivating boolean, _approved boolean, _widen boolean, _record flohsync.resource_record,
  OUT report jsonb, OUT errors jsonb, OUT broken boolean, OUT held boolean, OUT message text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _stage text;
  _failed jsonb;
  _refused bigint := 0;
  _done boolean;
  back record;
  did record;
BEGIN
  report := '{}';
  errors := '[]';
  broken := false;
  held := false;
  FOREACH _stage IN ARRAY ARRAY['match', 'create', 'deactivate', 'map'] LOOP
    PERFORM _flohsync.stage(CASE _stage WHEN 'match' THEN 'matching' WHEN 'create' THEN 'creating' WHEN 'map' THEN 'mapping' ELSE 'deactivating' END);
    FOR _attempt IN 1 .. 3 LOOP
      BEGIN
        _done := true;
        CASE
          WHEN _stage = 'match' THEN
            back := _flohsync.reactivate(_c, touched, _run, _record);
            report := report || jsonb_build_object('matchesChanged', _flohsync.match(_c, _ids, back.records, back.users),
                                                   'usersReactivated', back.reactivated);
            -- Whatever an application's users did shows in the matches that it changed.
            IF _widen THEN
              touched := ARRAY(SELECT unnest(touched)
                               UNION SELECT m.connector_resource_id FROM flohsync.connector_sync_match m
                                      WHERE m.connector_id = _c.connector_id AND m.resource_type = _c.resource_type
                                        AND (m.updated_at = now() OR m.match_status = 'create_pending'));
            END IF;
            SELECT back.refused, back.errors, true AS complete INTO did;
          WHEN _stage = 'create' AND _c.create_users THEN
            did := _flohsync.create_users(_c, touched, _run, _held, _record);
            report := report || jsonb_build_object('usersCreated', did.created, 'createPending', did.pending);
          WHEN _stage = 'deactivate' THEN
            IF _deactivating THEN
              did := _flohsync.deactivate(_c, touched, _run, _approved);
            END IF;
            IF _run IS NOT NULL THEN
              PERFORM _flohsync.requeue_in_other_configs(_c, touched);
            END IF;
            _done := _deactivating;
            IF _deactivating THEN
              report := report || jsonb_build_object('usersDeactivated', did.deactivated);
              held := did.message IS NOT NULL;
              message := did.message;
            END IF;
          WHEN _stage = 'map' AND _c.attribute_mappings IS NOT NULL THEN
            did := _flohsync.map_attributes(_c, touched, _run, _record);
            report := report || jsonb_build_object('profilesUpdated', did.updated, 'valuesRefused', did.failed);
          ELSE
            _done := false;
        END CASE;
        IF _done THEN
          errors := errors || did.errors;
          _refused := _refused + did.refused;
          IF NOT did.complete THEN
            errors := errors || _flohsync.stage_failed(_run, _stage, '54000', 'too many rows failed: the others wait for the next run', 3, _record);
            broken := true;
          END IF;
        END IF;
        EXIT;
      EXCEPTION WHEN OTHERS THEN
        _failed := _flohsync.stage_failed(_run, _stage, SQLSTATE, SQLERRM, _attempt, _record);
        errors := errors || _failed;
        broken := broken OR _failed <> '[]';
        EXIT WHEN _failed <> '[]';
      END;
    END LOOP;
    -- The other stages lean on the matches.
    EXIT WHEN _stage = 'match' AND broken;
  END LOOP;
  IF _refused > 0 THEN
    report := report || jsonb_build_object('rowsRefused', _refused);
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.process_users(flohsync.connector_sync_config, uuid[], uuid[], bigint, boolean, boolean, boolean, boolean, flohsync.resource_record) IS
  'Matches the records _ids to users and runs the other stages for "touched" (null: all), on behalf of a run or (null) of a webhook about one record: returns what was done, what failed (broken: a complete stage), and the message of the deactivation safeguard';

CREATE FUNCTION _flohsync.post_sync(_run bigint, _held boolean, OUT held boolean, OUT message text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r flohsync.sync_run;
  c flohsync.connector_sync_config := _flohsync.keep_config(_run);
  p _flohsync.match_progress;
  horizon xid8;
  watched boolean := _flohsync.users_are_watched();
  todo record;
  ids uuid[];  -- records whose user is looked for; null: all
  touched uuid[];  -- records that the other stages process; null: all
  did record;
  users boolean;
  report jsonb := '{}';
  errors jsonb := '[]';
  broken boolean := false;  -- a stage could not be done at all: everything is to be done again
  failed jsonb := '[]';
  told record;
BEGIN
  held := false;
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  IF c.id IS NULL THEN
    RETURN;
  END IF;
  PERFORM _flohsync.lock_matching(c);
  PERFORM _flohsync.read_user_changes();
  users := _flohsync.matches_users(c);
  horizon := pg_snapshot_xmin(pg_current_snapshot());
  SELECT * INTO p FROM _flohsync.match_progress x WHERE x.config_id = c.id AND x.rules = _flohsync.people_rules(c);
  IF NOT users OR p.users_seen > pg_snapshot_xmax(pg_current_snapshot()) THEN
    p := NULL;
  END IF;
  todo := _flohsync.pending_records(c, p);
  touched := CASE WHEN p.config_id IS NOT NULL THEN coalesce(todo.ids, '{}') END;
  ids := CASE WHEN watched THEN touched END;
  IF users AND (ids IS NULL OR ids <> '{}') THEN
    -- Who comes to a record that went before does not leave by that.
    IF c.deactivate_users AND cardinality(touched) > coalesce(cardinality(todo.by_record), 0) THEN
      PERFORM _flohsync.note_departures(ARRAY(
        SELECT x.id FROM flohsync.resource_record x
         WHERE x.id = ANY (touched) AND x.id <> ALL (coalesce(todo.by_record, '{}')) AND x.stale_since IS NOT NULL
           AND _flohsync.departure_open(x.id, x.stale_since)), clock_timestamp());
    END IF;
    did := _flohsync.process_users(c, ids, touched, _run, _held, c.deactivate_users AND NOT _held, r.status = 'held',
                            NOT watched AND p.config_id IS NOT NULL, NULL);
    touched := did.touched;
    report := did.report;
    errors := did.errors;
    broken := did.broken;
    held := did.held;
    message := did.message;
  END IF;

  IF _flohsync.triggers_per_record(c) THEN
    FOR _attempt IN 1 .. 3 LOOP
      BEGIN
        told := _flohsync.trigger_per_record(c, _run, todo.seqs, todo.setbacks);
        EXIT;
      EXCEPTION WHEN OTHERS THEN
        failed := _flohsync.stage_failed(_run, 'workflow', SQLSTATE, SQLERRM, _attempt);
        EXIT WHEN failed <> '[]';
      END;
    END LOOP;
    IF failed <> '[]' THEN
      -- The workflow is told of these changes after the next pass.
      errors := errors || failed;
      broken := true;
      PERFORM _flohsync.keep_page_changes(y.id)
         FROM (SELECT DISTINCT x.id FROM flohsync.sync_run x JOIN flohsync.sync_run_page g ON g.run_id = x.id AND g.changed IS NOT NULL
                WHERE x.connector_id = c.connector_id AND x.resource_type = c.resource_type ORDER BY x.id) y;
      todo.seqs := ARRAY(SELECT q.seq FROM _flohsync.record_change q WHERE q.seq = ANY (todo.seqs) AND q.change = 'recheck');
    ELSE
      errors := errors || told.errors;
      report := report || CASE WHEN told.jobs > 0 THEN jsonb_build_object('workflowJobs', told.jobs) ELSE '{}' END
                       || CASE WHEN told.refused > 0 THEN jsonb_build_object('rowsRefused', told.refused + coalesce((report ->> 'rowsRefused')::bigint, 0)) ELSE '{}' END;
    END IF;
  END IF;

  -- What has been dealt with is not needed any more, but for what waits for a decision.
  UPDATE flohsync.sync_run_page x SET changed = NULL
    FROM flohsync.sync_run y
   WHERE x.changed IS NOT NULL AND y.id = x.run_id AND y.connector_id = c.connector_id AND y.resource_type = c.resource_type;
  PERFORM _flohsync.forget_changes(todo.seqs);
  IF NOT broken THEN
    -- What was tried again and did not fail again.
    DELETE FROM _flohsync.setback s WHERE s.config_id = c.id AND s.resource_id = ANY (todo.setbacks) AND s.tried_at < now();
  END IF;
  PERFORM _flohsync.forget_departures(ARRAY(
    SELECT x.id FROM flohsync.resource_record x
     WHERE x.id = ANY (todo.by_record) AND x.stale_since IS NULL AND EXISTS (SELECT FROM _flohsync.departure d WHERE d.resource_id = x.id)));
  IF users AND (held OR _held) THEN
    PERFORM _flohsync.note_changes(c.connector_id, c.resource_type, ARRAY(
      SELECT m.connector_resource_id FROM _flohsync.users_to_deactivate(c, touched) l(id)
        JOIN flohsync.connector_sync_match m ON m.user_id = l.id AND m.connector_id = c.connector_id AND m.resource_type = c.resource_type
       WHERE c.deactivate_users
      UNION
      SELECT m.connector_resource_id FROM flohsync.connector_sync_match m
       WHERE _held AND m.connector_id = c.connector_id AND m.resource_type = c.resource_type AND m.match_status = 'create_pending'
         AND (touched IS NULL OR m.connector_resource_id = ANY (touched))), 'recheck');
  END IF;
  IF errors <> '[]' THEN
    report := report || jsonb_build_object('errors', errors);
  END IF;
  IF broken THEN
    -- All of it once more, next time.
    PERFORM _flohsync.note_changes(c.connector_id, c.resource_type, touched, 'recheck');
  END IF;
  IF broken AND touched IS NULL THEN
    DELETE FROM _flohsync.match_progress x WHERE x.config_id = c.id;
  ELSIF users AND (p.config_id IS NULL OR todo.ids IS NOT NULL OR EXISTS (SELECT FROM _flohsync.user_change u WHERE u.xid >= p.users_seen)) THEN
    -- If the settings are changed meanwhile, the new ones are others than these.
    INSERT INTO _flohsync.match_progress AS x (config_id, rules, users_seen, own_xid)
    VALUES (c.id, _flohsync.people_rules(c), horizon, CASE WHEN r.status = 'running' THEN pg_current_xact_id_if_assigned() END)
    ON CONFLICT (config_id) DO UPDATE SET rules = EXCLUDED.rules, users_seen = EXCLUDED.users_seen, own_xid = EXCLUDED.own_xid;
    -- The users that this changed are processed, except for other records that could be theirs.
    IF r.status = 'running' AND EXISTS (SELECT FROM _flohsync.user_change u WHERE u.xid = pg_current_xact_id_if_assigned()) THEN
      PERFORM _flohsync.note_changes(c.connector_id, c.resource_type, ARRAY(
        SELECT DISTINCT u.id FROM _flohsync.reached_by_users(c, pg_current_xact_id_if_assigned(), NULL) u
          LEFT JOIN flohsync.connector_sync_match m ON m.connector_resource_id = u.id
         WHERE m.user_id IS DISTINCT FROM u.user_id AND coalesce(m.match_status, '') NOT IN ('manual_override', 'skipped')), 'recheck');
    END IF;
    -- The transaction of approve_run() may stay open: every other post-sync would wait for its end.
    IF r.status = 'running' THEN
      PERFORM _flohsync.forget_user_changes();
    END IF;
  END IF;
  IF report ? 'matchesChanged' THEN
    report := report || jsonb_build_object('matches', flohsync.match_stats(c.connector_id::text, c.resource_type) - 'resourceType');
  END IF;
  IF report <> '{}' THEN
    -- An approved run has been here before.
    UPDATE flohsync.sync_run x
       SET post_sync = report || _flohsync.add_counters(_flohsync.totals_of(coalesce(x.post_sync, '{}')), _flohsync.totals_of(report))
     WHERE x.id = _run;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.post_sync(bigint, boolean) IS
  'Post-sync processing of a run (_held: held by the staling safeguard); returns held when the deactivation safeguard holds it';

CREATE FUNCTION _flohsync.post_sync_failed(_run bigint, _state text, _message text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  DELETE FROM _flohsync.match_progress p
   USING flohsync.sync_run r JOIN flohsync.connector_sync_config c ON c.connector_id = r.connector_id AND c.resource_type = r.resource_type
   WHERE r.id = _run AND p.config_id = c.id;
  INSERT INTO flohsync.sync_error (run_id, error_class, message) VALUES (_run, _flohsync.error_class('post_sync'), _message);
  UPDATE flohsync.sync_run x
     SET post_sync = jsonb_build_object('errors', jsonb_build_array(jsonb_build_object('stage', 'post_sync', 'sqlstate', _state, 'message', _message)))
   WHERE x.id = _run;
END
$$;
COMMENT ON FUNCTION _flohsync.post_sync_failed(bigint, text, text) IS 'Records that post-sync failed completely, so that the next one processes everything';
