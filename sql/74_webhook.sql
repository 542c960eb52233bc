-- Webhooks: what an upstream tells of by itself.
--
-- src/webhook/webhook.c reads and verifies a delivery, and stores a record; here is
-- what it does to the tables beside that.
--
-- Which of two observations is newer?
--   - Against pages and upserts: observed_at, by our own clock, as everywhere.
--     An event counts as observed when the row has been locked for it; one that
--     happened more than five minutes before as five minutes after it happened
--     (so a sender that makes up for an outage does not undo a pass, and a clock
--     of the upstream's that is somewhat wrong does no harm).
--   - Against other events of the record: event_at, by the upstream's clock, as
--     far as events say it.
--
-- A deletion leaves a tombstone.  It has to hold against a transaction that is just
-- inserting the record and cannot see it yet, so:
--   - the deletion writes the tombstone, and makes sure that no such insert is
--     under way: finding no row it inserts and deletes one, which waits for, or
--     makes wait, any other insert of that key;
--   - the insert looks for tombstones after inserting, at what is committed by
--     then (apply.c).

CREATE INDEX webhook_delivery_age ON _flohsync.webhook_delivery (received_at);

CREATE TRIGGER deliveries_removed AFTER DELETE ON flohsync.connector_definition
FOR EACH ROW EXECUTE FUNCTION _flohsync.connector_removed('_flohsync.webhook_delivery');

CREATE TABLE _flohsync.webhook_handler (
  id         boolean PRIMARY KEY DEFAULT true CHECK (id),
  handler    text NOT NULL,
  owner      _flohsync.role NOT NULL,
  code_owner _flohsync.role NOT NULL,
  set_at     timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE _flohsync.webhook_handler IS
  'The entitlement handler; no row: events are recorded in entitlement_event';
COMMENT ON COLUMN _flohsync.webhook_handler.id IS 'Limits the table to one row';
COMMENT ON COLUMN _flohsync.webhook_handler.handler IS 'Function with its argument types';
COMMENT ON COLUMN _flohsync.webhook_handler.owner IS
  'Role that set it, with whose rights it runs; for a superuser, the rights of the function''s owner, or none '
  'if that is a superuser, too';
COMMENT ON COLUMN _flohsync.webhook_handler.code_owner IS
  'Owner of the function when it was set; it is not called after a change of its owner';
COMMENT ON COLUMN _flohsync.webhook_handler.set_at IS 'When it was set';

CREATE FUNCTION _flohsync.guard_handler() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF TG_OP <> 'INSERT' AND NOT coalesce(_flohsync.may_act_as(_flohsync.role_oid(OLD.owner)), true)
     OR TG_OP <> 'DELETE' AND NOT coalesce(_flohsync.may_act_as(_flohsync.role_oid(NEW.owner)), true) THEN
    PERFORM _flohsync.raise('42501',
      _flohsync.clean(format('the entitlement handler runs with the rights of role "%s"',
                             _flohsync.role_name(CASE TG_OP WHEN 'INSERT' THEN NEW.owner ELSE OLD.owner END))),
      NULL,
      'Only a member of that role can set or change it.');
  END IF;
  RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$;
COMMENT ON FUNCTION _flohsync.guard_handler() IS
  'Prevents a role from changing what another role runs as the entitlement handler';
CREATE TRIGGER guard_handler BEFORE INSERT OR UPDATE OR DELETE ON _flohsync.webhook_handler
FOR EACH ROW EXECUTE FUNCTION _flohsync.guard_handler();

CREATE FUNCTION _flohsync.function_of_handler(_handler text) RETURNS oid
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  form text[] := regexp_match(_handler, '^(.*)\((uuid, jsonb|text, jsonb|jsonb)\)$');
  part text[] := parse_ident(form[1]);
BEGIN
  -- Not to_regprocedure: it takes USAGE on the schema, which no role here needs.
  RETURN (SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
           WHERE n.nspname = part[1] AND p.proname = part[2] AND oidvectortypes(p.proargtypes) = form[2]
             AND p.prokind = 'f' AND NOT p.proretset);
END
$$;
COMMENT ON FUNCTION _flohsync.function_of_handler(text) IS
  'The function that a text of webhook_handler names; null when there is none';

CREATE FUNCTION _flohsync.set_entitlement_handler(handler regprocedure) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  p pg_proc;
BEGIN
  IF set_entitlement_handler.handler IS NULL THEN
    DELETE FROM _flohsync.webhook_handler;
    RETURN;
  END IF;
  SELECT x.* INTO p FROM pg_proc x WHERE x.oid = set_entitlement_handler.handler;
  IF p.oid IS NULL OR p.prokind <> 'f' OR p.proretset
     OR oidvectortypes(p.proargtypes) NOT IN ('uuid, jsonb', 'text, jsonb', 'jsonb') THEN
    PERFORM _flohsync.invalid('handler',
                              format('%s cannot handle entitlement events',
                                     coalesce(p.oid::regprocedure::text, set_entitlement_handler.handler::text)),
      'A handler is a function (connector uuid, body jsonb); if it returns a boolean, that says '
      'whether it changed anything.');
  ELSIF NOT has_function_privilege(_flohsync.caller(), p.oid, 'EXECUTE') THEN
    PERFORM _flohsync.raise('42501', format('permission denied for function %s', p.oid::regprocedure));
  END IF;
  INSERT INTO _flohsync.webhook_handler AS h (handler, owner, code_owner)
  SELECT format('%I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)), _flohsync.role(_flohsync.caller()),
    _flohsync.role(p.proowner)
    FROM pg_namespace n WHERE n.oid = p.pronamespace
  ON CONFLICT (id) DO UPDATE SET handler = EXCLUDED.handler, owner = EXCLUDED.owner, code_owner = EXCLUDED.code_owner,
    set_at = EXCLUDED.set_at;
END
$$;
COMMENT ON FUNCTION _flohsync.set_entitlement_handler(regprocedure) IS
  'Implementation of the public function of this name, run as its owner';

CREATE FUNCTION flohsync.set_entitlement_handler(handler regprocedure) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_owner';
COMMENT ON FUNCTION flohsync.set_entitlement_handler(regprocedure) IS
  'Sets the function (connector uuid, body jsonb) that handles webhooks without a resource type; it runs with the '
  'rights of the caller (of the function''s owner, if the caller is a superuser; with none, if both are), and its '
  'error makes the sender retry; null: they are recorded in entitlement_event; 42501 unless the caller may execute it '
  'and is a member of the role that set the previous one';

CREATE FUNCTION flohsync.handle_webhook(connector text, body jsonb) RETURNS jsonb
LANGUAGE c VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_handle_webhook';
COMMENT ON FUNCTION flohsync.handle_webhook(text, jsonb) IS
  'Processes a webhook that the caller has verified: {"accepted":true,"action":…,"changed":…}; 22023 for an invalid '
  'body, 55000 for a disabled connector';
SELECT _flohsync.allow('manager', 'flohsync.handle_webhook(text, jsonb)');

CREATE FUNCTION flohsync.receive_webhook(connector text, body bytea, headers jsonb) RETURNS jsonb
LANGUAGE c VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_receive_webhook';
COMMENT ON FUNCTION flohsync.receive_webhook(text, bytea, jsonb) IS
  'Verifies and processes a webhook: the body as received, the headers as an object of strings; 28000 when it is not '
  'authentic, whatever the reason; then as handle_webhook()';
SELECT _flohsync.allow('manager', 'flohsync.receive_webhook(text, bytea, jsonb)');

-- Failures.

CREATE FUNCTION _flohsync.webhook_failed(_record flohsync.resource_record, _stage text, _state text, _message text)
  RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT _flohsync.stage_failed(NULL, _stage, _state, _message, _record => _record);
  -- The next post-sync makes up for it.
  SELECT _flohsync.note_changes((_record).connector_id, (_record).resource_type, ARRAY[(_record).id], 'recheck');
END;
COMMENT ON FUNCTION _flohsync.webhook_failed(flohsync.resource_record, text, text, text) IS
  'Records that post-processing of a webhook failed, and queues the record for the next post-sync';

-- Added, updated or restored.

-- A webhook waits for a matching of many before it locks its record; the message says why it does not have to.
CREATE FUNCTION _flohsync.await_matching(_connector uuid, _type text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.share_matching(_connector, _type);
  RETURN NULL;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
  RETURN _flohsync.clean(SQLERRM);
END
$$;
COMMENT ON FUNCTION _flohsync.await_matching(uuid, text) IS
  'Like share_matching(), for a webhook, which continues without the lock when it is not available: null, or why it '
  'is not';

CREATE FUNCTION _flohsync.follow_webhook(_record uuid, _change text, _hindered text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  c flohsync.connector_sync_config;
  x flohsync.resource_record;
  did record;
  held boolean;
BEGIN
  SELECT * INTO STRICT x FROM flohsync.resource_record y WHERE y.id = _record;
  SELECT * INTO c FROM flohsync.connector_sync_config y WHERE y.connector_id = x.connector_id
      AND y.resource_type = x.resource_type;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  BEGIN
    IF _flohsync.matches_users(c) AND _hindered IS NOT NULL THEN
      PERFORM _flohsync.webhook_failed(x, 'match', '55P03', _hindered);
    ELSIF _flohsync.matches_users(c) THEN
      -- No user is created while a run is held.
      held := c.create_users AND EXISTS (SELECT FROM flohsync.sync_run r
                 WHERE r.connector_id = c.connector_id AND r.resource_type = c.resource_type AND r.status = 'held');
      did := _flohsync.process_users(c, ARRAY[x.id], ARRAY[x.id], NULL, held, false, false, false, x);
      IF did.errors <> '[]' OR (held AND coalesce((did.report ->> 'createPending')::int, 0) > 0) THEN
        PERFORM _flohsync.note_changes(c.connector_id, c.resource_type, ARRAY[x.id], 'recheck');
      END IF;
    END IF;
  EXCEPTION WHEN OTHERS THEN
    PERFORM _flohsync.webhook_failed(x, 'match', SQLSTATE, SQLERRM);
  END;
  BEGIN
    IF _flohsync.triggers_per_record(c) THEN
      PERFORM _flohsync.queue_record_jobs(c, NULL, ARRAY[
                _flohsync.changed_record(x.id, x.external_id, x.display_name, x.email, _change, m.user_id,
                                         m.match_status)])
         FROM (SELECT) one LEFT JOIN flohsync.connector_sync_match m ON m.connector_resource_id = x.id;
    END IF;
  EXCEPTION WHEN OTHERS THEN
    PERFORM _flohsync.webhook_failed(x, 'workflow', SQLSTATE, SQLERRM);
    PERFORM _flohsync.note_changes(c.connector_id, c.resource_type, ARRAY[x.id], _change);
  END;
END
$$;
COMMENT ON FUNCTION _flohsync.follow_webhook(uuid, text, text) IS
  'Runs post-sync processing for one record that a webhook changed; failures, including that of the lock of the '
  'matching, are recorded, not raised';

-- Out of the scope that the filter rules set: as a complete pass would find it.

CREATE FUNCTION _flohsync.leave_scope(_record uuid, _observed_at timestamptz, _event_at timestamptz) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  x flohsync.resource_record;
BEGIN
  SELECT * INTO x FROM flohsync.resource_record r
   WHERE r.id = _record AND r.stale_since IS NULL AND _flohsync.is_news(r, _observed_at, _event_at);
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  -- Who leaves by that is for the next post-sync to say: its safeguard sees how many there are.
  PERFORM _flohsync.records_staled(x.connector_id, x.resource_type, ARRAY[x.id], NULL, _observed_at, _event_at);
  RETURN true;
END
$$;
COMMENT ON FUNCTION _flohsync.leave_scope(uuid, timestamptz, timestamptz) IS
  'Marks a record, which the caller has locked, stale because an event moved it out of scope; '
  'false when it was stale already or is newer';

-- Deleted.

CREATE FUNCTION _flohsync.deactivation_limit_reached(_c flohsync.connector_sync_config) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  max_fraction numeric := (_c.safeguards ->> 'maxDeactivateFraction')::numeric;
  min_records numeric := coalesce((_c.safeguards ->> 'minRecords')::numeric, 0);
  n bigint;
  active bigint;
BEGIN
  IF max_fraction IS NULL THEN
    RETURN false;
  END IF;
  SELECT count(*) + 1 INTO n FROM _flohsync.resource_tombstone t
   WHERE t.connector_id = _c.connector_id AND t.resource_type = _c.resource_type AND t.deactivated
     AND t.made_at > clock_timestamp() - interval '24 hours';
  IF n <= min_records THEN
    RETURN false;
  END IF;
  -- The users there were: those who are gone count, and so many of the others are enough to know.
  SELECT count(*) + n - 1 INTO active
    FROM (SELECT FROM flohsync.connector_sync_match m
            JOIN _flohsync.app_user u ON u.id = m.user_id
           WHERE m.connector_id = _c.connector_id AND m.resource_type = _c.resource_type
             AND m.match_status IN ('matched', 'manual_override') AND coalesce(u.active, true)
           LIMIT CASE WHEN max_fraction > 0 THEN ceil(n / max_fraction) ELSE 0 END) u;
  RETURN n > max_fraction * active;
END
$$;
COMMENT ON FUNCTION _flohsync.deactivation_limit_reached(flohsync.connector_sync_config) IS
  'Whether one more deactivation by a webhook would exceed the safeguard within 24 hours';

-- _prepare_removal applies the rules about the user of a record that is to be removed:
-- true when that may be done.  Otherwise the record must stay, stale, because the next
-- post-sync has to look at it.
CREATE FUNCTION _flohsync.prepare_removal(_c flohsync.connector_sync_config, _x flohsync.resource_record,
                                          _hindered text, OUT removable boolean, OUT deactivated boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  users uuid[];
BEGIN
  removable := true;
  deactivated := false;
  IF _hindered IS NOT NULL THEN
    RAISE lock_not_available USING MESSAGE = _flohsync.clean(_hindered);
  END IF;
  -- All records of the user in one order: when the last two of them go at once, one sees that it is the last.
  PERFORM FROM flohsync.connector_sync_match m
    WHERE m.user_id = (SELECT o.user_id FROM flohsync.connector_sync_match o WHERE o.connector_resource_id = _x.id)
    ORDER BY m.id FOR UPDATE;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  PERFORM _flohsync.records_leaving(ARRAY[_x.id]);
  IF _c.deactivate_users THEN
    users := ARRAY(SELECT * FROM _flohsync.users_to_deactivate(_c, ARRAY[_x.id]));
    IF users <> '{}' THEN
      IF _flohsync.deactivation_limit_reached(_c) THEN
        INSERT INTO flohsync.sync_error (connector_id, resource_type, external_id, error_class, message)
        VALUES (_x.connector_id, _x.resource_type, _x.external_id, _flohsync.error_class('safeguard'),
                'the user was not deactivated: webhooks would have deactivated more users within 24 hours than the '
                'safeguard allows; the next run decides');
        PERFORM _flohsync.note_changes(_x.connector_id, _x.resource_type, ARRAY[_x.id], 'staled');
        removable := false;
        RETURN;
      END IF;
      PERFORM flohsync._user_deactivate(users, NULL);
      deactivated := true;
    END IF;
  END IF;
  PERFORM _flohsync.requeue_in_other_configs(_c, ARRAY[_x.id]);
EXCEPTION WHEN OTHERS THEN
  -- A user to be deactivated must not be lost with the record.
  PERFORM _flohsync.webhook_failed(_x, 'deactivate', SQLSTATE, SQLERRM);
  removable := false;
  deactivated := false;
END
$$;
COMMENT ON FUNCTION _flohsync.prepare_removal(flohsync.connector_sync_config, flohsync.resource_record, text) IS
  'Deactivates the user of a record that is to be removed if so configured; returns whether the record may be removed, '
  'and whether a user was deactivated';

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

-- What is kept no longer than it can be of use.

CREATE FUNCTION _flohsync.forget_webhooks(_retention interval) RETURNS void
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
