# Connectors of kind rest: what an upstream must not be able to do to us.
use strict;
use warnings;

use Flohsync;
use JSON::PP;
use Rest;
use Test::More;

my $f = Rest->new;
my $other = $f->another(records => 'user=50');
my $nr = 0;
my $c;

# A new connector with 103 records, all synced; then one is gone and one changed
sub begin
{
	my ($style, %o) = @_;
	$c = 'c' . ++$nr;
	$f->fresh(user => 105);
	$other->fresh(user => 50);
	$f->up('delete', ids => 'user-0000003,user-0000050');
	$f->rest($c, $style, %o);
	$f->sync_ok($c, 'user', "$c: to begin with ($style)");
	$f->up('delete', ids => 'user-0000051');
	$f->up('change', ids => 'user-0000004', what => 'name');
	$f->clear_log;
	return;
}

sub recovers
{
	my ($name, $scim) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$f->up('heal');
	my $stats = $f->sync_ok($c, 'user', "$name: afterwards a run succeeds");
	ok($stats->{complete}, "$name: and is complete");
	$scim ? $f->matches_scim($c, 'user', "$name: and right") : $f->matches_upstream($c, 'user', "$name: and right");
	return;
}

# A pass that succeeds, with a fault
sub tolerates
{
	my ($name, %want) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $stats = $f->sync_ok($c, 'user', "$name: the pass succeeds");
	is($stats->{$_}, $want{$_}, "$name: $_") for sort keys %want;
	ok($stats->{complete}, "$name: it is complete");
	$f->matches_upstream($c, 'user', "$name: it has everything");
	return;
}

# A pass that saw too little is held back by the safeguards.
sub is_held
{
	my $name = shift;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$f->sync($c, 'user');
	is($f->last_run($c, 'user')->{status}, 'held', "$name: it is held");
	is($f->counts($c, 'user'), '103 0', "$name: nothing became stale");
	return;
}

#
# Loops
#
for my $style (qw(link next cursor scim;cursor))
{
	my %list = $style eq 'scim;cursor' ? (list => { pagination => { type => 'cursor', path => '$.nextCursor', param => 'cursor', first => '' } }) : ();
	begin($style, %list);
	$f->fault('cursor_repeat', page => 3, times => -1);
	$f->ends_with($c, 'user', 'pagination_loop', qr/./, "$style, a cursor that repeats");
	recovers("$style, a cursor that repeats", scalar $style =~ /^scim/);
	begin($style, %list);
	$f->up('restore', all => 1);
	$f->fault('cursor_cycle', page => 5, count => 3, times => -1);
	$f->ends_with($c, 'user', 'pagination_loop', qr/./, "$style, a cycle of three pages");
	cmp_ok(scalar($f->requests(type => "user")), "<=", 10, "$style, a cycle of three pages: it is noticed soon") or diag($f->pages_asked("user"));
	recovers("$style, a cycle of three pages", scalar $style =~ /^scim/);
}
$f->fresh(user => 105);
$f->rest('self', 'link;self');
$f->ends_with('self', 'user', 'pagination_loop', qr/./, 'the last page links to itself');
is($f->counts('self', 'user'), '105 0', 'the last page links to itself: its records are there');

# An upstream that does not know the parameter gives the same page for ever.
$f->rest('deaf', 'page;array', list => { records => '$[*]', pagination => { type => 'page', param => 'seite' } });
$f->clear_log;
$f->ends_with('deaf', 'user', 'pagination_loop', qr/./, 'the same page again');
cmp_ok(scalar($f->requests(type => 'user')), '<=', 3, 'the same page again: it is noticed at once');

