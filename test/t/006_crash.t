# Workers that are killed, servers that stop: the run goes on by itself, and nothing is lost.
use strict;
use warnings;

use Flohsync;
use Test::More;
use Time::HiRes qw(time sleep);

my $f = Flohsync->new(conf => "flohsync.page_size = 20\n");
my $node = $f->node;
my $nr = 0;
my $c;

# 200 records in ten pages; one of page 1 and one of page 9 gone since the last pass, others changed.
sub begin
{
	$c = 'c' . ++$nr;
	$f->up('heal');
	$f->up('release');
	$f->fresh(user => 200);
	$f->connector($c);
	$f->sync_ok($c, 'user', "$c: to begin with");
	$f->up('delete', type => 'user', ids => 'user-0000005,user-0000165');
	$f->up('change', type => 'user', ids => 'user-0000006,user-0000085,user-0000166', what => 'name');
	$f->clear_log;
	return;
}

# A run that hangs on a page
sub hang_on
{
	my $page = shift;
	my $run;
	$f->fault('hang', page => $page);
	$run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
	$f->await(hanging => 1);
	return $run;
}

sub goes_on
{
	my ($run, $name, $begun) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($f->wait_run($run, timeout => 30), "$name: the run goes on by itself");
	cmp_ok(time - $begun, '<', 12, "$name: within ten seconds of the server being up");
	my $row = $f->run_row($run);
	is($row->{status}, 'success', "$name: the same run, to its end") or diag($row->{error});
	is($f->sql("SELECT count(*) FROM flohsync.sync_run r JOIN flohsync.connector_definition d ON d.id = r.connector_id WHERE d.name = '$c'"), 2, "$name: there is no other run");
	is($f->sql("SELECT string_agg(external_id, ' ' ORDER BY external_id) " . $f->scope($c, 'user') . ' AND stale_since IS NOT NULL'), 'user-0000005 user-0000165', "$name: what was gone is stale, and nothing else");
	$f->matches_upstream($c, 'user', "$name: nothing is lost");
	is($row->{stats}{staled} . ' ' . ($row->{stats}{updated} // ''), '2 3', "$name: the statistics are those of the whole pass");
	return;
}

#
# SIGKILL
#
begin();
my $run = hang_on(5);
$f->wait_flushed($run, 4);
ok($f->crash($f->worker_pid), 'killed: the server is up again');
my $begun = time;
is($f->run_row($run)->{status} =~ /^(running|queued|success)$/ ? 'open' : 'ended', 'open', 'killed: the run is not given up');
goes_on($run, 'killed', $begun);
my @pages = map { $_->{page} } $f->requests(type => 'user');
is(join(' ', @pages), '1 2 3 4 5 5 6 7 8 9 10', 'killed: no page that is on disk is asked for again');

# While its successor is at work, there is one run at a time, and a trigger gives the same.
begin();
$run = hang_on(5);
$f->fault('hang', page => 5);
$f->wait_flushed($run, 4);
ok($f->crash($f->worker_pid), 'killed: the server is up again');
is($f->sql("SELECT flohsync.trigger_sync('$c', 'user')"), $run, 'killed: a trigger meanwhile gets the same run');
$begun = time;
$f->await(hanging => 1, fired => 2);
is($f->sql("SELECT count(*) FROM flohsync.sync_run WHERE status IN ('queued', 'running')"), 1, 'killed: one run is open');
cmp_ok($f->up('log')->{hanging}, '<=', 2, 'killed: one worker is at it');
$f->up('release');
goes_on($run, 'killed and triggered', $begun);

# Again and again on the same page: it ends some time, and the server lives
begin();
$f->fault('hang', page => 5, times => -1);
$run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
my $kills = 0;
for (1 .. 8)
{
	last unless $f->wait_for("SELECT EXISTS (SELECT FROM flohsync.sync_run WHERE id = $run AND status NOT IN ('queued', 'running')) OR EXISTS (SELECT FROM flohsync.workers WHERE kind LIKE '%worker%')", timeout => 15);
	last if $f->run_row($run)->{status} !~ /queued|running/;
	$f->up('wait', hanging => 1, timeout_ms => 3000);
	my $p = $f->sql("SELECT pid FROM flohsync.workers WHERE kind LIKE '%worker%' LIMIT 1");
	next if $p eq '';
	$f->crash($p);
	$kills++;
}
$f->up('heal');
$f->up('release');
$f->comes_true("SELECT status IN ('error', 'success') FROM flohsync.sync_run WHERE id = $run", "killed $kills times on one page: the run ends", timeout => 30);
is($f->sql('SELECT count(*) ' . $f->scope($c, 'user') . ' AND stale_since IS NULL') >= 198 ? 'there' : 'lost', 'there', 'killed often: nothing is lost');
$f->sync_ok($c, 'user', 'killed often: the next run');
$f->matches_upstream($c, 'user', 'killed often: is right');

#
# SIGTERM
#
begin();
$run = hang_on(5);
$begun = time;
is($f->sql("SELECT pg_terminate_backend($_)"), 't', 'a worker is terminated') for $f->worker_pid;
goes_on($run, 'terminated', $begun);

# Whoever is told to go has not crashed, however often and wherever that is.
begin();
$f->fault('hang', page => 5, times => -1);
$run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
for my $time (1 .. 5)
{
	$f->await(hanging => 1);
	my $p = $f->worker_pid;
	$f->sql("SELECT pg_terminate_backend($p)");
	$f->wait_for("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $p)", timeout => 30);
	is($f->run_row($run)->{status}, 'running', "terminated $time times on one page: the run is not given up");
}
$f->up('heal');
$f->up('release');
ok($f->wait_run($run, timeout => 60), 'and goes on');
is($f->run_row($run)->{status}, 'success', 'to its end');

#
# The server stops
#
for my $mode (qw(fast immediate))
{
	begin();
	$run = hang_on(5);
	$begun = time;
	$node->stop($mode);
	cmp_ok(time - $begun, '<', 5, "$mode: the server stops in time");
	$node->start;
	$begun = time;
	goes_on($run, $mode, $begun);
}
begin();
$run = hang_on(5);
chomp(my $postmaster = (split /\n/, PostgreSQL::Test::Utils::slurp_file($node->data_dir . '/postmaster.pid'))[0]);
my $pid = $f->worker_pid;
$begun = time;
$node->kill9;
sleep 0.02 while (kill(0, $pid) || kill(0, $postmaster)) && time - $begun < 10;
ok(!kill(0, $pid), 'the postmaster was killed: the worker goes, too');
# the last of the other processes lets go of the shared memory
sleep 0.02 while $f->{sessions}{postgres} && defined(($f->query('SELECT 1'))[0]) && time - $begun < 10;
$node->start;
goes_on($run, 'the postmaster was killed', time);

# What a call has reported survives the next instant.
begin();
$f->sync_ok($c, 'user', 'a run that has ended');
$node->stop('immediate');
$node->start;
is(($f->last_run($c, 'user') // {})->{status}, 'success', 'is on disk when the call returns') or diag($f->sql('SELECT * FROM flohsync.sync_run ORDER BY id DESC LIMIT 3'));
$f->matches_upstream($c, 'user', 'and so are its records');

#
# At random moments, ten times
#
my $seed = $ENV{SEED} // 20240601;
diag("SEED=$seed") if $ENV{SEED};
srand $seed;
$c = 'loop';
$f->up('heal');
$f->fresh(user => 600);
$f->connector($c, safeguards => { maxStaleFraction => undef });
$f->sync_ok($c, 'user', 'the loop begins');
$f->fault('hang', ms => 15, times => -1);
my (%ended, %kills);
for my $i (1 .. 10)
{
	$f->up('change', type => 'user', fraction => 0.1, seed => $seed + $i, what => ('name', 'email', 'attributes')[ $i % 3 ], list => 0);
	$f->up('delete', type => 'user', count => 5, seed => $seed + $i, list => 0);
	$f->up('restore', type => 'user', count => 2, seed => $seed + $i, list => 0);
	$f->up('add', type => 'user', count => 3);
	$run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
	sleep rand(0.9);
	my ($victim) = split /\n/, $f->sql("SELECT pid FROM flohsync.workers WHERE kind LIKE '%worker%'");
	my $how = (qw(KILL KILL TERM))[ int rand 3 ];
	if (!$victim)
	{
		$kills{none}++;
	}
	elsif ($how eq 'KILL')
	{
		$kills{KILL}++ if $f->crash($victim);
	}
	else
	{
		$kills{TERM} += kill $how, $victim;
	}
	$f->wait_run($run, timeout => 20) or last;
	$ended{ $f->run_row($run)->{status} }++;
}
is(json_text(\%ended), '{"success":10}', 'ten runs with a kill at a random moment: all come to their end');
cmp_ok($kills{KILL} // 0, '>=', 3, 'some of them died') or diag(json_text(\%kills));
$f->up('heal');
my $stats = $f->sync_ok($c, 'user', 'a run in peace');
$f->matches_upstream($c, 'user', 'the table is what the upstream has');
is($stats->{added} + $stats->{updated} + $stats->{restored} + $stats->{staled}, 0, 'and was so before it');

$f->invariants;
my @panics = grep { /PANIC|TRAP:|signal (?!9)\d+/ } split /\n/, PostgreSQL::Test::Utils::slurp_file($node->logfile);
is(join("\n", @panics), '', 'no process died of anything but our kills');
done_testing();
