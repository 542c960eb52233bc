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
  PERFORM _flohsync.check_keys(_config, 'config', ARRAY['url', 'headers', 'commands', 'commandNames', 'limits',
                                                        'concurrency', 'conditional', 'webhook']);
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
  v := nullif(_config -> 'concurrency', 'null');
  IF v IS NOT NULL
     AND NOT coalesce(_flohsync.number(v) BETWEEN 1 AND 32 AND _flohsync.number(v) % 1 = 0, false) THEN
    PERFORM _flohsync.invalid('concurrency', 'it must be an integer from 1 to 32');
  END IF;
  IF jsonb_typeof(_config -> 'conditional') NOT IN ('boolean', 'null') THEN
    PERFORM _flohsync.invalid('conditional', 'it must be true or false');
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
