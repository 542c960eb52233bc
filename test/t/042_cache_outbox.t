# Invalidations are delivered after commit, at least once, whatever happens to
# the process that does it, and that process is in nobody's way.
use strict;
use warnings;

use Flohsync;
use RedisServer;
use Test::More;
use Time::HiRes qw(time sleep);

my $redis = RedisServer->new;
my $proxy = $redis->proxy;
my $f = Flohsync->new(records => 'user=20', conf => "flohsync.redis_url = '" . $proxy->url . "'\nflohsync.redis_timeout = 500ms\nflohsync.cache_outbox_max = 1000\nmax_prepared_transactions = 2\n");
my $id = $f->connector('c');

sub redis_key { my ($key) = @_; return "cr:$id:user:$key" }
sub put { my ($key) = @_; return $f->sql("SELECT flohsync.cache_put('c', 'user', '$key', '\"old\"')") }
sub get { my ($key) = @_; return $f->sql("SELECT flohsync.cache_get('c', 'user', '$key')") }
sub invalidate { my ($key) = @_; $f->sql("SELECT flohsync.cache_invalidate('c', 'user', '$key')"); return }
sub pending { return $f->sql('SELECT count(*) FROM _flohsync.cache_outbox') }
sub delivered { my ($name) = @_; local $Test::Builder::Level = $Test::Builder::Level + 1; return $f->comes_true('SELECT count(*) = 0 FROM _flohsync.cache_outbox', $name, timeout => 60) }
my $INVALIDATORS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'flohsync invalidator'";

is(put('k'), 't', 'the cache works');
$f->comes_true("$INVALIDATORS", 'nobody stays when there is nothing to do', is => '0');
invalidate('k');
delivered('an invalidation');
is($redis->cmd('GET', redis_key('k')), undef, 'reaches Redis');
is($f->sql("SELECT kind FROM flohsync.workers WHERE kind LIKE '%invalidator'"), 'flohsync invalidator', 'its process is shown') if $f->sql($INVALIDATORS) > 0;
is($f->sql("SELECT usename FROM pg_stat_activity WHERE backend_type = 'flohsync invalidator'"), 'flohsync_worker', 'and is no superuser') if $f->sql($INVALIDATORS) > 0;

