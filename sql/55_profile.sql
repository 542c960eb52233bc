-- Profiles: which values of records become which fields.

CREATE FUNCTION _flohsync.profile_field(_field text, _value jsonb, _c flohsync.connector_sync_config, OUT value jsonb,
                                        OUT problem text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  t text := _value #>> '{}';
  u uuid;
BEGIN
  IF octet_length(_value::text) > 4096 THEN
    problem := 'the value is larger than 4096 bytes';
  ELSIF _field NOT IN ('title', 'department', 'phoneNumber', 'location', 'employeeId', 'costCenter', 'startDate',
                       'managerId') THEN
    value := _value;
  ELSIF jsonb_typeof(_value) IN ('object', 'array') THEN
    problem := format('a %s is not a string', jsonb_typeof(_value));
  ELSIF _field = 'startDate' AND t ~ '\S' THEN
    IF t ~ '^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])([T ].*)?$' AND t !~ '^0000'
       AND extract(month FROM make_date(left(t, 4)::int, substr(t, 6, 2)::int, 1) + (substr(t, 9, 2)::int - 1))
         = substr(t, 6, 2)::int THEN
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

CREATE FUNCTION _flohsync.as_worker_profile_field(_field text, _value jsonb, _c flohsync.connector_sync_config,
                                                  OUT value jsonb, OUT problem text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_as_worker';
COMMENT ON FUNCTION _flohsync.as_worker_profile_field(text, jsonb, flohsync.connector_sync_config) IS
  'Like profile_field(), run as the workers'' role, since users may be those of an application';

CREATE FUNCTION _flohsync.map_sql(_c flohsync.connector_sync_config) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN string_agg(format('(%s, %L, %L, %s)', r.position, r.rule ->> 'targetField',
           coalesce(r.rule ->> 'writeMode', 'overwrite_if_empty'), _flohsync.source_sql(r.rule ->> 'sourcePath')), ', '
             ORDER BY r.position)
    FROM jsonb_array_elements(_c.attribute_mappings) WITH ORDINALITY AS r(rule, position)
   WHERE coalesce((r.rule ->> 'enabled')::boolean, true) AND coalesce(r.rule ->> 'transform', '') = ''
     AND coalesce(r.rule ->> 'writeMode', 'overwrite_if_empty') <> 'never_overwrite';
END
$$;
COMMENT ON FUNCTION _flohsync.map_sql(flohsync.connector_sync_config) IS
  'SQL for the attribute mappings of the record x, as rows (position, field, mode, value); null '
  'when no rule writes anything';

CREATE FUNCTION _flohsync.map_cached(_sql text, _connector uuid, _type text, _c flohsync.connector_sync_config,
                                     _run bigint, _ids uuid[],
  _error_connector uuid, OUT users uuid[], OUT patches jsonb[], OUT failed bigint)
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'flohsync_execute_cached_plan';
COMMENT ON FUNCTION _flohsync.map_cached(text, uuid, text, flohsync.connector_sync_config, bigint, uuid[], uuid) IS
  'Runs the statement of map_attributes() with a cached plan, for a few records, with users in floh_user';

-- Rules for one field act one after the other, which comes to: the last one that
-- always writes, else the first one that has something for an empty field.
CREATE FUNCTION _flohsync.map_attributes(_c flohsync.connector_sync_config, _ids uuid[], _run bigint,
                                         _record flohsync.resource_record DEFAULT NULL,
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
           CASE WHEN jsonb_typeof(f.source) = 'string' AND octet_length(f.source #>> '{}') <= 2000
               AND f.field NOT IN ('startDate', 'managerId')
                THEN f.source ELSE v.value END AS value, v.problem
      FROM flohsync.resource_record x
      JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id
      JOIN _flohsync.app_user u ON u.id = m.user_id
     CROSS JOIN LATERAL (VALUES %s) AS f(position, field, mode, source)
      LEFT JOIN LATERAL _flohsync.profile_field(f.field, f.source, $3) v
        ON NOT (jsonb_typeof(f.source) = 'string' AND octet_length(f.source #>> '{}') <= 2000
                AND f.field NOT IN ('startDate', 'managerId'))
     WHERE %s AND x.stale_since IS NULL
       AND m.match_status IN ('matched', 'manual_override')
       AND f.source IS NOT NULL AND f.source <> 'null'
  ), noted AS (
    INSERT INTO flohsync.sync_error (run_id, connector_id, resource_type, external_id, error_class, message, payload)
    SELECT $4, $6, CASE WHEN $6 IS NOT NULL THEN $2 END, f.external_id, _flohsync.error_class('mapping'),
      format('%%s: %%s', f.field, f.problem), _flohsync.clean(left(f.source::text, 1000))
      FROM field f WHERE f.problem IS NOT NULL AND coalesce($4::text, $6::text) IS NOT NULL
    RETURNING 1
  ), patch AS (
    SELECT e.user_id, jsonb_object_agg(e.field, coalesce(e.always, e.first)) AS patch
      FROM (SELECT f.user_id, f.field,
                   (array_agg(jsonb_build_object('mode', f.mode, 'value', f.value) ORDER BY f.external_id DESC,
                              f.position DESC)
                      FILTER (WHERE f.mode = 'overwrite_always'))[1] AS always,
                   (array_agg(jsonb_build_object('mode', f.mode, 'value', f.value) ORDER BY f.external_id, f.position)
                      FILTER (WHERE f.mode = 'overwrite_if_empty' AND NOT _flohsync.is_blank(f.value)))[1] AS first
              FROM field f WHERE f.problem IS NULL
             GROUP BY f.user_id, f.field) e
     WHERE e.always IS NOT NULL OR e.first IS NOT NULL
     GROUP BY e.user_id
  )
  SELECT array_agg(p.user_id ORDER BY p.user_id), array_agg(p.patch ORDER BY p.user_id),
    (SELECT count(*) FROM field f WHERE f.problem IS NOT NULL)
    FROM patch p
  $sql$, rules, CASE WHEN _ids IS NOT NULL THEN
           -- all records of their users: which one has the last word does not depend on which one changed
           _flohsync.type_of_sql(true)
             || ' AND x.id IN (SELECT o.connector_resource_id FROM flohsync.connector_sync_match t
                            JOIN flohsync.connector_sync_match o ON o.user_id = t.user_id
                           WHERE t.connector_resource_id = ANY ($5) OFFSET 0)' ELSE _flohsync.type_of_sql(false) END);
  IF _flohsync.use_cached_plan(_ids) THEN
    SELECT m.users, m.patches, m.failed INTO users, patches, failed
      FROM _flohsync.map_cached(statement, _c.connector_id, _c.resource_type, _c, _run, _ids, _record.connector_id) m;
  ELSE
    PERFORM set_config('enable_nestloop', (_ids IS NOT NULL)::text, true);
    EXECUTE statement INTO users, patches, failed USING _c.connector_id, _c.resource_type::text, _c, _run, _ids,
      _record.connector_id;
  END IF;
  IF users IS NULL THEN
    RETURN;
  END IF;
  known := _flohsync.known_setbacks(_c, 'map');
  IF known <> '{}' THEN
    SELECT array_agg(u.id ORDER BY k.place NULLS FIRST, u.id), array_agg(u.patch ORDER BY k.place NULLS FIRST, u.id),
      count(k.place) INTO users, patches, n
      FROM unnest(users, patches) AS u(id, patch) LEFT JOIN unnest(known) WITH ORDINALITY AS k(id, place)
        ON k.id = u.id;
  END IF;
  did := _flohsync.in_halves('map', _c, _run, cardinality(users), n, users, NULL, NULL, patches);
  updated := cardinality(did.users);
  refused := cardinality(did.failed);
  errors := _flohsync.note_user_setbacks('map', _c, _run, _record,
                                         ARRAY(SELECT users[f.nr] FROM unnest(did.failed) WITH ORDINALITY AS f(nr, i)
                                               ORDER BY f.i),
                                         did.states, did.messages);
  complete := did.untried = '{}';
END
$$;
COMMENT ON FUNCTION _flohsync.map_attributes(flohsync.connector_sync_config, uuid[], bigint,
                                             flohsync.resource_record) IS
  'Applies the attribute mappings of some records (null: all) to the profiles of their users; returns the numbers of '
  'changed profiles, of invalid values and of profiles whose update failed, and whether all were tried';
