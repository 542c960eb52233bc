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

my $f = Rest->new(conf => "flohsync.http_max_attempts = 1\nflohsync.max_stale_fraction = 1\n");

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
			%{ $o{resources} // {} } } }, types => $o{types} // ['user']);
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
	bad("$name, an object instead of the list", qr/something else where the list/) if $records =~ /\[\*\]/;
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
# More comes above this line.
#
$f->invariants;
done_testing();
