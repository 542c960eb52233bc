-- Webhooks in the config of a connector, of whatever kind: by which scheme they are
-- verified (src/webhook/verify.c), and where events are in the sender's body
-- (75_webhook_map.sql).
--
-- Bodies come from outside and may be as large and as odd as they like, so a
-- path must cost no more than the body is long: it may not search all levels,
-- nor compare what it finds with what it finds elsewhere.

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
