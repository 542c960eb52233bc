# flohsync-http: who is slow, large or too many is stopped, and others are served
# meanwhile.  HTTP_REQUESTS (2000) says how many requests memory is watched over.
use strict;
use warnings;

use Flohsync;
use Gateway;
use IO::Compress::Gzip qw(gzip $GzipError);
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Socket;
use Test::More;
use Time::HiRes qw(time sleep);

my $f = Flohsync->new(conf => 'log_min_messages = fatal');
$f->fresh(user => 300);
$f->connector($_) for qw(c other);
$f->sync_ok('c', 'user');
my $g = Gateway->new($f, settings => { webhooks_per_second => 0, webhooks_per_second_address => 0, failures_per_second => 0 });
my $nl = "\r\n";
sub head { my ($method, $path, @lines) = @_; return join $nl, "$method $path HTTP/1.1", 'Host: x', @lines, '', '' }

sub metric
{
	my ($server, $name) = @_;
	return ($server->get('/metrics')->{content} =~ /^flohsync_http_$name (\S+)/m)[0];
}

# Waits until something is so; no matter how long that takes.
sub becomes
{
	my ($test, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	for (my $until = time + 90; time < $until; sleep 0.05) { return pass($name) if $test->() }
	return fail($name);
}

sub closed { my ($s) = @_; return IO::Select->new($s)->can_read(0) && !sysread($s, my $piece, 65536) }

#
# Slow ones
#

my $quick = Gateway->new($f, roles => 0, settings => { header_timeout => 2, body_timeout => 2, idle_timeout => 2, send_timeout => 3, webhooks_per_second => 0 });
my %slow = (
	'sends nothing' => '', 'sends half a head' => "GET /live HTTP/1.1${nl}X: ", 'sends half a request line' => 'GET /li',
	'sends half a body' => head('POST', '/api/webhooks/c', 'Content-Length: 1000') . 'x', 'sends half a chunk' => head('POST', '/api/webhooks/c', 'Transfer-Encoding: chunked') . "100${nl}x",
	'sends a body that nobody wants' => head('POST', '/none', 'Content-Length: 1000') . 'x', 'asks once and stays' => head('GET', '/live'));
my %socket = map { my $s = $quick->connect; syswrite $s, $slow{$_}; ($_ => $s) } sort keys %slow;
my %closed;
for (my $until = time + 90; keys %closed < keys %slow && time < $until; sleep 0.1)
{
	for my $who (sort keys %socket)
	{
		next if $closed{$who};
		$closed{$who} = 1 if closed($socket{$who});
		# a byte now and then does not help
		syswrite $socket{$who}, 'a' if !$closed{$who} && $who !~ /stays|nothing/;
	}
}
ok($closed{$_}, "who $_ is let go") for sort keys %slow;

# One that does not read, and one that reads slowly: the answers are more than the kernel keeps.
sub reader
{
	socket(my $s, PF_INET, SOCK_STREAM, 0) or die;
	setsockopt $s, SOL_SOCKET, SO_RCVBUF, 4096;
	connect $s, pack_sockaddr_in($quick->{port}, inet_aton('127.0.0.1')) or die "connect: $!";
	syswrite $s, head('GET', '/api/connectors/c/resources?pageSize=300', 'Authorization: Bearer ' . $quick->reader) x 60;
	return $s;
}
my $cut = metric($quick, 'connections_cut_total');
my ($none, $some) = (reader(), reader());
my ($got, $begun) = (0, time);
my $all = 60 * length $quick->get('/api/connectors/c/resources?pageSize=300', token => $quick->reader)->{content};
while ($got < $all)
{
	my $n = sysread $some, my $piece, 200_000 or last;
	$got += $n;
	sleep 0.01 if time - $begun < 5;
}
cmp_ok($got, '>', $all, 'who reads slowly gets all of it');
close $some;
becomes(sub { metric($quick, 'connections_cut_total') > $cut && metric($quick, 'requests_active') == 1 }, 'who does not read is let go');
my $kept = 0;
while (my $n = sysread $none, my $piece, 200_000) { $kept += $n }
cmp_ok($kept, '<', 1_000_000, 'and the system has kept little for it');
close $none;
is($quick->get('/live')->{status}, 200, 'the server goes on');
is($quick->stop, 0, 'and stops');

#
# Large ones
#

my $limit = 1048576;
sub webhook { my ($content, %headers) = @_; return $g->request('POST', '/api/webhooks/c', content => $content, type => 'application/json', headers => \%headers)->{status} }
sub chunked { my ($text) = @_; return $g->exchange(head('POST', '/api/webhooks/c', 'Transfer-Encoding: chunked') . join('', map { sprintf "%x$nl%s$nl", length, $_ } unpack '(a10000)*', $text) . "0$nl$nl")->{statuses}[0] }
is(webhook('x' x $limit), 401, 'a body of 1 MiB is read');
is(webhook('x' x ($limit + 1)), 413, 'a byte more is not');
is(chunked('x' x $limit), 401, 'nor is there a difference in chunks');
is(chunked('x' x ($limit + 1)), 413, 'with a byte more');
is(webhook('x' x 7_000_000), 413, 'who sends far more is told, too');
sub packed { my ($text) = @_; gzip(\$text, \my $out) or die $GzipError; return $out }
my %gzip = ('Content-Encoding' => 'gzip');
is(webhook(packed('{}'), %gzip), 401, 'a body in gzip is unpacked');
is(webhook(packed('x' x $limit), %gzip), 401, 'up to 1 MiB');
is(webhook(packed('x' x ($limit + 1)), %gzip), 413, 'and no more');
is(webhook(packed('x' x 50_000_000), %gzip), 413, 'however much more');
is(webhook($_->[1], %gzip), 400, $_->[0])
  for [ 'half of it', substr(packed('x' x 1000), 0, -9) ], [ 'no end', substr(packed('{}'), 0, -1) ], [ 'no gzip', '{}' ], [ 'nothing', '' ], [ 'what follows it', packed('{}') . 'x' ], [ 'two in a row', packed('{}') . packed('{}') ],
	[ 'a wrong sum', substr(packed('{}'), 0, -8) . 'abcdefgh' ], [ 'zlib', "\x78\x9c\x03\x00\x00\x00\x00\x01" ], [ 'a head alone', "\x1f\x8b\x08\0\0\0\0\0\0\3" ];
is(webhook('{}', 'Content-Encoding' => $_), 415, "coding $_") for 'br', 'deflate', 'zstd', 'gzip, gzip', 'compress', 'x';
is(webhook('{}', 'Content-Encoding' => 'identity'), 401, 'no coding');

#
# Many ones
#

sub open_many
{
	my ($server, $n, $bytes) = @_;
	my @sockets;
	for (1 .. $n)
	{
		my $s = $server->connect or last;
		syswrite $s, $bytes if length $bytes;
		push @sockets, $s;
	}
	return @sockets;
}
my $few = Gateway->new($f, roles => 0, settings => { connections => 200, header_timeout => 600, body_timeout => 600, idle_timeout => 600 });
is($few->get('/api/me', token => $few->reader)->{status}, 200, 'an honest client with a connection that it keeps');
for my $what ([ 'nothing', '' ], [ 'half a head', 'GET /' ], [ 'half a body', head('POST', '/api/webhooks/c', 'Content-Length: 1000') . 'x' ])
{
	my @sockets = map {
		my @more = open_many($few, 50, $what->[1]);
		$few->get('/api/me', token => $few->reader)->{status} == 200 or fail('the honest client was not served');
		@more } 1 .. 10;
	is(scalar @sockets, 500, "500 clients that send $what->[0], where there is room for 200");
	is($few->exchange(head('GET', '/live', 'Connection: close'))->{statuses}[0], 200, 'somebody new is served');
	becomes(sub { closed($sockets[0]) }, 'who came first has gone');
	ok(!closed($sockets[-1]), 'who came last has not');
	cmp_ok(metric($few, 'connections'), '<=', 200, 'there are no more than there may be');
	close $_ for @sockets;
}
becomes(sub { metric($few, 'connections') < 10 }, 'all of them are gone');
is($few->stop, 0, 'that server stops');

my $each = Gateway->new($f, roles => 0, settings => { connections_per_address => 10 });
sleep 0.05 while metric($each, 'connections') > 1;
my @own = open_many($each, 20, head('GET', '/live'));
my $answers = grep { ($each->exchange('', socket => $_, answers => 1)->{statuses}[0] // 0) == 200 } @own;
is($answers, 9, 'an address has as many connections as it may have');
my $stranger = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $each->{port}, LocalAddr => '127.0.0.2');
is($each->exchange(head('GET', '/live', 'Connection: close'), socket => $stranger)->{statuses}[0], 200, 'another one has its own');
close $_ for @own;
$each->stop;

SKIP:
{
	my $n = 10_000;
	my $hard = `bash -c 'ulimit -Hn'`;
	chomp $hard;
	skip "there may be $hard files open only", 3 if $hard ne 'unlimited' && $hard < $n + 1000;
	my $many = Gateway->new($f, roles => 0, settings => { header_timeout => 600 });
	my $program = q{use IO::Socket::INET; $| = 1; my @s; for (1 .. $ARGV[1]) { my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $ARGV[0]) or last; syswrite $s, 'GET /'; push @s, $s } print scalar(@s), "\n"; <STDIN>};
	my $limit = $n + 100;
	my $pid = open my $out, '-|', 'bash', '-c', "ulimit -n $limit; exec $^X -e '" . $program =~ s/'/'\\''/gr . "' $many->{port} $n < <(sleep 600)";
	my ($served, $asked) = (0, 0);
	until (IO::Select->new($out)->can_read(0))
	{
		$asked++;
		$served++ if $many->get('/api/me', token => $many->reader)->{status} == 200;
		sleep 0.01;
	}
	is(<$out> + 0, $n, "$n clients connect");
	cmp_ok($asked, '>', 0, 'one asks meanwhile');
	is($served, $asked, 'and always has an answer');
	becomes(sub { metric($many, 'connections') >= $n }, 'all of them are there');
	is($many->get('/api/connectors/c', token => $many->reader)->{status}, 200, 'and others are served');
	kill 'TERM', $pid;
	close $out;
	becomes(sub { metric($many, 'connections') < 10 }, 'then they are gone');
	is($many->stop, 0, 'that server stops');
}

#
# Often
#

my $rated = Gateway->new($f, roles => 0, settings => { webhooks_per_second => 1, webhooks_per_second_address => 0, failures_per_second => 0 });
my @seen = map { $rated->request('POST', '/api/webhooks/c', content => '{}') } 1 .. 60;
is($seen[0]{status}, 401, 'a webhook');
my ($refused) = grep { $_->{status} == 429 } @seen;
ok($refused, 'of many in a second some are refused');
cmp_ok($refused->{headers}{'retry-after'} // 0, '>=', 1, 'with when to come again');
is($rated->request('POST', '/api/webhooks/other', content => '{}')->{status}, 401, 'those of another connector are not');
is($rated->get('/live')->{status}, 200, 'nor is anything else');
$rated->stop;

$rated = Gateway->new($f, roles => 0, settings => { webhooks_per_second => 0, webhooks_per_second_address => 1, failures_per_second => 1, trusted_proxies => '127.0.0.1 10.0.0.9' });
my $sent = 0;
# The status of the last of many webhooks that say that they come from somewhere.
sub many_from { my (@from) = @_; return (map { $sent++; ($rated->exchange(head('POST', '/api/webhooks/c', 'Content-Length: 0', 'Connection: close', map { "X-Forwarded-For: $_" } @from))->{statuses}[0]) } 1 .. 60)[-1] }
is(many_from('192.0.2.1'), 429, 'many from one address, behind a load balancer that is trusted');
my $once = sub { my (@from) = @_; return $rated->exchange(head('POST', '/api/webhooks/c', 'Content-Length: 0', 'Connection: close', map { "X-Forwarded-For: $_" } @from))->{statuses}[0] };
is($once->('192.0.2.2'), 401, 'another one is another one');
many_from('192.0.2.1');
is($once->($_), 429, "$_ is the same") for '192.0.2.9, 192.0.2.1', '192.0.2.1:4711', ' 192.0.2.1 ', '192.0.2.9,192.0.2.1, 10.0.0.9';
is($once->('192.0.2.9', '192.0.2.1'), 429, 'so it is in a header of its own');
is($once->('192.0.2.1', '192.0.2.3'), 401, 'and who is named before is not who it is');
many_from('2001:db8::1');
is($once->('[2001:db8::2]:4711'), 429, 'a network of IPv6 is one');
is($once->('2001:db8:0:1::1'), 401, 'another one is not');
many_from('nonsense');
is($once->($_), 429, "'$_' is the load balancer itself") for 'x', '192.0.2.300', '<script>', '';
my $untrusted = sub {
	my ($from) = @_;
	my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $rated->{port}, LocalAddr => '127.0.0.3');
	return $rated->exchange(head('POST', '/api/webhooks/c', 'Content-Length: 0', 'Connection: close', "X-Forwarded-For: $from"), socket => $s)->{statuses}[0];
};
is((map { $untrusted->("192.0.2.$_") } 1 .. 60)[-1], 429, 'who is not trusted is who sends, whatever is said');

my @bad = map { $rated->exchange(head('GET', '/api/me', 'Authorization: Bearer x', 'X-Forwarded-For: 198.51.100.1', 'Connection: close')) } 1 .. 60;
is($bad[0]{statuses}[0], 401, 'a bad token');
($refused) = grep { $_->{statuses}[0] == 429 } @bad;
ok($refused, 'of many some are not looked at');
like($refused->{text}, qr/^Retry-After: \d+\r$/m, 'with when to come again');
my $from = sub { return $rated->exchange(head('GET', '/api/me', "Authorization: Bearer $_[0]", "X-Forwarded-For: $_[1]", 'Connection: close'))->{statuses}[0] };
is($from->($rated->reader, '198.51.100.2'), 200, 'a good one from elsewhere is');
is($from->($rated->reader, '198.51.100.1'), 200, 'and one that is known, from there as well');
is($rated->exchange(head('GET', '/metrics', 'X-Forwarded-For: 127.0.0.1', 'Connection: close'))->{statuses}[0], 401, 'who comes through somebody is not on this machine');
$rated->stop;

#
# Memory and files
#

my $n = $ENV{HTTP_REQUESTS} // 2000;
my ($reader, $manager) = ($g->reader, $g->manager);
my @kinds = map { head($_->[0], $_->[1], 'Content-Length: ' . length($_->[2] // ''), @$_[ 3 .. $#$_ ]) . ($_->[2] // '') }
  [ 'GET', '/live' ], [ 'GET', '/none' ], [ 'GET', '/api/me' ], [ 'GET', '/api/me', '', "Authorization: Bearer $reader" ], [ 'GET', '/api/connectors?page=x', '', "Authorization: Bearer $reader" ],
  [ 'GET', '/api/connectors/c/resources?pageSize=300', '', "Authorization: Bearer $reader" ], [ 'GET', '/openapi.json' ], [ 'GET', '/metrics' ], [ 'PATCH', '/live', 'x' x 5000 ],
  [ 'POST', '/api/webhooks/c', '{"a":1}' ], [ 'POST', '/api/webhooks/c', packed('x' x 10000), 'Content-Encoding: gzip' ], [ 'POST', '/api/webhooks/c', 'x' x 100, 'Content-Encoding: gzip' ],
  [ 'PUT', '/api/connectors/none', '{"a":[' . '1,' x 1000 . '1]}', "Authorization: Bearer $manager", 'Content-Type: application/json' ], [ 'PUT', '/api/connectors/c', '{"a":', "Authorization: Bearer $manager", 'Content-Type: application/json' ];
# Those end their connection, or are left in the middle.
my @last = (head('GET', '/x y'), "GET /live HTTP/1.1$nl$nl", head('GET', '/live', 'X: ' . 'a' x 40_000), head('POST', '/api/webhooks/c', 'Transfer-Encoding: chunked') . "zzz$nl", head('GET', '/live?' . join '&', map { "a$_=1" } 1 .. 1000));
my $done = 0;
my $tokens = 0;
sub some_requests
{
	my ($count) = @_;
	for (my $until = $done + $count; $done < $until;)
	{
		my $bytes = join '', @kinds, map { head('GET', '/api/me', 'Authorization: Bearer ' . $g->jwt({ role => 'app_reader', jti => ++$tokens })) } 1 .. 6;
		$g->exchange($bytes, answers => 20);
		$done += 20;
		$g->exchange($last[ $done / 20 % @last ]);
		my $s = $g->connect;
		syswrite $s, substr $bytes, 0, 1 + int rand length $bytes;
		close $s;
	}
	return;
}
my $files = sub { my @f = glob "/proc/$g->{pid}/fd/*"; return scalar @f };
becomes(sub { metric($g, 'connections') <= 1 }, 'at the beginning nobody is there');
some_requests(600);
becomes(sub { metric($g, 'connections') <= 1 && metric($g, 'requests_active') == 1 }, 'after some requests there is nobody again');
my ($memory, $open) = (metric($g, 'resident_memory_bytes'), $files->());
some_requests($n);
becomes(sub { metric($g, 'connections') <= 1 && metric($g, 'requests_active') == 1 }, "nor after $n more");
my $more = metric($g, 'resident_memory_bytes') - $memory;
SKIP:
{
	skip 'the address sanitizer keeps what was freed', 1 if `ldd $ENV{GATEWAY}` =~ /libasan/;
	cmp_ok($more, '<', 6e6, 'memory has not grown: ' . int($more / 1024) . ' kB');
}
# Connections to the database stay open, as many as were at work at a time.
cmp_ok($files->(), '<', $open + 20, 'nor has the number of open files');
ok($g->alive, 'flohsync-http is still the same process');
is($g->stop, 0, 'it stops');
done_testing();
