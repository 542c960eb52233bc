# What upstreams may not make us do: reach inner addresses however they are
# spelled, follow redirects elsewhere, send credentials there, take too much;
# and how many requests they are willing to take.
use strict;
use warnings;

use Flohsync;
use IO::Select;
use IO::Socket::IP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# Names that are none, and whatever a fault would let through, must not leave the machine (test/lib/alone).
if (!$ENV{FLOHSYNC_ALONE})
{
  SKIP: { skip 'it needs a network of its own', 1 }
	done_testing();
	exit;
}

my $dir = PostgreSQL::Test::Utils::tempdir();

# Names resolve as this file says; nss_wrapper looks at it again when it changes.
my ($wrapper) = grep { -e } map { "$_/libnss_wrapper.so" } glob('/usr/lib/*'), '/usr/lib';
my $hosts = "$dir/hosts";
my $changes = 0;

sub names
{
	my %addresses = @_;
	my $text = "127.0.0.1 localhost\n";
	for my $name (sort keys %addresses)
	{
		$text .= "$_ $name\n" for @{ $addresses{$name} };
	}
	open my $out, '>', "$hosts.new" or die "$hosts.new: $!";
	print $out $text;
	close $out;
	# Its age is looked at in seconds.
	utime time + ++$changes, time + $changes, "$hosts.new" or die $!;
	rename "$hosts.new", $hosts or die $!;
	return;
}
names();
open my $netrc, '>', "$dir/.netrc" or die $!;
print $netrc "default login nobody password netrc\n";
close $netrc;
my $f = do
{
	# None of these may be used, but the names.
	local %ENV = (%ENV, HOME => $dir, map { $_ => 'http://127.0.0.1:1/' } qw(http_proxy https_proxy HTTPS_PROXY all_proxy ALL_PROXY));
	@ENV{qw(LD_PRELOAD NSS_WRAPPER_HOSTS)} = ($wrapper, $hosts) if $wrapper;
	Flohsync->new(upstream => 0, conf => "flohsync.http_timeout = 3\nflohsync.http_max_response_size = '1MB'\nflohsync.http_max_attempts = 2\nflohsync.http_max_retry_wait = 1s\nflohsync.http_retry_delay = 1ms\n");
};
$f->start_upstream(records => 'user=30');

my $port = $f->{port};
$f->connector('c');

sub allow { $f->sql('SET flohsync.http_allowed_networks = ' . literal($_[0])); return }

# What a URL comes to: "reached", or why not.
sub comes_to
{
	my ($url) = @_;
	my $config = json_text({ url => $url, commands => ['listUsers'] });
	my $r = $f->try_sql('SELECT flohsync.update_connector(' . literal('c') . ', jsonb_build_object(\'config\', ' . literal($config) . '::jsonb))');
	return "refused: $r->{message}" unless $r->{ok};
	my $test = $f->json("SELECT flohsync.test_connector('c')");
	return $test->{ok} ? 'reached' : $test->{error};
}

#
# Spellings of addresses
#

