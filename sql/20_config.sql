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
  resource_type                  varchar(64) COLLATE "C" NOT NULL CHECK (resource_type ~ '^[A-Za-z][A-Za-z0-9_.-]{0,63}$'),
  enabled                        boolean NOT NULL DEFAULT false,
  strategy                       varchar(32) NOT NULL DEFAULT 'full' CHECK (strategy IN ('full', 'incremental')),
  cron_schedule                  varchar(64),
  filter_rules                   jsonb,
  stale_retention                varchar(32) NOT NULL DEFAULT '7d',
  last_sync_at                   timestamptz,
  last_sync_cursor               text,
  last_sync_status               varchar(32) NOT NULL DEFAULT 'idle' CHECK (last_sync_status IN ('idle', 'running', 'success', 'error')),
  last_sync_error                text,
  last_sync_stats                jsonb,
  attribute_mappings             jsonb,
  user_match_strategy            varchar(32) NOT NULL DEFAULT 'email',
  user_match_fallback_strategies jsonb,
  issuer_source_path             text,
  post_sync_workflow_id          uuid REFERENCES flohsync.workflow_definition ON DELETE SET NULL,
  sync_trigger_mode              varchar(32) NOT NULL DEFAULT 'none' CHECK (sync_trigger_mode IN ('none', 'per_record', 'summary')),
  create_users                   boolean NOT NULL DEFAULT false,
  deactivate_users               boolean NOT NULL DEFAULT false,
  create_user_defaults           jsonb,
  full_cron_schedule             varchar(64),
  timezone                       text NOT NULL DEFAULT 'UTC',
  overlap                        interval NOT NULL DEFAULT '5 minutes' CHECK (overlap >= '0'),
  hash_ignore                    jsonb,
  hash_ignore_since              timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  safeguards                     jsonb NOT NULL DEFAULT '{"maxStaleFraction": 0.2, "maxDeactivateFraction": 0.05, "minRecords": 10}',
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
);
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
  IF TG_OP = 'UPDATE' AND (NEW.owner::text, NEW.connector_id, NEW.resource_type) IS NOT DISTINCT FROM (OLD.owner::text, OLD.connector_id, OLD.resource_type) THEN
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
      DETAIL = format('Resource type "%s" runs with the rights of role "%s".', NEW.resource_type, _flohsync.role_name(NEW.owner)),
      HINT = 'Review the config of the connector; flohsync.delete_sync_config() revokes the rights again.';
  END IF;
  RETURN NEW;
END
$$;
COMMENT ON FUNCTION _flohsync.guard_owner() IS 'Prevents a role from making another role the owner of a configuration, and from changing what another role runs; warns when a role lends its rights to code that another role configured';
CREATE TRIGGER guard_owner BEFORE INSERT OR UPDATE OF owner, connector_id, resource_type ON flohsync.connector_sync_config
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
  IF (NEW.id, NEW.kind, NEW.config, NEW.code_owner::text) IS NOT DISTINCT FROM (OLD.id, OLD.kind, OLD.config, OLD.code_owner::text)
     AND NEW.author::text = _flohsync.role_gone(OLD.author)::text THEN
    RETURN NEW;
  END IF;
  NEW.author := _flohsync.role(_flohsync.acting_role());
  NEW.code_owner := _flohsync.code_owner(NEW.kind, NEW.config);
  RETURN NEW;
