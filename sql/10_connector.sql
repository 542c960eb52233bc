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
  kind        text NOT NULL CHECK (kind IN ('command', 'rest', 'sql')),
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
COMMENT ON COLUMN flohsync.connector_definition.kind IS 'command (one HTTP POST a page), sql (a query or function in this database), rest (declarative definition)';
COMMENT ON COLUMN flohsync.connector_definition.description IS 'Free text';
COMMENT ON COLUMN flohsync.connector_definition.config IS 'Settings of the kind, without secrets';
COMMENT ON COLUMN flohsync.connector_definition.definition IS 'Declarative definition of kind rest';
COMMENT ON COLUMN flohsync.connector_definition.enabled IS 'When false, no run of the connector starts';
COMMENT ON COLUMN flohsync.connector_definition.created_at IS 'When the row was created';
COMMENT ON COLUMN flohsync.connector_definition.updated_at IS 'When the row was last changed';
COMMENT ON COLUMN flohsync.connector_definition.origins IS 'Origins that requests can be sent to, by config and definition: scheme://host, with the port unless it is the default';
COMMENT ON COLUMN flohsync.connector_definition.author IS 'Role that last changed what kind sql runs; a type without a configuration runs with its rights';
COMMENT ON COLUMN flohsync.connector_definition.code_owner IS 'Owner of the function of kind sql at that time; the function is not run after a change of its owner';
COMMENT ON COLUMN flohsync.connector_definition.home IS 'Database that syncs it, see adopt()';
SELECT _flohsync.allow('reader', 'flohsync.connector_definition', 'id, name, kind, description, enabled, created_at, updated_at');
SELECT _flohsync.allow('manager', 'flohsync.connector_definition');

