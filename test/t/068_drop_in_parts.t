# A connector that is dropped in parts: what is left is what drop_connector() leaves, no
# transaction removes more than it may, a call that was cancelled is gone on with, and
# neither runs nor webhooks nor other writers of the time keep anything of it.
use strict;
use warnings;

use Flohsync;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Schema;
use Test::More;

my $f = Flohsync->new(conf => "deadlock_timeout = 200ms\nautovacuum = off\nfsync = off\nflohsync.page_size = 20\n");
sub parts { my ($c, $size) = @_; return "CALL flohsync.drop_connector_in_parts('$c'" . (defined $size ? ", $size)" : ')') }

#
# Two connectors with the same people, and something in every table
#
my ($hr, $crm) = map { "'00000000-0000-4000-8000-00000000000$_'::uuid" } 1, 2;
$f->sql('CREATE DATABASE filled', 'postgres');
$f->sql('ALTER DATABASE filled SET flohsync.enabled = off', 'postgres');
$f->sql('CREATE EXTENSION flohsync', 'filled');
my ($version) = slurp_file('flohsync.control') =~ /^default_version = '(.*)'/m;
$f->node->command_ok([ 'psql', '-XqAt', '-o', '/dev/null', '-d', $f->node->connstr('filled'), '-f', "test/data/fill-$version.sql" ], 'something in every table');
# In the other one each second record is stale, of one of these it is decided already, and one waits in the queue.
$f->sql(<<"SQL", 'filled');
SET session_replication_role = replica;
UPDATE flohsync.connector_sync_config SET deactivate_users = true, strategy = 'full' WHERE resource_type = 'user';
INSERT INTO flohsync.resource_record (connector_id, resource_type, external_id, email, sync_hash, observed_at, created_at, stale_since)
SELECT $crm, t, e, m, '', '2026-01-02', '2026-01-02', s FROM (
  SELECT 'user' AS t, 'crm ' || n AS e, 'p' || n || '\@acme.com' AS m, CASE WHEN n % 2 = 0 THEN timestamptz '2026-01-03' END AS s FROM generate_series(1, 12) n
  UNION ALL SELECT 'group', n::text, NULL, NULL FROM generate_series(1, 5) n) x;
INSERT INTO flohsync.connector_sync_match (connector_id, resource_type, connector_resource_id, external_id, external_email, user_id, match_status, match_confidence, created_at, updated_at)
SELECT r.connector_id, r.resource_type, r.id, r.external_id, r.email, u.id, 'matched', 'exact', '2026-01-02', '2026-01-02'
  FROM flohsync.resource_record r JOIN flohsync.floh_user u ON u.email = r.email WHERE r.connector_id = $crm;
INSERT INTO flohsync.user_external_identity (user_id, connector_id, external_id, source)
SELECT m.user_id, m.connector_id, m.external_id, 'connector_sync' FROM flohsync.connector_sync_match m WHERE m.connector_id = $crm
UNION ALL SELECT u.id, $hr, 'former ' || n, 'workflow' FROM flohsync.floh_user u, generate_series(1, 3) n WHERE u.email = 'p1\@acme.com';
INSERT INTO _flohsync.departure (resource_id, connector_id, settled_at) SELECT r.id, $crm, '2026-01-04' FROM flohsync.resource_record r WHERE r.external_id IN ('crm 2', 'crm 4');
INSERT INTO _flohsync.record_change (resource_id, connector_id, resource_type, change) SELECT r.id, $crm, 'user', 'recheck' FROM flohsync.resource_record r WHERE r.external_id = 'crm 6';
INSERT INTO _flohsync.setback (config_id, stage, resource_id, tried_at) SELECT c.id, 'deactivate', r.id, '2026-01-03' FROM flohsync.resource_record r JOIN flohsync.connector_sync_config c
    ON c.connector_id = r.connector_id AND c.resource_type = r.resource_type WHERE r.connector_id = $crm;
INSERT INTO flohsync.entitlement_event (connector_id, body) SELECT c.id, '{}' FROM flohsync.connector_definition c, generate_series(1, 5);
RESET session_replication_role;
SELECT _flohsync.tally_recount();
SQL

