# Safeguards: a pass that would stale too much is held until somebody has looked at it.
use strict;
use warnings;

use Flohsync;
use Test::More;

my $f = Flohsync->new(conf => "flohsync.page_size = 50\n");
my $nr = 0;
my $c;

sub begin
{
	my ($records, %settings) = @_;
	$c = 'c' . ++$nr;
	$f->fresh(user => $records);
	$f->connector($c, %settings);
	$f->sync_ok($c, 'user', "$c: to begin with");
	return;
}
sub drop_records { $f->up('delete', type => 'user', from => 1, to => $_[0]); return }
sub counts { return $f->counts($c, 'user') }

# One pass; what became of it: "status active stale"
sub one_pass
{
	$f->sync($c, 'user');
	return $f->last_run($c, 'user')->{status} . ' ' . counts();
}
sub held
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = counts();
	is(one_pass(), "held $before", "$c: $_[0]: held, and nothing is stale");
	return $f->last_run($c, 'user')->{id};
}

#
# When a pass is held
#
begin(100);
drop_records(20);
is(one_pass(), 'success 80 20', '20 of 100 is the fraction: not more than it');
begin(100);
drop_records(21);
held('21 of 100 is more');
begin(40);
drop_records(10);
is(one_pass(), 'success 30 10', '10 of 40 is more than the fraction, but not more than minRecords');
begin(40);
drop_records(11);
held('11 of 40 is more than both');
begin(100, safeguards => { maxStaleFraction => 0.5 });
drop_records(50);
is(one_pass(), 'success 50 50', 'another fraction: 50 of 100');
begin(100, safeguards => { maxStaleFraction => 0.5 });
drop_records(51);
held('51 of 100');
begin(100, safeguards => { minRecords => 60 });
drop_records(60);
is(one_pass(), 'success 40 60', 'minRecords 60: 60 of 100');
begin(100, safeguards => { maxStaleFraction => undef });
drop_records(99);
is(one_pass(), 'success 1 99', 'maxStaleFraction null switches it off');
begin(100, safeguards => { maxStaleFraction => undef });
$f->fault('empty_list', page => 1);
held('an empty list is held whatever the fraction');
begin(20, safeguards => { minRecords => 0, maxStaleFraction => 0 });
drop_records(1);
held('nothing may go stale');
begin(5, safeguards => { minRecords => undef });
drop_records(3);
held('minRecords null: only the fraction counts');
begin(30);
$f->fault('empty_list', page => 1);
held('an empty answer');

# Stale records do not count as active ones.
begin(100);
drop_records(20);
one_pass();
$f->up('delete', type => 'user', from => 21, to => 36);
is(one_pass(), 'success 64 36', '16 of 80');
$f->up('delete', type => 'user', from => 37, to => 50);
held('14 of 64');

# Everything of another tenant
begin(100);
$f->fault('foreign_ids', times => -1);
$f->sync($c, 'user');
is($f->last_run($c, 'user')->{status} . ' ' . counts(), 'held 200 0', 'all ids are other ones: held; what was added stays');
$f->up('heal');

# A filter that narrows
begin(90);
$f->configure($c, 'user', filterRules => { emailDomains => ['acme.com'] });
held('a narrower filter');
begin(90, types => [ 'user', 'group' ]);
$f->configure($c, 'user', filterRules => { memberOfSyncedGroups => JSON::PP::true });
held('members of groups, of which none is synced');

# A list of deletions in an incremental run is no guess, but as much of a loss.
begin(100, strategy => 'incremental');
$f->up('options', deleted => 1);
drop_records(50);
my $incremental = one_pass();
like($incremental, qr/^(held 100 0|success 50 50)$/, 'a list of 50 deletions: held or done, nothing between');
$f->up('options', deleted => 0);