# One that begins again at its end, and has no total to say where that is
$f->rest('over', 'page;array;over', limits => { max_pages => 12 }, list => { records => '$[*]', pagination => { type => 'page', param => 'page' } });
$f->clear_log;
$f->ends_with('over', 'user', 'pagination_loop', qr/./, 'a list that begins again');
cmp_ok(scalar($f->requests(type => 'user')), '<=', 13, 'a list that begins again: no more pages than allowed are asked for');
begin('cursor', limits => { max_pages => 8 });
$f->fault('empty_page', page => '1-', times => -1);
$f->ends_with($c, 'user', 'pagination_loop', qr/./, 'endless new cursors with empty pages');
cmp_ok(scalar($f->requests(type => 'user')), '<=', 9, 'endless new cursors: an end is made');
recovers('endless new cursors');

#
# The end of a list is where the definition says, and nowhere else
#
for my $style (qw(link next cursor offset))
{
	begin($style);
	$f->fault('page_size', page => 2, count => 3);
	tolerates("$style, a short page", updated => 1, staled => 1, totalUpstreamRecords => 102);
}
for my $style (qw(link next cursor))
{
	begin($style);
	$f->fault('empty_page', page => 2);
	tolerates("$style, an empty page with a next one", updated => 1, staled => 1, totalUpstreamRecords => 102);
}
begin('cursor', list => { total => undef });
$f->fault('no_next', page => 3, times => -1);
is_held('no cursor where there should be one, and no total');
my $stats;

# With a total, a pass that had noticeably fewer is not complete.
for my $style (qw(next cursor))
{
	begin($style);
	$f->fault('no_next', page => 4, times => -1);
	$stats = $f->sync_ok($c, 'user', "$style, fewer records than the total: the pass");
	ok(!$stats->{complete} && $stats->{staled} == 0, "$style, fewer records than the total: is not complete and stales nothing") or diag(json_text($stats));
	recovers("$style, fewer records than the total");
}
begin('offset');
$f->fault('empty_page', page => 3, times => -1);
$stats = $f->sync_ok($c, 'user', 'offset, an empty page before the total is reached: the pass');
ok(!$stats->{complete} && $stats->{staled} == 0, 'offset, an empty page before the total: not complete, nothing stale') or diag(json_text($stats));

#
# What is no page of records
#
begin('next');
for my $body ('{"error":"token expired"}', '{"value":{"externalId":"x"}}', '{"value":"x"}', '{"value":null}', '{"items":[]}', '[]', '"x"', 'null',
	'', '{"value":[', '<html>', '{"value":[]}{"value":[]}')
{
	$body eq '' ? $f->fault('empty_answer', times => -1) : $f->fault('body', times => -1, body => $body);
	$f->ends_with($c, 'user', 'bad_answer', qr/./, "status 200 with \"$body\"");
	$f->up('heal');
}
recovers('what is no page');
for ([ '{"value":null}', 'null' ], [ '{}', 'nothing' ])
{
	begin('next', list => { missing => 'empty', total => undef });
	$f->fault('body', page => 1, times => -1, body => $_->[0]);
	is_held("missing is empty, and it finds $_->[1]");
}
begin('next', list => { missing => 'empty' });
$f->fault('body', page => 1, times => -1, body => '{"value":"x"}');
$f->ends_with($c, 'user', 'bad_answer', qr/./, 'missing is empty, but a text is there');

# SCIM leaves the list out when there is nothing.
begin('scim');
$f->fault('empty_list', times => -1);
is_held('SCIM, no list and a total of 0');
recovers('SCIM, no list', 1);

# has_more without a cursor
begin('cursor;more', list => { pagination => { type => 'cursor', path => '$.nextCursor', param => 'cursor', has_more => '$.hasMore' } });
$f->fault('next_cursor', json => '', page => 2, times => -1);
$f->ends_with($c, 'user', 'bad_answer', qr/./, 'more, it says, and gives no cursor');
for my $cursor ('{"a":1}', '["x"]', 'true')
{
	begin('cursor');
	$f->fault('next_cursor', json => $cursor, page => 2, times => -1);
	my ($ok) = $f->sync($c, 'user');
	my $run = $f->last_run($c, 'user');
	ok(!$ok || !$run->{complete}, "a cursor that is $cursor is no end of the list");
	is($f->counts($c, 'user'), '103 0', '... and nothing became stale');
}

