# The cache of single records: what is stored under which key, when it is
# believed, and what changes a record's next read.
use strict;
use warnings;

use Flohsync;
use RedisServer;
use Test::More;
use Time::HiRes qw(time sleep);

my $redis = RedisServer->new;
my $f = Flohsync->new(records => 'user=200,group=20', conf => "flohsync.redis_url = '" . $redis->url . "'\nflohsync.redis_timeout = 1s\nflohsync.page_size = 100\n");
my $id = $f->connector('c', types => [ 'user', 'group' ]);
$f->sql(<<'SQL');
CREATE TABLE public.asked (id text, n int DEFAULT 0);
CREATE TABLE public.truth (id text PRIMARY KEY, v int);
CREATE FUNCTION public.fetch(connector uuid, resource_type text, external_id text) RETURNS jsonb LANGUAGE sql STABLE
AS $$ SELECT jsonb_build_object('v', t.v, 'c', connector, 't', resource_type) FROM public.truth t WHERE t.id = external_id $$;
CREATE FUNCTION public.failing(uuid, text, text) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no %', $3; END $$;
INSERT INTO public.truth VALUES ('a', 1), ('b', 1);
SQL

sub get { my ($key, $type) = @_; return $f->sql("SELECT flohsync.cache_get('c', '" . ($type // 'user') . "', " . Flohsync::literal($key) . ')') }
sub fetch { my ($key) = @_; return $f->sql("SELECT flohsync.cache_get_or_fetch('c', 'user', '$key', 'public.fetch(uuid,text,text)')") }
sub put { my ($key, $value, $more) = @_; return $f->sql("SELECT flohsync.cache_put('c', 'user', " . Flohsync::literal($key) . ", '$value'" . ($more // '') . ')') }
sub delivered { return $f->wait_for('SELECT count(*) = 0 FROM _flohsync.cache_outbox') }
sub figure { my ($name) = @_; return $f->sql("SELECT flohsync.metrics()") =~ /^\Q$name\E (\d+)/m ? $1 : 'none' }

#
# Keys, values, time
#
is(get('u-1'), '', 'nothing is there at first');
is(put('u-1', '{"n": 1}'), 't', 'a value is put');
is(get('u-1'), '{"n": 1}', 'and got');
my $key = "cr:$id:user:u-1";
is(join(' ', grep { $_ eq $key } $redis->keys), $key, 'under cr:{connectorId}:{resourceType}:{externalId}');
my $ms = $redis->cmd('PTTL', $key);
ok($ms > 290_000 && $ms <= 300_000, "for flohsync.cache_ttl ($ms ms)");
is(put('u-1', '{"n": 2}', ", '90 seconds'"), 't', 'put again, with a time of its own');
$ms = $redis->cmd('PTTL', $key);
ok($ms > 85_000 && $ms <= 90_000, "which counts ($ms ms)");
is($f->sql("SELECT flohsync.cache_get('$id', 'user', 'u-1')"), '{"n": 2}', 'the connector may be given by its id');
is($f->sql("SELECT flohsync.cache_get('c', 'group', 'u-1')"), '', 'another type is another key');

for my $hostile ("with space", "cr\r\nlf", "*3\r\n\$3\r\nSET\r\n", "ü€😀", "a:b:c", '"\'\\%s%b', 'x' x 255, '€' x 255)
{
	my $name = substr($hostile, 0, 12) =~ s/\r/\\r/gr =~ s/\n/\\n/gr;
	my $other = ($hostile eq 'with space' ? 'with' : 'u-1');
	is(put($hostile, '{"own": true}'), 't', "hostile id $name is stored");
	is(get($hostile), '{"own": true}', 'and comes back');
}
is(get('u-1'), '{"n": 2}', 'and nothing else has changed');
is(put('u-2', $_), 't', "value $_") && is(get('u-2'), $_, 'is the same') for 'null', '[]', '""', '"é\n"', '1.50', '{"a": {"b": [1, 2, null]}}';
my $large = '"' . ('x' x 1_000_000) . '"';
is(put('u-3', $large), 't', 'a megabyte is stored');
is(length get('u-3'), 1_000_002, 'and read');
is(put('u-4', '"' . ('x' x 1_048_600) . '"'), 'f', 'more than flohsync.cache_max_value_size is not');
is(get('u-4'), '', 'and is not there');

$f->fails_like("SELECT flohsync.cache_get('c', 'user', '')", '22023', qr/external_id/, 'an empty id is refused');
$f->fails_like("SELECT flohsync.cache_get('c', 'user', repeat('x', 256))", '22023', qr/external_id/, 'so is one of 256 characters');
$f->fails_like("SELECT flohsync.cache_get('c', 'user', NULL)", '22023', qr/external_id/, 'and none');
$f->fails_like("SELECT flohsync.cache_get('c', 'us:er', 'x')", '22023', qr/resource type/, 'and a malformed type');
$f->fails_like("SELECT flohsync.cache_get('nobody', 'user', 'x')", '42704', qr/Connectors are: c/, 'and an unknown connector');
$f->fails_like("SELECT flohsync.cache_put('c', 'user', 'x', '1', '-1 s')", '22023', qr/ttl/, 'and a ttl in the past');
$f->fails_like("SELECT flohsync.cache_put('c', 'user', 'x', NULL)", '22004', qr/null/, 'and no value');

#
# Fetching
#
is(fetch('a'), qq({"c": "$id", "t": "user", "v": 1}), 'a miss asks the fetcher');
$f->sql("UPDATE public.truth SET v = 2");
like(fetch('a'), qr/"v": 1/, 'a hit does not');
ok(abs($redis->cmd('PTTL', "cr:$id:user:a") - 300_000) <= 30_000, 'its time is flohsync.cache_ttl, give or take a tenth');
$f->sql("SELECT flohsync.cache_invalidate('c', 'user', 'a')");
like(fetch('a'), qr/"v": 2/, 'the next read after an invalidation is fresh');
ok(delivered(), 'it is delivered');
like(fetch('a'), qr/"v": 2/, 'and the value is fresh then');
is(fetch('zz'), '', 'what the fetcher does not have is null');
is($redis->cmd('GET', "cr:$id:user:zz"), undef, 'and leaves nothing behind');
$f->fails_like("SELECT flohsync.cache_get_or_fetch('c', 'user', 'q', 'public.failing(uuid,text,text)')", 'P0001', qr/no q/, 'an error of the fetcher is raised');
ok(poll(sub { !defined $redis->cmd('GET', "cr:$id:user:q") }), 'and the lease is given up at once');
$f->fails_like("SELECT flohsync.cache_get_or_fetch('c', 'user', 'q', 'pg_catalog.now()')", '42883', qr/fetcher/, 'a function of another kind is no fetcher');

sub poll { my ($code) = @_; my $until = time + 10; until ($code->()) { return 0 if time > $until; sleep 0.01 } return 1 }

# Round trips: a hit is one, a miss three.
fetch('a');
$redis->calls;
fetch('a') for 1 .. 5;
my $calls = $redis->calls;
is($calls->{get}, 5, 'five hits are five GETs');
is(join(',', grep { !/^(get|info|config.*)$/ } sort keys %$calls), '', 'and nothing else');
$redis->cmd('DEL', "cr:$id:user:a");
$redis->calls;
fetch('a');
$calls = $redis->calls;
# GET and SET inside of the script are counted as well.
is(join(' ', map { "$_=" . ($calls->{$_} // 0) } qw(set evalsha eval)), 'set=2 evalsha=1 eval=0', 'a miss is GET, SET NX and one script');
$redis->cmd('SCRIPT', 'FLUSH');
$redis->cmd('DEL', "cr:$id:user:a");
like(fetch('a'), qr/"v": 2/, 'scripts that Redis has forgotten');
like($redis->cmd('GET', "cr:$id:user:a"), qr/^V1/, 'are given to it again');

# The default: the connector's command for one record, or the synced record.
my $user = 'user-0000001';
my $default = $f->json("SELECT flohsync.cache_get_or_fetch('c', 'user', '$user')");
is($default->{externalId}, $user, 'without a fetcher the upstream is asked');
$f->clear_log;
is($f->json("SELECT flohsync.cache_get_or_fetch('c', 'user', '$user')")->{externalId}, $user, 'once');
is(scalar(() = $f->requests), 0, 'the second read is a hit');
is($f->sql("SELECT flohsync.cache_get_or_fetch('c', 'user', 'user-9999999')"), '', 'null when the upstream has none');
is($f->sql("SELECT flohsync.cache_get_or_fetch('c', 'group', 'group-0000001')"), '', 'a type without such a command has nothing before it is synced');
$f->sync_ok('c', 'group');
is($f->json("SELECT flohsync.cache_get_or_fetch('c', 'group', 'group-0000001')")->{externalId}, 'group-0000001', 'and then the synced record');
$f->fault('status', code => 503, times => 1, command => 'get');
$f->fails_like("SELECT flohsync.cache_get_or_fetch('c', 'user', 'user-0000002')", '38000', qr/503/, 'a failure of the upstream is raised');
is($redis->cmd('GET', "cr:$id:user:user-0000002") // 'none', 'none', 'and leaves no lease') if poll(sub { !defined $redis->cmd('GET', "cr:$id:user:user-0000002") });

#
# What makes the next read fresh
#
sub cached
{
	for (@_) { get($_); put($_, '"old"') }
	my $n = grep { get($_) eq '"old"' } @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($n, scalar @_, "cached: @_");
	return $n;
}
sub fresh { my ($name, @keys) = @_; is(join(' ', map { get($_) } @keys), join(' ', map { '' } @keys), $name); return delivered() }

$f->sync_ok('c', 'user');
ok(delivered(), 'after the first sync nothing is pending');
is(cached('user-0000001', 'user-0000002', 'user-0000150'), 3, 'three records are cached');
$f->up('change', type => 'user', ids => 'user-0000001', what => 'name');
$f->up('delete', type => 'user', ids => 'user-0000150');
$f->sync_ok('c', 'user');
fresh('a sync: what has changed and what is gone', 'user-0000001', 'user-0000150');
is(get('user-0000002'), '"old"', 'and not what is the same');
cached('user-0000150');
$f->sql(q(SELECT flohsync.upsert_resource('c', 'user', '{"externalId": "user-0000150", "displayName": "back"}')));
fresh('a record that returns', 'user-0000150');
cached('n-1');
is($f->sql(q(SELECT flohsync.upsert_resource('c', 'user', '{"externalId": "n-1", "displayName": "x"}'))), 'added', 'a record is added');
fresh('and read afresh', 'n-1');
cached('n-1');
$f->sql(q(SELECT flohsync.upsert_resources('c', 'user', '[{"externalId": "n-1", "displayName": "y"}]')));
fresh('upsert_resources', 'n-1');
cached('n-1');
is($f->sql(q(SELECT flohsync.upsert_resource('c', 'user', '{"externalId": "n-1", "displayName": "y"}'))), 'unchanged', 'an observation that changes nothing');
fresh('is news all the same', 'n-1');
cached('n-1');
$f->sql(q(SELECT flohsync.upsert_resource('c', 'user', '{"externalId": "n-1", "displayName": "z"}', '2000-01-01')));
is(get('n-1'), '"old"', 'an older observation is none');
cached('n-1', 'user-0000003');
is($f->sql(q(SELECT flohsync.mark_stale('c', 'user', clock_timestamp()) > 0)), 't', 'mark_stale');
fresh('a stale mark', 'n-1', 'user-0000003');
cached('n-1');
is($f->sql(q(SELECT flohsync.purge_stale('c', 'user', '0') > 0)), 't', 'purge_stale');
fresh('a purge', 'n-1');
cached('u-1', 'u-2');
put('u-1', '"old"');
$f->sql("SELECT flohsync.cache_clear('c', 'group')");
delivered();
is(get('u-1'), '"old"', 'clearing one type keeps the other');
$f->sql("SELECT flohsync.cache_clear('c', 'user')");
fresh('cache_clear of the type', 'u-1', 'u-2');
cached('u-1');
$f->sql("SELECT flohsync.cache_clear('c')");
fresh('cache_clear of the connector', 'u-1');
cached('u-1');
$f->sql(q{SELECT flohsync.update_connector('c', jsonb_build_object('config', (SELECT config FROM flohsync.connector_definition)))});
$f->sql(q{SELECT flohsync.update_connector('c', '{"name": "d"}')});
$f->fails_like("SELECT flohsync.cache_get('c', 'user', 'u-1')", '42704', qr/Connectors are: d/, 'the old name of a connector is not known any more');
$f->sql(q(SELECT flohsync.update_connector('d', '{"name": "c"}')));
fresh('a connector that looks elsewhere', 'u-1');

# Most of a large page: the type as a whole
$f->fresh(user => 200);
cached('elsewhere');
$f->sync_ok('c', 'user');
fresh('a first load', 'elsewhere');

#
# Transactions
#
cached('u-1');
$f->try_sql("BEGIN; SELECT flohsync.cache_invalidate('c', 'user', 'u-1'); SELECT flohsync.cache_clear('c'); ROLLBACK");
is($f->sql('SELECT count(*) FROM _flohsync.cache_outbox'), 0, 'what is rolled back is not in the outbox');
is(get('u-1'), '"old"', 'and invalidates nothing');
my $open = $f->start_sql("BEGIN; SELECT flohsync.cache_invalidate('c', 'user', 'u-1'); SELECT flohsync.cache_clear('c', 'user'); SELECT 'own: ' || coalesce(flohsync.cache_get('c', 'user', 'u-1')::text, 'none'); COMMIT");
my $got = $f->finish($open);
like($got->{out}, qr/own: none/, 'a session sees its own invalidation before it commits');
delivered();
cached('u-5');
my $r = $f->try_sql("BEGIN; SELECT flohsync.cache_invalidate('c', 'user', 'u-5'); COMMIT; SELECT coalesce(flohsync.cache_get('c', 'user', 'u-5')::text, 'none')");
like($r->{out}, qr/none$/, 'and at once after the commit');

# A fetch that may see what is not committed, or what is old, is not stored.
$f->sql("DELETE FROM public.truth; INSERT INTO public.truth VALUES ('t', 1)");
delivered();
$f->try_sql("BEGIN; UPDATE public.truth SET v = 99; SELECT flohsync.cache_get_or_fetch('c', 'user', 't', 'public.fetch(uuid,text,text)'); ROLLBACK");
like(fetch('t'), qr/"v": 1\b/, 'a value of a transaction that was rolled back is not in the cache');
$redis->cmd('FLUSHALL');
$f->try_sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT flohsync.cache_get_or_fetch('c', 'user', 't', 'public.fetch(uuid,text,text)'); COMMIT");
is($redis->cmd('GET', "cr:$id:user:t"), undef, 'under REPEATABLE READ nothing is stored');
is($f->try_sql("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT flohsync.cache_get_or_fetch('c', 'user', 't', 'public.fetch(uuid,text,text)') ->> 'v'; COMMIT")->{out}, 1, 'under SERIALIZABLE there is no cache');

#
# The lease
#
# A fetch that takes its time, and an invalidation meanwhile, that is delivered.
$f->sql(<<'SQL');
CREATE FUNCTION public.slow(connector uuid, resource_type text, external_id text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE r jsonb;
BEGIN
  r := public.fetch(connector, resource_type, external_id);
  PERFORM pg_advisory_xact_lock_shared(88);
  RETURN r;
END $$;
SQL
sub locked_out { return $f->wait_for("SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 88 AND NOT granted") }
$f->sql('SELECT pg_advisory_lock(88)');
my $slow = $f->start_sql("SELECT flohsync.cache_get_or_fetch('c', 'user', 't', 'public.slow(uuid,text,text)')");
ok(locked_out(), 'a reader is fetching');
like($redis->cmd('GET', "cr:$id:user:t"), qr/^L.{16}$/s, 'and has the lease');
$f->sql("UPDATE public.truth SET v = 2; SELECT flohsync.cache_invalidate('c', 'user', 't')");
ok(delivered(), 'the record changes, and the invalidation is delivered');
is($redis->cmd('GET', "cr:$id:user:t"), undef, 'it takes the lease away');
$f->sql('SELECT pg_advisory_unlock(88)');
like($f->finish($slow)->{out}, qr/"v": 2/, 'the reader fetches once more');
is($redis->cmd('GET', "cr:$id:user:t"), undef, 'and what it fetched first is not stored');
like(figure('flohsync_cache_stores_total{outcome="invalidated"}'), qr/^[1-9]/, 'and counted');

# Others wait for the one who fetches, not for ever.
$f->sql('SELECT pg_advisory_lock(88)');
$slow = $f->start_sql("SELECT flohsync.cache_get_or_fetch('c', 'user', 't', 'public.slow(uuid,text,text)')");
locked_out();
my $begun = time;
my $impatient = $f->start_sql("SET flohsync.cache_lease_wait = '100ms'; SELECT flohsync.cache_get_or_fetch('c', 'user', 't', 'public.fetch(uuid,text,text)')");
like($f->finish($impatient)->{out}, qr/"v": 2/, 'a second reader fetches by himself in the end');
my $patient = $f->start_sql("SET flohsync.cache_lease_wait = '20s'; SELECT flohsync.cache_get_or_fetch('c', 'user', 't', 'public.failing(uuid,text,text)')");
$f->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%public.failing%' AND wait_event_type = 'Extension'");
$f->sql('SELECT pg_advisory_unlock(88)');
like($f->finish($patient)->{out}, qr/"v": 2/, 'or gets what the first one fetched');
like($f->finish($slow)->{out}, qr/"v": 2/, 'who has it, too');

# A cancel in the middle gives the lease up.
$redis->cmd('FLUSHALL');
$f->sql('SELECT pg_advisory_lock(88)');
$slow = $f->start_sql("SELECT flohsync.cache_get_or_fetch('c', 'user', 't', 'public.slow(uuid,text,text)')");
locked_out();
$f->sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%public.slow%' AND pid <> pg_backend_pid() AND state = 'active'");
is($f->finish($slow)->{state}, '57014', 'a fetch is cancelled');
ok(poll(sub { !defined $redis->cmd('GET', "cr:$id:user:t") }), 'and the lease is gone');
$f->sql('SELECT pg_advisory_unlock(88)');

# cache_get, something of one's own, cache_put
is(get('g-1'), '', 'a miss');
is(put('g-1', '1'), 't', 'may be filled');
is(get('g-2'), '', 'another miss');
$f->start_sql("SELECT flohsync.cache_invalidate('c', 'user', 'g-2')")->{run}->finish;
delivered();
is(put('g-2', '"old"'), 'f', 'may not, when the record was invalidated in between');
is(get('g-2'), '', 'nothing is there');
is(put('g-2', '"new"'), 't', 'after another look it may');
is(put('g-3', '1'), 't', 'a value may be put without a look');
$f->sql("SELECT flohsync.cache_invalidate('c', 'user', 'g-3')");
delivered();

#
# What others put there
#
put('p-1', '1');
my %poison = ('another version' => 'V9' . ('x' x 20), 'no JSON' => substr($redis->cmd('GET', "cr:$id:user:p-1"), 0, 17) . '{"a":', 'bytes' => "\xff\xfe\x00\x01",
	'an empty text' => '', 'no UTF-8' => substr($redis->cmd('GET', "cr:$id:user:p-1"), 0, 17) . "\"\xc3\x28\"", 'a nested bomb' => substr($redis->cmd('GET', "cr:$id:user:p-1"), 0, 17) . ('[' x 20000),
	'too much' => 'V1' . ('x' x 3_000_000), 'a NUL' => substr($redis->cmd('GET', "cr:$id:user:p-1"), 0, 17) . "1\0 2", 'a lease without end' => 'L', 'a tombstone with something' => 'Txx');
$f->sql("INSERT INTO public.truth VALUES ('poisoned', 7)");
my $poisoned = figure('flohsync_cache_poisoned_total');
for my $what (sort keys %poison)
{
	$redis->cmd('SET', "cr:$id:user:poisoned", $poison{$what});
	is(get('poisoned'), '', "$what is no value");
	$redis->cmd('SET', "cr:$id:user:poisoned", $poison{$what});
	like(fetch('poisoned'), qr/"v": 7/, 'it is fetched instead');
	like(fetch('poisoned'), qr/"v": 7/, 'and read again');
}
$redis->cmd('DEL', "cr:$id:user:poisoned");
$redis->cmd('LPUSH', "cr:$id:user:poisoned", 'a list');
like(fetch('poisoned'), qr/"v": 7/, 'a list under the key is removed');
like($redis->cmd('GET', "cr:$id:user:poisoned"), qr/^V1/, 'and replaced');
ok(figure('flohsync_cache_poisoned_total') > $poisoned, 'all this is counted');
is(figure('flohsync_cache_breaker_open'), 0, 'and is no reason to leave Redis alone');

# Lagging upstreams
$f->sql("ALTER SYSTEM SET flohsync.cache_holdoff = '60s'; SELECT pg_reload_conf()");
$f->wait_for("SELECT current_setting('flohsync.cache_holdoff') = '1min'");
fetch('poisoned');
$f->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'flohsync invalidator'");
$f->sql("SELECT flohsync.cache_invalidate('c', 'user', 'poisoned')");
ok(delivered(), 'with flohsync.cache_holdoff an invalidation');
is($redis->cmd('GET', "cr:$id:user:poisoned"), 'T', 'leaves a mark');
like(fetch('poisoned'), qr/"v": 7/, 'the record is fetched');
is($redis->cmd('GET', "cr:$id:user:poisoned"), 'T', 'and not stored');
is(put('poisoned', '1'), 'f', 'nor can it be put');

$f->sql("ALTER SYSTEM RESET flohsync.cache_holdoff; SELECT pg_reload_conf()");
$f->no_crash;
done_testing();
