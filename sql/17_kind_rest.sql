-- Connectors of kind rest: what a definition (14_definition.sql) needs beside it.

CREATE FUNCTION _flohsync.check_rest(_config jsonb, _definition jsonb, _given boolean) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  k text;
  v jsonb;
  url text;
  problem text;
BEGIN
  IF _definition IS NULL THEN
    PERFORM _flohsync.invalid('definition', 'a connector of kind rest needs one',
      'flohsync.connector_template() has ready ones; doc/definition.md describes the format.');
  END IF;
  IF _config IS NULL OR jsonb_typeof(_config) <> 'object' THEN
    PERFORM _flohsync.invalid('config', 'it must be a JSON object');
  END IF;
  PERFORM _flohsync.raise_faults(flohsync.validate_definition(_definition));

  FOR k IN SELECT n FROM _flohsync.definition_names(_definition, 'config') n ORDER BY n COLLATE "C" LOOP
    v := _config -> k;
    problem := CASE
      WHEN coalesce(v, 'null') = 'null' THEN format('it is required: the definition uses {{config.%s}}', k)
      WHEN jsonb_typeof(v) NOT IN ('string', 'number', 'boolean') THEN 'it must be a string, a number, true or false'
      WHEN length(v #>> '{}') NOT BETWEEN 1 AND 2000 THEN 'it must have 1 to 2000 characters'
      WHEN v #>> '{}' ~ '[\x01-\x1f\x7f]' THEN 'it contains control characters'
      WHEN v #>> '{}' IN ('.', '..') THEN 'it cannot be part of a path' END;
    IF problem IS NOT NULL THEN
      PERFORM _flohsync.invalid(k, problem,
        CASE WHEN coalesce(v, 'null') = 'null' THEN format('Give it in config: {"%s": …}.', k) END);
    END IF;
  END LOOP;
  FOR k IN SELECT n FROM _flohsync.definition_names(_definition, 'secret') n WHERE _config ? n LOOP
    PERFORM _flohsync.invalid(k, 'the definition uses it as a secret, which must not be in config',
      format('Omit it from config, and call flohsync.set_secret(connector, %L, …).', k));
  END LOOP;
  FOR k, url IN
    SELECT u.key, _flohsync.fill_placeholders(u.url, _config)
      FROM (VALUES ('base_url', _definition ->> 'base_url'),
                   ('token_url', _definition -> 'auth' ->> 'token_url')) u(key, url) LOOP
    problem := _flohsync.base_url_problem(url);
    IF problem IS NOT NULL THEN
      PERFORM _flohsync.invalid('config', format('"%s" becomes %s: %s', k, _flohsync.excerpt(url), problem),
        CASE WHEN url ~ '^https?://https?:'
             THEN format('Values of config are inserted into this URL unchanged: specify a host, such '
                         'as %s, without "https://".',
                         substring(url from '^https?://https?:/*([A-Za-z0-9.-]+)'))
             ELSE 'Values of config are inserted into this URL unchanged.' END);
    END IF;
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.check_rest(jsonb, jsonb, boolean) IS
  'Raises 22023 for a definition with faults, or a config that lacks what it uses';

CREATE FUNCTION _flohsync.types_rest(_config jsonb, _definition jsonb) RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN pg_catalog.jsonb_object_keys(CASE pg_catalog.jsonb_typeof(_definition -> 'resources')
                                    WHEN 'object' THEN _definition -> 'resources' END);
COMMENT ON FUNCTION _flohsync.types_rest(jsonb, jsonb) IS
  'Resource types that the definition of a connector of kind rest names';

CREATE FUNCTION _flohsync.credentials_rest(_config jsonb, _definition jsonb) RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN _flohsync.definition_names(_definition, 'secret');
COMMENT ON FUNCTION _flohsync.credentials_rest(jsonb, jsonb) IS
  'Secrets that the definition of a connector of kind rest uses';
