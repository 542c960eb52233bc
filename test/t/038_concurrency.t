# Several requests at the same time ("concurrency"): whatever the upstream does, and
# however its answers cross, a pass ends with the same records, counters and pages
# as one that asks for one page after the other.  CONCURRENCY_ROUNDS and
# CONCURRENCY_SEED say how many rounds of faults there are, and which.
use strict;
use warnings;

use Flohsync;
use Rest;
use Test::More;

my $rounds = $ENV{CONCURRENCY_ROUNDS} // 0;    # 0: each fault with some kinds only
my $seed = $ENV{CONCURRENCY_SEED} // 7;
my $f = Rest->new(records => 'user=300,group=30');
srand $seed;

# What a pass without some pages says is gone is compared as well.
my @all = (safeguards => { maxStaleFraction => undef });

# A definition with lists of members of groups, whose pages are those of a style
sub with_members
{
	my ($style, $concurrency) = @_;
	my $d = $f->definition($style, types => [ 'user', 'group' ], concurrency => $concurrency);
	$d->{resources}{member} = {
		for_each => { resource => 'group' },
		list => Rest::list_of($style, 'user', path => '/groups/{{parent.external_id}}/members', page_size => { param => 'limit', default => 7 }),
		map => { %{ $d->{resources}{user}{map} }, externalId => '$.externalId' } };
	return $d;
}

my %kinds = (
	command => sub { my ($name, $k) = @_; $f->connector($name, config => { concurrency => $k }, @all) },
	offset => sub { my ($name, $k) = @_; $f->rest($name, 'offset', concurrency => $k, @all) },
	empty => sub { my ($name, $k) = @_; $f->rest($name, 'offset;nototal', concurrency => $k, list => { total => undef }, @all) },
	page => sub { my ($name, $k) = @_; $f->rest($name, 'page', concurrency => $k, @all) },
	scim => sub { my ($name, $k) = @_; $f->rest($name, 'scim', concurrency => $k, @all) },
	cursor => sub { my ($name, $k) = @_; $f->rest($name, 'cursor', concurrency => $k, @all) },
	members => sub { my ($name, $k) = @_; $f->rest($name, 'link', definition => with_members('link', $k), types => [ 'group', 'member' ], @all) },
	parts => sub { my ($name, $k) = @_; $f->rest($name, 'cursor', concurrency => $k, @all,
			list => { split => { param => 'part', values => [ map { "$_-of-5" } 1 .. 5 ] } }) },
	long_members => sub { my ($name, $k) = @_; $f->rest($name, 'offset', definition => with_members('offset', $k), types => [ 'group', 'member' ], @all) },
);
my @kinds = sort keys %kinds;

sub type_of { return $_[0] =~ /members/ ? 'member' : 'user' }

for my $kind (@kinds)
{
	for my $k (1, 8)
	{
		$kinds{$kind}->("$kind$k", $k);
		$f->sync_ok("$kind$k", 'group', "groups of $kind$k") if type_of($kind) eq 'member';
	}
}

# What a run left behind that must be the same
sub result_of
{
	my ($name, $type) = @_;
	my $run = $f->last_run($name, $type);
	my $stats = $run->{stats} // {};
	delete @$stats{qw(durationMs postSync)};
	return {
		status => $run->{status}, error => $run->{error}, class => $run->{error_class}, complete => $run->{complete},
		reason => $run->{incomplete_reason}, cursor => $run->{cursor}, stats => $stats,
		records => $f->sql("SELECT md5(string_agg(concat_ws('|', external_id, sync_hash, stale_since IS NULL), ',' ORDER BY external_id)) "
			  . $f->scope($name, $type)),
		pages => $f->sql("SELECT string_agg(concat_ws('|', page, cursor, next_cursor, records, bytes, added, updated, unchanged, restored, errored,"
			  . " duplicates, incomplete, deleted), E'\\n' ORDER BY page) FROM flohsync.sync_run_page WHERE run_id = $run->{id}") };
}

# The same with one request at a time and with eight; returns what came of it.
sub both
{
	my ($kind, $name, $arm) = @_;
	my $type = type_of($kind);
	my @got;
	for my $k (1, 8)
	{
		$f->up('heal');
		$arm->() if $arm;
		$f->clear_log;
		$f->sync("$kind$k", $type);
		push @got, result_of("$kind$k", $type);
		my $most = $f->up('log', last => 0)->{openRequests}{most};
		ok($most <= $k, "$kind, $name: no more than $k requests are open") or diag("there were $most");
	}
	is_deeply($got[1], $got[0], "$kind, $name: eight at a time end as one at a time");
	return $got[1];
}

#
# Everything at its best, with answers that cross
#

