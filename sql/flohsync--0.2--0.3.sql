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

CREATE OR REPLACE FUNCTION flohsync.mark_stale(connector text, resource_type text, not_seen_since timestamptz)
  RETURNS bigint
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

CREATE OR REPLACE FUNCTION _flohsync.profile_cached(_sql text, _users uuid[], _patches jsonb[], _source text)
  RETURNS uuid[]
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'flohsync_execute_cached_plan';
COMMENT ON FUNCTION _flohsync.profile_cached(text, uuid[], jsonb[], text) IS
  'Runs a statement of _profile_update, which returns one array of users, with a cached plan by indexes';

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
  done := _flohsync.profile_cached($sql$
    WITH made AS (
      INSERT INTO flohsync.user_profile AS p (user_id, title, department, phone_number, location,
                                              employee_id, cost_center,
                                              start_date, manager_id, custom_attributes, attribute_sources)
      SELECT c.user_id, c.new ->> 'title', c.new ->> 'department', c.new ->> 'phoneNumber', c.new ->> 'location',
        c.new ->> 'employeeId',
             c.new ->> 'costCenter', (c.new ->> 'startDate')::date, (c.new ->> 'managerId')::uuid,
             c.new - '{title,department,phoneNumber,location,employeeId,costCenter,startDate,managerId}'::text[],
             _flohsync.profile_sources(c.new, $3)
        FROM (SELECT u.user_id, _flohsync.profile_changes(NULL, u.patch) AS new
                FROM unnest($1, $2) AS u(user_id, patch)
                JOIN flohsync.floh_user x ON x.id = u.user_id
               WHERE NOT EXISTS (SELECT FROM flohsync.user_profile q WHERE q.user_id = u.user_id)
               ORDER BY u.user_id OFFSET 0) c  -- so that "new" is computed once
       WHERE c.new IS NOT NULL
      ON CONFLICT DO NOTHING
      RETURNING p.user_id
    )
    SELECT array_agg(m.user_id) FROM made m
    $sql$, _users, _patches, _source);
  RETURN QUERY SELECT unnest(done);
  SELECT array_agg(u.user_id), array_agg(u.patch) INTO _users, _patches
    FROM unnest(_users, _patches) AS u(user_id, patch)
   WHERE u.user_id NOT IN (SELECT d.id FROM unnest(done) AS d(id));
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
  name text;
  step int := 0;
  gate text := '';
  probes text := '';
  which text := '';
BEGIN
  FOREACH name IN ARRAY _strategies LOOP
    step := step + 1;
    probes := probes || format(' CROSS JOIN LATERAL (SELECT cardinality(e.users)::bigint AS hits, e.users FROM (SELECT'
                               ' ARRAY(SELECT u.id FROM _flohsync.app_user u WHERE %s%s) AS users OFFSET 0) e) s%s',
                               gate,
                               (SELECT m.condition FROM _flohsync.match_strategies() m WHERE m.strategy = name), step);
    which := which || format(' WHEN s%s.hits > 0 THEN s%1$s.', step);
    gate := gate || format('s%s.hits = 0 AND ', step);
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

CREATE FUNCTION _flohsync.map_rules(_c flohsync.connector_sync_config, OUT rules text, OUT sources text)
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  SELECT string_agg(format('(%s, %L, %L)', r.nr, r.field, r.mode), ', ' ORDER BY r.nr),
         string_agg(_flohsync.source_sql(r.path), ', ' ORDER BY r.nr) INTO rules, sources
    FROM (SELECT row_number() OVER (ORDER BY e.position) AS nr, e.rule ->> 'targetField' AS field,
                 coalesce(e.rule ->> 'writeMode', 'overwrite_if_empty') AS mode, e.rule ->> 'sourcePath' AS path
            FROM jsonb_array_elements(_c.attribute_mappings) WITH ORDINALITY AS e(rule, position)
           WHERE coalesce((e.rule ->> 'enabled')::boolean, true) AND coalesce(e.rule ->> 'transform', '') = ''
             AND coalesce(e.rule ->> 'writeMode', 'overwrite_if_empty') <> 'never_overwrite') r;
