# LockOrder.pm: a run's worker waits for a row that a session holds, at one of its
# stages, and meanwhile another session makes each of the public calls.  Then the
# first session commits: nothing is a deadlock, all come to an end, and what they
# leave is right.  The order of locks is in sql/40_run.sql.
#
#	Each call is made at every other stage, and at each stage every other call;
#	LOCK_ORDER_ALL makes all at all: test/run lock-order.  LOCK_ORDER_STAGES and
#	LOCK_ORDER_CALLS, names with commas, make those only; LOCK_ORDER_TIMES says how
#	long each takes.
package LockOrder;
use strict;
use warnings;

use Flohsync;
use People;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

my $GATE = 29029;
my $workflow;

sub scope { return 'connector_id = ' . $f->connector_id($c) . " and resource_type = 'user'" }
sub record { return "select from flohsync.resource_record where external_id = '$_[0]' and " . scope() }
sub match_id { return "(select id from flohsync.connector_sync_match where external_id = '$_[0]' and " . scope() . ')' }

# A directory that has been synced and has changed since: of four people one has
# changed, one left, one came and one, who left before, is to be purged.
sub directory
{
	begin({ createUsers => \1, deactivateUsers => \1, staleRetention => '0s', safeguards => { maxStaleFraction => undef, maxDeactivateFraction => undef },
		attributeMappings => [ { sourcePath => 'attributes.title', targetField => 'title', writeMode => 'overwrite_always' } ],
		postSyncWorkflowId => $workflow, syncTriggerMode => 'summary' });
	person($_, "$_\@$c.example", title => 'Engineer') for qw(stays changes leaves);
	$f->sync_ok($c, 'user', "$c: to begin with");
	$f->sql("select flohsync.upsert_resource('$c', 'user', '{\"externalId\": \"$_\", \"email\": \"$_\@$c.example\"}') from generate_series(1, 1)") for qw(waits old);
	$f->sql("update flohsync.resource_record set stale_since = now() - interval '1 day' where external_id = 'old' and " . scope());
	$f->sql("select flohsync.match_users('$c', 'user')");
	person('changes', "changes2\@$c.example", title => 'Manager');
	person('comes', "comes\@$c.example", title => 'Trainee');
	person('waits', undef);
	gone('leaves');
	return;
}

# Where the worker is made to wait: rows that it needs.
my %stages = (
	start => sub { 'select from flohsync.connector_sync_config where ' . scope() . ' for no key update' },
	page => sub { record('changes') . ' for no key update' },
	settle => sub { record('leaves') . ' for no key update' },
	match => sub { 'select from flohsync.connector_sync_match where id = ' . match_id('changes') . ' for update' },
	create => sub { "insert into flohsync.floh_user (iss, sub, email, display_name) values ('-', 'comes\@$c.example', 'comes\@$c.example', 'Comes')" },
	deactivate => sub { "select from flohsync.floh_user where email = 'leaves\@$c.example' for no key update" },
	map => sub { "select from flohsync.user_profile where user_id = (select id from flohsync.floh_user where email = 'changes\@$c.example') for no key update" },
	purge => sub { 'select from flohsync.connector_sync_match where id = ' . match_id('old') . ' for update' },
	finish => sub { "select from flohsync.workflow_definition where id = '$workflow' for update" },
);

