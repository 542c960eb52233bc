-- Who may do what.  A change here is a change of the security model: read it
-- line by line before it replaces test/expected/rights.out.
SET client_min_messages = error;
DROP EXTENSION IF EXISTS flohsync CASCADE;
CREATE ROLE regress_reader;
CREATE ROLE regress_manager;
CREATE ROLE regress_gateway;
CREATE ROLE regress_stranger;
-- Whatever default privileges of the installing role are in force, they reach nothing.
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO regress_stranger;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO regress_stranger;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO regress_stranger;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO regress_stranger;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO regress_stranger;
CREATE EXTENSION flohsync;
SET client_min_messages = warning;
SELECT flohsync.grant_reader('regress_reader'), flohsync.grant_manager('regress_manager'), flohsync.grant_gateway('regress_gateway');

-- roles
SELECT r.rolname, r.rolsuper, r.rolcanlogin, r.rolcreaterole, r.rolcreatedb, r.rolbypassrls, r.rolreplication,
       ARRAY(SELECT m.roleid::regrole::text FROM pg_auth_members m WHERE m.member = r.oid ORDER BY 1) AS member_of
  FROM pg_roles r WHERE r.rolname ~ '^flohsync_' ORDER BY 1;

-- who owns what
SELECT n.nspname, c.relkind::text AS kind, pg_get_userbyid(c.relowner) AS owner, count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname IN ('flohsync', '_flohsync', 'flohsync_api') AND c.relkind IN ('r', 'v', 'S') GROUP BY 1, 2, 3
UNION ALL
SELECT n.nspname, 'routine', pg_get_userbyid(p.proowner), NULL FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname IN ('flohsync', '_flohsync', 'flohsync_api') GROUP BY 1, 3
 ORDER BY 1, 2, 3;

CREATE VIEW regress_rights AS
SELECT 'schema' AS kind, n.nspname::text AS object, a.grantee, a.privilege_type AS privilege
  FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname IN ('flohsync', '_flohsync', 'flohsync_api') AND a.grantee <> n.nspowner
UNION ALL
SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, c.oid::regclass::text, a.grantee, a.privilege_type
  FROM pg_class c, aclexplode(c.relacl) a
 WHERE c.relnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace) AND a.grantee <> c.relowner
UNION ALL
SELECT 'columns', c.oid::regclass::text, a.grantee, a.privilege_type || ' (' || string_agg(t.attname, ', ' ORDER BY t.attnum) || ')'
  FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid, aclexplode(t.attacl) a
 WHERE c.relnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace) GROUP BY c.oid, a.grantee, a.privilege_type
UNION ALL
SELECT 'routine', p.oid::regprocedure::text, a.grantee, a.privilege_type
  FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
 WHERE p.pronamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace) AND a.grantee <> p.proowner
UNION ALL
SELECT 'type', t.oid::regtype::text, a.grantee, a.privilege_type FROM pg_type t, aclexplode(t.typacl) a
 WHERE t.typnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace) AND a.grantee NOT IN (0, t.typowner);

-- what each role has; the workers also execute every function of _flohsync but those listed
SELECT CASE r.grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(r.grantee) END AS role, r.kind, r.object, string_agg(r.privilege, ', ' ORDER BY r.privilege) AS privileges
  FROM regress_rights r
 WHERE NOT (pg_get_userbyid(r.grantee) = 'flohsync_worker' AND r.kind = 'routine' AND r.object LIKE '\_flohsync.%')
 GROUP BY r.grantee, r.kind, r.object ORDER BY 1, 2, r.object COLLATE "C";
SELECT p.oid::regprocedure AS not_for_workers FROM pg_proc p
 WHERE p.pronamespace = '_flohsync'::regnamespace AND NOT has_function_privilege('flohsync_worker', p.oid, 'EXECUTE') ORDER BY p.oid::regprocedure::text COLLATE "C";

-- public functions that run as who calls them: they reach nothing that the caller could not
SELECT p.oid::regprocedure AS security_invoker, has_function_privilege('regress_manager', p.oid, 'EXECUTE') AS manager FROM pg_proc p
 WHERE p.pronamespace = 'flohsync'::regnamespace AND NOT p.prosecdef AND p.prosrc NOT IN ('flohsync_as_owner', 'flohsync_as_worker')
 ORDER BY p.oid::regprocedure::text COLLATE "C";
