# What whoever decides about a held run is shown, what they may spare, and what a
# caller is told when a run is asked for that cannot be had at once.
use strict;
use warnings;

use Flohsync;
use JSON::PP;
use Test::More;

my $f = Flohsync->new(conf => "flohsync.page_size = 50\n");
my $nr = 0;
my $c;

sub begin
{
	my ($records, %settings) = @_;
	$c = 'h' . ++$nr;
	$f->fresh(user => $records);
	$f->connector($c, %settings);
	$f->sync_ok($c, 'user', "$c: to begin with");
	return;
}
sub drop_records { $f->up('delete', type => 'user', from => 1, to => $_[0]); return }
sub held
{
	$f->sync($c, 'user');
	my $run = $f->last_run($c, 'user');
	is($run->{status}, 'held', "$c: held");
	return $run->{id};
}
sub changes { my ($id, $more) = @_; return $f->json("select flohsync.held_changes($id" . ($more // '') . ')') }

#
# held_changes
#
begin(100);
drop_records(30);
my $id = held();
my $page = changes($id);
is("$page->{total} $page->{page} $page->{pageSize} $page->{totalPages}", '30 1 50 1', 'thirty of them, on one page');
is_deeply($page->{data}[0], { externalId => 'user-0000001', displayName => $f->sql('select display_name ' . $f->scope($c, 'user') . " and external_id = 'user-0000001'"),
	email => $f->sql('select email ' . $f->scope($c, 'user') . " and external_id = 'user-0000001'"), op => 'staled', userId => undef, userEmail => undef }, 'an item');
my $second = changes($id, ', 2, 20');
is(join(' ', map { $_->{externalId} } @{ $second->{data} }), join(' ', map { sprintf 'user-%07d', $_ } 21 .. 30), 'the second page of twenty');
is($second->{totalPages}, 2, 'of two');
is_deeply(changes($id, ', 9')->{data}, [], 'beyond the end: none');
for (', 0', ', 1, 0', ', 1, 2001', ', null')
{
	is($f->try_sql("select flohsync.held_changes($id$_)")->{state}, '22023', "a page that is none ($_)");
}
is($f->try_sql('select flohsync.held_changes(999999)')->{state}, '42704', 'a run that is not there');
is($f->try_sql("select flohsync.held_changes($id - 1)")->{state}, '55000', 'a run that is not held');
$f->sql('create role looks; create role other');
$f->sql("select flohsync.grant_reader('looks')");
is($f->sql("begin; set local role looks; select flohsync.held_changes($id) ->> 'total'; commit"), '30', 'a reader may look');
is($f->try_sql("begin; set local role other; select flohsync.held_changes($id)")->{state}, '42501', 'nobody else');
my $plan = $f->status($c, 'user');
is(($plan->{heldRun} // {})->{runId}, $id, 'sync_status names the held run');
like($f->sql("select remark from flohsync.jobs where connector = '$c'"), qr/run $id is held/, 'so does the view of jobs');

#
# approve_run, but for some
#
my $mistyped = $f->try_sql("select flohsync.approve_run($id, 'all but two', array['user-0000003', 'user-000000O'])");
like("$mistyped->{state} $mistyped->{text}", qr/^22023 .*there is no record "user-000000O"/, 'an id that no record has is refused');
$f->json("select flohsync.approve_run($id, 'all but two', array['user-0000003', 'user-0000004'])");
is($f->counts($c, 'user'), '72 28', 'approved but for two');
is($f->sql('select count(*) ' . $f->scope($c, 'user') . " and external_id in ('user-0000003', 'user-0000004') and stale_since is null"), 2, 'those two are active');
like($f->run_row($id)->{notes}, qr/all but two; it was held: /, 'what it was held for stays in the notes');
is($f->run_row($id)->{error}, undef, 'a run that succeeded has no error');
is($f->status($c, 'user')->{heldRun}, undef, 'no run is held any more');
is($f->sql("select (totals ->> 'held') || ' ' || (totals ->> 'success') from flohsync.connector_sync_config where connector_id = " . $f->connector_id($c)), '1 2', 'the counters never fall');

#
# Whoever a later run has seen is spared, complete or not.
#
begin(100);
drop_records(30);
$id = held();
$f->up('restore', type => 'user', ids => 'user-0000002');
$f->configure($c, 'user', filterRules => { maxRecords => 10 });
$f->sync($c, 'user');
is($f->last_run($c, 'user')->{complete} ? 'complete' : 'incomplete', 'incomplete', 'a later pass that was cut off');
is($f->run_row($id)->{status}, 'held', 'does not supersede');
is($f->try_sql("select flohsync.approve_run($id)")->{state}, '55000', 'under other filters it is not approved');
is($f->counts($c, 'user'), '100 0', 'and nothing happens');
$f->configure($c, 'user', filterRules => undef);
is(changes($id)->{total}, 29, 'the record that was seen since is not among them');
$f->json("select flohsync.approve_run($id)");
is($f->counts($c, 'user'), '71 29', 'nor does it go stale');

# A connector that points elsewhere
begin(40);
drop_records(20);
$id = held();
$f->sql("select flohsync.update_connector('$c', jsonb_build_object('config', jsonb_build_object('url', '" . $f->closed_url . "')))");
my $refused = $f->try_sql("select flohsync.approve_run($id)");
is($refused->{state}, '55000', 'a connector that points elsewhere: refused');
like($refused->{text}, qr/the configuration has changed since run $id was held/, 'with the reason');
is($f->try_sql("select flohsync.reject_run($id, 'moved')")->{ok} ? 1 : 0, 1, 'it can be rejected');

# An empty list is held whatever the limits are.
begin(3, safeguards => { maxStaleFraction => undef, minRecords => undef });
$f->fault('empty_list', page => 1);
$id = held();
is($f->counts($c, 'user'), '3 0', 'an empty list: nothing is stale');
$f->json("select flohsync.approve_run($id)");
is($f->counts($c, 'user'), '0 3', 'until somebody says so');

#
# trigger_sync
#
begin(100);
$f->fault('hang', page => 2);
my $going = $f->sql("select flohsync.trigger_sync('$c', 'user')");
$f->await(hanging => 1);
is($f->sql("select flohsync.trigger_sync('$c', 'user')"), $going, 'the run that goes on is returned');
like($f->sql("select stage from flohsync.sync_progress where run_id = $going"), qr/^fetching$/, 'the progress says what it is at');
$f->up('release');
$f->wait_run($going);
is($f->sql("select count(*) from flohsync.sync_progress where run_id = $going"), 0, 'a run that has ended makes no progress');

# restart: a new pass, not the rest of one that failed
begin(100, strategy => 'full');
$f->fault('status', code => 403, page => 2);
$f->sync($c, 'user');
my $failed = $f->last_run($c, 'user');
is($failed->{status}, 'error', 'a pass fails at its second page');
$f->clear_log;
my $anew = $f->sql("select flohsync.trigger_sync('$c', 'user', restart => true)");
$f->wait_run($anew);
is($f->run_row($anew)->{status}, 'success', 'a new one succeeds');
isnt($f->run_row($anew)->{pass_id}, $failed->{pass_id}, 'it is a new pass');
is($f->pages_asked('user'), '1 2', 'from the first page');
is($f->try_sql("select flohsync.trigger_sync('$c', 'user', restart => null)")->{state}, '22023', 'restart null is refused');

#
# A run that no worker takes
#
begin(5);
$f->sql('alter system set flohsync.enabled = off; select pg_reload_conf()');
$f->wait_for("select current_setting('flohsync.enabled') = 'off'");
my $off = $f->try_sql("call flohsync.sync('$c', 'user')");
is($off->{state}, '55000', 'flohsync is switched off: the call does not wait for ever');
like($off->{text}, qr/flohsync\.enabled/, 'and says why');
my $waiting = $f->sql("select id from flohsync.sync_run where status = 'queued' and connector_id = " . $f->connector_id($c));
SKIP:
{
	skip 'the call took its run back', 2 if $waiting eq '';
	is($f->sql("select flohsync.trigger_sync('$c', 'user', 'full')"), $waiting, 'the queued run is returned');
	is($f->run_row($waiting)->{strategy}, 'full', 'and is a full one from now on');
}
$f->sql('alter system reset flohsync.enabled; select pg_reload_conf()');
$f->sync_ok($c, 'user', 'switched on again');
# A database without schedules
$f->sql("alter system set flohsync.databases = 'other'; select pg_reload_conf()");
$f->wait_for("select current_setting('flohsync.databases') = 'other'");
$f->configure($c, 'user', enabled => JSON::PP::true, cronSchedule => '0 0 1 1 *');
like($f->sql("select remark from flohsync.jobs where connector = '$c'"), qr/not in flohsync\.databases/, 'a database that is not in flohsync.databases: the view of jobs says so');
$f->sync_ok($c, 'user', 'runs by hand go on');
$f->sql('alter system reset flohsync.databases; select pg_reload_conf()');
like(PostgreSQL::Test::Utils::slurp_file($f->node->logfile), qr/LOG:  flohsync \S+ launcher started: schedules run in the databases "\*"/, 'the log says at start that the launcher is there');

# What keeps workers from coming is said where one looks.
$f->configure($c, 'user', enabled => JSON::PP::true, cronSchedule => '0 0 1 1 *');
for ([ 'alter role flohsync_worker nologin', 'alter role flohsync_worker login', 'the role of flohsync.worker_role may not log in' ],
	[ 'alter role flohsync_worker rename to renamed_worker', 'alter role renamed_worker rename to flohsync_worker', 'the role of flohsync.worker_role does not exist' ],
	[ 'alter role flohsync_worker superuser', 'alter role flohsync_worker nosuperuser', 'the role of flohsync.worker_role is a superuser' ],
	[ 'revoke connect on database postgres from public, flohsync_worker', 'grant connect on database postgres to public', 'the role of flohsync.worker_role may not connect to this database' ])
{
	my ($hinder, $undo, $says) = @$_;
	my $call;
	for (1 .. 10)
	{
		# One that is there already, or about to be, takes the run.
		$f->wait_for("select count(*) = 0 from flohsync.workers where kind = 'flohsync worker'", timeout => 60);
		$f->sql($hinder);
		$call = $f->try_sql("call flohsync.sync('$c', 'user')");
		last if !$call->{ok};
		$f->sql($undo);
	}
	like("$call->{state} $call->{text}", qr/^55000 .*no worker takes run \d+: \Q$says\E/, "$hinder: the call says why");
	is($f->sql("select remark from flohsync.jobs where connector = '$c'"), $says, 'so does the view of jobs');
	is($f->sql('select flohsync.hindrance()'), $says, 'and hindrance()');
	$f->sql($undo);
	is($f->sql('select flohsync.hindrance()'), '', 'then nothing does');
	$f->sync_ok($c, 'user', 'and runs go on');
}
$f->configure($c, 'user', enabled => JSON::PP::false);
is($f->sql("call flohsync.sync('$c', 'user', null, 'full')") =~ /unchanged/ ? 1 : 0, 1, 'sync takes a strategy');
is($f->try_sql("call flohsync.sync('$c', 'user', null, 'sideways')")->{state}, '22023', 'and refuses what is none');

# The last complete pass, and why the last one was not complete
begin(100, filterRules => { maxRecords => 10 });
my $status = $f->status($c, 'user');
is($status->{lastCompletePassAt}, undef, 'no pass has been complete');
like($status->{incompleteReason}, qr/maxRecords|10/, 'with the reason');
like($f->sql("select remark from flohsync.jobs where connector = '$c'"), qr/not complete|ever been complete/, 'in the view of jobs too');
# What a full pass missed, an incremental one does not make up for.
$f->configure($c, 'user', strategy => 'incremental', filterRules => undef);
$f->sync_ok($c, 'user', 'an incremental pass');
is($f->last_run($c, 'user')->{complete}, 1, 'which is complete');
$status = $f->status($c, 'user');
is($status->{lastCompletePassAt}, undef, 'there has been no complete full pass');
like($status->{incompleteReason}, qr/maxRecords|10/, 'and the reason stays');
like($f->sql("select remark from flohsync.jobs where connector = '$c'"), qr/not complete|ever been complete/, 'in the view of jobs too');
$f->configure($c, 'user', strategy => 'full');
# When passes fail for long, that is as bad.
$f->sql("update flohsync.connector_sync_config set last_complete_at = now() - interval '90 days', last_sync_at = now(), incomplete_reason = 'upstream is down' where connector_id = " . $f->connector_id($c));
$f->sql("update flohsync.sync_run set status = 'error', error = 'x' where id = (select max(id) from flohsync.sync_run where connector_id = " . $f->connector_id($c) . ')');
like($f->sql("select remark from flohsync.jobs where connector = '$c'"), qr/no pass has been complete since .*upstream is down/, 'no complete pass for long, and the last one failed');
$f->configure($c, 'user', filterRules => undef);
$f->sync_ok($c, 'user', 'all of it');
$status = $f->status($c, 'user');
ok(defined $status->{lastCompletePassAt}, 'a complete pass has its time');
is($status->{incompleteReason}, undef, 'and no reason');

$f->invariants;
$f->no_crash;
done_testing();