# An IPv4 address in the ways that resolvers understand it.
sub spellings
{
	my @b = split /\./, $_[0];
	my $n = $b[0] << 24 | $b[1] << 16 | $b[2] << 8 | $b[3];
	my $dotted = join '.', @b;
	my %seen;
	return grep { !$seen{$_}++ } (
		$dotted, "$dotted.",
		$n, sprintf('0%o', $n), sprintf('0x%x', $n), sprintf('0X%X', $n), sprintf('0x%010x', $n), sprintf('000000%o', $n),
		join('.', map { sprintf '0x%x', $_ } @b), join('.', map { sprintf '0x%08X', $_ } @b),
		join('.', map { sprintf '0%o', $_ } @b), join('.', map { sprintf '00000%o', $_ } @b),
		sprintf('%d.%d', $b[0], $n & 0xffffff), sprintf('%d.%d.%d', @b[0, 1], $n & 0xffff),
		sprintf('0x%x.0%o', $b[0], $n & 0xffffff), sprintf('0%o.%d.0x%x', @b[0, 1], $n & 0xffff), sprintf('%d.0x%x.0%o.%d', @b),
		(map { my $i = $_; join '', map { sprintf '%%%02x', ord } split //, $dotted } 1),
		$dotted =~ s/\./%2e/gr, $dotted =~ s/1/%31/gr, $dotted =~ tr/./\x{3002}/r, $dotted =~ tr/./\x{ff0e}/r,
		join('.', map { tr/0-9/\x{ff10}-\x{ff19}/r } @b));
}

sub spellings6
{
	my @b = split /\./, $_[0];
	my ($high, $low) = ($b[0] << 8 | $b[1], $b[2] << 8 | $b[3]);
	my $dotted = join '.', @b;
	return map { "[$_]" } ("::ffff:$dotted", sprintf('::ffff:%x:%x', $high, $low), sprintf('0:0:0:0:0:FFFF:%04X:%04X', $high, $low),
		sprintf('0000:0000:0000:0000:0000:ffff:%s', $dotted), "0::ffff:$dotted", "::ffff:0:$dotted", "::$dotted",
		"64:ff9b::$dotted", sprintf('64:ff9b:1::%x:%x', $high, $low), sprintf('2002:%x:%x::1', $high, $low),
		sprintf('2001:0:%x:%x::', $high, $low), sprintf('fe80::5efe:%s', $dotted));
}

my @loopback = (spellings('127.0.0.1'), qw(127.0.0.2 127.1.2.3 127.255.255.254 127.1 0x7f.1 localhost LOCALHOST LocalHost 0 0.0.0.0 00 0x0 000.000.000.000));
my @others = (
	(map { spellings($_), spellings6($_) } qw(10.0.0.5 169.254.169.254 192.168.1.1 172.16.0.1)), (map { spellings6($_) } qw(127.0.0.1)),
	qw(100.100.100.200 192.0.0.192 198.18.0.1 168.63.129.16 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255),
	map { "[$_]" } qw(:: ::1 0:0:0:0:0:0:0:1 0000::0001 ::1%25lo ::0001%251 fe80::1 fe80::1%25eth0 fe80::1%251 febf::1 fec0::1 fc00::1
	  fd00::1 fd00:ec2::254 fdff::1 ff02::1 ff02::1%25lo 2001:db8::1 100::1 5f00::1 3fff::1 4000::1 64:ff9b:1::5efe:8.8.8.8 64:ff9b:1::200:5efe:808:808 2002:808:808::5efe:7f00:1 ::ffff:0.0.0.0 ::ffff:0:0 64:ff9b::7f00:1));

$f->up('log', clear => 1);
my $before = $f->up('log', last => 0)->{requests};
allow('');
my (@refused, @not);
for my $host (@loopback, @others)
{
	my $what = comes_to("http://$host:$port/");
	if ($what =~ /is not allowed by flohsync\.http_allowed_networks|^refused: invalid value for "url"/) { push @refused, $host }
	# With a dot at the end it is a name, and nobody's.
	elsif ($host =~ /^[0-9.]+\.$/ && $what =~ /Could not resolve host/) { push @refused, $host }
	else { push @not, "$host: $what" }
}
is(join("\n", @not), '', 'no spelling of an inner address is reached');
cmp_ok(scalar(@refused), '>=', 200, 'that were ' . @refused . ' spellings');
is($f->up('log', last => 0)->{requests}, $before, 'and nobody was asked');

# The same spellings are good where the network is allowed: it is not for something else that they failed.
allow('127.0.0.0/8, 0.0.0.0/32');
my %came = map { $_ => comes_to("http://$_:$port/") } @loopback;
my @reached = grep { $came{$_} eq 'reached' } @loopback;
cmp_ok(scalar(@reached), '>=', 25, scalar(@reached) . ' of ' . @loopback . ' spellings of the loopback address reach it where it is allowed')
  or diag(join "\n", map { "$_: $came{$_}" } grep { $came{$_} ne 'reached' } @loopback);
allow('127.0.0.1/32');
is(comes_to("http://127.0.0.1:$port/"), 'reached', 'one address can be allowed');
like(comes_to("http://127.0.0.2:$port/"), qr/127\.0\.0\.2 is not allowed/, 'and the next one not');
is(comes_to("http://[::ffff:127.0.0.1]:$port/"), 'reached', 'mapped into IPv6 it is the same one');
like(comes_to("http://10.0.0.5:$port/"), qr/10\.0\.0\.5 is not allowed/, 'others are not');
for my $p (22, 25, 110, 6379, 5432, 6667, $f->node->port)
{
	like(comes_to("http://127.0.0.1:$p/"), qr/port $p is not allowed for HTTP/, "nor is port $p");
}
like(comes_to('http://127.0.0.1:0/'), qr/port 0|refused/, 'nor port 0');

#
# Addresses at which there is somebody: in the test's own network all these are ours.
#

my %open = map { $_ => 1 } qw(9.9.9.9 2620:fe::9 64:ff9b::909:909);
my $page = '{"success": true, "payload": {"resources": []}}';
my $listen = IO::Socket::IP->new(LocalHost => '::', V6Only => 0, LocalPort => 0, Listen => 16) // IO::Socket::IP->new(LocalHost => '0.0.0.0', LocalPort => 0, Listen => 16) // die "listen: $@";
my $there = $listen->sockport;
pipe(my $heard, my $tell) or die $!;
my $server = fork() // die "fork: $!";
if ($server == 0)
{
	my %keep = map { fileno($_) => 1 } $listen, $tell;
	$keep{$_} or POSIX::close($_) for 3 .. 255;
	while (my $c = $listen->accept)
	{
		my $asked = '';
		syswrite $tell, '.';
		while ($asked !~ /\r\n\r\n/ && IO::Select->new($c)->can_read(5) && sysread $c, $asked, 65536, length $asked) { }
		syswrite $c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: " . length($page) . "\r\n\r\n$page";
		shutdown $c, 1;
		while (IO::Select->new($c)->can_read(0.2) && sysread $c, my $rest, 65536) { }
		close $c;
	}
	POSIX::_exit(0);
}
close $listen;
close $tell;

sub heard { my $n = ''; while (IO::Select->new($heard)->can_read(0)) { sysread($heard, $n, 4096, length $n) or last } return length $n }

for my $address (split ' ', $ENV{FLOHSYNC_ALONE})
{
	my $url = 'http://' . ($address =~ /:/ ? "[$address]" : $address) . ":$there/";
	allow('127.0.0.0/8, 192.168.0.0/16');
	my $what = comes_to($url);
	if ($open{$address})
	{
		is($what, 'reached', "$address is everybody's, and reached");
		cmp_ok(heard(), '>', 0, 'by a request');
		next;
	}
	like($what, qr/is not allowed by/, "$address is not reached, though somebody is there");
	is(heard(), 0, 'who hears nothing');
	allow($address);
	is(comes_to($url), 'reached', 'where it is allowed, it is');
	cmp_ok(heard(), '>', 0, 'by a request');
}
kill 'KILL', $server;
waitpid $server, 0;

#
# Addresses that are none
#

for my $url (
	"ftp://127.0.0.1:$port/", "file:///etc/passwd", "FILE:///etc/passwd", "gopher://127.0.0.1:$port/_x", "dict://127.0.0.1:$port/x", "ldap://127.0.0.1/",
	"smb://127.0.0.1/x", "scp://127.0.0.1/x", "telnet://127.0.0.1:$port", "mqtt://127.0.0.1/", "ws://127.0.0.1/", "unix:///tmp/x", "javascript:x", "data:,x", "jar:http://x!/",
	"//127.0.0.1:$port/", "127.0.0.1:$port", "localhost:$port/", "/etc/passwd", "http:", "http:/", "http:/x", "http:///x", "http://", "https://:443/", "http://?x", "http://#x",
	"http://user\@127.0.0.1:$port/", "http://user:pass\@127.0.0.1:$port/", "http://:\@127.0.0.1:$port/", "http://example.com\@127.0.0.1:$port/",
	"http://127.0.0.1:$port\@example.com/", "http://a%40b:c\@127.0.0.1/", "http://127.0.0.1:x/", "http://127.0.0.1:99999/", "http://127.0.0.1:-1/", "http://127.0.0.1:$port:80/",
	"http://127.0.0.1:$port/a b", " http://127.0.0.1:$port/", "http://127.0.0.1:$port/\t", "http://127.0.0.1:$port/\n", "http://127.0.0.1:$port/\r\nX-Evil: 1",
	"http://127.0.0.1\r\n:$port/", "http://127.0.0.1:$port/\x{7f}", "http://127.0.0.1:$port/\x01", "http://[127.0.0.1]/", "http://[::1/", "http://::1/", "http://[::1]x/",
	"http://[::g]/", "http://[]/", "http://[::ffff:127.0.0.1/", "http://%/", "http://%25/", "http://a;b/", "http://a*b/", "http://\x{e4}.example.com/", "http://127.0.0.1:$port/\x{e4}", "http://%00/", "http://127.0.0.1%00.example.com/", "http://127.0.0.1%0d%0aHost:x/", "http://127.0.0.1%2f\@x/",
	"http:\\\\127.0.0.1:$port\\", "http://127.0.0.1\\\@example.com/", "http://exa mple.com/", "http://<127.0.0.1>/", "http://127.0.0.1,127.0.0.2/", "http://{127.0.0.1}/")
{
	my $name = $url =~ s/([^\x21-\x7e])/sprintf '\\x%02x', ord $1/ger;
	my $what = comes_to($url);
	like($what, qr/^refused: invalid value for "url"/, "no address: $name");
}
for my $header ("X-A\r\nX-B", 'X A', 'X:A', '', "X-\x{e4}", 'Host', 'content-length', 'Transfer-Encoding', 'connection', 'Proxy-Authorization', 'TE', 'Upgrade', 'Accept-Encoding', 'Expect')
{
	my $config = json_text({ url => $f->url, headers => { $header => 'x' } });
	$f->fails_like("SELECT flohsync.create_connector('h', 'command', " . literal($config) . ')', '22023', qr/"headers".*header/, 'no header of ours: ' . ($header =~ s/\r\n/\\r\\n/r));
}
for my $value ("a\r\nX-Evil: 1", "a\nb", "a\x{7f}", "a\x01b", "\r")
{
	my $config = json_text({ url => $f->url, headers => { 'X-A' => $value } });
	$f->fails_like("SELECT flohsync.create_connector('h', 'command', " . literal($config) . ')', '22023', qr/header "X-A" is malformed/, 'nor with control characters');
}
# Past the checks, by hand
$f->sql("SELECT flohsync.update_connector('c', '{\"config\": " . json_text({ url => $f->url, commands => ['listUsers'] }) . "}')");
my $asked = $f->up('log', last => 0)->{requests};
# Past the trigger that refuses it, the code that sends refuses it as well.
sub unguarded { return $f->sql("SET session_replication_role = replica; $_[0]; RESET session_replication_role") }
is($f->try_sql("UPDATE flohsync.connector_definition SET config = config || jsonb_build_object('headers', jsonb_build_object('X-A', E'x\\r\\nX-Evil: 1'))")->{state}, '22023', 'no statement stores it');
unguarded("UPDATE flohsync.connector_definition SET config = config || jsonb_build_object('headers', jsonb_build_object('X-A', E'x\\r\\nX-Evil: 1'))");
like($f->json("SELECT flohsync.test_connector('c')")->{error}, qr/could not send.*control characters/, 'what is in the table by other ways is not sent either');
unguarded("UPDATE flohsync.connector_definition SET config = jsonb_build_object('commands', '[\"listUsers\"]'::jsonb, 'url', E'http://127.0.0.1:$port/ HTTP/1.1\\r\\nX-Evil: 1')");
like($f->json("SELECT flohsync.test_connector('c')")->{error}, qr/could not send.*control characters/, 'nor as an address');
is($f->up('log', last => 0)->{requests}, $asked, 'nothing came');

#
# Names
#

SKIP:
{
	skip 'libnss-wrapper is not installed', 1 unless $wrapper;
	allow('');
	names('metadata.test' => ['169.254.169.254'], 'inner.test' => ['10.1.2.3'], 'loop.test' => ['127.0.0.1'], 'six.test' => ['::1'], 'mapped.test' => ['::ffff:127.0.0.1'],
		'two.test' => [ '127.0.0.2', '127.0.0.1' ], 'ten.test' => [ map { "10.0.0.$_" } 1 .. 10 ]);
	for my $name (qw(metadata inner loop LOOP six mapped two ten))
	{
		like(comes_to("http://$name.test:$port/"), qr/is not allowed by/, "a name that resolves to an inner address is not reached: $name");
	}
	allow('127.0.0.1/32');
	is(comes_to("http://loop.test:$port/"), 'reached', 'where that is allowed, it is');
	is(comes_to("http://two.test:$port/"), 'reached', 'of two addresses the allowed one');
	names('loop.test' => ['127.0.0.2']);
	like(comes_to("http://loop.test:$port/"), qr/127\.0\.0\.2 is not allowed/, 'a name that resolves otherwise the next time is judged by that');

	# The same for runs, in processes of their own
	names('loop.test' => ['127.0.0.1']);
	$f->node->append_conf('postgresql.conf', "flohsync.http_allowed_networks = '127.0.0.1/32'\n");
	$f->node->reload;
	$f->connector('rebinding', url => "http://loop.test:$port/");
	$f->sync_ok('rebinding', 'user', 'a run by name');
	names('loop.test' => ['127.0.0.2']);
	$f->sync_fails('rebinding', 'user', qr/127\.0\.0\.2 is not allowed/, 'and one after the name has got another address');
	is($f->last_run('rebinding', 'user')->{error_class}, 'blocked_address', 'which is a class of its own');
}

#
# Redirects
#

allow('127.0.0.0/8');
$f->sql("SELECT flohsync.update_connector('c', '{\"config\": " . json_text({ url => $f->url, commands => ['listUsers'] }) . "}')");
(my $key_file = "$dir/key") =~ s/'//g;
open my $key, '>', $key_file or die $!;
print $key 'ab' x 32;
close $key;
chmod 0600, $key_file;
$f->node->append_conf('postgresql.conf', "flohsync.encryption_key_file = '$key_file'\n");
$f->node->reload;
$f->wait_for("SELECT current_setting('flohsync.encryption_key_file') <> ''");
$f->sql("SELECT flohsync.set_secret('c', 'token', '4711-not-for-others')");

# A second server: it must hear nothing.
my $g = bless {}, 'Flohsync';
$g->start_upstream;
sub redirected
{
	my ($code, $location, $times) = @_;
	$f->up('heal');
	$f->fault('redirect', code => $code, location => $location, times => $times // 1);
	$f->clear_log;
	return $f->json("SELECT flohsync.test_connector('c')");
}
for my $to ("http://127.0.0.1:$g->{port}/", "https://127.0.0.1:$port/", "http://localhost:$port/", "http://127.0.0.2:$port/", "//127.0.0.1:$g->{port}/x", "http://127.0.0.1/")
{
	for my $code (301, 302, 303, 307, 308)
	{
		my $r = redirected($code, $to);
		like($r->{error} // 'none', qr/status $code redirects to another origin/, "$code to $to is not followed");
		is(scalar($f->requests), 1, 'there is one request');
	}
}
is(scalar($g->requests), 0, 'the other server heard nothing');
for my $to ("http://user:pass\@127.0.0.1:$port/", 'file:///etc/passwd', "ftp://127.0.0.1:$port/", 'gopher://127.0.0.1/', "http://127.0.0.1:$port\@evil.test/", 'http://')
{
	my $r = redirected(307, $to);
	like($r->{error} // 'none', qr/redirects to (?:an invalid URL|another origin)|status 307/, "307 to $to is not followed");
	is(scalar($f->requests), 1, 'there is one request');
}
for my $to ('/elsewhere', "http://127.0.0.1:$port/elsewhere?a=b", '?x', 'elsewhere/', "HTTP://127.0.0.1:$port/up", "//127.0.0.1:$port/x")
{
	for my $code (307, 308)
	{
		my $r = redirected($code, $to);
		ok($r->{ok}, "$code to $to is followed") or diag($r->{error});
		my @requests = $f->requests;
		is(join(' ', map { "$_->{asked}{command} $_->{headers}{authorization}" } @requests), join(' ', ('listUsers Bearer 4711-not-for-others') x 2), 'with body and credentials');
	}
	for my $code (301, 302, 303)
	{
		like(redirected($code, $to)->{error} // 'none', qr/status $code redirects a request that is not a GET/, "$code to $to is not: it would change the method");
	}
}
ok(redirected(307, '/elsewhere', 3)->{ok}, 'three redirects are followed');
like(redirected(307, '/elsewhere', -1)->{error}, qr/redirects more than 3 times/, 'not for ever');
is(scalar($f->requests), 4, 'but four requests');
$f->up('heal');
$f->fault('status', code => 304, times => 1);
like($f->json("SELECT flohsync.test_connector('c')")->{error}, qr/status 304/, 'a status that is no redirect is told as it is');

#
# Too much, too long
#

for my $case (
	[ [ 'gzip_bomb', bytes => 200 << 20 ], qr/larger than flohsync\.http_max_response_size \(1024 kB\)/, 'a compressed bomb' ],
	[ ['endless_body'], qr/larger than flohsync\.http_max_response_size/, 'an endless body' ],
	[ [ 'endless_body', length => 1 ], qr/larger than flohsync\.http_max_response_size/, 'an announced terabyte' ],
	[ ['header_flood'], qr/the answer has more than 500 headers/, 'endless headers' ],
	[ [ 'raw', body => "no header at all\n{\"success\":true,\"payload\":{\"resources\":[]}}" ], qr/HTTP\/0\.9/, 'an answer of HTTP/0.9' ],
	[ ['hang'], qr/timed out/i, 'an answer that does not come' ],
	[ [ 'drip', rate => 1 ], qr/timed out|too slow/i, 'one that comes byte by byte' ])
{
	my ($fault, $says, $name) = @$case;
	my ($kind, @args) = @$fault;
	$f->up('heal');
	$f->fault($kind, @args, times => -1);
	my $begun = time;
	like($f->json("SELECT flohsync.test_connector('c')")->{error}, $says, "$name is cut off");
	cmp_ok(time - $begun, '<=', 5, 'in time');
	$f->up('release');
}
$f->up('heal');

# No cookies, no Expect, no login of a .netrc, no proxy of the environment
$f->clear_log;
$f->sync_ok('c', 'user', 'a run beside all this');
is(join(' ', sort grep { !/^(?:host|accept|accept-encoding|authorization|content-length|content-type|user-agent)$/ } map { keys %{ $_->{headers} } } $f->requests), '', 'sends no header that is not needed');
is(join(' ', grep { $_ ne 'Bearer 4711-not-for-others' } map { $_->{headers}{authorization} } $f->requests), '', 'and no credentials but its own');

#
# Requests per minute, of either kind
#

# 40 a minute are 1.5 s apart: longer than a run would wait for an upstream (flohsync.http_max_retry_wait).
$f->fresh(user => 1200);
my %config = (url => "http://127.0.0.1:$port/", commands => ['listUsers']);
my %rest = (version => 1, base_url => "http://127.0.0.1:$port/rest/cursor", resources => { user => {
	list => { path => '/users', page_size => { param => 'pageSize', default => 500 }, records => '$.resources[*]',
		pagination => { type => 'cursor', path => '$.nextCursor', param => 'cursor' } },
	map => { externalId => '$.externalId' } } });
for my $kind (qw(command rest))
{
	for my $limit (undef, 40)
	{
		my %limits = $limit ? (limits => { requests_per_minute => $limit }) : ();
		my $name = "$kind, " . ($limit ? "$limit requests a minute" : 'no limit');
		$f->sql("SELECT flohsync.create_connector('$name', '$kind', " . ($kind eq 'command' ? Flohsync::jsonb({ %config, %limits }) : "'{}', " . Flohsync::jsonb({ %rest, %limits })) . ')');
		$f->configure($name, 'user');
		# A page that is asked for again counts as well.
		$f->fault('status', code => 503, page => 2, times => 1);
		$f->clear_log;
		my $begun = time;
		my $stats = $f->sync_ok($name, 'user', "$name: a run");
		my $seconds = time - $begun;
		is($stats->{added}, 1200, "$name: has all records");
		is($f->pages_asked('user'), '1 2 2 3', "$name: of three pages, one of them twice");
		$limit ? cmp_ok($seconds, '>=', 4.4, "$name: three times 1.5 s") : cmp_ok($seconds, '<', 4, "$name: at once");
		cmp_ok($seconds, '<', 9, "$name: and no longer");
	}
}
for my $limit (0, -1, 1.5, 100001, '"40"', 'true', 'null', '[]')
{
	$f->fails_like("SELECT flohsync.create_connector('x', 'command', '{\"url\": \"http://127.0.0.1/\", \"limits\": {\"requests_per_minute\": $limit}}')",
		'22023', qr/"requests_per_minute": it must be an integer from 1 to 100000/, "requests_per_minute: $limit is refused");
}
for my $limits ('40', '"40"', '[]', 'null', '{"requestsPerMinute": 40}')
{
	$f->fails_like("SELECT flohsync.create_connector('x', 'command', '{\"url\": \"http://127.0.0.1/\", \"limits\": $limits}')",
		'22023', qr/limits/, "limits: $limits is refused");
}
for my $limit (1, 100000, '6e1', '60.0')
{
	ok($f->try_sql("SELECT flohsync.create_connector('x$limit', 'command', '{\"url\": \"http://127.0.0.1/\", \"limits\": {\"requests_per_minute\": $limit}}')")->{ok}, "requests_per_minute: $limit is taken");
}

$f->no_crash;
done_testing();
