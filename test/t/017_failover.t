# Standby and promotion, dump and restore, pg_upgrade: what was started in one server goes on in another.
use strict;
use warnings;

use Flohsync;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time sleep);

my $true = JSON::PP::true;
my $conf = "flohsync.page_size = 20\nflohsync.http_max_attempts = 1\nflohsync.launcher_naptime = 1s\nmax_connections = 30\n";
my $f = Flohsync->new(conf => $conf, init => { allows_streaming => 1 });

sub ours { my ($g) = @_; return $g->sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'flohsync%'") }

# When the newest run was asked for: to see whether there are more of them later.
sub last_id { my ($g, $db) = @_; return $g->sql('SELECT coalesce(max(id), 0) FROM flohsync.sync_run', $db) }

$f->fresh(user => 100, group => 100);
$f->connector('c', cronSchedule => '* * * * * *', enabled => $true);
$f->connector('hand');
$f->configure('hand', 'group');
$f->sync_ok('hand', 'group');
$f->comes_true("SELECT EXISTS (SELECT FROM flohsync.sync_run WHERE status = 'success')", 'a schedule on the primary', timeout => 10);

#
# A standby has the records and does nothing.
#
$f->node->backup('base');
my $node = PostgreSQL::Test::Cluster->new('standby');
$node->init_from_backup($f->node, 'base', has_streaming => 1);
$node->start;
$f->node->wait_for_catchup($node);
my $s = $f->with_node($node);
my $n = last_id($s);
$s->comes_true("SELECT max(id) > $n + 1 FROM flohsync.sync_run", 'the standby follows the runs of the primary', timeout => 20);
is(ours($s), 0, 'no process of ours on the standby');
unlike(slurp_file($node->logfile), qr/flohsync launcher/, 'nor was there one');
my $r = $s->try_sql("SELECT flohsync.trigger_sync('c', 'user')");
is($r->{state}, '25006', 'trigger_sync on a standby is refused') or diag($r->{text});
$r = $s->try_sql("CALL flohsync.sync('hand', 'group')");
is($r->{state}, '25006', 'so is CALL sync') or diag($r->{text});
$r = $s->try_sql("SELECT flohsync.configure_sync('c', 'user', '{}')");
is($r->{state}, '25006', 'and configure_sync') or diag($r->{text});
for my $query ("SELECT flohsync.sync_config('c', 'user') ->> 'resourceType'", "SELECT flohsync.sync_status('c', 'user') IS NOT NULL",
	'SELECT count(*) FROM flohsync.jobs', 'SELECT count(*) FROM flohsync.sync_progress', 'SELECT count(*) FROM flohsync.workers',
	"SELECT flohsync.metrics() LIKE '%flohsync_launcher_up 0%'")
{
	$r = $s->try_sql($query);
	ok($r->{ok} && $r->{out} ne '' && $r->{out} ne 'f', "on the standby: $query") or diag("$r->{out} $r->{text}");
}
$f->configure('c', 'user', enabled => JSON::PP::false);
$f->wait_for("SELECT count(*) = 0 FROM flohsync.sync_run WHERE status IN ('queued', 'running')");
$f->node->wait_for_catchup($node);
$s->matches_upstream('c', 'user', 'the records on the standby are those of the upstream');

#
# The primary dies in the middle of a run; the standby takes over.
#
$f->configure('c', 'user', enabled => $true);
$f->fault('hang', type => 'group', page => 4);
my $run = $f->sql("SELECT flohsync.trigger_sync('hand', 'group')");
$f->await(hanging => 1);
$f->wait_flushed($run, 3);
$f->node->wait_for_catchup($node);
$f->node->stop('immediate');
$n = last_id($s);
$f->up('heal');
$f->up('release');
$f->clear_log;
my $begun = time;
$node->promote;
$s->comes_true("SELECT status = 'success' FROM flohsync.sync_run WHERE id = $run", 'after the promotion the run goes on', timeout => 20);
cmp_ok(time - $begun, '<', 10, 'within ten seconds');
is($s->pages_asked('group'), '4 5', 'where it was');
$s->matches_upstream('hand', 'group', 'and has the records of the upstream');
$s->comes_true("SELECT count(*) >= 2 FROM flohsync.sync_run WHERE id > $n AND trigger = 'schedule' AND status = 'success'", 'the schedule goes on as well', timeout => 10);
is($s->sql("SELECT count(*) FROM flohsync.sync_run WHERE id > $n AND status = 'error'"), 0, 'nothing fails');

#
# A dump into another database: nothing fires until that adopts it.
#
$s->configure('c', 'user', enabled => $true, cronSchedule => '0 0 1 1 *');
$s->wait_for("SELECT count(*) = 0 FROM flohsync.sync_run WHERE status IN ('queued', 'running')");
$s->sql("UPDATE flohsync.connector_sync_config SET next_run_at = now() + interval '1 hour'");
$s->configure('hand', 'group', enabled => $true, cronSchedule => '* * * * * *');
$s->comes_true("SELECT EXISTS (SELECT FROM flohsync.sync_run r JOIN flohsync.connector_definition d ON d.id = r.connector_id WHERE d.name = 'hand' AND trigger = 'schedule')", 'a schedule that is due all the time');
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'pg_dump');
$s->configure('hand', 'group', enabled => JSON::PP::false);
$s->wait_for("SELECT count(*) = 0 FROM flohsync.sync_run WHERE status IN ('queued', 'running')");
$s->sql('CREATE DATABASE restored');
$s->clear_log;
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $dump ], 'pg_restore');
my $before = last_id($s, 'restored');
sleep 2.5;    # two ticks and two looks of the launcher
is(last_id($s, 'restored'), $before, 'nothing is queued in the restored database');
is(scalar($s->requests), 0, 'and the upstream is left alone');
is($s->sql("SELECT remark FROM flohsync.jobs WHERE resource_type = 'group'", 'restored'), 'the connector was restored from a dump of another database; call adopt() to sync it in this one', 'the view of jobs says why');
like($s->sql('SELECT flohsync.metrics()', 'restored'), qr/^flohsync_scheduled\{[^}]*\} 0$/m, 'and a metric');
my $refused = $s->try_sql("SELECT flohsync.trigger_sync('hand', 'group')", 'restored');
like("$refused->{state} $refused->{text}", qr/^55000 .*was restored from a dump of another database.*flohsync\.adopt\(\)/s, 'so does who asks for a run');
for my $what ('count(*), sum(hashtext(sync_hash)), min(id::text) FROM flohsync.connector_resource', 'count(*) FROM flohsync.sync_run WHERE status = \'success\'',
	"string_agg(name || id, ' ' ORDER BY id) FROM flohsync.connector_definition", "flohsync.sync_config('c', 'user') - 'nextRunAt'")
{
	my $query = "SELECT $what";
	my $got = $s->sql($query, 'restored');
	ok($got ne '', "there is something: $what");
	$what =~ /sync_run/ ? cmp_ok($got, '>', 3, "restored: $what") : is($got, $s->sql($query), "restored: $what");
}
is($s->sql('SELECT flohsync.adopt()', 'restored'), $s->sql('SELECT count(*) FROM flohsync.connector_definition'), 'adopt() says how many connectors it adopts');
is($s->sql('SELECT flohsync.adopt()', 'restored'), 0, 'and the second time that there are none');
$s->disconnect('restored');
$s->comes_true("SELECT count(*) > 1 FROM flohsync.sync_run WHERE id > $before AND status = 'success'", 'adopted, they go on', db => 'restored', timeout => 10);
$s->sql("SELECT flohsync.configure_sync('hand', 'group', '{\"enabled\": false}')", 'restored');
$s->wait_for("SELECT count(*) = 0 FROM flohsync.sync_run WHERE status IN ('queued', 'running')", db => 'restored');
$s->invariants('restored');

