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
  -- What it sends are parameters, with secrets among them, and not for the log of statements.
  IF has_parameter_privilege('log_parameter_max_length', 'SET WITH GRANT OPTION') THEN
    EXECUTE format('GRANT SET ON PARAMETER log_parameter_max_length TO %s', grant_gateway.role);
  END IF;
END
$$;
COMMENT ON FUNCTION flohsync.grant_gateway(regrole) IS
  'Lets a role do what a program that serves flohsync_api by HTTP does as itself: look up API tokens, take webhooks, '
  'and see health, metrics and ends of runs; for the rest it must be able to SET ROLE to the role of each request. '
  'From a superuser it also gets the right to keep what it sends, secrets among it, out of the log of statements. '
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
  IF has_parameter_privilege('log_parameter_max_length', 'SET WITH GRANT OPTION') THEN
    EXECUTE format('REVOKE SET ON PARAMETER log_parameter_max_length FROM %s', _role);
  END IF;

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
                  _flohsync.page_print_scope, _flohsync.page_print, _flohsync.page_list, _flohsync.dirty_record,
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

-- Searches: 58_search.sql, 59_resolve.sql, 62_list.sql
CREATE FUNCTION _flohsync.search_marks(_external_id text, _email text, _display_name text) RETURNS int[]
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 20 AS 'MODULE_PATHNAME', 'flohsync_search_marks';
COMMENT ON FUNCTION _flohsync.search_marks(text, text, text) IS
  'What trigrams do not tell of the searchable texts of a record, null when there is nothing; for the indexes of '
  'enable_search()';

-- By what it is, not by its name alone: it is read without the planner, which would see that.
CREATE OR REPLACE FUNCTION _flohsync.search_index(_table regclass) RETURNS regclass
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN (SELECT i.indexrelid::regclass
          FROM pg_class t
          JOIN pg_index i ON i.indrelid = t.oid
          JOIN pg_class c ON c.oid = i.indexrelid AND c.relname = t.relname || '_search'
          JOIN pg_am a ON a.oid = c.relam AND a.amname = 'gin'
          JOIN pg_opclass o ON o.oid = i.indclass[0] AND o.opcname = 'gin_trgm_ops'
         WHERE t.oid = _table AND i.indisvalid AND i.indnatts = 1 AND i.indpred IS NULL
           AND pg_get_expr(i.indexprs, i.indrelid) = CASE _table
             WHEN 'flohsync.resource_record'::regclass
             THEN '_flohsync.search_text((external_id)::text, (email)::text, (display_name)::text)'
             ELSE '_flohsync.search_text((external_id)::text, (external_email)::text, (external_display_name)::text)'
             END);
COMMENT ON FUNCTION _flohsync.search_index(regclass) IS
  'Index that enable_search() created on a table; null when there is none';

CREATE FUNCTION _flohsync.search_marks_index(_table regclass) RETURNS regclass
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN (SELECT i.indexrelid::regclass
          FROM pg_class t
          JOIN pg_index i ON i.indrelid = t.oid
          JOIN pg_class c ON c.oid = i.indexrelid AND c.relname = t.relname || '_search_marks'
          JOIN pg_am a ON a.oid = c.relam AND a.amname = 'gin'
          JOIN pg_opclass o ON o.oid = i.indclass[0] AND o.opcname = 'array_ops'
         CROSS JOIN (SELECT CASE _table
             WHEN 'flohsync.resource_record'::regclass
             THEN '_flohsync.search_marks((external_id)::text, (email)::text, (display_name)::text)'
             ELSE '_flohsync.search_marks((external_id)::text, (external_email)::text, (external_display_name)::text)'
             END) m(expression)
         WHERE t.oid = _table AND i.indisvalid AND i.indnatts = 1
           AND pg_get_expr(i.indexprs, i.indrelid) = m.expression
           AND pg_get_expr(i.indpred, i.indrelid) = format('(%s IS NOT NULL)', m.expression));
COMMENT ON FUNCTION _flohsync.search_marks_index(regclass) IS
  'Index that enable_search() created on a table for one and two characters; null when there is none';

CREATE FUNCTION _flohsync.search_hint() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE WHEN EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm')
  THEN 'SELECT flohsync.enable_search() makes indexes for searches.'
  WHEN EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm')
  THEN 'Run CREATE EXTENSION pg_trgm, which is part of PostgreSQL, and then SELECT flohsync.enable_search().'
  ELSE 'pg_trgm is part of PostgreSQL, in a package such as postgresql-contrib. Install that, run CREATE EXTENSION '
       'pg_trgm, and then SELECT flohsync.enable_search().' END;
COMMENT ON FUNCTION _flohsync.search_hint() IS 'How to come to indexes for searches';

CREATE OR REPLACE FUNCTION flohsync.enable_search() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _opclass oid;
  broken regclass;
BEGIN
  -- By what belongs to the extension: its schema can be any.
  SELECT o.oid INTO _opclass
    FROM pg_extension e
    JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
        AND d.classid = 'pg_opclass'::regclass AND d.deptype = 'e'
    JOIN pg_opclass o ON o.oid = d.objid AND o.opcname = 'gin_trgm_ops'
   WHERE e.extname = 'pg_trgm';
  IF NOT FOUND THEN
    RAISE NOTICE USING
      MESSAGE = 'extension pg_trgm is not installed: searches with few hits read all records of a type',
      HINT = _flohsync.search_hint();
    RETURN false;
  END IF;
  IF num_nulls(_flohsync.search_index('flohsync.resource_record'),
               _flohsync.search_index('flohsync.connector_sync_match'),
               _flohsync.search_marks_index('flohsync.resource_record'),
               _flohsync.search_marks_index('flohsync.connector_sync_match')) = 0 THEN
    RETURN true;
  END IF;
  -- Others who make them wait here, and find them made.
  LOCK TABLE flohsync.resource_record, flohsync.connector_sync_match IN SHARE ROW EXCLUSIVE MODE;
  -- What a CREATE INDEX CONCURRENTLY that failed has left behind.
  FOR broken IN SELECT i.indexrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                 WHERE i.indrelid IN ('flohsync.resource_record'::regclass, 'flohsync.connector_sync_match'::regclass)
                   AND NOT i.indisvalid
                   AND c.relname IN (SELECT t.relname || k.kind FROM pg_class t
                                      CROSS JOIN unnest(ARRAY['_search', '_search_marks']) k(kind)
                                      WHERE t.oid = i.indrelid) LOOP
    EXECUTE format('DROP INDEX %s', broken);
  END LOOP;
  PERFORM _flohsync.make_search_indexes(_opclass);
  -- Without statistics of what they index they would be used where they do not pay.
  ANALYZE flohsync.resource_record, flohsync.connector_sync_match;
  RAISE NOTICE USING
    MESSAGE = 'searches in list_resources() and list_matches() now have indexes',
    HINT = 'DROP INDEX flohsync.resource_record_search, flohsync.resource_record_search_marks, '
           'flohsync.connector_sync_match_search, flohsync.connector_sync_match_search_marks removes them. A dump '
           'does not include them.';
  RETURN true;
END
$$;
COMMENT ON FUNCTION flohsync.enable_search() IS
  'Creates the indexes for searches in list_resources() and list_matches(), flohsync.resource_record_search and '
  'flohsync.connector_sync_match_search, of pg_trgm, and with …_marks behind these names, for one and two characters, '
  'unless they exist; blocks writes meanwhile; false where extension pg_trgm is missing. A dump does not include them: '
  'call it again in a restored database. DROP INDEX removes them';

DROP FUNCTION _flohsync.list_keys(text, text, text, text, regclass, uuid, text[], text, text, text, int, bigint,
                                  boolean, bigint, bigint);
DROP FUNCTION _flohsync.walk_list(text, uuid, text[], text, text, text, bigint, bigint, bigint);
DROP FUNCTION _flohsync.search_found(text, text, text, text);
DROP FUNCTION _flohsync.like_pattern(text);
DROP FUNCTION _flohsync.read_page_mark(text, text);
DROP FUNCTION _flohsync.page_mark(text, text, text, bigint);

-- Where a list is gone on with.  A total that took long to find goes along: it is
-- that of the first page; and how many rows were seen, which is the total at the end.
CREATE FUNCTION _flohsync.page_mark(_external_id text, _type text, _list text, _total bigint, _seen bigint,
                                    _estimated boolean) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN pg_catalog.translate(pg_catalog.encode(pg_catalog.convert_to(
         pg_catalog.jsonb_build_array(_external_id, _type, _list, _total, _seen, _estimated)::text, 'UTF8'), 'base64'),
         E'+/=\n', '-_');
COMMENT ON FUNCTION _flohsync.page_mark(text, text, text, bigint, bigint, boolean) IS
  'The value that list_resources() returns as nextAfter';

-- One of version 0.2 has no more than the total.
CREATE FUNCTION _flohsync.read_page_mark(_mark text, _list text, OUT external_id text, OUT resource_type text,
                                         OUT total bigint, OUT seen bigint, OUT estimated boolean)
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  mark jsonb;
BEGIN
  IF _mark IS NULL THEN
    RETURN;
  END IF;
  BEGIN
    IF length(_mark) <= 4000 AND _mark ~ '^[A-Za-z0-9_-]+$' THEN
      mark := convert_from(decode(rpad(translate(_mark, '-_', '+/'), (length(_mark) + 3) / 4 * 4, '='), 'base64'),
                           'UTF8')::jsonb;
    END IF;
  EXCEPTION WHEN data_exception THEN
    NULL;  -- not base64, not UTF-8, or not JSON
  END;
  IF coalesce(jsonb_typeof(mark) <> 'array' OR jsonb_typeof(mark -> 0) <> 'string'
              OR jsonb_typeof(mark -> 1) <> 'string' OR jsonb_typeof(mark -> 2) <> 'string'
              OR jsonb_typeof(mark -> 3) NOT IN ('number', 'null') OR length(mark ->> 0) > 255
              OR length(mark ->> 1) > 64, true) THEN
    PERFORM _flohsync.invalid('after', 'it is not a nextAfter of this list',
                              'Omit it to begin at the start of the list.');
  END IF;
  external_id := mark ->> 0;
  resource_type := mark ->> 1;
  IF mark ->> 2 = _list THEN
    total := CASE WHEN mark ->> 3 ~ '^[0-9]{1,15}$' THEN (mark ->> 3)::bigint END;
    seen := CASE WHEN mark ->> 4 ~ '^[0-9]{1,15}$' THEN (mark ->> 4)::bigint END;
    estimated := mark -> 5 IS DISTINCT FROM 'false';
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.read_page_mark(text, text) IS
  'The position of a nextAfter, and, if it is of the same list, what is known of the total; 22023 for anything else';

