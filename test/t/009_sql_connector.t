# Kind sql: records that come from a query or a function of this database, with the rights of the configuration's owner.
use strict;
use warnings;

use Flohsync;
use Test::More;

my $f = Flohsync->new(upstream => 0, conf => "flohsync.page_size = 500\n");
my $superuser = $f->superuser;

$f->sql(<<'SQL');
CREATE SCHEMA hr;
CREATE TABLE hr.people (id text PRIMARY KEY, name text, mail text, extra jsonb, changed timestamptz NOT NULL DEFAULT clock_timestamp());
INSERT INTO hr.people SELECT 'p' || lpad(i::text, 5, '0'), 'Person ' || i, 'p' || i || '@acme.com', jsonb_build_object('n', i), '2026-01-01Z'::timestamptz + i * interval '1 second' FROM generate_series(1, 3000) i;
CREATE ROLE owner LOGIN;
GRANT USAGE ON SCHEMA hr TO owner;
GRANT SELECT ON hr.people TO owner;
CREATE ROLE outsider LOGIN;
SQL
# Both may manage connectors: with the extension's own function where it is there.
my $may = $f->sql("SELECT to_regprocedure('flohsync.grant_manager(regrole)') IS NOT NULL");
for my $role (qw(owner outsider))
{
	$f->sql($may eq 't' ? "SELECT flohsync.grant_manager('$role')"
		: "GRANT USAGE ON SCHEMA flohsync TO $role; GRANT ALL ON ALL TABLES IN SCHEMA flohsync TO $role; GRANT ALL ON ALL ROUTINES IN SCHEMA flohsync TO $role; GRANT ALL ON ALL SEQUENCES IN SCHEMA flohsync TO $role");
}

my $query = "SELECT id AS external_id, name AS display_name, mail AS email, extra AS attributes, changed AS modified_at FROM hr.people";

