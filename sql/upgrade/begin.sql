-- Each step to a new version begins with this (sql/README.md).

\echo Use "ALTER EXTENSION flohsync UPDATE" to load this file. \quit

-- As in 00_guard.sql.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

-- What is there, with what others have been granted on it and what pg_dump takes
-- for privileges of a new installation: end.sql has to know.
SELECT pg_catalog.set_config('flohsync_step.before', coalesce((
  SELECT jsonb_object_agg(o.catalog || ' ' || o.id, jsonb_build_object(
           'name', (SELECT i.type || ' ' || i.identity FROM pg_identify_object(o.catalog::regclass, o.id, 0) i),
           'granted', (SELECT jsonb_agg(to_jsonb(a)) FROM aclexplode(o.acl) a WHERE a.grantee <> o.owner),
           'initial', (SELECT jsonb_object_agg(p.objsubid, p.initprivs::text[]) FROM pg_init_privs p WHERE p.classoid = o.catalog::regclass AND p.objoid = o.id)))
    FROM (SELECT 'pg_namespace' AS catalog, n.oid AS id, n.nspacl AS acl, n.nspowner AS owner FROM pg_namespace n WHERE n.nspname IN ('flohsync', '_flohsync', 'flohsync_api')
          UNION ALL
          SELECT 'pg_class', c.oid, c.relacl, c.relowner FROM pg_class c WHERE c.relnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, to_regnamespace('flohsync_api'))
          UNION ALL
          SELECT 'pg_proc', p.oid, p.proacl, p.proowner FROM pg_proc p WHERE p.pronamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, to_regnamespace('flohsync_api'))
          UNION ALL
          SELECT 'pg_type', t.oid, t.typacl, t.typowner FROM pg_type t WHERE t.typnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, to_regnamespace('flohsync_api'))
          UNION ALL
          SELECT 'pg_event_trigger', t.oid, NULL, t.evtowner FROM pg_event_trigger t) o)::text, '{}'), true);
