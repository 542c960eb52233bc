-- validate_definition over a corpus of definitions, and what hangs on it.
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS flohsync;
SET client_min_messages = warning;
\getenv folder PG_ABS_SRCDIR
\set definitions :folder /definitions.sql
\set ECHO none
\i :definitions
\set ECHO all

SELECT count(*) FILTER (WHERE expected IS NULL) >= 30 AS many_good, count(expected) >= 150 AS many_bad FROM corpus;

-- every good one has no fault, every bad one has its faults and no others
SELECT c.label, c.expected, f.faults
  FROM corpus c CROSS JOIN LATERAL (SELECT flohsync.validate_definition(c.definition) AS faults) f
 WHERE (SELECT coalesce(array_agg(x ->> 'pointer' ORDER BY x ->> 'pointer' COLLATE "C"), '{}') FROM jsonb_array_elements(f.faults) x)
       IS DISTINCT FROM (SELECT coalesce(array_agg(e ORDER BY e COLLATE "C"), '{}') FROM unnest(c.expected) e);

\set SHOW_CONTEXT never
-- whatever comes, an answer comes
SELECT flohsync.validate_definition(NULL);
SELECT flohsync.validate_definition((repeat('[', 3000) || repeat(']', 3000))::jsonb);
SELECT flohsync.validate_definition(jsonb_build_object('base_url', repeat('x', 2000000)));
SELECT jsonb_array_length(flohsync.validate_definition((SELECT jsonb_object_agg('k' || i, i) FROM generate_series(1, 2000) i)));
SELECT jsonb_array_length(flohsync.validate_definition((SELECT jsonb_object_agg('k' || i, i) || '{"base_url": "{{{{}}{{config.}}}}"}' FROM generate_series(1, 3) i)));
SELECT f ->> 'pointer' = '/resources/u/list/body' || repeat('/0', 32) AS there, f ->> 'message' AS message
  FROM jsonb_array_elements(flohsync.validate_definition(('{"version": 1, "base_url": "https://x", "resources": {"u": {"map": {"externalId": "$.id"},
    "list": {"path": "/x", "method": "POST", "body": ' || repeat('[', 2000) || repeat(']', 2000) || '}}}}')::jsonb)) f;

-- and in time, however many faults there are
SET statement_timeout = '2min';
SELECT jsonb_array_length(f) AS faults, f -> 0 ->> 'message' AS first, length(f::text) < 10000 AS short
  FROM flohsync.validate_definition(jsonb_build_object('version', 1, 'base_url', 'https://x',
         'resources', (SELECT jsonb_object_agg('r' || i, '{"for_each": {"resource": "zz"}}'::jsonb) FROM generate_series(1, 9000) i))) f;
SELECT f ->> 'pointer' AS pointer, f ->> 'message' AS message, f ->> 'hint' AS hint
  FROM jsonb_array_elements(flohsync.validate_definition(jsonb_build_object('version', 1, 'base_url', 'https://x',
         'resources', (SELECT jsonb_object_agg('r' || i, '{"for_each": {"resource": "zz", "path": "/x"}, "map": {"externalId": "$.id"}, "list": {}}'::jsonb) FROM generate_series(1, 25) i)))) f
 WHERE f ->> 'pointer' = '/resources/r7/for_each/resource';
SELECT jsonb_array_length(f) AS faults, f -> -1 AS last
  FROM flohsync.validate_definition(jsonb_build_object('version', 1, 'base_url', 'https://x',
         'resources', '{}', 'headers', (SELECT jsonb_agg(i) FROM generate_series(1, 3) i))
         || (SELECT jsonb_object_agg('k' || i, i) FROM generate_series(1, 3000) i)) f;
SELECT jsonb_array_length(f) AS faults, f -> 0 ->> 'message' AS first
  FROM flohsync.validate_definition(('{"version": 1, "base_url": "https://x", "resources": {"user": {"list": {"path": "/a", "method": "POST",
    "body": {"a": "' || repeat('{{x', 300000) || '"}}, "map": {"externalId": "$.id"}}}}')::jsonb) f;
RESET statement_timeout;

-- what is said
SELECT c.label, f ->> 'pointer' AS pointer, f ->> 'message' AS message, f ->> 'hint' AS hint
  FROM corpus c CROSS JOIN LATERAL jsonb_array_elements(flohsync.validate_definition(c.definition)) f
 WHERE c.label IN ('nothing', 'unknown key', 'map in snake case', 'ldap', 'secret in a path', 'token in clear', 'unknown auth', 'for_each of nothing',
                   'jsonpath with a variable', 'JavaScript path', 'offset to total without one', 'header injection', 'host', 'authorization', 'timeout too short',
                   'since for ldap', 'placeholder left open', 'two paths')
 ORDER BY c.i, (f ->> 'pointer') COLLATE "C";

-- templates
SELECT name, title, resource_types, (SELECT string_agg(c ->> 'name', ', ') FROM jsonb_array_elements(config) c) AS config,
       (SELECT string_agg(s ->> 'name', ', ') FROM jsonb_array_elements(secrets) s) AS secrets
  FROM flohsync.connector_templates();
