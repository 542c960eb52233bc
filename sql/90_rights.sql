-- Who may do what: nothing for PUBLIC; the workers' role gets what they need.

REVOKE ALL ON ALL ROUTINES IN SCHEMA flohsync FROM PUBLIC;

CREATE FUNCTION flohsync._grant_worker(_role regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA flohsync TO %s', _role);
  EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA flohsync TO %s', _role);
  EXECUTE format('GRANT INSERT, UPDATE, DELETE ON flohsync.resource_record, flohsync.resource_tombstone, flohsync.sync_run,
                  flohsync.sync_run_page, flohsync.sync_error, flohsync.cache_outbox, flohsync.cache_epoch, flohsync.connector_sync_match,
                  flohsync.user_external_identity, flohsync.match_progress, flohsync.record_change, flohsync.user_change,
                  flohsync.floh_user, flohsync.user_profile, flohsync.workflow_job, flohsync.workflow_run,
                  flohsync.webhook_delivery, flohsync.entitlement_event TO %s', _role);
  -- Not owner: whoever could write that could run queries with another role's rights.
  EXECUTE format('GRANT UPDATE (enabled, last_sync_at, last_sync_cursor, last_sync_status, last_sync_error, last_sync_stats,
                  next_run_at, next_full_run_at, watermark, last_full_pass_at, last_success_at, retry_at, retries, parked, totals,
                  delta_link, delta_fingerprint) ON flohsync.connector_sync_config TO %s', _role);
  EXECUTE format('GRANT UPDATE ON flohsync.cache_state TO %s', _role);
  EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA flohsync TO %s', _role);
  EXECUTE format('GRANT EXECUTE ON FUNCTION flohsync._caching(), flohsync._invalidate(uuid, text, text[]), flohsync._new_id(), flohsync._secret(uuid, text), flohsync._iso(timestamptz), flohsync._duration(text),
                  flohsync._cron_next(text, timestamptz, text), flohsync._list_command(jsonb, text), flohsync._get_command(jsonb, text),
                  flohsync._syncable_types(text, jsonb, jsonb),
                  flohsync._ledger_union(bytea[]), flohsync._ledger_has(bytea, bigint), flohsync._pass_pages(bigint),
                  flohsync._forget_pass(bigint), flohsync._run_stats(bigint),
                  flohsync._fingerprint(text, flohsync.connector_definition, flohsync.connector_sync_config),
                  flohsync._lock_config(bigint), flohsync._start_run(bigint), flohsync._restart_pass(bigint, boolean), flohsync._pass_overlap(bigint), flohsync._settle_pass(bigint, boolean),
                  flohsync._supersede_held(uuid, text, bigint), flohsync._remove_records(uuid, text, uuid[], boolean, bigint), flohsync._purge(uuid, text, interval, bigint, bigint),
                  flohsync._purge_run(bigint, bigint),
                  flohsync._finish_run(bigint, text, boolean, text, text, text, timestamptz, interval),
                  flohsync._sum(jsonb, jsonb), flohsync._next_due(flohsync.connector_sync_config),
                  flohsync._enqueue_due() TO %s', _role);
  EXECUTE format('GRANT EXECUTE ON FUNCTION flohsync._match_key(text), flohsync._is_blank(jsonb), flohsync._user_create(text[], text[]),
                  flohsync._user_deactivate(uuid[], bigint), flohsync._user_reactivate(uuid[]), flohsync._profile_update(uuid[], jsonb[], text),
                  flohsync._page_changes(flohsync.sync_run_page), flohsync._keep_page_changes(bigint), flohsync._totals_of(jsonb),
                  flohsync._names_users(flohsync.connector_sync_config), flohsync._is_user_type(flohsync.connector_sync_config), flohsync._tells_records(flohsync.connector_sync_config),
                  flohsync._users_are_watched(), flohsync._read_user_changes(), flohsync._forget_history(interval), flohsync._forget_user_changes(), flohsync._note_changes(uuid, text, uuid[], text),
                  flohsync._strategies(flohsync.connector_sync_config), flohsync._source_sql(text),
                  flohsync._records_sql(flohsync.connector_sync_config, boolean), flohsync._hits_sql(text[]),
                  flohsync._are_few(uuid[]), flohsync._match_few(text, uuid, text, uuid[], uuid[], uuid[], text[], boolean),
                  flohsync._profile_few(text, uuid[], jsonb[], text), flohsync._profile_run(text, uuid[], jsonb[], text),
                  flohsync._back_few(text, uuid, text, uuid[]), flohsync._map_few(text, uuid, text, flohsync.connector_sync_config, bigint, uuid[], uuid),
                  flohsync._match(flohsync.connector_sync_config, uuid[], uuid[], uuid[]), flohsync._lock_matching(flohsync.connector_sync_config), flohsync._share_matching(flohsync.connector_sync_config),
                  flohsync._reactivate(flohsync.connector_sync_config, uuid[]), flohsync._profile_field(text, jsonb, flohsync.connector_sync_config),
                  flohsync._map_sql(flohsync.connector_sync_config), flohsync._map_attributes(flohsync.connector_sync_config, uuid[], bigint, flohsync.resource_record),
                  flohsync._link_created(uuid[], uuid[]), flohsync._apply_defaults(flohsync.connector_sync_config, uuid[]),
                  flohsync._create_users(flohsync.connector_sync_config, uuid[], bigint, boolean, flohsync.resource_record),
                  flohsync._leavers(flohsync.connector_sync_config, uuid[]), flohsync._tell_others(flohsync.connector_sync_config, uuid[]),
                  flohsync._deactivate(flohsync.connector_sync_config, uuid[], bigint, boolean),
                  flohsync._to_do(flohsync.connector_sync_config, flohsync.match_progress), flohsync._stage_failed(bigint, text, text, text, int, flohsync.resource_record),
                  flohsync._reached_by_users(flohsync.connector_sync_config, xid8, xid8), flohsync._look_again(uuid[], uuid), flohsync._settle_departures(uuid[]),
                  flohsync._profile_value(flohsync.user_profile, text), flohsync._profile_changes(flohsync.user_profile, jsonb),
                  flohsync._people(flohsync.connector_sync_config, uuid[], uuid[], bigint, boolean, boolean, boolean, boolean, flohsync.resource_record),
                  flohsync._post_sync(bigint, boolean), flohsync._post_sync_failed(bigint, text, text),
                  flohsync._changed_record(uuid, text, text, text, text, uuid, text), flohsync._job_data(flohsync.connector_sync_config, bigint),
                  flohsync._queue_jobs(flohsync.connector_sync_config, bigint, jsonb[]),
                  flohsync._queue_record_jobs(flohsync.connector_sync_config, bigint, jsonb),
                  flohsync._trigger_per_record(flohsync.connector_sync_config, bigint, uuid[]), flohsync._trigger_summary(bigint, jsonb),
                  flohsync._job_problem(flohsync.workflow_job), flohsync._start_workflows(bigint[]) TO %s', _role);
  -- Webhooks are taken in any role's session, with the rights of this one.
  EXECUTE format('GRANT EXECUTE ON FUNCTION flohsync._connector_id(text), flohsync._check_resource_type(text), flohsync._invalid(text, text, text),
                  flohsync._webhook_failed(flohsync.resource_record, text, text, text), flohsync._follow_webhook(uuid, text),
                  flohsync._leave_scope(uuid, timestamptz, timestamptz), flohsync._is_news(flohsync.resource_record, timestamptz, timestamptz),
                  flohsync._too_many_leavers(flohsync.connector_sync_config), flohsync._let_go(flohsync.connector_sync_config, flohsync.resource_record),
                  flohsync._delete_record(uuid, text, text, timestamptz, interval), flohsync._forget_webhooks(interval) TO %s', _role);
END
$$;
COMMENT ON FUNCTION flohsync._grant_worker(regrole) IS 'Grants a role what the workers need; call it for the role of flohsync.worker_role after changing that';
REVOKE ALL ON FUNCTION flohsync._grant_worker(regrole) FROM PUBLIC;

SELECT flohsync._grant_worker(pg_catalog.quote_ident(
  coalesce(nullif(pg_catalog.current_setting('flohsync.worker_role', true), ''), 'flohsync_worker'))::pg_catalog.regrole);
