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
     WHERE c.relnamespace
           IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace)
       AND c.relkind IN ('r', 'v', 'S')
       -- a sequence of an identity column goes with its table
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refobjsubid > 0
                          AND d.deptype IN ('a', 'i') AND c.relkind = 'S')
       AND NOT known ? ('pg_class ' || c.oid)
    UNION ALL
    SELECT CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, p.oid::regprocedure::text
      FROM pg_catalog.pg_proc p WHERE p.pronamespace
           IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace)
       AND NOT known ? ('pg_proc ' || p.oid)
  LOOP
    EXECUTE format('ALTER %s %s OWNER TO flohsync_owner', o.kind, o.name);
  END LOOP;

  -- Default privileges have taken from the owner, or from PUBLIC, what they should have.
  FOR o IN
    SELECT 'ALL' AS privilege, 'SCHEMA' AS kind, n.nspname::text AS name, n.nspowner::regrole::text AS grantee
      FROM pg_catalog.pg_namespace n
     WHERE n.nspname IN ('flohsync', '_flohsync', 'flohsync_api') AND n.nspacl IS NOT NULL
       AND NOT known ? ('pg_namespace ' || n.oid)
    UNION ALL
    SELECT 'ALL', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass::text,
      c.relowner::regrole::text
      FROM pg_catalog.pg_class c
     WHERE c.relnamespace
           IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace)
       AND c.relkind IN ('r', 'v', 'S')
       AND c.relacl IS NOT NULL
       AND NOT known ? ('pg_class ' || c.oid)
    UNION ALL
    SELECT 'ALL', 'ROUTINE', p.oid::regprocedure::text, p.proowner::regrole::text
      FROM pg_catalog.pg_proc p
     WHERE p.pronamespace
           IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace)
       AND p.proacl IS NOT NULL
       AND NOT known ? ('pg_proc ' || p.oid)
    UNION ALL
    SELECT 'USAGE', 'TYPE', t.oid::regtype::text, g.grantee
      FROM pg_catalog.pg_type t CROSS JOIN LATERAL (VALUES (t.typowner::regrole::text), ('PUBLIC')) g(grantee)
     WHERE t.typnamespace
           IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace)
       AND t.typacl IS NOT NULL
       AND NOT known ? ('pg_type ' || t.oid)
  LOOP
    EXECUTE format('GRANT %s ON %s %s TO %s', o.privilege, o.kind, o.name, o.grantee);
  END LOOP;

  -- They have granted what PUBLIC or somebody should not have.
  FOR o IN
    SELECT DISTINCT 'SCHEMA' AS kind, n.nspname::text AS name, a.grantee
      FROM pg_catalog.pg_namespace n, aclexplode(n.nspacl) a
     WHERE n.nspname IN ('flohsync', '_flohsync', 'flohsync_api') AND a.grantee <> n.nspowner
       AND NOT known ? ('pg_namespace ' || n.oid)
    UNION
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass::text, a.grantee
      FROM pg_catalog.pg_class c, aclexplode(c.relacl) a
     WHERE c.relnamespace
           IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace)
       AND a.grantee <> c.relowner
       AND NOT known ? ('pg_class ' || c.oid)
    UNION
    SELECT 'ROUTINE', p.oid::regprocedure::text, a.grantee
      FROM pg_catalog.pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
     WHERE p.pronamespace
           IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace)
       AND a.grantee <> p.proowner
       AND NOT known ? ('pg_proc ' || p.oid)
    UNION
    SELECT 'TYPE', t.oid::regtype::text, a.grantee
      FROM pg_catalog.pg_type t, aclexplode(t.typacl) a
     WHERE t.typnamespace
           IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace)
       AND a.grantee NOT IN (0, t.typowner)
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
