# A webhook races a full pass: whatever comes first, the newer truth stays.  The
# upstream answers a page as things are when it is asked, and holds the answer.
use strict;
use warnings;

use Flohsync;
use Test::More;

my $f = Flohsync->new(records => 'user=60', conf => "flohsync.page_size = 20\nflohsync.http_timeout = 60s\n");
$f->connector('up');
sub id { return sprintf 'user-%07d', $_[0] }
sub name_of { return $f->sql("select display_name from flohsync.connector_resource where external_id = " . literal($_[0])) }
sub there { return $f->sql("select count(*) from flohsync.connector_resource where stale_since is null and external_id = " . literal($_[0])) }
sub stats { my $s = $f->last_run('up', 'user')->{stats}; return join ' ', map { "$_=$s->{$_}" } grep { $s->{$_} } qw(added updated staled restored ignored) }

# The upstream's record as it is now, or undef
sub truth
{
	my ($id) = @_;
	my ($line) = grep { /"externalId": ?"\Q$id\E"/ } split /\n/, $f->up('dump', type => 'user');
	return defined $line ? decode_json_text($line) : undef;
}
# Something happens upstream, and the webhook tells of it.
sub happens
{
	my ($what, $id) = @_;
	if ($what eq 'update') { $f->up('change', type => 'user', ids => $id, what => 'name') }
	elsif ($what eq 'delete') { $f->up('delete', type => 'user', ids => $id) }
	else { $f->up('restore', type => 'user', ids => $id) }
	return;
}
sub hook_sql
{
	my ($what, $id) = @_;
	my $data = truth($id);
	delete $data->{externalId} if $data;
	my %action = (update => 'updated', delete => 'deleted', create => 'created');
	return "select flohsync.handle_webhook('up', " . Flohsync::jsonb({ action => $action{$what}, resourceId => $id, resourceType => 'user', data => $data }) . ") ->> 'changed'";
}
# A record that is not stored, though the upstream had it all along: one deleted here without a trace.
sub unknown { my ($id) = @_; $f->sql("delete from flohsync.resource_record where external_id = '$id'; delete from _flohsync.resource_tombstone where external_id = '$id'"); return }
# Everything as at the beginning, and synced.
sub fresh
{
	$f->fresh(user => 60);
	$f->sql('delete from flohsync.resource_record; delete from _flohsync.resource_tombstone');
	$f->sync('up', 'user');
	$f->clear_log;
	return;
}
# A run is asked for; its first page is held.
sub begin { my (%page) = @_; $f->fault('hang', page => 1, %page); my $run = $f->sql("select flohsync.trigger_sync('up', 'user')"); $f->await(hanging => 1); return $run }
sub end
{
	my ($run, $name) = @_;
	$f->up('heal');
	$f->up('release');
	$f->wait_run($run);
	is($f->run_row($run)->{status}, 'success', "$name: the run ends well");
	$f->matches_upstream('up', 'user', "$name: what is there is what the upstream has");
	return;
}
# A session that holds a record's row.
sub hold
{
	my ($id) = @_;
	$f->sql('select pg_advisory_lock(42)');
	my $h = $f->start_sql("BEGIN; SELECT FROM flohsync.resource_record WHERE external_id = '$id' FOR UPDATE; SELECT pg_advisory_xact_lock(42); ROLLBACK");
	$f->wait_for("select count(*) = 1 from pg_locks where locktype = 'advisory' and objid = 42 and not granted") or die 'the row is not held';
	return $h;
}
sub let_go { my ($h) = @_; $f->sql('select pg_advisory_unlock(42)'); $f->finish($h); return }
sub worker_waits { return $f->wait_for("select count(*) = 1 from pg_stat_activity where backend_type like 'flohsync worker%' and wait_event_type = 'Lock'") }
sub sessions_wait { my ($n) = @_; return $f->wait_for("select count(*) = $n from pg_stat_activity where query like 'select flohsync.handle_webhook%' and wait_event_type = 'Lock'") }

#
# Before the page is asked for
#
fresh();
for (qw(update delete create))
{
	my $id = id(3);
	$f->up('delete', type => 'user', ids => $id), $f->sync('up', 'user'), unknown($id) if $_ eq 'create';
	happens($_, $id);
	is($f->sql(hook_sql($_, $id)), 'true', "$_ before the pass");
	my $run = begin();
	end($run, "$_ before");
	is(stats(), '', 'the pass has nothing to add');
	fresh() if $_ eq 'delete';
}

