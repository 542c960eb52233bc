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

CREATE FUNCTION _flohsync.map_rules(_c flohsync.connector_sync_config, OUT fields text[], OUT modes text[],
                                    OUT sources text)
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  SELECT array_agg(e.rule ->> 'targetField' ORDER BY e.position),
         array_agg(coalesce(e.rule ->> 'writeMode', 'overwrite_if_empty') ORDER BY e.position),
         string_agg(_flohsync.source_sql(e.rule ->> 'sourcePath'), ', ' ORDER BY e.position)
    INTO fields, modes, sources
    FROM jsonb_array_elements(_c.attribute_mappings) WITH ORDINALITY AS e(rule, position)
   WHERE coalesce((e.rule ->> 'enabled')::boolean, true) AND coalesce(e.rule ->> 'transform', '') = ''
     AND coalesce(e.rule ->> 'writeMode', 'overwrite_if_empty') <> 'never_overwrite';
END
$$;
COMMENT ON FUNCTION _flohsync.map_rules(flohsync.connector_sync_config) IS
  'The attribute mappings that write: field and mode of each, and SQL for their values in the record x; null when no '
  'rule writes anything';

-- All records of a user: which one has the last word does not depend on which one changed.
CREATE FUNCTION _flohsync.patches_sql(_c flohsync.connector_sync_config, _all boolean) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN format($sql$
  SELECT m.user_id, x.external_id::text, ARRAY[%s]::jsonb[] AS sources
    FROM %s
   WHERE %s AND x.stale_since IS NULL AND m.match_status IN ('matched', 'manual_override')
   ORDER BY m.user_id, x.external_id
  $sql$, (_flohsync.map_rules(_c)).sources,
    CASE WHEN _all THEN 'flohsync.resource_record x JOIN flohsync.connector_sync_match m '
                        'ON m.connector_resource_id = x.id JOIN _flohsync.app_user u ON u.id = m.user_id'
         ELSE 'unnest($3) AS t(id) JOIN _flohsync.app_user u ON u.id = t.id JOIN flohsync.connector_sync_match m '
              'ON m.user_id = t.id JOIN flohsync.resource_record x ON x.id = m.connector_resource_id' END,
    _flohsync.type_of_sql(NOT _all)
      || CASE WHEN _all THEN ' AND m.connector_id = $1 AND m.resource_type = $2'
                             ' AND m.user_id NOT IN (SELECT k.id FROM unnest($3) AS k(id))' ELSE '' END);
END
$$;
COMMENT ON FUNCTION _flohsync.patches_sql(flohsync.connector_sync_config, boolean) IS
  'SQL for what the attribute mappings find in the records of connector $1 and type $2, for the users $3 or (all) all '
  'but these: rows (user, external id, values in the order of the rules) in the order of the first two';

CREATE FUNCTION _flohsync.profile_map(_rows refcursor, _fields text[], _modes text[],
                                      _c flohsync.connector_sync_config, _n int,
                                      OUT users uuid[], OUT patches jsonb[], OUT problems jsonb[])
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_profile_map';
COMMENT ON FUNCTION _flohsync.profile_map(refcursor, text[], text[], flohsync.connector_sync_config, int) IS
  'Reads on in a cursor of patches_sql(), by _n users or some more: a patch of _profile_update for each, in which, of '
  'the rules for one field, the last one counts that always writes, else the first one that has something; and the '
  'values that are invalid, as [external id, message, value]; null without any';

CREATE FUNCTION _flohsync.profile_map_cached(_sql text, _connector uuid, _type text, _users uuid[], _fields text[],
                                             _modes text[], _c flohsync.connector_sync_config,
                                             OUT users uuid[], OUT patches jsonb[], OUT problems jsonb[])
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_profile_map_cached';
COMMENT ON FUNCTION _flohsync.profile_map_cached(text, uuid, text, uuid[], text[], text[],
                                                 flohsync.connector_sync_config) IS
  'Like profile_map(), for all rows of a statement of patches_sql(), with a cached plan: for a batch of users in '
  'floh_user';

