-- Templates of definitions of kind rest.  They are the files in sql/templates,
-- each with the vendor's pages that its endpoints, page sizes, filters and
-- limits are from ("sources").

CREATE FUNCTION _flohsync.templates() RETURNS jsonb
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
SELECT _flohsync.allow('reader', 'flohsync.connector_templates()');

CREATE FUNCTION flohsync.connector_template(name text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  found_one jsonb;
BEGIN
  SELECT t.value -> 'definition' INTO found_one
    FROM jsonb_array_elements(_flohsync.templates()) t WHERE t.value ->> 'name' = connector_template.name;
  IF found_one IS NULL THEN
    PERFORM _flohsync.raise('42704',
      format('there is no template %s', coalesce('"' || connector_template.name || '"', 'NULL')),
      NULL,
      format('Templates are %s.', (SELECT string_agg(t.name, ', ') FROM flohsync.connector_templates() t)));
  END IF;
  RETURN found_one;
END
$$;
COMMENT ON FUNCTION flohsync.connector_template(text) IS
  'A ready definition for create_connector(): scim, okta, entra, google_workspace, github, keycloak or '
  'authifi; 42704 for another name';
SELECT _flohsync.allow('reader', 'flohsync.connector_template(text)');
