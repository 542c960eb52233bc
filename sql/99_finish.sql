-- What a dump carries: everything but the queue and the ledger of open passes
-- (without its ledger a failed pass begins again).

SELECT pg_catalog.pg_extension_config_dump('flohsync.connector_definition', '');
SELECT pg_catalog.pg_extension_config_dump('_flohsync.connector_secret', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.workflow_definition', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.connector_sync_config', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.resource_record', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.resource_record_record_no_seq', '');
SELECT pg_catalog.pg_extension_config_dump('_flohsync.former_pass', '');
SELECT pg_catalog.pg_extension_config_dump('_flohsync.resource_tombstone', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.sync_run', $$WHERE status IN ('success', 'error', 'cancelled')$$);
SELECT pg_catalog.pg_extension_config_dump('flohsync.sync_run_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.workflow_job', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.workflow_job_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.workflow_run', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.floh_user', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.user_profile', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.user_external_identity', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.connector_sync_match', '');
SELECT pg_catalog.pg_extension_config_dump('_flohsync.departure', '');
SELECT pg_catalog.pg_extension_config_dump('_flohsync.departure_seq_seq', '');
SELECT pg_catalog.pg_extension_config_dump('_flohsync.webhook_handler', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.entitlement_event', '');
SELECT pg_catalog.pg_extension_config_dump('flohsync.entitlement_event_id_seq', '');

-- Sessions may know connectors of an extension that was dropped: their trigger tells them.
DELETE FROM flohsync.connector_definition WHERE false;

SELECT _flohsync.wake();