-- By indexes, whatever is known of the tables.
CREATE FUNCTION _flohsync.users_of(_ids uuid[]) RETURNS uuid[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
BEGIN
  RETURN (SELECT coalesce(array_agg(DISTINCT m.user_id), '{}')
            FROM unnest(_ids) AS i(id) JOIN flohsync.connector_sync_match m ON m.connector_resource_id = i.id
           WHERE m.user_id IS NOT NULL);
END
$$;
COMMENT ON FUNCTION _flohsync.users_of(uuid[]) IS 'The users of some records, in the order of their ids';

CREATE FUNCTION _flohsync.apply_patches(_c flohsync.connector_sync_config, _run bigint,
                                        _record flohsync.resource_record, _users uuid[], _patches jsonb[],
                                        _problems jsonb[], _known boolean, INOUT done jsonb)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  too_many constant int := 1000;  -- as for in_halves()
  users uuid[] := _users;
  patches jsonb[] := _patches;
  invalid bigint;
  refused bigint;
  did record;
BEGIN
  SELECT coalesce(sum(jsonb_array_length(p.list)), 0) INTO invalid FROM unnest(_problems) AS p(list);
  IF invalid > 0 THEN
    INSERT INTO flohsync.sync_error (run_id, connector_id, resource_type, external_id, error_class, message, payload)
    SELECT _run, _record.connector_id, CASE WHEN _record.connector_id IS NOT NULL THEN _c.resource_type END,
           v.value ->> 0, _flohsync.error_class('mapping'), v.value ->> 1, _flohsync.clean(v.value ->> 2)
      FROM unnest(_problems) WITH ORDINALITY AS p(list, nr) CROSS JOIN LATERAL jsonb_array_elements(p.list) AS v(value)
     WHERE p.list IS NOT NULL AND coalesce(_run::text, _record.connector_id::text) IS NOT NULL
     ORDER BY p.nr;
  END IF;
  done := done || jsonb_build_object('failed', (done ->> 'failed')::bigint + invalid);
  IF array_position(patches, NULL) IS NOT NULL THEN
    SELECT array_agg(u.id ORDER BY u.nr), array_agg(u.patch ORDER BY u.nr) INTO users, patches
      FROM unnest(_users, _patches) WITH ORDINALITY AS u(id, patch, nr) WHERE u.patch IS NOT NULL;
  END IF;
  IF users IS NULL THEN
    RETURN;
  END IF;
  did := _flohsync.in_halves('map', _c, _run, cardinality(users), CASE WHEN _known THEN cardinality(users) ELSE 0 END,
                             users, NULL, NULL, patches, (done ->> 'updated')::bigint > 0);
  refused := (done ->> 'refused')::bigint + cardinality(did.failed);
  done := done || jsonb_build_object(
    'updated', (done ->> 'updated')::bigint + cardinality(did.users),
    'refused', refused,
    'errors', (done -> 'errors')
              || _flohsync.note_user_setbacks('map', _c, _run, _record,
                                              ARRAY(SELECT users[f.nr] FROM unnest(did.failed)
                                                    WITH ORDINALITY AS f(nr, i) ORDER BY f.i),
                                              did.states, did.messages),
    'complete', did.untried = '{}' AND (_known OR refused < too_many));
END
$$;
COMMENT ON FUNCTION _flohsync.apply_patches(flohsync.connector_sync_config, bigint, flohsync.resource_record, uuid[],
                                            jsonb[], jsonb[], boolean, jsonb) IS
  'Writes a batch of patches of users (_known: who failed before), notes the values that are invalid, and adds what it '
  'did to "done", which has what map_attributes() returns; complete: more may follow';

CREATE FUNCTION _flohsync.map_users(_c flohsync.connector_sync_config, _run bigint, _record flohsync.resource_record,
                                    _users uuid[], _known boolean, INOUT done jsonb)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  statement constant text := _flohsync.patches_sql(_c, false);
  rules constant record := _flohsync.map_rules(_c);
  listed refcursor;
  b record;
BEGIN
  IF _flohsync.users_are_watched() THEN
    b := _flohsync.profile_map_cached(statement, _c.connector_id, _c.resource_type, _users, rules.fields, rules.modes,
                                      _c);
  ELSE
    OPEN listed NO SCROLL FOR EXECUTE statement USING _c.connector_id, _c.resource_type::text, _users;
    b := _flohsync.profile_map(listed, rules.fields, rules.modes, _c, 2 * cardinality(_users));
    CLOSE listed;
  END IF;
  IF b.users IS NOT NULL THEN
    done := _flohsync.apply_patches(_c, _run, _record, b.users, b.patches, b.problems, _known, done);
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.map_users(flohsync.connector_sync_config, bigint, flohsync.resource_record, uuid[],
                                        boolean, jsonb) IS
  'Applies the attribute mappings to the profiles of a batch of users, like apply_patches()';

-- Users in batches, in the order of their ids: that is the order in which their
-- profiles are locked, and what they take in memory does not grow with their number.
-- For all users the values are read in one statement, whose joins and order go to
-- disk when they are large; by indexes, in the order of the users, each record
-- would be read from another place.  Those that failed before come last, no more
-- of them than are tried again.
CREATE FUNCTION _flohsync.map_attributes(_c flohsync.connector_sync_config, _ids uuid[], _run bigint,
                                         _record flohsync.resource_record DEFAULT NULL,
  OUT updated bigint, OUT failed bigint, OUT refused bigint, OUT errors jsonb, OUT complete boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET jit = off
SET work_mem = '8MB'
SET hash_mem_multiplier = 1
SET enable_nestloop = on
SET cursor_tuple_fraction = 1
AS $$
DECLARE
  batch constant int := 5000;
  rules constant record := _flohsync.map_rules(_c);
  known uuid[];
  former uuid[];
  listed uuid[];
  found refcursor;
  b record;
  done jsonb := '{"updated": 0, "failed": 0, "refused": 0, "errors": [], "complete": true}';
BEGIN
  IF rules.fields IS NOT NULL THEN
    known := _flohsync.known_setbacks(_c, 'map');
    IF _ids IS NULL THEN
      -- What was just loaded has no statistics yet: all must not be taken for a few.
      PERFORM set_config('enable_nestloop', 'off', true);
      OPEN found NO SCROLL FOR EXECUTE _flohsync.patches_sql(_c, true)
        USING _c.connector_id, _c.resource_type::text, known;
      PERFORM set_config('enable_nestloop', 'on', true);
      LOOP
        b := _flohsync.profile_map(found, rules.fields, rules.modes, _c, batch);
        EXIT WHEN b.users IS NULL;
        done := _flohsync.apply_patches(_c, _run, _record, b.users, b.patches, b.problems, false, done);
        EXIT WHEN NOT (done ->> 'complete')::boolean;
      END LOOP;
      CLOSE found;
    ELSE
      listed := _flohsync.users_of(_ids);
      IF known <> '{}' THEN
        former := known;
        known := ARRAY(SELECT k.id FROM unnest(former) WITH ORDINALITY k(id, place)
                        WHERE k.id IN (SELECT l.id FROM unnest(listed) l(id)) ORDER BY k.place);
        listed := ARRAY(SELECT l.id FROM unnest(listed) l(id)
                         WHERE l.id NOT IN (SELECT k.id FROM unnest(former) k(id)) ORDER BY l.id);
      END IF;
      FOR low IN 1 .. cardinality(listed) BY batch LOOP
        done := _flohsync.map_users(_c, _run, _record, listed[low:low + batch - 1], false, done);
        EXIT WHEN NOT (done ->> 'complete')::boolean;
      END LOOP;
    END IF;
    IF (done ->> 'complete')::boolean AND known <> '{}' THEN
      done := _flohsync.map_users(_c, _run, _record, known[:100], true, done);
    END IF;
  END IF;
  updated := done ->> 'updated';
  failed := done ->> 'failed';
  refused := done ->> 'refused';
  errors := done -> 'errors';
  complete := done ->> 'complete';
END
$$;
COMMENT ON FUNCTION _flohsync.map_attributes(flohsync.connector_sync_config, uuid[], bigint,
                                             flohsync.resource_record) IS
  'Applies the attribute mappings of some records (null: all) to the profiles of their users; returns the numbers of '
  'changed profiles, of invalid values and of profiles whose update failed, and whether all were tried';
