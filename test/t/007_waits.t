# While the upstream hangs, everything that wants the worker or the caller to stop is answered at once.
use strict;
use warnings;

use Flohsync;
use Test::More;
use Time::HiRes qw(time sleep);

my $f = Flohsync->new(conf => "flohsync.page_size = 20\nflohsync.http_timeout = 600s\nflohsync.http_connect_timeout = 600s\n");
my $SOON = 8;    # seconds; about one is what is expected, and what hangs does so for minutes
my $nr = 0;
my $c;

sub begin
{
	$c = 'c' . ++$nr;
	$f->up('heal');
	$f->up('release');
	$f->fresh(user => 100);
	$f->connector($c);
	return;
}
sub hang
{
	my (@fault) = @_;
	$f->fault(@fault ? @fault : 'hang', page => 2, times => -1);
	my $run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
	$f->await(hanging => 1);
	stored($run, 1);
	return $run;
}
sub stored { my ($run, $page) = @_; return $f->wait_for("SELECT EXISTS (SELECT FROM flohsync.sync_run_page WHERE run_id = $run AND page = $page)") }
sub soon
{
	my ($begun, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return cmp_ok(time - $begun, '<', $SOON, $name);
}

# cancel_sync, while the answer or the rest of it is waited for, and while a retry is
for (['hang'], [ 'hang_body', bytes => 200 ], [ 'drip', rate => 1 ], [ 'status', code => 503, retry_after => 60 ])
{
	begin();
	$f->sql("ALTER SYSTEM SET flohsync.http_max_retry_wait = '600s'; SELECT pg_reload_conf()") if $_->[0] eq 'status';
	$f->fault(@$_, page => 2, times => -1);
	my $run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
	$f->await(fired => 1);
	stored($run, 1);
	my $begun = time;
	my $cancelled = $f->sql("SELECT flohsync.cancel_sync($run)");
	$f->wait_run($run, timeout => 10);
	soon($begun, "cancel_sync during $_->[0]: at once");
	is($cancelled . ' ' . $f->run_row($run)->{status}, 't cancelled', 'the run is cancelled');
	is($f->sql("SELECT flohsync.cancel_sync($run)"), 'f', 'a second time there is nothing to cancel');
	is($f->counts($c, 'user'), '20 0', 'the page before it is stored');
	is($f->status($c, 'user')->{running}, undef, 'nothing is running');
}
# Whatever it is doing: the moment is another one each time.
my @late;
for my $i (1 .. 10)
{
	begin();
	$f->fault('hang', page => 2, times => -1);
	my $run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
	sleep(0.004 * $i);
	my $begun = time;
	$f->sql("SELECT flohsync.cancel_sync($run)");
	push @late, $i unless $f->wait_run($run, timeout => 2) && $f->run_row($run)->{status} eq 'cancelled';
}
is("@late", '', 'cancel_sync at any moment: at once');
$f->sql('ALTER SYSTEM RESET flohsync.http_max_retry_wait; SELECT pg_reload_conf()');
begin();
my $none = $f->try_sql('SELECT flohsync.cancel_sync(999999)');
ok($none->{out} eq 'f' || $none->{state} eq '42704', 'a run that is not there cannot be cancelled');

# Connecting hangs: nobody accepts, and the queue of the socket is full
SKIP:
{
	use IO::Socket::INET;
	my $deaf = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => 0) or skip 'no socket', 2;
	my @fill = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $deaf->sockport, Timeout => 0.05) } 1 .. 3;
	$f->connector('deaf', url => 'http://127.0.0.1:' . $deaf->sockport . '/');
	my $run = $f->sql("SELECT flohsync.trigger_sync('deaf', 'user')");
	$f->wait_for("SELECT status = 'running' FROM flohsync.sync_run WHERE id = $run");
	my $begun = time;
	$f->sql("SELECT flohsync.cancel_sync($run)");
	$f->wait_run($run, timeout => 10);
	soon($begun, 'cancel_sync while connecting: at once');
	is($f->run_row($run)->{status}, 'cancelled', 'the run is cancelled');
}

# pg_cancel_backend of the worker
begin();
my $run = hang();
$f->wait_for("SELECT count(*) = 1 FROM flohsync.workers WHERE kind LIKE '%worker%'");
my $pid = $f->worker_pid;
my $begun = time;
is($f->sql("SELECT pg_cancel_backend($pid)"), 't', 'pg_cancel_backend of the worker');
ok($f->wait_run($run, timeout => 10), 'ends the run');
soon($begun, 'at once');
like($f->run_row($run)->{status}, qr/^(cancelled|error)$/, 'which says so') or diag(json_text($f->run_row($run)));
$f->up('heal');
$f->up('release');
$f->sync_ok($c, 'user', 'the next run');

