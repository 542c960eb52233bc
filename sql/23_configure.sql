-- Configurations and workflows: made, changed, read and removed by their public functions.

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
  VALUES (_connector, _type, _flohsync.role(_flohsync.caller()),
          coalesce(nullif(current_setting('flohsync.timezone', true), ''), 'UTC'))
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
  IF (c.enabled, c.timezone, c.full_cron_schedule) IS DISTINCT FROM (old.enabled, old.timezone, old.full_cron_schedule)
    THEN
    c.next_full_run_at := CASE WHEN c.enabled
      THEN _flohsync.cron_next(c.full_cron_schedule, clock_timestamp(), c.timezone) END;
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
COMMENT ON FUNCTION _flohsync.configure_sync(text, text, jsonb) IS
  'Implementation of the public function of this name, run as its owner';

CREATE FUNCTION flohsync.configure_sync(connector text, resource_type text, settings jsonb) RETURNS jsonb
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_owner';
COMMENT ON FUNCTION flohsync.configure_sync(text, text, jsonb) IS
  'Creates or changes the configuration of a resource type; only the keys given change; returns the configuration; '
  '22023 names the invalid key';
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
     WHERE list_sync_configs.connector IS NULL OR d.id = (SELECT _flohsync.connector_id(list_sync_configs.connector)))
       END;
END;
COMMENT ON FUNCTION flohsync.list_sync_configs(text) IS
  'The configurations of a connector, or (null) of all, in the order of connector and resource type; '
  '42704 for an unknown connector';
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
COMMENT ON FUNCTION _flohsync.set_sync_owner(text, text, regrole) IS
  'Implementation of the public function of this name, run as its owner';

CREATE FUNCTION flohsync.set_sync_owner(connector text, resource_type text, owner regrole DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_owner';
COMMENT ON FUNCTION flohsync.set_sync_owner(text, text, regrole) IS
  'Makes a role (null: the caller) the owner of a configuration, with whose rights a connector of kind sql runs; 42501 '
  'unless the caller is a member of that role and of the previous owner, if that still exists; 42704 for an unknown '
  'connector, configuration or role';
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
  VALUES (configure_workflow.name, coalesce((settings ->> 'enabled')::boolean, true),
          coalesce(settings -> 'definition', '{}'))
  ON CONFLICT ON CONSTRAINT workflow_definition_name_key DO UPDATE
     SET enabled = coalesce((settings ->> 'enabled')::boolean, w.enabled),
       definition = coalesce(settings -> 'definition', w.definition)
  RETURNING w.id INTO found_id;
  RETURN found_id;
END
$$;
COMMENT ON FUNCTION flohsync.configure_workflow(text, jsonb) IS
  'Creates a workflow, or changes the given keys (enabled: true or false, default true; definition: an object, opaque '
  'to flohsync) of the one of that name; returns its id; 22023 names the invalid key';
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
  'Removes a workflow; configurations that name it trigger none, and its jobs and runs remain; false when there '
  'was none';
SELECT _flohsync.allow('manager', 'flohsync.drop_workflow(text)');