#
# Bytes
#
for my $how (qw(gzip bom chunked))
{
	begin('link');
	$f->fault($how, times => -1);
	tolerates($how, updated => 1, staled => 1);
}
begin('link');
$f->fault('truncate', page => 2, times => 2);
$f->fault('short_body', page => 3);
$f->fault('gzip_cut', page => 4);
$f->fault('reset', page => 5, bytes => -1);
my ($ok) = $f->sync($c, 'user');
recovers('cut answers');

#
# Records
#
begin('cursor');
$f->fault('dup_across', page => 3, count => 3);
$f->fault('dup_in_page', page => 2, record => '1-2', same => 1);
$stats = $f->sync_ok($c, 'user', 'duplicates within a page and across pages: the pass');
is($stats->{duplicates}, 2, 'those of a page are counted');
$f->matches_upstream($c, 'user', 'duplicates: all is there');
begin('link');
$f->fault('dup_key', page => 2, record => 2);
$f->fault('id', page => 3, record => 2, value => 'missing');
$f->fault('bad_utf8', page => 3, record => 3);
$f->fault('field', page => 4, record => 2, field => 'email', json => '{"a":1}');
$f->fault('record', page => 5, record => 2, json => '"no object"');
$stats = $f->sync_ok($c, 'user', 'bad records: the pass succeeds');
is($stats->{errored}, 4, 'bad records: four are set aside');
recovers('bad records');

$f->fresh(user => 30);
$f->rest('numbers', 'link');
$f->fault('id', record => 'all', value => 'bigint', times => -1);
$f->sync_ok('numbers', 'user', 'numbers as ids: the pass');
is($f->sql("SELECT min(external_id COLLATE \"C\") || ' ' || max(external_id COLLATE \"C\") " . $f->scope('numbers', 'user')), '9007199254740900001 9007199254740900030', 'numbers as ids: become texts, digit by digit');
$f->sync_ok('numbers', 'user', 'numbers as ids: again');
is($f->last_run('numbers', 'user')->{stats}{unchanged}, 30, 'numbers as ids: are the same records again');

#
# The map
#
sub one { return $f->json("SELECT to_jsonb(r) " . $f->scope($_[0], 'user') . " AND external_id = '$_[1]'") }
sub mapped
{
	my ($name, $map, $record, %want) = @_;
	$c = 'c' . ++$nr;
	$f->fresh(user => 3);
	$f->up('set', id => 'user-0000002', body => $record);
	$f->rest($c, 'scim', map => { externalId => '$.id', %$map });
	$f->sync_ok($c, 'user', "$name: the pass");
	my $row = one($c, 'x');
	is_deeply({ map { $_ => $row->{$_} } keys %want }, \%want, $name);
	return;
}
mapped('a map with an id alone', {}, '{"id": "x", "displayName": "X", "n": 1}', display_name => undef, email => undef, attributes => { id => 'x', displayName => 'X', n => 1 });
mapped('alternatives: the first that is not empty', { displayName => [ '$.nick', '$.name.formatted', '$.displayName' ], email => [ '$.emails[*] ? (@.type == "work").value', '$.emails[*].value' ] },
	'{"id": "x", "nick": "", "name": {"formatted": null}, "displayName": "X", "emails": [{"value": "a@b.c"}, {"value": "d@e.f"}]}', display_name => 'X', email => 'a@b.c');
mapped('the first item that is not null', { email => '$.emails[*].value' }, '{"id": "x", "emails": [{"value": null}, {"value": "d@e.f"}]}', email => 'd@e.f');
mapped('an alternative for the id', { externalId => [ '$.key', '$.id' ] }, '{"id": "x", "key": null}', external_id => 'x');
mapped('attributes from within', { attributes => '$.profile' }, '{"id": "x", "profile": {"a": [1, 2.50, "\u00e9\ud83d\ude80"]}}', attributes => { a => [ 1, 2.5, "\x{e9}\x{1f680}" ] });
mapped('attributes that are not there', { attributes => '$.profile' }, '{"id": "x"}', attributes => undef);
mapped('excluded members', { exclude => [ 'lastLogin', '@odata.etag', [ 'sign', 'last' ], [ 'nothing', 'here' ], 'a.b' ] },
	'{"id": "x", "lastLogin": 1, "@odata.etag": "e", "sign": {"last": 1, "first": 2}, "a": {"b": 3}}', attributes => { id => 'x', sign => { first => 2 }, a => { b => 3 } });
