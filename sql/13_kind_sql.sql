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
  PERFORM _flohsync.check_keys(_config, 'config', ARRAY['function', 'queries', 'webhook']);
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