END
$$;
COMMENT ON FUNCTION _flohsync.map_rules(flohsync.connector_sync_config) IS
  'SQL for the attribute mappings: rows (number, field, mode), and the values of the record x in their order; null '
  'when no rule writes anything';

CREATE FUNCTION _flohsync.profile_patch(_fields text[], _modes text[], _values jsonb[]) RETURNS jsonb
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_profile_patch';
COMMENT ON FUNCTION _flohsync.profile_patch(text[], text[], jsonb[]) IS
  'A patch of _profile_update from the values of rules, side by side, in the order of records and rules: of those for '
  'one field, the last one that always writes, else the first one that has something for an empty field; null without '
  'any';

CREATE FUNCTION _flohsync.patches_sql(_c flohsync.connector_sync_config, _all boolean) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  map record := _flohsync.map_rules(_c);
BEGIN
  RETURN format($sql$
  SELECT f.user_id,
         _flohsync.profile_patch(array_agg(f.field), array_agg(f.mode), array_agg(f.value)) AS patch,
         jsonb_agg(jsonb_build_array(f.external_id, format('%%s: %%s', f.field, f.problem),
                                     left(f.source::text, 1000)))
           FILTER (WHERE f.problem IS NOT NULL) AS problems
    FROM (SELECT r.user_id, r.external_id, w.field, w.mode, w.source, v.problem,
                 CASE WHEN w.plain THEN w.source WHEN v.problem IS NULL THEN v.value END AS value
            FROM (SELECT m.user_id, x.external_id, ARRAY[%s]::jsonb[] AS sources
                    FROM %s
                   WHERE %s AND x.stale_since IS NULL AND m.match_status IN ('matched', 'manual_override')
                   ORDER BY m.user_id, x.external_id OFFSET 0) r
           CROSS JOIN LATERAL (
                 SELECT l.field, l.mode, r.sources[l.nr] AS source,
                        jsonb_typeof(r.sources[l.nr]) = 'string' AND l.field NOT IN ('startDate', 'managerId')
                          AND octet_length(r.sources[l.nr] #>> '{}') <= 2000 AS plain
                   FROM (VALUES %s) AS l(nr, field, mode)
                 OFFSET 0) w
            -- In a subquery the function is called only where its condition holds.
            LEFT JOIN LATERAL (SELECT c.value, c.problem FROM _flohsync.profile_field(w.field, w.source, $3) c
                                WHERE NOT w.plain OFFSET 0) v ON true
           WHERE w.source IS NOT NULL AND w.source <> 'null') f
   GROUP BY f.user_id
  $sql$, map.sources,
    CASE WHEN _all THEN 'flohsync.resource_record x JOIN flohsync.connector_sync_match m '
                        'ON m.connector_resource_id = x.id JOIN _flohsync.app_user u ON u.id = m.user_id'
         ELSE 'unnest($4) AS t(id) JOIN _flohsync.app_user u ON u.id = t.id JOIN flohsync.connector_sync_match m '
              'ON m.user_id = t.id JOIN flohsync.resource_record x ON x.id = m.connector_resource_id' END,
    _flohsync.type_of_sql(NOT _all)
      || CASE WHEN _all THEN ' AND m.connector_id = $1 AND m.resource_type = $2'
                             ' AND m.user_id NOT IN (SELECT k.id FROM unnest($4) AS k(id))' ELSE '' END,
    map.rules);
END
$$;
COMMENT ON FUNCTION _flohsync.patches_sql(flohsync.connector_sync_config, boolean) IS
  'SQL for what the attribute mappings make of the records of connector $1 and type $2, for the users $4 or (all) all '
  'but these: rows (user, patch, values that are invalid, as [external id, message, value]); $3 is the configuration';

CREATE FUNCTION _flohsync.patches_cached(_sql text, _connector uuid, _type text, _c flohsync.connector_sync_config,
                                         _users uuid[], OUT users uuid[], OUT patches jsonb[], OUT problems jsonb[])
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'flohsync_execute_cached_plan';
COMMENT ON FUNCTION _flohsync.patches_cached(text, uuid, text, flohsync.connector_sync_config, uuid[]) IS
  'Runs the statement of map_attributes() with a cached plan, for a batch of users in floh_user';

CREATE FUNCTION _flohsync.users_of(_ids uuid[]) RETURNS uuid[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
BEGIN ATOMIC
  SELECT coalesce(pg_catalog.array_agg(DISTINCT m.user_id), '{}')
    FROM unnest(_ids) AS i(id) JOIN flohsync.connector_sync_match m ON m.connector_resource_id = i.id
   WHERE m.user_id IS NOT NULL;
END;
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
  INSERT INTO flohsync.sync_error (run_id, connector_id, resource_type, external_id, error_class, message, payload)
  SELECT _run, _record.connector_id, CASE WHEN _record.connector_id IS NOT NULL THEN _c.resource_type END,
         v.value ->> 0, _flohsync.error_class('mapping'), v.value ->> 1, _flohsync.clean(v.value ->> 2)
    FROM unnest(_problems) WITH ORDINALITY AS p(list, nr) CROSS JOIN LATERAL jsonb_array_elements(p.list) AS v(value)
   WHERE p.list IS NOT NULL AND coalesce(_run::text, _record.connector_id::text) IS NOT NULL
   ORDER BY p.nr;
  SELECT coalesce(sum(jsonb_array_length(p.list)), 0) INTO invalid FROM unnest(_problems) AS p(list);
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
  statement constant text := format('SELECT array_agg(b.user_id ORDER BY b.user_id), array_agg(b.patch ORDER BY '
                                    'b.user_id), array_agg(b.problems ORDER BY b.user_id) FROM (%s) b',
                                    _flohsync.patches_sql(_c, false));
  users uuid[];
  patches jsonb[];
  problems jsonb[];
BEGIN
  IF _flohsync.users_are_watched() THEN
    SELECT b.users, b.patches, b.problems INTO users, patches, problems
      FROM _flohsync.patches_cached(statement, _c.connector_id, _c.resource_type, _c, _users) b;
  ELSE
    EXECUTE statement INTO users, patches, problems USING _c.connector_id, _c.resource_type::text, _c, _users;
  END IF;
  done := _flohsync.apply_patches(_c, _run, _record, users, patches, problems, _known, done);
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
AS $$
DECLARE
  batch constant int := 5000;
  known uuid[];
  former uuid[];
  listed uuid[];
  users uuid[] := '{}';
  patches jsonb[] := '{}';
  problems jsonb[] := '{}';
  n int := 0;
  r record;
  done jsonb := '{"updated": 0, "failed": 0, "refused": 0, "errors": [], "complete": true}';
BEGIN
  IF (_flohsync.map_rules(_c)).rules IS NOT NULL THEN
    known := _flohsync.known_setbacks(_c, 'map');
    IF _ids IS NULL THEN
      -- What was just loaded has no statistics yet: all must not be taken for a few.
      PERFORM set_config('enable_nestloop', 'off', true);
      FOR r IN EXECUTE _flohsync.patches_sql(_c, true) USING _c.connector_id, _c.resource_type::text, _c, known LOOP
        n := n + 1;
        users[n] := r.user_id;
        patches[n] := r.patch;
        problems[n] := r.problems;
        CONTINUE WHEN n < batch;
        PERFORM set_config('enable_nestloop', 'on', true);
        done := _flohsync.apply_patches(_c, _run, _record, users, patches, problems, false, done);
        n := 0;
        users := '{}';
        patches := '{}';
        problems := '{}';
        EXIT WHEN NOT (done ->> 'complete')::boolean;
      END LOOP;
      PERFORM set_config('enable_nestloop', 'on', true);
      IF n > 0 THEN
        done := _flohsync.apply_patches(_c, _run, _record, users, patches, problems, false, done);
      END IF;
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

--:include upgrade/end.sql
