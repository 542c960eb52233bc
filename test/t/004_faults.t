# What an upstream can do wrong: nothing is lost, nothing goes stale, the next run works.
use strict;
use warnings;

use Flohsync;
use POSIX qw(strftime);
use Test::More;
use Time::HiRes qw(time);

my $f = Flohsync->new(conf => <<'CONF');
flohsync.page_size = 50
flohsync.http_timeout = 1s
flohsync.http_connect_timeout = 1s
flohsync.http_max_retry_wait = 3s
flohsync.http_max_response_size = 1MB
flohsync.log_runs = off
CONF
$f->fresh(user => 150, group => 5);
$f->connector('c');
$f->sync_ok('c', 'user', 'to begin with');

sub attempts { my $page = shift; return scalar grep { $_->{page} == $page } $f->requests(type => 'user') }

# The run must fail, with page 1 stored and nothing stale.
sub fails
{
	my ($name, $faults, $like, $attempts, $page) = @_;
	my $begun = time;
	$f->prepare(@$faults);
	my ($ok, $r) = $f->sync('c', 'user');
	my $seconds = time - $begun;
	my $run = $f->last_run('c', 'user');
	my $status = $f->status('c', 'user');
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(!$ok && $r->{message} =~ $like, "$name: the error says why") or diag($ok ? json_text($r) : $r->{text});
	is("$run->{status} $status->{lastSyncStatus}", 'error error', "$name: run and configuration are in error");
	ok(defined $run->{error} && $run->{error} =~ $like && defined $status->{lastSyncError} && $status->{lastSyncError} =~ $like && $run->{error_class}, "$name: they say why")
	  or diag(json_text([ @$run{qw(error error_class)}, $status->{lastSyncError} ]));
	is($f->counts('c', 'user'), '150 0', "$name: nothing is stale");
	is($f->changed, ($page // 2) == 1 ? 0 : 2, "$name: what came before is stored");
	# libcurl itself sends a request once more when a kept connection turns out to be dead
	my $sent = attempts($page // 2);
	ok($sent == $attempts || ($name =~ /reset/ && $sent == $attempts + 1), "$name: number of attempts") if defined $attempts;
	cmp_ok($seconds, '<', 12, "$name: in reasonable time");
	$f->recovers($name);
	return;
}

# The run must succeed after this many attempts at page 2.
sub survives
{
	my ($name, $faults, $attempts) = @_;
	$f->prepare(@$faults);
	my ($ok, $r) = $f->sync('c', 'user');
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($ok, "$name: the run succeeds") or diag($r->{text});
	my $sent = attempts(2);
	ok($sent == $attempts || ($name =~ /reset/ && $sent == $attempts + 1), "$name: number of attempts") if defined $attempts;
	$f->matches_upstream('c', 'user', "$name: nothing is lost");
	is($f->counts('c', 'user'), '150 0', "$name: nothing is stale");
	is($ok ? $r->{totalUpstreamRecords} : undef, 150, "$name: no record is counted twice");
	return;
}

#
# Status codes
#
survives("status $_ once", [ [ 'status', code => $_, times => 1 ] ], 2) for 408, 425, 429, 500, 502, 503, 504;
survives('status 503 four times', [ [ 'status', code => 503, times => 4 ] ], 5);
survives('different faults one after the other', [ [ 'status', code => 500, times => 1 ], [ 'reset', bytes => -1, times => 1, after => 0 ] ], undef);
fails("status $_ for good", [ [ 'status', code => $_ ] ], qr/\b$_\b/, 5) for 429, 500, 503;
fails('502 with a page of HTML', [ [ 'status', code => 502, html => 1 ] ], qr/\b502\b/, 5);
fails("status $_", [ [ 'status', code => $_ ] ], qr/\b$_\b/, 1) for 401, 403, 404;
fails("status $_ on the first page", [ [ 'status', code => $_, page => 1 ] ], qr/\b$_\b/, 1, 1) for 400, 401, 404, 410;
fails('success: false', [ [ 'success_false', message => 'the LDAP server is down' ] ], qr/the LDAP server is down/, 1);
fails('success: false on the first page', [ [ 'success_false', page => 1 ] ], qr/directory is not available/, 1, 1);

# Retry-After
sub seconds_between { my @at = map { $f->sql("SELECT extract(epoch FROM '$_->{at}'::timestamptz)") } grep { $_->{page} == 2 } $f->requests(type => 'user'); return @at > 1 ? $at[1] - $at[0] : -1 }
survives('Retry-After: 1', [ [ 'status', code => 429, retry_after => '1', times => 1 ] ], 2);
cmp_ok(seconds_between(), '>=', 0.95, 'Retry-After in seconds is honoured');
survives('Retry-After: a date', [ [ 'status', code => 503, retry_after => strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime(time + 3)), times => 1 ] ], 2);
my $waited = seconds_between();
ok($waited > 0.9 && $waited < 4, 'Retry-After as a date is honoured') or diag("waited $waited s");
survives('Retry-After: 0', [ [ 'status', code => 503, retry_after => '0', times => 1 ] ], 2);
survives("Retry-After: $_", [ [ 'status', code => 503, retry_after => $_, times => 1 ] ], 2) for 'soon', '-5', 'Thu, 01 Jan 1970 00:00:00 GMT';
fails("Retry-After: $_", [ [ 'status', code => 429, retry_after => $_ ] ], qr/429|Retry-After/i, undef) for '1000000000000', '99999999999999999999999';

#
# The connection
#
survives('reset before an answer', [ [ 'reset', bytes => -1, times => 1 ] ], 2);
survives('reset in the body', [ [ 'reset', times => 1 ] ], 2);
survives('closed without an answer', [ [ 'no_answer', times => 1 ] ], 2);
survives('body shorter than announced', [ [ 'short_body', times => 1 ] ], 2);
survives('cut in a chunk', [ [ 'chunk_cut', times => 1 ] ], 2);
survives('compressed body cut', [ [ 'gzip_cut', times => 1 ] ], undef);
survives('hangs once', [ [ 'hang', times => 1 ] ], 2);
survives('hangs in the body once', [ [ 'hang_body', times => 1 ] ], 2);
survives('one byte per second once', [ [ 'drip', rate => 1, times => 1 ] ], 2);
fails('reset for good', [ [ 'reset', bytes => -1 ] ], qr/reset|connection|recv/i, 5);
fails('cut for good', [ ['short_body'] ], qr/\w/, 5);
fails('cut in a chunk for good', [ ['chunk_cut'] ], qr/\w/, 5);
fails('hangs for good', [ ['hang'] ], qr/time/i, 5);

# Nobody there
$f->connector('nowhere', url => $f->closed_url);
$f->sync_fails('nowhere', 'user', qr/connect/i, 'a port where nobody listens');
is($f->status('nowhere', 'user')->{lastSyncStatus}, 'error', 'is an error');
SKIP:
{
	skip 'a name is looked up in a network of its own only', 1 unless $ENV{FLOHSYNC_ALONE};
	$f->connector('nohost', url => 'http://no-such-host.invalid/');
	$f->sync_fails('nohost', 'user', qr/resolve|no-such-host/i, 'a name that does not resolve');
}
$f->connector('notls', url => $f->url =~ s/^http:/https:/r);
$f->sync_fails('notls', 'user', qr/SSL|TLS|connect/i, 'no TLS where TLS is asked for');

#
# Answers that are none
#
fails('a login page with status 200', [ ['html'] ], qr/JSON|HTML|parse|invalid/i);
fails('an empty body', [ ['empty_answer'] ], qr/\w/);
fails('status 204', [ [ 'status', code => 204 ] ], qr/\w/);
fails("body $_", [ [ 'body', body => $_ ] ], qr/\w/)
  for '[]', 'null', '{}', '{"success":true}', '{"success":true,"payload":{}}', '{"success":true,"payload":[]}', '{"success":true,"payload":null}',
  '{"success":true,"payload":{"resources":{}}}', '{"success":true,"payload":{"resources":null}}', '{"success":true,"payload":{"nextCursor":"o:100"}}',
  '{"payload":{"resources":[]}}', '{"success":"yes","payload":{"resources":[]}}', '{"success":true,"payload":{"resources":[]}';
fails('JSON cut short', [ ['truncate'] ], qr/JSON|parse|invalid|end|cut/i);
fails('JSON without its last byte', [ [ 'truncate', cut => 1 ] ], qr/JSON|parse|invalid|end|cut/i);
fails('garbage after the JSON', [ ['trailing'] ], qr/JSON|parse|invalid|garbage|trailing|after/i);
fails('bad compressed data', [ ['gzip_bad'] ], qr/\w/);
fails('not HTTP', [ [ 'raw', body => "220 smtp.example.org ESMTP\r\n" ] ], qr/\w/);
my $other = $f->url =~ s/127\.0\.0\.1/localhost/r;
fails("a redirect ($_) to another origin", [ [ 'redirect', code => $_, location => $other ] ], qr/redirect|\b$_\b/i, 1) for 302, 307;

#
# Too much
#
fails('a compressed bomb of 100 MB', [ [ 'gzip_bomb', bytes => 104857600 ] ], qr/large|size|limit|1 ?MB|1048576/i);
fails('an endless body', [ ['endless_body'] ], qr/large|size|limit|1 ?MB|1048576/i);
fails('an announced terabyte', [ [ 'endless_body', length => 1 ] ], qr/large|size|limit|1 ?MB|1048576/i);
fails('endless headers', [ ['header_flood'] ], qr/\w/);
fails('one endless header', [ [ 'header_flood', one => 1 ] ], qr/\w/);

#
# Fine, if unusual
#
survives('gzip', [ ['gzip'] ], 1);
survives('chunks', [ ['chunked'] ], 1);
survives('the cursor before the records', [ ['next_first'] ], 1);
survives("totalEstimate $_", [ [ 'total_estimate', json => $_ ] ], 1) for '', 'null', '-5', '1.5', '0';
survives('connection: close', [ ['close'] ], 1);
$f->prepare([ 'page_size', count => 5000, page => '*' ]);
is(($f->sync_ok('c', 'user', 'a page larger than asked for'))->{pagesProcessed}, 1, 'all is taken from it');
$f->matches_upstream('c', 'user');

#
# Cursors that lead nowhere
#
for ([ 'the same cursor twice', 'cursor_repeat' ], [ 'a cycle of two', 'cursor_cycle', count => 2 ], [ 'pages without records for ever', 'empty_page', page => '2-' ], [ 'pages after the end for ever', 'endless', page => '3-' ],
	[ 'a number as cursor', 'next_cursor', json => '5' ], [ 'an object as cursor', 'next_cursor', json => '{}' ])
{
	my ($name, @fault) = @$_;
	$f->prepare(\@fault);
	my $begun = time;
	my ($ok, $r) = $f->sync('c', 'user');
	my $run = $f->last_run('c', 'user');
	cmp_ok(time - $begun, '<', 10, "$name: the run ends");
	ok(!$run->{complete}, "$name: it is not complete");
	ok($run->{status} eq 'error' ? $run->{error} : $run->{incomplete_reason}, "$name: it says why") or diag(json_text($run));
	is($f->counts('c', 'user'), '150 0', "$name: nothing is stale");
	is($f->changed >= 2 ? 'stored' : 'lost', 'stored', "$name: what came before is stored");
	$f->recovers($name);
}
$f->prepare([ 'empty_page', times => 1 ]);
$f->sync_ok('c', 'user', 'one empty page in between');
$f->matches_upstream('c', 'user');

# The list ends too early, and says so itself
$f->prepare(['no_next']);
$f->sync('c', 'user');
my $short = $f->last_run('c', 'user');
ok($short->{status} eq 'held' || (!$short->{complete} && $short->{incomplete_reason}), 'a third of the records is missing: the run is held, or not complete') or diag(json_text($short));
is($f->counts('c', 'user'), '150 0', 'nothing is stale');
$f->recovers('after a list that ended too early');

#
# Duplicates
#
my $duplicates = sub {
	my ($name, $fault, %want) = @_;
	$f->prepare($fault);
	my $stats = $f->sync_ok('c', 'user', $name);
	is($stats->{totalUpstreamRecords}, $want{total}, "$name: all are counted");
	is($stats->{duplicates}, $want{duplicates}, "$name: duplicates") if defined $want{duplicates};
	is($stats->{errored} . $f->counts('c', 'user'), '0150 0', "$name: no error, nothing stale");
	is($f->sql("SELECT count(*) " . $f->scope('c', 'user') . " AND display_name LIKE '% copy'"), $want{copies}, "$name: which one is stored");
	$f->recovers($name);
};
$duplicates->('an id twice in a page, equal', [ 'dup_in_page', record => '1,2', same => 1 ], total => 152, duplicates => 2, copies => 0);
$duplicates->('an id twice in a page, different', [ 'dup_in_page', record => 1 ], total => 151, duplicates => 1, copies => 1);
$duplicates->('the whole page twice', [ 'dup_in_page', record => 'all', same => 1 ], total => 200, duplicates => 50, copies => 0);
$duplicates->('records of the page before', [ 'dup_across', count => 3 ], total => 153, copies => 0);
$duplicates->('records of the page before, changed since', [ 'dup_across', count => 3, changed => 1 ], total => 153, copies => 3);

$f->invariants;
$f->no_crash;
done_testing();
