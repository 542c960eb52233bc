# flohsync-http while the database is away, slow, or another one: what is asked again,
# what is told to be unknown, and that what is on the way has its end.
use strict;
use warnings;

use Flohsync;
use Gateway;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

my $f = Flohsync->new(init => { allows_streaming => 1 });
$f->fresh(user => 5);
$f->connector('c');
my $g = Gateway->new($f, settings => { pool_size => 4 });
my ($reader, $manager) = ($g->reader, $g->manager);
my $nl = "\r\n";
my $dir = PostgreSQL::Test::Utils::tempdir();

# Clients that ask all the time, until they are told to stop: a count of what each answer was.
sub load
{
	my ($gateways, $do, %opt) = @_;
	my (@pids, %seen);
	my $parent = $$;
	unlink "$dir/stop";
	for my $i (1 .. 4)
	{
		my $file = "$dir/load.$i";
		unlink $file;
		my $pid = fork() // die "fork: $!";
		if ($pid == 0)
		{
			my $server = $gateways->[ $i % @$gateways ];
			delete $server->{http};
			open my $out, '>', $file or POSIX::_exit(1);
			until (-e "$dir/stop" || getppid() != $parent)
			{
				my $a = $server->get($opt{path} // '/api/connectors', token => $reader, unchecked => 1);
				print $out "$a->{status}" . ($a->{status} == 503 && !$a->{headers}{'retry-after'} ? ' without Retry-After' : '') . ($a->{status} == 599 ? " $a->{content}" =~ s/\n/ /gr : '') . "\n";
				sleep 0.002;
			}
			close $out;
			POSIX::_exit(0);
		}
		push @pids, $pid;
	}
	sleep 0.3;
	$do->();
	append_to_file("$dir/stop", '');
	waitpid $_, 0 for @pids;
	$seen{$_}++ for map { split /\n/, slurp_file("$dir/load.$_") } 1 .. 4;
	return \%seen;
}

# A request that is begun; its end is read later.
sub begin
{
	my ($server, $method, $path, $token, $body, @more) = @_;
	my $socket = $server->connect;
	$body //= '';
	syswrite $socket, join $nl, "$method $path HTTP/1.1", 'Host: x', "Authorization: Bearer $token", @more,
	  length $body ? ('Content-Type: application/json', 'Content-Length: ' . length $body) : (), '', $body;
	return $socket;
}

sub end { my ($server, $socket) = @_; return $server->exchange('', socket => $socket, answers => 1)->{answers}[0] // { status => 0, head => '', body => '' } }

# Whoever reads connectors waits, until release().  It takes a session of its own: in a
# transaction, what is seen of other sessions stays as it was.
my $holder = $f->with_node($f->node);
sub hold { $holder->sql('BEGIN; LOCK TABLE flohsync.connector_definition'); return }
sub release { $holder->sql('COMMIT'); return }
my $waits = q{FROM pg_stat_activity WHERE usename = 'flohsync_http' AND wait_event_type = 'Lock'};
sub await_waiting { my ($n) = @_; return $f->wait_for("SELECT count(*) >= $n $waits") }

#
# A session that ends in the middle of a request
#

hold();
my $read = begin($g, 'GET', '/api/connectors/c', $reader);
await_waiting(1);
is($f->sql("SELECT count(pg_terminate_backend(pid)) $waits"), 1, 'the session of a read ends');
await_waiting(1);
release();
is(end($g, $read)->{status}, 200, 'it is read once more, and nobody notices');
hold();
my $write = begin($g, 'PUT', '/api/connectors/c', $manager, '{"description":"x"}');
await_waiting(1);
$f->sql("SELECT count(pg_terminate_backend(pid)) $waits");
my $a = end($g, $write);
release();
is($a->{status}, 503, 'the session of a write ends');
like($a->{body}, qr/Whether the request was carried out is not known/, 'what came of it is not known, and that is told');
like($a->{head}, qr/^Retry-After: \d+\r$/m, 'with when to come again');
is($g->get('/api/connectors/c', token => $reader)->{json}{description}, undef, 'it is not asked a second time');

#
# Too slow, and too many
#

my $small = Gateway->new($f, roles => 0, settings => { pool_size => 1, queue_limit => 2, statement_timeout => 8 });
is($small->get('/api/connectors/c', token => $reader)->{status}, 200, 'a server with one connection');
hold();
my @queue = begin($small, 'GET', '/api/connectors/c', $reader);
await_waiting(1);
my @more = map { begin($small, 'GET', '/api/me', $reader) } 1 .. 5;
my $until;
is($small->get('/live')->{status}, 200, 'what needs no database is answered');
$a = end($small, $queue[0]);
is($a->{status}, 503, 'a statement that takes too long is ended');
like($a->{body}, qr/57014/, 'with its code');
my @ends = map { end($small, $_) } @more;
is(join(' ', sort map { $_->{status} } @ends), '200 200 503 503 503', 'then those in the queue have their turn; who came when it was full was sent away');
my ($away) = grep { $_->{status} == 503 } @ends;
like($away->{body}, qr/too many requests are waiting/, 'with the reason');
like($away->{head}, qr/^Retry-After: \d+\r$/m, 'and when to come again');
release();
is($small->get('/api/connectors/c', token => $reader)->{status}, 200, 'then all is as before');

#
# A server that restarts, settings that are read again, two servers of HTTP
#

my $seen = load([$g], sub {
	for (1 .. 20) { $g->write_settings; $g->signal('HUP'); sleep 0.05 }
});
is_deeply([ sort keys %$seen ], [200], 'settings are read again among requests, and none fails') || diag(explain($seen));
my @after;
$seen = load([ $g, $small ], sub {
	$f->node->restart;
	for my $server ($g, $small)
	{
		my $over = time + 40;
		my $status = 0;
		sleep 0.05 until ($status = $server->get('/api/connectors', token => $reader, unchecked => 1)->{status}) == 200 || time > $over;
		push @after, $status;
	}
});
is_deeply([ grep { !/^(?:200|503)$/ } sort keys %$seen ], [], 'a restart is 503 with Retry-After, and nothing else') || diag(explain($seen));
is("@after", '200 200', 'and is over then');
$f->node->stop('immediate');
$until = time + 40;
sleep 0.1 until $g->get('/ready')->{status} == 503 || time > $until;
is($g->get('/ready')->{status}, 503, 'without a database it is not ready');
is($g->get('/live')->{status}, 200, 'but alive');
is($g->get('/api/health')->{status}, 503, 'which is what health says');
is($g->get('/metrics')->{status}, 200, 'metrics are there');
is($g->get('/api/me', token => $reader)->{status}, 503, 'requests are not answered');
is($g->get('/api/me', token => 'x')->{status}, 401, 'but bad tokens are still bad');
unlike($g->get('/api/health')->{content}, qr{/|port|host|socket}, 'where the database is, is not told');
$f->node->start;
for my $server ($g, $small)
{
	$until = time + 40;
	sleep 0.1 until $server->get('/ready')->{status} == 200 || time > $until;
	is($server->get('/api/connectors/c', token => $reader)->{status}, 200, 'when it is back, so is the server');
}
my $token = $f->sql(q{SELECT flohsync.create_api_token('both', 'app_reader')});
is($_->get('/api/me', token => $token)->{status}, 200, 'a token for both servers') for $g, $small;
$f->sql(q{SELECT flohsync.revoke_api_token('both')});
for my $server ($g, $small)
{
	$until = time + 40;
	sleep 0.02 until $server->get('/api/me', token => $token)->{status} == 401 || time > $until;
	is($server->get('/api/me', token => $token)->{status}, 401, 'is revoked for both');
}
is($small->stop, 0, 'one of them stops');

#
# A stop lets what is on the way finish
#

$f->fault('hang');
my $trigger = begin($g, 'POST', '/api/connectors/c/sync-config/user/trigger', $manager);
$f->await(hanging => 1);
my $events = begin($g, 'GET', '/api/events', $reader);
sysread $events, my $welcome, 65536;
like($welcome, qr{^HTTP/1\.1 200 .*text/event-stream}s, 'a client follows events');
my $idle = $g->connect;
hold();
my $slow = begin($g, 'GET', '/api/connectors/c', $reader);
await_waiting(1);
$g->signal('TERM');
$g->log_has(qr/stopping: \d+ requests are on the way/, 'a server is told to stop');
is(end($g, $trigger)->{status}, 202, 'a trigger that waits is told where to ask');
my $rest = $g->exchange('', socket => $events);
ok($rest->{closed}, 'events end');
ok($g->exchange('', socket => $idle)->{closed}, 'so does who has nothing to do');
ok(!$g->connect, 'nobody is let in any more') || diag('the port is still open');
ok($g->alive, 'the server waits for the slow request');
release();
$a = end($g, $slow);
is($a->{status}, 200, 'which has its answer');
like($a->{head}, qr/^Connection: close\r$/m, 'and the end of its connection');
is($g->stop, 0, 'then the server stops');
like($g->log_text, qr/stopped/, 'in order');
$f->up('release');
$f->wait_for(q{SELECT count(*) = 0 FROM flohsync.sync_run WHERE status IN ('queued', 'running')});

#
# A standby for reads, the primary for writes
#

$f->node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($f->node, 'base', has_streaming => 1);
$standby->start;
$f->node->wait_for_catchup($standby);
my $hosts = sprintf 'host=%s,%s port=%s,%s dbname=postgres user=flohsync_http', $f->node->host, $standby->host, $f->node->port, $standby->port;
my $two = Gateway->new($f, roles => 0, settings => { db => $hosts, standby_reads => 'on', pool_size => 2 });
is($two->get('/api/health')->{json}{database}, 'standby', 'reads go to the standby');
is($two->put('/api/connectors/c', { description => 'written' }, token => $manager)->{status}, 200, 'writes to the primary');
is($f->sql(q{SELECT description FROM flohsync.connector_definition}), 'written', 'where they are');
$until = time + 40;
sleep 0.05 until ($two->get('/api/connectors/c', token => $reader)->{json}{description} // '') eq 'written' || time > $until;
is($two->get('/api/connectors/c', token => $reader)->{json}{description}, 'written', 'and are read on the standby a little later');
my $api = $f->sql(q{SELECT flohsync.create_api_token('standby', 'app_reader')});
$until = time + 40;
sleep 0.05 until $two->get('/api/me', token => $api)->{status} == 200 || time > $until;
is($two->get('/api/me', token => $api)->{status}, 200, 'an API token is good when the standby knows it');
$f->sql(q{SELECT flohsync.revoke_api_token('standby')});
$until = time + 40;
sleep 0.05 until $two->get('/api/me', token => $api)->{status} == 401 || time > $until;
is($two->get('/api/me', token => $api)->{status}, 401, 'and no good soon after it is revoked');
$seen = load([$two], sub {
	$f->node->stop('immediate');
	$standby->promote;
	my $end = time + 60;
	sleep 0.2 until $two->put('/api/connectors/c', { description => 'promoted' }, token => $manager)->{status} == 200 || time > $end;
});
is_deeply([ grep { !/^(?:200|503)$/ } sort keys %$seen ], [], 'while the standby takes over, reads go on') || diag(explain($seen));
is($standby->safe_psql('postgres', 'SELECT description FROM flohsync.connector_definition'), 'promoted', 'writes follow to the new primary');
is($two->get('/api/health')->{json}{database}, 'primary', 'which it is');
is($two->stop, 0, 'that server stops');

unlike($_->log_text, qr/eyJ|panic|assert/, 'the logs are clean') for $g, $small, $two;
done_testing();
