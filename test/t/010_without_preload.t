# Without shared_preload_libraries; two databases; and what happens to a record while its page is on the way.
use strict;
use warnings;

use Flohsync;
use Test::More;
use Time::HiRes qw(time sleep);

my $f = Flohsync->new(preload => 0, conf => "flohsync.page_size = 50\nflohsync.http_timeout = 60s\n");

#
# The extension says what does not work, and the rest works.
#
$f->sql('CREATE DATABASE two');
my $r = $f->try_sql('CREATE EXTENSION flohsync', 'two');
like($r->{text}, qr/NOTICE:.*shared_preload_libraries/s, 'CREATE EXTENSION says that schedules need shared_preload_libraries');
is($f->sql("SHOW shared_preload_libraries"), '', 'it is not there');
$f->fresh(user => 150, group => 10);
$f->connector('c', types => [ 'user', 'group' ]);
my $stats = $f->sync_ok('c', 'user', 'CALL sync');
is($stats->{added}, 150, 'works');
$f->matches_upstream('c', 'user');
my $run = $f->sql("SELECT flohsync.trigger_sync('c', 'group')");
ok($f->wait_run($run), 'trigger_sync');
is($f->run_row($run)->{status}, 'success', 'works');
$r = $f->try_sql("BEGIN; SELECT flohsync.trigger_sync('c', 'user'); ROLLBACK");
is($f->sql("SELECT count(*) FROM flohsync.sync_run WHERE status IN ('queued', 'running') OR id = $r->{out}"), 0, 'a trigger that is rolled back starts nothing');

# A worker that dies takes nothing with it; without a launcher, the next call goes on.
$f->up('change', type => 'user', ids => 'user-0000001,user-0000101', what => 'name');
$f->fault('hang', page => 2);
$run = $f->sql("SELECT flohsync.trigger_sync('c', 'user')");
$f->await(hanging => 1);
ok($f->crash($f->worker_pid), 'the worker is killed');
$f->up('release');
$f->sync_ok('c', 'user', 'the next call');
is($f->run_row($run)->{status}, 'success', 'goes on with the run');
$f->matches_upstream('c', 'user');

#
# Two databases
#
$f->sql("SELECT flohsync.create_connector('c', 'command', " . literal(json_text({ url => $f->url, commands => ['listUsers'] })) . "); SELECT flohsync.configure_sync('c', 'user', '{}')", 'two');
$f->fault('hang', page => 1, type => 'user', times => 2);
my @calls = ($f->start_sql("CALL flohsync.sync('c', 'user')"), $f->start_sql("CALL flohsync.sync('c', 'user')", 'two'));
$f->await(hanging => 2);
is($f->sql("SELECT string_agg(DISTINCT datname, ' ' ORDER BY datname) FROM pg_stat_activity WHERE backend_type LIKE 'flohsync worker%'"), 'postgres two', 'each database has its own worker, at the same time');
$f->up('release');
my @done = map { $f->finish($_) } @calls;
is(join(' ', map { $_->{ok} ? decode_json_text($_->{out})->{added} : $_->{text} } @done), '0 150', 'both get their records');
is($f->sql('SELECT count(*) FROM flohsync.connector_resource', 'two'), 150, 'the second has its own');
is($f->sql('SELECT count(*) FROM flohsync.sync_run', 'two'), 1, 'and its own history');

# The addresses that may be reached are a setting, for each database if need be.
$f->sql("ALTER DATABASE two SET flohsync.http_allowed_networks = ''");
$f->disconnect('two');
$f->clear_log;
my ($port) = $f->url =~ /:(\d+)/;
my $n = 0;
for my $host ('127.0.0.1', 'localhost', '127.1', '0x7f000001', '2130706433', '017700000001', '[::ffff:127.0.0.1]', '[::1]', '0.0.0.0', '127.0.0.1.', '169.254.169.254', '10.0.0.1', '[fe80::1]')
{
	$n++;
	my $r = $f->try_sql("SELECT flohsync.create_connector('blocked$n', 'command', '{\"url\": \"http://$host:$port/\", \"commands\": [\"listUsers\"]}'); SELECT flohsync.configure_sync('blocked$n', 'user', '{}')", 'two');
	my $begun = time;
	my ($ok, $answer) = $r->{ok} ? $f->sync("blocked$n", 'user', 'two') : (0, $r);
	ok(!$ok, "$host is not reached") or diag(json_text($answer));
	cmp_ok(time - $begun, '<', 5, 'which takes no time');
}
is($f->up('log')->{requests}, 0, 'not a single request got through');
my (undef, $why) = $f->sync('blocked1', 'user', 'two');
like($why->{message}, qr/allow|private|loopback|blocked|network/i, 'the error says why');
my $try = $f->json("SELECT flohsync.test_connector('blocked1')", 'two');
ok(!$try->{ok}, 'test_connector does not reach it either');
$f->disconnect('two');
$f->wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'two'");
ok($f->try_sql('DROP DATABASE two')->{ok}, 'a database without work can be dropped');

