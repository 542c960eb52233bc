-- Definitions of kind rest: the JSON Schema, and the checks that it drives.
-- The format is described in doc/definition.md.
--
-- validate_definition walks over the schema and the definition together.  It
-- knows the keywords that the schema uses, and no others; a oneOf is decided
-- by the JSON type of the value and by its member "type", so that a fault is
-- reported where it is and not as "none of the alternatives".  What a schema
-- cannot say is in _text_fault (one text), _definition_rules (several places).

CREATE FUNCTION flohsync.definition_schema() RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN $json$
--:include flohsync.definition.schema.json
$json$::pg_catalog.jsonb;
COMMENT ON FUNCTION flohsync.definition_schema() IS
  'The JSON Schema (draft 2020-12) of definitions of connectors of kind rest';
SELECT _flohsync.allow('reader', 'flohsync.definition_schema()');

CREATE FUNCTION _flohsync.json_types(_types jsonb) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT pg_catalog.string_agg(
           CASE t.name WHEN 'string' THEN 'a string' WHEN 'integer' THEN 'an integer' WHEN 'number' THEN 'a number'
                       WHEN 'boolean' THEN 'true or false' WHEN 'array' THEN 'an array' ELSE 'an object' END,
                         ' or ' ORDER BY t.i)
    FROM pg_catalog.jsonb_array_elements_text(
           CASE pg_catalog.jsonb_typeof(_types) WHEN 'array' THEN _types ELSE pg_catalog.jsonb_build_array(_types) END)
             WITH ORDINALITY t(name, i)
   WHERE t.name <> 'null';
END;
COMMENT ON FUNCTION _flohsync.json_types(jsonb) IS 'JSON types in words';

