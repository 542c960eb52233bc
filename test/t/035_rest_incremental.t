# Connectors of kind rest: what changed since, delta links, records that are gone, lists for each record of another type.
use strict;
use warnings;

use Flohsync;
use JSON::PP;
use Rest;
use Test::More;

my $f = Rest->new;
my $nr = 0;
my $c;

sub begin
{
	my ($style, %o) = @_;
	$c = 'c' . ++$nr;
	$f->up('heal');
	$f->fresh(user => 105, group => 12);
	$f->rest($c, $style, %o);
	return;
}
sub full { my $name = shift; $f->configure($c, 'user', strategy => 'full'); my $s = $f->sync_ok($c, 'user', $name); $f->configure($c, 'user', strategy => 'incremental'); return $s }
sub stale { return $f->sql("SELECT coalesce(string_agg(external_id, ' ' ORDER BY external_id), '') " . $f->scope($c, 'user') . ' AND stale_since IS NOT NULL') }
sub name_of { return $f->sql("SELECT display_name " . $f->scope($c, 'user') . " AND external_id = '$_[0]'") }

#
# A parameter
#
sub param { my %o = @_; return { incremental => { type => 'param', param => 'filter', template => 'lastUpdated gt "{{since}}"', %o } } }
for ([ 'a filter', 'link', param() ], [ 'seconds since 1970', 'link', param(param => 'since', template => '{{since|epoch}}') ],
	[ 'the default template', 'next', param(param => 'since', template => undef) ],
	[ 'a SCIM filter', 'scim', param(template => 'meta.lastModified gt "{{since}}"') ],
	[ 'in the body', 'cursor;in=body', { method => 'POST', page_size => { param => 'pageSize', default => 20, in => 'body' },
		pagination => { type => 'cursor', path => '$.nextCursor', param => 'cursor', in => 'body' }, incremental => { type => 'param', param => 'modifiedSince', in => 'body' } } ])
{
	my ($name, $style, $list) = @$_;
	my $scim = $style eq 'scim';
	delete $list->{incremental}{template} unless defined $list->{incremental}{template};
	begin($style, list => $list, strategy => 'incremental');
	$f->clear_log;
	my $stats = $f->sync_ok($c, 'user', "$name: the first run");
	is($stats->{totalUpstreamRecords}, 105, "$name: the first run gets everything");
	is(scalar(grep { /filter=|since=/ } $f->uris('user')), 0, "$name: without the parameter");
	$f->up('change', ids => 'user-0000004,user-0000104', what => 'name');
	$f->up('delete', ids => 'user-0000050');
	$f->up('add', count => 1);
	$f->clear_log;
	$stats = $f->sync_ok($c, 'user', "$name: an incremental run");
	is("$stats->{totalUpstreamRecords} $stats->{updated} $stats->{added} $stats->{staled}", '3 2 1 0', "$name: gets what changed, and stales nothing");
	like(name_of('user-0000104'), qr/ v1$/, "$name: and stores it");
	my ($asked) = $f->requests(type => 'user');
	my $text = $asked->{uri} . $asked->{body};
	my $of_since = $style eq 'link' && $list->{incremental}{param} eq 'since' ? qr/since=\d{10}\b/ : qr/202\d-\d\d-\d\dT\d\d(?::|%3A)\d\d(?::|%3A)\d\d\.\d{3}Z/;
	like($text, $of_since, "$name: the time has its form");
	my $full = full("$name: a full run");
	is($full->{staled}, 1, "$name: a full run finds what is gone");
	$scim ? $f->matches_scim($c, 'user', "$name: all is right") : $f->matches_upstream($c, 'user', "$name: all is right");
}

