-- Schema flohsync_api: what each function answers, with which status and headers,
-- and who may call it.
SET client_min_messages = error;
\set SHOW_CONTEXT never
DROP EXTENSION IF EXISTS flohsync CASCADE;
CREATE EXTENSION flohsync;
CREATE ROLE regress_reader;
CREATE ROLE regress_manager;
CREATE ROLE regress_other;
CREATE ROLE regress_gateway NOINHERIT;
CREATE ROLE regress_bypass BYPASSRLS;
CREATE ROLE regress_super SUPERUSER;
SELECT flohsync.grant_reader('regress_reader'), flohsync.grant_manager('regress_manager'), flohsync.grant_gateway('regress_gateway');
GRANT regress_reader, regress_manager TO regress_gateway;

-- An answer with its status and headers, as a program that serves shows it; times and ids as words
CREATE FUNCTION public.shown(answer jsonb) RETURNS text LANGUAGE sql AS $$
  SELECT regexp_replace(regexp_replace(regexp_replace(regexp_replace(
           concat_ws(' ', nullif(current_setting('response.status', true), ''), nullif(current_setting('response.headers', true), ''), coalesce(answer::text, '-')),
           '\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z', 'TIME', 'g'), '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', 'UUID', 'g'),
           '[0-9a-f]{64}', 'HASH', 'g'), '\\"([0-9a-f]{32}|[0-9a-f]{24}-[0-9a-f]{8})\\"|(?<="nextAfter": )"[^"]*"', 'ETAG', 'g')
$$;
CREATE PROCEDURE public.request(role text, call text, headers jsonb DEFAULT NULL, method text DEFAULT '') LANGUAGE plpgsql AS $$
DECLARE
  answer jsonb;
  detail text;
  hint text;
BEGIN
  PERFORM set_config('request.headers', coalesce(headers::text, ''), true), set_config('request.method', method, true),
          set_config('response.status', '', true), set_config('response.headers', '', true);
  IF role <> '' THEN
    PERFORM set_config('role', role, true);
  END IF;
  BEGIN
    EXECUTE format('SELECT to_jsonb(flohsync_api.%s)', call) INTO answer;
    RAISE INFO '%', public.shown(answer);
  EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RAISE INFO 'ERROR % %', SQLSTATE, regexp_replace(concat_ws(' / ', SQLERRM, nullif(detail, ''), nullif(hint, '')), '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', 'UUID', 'g');
  END;
END $$;
GRANT EXECUTE ON FUNCTION public.shown(jsonb) TO PUBLIC;

-- who asks
SET request.jwt.claims = '{"sub": "joe"}';
CALL request('regress_reader', 'me()');
CALL request('regress_manager', 'me()');
CALL request('regress_other', 'me()');
CALL request('regress_gateway', 'me()');
RESET request.jwt.claims;
CALL request('regress_reader', 'me()');

-- connectors
CALL request('regress_manager', 'create_connector(name => ''dir'', kind => ''command'', config => ''{"url": "https://dir.example/", "commands": ["listUsers", "listGroups"]}'', description => ''ours'')');
CALL request('regress_manager', 'create_connector(name => ''dir'', kind => ''command'')');
CALL request('regress_manager', 'create_connector(name => ''dir'', kind => ''command'', config => ''{"url": "https://dir.example/"}'')');
CALL request('regress_reader', 'create_connector(name => ''x'', kind => ''command'')');
CALL request('regress_manager', 'create_connector(name => ''other'', kind => ''sql'', config => ''{"queries": {"user": "SELECT 1"}}'', enabled => false)');
CALL request('regress_reader', 'connectors()');
CALL request('regress_reader', 'connectors(search => ''OUR'', page_size => 1)');
CALL request('regress_reader', 'connectors(page => 2, page_size => 1)');
CALL request('regress_reader', 'connectors(page => 9)');
CALL request('regress_reader', 'connectors(page => 0)');
CALL request('regress_reader', 'connectors(page_size => 2001)');
CALL request('regress_reader', 'connector(''dir'')');
CALL request('regress_manager', 'connector(''dir'')');
CALL request('regress_reader', 'connector(''none'')');
CALL request('regress_reader', 'connector(NULL)');
CALL request('regress_manager', 'update_connector(''dir'', ''{"description": "theirs", "name": "directory"}'')');
CALL request('regress_manager', 'update_connector(''directory'', ''{"none": 1}'')');
CALL request('regress_reader', 'update_connector(''directory'', ''{}'')');
CALL request('regress_manager', 'test_connector(''other'')');
CALL request('regress_reader', 'test_connector(''other'')');
CALL request('regress_reader', 'validate_definition(''{}'')');
SELECT jsonb_array_length(flohsync_api.templates()) AS templates, flohsync_api.templates() -> 0 ->> 'name' AS first, ARRAY(SELECT jsonb_object_keys(flohsync_api.templates() -> 0)) AS keys;