mapped('keys in any order, and escaped', { displayName => '$."n\u00e4me"' }, '{"z": 1, "i\u0064": "x", "n\u00e4me": "N"}', display_name => 'N');

# What is excluded is no change.
my %whole = (externalId => '$.externalId', displayName => '$.displayName', email => '$.email');
for ([ [], 105, 'without exclude, what changes every time is a change' ], [ [ 'lastUpdated', map { [ 'attributes', $_ ] } qw(department loginCount score) ], 0, 'with it, it is none' ])
{
	$c = 'c' . ++$nr;
	$f->fresh(user => 105);
	$f->rest($c, 'link', map => { %whole, exclude => $_->[0] });
	$f->sync_ok($c, 'user', 'exclude: a pass');
	$f->up('change', all => 1, what => 'attributes');
	is($f->sync_ok($c, 'user', 'exclude: a pass after changes')->{updated}, $_->[1], $_->[2]);
}

#
# Elsewhere.  The other upstream must never hear of us.
#
sub silent { my $name = shift; is($other->up('log')->{requests}, 0, "$name: no request went there"); return }
for my $style (qw(link next))
{
	begin("$style;other", secrets => { token => 'canary-token' }, auth => { type => 'bearer', token => '{{secret.token}}' }, list => { pagination => { type => 'none' }, page_size => { param => 'limit', default => 200, max => 200 } });
	my $definition = $f->definition("$style;other", auth => { type => 'bearer', token => '{{secret.token}}' });
	for my $hosts ([], ["127.0.0.1:$other->{port}"])
	{
		$definition->{http} = { allow_hosts => $hosts };
		$f->sql("SELECT flohsync.update_connector('$c', " . Flohsync::jsonb({ definition => $definition }) . ')');
		# With one more host to go to, it must be set again.
		$f->secret($c, 'token', 'canary-token');
		$f->up('options', origin => $other->origin);
		$f->ends_with($c, 'user', 'blocked_address', qr/./, "$style to another origin" . (@$hosts ? ', allowed, but without TLS' : ''));
		silent("$style to another origin");
	}
}
# https to a host that is allowed is followed; that host has no TLS, so it ends there.
begin('next');
for ([ [], 'blocked_address' ], [ [ "127.0.0.1:$other->{port}" ], 'tls' ], [ ["127.0.0.1"], 'blocked_address' ], [ [ 'localhost:' . $other->{port} ], 'blocked_address' ])
{
	my ($hosts, $class) = @$_;
	my $definition = $f->definition('next', http => { allow_hosts => $hosts }, retry => { max_attempts => 1 });
	$f->sql("SELECT flohsync.update_connector('$c', " . Flohsync::jsonb({ definition => $definition }) . ')');
	$f->fault('next_cursor', json => qq("https://127.0.0.1:$other->{port}/rest/next/users"), page => 1, times => -1);
	$f->ends_with($c, 'user', $class, qr/./, 'https to ' . (@$hosts ? "where @$hosts is allowed" : 'where no host is allowed'));
	$f->up('heal');
}
silent('https to another host');
for my $link ("//127.0.0.1:$other->{port}/rest/next/users", "http://127.0.0.1:$f->{port}\@127.0.0.1:$other->{port}/rest/next/users", "https://127.0.0.1:$f->{port}/rest/next/users",
	'file:///etc/passwd', 'ftp://127.0.0.1/x', 'javascript:1', 'http://', "http://localhost:$f->{port}/rest/next/users", 'http://127.0.0.1/', "HTTP://127.0.0.1:$other->{port}/", "\\\\\\\\127.0.0.1:$other->{port}/x", 'http:///x', "gopher://127.0.0.1:$other->{port}/_x")
{
	begin('next') if $nr < 1 || $f->last_run($c, 'user')->{status} ne 'error';
	$f->fault('next_cursor', json => qq("$link"), page => 1, times => -1);
	$f->clear_log;
	my ($ok) = $f->sync($c, 'user');
	$f->up('heal');
	ok(!$ok, "a next link to $link is not followed");
	is($f->pages_asked('user'), '1', '... no other page was asked for');
}
silent('bad links');
# Redirects
begin('link', secrets => { token => 'canary-token' }, auth => { type => 'bearer', token => '{{secret.token}}' });
$f->fault('redirect', page => 2, times => -1, location => $other->origin . '/rest/link/users');
$f->ends_with($c, 'user', 'http_status', qr/redirects to another origin/, 'a redirect to another origin');
is($f->pages_asked('user'), '1 2', 'a redirect to another origin: is not followed');
silent('a redirect');
recovers('a redirect to another origin');
begin('link', secrets => { token => 'canary-token' }, auth => { type => 'bearer', token => '{{secret.token}}' });
$f->up('auth', kind => 'bearer', value => 'canary-token');
$f->fault('status', page => 3, code => 403);
$f->sync($c, 'user');
my $second = ($f->uris('user'))[1];
begin('link', secrets => { token => 'canary-token' }, auth => { type => 'bearer', token => '{{secret.token}}' });
$f->up('auth', kind => 'bearer', value => 'canary-token');
$f->fault('redirect', page => 2, code => 307, location => $second);
tolerates('a redirect within the origin', updated => 1, staled => 1);
is($f->pages_asked('user'), '1 2 2 3 4 5 6', 'a redirect within the origin: is followed, with the credentials');
$f->fault('redirect', page => 2, times => -1, location => $second);
$f->clear_log;
my ($moved) = $f->sync($c, 'user');
ok(!$moved, 'redirects in a circle are an error');
cmp_ok(scalar($f->requests(type => 'user')), '<', 30, 'redirects in a circle: an end is made');
$f->up('auth', kind => 'none');
recovers('redirects in a circle');

