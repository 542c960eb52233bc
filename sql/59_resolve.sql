-- What an operator does about matches: look, link, skip, create, unlink.

-- Counted, not kept: that a record goes stale and that its match changes are two transactions' affairs.
CREATE FUNCTION _flohsync.stale_matches(_connector uuid, _type text, _statuses text[])
  RETURNS TABLE (status text, n bigint)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
BEGIN
  IF _flohsync.count_of(_connector, _type, '{stale}') > 0 AND _flohsync.count_of(_connector, _type, _statuses) > 0 THEN
    RETURN QUERY EXECUTE format(
      'SELECT m.match_status::text, count(*) FROM flohsync.resource_record r
         JOIN flohsync.connector_sync_match m
           ON m.connector_id = r.connector_id AND m.resource_type = r.resource_type AND m.external_id = r.external_id
        WHERE r.connector_id = $1 AND r.resource_type = $2 AND r.stale_since IS NOT NULL
          AND m.match_status = ANY (%L) GROUP BY 1', _statuses)
      USING _connector, _type;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.stale_matches(uuid, text, text[]) IS
  'Number of matches with some statuses whose records are stale';

CREATE FUNCTION flohsync.match_stats(connector text, resource_type text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _connector uuid := _flohsync.connector_id(connector);
  _type text := _flohsync.check_resource_type(match_stats.resource_type);
BEGIN
  -- Of those whose records are stale, no operator has to do anything.
  RETURN (
    WITH kept AS (
      SELECT t.state AS status, t.confidence, t.n, 0 AS stale FROM _flohsync.tally t
       WHERE t.connector_id = _connector AND t.resource_type = _type AND t.confidence IS NOT NULL
      UNION ALL
      SELECT s.status, NULL, -s.n, s.n
        FROM _flohsync.stale_matches(_connector, _type, '{unmatched,ambiguous,create_pending}') s
    )
    SELECT jsonb_build_object('resourceType', _type,
             'total', coalesce(sum(k.n + k.stale), 0), 'stale', coalesce(sum(k.stale), 0),
             'matched', coalesce(sum(k.n) FILTER (WHERE k.status = 'matched'), 0),
             'unmatched', coalesce(sum(k.n) FILTER (WHERE k.status = 'unmatched'), 0),
             'ambiguous', coalesce(sum(k.n) FILTER (WHERE k.status = 'ambiguous'), 0),
             'manualOverride', coalesce(sum(k.n) FILTER (WHERE k.status = 'manual_override'), 0),
             'skipped', coalesce(sum(k.n) FILTER (WHERE k.status = 'skipped'), 0),
             'createPending', coalesce(sum(k.n) FILTER (WHERE k.status = 'create_pending'), 0),
             'byConfidence', jsonb_build_object(
               'exact', coalesce(sum(k.n) FILTER (WHERE k.confidence = 'exact'), 0),
               'probable', coalesce(sum(k.n) FILTER (WHERE k.confidence = 'probable'), 0),
               'ambiguous', coalesce(sum(k.n) FILTER (WHERE k.confidence = 'ambiguous'), 0),
               'none', coalesce(sum(k.n) FILTER (WHERE k.confidence = 'none'), 0)))
      FROM kept k);
END
$$;
COMMENT ON FUNCTION flohsync.match_stats(text, text) IS
  'Numbers of records by match status and confidence; stale records that are unmatched, ambiguous or createPending '
  'need no attention and are counted under stale instead, so that the statuses and stale add up to total';
SELECT _flohsync.allow('reader', 'flohsync.match_stats(text, text)');

CREATE FUNCTION _flohsync.match_users(connector text, resource_type text) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  c flohsync.connector_sync_config;
  back record;
  n bigint;
BEGIN
  PERFORM _flohsync.hold_connector(connector);
  c := _flohsync.config_of(connector, resource_type);
  PERFORM FROM flohsync.connector_sync_config x WHERE x.id = c.id FOR KEY SHARE;
  PERFORM _flohsync.lock_matching(c);
  -- Users that were reactivated would count as deleted.
  back := _flohsync.reactivate(c, NULL);
  n := _flohsync.match(c, NULL, back.records, back.users);
  -- The other stages come with the next pass.
  IF EXISTS (SELECT FROM _flohsync.match_progress p WHERE p.config_id = c.id) THEN
    PERFORM _flohsync.note_changes(c.connector_id, c.resource_type, ARRAY(
      SELECT m.connector_resource_id FROM flohsync.connector_sync_match m
       WHERE m.connector_id = c.connector_id AND m.resource_type = c.resource_type
         AND m.updated_at = now()), 'recheck');
  END IF;
  RETURN flohsync.match_stats(connector, resource_type)
    || jsonb_build_object('changed', n, 'usersReactivated', back.reactivated)
         || CASE WHEN back.refused > 0 THEN jsonb_build_object('rowsRefused', back.refused) ELSE '{}' END;
END
$$;
COMMENT ON FUNCTION _flohsync.match_users(text, text) IS
  'Implementation of the public function of this name, run as the workers'' role';

CREATE FUNCTION flohsync.match_users(connector text, resource_type text) RETURNS jsonb
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_worker';
COMMENT ON FUNCTION flohsync.match_users(text, text) IS
  'Recomputes the matches of all records now, and reactivates users that a sync deactivated and whose record is back; '
  'returns match_stats(), the number of matches created or changed, of users reactivated, and of failures; '
  '42704 without a configuration';
SELECT _flohsync.allow('manager', 'flohsync.match_users(text, text)');

CREATE FUNCTION _flohsync.match_dto(_m flohsync.connector_sync_match) RETURNS jsonb
LANGUAGE sql STABLE
RETURN pg_catalog.jsonb_build_object(
  'id', (_m).id, 'connectorId', (_m).connector_id, 'resourceType', (_m).resource_type,
  'connectorResourceId', (_m).connector_resource_id, 'externalId', (_m).external_id,
  'externalDisplayName', (_m).external_display_name, 'externalEmail', (_m).external_email, 'userId', (_m).user_id,
  'matchStatus', (_m).match_status, 'matchConfidence', (_m).match_confidence, 'matchStrategy', (_m).match_strategy,
  'candidateUserIds', (_m).candidate_user_ids, 'resolutionNotes', (_m).resolution_notes, 'resolvedBy', (_m).resolved_by,
  'resolvedAt', _flohsync.iso((_m).resolved_at), 'createdAt', _flohsync.iso((_m).created_at), 'updatedAt',
    _flohsync.iso((_m).updated_at));
COMMENT ON FUNCTION _flohsync.match_dto(flohsync.connector_sync_match) IS 'A match in its public JSON form';

CREATE FUNCTION flohsync.list_matches(connector text, resource_type text, status text DEFAULT NULL,
                                      search text DEFAULT NULL,
  page int DEFAULT 1, page_size int DEFAULT 50, stale boolean DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _statuses text[] := '{matched,unmatched,ambiguous,manual_override,skipped,create_pending}';
  _connector uuid := _flohsync.connector_id(connector);
  _type text := _flohsync.check_resource_type(list_matches.resource_type);
  _status text := nullif(list_matches.status, '');
  _search text := _flohsync.search_fold(nullif(list_matches.search, ''));
  _of_scope bigint;
  _of_stale bigint;
  _of_all bigint;
  _stale boolean := list_matches.stale;
  _from text := 'flohsync.connector_sync_match x';
  _where text := '';
  _size constant int := list_matches.page_size;
  _before constant bigint := (list_matches.page - 1)::bigint * _size;
  _types text[];
  _ids text[];
  _total bigint;
  _estimated boolean := false;
  _data jsonb;
BEGIN
  PERFORM _flohsync.check_page(list_matches.page, _size);
  IF _status <> ALL (_statuses) THEN
    PERFORM _flohsync.invalid('status', format('%L is not a match status', _status),
      'Match statuses are matched, unmatched, ambiguous, manual_override, skipped and create_pending.');
  END IF;
  IF _status IS NOT NULL THEN
    _statuses := ARRAY[_status];
    _where := format(' AND x.match_status = %L', _status);
  END IF;
  _of_scope := _flohsync.count_of(_connector, _type, _statuses);
  _of_all := _of_scope;
  IF list_matches.stale IS NOT NULL AND _search IS NOT NULL THEN
    -- At most; a search looks at its hits alone.
    _of_stale := _flohsync.count_of(_connector, _type, '{stale}');
    IF list_matches.stale THEN
      _of_scope := least(_of_scope, _of_stale);
    ELSIF _of_stale = 0 THEN
      _stale := NULL;
    END IF;
  ELSIF list_matches.stale IS NOT NULL THEN
    _of_stale := (SELECT coalesce(sum(s.n), 0) FROM _flohsync.stale_matches(_connector, _type, _statuses) s);
    _of_scope := CASE WHEN list_matches.stale THEN _of_stale ELSE _of_scope - _of_stale END;
    IF list_matches.stale THEN
      _from := 'flohsync.resource_record s JOIN ' || _from || '
                ON x.connector_id = s.connector_id AND x.resource_type = s.resource_type
                  AND x.external_id = s.external_id';
      _where := _where || ' AND s.stale_since IS NOT NULL';
    ELSIF _of_stale > 0 THEN
      _where := _where || ' AND NOT EXISTS (SELECT FROM flohsync.resource_record s
                WHERE s.connector_id = x.connector_id AND s.resource_type = x.resource_type
                  AND s.external_id = x.external_id AND s.stale_since IS NOT NULL)';
    END IF;
  END IF;
  _types := CASE WHEN _of_scope > 0 THEN ARRAY[_type] ELSE '{}' END;
  IF _search IS NULL AND list_matches.stale AND _of_scope <= 20000 THEN
    -- From the few stale records, in no order of their own.
    EXECUTE format('SELECT ARRAY(SELECT x.external_id FROM %s WHERE x.connector_id = $1 AND x.resource_type = $2%s
                                  ORDER BY x.external_id LIMIT $3 OFFSET $4)', _from, _where)
       INTO _ids USING _connector, _type, _size, _before;
    _total := _of_scope;
  ELSIF _search IS NULL THEN
    SELECT k.external_ids INTO _ids
      FROM _flohsync.list_keys(_from, _where, _connector, _types, NULL, NULL, _size, _before) k;
    _total := _of_scope;
  ELSE
    SELECT k.external_ids, k.total, k.estimated INTO _ids, _total, _estimated
      FROM _flohsync.search_keys('flohsync.connector_sync_match', _connector, _types, _status, _stale, _search,
                                 NULL, NULL, _before, _size, _of_scope, _of_all, NULL, NULL) k;
  END IF;
  SELECT jsonb_agg(_flohsync.match_dto(m) || jsonb_build_object('staleSince', _flohsync.iso(r.stale_since))
                   ORDER BY k.position) INTO _data
    FROM unnest(_ids[:_size]) WITH ORDINALITY AS k(external_id, position)
   CROSS JOIN LATERAL (SELECT m.* FROM flohsync.connector_sync_match m
     -- by index, whatever their number
     WHERE m.connector_id = _connector AND m.resource_type = _type AND m.external_id = k.external_id OFFSET 0) m
   CROSS JOIN LATERAL (SELECT r.stale_since FROM flohsync.resource_record r
                       WHERE r.id = m.connector_resource_id OFFSET 0) r;
  RETURN _flohsync.page_object(_data, _total, list_matches.page, _size)
         || CASE WHEN _estimated THEN '{"totalIsEstimate": true}' ELSE '{}' END::jsonb;
END
$$;
COMMENT ON FUNCTION flohsync.list_matches(text, text, text, text, int, int, boolean) IS
  'A page of matches in the order of their external ids, of one status, with a text in id, name or e-mail address, '
  'ignoring case, and of stale or active records, where these are given; pages of 1 to 2000 (50), counted from 1; '
  'staleSince is set for stale records; with a search, a total above 10000 may be an estimate, totalIsEstimate';
SELECT _flohsync.allow('reader', 'flohsync.list_matches(text, text, text, text, int, int, boolean)');

CREATE FUNCTION _flohsync.explain_match(connector text, resource_type text, external_id text) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  c flohsync.connector_sync_config := _flohsync.config_of(connector, explain_match.resource_type);
  names text[] := _flohsync.strategies(c);
  x flohsync.resource_record;
  m flohsync.connector_sync_match;
  steps jsonb;
  step jsonb;
  hits int;
  stays text;
  outcome jsonb;
BEGIN
  SELECT * INTO x FROM flohsync.resource_record r
   WHERE r.external_id = explain_match.external_id AND r.resource_type = c.resource_type
     AND r.connector_id = c.connector_id;
  IF NOT FOUND THEN
    PERFORM _flohsync.raise('42704',
      _flohsync.clean(format('connector "%s" has no record "%s" of resource type "%s"', connector,
                             explain_match.external_id, c.resource_type)),
      NULL,
      'The record has not been synced, or is filtered out, or was purged.');
  END IF;
  SELECT * INTO m FROM flohsync.connector_sync_match y WHERE y.connector_resource_id = x.id;
  EXECUTE format($sql$
    WITH rec AS MATERIALIZED (%s), hits AS (%s)
    SELECT jsonb_agg(jsonb_build_object('strategy', s.name,
             'key', CASE s.name %s END,
             'hits', coalesce(h.users, '[]'), 'hitCount', coalesce(h.n, 0)) ORDER BY s.step)
      FROM rec r CROSS JOIN unnest($4) WITH ORDINALITY AS s(name, step)
      LEFT JOIN LATERAL (SELECT count(*) AS n,
                         (jsonb_agg(jsonb_build_object('userId', u.id, 'email', u.email, 'displayName', u.display_name,
                                  'issuer', u.upstream_issuer, 'confirmed', u.confirmed, 'active', u.active)
                                    ORDER BY u.id)) AS users
                           FROM hits h JOIN _flohsync.app_user u ON u.id = h.user_id WHERE h.step = s.step) h ON true
  $sql$, _flohsync.records_sql(c, _flohsync.records_of_sql(true)), _flohsync.hits_sql(names),
         (SELECT string_agg(format('WHEN %L THEN %s', m.strategy, m.key), ' ') FROM _flohsync.match_strategies() m))
  INTO steps USING c.connector_id, c.resource_type::text, ARRAY[x.id], names,
    coalesce(c.issuer_source_path, 'attributes.identityIssuer');

  outcome := jsonb_build_object('status', 'unmatched', 'confidence', 'none', 'strategy', NULL, 'userId', NULL);
  FOR i IN 1 .. cardinality(names) LOOP
    step := steps -> (i - 1);
    hits := (step ->> 'hitCount')::int;
    IF hits > 0 THEN
      outcome := jsonb_build_object('status', CASE hits WHEN 1 THEN 'matched' ELSE 'ambiguous' END,
        'confidence', CASE WHEN hits > 1 THEN 'ambiguous' WHEN i = 1 THEN 'exact' ELSE 'probable' END,
        'strategy', names[i], 'userId', CASE hits WHEN 1 THEN step #> '{hits,0,userId}' END);
      -- What comes after the first hit is not tried; it is shown for the reader.
      EXIT;
    END IF;
  END LOOP;
  stays := CASE WHEN m.match_status IN ('manual_override', 'skipped') THEN 'an operator decided so'
                WHEN m.match_status = 'matched' AND m.match_strategy IS NULL
                    AND EXISTS (SELECT FROM _flohsync.app_user u WHERE u.id = m.user_id)
                  THEN 'the user was created from the record, or reactivated with it'
                WHEN m.match_status = 'matched' AND x.stale_since IS NOT NULL
                    AND NOT EXISTS (SELECT FROM _flohsync.app_user u WHERE u.id = m.user_id)
                  THEN 'the record is stale and its user is gone' END;
  RETURN jsonb_build_object(
    'connectorId', c.connector_id, 'resourceType', c.resource_type, 'externalId', x.external_id,
    'record', jsonb_build_object('id', x.id, 'displayName', x.display_name, 'email', x.email, 'staleSince',
                                 _flohsync.iso(x.stale_since)),
    'strategies', steps, 'outcome', outcome, 'match', CASE WHEN m.id IS NOT NULL THEN _flohsync.match_dto(m) END,
      'stays', stays);
END
$$;
COMMENT ON FUNCTION _flohsync.explain_match(text, text, text) IS
  'Implementation of the public function of this name, run as the workers'' role';

CREATE FUNCTION flohsync.explain_match(connector text, resource_type text, external_id text) RETURNS jsonb
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_as_worker';
COMMENT ON FUNCTION flohsync.explain_match(text, text, text) IS
  'Explains the match of a record: each strategy with its key and the users found, the outcome, the stored match, and '
  'why that is preserved, if it is';
SELECT _flohsync.allow('reader', 'flohsync.explain_match(text, text, text)');

-- What is done to one match, locked by who calls.

CREATE FUNCTION _flohsync.acting_user() RETURNS uuid
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN nullif(current_setting('flohsync.acting_user', true), '')::uuid;
EXCEPTION WHEN invalid_text_representation THEN
  PERFORM _flohsync.invalid('flohsync.acting_user', 'it is not the id of a user');
END
$$;
COMMENT ON FUNCTION _flohsync.acting_user() IS
  'User of the application on whose behalf the session acts, from flohsync.acting_user; null when not set';

CREATE FUNCTION _flohsync.lock_user(_user uuid) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- A concurrent deletion of the user waits, and then finds the link.
  PERFORM FROM _flohsync.app_user u WHERE u.id = _user FOR KEY SHARE;
  RETURN FOUND;
EXCEPTION WHEN feature_not_supported OR insufficient_privilege OR wrong_object_type THEN
  -- An application's view may be one whose rows cannot be locked.
  RETURN EXISTS (SELECT FROM _flohsync.app_user u WHERE u.id = _user);
END
$$;
COMMENT ON FUNCTION _flohsync.lock_user(uuid) IS
  'Whether a user exists; locks the user against deletion until the end of the transaction';

CREATE FUNCTION _flohsync.check_action(_action text, _actions text[], _user uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _action IS NULL OR NOT _action = ANY (_actions) THEN
    PERFORM _flohsync.invalid('action', format('%s is not an action', coalesce(quote_literal(_action), 'NULL')),
      format('Actions are %s.', array_to_string(_actions, ', ')));
  ELSIF _action = 'link' AND _user IS NULL THEN
    PERFORM _flohsync.invalid('userId', 'action "link" requires it', 'Specify the id of the user to link to.');
  ELSIF _action <> 'link' AND _user IS NOT NULL THEN
    PERFORM _flohsync.invalid('userId', format('action "%s" takes none', _action));
  ELSIF _user IS NOT NULL AND NOT _flohsync.lock_user(_user) THEN
    PERFORM _flohsync.raise('42704',
      format('user %s does not exist, or is deleted', _user),
      NULL,
      'Users are listed in flohsync.v_user.');
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_action(text, text[], uuid) IS
  'Raises 22023 or 42704 for an impossible action on a match';

CREATE FUNCTION _flohsync.locked_match(_match uuid) RETURNS flohsync.connector_sync_match
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  m flohsync.connector_sync_match;
BEGIN
  SELECT * INTO m FROM flohsync.connector_sync_match x WHERE x.id = _match;
  PERFORM _flohsync.lock('connector', m.connector_id::text, true),
    _flohsync.share_matching(m.connector_id, m.resource_type);
  SELECT * INTO m FROM flohsync.connector_sync_match x WHERE x.id = _match FOR UPDATE;
  IF NOT FOUND THEN
    PERFORM _flohsync.raise('42704',
      format('match %s does not exist', coalesce(_match::text, 'NULL')),
      NULL,
      'Matches are listed by flohsync.list_matches(); the match of a purged record is removed with it.');
  END IF;
  RETURN m;
END
$$;
COMMENT ON FUNCTION _flohsync.locked_match(uuid) IS 'A match, locked; 42704 when there is none';

-- _set_match writes an outcome and keeps user_external_identity in step with it.
CREATE FUNCTION _flohsync.set_match(_m flohsync.connector_sync_match, _status text, _user uuid, _notes text)
  RETURNS flohsync.connector_sync_match
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  new flohsync.connector_sync_match;
BEGIN
  UPDATE flohsync.connector_sync_match x
     SET user_id = _user, match_status = _status, match_confidence = CASE WHEN _user IS NULL THEN 'none'
       ELSE 'exact' END,
         match_strategy = NULL, candidate_user_ids = NULL, updated_at = now(),
         resolution_notes = CASE WHEN _status <> 'unmatched' THEN _notes END,
         resolved_by = CASE WHEN _status <> 'unmatched' THEN _flohsync.acting_user() END,
         resolved_at = CASE WHEN _status <> 'unmatched' THEN now() END
   WHERE x.id = _m.id RETURNING x.* INTO new;
  IF _m.user_id IS DISTINCT FROM _user THEN
    DELETE FROM flohsync.user_external_identity i
     WHERE i.user_id = _m.user_id AND i.connector_id = _m.connector_id AND i.external_id = _m.external_id
       AND i.source = 'connector_sync';
  END IF;
  IF _user IS NOT NULL THEN
    INSERT INTO flohsync.user_external_identity AS i (user_id, connector_id, external_id, external_email,
                                                      external_display_name, source, verified_at)
    VALUES (_user, new.connector_id, new.external_id, new.external_email, new.external_display_name,
            'connector_sync', now())
    ON CONFLICT (external_id, connector_id, user_id) DO UPDATE
       SET external_email = EXCLUDED.external_email, external_display_name = EXCLUDED.external_display_name,
         verified_at = EXCLUDED.verified_at;
  END IF;
  IF _m.user_id IS DISTINCT FROM _user AND _m.user_id IS NOT NULL THEN
    PERFORM _flohsync.requeue_stale(ARRAY[_m.user_id]);
  END IF;
  -- Its profile is filled, or another match looked for, by the next post-sync.
  PERFORM _flohsync.note_changes(new.connector_id, new.resource_type, ARRAY[new.connector_resource_id], 'recheck');
  RETURN new;
END
$$;
COMMENT ON FUNCTION _flohsync.set_match(flohsync.connector_sync_match, text, uuid, text) IS
  'Stores the decision of an operator about a match';

CREATE FUNCTION _flohsync.create_for_match(_m flohsync.connector_sync_match, _notes text)
  RETURNS flohsync.connector_sync_match
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  x flohsync.resource_record;
  c flohsync.connector_sync_config;
  made record;
BEGIN
  SELECT * INTO STRICT x FROM flohsync.resource_record r WHERE r.id = _m.connector_resource_id;
  IF _flohsync.match_key(x.email) IS NULL THEN
    PERFORM _flohsync.invalid('email', 'the record has none, and a user requires one',
                              'Link the record to an existing user.');
  END IF;
  SELECT * INTO made FROM flohsync._user_create(ARRAY[x.email::text], ARRAY[x.display_name::text]) LIMIT 1;
  IF made.user_id IS NULL THEN
    PERFORM _flohsync.raise('23505',
      _flohsync.clean(format('could not create a user with e-mail address "%s"', x.email)),
      coalesce(_flohsync.clean(made.problem) || '.', 'No user was created.'),
      CASE WHEN EXISTS (SELECT FROM _flohsync.app_user u
                        WHERE _flohsync.match_key(u.email) = _flohsync.match_key(x.email))
           THEN 'Link the record to that user.'
           ELSE 'A deleted user can be linked to once they have been restored; or skip the record.' END);
  END IF;
  SELECT * INTO c FROM flohsync.connector_sync_config y WHERE y.connector_id = _m.connector_id
      AND y.resource_type = _m.resource_type;
  PERFORM _flohsync.apply_defaults(c, ARRAY[made.user_id]);
  RETURN _flohsync.set_match(_m, 'matched', made.user_id, _notes);
END
$$;
COMMENT ON FUNCTION _flohsync.create_for_match(flohsync.connector_sync_match, text) IS
  'Creates an unconfirmed user from the record of a match and links it; 22023 without an e-mail '
  'address, 23505 when that is taken';

CREATE FUNCTION _flohsync.resolve_match(match_id uuid, action text, user_id uuid, notes text)
RETURNS flohsync.connector_sync_match
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
  m flohsync.connector_sync_match;
BEGIN
  PERFORM _flohsync.check_action(action, ARRAY['link', 'skip', 'create'], user_id);
  m := _flohsync.locked_match(match_id);
  RETURN CASE action WHEN 'link' THEN _flohsync.set_match(m, 'manual_override', user_id, notes)
                     WHEN 'skip' THEN _flohsync.set_match(m, 'skipped', NULL, notes)
                     ELSE _flohsync.create_for_match(m, notes) END;
END
$$;
COMMENT ON FUNCTION _flohsync.resolve_match(uuid, text, uuid, text) IS
  'Implementation of the public function of this name, run as the workers'' role';

CREATE FUNCTION flohsync.resolve_match(match_id uuid, action text, user_id uuid DEFAULT NULL, notes text DEFAULT NULL)
RETURNS flohsync.connector_sync_match
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_worker';
COMMENT ON FUNCTION flohsync.resolve_match(uuid, text, uuid, text) IS
  'Resolves a match: link (to user_id; manual_override), skip (skipped) or create (an unconfirmed user from the '
  'record''s e-mail address; matched). 22023: unknown action, user_id missing, no e-mail address; 42704: no such match '
  'or user; 23505: the e-mail address is taken';
SELECT _flohsync.allow('manager', 'flohsync.resolve_match(uuid, text, uuid, text)');

CREATE FUNCTION _flohsync.unlink_match(match_id uuid) RETURNS flohsync.connector_sync_match
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT m.* FROM _flohsync.set_match(_flohsync.locked_match(unlink_match.match_id), 'unmatched', NULL, NULL) m;
END;
COMMENT ON FUNCTION _flohsync.unlink_match(uuid) IS
  'Implementation of the public function of this name, run as the workers'' role';

CREATE FUNCTION flohsync.unlink_match(match_id uuid) RETURNS flohsync.connector_sync_match
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_worker';
COMMENT ON FUNCTION flohsync.unlink_match(uuid) IS
  'Removes the user and the resolution of a match; the next post-sync matches the record again; 42704 '
  'when there is no such match';
SELECT _flohsync.allow('manager', 'flohsync.unlink_match(uuid)');

CREATE FUNCTION _flohsync.bulk_resolve_matches(connector text, match_ids uuid[], action text, user_id uuid, notes text)
RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
  _connector uuid := _flohsync.hold_connector(connector);
  m flohsync.connector_sync_match;
  updated int := 0;
  missing uuid[];
  failed jsonb := '[]';
BEGIN
  IF match_ids IS NULL OR cardinality(match_ids) = 0 OR array_position(match_ids, NULL) IS NOT NULL THEN
    PERFORM _flohsync.invalid('matchIds', 'it must be an array of at least one id');
  END IF;
  PERFORM _flohsync.check_action(action, ARRAY['link', 'skip'], user_id);
  SELECT array_agg(DISTINCT i.id ORDER BY i.id) INTO missing FROM unnest(match_ids) i(id)
   WHERE NOT EXISTS (SELECT FROM flohsync.connector_sync_match x WHERE x.id = i.id AND x.connector_id = _connector);
  -- A transaction that resolves several matches may lock these in any order.
  PERFORM _flohsync.lock('matching', c.id::text, false)
     FROM (SELECT y.id FROM flohsync.connector_sync_config y
            WHERE y.connector_id = _connector
              AND EXISTS (SELECT FROM flohsync.connector_sync_match x
                           WHERE x.id = ANY (match_ids) AND x.connector_id = y.connector_id
                             AND x.resource_type = y.resource_type)
            ORDER BY y.id) c;
  -- In one order, so that two of these cannot wait for each other.
  FOR m IN SELECT x.* FROM flohsync.connector_sync_match x WHERE x.id = ANY (match_ids) AND x.connector_id = _connector
    ORDER BY x.id FOR UPDATE LOOP
    BEGIN
      PERFORM _flohsync.set_match(m, CASE action WHEN 'link' THEN 'manual_override' ELSE 'skipped' END, user_id, notes);
      updated := updated + 1;
    EXCEPTION WHEN OTHERS THEN
      IF _flohsync.passes(SQLSTATE) THEN
        RAISE;
      END IF;
      failed := failed || jsonb_build_array(jsonb_build_object('id', m.id, 'error', _flohsync.clean(SQLERRM)));
    END;
  END LOOP;
  RETURN jsonb_build_object('updated', updated, 'notFound', coalesce(to_jsonb(missing), '[]'), 'failed', failed);
END
$$;
COMMENT ON FUNCTION _flohsync.bulk_resolve_matches(text, uuid[], text, uuid, text) IS
  'Implementation of the public function of this name, run as the workers'' role';

CREATE FUNCTION flohsync.bulk_resolve_matches(connector text, match_ids uuid[], action text, user_id uuid DEFAULT NULL,
                                              notes text DEFAULT NULL)
RETURNS jsonb
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_worker';
COMMENT ON FUNCTION flohsync.bulk_resolve_matches(text, uuid[], text, uuid, text) IS
  'Links or skips several matches of a connector: {"updated":n,"notFound":[ids that are not the '
  'connector''s],"failed":[{"id","error"}]}; 22023 for an unknown action, no ids or a missing '
  'user_id, 42704 for an unknown user';
SELECT _flohsync.allow('manager', 'flohsync.bulk_resolve_matches(text, uuid[], text, uuid, text)');
