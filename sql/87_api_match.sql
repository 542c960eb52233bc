-- What HTTP serves of matches.

CREATE FUNCTION _flohsync.match_of(_connector text, _match uuid) RETURNS uuid
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _id uuid := _flohsync.connector_id(_connector);
BEGIN
  IF NOT EXISTS (SELECT FROM flohsync.connector_sync_match m WHERE m.id = _match AND m.connector_id = _id) THEN
    PERFORM _flohsync.raise('42704', _flohsync.clean(format('connector "%s" has no match %s', _connector,
                                                            coalesce(_match::text, 'NULL'))));
  END IF;
  RETURN _match;
END
$$;
COMMENT ON FUNCTION _flohsync.match_of(text, uuid) IS 'The match itself; 42704 when it is none of the connector''s';

CREATE FUNCTION _flohsync.api_matches(connector text, resource_type text, status text DEFAULT NULL,
                                      search text DEFAULT NULL, page int DEFAULT 1, page_size int DEFAULT 50)
  RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN flohsync.list_matches(connector, resource_type, status, search, page, page_size);
END
$$;
SELECT _flohsync.serve('{reader}', 'matches(text, text, text, text, int, int)',
  'A page of matches in the order of their external ids, of one status, with a text in id, name or e-mail address, '
  'where these are given');

CREATE FUNCTION _flohsync.api_match_stats(connector text, resource_type text) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN flohsync.match_stats(connector, resource_type);
END
$$;
SELECT _flohsync.serve('{reader}', 'match_stats(text, text)',
  'Numbers of records by match status and confidence; stale records that need no attention are counted under stale');

CREATE FUNCTION _flohsync.api_resolve_match(connector text, match_id uuid, action text, user_id uuid DEFAULT NULL,
                                            notes text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN _flohsync.match_dto(flohsync.resolve_match(_flohsync.match_of(connector, match_id), action, user_id, notes));
END
$$;
SELECT _flohsync.serve('{manager}', 'resolve_match(text, uuid, text, uuid, text)',
  'Resolves a match, and returns it: link (to user_id), skip, or create (an unconfirmed user from the record''s e-mail '
  'address); 22023 for an unknown action, a missing user_id or e-mail address, 42704 for a match of another connector '
  'and an unknown user, 23505 when the e-mail address is taken');

CREATE FUNCTION _flohsync.api_unlink_match(connector text, match_id uuid) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN _flohsync.match_dto(flohsync.unlink_match(_flohsync.match_of(connector, match_id)));
END
$$;
SELECT _flohsync.serve('{manager}', 'unlink_match(text, uuid)',
  'Removes the user and the resolution of a match, and returns it; 42704 for a match of another connector');

CREATE FUNCTION _flohsync.api_bulk_resolve_matches(connector text, match_ids uuid[], action text,
                                                   user_id uuid DEFAULT NULL, notes text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN flohsync.bulk_resolve_matches(connector, match_ids, action, user_id, notes);
END
$$;
SELECT _flohsync.serve('{manager}', 'bulk_resolve_matches(text, uuid[], text, uuid, text)',
  'Links or skips several matches of a connector: {updated, notFound, failed}');