#
# What a held run says
#
begin(100);
$f->up('change', type => 'user', ids => 'user-0000090', what => 'name');
$f->up('add', type => 'user', count => 2);
drop_records(30);
my ($ok, $r) = $f->sync($c, 'user');
my $run = $f->last_run($c, 'user');
is($run->{status}, 'held', 'the run is held');
is(counts(), '102 0', 'what was added stays');
is($f->sql("SELECT count(*) " . $f->scope($c, 'user') . " AND display_name LIKE '% v1'"), 1, 'and what was updated');
my $status = $f->status($c, 'user');
is($status->{lastSyncStatus}, 'error', 'the configuration is in error');
like($status->{lastSyncError}, qr/\b30\b.*\b(100|102)\b/, 'the message has the figures') or diag($status->{lastSyncError});
like($run->{error} // '', qr/\b30\b/, 'that of the run, too');
ok(!$ok && $r->{message} =~ /30/, 'whoever waited for it is told') or diag($ok ? json_text($r) : $r->{text});
is($run->{stats}{staled} . ' ' . $run->{stats}{added} . ' ' . $run->{stats}{updated}, '0 2 1', 'the statistics are those of what was done');
is($f->sql("SELECT count(*) " . $f->scope($c, 'user') . ' AND synced_at IS NULL'), 0, 'synced_at is there');
is($f->sql("SELECT last_status FROM flohsync.jobs WHERE connector = '$c'"), 'held', 'the view of jobs says so');

#
# approve_run
#
my $answer = $f->json("SELECT flohsync.approve_run($run->{id}, 'the merger')");
is(ref $answer, 'HASH', 'approve_run answers with an object');
is(counts(), '72 30', 'approved: they are stale');
my $after = $f->run_row($run->{id});
is($after->{status}, 'success', 'the run has succeeded');
is($after->{stats}{staled}, 30, 'its statistics know');
is($f->status($c, 'user')->{lastSyncStatus}, 'success', 'and so has the configuration');
is($f->status($c, 'user')->{lastSyncError}, undef, 'without an error');
my $again = $f->try_sql("SELECT flohsync.approve_run($run->{id})");
ok(!$again->{ok}, 'a second approval is refused') or diag($again->{out});
is(counts(), '72 30', 'and does nothing');
$f->sync_ok($c, 'user', 'the next pass');
is(counts(), '72 30', 'is of the same opinion');
$f->matches_upstream($c, 'user');

# Records that are there again meanwhile are spared.
begin(100);
drop_records(30);
my $id = held('30 of 100');
is($f->sql("SELECT flohsync.upsert_resource('$c', 'user', '{\"externalId\": \"user-0000001\", \"displayName\": \"back\"}')"), 'updated', 'a record comes back by itself');
is($f->sql("SELECT flohsync.upsert_resource('$c', 'user', (SELECT jsonb_build_object('externalId', external_id, 'displayName', display_name, 'email', email, 'attributes', attributes) " . $f->scope($c, 'user') . " AND external_id = 'user-0000002'))"),
	'unchanged', 'another one unchanged');
$f->sql("SELECT flohsync.upsert_resource('$c', 'user', '{\"externalId\": \"newcomer\"}')");
$f->json("SELECT flohsync.approve_run($id)");
is(counts(), '73 28', 'approved: the other 28 are stale');
is($f->sql("SELECT string_agg(external_id, ' ' ORDER BY external_id) " . $f->scope($c, 'user') . " AND external_id IN ('user-0000001', 'user-0000002', 'newcomer') AND stale_since IS NULL"),
	'newcomer user-0000001 user-0000002', 'those that were seen since are not');

# Two at once
begin(100);
drop_records(30);
$id = held('30 of 100');
my @both = map { $f->start_sql("SELECT flohsync.approve_run($id)") } 1, 2;
is(scalar(grep { $_->{ok} } map { $f->finish($_) } @both), 1, 'two approve at once: one does it');
is(counts(), '70 30', 'once');

# Approving needs the right
$f->sql('CREATE ROLE nobody');
begin(100);
drop_records(30);
$id = held('30 of 100');
is($f->try_sql("SET ROLE nobody; SELECT flohsync.approve_run($id)")->{state}, '42501', 'not everybody can approve');

#
# reject_run
#
$f->sql("SELECT flohsync.reject_run($id, 'an outage')");
isnt($f->run_row($id)->{status}, 'held', 'rejected: the run is no longer held');
is(counts(), '100 0', 'nothing is stale');
ok(!$f->try_sql("SELECT flohsync.approve_run($id)")->{ok}, 'and it cannot be approved any more');
is(counts(), '100 0', 'nothing is stale');
ok(!$f->try_sql("SELECT flohsync.reject_run($id)")->{ok}, 'nor rejected again');
held('the next pass finds the same');
for my $function ('approve_run', 'reject_run')
{
	ok(!$f->try_sql("SELECT flohsync.$function(999999)")->{ok}, "$function: a run that is not there");
	my $done = $f->sql("SELECT min(id) FROM flohsync.sync_run WHERE status = 'success'");
	ok(!$f->try_sql("SELECT flohsync.$function($done)")->{ok}, "$function: a run that is not held");
}

#
# Superseded
#
begin(100);
drop_records(30);
$id = held('an outage');
$f->up('restore', type => 'user', all => 1);
$f->sync_ok($c, 'user', 'the next pass sees all again');
is(counts(), '100 0', 'everything is there');
is($f->status($c, 'user')->{lastSyncStatus}, 'success', 'the configuration is fine');
isnt($f->run_row($id)->{status}, 'held', 'the held run is superseded');
ok(!$f->try_sql("SELECT flohsync.approve_run($id)")->{ok}, 'it cannot be approved any more');
is(counts(), '100 0', 'nothing is stale');

# Held twice: only the later one counts.
begin(100);
drop_records(30);
my $first = held('30 of 100');
$f->up('restore', type => 'user', ids => 'user-0000001');
$f->up('delete', type => 'user', ids => 'user-0000099');
my $second = held('another 30 of 100');
isnt($f->run_row($first)->{status}, 'held', 'the first is superseded');
ok(!$f->try_sql("SELECT flohsync.approve_run($first)")->{ok}, 'and cannot be approved');
$f->json("SELECT flohsync.approve_run($second)");
is($f->sql("SELECT string_agg(external_id, ' ' ORDER BY external_id) " . $f->scope($c, 'user') . " AND external_id IN ('user-0000001', 'user-0000099') AND stale_since IS NOT NULL"), 'user-0000099', 'the second is applied as it is');
is(counts(), '70 30', 'all of it');

# An incomplete pass or a failed one does not supersede.
begin(100);
drop_records(30);
$id = held('30 of 100');
$f->fault('status', code => 403, page => 2);
$f->sync($c, 'user');
is($f->run_row($id)->{status}, 'held', 'a failed run does not supersede it');
$f->configure($c, 'user', filterRules => { maxRecords => 60 });
$f->sync($c, 'user');
is($f->run_row($id)->{status}, 'held', 'nor does an incomplete pass');

# Approving while a run goes on: either it waits or it is refused, and the end is right.
$f->configure($c, 'user', filterRules => undef);
$f->up('restore', type => 'user', all => 1);
$f->fault('hang', page => 2);
my $going = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
$f->await(hanging => 1);
my $h = $f->start_sql("SELECT flohsync.approve_run($id)");
$f->wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE 'SELECT flohsync.approve_run%' AND state = 'active' AND wait_event_type IS NULL AND pid <> pg_backend_pid()");
$f->up('release');
$f->finish($h);
$f->wait_run($going);
$f->sync_ok($c, 'user', 'after all that');
is(counts(), '100 0', 'everything that is there upstream is active');
$f->matches_upstream($c, 'user');

# Retention is not a way around it: held records are not purged.
begin(100);
drop_records(30);
$f->configure($c, 'user', staleRetention => '0s') if $f->try_sql("SELECT flohsync.configure_sync('$c', 'user', '{\"staleRetention\": \"0s\"}')")->{ok};
held('with a short retention');
is(counts(), '100 0', 'nothing is removed');

# Held, and not complete: approved, it marks only what the upstream said is deleted.
$f->sql(q{create table public.partly_deletes ();
	grant select on public.partly_deletes to flohsync_nobody;
	create function public.partly(command jsonb) returns jsonb language sql stable as $$
	select jsonb_build_object('success', true, 'payload', jsonb_build_object(
		'resources', (select jsonb_agg(jsonb_build_object('externalId', 'p' || g)) from generate_series(1, 60) g),
		'deleted', (select coalesce(jsonb_agg('p' || g), '[]') from generate_series(41, 55) g where exists (select from public.partly_deletes)))) $$});
$f->sql(q{select flohsync.create_connector('partly', 'sql', '{"function": "public.partly"}')});
$f->configure('partly', 'user');
$f->sync_ok('partly', 'user', 'sixty records');
$f->sql('insert into public.partly_deletes default values');
$f->configure('partly', 'user', filterRules => { maxRecords => 10 });
$f->sync('partly', 'user');
my $partly = $f->last_run('partly', 'user');
is("$partly->{status} " . ($partly->{complete} ? 'complete' : 'incomplete'), 'held incomplete', 'a pass that was cut off is held for what was deleted');
$f->sql("select flohsync.approve_run($partly->{id})");
is($f->counts('partly', 'user'), '45 15', 'approved, only that goes stale');

$f->invariants;
$f->no_crash;
done_testing();
