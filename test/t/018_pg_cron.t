# Schedules by pg_cron, the real one, instead of our launcher's.
#
# The shortest period of pg_cron 1.4 is a minute: two of them are spent waiting.
use strict;
use warnings;

use Flohsync;
use Test::More;
use Time::HiRes qw(time);

my $probe = PostgreSQL::Test::Cluster->new('probe');
my $library = $probe->config_data('--pkglibdir') . '/pg_cron.so';
plan skip_all => "pg_cron is not installed: no $library" unless -e $library;

# Our library is not preloaded: this is for those who schedule with pg_cron only.
my $f = Flohsync->new(preload => 0, conf => <<'CONF');
shared_preload_libraries = 'pg_cron'
cron.database_name = 'postgres'
flohsync.http_max_attempts = 1
CONF
$f->node->append_conf('postgresql.conf', 'cron.host = \'' . $f->node->host . "'\n");
$f->node->restart;
$f->sql('CREATE EXTENSION pg_cron');
$f->fresh(user => 50, group => 5);
for ([ 'acme', 'user' ], [ 'acme', 'group' ], [ 'broken', 'user' ])
{
	my ($connector, $type) = @$_;
	$f->connector($connector, types => []) if $type eq 'user';
	$f->configure($connector, $type);
}
$f->sql('SELECT flohsync.update_connector(\'broken\', \'{"config": {"url": "' . $f->closed_url . '", "commands": ["listUsers"]}}\')');

# All in one transaction: the same tick is the first one of each.
sub schedule
{
	my (%jobs) = @_;
	return $f->sql('SELECT ' . join(', ', map { "cron.schedule('$_', '* * * * *', \$\$$jobs{$_}\$\$)" } sort keys %jobs));
}

# Its state when it is over: a job's last run
sub job_of
{
	my ($name) = @_;
	return "(SELECT d.* FROM cron.job_run_details d JOIN cron.job j USING (jobid) WHERE j.jobname = '$name' AND d.status IN ('succeeded', 'failed') ORDER BY runid DESC LIMIT 1) x";
}

for my $mode ('connections of its own', 'background workers')
{
	if ($mode eq 'background workers')
	{
		$f->node->append_conf('postgresql.conf', 'cron.use_background_workers = on');
		$f->node->restart;
		$f->fresh(user => 60, group => 5);
	}
	my $last = $f->sql('SELECT coalesce(max(id), 0) FROM flohsync.sync_run');
	my $since = $f->sql('SELECT coalesce(max(runid), 0) FROM cron.job_run_details');
	schedule(
		users => q{CALL flohsync.sync('acme','user')},
		groups => q{SELECT flohsync.trigger_sync('acme', 'group')},
		broken => q{CALL flohsync.sync('broken', 'user')});
	for my $name (qw(users groups broken))
	{
		$f->wait_for('SELECT count(*) > 0 FROM ' . job_of($name) . " WHERE runid > $since", timeout => 100);
	}
	is($f->sql('SELECT status FROM ' . job_of('users') . " WHERE runid > $since"), 'succeeded', "$mode: CALL sync") or diag($f->sql('SELECT * FROM cron.job_run_details'));
	$f->matches_upstream('acme', 'user', "$mode: the records are there when the job ends");
	is($f->sql('SELECT status FROM ' . job_of('groups') . " WHERE runid > $since"), 'succeeded', "$mode: trigger_sync");
	$f->comes_true("SELECT status = 'success' FROM flohsync.sync_run WHERE id > $last AND resource_type = 'group'", "$mode: its run goes well");
	is($f->sql('SELECT status FROM ' . job_of('broken') . " WHERE runid > $since"), 'failed', "$mode: an upstream that is not there fails the job");
	like($f->sql('SELECT return_message FROM ' . job_of('broken') . " WHERE runid > $since"), qr/run \d+ failed: upstream: /, "$mode: and the job says why") or diag($f->sql('SELECT * FROM cron.job_run_details'));
	is($f->sql("SELECT count(*) FROM flohsync.sync_run WHERE id > $last AND resource_type = 'user' AND connector_id = (SELECT id FROM flohsync.connector_definition WHERE name = 'acme')"), 1, "$mode: one run per tick");
	$f->sql('SELECT cron.unschedule(jobid) FROM cron.job');
}
$f->invariants;
$f->no_crash;
done_testing();