END
$$;
COMMENT ON FUNCTION _flohsync.guard_queries() IS 'Prevents a role from changing what another role runs, and records who decides that';
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
COMMENT ON COLUMN flohsync.connector_sync_config.cron_schedule IS 'When runs of the strategy are due; null: by hand only';
COMMENT ON COLUMN flohsync.connector_sync_config.filter_rules IS 'Which upstream records are in scope';
COMMENT ON COLUMN flohsync.connector_sync_config.stale_retention IS 'How long stale records are kept';
COMMENT ON COLUMN flohsync.connector_sync_config.last_sync_at IS 'End of the last run';
COMMENT ON COLUMN flohsync.connector_sync_config.last_sync_cursor IS 'Cursor from which the next run resumes after an error';
COMMENT ON COLUMN flohsync.connector_sync_config.last_sync_status IS 'idle, running, success or error';
COMMENT ON COLUMN flohsync.connector_sync_config.last_sync_error IS 'Message of the last run when it failed or was held';
COMMENT ON COLUMN flohsync.connector_sync_config.last_sync_stats IS 'Statistics of the last run';
COMMENT ON COLUMN flohsync.connector_sync_config.attribute_mappings IS 'Rules that copy attributes into user profiles';
COMMENT ON COLUMN flohsync.connector_sync_config.user_match_strategy IS 'First strategy by which records are matched to users';
COMMENT ON COLUMN flohsync.connector_sync_config.user_match_fallback_strategies IS 'Strategies tried after the first, in order';
COMMENT ON COLUMN flohsync.connector_sync_config.issuer_source_path IS 'Where a record names its issuer; null: attributes.identityIssuer';
COMMENT ON COLUMN flohsync.connector_sync_config.post_sync_workflow_id IS 'Workflow to trigger after a run';
COMMENT ON COLUMN flohsync.connector_sync_config.sync_trigger_mode IS 'none, per_record or summary';
COMMENT ON COLUMN flohsync.connector_sync_config.create_users IS 'Create users for unmatched records with an e-mail address';
COMMENT ON COLUMN flohsync.connector_sync_config.deactivate_users IS 'Deactivate users whose only record went stale';
COMMENT ON COLUMN flohsync.connector_sync_config.create_user_defaults IS 'Profile values of users created this way';
COMMENT ON COLUMN flohsync.connector_sync_config.full_cron_schedule IS 'When a full pass runs beside an incremental one';
COMMENT ON COLUMN flohsync.connector_sync_config.timezone IS 'Time zone of both schedules';
COMMENT ON COLUMN flohsync.connector_sync_config.overlap IS 'How far an incremental run reaches back behind the watermark';
COMMENT ON COLUMN flohsync.connector_sync_config.hash_ignore IS 'Attribute paths left out of the hash';
COMMENT ON COLUMN flohsync.connector_sync_config.hash_ignore_since IS 'When hash_ignore was last changed: until a full pass that began later is complete, records may have hashes of the previous setting';
COMMENT ON COLUMN flohsync.connector_sync_config.safeguards IS 'Limits above which a pass is held for approval; null disables a limit';
COMMENT ON COLUMN flohsync.connector_sync_config.next_run_at IS 'When the next scheduled run is due';
COMMENT ON COLUMN flohsync.connector_sync_config.next_full_run_at IS 'When the next run of the second schedule is due';
COMMENT ON COLUMN flohsync.connector_sync_config.watermark IS 'Start of the last successful run that received everything it requested, by the upstream''s clock where that is behind the server''s';
COMMENT ON COLUMN flohsync.connector_sync_config.last_full_pass_at IS 'Start of the last complete full pass: every record that is not stale was confirmed then or later';
COMMENT ON COLUMN flohsync.connector_sync_config.last_success_at IS 'End of the last run that succeeded';
COMMENT ON COLUMN flohsync.connector_sync_config.full_incomplete_reason IS 'Why the last full pass was not complete; null: it was. Unaffected by incremental passes';
COMMENT ON COLUMN flohsync.connector_sync_config.last_complete_at IS 'End of the last run whose pass was complete';
COMMENT ON COLUMN flohsync.connector_sync_config.incomplete_reason IS 'Why the pass of the last run was not complete; null when it was';
COMMENT ON COLUMN flohsync.connector_sync_config.retry_at IS 'When a failed scheduled run is retried; null: at the next tick';
COMMENT ON COLUMN flohsync.connector_sync_config.retries IS 'Number of retries of the failed scheduled run';
COMMENT ON COLUMN flohsync.connector_sync_config.schedule_error IS 'Why the schedules cannot be used; checked again every five minutes';
COMMENT ON COLUMN flohsync.connector_sync_config.parked IS 'Schedules are suspended because runs repeatedly crashed their worker; a run by hand resumes them';
COMMENT ON COLUMN flohsync.connector_sync_config.totals IS 'Totals over all runs: how many ended in which status, and their statistics';
COMMENT ON COLUMN flohsync.connector_sync_config.delta_link IS 'Delta link from which the next incremental pass of a connector of kind rest starts';
COMMENT ON COLUMN flohsync.connector_sync_config.delta_fingerprint IS 'Fingerprint of the pass that ended with that link; the link is used only while it is unchanged';
COMMENT ON COLUMN flohsync.connector_sync_config.owner IS 'Role with whose rights connectors of kind sql run; ?name: that role was dropped, or its access was revoked, and nothing runs';
COMMENT ON COLUMN flohsync.connector_sync_config.created_at IS 'When the row was created';
COMMENT ON COLUMN flohsync.connector_sync_config.updated_at IS 'When the settings were last changed';
SELECT _flohsync.allow('reader', 'flohsync.connector_sync_config');

