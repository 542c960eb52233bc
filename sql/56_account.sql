-- Accounts: users who are created, who leave, and who come back.

-- Users who left and whose record is back.  They come first: matching does not see them otherwise.
CREATE FUNCTION _flohsync.back_cached(_sql text, _connector uuid, _type text, _ids uuid[], OUT records uuid[],
                                      OUT users uuid[])
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'flohsync_execute_cached_plan';
COMMENT ON FUNCTION _flohsync.back_cached(text, uuid, text, uuid[]) IS
  'Runs the statement of reactivate() with a cached plan, for a few records, with users in floh_user';

CREATE FUNCTION _flohsync.reactivate(_c flohsync.connector_sync_config, _ids uuid[], _run bigint DEFAULT NULL,
  _record flohsync.resource_record DEFAULT NULL, OUT records uuid[], OUT users uuid[], OUT reactivated bigint,
    OUT refused bigint, OUT errors jsonb)
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
                                  AND _flohsync.match_key(i.external_email) IS NOT DISTINCT
                                    FROM _flohsync.match_key(x.email)
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
    SELECT b.records, b.users INTO records, users
      FROM _flohsync.back_cached(statement, _c.connector_id, _c.resource_type, _ids) b;
  ELSE
    EXECUTE statement INTO records, users USING _c.connector_id, _c.resource_type::text, _ids;
  END IF;
  reactivated := 0;
  refused := 0;
  errors := '[]';
  IF records = '{}' THEN
    RETURN;
  END IF;
  SELECT array_agg(w.user_id ORDER BY w.tried_at NULLS FIRST, w.user_id),
    array_agg(w.id ORDER BY w.tried_at NULLS FIRST, w.user_id), count(w.tried_at)
    INTO wanted, firsts, known
    FROM (SELECT b.user_id, (array_agg(b.id ORDER BY b.id))[1] AS id, min(s.tried_at) AS tried_at
            FROM unnest(records, users) AS b(id, user_id)
            LEFT JOIN _flohsync.setback s ON s.config_id = _c.id AND s.stage = 'reactivate' AND s.resource_id = b.id
           GROUP BY b.user_id) w;
  did := _flohsync.in_halves('reactivate', _c, _run, cardinality(wanted), known, wanted, NULL, NULL, NULL);
  reactivated := cardinality(did.users);
  refused := cardinality(did.failed);
  SELECT _flohsync.note_setbacks('reactivate', _c, _run, _record, array_agg(x.id ORDER BY f.position),
                                 array_agg(x.external_id::text ORDER BY f.position),
                                 array_agg(f.state ORDER BY f.position),
                                   array_agg(f.message ORDER BY f.position)) INTO errors
    FROM unnest(did.failed, did.states, did.messages) WITH ORDINALITY AS f(nr, state, message, position)
    JOIN flohsync.resource_record x ON x.id = firsts[f.nr];
  -- Users that it failed for are not deleted: their records stay matched to them.
  SELECT coalesce(array_agg(b.id), '{}'), coalesce(array_agg(b.user_id), '{}') INTO records, users
    FROM unnest(records, users) AS b(id, user_id)
    JOIN (SELECT unnest(did.users) UNION SELECT wanted[f.nr] FROM unnest(did.failed || did.untried || did.passed_over)
          AS f(nr)) AS d(id) ON d.id = b.user_id;
END
$$;
COMMENT ON FUNCTION _flohsync.reactivate(flohsync.connector_sync_config, uuid[], bigint, flohsync.resource_record) IS
  'Reactivates users that a sync deactivated and whose record is back; returns those records with their users, '
  'including failures, and the number of each';

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
  INSERT INTO flohsync.user_external_identity AS i (user_id, connector_id, external_id, external_email,
                                                    external_display_name, source, verified_at)
  SELECT l.user_id, l.connector_id, l.external_id, l.external_email, l.external_display_name, 'connector_sync',
    pg_catalog.now() FROM linked l
  ON CONFLICT (external_id, connector_id, user_id) DO UPDATE
     SET external_email = EXCLUDED.external_email, external_display_name = EXCLUDED.external_display_name,
       verified_at = EXCLUDED.verified_at;
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
COMMENT ON FUNCTION _flohsync.apply_defaults(flohsync.connector_sync_config, uuid[]) IS
  'Writes createUserDefaults into the profiles of users just created';

