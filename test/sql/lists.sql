-- What is listed once (sql/18_lists.sql, src/base/error_class.h, PAGE_COUNTERS in
-- src/record/apply.h), and that everything that knows of it goes by the list.
SET client_min_messages = error;
DROP EXTENSION IF EXISTS flohsync CASCADE;
CREATE EXTENSION flohsync;
SELECT flohsync.create_connector('c', 'command', '{"url": "https://directory.example/api", "commands": ["listUsers"]}') IS NOT NULL AS made;
CREATE FUNCTION pg_temp.refusal(_setting jsonb, OUT state text, OUT message text, OUT hint text) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM flohsync.configure_sync('c', 'user', _setting);
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
END
$$;

--
-- Keys of a configuration
--
SELECT key, attribute, json_type, nullable, initial, matching FROM _flohsync.config_keys();
-- each is a column of its own, and has a check that is there
SELECT k.key FROM _flohsync.config_keys() k
 WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = 'flohsync.connector_sync_config'::regclass AND a.attname = k.attribute)
    OR k.checked_by IS NOT NULL AND to_regprocedure(format('_flohsync.%I(flohsync.connector_sync_config, text, jsonb)', k.checked_by)) IS NULL;
SELECT count(DISTINCT key) = count(*) AND count(DISTINCT attribute) = count(*) AS each_once FROM _flohsync.config_keys();
-- the other columns are not set by configure_sync
SELECT string_agg(a.attname, ' ' ORDER BY a.attnum) AS others FROM pg_attribute a
 WHERE a.attrelid = 'flohsync.connector_sync_config'::regclass AND a.attnum > 0
   AND a.attname NOT IN (SELECT k.attribute FROM _flohsync.config_keys() k);
-- checks that no key has
SELECT p.proname FROM pg_proc p WHERE p.pronamespace = '_flohsync'::regnamespace AND p.proname LIKE 'setting\_%'
   AND p.proname NOT IN (SELECT k.checked_by FROM _flohsync.config_keys() k WHERE k.checked_by IS NOT NULL);
-- a new configuration has the defaults, and they can be given
SELECT k.key, d.value FROM _flohsync.config_keys() k
  LEFT JOIN jsonb_each(flohsync.configure_sync('c', 'user', '{}')) d ON d.key = k.key WHERE d.value IS DISTINCT FROM k.initial;
SELECT k.key FROM _flohsync.config_keys() k
 WHERE flohsync.configure_sync('c', 'user', jsonb_build_object(k.key, k.initial)) -> k.key IS DISTINCT FROM k.initial;
SET intervalstyle = 'sql_standard';
SELECT flohsync.configure_sync('c', 'user', '{"overlap": "1 day 02:03:04"}') -> 'overlap' AS whatever_the_style;
SELECT flohsync.configure_sync('c', 'user', '{"overlap": "5m"}') -> 'overlap' AS default_again;
RESET intervalstyle;
-- what applications see: the keys, and what only informs
SELECT string_agg(d.key, ' ' ORDER BY d.key COLLATE "C") AS informs FROM jsonb_object_keys(flohsync.sync_config('c', 'user')) d(key)
 WHERE d.key NOT IN (SELECT k.key FROM _flohsync.config_keys() k);
SELECT _flohsync.informing_keys() @> ARRAY(SELECT jsonb_object_keys(flohsync.sync_config('c', 'user')) EXCEPT SELECT k.key FROM _flohsync.config_keys() k) AS informing;
-- the hint names all keys
SELECT r.message, r.hint = 'Known keys are ' || (SELECT string_agg(k.key, ', ') FROM _flohsync.config_keys() k) || '.' AS all_keys
  FROM pg_temp.refusal('{"identity": 1}') r;
-- null, where it is not taken; JSON of each other type, always: the key is named
SELECT k.key, r.* FROM _flohsync.config_keys() k CROSS JOIN LATERAL pg_temp.refusal(jsonb_build_object(k.key, NULL)) r
 WHERE (r.state IS NULL) <> k.nullable OR r.message <> format('invalid value for "%s": it must not be null', k.key);