# since is the start of the last successful run less the overlap, or less lookback if that is longer
begin('link', list => param(param => 'since', template => '{{since|epoch}}'), strategy => 'incremental', overlap => '10 minutes');
sub asked_since { my ($u) = grep { /since=/ } $f->uris('user'); return $u && $u =~ /since=(\d+)/ ? $1 : 0 }
sub started { return $f->sql("SELECT floor(extract(epoch FROM started_at)) FROM flohsync.sync_run r JOIN flohsync.connector_definition d ON d.id = r.connector_id WHERE d.name = '$c' AND status = 'success' ORDER BY r.id DESC LIMIT 1") }
$f->sync_ok($c, 'user');
my $started = started();
$f->clear_log;
$f->sync_ok($c, 'user');
cmp_ok(abs($started - 600 - asked_since()), '<=', 2, 'since: the start of the last run less the overlap');
begin('link', list => param(param => 'since', template => '{{since|epoch}}', lookback => '1h'), strategy => 'incremental', overlap => '10 minutes');
$f->sync_ok($c, 'user');
$started = started();
$f->clear_log;
$f->sync_ok($c, 'user');
cmp_ok(abs($started - 3600 - asked_since()), '<=', 2, 'since: less lookback, which is longer');
# a run that fails does not move it
$f->fault('status', code => 403, times => -1);
$f->sync($c, 'user');
$f->up('heal');
$f->up('change', ids => 'user-0000007', what => 'name');
$f->sync_ok($c, 'user');
like(name_of('user-0000007'), qr/ v1$/, 'since: nothing is missed after a run that failed');

# It takes the place of a parameter of the same name.
begin('link', list => { %{ param() }, params => { filter => 'status eq "ACTIVE"' } }, strategy => 'full');
$f->up('options', token => '');
my $r = $f->try_sql("SELECT flohsync.configure_sync('$c', 'user', '{\"strategy\": \"incremental\"}')");
ok($r->{ok}, 'incremental is allowed where the definition has it');
$f->rest('none', 'link');
$f->fails_like("SELECT flohsync.configure_sync('none', 'user', '{\"strategy\": \"incremental\"}')", '22023', qr/incremental/, 'incremental is refused where the definition has none');

#
# Gone
#
begin('link;gone', list => { gone => '$ ? (@.status == "DEPROVISIONED")', %{ param() } });
$f->up('delete', ids => 'user-0000003,user-0000050');
my $stats = $f->sync_ok($c, 'user', 'gone: a pass');
$f->matches_upstream($c, 'user', 'gone: what is gone is not stored');
is($f->counts($c, 'user'), '103 0', 'gone: not even as stale');
$f->up('delete', ids => 'user-0000051');
$f->configure($c, 'user', strategy => 'incremental');
$stats = $f->sync_ok($c, 'user', 'gone: an incremental run');
is(stale(), 'user-0000051', 'gone: one that is gone becomes stale, even in an incremental run');
$f->up('restore', ids => 'user-0000051');
$stats = $f->sync_ok($c, 'user', 'gone: an incremental run after it came back');
is("$stats->{restored} " . stale(), '1 ', 'gone: one that is back is restored');
$f->matches_upstream($c, 'user', 'gone: all is right');
begin('link', list => { gone => '$.attributes.flag' });
$f->fault('more', record => 2, page => 1, json => '"flag":false', times => 1);
$f->fault('more', record => 3, page => 1, json => '"flag":null', times => 1);
$f->fault('more', record => 4, page => 1, json => '"flag":true', times => 1);
$f->fault('more', record => 5, page => 1, json => '"flag":""', times => 1);
$f->sync_ok($c, 'user', 'gone, a flag: a pass');
is($f->sql("SELECT string_agg(external_id, ' ' ORDER BY external_id) " . $f->scope($c, 'user') . " AND external_id < 'user-0000006'"), 'user-0000001 user-0000002 user-0000003 user-0000005', 'gone, a flag: what is null, false or empty is not gone');

#
# Delta links
#
sub delta
{
	my %o = @_;
	return { incremental => { type => 'delta_link', path => '$."@odata.deltaLink"', start_path => '/users/delta', %o }, gone => '$."@removed"' };
}
# New records come whole, but that cannot be seen: they are asked for.
begin('delta', list => delta(), resource => { get => { path => '/users/{{external_id}}' } });
full('delta: a full run');
$f->matches_upstream($c, 'user', 'delta: a full run has everything');
$f->clear_log;
$stats = $f->sync_ok($c, 'user', 'delta: the first incremental run');
like(($f->uris('user'))[0], qr{^/rest/delta/users/delta(?:\?|$)}, 'delta: begins at the start path');
is("$stats->{unchanged} $stats->{updated}", '105 0', 'delta: and finds nothing changed');
$f->clear_log;
$stats = $f->sync_ok($c, 'user', 'delta: the next run');
is(scalar($f->requests(type => 'user')) . " $stats->{totalUpstreamRecords}", '1 0', 'delta: follows the link, and nothing has changed');
like(($f->uris('user'))[0], qr/deltatoken/, 'delta: with its token');

