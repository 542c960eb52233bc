-- Configurations: what of a connector is synced, when, and under which guards.

CREATE TABLE flohsync.workflow_definition (
  id         uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
  name       text NOT NULL UNIQUE,
  enabled    boolean NOT NULL DEFAULT true,
  definition jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE flohsync.workflow_definition IS 'Workflows that a sync can trigger';
COMMENT ON COLUMN flohsync.workflow_definition.id IS 'Identity of the workflow';
COMMENT ON COLUMN flohsync.workflow_definition.name IS 'Unique name';
COMMENT ON COLUMN flohsync.workflow_definition.enabled IS 'When false, jobs of the workflow are not run';
COMMENT ON COLUMN flohsync.workflow_definition.definition IS 'What the workflow does, opaque to flohsync';
COMMENT ON COLUMN flohsync.workflow_definition.created_at IS 'When the row was created';
SELECT _flohsync.allow('reader', 'flohsync.workflow_definition');

CREATE TABLE flohsync.connector_sync_config (
  id                             uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
  connector_id                   uuid NOT NULL REFERENCES flohsync.connector_definition ON DELETE CASCADE,
  resource_type                  varchar(64) COLLATE "C" NOT NULL
    CHECK (resource_type ~ '^[A-Za-z][A-Za-z0-9_.-]{0,63}$'),
  enabled                        boolean NOT NULL DEFAULT false,
  strategy                       varchar(32) NOT NULL DEFAULT 'full' CHECK (strategy IN ('full', 'incremental')),
  cron_schedule                  varchar(64),
  filter_rules                   jsonb,
  stale_retention                varchar(32) NOT NULL DEFAULT '7d',
  last_sync_at                   timestamptz,
  last_sync_cursor               text,
  last_sync_status               varchar(32) NOT NULL DEFAULT 'idle'
    CHECK (last_sync_status IN ('idle', 'running', 'success', 'error')),
  last_sync_error                text,
  last_sync_stats                jsonb,
  attribute_mappings             jsonb,
  user_match_strategy            varchar(32) NOT NULL DEFAULT 'email',
  user_match_fallback_strategies jsonb,
  issuer_source_path             text,
  post_sync_workflow_id          uuid REFERENCES flohsync.workflow_definition ON DELETE SET NULL,
  sync_trigger_mode              varchar(32) NOT NULL DEFAULT 'none'
    CHECK (sync_trigger_mode IN ('none', 'per_record', 'summary')),
  create_users                   boolean NOT NULL DEFAULT false,
  deactivate_users               boolean NOT NULL DEFAULT false,
  create_user_defaults           jsonb,
  full_cron_schedule             varchar(64),
  timezone                       text NOT NULL DEFAULT 'UTC',
  overlap                        interval NOT NULL DEFAULT '5 minutes' CHECK (overlap >= '0'),
  hash_ignore                    jsonb,
  hash_ignore_since              timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  safeguards                     jsonb NOT NULL
    DEFAULT '{"maxStaleFraction": 0.2, "maxDeactivateFraction": 0.05, "minRecords": 10}',
  next_run_at                    timestamptz,
  next_full_run_at               timestamptz,
  watermark                      timestamptz,
  last_full_pass_at              timestamptz,
  last_success_at                timestamptz,
  last_complete_at               timestamptz,
  incomplete_reason              text,
  full_incomplete_reason         text,
  retry_at                       timestamptz,
  retries                        integer NOT NULL DEFAULT 0,
  schedule_error                 text,
  parked                         boolean NOT NULL DEFAULT false,
  totals                         jsonb NOT NULL DEFAULT '{}',
  delta_link                     text,
  delta_fingerprint              text,
  owner                          _flohsync.role NOT NULL,
  created_at                     timestamptz NOT NULL DEFAULT pg_catalog.now(),
  updated_at                     timestamptz NOT NULL DEFAULT pg_catalog.now(),
  UNIQUE (connector_id, resource_type)
) WITH (fillfactor = 50, toast_tuple_target = 128);
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
-- As next_due() has it.
CREATE INDEX connector_sync_config_due ON flohsync.connector_sync_config
  (least(next_run_at, next_full_run_at, retry_at)) WHERE enabled AND NOT parked;
DO $$
BEGIN
  EXECUTE format('ALTER TABLE flohsync.connector_sync_config ADD CHECK (user_match_strategy IN (%s))',
                 (SELECT string_agg(quote_literal(n), ', ') FROM unnest(_flohsync.match_strategy_names()) n));
END
$$;
-- Queries and functions of kind sql run with the rights of the configuration's
-- owner.  So what decides what runs (owner, connector and type of a
-- configuration; kind and config of its connector) is changed only by who could
-- act as the owner before the change and as the one after it, by a function or
-- by writing to the tables.  What has an owner that is gone does not run.
--
-- A type that is not configured has no owner: there they run, for
-- test_connector() and the cache, with the rights of who wrote them, and not of
-- who asks.
CREATE FUNCTION _flohsync.guard_owner() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  c flohsync.connector_definition;
BEGIN
  IF NEW.owner IS NULL THEN
    NEW.owner := _flohsync.role(_flohsync.acting_role());
  END IF;
  IF TG_OP = 'UPDATE' AND (NEW.owner::text, NEW.connector_id, NEW.resource_type) IS NOT DISTINCT
    FROM (OLD.owner::text, OLD.connector_id, OLD.resource_type) THEN
    RETURN NEW;
  END IF;
  IF NOT coalesce(_flohsync.may_act_as(_flohsync.role_oid(NEW.owner)), true) THEN
    PERFORM _flohsync.raise('42501',
      format('role "%s" cannot be made the owner of a configuration', _flohsync.role_name(NEW.owner)),
      NULL,
      'Only a member of that role can do that.');
  ELSIF TG_OP = 'UPDATE' AND NOT coalesce(_flohsync.may_act_as(_flohsync.role_oid(OLD.owner)), true) THEN
    PERFORM _flohsync.raise('42501',
      format('the configuration runs with the rights of role "%s"', _flohsync.role_name(OLD.owner)),
      NULL,
      'Only a member of that role can change what it runs, or its owner.');
  END IF;
  SELECT * INTO c FROM flohsync.connector_definition d
   WHERE d.id = NEW.connector_id AND d.kind = 'sql' AND NOT _flohsync.may_act_as(_flohsync.role_oid(d.author));
  IF FOUND THEN
    RAISE WARNING USING
      MESSAGE = format('role "%s" decided what connector "%s" runs', _flohsync.role_name(c.author), c.name),
      DETAIL = format('Resource type "%s" runs with the rights of role "%s".', NEW.resource_type,
                      _flohsync.role_name(NEW.owner)),
      HINT = 'Review the config of the connector; flohsync.delete_sync_config() revokes the rights again.';
  END IF;
  RETURN NEW;
END
$$;
COMMENT ON FUNCTION _flohsync.guard_owner() IS
  'Prevents a role from making another role the owner of a configuration, and from changing what another role runs; '
  'warns when a role lends its rights to code that another role configured';
CREATE TRIGGER guard_owner BEFORE INSERT OR UPDATE OF owner, connector_id, resource_type
  ON flohsync.connector_sync_config
FOR EACH ROW EXECUTE FUNCTION _flohsync.guard_owner();

CREATE FUNCTION _flohsync.note_hash_rule() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  NEW.hash_ignore_since := clock_timestamp();
  RETURN NEW;
END
$$;
COMMENT ON FUNCTION _flohsync.note_hash_rule() IS 'Records when hash_ignore was changed';
CREATE TRIGGER note_hash_rule BEFORE UPDATE OF hash_ignore ON flohsync.connector_sync_config
FOR EACH ROW WHEN (OLD.hash_ignore IS DISTINCT FROM NEW.hash_ignore) EXECUTE FUNCTION _flohsync.note_hash_rule();

CREATE FUNCTION _flohsync.guard_queries() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  foreign_owner text;
BEGIN
  SELECT _flohsync.role_name(c.owner) INTO foreign_owner FROM flohsync.connector_sync_config c
   WHERE c.connector_id = OLD.id AND NOT _flohsync.may_act_as(_flohsync.role_oid(c.owner)) LIMIT 1;
  IF foreign_owner IS NOT NULL THEN
    PERFORM _flohsync.raise('42501',
      format('connector "%s" runs with the rights of role "%s"', OLD.name, foreign_owner),
      NULL,
      'Only a member of that role can change what it runs.');
  END IF;
  IF (NEW.id, NEW.kind, NEW.config, NEW.code_owner::text) IS NOT DISTINCT
    FROM (OLD.id, OLD.kind, OLD.config, OLD.code_owner::text)
     AND NEW.author::text = _flohsync.role_gone(OLD.author)::text THEN
    RETURN NEW;
  END IF;
  NEW.author := _flohsync.role(_flohsync.acting_role());
  NEW.code_owner := _flohsync.code_owner(NEW.kind, NEW.config);
  RETURN NEW;
END
$$;
COMMENT ON FUNCTION _flohsync.guard_queries() IS
  'Prevents a role from changing what another role runs, and records who decides that';
CREATE TRIGGER guard_queries BEFORE UPDATE OF id, kind, config, author, code_owner ON flohsync.connector_definition
FOR EACH ROW WHEN ((NEW.id, NEW.kind, NEW.config, NEW.author::text, NEW.code_owner::text)
                   IS DISTINCT FROM (OLD.id, OLD.kind, OLD.config, OLD.author::text, OLD.code_owner::text)
                   AND 'sql' IN (OLD.kind, NEW.kind))
EXECUTE FUNCTION _flohsync.guard_queries();

COMMENT ON TABLE flohsync.connector_sync_config IS 'How one resource type of a connector is synced';
COMMENT ON COLUMN flohsync.connector_sync_config.id IS 'Identity of the configuration';
COMMENT ON COLUMN flohsync.connector_sync_config.connector_id IS 'Its connector';
COMMENT ON COLUMN flohsync.connector_sync_config.resource_type IS 'Resource type';
COMMENT ON COLUMN flohsync.connector_sync_config.enabled IS 'Whether schedules run; runs by hand are always possible';
COMMENT ON COLUMN flohsync.connector_sync_config.strategy IS 'full or incremental';
COMMENT ON COLUMN flohsync.connector_sync_config.cron_schedule IS
  'When runs of the strategy are due; null: by hand only';
COMMENT ON COLUMN flohsync.connector_sync_config.filter_rules IS 'Which upstream records are in scope';
COMMENT ON COLUMN flohsync.connector_sync_config.stale_retention IS 'How long stale records are kept';
COMMENT ON COLUMN flohsync.connector_sync_config.last_sync_at IS 'End of the last run';
COMMENT ON COLUMN flohsync.connector_sync_config.last_sync_cursor IS
  'Cursor from which the next run resumes after an error';
COMMENT ON COLUMN flohsync.connector_sync_config.last_sync_status IS 'idle, running, success or error';
COMMENT ON COLUMN flohsync.connector_sync_config.last_sync_error IS
  'Message of the last run when it failed or was held';
COMMENT ON COLUMN flohsync.connector_sync_config.last_sync_stats IS 'Statistics of the last run';
COMMENT ON COLUMN flohsync.connector_sync_config.attribute_mappings IS 'Rules that copy attributes into user profiles';
COMMENT ON COLUMN flohsync.connector_sync_config.user_match_strategy IS
  'First strategy by which records are matched to users';
COMMENT ON COLUMN flohsync.connector_sync_config.user_match_fallback_strategies IS
  'Strategies tried after the first, in order';
COMMENT ON COLUMN flohsync.connector_sync_config.issuer_source_path IS
  'Where a record names its issuer; null: attributes.identityIssuer';
COMMENT ON COLUMN flohsync.connector_sync_config.post_sync_workflow_id IS 'Workflow to trigger after a run';
COMMENT ON COLUMN flohsync.connector_sync_config.sync_trigger_mode IS 'none, per_record or summary';
COMMENT ON COLUMN flohsync.connector_sync_config.create_users IS
  'Create users for unmatched records with an e-mail address';
COMMENT ON COLUMN flohsync.connector_sync_config.deactivate_users IS 'Deactivate users whose only record went stale';
COMMENT ON COLUMN flohsync.connector_sync_config.create_user_defaults IS 'Profile values of users created this way';
COMMENT ON COLUMN flohsync.connector_sync_config.full_cron_schedule IS
  'When a full pass runs beside an incremental one';
COMMENT ON COLUMN flohsync.connector_sync_config.timezone IS 'Time zone of both schedules';
COMMENT ON COLUMN flohsync.connector_sync_config.overlap IS
  'How far an incremental run reaches back behind the watermark';
COMMENT ON COLUMN flohsync.connector_sync_config.hash_ignore IS 'Attribute paths left out of the hash';
COMMENT ON COLUMN flohsync.connector_sync_config.hash_ignore_since IS
  'When hash_ignore was last changed: until a full pass that began later is complete, records may have '
  'hashes of the previous setting';
COMMENT ON COLUMN flohsync.connector_sync_config.safeguards IS
  'Limits above which a pass is held for approval; null disables a limit';
COMMENT ON COLUMN flohsync.connector_sync_config.next_run_at IS 'When the next scheduled run is due';
COMMENT ON COLUMN flohsync.connector_sync_config.next_full_run_at IS 'When the next run of the second schedule is due';
COMMENT ON COLUMN flohsync.connector_sync_config.watermark IS
  'Start of the last successful run that received everything it requested, by the upstream''s clock where '
  'that is behind the server''s';
COMMENT ON COLUMN flohsync.connector_sync_config.last_full_pass_at IS
  'Start of the last complete full pass: every record that is not stale was confirmed then or later';
COMMENT ON COLUMN flohsync.connector_sync_config.last_success_at IS 'End of the last run that succeeded';
COMMENT ON COLUMN flohsync.connector_sync_config.full_incomplete_reason IS
  'Why the last full pass was not complete; null: it was. Unaffected by incremental passes';
COMMENT ON COLUMN flohsync.connector_sync_config.last_complete_at IS 'End of the last run whose pass was complete';
COMMENT ON COLUMN flohsync.connector_sync_config.incomplete_reason IS
  'Why the pass of the last run was not complete; null when it was';
COMMENT ON COLUMN flohsync.connector_sync_config.retry_at IS
  'When a failed scheduled run is retried; null: at the next tick';
COMMENT ON COLUMN flohsync.connector_sync_config.retries IS 'Number of retries of the failed scheduled run';
COMMENT ON COLUMN flohsync.connector_sync_config.schedule_error IS
  'Why the schedules cannot be used; checked again every five minutes';
COMMENT ON COLUMN flohsync.connector_sync_config.parked IS
  'Schedules are suspended because runs repeatedly crashed their worker; a run by hand resumes them';
COMMENT ON COLUMN flohsync.connector_sync_config.totals IS
  'Totals over all runs: how many ended in which status, and their statistics';
COMMENT ON COLUMN flohsync.connector_sync_config.delta_link IS
  'Delta link from which the next incremental pass of a connector of kind rest starts';
COMMENT ON COLUMN flohsync.connector_sync_config.delta_fingerprint IS
  'Fingerprint of the pass that ended with that link; the link is used only while it is unchanged';
COMMENT ON COLUMN flohsync.connector_sync_config.owner IS
  'Role with whose rights connectors of kind sql run; ?name: that role was dropped, or its access '
  'was revoked, and nothing runs';
COMMENT ON COLUMN flohsync.connector_sync_config.created_at IS 'When the row was created';
COMMENT ON COLUMN flohsync.connector_sync_config.updated_at IS 'When the settings were last changed';
SELECT _flohsync.allow('reader', 'flohsync.connector_sync_config');
