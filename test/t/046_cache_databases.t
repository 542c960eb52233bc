# Databases that come and go, more than shared memory has room for: who has no
# place there is served as correctly, and gets one when another database is gone.
use strict;
use warnings;

use Flohsync;
use RedisServer;
use Test::More;

my $redis = RedisServer->new;
my $proxy = $redis->proxy;
my $f = Flohsync->new(upstream => 0, conf => "flohsync.redis_url = '" . $proxy->url . "'\nflohsync.redis_timeout = 5s\nflohsync.redis_connect_timeout = 5s\nflohsync.cache_databases = 2\nflohsync.launcher_naptime = 1s\n");

sub connector { my ($db) = @_; return $f->sql("SELECT flohsync.create_connector('c', 'command', '{\"url\": \"https://directory.example.com/\"}')", $db) }
sub database
{
	my ($db) = @_;
	$f->sql("CREATE DATABASE $db STRATEGY file_copy");
	$f->sql('CREATE EXTENSION flohsync', $db);
	connector($db);
	return;
}
sub drop { my ($db) = @_; $f->disconnect($db); $f->sql("DROP DATABASE $db WITH (FORCE)"); return }
sub shares { my ($db) = @_; return $f->sql('SELECT count(*) > 0 FROM _flohsync.cache_metrics()', $db) }
sub figure { my ($db, $name) = @_; return $f->sql('SELECT flohsync.metrics()', $db) =~ /^\Q$name\E (\d+)/m ? $1 : 'none' }
sub put { my ($db, $key, $value) = @_; return $f->sql("SELECT flohsync.cache_put('c', 'user', '$key', '\"$value\"')", $db) }
sub get { my ($db, $key) = @_; return $f->sql("SELECT flohsync.cache_get('c', 'user', '$key')", $db) }
sub invalidate { my ($db, $key) = @_; return $f->sql("SELECT flohsync.cache_invalidate('c', 'user', '$key')", $db) }
sub delivered { my ($db) = @_; return $f->wait_for('SELECT count(*) = 0 FROM _flohsync.cache_outbox', db => $db) }

connector('postgres');
database('a');
is(shares($_), 't', "$_ has a place") for 'postgres', 'a';
database('b');
is(shares('b'), 'f', 'b has none');
is(put('b', 'k', 'one'), 't', 'its cache works');
is(get('b', 'k'), '"one"', 'what is put is there');
invalidate('b', 'k');
is(get('b', 'k'), '', 'what is invalidated is not');
ok(delivered('b'), 'and Redis hears of it');

# The breaker of the first is open when it goes.
$proxy->mode('close');
get('a', 'x') for 1 .. 4;
is(figure('a', 'flohsync_cache_breaker_open'), 1, 'for a, Redis is away');
$proxy->mode('pass');

# Somebody writes in b while it has no place there, and is at it still when it gets one.
is(put('b', 'w', 'old'), 't', 'a value in b');
$f->sql('SELECT pg_advisory_lock(46)', 'b');
my $writer = $f->start_sql("BEGIN; SELECT flohsync.cache_invalidate('c', 'user', 'w'); SELECT pg_advisory_xact_lock(46); COMMIT", 'b');
$f->wait_for("SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 46 AND NOT granted", db => 'b') or die 'nobody writes';
is(shares('b'), 'f', 'a writer in b, which has no place');
drop('a');
$f->comes_true('SELECT count(*) > 0 FROM _flohsync.cache_metrics()', 'when a is dropped, a session of b gets its place', db => 'b');
is(figure('b', 'flohsync_cache_breaker_open'), 0, 'and nothing that was known of a');
is(figure('b', 'flohsync_cache_reads_total{outcome="hit"}'), 0, 'none of its figures either');
invalidate('b', 'other');
ok(delivered('b'), 'what the session invalidates is delivered');
$f->wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'flohsync invalidator'") or die 'invalidators stay';
is(get('b', 'w'), '"old"', 'what the writer has not committed does not count') for 1 .. 3;
$f->sql(<<'SQL', 'b');
DO $$ BEGIN
  PERFORM pg_advisory_unlock(46);
  WHILE NOT EXISTS (SELECT FROM _flohsync.cache_outbox) LOOP END LOOP;
  PERFORM set_config('test.got', coalesce(flohsync.cache_get('c', 'user', 'w')::text, 'nothing'), false);
END $$
SQL
ok($f->finish($writer)->{ok}, 'he commits');
is($f->sql('SHOW test.got', 'b'), 'nothing', 'and it counts at once, before anybody can tell Redis');
ok(delivered('b'), 'who is told then');

# A database that has no place, with something Redis is not told of, gets that of one with nothing.
drop('b');
database('c');
$f->comes_true('SELECT count(*) > 0 FROM _flohsync.cache_metrics()', 'c has the place of b', db => 'c');
database('d');
is(shares('d'), 'f', 'd has no place');
put('d', 'p', 'old');
$proxy->mode('error', 'NOPERM not now', 'DEL');
invalidate('d', 'p');
for (1 .. 2)
{
	$f->sql("SELECT flohsync.cache_clear('c')", 'c');
	delivered('c');
	get('c', 'x') for 1 .. 3;
}
drop('c');
$f->comes_true('SELECT count(*) > 0 FROM _flohsync.cache_metrics()', 'when c is dropped, d has its place', db => 'd');
get('d', 'other');
is(get('d', 'p'), '', 'and what waits there is not forgotten');
$proxy->mode('pass');
drop('d');

# One after the other, as often as there is need
for my $i (1 .. 4)
{
	database("d$i");
	$f->comes_true('SELECT count(*) > 0 FROM _flohsync.cache_metrics()', "database $i after that has a place", db => "d$i");
	is(put("d$i", 'k', $i), 't', 'and a cache');
	drop("d$i");
}
is(shares('postgres'), 't', 'the first one has had its own all along');

$f->no_crash;
done_testing;