CREATE FUNCTION _flohsync.number(_value jsonb) RETURNS numeric
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE pg_catalog.jsonb_typeof(_value) WHEN 'number' THEN (_value #>> '{}')::numeric END;
COMMENT ON FUNCTION _flohsync.number(jsonb) IS 'A JSON number as such; null for anything else';

CREATE FUNCTION _flohsync.pointer(_base text, _key text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN _base || '/' || pg_catalog.replace(pg_catalog.replace(_key, '~', '~0'), '/', '~1');
COMMENT ON FUNCTION _flohsync.pointer(text, text) IS 'The JSON pointer (RFC 6901) of a member';

CREATE FUNCTION _flohsync.excerpt(_text text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN pg_catalog.to_json(pg_catalog.left(_text, 60))::text
  || CASE WHEN pg_catalog.length(_text) > 60 THEN '…' ELSE '' END;
COMMENT ON FUNCTION _flohsync.excerpt(text) IS 'The beginning of a text, quoted for a message';

CREATE FUNCTION _flohsync.placeholders(_text text) RETURNS SETOF text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  -- The part before the first "{{" is no placeholder; a "{{" without "}}" gives a null.
  SELECT CASE WHEN pg_catalog.strpos(p.part, '}}') > 0 THEN pg_catalog.split_part(p.part, '}}', 1) END
    FROM pg_catalog.unnest(pg_catalog.string_to_array(_text, '{{')) WITH ORDINALITY p(part, i)
   WHERE p.i > 1;
END;
COMMENT ON FUNCTION _flohsync.placeholders(text) IS 'Contents of each {{…}} of a text; null for one that is not closed';

CREATE FUNCTION _flohsync.placeholder_kind(_placeholder text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE
  WHEN _placeholder ~ '^config\.[A-Za-z][A-Za-z0-9_]{0,63}$' THEN 'config'
  WHEN _placeholder ~ '^secret\.[A-Za-z][A-Za-z0-9_]{0,63}$' THEN 'secret'
  WHEN _placeholder ~ '^since(\|epoch)?$' THEN 'since'
  WHEN _placeholder ~ '^parent\.(external_id|display_name|email|attributes\.[A-Za-z][A-Za-z0-9_]{0,63})$' THEN 'parent'
  WHEN _placeholder = 'external_id' THEN 'external_id'
END;
COMMENT ON FUNCTION _flohsync.placeholder_kind(text) IS
  'The kind of a placeholder: config, secret, since, parent or external_id; null when it is none';

CREATE TYPE _flohsync.fault AS (pointer text, message text, hint text, rule boolean);
COMMENT ON TYPE _flohsync.fault IS
  'A fault of a definition; rule: found by a rule about several keys, not at the key itself';

CREATE FUNCTION _flohsync.placeholder_faults(_text text, _allowed jsonb, _pointer text) RETURNS SETOF _flohsync.fault
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT DISTINCT _pointer,
         CASE WHEN p.name IS NULL THEN 'a "{{" is not closed'
              WHEN p.webhook THEN 'secret "' || pg_catalog.substr(p.name, 8) || '" verifies webhooks, and is never sent'
              WHEN p.kind IS NULL THEN 'unknown placeholder {{' || pg_catalog.left(p.name, 60) || '}}'
              ELSE '{{' || p.name || '}} is not allowed here' END,
         CASE WHEN p.webhook THEN 'Store the credential under another name.'
              WHEN p.kind = 'secret' THEN 'A secret here would appear in logs; use it in "auth" or "headers".'
              WHEN p.name LIKE 'since|%' AND p.kind IS NULL THEN 'Write {{since}} or {{since|epoch}}.'
              ELSE 'Allowed here: ' || (
                SELECT pg_catalog.string_agg(CASE a.kind WHEN 'config' THEN '{{config.NAME}}'
                                             WHEN 'secret' THEN '{{secret.NAME}}'
                         WHEN 'since' THEN '{{since}}, {{since|epoch}}' WHEN 'external_id' THEN '{{external_id}}'
                         ELSE '{{parent.external_id}}, {{parent.attributes.NAME}}' END, ', ' ORDER BY a.i)
                  FROM pg_catalog.jsonb_array_elements_text(_allowed) WITH ORDINALITY a(kind, i)) || '.' END,
         false
    FROM (SELECT t.name, _flohsync.placeholder_kind(t.name) AS kind,
          coalesce(t.name IN ('secret.webhook', 'secret.webhook_previous'), false) AS webhook
            FROM (SELECT DISTINCT pg_catalog.left(d.name, 100) FROM _flohsync.placeholders(_text) d(name)) t(name)) p
   WHERE p.kind IS NULL OR NOT _allowed ? p.kind OR p.webhook;
END;
COMMENT ON FUNCTION _flohsync.placeholder_faults(text, jsonb, text) IS
  'Placeholders of a text that are unknown, or not allowed in its place';

CREATE FUNCTION _flohsync.jsonpath_problem(_path text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _plain text;
BEGIN
  -- As PostgreSQL writes it back, a variable is a $ before a quoted name.
  _plain := regexp_replace(_path::jsonpath::text, '"(\\.|[^"\\])*"', '""', 'g');
  IF _plain ~ '\$""' THEN
    RETURN 'a jsonpath cannot use variables here';
  ELSIF strpos(_plain, '$') = 0 THEN
    RETURN 'a jsonpath without "$" does not refer to the answer';
  END IF;
  RETURN NULL;
EXCEPTION WHEN OTHERS THEN
  RETURN SQLERRM;
END
$$;
COMMENT ON FUNCTION _flohsync.jsonpath_problem(text) IS
  'Why a jsonpath is invalid, as reported by PostgreSQL; null when it is valid';

CREATE FUNCTION _flohsync.base_url_problem(_url text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
RETURN CASE
  WHEN _url !~ '^https?://' THEN 'it must begin with https:// or http://'
  WHEN _url ~ '[^\x21-\x7e]' THEN 'it contains spaces, control characters or non-ASCII characters'
  WHEN _url ~ '[?#]' THEN 'it must not have a query or fragment'
  WHEN _url ~ '@' THEN 'it must not contain a user name or password'
  WHEN _url ~ '[\\{]' THEN 'it contains a backslash or brace'
  WHEN _url ~ '^https?://(/|$)' THEN 'it names no host'
  WHEN _url ~ '^https?://https?:' THEN 'its scheme is there twice'
  WHEN _url ~ '^https?://[^/]*:(/|$)' THEN 'it has a colon without a port'
  ELSE _flohsync.url_problem(_url)
END;
COMMENT ON FUNCTION _flohsync.base_url_problem(text) IS
  'Why the base of requests'' URLs is invalid; null when it is valid';

CREATE FUNCTION _flohsync.text_fault(_check text, _text text) RETURNS text
LANGUAGE plpgsql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  -- As it will look: a placeholder at the start may bring the scheme along.
  plain constant text := regexp_replace(regexp_replace(regexp_replace(_text,
    '^\{\{[^{}]*\}\}://', 'https://'), '^\{\{[^{}]*\}\}', 'https://1'), '\{\{[^{}]*\}\}', '1', 'g');
BEGIN
  RETURN CASE _check
    WHEN 'jsonpath' THEN _flohsync.jsonpath_problem(_text)
    WHEN 'url' THEN _flohsync.base_url_problem(plain)
    WHEN 'path' THEN CASE
      WHEN left(_text, 1) <> '/' OR left(_text, 2) = '//' THEN 'it must begin with one slash: it is added to base_url'
      WHEN _text ~ '[^\x21-\x7e]' THEN 'it contains spaces, control characters or non-ASCII characters'
      WHEN _text ~ '[#\\]' THEN 'it contains a fragment or backslash'
      WHEN split_part(_text, '?', 1) ~ '/\.{1,2}(/|$)' THEN 'it has a segment "." or ".."' END
    WHEN 'header' THEN CASE
      WHEN lower(_text COLLATE "C") IN ('authorization', 'proxy-authorization', 'cookie')
        THEN 'credentials are sent by "auth"'
      ELSE _flohsync.header_problem(_text) END
    WHEN 'header_value' THEN CASE WHEN _text ~ '[\x01-\x1f\x7f]' THEN 'it contains control characters' END
    WHEN 'duration' THEN CASE WHEN _flohsync.duration(_text) IS NULL
      THEN format('%s is not a duration', _flohsync.excerpt(_text)) END
  END;
END
$$;
COMMENT ON FUNCTION _flohsync.text_fault(text, text) IS
  'Why one text of a definition is invalid, by the check that the schema names; null when it is valid';

CREATE FUNCTION _flohsync.unknown_key_hint(_key text, _properties jsonb) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT coalesce(
    'Did you mean "' || pg_catalog.min(p.key) FILTER (WHERE
      pg_catalog.regexp_replace(pg_catalog.lower(p.key COLLATE "C"), '[^a-z]', '', 'g')
        = pg_catalog.regexp_replace(pg_catalog.lower(pg_catalog.left(_key, 100) COLLATE "C"), '[^a-z]', '', 'g'))
        || '"?',
    'Known keys are ' || pg_catalog.string_agg(p.key, ', ' ORDER BY p.key COLLATE "C") || '.')
    FROM pg_catalog.jsonb_object_keys(_properties) p(key);
END;
COMMENT ON FUNCTION _flohsync.unknown_key_hint(text, jsonb) IS
  'Hint for an unknown key: the similar known key, or all known keys';

CREATE FUNCTION _flohsync.choose_schema(_branches jsonb[], _types text[], _value jsonb, _pointer text, OUT chosen jsonb,
                                        OUT fault _flohsync.fault)
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  fitting jsonb[] := ARRAY(SELECT b FROM unnest(_branches) WITH ORDINALITY u(b, i)
                           WHERE b -> 'type' ?| _types ORDER BY i);
  known text;
BEGIN
  IF cardinality(fitting) = 1 THEN
    chosen := fitting[1];
  ELSIF cardinality(fitting) = 0 THEN
    SELECT string_agg(DISTINCT _flohsync.json_types(b -> 'type'), ' or ') INTO known FROM unnest(_branches) b;
    fault := (_pointer, 'it must be ' || known, NULL, false);
  ELSE
    SELECT b INTO chosen FROM unnest(fitting) b WHERE b -> 'properties' -> 'type' -> 'const' = _value -> 'type';
    IF chosen IS NULL THEN
      SELECT string_agg(b -> 'properties' -> 'type' ->> 'const', ', ' ORDER BY i) INTO known
        FROM unnest(fitting) WITH ORDINALITY u(b, i);
      fault := (_pointer || '/type',
                CASE WHEN coalesce(_value -> 'type', 'null') = 'null' THEN 'it is required'
                     ELSE format('%s is not a known type', _flohsync.excerpt(_value ->> 'type')) END,
                'Types are ' || known || '.', false);
    END IF;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.choose_schema(jsonb[], text[], jsonb, text) IS
  'The alternative of a oneOf that applies to a value, or why none does';

CREATE FUNCTION _flohsync.schema_faults(_schema jsonb, _value jsonb, _pointer text, _defs jsonb)
  RETURNS SETOF _flohsync.fault
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  s jsonb := CASE WHEN _schema ? '$ref' THEN _defs -> substr(_schema ->> '$ref', 9) ELSE _schema END;
  kind constant text := jsonb_typeof(_value);
  kinds constant text[] := ARRAY[kind] || CASE WHEN kind = 'number' AND (_value #>> '{}')::numeric % 1 = 0
    THEN 'integer' END;
  t constant text := _value #>> '{}';
  said text;
  problem text;
  k text;
  v jsonb;
  i bigint;
  at text;
  choice record;
BEGIN
  IF s ? 'oneOf' THEN
    choice := _flohsync.choose_schema(
      ARRAY(SELECT CASE WHEN b.value ? '$ref' THEN _defs -> substr(b.value ->> '$ref', 9) ELSE b.value END
              FROM jsonb_array_elements(s -> 'oneOf') WITH ORDINALITY b(value, i) ORDER BY b.i),
      kinds, _value, _pointer);
    IF choice.chosen IS NULL THEN
      RETURN NEXT choice.fault;
      RETURN;
    END IF;
    s := choice.chosen;
  END IF;
  said := s ->> 'x-message';

  problem := CASE
    WHEN NOT s -> 'type' ?| kinds THEN coalesce('it must be ' || _flohsync.json_types(s -> 'type'),
                                                'it must not be given')
    WHEN s ? 'const' AND s -> 'const' <> _value THEN format('it must be %s', s -> 'const')
    WHEN s ? 'enum' AND NOT s -> 'enum' @> jsonb_build_array(_value) THEN
      format('%s is not one of %s', _flohsync.excerpt(t),
             (SELECT string_agg(e, ', ') FROM jsonb_array_elements_text(s -> 'enum') e WHERE e IS NOT NULL))
    WHEN kind = 'string' THEN CASE
      WHEN length(t) < (s ->> 'minLength')::int THEN 'it must not be empty'
      WHEN length(t) > (s ->> 'maxLength')::int THEN format('it has more than %s characters', s ->> 'maxLength')
      WHEN s ? 'x-check' THEN _flohsync.text_fault(s ->> 'x-check', t)
      WHEN NOT s ? 'x-allow' AND t !~ (s ->> 'pattern') THEN format('%s is malformed', _flohsync.excerpt(t)) END
    WHEN kind = 'number' THEN CASE
      WHEN t::numeric < (s ->> 'minimum')::numeric OR t::numeric > (s ->> 'maximum')::numeric
        THEN concat_ws(' ', 'it must be', 'at least ' || (s ->> 'minimum'),
                       CASE WHEN s ?& '{minimum,maximum}' THEN 'and' END, 'at most ' || (s ->> 'maximum')) END
    WHEN kind = 'array' THEN CASE
      WHEN jsonb_array_length(_value) < (s ->> 'minItems')::int THEN 'it must not be empty'
      WHEN jsonb_array_length(_value) > (s ->> 'maxItems')::int
        THEN format('it has more than %s elements', s ->> 'maxItems') END
  END;
  IF problem IS NOT NULL THEN
    RETURN NEXT ROW(_pointer, coalesce(said, problem),
                    coalesce(s ->> 'x-hint', CASE WHEN s ->> 'x-check' = 'jsonpath' AND strpos(t, '$') = 0
                             AND t <> '' THEN
                      CASE WHEN t ~ '^[A-Za-z_][A-Za-z0-9_]*([.\[]|$)'
                        THEN format('A path begins with "$": write %s.', _flohsync.excerpt('$.' || t))
                           ELSE 'A path begins with "$", which is the answer or the record: "$.id".' END END),
                             false)::_flohsync.fault;
  END IF;

  IF kind = 'string' THEN
    IF s ? 'x-allow' AND strpos(t, '{{') > 0 AND length(t) <= (s ->> 'maxLength')::int THEN
      RETURN QUERY SELECT * FROM _flohsync.placeholder_faults(t, s -> 'x-allow', _pointer);
    END IF;
    IF s ? 'x-need' AND NOT EXISTS (SELECT FROM _flohsync.placeholders(t) p(name)
                                    WHERE _flohsync.placeholder_kind(p.name) = s ->> 'x-need') THEN
      RETURN NEXT CASE s ->> 'x-need'
        WHEN 'secret' THEN ROW(_pointer, 'a credential must not be in clear text',
                               'Write {{secret.NAME}}, and store it with flohsync.set_secret().',
                               false)::_flohsync.fault
        ELSE ROW(_pointer, 'it must contain {{since}} or {{since|epoch}}', NULL, false)::_flohsync.fault END;
    END IF;

  ELSIF kind = 'array' AND s ? 'items' AND problem IS NULL THEN
    FOR v, i IN SELECT * FROM jsonb_array_elements(_value) WITH ORDINALITY LOOP
      RETURN QUERY SELECT * FROM _flohsync.schema_faults(s -> 'items', v, _pointer || '/' || (i - 1), _defs);
    END LOOP;

  ELSIF kind = 'object' AND (SELECT count(*) FROM jsonb_object_keys(_value)) > (s ->> 'maxProperties')::int THEN
    -- Too many to look at each.
    RETURN NEXT ROW(_pointer, format('it has more than %s members', s ->> 'maxProperties'), NULL,
                    false)::_flohsync.fault;

  ELSIF kind = 'object' THEN
    i := 0;
    FOR k, v IN SELECT * FROM jsonb_each(_value) LOOP
      i := i + 1;
      at := _pointer || '/' || replace(replace(k, '~', '~0'), '/', '~1');
      IF s ? 'propertyNames' THEN
        RETURN QUERY SELECT * FROM _flohsync.schema_faults(s -> 'propertyNames', to_jsonb(k), at, _defs);
      END IF;
      IF s -> 'properties' ? k THEN
        -- A null is as good as nothing, where the schema knows the key.
        IF v <> 'null' THEN
          RETURN QUERY SELECT * FROM _flohsync.schema_faults(s -> 'properties' -> k, v, at, _defs);
        END IF;
      ELSIF s -> 'additionalProperties' = 'false' THEN
        RETURN NEXT ROW(at, format('unknown key %s', _flohsync.excerpt(k)),
                        CASE WHEN i <= 200 THEN _flohsync.unknown_key_hint(k, s -> 'properties') END,
                        false)::_flohsync.fault;
      ELSIF s ? 'additionalProperties' THEN
        RETURN QUERY SELECT * FROM _flohsync.schema_faults(s -> 'additionalProperties', v, at, _defs);
      END IF;
    END LOOP;
    IF i < (s ->> 'minProperties')::int THEN
      RETURN NEXT ROW(_pointer, 'it must not be empty', NULL, false)::_flohsync.fault;
    END IF;
    RETURN QUERY SELECT _pointer || '/' || r.key, coalesce(said, 'it is required'), NULL::text, false
                   FROM jsonb_array_elements_text(s -> 'required') r(key)
                  WHERE coalesce(_value -> r.key, 'null') = 'null';
  END IF;

  IF s ? 'allOf' THEN
    FOR v IN SELECT r.value FROM jsonb_array_elements(s -> 'allOf') r LOOP
      k := CASE WHEN EXISTS (SELECT FROM _flohsync.schema_faults(v -> 'if', _value, _pointer, _defs)) THEN 'else'
        ELSE 'then' END;
      IF v ? k THEN
        RETURN QUERY SELECT f.pointer, f.message, f.hint, true
          FROM _flohsync.schema_faults(v -> k, _value, _pointer, _defs) f;
      END IF;
    END LOOP;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.schema_faults(jsonb, jsonb, text, jsonb) IS 'Faults of a value by a part of the schema';

CREATE FUNCTION _flohsync.body_faults(_body jsonb, _allowed jsonb, _pointer text) RETURNS SETOF _flohsync.fault
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  WITH RECURSIVE node(pointer, value, depth) AS (
    SELECT _pointer, _body, 1
    UNION ALL
    SELECT c.pointer, c.value, n.depth + 1
      FROM node n CROSS JOIN LATERAL (
        SELECT _flohsync.pointer(n.pointer, m.key) AS pointer, m.value
          FROM pg_catalog.jsonb_each(CASE pg_catalog.jsonb_typeof(n.value) WHEN 'object' THEN n.value ELSE '{}' END) m
        UNION ALL
        SELECT n.pointer || '/' || (e.i - 1), e.value
          FROM pg_catalog.jsonb_array_elements(CASE pg_catalog.jsonb_typeof(n.value) WHEN 'array' THEN n.value
                                               ELSE '[]' END) WITH ORDINALITY e(value, i)) c
     WHERE n.depth <= 32)
  SELECT n.pointer, 'it is more than 32 levels deep', NULL, false FROM node n WHERE n.depth = 33
  UNION ALL
  SELECT f.pointer, f.message, f.hint, f.rule
    FROM node n CROSS JOIN LATERAL _flohsync.placeholder_faults(n.value #>> '{}', _allowed, n.pointer) f
   WHERE pg_catalog.jsonb_typeof(n.value) = 'string';
END;
COMMENT ON FUNCTION _flohsync.body_faults(jsonb, jsonb, text) IS
  'Faults of the body of a list request: too deep, or with placeholders that are not allowed';

CREATE FUNCTION _flohsync.resources(_definition jsonb) RETURNS TABLE (type text, resource jsonb, pointer text)
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT r.key, r.value, _flohsync.pointer('/resources', r.key)
    FROM pg_catalog.jsonb_each(CASE pg_catalog.jsonb_typeof(_definition -> 'resources')
                               WHEN 'object' THEN _definition -> 'resources' ELSE '{}' END) r
   WHERE pg_catalog.jsonb_typeof(r.value) = 'object';
END;
COMMENT ON FUNCTION _flohsync.resources(jsonb) IS 'The resources of a definition';

CREATE FUNCTION _flohsync.definition_rules(_definition jsonb) RETURNS SETOF _flohsync.fault
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT '/retry/max_ms', 'it is less than "base_ms"', NULL, true
   WHERE _flohsync.number(_definition -> 'retry' -> 'max_ms') < _flohsync.number(_definition -> 'retry' -> 'base_ms')
  UNION ALL
  SELECT r.pointer || '/list/page_size/default', 'it is more than "max"', NULL, true
    FROM _flohsync.resources(_definition) r
   WHERE _flohsync.number(r.resource -> 'list' -> 'page_size' -> 'default')
     > _flohsync.number(r.resource -> 'list' -> 'page_size' -> 'max')
  UNION ALL
  SELECT r.pointer || '/for_each/resource',
         CASE WHEN p.type IS NULL THEN 'there is no resource '
           || _flohsync.excerpt(r.resource -> 'for_each' ->> 'resource')
              WHEN p.type = r.type THEN 'a resource cannot be listed for each of itself'
              ELSE pg_catalog.format('resource "%s" is itself listed for each of another', p.type) END,
         -- The subquery does not depend on the row, so it is evaluated once.
         'Resources are ' || (SELECT pg_catalog.string_agg(pg_catalog.left(x.type, 60), ', '
                                                           ORDER BY x.type COLLATE "C") FILTER (WHERE x.i <= 20)
                                     || CASE WHEN pg_catalog.count(*) > 20 THEN ' and others' ELSE '' END
                                FROM (SELECT y.type, pg_catalog.row_number() OVER (ORDER BY y.type COLLATE "C") AS i
                                      FROM _flohsync.resources(_definition) y) x) || '.', true
    FROM _flohsync.resources(_definition) r LEFT JOIN _flohsync.resources(_definition) p
      ON p.type = r.resource -> 'for_each' ->> 'resource'
   WHERE pg_catalog.jsonb_typeof(r.resource -> 'for_each' -> 'resource') = 'string'
     AND (p.type IS NULL OR p.type = r.type OR pg_catalog.jsonb_typeof(p.resource -> 'for_each') = 'object')
  UNION ALL
  SELECT r.pointer || '/list/split/values/' || (v.i - 1), 'it is there already', NULL, true
    FROM _flohsync.resources(_definition) r
   CROSS JOIN LATERAL (
     SELECT e.i, pg_catalog.row_number() OVER (PARTITION BY e.value ORDER BY e.i) AS time
       FROM pg_catalog.jsonb_array_elements_text(
              CASE pg_catalog.jsonb_typeof(r.resource -> 'list' -> 'split' -> 'values')
              WHEN 'array' THEN r.resource -> 'list' -> 'split' -> 'values' ELSE '[]' END)
              WITH ORDINALITY e(value, i)
      WHERE e.i <= 1000) v
   WHERE v.time > 1
  UNION ALL
  SELECT r.pointer || '/get/path', 'neither it nor a parameter contains {{external_id}}', NULL, true
    FROM _flohsync.resources(_definition) r
   WHERE pg_catalog.jsonb_typeof(r.resource -> 'get' -> 'path') = 'string'
     AND pg_catalog.strpos(r.resource -> 'get' ->> 'path', '{{external_id}}') = 0
     AND NOT pg_catalog.jsonb_path_exists(r.resource, '$.get.params.* ? (@ like_regex "{{external_id}}" flag "q")')
  UNION ALL
  SELECT f.pointer, f.message, f.hint, false
    FROM _flohsync.resources(_definition) r
   CROSS JOIN LATERAL _flohsync.body_faults(r.resource -> 'list' -> 'body',
           CASE pg_catalog.jsonb_typeof(r.resource -> 'for_each') WHEN 'object' THEN '["config", "parent"]'
             ELSE '["config"]' END::jsonb,
           r.pointer || '/list/body') f;
END;
COMMENT ON FUNCTION _flohsync.definition_rules(jsonb) IS 'Faults of a definition that a schema cannot express';

CREATE FUNCTION flohsync.validate_definition(definition jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _definition constant jsonb := coalesce(validate_definition.definition, 'null');
  _schema constant jsonb := flohsync.definition_schema();
  most constant integer := 1000; -- reported faults
  too_many constant boolean := jsonb_typeof(_definition -> 'resources') = 'object'
    AND (SELECT count(*) FROM jsonb_object_keys(_definition -> 'resources'))
      > (_schema #>> '{properties,resources,maxProperties}')::int;
BEGIN
  IF octet_length(_definition::text) > 1048576 THEN
    RETURN '[{"pointer": "", "message": "it is larger than 1 MB"}]';
  END IF;
  RETURN (
    WITH found AS MATERIALIZED (
      SELECT * FROM _flohsync.schema_faults(_schema, _definition, '', _schema -> '$defs')
        WITH ORDINALITY f(pointer, message, hint, rule, i)
      UNION ALL
      -- The rules compare each with all.
      SELECT f.* FROM _flohsync.definition_rules(CASE WHEN too_many THEN '{}' ELSE _definition END)
        WITH ORDINALITY f(pointer, message, hint, rule, i)
    ), once AS (
      SELECT f.pointer, f.message, min(f.hint) AS hint, f.rule, min(f.i) AS i
        FROM found f GROUP BY f.pointer, f.message, f.rule
    ), told AS (
      SELECT o.pointer, o.message, o.hint, row_number() OVER (ORDER BY o.rule, o.i, o.pointer COLLATE "C") AS nr
        FROM once o
       -- What is wrong in itself need not also be wrong beside something else.
       WHERE NOT (o.rule AND EXISTS (SELECT FROM once p WHERE p.pointer = o.pointer AND NOT p.rule))
    ), cut AS (
      SELECT t.pointer, t.message, t.hint, t.nr FROM told t WHERE t.nr <= most
      UNION ALL
      SELECT '', format('there are %s more faults', count(*)), NULL, most + 1 FROM told t WHERE t.nr > most
        HAVING count(*) > 0
    )
    SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('pointer', c.pointer, 'message', c.message, 'hint',
        c.hint)) ORDER BY c.nr), '[]')
      FROM cut c);
END
$$;
COMMENT ON FUNCTION flohsync.validate_definition(jsonb) IS
  'Every fault of a definition of kind rest, 1000 at most and then how many more there are, as an array of {"pointer", '
  '"message", "hint"}; an empty array when there is none; never an error';
SELECT _flohsync.allow('reader', 'flohsync.validate_definition(jsonb)');
