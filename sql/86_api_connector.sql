-- What HTTP serves of connectors, their secrets and their records.

CREATE FUNCTION _flohsync.connector_dto(_d flohsync.connector_definition, _managed boolean) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN jsonb_build_object(
      'id', _d.id, 'name', _d.name, 'kind', _d.kind, 'description', _d.description, 'enabled', _d.enabled,
      'createdAt', _flohsync.iso(_d.created_at), 'updatedAt', _flohsync.iso(_d.updated_at),
      -- Of what is configured, not of records: a sync does not change it.
      'resourceTypes', (SELECT coalesce(jsonb_agg(t.type ORDER BY t.type), '[]')
                          FROM (SELECT k.type COLLATE "C"
                                  FROM _flohsync.of_kind('types', _d.kind, _d.config, _d.definition) k(type)
                                UNION SELECT c.resource_type::text FROM flohsync.connector_sync_config c
                                       WHERE c.connector_id = _d.id) t(type)))
    || CASE WHEN _managed THEN jsonb_build_object('config', _d.config, 'definition', _d.definition) ELSE '{}' END;
END
$$;
COMMENT ON FUNCTION _flohsync.connector_dto(flohsync.connector_definition, boolean) IS
  'A connector in its public JSON form, with config and definition for managers';

CREATE FUNCTION _flohsync.api_connectors(search text DEFAULT NULL, page int DEFAULT 1, page_size int DEFAULT 50)
  RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _search text := _flohsync.search_fold(nullif(api_connectors.search, ''));
  _total bigint;
  _data jsonb;
BEGIN
  PERFORM _flohsync.check_tables();
  PERFORM _flohsync.check_page(api_connectors.page, api_connectors.page_size);
  SELECT count(*) INTO _total FROM flohsync.connector_definition d
   WHERE _search IS NULL OR strpos(_flohsync.search_text(d.id::text, d.description, d.name), _search) > 0;
  SELECT jsonb_agg(_flohsync.connector_dto(x.d, false) ORDER BY (x.d).name COLLATE "C") INTO _data
    FROM (SELECT d FROM flohsync.connector_definition d
           WHERE _search IS NULL OR strpos(_flohsync.search_text(d.id::text, d.description, d.name), _search) > 0
           ORDER BY d.name COLLATE "C"
           LIMIT api_connectors.page_size
          OFFSET (api_connectors.page - 1)::bigint * api_connectors.page_size) x;
  RETURN _flohsync.page_object(_data, _total, api_connectors.page, api_connectors.page_size);
END
$$;
SELECT _flohsync.serve('{reader}', 'connectors(text, int, int)',
  'A page of connectors, in the order of their names; search: those with this text in name, description or id; pages '
  'of 1 to 2000 (50), counted from 1');

CREATE FUNCTION _flohsync.api_connector(connector text) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _id uuid := _flohsync.connector_id(connector);
  answer jsonb;
BEGIN
  SELECT _flohsync.connector_dto(d, _flohsync.caller_manages()) INTO STRICT answer
    FROM flohsync.connector_definition d WHERE d.id = _id;
  PERFORM _flohsync.respond(NULL, NULL, _flohsync.etag(answer));
  RETURN answer;
END
$$;
SELECT _flohsync.serve('{reader}', 'connector(text)',
  'A connector, by its name or id: {id, name, kind, description, enabled, createdAt, updatedAt, resourceTypes}, for '
  'managers also {config, definition}; never a secret; with an ETag');

