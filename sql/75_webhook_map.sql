-- Webhooks in the form of who sends them: what a map of the connector's config
-- (19_webhook_config.sql) finds in a body.

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
