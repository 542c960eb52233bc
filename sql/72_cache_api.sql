-- The cache of single records in Redis (src/cache/cache.c).

CREATE FUNCTION flohsync.cache_get(connector text, resource_type text, external_id text) RETURNS jsonb
LANGUAGE c VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_cache_get';
COMMENT ON FUNCTION flohsync.cache_get(text, text, text) IS
  'Value in the cache, or null; 42704 for an unknown connector, 22023 for a malformed type or id';
SELECT _flohsync.allow('reader', 'flohsync.cache_get(text, text, text)');

CREATE FUNCTION flohsync.cache_put(connector text, resource_type text, external_id text, value jsonb,
                                   ttl interval DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_cache_put';
COMMENT ON FUNCTION flohsync.cache_put(text, text, text, jsonb, interval) IS
  'Stores a value, at once and not with the transaction, for ttl (default flohsync.cache_ttl); false when it was not '
  'stored: Redis is unavailable, the value too large, too deep or with too large a number, the transaction has written '
  'or is REPEATABLE READ, or the key was invalidated since this session''s cache_get, or may have been; 22023 for '
  'a malformed type, id or ttl';
SELECT _flohsync.allow('manager', 'flohsync.cache_put(text, text, text, jsonb, interval)');

CREATE FUNCTION _flohsync.cache_get_or_fetch(connector text, resource_type text, external_id text, fetcher regprocedure)
  RETURNS jsonb
LANGUAGE c VOLATILE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_cache_get_or_fetch';
COMMENT ON FUNCTION _flohsync.cache_get_or_fetch(text, text, text, regprocedure) IS
  'Implementation of the public function of this name, run as its owner';

CREATE FUNCTION flohsync.cache_get_or_fetch(connector text, resource_type text, external_id text,
                                            fetcher regprocedure DEFAULT NULL) RETURNS jsonb
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_owner';
COMMENT ON FUNCTION flohsync.cache_get_or_fetch(text, text, text, regprocedure) IS
  'Value in the cache, else what fetcher(connector uuid, resource_type text, external_id text) returns, which is then '
  'stored if the caller may execute cache_put and the transaction has not written; without a fetcher the upstream''s '
  'record, where it can be asked for one, else the synced one; null when there is none; 42704 for an unknown '
  'connector, 22023 for a malformed type or id, 42883 for a fetcher of other types; errors of the fetcher '
  'and the upstream are raised';
SELECT _flohsync.allow('reader', 'flohsync.cache_get_or_fetch(text, text, text, regprocedure)');

CREATE FUNCTION flohsync.cache_invalidate(connector text, resource_type text, external_id text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _connector uuid := _flohsync.connector_id(connector);
  _type text := _flohsync.check_resource_type(cache_invalidate.resource_type);
BEGIN
  PERFORM _flohsync.check_external_id(external_id);
  PERFORM _flohsync.invalidate(_connector, _type, ARRAY[external_id]);
END
$$;
COMMENT ON FUNCTION flohsync.cache_invalidate(text, text, text) IS
  'Invalidates one record in the cache when the transaction commits';
SELECT _flohsync.allow('manager', 'flohsync.cache_invalidate(text, text, text)');

CREATE FUNCTION flohsync.cache_clear(connector text, resource_type text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.invalidate_all(_flohsync.connector_id(connector),
    CASE WHEN cache_clear.resource_type IS NOT NULL THEN _flohsync.check_resource_type(cache_clear.resource_type) END);
END
$$;
COMMENT ON FUNCTION flohsync.cache_clear(text, text) IS
  'Invalidates all records of a type, or with null of a connector, in the cache when the transaction commits; in '
  'constant time';
SELECT _flohsync.allow('manager', 'flohsync.cache_clear(text, text)');

CREATE FUNCTION _flohsync.cache_metrics() RETURNS TABLE (family text, labels text, value numeric)
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_cache_metrics';
COMMENT ON FUNCTION _flohsync.cache_metrics() IS
  'Samples about the cache for metrics(): counters since the server started';