-- _create_users makes a user of each unmatched record with an e-mail address.
-- While the run is held none is made: ids that were all given out anew look
-- like that.  A record that was linked to somebody before is an operator's case.
CREATE FUNCTION _flohsync.create_users(_c flohsync.connector_sync_config, _ids uuid[], _run bigint, _held boolean,
  _record flohsync.resource_record DEFAULT NULL, OUT created bigint, OUT pending bigint, OUT refused bigint,
    OUT errors jsonb, OUT complete boolean)
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
  SELECT array_agg(w.id), array_agg(w.resource_id), array_agg(w.external_id), array_agg(w.email), array_agg(w.name),
    array_agg(w.problem)
    INTO matches, resources, externals, emails, names, problems
    FROM (SELECT m.id, x.id AS resource_id, x.external_id::text, x.email::text, x.display_name::text AS name,
                 CASE WHEN _held THEN 'the run is held' WHEN m.candidate_user_ids IS NOT NULL
                      THEN format('the record was linked to user %s before', m.candidate_user_ids -> 0 ->> 'userId')
                        END AS problem
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
  SELECT array_agg(e.email ORDER BY e.tried_at NULLS FIRST, e.position),
    array_agg(e.name ORDER BY e.tried_at NULLS FIRST, e.position),
         array_agg(e.position ORDER BY e.tried_at NULLS FIRST, e.position), count(e.tried_at)
    INTO wanted_emails, wanted_names, positions, known
    FROM (SELECT w.email, w.name, w.position::int, s.tried_at
            FROM unnest(resources, emails, names, problems) WITH ORDINALITY AS w(id, email, name, problem, position)
            LEFT JOIN _flohsync.setback s ON s.config_id = _c.id AND s.stage = 'create' AND s.resource_id = w.id
           WHERE w.problem IS NULL) e;
  IF positions IS NOT NULL THEN
    -- All of them now, in one order: who halves them would come to them in another.
    PERFORM _flohsync.lock_addresses(wanted_emails);
    did := _flohsync.in_halves('create', _c, _run, cardinality(positions), known, NULL, wanted_emails,
                               wanted_names, NULL);
    refused := cardinality(did.failed);
    SELECT _flohsync.note_setbacks('create', _c, _run, _record,
                                   array_agg(resources[positions[f.nr]] ORDER BY f.position),
             array_agg(externals[positions[f.nr]] ORDER BY f.position), array_agg(f.state ORDER BY f.position),
               array_agg(f.message ORDER BY f.position))
      INTO errors FROM unnest(did.failed, did.states, did.messages) WITH ORDINALITY AS f(nr, state, message, position);
    SELECT array_agg(n.user_id ORDER BY p.position), array_agg(coalesce(p.problem, n.problem) ORDER BY p.position)
      INTO users, problems
      FROM unnest(problems) WITH ORDINALITY AS p(problem, position)
      LEFT JOIN unnest(positions) WITH ORDINALITY AS w(position, nth) ON w.position = p.position
      LEFT JOIN unnest(did.positions, did.users, did.problems) AS n("position", user_id, problem)
        ON n."position" = w.nth;
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
      FROM unnest(externals, emails, users, problems)
        WITH ORDINALITY AS f(external_id, email, user_id, problem, position)
     WHERE f.user_id IS NULL AND (_run IS NOT NULL OR _record.id IS NOT NULL)
       AND f.position <> ALL (untried || excused);
  END IF;
  pending := cardinality(matches) - created;
END
$$;
COMMENT ON FUNCTION _flohsync.create_users(flohsync.connector_sync_config, uuid[], bigint, boolean,
                                           flohsync.resource_record) IS
  'Creates users from unmatched records with an e-mail address; those that fail become create_pending, with the reason '
  'in sync_error; complete: all were tried';

-- A user leaves when all of their records, here and elsewhere, are stale, and
-- one of them is of this configuration.  It is decided once for an absence of a
-- record: a user who is restored meanwhile stays.
CREATE FUNCTION _flohsync.users_to_deactivate(_c flohsync.connector_sync_config, _ids uuid[]) RETURNS SETOF uuid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT DISTINCT u.id
    FROM flohsync.resource_record x
    JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id
        AND m.match_status IN ('matched', 'manual_override')
    JOIN _flohsync.app_user u ON u.id = m.user_id
   WHERE x.connector_id = (_c).connector_id AND x.resource_type = (_c).resource_type AND x.stale_since IS NOT NULL
     AND coalesce(u.active, true)
     -- departure_open(), for as many rows as it takes
     AND coalesce((SELECT d.settled_at < x.stale_since FROM _flohsync.departure d WHERE d.resource_id = x.id
                   ORDER BY d.seq DESC LIMIT 1), true)
     AND (_ids IS NULL OR x.id = ANY (_ids))
     AND NOT EXISTS (SELECT FROM flohsync.connector_sync_match o
                       JOIN flohsync.resource_record y ON y.id = o.connector_resource_id
                      WHERE o.user_id = u.id AND o.match_status IN ('matched', 'manual_override')
                        AND y.stale_since IS NULL);
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
      JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id
          AND m.match_status IN ('matched', 'manual_override')
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
    SELECT DISTINCT x.id FROM flohsync.connector_sync_match m JOIN flohsync.resource_record x
      ON x.id = m.connector_resource_id
     WHERE m.user_id = ANY (_users) AND m.match_status IN ('matched', 'manual_override') AND x.stale_since IS NOT NULL),
       pg_catalog.clock_timestamp());