CREATE FUNCTION _flohsync.invalid(_key text, _problem text, _hint text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.raise('22023',
    format('invalid value for "%s": %s', _key, _problem),
    NULL,
    coalesce(_hint, 'Nothing was changed. The README lists every setting with its type and default.'));
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
COMMENT ON FUNCTION _flohsync.unknown_key(text, text, text[]) IS 'Raises 22023 for a key that a settings object does not have';

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
COMMENT ON FUNCTION _flohsync.check_keys(jsonb, text, text[]) IS 'Raises 22023 unless the value is an object with known keys only';

CREATE FUNCTION _flohsync.check_tables() RETURNS boolean
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_check_tables';
COMMENT ON FUNCTION _flohsync.check_tables() IS 'True; raises 55000 when row level security, a rule or a disabled trigger affects a table of flohsync';

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
    SELECT string_agg(s.name, ', ') || CASE WHEN max(s.n) > 20 THEN format(' and %s more', max(s.n) - 20) ELSE '' END INTO known
      FROM (SELECT d.name, count(*) OVER () AS n FROM flohsync.connector_definition d ORDER BY d.name LIMIT 20) s;
    PERFORM _flohsync.raise('42704',
      format('connector %s does not exist', coalesce('"' || _connector || '"', 'NULL')),
      NULL,
      coalesce('Connectors are: ' || known || '.', 'There are no connectors; create one with flohsync.create_connector().'));
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
  'Id of a connector given its name or id, locked against being dropped until the end of the transaction; 42704 when there is none';

CREATE FUNCTION _flohsync.check_resource_type(_resource_type text) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _resource_type IS NULL OR _resource_type !~ '^[A-Za-z][A-Za-z0-9_.-]{0,63}$' THEN
    PERFORM _flohsync.invalid('resource_type', format('%s is not a resource type', coalesce(quote_literal(_resource_type), 'NULL')),
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
    PERFORM _flohsync.invalid('external_id', 'it must have 1 to 255 characters', 'It is the id of the record in the upstream.');
  END IF;
  RETURN _external_id;
END
$$;
COMMENT ON FUNCTION _flohsync.check_external_id(text) IS 'The external id itself; 22023 when no record can have it';

CREATE FUNCTION _flohsync.list_command(_config jsonb, _resource_type text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN coalesce(
  _config -> 'commandNames' ->> _resource_type,
  'list' || pg_catalog.upper(pg_catalog.left(_resource_type, 1) COLLATE "C") || pg_catalog.substr(_resource_type, 2) || 's');
COMMENT ON FUNCTION _flohsync.list_command(jsonb, text) IS 'Name of the list command of a resource type: commandNames, else listX + s';

CREATE FUNCTION _flohsync.get_command(_config jsonb, _resource_type text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN (SELECT g.name FROM (SELECT 'get' || pg_catalog.upper(pg_catalog.left(_resource_type, 1) COLLATE "C") || pg_catalog.substr(_resource_type, 2) AS name) g
         WHERE NOT _config ? 'commands' OR _config -> 'commands' ? g.name);
COMMENT ON FUNCTION _flohsync.get_command(jsonb, text) IS 'Name of the command for one record of a resource type: getX; null where config.commands does not list it';

-- What the C code reads of a config must be of its type, also where no trigger looked at it.
CREATE FUNCTION _flohsync.config_fault(_kind text, _config jsonb) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE
  WHEN _kind = 'command' THEN CASE
    WHEN pg_catalog.jsonb_typeof(_config -> 'url') IS DISTINCT FROM 'string' THEN 'it has no "url"'
    WHEN pg_catalog.jsonb_typeof(_config -> 'headers') <> 'object'
      OR pg_catalog.jsonb_path_exists(_config, '$.headers.* ? (@.type() != "string")') THEN '"headers" is not an object of strings'
    WHEN _config #> '{limits,requests_per_minute}' IS NOT NULL
     AND NOT pg_catalog.jsonb_path_exists(_config, '$.limits.requests_per_minute ? (@.type() == "number" && @ >= 1 && @ <= 100000)')
      THEN '"requests_per_minute" is not a number from 1 to 100000' END
  WHEN _kind = 'sql' THEN CASE
    WHEN pg_catalog.jsonb_typeof(_config -> 'function') <> 'string' THEN '"function" is not a string'
    WHEN pg_catalog.jsonb_typeof(_config -> 'queries') <> 'object'
      OR pg_catalog.jsonb_path_exists(_config, '$.queries.* ? (@.type() != "string")') THEN '"queries" is not an object of strings' END
END;
COMMENT ON FUNCTION _flohsync.config_fault(text, jsonb) IS 'Which value of a config that a run reads is of the wrong type; null: none';

CREATE FUNCTION _flohsync.syncable_types(_kind text, _config jsonb, _definition jsonb) RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  WITH part AS (
    SELECT CASE pg_catalog.jsonb_typeof(_config -> 'queries') WHEN 'object' THEN _config -> 'queries' END AS queries,
           CASE pg_catalog.jsonb_typeof(_definition -> 'resources') WHEN 'object' THEN _definition -> 'resources' END AS resources,
           CASE pg_catalog.jsonb_typeof(_config -> 'commandNames') WHEN 'object' THEN _config -> 'commandNames' END AS names,
           CASE pg_catalog.jsonb_typeof(_config -> 'commands') WHEN 'array' THEN _config -> 'commands' END AS commands)
  SELECT t.type FROM (
    SELECT k.key AS type FROM part p CROSS JOIN LATERAL pg_catalog.jsonb_object_keys(p.queries) k(key) WHERE _kind = 'sql'
    UNION
    SELECT k.key FROM part p CROSS JOIN LATERAL pg_catalog.jsonb_object_keys(p.resources) k(key) WHERE _kind = 'rest'
    UNION
    SELECT k.key FROM part p CROSS JOIN LATERAL pg_catalog.jsonb_object_keys(p.names) k(key) WHERE _kind <> 'rest'
    UNION
    SELECT pg_catalog.lower(pg_catalog.substr(c.name, 5, 1) COLLATE "C") || pg_catalog.substr(c.name, 6, pg_catalog.length(c.name) - 6)
      FROM part p CROSS JOIN LATERAL pg_catalog.jsonb_array_elements_text(p.commands) c(name)
     WHERE _kind <> 'rest' AND c.name ~ '^list[A-Z][A-Za-z0-9_.-]*s$'
       AND NOT EXISTS (SELECT FROM pg_catalog.jsonb_each_text(p.names) n WHERE n.value = c.name)
  ) t ORDER BY 1;
END;
COMMENT ON FUNCTION _flohsync.syncable_types(text, jsonb, jsonb) IS 'Resource types that a connector''s config or definition names';

CREATE FUNCTION _flohsync.header_problem(_name text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE
  WHEN _name !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]+$' THEN pg_catalog.format('header "%s" is malformed', _name)
  WHEN pg_catalog.lower(_name COLLATE "C") IN ('host', 'content-length', 'transfer-encoding', 'connection', 'expect', 'te', 'trailer', 'upgrade',
                                   'accept-encoding', 'keep-alive', 'proxy-authorization', 'proxy-connection')
    THEN pg_catalog.format('header "%s" is set by flohsync itself', _name)
END;
COMMENT ON FUNCTION _flohsync.header_problem(text) IS 'Why a header of this name cannot be sent; null when it can';

CREATE FUNCTION _flohsync.check_connector(_kind text, _config jsonb, _definition jsonb) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  k text;
  v jsonb;
  problem text;
BEGIN
  IF _kind IS NULL OR _kind NOT IN ('command', 'sql', 'rest') THEN
    PERFORM _flohsync.invalid('kind', format('%s is not a kind of connector', coalesce(quote_literal(_kind), 'NULL')),
      'Kinds are command, sql and rest.');
  END IF;
  IF _kind = 'rest' THEN
    PERFORM _flohsync.check_definition(_config, _definition);
    RETURN;
  END IF;
  IF _definition IS NOT NULL THEN
    PERFORM _flohsync.invalid('definition', format('a connector of kind %s has none', _kind));
  END IF;

  IF _kind = 'command' THEN
    PERFORM _flohsync.check_keys(_config, 'config', ARRAY['url', 'headers', 'commands', 'commandNames', 'limits']);
    IF jsonb_typeof(_config -> 'url') IS DISTINCT FROM 'string' THEN
      PERFORM _flohsync.invalid('url', 'it is required', 'Specify the URL that takes the commands, e.g. "https://directory.example.com/api".');
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
      IF v IS NOT NULL AND NOT coalesce(_flohsync.number(v) BETWEEN 1 AND 100000 AND _flohsync.number(v) % 1 = 0, false) THEN
        PERFORM _flohsync.invalid('requests_per_minute', 'it must be an integer from 1 to 100000');
      END IF;
      v := _config -> 'limits' -> 'total_tolerance';
      IF v IS NOT NULL AND NOT coalesce(_flohsync.number(v) BETWEEN 0 AND 1, false) THEN
        PERFORM _flohsync.invalid('total_tolerance', 'it must be a number from 0 to 1');
      END IF;
    END IF;
  ELSE
    PERFORM _flohsync.check_keys(_config, 'config', ARRAY['function', 'queries']);
    IF (_config ? 'function') = (_config ? 'queries') THEN
      PERFORM _flohsync.invalid('config', 'a connector of kind sql has either "function" or "queries"');
    END IF;
    IF _config ? 'function' THEN
      IF jsonb_typeof(_config -> 'function') <> 'string' OR length(_config ->> 'function') > 300 THEN
        PERFORM _flohsync.invalid('function', 'it must be the name of a function', 'Specify the function with its schema.');
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
            'A query is one SELECT that yields external_id, display_name, email and attributes, and modified_at for incremental runs.');
        END IF;
      END LOOP;
    END IF;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_connector(text, jsonb, jsonb) IS 'Raises 22023 for an invalid connector, naming the key';

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
           WHERE p.proname = part[cardinality(part)] AND n.nspname = CASE cardinality(part) WHEN 2 THEN part[1] WHEN 1 THEN 'pg_catalog' END
             AND p.pronargs = 1 AND p.proargtypes[0] = 'jsonb'::regtype
             AND p.prorettype = 'jsonb'::regtype AND NOT p.proretset AND p.prokind = 'f');
END
$$;
COMMENT ON FUNCTION _flohsync.function_of_kind_sql(text) IS 'The function (jsonb) of a name that returns jsonb; null when there is none';

CREATE FUNCTION _flohsync.code_owner(_kind text, _config jsonb) RETURNS _flohsync.role
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN (SELECT _flohsync.role(p.proowner) FROM pg_catalog.pg_proc p
         WHERE _kind = 'sql' AND p.oid = _flohsync.function_of_kind_sql(_config ->> 'function'));
COMMENT ON FUNCTION _flohsync.code_owner(text, jsonb) IS 'Owner of the function of a connector of kind sql; null where there is none';

CREATE FUNCTION _flohsync.check_function(_kind text, _config jsonb) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _kind = 'sql' AND _config ? 'function' AND _flohsync.function_of_kind_sql(_config ->> 'function') IS NULL THEN
    PERFORM _flohsync.invalid('function', format('there is no function %s(jsonb) that returns jsonb', _config ->> 'function'),
      'Specify the function with its schema.');
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_function(text, jsonb) IS 'Raises 22023 when the function of a connector of kind sql does not exist';

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
  PERFORM _flohsync.check_connector(create_connector.kind, create_connector.config, create_connector.definition);
  PERFORM _flohsync.check_function(create_connector.kind, create_connector.config);
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
COMMENT ON FUNCTION _flohsync.create_connector(text, text, jsonb, jsonb) IS 'Implementation of the public function of this name, run as its owner';

CREATE FUNCTION flohsync.create_connector(name text, kind text, config jsonb, definition jsonb DEFAULT NULL) RETURNS uuid
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
    PERFORM _flohsync.check_connector(d.kind, d.config, d.definition);
    PERFORM _flohsync.check_function(d.kind, d.config);
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
     SET description = d.description, config = d.config, definition = d.definition, enabled = d.enabled, updated_at = now(),
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
COMMENT ON FUNCTION _flohsync.update_connector(text, jsonb) IS 'Implementation of the public function of this name, run as its owner';

CREATE FUNCTION flohsync.update_connector(connector text, settings jsonb) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_owner';
COMMENT ON FUNCTION flohsync.update_connector(text, jsonb) IS
  'Changes the given keys (name, description, config, definition, enabled) of a connector; of config, only the keys given, and null removes one; warns of secrets that were set for another origin and must be set again';
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
    WHERE m.connector_id = _id AND EXISTS (SELECT FROM flohsync.connector_sync_match o WHERE o.user_id = m.user_id AND o.connector_id <> _id)
    ORDER BY m.id FOR UPDATE;
  PERFORM _flohsync.requeue_stale(ARRAY(SELECT DISTINCT m.user_id FROM flohsync.connector_sync_match m WHERE m.connector_id = _id AND m.user_id IS NOT NULL));
  DELETE FROM flohsync.connector_definition d WHERE d.id = _id;
END
$$;
COMMENT ON FUNCTION flohsync.drop_connector(text) IS
  'Removes a connector with its configurations, records, matches and history';
SELECT _flohsync.allow('manager', 'flohsync.drop_connector(text)');
