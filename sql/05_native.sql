-- Helpers in C that the rest of the script stands on.

CREATE FUNCTION _flohsync.raise(_state text, _message text, _detail text DEFAULT NULL, _hint text DEFAULT NULL)
  RETURNS void
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_raise';
COMMENT ON FUNCTION _flohsync.raise(text, text, text, text) IS
  'Raises an error with an SQLSTATE, a detail and a hint, without CONTEXT';

CREATE FUNCTION _flohsync.new_id() RETURNS uuid
LANGUAGE c VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_new_id';
COMMENT ON FUNCTION _flohsync.new_id() IS 'A version 7 UUID: ids generated together are stored together';

CREATE FUNCTION _flohsync.wake() RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_wake';
COMMENT ON FUNCTION _flohsync.wake() IS 'Wakes a worker for due runs of this database after commit';

-- Internal locks; src/base/db_lock.h documents their purpose and order.
CREATE FUNCTION _flohsync.lock(_class text, _key text, _shared boolean) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'flohsync_lock';
COMMENT ON FUNCTION _flohsync.lock(text, text, boolean) IS
  'Takes a lock until the end of the transaction: connector, queue, matching, user changes or address';

CREATE FUNCTION _flohsync.try_lock(_class text, _key text, _shared boolean) RETURNS boolean
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'flohsync_try_lock';
COMMENT ON FUNCTION _flohsync.try_lock(text, text, boolean) IS
  'Like lock(), without waiting; false when the lock is not available';

-- Lists that the code has once; src/base/error_class.h and src/record/apply.h say what each entry is.
CREATE FUNCTION _flohsync.error_classes(OUT class text, OUT of_records boolean, OUT retried_within_run text,
  OUT retried_by_schedule boolean, OUT keeps_cursor boolean, OUT meaning text) RETURNS SETOF record
LANGUAGE c IMMUTABLE PARALLEL SAFE ROWS 50 AS 'MODULE_PATHNAME', 'flohsync_error_classes';
COMMENT ON FUNCTION _flohsync.error_classes() IS
  'The classes of errors: of records (sync_error) or of runs; of these, whether a request is sent again within its '
  'run, a schedule''s run tried again, and its pass gone on with';

CREATE FUNCTION _flohsync.error_class(_name text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_error_class';
COMMENT ON FUNCTION _flohsync.error_class(text) IS 'The name itself; 22023 when it is none of error_classes()';

CREATE FUNCTION _flohsync.page_counters(OUT counter text, OUT passed boolean, OUT in_stats boolean,
                                        OUT in_metrics boolean,
  OUT meaning text) RETURNS SETOF record
LANGUAGE c IMMUTABLE PARALLEL SAFE ROWS 10 AS 'MODULE_PATHNAME', 'flohsync_page_counters';
COMMENT ON FUNCTION _flohsync.page_counters() IS
  'What is counted of each page, each in a column of sync_run_page: whether it counts towards maxRecords, is in the '
  'stats of a run, is in metrics()';

-- Whatever of a message may come from outside (an upstream, a webhook, an id, an error of somebody's function) goes
-- through this.
CREATE FUNCTION _flohsync.clean(_text text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_clean';
COMMENT ON FUNCTION _flohsync.clean(text) IS
  'A text made fit for a message: one line without control characters and bidirectional formatting '
  'characters, at most 4096 bytes';

CREATE FUNCTION _flohsync.stage(_stage text) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'flohsync_stage';
COMMENT ON FUNCTION _flohsync.stage(text) IS
  'Publishes the stage of a worker''s run immediately; does nothing in other processes';

CREATE FUNCTION _flohsync.url_problem(_url text) RETURNS text
LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_url_problem';
COMMENT ON FUNCTION _flohsync.url_problem(text) IS 'Why an http or https URL is invalid; null when it is valid';

CREATE FUNCTION _flohsync.kinds() RETURNS text[]
LANGUAGE c IMMUTABLE AS 'MODULE_PATHNAME', 'flohsync_kinds';
COMMENT ON FUNCTION _flohsync.kinds() IS 'Kinds of connectors';

CREATE FUNCTION _flohsync.origins(_kind text, _config jsonb, _definition jsonb) RETURNS text[]
LANGUAGE c IMMUTABLE AS 'MODULE_PATHNAME', 'flohsync_origins';
COMMENT ON FUNCTION _flohsync.origins(text, jsonb, jsonb) IS
  'All origins that requests of a connector can be sent to, sorted; malformed URLs are skipped';

CREATE FUNCTION _flohsync.query_problem(_query text) RETURNS text
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_query_problem';
COMMENT ON FUNCTION _flohsync.query_problem(text) IS 'Why a text is not one SELECT; null when it is one';

CREATE FUNCTION flohsync.canonical_json(value jsonb) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_canonical_json';
COMMENT ON FUNCTION flohsync.canonical_json(jsonb) IS
  'Canonical form of a JSON value: RFC 8785, except that integers and numbers a double cannot '
  'hold keep their exact digits';
SELECT _flohsync.allow('reader', 'flohsync.canonical_json(jsonb)');

CREATE FUNCTION flohsync.resource_hash(external_id text, display_name text, email text, attributes jsonb) RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_resource_hash';
COMMENT ON FUNCTION flohsync.resource_hash(text, text, text, jsonb) IS
  'SHA-256, 64 lower-case hex digits, of the canonical form of '
  '{"attributes":…,"displayName":…,"email":…,"externalId":…}; an absent value counts as null';
SELECT _flohsync.allow('reader', 'flohsync.resource_hash(text, text, text, jsonb)');

-- Not md5: a server in FIPS mode has none.
CREATE FUNCTION _flohsync.digest(_text text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(_text, 'UTF8')), 'hex');
COMMENT ON FUNCTION _flohsync.digest(text) IS 'SHA-256 of a text, in hex digits';

CREATE FUNCTION _flohsync.record_hash(external_id text, display_name text, email text, attributes jsonb, ignored text[])
  RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_record_hash';
COMMENT ON FUNCTION _flohsync.record_hash(text, text, text, jsonb, text[]) IS
  'resource_hash of a record, less the attributes that paths name ("a.b" or "attributes.a.b"): sync_hash of a '
  'configuration with this hash_ignore';

-- Every change of a record invalidates it in the cache (70_cache).
CREATE FUNCTION _flohsync.caching() RETURNS boolean
LANGUAGE c VOLATILE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_caching';
COMMENT ON FUNCTION _flohsync.caching() IS
  'Whether changes must be recorded for the cache; valid until the end of the transaction';

CREATE FUNCTION _flohsync.invalidate(_connector uuid, _type text, _ids text[]) RETURNS void
LANGUAGE c VOLATILE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_invalidate';
COMMENT ON FUNCTION _flohsync.invalidate(uuid, text, text[]) IS
  'Invalidates records in the cache by their ids after commit; does nothing when there is no cache, or for null';

CREATE FUNCTION _flohsync.invalidate_all(_connector uuid, _type text) RETURNS void
LANGUAGE c VOLATILE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_invalidate_all';
COMMENT ON FUNCTION _flohsync.invalidate_all(uuid, text) IS
  'Invalidates all records of a type, or with null of a connector, in the cache after commit';
