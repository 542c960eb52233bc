-- Something in every table of version 0.3, as rows: when a later version is
-- tested with it the library is of that version, and need not know these tables.
-- 091_upgrade.t runs it as a superuser; no later version changes it.
\set ON_ERROR_STOP 1
SELECT 'CREATE ROLE ' || r FROM unnest('{upgrade_reader,upgrade_manager,upgrade_gateway,upgrade_other}'::text[]) r
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r)
\gexec
BEGIN;

-- Directories of connectors of kind sql
CREATE TABLE public.people (directory text, id text, name text, mail text, attrs jsonb, PRIMARY KEY (directory, id));
INSERT INTO public.people
SELECT d, n, 'Name of ' || n, 'p' || n || '@acme.com', jsonb_build_object('title', 'T ' || n)
  FROM unnest('{hr,crm}'::text[]) d, generate_series(1, 12) n
 WHERE d = 'crm' OR n <= 6;
GRANT SELECT ON public.people TO upgrade_manager;

-- No trigger, no key that is checked: what they would write is below.
SET LOCAL session_replication_role = replica;

UPDATE _flohsync.home SET id = '00000000-0000-4000-8000-000000000000';
INSERT INTO flohsync.connector_definition (id, name, kind, description, config, definition, enabled, created_at, updated_at, author, home)
SELECT x.id, x.name, x.kind, x.description, x.config, x.definition, x.enabled, '2026-01-02 03:04:05Z', '2026-01-03 03:04:05Z', 'upgrade_manager', '00000000-0000-4000-8000-000000000000'
  FROM (VALUES ('00000000-0000-4000-8000-000000000001'::uuid, 'hr', 'sql', 'people''s "register"',
          '{"queries": {"user": "select id as external_id, name as display_name, mail as email, attrs as attributes from public.people where directory = ''hr'' order by id"}}'::jsonb, NULL::jsonb, true),
        ('00000000-0000-4000-8000-000000000002', 'crm', 'sql', NULL,
          '{"queries": {"user": "select id as external_id, name as display_name, mail as email, attrs as attributes from public.people where directory = ''crm'' order by id",
                        "group": "select id as external_id, name as display_name, null::text as email, attrs as attributes from public.people where directory = ''crm'' order by id"}}', NULL, true),
        ('00000000-0000-4000-8000-000000000003', 'scim', 'rest', 'Größe',
          '{"host": "scim.example"}', '{"version": 1, "base_url": "https://{{config.host}}/v2", "auth": {"type": "bearer", "token": "{{secret.token}}"},
            "resources": {"user": {"list": {"path": "/Users", "records": "$.Resources[*]"}, "map": {"externalId": "$.id"}}}}', false),
        ('00000000-0000-4000-8000-000000000004', 'app', 'command', NULL,
          '{"url": "https://app.example/", "commands": ["listUsers", "getUser"]}', NULL, false)) x(id, name, kind, description, config, definition, enabled);

-- Encrypted with the key of the test
INSERT INTO _flohsync.connector_secret (connector_id, name, format, key_id, ciphertext, updated_at, kind, origins) VALUES
('00000000-0000-4000-8000-000000000003', 'token', 2, 'f4e0ae19e62d446d', '\x5ba105b8c1c487996b394a593e00cfc2ab0c2c937139b767c23cb8c606ace8df6e739203d8cca6',
 '2026-01-02 03:04:05Z', 'rest', '{https://scim.example}');

INSERT INTO flohsync.workflow_definition (id, name, enabled, definition, created_at) VALUES
('00000000-0000-4000-8000-000000000011', 'joiner', true, '{"a": 1}', '2026-01-02 03:04:05Z'),
('00000000-0000-4000-8000-000000000012', 'leaver', false, '{}', '2026-01-02 03:04:05Z');

INSERT INTO flohsync.connector_sync_config (id, connector_id, resource_type, enabled, strategy, cron_schedule, filter_rules, stale_retention, last_sync_at, last_sync_status,
  last_sync_error, last_sync_stats, attribute_mappings, user_match_fallback_strategies, issuer_source_path, post_sync_workflow_id, sync_trigger_mode, create_users, deactivate_users,
  create_user_defaults, full_cron_schedule, timezone, overlap, hash_ignore, hash_ignore_since, safeguards, next_run_at, next_full_run_at, watermark, last_full_pass_at, last_success_at,
  last_complete_at, incomplete_reason, retries, parked, totals, delta_link, delta_fingerprint, owner, created_at, updated_at) VALUES
