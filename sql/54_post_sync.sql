-- What follows a pass: match, create, deactivate and reactivate, map
-- attributes, trigger workflows.
--
-- _post_sync is one transaction of the run's worker, or of approve_run; each
-- stage is a subtransaction of its own, whose failure is recorded and fails
-- nothing else.  Errors that pass by themselves are raised: the worker does the
-- transaction again.

-- Users who left and whose record is back.  They come first: matching does not see them otherwise.
CREATE FUNCTION _flohsync.back_few(_sql text, _connector uuid, _type text, _ids uuid[], OUT records uuid[], OUT users uuid[])
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'flohsync_kept_statement';
COMMENT ON FUNCTION _flohsync.back_few(text, uuid, text, uuid[]) IS
  'Runs the statement of _reactivate with a plan that is kept, for a few records of users that are in floh_user';

CREATE FUNCTION _flohsync.reactivate(_c flohsync.connector_sync_config, _ids uuid[], OUT records uuid[], OUT users uuid[], OUT reactivated bigint)
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
                                  -- an id that was given to somebody else is not the same record
                                  AND _flohsync.match_key(i.external_email) IS NOT DISTINCT FROM _flohsync.match_key(x.email)
                                  AND i.source = 'connector_sync') g
           WHERE x.connector_id = $1 AND x.resource_type = $2 AND x.stale_since IS NULL%s
             AND g.user_id IS NOT NULL AND NOT EXISTS (SELECT FROM flohsync.v_user u WHERE u.id = g.user_id)
           ORDER BY x.id, g.user_id) b
  $sql$, CASE WHEN _ids IS NOT NULL THEN ' AND x.id = ANY ($3)' ELSE '' END);
  done uuid[];
BEGIN
  IF _flohsync.are_few(_ids) THEN
    SELECT b.records, b.users INTO records, users FROM _flohsync.back_few(statement, _c.connector_id, _c.resource_type, _ids) b;
  ELSE
    EXECUTE statement INTO records, users USING _c.connector_id, _c.resource_type::text, _ids;
  END IF;
  reactivated := 0;
  IF records = '{}' THEN
    RETURN;
  END IF;
  done := ARRAY(SELECT * FROM flohsync._user_reactivate(ARRAY(SELECT DISTINCT unnest(users))));
  SELECT coalesce(array_agg(b.id), '{}'), coalesce(array_agg(b.user_id), '{}'), count(DISTINCT b.user_id)
    INTO records, users, reactivated
    FROM unnest(records, users) AS b(id, user_id) JOIN unnest(done) AS d(id) ON d.id = b.user_id;
END
$$;
COMMENT ON FUNCTION _flohsync.reactivate(flohsync.connector_sync_config, uuid[]) IS
  'Reactivates users whom a sync deactivated and whose record is there again; returns those records with their users';

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
    problem := format('a %s is not a text', jsonb_typeof(_value));
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
      SELECT v.id INTO u FROM flohsync.v_user v WHERE v.id = t::uuid;
    END IF;
    IF u IS NULL THEN
      SELECT m.user_id INTO u
        FROM flohsync.resource_record x
        JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id
        JOIN flohsync.v_user v ON v.id = m.user_id
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
  'A value as a profile field takes it, or what is wrong with it';

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

CREATE FUNCTION _flohsync.map_few(_sql text, _connector uuid, _type text, _c flohsync.connector_sync_config, _run bigint, _ids uuid[],
  _error_connector uuid, OUT updated bigint, OUT failed bigint)
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'flohsync_kept_statement';
COMMENT ON FUNCTION _flohsync.map_few(text, uuid, text, flohsync.connector_sync_config, bigint, uuid[], uuid) IS
  'Runs the statement of _map_attributes with a plan that is kept, for a few records of users that are in floh_user';

