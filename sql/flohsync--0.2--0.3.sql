--:include upgrade/begin.sql

-- Webhooks of senders that have their own form.

CREATE OR REPLACE FUNCTION _flohsync.check_connector(_kind text, _config jsonb, _definition jsonb, _given boolean) RETURNS void
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

CREATE OR REPLACE FUNCTION _flohsync.check_command(_config jsonb, _definition jsonb, _given boolean) RETURNS void
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
                                                       'webhook']);
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

CREATE OR REPLACE FUNCTION _flohsync.check_sql(_config jsonb, _definition jsonb, _given boolean) RETURNS void
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

CREATE OR REPLACE FUNCTION _flohsync.templates() RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN $json$[
--:include templates/scim.json
,
--:include templates/okta.json
,
--:include templates/entra.json
,
--:include templates/google_workspace.json
,
--:include templates/github.json
,
--:include templates/keycloak.json
,
--:include templates/authifi.json
]$json$::pg_catalog.jsonb;
COMMENT ON FUNCTION _flohsync.templates() IS 'The templates with their documentation';

DROP FUNCTION flohsync.connector_templates();
CREATE FUNCTION flohsync.connector_templates()
RETURNS TABLE (name text, title text, config jsonb, secrets jsonb, resource_types text[], notes jsonb, sources jsonb,
               webhook jsonb)
LANGUAGE sql IMMUTABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT t.value ->> 'name', t.value ->> 'title', t.value -> 'config', t.value -> 'secrets',
         ARRAY(SELECT k FROM pg_catalog.jsonb_object_keys(t.value -> 'definition' -> 'resources') k
               ORDER BY k COLLATE "C"),
         t.value -> 'notes', t.value -> 'sources', t.value -> 'webhook'
    FROM pg_catalog.jsonb_array_elements(_flohsync.templates()) WITH ORDINALITY t(value, i) ORDER BY t.i;
END;
COMMENT ON FUNCTION flohsync.connector_templates() IS
  'Templates for connector_template(): the keys that config needs, the secrets to set, the resource types, notes on '
  'the vendor, where that is documented, and the key "webhook" for config (null: the vendor sends none)';

