-- What HTTP serves: schema flohsync_api.  Programs that serve it (flohsync-http,
-- PostgREST) take the role of a request, put its headers and claims into settings,
-- call one function, and answer with what that returns.  What the functions of
-- flohsync do is said there; here it gets the form of the API.
--
--   request.headers      object of the headers, names in lower case
--   request.jwt.claims   object of the claims
--   response.status      status of the answer, where it is not 200
--   response.headers     array of objects, each of one header
--
-- Functions that read are STABLE, and do not write: they are called in transactions
-- that only read, and on standbys.

CREATE FUNCTION _flohsync.respond(_status int, _location text DEFAULT NULL, _etag text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM set_config('response.status', coalesce(_status::text, ''), true),
    set_config('response.headers', CASE WHEN _location IS NULL AND _etag IS NULL THEN '' ELSE (
      CASE WHEN _location IS NULL THEN '[]' ELSE jsonb_build_array(jsonb_build_object('Location', _location)) END
      || CASE WHEN _etag IS NULL THEN '[]' ELSE jsonb_build_array(jsonb_build_object('ETag', _etag)) END)::text END,
      true);
END
$$;
COMMENT ON FUNCTION _flohsync.respond(int, text, text) IS
  'Sets the status (null: 200) and the headers Location and ETag of the answer to a request';

CREATE FUNCTION _flohsync.request_header(_name text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN nullif(pg_catalog.current_setting('request.headers', true), '')::jsonb ->> _name;
COMMENT ON FUNCTION _flohsync.request_header(text) IS 'A header of the request, by its name in lower case';

CREATE FUNCTION _flohsync.etag(_answer jsonb) RETURNS text
LANGUAGE sql IMMUTABLE
RETURN '"' || pg_catalog.left(
  pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(_answer::text, 'UTF8')), 'hex'), 32) || '"';
COMMENT ON FUNCTION _flohsync.etag(jsonb) IS 'ETag of an answer';

-- Weak tags match nothing: they do not say that two answers are the same.
CREATE FUNCTION _flohsync.check_if_match(_etag text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  wanted text := btrim(_flohsync.request_header('if-match'), E' \t');
BEGIN
  IF wanted IS NULL OR wanted = '' OR (wanted = '*' AND _etag IS NOT NULL) THEN
    RETURN;
  END IF;
  -- What is behind a dash is not what changes are about (_flohsync.config_etag).
  IF _etag IS NULL OR regexp_replace(_etag, '-[0-9a-f]{8}"$', '"')
      <> ALL (regexp_split_to_array(regexp_replace(wanted, '-[0-9a-f]{8}"', '"', 'g'), '[ \t]*,[ \t]*')) THEN
    PERFORM _flohsync.raise('FLS12', 'the configuration was changed meanwhile', NULL,
                            'Read it again, and repeat the change with its new ETag.');
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_if_match(text) IS
  'Raises FLS12 unless the header If-Match of the request, if there is one, has the ETag of what is about to be '
  'changed; null: there is nothing yet';

CREATE FUNCTION _flohsync.caller_manages() RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN pg_catalog.has_function_privilege(_flohsync.caller(), 'flohsync.update_connector(text, jsonb)', 'EXECUTE');
COMMENT ON FUNCTION _flohsync.caller_manages() IS 'Whether the caller is a manager';

CREATE FUNCTION _flohsync.api_me() RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN jsonb_build_object(
    'subject', nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub',
    'role', _flohsync.caller_name(),
    'permissions', CASE WHEN has_function_privilege(_flohsync.caller(), 'flohsync.get_resource(text, text, text)',
                                                    'EXECUTE') THEN '["connector:read"]'::jsonb ELSE '[]' END
                   || CASE WHEN _flohsync.caller_manages() THEN '["connector:manage"]'::jsonb ELSE '[]' END);
END
$$;
SELECT _flohsync.serve('{reader}', 'me()',
  'Who asks: {subject, role, permissions}; permissions are connector:read and connector:manage');