#
# After commit only
#
put('a');
put('b');
my $open = $f->start_sql("BEGIN; SELECT flohsync.cache_invalidate('c', 'user', 'a'); SELECT pg_sleep(0.4); ROLLBACK");
$f->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(0.4%' AND wait_event = 'PgSleep'");
is(get('a'), '"old"', 'before the commit the value is there');
# Another one that invalidates the same does not wait for it.
my $begun = time;
invalidate('a');
ok(time - $begun < 0.3, 'who invalidates the same record waits for nobody');
$f->finish($open);
delivered('what was rolled back is not delivered');
like($redis->cmd('GET', redis_key('b')), qr/^V/, 'the other one stays');

# Two phases: nobody wakes the invalidator, but a reader who meets the row does.
put('p');
$f->sql("BEGIN; SELECT flohsync.cache_invalidate('c', 'user', 'p'); PREPARE TRANSACTION 'one'");
is(get('p'), '"old"', 'a prepared transaction is not committed');
$f->sql("COMMIT PREPARED 'one'");
is(get('p'), '', 'and then counts at once');
delivered('and is delivered');

#
# Killed, cancelled, terminated
#
put('k');
$proxy->mode('hold');
invalidate('k');
$f->comes_true("SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'flohsync invalidator' AND wait_event_type = 'Extension'", 'the invalidator waits for Redis');
is($f->sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'flohsync invalidator' AND (backend_xmin IS NOT NULL OR xact_start IS NOT NULL)"), 0, 'without a transaction');
my $pid = $f->sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'flohsync invalidator'");
ok($f->crash($pid), 'it is killed');
is(pending(), 1, 'the invalidation is still there');
is(get('k'), '', 'and a read goes by it') if $proxy->mode('pass') || 1;
delivered('after the restart it is delivered');
# A get that found nothing leaves its mark.
unlike($redis->cmd('GET', redis_key('k')) // '', qr/^V/, 'it is');

for my $how ('pg_terminate_backend', 'pg_cancel_backend')
{
	put('k');
	$proxy->mode('hold');
	invalidate('k');
	$f->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'flohsync invalidator' AND wait_event_type = 'Extension'");
	$f->sql("SELECT $how(pid) FROM pg_stat_activity WHERE backend_type = 'flohsync invalidator'");
	$proxy->mode('pass');
	delivered("$how: another one delivers it");
	is(get('k'), '', 'the next read is fresh');
}

#
# A long outage
#
put('k');
$proxy->mode('close');
$f->sql("SELECT _flohsync.invalidate('$id', 'user', ARRAY(SELECT 'o-' || n % 300 FROM generate_series(1, 900) n))");
$f->comes_true('SELECT count(*) = 300 FROM _flohsync.cache_outbox', 'rows for the same record become one');
$f->sql("SELECT _flohsync.invalidate('$id', 'user', ARRAY(SELECT 'o-' || n FROM generate_series(1, 5000) n))");
$f->comes_true('SELECT count(*) = 0 FROM _flohsync.cache_outbox', 'more than flohsync.cache_outbox_max become one for all', timeout => 60);
$proxy->mode('pass');
$f->disconnect('postgres');
is(get('k'), '', 'which counts');
$f->comes_true("SELECT flohsync.cache_put('c', 'user', 'k2', '1')", 'and the cache works again', timeout => 60);

# A hundred thousand
$f->sql("ALTER SYSTEM SET flohsync.cache_outbox_max = 1000000");
$f->sql('SELECT pg_reload_conf()');
$f->wait_for("SELECT current_setting('flohsync.cache_outbox_max') = '1000000'");
put('n-77');
$f->sql("INSERT INTO _flohsync.cache_outbox (connector_id, resource_type, external_id) SELECT '$id', 'user', 'n-' || n FROM generate_series(1, 100000) n");
$begun = time;
invalidate('x');
is(get('n-77'), '', 'with 100,000 waiting, a read is fresh');
delivered('100,000 are delivered');
my $seconds = time - $begun;
ok($seconds < 10, "in $seconds s");
unlike($redis->cmd('GET', redis_key('n-77')) // '', qr/^V/, 'they are');

#
# In nobody's way
#
$f->sql('CREATE DATABASE other');
$f->sql('CREATE EXTENSION flohsync', 'other');
$f->sql("SELECT flohsync.create_connector('c', 'command', jsonb_build_object('url', '" . $f->url . "'))", 'other');
is($f->sql("SELECT flohsync.cache_put('c', 'user', 'k', '1')", 'other'), 't', 'a second database has a cache, too');
$proxy->mode('hold');
$f->sql("SELECT flohsync.cache_invalidate('c', 'user', 'k')", 'other');
$f->comes_true("SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'flohsync invalidator' AND datname = 'other' AND wait_event_type = 'Extension'", 'its invalidator is at work');
$f->disconnect('other');
my $r = $f->try_sql('DROP DATABASE other');
ok($r->{ok}, 'the database is dropped') or diag($r->{text});
$proxy->mode('pass');
is(put('k'), 't', 'nobody else has noticed');

put('k');
$proxy->mode('hold');
invalidate('k');
$f->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'flohsync invalidator' AND wait_event_type = 'Extension'");
$r = $f->try_sql('DROP EXTENSION flohsync');
ok($r->{ok}, 'the extension is dropped under it') or diag($r->{text});
$proxy->mode('pass');
$f->comes_true($INVALIDATORS, 'it goes', is => '0', timeout => 30);
is(scalar(() = PostgreSQL::Test::Utils::slurp_file($f->node->logfile) =~ /terminated by signal/g), 1, 'no process died of anything but our kill');

#
# Without shared_preload_libraries
#
my $g = Flohsync->new(name => 'plain', preload => 0, upstream => 0, conf => "flohsync.redis_url = '" . $redis->url . "'\nflohsync.redis_timeout = 500ms\n");
my $gid = $g->sql("SELECT flohsync.create_connector('c', 'command', '{\"url\": \"https://directory.example.com/\"}')");
is($g->sql("SELECT flohsync.cache_put('c', 'user', 'k', '1')"), 't', 'without shared_preload_libraries the cache works');
is($g->sql("SELECT flohsync.cache_get('c', 'user', 'k')"), '1', 'a hit');
for my $i (1 .. 5)
{
	$g->sql("SELECT flohsync.cache_put('c', 'user', 'k$i', '1')");
	$g->sql("SELECT flohsync.cache_invalidate('c', 'user', 'k$i')");
	is($g->sql("SELECT coalesce(flohsync.cache_get('c', 'user', 'k$i')::text, 'none')"), 'none', 'the next read is fresh');
}
$g->comes_true('SELECT count(*) = 0 FROM _flohsync.cache_outbox', 'invalidations are delivered', timeout => 30);
is(scalar(grep { /k\d$/ && /\Q$gid\E/ && ($redis->cmd('GET', $_) // '') =~ /^V/ } $redis->keys), 0, 'all of them');
$g->comes_true($INVALIDATORS, 'and nobody stays', is => '0', timeout => 30);

done_testing();
