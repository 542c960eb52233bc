-- Configurations and connectors as people write them: what is taken, merged,
-- refused, and said to do nothing.
SET client_min_messages = error;
DROP EXTENSION IF EXISTS flohsync CASCADE;
CREATE EXTENSION flohsync;
SET client_min_messages = notice;
SELECT flohsync.create_connector('people', 'command', '{"url": "https://directory.example/api", "headers": {"X-A": "1"}, "commands": ["listUsers"]}') IS NOT NULL AS made;

-- a number needs a unit
SELECT flohsync.configure_sync('people', 'user', '{"staleRetention": "7"}');
SELECT flohsync.configure_sync('people', 'user', '{"staleRetention": "1 day 7"}');
SELECT flohsync.configure_sync('people', 'user', '{"overlap": "5"}');
SELECT flohsync.configure_sync('people', 'user', '{"overlap": "-5 min"}');
SELECT flohsync.configure_sync('people', 'user', jsonb_build_object('staleRetention', d)) ->> 'staleRetention' AS taken
  FROM unnest(ARRAY['7d', ' 24 h', '90s', '2w', '1 month', '1-2', 'P1Y', '01:30', '1 day 02:03:04']) d;

-- what sync_config returns can be given again; what only informs is passed over
SELECT (flohsync.configure_sync('people', 'user', flohsync.sync_config('people', 'user') || '{"lastSyncStatus": "x", "heldRun": {}}') - 'updatedAt')
       = (flohsync.sync_config('people', 'user') - 'updatedAt') AS same;
SELECT flohsync.configure_sync('people', 'user', '{"identity": 1}');

-- null switches safeguards off: one, or all
SELECT flohsync.configure_sync('people', 'user', '{"safeguards": {"minRecords": null}}') -> 'safeguards' AS one_off;
SELECT flohsync.configure_sync('people', 'user', '{"safeguards": null}') -> 'safeguards' AS all_off;
-- domains are trimmed
SELECT flohsync.configure_sync('people', 'user', '{"filterRules": {"emailDomains": [" acme.com", "b.example\n"]}}') -> 'filterRules' AS trimmed;
SELECT flohsync.configure_sync('people', 'user', '{"filterRules": {"emailDomains": [" "]}}');

-- config of a connector is merged one level deep; null removes
SELECT flohsync.update_connector('people', '{"config": {"headers": {"X-B": "2"}}}');
SELECT config FROM flohsync.connector_definition;
SELECT flohsync.update_connector('people', '{"config": {"headers": null}}');
SELECT config FROM flohsync.connector_definition;
SELECT flohsync.update_connector('people', '{"config": {"url": null}}');
SELECT flohsync.update_connector('people', '{"config": 7}');

-- what does nothing is said
SELECT flohsync.configure_sync('people', 'group', '{"enabled": true, "strategy": "incremental", "deactivateUsers": true, "filterRules": {"emailDomains": ["a.example"]},
  "createUserDefaults": {"title": "x"}, "syncTriggerMode": "summary", "issuerSourcePath": "attributes.iss"}') IS NOT NULL AS configured;
SELECT * FROM flohsync.check_config('people', 'group');
SELECT flohsync.configure_sync('people', 'user', '{"filterRules": {"memberOfSyncedGroups": true, "groupIds": ["1"]}, "cronSchedule": "0 0 * * 1", "enabled": true, "staleRetention": "1d", "hashIgnore": ["attributes.seen"], "safeguards": {"maxStaleFraction": 0.2}}') IS NOT NULL AS configured;
SELECT flohsync.upsert_resource('people', 'user', '{"externalId": "1", "attributes": {"a": 1}}');
SELECT severity, key, message FROM flohsync.check_config('people', 'user');
SELECT * FROM flohsync.check_config('people', 'role');

-- at most twenty names, and how many more
SELECT count(flohsync.create_connector('c' || lpad(i::text, 2, '0'), 'command', '{"url": "https://directory.example/api"}')) FROM generate_series(1, 22) i;
SELECT flohsync.sync_config('nobody', 'user');
DROP EXTENSION flohsync CASCADE;
