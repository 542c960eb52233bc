-- What the extension consists of.  A change here is a change of the interface,
-- or of what an upgrade script has to do.
SET client_min_messages = error;
DROP EXTENSION IF EXISTS flohsync CASCADE;
CREATE EXTENSION flohsync;

-- tables and views
SELECT c.oid::regclass AS relation, c.relkind, string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) AS columns
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace) AND c.relkind IN ('r', 'v')
 GROUP BY c.oid ORDER BY c.relnamespace::regnamespace::text COLLATE "C" DESC, c.relname COLLATE "C";

-- routines
SELECT p.oid::regprocedure AS routine, p.prokind, coalesce(pg_get_function_result(p.oid), '') AS result
  FROM pg_proc p WHERE p.pronamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace)
 ORDER BY p.pronamespace::regnamespace::text COLLATE "C" DESC, p.proname COLLATE "C", p.oid::regprocedure::text COLLATE "C";

-- every table tells its rows apart, for publications of all tables
SELECT c.oid::regclass AS relation FROM pg_class c
 WHERE c.relnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace) AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.relreplident <> 'f'
   AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary AND c.relreplident = 'd' END);

-- nothing is granted to PUBLIC
SELECT p.oid::regprocedure AS routine FROM pg_proc p
 WHERE p.pronamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace) AND has_function_privilege('public', p.oid, 'EXECUTE');
SELECT c.oid::regclass AS relation FROM pg_class c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRIGGER']) AS t(privilege)
 WHERE c.relnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace) AND c.relkind IN ('r', 'v') AND has_table_privilege('public', c.oid, t.privilege);

-- every routine pins its search_path, but C, and SQL whose names were resolved when it was created
SELECT p.oid::regprocedure AS routine FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
 WHERE p.pronamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace) AND l.lanname NOT IN ('c', 'internal') AND p.prosqlbody IS NULL
   AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false);

-- everything has a comment
SELECT p.oid::regprocedure::text AS object FROM pg_proc p
 WHERE p.pronamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace) AND obj_description(p.oid, 'pg_proc') IS NULL
UNION ALL
SELECT c.oid::regclass || coalesce('.' || a.attname, '') FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
 WHERE c.relnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace) AND c.relkind IN ('r', 'v')
   AND (obj_description(c.oid, 'pg_class') IS NULL OR col_description(c.oid, a.attnum) IS NULL)
 ORDER BY 1;

-- what a dump carries
SELECT c.oid::regclass AS relation, x.condition
  FROM pg_extension e, unnest(e.extconfig, e.extcondition) AS x(relation, condition) JOIN pg_class c ON c.oid = x.relation
 WHERE e.extname = 'flohsync' ORDER BY c.relname COLLATE "C";
