# Connectors of kind rest: a list that did not come whole never counts as complete.
#
# The upstream here is a web server whose answers are files, which a test writes.
use strict;
use warnings;

use Flohsync;
use IO::Socket::INET;
use JSON::PP;
use PostgreSQL::Test::Utils ();
use Rest;
use Test::More;

my $f = Rest->new(conf => "flohsync.http_max_attempts = 1\n");

#
# The upstream
#
my $dir = PostgreSQL::Test::Utils::tempdir();
my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 20, ReuseAddr => 1) or die "listen: $!";
my $host = '127.0.0.1:' . $listen->sockport;

sub file_of { my $uri = shift; $uri =~ s/[^A-Za-z0-9]/_/g; return "$dir/$uri" }

sub serve
{
	while (my $socket = $listen->accept)
	{
		my ($uri) = (<$socket> // '') =~ /^GET (\S+)/;
		while (my $line = <$socket>) { last if $line =~ /^\r?\n$/ }
		my $answer = "404 Not Found\n\n{}";
		if (defined $uri && open(my $in, '<:raw', file_of($uri)))
		{
			local $/;
			$answer = <$in>;
		}
		my ($head, $body) = split /\n\n/, $answer, 2;
		$head =~ s/\n/\r\n/g;
		print $socket "HTTP/1.1 $head\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
		close $socket;
	}
	return;
}

my $server = fork() // die "fork: $!";
if ($server == 0)
{
	$SIG{TERM} = sub { require POSIX; POSIX::_exit(0) };
	serve();
}
close $listen;
END { local $?; kill('TERM', $server), waitpid($server, 0) if $server }

# answers(URI => body as a structure or a text, or [status line and headers, body], ...)
sub answers
{
	my %answers = @_;
	while (my ($uri, $answer) = each %answers)
	{
		my ($head, $body) = ref $answer eq 'ARRAY' && ref $answer->[0] eq '' && @$answer == 2 ? @$answer : ('200 OK', $answer);
		$body = encode_json($body) if ref $body;
		open(my $out, '>:raw', file_of($uri)) or die "$uri: $!";
		print $out "$head\n\n$body";
		close $out;
	}
	return;
}

sub records { return map { { id => "$_", name => "n$_", kind => 'x' } } @_ }
sub page { my $n = shift; return [ records(10 * ($n - 1) + 1 .. 10 * $n) ] }

#
# What is asked
#
my $nr = 0;
my $c;

sub connector
{
	my ($list, %o) = @_;
	my $path = '/l' . ++$nr;
	$c = "c$nr";
	$f->rest($c, 'x', config => { host => $host }, definition => { version => 1, base_url => 'http://{{config.host}}',
		resources => { user => { list => { path => $path, %$list }, map => { externalId => '$.id', displayName => '$.name' }, %{ $o{resource} // {} } },
			%{ $o{resources} // {} } }, $o{limits} ? (limits => $o{limits}) : () }, types => $o{types} // ['user']);
	return $path;
}

sub whole
{
	my ($name, $n) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $stats = $f->sync_ok($c, 'user', "$name: a whole pass");
	ok($stats->{complete}, "$name: is complete") or diag($f->last_run($c, 'user')->{incomplete_reason});
	is($f->counts($c, 'user'), ($n // 30) . ' 0', "$name: has all records");
	return;
}

sub not_whole
{
	my ($name, $like) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $live = (split ' ', $f->counts($c, 'user'))[0];
	my $stats = $f->sync_ok($c, 'user', "$name: the pass succeeds");
	ok(!$stats->{complete}, "$name: is not complete");
	like($f->last_run($c, 'user')->{incomplete_reason} // '', $like, "$name: says why");
	cmp_ok((split ' ', $f->counts($c, 'user'))[0], '>=', $live, "$name: nothing is stale");
	return;
}

sub bad { my ($name, $like) = @_; local $Test::Builder::Level = $Test::Builder::Level + 1; return $f->ends_with($c, 'user', 'bad_answer', $like, $name) }

# Three pages with a link to the next one in the body, $link and $items saying where
sub linked
{
	my ($path, $answer) = @_;
	answers($path => $answer->(1, "$path?p=2"), "$path?p=2" => $answer->(2, "$path?p=3"), "$path?p=3" => $answer->(3));
	return;
}

#
# Paths that cannot be evaluated
#
my $path = connector({ records => '$.items[*]', pagination => { type => 'next_url', path => '$.links[*] ? (@.rel starts with "next").href' } });
my $links = sub { my ($n, $next) = @_; return { items => page($n), links => [ $next ? { rel => 'next', href => $next } : () ] } };
linked($path, $links);
whole('a link that PostgreSQL finds');
my $one = $links->(1, "$path?p=2");
$one->{items}[3]{note} = "a\0b";
answers($path => $one);
bad('a link that PostgreSQL cannot find', qr/values that PostgreSQL cannot read/);

$path = connector({ records => '$.items[*]', pagination => { type => 'cursor', path => '$.c', param => 'p', has_more => '$.more ? (@ != 7)' } });
my $more = sub { my ($n, $next) = @_; return { items => page($n), $next ? (c => $n + 1) : (), more => $next ? JSON::PP::true : JSON::PP::false } };
linked($path, $more);
whole('has_more that PostgreSQL finds');
$one = $more->(1, 'x');
delete $one->{c};
$one->{items}[3]{note} = "a\0b";
answers($path => $one);
bad('has_more that PostgreSQL cannot find', qr/values that PostgreSQL cannot read/);

# 1e200000 is a number of JSON that jsonb does not take
$path = connector({ records => '$.items[*] ? (@.kind starts with "x")', pagination => { type => 'next_url', path => '$.next' } });
my $next = sub { my ($n, $next) = @_; return { items => page($n), $next ? (next => $next) : () } };
linked($path, $next);
whole('records that PostgreSQL finds');
my $two = encode_json($next->(2, "$path?p=3"));
$two =~ s/"n12"/"n12","v":1e200000/;
answers("$path?p=2" => $two);
bad('records that PostgreSQL cannot find', qr/values that PostgreSQL cannot read/);

# An error of the path itself is still "nothing found".
$path = connector({ records => '$.items[*]', pagination => { type => 'next_url', path => 'strict $.links.next' } });
linked($path, sub { my ($n, $next) = @_; return { items => page($n), $next ? (links => { next => $next }) : () } });
whole('a strict path without what it names');

#
# A list that is not there
#
for ([ 'a filter', '$.items[*] ? (@.kind == "x")' ],
	[ 'a filter of PostgreSQL', '$.items[*] ? (@.kind starts with "x")' ],
	[ 'a member of each item', '$.items[*].r' ],
	[ 'a filter on the list itself', '$.items ? (@.kind == "x")' ],
	[ 'a strict path', 'strict $.items[*] ? (@.kind == "x")' ])
{
	my ($name, $records) = @$_;
	my $of = $records =~ /\.r$/ ? sub { my $list = shift; return [ map { { r => $_ } } @$list ] } : sub { shift };
	$path = connector({ records => $records, pagination => { type => 'next_url', path => '$.next' } });
	linked($path, sub { my ($n, $next) = @_; return { items => $of->(page($n)), $next ? (next => $next) : () } });
	whole($name);
	answers("$path?p=2" => { error => { code => 500 }, next => "$path?p=3" });
	bad("$name, an error instead of page 2", qr/no list of records/);
	answers("$path?p=2" => { items => { error => 'x' }, next => "$path?p=3" });
	bad("$name, an object instead of the list", qr/expected an array of records/) if $records =~ /\[\*\]/;
	answers("$path?p=2" => { items => [], next => "$path?p=3" });
	$f->sync_ok($c, 'user', "$name, an empty list on page 2");
}
$path = connector({ records => '$.items[*] ? (@.kind == "x")', missing => 'empty' });
answers($path => {});
whole('a list that may be missing', 0);
$path = connector({ records => '($.items[*])', total => '$.total', pagination => { type => 'next_url', path => '$.next' } });
answers($path => { items => [], total => 0 });
whole('a path of another form and a total of 0', 0);
answers($path => { error => 'x' });
bad('a path of another form that finds nothing', qr/no list of records/);

#
# What the upstream says of the length of a list
#
my @item = (records => '$.items[*]', page_size => { param => 'n', default => 10 });
sub uri { my ($n, $param) = @_; return "$path?n=10&$param=$n" }

# Three pages by offset, the page of a number changed
sub by_offset
{
	my %change = @_;
	for my $n (1 .. 4)
	{
		my $answer = $change{$n} // { items => $n < 4 ? page($n) : [], total => 30 };
		answers($_ => $answer) for uri(10 * $n - 10, 'o'), $n == 4 ? uri(29, 'o') : ();
	}
	return;
}
$path = connector({ @item, total => '$.total', pagination => { type => 'offset', param => 'o' } });
by_offset();
whole('offset');
by_offset(2 => { items => [], total => 0 });
not_whole('offset, a total of 0 on page 2', qr/reported 30 records, then 0/);
by_offset(2 => { total => 0 });
bad('offset, a total of 0 and no list on page 2', qr/no list of records/);
by_offset();
$f->sync_ok($c, 'user', 'offset, after that');
by_offset(2 => { items => page(2), total => 20 });
not_whole('offset, a total that shrinks', qr/reported 30 records, then 20/);
is($f->sql("SELECT pages FROM flohsync.sync_run ORDER BY id DESC LIMIT 1"), 4, 'offset, a total that shrinks: the list goes on, and behind its end');
by_offset(3 => { items => [ records(21 .. 29) ], total => 29 });
not_whole('offset, a total that shrinks by one', qr/reported 30 records, then 29/);
by_offset(2 => { items => page(2) }, 3 => { items => [] });
not_whole('offset, an empty page without a total', qr/30 records but sent none after 20/);

# With cursors, too, the largest total counts.
$path = connector({ @item, total => '$.total', pagination => { type => 'cursor', path => '$.c', param => 'p' } });
my $counted = sub { my ($n, $total, $c) = @_; return { items => page($n), total => $total, c => $c } };
answers("$path?n=10" => $counted->(1, 30, 2), uri(2, 'p') => $counted->(2, 30, 3), uri(3, 'p') => $counted->(3, 30));
whole('cursor');
answers(uri(2, 'p') => $counted->(2, 20));
not_whole('cursor, a total that shrinks', qr/reported 30 records but sent 20/);
# … also after a run that failed
answers(uri(2, 'p') => [ '500 Oops', '{}' ]);
$f->ends_with($c, 'user', 'http_status', qr/500/, 'cursor, a failure');
answers(uri(2, 'p') => $counted->(2, 20));
not_whole('cursor, a total that shrinks after a failure', qr/reported 30 records but sent 20/);

# Pages
sub by_page
{
	my %change = @_;
	answers(uri($_, 'p') => $change{$_} // { items => page($_), pages => 3 }) for 1 .. 3;
	return;
}
$path = connector({ @item, pagination => { type => 'page', param => 'p', total_pages => '$.pages' } });
by_page();
whole('page');
by_page(2 => { items => [], pages => 0 });
not_whole('page, no pages on page 2', qr/reported 3 pages, then 0/);
by_page(2 => { items => page(2), pages => 2 });
not_whole('page, fewer pages', qr/reported 3 pages, then 2/);
by_page(2 => { items => [], pages => 3 });
not_whole('page, an empty page', qr/reported 3 pages but sent no records on page 2/);
by_page(2 => { items => [] });
not_whole('page, an empty page that does not say how many there are', qr/reported 3 pages but sent no records on page 2/);
by_page(1 => { items => page(1), pages => 0 });
not_whole('page, records on no page', qr/zero pages but sent one with records/);
$path = connector({ @item, pagination => { type => 'page', param => 'p', total_pages => '$.pages' } });
by_page(1 => { items => [], pages => 0 });
whole('page, none at all', 0);

# Records that come twice have moved, and others may have moved past.
for my $known (1, 0)
{
	my $name = 'records on two pages, ' . ($known ? 'with a total' : 'to an empty page');
	my @total = $known ? (total => 30) : ();
	$path = connector({ @item, $known ? (total => '$.total') : (), pagination => { type => 'offset', param => 'o' } });
	by_offset();
	whole($name);
	by_offset(2 => { items => [ records(10 .. 19) ], @total }, 3 => { items => [ records(20 .. 29) ], @total });
	not_whole($name, qr/occurred on more than one \(1\): the list has shifted, or is not ordered/);
	by_offset();
	whole("$name, no more");
}
# A position that is not heeded: the same records in answers that differ
$path = connector({ @item, total => '$.total', pagination => { type => 'page', param => 'p', total => '$.total' } });
answers(uri($_, 'p') => { items => page($_), total => 30 }) for 1 .. 3;
whole('page, another page each time');
answers(uri($_, 'p') => { items => page(1), total => 30, took => $_ }) for 1 .. 3;
$f->ends_with($c, 'user', 'pagination_loop', qr/same page twice/, 'page, the same records each time');

# What has_more says, when there is no cursor
$path = connector({ records => '$.items[*]', pagination => { type => 'cursor', path => '$.c', param => 'p', has_more => '$.more' } });
linked($path, $more);
whole('has_more');
for my $yes ('true', 1, 'yes', { a => 1 }, '')
{
	answers($path => { items => page(1), more => $yes });
	bad('no cursor, and more: ' . encode_json([$yes]), qr/more records but gives no cursor/);
}
linked($path, $more);
answers("$path?p=3" => { items => page(3), more => $_ }), whole('no cursor, and no more: ' . encode_json([$_])) for 'false', 0, '0', undef;

#
# Goes on by position
#
for ([ 'offset', { type => 'offset', param => 'o' }, 'o', 10 ], [ 'page', { type => 'page', param => 'o', total => '$.total', stop => 'total' }, 'o', 2 ])
{
	my ($name, $pagination, $param, $second) = @$_;
	my $at = sub { my $n = shift; return uri($second == 2 ? $n : 10 * ($n - 1), $param) };
	$path = connector({ @item, total => '$.total', pagination => $pagination });
	answers($at->($_) => { items => page($_), total => 30 }) for 1 .. 3;
	whole("$name, before it is interrupted");
	answers($at->(2) => [ '500 Oops', '{}' ]);
	$f->ends_with($c, 'user', 'http_status', qr/500/, "$name, a failure on page 2");
	# five records of the first page are deleted: the others move up
	answers($at->(1) => { items => [ records(6 .. 15) ], total => 25 }, $at->(2) => { items => [ records(16 .. 25) ], total => 25 },
		$at->(3) => { items => [ records(26 .. 30) ], total => 25 });
	not_whole("$name, gone on with", qr/by position, and the pass was interrupted/);
	my $stats = $f->sync_ok($c, 'user', "$name, the pass after it");
	ok($stats->{complete} && $stats->{staled} == 5, "$name, the pass after it: is complete, and tells what is gone") or diag(json_text($stats));
	is($f->sql("SELECT string_agg(external_id, ' ' ORDER BY external_id::int) " . $f->scope($c, 'user') . ' AND stale_since IS NOT NULL'),
		'1 2 3 4 5', "$name, the pass after it: nothing else is stale");
}

#
# Link headers
#
$path = connector({ records => '$[*]', pagination => { type => 'link_header' } });
my $header = sub { my ($n, $next, $change) = @_; return [ '200 OK' . ($next ? "\n" . ($change // "Link: <$next>; rel=\"next\"") : ''), page($n) ] };
linked($path, $header);
whole('Link headers');
for my $link ("http://$host$path?p=2; rel=\"next\"", "</a>; rel=\"x\" junk</b>; , http:; <$path?p=2>; rel=\"next\"", "<$path?p=2; rel=\"next\"")
{
	answers($path => $header->(1, 'x', "Link: $link"));
	bad("Link: $link", qr/Link header cannot be read/);
}
answers($path => $header->(1, 'x', "Link: junk, </a>; rel=\"x\" junk\nLink: <$path?p=2>; rel=\"next\""));
whole('junk before the link');

#
# Lists for each record of another type
#
my %member = (member => { list => { records => '$[*]', pagination => { type => 'link_header' } }, for_each => { resource => 'user', path => "/m{{parent.external_id}}" },
	map => { externalId => '$.id', displayName => '$.name' } });
$path = connector({ records => '$[*]' }, resources => \%member, types => [ 'user', 'member' ], limits => { also_throttle_status => [404], throttle_body => '$.wait' });
answers($path => [ '200 OK', [ records(1 .. 3) ] ], map { ("/m$_" => [ '200 OK', [ records(1 .. 4) ] ]) } 1 .. 3);
whole('parents', 3);
sub members
{
	my ($name, $complete, $counts) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $stats = $f->sync_ok($c, 'member', "members, $name");
	ok(!$stats->{complete} == !$complete, "members, $name: complete or not") or diag($f->last_run($c, 'member')->{incomplete_reason});
	is($f->counts($c, 'member'), $counts, "members, $name: the records");
	return;
}
my $gone = [ '404 Not Found', '{}' ];
members('to begin with', 1, '12 0');
answers(map { ("/m$_" => $gone) } 1 .. 3);
members('none of three', 0, '12 0');
like($f->last_run($c, 'member')->{incomplete_reason}, qr/no list for any/, 'members, none of three: says why');
answers('/m1' => [ '404 Not Found', '{"wait":1}' ]);
$f->ends_with($c, 'member', 'throttled', qr/404/, 'members, a 404 that means too many requests');
for my $answered (1 .. 3)
{
	answers(map { ("/m$_" => $_ == $answered ? [ '200 OK', [ records(1 .. 4) ] ] : $gone) } 1 .. 3);
	members("only of $answered", 1, '4 8');
}

# Parents whose values cannot stand in an address: they are left out, and do not stop the others.
for ([ 'external_id', '..' ], [ 'external_id', '.' ], [ 'attributes.name', 'x' x 9000 ])
{
	my ($value, $odd) = @$_;
	my $name = 'members of ' . substr($odd, 0, 3);
	$member{member}{for_each}{path} = "/n/{{parent.$value}}";
	$path = connector({ records => '$[*]' }, resources => \%member, types => [ 'user', 'member' ]);
	answers($path => [ '200 OK', [ map { { id => $value eq 'external_id' ? $_ : substr($_, 0, 5), name => $_ } } '+1', $odd, 'y' ] ],
		map { ("/n/$_" => [ '200 OK', [ records(1 .. 2) ] ]) } '%2B1', 'y');
	whole($name, 3);
	members($name, 0, '4 0');
	like($f->last_run($c, 'member')->{incomplete_reason}, qr/were skipped/, "$name: says why");
}

# Two ids that make another pair in the same place
$member{member}{for_each}{path} = '/n/{{parent.external_id}}';
$path = connector({ records => '$[*]' }, resources => \%member, types => [ 'user', 'member' ]);
answers($path => [ '200 OK', [ map { { id => $_, name => $_ } } 'a', 'a/b', 'a%2Fb' ] ], '/n/a' => [ '200 OK', [ { id => 'b/c' } ] ],
	'/n/a%2Fb' => [ '200 OK', [ { id => 'c' } ] ], '/n/a%252Fb' => [ '200 OK', [ { id => 'c' } ] ]);
whole('ids with slashes', 3);
members('of ids with slashes', 1, '3 0');
is($f->sql("SELECT string_agg(external_id, ' ' ORDER BY external_id COLLATE \"C\") " . $f->scope($c, 'member')), 'a%252Fb/c a%2Fb/c a/b/c', 'ids with slashes: each pair has its own');

#
# Deep values
#
for my $attributes ('$', 'strict $')
{
	$path = connector({ records => '$[*]' }, resource => { map => { externalId => '$.id', attributes => $attributes } });
	for my $value (1, 2)
	{
		answers($path => [ '200 OK', '[{"id": "1", "deep": ' . '{"a":' x 66 . $value . '}' x 66 . '}]' ]);
		my $stats = $f->sync_ok($c, 'user', "a deep value of $attributes, $value");
		is("$stats->{added} $stats->{updated} $stats->{errored}", $value == 1 ? '1 0 0' : '0 1 0', "a deep value of $attributes, $value: is seen");
	}
	is($f->sql("SELECT jsonb_path_query_first(attributes, '\$.**{67}') " . $f->scope($c, 'user')), 2, "a deep value of $attributes: is stored");
}

#
# One record
#
for ([ '$.user', '{"user":{"id":"7","name":"n"}}', 'found' ], [ '$.user', '{"error":"x"}', 'error' ], [ '$.user', '{"user":null}', 'error' ],
	[ '$.users[0]', '{"users":[{"id":"7","name":"n"}]}', 'found' ], [ '$.users[0]', '{"users":[]}', 'none' ], [ '$.users[0]', '{"error":"x"}', 'error' ],
	[ '$.users[*] ? (@.id starts with "7")', '{"users":[{"id":"7","name":"n"}]}', 'found' ], [ '$.users[*] ? (@.id starts with "7")', '{"users":[]}', 'none' ],
	[ '$.users[*] ? (@.id starts with "7")', '{"users":[{"id":"8","name":"a\u0000"}]}', 'error' ])
{
	my ($record, $body, $want) = @$_;
	connector({ records => '$[*]' }, resource => { get => { path => '/one{{external_id}}', record => $record } });
	answers('/one7' => $body);
	my $got = eval { $f->sql("SELECT coalesce(flohsync.cache_get_or_fetch('$c', 'user', '7')::text, 'none')") } // "error: $@";
	my $kind = $got =~ /^error/ ? 'error' : $got eq 'none' || $got eq '' ? 'none' : 'found';
	is($kind, $want, "one record: $record in $body") or diag($got);
}

#
# More comes above this line.
#
$f->invariants;
done_testing();