#
# While the page is on its way
#
fresh();
unknown(id(4));
$f->up('delete', type => 'user', ids => id(5));
$f->sync('up', 'user');
unknown(id(5));
unknown(id(4));
unknown(id(6));
$f->sql("select flohsync.upsert_resource('up', 'user', '{\"externalId\": \"" . id(7) . "\", \"displayName\": \"different\"}', now() - interval '1 day')");
$f->sql("update flohsync.resource_record set display_name = 'different', sync_hash = '', observed_at = now() - interval '1 hour' where external_id in ('" . id(7) . "', '" . id(8) . "', '" . id(9) . "')");
$f->sql("update flohsync.resource_record set stale_since = now(), observed_at = now() - interval '1 hour' where external_id in ('" . id(10) . "', '" . id(11) . "')");
my $run = begin();
# asked: 4 and 6 unknown, 5 not on it, 7 to 9 differ, 10 and 11 stale
my %done = (1 => 'update', 2 => 'delete', 4 => 'update', 5 => 'create', 6 => 'delete', 7 => 'update', 8 => 'delete', 10 => 'update', 11 => 'delete');
for (sort { $a <=> $b } keys %done)
{
	happens($done{$_}, id($_));
	$f->sql(hook_sql($done{$_}, id($_)));
}
end($run, 'all of them between asking and applying');
is(stats(), 'updated=1 ignored=8', 'the page is ignored where it is older');
is($f->sql("select count(*) from _flohsync.resource_tombstone where external_id in ('" . id(2) . "', '" . id(6) . "', '" . id(8) . "', '" . id(11) . "')"), 4, 'deletions leave tombstones');
$f->sync('up', 'user');
is(stats(), '', 'the next pass finds nothing to do');
# A record that is deleted and comes again: the page that is asked for after that brings it.
happens('delete', id(12));
$f->sql(hook_sql('delete', id(12)));
happens('create', id(12));
$f->sync('up', 'user');
is(there(id(12)), 1, 'a tombstone does not keep out what is listed later');

#
# After its page was applied, before the end of the pass
#
fresh();
unknown(id(5));
$f->up('delete', type => 'user', ids => id(5));
$f->up('change', type => 'user', ids => id(3), what => 'name');
$run = begin(page => 3);
$f->wait_for("select count(*) = 2 from flohsync.sync_run_page where run_id = $run") or die 'two pages are not applied';
%done = (1 => 'update', 2 => 'delete', 3 => 'update', 5 => 'create', 30 => 'delete', 45 => 'update', 50 => 'delete');
for (sort { $a <=> $b } keys %done)
{
	happens($done{$_}, id($_));
	is($f->sql(hook_sql($done{$_}, id($_))), 'true', "$done{$_} after the second page");
}
end($run, 'behind the page');
is(there(id(5)), 1, 'a record that the pass never saw is not stale: the webhook is newer than the pass');

