-- What must hold before anything is created: run as an extension, in a UTF-8
-- database, in a schema not prepared by another role, with a role for the workers.

\echo Use "CREATE EXTENSION flohsync" to load this file. \quit

-- Operators and types are PostgreSQL's own, whatever somebody put into a schema
-- of our name.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
-- Everything is new (90_rights.sql), whatever somebody set.
SELECT pg_catalog.set_config('flohsync_step.before', '{}', true);

DO $guard$
DECLARE
  messages text := current_setting('client_min_messages');
  worker text := coalesce(nullif(current_setting('flohsync.worker_role', true), ''), 'flohsync_worker');
BEGIN
  IF current_setting('server_encoding') <> 'UTF8' THEN
    RAISE feature_not_supported USING
      MESSAGE = 'flohsync requires a database with encoding UTF8',
      DETAIL = format('The encoding of this database is %s.', current_setting('server_encoding')),
      HINT = 'Create one with CREATE DATABASE name ENCODING ''UTF8'' TEMPLATE template0.';
  END IF;

  -- A schema that another role made first could be full of traps.  Another superuser's, of a dump, is none.
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace n
                  WHERE n.nspname = 'flohsync'
                    AND EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = n.nspowner AND r.rolsuper))
     OR EXISTS (SELECT FROM pg_catalog.pg_depend d
                 WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = 'flohsync'::regnamespace
                   AND d.classid <> 'pg_extension'::regclass) THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = 'schema "flohsync" exists and is not empty, or does not belong to a superuser',
      HINT = 'Rename or drop that schema; CREATE EXTENSION creates its own.';
  END IF;

  -- Workers connect as this role.  Background workers do not count against a
  -- connection limit, so 0 keeps everyone else out (InitializeSessionUserId).
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = worker) THEN
    IF worker <> 'flohsync_worker' THEN
      RAISE undefined_object USING
        MESSAGE = format('role "%s" of flohsync.worker_role does not exist', worker);
    END IF;
    BEGIN
      CREATE ROLE flohsync_worker LOGIN NOINHERIT CONNECTION LIMIT 0;
      COMMENT ON ROLE flohsync_worker IS 'flohsync background workers; nobody logs in as this role';
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;  -- in another database at the same time
    END;
  ELSIF EXISTS (SELECT FROM pg_catalog.pg_roles r
                 WHERE r.rolname = worker
                   AND (r.rolsuper OR r.rolcreaterole OR r.rolbypassrls OR r.rolreplication OR NOT r.rolcanlogin
                        OR EXISTS (SELECT FROM pg_catalog.pg_roles o
                                   WHERE pg_catalog.pg_has_role(r.oid, o.oid, 'MEMBER')
                                      AND (o.rolsuper OR o.rolname
                                           IN ('pg_execute_server_program', 'pg_read_server_files',
                                               'pg_write_server_files'))))) THEN
    RAISE invalid_role_specification USING
      MESSAGE = format('role "%s" cannot be the role of the flohsync workers', worker),
      DETAIL = 'It must be able to log in and have none of SUPERUSER, CREATEROLE, BYPASSRLS and REPLICATION, nor be a '
               'member of a superuser or of a role that reaches the server''s files.',
      HINT = 'Set flohsync.worker_role to another role.';
  ELSIF worker = 'flohsync_worker'
        AND (EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = worker AND r.rolconnlimit <> 0)
             OR EXISTS (SELECT FROM pg_catalog.pg_auth_members m
                         WHERE m.roleid = (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = worker)
                           AND pg_catalog.pg_get_userbyid(m.member) <> 'flohsync_owner')) THEN
    RAISE invalid_role_specification USING
      MESSAGE = format('role "%s" exists, and others can use it', worker),
      DETAIL = 'It must have CONNECTION LIMIT 0, and no members.',
      HINT = 'Change it with ALTER ROLE and REVOKE, or set flohsync.worker_role to another role.';
  END IF;

  -- Roles without LOGIN: the owner of all objects, and one without privileges
  -- for code of others that has no role of its own (src/base/run_as.c).
  FOREACH worker IN ARRAY ARRAY['flohsync_owner', 'flohsync_nobody'] LOOP
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = worker) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I', worker);
        EXECUTE format('COMMENT ON ROLE %I IS %L', worker, CASE worker WHEN 'flohsync_owner'
          THEN 'Owns the objects of flohsync; cannot log in'
            ELSE 'Runs code for which flohsync has no other role; has no privileges' END);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;  -- in another database at the same time
      END;
    ELSIF EXISTS (SELECT FROM pg_catalog.pg_roles r
                   WHERE r.rolname = worker
                     AND (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolbypassrls OR r.rolreplication
                          OR r.rolcanlogin
                          OR EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.roleid = r.oid)
                          OR EXISTS (SELECT FROM pg_catalog.pg_roles o
                                      WHERE o.oid <> r.oid AND pg_catalog.pg_has_role(r.oid, o.oid, 'MEMBER')
                                        AND (o.rolsuper OR (o.rolname ~ '^pg_'
                                                            AND (r.rolname, o.rolname)
                                                            <> ('flohsync_owner', 'pg_read_all_stats')))))) THEN
      RAISE invalid_role_specification USING
        MESSAGE = format('role "%s" exists with privileges that it must not have', worker),
        DETAIL = 'It must have none of LOGIN, SUPERUSER, CREATEROLE, CREATEDB, BYPASSRLS and REPLICATION, have no '
                 'members, and be a member of no superuser or predefined role.',
        HINT = 'Revoke these from the role, or rename it.';
    END IF;
  END LOOP;

  -- It tells readers which processes of flohsync there are.
  IF NOT pg_catalog.pg_has_role('flohsync_owner', 'pg_read_all_stats', 'USAGE') THEN
    GRANT pg_read_all_stats TO flohsync_owner;
  END IF;

  IF NOT 'flohsync' = ANY (
       pg_catalog.regexp_split_to_array(
         pg_catalog.replace(current_setting('shared_preload_libraries'), '"', ''), '\s*,\s*')) THEN
    -- A script runs with notices off (execute_extension_script): give the
    -- session its own level back for this one, unless it wants still less.
    PERFORM pg_catalog.set_config('client_min_messages', s.reset_val, true)
       FROM pg_catalog.pg_settings s WHERE s.name = 'client_min_messages' AND s.setting = 'warning';
    RAISE NOTICE USING
      MESSAGE = 'flohsync is not in shared_preload_libraries: schedules will not run',
      HINT = 'trigger_sync() and CALL sync() work; add flohsync to shared_preload_libraries and restart, or schedule '
             'CALL flohsync.sync(...) with pg_cron.';
    PERFORM pg_catalog.set_config('client_min_messages', messages, true);
  END IF;
END
$guard$;

COMMENT ON SCHEMA flohsync IS 'Local copies of upstream directories, kept in sync';

-- Internal objects.  The schema must not exist yet.
CREATE SCHEMA _flohsync;
COMMENT ON SCHEMA _flohsync IS 'Internal objects of flohsync; not for users, and subject to change';
-- Who called, who may do what, and roles as tables keep them.
--
-- Everything in the two schemas belongs to flohsync_owner.  Public functions
-- run as that role, so inside them it is current_user; they act for the
-- caller, whose permissions are checked here.  Functions that need to
-- know the caller come in two halves (src/base/run_as.c, src/entry/rights.c).
--
-- Who may call a function or read a table is declared right behind it, with
-- _flohsync.allow().  grant_reader() and grant_manager() give what is declared,
-- and nothing else; what is not declared is for superusers.

CREATE FUNCTION _flohsync.caller() RETURNS oid
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_caller';
COMMENT ON FUNCTION _flohsync.caller() IS
  'Role that called the public function, for its inner half, which runs as the owner; 42501 anywhere else';

CREATE FUNCTION _flohsync.caller_name() RETURNS name
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_caller_name';
COMMENT ON FUNCTION _flohsync.caller_name() IS
  'Name of the role that called the public function, for the record; also for an inner half that runs as the '
  'worker; 42501 anywhere else';

CREATE FUNCTION _flohsync.acting_role() RETURNS oid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE current_user WHEN 'flohsync_owner' THEN _flohsync.caller()
       ELSE (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = current_user) END;
COMMENT ON FUNCTION _flohsync.acting_role() IS
  'Role on whose behalf a table is written: inside functions of flohsync their caller, else the current role';

CREATE FUNCTION _flohsync.may_act_as(_role oid) RETURNS boolean
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
RETURN (SELECT r.rolsuper OR pg_catalog.pg_has_role(r.oid, _role,
                 CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)
          FROM pg_catalog.pg_roles r WHERE r.oid = _flohsync.acting_role());
COMMENT ON FUNCTION _flohsync.may_act_as(oid) IS 'Whether the acting role could take another one with SET ROLE';

-- Roles in tables (src/entry/rights.c).

CREATE TYPE _flohsync.role;
CREATE FUNCTION _flohsync.role_in(cstring) RETURNS _flohsync.role
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_role_in';
COMMENT ON FUNCTION _flohsync.role_in(cstring) IS
  'Input of type role: the name of a role, or ? and the name of a dropped role';
CREATE FUNCTION _flohsync.role_out(_flohsync.role) RETURNS cstring
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_role_out';
COMMENT ON FUNCTION _flohsync.role_out(_flohsync.role) IS 'Output of type role';
CREATE TYPE _flohsync.role (INPUT = _flohsync.role_in, OUTPUT = _flohsync.role_out, INTERNALLENGTH = 68,
                            ALIGNMENT = int4, STORAGE = plain);
COMMENT ON TYPE _flohsync.role IS
  'Reference to a role: follows renaming, is dumped by name, and does not refer to a later role of the same name '
  'once the role has been dropped';

CREATE FUNCTION _flohsync.role(_id oid) RETURNS _flohsync.role
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_role_from_oid';
COMMENT ON FUNCTION _flohsync.role(oid) IS 'The role of an id; 42704 when there is none';
CREATE FUNCTION _flohsync.role_oid(_role _flohsync.role) RETURNS oid
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_role_oid';
COMMENT ON FUNCTION _flohsync.role_oid(_flohsync.role) IS 'OID of a role; null when it has been dropped';
CREATE FUNCTION _flohsync.role_name(_role _flohsync.role) RETURNS text
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_role_name';
COMMENT ON FUNCTION _flohsync.role_name(_flohsync.role) IS 'Name of a role, also of a dropped one';
CREATE FUNCTION _flohsync.role_gone(_role _flohsync.role) RETURNS _flohsync.role
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_role_gone';
COMMENT ON FUNCTION _flohsync.role_gone(_flohsync.role) IS
  'The role marked as dropped, so that nothing runs as it any more';

-- Declarations.  Objects are known by their text, which pg_upgrade does not change.

CREATE TABLE _flohsync.access (
  object  text COLLATE "C" NOT NULL,
  level   text COLLATE "C" NOT NULL CHECK (level IN ('reader', 'manager')),
  kind    text NOT NULL CHECK (kind IN ('FUNCTION', 'PROCEDURE', 'TABLE')),
  columns text,
  PRIMARY KEY (object, level)
);
COMMENT ON TABLE _flohsync.access IS
  'What grant_reader() and grant_manager() grant; filled by the script of the extension';
COMMENT ON COLUMN _flohsync.access.object IS 'Function with its argument types, or table or view, with its schema';
COMMENT ON COLUMN _flohsync.access.level IS 'reader: readers and managers; manager: managers only';
COMMENT ON COLUMN _flohsync.access.kind IS 'FUNCTION or PROCEDURE (EXECUTE), TABLE (SELECT)';
COMMENT ON COLUMN _flohsync.access.columns IS 'Columns of a table, separated by commas; null: all';

CREATE FUNCTION _flohsync.allow(_level text, _object text, _columns text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  routine regprocedure := CASE WHEN _object LIKE '%(%' THEN _object::regprocedure END;
BEGIN
  INSERT INTO _flohsync.access (object, level, kind, columns)
  SELECT coalesce(routine::text, _object::regclass::text), _level,
         CASE WHEN routine IS NULL THEN 'TABLE'
              ELSE (SELECT CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END FROM pg_proc p
                    WHERE p.oid = routine) END,
         _columns;
END
$$;
COMMENT ON FUNCTION _flohsync.allow(text, text, text) IS
  'Declares which roles may call a function or read a table; for the extension script';
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
SET search_path = pg_catalog, pg_temp
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
-- Connectors: where upstreams are and how they are asked.

-- Which database this is: made by CREATE EXTENSION, and not dumped.  A connector
-- restored from a dump has its previous home, and is not synced here before
-- adopt() has been called.
CREATE TABLE _flohsync.home (
  id   uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
  single boolean NOT NULL DEFAULT true UNIQUE CHECK (single)
);
COMMENT ON TABLE _flohsync.home IS 'Identity of this database; excluded from dumps';
COMMENT ON COLUMN _flohsync.home.id IS 'Made by CREATE EXTENSION';
COMMENT ON COLUMN _flohsync.home.single IS 'There is one row';
INSERT INTO _flohsync.home DEFAULT VALUES;
CREATE FUNCTION _flohsync.home() RETURNS uuid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN (SELECT h.id FROM _flohsync.home h);
COMMENT ON FUNCTION _flohsync.home() IS 'Id of this database';

CREATE TABLE flohsync.connector_definition (
  id          uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
  name        text NOT NULL UNIQUE CHECK (name <> '' AND pg_catalog.length(name) <= 255),
  kind        text NOT NULL CHECK (kind = ANY (_flohsync.kinds())),
  description text,
  config      jsonb NOT NULL DEFAULT '{}' CHECK (pg_catalog.jsonb_typeof(config) = 'object'),
  definition  jsonb CHECK (pg_catalog.jsonb_typeof(definition) = 'object'),
  enabled     boolean NOT NULL DEFAULT true,
  created_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
  updated_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
  origins     text[] COLLATE "C" GENERATED ALWAYS AS (_flohsync.origins(kind, config, definition)) STORED,
  author      _flohsync.role NOT NULL,
  code_owner  _flohsync.role,
  home        uuid NOT NULL DEFAULT _flohsync.home()
);
COMMENT ON TABLE flohsync.connector_definition IS 'One row per upstream';
COMMENT ON COLUMN flohsync.connector_definition.id IS 'Identity of the connector';
COMMENT ON COLUMN flohsync.connector_definition.name IS 'Name by which SQL functions take the connector';
COMMENT ON COLUMN flohsync.connector_definition.kind IS
  'command (one HTTP POST a page), sql (a query or function in this database), rest (declarative definition)';
COMMENT ON COLUMN flohsync.connector_definition.description IS 'Free text';
COMMENT ON COLUMN flohsync.connector_definition.config IS 'Settings of the kind, without secrets';
COMMENT ON COLUMN flohsync.connector_definition.definition IS 'Declarative definition of kind rest';
COMMENT ON COLUMN flohsync.connector_definition.enabled IS 'When false, no run of the connector starts';
COMMENT ON COLUMN flohsync.connector_definition.created_at IS 'When the row was created';
COMMENT ON COLUMN flohsync.connector_definition.updated_at IS 'When the row was last changed';
COMMENT ON COLUMN flohsync.connector_definition.origins IS
  'Origins that requests can be sent to, by config and definition: scheme://host, with the '
  'port unless it is the default';
COMMENT ON COLUMN flohsync.connector_definition.author IS
  'Role that last changed what kind sql runs; a type without a configuration runs with its rights';
COMMENT ON COLUMN flohsync.connector_definition.code_owner IS
  'Owner of the function of kind sql at that time; the function is not run after a change of its owner';
COMMENT ON COLUMN flohsync.connector_definition.home IS 'Database that syncs it, see adopt()';
SELECT _flohsync.allow('reader', 'flohsync.connector_definition',
                       'id, name, kind, description, enabled, created_at, updated_at');
SELECT _flohsync.allow('manager', 'flohsync.connector_definition');

CREATE FUNCTION _flohsync.invalid(_key text, _problem text, _hint text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.raise('22023',
    format('invalid value for "%s": %s', _key, _problem),
    NULL,
    coalesce(_hint, 'Nothing was changed. doc/configuration.md and doc/connectors.md list every key '
                    'with its meaning and default.'));
END
$$;
COMMENT ON FUNCTION _flohsync.invalid(text, text, text) IS 'Raises 22023 for a setting, naming its key';

CREATE FUNCTION _flohsync.unknown_key(_key text, _where text, _known text[]) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.raise('22023',
    format('unknown key "%s" in %s', _key, _where),
    NULL,
    format('Known keys are %s.', array_to_string(_known, ', ')));
END
$$;
COMMENT ON FUNCTION _flohsync.unknown_key(text, text, text[]) IS
  'Raises 22023 for a key that a settings object does not have';

CREATE FUNCTION _flohsync.check_keys(_object jsonb, _where text, _known text[]) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  k text;
BEGIN
  IF _object IS NULL OR jsonb_typeof(_object) <> 'object' THEN
    PERFORM _flohsync.invalid(_where, 'it must be a JSON object');
  END IF;
  FOR k IN SELECT * FROM jsonb_object_keys(_object) LOOP
    IF NOT k = ANY (_known) THEN
      PERFORM _flohsync.unknown_key(k, _where, _known);
    END IF;
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.check_keys(jsonb, text, text[]) IS
  'Raises 22023 unless the value is an object with known keys only';

CREATE FUNCTION _flohsync.check_tables() RETURNS boolean
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_check_tables';
COMMENT ON FUNCTION _flohsync.check_tables() IS
  'True; raises 55000 when row level security, a rule or a disabled trigger affects a table of flohsync';

CREATE FUNCTION _flohsync.connector_id(_connector text) RETURNS uuid
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  found_id uuid;
  known text;
BEGIN
  PERFORM _flohsync.check_tables();
  SELECT d.id INTO found_id FROM flohsync.connector_definition d WHERE d.name = _connector;
  IF found_id IS NULL AND _connector ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
    SELECT d.id INTO found_id FROM flohsync.connector_definition d WHERE d.id = _connector::uuid;
  END IF;
  IF found_id IS NULL THEN
    SELECT string_agg(s.name, ', ') || CASE WHEN max(s.n) > 20 THEN format(' and %s more', max(s.n) - 20)
      ELSE '' END INTO known
      FROM (SELECT d.name, count(*) OVER () AS n FROM flohsync.connector_definition d ORDER BY d.name LIMIT 20) s;
    PERFORM _flohsync.raise('42704',
      format('connector %s does not exist', coalesce('"' || _connector || '"', 'NULL')),
      NULL,
      coalesce('Connectors are: ' || known || '.',
               'There are no connectors; create one with flohsync.create_connector().'));
  END IF;
  RETURN found_id;
END
$$;
COMMENT ON FUNCTION _flohsync.connector_id(text) IS 'Id of a connector given its name or id; 42704 when there is none';

-- All writers of data of a connector start with this: dropping it waits for them, and they for that.
CREATE FUNCTION _flohsync.hold_connector(_connector text) RETURNS uuid
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _id uuid;
BEGIN
  LOOP
    _id := _flohsync.connector_id(_connector);
    PERFORM _flohsync.lock('connector', _id::text, true);
    -- It may have been dropped meanwhile, or the name is another one's.
    IF _flohsync.connector_id(_connector) = _id THEN
      RETURN _id;
    END IF;
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.hold_connector(text) IS
  'Id of a connector given its name or id, locked against being dropped until the end of the transaction; 42704 when '
  'there is none';

CREATE FUNCTION _flohsync.check_resource_type(_resource_type text) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _resource_type IS NULL OR _resource_type !~ '^[A-Za-z][A-Za-z0-9_.-]{0,63}$' THEN
    PERFORM _flohsync.invalid('resource_type',
                              format('%s is not a resource type', coalesce(quote_literal(_resource_type), 'NULL')),
      'A resource type is a letter followed by at most 63 letters, digits, "_", "." or "-".');
  END IF;
  RETURN _resource_type;
END
$$;
COMMENT ON FUNCTION _flohsync.check_resource_type(text) IS 'The resource type itself; 22023 when it is malformed';

CREATE FUNCTION _flohsync.check_external_id(_external_id text) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF coalesce(length(_external_id), 0) NOT BETWEEN 1 AND 255 THEN
    PERFORM _flohsync.invalid('external_id', 'it must have 1 to 255 characters',
                              'It is the id of the record in the upstream.');
  END IF;
  RETURN _external_id;
END
$$;
COMMENT ON FUNCTION _flohsync.check_external_id(text) IS 'The external id itself; 22023 when no record can have it';

CREATE FUNCTION _flohsync.header_problem(_name text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE
  WHEN _name !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]+$' THEN pg_catalog.format('header "%s" is malformed', _name)
  WHEN pg_catalog.lower(_name COLLATE "C") IN ('host', 'content-length', 'transfer-encoding', 'connection', 'expect',
                                               'te', 'trailer', 'upgrade',
                                   'accept-encoding', 'keep-alive', 'proxy-authorization', 'proxy-connection')
    THEN pg_catalog.format('header "%s" is set by flohsync itself', _name)
END;
COMMENT ON FUNCTION _flohsync.header_problem(text) IS 'Why a header of this name cannot be sent; null when it can';

-- What differs from kind to kind is in a topic file of the kind, in functions that
-- have its name: check_<kind>, types_<kind> and credentials_<kind>.

CREATE FUNCTION _flohsync.check_connector(_kind text, _config jsonb, _definition jsonb, _given boolean) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  kinds constant text[] := _flohsync.kinds();
BEGIN
  IF _kind IS NULL OR NOT _kind = ANY (kinds) THEN
    PERFORM _flohsync.invalid('kind', format('%s is not a kind of connector', coalesce(quote_literal(_kind), 'NULL')),
      format('Kinds are %s and %s.', array_to_string(trim_array(kinds, 1), ', '), kinds[cardinality(kinds)]));
  END IF;
  EXECUTE format('SELECT _flohsync.%I($1, $2, $3)', 'check_' || _kind) USING _config, _definition, _given;
END
$$;
COMMENT ON FUNCTION _flohsync.check_connector(text, jsonb, jsonb, boolean) IS
  'Raises 22023 for a connector that makes no sense, naming the key; _given: by somebody, now, so that what '
  'it refers to must be there';

CREATE FUNCTION _flohsync.check_no_definition(_kind text, _definition jsonb) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _definition IS NOT NULL THEN
    PERFORM _flohsync.invalid('definition', format('a connector of kind %s has none', _kind));
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_no_definition(text, jsonb) IS
  'Raises 22023 for a definition of a connector whose kind has none';

CREATE FUNCTION _flohsync.of_kind(_what text, _kind text, _config jsonb, _definition jsonb) RETURNS SETOF text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _kind = ANY (_flohsync.kinds()) THEN
    RETURN QUERY EXECUTE format('SELECT x FROM _flohsync.%I($1, $2) x ORDER BY 1', _what || '_' || _kind)
      USING _config, _definition;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.of_kind(text, text, jsonb, jsonb) IS
  'The types that a connector''s config or definition names, or the secrets that it looks for; none '
  'for a kind that is not known';

CREATE FUNCTION _flohsync.create_connector(name text, kind text, config jsonb, definition jsonb) RETURNS uuid
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  new_id uuid;
BEGIN
  IF create_connector.name IS NULL OR create_connector.name = '' OR length(create_connector.name) > 255 THEN
    PERFORM _flohsync.invalid('name', 'it must have 1 to 255 characters');
  END IF;
  PERFORM _flohsync.check_connector(create_connector.kind, create_connector.config, create_connector.definition, true);
  BEGIN
    INSERT INTO flohsync.connector_definition (name, kind, config, definition)
    VALUES (create_connector.name, create_connector.kind, create_connector.config, create_connector.definition)
    RETURNING id INTO new_id;
  EXCEPTION WHEN unique_violation THEN
    PERFORM _flohsync.raise('42710',
      format('connector "%s" already exists', create_connector.name),
      NULL,
      'Change it with flohsync.update_connector().');
  END;
  RETURN new_id;
END
$$;
COMMENT ON FUNCTION _flohsync.create_connector(text, text, jsonb, jsonb) IS
  'Implementation of the public function of this name, run as its owner';

CREATE FUNCTION flohsync.create_connector(name text, kind text, config jsonb, definition jsonb DEFAULT NULL)
  RETURNS uuid
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_owner';
COMMENT ON FUNCTION flohsync.create_connector(text, text, jsonb, jsonb) IS
  'Creates a connector and returns its id; 22023 names the invalid key of config, 42710 when the name is taken';
SELECT _flohsync.allow('manager', 'flohsync.create_connector(text, text, jsonb, jsonb)');

CREATE FUNCTION _flohsync.update_connector(connector text, settings jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  d flohsync.connector_definition;
  _id uuid := _flohsync.hold_connector(connector);
BEGIN
  -- A name is a key: to change it takes the stronger lock, and it is taken at once.
  IF settings ? 'name' THEN
    SELECT * INTO STRICT d FROM flohsync.connector_definition x WHERE x.id = _id FOR UPDATE;
  ELSE
    SELECT * INTO STRICT d FROM flohsync.connector_definition x WHERE x.id = _id FOR NO KEY UPDATE;
  END IF;
  PERFORM _flohsync.check_keys(settings, 'settings', ARRAY['name', 'description', 'config', 'definition', 'enabled']);
  IF settings ? 'name' THEN
    IF jsonb_typeof(settings -> 'name') <> 'string' OR length(settings ->> 'name') NOT BETWEEN 1 AND 255 THEN
      PERFORM _flohsync.invalid('name', 'it must be a string of 1 to 255 characters');
    END IF;
    d.name := settings ->> 'name';
  END IF;
  IF settings ? 'description' THEN
    IF jsonb_typeof(settings -> 'description') NOT IN ('string', 'null') THEN
      PERFORM _flohsync.invalid('description', 'it must be a string or null');
    END IF;
    d.description := settings ->> 'description';
  END IF;
  IF settings ? 'enabled' THEN
    IF jsonb_typeof(settings -> 'enabled') <> 'boolean' THEN
      PERFORM _flohsync.invalid('enabled', 'it must be true or false');
    END IF;
    d.enabled := (settings ->> 'enabled')::boolean;
  END IF;
  IF settings ? 'config' THEN
    IF jsonb_typeof(settings -> 'config') <> 'object' THEN
      PERFORM _flohsync.invalid('config', 'it must be an object');
    END IF;
    -- Only the keys given change; a null one goes.
    SELECT coalesce(jsonb_object_agg(e.key, e.value), '{}') INTO d.config
      FROM jsonb_each(d.config || (settings -> 'config')) e
     WHERE e.value <> 'null' OR NOT (settings -> 'config') ? e.key;
  END IF;
  IF settings ? 'definition' THEN
    d.definition := nullif(settings -> 'definition', 'null');
  END IF;
  IF settings ? 'config' THEN
    PERFORM _flohsync.check_connector(d.kind, d.config, d.definition, true);
  END IF;
  -- By itself: whoever sets a key, be it to what it is, locks out those who refer to the connector.
  IF settings ? 'name' THEN
    BEGIN
      UPDATE flohsync.connector_definition x SET name = d.name WHERE x.id = d.id;
    EXCEPTION WHEN unique_violation THEN
      PERFORM _flohsync.raise('42710', format('connector "%s" already exists', d.name));
    END;
  END IF;
  UPDATE flohsync.connector_definition x
     SET description = d.description, config = d.config, definition = d.definition, enabled = d.enabled,
       updated_at = now(),
         -- a function that has another owner by now
         code_owner = CASE WHEN settings ? 'config' THEN _flohsync.code_owner(d.kind, d.config) ELSE x.code_owner END
   WHERE x.id = d.id;
  -- What is cached came from where the connector looked before.
  IF settings ?| ARRAY['config', 'definition'] THEN
    PERFORM _flohsync.invalidate_all(d.id, NULL);
    PERFORM _flohsync.tell_void_secrets(d.id);
  END IF;
  PERFORM _flohsync.wake();
END
$$;
COMMENT ON FUNCTION _flohsync.update_connector(text, jsonb) IS
  'Implementation of the public function of this name, run as its owner';

CREATE FUNCTION flohsync.update_connector(connector text, settings jsonb) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_owner';
COMMENT ON FUNCTION flohsync.update_connector(text, jsonb) IS
  'Changes the given keys (name, description, config, definition, enabled) of a connector; of config, only the keys '
  'given, and null removes one; warns of secrets that were set for another origin and must be set again';
SELECT _flohsync.allow('manager', 'flohsync.update_connector(text, jsonb)');

CREATE FUNCTION flohsync.drop_connector(connector text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _id uuid := _flohsync.connector_id(connector);
  _run bigint;
BEGIN
  -- Running workers are cancelled; then all holders of locks on the connector are waited for.
  PERFORM _flohsync.interrupt_run(r.connector_id, r.resource_type)
     FROM flohsync.sync_run r WHERE r.connector_id = _id AND r.status = 'running';
  PERFORM _flohsync.lock('connector', _id::text, false);
  -- Its row comes last: a holder of a match of a user that is also matched here may be waiting to record a change here.
  PERFORM FROM flohsync.connector_definition d WHERE d.id = _id;
  IF NOT FOUND THEN
    PERFORM _flohsync.connector_id(connector);
  END IF;
  FOR _run IN SELECT r.id FROM flohsync.sync_run r
               WHERE r.connector_id = _id AND r.status IN ('queued', 'running') LOOP
    PERFORM flohsync.cancel_sync(_run);
  END LOOP;
  -- A deletion by another connector's webhook holds all matches of its user, in this order.
  PERFORM FROM flohsync.connector_sync_match m
    WHERE m.connector_id = _id AND EXISTS (SELECT FROM flohsync.connector_sync_match o WHERE o.user_id = m.user_id
                                           AND o.connector_id <> _id)
    ORDER BY m.id FOR UPDATE;
  PERFORM _flohsync.requeue_stale(ARRAY(SELECT DISTINCT m.user_id FROM flohsync.connector_sync_match m
                                        WHERE m.connector_id = _id AND m.user_id IS NOT NULL));
  DELETE FROM flohsync.connector_definition d WHERE d.id = _id;
END
$$;
COMMENT ON FUNCTION flohsync.drop_connector(text) IS
  'Removes a connector with its configurations, records, matches and history';
SELECT _flohsync.allow('manager', 'flohsync.drop_connector(text)');
-- Connectors of kind command, and the names of commands.

CREATE FUNCTION _flohsync.list_command(_config jsonb, _resource_type text) RETURNS text
LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_list_command';
COMMENT ON FUNCTION _flohsync.list_command(jsonb, text) IS
  'Name of the list command of a resource type: commandNames, else listX + s';

CREATE FUNCTION _flohsync.types_of_commands(_config jsonb) RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  WITH part AS (
    SELECT CASE pg_catalog.jsonb_typeof(_config -> 'commandNames')
           WHEN 'object' THEN _config -> 'commandNames' END AS names,
           CASE pg_catalog.jsonb_typeof(_config -> 'commands')
           WHEN 'array' THEN _config -> 'commands' END AS commands)
  SELECT k.key FROM part p CROSS JOIN LATERAL pg_catalog.jsonb_object_keys(p.names) k(key)
  UNION
  SELECT pg_catalog.lower(pg_catalog.substr(c.name, 5, 1) COLLATE "C")
         || pg_catalog.substr(c.name, 6, pg_catalog.length(c.name) - 6)
    FROM part p CROSS JOIN LATERAL pg_catalog.jsonb_array_elements_text(p.commands) c(name)
   WHERE c.name ~ '^list[A-Z][A-Za-z0-9_.-]*s$'
     AND NOT EXISTS (SELECT FROM pg_catalog.jsonb_each_text(p.names) n WHERE n.value = c.name);
END;
COMMENT ON FUNCTION _flohsync.types_of_commands(jsonb) IS 'Resource types whose commands a connector''s config names';

CREATE FUNCTION _flohsync.check_command(_config jsonb, _definition jsonb, _given boolean) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  k text;
  v jsonb;
  problem text;
BEGIN
  PERFORM _flohsync.check_no_definition('command', _definition);
  PERFORM _flohsync.check_keys(_config, 'config', ARRAY['url', 'headers', 'commands', 'commandNames', 'limits']);
  IF jsonb_typeof(_config -> 'url') IS DISTINCT FROM 'string' THEN
    PERFORM _flohsync.invalid('url', 'it is required',
      'Specify the URL that takes the commands, e.g. "https://directory.example.com/api".');
  END IF;
  problem := _flohsync.url_problem(_config ->> 'url');
  IF problem IS NOT NULL THEN
    PERFORM _flohsync.invalid('url', problem);
  END IF;
  IF _config ? 'headers' THEN
    IF jsonb_typeof(_config -> 'headers') <> 'object' THEN
      PERFORM _flohsync.invalid('headers', 'it must be an object of strings');
    END IF;
    FOR k, v IN SELECT * FROM jsonb_each(_config -> 'headers') LOOP
      problem := CASE WHEN jsonb_typeof(v) <> 'string' OR (v #>> '{}') ~ '[\x01-\x08\x0a-\x1f\x7f]'
                      THEN format('header "%s" is malformed', k) ELSE _flohsync.header_problem(k) END;
      IF problem IS NOT NULL THEN
        PERFORM _flohsync.invalid('headers', problem);
      END IF;
    END LOOP;
  END IF;
  IF _config ? 'commands' AND (jsonb_typeof(_config -> 'commands') <> 'array'
      OR jsonb_path_exists(_config, '$.commands[*] ? (@.type() != "string")')) THEN
    PERFORM _flohsync.invalid('commands', 'it must be an array of strings');
  END IF;
  IF _config ? 'commandNames' AND (jsonb_typeof(_config -> 'commandNames') <> 'object'
      OR jsonb_path_exists(_config, '$.commandNames.* ? (@.type() != "string" || @ == "")')) THEN
    PERFORM _flohsync.invalid('commandNames', 'it must be an object of strings');
  END IF;
  IF _config ? 'limits' THEN
    PERFORM _flohsync.check_keys(_config -> 'limits', 'limits', ARRAY['requests_per_minute', 'total_tolerance']);
    v := _config -> 'limits' -> 'requests_per_minute';
    IF v IS NOT NULL
       AND NOT coalesce(_flohsync.number(v) BETWEEN 1 AND 100000 AND _flohsync.number(v) % 1 = 0, false) THEN
      PERFORM _flohsync.invalid('requests_per_minute', 'it must be an integer from 1 to 100000');
    END IF;
    v := _config -> 'limits' -> 'total_tolerance';
    IF v IS NOT NULL AND NOT coalesce(_flohsync.number(v) BETWEEN 0 AND 1, false) THEN
      PERFORM _flohsync.invalid('total_tolerance', 'it must be a number from 0 to 1');
    END IF;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_command(jsonb, jsonb, boolean) IS 'What check_connector() does for kind command';

CREATE FUNCTION _flohsync.types_command(_config jsonb, _definition jsonb) RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN _flohsync.types_of_commands(_config);
COMMENT ON FUNCTION _flohsync.types_command(jsonb, jsonb) IS
  'Resource types that the config of a connector of kind command names';

CREATE FUNCTION _flohsync.credentials_command(_config jsonb, _definition jsonb) RETURNS SETOF text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN 'token';
COMMENT ON FUNCTION _flohsync.credentials_command(jsonb, jsonb) IS 'Secrets that a connector of kind command looks for';
-- Secrets of connectors.  The table holds ciphertext only (src/source/secret_store.c
-- says how), so a dump may carry it: whoever has the dump and the key file has
-- the secrets, whoever lacks one of them has nothing.
--
-- A secret belongs to the origins that its connector had when it was set; they
-- are authenticated with the ciphertext.  One that the connector has come to
-- have since makes it void, one that is gone does not.  What verifies webhooks
-- belongs to none.  In SQL that is shown (usable); src/source/origin.c enforces it.

CREATE TABLE _flohsync.connector_secret (
  connector_id uuid NOT NULL REFERENCES flohsync.connector_definition ON DELETE CASCADE,
  name         text COLLATE "C" NOT NULL,
  format       smallint NOT NULL,
  key_id       text COLLATE "C" NOT NULL,
  ciphertext   bytea NOT NULL,
  updated_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  kind         text COLLATE "C",
  origins      text[] COLLATE "C",
  PRIMARY KEY (connector_id, name)
);
COMMENT ON TABLE _flohsync.connector_secret IS 'Secrets of connectors, encrypted; see set_secret()';
COMMENT ON COLUMN _flohsync.connector_secret.connector_id IS 'Connector';
COMMENT ON COLUMN _flohsync.connector_secret.name IS 'Name by which the kind or the definition refers to it';
COMMENT ON COLUMN _flohsync.connector_secret.format IS 'Version of the format of ciphertext';
COMMENT ON COLUMN _flohsync.connector_secret.key_id IS
  'Identifies the encryption key: 16 hex digits from which the key cannot be derived';
COMMENT ON COLUMN _flohsync.connector_secret.ciphertext IS
  'Nonce, AES-256-GCM ciphertext and tag; connector, name, format, kind and origins are authenticated with it';
COMMENT ON COLUMN _flohsync.connector_secret.updated_at IS 'When the secret was last set';
COMMENT ON COLUMN _flohsync.connector_secret.kind IS
  'Kind of the connector at that time; null for a secret that verifies webhooks';
COMMENT ON COLUMN _flohsync.connector_secret.origins IS
  'Origins of the connector at that time, to which the secret may be sent; null for a secret that verifies webhooks';

CREATE VIEW flohsync.connector_secrets AS
SELECT s.connector_id, d.name AS connector, s.name, s.key_id, s.updated_at, s.origins,
       s.format = 2 AND (s.name IN ('webhook', 'webhook_previous')
                         OR coalesce(s.kind = d.kind AND s.origins @> d.origins, false)) AS usable
  FROM _flohsync.connector_secret s JOIN flohsync.connector_definition d ON d.id = s.connector_id;
COMMENT ON VIEW flohsync.connector_secrets IS 'Names of the secrets that are set, without their values';
COMMENT ON COLUMN flohsync.connector_secrets.connector_id IS 'Connector';
COMMENT ON COLUMN flohsync.connector_secrets.connector IS 'Its name';
COMMENT ON COLUMN flohsync.connector_secrets.name IS 'Name of the secret';
COMMENT ON COLUMN flohsync.connector_secrets.key_id IS 'Which key it is encrypted with';
COMMENT ON COLUMN flohsync.connector_secrets.updated_at IS 'When it was last set';
COMMENT ON COLUMN flohsync.connector_secrets.origins IS
  'Origins of the connector at that time; null for a secret that verifies webhooks, which is never sent';
COMMENT ON COLUMN flohsync.connector_secrets.usable IS
  'False: the connector has a new origin since, and the secret must be set again';
SELECT _flohsync.allow('manager', 'flohsync.connector_secrets');

CREATE FUNCTION flohsync.set_secret(connector text, name text, value text) RETURNS void
LANGUAGE c VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_set_secret';
COMMENT ON FUNCTION flohsync.set_secret(text, text, text) IS
  'Stores a secret of a connector, encrypted, for the current origins of the connector, replacing one of that name; '
  'null removes it. 1 to 65536 bytes. F0000 without a usable flohsync.encryption_key_file, 42704 for an unknown '
  'connector, 22023 for a bad name or length';
SELECT _flohsync.allow('manager', 'flohsync.set_secret(text, text, text)');

CREATE FUNCTION _flohsync.tell_void_secrets(_connector uuid) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  names text;
BEGIN
  SELECT string_agg(s.name, ', ' ORDER BY s.name) INTO names
    FROM flohsync.connector_secrets s WHERE s.connector_id = _connector AND NOT s.usable;
  IF names IS NOT NULL THEN
    RAISE WARNING USING
      MESSAGE = _flohsync.clean((SELECT format('secrets of connector "%s" must be set again: %s', d.name, names)
                                 FROM flohsync.connector_definition d WHERE d.id = _connector)),
      DETAIL = (SELECT format('They were set for an origin other than %s.',
                              coalesce(nullif(array_to_string(d.origins, ', '), ''), 'none'))
                  FROM flohsync.connector_definition d WHERE d.id = _connector),
      HINT = 'Requests that need them fail until they are set again with flohsync.set_secret().';
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.tell_void_secrets(uuid) IS
  'Warns of the secrets of a connector that were set for another origin';

CREATE FUNCTION flohsync.rotate_secrets() RETURNS bigint
LANGUAGE c VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_rotate_secrets';
COMMENT ON FUNCTION flohsync.rotate_secrets() IS
  'Re-encrypts all secrets with the key of flohsync.encryption_key_file, each bound to the same origins as before, and '
  'returns their number; all or none. F0000 when one cannot be decrypted with that key or the one of '
  'flohsync.encryption_key_file_previous';
-- Connectors of kind sql: a query or a function in this database.

CREATE FUNCTION _flohsync.function_of_kind_sql(_name text) RETURNS oid
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  part text[];
BEGIN
  BEGIN
    part := parse_ident(_name);
  EXCEPTION WHEN invalid_parameter_value THEN
    RETURN NULL;
  END;
  -- Not to_regprocedure: it takes USAGE on the schema, which is for who runs the function.
  RETURN (SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
           WHERE p.proname = part[cardinality(part)]
             AND n.nspname = CASE cardinality(part) WHEN 2 THEN part[1] WHEN 1 THEN 'pg_catalog' END
             AND p.pronargs = 1 AND p.proargtypes[0] = 'jsonb'::regtype
             AND p.prorettype = 'jsonb'::regtype AND NOT p.proretset AND p.prokind = 'f');
END
$$;
COMMENT ON FUNCTION _flohsync.function_of_kind_sql(text) IS
  'The function (jsonb) of a name that returns jsonb; null when there is none';

CREATE FUNCTION _flohsync.code_owner(_kind text, _config jsonb) RETURNS _flohsync.role
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN (SELECT _flohsync.role(p.proowner) FROM pg_catalog.pg_proc p
         WHERE _kind = 'sql' AND p.oid = _flohsync.function_of_kind_sql(_config ->> 'function'));
COMMENT ON FUNCTION _flohsync.code_owner(text, jsonb) IS
  'Owner of the function of a connector of kind sql; null where there is none';

CREATE FUNCTION _flohsync.check_sql(_config jsonb, _definition jsonb, _given boolean) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  k text;
  v jsonb;
  problem text;
BEGIN
  PERFORM _flohsync.check_no_definition('sql', _definition);
  PERFORM _flohsync.check_keys(_config, 'config', ARRAY['function', 'queries']);
  IF (_config ? 'function') = (_config ? 'queries') THEN
    PERFORM _flohsync.invalid('config', 'a connector of kind sql has either "function" or "queries"');
  END IF;
  IF _config ? 'function' THEN
    IF jsonb_typeof(_config -> 'function') <> 'string' OR length(_config ->> 'function') > 300 THEN
      PERFORM _flohsync.invalid('function', 'it must be the name of a function',
                                'Specify the function with its schema.');
    END IF;
  ELSE
    IF jsonb_typeof(_config -> 'queries') <> 'object' OR _config -> 'queries' = '{}' THEN
      PERFORM _flohsync.invalid('queries', 'it must be an object of one query per resource type');
    END IF;
    FOR k, v IN SELECT * FROM jsonb_each(_config -> 'queries') LOOP
      PERFORM _flohsync.check_resource_type(k);
      IF jsonb_typeof(v) <> 'string' THEN
        PERFORM _flohsync.invalid('queries', format('the query of "%s" must be a string', k));
      END IF;
      problem := _flohsync.query_problem(v #>> '{}');
      IF problem IS NOT NULL THEN
        PERFORM _flohsync.invalid('queries', format('the query of "%s" cannot be used: %s', k, problem),
          'A query is one SELECT that yields external_id, display_name, email and attributes, '
          || 'and modified_at for incremental runs.');
      END IF;
    END LOOP;
  END IF;
  IF _given AND _config ? 'function' AND _flohsync.function_of_kind_sql(_config ->> 'function') IS NULL THEN
    PERFORM _flohsync.invalid('function',
      format('there is no function %s(jsonb) that returns jsonb', _config ->> 'function'),
      'Specify the function with its schema.');
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_sql(jsonb, jsonb, boolean) IS 'What check_connector() does for kind sql';

CREATE FUNCTION _flohsync.types_sql(_config jsonb, _definition jsonb) RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT k.key
    FROM pg_catalog.jsonb_object_keys(CASE pg_catalog.jsonb_typeof(_config -> 'queries')
                                      WHEN 'object' THEN _config -> 'queries' END) k(key)
  UNION
  SELECT c.type FROM _flohsync.types_of_commands(_config) c(type);
END;
COMMENT ON FUNCTION _flohsync.types_sql(jsonb, jsonb) IS
  'Resource types that the config of a connector of kind sql names';

CREATE FUNCTION _flohsync.credentials_sql(_config jsonb, _definition jsonb) RETURNS SETOF text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT NULL::text WHERE false;
END;
COMMENT ON FUNCTION _flohsync.credentials_sql(jsonb, jsonb) IS 'Secrets that a connector of kind sql looks for: none';
-- Definitions of kind rest: the JSON Schema, and the checks that it drives.
-- The format is described in doc/definition.md.
--
-- validate_definition walks over the schema and the definition together.  It
-- knows the keywords that the schema uses, and no others; a oneOf is decided
-- by the JSON type of the value and by its member "type", so that a fault is
-- reported where it is and not as "none of the alternatives".  What a schema
-- cannot say is in _text_fault (one text), _definition_rules (several places).

CREATE FUNCTION flohsync.definition_schema() RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN $json$
{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "$id": "urn:flohsync:definition:1",
  "title": "Definition of a connector of kind rest",
  "$comment": "flohsync.validate_definition() reads this same document. Its own keywords: x-check names a check that says more than the pattern beside it, x-allow the placeholders that a text may contain, x-need one that it must contain, x-message what to say instead of the general message.",
  "type": "object",
  "required": ["version", "base_url", "resources"],
  "additionalProperties": false,
  "properties": {
    "$schema": {"type": ["string", "null"]},
    "description": {"$ref": "#/$defs/comment"},
    "version": {"const": 1, "description": "Version of the format"},
    "protocol": {"enum": ["http", null], "x-message": "only \"http\" is supported in this version"},
    "base_url": {"$ref": "#/$defs/url", "description": "What the paths of all requests are added to"},
    "headers": {
      "description": "Sent with every request to the API",
      "type": ["object", "null"],
      "maxProperties": 50,
      "propertyNames": {"$ref": "#/$defs/ownHeader"},
      "additionalProperties": {"$ref": "#/$defs/headerValue"}
    },
    "auth": {"$ref": "#/$defs/auth"},
    "http": {
      "type": ["object", "null"],
      "additionalProperties": false,
      "properties": {
        "timeout_ms": {"type": ["integer", "null"], "minimum": 1000, "maximum": 600000},
        "max_response_bytes": {"type": ["integer", "null"], "minimum": 1024, "maximum": 536870912},
        "allow_hosts": {
          "description": "Further hosts to which next links may lead, over https; the credentials are sent there",
          "type": ["array", "null"],
          "maxItems": 20,
          "items": {
            "type": "string",
            "maxLength": 260,
            "pattern": "^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\\[[0-9A-Fa-f:.]+\\])(?::[0-9]{1,5})?$",
            "x-message": "it must be a host, or host:port"
          }
        },
        "tls_ca": {"type": "null", "x-message": "it is not supported in this version"},
        "proxy": {"type": "null", "x-message": "it is not supported in this version"}
      }
    },
    "limits": {
      "type": ["object", "null"],
      "additionalProperties": false,
      "properties": {
        "max_pages": {"type": ["integer", "null"], "minimum": 1, "maximum": 100000},
        "requests_per_minute": {"type": ["integer", "null"], "minimum": 1, "maximum": 100000},
        "remaining_header": {"$ref": "#/$defs/answerHeader"},
        "reset_header": {"$ref": "#/$defs/answerHeader"},
        "reset_format": {"enum": ["epoch", "seconds", null]},
        "also_throttle_status": {"type": ["array", "null"], "maxItems": 20, "items": {"$ref": "#/$defs/errorStatus"}},
        "throttle_body": {"$ref": "#/$defs/pathOrNull"}
      },
      "allOf": [
        {
          "if": {"properties": {"reset_header": {"type": "string"}}, "required": ["reset_header"]},
          "else": {"properties": {"reset_format": {"type": "null", "x-message": "it needs \"reset_header\""}}}
        },
        {
          "if": {"properties": {"also_throttle_status": {"type": "array"}}, "required": ["also_throttle_status"]},
          "else": {"properties": {"throttle_body": {"type": "null", "x-message": "it needs \"also_throttle_status\""}}}
        }
      ]
    },
    "retry": {
      "type": ["object", "null"],
      "additionalProperties": false,
      "properties": {
        "max_attempts": {"type": ["integer", "null"], "minimum": 1, "maximum": 20},
        "base_ms": {"type": ["integer", "null"], "minimum": 1, "maximum": 60000},
        "max_ms": {"type": ["integer", "null"], "minimum": 1, "maximum": 3600000},
        "on_status": {
          "type": ["array", "null"],
          "maxItems": 50,
          "items": {
            "type": "integer", "minimum": 400, "maximum": 599,
            "allOf": [{"if": {"const": 401}, "then": {"maximum": 400, "x-message": "401 is answered by getting a new token, not by trying again"}}]
          }
        }
      }
    },
    "resources": {
      "description": "Resource type to how it is listed and read",
      "type": "object",
      "minProperties": 1,
      "maxProperties": 100,
      "propertyNames": {
        "pattern": "^[A-Za-z][A-Za-z0-9_.-]{0,63}$",
        "x-message": "a resource type is a letter followed by at most 63 letters, digits, \"_\", \".\" or \"-\""
      },
      "additionalProperties": {"$ref": "#/$defs/resource"}
    }
  },
  "$defs": {
    "comment": {"type": ["string", "null"], "maxLength": 10000},
    "path": {
      "description": "A jsonpath of PostgreSQL",
      "type": "string", "minLength": 1, "maxLength": 1000, "x-check": "jsonpath"
    },
    "pathOrNull": {"type": ["string", "null"], "minLength": 1, "maxLength": 1000, "x-check": "jsonpath"},
    "paths": {
      "description": "A jsonpath of PostgreSQL, or several of which the first that finds something counts",
      "oneOf": [
        {"$ref": "#/$defs/path"},
        {"type": "array", "minItems": 1, "maxItems": 10, "items": {"$ref": "#/$defs/path"}}
      ]
    },
    "pathsOrNull": {
      "oneOf": [
        {"type": "null"},
        {"$ref": "#/$defs/path"},
        {"type": "array", "minItems": 1, "maxItems": 10, "items": {"$ref": "#/$defs/path"}}
      ]
    },
    "url": {
      "type": "string", "maxLength": 2000, "x-check": "url", "x-allow": ["config"],
      "pattern": "^(?:https?://(?:[!\"$-.0->A-\\[\\]-z|-~]|\\{\\{config\\.[A-Za-z][A-Za-z0-9_]{0,63}\\}\\})|\\{\\{config\\.[A-Za-z][A-Za-z0-9_]{0,63}\\}\\})(?:[!\"$->A-\\[\\]-z|-~]|\\{\\{config\\.[A-Za-z][A-Za-z0-9_]{0,63}\\}\\})*$"
    },
    "requestPath": {
      "type": "string", "maxLength": 2000, "x-check": "path", "x-allow": ["config", "parent"],
      "pattern": "^/(?!/)(?![^?]*/\\.{1,2}(?:[/?]|$))(?!\\.{1,2}(?:[/?]|$))(?:[!\"$-\\[\\]-z|-~]|\\{(?!\\{)|\\{\\{(?:config\\.[A-Za-z][A-Za-z0-9_]{0,63}|parent\\.(?:external_id|display_name|email|attributes\\.[A-Za-z][A-Za-z0-9_]{0,63}))\\}\\})*$"
    },
    "parameter": {
      "oneOf": [
        {"type": "null"},
        {"type": "number"},
        {"type": "boolean"},
        {
          "type": "string", "maxLength": 8000, "x-allow": ["config", "parent"],
          "pattern": "^(?:[^{]|\\{(?!\\{)|\\{\\{(?:config\\.[A-Za-z][A-Za-z0-9_]{0,63}|parent\\.(?:external_id|display_name|email|attributes\\.[A-Za-z][A-Za-z0-9_]{0,63}))\\}\\})*$"
        }
      ]
    },
    "parameterName": {
      "type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[^\\u0001-\\u001f\\u007f{}]+$",
      "x-message": "it must be a name of 1 to 200 characters, without control characters and braces"
    },
    "where": {"enum": ["query", "body", null]},
    "answerHeader": {
      "type": ["string", "null"], "maxLength": 100, "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$",
      "x-message": "it must be the name of a header"
    },
    "ownHeader": {
      "type": "string", "maxLength": 100, "x-check": "header",
      "pattern": "^(?!(?:[Hh][Oo][Ss][Tt]|[Cc][Oo][Nn][Tt][Ee][Nn][Tt]-[Ll][Ee][Nn][Gg][Tt][Hh]|[Tt][Rr][Aa][Nn][Ss][Ff][Ee][Rr]-[Ee][Nn][Cc][Oo][Dd][Ii][Nn][Gg]|[Cc][Oo][Nn][Nn][Ee][Cc][Tt][Ii][Oo][Nn]|[Ee][Xx][Pp][Ee][Cc][Tt]|[Tt][Ee]|[Tt][Rr][Aa][Ii][Ll][Ee][Rr]|[Uu][Pp][Gg][Rr][Aa][Dd][Ee]|[Aa][Cc][Cc][Ee][Pp][Tt]-[Ee][Nn][Cc][Oo][Dd][Ii][Nn][Gg]|[Aa][Uu][Tt][Hh][Oo][Rr][Ii][Zz][Aa][Tt][Ii][Oo][Nn]|[Pp][Rr][Oo][Xx][Yy]-[Aa][Uu][Tt][Hh][Oo][Rr][Ii][Zz][Aa][Tt][Ii][Oo][Nn]|[Cc][Oo][Oo][Kk][Ii][Ee]|[Kk][Ee][Ee][Pp]-[Aa][Ll][Ii][Vv][Ee]|[Pp][Rr][Oo][Xx][Yy]-[Cc][Oo][Nn][Nn][Ee][Cc][Tt][Ii][Oo][Nn])$)[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
    },
    "headerValue": {
      "type": ["string", "null"], "maxLength": 8000, "x-check": "header_value", "x-allow": ["config", "secret"],
      "pattern": "^(?:[^{\\u0001-\\u001f\\u007f]|\\{(?!\\{)|\\{\\{(?!secret\\.webhook(?:_previous)?\\}\\})(?:config|secret)\\.[A-Za-z][A-Za-z0-9_]{0,63}\\}\\})*$"
    },
    "errorStatus": {"type": "integer", "minimum": 400, "maximum": 599},
    "endStatus": {
      "description": "How the page behind the last one is answered",
      "type": ["array", "null"], "minItems": 1, "maxItems": 10, "items": {"enum": [204, 400, 404, 405, 406, 409, 410, 412, 416, 422, 500, 501, 502, 503, 504]}
    },
    "clientErrors": {"type": ["array", "null"], "minItems": 1, "maxItems": 10, "items": {"type": "integer", "minimum": 400, "maximum": 499}},
    "authText": {
      "type": "string", "minLength": 1, "maxLength": 8000, "x-allow": ["config", "secret"],
      "pattern": "^(?:[^{]|\\{(?!\\{)|\\{\\{(?!secret\\.webhook(?:_previous)?\\}\\})(?:config|secret)\\.[A-Za-z][A-Za-z0-9_]{0,63}\\}\\})*$"
    },
    "authTextOrNull": {
      "type": ["string", "null"], "minLength": 1, "maxLength": 8000, "x-allow": ["config", "secret"],
      "pattern": "^(?:[^{]|\\{(?!\\{)|\\{\\{(?!secret\\.webhook(?:_previous)?\\}\\})(?:config|secret)\\.[A-Za-z][A-Za-z0-9_]{0,63}\\}\\})*$"
    },
    "credential": {
      "description": "Must contain a {{secret.NAME}}",
      "type": "string", "maxLength": 8000, "x-allow": ["config", "secret"], "x-need": "secret",
      "pattern": "^(?=[\\s\\S]*\\{\\{secret\\.)(?:[^{]|\\{(?!\\{)|\\{\\{(?!secret\\.webhook(?:_previous)?\\}\\})(?:config|secret)\\.[A-Za-z][A-Za-z0-9_]{0,63}\\}\\})*$"
    },
    "credentialOrNull": {
      "description": "Must contain a {{secret.NAME}}",
      "type": ["string", "null"], "maxLength": 8000, "x-allow": ["config", "secret"], "x-need": "secret",
      "pattern": "^(?=[\\s\\S]*\\{\\{secret\\.)(?:[^{]|\\{(?!\\{)|\\{\\{(?!secret\\.webhook(?:_previous)?\\}\\})(?:config|secret)\\.[A-Za-z][A-Za-z0-9_]{0,63}\\}\\})*$"
    },
    "algorithm": {"enum": ["RS256", "PS256", "ES256", null]},
    "auth": {
      "description": "How to log in",
      "oneOf": [
        {"type": "null"},
        {
          "type": "object",
          "required": ["type"],
          "additionalProperties": false,
          "properties": {"type": {"const": "none"}}
        },
        {
          "type": "object",
          "required": ["type", "username", "password"],
          "additionalProperties": false,
          "properties": {
            "type": {"const": "basic"},
            "username": {"$ref": "#/$defs/authText"},
            "password": {"$ref": "#/$defs/credential"}
          }
        },
        {
          "type": "object",
          "required": ["type", "token"],
          "additionalProperties": false,
          "properties": {"type": {"const": "bearer"}, "token": {"$ref": "#/$defs/credential"}}
        },
        {
          "type": "object",
          "required": ["type", "value"],
          "additionalProperties": false,
          "properties": {
            "type": {"const": "api_key"},
            "header": {"$ref": "#/$defs/answerHeader"},
            "prefix": {
              "type": ["string", "null"], "maxLength": 100, "pattern": "^[^{}\\u0001-\\u001f\\u007f]*$",
              "x-message": "it must be a text of at most 100 characters, without control characters and braces"
            },
            "query": {
              "type": ["string", "null"], "minLength": 1, "maxLength": 200, "pattern": "^[^\\u0001-\\u001f\\u007f{}]+$",
              "x-message": "it must be a name of 1 to 200 characters, without control characters and braces"
            },
            "value": {"$ref": "#/$defs/credential"}
          },
          "allOf": [
            {
              "if": {"properties": {"header": {"type": "string"}}, "required": ["header"]},
              "then": {"properties": {"query": {"type": "null", "x-message": "there is either a \"header\" or a \"query\""}}},
              "else": {
                "required": ["query"],
                "properties": {
                  "query": {"type": "string", "x-message": "it must be a text, unless there is a \"header\""},
                  "prefix": {"type": "null", "x-message": "it goes only with \"header\""}
                }
              }
            }
          ]
        },
        {
          "type": "object",
          "required": ["type", "token_url", "client_id"],
          "additionalProperties": false,
          "properties": {
            "type": {"const": "oauth2_client_credentials"},
            "token_url": {"$ref": "#/$defs/url"},
            "client_id": {"$ref": "#/$defs/authText"},
            "client_auth": {"enum": ["basic", "body", "private_key_jwt", null]},
            "client_secret": {"$ref": "#/$defs/credentialOrNull"},
            "scope": {"$ref": "#/$defs/authTextOrNull"},
            "extra": {
              "type": ["object", "null"], "maxProperties": 20,
              "propertyNames": {"$ref": "#/$defs/parameterName"},
              "additionalProperties": {"$ref": "#/$defs/authTextOrNull"}
            },
            "key": {"$ref": "#/$defs/credentialOrNull"},
            "alg": {"$ref": "#/$defs/algorithm"},
            "kid": {"$ref": "#/$defs/authTextOrNull"},
            "aud": {"$ref": "#/$defs/authTextOrNull"}
          },
          "allOf": [
            {
              "if": {"properties": {"client_auth": {"const": "private_key_jwt"}}, "required": ["client_auth"]},
              "then": {
                "required": ["key"],
                "properties": {
                  "key": {"type": "string"},
                  "client_secret": {"type": "null", "x-message": "it is not used with client_auth \"private_key_jwt\""}
                }
              },
              "else": {
                "required": ["client_secret"],
                "properties": {
                  "client_secret": {"type": "string"},
                  "key": {"type": "null", "x-message": "it goes only with client_auth \"private_key_jwt\""},
                  "alg": {"type": "null", "x-message": "it goes only with client_auth \"private_key_jwt\""},
                  "kid": {"type": "null", "x-message": "it goes only with client_auth \"private_key_jwt\""},
                  "aud": {"type": "null", "x-message": "it goes only with client_auth \"private_key_jwt\""}
                }
              }
            }
          ]
        },
        {
          "type": "object",
          "required": ["type", "token_url", "iss", "key"],
          "additionalProperties": false,
          "properties": {
            "type": {"const": "jwt_exchange"},
            "token_url": {"$ref": "#/$defs/url"},
            "iss": {"$ref": "#/$defs/authText"},
            "sub": {"$ref": "#/$defs/authTextOrNull"},
            "aud": {"$ref": "#/$defs/authTextOrNull"},
            "scope": {"$ref": "#/$defs/authTextOrNull"},
            "key": {"$ref": "#/$defs/credential"},
            "alg": {"$ref": "#/$defs/algorithm"},
            "kid": {"$ref": "#/$defs/authTextOrNull"},
            "body": {"enum": ["grant", "bearer", null]},
            "token_path": {"$ref": "#/$defs/pathOrNull"},
            "expires_path": {"$ref": "#/$defs/pathOrNull"}
          }
        }
      ]
    },
    "resource": {
      "type": "object",
      "required": ["list", "map"],
      "additionalProperties": false,
      "properties": {
        "description": {"$ref": "#/$defs/comment"},
        "list": {"$ref": "#/$defs/list"},
        "map": {"$ref": "#/$defs/map"},
        "get": {"$ref": "#/$defs/get"},
        "for_each": {
          "type": ["object", "null"],
          "required": ["resource"],
          "additionalProperties": false,
          "properties": {
            "resource": {"type": "string"},
            "path": {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/requestPath"}]},
            "own_ids": {"type": ["boolean", "null"]}
          }
        }
      },
      "allOf": [
        {
          "if": {
            "properties": {"for_each": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}},
            "required": ["for_each"]
          },
          "then": {"properties": {"list": {"properties": {"path": {"type": "null", "x-message": "\"for_each\" has the path already"}}}}},
          "else": {"properties": {"list": {"properties": {"path": {"type": "string"}}, "required": ["path"]}}}
        },
        {
          "if": {"properties": {"for_each": {"type": "object"}}, "required": ["for_each"]},
          "then": {
            "properties": {
              "list": {
                "properties": {
                  "incremental": {
                    "properties": {"type": {"enum": ["none", "param"], "x-message": "delta links do not go together with \"for_each\""}}
                  }
                }
              }
            }
          },
          "else": {
            "properties": {
              "list": {
                "properties": {
                  "path": {"pattern": "^(?![\\s\\S]*\\{\\{parent\\.)", "x-message": "{{parent.…}} needs \"for_each\""},
                  "params": {
                    "additionalProperties": {"pattern": "^(?![\\s\\S]*\\{\\{parent\\.)", "x-message": "{{parent.…}} needs \"for_each\""}
                  },
                  "incremental": {
                    "properties": {
                      "start_path": {"pattern": "^(?![\\s\\S]*\\{\\{parent\\.)", "x-message": "{{parent.…}} needs \"for_each\""}
                    }
                  }
                }
              }
            }
          }
        },
        {
          "if": {
            "properties": {"for_each": {"type": "object", "properties": {"own_ids": {"enum": [false, null]}}}},
            "required": ["for_each"]
          },
          "then": {"properties": {"get": {"type": "null", "x-message": "with \"for_each\", single records can be asked for only if \"own_ids\" is true"}}}
        }
      ]
    },
    "list": {
      "type": "object",
      "additionalProperties": false,
      "properties": {
        "method": {"enum": ["GET", "POST", null]},
        "path": {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/requestPath"}]},
        "params": {"$ref": "#/$defs/params"},
        "body": {"type": ["object", "array", "null"]},
        "page_size": {
          "type": ["object", "null"],
          "required": ["param"],
          "additionalProperties": false,
          "properties": {
            "param": {"$ref": "#/$defs/parameterName"},
            "default": {"type": ["integer", "null"], "minimum": 1, "maximum": 10000},
            "max": {"type": ["integer", "null"], "minimum": 1, "maximum": 10000},
            "in": {"$ref": "#/$defs/where"}
          }
        },
        "records": {"$ref": "#/$defs/pathOrNull"},
        "missing": {"enum": ["error", "empty", null]},
        "error": {"$ref": "#/$defs/pathOrNull"},
        "total": {"$ref": "#/$defs/pathOrNull"},
        "total_estimate": {"type": ["boolean", "null"]},
        "pagination": {"$ref": "#/$defs/pagination"},
        "incremental": {"$ref": "#/$defs/incremental"},
        "gone": {"$ref": "#/$defs/pathOrNull"}
      },
      "allOf": [
        {
          "if": {"properties": {"method": {"const": "POST"}}, "required": ["method"]},
          "else": {"properties": {"body": {"type": "null", "x-message": "it goes only with method \"POST\""}}}
        },
        {
          "if": {"properties": {"method": {"const": "POST"}, "body": {"type": ["object", "null"]}}, "required": ["method"]},
          "else": {
            "properties": {
              "page_size": {"properties": {"in": {"enum": ["query", null], "x-message": "\"body\" needs method \"POST\" and a body that is an object"}}},
              "pagination": {"properties": {"in": {"enum": ["query", "header", null], "x-message": "\"body\" needs method \"POST\" and a body that is an object"}}},
              "incremental": {"properties": {"in": {"enum": ["query", null], "x-message": "\"body\" needs method \"POST\" and a body that is an object"}}}
            }
          }
        },
        {
          "if": {
            "properties": {"pagination": {"type": "object", "properties": {"step": {"const": "page_size"}}, "required": ["step"]}},
            "required": ["pagination"]
          },
          "then": {"required": ["page_size"], "properties": {"page_size": {"type": "object"}}}
        },
        {
          "if": {
            "properties": {
              "pagination": {"type": "object", "properties": {"stop": {"const": "total"}, "total": {"type": "null"}}, "required": ["stop"]}
            },
            "required": ["pagination"]
          },
          "then": {"required": ["total"], "properties": {"total": {"type": "string"}}}
        }
      ]
    },
    "params": {
      "type": ["object", "null"],
      "maxProperties": 100,
      "propertyNames": {"$ref": "#/$defs/parameterName"},
      "additionalProperties": {"$ref": "#/$defs/parameter"}
    },
    "pagination": {
      "description": "How the next page is asked for, and when the list ends",
      "oneOf": [
        {"type": "null"},
        {
          "type": "object",
          "required": ["type"],
          "additionalProperties": false,
          "properties": {"type": {"const": "none"}}
        },
        {
          "type": "object",
          "required": ["type"],
          "additionalProperties": false,
          "properties": {
            "type": {"const": "link_header"},
            "rel": {"type": ["string", "null"], "pattern": "^[!#-+\\--:<-~]+$", "maxLength": 100, "x-message": "it must be the name of a relation, such as \"next\""},
            "origin": {"enum": ["base_url", null]},
            "end_status": {"$ref": "#/$defs/endStatus"}
          }
        },
        {
          "type": "object",
          "required": ["type", "path"],
          "additionalProperties": false,
          "properties": {
            "type": {"const": "next_url"},
            "path": {"$ref": "#/$defs/path"},
            "origin": {"enum": ["base_url", null]},
            "end_status": {"$ref": "#/$defs/endStatus"}
          }
        },
        {
          "type": "object",
          "required": ["type", "path", "param"],
          "additionalProperties": false,
          "properties": {
            "type": {"const": "cursor"},
            "path": {"$ref": "#/$defs/path"},
            "param": {"$ref": "#/$defs/parameterName"},
            "in": {"enum": ["query", "body", "header", null]},
            "first": {"type": ["string", "null"], "maxLength": 1000, "pattern": "^[^{}\\u0001-\\u001f\\u007f]*$", "x-message": "it must be a text of at most 1000 characters, without control characters and braces"},
            "keep_params": {"type": ["boolean", "null"]},
            "has_more": {"$ref": "#/$defs/pathOrNull"},
            "end_status": {"$ref": "#/$defs/endStatus"}
          },
          "allOf": [
            {
              "if": {"properties": {"in": {"const": "header"}}, "required": ["in"]},
              "then": {"properties": {"param": {"$ref": "#/$defs/ownHeader"}}}
            }
          ]
        },
        {
          "type": "object",
          "required": ["type", "param"],
          "additionalProperties": false,
          "properties": {
            "type": {"const": "offset"},
            "param": {"$ref": "#/$defs/parameterName"},
            "in": {"$ref": "#/$defs/where"},
            "base": {"enum": [0, 1, null]},
            "step": {"enum": ["returned", "page_size", null]},
            "total": {"$ref": "#/$defs/pathOrNull"},
            "stop": {"enum": ["total", "empty", null]},
            "end_status": {"$ref": "#/$defs/endStatus"}
          }
        },
        {
          "type": "object",
          "required": ["type", "param"],
          "additionalProperties": false,
          "properties": {
            "type": {"const": "page"},
            "param": {"$ref": "#/$defs/parameterName"},
            "in": {"$ref": "#/$defs/where"},
            "base": {"enum": [0, 1, null]},
            "total_pages": {"$ref": "#/$defs/pathOrNull"},
            "total": {"$ref": "#/$defs/pathOrNull"},
            "stop": {"enum": ["total_pages", "total", "empty", null]},
            "end_status": {"$ref": "#/$defs/endStatus"}
          },
          "allOf": [
            {
              "if": {"properties": {"stop": {"const": "total_pages"}}, "required": ["stop"]},
              "then": {"required": ["total_pages"], "properties": {"total_pages": {"type": "string"}}}
            }
          ]
        }
      ]
    },
    "incremental": {
      "description": "How changes since the last run are asked for",
      "oneOf": [
        {"type": "null"},
        {
          "type": "object",
          "required": ["type"],
          "additionalProperties": false,
          "properties": {"type": {"const": "none"}}
        },
        {
          "type": "object",
          "required": ["type", "param"],
          "additionalProperties": false,
          "properties": {
            "type": {"const": "param"},
            "param": {"$ref": "#/$defs/parameterName"},
            "template": {
              "type": ["string", "null"], "maxLength": 2000, "x-allow": ["config", "since"], "x-need": "since",
              "pattern": "^(?=[\\s\\S]*\\{\\{since)(?:[^{]|\\{(?!\\{)|\\{\\{(?:since(?:\\|epoch)?|config\\.[A-Za-z][A-Za-z0-9_]{0,63})\\}\\})*$"
            },
            "in": {"$ref": "#/$defs/where"},
            "lookback": {"type": ["string", "null"], "maxLength": 32, "x-check": "duration"},
            "cursor": {"$ref": "#/$defs/pathOrNull"}
          }
        },
        {
          "type": "object",
          "required": ["type", "path"],
          "additionalProperties": false,
          "properties": {
            "type": {"const": "delta_link"},
            "path": {"$ref": "#/$defs/path"},
            "start_path": {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/requestPath"}]},
            "reset_status": {"$ref": "#/$defs/clientErrors"},
            "partial": {"type": ["boolean", "null"]}
          }
        }
      ]
    },
    "map": {
      "description": "Which values make a record",
      "type": "object",
      "required": ["externalId"],
      "additionalProperties": false,
      "properties": {
        "externalId": {"$ref": "#/$defs/paths"},
        "displayName": {"$ref": "#/$defs/pathsOrNull"},
        "email": {"$ref": "#/$defs/pathsOrNull"},
        "attributes": {"$ref": "#/$defs/pathsOrNull"},
        "exclude": {
          "description": "Members of attributes that are neither stored nor hashed",
          "type": ["array", "null"],
          "maxItems": 100,
          "items": {
            "oneOf": [
              {"type": "string", "minLength": 1, "maxLength": 255},
              {"type": "array", "minItems": 1, "maxItems": 8, "items": {"type": "string", "minLength": 1, "maxLength": 255}}
            ]
          }
        }
      }
    },
    "get": {
      "description": "How one record is asked for",
      "type": ["object", "null"],
      "required": ["path"],
      "additionalProperties": false,
      "properties": {
        "path": {
          "type": "string", "maxLength": 2000, "x-check": "path", "x-allow": ["config", "external_id"],
          "pattern": "^/(?!/)(?![^?]*/\\.{1,2}(?:[/?]|$))(?!\\.{1,2}(?:[/?]|$))(?:[!\"$-\\[\\]-z|-~]|\\{(?!\\{)|\\{\\{(?:config\\.[A-Za-z][A-Za-z0-9_]{0,63}|external_id)\\}\\})*$"
        },
        "params": {
          "type": ["object", "null"],
          "maxProperties": 100,
          "propertyNames": {"$ref": "#/$defs/parameterName"},
          "additionalProperties": {
            "oneOf": [
              {"type": "null"},
              {"type": "number"},
              {"type": "boolean"},
              {
                "type": "string", "maxLength": 8000, "x-allow": ["config", "external_id"],
                "pattern": "^(?:[^{]|\\{(?!\\{)|\\{\\{(?:config\\.[A-Za-z][A-Za-z0-9_]{0,63}|external_id)\\}\\})*$"
              }
            ]
          }
        },
        "record": {"$ref": "#/$defs/pathOrNull"},
        "not_found": {"$ref": "#/$defs/clientErrors"}
      }
    }
  }
}
$json$::pg_catalog.jsonb;
COMMENT ON FUNCTION flohsync.definition_schema() IS
  'The JSON Schema (draft 2020-12) of definitions of connectors of kind rest';
SELECT _flohsync.allow('reader', 'flohsync.definition_schema()');

CREATE FUNCTION _flohsync.json_types(_types jsonb) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT pg_catalog.string_agg(
           CASE t.name WHEN 'string' THEN 'a string' WHEN 'integer' THEN 'an integer' WHEN 'number' THEN 'a number'
                       WHEN 'boolean' THEN 'true or false' WHEN 'array' THEN 'an array' ELSE 'an object' END,
                         ' or ' ORDER BY t.i)
    FROM pg_catalog.jsonb_array_elements_text(
           CASE pg_catalog.jsonb_typeof(_types) WHEN 'array' THEN _types ELSE pg_catalog.jsonb_build_array(_types) END)
             WITH ORDINALITY t(name, i)
   WHERE t.name <> 'null';
END;
COMMENT ON FUNCTION _flohsync.json_types(jsonb) IS 'JSON types in words';

CREATE FUNCTION _flohsync.number(_value jsonb) RETURNS numeric
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE pg_catalog.jsonb_typeof(_value) WHEN 'number' THEN (_value #>> '{}')::numeric END;
COMMENT ON FUNCTION _flohsync.number(jsonb) IS 'A JSON number as such; null for anything else';

CREATE FUNCTION _flohsync.pointer(_base text, _key text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN _base || '/' || pg_catalog.replace(pg_catalog.replace(_key, '~', '~0'), '/', '~1');
COMMENT ON FUNCTION _flohsync.pointer(text, text) IS 'The JSON pointer (RFC 6901) of a member';

CREATE FUNCTION _flohsync.excerpt(_text text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN pg_catalog.to_json(pg_catalog.left(_text, 60))::text
  || CASE WHEN pg_catalog.length(_text) > 60 THEN '…' ELSE '' END;
COMMENT ON FUNCTION _flohsync.excerpt(text) IS 'The beginning of a text, quoted for a message';

CREATE FUNCTION _flohsync.placeholders(_text text) RETURNS SETOF text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  -- The part before the first "{{" is no placeholder; a "{{" without "}}" gives a null.
  SELECT CASE WHEN pg_catalog.strpos(p.part, '}}') > 0 THEN pg_catalog.split_part(p.part, '}}', 1) END
    FROM pg_catalog.unnest(pg_catalog.string_to_array(_text, '{{')) WITH ORDINALITY p(part, i)
   WHERE p.i > 1;
END;
COMMENT ON FUNCTION _flohsync.placeholders(text) IS 'Contents of each {{…}} of a text; null for one that is not closed';

CREATE FUNCTION _flohsync.placeholder_kind(_placeholder text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE
  WHEN _placeholder ~ '^config\.[A-Za-z][A-Za-z0-9_]{0,63}$' THEN 'config'
  WHEN _placeholder ~ '^secret\.[A-Za-z][A-Za-z0-9_]{0,63}$' THEN 'secret'
  WHEN _placeholder ~ '^since(\|epoch)?$' THEN 'since'
  WHEN _placeholder ~ '^parent\.(external_id|display_name|email|attributes\.[A-Za-z][A-Za-z0-9_]{0,63})$' THEN 'parent'
  WHEN _placeholder = 'external_id' THEN 'external_id'
END;
COMMENT ON FUNCTION _flohsync.placeholder_kind(text) IS
  'The kind of a placeholder: config, secret, since, parent or external_id; null when it is none';

CREATE TYPE _flohsync.fault AS (pointer text, message text, hint text, rule boolean);
COMMENT ON TYPE _flohsync.fault IS
  'A fault of a definition; rule: found by a rule about several keys, not at the key itself';

CREATE FUNCTION _flohsync.placeholder_faults(_text text, _allowed jsonb, _pointer text) RETURNS SETOF _flohsync.fault
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT DISTINCT _pointer,
         CASE WHEN p.name IS NULL THEN 'a "{{" is not closed'
              WHEN p.webhook THEN 'secret "' || pg_catalog.substr(p.name, 8) || '" verifies webhooks, and is never sent'
              WHEN p.kind IS NULL THEN 'unknown placeholder {{' || pg_catalog.left(p.name, 60) || '}}'
              ELSE '{{' || p.name || '}} is not allowed here' END,
         CASE WHEN p.webhook THEN 'Store the credential under another name.'
              WHEN p.kind = 'secret' THEN 'A secret here would appear in logs; use it in "auth" or "headers".'
              WHEN p.name LIKE 'since|%' AND p.kind IS NULL THEN 'Write {{since}} or {{since|epoch}}.'
              ELSE 'Allowed here: ' || (
                SELECT pg_catalog.string_agg(CASE a.kind WHEN 'config' THEN '{{config.NAME}}'
                                             WHEN 'secret' THEN '{{secret.NAME}}'
                         WHEN 'since' THEN '{{since}}, {{since|epoch}}' WHEN 'external_id' THEN '{{external_id}}'
                         ELSE '{{parent.external_id}}, {{parent.attributes.NAME}}' END, ', ' ORDER BY a.i)
                  FROM pg_catalog.jsonb_array_elements_text(_allowed) WITH ORDINALITY a(kind, i)) || '.' END,
         false
    FROM (SELECT t.name, _flohsync.placeholder_kind(t.name) AS kind,
          coalesce(t.name IN ('secret.webhook', 'secret.webhook_previous'), false) AS webhook
            FROM (SELECT DISTINCT pg_catalog.left(d.name, 100) FROM _flohsync.placeholders(_text) d(name)) t(name)) p
   WHERE p.kind IS NULL OR NOT _allowed ? p.kind OR p.webhook;
END;
COMMENT ON FUNCTION _flohsync.placeholder_faults(text, jsonb, text) IS
  'Placeholders of a text that are unknown, or not allowed in its place';

CREATE FUNCTION _flohsync.jsonpath_problem(_path text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _plain text;
BEGIN
  -- As PostgreSQL writes it back, a variable is a $ before a quoted name.
  _plain := regexp_replace(_path::jsonpath::text, '"(\\.|[^"\\])*"', '""', 'g');
  IF _plain ~ '\$""' THEN
    RETURN 'a jsonpath cannot use variables here';
  ELSIF strpos(_plain, '$') = 0 THEN
    RETURN 'a jsonpath without "$" does not refer to the answer';
  END IF;
  RETURN NULL;
EXCEPTION WHEN OTHERS THEN
  RETURN SQLERRM;
END
$$;
COMMENT ON FUNCTION _flohsync.jsonpath_problem(text) IS
  'Why a jsonpath is invalid, as reported by PostgreSQL; null when it is valid';

CREATE FUNCTION _flohsync.base_url_problem(_url text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
RETURN CASE
  WHEN _url !~ '^https?://' THEN 'it must begin with https:// or http://'
  WHEN _url ~ '[^\x21-\x7e]' THEN 'it contains spaces, control characters or non-ASCII characters'
  WHEN _url ~ '[?#]' THEN 'it must not have a query or fragment'
  WHEN _url ~ '@' THEN 'it must not contain a user name or password'
  WHEN _url ~ '[\\{]' THEN 'it contains a backslash or brace'
  WHEN _url ~ '^https?://(/|$)' THEN 'it names no host'
  WHEN _url ~ '^https?://https?:' THEN 'its scheme is there twice'
  WHEN _url ~ '^https?://[^/]*:(/|$)' THEN 'it has a colon without a port'
  ELSE _flohsync.url_problem(_url)
END;
COMMENT ON FUNCTION _flohsync.base_url_problem(text) IS
  'Why the base of requests'' URLs is invalid; null when it is valid';

CREATE FUNCTION _flohsync.text_fault(_check text, _text text) RETURNS text
LANGUAGE plpgsql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  -- As it will look: a placeholder at the start may bring the scheme along.
  plain constant text := regexp_replace(regexp_replace(regexp_replace(_text,
    '^\{\{[^{}]*\}\}://', 'https://'), '^\{\{[^{}]*\}\}', 'https://1'), '\{\{[^{}]*\}\}', '1', 'g');
BEGIN
  RETURN CASE _check
    WHEN 'jsonpath' THEN _flohsync.jsonpath_problem(_text)
    WHEN 'url' THEN _flohsync.base_url_problem(plain)
    WHEN 'path' THEN CASE
      WHEN left(_text, 1) <> '/' OR left(_text, 2) = '//' THEN 'it must begin with one slash: it is added to base_url'
      WHEN _text ~ '[^\x21-\x7e]' THEN 'it contains spaces, control characters or non-ASCII characters'
      WHEN _text ~ '[#\\]' THEN 'it contains a fragment or backslash'
      WHEN split_part(_text, '?', 1) ~ '/\.{1,2}(/|$)' THEN 'it has a segment "." or ".."' END
    WHEN 'header' THEN CASE
      WHEN lower(_text COLLATE "C") IN ('authorization', 'proxy-authorization', 'cookie')
        THEN 'credentials are sent by "auth"'
      ELSE _flohsync.header_problem(_text) END
    WHEN 'header_value' THEN CASE WHEN _text ~ '[\x01-\x1f\x7f]' THEN 'it contains control characters' END
    WHEN 'duration' THEN CASE WHEN _flohsync.duration(_text) IS NULL
      THEN format('%s is not a duration', _flohsync.excerpt(_text)) END
  END;
END
$$;
COMMENT ON FUNCTION _flohsync.text_fault(text, text) IS
  'Why one text of a definition is invalid, by the check that the schema names; null when it is valid';

CREATE FUNCTION _flohsync.unknown_key_hint(_key text, _properties jsonb) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT coalesce(
    'Did you mean "' || pg_catalog.min(p.key) FILTER (WHERE
      pg_catalog.regexp_replace(pg_catalog.lower(p.key COLLATE "C"), '[^a-z]', '', 'g')
        = pg_catalog.regexp_replace(pg_catalog.lower(pg_catalog.left(_key, 100) COLLATE "C"), '[^a-z]', '', 'g'))
        || '"?',
    'Known keys are ' || pg_catalog.string_agg(p.key, ', ' ORDER BY p.key COLLATE "C") || '.')
    FROM pg_catalog.jsonb_object_keys(_properties) p(key);
END;
COMMENT ON FUNCTION _flohsync.unknown_key_hint(text, jsonb) IS
  'Hint for an unknown key: the similar known key, or all known keys';

CREATE FUNCTION _flohsync.choose_schema(_branches jsonb[], _types text[], _value jsonb, _pointer text, OUT chosen jsonb,
                                        OUT fault _flohsync.fault)
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  fitting jsonb[] := ARRAY(SELECT b FROM unnest(_branches) WITH ORDINALITY u(b, i)
                           WHERE b -> 'type' ?| _types ORDER BY i);
  known text;
BEGIN
  IF cardinality(fitting) = 1 THEN
    chosen := fitting[1];
  ELSIF cardinality(fitting) = 0 THEN
    SELECT string_agg(DISTINCT _flohsync.json_types(b -> 'type'), ' or ') INTO known FROM unnest(_branches) b;
    fault := (_pointer, 'it must be ' || known, NULL, false);
  ELSE
    SELECT b INTO chosen FROM unnest(fitting) b WHERE b -> 'properties' -> 'type' -> 'const' = _value -> 'type';
    IF chosen IS NULL THEN
      SELECT string_agg(b -> 'properties' -> 'type' ->> 'const', ', ' ORDER BY i) INTO known
        FROM unnest(fitting) WITH ORDINALITY u(b, i);
      fault := (_pointer || '/type',
                CASE WHEN coalesce(_value -> 'type', 'null') = 'null' THEN 'it is required'
                     ELSE format('%s is not a known type', _flohsync.excerpt(_value ->> 'type')) END,
                'Types are ' || known || '.', false);
    END IF;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.choose_schema(jsonb[], text[], jsonb, text) IS
  'The alternative of a oneOf that applies to a value, or why none does';

CREATE FUNCTION _flohsync.schema_faults(_schema jsonb, _value jsonb, _pointer text, _defs jsonb)
  RETURNS SETOF _flohsync.fault
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  s jsonb := CASE WHEN _schema ? '$ref' THEN _defs -> substr(_schema ->> '$ref', 9) ELSE _schema END;
  kind constant text := jsonb_typeof(_value);
  kinds constant text[] := ARRAY[kind] || CASE WHEN kind = 'number' AND (_value #>> '{}')::numeric % 1 = 0
    THEN 'integer' END;
  t constant text := _value #>> '{}';
  said text;
  problem text;
  k text;
  v jsonb;
  i bigint;
  at text;
  choice record;
BEGIN
  IF s ? 'oneOf' THEN
    choice := _flohsync.choose_schema(
      ARRAY(SELECT CASE WHEN b.value ? '$ref' THEN _defs -> substr(b.value ->> '$ref', 9) ELSE b.value END
              FROM jsonb_array_elements(s -> 'oneOf') WITH ORDINALITY b(value, i) ORDER BY b.i),
      kinds, _value, _pointer);
    IF choice.chosen IS NULL THEN
      RETURN NEXT choice.fault;
      RETURN;
    END IF;
    s := choice.chosen;
  END IF;
  said := s ->> 'x-message';

  problem := CASE
    WHEN NOT s -> 'type' ?| kinds THEN coalesce('it must be ' || _flohsync.json_types(s -> 'type'),
                                                'it must not be given')
    WHEN s ? 'const' AND s -> 'const' <> _value THEN format('it must be %s', s -> 'const')
    WHEN s ? 'enum' AND NOT s -> 'enum' @> jsonb_build_array(_value) THEN
      format('%s is not one of %s', _flohsync.excerpt(t),
             (SELECT string_agg(e, ', ') FROM jsonb_array_elements_text(s -> 'enum') e WHERE e IS NOT NULL))
    WHEN kind = 'string' THEN CASE
      WHEN length(t) < (s ->> 'minLength')::int THEN 'it must not be empty'
      WHEN length(t) > (s ->> 'maxLength')::int THEN format('it has more than %s characters', s ->> 'maxLength')
      WHEN s ? 'x-check' THEN _flohsync.text_fault(s ->> 'x-check', t)
      WHEN NOT s ? 'x-allow' AND t !~ (s ->> 'pattern') THEN format('%s is malformed', _flohsync.excerpt(t)) END
    WHEN kind = 'number' THEN CASE
      WHEN t::numeric < (s ->> 'minimum')::numeric OR t::numeric > (s ->> 'maximum')::numeric
        THEN concat_ws(' ', 'it must be', 'at least ' || (s ->> 'minimum'),
                       CASE WHEN s ?& '{minimum,maximum}' THEN 'and' END, 'at most ' || (s ->> 'maximum')) END
    WHEN kind = 'array' THEN CASE
      WHEN jsonb_array_length(_value) < (s ->> 'minItems')::int THEN 'it must not be empty'
      WHEN jsonb_array_length(_value) > (s ->> 'maxItems')::int
        THEN format('it has more than %s elements', s ->> 'maxItems') END
  END;
  IF problem IS NOT NULL THEN
    RETURN NEXT ROW(_pointer, coalesce(said, problem),
                    coalesce(s ->> 'x-hint', CASE WHEN s ->> 'x-check' = 'jsonpath' AND strpos(t, '$') = 0
                             AND t <> '' THEN
                      CASE WHEN t ~ '^[A-Za-z_][A-Za-z0-9_]*([.\[]|$)'
                        THEN format('A path begins with "$": write %s.', _flohsync.excerpt('$.' || t))
                           ELSE 'A path begins with "$", which is the answer or the record: "$.id".' END END),
                             false)::_flohsync.fault;
  END IF;

  IF kind = 'string' THEN
    IF s ? 'x-allow' AND strpos(t, '{{') > 0 AND length(t) <= (s ->> 'maxLength')::int THEN
      RETURN QUERY SELECT * FROM _flohsync.placeholder_faults(t, s -> 'x-allow', _pointer);
    END IF;
    IF s ? 'x-need' AND NOT EXISTS (SELECT FROM _flohsync.placeholders(t) p(name)
                                    WHERE _flohsync.placeholder_kind(p.name) = s ->> 'x-need') THEN
      RETURN NEXT CASE s ->> 'x-need'
        WHEN 'secret' THEN ROW(_pointer, 'a credential must not be in clear text',
                               'Write {{secret.NAME}}, and store it with flohsync.set_secret().',
                               false)::_flohsync.fault
        ELSE ROW(_pointer, 'it must contain {{since}} or {{since|epoch}}', NULL, false)::_flohsync.fault END;
    END IF;

  ELSIF kind = 'array' AND s ? 'items' AND problem IS NULL THEN
    FOR v, i IN SELECT * FROM jsonb_array_elements(_value) WITH ORDINALITY LOOP
      RETURN QUERY SELECT * FROM _flohsync.schema_faults(s -> 'items', v, _pointer || '/' || (i - 1), _defs);
    END LOOP;

  ELSIF kind = 'object' AND (SELECT count(*) FROM jsonb_object_keys(_value)) > (s ->> 'maxProperties')::int THEN
    -- Too many to look at each.
    RETURN NEXT ROW(_pointer, format('it has more than %s members', s ->> 'maxProperties'), NULL,
                    false)::_flohsync.fault;

  ELSIF kind = 'object' THEN
    i := 0;
    FOR k, v IN SELECT * FROM jsonb_each(_value) LOOP
      i := i + 1;
      at := _pointer || '/' || replace(replace(k, '~', '~0'), '/', '~1');
      IF s ? 'propertyNames' THEN
        RETURN QUERY SELECT * FROM _flohsync.schema_faults(s -> 'propertyNames', to_jsonb(k), at, _defs);
      END IF;
      IF s -> 'properties' ? k THEN
        -- A null is as good as nothing, where the schema knows the key.
        IF v <> 'null' THEN
          RETURN QUERY SELECT * FROM _flohsync.schema_faults(s -> 'properties' -> k, v, at, _defs);
        END IF;
      ELSIF s -> 'additionalProperties' = 'false' THEN
        RETURN NEXT ROW(at, format('unknown key %s', _flohsync.excerpt(k)),
                        CASE WHEN i <= 200 THEN _flohsync.unknown_key_hint(k, s -> 'properties') END,
                        false)::_flohsync.fault;
      ELSIF s ? 'additionalProperties' THEN
        RETURN QUERY SELECT * FROM _flohsync.schema_faults(s -> 'additionalProperties', v, at, _defs);
      END IF;
    END LOOP;
    IF i < (s ->> 'minProperties')::int THEN
      RETURN NEXT ROW(_pointer, 'it must not be empty', NULL, false)::_flohsync.fault;
    END IF;
    RETURN QUERY SELECT _pointer || '/' || r.key, coalesce(said, 'it is required'), NULL::text, false
                   FROM jsonb_array_elements_text(s -> 'required') r(key)
                  WHERE coalesce(_value -> r.key, 'null') = 'null';
  END IF;

  IF s ? 'allOf' THEN
    FOR v IN SELECT r.value FROM jsonb_array_elements(s -> 'allOf') r LOOP
      k := CASE WHEN EXISTS (SELECT FROM _flohsync.schema_faults(v -> 'if', _value, _pointer, _defs)) THEN 'else'
        ELSE 'then' END;
      IF v ? k THEN
        RETURN QUERY SELECT f.pointer, f.message, f.hint, true
          FROM _flohsync.schema_faults(v -> k, _value, _pointer, _defs) f;
      END IF;
    END LOOP;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.schema_faults(jsonb, jsonb, text, jsonb) IS 'Faults of a value by a part of the schema';

CREATE FUNCTION _flohsync.body_faults(_body jsonb, _allowed jsonb, _pointer text) RETURNS SETOF _flohsync.fault
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  WITH RECURSIVE node(pointer, value, depth) AS (
    SELECT _pointer, _body, 1
    UNION ALL
    SELECT c.pointer, c.value, n.depth + 1
      FROM node n CROSS JOIN LATERAL (
        SELECT _flohsync.pointer(n.pointer, m.key) AS pointer, m.value
          FROM pg_catalog.jsonb_each(CASE pg_catalog.jsonb_typeof(n.value) WHEN 'object' THEN n.value ELSE '{}' END) m
        UNION ALL
        SELECT n.pointer || '/' || (e.i - 1), e.value
          FROM pg_catalog.jsonb_array_elements(CASE pg_catalog.jsonb_typeof(n.value) WHEN 'array' THEN n.value
                                               ELSE '[]' END) WITH ORDINALITY e(value, i)) c
     WHERE n.depth <= 32)
  SELECT n.pointer, 'it is more than 32 levels deep', NULL, false FROM node n WHERE n.depth = 33
  UNION ALL
  SELECT f.pointer, f.message, f.hint, f.rule
    FROM node n CROSS JOIN LATERAL _flohsync.placeholder_faults(n.value #>> '{}', _allowed, n.pointer) f
   WHERE pg_catalog.jsonb_typeof(n.value) = 'string';
END;
COMMENT ON FUNCTION _flohsync.body_faults(jsonb, jsonb, text) IS
  'Faults of the body of a list request: too deep, or with placeholders that are not allowed';

CREATE FUNCTION _flohsync.resources(_definition jsonb) RETURNS TABLE (type text, resource jsonb, pointer text)
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT r.key, r.value, _flohsync.pointer('/resources', r.key)
    FROM pg_catalog.jsonb_each(CASE pg_catalog.jsonb_typeof(_definition -> 'resources')
                               WHEN 'object' THEN _definition -> 'resources' ELSE '{}' END) r
   WHERE pg_catalog.jsonb_typeof(r.value) = 'object';
END;
COMMENT ON FUNCTION _flohsync.resources(jsonb) IS 'The resources of a definition';

CREATE FUNCTION _flohsync.definition_rules(_definition jsonb) RETURNS SETOF _flohsync.fault
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT '/retry/max_ms', 'it is less than "base_ms"', NULL, true
   WHERE _flohsync.number(_definition -> 'retry' -> 'max_ms') < _flohsync.number(_definition -> 'retry' -> 'base_ms')
  UNION ALL
  SELECT r.pointer || '/list/page_size/default', 'it is more than "max"', NULL, true
    FROM _flohsync.resources(_definition) r
   WHERE _flohsync.number(r.resource -> 'list' -> 'page_size' -> 'default')
     > _flohsync.number(r.resource -> 'list' -> 'page_size' -> 'max')
  UNION ALL
  SELECT r.pointer || '/for_each/resource',
         CASE WHEN p.type IS NULL THEN 'there is no resource '
           || _flohsync.excerpt(r.resource -> 'for_each' ->> 'resource')
              WHEN p.type = r.type THEN 'a resource cannot be listed for each of itself'
              ELSE pg_catalog.format('resource "%s" is itself listed for each of another', p.type) END,
         -- The subquery does not depend on the row, so it is evaluated once.
         'Resources are ' || (SELECT pg_catalog.string_agg(pg_catalog.left(x.type, 60), ', '
                                                           ORDER BY x.type COLLATE "C") FILTER (WHERE x.i <= 20)
                                     || CASE WHEN pg_catalog.count(*) > 20 THEN ' and others' ELSE '' END
                                FROM (SELECT y.type, pg_catalog.row_number() OVER (ORDER BY y.type COLLATE "C") AS i
                                      FROM _flohsync.resources(_definition) y) x) || '.', true
    FROM _flohsync.resources(_definition) r LEFT JOIN _flohsync.resources(_definition) p
      ON p.type = r.resource -> 'for_each' ->> 'resource'
   WHERE pg_catalog.jsonb_typeof(r.resource -> 'for_each' -> 'resource') = 'string'
     AND (p.type IS NULL OR p.type = r.type OR pg_catalog.jsonb_typeof(p.resource -> 'for_each') = 'object')
  UNION ALL
  SELECT r.pointer || '/get/path', 'neither it nor a parameter contains {{external_id}}', NULL, true
    FROM _flohsync.resources(_definition) r
   WHERE pg_catalog.jsonb_typeof(r.resource -> 'get' -> 'path') = 'string'
     AND pg_catalog.strpos(r.resource -> 'get' ->> 'path', '{{external_id}}') = 0
     AND NOT pg_catalog.jsonb_path_exists(r.resource, '$.get.params.* ? (@ like_regex "{{external_id}}" flag "q")')
  UNION ALL
  SELECT f.pointer, f.message, f.hint, false
    FROM _flohsync.resources(_definition) r
   CROSS JOIN LATERAL _flohsync.body_faults(r.resource -> 'list' -> 'body',
           CASE pg_catalog.jsonb_typeof(r.resource -> 'for_each') WHEN 'object' THEN '["config", "parent"]'
             ELSE '["config"]' END::jsonb,
           r.pointer || '/list/body') f;
END;
COMMENT ON FUNCTION _flohsync.definition_rules(jsonb) IS 'Faults of a definition that a schema cannot express';

CREATE FUNCTION flohsync.validate_definition(definition jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _definition constant jsonb := coalesce(validate_definition.definition, 'null');
  _schema constant jsonb := flohsync.definition_schema();
  most constant integer := 1000; -- reported faults
  too_many constant boolean := jsonb_typeof(_definition -> 'resources') = 'object'
    AND (SELECT count(*) FROM jsonb_object_keys(_definition -> 'resources'))
      > (_schema #>> '{properties,resources,maxProperties}')::int;
BEGIN
  IF octet_length(_definition::text) > 1048576 THEN
    RETURN '[{"pointer": "", "message": "it is larger than 1 MB"}]';
  END IF;
  RETURN (
    WITH found AS MATERIALIZED (
      SELECT * FROM _flohsync.schema_faults(_schema, _definition, '', _schema -> '$defs')
        WITH ORDINALITY f(pointer, message, hint, rule, i)
      UNION ALL
      -- The rules compare each with all.
      SELECT f.* FROM _flohsync.definition_rules(CASE WHEN too_many THEN '{}' ELSE _definition END)
        WITH ORDINALITY f(pointer, message, hint, rule, i)
    ), once AS (
      SELECT f.pointer, f.message, min(f.hint) AS hint, f.rule, min(f.i) AS i
        FROM found f GROUP BY f.pointer, f.message, f.rule
    ), told AS (
      SELECT o.pointer, o.message, o.hint, row_number() OVER (ORDER BY o.rule, o.i, o.pointer COLLATE "C") AS nr
        FROM once o
       -- What is wrong in itself need not also be wrong beside something else.
       WHERE NOT (o.rule AND EXISTS (SELECT FROM once p WHERE p.pointer = o.pointer AND NOT p.rule))
    ), cut AS (
      SELECT t.pointer, t.message, t.hint, t.nr FROM told t WHERE t.nr <= most
      UNION ALL
      SELECT '', format('there are %s more faults', count(*)), NULL, most + 1 FROM told t WHERE t.nr > most
        HAVING count(*) > 0
    )
    SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('pointer', c.pointer, 'message', c.message, 'hint',
        c.hint)) ORDER BY c.nr), '[]')
      FROM cut c);
END
$$;
COMMENT ON FUNCTION flohsync.validate_definition(jsonb) IS
  'Every fault of a definition of kind rest, 1000 at most and then how many more there are, as an array of {"pointer", '
  '"message", "hint"}; an empty array when there is none; never an error';
SELECT _flohsync.allow('reader', 'flohsync.validate_definition(jsonb)');
-- A definition beside the connector's config and its configurations.

CREATE FUNCTION _flohsync.definition_names(_definition jsonb, _kind text) RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT DISTINCT pg_catalog.substr(p.name, pg_catalog.length(_kind) + 2)
    FROM pg_catalog.jsonb_path_query(
           (_definition - ARRAY['description', '$schema', 'resources']) || pg_catalog.jsonb_build_object('resources',
             (SELECT pg_catalog.jsonb_object_agg(r.type, r.resource - 'description')
              FROM _flohsync.resources(_definition) r)),
           'strict $.** ? (@.type() == "string")') t(value)
   CROSS JOIN LATERAL _flohsync.placeholders(t.value #>> '{}') p(name)
   WHERE _flohsync.placeholder_kind(p.name) = _kind;
END;
COMMENT ON FUNCTION _flohsync.definition_names(jsonb, text) IS
  'Names of the {{config.NAME}} or {{secret.NAME}} that a definition uses';

CREATE FUNCTION _flohsync.credential_names(_d flohsync.connector_definition) RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT n FROM _flohsync.of_kind('credentials', (_d).kind, (_d).config, (_d).definition) n
  UNION VALUES ('webhook'), ('webhook_previous');
END;
COMMENT ON FUNCTION _flohsync.credential_names(flohsync.connector_definition) IS
  'Names of the secrets that a connector uses, including those that verify its webhooks';

-- An unknown name may be the secret itself: it is not reported.
CREATE FUNCTION _flohsync.remark_secret(_connector uuid, _name text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  d flohsync.connector_definition;
BEGIN
  SELECT * INTO STRICT d FROM flohsync.connector_definition x WHERE x.id = _connector;
  IF _name NOT IN (SELECT n FROM _flohsync.credential_names(d) n) THEN
    RAISE NOTICE USING
      MESSAGE = _flohsync.clean(format('connector "%s" uses no secret of this name', d.name)),
      DETAIL = 'The name is not shown, since it may be the secret.',
      HINT = (SELECT format('It looks for %s.', string_agg(n, ', ' ORDER BY n COLLATE "C"))
              FROM _flohsync.credential_names(d) n);
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.remark_secret(uuid, text) IS
  'Raises a NOTICE when a secret has a name that the connector does not use';

CREATE FUNCTION _flohsync.fill_placeholders(_text text, _config jsonb) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT pg_catalog.string_agg(
           CASE WHEN p.i = 1 THEN p.part
                ELSE coalesce(_config ->> pg_catalog.substr(pg_catalog.split_part(p.part, '}}', 1), 8), '')
                     || pg_catalog.substr(p.part, pg_catalog.strpos(p.part, '}}') + 2) END, '' ORDER BY p.i)
    FROM pg_catalog.regexp_split_to_table(_text, '\{\{') WITH ORDINALITY p(part, i);
END;
COMMENT ON FUNCTION _flohsync.fill_placeholders(text, jsonb) IS
  'A text of a valid definition with its {{config.NAME}} placeholders replaced';

CREATE FUNCTION _flohsync.raise_faults(_faults jsonb) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  said constant text := _flohsync.clean(format('invalid definition at "%s": %s', _faults -> 0 ->> 'pointer',
                                               _faults -> 0 ->> 'message'));
  advice constant text := coalesce(_faults -> 0 ->> 'hint',
                                   'flohsync.validate_definition() lists every fault; doc/definition.md describes the '
                                   'format.');
BEGIN
  IF jsonb_array_length(_faults) = 1 THEN
    PERFORM _flohsync.raise('22023', said, NULL, advice);
  ELSIF jsonb_array_length(_faults) > 1 THEN
    PERFORM _flohsync.raise('22023',
      said,
      (
      SELECT string_agg(_flohsync.clean(format('At "%s": %s', f ->> 'pointer', f ->> 'message')), E'\n' ORDER BY i)
             || CASE WHEN jsonb_array_length(_faults) > 21
               THEN format(E'\nAnd %s more.', jsonb_array_length(_faults) - 21) ELSE '' END
        FROM jsonb_array_elements(_faults) WITH ORDINALITY e(f, i) WHERE i BETWEEN 2 AND 21),
      advice);
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.raise_faults(jsonb) IS 'Raises 22023 with the faults of a definition, if there are any';

CREATE FUNCTION _flohsync.strategy_problem(_definition jsonb, _resource_type text, _strategy text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE
  WHEN NOT EXISTS (SELECT FROM _flohsync.resources(_definition) r WHERE r.type = _resource_type)
    THEN pg_catalog.format('the definition has no resource "%s"', _resource_type)
  WHEN _strategy = 'incremental'
       AND coalesce(_definition -> 'resources' -> _resource_type -> 'list' -> 'incremental' ->> 'type', 'none') = 'none'
    THEN pg_catalog.format('the definition does not say how to ask for changes of resource "%s"', _resource_type)
END;
COMMENT ON FUNCTION _flohsync.strategy_problem(jsonb, text, text) IS
  'Why a resource type cannot be synced with a strategy by a definition; null when it can';

CREATE FUNCTION _flohsync.check_strategy(_definition jsonb, _resource_type text, _strategy text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  problem text := _flohsync.strategy_problem(_definition, _resource_type, NULL);
BEGIN
  IF problem IS NOT NULL THEN
    PERFORM _flohsync.invalid('resource_type', problem,
      format('Resources are %s.', (SELECT string_agg(r.type, ', ' ORDER BY r.type COLLATE "C")
                                   FROM _flohsync.resources(_definition) r)));
  END IF;
  problem := _flohsync.strategy_problem(_definition, _resource_type, _strategy);
  IF problem IS NOT NULL THEN
    PERFORM _flohsync.invalid('strategy', problem,
      format('Use strategy full, or give the definition a /resources/%s/list/incremental.', _resource_type));
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_strategy(jsonb, text, text) IS
  'Raises 22023 when a definition does not have the resource type, or cannot list what changed';

-- The one door through which a connector comes, by a function or by a statement:
-- what is stored is what the C code may rely on.  Whether a function of kind
-- sql exists is not asked here: when a dump is restored it may come later.
CREATE FUNCTION _flohsync.guard_connector() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  k text;
BEGIN
  PERFORM _flohsync.check_connector(NEW.kind, NEW.config, NEW.definition, false);
  IF TG_OP = 'INSERT' THEN
    NEW.code_owner := coalesce(NEW.code_owner, _flohsync.code_owner(NEW.kind, NEW.config));
    NEW.author := coalesce(NEW.author, _flohsync.role(_flohsync.acting_role()));
    IF NOT coalesce(_flohsync.may_act_as(_flohsync.role_oid(NEW.author)), true) THEN
      RAISE insufficient_privilege USING
        MESSAGE = format('role "%s" cannot be made the author of a connector', _flohsync.role_name(NEW.author)),
        HINT = 'Only a member of that role can do that.';
    END IF;
  END IF;
  FOR k IN SELECT h.key FROM jsonb_object_keys(CASE NEW.kind WHEN 'command' THEN NEW.config -> 'headers' END) h(key)
            WHERE lower(h.key COLLATE "C") ~ '^(authorization|cookie|(x-)?api-?key|x-auth-token|x-access-token)$' LOOP
    RAISE NOTICE USING
      MESSAGE = format('header "%s" is stored in clear text', k),
      HINT = 'flohsync.set_secret(…, ''token'', …) stores a bearer token encrypted; it is sent in '
             'the header "Authorization".';
  END LOOP;
  IF TG_OP = 'UPDATE' AND NEW.kind = 'rest' THEN
    PERFORM _flohsync.invalid('definition', p.problem, 'A configuration requires it: change that with '
                                                       'flohsync.configure_sync(), or remove it with '
                                                       'flohsync.delete_sync_config().')
       FROM flohsync.connector_sync_config c
      CROSS JOIN LATERAL _flohsync.strategy_problem(NEW.definition, c.resource_type, c.strategy) p(problem)
      WHERE c.connector_id = NEW.id AND p.problem IS NOT NULL;
  END IF;
  RETURN NEW;
END
$$;
COMMENT ON FUNCTION _flohsync.guard_connector() IS
  'Rejects an invalid connector (22023), warns of a credential in clear text, and records the role that decides what '
  'it runs';
CREATE TRIGGER guard_connector_insert BEFORE INSERT ON flohsync.connector_definition
FOR EACH ROW EXECUTE FUNCTION _flohsync.guard_connector();
CREATE TRIGGER guard_connector_update BEFORE UPDATE ON flohsync.connector_definition
FOR EACH ROW WHEN ((NEW.kind, NEW.config, NEW.definition) IS DISTINCT FROM (OLD.kind, OLD.config, OLD.definition))
EXECUTE FUNCTION _flohsync.guard_connector();
-- Templates of definitions of kind rest.  They are the files in sql/templates,
-- each with the vendor's pages that its endpoints, page sizes, filters and
-- limits are from ("sources").

CREATE FUNCTION _flohsync.templates() RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN $json$[
{
  "name": "scim",
  "title": "SCIM 2.0",
  "config": [
    {"name": "base_url", "required": true, "description": "Address of the SCIM service, up to and without /Users", "example": "https://scim.example.com/scim/v2"}
  ],
  "secrets": [
    {"name": "token", "required": true, "description": "Bearer token"}
  ],
  "notes": {
    "pages": "startIndex and count; a server may send fewer than asked for. For a server with cursors (RFC 9865) replace pagination by {\"type\": \"cursor\", \"path\": \"$.nextCursor\", \"param\": \"cursor\", \"first\": \"\"}",
    "incremental": "filter on meta.lastModified, an optional feature that many servers refuse",
    "gone": "not told; a full pass finds out",
    "limits": "429 with Retry-After",
    "members": "in the members of a group; servers with large groups may need params {\"excludedAttributes\": \"members\"}"
  },
  "sources": [
    "https://www.rfc-editor.org/rfc/rfc7644#section-3.4.2",
    "https://www.rfc-editor.org/rfc/rfc9865"
  ],
  "definition": {
    "version": 1,
    "base_url": "{{config.base_url}}",
    "headers": {"Accept": "application/scim+json, application/json"},
    "auth": {"type": "bearer", "token": "{{secret.token}}"},
    "resources": {
      "user": {
        "list": {
          "path": "/Users",
          "page_size": {"param": "count", "default": 100, "max": 1000},
          "records": "$.Resources[*]",
          "total": "$.totalResults",
          "pagination": {"type": "offset", "param": "startIndex", "base": 1, "step": "returned", "stop": "total"},
          "incremental": {"type": "param", "param": "filter", "template": "meta.lastModified gt \"{{since}}\"", "cursor": "$.meta.lastModified"}
        },
        "get": {"path": "/Users/{{external_id}}"},
        "map": {
          "externalId": "$.id",
          "displayName": ["$.displayName", "$.name.formatted", "$.userName"],
          "email": ["$.emails[*] ? (@.primary == true || @.primary == \"true\" || @.primary == \"True\" || @.primary == \"TRUE\" || @.primary == 1).value", "$.emails[*].value"],
          "attributes": "$",
          "exclude": ["schemas", "meta"]
        }
      },
      "group": {
        "list": {
          "path": "/Groups",
          "page_size": {"param": "count", "default": 100, "max": 1000},
          "records": "$.Resources[*]",
          "total": "$.totalResults",
          "pagination": {"type": "offset", "param": "startIndex", "base": 1, "step": "returned", "stop": "total"},
          "incremental": {"type": "param", "param": "filter", "template": "meta.lastModified gt \"{{since}}\"", "cursor": "$.meta.lastModified"}
        },
        "get": {"path": "/Groups/{{external_id}}"},
        "map": {
          "externalId": "$.id",
          "displayName": "$.displayName",
          "attributes": "$",
          "exclude": ["schemas", "meta"]
        }
      }
    }
  }
}
,
{
  "name": "okta",
  "title": "Okta",
  "config": [
    {"name": "domain", "required": true, "description": "Domain of the organisation", "example": "acme.okta.com"}
  ],
  "secrets": [
    {"name": "token", "required": true, "description": "API token of an administrator who may read users and groups"}
  ],
  "notes": {
    "pages": "Link header; at most 200 users a page, 200 advised for groups and members",
    "incremental": "filter on lastUpdated, for groups also lastMembershipUpdated; the statuses are listed because deactivated users are left out otherwise",
    "gone": "status DEPROVISIONED; a deleted user is just not listed any more",
    "limits": "X-Rate-Limit-Remaining and X-Rate-Limit-Reset (seconds since 1970), 429"
  },
  "sources": [
    "https://developer.okta.com/docs/api/openapi/okta-management/management/tag/User/",
    "https://developer.okta.com/docs/api/openapi/okta-management/management/tag/Group/",
    "https://developer.okta.com/docs/reference/rl-best-practices/"
  ],
  "definition": {
    "version": 1,
    "base_url": "https://{{config.domain}}",
    "auth": {"type": "api_key", "header": "Authorization", "prefix": "SSWS ", "value": "{{secret.token}}"},
    "limits": {"remaining_header": "x-rate-limit-remaining", "reset_header": "x-rate-limit-reset", "reset_format": "epoch"},
    "resources": {
      "user": {
        "list": {
          "path": "/api/v1/users",
          "page_size": {"param": "limit", "default": 200, "max": 200},
          "records": "$[*]",
          "pagination": {"type": "link_header", "rel": "next"},
          "incremental": {
            "type": "param",
            "param": "filter",
            "template": "lastUpdated gt \"{{since}}\" and (status eq \"STAGED\" or status eq \"PROVISIONED\" or status eq \"ACTIVE\" or status eq \"RECOVERY\" or status eq \"PASSWORD_EXPIRED\" or status eq \"LOCKED_OUT\" or status eq \"SUSPENDED\" or status eq \"DEPROVISIONED\")",
            "cursor": "$.lastUpdated"
          },
          "gone": "$ ? (@.status == \"DEPROVISIONED\")"
        },
        "get": {"path": "/api/v1/users/{{external_id}}"},
        "map": {
          "externalId": "$.id",
          "displayName": ["$.profile.displayName", "$.profile.login"],
          "email": "$.profile.email",
          "attributes": "$.profile"
        }
      },
      "group": {
        "list": {
          "path": "/api/v1/groups",
          "page_size": {"param": "limit", "default": 200, "max": 200},
          "records": "$[*]",
          "pagination": {"type": "link_header", "rel": "next"},
          "incremental": {
            "type": "param",
            "param": "filter",
            "template": "lastUpdated gt \"{{since}}\" or lastMembershipUpdated gt \"{{since}}\"",
            "cursor": "$.lastUpdated"
          }
        },
        "get": {"path": "/api/v1/groups/{{external_id}}"},
        "map": {
          "externalId": "$.id",
          "displayName": "$.profile.name",
          "attributes": "$",
          "exclude": ["_links", "_embedded"]
        }
      },
      "member": {
        "description": "Who is in which group; sync group first",
        "for_each": {"resource": "group", "path": "/api/v1/groups/{{parent.external_id}}/users"},
        "list": {
          "page_size": {"param": "limit", "default": 200, "max": 200},
          "records": "$[*]",
          "pagination": {"type": "link_header", "rel": "next"}
        },
        "map": {
          "externalId": "$.id",
          "displayName": ["$.profile.displayName", "$.profile.login"],
          "email": "$.profile.email",
          "attributes": "$.profile"
        }
      }
    }
  }
}
,
{
  "name": "entra",
  "title": "Microsoft Entra ID",
  "config": [
    {"name": "tenant_id", "required": true, "description": "Directory (tenant) ID or domain", "example": "acme.onmicrosoft.com"},
    {"name": "client_id", "required": true, "description": "Application (client) ID of an app registration with the application permissions User.Read.All and GroupMember.Read.All", "example": "11112222-3333-4444-5555-666677778888"}
  ],
  "secrets": [
    {"name": "client_secret", "required": true, "description": "Client secret of the app registration"}
  ],
  "notes": {
    "pages": "@odata.nextLink; 100 a page by default, at most 999. A page may be empty and still have a next link",
    "incremental": "delta links; changed records carry only what has changed. 410 starts over",
    "gone": "@removed, for deleted and for permanently deleted records",
    "limits": "429 with Retry-After",
    "email": "mail only: the user principal name is not always a mailbox"
  },
  "sources": [
    "https://learn.microsoft.com/en-us/graph/api/user-list",
    "https://learn.microsoft.com/en-us/graph/paging",
    "https://learn.microsoft.com/en-us/graph/delta-query-overview",
    "https://learn.microsoft.com/en-us/graph/delta-query-users",
    "https://learn.microsoft.com/en-us/graph/throttling"
  ],
  "definition": {
    "version": 1,
    "base_url": "https://graph.microsoft.com/v1.0",
    "auth": {
      "type": "oauth2_client_credentials",
      "token_url": "https://login.microsoftonline.com/{{config.tenant_id}}/oauth2/v2.0/token",
      "client_id": "{{config.client_id}}",
      "client_secret": "{{secret.client_secret}}",
      "client_auth": "body",
      "scope": "https://graph.microsoft.com/.default"
    },
    "resources": {
      "user": {
        "list": {
          "path": "/users",
          "params": {"$select": "id,displayName,givenName,surname,mail,userPrincipalName,accountEnabled,userType,jobTitle,department,companyName,employeeId,officeLocation,mobilePhone"},
          "page_size": {"param": "$top", "default": 999, "max": 999},
          "records": "$.value[*]",
          "error": "$.error",
          "pagination": {"type": "next_url", "path": "$.\"@odata.nextLink\""},
          "incremental": {"type": "delta_link", "start_path": "/users/delta", "path": "$.\"@odata.deltaLink\"", "reset_status": [410], "partial": true},
          "gone": "$.\"@removed\""
        },
        "get": {
          "path": "/users/{{external_id}}",
          "params": {"$select": "id,displayName,givenName,surname,mail,userPrincipalName,accountEnabled,userType,jobTitle,department,companyName,employeeId,officeLocation,mobilePhone"}
        },
        "map": {
          "externalId": "$.id",
          "displayName": "$.displayName",
          "email": "$.mail",
          "attributes": "$",
          "exclude": ["@odata.context", "@odata.type", "@odata.id"]
        }
      },
      "group": {
        "list": {
          "path": "/groups",
          "params": {"$select": "id,displayName,description,mail,mailEnabled,securityEnabled,groupTypes"},
          "page_size": {"param": "$top", "default": 999, "max": 999},
          "records": "$.value[*]",
          "error": "$.error",
          "pagination": {"type": "next_url", "path": "$.\"@odata.nextLink\""},
          "incremental": {"type": "delta_link", "start_path": "/groups/delta", "path": "$.\"@odata.deltaLink\"", "reset_status": [410], "partial": true},
          "gone": "$.\"@removed\""
        },
        "get": {
          "path": "/groups/{{external_id}}",
          "params": {"$select": "id,displayName,description,mail,mailEnabled,securityEnabled,groupTypes"}
        },
        "map": {
          "externalId": "$.id",
          "displayName": "$.displayName",
          "email": "$.mail",
          "attributes": "$",
          "exclude": ["@odata.context", "@odata.type", "@odata.id"]
        }
      },
      "member": {
        "description": "Who is in which group; sync group first",
        "for_each": {"resource": "group", "path": "/groups/{{parent.external_id}}/members"},
        "list": {
          "params": {"$select": "id,displayName,mail,userPrincipalName"},
          "page_size": {"param": "$top", "default": 999, "max": 999},
          "records": "$.value[*]",
          "error": "$.error",
          "pagination": {"type": "next_url", "path": "$.\"@odata.nextLink\""}
        },
        "map": {
          "externalId": "$.id",
          "displayName": "$.displayName",
          "email": "$.mail",
          "attributes": "$",
          "exclude": ["@odata.id"]
        }
      }
    }
  }
}
,
{
  "name": "google_workspace",
  "title": "Google Workspace",
  "config": [
    {"name": "client_email", "required": true, "description": "E-mail address of a service account with domain-wide delegation for the two scopes of the definition", "example": "sync@acme-project.iam.gserviceaccount.com"},
    {"name": "admin_email", "required": true, "description": "Administrator on whose behalf the service account reads the directory", "example": "admin@acme.example"}
  ],
  "secrets": [
    {"name": "private_key", "required": true, "description": "private_key of the service account's JSON key file"}
  ],
  "notes": {
    "pages": "nextPageToken; at most 500 users, 200 groups and 200 members a page",
    "incremental": "none",
    "gone": "deleted users are not listed",
    "limits": "no headers; 403 with reason rateLimitExceeded, userRateLimitExceeded or quotaExceeded, and 429"
  },
  "sources": [
    "https://developers.google.com/admin-sdk/directory/reference/rest/v1/users/list",
    "https://developers.google.com/admin-sdk/directory/reference/rest/v1/groups/list",
    "https://developers.google.com/admin-sdk/directory/reference/rest/v1/members/list",
    "https://developers.google.com/admin-sdk/directory/v1/limits",
    "https://developers.google.com/identity/protocols/oauth2/service-account"
  ],
  "definition": {
    "version": 1,
    "base_url": "https://admin.googleapis.com",
    "auth": {
      "type": "jwt_exchange",
      "token_url": "https://oauth2.googleapis.com/token",
      "iss": "{{config.client_email}}",
      "sub": "{{config.admin_email}}",
      "scope": "https://www.googleapis.com/auth/admin.directory.user.readonly https://www.googleapis.com/auth/admin.directory.group.readonly",
      "key": "{{secret.private_key}}",
      "alg": "RS256",
      "body": "grant"
    },
    "limits": {
      "also_throttle_status": [403],
      "throttle_body": "$.error.errors[*].reason ? (@ like_regex \"^(rateLimitExceeded|userRateLimitExceeded|quotaExceeded)$\")"
    },
    "resources": {
      "user": {
        "list": {
          "path": "/admin/directory/v1/users",
          "params": {"customer": "my_customer", "projection": "full"},
          "page_size": {"param": "maxResults", "default": 500, "max": 500},
          "records": "$.users[*]",
          "error": "$.error",
          "pagination": {"type": "cursor", "path": "$.nextPageToken", "param": "pageToken"}
        },
        "get": {"path": "/admin/directory/v1/users/{{external_id}}", "params": {"projection": "full"}},
        "map": {
          "externalId": "$.id",
          "displayName": ["$.name.fullName", "$.primaryEmail"],
          "email": "$.primaryEmail",
          "attributes": "$",
          "exclude": ["kind", "etag", "lastLoginTime", "thumbnailPhotoEtag", "thumbnailPhotoUrl"]
        }
      },
      "group": {
        "list": {
          "path": "/admin/directory/v1/groups",
          "params": {"customer": "my_customer"},
          "page_size": {"param": "maxResults", "default": 200, "max": 200},
          "records": "$.groups[*]",
          "error": "$.error",
          "missing": "empty",
          "pagination": {"type": "cursor", "path": "$.nextPageToken", "param": "pageToken"}
        },
        "get": {"path": "/admin/directory/v1/groups/{{external_id}}"},
        "map": {
          "externalId": "$.id",
          "displayName": ["$.name", "$.email"],
          "email": "$.email",
          "attributes": "$",
          "exclude": ["kind", "etag"]
        }
      },
      "member": {
        "description": "Who is in which group; sync group first",
        "for_each": {"resource": "group", "path": "/admin/directory/v1/groups/{{parent.external_id}}/members"},
        "list": {
          "page_size": {"param": "maxResults", "default": 200, "max": 200},
          "records": "$.members[*]",
          "error": "$.error",
          "missing": "empty",
          "pagination": {"type": "cursor", "path": "$.nextPageToken", "param": "pageToken"}
        },
        "map": {
          "externalId": "$.id",
          "displayName": "$.email",
          "email": "$.email",
          "attributes": "$",
          "exclude": ["kind", "etag"]
        }
      }
    }
  }
}
,
{
  "name": "github",
  "title": "GitHub organisation",
  "config": [
    {"name": "org", "required": true, "description": "Login of the organisation", "example": "acme"}
  ],
  "secrets": [
    {"name": "token", "required": true, "description": "Personal access token that may read the organisation's members"}
  ],
  "notes": {
    "pages": "Link header; at most 100 a page",
    "incremental": "none",
    "gone": "who has left is not listed",
    "limits": "x-ratelimit-remaining and x-ratelimit-reset (seconds since 1970); 403 or 429, for the secondary limit with retry-after or none of these",
    "email": "members are listed without e-mail addresses"
  },
  "sources": [
    "https://docs.github.com/en/rest/orgs/members#list-organization-members",
    "https://docs.github.com/en/rest/teams/teams#list-teams",
    "https://docs.github.com/en/rest/teams/members#list-team-members",
    "https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api",
    "https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api"
  ],
  "definition": {
    "version": 1,
    "base_url": "https://api.github.com",
    "headers": {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"},
    "auth": {"type": "bearer", "token": "{{secret.token}}"},
    "limits": {
      "remaining_header": "x-ratelimit-remaining",
      "reset_header": "x-ratelimit-reset",
      "reset_format": "epoch",
      "also_throttle_status": [403],
      "throttle_body": "$.message ? (@ like_regex \"rate limit\" flag \"i\")"
    },
    "retry": {"max_attempts": 5, "base_ms": 60000, "max_ms": 300000, "on_status": [408, 429, 500, 502, 503, 504]},
    "resources": {
      "user": {
        "list": {
          "path": "/orgs/{{config.org}}/members",
          "page_size": {"param": "per_page", "default": 100, "max": 100},
          "records": "$[*]",
          "pagination": {"type": "link_header", "rel": "next"}
        },
        "map": {
          "externalId": "$.id",
          "displayName": ["$.name", "$.login"],
          "email": "$.email",
          "attributes": "$",
          "exclude": ["gravatar_id", "events_url", "followers_url", "following_url", "gists_url", "organizations_url", "received_events_url", "repos_url", "starred_url", "subscriptions_url"]
        }
      },
      "group": {
        "list": {
          "path": "/orgs/{{config.org}}/teams",
          "page_size": {"param": "per_page", "default": 100, "max": 100},
          "records": "$[*]",
          "pagination": {"type": "link_header", "rel": "next"}
        },
        "map": {
          "externalId": "$.id",
          "displayName": ["$.name", "$.slug"],
          "attributes": "$",
          "exclude": ["members_url", "repositories_url"]
        }
      },
      "member": {
        "description": "Who is in which team; sync group first",
        "for_each": {"resource": "group", "path": "/orgs/{{config.org}}/teams/{{parent.attributes.slug}}/members"},
        "list": {
          "page_size": {"param": "per_page", "default": 100, "max": 100},
          "records": "$[*]",
          "pagination": {"type": "link_header", "rel": "next"}
        },
        "map": {
          "externalId": "$.id",
          "displayName": ["$.name", "$.login"],
          "email": "$.email",
          "attributes": "$",
          "exclude": ["gravatar_id", "events_url", "followers_url", "following_url", "gists_url", "organizations_url", "received_events_url", "repos_url", "starred_url", "subscriptions_url"]
        }
      }
    }
  }
}
,
{
  "name": "keycloak",
  "title": "Keycloak",
  "config": [
    {"name": "base_url", "required": true, "description": "Address of the server, up to and without /realms", "example": "https://sso.example.com"},
    {"name": "realm", "required": true, "description": "Realm that is synced and that has the client", "example": "acme"},
    {"name": "client_id", "required": true, "description": "Confidential client with a service account that has the role view-users of realm-management (for role also view-realm)", "example": "flohsync"}
  ],
  "secrets": [
    {"name": "client_secret", "required": true, "description": "Secret of the client"}
  ],
  "notes": {
    "pages": "first and max, 100 a page by default; no total, so the list ends with an empty page",
    "incremental": "none",
    "gone": "who is deleted is not listed; disabled users are listed with enabled false",
    "limits": "none built in",
    "groups": "groups of the first level are listed"
  },
  "sources": [
    "https://www.keycloak.org/docs-api/latest/rest-api/index.html#_users",
    "https://www.keycloak.org/docs-api/latest/rest-api/index.html#_groups",
    "https://www.keycloak.org/docs/latest/server_admin/index.html#_service_accounts"
  ],
  "definition": {
    "version": 1,
    "base_url": "{{config.base_url}}",
    "auth": {
      "type": "oauth2_client_credentials",
      "token_url": "{{config.base_url}}/realms/{{config.realm}}/protocol/openid-connect/token",
      "client_id": "{{config.client_id}}",
      "client_secret": "{{secret.client_secret}}",
      "client_auth": "body"
    },
    "resources": {
      "user": {
        "list": {
          "path": "/admin/realms/{{config.realm}}/users",
          "params": {"briefRepresentation": false},
          "page_size": {"param": "max", "default": 500, "max": 1000},
          "records": "$[*]",
          "pagination": {"type": "offset", "param": "first", "base": 0, "step": "returned", "stop": "empty"}
        },
        "get": {"path": "/admin/realms/{{config.realm}}/users/{{external_id}}"},
        "map": {
          "externalId": "$.id",
          "displayName": ["$.attributes.displayName[0]", "$.username"],
          "email": "$.email",
          "attributes": "$",
          "exclude": ["access", "userProfileMetadata"]
        }
      },
      "group": {
        "list": {
          "path": "/admin/realms/{{config.realm}}/groups",
          "params": {"briefRepresentation": false},
          "page_size": {"param": "max", "default": 500, "max": 1000},
          "records": "$[*]",
          "pagination": {"type": "offset", "param": "first", "base": 0, "step": "returned", "stop": "empty"}
        },
        "get": {"path": "/admin/realms/{{config.realm}}/groups/{{external_id}}"},
        "map": {
          "externalId": "$.id",
          "displayName": "$.name",
          "attributes": "$",
          "exclude": ["access"]
        }
      },
      "role": {
        "list": {
          "path": "/admin/realms/{{config.realm}}/roles",
          "params": {"briefRepresentation": false},
          "page_size": {"param": "max", "default": 500, "max": 1000},
          "records": "$[*]",
          "pagination": {"type": "offset", "param": "first", "base": 0, "step": "returned", "stop": "empty"}
        },
        "map": {"externalId": "$.id", "displayName": "$.name", "attributes": "$"}
      },
      "member": {
        "description": "Who is in which group; sync group first",
        "for_each": {"resource": "group", "path": "/admin/realms/{{config.realm}}/groups/{{parent.external_id}}/members"},
        "list": {
          "params": {"briefRepresentation": true},
          "page_size": {"param": "max", "default": 500, "max": 1000},
          "records": "$[*]",
          "pagination": {"type": "offset", "param": "first", "base": 0, "step": "returned", "stop": "empty"}
        },
        "map": {
          "externalId": "$.id",
          "displayName": "$.username",
          "email": "$.email",
          "attributes": "$",
          "exclude": ["access"]
        }
      }
    }
  }
}
,
{
  "name": "authifi",
  "title": "Authifi",
  "config": [
    {"name": "base_url", "required": true, "description": "Address of the API, up to and without /users", "example": "https://auth.example.com/_api"}
  ],
  "secrets": [
    {"name": "token", "required": true, "description": "Bearer token"}
  ],
  "notes": {
    "pages": "cursor and pageSize; resources, nextCursor and totalEstimate in the answer. There is no public description of the API: the paths and the login are a proposal, to be compared with your installation",
    "incremental": "none",
    "gone": "not told; a full pass finds out",
    "limits": "429 with Retry-After"
  },
  "sources": [],
  "definition": {
    "version": 1,
    "base_url": "{{config.base_url}}",
    "auth": {"type": "bearer", "token": "{{secret.token}}"},
    "resources": {
      "user": {
        "list": {
          "path": "/users",
          "page_size": {"param": "pageSize", "default": 500, "max": 500},
          "records": "$.resources[*]",
          "total": "$.totalEstimate",
          "total_estimate": true,
          "pagination": {"type": "cursor", "path": "$.nextCursor", "param": "cursor"}
        },
        "map": {
          "externalId": ["$.externalId", "$.id"],
          "displayName": ["$.displayName", "$.name"],
          "email": "$.email",
          "attributes": ["$.attributes", "$"]
        }
      },
      "group": {
        "list": {
          "path": "/groups",
          "page_size": {"param": "pageSize", "default": 500, "max": 500},
          "records": "$.resources[*]",
          "total": "$.totalEstimate",
          "total_estimate": true,
          "pagination": {"type": "cursor", "path": "$.nextCursor", "param": "cursor"}
        },
        "map": {
          "externalId": ["$.externalId", "$.id"],
          "displayName": ["$.displayName", "$.name"],
          "email": "$.email",
          "attributes": ["$.attributes", "$"]
        }
      }
    }
  }
}
]$json$::pg_catalog.jsonb;
COMMENT ON FUNCTION _flohsync.templates() IS 'The templates with their documentation';

CREATE FUNCTION flohsync.connector_templates()
RETURNS TABLE (name text, title text, config jsonb, secrets jsonb, resource_types text[], notes jsonb, sources jsonb)
LANGUAGE sql IMMUTABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT t.value ->> 'name', t.value ->> 'title', t.value -> 'config', t.value -> 'secrets',
         ARRAY(SELECT k FROM pg_catalog.jsonb_object_keys(t.value -> 'definition' -> 'resources') k
               ORDER BY k COLLATE "C"),
         t.value -> 'notes', t.value -> 'sources'
    FROM pg_catalog.jsonb_array_elements(_flohsync.templates()) WITH ORDINALITY t(value, i) ORDER BY t.i;
END;
COMMENT ON FUNCTION flohsync.connector_templates() IS
  'Templates for connector_template(): the keys that config needs, the secrets to set, the resource types, notes on '
  'the vendor, and where that is documented';
SELECT _flohsync.allow('reader', 'flohsync.connector_templates()');

CREATE FUNCTION flohsync.connector_template(name text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  found_one jsonb;
BEGIN
  SELECT t.value -> 'definition' INTO found_one
    FROM jsonb_array_elements(_flohsync.templates()) t WHERE t.value ->> 'name' = connector_template.name;
  IF found_one IS NULL THEN
    PERFORM _flohsync.raise('42704',
      format('there is no template %s', coalesce('"' || connector_template.name || '"', 'NULL')),
      NULL,
      format('Templates are %s.', (SELECT string_agg(t.name, ', ') FROM flohsync.connector_templates() t)));
  END IF;
  RETURN found_one;
END
$$;
COMMENT ON FUNCTION flohsync.connector_template(text) IS
  'A ready definition for create_connector(): scim, okta, entra, google_workspace, github, keycloak or '
  'authifi; 42704 for another name';
SELECT _flohsync.allow('reader', 'flohsync.connector_template(text)');
-- Connectors of kind rest: what a definition (14_definition.sql) needs beside it.

CREATE FUNCTION _flohsync.check_rest(_config jsonb, _definition jsonb, _given boolean) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  k text;
  v jsonb;
  url text;
  problem text;
BEGIN
  IF _definition IS NULL THEN
    PERFORM _flohsync.invalid('definition', 'a connector of kind rest needs one',
      'flohsync.connector_template() has ready ones; doc/definition.md describes the format.');
  END IF;
  IF _config IS NULL OR jsonb_typeof(_config) <> 'object' THEN
    PERFORM _flohsync.invalid('config', 'it must be a JSON object');
  END IF;
  PERFORM _flohsync.raise_faults(flohsync.validate_definition(_definition));

  FOR k IN SELECT n FROM _flohsync.definition_names(_definition, 'config') n ORDER BY n COLLATE "C" LOOP
    v := _config -> k;
    problem := CASE
      WHEN coalesce(v, 'null') = 'null' THEN format('it is required: the definition uses {{config.%s}}', k)
      WHEN jsonb_typeof(v) NOT IN ('string', 'number', 'boolean') THEN 'it must be a string, a number, true or false'
      WHEN length(v #>> '{}') NOT BETWEEN 1 AND 2000 THEN 'it must have 1 to 2000 characters'
      WHEN v #>> '{}' ~ '[\x01-\x1f\x7f]' THEN 'it contains control characters'
      WHEN v #>> '{}' IN ('.', '..') THEN 'it cannot be part of a path' END;
    IF problem IS NOT NULL THEN
      PERFORM _flohsync.invalid(k, problem,
        CASE WHEN coalesce(v, 'null') = 'null' THEN format('Give it in config: {"%s": …}.', k) END);
    END IF;
  END LOOP;
  FOR k IN SELECT n FROM _flohsync.definition_names(_definition, 'secret') n WHERE _config ? n LOOP
    PERFORM _flohsync.invalid(k, 'the definition uses it as a secret, which must not be in config',
      format('Omit it from config, and call flohsync.set_secret(connector, %L, …).', k));
  END LOOP;
  FOR k, url IN
    SELECT u.key, _flohsync.fill_placeholders(u.url, _config)
      FROM (VALUES ('base_url', _definition ->> 'base_url'),
                   ('token_url', _definition -> 'auth' ->> 'token_url')) u(key, url) LOOP
    problem := _flohsync.base_url_problem(url);
    IF problem IS NOT NULL THEN
      PERFORM _flohsync.invalid('config', format('"%s" becomes %s: %s', k, _flohsync.excerpt(url), problem),
        CASE WHEN url ~ '^https?://https?:'
             THEN format('Values of config are inserted into this URL unchanged: specify a host, such '
                         'as %s, without "https://".',
                         substring(url from '^https?://https?:/*([A-Za-z0-9.-]+)'))
             ELSE 'Values of config are inserted into this URL unchanged.' END);
    END IF;
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.check_rest(jsonb, jsonb, boolean) IS
  'Raises 22023 for a definition with faults, or a config that lacks what it uses';

CREATE FUNCTION _flohsync.types_rest(_config jsonb, _definition jsonb) RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN pg_catalog.jsonb_object_keys(CASE pg_catalog.jsonb_typeof(_definition -> 'resources')
                                    WHEN 'object' THEN _definition -> 'resources' END);
COMMENT ON FUNCTION _flohsync.types_rest(jsonb, jsonb) IS
  'Resource types that the definition of a connector of kind rest names';

CREATE FUNCTION _flohsync.credentials_rest(_config jsonb, _definition jsonb) RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN _flohsync.definition_names(_definition, 'secret');
COMMENT ON FUNCTION _flohsync.credentials_rest(jsonb, jsonb) IS
  'Secrets that the definition of a connector of kind rest uses';
-- Lists that are there once: match strategies, and the keys of a configuration.
-- Checks, hints, statements and what applications see are made of them;
-- test/sql/lists.sql and test/readme hold the rest to them.

CREATE FUNCTION _flohsync.enumerated(_names text[]) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN pg_catalog.concat_ws(' and ',
  nullif(pg_catalog.array_to_string(_names[:pg_catalog.cardinality(_names) - 1], ', '), ''),
  _names[pg_catalog.cardinality(_names)]);
COMMENT ON FUNCTION _flohsync.enumerated(text[]) IS 'Names as a sentence has them: a, b and c';

-- Of a record "r" (_flohsync.records_sql) and a user "u".  Whether a changed
-- user may be met by a strategy is found by the column of user_change.
CREATE FUNCTION _flohsync.match_strategies(OUT strategy text, OUT condition text, OUT key text, OUT by_issuer boolean,
  OUT user_key text) RETURNS SETOF record
LANGUAGE sql IMMUTABLE ROWS 4
BEGIN ATOMIC
  VALUES
    ('email', '_flohsync.match_key(u.email) COLLATE "C" = r.email_key',
     'jsonb_build_object(''email'', r.email_key)', false, 'email_key'),
    ('email_and_issuer', '_flohsync.match_key(u.email) COLLATE "C" = r.email_key'
                         ' AND _flohsync.match_key(u.upstream_issuer) COLLATE "C" = r.issuer_key',
     'jsonb_build_object(''email'', r.email_key, ''issuer'', r.issuer_key, ''issuerSourcePath'', $5)',
     true, 'email_key'),
    ('upstream_identity', 'u.upstream_id COLLATE "C" = r.external_id',
     'jsonb_build_object(''upstreamId'', r.external_id)', false, 'upstream_id'),
    ('external_id', 'u.sub COLLATE "C" = r.external_id',
     'jsonb_build_object(''sub'', r.external_id)', false, 'sub');
END;
COMMENT ON FUNCTION _flohsync.match_strategies() IS
  'The match strategies: SQL for when a record and a user belong together, SQL for what explain_match() shows of the '
  'record ($5: path of its issuer), whether the issuer counts, and by which column of user_change a changed user is '
  'found';

CREATE FUNCTION _flohsync.match_strategy_names() RETURNS text[]
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT pg_catalog.array_agg(s.strategy) FROM _flohsync.match_strategies() s;
END;
COMMENT ON FUNCTION _flohsync.match_strategy_names() IS 'The names of the match strategies';

-- A check is a function (configuration, key, value) that returns what is stored,
-- as JSON, or raises 22023; without one, the JSON type is all that is checked.
-- null stands for no value, but where there is a default; then it is the check's.
CREATE FUNCTION _flohsync.config_keys(OUT key text, OUT attribute text, OUT json_type text, OUT nullable boolean,
  OUT checked_by text, OUT initial jsonb, OUT matching boolean) RETURNS SETOF record
LANGUAGE sql IMMUTABLE ROWS 20
BEGIN ATOMIC
  VALUES
    ('enabled', 'enabled', 'boolean', false, NULL, 'false'::pg_catalog.jsonb, false),
    ('strategy', 'strategy', 'string', false, 'setting_strategy', '"full"', false),
    ('cronSchedule', 'cron_schedule', 'string', true, 'setting_schedule', 'null', false),
    ('filterRules', 'filter_rules', 'object', true, 'setting_filter_rules', 'null', false),
    ('staleRetention', 'stale_retention', 'string', false, 'setting_stale_retention', '"7d"', false),
    ('attributeMappings', 'attribute_mappings', 'array', true, 'setting_mappings', 'null', true),
    ('userMatchStrategy', 'user_match_strategy', 'string', false, 'setting_match_strategy', '"email"', true),
    ('userMatchFallbackStrategies', 'user_match_fallback_strategies', 'array', true, 'setting_fallbacks', 'null', true),
    ('issuerSourcePath', 'issuer_source_path', 'string', true, 'setting_issuer_path', 'null', true),
    ('postSyncWorkflowId', 'post_sync_workflow_id', 'string', true, 'setting_workflow', 'null', false),
    ('syncTriggerMode', 'sync_trigger_mode', 'string', false, 'setting_trigger_mode', '"none"', false),
    ('createUsers', 'create_users', 'boolean', false, NULL, 'false', true),
    ('deactivateUsers', 'deactivate_users', 'boolean', false, NULL, 'false', true),
    ('createUserDefaults', 'create_user_defaults', 'object', true, 'setting_user_defaults', 'null', false),
    ('fullCronSchedule', 'full_cron_schedule', 'string', true, 'setting_schedule', 'null', false),
    ('timezone', 'timezone', 'string', false, 'setting_timezone', '"UTC"', false),
    ('overlap', 'overlap', 'string', false, 'setting_overlap', '"00:05:00"', false),
    ('hashIgnore', 'hash_ignore', 'array', true, 'setting_hash_ignore', 'null', false),
    ('safeguards', 'safeguards', 'object', true, 'setting_safeguards',
     '{"maxStaleFraction": 0.2, "maxDeactivateFraction": 0.05, "minRecords": 10}', false);
END;
COMMENT ON FUNCTION _flohsync.config_keys() IS
  'The keys that configure_sync() takes: column, JSON type, whether null is taken, function that checks it, default, '
  'and whether after a change everybody is matched again';
-- Configurations: what of a connector is synced, when, and under which guards.

CREATE TABLE flohsync.workflow_definition (
  id         uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
  name       text NOT NULL UNIQUE,
  enabled    boolean NOT NULL DEFAULT true,
  definition jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE flohsync.workflow_definition IS 'Workflows that a sync can trigger';
COMMENT ON COLUMN flohsync.workflow_definition.id IS 'Identity of the workflow';
COMMENT ON COLUMN flohsync.workflow_definition.name IS 'Unique name';
COMMENT ON COLUMN flohsync.workflow_definition.enabled IS 'When false, jobs of the workflow are not run';
COMMENT ON COLUMN flohsync.workflow_definition.definition IS 'What the workflow does, opaque to flohsync';
COMMENT ON COLUMN flohsync.workflow_definition.created_at IS 'When the row was created';
SELECT _flohsync.allow('reader', 'flohsync.workflow_definition');

CREATE TABLE flohsync.connector_sync_config (
  id                             uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
  connector_id                   uuid NOT NULL REFERENCES flohsync.connector_definition ON DELETE CASCADE,
  resource_type                  varchar(64) COLLATE "C" NOT NULL
    CHECK (resource_type ~ '^[A-Za-z][A-Za-z0-9_.-]{0,63}$'),
  enabled                        boolean NOT NULL DEFAULT false,
  strategy                       varchar(32) NOT NULL DEFAULT 'full' CHECK (strategy IN ('full', 'incremental')),
  cron_schedule                  varchar(64),
  filter_rules                   jsonb,
  stale_retention                varchar(32) NOT NULL DEFAULT '7d',
  last_sync_at                   timestamptz,
  last_sync_cursor               text,
  last_sync_status               varchar(32) NOT NULL DEFAULT 'idle'
    CHECK (last_sync_status IN ('idle', 'running', 'success', 'error')),
  last_sync_error                text,
  last_sync_stats                jsonb,
  attribute_mappings             jsonb,
  user_match_strategy            varchar(32) NOT NULL DEFAULT 'email',
  user_match_fallback_strategies jsonb,
  issuer_source_path             text,
  post_sync_workflow_id          uuid REFERENCES flohsync.workflow_definition ON DELETE SET NULL,
  sync_trigger_mode              varchar(32) NOT NULL DEFAULT 'none'
    CHECK (sync_trigger_mode IN ('none', 'per_record', 'summary')),
  create_users                   boolean NOT NULL DEFAULT false,
  deactivate_users               boolean NOT NULL DEFAULT false,
  create_user_defaults           jsonb,
  full_cron_schedule             varchar(64),
  timezone                       text NOT NULL DEFAULT 'UTC',
  overlap                        interval NOT NULL DEFAULT '5 minutes' CHECK (overlap >= '0'),
  hash_ignore                    jsonb,
  hash_ignore_since              timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  safeguards                     jsonb NOT NULL
    DEFAULT '{"maxStaleFraction": 0.2, "maxDeactivateFraction": 0.05, "minRecords": 10}',
  next_run_at                    timestamptz,
  next_full_run_at               timestamptz,
  watermark                      timestamptz,
  last_full_pass_at              timestamptz,
  last_success_at                timestamptz,
  last_complete_at               timestamptz,
  incomplete_reason              text,
  full_incomplete_reason         text,
  retry_at                       timestamptz,
  retries                        integer NOT NULL DEFAULT 0,
  schedule_error                 text,
  parked                         boolean NOT NULL DEFAULT false,
  totals                         jsonb NOT NULL DEFAULT '{}',
  delta_link                     text,
  delta_fingerprint              text,
  owner                          _flohsync.role NOT NULL,
  created_at                     timestamptz NOT NULL DEFAULT pg_catalog.now(),
  updated_at                     timestamptz NOT NULL DEFAULT pg_catalog.now(),
  UNIQUE (connector_id, resource_type)
);
DO $$
BEGIN
  EXECUTE format('ALTER TABLE flohsync.connector_sync_config ADD CHECK (user_match_strategy IN (%s))',
                 (SELECT string_agg(quote_literal(n), ', ') FROM unnest(_flohsync.match_strategy_names()) n));
END
$$;
-- Queries and functions of kind sql run with the rights of the configuration's
-- owner.  So what decides what runs (owner, connector and type of a
-- configuration; kind and config of its connector) is changed only by who could
-- act as the owner before the change and as the one after it, by a function or
-- by writing to the tables.  What has an owner that is gone does not run.
--
-- A type that is not configured has no owner: there they run, for
-- test_connector() and the cache, with the rights of who wrote them, and not of
-- who asks.
CREATE FUNCTION _flohsync.guard_owner() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  c flohsync.connector_definition;
BEGIN
  IF NEW.owner IS NULL THEN
    NEW.owner := _flohsync.role(_flohsync.acting_role());
  END IF;
  IF TG_OP = 'UPDATE' AND (NEW.owner::text, NEW.connector_id, NEW.resource_type) IS NOT DISTINCT
    FROM (OLD.owner::text, OLD.connector_id, OLD.resource_type) THEN
    RETURN NEW;
  END IF;
  IF NOT coalesce(_flohsync.may_act_as(_flohsync.role_oid(NEW.owner)), true) THEN
    PERFORM _flohsync.raise('42501',
      format('role "%s" cannot be made the owner of a configuration', _flohsync.role_name(NEW.owner)),
      NULL,
      'Only a member of that role can do that.');
  ELSIF TG_OP = 'UPDATE' AND NOT coalesce(_flohsync.may_act_as(_flohsync.role_oid(OLD.owner)), true) THEN
    PERFORM _flohsync.raise('42501',
      format('the configuration runs with the rights of role "%s"', _flohsync.role_name(OLD.owner)),
      NULL,
      'Only a member of that role can change what it runs, or its owner.');
  END IF;
  SELECT * INTO c FROM flohsync.connector_definition d
   WHERE d.id = NEW.connector_id AND d.kind = 'sql' AND NOT _flohsync.may_act_as(_flohsync.role_oid(d.author));
  IF FOUND THEN
    RAISE WARNING USING
      MESSAGE = format('role "%s" decided what connector "%s" runs', _flohsync.role_name(c.author), c.name),
      DETAIL = format('Resource type "%s" runs with the rights of role "%s".', NEW.resource_type,
                      _flohsync.role_name(NEW.owner)),
      HINT = 'Review the config of the connector; flohsync.delete_sync_config() revokes the rights again.';
  END IF;
  RETURN NEW;
END
$$;
COMMENT ON FUNCTION _flohsync.guard_owner() IS
  'Prevents a role from making another role the owner of a configuration, and from changing what another role runs; '
  'warns when a role lends its rights to code that another role configured';
CREATE TRIGGER guard_owner BEFORE INSERT OR UPDATE OF owner, connector_id, resource_type
  ON flohsync.connector_sync_config
FOR EACH ROW EXECUTE FUNCTION _flohsync.guard_owner();

CREATE FUNCTION _flohsync.note_hash_rule() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  NEW.hash_ignore_since := clock_timestamp();
  RETURN NEW;
END
$$;
COMMENT ON FUNCTION _flohsync.note_hash_rule() IS 'Records when hash_ignore was changed';
CREATE TRIGGER note_hash_rule BEFORE UPDATE OF hash_ignore ON flohsync.connector_sync_config
FOR EACH ROW WHEN (OLD.hash_ignore IS DISTINCT FROM NEW.hash_ignore) EXECUTE FUNCTION _flohsync.note_hash_rule();

CREATE FUNCTION _flohsync.guard_queries() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  foreign_owner text;
BEGIN
  SELECT _flohsync.role_name(c.owner) INTO foreign_owner FROM flohsync.connector_sync_config c
   WHERE c.connector_id = OLD.id AND NOT _flohsync.may_act_as(_flohsync.role_oid(c.owner)) LIMIT 1;
  IF foreign_owner IS NOT NULL THEN
    PERFORM _flohsync.raise('42501',
      format('connector "%s" runs with the rights of role "%s"', OLD.name, foreign_owner),
      NULL,
      'Only a member of that role can change what it runs.');
  END IF;
  IF (NEW.id, NEW.kind, NEW.config, NEW.code_owner::text) IS NOT DISTINCT
    FROM (OLD.id, OLD.kind, OLD.config, OLD.code_owner::text)
     AND NEW.author::text = _flohsync.role_gone(OLD.author)::text THEN
    RETURN NEW;
  END IF;
  NEW.author := _flohsync.role(_flohsync.acting_role());
  NEW.code_owner := _flohsync.code_owner(NEW.kind, NEW.config);
  RETURN NEW;
END
$$;
COMMENT ON FUNCTION _flohsync.guard_queries() IS
  'Prevents a role from changing what another role runs, and records who decides that';
CREATE TRIGGER guard_queries BEFORE UPDATE OF id, kind, config, author, code_owner ON flohsync.connector_definition
FOR EACH ROW WHEN ((NEW.id, NEW.kind, NEW.config, NEW.author::text, NEW.code_owner::text)
                   IS DISTINCT FROM (OLD.id, OLD.kind, OLD.config, OLD.author::text, OLD.code_owner::text)
                   AND 'sql' IN (OLD.kind, NEW.kind))
EXECUTE FUNCTION _flohsync.guard_queries();

COMMENT ON TABLE flohsync.connector_sync_config IS 'How one resource type of a connector is synced';
COMMENT ON COLUMN flohsync.connector_sync_config.id IS 'Identity of the configuration';
COMMENT ON COLUMN flohsync.connector_sync_config.connector_id IS 'Its connector';
COMMENT ON COLUMN flohsync.connector_sync_config.resource_type IS 'Resource type';
COMMENT ON COLUMN flohsync.connector_sync_config.enabled IS 'Whether schedules run; runs by hand are always possible';
COMMENT ON COLUMN flohsync.connector_sync_config.strategy IS 'full or incremental';
COMMENT ON COLUMN flohsync.connector_sync_config.cron_schedule IS
  'When runs of the strategy are due; null: by hand only';
COMMENT ON COLUMN flohsync.connector_sync_config.filter_rules IS 'Which upstream records are in scope';
COMMENT ON COLUMN flohsync.connector_sync_config.stale_retention IS 'How long stale records are kept';
COMMENT ON COLUMN flohsync.connector_sync_config.last_sync_at IS 'End of the last run';
COMMENT ON COLUMN flohsync.connector_sync_config.last_sync_cursor IS
  'Cursor from which the next run resumes after an error';
COMMENT ON COLUMN flohsync.connector_sync_config.last_sync_status IS 'idle, running, success or error';
COMMENT ON COLUMN flohsync.connector_sync_config.last_sync_error IS
  'Message of the last run when it failed or was held';
COMMENT ON COLUMN flohsync.connector_sync_config.last_sync_stats IS 'Statistics of the last run';
COMMENT ON COLUMN flohsync.connector_sync_config.attribute_mappings IS 'Rules that copy attributes into user profiles';
COMMENT ON COLUMN flohsync.connector_sync_config.user_match_strategy IS
  'First strategy by which records are matched to users';
COMMENT ON COLUMN flohsync.connector_sync_config.user_match_fallback_strategies IS
  'Strategies tried after the first, in order';
COMMENT ON COLUMN flohsync.connector_sync_config.issuer_source_path IS
  'Where a record names its issuer; null: attributes.identityIssuer';
COMMENT ON COLUMN flohsync.connector_sync_config.post_sync_workflow_id IS 'Workflow to trigger after a run';
COMMENT ON COLUMN flohsync.connector_sync_config.sync_trigger_mode IS 'none, per_record or summary';
COMMENT ON COLUMN flohsync.connector_sync_config.create_users IS
  'Create users for unmatched records with an e-mail address';
COMMENT ON COLUMN flohsync.connector_sync_config.deactivate_users IS 'Deactivate users whose only record went stale';
COMMENT ON COLUMN flohsync.connector_sync_config.create_user_defaults IS 'Profile values of users created this way';
COMMENT ON COLUMN flohsync.connector_sync_config.full_cron_schedule IS
  'When a full pass runs beside an incremental one';
COMMENT ON COLUMN flohsync.connector_sync_config.timezone IS 'Time zone of both schedules';
COMMENT ON COLUMN flohsync.connector_sync_config.overlap IS
  'How far an incremental run reaches back behind the watermark';
COMMENT ON COLUMN flohsync.connector_sync_config.hash_ignore IS 'Attribute paths left out of the hash';
COMMENT ON COLUMN flohsync.connector_sync_config.hash_ignore_since IS
  'When hash_ignore was last changed: until a full pass that began later is complete, records may have '
  'hashes of the previous setting';
COMMENT ON COLUMN flohsync.connector_sync_config.safeguards IS
  'Limits above which a pass is held for approval; null disables a limit';
COMMENT ON COLUMN flohsync.connector_sync_config.next_run_at IS 'When the next scheduled run is due';
COMMENT ON COLUMN flohsync.connector_sync_config.next_full_run_at IS 'When the next run of the second schedule is due';
COMMENT ON COLUMN flohsync.connector_sync_config.watermark IS
  'Start of the last successful run that received everything it requested, by the upstream''s clock where '
  'that is behind the server''s';
COMMENT ON COLUMN flohsync.connector_sync_config.last_full_pass_at IS
  'Start of the last complete full pass: every record that is not stale was confirmed then or later';
COMMENT ON COLUMN flohsync.connector_sync_config.last_success_at IS 'End of the last run that succeeded';
COMMENT ON COLUMN flohsync.connector_sync_config.full_incomplete_reason IS
  'Why the last full pass was not complete; null: it was. Unaffected by incremental passes';
COMMENT ON COLUMN flohsync.connector_sync_config.last_complete_at IS 'End of the last run whose pass was complete';
COMMENT ON COLUMN flohsync.connector_sync_config.incomplete_reason IS
  'Why the pass of the last run was not complete; null when it was';
COMMENT ON COLUMN flohsync.connector_sync_config.retry_at IS
  'When a failed scheduled run is retried; null: at the next tick';
COMMENT ON COLUMN flohsync.connector_sync_config.retries IS 'Number of retries of the failed scheduled run';
COMMENT ON COLUMN flohsync.connector_sync_config.schedule_error IS
  'Why the schedules cannot be used; checked again every five minutes';
COMMENT ON COLUMN flohsync.connector_sync_config.parked IS
  'Schedules are suspended because runs repeatedly crashed their worker; a run by hand resumes them';
COMMENT ON COLUMN flohsync.connector_sync_config.totals IS
  'Totals over all runs: how many ended in which status, and their statistics';
COMMENT ON COLUMN flohsync.connector_sync_config.delta_link IS
  'Delta link from which the next incremental pass of a connector of kind rest starts';
COMMENT ON COLUMN flohsync.connector_sync_config.delta_fingerprint IS
  'Fingerprint of the pass that ended with that link; the link is used only while it is unchanged';
COMMENT ON COLUMN flohsync.connector_sync_config.owner IS
  'Role with whose rights connectors of kind sql run; ?name: that role was dropped, or its access '
  'was revoked, and nothing runs';
COMMENT ON COLUMN flohsync.connector_sync_config.created_at IS 'When the row was created';
COMMENT ON COLUMN flohsync.connector_sync_config.updated_at IS 'When the settings were last changed';
SELECT _flohsync.allow('reader', 'flohsync.connector_sync_config');
-- What the values of a configuration may be, and how it looks as JSON.

CREATE FUNCTION _flohsync.iso(_at timestamptz) RETURNS text
LANGUAGE sql STABLE STRICT
RETURN pg_catalog.to_char(_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');
COMMENT ON FUNCTION _flohsync.iso(timestamptz) IS 'A time as JSON carries it: ISO 8601 in UTC, milliseconds';

CREATE FUNCTION _flohsync.add_counters(_a jsonb, _b jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT coalesce(pg_catalog.jsonb_object_agg(s.key, s.value), '{}')
    -- What is no number would keep a run from ending.
    FROM (SELECT e.key, pg_catalog.sum(_flohsync.number(e.value)) AS value
            FROM (VALUES (_a), (_b)) o(value)
           CROSS JOIN LATERAL pg_catalog.jsonb_each(CASE pg_catalog.jsonb_typeof(o.value) WHEN 'object' THEN o.value
                                                    ELSE '{}' END) e
           WHERE pg_catalog.jsonb_typeof(e.value) = 'number'
           GROUP BY e.key) s;
END;
COMMENT ON FUNCTION _flohsync.add_counters(jsonb, jsonb) IS
  'Adds two objects of numbers, key by key; other values are skipped';

CREATE FUNCTION _flohsync.duration(_text text) RETURNS interval
LANGUAGE plpgsql STABLE STRICT
SET search_path = pg_catalog, pg_temp
SET intervalstyle = postgres
AS $$
DECLARE
  part text[] := regexp_match(_text, '^\s*(\d{1,9})\s*([smhdw])\s*$');
  answer interval;
BEGIN
  IF part IS NOT NULL THEN
    RETURN part[1]::int * CASE part[2] WHEN 's' THEN interval '1 second' WHEN 'm' THEN interval '1 minute'
                            WHEN 'h' THEN interval '1 hour' WHEN 'd' THEN interval '1 day' ELSE interval '7 days' END;
  END IF;
  -- A number needs a unit: interval takes the one at the end for seconds.
  IF _text ~ '(^|\s)[-+]?[0-9]*\.?[0-9]+\s*$' THEN
    RETURN NULL;
  END IF;
  BEGIN
    answer := _text::interval;
  EXCEPTION WHEN data_exception THEN
    RETURN NULL;
  END;
  RETURN CASE WHEN answer >= interval '0' AND isfinite(answer) THEN answer END;
END
$$;
COMMENT ON FUNCTION _flohsync.duration(text) IS
  'The interval of a text such as 7d, 24h, 30m, 90s, 2w or any interval with units; null when it is not a duration';

CREATE FUNCTION _flohsync.cron_next(_schedule text, _after timestamptz, _zone text) RETURNS timestamptz
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_cron_next';
COMMENT ON FUNCTION _flohsync.cron_next(text, timestamptz, text) IS
  'Next time after the given one at which a schedule is due; null for a null argument or when there is none';

CREATE FUNCTION _flohsync.cron_problem(_schedule text) RETURNS text
LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_cron_problem';
COMMENT ON FUNCTION _flohsync.cron_problem(text) IS 'Why a cron schedule is invalid; null when it is valid';

CREATE FUNCTION _flohsync.timezone_valid(_name text) RETURNS boolean
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_timezone_valid';
COMMENT ON FUNCTION _flohsync.timezone_valid(text) IS 'Whether a time zone of that name is known';

CREATE FUNCTION flohsync.cron_next(schedule text, after timestamptz DEFAULT pg_catalog.now(),
                                   timezone text DEFAULT 'UTC') RETURNS timestamptz
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_cron_next';
COMMENT ON FUNCTION flohsync.cron_next(text, timestamptz, text) IS
  'Next time after the given one at which a cron schedule is due in a time zone; null when there is none; 22023 for '
  'an invalid schedule or zone';
SELECT _flohsync.allow('reader', 'flohsync.cron_next(text, timestamptz, text)');

CREATE FUNCTION _flohsync.path_problem(_path text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE
  WHEN _path IS NULL OR _path !~ '^[A-Za-z_][A-Za-z0-9_:-]{0,63}(\.[A-Za-z0-9_:-]{1,64}){0,7}$'
    THEN pg_catalog.format('%s is not a dot path', coalesce(pg_catalog.quote_literal(_path), 'NULL'))
  WHEN pg_catalog.string_to_array(_path, '.') && ARRAY['__proto__', 'prototype', 'constructor']
    THEN pg_catalog.format('%L has an unsafe segment', _path)
  WHEN _path ~ '\.-?[0-9]+(\.|$)' THEN pg_catalog.format('%L counts in an array', _path)
  WHEN pg_catalog.split_part(_path, '.', 1) NOT IN ('externalId', 'displayName', 'email', 'attributes')
    OR (pg_catalog.split_part(_path, '.', 1) <> 'attributes' AND pg_catalog.strpos(_path, '.') > 0)
    THEN pg_catalog.format('%L does not start at externalId, displayName, email or attributes', _path)
END;
COMMENT ON FUNCTION _flohsync.path_problem(text) IS 'Why a dot path into a record is invalid; null when it is valid';

CREATE FUNCTION _flohsync.check_texts(_key text, _value jsonb) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF jsonb_typeof(_value) <> 'array' OR jsonb_path_exists(_value, '$[*] ? (@.type() != "string" || @ == "")') THEN
    PERFORM _flohsync.invalid(_key, 'it must be an array of strings');
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_texts(text, jsonb) IS
  'Raises 22023 unless the value is an array of non-empty texts';

CREATE FUNCTION _flohsync.check_fallbacks(_strategies jsonb) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.check_texts('userMatchFallbackStrategies', _strategies);
  IF EXISTS (SELECT FROM jsonb_array_elements_text(_strategies) s(name)
              WHERE s.name <> ALL (_flohsync.match_strategy_names())) THEN
    PERFORM _flohsync.invalid('userMatchFallbackStrategies', format('%s names an unknown match strategy', _strategies),
      format('Match strategies are %s.', _flohsync.enumerated(_flohsync.match_strategy_names())));
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_fallbacks(jsonb) IS 'Raises 22023 unless the value is an array of match strategies';

CREATE FUNCTION _flohsync.check_filter_rules(_rules jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  k text;
  v jsonb;
BEGIN
  PERFORM _flohsync.check_keys(_rules, 'filterRules',
    ARRAY['groupNamePattern', 'groupIds', 'emailDomains', 'memberOfSyncedGroups', 'maxRecords']);
  _rules := jsonb_strip_nulls(_rules);
  FOR k, v IN SELECT * FROM jsonb_each(_rules) LOOP
    CASE k
      WHEN 'groupNamePattern' THEN
        IF jsonb_typeof(v) <> 'string' OR length(v #>> '{}') NOT BETWEEN 1 AND 1000 THEN
          PERFORM _flohsync.invalid('filterRules.groupNamePattern', 'it must be a glob of 1 to 1000 characters',
                                    'For example "proj-*".');
        END IF;
      WHEN 'groupIds' THEN
        PERFORM _flohsync.check_texts('filterRules.groupIds', v);
      WHEN 'emailDomains' THEN
        PERFORM _flohsync.check_texts('filterRules.emailDomains', v);
        SELECT jsonb_agg(d.domain ORDER BY d.i) INTO v
          FROM (SELECT btrim(e.value, E' \t\r\n') AS domain, e.i FROM jsonb_array_elements_text(v)
                WITH ORDINALITY e(value, i)) d;
        PERFORM _flohsync.check_texts('filterRules.emailDomains', v);
        _rules := _rules || jsonb_build_object(k, v);
      WHEN 'memberOfSyncedGroups' THEN
        IF jsonb_typeof(v) <> 'boolean' THEN
          PERFORM _flohsync.invalid('filterRules.memberOfSyncedGroups', 'it must be true or false');
        END IF;
      WHEN 'maxRecords' THEN
        IF jsonb_typeof(v) <> 'number' OR (v #>> '{}')::numeric NOT BETWEEN 1 AND 9007199254740991
           OR (v #>> '{}')::numeric % 1 <> 0 THEN
          PERFORM _flohsync.invalid('filterRules.maxRecords', 'it must be an integer of at least 1');
        END IF;
    END CASE;
  END LOOP;
  RETURN nullif(_rules, '{}');
END
$$;
COMMENT ON FUNCTION _flohsync.check_filter_rules(jsonb) IS
  'Filter rules without null members; 22023 names the invalid key';

CREATE FUNCTION _flohsync.field_problem(_field text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
RETURN CASE
  WHEN _field !~ '^[A-Za-z_][A-Za-z0-9_.-]{0,63}$' OR _field IN ('__proto__', 'prototype', 'constructor')
    THEN pg_catalog.format('%L is not a field name', _field)
  -- Identity and login of users must not be changed through profile fields.
  WHEN _field IN ('id', 'userId', 'iss', 'sub', 'email', 'upstreamIssuer', 'upstreamId', 'confirmed', 'active',
                  'deletedAt', 'password',
                  'user_id', 'upstream_issuer', 'upstream_id', 'deleted_at')
    THEN pg_catalog.format('%L is not a profile field', _field)
  WHEN _field IN ('phone_number', 'employee_id', 'cost_center', 'start_date', 'manager_id')
    THEN pg_catalog.format('the field is called "%s"',
                           pg_catalog.regexp_replace(
                             pg_catalog.initcap(pg_catalog.replace(_field, '_', ' ') COLLATE "C"),
                             '^(.)(.*) ', pg_catalog.lower(pg_catalog.left(_field, 1) COLLATE "C") || '\2'))
END;
COMMENT ON FUNCTION _flohsync.field_problem(text) IS
  'Why the name of a profile field is invalid; null when it is valid';

CREATE FUNCTION _flohsync.check_mappings(_mappings jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  m jsonb;
  i int := 0;
  problem text;
BEGIN
  IF jsonb_typeof(_mappings) <> 'array' THEN
    PERFORM _flohsync.invalid('attributeMappings', 'it must be an array of rules');
  END IF;
  FOR m IN SELECT * FROM jsonb_array_elements(_mappings) LOOP
    PERFORM _flohsync.check_keys(m, format('attributeMappings[%s]', i),
      ARRAY['sourcePath', 'targetField', 'writeMode', 'transform', 'enabled']);
    problem := _flohsync.path_problem(m ->> 'sourcePath');
    IF problem IS NOT NULL THEN
      PERFORM _flohsync.invalid(format('attributeMappings[%s].sourcePath', i), problem,
                                'For example "attributes.department".');
    END IF;
    problem := CASE WHEN jsonb_typeof(m -> 'targetField') IS DISTINCT FROM 'string' THEN 'it must be a string'
                    ELSE _flohsync.field_problem(m ->> 'targetField') END;
    IF problem IS NOT NULL THEN
      PERFORM _flohsync.invalid(format('attributeMappings[%s].targetField', i), problem,
        'Fields are title, department, phoneNumber, location, employeeId, costCenter, startDate, '
        'managerId, and any name of your own.');
    END IF;
    IF m -> 'writeMode' <> 'null'
        AND coalesce(m ->> 'writeMode', '') NOT IN ('overwrite_always', 'overwrite_if_empty', 'never_overwrite') THEN
      PERFORM _flohsync.invalid(format('attributeMappings[%s].writeMode', i),
                                format('%s is not a write mode', m -> 'writeMode'),
        'Write modes are overwrite_always, overwrite_if_empty and never_overwrite.');
    END IF;
    IF m ? 'enabled' AND jsonb_typeof(m -> 'enabled') <> 'boolean' THEN
      PERFORM _flohsync.invalid(format('attributeMappings[%s].enabled', i), 'it must be true or false');
    END IF;
    IF m ? 'transform' AND jsonb_typeof(m -> 'transform') NOT IN ('string', 'null') THEN
      PERFORM _flohsync.invalid(format('attributeMappings[%s].transform', i), 'it must be a string');
    END IF;
    i := i + 1;
  END LOOP;
  RETURN _mappings;
END
$$;
COMMENT ON FUNCTION _flohsync.check_mappings(jsonb) IS 'Attribute mappings as given; 22023 names the invalid key';

CREATE FUNCTION _flohsync.check_safeguards(_given jsonb) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  k text;
  v jsonb;
BEGIN
  PERFORM _flohsync.check_keys(_given, 'safeguards', ARRAY['maxStaleFraction', 'maxDeactivateFraction', 'minRecords']);
  FOR k, v IN SELECT * FROM jsonb_each(_given) LOOP
    IF v = 'null' THEN
      CONTINUE;
    END IF;
    IF k = 'minRecords' THEN
      IF jsonb_typeof(v) <> 'number' OR (v #>> '{}')::numeric NOT BETWEEN 0 AND 1e12
          OR (v #>> '{}')::numeric % 1 <> 0 THEN
        PERFORM _flohsync.invalid('safeguards.minRecords', 'it must be an integer of at least 0, or null');
      END IF;
    ELSIF jsonb_typeof(v) <> 'number' OR (v #>> '{}')::numeric NOT BETWEEN 0 AND 1 THEN
      PERFORM _flohsync.invalid('safeguards.' || k, 'it must be a number from 0 to 1, or null');
    END IF;
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.check_safeguards(jsonb) IS 'Raises 22023 for invalid safeguards, naming the key';

CREATE FUNCTION _flohsync.next_due(_c flohsync.connector_sync_config) RETURNS timestamptz
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE WHEN (_c).enabled AND NOT (_c).parked THEN least((_c).next_run_at, (_c).next_full_run_at, (_c).retry_at)
  END;
COMMENT ON FUNCTION _flohsync.next_due(flohsync.connector_sync_config) IS
  'When a configuration is next due, by a schedule or for a retry; null: not scheduled';

CREATE FUNCTION _flohsync.standing(_c flohsync.connector_sync_config) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN jsonb_build_object(
    'heldRun', (SELECT jsonb_build_object('runId', r.id, 'message', r.error, 'since', _flohsync.iso(r.finished_at))
                  FROM flohsync.sync_run r
                 WHERE r.connector_id = _c.connector_id AND r.resource_type = _c.resource_type AND r.status = 'held'
                 ORDER BY r.id DESC LIMIT 1),
    'incompleteReason', _c.incomplete_reason, 'lastCompletePassAt', _flohsync.iso(_c.last_complete_at));
END
$$;
COMMENT ON FUNCTION _flohsync.standing(flohsync.connector_sync_config) IS
  'State of a configuration that later runs must not hide: a held run, an incomplete pass';

-- Made from config_keys(), followed by keys that only inform.
DO $do$
BEGIN
  EXECUTE (SELECT format($create$
    CREATE FUNCTION _flohsync.config_dto(_c flohsync.connector_sync_config) RETURNS jsonb
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    SET intervalstyle = postgres
    RETURN jsonb_build_object(%s)
      || jsonb_build_object(
      'id', (_c).id, 'connectorId', (_c).connector_id, 'resourceType', (_c).resource_type,
      'lastSyncAt', _flohsync.iso((_c).last_sync_at), 'lastSyncCursor', (_c).last_sync_cursor,
      'lastSyncStatus', (_c).last_sync_status, 'lastSyncError', (_c).last_sync_error,
      'lastSyncStats', (_c).last_sync_stats,
      'nextRunAt', _flohsync.iso(_flohsync.next_due(_c)),
      'createdAt', _flohsync.iso((_c).created_at), 'updatedAt', _flohsync.iso((_c).updated_at))
      || _flohsync.standing(_c)$create$,
    string_agg(format('%L, (_c).%I', k.key, k.attribute), ', ')) FROM _flohsync.config_keys() k);
END
$do$;
COMMENT ON FUNCTION _flohsync.config_dto(flohsync.connector_sync_config) IS 'A configuration in its public JSON form';

CREATE FUNCTION _flohsync.informing_keys() RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN ARRAY(SELECT pg_catalog.jsonb_object_keys(_flohsync.config_dto(NULL))
             EXCEPT SELECT k.key FROM _flohsync.config_keys() k);
COMMENT ON FUNCTION _flohsync.informing_keys() IS
  'Read-only keys of a configuration: configure_sync() ignores them';

-- The checks of config_keys(): what is stored of a value, or 22023.

CREATE FUNCTION _flohsync.check_json_type(_key text, _value jsonb, _type text, _nullable boolean) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF jsonb_typeof(_value) <> _type AND NOT (_nullable AND _value = 'null') THEN
    PERFORM _flohsync.invalid(_key, format('it must be %s%s',
      CASE _type WHEN 'boolean' THEN 'true or false' WHEN 'string' THEN 'a text' WHEN 'number' THEN 'a number'
                 WHEN 'array' THEN 'an array' ELSE 'an object' END,
      CASE WHEN _nullable THEN ' or null' ELSE '' END));
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_json_type(text, jsonb, text, boolean) IS
  'Raises 22023 unless a value is of a JSON type, or null where that is taken';

CREATE FUNCTION _flohsync.setting_strategy(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _value NOT IN ('"full"', '"incremental"') THEN
    PERFORM _flohsync.invalid(_key, format('%s is not a strategy', _value), 'Strategies are full and incremental.');
  END IF;
  RETURN _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_strategy(flohsync.connector_sync_config, text, jsonb) IS
  'Checks what a pass asks for';

CREATE FUNCTION _flohsync.setting_schedule(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  problem text;
BEGIN
  PERFORM _flohsync.check_json_type(_key, _value, 'string', true);
  problem := CASE WHEN length(_value #>> '{}') > 64 THEN 'a schedule has at most 64 characters'
                  ELSE _flohsync.cron_problem(_value #>> '{}') END;
  IF problem IS NOT NULL THEN
    PERFORM _flohsync.invalid(_key, problem,
      'A schedule has 5 fields (minute hour day month weekday), or 6 with leading seconds; for example "0 */6 * * *".');
  END IF;
  RETURN _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_schedule(flohsync.connector_sync_config, text, jsonb) IS 'Checks a schedule';

CREATE FUNCTION _flohsync.setting_filter_rules(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN _flohsync.check_filter_rules(_value);
END
$$;
COMMENT ON FUNCTION _flohsync.setting_filter_rules(flohsync.connector_sync_config, text, jsonb) IS
  'Checks filter rules; those that are null are not stored';

CREATE FUNCTION _flohsync.setting_stale_retention(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF jsonb_typeof(_value) <> 'string' OR _flohsync.duration(_value #>> '{}') IS NULL
     OR length(_value #>> '{}') > 32 THEN
    PERFORM _flohsync.invalid(_key, format('%s is not a duration', _value),
      'For example "7d", "24h", "30m", "90s", "2w" or "1 month".');
  END IF;
  RETURN _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_stale_retention(flohsync.connector_sync_config, text, jsonb) IS
  'Checks how long stale records are kept';

CREATE FUNCTION _flohsync.setting_mappings(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN _flohsync.check_mappings(_value);
END
$$;
COMMENT ON FUNCTION _flohsync.setting_mappings(flohsync.connector_sync_config, text, jsonb) IS
  'Checks attribute mappings';

CREATE FUNCTION _flohsync.setting_match_strategy(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _value #>> '{}' <> ALL (_flohsync.match_strategy_names()) THEN
    PERFORM _flohsync.invalid(_key, format('%s is not a match strategy', _value),
      format('Match strategies are %s.', _flohsync.enumerated(_flohsync.match_strategy_names())));
  END IF;
  RETURN _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_match_strategy(flohsync.connector_sync_config, text, jsonb) IS
  'Checks the first match strategy';

CREATE FUNCTION _flohsync.setting_fallbacks(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.check_fallbacks(_value);
  RETURN _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_fallbacks(flohsync.connector_sync_config, text, jsonb) IS
  'Checks the further match strategies';

CREATE FUNCTION _flohsync.setting_issuer_path(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  problem text := _flohsync.path_problem(_value #>> '{}');
BEGIN
  IF problem IS NOT NULL THEN
    PERFORM _flohsync.invalid(_key, problem, 'For example "attributes.identityIssuer".');
  END IF;
  RETURN _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_issuer_path(flohsync.connector_sync_config, text, jsonb) IS
  'Checks where a record names its issuer';

CREATE FUNCTION _flohsync.setting_workflow(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF jsonb_typeof(_value) <> 'string' OR _value #>> '{}' !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
     OR NOT EXISTS (SELECT FROM flohsync.workflow_definition w
                     WHERE w.id::text = lower((_value #>> '{}') COLLATE "C")) THEN
    PERFORM _flohsync.invalid(_key, format('there is no workflow %s', _value));
  END IF;
  RETURN _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_workflow(flohsync.connector_sync_config, text, jsonb) IS
  'Checks that there is a workflow';

CREATE FUNCTION _flohsync.setting_trigger_mode(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _value NOT IN ('"none"', '"per_record"', '"summary"') THEN
    PERFORM _flohsync.invalid(_key, format('%s is not a trigger mode', _value),
      'Trigger modes are none, per_record and summary.');
  END IF;
  RETURN _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_trigger_mode(flohsync.connector_sync_config, text, jsonb) IS
  'Checks when the workflow is triggered';

CREATE FUNCTION _flohsync.setting_user_defaults(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  field text;
  problem text;
BEGIN
  PERFORM _flohsync.check_json_type(_key, _value, 'object', true);
  SELECT d.key, coalesce(_flohsync.field_problem(d.key), f.problem) INTO field, problem
    FROM jsonb_each(_value) d CROSS JOIN LATERAL _flohsync.as_worker_profile_field(d.key, d.value, _c) f
   WHERE _flohsync.field_problem(d.key) IS NOT NULL OR f.problem IS NOT NULL LIMIT 1;
  IF FOUND THEN
    PERFORM _flohsync.invalid(_key || '.' || field, problem);
  END IF;
  RETURN _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_user_defaults(flohsync.connector_sync_config, text, jsonb) IS
  'Checks profile values of users that are created';

CREATE FUNCTION _flohsync.setting_timezone(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF jsonb_typeof(_value) <> 'string' OR NOT _flohsync.timezone_valid(_value #>> '{}') THEN
    PERFORM _flohsync.invalid(_key, format('%s is not a time zone', _value),
      'Time zones are listed in pg_timezone_names.');
  END IF;
  RETURN _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_timezone(flohsync.connector_sync_config, text, jsonb) IS 'Checks a time zone';

CREATE FUNCTION _flohsync.setting_overlap(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF jsonb_typeof(_value) <> 'string' OR _flohsync.duration(_value #>> '{}') IS NULL THEN
    PERFORM _flohsync.invalid(_key, format('%s is not a duration', _value), 'For example "5m" or "00:05:00".');
  END IF;
  RETURN to_jsonb(_flohsync.duration(_value #>> '{}'));
END
$$;
COMMENT ON FUNCTION _flohsync.setting_overlap(flohsync.connector_sync_config, text, jsonb) IS
  'Checks how far an incremental run reaches back';

CREATE FUNCTION _flohsync.setting_hash_ignore(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.check_texts(_key, _value);
  RETURN nullif(_value, '[]');
END
$$;
COMMENT ON FUNCTION _flohsync.setting_hash_ignore(flohsync.connector_sync_config, text, jsonb) IS
  'Checks the paths that are left out of the hash; none of them is no rule';

CREATE FUNCTION _flohsync.setting_safeguards(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _value = 'null' THEN
    RETURN (SELECT jsonb_object_agg(s.key, NULL::jsonb)
              FROM _flohsync.config_keys() k, jsonb_object_keys(k.initial) s(key)
             WHERE k.key = _key);
  END IF;
  PERFORM _flohsync.check_safeguards(_value);
  RETURN _c.safeguards || _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_safeguards(flohsync.connector_sync_config, text, jsonb) IS
  'Checks safeguards: those given change, null switches all of them off';
-- Combinations of settings that are allowed and do nothing, or not what one would expect.

CREATE FUNCTION _flohsync.remarks(_c flohsync.connector_sync_config)
RETURNS TABLE (severity text, key text, message text, hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  d flohsync.connector_definition;
  users boolean := _flohsync.matches_users(_c);
  first_tick timestamptz;
  second_tick timestamptz;
  unusable boolean := false;
  full_schedule text := CASE WHEN _c.strategy = 'full' THEN coalesce(_c.cron_schedule, _c.full_cron_schedule)
    ELSE _c.full_cron_schedule END;
  sample jsonb;
BEGIN
  SELECT * INTO d FROM flohsync.connector_definition x WHERE x.id = _c.connector_id;

  -- Schedules
  BEGIN
    first_tick := _flohsync.cron_next(_c.cron_schedule, clock_timestamp(), _c.timezone);
    second_tick := _flohsync.cron_next(_c.cron_schedule, first_tick, _c.timezone);
    PERFORM _flohsync.cron_next(_c.full_cron_schedule, clock_timestamp(), _c.timezone);
  EXCEPTION WHEN OTHERS THEN
    unusable := true;
    RETURN QUERY SELECT 'warning', 'timezone', _flohsync.clean('the schedules cannot be used: ' || SQLERRM),
      'No runs are scheduled until that is fixed.';
  END;
  IF _c.enabled AND _c.cron_schedule IS NULL AND _c.full_cron_schedule IS NULL THEN
    RETURN QUERY SELECT 'warning', 'enabled', 'the configuration is enabled but has no schedule',
      'Set cronSchedule or fullCronSchedule; until then it runs only on request.';
  ELSIF NOT _c.enabled AND coalesce(_c.cron_schedule, _c.full_cron_schedule) IS NOT NULL THEN
    RETURN QUERY SELECT 'info', 'enabled', 'the configuration has a schedule but is not enabled',
      'Set enabled to true.';
  END IF;
  IF NOT d.enabled THEN
    RETURN QUERY SELECT 'warning', 'enabled', format('connector "%s" is disabled', d.name),
      'Call flohsync.update_connector() with {"enabled": true}.';
  END IF;
  IF _c.cron_schedule IS NOT NULL AND first_tick IS NULL AND NOT unusable THEN
    RETURN QUERY SELECT 'warning', 'cronSchedule', 'the schedule never matches any time',
      'It has the fields minute, hour, day, month, weekday.';
  END IF;
  IF _c.strategy = 'full' AND _c.full_cron_schedule IS NOT NULL THEN
    RETURN QUERY SELECT 'info', 'fullCronSchedule', 'every run is full already',
      'It is for full passes in addition to strategy incremental.';
  END IF;
  IF second_tick - first_tick > _flohsync.duration(_c.stale_retention) THEN
    RETURN QUERY SELECT 'warning', 'staleRetention',
      'stale records are removed before the next run could find them again',
      'Make it longer than the time between two runs.';
  END IF;

  -- Absence is noticed by full passes alone.
  IF _c.strategy = 'incremental' AND full_schedule IS NULL THEN
    RETURN QUERY SELECT 'warning', CASE WHEN _c.deactivate_users THEN 'deactivateUsers' ELSE 'strategy' END,
      CASE WHEN _c.deactivate_users THEN 'no user is deactivated because a record is missing: there is no full pass'
           ELSE 'records that are missing upstream without being reported as deleted stay: there is no full pass' END,
      'Set fullCronSchedule.';
  END IF;
  IF _c.filter_rules ? 'maxRecords' THEN
    RETURN QUERY SELECT 'info', 'filterRules.maxRecords',
      'a pass that is cut off is not complete and marks nothing stale', NULL::text;
  END IF;
  IF _c.safeguards ->> 'maxStaleFraction' IS NULL THEN
    RETURN QUERY SELECT 'info', 'safeguards.maxStaleFraction', 'no pass is held, however many records are missing',
      NULL::text;
  END IF;

  -- Filters
  IF _c.resource_type = 'user' AND _c.filter_rules ?| ARRAY['groupNamePattern', 'groupIds'] THEN
    RETURN QUERY SELECT 'warning', 'filterRules', 'groupNamePattern and groupIds are for groups: for type user they '
                                                  'exclude every record or have no effect',
      'Sync the groups with that filter, and give the users memberOfSyncedGroups.';
  END IF;
  IF _c.resource_type IN ('group', 'role') AND _c.filter_rules ?| ARRAY['emailDomains', 'memberOfSyncedGroups'] THEN
    RETURN QUERY SELECT 'warning', 'filterRules', 'emailDomains and memberOfSyncedGroups are for users', NULL::text;
  END IF;
  IF (_c.filter_rules -> 'memberOfSyncedGroups') = 'true' AND NOT EXISTS (
       SELECT FROM flohsync.connector_sync_config x WHERE x.connector_id = _c.connector_id
           AND x.resource_type = 'group') THEN
    RETURN QUERY SELECT 'warning', 'filterRules.memberOfSyncedGroups',
      'no groups of the connector are synced: no user passes',
      'Configure resource type group first.';
  END IF;

  -- People
  IF NOT users AND (_c.create_users OR _c.deactivate_users OR _c.attribute_mappings IS NOT NULL) THEN
    RETURN QUERY SELECT 'warning', 'createUsers', 'records of this type are not matched to users', NULL::text;
  END IF;
  IF _c.create_user_defaults IS NOT NULL AND NOT _c.create_users THEN
    RETURN QUERY SELECT 'warning', 'createUserDefaults', 'no users are created: createUsers is false',
      'Set createUsers to true.';
  END IF;
  IF _c.issuer_source_path IS NOT NULL AND NOT EXISTS (
       SELECT FROM _flohsync.match_strategies() s
        WHERE s.by_issuer AND s.strategy = ANY (_flohsync.strategies(_c))) THEN
    RETURN QUERY SELECT 'info', 'issuerSourcePath', 'no match strategy uses the issuer',
      (SELECT format('It is for strategy %s.', _flohsync.enumerated(array_agg(s.strategy)))
         FROM _flohsync.match_strategies() s WHERE s.by_issuer);
  END IF;
  IF EXISTS (SELECT FROM jsonb_array_elements(_c.attribute_mappings) m WHERE coalesce(m ->> 'transform', '') <> '') THEN
    RETURN QUERY SELECT 'warning', 'attributeMappings', 'rules with a transform are skipped', NULL::text;
  END IF;

  -- Workflows
  IF _c.sync_trigger_mode <> 'none' AND _c.post_sync_workflow_id IS NULL THEN
    RETURN QUERY SELECT 'warning', 'syncTriggerMode', 'there is no workflow to trigger', 'Set postSyncWorkflowId.';
  ELSIF _c.sync_trigger_mode = 'none' AND _c.post_sync_workflow_id IS NOT NULL THEN
    RETURN QUERY SELECT 'warning', 'postSyncWorkflowId', 'the workflow is not triggered: syncTriggerMode is none',
      'Set it to per_record or summary.';
  ELSIF EXISTS (SELECT FROM flohsync.workflow_definition w WHERE w.id = _c.post_sync_workflow_id AND NOT w.enabled) THEN
    RETURN QUERY SELECT 'info', 'postSyncWorkflowId', 'the workflow is disabled: its jobs wait', NULL::text;
  END IF;

  -- The connector
  IF d.kind = 'command' AND d.config ? 'commands'
      AND NOT (d.config -> 'commands') ? _flohsync.list_command(d.config, _c.resource_type) THEN
    RETURN QUERY SELECT 'warning', 'resourceType',
      format('config.commands does not name %s', _flohsync.list_command(d.config, _c.resource_type)),
      'Add the command there, or to config.commandNames.';
  ELSIF d.kind = 'sql' AND d.config ? 'queries' AND NOT (d.config -> 'queries') ? _c.resource_type::text THEN
    RETURN QUERY SELECT 'warning', 'resourceType', format('the connector has no query for resource type "%s"',
                                                          _c.resource_type),
      format('Queries are for %s.',
             (SELECT string_agg(k, ', ' ORDER BY k) FROM jsonb_object_keys(d.config -> 'queries') k));
  END IF;
  IF d.kind = 'rest' THEN
    RETURN QUERY
    SELECT 'warning', 'connector', format('the definition uses secret "%s", which is not set', n),
      format('Call flohsync.set_secret(%L, %L, …).', d.name, n)
      FROM _flohsync.definition_names(d.definition, 'secret') n
     WHERE NOT EXISTS (SELECT FROM _flohsync.connector_secret s WHERE s.connector_id = d.id AND s.name = n COLLATE "C")
       ORDER BY n COLLATE "C";
  END IF;
  RETURN QUERY
  SELECT 'info', 'connector', format('secret "%s" is set, and the connector does not use it', s.name), NULL::text
    FROM _flohsync.connector_secret s
   WHERE s.connector_id = d.id AND s.name NOT IN (SELECT n FROM _flohsync.credential_names(d) n) ORDER BY s.name;

  -- Paths that no record has, among those that are here
  SELECT jsonb_agg(s.record) INTO sample
    FROM (SELECT jsonb_build_object('externalId', r.external_id, 'displayName', r.display_name, 'email', r.email,
                                    'attributes', r.attributes) AS record
            FROM flohsync.resource_record r
           WHERE r.connector_id = _c.connector_id AND r.resource_type = _c.resource_type AND r.stale_since IS NULL
             LIMIT 1000) s;
  IF sample IS NOT NULL THEN
    RETURN QUERY
    SELECT 'warning', p.key, format('no record has a value at %s', p.path),
      format('Among the first %s records.', jsonb_array_length(sample))
      FROM (SELECT format('attributeMappings[%s].sourcePath', m.i - 1) AS key, m.rule ->> 'sourcePath' AS path
              FROM jsonb_array_elements(_c.attribute_mappings) WITH ORDINALITY m(rule, i)
            UNION ALL SELECT 'issuerSourcePath', _c.issuer_source_path
            UNION ALL SELECT 'hashIgnore', h.value FROM jsonb_array_elements_text(_c.hash_ignore) h(value)) p
     WHERE p.path IS NOT NULL
       AND NOT EXISTS (SELECT FROM jsonb_array_elements(sample) e(record)
                        WHERE coalesce(e.record #> string_to_array(p.path, '.'),
                                       e.record -> 'attributes' #> string_to_array(p.path, '.'), 'null') <> 'null')
     ORDER BY p.key;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.remarks(flohsync.connector_sync_config) IS
  'The rows that check_config() returns for a configuration';

CREATE FUNCTION _flohsync.remark(_c flohsync.connector_sync_config) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r record;
BEGIN
  FOR r IN SELECT * FROM _flohsync.remarks(_c) x WHERE x.severity = 'warning' LOOP
    RAISE NOTICE USING MESSAGE = _flohsync.clean(format('%s: %s', r.key, r.message)),
      HINT = coalesce(_flohsync.clean(r.hint), 'flohsync.check_config() lists this again.');
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.remark(flohsync.connector_sync_config) IS
  'Raises the warnings of check_config() as NOTICEs';

CREATE FUNCTION flohsync.check_config(connector text, resource_type text)
RETURNS TABLE (severity text, key text, message text, hint text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT r.severity, r.key, r.message, r.hint
    FROM _flohsync.remarks(_flohsync.config_of(connector, resource_type)) r
   ORDER BY r.severity DESC, r.key COLLATE "C";
END
$$;
COMMENT ON FUNCTION flohsync.check_config(text, text) IS
  'Settings of a configuration that have no effect or a surprising one: severity (warning, info), the key, a message, '
  'a hint; 42704 without a configuration';
SELECT _flohsync.allow('reader', 'flohsync.check_config(text, text)');
-- Configurations and workflows: made, changed, read and removed by their public functions.

CREATE FUNCTION _flohsync.configure_sync(connector text, resource_type text, settings jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _connector uuid := _flohsync.hold_connector(connector);
  _type text := _flohsync.check_resource_type(configure_sync.resource_type);
  c flohsync.connector_sync_config;
  old flohsync.connector_sync_config;
  k record;          -- a key that was given, and its value
  _definition jsonb; -- of kind rest
BEGIN
  -- What sync_config() returns can be given here again.
  settings := CASE WHEN jsonb_typeof(settings) = 'object' THEN settings - _flohsync.informing_keys() ELSE settings END;
  PERFORM _flohsync.check_keys(settings, 'settings', ARRAY(SELECT k.key FROM _flohsync.config_keys() k));
  -- Changes of a connector and its configurations come one after the other.
  SELECT CASE d.kind WHEN 'rest' THEN d.definition END INTO _definition FROM flohsync.connector_definition d
   WHERE d.id = _connector FOR NO KEY UPDATE;
  IF _definition IS NOT NULL THEN
    PERFORM _flohsync.check_strategy(_definition, _type, NULL);
  END IF;

  INSERT INTO flohsync.connector_sync_config AS x (connector_id, resource_type, owner, timezone)
  VALUES (_connector, _type, _flohsync.role(_flohsync.caller()),
          coalesce(nullif(current_setting('flohsync.timezone', true), ''), 'UTC'))
  ON CONFLICT (connector_id, resource_type) DO NOTHING;
  SELECT * INTO STRICT c FROM flohsync.connector_sync_config x
   WHERE x.connector_id = _connector AND x.resource_type = _type FOR NO KEY UPDATE;
  old := c;

  FOR k IN SELECT s.value, n.* FROM jsonb_each(settings) WITH ORDINALITY s(key, value, position)
             JOIN _flohsync.config_keys() n ON n.key = s.key ORDER BY s.position LOOP
    IF k.value = 'null' AND NOT k.nullable THEN
      PERFORM _flohsync.invalid(k.key, 'it must not be null');
    ELSIF k.checked_by IS NULL THEN
      PERFORM _flohsync.check_json_type(k.key, k.value, k.json_type, k.nullable);
    ELSIF k.value <> 'null' OR k.initial <> 'null' THEN
      EXECUTE format('SELECT _flohsync.%I($1, $2, $3)', k.checked_by) INTO k.value USING c, k.key, k.value;
    END IF;
    c := jsonb_populate_record(c, jsonb_build_object(k.attribute, k.value));
  END LOOP;

  IF _definition IS NOT NULL THEN
    PERFORM _flohsync.check_strategy(_definition, _type, c.strategy);
  END IF;
  -- A run that is already due is not lost because something else is changed.
  IF (c.enabled, c.timezone, c.cron_schedule) IS DISTINCT FROM (old.enabled, old.timezone, old.cron_schedule) THEN
    c.next_run_at := CASE WHEN c.enabled THEN _flohsync.cron_next(c.cron_schedule, clock_timestamp(), c.timezone) END;
  END IF;
  IF (c.enabled, c.timezone, c.full_cron_schedule) IS DISTINCT FROM (old.enabled, old.timezone, old.full_cron_schedule)
    THEN
    c.next_full_run_at := CASE WHEN c.enabled
      THEN _flohsync.cron_next(c.full_cron_schedule, clock_timestamp(), c.timezone) END;
  END IF;
  IF c.enabled <> old.enabled OR (c.cron_schedule IS NULL AND c.full_cron_schedule IS NULL) THEN
    c.retry_at := NULL;
    c.retries := 0;
  END IF;

  EXECUTE format($sql$
    UPDATE flohsync.connector_sync_config x
       SET %s,
           next_run_at = ($1).next_run_at, next_full_run_at = ($1).next_full_run_at, retry_at = ($1).retry_at,
           retries = ($1).retries, schedule_error = NULL, updated_at = clock_timestamp()
     WHERE x.id = ($1).id
    RETURNING x.*$sql$,
    (SELECT string_agg(format('%1$I = ($1).%1$I', k.attribute), ', ') FROM _flohsync.config_keys() k))
    INTO c USING c;
  PERFORM _flohsync.wake();
  PERFORM _flohsync.remark(c);
  RETURN _flohsync.config_dto(c);
END
$$;
COMMENT ON FUNCTION _flohsync.configure_sync(text, text, jsonb) IS
  'Implementation of the public function of this name, run as its owner';

CREATE FUNCTION flohsync.configure_sync(connector text, resource_type text, settings jsonb) RETURNS jsonb
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_owner';
COMMENT ON FUNCTION flohsync.configure_sync(text, text, jsonb) IS
  'Creates or changes the configuration of a resource type; only the keys given change; returns the configuration; '
  '22023 names the invalid key';
SELECT _flohsync.allow('manager', 'flohsync.configure_sync(text, text, jsonb)');

CREATE FUNCTION flohsync.sync_config(connector text, resource_type text) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT _flohsync.config_dto(c) FROM flohsync.connector_sync_config c
   WHERE c.connector_id = _flohsync.connector_id(sync_config.connector) AND c.resource_type = sync_config.resource_type;
END;
COMMENT ON FUNCTION flohsync.sync_config(text, text) IS 'The configuration of a resource type; null when there is none';
SELECT _flohsync.allow('reader', 'flohsync.sync_config(text, text)');

CREATE FUNCTION flohsync.list_sync_configs(connector text DEFAULT NULL) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT CASE WHEN _flohsync.check_tables() THEN (
    SELECT coalesce(pg_catalog.jsonb_agg(_flohsync.config_dto(c) ORDER BY d.name, c.resource_type), '[]')
      FROM flohsync.connector_sync_config c
      JOIN flohsync.connector_definition d ON d.id = c.connector_id
     WHERE list_sync_configs.connector IS NULL OR d.id = (SELECT _flohsync.connector_id(list_sync_configs.connector)))
       END;
END;
COMMENT ON FUNCTION flohsync.list_sync_configs(text) IS
  'The configurations of a connector, or (null) of all, in the order of connector and resource type; '
  '42704 for an unknown connector';
SELECT _flohsync.allow('reader', 'flohsync.list_sync_configs(text)');

CREATE FUNCTION _flohsync.set_sync_owner(connector text, resource_type text, owner regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _connector uuid := _flohsync.hold_connector(connector);
  _type text := _flohsync.check_resource_type(set_sync_owner.resource_type);
BEGIN
  UPDATE flohsync.connector_sync_config c
     SET owner = _flohsync.role(coalesce(set_sync_owner.owner::oid, _flohsync.caller())), updated_at = clock_timestamp()
   WHERE c.connector_id = _connector AND c.resource_type = _type;
  IF NOT FOUND THEN
    PERFORM _flohsync.raise('42704',
      format('connector "%s" has no configuration for resource type "%s"', connector, _type),
      NULL,
      'Create one with flohsync.configure_sync().');
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.set_sync_owner(text, text, regrole) IS
  'Implementation of the public function of this name, run as its owner';

CREATE FUNCTION flohsync.set_sync_owner(connector text, resource_type text, owner regrole DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_owner';
COMMENT ON FUNCTION flohsync.set_sync_owner(text, text, regrole) IS
  'Makes a role (null: the caller) the owner of a configuration, with whose rights a connector of kind sql runs; 42501 '
  'unless the caller is a member of that role and of the previous owner, if that still exists; 42704 for an unknown '
  'connector, configuration or role';
SELECT _flohsync.allow('manager', 'flohsync.set_sync_owner(text, text, regrole)');

-- Workflows: what they do is an application's; here is what a configuration can name.

CREATE FUNCTION flohsync.configure_workflow(name text, settings jsonb DEFAULT '{}') RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  found_id uuid;
BEGIN
  PERFORM _flohsync.check_tables();
  IF configure_workflow.name IS NULL OR configure_workflow.name = '' OR length(configure_workflow.name) > 255 THEN
    PERFORM _flohsync.invalid('name', 'it must have 1 to 255 characters');
  END IF;
  PERFORM _flohsync.check_keys(settings, 'settings', ARRAY['enabled', 'definition']);
  IF settings ? 'enabled' AND jsonb_typeof(settings -> 'enabled') <> 'boolean' THEN
    PERFORM _flohsync.invalid('enabled', 'it must be true or false');
  END IF;
  IF settings ? 'definition' AND jsonb_typeof(settings -> 'definition') <> 'object' THEN
    PERFORM _flohsync.invalid('definition', 'it must be an object');
  END IF;
  INSERT INTO flohsync.workflow_definition AS w (name, enabled, definition)
  VALUES (configure_workflow.name, coalesce((settings ->> 'enabled')::boolean, true),
          coalesce(settings -> 'definition', '{}'))
  ON CONFLICT ON CONSTRAINT workflow_definition_name_key DO UPDATE
     SET enabled = coalesce((settings ->> 'enabled')::boolean, w.enabled),
       definition = coalesce(settings -> 'definition', w.definition)
  RETURNING w.id INTO found_id;
  RETURN found_id;
END
$$;
COMMENT ON FUNCTION flohsync.configure_workflow(text, jsonb) IS
  'Creates a workflow, or changes the given keys (enabled: true or false, default true; definition: an object, opaque '
  'to flohsync) of the one of that name; returns its id; 22023 names the invalid key';
SELECT _flohsync.allow('manager', 'flohsync.configure_workflow(text, jsonb)');

CREATE FUNCTION flohsync.drop_workflow(name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.check_tables();
  DELETE FROM flohsync.workflow_definition w WHERE w.name = drop_workflow.name;
  RETURN FOUND;
END
$$;
COMMENT ON FUNCTION flohsync.drop_workflow(text) IS
  'Removes a workflow; configurations that name it trigger none, and its jobs and runs remain; false when there '
  'was none';
SELECT _flohsync.allow('manager', 'flohsync.drop_workflow(text)');
-- What is stored was checked when it was stored, by functions and triggers; and
-- yet it may have been written past them, or have come with a dump of another
-- version.  A run looks again before it begins, so that what cannot be used is
-- named, and never read as something else.

CREATE FUNCTION _flohsync.check_stored(_connector uuid, _type text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  d flohsync.connector_definition;
  c flohsync.connector_sync_config;
  problem text;
BEGIN
  SELECT * INTO d FROM flohsync.connector_definition x WHERE x.id = _connector;
  SELECT * INTO c FROM flohsync.connector_sync_config x WHERE x.connector_id = _connector AND x.resource_type = _type;
  IF d.id IS NULL OR c.id IS NULL THEN
    RETURN;
  END IF;
  PERFORM _flohsync.check_connector(d.kind, d.config, d.definition, false);
  IF d.kind = 'rest' THEN
    PERFORM _flohsync.check_strategy(d.definition, _type, c.strategy);
  END IF;
  IF c.filter_rules IS NOT NULL THEN
    PERFORM _flohsync.check_filter_rules(c.filter_rules);
  END IF;
  IF c.hash_ignore IS NOT NULL THEN
    PERFORM _flohsync.check_texts('hashIgnore', c.hash_ignore);
  END IF;
  IF c.attribute_mappings IS NOT NULL THEN
    PERFORM _flohsync.check_mappings(c.attribute_mappings);
  END IF;
  IF c.user_match_fallback_strategies IS NOT NULL THEN
    PERFORM _flohsync.check_fallbacks(c.user_match_fallback_strategies);
  END IF;
  IF jsonb_typeof(c.create_user_defaults) <> 'object' THEN
    PERFORM _flohsync.invalid('createUserDefaults', 'it must be an object or null');
  END IF;
  PERFORM _flohsync.check_safeguards(c.safeguards);
  problem := CASE WHEN c.issuer_source_path IS NOT NULL THEN _flohsync.path_problem(c.issuer_source_path) END;
  IF problem IS NOT NULL THEN
    PERFORM _flohsync.invalid('issuerSourcePath', problem);
  END IF;
  IF _flohsync.duration(c.stale_retention) IS NULL THEN
    PERFORM _flohsync.invalid('staleRetention', format('%L is not a duration', c.stale_retention));
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_stored(uuid, text) IS
  'Raises 22023 when the stored connector or the stored configuration of a resource type is invalid';
-- Records: the local copy.  A row is written only when the upstream's record
-- differs; that a row was seen again is known from the last complete full
-- pass, not from the row (see the view).

CREATE TABLE flohsync.resource_record (
  -- What the lookup of a pass reads comes first, fixed widths before all.
  record_no           bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY (CACHE 100),
  id            uuid PRIMARY KEY DEFAULT _flohsync.new_id(),
  observed_at   timestamptz NOT NULL,
  created_at    timestamptz NOT NULL DEFAULT pg_catalog.now(),
  connector_id  uuid NOT NULL REFERENCES flohsync.connector_definition ON DELETE CASCADE,
  sync_hash     varchar(64) COLLATE "C" NOT NULL,
  stale_since   timestamptz,
  resource_type varchar(64) COLLATE "C" NOT NULL,
  external_id   varchar(255) COLLATE "C" NOT NULL,
  display_name  varchar(255),
  email         varchar(255),
  attributes    jsonb,
  event_at      timestamptz,
  event_keys    jsonb,
  -- external_id first: the probes of a page walk one stretch of the index.
  CONSTRAINT resource_record_key UNIQUE (external_id, resource_type, connector_id)
  -- Room on every page for a new version of one record of up to 800 bytes: then no index is written.
) WITH (fillfactor = 90);
CREATE INDEX resource_record_list ON flohsync.resource_record (connector_id, resource_type, external_id);
CREATE INDEX resource_record_stale ON flohsync.resource_record (connector_id, resource_type, stale_since)
 WHERE stale_since IS NOT NULL;
CREATE INDEX resource_record_stale_list ON flohsync.resource_record (connector_id, resource_type, external_id)
 WHERE stale_since IS NOT NULL;
-- Its order is of no use, and would be compared by the rules of a language.
CREATE INDEX resource_record_email ON flohsync.resource_record USING hash (email);
COMMENT ON TABLE flohsync.resource_record IS
  'Upstream records as last observed; applications read the view connector_resource';
COMMENT ON COLUMN flohsync.resource_record.id IS 'Identity of the record';
COMMENT ON COLUMN flohsync.resource_record.record_no IS 'Compact identity of the record, used in the ledger of a pass';
COMMENT ON COLUMN flohsync.resource_record.connector_id IS 'Connector that it comes from';
COMMENT ON COLUMN flohsync.resource_record.resource_type IS 'user, group, role or any other type';
COMMENT ON COLUMN flohsync.resource_record.external_id IS
  'Id in the upstream; compares by bytes: write COLLATE "C" out where it is joined to other text';
COMMENT ON COLUMN flohsync.resource_record.display_name IS 'Human-readable name';
COMMENT ON COLUMN flohsync.resource_record.email IS 'E-mail address';
COMMENT ON COLUMN flohsync.resource_record.attributes IS 'All other attributes from the upstream';
COMMENT ON COLUMN flohsync.resource_record.sync_hash IS 'resource_hash of the record, less the paths of hash_ignore';
COMMENT ON COLUMN flohsync.resource_record.stale_since IS
  'When the record was found missing upstream; null while it is there';
COMMENT ON COLUMN flohsync.resource_record.observed_at IS
  'When this version was last observed individually; older observations are ignored';
COMMENT ON COLUMN flohsync.resource_record.created_at IS 'When the row was created';
COMMENT ON COLUMN flohsync.resource_record.event_at IS
  'When the last event about it happened, by the upstream''s clock; null before the first webhook';
COMMENT ON COLUMN flohsync.resource_record.event_keys IS
  'Time of the last event per key, in microseconds since 2000, so that a late older event still applies to the other '
  'keys; null: older events are ignored';
SELECT _flohsync.allow('reader', 'flohsync.resource_record');

CREATE VIEW flohsync.connector_resource AS
SELECT r.id, r.connector_id, r.resource_type, r.external_id, r.display_name, r.email,
       r.attributes, r.sync_hash, r.stale_since,
       CASE WHEN r.stale_since IS NULL THEN greatest(r.observed_at, c.last_full_pass_at)
            ELSE r.observed_at END AS synced_at,
       r.created_at
  FROM flohsync.resource_record r
  LEFT JOIN flohsync.connector_sync_config c
    ON c.connector_id = r.connector_id AND c.resource_type = r.resource_type;
COMMENT ON VIEW flohsync.connector_resource IS 'The local copy of the upstreams'' records';
COMMENT ON COLUMN flohsync.connector_resource.id IS 'Identity of the record';
COMMENT ON COLUMN flohsync.connector_resource.connector_id IS 'Connector that it comes from';
COMMENT ON COLUMN flohsync.connector_resource.resource_type IS 'user, group, role or any other type';
COMMENT ON COLUMN flohsync.connector_resource.external_id IS 'Id in the upstream, unique within connector and type';
COMMENT ON COLUMN flohsync.connector_resource.display_name IS 'Human-readable name';
COMMENT ON COLUMN flohsync.connector_resource.email IS 'E-mail address';
COMMENT ON COLUMN flohsync.connector_resource.attributes IS 'All other attributes from the upstream';
COMMENT ON COLUMN flohsync.connector_resource.sync_hash IS 'SHA-256 of the canonical record';
COMMENT ON COLUMN flohsync.connector_resource.stale_since IS
  'When the record was found missing upstream; null while it is there';
COMMENT ON COLUMN flohsync.connector_resource.synced_at IS 'When the record was last confirmed upstream';
COMMENT ON COLUMN flohsync.connector_resource.created_at IS 'When the row was created';
SELECT _flohsync.allow('reader', 'flohsync.connector_resource');

CREATE TABLE _flohsync.resource_tombstone (
  external_id   varchar(255) COLLATE "C" NOT NULL,
  resource_type varchar(64) COLLATE "C" NOT NULL,
  connector_id  uuid NOT NULL REFERENCES flohsync.connector_definition ON DELETE CASCADE,
  deleted_at    timestamptz NOT NULL,
  event_at      timestamptz,
  deactivated   boolean NOT NULL DEFAULT false,
  made_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  PRIMARY KEY (external_id, resource_type, connector_id)
);
CREATE INDEX resource_tombstone_age ON _flohsync.resource_tombstone (deleted_at);
CREATE INDEX resource_tombstone_leaver ON _flohsync.resource_tombstone (connector_id, resource_type, made_at)
  WHERE deactivated;
COMMENT ON TABLE _flohsync.resource_tombstone IS 'Deletions, which older observations must not undo';
COMMENT ON COLUMN _flohsync.resource_tombstone.external_id IS 'Id in the upstream';
COMMENT ON COLUMN _flohsync.resource_tombstone.resource_type IS 'Resource type';
COMMENT ON COLUMN _flohsync.resource_tombstone.connector_id IS 'Connector';
COMMENT ON COLUMN _flohsync.resource_tombstone.deleted_at IS 'When the deletion was observed';
COMMENT ON COLUMN _flohsync.resource_tombstone.event_at IS 'When it happened, by the upstream''s clock; null: unknown';
COMMENT ON COLUMN _flohsync.resource_tombstone.deactivated IS 'Whether a user was deactivated because of it';
COMMENT ON COLUMN _flohsync.resource_tombstone.made_at IS 'When the tombstone was created, or the user deactivated';

-- synced_at of the rows leans on the configuration; before that goes, each row
-- gets its own true time.
CREATE FUNCTION _flohsync.settle_synced_at() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF OLD.last_full_pass_at IS NOT NULL
     AND EXISTS (SELECT FROM flohsync.connector_definition d WHERE d.id = OLD.connector_id) THEN
    -- Many records are always locked in the order of their ids.
    PERFORM _flohsync.records_confirmed(ARRAY(
      SELECT x.id FROM flohsync.resource_record x
       WHERE x.connector_id = OLD.connector_id AND x.resource_type = OLD.resource_type
         AND x.stale_since IS NULL AND x.observed_at < OLD.last_full_pass_at
       ORDER BY x.external_id FOR NO KEY UPDATE), OLD.last_full_pass_at);
  END IF;
  RETURN OLD;
END
$$;
COMMENT ON FUNCTION _flohsync.settle_synced_at() IS
  'Stores synced_at in the records of a configuration that is being deleted';
CREATE TRIGGER settle_synced_at BEFORE DELETE ON flohsync.connector_sync_config
FOR EACH ROW EXECUTE FUNCTION _flohsync.settle_synced_at();

CREATE FUNCTION flohsync.upsert_resource(connector text, resource_type text, record jsonb,
  observed_at timestamptz DEFAULT pg_catalog.clock_timestamp()) RETURNS text
LANGUAGE c VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_upsert_resource';
COMMENT ON FUNCTION flohsync.upsert_resource(text, text, jsonb, timestamptz) IS
  'Stores one record: added, updated, unchanged, restored (it was stale) or ignored (older than what is stored); 22023 '
  'for a record that cannot be stored';
SELECT _flohsync.allow('manager', 'flohsync.upsert_resource(text, text, jsonb, timestamptz)');

CREATE FUNCTION flohsync.upsert_resources(connector text, resource_type text, records jsonb) RETURNS jsonb
LANGUAGE c VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_upsert_resources';
COMMENT ON FUNCTION flohsync.upsert_resources(text, text, jsonb) IS
  'Stores an array of records and returns counts by outcome: added, updated, unchanged, restored, ignored, errored; '
  'those set aside are in sync_error, the first 100 of them in errors: [{index (from 0), externalId, class, message}]';
SELECT _flohsync.allow('manager', 'flohsync.upsert_resources(text, text, jsonb)');

CREATE FUNCTION flohsync.mark_stale(connector text, resource_type text, not_seen_since timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _connector uuid := _flohsync.hold_connector(connector);
  _type text := _flohsync.check_resource_type(mark_stale.resource_type);
  _full timestamptz;
  _seen bytea;
BEGIN
  IF not_seen_since IS NULL THEN
    PERFORM _flohsync.invalid('not_seen_since', 'it must not be null');
  END IF;
  SELECT c.last_full_pass_at INTO _full FROM flohsync.connector_sync_config c
   WHERE c.connector_id = _connector AND c.resource_type = _type;
  -- A run that has seen a record unchanged has not written it.
  _seen := _flohsync.seen_since(_connector, _type, not_seen_since, 0);
  RETURN _flohsync.records_staled(_connector, _type, ARRAY(
    SELECT x.id FROM flohsync.resource_record x
     WHERE x.connector_id = _connector AND x.resource_type = _type
       AND x.stale_since IS NULL AND greatest(x.observed_at, _full) < not_seen_since
       AND NOT _flohsync.ledger_has(_seen, x.record_no)
     ORDER BY x.external_id FOR NO KEY UPDATE), _full);
END
$$;
COMMENT ON FUNCTION flohsync.mark_stale(text, text, timestamptz) IS
  'Marks the records stale that were last confirmed before a time; returns their number';
SELECT _flohsync.allow('manager', 'flohsync.mark_stale(text, text, timestamptz)');

CREATE FUNCTION _flohsync.purgeable(_connector uuid, _type text, _retention interval, _limit bigint, _run bigint)
  RETURNS uuid[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN ARRAY(
    SELECT x.id FROM flohsync.resource_record x
     WHERE x.connector_id = _connector AND x.resource_type = _type
       AND x.stale_since < clock_timestamp() - _retention
       -- From these a run knows which users it still has to deactivate.
       AND (_run IS NULL OR x.id <> ALL (ARRAY(
             SELECT s.resource_id FROM _flohsync.setback s JOIN flohsync.connector_sync_config c ON c.id = s.config_id
              WHERE c.connector_id = _connector AND c.resource_type = _type AND c.deactivate_users
                AND s.stage = 'deactivate')))
     LIMIT _limit FOR UPDATE SKIP LOCKED);
END
$$;
COMMENT ON FUNCTION _flohsync.purgeable(uuid, text, interval, bigint, bigint) IS
  'Locks at most a number of records that have been stale for longer than an interval, and returns their ids';

CREATE FUNCTION _flohsync.purge(_connector uuid, _type text, _retention interval, _limit bigint, _run bigint)
  RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN _flohsync.records_removed(_connector, _type, _flohsync.purgeable(_connector, _type, _retention, _limit, _run),
                                   _run IS NOT NULL, _run);
END
$$;
COMMENT ON FUNCTION _flohsync.purge(uuid, text, interval, bigint, bigint) IS
  'Removes at most a number of records that have been stale for longer than an interval; triggers '
  'workflows on behalf of a run';

CREATE FUNCTION _flohsync.purge_stale(connector text, resource_type text, retention interval) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _connector uuid := _flohsync.hold_connector(connector);
  _type text := _flohsync.check_resource_type(purge_stale.resource_type);
  _retention interval := purge_stale.retention;
BEGIN
  IF _retention IS NULL THEN
    SELECT _flohsync.duration(c.stale_retention) INTO _retention FROM flohsync.connector_sync_config c
     WHERE c.connector_id = _connector AND c.resource_type = _type;
  END IF;
  IF _retention IS NULL THEN
    PERFORM _flohsync.raise('42704',
      _flohsync.clean(format('connector "%s" has no configuration for resource type "%s"', connector, _type)),
      NULL,
      'Give the retention, or make a configuration with flohsync.configure_sync().');
  ELSIF _retention < interval '0' THEN
    PERFORM _flohsync.invalid('retention', 'it must not be negative');
  END IF;
  PERFORM _flohsync.share_matching(_connector, _type);
  RETURN _flohsync.purge(_connector, _type, _retention, NULL, NULL);
END
$$;
COMMENT ON FUNCTION _flohsync.purge_stale(text, text, interval) IS
  'Implementation of the public function of this name, run as the workers'' role';

CREATE FUNCTION flohsync.purge_stale(connector text, resource_type text, retention interval DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_worker';
COMMENT ON FUNCTION flohsync.purge_stale(text, text, interval) IS
  'Removes records that have been stale for longer than the retention (null: the configuration''s); returns their '
  'number';
SELECT _flohsync.allow('manager', 'flohsync.purge_stale(text, text, interval)');
-- Runs: queue and history in one table, and the ledger of what a pass has seen.
--
-- status: queued -> running -> success | error | cancelled | held
--         held -> success (approve_run) | cancelled (reject_run, or a later pass)
-- The process of a run is identified by a session lock (db.c), never by the status: a row
-- with status running while the lock is free is a run whose worker died, and the
-- next worker resumes it.
-- A pass is one walk over the upstream.  A run that fails keeps its cursor;
-- the next run of the configuration gets the same pass_id and resumes, so the
-- ledger of the pass is all pages of all runs with that pass_id.
--
-- In which order a transaction locks what it needs.  Each function takes what it
-- needs of this from the top down; what it does not need it leaves out.
--
--    1  the lock of the runs            who decides about a held run; a worker's session has it
--    2  the lock of the connector       hold_connector, lock_config: shared for all but drop_connector
--    3  the connector's row             who changes connector or configurations: NO KEY UPDATE
--    4  the lock of the queue           trigger_sync
--    5  the configuration's row         NO KEY UPDATE for who changes it, KEY SHARE for who must not
--                                       lose it, UPDATE for who deletes it
--    6  the row of the run, held runs   only when the configuration's row is held
--    7  the lock of the matching        exclusive or shared; of several configurations in the order of their ids
--    8  the lock of users' changes
--    9  records                         many in the order of their external ids, or SKIP LOCKED
--   10  matches                         many in the order of their ids, or under the exclusive lock of the matching
--   11  the lock of addresses
--   12  users, profiles, identities
--   13  workflow jobs and their runs
--   14  the row of the run              to note what was done: the last thing of the transaction
--
-- - Notes for others (record_change, departure, user_change, cache_outbox, sync_error)
--   are only ever inserted, so that nothing waits for them; their removal
--   skips locked ones.
-- - Rows of runs and configurations are locked no more than their keys need
--   (NO KEY UPDATE), so that a page, or an uncommitted request, does not
--   block others.
-- - The lock of the runs is never waited for; it is tried again while no other
--   lock is held.
-- - What remains: the matches and the profiles of one user, matched in
--   two configurations, may be locked in two orders.  Then the server aborts one of
--   two transactions, and a worker retries its own (db.c).

CREATE TABLE flohsync.sync_run (
  id                bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  connector_id      uuid NOT NULL REFERENCES flohsync.connector_definition ON DELETE CASCADE,
  resource_type     varchar(64) COLLATE "C" NOT NULL,
  strategy          varchar(32) CHECK (strategy IN ('full', 'incremental')),
  trigger           text NOT NULL CHECK (trigger IN ('schedule', 'manual', 'retry', 'api')),
  requested_by      name DEFAULT current_user,
  requested_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  started_at        timestamptz,
  finished_at       timestamptz,
  status            text NOT NULL DEFAULT 'queued'
                    CHECK (status IN ('queued', 'running', 'success', 'error', 'cancelled', 'held')),
  cursor            text,
  pages             integer NOT NULL DEFAULT 0,
  complete          boolean,
  incomplete_reason text,
  error             text,
  error_class       text,
  stats             jsonb,
  cancel_requested  boolean NOT NULL DEFAULT false,
  restart           boolean NOT NULL DEFAULT false,
  pass_id           bigint,
  pass_started_at   timestamptz,
  pass_pages        integer,
  modified_since    timestamptz,
  fingerprint       text,
  decided_under     text,
  staled            bigint NOT NULL DEFAULT 0,
  removed           bigint NOT NULL DEFAULT 0,
  crashes           integer NOT NULL DEFAULT 0,
  crash_page        integer,
  timings           jsonb,
  post_sync         jsonb,
  resolved_by       name,
  resolved_at       timestamptz,
  notes             text
);
CREATE UNIQUE INDEX sync_run_open ON flohsync.sync_run (connector_id, resource_type)
 WHERE status IN ('queued', 'running');
CREATE INDEX sync_run_history ON flohsync.sync_run (connector_id, resource_type, id DESC);
CREATE INDEX sync_run_held ON flohsync.sync_run (connector_id, resource_type, id) WHERE status = 'held';
CREATE INDEX sync_run_pass ON flohsync.sync_run (pass_id);
COMMENT ON TABLE flohsync.sync_run IS 'Queue and history of runs';
COMMENT ON COLUMN flohsync.sync_run.id IS 'Identity of the run';
COMMENT ON COLUMN flohsync.sync_run.connector_id IS 'Connector';
COMMENT ON COLUMN flohsync.sync_run.resource_type IS 'Resource type';
COMMENT ON COLUMN flohsync.sync_run.strategy IS 'full or incremental; null in the queue: the configuration''s';
COMMENT ON COLUMN flohsync.sync_run.trigger IS 'What asked for the run: schedule, manual, retry or api';
COMMENT ON COLUMN flohsync.sync_run.requested_by IS 'Role that asked for it';
COMMENT ON COLUMN flohsync.sync_run.requested_at IS 'When it was asked for';
COMMENT ON COLUMN flohsync.sync_run.started_at IS 'When a worker first took it';
COMMENT ON COLUMN flohsync.sync_run.finished_at IS 'When it ended';
COMMENT ON COLUMN flohsync.sync_run.status IS 'queued, running, success, error, cancelled or held';
COMMENT ON COLUMN flohsync.sync_run.cursor IS 'Cursor at which a failed run stopped and the next one resumes';
COMMENT ON COLUMN flohsync.sync_run.pages IS 'Pages applied by this run';
COMMENT ON COLUMN flohsync.sync_run.complete IS 'Whether the pass is complete';
COMMENT ON COLUMN flohsync.sync_run.incomplete_reason IS 'Why it is not';
COMMENT ON COLUMN flohsync.sync_run.error IS 'What went wrong, or why the run is held';
COMMENT ON COLUMN flohsync.sync_run.error_class IS 'Machine-readable class of the error';
COMMENT ON COLUMN flohsync.sync_run.stats IS 'Statistics of the run';
COMMENT ON COLUMN flohsync.sync_run.cancel_requested IS 'Whether cancelling the run has been requested';
COMMENT ON COLUMN flohsync.sync_run.restart IS 'Whether a new pass has been requested instead of resuming a failed one';
COMMENT ON COLUMN flohsync.sync_run.pass_id IS 'First run of the pass that this run belongs to';
COMMENT ON COLUMN flohsync.sync_run.pass_started_at IS 'When the pass began';
COMMENT ON COLUMN flohsync.sync_run.pass_pages IS 'Pages of the pass at the end of the run';
COMMENT ON COLUMN flohsync.sync_run.modified_since IS 'Start of the changes that an incremental pass requests';
COMMENT ON COLUMN flohsync.sync_run.fingerprint IS
  'Fingerprint of the settings that define the pass; a failed pass is resumed only while it is unchanged';
COMMENT ON COLUMN flohsync.sync_run.decided_under IS
  'Fingerprint of the connector, the strategy and the filters when the run began; a held run can be approved '
  'only while it is unchanged';
COMMENT ON COLUMN flohsync.sync_run.staled IS 'Records that the run marked stale';
COMMENT ON COLUMN flohsync.sync_run.removed IS 'Stale records that the run purged';
COMMENT ON COLUMN flohsync.sync_run.crashes IS 'Number of consecutive crashes of its worker without progress';
COMMENT ON COLUMN flohsync.sync_run.crash_page IS 'Highest number of applied pages at a crash of a worker';
COMMENT ON COLUMN flohsync.sync_run.timings IS 'Duration of the stages of the run, in milliseconds';
COMMENT ON COLUMN flohsync.sync_run.post_sync IS
  'Results and failures of post-sync processing; null when there was nothing to do';
COMMENT ON COLUMN flohsync.sync_run.resolved_by IS 'Role that approved or rejected a held run';
COMMENT ON COLUMN flohsync.sync_run.resolved_at IS 'When that was';
COMMENT ON COLUMN flohsync.sync_run.notes IS 'Notes given with it';
SELECT _flohsync.allow('reader', 'flohsync.sync_run');

CREATE TABLE flohsync.sync_run_page (
  run_id         bigint NOT NULL REFERENCES flohsync.sync_run ON DELETE CASCADE,
  page           integer NOT NULL,
  cursor         text,
  next_cursor    text,
  fetched_at     timestamptz NOT NULL,
  records        integer NOT NULL,
  bytes          bigint NOT NULL,
  fetch_ms       real NOT NULL,
  apply_ms       real NOT NULL,
  added          integer NOT NULL,
  updated        integer NOT NULL,
  unchanged      integer NOT NULL,
  restored       integer NOT NULL,
  filtered       integer NOT NULL,
  errored        integer NOT NULL,
  ignored        integer NOT NULL,
  duplicates     integer NOT NULL,
  truncated      integer NOT NULL,
  unidentified   integer NOT NULL,
  total_estimate bigint,
  seen           bytea,
  deleted        text[],
  changed        uuid[],
  incomplete     text,
  link           text,
  unread         boolean NOT NULL DEFAULT false,
  PRIMARY KEY (run_id, page)
);
ALTER TABLE flohsync.sync_run_page ALTER COLUMN seen SET STORAGE EXTERNAL;
ALTER TABLE flohsync.sync_run_page ALTER COLUMN changed SET STORAGE EXTERNAL;
CREATE INDEX sync_run_page_seen ON flohsync.sync_run_page (run_id) WHERE seen IS NOT NULL;
CREATE INDEX sync_run_page_changed ON flohsync.sync_run_page (run_id) WHERE changed IS NOT NULL;
COMMENT ON TABLE flohsync.sync_run_page IS 'One row per applied page: the ledger of a pass';
COMMENT ON COLUMN flohsync.sync_run_page.run_id IS 'Run that applied the page';
COMMENT ON COLUMN flohsync.sync_run_page.page IS 'Number of the page in its pass, from 1';
COMMENT ON COLUMN flohsync.sync_run_page.cursor IS 'Cursor of the request for the page';
COMMENT ON COLUMN flohsync.sync_run_page.next_cursor IS 'Cursor of the next page; null on the last one';
COMMENT ON COLUMN flohsync.sync_run_page.fetched_at IS 'When the request was sent; the records count as observed then';
COMMENT ON COLUMN flohsync.sync_run_page.records IS 'Records received, before filters';
COMMENT ON COLUMN flohsync.sync_run_page.bytes IS 'Size of the answer';
COMMENT ON COLUMN flohsync.sync_run_page.fetch_ms IS 'Milliseconds from request to answer';
COMMENT ON COLUMN flohsync.sync_run_page.apply_ms IS 'Milliseconds of reading, comparing and writing';
COMMENT ON COLUMN flohsync.sync_run_page.added IS 'New records';
COMMENT ON COLUMN flohsync.sync_run_page.updated IS 'Changed records';
COMMENT ON COLUMN flohsync.sync_run_page.unchanged IS 'Records as stored';
COMMENT ON COLUMN flohsync.sync_run_page.restored IS 'Stale records that are back';
COMMENT ON COLUMN flohsync.sync_run_page.filtered IS 'Records out of scope';
COMMENT ON COLUMN flohsync.sync_run_page.errored IS 'Records set aside (see sync_error)';
COMMENT ON COLUMN flohsync.sync_run_page.ignored IS 'Records older than what is stored';
COMMENT ON COLUMN flohsync.sync_run_page.duplicates IS 'Records whose id occurred again on the page';
COMMENT ON COLUMN flohsync.sync_run_page.truncated IS 'Display names cut to 255 characters';
COMMENT ON COLUMN flohsync.sync_run_page.unidentified IS 'Records set aside whose id could not be read';
COMMENT ON COLUMN flohsync.sync_run_page.total_estimate IS 'Total number of records reported by the upstream';
COMMENT ON COLUMN flohsync.sync_run_page.seen IS
  'record_no of every record seen, as ranges (ledger.c); kept until a later full pass is complete';
COMMENT ON COLUMN flohsync.sync_run_page.deleted IS 'While the pass is open: ids that the upstream reported as deleted';
COMMENT ON COLUMN flohsync.sync_run_page.changed IS
  'Records added, updated and restored, in this order, until post-sync has processed them; null where '
  'post-sync does not need them';
COMMENT ON COLUMN flohsync.sync_run_page.incomplete IS 'Why the pass cannot be complete from this page on';
COMMENT ON COLUMN flohsync.sync_run_page.unread IS
  'Whether that is because something was not read and must be requested again, so that the watermark stays';
COMMENT ON COLUMN flohsync.sync_run_page.link IS
  'Delta link from which the next incremental pass starts; empty: it starts without one';
SELECT _flohsync.allow('reader', 'flohsync.sync_run_page');

CREATE TABLE flohsync.sync_error (
  id          bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  run_id      bigint REFERENCES flohsync.sync_run ON DELETE CASCADE,
  page        integer,
  external_id text,
  error_class text NOT NULL,
  message     text NOT NULL,
  payload     text,
  created_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  connector_id  uuid REFERENCES flohsync.connector_definition ON DELETE CASCADE,
  resource_type varchar(64) COLLATE "C",
  CHECK ((run_id IS NULL) = (connector_id IS NOT NULL))
);
CREATE INDEX sync_error_webhook ON flohsync.sync_error (created_at) WHERE run_id IS NULL;
CREATE INDEX sync_error_run ON flohsync.sync_error (run_id);
COMMENT ON TABLE flohsync.sync_error IS 'Records that were set aside';
COMMENT ON COLUMN flohsync.sync_error.id IS 'Identity of the error';
COMMENT ON COLUMN flohsync.sync_error.run_id IS 'Run; null: a webhook, or upsert_resources()';
COMMENT ON COLUMN flohsync.sync_error.page IS 'Page';
COMMENT ON COLUMN flohsync.sync_error.external_id IS 'Id of the record, where it has one';
COMMENT ON COLUMN flohsync.sync_error.error_class IS 'Machine-readable class of the error';
COMMENT ON COLUMN flohsync.sync_error.message IS 'What is wrong with the record';
COMMENT ON COLUMN flohsync.sync_error.payload IS 'The record, cut at 4 kB';
COMMENT ON COLUMN flohsync.sync_error.created_at IS 'When the record was set aside';
COMMENT ON COLUMN flohsync.sync_error.connector_id IS 'Connector of the webhook or the records; null: see the run';
COMMENT ON COLUMN flohsync.sync_error.resource_type IS 'Resource type of the webhook or the records; null: see the run';
SELECT _flohsync.allow('reader', 'flohsync.sync_error');

CREATE FUNCTION _flohsync.passes(_state text) RETURNS boolean
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN _state = '55P03' OR pg_catalog.left(_state, 2) IN ('08', '40', '53', '57', '58');
COMMENT ON FUNCTION _flohsync.passes(text) IS
  'Whether an error is transient: a lock or transaction of another session, a connection, insufficient resources, a '
  'shutdown';

CREATE FUNCTION _flohsync.lock_queue(_connector uuid, _type text, _wait boolean) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  key text := concat_ws('/', _connector, _type);
BEGIN
  IF _wait THEN
    PERFORM _flohsync.lock('queue', key, false);
    RETURN true;
  END IF;
  RETURN _flohsync.try_lock('queue', key, false);
END
$$;
COMMENT ON FUNCTION _flohsync.lock_queue(uuid, text, boolean) IS
  'Lock of the queue of a configuration, held until a newly queued run is committed; false when it is '
  'not available without waiting';

-- Ledger of a pass, in C: ledger.c tells the format.
CREATE FUNCTION _flohsync.ledger_union(_pages bytea[]) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_ledger_union';
COMMENT ON FUNCTION _flohsync.ledger_union(bytea[]) IS
  'Union of the records that a set of pages has seen, for ledger_has';
CREATE FUNCTION _flohsync.ledger_has(_seen bytea, _num bigint) RETURNS boolean
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 1 AS 'MODULE_PATHNAME', 'flohsync_ledger_has';
COMMENT ON FUNCTION _flohsync.ledger_has(bytea, bigint) IS 'Whether a record_no is in what ledger_union returned';
CREATE FUNCTION _flohsync.ledger_last(_pages bytea[], _numbers integer[], _nums bigint[]) RETURNS integer[]
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_ledger_last';
COMMENT ON FUNCTION _flohsync.ledger_last(bytea[], integer[], bigint[]) IS
  'For each of some record_no the highest number of a page that has seen it, 0 when none has';

CREATE FUNCTION _flohsync.pass_pages(_pass bigint) RETURNS SETOF flohsync.sync_run_page
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT p.* FROM flohsync.sync_run r JOIN flohsync.sync_run_page p ON p.run_id = r.id
   WHERE r.pass_id = _pass;
END;
COMMENT ON FUNCTION _flohsync.pass_pages(bigint) IS 'The ledger of a pass';

CREATE FUNCTION _flohsync.page_changes(_page flohsync.sync_run_page, OUT resource_id uuid, OUT change text)
  RETURNS SETOF record
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT e.id, CASE WHEN e.position <= (_page).added THEN 'added'
                    WHEN e.position <= (_page).added + (_page).updated THEN 'updated' ELSE 'restored' END
    FROM pg_catalog.unnest((_page).changed) WITH ORDINALITY AS e(id, position);
END;
COMMENT ON FUNCTION _flohsync.page_changes(flohsync.sync_run_page) IS 'The records that a page changed, and how';

CREATE FUNCTION _flohsync.forget_pass(_pass bigint) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  UPDATE flohsync.sync_run_page p SET seen = NULL, deleted = NULL
    FROM flohsync.sync_run r
   WHERE r.pass_id = _pass AND p.run_id = r.id AND (p.seen IS NOT NULL OR p.deleted IS NOT NULL);
END;
COMMENT ON FUNCTION _flohsync.forget_pass(bigint) IS 'Removes the ledger of a pass when it is not needed any more';

CREATE FUNCTION _flohsync.forget_seen(_connector uuid, _type text, _run bigint) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  UPDATE flohsync.sync_run_page p SET seen = NULL, deleted = NULL
    FROM flohsync.sync_run r
   WHERE r.connector_id = _connector AND r.resource_type = _type AND r.id <= _run
     AND r.status NOT IN ('queued', 'running', 'held') AND p.run_id = r.id AND p.seen IS NOT NULL;
END;
COMMENT ON FUNCTION _flohsync.forget_seen(uuid, text, bigint) IS
  'Removes the ledgers of the runs of a configuration up to one, after a complete pass';

CREATE FUNCTION _flohsync.seen_since(_connector uuid, _type text, _since timestamptz, _run bigint) RETURNS bytea
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT _flohsync.ledger_union(coalesce(pg_catalog.array_agg(p.seen), '{}'))
    FROM flohsync.sync_run r JOIN flohsync.sync_run_page p ON p.run_id = r.id AND p.seen IS NOT NULL
   WHERE r.connector_id = _connector AND r.resource_type = _type AND p.fetched_at >= _since AND r.id > _run;
END;
COMMENT ON FUNCTION _flohsync.seen_since(uuid, text, timestamptz, bigint) IS
  'Union of the records seen by pages fetched since a time, of runs after one, complete or not, for ledger_has';

-- Made from page_counters().
DO $do$
BEGIN
  EXECUTE format($create$
    CREATE FUNCTION _flohsync.page_sums(_runs bigint[],
      OUT pages bigint, OUT records bigint, OUT bytes numeric, OUT passed bigint, OUT stats jsonb)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
      SELECT count(*), coalesce(sum(p.records), 0), coalesce(sum(p.bytes), 0), coalesce(sum(%s), 0),
        jsonb_build_object(%s)
        FROM flohsync.sync_run_page p WHERE p.run_id = ANY (_runs);
    END $create$,
    (SELECT string_agg(format('p.%I', c.counter), ' + ') FROM _flohsync.page_counters() c WHERE c.passed),
    (SELECT string_agg(format('%1$L, coalesce(sum(p.%1$I), 0)', c.counter), ', ')
       FROM _flohsync.page_counters() c WHERE c.in_stats));
END
$do$;
COMMENT ON FUNCTION _flohsync.page_sums(bigint[]) IS
  'Sums over the pages of some runs: pages, records, bytes, records that passed the filters, and '
  'what the stats of a run show';

CREATE FUNCTION _flohsync.run_stats(_run bigint) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT s.stats || pg_catalog.jsonb_build_object(
      'staled', r.staled, 'removed', r.removed,
      'durationMs', coalesce(pg_catalog.round(extract(epoch FROM coalesce(r.finished_at, pg_catalog.clock_timestamp())
                                                      - r.started_at) * 1000), 0),
      'pagesProcessed', s.pages, 'totalUpstreamRecords', s.records, 'bytes', s.bytes, 'complete',
        coalesce(r.complete, false))
      || CASE WHEN r.post_sync IS NULL THEN '{}' ELSE pg_catalog.jsonb_build_object('postSync', r.post_sync) END
    FROM flohsync.sync_run r CROSS JOIN LATERAL _flohsync.page_sums(ARRAY[r.id]) s
   WHERE r.id = _run;
END;
COMMENT ON FUNCTION _flohsync.run_stats(bigint) IS 'Statistics of a run, summed from its pages';

CREATE FUNCTION _flohsync.totals_of(_stats jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT coalesce(pg_catalog.jsonb_object_agg(e.key, e.value), '{}')
    FROM pg_catalog.jsonb_each((_stats - 'postSync') || coalesce(_stats -> 'postSync', '{}')) e
   WHERE pg_catalog.jsonb_typeof(e.value) = 'number';
END;
COMMENT ON FUNCTION _flohsync.totals_of(jsonb) IS 'The figures of a run''s statistics that are summed over all runs';

CREATE FUNCTION _flohsync.decided_under(_d flohsync.connector_definition, _c flohsync.connector_sync_config)
  RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN _flohsync.digest(pg_catalog.jsonb_build_array(
  (_c).strategy, (_d).kind, (_d).config, (_d).definition, (_c).filter_rules)::text);
COMMENT ON FUNCTION _flohsync.decided_under(flohsync.connector_definition, flohsync.connector_sync_config) IS
  'Fingerprint of everything that determines which records are in scope of a configuration';

CREATE FUNCTION _flohsync.fingerprint(_strategy text, _d flohsync.connector_definition,
                                      _c flohsync.connector_sync_config) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN _flohsync.digest(pg_catalog.jsonb_build_array(
  _strategy, (_d).kind, (_d).config, (_d).definition, (_c).filter_rules, (_c).hash_ignore)::text);
COMMENT ON FUNCTION _flohsync.fingerprint(text, flohsync.connector_definition, flohsync.connector_sync_config) IS
  'Fingerprint of the settings that define a pass';
-- What a worker calls on the way through a run; it holds the run's lock.
-- start -> (pages, by store.c) -> settle -> purge -> finish

-- Whoever changes a run has its configuration locked first (40_run.sql has the order).
CREATE FUNCTION _flohsync.lock_config(_run bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _connector uuid;
  _type text;
BEGIN
  SELECT r.connector_id, r.resource_type INTO _connector, _type FROM flohsync.sync_run r WHERE r.id = _run;
  PERFORM _flohsync.lock('connector', _connector::text, true);
  PERFORM FROM flohsync.connector_sync_config c
    WHERE c.connector_id = _connector AND c.resource_type = _type FOR NO KEY UPDATE;
END
$$;
COMMENT ON FUNCTION _flohsync.lock_config(bigint) IS
  'Locks the configuration of a run until the end of the transaction';

CREATE FUNCTION _flohsync.keep_config(_run bigint) RETURNS flohsync.connector_sync_config
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r flohsync.sync_run;
  c flohsync.connector_sync_config;
BEGIN
  SELECT * INTO r FROM flohsync.sync_run x WHERE x.id = _run;
  PERFORM _flohsync.lock('connector', r.connector_id::text, true);
  SELECT * INTO c FROM flohsync.connector_sync_config x
   WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type FOR KEY SHARE;
  RETURN c;
END
$$;
COMMENT ON FUNCTION _flohsync.keep_config(bigint) IS
  'The configuration of a run, locked against deletion, but not changes, until the end of the transaction; null when '
  'there is none';

CREATE FUNCTION _flohsync.start_run(_run bigint, _left boolean,
  OUT outcome text, OUT strategy text, OUT pass_id bigint, OUT pass_started_at timestamptz,
  OUT modified_since timestamptz, OUT kind text, OUT config jsonb, OUT connector_id uuid,
  OUT connector_name text, OUT resource_type text, OUT filter_rules jsonb, OUT hash_ignore jsonb,
  OUT owner name, OUT list_command text, OUT resumed boolean, OUT last_page integer, OUT next_cursor text,
  OUT passed bigint, OUT received bigint, OUT unidentified bigint, OUT total_estimate bigint, OUT fingerprint text,
  OUT note_changes boolean, OUT incomplete text, OUT kept_link text, OUT unread boolean,
  OUT rehash boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
  prev flohsync.sync_run;
  d flohsync.connector_definition;
  c flohsync.connector_sync_config;
  p record;
  applied integer; -- pages of the pass so far
  problem text;
  class text;
BEGIN
  PERFORM _flohsync.lock_config(_run);
  SELECT * INTO r FROM flohsync.sync_run x WHERE x.id = _run AND x.status IN ('queued', 'running') FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    outcome := 'gone';
    RETURN;
  END IF;
  SELECT * INTO d FROM flohsync.connector_definition x WHERE x.id = r.connector_id;
  SELECT * INTO c FROM flohsync.connector_sync_config x
   WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type;

  IF r.status = 'running' THEN
    SELECT coalesce(max(l.page), 0) INTO applied FROM _flohsync.pass_pages(r.pass_id) l;
    -- Where the server went down as well, the last pages may be lost: only new ground is progress.
    -- A worker that ended by an error, or was terminated, did not crash.
    IF NOT _left THEN
      r.crashes := CASE WHEN r.crash_page >= applied THEN r.crashes + 1 ELSE 1 END;
      r.crash_page := greatest(r.crash_page, applied);
    END IF;
  END IF;

  IF r.cancel_requested THEN
    problem := 'run was cancelled';
    class := _flohsync.error_class('cancelled');
  ELSIF c.id IS NULL THEN
    problem := _flohsync.clean(format('connector "%s" no longer has a configuration for resource type "%s"', d.name,
                                      r.resource_type));
    class := _flohsync.error_class('configuration');
  ELSIF NOT d.enabled THEN
    problem := _flohsync.clean(format('connector "%s" is disabled', d.name));
    class := _flohsync.error_class('configuration');
  ELSIF r.crashes >= 3 THEN
    problem := format('the worker died %s times on page %s', r.crashes, r.crash_page + 1);
    class := _flohsync.error_class('crash_loop');
  END IF;
  strategy := coalesce(r.strategy, c.strategy, 'full');
  IF problem IS NOT NULL THEN
    UPDATE flohsync.sync_run x
       SET started_at = coalesce(x.started_at, clock_timestamp()), crashes = r.crashes, crash_page = r.crash_page,
           strategy = coalesce(x.strategy, start_run.strategy)
     WHERE x.id = _run;
    PERFORM _flohsync.finish_run(_run, CASE WHEN r.cancel_requested THEN 'cancelled' ELSE 'error' END,
                                 false, problem, problem, class, NULL);
    outcome := 'refused';
    RETURN;
  END IF;

  resumed := false;
  IF r.status = 'queued' THEN
    fingerprint := _flohsync.fingerprint(strategy, d, c);
    pass_id := r.id;
    pass_started_at := clock_timestamp();
    -- A watermark in the future, which a clock that was wrong has left, says nothing.
    modified_since := CASE WHEN strategy = 'incremental' AND c.watermark <= clock_timestamp() + c.overlap
                           THEN c.watermark - greatest(c.overlap, _flohsync.duration(
                             d.definition #>> ARRAY['resources', r.resource_type, 'list', 'incremental', 'lookback']))
                               END;
    -- The last run before this one: if it failed and kept its cursor, its pass goes on.
    -- By the history's index, as in 80_status: by that of all runs, a first run would be looked for to the end.
    SELECT * INTO prev FROM flohsync.sync_run x
     WHERE x.connector_id BETWEEN r.connector_id AND r.connector_id AND x.resource_type = r.resource_type
       AND x.id < r.id
     ORDER BY x.connector_id, x.id DESC LIMIT 1;
    IF prev.status = 'error' AND NOT r.restart THEN
      IF prev.cursor IS NOT NULL AND prev.fingerprint = fingerprint
         AND prev.pass_started_at > clock_timestamp() - interval '7 days'
         -- Where a page keeps failing, those before it are read again at times.
         AND (SELECT count(*) < 5 FROM flohsync.sync_run x
               WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.pass_id = prev.pass_id
                 AND x.pages = 0
                 AND x.id > (SELECT max(y.id) FROM flohsync.sync_run y
                              WHERE y.connector_id = r.connector_id AND y.resource_type = r.resource_type
                                AND y.pass_id = prev.pass_id AND y.pages > 0))
         AND (SELECT count(*) = prev.pass_pages FROM _flohsync.pass_pages(prev.pass_id) l WHERE l.seen IS NOT NULL) THEN
        pass_id := prev.pass_id;
        pass_started_at := prev.pass_started_at;
        modified_since := prev.modified_since;
        resumed := true;
      END IF;
    END IF;
  ELSE
    fingerprint := _flohsync.fingerprint(strategy, d, c);
    pass_started_at := r.pass_started_at;
    modified_since := r.modified_since;
    -- What the pass is about has changed while nobody was working on it.
    IF fingerprint IS DISTINCT FROM r.fingerprint AND applied > 0 THEN
      pass_started_at := _flohsync.restart_pass(_run, false);
      r.pass_id := r.id;
      r.crash_page := 0;
      applied := 0;
    END IF;
    pass_id := r.pass_id;
    resumed := applied > 0;
  END IF;

  UPDATE flohsync.sync_run x
     SET status = 'running', started_at = coalesce(x.started_at, clock_timestamp()),
         strategy = start_run.strategy, pass_id = start_run.pass_id, pass_started_at = start_run.pass_started_at,
         modified_since = start_run.modified_since, fingerprint = start_run.fingerprint,
         decided_under = coalesce(x.decided_under, _flohsync.decided_under(d, c)), crashes = r.crashes,
           crash_page = r.crash_page
   WHERE x.id = _run;
  UPDATE flohsync.connector_sync_config x SET last_sync_status = 'running', retry_at = NULL, parked = false
    WHERE x.id = c.id;

  SELECT l.page, l.next_cursor INTO p FROM _flohsync.pass_pages(pass_id) l ORDER BY l.page DESC LIMIT 1;
  last_page := coalesce(p.page, 0);
  next_cursor := p.next_cursor;
  SELECT s.passed, s.records INTO passed, received
    FROM _flohsync.page_sums(ARRAY(SELECT x.id FROM flohsync.sync_run x WHERE x.pass_id = start_run.pass_id)) s;
  SELECT coalesce(sum(l.unidentified), 0), max(l.total_estimate)
    INTO unidentified, total_estimate FROM _flohsync.pass_pages(pass_id) l;

  SELECT l.incomplete INTO incomplete FROM _flohsync.pass_pages(pass_id) l WHERE l.incomplete IS NOT NULL
    ORDER BY l.page LIMIT 1;
  SELECT coalesce(bool_or(l.unread), false) INTO unread FROM _flohsync.pass_pages(pass_id) l;
  kept_link := CASE WHEN strategy = 'incremental' AND c.delta_fingerprint = fingerprint THEN c.delta_link END;

  outcome := 'run';
  kind := d.kind;
  config := d.config;
  connector_id := d.id;
  connector_name := d.name;
  resource_type := r.resource_type;
  filter_rules := c.filter_rules;
  hash_ignore := c.hash_ignore;
  rehash := c.hash_ignore_since >= coalesce(c.last_full_pass_at, '-infinity');
  owner := c.owner;
  -- Without a row in match_progress post-sync looks at everything anyway.
  note_changes := _flohsync.triggers_per_record(c) OR EXISTS (SELECT FROM _flohsync.match_progress m
                                                              WHERE m.config_id = c.id);
  list_command := _flohsync.list_command(d.config, r.resource_type);
END
$$;
COMMENT ON FUNCTION _flohsync.start_run(bigint, boolean) IS
  'Starts or resumes a run (_left: its worker ended by an error) and returns everything that the worker needs';

CREATE FUNCTION _flohsync.restart_pass(_run bigint, _forget_link boolean) RETURNS timestamptz
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r flohsync.sync_run;
BEGIN
  PERFORM _flohsync.lock_config(_run);
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  -- When this pass is resumed it must not be mistaken for one that began with the link.
  IF _forget_link THEN
    UPDATE flohsync.connector_sync_config c SET delta_link = NULL, delta_fingerprint = NULL
     WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type;
  END IF;
  PERFORM _flohsync.forget_pass(r.pass_id);
  PERFORM _flohsync.keep_page_changes(_run);
  DELETE FROM flohsync.sync_run_page p WHERE p.run_id = _run;
  UPDATE flohsync.sync_run x SET pass_id = x.id, pass_started_at = clock_timestamp()
   WHERE x.id = _run RETURNING x.* INTO r;
  RETURN r.pass_started_at;
END
$$;
COMMENT ON FUNCTION _flohsync.restart_pass(bigint, boolean) IS
  'Restarts the pass of a run because the upstream rejects its cursor, or the delta link that it started from';

-- Where pages are requested by position, a record that occurs on two of them has
-- moved, and another one may have moved past.
CREATE FUNCTION _flohsync.pass_overlap(_run bigint) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r flohsync.sync_run;
  list jsonb;
  seen bytea;
  came bigint;
  there bigint;
BEGIN
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  SELECT d.definition #> ARRAY['resources', r.resource_type] INTO list
    FROM flohsync.connector_definition d WHERE d.id = r.connector_id AND d.kind = 'rest';
  -- With own_ids a record may well be in the lists of several parents.
  IF r.strategy <> 'full' OR list #>> '{list,pagination,type}' NOT IN ('offset', 'page')
      OR list #>> '{list,pagination,type}' IS NULL
     OR list #>> '{for_each,own_ids}' = 'true' THEN
    RETURN NULL;
  END IF;
  SELECT _flohsync.ledger_union(coalesce(array_agg(l.seen) FILTER (WHERE l.seen IS NOT NULL), '{}')),
         sum(l.added + l.updated + l.unchanged + l.restored)
    INTO seen, came FROM _flohsync.pass_pages(r.pass_id) l;
  SELECT count(*) INTO there FROM flohsync.resource_record x
   WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type
     AND _flohsync.ledger_has(seen, x.record_no);
  IF came > there THEN
    RETURN format('pages are requested by position, and records occurred on more than one (%s): the list has '
                  'shifted, or is not ordered', came - there);
  END IF;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION _flohsync.pass_overlap(bigint) IS
  'Why a pass that reached its end may have missed records; null: no sign of that';

-- What a pass says is gone: what a complete full pass did not see, and what the
-- upstream said is deleted.  Whatever a later run has seen, complete or not, is
-- there: only a held pass has later ones.
CREATE FUNCTION _flohsync.gone_records(_run bigint, _complete boolean, OUT active bigint, OUT ids uuid[],
                                       OUT observed timestamptz[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
  seen bytea;
  later bytea;
  gone text[];
  gone_pages integer[];
  gone_nums bigint[];
BEGIN
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  active := 0;
  ids := '{}';
  observed := '{}';
  later := _flohsync.seen_since(r.connector_id, r.resource_type, '-infinity', _run);

  -- What the upstream said is deleted and did not list again later in the pass.
  SELECT array_agg(g.external_id), array_agg(g.page), array_agg(x.record_no) INTO gone, gone_pages, gone_nums
    FROM (SELECT DISTINCT ON (e.id) e.id AS external_id, l.page, l.fetched_at
            FROM _flohsync.pass_pages(r.pass_id) l, unnest(l.deleted) AS e(id)
           WHERE l.deleted IS NOT NULL
           ORDER BY e.id, l.page DESC) g
    JOIN flohsync.resource_record x
      ON x.external_id = g.external_id COLLATE "C" AND x.resource_type = r.resource_type
        AND x.connector_id = r.connector_id
   WHERE x.stale_since IS NULL AND x.observed_at <= g.fetched_at AND NOT _flohsync.ledger_has(later, x.record_no);
  IF gone IS NOT NULL THEN
    SELECT array_agg(g.external_id) INTO gone
      FROM (SELECT _flohsync.ledger_last(coalesce(array_agg(l.seen), '{}'), coalesce(array_agg(l.page), '{}'),
                                         gone_nums) AS last
              FROM _flohsync.pass_pages(r.pass_id) l WHERE l.seen IS NOT NULL) l,
           unnest(gone, gone_pages, l.last) AS g(external_id, page, last_page)
     WHERE g.last_page <= g.page;
  END IF;

  IF r.strategy = 'full' AND _complete THEN
    -- Without a complete ledger, nothing counts as missing.
    IF EXISTS (SELECT FROM _flohsync.pass_pages(r.pass_id) l
                HAVING count(*) <> coalesce(max(l.page), 0) OR count(l.seen) <> count(*)) THEN
      PERFORM _flohsync.raise('55000', format('the ledger of pass %s is incomplete', r.pass_id), NULL,
                              'Run the sync again.');
    END IF;
    SELECT _flohsync.ledger_union(coalesce(array_agg(l.seen), '{}')) INTO seen
      FROM _flohsync.pass_pages(r.pass_id) l WHERE l.seen IS NOT NULL;
    -- Observed later than the pass began, but not later than now: a clock that was wrong has left such.
    SELECT count(*), coalesce(array_agg(m.id) FILTER (WHERE m.missing), '{}'),
      coalesce(array_agg(m.observed_at) FILTER (WHERE m.missing), '{}')
      INTO active, ids, observed
      FROM (SELECT x.id, x.observed_at,
                   ((x.observed_at < r.pass_started_at OR x.observed_at > clock_timestamp())
                    AND NOT _flohsync.ledger_has(seen, x.record_no) AND NOT _flohsync.ledger_has(later, x.record_no))
                   OR x.external_id IN (SELECT g.id FROM unnest(gone) g(id)) AS missing
              FROM flohsync.resource_record x
             WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.stale_since IS NULL
            OFFSET 0) m;  -- so that "missing" is computed once
  ELSIF gone IS NOT NULL THEN
    SELECT count(*), coalesce(array_agg(m.id) FILTER (WHERE m.missing), '{}'),
      coalesce(array_agg(m.observed_at) FILTER (WHERE m.missing), '{}')
      INTO active, ids, observed
      FROM (SELECT x.id, x.observed_at, x.external_id IN (SELECT g.id FROM unnest(gone) g(id)) AS missing
              FROM flohsync.resource_record x
             WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.stale_since IS NULL
            OFFSET 0) m;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.gone_records(bigint, boolean) IS
  'Active records that are missing or deleted according to the pass of a run, when each was observed, and the number '
  'of all active records (on request)';

-- settle_pass does what a pass as a whole says about records: the missing ones
-- go stale, if the pass is complete and under the safeguard.
CREATE FUNCTION _flohsync.settle_pass(_run bigint, _complete boolean, _except text[] DEFAULT NULL,
  OUT held boolean, OUT staled bigint, OUT active bigint, OUT message text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
  c flohsync.connector_sync_config;
  gone record;
  full_pass boolean;
  max_fraction numeric;
  min_records numeric;
BEGIN
  PERFORM _flohsync.lock_config(_run);
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  SELECT * INTO STRICT c FROM flohsync.connector_sync_config x
   WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type;
  held := false;
  full_pass := r.strategy = 'full' AND _complete;
  -- This pass says what an older, held one wanted to.
  IF full_pass THEN
    PERFORM _flohsync.supersede_held(r.connector_id, r.resource_type, _run);
  END IF;
  gone := _flohsync.gone_records(_run, _complete);
  active := gone.active;
  staled := cardinality(gone.ids);

  -- A held run that comes back here was approved: only then is the guard open.
  max_fraction := (c.safeguards ->> 'maxStaleFraction')::numeric;
  min_records := coalesce((c.safeguards ->> 'minRecords')::numeric, 0);
  IF staled > 0 AND r.status <> 'held' THEN
    IF full_pass AND NOT EXISTS (SELECT FROM _flohsync.pass_pages(r.pass_id) l WHERE l.records > 0) THEN
      held := true;
      message := format('the upstream gave no record at all: would mark all %s active records stale', staled);
    ELSIF staled > max_fraction * active AND staled > min_records THEN
      held := true;
      message := format('would mark %s of %s active records stale (%s %%), more than the safeguard of %s %% allows',
                        staled, active, round(100.0 * staled / active, 1), round(100 * max_fraction, 1));
    END IF;
  END IF;
  IF held THEN
    IF c.deactivate_users THEN
      SELECT concat(message, '; ', count(DISTINCT u.id), ' users have such a record') INTO message
        FROM unnest(gone.ids) x(id)
        JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id
            AND m.match_status IN ('matched', 'manual_override')
        JOIN _flohsync.app_user u ON u.id = m.user_id AND coalesce(u.active, true);
    END IF;
    staled := 0;
    RETURN;
  END IF;

  IF staled > 0 THEN
    staled := _flohsync.records_staled(r.connector_id, r.resource_type, ARRAY(
      -- Whatever has been observed since that was decided is there.
      SELECT x.id FROM flohsync.resource_record x JOIN unnest(gone.ids, gone.observed) g(id, observed_at) ON g.id = x.id
       WHERE x.stale_since IS NULL AND (x.observed_at <= g.observed_at OR x.observed_at < r.pass_started_at)
         AND (_except IS NULL OR x.external_id NOT IN (SELECT e.id FROM unnest(_except) e(id) WHERE e.id IS NOT NULL))
       ORDER BY x.external_id FOR NO KEY UPDATE OF x), c.last_full_pass_at);
    UPDATE flohsync.sync_run x SET staled = x.staled + settle_pass.staled WHERE x.id = _run;
  END IF;
  -- Spared records were not confirmed by this pass.
  IF full_pass AND _except IS NULL THEN
    UPDATE flohsync.connector_sync_config x
       SET last_full_pass_at = greatest(x.last_full_pass_at, r.pass_started_at)
     WHERE x.id = c.id;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.settle_pass(bigint, boolean, text[]) IS
  'Marks the records stale that are missing or deleted according to a pass, except some external ids, '
  'unless a safeguard holds the run';

CREATE FUNCTION _flohsync.supersede_held(_connector uuid, _type text, _run bigint) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  UPDATE flohsync.sync_run x
     SET status = 'cancelled',
       notes = pg_catalog.concat_ws('; ', x.notes, pg_catalog.format('superseded by run %s', _run)),
       resolved_at = pg_catalog.clock_timestamp()
   WHERE x.connector_id = _connector AND x.resource_type = _type AND x.status = 'held' AND x.id < _run;
END;
COMMENT ON FUNCTION _flohsync.supersede_held(uuid, text, bigint) IS 'Cancels held runs that a later pass supersedes';

CREATE FUNCTION _flohsync.purge_singly(c flohsync.connector_sync_config, _run bigint, _limit bigint, OUT removed bigint,
                                       OUT refused bigint, OUT message text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _id uuid;
BEGIN
  removed := 0;
  refused := 0;
  -- At random: those that can never go must not stand before the others in each run.
  FOR _id IN SELECT p.id
    FROM unnest(_flohsync.purgeable(c.connector_id, c.resource_type, _flohsync.duration(c.stale_retention), NULL, _run))
      p(id)
              ORDER BY random() LIMIT _limit LOOP
    BEGIN
      removed := removed + _flohsync.records_removed(c.connector_id, c.resource_type, ARRAY[_id], true, _run);
    EXCEPTION WHEN integrity_constraint_violation THEN
      refused := refused + 1;
      message := _flohsync.clean(SQLERRM);
    END;
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.purge_singly(flohsync.connector_sync_config, bigint, bigint) IS
  'Purges records one by one when some of a batch cannot be deleted because foreign tables refer to them; returns '
  'how many could not, and why';

CREATE FUNCTION _flohsync.purge_run(_run bigint, _limit bigint) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  n bigint;
  c flohsync.connector_sync_config := _flohsync.keep_config(_run);
  singly record;
BEGIN
  PERFORM _flohsync.share_matching(c.connector_id, c.resource_type);
  -- While it is not known who has to be deactivated, the records that tell it stay.
  BEGIN
    SELECT _flohsync.purge(c.connector_id, c.resource_type, _flohsync.duration(c.stale_retention), _limit, _run) INTO n
      FROM flohsync.sync_run r
     WHERE r.id = _run AND c.id IS NOT NULL
       AND NOT (c.deactivate_users
                AND coalesce(jsonb_path_exists(r.post_sync, '$.errors[*] ? (!exists(@.externalId))'), false));
  EXCEPTION WHEN integrity_constraint_violation THEN
    singly := _flohsync.purge_singly(c, _run, least(_limit, 1000));
    n := singly.removed;
    IF singly.refused > 0 THEN
      PERFORM _flohsync.stage_failed(_run, 'purge', '23503',
                                     format('%s records cannot be purged: %s', singly.refused, singly.message));
    END IF;
  WHEN OTHERS THEN
    IF _flohsync.passes(SQLSTATE) THEN
      RAISE;
    END IF;
    -- A workflow that nobody can tell of anything: the next run purges them.
    PERFORM _flohsync.stage_failed(_run, 'purge', SQLSTATE, SQLERRM);
  END;
  IF n > 0 THEN
    UPDATE flohsync.sync_run r SET removed = r.removed + n WHERE r.id = _run;
  END IF;
  RETURN coalesce(n, 0);
END
$$;
COMMENT ON FUNCTION _flohsync.purge_run(bigint, bigint) IS 'Purges one batch of old stale records on behalf of a run';

CREATE FUNCTION _flohsync.finish_run(_run bigint, _status text, _complete boolean, _reason text,
  _error text, _class text, _watermark timestamptz, _retry_after interval DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
  last record;
  forget boolean;
  read_on boolean := _status IN ('success', 'held') AND _watermark IS NOT NULL;
  retry_delay interval := coalesce(current_setting('flohsync.retry_delay', true), '5s')::interval;
  again boolean;
  class record; -- of the error
BEGIN
  SELECT e.* INTO class FROM _flohsync.error_classes() e WHERE e.class = _class;
  PERFORM _flohsync.lock_config(_run);
  SELECT l.page, l.next_cursor, l.link INTO last
    FROM flohsync.sync_run x, _flohsync.pass_pages(x.pass_id) l
   WHERE x.id = _run ORDER BY l.page DESC LIMIT 1;
  -- A page that could not use what came says so with an empty link: the next pass begins without one.
  SELECT coalesce(bool_or(l.link = ''), false) AND _status IN ('success', 'held') INTO forget
    FROM flohsync.sync_run x, _flohsync.pass_pages(x.pass_id) l WHERE x.id = _run;
  UPDATE flohsync.sync_run x
     SET status = _status, finished_at = clock_timestamp(), complete = _complete,
         incomplete_reason = CASE WHEN NOT _complete THEN _reason END,
         error = _error, error_class = _class,
         -- a pass whose cursors went in circles, or that was stopped by hand, is not gone on with
         cursor = CASE WHEN _status = 'error' AND class.keeps_cursor THEN last.next_cursor END,
         pages = (SELECT count(*) FROM flohsync.sync_run_page p WHERE p.run_id = _run),
         pass_pages = coalesce(last.page, 0)
   WHERE x.id = _run AND x.status IN ('queued', 'running')
  RETURNING x.* INTO r;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  UPDATE flohsync.sync_run x SET stats = _flohsync.run_stats(_run) WHERE x.id = _run RETURNING x.* INTO r;
  IF _status IN ('success', 'held') THEN
    PERFORM _flohsync.trigger_summary(_run, r.stats);
  END IF;
  -- The ledger of a run is kept until a pass is complete.
  IF _status = 'success' AND _complete AND r.strategy = 'full' THEN
    PERFORM _flohsync.forget_seen(r.connector_id, r.resource_type, _run);
  END IF;
  -- A schedule's run is tried again three times, where a later try may go better.
  again := _status = 'error' AND r.trigger IN ('schedule', 'retry') AND retry_delay > '0'
           AND coalesce(class.retried_by_schedule, false);
  UPDATE flohsync.connector_sync_config c
     SET retries = CASE WHEN _status = 'cancelled' OR NOT again THEN 0 WHEN r.trigger = 'retry' THEN c.retries + 1
       ELSE 0 END,
         retry_at = CASE WHEN again AND (r.trigger = 'schedule' OR c.retries + 1 < 3)
                         THEN clock_timestamp() + greatest(_retry_after,
                                                           retry_delay * (1 << CASE r.trigger
                                                               WHEN 'retry' THEN c.retries + 1 ELSE 0 END)) END,
         parked = _status = 'error' AND _class = _flohsync.error_class('crash_loop'),
         last_success_at = CASE _status WHEN 'success' THEN r.finished_at ELSE c.last_success_at END,
         -- What a full pass missed, no incremental one makes up for.
         last_complete_at = CASE WHEN _complete AND _status IN ('success', 'held')
             AND (r.strategy = 'full' OR c.full_incomplete_reason IS NULL)
                                 THEN r.finished_at ELSE c.last_complete_at END,
         incomplete_reason = CASE WHEN _status = 'cancelled' THEN c.incomplete_reason WHEN NOT _complete
           THEN coalesce(_reason, _error)
                                  WHEN r.strategy <> 'full' THEN c.full_incomplete_reason END,
         full_incomplete_reason = CASE WHEN _status = 'cancelled' OR r.strategy <> 'full' THEN c.full_incomplete_reason
                                       WHEN NOT _complete THEN coalesce(_reason, _error) END,
         totals = _flohsync.add_counters(c.totals, _flohsync.totals_of(r.stats) || jsonb_build_object(_status, 1)),
         last_sync_at = r.finished_at,
         last_sync_cursor = r.cursor,
         last_sync_status = CASE _status WHEN 'success' THEN 'success' WHEN 'cancelled' THEN 'idle' ELSE 'error' END,
         last_sync_error = _error,
         last_sync_stats = r.stats,
         -- Everything requested was received, though perhaps not all of it could be identified.
         delta_link = CASE WHEN forget THEN NULL WHEN read_on THEN coalesce(last.link, c.delta_link)
           ELSE c.delta_link END,
         delta_fingerprint = CASE WHEN forget THEN NULL WHEN read_on AND last.link IS NOT NULL THEN r.fingerprint
           ELSE c.delta_fingerprint END,
         watermark = CASE WHEN read_on THEN _watermark ELSE c.watermark END
   WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type;
  PERFORM pg_notify('flohsync_run', jsonb_build_object('id', r.id, 'status', r.status)::text);
END
$$;
COMMENT ON FUNCTION _flohsync.finish_run(bigint, text, boolean, text, text, text, timestamptz, interval) IS
  'Ends a run: history, configuration, notification; the watermark is null when the pass did not '
  'receive everything it requested';
-- What is due is queued.

CREATE FUNCTION _flohsync.enqueue_due() RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  c flohsync.connector_sync_config;
  t timestamptz := clock_timestamp();
  -- As cron does: a smaller step is waited for, so that no tick comes twice.
  clock_step constant interval := '3 hours';
  again constant interval := '5 minutes';
  set_back boolean;
  problem text;
  n int := 0;
BEGIN
  -- Nothing here is waited for: locked rows are left for the next time.
  FOR c IN SELECT x.* FROM flohsync.connector_sync_config x JOIN flohsync.connector_definition d
    ON d.id = x.connector_id
            WHERE x.enabled AND d.enabled AND d.home = _flohsync.home() AND NOT x.parked
              AND (x.next_run_at <= t OR x.next_full_run_at <= t OR x.retry_at <= t
                   OR greatest(x.last_sync_at, x.updated_at) > t + clock_step
                   OR (x.cron_schedule IS NOT NULL AND x.next_run_at IS NULL)
                   OR (x.full_cron_schedule IS NOT NULL AND x.next_full_run_at IS NULL))
            ORDER BY _flohsync.next_due(x) NULLS LAST
              FOR NO KEY UPDATE OF x SKIP LOCKED LOOP
    CONTINUE WHEN NOT _flohsync.try_lock('connector', c.connector_id::text, true)
        OR NOT _flohsync.lock_queue(c.connector_id, c.resource_type, false);
    -- One invalid row must not stop the others.
    BEGIN
      IF EXISTS (SELECT FROM flohsync.sync_run r
                  WHERE r.connector_id = c.connector_id AND r.resource_type = c.resource_type
                    AND r.status IN ('queued', 'running')) THEN
        NULL;  -- that run is the one
      ELSIF c.next_run_at <= t OR c.next_full_run_at <= t THEN
        INSERT INTO flohsync.sync_run AS q (connector_id, resource_type, strategy, trigger)
        VALUES (c.connector_id, c.resource_type, CASE WHEN c.next_full_run_at <= t THEN 'full' ELSE c.strategy END,
                'schedule')
        ON CONFLICT (connector_id, resource_type) WHERE status IN ('queued', 'running') DO NOTHING;
        n := n + 1;
      ELSIF c.retry_at <= t THEN
        INSERT INTO flohsync.sync_run AS q (connector_id, resource_type, strategy, trigger)
        SELECT x.connector_id, x.resource_type, x.strategy, 'retry' FROM flohsync.sync_run x
         WHERE x.connector_id BETWEEN c.connector_id AND c.connector_id AND x.resource_type = c.resource_type
         ORDER BY x.connector_id, x.id DESC LIMIT 1
        ON CONFLICT (connector_id, resource_type) WHERE status IN ('queued', 'running') DO NOTHING;
        n := n + 1;
      END IF;
      -- The clock has been set back since: what it said then does not count.
      set_back := coalesce(greatest(c.last_sync_at, c.updated_at) > t + clock_step, false);
      UPDATE flohsync.connector_sync_config x
         SET next_run_at = CASE WHEN x.next_run_at > t AND NOT set_back THEN x.next_run_at
                                ELSE _flohsync.cron_next(c.cron_schedule, t, c.timezone) END,
             next_full_run_at = CASE WHEN x.next_full_run_at > t AND NOT set_back THEN x.next_full_run_at
                                     ELSE _flohsync.cron_next(c.full_cron_schedule, t, c.timezone) END,
             -- whatever is queued now is the next try
             retry_at = CASE WHEN least(x.next_run_at, x.next_full_run_at, x.retry_at) > t
                 AND NOT set_back THEN x.retry_at END,
             schedule_error = NULL
       WHERE x.id = c.id;
    EXCEPTION WHEN OTHERS THEN
      CONTINUE WHEN _flohsync.passes(SQLSTATE);
      -- Only a person switches a configuration off: what is wrong, a time zone that the system lost, may come right.
      problem := _flohsync.clean(SQLERRM);
      IF problem IS DISTINCT FROM c.schedule_error THEN
        RAISE WARNING USING
          MESSAGE = _flohsync.clean(format('schedules of %s/%s cannot be used: %s',
                                           (SELECT d.name FROM flohsync.connector_definition d
                                            WHERE d.id = c.connector_id), c.resource_type, problem)),
          HINT = 'They are checked again every five minutes.';
      END IF;
      UPDATE flohsync.connector_sync_config x
         SET schedule_error = problem,
             next_run_at = CASE WHEN x.cron_schedule IS NOT NULL THEN greatest(x.next_run_at, t + again) END,
             next_full_run_at = CASE WHEN x.full_cron_schedule IS NOT NULL
               THEN greatest(x.next_full_run_at, t + again) END,
             retry_at = greatest(x.retry_at, CASE WHEN x.retry_at IS NOT NULL THEN t + again END)
       WHERE x.id = c.id;
    END;
  END LOOP;
  RETURN n;
END
$$;
COMMENT ON FUNCTION _flohsync.enqueue_due() IS
  'Queues the scheduled runs and retries that are due; missed ticks collapse into one';
-- What users call: ask for runs, wait for them, stop them, decide about held ones.

CREATE FUNCTION _flohsync.trigger_sync(connector text, resource_type text, strategy text, restart boolean)
  RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _connector uuid := _flohsync.hold_connector(connector);
  _type text := _flohsync.check_resource_type(trigger_sync.resource_type);
  _id bigint;
  r flohsync.sync_run;
  _default text;
BEGIN
  IF pg_is_in_recovery() THEN
    PERFORM _flohsync.raise('25006', 'cannot request a run on a standby', NULL, 'Request it on the primary.');
  END IF;
  IF (SELECT d.home <> _flohsync.home() FROM flohsync.connector_definition d WHERE d.id = _connector) THEN
    PERFORM _flohsync.raise('55000',
      _flohsync.clean(format('connector "%s" was restored from a dump of another database', connector)), NULL,
      'To sync it in this database, call flohsync.adopt().');
  END IF;
  IF trigger_sync.restart IS NULL THEN
    PERFORM _flohsync.invalid('restart', 'it must be true or false');
  END IF;
  IF trigger_sync.strategy IS NOT NULL AND trigger_sync.strategy NOT IN ('full', 'incremental') THEN
    PERFORM _flohsync.invalid('strategy', format('%L is not a strategy', trigger_sync.strategy),
                              'Strategies are full and incremental.');
  END IF;
  SELECT c.strategy INTO _default FROM flohsync.connector_sync_config c WHERE c.connector_id = _connector
      AND c.resource_type = _type;
  IF NOT FOUND THEN
    PERFORM _flohsync.raise('42704',
      _flohsync.clean(format('connector "%s" has no configuration for resource type "%s"', connector, _type)),
      NULL,
      'Create one with flohsync.configure_sync().');
  END IF;
  PERFORM _flohsync.check_strategy(d.definition, _type, trigger_sync.strategy)
     FROM flohsync.connector_definition d WHERE d.id = _connector AND d.kind = 'rest';
  LOOP
    -- A run that is about to end is not waited for: its worker may be waiting for us.
    SELECT q.* INTO r FROM flohsync.sync_run q
     WHERE q.connector_id = _connector AND q.resource_type = _type AND q.status IN ('queued', 'running');
    IF FOUND THEN
      _id := r.id;
      IF r.status = 'queued' AND (trigger_sync.strategy = 'full' OR trigger_sync.restart) THEN
        -- The configuration before its run, as everywhere.
        PERFORM FROM flohsync.connector_sync_config c WHERE c.connector_id = _connector AND c.resource_type = _type
          FOR NO KEY UPDATE;
        UPDATE flohsync.sync_run q
           SET strategy = CASE trigger_sync.strategy WHEN 'full' THEN 'full' ELSE q.strategy END, restart = q.restart
               OR trigger_sync.restart
         WHERE q.id = r.id AND q.status = 'queued' RETURNING q.* INTO r;
        CONTINUE WHEN NOT FOUND;
      END IF;
      RAISE NOTICE USING
        MESSAGE = format('run %s of that configuration is already %s (strategy %s): it is '
                         'returned instead of a new one', r.id,
                         CASE r.status WHEN 'queued' THEN 'queued' ELSE 'running' END, coalesce(r.strategy, _default));
      EXIT;
    END IF;
    PERFORM _flohsync.lock_queue(_connector, _type, true);
    INSERT INTO flohsync.sync_run AS q (connector_id, resource_type, strategy, trigger, requested_by, restart)
    VALUES (_connector, _type, trigger_sync.strategy, 'manual', _flohsync.caller_name(), trigger_sync.restart)
    ON CONFLICT (connector_id, resource_type) WHERE status IN ('queued', 'running') DO NOTHING
    RETURNING q.id INTO _id;
    EXIT WHEN FOUND;
  END LOOP;
  PERFORM _flohsync.wake();
  RETURN _id;
END
$$;
COMMENT ON FUNCTION _flohsync.trigger_sync(text, text, text, boolean) IS
  'Implementation of the public function of this name, run as its owner';

CREATE FUNCTION flohsync.trigger_sync(connector text, resource_type text, strategy text DEFAULT NULL,
                                      restart boolean DEFAULT false) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_owner';
COMMENT ON FUNCTION flohsync.trigger_sync(text, text, text, boolean) IS
  'Requests a run (strategy full or incremental; null: the configuration''s) and returns its id at once; a run that is '
  'already queued or running is returned instead of a second one, with a notice (a queued one becomes full, or starts '
  'a new pass, when that is requested); restart: starts a new pass instead of resuming one that failed; 42704 for an '
  'unknown connector or configuration, 22023 for an invalid strategy';
SELECT _flohsync.allow('manager', 'flohsync.trigger_sync(text, text, text, boolean)');

CREATE FUNCTION flohsync.adopt() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  n bigint;
BEGIN
  PERFORM _flohsync.check_tables();
  UPDATE flohsync.connector_definition d SET home = _flohsync.home() WHERE d.home <> _flohsync.home();
  GET DIAGNOSTICS n = ROW_COUNT;
  -- A dump has no run that was under way or waited for a decision.
  UPDATE flohsync.workflow_job j SET run_id = NULL
   WHERE j.run_id IS NOT NULL AND NOT EXISTS (SELECT FROM flohsync.sync_run r WHERE r.id = j.run_id);
  PERFORM _flohsync.wake();
  RETURN n;
END
$$;
COMMENT ON FUNCTION flohsync.adopt() IS
  'Lets this database sync the connectors that were restored from a dump of another one, and returns their number; '
  'until then they are neither scheduled nor run';
SELECT _flohsync.allow('manager', 'flohsync.adopt()');

CREATE PROCEDURE flohsync.sync(connector text, resource_type text, INOUT stats jsonb DEFAULT NULL,
                               strategy text DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', 'flohsync_sync';
COMMENT ON PROCEDURE flohsync.sync(text, text, jsonb, text) IS
  'Requests a run as trigger_sync() does and waits for its end; raises the run''s error; cancelling the call does not '
  'cancel the run; not inside a transaction block. When no worker takes the run within a second a notice says why, or '
  'an error (55000) if waiting cannot change that';
SELECT _flohsync.allow('manager', 'flohsync.sync(text, text, jsonb, text)');

CREATE FUNCTION _flohsync.interrupt_run(_connector uuid, _type text) RETURNS boolean
LANGUAGE c VOLATILE STRICT
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_interrupt_run';
COMMENT ON FUNCTION _flohsync.interrupt_run(uuid, text) IS
  'Cancels the current statement of the process that holds the lock of the run; false when none does';

CREATE FUNCTION flohsync.cancel_sync(run_id bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
BEGIN
  PERFORM _flohsync.lock_config(cancel_sync.run_id);
  UPDATE flohsync.sync_run x SET cancel_requested = true
   WHERE x.id = cancel_sync.run_id AND x.status IN ('queued', 'running')
  RETURNING x.* INTO r;
  IF NOT FOUND THEN
    PERFORM FROM flohsync.sync_run x WHERE x.id = cancel_sync.run_id;
    IF NOT FOUND THEN
      PERFORM _flohsync.raise('42704', format('run %s does not exist', coalesce(cancel_sync.run_id::text, 'NULL')));
    END IF;
    RETURN false;
  END IF;
  IF r.status = 'queued' THEN
    PERFORM _flohsync.finish_run(r.id, 'cancelled', false, 'run was cancelled', 'run was cancelled', 'cancelled', NULL);
  ELSIF NOT _flohsync.interrupt_run(r.connector_id, r.resource_type) THEN
    PERFORM _flohsync.wake();
  END IF;
  RETURN true;
END
$$;
COMMENT ON FUNCTION flohsync.cancel_sync(bigint) IS
  'Stops a queued or running run; false when it has ended already; 42704 when there is none';
SELECT _flohsync.allow('manager', 'flohsync.cancel_sync(bigint)');

CREATE FUNCTION _flohsync.try_run_lock(_connector uuid, _type text) RETURNS boolean
LANGUAGE c VOLATILE STRICT
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_try_run_lock';
COMMENT ON FUNCTION _flohsync.try_run_lock(uuid, text) IS
  'Takes the lock of a configuration''s runs until the end of the transaction; false when a worker has it';

CREATE FUNCTION _flohsync.held_run(_run bigint) RETURNS flohsync.sync_run
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r flohsync.sync_run;
  locked boolean := false;
  patience timestamptz := clock_timestamp() + interval '10 seconds';
BEGIN
  LOOP
    -- The holder of the lock of the runs may be waiting for the configuration.
    IF locked THEN
      PERFORM _flohsync.lock_config(_run);
    END IF;
    SELECT * INTO r FROM flohsync.sync_run x WHERE x.id = _run;
    IF NOT FOUND THEN
      PERFORM _flohsync.raise('42704', format('run %s does not exist', coalesce(_run::text, 'NULL')));
    ELSIF r.status <> 'held' THEN
      PERFORM _flohsync.raise('55000',
        format('run %s is not held', _run),
        concat_ws('; ', format('Its status is %s', r.status), r.notes) || '.');
    END IF;
    EXIT WHEN locked;
    locked := _flohsync.try_run_lock(r.connector_id, r.resource_type);
    CONTINUE WHEN locked;
    -- A worker that has just reported the end of its run has not released the lock yet.
    IF clock_timestamp() > patience
       OR EXISTS (SELECT FROM flohsync.sync_run x
                   WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type
                     AND x.status = 'running') THEN
      PERFORM _flohsync.raise('55006',
        format('another run of resource type "%s" is in progress', r.resource_type),
        NULL,
        'Wait until it ends; if it is complete, it supersedes the held run.');
    END IF;
    PERFORM pg_sleep(0.005);
  END LOOP;
  RETURN r;
END
$$;
COMMENT ON FUNCTION _flohsync.held_run(bigint) IS
  'A held run, locked against other decisions until the end of the transaction';

-- What the approval of a held run would do: the records that would go stale, and
-- the users who would be deactivated, each with one of their records.
CREATE FUNCTION _flohsync.held_effects(_run bigint)
RETURNS TABLE (external_id text, display_name text, email text, op text, user_id uuid, user_email text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
  c flohsync.connector_sync_config;
  gone uuid[];
BEGIN
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  SELECT * INTO c FROM flohsync.connector_sync_config x WHERE x.connector_id = r.connector_id
      AND x.resource_type = r.resource_type;
  SELECT g.ids INTO gone FROM _flohsync.gone_records(_run, coalesce(r.complete, false)) g;
  RETURN QUERY
    SELECT x.external_id::text, x.display_name::text, x.email::text, 'staled', u.id, u.email
      FROM unnest(gone) g(id) JOIN flohsync.resource_record x ON x.id = g.id
      LEFT JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id
          AND m.match_status IN ('matched', 'manual_override')
      LEFT JOIN _flohsync.app_user u ON u.id = m.user_id;
  IF NOT coalesce(c.deactivate_users, false) THEN
    RETURN;
  END IF;
  RETURN QUERY
    SELECT DISTINCT ON (l.user_id) x.external_id::text, x.display_name::text, x.email::text, 'deactivated',
      l.user_id, u.email
      FROM (SELECT * FROM _flohsync.users_to_deactivate(c, NULL)
            UNION
            -- those who leave by what would go stale
            SELECT o.user_id FROM unnest(gone) g(id)
              JOIN flohsync.connector_sync_match o ON o.connector_resource_id = g.id
                  AND o.match_status IN ('matched', 'manual_override')
             WHERE NOT EXISTS (SELECT FROM flohsync.connector_sync_match n JOIN flohsync.resource_record y
                               ON y.id = n.connector_resource_id
                                WHERE n.user_id = o.user_id AND n.match_status IN ('matched', 'manual_override')
                                  AND y.stale_since IS NULL
                                  AND y.id NOT IN (SELECT i.id FROM unnest(gone) i(id)))) l(user_id)
      JOIN _flohsync.app_user u ON u.id = l.user_id AND coalesce(u.active, true)
      JOIN flohsync.connector_sync_match m ON m.user_id = l.user_id AND m.connector_id = c.connector_id
          AND m.resource_type = c.resource_type
      JOIN flohsync.resource_record x ON x.id = m.connector_resource_id
     ORDER BY l.user_id, x.external_id;
END
$$;
COMMENT ON FUNCTION _flohsync.held_effects(bigint) IS 'Effects of the approval of a held run on records and users';

CREATE FUNCTION _flohsync.held_changes(run_id bigint, page int, page_size int) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
  _total bigint;
  _data jsonb;
BEGIN
  PERFORM _flohsync.check_page(held_changes.page, held_changes.page_size);
  SELECT * INTO r FROM flohsync.sync_run x WHERE x.id = held_changes.run_id;
  IF NOT FOUND THEN
    PERFORM _flohsync.raise('42704', format('run %s does not exist', coalesce(held_changes.run_id::text, 'NULL')));
  ELSIF r.status <> 'held' THEN
    PERFORM _flohsync.raise('55000', format('run %s is not held', r.id),
                            concat_ws('; ', format('Its status is %s', r.status), r.notes) || '.');
  END IF;
  WITH effect AS MATERIALIZED (SELECT * FROM _flohsync.held_effects(r.id))
  SELECT (SELECT count(*) FROM effect),
         (SELECT coalesce(jsonb_agg(jsonb_build_object('externalId', e.external_id, 'displayName', e.display_name,
                                                       'email', e.email, 'op', e.op,
                                                       'userId', e.user_id, 'userEmail', e.user_email)
                                                         ORDER BY e.external_id COLLATE "C", e.op DESC,
                                                         e.user_id), '[]')
            FROM (SELECT * FROM effect f ORDER BY f.external_id COLLATE "C", f.op DESC, f.user_id
                   LIMIT held_changes.page_size OFFSET (held_changes.page - 1)::bigint * held_changes.page_size) e)
    INTO _total, _data;
  RETURN jsonb_build_object('data', _data, 'total', _total, 'page', held_changes.page, 'pageSize',
                            held_changes.page_size,
                            'totalPages', (_total + held_changes.page_size - 1) / held_changes.page_size);
END
$$;
COMMENT ON FUNCTION _flohsync.held_changes(bigint, int, int) IS
  'Implementation of the public function of this name, run as the workers'' role';

CREATE FUNCTION flohsync.held_changes(run_id bigint, page int DEFAULT 1, page_size int DEFAULT 50) RETURNS jsonb
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_as_worker';
COMMENT ON FUNCTION flohsync.held_changes(bigint, int, int) IS
  'A page of what the approval of a held run would do now: {externalId, displayName, email, op, userId, userEmail}, op '
  'staled (the record) or deactivated (the user), an item each, in the order of external ids; pages of 1 to 2000 (50), '
  'counted from 1; 42704 for an unknown run, 55000 for one that is not held, 22023 for an invalid page';
SELECT _flohsync.allow('reader', 'flohsync.held_changes(bigint, int, int)');

CREATE FUNCTION _flohsync.approve_run(run_id bigint, notes text, except_ids text[]) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run := _flohsync.held_run(approve_run.run_id);
  c flohsync.connector_sync_config;
  d flohsync.connector_definition;
  s record;
  n bigint;
  before jsonb := coalesce(r.post_sync, '{}');
BEGIN
  SELECT * INTO STRICT d FROM flohsync.connector_definition x WHERE x.id = r.connector_id;
  SELECT * INTO c FROM flohsync.connector_sync_config x WHERE x.connector_id = r.connector_id
      AND x.resource_type = r.resource_type;
  PERFORM _flohsync.invalid('except_ids', format('there is no record %s', _flohsync.excerpt(e.id)),
                            'flohsync.held_changes() lists those that the run is about. Nothing was changed.')
     FROM unnest(approve_run.except_ids) e(id)
    WHERE NOT EXISTS (SELECT FROM flohsync.resource_record x
                       WHERE x.external_id = e.id AND x.resource_type = r.resource_type
                         AND x.connector_id = r.connector_id) LIMIT 1;
  IF c.id IS NULL OR r.decided_under IS DISTINCT FROM _flohsync.decided_under(d, c) THEN
    PERFORM _flohsync.raise('55000', format('the configuration has changed since run %s was held', r.id),
      'The connector, the strategy or the filters have changed, and so may have the records that are missing.',
      'Run the sync again, so that a complete pass decides; or drop the run with flohsync.reject_run().');
  END IF;
  -- A pass that was not complete says nothing about what it did not see, approved or not.
  s := _flohsync.settle_pass(r.id, coalesce(r.complete, false), except_ids);
  -- The decision about a spared record is final, unless something else happens to the record.
  PERFORM _flohsync.settle_departures(ARRAY(
    SELECT DISTINCT m.user_id FROM flohsync.connector_sync_match m
     WHERE m.connector_id = r.connector_id AND m.resource_type = r.resource_type AND m.user_id IS NOT NULL
       AND m.external_id IN (SELECT e.id FROM unnest(except_ids) e(id))));
  PERFORM _flohsync.post_sync(r.id, false);
  n := CASE WHEN r.complete THEN _flohsync.purge_run(r.id, NULL) ELSE 0 END;
  UPDATE flohsync.sync_run x
     SET status = 'success', resolved_by = _flohsync.caller_name(), resolved_at = clock_timestamp(),
         error = NULL, error_class = NULL, notes = concat_ws('; ', approve_run.notes, 'it was held: ' || x.error)
   WHERE x.id = r.id RETURNING x.* INTO r;
  UPDATE flohsync.sync_run x
     SET stats = x.stats || jsonb_build_object('staled', x.staled, 'removed', x.removed)
                 || CASE WHEN x.post_sync IS NULL THEN '{}' ELSE jsonb_build_object('postSync', x.post_sync) END
   WHERE x.id = r.id RETURNING x.* INTO r;
  PERFORM _flohsync.trigger_summary(r.id, r.stats);
  -- The configuration tells of its last run; that may be a later one.
  UPDATE flohsync.connector_sync_config c
     SET last_sync_status = 'success', last_sync_error = NULL, last_sync_stats = r.stats,
       last_success_at = clock_timestamp()
   WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type
     AND NOT EXISTS (SELECT FROM flohsync.sync_run x
                      WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.id > r.id);
  -- Counters never fall: the run was held, and has succeeded now.
  UPDATE flohsync.connector_sync_config c
     SET totals = _flohsync.add_counters(c.totals, jsonb_build_object('success', 1, 'staled', s.staled, 'removed', n,
           'usersDeactivated', coalesce((r.post_sync ->> 'usersDeactivated')::bigint, 0)
             - coalesce((before ->> 'usersDeactivated')::bigint, 0),
           'usersCreated', coalesce((r.post_sync ->> 'usersCreated')::bigint, 0)
             - coalesce((before ->> 'usersCreated')::bigint, 0)))
   WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type;
  PERFORM pg_notify('flohsync_run', jsonb_build_object('id', r.id, 'status', r.status)::text);
  -- A run requested meanwhile found the lock taken.
  PERFORM _flohsync.wake();
  RETURN jsonb_build_object('runId', r.id, 'status', r.status, 'staled', s.staled, 'removed', n, 'stats', r.stats);
END
$$;
COMMENT ON FUNCTION _flohsync.approve_run(bigint, text, text[]) IS
  'Implementation of the public function of this name, run as the workers'' role';

CREATE FUNCTION flohsync.approve_run(run_id bigint, notes text DEFAULT NULL, except_ids text[] DEFAULT NULL)
  RETURNS jsonb
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_worker';
COMMENT ON FUNCTION flohsync.approve_run(bigint, text, text[]) IS
  'Approves a held run: determines again which records are missing, and marks them stale, except those of except_ids '
  'and those that any later run has seen; deactivates users likewise; 42704 for an unknown run; 22023 for an id that '
  'no record has; 55000 for a run that is not held, or when the connector, the strategy or the filters have changed '
  'since; 55006 while another run is in progress';
SELECT _flohsync.allow('manager', 'flohsync.approve_run(bigint, text, text[])');

CREATE FUNCTION _flohsync.reject_run(run_id bigint, notes text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run := _flohsync.held_run(reject_run.run_id);
BEGIN
  UPDATE flohsync.sync_run x
     SET status = 'cancelled', resolved_by = _flohsync.caller_name(), resolved_at = clock_timestamp(),
       notes = reject_run.notes
   WHERE x.id = r.id;
  -- The decision about the users is final, unless something else happens to the record.
  PERFORM _flohsync.settle_departures(ARRAY(SELECT * FROM _flohsync.users_to_deactivate(c, NULL)))
     FROM flohsync.connector_sync_config c
    WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type AND c.deactivate_users;
  PERFORM _flohsync.forget_changes(ARRAY(
    SELECT q.seq FROM _flohsync.record_change q JOIN flohsync.resource_record x ON x.id = q.resource_id
     WHERE q.connector_id = r.connector_id AND q.resource_type = r.resource_type AND q.change = 'recheck'
       AND x.stale_since IS NOT NULL));
  UPDATE flohsync.connector_sync_config c SET last_sync_status = 'idle', last_sync_error = NULL
   WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type
     AND NOT EXISTS (SELECT FROM flohsync.sync_run x
                      WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.id > r.id);
  PERFORM pg_notify('flohsync_run', jsonb_build_object('id', r.id, 'status', 'cancelled')::text);
  -- A run requested meanwhile found the lock taken.
  PERFORM _flohsync.wake();
END
$$;
COMMENT ON FUNCTION _flohsync.reject_run(bigint, text) IS
  'Implementation of the public function of this name, run as the workers'' role';

CREATE FUNCTION flohsync.reject_run(run_id bigint, notes text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_worker';
COMMENT ON FUNCTION flohsync.reject_run(bigint, text) IS
  'Rejects a held run; the records that it missed and the users that it would have deactivated remain unchanged';
SELECT _flohsync.allow('manager', 'flohsync.reject_run(bigint, text)');

CREATE FUNCTION flohsync.delete_sync_config(connector text, resource_type text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _connector uuid := _flohsync.hold_connector(connector);
  _run bigint;
BEGIN
  -- A running worker is cancelled, and releases the locks needed here.
  PERFORM _flohsync.interrupt_run(r.connector_id, r.resource_type) FROM flohsync.sync_run r
    WHERE r.connector_id = _connector AND r.resource_type = delete_sync_config.resource_type AND r.status = 'running';
  PERFORM FROM flohsync.connector_definition d WHERE d.id = _connector FOR NO KEY UPDATE;
  PERFORM FROM flohsync.connector_sync_config c
    WHERE c.connector_id = _connector AND c.resource_type = delete_sync_config.resource_type FOR UPDATE;
  FOR _run IN SELECT r.id FROM flohsync.sync_run r
               WHERE r.connector_id = _connector AND r.resource_type = delete_sync_config.resource_type
                 AND r.status IN ('queued', 'running') LOOP
    PERFORM flohsync.cancel_sync(_run);
  END LOOP;
  DELETE FROM flohsync.connector_sync_config c
   WHERE c.connector_id = _connector AND c.resource_type = delete_sync_config.resource_type;
  RETURN FOUND;
END
$$;
COMMENT ON FUNCTION flohsync.delete_sync_config(text, text) IS
  'Removes a configuration with its schedules; the records remain; false when there was none';
SELECT _flohsync.allow('manager', 'flohsync.delete_sync_config(text, text)');

CREATE FUNCTION flohsync.test_connector(connector text) RETURNS jsonb
LANGUAGE c VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_test_connector';
COMMENT ON FUNCTION flohsync.test_connector(text) IS
  'Requests one record of each resource type from the upstream: {"ok":true,"types":{…}} or {"ok":false,"error":…}; an '
  'upstream''s failure is never raised';
SELECT _flohsync.allow('manager', 'flohsync.test_connector(text)');
-- Users, their profiles and their identities upstream.
--
-- The seam: the rest of flohsync reads users only through v_user, and writes
-- them only through _user_create, _user_deactivate, _user_reactivate and
-- _profile_update.  An application with its own users replaces these five, with
-- CREATE OR REPLACE and the same columns and arguments, and nothing else; so
-- no table outside this file may refer to floh_user.
--
-- Rights: the four functions, and the view when flohsync looks at it, run as
-- flohsync.worker_role, in a worker and for a manager alike.  The application
-- grants that role what its own objects need.

-- What is compared when e-mail addresses or issuers are.
CREATE FUNCTION _flohsync.match_key(_text text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_match_key';
COMMENT ON FUNCTION _flohsync.match_key(text) IS
  'A text without surrounding white space and with ASCII letters in lower case, nothing else '
  'folded; null when it is empty';

CREATE TABLE flohsync.floh_user (
  id                 uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
  iss                varchar(500) NOT NULL,
  sub                varchar(500) NOT NULL,
  email              varchar(255) NOT NULL,
  display_name       varchar(255) NOT NULL,
  confirmed          boolean NOT NULL DEFAULT false,
  upstream_issuer    varchar(500),
  upstream_id        varchar(500),
  active             boolean NOT NULL DEFAULT true,
  deleted_at         timestamptz,
  deactivated_by_run bigint,
  created_at         timestamptz NOT NULL DEFAULT pg_catalog.now(),
  updated_at         timestamptz NOT NULL DEFAULT pg_catalog.now(),
  UNIQUE (iss, sub),
  UNIQUE (iss, email),
  CHECK (confirmed OR (iss = '-' AND sub = email))
);
CREATE INDEX floh_user_email_key ON flohsync.floh_user (_flohsync.match_key(email) COLLATE "C");
-- For matching; the others for whoever asks without saying a collation.
CREATE INDEX floh_user_sub ON flohsync.floh_user (sub COLLATE "C");
CREATE INDEX floh_user_upstream_id ON flohsync.floh_user (upstream_id COLLATE "C") WHERE upstream_id IS NOT NULL;
CREATE INDEX floh_user_email_hash ON flohsync.floh_user USING hash (email);
CREATE INDEX floh_user_sub_hash ON flohsync.floh_user USING hash (sub);
CREATE INDEX floh_user_upstream_id_hash ON flohsync.floh_user USING hash (upstream_id);
COMMENT ON TABLE flohsync.floh_user IS 'Users; an unconfirmed one has iss ''-'' and its e-mail address as sub';
COMMENT ON COLUMN flohsync.floh_user.id IS 'Identity of the user';
COMMENT ON COLUMN flohsync.floh_user.iss IS 'Issuer of the login, ''-'' while unconfirmed';
COMMENT ON COLUMN flohsync.floh_user.sub IS 'Subject of the login, the e-mail address while unconfirmed';
COMMENT ON COLUMN flohsync.floh_user.email IS 'E-mail address';
COMMENT ON COLUMN flohsync.floh_user.display_name IS 'Human-readable name';
COMMENT ON COLUMN flohsync.floh_user.confirmed IS 'Whether the user has logged in';
COMMENT ON COLUMN flohsync.floh_user.upstream_issuer IS 'Issuer behind the login''s issuer';
COMMENT ON COLUMN flohsync.floh_user.upstream_id IS 'Id at that issuer';
COMMENT ON COLUMN flohsync.floh_user.active IS 'Whether the user is active';
COMMENT ON COLUMN flohsync.floh_user.deleted_at IS 'When the user was soft-deleted';
COMMENT ON COLUMN flohsync.floh_user.deactivated_by_run IS
  'Run that deactivated the user, 0: a webhook; only such a user is reactivated by a sync';
COMMENT ON COLUMN flohsync.floh_user.created_at IS 'When the row was created';
COMMENT ON COLUMN flohsync.floh_user.updated_at IS 'When the row was last changed';
SELECT _flohsync.allow('reader', 'flohsync.floh_user');

-- A security barrier: a role may have been granted this view only.
CREATE VIEW flohsync.v_user WITH (security_barrier) AS
SELECT u.id, u.email::text, u.display_name::text, u.upstream_issuer::text, u.upstream_id::text, u.sub::text,
  u.confirmed, u.active
  FROM flohsync.floh_user u
 WHERE u.deleted_at IS NULL;
COMMENT ON VIEW flohsync.v_user IS 'The users that matching considers: those not soft-deleted';
COMMENT ON COLUMN flohsync.v_user.id IS 'Identity of the user';
COMMENT ON COLUMN flohsync.v_user.email IS 'E-mail address';
COMMENT ON COLUMN flohsync.v_user.display_name IS 'Human-readable name';
COMMENT ON COLUMN flohsync.v_user.upstream_issuer IS 'Issuer behind the login''s issuer';
COMMENT ON COLUMN flohsync.v_user.upstream_id IS 'Id at that issuer';
COMMENT ON COLUMN flohsync.v_user.sub IS 'Subject of the login';
COMMENT ON COLUMN flohsync.v_user.confirmed IS 'Whether the user has logged in';
COMMENT ON COLUMN flohsync.v_user.active IS 'Whether the user is active';
SELECT _flohsync.allow('reader', 'flohsync.v_user');

-- The same for our own statements.  A security barrier, which v_user is because
-- it hides rows, keeps joins from using the indexes of the table.
CREATE VIEW _flohsync.app_user AS
SELECT u.id, u.email::text, u.display_name::text, u.upstream_issuer::text, u.upstream_id::text, u.sub::text,
  u.confirmed, u.active
  FROM flohsync.floh_user u
 WHERE u.deleted_at IS NULL;
COMMENT ON VIEW _flohsync.app_user IS
  'Like v_user, but not a security barrier; updated when an application replaces v_user';
COMMENT ON COLUMN _flohsync.app_user.id IS 'Identity of the user';
COMMENT ON COLUMN _flohsync.app_user.email IS 'E-mail address';
COMMENT ON COLUMN _flohsync.app_user.display_name IS 'Human-readable name';
COMMENT ON COLUMN _flohsync.app_user.upstream_issuer IS 'Issuer behind the login''s issuer';
COMMENT ON COLUMN _flohsync.app_user.upstream_id IS 'Id at that issuer';
COMMENT ON COLUMN _flohsync.app_user.sub IS 'Subject of the login';
COMMENT ON COLUMN _flohsync.app_user.confirmed IS 'Whether the user has logged in';
COMMENT ON COLUMN _flohsync.app_user.active IS 'Whether the user is active';

-- Runs for each CREATE VIEW of any role, with that role's rights: no name is looked up.
CREATE FUNCTION _flohsync.seam_changed() RETURNS event_trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() d WHERE d.object_identity = 'flohsync.v_user') THEN
    EXECUTE 'CREATE OR REPLACE VIEW _flohsync.app_user AS ' || pg_get_viewdef('flohsync.v_user'::regclass);
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.seam_changed() IS 'Keeps app_user identical to v_user';
CREATE EVENT TRIGGER flohsync_seam ON ddl_command_end
  WHEN TAG IN ('CREATE VIEW') EXECUTE FUNCTION _flohsync.seam_changed();
COMMENT ON EVENT TRIGGER flohsync_seam IS 'Detects that an application replaces flohsync.v_user with its own users';

CREATE TABLE flohsync.user_profile (
  user_id           uuid PRIMARY KEY REFERENCES flohsync.floh_user ON DELETE CASCADE,
  title             text,
  department        text,
  phone_number      text,
  location          text,
  employee_id       text,
  cost_center       text,
  start_date        date,
  manager_id        uuid,
  custom_attributes jsonb NOT NULL DEFAULT '{}',
  attribute_sources jsonb NOT NULL DEFAULT '{}',
  updated_at        timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE flohsync.user_profile IS 'Profiles of users, with the source of each value';
COMMENT ON COLUMN flohsync.user_profile.user_id IS 'User';
COMMENT ON COLUMN flohsync.user_profile.title IS 'Job title';
COMMENT ON COLUMN flohsync.user_profile.department IS 'Department';
COMMENT ON COLUMN flohsync.user_profile.phone_number IS 'Telephone number';
COMMENT ON COLUMN flohsync.user_profile.location IS 'Place of work';
COMMENT ON COLUMN flohsync.user_profile.employee_id IS 'Employee number';
COMMENT ON COLUMN flohsync.user_profile.cost_center IS 'Cost centre';
COMMENT ON COLUMN flohsync.user_profile.start_date IS 'First day of work';
COMMENT ON COLUMN flohsync.user_profile.manager_id IS 'Manager of the user';
COMMENT ON COLUMN flohsync.user_profile.custom_attributes IS 'Values of custom fields';
COMMENT ON COLUMN flohsync.user_profile.attribute_sources IS
  'Which source last wrote which field: manual, oidc, workflow or connector';
COMMENT ON COLUMN flohsync.user_profile.updated_at IS 'When the row was last changed';
SELECT _flohsync.allow('reader', 'flohsync.user_profile');

CREATE TABLE flohsync.user_external_identity (
  user_id               uuid NOT NULL,
  connector_id          uuid NOT NULL,
  external_id           varchar(255) COLLATE "C" NOT NULL,
  external_email        varchar(255),
  external_display_name varchar(255),
  source                text NOT NULL CHECK (source IN ('connector_sync', 'workflow', 'manual')),
  attributes            jsonb,
  verified_at           timestamptz,
  CONSTRAINT user_external_identity_key PRIMARY KEY (external_id, connector_id, user_id)
);
CREATE INDEX user_external_identity_user ON flohsync.user_external_identity (user_id);
CREATE INDEX user_external_identity_email ON flohsync.user_external_identity (external_email);

-- As ON DELETE CASCADE would; a foreign key would be checked for each of 500,000 identities.
CREATE FUNCTION _flohsync.connector_removed() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  EXECUTE format('DELETE FROM %s t WHERE t.connector_id = $1', TG_ARGV[0]::regclass) USING OLD.id;
  RETURN OLD;
END
$$;
COMMENT ON FUNCTION _flohsync.connector_removed() IS
  'Removes the rows of a deleted connector from the table that the trigger names, which has no foreign key';
CREATE TRIGGER identities_removed AFTER DELETE ON flohsync.connector_definition
FOR EACH ROW EXECUTE FUNCTION _flohsync.connector_removed('flohsync.user_external_identity');

COMMENT ON TABLE flohsync.user_external_identity IS 'Upstream identities of users';
COMMENT ON COLUMN flohsync.user_external_identity.user_id IS 'User';
COMMENT ON COLUMN flohsync.user_external_identity.connector_id IS 'Connector';
COMMENT ON COLUMN flohsync.user_external_identity.external_id IS 'Id in the upstream';
COMMENT ON COLUMN flohsync.user_external_identity.external_email IS 'E-mail address in the upstream';
COMMENT ON COLUMN flohsync.user_external_identity.external_display_name IS 'Name in the upstream';
COMMENT ON COLUMN flohsync.user_external_identity.source IS 'connector_sync, workflow or manual';
COMMENT ON COLUMN flohsync.user_external_identity.attributes IS 'Attributes of the identity';
COMMENT ON COLUMN flohsync.user_external_identity.verified_at IS 'When the identity was last confirmed';
SELECT _flohsync.allow('reader', 'flohsync.user_external_identity');


-- One creation at a time for an address, whatever its case; few locks for any number of addresses.
CREATE FUNCTION _flohsync.lock_addresses(_emails text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.lock('address', b.bucket::text, false)
     FROM (SELECT DISTINCT hashtextextended(_flohsync.match_key(e.email), 0) & 15 AS bucket
             FROM unnest(_emails) e(email) WHERE _flohsync.match_key(e.email) IS NOT NULL ORDER BY 1) b;
END
$$;
COMMENT ON FUNCTION _flohsync.lock_addresses(text[]) IS
  'Prevents concurrent creation of users with some e-mail addresses until the end of the transaction';

CREATE FUNCTION flohsync._user_create(_emails text[], _display_names text[])
RETURNS TABLE ("position" integer, user_id uuid, problem text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  PERFORM _flohsync.lock_addresses(_emails);
  RETURN QUERY
  WITH wanted AS (
    SELECT w.position::int, btrim(w.email, E' \t\n\r\f\v') AS email, _flohsync.match_key(w.email) AS key,
           coalesce(nullif(btrim(w.name), ''), w.email) AS name,
           row_number() OVER (PARTITION BY _flohsync.match_key(w.email) ORDER BY w.position) AS nth
      FROM unnest(_emails, _display_names) WITH ORDINALITY AS w(email, name, position)
  ), taken AS (
    -- Whatever the issuer or the case, and soft-deleted or not: it would be the same person twice.
    SELECT DISTINCT ON (w.position) w.position,
           format('the e-mail address belongs to user %s%s%s', u.id,
                  CASE WHEN u.iss <> '-' THEN format(' of issuer %s', u.iss) ELSE '' END,
                  CASE WHEN u.deleted_at IS NOT NULL THEN ', who is deleted' ELSE '' END) AS problem
      FROM wanted w
      JOIN flohsync.floh_user u ON _flohsync.match_key(u.email) COLLATE "C" = w.key COLLATE "C"
     ORDER BY w.position, u.deleted_at NULLS FIRST, u.id
  ), made AS (
    INSERT INTO flohsync.floh_user AS u (iss, sub, email, display_name)
    SELECT '-', w.email, w.email, left(w.name, 255)
      FROM wanted w
     WHERE w.nth = 1 AND w.key IS NOT NULL AND length(w.email) <= 255
       AND NOT EXISTS (SELECT FROM taken t WHERE t.position = w.position)
    ON CONFLICT DO NOTHING
    RETURNING u.id, u.email
  )
  SELECT w.position, m.id,
         CASE WHEN m.id IS NOT NULL THEN NULL
              WHEN w.key IS NULL THEN 'there is no e-mail address'
              WHEN length(w.email) > 255 THEN 'the e-mail address has more than 255 characters'
              WHEN w.nth > 1 THEN 'another record has the same e-mail address'
              ELSE coalesce(t.problem, 'the e-mail address was taken meanwhile') END
    FROM wanted w
    LEFT JOIN taken t ON t.position = w.position
    -- A trigger of the table may have changed the case.
    LEFT JOIN made m ON _flohsync.match_key(m.email) = w.key AND w.nth = 1;
END
$$;
COMMENT ON FUNCTION flohsync._user_create(text[], text[]) IS
  'Seam: creates unconfirmed users; for each position the new user''s id, or why there is none';

CREATE FUNCTION flohsync._user_deactivate(_users uuid[], _run bigint) RETURNS SETOF uuid
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  WITH there AS MATERIALIZED (
    SELECT x.id FROM flohsync.floh_user x WHERE x.id = ANY (_users) AND x.deleted_at IS NULL
      ORDER BY x.id FOR NO KEY UPDATE)
  UPDATE flohsync.floh_user u
     SET deleted_at = pg_catalog.clock_timestamp(), active = false, deactivated_by_run = coalesce(_run, 0),
       updated_at = pg_catalog.now()
    FROM there t WHERE u.id = t.id
  RETURNING u.id;
END;
COMMENT ON FUNCTION flohsync._user_deactivate(uuid[], bigint) IS
  'Seam: soft-deletes users on behalf of a run (null: none) and returns those that were not';

CREATE FUNCTION flohsync._user_reactivate(_users uuid[]) RETURNS SETOF uuid
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  WITH gone AS MATERIALIZED (
    SELECT x.id FROM flohsync.floh_user x
     WHERE x.id = ANY (_users) AND x.deleted_at IS NOT NULL AND x.deactivated_by_run IS NOT NULL
       ORDER BY x.id FOR NO KEY UPDATE)
  UPDATE flohsync.floh_user u
     SET deleted_at = NULL, active = true, deactivated_by_run = NULL, updated_at = pg_catalog.now()
    FROM gone g WHERE u.id = g.id
  RETURNING u.id;
END;
COMMENT ON FUNCTION flohsync._user_reactivate(uuid[]) IS
  'Seam: restores those of the users that _user_deactivate soft-deleted, and returns them';

CREATE FUNCTION _flohsync.is_blank(_value jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN _value IS NULL OR _value = 'null' OR (pg_catalog.jsonb_typeof(_value) = 'string' AND (_value #>> '{}') !~ '\S');
COMMENT ON FUNCTION _flohsync.is_blank(jsonb) IS 'Whether a profile value counts as empty: null or a blank text';

CREATE FUNCTION _flohsync.profile_value(_p flohsync.user_profile, _field text) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE _field
  WHEN 'title' THEN pg_catalog.to_jsonb((_p).title) WHEN 'department' THEN pg_catalog.to_jsonb((_p).department)
  WHEN 'phoneNumber' THEN pg_catalog.to_jsonb((_p).phone_number) WHEN 'location' THEN pg_catalog.to_jsonb((_p).location)
  WHEN 'employeeId' THEN pg_catalog.to_jsonb((_p).employee_id) WHEN 'costCenter'
    THEN pg_catalog.to_jsonb((_p).cost_center)
  WHEN 'startDate' THEN pg_catalog.to_jsonb((_p).start_date) WHEN 'managerId' THEN pg_catalog.to_jsonb((_p).manager_id)
  ELSE (_p).custom_attributes -> _field END;
COMMENT ON FUNCTION _flohsync.profile_value(flohsync.user_profile, text) IS 'Value of a field of a profile';

-- The fields of a patch that are written over what a profile has now.
CREATE FUNCTION _flohsync.profile_changes(_p flohsync.user_profile, _patch jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN jsonb_object_agg(e.field, e.new)
    FROM (SELECT f.key AS field, f.value -> 'value' AS new, f.value ->> 'mode' AS mode,
          _flohsync.profile_value(_p, f.key) AS old
            FROM jsonb_each(_patch) f OFFSET 0) e
   WHERE CASE e.mode WHEN 'overwrite_always' THEN coalesce(e.old, 'null') <> e.new
                     WHEN 'overwrite_if_empty' THEN _flohsync.is_blank(e.old) AND NOT _flohsync.is_blank(e.new) END;
END
$$;
COMMENT ON FUNCTION _flohsync.profile_changes(flohsync.user_profile, jsonb) IS
  'Changes of a profile (null: none yet) by a patch of _profile_update, as field and value; null when nothing changes';

CREATE FUNCTION _flohsync.profile_cached(_sql text, _users uuid[], _patches jsonb[], _source text) RETURNS uuid[]
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'flohsync_execute_cached_plan';
COMMENT ON FUNCTION _flohsync.profile_cached(text, uuid[], jsonb[], text) IS
  'Runs a statement of _profile_update with a cached plan, for a few users';

CREATE FUNCTION _flohsync.profile_run(_sql text, _users uuid[], _patches jsonb[], _source text) RETURNS uuid[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  done uuid[];
BEGIN
  IF cardinality(_users) <= 10 THEN
    RETURN _flohsync.profile_cached(_sql, _users, _patches, _source);
  END IF;
  EXECUTE _sql INTO done USING _users, _patches, _source;
  RETURN done;
END
$$;
COMMENT ON FUNCTION _flohsync.profile_run(text, uuid[], jsonb[], text) IS
  'Runs a statement of _profile_update, which returns one array of users';

CREATE FUNCTION flohsync._profile_update(_users uuid[], _patches jsonb[], _source text) RETURNS SETOF uuid
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  done uuid[];
BEGIN
  -- New profiles; one that is inserted concurrently counts as existing.
  done := _flohsync.profile_run($sql$
    WITH made AS (
      INSERT INTO flohsync.user_profile AS p (user_id, title, department, phone_number, location,
                                              employee_id, cost_center,
                                              start_date, manager_id, custom_attributes, attribute_sources)
      SELECT c.user_id, c.new ->> 'title', c.new ->> 'department', c.new ->> 'phoneNumber', c.new ->> 'location',
        c.new ->> 'employeeId',
             c.new ->> 'costCenter', (c.new ->> 'startDate')::date, (c.new ->> 'managerId')::uuid,
             c.new - '{title,department,phoneNumber,location,employeeId,costCenter,startDate,managerId}'::text[],
             (SELECT jsonb_object_agg(k, $3) FROM jsonb_object_keys(c.new) k)
        FROM (SELECT u.user_id, _flohsync.profile_changes(NULL, u.patch) AS new
                FROM unnest($1, $2) AS u(user_id, patch)
                JOIN flohsync.floh_user x ON x.id = u.user_id
               WHERE NOT EXISTS (SELECT FROM flohsync.user_profile q WHERE q.user_id = u.user_id)
               ORDER BY u.user_id OFFSET 0) c  -- so that "new" is computed once
       WHERE c.new IS NOT NULL
      ON CONFLICT DO NOTHING
      RETURNING p.user_id
    )
    SELECT array_agg(m.user_id) FROM made m
    $sql$, _users, _patches, _source);
  RETURN QUERY SELECT unnest(done);
  SELECT array_agg(u.user_id), array_agg(u.patch) INTO _users, _patches
    FROM unnest(_users, _patches) AS u(user_id, patch) WHERE u.user_id <> ALL (coalesce(done, '{}'));
  IF _users IS NULL THEN
    RETURN;
  END IF;

  -- What is to be written is found from the row as it is once it is locked:
  -- concurrent changes count.
  done := _flohsync.profile_run($sql$
    SELECT array_agg(l.user_id)
      FROM (SELECT p.user_id FROM flohsync.user_profile p
             WHERE p.user_id IN (SELECT u.user_id FROM unnest($1, $2) AS u(user_id, patch)
                                   JOIN flohsync.user_profile q ON q.user_id = u.user_id
                                  WHERE _flohsync.profile_changes(q, u.patch) IS NOT NULL) AND $3 IS NOT NULL
             ORDER BY p.user_id FOR NO KEY UPDATE) l
    $sql$, _users, _patches, _source);
  IF done IS NULL THEN
    RETURN;
  END IF;
  RETURN QUERY SELECT unnest(_flohsync.profile_run($sql$
    WITH done AS (
      UPDATE flohsync.user_profile p
         SET title = CASE WHEN c.new ? 'title' THEN c.new ->> 'title' ELSE p.title END,
             department = CASE WHEN c.new ? 'department' THEN c.new ->> 'department' ELSE p.department END,
             phone_number = CASE WHEN c.new ? 'phoneNumber' THEN c.new ->> 'phoneNumber' ELSE p.phone_number END,
             location = CASE WHEN c.new ? 'location' THEN c.new ->> 'location' ELSE p.location END,
             employee_id = CASE WHEN c.new ? 'employeeId' THEN c.new ->> 'employeeId' ELSE p.employee_id END,
             cost_center = CASE WHEN c.new ? 'costCenter' THEN c.new ->> 'costCenter' ELSE p.cost_center END,
             start_date = CASE WHEN c.new ? 'startDate' THEN (c.new ->> 'startDate')::date ELSE p.start_date END,
             manager_id = CASE WHEN c.new ? 'managerId' THEN (c.new ->> 'managerId')::uuid ELSE p.manager_id END,
             custom_attributes = p.custom_attributes
               || (c.new - '{title,department,phoneNumber,location,employeeId,costCenter,startDate,managerId}'::text[]),
             attribute_sources = p.attribute_sources
               || (SELECT jsonb_object_agg(k, $3) FROM jsonb_object_keys(c.new) k), updated_at = now()
        FROM (SELECT q.user_id, _flohsync.profile_changes(q, u.patch) AS new
                FROM unnest($1, $2) AS u(user_id, patch)
                JOIN flohsync.user_profile q ON q.user_id = u.user_id
              OFFSET 0) c  -- so that "new" is computed once
       WHERE c.new IS NOT NULL AND p.user_id = c.user_id
      RETURNING p.user_id
    )
    SELECT array_agg(d.user_id) FROM done d
    $sql$, _users, _patches, _source));
END
$$;
COMMENT ON FUNCTION flohsync._profile_update(uuid[], jsonb[], text) IS
  'Seam: writes profile fields and their sources; a patch is {"field": {"value": …, "mode": "overwrite_always" or '
  '"overwrite_if_empty"}}; returns the users whose profile changed';

-- When a user deactivated by a sync is deactivated otherwise as well, no sync reactivates the user any more.
CREATE FUNCTION _flohsync.user_guard() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  NEW.deactivated_by_run := NULL;
  RETURN NEW;
END
$$;
COMMENT ON FUNCTION _flohsync.user_guard() IS
  'Clears deactivated_by_run of a user whose state is changed other than by a sync';
CREATE TRIGGER user_guard BEFORE UPDATE OF active, deleted_at ON flohsync.floh_user
FOR EACH ROW WHEN (NEW.deactivated_by_run IS NOT NULL
                   AND NEW.deactivated_by_run IS NOT DISTINCT FROM OLD.deactivated_by_run
                   AND (NEW.active, NEW.deleted_at) IS DISTINCT FROM (OLD.active, OLD.deleted_at))
EXECUTE FUNCTION _flohsync.user_guard();
-- Matches of records with users, and what has changed since they were matched.

CREATE TABLE flohsync.connector_sync_match (
  id                    uuid PRIMARY KEY DEFAULT _flohsync.new_id(),
  -- No foreign key of its own: the record has one.
  connector_id          uuid NOT NULL,
  resource_type         varchar(64) COLLATE "C" NOT NULL,
  connector_resource_id uuid NOT NULL REFERENCES flohsync.resource_record ON DELETE CASCADE,
  external_id           varchar(255) COLLATE "C" NOT NULL,
  external_display_name varchar(255),
  external_email        varchar(255),
  user_id               uuid,
  match_status          varchar(32) NOT NULL
                        CHECK (match_status IN ('matched', 'unmatched', 'ambiguous', 'manual_override', 'skipped',
                                                'create_pending')),
  match_confidence      varchar(32) NOT NULL CHECK (match_confidence IN ('exact', 'probable', 'ambiguous', 'none')),
  match_strategy        varchar(32),
  candidate_user_ids    jsonb,
  resolution_notes      text,
  resolved_by           uuid,
  resolved_at           timestamptz,
  created_at            timestamptz NOT NULL DEFAULT pg_catalog.now(),
  updated_at            timestamptz NOT NULL DEFAULT pg_catalog.now(),
  -- The record first: it serves the foreign key as well.
  CONSTRAINT connector_sync_match_key UNIQUE (connector_resource_id, connector_id, resource_type)
);
CREATE INDEX connector_sync_match_user ON flohsync.connector_sync_match (user_id) WHERE user_id IS NOT NULL;
-- The status is looked at before the row is.
CREATE INDEX connector_sync_match_list
  ON flohsync.connector_sync_match (connector_id, resource_type, external_id, match_status);
CREATE INDEX connector_sync_match_review
  ON flohsync.connector_sync_match (connector_id, resource_type, match_status, external_id)
 WHERE match_status <> 'matched';
CREATE INDEX connector_sync_match_email
  ON flohsync.connector_sync_match (_flohsync.match_key(external_email) COLLATE "C");
CREATE INDEX connector_sync_match_former ON flohsync.connector_sync_match (connector_id, resource_type)
 WHERE match_status IN ('unmatched', 'create_pending') AND candidate_user_ids IS NOT NULL;
COMMENT ON TABLE flohsync.connector_sync_match IS 'Users that records are matched to, and how';
COMMENT ON COLUMN flohsync.connector_sync_match.id IS 'Identity of the match';
COMMENT ON COLUMN flohsync.connector_sync_match.connector_id IS 'Connector';
COMMENT ON COLUMN flohsync.connector_sync_match.resource_type IS 'Resource type';
COMMENT ON COLUMN flohsync.connector_sync_match.connector_resource_id IS 'Record; its deletion deletes the match';
COMMENT ON COLUMN flohsync.connector_sync_match.external_id IS 'Id of the record in the upstream';
COMMENT ON COLUMN flohsync.connector_sync_match.external_display_name IS 'Name of the record';
COMMENT ON COLUMN flohsync.connector_sync_match.external_email IS 'E-mail address of the record';
COMMENT ON COLUMN flohsync.connector_sync_match.user_id IS 'User, when there is one';
COMMENT ON COLUMN flohsync.connector_sync_match.match_status IS
  'matched, unmatched, ambiguous, manual_override, skipped or create_pending';
COMMENT ON COLUMN flohsync.connector_sync_match.match_confidence IS 'exact, probable, ambiguous or none';
COMMENT ON COLUMN flohsync.connector_sync_match.match_strategy IS
  'Strategy that led to the outcome; null for a user made from the record';
COMMENT ON COLUMN flohsync.connector_sync_match.candidate_user_ids IS
  'Candidates of an ambiguous match; of an unmatched one, the user it was linked to before';
COMMENT ON COLUMN flohsync.connector_sync_match.resolution_notes IS 'Notes of the operator';
COMMENT ON COLUMN flohsync.connector_sync_match.resolved_by IS 'User who resolved the match';
COMMENT ON COLUMN flohsync.connector_sync_match.resolved_at IS 'When it was resolved';
COMMENT ON COLUMN flohsync.connector_sync_match.created_at IS 'When the row was created';
COMMENT ON COLUMN flohsync.connector_sync_match.updated_at IS 'When the row was last changed';
SELECT _flohsync.allow('reader', 'flohsync.connector_sync_match');

CREATE TABLE _flohsync.match_progress (
  config_id  uuid PRIMARY KEY REFERENCES flohsync.connector_sync_config ON DELETE CASCADE,
  rules      text NOT NULL,
  users_seen xid8 NOT NULL,
  own_xid    xid8
);
COMMENT ON TABLE _flohsync.match_progress IS
  'Changes up to which matching has been done; no row: everything has to be matched';
COMMENT ON COLUMN _flohsync.match_progress.config_id IS 'Configuration';
COMMENT ON COLUMN _flohsync.match_progress.rules IS
  'Fingerprint of the settings used; when they change everything has to be matched';
COMMENT ON COLUMN _flohsync.match_progress.users_seen IS 'Changes of users by earlier transactions have been processed';
COMMENT ON COLUMN _flohsync.match_progress.own_xid IS
  'So have those of this transaction, in which matching itself changed users';

CREATE TABLE _flohsync.record_change (
  seq           bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  resource_id   uuid NOT NULL,
  connector_id  uuid NOT NULL REFERENCES flohsync.connector_definition ON DELETE CASCADE,
  resource_type varchar(64) COLLATE "C" NOT NULL,
  change        text NOT NULL CHECK (change IN ('added', 'updated', 'restored', 'staled', 'recheck'))
);
CREATE INDEX record_change_scope ON _flohsync.record_change (connector_id, resource_type);
CREATE INDEX record_change_record ON _flohsync.record_change (resource_id);
COMMENT ON TABLE _flohsync.record_change IS
  'Records to be processed by the next post-sync, in addition to those of its run''s pages; may contain a record more '
  'than once, since rows are only inserted';
COMMENT ON COLUMN _flohsync.record_change.resource_id IS 'Record';
COMMENT ON COLUMN _flohsync.record_change.connector_id IS 'Its connector';
COMMENT ON COLUMN _flohsync.record_change.resource_type IS 'Its resource type';
COMMENT ON COLUMN _flohsync.record_change.change IS
  'added, updated, restored, staled, or recheck: to be looked at once more';
COMMENT ON COLUMN _flohsync.record_change.seq IS
  'Increases with each change, so that only rows that were read are removed';

CREATE TABLE _flohsync.departure (
  seq          bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  resource_id  uuid NOT NULL,
  connector_id uuid NOT NULL,
  settled_at   timestamptz
);
CREATE INDEX departure_record ON _flohsync.departure (resource_id, seq);
CREATE TRIGGER departures_removed AFTER DELETE ON flohsync.connector_definition
FOR EACH ROW EXECUTE FUNCTION _flohsync.connector_removed('_flohsync.departure');
COMMENT ON TABLE _flohsync.departure IS
  'Whether the deactivation of a user because of a stale record has been decided; the last row of a record counts';
COMMENT ON COLUMN _flohsync.departure.seq IS 'Order of the rows';
COMMENT ON COLUMN _flohsync.departure.resource_id IS 'Stale record';
COMMENT ON COLUMN _flohsync.departure.connector_id IS 'Its connector';
COMMENT ON COLUMN _flohsync.departure.settled_at IS
  'When it was decided; valid for the current absence only (later than stale_since); null: undecided again';

CREATE TABLE _flohsync.user_change (
  xid         xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
  user_id     uuid NOT NULL,
  email_key   text COLLATE "C",
  sub         text COLLATE "C",
  upstream_id text COLLATE "C"
);
CREATE INDEX user_change_xid ON _flohsync.user_change (xid);
-- For publications of all tables: rows are many and short-lived, a key of their own would cost more.
ALTER TABLE _flohsync.user_change REPLICA IDENTITY FULL;
COMMENT ON TABLE _flohsync.user_change IS 'Match keys, old and new, of changed users';
COMMENT ON COLUMN _flohsync.user_change.xid IS 'Transaction that changed the user';
COMMENT ON COLUMN _flohsync.user_change.user_id IS 'User';
COMMENT ON COLUMN _flohsync.user_change.email_key IS 'E-mail address in the form that is compared';
COMMENT ON COLUMN _flohsync.user_change.sub IS 'Subject of the login';
COMMENT ON COLUMN _flohsync.user_change.upstream_id IS 'Id at the upstream issuer';

-- These two are made from config_keys().
DO $do$
BEGIN
  EXECUTE (SELECT format($create$
    CREATE FUNCTION _flohsync.config_concerns_users(_c flohsync.connector_sync_config) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    RETURN (_c).resource_type = 'user' OR %s$create$,
    string_agg(format(CASE k.initial WHEN 'null' THEN '(_c).%I IS NOT NULL' ELSE '(_c).%I <> %L' END,
                      k.attribute, k.initial #>> '{}'), ' OR '))
    FROM _flohsync.config_keys() k WHERE k.matching);
  EXECUTE (SELECT format($create$
    CREATE FUNCTION _flohsync.people_rules(_c flohsync.connector_sync_config) RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    RETURN _flohsync.digest(jsonb_build_array(%s)::text)$create$,
    string_agg(format('(_c).%I', k.attribute), ', '))
    FROM _flohsync.config_keys() k WHERE k.matching);
END
$do$;
COMMENT ON FUNCTION _flohsync.config_concerns_users(flohsync.connector_sync_config) IS
  'Whether a configuration concerns users: type user, or any that maps attributes, matches other than by '
  'email, creates or deactivates';

CREATE FUNCTION _flohsync.matches_users(_c flohsync.connector_sync_config) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _flohsync.config_concerns_users(_c) THEN
    RETURN true;
  END IF;
  -- In the order of an index, and no EXISTS: that there is none is what a scan of the table finds out last.
  -- A webhook asks the same in its own statement (webhook_scope).
  PERFORM FROM flohsync.connector_sync_match m
    WHERE m.connector_id = _c.connector_id AND m.resource_type = _c.resource_type
    ORDER BY m.external_id LIMIT 1;
  RETURN FOUND;
END
$$;
COMMENT ON FUNCTION _flohsync.matches_users(flohsync.connector_sync_config) IS
  'Whether records of a configuration are matched to users: it concerns users, or has matches';

COMMENT ON FUNCTION _flohsync.people_rules(flohsync.connector_sync_config) IS
  'Fingerprint of the settings of a configuration whose change requires everything to be matched again';

CREATE FUNCTION _flohsync.triggers_per_record(_c flohsync.connector_sync_config) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN (_c).sync_trigger_mode = 'per_record' AND (_c).post_sync_workflow_id IS NOT NULL;
COMMENT ON FUNCTION _flohsync.triggers_per_record(flohsync.connector_sync_config) IS
  'Whether a workflow is triggered per changed record';

-- Changes of users.

CREATE FUNCTION _flohsync.user_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_nestloop = off  -- the plan is kept, and may have been made for one user
SET jit = off              -- which such a plan would be worth
AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM flohsync.connector_sync_config c WHERE _flohsync.matches_users(c)) THEN
    RETURN NULL;
  END IF;
  CASE TG_OP
    WHEN 'INSERT' THEN
      INSERT INTO _flohsync.user_change (user_id, email_key, sub, upstream_id)
      SELECT n.id, _flohsync.match_key(n.email), n.sub, n.upstream_id FROM new_users n WHERE n.deleted_at IS NULL;
    WHEN 'UPDATE' THEN
      INSERT INTO _flohsync.user_change (user_id, email_key, sub, upstream_id)
      SELECT u.id, _flohsync.match_key(u.email), u.sub, u.upstream_id
        FROM new_users n
        JOIN old_users o ON o.id = n.id
       CROSS JOIN LATERAL (VALUES (o.id, o.email, o.sub, o.upstream_id), (n.id, n.email, n.sub, n.upstream_id))
         u(id, email, sub, upstream_id)
       WHERE (n.email, n.sub, n.upstream_id, n.upstream_issuer, n.deleted_at IS NULL)
             IS DISTINCT FROM (o.email, o.sub, o.upstream_id, o.upstream_issuer, o.deleted_at IS NULL);
    WHEN 'DELETE' THEN
      INSERT INTO _flohsync.user_change (user_id, email_key, sub, upstream_id)
      SELECT o.id, _flohsync.match_key(o.email), o.sub, o.upstream_id FROM old_users o;
  END CASE;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION _flohsync.user_changed() IS 'Records users that were added or removed, or whose match keys changed';
CREATE TRIGGER user_added AFTER INSERT ON flohsync.floh_user REFERENCING NEW TABLE AS new_users
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.user_changed();
CREATE TRIGGER user_changed AFTER UPDATE ON flohsync.floh_user REFERENCING OLD TABLE AS old_users NEW TABLE AS new_users
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.user_changed();
CREATE TRIGGER user_removed AFTER DELETE ON flohsync.floh_user REFERENCING OLD TABLE AS old_users
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.user_changed();

-- As ON DELETE SET NULL would, but for an application's users there is no foreign key.
CREATE FUNCTION _flohsync.user_removed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  UPDATE flohsync.connector_sync_match m
     SET user_id = NULL, match_status = 'unmatched', match_confidence = 'none', match_strategy = NULL,
       candidate_user_ids = NULL,
         resolution_notes = NULL, resolved_by = NULL, resolved_at = NULL, updated_at = now()
    FROM old_users o WHERE m.user_id = o.id;
  UPDATE flohsync.connector_sync_match m SET resolved_by = NULL
    FROM old_users o WHERE m.resolved_by = o.id;
  DELETE FROM flohsync.user_external_identity i USING old_users o WHERE i.user_id = o.id;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION _flohsync.user_removed() IS 'Unlinks the records of users whose rows are deleted';
CREATE TRIGGER user_unlinked AFTER DELETE ON flohsync.floh_user REFERENCING OLD TABLE AS old_users
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.user_removed();

CREATE FUNCTION _flohsync.users_are_watched() RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN EXISTS (SELECT FROM pg_rewrite r
                   JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                  WHERE r.ev_class = 'flohsync.v_user'::regclass AND d.refobjid = 'flohsync.floh_user'::regclass);
END
$$;
COMMENT ON FUNCTION _flohsync.users_are_watched() IS
  'Whether v_user shows floh_user, whose changes are recorded by triggers; users of an application are always '
  'matched again';

-- A post-sync under way may not have said yet which changes it has dealt with:
-- none are removed meanwhile.
CREATE FUNCTION _flohsync.read_user_changes() RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT _flohsync.lock('user changes', '', true);
END;
COMMENT ON FUNCTION _flohsync.read_user_changes() IS
  'Prevents forget_user_changes() from removing anything until the end of the transaction';

CREATE FUNCTION _flohsync.forget_user_changes() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT _flohsync.try_lock('user changes', '', false) THEN
    RETURN;
  END IF;
  -- A configuration that never processes them must not keep them all: it will process everything then.
  DELETE FROM _flohsync.match_progress p
   WHERE EXISTS (SELECT FROM _flohsync.user_change u WHERE u.xid >= p.users_seen OFFSET 200000);
  DELETE FROM _flohsync.user_change u
   WHERE u.xid < (SELECT min(p.users_seen) FROM _flohsync.match_progress p);
END
$$;
COMMENT ON FUNCTION _flohsync.forget_user_changes() IS
  'Removes the changes of users that every configuration has processed';

-- Changes of records.

CREATE FUNCTION _flohsync.note_changes(_connector uuid, _type text, _ids uuid[], _change text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  older bigint[];
BEGIN
  IF _ids IS NULL OR NOT EXISTS (SELECT FROM flohsync.connector_sync_config c
                                  WHERE c.connector_id = _connector AND c.resource_type = _type
                                    AND (_flohsync.triggers_per_record(c) OR _flohsync.matches_users(c))) THEN
    RETURN;
  END IF;
  WITH noted AS (
    INSERT INTO _flohsync.record_change AS x (resource_id, connector_id, resource_type, change)
    SELECT u.id, _connector, _type, _change FROM unnest(_ids) u(id) ORDER BY u.id
    RETURNING x.seq, x.resource_id)
  SELECT array_agg(q.seq) INTO older
    FROM _flohsync.record_change q JOIN noted n ON n.resource_id = q.resource_id WHERE q.change = _change;
  PERFORM _flohsync.forget_changes(older);
END
$$;
COMMENT ON FUNCTION _flohsync.note_changes(uuid, text, uuid[], text) IS
  'Queues some records for the next post-sync of a configuration';

-- Rows that another transaction is removing, or has outdated, are left to it.
CREATE FUNCTION _flohsync.forget_changes(_seqs bigint[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _seqs IS NOT NULL AND _seqs <> '{}' THEN
    DELETE FROM _flohsync.record_change q
     WHERE q.seq = ANY (ARRAY(SELECT x.seq FROM _flohsync.record_change x WHERE x.seq = ANY (_seqs)
                              FOR UPDATE SKIP LOCKED));
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.forget_changes(bigint[]) IS 'Removes rows of record_change, except locked ones';

CREATE FUNCTION _flohsync.note_departures(_ids uuid[], _settled_at timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  older bigint[];
BEGIN
  IF _ids IS NULL OR _ids = '{}' THEN
    RETURN;
  END IF;
  WITH noted AS (
    INSERT INTO _flohsync.departure AS d (resource_id, connector_id, settled_at)
    SELECT x.id, x.connector_id, _settled_at FROM flohsync.resource_record x WHERE x.id = ANY (_ids)
    RETURNING d.resource_id)
  SELECT array_agg(d.seq) INTO older FROM _flohsync.departure d JOIN noted n ON n.resource_id = d.resource_id;
  IF older IS NOT NULL THEN
    DELETE FROM _flohsync.departure d
     WHERE d.seq = ANY (ARRAY(SELECT x.seq FROM _flohsync.departure x WHERE x.seq = ANY (older)
                              FOR UPDATE SKIP LOCKED));
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.note_departures(uuid[], timestamptz) IS
  'Records when the deactivation because of stale records was decided, or (null) that it is undecided again';

CREATE FUNCTION _flohsync.forget_departures(_ids uuid[]) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  DELETE FROM _flohsync.departure d
   WHERE d.seq = ANY (ARRAY(SELECT x.seq FROM _flohsync.departure x WHERE x.resource_id = ANY (_ids)
                            FOR UPDATE SKIP LOCKED));
END;
COMMENT ON FUNCTION _flohsync.forget_departures(uuid[]) IS
  'Removes the decisions about records that were restored or removed';

CREATE FUNCTION _flohsync.departure_open(_record uuid, _stale_since timestamptz) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN coalesce((SELECT d.settled_at < _stale_since FROM _flohsync.departure d
                  WHERE d.resource_id = _record ORDER BY d.seq DESC LIMIT 1), true);
COMMENT ON FUNCTION _flohsync.departure_open(uuid, timestamptz) IS
  'Whether the deactivation because of a stale record is still undecided';

-- A user who loses a record may have nothing but stale ones left.
CREATE FUNCTION _flohsync.requeue_stale(_users uuid[], _but uuid DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  others uuid[];
BEGIN
  IF _users IS NULL OR NOT EXISTS (SELECT FROM flohsync.connector_sync_config c WHERE c.deactivate_users) THEN
    RETURN;
  END IF;
  SELECT array_agg(x.id ORDER BY x.id) INTO others
    FROM (SELECT DISTINCT m.connector_resource_id AS id
            FROM flohsync.connector_sync_match m
            JOIN flohsync.connector_sync_config c ON c.connector_id = m.connector_id
                AND c.resource_type = m.resource_type
           WHERE m.user_id = ANY (_users) AND m.match_status IN ('matched', 'manual_override')
             AND c.deactivate_users AND c.id IS DISTINCT FROM _but) o
    JOIN flohsync.resource_record x ON x.id = o.id
   WHERE x.stale_since IS NOT NULL;
  IF others IS NULL THEN
    RETURN;
  END IF;
  PERFORM _flohsync.note_departures(ARRAY(
    SELECT x.id FROM flohsync.resource_record x WHERE x.id = ANY (others)
        AND NOT _flohsync.departure_open(x.id, x.stale_since)), NULL);
  PERFORM _flohsync.note_changes(o.connector_id, o.resource_type, array_agg(o.id), 'recheck')
     FROM flohsync.resource_record o WHERE o.id = ANY (others)
    GROUP BY o.connector_id, o.resource_type;
END
$$;
COMMENT ON FUNCTION _flohsync.requeue_stale(uuid[], uuid) IS
  'Queues the stale records of some users for all configurations that deactivate users, except one';

CREATE FUNCTION _flohsync.keep_page_changes(_run bigint) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT _flohsync.note_changes(r.connector_id, r.resource_type, c.ids, c.change)
    FROM flohsync.sync_run r
   CROSS JOIN LATERAL (SELECT e.change, pg_catalog.array_agg(DISTINCT e.resource_id) AS ids
                         FROM flohsync.sync_run_page p CROSS JOIN LATERAL _flohsync.page_changes(p) e
                        WHERE p.run_id = r.id AND p.changed IS NOT NULL GROUP BY e.change ORDER BY e.change DESC) c
   WHERE r.id = _run;
END;
COMMENT ON FUNCTION _flohsync.keep_page_changes(bigint) IS
  'Moves the changes of the pages of a run to record_change before the pages are removed';

-- The matching itself.
-- Which user a record belongs to.
--
-- Matching is one statement for any number of records (_match).  What it works
-- on is either everything, or what has changed since it was last done:
--   sync_run_page.changed   records that a page of a pass added, changed or brought back
--   record_change           records changed otherwise: individually, staled, or to be rechecked
--   user_change             users that were added, changed or removed
-- match_progress says up to where that has been dealt with, and under which
-- settings.  No row there, or one of other settings, means that nothing has: then
-- everything is.  Deleting the row is therefore always right.

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

-- Records come as "rec", with their keys; where a user has the key of a strategy, that is a hit.
CREATE FUNCTION _flohsync.records_sql(_c flohsync.connector_sync_config, _all boolean) RETURNS text
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
    _flohsync.source_sql(coalesce(_c.issuer_source_path, 'attributes.identityIssuer')),
      _flohsync.records_of_sql(NOT _all));
END
$$;
COMMENT ON FUNCTION _flohsync.records_sql(flohsync.connector_sync_config, boolean) IS
  'SQL for the records of connector $1 and type $2, all or those with an id of $3, with their match keys';

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

-- The statement of _match for a few records: its plan is cached.
CREATE FUNCTION _flohsync.match_cached(_sql text, _connector uuid, _type text, _ids uuid[], _back uuid[],
                                       _back_users uuid[],
  _strategies text[], _create_users boolean, OUT n bigint, OUT left_alone uuid[])
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'flohsync_execute_cached_plan';
COMMENT ON FUNCTION _flohsync.match_cached(text, uuid, text, uuid[], uuid[], uuid[], text[], boolean) IS
  'Runs the statement of match() with a cached plan, for a few records, with users in floh_user';

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

-- _match recomputes the matches of some records (null: all).  An outcome that
-- stays is not written.  What an operator decided stays, and so does
-- - the link of a user made from the record, who may have nothing else in
--   common with it, as long as the user is there;
-- - that of a stale record whose user is deleted: it is the reason of that;
-- - that of a record that came back with its user (_back, _back_users), unless
--   a strategy finds a user.
CREATE FUNCTION _flohsync.match(_c flohsync.connector_sync_config, _ids uuid[], _back uuid[] DEFAULT '{}',
                                _back_users uuid[] DEFAULT '{}')
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET jit = off
SET work_mem = '64MB'
SET enable_nestloop = on
AS $$
DECLARE
  strategies text[] := _flohsync.strategies(_c);
  statement text;
  n bigint;
  left_alone uuid[];
BEGIN
  statement := format($sql$
  WITH rec AS (%1$s),
  tally AS (SELECT h.id, h.step, count(*) AS hits, array_agg(h.user_id) AS users FROM (%2$s) h GROUP BY h.id, h.step),
  best AS (%3$s),
  known AS (
    SELECT r.id, r.external_id, r.display_name, r.email, r.email_key, r.stale, b.step, b.hits, b.users,
           m.id AS match_id, m.match_status AS status, m.match_confidence AS confidence, m.match_strategy AS strategy,
           m.user_id, m.candidate_user_ids AS candidates, k.user_id AS back_user,
           CASE WHEN m.match_status IN ('manual_override', 'skipped') THEN true
                WHEN m.match_status = 'matched' AND (m.match_strategy IS NULL OR r.stale)
                  THEN CASE WHEN EXISTS (SELECT FROM _flohsync.app_user u WHERE u.id = m.user_id)
                    THEN m.match_strategy IS NULL ELSE r.stale END
                ELSE false END AS stays
      FROM rec r
      LEFT JOIN best b ON b.id = r.id
      LEFT JOIN flohsync.connector_sync_match m ON m.connector_resource_id = r.id
      LEFT JOIN unnest($4, $5) AS k(id, user_id) ON k.id = r.id
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
      FROM outcome o WHERE o.match_id IS NULL
    ON CONFLICT (connector_resource_id, connector_id, resource_type) DO NOTHING
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
  $sql$, _flohsync.records_sql(_c, _ids IS NULL), _flohsync.hits_sql(strategies),
         CASE WHEN cardinality(strategies) = 1 THEN 'SELECT * FROM tally'
              ELSE 'SELECT DISTINCT ON (t.id) t.* FROM tally t ORDER BY t.id, t.step' END);
  IF _flohsync.use_cached_plan(_ids) THEN
    SELECT m.n, m.left_alone INTO n, left_alone
      FROM _flohsync.match_cached(statement, _c.connector_id, _c.resource_type, _ids, _back, _back_users, strategies,
                                  _c.create_users) m;
  ELSE
    -- What was just loaded has no statistics yet: all must not be taken for a few.
    PERFORM set_config('enable_nestloop', (_ids IS NOT NULL)::text, true);
    EXECUTE statement INTO n, left_alone USING _c.connector_id, _c.resource_type::text, _ids, _back, _back_users,
      strategies, _c.create_users;
  END IF;
  IF left_alone IS NOT NULL THEN
    PERFORM _flohsync.requeue_stale(left_alone);
  END IF;
  RETURN n;
END
$$;
COMMENT ON FUNCTION _flohsync.match(flohsync.connector_sync_config, uuid[], uuid[], uuid[]) IS
  'Recomputes the matches of some records (null: all) in one statement; returns how many were made or changed';

CREATE FUNCTION _flohsync.lock_matching(_c flohsync.connector_sync_config) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT _flohsync.lock('matching', (_c).id::text, false);
END;
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
-- Maintained counts of records and matches.
--
-- Counting a million rows takes a third of a second.  So each statement that
-- changes their number leaves a row that says by how many (src/entry/tally.c),
-- and now and then several such rows are folded into one.  A figure is the sum
-- of the rows that one sees: exact in every snapshot, right after a rollback, a
-- crash and a restore, and no transaction waits for another one because of it.
--
-- Rows that are written with triggers off are not counted: tally_recount().

CREATE TABLE _flohsync.tally (
  connector_id  uuid NOT NULL,
  resource_type varchar(64) COLLATE "C" NOT NULL,
  id            bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
  state         text COLLATE "C" NOT NULL,
  confidence    text COLLATE "C",
  n             bigint NOT NULL,
  PRIMARY KEY (connector_id, resource_type, id)
);
COMMENT ON TABLE _flohsync.tally IS 'Numbers of records and matches, as sums of n';
COMMENT ON COLUMN _flohsync.tally.connector_id IS 'Connector';
COMMENT ON COLUMN _flohsync.tally.resource_type IS 'Resource type';
COMMENT ON COLUMN _flohsync.tally.id IS 'Identity of the row';
COMMENT ON COLUMN _flohsync.tally.state IS 'live or stale: records; else matches, of this match_status';
COMMENT ON COLUMN _flohsync.tally.confidence IS 'match_confidence of the matches';
COMMENT ON COLUMN _flohsync.tally.n IS 'Change of the number; may be negative';
CREATE TRIGGER tally_removed AFTER DELETE ON flohsync.connector_definition
FOR EACH ROW EXECUTE FUNCTION _flohsync.connector_removed('_flohsync.tally');

CREATE FUNCTION _flohsync.tally_row() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'flohsync_tally_row';
COMMENT ON FUNCTION _flohsync.tally_row() IS 'Counts a row that is inserted, deleted, or changes its state';
CREATE FUNCTION _flohsync.tally_statement() RETURNS trigger
LANGUAGE c SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_tally_statement';
COMMENT ON FUNCTION _flohsync.tally_statement() IS 'Stores the counts of a statement';

-- Rows that another transaction is folding are left to it.
CREATE FUNCTION _flohsync.tally_fold(_connector uuid, _type text) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  WITH old AS (
    DELETE FROM _flohsync.tally t
     WHERE t.connector_id = _connector AND t.resource_type = _type
       AND t.id IN (SELECT x.id FROM _flohsync.tally x WHERE x.connector_id = _connector AND x.resource_type = _type
                    FOR UPDATE SKIP LOCKED)
    RETURNING t.state, t.confidence, t.n
  )
  INSERT INTO _flohsync.tally (connector_id, resource_type, state, confidence, n)
  SELECT _connector, _type, o.state, o.confidence, pg_catalog.sum(o.n) FROM old o
   GROUP BY o.state, o.confidence HAVING pg_catalog.sum(o.n) <> 0;
END;
COMMENT ON FUNCTION _flohsync.tally_fold(uuid, text) IS 'Merges the rows with the same state of a resource type';

CREATE FUNCTION _flohsync.tally_truncated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  DELETE FROM _flohsync.tally t WHERE (t.state IN ('live', 'stale')) = (TG_ARGV[0] = 'record');
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION _flohsync.tally_truncated() IS 'Resets the counts of a truncated table';

CREATE FUNCTION _flohsync.tally_recount() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  LOCK TABLE flohsync.resource_record, flohsync.connector_sync_match IN SHARE MODE;
  DELETE FROM _flohsync.tally;
  INSERT INTO _flohsync.tally (connector_id, resource_type, state, n)
  SELECT r.connector_id, r.resource_type, CASE WHEN r.stale_since IS NULL THEN 'live' ELSE 'stale' END, count(*)
    FROM flohsync.resource_record r GROUP BY 1, 2, 3;
  INSERT INTO _flohsync.tally (connector_id, resource_type, state, confidence, n)
  SELECT m.connector_id, m.resource_type, m.match_status, m.match_confidence, count(*)
    FROM flohsync.connector_sync_match m GROUP BY 1, 2, 3, 4;
END
$$;
COMMENT ON FUNCTION _flohsync.tally_recount() IS
  'Recounts records and matches; for superusers, after rows were written with triggers disabled';

CREATE TRIGGER tally_row AFTER INSERT OR DELETE ON flohsync.resource_record
FOR EACH ROW EXECUTE FUNCTION _flohsync.tally_row('record');
CREATE TRIGGER tally_state AFTER UPDATE ON flohsync.resource_record
FOR EACH ROW WHEN ((OLD.stale_since IS NULL, OLD.connector_id, OLD.resource_type)
                   IS DISTINCT FROM (NEW.stale_since IS NULL, NEW.connector_id, NEW.resource_type))
EXECUTE FUNCTION _flohsync.tally_row('record');
CREATE TRIGGER tally_statement AFTER INSERT OR UPDATE OR DELETE ON flohsync.resource_record
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.tally_statement();
CREATE TRIGGER tally_truncated AFTER TRUNCATE ON flohsync.resource_record
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.tally_truncated('record');

CREATE TRIGGER tally_row AFTER INSERT OR DELETE ON flohsync.connector_sync_match
FOR EACH ROW EXECUTE FUNCTION _flohsync.tally_row('match');
CREATE TRIGGER tally_state AFTER UPDATE ON flohsync.connector_sync_match
FOR EACH ROW WHEN ((OLD.match_status, OLD.match_confidence, OLD.connector_id, OLD.resource_type)
                   IS DISTINCT FROM (NEW.match_status, NEW.match_confidence, NEW.connector_id, NEW.resource_type))
EXECUTE FUNCTION _flohsync.tally_row('match');
CREATE TRIGGER tally_statement AFTER INSERT OR UPDATE OR DELETE ON flohsync.connector_sync_match
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.tally_statement();
CREATE TRIGGER tally_truncated AFTER TRUNCATE ON flohsync.connector_sync_match
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.tally_truncated('match');
-- Records for which a stage of post-sync could not be done, and calls of what is
-- behind the seam that leave such ones out.

CREATE TABLE _flohsync.setback (
  config_id   uuid NOT NULL REFERENCES flohsync.connector_sync_config ON DELETE CASCADE,
  stage       text NOT NULL CHECK (stage IN ('reactivate', 'create', 'deactivate', 'map', 'workflow')),
  resource_id uuid NOT NULL,
  change      text,
  tried_at    timestamptz NOT NULL,
  PRIMARY KEY (config_id, stage, resource_id)
);
COMMENT ON TABLE _flohsync.setback IS
  'Rows for which a stage of post-sync failed, to be retried; written under the exclusive lock of the matching';
COMMENT ON COLUMN _flohsync.setback.config_id IS 'Configuration';
COMMENT ON COLUMN _flohsync.setback.stage IS 'Stage that failed: reactivate, create, deactivate, map or workflow';
COMMENT ON COLUMN _flohsync.setback.resource_id IS 'Record, or one of the records of the user';
COMMENT ON COLUMN _flohsync.setback.change IS 'Change for which the workflow was not triggered';
COMMENT ON COLUMN _flohsync.setback.tried_at IS 'When it was last tried';

CREATE FUNCTION _flohsync.known_setbacks(_c flohsync.connector_sync_config, _stage text) RETURNS uuid[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN ARRAY(SELECT m.user_id FROM _flohsync.setback s JOIN flohsync.connector_sync_match m
             ON m.connector_resource_id = s.resource_id
              WHERE s.config_id = (_c).id AND s.stage = _stage AND m.user_id IS NOT NULL
              GROUP BY m.user_id ORDER BY pg_catalog.min(s.tried_at), m.user_id);
COMMENT ON FUNCTION _flohsync.known_setbacks(flohsync.connector_sync_config, text) IS
  'Users that a stage has failed for before, least recently tried first';

-- One call for some rows: the seam's, or that of the queue of workflow jobs.
CREATE FUNCTION _flohsync.call_seam(_stage text, _c flohsync.connector_sync_config, _run bigint,
  _users uuid[], _emails text[], _names text[], _values jsonb[],
  OUT positions int[], OUT users uuid[], OUT problems text[], OUT jobs bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  jobs := 0;
  CASE _stage
    WHEN 'create' THEN
      SELECT array_agg(n."position"), array_agg(n.user_id), array_agg(n.problem) INTO positions, users, problems
        FROM flohsync._user_create(_emails, _names) n;
      -- A user without the initial values is not created.
      PERFORM _flohsync.apply_defaults(_c, array_agg(u.id)) FROM unnest(users) u(id) WHERE u.id IS NOT NULL;
    WHEN 'reactivate' THEN
      users := ARRAY(SELECT * FROM flohsync._user_reactivate(_users));
    WHEN 'deactivate' THEN
      users := ARRAY(SELECT * FROM flohsync._user_deactivate(_users, _run));
    WHEN 'map' THEN
      users := ARRAY(SELECT * FROM flohsync._profile_update(_users, _values, 'connector'));
    WHEN 'workflow' THEN
      jobs := _flohsync.queue_record_jobs(_c, _run, _values);
  END CASE;
END
$$;
COMMENT ON FUNCTION _flohsync.call_seam(text, flohsync.connector_sync_config, bigint, uuid[], text[],
                                        text[], jsonb[]) IS
  'Runs a stage for some rows: returns the user created for each position or why none was, the users '
  'processed, or the number of jobs';

-- k rows of n that fail cost about 2 k log2 (n / k) calls.  A failure that is
-- not about rows is told by this: nothing has succeeded, and all rows that were
-- alone failed with one SQLSTATE: all that there are, or, of many, the first few and
-- those in the middle of all that is left.  Then it is raised, and all is as
-- before the call.
CREATE FUNCTION _flohsync.in_halves(_stage text, _c flohsync.connector_sync_config, _run bigint,
  _n int, _known int, _users uuid[], _emails text[], _names text[], _values jsonb[],
  OUT positions int[], OUT users uuid[], OUT problems text[], OUT jobs bigint,
  OUT failed int[], OUT states text[], OUT messages text[], OUT untried int[], OUT passed_over int[])
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  again constant int := 100;      -- number of rows known to have failed that are retried in a run
  few constant int := 5;          -- so many single rows that fail make one suspicious,
  many constant int := 20;        -- where there are more than these
  too_many constant int := 1000;  -- so many that fail, but for those known to, end it
  new constant int := greatest(_n - greatest(_known, 0), 0);
  -- Ranges of rows that are to be tried, the last one first; of the rows, those known to have failed are the last ones.
  lows int[] := ARRAY[1, new + 1];
  highs int[] := ARRAY[new, least(_n, new + again)];
  low int;
  high int;
  probes int;
  succeeded boolean := false;
  lost int := 0;      -- new rows that failed
  one text;           -- SQLSTATE of the first of them
  alike boolean := true;
  did record;
BEGIN
  IF coalesce(_n, 0) <> coalesce(greatest(cardinality(_users), cardinality(_emails), cardinality(_values)), 0) THEN
    PERFORM _flohsync.invalid('_n', 'it must be the number of rows');
  END IF;
  positions := '{}';
  users := '{}';
  problems := '{}';
  jobs := 0;
  failed := '{}';
  states := '{}';
  messages := '{}';
  WHILE cardinality(lows) > 0 AND lost < too_many LOOP
    low := lows[cardinality(lows)];
    high := highs[cardinality(highs)];
    lows := trim_array(lows, 1);
    highs := trim_array(highs, 1);
    CONTINUE WHEN low > high;
    BEGIN
      did := _flohsync.call_seam(_stage, _c, _run, _users[low:high], _emails[low:high], _names[low:high],
                                 _values[low:high]);
      positions := positions || ARRAY(SELECT p.position + low - 1 FROM unnest(did.positions)
                                      WITH ORDINALITY p(position, i) ORDER BY p.i);
      users := users || did.users;
      problems := problems || did.problems;
      jobs := jobs + did.jobs;
      succeeded := true;
    EXCEPTION WHEN OTHERS THEN
      IF _flohsync.passes(SQLSTATE) THEN
        RAISE;
      ELSIF low < high THEN
        lows := lows || ARRAY[(low + high) / 2 + 1, low];
        highs := highs || ARRAY[high, (low + high) / 2];
      ELSE
        failed := failed || low;
        states := states || SQLSTATE;
        messages := messages || _flohsync.clean(SQLERRM);
        IF low <= new THEN
          lost := lost + 1;
          one := coalesce(one, SQLSTATE);
          alike := alike AND one = SQLSTATE;
        END IF;
      END IF;
    END;
    CONTINUE WHEN succeeded OR NOT alike OR lost < few OR new <= many;
    IF probes IS NULL THEN
      SELECT array_agg(r.low ORDER BY r.rank, r.i), array_agg(r.high ORDER BY r.rank, r.i),
        count(*) FILTER (WHERE r.rank = 2)
        INTO lows, highs, probes
        FROM (SELECT x.i, v.rank, v.low, v.high
                FROM unnest(lows, highs) WITH ORDINALITY AS x(low, high, i)
               CROSS JOIN LATERAL (VALUES (1, x.low, (x.low + x.high) / 2 - 1), (1, (x.low + x.high) / 2 + 1, x.high),
                                          (2, (x.low + x.high) / 2, (x.low + x.high) / 2)) v(rank, low, high)) r;
    ELSIF probes > 1 THEN
      probes := probes - 1;
    ELSE
      RAISE EXCEPTION USING ERRCODE = one, MESSAGE = _flohsync.clean(messages[cardinality(messages)]);
    END IF;
  END LOOP;
  IF NOT succeeded AND alike AND lost = new AND lost > 2 THEN
    RAISE EXCEPTION USING ERRCODE = one, MESSAGE = _flohsync.clean(messages[cardinality(messages)]);
  END IF;
  untried := ARRAY(SELECT g.i FROM unnest(lows, highs) r(low, high)
                   CROSS JOIN LATERAL generate_series(r.low, r.high) g(i));
  passed_over := ARRAY(SELECT generate_series(new + again + 1, _n));
END
$$;
COMMENT ON FUNCTION _flohsync.in_halves(text, flohsync.connector_sync_config, bigint, int, int, uuid[], text[],
                                        text[], jsonb[]) IS
  'Runs a stage for n rows, of which the last have failed before, least recently tried first: returns the result of '
  'call_seam(), the rows that failed and why, those not tried because too many failed, and those not due for a retry';

-- Who calls for one record of a webhook does not hold the matching alone: the record is noted elsewhere then.
CREATE FUNCTION _flohsync.note_setbacks(_stage text, _c flohsync.connector_sync_config, _run bigint,
                                        _record flohsync.resource_record,
  _resources uuid[], _externals text[], _states text[], _messages text[], _changes text[] DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF coalesce(cardinality(_states), 0) = 0 THEN
    RETURN '[]';
  END IF;
  IF _record.id IS NULL THEN
    INSERT INTO _flohsync.setback AS s (config_id, stage, resource_id, change, tried_at)
    SELECT _c.id, _stage, f.id, f.change, clock_timestamp()
      FROM unnest(_resources, _changes) AS f(id, change) WHERE f.id IS NOT NULL
    ON CONFLICT (config_id, stage, resource_id) DO UPDATE SET change = EXCLUDED.change, tried_at = EXCLUDED.tried_at;
  END IF;
  INSERT INTO flohsync.sync_error (run_id, connector_id, resource_type, external_id, error_class, message)
  SELECT _run, CASE WHEN _run IS NULL THEN _c.connector_id END, CASE WHEN _run IS NULL THEN _c.resource_type END,
         f.external_id, _flohsync.error_class('post_sync'), format('%s: %s', _stage, f.message)
    FROM unnest(_externals, _messages) WITH ORDINALITY AS f(external_id, message, position) ORDER BY f.position;
  RETURN (SELECT jsonb_agg(jsonb_build_object('stage', _stage, 'externalId', f.external_id, 'sqlstate', f.state,
                                              'message', f.message) ORDER BY f.position)
            FROM unnest(_externals, _states, _messages) WITH ORDINALITY AS f(external_id, state, message, position)
              WHERE f.position <= 20);
END
$$;
COMMENT ON FUNCTION _flohsync.note_setbacks(text, flohsync.connector_sync_config, bigint, flohsync.resource_record,
                                            uuid[], text[], text[], text[], text[]) IS
  'Records the rows for which a stage failed, to be retried by later runs (except for the record of a webhook); '
  'returns the first of them for the report';

-- The same for users: each by one of their records.
CREATE FUNCTION _flohsync.note_user_setbacks(_stage text, _c flohsync.connector_sync_config, _run bigint,
                                             _record flohsync.resource_record,
  _users uuid[], _states text[], _messages text[]) RETURNS jsonb
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT _flohsync.note_setbacks(_stage, _c, _run, _record, pg_catalog.array_agg(x.id ORDER BY f.position),
                                 pg_catalog.array_agg(x.external_id::text ORDER BY f.position),
                                 pg_catalog.array_agg(f.state ORDER BY f.position),
                                   pg_catalog.array_agg(f.message ORDER BY f.position))
    FROM ROWS FROM (pg_catalog.unnest(_users), pg_catalog.unnest(_states), pg_catalog.unnest(_messages))
      WITH ORDINALITY AS f(id, state, message, position)
    LEFT JOIN LATERAL (
         SELECT r.id, r.external_id
           FROM flohsync.connector_sync_match m JOIN flohsync.resource_record r ON r.id = m.connector_resource_id
          WHERE m.user_id = f.id AND m.connector_id = (_c).connector_id AND m.resource_type = (_c).resource_type
            AND m.match_status IN ('matched', 'manual_override')
            AND (r.stale_since IS NOT NULL) = (_stage = 'deactivate')
          ORDER BY r.external_id LIMIT 1) x ON true;
END;
COMMENT ON FUNCTION _flohsync.note_user_setbacks(text, flohsync.connector_sync_config, bigint, flohsync.resource_record,
                                                 uuid[], text[], text[]) IS
  'Records the users that a stage failed for; see note_setbacks()';
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

CREATE FUNCTION _flohsync.map_sql(_c flohsync.connector_sync_config) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN string_agg(format('(%s, %L, %L, %s)', r.position, r.rule ->> 'targetField',
           coalesce(r.rule ->> 'writeMode', 'overwrite_if_empty'), _flohsync.source_sql(r.rule ->> 'sourcePath')), ', '
             ORDER BY r.position)
    FROM jsonb_array_elements(_c.attribute_mappings) WITH ORDINALITY AS r(rule, position)
   WHERE coalesce((r.rule ->> 'enabled')::boolean, true) AND coalesce(r.rule ->> 'transform', '') = ''
     AND coalesce(r.rule ->> 'writeMode', 'overwrite_if_empty') <> 'never_overwrite';
END
$$;
COMMENT ON FUNCTION _flohsync.map_sql(flohsync.connector_sync_config) IS
  'SQL for the attribute mappings of the record x, as rows (position, field, mode, value); null '
  'when no rule writes anything';

CREATE FUNCTION _flohsync.map_cached(_sql text, _connector uuid, _type text, _c flohsync.connector_sync_config,
                                     _run bigint, _ids uuid[],
  _error_connector uuid, OUT users uuid[], OUT patches jsonb[], OUT failed bigint)
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'flohsync_execute_cached_plan';
COMMENT ON FUNCTION _flohsync.map_cached(text, uuid, text, flohsync.connector_sync_config, bigint, uuid[], uuid) IS
  'Runs the statement of map_attributes() with a cached plan, for a few records, with users in floh_user';

-- Rules for one field act one after the other, which comes to: the last one that
-- always writes, else the first one that has something for an empty field.
CREATE FUNCTION _flohsync.map_attributes(_c flohsync.connector_sync_config, _ids uuid[], _run bigint,
                                         _record flohsync.resource_record DEFAULT NULL,
  OUT updated bigint, OUT failed bigint, OUT refused bigint, OUT errors jsonb, OUT complete boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET jit = off
SET work_mem = '64MB'
SET enable_nestloop = on
AS $$
DECLARE
  rules text := _flohsync.map_sql(_c);
  statement text;
  users uuid[];
  patches jsonb[];
  known uuid[];
  n int := 0;
  did record;
BEGIN
  updated := 0;
  failed := 0;
  refused := 0;
  errors := '[]';
  complete := true;
  IF rules IS NULL THEN
    RETURN;
  END IF;
  statement := format($sql$
  WITH field AS MATERIALIZED (
    SELECT m.user_id, x.external_id, f.field, f.mode, f.source, f.position,
           CASE WHEN jsonb_typeof(f.source) = 'string' AND octet_length(f.source #>> '{}') <= 2000
               AND f.field NOT IN ('startDate', 'managerId')
                THEN f.source ELSE v.value END AS value, v.problem
      FROM flohsync.resource_record x
      JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id
      JOIN _flohsync.app_user u ON u.id = m.user_id
     CROSS JOIN LATERAL (VALUES %s) AS f(position, field, mode, source)
      LEFT JOIN LATERAL _flohsync.profile_field(f.field, f.source, $3) v
        ON NOT (jsonb_typeof(f.source) = 'string' AND octet_length(f.source #>> '{}') <= 2000
                AND f.field NOT IN ('startDate', 'managerId'))
     WHERE %s AND x.stale_since IS NULL
       AND m.match_status IN ('matched', 'manual_override')
       AND f.source IS NOT NULL AND f.source <> 'null'
  ), noted AS (
    INSERT INTO flohsync.sync_error (run_id, connector_id, resource_type, external_id, error_class, message, payload)
    SELECT $4, $6, CASE WHEN $6 IS NOT NULL THEN $2 END, f.external_id, _flohsync.error_class('mapping'),
      format('%%s: %%s', f.field, f.problem), _flohsync.clean(left(f.source::text, 1000))
      FROM field f WHERE f.problem IS NOT NULL AND coalesce($4::text, $6::text) IS NOT NULL
    RETURNING 1
  ), patch AS (
    SELECT e.user_id, jsonb_object_agg(e.field, coalesce(e.always, e.first)) AS patch
      FROM (SELECT f.user_id, f.field,
                   (array_agg(jsonb_build_object('mode', f.mode, 'value', f.value) ORDER BY f.external_id DESC,
                              f.position DESC)
                      FILTER (WHERE f.mode = 'overwrite_always'))[1] AS always,
                   (array_agg(jsonb_build_object('mode', f.mode, 'value', f.value) ORDER BY f.external_id, f.position)
                      FILTER (WHERE f.mode = 'overwrite_if_empty' AND NOT _flohsync.is_blank(f.value)))[1] AS first
              FROM field f WHERE f.problem IS NULL
             GROUP BY f.user_id, f.field) e
     WHERE e.always IS NOT NULL OR e.first IS NOT NULL
     GROUP BY e.user_id
  )
  SELECT array_agg(p.user_id ORDER BY p.user_id), array_agg(p.patch ORDER BY p.user_id),
    (SELECT count(*) FROM field f WHERE f.problem IS NOT NULL)
    FROM patch p
  $sql$, rules, CASE WHEN _ids IS NOT NULL THEN
           -- all records of their users: which one has the last word does not depend on which one changed
           _flohsync.type_of_sql(true)
             || ' AND x.id IN (SELECT o.connector_resource_id FROM flohsync.connector_sync_match t
                            JOIN flohsync.connector_sync_match o ON o.user_id = t.user_id
                           WHERE t.connector_resource_id = ANY ($5) OFFSET 0)' ELSE _flohsync.type_of_sql(false) END);
  IF _flohsync.use_cached_plan(_ids) THEN
    SELECT m.users, m.patches, m.failed INTO users, patches, failed
      FROM _flohsync.map_cached(statement, _c.connector_id, _c.resource_type, _c, _run, _ids, _record.connector_id) m;
  ELSE
    PERFORM set_config('enable_nestloop', (_ids IS NOT NULL)::text, true);
    EXECUTE statement INTO users, patches, failed USING _c.connector_id, _c.resource_type::text, _c, _run, _ids,
      _record.connector_id;
  END IF;
  IF users IS NULL THEN
    RETURN;
  END IF;
  known := _flohsync.known_setbacks(_c, 'map');
  IF known <> '{}' THEN
    SELECT array_agg(u.id ORDER BY k.place NULLS FIRST, u.id), array_agg(u.patch ORDER BY k.place NULLS FIRST, u.id),
      count(k.place) INTO users, patches, n
      FROM unnest(users, patches) AS u(id, patch) LEFT JOIN unnest(known) WITH ORDINALITY AS k(id, place)
        ON k.id = u.id;
  END IF;
  did := _flohsync.in_halves('map', _c, _run, cardinality(users), n, users, NULL, NULL, patches);
  updated := cardinality(did.users);
  refused := cardinality(did.failed);
  errors := _flohsync.note_user_setbacks('map', _c, _run, _record,
                                         ARRAY(SELECT users[f.nr] FROM unnest(did.failed) WITH ORDINALITY AS f(nr, i)
                                               ORDER BY f.i),
                                         did.states, did.messages);
  complete := did.untried = '{}';
END
$$;
COMMENT ON FUNCTION _flohsync.map_attributes(flohsync.connector_sync_config, uuid[], bigint,
                                             flohsync.resource_record) IS
  'Applies the attribute mappings of some records (null: all) to the profiles of their users; returns the numbers of '
  'changed profiles, of invalid values and of profiles whose update failed, and whether all were tried';
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
-- What follows a pass: match, create, deactivate and reactivate, map
-- attributes, trigger workflows.
--
-- _post_sync is one transaction of the run's worker, or of approve_run; each
-- stage is a subtransaction of its own, whose failure is recorded and fails
-- nothing else.  Errors that pass by themselves are raised: the worker does the
-- transaction again.
--
-- What is behind the seam, and the application's own rules about its tables, can
-- refuse one user or one profile.  So a stage gives all rows to the seam at once,
-- and where that fails halves them until those that fail are alone
-- (_in_halves).  These are noted, in sync_error and in setback, and the others are
-- done.  The next run tries them again: apart from the others, so that its one
-- statement for these succeeds, and no more than a hundred of them in a stage,
-- those that have waited longest, so that no run becomes slow by what was refused
-- before.

-- Each probe by its own index and the scope afterwards: without statistics, as
-- right after a first load, the planner takes the scope for the better index.
CREATE FUNCTION _flohsync.reached_by_users(_c flohsync.connector_sync_config, _since xid8, _but xid8)
  RETURNS TABLE (id uuid, user_id uuid)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
BEGIN ATOMIC
  SELECT m.id, u.user_id
    FROM _flohsync.user_change u
   CROSS JOIN LATERAL (
         SELECT x.connector_resource_id AS id, x.connector_id, x.resource_type
           FROM flohsync.connector_sync_match x WHERE x.user_id = u.user_id OFFSET 0) m
   WHERE u.xid >= _since AND u.xid IS DISTINCT FROM _but AND m.connector_id = (_c).connector_id
     AND m.resource_type = (_c).resource_type
  UNION ALL
  SELECT m.id, u.user_id
    FROM _flohsync.user_change u
   CROSS JOIN LATERAL (
         SELECT x.connector_resource_id AS id, x.connector_id, x.resource_type
           FROM flohsync.connector_sync_match x WHERE _flohsync.match_key(x.external_email) COLLATE "C"
             = u.email_key OFFSET 0) m
   WHERE u.xid >= _since AND u.xid IS DISTINCT FROM _but AND m.connector_id = (_c).connector_id
     AND m.resource_type = (_c).resource_type
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
  -- those that wait because they once belonged to the user
  SELECT m.connector_resource_id, u.user_id
    FROM flohsync.connector_sync_match m
    JOIN _flohsync.user_change u ON u.user_id::text = m.candidate_user_ids -> 0 ->> 'userId'
   WHERE m.connector_id = (_c).connector_id AND m.resource_type = (_c).resource_type
     AND m.match_status IN ('unmatched', 'create_pending') AND m.candidate_user_ids IS NOT NULL
     AND u.xid >= _since AND u.xid IS DISTINCT FROM _but;
END;
COMMENT ON FUNCTION _flohsync.reached_by_users(flohsync.connector_sync_config, xid8, xid8) IS
  'Records of a configuration that match, matched or may match users changed since a transaction, except by one '
  'transaction';

-- _pending_records collects the records that post-sync has to process.  The page rows are
-- few: only those not dealt with have something in "changed".
CREATE FUNCTION _flohsync.pending_records(_c flohsync.connector_sync_config, _p _flohsync.match_progress,
  OUT ids uuid[], OUT by_record uuid[], OUT queued uuid[], OUT seqs bigint[], OUT setbacks uuid[])
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  SELECT coalesce(array_agg(r.resource_id), '{}'), coalesce(array_agg(r.seq), '{}') INTO queued, seqs
    FROM _flohsync.record_change r
   WHERE r.connector_id = _c.connector_id AND r.resource_type = _c.resource_type;
  setbacks := ARRAY(SELECT s.resource_id FROM _flohsync.setback s WHERE s.config_id = _c.id
                     ORDER BY s.tried_at LIMIT 100);
  IF _p.config_id IS NULL THEN
    RETURN;
  END IF;
  SELECT array_agg(d.id) INTO by_record
    FROM (SELECT e.id FROM flohsync.sync_run_page p JOIN flohsync.sync_run r ON r.id = p.run_id
          CROSS JOIN LATERAL unnest(p.changed) e(id)
           WHERE p.changed IS NOT NULL AND r.connector_id = _c.connector_id AND r.resource_type = _c.resource_type
          UNION
          SELECT unnest(queued || setbacks)) d;
  SELECT array_agg(d.id) INTO ids
    FROM (SELECT unnest(by_record) UNION SELECT u.id FROM _flohsync.reached_by_users(_c, _p.users_seen, _p.own_xid) u)
      d(id);
END
$$;
COMMENT ON FUNCTION _flohsync.pending_records(flohsync.connector_sync_config, _flohsync.match_progress) IS
  'Records that post-sync has to process (null when _p is: all), those of them that changed themselves, the rows of '
  'record_change read for that, and the failed rows to retry';

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
  -- A lock, deadlock or deletion of another session: worth a retry.
  IF _attempt < 3 AND _state IN ('40P01', '40001', '55P03', '23503', '23505') THEN
    RETURN '[]';
  END IF;
  INSERT INTO flohsync.sync_error (run_id, connector_id, resource_type, external_id, error_class, message)
  VALUES (_run, _record.connector_id, _record.resource_type, _record.external_id, _flohsync.error_class('post_sync'),
          format('%s: %s', _stage, _message));
  RETURN jsonb_build_array(jsonb_build_object('stage', _stage, 'sqlstate', _state, 'message', _message));
END
$$;
COMMENT ON FUNCTION _flohsync.stage_failed(bigint, text, text, text, int, flohsync.resource_record) IS
  'Records the failure of a stage of post-sync, of a run or (null) of a webhook about a record, and returns it; an '
  'empty list when it should be retried; re-raises 40P01 for a run';

-- _process_users does what is configured about the users of some records.  Each stage
-- is a subtransaction of its own, with three attempts.
CREATE FUNCTION _flohsync.process_users(_c flohsync.connector_sync_config, _ids uuid[], INOUT touched uuid[],
                                        _run bigint, _held boolean,
  _deactivating boolean, _approved boolean, _widen boolean, _record flohsync.resource_record,
  OUT report jsonb, OUT errors jsonb, OUT broken boolean, OUT held boolean, OUT message text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _stage text;
  _failed jsonb;
  _refused bigint := 0;
  _done boolean;
  back record;
  did record;
BEGIN
  report := '{}';
  errors := '[]';
  broken := false;
  held := false;
  FOREACH _stage IN ARRAY ARRAY['match', 'create', 'deactivate', 'map'] LOOP
    PERFORM _flohsync.stage(CASE _stage WHEN 'match' THEN 'matching' WHEN 'create' THEN 'creating'
                            WHEN 'map' THEN 'mapping' ELSE 'deactivating' END);
    FOR _attempt IN 1 .. 3 LOOP
      BEGIN
        _done := true;
        CASE
          WHEN _stage = 'match' THEN
            back := _flohsync.reactivate(_c, touched, _run, _record);
            report := report || jsonb_build_object('matchesChanged',
                                                   _flohsync.match(_c, _ids, back.records, back.users),
                                                   'usersReactivated', back.reactivated);
            -- Whatever an application's users did shows in the matches that it changed.
            IF _widen THEN
              touched := ARRAY(SELECT unnest(touched)
                               UNION SELECT m.connector_resource_id FROM flohsync.connector_sync_match m
                                      WHERE m.connector_id = _c.connector_id AND m.resource_type = _c.resource_type
                                        AND (m.updated_at = now() OR m.match_status = 'create_pending'));
            END IF;
            SELECT back.refused, back.errors, true AS complete INTO did;
          WHEN _stage = 'create' AND _c.create_users THEN
            did := _flohsync.create_users(_c, touched, _run, _held, _record);
            report := report || jsonb_build_object('usersCreated', did.created, 'createPending', did.pending);
          WHEN _stage = 'deactivate' THEN
            IF _deactivating THEN
              did := _flohsync.deactivate(_c, touched, _run, _approved);
            END IF;
            IF _run IS NOT NULL THEN
              PERFORM _flohsync.requeue_in_other_configs(_c, touched);
            END IF;
            _done := _deactivating;
            IF _deactivating THEN
              report := report || jsonb_build_object('usersDeactivated', did.deactivated);
              held := did.message IS NOT NULL;
              message := did.message;
            END IF;
          WHEN _stage = 'map' AND _c.attribute_mappings IS NOT NULL THEN
            did := _flohsync.map_attributes(_c, touched, _run, _record);
            report := report || jsonb_build_object('profilesUpdated', did.updated, 'valuesRefused', did.failed);
          ELSE
            _done := false;
        END CASE;
        IF _done THEN
          errors := errors || did.errors;
          _refused := _refused + did.refused;
          IF NOT did.complete THEN
            errors := errors || _flohsync.stage_failed(_run, _stage, '54000',
                                                       'too many rows failed: the others wait for the next run', 3,
                                                       _record);
            broken := true;
          END IF;
        END IF;
        EXIT;
      EXCEPTION WHEN OTHERS THEN
        _failed := _flohsync.stage_failed(_run, _stage, SQLSTATE, SQLERRM, _attempt, _record);
        errors := errors || _failed;
        broken := broken OR _failed <> '[]';
        EXIT WHEN _failed <> '[]';
      END;
    END LOOP;
    -- The other stages lean on the matches.
    EXIT WHEN _stage = 'match' AND broken;
  END LOOP;
  IF _refused > 0 THEN
    report := report || jsonb_build_object('rowsRefused', _refused);
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.process_users(flohsync.connector_sync_config, uuid[], uuid[], bigint, boolean, boolean,
                                            boolean, boolean, flohsync.resource_record) IS
  'Matches the records _ids to users and runs the other stages for "touched" (null: all), on behalf of a run or (null) '
  'of a webhook about one record: returns what was done, what failed (broken: a complete stage), and the message of '
  'the deactivation safeguard';

CREATE FUNCTION _flohsync.post_sync(_run bigint, _held boolean, OUT held boolean, OUT message text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r flohsync.sync_run;
  c flohsync.connector_sync_config := _flohsync.keep_config(_run);
  p _flohsync.match_progress;
  horizon xid8;
  watched boolean := _flohsync.users_are_watched();
  todo record;
  ids uuid[];  -- records whose user is looked for; null: all
  touched uuid[];  -- records that the other stages process; null: all
  did record;
  users boolean;
  report jsonb := '{}';
  errors jsonb := '[]';
  broken boolean := false;  -- a stage could not be done at all: everything is to be done again
  failed jsonb := '[]';
  told record;
BEGIN
  held := false;
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  IF c.id IS NULL THEN
    RETURN;
  END IF;
  PERFORM _flohsync.lock_matching(c);
  PERFORM _flohsync.read_user_changes();
  users := _flohsync.matches_users(c);
  horizon := pg_snapshot_xmin(pg_current_snapshot());
  SELECT * INTO p FROM _flohsync.match_progress x WHERE x.config_id = c.id AND x.rules = _flohsync.people_rules(c);
  IF NOT users OR p.users_seen > pg_snapshot_xmax(pg_current_snapshot()) THEN
    p := NULL;
  END IF;
  todo := _flohsync.pending_records(c, p);
  touched := CASE WHEN p.config_id IS NOT NULL THEN coalesce(todo.ids, '{}') END;
  ids := CASE WHEN watched THEN touched END;
  IF users AND (ids IS NULL OR ids <> '{}') THEN
    -- Who comes to a record that went before does not leave by that.
    IF c.deactivate_users AND cardinality(touched) > coalesce(cardinality(todo.by_record), 0) THEN
      PERFORM _flohsync.note_departures(ARRAY(
        SELECT x.id FROM flohsync.resource_record x
         WHERE x.id = ANY (touched) AND x.id <> ALL (coalesce(todo.by_record, '{}')) AND x.stale_since IS NOT NULL
           AND _flohsync.departure_open(x.id, x.stale_since)), clock_timestamp());
    END IF;
    did := _flohsync.process_users(c, ids, touched, _run, _held, c.deactivate_users AND NOT _held, r.status = 'held',
                            NOT watched AND p.config_id IS NOT NULL, NULL);
    touched := did.touched;
    report := did.report;
    errors := did.errors;
    broken := did.broken;
    held := did.held;
    message := did.message;
  END IF;

  IF _flohsync.triggers_per_record(c) THEN
    FOR _attempt IN 1 .. 3 LOOP
      BEGIN
        told := _flohsync.trigger_per_record(c, _run, todo.seqs, todo.setbacks);
        EXIT;
      EXCEPTION WHEN OTHERS THEN
        failed := _flohsync.stage_failed(_run, 'workflow', SQLSTATE, SQLERRM, _attempt);
        EXIT WHEN failed <> '[]';
      END;
    END LOOP;
    IF failed <> '[]' THEN
      -- The workflow is told of these changes after the next pass.
      errors := errors || failed;
      broken := true;
      PERFORM _flohsync.keep_page_changes(y.id)
         FROM (SELECT DISTINCT x.id FROM flohsync.sync_run x JOIN flohsync.sync_run_page g ON g.run_id = x.id
               AND g.changed IS NOT NULL
                WHERE x.connector_id = c.connector_id AND x.resource_type = c.resource_type ORDER BY x.id) y;
      todo.seqs := ARRAY(SELECT q.seq FROM _flohsync.record_change q WHERE q.seq = ANY (todo.seqs)
                         AND q.change = 'recheck');
    ELSE
      errors := errors || told.errors;
      report := report || CASE WHEN told.jobs > 0 THEN jsonb_build_object('workflowJobs', told.jobs) ELSE '{}' END
                       || CASE WHEN told.refused > 0
                         THEN jsonb_build_object('rowsRefused',
                                                 told.refused + coalesce((report ->> 'rowsRefused')::bigint, 0))
                                                 ELSE '{}' END;
    END IF;
  END IF;

  -- What has been dealt with is not needed any more, but for what waits for a decision.
  UPDATE flohsync.sync_run_page x SET changed = NULL
    FROM flohsync.sync_run y
   WHERE x.changed IS NOT NULL AND y.id = x.run_id AND y.connector_id = c.connector_id
     AND y.resource_type = c.resource_type;
  PERFORM _flohsync.forget_changes(todo.seqs);
  IF NOT broken THEN
    -- What was tried again and did not fail again.
    DELETE FROM _flohsync.setback s WHERE s.config_id = c.id AND s.resource_id = ANY (todo.setbacks)
        AND s.tried_at < now();
  END IF;
  PERFORM _flohsync.forget_departures(ARRAY(
    SELECT x.id FROM flohsync.resource_record x
     WHERE x.id = ANY (todo.by_record) AND x.stale_since IS NULL
       AND EXISTS (SELECT FROM _flohsync.departure d WHERE d.resource_id = x.id)));
  IF users AND (held OR _held) THEN
    PERFORM _flohsync.note_changes(c.connector_id, c.resource_type, ARRAY(
      SELECT m.connector_resource_id FROM _flohsync.users_to_deactivate(c, touched) l(id)
        JOIN flohsync.connector_sync_match m ON m.user_id = l.id AND m.connector_id = c.connector_id
            AND m.resource_type = c.resource_type
       WHERE c.deactivate_users
      UNION
      SELECT m.connector_resource_id FROM flohsync.connector_sync_match m
       WHERE _held AND m.connector_id = c.connector_id AND m.resource_type = c.resource_type
         AND m.match_status = 'create_pending'
         AND (touched IS NULL OR m.connector_resource_id = ANY (touched))), 'recheck');
  END IF;
  IF errors <> '[]' THEN
    report := report || jsonb_build_object('errors', errors);
  END IF;
  IF broken THEN
    -- All of it once more, next time.
    PERFORM _flohsync.note_changes(c.connector_id, c.resource_type, touched, 'recheck');
  END IF;
  IF broken AND touched IS NULL THEN
    DELETE FROM _flohsync.match_progress x WHERE x.config_id = c.id;
  ELSIF users AND (p.config_id IS NULL OR todo.ids IS NOT NULL
                   OR EXISTS (SELECT FROM _flohsync.user_change u WHERE u.xid >= p.users_seen)) THEN
    -- If the settings are changed meanwhile, the new ones are others than these.
    INSERT INTO _flohsync.match_progress AS x (config_id, rules, users_seen, own_xid)
    VALUES (c.id, _flohsync.people_rules(c), horizon,
            CASE WHEN r.status = 'running' THEN pg_current_xact_id_if_assigned() END)
    ON CONFLICT (config_id) DO UPDATE SET rules = EXCLUDED.rules, users_seen = EXCLUDED.users_seen,
      own_xid = EXCLUDED.own_xid;
    -- The users that this changed are processed, except for other records that could be theirs.
    IF r.status = 'running'
        AND EXISTS (SELECT FROM _flohsync.user_change u WHERE u.xid = pg_current_xact_id_if_assigned()) THEN
      PERFORM _flohsync.note_changes(c.connector_id, c.resource_type, ARRAY(
        SELECT DISTINCT u.id FROM _flohsync.reached_by_users(c, pg_current_xact_id_if_assigned(), NULL) u
          LEFT JOIN flohsync.connector_sync_match m ON m.connector_resource_id = u.id
         WHERE m.user_id IS DISTINCT FROM u.user_id
           AND coalesce(m.match_status, '') NOT IN ('manual_override', 'skipped')), 'recheck');
    END IF;
    -- The transaction of approve_run() may stay open: every other post-sync would wait for its end.
    IF r.status = 'running' THEN
      PERFORM _flohsync.forget_user_changes();
    END IF;
  END IF;
  IF report ? 'matchesChanged' THEN
    report := report || jsonb_build_object('matches', flohsync.match_stats(c.connector_id::text, c.resource_type)
                                           - 'resourceType');
  END IF;
  IF report <> '{}' THEN
    -- An approved run has been here before.
    UPDATE flohsync.sync_run x
       SET post_sync = report || _flohsync.add_counters(_flohsync.totals_of(coalesce(x.post_sync, '{}')),
                                                        _flohsync.totals_of(report))
     WHERE x.id = _run;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.post_sync(bigint, boolean) IS
  'Post-sync processing of a run (_held: held by the staling safeguard); returns held when the deactivation safeguard '
  'holds it';

CREATE FUNCTION _flohsync.post_sync_failed(_run bigint, _state text, _message text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  DELETE FROM _flohsync.match_progress p
   USING flohsync.sync_run r JOIN flohsync.connector_sync_config c ON c.connector_id = r.connector_id
       AND c.resource_type = r.resource_type
   WHERE r.id = _run AND p.config_id = c.id;
  INSERT INTO flohsync.sync_error (run_id, error_class, message)
    VALUES (_run, _flohsync.error_class('post_sync'), _message);
  UPDATE flohsync.sync_run x
     SET post_sync = jsonb_build_object('errors',
                                        jsonb_build_array(jsonb_build_object('stage', 'post_sync', 'sqlstate', _state,
                                            'message', _message)))
   WHERE x.id = _run;
END
$$;
COMMENT ON FUNCTION _flohsync.post_sync_failed(bigint, text, text) IS
  'Records that post-sync failed completely, so that the next one processes everything';
-- Lists: pages of records and matches, in the order of an index, searched or not.
--
-- What is searched for is folded, and so is what it is looked for in (src/
-- src/entry/search.c).  A search that finds little fetches all of it, with the indexes
-- of enable_search() without reading the rest; one that finds much walks the list
-- in its order until a page is full.  Which it is, is not guessed from statistics,
-- which tables that were just loaded have not, but tried with the first rows.

CREATE FUNCTION _flohsync.search_fold(_text text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_search_fold';
COMMENT ON FUNCTION _flohsync.search_fold(text) IS 'A text folded for searches: in lower case, by ICU or the locale';

CREATE FUNCTION _flohsync.search_text(_external_id text, _email text, _display_name text) RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 20 AS 'MODULE_PATHNAME', 'flohsync_search_text';
COMMENT ON FUNCTION _flohsync.search_text(text, text, text) IS
  'The searchable texts of a record, folded, in one text; for the indexes of enable_search()';

CREATE FUNCTION _flohsync.search_found(_folded text, _external_id text, _email text, _display_name text) RETURNS boolean
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'flohsync_search_found';
COMMENT ON FUNCTION _flohsync.search_found(text, text, text, text) IS
  'Whether a folded text is part of one of the others';

CREATE FUNCTION _flohsync.search_index(_table regclass) RETURNS regclass
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN (SELECT i.indexrelid::regclass FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         WHERE i.indrelid = _table AND i.indisvalid
           AND c.relname = (SELECT t.relname || '_search' FROM pg_class t WHERE t.oid = _table));
COMMENT ON FUNCTION _flohsync.search_index(regclass) IS
  'Index that enable_search() created on a table; null when there is none';

CREATE FUNCTION _flohsync.make_search_indexes(_opclass oid) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'flohsync_make_search_indexes';
COMMENT ON FUNCTION _flohsync.make_search_indexes(oid) IS
  'Creates the indexes of enable_search() with a GIN operator class, whatever privileges the owner of '
  'flohsync has on its schema';

CREATE FUNCTION flohsync.enable_search() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _opclass oid;
  broken regclass;
BEGIN
  -- By what belongs to the extension: its schema can be any.
  SELECT o.oid INTO _opclass
    FROM pg_extension e
    JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
        AND d.classid = 'pg_opclass'::regclass AND d.deptype = 'e'
    JOIN pg_opclass o ON o.oid = d.objid AND o.opcname = 'gin_trgm_ops'
   WHERE e.extname = 'pg_trgm';
  IF NOT FOUND THEN
    RAISE NOTICE USING
      MESSAGE = 'extension pg_trgm is not installed: searches read all records of a type',
      HINT = 'Run CREATE EXTENSION pg_trgm, which is part of PostgreSQL, and call flohsync.enable_search() again.';
    RETURN false;
  END IF;
  IF _flohsync.search_index('flohsync.resource_record') IS NOT NULL
      AND _flohsync.search_index('flohsync.connector_sync_match') IS NOT NULL THEN
    RETURN true;
  END IF;
  -- Others who make them wait here, and find them made.
  LOCK TABLE flohsync.resource_record, flohsync.connector_sync_match IN SHARE ROW EXCLUSIVE MODE;
  -- What a CREATE INDEX CONCURRENTLY that failed has left behind.
  FOR broken IN SELECT i.indexrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                 WHERE i.indrelid IN ('flohsync.resource_record'::regclass, 'flohsync.connector_sync_match'::regclass)
                   AND NOT i.indisvalid
                   AND c.relname = (SELECT t.relname || '_search' FROM pg_class t WHERE t.oid = i.indrelid) LOOP
    EXECUTE format('DROP INDEX %s', broken);
  END LOOP;
  PERFORM _flohsync.make_search_indexes(_opclass);
  -- Without statistics of what they index they would be used where they do not pay.
  ANALYZE flohsync.resource_record, flohsync.connector_sync_match;
  RAISE NOTICE USING
    MESSAGE = 'searches in list_resources() and list_matches() now have indexes',
    HINT = 'DROP INDEX flohsync.resource_record_search, flohsync.connector_sync_match_search removes them. A '
           'dump does not include them.';
  RETURN true;
END
$$;
COMMENT ON FUNCTION flohsync.enable_search() IS
  'Creates the pg_trgm indexes for searches in list_resources() and list_matches(), flohsync.resource_record_search '
  'and flohsync.connector_sync_match_search, unless they exist; blocks writes meanwhile; false where extension pg_trgm '
  'is missing. A dump does not include them: call it again in a restored database. DROP INDEX removes them';
SELECT _flohsync.allow('manager', 'flohsync.enable_search()');

CREATE FUNCTION _flohsync.like_pattern(_text text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
RETURN '%' || pg_catalog.regexp_replace(_text, '([\\%_])', '\\\1', 'g') || '%';
COMMENT ON FUNCTION _flohsync.like_pattern(text) IS 'LIKE pattern for texts that contain the given text';

CREATE FUNCTION _flohsync.check_page(_page int, _page_size int) RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _page IS NULL OR _page < 1 THEN
    PERFORM _flohsync.invalid('page', 'it must be at least 1', 'Pages are counted from 1.');
  ELSIF _page_size IS NULL OR _page_size NOT BETWEEN 1 AND 2000 THEN
    PERFORM _flohsync.invalid('page_size', 'it must be from 1 to 2000', 'The default is 50.');
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_page(int, int) IS 'Raises 22023 for an invalid page number or size';

CREATE FUNCTION _flohsync.page_object(_data jsonb, _total bigint, _page int, _page_size int) RETURNS jsonb
LANGUAGE sql IMMUTABLE
RETURN pg_catalog.jsonb_build_object('data', coalesce(_data, '[]'), 'total', _total, 'page', _page,
                                     'pageSize', _page_size,
                                     'totalPages', (_total + _page_size - 1) / _page_size);
COMMENT ON FUNCTION _flohsync.page_object(jsonb, bigint, int, int) IS 'A page of a list in its public JSON form';

-- Where a list is gone on with.  A total that took long to count goes along:
-- it is that of the first page.
CREATE FUNCTION _flohsync.page_mark(_external_id text, _type text, _list text, _total bigint) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN pg_catalog.translate(pg_catalog.encode(pg_catalog.convert_to(
         pg_catalog.jsonb_build_array(_external_id, _type, _list, _total)::text, 'UTF8'), 'base64'), E'+/=\n', '-_');
COMMENT ON FUNCTION _flohsync.page_mark(text, text, text, bigint) IS
  'The value that list_resources() returns as nextAfter';

CREATE FUNCTION _flohsync.read_page_mark(_mark text, _list text, OUT external_id text, OUT resource_type text,
                                         OUT total bigint)
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  mark jsonb;
BEGIN
  IF _mark IS NULL THEN
    RETURN;
  END IF;
  BEGIN
    IF length(_mark) <= 4000 AND _mark ~ '^[A-Za-z0-9_-]+$' THEN
      mark := convert_from(decode(rpad(translate(_mark, '-_', '+/'), (length(_mark) + 3) / 4 * 4, '='), 'base64'),
                           'UTF8')::jsonb;
    END IF;
  EXCEPTION WHEN data_exception THEN
    NULL;  -- not base64, not UTF-8, or not JSON
  END;
  IF coalesce(jsonb_typeof(mark) <> 'array' OR jsonb_typeof(mark -> 0) <> 'string'
              OR jsonb_typeof(mark -> 1) <> 'string' OR jsonb_typeof(mark -> 2) <> 'string'
              OR jsonb_typeof(mark -> 3) NOT IN ('number', 'null') OR length(mark ->> 0) > 255
              OR length(mark ->> 1) > 64, true) THEN
    PERFORM _flohsync.invalid('after', 'it is not a nextAfter of this list',
                              'Omit it to begin at the start of the list.');
  END IF;
  external_id := mark ->> 0;
  resource_type := mark ->> 1;
  IF mark ->> 2 = _list AND jsonb_typeof(mark -> 3) = 'number' AND mark ->> 3 ~ '^[0-9]{1,18}$' THEN
    total := (mark ->> 3)::bigint;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.read_page_mark(text, text) IS
  'The position of a nextAfter, and the total if it is of the same list; 22023 for anything else';

-- The plan is known; statistics are not.
CREATE FUNCTION _flohsync.walk_list(_sql text, _connector uuid, _types text[], _after_id text,
                                    _after_type text, _needle text,
  _limit bigint, _offset bigint, _bound bigint, OUT external_ids text[], OUT types text[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
BEGIN
  EXECUTE _sql INTO external_ids, types USING _connector, _types, _after_id, _after_type, _needle, _limit,
    _offset, _bound;
END
$$;
COMMENT ON FUNCTION _flohsync.walk_list(text, uuid, text[], text, text, text, bigint, bigint, bigint) IS
  'Runs a statement that reads a list in the order of its index';

-- The keys of one page, and one more if there is one.  _from and _where say of
-- which rows x the list consists, beside connector and types; _ordered, that an
-- index has them in the order of the list.  _of_scope is how many these are, and
-- without a search the total; total is what is known of it.
CREATE FUNCTION _flohsync.list_keys(_from text, _where text, _email text, _name text, _index regclass, _connector uuid,
                                    _types text[], _search text,
  _after_id text, _after_type text, _page_size int, _offset bigint, _ordered boolean, _of_scope bigint,
    INOUT total bigint,
  OUT external_ids text[], OUT types text[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
  wanted constant bigint := _page_size + 1;
  found_sql constant text := format('_flohsync.search_found($5, x.external_id, x.%I, x.%I)', _email, _name);
  -- Fewer than three characters have no trigram; what is between the texts of a record is no part of one.
  indexed_sql constant text := CASE WHEN _index IS NOT NULL AND length(_search) >= 3 AND strpos(_search, E'\n') = 0
    THEN format('_flohsync.search_text(x.external_id, x.%I, x.%I) LIKE %L', _email, _name,
                _flohsync.like_pattern(_search)) ELSE found_sql END;
  scope_sql constant text := format(' FROM %s WHERE x.connector_id = $1 AND x.resource_type = ANY ($2)%s',
                                    _from, _where);
  page_sql constant text := 'SELECT array_agg(p.external_id ORDER BY p.external_id, p.resource_type), '
                            'array_agg(p.resource_type ORDER BY p.external_id, p.resource_type)
    FROM (SELECT x.external_id, x.resource_type %s ORDER BY x.external_id, x.resource_type LIMIT $6 OFFSET $7) p';
  after_sql constant text := CASE WHEN _after_id IS NOT NULL THEN ' AND (x.external_id, x.resource_type) > ($3, $4)'
    ELSE '' END;
  -- One stretch of the index for each type.
  stretch_sql constant text := format('SELECT x.external_id, x.resource_type, x.%I, x.%I FROM %s WHERE x.connector_id '
                                      '= $1 AND x.resource_type = t.type%s%s ORDER BY x.external_id',
    _email, _name, _from, _where,
      CASE WHEN _after_id IS NOT NULL THEN ' AND x.external_id >= $3 AND (x.external_id > $3 OR x.resource_type > $4)'
      ELSE '' END);
  walk_sql constant text := 'FROM unnest($2) t(type) CROSS JOIN LATERAL (%s) x';
  sample constant int := 1000;
  dense boolean := total IS NOT NULL;
  bound bigint;
BEGIN
  IF _search IS NULL AND _ordered THEN
    total := _of_scope;
    SELECT w.external_ids, w.types INTO external_ids, types
      FROM _flohsync.walk_list(format(page_sql, format(walk_sql, stretch_sql || ' LIMIT $6 + $7')),
                               _connector, _types, _after_id, _after_type, NULL, wanted, _offset, NULL) w;
    RETURN;
  ELSIF _search IS NULL THEN
    total := _of_scope;
    EXECUTE format(page_sql, scope_sql || after_sql)
       INTO external_ids, types USING _connector, _types, _after_id, _after_type, NULL::text, wanted, _offset;
    RETURN;
  ELSIF length(_search) > 1000 THEN
    total := 0;
    RETURN;
  END IF;
  IF NOT dense AND _ordered AND _of_scope > 100000 THEN
    SELECT cardinality(w.external_ids) >= sample / 10 INTO dense
      FROM _flohsync.walk_list(format(page_sql, format(walk_sql, stretch_sql || ' LIMIT $8') || ' WHERE ' || found_sql),
                               _connector, _types, _after_id, _after_type, _search, sample, 0, sample) w;
  END IF;
  IF NOT coalesce(dense, false) THEN
    EXECUTE format('WITH hit AS MATERIALIZED (SELECT x.external_id, x.resource_type%s AND %s)
                    SELECT h.n, k.ids, k.types FROM (SELECT count(*) FROM hit) h(n)
                      CROSS JOIN LATERAL (%s) k(ids, types)',
                   scope_sql, indexed_sql, format(page_sql, 'FROM hit x WHERE true' || after_sql))
       INTO total, external_ids, types USING _connector, _types, _after_id, _after_type, _search, wanted, _offset;
    RETURN;
  END IF;

  IF total IS NULL THEN
    EXECUTE format('SELECT count(*)%s AND %s', scope_sql, found_sql) INTO total USING _connector, _types, _after_id,
      _after_type, _search;
  END IF;
  -- So many rows have the page ten times over, if the finds are evenly spread.
  bound := 10 * (wanted + _offset) * greatest(_of_scope, 1) / greatest(total, 1);
  IF bound <= 100000 THEN
    SELECT w.external_ids, w.types INTO external_ids, types
      FROM _flohsync.walk_list(format(page_sql,
                                      format(walk_sql, format('SELECT * FROM (%s LIMIT $8) x WHERE %s ORDER BY '
                                                              'x.external_id LIMIT $6 + $7', stretch_sql, found_sql))),
                               _connector, _types, _after_id, _after_type, _search, wanted, _offset, bound) w;
    IF cardinality(external_ids) = wanted THEN
      RETURN;
    END IF;
  END IF;
  EXECUTE format(page_sql, format('%s AND %s%s', scope_sql, indexed_sql, after_sql))
     INTO external_ids, types USING _connector, _types, _after_id, _after_type, _search, wanted, _offset;
END
$$;
COMMENT ON FUNCTION _flohsync.list_keys(text, text, text, text, regclass, uuid, text[], text, text, text, int, bigint,
                                        boolean, bigint, bigint) IS
  'The ids and types of a page of a list and of the row after it, and the number of rows of the list';

CREATE FUNCTION _flohsync.count_of(_connector uuid, _type text, _states text[]) RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN coalesce(CASE WHEN _type IS NULL
    THEN (SELECT sum(t.n) FROM _flohsync.tally t WHERE t.connector_id = _connector AND t.state = ANY (_states))
    ELSE (SELECT sum(t.n) FROM _flohsync.tally t WHERE t.connector_id = _connector AND t.resource_type = _type
          AND t.state = ANY (_states)) END, 0);
END
$$;
COMMENT ON FUNCTION _flohsync.count_of(uuid, text, text[]) IS
  'Number of records (live, stale) or matches (by status) of a type, or (null) of all types';
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
  _from text := 'flohsync.connector_sync_match x';
  _where text := '';
  _keys record;
  _data jsonb;
BEGIN
  PERFORM _flohsync.check_page(list_matches.page, list_matches.page_size);
  IF _status <> ALL (_statuses) THEN
    PERFORM _flohsync.invalid('status', format('%L is not a match status', _status),
      'Match statuses are matched, unmatched, ambiguous, manual_override, skipped and create_pending.');
  END IF;
  IF _status IS NOT NULL THEN
    _statuses := ARRAY[_status];
    _where := format(' AND x.match_status = %L', _status);
  END IF;
  _of_scope := _flohsync.count_of(_connector, _type, _statuses);
  IF list_matches.stale IS NOT NULL THEN
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
  SELECT * INTO _keys FROM _flohsync.list_keys(_from, _where, 'external_email', 'external_display_name',
    _flohsync.search_index('flohsync.connector_sync_match'), _connector, CASE WHEN _of_scope > 0 THEN ARRAY[_type]
      ELSE '{}' END, _search, NULL, NULL,
    list_matches.page_size, (list_matches.page - 1)::bigint * list_matches.page_size,
    NOT (coalesce(list_matches.stale, false) AND _of_scope <= 20000), _of_scope, NULL);
  SELECT jsonb_agg(_flohsync.match_dto(m) || jsonb_build_object('staleSince', _flohsync.iso(r.stale_since))
                   ORDER BY k.position) INTO _data
    FROM unnest(_keys.external_ids[:list_matches.page_size]) WITH ORDINALITY AS k(external_id, position)
   CROSS JOIN LATERAL (SELECT m.* FROM flohsync.connector_sync_match m
     -- by index, whatever their number
     WHERE m.connector_id = _connector AND m.resource_type = _type AND m.external_id = k.external_id OFFSET 0) m
   CROSS JOIN LATERAL (SELECT r.stale_since FROM flohsync.resource_record r
                       WHERE r.id = m.connector_resource_id OFFSET 0) r;
  RETURN _flohsync.page_object(_data, _keys.total, list_matches.page, list_matches.page_size);
END
$$;
COMMENT ON FUNCTION flohsync.list_matches(text, text, text, text, int, int, boolean) IS
  'A page of matches in the order of their external ids, of one status, with a text in id, name or e-mail address, '
  'ignoring case, and of stale or active records, where these are given; pages of 1 to 2000 (50), counted from 1; '
  'staleSince is set for stale records';
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
  $sql$, _flohsync.records_sql(c, false), _flohsync.hits_sql(names),
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
-- Workflows: the queue of sync-workflow-trigger jobs, and what the handler made of them.
--
-- A job is queued in the transaction that changed what it tells of, and the
-- handler makes a workflow_run of it there and then.  Doing the workflow is
-- outside of flohsync: an external worker claims the job, or an application
-- that listens to flohsync_workflow reads workflow_run.

CREATE TABLE flohsync.workflow_job (
  id           bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  run_id       bigint,
  workflow_id  uuid REFERENCES flohsync.workflow_definition ON DELETE SET NULL,
  data         jsonb NOT NULL,
  status       text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'running', 'done', 'failed')),
  attempts     integer NOT NULL DEFAULT 0,
  run_after    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  claimed_at   timestamptz,
  error        text,
  created_at   timestamptz NOT NULL DEFAULT pg_catalog.now(),
  finished_at  timestamptz
);
CREATE INDEX workflow_job_queue ON flohsync.workflow_job (run_after, id) WHERE status = 'queued';
CREATE INDEX workflow_job_claimed ON flohsync.workflow_job (claimed_at) WHERE status = 'running';
CREATE INDEX workflow_job_workflow ON flohsync.workflow_job (workflow_id);
CREATE INDEX workflow_job_run ON flohsync.workflow_job (run_id);
COMMENT ON TABLE flohsync.workflow_job IS 'Queue of sync-workflow-trigger jobs';
COMMENT ON COLUMN flohsync.workflow_job.id IS 'Identity of the job';
COMMENT ON COLUMN flohsync.workflow_job.run_id IS 'Run that queued it; null when it was removed from the history';
COMMENT ON COLUMN flohsync.workflow_job.workflow_id IS 'Workflow to run';
COMMENT ON COLUMN flohsync.workflow_job.data IS 'Payload of the job';
COMMENT ON COLUMN flohsync.workflow_job.status IS 'queued, running, done or failed';
COMMENT ON COLUMN flohsync.workflow_job.attempts IS 'Number of attempts';
COMMENT ON COLUMN flohsync.workflow_job.run_after IS 'Earliest time of the next attempt';
COMMENT ON COLUMN flohsync.workflow_job.claimed_at IS 'When a worker last claimed it';
COMMENT ON COLUMN flohsync.workflow_job.error IS 'Message of the last failure';
COMMENT ON COLUMN flohsync.workflow_job.created_at IS 'When it was queued';
COMMENT ON COLUMN flohsync.workflow_job.finished_at IS 'When it ended';
SELECT _flohsync.allow('reader', 'flohsync.workflow_job');

-- No foreign key: a dump carries the jobs of a run that waits for a decision, and not the run.
CREATE FUNCTION _flohsync.runs_removed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  UPDATE flohsync.workflow_job j SET run_id = NULL WHERE j.run_id IN (SELECT r.id FROM removed r);
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION _flohsync.runs_removed() IS 'Clears run_id of the jobs of removed runs';
CREATE TRIGGER runs_removed AFTER DELETE ON flohsync.sync_run REFERENCING OLD TABLE AS removed
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.runs_removed();

CREATE TABLE flohsync.workflow_run (
  id          uuid PRIMARY KEY DEFAULT _flohsync.new_id(),
  job_id      bigint REFERENCES flohsync.workflow_job ON DELETE SET NULL,
  workflow_id uuid REFERENCES flohsync.workflow_definition ON DELETE SET NULL,
  variables   jsonb NOT NULL,
  status      text NOT NULL DEFAULT 'pending',
  created_at  timestamptz NOT NULL DEFAULT pg_catalog.now()
);
CREATE INDEX workflow_run_job ON flohsync.workflow_run (job_id);
CREATE INDEX workflow_run_workflow ON flohsync.workflow_run (workflow_id);
COMMENT ON TABLE flohsync.workflow_run IS 'Workflow runs started by jobs';
COMMENT ON COLUMN flohsync.workflow_run.id IS 'Identity of the workflow run';
COMMENT ON COLUMN flohsync.workflow_run.job_id IS 'Job that started it';
COMMENT ON COLUMN flohsync.workflow_run.workflow_id IS 'Workflow';
COMMENT ON COLUMN flohsync.workflow_run.variables IS 'Variables that it starts with';
COMMENT ON COLUMN flohsync.workflow_run.status IS
  'pending; with a worker that claims jobs, the state of the job: running, done or failed; else set by the application';
COMMENT ON COLUMN flohsync.workflow_run.created_at IS 'When the row was created';
SELECT _flohsync.allow('reader', 'flohsync.workflow_run');

-- What queues the jobs.

CREATE FUNCTION _flohsync.changed_record(_id uuid, _external_id text, _display_name text, _email text, _change text,
                                         _user uuid, _status text) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN pg_catalog.jsonb_build_object('resourceId', _id, 'externalId', _external_id, 'displayName', _display_name,
                                     'email', _email,
                                     'change', _change, 'userId', _user, 'matchStatus', _status);
COMMENT ON FUNCTION _flohsync.changed_record(uuid, text, text, text, text, uuid, text) IS
  'A changed record in the form passed to workflows';

CREATE FUNCTION _flohsync.job_data(_c flohsync.connector_sync_config, _run bigint) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN pg_catalog.jsonb_build_object('connectorId', (_c).connector_id, 'resourceType', (_c).resource_type,
                                     'workflowId', (_c).post_sync_workflow_id, 'triggerMode', (_c).sync_trigger_mode,
                                       'runId', _run);
COMMENT ON FUNCTION _flohsync.job_data(flohsync.connector_sync_config, bigint) IS 'Data that every job has';

CREATE FUNCTION _flohsync.queue_jobs(_c flohsync.connector_sync_config, _run bigint, _data jsonb[]) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  jobs bigint[];
BEGIN
  WITH made AS (
    INSERT INTO flohsync.workflow_job AS j (run_id, workflow_id, data)
    SELECT _run, _c.post_sync_workflow_id, d.data FROM unnest(_data) WITH ORDINALITY AS d(data, position)
      ORDER BY d.position
    RETURNING j.id)
  SELECT array_agg(m.id) INTO jobs FROM made m;
  PERFORM _flohsync.start_workflows(jobs);
  RETURN coalesce(cardinality(jobs), 0);
END
$$;
COMMENT ON FUNCTION _flohsync.queue_jobs(flohsync.connector_sync_config, bigint, jsonb[]) IS
  'Queues sync-workflow-trigger jobs and calls the handler for them; returns their number';

CREATE FUNCTION _flohsync.queue_record_jobs(_c flohsync.connector_sync_config, _run bigint, _records jsonb[])
  RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT _flohsync.queue_jobs(_c, _run, (
    SELECT pg_catalog.array_agg(_flohsync.job_data(_c, _run) || pg_catalog.jsonb_build_object('records', b.records)
                                ORDER BY b.nr)
      FROM (SELECT (e.position - 1) / 500 AS nr, pg_catalog.jsonb_agg(e.record ORDER BY e.position) AS records
              FROM pg_catalog.unnest(_records) WITH ORDINALITY AS e(record, position)
             GROUP BY 1) b));
END;
COMMENT ON FUNCTION _flohsync.queue_record_jobs(flohsync.connector_sync_config, bigint, jsonb[]) IS
  'Queues jobs of at most 500 changed records each';

CREATE FUNCTION _flohsync.trigger_per_record(_c flohsync.connector_sync_config, _run bigint, _seqs bigint[],
                                             _setbacks uuid[],
  OUT jobs bigint, OUT refused bigint, OUT errors jsonb)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET work_mem = '64MB'
AS $$
DECLARE
  records jsonb[];
  known int;
  did record;
BEGIN
  jobs := 0;
  refused := 0;
  errors := '[]';
  SELECT array_agg(f.record ORDER BY f.tried_at NULLS FIRST, f.external_id), count(f.tried_at) INTO records, known
    FROM (SELECT x.external_id, e.tried_at,
                 _flohsync.changed_record(x.id, x.external_id, x.display_name, x.email,
                   -- What several changes come to is what the record is now.
                   CASE WHEN x.stale_since IS NOT NULL AND 'staled' = ANY (e.changes) THEN 'staled'
                     WHEN 'added' = ANY (e.changes) THEN 'added'
                        WHEN 'staled' = ANY (e.changes) OR 'restored' = ANY (e.changes) THEN 'restored'
                          ELSE 'updated' END,
                   m.user_id, m.match_status) AS record
            FROM (SELECT y.resource_id, array_agg(DISTINCT y.change) AS changes, min(y.tried_at) AS tried_at
                    FROM (SELECT g.resource_id, g.change, NULL::timestamptz AS tried_at
                            FROM flohsync.sync_run_page p JOIN flohsync.sync_run r ON r.id = p.run_id
                              CROSS JOIN LATERAL _flohsync.page_changes(p) g
                           WHERE p.changed IS NOT NULL AND r.connector_id = _c.connector_id
                             AND r.resource_type = _c.resource_type
                          UNION ALL
                          SELECT q.resource_id, q.change, NULL FROM _flohsync.record_change q WHERE q.seq = ANY (_seqs)
                              AND q.change <> 'recheck'
                          UNION ALL
                          SELECT s.resource_id, s.change, s.tried_at FROM _flohsync.setback s
                           WHERE s.config_id = _c.id AND s.stage = 'workflow' AND s.resource_id = ANY (_setbacks)) y
                   GROUP BY y.resource_id) e
            JOIN flohsync.resource_record x ON x.id = e.resource_id
            LEFT JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id) f;
  IF records IS NULL THEN
    RETURN;
  END IF;
  did := _flohsync.in_halves('workflow', _c, _run, cardinality(records), known, NULL, NULL, NULL, records);
  jobs := did.jobs;
  refused := cardinality(did.failed);
  SELECT _flohsync.note_setbacks('workflow', _c, _run, NULL, array_agg((f.record ->> 'resourceId')::uuid ORDER BY f.i),
                                 array_agg(f.record ->> 'externalId' ORDER BY f.i),
           array_agg(f.state ORDER BY f.i), array_agg(f.message ORDER BY f.i),
             array_agg(f.record ->> 'change' ORDER BY f.i)) INTO errors
    FROM (SELECT records[u.nr] AS record, u.state, u.message, u.i FROM unnest(did.failed, did.states, did.messages)
          WITH ORDINALITY AS u(nr, state, message, i)) f;
  IF did.untried <> '{}' THEN
    errors := errors || _flohsync.stage_failed(_run, 'workflow', '54000',
                                               'too many rows failed: the others wait for the next run');
    PERFORM _flohsync.note_changes(_c.connector_id, _c.resource_type, array_agg((records[u.nr] ->> 'resourceId')::uuid),
                                   records[u.nr] ->> 'change')
       FROM unnest(did.untried) AS u(nr) GROUP BY records[u.nr] ->> 'change';
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.trigger_per_record(flohsync.connector_sync_config, bigint, bigint[], uuid[]) IS
  'Queues the jobs for each record changed since the workflow was last triggered; returns their number, and the '
  'records for which that failed';

CREATE FUNCTION _flohsync.trigger_summary(_run bigint, _stats jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  FOR _attempt IN 1 .. 3 LOOP
    BEGIN
      PERFORM _flohsync.queue_jobs(c, _run, ARRAY[_flohsync.job_data(c, _run) || jsonb_build_object('stats', _stats)])
         FROM flohsync.sync_run r
         JOIN flohsync.connector_sync_config c ON c.connector_id = r.connector_id AND c.resource_type = r.resource_type
        WHERE r.id = _run AND c.sync_trigger_mode = 'summary' AND c.post_sync_workflow_id IS NOT NULL
          AND (_stats ->> 'added')::bigint + (_stats ->> 'updated')::bigint + (_stats ->> 'restored')::bigint
              + (_stats ->> 'staled')::bigint + (_stats ->> 'removed')::bigint > 0;
      RETURN;
    EXCEPTION WHEN OTHERS THEN
      IF _flohsync.stage_failed(_run, 'workflow', SQLSTATE, SQLERRM, _attempt) <> '[]' THEN
        RETURN;
      END IF;
    END;
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.trigger_summary(bigint, jsonb) IS
  'Queues the one job of a run in which something changed';

-- The handler: what a job becomes.

CREATE FUNCTION _flohsync.job_problem(_j flohsync.workflow_job) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE
  WHEN pg_catalog.jsonb_typeof((_j).data) <> 'object' THEN 'the data of the job is not an object'
  WHEN coalesce((_j).data ->> 'connectorId', '') !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
    THEN '"connectorId" is missing or not an id'
  WHEN coalesce((_j).data ->> 'resourceType', '') !~ '^[A-Za-z][A-Za-z0-9_.-]{0,63}$'
    THEN '"resourceType" is missing or malformed'
  WHEN coalesce((_j).data ->> 'workflowId', '') !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
    THEN '"workflowId" is missing or not an id'
  WHEN coalesce((_j).data ->> 'triggerMode', '') NOT IN ('per_record', 'summary')
    THEN '"triggerMode" is neither per_record nor summary'
  WHEN coalesce(pg_catalog.jsonb_typeof((_j).data -> 'records'), 'array') <> 'array' THEN '"records" is not an array'
  WHEN coalesce(pg_catalog.jsonb_typeof((_j).data -> 'stats'), 'object') <> 'object' THEN '"stats" is not an object'
  WHEN NOT EXISTS (SELECT FROM flohsync.workflow_definition w WHERE w.id = ((_j).data ->> 'workflowId')::uuid)
    THEN pg_catalog.format('workflow %s does not exist', (_j).data ->> 'workflowId')
END;
COMMENT ON FUNCTION _flohsync.job_problem(flohsync.workflow_job) IS 'Why a job is invalid; null when it is valid';

CREATE FUNCTION _flohsync.start_workflows(_jobs bigint[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  started uuid[];
BEGIN
  UPDATE flohsync.workflow_job j SET status = 'failed', error = _flohsync.job_problem(j),
    finished_at = clock_timestamp()
   WHERE j.id = ANY (_jobs) AND j.status = 'queued' AND _flohsync.job_problem(j) IS NOT NULL;
  WITH made AS (
    INSERT INTO flohsync.workflow_run AS r (job_id, workflow_id, variables)
    SELECT j.id, (j.data ->> 'workflowId')::uuid,
           jsonb_strip_nulls(jsonb_build_object('connectorId', j.data -> 'connectorId', 'resourceType',
                                                j.data -> 'resourceType',
             'workflowId', j.data -> 'workflowId', 'triggerMode', j.data -> 'triggerMode', 'runId', j.data -> 'runId'))
           || CASE WHEN j.data ? 'records' THEN jsonb_build_object('records', j.data -> 'records') ELSE '{}' END
           || CASE WHEN j.data ? 'stats' THEN jsonb_build_object('stats', j.data -> 'stats') ELSE '{}' END
      FROM flohsync.workflow_job j
     WHERE j.id = ANY (_jobs) AND j.status = 'queued'
       AND EXISTS (SELECT FROM flohsync.workflow_definition w WHERE w.id = j.workflow_id AND w.enabled)
       AND NOT EXISTS (SELECT FROM flohsync.workflow_run x WHERE x.job_id = j.id)
     ORDER BY j.id
    RETURNING r.job_id, r.workflow_id)
  SELECT array_agg(DISTINCT m.workflow_id) INTO started FROM made m;
  -- A notification has less than 8000 bytes.
  PERFORM pg_notify('flohsync_workflow', jsonb_build_object('workflowIds', jsonb_agg(w.id ORDER BY w.position))::text)
     FROM unnest(started) WITH ORDINALITY AS w(id, position) GROUP BY (w.position - 1) / 100;
END
$$;
COMMENT ON FUNCTION _flohsync.start_workflows(bigint[]) IS
  'The handler of sync-workflow-trigger jobs: checks the data and creates a workflow_run with its variables; '
  'invalid jobs fail permanently';

CREATE FUNCTION _flohsync.workflow_enabled() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.start_workflows(ARRAY(SELECT j.id FROM flohsync.workflow_job j WHERE j.workflow_id = NEW.id
                                          AND j.status = 'queued' ORDER BY j.id));
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION _flohsync.workflow_enabled() IS
  'Calls the handler for the jobs that waited while their workflow was disabled';
CREATE TRIGGER workflow_enabled AFTER UPDATE OF enabled ON flohsync.workflow_definition
FOR EACH ROW WHEN (NEW.enabled AND NOT OLD.enabled) EXECUTE FUNCTION _flohsync.workflow_enabled();

-- For an external worker that executes the workflows.

CREATE FUNCTION flohsync.claim_workflow_jobs(max int) RETURNS SETOF flohsync.workflow_job
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  jobs bigint[];
BEGIN
  PERFORM _flohsync.check_tables();
  IF claim_workflow_jobs.max IS NULL OR claim_workflow_jobs.max < 1 THEN
    PERFORM _flohsync.invalid('max', 'it must be at least 1');
  END IF;
  -- The claiming workers of these are gone.
  UPDATE flohsync.workflow_job j
     SET status = CASE WHEN j.attempts < 3 THEN 'queued' ELSE 'failed' END,
       error = 'the worker did not finish the job within 30 minutes',
         finished_at = CASE WHEN j.attempts >= 3 THEN clock_timestamp() END
   WHERE j.id IN (SELECT x.id FROM flohsync.workflow_job x
                   WHERE x.status = 'running' AND x.claimed_at < clock_timestamp() - interval '30 minutes'
                     FOR UPDATE SKIP LOCKED);
  SELECT array_agg(q.id) INTO jobs
    FROM (SELECT j.id FROM flohsync.workflow_job j
           WHERE j.status = 'queued' AND j.run_after <= clock_timestamp()
             AND NOT EXISTS (SELECT FROM flohsync.workflow_definition w WHERE w.id = j.workflow_id AND NOT w.enabled)
           ORDER BY j.run_after, j.id
           LIMIT claim_workflow_jobs.max FOR UPDATE SKIP LOCKED) q;
  PERFORM _flohsync.start_workflows(jobs);
  RETURN QUERY
  WITH claimed AS (
    UPDATE flohsync.workflow_job j SET status = 'running', attempts = j.attempts + 1, claimed_at = clock_timestamp()
     WHERE j.id = ANY (jobs) AND j.status = 'queued'
    RETURNING j.*
  ), told AS (
    UPDATE flohsync.workflow_run r SET status = 'running' FROM claimed c WHERE r.job_id = c.id
  )
  SELECT * FROM claimed c ORDER BY c.run_after, c.id;
END
$$;
COMMENT ON FUNCTION flohsync.claim_workflow_jobs(int) IS
  'Claims at most a number of jobs for the caller, which must end them with complete_workflow_job() or '
  'fail_workflow_job() within 30 minutes, or they can be claimed again';
SELECT _flohsync.allow('manager', 'flohsync.claim_workflow_jobs(int)');

CREATE FUNCTION _flohsync.claimed_job(_id bigint) RETURNS flohsync.workflow_job
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  j flohsync.workflow_job;
BEGIN
  PERFORM _flohsync.check_tables();
  SELECT * INTO j FROM flohsync.workflow_job x WHERE x.id = _id FOR UPDATE;
  IF NOT FOUND THEN
    PERFORM _flohsync.raise('42704', format('workflow job %s does not exist', coalesce(_id::text, 'NULL')));
  ELSIF j.status <> 'running' THEN
    PERFORM _flohsync.raise('55000',
      format('workflow job %s is not claimed', _id),
      format('Its status is %s.', j.status),
      'Claim jobs with flohsync.claim_workflow_jobs().');
  END IF;
  RETURN j;
END
$$;
COMMENT ON FUNCTION _flohsync.claimed_job(bigint) IS
  'A claimed job, locked; 42704 when there is none, 55000 when it is not claimed';

CREATE FUNCTION _flohsync.end_job(_id bigint, _status text, _error text, _run_after timestamptz) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  UPDATE flohsync.workflow_run r SET status = CASE _status WHEN 'queued' THEN 'pending' ELSE _status END
    WHERE r.job_id = _id;
  UPDATE flohsync.workflow_job j
     SET status = _status, error = _error, run_after = coalesce(_run_after, j.run_after),
         finished_at = CASE WHEN _status <> 'queued' THEN pg_catalog.clock_timestamp() END
   WHERE j.id = _id;
END;
COMMENT ON FUNCTION _flohsync.end_job(bigint, text, text, timestamptz) IS 'Ends a job, or queues it again for later';

CREATE FUNCTION flohsync.complete_workflow_job(id bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.claimed_job(complete_workflow_job.id);
  PERFORM _flohsync.end_job(complete_workflow_job.id, 'done', NULL, NULL);
END
$$;
COMMENT ON FUNCTION flohsync.complete_workflow_job(bigint) IS
  'Marks a claimed job as done; 42704 when there is none, 55000 when it is not claimed';
SELECT _flohsync.allow('manager', 'flohsync.complete_workflow_job(bigint)');

CREATE FUNCTION flohsync.fail_workflow_job(id bigint, error text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  j flohsync.workflow_job := _flohsync.claimed_job(fail_workflow_job.id);
  outcome text := CASE WHEN j.attempts < 3 THEN 'queued' ELSE 'failed' END;
BEGIN
  PERFORM _flohsync.end_job(j.id, outcome, coalesce(fail_workflow_job.error, 'unknown error'),
                            clock_timestamp() + interval '5 seconds' * (1 << least(j.attempts - 1, 2)));
  RETURN outcome;
END
$$;
COMMENT ON FUNCTION flohsync.fail_workflow_job(bigint, text) IS
  'Marks a claimed job as failed: it is queued again after 5, then 10 seconds, and fails permanently at the third '
  'attempt; returns queued or failed';
SELECT _flohsync.allow('manager', 'flohsync.fail_workflow_job(bigint, text)');

-- The history of runs and of jobs.

CREATE FUNCTION _flohsync.forget_history(_retention interval) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  -- Jobs that nobody claims count as failures: what is to be done is in workflow_run.
  DELETE FROM flohsync.workflow_job j
   WHERE j.id IN (SELECT x.id FROM flohsync.workflow_job x
                   WHERE x.status <> 'running' AND x.created_at < pg_catalog.clock_timestamp() - _retention
                     * CASE x.status WHEN 'done' THEN 1 ELSE 3 END
                   ORDER BY x.id LIMIT 1000 FOR UPDATE SKIP LOCKED);
  DELETE FROM flohsync.workflow_run r
   WHERE r.id IN (SELECT x.id FROM flohsync.workflow_run x
                   WHERE x.job_id IS NULL AND x.status IN ('done', 'failed')
                     AND x.created_at < pg_catalog.clock_timestamp() - _retention
                   ORDER BY x.id LIMIT 1000 FOR UPDATE SKIP LOCKED);
  -- The last run of a configuration stays.
  DELETE FROM flohsync.sync_run r
   WHERE r.id IN (SELECT x.id FROM flohsync.sync_run x
                   WHERE x.status IN ('success', 'error', 'cancelled')
                     AND x.finished_at < pg_catalog.clock_timestamp() - _retention * CASE x.status
                       WHEN 'error' THEN 3 ELSE 1 END
                   ORDER BY x.id LIMIT 1000 FOR UPDATE SKIP LOCKED)
     AND EXISTS (SELECT FROM flohsync.sync_run n WHERE n.connector_id = r.connector_id
                 AND n.resource_type = r.resource_type AND n.id > r.id);
END;
COMMENT ON FUNCTION _flohsync.forget_history(interval) IS
  'Removes runs and workflow jobs that ended longer ago than the retention, failed ones after three times that';
-- What writes records in SQL, and nothing else does: the verbs.  Pages, upserts
-- and webhooks, which add, update, restore and touch records, do that in
-- src/record/statements.c.
--
-- Each verb has its change noted by records_changed, as apply.c does: that is the
-- one place where whoever has to know of a change is told of it.
--
-- The callers have locked the records, many of them in the order of their
-- external ids (40_run).  What the absence of a record means for its user is
-- written elsewhere (departure, 51_change).

-- By which rules a write gives way.

-- src/record/write.h says the same for statements in C.
CREATE FUNCTION _flohsync.is_news(_r flohsync.resource_record, _observed_at timestamptz, _event_at timestamptz)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN coalesce((_r).event_at <= _event_at, true)
  AND ((_r).observed_at > pg_catalog.clock_timestamp()
       OR _observed_at >= greatest((_r).observed_at, CASE WHEN (_r).stale_since IS NULL THEN
            (SELECT c.last_full_pass_at FROM flohsync.connector_sync_config c
              WHERE c.connector_id = (_r).connector_id AND c.resource_type = (_r).resource_type) END));
COMMENT ON FUNCTION _flohsync.is_news(flohsync.resource_record, timestamptz, timestamptz) IS
  'Whether an event is not older than the stored record; a stored time in the future is ignored as a clock error';

-- The note of change.

CREATE FUNCTION _flohsync.records_changed(_connector uuid, _type text, _change text, _ids uuid[],
  _external_ids text[], _queue boolean) RETURNS void
LANGUAGE c VOLATILE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_records_changed';
COMMENT ON FUNCTION _flohsync.records_changed(uuid, text, text, uuid[], text[], boolean) IS
  'Notes that records of a type were added, updated, restored, staled or removed: the cache forgets the external ids '
  '(null: none), and post-sync finds the ids in record_change if they are to be queued for it';

-- The verbs.

CREATE FUNCTION _flohsync.records_confirmed(_ids uuid[], _observed_at timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  UPDATE flohsync.resource_record r
     SET observed_at = _observed_at
    FROM unnest(_ids) u(id) WHERE r.id = u.id;
END
$$;
COMMENT ON FUNCTION _flohsync.records_confirmed(uuid[], timestamptz) IS
  'Notes of records when they were last there; they have not changed';

CREATE FUNCTION _flohsync.records_staled(_connector uuid, _type text, _ids uuid[], _confirmed_at timestamptz,
  _observed_at timestamptz DEFAULT NULL, _event_at timestamptz DEFAULT NULL, _queue boolean DEFAULT true) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- To plan for the one record of a webhook would take longer than to write it; nor
-- does the plan depend on how large the table was when it was made.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
DECLARE
  n bigint;
  staled uuid[];
  _caching boolean := _flohsync.caching();
  _keys text[];
BEGIN
  WITH done AS (
    UPDATE flohsync.resource_record r
       SET stale_since = coalesce(r.stale_since, clock_timestamp()),
           observed_at = coalesce(_observed_at, greatest(r.observed_at, _confirmed_at)),
           event_at = coalesce(_event_at, r.event_at),
           event_keys = CASE WHEN _observed_at IS NULL THEN r.event_keys END
      FROM unnest(_ids) u(id) WHERE r.id = u.id
    RETURNING r.id, r.external_id)
  SELECT count(*), array_agg(d.id), array_agg(d.external_id) FILTER (WHERE _caching)
    INTO n, staled, _keys FROM done d;
  PERFORM _flohsync.records_changed(_connector, _type, 'staled', staled, _keys, _queue);
  RETURN n;
END
$$;
COMMENT ON FUNCTION _flohsync.records_staled(uuid, text, uuid[], timestamptz, timestamptz, timestamptz, boolean) IS
  'Marks records stale and returns their number: they were found missing, and had been confirmed by a pass that began '
  'at _confirmed_at; or an event said so, which was observed at _observed_at and happened at _event_at (null: unknown)';

CREATE FUNCTION _flohsync.records_leaving(_ids uuid[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  UPDATE flohsync.resource_record r
     SET stale_since = coalesce(r.stale_since, clock_timestamp())
    FROM unnest(_ids) u(id) WHERE r.id = u.id;
END
$$;
COMMENT ON FUNCTION _flohsync.records_leaving(uuid[]) IS
  'Has records that are about to be removed count as stale while their users are looked at; then records_removed '
  'follows, or records_staled';

CREATE FUNCTION _flohsync.records_removed(_connector uuid, _type text, _ids uuid[], _tell boolean, _run bigint)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  n bigint;
  removed uuid[];
  gone jsonb[];
  did record;
  c flohsync.connector_sync_config;
  _caching boolean := _flohsync.caching();
  _keys text[];
BEGIN
  -- In one order, which that of the deletion is not.
  PERFORM FROM flohsync.connector_sync_match m WHERE m.connector_resource_id = ANY (_ids) ORDER BY m.id FOR UPDATE;
  WITH purged AS (
    DELETE FROM flohsync.resource_record r
     USING unnest(_ids) AS old(id)
     WHERE r.id = old.id
    RETURNING r.id, r.external_id, r.display_name, r.email
  ), identities AS (
    -- Of a user who was deactivated it stays: by it he is known when he comes back.
    DELETE FROM flohsync.user_external_identity i
     USING purged p JOIN flohsync.connector_sync_match m ON m.connector_resource_id = p.id
     WHERE i.user_id = m.user_id AND i.connector_id = _connector AND i.external_id = p.external_id
       AND i.source = 'connector_sync' AND EXISTS (SELECT FROM _flohsync.app_user u WHERE u.id = i.user_id)
    RETURNING 1
  )
  SELECT count(*), array_agg(p.id),
         array_agg(_flohsync.changed_record(p.id, p.external_id, p.display_name, p.email, 'removed',
                                            m.user_id, m.match_status)
                   ORDER BY p.external_id) FILTER (WHERE _tell),
         array_agg(p.external_id) FILTER (WHERE _caching)
    INTO n, removed, gone, _keys
    FROM purged p LEFT JOIN flohsync.connector_sync_match m ON m.connector_resource_id = p.id;
  PERFORM _flohsync.records_changed(_connector, _type, 'removed', removed, _keys, false);
  PERFORM _flohsync.forget_departures(_ids);
  SELECT * INTO c FROM flohsync.connector_sync_config x WHERE x.connector_id = _connector AND x.resource_type = _type;
  IF gone IS NOT NULL AND _flohsync.triggers_per_record(c) THEN
    did := _flohsync.in_halves('workflow', c, _run, cardinality(gone), 0, NULL, NULL, NULL, gone);
    -- A record of which the workflow cannot be told goes all the same.
    PERFORM _flohsync.note_setbacks('workflow', c, _run, NULL, NULL,
                                    array_agg(gone[f.nr] ->> 'externalId' ORDER BY f.i),
                                    array_agg(f.state ORDER BY f.i), array_agg(f.message ORDER BY f.i))
       FROM unnest(did.failed, did.states, did.messages) WITH ORDINALITY AS f(nr, state, message, i);
  END IF;
  RETURN n;
END
$$;
COMMENT ON FUNCTION _flohsync.records_removed(uuid, text, uuid[], boolean, bigint) IS
  'Removes records with what depends on them, under the lock of their matching; workflows are told if they shall be, '
  'on behalf of a run or (null) of none';

CREATE FUNCTION _flohsync.record_absent(_connector uuid, _type text, _external_id text) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  own uuid;
BEGIN
  -- Waits for, or makes wait, whoever else inserts that key.
  INSERT INTO flohsync.resource_record AS r (connector_id, resource_type, external_id, sync_hash, observed_at)
  VALUES (_connector, _type, _external_id, '', clock_timestamp())
  ON CONFLICT (external_id, resource_type, connector_id) DO NOTHING
  RETURNING r.id INTO own;
  DELETE FROM flohsync.resource_record r WHERE r.id = own;
  RETURN FOUND;
END
$$;
COMMENT ON FUNCTION _flohsync.record_absent(uuid, text, text) IS
  'Whether there is no record of an id, and nobody can insert one until the end of the transaction';
-- Asking for records.

CREATE FUNCTION _flohsync.resource_dto(_r flohsync.connector_resource) RETURNS jsonb
LANGUAGE sql STABLE
RETURN pg_catalog.jsonb_build_object(
  'id', (_r).id, 'connectorId', (_r).connector_id, 'resourceType', (_r).resource_type, 'externalId', (_r).external_id,
  'displayName', (_r).display_name, 'email', (_r).email, 'attributes', (_r).attributes, 'syncHash', (_r).sync_hash,
  'staleSince', _flohsync.iso((_r).stale_since), 'syncedAt', _flohsync.iso((_r).synced_at), 'createdAt',
    _flohsync.iso((_r).created_at));
COMMENT ON FUNCTION _flohsync.resource_dto(flohsync.connector_resource) IS 'A record in its public JSON form';

-- From one type to the next, not from record to record.
CREATE FUNCTION _flohsync.types_of(_connector uuid) RETURNS text[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
DECLARE
  types text[] := '{}';
  type text;
BEGIN
  LOOP
    SELECT x.resource_type INTO type FROM flohsync.resource_record x
     WHERE x.connector_id = _connector AND x.resource_type > coalesce(type, '') ORDER BY x.resource_type LIMIT 1;
    EXIT WHEN NOT FOUND;
    types := types || type;
  END LOOP;
  RETURN types;
END
$$;
COMMENT ON FUNCTION _flohsync.types_of(uuid) IS 'The resource types for which a connector has records';

CREATE FUNCTION flohsync.list_resources(connector text, resource_type text DEFAULT NULL, search text DEFAULT NULL,
                                        stale boolean DEFAULT NULL,
  page int DEFAULT 1, page_size int DEFAULT 50, after text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _connector uuid := _flohsync.connector_id(connector);
  _type text := CASE WHEN list_resources.resource_type IS NOT NULL
    THEN _flohsync.check_resource_type(list_resources.resource_type) END;
  _search text := _flohsync.search_fold(nullif(list_resources.search, ''));
  -- What a total belongs to
  _list text := _flohsync.digest(jsonb_build_array(_connector, _type, _search, list_resources.stale)::text);
  _after record := _flohsync.read_page_mark(nullif(list_resources.after, ''), _list);
  _size constant int := list_resources.page_size;
  _keys record;
  _data jsonb;
  _more boolean;
BEGIN
  PERFORM _flohsync.check_page(list_resources.page, _size);
  SELECT * INTO _keys FROM _flohsync.list_keys('flohsync.resource_record x',
    CASE WHEN stale THEN ' AND x.stale_since IS NOT NULL' WHEN NOT stale THEN ' AND x.stale_since IS NULL' ELSE '' END,
    'email', 'display_name', _flohsync.search_index('flohsync.resource_record'),
    _connector, CASE WHEN _type IS NULL THEN _flohsync.types_of(_connector) ELSE ARRAY[_type] END, _search,
      _after.external_id, _after.resource_type,
    _size, CASE WHEN _after.external_id IS NULL THEN (list_resources.page - 1)::bigint * _size ELSE 0 END, true,
    _flohsync.count_of(_connector, _type, CASE WHEN stale THEN '{stale}' WHEN NOT stale THEN '{live}'
                       ELSE '{live,stale}' END::text[]), _after.total);
  _more := cardinality(_keys.external_ids) > _size;
  SELECT jsonb_agg(_flohsync.resource_dto(r) ORDER BY k.position) INTO _data
    FROM unnest(_keys.external_ids[:_size], _keys.types[:_size]) WITH ORDINALITY AS k(external_id, type, position)
   CROSS JOIN LATERAL (SELECT r.* FROM flohsync.connector_resource r
     -- by index, whatever their number
     WHERE r.external_id = k.external_id AND r.resource_type = k.type AND r.connector_id = _connector OFFSET 0) r;
  RETURN _flohsync.page_object(_data, _keys.total, list_resources.page, _size)
         || jsonb_build_object('nextAfter',
                               CASE WHEN _more THEN _flohsync.page_mark(_keys.external_ids[_size],
                                   _keys.types[_size], _list,
                                                                   CASE WHEN _search IS NOT NULL AND _keys.total > 20000
                                                                     THEN _keys.total END) END);
END
$$;
COMMENT ON FUNCTION flohsync.list_resources(text, text, text, boolean, int, int, text) IS
  'A page of records of a connector, of all types or one, in byte order of external id and type; search: only those '
  'with this text in id, e-mail address or name, ignoring case; stale: only stale, or only active ones; pages of 1 to '
  '2000 (50), counted from 1; after: instead of page, the nextAfter of the page before, which is null at the end. '
  '42704 for an unknown connector, 22023 names the invalid argument';
SELECT _flohsync.allow('reader', 'flohsync.list_resources(text, text, text, boolean, int, int, text)');

CREATE FUNCTION flohsync.get_resource(connector text, resource_type text, external_id text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _connector uuid := _flohsync.connector_id(connector);
  _type text := _flohsync.check_resource_type(get_resource.resource_type);
BEGIN
  RETURN (SELECT _flohsync.resource_dto(r) FROM flohsync.connector_resource r
           WHERE r.external_id = get_resource.external_id AND r.resource_type = _type AND r.connector_id = _connector);
END
$$;
COMMENT ON FUNCTION flohsync.get_resource(text, text, text) IS
  'One record in the form of list_resources(); null when there is none; 42704 for an unknown connector, 22023 '
  'for a malformed resource type';
SELECT _flohsync.allow('reader', 'flohsync.get_resource(text, text, text)');
-- Tables behind the cache and the webhooks.

-- The columns of these three are read by src/record/outbox.c, in this order.
CREATE TABLE _flohsync.cache_state (
  id         boolean PRIMARY KEY DEFAULT true CHECK (id),
  server     bigint,
  epoch      bigint NOT NULL DEFAULT 0,
  timeline   integer NOT NULL DEFAULT 0,
  changed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
) WITH (fillfactor = 50);
INSERT INTO _flohsync.cache_state DEFAULT VALUES;
COMMENT ON TABLE _flohsync.cache_state IS 'The Redis server that the cache uses; one row';
COMMENT ON COLUMN _flohsync.cache_state.id IS 'Limits the table to one row';
COMMENT ON COLUMN _flohsync.cache_state.server IS
  'Identity of the Redis server, from its URL, run_id and replication id; null: there is no cache, and '
  'changes are not recorded for it';
COMMENT ON COLUMN _flohsync.cache_state.epoch IS 'Random number; part of the epoch of every cached value';
COMMENT ON COLUMN _flohsync.cache_state.timeline IS 'Timeline of this server when the row was written';
COMMENT ON COLUMN _flohsync.cache_state.changed_at IS 'When the row was written';

CREATE TABLE _flohsync.cache_epoch (
  connector_id  uuid NOT NULL,
  resource_type varchar(64) COLLATE "C" NOT NULL,
  epoch         bigint NOT NULL,
  PRIMARY KEY (connector_id, resource_type)
) WITH (fillfactor = 50);
COMMENT ON TABLE _flohsync.cache_epoch IS
  'Further parts of the epoch of cached values: changing one invalidates all of them';
COMMENT ON COLUMN _flohsync.cache_epoch.connector_id IS 'Connector';
COMMENT ON COLUMN _flohsync.cache_epoch.resource_type IS 'Resource type; empty: all';
COMMENT ON COLUMN _flohsync.cache_epoch.epoch IS 'Random number';

CREATE TABLE _flohsync.cache_outbox (
  connector_id  uuid NOT NULL,
  resource_type varchar(64) COLLATE "C" NOT NULL DEFAULT '',
  external_id   varchar(255) COLLATE "C" NOT NULL DEFAULT '',
  seq           bigint NOT NULL GENERATED ALWAYS AS IDENTITY (CACHE 100),
  created_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  -- seq is in it because no writer shall wait for another who invalidates the same.
  PRIMARY KEY (connector_id, resource_type, external_id, seq)
);
COMMENT ON TABLE _flohsync.cache_outbox IS 'Cache entries to be invalidated; an empty type or id means all';
COMMENT ON COLUMN _flohsync.cache_outbox.connector_id IS 'Connector';
COMMENT ON COLUMN _flohsync.cache_outbox.resource_type IS 'Resource type';
COMMENT ON COLUMN _flohsync.cache_outbox.external_id IS 'Id in the upstream';
COMMENT ON COLUMN _flohsync.cache_outbox.seq IS 'Distinguishes requests for the same entry';
COMMENT ON COLUMN _flohsync.cache_outbox.created_at IS 'When the invalidation was requested';

CREATE FUNCTION _flohsync.connectors_changed() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'flohsync_connectors_changed';
COMMENT ON FUNCTION _flohsync.connectors_changed() IS
  'Notifies readers of the cache that connectors may have been renamed';
CREATE TRIGGER connectors_changed BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON flohsync.connector_definition
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.connectors_changed();

CREATE TABLE _flohsync.webhook_delivery (
  connector_id uuid NOT NULL,  -- no foreign key: it would be checked, and its row locked, for each delivery
  webhook_id   text NOT NULL,
  received_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  PRIMARY KEY (connector_id, webhook_id)
);
COMMENT ON TABLE _flohsync.webhook_delivery IS 'Ids of received webhooks, so that each is processed once';
COMMENT ON COLUMN _flohsync.webhook_delivery.connector_id IS 'Connector';
COMMENT ON COLUMN _flohsync.webhook_delivery.webhook_id IS
  'Id from the sender, or, where that is not signed, a digest of it and the body';
COMMENT ON COLUMN _flohsync.webhook_delivery.received_at IS 'When it was received';

CREATE TABLE flohsync.entitlement_event (
  id           bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  connector_id uuid NOT NULL REFERENCES flohsync.connector_definition ON DELETE CASCADE,
  body         jsonb NOT NULL,
  received_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE flohsync.entitlement_event IS 'Webhooks without a resource type, for the entitlement handler';
COMMENT ON COLUMN flohsync.entitlement_event.id IS 'Identity of the event';
COMMENT ON COLUMN flohsync.entitlement_event.connector_id IS 'Connector';
COMMENT ON COLUMN flohsync.entitlement_event.body IS 'Body of the webhook';
COMMENT ON COLUMN flohsync.entitlement_event.received_at IS 'When it was received';
SELECT _flohsync.allow('manager', 'flohsync.entitlement_event');
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
-- Webhooks: what an upstream tells of by itself.
--
-- src/webhook/webhook.c reads and verifies a delivery, and stores a record; here is
-- what it does to the tables beside that.
--
-- Which of two observations is newer?
--   - Against pages and upserts: observed_at, by our own clock, as everywhere.
--     An event counts as observed when the row has been locked for it; one that
--     happened more than five minutes before as five minutes after it happened
--     (so a sender that makes up for an outage does not undo a pass, and a clock
--     of the upstream's that is somewhat wrong does no harm).
--   - Against other events of the record: event_at, by the upstream's clock, as
--     far as events say it.
--
-- A deletion leaves a tombstone.  It has to hold against a transaction that is just
-- inserting the record and cannot see it yet, so:
--   - the deletion writes the tombstone, and makes sure that no such insert is
--     under way: finding no row it inserts and deletes one, which waits for, or
--     makes wait, any other insert of that key;
--   - the insert looks for tombstones after inserting, at what is committed by
--     then (apply.c).

CREATE INDEX webhook_delivery_age ON _flohsync.webhook_delivery (received_at);

CREATE TRIGGER deliveries_removed AFTER DELETE ON flohsync.connector_definition
FOR EACH ROW EXECUTE FUNCTION _flohsync.connector_removed('_flohsync.webhook_delivery');

CREATE TABLE _flohsync.webhook_handler (
  id         boolean PRIMARY KEY DEFAULT true CHECK (id),
  handler    text NOT NULL,
  owner      _flohsync.role NOT NULL,
  code_owner _flohsync.role NOT NULL,
  set_at     timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE _flohsync.webhook_handler IS
  'The entitlement handler; no row: events are recorded in entitlement_event';
COMMENT ON COLUMN _flohsync.webhook_handler.id IS 'Limits the table to one row';
COMMENT ON COLUMN _flohsync.webhook_handler.handler IS 'Function with its argument types';
COMMENT ON COLUMN _flohsync.webhook_handler.owner IS
  'Role that set it, with whose rights it runs; for a superuser, the rights of the function''s owner, or none '
  'if that is a superuser, too';
COMMENT ON COLUMN _flohsync.webhook_handler.code_owner IS
  'Owner of the function when it was set; it is not called after a change of its owner';
COMMENT ON COLUMN _flohsync.webhook_handler.set_at IS 'When it was set';

CREATE FUNCTION _flohsync.guard_handler() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF TG_OP <> 'INSERT' AND NOT coalesce(_flohsync.may_act_as(_flohsync.role_oid(OLD.owner)), true)
     OR TG_OP <> 'DELETE' AND NOT coalesce(_flohsync.may_act_as(_flohsync.role_oid(NEW.owner)), true) THEN
    PERFORM _flohsync.raise('42501',
      _flohsync.clean(format('the entitlement handler runs with the rights of role "%s"',
                             _flohsync.role_name(CASE TG_OP WHEN 'INSERT' THEN NEW.owner ELSE OLD.owner END))),
      NULL,
      'Only a member of that role can set or change it.');
  END IF;
  RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$;
COMMENT ON FUNCTION _flohsync.guard_handler() IS
  'Prevents a role from changing what another role runs as the entitlement handler';
CREATE TRIGGER guard_handler BEFORE INSERT OR UPDATE OR DELETE ON _flohsync.webhook_handler
FOR EACH ROW EXECUTE FUNCTION _flohsync.guard_handler();

CREATE FUNCTION _flohsync.function_of_handler(_handler text) RETURNS oid
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  form text[] := regexp_match(_handler, '^(.*)\((uuid, jsonb|text, jsonb|jsonb)\)$');
  part text[] := parse_ident(form[1]);
BEGIN
  -- Not to_regprocedure: it takes USAGE on the schema, which no role here needs.
  RETURN (SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
           WHERE n.nspname = part[1] AND p.proname = part[2] AND oidvectortypes(p.proargtypes) = form[2]
             AND p.prokind = 'f' AND NOT p.proretset);
END
$$;
COMMENT ON FUNCTION _flohsync.function_of_handler(text) IS
  'The function that a text of webhook_handler names; null when there is none';

CREATE FUNCTION _flohsync.set_entitlement_handler(handler regprocedure) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  p pg_proc;
BEGIN
  IF set_entitlement_handler.handler IS NULL THEN
    DELETE FROM _flohsync.webhook_handler;
    RETURN;
  END IF;
  SELECT x.* INTO p FROM pg_proc x WHERE x.oid = set_entitlement_handler.handler;
  IF p.oid IS NULL OR p.prokind <> 'f' OR p.proretset
     OR oidvectortypes(p.proargtypes) NOT IN ('uuid, jsonb', 'text, jsonb', 'jsonb') THEN
    PERFORM _flohsync.invalid('handler',
                              format('%s cannot handle entitlement events',
                                     coalesce(p.oid::regprocedure::text, set_entitlement_handler.handler::text)),
      'A handler is a function (connector uuid, body jsonb); if it returns a boolean, that says '
      'whether it changed anything.');
  ELSIF NOT has_function_privilege(_flohsync.caller(), p.oid, 'EXECUTE') THEN
    PERFORM _flohsync.raise('42501', format('permission denied for function %s', p.oid::regprocedure));
  END IF;
  INSERT INTO _flohsync.webhook_handler AS h (handler, owner, code_owner)
  SELECT format('%I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)), _flohsync.role(_flohsync.caller()),
    _flohsync.role(p.proowner)
    FROM pg_namespace n WHERE n.oid = p.pronamespace
  ON CONFLICT (id) DO UPDATE SET handler = EXCLUDED.handler, owner = EXCLUDED.owner, code_owner = EXCLUDED.code_owner,
    set_at = EXCLUDED.set_at;
END
$$;
COMMENT ON FUNCTION _flohsync.set_entitlement_handler(regprocedure) IS
  'Implementation of the public function of this name, run as its owner';

CREATE FUNCTION flohsync.set_entitlement_handler(handler regprocedure) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_owner';
COMMENT ON FUNCTION flohsync.set_entitlement_handler(regprocedure) IS
  'Sets the function (connector uuid, body jsonb) that handles webhooks without a resource type; it runs with the '
  'rights of the caller (of the function''s owner, if the caller is a superuser; with none, if both are), and its '
  'error makes the sender retry; null: they are recorded in entitlement_event; 42501 unless the caller may execute it '
  'and is a member of the role that set the previous one';

CREATE FUNCTION flohsync.handle_webhook(connector text, body jsonb) RETURNS jsonb
LANGUAGE c VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_handle_webhook';
COMMENT ON FUNCTION flohsync.handle_webhook(text, jsonb) IS
  'Processes a webhook that the caller has verified: {"accepted":true,"action":…,"changed":…}; 22023 for an invalid '
  'body, 55000 for a disabled connector';
SELECT _flohsync.allow('manager', 'flohsync.handle_webhook(text, jsonb)');

CREATE FUNCTION flohsync.receive_webhook(connector text, body bytea, headers jsonb) RETURNS jsonb
LANGUAGE c VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_receive_webhook';
COMMENT ON FUNCTION flohsync.receive_webhook(text, bytea, jsonb) IS
  'Verifies and processes a webhook: the body as received, the headers as an object of strings; 28000 when it is not '
  'authentic, whatever the reason; then as handle_webhook()';
SELECT _flohsync.allow('manager', 'flohsync.receive_webhook(text, bytea, jsonb)');

-- Failures.

CREATE FUNCTION _flohsync.webhook_failed(_record flohsync.resource_record, _stage text, _state text, _message text)
  RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT _flohsync.stage_failed(NULL, _stage, _state, _message, _record => _record);
  -- The next post-sync makes up for it.
  SELECT _flohsync.note_changes((_record).connector_id, (_record).resource_type, ARRAY[(_record).id], 'recheck');
END;
COMMENT ON FUNCTION _flohsync.webhook_failed(flohsync.resource_record, text, text, text) IS
  'Records that post-processing of a webhook failed, and queues the record for the next post-sync';

-- Added, updated or restored.

-- A webhook waits for a matching of many before it locks its record; the message says why it does not have to.
CREATE FUNCTION _flohsync.await_matching(_connector uuid, _type text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.share_matching(_connector, _type);
  RETURN NULL;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
  RETURN _flohsync.clean(SQLERRM);
END
$$;
COMMENT ON FUNCTION _flohsync.await_matching(uuid, text) IS
  'Like share_matching(), for a webhook, which continues without the lock when it is not available: null, or why it '
  'is not';

CREATE FUNCTION _flohsync.follow_webhook(_record uuid, _change text, _hindered text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  c flohsync.connector_sync_config;
  x flohsync.resource_record;
  did record;
  held boolean;
BEGIN
  SELECT * INTO STRICT x FROM flohsync.resource_record y WHERE y.id = _record;
  SELECT * INTO c FROM flohsync.connector_sync_config y WHERE y.connector_id = x.connector_id
      AND y.resource_type = x.resource_type;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  BEGIN
    IF _flohsync.matches_users(c) AND _hindered IS NOT NULL THEN
      PERFORM _flohsync.webhook_failed(x, 'match', '55P03', _hindered);
    ELSIF _flohsync.matches_users(c) THEN
      -- No user is created while a run is held.
      held := c.create_users AND EXISTS (SELECT FROM flohsync.sync_run r
                 WHERE r.connector_id = c.connector_id AND r.resource_type = c.resource_type AND r.status = 'held');
      did := _flohsync.process_users(c, ARRAY[x.id], ARRAY[x.id], NULL, held, false, false, false, x);
      IF did.errors <> '[]' OR (held AND coalesce((did.report ->> 'createPending')::int, 0) > 0) THEN
        PERFORM _flohsync.note_changes(c.connector_id, c.resource_type, ARRAY[x.id], 'recheck');
      END IF;
    END IF;
  EXCEPTION WHEN OTHERS THEN
    PERFORM _flohsync.webhook_failed(x, 'match', SQLSTATE, SQLERRM);
  END;
  BEGIN
    IF _flohsync.triggers_per_record(c) THEN
      PERFORM _flohsync.queue_record_jobs(c, NULL, ARRAY[
                _flohsync.changed_record(x.id, x.external_id, x.display_name, x.email, _change, m.user_id,
                                         m.match_status)])
         FROM (SELECT) one LEFT JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id;
    END IF;
  EXCEPTION WHEN OTHERS THEN
    PERFORM _flohsync.webhook_failed(x, 'workflow', SQLSTATE, SQLERRM);
    PERFORM _flohsync.note_changes(c.connector_id, c.resource_type, ARRAY[x.id], _change);
  END;
END
$$;
COMMENT ON FUNCTION _flohsync.follow_webhook(uuid, text, text) IS
  'Runs post-sync processing for one record that a webhook changed; failures, including that of the lock of the '
  'matching, are recorded, not raised';

-- Out of the scope that the filter rules set: as a complete pass would find it.

CREATE FUNCTION _flohsync.leave_scope(_record uuid, _observed_at timestamptz, _event_at timestamptz) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  x flohsync.resource_record;
BEGIN
  SELECT * INTO x FROM flohsync.resource_record r
   WHERE r.id = _record AND r.stale_since IS NULL AND _flohsync.is_news(r, _observed_at, _event_at);
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  -- Who leaves by that is for the next post-sync to say: its safeguard sees how many there are.
  PERFORM _flohsync.records_staled(x.connector_id, x.resource_type, ARRAY[x.id], NULL, _observed_at, _event_at);
  RETURN true;
END
$$;
COMMENT ON FUNCTION _flohsync.leave_scope(uuid, timestamptz, timestamptz) IS
  'Marks a record, which the caller has locked, stale because an event moved it out of scope; '
  'false when it was stale already or is newer';

-- Deleted.

CREATE FUNCTION _flohsync.deactivation_limit_reached(_c flohsync.connector_sync_config) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  max_fraction numeric := (_c.safeguards ->> 'maxDeactivateFraction')::numeric;
  min_records numeric := coalesce((_c.safeguards ->> 'minRecords')::numeric, 0);
  n bigint;
  active bigint;
BEGIN
  IF max_fraction IS NULL THEN
    RETURN false;
  END IF;
  SELECT count(*) + 1 INTO n FROM _flohsync.resource_tombstone t
   WHERE t.connector_id = _c.connector_id AND t.resource_type = _c.resource_type AND t.deactivated
     AND t.made_at > clock_timestamp() - interval '24 hours';
  IF n <= min_records THEN
    RETURN false;
  END IF;
  -- The users there were: those who are gone count, and so many of the others are enough to know.
  SELECT count(*) + n - 1 INTO active
    FROM (SELECT FROM flohsync.connector_sync_match m
            JOIN _flohsync.app_user u ON u.id = m.user_id
           WHERE m.connector_id = _c.connector_id AND m.resource_type = _c.resource_type
             AND m.match_status IN ('matched', 'manual_override') AND coalesce(u.active, true)
           LIMIT CASE WHEN max_fraction > 0 THEN ceil(n / max_fraction) ELSE 0 END) u;
  RETURN n > max_fraction * active;
END
$$;
COMMENT ON FUNCTION _flohsync.deactivation_limit_reached(flohsync.connector_sync_config) IS
  'Whether one more deactivation by a webhook would exceed the safeguard within 24 hours';

-- _prepare_removal applies the rules about the user of a record that is to be removed:
-- true when that may be done.  Otherwise the record must stay, stale, because the next
-- post-sync has to look at it.
CREATE FUNCTION _flohsync.prepare_removal(_c flohsync.connector_sync_config, _x flohsync.resource_record,
                                          _hindered text, OUT removable boolean, OUT deactivated boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  users uuid[];
BEGIN
  removable := true;
  deactivated := false;
  IF _hindered IS NOT NULL THEN
    RAISE lock_not_available USING MESSAGE = _flohsync.clean(_hindered);
  END IF;
  -- All records of the user in one order: when the last two of them go at once, one sees that it is the last.
  PERFORM FROM flohsync.connector_sync_match m
    WHERE m.user_id = (SELECT o.user_id FROM flohsync.connector_sync_match o WHERE o.connector_resource_id = _x.id)
    ORDER BY m.id FOR UPDATE;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  PERFORM _flohsync.records_leaving(ARRAY[_x.id]);
  IF _c.deactivate_users THEN
    users := ARRAY(SELECT * FROM _flohsync.users_to_deactivate(_c, ARRAY[_x.id]));
    IF users <> '{}' THEN
      IF _flohsync.deactivation_limit_reached(_c) THEN
        INSERT INTO flohsync.sync_error (connector_id, resource_type, external_id, error_class, message)
        VALUES (_x.connector_id, _x.resource_type, _x.external_id, _flohsync.error_class('safeguard'),
                'the user was not deactivated: webhooks would have deactivated more users within 24 hours than the '
                'safeguard allows; the next run decides');
        PERFORM _flohsync.note_changes(_x.connector_id, _x.resource_type, ARRAY[_x.id], 'staled');
        removable := false;
        RETURN;
      END IF;
      PERFORM flohsync._user_deactivate(users, NULL);
      deactivated := true;
    END IF;
  END IF;
  PERFORM _flohsync.requeue_in_other_configs(_c, ARRAY[_x.id]);
EXCEPTION WHEN OTHERS THEN
  -- A user to be deactivated must not be lost with the record.
  PERFORM _flohsync.webhook_failed(_x, 'deactivate', SQLSTATE, SQLERRM);
  removable := false;
  deactivated := false;
END
$$;
COMMENT ON FUNCTION _flohsync.prepare_removal(flohsync.connector_sync_config, flohsync.resource_record, text) IS
  'Deactivates the user of a record that is to be removed if so configured; returns whether the record may be removed, '
  'and whether a user was deactivated';

CREATE FUNCTION _flohsync.delete_record(_connector uuid, _type text, _external_id text, _event_at timestamptz,
                                        _tolerance interval) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  x flohsync.resource_record;
  c flohsync.connector_sync_config;
  verdict record;
  outcome text := 'none';
  left_by_that boolean := false;
  of_users boolean;
  hindered text;
  _observed_at timestamptz;
BEGIN
  SELECT * INTO c FROM flohsync.connector_sync_config y WHERE y.connector_id = _connector AND y.resource_type = _type;
  of_users := c.id IS NOT NULL AND _flohsync.matches_users(c);
  IF of_users THEN
    hindered := _flohsync.await_matching(_connector, _type);
  END IF;
  LOOP
    SELECT * INTO x FROM flohsync.resource_record r
     WHERE r.external_id = _external_id COLLATE "C" AND r.resource_type = _type AND r.connector_id = _connector
       FOR NO KEY UPDATE;
    EXIT WHEN FOUND;
    EXIT WHEN _flohsync.record_absent(_connector, _type, _external_id);
  END LOOP;
  _observed_at := least(clock_timestamp(), _event_at + _tolerance);
  IF x.id IS NOT NULL THEN
    IF NOT _flohsync.is_news(x, _observed_at, _event_at) THEN
      RETURN 'ignored';
    END IF;
    outcome := 'removed';
    IF of_users THEN
      verdict := _flohsync.prepare_removal(c, x, hindered);
      left_by_that := verdict.deactivated;
      IF NOT verdict.removable THEN
        outcome := 'staled';
        -- Post-sync has been told.
        PERFORM _flohsync.records_staled(_connector, _type, ARRAY[x.id], NULL, _observed_at, _event_at, false);
      END IF;
    END IF;
    IF outcome = 'removed' THEN
      BEGIN
        PERFORM _flohsync.records_removed(_connector, _type, ARRAY[x.id], true, NULL);
      EXCEPTION WHEN OTHERS THEN
        -- A workflow that could not be told; the record goes all the same.
        PERFORM _flohsync.records_removed(_connector, _type, ARRAY[x.id], false, NULL);
        PERFORM _flohsync.webhook_failed(x, 'workflow', SQLSTATE, SQLERRM);
      END;
    END IF;
  END IF;
  INSERT INTO _flohsync.resource_tombstone AS t (external_id, resource_type, connector_id, deleted_at,
                                                 event_at, deactivated)
  VALUES (_external_id, _type, _connector, _observed_at, _event_at, left_by_that)
  ON CONFLICT (external_id, resource_type, connector_id) DO UPDATE
     SET deleted_at = greatest(CASE WHEN t.deleted_at <= clock_timestamp() THEN t.deleted_at END, EXCLUDED.deleted_at),
       event_at = greatest(t.event_at, EXCLUDED.event_at),
         deactivated = t.deactivated OR EXCLUDED.deactivated,
         made_at = CASE WHEN EXCLUDED.deactivated THEN EXCLUDED.made_at ELSE t.made_at END;
  RETURN outcome;
END
$$;
COMMENT ON FUNCTION _flohsync.delete_record(uuid, text, text, timestamptz, interval) IS
  'Removes a record that an event reports as deleted, leaving a tombstone: removed, staled (left to the next '
  'post-sync), none (there was none) or ignored (the record is newer)';

-- What is kept no longer than it can be of use.

CREATE FUNCTION _flohsync.forget_webhooks(_retention interval) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  -- Senders try for three days, and no signature is taken after five minutes.
  DELETE FROM _flohsync.webhook_delivery d
   WHERE (d.connector_id, d.webhook_id) IN (
     SELECT x.connector_id, x.webhook_id FROM _flohsync.webhook_delivery x
      WHERE x.received_at < pg_catalog.clock_timestamp() - interval '7 days'
      ORDER BY x.received_at LIMIT 10000 FOR UPDATE SKIP LOCKED);
  DELETE FROM _flohsync.resource_tombstone t
   WHERE (t.external_id, t.resource_type, t.connector_id) IN (
     SELECT x.external_id, x.resource_type, x.connector_id FROM _flohsync.resource_tombstone x
      WHERE x.deleted_at > pg_catalog.clock_timestamp() + interval '1 day'
      ORDER BY x.deleted_at LIMIT 10000 FOR UPDATE SKIP LOCKED);
  DELETE FROM _flohsync.resource_tombstone t
   WHERE (t.external_id, t.resource_type, t.connector_id) IN (
     SELECT x.external_id, x.resource_type, x.connector_id FROM _flohsync.resource_tombstone x
      WHERE x.deleted_at < pg_catalog.clock_timestamp() - interval '7 days'
        AND x.deleted_at < pg_catalog.clock_timestamp()
          - coalesce((SELECT _flohsync.duration(c.stale_retention) FROM flohsync.connector_sync_config c
              WHERE c.connector_id = x.connector_id AND c.resource_type = x.resource_type), '0')
      ORDER BY x.deleted_at LIMIT 10000 FOR UPDATE SKIP LOCKED);
  DELETE FROM flohsync.sync_error e
   WHERE e.id IN (SELECT x.id FROM flohsync.sync_error x
                   WHERE x.run_id IS NULL AND x.created_at < pg_catalog.clock_timestamp() - 3 * _retention
                   ORDER BY x.created_at LIMIT 10000 FOR UPDATE SKIP LOCKED);
END;
COMMENT ON FUNCTION _flohsync.forget_webhooks(interval) IS
  'Removes ids of webhooks after 7 days, tombstones after the retention of stale records but no less than that, and '
  'errors of webhooks after three times the retention of runs (null: never)';
-- What is going on: progress, jobs, workers.

-- A view's functions run with the rights of who reads it, who may not see what other sessions do.
CREATE FUNCTION flohsync.processes()
RETURNS TABLE (pid integer, kind text, database name, started_at timestamptz, doing text, state text,
               wait_event_type text, wait_event text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT a.pid, a.backend_type, a.datname, a.backend_start, a.application_name, a.state, a.wait_event_type, a.wait_event
    FROM pg_catalog.pg_stat_activity a
   WHERE a.backend_type LIKE 'flohsync %';
END;
COMMENT ON FUNCTION flohsync.processes() IS 'Processes of flohsync in this cluster; the view workers shows them';
SELECT _flohsync.allow('reader', 'flohsync.processes()');

CREATE VIEW flohsync.sync_progress WITH (security_barrier) AS
SELECT r.id AS run_id, d.name AS connector, r.connector_id, r.resource_type, r.strategy, r.trigger, r.status,
       r.requested_at, r.started_at, l.page, l.records, l.total_estimate,
       CASE WHEN l.total_estimate > 0 THEN least(100, pg_catalog.round(100.0 * l.records / l.total_estimate, 1))
         END AS percent,
       l.added, l.updated, l.unchanged, l.errored, l.next_cursor AS cursor, r.pass_id, r.pass_started_at,
       CASE WHEN r.status = 'running' THEN coalesce(w.stage, 'waiting') END AS stage,
       pg_catalog.round(l.own_records / nullif(l.own_seconds, 0), 1) AS records_per_s,
       CASE WHEN l.own_records > 0 AND l.total_estimate >= l.records AND w.stage = 'fetching'
            THEN pg_catalog.clock_timestamp()
              + pg_catalog.make_interval(secs => (l.own_seconds * (l.total_estimate - l.records)
                                                  / l.own_records)::double precision) END AS eta
  FROM flohsync.sync_run r
  JOIN flohsync.connector_definition d ON d.id = r.connector_id
 CROSS JOIN LATERAL (
       SELECT coalesce(pg_catalog.max(p.page), 0) AS page, coalesce(pg_catalog.sum(p.records), 0) AS records,
              coalesce(pg_catalog.sum(p.added), 0) AS added, coalesce(pg_catalog.sum(p.updated), 0) AS updated,
              coalesce(pg_catalog.sum(p.unchanged), 0) AS unchanged, coalesce(pg_catalog.sum(p.errored), 0) AS errored,
              (pg_catalog.array_agg(p.total_estimate ORDER BY p.page DESC)
               FILTER (WHERE p.total_estimate IS NOT NULL))[1] AS total_estimate,
              (pg_catalog.array_agg(p.next_cursor ORDER BY p.page DESC))[1] AS next_cursor,
              pg_catalog.sum(p.records) FILTER (WHERE x.id = r.id) AS own_records,
              extract(epoch FROM pg_catalog.clock_timestamp() - r.started_at) AS own_seconds
         FROM flohsync.sync_run x JOIN flohsync.sync_run_page p ON p.run_id = x.id
        WHERE x.pass_id = r.pass_id) l
  LEFT JOIN (SELECT pg_catalog.substring(p.doing, '^flohsync run ([0-9]+)')::bigint AS run_id,
             coalesce(nullif(pg_catalog.split_part(p.doing, ': ', 2), ''), 'fetching') AS stage
               FROM flohsync.processes() p WHERE p.database = pg_catalog.current_database()
                   AND p.doing ~ '^flohsync run [0-9]+') w ON w.run_id = r.id
 WHERE r.status IN ('queued', 'running');
COMMENT ON VIEW flohsync.sync_progress IS 'Queued and running runs, with the progress of their passes';
COMMENT ON COLUMN flohsync.sync_progress.run_id IS 'Run';
COMMENT ON COLUMN flohsync.sync_progress.connector IS 'Name of the connector';
COMMENT ON COLUMN flohsync.sync_progress.connector_id IS 'Connector';
COMMENT ON COLUMN flohsync.sync_progress.resource_type IS 'Resource type';
COMMENT ON COLUMN flohsync.sync_progress.strategy IS 'full or incremental';
COMMENT ON COLUMN flohsync.sync_progress.trigger IS 'What asked for the run';
COMMENT ON COLUMN flohsync.sync_progress.status IS 'queued or running';
COMMENT ON COLUMN flohsync.sync_progress.requested_at IS 'When it was asked for';
COMMENT ON COLUMN flohsync.sync_progress.started_at IS 'When a worker took it';
COMMENT ON COLUMN flohsync.sync_progress.page IS 'Pages applied in the pass';
COMMENT ON COLUMN flohsync.sync_progress.records IS 'Records received in the pass';
COMMENT ON COLUMN flohsync.sync_progress.total_estimate IS 'Total number of records reported by the upstream';
COMMENT ON COLUMN flohsync.sync_progress.percent IS 'records of total_estimate, in percent';
COMMENT ON COLUMN flohsync.sync_progress.added IS 'New records';
COMMENT ON COLUMN flohsync.sync_progress.updated IS 'Changed records';
COMMENT ON COLUMN flohsync.sync_progress.unchanged IS 'Records as stored';
COMMENT ON COLUMN flohsync.sync_progress.errored IS 'Records set aside';
COMMENT ON COLUMN flohsync.sync_progress.cursor IS 'Cursor of the page to come';
COMMENT ON COLUMN flohsync.sync_progress.pass_id IS 'First run of the pass';
COMMENT ON COLUMN flohsync.sync_progress.pass_started_at IS 'When the pass began';
COMMENT ON COLUMN flohsync.sync_progress.stage IS
  'Stage of the run: fetching, settling, matching, creating, deactivating, mapping, purging; '
  'waiting: no worker is executing it';
COMMENT ON COLUMN flohsync.sync_progress.records_per_s IS
  'Records that the run has received per second since it started';
COMMENT ON COLUMN flohsync.sync_progress.eta IS
  'Estimated time at which all records will have been received; null without a total from the upstream';
SELECT _flohsync.allow('reader', 'flohsync.sync_progress');

CREATE FUNCTION flohsync.hindrance() RETURNS text
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_hindrance';
COMMENT ON FUNCTION flohsync.hindrance() IS
  'Why no worker can take a run, or a scheduled run, in this database until that is changed: flohsync.enabled, the '
  'role of flohsync.worker_role, row level security, flohsync.databases; null: no known reason';
SELECT _flohsync.allow('reader', 'flohsync.hindrance()');

CREATE VIEW flohsync.jobs AS
SELECT 'cr-sync-' || c.connector_id || '-' || c.resource_type AS job_id,
       d.name AS connector, c.resource_type, c.enabled AND d.enabled AS enabled, c.strategy,
       c.cron_schedule AS schedule, c.full_cron_schedule AS full_schedule, c.timezone,
       CASE WHEN d.enabled AND d.home = (SELECT h.id FROM _flohsync.home h) AND c.enabled AND NOT c.parked
           AND c.schedule_error IS NULL THEN least(c.next_run_at, c.next_full_run_at, c.retry_at) END AS next_run_at,
       nullif(pg_catalog.concat_ws('; ',
         CASE WHEN d.home <> (SELECT h.id FROM _flohsync.home h) THEN 'the connector was restored from a dump of '
                                                                      'another database; call adopt() to sync it in '
                                                                      'this one'
            WHEN NOT d.enabled THEN 'the connector is disabled'
            WHEN NOT c.enabled THEN 'the configuration is disabled'
            WHEN c.cron_schedule IS NULL AND c.full_cron_schedule IS NULL THEN 'there is no schedule'
            WHEN c.schedule_error IS NOT NULL THEN 'the schedule cannot be used: ' || c.schedule_error
            WHEN c.parked THEN 'runs crashed their worker; trigger_sync() resumes the schedules'
            WHEN g.hindrance IS NOT NULL THEN g.hindrance
            WHEN NOT EXISTS (SELECT FROM flohsync.processes() p WHERE p.kind = 'flohsync launcher')
              THEN CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'the server is a standby'
                ELSE 'there is no launcher; see shared_preload_libraries' END
            WHEN c.retry_at IS NOT NULL THEN pg_catalog.format('the last run failed; retry %s of 3 is pending',
                                                               c.retries + 1)
       END,
         CASE WHEN r.status = 'queued' AND w.busy >= pg_catalog.current_setting('flohsync.max_workers', true)::bigint
              THEN pg_catalog.format('waiting for a worker (%s of %s busy)', w.busy,
                                     pg_catalog.current_setting('flohsync.max_workers', true)) END,
         CASE WHEN h.id IS NOT NULL
              THEN pg_catalog.format('run %s is held since %s: call approve_run() or reject_run()', h.id,
                                     pg_catalog.to_char(h.finished_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'))
                                     END,
         CASE WHEN (c.last_complete_at IS NULL OR c.last_sync_at > c.last_complete_at)
             AND c.incomplete_reason IS NOT NULL
              THEN CASE WHEN coalesce(c.last_complete_at, c.created_at) < pg_catalog.now()
                - greatest(interval '1 day', 3 * (c.next_run_at - c.last_sync_at))
                        THEN coalesce('no pass has been complete since '
                                      || pg_catalog.to_char(c.last_complete_at AT TIME ZONE 'UTC',
                                                            'YYYY-MM-DD HH24:MI "UTC"'),
                                                            'no pass has ever been complete')
                        WHEN r.status = 'success' THEN 'the last pass was not complete' END || ': '
                          || c.incomplete_reason END), '') AS remark,
       r.id AS last_run_id, r.started_at AS last_run_at, r.status AS last_status, r.error AS last_error,
       c.last_success_at
  FROM flohsync.connector_sync_config c
  JOIN flohsync.connector_definition d ON d.id = c.connector_id
 CROSS JOIN flohsync.hindrance() g(hindrance)
 CROSS JOIN (SELECT pg_catalog.count(*) AS busy FROM flohsync.processes() p WHERE p.kind = 'flohsync worker') w
  -- A range, so that it is read in the order of sync_run_history: in that of the ids of all
  -- runs, a configuration without one would be looked for to the end.
  LEFT JOIN LATERAL (SELECT x.id, x.started_at, x.status, x.error FROM flohsync.sync_run x
                      WHERE x.connector_id BETWEEN c.connector_id AND c.connector_id
                        AND x.resource_type = c.resource_type
                      ORDER BY x.connector_id, x.id DESC LIMIT 1) r ON true
  LEFT JOIN LATERAL (SELECT x.id, x.finished_at FROM flohsync.sync_run x
                      WHERE x.connector_id = c.connector_id AND x.resource_type = c.resource_type AND x.status = 'held'
                      ORDER BY x.id DESC LIMIT 1) h ON true;
COMMENT ON VIEW flohsync.jobs IS 'Schedules, when they are next due, and their last runs';
COMMENT ON COLUMN flohsync.jobs.job_id IS 'cr-sync-{connectorId}-{resourceType}';
COMMENT ON COLUMN flohsync.jobs.connector IS 'Name of the connector';
COMMENT ON COLUMN flohsync.jobs.resource_type IS 'Resource type';
COMMENT ON COLUMN flohsync.jobs.enabled IS 'Whether schedules run';
COMMENT ON COLUMN flohsync.jobs.strategy IS 'Strategy of the first schedule';
COMMENT ON COLUMN flohsync.jobs.schedule IS 'First schedule';
COMMENT ON COLUMN flohsync.jobs.full_schedule IS 'Schedule of full passes beside it';
COMMENT ON COLUMN flohsync.jobs.timezone IS 'Time zone of both';
COMMENT ON COLUMN flohsync.jobs.next_run_at IS 'When the next run is due';
COMMENT ON COLUMN flohsync.jobs.remark IS 'Why nothing is scheduled, or what needs attention';
COMMENT ON COLUMN flohsync.jobs.last_success_at IS 'End of the last run that succeeded';
COMMENT ON COLUMN flohsync.jobs.last_run_id IS 'Last run';
COMMENT ON COLUMN flohsync.jobs.last_run_at IS 'When it started';
COMMENT ON COLUMN flohsync.jobs.last_status IS 'Status of the last run';
COMMENT ON COLUMN flohsync.jobs.last_error IS 'Error of the last run';
SELECT _flohsync.allow('reader', 'flohsync.jobs');

CREATE VIEW flohsync.workers AS
SELECT p.pid, p.kind, p.database, p.started_at, p.doing, p.state, p.wait_event_type, p.wait_event
  FROM flohsync.processes() p;
COMMENT ON VIEW flohsync.workers IS 'Processes of flohsync in this cluster';
COMMENT ON COLUMN flohsync.workers.pid IS 'Process id';
COMMENT ON COLUMN flohsync.workers.kind IS 'flohsync launcher, flohsync worker or flohsync invalidator';
COMMENT ON COLUMN flohsync.workers.database IS 'Database that it is connected to; null for the launcher';
COMMENT ON COLUMN flohsync.workers.started_at IS 'When it started';
COMMENT ON COLUMN flohsync.workers.doing IS 'Current activity';
COMMENT ON COLUMN flohsync.workers.state IS 'State of its backend';
COMMENT ON COLUMN flohsync.workers.wait_event_type IS 'Type of the wait event';
COMMENT ON COLUMN flohsync.workers.wait_event IS 'Wait event';
SELECT _flohsync.allow('reader', 'flohsync.workers');

CREATE FUNCTION flohsync.sync_status(connector text, resource_type text) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT pg_catalog.jsonb_build_object(
      'resourceType', c.resource_type, 'lastSyncAt', _flohsync.iso(c.last_sync_at),
      'lastSyncStatus', c.last_sync_status, 'lastSyncError', c.last_sync_error, 'lastSyncStats', c.last_sync_stats,
      'running', (SELECT pg_catalog.jsonb_build_object(
                           'runId', p.run_id, 'page', p.page, 'records', p.records,
                           'totalEstimate', p.total_estimate, 'startedAt', _flohsync.iso(p.started_at))
                    FROM flohsync.sync_progress p
                   WHERE p.connector_id = c.connector_id AND p.resource_type = c.resource_type
                     AND p.status = 'running'),
      'nextRunAt', _flohsync.iso(_flohsync.next_due(c))) || _flohsync.standing(c)
    FROM flohsync.connector_sync_config c
   WHERE c.connector_id = _flohsync.connector_id(sync_status.connector) AND c.resource_type = sync_status.resource_type;
END;
COMMENT ON FUNCTION flohsync.sync_status(text, text) IS
  'Status of the last run and of the current one; null when there is no configuration';
SELECT _flohsync.allow('reader', 'flohsync.sync_status(text, text)');
-- What Prometheus scrapes.  All of it comes from the configurations, the open
-- runs and the processes: its cost does not grow with records or history.

CREATE FUNCTION _flohsync.metric_label(_name text, _value text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN pg_catalog.format('%s="%s"', _name,
  pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(_value, E'\\', E'\\\\'), '"', E'\\"'), E'\n', E'\\n'));
COMMENT ON FUNCTION _flohsync.metric_label(text, text) IS 'A label as the text format of Prometheus writes it';

CREATE FUNCTION _flohsync.metric_samples() RETURNS TABLE (family text, labels text, value numeric)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  WITH job AS (
    SELECT pg_catalog.concat_ws(',', _flohsync.metric_label('connector', d.name),
                                _flohsync.metric_label('resource_type', c.resource_type)) AS labels,
           c.*, d.enabled AND c.enabled AND d.home = _flohsync.home() AS scheduled, _flohsync.next_due(c) AS next_due,
             d.enabled AS connector_enabled
      FROM flohsync.connector_sync_config c JOIN flohsync.connector_definition d ON d.id = c.connector_id)
  SELECT 'flohsync_info',
    _flohsync.metric_label('version', (SELECT e.extversion FROM pg_catalog.pg_extension e
                                       WHERE e.extname = 'flohsync')), 1::numeric
  UNION ALL SELECT 'flohsync_launcher_up', NULL,
    (SELECT pg_catalog.count(*) FROM flohsync.processes() p WHERE p.kind = 'flohsync launcher')
  UNION ALL SELECT 'flohsync_workers', NULL,
    (SELECT pg_catalog.count(*) FROM flohsync.processes() p WHERE p.kind = 'flohsync worker')
  UNION ALL SELECT 'flohsync_workers_limit', NULL, pg_catalog.current_setting('flohsync.max_workers', true)::numeric
  UNION ALL SELECT 'flohsync_enabled', NULL,
    (pg_catalog.current_setting('flohsync.enabled', true) IS DISTINCT FROM 'off')::int
  UNION ALL SELECT 'flohsync_scheduled', j.labels, (j.scheduled AND NOT j.parked)::int FROM job j
  UNION ALL SELECT 'flohsync_parked', j.labels, j.parked::int FROM job j
  UNION ALL SELECT 'flohsync_schedule_unusable', j.labels, (j.schedule_error IS NOT NULL)::int FROM job j
  UNION ALL SELECT 'flohsync_retries', j.labels, j.retries FROM job j
  UNION ALL SELECT 'flohsync_next_run_timestamp_seconds', j.labels, extract(epoch FROM j.next_due) FROM job j
    WHERE j.connector_enabled
  UNION ALL SELECT 'flohsync_last_run_timestamp_seconds', j.labels, extract(epoch FROM j.last_sync_at) FROM job j
  UNION ALL SELECT 'flohsync_last_success_timestamp_seconds', j.labels, extract(epoch FROM j.last_success_at) FROM job j
  UNION ALL SELECT 'flohsync_last_full_pass_timestamp_seconds', j.labels, extract(epoch FROM j.last_full_pass_at)
    FROM job j
  UNION ALL SELECT 'flohsync_last_complete_pass_timestamp_seconds', j.labels, extract(epoch FROM j.last_complete_at)
    FROM job j
  UNION ALL SELECT 'flohsync_last_pass_incomplete', j.labels, (j.incomplete_reason IS NOT NULL)::int FROM job j
  UNION ALL SELECT 'flohsync_last_run_failed', j.labels, (j.last_sync_status = 'error')::int FROM job j
  UNION ALL SELECT 'flohsync_last_run_duration_seconds', j.labels, (j.last_sync_stats ->> 'durationMs')::numeric / 1000
    FROM job j
  UNION ALL SELECT 'flohsync_open_runs', j.labels || ',' || _flohsync.metric_label('status', s.status),
      (SELECT pg_catalog.count(*) FROM flohsync.sync_run r
        WHERE r.connector_id = j.connector_id AND r.resource_type = j.resource_type AND r.status = s.status
          AND r.status IN ('queued', 'running', 'held'))
    FROM job j, pg_catalog.unnest(ARRAY['queued', 'running', 'held']) AS s(status)
  UNION ALL SELECT 'flohsync_runs_total', j.labels || ',' || _flohsync.metric_label('status', s.status),
    coalesce((j.totals ->> s.status)::numeric, 0)
    FROM job j, pg_catalog.unnest(ARRAY['success', 'error', 'cancelled', 'held']) AS s(status)
  UNION ALL SELECT 'flohsync_records_total', j.labels || ',' || _flohsync.metric_label('outcome', s.outcome),
    coalesce((j.totals ->> s.outcome)::numeric, 0)
    FROM job j, (SELECT c.counter FROM _flohsync.page_counters() c WHERE c.in_metrics
                 UNION ALL SELECT o.name FROM (VALUES ('staled'), ('removed')) o(name)) AS s(outcome)
  UNION ALL SELECT 'flohsync_upstream_records_total', j.labels,
    coalesce((j.totals ->> 'totalUpstreamRecords')::numeric, 0) FROM job j
  UNION ALL SELECT 'flohsync_upstream_bytes_total', j.labels, coalesce((j.totals ->> 'bytes')::numeric, 0) FROM job j
  UNION ALL SELECT 'flohsync_users_total', j.labels || ',' || _flohsync.metric_label('action', s.action),
    coalesce((j.totals ->> s.key)::numeric, 0)
    FROM job j, (VALUES ('created', 'usersCreated'), ('deactivated', 'usersDeactivated'),
                 ('reactivated', 'usersReactivated')) AS s(action, key)
  UNION ALL SELECT 'flohsync_profiles_updated_total', j.labels, coalesce((j.totals ->> 'profilesUpdated')::numeric, 0)
    FROM job j
  UNION ALL SELECT 'flohsync_workflow_jobs', _flohsync.metric_label('status', s.status),
                   (SELECT pg_catalog.count(*) FROM flohsync.workflow_job w WHERE w.status = s.status)
    FROM pg_catalog.unnest(ARRAY['queued', 'running', 'failed']) AS s(status)
  UNION ALL SELECT 'flohsync_cache_outbox', NULL, (SELECT pg_catalog.count(*) FROM _flohsync.cache_outbox)
  UNION ALL SELECT m.family, m.labels, m.value FROM _flohsync.cache_metrics() m
  UNION ALL SELECT 'flohsync_pages_total', j.labels, coalesce((j.totals ->> 'pagesProcessed')::numeric, 0) FROM job j
  UNION ALL SELECT 'flohsync_run_seconds_total', j.labels, coalesce((j.totals ->> 'durationMs')::numeric, 0) / 1000
    FROM job j;
END;
COMMENT ON FUNCTION _flohsync.metric_samples() IS 'The samples of metrics(), one row each; a null value is not shown';

CREATE FUNCTION flohsync.metrics() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  WITH family (position, name, type, help) AS (VALUES
    (1, 'flohsync_info', 'gauge', 'Version of the extension'),
    (2, 'flohsync_launcher_up', 'gauge', 'Whether the launcher is running'),
    (3, 'flohsync_workers', 'gauge', 'Workers in the cluster'),
    (4, 'flohsync_workers_limit', 'gauge', 'Maximum number of workers (flohsync.max_workers)'),
    (5, 'flohsync_enabled', 'gauge', 'Whether workers are enabled (flohsync.enabled)'),
    (6, 'flohsync_scheduled', 'gauge', 'Whether schedules of the configuration are enabled'),
    (7, 'flohsync_parked', 'gauge', 'Whether schedules are suspended because runs crashed their worker'),
    (27, 'flohsync_schedule_unusable', 'gauge',
     'Whether the schedules cannot be used, for example because of an unknown time zone'),
    (8, 'flohsync_retries', 'gauge', 'Number of retries of the failed scheduled run'),
    (9, 'flohsync_next_run_timestamp_seconds', 'gauge', 'When the next run is due'),
    (10, 'flohsync_last_run_timestamp_seconds', 'gauge', 'End of the last run'),
    (11, 'flohsync_last_success_timestamp_seconds', 'gauge', 'End of the last run that succeeded'),
    (12, 'flohsync_last_full_pass_timestamp_seconds', 'gauge', 'Start of the last complete full pass'),
    (25, 'flohsync_last_complete_pass_timestamp_seconds', 'gauge', 'End of the last run whose pass was complete'),
    (26, 'flohsync_last_pass_incomplete', 'gauge', 'Whether the pass of the last run was not complete'),
    (13, 'flohsync_last_run_failed', 'gauge', 'Whether the last run failed or is held'),
    (14, 'flohsync_last_run_duration_seconds', 'gauge', 'Duration of the last run'),
    (15, 'flohsync_open_runs', 'gauge', 'Runs that are queued, running, or held for a decision'),
    (16, 'flohsync_runs_total', 'counter', 'Runs that ended, by status'),
    (17, 'flohsync_records_total', 'counter', 'Records, by what a run did with them'),
    (18, 'flohsync_upstream_records_total', 'counter', 'Records received from the upstream'),
    (19, 'flohsync_upstream_bytes_total', 'counter', 'Bytes received from the upstream'),
    (20, 'flohsync_pages_total', 'counter', 'Pages applied'),
    (21, 'flohsync_run_seconds_total', 'counter', 'Time spent in runs'),
    (22, 'flohsync_users_total', 'counter', 'Users, by what a run did with them'),
    (23, 'flohsync_profiles_updated_total', 'counter', 'Profiles in which a run wrote something'),
    (24, 'flohsync_workflow_jobs', 'gauge', 'Workflow jobs, by status'),
    (40, 'flohsync_cache_reads_total', 'counter',
     'Reads of the cache since the server started, by outcome; bypassed: Redis was not asked'),
    (41, 'flohsync_cache_stores_total', 'counter',
     'Values stored in the cache, and those not stored because the record was invalidated meanwhile'),
    (42, 'flohsync_cache_waits_total', 'counter', 'Reads that waited for a concurrent fetch of the same value'),
    (43, 'flohsync_cache_poisoned_total', 'counter', 'Invalid values found in Redis and removed'),
    (44, 'flohsync_cache_errors_total', 'counter', 'Failed commands and error replies of Redis'),
    (45, 'flohsync_cache_invalidations_total', 'counter', 'Records invalidated in Redis'),
    (46, 'flohsync_cache_clears_total', 'counter',
     'Invalidations of all records of a type, a connector or the database'),
    (47, 'flohsync_cache_outbox', 'gauge', 'Invalidations not yet delivered to Redis'),
    (48, 'flohsync_cache_breaker_open', 'gauge', 'Whether the circuit breaker for Redis is open'),
    (49, 'flohsync_cache_breaker_opened_total', 'counter', 'Number of times that the circuit breaker opened'))
  SELECT pg_catalog.string_agg(
           pg_catalog.format(E'# HELP %1$s %2$s\n# TYPE %1$s %3$s\n%4$s', f.name, f.help, f.type, s.lines), ''
             ORDER BY f.position)
    FROM family f
    JOIN (SELECT m.family, pg_catalog.string_agg(
                   m.family || coalesce('{' || m.labels || '}', '') || ' ' || pg_catalog.trim_scale(m.value) || E'\n',
                     '' ORDER BY m.labels) AS lines
            FROM _flohsync.metric_samples() m WHERE m.value IS NOT NULL
           GROUP BY m.family) s ON s.family = f.name;
END;
COMMENT ON FUNCTION flohsync.metrics() IS
  'Figures of this database in the text format of Prometheus; counters cover all runs, independent of '
  'the retention of the history';
SELECT _flohsync.allow('reader', 'flohsync.metrics()');
-- Roles of applications and operators: who reads, who manages.

CREATE FUNCTION _flohsync.check_access_role(_role regrole) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _role IS NULL OR _role::oid = 0 OR NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = _role) THEN
    PERFORM _flohsync.invalid('role', 'there is no such role');
  ELSIF (SELECT r.rolname FROM pg_roles r WHERE r.oid = _role) = current_setting('flohsync.worker_role') THEN
    PERFORM _flohsync.invalid('role', format('%s is the role of the workers', _role),
                              'Its rights are given by _flohsync.grant_worker().');
  ELSIF (SELECT r.rolname FROM pg_roles r WHERE r.oid = _role) IN ('flohsync_owner', 'flohsync_nobody') THEN
    PERFORM _flohsync.invalid('role', format('%s is a role of flohsync itself', _role),
                              'Grant access to a role of your own.');
  END IF;
  RETURN _role::text;
END
$$;
COMMENT ON FUNCTION _flohsync.check_access_role(regrole) IS
  'Name of a role that access can be granted to, quoted; 22023 for a missing role and for the roles of flohsync';

CREATE FUNCTION _flohsync.grant_level(_role regrole, _levels text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  role text := _flohsync.check_access_role(_role);
  a _flohsync.access;
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA flohsync TO %s', role);
  FOR a IN SELECT * FROM _flohsync.access x WHERE x.level = ANY (_levels) ORDER BY x.object LOOP
    EXECUTE format('GRANT %s%s ON %s %s TO %s', CASE a.kind WHEN 'TABLE' THEN 'SELECT' ELSE 'EXECUTE' END, ' ('
                   || a.columns || ')', a.kind, a.object, role);
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.grant_level(regrole, text[]) IS
  'Grants a role the access that is declared for some levels';

CREATE FUNCTION flohsync.grant_reader(role regrole) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT _flohsync.grant_level(grant_reader.role, ARRAY['reader']);
END;
COMMENT ON FUNCTION flohsync.grant_reader(regrole) IS
  'Lets a role read records, users, configurations, runs and matches, and use the cache (connector:read); call it '
  'again after an update of the extension; 22023 for a role of flohsync itself';

CREATE FUNCTION flohsync.grant_manager(role regrole) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT _flohsync.grant_level(grant_manager.role, ARRAY['reader', 'manager']);
END;
COMMENT ON FUNCTION flohsync.grant_manager(regrole) IS
  'Lets a role manage connectors, configurations, runs and matches by functions, as well as read (connector:manage); '
  'it can neither write to a table, nor read a secret, nor act as another owner; call it again after an update of the '
  'extension; 22023 for a role of flohsync itself';

CREATE FUNCTION _flohsync.managing_owners() RETURNS SETOF oid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT o.id
    FROM (SELECT _flohsync.role_oid(c.owner) AS id FROM flohsync.connector_sync_config c
          UNION SELECT _flohsync.role_oid(d.author) FROM flohsync.connector_definition d
          UNION SELECT _flohsync.role_oid(h.owner) FROM _flohsync.webhook_handler h) o
   WHERE pg_catalog.has_function_privilege(o.id, 'flohsync.configure_sync(text, text, jsonb)', 'EXECUTE');
END;
COMMENT ON FUNCTION _flohsync.managing_owners() IS
  'Roles with whose rights something runs and that are managers, directly or by membership';

CREATE FUNCTION flohsync.revoke_access(role regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _role text := _flohsync.check_access_role(revoke_access.role);
  before oid[] := ARRAY(SELECT * FROM _flohsync.managing_owners());
  revoked oid[];
  whose text;
  stopped text[];
  handler text;
  _run bigint;
BEGIN
  EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA flohsync, _flohsync FROM %s', _role);
  EXECUTE format('REVOKE ALL (id, name, kind, description, enabled, created_at, updated_at) ON '
                 'flohsync.connector_definition FROM %s', _role);
  EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA flohsync, _flohsync FROM %s', _role);
  EXECUTE format('REVOKE ALL ON ALL ROUTINES IN SCHEMA flohsync, _flohsync FROM %s', _role);
  EXECUTE format('REVOKE ALL ON SCHEMA flohsync, _flohsync FROM %s', _role);

  -- What ran with its rights does not any more, nor what did with those of its
  -- members who had their access by it.
  revoked := ARRAY(SELECT revoke_access.role::oid UNION SELECT b.id FROM unnest(before) b(id)
                   WHERE b.id NOT IN (SELECT * FROM _flohsync.managing_owners()));
  FOR _run IN SELECT r.id FROM flohsync.sync_run r
                JOIN flohsync.connector_sync_config c ON c.connector_id = r.connector_id
                    AND c.resource_type = r.resource_type
                JOIN flohsync.connector_definition d ON d.id = c.connector_id AND d.kind = 'sql'
               WHERE r.status IN ('queued', 'running') AND _flohsync.role_oid(c.owner) = ANY (revoked) LOOP
    PERFORM flohsync.cancel_sync(_run);
  END LOOP;
  WITH stopped AS (
    UPDATE flohsync.connector_sync_config c SET owner = _flohsync.role_gone(c.owner)
     WHERE _flohsync.role_oid(c.owner) = ANY (revoked)
    RETURNING c.connector_id, c.resource_type)
  SELECT array_agg(format('"%s", %s', d.name, s.resource_type) ORDER BY d.name, s.resource_type) INTO stopped
    FROM stopped s JOIN flohsync.connector_definition d ON d.id = s.connector_id
   WHERE d.kind = 'sql';
  UPDATE flohsync.connector_definition d SET author = _flohsync.role_gone(d.author)
    WHERE _flohsync.role_oid(d.author) = ANY (revoked);
  DELETE FROM _flohsync.webhook_handler h WHERE _flohsync.role_oid(h.owner) = ANY (revoked)
    RETURNING h.handler INTO handler;
  whose := format('role "%s"', _flohsync.role_name(_flohsync.role(revoke_access.role)))
           || CASE WHEN cardinality(revoked) > 1 THEN ' or of its members' ELSE '' END;
  IF stopped IS NOT NULL THEN
    RAISE WARNING USING
      MESSAGE = _flohsync.clean(format('%s configurations that ran with the rights of %s no longer run',
                                       cardinality(stopped), whose)),
      DETAIL = format('They are: %s%s.', _flohsync.clean(array_to_string(stopped[:20], '; ')),
                      CASE WHEN cardinality(stopped) > 20 THEN '; …' ELSE '' END),
      HINT = 'Review what they run, then assign them to another role with flohsync.set_sync_owner().';
  END IF;
  IF handler IS NOT NULL THEN
    RAISE WARNING USING
      MESSAGE = _flohsync.clean(format('the entitlement handler %s ran with the rights of %s and is removed',
                                       handler, whose)),
      DETAIL = 'Webhooks without a resource type are recorded in flohsync.entitlement_event.',
      HINT = 'Set another one with flohsync.set_entitlement_handler().';
  END IF;
END
$$;
COMMENT ON FUNCTION flohsync.revoke_access(regrole) IS
  'Revokes the access granted by grant_reader() and grant_manager(), and stops what runs with the rights of the role, '
  'or of its members that were managers by it: configurations of connectors of kind sql, the entitlement handler; a '
  'warning names these; 22023 for a role of flohsync itself';

-- Roles of the workers.

CREATE FUNCTION _flohsync.grant_worker(_role regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  inner_half regprocedure;
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA flohsync, _flohsync TO %s', _role);
  EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA flohsync, _flohsync TO %s', _role);
  EXECUTE format('GRANT INSERT, UPDATE, DELETE ON flohsync.resource_record, _flohsync.resource_tombstone, '
                 'flohsync.sync_run,
                  flohsync.sync_run_page, flohsync.sync_error, _flohsync.cache_outbox, _flohsync.cache_epoch,
                  flohsync.connector_sync_match,
                  flohsync.user_external_identity, _flohsync.match_progress, _flohsync.record_change,
                  _flohsync.departure, _flohsync.setback, _flohsync.user_change,
                  flohsync.floh_user, flohsync.user_profile, flohsync.workflow_job, flohsync.workflow_run,
                  _flohsync.webhook_delivery, flohsync.entitlement_event TO %s', _role);
  -- Not owner: whoever could write that could run queries with another role's rights.
  EXECUTE format('GRANT UPDATE (schedule_error, last_sync_at, last_sync_cursor, last_sync_status, '
                 'last_sync_error, last_sync_stats,
                  next_run_at, next_full_run_at, watermark, last_full_pass_at, last_success_at, last_complete_at,
                  incomplete_reason, full_incomplete_reason, retry_at, retries, parked, totals,
                  delta_link, delta_fingerprint) ON flohsync.connector_sync_config TO %s', _role);
  -- To lock a user's row is to be able to write it.
  EXECUTE format('GRANT UPDATE ON _flohsync.cache_state, _flohsync.app_user TO %s', _role);
  EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA flohsync, _flohsync TO %s', _role);
  EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA _flohsync TO %s', _role);
  EXECUTE format('REVOKE EXECUTE ON FUNCTION _flohsync.grant_worker(regrole), _flohsync.allow(text, text, text), '
                 '_flohsync.caller(), _flohsync.make_search_indexes(oid) FROM %s', _role);
  -- What runs as the owner on behalf of a caller is not for code behind the seam.
  FOR inner_half IN SELECT p.oid FROM pg_proc p JOIN pg_proc o ON o.prosrc = 'flohsync_as_owner'
      AND o.proname = p.proname AND o.proargtypes = p.proargtypes
                     WHERE p.pronamespace = '_flohsync'::regnamespace LOOP
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM %s', inner_half, _role);
  END LOOP;
  EXECUTE format('GRANT EXECUTE ON FUNCTION flohsync._user_create(text[], text[]), flohsync._user_deactivate(uuid[], '
                 'bigint),
                  flohsync._user_reactivate(uuid[]), flohsync._profile_update(uuid[], jsonb[], text),
                  flohsync.match_stats(text, text), flohsync.validate_definition(jsonb) TO %s', _role);
  -- An application grants what its users need to this role; its view is read as its owner.
  IF NOT pg_has_role('flohsync_owner', _role, 'USAGE') THEN
    EXECUTE format('GRANT %s TO flohsync_owner', _role);
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.grant_worker(regrole) IS
  'Grants a role the privileges that workers need; call it after changing flohsync.worker_role';
-- Who may do what: everything belongs to flohsync_owner; nothing is for PUBLIC,
-- nor for the roles in default privileges of the installing role; the workers' role
-- gets what workers need; applications' roles get what is declared.
--
-- Steps to a new version end with this as well (upgrade/end.sql).  There it is for
-- what the step has made: what others have granted on the rest is not ours to take.

DO $$
DECLARE
  o record;
  -- What was there before the step; nothing, when the extension is made.
  known jsonb := current_setting('flohsync_step.before')::jsonb;
BEGIN
  FOR o IN
    SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
      c.oid::regclass::text AS name
      FROM pg_catalog.pg_class c
     WHERE c.relnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace) AND c.relkind IN ('r', 'v', 'S')
       -- a sequence of an identity column goes with its table
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refobjsubid > 0
                          AND d.deptype IN ('a', 'i') AND c.relkind = 'S')
       AND NOT known ? ('pg_class ' || c.oid)
    UNION ALL
    SELECT CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, p.oid::regprocedure::text
      FROM pg_catalog.pg_proc p WHERE p.pronamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace)
       AND NOT known ? ('pg_proc ' || p.oid)
  LOOP
    EXECUTE format('ALTER %s %s OWNER TO flohsync_owner', o.kind, o.name);
  END LOOP;

  -- Default privileges have taken from the owner, or from PUBLIC, what they should have.
  FOR o IN
    SELECT 'ALL' AS privilege, 'SCHEMA' AS kind, n.nspname::text AS name, n.nspowner::regrole::text AS grantee
      FROM pg_catalog.pg_namespace n
     WHERE n.nspname IN ('flohsync', '_flohsync') AND n.nspacl IS NOT NULL
       AND NOT known ? ('pg_namespace ' || n.oid)
    UNION ALL
    SELECT 'ALL', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass::text,
      c.relowner::regrole::text
      FROM pg_catalog.pg_class c
     WHERE c.relnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace) AND c.relkind IN ('r', 'v', 'S')
       AND c.relacl IS NOT NULL
       AND NOT known ? ('pg_class ' || c.oid)
    UNION ALL
    SELECT 'ALL', 'ROUTINE', p.oid::regprocedure::text, p.proowner::regrole::text
      FROM pg_catalog.pg_proc p
     WHERE p.pronamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace) AND p.proacl IS NOT NULL
       AND NOT known ? ('pg_proc ' || p.oid)
    UNION ALL
    SELECT 'USAGE', 'TYPE', t.oid::regtype::text, g.grantee
      FROM pg_catalog.pg_type t CROSS JOIN LATERAL (VALUES (t.typowner::regrole::text), ('PUBLIC')) g(grantee)
     WHERE t.typnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace) AND t.typacl IS NOT NULL
       AND NOT known ? ('pg_type ' || t.oid)
  LOOP
    EXECUTE format('GRANT %s ON %s %s TO %s', o.privilege, o.kind, o.name, o.grantee);
  END LOOP;

  -- They have granted what PUBLIC or somebody should not have.
  FOR o IN
    SELECT DISTINCT 'SCHEMA' AS kind, n.nspname::text AS name, a.grantee
      FROM pg_catalog.pg_namespace n, aclexplode(n.nspacl) a
     WHERE n.nspname IN ('flohsync', '_flohsync') AND a.grantee <> n.nspowner
       AND NOT known ? ('pg_namespace ' || n.oid)
    UNION
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass::text, a.grantee
      FROM pg_catalog.pg_class c, aclexplode(c.relacl) a
     WHERE c.relnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace) AND a.grantee <> c.relowner
       AND NOT known ? ('pg_class ' || c.oid)
    UNION
    SELECT 'ROUTINE', p.oid::regprocedure::text, a.grantee
      FROM pg_catalog.pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
     WHERE p.pronamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace) AND a.grantee <> p.proowner
       AND NOT known ? ('pg_proc ' || p.oid)
    UNION
    SELECT 'TYPE', t.oid::regtype::text, a.grantee
      FROM pg_catalog.pg_type t, aclexplode(t.typacl) a
     WHERE t.typnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace) AND a.grantee NOT IN (0, t.typowner)
       AND NOT known ? ('pg_type ' || t.oid)
  LOOP
    EXECUTE format('REVOKE ALL ON %s %s FROM %s', o.kind, o.name,
                   CASE o.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_catalog.pg_get_userbyid(o.grantee)) END);
  END LOOP;
END
$$;

GRANT USAGE ON SCHEMA flohsync, _flohsync TO flohsync_owner;

SELECT _flohsync.grant_worker(pg_catalog.quote_ident(
  coalesce(nullif(pg_catalog.current_setting('flohsync.worker_role', true), ''),
           'flohsync_worker'))::pg_catalog.regrole);
-- What a dump carries: everything but the queue and the ledger of open passes
-- (without its ledger a failed pass begins again).

SELECT pg_catalog.pg_extension_config_dump('flohsync.connector_definition', '');
SELECT pg_catalog.pg_extension_config_dump('_flohsync.connector_secret', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.workflow_definition', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.connector_sync_config', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.resource_record', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.resource_record_record_no_seq', '');
SELECT pg_catalog.pg_extension_config_dump('_flohsync.resource_tombstone', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.sync_run', $$WHERE status IN ('success', 'error', 'cancelled')$$);
SELECT pg_catalog.pg_extension_config_dump('flohsync.sync_run_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.workflow_job', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.workflow_job_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.workflow_run', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.floh_user', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.user_profile', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.user_external_identity', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.connector_sync_match', '');
SELECT pg_catalog.pg_extension_config_dump('_flohsync.departure', '');
SELECT pg_catalog.pg_extension_config_dump('_flohsync.departure_seq_seq', '');
SELECT pg_catalog.pg_extension_config_dump('_flohsync.webhook_handler', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.entitlement_event', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.entitlement_event_id_seq', '');

-- Sessions may know connectors of an extension that was dropped: their trigger tells them.
DELETE FROM flohsync.connector_definition WHERE false;

SELECT _flohsync.wake();
