--:include upgrade/begin.sql

-- What HTTP serves, API tokens, and the role of the program that serves.
CREATE SCHEMA flohsync_api;
COMMENT ON SCHEMA flohsync_api IS
  'Functions of flohsync that HTTP serves: of JSON, with named arguments, run for the role of the request';
ALTER TABLE _flohsync.access DROP CONSTRAINT access_level_check,
  ADD CHECK (level IN ('reader', 'manager', 'gateway'));
COMMENT ON TABLE _flohsync.access IS
  'What grant_reader(), grant_manager() and grant_gateway() grant; filled by the script of the extension';
COMMENT ON COLUMN _flohsync.access.level IS
  'reader: readers and managers; manager: managers only; gateway: the role that a program for HTTP connects as';

CREATE FUNCTION _flohsync.serve(_levels text[], _inner text, _comment text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  inner_half regprocedure := ('_flohsync.api_' || _inner)::regprocedure;
  outer_half text;
BEGIN
  EXECUTE (SELECT format($create$CREATE FUNCTION flohsync_api.%I(%s) RETURNS %s
                                 LANGUAGE c %s AS 'MODULE_PATHNAME', 'flohsync_api_call'$create$,
                         substr(p.proname, length('api_') + 1), pg_get_function_arguments(p.oid),
                         pg_get_function_result(p.oid),
                         CASE p.provolatile WHEN 's' THEN 'STABLE' ELSE 'VOLATILE' END)
             FROM pg_proc p WHERE p.oid = inner_half);
  outer_half := 'flohsync_api.' || _inner;
  EXECUTE format('COMMENT ON FUNCTION %s IS %L', outer_half::regprocedure, _comment);
  EXECUTE format('COMMENT ON FUNCTION %s IS %L', inner_half,
                 'Implementation of the function of schema flohsync_api, run as its owner');
  PERFORM _flohsync.allow(l.level, outer_half) FROM unnest(_levels) l(level);
END
$$;
COMMENT ON FUNCTION _flohsync.serve(text[], text, text) IS
  'Makes the function of schema flohsync_api for an inner half api_…, with the same arguments, defaults and '
  'volatility, and declares which roles may call it; for the extension script';

CREATE INDEX sync_run_finished ON flohsync.sync_run (finished_at) WHERE finished_at IS NOT NULL;

-- These topic files are new in 0.3.  When one of them changes after the release of
-- 0.3, its text of 0.3 takes the place of its line here: 091_upgrade.t fails until then.
--:include 89_api_token.sql
--:include 85_api.sql
--:include 86_api_config.sql
--:include 86_api_connector.sql
--:include 87_api_match.sql
--:include 87_api_run.sql
--:include 87_api_status.sql

CREATE OR REPLACE FUNCTION _flohsync.grant_level(_role regrole, _levels text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  role text := _flohsync.check_access_role(_role);
  a _flohsync.access;
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA %s TO %s',
                 CASE WHEN 'reader' = ANY (_levels) THEN 'flohsync, flohsync_api' ELSE 'flohsync_api' END, role);
  FOR a IN SELECT * FROM _flohsync.access x WHERE x.level = ANY (_levels) ORDER BY x.object LOOP
    EXECUTE format('GRANT %s%s ON %s %s TO %s', CASE a.kind WHEN 'TABLE' THEN 'SELECT' ELSE 'EXECUTE' END, ' ('
                   || a.columns || ')', a.kind, a.object, role);
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.grant_level(regrole, text[]) IS
  'Grants a role the access that is declared for some levels';

CREATE FUNCTION flohsync.grant_gateway(role regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.check_access_role(grant_gateway.role);
  IF EXISTS (SELECT FROM pg_roles r WHERE r.oid = grant_gateway.role AND (r.rolsuper OR r.rolbypassrls)) THEN
    PERFORM _flohsync.invalid('role', format('%s is a superuser, or bypasses row level security', grant_gateway.role),
                              'Programs that serve HTTP connect as a role with LOGIN NOINHERIT and nothing else.');
  END IF;
  PERFORM _flohsync.grant_level(grant_gateway.role, ARRAY['gateway']);
END
$$;
COMMENT ON FUNCTION flohsync.grant_gateway(regrole) IS
  'Lets a role do what a program that serves flohsync_api by HTTP does as itself: look up API tokens, take webhooks, '
  'and see health, metrics and ends of runs; for the rest it must be able to SET ROLE to the role of each request. '
  'Call it again after an update of the extension; 22023 for a superuser, a role that bypasses row level security '
  'and a role of flohsync itself';

CREATE OR REPLACE FUNCTION flohsync.revoke_access(role regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _role text := _flohsync.check_access_role(revoke_access.role);
  before oid[] := ARRAY(SELECT * FROM _flohsync.managing_owners());
  revoked oid[];
  whose text;
  stopped text[];
  handler text;
  _run bigint;
BEGIN
  EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA flohsync, _flohsync, flohsync_api FROM %s', _role);
  EXECUTE format('REVOKE ALL (id, name, kind, description, enabled, created_at, updated_at) ON '
                 'flohsync.connector_definition FROM %s', _role);
  EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA flohsync, _flohsync, flohsync_api FROM %s', _role);
  EXECUTE format('REVOKE ALL ON ALL ROUTINES IN SCHEMA flohsync, _flohsync, flohsync_api FROM %s', _role);
  EXECUTE format('REVOKE ALL ON SCHEMA flohsync, _flohsync, flohsync_api FROM %s', _role);

  -- What ran with its rights does not any more, nor what did with those of its
  -- members who had their access by it.
  revoked := ARRAY(SELECT revoke_access.role::oid UNION SELECT b.id FROM unnest(before) b(id)
                   WHERE b.id NOT IN (SELECT * FROM _flohsync.managing_owners()));
  FOR _run IN SELECT r.id FROM flohsync.sync_run r
                JOIN flohsync.connector_sync_config c ON c.connector_id = r.connector_id
                    AND c.resource_type = r.resource_type
                JOIN flohsync.connector_definition d ON d.id = c.connector_id AND d.kind = 'sql'
               WHERE r.status IN ('queued', 'running') AND _flohsync.role_oid(c.owner) = ANY (revoked) LOOP
    PERFORM flohsync.cancel_sync(_run);
  END LOOP;
  WITH stopped AS (
    UPDATE flohsync.connector_sync_config c SET owner = _flohsync.role_gone(c.owner)
     WHERE _flohsync.role_oid(c.owner) = ANY (revoked)
    RETURNING c.connector_id, c.resource_type)
  SELECT array_agg(format('"%s", %s', d.name, s.resource_type) ORDER BY d.name, s.resource_type) INTO stopped
    FROM stopped s JOIN flohsync.connector_definition d ON d.id = s.connector_id
   WHERE d.kind = 'sql';
  UPDATE flohsync.connector_definition d SET author = _flohsync.role_gone(d.author)
    WHERE _flohsync.role_oid(d.author) = ANY (revoked);
  DELETE FROM _flohsync.webhook_handler h WHERE _flohsync.role_oid(h.owner) = ANY (revoked)
    RETURNING h.handler INTO handler;
  whose := format('role "%s"', _flohsync.role_name(_flohsync.role(revoke_access.role)))
           || CASE WHEN cardinality(revoked) > 1 THEN ' or of its members' ELSE '' END;
  IF stopped IS NOT NULL THEN
    RAISE WARNING USING
      MESSAGE = _flohsync.clean(format('%s configurations that ran with the rights of %s no longer run',
                                       cardinality(stopped), whose)),
      DETAIL = format('They are: %s%s.', _flohsync.clean(array_to_string(stopped[:20], '; ')),
                      CASE WHEN cardinality(stopped) > 20 THEN '; …' ELSE '' END),
      HINT = 'Review what they run, then assign them to another role with flohsync.set_sync_owner().';
  END IF;
  IF handler IS NOT NULL THEN
    RAISE WARNING USING
      MESSAGE = _flohsync.clean(format('the entitlement handler %s ran with the rights of %s and is removed',
                                       handler, whose)),
      DETAIL = 'Webhooks without a resource type are recorded in flohsync.entitlement_event.',
      HINT = 'Set another one with flohsync.set_entitlement_handler().';
  END IF;
END
$$;
COMMENT ON FUNCTION flohsync.revoke_access(regrole) IS
  'Revokes the access granted by grant_reader(), grant_manager() and grant_gateway(), and stops what runs with the '
  'rights of the role, or of its members that were managers by it: configurations of connectors of kind sql, the '
  'entitlement handler; a warning names these; 22023 for a role of flohsync itself';

CREATE OR REPLACE FUNCTION _flohsync.grant_worker(_role regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  inner_half regprocedure;
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA flohsync, _flohsync TO %s', _role);
  EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA flohsync, _flohsync TO %s', _role);
  EXECUTE format('GRANT INSERT, UPDATE, DELETE ON flohsync.resource_record, _flohsync.resource_tombstone, '
                 'flohsync.sync_run,
                  flohsync.sync_run_page, flohsync.sync_error, _flohsync.cache_outbox, _flohsync.cache_epoch,
                  flohsync.connector_sync_match,
                  flohsync.user_external_identity, _flohsync.match_progress, _flohsync.record_change,
                  _flohsync.departure, _flohsync.setback, _flohsync.user_change,
                  flohsync.floh_user, flohsync.user_profile, flohsync.workflow_job, flohsync.workflow_run,
                  _flohsync.webhook_delivery, flohsync.entitlement_event TO %s', _role);
  -- Not owner: whoever could write that could run queries with another role's rights.
  EXECUTE format('GRANT UPDATE (schedule_error, last_sync_at, last_sync_cursor, last_sync_status, '
                 'last_sync_error, last_sync_stats,
                  next_run_at, next_full_run_at, watermark, last_full_pass_at, last_success_at, last_complete_at,
                  incomplete_reason, full_incomplete_reason, retry_at, retries, parked, totals,
                  delta_link, delta_fingerprint) ON flohsync.connector_sync_config TO %s', _role);
  -- To lock a user's row is to be able to write it.
  EXECUTE format('GRANT UPDATE ON _flohsync.cache_state, _flohsync.app_user TO %s', _role);
  EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA flohsync, _flohsync TO %s', _role);
  EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA _flohsync TO %s', _role);
  EXECUTE format('REVOKE EXECUTE ON FUNCTION _flohsync.grant_worker(regrole), _flohsync.allow(text, text, text), '
                 '_flohsync.serve(text[], text, text), _flohsync.caller(), _flohsync.make_search_indexes(oid) FROM %s',
                 _role);
  -- What runs as the owner on behalf of a caller is not for code behind the seam.
  FOR inner_half IN SELECT p.oid FROM pg_proc p JOIN pg_proc o ON o.proargtypes = p.proargtypes
      AND p.proname = CASE o.prosrc WHEN 'flohsync_as_owner' THEN o.proname::text
                                    WHEN 'flohsync_api_call' THEN 'api_' || o.proname END
                     WHERE p.pronamespace = '_flohsync'::regnamespace LOOP
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM %s', inner_half, _role);
  END LOOP;
  EXECUTE format('GRANT EXECUTE ON FUNCTION flohsync._user_create(text[], text[]), flohsync._user_deactivate(uuid[], '
                 'bigint),
                  flohsync._user_reactivate(uuid[]), flohsync._profile_update(uuid[], jsonb[], text),
                  flohsync.match_stats(text, text), flohsync.validate_definition(jsonb) TO %s', _role);
  -- An application grants what its users need to this role; its view is read as its owner.
  IF NOT pg_has_role('flohsync_owner', _role, 'USAGE') THEN
    EXECUTE format('GRANT %s TO flohsync_owner', _role);
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.grant_worker(regrole) IS
  'Grants a role the privileges that workers need; call it after changing flohsync.worker_role';
-- End of what HTTP serves.

-- Several requests at the same time: "concurrency" in a definition, and in the config of kind command.
CREATE OR REPLACE FUNCTION flohsync.definition_schema() RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN $json$
--:include flohsync.definition.schema.json
$json$::pg_catalog.jsonb;

CREATE OR REPLACE FUNCTION _flohsync.definition_rules(_definition jsonb) RETURNS SETOF _flohsync.fault
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
                                                  'concurrency']);
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
  v := nullif(_config -> 'concurrency', 'null');
  IF v IS NOT NULL
     AND NOT coalesce(_flohsync.number(v) BETWEEN 1 AND 32 AND _flohsync.number(v) % 1 = 0, false) THEN
    PERFORM _flohsync.invalid('concurrency', 'it must be an integer from 1 to 32');
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
-- End of several requests at the same time.

--:include upgrade/end.sql
