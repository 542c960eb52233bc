# Servers that do not speak HTTP, or badly: whoever listens there at the moment,
# it is no fault of the configuration.  It is tried again, and is over when the
# upstream is back.
use strict;
use warnings;

use Rest;
use IO::Socket::INET;
use IO::Select;
use Socket;
use POSIX ();
use Test::More;

my $attempts = 3;
my $f = Rest->new(records => 'user=30', conf => "flohsync.http_timeout = 2\nflohsync.http_max_attempts = $attempts\nflohsync.http_retry_delay = 1ms\nflohsync.http_max_response_size = '1MB'\n");

#
# A server that sends what it is told to: at once, or when something was asked.
#

my @children;
END { my $status = $?; for my $pid (@children) { kill 'KILL', $pid; waitpid $pid, 0 } $? = $status }

# Its port, and a pipe that tells of each connection
sub raw_server
{
	my (%o) = @_;
	my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $o{port} // 0, Listen => 16, ReuseAddr => 1) // die "listen: $!";
	pipe(my $told, my $tell) or die $!;
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		my %keep = map { fileno($_) => 1 } $listen, $tell;
		$keep{$_} or POSIX::close($_) for 3 .. 255;
		local $SIG{PIPE} = 'IGNORE';
		while (my $c = $listen->accept)
		{
			syswrite $tell, '.';
			if (!$o{at_once})
			{
				my $asked = '';
				while ($asked !~ /\r\n\r\n/ && IO::Select->new($c)->can_read(5) && sysread $c, $asked, 65536, length $asked) { }
			}
			for my $text (ref $o{sends} ? @{ $o{sends} } : $o{sends})
			{
				my $sent = 0;
				while ($sent < length $text)
				{
					my $n = syswrite $c, $text, 65536, $sent;
					last unless $n;
					$sent += $n;
				}
			}
			# What was asked is read: closing would reset the connection otherwise.
			setsockopt $c, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0) if $o{reset};
			if (!$o{reset})
			{
				shutdown $c, 1;
				my $rest = '';
				while (IO::Select->new($c)->can_read(0.2) && sysread $c, $rest, 65536) { }
			}
			close $c;
		}
		POSIX::_exit(0);
	}
	push @children, $pid;
	close $tell;
	return { port => $listen->sockport, told => $told, pid => $pid, listen => $listen };
}

sub connections
{
	my ($s) = @_;
	my $n = '';
	while (IO::Select->new($s->{told})->can_read(0)) { sysread($s->{told}, $n, 4096, length $n) or last }
	return length $n;
}

sub stop_server { my ($s) = @_; kill 'KILL', $s->{pid}; waitpid $s->{pid}, 0; @children = grep { $_ != $s->{pid} } @children; close $s->{listen}; return }

my $page = '{"success":true,"payload":{"resources":[]}}';
my $ok = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
my $noise = join '', map { chr(($_ * 7919 + ($_ >> 3) * 104729) % 256) } 1 .. 20000;

