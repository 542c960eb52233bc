# Redis away, slow, full, restarted, failed over, and not itself: no read
# fails, none is stale, and none takes long.
use strict;
use warnings;

use Flohsync;
use RedisServer;
use Test::More;
use Time::HiRes qw(time sleep);
use PostgreSQL::Test::Utils;

my $secret = 'geh3im-%';
my $redis = RedisServer->new;
my $proxy = $redis->proxy;
my $f = Flohsync->new(records => 'user=20', upstream => 1, conf => "flohsync.redis_url = '" . $proxy->url . "'\nflohsync.redis_timeout = 300ms\n");
my $id = $f->connector('c');
$f->sql(<<'SQL');
CREATE TABLE public.truth (v int);
INSERT INTO public.truth VALUES (1);
CREATE FUNCTION public.fetch(connector uuid, resource_type text, external_id text) RETURNS jsonb LANGUAGE sql STABLE
AS $$ SELECT to_jsonb(t.v) FROM public.truth t $$;
SQL

sub fetch { my ($key) = @_; return $f->sql("SELECT flohsync.cache_get_or_fetch('c', 'user', '$key', 'public.fetch(uuid,text,text)')") }
sub redis_key { my ($key) = @_; return "cr:$id:user:$key" }
sub truth { my ($v) = @_; $f->sql("UPDATE public.truth SET v = $v"); return }
sub invalidate { my ($key) = @_; $f->sql("SELECT flohsync.cache_invalidate('c', 'user', '$key')"); return }
sub delivered { my ($name) = @_; local $Test::Builder::Level = $Test::Builder::Level + 1; return $f->comes_true('SELECT count(*) = 0 FROM _flohsync.cache_outbox', $name // 'invalidations are delivered', timeout => 60) }
sub figure { my ($name) = @_; return $f->sql("SELECT flohsync.metrics()") =~ /^\Q$name\E (\d+)/m ? $1 : 'none' }
sub restart_sessions { $f->disconnect('postgres'); return }

# Seconds that a read takes
sub timed { my ($code) = @_; my $begun = time; my $got = $code->(); return ($got, time - $begun) }

# All is well again: the breaker is closed, a value is stored and found.
sub recovers
{
	my ($name) = @_;
	$proxy->mode('pass');
	restart_sessions();
	my $until = time + 15;
	my $key = 'r' . ++$f->{recovered};
	my $stored = 0;
	until ($stored || time > $until)
	{
		fetch($key);
		$stored = defined $redis->cmd('GET', redis_key($key)) && $redis->cmd('GET', redis_key($key)) =~ /^V/;
		sleep 0.05 unless $stored;
	}
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($stored, "$name: then the cache works again");
	return;
}

is(fetch('k'), 1, 'the cache works');
like($redis->cmd('GET', redis_key('k')), qr/^V1/, 'and stores');

#
# Away
#
truth(2);
is(fetch('k'), 1, 'a hit');
$redis->end('KILL');
my ($got, $seconds) = timed(sub { fetch('k') });
is($got, 2, 'Redis is killed: the record is fetched');
ok($seconds < 0.5, "soon ($seconds s)");
fetch('k') for 1 .. 3;
is(figure('flohsync_cache_breaker_open'), 1, 'after three failures it is left alone');
($got, $seconds) = timed(sub { fetch('k') for 1 .. 20; 1 });
ok($seconds < 0.4, "20 reads without it take $seconds s");
is($f->sql("SELECT flohsync.cache_put('c', 'user', 'k', '1')"), 'f', 'nothing can be put');
is($f->sql("SELECT coalesce(flohsync.cache_get('c', 'user', 'k')::text, 'null')"), 'null', 'or got');
$f->sync_ok('c', 'user', 'a sync succeeds');
is($f->sql(q(SELECT flohsync.upsert_resource('c', 'user', '{"externalId": "k", "displayName": "x"}'))), 'added', 'so does an upsert');
ok($f->sql('SELECT count(*) > 0 FROM _flohsync.cache_outbox') eq 't', 'invalidations wait');
$redis->start;
recovers('Redis was killed');
delivered();
is(figure('flohsync_cache_breaker_open'), 0, 'the breaker is closed');
ok(figure('flohsync_cache_breaker_opened_total') >= 1, 'that it was open is counted');

#
# Alive, but out of reach: what it holds is from before
#
truth(3);
fetch('k');
is(fetch('k'), 3, 'a value is cached');
$proxy->mode('close');
truth(4);
invalidate('k');
is(fetch('k'), 4, 'unreachable: the record is fetched');
like($redis->cmd('GET', redis_key('k')), qr/^V1.{15}3/s, 'Redis still has the old value');
$proxy->mode('pass');
restart_sessions();
is(fetch('k'), 4, 'the first read after its return is fresh');
recovers('unreachable');
delivered();
is(fetch('k'), 4, 'and so are all others');

#
# Slow, silent, late
#
$f->sql("SELECT flohsync.cache_put('c', 'user', 'one', '\"of one\"'), flohsync.cache_put('c', 'user', 'two', '\"of two\"')");
$proxy->mode('hold');
($got, $seconds) = timed(sub { $f->sql("SELECT coalesce(flohsync.cache_get('c', 'user', 'one')::text, 'null')") });
is($got, 'null', 'no answer: the read goes on without');
ok($seconds > 0.25 && $seconds < 1.5, "after flohsync.redis_timeout ($seconds s)");
$proxy->mode('pass');
is($f->sql("SELECT flohsync.cache_get('c', 'user', 'two')"), '"of two"', 'the answer that comes late is not taken for the next one');
is($f->sql("SELECT flohsync.cache_get('c', 'user', 'one')"), '"of one"', 'nor is that one');

$proxy->mode('hold');
my $h = $f->start_sql("SET flohsync.redis_timeout = '60s'; SELECT flohsync.cache_get('c', 'user', 'one')");
$f->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%cache_get(%one%' AND state = 'active' AND wait_event_type = 'Extension' AND pid <> pg_backend_pid()");
$f->sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%cache_get(%one%' AND pid <> pg_backend_pid()");
$got = $f->finish($h);
is($got->{state}, '57014', 'a read that waits for Redis can be cancelled');
ok($got->{seconds} < 10, 'at once');
# In one session: the cancelled command, and the next one.
$f->query("SET flohsync.redis_timeout = '60s'");
$f->query("SET statement_timeout = '200ms'");
my ($ok, undef, $message) = $f->query("SELECT flohsync.cache_get('c', 'user', 'one')");
like($message, qr/57014/, 'a statement times out in the middle of a command');
$f->query('RESET statement_timeout');
$proxy->mode('pass');
is(($f->query("SELECT flohsync.cache_get('c', 'user', 'two')"))[1], '"of two"', 'the next command of the session gets its own answer');
my $r;
recovers('late');

$proxy->mode('drop');
restart_sessions();
($got, $seconds) = timed(sub { fetch('k') });
ok($seconds < 2, "a connection that is silent from the start ($seconds s)");
recovers('silent');
$redis->freeze;
restart_sessions();
($got, $seconds) = timed(sub { fetch('k') });
is($got, 4, 'Redis stands still: the record is fetched');
ok($seconds < 2, "soon ($seconds s)");
$redis->thaw;
recovers('stood still');

#
# Error replies, by a server that answers so
#
for my $e ('LOADING Redis is loading the dataset in memory', "READONLY You can't write against a read only replica.", 'MASTERDOWN Link with MASTER is down',
	"OOM command not allowed when used memory > 'maxmemory'.", 'MISCONF Redis is configured to save RDB snapshots', 'BUSY Redis is busy running a script.',
	'NOAUTH Authentication required.', "NOPERM this user has no permissions to run the 'get' command", 'ERR something else', 'EXECABORT Transaction discarded',
	'MOVED 3999 127.0.0.1:6381', 'CLUSTERDOWN The cluster is down')
{
	my ($word) = $e =~ /^(\w+)/;
	$redis->cmd('DEL', redis_key('e'));
	$proxy->mode('error', $e, 'GET|SET|EVALSHA|EVAL|DEL');
	is(fetch('e'), 4, "$word: the record is fetched");
	invalidate('e');
	is($f->sql('SELECT count(*) FROM _flohsync.cache_outbox'), 1, "$word: an invalidation stays in the outbox") if $word ne 'ERR';
	recovers($word);
	$redis->cmd('DEL', redis_key('e'));
	$proxy->mode('error', $e, 'SET|EVALSHA|EVAL');
	is(fetch('e'), 4, "$word to a write: the record is fetched");
	recovers("$word to a write");
	delivered("$word: delivered afterwards");
}
$redis->cmd('SCRIPT', 'FLUSH');
$redis->cmd('DEL', redis_key('e'));
is(fetch('e'), 4, 'NOSCRIPT');
like($redis->cmd('GET', redis_key('e')), qr/^V/, 'is no obstacle');

# Answers that are none
for my $bytes ("*2147483647\r\n", "\$-2\r\n", "\$2147483647\r\nabc", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n", "\$5\r\nab\r\n", ":12x\r\n",
	"+OK\r\n+OK\r\n", "%1\r\n+a\r\n+b\r\n", ",1.5\r\n", "#t\r\n", "_\r\n", "\0\0\0\0\r\n", "\$3\r\nabc\r\n\$3\r\nxyz\r\n", "*0\r\n", "*-1\r\n", "\$00000000000000000000000000000001\r\na\r\n")
{
	my $name = $bytes =~ s/\r\n/ /gr =~ s/\0/0/gr;
	$proxy->mode('reply', $bytes, 'GET');
	is(fetch('m'), 4, "answer $name: the record is fetched");
	$proxy->mode('pass');
	is($f->sql("SELECT flohsync.cache_get('c', 'user', 'two')") =~ /^(?:"of two")?$/ ? 1 : 0, 1, 'and nothing else is taken for the next answer');
}
recovers('malformed');

#
# The real thing: full, flushed, restarted, failed over
#
$redis->cmd('CONFIG', 'SET', 'maxmemory', 1);
is(fetch('full'), 4, 'Redis is full: the record is fetched');
is($f->sql("SELECT flohsync.cache_put('c', 'user', 'full', '1')"), 'f', 'nothing can be put');
is(fetch('k'), 4, 'what is there can be read');
invalidate('k');
delivered('and deleted');
$redis->cmd('CONFIG', 'SET', 'maxmemory', 0);
recovers('full');
fetch('k');
$redis->cmd('FLUSHALL');
truth(5);
is(fetch('k'), 5, 'after FLUSHALL it is fetched');

# A dump with a value that was invalidated since: Redis starts from it again.
my $value = $redis->cmd('GET', redis_key('k'));
$redis->cmd('SAVE');
truth(6);
invalidate('k');
delivered();
is(fetch('k'), 6, 'a newer value is cached');
$redis->restart;
is($redis->cmd('GET', redis_key('k')), $value, 'Redis was restarted with the old value');
restart_sessions();
is(fetch('k'), 6, 'which nobody gets');
recovers('an old dump');
is(fetch('k'), 6, 'and never will');
isnt($redis->cmd('GET', redis_key('k')), $value, 'it is gone');

# A replica that missed the invalidation becomes the master.
my $replica = RedisServer->new(args => [ '--repl-diskless-sync', 'yes', '--repl-diskless-sync-delay', '0' ]);
$redis->cmd('CONFIG', 'SET', 'repl-diskless-sync', 'yes');
$redis->cmd('CONFIG', 'SET', 'repl-diskless-sync-delay', '0');
my $port = PostgreSQL::Test::Cluster::get_free_port();
$redis->cmd('CONFIG', 'SET', 'port', $port);
$replica->cmd('REPLICAOF', '127.0.0.1', $port);
my $until = time + 20;
sleep 0.02 until ($replica->cmd('INFO', 'replication') =~ /master_link_status:up/ && defined $replica->cmd('GET', redis_key('k'))) || time > $until;
$value = $replica->cmd('GET', redis_key('k'));
ok(defined $value, 'a replica has the value');
my $replica_proxy = $replica->proxy;
$f->sql("ALTER SYSTEM SET flohsync.redis_url = '" . $replica_proxy->url . "'");
$f->sql('SELECT pg_reload_conf()');
restart_sessions();
$f->wait_for("SELECT current_setting('flohsync.redis_url') = '" . $replica_proxy->url . "'");
is(fetch('k'), 6, 'a replica is not used');
$f->sql('ALTER SYSTEM RESET flohsync.redis_url');
$f->sql('SELECT pg_reload_conf()');
$f->wait_for("SELECT current_setting('flohsync.redis_url') = '" . $proxy->url . "'");
recovers('a replica');
fetch('k');
$until = time + 20;
sleep 0.02 until ($replica->cmd('GET', redis_key('k')) // '') eq $redis->cmd('GET', redis_key('k')) || time > $until;
$value = $replica->cmd('GET', redis_key('k'));
$replica->cmd('REPLICAOF', 'NO', 'ONE');
truth(7);
invalidate('k');
delivered('the master forgets');
is($replica->cmd('GET', redis_key('k')), $value, 'what is to be the master has the old value');
$f->sql("ALTER SYSTEM SET flohsync.redis_url = '" . $replica_proxy->url . "'");
$f->sql('SELECT pg_reload_conf()');
$f->wait_for("SELECT current_setting('flohsync.redis_url') = '" . $replica_proxy->url . "'");
is(fetch('k'), 7, 'after the failover nobody gets it');
is(fetch('k'), 7, 'at any time');
$f->comes_true("SELECT flohsync.cache_put('c', 'user', 'f', '1')", 'and the cache works there', timeout => 40);

#
# Switched off, and on again
#
$f->sql("SELECT flohsync.cache_put('c', 'user', 'off', '\"before\"')");
is($f->sql("SELECT flohsync.cache_get('c', 'user', 'off')"), '"before"', 'a value before it is switched off');
$f->sql("ALTER SYSTEM SET flohsync.redis_url = ''");
$f->sql('SELECT pg_reload_conf()');
$f->wait_for("SELECT current_setting('flohsync.redis_url') = ''");
is($f->sql("SELECT coalesce(flohsync.cache_get('c', 'user', 'off')::text, 'null')"), 'null', 'without flohsync.redis_url there is no cache');
is(fetch('k'), 7, 'fetching works');
$f->sql(q(SELECT flohsync.upsert_resource('c', 'user', '{"externalId": "off", "displayName": "x"}')));
$f->comes_true('SELECT server IS NULL FROM _flohsync.cache_state', 'the first change notices');
$f->comes_true('SELECT count(*) = 0 FROM _flohsync.cache_outbox', 'and nothing is noted for it');
$f->sql(q(SELECT flohsync.upsert_resource('c', 'user', '{"externalId": "off", "displayName": "y"}')));
is($f->sql('SELECT count(*) FROM _flohsync.cache_outbox'), 0, 'from then on');
$f->sql("ALTER SYSTEM SET flohsync.redis_url = '" . $replica_proxy->url . "'");
$f->sql('SELECT pg_reload_conf()');
$f->wait_for("SELECT current_setting('flohsync.redis_url') <> ''");
is($f->sql("SELECT coalesce(flohsync.cache_get('c', 'user', 'off')::text, 'null')"), 'null', 'switched on again: what it has from before is void');
is($f->sql("SELECT flohsync.cache_put('c', 'user', 'off', '1')"), 't', 'and it works at once') || 1;

#
# The address
#
my $low = $f->sql('CREATE ROLE low LOGIN') // '';
is($f->try_sql('SET ROLE low; SHOW flohsync.redis_url')->{state}, '42501', 'only superusers see the address');
is($f->try_sql("SET ROLE low; SET flohsync.redis_url = 'redis://h'")->{state}, '42501', 'or set it');
for my $bad ("redis://u:$secret\@h:x", "http://u:$secret\@h", "redis://$secret\@h", "redis://u:$secret\@", "redis://u:$secret\@h/x", "unix://u:$secret\@relative", "redis://u:%zz$secret\@h")
{
	$r = $f->try_sql("SET flohsync.redis_url = '$bad'");
	is($r->{state}, '22023', 'a wrong address is refused') or diag("$bad: $r->{text}");
	unlike($r->{message} . ($r->{detail} // '') . ($r->{hint} // ''), qr/geh3im/, 'and not quoted');
}
ok($f->try_sql("SET flohsync.redis_url = '$_'")->{ok}, "address $_") for 'redis://h', 'rediss://u:p@h:6380/3', 'redis://[::1]:6379', 'unix:///a/b?db=2', 'unix://:p@/a/b', 'redis://:p%40x@10.0.0.1';

$f->no_crash;
done_testing();
