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

-- Internal objects, and what HTTP serves.  These schemas must not exist yet.
CREATE SCHEMA _flohsync;
COMMENT ON SCHEMA _flohsync IS 'Internal objects of flohsync; not for users, and subject to change';
CREATE SCHEMA flohsync_api;
COMMENT ON SCHEMA flohsync_api IS
  'Functions of flohsync that HTTP serves: of JSON, with named arguments, run for the role of the request';
