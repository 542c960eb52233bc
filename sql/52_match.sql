-- Which user a record belongs to.
--
-- Matching is one statement for a batch of records (match).  Each of its steps is
-- a probe of an index for each record: that costs a little more than joins by
-- hash tables would with good statistics, and the same without any, as right
-- after a first load, or when one record in a hundred has changed; and its memory
-- does not grow with the number of records.  An application's own users may have
-- no index: there it is one statement of joins, which go to disk when they are
-- large.
--
-- What is worked on is either everything, or what has changed since it was last
-- done:
--   sync_run_page.changed   records that a page of a pass added, changed or brought back
--   record_change           records changed otherwise: individually, staled, or to be rechecked
--   user_change             users that were added, changed or removed
-- match_progress says up to where that has been dealt with, and under which
-- settings.  No row there, or one of other settings, means that nothing has: then
-- everything is.  Deleting the row is therefore always right.  Where the attribute
-- mappings alone are others, all users are mapped, and what has changed is matched.

CREATE FUNCTION _flohsync.strategies(_c flohsync.connector_sync_config) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  names text[] := ARRAY[_c.user_match_strategy::text];
  fallback text;
BEGIN
  FOR fallback IN SELECT jsonb_array_elements_text(_c.user_match_fallback_strategies) LOOP
    IF fallback <> ALL (names) THEN
      names := names || fallback;
    END IF;
  END LOOP;
  RETURN names;
END
$$;
COMMENT ON FUNCTION _flohsync.strategies(flohsync.connector_sync_config) IS
  'The distinct match strategies of a configuration, in the order in which they are tried';

