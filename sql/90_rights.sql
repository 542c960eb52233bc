-- Who may do what: nothing for PUBLIC; the workers' role gets what they need.

REVOKE ALL ON ALL ROUTINES IN SCHEMA flohsync, _flohsync FROM PUBLIC;

CREATE FUNCTION _flohsync.grant_worker(_role regrole) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA flohsync, _flohsync TO %s', _role);
  EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA flohsync, _flohsync TO %s', _role);
  EXECUTE format('GRANT INSERT, UPDATE, DELETE ON flohsync.resource_record, _flohsync.resource_tombstone, flohsync.sync_run,
                  flohsync.sync_run_page, flohsync.sync_error, _flohsync.cache_outbox, _flohsync.cache_epoch, flohsync.connector_sync_match,
                  flohsync.user_external_identity, _flohsync.match_progress, _flohsync.record_change, _flohsync.user_change,
                  flohsync.floh_user, flohsync.user_profile, flohsync.workflow_job, flohsync.workflow_run,
                  _flohsync.webhook_delivery, flohsync.entitlement_event TO %s', _role);
  -- Not owner: whoever could write that could run queries with another role's rights.
  EXECUTE format('GRANT UPDATE (enabled, last_sync_at, last_sync_cursor, last_sync_status, last_sync_error, last_sync_stats,
                  next_run_at, next_full_run_at, watermark, last_full_pass_at, last_success_at, retry_at, retries, parked, totals,
                  delta_link, delta_fingerprint) ON flohsync.connector_sync_config TO %s', _role);
  EXECUTE format('GRANT UPDATE ON _flohsync.cache_state TO %s', _role);
  EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA flohsync, _flohsync TO %s', _role);
  EXECUTE format('GRANT EXECUTE ON FUNCTION _flohsync.clean(text), _flohsync.caching(), _flohsync.invalidate(uuid, text, text[]), _flohsync.new_id(), _flohsync.secret(uuid, text), _flohsync.iso(timestamptz), _flohsync.duration(text),
                  _flohsync.cron_next(text, timestamptz, text), _flohsync.list_command(jsonb, text), _flohsync.get_command(jsonb, text),
                  _flohsync.syncable_types(text, jsonb, jsonb),
                  _flohsync.ledger_union(bytea[]), _flohsync.ledger_has(bytea, bigint), _flohsync.pass_pages(bigint),
                  _flohsync.forget_pass(bigint), _flohsync.run_stats(bigint),
                  _flohsync.fingerprint(text, flohsync.connector_definition, flohsync.connector_sync_config),
                  _flohsync.lock_config(bigint), _flohsync.start_run(bigint), _flohsync.restart_pass(bigint, boolean), _flohsync.pass_overlap(bigint), _flohsync.settle_pass(bigint, boolean),
                  _flohsync.supersede_held(uuid, text, bigint), _flohsync.remove_records(uuid, text, uuid[], boolean, bigint), _flohsync.purge(uuid, text, interval, bigint, bigint),
                  _flohsync.purge_run(bigint, bigint),
                  _flohsync.finish_run(bigint, text, boolean, text, text, text, timestamptz, interval),
                  _flohsync.sum(jsonb, jsonb), _flohsync.next_due(flohsync.connector_sync_config),
                  _flohsync.enqueue_due() TO %s', _role);
  EXECUTE format('GRANT EXECUTE ON FUNCTION _flohsync.match_key(text), _flohsync.is_blank(jsonb), flohsync._user_create(text[], text[]),
                  flohsync._user_deactivate(uuid[], bigint), flohsync._user_reactivate(uuid[]), flohsync._profile_update(uuid[], jsonb[], text),
                  _flohsync.page_changes(flohsync.sync_run_page), _flohsync.keep_page_changes(bigint), _flohsync.totals_of(jsonb),
                  _flohsync.names_users(flohsync.connector_sync_config), _flohsync.is_user_type(flohsync.connector_sync_config), _flohsync.tells_records(flohsync.connector_sync_config),
                  _flohsync.users_are_watched(), _flohsync.read_user_changes(), _flohsync.forget_history(interval), _flohsync.forget_user_changes(), _flohsync.note_changes(uuid, text, uuid[], text),
                  _flohsync.strategies(flohsync.connector_sync_config), _flohsync.source_sql(text),
                  _flohsync.records_sql(flohsync.connector_sync_config, boolean), _flohsync.hits_sql(text[]),
                  _flohsync.are_few(uuid[]), _flohsync.match_few(text, uuid, text, uuid[], uuid[], uuid[], text[], boolean),
                  _flohsync.profile_few(text, uuid[], jsonb[], text), _flohsync.profile_run(text, uuid[], jsonb[], text),
                  _flohsync.back_few(text, uuid, text, uuid[]), _flohsync.map_few(text, uuid, text, flohsync.connector_sync_config, bigint, uuid[], uuid),
                  _flohsync.match(flohsync.connector_sync_config, uuid[], uuid[], uuid[]), _flohsync.lock_matching(flohsync.connector_sync_config), _flohsync.share_matching(flohsync.connector_sync_config),
                  _flohsync.reactivate(flohsync.connector_sync_config, uuid[]), _flohsync.profile_field(text, jsonb, flohsync.connector_sync_config),
                  _flohsync.map_sql(flohsync.connector_sync_config), _flohsync.map_attributes(flohsync.connector_sync_config, uuid[], bigint, flohsync.resource_record),
                  _flohsync.link_created(uuid[], uuid[]), _flohsync.apply_defaults(flohsync.connector_sync_config, uuid[]),
                  _flohsync.create_users(flohsync.connector_sync_config, uuid[], bigint, boolean, flohsync.resource_record),
                  _flohsync.leavers(flohsync.connector_sync_config, uuid[]), _flohsync.tell_others(flohsync.connector_sync_config, uuid[]),
                  _flohsync.deactivate(flohsync.connector_sync_config, uuid[], bigint, boolean),
                  _flohsync.to_do(flohsync.connector_sync_config, _flohsync.match_progress), _flohsync.stage_failed(bigint, text, text, text, int, flohsync.resource_record),
                  _flohsync.reached_by_users(flohsync.connector_sync_config, xid8, xid8), _flohsync.look_again(uuid[], uuid), _flohsync.settle_departures(uuid[]),
                  _flohsync.profile_value(flohsync.user_profile, text), _flohsync.profile_changes(flohsync.user_profile, jsonb),
                  _flohsync.people(flohsync.connector_sync_config, uuid[], uuid[], bigint, boolean, boolean, boolean, boolean, flohsync.resource_record),
                  _flohsync.post_sync(bigint, boolean), _flohsync.post_sync_failed(bigint, text, text),
                  _flohsync.changed_record(uuid, text, text, text, text, uuid, text), _flohsync.job_data(flohsync.connector_sync_config, bigint),
                  _flohsync.queue_jobs(flohsync.connector_sync_config, bigint, jsonb[]),
                  _flohsync.queue_record_jobs(flohsync.connector_sync_config, bigint, jsonb),
                  _flohsync.trigger_per_record(flohsync.connector_sync_config, bigint, uuid[]), _flohsync.trigger_summary(bigint, jsonb),
                  _flohsync.job_problem(flohsync.workflow_job), _flohsync.start_workflows(bigint[]) TO %s', _role);
  -- Webhooks are taken in any role's session, with the rights of this one.
  EXECUTE format('GRANT EXECUTE ON FUNCTION _flohsync.connector_id(text), _flohsync.check_resource_type(text), _flohsync.invalid(text, text, text),
                  _flohsync.webhook_failed(flohsync.resource_record, text, text, text), _flohsync.follow_webhook(uuid, text),
                  _flohsync.leave_scope(uuid, timestamptz, timestamptz), _flohsync.is_news(flohsync.resource_record, timestamptz, timestamptz),
                  _flohsync.too_many_leavers(flohsync.connector_sync_config), _flohsync.let_go(flohsync.connector_sync_config, flohsync.resource_record),
                  _flohsync.delete_record(uuid, text, text, timestamptz, interval), _flohsync.forget_webhooks(interval) TO %s', _role);
END
$$;
COMMENT ON FUNCTION _flohsync.grant_worker(regrole) IS 'Grants a role what the workers need; call it for the role of flohsync.worker_role after changing that';
REVOKE ALL ON FUNCTION _flohsync.grant_worker(regrole) FROM PUBLIC;

SELECT _flohsync.grant_worker(pg_catalog.quote_ident(
  coalesce(nullif(pg_catalog.current_setting('flohsync.worker_role', true), ''), 'flohsync_worker'))::pg_catalog.regrole);