CREATE FUNCTION _flohsync.api_create_connector(name text, kind text, config jsonb DEFAULT '{}',
                                               definition jsonb DEFAULT NULL, description text DEFAULT NULL,
                                               enabled boolean DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _id uuid := _flohsync.create_connector(name, kind, coalesce(config, '{}'), nullif(definition, 'null'));
  answer jsonb;
BEGIN
  IF description IS NOT NULL OR enabled IS NOT NULL THEN
    PERFORM _flohsync.update_connector(_id::text, jsonb_strip_nulls(jsonb_build_object(
      'description', description, 'enabled', enabled)));
  END IF;
  answer := _flohsync.api_connector(_id::text);
  PERFORM _flohsync.respond(201, '/api/connectors/' || _id, _flohsync.etag(answer));
  RETURN answer;
END
$$;
SELECT _flohsync.serve('{manager}', 'create_connector(text, text, jsonb, jsonb, text, boolean)',
  'Creates a connector and returns it, with status 201; 22023 names the invalid key, 42710 when the name is taken');

CREATE FUNCTION _flohsync.api_update_connector(connector text, changes jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _id uuid := _flohsync.hold_connector(connector);
BEGIN
  -- As update_connector() locks it, so that what is compared is what is changed.
  IF changes ? 'name' THEN
    PERFORM FROM flohsync.connector_definition d WHERE d.id = _id FOR UPDATE;
  ELSE
    PERFORM FROM flohsync.connector_definition d WHERE d.id = _id FOR NO KEY UPDATE;
  END IF;
  PERFORM _flohsync.check_if_match((SELECT _flohsync.etag(_flohsync.connector_dto(d, _flohsync.caller_manages()))
                                      FROM flohsync.connector_definition d WHERE d.id = _id));
  PERFORM _flohsync.update_connector(_id::text, changes);
  RETURN _flohsync.api_connector(_id::text);
END
$$;
SELECT _flohsync.serve('{manager}', 'update_connector(text, jsonb)',
  'Changes the given keys (name, description, config, definition, enabled) of a connector, and returns it; of config, '
  'only the keys given, and null removes one; 22023 names the invalid key; FLS12 when If-Match has not its ETag');

CREATE FUNCTION _flohsync.api_delete_connector(connector text) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM flohsync.drop_connector(connector);
  PERFORM _flohsync.respond(204);
  RETURN NULL;
END
$$;
SELECT _flohsync.serve('{manager}', 'delete_connector(text)',
  'Removes a connector with its configurations, records, matches and history; status 204');

CREATE FUNCTION _flohsync.api_test_connector(connector text) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN flohsync.test_connector(connector);
END
$$;
SELECT _flohsync.serve('{manager}', 'test_connector(text)',
  'Requests one record of each resource type from the upstream: {"ok":true,"types":{…}} or {"ok":false,"error":…}');

CREATE FUNCTION _flohsync.api_secrets(connector text) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _id uuid := _flohsync.connector_id(connector);
BEGIN
  RETURN (SELECT coalesce(jsonb_agg(jsonb_build_object('name', s.name, 'updatedAt', _flohsync.iso(s.updated_at),
                                                       'usable', s.usable, 'origins', s.origins, 'keyId', s.key_id)
                                    ORDER BY s.name), '[]')
            FROM flohsync.connector_secrets s WHERE s.connector_id = _id);
END
$$;
SELECT _flohsync.serve('{manager}', 'secrets(text)',
  'The secrets of a connector, without their values: an array of {name, updatedAt, usable, origins, keyId}');

CREATE FUNCTION _flohsync.api_set_secret(connector text, name text, value text) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF value IS NULL THEN
    PERFORM _flohsync.invalid('value', 'it must not be null');
  END IF;
  PERFORM flohsync.set_secret(connector, name, value);
  PERFORM _flohsync.respond(204);
  RETURN NULL;
END
$$;
SELECT _flohsync.serve('{manager}', 'set_secret(text, text, text)',
  'Stores a secret of a connector, encrypted; status 204; 22023 for a bad name or length');

CREATE FUNCTION _flohsync.api_delete_secret(connector text, name text) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _id uuid := _flohsync.connector_id(connector);
BEGIN
  IF NOT EXISTS (SELECT FROM _flohsync.connector_secret s
                  WHERE s.connector_id = _id AND s.name = api_delete_secret.name) THEN
    PERFORM _flohsync.raise('42704', format('connector "%s" has no secret %s', connector,
                                            coalesce('"' || name || '"', 'NULL')));
  END IF;
  PERFORM flohsync.set_secret(_id::text, name, NULL);
  PERFORM _flohsync.respond(204);
  RETURN NULL;
END
$$;
SELECT _flohsync.serve('{manager}', 'delete_secret(text, text)',
  'Removes a secret of a connector; status 204; 42704 when there is none');

CREATE FUNCTION _flohsync.api_templates() RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN (SELECT jsonb_agg(jsonb_build_object('name', t.name, 'title', t.title, 'config', t.config,
                                              'secrets', t.secrets, 'resourceTypes', t.resource_types,
                                              'notes', t.notes, 'sources', t.sources, 'webhook', t.webhook)
                           ORDER BY t.ordinality)
            FROM flohsync.connector_templates() WITH ORDINALITY t);
END
$$;
SELECT _flohsync.serve('{reader}', 'templates()',
  'Templates of connectors of kind rest: an array of {name, title, config, secrets, resourceTypes, notes, sources, '
  'webhook}');

CREATE FUNCTION _flohsync.api_validate_definition(definition jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN flohsync.validate_definition(definition);
END
$$;
SELECT _flohsync.serve('{reader}', 'validate_definition(jsonb)',
  'The faults of a definition of kind rest, each with its JSON pointer; an empty array: none');

-- These two answer what list_resources() and get_resource() do (src/entry/read.c).

CREATE FUNCTION _flohsync.api_resources(connector text, resource_type text DEFAULT NULL, search text DEFAULT NULL,
                                        stale boolean DEFAULT NULL, page int DEFAULT 1, page_size int DEFAULT 50,
                                        after text DEFAULT NULL) RETURNS json
LANGUAGE c STABLE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_api_resources';
SELECT _flohsync.serve('{reader}', 'resources(text, text, text, boolean, int, int, text)',
  'A page of records of a connector, of all types or one; search: those with this text in id, e-mail address or name; '
  'stale: only stale, or only active ones; after: instead of page, the nextAfter of the page before');

CREATE FUNCTION _flohsync.no_resource(connector text, resource_type text, external_id text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.connector_id(connector), _flohsync.check_resource_type(resource_type);
  PERFORM _flohsync.raise('42704',
    _flohsync.clean(format('connector "%s" has no record %s of resource type "%s"', connector,
                           coalesce('"' || external_id || '"', 'NULL'), resource_type)),
    NULL,
    'The record has not been synced, or is filtered out, or was purged.');
END
$$;
COMMENT ON FUNCTION _flohsync.no_resource(text, text, text) IS
  'Raises 42704 for a record that there is not, 22023 for a malformed resource type';

CREATE FUNCTION _flohsync.api_resource(connector text, resource_type text, external_id text) RETURNS json
LANGUAGE c STABLE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_api_resource';
SELECT _flohsync.serve('{reader}', 'resource(text, text, text)', 'A record, with an ETag; 42704 when there is none');

CREATE FUNCTION _flohsync.api_explain(connector text, resource_type text, external_id text) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN flohsync.explain_match(connector, resource_type, external_id);
END
$$;
SELECT _flohsync.serve('{reader}', 'explain(text, text, text)',
  'Explains the match of a record: each strategy with its key and the users found, the outcome, the stored match, and '
  'why that is preserved, if it is');

CREATE FUNCTION _flohsync.api_clear_cache(connector text, resource_type text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM flohsync.cache_clear(connector, resource_type);
  PERFORM _flohsync.respond(204);
  RETURN NULL;
END
$$;
SELECT _flohsync.serve('{manager}', 'clear_cache(text, text)',
  'Invalidates all records of a type, or without one of a connector, in the cache; status 204');