#
# While a page is on the way
#
sub on_the_way
{
	my ($page) = @_;
	$f->up('heal');
	$f->fault('hang', page => $page);
	my $run = $f->sql("SELECT flohsync.trigger_sync('c', 'user')");
	$f->await(hanging => 1);
	return $run;
}
sub arrives
{
	my ($run, $name) = @_;
	$f->up('release');
	$f->wait_run($run);
	my $row = $f->run_row($run);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($row->{status}, 'success', "$name: the run succeeds") or diag($row->{error});
	return $row->{stats} // {};
}
sub name_of { return $f->sql("SELECT coalesce(display_name, 'null') " . $f->scope('c', 'user') . " AND external_id = '$_[0]' AND stale_since IS NULL") }

$f->up('change', type => 'user', ids => 'user-0000060,user-0000061', what => 'name');
$run = on_the_way(2);
is($f->sql("SELECT flohsync.upsert_resource('c', 'user', '{\"externalId\": \"user-0000060\", \"displayName\": \"newer\"}')"), 'updated', 'a record is upserted while its page is on the way');
is($f->sql("SELECT flohsync.upsert_resource('c', 'user', '{\"externalId\": \"newcomer\", \"displayName\": \"new\"}')"), 'added', 'another one is new');
$stats = arrives($run, 'upsert');
is(name_of('user-0000060'), 'newer', 'the newer one wins over the page');
like(name_of('user-0000061'), qr/ v\d+$/, 'the others are taken from the page');
is(name_of('newcomer'), 'new', 'a record that came in during the pass does not go stale');
is("$stats->{ignored} $stats->{updated} $stats->{staled}", '1 1 0', 'and is counted as ignored');
$stats = $f->sync_ok('c', 'user', 'the next pass');
like(name_of('user-0000060'), qr/ v\d+$/, 'is newer than that');
is("$stats->{updated} $stats->{staled}", '1 1', 'and stales what is not there');

# An older observation than the page loses against it.
$run = on_the_way(2);
my $asked = $f->sql('SELECT now()');
$f->up('change', type => 'user', ids => 'user-0000060', what => 'name');
is($f->sql("SELECT flohsync.upsert_resource('c', 'user', '{\"externalId\": \"user-0000062\", \"displayName\": \"older\"}', now() - interval '1 hour')"), 'ignored', 'an observation of an hour ago is ignored');
$stats = arrives($run, 'an old observation');
is($stats->{unchanged}, 150, 'and changes nothing');

# A deletion
my $id = $f->sql("SELECT id FROM flohsync.connector_definition WHERE name = 'c'");
sub bury
{
	my ($external, $at) = @_;
	$f->sql("DELETE FROM flohsync.resource_record WHERE connector_id = '$id' AND resource_type = 'user' AND external_id = '$external'");
	$f->sql("INSERT INTO _flohsync.resource_tombstone (connector_id, resource_type, external_id, deleted_at) VALUES ('$id', 'user', '$external', $at)");
	return;
}
$f->sync_ok('c', 'user');
$run = on_the_way(2);
bury('user-0000070', 'clock_timestamp()');
$stats = arrives($run, 'deletion');
is(name_of('user-0000070'), '', 'a deletion newer than the fetch is not undone by it');
is($stats->{ignored} . ' ' . $stats->{added}, '1 0', 'the record is ignored');
$stats = $f->sync_ok('c', 'user', 'the next pass');
isnt(name_of('user-0000070'), '', 'has a later word: the record is back');
is($stats->{added} + $stats->{restored}, 1, 'as a new one');
bury('user-0000071', "now() - interval '1 hour'");
$f->sync_ok('c', 'user');
isnt(name_of('user-0000071'), '', 'an older deletion does not hold a record back');

# A record of a page that was read already
$f->up('delete', type => 'user', ids => 'user-0000010');
$run = on_the_way(3);
is($f->sql("SELECT flohsync.upsert_resource('c', 'user', '{\"externalId\": \"user-0000010\", \"displayName\": \"seen elsewhere\"}')"), 'updated', 'a record that was missing on page 1 comes in by itself during page 3');
$stats = arrives($run, 'upsert after its page');
is(name_of('user-0000010') . " $stats->{staled}", 'seen elsewhere 0', 'and does not go stale');

