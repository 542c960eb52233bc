-- Roles of applications and operators: who reads, who manages.

CREATE FUNCTION _flohsync.check_access_role(_role regrole) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _role IS NULL OR _role::oid = 0 OR NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = _role) THEN
    PERFORM _flohsync.invalid('role', 'there is no such role');
  ELSIF (SELECT r.rolname FROM pg_roles r WHERE r.oid = _role) = current_setting('flohsync.worker_role') THEN
    PERFORM _flohsync.invalid('role', format('%s is the role of the workers', _role), 'Its rights are given by _flohsync.grant_worker().');
  END IF;
  RETURN _role::text;
END
$$;
COMMENT ON FUNCTION _flohsync.check_access_role(regrole) IS 'A role to be granted something, quoted; 22023 for none and for that of the workers';

-- What a reader calls runs with the reader's own rights, and so do the internal
-- functions behind it: those that only look (not volatile).  Rights on tables decide what they see.
CREATE FUNCTION flohsync.grant_reader(role regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _role text := _flohsync.check_access_role(grant_reader.role);
  _functions text;
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA flohsync, _flohsync TO %s', _role);
  EXECUTE format('GRANT SELECT ON flohsync.connector_resource, flohsync.jobs, flohsync.sync_progress, flohsync.workers, flohsync.v_user,
                  flohsync.resource_record, flohsync.connector_sync_config, flohsync.connector_sync_match, flohsync.sync_run,
                  flohsync.sync_run_page, flohsync.sync_error, _flohsync.record_change, _flohsync.match_progress,
                  flohsync.workflow_definition, flohsync.workflow_job, flohsync.workflow_run, _flohsync.cache_outbox TO %s', _role);
  -- Not config, whose headers and queries are for managers.
  EXECUTE format('GRANT SELECT (id, name, kind, description, enabled, created_at, updated_at) ON flohsync.connector_definition TO %s', _role);
  SELECT string_agg(p.oid::regprocedure::text, ', ') INTO _functions
    FROM pg_proc p
   WHERE p.pronamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace) AND p.prokind = 'f' AND p.prorettype <> 'trigger'::regtype
     AND (p.pronamespace = '_flohsync'::regnamespace AND p.provolatile <> 'v'
          OR p.proname IN ('sync_config', 'sync_status', 'match_stats', 'list_matches', 'explain_match', 'metrics', 'cron_next', 'canonical_json',
                           'resource_hash', 'validate_definition', 'definition_schema', 'connector_template', 'connector_templates',
                           'cache_get', 'cache_get_or_fetch'));
  EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', _functions, _role);
END
$$;
COMMENT ON FUNCTION flohsync.grant_reader(regrole) IS
  'Lets a role read records, configurations, runs and matches, and use the cache (connector:read); call it again after an update of the extension; 22023 for the role of the workers';

CREATE FUNCTION flohsync.grant_manager(role regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _role text := _flohsync.check_access_role(grant_manager.role);
  _functions text;
BEGIN
  PERFORM flohsync.grant_reader(grant_manager.role);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA flohsync, _flohsync TO %s', _role);
  EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA flohsync, _flohsync TO %s', _role);
  SELECT string_agg(p.oid::regprocedure::text, ', ') INTO _functions
    FROM pg_proc p
   WHERE p.pronamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace) AND p.prorettype <> 'trigger'::regtype
     AND p.proname NOT IN ('grant_worker', 'grant_reader', 'grant_manager', 'revoke_access', 'rotate_secrets', 'set_entitlement_handler');
  EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', _functions, _role);
END
$$;
COMMENT ON FUNCTION flohsync.grant_manager(regrole) IS
  'Lets a role manage connectors, configurations, runs and matches as well as read (connector:manage): it may write to all tables, but neither read a secret nor act as another owner; call it again after an update of the extension; 22023 for the role of the workers';

CREATE FUNCTION flohsync.revoke_access(role regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _role text := _flohsync.check_access_role(revoke_access.role);
BEGIN
  EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA flohsync, _flohsync FROM %s', _role);
  EXECUTE format('REVOKE ALL (id, name, kind, description, enabled, created_at, updated_at) ON flohsync.connector_definition FROM %s', _role);
  EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA flohsync, _flohsync FROM %s', _role);
  EXECUTE format('REVOKE ALL ON ALL ROUTINES IN SCHEMA flohsync, _flohsync FROM %s', _role);
  EXECUTE format('REVOKE ALL ON SCHEMA flohsync, _flohsync FROM %s', _role);
END
$$;
COMMENT ON FUNCTION flohsync.revoke_access(regrole) IS 'Takes back what grant_reader() and grant_manager() gave a role; 22023 for the role of the workers';

REVOKE ALL ON FUNCTION _flohsync.check_access_role(regrole), flohsync.grant_reader(regrole), flohsync.grant_manager(regrole), flohsync.revoke_access(regrole) FROM PUBLIC;