SELECT name, flohsync.validate_definition(flohsync.connector_template(name)) AS faults FROM flohsync.connector_templates();
-- what a template says it needs is what its definition uses; what it gives as an example will do
SELECT t.name FROM flohsync.connector_templates() t
 WHERE (SELECT array_agg(c ->> 'name' ORDER BY c ->> 'name') FROM jsonb_array_elements(t.config) c)
         IS DISTINCT FROM (SELECT array_agg(n ORDER BY n) FROM _flohsync.definition_names(flohsync.connector_template(t.name), 'config') n)
    OR (SELECT array_agg(s ->> 'name' ORDER BY s ->> 'name') FROM jsonb_array_elements(t.secrets) s)
         IS DISTINCT FROM (SELECT array_agg(n ORDER BY n) FROM _flohsync.definition_names(flohsync.connector_template(t.name), 'secret') n)
    OR jsonb_array_length(t.config) NOT BETWEEN 1 AND 3 OR jsonb_array_length(t.secrets) <> 1;
SELECT t.name, flohsync.create_connector('t-' || t.name, 'rest',
         (SELECT jsonb_object_agg(c ->> 'name', c -> 'example') FROM jsonb_array_elements(t.config) c),
         flohsync.connector_template(t.name)) IS NOT NULL AS created
  FROM flohsync.connector_templates() t;
SELECT count(flohsync.configure_sync('t-' || t.name, r, '{}')) AS configured
  FROM flohsync.connector_templates() t, unnest(t.resource_types) r;
SELECT flohsync.connector_template('ldap');
SELECT flohsync.connector_template(NULL);

-- config and definition together
SELECT flohsync.create_connector('o', 'rest', '{}', flohsync.connector_template('okta'));
SELECT flohsync.create_connector('o', 'rest', '{"domain": null}', flohsync.connector_template('okta'));
SELECT flohsync.create_connector('o', 'rest', '{"domain": ["a"]}', flohsync.connector_template('okta'));
SELECT flohsync.create_connector('o', 'rest', '{"domain": "acme.okta.com/?x="}', flohsync.connector_template('okta'));
SELECT flohsync.create_connector('o', 'rest', '{"domain": "user@acme.okta.com"}', flohsync.connector_template('okta'));
SELECT flohsync.create_connector('o', 'rest', '{"domain": "{{config.domain}}"}', flohsync.connector_template('okta'));
SELECT flohsync.create_connector('o', 'rest', '{"domain": "acme.okta.com", "token": "in clear"}', flohsync.connector_template('okta'));
SELECT flohsync.create_connector('o', 'rest', '{"base_url": "file:///etc/passwd"}', flohsync.connector_template('scim'));
SELECT flohsync.create_connector('o', 'rest', '{"org": ".."}', flohsync.connector_template('github'));
SELECT flohsync.create_connector('o', 'rest', '[]', flohsync.connector_template('okta'));
SELECT flohsync.create_connector('o', 'rest', NULL, flohsync.connector_template('okta'));
SELECT flohsync.create_connector('o', 'rest', '{}');
SELECT flohsync.create_connector('o', 'rest', '{}', '[]');
SELECT flohsync.create_connector('o', 'rest', '{}', '{"version": 2, "base_url": "x", "auht": {}}');
SELECT flohsync.create_connector('o', 'command', '{"url": "https://x"}', flohsync.connector_template('okta'));

SELECT flohsync.create_connector('o', 'rest', '{"domain": "acme.okta.com"}', flohsync.connector_template('okta')) IS NOT NULL AS created;
SELECT flohsync.update_connector('o', '{"config": {"domain": null}}');
SELECT flohsync.update_connector('o', '{"definition": null}');
SELECT flohsync.update_connector('o', jsonb_build_object('definition', flohsync.connector_template('okta') || '{"protocol": "ldap"}'));
SELECT flohsync.update_connector('o', jsonb_build_object('definition', flohsync.connector_template('scim')));
SELECT flohsync.update_connector('o', '{"description": "still good", "config": {"domain": "acme.oktapreview.com"}}');

-- configurations
SELECT flohsync.configure_sync('o', 'users', '{}');
SELECT flohsync.configure_sync('o', 'member', '{"strategy": "incremental"}');
SELECT flohsync.configure_sync('o', 'user', '{"strategy": "incremental"}') ->> 'strategy' AS strategy;
SELECT flohsync.configure_sync('o', 'member', '{}') ->> 'strategy' AS strategy;
SELECT flohsync.configure_sync('o', 'member', '{"strategy": "incremental"}');
SELECT flohsync.trigger_sync('o', 'member', 'incremental');
SELECT count(*) FROM flohsync.connector_sync_config c JOIN flohsync.connector_definition d ON d.id = c.connector_id WHERE d.name = 'o';
-- a definition that takes away what is configured
SELECT flohsync.update_connector('o', jsonb_build_object('definition', flohsync.connector_template('okta') #- '{resources,member}'));
SELECT flohsync.update_connector('o', jsonb_build_object('definition', flohsync.connector_template('okta') #- '{resources,user,list,incremental}'));
SELECT flohsync.delete_sync_config('o', 'member');
SELECT flohsync.update_connector('o', jsonb_build_object('definition', flohsync.connector_template('okta') #- '{resources,member}'));
SELECT flohsync.configure_sync('o', 'member', '{}');

SELECT flohsync.drop_connector(d.name) FROM flohsync.connector_definition d WHERE d.name = 'o' OR d.name LIKE 't-%';
