# Connectors of kind rest: limits of the upstream, retries, timeouts and sizes; testing a connector.
use strict;
use warnings;

use Flohsync;
use JSON::PP;
use Rest;
use Test::More;
use Time::HiRes qw(time);

my $f = Rest->new(conf => "flohsync.http_timeout = 5s\nflohsync.http_max_retry_wait = 20s\n");
my $nr = 0;
my $c;

sub begin
{
	my ($style, %o) = @_;
	$c = 'c' . ++$nr;
	$f->up('heal');
	$f->fresh(user => 105, group => 20);
	$f->rest($c, $style, %o);
	$f->clear_log;
	return;
}
sub works
{
	my $name = shift;
	my $begun = time;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $stats = $f->sync_ok($c, 'user', "$name: a pass");
	my $seconds = time - $begun;
	ok($stats->{complete}, "$name: is complete");
	$f->matches_upstream($c, 'user', "$name: has all records");
	return $seconds;
}
sub statuses { my %n; $n{ $_->{status} }++ for $f->requests(type => 'user'); return join ' ', map { "$_:$n{$_}" } sort keys %n }

#
# Throttled: wait as long as the upstream says, and go on
#
my %okta = (remaining_header => 'x-rate-limit-remaining', reset_header => 'x-rate-limit-reset');
my %github = (remaining_header => 'x-ratelimit-remaining', reset_header => 'x-ratelimit-reset', also_throttle_status => [403]);
my %google = (also_throttle_status => [403], throttle_body => '$.error.errors[*].reason ? (@ like_regex "RateLimit|quota")');
for ([ 'okta', \%okta, 1 ], [ 'github', \%github, 1 ], [ 'github_secondary', \%github, 1 ], [ 'google', \%google, 0 ], [ 'graph', {}, 1 ],
	[ 'seconds', { reset_header => 'ratelimit-reset', reset_format => 'seconds' }, 1 ])
{
	my ($style, $limits, $wait) = @$_;
	begin('link', limits => $limits);
	$f->fault('throttle', style => $style, seconds => $style =~ /^(?:okta|github|seconds)$/ ? 2 : 1, page => 3);
	my $seconds = works("throttled as by $style");
	is($f->pages_asked('user'), '1 2 3 3 4 5 6', "throttled as by $style: the page is asked for again");
	$wait ? cmp_ok($seconds, '>', 0.9, "throttled as by $style: after the time that it says") : cmp_ok($seconds, '<', 2, "throttled as by $style: after a moment");
	cmp_ok($seconds, '<', 8, "throttled as by $style: and not much later");
}

# A 403 that is none of it ends the run.
for ([ 'without limits', {} ], [ 'with a body that says something else', \%google ], [ 'with requests left', \%github ])
{
	my ($name, $limits) = @$_;
	begin('link', limits => $limits);
	$f->fault('status', code => 403, page => 3, times => -1, body => '{"error":{"errors":[{"reason":"forbidden"}]}}');
	$f->fault('header', page => 3, times => -1, name => 'x-ratelimit-remaining', value => '17');
	$f->ends_with($c, 'user', 'auth', qr/403/, "403 $name");
	is($f->pages_asked('user'), '1 2 3', "403 $name: it is not tried again");
}

# A wait that is too long ends the run; the next one goes on
for ([ 'Retry-After', 'status', code => 429, retry_after => 7200 ], [ 'reset header', 'throttle', style => 'okta', seconds => 7200 ])
{
	my ($name, $kind, @args) = @$_;
	begin('link', limits => \%okta);
	$f->fault($kind, page => 3, @args);
	my $begun = time;
	$f->ends_with($c, 'user', 'throttled', qr/./, "$name, two hours");
	cmp_ok(time - $begun, '<', 5, "$name, two hours: it does not wait");
	$f->clear_log;
	works("$name, two hours: the next run");
	is($f->pages_asked('user'), '3 4 5 6', "$name, two hours: goes on where it was");
}
begin('link', limits => { reset_header => 'x-rate-limit-reset' });
$f->fault('status', code => 429, page => 2);
$f->fault('header', page => 2, name => 'X-Rate-Limit-Reset', value => 'soon');
cmp_ok(works('a reset that is no number'), '<', 3, 'a reset that is no number: is not waited for');
begin('link', limits => { reset_header => 'x-rate-limit-reset' });
$f->fault('status', code => 429, page => 2);
$f->fault('header', page => 2, name => 'X-Rate-Limit-Reset', value => '99999999999999999999');
my ($ok) = $f->sync($c, 'user');
$f->no_crash;

# The upstream's clock is wrong: the reset is by that clock
for my $skew (-3600, 3600)
{
	begin('link', limits => \%okta);
	$f->up('clock', skew => $skew);
	$f->fault('throttle', style => 'okta', seconds => 2, page => 3);
	my $seconds = works("the upstream's clock is $skew s off");
	cmp_ok($seconds, '<', 8, "the upstream's clock is $skew s off: the reset is by that clock");
	$f->up('clock', skew => 0);
}