# SIGTERM
begin();
$run = hang();
$pid = $f->worker_pid;
$begun = time;
$f->sql("SELECT pg_terminate_backend($pid)");
ok($f->wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid", timeout => 10), 'a worker that is terminated goes');
soon($begun, 'at once');
$f->up('heal');
$f->up('release');
ok($f->wait_run($run), 'and the run goes on in another');
is($f->run_row($run)->{status}, 'success', 'to its end');

# A worker is terminated while another one is about to leave
begin();
$f->wait_for("SELECT count(*) = 0 FROM flohsync.workers WHERE kind LIKE '%worker%'");
$run = hang();
$pid = $f->worker_pid;
# Under this lock a worker can look for work, but not purge the history.
my $holder = $f->start_sql("BEGIN; LOCK TABLE flohsync.sync_run IN SHARE MODE; SELECT pg_sleep(60)");
$f->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
$f->sql('SELECT _flohsync.wake()');
ok($f->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type LIKE 'flohsync worker%' AND wait_event_type = 'Lock'"), 'a second worker has found nothing to do and is about to leave');
$f->sql("SELECT pg_terminate_backend($pid)");
$f->wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid");
$f->up('heal');
$f->up('release');
$f->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
$f->finish($holder);
ok($f->wait_run($run, timeout => 10), 'the run of the first one goes on all the same');
is($f->run_row($run)->{status}, 'success', 'to its end');

# A client session that reaches out by itself
begin();
$f->fault('hang', times => -1);
$begun = time;
my $r = $f->try_sql("SET statement_timeout = '300ms'; SELECT flohsync.test_connector('$c')");
soon($begun, 'test_connector: statement_timeout is obeyed');
is($r->{state}, '57014', 'as a cancellation') or diag($r->{text} . $r->{out});
my $h = $f->start_sql("SELECT flohsync.test_connector('$c')");
$f->await(hanging => 1);
$begun = time;
$f->sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT flohsync.test_connector%' AND pid <> pg_backend_pid()");
$r = $f->finish($h);
is($r->{state}, '57014', 'test_connector can be cancelled');
soon($begun, 'at once');
is($f->sql("SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"), 0, 'nothing is left open');
$f->up('heal');
$f->up('release');

# A CALL that is cancelled leaves the run alone.
begin();
$f->fault('hang', page => 2);
$h = $f->start_sql("CALL flohsync.sync('$c', 'user')");
$f->await(hanging => 1);
$begun = time;
$f->sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL flohsync.sync%' AND pid <> pg_backend_pid()");
$r = $f->finish($h);
is($r->{state}, '57014', 'a CALL of sync can be cancelled');
soon($begun, 'at once');
is($f->status($c, 'user')->{lastSyncStatus}, 'running', 'the run goes on');
$run = $f->status($c, 'user')->{running}{runId};
$f->up('release');
ok($f->wait_run($run), 'and ends');
is($f->run_row($run)->{status}, 'success', 'well');

# Nothing is held while an upstream is waited for.
begin();
$run = hang();
# The launcher, or a worker that finds nothing to do, may be in a short transaction of its own.
$f->comes_true("SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'flohsync run $run'", 'the worker says what it is doing');
$f->comes_true("SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'flohsync run $run' AND (backend_xmin IS NOT NULL OR xact_start IS NOT NULL)", 'no transaction, no snapshot');
is($f->sql("SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.application_name = 'flohsync run $run' AND l.locktype NOT IN ('advisory', 'virtualxid')"), 0, 'no lock but the one that means "this run is mine"');
my $lock = $f->try_sql("BEGIN; SET LOCAL lock_timeout = '1s'; LOCK TABLE flohsync.resource_record, flohsync.sync_run, flohsync.connector_sync_config IN ACCESS EXCLUSIVE MODE; COMMIT");
ok($lock->{ok}, 'the tables can be locked') or diag($lock->{text});

# DROP DATABASE of another one is not kept waiting by a worker at work in this one
$f->sql('CREATE DATABASE unrelated');
$begun = time;
ok($f->try_sql('DROP DATABASE unrelated')->{ok}, 'an unrelated database can be dropped');
soon($begun, 'at once');

# Two configurations hang, a third one runs
my $first = $c;
$f->connector('hanging2');
$f->up('records', group => 5);
$f->configure($first, 'group');
$begun = time;
$f->sync_ok($first, 'group', 'another configuration runs meanwhile');
soon($begun, 'at once');

#
# Triggering
#
is($f->sql("SELECT flohsync.trigger_sync('$first', 'user')"), $run, 'trigger_sync while it runs gives the same run');
is($f->sql("SELECT flohsync.trigger_sync('$first', 'user', 'full')"), $run, 'also with a strategy');
my @calls = map { $f->start_sql("CALL flohsync.sync('$first', 'user')") } 1, 2;
my @triggers = map { $f->start_sql("SELECT flohsync.trigger_sync('$first', 'user')") } 1 .. 3;
is(join(' ', map { $f->finish($_)->{out} } @triggers), "$run $run $run", 'from other sessions as well');
$f->up('heal');
$f->up('release');
my @results = map { $f->finish($_) } @calls;
is(join(' ', map { $_->{ok} ? decode_json_text($_->{out})->{totalUpstreamRecords} : $_->{text} } @results), '100 100', 'whoever waits for it gets its statistics');
is($f->sql("SELECT count(*) FROM flohsync.sync_run r JOIN flohsync.connector_definition d ON d.id = r.connector_id WHERE d.name = '$first' AND resource_type = 'user'"), 1, 'there was one run');

# Many sessions at once
begin();
$f->fault('hang', page => 1, ms => 300);
@triggers = map { $f->start_sql("SELECT flohsync.trigger_sync('$c', 'user')") } 1 .. 6;
my %ids = map { $_->{ok} ? ($_->{out} => 1) : ($_->{text} => 1) } map { $f->finish($_) } @triggers;
is(scalar keys %ids, 1, 'six sessions trigger at once: one run') or diag(join ' ', keys %ids);
$f->wait_run((keys %ids)[0]);

# Transactions
begin();
$f->clear_log;
my $last = $f->sql("SELECT max(id) FROM flohsync.sync_run");
$r = $f->try_sql("BEGIN; SELECT flohsync.trigger_sync('$c', 'user'); ROLLBACK");
ok($r->{out} > $last, 'trigger_sync in a transaction returns an id');
is($f->sql("SELECT count(*) FROM flohsync.sync_run r JOIN flohsync.connector_definition d ON d.id = r.connector_id WHERE d.name = '$c'"), 0, 'rolled back: there is no run');
$r = $f->try_sql("BEGIN; SELECT flohsync.trigger_sync('$c', 'user'); SELECT flohsync.trigger_sync('$c', 'user'); SAVEPOINT a; SELECT flohsync.trigger_sync('$c', 'user'); ROLLBACK TO a; COMMIT");
my @same = split /\n/, $r->{out};
ok(@same == 3 && $same[0] == $same[1] && $same[1] == $same[2], 'twice in a transaction: the same run') or diag($r->{out} . $r->{text});
ok($f->wait_run($same[0]), 'committed: it runs');
is($f->run_row($same[0])->{status}, 'success', 'well');
is(scalar(() = $f->requests(type => 'user')), 5, 'once');
$r = $f->try_sql("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT flohsync.trigger_sync('$c', 'user'); COMMIT");
ok($r->{ok}, 'trigger_sync in a serializable transaction') or diag($r->{text});
$f->wait_run($r->{out});
$r = $f->try_sql("SET default_transaction_isolation = 'serializable'; CALL flohsync.sync('$c', 'user')");
ok($r->{ok}, 'CALL sync with another default isolation') or diag($r->{text});

#
# DROP EXTENSION, DROP DATABASE and a stop while a run hangs
#
begin();
$run = hang();
$begun = time;
ok($f->try_sql('DROP EXTENSION flohsync CASCADE')->{ok}, 'DROP EXTENSION while a run hangs');
soon($begun, 'at once');
$f->up('heal');
$f->up('release');
ok($f->wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'flohsync worker%'", timeout => 10), 'the worker goes');
ok($f->try_sql('CREATE EXTENSION flohsync')->{ok}, 'the extension can be created again');
begin();
$f->sync_ok($c, 'user', 'and works');

$f->sql('CREATE DATABASE doomed');
$f->sql('CREATE EXTENSION flohsync', 'doomed');
$f->sql("SELECT flohsync.create_connector('d', 'command', " . literal(json_text({ url => $f->url, commands => ['listUsers'] })) . "); SELECT flohsync.configure_sync('d', 'user', '{}')", 'doomed');
$f->fault('hang', page => 1, times => -1);
$f->sql("SELECT flohsync.trigger_sync('d', 'user')", 'doomed');
$f->await(hanging => 1);
$f->disconnect('doomed');
$begun = time;
$r = $f->try_sql('DROP DATABASE doomed');
ok($r->{ok}, 'DROP DATABASE of the one where a run hangs') or diag($r->{text});
soon($begun, 'at once');
$f->up('heal');
$f->up('release');
$f->sync_ok($c, 'user', 'the other database goes on');

begin();
$run = hang();
$begun = time;
$f->node->stop('fast');
soon($begun, 'pg_ctl stop -m fast while a run hangs');
$f->up('heal');
$f->up('release');
$f->node->start;
ok($f->wait_run($run), 'the run goes on after the start');
is($f->run_row($run)->{status}, 'success', 'well');

$f->invariants;
$f->no_crash;
done_testing();