#
# While the page is being applied: new rows are there, and not committed.
#
for my $case ('commits', 'is rolled back')
{
	fresh();
	unknown(id($_)) for 2, 3;
	$f->up('change', type => 'user', ids => join(',', map { id($_) } 1, 4, 5, 20), what => 'name');
	$run = begin();
	my $holder = hold(id(20));
	$f->up('heal');
	$f->up('release');
	ok(worker_waits(), "the page $case: it waits for a row, with others written");
	happens('delete', id(2));
	happens('update', id(3));
	happens('update', id(4));
	happens('delete', id(5));
	my @hooks = map { $f->start_sql(hook_sql(@$_)) } [ 'delete', id(2) ], [ 'update', id(3) ], [ 'update', id(4) ], [ 'delete', id(5) ];
	ok(sessions_wait(4), 'deletions of a new and a known record, and updates of such, wait for it');
	if ($case eq 'is rolled back')
	{
		my $pid = $f->worker_pid;
		$f->sql("select pg_cancel_backend($pid)");
		$f->wait_for("select count(*) = 0 from pg_stat_activity where pid = $pid and wait_event_type = 'Lock'");
	}
	else { let_go($holder) }
	my @answers = map { my $r = $f->finish($_); $r->{ok} ? $r->{out} : $r->{text} } @hooks;
	let_go($holder) if $case eq 'is rolled back';
	$f->wait_run($run);
	$f->sync('up', 'user') if $f->run_row($run)->{status} ne 'success';
	is("@answers", $case eq 'commits' ? 'true true true true' : 'false true true true', 'then they go on');
	is(join(' ', there(id(2)), there(id(5))), '0 0', 'what was deleted stays away');
	is(join('|', map { name_of(id($_)) } 3, 4), join('|', map { truth(id($_))->{displayName} } 3, 4), 'what was updated is as it was told');
	$f->matches_upstream('up', 'user', 'and all is as the upstream has it');
}
# The other way round: the webhook's transaction is there first, and the page waits for it.
for my $way ('COMMIT', 'ROLLBACK')
{
	for my $case ([ 'delete', 'known' ], [ 'delete', 'unknown' ], [ 'update', 'known' ], [ 'update', 'unknown' ])
	{
		my ($what, $known) = @$case;
		fresh();
		unknown(id(2)) if $known eq 'unknown';
		$f->up('change', type => 'user', ids => id(2), what => 'name');
		my $on_page = truth(id(2))->{displayName};
		$run = begin();
		happens($what, id(2));
		$f->sql('select pg_advisory_lock(43)');
		my $h = $f->start_sql('BEGIN; ' . hook_sql($what, id(2)) . "; SELECT pg_advisory_xact_lock(43); $way");
		$f->wait_for("select count(*) = 1 from pg_locks where locktype = 'advisory' and objid = 43 and not granted") or die 'no webhook';
		$f->up('heal');
		$f->up('release');
		ok(worker_waits(), "$what of a record that is $known: the page waits");
		$f->sql('select pg_advisory_unlock(43)');
		$f->finish($h);
		$f->wait_run($run);
		is($f->run_row($run)->{status}, 'success', 'the run ends well');
		if ($way eq 'COMMIT') { $f->matches_upstream('up', 'user', 'what the webhook said stays') }
		else { is(name_of(id(2)), $on_page, 'rolled back, it is as on the page') }
	}
}
# A deletion before the page was asked for, and committed after: the upstream has it again.
for my $known ('known', 'unknown')
{
	fresh();
	unknown(id(2)) if $known eq 'unknown';
	$f->up('change', type => 'user', ids => id(2), what => 'name');
	$f->sql('select pg_advisory_lock(43)');
	my $h = $f->start_sql('BEGIN; ' . hook_sql('delete', id(2)) . '; SELECT pg_advisory_xact_lock(43); COMMIT');
	$f->wait_for("select count(*) = 1 from pg_locks where locktype = 'advisory' and objid = 43 and not granted") or die 'no webhook';
	$run = begin();
	$f->up('heal');
	$f->up('release');
	ok(worker_waits(), "a record that is $known was deleted before: the page waits");
	$f->sql('select pg_advisory_unlock(43)');
	$f->finish($h);
	$f->wait_run($run);
	$f->matches_upstream('up', 'user', 'the page is newer');
}
# In a transaction that looks at everything with an old snapshot
fresh();
unknown(id(2));
$f->sql('select pg_advisory_lock(43)');
my $old = $f->start_sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM flohsync.resource_record; SELECT pg_advisory_xact_lock(43);
	SELECT flohsync.upsert_resource('up', 'user', '{\"externalId\": \"" . id(2) . "\"}', now()); COMMIT");
$f->wait_for("select count(*) = 1 from pg_locks where locktype = 'advisory' and objid = 43 and not granted") or die 'no snapshot';
happens('delete', id(2));
$f->sql(hook_sql('delete', id(2)));
$f->sql('select pg_advisory_unlock(43)');
like($f->finish($old)->{out}, qr/ignored$/, 'an upsert with a snapshot from before a deletion does not undo it');
is(there(id(2)), 0, 'the record stays away');