my $nr = 0;
sub filled { my $db = 'copy' . ++$nr; $f->disconnect('filled'); $f->sql("CREATE DATABASE $db TEMPLATE filled", 'postgres'); $f->sql("ALTER DATABASE $db SET flohsync.enabled = off", 'postgres'); return $db }

# Every row, without what is different each time: numbers of notes, the times of changes.  Counts are sums.
sub all_of
{
	my ($db) = @_;
	my (undef, $columns) = rows($f, $db);
	my %columns;
	for my $table (keys %$columns)
	{
		next if $table =~ /_seq$/ || $table eq '_flohsync.tally';
		$columns{$table} = join ', ', grep { $_ !~ /^(?:seq|updated_at|made_at|received_at)$/ } split /, /, $columns->{$table};
		$columns{$table} = join ', ', grep { $_ ne 'id' } split /, /, $columns{$table} if $table eq 'flohsync.entitlement_event';
	}
	my ($all) = rows($f, $db, \%columns);
	$all->{tally} = [ split /\n/, $f->sql('SELECT connector_id, resource_type, state, confidence, sum(n) FROM _flohsync.tally GROUP BY 1, 2, 3, 4 HAVING sum(n) <> 0 ORDER BY 1, 2, 3, 4', $db) ];
	return $all;
}

my %left;
for my $c (qw(hr crm))
{
	my $db = filled();
	my $before = all_of($db);
	$f->sql("SELECT flohsync.drop_connector('$c')", $db);
	$left{$c} = all_of($db);
	my @changed = grep { join("\n", @{ $before->{$_} }) ne join("\n", @{ $left{$c}{$_} }) } sort keys %$before;
	cmp_ok(@changed, '>', 12, "$c: dropping it changes many tables") or diag("@changed");
	is($f->sql("SELECT count(*) FROM _flohsync.record_change q JOIN flohsync.resource_record r ON r.id = q.resource_id WHERE q.change = 'recheck' AND r.connector_id = $crm", $db), 5,
		"$c: stale records that its people have elsewhere are looked at again") if $c eq 'hr';
	for my $size (1, 3, 'NULL', 10_000)
	{
		my $copy = filled();
		my $r = $f->try_sql($size eq 'NULL' ? parts($c) : parts($c, $size), $copy);
		ok($r->{ok}, "$c is dropped in parts of $size") or diag($r->{text});
		is_deeply(all_of($copy), $left{$c}, 'what is left is what drop_connector leaves');
		$f->disconnect($copy);
	}
}

# The cache is told: what is in it of a connector that has lost records must not be served.
my $db = filled();
$f->sql('UPDATE _flohsync.cache_state SET server = 1', $db);
$f->sql(parts('hr', 5), $db);
is($f->sql("SELECT EXISTS (SELECT FROM _flohsync.cache_outbox WHERE connector_id = $hr AND resource_type = '') OR EXISTS (SELECT FROM _flohsync.cache_epoch WHERE connector_id = $hr AND resource_type = '')", $db), 't', 'with a cache all of the connector is invalidated in it');

#
# What is refused
#
$db = filled();
$f->sql('CREATE ROLE nobody_special; CREATE ROLE reads; CREATE ROLE manages', 'postgres');
$f->sql("SELECT flohsync.grant_reader('reads'), flohsync.grant_manager('manages')", $db);
my $before = all_of($db);
sub refused
{
	my ($sql, $state, $like, $name) = @_;
	my $r = $f->try_sql($sql, $db);
	return ok(!$r->{ok} && $r->{state} eq $state && $r->{text} =~ $like, $name) || diag("$r->{state} $r->{text}");
}
refused(parts('nothing'), '42704', qr/connector "nothing" does not exist.*HINT: .*crm/s, 'an unknown connector');
refused('CALL flohsync.drop_connector_in_parts(NULL)', '42704', qr/connector NULL does not exist/, 'none');
refused(parts('hr', $_), '22023', qr/"batch_size".*from 1 to 1000000/, "batch_size $_") for 0, -1, 1_000_001, 'NULL';
refused('BEGIN; ' . parts('hr'), '2D000', qr/inside a transaction block.*HINT: .*flohsync\.drop_connector\(\)/s, 'a transaction block');
$f->sql("CREATE FUNCTION public.in_a_function() RETURNS void LANGUAGE plpgsql AS \$\$ BEGIN CALL flohsync.drop_connector_in_parts('hr'); END \$\$", $db);
refused('SELECT public.in_a_function()', '2D000', qr/transaction block/, 'a function');
refused("SET ROLE $_; " . parts('hr'), '42501', qr/permission denied/, "role $_") for qw(nobody_special reads);
is_deeply(all_of($db), $before, 'nothing has changed');
ok($f->try_sql('SET ROLE manages; ' . parts('hr', 3), $db)->{ok}, 'a manager may');
is_deeply(all_of($db), $left{hr}, 'and it is dropped');
refused(parts('hr'), '42704', qr/does not exist/, 'once');