CREATE FUNCTION _flohsync.iso(_at timestamptz) RETURNS text
LANGUAGE sql STABLE STRICT
RETURN pg_catalog.to_char(_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');
COMMENT ON FUNCTION _flohsync.iso(timestamptz) IS 'A time as JSON carries it: ISO 8601 in UTC, milliseconds';

CREATE FUNCTION _flohsync.add_counters(_a jsonb, _b jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT coalesce(pg_catalog.jsonb_object_agg(s.key, s.value), '{}')
    -- What is no number would keep a run from ending.
    FROM (SELECT e.key, pg_catalog.sum(_flohsync.number(e.value)) AS value
            FROM (VALUES (_a), (_b)) o(value)
           CROSS JOIN LATERAL pg_catalog.jsonb_each(CASE pg_catalog.jsonb_typeof(o.value) WHEN 'object' THEN o.value ELSE '{}' END) e
           WHERE pg_catalog.jsonb_typeof(e.value) = 'number'
           GROUP BY e.key) s;
END;
COMMENT ON FUNCTION _flohsync.add_counters(jsonb, jsonb) IS 'Adds two objects of numbers, key by key; other values are skipped';

CREATE FUNCTION _flohsync.duration(_text text) RETURNS interval
LANGUAGE plpgsql STABLE STRICT
SET search_path = pg_catalog, pg_temp
SET intervalstyle = postgres
AS $$
DECLARE
  part text[] := regexp_match(_text, '^\s*(\d{1,9})\s*([smhdw])\s*$');
  answer interval;
BEGIN
  IF part IS NOT NULL THEN
    RETURN part[1]::int * CASE part[2] WHEN 's' THEN interval '1 second' WHEN 'm' THEN interval '1 minute'
                            WHEN 'h' THEN interval '1 hour' WHEN 'd' THEN interval '1 day' ELSE interval '7 days' END;
  END IF;
  -- A number needs a unit: interval takes the one at the end for seconds.
  IF _text ~ '(^|\s)[-+]?[0-9]*\.?[0-9]+\s*$' THEN
    RETURN NULL;
  END IF;
  BEGIN
    answer := _text::interval;
  EXCEPTION WHEN data_exception THEN
    RETURN NULL;
  END;
  RETURN CASE WHEN answer >= interval '0' AND isfinite(answer) THEN answer END;
END
$$;
COMMENT ON FUNCTION _flohsync.duration(text) IS 'The interval of a text such as 7d, 24h, 30m, 90s, 2w or any interval with units; null when it is not a duration';

CREATE FUNCTION _flohsync.cron_next(_schedule text, _after timestamptz, _zone text) RETURNS timestamptz
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_cron_next';
COMMENT ON FUNCTION _flohsync.cron_next(text, timestamptz, text) IS 'Next time after the given one at which a schedule is due; null for a null argument or when there is none';

CREATE FUNCTION _flohsync.cron_problem(_schedule text) RETURNS text
LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_cron_problem';
COMMENT ON FUNCTION _flohsync.cron_problem(text) IS 'Why a cron schedule is invalid; null when it is valid';

CREATE FUNCTION _flohsync.timezone_valid(_name text) RETURNS boolean
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_timezone_valid';
COMMENT ON FUNCTION _flohsync.timezone_valid(text) IS 'Whether a time zone of that name is known';

CREATE FUNCTION flohsync.cron_next(schedule text, after timestamptz DEFAULT pg_catalog.now(), timezone text DEFAULT 'UTC') RETURNS timestamptz
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_cron_next';
COMMENT ON FUNCTION flohsync.cron_next(text, timestamptz, text) IS
  'Next time after the given one at which a cron schedule is due in a time zone; null when there is none; 22023 for an invalid schedule or zone';
SELECT _flohsync.allow('reader', 'flohsync.cron_next(text, timestamptz, text)');

CREATE FUNCTION _flohsync.path_problem(_path text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE
  WHEN _path IS NULL OR _path !~ '^[A-Za-z_][A-Za-z0-9_:-]{0,63}(\.[A-Za-z0-9_:-]{1,64}){0,7}$'
    THEN pg_catalog.format('%s is not a dot path', coalesce(pg_catalog.quote_literal(_path), 'NULL'))
  WHEN pg_catalog.string_to_array(_path, '.') && ARRAY['__proto__', 'prototype', 'constructor']
    THEN pg_catalog.format('%L has an unsafe segment', _path)
  WHEN _path ~ '\.-?[0-9]+(\.|$)' THEN pg_catalog.format('%L counts in an array', _path)
  WHEN pg_catalog.split_part(_path, '.', 1) NOT IN ('externalId', 'displayName', 'email', 'attributes')
    OR (pg_catalog.split_part(_path, '.', 1) <> 'attributes' AND pg_catalog.strpos(_path, '.') > 0)
    THEN pg_catalog.format('%L does not start at externalId, displayName, email or attributes', _path)
END;
COMMENT ON FUNCTION _flohsync.path_problem(text) IS 'Why a dot path into a record is invalid; null when it is valid';

CREATE FUNCTION _flohsync.check_texts(_key text, _value jsonb) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF jsonb_typeof(_value) <> 'array' OR jsonb_path_exists(_value, '$[*] ? (@.type() != "string" || @ == "")') THEN
    PERFORM _flohsync.invalid(_key, 'it must be an array of strings');
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_texts(text, jsonb) IS 'Raises 22023 unless the value is an array of non-empty texts';

CREATE FUNCTION _flohsync.check_fallbacks(_strategies jsonb) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.check_texts('userMatchFallbackStrategies', _strategies);
  IF EXISTS (SELECT FROM jsonb_array_elements_text(_strategies) s(name)
              WHERE s.name <> ALL (_flohsync.match_strategy_names())) THEN
    PERFORM _flohsync.invalid('userMatchFallbackStrategies', format('%s names an unknown match strategy', _strategies),
      format('Match strategies are %s.', _flohsync.enumerated(_flohsync.match_strategy_names())));
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_fallbacks(jsonb) IS 'Raises 22023 unless the value is an array of match strategies';

CREATE FUNCTION _flohsync.check_filter_rules(_rules jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  k text;
  v jsonb;
BEGIN
  PERFORM _flohsync.check_keys(_rules, 'filterRules',
    ARRAY['groupNamePattern', 'groupIds', 'emailDomains', 'memberOfSyncedGroups', 'maxRecords']);
  _rules := jsonb_strip_nulls(_rules);
  FOR k, v IN SELECT * FROM jsonb_each(_rules) LOOP
    CASE k
      WHEN 'groupNamePattern' THEN
        IF jsonb_typeof(v) <> 'string' OR length(v #>> '{}') NOT BETWEEN 1 AND 1000 THEN
          PERFORM _flohsync.invalid('filterRules.groupNamePattern', 'it must be a glob of 1 to 1000 characters', 'For example "proj-*".');
        END IF;
      WHEN 'groupIds' THEN
        PERFORM _flohsync.check_texts('filterRules.groupIds', v);
      WHEN 'emailDomains' THEN
        PERFORM _flohsync.check_texts('filterRules.emailDomains', v);
        SELECT jsonb_agg(d.domain ORDER BY d.i) INTO v
          FROM (SELECT btrim(e.value, E' \t\r\n') AS domain, e.i FROM jsonb_array_elements_text(v) WITH ORDINALITY e(value, i)) d;
        PERFORM _flohsync.check_texts('filterRules.emailDomains', v);
        _rules := _rules || jsonb_build_object(k, v);
      WHEN 'memberOfSyncedGroups' THEN
        IF jsonb_typeof(v) <> 'boolean' THEN
          PERFORM _flohsync.invalid('filterRules.memberOfSyncedGroups', 'it must be true or false');
        END IF;
      WHEN 'maxRecords' THEN
        IF jsonb_typeof(v) <> 'number' OR (v #>> '{}')::numeric NOT BETWEEN 1 AND 9007199254740991
           OR (v #>> '{}')::numeric % 1 <> 0 THEN
          PERFORM _flohsync.invalid('filterRules.maxRecords', 'it must be an integer of at least 1');
        END IF;
    END CASE;
  END LOOP;
  RETURN nullif(_rules, '{}');
END
$$;
COMMENT ON FUNCTION _flohsync.check_filter_rules(jsonb) IS 'Filter rules without null members; 22023 names the invalid key';

CREATE FUNCTION _flohsync.field_problem(_field text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
RETURN CASE
  WHEN _field !~ '^[A-Za-z_][A-Za-z0-9_.-]{0,63}$' OR _field IN ('__proto__', 'prototype', 'constructor')
    THEN pg_catalog.format('%L is not a field name', _field)
  -- Identity and login of users must not be changed through profile fields.
  WHEN _field IN ('id', 'userId', 'iss', 'sub', 'email', 'upstreamIssuer', 'upstreamId', 'confirmed', 'active', 'deletedAt', 'password',
                  'user_id', 'upstream_issuer', 'upstream_id', 'deleted_at')
    THEN pg_catalog.format('%L is not a profile field', _field)
  WHEN _field IN ('phone_number', 'employee_id', 'cost_center', 'start_date', 'manager_id')
    THEN pg_catalog.format('the field is called "%s"', pg_catalog.regexp_replace(pg_catalog.initcap(pg_catalog.replace(_field, '_', ' ') COLLATE "C"), '^(.)(.*) ', pg_catalog.lower(pg_catalog.left(_field, 1) COLLATE "C") || '\2'))
END;
COMMENT ON FUNCTION _flohsync.field_problem(text) IS 'Why the name of a profile field is invalid; null when it is valid';

CREATE FUNCTION _flohsync.check_mappings(_mappings jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  m jsonb;
  i int := 0;
  problem text;
BEGIN
  IF jsonb_typeof(_mappings) <> 'array' THEN
    PERFORM _flohsync.invalid('attributeMappings', 'it must be an array of rules');
  END IF;
  FOR m IN SELECT * FROM jsonb_array_elements(_mappings) LOOP
    PERFORM _flohsync.check_keys(m, format('attributeMappings[%s]', i),
      ARRAY['sourcePath', 'targetField', 'writeMode', 'transform', 'enabled']);
    problem := _flohsync.path_problem(m ->> 'sourcePath');
    IF problem IS NOT NULL THEN
      PERFORM _flohsync.invalid(format('attributeMappings[%s].sourcePath', i), problem, 'For example "attributes.department".');
    END IF;
    problem := CASE WHEN jsonb_typeof(m -> 'targetField') IS DISTINCT FROM 'string' THEN 'it must be a string'
                    ELSE _flohsync.field_problem(m ->> 'targetField') END;
    IF problem IS NOT NULL THEN
      PERFORM _flohsync.invalid(format('attributeMappings[%s].targetField', i), problem,
        'Fields are title, department, phoneNumber, location, employeeId, costCenter, startDate, managerId, and any name of your own.');
    END IF;
    IF m -> 'writeMode' <> 'null' AND coalesce(m ->> 'writeMode', '') NOT IN ('overwrite_always', 'overwrite_if_empty', 'never_overwrite') THEN
      PERFORM _flohsync.invalid(format('attributeMappings[%s].writeMode', i), format('%s is not a write mode', m -> 'writeMode'),
        'Write modes are overwrite_always, overwrite_if_empty and never_overwrite.');
    END IF;
    IF m ? 'enabled' AND jsonb_typeof(m -> 'enabled') <> 'boolean' THEN
      PERFORM _flohsync.invalid(format('attributeMappings[%s].enabled', i), 'it must be true or false');
    END IF;
    IF m ? 'transform' AND jsonb_typeof(m -> 'transform') NOT IN ('string', 'null') THEN
      PERFORM _flohsync.invalid(format('attributeMappings[%s].transform', i), 'it must be a string');
    END IF;
    i := i + 1;
  END LOOP;
  RETURN _mappings;
END
$$;
COMMENT ON FUNCTION _flohsync.check_mappings(jsonb) IS 'Attribute mappings as given; 22023 names the invalid key';

CREATE FUNCTION _flohsync.check_safeguards(_given jsonb) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  k text;
  v jsonb;
BEGIN
  PERFORM _flohsync.check_keys(_given, 'safeguards', ARRAY['maxStaleFraction', 'maxDeactivateFraction', 'minRecords']);
  FOR k, v IN SELECT * FROM jsonb_each(_given) LOOP
    IF v = 'null' THEN
      CONTINUE;
    END IF;
    IF k = 'minRecords' THEN
      IF jsonb_typeof(v) <> 'number' OR (v #>> '{}')::numeric NOT BETWEEN 0 AND 1e12 OR (v #>> '{}')::numeric % 1 <> 0 THEN
        PERFORM _flohsync.invalid('safeguards.minRecords', 'it must be an integer of at least 0, or null');
      END IF;
    ELSIF jsonb_typeof(v) <> 'number' OR (v #>> '{}')::numeric NOT BETWEEN 0 AND 1 THEN
      PERFORM _flohsync.invalid('safeguards.' || k, 'it must be a number from 0 to 1, or null');
    END IF;
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.check_safeguards(jsonb) IS 'Raises 22023 for invalid safeguards, naming the key';

CREATE FUNCTION _flohsync.next_due(_c flohsync.connector_sync_config) RETURNS timestamptz
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE WHEN (_c).enabled AND NOT (_c).parked THEN least((_c).next_run_at, (_c).next_full_run_at, (_c).retry_at) END;
COMMENT ON FUNCTION _flohsync.next_due(flohsync.connector_sync_config) IS 'When a configuration is next due, by a schedule or for a retry; null: not scheduled';

CREATE FUNCTION _flohsync.standing(_c flohsync.connector_sync_config) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN jsonb_build_object(
    'heldRun', (SELECT jsonb_build_object('runId', r.id, 'message', r.error, 'since', _flohsync.iso(r.finished_at))
                  FROM flohsync.sync_run r
                 WHERE r.connector_id = _c.connector_id AND r.resource_type = _c.resource_type AND r.status = 'held'
                 ORDER BY r.id DESC LIMIT 1),
    'incompleteReason', _c.incomplete_reason, 'lastCompletePassAt', _flohsync.iso(_c.last_complete_at));
END
$$;
COMMENT ON FUNCTION _flohsync.standing(flohsync.connector_sync_config) IS 'State of a configuration that later runs must not hide: a held run, an incomplete pass';

-- Made from config_keys(), followed by keys that only inform.
DO $do$
BEGIN
  EXECUTE (SELECT format($create$
    CREATE FUNCTION _flohsync.config_dto(_c flohsync.connector_sync_config) RETURNS jsonb
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    SET intervalstyle = postgres
    RETURN jsonb_build_object(%s)
      || jsonb_build_object(
      'id', (_c).id, 'connectorId', (_c).connector_id, 'resourceType', (_c).resource_type,
      'lastSyncAt', _flohsync.iso((_c).last_sync_at), 'lastSyncCursor', (_c).last_sync_cursor,
      'lastSyncStatus', (_c).last_sync_status, 'lastSyncError', (_c).last_sync_error,
      'lastSyncStats', (_c).last_sync_stats,
      'nextRunAt', _flohsync.iso(_flohsync.next_due(_c)),
      'createdAt', _flohsync.iso((_c).created_at), 'updatedAt', _flohsync.iso((_c).updated_at))
      || _flohsync.standing(_c)$create$,
    string_agg(format('%L, (_c).%I', k.key, k.attribute), ', ')) FROM _flohsync.config_keys() k);
END
$do$;
COMMENT ON FUNCTION _flohsync.config_dto(flohsync.connector_sync_config) IS 'A configuration in its public JSON form';

CREATE FUNCTION _flohsync.informing_keys() RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN ARRAY(SELECT pg_catalog.jsonb_object_keys(_flohsync.config_dto(NULL))
             EXCEPT SELECT k.key FROM _flohsync.config_keys() k);
COMMENT ON FUNCTION _flohsync.informing_keys() IS
  'Read-only keys of a configuration: configure_sync() ignores them';

-- The checks of config_keys(): what is stored of a value, or 22023.

CREATE FUNCTION _flohsync.check_json_type(_key text, _value jsonb, _type text, _nullable boolean) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF jsonb_typeof(_value) <> _type AND NOT (_nullable AND _value = 'null') THEN
    PERFORM _flohsync.invalid(_key, format('it must be %s%s',
      CASE _type WHEN 'boolean' THEN 'true or false' WHEN 'string' THEN 'a text' WHEN 'number' THEN 'a number'
                 WHEN 'array' THEN 'an array' ELSE 'an object' END,
      CASE WHEN _nullable THEN ' or null' ELSE '' END));
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_json_type(text, jsonb, text, boolean) IS
  'Raises 22023 unless a value is of a JSON type, or null where that is taken';

CREATE FUNCTION _flohsync.setting_strategy(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _value NOT IN ('"full"', '"incremental"') THEN
    PERFORM _flohsync.invalid(_key, format('%s is not a strategy', _value), 'Strategies are full and incremental.');
  END IF;
  RETURN _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_strategy(flohsync.connector_sync_config, text, jsonb) IS
  'Checks what a pass asks for';

CREATE FUNCTION _flohsync.setting_schedule(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  problem text;
BEGIN
  PERFORM _flohsync.check_json_type(_key, _value, 'string', true);
  problem := CASE WHEN length(_value #>> '{}') > 64 THEN 'a schedule has at most 64 characters'
                  ELSE _flohsync.cron_problem(_value #>> '{}') END;
  IF problem IS NOT NULL THEN
    PERFORM _flohsync.invalid(_key, problem,
      'A schedule has 5 fields (minute hour day month weekday), or 6 with leading seconds; for example "0 */6 * * *".');
  END IF;
  RETURN _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_schedule(flohsync.connector_sync_config, text, jsonb) IS 'Checks a schedule';

CREATE FUNCTION _flohsync.setting_filter_rules(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN _flohsync.check_filter_rules(_value);
END
$$;
COMMENT ON FUNCTION _flohsync.setting_filter_rules(flohsync.connector_sync_config, text, jsonb) IS
  'Checks filter rules; those that are null are not stored';

CREATE FUNCTION _flohsync.setting_stale_retention(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF jsonb_typeof(_value) <> 'string' OR _flohsync.duration(_value #>> '{}') IS NULL
     OR length(_value #>> '{}') > 32 THEN
    PERFORM _flohsync.invalid(_key, format('%s is not a duration', _value),
      'For example "7d", "24h", "30m", "90s", "2w" or "1 month".');
  END IF;
  RETURN _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_stale_retention(flohsync.connector_sync_config, text, jsonb) IS
  'Checks how long stale records are kept';

CREATE FUNCTION _flohsync.setting_mappings(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN _flohsync.check_mappings(_value);
END
$$;
COMMENT ON FUNCTION _flohsync.setting_mappings(flohsync.connector_sync_config, text, jsonb) IS
  'Checks attribute mappings';

CREATE FUNCTION _flohsync.setting_match_strategy(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _value #>> '{}' <> ALL (_flohsync.match_strategy_names()) THEN
    PERFORM _flohsync.invalid(_key, format('%s is not a match strategy', _value),
      format('Match strategies are %s.', _flohsync.enumerated(_flohsync.match_strategy_names())));
  END IF;
  RETURN _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_match_strategy(flohsync.connector_sync_config, text, jsonb) IS
  'Checks the first match strategy';

CREATE FUNCTION _flohsync.setting_fallbacks(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.check_fallbacks(_value);
  RETURN _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_fallbacks(flohsync.connector_sync_config, text, jsonb) IS
  'Checks the further match strategies';

CREATE FUNCTION _flohsync.setting_issuer_path(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  problem text := _flohsync.path_problem(_value #>> '{}');
BEGIN
  IF problem IS NOT NULL THEN
    PERFORM _flohsync.invalid(_key, problem, 'For example "attributes.identityIssuer".');
  END IF;
  RETURN _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_issuer_path(flohsync.connector_sync_config, text, jsonb) IS
  'Checks where a record names its issuer';

CREATE FUNCTION _flohsync.setting_workflow(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF jsonb_typeof(_value) <> 'string' OR _value #>> '{}' !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
     OR NOT EXISTS (SELECT FROM flohsync.workflow_definition w
                     WHERE w.id::text = lower((_value #>> '{}') COLLATE "C")) THEN
    PERFORM _flohsync.invalid(_key, format('there is no workflow %s', _value));
  END IF;
  RETURN _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_workflow(flohsync.connector_sync_config, text, jsonb) IS
  'Checks that there is a workflow';

CREATE FUNCTION _flohsync.setting_trigger_mode(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _value NOT IN ('"none"', '"per_record"', '"summary"') THEN
    PERFORM _flohsync.invalid(_key, format('%s is not a trigger mode', _value),
      'Trigger modes are none, per_record and summary.');
  END IF;
  RETURN _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_trigger_mode(flohsync.connector_sync_config, text, jsonb) IS
  'Checks when the workflow is triggered';

CREATE FUNCTION _flohsync.setting_user_defaults(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  field text;
  problem text;
BEGIN
  PERFORM _flohsync.check_json_type(_key, _value, 'object', true);
  SELECT d.key, coalesce(_flohsync.field_problem(d.key), f.problem) INTO field, problem
    FROM jsonb_each(_value) d CROSS JOIN LATERAL _flohsync.as_worker_profile_field(d.key, d.value, _c) f
   WHERE _flohsync.field_problem(d.key) IS NOT NULL OR f.problem IS NOT NULL LIMIT 1;
  IF FOUND THEN
    PERFORM _flohsync.invalid(_key || '.' || field, problem);
  END IF;
  RETURN _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_user_defaults(flohsync.connector_sync_config, text, jsonb) IS
  'Checks profile values of users that are created';

CREATE FUNCTION _flohsync.setting_timezone(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF jsonb_typeof(_value) <> 'string' OR NOT _flohsync.timezone_valid(_value #>> '{}') THEN
    PERFORM _flohsync.invalid(_key, format('%s is not a time zone', _value),
      'Time zones are listed in pg_timezone_names.');
  END IF;
  RETURN _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_timezone(flohsync.connector_sync_config, text, jsonb) IS 'Checks a time zone';

CREATE FUNCTION _flohsync.setting_overlap(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF jsonb_typeof(_value) <> 'string' OR _flohsync.duration(_value #>> '{}') IS NULL THEN
    PERFORM _flohsync.invalid(_key, format('%s is not a duration', _value), 'For example "5m" or "00:05:00".');
  END IF;
  RETURN to_jsonb(_flohsync.duration(_value #>> '{}'));
END
$$;
COMMENT ON FUNCTION _flohsync.setting_overlap(flohsync.connector_sync_config, text, jsonb) IS
  'Checks how far an incremental run reaches back';

CREATE FUNCTION _flohsync.setting_hash_ignore(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.check_texts(_key, _value);
  RETURN nullif(_value, '[]');
END
$$;
COMMENT ON FUNCTION _flohsync.setting_hash_ignore(flohsync.connector_sync_config, text, jsonb) IS
  'Checks the paths that are left out of the hash; none of them is no rule';

CREATE FUNCTION _flohsync.setting_safeguards(_c flohsync.connector_sync_config, _key text, _value jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _value = 'null' THEN
    RETURN (SELECT jsonb_object_agg(s.key, NULL::jsonb)
              FROM _flohsync.config_keys() k, jsonb_object_keys(k.initial) s(key)
             WHERE k.key = _key);
  END IF;
  PERFORM _flohsync.check_safeguards(_value);
  RETURN _c.safeguards || _value;
END
$$;
COMMENT ON FUNCTION _flohsync.setting_safeguards(flohsync.connector_sync_config, text, jsonb) IS
  'Checks safeguards: those given change, null switches all of them off';

CREATE FUNCTION _flohsync.configure_sync(connector text, resource_type text, settings jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _connector uuid := _flohsync.hold_connector(connector);
  _type text := _flohsync.check_resource_type(configure_sync.resource_type);
  c flohsync.connector_sync_config;
  old flohsync.connector_sync_config;
  k record;          -- a key that was given, and its value
  _definition jsonb; -- of kind rest
BEGIN
  -- What sync_config() returns can be given here again.
  settings := CASE WHEN jsonb_typeof(settings) = 'object' THEN settings - _flohsync.informing_keys() ELSE settings END;
  PERFORM _flohsync.check_keys(settings, 'settings', ARRAY(SELECT k.key FROM _flohsync.config_keys() k));
  -- Changes of a connector and its configurations come one after the other.
  SELECT CASE d.kind WHEN 'rest' THEN d.definition END INTO _definition FROM flohsync.connector_definition d
   WHERE d.id = _connector FOR NO KEY UPDATE;
  IF _definition IS NOT NULL THEN
    PERFORM _flohsync.check_strategy(_definition, _type, NULL);
  END IF;

  INSERT INTO flohsync.connector_sync_config AS x (connector_id, resource_type, owner, timezone)
  VALUES (_connector, _type, _flohsync.role(_flohsync.caller()), coalesce(nullif(current_setting('flohsync.timezone', true), ''), 'UTC'))
  ON CONFLICT (connector_id, resource_type) DO NOTHING;
  SELECT * INTO STRICT c FROM flohsync.connector_sync_config x
   WHERE x.connector_id = _connector AND x.resource_type = _type FOR NO KEY UPDATE;
  old := c;

  FOR k IN SELECT s.value, n.* FROM jsonb_each(settings) WITH ORDINALITY s(key, value, position)
             JOIN _flohsync.config_keys() n ON n.key = s.key ORDER BY s.position LOOP
    IF k.value = 'null' AND NOT k.nullable THEN
      PERFORM _flohsync.invalid(k.key, 'it must not be null');
    ELSIF k.checked_by IS NULL THEN
      PERFORM _flohsync.check_json_type(k.key, k.value, k.json_type, k.nullable);
    ELSIF k.value <> 'null' OR k.initial <> 'null' THEN
      EXECUTE format('SELECT _flohsync.%I($1, $2, $3)', k.checked_by) INTO k.value USING c, k.key, k.value;
    END IF;
    c := jsonb_populate_record(c, jsonb_build_object(k.attribute, k.value));
  END LOOP;

  IF _definition IS NOT NULL THEN
    PERFORM _flohsync.check_strategy(_definition, _type, c.strategy);
  END IF;
  -- A run that is already due is not lost because something else is changed.
  IF (c.enabled, c.timezone, c.cron_schedule) IS DISTINCT FROM (old.enabled, old.timezone, old.cron_schedule) THEN
    c.next_run_at := CASE WHEN c.enabled THEN _flohsync.cron_next(c.cron_schedule, clock_timestamp(), c.timezone) END;
  END IF;
  IF (c.enabled, c.timezone, c.full_cron_schedule) IS DISTINCT FROM (old.enabled, old.timezone, old.full_cron_schedule) THEN
    c.next_full_run_at := CASE WHEN c.enabled THEN _flohsync.cron_next(c.full_cron_schedule, clock_timestamp(), c.timezone) END;
  END IF;
  IF c.enabled <> old.enabled OR (c.cron_schedule IS NULL AND c.full_cron_schedule IS NULL) THEN
    c.retry_at := NULL;
    c.retries := 0;
  END IF;

  EXECUTE format($sql$
    UPDATE flohsync.connector_sync_config x
       SET %s,
           next_run_at = ($1).next_run_at, next_full_run_at = ($1).next_full_run_at, retry_at = ($1).retry_at,
           retries = ($1).retries, schedule_error = NULL, updated_at = clock_timestamp()
     WHERE x.id = ($1).id
    RETURNING x.*$sql$,
    (SELECT string_agg(format('%1$I = ($1).%1$I', k.attribute), ', ') FROM _flohsync.config_keys() k))
    INTO c USING c;
  PERFORM _flohsync.wake();
  PERFORM _flohsync.remark(c);
  RETURN _flohsync.config_dto(c);
END
$$;
COMMENT ON FUNCTION _flohsync.configure_sync(text, text, jsonb) IS 'Implementation of the public function of this name, run as its owner';

CREATE FUNCTION flohsync.configure_sync(connector text, resource_type text, settings jsonb) RETURNS jsonb
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_owner';
COMMENT ON FUNCTION flohsync.configure_sync(text, text, jsonb) IS
  'Creates or changes the configuration of a resource type; only the keys given change; returns the configuration; 22023 names the invalid key';
SELECT _flohsync.allow('manager', 'flohsync.configure_sync(text, text, jsonb)');

CREATE FUNCTION flohsync.sync_config(connector text, resource_type text) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT _flohsync.config_dto(c) FROM flohsync.connector_sync_config c
   WHERE c.connector_id = _flohsync.connector_id(sync_config.connector) AND c.resource_type = sync_config.resource_type;
END;
COMMENT ON FUNCTION flohsync.sync_config(text, text) IS 'The configuration of a resource type; null when there is none';
SELECT _flohsync.allow('reader', 'flohsync.sync_config(text, text)');

CREATE FUNCTION flohsync.list_sync_configs(connector text DEFAULT NULL) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT CASE WHEN _flohsync.check_tables() THEN (
    SELECT coalesce(pg_catalog.jsonb_agg(_flohsync.config_dto(c) ORDER BY d.name, c.resource_type), '[]')
      FROM flohsync.connector_sync_config c
      JOIN flohsync.connector_definition d ON d.id = c.connector_id
     WHERE list_sync_configs.connector IS NULL OR d.id = (SELECT _flohsync.connector_id(list_sync_configs.connector))) END;
END;
COMMENT ON FUNCTION flohsync.list_sync_configs(text) IS
  'The configurations of a connector, or (null) of all, in the order of connector and resource type; 42704 for an unknown connector';
SELECT _flohsync.allow('reader', 'flohsync.list_sync_configs(text)');

CREATE FUNCTION _flohsync.set_sync_owner(connector text, resource_type text, owner regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _connector uuid := _flohsync.hold_connector(connector);
  _type text := _flohsync.check_resource_type(set_sync_owner.resource_type);
BEGIN
  UPDATE flohsync.connector_sync_config c
     SET owner = _flohsync.role(coalesce(set_sync_owner.owner::oid, _flohsync.caller())), updated_at = clock_timestamp()
   WHERE c.connector_id = _connector AND c.resource_type = _type;
  IF NOT FOUND THEN
    PERFORM _flohsync.raise('42704',
      format('connector "%s" has no configuration for resource type "%s"', connector, _type),
      NULL,
      'Create one with flohsync.configure_sync().');
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.set_sync_owner(text, text, regrole) IS 'Implementation of the public function of this name, run as its owner';

CREATE FUNCTION flohsync.set_sync_owner(connector text, resource_type text, owner regrole DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_owner';
COMMENT ON FUNCTION flohsync.set_sync_owner(text, text, regrole) IS
  'Makes a role (null: the caller) the owner of a configuration, with whose rights a connector of kind sql runs; 42501 unless the caller is a member of that role and of the previous owner, if that still exists; 42704 for an unknown connector, configuration or role';
SELECT _flohsync.allow('manager', 'flohsync.set_sync_owner(text, text, regrole)');

-- Workflows: what they do is an application's; here is what a configuration can name.

CREATE FUNCTION flohsync.configure_workflow(name text, settings jsonb DEFAULT '{}') RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  found_id uuid;
BEGIN
  PERFORM _flohsync.check_tables();
  IF configure_workflow.name IS NULL OR configure_workflow.name = '' OR length(configure_workflow.name) > 255 THEN
    PERFORM _flohsync.invalid('name', 'it must have 1 to 255 characters');
  END IF;
  PERFORM _flohsync.check_keys(settings, 'settings', ARRAY['enabled', 'definition']);
  IF settings ? 'enabled' AND jsonb_typeof(settings -> 'enabled') <> 'boolean' THEN
    PERFORM _flohsync.invalid('enabled', 'it must be true or false');
  END IF;
  IF settings ? 'definition' AND jsonb_typeof(settings -> 'definition') <> 'object' THEN
    PERFORM _flohsync.invalid('definition', 'it must be an object');
  END IF;
  INSERT INTO flohsync.workflow_definition AS w (name, enabled, definition)
  VALUES (configure_workflow.name, coalesce((settings ->> 'enabled')::boolean, true), coalesce(settings -> 'definition', '{}'))
  ON CONFLICT ON CONSTRAINT workflow_definition_name_key DO UPDATE
     SET enabled = coalesce((settings ->> 'enabled')::boolean, w.enabled), definition = coalesce(settings -> 'definition', w.definition)
  RETURNING w.id INTO found_id;
  RETURN found_id;
END
$$;
COMMENT ON FUNCTION flohsync.configure_workflow(text, jsonb) IS
  'Creates a workflow, or changes the given keys (enabled: true or false, default true; definition: an object, opaque to flohsync) of the one of that name; returns its id; 22023 names the invalid key';
SELECT _flohsync.allow('manager', 'flohsync.configure_workflow(text, jsonb)');

CREATE FUNCTION flohsync.drop_workflow(name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.check_tables();
  DELETE FROM flohsync.workflow_definition w WHERE w.name = drop_workflow.name;
  RETURN FOUND;
END
$$;
COMMENT ON FUNCTION flohsync.drop_workflow(text) IS
  'Removes a workflow; configurations that name it trigger none, and its jobs and runs remain; false when there was none';
SELECT _flohsync.allow('manager', 'flohsync.drop_workflow(text)');