# The calls: SQL, and what they may answer: SQLSTATEs beside success.
my $held;    # a held run of the configuration
my $run;
my %calls = (
	trigger_sync => [ sub { "flohsync.trigger_sync('$c', 'user')" } ],
	trigger_and_configure => [ sub { "flohsync.trigger_sync('$c', 'user'), flohsync.configure_sync('$c', 'user', '{\"overlap\": \"6m\"}')" } ],
	configure_and_trigger => [ sub { "flohsync.configure_sync('$c', 'user', '{\"overlap\": \"7m\"}'), flohsync.trigger_sync('$c', 'user'), flohsync.match_users('$c', 'user')" } ],
	configure_sync => [ sub { "flohsync.configure_sync('$c', 'user', '{\"attributeMappings\": null}')" } ],
	configure_other => [ sub { "flohsync.configure_sync('$c', 'role', '{}')" } ],
	cancel_sync => [ sub { "flohsync.cancel_sync($run)" } ],
	approve_run => [ sub { "flohsync.approve_run($held)" }, '55006', '55000' ],
	reject_run => [ sub { "flohsync.reject_run($held)" }, '55006', '55000' ],
	delete_sync_config => [ sub { "flohsync.delete_sync_config('$c', 'user')" } ],
	drop_connector => [ sub { "flohsync.drop_connector('$c')" } ],
	update_connector => [ sub { "flohsync.update_connector('$c', '{\"description\": \"new\"}')" } ],
	rename_connector => [ sub { "flohsync.update_connector('$c', '{\"name\": \"$c renamed\"}')" } ],
	set_secret => [ sub { "flohsync.set_secret('$c', 'token', null)" } ],
	match_users => [ sub { "flohsync.match_users('$c', 'user')" } ],
	resolve_match => [ sub { "flohsync.resolve_match(" . match_id('changes') . ", 'skip')" } ],
	resolve_match_link => [ sub { "flohsync.resolve_match(" . match_id('leaves') . ", 'link', (select id from flohsync.floh_user where email = 'stays\@$c.example'))" }, '42704' ],
	resolve_match_create => [ sub { "flohsync.resolve_match(" . match_id('waits') . ", 'create')" }, '22023' ],
	unlink_match => [ sub { "flohsync.unlink_match(" . match_id('leaves') . ')' }, '42704' ],
	bulk_resolve_matches => [ sub { "flohsync.bulk_resolve_matches('$c', array(select id from flohsync.connector_sync_match where " . scope() . "), 'skip')" } ],
	mark_stale => [ sub { "flohsync.mark_stale('$c', 'user', 'infinity')" } ],
	purge_stale => [ sub { "flohsync.purge_stale('$c', 'user', '0')" } ],
	upsert_resource => [ sub { "flohsync.upsert_resource('$c', 'user', '{\"externalId\": \"changes\", \"email\": \"changes3\@$c.example\"}')" } ],
	upsert_resources => [ sub { "flohsync.upsert_resources('$c', 'user', jsonb_build_array(" . join(', ', map { "jsonb_build_object('externalId', '$_', 'email', '$_\@$c.example')" } qw(zzz stays old new leaves comes changes)) . '))' } ],
	webhook_updated => [ sub { "flohsync.handle_webhook('$c', '{\"action\": \"updated\", \"resourceId\": \"changes\", \"resourceType\": \"user\", \"data\": {\"displayName\": \"Told\"}}')" } ],
	webhook_back => [ sub { "flohsync.handle_webhook('$c', '{\"action\": \"updated\", \"resourceId\": \"leaves\", \"resourceType\": \"user\", \"data\": {\"displayName\": \"Is back\", \"email\": \"leaves\@$c.example\"}}')" } ],
	webhook_deleted => [ sub { "flohsync.handle_webhook('$c', '{\"action\": \"deleted\", \"resourceId\": \"leaves\", \"resourceType\": \"user\"}')" } ],
	cache_clear => [ sub { "flohsync.cache_clear('$c')" } ],
	claim_workflow_jobs => [ sub { 'count(*) from flohsync.claim_workflow_jobs(10)' } ],
	enqueue_due => [ sub { '_flohsync.enqueue_due()' } ],
	forget_history => [ sub { "_flohsync.forget_history('0')" } ],
);
# What changes what the upstream has, or what is to be done about it; then only the end of it all is looked at.
my %differs = map { $_ => 1 } qw(delete_sync_config drop_connector rename_connector);

