# Runs that start by themselves.
use strict;
use warnings;

use Flohsync;
use Test::More;
use Time::HiRes qw(time sleep);

my $f = Flohsync->new(conf => "flohsync.page_size = 50\nflohsync.max_workers = 2\nflohsync.log_runs = off\n");
my $true = JSON::PP::true;
my $false = JSON::PP::false;

sub runs { my ($c, $where) = @_; return $f->sql("SELECT count(*) FROM flohsync.sync_run r JOIN flohsync.connector_definition d ON d.id = r.connector_id WHERE d.name = '$c' AND " . ($where // 'true')) }
sub more_runs
{
	my ($c, $name, $where) = @_;
	my $n = runs($c, $where);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $f->comes_true("SELECT count(*) >= $n + 2 FROM flohsync.sync_run r JOIN flohsync.connector_definition d ON d.id = r.connector_id WHERE d.name = '$c' AND " . ($where // 'true'), $name, timeout => 8);
}

# Nothing is there to wait for, so this one takes its time.
sub no_more_runs
{
	my ($c, $name) = @_;
	$f->wait_for("SELECT count(*) = 0 FROM flohsync.sync_run WHERE status IN ('queued', 'running')");
	my $n = runs($c);
	sleep 2.3;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(runs($c), $n, $name);
}

my $r = $f->try_sql('CREATE DATABASE quiet');
$r = $f->try_sql('CREATE EXTENSION flohsync', 'quiet');
unlike($r->{text}, qr/shared_preload_libraries/, 'CREATE EXTENSION has nothing to say about shared_preload_libraries');
$f->disconnect('quiet');

#
# Every second
#
$f->fresh(user => 20, group => 5);
my $id = $f->connector('c', cronSchedule => '* * * * * *', enabled => $true);
$f->comes_true("SELECT EXISTS (SELECT FROM flohsync.sync_run WHERE status = 'success')", 'a configuration that is enabled runs by itself', timeout => 5);
$f->matches_upstream('c', 'user');
more_runs('c', 'and again');
is($f->sql("SELECT string_agg(DISTINCT trigger, ' ') FROM flohsync.sync_run"), 'schedule', 'the runs say that a schedule asked for them');
cmp_ok($f->sql("SELECT coalesce(min(extract(epoch FROM b - a)), 1) FROM (SELECT requested_at AS b, lag(requested_at) OVER (ORDER BY id) AS a FROM flohsync.sync_run) x WHERE a IS NOT NULL"), '>', 0.5, 'not more often than once a second');
my $job = $f->json("SELECT to_jsonb(j) FROM flohsync.jobs j WHERE job_id = 'cr-sync-$id-user'");
ok($job, 'the view of jobs has it under the id of the document') or diag($f->sql('SELECT * FROM flohsync.jobs'));
is($job->{schedule}, '* * * * * *', 'with its schedule');
ok($job->{next_run_at}, 'and its next run');
$f->configure('c', 'user', enabled => $false);
no_more_runs('c', 'disabled: it runs no more');
$job = $f->json("SELECT to_jsonb(j) FROM flohsync.jobs j WHERE job_id = 'cr-sync-$id-user'");
ok($job->{last_run_at}, 'the view of jobs has its last run');
is($job->{last_status}, 'success', 'and how that went');
is($job->{next_run_at}, undef, 'it is not due');
is($f->json("SELECT flohsync.sync_config('c', 'user')")->{nextRunAt}, undef, 'and the configuration says so');
ok($f->sync_ok('c', 'user', 'disabled: it can be run by hand'));
$f->configure('c', 'user', enabled => $true);
more_runs('c', 'enabled: it runs again');

# The connector, the database, the cluster
$f->sql("SELECT flohsync.update_connector('c', '{\"enabled\": false}')");
no_more_runs('c', 'the connector is disabled: no runs');
$f->sql("SELECT flohsync.update_connector('c', '{\"enabled\": true}')");
more_runs('c', 'the connector is enabled: runs');
$f->sql("ALTER DATABASE postgres SET flohsync.enabled = off");
sleep 1.2;    # a worker that had started may do what it started for
no_more_runs('c', 'flohsync.enabled = off for the database: no runs');
$f->sql("ALTER DATABASE postgres RESET flohsync.enabled");
more_runs('c', 'and on again: runs');

# What is wrong with a schedule switches nothing off.
{
	my $meddle = sub { $f->sql("SET session_replication_role = replica; UPDATE flohsync.connector_sync_config SET $_[0], next_run_at = now() - interval '1 second'; RESET session_replication_role; SELECT _flohsync.wake()") };
	my $at = -s $f->node->logfile;
	$meddle->("timezone = 'Mars/Olympus'");
	$f->comes_true('SELECT schedule_error IS NOT NULL FROM flohsync.connector_sync_config', 'a time zone that the system lost is noticed');
	is($f->sql('SELECT enabled FROM flohsync.connector_sync_config'), 't', 'the configuration stays enabled');
	like($f->sql('SELECT remark FROM flohsync.jobs'), qr/^the schedule cannot be used: .*Mars\/Olympus/, 'the view of jobs says why nothing runs');
	is($f->sql('SELECT next_run_at FROM flohsync.jobs'), '', 'and that nothing is due');
	like($f->sql('SELECT flohsync.metrics()'), qr/^flohsync_schedule_unusable\{[^}]*\} 1$/m, 'so does a metric');
	like($f->sql("SELECT string_agg(message, ' ') FROM flohsync.check_config('c', 'user')"), qr/the schedules cannot be used: .*Mars/, 'and check_config');
	$meddle->('strategy = strategy') for 1 .. 3;
	$f->comes_true("SELECT next_run_at > now() + interval '4 minutes' FROM flohsync.connector_sync_config", 'it is looked at again in five minutes');
	is(scalar(() = PostgreSQL::Test::Utils::slurp_file($f->node->logfile, $at) =~ /WARNING:  schedules of c\/user cannot be used/g), 1, 'the log says so once');
	$meddle->("timezone = 'UTC'");
	more_runs('c', 'when it is there again, runs go on');
	is($f->sql('SELECT schedule_error IS NULL FROM flohsync.connector_sync_config'), 't', 'and nothing is remarked any more');
}

# A restart
$f->node->restart;
more_runs('c', 'after a restart: runs');
$f->node->stop('immediate');
$f->node->start;
more_runs('c', 'after a crash: runs');

#
# Missed ticks collapse into one.
#
$f->fault('hang', page => 1);
$f->await(hanging => 1);
my $n = runs('c');
sleep 2.5;
is(runs('c'), $n, 'while a run goes on no other is queued');
is($f->sql("SELECT count(*) FROM flohsync.sync_run WHERE status IN ('queued', 'running')"), 1, 'one is open');
$f->configure('c', 'user', cronSchedule => '0 0 1 1 *');
$f->up('release');
ok($f->wait_for("SELECT count(*) = 0 FROM flohsync.sync_run WHERE status IN ('queued', 'running')"), 'it ends');
sleep 0.5;
cmp_ok(runs('c') - $n, '<=', 1, 'the missed ticks make one run at most');
like($f->json("SELECT flohsync.sync_config('c', 'user')")->{nextRunAt}, qr/^\d{4}-01-01T00:00:00/, 'the new schedule counts');

# Due while the server was down
$f->configure('c', 'user', cronSchedule => '0 0 1 1 *');
$n = runs('c');
$f->sql("UPDATE flohsync.connector_sync_config SET next_run_at = now() - interval '3 days'");
$f->node->restart;
$f->comes_true("SELECT count(*) = $n + 1 FROM flohsync.sync_run", 'a run that was due while the server was down is made up for');
no_more_runs('c', 'once');

#
# Two schedules
#
$n = $f->sql('SELECT max(id) FROM flohsync.sync_run');
$f->configure('c', 'user', strategy => 'incremental', cronSchedule => '1 seconds', fullCronSchedule => '*/2 * * * * *');
more_runs('c', 'full runs by the second schedule', "strategy = 'full' AND r.id > $n");
more_runs('c', 'incremental ones by the first', "strategy = 'incremental'");
is($f->sql("SELECT flohsync.delete_sync_config('c', 'user')"), 't', 'the configuration goes');
is($f->sql("SELECT count(*) FROM flohsync.jobs"), 0, 'and with it its job');
no_more_runs('c', 'and its runs');

#
# No more workers than allowed
#
$f->up('heal');
$f->fresh(user => 20);
$f->connector("w$_") for 1 .. 4;
$f->fault('hang', times => 4);
my @runs = map { $f->sql("SELECT flohsync.trigger_sync('w$_', 'user')") } 1 .. 4;
$f->await(hanging => 2);
sleep 0.3;
is($f->sql("SELECT count(*) FROM flohsync.workers WHERE kind LIKE '%worker%'"), 2, 'max_workers 2: two workers');
is($f->up('log')->{hanging}, 2, 'two runs');
is($f->sql("SELECT count(*) FROM flohsync.sync_run WHERE status = 'queued'"), 2, 'the others wait');
$f->up('heal');
$f->up('release');
$f->wait_run($_) for @runs;
is($f->sql("SELECT count(*) FROM flohsync.sync_run WHERE status = 'success' AND id IN (" . join(',', @runs) . ')'), 4, 'and have their turn');

#
# When is next?
#
for ([ '0 */6 * * *', '2026-03-01 05:00Z', 'UTC', '2026-03-01 06:00Z' ], [ '*/15 * * * * *', '2026-03-01 05:00:01Z', 'UTC', '2026-03-01 05:00:15Z' ],
	[ '0 0 * * *', '2026-03-01 00:00Z', 'UTC', '2026-03-02 00:00Z' ], [ '0 9 * * MON-FRI', '2026-03-06 09:00Z', 'UTC', '2026-03-09 09:00Z' ],
	[ '0 0 L * *', '2026-02-10Z', 'UTC', '2026-02-28Z' ], [ '0 0 * * 5L', '2026-03-01Z', 'UTC', '2026-03-27Z' ], [ '0 0 * * MON#2', '2026-03-01Z', 'UTC', '2026-03-09Z' ],
	[ '0 0 13 * FRI', '2026-03-01Z', 'UTC', '2026-03-06Z' ], [ '@hourly', '2026-03-01 05:30Z', 'UTC', '2026-03-01 06:00Z' ], [ '@yearly', '2026-03-01Z', 'UTC', '2027-01-01Z' ],
	[ '0 12 * * *', '2026-07-01Z', 'Europe/Zurich', '2026-07-01 10:00Z' ], [ '0 0 29 2 *', '2026-03-01Z', 'UTC', '2028-02-29Z' ], [ '0 0 ? JAN,JUL *', '2026-02-01Z', 'UTC', '2026-07-01Z' ])
{
	my ($schedule, $after, $zone, $next) = @$_;
	is($f->sql("SELECT flohsync.cron_next('$schedule', '$after', '$zone') AT TIME ZONE 'UTC'"), $f->sql("SELECT timestamptz '$next' AT TIME ZONE 'UTC'"), "cron_next: $schedule after $after in $zone");
}
is($f->try_sql("SELECT flohsync.cron_next('often')")->{state}, '22023', 'cron_next: no schedule');
is($f->try_sql("SELECT flohsync.cron_next('\@daily', now(), 'Mars/Olympus')")->{state}, '22023', 'cron_next: no zone');

$f->invariants;
$f->no_crash;
done_testing();
