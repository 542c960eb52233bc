-- What the values of a configuration may be, and how it looks as JSON.

CREATE FUNCTION _flohsync.iso(_at timestamptz) RETURNS text
LANGUAGE sql STABLE STRICT
RETURN pg_catalog.to_char(_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');
COMMENT ON FUNCTION _flohsync.iso(timestamptz) IS 'A time as JSON carries it: ISO 8601 in UTC, milliseconds';

CREATE FUNCTION _flohsync.add_counters(_a jsonb, _b jsonb) RETURNS jsonb
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
COMMENT ON FUNCTION _flohsync.add_counters(jsonb, jsonb) IS
  'Adds two objects of numbers, key by key; other values are skipped';

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
COMMENT ON FUNCTION _flohsync.duration(text) IS
  'The interval of a text such as 7d, 24h, 30m, 90s, 2w or any interval with units; null when it is not a duration';

CREATE FUNCTION _flohsync.cron_next(_schedule text, _after timestamptz, _zone text) RETURNS timestamptz
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_cron_next';
COMMENT ON FUNCTION _flohsync.cron_next(text, timestamptz, text) IS
  'Next time after the given one at which a schedule is due; null for a null argument or when there is none';

CREATE FUNCTION _flohsync.cron_problem(_schedule text) RETURNS text
LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_cron_problem';
COMMENT ON FUNCTION _flohsync.cron_problem(text) IS 'Why a cron schedule is invalid; null when it is valid';

CREATE FUNCTION _flohsync.timezone_valid(_name text) RETURNS boolean
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_timezone_valid';
COMMENT ON FUNCTION _flohsync.timezone_valid(text) IS 'Whether a time zone of that name is known';

CREATE FUNCTION flohsync.cron_next(schedule text, after timestamptz DEFAULT pg_catalog.now(),
                                   timezone text DEFAULT 'UTC') RETURNS timestamptz
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_cron_next';
COMMENT ON FUNCTION flohsync.cron_next(text, timestamptz, text) IS
  'Next time after the given one at which a cron schedule is due in a time zone; null when there is none; 22023 for '
  'an invalid schedule or zone';
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
COMMENT ON FUNCTION _flohsync.check_texts(text, jsonb) IS
  'Raises 22023 unless the value is an array of non-empty texts';

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
          PERFORM _flohsync.invalid('filterRules.groupNamePattern', 'it must be a glob of 1 to 1000 characters',
                                    'For example "proj-*".');
        END IF;
      WHEN 'groupIds' THEN
        PERFORM _flohsync.check_texts('filterRules.groupIds', v);
      WHEN 'emailDomains' THEN
        PERFORM _flohsync.check_texts('filterRules.emailDomains', v);
        SELECT jsonb_agg(d.domain ORDER BY d.i) INTO v
          FROM (SELECT btrim(e.value, E' \t\r\n') AS domain, e.i FROM jsonb_array_elements_text(v)
                WITH ORDINALITY e(value, i)) d;
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
COMMENT ON FUNCTION _flohsync.check_filter_rules(jsonb) IS
  'Filter rules without null members; 22023 names the invalid key';

CREATE FUNCTION _flohsync.field_problem(_field text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
RETURN CASE
  WHEN _field !~ '^[A-Za-z_][A-Za-z0-9_.-]{0,63}$' OR _field IN ('__proto__', 'prototype', 'constructor')
    THEN pg_catalog.format('%L is not a field name', _field)
  -- Identity and login of users must not be changed through profile fields.
  WHEN _field IN ('id', 'userId', 'iss', 'sub', 'email', 'upstreamIssuer', 'upstreamId', 'confirmed', 'active',
                  'deletedAt', 'password',
                  'user_id', 'upstream_issuer', 'upstream_id', 'deleted_at')
    THEN pg_catalog.format('%L is not a profile field', _field)
  WHEN _field IN ('phone_number', 'employee_id', 'cost_center', 'start_date', 'manager_id')
    THEN pg_catalog.format('the field is called "%s"',
                           pg_catalog.regexp_replace(
                             pg_catalog.initcap(pg_catalog.replace(_field, '_', ' ') COLLATE "C"),
                             '^(.)(.*) ', pg_catalog.lower(pg_catalog.left(_field, 1) COLLATE "C") || '\2'))
END;
COMMENT ON FUNCTION _flohsync.field_problem(text) IS
  'Why the name of a profile field is invalid; null when it is valid';

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
      PERFORM _flohsync.invalid(format('attributeMappings[%s].sourcePath', i), problem,
                                'For example "attributes.department".');
    END IF;
    problem := CASE WHEN jsonb_typeof(m -> 'targetField') IS DISTINCT FROM 'string' THEN 'it must be a string'
                    ELSE _flohsync.field_problem(m ->> 'targetField') END;
    IF problem IS NOT NULL THEN
      PERFORM _flohsync.invalid(format('attributeMappings[%s].targetField', i), problem,
        'Fields are title, department, phoneNumber, location, employeeId, costCenter, startDate, '
        'managerId, and any name of your own.');
    END IF;
    IF m -> 'writeMode' <> 'null'
        AND coalesce(m ->> 'writeMode', '') NOT IN ('overwrite_always', 'overwrite_if_empty', 'never_overwrite') THEN
      PERFORM _flohsync.invalid(format('attributeMappings[%s].writeMode', i),
                                format('%s is not a write mode', m -> 'writeMode'),
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
      IF jsonb_typeof(v) <> 'number' OR (v #>> '{}')::numeric NOT BETWEEN 0 AND 1e12
          OR (v #>> '{}')::numeric % 1 <> 0 THEN
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
RETURN CASE WHEN (_c).enabled AND NOT (_c).parked THEN least((_c).next_run_at, (_c).next_full_run_at, (_c).retry_at)
  END;
COMMENT ON FUNCTION _flohsync.next_due(flohsync.connector_sync_config) IS
  'When a configuration is next due, by a schedule or for a retry; null: not scheduled';

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
COMMENT ON FUNCTION _flohsync.standing(flohsync.connector_sync_config) IS
  'State of a configuration that later runs must not hide: a held run, an incomplete pass';

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
