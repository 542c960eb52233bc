-- Helpers in C that the rest of the script stands on.

CREATE FUNCTION _flohsync.new_id() RETURNS uuid
LANGUAGE c VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_new_id';
COMMENT ON FUNCTION _flohsync.new_id() IS 'A uuid of version 7: ids made together are stored together';

CREATE FUNCTION _flohsync.wake() RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_wake';
COMMENT ON FUNCTION _flohsync.wake() IS 'After commit, has a worker look for due runs in this database';

-- Whatever of a message may come from outside (an upstream, a webhook, an id, an error of somebody's function) goes through this.
CREATE FUNCTION _flohsync.clean(_text text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_clean';
COMMENT ON FUNCTION _flohsync.clean(text) IS
  'A text as it may stand in a message: one line without control characters and marks that change the direction of writing, at most 4096 bytes';

CREATE FUNCTION _flohsync.url_problem(_url text) RETURNS text
LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_url_problem';
COMMENT ON FUNCTION _flohsync.url_problem(text) IS 'What is wrong with an http or https address; null when nothing is';

CREATE FUNCTION _flohsync.query_problem(_query text) RETURNS text
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_query_problem';
COMMENT ON FUNCTION _flohsync.query_problem(text) IS 'Why a text is not one SELECT; null when it is one';

CREATE FUNCTION flohsync.canonical_json(value jsonb) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_canonical_json';
COMMENT ON FUNCTION flohsync.canonical_json(jsonb) IS
  'Canonical form of a JSON value: RFC 8785, except that integers and numbers a double cannot hold keep their exact digits';

CREATE FUNCTION flohsync.resource_hash(external_id text, display_name text, email text, attributes jsonb) RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_resource_hash';
COMMENT ON FUNCTION flohsync.resource_hash(text, text, text, jsonb) IS
  'SHA-256, 64 lower-case hex digits, of the canonical form of {"attributes":…,"displayName":…,"email":…,"externalId":…}; an absent value counts as null';

-- Whatever changes a record says so to the cache (70_cache).
CREATE FUNCTION _flohsync.caching() RETURNS boolean
LANGUAGE c VOLATILE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_caching';
COMMENT ON FUNCTION _flohsync.caching() IS 'Whether changes must be noted for the cache; the answer holds until the transaction ends';

CREATE FUNCTION _flohsync.invalidate(_connector uuid, _type text, _ids text[]) RETURNS void
LANGUAGE c VOLATILE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_invalidate';
COMMENT ON FUNCTION _flohsync.invalidate(uuid, text, text[]) IS
  'After commit, has the cache forget records by their ids; does nothing when there is no cache, or for null';

CREATE FUNCTION _flohsync.invalidate_all(_connector uuid, _type text) RETURNS void
LANGUAGE c VOLATILE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_invalidate_all';
COMMENT ON FUNCTION _flohsync.invalidate_all(uuid, text) IS
  'After commit, has the cache forget all records of a type, or with null of a connector';
