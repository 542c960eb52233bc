-- What HTTP serves of configurations.
--
-- The ETag of a configuration is that of its settings, a dash, and that of what it tells
-- of runs.  That changes with each of them, and must not keep anybody from changing a
-- setting: If-Match compares what is before the dash, If-None-Match all of it.

CREATE FUNCTION _flohsync.config_etag(_config jsonb) RETURNS text
LANGUAGE plpgsql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN (SELECT format('"%s-%s"', left(_flohsync.digest(jsonb_object_agg(k.key, _config -> k.key)::text), 24),
                        left(_flohsync.digest((_config - array_agg(k.key))::text), 8))
            FROM _flohsync.config_keys() k);
END
$$;
COMMENT ON FUNCTION _flohsync.config_etag(jsonb) IS
  'ETag of a configuration in its public JSON form: of its settings, and behind a dash of what informs of runs';

CREATE FUNCTION _flohsync.no_config(_connector text, _type text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.raise('42704',
    _flohsync.clean(format('connector "%s" has no configuration for resource type "%s"', _connector, _type)), NULL,
    'Create one with flohsync.configure_sync().');
END
$$;
COMMENT ON FUNCTION _flohsync.no_config(text, text) IS 'Raises 42704 for a configuration that does not exist';

CREATE FUNCTION _flohsync.api_sync_configs(connector text) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN flohsync.list_sync_configs(_flohsync.connector_id(connector)::text);
END
$$;
SELECT _flohsync.serve('{reader}', 'sync_configs(text)', 'The configurations of a connector: an array');

CREATE FUNCTION _flohsync.api_sync_config(connector text, resource_type text) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  answer jsonb := flohsync.sync_config(connector, _flohsync.check_resource_type(resource_type));
BEGIN
  IF answer IS NULL THEN
    PERFORM _flohsync.no_config(connector, resource_type);
  END IF;
  PERFORM _flohsync.respond(NULL, NULL, _flohsync.config_etag(answer));
  RETURN answer;
END
$$;
SELECT _flohsync.serve('{reader}', 'sync_config(text, text)',
  'The configuration of a resource type; 42704 when there is none; the ETag is that of the settings, whatever the '
  'answer tells of runs');

CREATE FUNCTION _flohsync.api_put_sync_config(connector text, resource_type text, settings jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _id uuid := _flohsync.hold_connector(connector);
  _type text := _flohsync.check_resource_type(resource_type);
  before jsonb;
  answer jsonb;
BEGIN
  -- As configure_sync() does, so that what is compared is what is changed.
  PERFORM FROM flohsync.connector_definition d WHERE d.id = _id FOR NO KEY UPDATE;
  before := flohsync.sync_config(_id::text, _type);
  PERFORM _flohsync.check_if_match(_flohsync.config_etag(before));
  answer := _flohsync.configure_sync(_id::text, _type, settings);
  PERFORM _flohsync.respond(CASE WHEN before IS NULL THEN 201 END,
                            CASE WHEN before IS NULL
                                 THEN format('/api/connectors/%s/sync-config/%s', _id, _type) END,
                            _flohsync.config_etag(answer));
  RETURN answer;
END
$$;
SELECT _flohsync.serve('{manager}', 'put_sync_config(text, text, jsonb)',
  'Creates (status 201) or changes the configuration of a resource type, and returns it; only the keys given change; '
  '22023 names the invalid key; FLS12 when If-Match has not the ETag of the configuration');

CREATE FUNCTION _flohsync.api_delete_sync_config(connector text, resource_type text) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT flohsync.delete_sync_config(connector, _flohsync.check_resource_type(resource_type)) THEN
    PERFORM _flohsync.no_config(connector, resource_type);
  END IF;
  PERFORM _flohsync.respond(204);
  RETURN NULL;
END
$$;
SELECT _flohsync.serve('{manager}', 'delete_sync_config(text, text)',
  'Removes a configuration with its schedules; the records remain; status 204; 42704 when there is none');

CREATE FUNCTION _flohsync.api_sync_status(connector text, resource_type text) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  answer jsonb := flohsync.sync_status(connector, _flohsync.check_resource_type(resource_type));
BEGIN
  IF answer IS NULL THEN
    PERFORM _flohsync.no_config(connector, resource_type);
  END IF;
  RETURN answer;
END
$$;
SELECT _flohsync.serve('{reader}', 'sync_status(text, text)',
  'Status of the last run of a configuration, and of the current one; 42704 when there is no configuration');

CREATE FUNCTION _flohsync.api_jobs(page int DEFAULT 1, page_size int DEFAULT 50) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  _total bigint;
  _data jsonb;
BEGIN
  PERFORM _flohsync.check_tables();
  PERFORM _flohsync.check_page(api_jobs.page, api_jobs.page_size);
  SELECT count(*) INTO _total FROM flohsync.connector_sync_config;
  SELECT jsonb_agg(jsonb_build_object(
           'jobId', j.job_id, 'connectorId', substr(j.job_id, length('cr-sync-') + 1, 36), 'connector', j.connector,
           'resourceType', j.resource_type, 'enabled', j.enabled, 'strategy', j.strategy, 'schedule', j.schedule,
           'fullSchedule', j.full_schedule, 'timezone', j.timezone, 'nextRunAt', _flohsync.iso(j.next_run_at),
           'remark', j.remark, 'lastRunId', j.last_run_id, 'lastRunAt', _flohsync.iso(j.last_run_at),
           'lastStatus', j.last_status, 'lastError', j.last_error, 'lastSuccessAt', _flohsync.iso(j.last_success_at))
           ORDER BY j.connector COLLATE "C", j.resource_type) INTO _data
    FROM (SELECT * FROM flohsync.jobs x ORDER BY x.connector COLLATE "C", x.resource_type
           LIMIT api_jobs.page_size OFFSET (api_jobs.page - 1)::bigint * api_jobs.page_size) j;
  RETURN _flohsync.page_object(_data, _total, api_jobs.page, api_jobs.page_size);
END
$$;
SELECT _flohsync.serve('{reader}', 'jobs(int, int)',
  'A page of what is scheduled, in the order of connector and resource type: when it is next due or why it is not, how '
  'it last went');