SELECT k.key, v.value, r.* FROM _flohsync.config_keys() k
 CROSS JOIN (VALUES ('true'::jsonb), ('7'), ('"\u0001 nothing"'), ('[7]'), ('{"\u0001": 7}')) v(value)
 CROSS JOIN LATERAL pg_temp.refusal(jsonb_build_object(k.key, v.value)) r
 WHERE (jsonb_typeof(v.value) <> k.json_type OR k.json_type <> 'boolean')
   AND (r.state IS DISTINCT FROM '22023' OR r.message NOT LIKE '%' || k.key || '%');
-- JSON that was stored past the checks is found before a run
CREATE FUNCTION pg_temp.run_refused(_attribute text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  said text;
BEGIN
  EXECUTE format('UPDATE flohsync.connector_sync_config SET %I = ''7''', _attribute);
  PERFORM _flohsync.check_stored(c.connector_id, c.resource_type) FROM flohsync.connector_sync_config c;
  RAISE EXCEPTION 'nothing is said of it' USING ERRCODE = 'P0001';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS said = MESSAGE_TEXT;
  RETURN said;
END
$$;
SELECT k.key, pg_temp.run_refused(k.attribute) AS said FROM _flohsync.config_keys() k
  JOIN pg_attribute a ON a.attrelid = 'flohsync.connector_sync_config'::regclass AND a.attname = k.attribute AND a.atttypid = 'jsonb'::regtype;
-- where one that is part of matching is not the default, the configuration is about users, and they are matched anew
CREATE FUNCTION pg_temp.other_rules(_attribute text, OUT anew boolean, OUT of_users boolean) LANGUAGE plpgsql AS $$
DECLARE
  c flohsync.connector_sync_config;
  rules text;
BEGIN
  SELECT * INTO c FROM flohsync.connector_sync_config;
  rules := _flohsync.people_rules(c);
  c.resource_type := 'thing';
  c := jsonb_populate_record(c, jsonb_build_object(_attribute, CASE pg_typeof(to_jsonb(c) -> _attribute)::text || jsonb_typeof(to_jsonb(c) -> _attribute)
    WHEN 'jsonbboolean' THEN 'true'::jsonb WHEN 'jsonbstring' THEN '"7 days"' WHEN 'jsonbnull' THEN '"2000-01-01"' ELSE '{}' END));
  anew := _flohsync.people_rules(c) <> rules;
  of_users := _flohsync.config_concerns_users(c);
END
$$;
SELECT k.key, r.* FROM _flohsync.config_keys() k CROSS JOIN LATERAL pg_temp.other_rules(k.attribute) r
 WHERE k.attribute <> 'post_sync_workflow_id' AND (r.anew <> k.matching OR r.of_users <> k.matching);

--
-- Match strategies
--
SELECT strategy, by_issuer, user_key FROM _flohsync.match_strategies();
SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'flohsync.connector_sync_config'::regclass AND contype = 'c' AND conname LIKE '%match_strategy%';
SELECT message, hint FROM pg_temp.refusal('{"userMatchStrategy": "luck"}');
SELECT message, hint FROM pg_temp.refusal('{"userMatchFallbackStrategies": ["email", "luck"]}');
-- a user with nothing but the key of a strategy is looked at when he is added, explained, and matched
SELECT flohsync.upsert_resource('c', 'user', '{"externalId": "u-1", "email": "Ada@example.org", "attributes": {"identityIssuer": "https://id.example"}}');
CREATE FUNCTION pg_temp.matched_by(_strategy text, _first boolean, OUT before text, OUT looked_at bigint, OUT after text, OUT shown boolean)
LANGUAGE plpgsql AS $$
DECLARE
  other text := (SELECT s.strategy FROM _flohsync.match_strategies() s WHERE s.strategy <> _strategy ORDER BY s.user_key = 'email_key' DESC LIMIT 1);
  c flohsync.connector_sync_config;
  explained jsonb;
BEGIN
  DELETE FROM flohsync.floh_user;
  DELETE FROM flohsync.connector_sync_match;
  DELETE FROM _flohsync.user_change;
  PERFORM flohsync.configure_sync('c', 'user', jsonb_build_object('userMatchStrategy', CASE WHEN _first THEN _strategy ELSE other END,
    'userMatchFallbackStrategies', CASE WHEN NOT _first THEN jsonb_build_array(_strategy) END));
  PERFORM flohsync.match_users('c', 'user');
  SELECT m.match_status INTO before FROM flohsync.connector_sync_match m;
  INSERT INTO flohsync.floh_user (email, display_name, confirmed, iss, upstream_issuer, upstream_id, sub)
  SELECT CASE s.user_key WHEN 'email_key' THEN 'ada@example.org' ELSE 'eva@example.org' END, 'Ada', true, 'https://login.example',
         'https://id.example', CASE s.user_key WHEN 'upstream_id' THEN 'u-1' END, CASE s.user_key WHEN 'sub' THEN 'u-1' ELSE 'x' END
    FROM _flohsync.match_strategies() s WHERE s.strategy = _strategy;
  SELECT * INTO c FROM flohsync.connector_sync_config;
  looked_at := (SELECT count(DISTINCT r.id) FROM _flohsync.reached_by_users(c, '0', NULL) r);
  PERFORM flohsync.match_users('c', 'user');
  SELECT concat_ws(' ', m.match_status, m.match_confidence, m.match_strategy) INTO after FROM flohsync.connector_sync_match m;
  explained := flohsync.explain_match('c', 'user', 'u-1') #> ARRAY['strategies', CASE WHEN _first THEN '0' ELSE '1' END];
  shown := explained ->> 'strategy' = _strategy AND jsonb_typeof(explained -> 'key') = 'object' AND explained ->> 'hitCount' = '1';
END
$$;
SELECT s.strategy, r.* FROM _flohsync.match_strategies() s CROSS JOIN LATERAL pg_temp.matched_by(s.strategy, true) r;
SELECT s.strategy, r.shown FROM _flohsync.match_strategies() s CROSS JOIN LATERAL pg_temp.matched_by(s.strategy, false) r;
-- by the column that the list names a changed user is known
SELECT s.strategy FROM _flohsync.match_strategies() s WHERE s.user_key NOT IN (
  SELECT a.attname FROM pg_attribute a WHERE a.attrelid = '_flohsync.user_change'::regclass);
-- where it looks at the issuer, the path of the issuer is of use
CREATE FUNCTION pg_temp.issuer_remark(_strategy text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM flohsync.configure_sync('c', 'user', jsonb_build_object('userMatchStrategy', _strategy, 'userMatchFallbackStrategies', NULL,
    'issuerSourcePath', 'attributes.identityIssuer'));
  RETURN (SELECT r.hint FROM flohsync.check_config('c', 'user') r WHERE r.key = 'issuerSourcePath');
END
$$;
SELECT s.strategy, pg_temp.issuer_remark(s.strategy) FROM _flohsync.match_strategies() s;

--
-- Page counters
--
SELECT counter, passed, in_stats, in_metrics FROM _flohsync.page_counters();
-- each is a column with that comment, and the only such columns are these
SELECT coalesce(c.counter, a.attname) AS counter, c.meaning, col_description(a.attrelid, a.attnum) AS comment
  FROM _flohsync.page_counters() c
  FULL JOIN (SELECT * FROM pg_attribute WHERE attrelid = 'flohsync.sync_run_page'::regclass AND attnum > 0 AND atttypid = 'int4'::regtype
                AND attname NOT IN ('page', 'records')) a ON a.attname = c.counter
 WHERE c.meaning IS DISTINCT FROM col_description(a.attrelid, a.attnum);
-- a run whose page has them all: 1, 2, 4, … in the order of the list
INSERT INTO flohsync.sync_run (connector_id, resource_type, strategy, trigger, status, pass_id)
SELECT d.id, 'user', 'full', 'api', 'success', 1 FROM flohsync.connector_definition d;
DO $$
BEGIN
  EXECUTE (SELECT format('INSERT INTO flohsync.sync_run_page (run_id, page, fetched_at, records, bytes, fetch_ms, apply_ms, %s)
                          SELECT r.id, p, now(), 10, 100, 1, 1, %s FROM flohsync.sync_run r, generate_series(1, 2) p',
                         string_agg(quote_ident(c.counter), ', '), string_agg((1 << (c.i - 1)::int)::text, ', '))
             FROM _flohsync.page_counters() WITH ORDINALITY c(counter, passed, in_stats, in_metrics, meaning, i));
END
$$;
SELECT c.counter, s.value FROM (SELECT c.*, 2 << (c.i - 1)::int AS sum
                                  FROM _flohsync.page_counters() WITH ORDINALITY c(counter, passed, in_stats, in_metrics, meaning, i)) c
  LEFT JOIN (SELECT e.* FROM flohsync.sync_run r, jsonb_each(_flohsync.run_stats(r.id)) e) s(key, value) ON s.key = c.counter
 WHERE s.value IS DISTINCT FROM CASE WHEN c.in_stats THEN to_jsonb(c.sum) END;
SELECT s.pages, s.records, s.bytes,
       s.passed = (SELECT sum(2 << (c.i - 1)::int)
                     FROM _flohsync.page_counters() WITH ORDINALITY c(counter, passed, in_stats, in_metrics, meaning, i) WHERE c.passed) AS passed
  FROM _flohsync.page_sums(ARRAY(SELECT r.id FROM flohsync.sync_run r)) s;
-- the statistics of a run, and the outcomes in the metrics
SELECT string_agg(k, ' ' ORDER BY k COLLATE "C") FROM flohsync.sync_run r, jsonb_object_keys(_flohsync.run_stats(r.id)) k;
UPDATE flohsync.connector_sync_config c SET totals = _flohsync.totals_of(_flohsync.run_stats(r.id)) FROM flohsync.sync_run r;
SELECT m[1] AS outcome, m[2] AS value FROM regexp_matches(flohsync.metrics(), 'flohsync_records_total\{[^}]*outcome="(\w+)"\} (\d+)', 'g') m;

--
-- Kinds of errors
--
SELECT class, of_records, retried_within_run AS within_run, retried_by_schedule AS by_schedule, keeps_cursor FROM _flohsync.error_classes();
SELECT count(DISTINCT class) = count(*) AS each_once, bool_and(meaning <> '') AS told FROM _flohsync.error_classes();
SELECT _flohsync.error_class('network');
SELECT _flohsync.error_class('sql');
-- what the end of a run makes of each
CREATE FUNCTION pg_temp.ended(_class text, OUT cursor_kept boolean, OUT tried_again boolean, OUT parked boolean) LANGUAGE plpgsql AS $$
DECLARE
  run bigint;
BEGIN
  UPDATE flohsync.connector_sync_config SET retry_at = NULL, retries = 0, parked = false;
  INSERT INTO flohsync.sync_run (connector_id, resource_type, strategy, trigger, status, pass_id)
  SELECT c.connector_id, c.resource_type, 'full', 'schedule', 'running', 0 FROM flohsync.connector_sync_config c RETURNING id INTO run;
  UPDATE flohsync.sync_run SET pass_id = run WHERE id = run;
  INSERT INTO flohsync.sync_run_page SELECT (jsonb_populate_record(p, jsonb_build_object('run_id', run, 'next_cursor', 'next'))).*
    FROM flohsync.sync_run_page p WHERE p.page = 1 AND p.next_cursor IS NULL;
  PERFORM _flohsync.finish_run(run, 'error', false, 'a test', 'a test', _class, NULL);
  SELECT r.cursor IS NOT NULL, c.retry_at IS NOT NULL, c.parked INTO cursor_kept, tried_again, parked
    FROM flohsync.sync_run r, flohsync.connector_sync_config c WHERE r.id = run;
END
$$;
SELECT e.class, r.* FROM _flohsync.error_classes() e CROSS JOIN LATERAL pg_temp.ended(e.class) r
 WHERE NOT e.of_records
   AND (r.cursor_kept, r.tried_again, r.parked) IS DISTINCT FROM (e.keeps_cursor, e.retried_by_schedule, e.class = 'crash_loop');
DROP EXTENSION flohsync CASCADE;
