-- Each step to a new version ends with this (sql/README.md): what it has made gets
-- the owner and the privileges that it has in a new installation, whoever runs the
-- step and whatever default privileges there are.
DO $$
DECLARE
  before jsonb := current_setting('flohsync_step.before')::jsonb;
  installer text := (SELECT quote_ident(pg_get_userbyid(e.extowner)) FROM pg_extension e WHERE e.extname = 'flohsync');
  o record;
BEGIN
  -- What does not belong to flohsync_owner belongs to whoever made the extension.
  FOR o IN
    SELECT 'SCHEMA' AS kind, n.nspname::text AS name
      FROM pg_namespace n
     WHERE n.nspname IN ('_flohsync', 'flohsync_api') AND NOT before ? ('pg_namespace ' || n.oid)
    UNION ALL
    SELECT 'TYPE', t.oid::regtype::text
      FROM pg_type t
     WHERE t.typnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace) AND NOT before ? ('pg_type ' || t.oid) AND t.typelem = 0
       AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind <> 'c')
    UNION ALL
    SELECT 'EVENT TRIGGER', quote_ident(t.evtname)
      FROM pg_event_trigger t JOIN pg_depend d ON d.classid = 'pg_event_trigger'::regclass AND d.objid = t.oid AND d.deptype = 'e'
      JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'flohsync'
     WHERE NOT before ? ('pg_event_trigger ' || t.oid)
  LOOP
    EXECUTE format('ALTER %s %s OWNER TO %s', o.kind, o.name, installer);
  END LOOP;
END
$$;

--:include 90_rights.sql

DO $$
DECLARE
  before jsonb := current_setting('flohsync_step.before')::jsonb;
  worker text := coalesce(nullif(current_setting('flohsync.worker_role', true), ''), 'flohsync_worker');
  o record;
BEGIN
  -- What had to be made anew under its old name is granted to whom it was.
  FOR o IN
    SELECT CASE n.kind WHEN 'f' THEN 'ROUTINE' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, n.name,
           CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee, a.privilege_type, a.is_grantable
      FROM (SELECT 'pg_class' AS catalog, c.oid AS id, c.relkind::text AS kind, c.oid::regclass::text AS name, c.relowner AS owner
              FROM pg_class c WHERE c.relnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace) AND c.relkind IN ('r', 'v', 'S')
            UNION ALL
            SELECT 'pg_proc', p.oid, 'f', p.oid::regprocedure::text, p.proowner
              FROM pg_proc p WHERE p.pronamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace)) n
     CROSS JOIN LATERAL pg_identify_object(n.catalog::regclass, n.id, 0) i
      JOIN jsonb_each(before) b ON b.value->>'name' = i.type || ' ' || i.identity
     CROSS JOIN LATERAL jsonb_to_recordset(nullif(b.value->'granted', 'null')) a(grantor oid, grantee oid, privilege_type text, is_grantable boolean)
     WHERE NOT before ? (n.catalog || ' ' || n.id) AND a.grantee NOT IN (n.owner, (SELECT r.oid FROM pg_roles r WHERE r.rolname = worker))
  LOOP
    EXECUTE format('GRANT %s ON %s %s TO %s%s', o.privilege_type, o.kind, o.name, o.grantee, CASE WHEN o.is_grantable THEN ' WITH GRANT OPTION' END);
  END LOOP;

  -- A GRANT in a step makes all privileges on its object those of a new
  -- installation, which pg_dump leaves out.  What others have granted is none of these.
  UPDATE pg_init_privs p
     SET initprivs = x.kept
    FROM (SELECT i.classoid, i.objoid, i.objsubid,
                 ARRAY(SELECT a.item FROM unnest(i.initprivs) WITH ORDINALITY a(item, nr)
                        WHERE EXISTS (SELECT FROM aclexplode(ARRAY[a.item]) g
                                       WHERE g.grantee = g.grantor OR g.grantee IN (SELECT r.oid FROM pg_roles r WHERE r.rolname IN ('flohsync_owner', worker)))
                           OR before->(i.classoid::regclass || ' ' || i.objoid)->'initial'->(i.objsubid::text) ? a.item::text
                           OR i.classoid = 'pg_type'::regclass AND NOT before ? ('pg_type ' || i.objoid)
                        ORDER BY a.nr) AS kept
            FROM pg_init_privs i
           WHERE i.privtype = 'e'
             -- The schema flohsync is no member.
             AND (before ? (i.classoid::regclass || ' ' || i.objoid) OR EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'flohsync'
                          WHERE d.classid = i.classoid AND d.objid = i.objoid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'))) x
   WHERE p.classoid = x.classoid AND p.objoid = x.objoid AND p.objsubid = x.objsubid AND p.initprivs <> x.kept;
  -- Since PostgreSQL 17 roles are known that these name.
  DELETE FROM pg_shdepend s
   USING pg_init_privs p
   WHERE s.dbid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) AND s.deptype = 'i'
     AND p.classoid = s.classid AND p.objoid = s.objid AND s.refclassid = 'pg_authid'::regclass
     AND NOT EXISTS (SELECT FROM pg_init_privs q, aclexplode(q.initprivs) g
                      WHERE q.classoid = p.classoid AND q.objoid = p.objoid AND s.refobjid IN (g.grantee, g.grantor))
     AND before ? (p.classoid::regclass || ' ' || p.objoid);
END
$$;
SELECT pg_catalog.set_config('flohsync_step.before', '{}', true);

-- Workers have waited for the version of their library.
SELECT _flohsync.wake();
