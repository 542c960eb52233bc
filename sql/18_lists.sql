-- Lists that are there once: match strategies, and the keys of a configuration.
-- Checks, hints, statements and what applications see are made of them;
-- test/sql/lists.sql and test/readme hold the rest to them.

CREATE FUNCTION _flohsync.enumerated(_names text[]) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN pg_catalog.concat_ws(' and ',
  nullif(pg_catalog.array_to_string(_names[:pg_catalog.cardinality(_names) - 1], ', '), ''),
  _names[pg_catalog.cardinality(_names)]);
COMMENT ON FUNCTION _flohsync.enumerated(text[]) IS 'Names as a sentence has them: a, b and c';

-- Of a record "r" (_flohsync.records_sql) and a user "u".  Whether a changed
-- user may be met by a strategy is found by the column of user_change.
CREATE FUNCTION _flohsync.match_strategies(OUT strategy text, OUT condition text, OUT key text, OUT by_issuer boolean,
  OUT user_key text) RETURNS SETOF record
LANGUAGE sql IMMUTABLE ROWS 4
BEGIN ATOMIC
  VALUES
    ('email', '_flohsync.match_key(u.email) COLLATE "C" = r.email_key',
     'jsonb_build_object(''email'', r.email_key)', false, 'email_key'),
    ('email_and_issuer', '_flohsync.match_key(u.email) COLLATE "C" = r.email_key'
                         ' AND _flohsync.match_key(u.upstream_issuer) COLLATE "C" = r.issuer_key',
     'jsonb_build_object(''email'', r.email_key, ''issuer'', r.issuer_key, ''issuerSourcePath'', $5)',
     true, 'email_key'),
    ('upstream_identity', 'u.upstream_id COLLATE "C" = r.external_id',
     'jsonb_build_object(''upstreamId'', r.external_id)', false, 'upstream_id'),
    ('external_id', 'u.sub COLLATE "C" = r.external_id',
     'jsonb_build_object(''sub'', r.external_id)', false, 'sub');
END;
COMMENT ON FUNCTION _flohsync.match_strategies() IS
  'The match strategies: SQL for when a record and a user belong together, SQL for what explain_match() shows of the '
  'record ($5: path of its issuer), whether the issuer counts, and by which column of user_change a changed user is '
  'found';

CREATE FUNCTION _flohsync.match_strategy_names() RETURNS text[]
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT pg_catalog.array_agg(s.strategy) FROM _flohsync.match_strategies() s;
END;
COMMENT ON FUNCTION _flohsync.match_strategy_names() IS 'The names of the match strategies';

-- A check is a function (configuration, key, value) that returns what is stored,
-- as JSON, or raises 22023; without one, the JSON type is all that is checked.
-- null stands for no value, but where there is a default; then it is the check's.
CREATE FUNCTION _flohsync.config_keys(OUT key text, OUT attribute text, OUT json_type text, OUT nullable boolean,
  OUT checked_by text, OUT initial jsonb, OUT matching boolean) RETURNS SETOF record
LANGUAGE sql IMMUTABLE ROWS 20
BEGIN ATOMIC
  VALUES
    ('enabled', 'enabled', 'boolean', false, NULL, 'false'::pg_catalog.jsonb, false),
    ('strategy', 'strategy', 'string', false, 'setting_strategy', '"full"', false),
    ('cronSchedule', 'cron_schedule', 'string', true, 'setting_schedule', 'null', false),
    ('filterRules', 'filter_rules', 'object', true, 'setting_filter_rules', 'null', false),
    ('staleRetention', 'stale_retention', 'string', false, 'setting_stale_retention', '"7d"', false),
    ('attributeMappings', 'attribute_mappings', 'array', true, 'setting_mappings', 'null', true),
    ('userMatchStrategy', 'user_match_strategy', 'string', false, 'setting_match_strategy', '"email"', true),
    ('userMatchFallbackStrategies', 'user_match_fallback_strategies', 'array', true, 'setting_fallbacks', 'null', true),
    ('issuerSourcePath', 'issuer_source_path', 'string', true, 'setting_issuer_path', 'null', true),
    ('postSyncWorkflowId', 'post_sync_workflow_id', 'string', true, 'setting_workflow', 'null', false),
    ('syncTriggerMode', 'sync_trigger_mode', 'string', false, 'setting_trigger_mode', '"none"', false),
    ('createUsers', 'create_users', 'boolean', false, NULL, 'false', true),
    ('deactivateUsers', 'deactivate_users', 'boolean', false, NULL, 'false', true),
    ('createUserDefaults', 'create_user_defaults', 'object', true, 'setting_user_defaults', 'null', false),
    ('fullCronSchedule', 'full_cron_schedule', 'string', true, 'setting_schedule', 'null', false),
    ('timezone', 'timezone', 'string', false, 'setting_timezone', '"UTC"', false),
    ('overlap', 'overlap', 'string', false, 'setting_overlap', '"00:05:00"', false),
    ('hashIgnore', 'hash_ignore', 'array', true, 'setting_hash_ignore', 'null', false),
    ('safeguards', 'safeguards', 'object', true, 'setting_safeguards',
     '{"maxStaleFraction": 0.2, "maxDeactivateFraction": 0.05, "minRecords": 10}', false);
END;
COMMENT ON FUNCTION _flohsync.config_keys() IS
  'The keys that configure_sync() takes: column, JSON type, whether null is taken, function that checks it, default, '
  'and whether after a change everybody is processed again';
