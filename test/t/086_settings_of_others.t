# Settings of the database or of the workers' role neither keep a worker from its
# work nor change what it means.
use strict;
use warnings;

use JSON::PP;
use People;
use Test::More;

People::start(upstream => 0, conf => "flohsync.launcher_naptime = 1s\nflohsync.log_runs = off\n");
my $version = $f->sql("select current_setting('server_version_num')::int / 10000");
my @settings = (
	# time
	[ statement_timeout => '1ms' ], [ lock_timeout => '1ms' ], [ idle_in_transaction_session_timeout => '1ms' ], [ idle_session_timeout => '1ms' ], [ deadlock_timeout => '1ms' ],
	($version >= 17 ? [ transaction_timeout => '1ms' ] : ()),
	# transactions
	[ default_transaction_read_only => 'on' ], [ default_transaction_isolation => 'serializable' ], [ default_transaction_deferrable => 'on' ], [ session_replication_role => 'replica' ],
	[ synchronous_commit => 'off' ], [ row_security => 'off' ],
	# what texts and names mean
	[ DateStyle => 'German, DMY' ], [ IntervalStyle => 'iso_8601' ], [ TimeZone => 'Asia/Kathmandu' ], [ standard_conforming_strings => 'off' ], [ backslash_quote => 'off' ],
	[ quote_all_identifiers => 'on' ], [ bytea_output => 'escape' ], [ extra_float_digits => '-15' ], [ array_nulls => 'off' ], [ transform_null_equals => 'on' ], [ xmloption => 'document' ],
	[ search_path => 'nowhere' ], [ default_tablespace => 'pg_default' ], [ client_min_messages => 'error' ], [ client_encoding => 'LATIN1' ], [ lc_messages => 'C' ],
	[ 'plpgsql.variable_conflict' => 'use_variable' ], [ 'plpgsql.extra_errors' => 'all' ], [ 'plpgsql.extra_warnings' => 'all' ], [ check_function_bodies => 'off' ],
	# memory and plans
	[ work_mem => '64kB' ], [ maintenance_work_mem => '1MB' ], [ temp_buffers => '800kB' ], [ plan_cache_mode => 'force_generic_plan' ], [ plan_cache_mode => 'force_custom_plan' ],
	[ enable_indexscan => 'off' ], [ enable_hashjoin => 'off' ], [ enable_nestloop => 'off' ], [ jit_above_cost => '0' ], [ force_parallel_mode => 'regress' ], [ cursor_tuple_fraction => '1' ],
	[ from_collapse_limit => '1' ], [ constraint_exclusion => 'on' ], [ default_statistics_target => '1' ], [ max_parallel_workers_per_gather => '0' ],
	# roles
	[ role => 'nobody_at_all' ]);
@settings = grep { $_->[0] ne 'force_parallel_mode' } @settings if $version >= 16;
$f->sql('create role nobody_at_all');

# What a pass with everything in it comes to
my $n = 0;
sub life
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	begin({ createUsers => JSON::PP::true, deactivateUsers => JSON::PP::true, staleRetention => '0s', overlap => '90s', safeguards => { maxStaleFraction => undef, maxDeactivateFraction => undef },
		attributeMappings => [ { sourcePath => 'attributes.start', targetField => 'startDate', writeMode => 'overwrite_always' } ] });
	$n++;
	person($_, "p$n.$_\@acme.com", start => '2026-03-02', text => "a\\b 'quoted' \x{e9}", none => undef) for 1 .. 12;
	my @said = one_pass();
	person(1, "p$n.1\@acme.com", start => '2026-04-05');
	gone(12);
	push @said, one_pass();
	push @said, $f->counts($c, 'user'), $f->sql("select count(*) || ' ' || count(deleted_at) from flohsync.floh_user where email like 'p$n.%'"),
		$f->sql("select string_agg(distinct p.start_date::text, ' ') from flohsync.user_profile p join flohsync.floh_user u on u.id = p.user_id where u.email like 'p$n.%'"),
		$f->sql("select count(*) from flohsync.resource_record r where r.connector_id = " . $f->connector_id($c) . " and r.sync_hash = flohsync.resource_hash(r.external_id, r.display_name, r.email, r.attributes)");
	my $error = $f->last_run($c, 'user')->{error};
	is(join('|', @said), 'success|success|11 0|12 1|2026-03-02 2026-04-05|11', $name) or diag($error // '');
	return;
}
life('as it is');
# They come with the connection, from the database or the role: both, in turn.
my $turn = 0;
for (@settings)
{
	my ($setting, $value) = @$_;
	for my $where ($setting eq 'role' || $turn++ % 2 ? 'role flohsync_worker' : 'database postgres')
	{
		$f->sql("alter $where set $setting = '$value'");
		# The session of the test has its own already.
		life("$where: $setting = $value");
		$f->sql("set default_transaction_read_only = off; set role none; alter $where reset all");
	}
}

# But a whole cluster that is set to be read only is left alone.
$f->configure($c, 'user', enabled => JSON::PP::true, cronSchedule => '* * * * * *');
$f->comes_true("select count(*) > 0 from flohsync.sync_run where trigger = 'schedule' and status = 'success'", 'a schedule runs', timeout => 60);
$f->sql("alter system set default_transaction_read_only = on; select pg_reload_conf()");
ok($f->node->wait_for_log(qr/flohsync does nothing in database "postgres": the cluster's default_transaction_read_only is on/), 'a cluster that is read only: the log says that nothing runs');
$f->wait_for("select count(*) = 0 from flohsync.workers where kind = 'flohsync worker'", timeout => 60);
my $runs = $f->sql('select count(*) from flohsync.sync_run');
# Asked to look once more, a worker looks, and leaves.
$f->sql("set default_transaction_read_only = off; update flohsync.connector_sync_config set next_run_at = now() - interval '1 minute'");
$f->sql('set default_transaction_read_only = off; select _flohsync.wake()');
sleep 2;
is($f->sql('select count(*) from flohsync.sync_run'), $runs, 'and nothing does');
is($f->sql('select remark from flohsync.jobs where enabled'), "the cluster's default_transaction_read_only is on", 'jobs.remark says so, too');
$f->sql("set default_transaction_read_only = off; alter system reset default_transaction_read_only; select pg_reload_conf(); select _flohsync.wake()");
$f->comes_true("select count(*) > $runs from flohsync.sync_run", 'until it is written to again', timeout => 60);

$f->no_crash;
done_testing();
