# The clock of the machine is set forth and back: every tick that is due runs once, and none is waited for in vain.
#
# A test cannot set the clock; it moves all that the tables know of the time instead.
use strict;
use warnings;

use Flohsync;
use Test::More;

my $f = Flohsync->new(conf => "flohsync.http_max_attempts = 1\nflohsync.launcher_naptime = 1s\n");
my $true = JSON::PP::true;

# As if the clock had been set by so much: positive is forth.
sub set_clock
{
	my ($by) = @_;
	for ([ 'connector_sync_config', qw(next_run_at next_full_run_at retry_at last_sync_at last_success_at last_full_pass_at watermark created_at updated_at) ],
		[ 'sync_run', qw(requested_at started_at finished_at pass_started_at modified_since) ],
		[ 'resource_record', qw(observed_at stale_since) ])
	{
		my ($table, @columns) = @$_;
		$f->sql("UPDATE flohsync.$table SET " . join(', ', map { "$_ = $_ - interval '$by'" } @columns));
	}
	return;
}
sub runs { return $f->sql("SELECT count(*) FROM flohsync.sync_run WHERE trigger = 'schedule'") }
# What is due is queued, as a worker does it, and done.
sub settle
{
	$f->sql('SELECT _flohsync.enqueue_due(), _flohsync.wake()');
	return $f->wait_for("SELECT count(*) = 0 FROM flohsync.sync_run WHERE status IN ('queued', 'running')")
	  && $f->wait_for("SELECT count(*) = 0 FROM flohsync.workers WHERE kind = 'flohsync worker'");
}
sub next_run { return $f->sql('SELECT next_run_at FROM flohsync.connector_sync_config') }

$f->fresh(user => 40);
# Every second hour from now: the test must not meet a tick of the real clock.
my $hour = $f->sql("SELECT (extract(hour FROM now() AT TIME ZONE 'UTC')::int + 1) % 2");
$f->connector('c', cronSchedule => "30 $hour-23/2 * * *", timezone => 'UTC', enabled => $true, safeguards => { maxStaleFraction => undef });
$f->sync_ok('c', 'user');
settle();
is(runs(), 0, 'nothing is due');

set_clock('9 hours');
settle();
is($f->sql("SELECT count(*), bool_and(status = 'success') FROM flohsync.sync_run WHERE trigger = 'schedule'"), '1|t', 'nine hours forth: one run for all the ticks that were jumped over');

# Back by an hour: the tick that was run does not come again.
my $next = next_run();
set_clock('-1 hour');
settle();
is(runs(), 1, 'an hour back: no tick is run twice');
is($f->sql("SELECT next_run_at = '$next'::timestamptz + interval '1 hour' FROM flohsync.connector_sync_config"), 't', 'the next one is still that after the one that was run');
set_clock('1 hour');

# Back by more: the time before was wrong.
$f->sql("SELECT flohsync.upsert_resource('c', 'user', '{\"externalId\": \"gone soon\"}')");
set_clock('-400 days');
$f->sql("UPDATE flohsync.connector_sync_config SET retry_at = now() + interval '300 days', retries = 1");
settle();
is(runs(), 1, 'a clock that was a year ahead is set right: nothing is run for that');
is(next_run(), $next, 'the next tick is one of the right time');
is($f->sql('SELECT retry_at FROM flohsync.connector_sync_config'), '', 'a further try of that future is not waited for');
my $stats = $f->sync_ok('c', 'user', 'a full pass');
is($stats->{staled}, 1, 'stales what was observed in that future and is not there');
$f->matches_upstream('c', 'user');
settle();

# An incremental pass after a clock that was ahead
$f->configure('c', 'user', strategy => 'incremental');
$f->sync_ok('c', 'user');
set_clock('-400 days');
$f->sync_ok('c', 'user', 'an incremental pass');
is($f->sql('SELECT modified_since FROM flohsync.sync_run ORDER BY id DESC LIMIT 1'), '', 'whose watermark is in the future asks for all');
$f->sync_ok('c', 'user');
isnt($f->sql('SELECT modified_since FROM flohsync.sync_run ORDER BY id DESC LIMIT 1'), '', 'the next one for what has changed since');
settle();
$f->invariants;
$f->no_crash;
done_testing();