#
# Held runs, and upstream deletions of an incremental pass
#
fresh();
$f->configure('up', 'user', safeguards => { maxStaleFraction => 0.1, minRecords => 0 });
$f->up('delete', type => 'user', from => 1, count => 30);
$run = begin(page => 2);
$f->wait_for("select count(*) = 1 from flohsync.sync_run_page where run_id = $run");
my ($gone) = grep { !truth(id($_)) } 1 .. 60;
my ($stays) = grep { truth(id($_)) } 1 .. 60;
$f->up('heal');
$f->up('release');
$f->wait_run($run);
is($f->run_row($run)->{status}, 'held', 'a run is held');
happens('create', id($gone));
is($f->sql(hook_sql('update', id($gone))), 'false', 'a record that it misses is heard of, and as it was');
happens('delete', id($stays));
is($f->sql(hook_sql('delete', id($stays))), 'true', 'one that it saw is deleted');
$f->sql("select flohsync.approve_run($run)");
$f->matches_upstream('up', 'user', 'when it is approved, what is there is what the upstream has');
$f->configure('up', 'user', safeguards => { maxStaleFraction => undef });

fresh();
$f->up('options', deleted => 1);
$f->configure('up', 'user', strategy => 'incremental');
$f->sync('up', 'user');
$f->up('delete', type => 'user', ids => join(',', id(1), id(2)));
$run = begin();
happens('create', id(1));
is($f->sql(hook_sql('create', id(1))), 'false', 'a record comes back while a page says that it is deleted');
end($run, 'incremental');
is(join(' ', map { there(id($_)) } 1, 2), '1 0', 'what the page said is older');
$f->configure('up', 'user', strategy => 'full');

#
# Storms
#
fresh();
my @storm;
for my $client (1 .. 4)
{
	push @storm, $f->start_sql("do \$\$ begin for i in 1..250 loop perform flohsync.handle_webhook('up', jsonb_build_object('action', 'updated', 'resourceId', '" . id(1)
			. "', 'resourceType', 'user', 'data', jsonb_build_object('attributes', jsonb_build_object('client$client', i)))); commit; end loop; end \$\$");
}
ok($f->finish($_)->{ok}, 'a thousand updates of one record by four at once') for @storm;
is($f->sql("select " . join(" || ' ' || ", map { "(attributes ->> 'client$_')" } 1 .. 4) . " from flohsync.connector_resource where external_id = '" . id(1) . "'"), '250 250 250 250', 'none is lost');
# Passes, creations, deletions and updates of few records by many at once: then all is as the last event of each says.
my $t = $f->sql("select extract(epoch from now())::bigint - 200");
@storm = map { my $client = $_; $f->start_sql(<<SQL) } 1 .. 4;
do \$\$ declare what text; begin for i in 1..150 loop
  what := (array['created', 'updated', 'deleted'])[1 + (i * 7 + $client * 3) % 3];
  perform flohsync.handle_webhook('up', jsonb_build_object('action', what, 'resourceId', 'storm-' || i % 5, 'resourceType', 'user', 'timestamp', $t + (i * 13 + $client * 5) % 160,
    'data', jsonb_build_object('displayName', $t + (i * 13 + $client * 5) % 160 || '')));
  commit; end loop; end \$\$
SQL
$f->sync('up', 'user') for 1 .. 3;
my @failed = grep { !$_->{ok} } map { $f->finish($_, 60) } @storm;
is(scalar(@failed), 0, 'a storm of everything, and passes through it') or diag($failed[0]{text});
my %last;
for my $client (1 .. 4)
{
	for my $i (1 .. 150)
	{
		my $at = $t + ($i * 13 + $client * 5) % 160;
		my $what = (qw(created updated deleted))[ ($i * 7 + $client * 3) % 3 ];
		my $id = 'storm-' . $i % 5;
		$last{$id}{$at}{ $what eq 'deleted' ? 'deleted' : "$at" } = 1 if !$last{$id} || $at >= (sort { $b <=> $a } keys %{ $last{$id} })[0];
	}
}
for my $id (sort keys %last)
{
	my ($at) = sort { $b <=> $a } keys %{ $last{$id} };
	my $have = $f->sql("select coalesce((select display_name from flohsync.connector_resource where external_id = '$id'), 'deleted')");
	ok($last{$id}{$at}{$have}, "$id is as one of its last events says") or diag("$have, not " . join ' or ', keys %{ $last{$id}{$at} });
}

$f->invariants;
$f->no_crash;
done_testing;