CREATE FUNCTION _flohsync.source_sql(_path text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN CASE split_part(_path, '.', 1)
    WHEN 'externalId' THEN 'pg_catalog.to_jsonb(x.external_id::text)'
    WHEN 'displayName' THEN 'pg_catalog.to_jsonb(x.display_name::text)'
    WHEN 'email' THEN 'pg_catalog.to_jsonb(x.email::text)'
    ELSE format('(x.attributes #> %L::text[])', (string_to_array(_path, '.'))[2:]) END;
END
$$;
COMMENT ON FUNCTION _flohsync.source_sql(text) IS 'SQL expression for the value at a dot path of the record x: jsonb';

-- By their ids, also where nothing is known of the table: the index of a type would do as well then, and reads all of
-- it.
CREATE FUNCTION _flohsync.type_of_sql(_few boolean) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE WHEN _few THEN 'x.connector_id IS NOT DISTINCT FROM $1 AND x.resource_type IS NOT DISTINCT FROM $2'
            ELSE 'x.connector_id = $1 AND x.resource_type = $2' END;
COMMENT ON FUNCTION _flohsync.type_of_sql(boolean) IS
  'SQL condition for the records x of connector $1 and type $2; few: in a form that does not use the index on them';

CREATE FUNCTION _flohsync.records_of_sql(_few boolean) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN _flohsync.type_of_sql(_few) || CASE WHEN _few THEN ' AND x.id = ANY ($3)' ELSE '' END;
COMMENT ON FUNCTION _flohsync.records_of_sql(boolean) IS
  'SQL condition for the records x of connector $1 and type $2, or (few) those of them with ids $3';

-- Where a user has the key of a strategy, that is a hit.
CREATE FUNCTION _flohsync.records_sql(_c flohsync.connector_sync_config, _condition text) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN format($sql$
  SELECT x.id, x.external_id, x.display_name, x.email, x.stale_since IS NOT NULL AS stale,
         _flohsync.match_key(x.email) COLLATE "C" AS email_key, _flohsync.match_key(%s #>> '{}') COLLATE
           "C" AS issuer_key
    FROM flohsync.resource_record x
   WHERE %s$sql$,
    _flohsync.source_sql(coalesce(_c.issuer_source_path, 'attributes.identityIssuer')), _condition);
END
$$;
COMMENT ON FUNCTION _flohsync.records_sql(flohsync.connector_sync_config, text) IS
  'SQL for the records x of a condition, with their match keys';

CREATE FUNCTION _flohsync.hits_sql(_strategies text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN string_agg(format(
           'SELECT r.id, %s AS step, u.id AS user_id FROM rec r JOIN _flohsync.app_user u ON %s', s.step, m.condition),
           ' UNION ALL ' ORDER BY s.step)
    FROM unnest(_strategies) WITH ORDINALITY AS s(name, step)
    JOIN _flohsync.match_strategies() m ON m.strategy = s.name;
END
$$;
COMMENT ON FUNCTION _flohsync.hits_sql(text[]) IS 'SQL for the users that each strategy finds for the records "rec"';

-- The others are asked only if the one before has found nobody: that is their gate.
CREATE FUNCTION _flohsync.probes_sql(_strategies text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  s record;
  gate text := '';
  probes text := '';
  which text := '';
BEGIN
  -- Each once, however long the list: one that is repeated finds nobody else.
  FOR s IN SELECT min(t.step) AS step, m.condition
             FROM unnest(_strategies) WITH ORDINALITY AS t(name, step)
             JOIN _flohsync.match_strategies() m ON m.strategy = t.name
            GROUP BY m.strategy, m.condition ORDER BY 1 LOOP
    probes := probes || format(' CROSS JOIN LATERAL (SELECT cardinality(e.users)::bigint AS hits, e.users FROM (SELECT'
                               ' ARRAY(SELECT u.id FROM _flohsync.app_user u WHERE %s%s) AS users OFFSET 0) e) s%s',
                               gate, s.condition, s.step);
    which := which || format(' WHEN s%s.hits > 0 THEN s%1$s.', s.step);
    gate := gate || format('s%s.hits = 0 AND ', s.step);
  END LOOP;
  RETURN format('%s CROSS JOIN LATERAL (SELECT CASE%s END, CASE%s END, CASE%s END) b(step, hits, users)', probes,
                regexp_replace(which, 'THEN s(\d+)\.', 'THEN \1', 'g'), regexp_replace(which, '\.(?= WHEN|$)', '.hits',
                'g'), regexp_replace(which, '\.(?= WHEN|$)', '.users', 'g'));
END
$$;
COMMENT ON FUNCTION _flohsync.probes_sql(text[]) IS
  'SQL that joins a record r to what the first strategy that finds users for it has found: b (step, hits, users)';

-- An outcome that stays is not written.  What an operator decided stays, and so does
-- - the link of a user made from the record, who may have nothing else in
--   common with it, as long as the user is there;
-- - that of a stale record whose user is deleted: it is the reason of that;
-- - that of a record that came back with its user ($4, $5), unless a strategy
--   finds a user.
CREATE FUNCTION _flohsync.match_sql(_c flohsync.connector_sync_config, _probing boolean, _all boolean) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  strategies text[] := _flohsync.strategies(_c);
BEGIN
  RETURN format($sql$
  WITH %1$s known AS (
    SELECT r.id, r.external_id, r.display_name, r.email, r.email_key, r.stale, b.step, b.hits, b.users,
           m.id AS match_id, m.match_status AS status, m.match_confidence AS confidence, m.match_strategy AS strategy,
           m.user_id, m.candidate_user_ids AS candidates, k.user_id AS back_user,
           CASE WHEN m.match_status IN ('manual_override', 'skipped') THEN true
                WHEN m.match_status = 'matched' AND (m.match_strategy IS NULL OR r.stale)
                  THEN CASE WHEN EXISTS (SELECT FROM _flohsync.app_user u WHERE u.id = m.user_id)
                    THEN m.match_strategy IS NULL ELSE r.stale END
                ELSE false END AS stays
      FROM %2$s
      LEFT JOIN flohsync.connector_sync_match m ON m.connector_resource_id = r.id
    OFFSET 0  -- so that "stays" is computed once
  ), outcome AS (
    SELECT o.id, o.external_id, o.display_name, o.email, o.match_id, o.user_id AS old_user,
      o.status AS old_status, o.stays,
           CASE WHEN o.stays THEN o.status WHEN o.hits = 1 THEN 'matched' WHEN o.hits > 1 THEN 'ambiguous'
                WHEN o.back_user IS NOT NULL THEN 'matched'
                WHEN o.status = 'create_pending' AND $7 AND o.email_key IS NOT NULL AND NOT o.stale THEN o.status
                  ELSE 'unmatched' END AS status,
           CASE WHEN o.stays THEN o.confidence WHEN o.hits = 1 THEN CASE o.step WHEN 1 THEN 'exact' ELSE 'probable' END
                WHEN o.hits > 1 THEN 'ambiguous' WHEN o.back_user IS NOT NULL THEN 'exact'
                  ELSE 'none' END AS confidence,
           CASE WHEN o.stays THEN o.strategy WHEN o.hits > 0 THEN $6[o.step] END AS strategy,
           CASE WHEN o.stays THEN o.user_id WHEN o.hits = 1 THEN o.users[1] WHEN o.hits IS NULL THEN o.back_user
             END AS user_id,
           CASE WHEN o.stays THEN o.candidates
                WHEN o.hits > 1 THEN
                  (SELECT jsonb_agg(jsonb_build_object('userId', u.id, 'email', u.email, 'confidence', 'ambiguous',
                                                                          'reason', $6[o.step]) ORDER BY u.id)
                                        FROM _flohsync.app_user u
                                       WHERE u.id = ANY (ARRAY(SELECT e.id FROM unnest(o.users) e(id)
                                                               ORDER BY e.id LIMIT 100)))
                WHEN o.hits = 1 OR o.back_user IS NOT NULL THEN NULL
                WHEN o.status IN ('unmatched', 'create_pending') AND o.candidates IS NOT NULL
                  THEN (SELECT jsonb_agg(e.candidate) FROM jsonb_array_elements(o.candidates) e(candidate)
                          JOIN _flohsync.app_user u ON u.id::text = e.candidate ->> 'userId')
                -- The record had a user: that is shown to operators, and no second user is created.
                WHEN o.status = 'matched'
                  THEN (SELECT jsonb_build_array(jsonb_build_object('userId', u.id, 'email', u.email,
                                                                           'confidence', 'none', 'reason',
                                                                             'former_link'))
                                                  FROM _flohsync.app_user u WHERE u.id = o.user_id) END AS candidates
      FROM known o
  ), made AS (
    INSERT INTO flohsync.connector_sync_match AS m (connector_id, resource_type, connector_resource_id, external_id,
                                                    external_display_name,
           external_email, user_id, match_status, match_confidence, match_strategy, candidate_user_ids)
    SELECT $1, $2, o.id, o.external_id, o.display_name, o.email, o.user_id, o.status, o.confidence,
      o.strategy, o.candidates
      -- Nobody else makes one: under the lock of the matching, or with the record locked.
      FROM outcome o WHERE o.match_id IS NULL
    RETURNING m.external_id, m.user_id, m.external_email, m.external_display_name
  ), changed AS (
    UPDATE flohsync.connector_sync_match m
       SET external_id = o.external_id, external_display_name = o.display_name, external_email = o.email,
         user_id = o.user_id,
           match_status = o.status, match_confidence = o.confidence, match_strategy = o.strategy,
             candidate_user_ids = o.candidates,
           updated_at = now()
      FROM outcome o
     -- What an operator decided meanwhile stays.
     WHERE m.id = o.match_id AND m.match_status = o.old_status AND m.user_id IS NOT DISTINCT FROM o.old_user
       AND (m.external_display_name, m.external_email, m.user_id, m.match_status, m.match_confidence, m.match_strategy,
            m.candidate_user_ids)
           IS DISTINCT FROM (o.display_name, o.email, o.user_id, o.status, o.confidence, o.strategy, o.candidates)
    RETURNING m.external_id, m.user_id, m.external_email, m.external_display_name, o.old_user
  ), unlinked AS (
    DELETE FROM flohsync.user_external_identity i USING changed m
     WHERE i.user_id = m.old_user AND i.connector_id = $1 AND i.external_id = m.external_id
       AND i.source = 'connector_sync'
       AND m.old_user IS DISTINCT FROM m.user_id
    RETURNING i.user_id
  ), linked AS (
    INSERT INTO flohsync.user_external_identity AS i (user_id, connector_id, external_id, external_email,
                                                      external_display_name, source, verified_at)
    SELECT m.user_id, $1, m.external_id, m.external_email, m.external_display_name, 'connector_sync', now()
      FROM (SELECT external_id, user_id, external_email, external_display_name FROM made
            UNION ALL SELECT external_id, user_id, external_email, external_display_name FROM changed) m
     WHERE m.user_id IS NOT NULL
    ON CONFLICT (external_id, connector_id, user_id) DO UPDATE
       SET external_email = EXCLUDED.external_email, external_display_name = EXCLUDED.external_display_name,
         verified_at = now()
    RETURNING i.user_id
  )
  SELECT (SELECT count(*) FROM made) + (SELECT count(*) FROM changed),
         (SELECT array_agg(DISTINCT m.old_user) FROM changed m WHERE m.old_user IS DISTINCT FROM m.user_id
          AND m.old_user IS NOT NULL)
  $sql$,
    CASE WHEN _probing THEN '' ELSE format(
      'rec AS (%s), tally AS (SELECT h.id, h.step, count(*) AS hits, array_agg(h.user_id) AS users FROM (%s) h '
      'GROUP BY h.id, h.step), best AS (%s),',
      _flohsync.records_sql(_c, _flohsync.records_of_sql(NOT _all)), _flohsync.hits_sql(strategies),
      CASE WHEN cardinality(strategies) = 1 THEN 'SELECT * FROM tally'
           ELSE 'SELECT DISTINCT ON (t.id) t.* FROM tally t ORDER BY t.id, t.step' END) END,
    CASE WHEN _probing THEN format(
      'unnest($3, $5) AS k(id, user_id) CROSS JOIN LATERAL (%s) r %s',
      _flohsync.records_sql(_c, _flohsync.type_of_sql(true) || ' AND x.id = k.id'), _flohsync.probes_sql(strategies))
         ELSE 'rec r LEFT JOIN best b ON b.id = r.id LEFT JOIN unnest($4, $5) AS k(id, user_id) ON k.id = r.id' END);
END
$$;
COMMENT ON FUNCTION _flohsync.match_sql(flohsync.connector_sync_config, boolean, boolean) IS
  'SQL that recomputes the matches of the records $3 of connector $1 and type $2; $6: strategies, $7: createUsers; '
  'probing: each by indexes, $5 is the user with whom each of $3 came back; otherwise in joins (all: $3 is not looked '
  'at), and $4 are the records that came back with the users $5';

CREATE FUNCTION _flohsync.match_cached(_sql text, _connector uuid, _type text, _ids uuid[], _back uuid[],
                                       _back_users uuid[],
  _strategies text[], _create_users boolean, OUT n bigint, OUT left_alone uuid[])
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'flohsync_execute_cached_plan';
COMMENT ON FUNCTION _flohsync.match_cached(text, uuid, text, uuid[], uuid[], uuid[], text[], boolean) IS
  'Runs the statement of match() with a cached plan, for a batch of records, with users in floh_user';

CREATE FUNCTION _flohsync.use_cached_plan(_ids uuid[]) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- The view of an application is unknown: a plan by indexes may be the wrong one.
  RETURN coalesce(cardinality(_ids) <= 10, false) AND _flohsync.users_are_watched();
END
$$;
COMMENT ON FUNCTION _flohsync.use_cached_plan(uuid[]) IS 'Whether records are few enough for cached plans';

-- Settings instead of statistics, of which there are none after a first load: sorting
-- all that is left for each batch would be the plan for a small table.
CREATE FUNCTION _flohsync.records_behind(_connector uuid, _type text, _external_id text, _limit int,
                                         OUT ids uuid[], OUT last text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_sort = off
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
BEGIN
  SELECT array_agg(t.id ORDER BY t.id), max(t.external_id) INTO ids, last
    FROM (SELECT x.id, x.external_id FROM flohsync.resource_record x
           WHERE x.connector_id = _connector AND x.resource_type = _type AND x.external_id > _external_id COLLATE "C"
           ORDER BY x.external_id LIMIT _limit) t;
END
$$;
COMMENT ON FUNCTION _flohsync.records_behind(uuid, text, text, int) IS
  'The next records of a type behind an external id, and the last of their external ids; null when there is none';

-- What a batch takes in memory does not depend on how many batches there are.
CREATE FUNCTION _flohsync.match(_c flohsync.connector_sync_config, _ids uuid[], _back uuid[] DEFAULT '{}',
                                _back_users uuid[] DEFAULT '{}')
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET jit = off
SET work_mem = '16MB'
SET hash_mem_multiplier = 1
SET enable_nestloop = on
AS $$
DECLARE
  batch constant int := 10000;
  strategies constant text[] := _flohsync.strategies(_c);
  probing constant boolean := _flohsync.users_are_watched();
  statement constant text := _flohsync.match_sql(_c, probing, _ids IS NULL);
  part record;
  users uuid[];
  first int := 1;
  did record;
  n bigint := 0;
  left_alone uuid[] := '{}';
BEGIN
  IF NOT probing THEN
    -- What was just loaded has no statistics yet: all must not be taken for a few.
    PERFORM set_config('enable_nestloop', (_ids IS NOT NULL)::text, true);
    EXECUTE statement INTO n, left_alone USING _c.connector_id, _c.resource_type::text, _ids, _back, _back_users,
      strategies, _c.create_users;
  ELSE
    SELECT '' AS last, NULL::uuid[] AS ids INTO part;
    LOOP
      IF _ids IS NULL THEN
        part := _flohsync.records_behind(_c.connector_id, _c.resource_type, part.last, batch);
        EXIT WHEN part.ids IS NULL;
      ELSE
        part.ids := _ids[first:first + batch - 1];
        EXIT WHEN part.ids = '{}';
        first := first + batch;
      END IF;
      IF _back <> '{}' THEN
        users := ARRAY(SELECT k.user_id FROM unnest(part.ids) WITH ORDINALITY p(id, nr)
                       LEFT JOIN unnest(_back, _back_users) k(id, user_id) ON k.id = p.id ORDER BY p.nr);
      END IF;
      SELECT m.n, m.left_alone INTO did
        FROM _flohsync.match_cached(statement, _c.connector_id, _c.resource_type, part.ids, NULL, users, strategies,
                                    _c.create_users) m;
      n := n + did.n;
      left_alone := left_alone || did.left_alone;
    END LOOP;
  END IF;
  IF left_alone <> '{}' THEN
    PERFORM _flohsync.requeue_stale(left_alone);
  END IF;
  RETURN n;
END
$$;
COMMENT ON FUNCTION _flohsync.match(flohsync.connector_sync_config, uuid[], uuid[], uuid[]) IS
  'Recomputes the matches of some records (null: all), in batches; returns how many were made or changed';

CREATE FUNCTION _flohsync.lock_matching(_c flohsync.connector_sync_config) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.lock('matching', _c.id::text, false);
END
$$;
COMMENT ON FUNCTION _flohsync.lock_matching(flohsync.connector_sync_config) IS
  'Takes the exclusive lock on the matching of a configuration until the end of the transaction';

CREATE FUNCTION _flohsync.share_matching(_connector uuid, _type text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.lock('matching', c.id::text, true) FROM flohsync.connector_sync_config c
    WHERE c.connector_id = _connector AND c.resource_type = _type;
END
$$;
COMMENT ON FUNCTION _flohsync.share_matching(uuid, text) IS
  'Takes the shared lock on the matching of a configuration, for changes of a few matches; before '
  'records or matches are locked';

CREATE FUNCTION _flohsync.config_of(_connector text, _type text) RETURNS flohsync.connector_sync_config
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _id uuid := _flohsync.connector_id(_connector);
  c flohsync.connector_sync_config;
BEGIN
  PERFORM _flohsync.check_resource_type(_type);
  SELECT * INTO c FROM flohsync.connector_sync_config x WHERE x.connector_id = _id AND x.resource_type = _type;
  IF NOT FOUND THEN
    PERFORM _flohsync.raise('42704',
      _flohsync.clean(format('connector "%s" has no configuration for resource type "%s"', _connector, _type)),
      NULL,
      'Create one with flohsync.configure_sync().');
  END IF;
  RETURN c;
END
$$;
COMMENT ON FUNCTION _flohsync.config_of(text, text) IS 'The configuration of a resource type; 42704 when there is none';