-- secrets, where none is set
CALL request('regress_manager', 'secrets(''directory'')');
CALL request('regress_manager', 'set_secret(''directory'', ''token'', NULL)');
CALL request('regress_manager', 'delete_secret(''directory'', ''token'')');
CALL request('regress_reader', 'secrets(''directory'')');
CALL request('regress_reader', 'set_secret(''directory'', ''token'', ''x'')');
CALL request('regress_reader', 'delete_secret(''directory'', ''token'')');

-- configurations
CALL request('regress_manager', 'put_sync_config(''directory'', ''user'', ''{"staleRetention": "3d"}'')');
CALL request('regress_manager', 'put_sync_config(''directory'', ''user'', ''{"staleRetention": "4d"}'')');
CALL request('regress_manager', 'put_sync_config(''directory'', ''user'', ''{"none": "4d"}'')');
CALL request('regress_manager', 'put_sync_config(''directory'', ''a type'', ''{}'')');
CALL request('regress_reader', 'put_sync_config(''directory'', ''user'', ''{}'')');
CALL request('regress_reader', 'sync_config(''directory'', ''user'')');
CALL request('regress_reader', 'sync_config(''directory'', ''group'')');
CALL request('regress_reader', 'sync_config(''none'', ''group'')');
CALL request('regress_reader', 'sync_status(''directory'', ''user'')');
CALL request('regress_reader', 'sync_status(''directory'', ''group'')');
CALL request('regress_reader', 'jobs()');
CALL request('regress_reader', 'jobs(page_size => 0)');
-- the owner is the caller
SELECT owner FROM flohsync.connector_sync_config;
SELECT author FROM flohsync.connector_definition ORDER BY name;

-- ETags: of the settings alone
SELECT flohsync_api.sync_config('directory', 'user') IS NOT NULL AS read, current_setting('response.headers') AS was \gset
UPDATE flohsync.connector_sync_config SET last_sync_status = 'error', last_sync_at = now();
BEGIN;
SELECT flohsync_api.sync_config('directory', 'user') IS NOT NULL AS read, current_setting('response.headers')::jsonb -> 0 ->> 'ETag' AS etag \gset
CALL request('regress_manager', 'put_sync_config(''directory'', ''user'', ''{"staleRetention": "5d"}'')', jsonb_build_object('if-match', '"x", ' || :'etag'));
CALL request('regress_manager', 'put_sync_config(''directory'', ''user'', ''{"staleRetention": "6d"}'')', jsonb_build_object('if-match', :'etag'));
CALL request('regress_manager', 'put_sync_config(''directory'', ''user'', ''{"staleRetention": "6d"}'')', '{"if-match": "*"}');
CALL request('regress_manager', 'put_sync_config(''directory'', ''group'', ''{}'')', '{"if-match": "*"}');
CALL request('regress_manager', 'put_sync_config(''directory'', ''group'', ''{}'')', jsonb_build_object('if-match', :'etag'));
COMMIT;
SELECT stale_retention FROM flohsync.connector_sync_config;
BEGIN;
SET LOCAL ROLE regress_manager;
SELECT flohsync_api.connector('directory') IS NOT NULL AS read, current_setting('response.headers')::jsonb -> 0 ->> 'ETag' AS etag \gset
CALL request('regress_manager', 'update_connector(''directory'', ''{"description": "1"}'')', jsonb_build_object('if-match', 'W/' || :'etag'));
CALL request('regress_manager', 'update_connector(''directory'', ''{"description": "1"}'')', jsonb_build_object('if-match', :'etag'));
CALL request('regress_manager', 'update_connector(''directory'', ''{"description": "2"}'')', jsonb_build_object('if-match', :'etag'));
COMMIT;
SELECT description FROM flohsync.connector_definition WHERE name = 'directory';
SELECT _flohsync.etag('{"a": 1}') = '"' || left(encode(sha256('{"a": 1}'), 'hex'), 32) || '"' AS etag;

