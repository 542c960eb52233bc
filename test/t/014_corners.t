# Where two rare things meet: a crash at the end of a pass, a filter that changes
# under a dead worker, a page that cannot be read, locks that somebody holds,
# settings that are wrong for a while.  What is wrong here stales live records
# or keeps a processor busy.
use strict;
use warnings;

use Flohsync;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

my $f = Flohsync->new(conf => "flohsync.page_size = 20\nflohsync.http_max_attempts = 2\nflohsync.http_retry_delay = 10ms\n");
my $true = JSON::PP::true;
my $off = { maxStaleFraction => undef };
sub stale { my ($c) = @_; return $f->sql("SELECT coalesce(string_agg(external_id, ' ' ORDER BY external_id), '') " . $f->scope($c, 'user') . ' AND stale_since IS NOT NULL') }
sub cpu_seconds { my ($pid) = @_; my @s = split / /, (slurp_file("/proc/$pid/stat") =~ s/^.*\) //sr); return ($s[11] + $s[12]) / 100 }
sub own_memory { my ($pid) = @_; return slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m ? $1 : die "no memory of $pid" }

#
# A crash between the last page and the end of the pass
#
for my $case ([ 'records without ids', sub { $f->fault('id', page => 3, record => 4, value => 'missing') } ], [ 'maxRecords', sub { $f->configure('end', 'user', filterRules => { maxRecords => 60 }) } ])
{
	my ($name, $prepare) = @$case;
	$f->up('heal');
	$f->fresh(user => 100);
	$f->sql("SELECT flohsync.drop_connector('end') FROM flohsync.connector_definition WHERE name = 'end'");
	$f->connector('end', safeguards => $off);
	$f->sync_ok('end', 'user', "$name: to begin with");
	$f->up('delete', type => 'user', ids => 'user-0000002');
	$prepare->();
	# The stale step takes the row of the run for itself; pages only hold on to it.
	$f->fault('hang', page => 2);
	my $run = $f->sql("SELECT flohsync.trigger_sync('end', 'user')");
	$f->await(hanging => 1);
	my $holder = $f->start_sql("BEGIN; SELECT 1 FROM flohsync.sync_run WHERE id = $run FOR SHARE; SELECT pg_sleep(60)");
	$f->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
	$f->up('release');
	ok($f->wait_for("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type LIKE 'flohsync worker%' AND wait_event_type = 'Lock')"), "$name: the worker is about to end the pass");
	$f->wait_flushed;
	ok($f->crash($f->worker_pid), "$name: it is killed");
	$f->finish($holder);
	ok($f->wait_run($run), "$name: the run comes to its end");
	my $row = $f->run_row($run);
	is($row->{status}, 'success', "$name: a good one") or diag($row->{error});
	is($row->{complete}, JSON::PP::false, "$name: the pass is as incomplete as it was");
	ok($row->{incomplete_reason}, "$name: and says why");
	is(stale('end'), '', "$name: nothing is stale");
}

#
# A filter that changes while nobody works on the run
#
$f->up('heal');
$f->fresh(user => 200);
$f->connector('filter', safeguards => $off);
$f->sync_ok('filter', 'user');
$f->fault('hang', page => 5);
my $run = $f->sql("SELECT flohsync.trigger_sync('filter', 'user')");
$f->await(hanging => 1);
$f->wait_flushed($run, 4);
$f->sql("ALTER DATABASE postgres SET flohsync.enabled = off");
ok($f->crash($f->worker_pid), 'a worker is killed on page 5');
$f->configure('filter', 'user', filterRules => { groupNamePattern => '*1' });
$f->up('heal');
$f->up('release');
$f->clear_log;
$f->sql('ALTER DATABASE postgres RESET flohsync.enabled');
$f->sql("SELECT flohsync.trigger_sync('filter', 'user')");
ok($f->wait_run($run), 'the run goes on');
is($f->pages_asked('user'), '1 2 3 4 5 6 7 8 9 10', 'from the front: its pages were read with the old filter');
is($f->sql("SELECT count(*) " . $f->scope('filter', 'user') . " AND (stale_since IS NULL) <> (display_name LIKE '%1')"), 0, 'what passes the new filter is there, the rest is stale');

#
# A page of a query that cannot be read is not passed over
#
$f->sql("ALTER SYSTEM SET flohsync.page_size = 10000");
$f->sql('SELECT pg_reload_conf()');
ok($f->wait_for("SHOW flohsync.page_size", is => '10000'), 'pages of 10,000');
$f->sql(<<'SQL');
SELECT flohsync.create_connector('twice', 'sql', jsonb_build_object('queries', jsonb_build_object('user',
	$$SELECT 'u' || least(i, 10000 + i % 10001) AS external_id, 'x' AS display_name, NULL AS email, NULL::jsonb AS attributes FROM generate_series(1, 25000) i$$)));
SELECT flohsync.configure_sync('twice', 'user', '{"safeguards": {"maxStaleFraction": null}}');
SQL
my $stats = $f->sync_ok('twice', 'user', 'ids that come twice, at the edge of pages');
my $ids = $f->sql("SELECT count(DISTINCT least(i, 10000 + i % 10001)) FROM generate_series(1, 25000) i");
is($f->counts('twice', 'user'), "$ids 0", 'every id is there');
$stats = $f->sync_ok('twice', 'user', 'once more');
is($f->counts('twice', 'user'), "$ids 0", 'and stays');
$f->sql('ALTER SYSTEM RESET flohsync.page_size');
$f->sql('SELECT pg_reload_conf()');
ok($f->wait_for("SHOW flohsync.page_size", is => '20'), 'pages of 20 again');

# Rows without an id, more than a page holds, and one id more often than that
$f->sql(<<'SQL');
SELECT flohsync.create_connector('crowd', 'sql', jsonb_build_object('queries', jsonb_build_object('user',
	$$SELECT CASE WHEN i <= 30 THEN i::text WHEN i <= 12000 THEN 'many' END AS external_id, 'x' AS display_name, NULL AS email, NULL::jsonb AS attributes FROM generate_series(1, 24000) i$$)));
SELECT flohsync.configure_sync('crowd', 'user', '{"safeguards": {"maxStaleFraction": null}}');
SQL
$stats = $f->sync_ok('crowd', 'user', 'crowds of rows');
is($f->counts('crowd', 'user'), '31 0', 'what has an id is there');
is($stats->{complete}, JSON::PP::false, 'the pass does not count as complete');
like($f->last_run('crowd', 'user')->{incomplete_reason}, qr/externalId/, 'and says why');

#
# A user in very many groups
#
$f->sql(<<'SQL');
SELECT flohsync.create_connector('many', 'sql', jsonb_build_object('queries', jsonb_build_object(
	'group', $$SELECT 'g7' AS external_id, 'Seven' AS display_name, NULL AS email, NULL::jsonb AS attributes$$,
	'user', $$SELECT 'u' || n AS external_id, 'x' AS display_name, NULL AS email,
		jsonb_build_object('groups', (SELECT jsonb_agg(jsonb_build_object('id', 'g' || i)) FROM generate_series(8 - n, 60000) i)) AS attributes FROM generate_series(0, 1) n$$)));
SELECT flohsync.configure_sync('many', 'group', '{}');
SELECT flohsync.configure_sync('many', 'user', '{"filterRules": {"memberOfSyncedGroups": true}}');
SQL
$f->sync_ok('many', 'group');
$f->sync_ok('many', 'user', 'users in 60,000 groups');
is($f->sql("SELECT string_agg(external_id, ' ') " . $f->scope('many', 'user')), 'u1', 'only the member of the group that is synced is there');

#
# Somebody holds a record that is to go stale
#
$f->up('heal');
$f->fresh(user => 100);
$f->connector('held', safeguards => $off);
$f->sync_ok('held', 'user');
$f->up('delete', type => 'user', ids => 'user-0000003');
my $holder = $f->start_sql("BEGIN; UPDATE flohsync.resource_record SET created_at = created_at WHERE external_id = 'user-0000003' AND connector_id = (SELECT id FROM flohsync.connector_definition WHERE name = 'held'); SELECT pg_sleep(7); COMMIT");
$f->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
$f->clear_log;
$f->sync_ok('held', 'user', 'a record is locked for longer than a lock is waited for');
ok($f->finish($holder)->{ok}, 'it is not the run that makes the holder fail');
is(stale('held'), 'user-0000003', 'the run waits its turn');
is($f->pages_asked('user'), '1 2 3 4 5', 'and fetches nothing twice');

#
# Waiting costs nothing
#
$f->fault('hang', page => 2);
my $call = $f->start_sql("CALL flohsync.sync('held', 'user')");
$f->await(hanging => 1);
my $pid = $f->sql("SELECT pid FROM pg_stat_activity WHERE query LIKE 'CALL flohsync.sync%' AND backend_type = 'client backend'");
my ($cpu, $memory) = (cpu_seconds($pid), own_memory($pid));
sleep 2;
cmp_ok(cpu_seconds($pid) - $cpu, '<', 0.3, 'CALL sync waits without working');
cmp_ok(own_memory($pid) - $memory, '<', 2000, 'and without growing');
$f->up('release');
ok($f->finish($call)->{ok}, 'and ends with its run');

# A configuration is due, and somebody has its row
sub workers_started { my $n = () = slurp_file($f->node->logfile) =~ /starting background worker process "flohsync worker/g; return $n }
$f->sql("ALTER SYSTEM SET log_min_messages = 'debug1'");
$f->sql('SELECT pg_reload_conf()');
$f->configure('held', 'user', enabled => $true, cronSchedule => '0 0 1 1 *');
$f->wait_for("SELECT count(*) = 0 FROM flohsync.workers WHERE kind LIKE '%worker%'");
my $last = $f->sql('SELECT max(id) FROM flohsync.sync_run');
$f->sql("UPDATE flohsync.connector_sync_config SET next_run_at = now() - interval '1 hour' WHERE enabled");
$holder = $f->start_sql("BEGIN; SELECT 1 FROM flohsync.connector_sync_config FOR UPDATE; SELECT pg_sleep(4); COMMIT");
$f->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
my $before = workers_started();
$f->sql('SELECT _flohsync.wake()');
ok($f->finish($holder)->{ok}, 'a configuration that is due is locked for a while');
cmp_ok(workers_started() - $before, '<', 12, 'that does not set workers spinning');
$f->comes_true("SELECT EXISTS (SELECT FROM flohsync.sync_run WHERE id > $last AND trigger = 'schedule' AND status = 'success')", 'afterwards it runs', timeout => 15);

#
# Settings that are wrong for a while
#
sub due
{
	my ($name) = @_;
	my $n = $f->sql('SELECT coalesce(max(id), 0) FROM flohsync.sync_run');
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $f->comes_true("SELECT EXISTS (SELECT FROM flohsync.sync_run WHERE id > $n AND trigger = 'schedule' AND status = 'success')", $name, timeout => 15);
}
sub set { my ($name, $value) = @_; $f->sql("ALTER SYSTEM SET $name = " . literal($value)); $f->sql('SELECT pg_reload_conf()'); return }
$f->configure('held', 'user', cronSchedule => '* * * * * *');
due('a schedule runs every second');
$f->sql('CREATE ROLE without_grants LOGIN');
for ([ 'nobody_of_that_name', 'a role that does not exist' ], [ 'without_grants', 'a role that may nothing' ])
{
	my ($role, $name) = @$_;
	set('flohsync.worker_role', $role);
	sleep 2.5;
	$before = workers_started();
	sleep 3;
	cmp_ok(workers_started() - $before, '<', 6, "$name is not tried all the time");
	set('flohsync.worker_role', 'flohsync_worker');
	due("$name, and then the right one: the schedule goes on");
}
set('flohsync.enabled', 'off');
sleep 2;
set('flohsync.enabled', 'on');
due('flohsync.enabled off and on again');

$f->sql("SELECT flohsync.configure_sync('held', 'user', '{\"enabled\": false}')");
$f->wait_for("SELECT count(*) = 0 FROM flohsync.sync_run WHERE status IN ('queued', 'running')");
$f->invariants;

# A kind that is none of ours, however it came into the table
$f->fails_like("SELECT flohsync.create_connector('strange', 'gopher', '{}')", '22023', qr/"kind": 'gopher' is not a kind of connector/, 'an unknown kind is refused');
is($f->sql('SELECT _flohsync.kinds()'), '{command,sql,rest}', 'these are known');
$f->connector('strange');
$f->sql("ALTER TABLE flohsync.connector_definition DROP CONSTRAINT connector_definition_kind_check; SET session_replication_role = replica; UPDATE flohsync.connector_definition SET kind = 'gopher' WHERE name = 'strange'");
$f->sync_fails('strange', 'user', qr/'gopher' is not a kind of connector/, 'a run of it fails');
is($f->last_run('strange', 'user')->{error_class}, 'configuration', 'by the configuration');
like($f->json("SELECT flohsync.test_connector('strange')")->{error}, qr/"gopher" is not a kind of connector/, 'and so does a test');
$f->fails_like("SELECT flohsync.cache_get_or_fetch('strange', 'user', 'a')", '22023', qr/"gopher" is not a kind of connector/, 'and asking for a record');
# Two were killed, on purpose.
done_testing();