-- The plan is known; statistics are not.
CREATE FUNCTION _flohsync.walk_list(_sql text, _connector uuid, _types text[], _after_id text, _after_type text,
                                    _limit bigint, _offset bigint, OUT external_ids text[], OUT types text[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
BEGIN
  EXECUTE _sql INTO external_ids, types USING _connector, _types, _after_id, _after_type, _limit, _offset;
END
$$;
COMMENT ON FUNCTION _flohsync.walk_list(text, uuid, text[], text, text, bigint, bigint) IS
  'Runs a statement that reads a list in the order of its index';

-- The keys of one page, and one more if there is one.  _from and _where say of
-- which rows x the list consists, beside connector and types.
CREATE FUNCTION _flohsync.list_keys(_from text, _where text, _connector uuid, _types text[], _after_id text,
                                    _after_type text, _page_size int, _offset bigint,
                                    OUT external_ids text[], OUT types text[])
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
-- One stretch of the index for each type.
BEGIN ATOMIC
SELECT w.external_ids, w.types FROM _flohsync.walk_list(
  pg_catalog.format('SELECT array_agg(p.external_id ORDER BY p.external_id, p.resource_type),
                            array_agg(p.resource_type ORDER BY p.external_id, p.resource_type)
    FROM (SELECT x.external_id, x.resource_type FROM unnest($2) t(type)
           CROSS JOIN LATERAL (SELECT x.external_id, x.resource_type FROM %s
                                WHERE x.connector_id = $1 AND x.resource_type = t.type%s%s
                                ORDER BY x.external_id LIMIT $5 + $6) x
           ORDER BY x.external_id, x.resource_type LIMIT $5 OFFSET $6) p',
    _from, _where, CASE WHEN _after_id IS NOT NULL
                     THEN ' AND x.external_id >= $3 AND (x.external_id > $3 OR x.resource_type > $4)' ELSE '' END),
  _connector, _types, _after_id, _after_type, _page_size + 1, _offset) w;
END;
COMMENT ON FUNCTION _flohsync.list_keys(text, text, uuid, text[], text, text, int, bigint) IS
  'The ids and types of a page of a list, and of the row after it';

CREATE FUNCTION _flohsync.search_page(_matches boolean, _index regclass, _marks regclass, _connector uuid,
                                      _types text[], _status text, _stale boolean, _folded text, _after_id text,
                                      _after_type text, _before bigint, _limit int, _scope bigint, _base bigint,
                                      INOUT total bigint, INOUT estimated boolean,
                                      OUT external_ids text[], OUT types text[])
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_search_page';
COMMENT ON FUNCTION _flohsync.search_page(boolean, regclass, regclass, uuid, text[], text, boolean, text, text, text,
                                          bigint, int, bigint, bigint, bigint, boolean) IS
  'The first hits of a search in records or matches behind a key or a number of them, and how many there are in all; '
  '_scope: rows of the list without a search, _base: those of matches whether their records are stale or not';

CREATE FUNCTION _flohsync.search_keys(_table regclass, _connector uuid, _types text[], _status text, _stale boolean,
                                      _folded text, _after_id text, _after_type text, _before bigint, _page_size int,
                                      _scope bigint, _base bigint, INOUT total bigint, INOUT estimated boolean,
                                      OUT external_ids text[], OUT types text[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- No text is that long.
  IF length(_folded) > 1000 THEN
    total := 0;
    estimated := false;
    RETURN;
  END IF;
  SELECT p.* INTO total, estimated, external_ids, types
    FROM _flohsync.search_page(_table = 'flohsync.connector_sync_match'::regclass, _flohsync.search_index(_table),
      _flohsync.search_marks_index(_table), _connector, _types, _status, _stale, _folded, _after_id, _after_type,
      _before, _page_size + 1, _scope, _base, total, estimated) p;
END
$$;
COMMENT ON FUNCTION _flohsync.search_keys(regclass, uuid, text[], text, boolean, text, text, text, bigint, int, bigint,
                                          bigint, bigint, boolean) IS
  'The ids and types of a page of a search and of the row after it, and how many there are in all; _before: rows '
  'before the page';

CREATE OR REPLACE FUNCTION flohsync.list_matches(connector text, resource_type text, status text DEFAULT NULL,
                                      search text DEFAULT NULL,
  page int DEFAULT 1, page_size int DEFAULT 50, stale boolean DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _statuses text[] := '{matched,unmatched,ambiguous,manual_override,skipped,create_pending}';
  _connector uuid := _flohsync.connector_id(connector);
  _type text := _flohsync.check_resource_type(list_matches.resource_type);
  _status text := nullif(list_matches.status, '');
  _search text := _flohsync.search_fold(nullif(list_matches.search, ''));
  _of_scope bigint;
  _of_stale bigint;
  _of_all bigint;
  _stale boolean := list_matches.stale;
  _from text := 'flohsync.connector_sync_match x';
  _where text := '';
  _size constant int := list_matches.page_size;
  _before constant bigint := (list_matches.page - 1)::bigint * _size;
  _types text[];
  _ids text[];
  _total bigint;
  _estimated boolean := false;
  _data jsonb;
BEGIN
  PERFORM _flohsync.check_page(list_matches.page, _size);
  IF _status <> ALL (_statuses) THEN
    PERFORM _flohsync.invalid('status', format('%L is not a match status', _status),
      'Match statuses are matched, unmatched, ambiguous, manual_override, skipped and create_pending.');
  END IF;
  IF _status IS NOT NULL THEN
    _statuses := ARRAY[_status];
    _where := format(' AND x.match_status = %L', _status);
  END IF;
  _of_scope := _flohsync.count_of(_connector, _type, _statuses);
  _of_all := _of_scope;
  IF list_matches.stale IS NOT NULL AND _search IS NOT NULL THEN
    -- At most; a search looks at its hits alone.
    _of_stale := _flohsync.count_of(_connector, _type, '{stale}');
    IF list_matches.stale THEN
      _of_scope := least(_of_scope, _of_stale);
    ELSIF _of_stale = 0 THEN
      _stale := NULL;
    END IF;
  ELSIF list_matches.stale IS NOT NULL THEN
    _of_stale := (SELECT coalesce(sum(s.n), 0) FROM _flohsync.stale_matches(_connector, _type, _statuses) s);
    _of_scope := CASE WHEN list_matches.stale THEN _of_stale ELSE _of_scope - _of_stale END;
    IF list_matches.stale THEN
      _from := 'flohsync.resource_record s JOIN ' || _from || '
                ON x.connector_id = s.connector_id AND x.resource_type = s.resource_type
                  AND x.external_id = s.external_id';
      _where := _where || ' AND s.stale_since IS NOT NULL';
    ELSIF _of_stale > 0 THEN
      _where := _where || ' AND NOT EXISTS (SELECT FROM flohsync.resource_record s
                WHERE s.connector_id = x.connector_id AND s.resource_type = x.resource_type
                  AND s.external_id = x.external_id AND s.stale_since IS NOT NULL)';
    END IF;
  END IF;
  _types := CASE WHEN _of_scope > 0 THEN ARRAY[_type] ELSE '{}' END;
  IF _search IS NULL AND list_matches.stale AND _of_scope <= 20000 THEN
    -- From the few stale records, in no order of their own.
    EXECUTE format('SELECT ARRAY(SELECT x.external_id FROM %s WHERE x.connector_id = $1 AND x.resource_type = $2%s
                                  ORDER BY x.external_id LIMIT $3 OFFSET $4)', _from, _where)
       INTO _ids USING _connector, _type, _size, _before;
    _total := _of_scope;
  ELSIF _search IS NULL THEN
    SELECT k.external_ids INTO _ids
      FROM _flohsync.list_keys(_from, _where, _connector, _types, NULL, NULL, _size, _before) k;
    _total := _of_scope;
  ELSE
    SELECT k.external_ids, k.total, k.estimated INTO _ids, _total, _estimated
      FROM _flohsync.search_keys('flohsync.connector_sync_match', _connector, _types, _status, _stale, _search,
                                 NULL, NULL, _before, _size, _of_scope, _of_all, NULL, NULL) k;
  END IF;
  SELECT jsonb_agg(_flohsync.match_dto(m) || jsonb_build_object('staleSince', _flohsync.iso(r.stale_since))
                   ORDER BY k.position) INTO _data
    FROM unnest(_ids[:_size]) WITH ORDINALITY AS k(external_id, position)
   CROSS JOIN LATERAL (SELECT m.* FROM flohsync.connector_sync_match m
     -- by index, whatever their number
     WHERE m.connector_id = _connector AND m.resource_type = _type AND m.external_id = k.external_id OFFSET 0) m
   CROSS JOIN LATERAL (SELECT r.stale_since FROM flohsync.resource_record r
                       WHERE r.id = m.connector_resource_id OFFSET 0) r;
  RETURN _flohsync.page_object(_data, _total, list_matches.page, _size)
         || CASE WHEN _estimated THEN '{"totalIsEstimate": true}' ELSE '{}' END::jsonb;
END
$$;
COMMENT ON FUNCTION flohsync.list_matches(text, text, text, text, int, int, boolean) IS
  'A page of matches in the order of their external ids, of one status, with a text in id, name or e-mail address, '
  'ignoring case, and of stale or active records, where these are given; pages of 1 to 2000 (50), counted from 1; '
  'staleSince is set for stale records; with a search, a total above 10000 may be an estimate, totalIsEstimate';

CREATE OR REPLACE FUNCTION flohsync.list_resources(connector text, resource_type text DEFAULT NULL, search text DEFAULT NULL,
                                        stale boolean DEFAULT NULL,
  page int DEFAULT 1, page_size int DEFAULT 50, after text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _connector uuid := _flohsync.connector_id(connector);
  _type text := CASE WHEN list_resources.resource_type IS NOT NULL
    THEN _flohsync.check_resource_type(list_resources.resource_type) END;
  _search text := _flohsync.search_fold(nullif(list_resources.search, ''));
  -- What a total belongs to
  _list text := _flohsync.digest(jsonb_build_array(_connector, _type, _search, list_resources.stale)::text);
  _after record := _flohsync.read_page_mark(nullif(list_resources.after, ''), _list);
  _size constant int := list_resources.page_size;
  _before bigint := CASE WHEN _after.external_id IS NULL THEN (list_resources.page - 1)::bigint * _size
                         ELSE _after.seen END;
  _scope bigint;
  _types text[];
  _keys record;
  _total bigint;
  _estimated boolean := false;
  _data jsonb;
  _more boolean;
BEGIN
  PERFORM _flohsync.check_page(list_resources.page, _size);
  _types := CASE WHEN _type IS NULL THEN _flohsync.types_of(_connector) ELSE ARRAY[_type] END;
  _scope := _flohsync.count_of(_connector, _type, CASE WHEN stale THEN '{stale}' WHEN NOT stale THEN '{live}'
                                                      ELSE '{live,stale}' END::text[]);
  IF _search IS NULL THEN
    SELECT * INTO _keys FROM _flohsync.list_keys('flohsync.resource_record x',
      CASE WHEN stale THEN ' AND x.stale_since IS NOT NULL'
           WHEN NOT stale THEN ' AND x.stale_since IS NULL' ELSE '' END,
      _connector, _types, _after.external_id, _after.resource_type, _size,
      CASE WHEN _after.external_id IS NULL THEN _before ELSE 0 END);
    _total := _scope;
  ELSE
    SELECT * INTO _keys FROM _flohsync.search_keys('flohsync.resource_record', _connector, _types, NULL,
      list_resources.stale, _search, _after.external_id, _after.resource_type, _before, _size, _scope, _scope,
      _after.total, _after.estimated);
    _total := _keys.total;
    _estimated := _keys.estimated;
  END IF;
  _more := cardinality(_keys.external_ids) > _size;
  SELECT jsonb_agg(_flohsync.resource_dto(r) ORDER BY k.position) INTO _data
    FROM unnest(_keys.external_ids[:_size], _keys.types[:_size]) WITH ORDINALITY AS k(external_id, type, position)
   CROSS JOIN LATERAL (SELECT r.* FROM flohsync.connector_resource r
     -- by index, whatever their number
     WHERE r.external_id = k.external_id AND r.resource_type = k.type AND r.connector_id = _connector OFFSET 0) r;
  RETURN _flohsync.page_object(_data, _total, list_resources.page, _size)
         || CASE WHEN _estimated THEN '{"totalIsEstimate": true}' ELSE '{}' END::jsonb
         || jsonb_build_object('nextAfter', CASE WHEN _more
              THEN _flohsync.page_mark(_keys.external_ids[_size], _keys.types[_size], _list,
                                       CASE WHEN _search IS NOT NULL AND _total > 10000 THEN _total END,
                                       CASE WHEN _search IS NOT NULL THEN _before + _size END, _estimated) END);
END
$$;
COMMENT ON FUNCTION flohsync.list_resources(text, text, text, boolean, int, int, text) IS
  'A page of records of a connector, of all types or one, in byte order of external id and type; search: only those '
  'with this text in id, e-mail address or name, ignoring case; stale: only stale, or only active ones; pages of 1 to '
  '2000 (50), counted from 1; after: instead of page, the nextAfter of the page before, which is null at the end; '
  'with a search, a total above 10000 may be an estimate, totalIsEstimate. '
  '42704 for an unknown connector, 22023 names the invalid argument';

-- Several requests at the same time: "concurrency" in a definition, and in the config of kind command.

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
-- End of several requests at the same time.

-- Fingerprints of pages.
ALTER TABLE flohsync.sync_run_page ADD COLUMN print bigint;
COMMENT ON COLUMN flohsync.sync_run_page.print IS
  'Fingerprint of the last complete pass that the page had, byte for byte, so that it was not read again; null: none';

-- Made anew for the new column.


CREATE FUNCTION _flohsync.ledger_count(_seen bytea) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_ledger_count';
COMMENT ON FUNCTION _flohsync.ledger_count(bytea) IS 'How many record_no are in what ledger_union returned';

--:include 63_page_print.sql

COMMENT ON COLUMN flohsync.sync_run_page.seen IS
  'record_no of every record seen, as ranges (ledger.c); kept until a later full pass is complete; null while the run '
  'of a page with a print is running: then that has them';

CREATE FUNCTION _flohsync.fill_ledger(_run bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
  UPDATE flohsync.sync_run_page p SET seen = f.seen
    FROM _flohsync.page_print f
   WHERE p.run_id = _run AND p.seen IS NULL AND f.id = p.print;
END
$$;
COMMENT ON FUNCTION _flohsync.fill_ledger(bigint) IS
  'Writes into the ledger of a run what the pages have seen that it did not read; before it ends without being '
  'complete';

-- Where nothing has changed, and nothing is left to do, one update settles a pass, with what follows it.
CREATE FUNCTION _flohsync.settle_as_before(_run bigint) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off  -- whatever is known of the tables: what is asked for is mostly not there
AS $$
DECLARE
  c flohsync.connector_sync_config;
  known _flohsync.match_progress;
BEGIN
  SELECT x.* INTO c
    FROM flohsync.sync_run r
    JOIN flohsync.connector_sync_config x ON x.connector_id = r.connector_id AND x.resource_type = r.resource_type
   WHERE r.id = _run FOR NO KEY UPDATE OF x;
  IF NOT FOUND
     OR NOT EXISTS (SELECT FROM _flohsync.page_print_scope s JOIN flohsync.sync_run r ON r.id = _run
                     WHERE s.config_id = c.id AND s.open_pass = r.pass_id AND s.pass_id IS NOT NULL)
     OR EXISTS (SELECT FROM _flohsync.dirty_record d
                 WHERE d.connector_id = c.connector_id AND d.resource_type = c.resource_type)
     OR EXISTS (SELECT FROM flohsync.sync_run r
                 WHERE r.connector_id = c.connector_id AND r.resource_type = c.resource_type AND r.status = 'held')
     OR EXISTS (SELECT FROM _flohsync.record_change q
                 WHERE q.connector_id = c.connector_id AND q.resource_type = c.resource_type)
     OR (EXISTS (SELECT FROM flohsync.sync_run_page p WHERE p.changed IS NOT NULL)
         AND _flohsync.runs_with_changes(c.connector_id, c.resource_type) <> '{}')
     OR EXISTS (SELECT FROM _flohsync.setback b WHERE b.config_id = c.id)
     OR EXISTS (SELECT FROM flohsync.resource_record x
                 WHERE x.connector_id = c.connector_id AND x.resource_type = c.resource_type
                   AND x.stale_since < clock_timestamp() - _flohsync.duration(c.stale_retention)) THEN
    RETURN false;
  END IF;
  -- As in post_sync(): is everybody matched, by these rules, and has no user changed since?
  SELECT * INTO known FROM _flohsync.match_progress x WHERE x.config_id = c.id;
  IF _flohsync.matches_users(c) THEN
    IF known.config_id IS NULL OR known.users_seen > pg_snapshot_xmax(pg_current_snapshot())
       OR known.rules <> _flohsync.people_rules(c) OR NOT _flohsync.users_are_watched()
       OR EXISTS (SELECT FROM _flohsync.user_change u WHERE u.xid >= known.users_seen) THEN
      RETURN false;
    END IF;
  ELSIF known.config_id IS NOT NULL THEN
    RETURN false;
  END IF;
  UPDATE flohsync.connector_sync_config x
     SET last_full_pass_at = greatest(x.last_full_pass_at,
                                      (SELECT r.pass_started_at FROM flohsync.sync_run r WHERE r.id = _run))
   WHERE x.id = c.id;
  RETURN true;
END
$$;
COMMENT ON FUNCTION _flohsync.settle_as_before(bigint) IS
  'Settles a full pass all of whose pages came as before, in place of settle_pass(), post_sync() and purge_run(); '
  'false, and nothing is done, where one of these may have something to do';

CREATE OR REPLACE FUNCTION _flohsync.restart_pass(_run bigint, _forget_link boolean) RETURNS timestamptz
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r flohsync.sync_run;
BEGIN
  PERFORM _flohsync.lock_config(_run);
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  -- When this pass is resumed it must not be mistaken for one that began with the link.
  IF _forget_link THEN
    UPDATE flohsync.connector_sync_config c SET delta_link = NULL, delta_fingerprint = NULL
     WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type;
  END IF;
  PERFORM _flohsync.forget_pass(r.pass_id);
  PERFORM _flohsync.keep_page_changes(_run);
  DELETE FROM flohsync.sync_run_page p WHERE p.run_id = _run;
  DELETE FROM _flohsync.page_print p
   USING flohsync.connector_sync_config c
   WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type
     AND p.config_id = c.id AND p.pass_id = _run;
  UPDATE flohsync.sync_run x SET pass_id = x.id, pass_started_at = clock_timestamp()
   WHERE x.id = _run RETURNING x.* INTO r;
  RETURN r.pass_started_at;
END
$$;

CREATE OR REPLACE FUNCTION _flohsync.pass_overlap(_run bigint) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  r flohsync.sync_run;
  list jsonb;
  seen bytea;
  came bigint;
  there bigint;
BEGIN
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  SELECT d.definition #> ARRAY['resources', r.resource_type] INTO list
    FROM flohsync.connector_definition d WHERE d.id = r.connector_id AND d.kind = 'rest';
  -- With own_ids a record may well be in the lists of several parents.
  IF r.strategy <> 'full' OR list #>> '{list,pagination,type}' NOT IN ('offset', 'page')
      OR list #>> '{list,pagination,type}' IS NULL
     OR list #>> '{for_each,own_ids}' = 'true' OR _flohsync.pass_is_as_before(_run) THEN
    RETURN NULL;
  END IF;
  SELECT _flohsync.ledger_union(coalesce(array_agg(l.seen) FILTER (WHERE l.seen IS NOT NULL), '{}')),
         sum(l.added + l.updated + l.unchanged + l.restored)
    INTO seen, came FROM _flohsync.pass_pages(r.pass_id) l;
  IF _flohsync.pass_was_alone(_run) THEN
    there := _flohsync.ledger_count(seen);
  ELSE
    SELECT count(*) INTO there FROM flohsync.resource_record x
     WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type
       AND _flohsync.ledger_has(seen, x.record_no);
  END IF;
  IF came > there THEN
    RETURN format('pages are requested by position, and records occurred on more than one (%s): the list has '
                  'shifted, or is not ordered', came - there);
  END IF;
  RETURN NULL;
END
$$;

DROP FUNCTION _flohsync.records_changed(uuid, text, text, uuid[], text[], boolean);
CREATE FUNCTION _flohsync.records_changed(_connector uuid, _type text, _change text, _ids uuid[],
  _external_ids text[], _queue boolean, _nums bigint[]) RETURNS void
LANGUAGE c VOLATILE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_records_changed';
COMMENT ON FUNCTION _flohsync.records_changed(uuid, text, text, uuid[], text[], boolean, bigint[]) IS
  'Notes that records of a type were added, updated, restored, staled or removed: the cache forgets the external ids '
  '(null: none), post-sync finds the ids in record_change if they are to be queued for it, and pages with one of '
  'their record_no are read in full';

CREATE OR REPLACE FUNCTION _flohsync.records_staled(_connector uuid, _type text, _ids uuid[], _confirmed_at timestamptz,
  _observed_at timestamptz DEFAULT NULL, _event_at timestamptz DEFAULT NULL, _queue boolean DEFAULT true) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- To plan for the one record of a webhook would take longer than to write it; nor
-- does the plan depend on how large the table was when it was made.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
DECLARE
  n bigint;
  staled uuid[];
  _caching boolean := _flohsync.caching();
  _keys text[];
  _nums bigint[];
BEGIN
  WITH done AS (
    UPDATE flohsync.resource_record r
       SET stale_since = coalesce(r.stale_since, clock_timestamp()),
           observed_at = coalesce(_observed_at, greatest(r.observed_at, _confirmed_at)),
           event_at = coalesce(_event_at, r.event_at),
           event_keys = CASE WHEN _observed_at IS NULL THEN r.event_keys END
      FROM unnest(_ids) u(id) WHERE r.id = u.id
    RETURNING r.id, r.external_id, r.record_no)
  SELECT count(*), array_agg(d.id), array_agg(d.external_id) FILTER (WHERE _caching), array_agg(d.record_no)
    INTO n, staled, _keys, _nums FROM done d;
  PERFORM _flohsync.records_changed(_connector, _type, 'staled', staled, _keys, _queue, _nums);
  RETURN n;
END
$$;

-- Conditional requests.
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
                                                        'concurrency', 'conditional', 'webhook']);
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
  IF jsonb_typeof(_config -> 'conditional') NOT IN ('boolean', 'null') THEN
    PERFORM _flohsync.invalid('conditional', 'it must be true or false');
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

CREATE OR REPLACE FUNCTION flohsync.definition_schema() RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN $json$
--:include flohsync.definition.schema.json
$json$::pg_catalog.jsonb;

-- End of fingerprints of pages.

-- Many configurations, long histories.
CREATE INDEX connector_sync_config_due ON flohsync.connector_sync_config
  (least(next_run_at, next_full_run_at, retry_at)) WHERE enabled AND NOT parked;
CREATE INDEX sync_run_ended ON flohsync.sync_run (finished_at) WHERE status IN ('success', 'cancelled');
CREATE INDEX sync_run_failed ON flohsync.sync_run (finished_at) WHERE status = 'error';
CREATE INDEX workflow_job_done ON flohsync.workflow_job (created_at) WHERE status = 'done';
CREATE INDEX workflow_job_left ON flohsync.workflow_job (created_at) WHERE status IN ('queued', 'failed');
CREATE INDEX workflow_run_left ON flohsync.workflow_run (created_at)
 WHERE job_id IS NULL AND status IN ('done', 'failed');

-- Names in these were resolved when they were created; without a setting they become part of who calls them.
ALTER FUNCTION _flohsync.digest(text) RESET search_path;
ALTER FUNCTION _flohsync.number(jsonb) RESET search_path;
ALTER FUNCTION _flohsync.next_due(flohsync.connector_sync_config) RESET search_path;
ALTER FUNCTION _flohsync.passes(text) RESET search_path;
ALTER FUNCTION _flohsync.decided_under(flohsync.connector_definition,
                                     flohsync.connector_sync_config) RESET search_path;
ALTER FUNCTION _flohsync.fingerprint(text, flohsync.connector_definition,
                                     flohsync.connector_sync_config) RESET search_path;
ALTER FUNCTION _flohsync.people_rules(flohsync.connector_sync_config) RESET search_path;
ALTER FUNCTION _flohsync.metric_label(text, text) RESET search_path;

CREATE OR REPLACE FUNCTION _flohsync.home() RETURNS uuid
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN (SELECT h.id FROM _flohsync.home h);
END
$$;

CREATE OR REPLACE FUNCTION _flohsync.add_counters(_a jsonb, _b jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN (
    SELECT coalesce(jsonb_object_agg(s.key, s.value), '{}')
      -- What is no number would keep a run from ending.
      FROM (SELECT e.key, sum(_flohsync.number(e.value)) AS value
              FROM (VALUES (_a), (_b)) o(value)
             CROSS JOIN LATERAL jsonb_each(CASE jsonb_typeof(o.value) WHEN 'object' THEN o.value ELSE '{}' END) e
             WHERE jsonb_typeof(e.value) = 'number'
             GROUP BY e.key) s);
END
$$;

CREATE OR REPLACE FUNCTION _flohsync.pass_pages(_pass bigint) RETURNS SETOF flohsync.sync_run_page
LANGUAGE sql STABLE
BEGIN ATOMIC
  -- By run, whatever the planner knows of the tables: a plan is kept while they grow.
  SELECT p.run_id, p.page, p.cursor, p.next_cursor, p.fetched_at, p.records, p.bytes, p.fetch_ms, p.apply_ms,
    p.added, p.updated, p.unchanged, p.restored, p.filtered, p.errored, p.ignored, p.duplicates, p.truncated,
    p.unidentified, p.total_estimate,
    coalesce(p.seen, (SELECT f.seen FROM _flohsync.page_print f WHERE f.id = p.print AND r.status = 'running')),
    p.deleted, p.changed, p.incomplete, p.link, p.unread, p.print
    FROM flohsync.sync_run r
   CROSS JOIN LATERAL (SELECT x.* FROM flohsync.sync_run_page x WHERE x.run_id = r.id OFFSET 0) p
   WHERE r.pass_id = _pass;
END;

CREATE FUNCTION _flohsync.runs_with_changes(_connector uuid, _type text) RETURNS bigint[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
  RETURN ARRAY(
    WITH changed AS MATERIALIZED (SELECT DISTINCT p.run_id FROM flohsync.sync_run_page p WHERE p.changed IS NOT NULL)
    SELECT c.run_id FROM changed c
     WHERE (SELECT r.connector_id = _connector AND r.resource_type = _type FROM flohsync.sync_run r
             WHERE r.id = c.run_id));
END
$$;
COMMENT ON FUNCTION _flohsync.runs_with_changes(uuid, text) IS
  'Runs of a configuration with pages whose changes post-sync has not processed';

CREATE FUNCTION _flohsync.changed_by_pages(_runs bigint[]) RETURNS uuid[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
  RETURN ARRAY(SELECT e.id FROM flohsync.sync_run_page p CROSS JOIN LATERAL unnest(p.changed) e(id)
                WHERE p.changed IS NOT NULL AND p.run_id = ANY (_runs));
END
$$;
COMMENT ON FUNCTION _flohsync.changed_by_pages(bigint[]) IS
  'Records that the pages of some runs have changed and post-sync has not processed';

CREATE FUNCTION _flohsync.forget_page_changes(_runs bigint[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
  UPDATE flohsync.sync_run_page p SET changed = NULL WHERE p.changed IS NOT NULL AND p.run_id = ANY (_runs);
END
$$;
COMMENT ON FUNCTION _flohsync.forget_page_changes(bigint[]) IS
  'Notes that post-sync has processed what the pages of some runs have changed';

CREATE OR REPLACE FUNCTION _flohsync.forget_seen(_connector uuid, _type text, _run bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
  before bigint;
BEGIN
  SELECT r.id INTO before FROM flohsync.sync_run r
   WHERE r.connector_id BETWEEN _connector AND _connector AND r.resource_type = _type AND r.id < _run
     AND r.status = 'success' AND r.complete AND r.strategy = 'full'
   ORDER BY r.connector_id, r.id DESC LIMIT 1;
  UPDATE flohsync.sync_run_page p SET seen = NULL, deleted = NULL
   WHERE p.seen IS NOT NULL
     AND p.run_id = ANY (ARRAY(
       SELECT r.id FROM flohsync.sync_run r
        WHERE r.connector_id = _connector AND r.resource_type = _type AND r.id BETWEEN coalesce(before, 0) AND _run
          AND r.status NOT IN ('queued', 'running', 'held')));
END
$$;

CREATE OR REPLACE FUNCTION _flohsync.seen_since(_connector uuid, _type text, _since timestamptz, _run bigint) RETURNS bytea
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  pages bytea[];
BEGIN
  pages := ARRAY(
    SELECT p.seen
      FROM flohsync.sync_run r JOIN flohsync.sync_run_page p ON p.run_id = r.id AND p.seen IS NOT NULL
     WHERE r.connector_id = _connector AND r.resource_type = _type AND p.fetched_at >= _since AND r.id > _run
    UNION ALL
    SELECT f.seen
      FROM flohsync.sync_run r
      JOIN flohsync.sync_run_page p ON p.run_id = r.id AND p.seen IS NULL AND p.print IS NOT NULL
      LEFT JOIN _flohsync.page_print f ON f.id = p.print
     WHERE r.connector_id = _connector AND r.resource_type = _type AND p.fetched_at >= _since AND r.id > _run
       AND r.status = 'running');
  -- Without that of a page, nothing counts as missing.
  IF array_position(pages, NULL) IS NOT NULL THEN
    PERFORM _flohsync.raise('55000', 'the ledger of a run is incomplete', NULL, 'Try again when the run has ended.');
  END IF;
  RETURN _flohsync.ledger_union(pages);
END
$$;

-- Made from page_counters().
DO $do$
BEGIN
  EXECUTE format($create$
    CREATE OR REPLACE FUNCTION _flohsync.page_sums(_runs bigint[],
      OUT pages bigint, OUT records bigint, OUT bytes numeric, OUT passed bigint, OUT stats jsonb)
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off
    AS $$
    BEGIN
      SELECT count(*), coalesce(sum(p.records), 0), coalesce(sum(p.bytes), 0), coalesce(sum(%s), 0),
        jsonb_build_object(%s)
        INTO pages, records, bytes, passed, stats
        FROM flohsync.sync_run_page p WHERE p.run_id = ANY (_runs);
    END
    $$ $create$,
    (SELECT string_agg(format('p.%I', c.counter), ' + ') FROM _flohsync.page_counters() c WHERE c.passed),
    (SELECT string_agg(format('%1$L, coalesce(sum(p.%1$I), 0)', c.counter), ', ')
       FROM _flohsync.page_counters() c WHERE c.in_stats));
END
$do$;

CREATE OR REPLACE FUNCTION _flohsync.run_stats(_run bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN (
    SELECT s.stats || jsonb_build_object(
        'staled', r.staled, 'removed', r.removed,
        'durationMs', coalesce(round(extract(epoch FROM coalesce(r.finished_at, clock_timestamp()) - r.started_at)
                                     * 1000), 0),
        'pagesProcessed', s.pages, 'totalUpstreamRecords', s.records, 'bytes', s.bytes, 'complete',
          coalesce(r.complete, false))
        || CASE WHEN r.post_sync IS NULL THEN '{}' ELSE jsonb_build_object('postSync', r.post_sync) END
      FROM flohsync.sync_run r CROSS JOIN LATERAL _flohsync.page_sums(ARRAY[r.id]) s
     WHERE r.id = _run);
END
$$;

CREATE OR REPLACE FUNCTION _flohsync.totals_of(_stats jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN (
    SELECT coalesce(jsonb_object_agg(e.key, e.value), '{}')
      FROM jsonb_each((_stats - 'postSync') || coalesce(_stats -> 'postSync', '{}')) e
     WHERE jsonb_typeof(e.value) = 'number');
END
$$;

DROP FUNCTION _flohsync.start_run(bigint, boolean);
CREATE FUNCTION _flohsync.start_run(_run bigint, _left boolean,
  OUT outcome text, OUT strategy text, OUT pass_id bigint, OUT pass_started_at timestamptz,
  OUT modified_since timestamptz, OUT connector_id uuid,
  OUT connector_name text, OUT resource_type text, OUT filter_rules jsonb, OUT hash_ignore jsonb,
  OUT resumed boolean, OUT last_page integer, OUT next_cursor text,
  OUT passed bigint, OUT received bigint, OUT unidentified bigint, OUT total_estimate bigint,
  OUT note_changes boolean, OUT incomplete text, OUT kept_link text, OUT unread boolean,
  OUT rehash boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
  prev flohsync.sync_run;
  d flohsync.connector_definition;
  c flohsync.connector_sync_config;
  applied integer; -- pages of the pass so far
  under text; -- the fingerprint of the pass
  problem text;
  class text;
BEGIN
  PERFORM _flohsync.lock_config(_run);
  SELECT * INTO r FROM flohsync.sync_run x WHERE x.id = _run AND x.status IN ('queued', 'running') FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    outcome := 'gone';
    RETURN;
  END IF;
  SELECT * INTO d FROM flohsync.connector_definition x WHERE x.id = r.connector_id;
  SELECT * INTO c FROM flohsync.connector_sync_config x
   WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type;

  IF r.status = 'running' THEN
    SELECT coalesce(max(l.page), 0) INTO applied FROM _flohsync.pass_pages(r.pass_id) l;
    -- Where the server went down as well, the last pages may be lost: only new ground is progress.
    -- A worker that ended by an error, or was terminated, did not crash.
    IF NOT _left THEN
      r.crashes := CASE WHEN r.crash_page >= applied THEN r.crashes + 1 ELSE 1 END;
      r.crash_page := greatest(r.crash_page, applied);
    END IF;
  END IF;

  IF r.cancel_requested THEN
    problem := 'run was cancelled';
    class := _flohsync.error_class('cancelled');
  ELSIF c.id IS NULL THEN
    problem := _flohsync.clean(format('connector "%s" no longer has a configuration for resource type "%s"', d.name,
                                      r.resource_type));
    class := _flohsync.error_class('configuration');
  ELSIF NOT d.enabled THEN
    problem := _flohsync.clean(format('connector "%s" is disabled', d.name));
    class := _flohsync.error_class('configuration');
  ELSIF r.crashes >= 3 THEN
    problem := format('the worker died %s times on page %s', r.crashes, r.crash_page + 1);
    class := _flohsync.error_class('crash_loop');
  END IF;
  strategy := coalesce(r.strategy, c.strategy, 'full');
  IF problem IS NOT NULL THEN
    UPDATE flohsync.sync_run x
       SET started_at = coalesce(x.started_at, clock_timestamp()), crashes = r.crashes, crash_page = r.crash_page,
           strategy = coalesce(x.strategy, start_run.strategy)
     WHERE x.id = _run;
    PERFORM _flohsync.finish_run(_run, CASE WHEN r.cancel_requested THEN 'cancelled' ELSE 'error' END,
                                 false, problem, problem, class, NULL);
    outcome := 'refused';
    RETURN;
  END IF;

  resumed := false;
  IF r.status = 'queued' THEN
    under := _flohsync.fingerprint(strategy, d, c);
    pass_id := r.id;
    pass_started_at := clock_timestamp();
    -- A watermark in the future, which a clock that was wrong has left, says nothing.
    modified_since := CASE WHEN strategy = 'incremental' AND c.watermark <= clock_timestamp() + c.overlap
                           THEN c.watermark - greatest(c.overlap, _flohsync.duration(
                             d.definition #>> ARRAY['resources', r.resource_type, 'list', 'incremental', 'lookback']))
                               END;
    -- The last run before this one: if it failed and kept its cursor, its pass goes on.
    -- By the history's index, as in 80_status: by that of all runs, a first run would be looked for to the end.
    SELECT * INTO prev FROM flohsync.sync_run x
     WHERE x.connector_id BETWEEN r.connector_id AND r.connector_id AND x.resource_type = r.resource_type
       AND x.id < r.id
     ORDER BY x.connector_id, x.id DESC LIMIT 1;
    IF prev.status = 'error' AND NOT r.restart THEN
      IF prev.cursor IS NOT NULL AND prev.fingerprint = under
         AND prev.pass_started_at > clock_timestamp() - interval '7 days'
         -- Where a page keeps failing, those before it are read again at times.
         AND (SELECT count(*) < 5 FROM flohsync.sync_run x
               WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type AND x.pass_id = prev.pass_id
                 AND x.pages = 0
                 AND x.id > (SELECT max(y.id) FROM flohsync.sync_run y
                              WHERE y.connector_id = r.connector_id AND y.resource_type = r.resource_type
                                AND y.pass_id = prev.pass_id AND y.pages > 0))
         AND (SELECT count(*) = prev.pass_pages FROM _flohsync.pass_pages(prev.pass_id) l WHERE l.seen IS NOT NULL) THEN
        pass_id := prev.pass_id;
        pass_started_at := prev.pass_started_at;
        modified_since := prev.modified_since;
        resumed := true;
      END IF;
    END IF;
  ELSE
    under := _flohsync.fingerprint(strategy, d, c);
    pass_started_at := r.pass_started_at;
    modified_since := r.modified_since;
    -- What the pass is about has changed while nobody was working on it.
    IF under IS DISTINCT FROM r.fingerprint AND applied > 0 THEN
      pass_started_at := _flohsync.restart_pass(_run, false);
      r.pass_id := r.id;
      r.crash_page := 0;
      applied := 0;
    END IF;
    pass_id := r.pass_id;
    resumed := applied > 0;
  END IF;

  UPDATE flohsync.sync_run x
     SET status = 'running', started_at = coalesce(x.started_at, clock_timestamp()),
         strategy = start_run.strategy, pass_id = start_run.pass_id, pass_started_at = start_run.pass_started_at,
         modified_since = start_run.modified_since, fingerprint = under,
         decided_under = coalesce(x.decided_under, _flohsync.decided_under(d, c)), crashes = r.crashes,
           crash_page = r.crash_page
   WHERE x.id = _run;
  UPDATE flohsync.connector_sync_config x SET last_sync_status = 'running', retry_at = NULL, parked = false
    WHERE x.id = c.id;

  received := 0;
  unidentified := 0;
  unread := false;
  last_page := 0;
  passed := 0;
  IF resumed THEN
    PERFORM _flohsync.fill_ledger(_run);
    SELECT coalesce(sum(l.records), 0), coalesce(sum(l.unidentified), 0), max(l.total_estimate),
           (array_agg(l.incomplete ORDER BY l.page) FILTER (WHERE l.incomplete IS NOT NULL))[1],
           coalesce(bool_or(l.unread), false), coalesce(max(l.page), 0)
      INTO received, unidentified, total_estimate, incomplete, unread, last_page
      FROM _flohsync.pass_pages(pass_id) l;
    SELECT l.next_cursor INTO next_cursor FROM _flohsync.pass_pages(pass_id) l ORDER BY l.page DESC LIMIT 1;
    SELECT s.passed INTO passed
      FROM _flohsync.page_sums(ARRAY(SELECT x.id FROM flohsync.sync_run x WHERE x.pass_id = start_run.pass_id)) s;
  END IF;
  kept_link := CASE WHEN strategy = 'incremental' AND c.delta_fingerprint = under THEN c.delta_link END;

  outcome := 'run';
  connector_id := d.id;
  connector_name := d.name;
  resource_type := r.resource_type;
  filter_rules := c.filter_rules;
  hash_ignore := c.hash_ignore;
  rehash := c.hash_ignore_since >= coalesce(c.last_full_pass_at, '-infinity');
  -- Without a row in match_progress post-sync looks at everything anyway.
  note_changes := _flohsync.triggers_per_record(c) OR EXISTS (SELECT FROM _flohsync.match_progress m
                                                              WHERE m.config_id = c.id);
END
$$;
COMMENT ON FUNCTION _flohsync.start_run(bigint, boolean) IS
  'Starts or resumes a run (_left: its worker ended by an error) and returns everything that the worker needs';

CREATE OR REPLACE FUNCTION _flohsync.supersede_held(_connector uuid, _type text, _run bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  UPDATE flohsync.sync_run x
     SET status = 'cancelled',
       notes = pg_catalog.concat_ws('; ', x.notes, pg_catalog.format('superseded by run %s', _run)),
       resolved_at = pg_catalog.clock_timestamp()
   WHERE x.connector_id = _connector AND x.resource_type = _type AND x.status = 'held' AND x.id < _run;
END
$$;

CREATE OR REPLACE FUNCTION _flohsync.finish_run(_run bigint, _status text, _complete boolean, _reason text,
  _error text, _class text, _watermark timestamptz, _retry_after interval DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
  pass bigint;
  last record;
  forget boolean;
  read_on boolean := _status IN ('success', 'held') AND _watermark IS NOT NULL;
  retry_delay interval := coalesce(current_setting('flohsync.retry_delay', true), '5s')::interval;
  again boolean;
  class record; -- of the error
BEGIN
  SELECT e.* INTO class FROM _flohsync.error_classes() e WHERE e.class = _class;
  PERFORM _flohsync.lock_config(_run);
  SELECT x.pass_id INTO pass FROM flohsync.sync_run x WHERE x.id = _run;
  IF _status <> 'success' OR NOT _complete THEN
    PERFORM _flohsync.fill_ledger(_run);
  END IF;
  SELECT l.page, l.next_cursor, l.link INTO last FROM _flohsync.pass_pages(pass) l ORDER BY l.page DESC LIMIT 1;
  -- A page that could not use what came says so with an empty link: the next pass begins without one.
  SELECT coalesce(bool_or(l.link = ''), false) AND _status IN ('success', 'held') INTO forget
    FROM _flohsync.pass_pages(pass) l;
  UPDATE flohsync.sync_run x
     SET status = _status, finished_at = clock_timestamp(), complete = _complete,
         incomplete_reason = CASE WHEN NOT _complete THEN _reason END,
         error = _error, error_class = _class,
         -- a pass whose cursors went in circles, or that was stopped by hand, is not gone on with
         cursor = CASE WHEN _status = 'error' AND class.keeps_cursor THEN last.next_cursor END,
         pages = (SELECT count(*) FROM flohsync.sync_run_page p WHERE p.run_id = _run),
         pass_pages = coalesce(last.page, 0)
   WHERE x.id = _run AND x.status IN ('queued', 'running')
  RETURNING x.* INTO r;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  UPDATE flohsync.sync_run x SET stats = _flohsync.run_stats(_run) WHERE x.id = _run RETURNING x.* INTO r;
  IF _status IN ('success', 'held') THEN
    PERFORM _flohsync.trigger_summary(_run, r.stats);
  END IF;
  -- The ledger of a run is kept until a pass is complete.
  IF _status = 'success' AND _complete AND r.strategy = 'full' THEN
    PERFORM _flohsync.forget_seen(r.connector_id, r.resource_type, _run);
  END IF;
  -- A schedule's run is tried again three times, where a later try may go better.
  again := _status = 'error' AND r.trigger IN ('schedule', 'retry') AND retry_delay > '0'
           AND coalesce(class.retried_by_schedule, false);
  UPDATE flohsync.connector_sync_config c
     SET retries = CASE WHEN _status = 'cancelled' OR NOT again THEN 0 WHEN r.trigger = 'retry' THEN c.retries + 1
       ELSE 0 END,
         retry_at = CASE WHEN again AND (r.trigger = 'schedule' OR c.retries + 1 < 3)
                         THEN clock_timestamp() + greatest(_retry_after,
                                                           retry_delay * (1 << CASE r.trigger
                                                               WHEN 'retry' THEN c.retries + 1 ELSE 0 END)) END,
         parked = _status = 'error' AND _class = _flohsync.error_class('crash_loop'),
         last_success_at = CASE _status WHEN 'success' THEN r.finished_at ELSE c.last_success_at END,
         -- What a full pass missed, no incremental one makes up for.
         last_complete_at = CASE WHEN _complete AND _status IN ('success', 'held')
             AND (r.strategy = 'full' OR c.full_incomplete_reason IS NULL)
                                 THEN r.finished_at ELSE c.last_complete_at END,
         incomplete_reason = CASE WHEN _status = 'cancelled' THEN c.incomplete_reason WHEN NOT _complete
           THEN coalesce(_reason, _error)
                                  WHEN r.strategy <> 'full' THEN c.full_incomplete_reason END,
         full_incomplete_reason = CASE WHEN _status = 'cancelled' OR r.strategy <> 'full' THEN c.full_incomplete_reason
                                       WHEN NOT _complete THEN coalesce(_reason, _error) END,
         totals = _flohsync.add_counters(c.totals, _flohsync.totals_of(r.stats) || jsonb_build_object(_status, 1)),
         last_sync_at = r.finished_at,
         last_sync_cursor = r.cursor,
         last_sync_status = CASE _status WHEN 'success' THEN 'success' WHEN 'cancelled' THEN 'idle' ELSE 'error' END,
         last_sync_error = _error,
         last_sync_stats = r.stats,
         -- Everything requested was received, though perhaps not all of it could be identified.
         delta_link = CASE WHEN forget THEN NULL WHEN read_on THEN coalesce(last.link, c.delta_link)
           ELSE c.delta_link END,
         delta_fingerprint = CASE WHEN forget THEN NULL WHEN read_on AND last.link IS NOT NULL THEN r.fingerprint
           ELSE c.delta_fingerprint END,
         watermark = CASE WHEN read_on THEN _watermark ELSE c.watermark END
   WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type;
  PERFORM pg_notify('flohsync_run', jsonb_build_object('id', r.id, 'status', r.status)::text);
END
$$;

DROP FUNCTION _flohsync.enqueue_due();
CREATE FUNCTION _flohsync.enqueue_due(_all boolean DEFAULT true) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- The plan does not depend on how many configurations there were when it was made.
SET enable_seqscan = off
AS $$
DECLARE
  c flohsync.connector_sync_config;
  t timestamptz := clock_timestamp();
  -- As cron does: a smaller step is waited for, so that no tick comes twice.
  clock_step constant interval := '3 hours';
  again constant interval := '5 minutes';
  odd uuid[] := '{}';
  set_back boolean;
  problem text;
  n int := 0;
BEGIN
  IF _all THEN
    odd := ARRAY(SELECT x.id FROM flohsync.connector_sync_config x
                  WHERE x.enabled AND NOT x.parked
                    AND (greatest(x.last_sync_at, x.updated_at) > t + clock_step
                         OR (x.cron_schedule IS NOT NULL AND x.next_run_at IS NULL)
                         OR (x.full_cron_schedule IS NOT NULL AND x.next_full_run_at IS NULL)));
  END IF;
  -- Nothing here is waited for: locked rows are left for the next time.
  FOR c IN SELECT x.* FROM flohsync.connector_sync_config x JOIN flohsync.connector_definition d
    ON d.id = x.connector_id
            WHERE x.enabled AND d.enabled AND d.home = (SELECT _flohsync.home()) AND NOT x.parked
              AND (least(x.next_run_at, x.next_full_run_at, x.retry_at) <= t OR x.id = ANY (odd))
            ORDER BY _flohsync.next_due(x) NULLS LAST
              FOR NO KEY UPDATE OF x SKIP LOCKED LOOP
    CONTINUE WHEN NOT _flohsync.try_lock('connector', c.connector_id::text, true)
        OR NOT _flohsync.lock_queue(c.connector_id, c.resource_type, false);
    -- One invalid row must not stop the others.
    BEGIN
      IF EXISTS (SELECT FROM flohsync.sync_run r
                  WHERE r.connector_id = c.connector_id AND r.resource_type = c.resource_type
                    AND r.status IN ('queued', 'running')) THEN
        NULL;  -- that run is the one
      ELSIF c.next_run_at <= t OR c.next_full_run_at <= t THEN
        INSERT INTO flohsync.sync_run AS q (connector_id, resource_type, strategy, trigger)
        VALUES (c.connector_id, c.resource_type, CASE WHEN c.next_full_run_at <= t THEN 'full' ELSE c.strategy END,
                'schedule')
        ON CONFLICT (connector_id, resource_type) WHERE status IN ('queued', 'running') DO NOTHING;
        n := n + 1;
      ELSIF c.retry_at <= t THEN
        INSERT INTO flohsync.sync_run AS q (connector_id, resource_type, strategy, trigger)
        SELECT x.connector_id, x.resource_type, x.strategy, 'retry' FROM flohsync.sync_run x
         WHERE x.connector_id BETWEEN c.connector_id AND c.connector_id AND x.resource_type = c.resource_type
         ORDER BY x.connector_id, x.id DESC LIMIT 1
        ON CONFLICT (connector_id, resource_type) WHERE status IN ('queued', 'running') DO NOTHING;
        n := n + 1;
      END IF;
      -- The clock has been set back since: what it said then does not count.
      set_back := coalesce(greatest(c.last_sync_at, c.updated_at) > t + clock_step, false);
      UPDATE flohsync.connector_sync_config x
         SET next_run_at = CASE WHEN x.next_run_at > t AND NOT set_back THEN x.next_run_at
                                ELSE _flohsync.cron_next(c.cron_schedule, t, c.timezone) END,
             next_full_run_at = CASE WHEN x.next_full_run_at > t AND NOT set_back THEN x.next_full_run_at
                                     ELSE _flohsync.cron_next(c.full_cron_schedule, t, c.timezone) END,
             -- whatever is queued now is the next try
             retry_at = CASE WHEN least(x.next_run_at, x.next_full_run_at, x.retry_at) > t
                 AND NOT set_back THEN x.retry_at END,
             schedule_error = NULL
       WHERE x.id = c.id;
    EXCEPTION WHEN OTHERS THEN
      CONTINUE WHEN _flohsync.passes(SQLSTATE);
      -- Only a person switches a configuration off: what is wrong, a time zone that the system lost, may come right.
      problem := _flohsync.clean(SQLERRM);
      IF problem IS DISTINCT FROM c.schedule_error THEN
        RAISE WARNING USING
          MESSAGE = _flohsync.clean(format('schedules of %s/%s cannot be used: %s',
                                           (SELECT d.name FROM flohsync.connector_definition d
                                            WHERE d.id = c.connector_id), c.resource_type, problem)),
          HINT = 'They are checked again every five minutes.';
      END IF;
      UPDATE flohsync.connector_sync_config x
         SET schedule_error = problem,
             next_run_at = CASE WHEN x.cron_schedule IS NOT NULL THEN greatest(x.next_run_at, t + again) END,
             next_full_run_at = CASE WHEN x.full_cron_schedule IS NOT NULL
               THEN greatest(x.next_full_run_at, t + again) END,
             retry_at = greatest(x.retry_at, CASE WHEN x.retry_at IS NOT NULL THEN t + again END)
       WHERE x.id = c.id;
    END;
  END LOOP;
  RETURN n;
END
$$;
COMMENT ON FUNCTION _flohsync.enqueue_due(boolean) IS
  'Queues the scheduled runs and retries that are due, and returns their number; missed ticks collapse into one. _all: '
  'also looks for due times that are missing or that a wrong clock has left, which reads all configurations';

CREATE OR REPLACE FUNCTION _flohsync.read_user_changes() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.lock('user changes', '', true);
END
$$;

CREATE OR REPLACE FUNCTION _flohsync.forget_departures(_ids uuid[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _ids IS NOT NULL AND _ids <> '{}' THEN
    DELETE FROM _flohsync.departure d
     WHERE d.seq = ANY (ARRAY(SELECT x.seq FROM _flohsync.departure x WHERE x.resource_id = ANY (_ids)
                              FOR UPDATE SKIP LOCKED));
  END IF;
END
$$;

CREATE OR REPLACE FUNCTION _flohsync.lock_matching(_c flohsync.connector_sync_config) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.lock('matching', _c.id::text, false);
END
$$;

CREATE OR REPLACE FUNCTION _flohsync.pending_records(_c flohsync.connector_sync_config, _p _flohsync.match_progress,
  OUT ids uuid[], OUT by_record uuid[], OUT queued uuid[], OUT seqs bigint[], OUT setbacks uuid[])
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  changed_in bigint[] := _flohsync.runs_with_changes(_c.connector_id, _c.resource_type);
BEGIN
  SELECT coalesce(array_agg(r.resource_id), '{}'), coalesce(array_agg(r.seq), '{}') INTO queued, seqs
    FROM _flohsync.record_change r
   WHERE r.connector_id = _c.connector_id AND r.resource_type = _c.resource_type;
  setbacks := ARRAY(SELECT s.resource_id FROM _flohsync.setback s WHERE s.config_id = _c.id
                     ORDER BY s.tried_at LIMIT 100);
  IF _p.config_id IS NULL THEN
    RETURN;
  END IF;
  SELECT array_agg(d.id) INTO by_record
    FROM (SELECT unnest(_flohsync.changed_by_pages(changed_in))
          UNION
          SELECT unnest(queued || setbacks)) d(id);
  SELECT array_agg(d.id) INTO ids
    FROM (SELECT unnest(by_record)
          UNION
          -- That is planned each time, and most times no user has changed.
          SELECT u.id FROM _flohsync.reached_by_users(_c, _p.users_seen, _p.own_xid) u
           WHERE EXISTS (SELECT FROM _flohsync.user_change x
                          WHERE x.xid >= _p.users_seen AND x.xid IS DISTINCT FROM _p.own_xid))
      d(id);
END
$$;

COMMENT ON FUNCTION _flohsync.config_keys() IS
  'The keys that configure_sync() takes: column, JSON type, whether null is taken, function that checks it, default, '
  'and whether after a change everybody is processed again';
ALTER TABLE _flohsync.match_progress ADD COLUMN matched_by text;
COMMENT ON COLUMN _flohsync.match_progress.rules IS
  'Fingerprint of the settings used; when they change everything has to be processed';
COMMENT ON COLUMN _flohsync.match_progress.matched_by IS
  'Fingerprint of the settings that decide who matches; while they stay only changes are matched; null: unknown';
DO $do$
BEGIN
  EXECUTE (SELECT format($create$
    CREATE FUNCTION _flohsync.match_rules(_c flohsync.connector_sync_config) RETURNS text
    LANGUAGE sql STABLE
    RETURN _flohsync.digest(jsonb_build_array(%s)::text)$create$,
    string_agg(format('(_c).%I', k.attribute), ', '))
    FROM _flohsync.config_keys() k WHERE k.matching AND k.key <> 'attributeMappings');
END
$do$;
COMMENT ON FUNCTION _flohsync.people_rules(flohsync.connector_sync_config) IS
  'Fingerprint of the settings of a configuration whose change requires everybody to be processed again';
COMMENT ON FUNCTION _flohsync.match_rules(flohsync.connector_sync_config) IS
  'Fingerprint of those of people_rules() that may change who matches: all but the attribute mappings';

CREATE OR REPLACE FUNCTION _flohsync.process_users(_c flohsync.connector_sync_config, _ids uuid[], INOUT touched uuid[],
                                        _run bigint, _held boolean,
  _deactivating boolean, _approved boolean, _widen boolean, _record flohsync.resource_record,
  OUT report jsonb, OUT errors jsonb, OUT broken boolean, OUT held boolean, OUT message text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _stage text;
  _failed jsonb;
  _refused bigint := 0;
  _done boolean;
  back record;
  did record;
BEGIN
  report := '{}';
  errors := '[]';
  broken := false;
  held := false;
  FOREACH _stage IN ARRAY ARRAY['match', 'create', 'deactivate', 'map'] LOOP
    PERFORM _flohsync.stage(CASE _stage WHEN 'match' THEN 'matching' WHEN 'create' THEN 'creating'
                            WHEN 'map' THEN 'mapping' ELSE 'deactivating' END);
    FOR _attempt IN 1 .. 3 LOOP
      BEGIN
        _done := true;
        CASE
          WHEN _stage = 'match' THEN
            back := _flohsync.reactivate(_c, touched, _run, _record);
            -- Of all that are processed, those that are back are matched besides those that changed.
            report := report || jsonb_build_object(
              'matchesChanged',
              _flohsync.match(_c, CASE WHEN touched IS NULL AND _ids IS NOT NULL AND back.records <> '{}'
                                       THEN ARRAY(SELECT unnest(_ids) UNION SELECT unnest(back.records))
                                       ELSE _ids END, back.records, back.users),
              'usersReactivated', back.reactivated);
            -- Whatever an application's users did shows in the matches that it changed.
            IF _widen THEN
              touched := ARRAY(SELECT unnest(touched)
                               UNION SELECT m.connector_resource_id FROM flohsync.connector_sync_match m
                                      WHERE m.connector_id = _c.connector_id AND m.resource_type = _c.resource_type
                                        AND (m.updated_at = now() OR m.match_status = 'create_pending'));
            END IF;
            SELECT back.refused, back.errors, true AS complete INTO did;
          WHEN _stage = 'create' AND _c.create_users THEN
            did := _flohsync.create_users(_c, touched, _run, _held, _record);
            report := report || jsonb_build_object('usersCreated', did.created, 'createPending', did.pending);
          WHEN _stage = 'deactivate' THEN
            IF _deactivating THEN
              did := _flohsync.deactivate(_c, touched, _run, _approved);
            END IF;
            IF _run IS NOT NULL THEN
              PERFORM _flohsync.requeue_in_other_configs(_c, touched);
            END IF;
            _done := _deactivating;
            IF _deactivating THEN
              report := report || jsonb_build_object('usersDeactivated', did.deactivated);
              held := did.message IS NOT NULL;
              message := did.message;
            END IF;
          WHEN _stage = 'map' AND _c.attribute_mappings IS NOT NULL THEN
            did := _flohsync.map_attributes(_c, touched, _run, _record);
            report := report || jsonb_build_object('profilesUpdated', did.updated, 'valuesRefused', did.failed);
          ELSE
            _done := false;
        END CASE;
        IF _done THEN
          errors := errors || did.errors;
          _refused := _refused + did.refused;
          IF NOT did.complete THEN
            errors := errors || _flohsync.stage_failed(_run, _stage, '54000',
                                                       'too many rows failed: the others wait for the next run', 3,
                                                       _record);
            broken := true;
          END IF;
        END IF;
        EXIT;
      EXCEPTION WHEN OTHERS THEN
        _failed := _flohsync.stage_failed(_run, _stage, SQLSTATE, SQLERRM, _attempt, _record);
        errors := errors || _failed;
        broken := broken OR _failed <> '[]';
        EXIT WHEN _failed <> '[]';
      END;
    END LOOP;
    -- The other stages lean on the matches.
    EXIT WHEN _stage = 'match' AND broken;
  END LOOP;
  IF _refused > 0 THEN
    report := report || jsonb_build_object('rowsRefused', _refused);
  END IF;
END
$$;
CREATE OR REPLACE FUNCTION _flohsync.post_sync(_run bigint, _held boolean, OUT held boolean, OUT message text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r flohsync.sync_run;
  c flohsync.connector_sync_config := _flohsync.keep_config(_run);
  p _flohsync.match_progress;  -- up to where everything is done,
  known _flohsync.match_progress;  -- and, where other mappings have everybody processed, all are matched
  horizon xid8;
  watched boolean := _flohsync.users_are_watched();
  todo record;
  ids uuid[];  -- records whose user is looked for; null: all
  touched uuid[];  -- records that the other stages process; null: all
  did record;
  users boolean;
  report jsonb := '{}';
  errors jsonb := '[]';
  broken boolean := false;  -- a stage could not be done at all: everything is to be done again
  failed jsonb := '[]';
  told record;
  changed_in bigint[];
BEGIN
  held := false;
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  IF c.id IS NULL THEN
    RETURN;
  END IF;
  PERFORM _flohsync.lock_matching(c);
  PERFORM _flohsync.read_user_changes();
  users := _flohsync.matches_users(c);
  horizon := pg_snapshot_xmin(pg_current_snapshot());
  SELECT * INTO known FROM _flohsync.match_progress x WHERE x.config_id = c.id;
  IF known.config_id IS NOT NULL AND NOT users THEN
    -- Nothing is noted of users meanwhile, and nothing kept of records.
    DELETE FROM _flohsync.match_progress x WHERE x.config_id = c.id;
  END IF;
  IF users AND known.users_seen <= pg_snapshot_xmax(pg_current_snapshot()) THEN
    IF known.rules = _flohsync.people_rules(c) THEN
      p := known;
    ELSIF known.matched_by IS DISTINCT FROM _flohsync.match_rules(c) THEN
      known := NULL;
    END IF;
  ELSE
    known := NULL;
  END IF;
  todo := _flohsync.pending_records(c, known);
  ids := CASE WHEN known.config_id IS NOT NULL AND watched THEN coalesce(todo.ids, '{}') END;
  IF p.config_id IS NOT NULL THEN
    touched := coalesce(todo.ids, '{}');
  ELSE
    todo.ids := NULL;
    todo.by_record := NULL;
  END IF;
  IF users AND (ids IS NULL OR ids <> '{}' OR touched IS NULL) THEN
    -- Who comes to a record that went before does not leave by that.
    IF c.deactivate_users AND cardinality(touched) > coalesce(cardinality(todo.by_record), 0) THEN
      PERFORM _flohsync.note_departures(ARRAY(
        SELECT x.id FROM flohsync.resource_record x
         WHERE x.id = ANY (touched) AND x.id <> ALL (coalesce(todo.by_record, '{}')) AND x.stale_since IS NOT NULL
           AND _flohsync.departure_open(x.id, x.stale_since)), clock_timestamp());
    END IF;
    did := _flohsync.process_users(c, ids, touched, _run, _held, c.deactivate_users AND NOT _held, r.status = 'held',
                            NOT watched AND p.config_id IS NOT NULL, NULL);
    touched := did.touched;
    report := did.report;
    errors := did.errors;
    broken := did.broken;
    held := did.held;
    message := did.message;
  END IF;

  IF _flohsync.triggers_per_record(c) THEN
    FOR _attempt IN 1 .. 3 LOOP
      BEGIN
        told := _flohsync.trigger_per_record(c, _run, todo.seqs, todo.setbacks);
        EXIT;
      EXCEPTION WHEN OTHERS THEN
        failed := _flohsync.stage_failed(_run, 'workflow', SQLSTATE, SQLERRM, _attempt);
        EXIT WHEN failed <> '[]';
      END;
    END LOOP;
    IF failed <> '[]' THEN
      -- The workflow is told of these changes after the next pass.
      errors := errors || failed;
      broken := true;
      PERFORM _flohsync.keep_page_changes(y.id)
         FROM (SELECT DISTINCT x.id FROM flohsync.sync_run x JOIN flohsync.sync_run_page g ON g.run_id = x.id
               AND g.changed IS NOT NULL
                WHERE x.connector_id = c.connector_id AND x.resource_type = c.resource_type ORDER BY x.id) y;
      todo.seqs := ARRAY(SELECT q.seq FROM _flohsync.record_change q WHERE q.seq = ANY (todo.seqs)
                         AND q.change = 'recheck');
    ELSE
      errors := errors || told.errors;
      report := report || CASE WHEN told.jobs > 0 THEN jsonb_build_object('workflowJobs', told.jobs) ELSE '{}' END
                       || CASE WHEN told.refused > 0
                         THEN jsonb_build_object('rowsRefused',
                                                 told.refused + coalesce((report ->> 'rowsRefused')::bigint, 0))
                                                 ELSE '{}' END;
    END IF;
  END IF;

  -- What has been dealt with is not needed any more, but for what waits for a decision.
  changed_in := _flohsync.runs_with_changes(c.connector_id, c.resource_type);
  IF changed_in <> '{}' THEN
    PERFORM _flohsync.forget_page_changes(changed_in);
  END IF;
  PERFORM _flohsync.forget_changes(todo.seqs);
  IF NOT broken AND todo.setbacks <> '{}' THEN
    -- What was tried again and did not fail again.
    DELETE FROM _flohsync.setback s WHERE s.config_id = c.id AND s.resource_id = ANY (todo.setbacks)
        AND s.tried_at < now();
  END IF;
  IF todo.by_record <> '{}' THEN
    PERFORM _flohsync.forget_departures(ARRAY(
      SELECT x.id FROM flohsync.resource_record x
       WHERE x.id = ANY (todo.by_record) AND x.stale_since IS NULL
         AND EXISTS (SELECT FROM _flohsync.departure d WHERE d.resource_id = x.id)));
  END IF;
  IF users AND (held OR _held) THEN
    PERFORM _flohsync.note_changes(c.connector_id, c.resource_type, ARRAY(
      SELECT m.connector_resource_id FROM _flohsync.users_to_deactivate(c, touched) l(id)
        JOIN flohsync.connector_sync_match m ON m.user_id = l.id AND m.connector_id = c.connector_id
            AND m.resource_type = c.resource_type
       WHERE c.deactivate_users
      UNION
      SELECT m.connector_resource_id FROM flohsync.connector_sync_match m
       WHERE _held AND m.connector_id = c.connector_id AND m.resource_type = c.resource_type
         AND m.match_status = 'create_pending'
         AND (touched IS NULL OR m.connector_resource_id = ANY (touched))), 'recheck');
  END IF;
  IF errors <> '[]' THEN
    report := report || jsonb_build_object('errors', errors);
  END IF;
  IF broken THEN
    -- All of it once more, next time.
    PERFORM _flohsync.note_changes(c.connector_id, c.resource_type, touched, 'recheck');
  END IF;
  IF broken AND touched IS NULL THEN
    DELETE FROM _flohsync.match_progress x WHERE x.config_id = c.id;
  ELSIF users AND (p.config_id IS NULL OR todo.ids IS NOT NULL
                   OR EXISTS (SELECT FROM _flohsync.user_change u WHERE u.xid >= p.users_seen)) THEN
    -- If the settings are changed meanwhile, the new ones are others than these.
    INSERT INTO _flohsync.match_progress AS x (config_id, rules, users_seen, own_xid, matched_by)
    VALUES (c.id, _flohsync.people_rules(c), horizon,
            CASE WHEN r.status = 'running' THEN pg_current_xact_id_if_assigned() END, _flohsync.match_rules(c))
    ON CONFLICT (config_id) DO UPDATE SET rules = EXCLUDED.rules, users_seen = EXCLUDED.users_seen,
      own_xid = EXCLUDED.own_xid, matched_by = EXCLUDED.matched_by;
    -- The users that this changed are processed, except for other records that could be theirs.
    IF r.status = 'running'
        AND EXISTS (SELECT FROM _flohsync.user_change u WHERE u.xid = pg_current_xact_id_if_assigned()) THEN
      PERFORM _flohsync.note_changes(c.connector_id, c.resource_type, ARRAY(
        SELECT DISTINCT u.id FROM _flohsync.reached_by_users(c, pg_current_xact_id_if_assigned(), NULL) u
          LEFT JOIN flohsync.connector_sync_match m ON m.connector_resource_id = u.id
         WHERE m.user_id IS DISTINCT FROM u.user_id
           AND coalesce(m.match_status, '') NOT IN ('manual_override', 'skipped')), 'recheck');
    END IF;
    -- The transaction of approve_run() may stay open: every other post-sync would wait for its end.
    IF r.status = 'running' THEN
      PERFORM _flohsync.forget_user_changes();
    END IF;
  END IF;
  IF report ? 'matchesChanged' THEN
    report := report || jsonb_build_object('matches', flohsync.match_stats(c.connector_id::text, c.resource_type)
                                           - 'resourceType');
  END IF;
  IF report <> '{}' THEN
    -- An approved run has been here before.
    UPDATE flohsync.sync_run x
       SET post_sync = report || _flohsync.add_counters(_flohsync.totals_of(coalesce(x.post_sync, '{}')),
                                                        _flohsync.totals_of(report))
     WHERE x.id = _run;
  END IF;
END
$$;

DROP FUNCTION _flohsync.forget_history(interval);
CREATE FUNCTION _flohsync.forget_history(_retention interval) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- In the order of these indexes up to the limit, however much is old.
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
DECLARE
  old constant timestamptz := clock_timestamp() - _retention;
  old_failed constant timestamptz := clock_timestamp() - 3 * _retention;
  batch constant integer := 1000;
  n bigint;
BEGIN
  -- Jobs that nobody claims count as failures: what is to be done is in workflow_run.
  DELETE FROM flohsync.workflow_job j
   WHERE j.id IN (SELECT x.id FROM flohsync.workflow_job x
                   WHERE x.status <> 'running'
                     AND x.id = ANY (ARRAY(
                       (SELECT d.id FROM flohsync.workflow_job d WHERE d.status = 'done' AND d.created_at < old
                         ORDER BY d.created_at LIMIT batch)
                       UNION ALL
                       (SELECT d.id FROM flohsync.workflow_job d
                         WHERE d.status IN ('queued', 'failed') AND d.created_at < old_failed
                         ORDER BY d.created_at LIMIT batch)))
                     FOR UPDATE SKIP LOCKED);
  DELETE FROM flohsync.workflow_run r
   WHERE r.id IN (SELECT x.id FROM flohsync.workflow_run x
                   WHERE x.job_id IS NULL AND x.status IN ('done', 'failed') AND x.created_at < old
                   ORDER BY x.created_at LIMIT batch FOR UPDATE SKIP LOCKED);
  -- The last run of a configuration stays: by the history's index, as in 80_status.
  DELETE FROM flohsync.sync_run r
   WHERE r.id IN (SELECT x.id FROM flohsync.sync_run x
                   WHERE x.id = ANY (ARRAY(
                     (SELECT e.id FROM flohsync.sync_run e
                       WHERE e.status IN ('success', 'cancelled') AND e.finished_at < old
                         AND e.id < (SELECT n.id FROM flohsync.sync_run n
                                      WHERE n.connector_id BETWEEN e.connector_id AND e.connector_id
                                        AND n.resource_type = e.resource_type
                                      ORDER BY n.connector_id, n.id DESC LIMIT 1)
                       ORDER BY e.finished_at LIMIT batch)
                     UNION ALL
                     (SELECT e.id FROM flohsync.sync_run e
                       WHERE e.status = 'error' AND e.finished_at < old_failed
                         AND e.id < (SELECT n.id FROM flohsync.sync_run n
                                      WHERE n.connector_id BETWEEN e.connector_id AND e.connector_id
                                        AND n.resource_type = e.resource_type
                                      ORDER BY n.connector_id, n.id DESC LIMIT 1)
                       ORDER BY e.finished_at LIMIT batch)))
                     FOR UPDATE SKIP LOCKED);
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN n;
END
$$;
COMMENT ON FUNCTION _flohsync.forget_history(interval) IS
  'Removes the oldest of the runs and workflow jobs that ended longer ago than the retention, failed ones after three '
  'times that, and returns the number of runs: when it is 1000 or more there may be others';

CREATE OR REPLACE FUNCTION _flohsync.records_removed(_connector uuid, _type text, _ids uuid[], _tell boolean, _run bigint)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  n bigint;
  removed uuid[];
  gone jsonb[];
  did record;
  c flohsync.connector_sync_config;
  _caching boolean := _flohsync.caching();
  _keys text[];
  _nums bigint[];
BEGIN
  IF _ids IS NULL OR _ids = '{}' THEN
    RETURN 0;
  END IF;
  -- In one order, which that of the deletion is not.
  PERFORM FROM flohsync.connector_sync_match m WHERE m.connector_resource_id = ANY (_ids) ORDER BY m.id FOR UPDATE;
  WITH purged AS (
    DELETE FROM flohsync.resource_record r
     USING unnest(_ids) AS old(id)
     WHERE r.id = old.id
    RETURNING r.id, r.external_id, r.display_name, r.email, r.record_no
  ), identities AS (
    -- Of a user who was deactivated it stays: by it he is known when he comes back.
    DELETE FROM flohsync.user_external_identity i
     USING purged p JOIN flohsync.connector_sync_match m ON m.connector_resource_id = p.id
     WHERE i.user_id = m.user_id AND i.connector_id = _connector AND i.external_id = p.external_id
       AND i.source = 'connector_sync' AND EXISTS (SELECT FROM _flohsync.app_user u WHERE u.id = i.user_id)
    RETURNING 1
  )
  SELECT count(*), array_agg(p.id),
         array_agg(_flohsync.changed_record(p.id, p.external_id, p.display_name, p.email, 'removed',
                                            m.user_id, m.match_status)
                   ORDER BY p.external_id) FILTER (WHERE _tell),
         array_agg(p.external_id) FILTER (WHERE _caching), array_agg(p.record_no)
    INTO n, removed, gone, _keys, _nums
    FROM purged p LEFT JOIN flohsync.connector_sync_match m ON m.connector_resource_id = p.id;
  PERFORM _flohsync.records_changed(_connector, _type, 'removed', removed, _keys, false, _nums);
  PERFORM _flohsync.forget_departures(_ids);
  SELECT * INTO c FROM flohsync.connector_sync_config x WHERE x.connector_id = _connector AND x.resource_type = _type;
  IF gone IS NOT NULL AND _flohsync.triggers_per_record(c) THEN
    did := _flohsync.in_halves('workflow', c, _run, cardinality(gone), 0, NULL, NULL, NULL, gone);
    -- A record of which the workflow cannot be told goes all the same.
    PERFORM _flohsync.note_setbacks('workflow', c, _run, NULL, NULL,
                                    array_agg(gone[f.nr] ->> 'externalId' ORDER BY f.i),
                                    array_agg(f.state ORDER BY f.i), array_agg(f.message ORDER BY f.i))
       FROM unnest(did.failed, did.states, did.messages) WITH ORDINALITY AS f(nr, state, message, i);
  END IF;
  RETURN n;
END
$$;

CREATE OR REPLACE FUNCTION _flohsync.metric_samples() RETURNS TABLE (family text, labels text, value numeric)
LANGUAGE sql STABLE
BEGIN ATOMIC
  WITH job AS (
    SELECT pg_catalog.concat_ws(',', _flohsync.metric_label('connector', d.name),
                                _flohsync.metric_label('resource_type', c.resource_type)) AS labels,
           c.*, d.enabled AND c.enabled AND d.home = (SELECT _flohsync.home()) AS scheduled,
           _flohsync.next_due(c) AS next_due, d.enabled AS connector_enabled
      FROM flohsync.connector_sync_config c JOIN flohsync.connector_definition d ON d.id = c.connector_id
  -- By the indexes of the open runs and of those that are held: not all runs of a configuration are read.
  ), open_runs AS (
    SELECT r.connector_id, r.resource_type, r.status, pg_catalog.count(*) AS n FROM flohsync.sync_run r
     WHERE r.status IN ('queued', 'running') GROUP BY 1, 2, 3
    UNION ALL
    SELECT r.connector_id, r.resource_type, r.status, pg_catalog.count(*) FROM flohsync.sync_run r
     WHERE r.status = 'held' GROUP BY 1, 2, 3)
  SELECT 'flohsync_info',
    _flohsync.metric_label('version', (SELECT e.extversion FROM pg_catalog.pg_extension e
                                       WHERE e.extname = 'flohsync')), 1::numeric
  UNION ALL SELECT 'flohsync_launcher_up', NULL,
    (SELECT pg_catalog.count(*) FROM flohsync.processes() p WHERE p.kind = 'flohsync launcher')
  UNION ALL SELECT 'flohsync_workers', NULL,
    (SELECT pg_catalog.count(*) FROM flohsync.processes() p WHERE p.kind = 'flohsync worker')
  UNION ALL SELECT 'flohsync_workers_limit', NULL, pg_catalog.current_setting('flohsync.max_workers', true)::numeric
  UNION ALL SELECT 'flohsync_enabled', NULL,
    (pg_catalog.current_setting('flohsync.enabled', true) IS DISTINCT FROM 'off')::int
  UNION ALL SELECT 'flohsync_scheduled', j.labels, (j.scheduled AND NOT j.parked)::int FROM job j
  UNION ALL SELECT 'flohsync_parked', j.labels, j.parked::int FROM job j
  UNION ALL SELECT 'flohsync_schedule_unusable', j.labels, (j.schedule_error IS NOT NULL)::int FROM job j
  UNION ALL SELECT 'flohsync_retries', j.labels, j.retries FROM job j
  UNION ALL SELECT 'flohsync_next_run_timestamp_seconds', j.labels, extract(epoch FROM j.next_due) FROM job j
    WHERE j.connector_enabled
  UNION ALL SELECT 'flohsync_last_run_timestamp_seconds', j.labels, extract(epoch FROM j.last_sync_at) FROM job j
  UNION ALL SELECT 'flohsync_last_success_timestamp_seconds', j.labels, extract(epoch FROM j.last_success_at) FROM job j
  UNION ALL SELECT 'flohsync_last_full_pass_timestamp_seconds', j.labels, extract(epoch FROM j.last_full_pass_at)
    FROM job j
  UNION ALL SELECT 'flohsync_last_complete_pass_timestamp_seconds', j.labels, extract(epoch FROM j.last_complete_at)
    FROM job j
  UNION ALL SELECT 'flohsync_last_pass_incomplete', j.labels, (j.incomplete_reason IS NOT NULL)::int FROM job j
  UNION ALL SELECT 'flohsync_last_run_failed', j.labels, (j.last_sync_status = 'error')::int FROM job j
  UNION ALL SELECT 'flohsync_last_run_duration_seconds', j.labels, (j.last_sync_stats ->> 'durationMs')::numeric / 1000
    FROM job j
  UNION ALL SELECT 'flohsync_open_runs', j.labels || ',' || _flohsync.metric_label('status', s.status),
      coalesce(o.n, 0)
    FROM job j CROSS JOIN pg_catalog.unnest(ARRAY['queued', 'running', 'held']) AS s(status)
    LEFT JOIN open_runs o ON o.connector_id = j.connector_id AND o.resource_type = j.resource_type
     AND o.status = s.status
  UNION ALL SELECT 'flohsync_runs_total', j.labels || ',' || _flohsync.metric_label('status', s.status),
    coalesce((j.totals ->> s.status)::numeric, 0)
    FROM job j, pg_catalog.unnest(ARRAY['success', 'error', 'cancelled', 'held']) AS s(status)
  UNION ALL SELECT 'flohsync_records_total', j.labels || ',' || _flohsync.metric_label('outcome', s.outcome),
    coalesce((j.totals ->> s.outcome)::numeric, 0)
    FROM job j, (SELECT c.counter FROM _flohsync.page_counters() c WHERE c.in_metrics
                 UNION ALL SELECT o.name FROM (VALUES ('staled'), ('removed')) o(name)) AS s(outcome)
  UNION ALL SELECT 'flohsync_upstream_records_total', j.labels,
    coalesce((j.totals ->> 'totalUpstreamRecords')::numeric, 0) FROM job j
  UNION ALL SELECT 'flohsync_upstream_bytes_total', j.labels, coalesce((j.totals ->> 'bytes')::numeric, 0) FROM job j
  UNION ALL SELECT 'flohsync_users_total', j.labels || ',' || _flohsync.metric_label('action', s.action),
    coalesce((j.totals ->> s.key)::numeric, 0)
    FROM job j, (VALUES ('created', 'usersCreated'), ('deactivated', 'usersDeactivated'),
                 ('reactivated', 'usersReactivated')) AS s(action, key)
  UNION ALL SELECT 'flohsync_profiles_updated_total', j.labels, coalesce((j.totals ->> 'profilesUpdated')::numeric, 0)
    FROM job j
  UNION ALL SELECT 'flohsync_workflow_jobs', _flohsync.metric_label('status', s.status),
                   (SELECT pg_catalog.count(*) FROM flohsync.workflow_job w WHERE w.status = s.status)
    FROM pg_catalog.unnest(ARRAY['queued', 'running', 'failed']) AS s(status)
  UNION ALL SELECT 'flohsync_cache_outbox', NULL, (SELECT pg_catalog.count(*) FROM _flohsync.cache_outbox)
  UNION ALL SELECT m.family, m.labels, m.value FROM _flohsync.cache_metrics() m
  UNION ALL SELECT 'flohsync_pages_total', j.labels, coalesce((j.totals ->> 'pagesProcessed')::numeric, 0) FROM job j
  UNION ALL SELECT 'flohsync_run_seconds_total', j.labels, coalesce((j.totals ->> 'durationMs')::numeric, 0) / 1000
    FROM job j;
END;

CREATE OR REPLACE FUNCTION flohsync.metrics() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- One statement, whose plan a session that is asked again keeps.
  RETURN (
  WITH family (position, name, type, help) AS (VALUES
    (1, 'flohsync_info', 'gauge', 'Version of the extension'),
    (2, 'flohsync_launcher_up', 'gauge', 'Whether the launcher is running'),
    (3, 'flohsync_workers', 'gauge', 'Workers in the cluster'),
    (4, 'flohsync_workers_limit', 'gauge', 'Maximum number of workers (flohsync.max_workers)'),
    (5, 'flohsync_enabled', 'gauge', 'Whether workers are enabled (flohsync.enabled)'),
    (6, 'flohsync_scheduled', 'gauge', 'Whether schedules of the configuration are enabled'),
    (7, 'flohsync_parked', 'gauge', 'Whether schedules are suspended because runs crashed their worker'),
    (27, 'flohsync_schedule_unusable', 'gauge',
     'Whether the schedules cannot be used, for example because of an unknown time zone'),
    (8, 'flohsync_retries', 'gauge', 'Number of retries of the failed scheduled run'),
    (9, 'flohsync_next_run_timestamp_seconds', 'gauge', 'When the next run is due'),
    (10, 'flohsync_last_run_timestamp_seconds', 'gauge', 'End of the last run'),
    (11, 'flohsync_last_success_timestamp_seconds', 'gauge', 'End of the last run that succeeded'),
    (12, 'flohsync_last_full_pass_timestamp_seconds', 'gauge', 'Start of the last complete full pass'),
    (25, 'flohsync_last_complete_pass_timestamp_seconds', 'gauge', 'End of the last run whose pass was complete'),
    (26, 'flohsync_last_pass_incomplete', 'gauge', 'Whether the pass of the last run was not complete'),
    (13, 'flohsync_last_run_failed', 'gauge', 'Whether the last run failed or is held'),
    (14, 'flohsync_last_run_duration_seconds', 'gauge', 'Duration of the last run'),
    (15, 'flohsync_open_runs', 'gauge', 'Runs that are queued, running, or held for a decision'),
    (16, 'flohsync_runs_total', 'counter', 'Runs that ended, by status'),
    (17, 'flohsync_records_total', 'counter', 'Records, by what a run did with them'),
    (18, 'flohsync_upstream_records_total', 'counter', 'Records received from the upstream'),
    (19, 'flohsync_upstream_bytes_total', 'counter', 'Bytes received from the upstream'),
    (20, 'flohsync_pages_total', 'counter', 'Pages applied'),
    (21, 'flohsync_run_seconds_total', 'counter', 'Time spent in runs'),
    (22, 'flohsync_users_total', 'counter', 'Users, by what a run did with them'),
    (23, 'flohsync_profiles_updated_total', 'counter', 'Profiles in which a run wrote something'),
    (24, 'flohsync_workflow_jobs', 'gauge', 'Workflow jobs, by status'),
    (40, 'flohsync_cache_reads_total', 'counter',
     'Reads of the cache since the server started, by outcome; bypassed: Redis was not asked'),
    (41, 'flohsync_cache_stores_total', 'counter',
     'Values stored in the cache, and those not stored because the record was invalidated meanwhile'),
    (42, 'flohsync_cache_waits_total', 'counter', 'Reads that waited for a concurrent fetch of the same value'),
    (43, 'flohsync_cache_poisoned_total', 'counter', 'Invalid values found in Redis and removed'),
    (44, 'flohsync_cache_errors_total', 'counter', 'Failed commands and error replies of Redis'),
    (45, 'flohsync_cache_invalidations_total', 'counter', 'Records invalidated in Redis'),
    (46, 'flohsync_cache_clears_total', 'counter',
     'Invalidations of all records of a type, a connector or the database'),
    (47, 'flohsync_cache_outbox', 'gauge', 'Invalidations not yet delivered to Redis'),
    (48, 'flohsync_cache_breaker_open', 'gauge', 'Whether the circuit breaker for Redis is open'),
    (49, 'flohsync_cache_breaker_opened_total', 'counter', 'Number of times that the circuit breaker opened'))
  SELECT pg_catalog.string_agg(
           pg_catalog.format(E'# HELP %1$s %2$s\n# TYPE %1$s %3$s\n%4$s', f.name, f.help, f.type, s.lines), ''
             ORDER BY f.position)
    FROM family f
    JOIN (SELECT m.family, pg_catalog.string_agg(
                   m.family || coalesce('{' || m.labels || '}', '') || ' ' || pg_catalog.trim_scale(m.value) || E'\n',
                     '' ORDER BY m.labels) AS lines
            FROM _flohsync.metric_samples() m WHERE m.value IS NOT NULL
           GROUP BY m.family) s ON s.family = f.name);
END
$$;
-- End of many configurations, long histories.

-- What follows a pass: batches, plans by indexes, the pass of a configuration that is gone.
CREATE TABLE _flohsync.former_pass (
  connector_id  uuid NOT NULL REFERENCES flohsync.connector_definition ON DELETE CASCADE,
  resource_type varchar(64) COLLATE "C" NOT NULL,
  confirmed_at  timestamptz NOT NULL,
  PRIMARY KEY (connector_id, resource_type)
);
COMMENT ON TABLE _flohsync.former_pass IS 'Last complete full passes of configurations that were deleted';
COMMENT ON COLUMN _flohsync.former_pass.connector_id IS 'Connector';
COMMENT ON COLUMN _flohsync.former_pass.resource_type IS 'Resource type';
COMMENT ON COLUMN _flohsync.former_pass.confirmed_at IS
  'Start of the pass, which confirmed the records that are there and were not stale';
SELECT pg_catalog.pg_extension_config_dump('_flohsync.former_pass', '');

DROP FUNCTION _flohsync.purgeable(uuid, text, interval, bigint, bigint);
DROP FUNCTION _flohsync.purge_singly(flohsync.connector_sync_config, bigint, bigint);
DROP FUNCTION _flohsync.is_blank(jsonb);
DROP FUNCTION _flohsync.profile_value(flohsync.user_profile, text);
DROP FUNCTION _flohsync.profile_run(text, uuid[], jsonb[], text);
DROP FUNCTION _flohsync.records_sql(flohsync.connector_sync_config, boolean);
DROP FUNCTION _flohsync.in_halves(text, flohsync.connector_sync_config, bigint, int, int, uuid[], text[], text[],
                                  jsonb[]);
DROP FUNCTION _flohsync.map_sql(flohsync.connector_sync_config);
DROP FUNCTION _flohsync.map_cached(text, uuid, text, flohsync.connector_sync_config, bigint, uuid[], uuid);
DROP FUNCTION _flohsync.records_confirmed(uuid[], timestamptz);

CREATE FUNCTION _flohsync.confirmed_at(_connector uuid, _type text) RETURNS timestamptz
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN greatest((SELECT c.last_full_pass_at FROM flohsync.connector_sync_config c
                  WHERE c.connector_id = _connector AND c.resource_type = _type),
                (SELECT f.confirmed_at FROM _flohsync.former_pass f
                  WHERE f.connector_id = _connector AND f.resource_type = _type));
COMMENT ON FUNCTION _flohsync.confirmed_at(uuid, text) IS
  'Start of the last complete full pass over a resource type, which confirmed all records that are not stale; null: '
  'none; src/record/rules.h has the same for statements in C';

CREATE OR REPLACE VIEW flohsync.connector_resource AS
SELECT r.id, r.connector_id, r.resource_type, r.external_id, r.display_name, r.email,
       r.attributes, r.sync_hash, r.stale_since,
       CASE WHEN r.stale_since IS NULL THEN greatest(r.observed_at, c.last_full_pass_at, f.confirmed_at)
            ELSE r.observed_at END AS synced_at,
       r.created_at
  FROM flohsync.resource_record r
  LEFT JOIN flohsync.connector_sync_config c
    ON c.connector_id = r.connector_id AND c.resource_type = r.resource_type
  LEFT JOIN _flohsync.former_pass f ON f.connector_id = r.connector_id AND f.resource_type = r.resource_type;

CREATE OR REPLACE FUNCTION _flohsync.settle_synced_at() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF OLD.last_full_pass_at IS NOT NULL
     AND EXISTS (SELECT FROM flohsync.connector_definition d WHERE d.id = OLD.connector_id) THEN
    INSERT INTO _flohsync.former_pass AS f (connector_id, resource_type, confirmed_at)
    VALUES (OLD.connector_id, OLD.resource_type, OLD.last_full_pass_at)
    ON CONFLICT (connector_id, resource_type) DO UPDATE
       SET confirmed_at = greatest(f.confirmed_at, EXCLUDED.confirmed_at);
  END IF;
  RETURN OLD;
END
$$;
COMMENT ON FUNCTION _flohsync.settle_synced_at() IS
  'Keeps the time of the last complete full pass of a configuration that is being deleted, on which synced_at leans';

CREATE OR REPLACE FUNCTION flohsync.mark_stale(connector text, resource_type text, not_seen_since timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _connector uuid := _flohsync.hold_connector(connector);
  _type text := _flohsync.check_resource_type(mark_stale.resource_type);
  _full timestamptz := _flohsync.confirmed_at(_connector, _type);
  _seen bytea;
BEGIN
  IF not_seen_since IS NULL THEN
    PERFORM _flohsync.invalid('not_seen_since', 'it must not be null');
  END IF;
  -- A run that has seen a record unchanged has not written it.
  _seen := _flohsync.seen_since(_connector, _type, not_seen_since, 0);
  RETURN _flohsync.records_staled(_connector, _type, ARRAY(
    SELECT x.id FROM flohsync.resource_record x
     WHERE x.connector_id = _connector AND x.resource_type = _type
       AND x.stale_since IS NULL AND greatest(x.observed_at, _full) < not_seen_since
       AND NOT _flohsync.ledger_has(_seen, x.record_no)
     ORDER BY x.external_id FOR NO KEY UPDATE), _full);
END
$$;
COMMENT ON FUNCTION flohsync.mark_stale(text, text, timestamptz) IS
  'Marks the records stale that were last confirmed before a time; returns their number';

CREATE FUNCTION _flohsync.awaits_deactivation(_connector uuid, _type text) RETURNS uuid[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN ARRAY(
    SELECT s.resource_id FROM _flohsync.setback s JOIN flohsync.connector_sync_config c ON c.id = s.config_id
     WHERE c.connector_id = _connector AND c.resource_type = _type AND c.deactivate_users AND s.stage = 'deactivate');
END
$$;
COMMENT ON FUNCTION _flohsync.awaits_deactivation(uuid, text) IS
  'Records from which a run knows which users it still has to deactivate';

CREATE FUNCTION _flohsync.purgeable(_connector uuid, _type text, _retention interval, _limit bigint, _run bigint,
                                    _at_random boolean DEFAULT false)
  RETURNS uuid[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan  -- with ids, or without
AS $$
DECLARE
  due constant timestamptz := clock_timestamp() - _retention;
  awaited constant uuid[] := CASE WHEN _run IS NULL THEN '{}' ELSE _flohsync.awaits_deactivation(_connector, _type) END;
  chosen uuid[];
BEGIN
  IF _at_random THEN
    chosen := ARRAY(SELECT x.id FROM flohsync.resource_record x
                     WHERE x.connector_id = _connector AND x.resource_type = _type AND x.stale_since < due
                     ORDER BY random() LIMIT _limit);
  END IF;
  RETURN ARRAY(
    SELECT x.id FROM flohsync.resource_record x
     WHERE x.connector_id = _connector AND x.resource_type = _type AND x.stale_since < due
       AND x.id <> ALL (awaited) AND (chosen IS NULL OR x.id = ANY (chosen))
     LIMIT _limit FOR UPDATE SKIP LOCKED);
END
$$;
COMMENT ON FUNCTION _flohsync.purgeable(uuid, text, interval, bigint, bigint, boolean) IS
  'Locks at most a number of records that have been stale for longer than an interval, and returns their ids';

CREATE OR REPLACE FUNCTION _flohsync.settle_pass(_run bigint, _complete boolean, _except text[] DEFAULT NULL,
  OUT held boolean, OUT staled bigint, OUT active bigint, OUT message text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
  c flohsync.connector_sync_config;
  gone record;
  full_pass boolean;
  max_fraction numeric;
  min_records numeric;
BEGIN
  PERFORM _flohsync.lock_config(_run);
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  SELECT * INTO STRICT c FROM flohsync.connector_sync_config x
   WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type;
  held := false;
  full_pass := r.strategy = 'full' AND _complete;
  -- This pass says what an older, held one wanted to.
  IF full_pass THEN
    PERFORM _flohsync.supersede_held(r.connector_id, r.resource_type, _run);
  END IF;
  IF full_pass AND r.status <> 'held' AND _flohsync.pass_is_as_before(_run) THEN
    staled := 0;
    UPDATE flohsync.connector_sync_config x
       SET last_full_pass_at = greatest(x.last_full_pass_at, r.pass_started_at)
     WHERE x.id = c.id;
    RETURN;
  END IF;
  IF full_pass AND r.status <> 'held' AND _except IS NULL AND _flohsync.pass_misses_nothing(_run) THEN
    staled := 0;
    UPDATE flohsync.connector_sync_config x
       SET last_full_pass_at = greatest(x.last_full_pass_at, r.pass_started_at)
     WHERE x.id = c.id;
    PERFORM _flohsync.keep_page_prints(_run);
    RETURN;
  END IF;
  gone := _flohsync.gone_records(_run, _complete);
  active := gone.active;
  staled := cardinality(gone.ids);

  -- A held run that comes back here was approved: only then is the guard open.
  max_fraction := (c.safeguards ->> 'maxStaleFraction')::numeric;
  min_records := coalesce((c.safeguards ->> 'minRecords')::numeric, 0);
  IF staled > 0 AND r.status <> 'held' THEN
    IF full_pass AND NOT EXISTS (SELECT FROM _flohsync.pass_pages(r.pass_id) l WHERE l.records > 0) THEN
      held := true;
      message := format('the upstream gave no record at all: would mark all %s active records stale', staled);
    ELSIF staled > max_fraction * active AND staled > min_records THEN
      held := true;
      message := format('would mark %s of %s active records stale (%s %%), more than the safeguard of %s %% allows',
                        staled, active, round(100.0 * staled / active, 1), round(100 * max_fraction, 1));
    END IF;
  END IF;
  IF held THEN
    IF c.deactivate_users THEN
      SELECT concat(message, '; ', count(DISTINCT u.id), ' users have such a record') INTO message
        FROM unnest(gone.ids) x(id)
        JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id
            AND m.match_status IN ('matched', 'manual_override')
        JOIN _flohsync.app_user u ON u.id = m.user_id AND coalesce(u.active, true);
    END IF;
    staled := 0;
    RETURN;
  END IF;

  IF staled > 0 THEN
    staled := _flohsync.records_staled(r.connector_id, r.resource_type, ARRAY(
      -- Whatever has been observed since that was decided is there.
      SELECT x.id FROM flohsync.resource_record x JOIN unnest(gone.ids, gone.observed) g(id, observed_at) ON g.id = x.id
       WHERE x.stale_since IS NULL AND (x.observed_at <= g.observed_at OR x.observed_at < r.pass_started_at)
         AND (_except IS NULL OR x.external_id NOT IN (SELECT e.id FROM unnest(_except) e(id) WHERE e.id IS NOT NULL))
       ORDER BY x.external_id FOR NO KEY UPDATE OF x), _flohsync.confirmed_at(r.connector_id, r.resource_type));
    UPDATE flohsync.sync_run x SET staled = x.staled + settle_pass.staled WHERE x.id = _run;
  END IF;
  -- Spared records were not confirmed by this pass.
  IF full_pass AND _except IS NULL THEN
    UPDATE flohsync.connector_sync_config x
       SET last_full_pass_at = greatest(x.last_full_pass_at, r.pass_started_at)
     WHERE x.id = c.id;
    -- A run that was held is over: whatever it has seen is not noted any more.
    IF r.status <> 'held' THEN
      PERFORM _flohsync.keep_page_prints(_run);
    END IF;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.settle_pass(bigint, boolean, text[]) IS
  'Marks the records stale that are missing or deleted according to a pass, except some external ids, '
  'unless a safeguard holds the run';

CREATE FUNCTION _flohsync.purge_in_halves(c flohsync.connector_sync_config, _run bigint, _limit bigint,
                                          OUT removed bigint, OUT refused bigint, OUT message text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  too_many constant int := 200;  -- so many that are refused end it: each takes subtransactions
  -- At random: those that can never go must not stand before the others in each run.
  ids uuid[] := _flohsync.purgeable(c.connector_id, c.resource_type, _flohsync.duration(c.stale_retention), _limit,
                                    _run, true);
  -- Ranges that are to be tried, the last one first.
  lows int[] := ARRAY[1];
  highs int[] := ARRAY[cardinality(ids)];
  low int;
  high int;
BEGIN
  removed := 0;
  refused := 0;
  WHILE cardinality(lows) > 0 AND refused < too_many LOOP
    low := lows[cardinality(lows)];
    high := highs[cardinality(highs)];
    lows := trim_array(lows, 1);
    highs := trim_array(highs, 1);
    CONTINUE WHEN low > high;
    BEGIN
      removed := removed + _flohsync.records_removed(c.connector_id, c.resource_type, ids[low:high], true, _run);
    EXCEPTION WHEN integrity_constraint_violation THEN
      IF low < high THEN
        lows := lows || ARRAY[(low + high) / 2 + 1, low];
        highs := highs || ARRAY[high, (low + high) / 2];
      ELSE
        refused := refused + 1;
        message := _flohsync.clean(SQLERRM);
      END IF;
    END;
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.purge_in_halves(flohsync.connector_sync_config, bigint, bigint) IS
  'Purges records, some of a batch of which cannot be deleted because foreign tables refer to them, in halves until '
  'these are alone; returns how many were, and why';

CREATE OR REPLACE FUNCTION _flohsync.purge_run(_run bigint, _limit bigint) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  n bigint;
  c flohsync.connector_sync_config := _flohsync.keep_config(_run);
  halves record;
BEGIN
  PERFORM _flohsync.share_matching(c.connector_id, c.resource_type);
  -- While it is not known who has to be deactivated, the records that tell it stay.
  BEGIN
    SELECT _flohsync.purge(c.connector_id, c.resource_type, _flohsync.duration(c.stale_retention), _limit, _run) INTO n
      FROM flohsync.sync_run r
     WHERE r.id = _run AND c.id IS NOT NULL
       AND NOT (c.deactivate_users
                AND coalesce(jsonb_path_exists(r.post_sync, '$.errors[*] ? (!exists(@.externalId))'), false));
  EXCEPTION WHEN integrity_constraint_violation THEN
    halves := _flohsync.purge_in_halves(c, _run, _limit);
    n := halves.removed;
    IF halves.refused > 0 THEN
      PERFORM _flohsync.stage_failed(_run, 'purge', '23503',
                                     format('%s records cannot be purged: %s', halves.refused, halves.message));
    END IF;
  WHEN OTHERS THEN
    IF _flohsync.passes(SQLSTATE) THEN
      RAISE;
    END IF;
    -- A workflow that nobody can tell of anything: the next run purges them.
    PERFORM _flohsync.stage_failed(_run, 'purge', SQLSTATE, SQLERRM);
  END;
  IF n > 0 THEN
    UPDATE flohsync.sync_run r SET removed = r.removed + n WHERE r.id = _run;
  END IF;
  RETURN coalesce(n, 0);
END
$$;
COMMENT ON FUNCTION _flohsync.purge_run(bigint, bigint) IS 'Purges one batch of old stale records on behalf of a run';

CREATE OR REPLACE FUNCTION _flohsync.match_key(_text text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'flohsync_match_key';
COMMENT ON FUNCTION _flohsync.match_key(text) IS
  'A text without surrounding white space and with ASCII letters in lower case, nothing else '
  'folded; null when it is empty';

CREATE OR REPLACE FUNCTION _flohsync.profile_changes(_p flohsync.user_profile, _patch jsonb) RETURNS jsonb
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_profile_changes';
COMMENT ON FUNCTION _flohsync.profile_changes(flohsync.user_profile, jsonb) IS
  'Changes of a profile (null: none yet) by a patch of _profile_update, as field and value; null when nothing changes';

CREATE FUNCTION _flohsync.profile_sources(_changes jsonb, _source text) RETURNS jsonb
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_profile_sources';
COMMENT ON FUNCTION _flohsync.profile_sources(jsonb, text) IS
  'What attribute_sources says of the fields of profile_changes(): each has a source';

CREATE OR REPLACE FUNCTION _flohsync.profile_cached(_sql text, _users uuid[], _patches jsonb[], _source text) RETURNS uuid[]
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'flohsync_execute_cached_plan';
COMMENT ON FUNCTION _flohsync.profile_cached(text, uuid[], jsonb[], text) IS
  'Runs a statement of _profile_update, which returns one array of users, with a cached plan by indexes';

CREATE FUNCTION _flohsync.profile_new(_user uuid, _patch jsonb, _source text) RETURNS flohsync.user_profile
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_profile_new';
COMMENT ON FUNCTION _flohsync.profile_new(uuid, jsonb, text) IS
  'The profile that a patch of _profile_update makes of none; null when nothing is to be written';

-- The users whose profile is made are locked first, as the foreign key would, in the order of their ids.
CREATE FUNCTION _flohsync.profile_insert(_users uuid[], _patches jsonb[], _source text) RETURNS uuid[]
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_profile_insert';
COMMENT ON FUNCTION _flohsync.profile_insert(uuid[], jsonb[], text) IS
  'Writes the profiles of those of some users who have none, and returns whose it wrote; null when none';

-- An application may have put its own there.
DO $step$
BEGIN
  IF (SELECT md5(p.prosrc) FROM pg_proc p WHERE p.oid = 'flohsync._profile_update(uuid[], jsonb[], text)'::regprocedure)
      = '85619a0d0f4700eac5ef3cdc419e3208' THEN
    EXECUTE $create$
CREATE OR REPLACE FUNCTION flohsync._profile_update(_users uuid[], _patches jsonb[], _source text) RETURNS SETOF uuid
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  done uuid[];
BEGIN
  -- New profiles; one that is inserted concurrently counts as existing.
  done := _flohsync.profile_insert(_users, _patches, _source);
  IF done IS NOT NULL THEN
    RETURN QUERY SELECT unnest(done);
    IF cardinality(done) = cardinality(_users) THEN
      RETURN;
    END IF;
    SELECT array_agg(u.user_id), array_agg(u.patch) INTO _users, _patches
      FROM unnest(_users, _patches) AS u(user_id, patch)
     WHERE u.user_id NOT IN (SELECT d.id FROM unnest(done) AS d(id));
  END IF;
  IF _users IS NULL THEN
    RETURN;
  END IF;

  -- What is to be written is found from the row as it is once it is locked:
  -- concurrent changes count.
  done := _flohsync.profile_cached($sql$
    SELECT array_agg(l.user_id)
      FROM (SELECT p.user_id FROM flohsync.user_profile p
             WHERE p.user_id IN (SELECT u.user_id FROM unnest($1, $2) AS u(user_id, patch)
                                   JOIN flohsync.user_profile q ON q.user_id = u.user_id
                                  WHERE _flohsync.profile_changes(q, u.patch) IS NOT NULL) AND $3 IS NOT NULL
             ORDER BY p.user_id FOR NO KEY UPDATE) l
    $sql$, _users, _patches, _source);
  IF done IS NULL THEN
    RETURN;
  END IF;
  RETURN QUERY SELECT unnest(_flohsync.profile_cached($sql$
    WITH done AS (
      UPDATE flohsync.user_profile p
         SET title = CASE WHEN c.new ? 'title' THEN c.new ->> 'title' ELSE p.title END,
             department = CASE WHEN c.new ? 'department' THEN c.new ->> 'department' ELSE p.department END,
             phone_number = CASE WHEN c.new ? 'phoneNumber' THEN c.new ->> 'phoneNumber' ELSE p.phone_number END,
             location = CASE WHEN c.new ? 'location' THEN c.new ->> 'location' ELSE p.location END,
             employee_id = CASE WHEN c.new ? 'employeeId' THEN c.new ->> 'employeeId' ELSE p.employee_id END,
             cost_center = CASE WHEN c.new ? 'costCenter' THEN c.new ->> 'costCenter' ELSE p.cost_center END,
             start_date = CASE WHEN c.new ? 'startDate' THEN (c.new ->> 'startDate')::date ELSE p.start_date END,
             manager_id = CASE WHEN c.new ? 'managerId' THEN (c.new ->> 'managerId')::uuid ELSE p.manager_id END,
             custom_attributes = p.custom_attributes
               || (c.new - '{title,department,phoneNumber,location,employeeId,costCenter,startDate,managerId}'::text[]),
             attribute_sources = p.attribute_sources || _flohsync.profile_sources(c.new, $3), updated_at = now()
        FROM (SELECT q.user_id, _flohsync.profile_changes(q, u.patch) AS new
                FROM unnest($1, $2) AS u(user_id, patch)
                JOIN flohsync.user_profile q ON q.user_id = u.user_id
              OFFSET 0) c  -- so that "new" is computed once
       WHERE c.new IS NOT NULL AND p.user_id = c.user_id
      RETURNING p.user_id
    )
    SELECT array_agg(d.user_id) FROM done d
    $sql$, _users, _patches, _source));
END
$$
    $create$;
  END IF;
END
$step$;

CREATE FUNCTION _flohsync.records_sql(_c flohsync.connector_sync_config, _condition text) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN format($sql$
  SELECT x.id, x.external_id, x.display_name, x.email, x.stale_since IS NOT NULL AS stale,
         _flohsync.match_key(x.email) COLLATE "C" AS email_key, _flohsync.match_key(%s #>> '{}') COLLATE
           "C" AS issuer_key
    FROM flohsync.resource_record x
   WHERE %s$sql$,
    _flohsync.source_sql(coalesce(_c.issuer_source_path, 'attributes.identityIssuer')), _condition);
END
$$;
COMMENT ON FUNCTION _flohsync.records_sql(flohsync.connector_sync_config, text) IS
  'SQL for the records x of a condition, with their match keys';

CREATE FUNCTION _flohsync.probes_sql(_strategies text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  s record;
  gate text := '';
  probes text := '';
  which text := '';
BEGIN
  -- Each once, however long the list: one that is repeated finds nobody else.
  FOR s IN SELECT min(t.step) AS step, m.condition
             FROM unnest(_strategies) WITH ORDINALITY AS t(name, step)
             JOIN _flohsync.match_strategies() m ON m.strategy = t.name
            GROUP BY m.strategy, m.condition ORDER BY 1 LOOP
    probes := probes || format(' CROSS JOIN LATERAL (SELECT cardinality(e.users)::bigint AS hits, e.users FROM (SELECT'
                               ' ARRAY(SELECT u.id FROM _flohsync.app_user u WHERE %s%s) AS users OFFSET 0) e) s%s',
                               gate, s.condition, s.step);
    which := which || format(' WHEN s%s.hits > 0 THEN s%1$s.', s.step);
    gate := gate || format('s%s.hits = 0 AND ', s.step);
  END LOOP;
  RETURN format('%s CROSS JOIN LATERAL (SELECT CASE%s END, CASE%s END, CASE%s END) b(step, hits, users)', probes,
                regexp_replace(which, 'THEN s(\d+)\.', 'THEN \1', 'g'), regexp_replace(which, '\.(?= WHEN|$)', '.hits',
                'g'), regexp_replace(which, '\.(?= WHEN|$)', '.users', 'g'));
END
$$;
COMMENT ON FUNCTION _flohsync.probes_sql(text[]) IS
  'SQL that joins a record r to what the first strategy that finds users for it has found: b (step, hits, users)';

CREATE FUNCTION _flohsync.match_sql(_c flohsync.connector_sync_config, _probing boolean, _all boolean) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  strategies text[] := _flohsync.strategies(_c);
BEGIN
  RETURN format($sql$
  WITH %1$s known AS (
    SELECT r.id, r.external_id, r.display_name, r.email, r.email_key, r.stale, b.step, b.hits, b.users,
           m.id AS match_id, m.match_status AS status, m.match_confidence AS confidence, m.match_strategy AS strategy,
           m.user_id, m.candidate_user_ids AS candidates, k.user_id AS back_user,
           CASE WHEN m.match_status IN ('manual_override', 'skipped') THEN true
                WHEN m.match_status = 'matched' AND (m.match_strategy IS NULL OR r.stale)
                  THEN CASE WHEN EXISTS (SELECT FROM _flohsync.app_user u WHERE u.id = m.user_id)
                    THEN m.match_strategy IS NULL ELSE r.stale END
                ELSE false END AS stays
      FROM %2$s
      LEFT JOIN flohsync.connector_sync_match m ON m.connector_resource_id = r.id
    OFFSET 0  -- so that "stays" is computed once
  ), outcome AS (
    SELECT o.id, o.external_id, o.display_name, o.email, o.match_id, o.user_id AS old_user,
      o.status AS old_status, o.stays,
           CASE WHEN o.stays THEN o.status WHEN o.hits = 1 THEN 'matched' WHEN o.hits > 1 THEN 'ambiguous'
                WHEN o.back_user IS NOT NULL THEN 'matched'
                WHEN o.status = 'create_pending' AND $7 AND o.email_key IS NOT NULL AND NOT o.stale THEN o.status
                  ELSE 'unmatched' END AS status,
           CASE WHEN o.stays THEN o.confidence WHEN o.hits = 1 THEN CASE o.step WHEN 1 THEN 'exact' ELSE 'probable' END
                WHEN o.hits > 1 THEN 'ambiguous' WHEN o.back_user IS NOT NULL THEN 'exact'
                  ELSE 'none' END AS confidence,
           CASE WHEN o.stays THEN o.strategy WHEN o.hits > 0 THEN $6[o.step] END AS strategy,
           CASE WHEN o.stays THEN o.user_id WHEN o.hits = 1 THEN o.users[1] WHEN o.hits IS NULL THEN o.back_user
             END AS user_id,
           CASE WHEN o.stays THEN o.candidates
                WHEN o.hits > 1 THEN
                  (SELECT jsonb_agg(jsonb_build_object('userId', u.id, 'email', u.email, 'confidence', 'ambiguous',
                                                                          'reason', $6[o.step]) ORDER BY u.id)
                                        FROM _flohsync.app_user u
                                       WHERE u.id = ANY (ARRAY(SELECT e.id FROM unnest(o.users) e(id)
                                                               ORDER BY e.id LIMIT 100)))
                WHEN o.hits = 1 OR o.back_user IS NOT NULL THEN NULL
                WHEN o.status IN ('unmatched', 'create_pending') AND o.candidates IS NOT NULL
                  THEN (SELECT jsonb_agg(e.candidate) FROM jsonb_array_elements(o.candidates) e(candidate)
                          JOIN _flohsync.app_user u ON u.id::text = e.candidate ->> 'userId')
                -- The record had a user: that is shown to operators, and no second user is created.
                WHEN o.status = 'matched'
                  THEN (SELECT jsonb_build_array(jsonb_build_object('userId', u.id, 'email', u.email,
                                                                           'confidence', 'none', 'reason',
                                                                             'former_link'))
                                                  FROM _flohsync.app_user u WHERE u.id = o.user_id) END AS candidates
      FROM known o
  ), made AS (
    INSERT INTO flohsync.connector_sync_match AS m (connector_id, resource_type, connector_resource_id, external_id,
                                                    external_display_name,
           external_email, user_id, match_status, match_confidence, match_strategy, candidate_user_ids)
    SELECT $1, $2, o.id, o.external_id, o.display_name, o.email, o.user_id, o.status, o.confidence,
      o.strategy, o.candidates
      -- Nobody else makes one: under the lock of the matching, or with the record locked.
      FROM outcome o WHERE o.match_id IS NULL
    RETURNING m.external_id, m.user_id, m.external_email, m.external_display_name
  ), changed AS (
    UPDATE flohsync.connector_sync_match m
       SET external_id = o.external_id, external_display_name = o.display_name, external_email = o.email,
         user_id = o.user_id,
           match_status = o.status, match_confidence = o.confidence, match_strategy = o.strategy,
             candidate_user_ids = o.candidates,
           updated_at = now()
      FROM outcome o
     -- What an operator decided meanwhile stays.
     WHERE m.id = o.match_id AND m.match_status = o.old_status AND m.user_id IS NOT DISTINCT FROM o.old_user
       AND (m.external_display_name, m.external_email, m.user_id, m.match_status, m.match_confidence, m.match_strategy,
            m.candidate_user_ids)
           IS DISTINCT FROM (o.display_name, o.email, o.user_id, o.status, o.confidence, o.strategy, o.candidates)
    RETURNING m.external_id, m.user_id, m.external_email, m.external_display_name, o.old_user
  ), unlinked AS (
    DELETE FROM flohsync.user_external_identity i USING changed m
     WHERE i.user_id = m.old_user AND i.connector_id = $1 AND i.external_id = m.external_id
       AND i.source = 'connector_sync'
       AND m.old_user IS DISTINCT FROM m.user_id
    RETURNING i.user_id
  ), linked AS (
    INSERT INTO flohsync.user_external_identity AS i (user_id, connector_id, external_id, external_email,
                                                      external_display_name, source, verified_at)
    SELECT m.user_id, $1, m.external_id, m.external_email, m.external_display_name, 'connector_sync', now()
      FROM (SELECT external_id, user_id, external_email, external_display_name FROM made
            UNION ALL SELECT external_id, user_id, external_email, external_display_name FROM changed) m
     WHERE m.user_id IS NOT NULL
    ON CONFLICT (external_id, connector_id, user_id) DO UPDATE
       SET external_email = EXCLUDED.external_email, external_display_name = EXCLUDED.external_display_name,
         verified_at = now()
    RETURNING i.user_id
  )
  SELECT (SELECT count(*) FROM made) + (SELECT count(*) FROM changed),
         (SELECT array_agg(DISTINCT m.old_user) FROM changed m WHERE m.old_user IS DISTINCT FROM m.user_id
          AND m.old_user IS NOT NULL)
  $sql$,
    CASE WHEN _probing THEN '' ELSE format(
      'rec AS (%s), tally AS (SELECT h.id, h.step, count(*) AS hits, array_agg(h.user_id) AS users FROM (%s) h '
      'GROUP BY h.id, h.step), best AS (%s),',
      _flohsync.records_sql(_c, _flohsync.records_of_sql(NOT _all)), _flohsync.hits_sql(strategies),
      CASE WHEN cardinality(strategies) = 1 THEN 'SELECT * FROM tally'
           ELSE 'SELECT DISTINCT ON (t.id) t.* FROM tally t ORDER BY t.id, t.step' END) END,
    CASE WHEN _probing THEN format(
      'unnest($3, $5) AS k(id, user_id) CROSS JOIN LATERAL (%s) r %s',
      _flohsync.records_sql(_c, _flohsync.type_of_sql(true) || ' AND x.id = k.id'), _flohsync.probes_sql(strategies))
         ELSE 'rec r LEFT JOIN best b ON b.id = r.id LEFT JOIN unnest($4, $5) AS k(id, user_id) ON k.id = r.id' END);
END
$$;
COMMENT ON FUNCTION _flohsync.match_sql(flohsync.connector_sync_config, boolean, boolean) IS
  'SQL that recomputes the matches of the records $3 of connector $1 and type $2; $6: strategies, $7: createUsers; '
  'probing: each by indexes, $5 is the user with whom each of $3 came back; otherwise in joins (all: $3 is not looked '
  'at), and $4 are the records that came back with the users $5';

CREATE OR REPLACE FUNCTION _flohsync.match_cached(_sql text, _connector uuid, _type text, _ids uuid[], _back uuid[],
                                       _back_users uuid[],
  _strategies text[], _create_users boolean, OUT n bigint, OUT left_alone uuid[])
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'flohsync_execute_cached_plan';
COMMENT ON FUNCTION _flohsync.match_cached(text, uuid, text, uuid[], uuid[], uuid[], text[], boolean) IS
  'Runs the statement of match() with a cached plan, for a batch of records, with users in floh_user';

CREATE FUNCTION _flohsync.records_behind(_connector uuid, _type text, _external_id text, _limit int,
                                         OUT ids uuid[], OUT last text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_sort = off
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
BEGIN
  SELECT array_agg(t.id ORDER BY t.id), max(t.external_id) INTO ids, last
    FROM (SELECT x.id, x.external_id FROM flohsync.resource_record x
           WHERE x.connector_id = _connector AND x.resource_type = _type AND x.external_id > _external_id COLLATE "C"
           ORDER BY x.external_id LIMIT _limit) t;
END
$$;
COMMENT ON FUNCTION _flohsync.records_behind(uuid, text, text, int) IS
  'The next records of a type behind an external id, and the last of their external ids; null when there is none';

CREATE OR REPLACE FUNCTION _flohsync.match(_c flohsync.connector_sync_config, _ids uuid[], _back uuid[] DEFAULT '{}',
                                _back_users uuid[] DEFAULT '{}')
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET jit = off
SET work_mem = '16MB'
SET hash_mem_multiplier = 1
SET enable_nestloop = on
AS $$
DECLARE
  batch constant int := 10000;
  strategies constant text[] := _flohsync.strategies(_c);
  probing constant boolean := _flohsync.users_are_watched();
  statement constant text := _flohsync.match_sql(_c, probing, _ids IS NULL);
  part record;
  users uuid[];
  first int := 1;
  did record;
  n bigint := 0;
  left_alone uuid[] := '{}';
BEGIN
  IF NOT probing THEN
    -- What was just loaded has no statistics yet: all must not be taken for a few.
    PERFORM set_config('enable_nestloop', (_ids IS NOT NULL)::text, true);
    EXECUTE statement INTO n, left_alone USING _c.connector_id, _c.resource_type::text, _ids, _back, _back_users,
      strategies, _c.create_users;
  ELSE
    SELECT '' AS last, NULL::uuid[] AS ids INTO part;
    LOOP
      IF _ids IS NULL THEN
        part := _flohsync.records_behind(_c.connector_id, _c.resource_type, part.last, batch);
        EXIT WHEN part.ids IS NULL;
      ELSE
        part.ids := _ids[first:first + batch - 1];
        EXIT WHEN part.ids = '{}';
        first := first + batch;
      END IF;
      IF _back <> '{}' THEN
        users := ARRAY(SELECT k.user_id FROM unnest(part.ids) WITH ORDINALITY p(id, nr)
                       LEFT JOIN unnest(_back, _back_users) k(id, user_id) ON k.id = p.id ORDER BY p.nr);
      END IF;
      SELECT m.n, m.left_alone INTO did
        FROM _flohsync.match_cached(statement, _c.connector_id, _c.resource_type, part.ids, NULL, users, strategies,
                                    _c.create_users) m;
      n := n + did.n;
      left_alone := left_alone || did.left_alone;
    END LOOP;
  END IF;
  IF left_alone <> '{}' THEN
    PERFORM _flohsync.requeue_stale(left_alone);
  END IF;
  RETURN n;
END
$$;
COMMENT ON FUNCTION _flohsync.match(flohsync.connector_sync_config, uuid[], uuid[], uuid[]) IS
  'Recomputes the matches of some records (null: all), in batches; returns how many were made or changed';

CREATE FUNCTION _flohsync.in_halves(_stage text, _c flohsync.connector_sync_config, _run bigint,
  _n int, _known int, _users uuid[], _emails text[], _names text[], _values jsonb[], _succeeded boolean DEFAULT false,
  OUT positions int[], OUT users uuid[], OUT problems text[], OUT jobs bigint,
  OUT failed int[], OUT states text[], OUT messages text[], OUT untried int[], OUT passed_over int[])
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  again constant int := 100;      -- number of rows known to have failed that are retried in a run
  few constant int := 5;          -- so many single rows that fail make one suspicious,
  many constant int := 20;        -- where there are more than these
  too_many constant int := 1000;  -- so many that fail, but for those known to, end it
  new constant int := greatest(_n - greatest(_known, 0), 0);
  -- Ranges of rows that are to be tried, the last one first; of the rows, those known to have failed are the last ones.
  lows int[] := ARRAY[1, new + 1];
  highs int[] := ARRAY[new, least(_n, new + again)];
  low int;
  high int;
  probes int;
  succeeded boolean := _succeeded;
  lost int := 0;      -- new rows that failed
  one text;           -- SQLSTATE of the first of them
  alike boolean := true;
  did record;
BEGIN
  IF coalesce(_n, 0) <> coalesce(greatest(cardinality(_users), cardinality(_emails), cardinality(_values)), 0) THEN
    PERFORM _flohsync.invalid('_n', 'it must be the number of rows');
  END IF;
  positions := '{}';
  users := '{}';
  problems := '{}';
  jobs := 0;
  failed := '{}';
  states := '{}';
  messages := '{}';
  WHILE cardinality(lows) > 0 AND lost < too_many LOOP
    low := lows[cardinality(lows)];
    high := highs[cardinality(highs)];
    lows := trim_array(lows, 1);
    highs := trim_array(highs, 1);
    CONTINUE WHEN low > high;
    BEGIN
      did := _flohsync.call_seam(_stage, _c, _run, _users[low:high], _emails[low:high], _names[low:high],
                                 _values[low:high]);
      positions := positions || ARRAY(SELECT p.position + low - 1 FROM unnest(did.positions)
                                      WITH ORDINALITY p(position, i) ORDER BY p.i);
      users := users || did.users;
      problems := problems || did.problems;
      jobs := jobs + did.jobs;
      succeeded := true;
    EXCEPTION WHEN OTHERS THEN
      IF _flohsync.passes(SQLSTATE) THEN
        RAISE;
      ELSIF low < high THEN
        lows := lows || ARRAY[(low + high) / 2 + 1, low];
        highs := highs || ARRAY[high, (low + high) / 2];
      ELSE
        failed := failed || low;
        states := states || SQLSTATE;
        messages := messages || _flohsync.clean(SQLERRM);
        IF low <= new THEN
          lost := lost + 1;
          one := coalesce(one, SQLSTATE);
          alike := alike AND one = SQLSTATE;
        END IF;
      END IF;
    END;
    CONTINUE WHEN succeeded OR NOT alike OR lost < few OR new <= many;
    IF probes IS NULL THEN
      SELECT array_agg(r.low ORDER BY r.rank, r.i), array_agg(r.high ORDER BY r.rank, r.i),
        count(*) FILTER (WHERE r.rank = 2)
        INTO lows, highs, probes
        FROM (SELECT x.i, v.rank, v.low, v.high
                FROM unnest(lows, highs) WITH ORDINALITY AS x(low, high, i)
               CROSS JOIN LATERAL (VALUES (1, x.low, (x.low + x.high) / 2 - 1), (1, (x.low + x.high) / 2 + 1, x.high),
                                          (2, (x.low + x.high) / 2, (x.low + x.high) / 2)) v(rank, low, high)) r;
    ELSIF probes > 1 THEN
      probes := probes - 1;
    ELSE
      RAISE EXCEPTION USING ERRCODE = one, MESSAGE = _flohsync.clean(messages[cardinality(messages)]);
    END IF;
  END LOOP;
  IF NOT succeeded AND alike AND lost = new AND lost > 2 THEN
    RAISE EXCEPTION USING ERRCODE = one, MESSAGE = _flohsync.clean(messages[cardinality(messages)]);
  END IF;
  untried := ARRAY(SELECT g.i FROM unnest(lows, highs) r(low, high)
                   CROSS JOIN LATERAL generate_series(r.low, r.high) g(i));
  passed_over := ARRAY(SELECT generate_series(new + again + 1, _n));
END
$$;
COMMENT ON FUNCTION _flohsync.in_halves(text, flohsync.connector_sync_config, bigint, int, int, uuid[], text[],
                                        text[], jsonb[], boolean) IS
  'Runs a stage for n rows, of which the last have failed before, least recently tried first (_succeeded: others have '
  'not): returns the result of call_seam(), the rows that failed and why, those not tried because too many failed, and '
  'those not due for a retry';

CREATE FUNCTION _flohsync.map_rules(_c flohsync.connector_sync_config, OUT fields text[], OUT modes text[],
                                    OUT sources text)
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  SELECT array_agg(e.rule ->> 'targetField' ORDER BY e.position),
         array_agg(coalesce(e.rule ->> 'writeMode', 'overwrite_if_empty') ORDER BY e.position),
         string_agg(_flohsync.source_sql(e.rule ->> 'sourcePath'), ', ' ORDER BY e.position)
    INTO fields, modes, sources
    FROM jsonb_array_elements(_c.attribute_mappings) WITH ORDINALITY AS e(rule, position)
   WHERE coalesce((e.rule ->> 'enabled')::boolean, true) AND coalesce(e.rule ->> 'transform', '') = ''
     AND coalesce(e.rule ->> 'writeMode', 'overwrite_if_empty') <> 'never_overwrite';
END
$$;
COMMENT ON FUNCTION _flohsync.map_rules(flohsync.connector_sync_config) IS
  'The attribute mappings that write: field and mode of each, and SQL for their values in the record x; null when no '
  'rule writes anything';

CREATE FUNCTION _flohsync.patches_sql(_c flohsync.connector_sync_config, _all boolean) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN format($sql$
  SELECT m.user_id, x.external_id::text, ARRAY[%s]::jsonb[] AS sources
    FROM %s
   WHERE %s AND x.stale_since IS NULL AND m.match_status IN ('matched', 'manual_override')
   ORDER BY m.user_id, x.external_id
  $sql$, (_flohsync.map_rules(_c)).sources,
    CASE WHEN _all THEN 'flohsync.resource_record x JOIN flohsync.connector_sync_match m '
                        'ON m.connector_resource_id = x.id JOIN _flohsync.app_user u ON u.id = m.user_id'
         ELSE 'unnest($3) AS t(id) JOIN _flohsync.app_user u ON u.id = t.id JOIN flohsync.connector_sync_match m '
              'ON m.user_id = t.id JOIN flohsync.resource_record x ON x.id = m.connector_resource_id' END,
    _flohsync.type_of_sql(NOT _all)
      || CASE WHEN _all THEN ' AND m.connector_id = $1 AND m.resource_type = $2'
                             ' AND m.user_id NOT IN (SELECT k.id FROM unnest($3) AS k(id))' ELSE '' END);
END
$$;
COMMENT ON FUNCTION _flohsync.patches_sql(flohsync.connector_sync_config, boolean) IS
  'SQL for what the attribute mappings find in the records of connector $1 and type $2, for the users $3 or (all) all '
  'but these: rows (user, external id, values in the order of the rules) in the order of the first two';

CREATE FUNCTION _flohsync.profile_map(_rows refcursor, _fields text[], _modes text[],
                                      _c flohsync.connector_sync_config, _n int,
                                      OUT users uuid[], OUT patches jsonb[], OUT problems jsonb[])
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_profile_map';
COMMENT ON FUNCTION _flohsync.profile_map(refcursor, text[], text[], flohsync.connector_sync_config, int) IS
  'Reads on in a cursor of patches_sql(), by _n users or some more: a patch of _profile_update for each, in which, of '
  'the rules for one field, the last one counts that always writes, else the first one that has something; and the '
  'values that are invalid, as [external id, message, value]; null without any';

CREATE FUNCTION _flohsync.profile_map_cached(_sql text, _connector uuid, _type text, _users uuid[], _fields text[],
                                             _modes text[], _c flohsync.connector_sync_config,
                                             OUT users uuid[], OUT patches jsonb[], OUT problems jsonb[])
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_profile_map_cached';
COMMENT ON FUNCTION _flohsync.profile_map_cached(text, uuid, text, uuid[], text[], text[],
                                                 flohsync.connector_sync_config) IS
  'Like profile_map(), for all rows of a statement of patches_sql(), with a cached plan: for a batch of users in '
  'floh_user';

CREATE FUNCTION _flohsync.users_of(_ids uuid[]) RETURNS uuid[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
BEGIN
  RETURN (SELECT coalesce(array_agg(DISTINCT m.user_id), '{}')
            FROM unnest(_ids) AS i(id) JOIN flohsync.connector_sync_match m ON m.connector_resource_id = i.id
           WHERE m.user_id IS NOT NULL);
END
$$;
COMMENT ON FUNCTION _flohsync.users_of(uuid[]) IS 'The users of some records, in the order of their ids';

CREATE FUNCTION _flohsync.apply_patches(_c flohsync.connector_sync_config, _run bigint,
                                        _record flohsync.resource_record, _users uuid[], _patches jsonb[],
                                        _problems jsonb[], _known boolean, INOUT done jsonb)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  too_many constant int := 1000;  -- as for in_halves()
  users uuid[] := _users;
  patches jsonb[] := _patches;
  invalid bigint;
  refused bigint;
  did record;
BEGIN
  SELECT coalesce(sum(jsonb_array_length(p.list)), 0) INTO invalid FROM unnest(_problems) AS p(list);
  IF invalid > 0 THEN
    INSERT INTO flohsync.sync_error (run_id, connector_id, resource_type, external_id, error_class, message, payload)
    SELECT _run, _record.connector_id, CASE WHEN _record.connector_id IS NOT NULL THEN _c.resource_type END,
           v.value ->> 0, _flohsync.error_class('mapping'), v.value ->> 1, _flohsync.clean(v.value ->> 2)
      FROM unnest(_problems) WITH ORDINALITY AS p(list, nr) CROSS JOIN LATERAL jsonb_array_elements(p.list) AS v(value)
     WHERE p.list IS NOT NULL AND coalesce(_run::text, _record.connector_id::text) IS NOT NULL
     ORDER BY p.nr;
  END IF;
  done := done || jsonb_build_object('failed', (done ->> 'failed')::bigint + invalid);
  IF array_position(patches, NULL) IS NOT NULL THEN
    SELECT array_agg(u.id ORDER BY u.nr), array_agg(u.patch ORDER BY u.nr) INTO users, patches
      FROM unnest(_users, _patches) WITH ORDINALITY AS u(id, patch, nr) WHERE u.patch IS NOT NULL;
  END IF;
  IF users IS NULL THEN
    RETURN;
  END IF;
  did := _flohsync.in_halves('map', _c, _run, cardinality(users), CASE WHEN _known THEN cardinality(users) ELSE 0 END,
                             users, NULL, NULL, patches, (done ->> 'updated')::bigint > 0);
  refused := (done ->> 'refused')::bigint + cardinality(did.failed);
  done := done || jsonb_build_object(
    'updated', (done ->> 'updated')::bigint + cardinality(did.users),
    'refused', refused,
    'errors', (done -> 'errors')
              || _flohsync.note_user_setbacks('map', _c, _run, _record,
                                              ARRAY(SELECT users[f.nr] FROM unnest(did.failed)
                                                    WITH ORDINALITY AS f(nr, i) ORDER BY f.i),
                                              did.states, did.messages),
    'complete', did.untried = '{}' AND (_known OR refused < too_many));
END
$$;
COMMENT ON FUNCTION _flohsync.apply_patches(flohsync.connector_sync_config, bigint, flohsync.resource_record, uuid[],
                                            jsonb[], jsonb[], boolean, jsonb) IS
  'Writes a batch of patches of users (_known: who failed before), notes the values that are invalid, and adds what it '
  'did to "done", which has what map_attributes() returns; complete: more may follow';

CREATE FUNCTION _flohsync.map_users(_c flohsync.connector_sync_config, _run bigint, _record flohsync.resource_record,
                                    _users uuid[], _known boolean, INOUT done jsonb)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  statement constant text := _flohsync.patches_sql(_c, false);
  rules constant record := _flohsync.map_rules(_c);
  listed refcursor;
  b record;
BEGIN
  IF _flohsync.users_are_watched() THEN
    b := _flohsync.profile_map_cached(statement, _c.connector_id, _c.resource_type, _users, rules.fields, rules.modes,
                                      _c);
  ELSE
    OPEN listed NO SCROLL FOR EXECUTE statement USING _c.connector_id, _c.resource_type::text, _users;
    b := _flohsync.profile_map(listed, rules.fields, rules.modes, _c, 2 * cardinality(_users));
    CLOSE listed;
  END IF;
  IF b.users IS NOT NULL THEN
    done := _flohsync.apply_patches(_c, _run, _record, b.users, b.patches, b.problems, _known, done);
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.map_users(flohsync.connector_sync_config, bigint, flohsync.resource_record, uuid[],
                                        boolean, jsonb) IS
  'Applies the attribute mappings to the profiles of a batch of users, like apply_patches()';

CREATE OR REPLACE FUNCTION _flohsync.map_attributes(_c flohsync.connector_sync_config, _ids uuid[], _run bigint,
                                         _record flohsync.resource_record DEFAULT NULL,
  OUT updated bigint, OUT failed bigint, OUT refused bigint, OUT errors jsonb, OUT complete boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET jit = off
SET work_mem = '8MB'
SET hash_mem_multiplier = 1
SET enable_nestloop = on
SET cursor_tuple_fraction = 1
AS $$
DECLARE
  batch constant int := 5000;
  rules constant record := _flohsync.map_rules(_c);
  known uuid[];
  former uuid[];
  listed uuid[];
  found refcursor;
  b record;
  done jsonb := '{"updated": 0, "failed": 0, "refused": 0, "errors": [], "complete": true}';
BEGIN
  IF rules.fields IS NOT NULL THEN
    known := _flohsync.known_setbacks(_c, 'map');
    IF _ids IS NULL THEN
      -- What was just loaded has no statistics yet: all must not be taken for a few.
      PERFORM set_config('enable_nestloop', 'off', true);
      OPEN found NO SCROLL FOR EXECUTE _flohsync.patches_sql(_c, true)
        USING _c.connector_id, _c.resource_type::text, known;
      PERFORM set_config('enable_nestloop', 'on', true);
      LOOP
        b := _flohsync.profile_map(found, rules.fields, rules.modes, _c, batch);
        EXIT WHEN b.users IS NULL;
        done := _flohsync.apply_patches(_c, _run, _record, b.users, b.patches, b.problems, false, done);
        EXIT WHEN NOT (done ->> 'complete')::boolean;
      END LOOP;
      CLOSE found;
    ELSE
      listed := _flohsync.users_of(_ids);
      IF known <> '{}' THEN
        former := known;
        known := ARRAY(SELECT k.id FROM unnest(former) WITH ORDINALITY k(id, place)
                        WHERE k.id IN (SELECT l.id FROM unnest(listed) l(id)) ORDER BY k.place);
        listed := ARRAY(SELECT l.id FROM unnest(listed) l(id)
                         WHERE l.id NOT IN (SELECT k.id FROM unnest(former) k(id)) ORDER BY l.id);
      END IF;
      FOR low IN 1 .. cardinality(listed) BY batch LOOP
        done := _flohsync.map_users(_c, _run, _record, listed[low:low + batch - 1], false, done);
        EXIT WHEN NOT (done ->> 'complete')::boolean;
      END LOOP;
    END IF;
    IF (done ->> 'complete')::boolean AND known <> '{}' THEN
      done := _flohsync.map_users(_c, _run, _record, known[:100], true, done);
    END IF;
  END IF;
  updated := done ->> 'updated';
  failed := done ->> 'failed';
  refused := done ->> 'refused';
  errors := done -> 'errors';
  complete := done ->> 'complete';
END
$$;
COMMENT ON FUNCTION _flohsync.map_attributes(flohsync.connector_sync_config, uuid[], bigint,
                                             flohsync.resource_record) IS
  'Applies the attribute mappings of some records (null: all) to the profiles of their users; returns the numbers of '
  'changed profiles, of invalid values and of profiles whose update failed, and whether all were tried';

CREATE FUNCTION _flohsync.analyze_grown() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  grown regclass;
BEGIN
  FOR grown IN
    SELECT c.oid FROM pg_class c
     WHERE c.oid = ANY ('{flohsync.resource_record, flohsync.connector_sync_match, flohsync.user_external_identity,
                          flohsync.floh_user, flohsync.user_profile}'::regclass[])
       AND pg_relation_size(c.oid) > 4000000
       AND (pg_relation_size(c.oid) > 2::bigint * c.relpages * current_setting('block_size')::int
            OR NOT EXISTS (SELECT FROM pg_stats s
                            WHERE s.schemaname = c.relnamespace::regnamespace::text AND s.tablename = c.relname))
     ORDER BY c.oid
  LOOP
    BEGIN
      EXECUTE format('ANALYZE (SKIP_LOCKED) %s', grown);
    EXCEPTION WHEN OTHERS THEN
      -- An index of others may be at fault; autovacuum will say so as well.
      RAISE LOG USING MESSAGE = _flohsync.clean(format('could not analyze %s: %s', grown, SQLERRM));
    END;
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.analyze_grown() IS
  'Has PostgreSQL look again at those tables of records, matches and users that have doubled since it did';

CREATE OR REPLACE FUNCTION _flohsync.explain_match(connector text, resource_type text, external_id text) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  c flohsync.connector_sync_config := _flohsync.config_of(connector, explain_match.resource_type);
  names text[] := _flohsync.strategies(c);
  x flohsync.resource_record;
  m flohsync.connector_sync_match;
  steps jsonb;
  step jsonb;
  hits int;
  stays text;
  outcome jsonb;
BEGIN
  SELECT * INTO x FROM flohsync.resource_record r
   WHERE r.external_id = explain_match.external_id AND r.resource_type = c.resource_type
     AND r.connector_id = c.connector_id;
  IF NOT FOUND THEN
    PERFORM _flohsync.raise('42704',
      _flohsync.clean(format('connector "%s" has no record "%s" of resource type "%s"', connector,
                             explain_match.external_id, c.resource_type)),
      NULL,
      'The record has not been synced, or is filtered out, or was purged.');
  END IF;
  SELECT * INTO m FROM flohsync.connector_sync_match y WHERE y.connector_resource_id = x.id;
  EXECUTE format($sql$
    WITH rec AS MATERIALIZED (%s), hits AS (%s)
    SELECT jsonb_agg(jsonb_build_object('strategy', s.name,
             'key', CASE s.name %s END,
             'hits', coalesce(h.users, '[]'), 'hitCount', coalesce(h.n, 0)) ORDER BY s.step)
      FROM rec r CROSS JOIN unnest($4) WITH ORDINALITY AS s(name, step)
      LEFT JOIN LATERAL (SELECT count(*) AS n,
                         (jsonb_agg(jsonb_build_object('userId', u.id, 'email', u.email, 'displayName', u.display_name,
                                  'issuer', u.upstream_issuer, 'confirmed', u.confirmed, 'active', u.active)
                                    ORDER BY u.id)) AS users
                           FROM hits h JOIN _flohsync.app_user u ON u.id = h.user_id WHERE h.step = s.step) h ON true
  $sql$, _flohsync.records_sql(c, _flohsync.records_of_sql(true)), _flohsync.hits_sql(names),
         (SELECT string_agg(format('WHEN %L THEN %s', m.strategy, m.key), ' ') FROM _flohsync.match_strategies() m))
  INTO steps USING c.connector_id, c.resource_type::text, ARRAY[x.id], names,
    coalesce(c.issuer_source_path, 'attributes.identityIssuer');

  outcome := jsonb_build_object('status', 'unmatched', 'confidence', 'none', 'strategy', NULL, 'userId', NULL);
  FOR i IN 1 .. cardinality(names) LOOP
    step := steps -> (i - 1);
    hits := (step ->> 'hitCount')::int;
    IF hits > 0 THEN
      outcome := jsonb_build_object('status', CASE hits WHEN 1 THEN 'matched' ELSE 'ambiguous' END,
        'confidence', CASE WHEN hits > 1 THEN 'ambiguous' WHEN i = 1 THEN 'exact' ELSE 'probable' END,
        'strategy', names[i], 'userId', CASE hits WHEN 1 THEN step #> '{hits,0,userId}' END);
      -- What comes after the first hit is not tried; it is shown for the reader.
      EXIT;
    END IF;
  END LOOP;
  stays := CASE WHEN m.match_status IN ('manual_override', 'skipped') THEN 'an operator decided so'
                WHEN m.match_status = 'matched' AND m.match_strategy IS NULL
                    AND EXISTS (SELECT FROM _flohsync.app_user u WHERE u.id = m.user_id)
                  THEN 'the user was created from the record, or reactivated with it'
                WHEN m.match_status = 'matched' AND x.stale_since IS NOT NULL
                    AND NOT EXISTS (SELECT FROM _flohsync.app_user u WHERE u.id = m.user_id)
                  THEN 'the record is stale and its user is gone' END;
  RETURN jsonb_build_object(
    'connectorId', c.connector_id, 'resourceType', c.resource_type, 'externalId', x.external_id,
    'record', jsonb_build_object('id', x.id, 'displayName', x.display_name, 'email', x.email, 'staleSince',
                                 _flohsync.iso(x.stale_since)),
    'strategies', steps, 'outcome', outcome, 'match', CASE WHEN m.id IS NOT NULL THEN _flohsync.match_dto(m) END,
      'stays', stays);
END
$$;
COMMENT ON FUNCTION _flohsync.explain_match(text, text, text) IS
  'Implementation of the public function of this name, run as the workers'' role';

CREATE OR REPLACE FUNCTION _flohsync.is_news(_r flohsync.resource_record, _observed_at timestamptz,
                                  _event_at timestamptz)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN coalesce((_r).event_at <= _event_at, true)
  AND ((_r).observed_at > pg_catalog.clock_timestamp()
       OR _observed_at >= greatest((_r).observed_at, CASE WHEN (_r).stale_since IS NULL THEN
            _flohsync.confirmed_at((_r).connector_id, (_r).resource_type) END));
COMMENT ON FUNCTION _flohsync.is_news(flohsync.resource_record, timestamptz, timestamptz) IS
  'Whether an event is not older than the stored record; a stored time in the future is ignored as a clock error';

-- End of what follows a pass.

-- Webhooks that cost less.
CREATE OR REPLACE FUNCTION _flohsync.forget_webhooks(_retention interval) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
-- In the order of these indexes up to the limit, however much there is that is not old.  So
-- times are subqueries: by what is volatile no index is entered.
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET enable_hashjoin = off
SET enable_mergejoin = off
BEGIN ATOMIC
  -- Senders try for three days, and no signature is taken after five minutes.
  DELETE FROM _flohsync.webhook_delivery d
   WHERE (d.connector_id, d.webhook_id) IN (
     SELECT x.connector_id, x.webhook_id FROM _flohsync.webhook_delivery x
      WHERE x.received_at < (SELECT pg_catalog.clock_timestamp() - interval '7 days')
      ORDER BY x.received_at LIMIT 10000 FOR UPDATE SKIP LOCKED);
  DELETE FROM _flohsync.resource_tombstone t
   WHERE (t.external_id, t.resource_type, t.connector_id) IN (
     SELECT x.external_id, x.resource_type, x.connector_id FROM _flohsync.resource_tombstone x
      WHERE x.deleted_at > (SELECT pg_catalog.clock_timestamp() + interval '1 day')
      ORDER BY x.deleted_at LIMIT 10000 FOR UPDATE SKIP LOCKED);
  DELETE FROM _flohsync.resource_tombstone t
   WHERE (t.external_id, t.resource_type, t.connector_id) IN (
     SELECT x.external_id, x.resource_type, x.connector_id FROM _flohsync.resource_tombstone x
      WHERE x.deleted_at < (SELECT pg_catalog.clock_timestamp() - interval '7 days')
        AND x.deleted_at < pg_catalog.clock_timestamp()
          - coalesce((SELECT _flohsync.duration(c.stale_retention) FROM flohsync.connector_sync_config c
              WHERE c.connector_id = x.connector_id AND c.resource_type = x.resource_type), '0')
      ORDER BY x.deleted_at LIMIT 10000 FOR UPDATE SKIP LOCKED);
  DELETE FROM flohsync.sync_error e
   WHERE e.id IN (SELECT x.id FROM flohsync.sync_error x
                   WHERE x.run_id IS NULL AND x.created_at < (SELECT pg_catalog.clock_timestamp() - 3 * _retention)
                   ORDER BY x.created_at LIMIT 10000 FOR UPDATE SKIP LOCKED);
END;
COMMENT ON FUNCTION _flohsync.forget_webhooks(interval) IS
  'Removes ids of webhooks after 7 days, tombstones after the retention of stale records but no less than that, and '
  'errors of webhooks after three times the retention of runs (null: never)';
-- End of webhooks that cost less.

-- Runs that cost less.
CREATE OR REPLACE FUNCTION _flohsync.keep_config(_run bigint) RETURNS flohsync.connector_sync_config
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  r flohsync.sync_run;
  c flohsync.connector_sync_config;
BEGIN
  SELECT * INTO r FROM flohsync.sync_run x WHERE x.id = _run;
  PERFORM _flohsync.lock('connector', r.connector_id::text, true);
  SELECT * INTO c FROM flohsync.connector_sync_config x
   WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type FOR KEY SHARE;
  RETURN c;
END
$$;
CREATE OR REPLACE FUNCTION _flohsync.purge(_connector uuid, _type text, _retention interval, _limit bigint, _run bigint)
  RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  due constant timestamptz := clock_timestamp() - _retention;
BEGIN
  -- Mostly there is none, and what follows is planned anew for each call.  In the order of an index, and no
  -- EXISTS: that there is none is what a scan of the table finds out last.
  PERFORM FROM flohsync.resource_record x
    WHERE x.connector_id = _connector AND x.resource_type = _type AND x.stale_since < due
    ORDER BY x.connector_id, x.resource_type, x.stale_since LIMIT 1;
  IF NOT FOUND THEN
    RETURN 0;
  END IF;
  RETURN _flohsync.records_removed(_connector, _type, _flohsync.purgeable(_connector, _type, _retention, _limit, _run),
                                   _run IS NOT NULL, _run);
END
$$;
CREATE OR REPLACE FUNCTION _flohsync.trigger_summary(_run bigint, _stats jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF (_stats ->> 'added')::bigint + (_stats ->> 'updated')::bigint + (_stats ->> 'restored')::bigint
     + (_stats ->> 'staled')::bigint + (_stats ->> 'removed')::bigint > 0 IS NOT TRUE THEN
    RETURN;
  END IF;
  FOR _attempt IN 1 .. 3 LOOP
    BEGIN
      PERFORM _flohsync.queue_jobs(c, _run, ARRAY[_flohsync.job_data(c, _run) || jsonb_build_object('stats', _stats)])
         FROM flohsync.sync_run r
         JOIN flohsync.connector_sync_config c ON c.connector_id = r.connector_id AND c.resource_type = r.resource_type
        WHERE r.id = _run AND c.sync_trigger_mode = 'summary' AND c.post_sync_workflow_id IS NOT NULL;
      RETURN;
    EXCEPTION WHEN OTHERS THEN
      IF _flohsync.stage_failed(_run, 'workflow', SQLSTATE, SQLERRM, _attempt) <> '[]' THEN
        RETURN;
      END IF;
    END;
  END LOOP;
END
$$;
CREATE OR REPLACE FUNCTION _flohsync.known_setbacks(_c flohsync.connector_sync_config, _stage text) RETURNS uuid[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN ARRAY(SELECT m.user_id FROM _flohsync.setback s JOIN flohsync.connector_sync_match m
               ON m.connector_resource_id = s.resource_id
                WHERE s.config_id = _c.id AND s.stage = _stage AND m.user_id IS NOT NULL
                GROUP BY m.user_id ORDER BY min(s.tried_at), m.user_id);
END
$$;
CREATE OR REPLACE FUNCTION _flohsync.note_user_setbacks(_stage text, _c flohsync.connector_sync_config, _run bigint,
                                             _record flohsync.resource_record,
  _users uuid[], _states text[], _messages text[]) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF coalesce(greatest(cardinality(_users), cardinality(_states), cardinality(_messages)), 0) = 0 THEN
    RETURN '[]';
  END IF;
  RETURN (
    SELECT _flohsync.note_setbacks(_stage, _c, _run, _record, array_agg(x.id ORDER BY f.position),
                                   array_agg(x.external_id::text ORDER BY f.position),
                                   array_agg(f.state ORDER BY f.position), array_agg(f.message ORDER BY f.position))
      FROM unnest(_users, _states, _messages) WITH ORDINALITY AS f(id, state, message, position)
      LEFT JOIN LATERAL (
           SELECT r.id, r.external_id
             FROM flohsync.connector_sync_match m JOIN flohsync.resource_record r ON r.id = m.connector_resource_id
            WHERE m.user_id = f.id AND m.connector_id = _c.connector_id AND m.resource_type = _c.resource_type
              AND m.match_status IN ('matched', 'manual_override')
              AND (r.stale_since IS NOT NULL) = (_stage = 'deactivate')
            ORDER BY r.external_id LIMIT 1) x ON true);
END
$$;
-- End of runs that cost less.

-- Configurations: long settings apart from what a run writes.
ALTER TABLE flohsync.connector_sync_config SET (fillfactor = 50, toast_tuple_target = 128);
-- A run writes the row several times.  So what it writes, and what it reads of each page, stays in
-- the row, and settings that may be long are apart from it, where such a write leaves them.
DO $$
DECLARE
  _column name;
BEGIN
  FOR _column IN
    SELECT a.attname FROM pg_catalog.pg_attribute a
     WHERE a.attrelid = 'flohsync.connector_sync_config'::regclass AND a.attnum > 0 AND a.attstorage = 'x'
       AND a.attname NOT IN ('attribute_mappings', 'user_match_fallback_strategies', 'create_user_defaults',
                             'hash_ignore')
     ORDER BY a.attnum
  LOOP
    EXECUTE format('ALTER TABLE flohsync.connector_sync_config ALTER COLUMN %I SET STORAGE MAIN', _column);
  END LOOP;
END
$$;

-- Connectors that are dropped in parts.
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

CREATE OR REPLACE FUNCTION flohsync.drop_connector(connector text) RETURNS void
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
CREATE FUNCTION _flohsync.records_dropped(_connector uuid, _ids uuid[], _keys text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- A deletion by another connector's webhook holds all matches of its user, in this order.
  PERFORM FROM flohsync.connector_sync_match m WHERE m.connector_resource_id = ANY (_ids) ORDER BY m.id FOR UPDATE;
  PERFORM _flohsync.requeue_stale(ARRAY(SELECT DISTINCT m.user_id FROM flohsync.connector_sync_match m
                                        WHERE m.connector_resource_id = ANY (_ids) AND m.user_id IS NOT NULL));
  DELETE FROM flohsync.connector_sync_match m WHERE m.connector_resource_id = ANY (_ids);
  DELETE FROM flohsync.user_external_identity i WHERE i.connector_id = _connector AND i.external_id = ANY (_keys);
  DELETE FROM _flohsync.record_change q WHERE q.resource_id = ANY (_ids);
  DELETE FROM _flohsync.departure p WHERE p.resource_id = ANY (_ids);
  DELETE FROM flohsync.resource_record r WHERE r.id = ANY (_ids);
  PERFORM _flohsync.invalidate_all(_connector, NULL);
END
$$;
COMMENT ON FUNCTION _flohsync.records_dropped(uuid, uuid[], text[]) IS
  'Removes records of a connector that is being dropped, given their ids and external ids, with what hangs on them; '
  'nobody is told of each';

-- New in 0.3 like those above, which applies to it as well.
--:include 76_drop.sql

--:include upgrade/end.sql