-- Rules for one field act one after the other, which comes to: the last one that
-- always writes, else the first one that has something for an empty field.
CREATE FUNCTION _flohsync.map_attributes(_c flohsync.connector_sync_config, _ids uuid[], _run bigint, _record flohsync.resource_record DEFAULT NULL,
  OUT updated bigint, OUT failed bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET jit = off
SET work_mem = '64MB'
SET enable_nestloop = on
AS $$
DECLARE
  rules text := _flohsync.map_sql(_c);
  statement text;
BEGIN
  updated := 0;
  failed := 0;
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
      JOIN flohsync.v_user u ON u.id = m.user_id
     CROSS JOIN LATERAL (VALUES %s) AS f(position, field, mode, source)
      LEFT JOIN LATERAL _flohsync.profile_field(f.field, f.source, $3) v
        ON NOT (jsonb_typeof(f.source) = 'string' AND octet_length(f.source #>> '{}') <= 2000 AND f.field NOT IN ('startDate', 'managerId'))
     WHERE x.connector_id = $1 AND x.resource_type = $2 AND x.stale_since IS NULL%s
       AND m.match_status IN ('matched', 'manual_override')
       AND f.source IS NOT NULL AND f.source <> 'null'
  ), noted AS (
    INSERT INTO flohsync.sync_error (run_id, connector_id, resource_type, external_id, error_class, message, payload)
    SELECT $4, $6, CASE WHEN $6 IS NOT NULL THEN $2 END, f.external_id, 'mapping', format('%%s: %%s', f.field, f.problem), _flohsync.clean(left(f.source::text, 1000))
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
  SELECT (SELECT count(*) FROM (SELECT array_agg(p.user_id) AS users, array_agg(p.patch) AS patches FROM patch p) p
           CROSS JOIN LATERAL flohsync._profile_update(p.users, p.patches, 'connector') WHERE p.users IS NOT NULL),
         (SELECT count(*) FROM field f WHERE f.problem IS NOT NULL)
  $sql$, rules, CASE WHEN _ids IS NOT NULL THEN
           -- all records of their users: which one has the last word does not depend on which one changed
           ' AND x.id IN (SELECT o.connector_resource_id FROM flohsync.connector_sync_match t
                            JOIN flohsync.connector_sync_match o ON o.user_id = t.user_id
                           WHERE t.connector_resource_id = ANY ($5) OFFSET 0)' ELSE '' END);
  IF _flohsync.are_few(_ids) THEN
    SELECT m.updated, m.failed INTO updated, failed
      FROM _flohsync.map_few(statement, _c.connector_id, _c.resource_type, _c, _run, _ids, _record.connector_id) m;
  ELSE
    PERFORM set_config('enable_nestloop', (_ids IS NOT NULL)::text, true);
    EXECUTE statement INTO updated, failed USING _c.connector_id, _c.resource_type::text, _c, _run, _ids, _record.connector_id;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.map_attributes(flohsync.connector_sync_config, uuid[], bigint, flohsync.resource_record) IS
  'Writes what the mapping rules take from some records (null: all) into the profiles of their users; how many profiles changed, how many values could not be taken';

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
COMMENT ON FUNCTION _flohsync.link_created(uuid[], uuid[]) IS 'Links matches to the users that were made from them';

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
  _record flohsync.resource_record DEFAULT NULL, OUT created bigint, OUT pending bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  matches uuid[];
  externals text[];
  emails text[];
  names text[];
  problems text[];
  wanted_emails text[];
  wanted_names text[];
  positions int[];
  users uuid[];
BEGIN
  SELECT array_agg(w.id), array_agg(w.external_id), array_agg(w.email), array_agg(w.name), array_agg(w.problem)
    INTO matches, externals, emails, names, problems
    FROM (SELECT m.id, x.external_id::text, x.email::text, x.display_name::text AS name,
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
  IF matches IS NULL THEN
    RETURN;
  END IF;
  SELECT array_agg(e.email ORDER BY e.position), array_agg(e.name ORDER BY e.position), array_agg(e.position::int ORDER BY e.position)
    INTO wanted_emails, wanted_names, positions
    FROM unnest(emails, names, problems) WITH ORDINALITY AS e(email, name, problem, position)
   WHERE e.problem IS NULL;
  SELECT array_agg(n.user_id ORDER BY p.position), array_agg(coalesce(p.problem, n.problem) ORDER BY p.position)
    INTO users, problems
    FROM unnest(problems) WITH ORDINALITY AS p(problem, position)
    LEFT JOIN unnest(positions) WITH ORDINALITY AS w(position, nth) ON w.position = p.position
    LEFT JOIN flohsync._user_create(wanted_emails, wanted_names) AS n("position", user_id, problem) ON n."position" = w.nth;

  SELECT count(*) INTO created FROM unnest(users) u(id) WHERE u.id IS NOT NULL;
  PERFORM _flohsync.link_created(array_agg(u.match), array_agg(u.id)), _flohsync.apply_defaults(_c, array_agg(u.id))
     FROM unnest(matches, users) AS u(match, id) WHERE u.id IS NOT NULL;

  UPDATE flohsync.connector_sync_match m SET match_status = 'create_pending', updated_at = now()
    FROM unnest(matches, users) AS u(match, id)
   WHERE u.id IS NULL AND m.id = u.match AND m.match_status <> 'create_pending';
  IF NOT _held THEN
    INSERT INTO flohsync.sync_error (run_id, connector_id, resource_type, external_id, error_class, message, payload)
    SELECT _run, _record.connector_id, _record.resource_type, f.external_id, 'create_user', coalesce(f.problem, 'no user was created'), jsonb_build_object('email', f.email)::text
      FROM unnest(externals, emails, users, problems) AS f(external_id, email, user_id, problem)
     WHERE f.user_id IS NULL AND (_run IS NOT NULL OR _record.id IS NOT NULL);
  END IF;
  pending := cardinality(matches) - created;
END
$$;
COMMENT ON FUNCTION _flohsync.create_users(flohsync.connector_sync_config, uuid[], bigint, boolean, flohsync.resource_record) IS
  'Makes users of unmatched records with an e-mail address; the others of them become create_pending, each with its reason in sync_error';

-- A user leaves when all records that he has, here and elsewhere, are stale, and
-- one of them is of this configuration.  It is decided once for an absence of a
-- record: whom somebody brings back meanwhile stays.
CREATE FUNCTION _flohsync.leavers(_c flohsync.connector_sync_config, _ids uuid[]) RETURNS SETOF uuid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT DISTINCT u.id
    FROM flohsync.resource_record x
    JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id AND m.match_status IN ('matched', 'manual_override')
    JOIN flohsync.v_user u ON u.id = m.user_id
   WHERE x.connector_id = (_c).connector_id AND x.resource_type = (_c).resource_type AND x.stale_since IS NOT NULL
     AND coalesce(u.active, true) AND (x.departure_settled_at IS NULL OR x.departure_settled_at < x.stale_since)
     AND (_ids IS NULL OR x.id = ANY (_ids))
     AND NOT EXISTS (SELECT FROM flohsync.connector_sync_match o
                       JOIN flohsync.resource_record y ON y.id = o.connector_resource_id
                      WHERE o.user_id = u.id AND o.match_status IN ('matched', 'manual_override') AND y.stale_since IS NULL);
END;
COMMENT ON FUNCTION _flohsync.leavers(flohsync.connector_sync_config, uuid[]) IS
  'Active users whose records are all stale, one of the given ones (null: any of the configuration) among them';

CREATE FUNCTION _flohsync.tell_others(_c flohsync.connector_sync_config, _ids uuid[]) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  -- Who goes here may be the one whom another configuration kept for our sake.
  SELECT _flohsync.look_again((
    SELECT pg_catalog.array_agg(DISTINCT u.id)
      FROM flohsync.resource_record x
      JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id AND m.match_status IN ('matched', 'manual_override')
      JOIN flohsync.v_user u ON u.id = m.user_id
     WHERE x.connector_id = (_c).connector_id AND x.resource_type = (_c).resource_type AND x.stale_since IS NOT NULL
       AND (_ids IS NULL OR x.id = ANY (_ids))), (_c).id);
END;
COMMENT ON FUNCTION _flohsync.tell_others(flohsync.connector_sync_config, uuid[]) IS
  'Has other configurations look again at the stale records of users whose record here is stale now';

CREATE FUNCTION _flohsync.settle_departures(_users uuid[]) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  UPDATE flohsync.resource_record x SET departure_settled_at = pg_catalog.clock_timestamp()
    FROM (SELECT DISTINCT m.connector_resource_id AS id FROM flohsync.connector_sync_match m
           WHERE m.user_id = ANY (_users) AND m.match_status IN ('matched', 'manual_override')) m
   WHERE x.id = m.id AND x.stale_since IS NOT NULL;
END;
COMMENT ON FUNCTION _flohsync.settle_departures(uuid[]) IS 'Notes that it has been decided what the absence of the records of some users means';

CREATE FUNCTION _flohsync.deactivate(_c flohsync.connector_sync_config, _ids uuid[], _run bigint, _approved boolean,
  OUT deactivated bigint, OUT message text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  users uuid[] := ARRAY(SELECT * FROM _flohsync.leavers(_c, _ids));
  max_fraction numeric := (_c.safeguards ->> 'maxDeactivateFraction')::numeric;
  min_records numeric := coalesce((_c.safeguards ->> 'minRecords')::numeric, 0);
  n bigint := cardinality(users);
  active bigint;
BEGIN
  deactivated := 0;
  IF n = 0 THEN
    RETURN;
  END IF;
  IF n > min_records AND max_fraction IS NOT NULL AND NOT _approved THEN
    SELECT count(DISTINCT u.id) INTO active
      FROM flohsync.connector_sync_match m
      JOIN flohsync.v_user u ON u.id = m.user_id
     WHERE m.connector_id = _c.connector_id AND m.resource_type = _c.resource_type
       AND m.match_status IN ('matched', 'manual_override') AND coalesce(u.active, true);
    IF n > max_fraction * active THEN
      message := format('would deactivate %s of %s active users (%s %%), more than the safeguard of %s %% allows',
                        n, active, round(100.0 * n / active, 1), round(100 * max_fraction, 1));
      RETURN;
    END IF;
  END IF;
  SELECT count(*) INTO deactivated FROM flohsync._user_deactivate(users, _run);
  PERFORM _flohsync.settle_departures(users);
END
$$;
COMMENT ON FUNCTION _flohsync.deactivate(flohsync.connector_sync_config, uuid[], bigint, boolean) IS
  'Deactivates the users who left, unless that is more than the safeguard allows: then the message says so';

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
  -- those that wait because they were once his
  SELECT m.connector_resource_id, u.user_id
    FROM flohsync.connector_sync_match m
    JOIN _flohsync.user_change u ON u.user_id::text = m.candidate_user_ids -> 0 ->> 'userId'
   WHERE m.connector_id = (_c).connector_id AND m.resource_type = (_c).resource_type
     AND m.match_status IN ('unmatched', 'create_pending') AND m.candidate_user_ids IS NOT NULL
     AND u.xid >= _since AND u.xid IS DISTINCT FROM _but;
END;
COMMENT ON FUNCTION _flohsync.reached_by_users(flohsync.connector_sync_config, xid8, xid8) IS
  'Records of a configuration that users changed since a transaction, but for one transaction''s changes, belong to, belonged to or may belong to';

-- _to_do collects the records that post-sync has to look at.  The page rows are
-- few: only those not dealt with have something in "changed".
CREATE FUNCTION _flohsync.to_do(_c flohsync.connector_sync_config, _p _flohsync.match_progress,
  OUT ids uuid[], OUT by_record uuid[], OUT queued uuid[], OUT seqs bigint[])
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  SELECT coalesce(array_agg(r.resource_id), '{}'), coalesce(array_agg(r.seq), '{}') INTO queued, seqs FROM _flohsync.record_change r
   WHERE r.connector_id = _c.connector_id AND r.resource_type = _c.resource_type;
  IF _p.config_id IS NULL THEN
    RETURN;
  END IF;
  SELECT array_agg(d.id) INTO by_record
    FROM (SELECT e.id FROM flohsync.sync_run_page p JOIN flohsync.sync_run r ON r.id = p.run_id CROSS JOIN LATERAL unnest(p.changed) e(id)
           WHERE p.changed IS NOT NULL AND r.connector_id = _c.connector_id AND r.resource_type = _c.resource_type
          UNION
          SELECT unnest(queued)) d;
  SELECT array_agg(d.id) INTO ids
    FROM (SELECT unnest(by_record) UNION SELECT u.id FROM _flohsync.reached_by_users(_c, _p.users_seen, _p.own_xid) u) d(id);
END
$$;
COMMENT ON FUNCTION _flohsync.to_do(flohsync.connector_sync_config, _flohsync.match_progress) IS
  'Records that post-sync has to look at (null when _p is: all), those of them that changed themselves, and what of record_change was read for that';

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
  -- Somebody else's lock, deadlock or deletion: it may go better another time.
  IF _attempt < 3 AND _state IN ('40P01', '40001', '55P03', '23503', '23505') THEN
    RETURN '[]';
  END IF;
  INSERT INTO flohsync.sync_error (run_id, connector_id, resource_type, external_id, error_class, message)
  VALUES (_run, _record.connector_id, _record.resource_type, _record.external_id, 'post_sync', format('%s: %s', _stage, _message));
  RETURN jsonb_build_array(jsonb_build_object('stage', _stage, 'sqlstate', _state, 'message', _message));
END
$$;
COMMENT ON FUNCTION _flohsync.stage_failed(bigint, text, text, text, int, flohsync.resource_record) IS
  'Records the failure of a stage of post-sync, of a run or (null) of a webhook about a record, and returns it; an empty list when it is worth another attempt; raises 40P01 again for a run';

-- _people does what is configured about the users of some records.  Each stage
-- is a subtransaction of its own, with three attempts.
CREATE FUNCTION _flohsync.people(_c flohsync.connector_sync_config, _ids uuid[], INOUT touched uuid[], _run bigint, _held boolean,
  _deactivating boolean, _approved boolean, _widen boolean, _record flohsync.resource_record,
  OUT report jsonb, OUT errors jsonb, OUT held boolean, OUT message text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _stage text;
  _failed jsonb;
  back record;
  did record;
BEGIN
  report := '{}';
  errors := '[]';
  held := false;
  FOREACH _stage IN ARRAY ARRAY['match', 'create', 'deactivate', 'map'] LOOP
    FOR _attempt IN 1 .. 3 LOOP
      BEGIN
        CASE
          WHEN _stage = 'match' THEN
            back := _flohsync.reactivate(_c, touched);
            report := report || jsonb_build_object('matchesChanged', _flohsync.match(_c, _ids, back.records, back.users),
                                                   'usersReactivated', back.reactivated);
            -- Whatever an application's users did shows in the matches that it changed.
            IF _widen THEN
              touched := ARRAY(SELECT unnest(touched)
                               UNION SELECT m.connector_resource_id FROM flohsync.connector_sync_match m
                                      WHERE m.connector_id = _c.connector_id AND m.resource_type = _c.resource_type
                                        AND (m.updated_at = now() OR m.match_status = 'create_pending'));
            END IF;
          WHEN _stage = 'create' AND _c.create_users THEN
            did := _flohsync.create_users(_c, touched, _run, _held, _record);
            report := report || jsonb_build_object('usersCreated', did.created, 'createPending', did.pending);
          WHEN _stage = 'deactivate' THEN
            IF _deactivating THEN
              did := _flohsync.deactivate(_c, touched, _run, _approved);
            END IF;
            IF _run IS NOT NULL THEN
              PERFORM _flohsync.tell_others(_c, touched);
            END IF;
            IF _deactivating THEN
              report := report || jsonb_build_object('usersDeactivated', did.deactivated);
              held := did.message IS NOT NULL;
              message := did.message;
            END IF;
          WHEN _stage = 'map' AND _c.attribute_mappings IS NOT NULL THEN
            did := _flohsync.map_attributes(_c, touched, _run, _record);
            report := report || jsonb_build_object('profilesUpdated', did.updated, 'valuesRefused', did.failed);
          ELSE
        END CASE;
        EXIT;
      EXCEPTION WHEN OTHERS THEN
        _failed := _flohsync.stage_failed(_run, _stage, SQLSTATE, SQLERRM, _attempt, _record);
        errors := errors || _failed;
        EXIT WHEN _failed <> '[]';
      END;
    END LOOP;
    -- The other stages lean on the matches.
    EXIT WHEN _stage = 'match' AND errors <> '[]';
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.people(flohsync.connector_sync_config, uuid[], uuid[], bigint, boolean, boolean, boolean, boolean, flohsync.resource_record) IS
  'Matches the records _ids to users and has the other stages look at "touched" (null: all), on behalf of a run or (null) of a webhook about one record: what was done, what failed, and what the safeguard of deactivating says';

CREATE FUNCTION _flohsync.post_sync(_run bigint, _held boolean, OUT held boolean, OUT message text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r flohsync.sync_run;
  c flohsync.connector_sync_config;
  p _flohsync.match_progress;
  horizon xid8;
  watched boolean := _flohsync.users_are_watched();
  todo record;
  ids uuid[];  -- records whose user is looked for; null: all
  touched uuid[];  -- records that the other stages look at; null: all
  did record;
  users boolean;
  report jsonb := '{}';
  errors jsonb := '[]';
  failed jsonb := '[]';
  jobs bigint := 0;
BEGIN
  held := false;
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  SELECT * INTO c FROM flohsync.connector_sync_config x WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  PERFORM _flohsync.lock_matching(c);
  PERFORM _flohsync.read_user_changes();
  users := _flohsync.is_user_type(c);
  horizon := pg_snapshot_xmin(pg_current_snapshot());
  SELECT * INTO p FROM _flohsync.match_progress x WHERE x.config_id = c.id;
  IF NOT users OR p.users_seen > pg_snapshot_xmax(pg_current_snapshot()) THEN
    p := NULL;
  END IF;
  todo := _flohsync.to_do(c, p);
  touched := CASE WHEN p.config_id IS NOT NULL THEN coalesce(todo.ids, '{}') END;
  ids := CASE WHEN watched THEN touched END;
  IF users AND (ids IS NULL OR ids <> '{}') THEN
    -- Who comes to a record that went before does not leave by that.
    IF c.deactivate_users AND cardinality(touched) > coalesce(cardinality(todo.by_record), 0) THEN
      UPDATE flohsync.resource_record x SET departure_settled_at = clock_timestamp()
       WHERE x.id = ANY (touched) AND x.id <> ALL (coalesce(todo.by_record, '{}')) AND x.stale_since IS NOT NULL
         AND coalesce(x.departure_settled_at < x.stale_since, true);
    END IF;
    did := _flohsync.people(c, ids, touched, _run, _held, c.deactivate_users AND NOT _held, r.status = 'held',
                            NOT watched AND p.config_id IS NOT NULL, NULL);
    touched := did.touched;
    report := did.report;
    errors := did.errors;
    held := did.held;
    message := did.message;
  END IF;

  IF _flohsync.tells_records(c) THEN
    FOR _attempt IN 1 .. 3 LOOP
      BEGIN
        jobs := _flohsync.trigger_per_record(c, _run, todo.queued);
        EXIT;
      EXCEPTION WHEN OTHERS THEN
        failed := _flohsync.stage_failed(_run, 'workflow', SQLSTATE, SQLERRM, _attempt);
        EXIT WHEN failed <> '[]';
      END;
    END LOOP;
    IF failed <> '[]' THEN
      -- The workflow is told of these changes after the next pass.
      errors := errors || failed;
      PERFORM _flohsync.keep_page_changes(y.id)
         FROM (SELECT DISTINCT x.id FROM flohsync.sync_run x JOIN flohsync.sync_run_page g ON g.run_id = x.id AND g.changed IS NOT NULL
                WHERE x.connector_id = c.connector_id AND x.resource_type = c.resource_type ORDER BY x.id) y;
      UPDATE _flohsync.record_change x SET seq = DEFAULT
       WHERE x.resource_id = ANY (todo.queued) AND x.change <> 'again';
    END IF;
    IF jobs > 0 THEN
      report := report || jsonb_build_object('workflowJobs', jobs);
    END IF;
  END IF;

  -- What has been dealt with is not needed any more, but for what waits for a decision.
  UPDATE flohsync.sync_run_page x SET changed = NULL
    FROM flohsync.sync_run y
   WHERE x.changed IS NOT NULL AND y.id = x.run_id AND y.connector_id = c.connector_id AND y.resource_type = c.resource_type;
  DELETE FROM _flohsync.record_change x
   USING unnest(todo.queued, todo.seqs) AS q(id, seq) WHERE x.resource_id = q.id AND x.seq = q.seq;
  IF users AND (held OR _held) THEN
    PERFORM _flohsync.note_changes(c.connector_id, c.resource_type, ARRAY(
      SELECT m.connector_resource_id FROM _flohsync.leavers(c, touched) l(id)
        JOIN flohsync.connector_sync_match m ON m.user_id = l.id AND m.connector_id = c.connector_id AND m.resource_type = c.resource_type
       WHERE c.deactivate_users
      UNION
      SELECT m.connector_resource_id FROM flohsync.connector_sync_match m
       WHERE _held AND m.connector_id = c.connector_id AND m.resource_type = c.resource_type AND m.match_status = 'create_pending'
         AND (touched IS NULL OR m.connector_resource_id = ANY (touched))), 'again');
  END IF;
  IF errors <> '[]' THEN
    report := report || jsonb_build_object('errors', errors);
    DELETE FROM _flohsync.match_progress x WHERE x.config_id = c.id;
  ELSIF users AND (p.config_id IS NULL OR todo.ids IS NOT NULL OR EXISTS (SELECT FROM _flohsync.user_change u WHERE u.xid >= p.users_seen)) THEN
    -- If the settings were changed meanwhile, nothing of this counts for the new ones.
    INSERT INTO _flohsync.match_progress AS x (config_id, users_seen, own_xid)
    SELECT s.id, horizon, CASE WHEN r.status = 'running' THEN pg_current_xact_id_if_assigned() END
      FROM (SELECT y.id FROM flohsync.connector_sync_config y WHERE y.id = c.id AND y.updated_at = c.updated_at FOR SHARE) s
    ON CONFLICT (config_id) DO UPDATE SET users_seen = EXCLUDED.users_seen, own_xid = EXCLUDED.own_xid;
    -- The users whom this changed are dealt with, but for other records that could be theirs.
    IF r.status = 'running' AND EXISTS (SELECT FROM _flohsync.user_change u WHERE u.xid = pg_current_xact_id_if_assigned()) THEN
      PERFORM _flohsync.note_changes(c.connector_id, c.resource_type, ARRAY(
        SELECT DISTINCT u.id FROM _flohsync.reached_by_users(c, pg_current_xact_id_if_assigned(), NULL) u
          LEFT JOIN flohsync.connector_sync_match m ON m.connector_resource_id = u.id
         WHERE m.user_id IS DISTINCT FROM u.user_id AND coalesce(m.match_status, '') NOT IN ('manual_override', 'skipped')), 'again');
    END IF;
    PERFORM _flohsync.forget_user_changes();
  END IF;
  IF report <> '{}' THEN
    -- An approved run has been here before.
    UPDATE flohsync.sync_run x
       SET post_sync = report || _flohsync.sum(_flohsync.totals_of(coalesce(x.post_sync, '{}')), _flohsync.totals_of(report))
     WHERE x.id = _run;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.post_sync(bigint, boolean) IS
  'What follows the pass of a run (_held: the safeguard of staling holds it); held when the safeguard of deactivating does';

CREATE FUNCTION _flohsync.post_sync_failed(_run bigint, _state text, _message text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  DELETE FROM _flohsync.match_progress p
   USING flohsync.sync_run r JOIN flohsync.connector_sync_config c ON c.connector_id = r.connector_id AND c.resource_type = r.resource_type
   WHERE r.id = _run AND p.config_id = c.id;
  INSERT INTO flohsync.sync_error (run_id, error_class, message) VALUES (_run, 'post_sync', _message);
  UPDATE flohsync.sync_run x
     SET post_sync = jsonb_build_object('errors', jsonb_build_array(jsonb_build_object('stage', 'post_sync', 'sqlstate', _state, 'message', _message)))
   WHERE x.id = _run;
END
$$;
COMMENT ON FUNCTION _flohsync.post_sync_failed(bigint, text, text) IS 'Records that post-sync as a whole did not come through; the next one does everything';