# What has not been committed yet is waited for, and counts.
$f->up('restore', type => 'user', ids => 'user-0000010');
$f->sync_ok('c', 'user');
$f->up('change', type => 'user', ids => 'user-0000060', what => 'name');
$f->up('add', type => 'user', count => 1);
for ([ 2, 'user-0000060', 'a known record' ], [ 4, 'user-0000151', 'a new one' ])
{
	my ($page, $key, $what) = @$_;
	$run = on_the_way($page);
	my $open = $f->start_sql("BEGIN; SELECT flohsync.upsert_resource('c', 'user', '{\"externalId\": \"$key\", \"displayName\": \"open\"}'); SELECT pg_sleep(1); COMMIT");
	$f->wait_for("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')");
	arrives($run, "a transaction that is open: $what");
	ok($f->finish($open)->{ok}, 'it ends');
	is(name_of($key), 'open', "a newer observation in it wins: $what");
}
$f->up('heal');
$f->sync_ok('c', 'user');
$f->matches_upstream('c', 'user');
$f->up('delete', type => 'user', ids => 'user-0000010');

# Settings of the worker's role do not change what it does.
my $worker = $f->sql('SHOW flohsync.worker_role');
$f->sql("ALTER ROLE $worker SET $_") for "search_path = 'nowhere'", "default_transaction_isolation = 'serializable'", 'default_transaction_read_only = on', "statement_timeout = '1ms'",
  "DateStyle = 'German'", "IntervalStyle = 'iso_8601'", "TimeZone = 'Asia/Kathmandu'", "bytea_output = 'escape'", 'standard_conforming_strings = off', 'extra_float_digits = -15', 'row_security = off', "lc_messages = 'C'";
$f->up('change', type => 'user', ids => 'user-0000020,user-0000120', what => 'attributes');
$f->up('add', type => 'user', count => 1);
$stats = $f->sync_ok('c', 'user', "odd settings of the worker's role");
is("$stats->{updated} $stats->{added} $stats->{staled}", '2 1 1', 'change nothing');
$f->matches_upstream('c', 'user');
$f->sql("ALTER ROLE $worker RESET ALL");

# Settings change while a page is on the way
$run = on_the_way(2);
my $begun = time;
is($f->sql("SELECT flohsync.delete_sync_config('c', 'user')"), 't', 'the configuration goes while a page is on the way');
cmp_ok(time - $begun, '<', 3, 'at once');
$f->up('release');
$f->up('heal');
ok($f->wait_for("SELECT count(*) = 0 FROM flohsync.sync_run WHERE status IN ('queued', 'running')"), 'the run ends');
is($f->sql("SELECT count(stale_since) " . $f->scope('c', 'user') . " AND external_id LIKE 'user-%' AND external_id <> 'user-0000010'"), 0, 'and stales nothing');
$f->configure('c', 'user');
$f->sync_ok('c', 'user', 'configured anew');
$run = on_the_way(2);
$f->configure('c', 'user', filterRules => { emailDomains => ['nowhere.example'] });
$f->up('release');
$f->up('heal');
ok($f->wait_run($run), 'the filters change while a page is on the way: the run ends');
is($f->sql("SELECT count(stale_since) " . $f->scope('c', 'user') . " AND external_id LIKE 'user-%' AND external_id <> 'user-0000010'"), 0, 'and stales nothing by half');
$f->configure('c', 'user', filterRules => undef);
$f->sync_ok('c', 'user');

# A lock of somebody else's is waited for.
$f->up('change', type => 'user', ids => 'user-0000001', what => 'name');
my $h = $f->start_sql("BEGIN; LOCK TABLE flohsync.resource_record IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(1.5); COMMIT");
$f->wait_for("SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'flohsync.resource_record'::regclass AND mode = 'AccessExclusiveLock' AND granted)");
$run = $f->sql("SELECT flohsync.trigger_sync('c', 'user')");
ok($f->wait_run($run), 'the table is locked for a while');
is($f->run_row($run)->{status}, 'success', 'the run waits for it');
$f->finish($h);
$f->matches_upstream('c', 'user');

# Dropping the connector in the middle
$run = on_the_way(2);
$begun = time;
$f->sql("SELECT flohsync.drop_connector('c')");
cmp_ok(time - $begun, '<', 3, 'the connector goes while a page is on the way: at once');
$f->up('release');
ok($f->wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'flohsync worker%'"), 'the worker goes');
is($f->sql('SELECT count(*) FROM flohsync.resource_record'), 0, 'nothing is left, nothing comes back');

$f->invariants;
my @bad = grep { /PANIC|TRAP:|signal (?!9\b)\d+/ } split /\n/, PostgreSQL::Test::Utils::slurp_file($f->node->logfile);
is(join("\n", @bad), '', 'no process died of anything but our kill');
done_testing();