('00000000-0000-4000-8000-000000000021', '00000000-0000-4000-8000-000000000001', 'user', true, 'full', '0 0 1 1 *', NULL, '30d', '2026-01-04 00:00:01Z', 'error',
  'would mark 5 of 11 active records stale (45.5 %), more than the safeguard of 30.0 % allows; 5 users have such a record', '{"added": 0, "unchanged": 6, "totalUpstreamRecords": 6}',
  '[{"sourcePath": "attributes.title", "targetField": "title"}]', '["external_id"]', 'attributes.issuer', '00000000-0000-4000-8000-000000000011', 'per_record', true, true,
  '{"confirmed": false}', NULL, 'Europe/Berlin', '10 minutes', '["attributes.seen"]', '2026-01-02 03:04:05Z', '{"minRecords": 2, "maxStaleFraction": 0.3}', '2099-01-01 00:00:00Z', NULL,
  '2026-01-04 00:00:00Z', '2026-01-03 00:00:00Z', '2026-01-03 00:00:01Z', '2026-01-04 00:00:01Z', NULL, 0, false, '{"held": 1, "added": 12, "success": 2}', NULL, NULL,
  'upgrade_manager', '2026-01-02 03:04:05Z', '2026-01-04 00:00:01Z'),
('00000000-0000-4000-8000-000000000022', '00000000-0000-4000-8000-000000000002', 'user', true, 'full', NULL, '{"emailDomains": ["acme.com"]}', '7d', NULL, 'idle',
  NULL, NULL, NULL, NULL, NULL, NULL, 'none', false, false, NULL, NULL, 'UTC', '5 minutes', NULL, '2026-01-02 03:04:05Z', '{"maxStaleFraction": 0.2}', NULL, NULL,
  NULL, NULL, NULL, NULL, NULL, 0, false, '{}', NULL, NULL, 'upgrade_manager', '2026-01-02 03:04:05Z', '2026-01-02 03:04:05Z'),
('00000000-0000-4000-8000-000000000023', '00000000-0000-4000-8000-000000000002', 'group', true, 'full', NULL, NULL, '7d', '2026-01-04 00:00:00Z', 'running',
  NULL, NULL, NULL, NULL, NULL, NULL, 'none', false, false, NULL, NULL, 'UTC', '5 minutes', NULL, '2026-01-02 03:04:05Z', '{"maxStaleFraction": 0.2}', NULL, NULL,
  NULL, NULL, NULL, NULL, NULL, 0, false, '{}', NULL, NULL, 'upgrade_manager', '2026-01-02 03:04:05Z', '2026-01-02 03:04:05Z'),
('00000000-0000-4000-8000-000000000024', '00000000-0000-4000-8000-000000000003', 'user', true, 'incremental', '@hourly', NULL, '7d', '2026-01-04 00:00:00Z', 'error',
  'the upstream says 503', NULL, NULL, NULL, NULL, NULL, 'none', false, false, NULL, '@weekly', 'UTC', '5 minutes', NULL, '2026-01-02 03:04:05Z', '{}', '2099-01-01 00:00:00Z', '2099-01-02 00:00:00Z',
  '2026-01-03 00:00:00Z', '2026-01-03 00:00:00Z', '2026-01-03 00:00:00Z', '2026-01-03 00:00:00Z', 'page 2 did not come', 3, true, '{"errored": 1}', 'https://scim.example/delta?x=1', 'abc',
  '?upgrade_gone', '2026-01-02 03:04:05Z', '2026-01-02 03:04:05Z');