#
# pg_upgrade: the servers that it starts leave the upstream alone.
#
$s->configure('hand', 'group', enabled => $true, cronSchedule => '* * * * * *');
$s->comes_true("SELECT max(id) > $n FROM flohsync.sync_run WHERE status = 'success'", 'a schedule that is due all the time');
my $records = $s->sql('SELECT count(*), sum(hashtext(sync_hash)) FROM flohsync.connector_resource');
$node->stop('fast');
my $new = PostgreSQL::Test::Cluster->new('new');
Flohsync::init_node($new, conf => $conf);
my $bindir = $new->config_data('--bindir');
my $where = PostgreSQL::Test::Utils::tempdir();
$s->clear_log;
$begun = time;
{
	# pg_upgrade writes into the folder it is started in.
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run([ 'pg_upgrade', '--no-sync', '-d', $node->data_dir, '-D', $new->data_dir, '-b', $bindir, '-B', $bindir,
		'-s', $where, '-p', $node->port, '-P', $new->port, '--retain' ], '>', \$out, '2>', \$err, init => sub { chdir $where });
	ok($ok, 'pg_upgrade') or diag("$out$err");
}
cmp_ok(time - $begun, '>', 1, 'it takes more than a tick');
is(scalar($s->requests), 0, 'the upstream was not asked meanwhile');
my $logs = join '', map { slurp_file($_) } glob($new->data_dir . '/pg_upgrade_output.d/*/log/pg_upgrade_server.log');
like($logs, qr/database system is ready to accept connections/, 'servers were started');
unlike($logs, qr/flohsync (?:launcher|worker)|sync of/, 'and none said anything of us');
$new->start;
my $u = $f->with_node($new);
is($u->sql('SELECT count(*), sum(hashtext(sync_hash)) FROM flohsync.connector_resource'), $records, 'the records are there');
$before = last_id($u);
$u->comes_true("SELECT count(*) > 1 FROM flohsync.sync_run WHERE id > $before AND status = 'success'", 'and the schedule goes on', timeout => 15);
my $stats = $u->sync_ok('c', 'user', 'a run by hand');
is($stats->{added} + $stats->{updated}, 0, 'finds nothing new');
$u->configure('hand', 'group', enabled => JSON::PP::false);
$u->wait_for("SELECT count(*) = 0 FROM flohsync.sync_run WHERE status IN ('queued', 'running')");
$u->matches_upstream('c', 'user');
$u->invariants;
$_->no_crash for $s, $u;
done_testing();