#
# No transaction removes more than batch_size of anything
#
sub many
{
	my $db = filled();
	$f->sql(<<"SQL", $db);
SET session_replication_role = replica;
INSERT INTO flohsync.resource_record (connector_id, resource_type, external_id, email, sync_hash, observed_at, created_at, stale_since)
SELECT $hr, 'user', 'many ' || n, 'many' || n || '\@acme.com', '', now(), now(), CASE WHEN n % 5 = 0 THEN timestamptz '2026-01-03' END FROM generate_series(1, 230) n
UNION ALL SELECT $crm, 'user', 'many ' || n, 'many' || n || '\@acme.com', '', now(), now(), CASE WHEN n % 2 = 0 THEN timestamptz '2026-01-03' END FROM generate_series(1, 230) n;
INSERT INTO flohsync.floh_user (iss, sub, email, display_name, confirmed) SELECT 'https://idp', 'many' || n, 'many' || n || '\@acme.com', 'M', true FROM generate_series(1, 230) n;
INSERT INTO flohsync.connector_sync_match (connector_id, resource_type, connector_resource_id, external_id, external_email, user_id, match_status, match_confidence)
SELECT r.connector_id, r.resource_type, r.id, r.external_id, r.email, u.id, 'matched', 'exact' FROM flohsync.resource_record r JOIN flohsync.floh_user u ON u.email = r.email WHERE r.external_id LIKE 'many%';
INSERT INTO flohsync.user_external_identity (user_id, connector_id, external_id, source) SELECT m.user_id, m.connector_id, m.external_id, 'connector_sync' FROM flohsync.connector_sync_match m WHERE m.external_id LIKE 'many%'
UNION ALL SELECT u.id, $hr, 'gone ' || u.sub, 'connector_sync' FROM flohsync.floh_user u WHERE u.sub LIKE 'many%';
INSERT INTO flohsync.sync_run_page (run_id, page, fetched_at, records, bytes, fetch_ms, apply_ms, added, updated, unchanged, restored, filtered, errored, ignored, duplicates, truncated, unidentified)
SELECT r, p, now(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 FROM unnest('{1,2,5}'::bigint[]) r, generate_series(2, 60) p;
INSERT INTO flohsync.sync_error (run_id, error_class, message) SELECT r, 'x', 'x' FROM unnest('{1,2,5}'::bigint[]) r, generate_series(1, 60);
INSERT INTO flohsync.sync_error (connector_id, resource_type, error_class, message) SELECT $hr, 'user', 'x', 'x' FROM generate_series(1, 60);
UPDATE flohsync.sync_run r SET decided_under = _flohsync.decided_under(d, c) FROM flohsync.connector_definition d JOIN flohsync.connector_sync_config c ON c.connector_id = d.id AND c.resource_type = 'user'
 WHERE d.id = r.connector_id AND r.status = 'held';
INSERT INTO flohsync.workflow_job (run_id, data) SELECT r, '{}' FROM unnest('{1,2,5}'::bigint[]) r, generate_series(1, 60);
INSERT INTO flohsync.sync_run (connector_id, resource_type, trigger, status) SELECT $hr, 'user', 'manual', 'success' FROM generate_series(1, 70);
INSERT INTO flohsync.connector_sync_config (connector_id, resource_type, owner) SELECT $hr, 't' || n, 'upgrade_manager' FROM generate_series(1, 45) n;
INSERT INTO _flohsync.resource_tombstone (external_id, resource_type, connector_id, deleted_at) SELECT n::text, 'user', $hr, now() FROM generate_series(1, 75) n;
INSERT INTO _flohsync.record_change (resource_id, connector_id, resource_type, change) SELECT gen_random_uuid(), $hr, 'user', 'added' FROM generate_series(1, 80) n;
INSERT INTO _flohsync.departure (resource_id, connector_id) SELECT gen_random_uuid(), $hr FROM generate_series(1, 80) n;
INSERT INTO _flohsync.dirty_record (connector_id, resource_type, xid) SELECT $hr, 'user', '3' FROM generate_series(1, 90) n;
INSERT INTO _flohsync.webhook_delivery (connector_id, webhook_id) SELECT $hr, n::text FROM generate_series(1, 100) n;
INSERT INTO flohsync.entitlement_event (connector_id, body) SELECT $hr, '{}' FROM generate_series(1, 65);
INSERT INTO _flohsync.setback (config_id, stage, resource_id, tried_at) SELECT c.id, 'map', gen_random_uuid(), now() FROM flohsync.connector_sync_config c, generate_series(1, 30) WHERE c.connector_id = $hr;
INSERT INTO _flohsync.page_print_scope SELECT c.id, 'many', 1, 2, '5:5:' FROM flohsync.connector_sync_config c WHERE c.connector_id = $hr ON CONFLICT DO NOTHING;
INSERT INTO _flohsync.page_list (config_id, came) SELECT s.config_id, '' FROM _flohsync.page_print_scope s, generate_series(1, 3);
INSERT INTO _flohsync.page_print (config_id, pass_id, page, digest, bytes, records, unchanged, filtered, truncated, seen, read_from, read_to)
SELECT s.config_id, 2, p, '', 4, 1, 1, 0, 0, '', '', '' FROM _flohsync.page_print_scope s, generate_series(1, 4) p;
RESET session_replication_role;
SELECT _flohsync.tally_recount();

CREATE TABLE public.removed (xid xid8, name text, n bigint);
CREATE FUNCTION public.count_removed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS \$\$
BEGIN
  INSERT INTO public.removed SELECT pg_current_xact_id(), TG_RELNAME, count(*) FROM old_rows HAVING count(*) > 0;
  RETURN NULL;
END
\$\$;
SQL
	$f->sql("CREATE TRIGGER count_removed AFTER " . ($_ eq 'flohsync.workflow_job' ? 'UPDATE' : 'DELETE') . " ON $_ REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION public.count_removed()", $db) for tables();
	return $db;
}
sub tables
{
	return (map({ "flohsync.$_" } qw(resource_record connector_sync_match user_external_identity sync_run sync_run_page sync_error workflow_job connector_sync_config entitlement_event)),
		map({ "_flohsync.$_" } qw(resource_tombstone record_change departure dirty_record webhook_delivery setback page_print page_list)));
}

my $size = 20;
my $many = many();
sub copy_of_many { my $db = 'copy' . ++$nr; $f->disconnect($many); $f->sql("CREATE DATABASE $db TEMPLATE $many", 'postgres'); $f->sql("ALTER DATABASE $db SET flohsync.enabled = off", 'postgres'); return $db }
my $once = copy_of_many();
$db = copy_of_many();
$f->sql("SELECT flohsync.drop_connector('hr')", $once);
my $after = all_of($once);
$f->sql(parts('hr', $size), $db);
is_deeply(all_of($db), $after, 'many rows: what is left is what drop_connector leaves');
is($f->sql('SELECT count(DISTINCT xid) FROM public.removed', $once), 1, 'which is one transaction');
for my $table (map { s/.*\.//r } tables())
{
	my ($rows, $most) = split /\|/, $f->sql("SELECT sum(n), max(n) FROM (SELECT sum(n) AS n FROM public.removed WHERE name = '$table' GROUP BY xid) x", $db);
	cmp_ok($rows, '>', 2 * $size, "$table: many rows go");
	cmp_ok($most, '<=', $size, "at most $size in a transaction");
}
is($f->sql("SELECT max(n) <= $size FROM (SELECT sum(n) AS n FROM public.removed WHERE name IN ('sync_run', 'sync_run_page', 'sync_error', 'workflow_job') GROUP BY xid) x", $db), 't', 'with a run what hangs on it counts as well');

#
# Cancelled in the middle
#
for my $how ('cancelled', 'terminated')
{
	$db = copy_of_many();
	my $holder = $f->start_sql("BEGIN; SELECT FROM flohsync.connector_sync_match WHERE external_id = 'many 50' AND connector_id = $hr FOR UPDATE; SELECT pg_sleep(600)", $db);
	$f->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
	my $call = $f->start_sql(parts('hr', $size), $db);
	my $waits = "FROM pg_stat_activity WHERE query LIKE 'CALL%' AND wait_event_type = 'Lock'";
	$f->comes_true("SELECT count(*) = 1 $waits", 'it waits for one who has one of its matches');
	my $left = $f->sql('SELECT count(*) ' . "FROM flohsync.resource_record WHERE connector_id = $hr", $db);
	cmp_ok($left, '<', 242, 'some records have gone');
	cmp_ok($left, '>', 20, 'not all');
	is($f->sql("SELECT enabled, (SELECT count(*) FROM flohsync.connector_sync_config c WHERE c.connector_id = d.id) FROM flohsync.connector_definition d WHERE name = 'hr'", $db), 'f|0', 'the connector is disabled, and its configurations have gone');
	$f->sql($how eq 'cancelled' ? "SELECT pg_cancel_backend(pid) $waits" : "SELECT pg_terminate_backend(pid) $waits");
	is($f->finish($call)->{state}, $how eq 'cancelled' ? '57014' : '57P01', "it is $how");
	is($f->sql("SELECT count(*) FROM flohsync.resource_record WHERE connector_id = $hr", $db), $left, 'what has gone stays away, the rest is there');
	is($f->sql("SELECT count(*) FROM flohsync.resource_record r WHERE r.connector_id = $hr AND r.external_id LIKE 'many%' AND NOT EXISTS (SELECT FROM flohsync.connector_sync_match m WHERE m.connector_resource_id = r.id)", $db), 0, 'with its matches');
	$f->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
	$f->finish($holder);
	refused('SELECT flohsync.approve_run(5)', '55000', qr/configuration has changed/, 'a held run cannot be approved any more');
	ok($f->try_sql(parts('hr', $size), $db)->{ok}, 'another call goes on');
	is_deeply(all_of($db), $after, 'and leaves what drop_connector leaves');
}

#
# While a run is under way
#
$f->connector('runs', deactivateUsers => \1, createUsers => \1);
$f->sync_ok('runs', 'user', 'a first run');
$f->connector('other', deactivateUsers => \1);
$f->sync_ok('other', 'user', 'of another connector, with the same people');
is($f->sql("SELECT count(DISTINCT user_id) FROM flohsync.connector_sync_match"), 200, 'two hundred');
sub nothing_left
{
	my ($id, $name) = @_;
	my @with = split /\n/, $f->sql("SELECT a.attrelid::regclass FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE a.attname = 'connector_id' AND c.relkind = 'r' AND c.relnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace)");
	cmp_ok(@with, '>', 10, 'tables with connectors');
	is(join(' ', grep { $f->sql("SELECT count(*) FROM $_ WHERE connector_id = '$id'") } @with), '', $name);
	return;
}
$f->fault('hang', page => 3);
my $id = $f->sql("SELECT id FROM flohsync.connector_definition WHERE name = 'runs'");
my $run = $f->sql("SELECT flohsync.trigger_sync('runs', 'user')");
$f->await(hanging => 1);
my $dropped = $f->finish($f->start_sql(parts('runs', 7)));
ok($dropped->{ok}, 'a run waits for its upstream: its connector is dropped') or diag($dropped->{text});
$f->up('release');
nothing_left($id, 'and nothing of it is left');
$f->comes_true("SELECT count(*) = 0 FROM flohsync.workers WHERE kind = 'flohsync worker'", 'its worker ends');

# Right in the middle of its pages
for my $round (1 .. 5)
{
	$f->connector("busy$round", createUsers => \1, deactivateUsers => \1);
	$id = $f->sql("SELECT id FROM flohsync.connector_definition WHERE name = 'busy$round'");
	$run = $f->sql("SELECT flohsync.trigger_sync('busy$round', 'user', 'full')");
	$f->wait_for("SELECT count(*) >= $round FROM flohsync.sync_run_page WHERE run_id = $run");
	$dropped = $f->try_sql(parts("busy$round", 5 * $round));
	ok($dropped->{ok}, 'a connector is dropped in the middle of a run') or diag($dropped->{text});
	nothing_left($id, 'and nothing of it is left');
}

#
# While others write
#
my $dir = PostgreSQL::Test::Utils::tempdir();
my $scripts = 0;
sub script
{
	my (@statements) = @_;
	my $file = "$dir/script" . ++$scripts;
	open my $out, '>', $file or die "$file: $!";
	print $out map { "$_;\n" } @statements;
	close $out or die "$file: $!";
	return { file => $file, run => IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $f->node->connstr('postgres'), '-f', $file ], '<', \undef, '>', "$file.out", '2>', "$file.err") };
}
for my $round (1 .. 2)
{
	$f->connector('stormy', deactivateUsers => \1);
	$f->sync_ok('stormy', 'user', 'another connector with the same people');
	$id = $f->sql("SELECT id FROM flohsync.connector_definition WHERE name = 'stormy'");
	my @ids = split /\n/, $f->sql("SELECT external_id FROM flohsync.connector_resource r JOIN flohsync.connector_definition d ON d.id = r.connector_id WHERE d.name = 'other' AND r.stale_since IS NULL ORDER BY external_id");
	my @half = @ids[0 .. $#ids / 2];
	my $hook = sub { my ($c, $action, $id, $more) = @_; return "SELECT flohsync.handle_webhook('$c', '{\"action\": \"$action\", \"resourceId\": \"$id\", \"resourceType\": \"user\"$more}')" };
	my @writers = (
		script(map { $hook->('other', 'deleted', $_, '') } @half),
		script(map { $hook->('stormy', 'updated', $_, ', "data": {"displayName": "Told"}'), $hook->('stormy', 'deleted', $_, '') } reverse @ids),
		script(map { ; "SELECT flohsync.upsert_resource('stormy', 'user', '{\"externalId\": \"new $_\", \"email\": \"new$_\@example.com\"}')", "SELECT flohsync.cache_get_or_fetch('stormy', 'user', '$ids[$_]')" } 1 .. 100),
		script(map { ("SELECT flohsync.trigger_sync('stormy', 'user')", "SELECT flohsync.match_users('other', 'user')") } 1 .. 30));
	$f->wait_for("SELECT count(*) > 3 FROM flohsync.resource_record WHERE connector_id = '$id' AND external_id LIKE 'new%'");
	my $from = -s $f->node->logfile;
	$dropped = $f->finish($f->start_sql(parts('stormy', 10)), 120);
	ok($dropped->{ok}, 'a connector is dropped while webhooks and records arrive') or diag($dropped->{text});
	$_->{run}->finish, $_->{err} = slurp_file("$_->{file}.err") for @writers;
	nothing_left($id, 'and nothing of it is left');
	my %states;
	$states{$_}++ for map { $_->{err} =~ /ERROR:  (\w{5}):/g } @writers;
	is(join(' ', grep { !/^(?:42704|55000)$/ } sort keys %states), '', 'whoever came too late was told so') or diag(join "\n", map { grep { /ERROR/ && !/42704|55000/ } split /\n/, $_->{err} } @writers);
	ok($states{42704}, 'some did');
	is(() = slurp_file($f->node->logfile, $from) =~ /deadlock detected/g, 0, 'without a deadlock');
	$f->sync_ok('other', 'user', 'the other connector is as it was');
	$f->sql('DELETE FROM flohsync.floh_user WHERE deleted_at IS NOT NULL');
}

# Two at a time: one of them is told that it has gone.
$f->connector('twice');
$f->sync_ok('twice', 'user', 'a last one');
my @calls = map { $f->start_sql(parts('twice', 3)) } 1, 2;
my @r = map { $f->finish($_) } @calls;
is(join(' ', sort map { $_->{ok} ? 'dropped' : $_->{state} } @r), '42704 dropped', 'two calls at a time: one is told that the connector has gone') or diag(map { $_->{text} } @r);

$f->invariants;
$f->no_crash;
done_testing();