CREATE FUNCTION _flohsync.webhook_path_problem(_path text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  problem constant text := CASE WHEN length(_path) > 1000 THEN 'a path has at most 1000 characters'
                                ELSE _flohsync.jsonpath_problem(_path) END;
  plain text;
BEGIN
  IF problem IS NOT NULL THEN
    RETURN problem;
  END IF;
  plain := regexp_replace(_path::jsonpath::text, '"(\\.|[^"\\])*"', '""', 'g');
  RETURN CASE
    WHEN strpos(plain, '**') > 0 THEN 'a path cannot search all levels here ("**")'
    WHEN length(plain) - length(replace(plain, '$', '')) > 1 THEN 'a path has one "$" here'
    WHEN plain ~ '(==|!=|<>|<=|>=|<|>)[^&|)]*[@$]' THEN 'a path can compare only with a constant on the right here'
    WHEN plain ~ '\.(datetime|date|time|timestamp)(_tz)?\(' THEN 'a path cannot read times here'
  END;
END
$$;
COMMENT ON FUNCTION _flohsync.webhook_path_problem(text) IS
  'Why a jsonpath cannot be used on the bodies of webhooks; null when it can';

CREATE FUNCTION _flohsync.check_webhook_paths(_key text, _paths jsonb) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  path jsonb;
  problem text;
BEGIN
  IF jsonb_typeof(_paths) = 'array' AND jsonb_array_length(_paths) NOT BETWEEN 1 AND 8
     OR coalesce(jsonb_typeof(_paths), '') NOT IN ('array', 'string') THEN
    PERFORM _flohsync.invalid(_key, 'it must be a jsonpath, or an array of 1 to 8',
                              'For example "$.resourceData.id"; of several, the first that finds something counts.');
  END IF;
  FOR path IN SELECT p FROM jsonb_array_elements(CASE jsonb_typeof(_paths) WHEN 'array' THEN _paths
                                                      ELSE jsonb_build_array(_paths) END) p LOOP
    problem := CASE WHEN jsonb_typeof(path) <> 'string' THEN 'a path must be a string'
                    ELSE _flohsync.webhook_path_problem(path #>> '{}') END;
    IF problem IS NOT NULL THEN
      PERFORM _flohsync.invalid(_key, _flohsync.clean(problem),
                                'Paths of webhooks are described in doc/webhooks.md.');
    END IF;
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.check_webhook_paths(text, jsonb) IS
  'Raises 22023 unless a value of a map is a path, or several';

CREATE FUNCTION _flohsync.check_webhook_picker(_key text, _picker jsonb, _values text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  k text;
  v jsonb;
BEGIN
  IF jsonb_typeof(_picker) IS DISTINCT FROM 'object' THEN
    PERFORM _flohsync.check_webhook_paths(_key, _picker);
    RETURN;
  END IF;
  PERFORM _flohsync.check_keys(_picker, _key, ARRAY['path', 'match'] || CASE WHEN _values IS NOT NULL
                                                                         THEN ARRAY['values'] ELSE '{}' END);
  PERFORM _flohsync.check_webhook_paths(_key || '.path', _picker -> 'path');
  IF _picker ? 'match' THEN
    IF jsonb_typeof(_picker -> 'match') <> 'string' OR length(_picker ->> 'match') NOT BETWEEN 1 AND 200 THEN
      PERFORM _flohsync.invalid(_key || '.match', 'it must be a regular expression of 1 to 200 characters');
    END IF;
    BEGIN
      PERFORM regexp_match('', _picker ->> 'match');
    EXCEPTION WHEN invalid_regular_expression THEN
      PERFORM _flohsync.invalid(_key || '.match', _flohsync.clean(SQLERRM));
    END;
  END IF;
  IF _picker ? 'values' THEN
    IF jsonb_typeof(_picker -> 'values') <> 'object' OR _picker -> 'values' = '{}' THEN
      PERFORM _flohsync.invalid(_key || '.values', 'it must be an object of what the sender says and what that means');
    END IF;
    FOR k, v IN SELECT * FROM jsonb_each(_picker -> 'values') LOOP
      IF jsonb_typeof(v) <> 'string' OR NOT coalesce(v #>> '{}' ~ _values, false) THEN
        PERFORM _flohsync.invalid(_key || '.values',
                                  format('"%s" means neither an action nor a resource type', left(k, 100)),
                                  'An action is created, updated or deleted; a resource type is a letter followed by '
                                  'at most 63 letters, digits, "_", "." or "-".');
      END IF;
    END LOOP;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_webhook_picker(text, jsonb, text) IS
  'Raises 22023 unless a value of a map is a path, or an object that says what is made of what it finds; _values: what '
  'may be made of it, a regular expression (null: anything)';

CREATE FUNCTION _flohsync.check_webhook_map(_map jsonb) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  actions constant text := '^(created|updated|deleted)$';
  types constant text := '^[A-Za-z][A-Za-z0-9_.-]{0,63}$';
  k text;
  v jsonb;
BEGIN
  PERFORM _flohsync.check_keys(_map, 'webhook.map',
                               ARRAY['events', 'action', 'resourceType', 'resourceId', 'data', 'at', 'id']);
  FOREACH k IN ARRAY ARRAY['action', 'resourceType', 'resourceId'] LOOP
    IF coalesce(_map -> k, 'null') = 'null' THEN
      PERFORM _flohsync.invalid('webhook.map.' || k, 'it is required', 'doc/webhooks.md describes the map.');
    END IF;
  END LOOP;
  IF _map ? 'events' THEN
    IF jsonb_typeof(_map -> 'events') <> 'string' THEN
      PERFORM _flohsync.invalid('webhook.map.events', 'it must be a jsonpath');
    END IF;
    PERFORM _flohsync.check_webhook_paths('webhook.map.events', _map -> 'events');
  END IF;
  IF jsonb_typeof(_map -> 'action') = 'string' THEN
    IF NOT (_map ->> 'action') ~ actions THEN
      PERFORM _flohsync.invalid('webhook.map.action',
                                'it must be created, updated or deleted, or an object with "path" and "values"');
    END IF;
  ELSE
    IF jsonb_typeof(_map -> 'action') <> 'object' OR NOT (_map -> 'action') ? 'values' THEN
      PERFORM _flohsync.invalid('webhook.map.action', 'it must be an object with "path" and "values"',
                                'For example {"path": "$.changeType", "values": {"deleted": "deleted"}}.');
    END IF;
    PERFORM _flohsync.check_webhook_picker('webhook.map.action', _map -> 'action', actions);
  END IF;
  IF jsonb_typeof(_map -> 'resourceType') = 'string' THEN
    IF NOT (_map ->> 'resourceType') ~ types THEN
      PERFORM _flohsync.invalid('webhook.map.resourceType', 'it must be a resource type, or an object with "path"');
    END IF;
  ELSIF jsonb_typeof(_map -> 'resourceType') = 'object' THEN
    PERFORM _flohsync.check_webhook_picker('webhook.map.resourceType', _map -> 'resourceType', types);
  ELSE
    PERFORM _flohsync.invalid('webhook.map.resourceType', 'it must be a resource type, or an object with "path"');
  END IF;
  PERFORM _flohsync.check_webhook_picker('webhook.map.' || p.key, p.value, NULL)
     FROM jsonb_each(_map) p WHERE p.key IN ('resourceId', 'at', 'id');
  IF jsonb_typeof(_map -> 'data') = 'object' THEN
    PERFORM _flohsync.check_keys(_map -> 'data', 'webhook.map.data', ARRAY['displayName', 'email', 'attributes']);
    FOR k, v IN SELECT * FROM jsonb_each(_map -> 'data') LOOP
      IF k = 'attributes' AND jsonb_typeof(v) = 'object' THEN
        IF (SELECT count(*) FROM jsonb_object_keys(v)) > 100 THEN
          PERFORM _flohsync.invalid('webhook.map.data.attributes', 'it has more than 100 names');
        END IF;
        PERFORM _flohsync.check_webhook_paths('webhook.map.data.attributes', a.value) FROM jsonb_each(v) a;
      ELSE
        PERFORM _flohsync.check_webhook_paths('webhook.map.data.' || k, v);
      END IF;
    END LOOP;
  ELSIF coalesce(_map -> 'data', 'null') <> 'null' THEN
    PERFORM _flohsync.check_webhook_paths('webhook.map.data', _map -> 'data');
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_webhook_map(jsonb) IS
  'Raises 22023 for a map of the key "webhook" of a config, naming the key';

CREATE FUNCTION _flohsync.check_webhook(_webhook jsonb) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  schemes constant text[] := ARRAY['standard', 'hmac_hex', 'github', 'okta', 'graph', 'slack', 'svix'];
  problem text;
BEGIN
  PERFORM _flohsync.check_keys(_webhook, 'webhook', ARRAY['scheme', 'header', 'map']);
  IF jsonb_typeof(_webhook -> 'scheme') IS DISTINCT FROM 'string' OR NOT (_webhook ->> 'scheme') = ANY (schemes) THEN
    PERFORM _flohsync.invalid('webhook.scheme', 'it must be one of ' || array_to_string(schemes, ', '),
                              'doc/webhooks.md says who sends by which.');
  END IF;
  IF _webhook ? 'header' THEN
    IF _webhook ->> 'scheme' NOT IN ('hmac_hex', 'okta') THEN
      PERFORM _flohsync.invalid('webhook.header', format('scheme %s has its own headers', _webhook ->> 'scheme'));
    END IF;
    problem := CASE WHEN jsonb_typeof(_webhook -> 'header') <> 'string' THEN 'it must be the name of a header'
                    WHEN length(_webhook ->> 'header') > 100 THEN 'it has more than 100 characters'
                    WHEN lower(_webhook ->> 'header' COLLATE "C") = 'webhook-id' THEN 'that is the id of the delivery'
                    ELSE _flohsync.header_problem(_webhook ->> 'header') END;
    IF problem IS NOT NULL THEN
      PERFORM _flohsync.invalid('webhook.header', problem);
    END IF;
  END IF;
  IF _webhook ? 'map' THEN
    PERFORM _flohsync.check_webhook_map(_webhook -> 'map');
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_webhook(jsonb) IS
  'Raises 22023 for the key "webhook" of a config, naming the key';

DROP FUNCTION _flohsync.delete_record(uuid, text, text, timestamptz, interval);
CREATE FUNCTION _flohsync.delete_record(_connector uuid, _type text, _external_id text, _event_at timestamptz,
                                        _tolerance interval, _seen_at timestamptz DEFAULT NULL) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  x flohsync.resource_record;
  c flohsync.connector_sync_config;
  verdict record;
  outcome text := 'none';
  left_by_that boolean := false;
  of_users boolean;
  hindered text;
  _observed_at timestamptz;
BEGIN
  SELECT * INTO c FROM flohsync.connector_sync_config y WHERE y.connector_id = _connector AND y.resource_type = _type;
  of_users := c.id IS NOT NULL AND _flohsync.matches_users(c);
  IF of_users THEN
    hindered := _flohsync.await_matching(_connector, _type);
  END IF;
  LOOP
    SELECT * INTO x FROM flohsync.resource_record r
     WHERE r.external_id = _external_id COLLATE "C" AND r.resource_type = _type AND r.connector_id = _connector
       FOR NO KEY UPDATE;
    EXIT WHEN FOUND;
    EXIT WHEN _flohsync.record_absent(_connector, _type, _external_id);
  END LOOP;
  _observed_at := least(clock_timestamp(), _event_at + _tolerance, _seen_at);
  IF x.id IS NOT NULL THEN
    IF NOT _flohsync.is_news(x, _observed_at, _event_at) THEN
      RETURN 'ignored';
    END IF;
    outcome := 'removed';
    IF of_users THEN
      verdict := _flohsync.prepare_removal(c, x, hindered);
      left_by_that := verdict.deactivated;
      IF NOT verdict.removable THEN
        outcome := 'staled';
        -- Post-sync has been told.
        PERFORM _flohsync.records_staled(_connector, _type, ARRAY[x.id], NULL, _observed_at, _event_at, false);
      END IF;
    END IF;
    IF outcome = 'removed' THEN
      BEGIN
        PERFORM _flohsync.records_removed(_connector, _type, ARRAY[x.id], true, NULL);
      EXCEPTION WHEN OTHERS THEN
        -- A workflow that could not be told; the record goes all the same.
        PERFORM _flohsync.records_removed(_connector, _type, ARRAY[x.id], false, NULL);
        PERFORM _flohsync.webhook_failed(x, 'workflow', SQLSTATE, SQLERRM);
      END;
    END IF;
  END IF;
  INSERT INTO _flohsync.resource_tombstone AS t (external_id, resource_type, connector_id, deleted_at,
                                                 event_at, deactivated)
  VALUES (_external_id, _type, _connector, _observed_at, _event_at, left_by_that)
  ON CONFLICT (external_id, resource_type, connector_id) DO UPDATE
     SET deleted_at = greatest(CASE WHEN t.deleted_at <= clock_timestamp() THEN t.deleted_at END, EXCLUDED.deleted_at),
       event_at = greatest(t.event_at, EXCLUDED.event_at),
         deactivated = t.deactivated OR EXCLUDED.deactivated,
         made_at = CASE WHEN EXCLUDED.deactivated THEN EXCLUDED.made_at ELSE t.made_at END;
  RETURN outcome;
END
$$;
COMMENT ON FUNCTION _flohsync.delete_record(uuid, text, text, timestamptz, interval, timestamptz) IS
  'Removes a record that an event reports as deleted, or that the upstream did not have when it was asked (_seen_at), '
  'leaving a tombstone: removed, staled (left to the next post-sync), none (there was none) or ignored (the record is '
  'newer)';

CREATE FUNCTION _flohsync.webhook_pick(_picker jsonb, _event jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  paths constant jsonb := CASE jsonb_typeof(_picker) WHEN 'object' THEN _picker -> 'path' ELSE _picker END;
  path text;
  found_one jsonb;
  said text;
BEGIN
  FOR path IN SELECT p FROM jsonb_array_elements_text(CASE jsonb_typeof(paths) WHEN 'array' THEN paths
                                                           ELSE jsonb_build_array(paths) END) p LOOP
    CONTINUE WHEN path IS NULL;
    found_one := nullif(jsonb_path_query_first(_event, path::jsonpath, '{}', true), 'null');
    EXIT WHEN found_one IS NOT NULL;
  END LOOP;
  IF found_one IS NULL OR jsonb_typeof(_picker) <> 'object' OR NOT _picker ?| ARRAY['match', 'values'] THEN
    RETURN found_one;
  END IF;
  IF jsonb_typeof(found_one) IN ('object', 'array') THEN
    RETURN NULL;
  END IF;
  said := found_one #>> '{}';
  IF _picker ? 'match' THEN
    said := CASE WHEN length(said) <= 1000 THEN substring(said from _picker ->> 'match') END;
  END IF;
  RETURN CASE WHEN _picker ? 'values' THEN _picker -> 'values' -> said ELSE to_jsonb(said) END;
END
$$;
COMMENT ON FUNCTION _flohsync.webhook_pick(jsonb, jsonb) IS
  'What a path of a map, the first of several that finds something, or an object with "path", "match" and "values" '
  'makes of an event; null: nothing';

CREATE FUNCTION _flohsync.webhook_data(_data jsonb, _event jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE pg_catalog.jsonb_typeof(_data)
  WHEN 'object' THEN (
    SELECT pg_catalog.jsonb_object_agg(d.key, d.value)
      FROM (SELECT e.key, CASE WHEN e.key = 'attributes' AND pg_catalog.jsonb_typeof(e.value) = 'object' THEN (
                     SELECT pg_catalog.jsonb_object_agg(a.key, a.value)
                       FROM (SELECT n.key, _flohsync.webhook_pick(n.value, _event) AS value
                               FROM pg_catalog.jsonb_each(e.value) n) a WHERE a.value IS NOT NULL)
                   ELSE _flohsync.webhook_pick(e.value, _event) END AS value
              FROM pg_catalog.jsonb_each(_data) e) d WHERE d.value IS NOT NULL)
  WHEN 'null' THEN NULL
  ELSE _flohsync.webhook_pick(_data, _event) END;
COMMENT ON FUNCTION _flohsync.webhook_data(jsonb, jsonb) IS
  'The data of an event: what a path finds, or what paths find of each key; null: it has none';

CREATE FUNCTION _flohsync.webhook_events(_map jsonb, _body jsonb) RETURNS TABLE (event jsonb, event_id text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  path constant jsonpath := coalesce(_map ->> 'events', '$');
BEGIN
  IF (SELECT count(*) FROM (SELECT FROM jsonb_path_query(_body, path, '{}', true) LIMIT 1001) e) > 1000 THEN
    PERFORM _flohsync.raise('54000', 'the body of a webhook has more than 1000 events');
  END IF;
  RETURN QUERY
    WITH picked AS MATERIALIZED (
      SELECT e.i,
             CASE jsonb_typeof(_map -> 'action') WHEN 'string' THEN _map -> 'action'
             ELSE _flohsync.webhook_pick(_map -> 'action', e.body) END AS action,
             CASE jsonb_typeof(_map -> 'resourceType') WHEN 'string' THEN _map -> 'resourceType'
             ELSE _flohsync.webhook_pick(_map -> 'resourceType', e.body) END AS type,
             _flohsync.webhook_pick(_map -> 'resourceId', e.body) AS id,
             _flohsync.webhook_pick(_map -> 'at', e.body) AS at,
             _flohsync.webhook_pick(_map -> 'id', e.body) #>> '{}' AS event_id,
             _flohsync.webhook_data(_map -> 'data', e.body) AS data
        FROM jsonb_path_query(_body, path, '{}', true) WITH ORDINALITY e(body, i))
    SELECT CASE WHEN p.action IS NOT NULL AND NOT (p.type IS NULL AND (_map -> 'resourceType') ? 'values')
                THEN jsonb_build_object('action', p.action, 'resourceType', p.type, 'resourceId', p.id,
                                        'timestamp', p.at, 'data', p.data) END,
           'event ' || CASE WHEN length(p.event_id) > 200 THEN encode(sha256(convert_to(p.event_id, 'UTF8')), 'hex')
                            ELSE p.event_id END
      FROM picked p
     ORDER BY (p.type #>> '{}') COLLATE "C" NULLS FIRST, (p.id #>> '{}') COLLATE "C", p.i;
END
$$;
COMMENT ON FUNCTION _flohsync.webhook_events(jsonb, jsonb) IS
  'The events that a map finds in the body of a webhook, each in the form that handle_webhook() takes (null: one that '
  'means nothing), in the order in which they are processed; and the id of each (null: it has none); 54000 for more '
  'than 1000';

CREATE FUNCTION _flohsync.hold_matchings(_connector uuid, _types text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _config uuid;
BEGIN
  PERFORM _flohsync.lock('events', '', false);
  FOR _config IN SELECT c.id FROM flohsync.connector_sync_config c
                  WHERE c.connector_id = _connector AND c.resource_type = ANY (_types) ORDER BY c.id LOOP
    PERFORM _flohsync.lock('matching', _config::text, false);
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.hold_matchings(uuid, text[]) IS
  'Takes what a webhook with several events needs before the first is stored: its turn, and the lock on the matching '
  'of each type';

CREATE FUNCTION _flohsync.answer_webhook(_connector text, _method text, _query jsonb, _headers jsonb, _body bytea)
  RETURNS jsonb
LANGUAGE c VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_answer_webhook';
COMMENT ON FUNCTION _flohsync.answer_webhook(text, text, jsonb, jsonb, bytea) IS
  'Answers a request to the address of a connector''s webhooks: {"status":200,"contentType":…,"body":…}; what senders '
  'ask when a webhook is set up, and webhooks as receive_webhook() takes them; headers and query are objects of '
  'strings, with names in small letters; FLS05 for a method other than POST';

--:include upgrade/end.sql