$f->up('change', ids => 'user-0000004', what => 'name');
$f->up('change', ids => 'user-0000005', what => 'attributes');
$f->up('change', ids => 'user-0000006', what => 'groups');
$f->up('change', ids => 'user-0000007', what => 'email');
$f->up('delete', ids => 'user-0000050,user-0000051');
$f->up('add', count => 2);
$stats = $f->sync_ok($c, 'user', 'delta: a run after changes');
is("$stats->{updated} $stats->{added} $stats->{staled}", '4 2 2', 'delta: what changed, what is new, what is gone');
is(stale(), 'user-0000050 user-0000051', 'delta: what is gone is stale');
$f->matches_upstream($c, 'user', 'delta: partial records are merged with what was there');
$f->invariants;

# Changes of many, over several pages, with the same record twice
$f->up('change', all => 1, what => 'attributes');
$f->up('change', from => 1, to => 30, what => 'name');
$f->fault('dup_in_page', record => '1-3', same => 1, page => 2);
$stats = $f->sync_ok($c, 'user', 'delta: a run of several pages');
is($stats->{updated}, 105, 'delta: all are updated') or diag(json_text($stats));
$f->matches_upstream($c, 'user', 'delta: and right');

# A run that fails keeps the link; nothing is missed
$f->up('change', ids => 'user-0000009,user-0000010', what => 'name');
$f->fault('status', code => 403, times => -1);
$f->sync($c, 'user');
$f->up('heal');
$f->up('change', ids => 'user-0000011', what => 'name');
$f->sync_ok($c, 'user', 'delta: a run after one that failed');
$f->matches_upstream($c, 'user', 'delta: nothing was missed');

# A restored record comes whole or in part; either way it is right
$f->up('restore', ids => 'user-0000050');
$stats = $f->sync_ok($c, 'user', 'delta: one comes back');
is($stats->{restored}, 1, 'delta: it is restored');
$f->matches_upstream($c, 'user', 'delta: and right');

# Killed within a delta run
$f->up('change', all => 1, what => 'name');
$f->up('change', all => 1, what => 'email');
$f->fault('hang', page => 2);
my $run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
$f->await(hanging => 1);
$f->wait_flushed($run, 1);
ok($f->crash($f->worker_pid), 'delta: the worker is killed on page 2');
ok($f->wait_run($run, timeout => 30), 'delta: the run goes on');
is($f->run_row($run)->{status}, 'success', 'delta: to its end');
$f->matches_upstream($c, 'user', 'delta: all is right');
$f->clear_log;
$stats = $f->sync_ok($c, 'user', 'delta: the run after it');
is(scalar($f->requests(type => 'user')) . " $stats->{totalUpstreamRecords}", '1 0', 'delta: follows its link');