my @crossing = sub { $f->fault('hang', upto => 12, page => '*', times => -1) };
for my $kind (@kinds)
{
	my $r = both($kind, 'first load', @crossing);
	is($r->{status}, 'success', "$kind: the first load succeeds");
	ok($r->{complete}, "$kind: it is complete") or diag($r->{reason});
	$f->matches_upstream("${kind}8", type_of($kind)) unless $kind eq 'scim' || $kind =~ /members/;
	both($kind, 'nothing has changed', @crossing);
}

# Eight really are on their way: the answers are held until they all have been asked for.
my %passes_first = (command => 2, offset => 1, members => 0, parts => 0);
for my $kind (sort keys %passes_first)
{
	# Of five parts, there are no more than five at a time.
	my $most = $kind eq 'parts' ? 5 : 8;
	$f->up('heal');
	$f->clear_log;
	$f->fault('hang', page => '*', times => -1, after => $passes_first{$kind});
	my $sync = $f->start_sql("CALL flohsync.sync('${kind}8', '" . type_of($kind) . "')");
	$f->await(hanging => $most);
	is($f->up('log', last => 0)->{openRequests}{most}, $most, "$kind: $most requests are open");
	$f->up('heal');
	$f->up('release');
	ok($f->finish($sync)->{ok}, "$kind: and all their answers are taken");
}

# With maxRecords, nothing is asked for that may not be wanted.
$f->configure('offset8', 'user', filterRules => { maxRecords => 50 });
$f->clear_log;
$f->sync_ok('offset8', 'user', 'with maxRecords');
is(scalar($f->requests), 3, 'maxRecords: only what is wanted is asked for');
$f->configure('offset8', 'user', filterRules => undef);
$f->sync_ok("offset$_", 'user', 'without maxRecords') for 1, 8;

#
# Faults
#

my @faults = (
	[ 'a status', sub { $f->fault('status', code => 503, page => $_[0], times => 2) } ],
	[ 'a limit', sub { $f->fault('status', code => 429, page => $_[0], times => 1, retry_after => 1) } ],
	[ 'lost connections', sub { $f->fault('reset', page => $_[0], times => 2); $f->fault('no_answer', page => $_[0] + 1, times => 1) } ],
	[ 'cut answers', sub { $f->fault('truncate', page => $_[0], times => 2) } ],
	[ 'a bad record', sub { $f->fault('bad_utf8', page => $_[0], record => 3, times => -1) } ],
	[ 'a page that fails', sub { $f->fault('status', code => 500, page => $_[0], times => -1) } ],
	[ 'a page that is refused', sub { $f->fault('status', code => 403, page => $_[0], times => -1) } ],
	[ 'a page too few', sub { $f->fault('empty_list', page => $_[0], times => -1) } ],
	[ 'small pages', sub { $f->fault('page_size', count => 7, page => "$_[0]-", times => -1) } ],
	[ 'records twice', sub { $f->fault('dup_in_page', page => $_[0], record => 2, times => -1) } ],
	[ 'a page of nonsense', sub { $f->fault('html', page => $_[0], times => -1) } ],
);
my $round = 0;
for my $kind (@kinds)
{
	for (1 .. $rounds || 1)
	{
		for my $fault (@faults)
		{
			my ($name, $arm) = @$fault;
			next if !$rounds && rand > 0.2;
			# Of the lists of members, the page is the first of each.
			my $page = type_of($kind) eq 'member' ? 1 : 2 + int rand 10;
			next if type_of($kind) eq 'member' && $name =~ /fails|refused|nonsense|small|too few/;
			$round++;
			$f->up('heal');
			$f->up('change', type => 'user', fraction => 0.05, seed => $round, what => 'name');
			$f->up($round % 2 ? 'delete' : 'restore', type => 'user', fraction => 0.01, seed => $round - $round % 2);
			both($kind, "$name on page $page", sub { $crossing[0]->(); $arm->($page) });
			both($kind, "after $name");
		}
	}
}

#
# A limit holds for all
#

my $sync;
for my $error ([ code => 429, retry_after => 1 ], [ code => 503 ])
{
	$f->up('heal');
	$f->clear_log;
	$f->fault('hang', page => 3, times => 1);
	$f->fault('status', page => 5, times => 1, @$error);
	$sync = $f->start_sql("CALL flohsync.sync('offset8', 'user')");
	# By then, the error has been there before page 10 was asked for, or after it.
	$f->await(requests => 9);
	$f->up('release');
	ok($f->finish($sync)->{ok}, "@$error: the page comes later");
	my @asked = map { $_->{page} } $f->requests;
	my ($again) = grep { $asked[$_] == 5 && (grep { $_ == 5 } @asked[ 0 .. $_ - 1 ]) } 1 .. $#asked;
	ok($again && !(grep { $_ > 10 } @asked[ 0 .. $again ]), "@$error: nothing is asked for between the answer and the next attempt")
	  or diag("@asked");
}