# A connector and a configuration that belong to a role.
sub source
{
	my ($name, $role, $config, %settings) = @_;
	my $r = $f->try_sql("SET ROLE $role; SELECT flohsync.create_connector(" . literal($name) . ", 'sql', " . literal(json_text($config)) . ');'
		  . 'SELECT flohsync.configure_sync(' . literal($name) . ", 'user', " . literal(json_text(\%settings)) . ')');
	diag($r->{text}) unless $r->{ok};
	return $r->{ok};
}
sub stats_are
{
	my ($stats, $name, %want) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join(' ', map { "$_=" . ($stats->{$_} // '') } sort keys %want), join(' ', map { "$_=$want{$_}" } sort keys %want), $name);
}
sub same_as_table
{
	my ($c) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($f->sql("SELECT count(*) FROM (SELECT external_id, display_name, email, attributes " . $f->scope($c, 'user') . " AND stale_since IS NULL) r FULL JOIN hr.people p ON p.id = r.external_id COLLATE \"C\""
			. " WHERE (r.display_name, r.email, r.attributes) IS DISTINCT FROM (p.name::varchar, p.mail::varchar, p.extra) OR p.id IS NULL OR r.external_id IS NULL"), 0, "$c: the records are those of the table");
}

#
# A query
#
ok(source('people', 'owner', { queries => { user => $query } }), 'a role sets up a connector of kind sql');
my $stats = $f->sync_ok('people', 'user', 'a first pass over 3,000 rows');
stats_are($stats, 'everything is added', added => 3000, totalUpstreamRecords => 3000, complete => 1);
cmp_ok($stats->{pagesProcessed}, '>=', 6, 'in pages of 500 at most');
same_as_table('people');
stats_are($f->sync_ok('people', 'user', 'a second pass'), 'everything is unchanged', unchanged => 3000, added => 0, updated => 0);
$f->sql("UPDATE hr.people SET name = 'Other' WHERE id < 'p00008'; DELETE FROM hr.people WHERE id IN ('p01000', 'p03000'); INSERT INTO hr.people VALUES ('p99999', 'New')");
stats_are($f->sync_ok('people', 'user', 'a third pass'), 'added, updated, staled', added => 1, updated => 7, staled => 2, unchanged => 2991);
same_as_table('people');
is($f->sql("SELECT count(*) " . $f->scope('people', 'user') . ' AND sync_hash <> flohsync.resource_hash(external_id, display_name, email, attributes)'), 0, 'the hashes are those of resource_hash');

# Columns by name, in any order
my $rest = 'NULL AS display_name, NULL AS email, NULL::jsonb AS attributes';
ok(source('few', 'owner', { queries => { user => "SELECT 'a' || i AS external_id, $rest FROM generate_series(1, 3) i" } }), 'a query with ids only');
stats_are($f->sync_ok('few', 'user'), 'gives records without anything else', added => 3);
ok(source('odd', 'owner', { queries => { user => "SELECT '{\"z\": 1}'::jsonb AS attributes, 7 AS external_id, NULL AS email, 'Seven' AS display_name" } }), 'columns in another order, an integer id');
stats_are($f->sync_ok('odd', 'user'), 'are found by name', added => 1);
is($f->sql("SELECT external_id || display_name || attributes " . $f->scope('odd', 'user')), '7Seven{"z": 1}', 'with their values');
ok(source('bad', 'owner', { queries => { user => "SELECT x AS external_id, $rest FROM (VALUES ('ok'), (NULL), (''), (repeat('x', 256))) v(x)" } }), 'rows that are no records');
stats_are($f->sync_ok('bad', 'user'), 'are set aside', added => 1, errored => 3);
ok(source('twice', 'owner', { queries => { user => "SELECT 'same' AS external_id, i::text AS display_name, NULL AS email, NULL::jsonb AS attributes FROM generate_series(1, 2) i" } }), 'an id twice');
stats_are($f->sync_ok('twice', 'user'), 'counts as a duplicate', added => 1, totalUpstreamRecords => 2);
is($f->json("SELECT flohsync.test_connector('people')")->{ok} ? 'ok' : 'no', 'ok', 'test_connector');

# Queries that fail, or are none
for ([ 'no such table', "SELECT id AS external_id, $rest FROM hr.nowhere", qr/nowhere/ ], [ 'no external_id', "SELECT 1 AS id, $rest", qr/external_id/ ],
	[ 'a division by zero', "SELECT 1 / (i - 2) AS external_id, $rest FROM generate_series(1, 3) i", qr/division by zero/ ], [ 'a syntax error', 'SELEKT 1', qr/syntax|SELEKT/i ],
	[ 'two statements', "SELECT 1 AS external_id, $rest; SELECT 2", qr/\w/ ], [ 'a change', "DELETE FROM hr.people RETURNING id AS external_id, $rest", qr/\w/ ],
	[ 'a change in WITH', "WITH x AS (DELETE FROM hr.people RETURNING id) SELECT id AS external_id, $rest FROM x", qr/\w/ ], [ 'COPY', "COPY (SELECT 1) TO PROGRAM 'true'", qr/\w/ ])
{
	my ($name, $sql, $like) = @$_;
	my $c = 'wrong ' . $name;
	my $r = $f->try_sql("SET ROLE owner; SELECT flohsync.create_connector(" . literal($c) . ", 'sql', " . literal(json_text({ queries => { user => $sql } })) . ');'
		  . 'SELECT flohsync.configure_sync(' . literal($c) . ", 'user', '{}')");
	if (!$r->{ok})
	{
		like("$r->{state} $r->{text}", qr/^22023 /, "$name: refused when it is set up");
		next;
	}
	$f->sync_fails($c, 'user', $like, "$name: the run fails and says why");
}
is($f->sql('SELECT count(*) FROM hr.people'), 2999, 'no query changed anything');

#
# Incremental, by modified_at
#
ok(source('inc', 'owner', { queries => { user => $query } }, strategy => 'incremental'), 'an incremental configuration');
stats_are($f->sync_ok('inc', 'user', 'the first run'), 'takes everything', added => 2999);
$f->sql("UPDATE hr.people SET name = 'Newer', changed = clock_timestamp() WHERE id IN ('p00100', 'p00200'); DELETE FROM hr.people WHERE id = 'p00300'");
$stats = $f->sync_ok('inc', 'user', 'the next');
stats_are($stats, 'takes what changed', updated => 2, staled => 0);
cmp_ok($stats->{totalUpstreamRecords}, '<', 20, 'and reads little else');
is($f->counts('inc', 'user'), '2999 0', 'absence is no deletion');
my $full = $f->sql("SELECT flohsync.trigger_sync('inc', 'user', 'full')");
$f->wait_run($full);
is($f->run_row($full)->{stats}{staled}, 1, 'a full pass finds the deletion');
same_as_table('inc');

# A failure in the middle, and on from there
$f->sql(<<'SQL');
CREATE TABLE hr.mine (bad boolean);
INSERT INTO hr.mine VALUES (false);
GRANT SELECT ON hr.mine TO owner;
SQL
ok(source('resume', 'owner', { queries => { user => "SELECT id AS external_id, name AS display_name, mail AS email, CASE WHEN id = 'p01700' AND (SELECT bad FROM hr.mine) THEN (1 / (SELECT 0 FROM hr.mine))::text::jsonb ELSE extra END AS attributes FROM hr.people" } }), 'a query that may fail');
$f->sync_ok('resume', 'user');
$f->sql("UPDATE hr.mine SET bad = true; DELETE FROM hr.people WHERE id IN ('p00010', 'p02990')");
$f->sync_fails('resume', 'user', qr/division by zero/, 'it fails in the middle');
is($f->counts('resume', 'user') =~ / 0$/ ? 'none' : 'some', 'none', 'nothing is stale');
$f->sql('UPDATE hr.mine SET bad = false');
stats_are($f->sync_ok('resume', 'user', 'the next run'), 'finds what is gone', staled => 2);
same_as_table('resume');

#
# A function with the protocol of the commands
#
$f->sql(<<'SQL');
CREATE TABLE hr.asked (n serial, command jsonb, who name);
CREATE FUNCTION hr.list(command jsonb) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
  INSERT INTO hr.asked (command, who) VALUES (command, current_user);
  WITH page AS (SELECT * FROM hr.people WHERE id > coalesce(command->>'cursor', '') ORDER BY id LIMIT coalesce((command->>'pageSize')::int, 500))
  SELECT jsonb_build_object('success', true, 'payload', jsonb_strip_nulls(jsonb_build_object(
    'resources', (SELECT coalesce(jsonb_agg(jsonb_build_object('externalId', id, 'displayName', name, 'email', mail, 'attributes', extra) ORDER BY id), '[]') FROM page),
    'nextCursor', (SELECT max(id) FROM page HAVING count(*) = (command->>'pageSize')::int), 'totalEstimate', (SELECT count(*) FROM hr.people))))
$$;
CREATE FUNCTION hr.fails(command jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '{"success": false, "error": "the payroll is closed"}'::jsonb $$;
CREATE FUNCTION hr.raises(command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE 'it rained'; END $$;
CREATE FUNCTION hr.nothing(command jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT NULL::jsonb $$;
GRANT ALL ON hr.asked, hr.asked_n_seq TO owner;
SQL
ok(source('fn', 'owner', { function => 'hr.list' }), 'a function as source');
$stats = $f->sync_ok('fn', 'user', 'is asked in pages');
stats_are($stats, 'gives everything', added => 2996, pagesProcessed => 6);
same_as_table('fn');
is($f->sql("SELECT command - 'cursor' FROM hr.asked WHERE n = 1"), '{"command": "listUsers", "pageSize": 500}', 'with the same request as an upstream');
is($f->sql("SELECT string_agg(coalesce(command->>'cursor', '-'), ' ' ORDER BY n) = (SELECT '- ' || string_agg(next_cursor, ' ' ORDER BY page) FROM flohsync.sync_run_page WHERE run_id = (SELECT max(id) FROM flohsync.sync_run)) FROM hr.asked"), 't', 'cursor by cursor');
is($f->sql("SELECT DISTINCT who FROM hr.asked"), 'owner', 'as the owner of the configuration');
for ([ fails => qr/the payroll is closed/ ], [ raises => qr/it rained/ ], [ nothing => qr/answer|null|object/i ])
{
	ok(source($_->[0], 'owner', { function => "hr.$_->[0]" }), "a function: $_->[0]");
	$f->sync_fails($_->[0], 'user', $_->[1], "a function: $_->[0]: the run fails");
}

#
# Rights
#
ok(source('outside', 'outsider', { queries => { user => $query } }), 'a role that may not read the table');
$f->sync_fails('outside', 'user', qr/permission denied/, 'has a run that fails');
is($f->counts('outside', 'user'), '0 0', 'and gets nothing');

# A superuser's configuration runs without the rights of a superuser.
$f->sql("CREATE FUNCTION hr.is_super() RETURNS text LANGUAGE sql AS \$\$ SELECT current_setting('is_superuser') \$\$; GRANT EXECUTE ON FUNCTION hr.is_super() TO PUBLIC; GRANT USAGE ON SCHEMA hr TO PUBLIC");
$f->sql("SELECT flohsync.create_connector('super', 'sql', " . literal(json_text({ queries => { user => "SELECT 'is_superuser=' || current_setting('is_superuser') AS external_id, hr.is_super() AS display_name, (SELECT rolsuper::text FROM pg_catalog.pg_roles WHERE rolname = current_user) AS email, NULL::jsonb AS attributes" } })) . ")");
$f->configure('super', 'user');
my ($ok, $r) = $f->sync('super', 'user');
ok($ok, "a superuser's configuration runs") or diag($r->{text});
is($f->sql("SELECT external_id || ' ' || display_name || ' ' || email " . $f->scope('super', 'user')), 'is_superuser=off off false', 'and its query not as a superuser');

# What a query may not do: how that is said, when it is set up or when it runs.
sub never
{
	my ($name, $role, $sql, $setup, $run) = @_;
	my $c = "never $name";
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $r = $f->try_sql(qq(SET ROLE "$role"; ) . "SELECT flohsync.create_connector(" . literal($c) . ", 'sql', " . literal(json_text({ queries => { user => $sql } })) . "); SELECT flohsync.configure_sync(" . literal($c) . ", 'user', '{}')");
	return like("$r->{state} $r->{text}", $setup, "$name: refused when set up") if $setup;
	ok($r->{ok}, "$name: is set up") or diag($r->{text});
	my ($ok, $answer) = $f->sync($c, 'user');
	like($ok ? 'it ran' : $answer->{message}, $run, "$name: fails");
	is($f->counts($c, 'user'), '0 0', "$name: nothing is read");
	return;
}
for my $role ($superuser, 'owner')
{
	never("$role: pg_read_file", $role, "SELECT pg_catalog.pg_read_file('PG_VERSION') AS external_id, $rest", undef, qr/permission denied for function pg_read_file$/);
	never("$role: pg_authid", $role, "SELECT rolname || coalesce(rolpassword, '') AS external_id, $rest FROM pg_catalog.pg_authid", undef, qr/permission denied for table pg_authid$/);
	never("$role: ALTER SYSTEM", $role, "ALTER SYSTEM SET log_statement = 'all'", qr/^22023 .*the query of "user" cannot be used: it is not a SELECT/);
}
# Inside a function: no way back to the session's role.
for ([ 'reset role', 'RESET ROLE' ], [ 'reset session authorization', 'RESET SESSION AUTHORIZATION' ], [ 'set role', "SET ROLE $superuser" ], [ 'set session authorization', "SET SESSION AUTHORIZATION $superuser" ],
	[ 'set local role', "PERFORM pg_catalog.set_config('role', 'none', false)" ], [ 'set role to the worker', "EXECUTE 'SET ROLE ' || current_setting('flohsync.worker_role')" ])
{
	my ($name, $statement) = @$_;
	my $fn = 'hr.' . ($name =~ s/ /_/gr);
	$statement = "EXECUTE '$statement'" unless $statement =~ /^(PERFORM|EXECUTE)/;
	$f->sql("CREATE FUNCTION $fn(command jsonb) RETURNS jsonb LANGUAGE plpgsql AS \$\$ BEGIN $statement; RETURN jsonb_build_object('success', true, 'payload', jsonb_build_object('resources', jsonb_build_array(jsonb_build_object('externalId', current_user)))); END \$\$");
	source($name, 'owner', { function => $fn });
	my ($ok, $answer) = $f->sync($name, 'user');
	like($ok ? 'it ran' : $answer->{message}, qr/cannot set parameter "(role|session_authorization)" within security-/, "$name in a function: the role stays");
	is($f->counts($name, 'user'), '0 0', "$name in a function: nothing is read");
}
# A deferred trigger or a hook of the owner's must not run with the worker's rights.
$f->sql(<<'SQL');
CREATE TABLE hr.spy (who name);
GRANT ALL ON hr.spy TO PUBLIC;
CREATE TABLE hr.bait (x int);
GRANT ALL ON hr.bait TO PUBLIC;
CREATE FUNCTION hr.spring() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO hr.spy VALUES (current_user); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER spring AFTER INSERT ON hr.bait DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hr.spring();
CREATE FUNCTION hr.later(command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN INSERT INTO hr.bait VALUES (1); RETURN '{"success": true, "payload": {"resources": []}}'; END $$;
SQL
source('later', 'owner', { function => 'hr.later' });
$f->sync('later', 'user');
is($f->sql("SELECT coalesce(string_agg(DISTINCT who::text, ','), 'owner') FROM hr.spy"), 'owner', 'a deferred trigger runs with the rights of the owner, or not at all');

# Who may not read the table cannot have it read by changing what another's configuration runs.
my $borrowed = $f->try_sql("SET ROLE outsider; SELECT flohsync.update_connector('odd', " . literal(json_text({ config => { queries => { user => $query } } })) . ')');
$f->sync('odd', 'user');
is($f->sql("SELECT count(*) " . $f->scope('odd', 'user') . " AND email LIKE '%\@acme.com'"), 0, "another manager cannot borrow the owner's rights") or diag($borrowed->{text});

# What a function sets does not stay for the next one.
$f->sql("CREATE FUNCTION hr.sets(command jsonb) RETURNS jsonb LANGUAGE plpgsql AS \$\$ BEGIN PERFORM set_config('search_path', 'hr', false), set_config('statement_timeout', '1', false), set_config('work_mem', '64kB', false); RETURN '{\"success\": true, \"payload\": {\"resources\": []}}'; END \$\$");
source('sets', 'owner', { function => 'hr.sets' });
$f->sync('sets', 'user');
$f->sync_ok('people', 'user', 'settings that a function changes do not stay');

# Nor does a superuser's call lend a function a superuser's rights.
$f->sql("CREATE FUNCTION hr.grab(command jsonb) RETURNS jsonb LANGUAGE plpgsql AS \$\$ BEGIN
	IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN ALTER ROLE owner SUPERUSER; END IF;
	RETURN jsonb_build_object('success', true, 'payload', jsonb_build_object('resources', jsonb_build_array(jsonb_build_object('externalId', current_user)))); END \$\$");
source('grab', 'owner', { function => 'hr.grab' });
ok($f->json("SELECT flohsync.test_connector('grab')")->{ok}, 'a superuser tests a connector of somebody');
is($f->sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'owner'"), 'f', 'with the rights of its owner');
$f->sql("UPDATE flohsync.connector_sync_config SET owner = '$superuser' WHERE connector_id = (SELECT id FROM flohsync.connector_definition WHERE name = 'grab')");
ok($f->json("SELECT flohsync.test_connector('grab')")->{ok}, 'and one of a superuser');
is($f->sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'owner'"), 'f', 'with those of the workers');

# Nor does a session's search path decide what a query means.
$f->sql("CREATE SCHEMA evil; CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql AS \$\$ SELECT 'evil'::text \$\$; GRANT USAGE ON SCHEMA evil TO PUBLIC");
source('paths', 'owner', { queries => { user => "SELECT lower('ID') AS external_id, NULL::text AS display_name, NULL::text AS email, NULL::jsonb AS attributes" } });
my $found = $f->try_sql("SET search_path = evil, pg_catalog; SELECT flohsync.cache_get_or_fetch('paths', 'user', 'id') ->> 'externalId'");
is($found->{out}, 'id', 'a query means the same in every session') or diag($found->{text});
$f->sql("CREATE TABLE evil.people AS SELECT 'evil'::text AS id; GRANT SELECT ON evil.people TO PUBLIC");
source('bare', 'owner', { queries => { user => "SELECT id AS external_id, NULL::text AS display_name, NULL::text AS email, NULL::jsonb AS attributes FROM people" } });
$found = $f->try_sql("SET search_path = evil, pg_catalog; SELECT flohsync.cache_get_or_fetch('bare', 'user', 'evil') ->> 'externalId'");
like($found->{message}, qr/relation "people" does not exist/, 'nor is a table found that it names without a schema') or diag($found->{out});

# The owner is who configured last, or stays: never somebody with more rights by accident.
$f->sql("UPDATE flohsync.connector_sync_config SET owner = 'gone_role' WHERE connector_id = (SELECT id FROM flohsync.connector_definition WHERE name = 'few')");
$f->sync_fails('few', 'user', qr/gone_role|role|owner/i, 'an owner that is not there any more: the run fails');
$f->sync_ok('odd', 'user', 'and other runs go on');

$f->invariants;
$f->no_crash;
done_testing();