-- records
SELECT flohsync.upsert_resources('directory', 'user', '[{"externalId": "1", "displayName": "Ann", "email": "ann@acme.com"}, {"externalId": "2", "email": "bob@acme.com", "attributes": {"a": 1}}]');
CALL request('regress_reader', 'resources(''directory'', page_size => 1)');
CALL request('regress_reader', 'resources(''directory'', ''user'', search => ''BOB'', stale => false)');
CALL request('regress_reader', 'resources(''directory'', '''', stale => true)');
CALL request('regress_reader', 'resources(''directory'', after => ''x'')');
CALL request('regress_reader', 'resource(''directory'', ''user'', ''1'')');
CALL request('regress_reader', 'resource(''directory'', ''user'', ''3'')');
CALL request('regress_reader', 'resource(''directory'', ''user'', NULL)');
CALL request('regress_reader', 'resource(''other'', ''user'', ''1'')');
CALL request('regress_manager', 'clear_cache(''directory'', ''user'')');
CALL request('regress_manager', 'clear_cache(''none'')');
CALL request('regress_reader', 'clear_cache(''directory'')');

-- matches
INSERT INTO flohsync.floh_user (id, iss, sub, email, display_name, confirmed) VALUES ('00000000-0000-4000-8000-000000000001', 'https://iss', 's', 'ann@acme.com', 'Ann', true);
SELECT flohsync.match_users('directory', 'user') ->> 'matched' AS matched;
CALL request('regress_reader', 'matches(''directory'', ''user'')');
CALL request('regress_reader', 'matches(''directory'', ''user'', status => ''unmatched'', search => ''bob'')');
CALL request('regress_reader', 'matches(''directory'', ''user'', status => ''none'')');
CALL request('regress_reader', 'match_stats(''directory'', ''user'')');
CALL request('regress_reader', 'explain(''directory'', ''user'', ''9'')');
SELECT flohsync_api.explain('directory', 'user', '1') -> 'outcome' ->> 'status' AS explained;
SELECT id AS match FROM flohsync.connector_sync_match WHERE external_id = '2' \gset
SELECT format('resolve_match(''directory'', %L, ''link'', ''00000000-0000-4000-8000-000000000001'', ''by hand'')', :'match') AS link,
       format('resolve_match(''other'', %L, ''skip'')', :'match') AS of_other, format('resolve_match(''directory'', %L, ''none'')', :'match') AS unknown,
       format('resolve_match(''directory'', %L, ''create'')', :'match') AS make,
       format('unlink_match(''directory'', %L)', :'match') AS unlink, format('unlink_match(''other'', %L)', :'match') AS unlink_of_other,
       format('bulk_resolve_matches(''directory'', ARRAY[%L]::uuid[], ''skip'')', :'match') AS bulk, format('bulk_resolve_matches(''other'', ARRAY[%L]::uuid[], ''skip'')', :'match') AS bulk_of_other \gset
CALL request('regress_manager', :'link');
CALL request('regress_manager', :'of_other');
CALL request('regress_manager', :'unknown');
CALL request('regress_manager', 'resolve_match(''directory'', NULL, ''skip'')');
CALL request('regress_reader', :'link');
CALL request('regress_manager', :'unlink');
CALL request('regress_manager', :'unlink_of_other');
CALL request('regress_reader', :'unlink');
CALL request('regress_manager', :'bulk');
CALL request('regress_manager', :'bulk_of_other');
CALL request('regress_manager', 'bulk_resolve_matches(''directory'', ''{}'', ''skip'')');
CALL request('regress_reader', :'bulk');
CALL request('regress_manager', :'make');
CALL request('regress_manager', :'make');

-- runs: those that the test makes up, younger than what flohsync.run_retention removes, and those that are asked for where no worker looks
SELECT date_trunc('second', now()) - interval '10 minutes' AS t0 \gset
INSERT INTO flohsync.sync_run (connector_id, resource_type, strategy, trigger, requested_by, status, started_at, finished_at, stats, complete, error, error_class)
SELECT d.id, 'user', 'full', 'manual', 'regress_manager', r.status, r.at, r.at + interval '1 second', r.stats, r.status <> 'error', r.error, r.class
  FROM flohsync.connector_definition d,
       (VALUES ('success', timestamptz :'t0' + interval '1 minute', '{"added": 2}'::jsonb, NULL, NULL), ('error', timestamptz :'t0' + interval '2 minutes', '{"added": 0}', 'no answer', 'network'),
               ('cancelled', timestamptz :'t0' + interval '3 minutes', NULL, 'run was cancelled', 'cancelled'), ('held', timestamptz :'t0' + interval '4 minutes 1 microsecond', '{"added": 0}', 'too many', 'safeguard')) r(status, at, stats, error, class)
 WHERE d.name = 'directory';
INSERT INTO flohsync.sync_error (run_id, page, external_id, error_class, message) VALUES (2, 1, 'x', 'wrong_type', 'it is a number');
INSERT INTO flohsync.sync_run_page (run_id, page, fetched_at, records, bytes, fetch_ms, apply_ms, added, updated, unchanged, restored, filtered, errored, ignored, duplicates, truncated, unidentified)
VALUES (1, 1, '2026-01-02 03:04:05Z', 2, 100, 1.5, 0.5, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0);
CALL request('regress_reader', 'runs(''directory'', page_size => 1)');
CALL request('regress_reader', 'runs(status => ''error'')');
CALL request('regress_reader', 'runs(''other'')');
CALL request('regress_reader', 'runs(''directory'', ''group'', mode => ''sync'')');
CALL request('regress_reader', 'runs(mode => ''plan'')');
CALL request('regress_reader', 'runs(status => ''none'')');
CALL request('regress_reader', 'runs(resource_type => ''a type'')');
CALL request('regress_reader', 'runs(page_size => 0)');
CALL request('regress_reader', 'run(''directory'', 1)');
CALL request('regress_reader', 'run(''other'', 1)');
CALL request('regress_reader', 'run(''directory'', 99)');
CALL request('regress_reader', 'run(''directory'', NULL)');
CALL request('regress_reader', 'run_errors(''directory'', 2)');
CALL request('regress_reader', 'run_errors(''other'', 2)');
CALL request('regress_reader', 'run_errors(''directory'', 2, page => 0)');
CALL request('regress_reader', 'run_pages(''directory'', 1)');
CALL request('regress_reader', 'run_pages(''other'', 1)');
CALL request('regress_reader', 'run_pages(''directory'', 1, page => 0)');
CALL request('regress_reader', 'held_changes(''directory'', 4)');
CALL request('regress_reader', 'held_changes(''directory'', 1)');
CALL request('regress_reader', 'held_changes(''other'', 4)');
CALL request('regress_manager', 'trigger_result(''directory'', 1)');
CALL request('regress_manager', 'trigger_result(''directory'', 2)');
CALL request('regress_manager', 'trigger_result(''directory'', 3)');
CALL request('regress_manager', 'trigger_result(''directory'', 4)');
CALL request('regress_manager', 'trigger_result(''other'', 1)');
CALL request('regress_reader', 'trigger_result(''directory'', 1)');
CALL request('regress_reader', 'approve_run(''directory'', 4)');
CALL request('regress_manager', 'approve_run(''other'', 4)');
CALL request('regress_manager', 'approve_run(''directory'', 1)');
CALL request('regress_reader', 'reject_run(''directory'', 4)');
CALL request('regress_manager', 'reject_run(''other'', 4)');
CALL request('regress_reader', 'cancel_run(''directory'', 4)');
CALL request('regress_manager', 'cancel_run(''other'', 4)');
CALL request('regress_manager', 'cancel_run(''directory'', 4)');
CALL request('regress_manager', 'cancel_run(''directory'', 1)');
CALL request('regress_manager', 'reject_run(''directory'', 4, ''not today'')');
-- who did it is the caller, also behind two halves
SELECT id, status, resolved_by, notes FROM flohsync.sync_run WHERE id = 4;
UPDATE flohsync.connector_definition SET enabled = false WHERE name = 'directory';
BEGIN;
-- no worker sees it before it is committed
CALL request('regress_manager', 'trigger_sync(''directory'', ''user'')');
CALL request('regress_manager', 'trigger_sync(''directory'', ''user'', ''full'')');
SELECT strategy, requested_by FROM flohsync.sync_run WHERE status = 'queued';
CALL request('regress_manager', 'trigger_result(''directory'', 5)');
SELECT r - '{startedAt,page,records,added,updated,errored,unchanged,recordsPerSecond}'::text[] ? 'eta' AS has_eta, r ->> 'runId' AS run, r ->> 'status' AS status FROM jsonb_array_elements(flohsync_api.events() -> 'runs') r;
SELECT flohsync_api.run('directory', 5) -> 'progress' ->> 'status' AS progress;
CALL request('regress_manager', 'cancel_run(''directory'', 5, ''changed our minds'')');
ROLLBACK;
CALL request('regress_manager', 'trigger_sync(''directory'', ''group'')');
CALL request('regress_manager', 'trigger_sync(''directory'', ''user'', ''none'')');
CALL request('regress_reader', 'trigger_sync(''directory'', ''user'')');

-- events: after a time, oldest first; what ended with the last of them comes with it
SELECT split_part(e ->> 'id', '-', 1)::numeric - extract(epoch FROM timestamptz :'t0') * 1000000 AS microseconds, split_part(e ->> 'id', '-', 2) AS run,
       (e ->> 'at')::timestamptz - timestamptz :'t0' AS at, e -> 'run' ->> 'status' AS status, e -> 'matchStats' ->> 'total' AS matches
  FROM jsonb_array_elements(flohsync_api.events(timestamptz :'t0' + interval '2 minutes 1 second') -> 'ended') e;
SELECT jsonb_array_length(flohsync_api.events(:'t0', 2) -> 'ended') AS two, jsonb_array_length(flohsync_api.events() -> 'ended') AS none;
UPDATE flohsync.sync_run SET finished_at = timestamptz :'t0' + interval '61 seconds' WHERE id = 2;
SELECT jsonb_array_length(flohsync_api.events(:'t0', 1) -> 'ended') AS both_of_one_time;
CALL request('regress_gateway', 'events(max => 0)');
-- a type that concerns no users has no figures of matches
INSERT INTO flohsync.connector_sync_config (connector_id, resource_type, owner) SELECT id, 'role', 'regress_manager' FROM flohsync.connector_definition WHERE name = 'other';
INSERT INTO flohsync.sync_run (connector_id, resource_type, trigger, status, finished_at) SELECT id, 'role', 'manual', 'success', timestamptz :'t0' + interval '9 minutes' FROM flohsync.connector_definition WHERE name = 'other';
SELECT e -> 'run' ->> 'resourceType' AS type, e -> 'matchStats' AS matches FROM jsonb_array_elements(flohsync_api.events(timestamptz :'t0' + interval '8 minutes') -> 'ended') e;

-- what a program that serves does as itself, and nothing else
SET ROLE regress_gateway;
SELECT h ->> 'database' AS database, h ->> 'launcher' IN ('true', 'false') AS launcher, h ->> 'redis' IN ('off', 'up', 'down', 'unknown') AS redis, h -> 'heldRuns' AS held, ARRAY(SELECT jsonb_object_keys(h)) AS keys FROM flohsync_api.health() h;
SELECT flohsync_api.metrics() ~ '^# HELP flohsync_info' AS metrics;
SELECT flohsync_api.events() -> 'ended' AS ended;
SELECT flohsync_api.api_token('\x00') AS unknown;
SELECT flohsync_api.webhook('directory', 'POST', '{}', '{}', '{}');
SELECT flohsync_api.webhook('directory', 'GET', '{}', '{}', '');
SELECT flohsync_api.connectors();
SELECT flohsync_api.resources('directory');
SELECT count(*) FROM flohsync.sync_run;
SELECT _flohsync.api_health();
RESET ROLE;
SET ROLE regress_reader;
SELECT flohsync_api.webhook('directory', 'POST', '{}', '{}', '{}');
SELECT flohsync_api.api_token('\x00');
SELECT flohsync_api.health() ->> 'version' IS NOT NULL AS health;
RESET ROLE;
SELECT flohsync.grant_gateway('regress_super');
SELECT flohsync.grant_gateway('regress_bypass');
SELECT flohsync.grant_gateway('flohsync_owner');
SELECT flohsync.grant_gateway(NULL);
SET ROLE regress_manager;
SELECT flohsync.grant_gateway('regress_reader');
RESET ROLE;

-- tokens: of roles that the caller could take
GRANT regress_reader TO regress_manager;
SET ROLE regress_manager;
SELECT flohsync.create_api_token('t', 'regress_reader', now() + interval '1 day') AS token \gset
SELECT :'token' ~ '^fls_[A-Za-z0-9_-]{43}$' AS a_token, :'token' <> flohsync.create_api_token('mine', 'regress_manager') AS and_another;
SELECT flohsync.create_api_token('t', 'regress_reader');
SELECT flohsync.create_api_token('u', 'regress_other');
SELECT flohsync.create_api_token('u', 'regress_super');
SELECT flohsync.create_api_token('u', 'flohsync_worker');
SELECT flohsync.create_api_token('u', 'regress_reader', '2020-01-01');
SELECT flohsync.create_api_token('', 'regress_reader');
SELECT flohsync.create_api_token(NULL, NULL);
SELECT name, role, created_by, expires_at > now() AS expires FROM flohsync.api_tokens ORDER BY name;
SELECT count(*) FROM _flohsync.api_token;
RESET ROLE;
SET ROLE regress_reader;
SELECT flohsync.create_api_token('u', 'regress_reader');
SELECT flohsync.revoke_api_token('t');
SELECT count(*) FROM flohsync.api_tokens;
RESET ROLE;
SELECT count(*) FROM _flohsync.api_token WHERE token_hash = sha256(convert_to(:'token', 'UTF8'));
SET ROLE regress_gateway;
SELECT flohsync_api.api_token(sha256(convert_to(:'token', 'UTF8'))) - '{expiresAt,expiresIn}'::text[] AS found, flohsync_api.api_token(sha256(convert_to(:'token' || 'x', 'UTF8'))) AS other;
RESET ROLE;
UPDATE _flohsync.api_token SET expires_at = now();
SELECT flohsync_api.api_token(sha256(convert_to(:'token', 'UTF8'))) AS expired;
UPDATE _flohsync.api_token SET expires_at = NULL;
ALTER ROLE regress_reader RENAME TO regress_renamed;
SELECT flohsync_api.api_token(sha256(convert_to(:'token', 'UTF8'))) AS renamed;
ALTER ROLE regress_renamed SUPERUSER;
SELECT flohsync_api.api_token(sha256(convert_to(:'token', 'UTF8'))) AS superuser;
ALTER ROLE regress_renamed NOSUPERUSER;
SELECT flohsync.revoke_access('regress_renamed');
DROP ROLE regress_renamed;
CREATE ROLE regress_reader;
CREATE ROLE regress_renamed;
SELECT flohsync_api.api_token(sha256(convert_to(:'token', 'UTF8'))) AS gone;
SELECT name, role FROM flohsync.api_tokens ORDER BY name;
DROP ROLE regress_renamed;
SELECT flohsync.revoke_api_token('t'), flohsync.revoke_api_token('t');
SELECT flohsync.grant_reader('regress_reader');

-- PostgREST gets errors as it wants them; what is no error it gets as others do
CALL request('regress_reader', 'run(''directory'', 99)', method => 'GET');
CALL request('regress_reader', 'runs(page_size => 0)', method => 'GET');
CALL request('regress_manager', 'cancel_run(''directory'', 1)', method => 'POST');
CALL request('regress_manager', 'put_sync_config(''directory'', ''user'', ''{}'')', '{"if-match": "\"x\""}', 'PUT');
CALL request('regress_reader', 'me()', method => 'GET');
-- who may not is told so by PostgreSQL itself
CALL request('regress_reader', 'delete_connector(''directory'')', method => 'DELETE');

-- all that reads is STABLE, and does in a transaction that only reads
BEGIN READ ONLY;
CALL request('regress_reader', 'connector(''other'')');
SELECT flohsync_api.health() IS NOT NULL AS health, flohsync_api.events('2020-01-01') IS NOT NULL AS events, flohsync_api.explain('directory', 'user', '1') IS NOT NULL AS explain,
       flohsync_api.jobs() IS NOT NULL AS jobs, flohsync_api.runs() IS NOT NULL AS runs, flohsync_api.connectors() IS NOT NULL AS connectors;
CALL request('regress_manager', 'delete_connector(''other'')');
COMMIT;
SELECT p.proname AS writes FROM pg_proc p WHERE p.pronamespace = 'flohsync_api'::regnamespace AND p.provolatile = 'v' ORDER BY 1;

-- removal
CALL request('regress_reader', 'delete_sync_config(''directory'', ''user'')');
CALL request('regress_manager', 'delete_sync_config(''directory'', ''user'')');
CALL request('regress_manager', 'delete_sync_config(''directory'', ''user'')');
CALL request('regress_reader', 'delete_connector(''other'')');
CALL request('regress_manager', 'delete_connector(''other'')');
CALL request('regress_manager', 'delete_connector(''other'')');
CALL request('regress_reader', 'connectors()');

SELECT flohsync.revoke_access('regress_reader'), flohsync.revoke_access('regress_manager'), flohsync.revoke_access('regress_gateway');
SELECT has_schema_privilege('regress_gateway', 'flohsync_api', 'USAGE') AS left_over;
DROP PROCEDURE public.request(text, text, jsonb, text);
DROP FUNCTION public.shown(jsonb);
DROP EXTENSION flohsync CASCADE;
DROP ROLE regress_reader, regress_manager, regress_other, regress_gateway, regress_bypass, regress_super;
