# No read is stale: a recorded history of readers, writers and faults, checked
# afterwards.  Without the lease the same check finds stale reads.
#
# CACHE_CHECKER_OPERATIONS makes it longer: test/run cache-checker.
use strict;
use warnings;

use CacheChecker;
use Flohsync;
use RedisServer;
use Test::More;

my $operations = ($ENV{CACHE_CHECKER_OPERATIONS} // 24000) / 2;    # half of them without faults, half with
my $control = $operations > 50000 ? 50000 : $operations;
my $redis = RedisServer->new;
my $proxy = $redis->proxy;
my $f = Flohsync->new(upstream => 0, conf => "flohsync.redis_url = '" . $redis->url . "'\nflohsync.redis_timeout = 200ms\nsynchronous_commit = off\n");
$f->sql("SELECT flohsync.create_connector('c', 'command', '{\"url\": \"https://directory.example.com/\"}')");
is($f->sql("SELECT flohsync.cache_put('c', 'user', 'warm', '1')"), 't', 'the cache works');
my %load = (keys => 20, readers => 4, writers => 2);

CacheChecker::prepare($f, 20);
my ($reads, $stale, $writes) = CacheChecker::run($f, %load, operations => $operations, setting => "SET flohsync.cache_lease_wait = '100ms';");
cmp_ok($reads, '>=', $operations - 4, "with the lease: $reads reads, $writes changes");
is($stale, 0, 'none is stale');
my $hits = $f->sql("SELECT flohsync.metrics()") =~ /reads_total\{outcome="hit"\} (\d+)/ ? $1 : 0;
cmp_ok($hits, '>', $reads / 20, "$hits of them were hits");

CacheChecker::prepare($f, 20);
($reads, $stale, $writes) = CacheChecker::run($f, %load, operations => $control, setting => 'SET flohsync.cache_without_lease = on;');
cmp_ok($stale, '>', 0, "without the lease: $stale of $reads reads are stale, after $writes changes");

# Through a proxy, with everything that can happen to Redis.
$f->sql("ALTER SYSTEM SET flohsync.redis_url = '" . $proxy->url . "'");
$f->sql('SELECT pg_reload_conf()');
$f->wait_for("SELECT current_setting('flohsync.redis_url') = '" . $proxy->url . "'");
CacheChecker::prepare($f, 20);
my $held = 0;
my @faults = (
	sub { $redis->cmd('FLUSHALL') },
	sub { $proxy->mode('delay', 20) }, sub { $proxy->mode('pass') },
	sub { $proxy->mode('hold') }, sub { $proxy->mode('pass') },
	sub { $redis->cmd('SAVE') },
	sub { $proxy->mode('close') }, sub { $proxy->mode('pass') },
	sub { $redis->restart },
	sub { $f->query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'flohsync invalidator'") },
	sub { $redis->cmd('SCRIPT', 'FLUSH') },
	sub { $redis->cmd('CONFIG', 'SET', 'maxmemory', 1) }, sub { $redis->cmd('CONFIG', 'SET', 'maxmemory', 0) });
($reads, $stale, $writes, my $struck) = CacheChecker::run($f, %load, operations => $operations, faults => \@faults, every => 0.3, setting => "SET flohsync.cache_lease_wait = '100ms';");
cmp_ok($reads, '>=', $operations - 4, "with $struck faults: $reads reads, $writes changes");
is($stale, 0, 'none is stale');

$f->no_crash;
done_testing();
