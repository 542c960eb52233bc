# What must not get into the cache, and what must not come out: puts after all
# sorts of gets, fetchers that write or lie, copies of a database, other names.
use strict;
use warnings;

use Flohsync;
use RedisServer;
use Test::More;
use Time::HiRes qw(time sleep);

my $redis = RedisServer->new;
my $proxy = $redis->proxy;
my $f = Flohsync->new(upstream => 0, conf => "flohsync.redis_url = '" . $proxy->url . "'\nflohsync.redis_timeout = 5s\nflohsync.redis_connect_timeout = 5s\nflohsync.cache_outbox_max = 100\n");

sub connector { my ($name) = @_; return $f->sql("SELECT flohsync.create_connector('$name', 'command', '{\"url\": \"https://directory.example.com/\"}')") }
my $id = connector('c');
$f->sql(<<'SQL');
CREATE TABLE public.truth (v int);
INSERT INTO public.truth VALUES (1);
CREATE FUNCTION public.fetch(uuid, text, text) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT to_jsonb(v) FROM public.truth';
CREATE FUNCTION public.writing(uuid, text, text) RETURNS jsonb LANGUAGE sql AS 'UPDATE public.truth SET v = 99 RETURNING to_jsonb(v)';
SQL

# All in one session, but for what "elsewhere" does.
sub get { my ($key, $connector) = @_; return $f->sql("SELECT flohsync.cache_get('" . ($connector // 'c') . "', 'user', '$key')") }
sub put { my ($key, $value) = @_; return $f->sql("SELECT flohsync.cache_put('c', 'user', '$key', '" . ($value // '"old"') . "')") }
sub fetch { my ($key, $function) = @_; return $f->sql("SELECT flohsync.cache_get_or_fetch('c', 'user', '$key', 'public.$function(uuid,text,text)')") }
sub elsewhere { my ($sql) = @_; my $r = $f->finish($f->start_sql($sql)); die "$sql: $r->{text}" if $r->{state}; return $r->{out} }
sub invalidate { my ($key) = @_; elsewhere("SELECT flohsync.cache_invalidate('c', 'user', '$key')"); return delivered() }
sub delivered { return $f->wait_for('SELECT count(*) = 0 FROM _flohsync.cache_outbox') }
sub figure { my ($name) = @_; return $f->sql('SELECT flohsync.metrics()') =~ /^\Q$name\E (\d+)/m ? $1 : 'none' }
sub redis_key { my ($key) = @_; return "cr:$id:user:$key" }
sub setting
{
	my ($name, $value) = @_;
	$f->sql("ALTER SYSTEM " . (defined $value ? "SET $name = '$value'" : "RESET $name"));
	$f->sql('SELECT pg_reload_conf()');
	return $f->wait_for(defined $value ? "SELECT current_setting('$name') = '$value'" : "SELECT source <> 'configuration file' OR sourcefile NOT LIKE '%auto.conf' FROM pg_settings WHERE name = '$name'");
}

is(put('warm'), 't', 'the cache works');

#
# A get, something else, a put
#
is(get('clear'), '', 'a get');
elsewhere("SELECT flohsync.cache_clear('c')");
ok(delivered(), 'a cache_clear');
is(put('clear'), 'f', 'and the put is refused');
is(get('clear'), '', 'nothing is there');
is(put('clear'), 't', 'after another get it is not');

get('forgotten');
$f->sql("SELECT count(flohsync.cache_get('c', 'user', 'x' || i)) FROM generate_series(1, 256) i");
invalidate('forgotten');
is(put('forgotten'), 'f', 'a get that was forgotten over many others denies the put');
is(get('forgotten'), '', 'nothing is there');
is(put('forgotten'), 't', 'until it is done again');
is(put('never looked for'), 't', 'what was never looked for may still be put');

put('hit');
is(get('hit'), '"old"', 'a hit');
is(put('hit', '"newer"'), 't', 'may be replaced');
is(get('hit'), '"newer"', 'and is');
invalidate('hit');
is(put('hit'), 'f', 'but not when it was invalidated since');
is(get('hit'), '', 'nothing is there');
is(put('hit', '1'), 't', 'put again');
get('hit');
invalidate('hit');
elsewhere("SELECT flohsync.cache_put('c', 'user', 'hit', '1')");
is(put('hit'), 'f', 'nor when another one has put the same since');
is(get('hit'), '1', 'whose value stays');

setting('flohsync.redis_url', '');
is(get('off'), '', 'a get while there is no cache');
setting('flohsync.redis_url');
$f->comes_true("SELECT flohsync.cache_put('c', 'user', 'warm', '1')", 'it is switched on again');
is(put('off'), 'f', 'denies the put as well');

$f->sql('BEGIN ISOLATION LEVEL REPEATABLE READ');
$f->sql('SELECT v FROM public.truth');
elsewhere("BEGIN; UPDATE public.truth SET v = 2; SELECT flohsync.cache_invalidate('c', 'user', 'rr'); SELECT flohsync.cache_invalidate('c', 'user', 'rr2'); COMMIT");
$f->wait_for('SELECT 1 = 1');
is(elsewhere("DO \$\$ BEGIN WHILE EXISTS (SELECT FROM _flohsync.cache_outbox) LOOP PERFORM pg_sleep(0.01); END LOOP; END \$\$; SELECT 'done'"), 'done', 'a record changes, and that is delivered');
get('rr');
is($f->sql("SELECT v, flohsync.cache_put('c', 'user', 'rr', to_jsonb(v)) FROM public.truth"), '1|f', 'a snapshot from before cannot be put');
is($f->sql("SELECT flohsync.cache_put('c', 'user', 'rr2', to_jsonb(v)) FROM public.truth"), 'f', 'nor without a get');
$f->sql('COMMIT');
is(put('rr', '1'), 'f', 'nor when its transaction is over');
is(get('rr'), '', 'nothing is there');
$f->sql('BEGIN');
$f->sql('UPDATE public.truth SET v = 7');
get('w');
is($f->sql("SELECT flohsync.cache_put('c', 'user', 'w', to_jsonb(v)) FROM public.truth"), 'f', 'what is not committed cannot be put');
is($f->sql("SELECT flohsync.cache_put('c', 'user', 'w2', to_jsonb(v)) FROM public.truth"), 'f', 'nor without a get');
$f->sql('ROLLBACK');
is(put('w', '7'), 'f', 'nor when it was rolled back');
is(get('w'), '', 'nothing is there');

#
# Fetchers
#
$f->sql('BEGIN');
is(fetch('writes', 'writing'), '99', 'a fetcher that writes');
is($redis->cmd('GET', redis_key('writes')), undef, 'leaves no value and no lease');
$f->sql('ROLLBACK');
is(get('writes'), '', 'what was rolled back is not in the cache');

$f->sql('CREATE ROLE reader; GRANT USAGE ON SCHEMA flohsync TO reader; GRANT EXECUTE ON FUNCTION flohsync.cache_get_or_fetch(text, text, text, regprocedure) TO reader; GRANT CREATE, USAGE ON SCHEMA public TO reader');
$f->sql(q(SET ROLE reader; CREATE FUNCTION public.lie(uuid, text, text) RETURNS jsonb LANGUAGE sql AS 'SELECT ''{"roles": ["admin"]}''::jsonb'; RESET ROLE));
sub reader { my ($key) = @_; $f->sql('SET ROLE reader'); my $got = fetch($key, 'lie'); $f->sql('RESET ROLE'); return $got }
is(reader('lie'), '{"roles": ["admin"]}', 'a reader gets what his own function says');
is(get('lie'), '', 'and nobody else does');
put('good', '"good"');
is(reader('good'), '"good"', 'he gets what is cached');
$f->sql('GRANT EXECUTE ON FUNCTION flohsync.cache_put(text, text, text, jsonb, interval) TO reader');
reader('lie2');
is(get('lie2'), '{"roles": ["admin"]}', 'who may put a value may have one fetched');

#
# Values that take long to read
#
put('bomb', '1');
my ($head) = $redis->cmd('GET', redis_key('bomb')) =~ /^(.*)1\z/s;
my %bombs = ('a large number' => '[' . join(',', ('1e131071') x 8000) . ']', 'a small number' => '[1e-16000]', 'a long number' => '1' x 5000, 'deep nesting' => ('[' x 70) . (']' x 70));
for my $what (sort keys %bombs)
{
	my $before = figure('flohsync_cache_poisoned_total');
	$redis->cmd('SET', redis_key('bomb'), $head . $bombs{$what});
	my $begun = time;
	is($f->sql("SELECT left(flohsync.cache_get('c', 'user', 'bomb')::text, 40)"), '', "$what is no value");
	ok(time - $begun < 3, 'which takes no time');
	is(figure('flohsync_cache_poisoned_total'), $before + 1, 'and is counted');
}
is($f->sql("SELECT flohsync.cache_put('c', 'user', 'large', to_jsonb(1e401))"), 'f', 'such a number is not stored either');
is($f->sql("SELECT flohsync.cache_put('c', 'user', 'large', to_jsonb(1e400))"), 't', 'a smaller one is');
is(get('large'), '1' . '0' x 400, 'and comes back');
is(put('deep', ('[' x 65) . (']' x 65)), 't', 'nested 65 deep is stored') && is(get('deep'), ('[' x 65) . (']' x 65), 'and comes back');
my @values = ('null', 'true', 'false', '0', '-17', '1.50', '1' x 40, '""', '"\\u0001 \\" \\\\ \\n"', "\"\xc3\xa4\"", '[]', '{}', '[[], {}, null]', '{"": 1, "a": {"b": ["c", 2.0]}}');
is(join(' ', grep { put('value', $_) ne 't' || get('value') ne $_ || get('value') ne $_ } @values), '', 'values of all sorts come back as they were');
is(put('deeper', ('[' x 66) . (']' x 66)), 'f', 'nested 66 deep is not');

#
# Answers that are none, and what nobody has asked for
#
for my $answer ("+OK\\r\\n", ":1\\r\\n")
{
	$f->sql('BEGIN');
	$f->sql('UPDATE public.truth SET v = 8');
	$proxy->mode('reply', $answer, 'GET');
	is(get('no answer'), '', "a GET that is answered with $answer, by who cannot put");
	$proxy->mode('pass');
	$f->sql('ROLLBACK');
	get('warm');
	$proxy->mode('reply', $answer, 'GET');
	is(get('no answer'), '', 'and by who can');
	$proxy->mode('pass');
	is(put('no answer'), 'f', 'has seen nothing');
	get('warm');
}
put('one', '"one"');
put('two', '"two"');
for (1 .. 3)
{
	is(get('two'), '"two"', 'a value');
	my $raw = $redis->cmd('GET', redis_key('one'));
	$proxy->mode('stray', '$' . length($raw) . "\r\n$raw\r\n");
	isnt(get('two'), '"one"', 'what nobody has asked for is not taken for an answer');
	is(get('two'), '"two"', 'nor an answer for that to the next question');
}

#
# A full Redis that is to keep a mark
#
setting('flohsync.cache_holdoff', '5s');
$f->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'flohsync invalidator'");
put('full');
$redis->cmd('CONFIG', 'SET', 'maxmemory', 1);
elsewhere("SELECT flohsync.cache_invalidate('c', 'user', 'full')");
$f->comes_true('SELECT count(*) = 0 FROM _flohsync.cache_outbox', 'with flohsync.cache_holdoff and a full Redis an invalidation is delivered', timeout => 5);
is($redis->cmd('GET', redis_key('full')), undef, 'the value is gone');
$redis->cmd('CONFIG', 'SET', 'maxmemory', 0);
setting('flohsync.cache_holdoff');
delivered();

#
# The breaker, and a read of a record that is pending
#
$proxy->mode('close');
$f->disconnect('postgres');
get('k') for 1 .. 4;
is(figure('flohsync_cache_breaker_open'), 1, 'Redis is away');
$proxy->mode('pass');
$f->sql('BEGIN');
$f->sql("SELECT flohsync.cache_invalidate('c', 'user', 'pending')");
my $until = time + 5;
while (figure('flohsync_cache_breaker_open') && time < $until) { get('pending'); sleep 0.05 }
is(figure('flohsync_cache_breaker_open'), 0, 'a read that reaches it and need not ask has found it, too');
$f->sql('ROLLBACK');

#
# Switched off
#
setting('flohsync.enabled', 'off');
$f->sql("SELECT flohsync.cache_invalidate('c', 'user', 'k' || i) FROM generate_series(1, 300) i") for 1 .. 2;
$f->comes_true('SELECT count(*) <= 100 FROM _flohsync.cache_outbox', 'with flohsync.enabled off the outbox stays small', timeout => 15);
$f->sql("SELECT flohsync.cache_invalidate('c', 'user', 'k')");
$f->comes_true("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'flohsync invalidator'", 'nobody stays');
setting('flohsync.enabled');
get('k');
$f->comes_true('SELECT count(*) = 0 FROM _flohsync.cache_outbox', 'switched on again, all is delivered', timeout => 40);

#
# Two connectors that exchange their names while a read is under way
#
connector('a1');
connector('a2');
$f->sql("SELECT flohsync.cache_put('a1', 'user', 'k', '\"of one\"'), flohsync.cache_put('a2', 'user', 'k', '\"of two\"')");
$proxy->mode('hold');
my $h = $f->start_sql("SELECT flohsync.cache_get('a1', 'user', 'k') AS underway; SELECT pg_advisory_lock(5); SELECT 'then ' || flohsync.cache_get('a1', 'user', 'k')::text");
$f->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%AS underway%' AND wait_event_type = 'Extension' AND pid <> pg_backend_pid()");
$f->sql("BEGIN; UPDATE flohsync.connector_definition SET name = 'a3' WHERE name = 'a1'; UPDATE flohsync.connector_definition SET name = 'a1' WHERE name = 'a2'; UPDATE flohsync.connector_definition SET name = 'a2' WHERE name = 'a3'; COMMIT");
$proxy->mode('pass');
like($f->finish($h)->{out}, qr/then "of two"/, 'the next read goes by the new names');

#
# A copy of the database
#
put('secret', '"of the first database"');
is(get('secret'), '"of the first database"', 'a value');
my $r;
$f->disconnect('postgres');
$until = time + 30;
until (($r = $f->try_sql('CREATE DATABASE clone TEMPLATE postgres', 'template1'))->{ok} || time > $until) { sleep 0.2 }
ok($r->{ok}, 'the database is copied') or diag($r->{text});
is($f->sql("SELECT flohsync.cache_get('c', 'user', 'secret')", 'clone'), '', 'the copy does not see it');
is($f->sql("SELECT flohsync.cache_put('c', 'user', 'secret2', '\"of the copy\"')", 'clone'), 't', 'and has a cache of its own');
is(get('secret2'), '', 'which the first one does not see');

#
# Another extension
#
put('warm');
is(get('warm'), '"old"', 'a session knows the connector');
is(get('warm'), '"old"', 'by heart');
elsewhere('DROP EXTENSION flohsync CASCADE; CREATE EXTENSION flohsync');
is($f->try_sql("SELECT flohsync.cache_get('c', 'user', 'warm')")->{state}, '42704', 'the extension is made anew: it does not any more');

$f->no_crash;
done_testing();