# A limit that is really kept: with the headers read, no request is refused
for my $style (qw(okta seconds))
{
	my %limits = $style eq 'okta' ? %okta
	  : (remaining_header => 'ratelimit-remaining', reset_header => 'ratelimit-reset', reset_format => 'seconds');
	begin('link', limits => \%limits);
	$f->up('limit', rate => 3, window => 2, style => $style);
	works("three requests in two seconds, $style");
	is(statuses(), '200:6', "three requests in two seconds, $style: none too many");
	$f->up('limit', rate => 0);
}
# Without them, it is refused, waits, and gets there
begin('link', limits => {}, retry => { max_attempts => 20 });
$f->up('limit', rate => 3, window => 2, style => 'graph');
works('three requests in two seconds, unknown to us');
like(statuses(), qr/200:6/, 'three requests in two seconds, unknown: all pages came');
$f->up('limit', rate => 0);

# requests_per_minute
begin('link', limits => { requests_per_minute => 120 });
my $seconds = works('120 requests per minute');
cmp_ok($seconds, '>', 2, '120 requests per minute: six take more than two seconds');
cmp_ok($seconds, '<', 8, '120 requests per minute: and not many more');

#
# Retries
#
begin('link');
$f->fault('status', code => $_, page => 2) for qw(408 425 500 502);
works('four failures in a row');
begin('link', retry => { max_attempts => 2, base_ms => 10 });
$f->fault('status', code => 503, page => 2, times => -1);
$f->ends_with($c, 'user', 'http_status', qr/503/, 'two attempts');
is($f->pages_asked('user'), '1 2 2', 'two attempts: no more');
begin('link', retry => { on_status => [ 418, 503 ], base_ms => 10 });
$f->fault('status', code => 418, page => 2, times => 2);
works('a status that the definition names');
$f->fault('status', code => 500, page => 2, times => -1);
$f->clear_log;
$f->ends_with($c, 'user', 'http_status', qr/500/, 'a status that it does not name');
is($f->pages_asked('user'), '1 2', 'a status that it does not name: once');
begin('link');
for ([ 400, 'http_status' ], [ 404, 'not_found' ], [ 410, 'not_found' ], [ 501, 'http_status' ])
{
	$f->fault('status', code => $_->[0], page => 1, times => -1);
	$f->clear_log;
	$f->ends_with($c, 'user', $_->[1], qr/$_->[0]/, "status $_->[0]");
	is($f->pages_asked('user'), '1', "status $_->[0]: it is not tried again");
	$f->up('heal');
}
begin('link', http => { timeout_ms => 1000 }, retry => { max_attempts => 1 });
$f->fault('hang', page => 2, times => -1);
my $begun = time;
$f->ends_with($c, 'user', 'timeout', qr/./, 'an answer that does not come');
cmp_ok(time - $begun, '<', 4, "an answer that does not come: the definition's own time");
$f->up('release');
begin('link', http => { max_response_bytes => 20000 }, retry => { max_attempts => 1 });
$f->fault('trailing', page => 2, text => ' ' x 500, times => -1);
works('answers within the limit');
$f->fault('gzip_bomb', page => 3, bytes => 50000000);
$f->ends_with($c, 'user', 'too_large', qr/./, 'an answer that is too large once unpacked');

#
# Testing a connector
#
sub tested { my $t = $f->json("SELECT flohsync.test_connector('$c')"); return $t }
begin('link', types => [qw(user group)]);
my $t = tested();
is($t->{ok}, JSON::PP::true, 'a connector that works: ok') or diag(json_text($t));
is(scalar(grep { $_->{path} =~ m{/rest/link/(users|groups)} } $f->requests), 2, 'a connector that works: a page of each type was asked for');
is($f->counts($c, 'user'), '0 0', 'a connector that works: nothing was stored');
for ([ '401', 'status', code => 401 ], [ '500', 'status', code => 500 ], [ 'no JSON', 'html' ], [ 'no answer', 'no_answer' ])
{
	my ($name, $kind, @args) = @$_;
	$f->fault($kind, times => -1, @args);
	$t = tested();
	is($t->{ok}, JSON::PP::false, "tested, $name: not ok");
	ok(length($t->{error} // ''), "tested, $name: it says why");
	$f->up('heal');
}
$f->sql("SELECT flohsync.update_connector('$c', " . Flohsync::jsonb({ config => { host => $f->closed_url =~ s{http://|/$}{}gr } }) . ')');
$t = tested();
is($t->{ok}, JSON::PP::false, 'tested, no one there: not ok');
begin('link', auth => { type => 'bearer', token => '{{secret.token}}' });
$t = tested();
ok(!$t->{ok} && $t->{error} =~ /token/, 'tested, a secret that is missing: it says which') or diag(json_text($t));
$f->up('auth', kind => 'token', client_id => 'a', client_secret => 's3cret-of-the-test');
begin('link', auth => { type => 'oauth2_client_credentials', token_url => 'http://{{config.host}}/oauth/token', client_id => 'a', client_secret => '{{secret.s}}' }, secrets => { s => 's3cret-of-the-test' });
$f->up('auth', kind => 'token', client_id => 'a', client_secret => 's3cret-of-the-test');
$t = tested();
is($t->{ok}, JSON::PP::true, 'tested, with a token: ok') or diag(json_text($t));
$f->secret($c, 's', 'another-s3cret');
$t = tested();
ok(!$t->{ok} && json_text($t) !~ /s3cret/, 'tested, another secret: not ok, and it is not shown');

$f->up('auth', kind => 'none');
$f->invariants;
$f->no_crash;
done_testing();
