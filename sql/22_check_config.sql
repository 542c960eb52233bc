-- Combinations of settings that are allowed and do nothing, or not what one would expect.

CREATE FUNCTION _flohsync.remarks(_c flohsync.connector_sync_config)
RETURNS TABLE (severity text, key text, message text, hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  d flohsync.connector_definition;
  users boolean := _flohsync.matches_users(_c);
  first_tick timestamptz;
  second_tick timestamptz;
  unusable boolean := false;
  full_schedule text := CASE WHEN _c.strategy = 'full' THEN coalesce(_c.cron_schedule, _c.full_cron_schedule)
    ELSE _c.full_cron_schedule END;
  sample jsonb;
BEGIN
  SELECT * INTO d FROM flohsync.connector_definition x WHERE x.id = _c.connector_id;

  -- Schedules
  BEGIN
    first_tick := _flohsync.cron_next(_c.cron_schedule, clock_timestamp(), _c.timezone);
    second_tick := _flohsync.cron_next(_c.cron_schedule, first_tick, _c.timezone);
    PERFORM _flohsync.cron_next(_c.full_cron_schedule, clock_timestamp(), _c.timezone);
  EXCEPTION WHEN OTHERS THEN
    unusable := true;
    RETURN QUERY SELECT 'warning', 'timezone', _flohsync.clean('the schedules cannot be used: ' || SQLERRM),
      'No runs are scheduled until that is fixed.';
  END;
  IF _c.enabled AND _c.cron_schedule IS NULL AND _c.full_cron_schedule IS NULL THEN
    RETURN QUERY SELECT 'warning', 'enabled', 'the configuration is enabled but has no schedule',
      'Set cronSchedule or fullCronSchedule; until then it runs only on request.';
  ELSIF NOT _c.enabled AND coalesce(_c.cron_schedule, _c.full_cron_schedule) IS NOT NULL THEN
    RETURN QUERY SELECT 'info', 'enabled', 'the configuration has a schedule but is not enabled',
      'Set enabled to true.';
  END IF;
  IF NOT d.enabled THEN
    RETURN QUERY SELECT 'warning', 'enabled', format('connector "%s" is disabled', d.name),
      'Call flohsync.update_connector() with {"enabled": true}.';
  END IF;
  IF _c.cron_schedule IS NOT NULL AND first_tick IS NULL AND NOT unusable THEN
    RETURN QUERY SELECT 'warning', 'cronSchedule', 'the schedule never matches any time',
      'It has the fields minute, hour, day, month, weekday.';
  END IF;
  IF _c.strategy = 'full' AND _c.full_cron_schedule IS NOT NULL THEN
    RETURN QUERY SELECT 'info', 'fullCronSchedule', 'every run is full already',
      'It is for full passes in addition to strategy incremental.';
  END IF;
  IF second_tick - first_tick > _flohsync.duration(_c.stale_retention) THEN
    RETURN QUERY SELECT 'warning', 'staleRetention',
      'stale records are removed before the next run could find them again',
      'Make it longer than the time between two runs.';
  END IF;

  -- Absence is noticed by full passes alone.
  IF _c.strategy = 'incremental' AND full_schedule IS NULL THEN
    RETURN QUERY SELECT 'warning', CASE WHEN _c.deactivate_users THEN 'deactivateUsers' ELSE 'strategy' END,
      CASE WHEN _c.deactivate_users THEN 'no user is deactivated because a record is missing: there is no full pass'
           ELSE 'records that are missing upstream without being reported as deleted stay: there is no full pass' END,
      'Set fullCronSchedule.';
  END IF;
  IF _c.filter_rules ? 'maxRecords' THEN
    RETURN QUERY SELECT 'info', 'filterRules.maxRecords',
      'a pass that is cut off is not complete and marks nothing stale', NULL::text;
  END IF;
  IF _c.safeguards ->> 'maxStaleFraction' IS NULL THEN
    RETURN QUERY SELECT 'info', 'safeguards.maxStaleFraction', 'no pass is held, however many records are missing',
      NULL::text;
  END IF;

  -- Filters
  IF _c.resource_type = 'user' AND _c.filter_rules ?| ARRAY['groupNamePattern', 'groupIds'] THEN
    RETURN QUERY SELECT 'warning', 'filterRules', 'groupNamePattern and groupIds are for groups: for type user they '
                                                  'exclude every record or have no effect',
      'Sync the groups with that filter, and give the users memberOfSyncedGroups.';
  END IF;
  IF _c.resource_type IN ('group', 'role') AND _c.filter_rules ?| ARRAY['emailDomains', 'memberOfSyncedGroups'] THEN
    RETURN QUERY SELECT 'warning', 'filterRules', 'emailDomains and memberOfSyncedGroups are for users', NULL::text;
  END IF;
  IF (_c.filter_rules -> 'memberOfSyncedGroups') = 'true' AND NOT EXISTS (
       SELECT FROM flohsync.connector_sync_config x WHERE x.connector_id = _c.connector_id
           AND x.resource_type = 'group') THEN
    RETURN QUERY SELECT 'warning', 'filterRules.memberOfSyncedGroups',
      'no groups of the connector are synced: no user passes',
      'Configure resource type group first.';
  END IF;

  -- People
  IF NOT users AND (_c.create_users OR _c.deactivate_users OR _c.attribute_mappings IS NOT NULL) THEN
    RETURN QUERY SELECT 'warning', 'createUsers', 'records of this type are not matched to users', NULL::text;
  END IF;
  IF _c.create_user_defaults IS NOT NULL AND NOT _c.create_users THEN
    RETURN QUERY SELECT 'warning', 'createUserDefaults', 'no users are created: createUsers is false',
      'Set createUsers to true.';
  END IF;
  IF _c.issuer_source_path IS NOT NULL AND NOT EXISTS (
       SELECT FROM _flohsync.match_strategies() s
        WHERE s.by_issuer AND s.strategy = ANY (_flohsync.strategies(_c))) THEN
    RETURN QUERY SELECT 'info', 'issuerSourcePath', 'no match strategy uses the issuer',
      (SELECT format('It is for strategy %s.', _flohsync.enumerated(array_agg(s.strategy)))
         FROM _flohsync.match_strategies() s WHERE s.by_issuer);
  END IF;
  IF EXISTS (SELECT FROM jsonb_array_elements(_c.attribute_mappings) m WHERE coalesce(m ->> 'transform', '') <> '') THEN
    RETURN QUERY SELECT 'warning', 'attributeMappings', 'rules with a transform are skipped', NULL::text;
  END IF;

  -- Workflows
  IF _c.sync_trigger_mode <> 'none' AND _c.post_sync_workflow_id IS NULL THEN
    RETURN QUERY SELECT 'warning', 'syncTriggerMode', 'there is no workflow to trigger', 'Set postSyncWorkflowId.';
  ELSIF _c.sync_trigger_mode = 'none' AND _c.post_sync_workflow_id IS NOT NULL THEN
    RETURN QUERY SELECT 'warning', 'postSyncWorkflowId', 'the workflow is not triggered: syncTriggerMode is none',
      'Set it to per_record or summary.';
  ELSIF EXISTS (SELECT FROM flohsync.workflow_definition w WHERE w.id = _c.post_sync_workflow_id AND NOT w.enabled) THEN
    RETURN QUERY SELECT 'info', 'postSyncWorkflowId', 'the workflow is disabled: its jobs wait', NULL::text;
  END IF;

  -- The connector
  IF d.kind = 'command' AND d.config ? 'commands'
      AND NOT (d.config -> 'commands') ? _flohsync.list_command(d.config, _c.resource_type) THEN
    RETURN QUERY SELECT 'warning', 'resourceType',
      format('config.commands does not name %s', _flohsync.list_command(d.config, _c.resource_type)),
      'Add the command there, or to config.commandNames.';
  ELSIF d.kind = 'sql' AND d.config ? 'queries' AND NOT (d.config -> 'queries') ? _c.resource_type::text THEN
    RETURN QUERY SELECT 'warning', 'resourceType', format('the connector has no query for resource type "%s"',
                                                          _c.resource_type),
      format('Queries are for %s.',
             (SELECT string_agg(k, ', ' ORDER BY k) FROM jsonb_object_keys(d.config -> 'queries') k));
  END IF;
  IF d.kind = 'rest' THEN
    RETURN QUERY
    SELECT 'warning', 'connector', format('the definition uses secret "%s", which is not set', n),
      format('Call flohsync.set_secret(%L, %L, …).', d.name, n)
      FROM _flohsync.definition_names(d.definition, 'secret') n
     WHERE NOT EXISTS (SELECT FROM _flohsync.connector_secret s WHERE s.connector_id = d.id AND s.name = n COLLATE "C")
       ORDER BY n COLLATE "C";
  END IF;
  RETURN QUERY
  SELECT 'info', 'connector', format('secret "%s" is set, and the connector does not use it', s.name), NULL::text
    FROM _flohsync.connector_secret s
   WHERE s.connector_id = d.id AND s.name NOT IN (SELECT n FROM _flohsync.credential_names(d) n) ORDER BY s.name;

  -- Paths that no record has, among those that are here
  SELECT jsonb_agg(s.record) INTO sample
    FROM (SELECT jsonb_build_object('externalId', r.external_id, 'displayName', r.display_name, 'email', r.email,
                                    'attributes', r.attributes) AS record
            FROM flohsync.resource_record r
           WHERE r.connector_id = _c.connector_id AND r.resource_type = _c.resource_type AND r.stale_since IS NULL
             LIMIT 1000) s;
  IF sample IS NOT NULL THEN
    RETURN QUERY
    SELECT 'warning', p.key, format('no record has a value at %s', p.path),
      format('Among the first %s records.', jsonb_array_length(sample))
      FROM (SELECT format('attributeMappings[%s].sourcePath', m.i - 1) AS key, m.rule ->> 'sourcePath' AS path
              FROM jsonb_array_elements(_c.attribute_mappings) WITH ORDINALITY m(rule, i)
            UNION ALL SELECT 'issuerSourcePath', _c.issuer_source_path
            UNION ALL SELECT 'hashIgnore', h.value FROM jsonb_array_elements_text(_c.hash_ignore) h(value)) p
     WHERE p.path IS NOT NULL
       AND NOT EXISTS (SELECT FROM jsonb_array_elements(sample) e(record)
                        WHERE coalesce(e.record #> string_to_array(p.path, '.'),
                                       e.record -> 'attributes' #> string_to_array(p.path, '.'), 'null') <> 'null')
     ORDER BY p.key;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.remarks(flohsync.connector_sync_config) IS
  'The rows that check_config() returns for a configuration';

CREATE FUNCTION _flohsync.remark(_c flohsync.connector_sync_config) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r record;
BEGIN
  FOR r IN SELECT * FROM _flohsync.remarks(_c) x WHERE x.severity = 'warning' LOOP
    RAISE NOTICE USING MESSAGE = _flohsync.clean(format('%s: %s', r.key, r.message)),
      HINT = coalesce(_flohsync.clean(r.hint), 'flohsync.check_config() lists this again.');
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.remark(flohsync.connector_sync_config) IS
  'Raises the warnings of check_config() as NOTICEs';

CREATE FUNCTION flohsync.check_config(connector text, resource_type text)
RETURNS TABLE (severity text, key text, message text, hint text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT r.severity, r.key, r.message, r.hint
    FROM _flohsync.remarks(_flohsync.config_of(connector, resource_type)) r
   ORDER BY r.severity DESC, r.key COLLATE "C";
END
$$;
COMMENT ON FUNCTION flohsync.check_config(text, text) IS
  'Settings of a configuration that have no effect or a surprising one: severity (warning, info), the key, a message, '
  'a hint; 42704 without a configuration';
SELECT _flohsync.allow('reader', 'flohsync.check_config(text, text)');
