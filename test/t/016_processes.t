# What happens to workers and schedules when databases, the extension and the server come and go.
use strict;
use warnings;

use Flohsync;
use Test::More;
use Time::HiRes qw(time sleep);

my $f = Flohsync->new(conf => "flohsync.page_size = 20\nflohsync.http_max_attempts = 1\nflohsync.retry_delay = '200ms'\nflohsync.launcher_naptime = 1s\n");
my $true = JSON::PP::true;
my $log = $f->node->logfile;

sub log_from { my ($at) = @_; return substr(PostgreSQL::Test::Utils::slurp_file($log), $at) }
sub log_end { return -s $log }
sub soon
{
	my ($begun, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return cmp_ok(time - $begun, '<', 8, $name);
}
sub workers { return $f->sql("SELECT count(*) FROM flohsync.workers WHERE kind = 'flohsync worker'") }

# A database of its own, with a connector whose first page hangs if so wished
sub make_database
{
	my ($db, $hang, %settings) = @_;
	$f->sql("CREATE DATABASE $db");
	$f->sql('CREATE EXTENSION flohsync', $db);
	$f->sql("SELECT flohsync.create_connector('d', 'command', " . literal(json_text({ url => $f->url, commands => ['listUsers'] })) . "); SELECT flohsync.configure_sync('d', 'user', " . literal(json_text(\%settings)) . ')', $db);
	return unless $hang;
	$f->fault('hang', page => 2, times => -1);
	$f->sql("SELECT flohsync.trigger_sync('d', 'user')", $db);
	$f->await(hanging => 1);
	return;
}
sub release { $f->up('heal'); $f->up('release'); return }

$f->fresh(user => 100);

#
# An upstream that fails is tried again three times, then at the next tick.
#
$f->connector('r');
$f->fault('status', code => 500, times => -1);
$f->configure('r', 'user', enabled => $true, cronSchedule => '0 0 1 1 *');
my $due = $f->sql("UPDATE flohsync.connector_sync_config SET next_run_at = now() - interval '1 second' RETURNING _flohsync.wake() IS NULL");
$f->comes_true("SELECT count(*) = 4 AND bool_and(status = 'error') FROM flohsync.sync_run", 'a scheduled run that fails is tried again three times', timeout => 15);
is($f->sql("SELECT string_agg(trigger, ' ' ORDER BY id) FROM flohsync.sync_run"), 'schedule retry retry retry', 'the history tells tries from ticks');
is($f->sql(<<'SQL'), 't', 'with growing delay');
SELECT bool_and(gap >= make_interval(secs => 0.2 * 2 ^ (n - 2)) AND gap < make_interval(secs => 0.2 * 2 ^ (n - 2) + 2))
  FROM (SELECT row_number() OVER w AS n, started_at - lag(finished_at) OVER w AS gap FROM flohsync.sync_run WINDOW w AS (ORDER BY id)) g
 WHERE n > 1
SQL
sleep 2;
is($f->sql('SELECT count(*) FROM flohsync.sync_run'), 4, 'and then it waits');
like($f->sql("SELECT next_run_at FROM flohsync.jobs"), qr/^\d{4}-01-01/, 'for the next tick');
is($f->sql("SELECT totals ->> 'error' FROM flohsync.connector_sync_config"), 4, 'the totals count them');
$f->sql("UPDATE flohsync.connector_sync_config SET next_run_at = now() - interval '1 second' RETURNING _flohsync.wake()");
$f->comes_true("SELECT count(*) = 6 FROM flohsync.sync_run WHERE status = 'error'", 'the next tick begins again');
release();
$f->comes_true("SELECT status = 'success' AND trigger = 'retry' FROM flohsync.sync_run ORDER BY id DESC LIMIT 1", 'a later try goes well', timeout => 10);
is($f->sql('SELECT retries, retry_at, last_sync_status FROM flohsync.connector_sync_config'), '0||success', 'and that is that');
$f->matches_upstream('r', 'user');
$f->fault('status', code => 500, times => -1);
my $n = $f->sql('SELECT count(*) FROM flohsync.sync_run');
ok(!($f->sync('r', 'user'))[0], 'a run by hand fails at once');
sleep 1;
is($f->sql('SELECT count(*) FROM flohsync.sync_run'), $n + 1, 'and is not tried again');
$f->up('heal');
$f->fault('status', code => 401, times => -1);
$f->sql("UPDATE flohsync.connector_sync_config SET next_run_at = now() - interval '1 second' RETURNING _flohsync.wake()");
$f->wait_for("SELECT count(*) = $n + 2 AND bool_and(status <> 'running') FROM flohsync.sync_run");
sleep 1;
is($f->sql('SELECT count(*) FROM flohsync.sync_run'), $n + 2, 'nor is one that the upstream does not let in');
$f->up('heal');
$f->fault('status', code => 503, retry_after => 3600, times => -1);
$f->sql("UPDATE flohsync.connector_sync_config SET next_run_at = now() - interval '1 second' RETURNING _flohsync.wake()");
$f->wait_for('SELECT retry_at IS NOT NULL FROM flohsync.connector_sync_config');
is($f->sql("SELECT retry_at BETWEEN now() + interval '59 minutes' AND now() + interval '61 minutes' FROM flohsync.connector_sync_config"), 't', 'an upstream that asks to be left alone for an hour is');
is($f->sql('SELECT remark FROM flohsync.jobs'), 'the last run failed; retry 1 of 3 is pending', 'the view of jobs says so');
release();
$f->sync_ok('r', 'user', 'a run by hand meanwhile');
is($f->sql('SELECT retry_at IS NULL FROM flohsync.connector_sync_config'), 't', 'makes the next try needless');

# Changing something else does not lose a run that is due.
$f->sql("ALTER DATABASE postgres SET flohsync.enabled = off");
$f->disconnect('postgres');
$n = $f->sql("UPDATE flohsync.connector_sync_config SET next_run_at = now() - interval '1 minute' RETURNING next_run_at");
$f->configure('r', 'user', staleRetention => '8d');
is($f->sql('SELECT next_run_at FROM flohsync.connector_sync_config'), $n, 'a run that is due stays due when a setting is changed');
is($f->sql("SELECT remark FROM flohsync.jobs"), 'flohsync.enabled is off', 'the view of jobs says why it does not run') or diag($f->sql('SELECT * FROM flohsync.jobs'));
$f->sql("ALTER DATABASE postgres RESET flohsync.enabled");
$f->disconnect('postgres');

# The full pass and the incremental one keep separate watermarks.
$f->configure('r', 'user', strategy => 'incremental');
$f->sync_ok('r', 'user');
my ($watermark, $full) = split /\|/, $f->sql('SELECT watermark, last_full_pass_at FROM flohsync.connector_sync_config');
$f->sync_ok('r', 'user', 'an incremental pass');
is($f->sql("SELECT watermark > '$watermark', last_full_pass_at = '$full' FROM flohsync.connector_sync_config"), 't|t', 'moves its own watermark alone');
$watermark = $f->sql('SELECT watermark FROM flohsync.connector_sync_config');
$f->fault('status', code => 500, page => 3, times => -1);
my $run = $f->sql("SELECT flohsync.trigger_sync('r', 'user', 'full')");
$f->wait_run($run);
is($f->sql("SELECT watermark = '$watermark', last_full_pass_at = '$full' FROM flohsync.connector_sync_config"), 't|t', 'a full pass that fails moves none');
release();
$f->clear_log;
$f->sync_ok('r', 'user', 'the incremental pass after it');
my ($asked) = grep { defined } map { $_->{modifiedSince} // $_->{modified_since} } $f->requests(type => 'user');
is($f->sql("SELECT modified_since = '$watermark'::timestamptz - interval '5 minutes' FROM flohsync.sync_run ORDER BY id DESC LIMIT 1"), 't', 'asks for what changed since the last good one, less the overlap');

#
# The history: failures stay three times as long, and the last run always.
#
$f->sql("ALTER SYSTEM SET flohsync.run_retention = '1d'; SELECT pg_reload_conf()");
$f->sql("UPDATE flohsync.sync_run SET finished_at = now() - interval '2 days'");
my ($errors, $last) = split /\|/, $f->sql("SELECT count(*) FILTER (WHERE status = 'error'), max(id) FROM flohsync.sync_run");
$f->sql('SELECT _flohsync.wake()');
$f->comes_true("SELECT count(*) = 1 FROM flohsync.sync_run WHERE status <> 'error'", 'runs older than run_retention go');
is($f->sql("SELECT count(*) FILTER (WHERE status = 'error'), max(id) FROM flohsync.sync_run"), "$errors|$last", 'failures stay, and the last run');
$f->sql("UPDATE flohsync.sync_run SET finished_at = now() - interval '4 days' WHERE status = 'error'");
$f->sql('SELECT _flohsync.wake()');
$f->comes_true('SELECT count(*) = 1 FROM flohsync.sync_run', 'failures older than three times as long go as well');
$f->sql('ALTER SYSTEM RESET flohsync.run_retention; SELECT pg_reload_conf()');

#
# One worker looks while another has the run, and leaves after the run has failed:
# what it read of the schedule before does not hide the next try.
#
$f->sql("ALTER SYSTEM SET flohsync.run_retention = '1d'");
$f->sql("ALTER SYSTEM SET flohsync.retry_delay = '3s'; SELECT pg_reload_conf()");
$f->configure('r', 'user', strategy => 'full');
$f->fault('hang', page => 1, times => 1);
$f->sql("UPDATE flohsync.connector_sync_config SET next_run_at = now() - interval '1 second' RETURNING _flohsync.wake()");
$f->await(hanging => 1);
$f->fault('status', code => 500, page => 2, times => 1);
# what it does between looking and leaving is to forget history
my $holder = $f->start_sql("BEGIN; LOCK TABLE flohsync.workflow_job IN SHARE MODE; SELECT pg_sleep(60)");
$f->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK TABLE%' AND wait_event = 'PgSleep'");
$f->sql('SELECT _flohsync.wake()');
ok($f->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'flohsync worker' AND wait_event_type = 'Lock'"), 'a second worker has looked, and waits');
$f->sql("ALTER SYSTEM SET flohsync.run_retention = 0; SELECT pg_reload_conf()");
$f->up('release');
ok($f->wait_for('SELECT retry_at IS NOT NULL FROM flohsync.connector_sync_config'), 'the run of the first fails');
ok($f->wait_for("SELECT count(*) = 1 FROM flohsync.workers WHERE kind = 'flohsync worker'"), 'the first leaves');
$f->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK TABLE%'");
$f->finish($holder);
$f->comes_true("SELECT status = 'success' AND trigger = 'retry' FROM flohsync.sync_run ORDER BY id DESC LIMIT 1", 'the run is tried again in time', timeout => 8);
release();
$f->sql('ALTER SYSTEM RESET flohsync.run_retention');
$f->sql("ALTER SYSTEM RESET flohsync.retry_delay; SELECT pg_reload_conf()");

#
# Figures for Prometheus
#
my $metrics = $f->sql('SELECT flohsync.metrics()');
my %value = map { /^(\S+(?:\{.*\})?) (\S+)$/ ? ($1 => $2) : () } grep { !/^#/ } split /\n/, $metrics;
my $label = 'connector="r",resource_type="user"';
is(scalar(grep { !/^(# (HELP|TYPE) flohsync_\w+ \S.*|flohsync_\w+(\{(\w+="([^"\\]|\\.)*",?)+\})? -?\d+(\.\d+)?)$/ } split /\n/, $metrics), 0, 'metrics: every line is one of the text format');
is("$value{flohsync_launcher_up} $value{flohsync_workers_limit}", '1 4', 'metrics: processes');
is($value{"flohsync_runs_total{$label,status=\"error\"}"}, $f->sql("SELECT totals ->> 'error' FROM flohsync.connector_sync_config"), 'metrics: counters outlive the history');
cmp_ok($value{"flohsync_runs_total{$label,status=\"error\"}"}, '>', 6, 'metrics: and count');
is($value{"flohsync_records_total{$label,outcome=\"added\"}"}, 100, 'metrics: records');
cmp_ok(abs($value{"flohsync_last_success_timestamp_seconds{$label}"} - time), '<', 60, 'metrics: last success');
is($value{"flohsync_parked{$label}"}, 0, 'metrics: parked');
$f->sql("SELECT flohsync.create_connector(E'odd \"name\\\\\\n', 'command', '{\"url\": \"http://127.0.0.1:1/\", \"commands\": [\"listUsers\"]}'); SELECT flohsync.configure_sync(E'odd \"name\\\\\\n', 'user', '{}')");
like($f->sql('SELECT flohsync.metrics()'), qr/connector="odd \\"name\\\\\\n"/, 'metrics: odd names are escaped');

#
# Databases
#
make_database('renamed', 1);
$f->disconnect('renamed');
my $begun = time;
my $r = $f->try_sql('ALTER DATABASE renamed RENAME TO renamed2');
ok($r->{ok}, 'ALTER DATABASE RENAME while a run hangs there') or diag($r->{text});
soon($begun, 'at once');
release();
ok($f->wait_for("SELECT status = 'success' FROM flohsync.sync_run", db => 'renamed2', timeout => 25), 'and the run goes on under the new name');
is($f->sql('SELECT count(*), count(DISTINCT pass_id) FROM flohsync.sync_run', 'renamed2'), '1|1', 'as one run');
# Nobody waits longer than the command takes; of a few times, as the machine may be busy.
{
	my $quick = 0;
	for my $try (1 .. 5)
	{
		my ($from, $to) = $try % 2 ? qw(renamed2 renamed3) : qw(renamed3 renamed2);
		$f->sql("SELECT flohsync.trigger_sync('d', 'user')", $from);
		$f->wait_for("SELECT status = 'success' FROM flohsync.sync_run ORDER BY id DESC LIMIT 1", db => $from, timeout => 25);
		$f->disconnect($from);
		$f->sql("ALTER DATABASE $from RENAME TO $to");
		my $run = $f->sql("SELECT flohsync.trigger_sync('d', 'user')", $to);
		$f->wait_for("SELECT status = 'success' FROM flohsync.sync_run WHERE id = $run", db => $to, timeout => 25);
		$quick = $f->sql("SELECT started_at - requested_at < interval '8 s' FROM flohsync.sync_run WHERE id = $run", $to) eq 't';
		if ($quick && $to eq 'renamed2') { last }
		$f->disconnect($to);
	}
	ok($quick, 'runs go on as soon as the database has its new name');
	my $failed = $f->try_sql('CREATE DATABASE model2 TEMPLATE renamed2');
	ok(!$failed->{ok}, 'a command that needs the database for itself fails');
	my $run = $f->sql("SELECT flohsync.trigger_sync('d', 'user')", 'renamed2');
	$f->wait_for("SELECT status = 'success' FROM flohsync.sync_run WHERE id = $run", db => 'renamed2', timeout => 25);
	cmp_ok($f->sql("SELECT extract(epoch FROM started_at - requested_at) FROM flohsync.sync_run WHERE id = $run", 'renamed2'), '<', 25, 'and runs go on');
}
$f->disconnect('renamed2');

make_database('model', 1);
$f->disconnect('model');
$begun = time;
$r = $f->try_sql('CREATE DATABASE copy TEMPLATE model');
ok($r->{ok}, 'CREATE DATABASE TEMPLATE of one where a run hangs') or diag($r->{text});
soon($begun, 'at once');
release();
for my $db ('model', 'copy')
{
	ok($f->wait_for("SELECT status = 'success' FROM flohsync.sync_run", db => $db, timeout => 25), "$db: the run goes on");
	is($f->sql('SELECT count(*) FROM flohsync.connector_resource', $db), 100, "$db: has the records");
	$f->disconnect($db);
}

make_database('kept', 1);
my $guest = $f->start_sql('SELECT pg_sleep(60)', 'kept');
$f->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = 'kept'");
$f->disconnect('kept');
$r = $f->try_sql('DROP DATABASE kept');
is($r->{state}, '55006', 'DROP DATABASE fails where somebody else is connected') or diag($r->{text});
release();
$f->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
$f->finish($guest);
ok($f->wait_for("SELECT status = 'success' FROM flohsync.sync_run", db => 'kept', timeout => 25), 'the run there goes on all the same');
$f->disconnect('kept');

make_database('forced', 1);
$f->disconnect('forced');
$begun = time;
ok($f->try_sql('DROP DATABASE forced WITH (FORCE)')->{ok}, 'DROP DATABASE WITH (FORCE) while a run hangs there');
soon($begun, 'at once');
release();
ok($f->wait_for("SELECT count(*) = 0 FROM flohsync.workers WHERE kind = 'flohsync worker'", timeout => 10), 'no worker is left');

for my $db ('renamed2', 'model', 'copy', 'kept')
{
	ok($f->try_sql("DROP DATABASE $db")->{ok}, "a database whose runs are done can be dropped");
}

# Every second in two databases
make_database('second', 0, enabled => $true, cronSchedule => '* * * * * *');
$f->configure('r', 'user', strategy => 'full', cronSchedule => '* * * * * *');
$n = $f->sql('SELECT max(id) FROM flohsync.sync_run');
$f->comes_true('SELECT count(*) >= 2 FROM flohsync.sync_run', 'a second database has its own schedules', db => 'second');
$f->comes_true("SELECT count(*) >= 2 FROM flohsync.sync_run WHERE id > $n", 'the first goes on with its own');
$f->disconnect('second');
$r = $f->try_sql('DROP DATABASE second');
ok($r->{ok}, 'a database with a run every second can be dropped') or diag($r->{text});
my $at = log_end();
sleep 1.5;
unlike(log_from($at), qr/database "second" does not exist|FATAL/, 'and nothing goes looking for it');

#
# The extension
#
$r = $f->try_sql('DROP EXTENSION flohsync CASCADE');
ok($r->{ok}, 'DROP EXTENSION with a run every second') or diag($r->{text});
$at = log_end();
sleep 2.5;
unlike(log_from($at), qr/ERROR|FATAL|flohsync/, 'nothing is said and nothing runs where there is no extension');
ok($f->try_sql('CREATE EXTENSION flohsync')->{ok}, 'CREATE EXTENSION again');
$f->connector('c', cronSchedule => '* * * * * *', enabled => $true);
$f->comes_true("SELECT count(*) >= 2 FROM flohsync.sync_run WHERE status = 'success'", 'its schedules run');
is($f->sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'flohsync worker' AND usename IN (SELECT rolname FROM pg_roles WHERE rolsuper)"), 0, 'no worker is a superuser, whoever made the extension');

# The library is of another version than the SQL in the database: older, newer.
for my $version ('0.0', '99.9')
{
	$at = log_end();
	$f->sql("UPDATE pg_extension SET extversion = '$version' WHERE extname = 'flohsync'; SELECT _flohsync.wake()");
	my $said = 0;
	for (1 .. 100)
	{
		last if $said = log_from($at) =~ /does nothing in database "postgres": the extension there has version \Q$version\E/;
		sleep 0.05;
	}
	ok($said, "the extension has version $version: the worker says that it does nothing");
	$f->wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'flohsync worker'");
	$n = $f->sql('SELECT count(*) FROM flohsync.sync_run');
	sleep 1.5;
	is($f->sql('SELECT count(*) FROM flohsync.sync_run'), $n, 'and does nothing');
	is(scalar(() = log_from($at) =~ /does nothing in database/g), 1, 'having said it once');
	$f->sql("UPDATE pg_extension SET extversion = (SELECT default_version FROM pg_available_extensions WHERE name = 'flohsync') WHERE extname = 'flohsync'; SELECT _flohsync.wake()");
	$f->comes_true("SELECT count(*) > $n FROM flohsync.sync_run", 'updated: it goes on');
}

#
# The server
#
for my $mode ('fast', 'immediate')
{
	$begun = time;
	$f->node->stop($mode);
	soon($begun, "stop -m $mode with a run every second");
	$f->node->start;
	$n = $f->sql('SELECT max(id) FROM flohsync.sync_run');
	$f->comes_true("SELECT max(id) > $n + 1 FROM flohsync.sync_run", "after stop -m $mode: it goes on");
}
my @family = split /\n/, $f->sql("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'flohsync%'");
$f->disconnect('postgres');
$f->node->kill9;
my $left;
for (1 .. 200)
{
	last unless $left = grep { kill 0, $_ } @family;
	sleep 0.05;
}
is($left, 0, 'the postmaster is killed: launcher and workers go');
for (1 .. 200)
{
	last if $f->node->start(fail_ok => 1);
	sleep 0.1;
}
$n = $f->sql('SELECT max(id) FROM flohsync.sync_run');
$f->comes_true("SELECT max(id) > $n + 1 FROM flohsync.sync_run", 'after the next start it goes on');
is($f->sql("SELECT count(*) - count(DISTINCT date_trunc('second', requested_at)) FROM flohsync.sync_run WHERE trigger = 'schedule'"), 0, 'no tick ran twice through all of it');

#
# No room for workers
#
$at = log_end();
$f->sql("ALTER SYSTEM SET max_worker_processes = 3");    # two are the launchers', of this extension and of logical replication
$f->node->restart;
$f->wait_for("SELECT count(*) >= 1 FROM flohsync.sync_run WHERE status = 'success'");
$f->configure('c', 'user', cronSchedule => '0 0 1 1 *');
$f->wait_for("SELECT count(*) = 0 FROM flohsync.sync_run WHERE status IN ('queued', 'running')");
$f->fault('hang', times => 1);
$f->connector('d');
$run = $f->sql("SELECT flohsync.trigger_sync('c', 'user')");
$f->await(hanging => 1);
my $waiting = $f->sql("SELECT flohsync.trigger_sync('d', 'user')");
my $said = 0;
for (1 .. 100)
{
	last if $said = log_from($at) =~ /could not start a worker/;
	sleep 0.05;
}
ok($said, 'max_worker_processes is used up: the launcher says so');
$at = log_end();
sleep 3.5;
unlike(log_from($at), qr/could not start a worker/, 'once, however often it tries');
is($f->run_row($waiting)->{status}, 'queued', 'the run waits');
is($f->run_row($run)->{status}, 'running', 'the other is not touched');
release();
ok($f->wait_run($_, timeout => 15), 'it has its turn') for $run, $waiting;
is($f->run_row($waiting)->{status}, 'success', 'and goes well');
$f->sql("UPDATE flohsync.connector_sync_config SET next_run_at = now() + interval '1 second' WHERE enabled; SELECT _flohsync.wake()");
$said = 0;
for (1 .. 300)
{
	last if $said = log_from($at) =~ /starts workers again after/;
	sleep 0.05;
}
ok($said, 'the launcher says that it works again');
$f->sql('ALTER SYSTEM RESET max_worker_processes');
$f->node->restart;

#
# A run that crashes its worker three times is parked until somebody starts it.
#
$f->configure('c', 'user', cronSchedule => '* * * * * *');
$f->fault('hang', page => 2, times => -1);
# A crash of the server may take the last page with it: then that page is new ground once more.
my $kills = 0;
my $parked = "(SELECT error_class = 'crash_loop' FROM flohsync.sync_run ORDER BY id DESC LIMIT 1)";
while ($kills < 8)
{
	$f->wait_for("SELECT $parked OR EXISTS (SELECT FROM pg_stat_activity WHERE application_name LIKE 'flohsync run%' AND wait_event_type = 'Extension')");
	last if $f->sql("SELECT $parked") eq 't';
	ok($f->crash($f->worker_pid), 'the worker is killed, ' . ++$kills);
}
cmp_ok($kills, '>=', 3, 'not before the third time');
cmp_ok($kills, '<=', 5, 'and not much later');
$f->comes_true("SELECT status = 'error' AND error_class = 'crash_loop' FROM flohsync.sync_run ORDER BY id DESC LIMIT 1", 'the third crash on the same page parks the run', timeout => 20)
	or diag($f->sql('SELECT id, status, pages, crashes, crash_page, started_at, error FROM flohsync.sync_run ORDER BY id DESC LIMIT 3'));
release();
$n = $f->sql('SELECT count(*) FROM flohsync.sync_run');
sleep 2.2;
is($f->sql('SELECT count(*) FROM flohsync.sync_run'), $n, 'no schedule starts it again');
is($f->sql("SELECT next_run_at IS NULL, remark FROM flohsync.jobs WHERE connector = 'c'"), 't|runs crashed their worker; trigger_sync() resumes the schedules', 'the view of jobs says so');
like($f->sql('SELECT flohsync.metrics()'), qr/^flohsync_parked\{connector="c",resource_type="user"\} 1$/m, 'and so do the metrics');
$f->sync_ok('c', 'user', 'by hand');
$f->comes_true("SELECT count(*) > $n + 2 FROM flohsync.sync_run", 'and the schedule goes on');
$f->configure('c', 'user', enabled => JSON::PP::false);

#
# A hundred at once: in order of their due time, none lost, no more workers than allowed
#
$f->up('records', user => 3);
$f->sql("SELECT flohsync.create_connector('m' || i, 'command', " . literal(json_text({ url => $f->url, commands => ['listUsers'] })) . ") FROM generate_series(1, 100) i");
$f->sql("SELECT flohsync.configure_sync('m' || i, 'user', '{\"enabled\": true, \"cronSchedule\": \"0 0 1 1 *\"}') FROM generate_series(1, 100) i");
$n = $f->sql('SELECT max(id) FROM flohsync.sync_run');
$f->sql("UPDATE flohsync.connector_sync_config c SET next_run_at = now() - make_interval(secs => substr(d.name, 2)::int * 0.001) FROM flohsync.connector_definition d WHERE d.id = c.connector_id AND d.name LIKE 'm%'; SELECT _flohsync.wake()");
$f->comes_true("SELECT count(*) = 100 FROM flohsync.sync_run WHERE id > $n AND status = 'success'", 'a hundred configurations due in the same second: all run', timeout => 30);
is($f->sql("SELECT count(*), count(DISTINCT connector_id) FROM flohsync.sync_run WHERE id > $n"), '100|100', 'each once');
is($f->sql("SELECT string_agg(substr(d.name, 2), ' ' ORDER BY r.id) FROM flohsync.sync_run r JOIN flohsync.connector_definition d ON d.id = r.connector_id WHERE r.id > $n"), join(' ', reverse 1 .. 100), 'queued in the order in which they were due');
# A worker that a busy machine holds up between claiming a run and beginning it lets others pass.
is($f->sql("SELECT count(*) FILTER (WHERE later > 3) FROM (SELECT count(*) FILTER (WHERE b.started_at < a.started_at) AS later FROM flohsync.sync_run a JOIN flohsync.sync_run b ON b.id > a.id WHERE a.id > $n GROUP BY a.id) x")
	<= 20 ? 1 : 0, 1, 'and begun in that order, but for those that begin at the same moment');

$f->invariants;
done_testing();