# What it sends, the classes that may come of it, options.  All are tried again unless "once" is there.
my @cases = (
	[ 'the banner of an SSH server', "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n", 'protocol', at_once => 1 ],
	[ 'the same, after the request', "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n", 'protocol' ],
	[ 'of a mail server', "220 mx.example.com ESMTP Postfix\r\n", 'protocol', at_once => 1 ],
	[ 'of an FTP server', "220-Welcome\r\n220 ready\r\n", 'protocol', at_once => 1 ],
	[ 'of MySQL', "J\0\0\0\n8.0.36\0\x08\0\0\0aaaaaaaa\0\xff\xf7\xff\x02\0\xff\xdf\x15", 'protocol', at_once => 1 ],
	[ 'an error of PostgreSQL', "E\0\0\0\x30SFATAL\0C0A000\0Munsupported frontend protocol\0\0", 'protocol' ],
	[ 'an error of Redis', "-ERR unknown command 'POST'\r\n", 'protocol' ],
	[ 'noise', $noise, 'protocol' ],
	[ 'noise at once', $noise, 'protocol', at_once => 1 ],
	[ 'zeros', "\0" x 5000, 'protocol' ],
	[ 'an alert of TLS', "\x15\x03\x01\0\x02\x02\x46", 'protocol' ],
	[ 'frames of HTTP/2', "\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0d\0\x04\0\x10\0\0\0\x06\0\x01\0\0", 'protocol' ],
	[ 'HTTP/0.9', $page, 'protocol' ],
	[ 'HTML without a status line', "<html><body>It works!</body></html>\n", 'protocol' ],
	[ 'a status line that is none', "HTTP/1.1 OK\r\n\r\n$page", 'protocol|network' ],
	[ 'a version that there is not', "HTTP/7.3 200 OK\r\n\r\n$page", 'protocol' ],
	[ 'a version with much to it', "HTTP/1.1111111 200 OK\r\n\r\n$page", 'protocol|network' ],
	[ 'ICY', "ICY 200 OK\r\n\r\n$page", 'protocol|network' ],
	[ 'nothing', '', 'network' ],
	[ 'nothing at once', '', 'network', at_once => 1 ],
	[ 'a reset', '', 'network|timeout', reset => 1 ],
	[ 'half a status line', 'HTTP/1.1 20', 'network|protocol' ],
	[ 'half the headers', "${ok}Content-Le", 'network|protocol|bad_answer' ],
	[ 'half a body', "${ok}Content-Length: 1000\r\n\r\n{", 'network' ],
	[ 'a length that is no number', "${ok}Content-Length: x\r\n\r\n$page", 'protocol|network' ],
	[ 'a negative one', "${ok}Content-Length: -7\r\n\r\n$page", 'protocol|network' ],
	[ 'two', "${ok}Content-Length: 5\r\nContent-Length: 7\r\n\r\n$page", 'protocol|network|bad_answer' ],
	[ 'a chunk that is none', "${ok}Transfer-Encoding: chunked\r\n\r\nxyz\r\n$page\r\n0\r\n\r\n", 'network|protocol' ],
	[ 'a chunk with an endless length', "${ok}Transfer-Encoding: chunked\r\n\r\n" . 'f' x 40 . "\r\n$page", 'network|protocol' ],
	[ 'a broken gzip', "${ok}Content-Encoding: gzip\r\nContent-Length: 20\r\n\r\n" . 'x' x 20, 'protocol|bad_answer', once => 1 ],
	[ 'a zero in a header', "${ok}X-A: a\0b\r\n\r\n$page", 'protocol|network' ],
	[ 'one line of 300 kB', 'x' x 300000, 'protocol|network|too_large' ],
	[ 'a header of 300 kB', "${ok}X-A: " . 'x' x 300000 . "\r\n\r\n$page", 'network|too_large', once => 1 ],
	[ 'a redirect to nowhere', "HTTP/1.1 307 Go\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n", 'http_status|protocol', once => 1 ],
	[ 'a redirect with a broken port', "HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:99999999/\r\nContent-Length: 0\r\n\r\n", 'http_status|protocol', once => 1 ],
	[ 'a redirect to another protocol', "HTTP/1.1 307 Go\r\nLocation: gopher://127.0.0.1/\r\nContent-Length: 0\r\n\r\n", 'http_status|protocol', once => 1 ],
	[ 'an empty redirect', "HTTP/1.1 307 Go\r\nLocation:\r\nContent-Length: 0\r\n\r\n", 'http_status|protocol', once => 1 ],
	[ 'a redirect of noise', "HTTP/1.1 307 Go\r\nLocation: " . ($noise =~ s/[\r\n\0]//gr =~ s/^(.{300}).*/$1/rs) . "\r\nContent-Length: 0\r\n\r\n", 'http_status|protocol|network', once => 1 ],
	[ 'another protocol', "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi", 'protocol|network|http_status', once => 1 ],
	[ 'a protocol of logins', "HTTP/1.1 401 No\r\nWWW-Authenticate: Negotiate, NTLM, Digest realm=\"\0\r\nContent-Length: 0\r\n\r\n", 'auth|protocol|network', once => 1 ]);

$f->connector('c');
my %rest = (version => 1, resources => { user => {
	list => { path => '/users', records => '$.resources[*]', pagination => { type => 'cursor', path => '$.nextCursor', param => 'cursor' } },
	map => { externalId => '$.externalId' } } });
$f->sql("SELECT flohsync.create_connector('r', 'rest', '{}', " . Flohsync::jsonb({ %rest, base_url => $f->origin . '/rest/cursor' }) . ')');
$f->configure('r', 'user');
my $token = { type => 'oauth2_client_credentials', token_url => $f->origin . '/token', client_id => 'c', client_secret => '{{secret.client}}' };
$f->sql("SELECT flohsync.create_connector('t', 'rest', '{}', " . Flohsync::jsonb({ %rest, base_url => $f->origin . '/rest/cursor', auth => $token }) . ')');
$f->configure('t', 'user');

sub at_port
{
	my ($name, $port) = @_;
	my %settings = $name eq 'c' ? (config => { url => "http://127.0.0.1:$port/", commands => ['listUsers'] }) :
	  $name eq 'r' ? (definition => { %rest, base_url => "http://127.0.0.1:$port" }) :
	  (definition => { %rest, base_url => $f->origin . '/rest/cursor', auth => { %$token, token_url => "http://127.0.0.1:$port/token" } });
	$f->sql("SELECT flohsync.update_connector('$name', " . Flohsync::jsonb(\%settings) . ')');
	# A secret goes with the address that it was set for.
	$f->secret('t', 'client', 's') if $name eq 't';
	return;
}

$f->sync_ok($_, 'user', "connector $_ works") for 'c', 'r';
for my $case (@cases)
{
	my ($what, $sends, $classes, %o) = @$case;
	my $server = raw_server(sends => $sends, %o);
	for my $name ('c', 'r', 't')
	{
		at_port($name, $server->{port});
		connections($server);
		my ($ok, $r) = $f->sync($name, 'user');
		ok(!$ok, "$what ($name): the run fails");
		my $run = $f->last_run($name, 'user');
		my $asked = connections($server);
		like($run->{error_class}, $name eq 't' ? qr/^(?:$classes|auth)$/ : qr/^(?:$classes)$/, "$what ($name): its class is no fault of the configuration") or diag($run->{error});
		isnt($run->{error_class}, 'auth', "$what ($name): nor a login that was refused") if $name eq 't' && !$o{once};
		is($asked, $attempts, "$what ($name): it was tried again") or diag($run->{error}) unless $o{once};
		is($f->counts($name, 'user'), $name eq 't' ? '0 0' : '30 0', "$what ($name): nothing is lost");
		my $test = $f->json("SELECT flohsync.test_connector('$name')");
		ok(!$test->{ok} && $test->{error} =~ /\S/ && $test->{error} !~ /[\0-\x08\x0b-\x1f]/, "$what ($name): test_connector says so") or diag(json_text($test));
	}
	stop_server($server);
}

# A clock that is two hours fast: what it says by it, it means by it, whoever asks.
my $later = POSIX::strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime(time + 7200));
my $fast = raw_server(sends => "HTTP/1.1 503 No\r\nDate: $later\r\nRetry-After: $later\r\nContent-Length: 0\r\n\r\n");
for my $name ('c', 'r', 't')
{
	at_port($name, $fast->{port});
	connections($fast);
	my ($ok, $r) = $f->sync($name, 'user');
	ok(!$ok, "a fast clock ($name): the run fails");
	is(connections($fast), $attempts, "a fast clock ($name): the next attempt is made at once") or diag($f->last_run($name, 'user')->{error});
}
stop_server($fast);

# The upstream is back
at_port('c', $f->{port});
$f->sync_ok('c', 'user', 'the next run goes well');
$f->matches_upstream('c', 'user', 'and has everything');

# By schedule: the run is tried again soon, and not with the next tick.
my $server = raw_server(sends => "SSH-2.0-x\r\n", at_once => 1);
at_port('c', $server->{port});
$f->node->append_conf('postgresql.conf', "flohsync.retry_delay = '100ms'\n");
$f->node->reload;
$f->wait_for("SELECT current_setting('flohsync.retry_delay') = '100ms'");
my $before = $f->last_run('c', 'user')->{id};
$f->configure('c', 'user', enabled => JSON::PP::true, cronSchedule => '* * * * * *');
$f->comes_true("SELECT EXISTS (SELECT FROM flohsync.sync_run WHERE id > $before AND status = 'error')", 'a scheduled run');
$f->configure('c', 'user', cronSchedule => '0 0 1 1 *');
$f->comes_true("SELECT EXISTS (SELECT FROM flohsync.sync_run WHERE id > $before AND trigger = 'retry')", 'is tried again by itself');

# A server of TLS where HTTP is, and the other way round
my $https = "https://127.0.0.1:$server->{port}/";
$f->configure('c', 'user', enabled => JSON::PP::false);
$f->wait_for("SELECT count(*) = 0 FROM flohsync.sync_run WHERE status IN ('queued', 'running')");
$f->sql("SELECT flohsync.update_connector('c', " . Flohsync::jsonb({ config => { url => $https, commands => ['listUsers'] } }) . ')');
$f->sync_fails('c', 'user', qr/SSL|TLS/, 'no TLS where there should be');
is($f->last_run('c', 'user')->{error_class}, 'tls', 'is a matter of TLS');
stop_server($server);

$f->no_crash;
done_testing();