END;
COMMENT ON FUNCTION _flohsync.settle_departures(uuid[]) IS
  'Records that the deactivation because of the stale records of some users has been decided';

CREATE FUNCTION _flohsync.deactivate(_c flohsync.connector_sync_config, _ids uuid[], _run bigint, _approved boolean,
  OUT deactivated bigint, OUT message text, OUT refused bigint, OUT errors jsonb, OUT complete boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  known uuid[] := _flohsync.known_setbacks(_c, 'deactivate');
  users uuid[] := ARRAY(SELECT l.id FROM _flohsync.users_to_deactivate(_c, _ids) l(id) LEFT JOIN unnest(known)
                        WITH ORDINALITY AS k(id, place) ON k.id = l.id
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
  did := _flohsync.in_halves('deactivate', _c, _run, cardinality(users), cardinality(users) - n::int, users,
                             NULL, NULL, NULL);
  deactivated := cardinality(did.users);
  refused := cardinality(did.failed);
  errors := _flohsync.note_user_setbacks('deactivate', _c, _run, NULL,
                                         ARRAY(SELECT users[f.nr] FROM unnest(did.failed) WITH ORDINALITY AS f(nr, i)
                                               ORDER BY f.i),
                                         did.states, did.messages);
  complete := did.untried = '{}';
  PERFORM _flohsync.settle_departures(CASE WHEN complete AND refused = 0 AND did.passed_over = '{}'
                                      THEN users ELSE ARRAY(
    SELECT u.id FROM unnest(users) WITH ORDINALITY AS u(id, nr)
      WHERE u.nr <> ALL (did.failed || did.untried || did.passed_over)) END);
END
$$;
COMMENT ON FUNCTION _flohsync.deactivate(flohsync.connector_sync_config, uuid[], bigint, boolean) IS
  'Deactivates the users without active records, unless they are more than the safeguard allows, '
  'which the message then says';