-- those of flohsync_api: the inner half, _flohsync.api_..., runs as the owner for who calls
SELECT p.oid::regprocedure AS api, has_function_privilege('regress_reader', p.oid, 'EXECUTE') AS reader, has_function_privilege('regress_manager', p.oid, 'EXECUTE') AS manager,
       has_function_privilege('regress_gateway', p.oid, 'EXECUTE') AS gateway FROM pg_proc p
 WHERE p.pronamespace = 'flohsync_api'::regnamespace ORDER BY p.oid::regprocedure::text COLLATE "C";
SELECT p.oid::regprocedure AS not_by_the_outer_half FROM pg_proc p WHERE p.pronamespace = 'flohsync_api'::regnamespace AND (p.prosrc <> 'flohsync_api_call' OR p.prosecdef);
-- none of them does for a reader, or the program that serves, what a manager alone may do (but for webhooks, which have a signature)
SELECT p.oid::regprocedure AS lets_others, a.object AS do_this FROM pg_proc p
  JOIN pg_proc i ON i.pronamespace = '_flohsync'::regnamespace AND i.proname = 'api_' || p.proname AND i.proargtypes = p.proargtypes
  JOIN _flohsync.access a ON a.level = 'manager' AND a.columns IS NULL AND i.prosrc ~ ('(^|[^_])\m(_?)' || regexp_replace(a.object, '\(.*', '') || '\(')
 WHERE p.pronamespace = 'flohsync_api'::regnamespace
   AND (has_function_privilege('regress_reader', p.oid, 'EXECUTE') OR has_function_privilege('regress_gateway', p.oid, 'EXECUTE'));
-- those in two halves: the outer one notes who calls, the inner one in _flohsync does the work
SELECT p.oid::regprocedure AS outer_half, p.prosrc AS runs, has_function_privilege('regress_manager', p.oid, 'EXECUTE') AS manager FROM pg_proc p
 WHERE p.prosrc IN ('flohsync_as_owner', 'flohsync_as_worker') ORDER BY p.oid::regprocedure::text COLLATE "C";
-- every function that runs with other rights than the caller's pins its search_path
SELECT p.oid::regprocedure AS path_not_pinned FROM pg_proc p
 WHERE p.pronamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace)
   AND (p.prosecdef OR EXISTS (SELECT FROM pg_proc o WHERE o.prosrc IN ('flohsync_as_owner', 'flohsync_as_worker') AND p.pronamespace = '_flohsync'::regnamespace
                                  AND o.oid <> p.oid AND regexp_replace(o.proname, '^as_worker_', '') = p.proname AND o.proargtypes = p.proargtypes)
                     OR p.pronamespace = '_flohsync'::regnamespace AND p.proname LIKE 'api\_%')
   AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false);
-- views that hide rows are barriers, others are not
SELECT c.oid::regclass AS view, coalesce('security_barrier=true' = ANY (c.reloptions), false) AS barrier FROM pg_class c
 WHERE c.relkind = 'v' AND c.relnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace) ORDER BY c.oid::regclass::text COLLATE "C";
-- C functions that are called with nulls: each looks at them itself
SELECT p.oid::regprocedure AS not_strict FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang AND l.lanname = 'c'
 WHERE p.pronamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace) AND NOT p.proisstrict AND p.pronargs > 0
 ORDER BY p.oid::regprocedure::text COLLATE "C";

-- taken back, nothing is left
SELECT flohsync.revoke_access('regress_reader'), flohsync.revoke_access('regress_manager'), flohsync.revoke_access('regress_gateway');
SELECT count(*) FROM regress_rights r WHERE pg_get_userbyid(r.grantee) LIKE 'regress%';

DROP VIEW regress_rights;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM regress_stranger;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON SEQUENCES FROM regress_stranger;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM regress_stranger;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TYPES FROM regress_stranger;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON SCHEMAS FROM regress_stranger;
DROP ROLE regress_stranger, regress_reader, regress_manager, regress_gateway;