# What was asked for in vain stays open until it is answered: it is not asked for more instead.
$f->up('heal');
$f->await(open => -1);
$f->clear_log;
$f->fault('page_size', page => 2, count => 7, times => 1);
$f->fault('hang', page => '4-9', times => 6);
$f->sync_ok('offset8', 'user', 'a page that is shorter than the others');
my $log = $f->up('log', last => 0);
cmp_ok($log->{openRequests}{most}, '<=', 8, 'requests in vain count as open');
cmp_ok($log->{connections}{total}, '<=', 8, 'and are not given up for others');
is($log->{fired}, 7, 'though they are not answered');
$f->up('release');
$f->matches_upstream('offset8', 'user', 'and everything came');

my %limits = (
	okta => { remaining_header => 'x-rate-limit-remaining', reset_header => 'x-rate-limit-reset' },
	github_secondary => { also_throttle_status => [403] },
	graph => {},
	seconds => { remaining_header => 'ratelimit-remaining', reset_header => 'ratelimit-reset', reset_format => 'seconds' });
for my $style (sort keys %limits)
{
	$f->up('heal');
	$f->rest("limit_$style", 'offset', concurrency => 8, limits => $limits{$style});
	$f->up('limit', rate => 10, window => 1, style => $style);
	$f->sync_ok("limit_$style", 'user', "a rate limit, as $style has it");
	$f->up('limit', rate => 0);
	$f->matches_upstream("limit_$style", 'user', "a rate limit, as $style has it: everything came");
}

#
# Single records: new ones in a list of changes, which may be there in part
#

$f->up('heal');
for my $k (1, 8)
{
	$f->rest("changes$k", 'delta', concurrency => $k, @all, resource => { get => { path => '/users/{{external_id}}' } },
		list => { incremental => { type => 'delta_link', path => '$."@odata.deltaLink"', start_path => '/users/delta' }, gone => '$."@removed"' });
	$f->sync_ok("changes$k", 'user', "changes$k: a full run");
	$f->configure("changes$k", 'user', strategy => 'incremental');
	$f->sync_ok("changes$k", 'user', "changes$k: the first changes");
}
$f->up('add', count => 30);
both('changes', 'new records', sub { $f->fault('hang', command => 'get', upto => 12, times => -1) });
$f->matches_upstream('changes8', 'user', 'new records are asked for at the same time, and stored');
$f->up('add', count => 30);
both('changes', 'new records that fail once', sub { $f->fault('status', command => 'get', code => 503, one_in => 3, times => 4) });
$f->matches_upstream('changes8', 'user', 'new records are asked for again, and stored');
$f->up('add', count => 30);
$f->up('heal');
$f->clear_log;
$f->fault('hang', command => 'get', times => -1);
$sync = $f->start_sql("CALL flohsync.sync('changes8', 'user')");
$f->await(hanging => 8);
is($f->up('log', last => 0)->{openRequests}{most}, 8, 'single records: eight requests are open');
$f->up('heal');
$f->up('release');
ok($f->finish($sync)->{ok}, 'single records: and all their answers are taken');
$f->matches_upstream('changes8', 'user', 'single records: all came');
$f->sync_ok("$_", 'user') for map { ("${_}1", "${_}8") } grep { type_of($_) eq 'user' } @kinds;

#
# A token that is void on the way
#

$f->rest('token', 'offset', concurrency => 8,
	auth => { type => 'oauth2_client_credentials', token_url => 'http://{{config.host}}/oauth/token', client_id => 'me', client_secret => '{{secret.secret}}' },
	secrets => { secret => 'x' });
$f->up('auth', kind => 'token', client => 'basic', client_id => 'me', client_secret => 'x');
$f->fault('hang', page => 6, times => 1);
$f->clear_log;
$sync = $f->start_sql("CALL flohsync.sync('token', 'user')");
$f->await(hanging => 1);
$f->up('auth', revoke => 1);
$f->up('release');
ok($f->finish($sync)->{ok}, 'a new token is got');
$f->matches_upstream('token', 'user', 'and everything came');
cmp_ok(scalar($f->requests(type => 'token')), '<=', 2, 'once for all that were refused');
$f->up('auth', kind => 'none');

#
# Memory: pages that fit one by one fit with any number of lanes
#

$f->sql("ALTER SYSTEM SET flohsync.page_memory = '24MB'");
$f->sql('SELECT pg_reload_conf()');
$f->sync_ok("offset$_", 'user') for 1, 8;
my $r = both('offset', 'pages of 2 MB', sub { $f->fault('huge_record', bytes => 2000000, page => '2-14', record => 1, times => -1) });
is($r->{status}, 'success', 'large pages have room, one by one') or diag($r->{error});
$f->sql('ALTER SYSTEM RESET flohsync.page_memory');
$f->sql('SELECT pg_reload_conf()');
both('offset', 'after large pages');

