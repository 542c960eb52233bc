# Many configurations and a long history: what a run, the end of a worker and the
# metrics read does not grow with them.  Counted are the rows that are read; the time
# that they take depends on the machine.
use strict;
use warnings;

use Flohsync;
use Test::More;

my $configs = 400;
my $history = 200_000;
my $apart = 5;    # seconds
my $f = Flohsync->new(conf => "flohsync.max_workers = 1\nflohsync.http_timeout = 10min\nflohsync.log_runs = off\nflohsync.launcher_naptime = 1h\nautovacuum = off\n"
	  . "fsync = off\nmax_wal_size = 4GB\n");
my $settings = literal(json_text({ enabled => JSON::PP::true, cronSchedule => '0 0 1 1 *', staleRetention => '3000d' }));

$f->sql("CREATE TABLE public.people (id text PRIMARY KEY); INSERT INTO people VALUES ('a'), ('b'); GRANT SELECT ON people TO flohsync_nobody");
$f->sql("SELECT count(flohsync.create_connector('c' || i, 'sql', '{\"queries\": {\"user\": \"select id as external_id, null::text as display_name, null::text as email, null::jsonb as attributes from public.people\"}}')),
	count(flohsync.configure_sync('c' || i, 'user', $settings)) FROM generate_series(1, $configs) i");

# Makes n configurations due, the last one first, and waits until the worker that runs them is gone: without a
# look at the tables, whose rows that are read are counted.
sub run_due
{
	my ($n) = @_;
	my $last = $f->sql('SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM flohsync.sync_run_id_seq');
	$f->sql("UPDATE flohsync.connector_sync_config c SET next_run_at = now() - make_interval(secs => substr(d.name, 2)::int) FROM flohsync.connector_definition d
		WHERE d.id = c.connector_id AND substr(d.name, 2)::int <= $n; SELECT _flohsync.wake()");
	$f->wait_for("SELECT last_value >= $last + $n AND (SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'flohsync worker') FROM flohsync.sync_run_id_seq", timeout => 300);
	return $last;
}
sub succeeded { my ($last) = @_; return $f->sql("SELECT count(*) FROM flohsync.sync_run WHERE id > $last AND status = 'success'") }

# What this session has read is in the statistics a second later, unless it is told to.
sub all_is_counted { $f->sql('SELECT pg_stat_force_next_flush()'); return }
sub count_anew { all_is_counted(); $f->sql('SELECT pg_stat_reset()'); return }

# Rows of a table that have been read since count_anew, in all ways.
sub rows_read
{
	my ($table) = @_;
	all_is_counted();
	return $f->sql("SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relid = 'flohsync.$table'::regclass");
}
sub rows_read_by
{
	my ($what) = @_;
	count_anew();
	$f->sql($what);
	return { map { $_ => rows_read($_) } qw(connector_sync_config sync_run sync_run_page) };
}

#
# Many configurations
#
my $last = run_due($configs);
is($f->sql("SELECT count(DISTINCT connector_id) FROM flohsync.sync_run WHERE id > $last"), $configs, 'all are due at once: each runs, and once');
is($f->sql("SELECT count(*) FROM (SELECT substr(d.name, 2)::int AS n, lag(substr(d.name, 2)::int) OVER (ORDER BY r.id) AS before FROM flohsync.sync_run r
	JOIN flohsync.connector_definition d ON d.id = r.connector_id WHERE r.id > $last) x WHERE n >= before"), 0, 'queued in the order in which they were due');
is($f->sql("SELECT count(*) FROM (SELECT id, lag(id) OVER (ORDER BY started_at) AS before FROM flohsync.sync_run WHERE id > $last) x WHERE id < before"), 0, 'and run in that order');

my %each;
for my $n (20, 120)
{
	count_anew();
	my $before = run_due($n);
	$each{$n} = { map { $_ => rows_read($_) } qw(connector_sync_config sync_run connector_definition) };
	is(succeeded($before), $n, "$n configurations are due: $n runs");
}
# What is read however many are due cancels out.
for my $table (qw(connector_sync_config sync_run connector_definition))
{
	cmp_ok(($each{120}{$table} - $each{20}{$table}) / 100, '<', 100, "a run among $configs configurations reads few rows of $table")
	  or diag("$each{20}{$table}, $each{120}{$table}");
}

# What was asked for while others wait comes after these, and is not forgotten.
$last = $f->sql('SELECT max(id) FROM flohsync.sync_run');
$f->sql("UPDATE flohsync.connector_sync_config SET next_run_at = now() - interval '1 hour'; SELECT _flohsync.wake()");
$f->wait_for("SELECT count(*) > 20 FROM flohsync.sync_run WHERE id > $last AND status = 'success'");
$f->sql("UPDATE flohsync.connector_sync_config SET next_run_at = now() - interval '1 second' WHERE (connector_id, resource_type) IN (SELECT connector_id, resource_type FROM flohsync.sync_run WHERE id = $last + 1)");
$f->comes_true("SELECT count(*) = $configs + 1 FROM flohsync.sync_run WHERE id > $last AND status = 'success'", 'what falls due while others wait has its turn', timeout => 300);
is($f->sql("SELECT count(*) FROM flohsync.sync_run WHERE status IN ('queued', 'running')"), 0, 'and nothing is left');

# Due times that are in no order of time are found, though by reading all.
$f->wait_for("SELECT count(*) = 0 FROM flohsync.workers WHERE kind = 'flohsync worker'");
$f->sql("SET session_replication_role = replica; UPDATE flohsync.connector_sync_config SET next_run_at = NULL WHERE id = (SELECT min(id::text)::uuid FROM flohsync.connector_sync_config);
	RESET session_replication_role");
$f->sql('SELECT _flohsync.wake()');
$f->comes_true('SELECT count(*) = 0 FROM flohsync.connector_sync_config WHERE next_run_at IS NULL', 'a due time that is missing is made by a worker that has nothing else to do');

#
# A long history, of which nothing was analysed
#

# A worker has made its plans while there was little, and is at work when there is much.
$f->connector('c9999');
$f->fault('hang', page => 1);
$f->sql("INSERT INTO people VALUES ('c')");
$f->sql("SELECT flohsync.trigger_sync(x.name, 'user') FROM (SELECT 'c' || i FROM generate_series(1, 20) i UNION ALL SELECT 'c9999') x(name)");
$f->await(hanging => 1);

$f->sql("SET session_replication_role = replica;
	INSERT INTO flohsync.sync_run (connector_id, resource_type, strategy, trigger, requested_at, started_at, finished_at, status, complete, pages, pass_pages)
	SELECT d.id, 'user', 'full', 'schedule', x.at, x.at, x.at, CASE i % 10 WHEN 0 THEN 'error' ELSE 'success' END, i % 10 <> 0, 1, 1
	  FROM generate_series(1, $history) i CROSS JOIN LATERAL (SELECT now() - make_interval(secs => $apart * ($history - i))) x(at)
	  JOIN (SELECT id, row_number() OVER () - 1 AS n FROM flohsync.connector_definition WHERE name IN ('c1', 'c2', 'c3', 'c4', 'c5')) d ON d.n = i % 5;
	INSERT INTO flohsync.sync_run_page (run_id, page, fetched_at, records, bytes, fetch_ms, apply_ms, added, updated, unchanged, restored, filtered, errored, ignored, duplicates, truncated, unidentified)
	SELECT id, 1, now(), 10, 5000, 1, 1, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0 FROM flohsync.sync_run WHERE id % 5 = 0 ON CONFLICT DO NOTHING;
	RESET session_replication_role");

sub reads_few
{
	my ($worker, $last) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %rows = map { $_ => rows_read($_) } qw(sync_run sync_run_page);
	cmp_ok($rows{$_}, '<', 2000, "five runs with 40,000 runs before each read few rows of $_: $worker") or diag($rows{$_}) for sort keys %rows;
	is(succeeded($last), 5, 'and succeed');
	return;
}
$f->sql("INSERT INTO people VALUES ('d')");
my $before = $f->sql('SELECT max(id) FROM flohsync.sync_run');
$f->sql("SELECT flohsync.trigger_sync('c' || i, 'user') FROM generate_series(1, 5) i");
my $workers = "SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE backend_type = 'flohsync worker'";
is($f->sql($workers), $f->worker_pid, 'one worker is at work');
count_anew();
$f->up('release');
$f->wait_for($workers, is => '', timeout => 300);
reads_few('a worker that began before', $before);

$f->sql("INSERT INTO people VALUES ('e')");
count_anew();
$before = run_due(5);
reads_few('another one', $before);

my $read = rows_read_by("SELECT _flohsync.forget_history('30 days')");
cmp_ok($read->{$_}, '<', 100, "the end of a worker, nothing is old: few rows of $_ are read") for qw(sync_run sync_run_page);
$read = rows_read_by('SELECT flohsync.metrics()');
cmp_ok($read->{sync_run}, '<', 100, 'nor do metrics read the history');

# Old are those before the last 10 days; failures stay for 30: the oldest go first, and no failure in their way keeps them.
my $ended = $f->sql("SELECT count(*) FROM flohsync.sync_run WHERE status = 'success'");
cmp_ok($f->sql("SELECT count(*) FROM flohsync.sync_run WHERE status = 'success' AND finished_at < now() - interval '10 days'"), '>', 20_000, 'many are old');
$read = rows_read_by("SELECT _flohsync.forget_history('10 days')");
cmp_ok($read->{sync_run}, '<', 20_000, 'to forget a thousand reads few rows');
is($f->sql("SELECT count(*) FROM flohsync.sync_run WHERE status = 'success'"), $ended - 1000, 'a thousand are forgotten');
is($f->sql("SELECT count(*) FROM flohsync.sync_run WHERE status = 'error'"), $history / 10, 'and no failure');

# A worker goes on until all of it is forgotten.
$f->sql("ALTER SYSTEM SET flohsync.run_retention = '11d'");
$f->sql('SELECT pg_reload_conf()');
$f->wait_for('SHOW flohsync.run_retention', is => '11d');    # then a new process has it, too
$f->sql('SELECT _flohsync.wake()');
$f->comes_true("SELECT count(*) = 0 FROM flohsync.sync_run WHERE status = 'success' AND finished_at < now() - interval '11 days'", 'a worker forgets all of it, in steps', timeout => 300);

$f->no_crash;
done_testing();