sub chosen { my ($variable, @all) = @_; my %wanted = map { $_ => 1 } split /,/, $ENV{$variable} // ''; return %wanted ? grep { $wanted{$_} } @all : @all }

sub worker_waits
{
	return $f->wait_for("select exists (select from pg_stat_activity where backend_type = 'flohsync worker' and wait_event_type = 'Lock')");
}

# Until a call is done, or waits for somebody.
sub done_or_waiting
{
	my ($call) = @_;
	my $until = time + 30;
	while (time < $until)
	{
		$call->{run}->pump_nb if $call->{run}->pumpable;
		return 1 unless $call->{run}->pumpable;
		return 1 if $f->sql("select exists (select from pg_stat_activity where query like '/* the call%' and wait_event_type = 'Lock' and cardinality(pg_blocking_pids(pid)) > 0)") eq 't';
		sleep 0.01;
	}
	return 0;
}

sub deadlocks { my ($from) = @_; return () = slurp_file($f->node->logfile, $from) =~ /deadlock detected/g }

# The stages of one file.
sub run
{
	my (@stages) = @_;
	People::start(conf => "deadlock_timeout = 200ms\nlog_lock_waits = on\nautovacuum = off\n", upstream => 0);
	$workflow = $f->sql("insert into flohsync.workflow_definition (name) values ('orders') returning id");
	my $all = grep { $ENV{"LOCK_ORDER_$_"} } qw(ALL STAGES CALLS);
	my $turn = 0;
	for my $stage (chosen('LOCK_ORDER_STAGES', @stages))
	{
		my @calls = chosen('LOCK_ORDER_CALLS', sort keys %calls);
		one($stage, $calls[$_]) for grep { $all || ($_ + $turn) % 2 == 0 } 0 .. $#calls;
		$turn++;
	}
	$f->invariants;
	is(scalar(deadlocks(0)), 0, 'there was no deadlock at all');
	$f->no_crash;
	done_testing();
	return;
}

# A stage and a call.
sub one
{
	my ($stage, $name) = @_;
	my ($sql, @states) = @{ $calls{$name} };
	my $what = "$stage, $name";
	my $from = -s $f->node->logfile;
	my @problems;
	my $t0 = time;

	directory();
	# A run that is held: the next one decides, unless somebody does before.
	$f->sql("insert into flohsync.sync_run (connector_id, resource_type, strategy, trigger, status, pass_id, pass_started_at, complete, stats)
		select connector_id, resource_type, 'full', 'manual', 'held', null, now(), false, '{}' from flohsync.connector_sync_config where " . scope());
	$held = $f->sql('select max(id) from flohsync.sync_run');
	$f->sql("select pg_advisory_lock($GATE)");
	my $holder = $f->start_sql('begin; ' . $stages{$stage}->() . "; select pg_advisory_xact_lock($GATE); commit");
	$f->wait_for("select exists (select from pg_locks where locktype = 'advisory' and objid = $GATE and not granted)") or push @problems, 'nobody holds the row';
	$run = $f->sql("select flohsync.trigger_sync('$c', 'user')");
	worker_waits() or push @problems, 'the worker does not wait';
	my $call = $f->start_sql("/* the call */ begin; select " . $sql->() . '; commit');
	done_or_waiting($call) or push @problems, 'the call neither ends nor waits';
	$f->sql("select pg_advisory_unlock($GATE)");
	$f->finish($holder);
	my $answer = $f->finish($call, 60);
	push @problems, "the call: $answer->{text}" unless $answer->{ok} || grep { $_ eq $answer->{state} } @states;
	$f->wait_for("select count(*) = 0 from flohsync.sync_run where status in ('queued', 'running')", timeout => 60) or push @problems, 'a run does not end';
	my $ended = $f->run_row($run);
	# Who has it stopped is told whether it was.
	my $wanted = $name eq 'cancel_sync' && $answer->{out} eq 't' ? 'cancelled' : 'success';
	push @problems, "the run: $ended->{status}, " . ($ended->{error} // '') if $ended && $ended->{status} ne $wanted && !$differs{$name};
	push @problems, 'the run: ' . json_text($ended->{post_sync}) if $ended && ($ended->{post_sync} // {})->{errors};
	push @problems, 'a deadlock' if deadlocks($from);
	unless ($differs{$name})
	{
		# All is as the directory has it after one more pass.
		$f->sync($c, 'user');
		my $last = $f->last_run($c, 'user');
		push @problems, "the next run: $last->{status}" if $last->{status} ne 'success';
		push @problems, 'the next run: ' . json_text($last->{post_sync}) if ($last->{post_sync} // {})->{errors};
		my $there = $f->sql("select string_agg(external_id, ' ' order by external_id) from flohsync.resource_record where stale_since is null and " . scope());
		push @problems, "the records are $there" if $there ne 'changes comes stays waits';
	}
	diag(sprintf "%s %.2f", $what, time - $t0) if $ENV{LOCK_ORDER_TIMES};
	ok(!@problems, $what) or diag(join "\n", @problems);
	$f->sql("select flohsync.drop_connector('$c')") if $name !~ /drop|rename/;
	return;
}

1;
