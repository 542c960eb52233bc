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
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN (SELECT h.id FROM _flohsync.home h);
END
$$;
COMMENT ON FUNCTION _flohsync.home() IS 'Id of this database';

CREATE TABLE flohsync.connector_definition (
  id          uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
  name        text NOT NULL UNIQUE CHECK (name <> '' AND pg_catalog.length(name) <= 255),
  kind        text NOT NULL CHECK (kind = ANY (_flohsync.kinds())),
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
COMMENT ON COLUMN flohsync.connector_definition.kind IS
  'command (one HTTP POST a page), sql (a query or function in this database), rest (declarative definition)';
COMMENT ON COLUMN flohsync.connector_definition.description IS 'Free text';
COMMENT ON COLUMN flohsync.connector_definition.config IS 'Settings of the kind, without secrets';
COMMENT ON COLUMN flohsync.connector_definition.definition IS 'Declarative definition of kind rest';
COMMENT ON COLUMN flohsync.connector_definition.enabled IS 'When false, no run of the connector starts';
COMMENT ON COLUMN flohsync.connector_definition.created_at IS 'When the row was created';
COMMENT ON COLUMN flohsync.connector_definition.updated_at IS 'When the row was last changed';
COMMENT ON COLUMN flohsync.connector_definition.origins IS
  'Origins that requests can be sent to, by config and definition: scheme://host, with the '
  'port unless it is the default';
COMMENT ON COLUMN flohsync.connector_definition.author IS
  'Role that last changed what kind sql runs; a type without a configuration runs with its rights';
COMMENT ON COLUMN flohsync.connector_definition.code_owner IS
  'Owner of the function of kind sql at that time; the function is not run after a change of its owner';
COMMENT ON COLUMN flohsync.connector_definition.home IS 'Database that syncs it, see adopt()';
SELECT _flohsync.allow('reader', 'flohsync.connector_definition',
                       'id, name, kind, description, enabled, created_at, updated_at');
SELECT _flohsync.allow('manager', 'flohsync.connector_definition');

CREATE FUNCTION _flohsync.invalid(_key text, _problem text, _hint text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.raise('22023',
    format('invalid value for "%s": %s', _key, _problem),
    NULL,
    coalesce(_hint, 'Nothing was changed. doc/configuration.md and doc/connectors.md list every key '
                    'with its meaning and default.'));
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
COMMENT ON FUNCTION _flohsync.unknown_key(text, text, text[]) IS
  'Raises 22023 for a key that a settings object does not have';

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
COMMENT ON FUNCTION _flohsync.check_keys(jsonb, text, text[]) IS
  'Raises 22023 unless the value is an object with known keys only';

CREATE FUNCTION _flohsync.check_tables() RETURNS boolean
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_check_tables';
COMMENT ON FUNCTION _flohsync.check_tables() IS
  'True; raises 55000 when row level security, a rule or a disabled trigger affects a table of flohsync';

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
    SELECT string_agg(s.name, ', ') || CASE WHEN max(s.n) > 20 THEN format(' and %s more', max(s.n) - 20)
      ELSE '' END INTO known
      FROM (SELECT d.name, count(*) OVER () AS n FROM flohsync.connector_definition d ORDER BY d.name LIMIT 20) s;
    PERFORM _flohsync.raise('42704',
      format('connector %s does not exist', coalesce('"' || _connector || '"', 'NULL')),
      NULL,
      coalesce('Connectors are: ' || known || '.',
               'There are no connectors; create one with flohsync.create_connector().'));
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
  'Id of a connector given its name or id, locked against being dropped until the end of the transaction; 42704 when '
  'there is none';

CREATE FUNCTION _flohsync.check_resource_type(_resource_type text) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _resource_type IS NULL OR _resource_type !~ '^[A-Za-z][A-Za-z0-9_.-]{0,63}$' THEN
    PERFORM _flohsync.invalid('resource_type',
                              format('%s is not a resource type', coalesce(quote_literal(_resource_type), 'NULL')),
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
    PERFORM _flohsync.invalid('external_id', 'it must have 1 to 255 characters',
                              'It is the id of the record in the upstream.');
  END IF;
  RETURN _external_id;
END
$$;
COMMENT ON FUNCTION _flohsync.check_external_id(text) IS 'The external id itself; 22023 when no record can have it';

CREATE FUNCTION _flohsync.header_problem(_name text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE
  WHEN _name !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]+$' THEN pg_catalog.format('header "%s" is malformed', _name)
  WHEN pg_catalog.lower(_name COLLATE "C") IN ('host', 'content-length', 'transfer-encoding', 'connection', 'expect',
                                               'te', 'trailer', 'upgrade',
                                   'accept-encoding', 'keep-alive', 'proxy-authorization', 'proxy-connection')
    THEN pg_catalog.format('header "%s" is set by flohsync itself', _name)
END;
COMMENT ON FUNCTION _flohsync.header_problem(text) IS 'Why a header of this name cannot be sent; null when it can';

-- What differs from kind to kind is in a topic file of the kind, in functions that
-- have its name: check_<kind>, types_<kind> and credentials_<kind>.

CREATE FUNCTION _flohsync.check_connector(_kind text, _config jsonb, _definition jsonb, _given boolean) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  kinds constant text[] := _flohsync.kinds();
BEGIN
  IF _kind IS NULL OR NOT _kind = ANY (kinds) THEN
    PERFORM _flohsync.invalid('kind', format('%s is not a kind of connector', coalesce(quote_literal(_kind), 'NULL')),
      format('Kinds are %s and %s.', array_to_string(trim_array(kinds, 1), ', '), kinds[cardinality(kinds)]));
  END IF;
  -- A definition may use a value of that name, which is none of webhooks.
  IF _config ? 'webhook' AND NOT (_kind = 'rest' AND jsonb_typeof(_config -> 'webhook') <> 'object'
       AND (NOT _given OR 'webhook' IN (SELECT n FROM _flohsync.definition_names(_definition, 'config') n))) THEN
    PERFORM _flohsync.check_webhook(_config -> 'webhook');
    _config := _config - 'webhook';
  END IF;
  EXECUTE format('SELECT _flohsync.%I($1, $2, $3)', 'check_' || _kind) USING _config, _definition, _given;
END
$$;
COMMENT ON FUNCTION _flohsync.check_connector(text, jsonb, jsonb, boolean) IS
  'Raises 22023 for a connector that makes no sense, naming the key; _given: by somebody, now, so that what '
  'it refers to must be there';

CREATE FUNCTION _flohsync.check_no_definition(_kind text, _definition jsonb) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _definition IS NOT NULL THEN
    PERFORM _flohsync.invalid('definition', format('a connector of kind %s has none', _kind));
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_no_definition(text, jsonb) IS
  'Raises 22023 for a definition of a connector whose kind has none';

CREATE FUNCTION _flohsync.of_kind(_what text, _kind text, _config jsonb, _definition jsonb) RETURNS SETOF text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _kind = ANY (_flohsync.kinds()) THEN
    RETURN QUERY EXECUTE format('SELECT x FROM _flohsync.%I($1, $2) x ORDER BY 1', _what || '_' || _kind)
      USING _config, _definition;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.of_kind(text, text, jsonb, jsonb) IS
  'The types that a connector''s config or definition names, or the secrets that it looks for; none '
  'for a kind that is not known';

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
  PERFORM _flohsync.check_connector(create_connector.kind, create_connector.config, create_connector.definition, true);
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
COMMENT ON FUNCTION _flohsync.create_connector(text, text, jsonb, jsonb) IS
  'Implementation of the public function of this name, run as its owner';

CREATE FUNCTION flohsync.create_connector(name text, kind text, config jsonb, definition jsonb DEFAULT NULL)
  RETURNS uuid
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
    PERFORM _flohsync.check_connector(d.kind, d.config, d.definition, true);
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
     SET description = d.description, config = d.config, definition = d.definition, enabled = d.enabled,
       updated_at = now(),
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
COMMENT ON FUNCTION _flohsync.update_connector(text, jsonb) IS
  'Implementation of the public function of this name, run as its owner';

CREATE FUNCTION flohsync.update_connector(connector text, settings jsonb) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_owner';
COMMENT ON FUNCTION flohsync.update_connector(text, jsonb) IS
  'Changes the given keys (name, description, config, definition, enabled) of a connector; of config, only the keys '
  'given, and null removes one; warns of secrets that were set for another origin and must be set again';
SELECT _flohsync.allow('manager', 'flohsync.update_connector(text, jsonb)');

CREATE FUNCTION _flohsync.stop_connector(_id uuid, _connector text, _disable boolean) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _run bigint;
BEGIN
  -- Running workers are cancelled; then all holders of locks on the connector are waited for.
  PERFORM _flohsync.interrupt_run(r.connector_id, r.resource_type)
     FROM flohsync.sync_run r WHERE r.connector_id = _id AND r.status = 'running';
  PERFORM _flohsync.lock('connector', _id::text, false);
  PERFORM FROM flohsync.connector_definition d WHERE d.id = _id;
  IF NOT FOUND THEN
    PERFORM _flohsync.connector_id(_connector);
  END IF;
  IF _disable THEN
    UPDATE flohsync.connector_definition d SET enabled = false, updated_at = now() WHERE d.id = _id AND d.enabled;
  END IF;
  FOR _run IN SELECT r.id FROM flohsync.sync_run r
               WHERE r.connector_id = _id AND r.status IN ('queued', 'running') LOOP
    PERFORM flohsync.cancel_sync(_run);
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.stop_connector(uuid, text, boolean) IS
  'Locks a connector until the end of the transaction, so that nobody else writes anything of it, and cancels its '
  'runs; disables it if asked to; 42704 when it has been dropped meanwhile';

CREATE FUNCTION _flohsync.remove_connector(_id uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- A deletion by another connector's webhook holds all matches of its user, in this order.
  PERFORM FROM flohsync.connector_sync_match m
    WHERE m.connector_id = _id AND EXISTS (SELECT FROM flohsync.connector_sync_match o WHERE o.user_id = m.user_id
                                           AND o.connector_id <> _id)
    ORDER BY m.id FOR UPDATE;
  PERFORM _flohsync.requeue_stale(ARRAY(SELECT DISTINCT m.user_id FROM flohsync.connector_sync_match m
                                        WHERE m.connector_id = _id AND m.user_id IS NOT NULL));
  -- Its row comes last: a holder of a match of a user that is also matched here may be waiting to record a change here.
  DELETE FROM flohsync.connector_definition d WHERE d.id = _id;
END
$$;
COMMENT ON FUNCTION _flohsync.remove_connector(uuid) IS
  'Removes a connector that is stopped, with all that is left of it';

CREATE FUNCTION flohsync.drop_connector(connector text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _id uuid := _flohsync.connector_id(connector);
BEGIN
  PERFORM _flohsync.stop_connector(_id, connector, false);
  PERFORM _flohsync.remove_connector(_id);
END
$$;
COMMENT ON FUNCTION flohsync.drop_connector(text) IS
  'Removes a connector with its configurations, records, matches and history, in one transaction';
SELECT _flohsync.allow('manager', 'flohsync.drop_connector(text)');
