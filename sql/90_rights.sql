-- Who may do what: everything belongs to flohsync_owner; nothing is for PUBLIC,
-- nor for the roles in default privileges of the installing role; the workers' role
-- gets what workers need; applications' roles get what is declared.

DO $$
DECLARE
  o record;
BEGIN
  FOR o IN
    SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, c.oid::regclass::text AS name
      FROM pg_catalog.pg_class c
     WHERE c.relnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace) AND c.relkind IN ('r', 'v', 'S')
       -- a sequence of an identity column goes with its table
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i') AND c.relkind = 'S')
    UNION ALL
    SELECT CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, p.oid::regprocedure::text
      FROM pg_catalog.pg_proc p WHERE p.pronamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace)
  LOOP
    EXECUTE format('ALTER %s %s OWNER TO flohsync_owner', o.kind, o.name);
  END LOOP;

  -- Default privileges have granted what PUBLIC or somebody should not have.
  FOR o IN
    SELECT DISTINCT 'SCHEMA' AS kind, n.nspname::text AS name, a.grantee
      FROM pg_catalog.pg_namespace n, aclexplode(n.nspacl) a
     WHERE n.nspname IN ('flohsync', '_flohsync') AND a.grantee <> n.nspowner
    UNION
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass::text, a.grantee
      FROM pg_catalog.pg_class c, aclexplode(c.relacl) a
     WHERE c.relnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace) AND a.grantee <> c.relowner
    UNION
    SELECT 'ROUTINE', p.oid::regprocedure::text, a.grantee
      FROM pg_catalog.pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
     WHERE p.pronamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace) AND a.grantee <> p.proowner
    UNION
    SELECT 'TYPE', t.oid::regtype::text, a.grantee
      FROM pg_catalog.pg_type t, aclexplode(t.typacl) a
     WHERE t.typnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace) AND a.grantee NOT IN (0, t.typowner)
  LOOP
    EXECUTE format('REVOKE ALL ON %s %s FROM %s', o.kind, o.name,
                   CASE o.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_catalog.pg_get_userbyid(o.grantee)) END);
  END LOOP;
END
$$;

GRANT USAGE ON SCHEMA flohsync, _flohsync TO flohsync_owner;

SELECT _flohsync.grant_worker(pg_catalog.quote_ident(
  coalesce(nullif(pg_catalog.current_setting('flohsync.worker_role', true), ''), 'flohsync_worker'))::pg_catalog.regrole);