-- Records of hr: 12 is stale; their users, matches and what else there is about them
INSERT INTO flohsync.resource_record (record_no, id, observed_at, created_at, connector_id, sync_hash, stale_since, resource_type, external_id, display_name, email, attributes, event_at, event_keys)
SELECT n, ('01a00000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, '2026-01-03 00:00:00Z', '2026-01-02 03:04:05Z', '00000000-0000-4000-8000-000000000001',
       flohsync.resource_hash(n::text, 'Name of ' || n, 'p' || n || '@acme.com', jsonb_build_object('title', 'T ' || n)), CASE n WHEN 12 THEN now() END, 'user', n::text,
       'Name of ' || n, 'p' || n || '@acme.com', jsonb_build_object('title', 'T ' || n), CASE n WHEN 2 THEN timestamptz '2026-01-02 05:00:00Z' END, CASE n WHEN 2 THEN '{"email": 820560000000000}'::jsonb END
  FROM generate_series(1, 12) n;
INSERT INTO flohsync.floh_user (id, iss, sub, email, display_name, confirmed, upstream_issuer, upstream_id, active, deleted_at, deactivated_by_run, created_at, updated_at)
SELECT ('02000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, CASE WHEN n % 2 = 0 THEN '-' ELSE 'https://idp' END, CASE WHEN n % 2 = 0 THEN 'p' || n || '@acme.com' ELSE 'sub of ' || n END,
       'p' || n || '@acme.com', 'Name of ' || n, n % 2 = 1, CASE n WHEN 1 THEN 'https://up' END, CASE n WHEN 1 THEN 'u1' END, n <> 12, CASE n WHEN 11 THEN timestamptz '2026-01-03 00:00:00Z' END,
       CASE n WHEN 12 THEN 2 END, '2026-01-02 03:04:05Z', '2026-01-02 03:04:05Z'
  FROM generate_series(1, 12) n;
INSERT INTO flohsync.user_profile (user_id, title, department, phone_number, location, employee_id, cost_center, start_date, manager_id, custom_attributes, attribute_sources, updated_at)
SELECT u.id, 'T ' || n, 'Sales', '+49', 'Köln', n::text, 'C1', '2025-12-31', '02000000-0000-4000-8000-000000000001', '{"floor": 3}', '{"title": "connector"}', '2026-01-02 03:04:05Z'
  FROM flohsync.floh_user u, substr(u.display_name, 9) n WHERE n::int <= 10;
INSERT INTO flohsync.user_external_identity (user_id, connector_id, external_id, external_email, external_display_name, source, attributes, verified_at)
SELECT u.id, '00000000-0000-4000-8000-000000000001', n, u.email, u.display_name, CASE n WHEN '3' THEN 'manual' ELSE 'connector_sync' END, CASE n WHEN '3' THEN '{"by": "hand"}'::jsonb END, '2026-01-02 03:04:05Z'
  FROM flohsync.floh_user u, substr(u.display_name, 9) n WHERE n::int <= 10;
INSERT INTO flohsync.connector_sync_match (id, connector_id, resource_type, connector_resource_id, external_id, external_display_name, external_email, user_id, match_status, match_confidence,
  match_strategy, candidate_user_ids, resolution_notes, resolved_by, resolved_at, created_at, updated_at)
SELECT ('03000000-0000-7000-8000-' || lpad(r.external_id, 12, '0'))::uuid, r.connector_id, 'user', r.id, r.external_id, r.display_name, r.email, CASE WHEN r.record_no <= 10 THEN u.id END,
       CASE r.record_no WHEN 3 THEN 'manual_override' WHEN 11 THEN 'skipped' WHEN 12 THEN 'ambiguous' ELSE 'matched' END, CASE r.record_no WHEN 11 THEN 'none' WHEN 12 THEN 'ambiguous' ELSE 'exact' END,
       CASE WHEN r.record_no <= 10 THEN 'email' END, CASE r.record_no WHEN 12 THEN jsonb_build_array('02000000-0000-4000-8000-000000000001', '02000000-0000-4000-8000-000000000002') END,
       CASE r.record_no WHEN 3 THEN 'it''s her' WHEN 11 THEN 'a robot' END, CASE WHEN r.record_no IN (3, 11) THEN '02000000-0000-4000-8000-000000000001'::uuid END,
       CASE WHEN r.record_no IN (3, 11) THEN timestamptz '2026-01-02 04:00:00Z' END, '2026-01-02 03:04:05Z', '2026-01-02 04:00:00Z'
  FROM flohsync.resource_record r JOIN flohsync.floh_user u ON u.email = r.email;
INSERT INTO _flohsync.tally (connector_id, resource_type, state, confidence, n)
SELECT connector_id, resource_type, CASE WHEN stale_since IS NULL THEN 'live' ELSE 'stale' END, NULL, count(*) FROM flohsync.resource_record GROUP BY 1, 2, 3
UNION ALL
SELECT connector_id, resource_type, match_status, match_confidence, count(*) FROM flohsync.connector_sync_match GROUP BY 1, 2, 3, 4;
INSERT INTO _flohsync.former_pass VALUES ('00000000-0000-4000-8000-000000000001', 'device', '2026-01-02 03:04:06Z');
INSERT INTO _flohsync.resource_tombstone (external_id, resource_type, connector_id, deleted_at, event_at, deactivated, made_at) VALUES
('99', 'user', '00000000-0000-4000-8000-000000000001', now(), '2026-01-02 05:00:00Z', true, now());
INSERT INTO _flohsync.match_progress (config_id, rules, users_seen, own_xid, matched_by) VALUES ('00000000-0000-4000-8000-000000000021', 'of another version', '700', '700', 'of another version');
INSERT INTO _flohsync.record_change (resource_id, connector_id, resource_type, change) VALUES
('01a00000-0000-7000-8000-000000000002', '00000000-0000-4000-8000-000000000001', 'user', 'recheck');
INSERT INTO _flohsync.departure (resource_id, connector_id, settled_at) VALUES
('01a00000-0000-7000-8000-000000000012', '00000000-0000-4000-8000-000000000001', '2026-01-03 00:00:01Z');
INSERT INTO _flohsync.user_change (user_id, email_key, sub, upstream_id) VALUES ('02000000-0000-4000-8000-000000000001', 'p1@acme.com', 'sub of 1', 'u1');
INSERT INTO _flohsync.setback (config_id, stage, resource_id, change, tried_at) VALUES
('00000000-0000-4000-8000-000000000021', 'map', '01a00000-0000-7000-8000-000000000004', 'updated', '2026-01-03 00:00:01Z');

-- Runs: two that ended, one that failed, one that is held, one that was cancelled, one that waits, and one that a crash has interrupted after its first page
INSERT INTO flohsync.sync_run (id, connector_id, resource_type, strategy, trigger, requested_by, requested_at, started_at, finished_at, status, cursor, pages, complete, incomplete_reason,
  error, error_class, stats, pass_id, pass_started_at, pass_pages, fingerprint, decided_under, staled, timings, post_sync, resolved_by, resolved_at, notes) OVERRIDING SYSTEM VALUE
SELECT id, connector, type, 'full', trigger, 'upgrade_manager', at, CASE WHEN status <> 'queued' THEN at END, CASE WHEN status NOT IN ('queued', 'running') THEN at + interval '1 second' END, status,
       NULL, CASE WHEN status <> 'queued' THEN 1 ELSE 0 END, CASE WHEN status IN ('success', 'held') THEN true WHEN status = 'error' THEN false END, CASE WHEN status = 'error' THEN 'page 2 did not come' END,
       error, CASE status WHEN 'held' THEN 'safeguard' WHEN 'error' THEN 'upstream' END,
       CASE WHEN status IN ('success', 'held') THEN '{"added": 0, "bytes": 0, "staled": 0, "errored": 0, "ignored": 0, "removed": 0, "updated": 0, "filtered": 0, "restored": 0, "truncated": 0,
         "duplicates": 0, "durationMs": 9, "complete": true, "pagesProcessed": 1}'::jsonb || jsonb_build_object('unchanged', n, 'totalUpstreamRecords', n) END,
       CASE WHEN status <> 'queued' THEN id END, CASE WHEN status <> 'queued' THEN at END, CASE WHEN status <> 'queued' THEN 1 END, CASE WHEN status <> 'queued' THEN 'of another version' END, NULL,
       CASE id WHEN 2 THEN 1 ELSE 0 END, CASE status WHEN 'success' THEN '{"fetchMs": 1}'::jsonb END, CASE id WHEN 2 THEN '{"matchesChanged": 1}'::jsonb END,
       CASE status WHEN 'cancelled' THEN 'upgrade_manager' END, CASE status WHEN 'cancelled' THEN at + interval '1 hour' END, CASE status WHEN 'cancelled' THEN 'not today' END
  FROM (VALUES (1, '00000000-0000-4000-8000-000000000001'::uuid, 'user', 'schedule', timestamptz '2026-01-02 03:05:00Z', 'success', NULL, 12),
        (2, '00000000-0000-4000-8000-000000000001', 'user', 'manual', '2026-01-03 00:00:00Z', 'success', NULL, 11),
        (3, '00000000-0000-4000-8000-000000000002', 'user', 'api', '2026-01-03 00:00:00Z', 'error', 'relation "people" does not exist', 0),
        (4, '00000000-0000-4000-8000-000000000002', 'user', 'retry', '2026-01-03 01:00:00Z', 'cancelled', NULL, 0),
        (5, '00000000-0000-4000-8000-000000000001', 'user', 'manual', '2026-01-04 00:00:00Z', 'held',
          'would mark 5 of 11 active records stale (45.5 %), more than the safeguard of 30.0 % allows; 5 users have such a record', 6),
        (6, '00000000-0000-4000-8000-000000000002', 'user', 'manual', '2026-01-04 00:00:00Z', 'queued', NULL, 0),
        (7, '00000000-0000-4000-8000-000000000002', 'group', 'manual', '2026-01-04 00:00:00Z', 'running', NULL, 0)) r(id, connector, type, trigger, at, status, error, n);
INSERT INTO flohsync.sync_run_page (run_id, page, cursor, next_cursor, fetched_at, records, bytes, fetch_ms, apply_ms, added, updated, unchanged, restored, filtered, errored, ignored, duplicates,
  truncated, unidentified, total_estimate, seen, deleted, changed, incomplete, link)
SELECT r.id, 1, NULL, CASE r.id WHEN 7 THEN '10' END, r.started_at, 0, 100, 1.5, 0.5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, CASE WHEN r.id IN (5, 7) THEN '\x00'::bytea END, CASE r.id WHEN 7 THEN '{77}'::text[] END,
       CASE r.id WHEN 7 THEN '{01a00000-0000-7000-8000-000000000077}'::uuid[] END, CASE r.id WHEN 3 THEN 'one record could not be read' END, CASE r.id WHEN 3 THEN 'https://app.example/2' END
  FROM flohsync.sync_run r WHERE r.id <> 6;
INSERT INTO flohsync.sync_error (run_id, page, external_id, error_class, message, payload, created_at, connector_id, resource_type) VALUES
(3, 1, 'x', 'bad_record', 'it has no name', '{"externalId": "x"}', '2026-01-03 00:00:00Z', NULL, NULL),
(NULL, NULL, 'y', 'webhook', 'no such record', NULL, now(), '00000000-0000-4000-8000-000000000001', 'user');
INSERT INTO flohsync.workflow_job (id, run_id, workflow_id, data, status, attempts, run_after, claimed_at, error, created_at, finished_at) OVERRIDING SYSTEM VALUE VALUES
(1, 1, '00000000-0000-4000-8000-000000000011', '{"runId": 1}', 'done', 1, '2026-01-02 03:05:00Z', '2026-01-02 03:05:01Z', NULL, '2026-01-02 03:05:00Z', '2026-01-02 03:05:02Z'),
(2, 2, '00000000-0000-4000-8000-000000000011', '{"runId": 2}', 'failed', 5, '2099-01-02 03:05:00Z', NULL, 'no', '2026-01-02 03:05:00Z', '2026-01-02 03:05:02Z'),
(3, 2, '00000000-0000-4000-8000-000000000011', '{"runId": 2}', 'queued', 0, '2099-01-02 03:05:00Z', NULL, NULL, '2026-01-02 03:05:00Z', NULL);
INSERT INTO flohsync.workflow_run (id, job_id, workflow_id, variables, status, created_at) VALUES
('04000000-0000-7000-8000-000000000001', 1, '00000000-0000-4000-8000-000000000011', '{"runId": 1}', 'pending', '2026-01-02 03:05:00Z');

-- Webhooks and the cache
UPDATE _flohsync.cache_state SET epoch = 42, timeline = 1, changed_at = '2026-01-02 03:05:00Z';
INSERT INTO _flohsync.cache_epoch VALUES ('00000000-0000-4000-8000-000000000001', 'user', 7);
INSERT INTO _flohsync.cache_outbox (connector_id, resource_type, external_id, created_at) VALUES ('00000000-0000-4000-8000-000000000001', 'user', '1', now());
INSERT INTO _flohsync.webhook_delivery VALUES ('00000000-0000-4000-8000-000000000001', 'delivery 1', now());
INSERT INTO flohsync.entitlement_event (connector_id, body, received_at) VALUES ('00000000-0000-4000-8000-000000000001', '{"entitlement": 0}', now());
CREATE FUNCTION public.handle(c uuid, b jsonb) RETURNS void LANGUAGE sql AS 'select';
INSERT INTO _flohsync.webhook_handler (handler, owner, code_owner, set_at) VALUES ('public.handle(uuid, jsonb)', 'upgrade_manager', 'upgrade_manager', now());

-- Fingerprints of pages
INSERT INTO _flohsync.page_print_scope SELECT c.id, 'settings 0.3', 1, 2, '5:5:' FROM flohsync.connector_sync_config c LIMIT 1;
INSERT INTO _flohsync.page_print (config_id, pass_id, page, digest, bytes, records, unchanged, filtered, truncated, seen, read_from, read_to, etag)
SELECT s.config_id, 1, 1, sha256('page'), 4, 1, 1, 0, 0, '\x02', '', '', '"1"' FROM _flohsync.page_print_scope s;
INSERT INTO _flohsync.page_list (config_id, came) SELECT s.config_id, '\x0100' FROM _flohsync.page_print_scope s;
UPDATE _flohsync.page_print SET list_id = 1, came = '\x0200';
UPDATE flohsync.sync_run_page SET print = 1 WHERE page = 1;
INSERT INTO _flohsync.dirty_record (connector_id, resource_type, nums, pass_id, xid) VALUES ('00000000-0000-4000-8000-000000000001', 'user', '\x02', 1, '3');

-- API tokens, one of a role that is gone
INSERT INTO _flohsync.api_token (name, token_hash, role, created_at, created_by, expires_at) VALUES
('dashboard', sha256('fls_1'), 'upgrade_reader', '2026-01-02 03:05:00Z', 'upgrade_manager', NULL),
('former', sha256('fls_2'), '?upgrade_gone', '2026-01-02 03:05:00Z', 'upgrade_manager', '2026-02-02 03:05:00Z');

-- Sequences go on behind what is there.
SELECT setval('flohsync.sync_run_id_seq', 7), setval('flohsync.workflow_job_id_seq', 3), setval('flohsync.resource_record_record_no_seq', 112);
SET LOCAL session_replication_role = origin;

-- Rights: what grant_reader() and grant_manager() give, and others
SELECT flohsync.grant_reader('upgrade_reader'), flohsync.grant_manager('upgrade_manager'), flohsync.grant_gateway('upgrade_gateway');
GRANT USAGE ON SCHEMA flohsync, _flohsync, flohsync_api TO upgrade_other;
GRANT SELECT ON flohsync.workflow_run TO PUBLIC;
GRANT SELECT, TRIGGER ON flohsync.sync_run, flohsync.workers TO upgrade_other WITH GRANT OPTION;
GRANT UPDATE (description) ON flohsync.connector_definition TO upgrade_other;
GRANT SELECT ON _flohsync.home, flohsync.sync_run_id_seq TO upgrade_other;
GRANT EXECUTE ON FUNCTION flohsync.receive_webhook(text, bytea, jsonb), flohsync.cron_next(text, timestamptz, text), flohsync.processes() TO upgrade_other;

-- Objects of others on ours, and the view of users put before another table
CREATE VIEW public.names AS SELECT r.display_name, c.name FROM flohsync.resource_record r JOIN flohsync.connector_definition c ON c.id = r.connector_id;
CREATE INDEX names_of_others ON flohsync.resource_record (display_name);
CREATE STATISTICS public.of_records ON connector_id, resource_type FROM flohsync.resource_record;
CREATE TABLE public.badge (person uuid REFERENCES flohsync.floh_user(id) ON DELETE SET NULL);
CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS 'begin return null; end';
CREATE TRIGGER note AFTER INSERT ON flohsync.workflow_run FOR EACH ROW EXECUTE FUNCTION public.note();
CREATE OR REPLACE VIEW flohsync.v_user WITH (security_barrier) AS
SELECT u.id, u.email::text, u.display_name::text, u.upstream_issuer::text, u.upstream_id::text, u.sub::text, u.confirmed, u.active
  FROM flohsync.floh_user u
 WHERE u.deleted_at IS NULL AND u.iss <> 'https://elsewhere';
COMMIT;
