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
                  _flohsync.page_print_scope, _flohsync.page_print, _flohsync.dirty_record,
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

-- Fingerprints of pages.
ALTER TABLE flohsync.sync_run_page ADD COLUMN print bigint;
COMMENT ON COLUMN flohsync.sync_run_page.print IS
  'Fingerprint of the last complete pass that the page had, byte for byte, so that it was not read again; null: none';

-- Made anew for the new column.
CREATE OR REPLACE FUNCTION _flohsync.pass_pages(_pass bigint) RETURNS SETOF flohsync.sync_run_page
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT p.* FROM flohsync.sync_run r JOIN flohsync.sync_run_page p ON p.run_id = r.id
   WHERE r.pass_id = _pass;
END;

--:include 63_page_print.sql

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
  SELECT count(*) INTO there FROM flohsync.resource_record x
   WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type
     AND _flohsync.ledger_has(seen, x.record_no);
  IF came > there THEN
    RETURN format('pages are requested by position, and records occurred on more than one (%s): the list has '
                  'shifted, or is not ordered', came - there);
  END IF;
  RETURN NULL;
END
$$;

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
       ORDER BY x.external_id FOR NO KEY UPDATE OF x), c.last_full_pass_at);
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
                                                        'conditional']);
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

--:include upgrade/end.sql