#
# The end comes from outside
#

# Cursors of the command protocol are record numbers here: with gaps they are not foretold.
$f->up('restore', type => 'user', all => 1);
for my $kind (qw(command offset members))
{
	my $type = type_of($kind);
	$f->up('heal');
	# Lists of members have a second page here and there, which nobody can foretell.
	$f->fault('hang', page => '*', times => -1, after => $kind eq 'members' ? 0 : 4);
	$sync = $f->start_sql("CALL flohsync.sync('${kind}8', '$type')");
	$f->await(hanging => 8);
	my $run = $f->last_run("${kind}8", $type)->{id};
	$f->sql("SELECT flohsync.cancel_sync($run)");
	$f->up('heal');
	$f->up('release');
	ok(!$f->finish($sync)->{ok}, "$kind: a run that is cancelled ends");
	is($f->run_row($run)->{status}, 'cancelled', "$kind: as cancelled");
	# What is left of the pass is gone on with, by one and by eight.
	$f->sync_ok("${kind}8", $type, "$kind: the next run goes on");
	$f->sync_ok("${kind}8", $type, "$kind: and so does the one after it");
	is_deeply(result_of("${kind}8", $type)->{records}, do { $f->sync_ok("${kind}1", $type); result_of("${kind}1", $type)->{records} },
		"$kind: with the same records");
}

# A worker is killed at any page, while others are on their way.
for my $kind (qw(command offset members parts), ('members') x $rounds)
{
	my $type = type_of($kind);
	my $after = 3 + int rand($kind eq 'members' ? 20 : 7);
	$f->up('heal');
	$f->up('change', type => 'user', fraction => 0.1, seed => $after, what => 'name');
	$f->fault('hang', page => '*', times => -1, after => $after);
	my $run = $f->sql("SELECT flohsync.trigger_sync('${kind}8', '$type')");
	$f->await(hanging => 1);
	$f->crash($f->worker_pid);
	$f->up('heal');
	$f->up('release');
	ok($f->wait_run($run, timeout => 60), "$kind: a run whose worker was killed after $after pages goes on");
	is($f->run_row($run)->{status}, 'success', "$kind: to its end");
	is($f->sql("SELECT count(*) FILTER (WHERE p.page > 1 AND p.cursor IS DISTINCT FROM q.next_cursor) || ' ' || max(p.page) - count(*)"
			  . " FROM flohsync.sync_run_page p LEFT JOIN flohsync.sync_run_page q ON q.run_id = p.run_id AND q.page = p.page - 1 WHERE p.run_id = $run"),
		'0 0', "$kind: each page was applied once, behind the one before");
	$f->sync_ok("$kind$_", $type) for 1, 8;
	is(result_of("${kind}8", $type)->{records}, result_of("${kind}1", $type)->{records}, "$kind: and the records are the same");
}

#
# What can be said
#

for my $bad (0, 33, 1.5, 'many', [])
{
	my $text = json_of($bad);
	my $d = $f->definition('offset', concurrency => $bad);
	is(faults_of($d), '/concurrency', "a definition with concurrency $text is refused");
	$f->fails_like("SELECT flohsync.create_connector('bad', 'command', " . Flohsync::jsonb({ url => $f->url, concurrency => $bad }) . ')',
		'22023', qr/concurrency.*integer from 1 to 32/, "a config with concurrency $text is refused");
}

for my $case (
	[ { param => 'part', values => [ 'a', 'b', 'a' ] }, '/values/2' ], [ { param => 'part', values => [ 1, '1' ] }, '/values/1' ],
	[ { param => 'part', values => [] }, '/values' ], [ { param => 'part', values => [ 1 .. 33 ] }, '/values' ],
	[ { param => 'part', values => [ {} ] }, '/values/0' ], [ { values => ['a'] }, '/param' ], [ { param => 'part' }, '/values' ])
{
	my ($split, $pointer) = @$case;
	my $d = $f->definition('cursor', list => { split => $split });
	is(faults_of($d), "/resources/user/list/split$pointer", 'refused: split ' . json_of($split));
}
my $both = with_members('cursor', 1);
$both->{resources}{member}{list}{split} = { param => 'part', values => ['a'] };
is(faults_of($both), '/resources/member/list/split', 'refused: split with for_each');
$both = $f->definition('delta', list => { split => { param => 'part', values => ['a'] }, incremental => { type => 'delta_link', path => '$.link' } });
is(faults_of($both), '/resources/user/list/incremental/type', 'refused: split with delta links');

sub faults_of { return join ',', map { $_->{pointer} } @{ $f->json('SELECT flohsync.validate_definition(' . Flohsync::jsonb($_[0]) . ')') } }
sub json_of { return Flohsync::json_text($_[0]) }

$f->up('heal');
$f->invariants;
done_testing;
