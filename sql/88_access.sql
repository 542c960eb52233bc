-- Roles of applications and operators: who reads, who manages, who serves.

CREATE FUNCTION _flohsync.check_access_role(_role regrole) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _role IS NULL OR _role::oid = 0 OR NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = _role) THEN
    PERFORM _flohsync.invalid('role', 'there is no such role');
  ELSIF (SELECT r.rolname FROM pg_roles r WHERE r.oid = _role) = current_setting('flohsync.worker_role') THEN
    PERFORM _flohsync.invalid('role', format('%s is the role of the workers', _role),
                              'Its rights are given by _flohsync.grant_worker().');
  ELSIF (SELECT r.rolname FROM pg_roles r WHERE r.oid = _role) IN ('flohsync_owner', 'flohsync_nobody') THEN
    PERFORM _flohsync.invalid('role', format('%s is a role of flohsync itself', _role),
                              'Grant access to a role of your own.');
  END IF;
  RETURN _role::text;
END
$$;
COMMENT ON FUNCTION _flohsync.check_access_role(regrole) IS
  'Name of a role that access can be granted to, quoted; 22023 for a missing role and for the roles of flohsync';

CREATE FUNCTION _flohsync.grant_level(_role regrole, _levels text[]) RETURNS void
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

CREATE FUNCTION flohsync.grant_reader(role regrole) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT _flohsync.grant_level(grant_reader.role, ARRAY['reader']);
END;
COMMENT ON FUNCTION flohsync.grant_reader(regrole) IS
  'Lets a role read records, users, configurations, runs and matches, and use the cache (connector:read); call it '
  'again after an update of the extension; 22023 for a role of flohsync itself';

CREATE FUNCTION flohsync.grant_manager(role regrole) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT _flohsync.grant_level(grant_manager.role, ARRAY['reader', 'manager']);
END;
COMMENT ON FUNCTION flohsync.grant_manager(regrole) IS
  'Lets a role manage connectors, configurations, runs and matches by functions, as well as read (connector:manage); '
  'it can neither write to a table, nor read a secret, nor act as another owner; call it again after an update of the '
  'extension; 22023 for a role of flohsync itself';

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

CREATE FUNCTION _flohsync.managing_owners() RETURNS SETOF oid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT o.id
    FROM (SELECT _flohsync.role_oid(c.owner) AS id FROM flohsync.connector_sync_config c
          UNION SELECT _flohsync.role_oid(d.author) FROM flohsync.connector_definition d
          UNION SELECT _flohsync.role_oid(h.owner) FROM _flohsync.webhook_handler h) o
   WHERE pg_catalog.has_function_privilege(o.id, 'flohsync.configure_sync(text, text, jsonb)', 'EXECUTE');
END;
COMMENT ON FUNCTION _flohsync.managing_owners() IS
  'Roles with whose rights something runs and that are managers, directly or by membership';

CREATE FUNCTION flohsync.revoke_access(role regrole) RETURNS void
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

-- Roles of the workers.

CREATE FUNCTION _flohsync.grant_worker(_role regrole) RETURNS void
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