# The link is too old: begin again.  What is gone meanwhile is found by a full run.
$f->up('expire');
$f->up('change', ids => 'user-0000012', what => 'name');
$f->up('delete', ids => 'user-0000060');
$f->clear_log;
$stats = $f->sync_ok($c, 'user', 'delta: the link has expired (410): the run succeeds');
my @asked = $f->requests(type => 'user');
is($asked[0]{status}, 410, 'delta: the link is refused');
like($asked[1]{uri}, qr{^/rest/delta/users/delta(?:\?|$)}, 'delta: and it begins again') or diag(join "\n", map { $_->{uri} } @asked);
unlike($asked[1]{uri} // '', qr/token/, 'delta: without a token');
is(stale(), 'user-0000051', 'delta: nothing is stale for not having been seen');
like(name_of('user-0000012'), qr/ v\d+$/, 'delta: what changed is stored');
$f->clear_log;
$f->sync_ok($c, 'user', 'delta: the run after that');
is(scalar($f->requests(type => 'user')), 1, 'delta: follows the new link');
full('delta: a full run');
$f->matches_upstream($c, 'user', 'delta: all is right');

# A list that ends without a link keeps the old one, and is not complete
$f->up('change', ids => 'user-0000013', what => 'name');
$f->fault('body', body => '{"value": []}', times => 1);
$f->sync($c, 'user');
ok(!$f->last_run($c, 'user')->{complete}, 'delta: a list that ends without a link is not complete');
$f->sync_ok($c, 'user', 'delta: the run after it');
$f->matches_upstream($c, 'user', 'delta: nothing was missed');

# Records that come whole
begin('delta;whole', list => delta(partial => JSON::PP::false));
full('delta, whole records: a full run');
$f->sync_ok($c, 'user', 'delta, whole records: the first incremental run');
$f->up('change', ids => 'user-0000004', what => 'name');
$stats = $f->sync_ok($c, 'user', 'delta, whole records: a run after a change');
is($stats->{updated}, 1, 'delta, whole records: it is stored');
$f->matches_upstream($c, 'user', 'delta, whole records: all is right');

# Only what is there is merged: with partial false, what does not come is gone
begin('delta', list => delta(partial => JSON::PP::false));
full('delta, partial false: a full run');
$f->sync_ok($c, 'user', 'delta, partial false: the first incremental run');
$f->up('change', ids => 'user-0000004', what => 'name');
$f->sync_ok($c, 'user', 'delta, partial false: a run after a change');
is($f->sql("SELECT (email IS NULL) || ' ' || (attributes IS NULL OR attributes = '{}') " . $f->scope($c, 'user') . " AND external_id = 'user-0000004'"), 'true true', 'delta, partial false: the record is what came');

# An excluded member stays excluded, and unchanged parts stay unchanged
begin('delta', list => delta(), map => { externalId => '$.externalId', displayName => '$.displayName', email => '$.email', attributes => '$.attributes', exclude => [qw(loginCount score)] });
full('delta and exclude: a full run');
$f->sync_ok($c, 'user', 'delta and exclude: the first incremental run');
$f->up('change', ids => 'user-0000004', what => 'attributes');
$f->sync_ok($c, 'user', 'delta and exclude: a run after a change');
is($f->sql("SELECT count(*) " . $f->scope($c, 'user') . " AND attributes ?| '{loginCount,score}'"), 0, 'delta and exclude: what is excluded is not there');
is($f->sql("SELECT count(*) " . $f->scope($c, 'user') . " AND external_id = 'user-0000004' AND attributes ? 'title'"), 1, 'delta and exclude: the rest is');

#
# For each group: its members
#
my %members = (
	list => { path => undef, page_size => { param => 'limit', default => 5 }, pagination => { type => 'link_header' }, records => '$[*]' },
	map => { externalId => '$.externalId', displayName => '$.displayName', attributes => '$.none' },
	for_each => { resource => 'group', path => '/groups/{{parent.external_id}}/members' });
delete $members{list}{path};
sub with_members
{
	my ($name, %o) = @_;
	my $definition = $f->definition('link', types => [qw(user group)]);
	my %resource = (%members, %o);
	$c = 'm' . ++$nr;
	$f->fresh(user => 60, group => 7);
	$definition->{resources}{member} = \%resource;
	$f->rest($c, 'link', definition => $definition, types => [qw(user group member)]);
	return;
}
sub memberships
{
	my %m;
	for my $u (values %{ $f->dump_of('user') })
	{
		$m{"$_/$u->{externalId}"} = 1 for @{ $u->{attributes}{groups} };
	}
	return join ' ', sort keys %m;
}
sub stored { return $f->sql("SELECT coalesce(string_agg(external_id, ' ' ORDER BY external_id COLLATE \"C\"), '') " . $f->scope($c, 'member') . ' AND stale_since IS NULL') }

with_members('members');
$run = $f->ends_with($c, 'member', 'configuration', qr/group/, 'for_each: before there are parents');
$f->sync_ok($c, 'group', 'for_each: the parents');
$f->clear_log;
$stats = $f->sync_ok($c, 'member', 'for_each: the members');
is(stored(), memberships(), 'for_each: every membership is there');
ok($stats->{complete}, 'for_each: the pass is complete');
is($f->sql("SELECT count(*) " . $f->scope($c, 'member') . " AND (attributes->>'parentId') || '/' || (attributes->>'memberId') = external_id"), $stats->{added}, 'for_each: with parentId and memberId');
my %paths = map { ($_->{path} => 1) } $f->requests(type => 'user');
is(join(' ', sort keys %paths), join(' ', map { "/rest/link/groups/group-000000$_/members" } 1 .. 7), 'for_each: the list of each group was asked for');
$f->invariants;

$f->up('change', ids => 'user-0000001,user-0000002,user-0000003,user-0000004', what => 'groups');
$f->sync_ok($c, 'member', 'for_each: members after changes');
is(stored(), memberships(), 'for_each: what left is stale, what came is there');
# a group that is gone upstream, but not here yet: 404 is an empty list
$f->up('delete', type => 'group', ids => 'group-0000003');
$stats = $f->sync_ok($c, 'member', 'for_each: a parent is gone upstream');
unlike(stored(), qr/group-0000003/, 'for_each: it has no members');
$f->sync_ok($c, 'group', 'for_each: the parents again');
$f->clear_log;
$f->sync_ok($c, 'member', 'for_each: the members again');
is(scalar(grep { /group-0000003/ } $f->uris('user')), 0, 'for_each: a parent that is stale is not asked for');

# It fails, and is killed, in the middle, and goes on there
for my $how (qw(fails killed))
{
	with_members('members');
	$f->sync_ok($c, 'group', "for_each, $how: the parents");
	$f->clear_log;
	if ($how eq 'fails')
	{
		$f->fault('status', code => 401, page => 2, after => 3, times => 1);
		my ($ok) = $f->sync($c, 'member');
		ok(!$ok, "for_each, $how: the run fails in the middle");
		$f->sync_ok($c, 'member', "for_each, $how: the next run");
	}
	else
	{
		$f->fault('hang', page => 2, after => 3, times => 1);
		$run = $f->sql("SELECT flohsync.trigger_sync('$c', 'member')");
		$f->await(hanging => 1);
		$f->wait_flushed;
		ok($f->crash($f->worker_pid), "for_each, $how: in the middle");
		ok($f->wait_run($run, timeout => 30), "for_each, $how: it goes on");
		is($f->run_row($run)->{status}, 'success', "for_each, $how: to its end");
	}
	is(stored(), memberships(), "for_each, $how: every membership is there");
	ok($f->last_run($c, 'member')->{complete}, "for_each, $how: the pass is complete");
	my %times;
	$times{ $_->{uri} }++ for grep { $_->{status} == 200 } $f->requests(type => 'user');
	is(join(' ', grep { $times{$_} > 1 + ($how eq 'killed') } sort keys %times), '', "for_each, $how: nothing was asked for again but the page that hung");
}

# ids that are unique by themselves
with_members('own ids', for_each => { resource => 'group', path => '/groups/{{parent.external_id}}/members', own_ids => JSON::PP::true });
$f->sync_ok($c, 'group');
$f->sync_ok($c, 'member', 'for_each, own ids: the members');
is(stored(), join(' ', sort keys %{ { map { (split m{/})[1] => 1 } split ' ', memberships() } }), 'for_each, own ids: users, each once');

# A parent's value in the path is escaped
with_members('odd parents');
$f->sync_ok($c, 'group');
$f->sql("SELECT flohsync.upsert_resource('$c', 'group', '{\"externalId\": \"../users?x=1&y#z\"}')");
$f->clear_log;
$stats = $f->sync_ok($c, 'member', 'for_each, a parent with an odd id: the pass');
is(scalar(grep { m{^/rest/link/groups/\.\.%2Fusers%3Fx%3D1%26y%23z/members} || m{^/rest/link/groups/%2E%2E%2Fusers} } $f->uris), 1, 'for_each, a parent with an odd id: it is escaped') or diag(join "\n", $f->uris);
is(stored(), memberships(), 'for_each, a parent with an odd id: it has none');

$f->invariants;
unlike(PostgreSQL::Test::Utils::slurp_file($f->node->logfile), qr/PANIC|signal 11|signal 6/, 'no process crashed by itself');
done_testing();