#
# Requests
#
$f->fresh(user => 30);
$f->rest('asks', 'link', config => { team => 'a/b c', n => 5 }, secrets => { key => 'k-1' },
	headers => { 'X-Team' => '{{config.team}}', 'X-Key' => 'key {{secret.key}}', Accept => 'application/vnd.x+json' },
	list => { path => '/users', params => { team => '{{config.team}}', n => '{{config.n}}', x => JSON::PP::true } });
$f->clear_log;
$f->sync_ok('asks', 'user', 'placeholders: a pass');
my ($asked) = $f->requests(type => 'user');
like($asked->{uri}, qr/team=a%2Fb%20c/, 'placeholders: a value in a query is escaped');
like($asked->{uri}, qr/n=5/, 'placeholders: a number');
like($asked->{uri}, qr/x=true/, 'a parameter that is a boolean');
is("$asked->{headers}{'x-team'}|$asked->{headers}{'x-key'}|$asked->{headers}{accept}", 'a/b c|key k-1|application/vnd.x+json', 'placeholders: headers, secrets among them');
$f->rest('accepts', 'link');
$f->clear_log;
$f->sync_ok('accepts', 'user', 'no headers: a pass');
is(($f->requests(type => 'user'))[0]{headers}{accept}, 'application/json', 'no headers: JSON is asked for');
$f->rest('asks-less', 'link', list => { page_size => { param => 'limit', max => 10 } });
$f->clear_log;
$f->sync_ok('asks-less', 'user', 'page size: a pass');
like(($f->uris('user'))[0], qr/limit=10$/, 'page size: never more than the most');

$f->invariants;
$f->no_crash;
done_testing();
