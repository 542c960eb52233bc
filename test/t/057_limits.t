# What an upstream can make long or large: each has a limit with an error that names it, and what a page takes in memory has one too.
use strict;
use warnings;

use Flohsync;
use JSON::PP;
use PostgreSQL::Test::Utils ();
use Rest;
use Test::More;

# One worker, so that runs are done one after the other in one process
my $f = Rest->new(records => 'user=130,group=5', conf => <<'CONF');
shared_buffers = 16MB
flohsync.max_workers = 1
flohsync.http_max_attempts = 3
flohsync.retry_delay = 0
flohsync.log_runs = off
CONF
my $nr = 0;
my $c;
my $mb = 1024 * 1024;

# A connector, and what is to go wrong with it
sub command { my (%o) = @_; $c = 'c' . ++$nr; $f->up('heal'); $f->connector($c, %o); $f->clear_log; return }
sub rest { my ($style, %o) = @_; $c = 'r' . ++$nr; $f->up('heal'); $f->rest($c, $style, %o); $f->clear_log; return }
sub answer { my (%o) = @_; $f->fault('repeated', type => 'user', times => -1, %o); return }
sub page { my ($body, %o) = @_; $f->fault('body', type => 'user', times => 1, body => ref $body ? json_text($body) : $body, %o); return }
sub asked { return scalar $f->requests(type => 'user') }

# The run must end with this class and message, after one request.
sub limited
{
	my ($class, $like, $name, $requests) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $run = $f->ends_with($c, 'user', $class, $like, $name);
	is(asked(), $requests // 1, "$name: is not asked for again") if ($requests // 1) >= 0;
	return $run;
}

# Does a run, and tells what memory its process has had at most, in MB.  The
# process is held by a second run, which hangs, while we look.
$f->connector('hold', types => ['group']);
sub measured
{
	my $name = shift;
	$f->fault('hang', type => 'group');
	my ($run, $hold) = split / /, $f->sql("SELECT flohsync.trigger_sync('$c', 'user') || ' ' || flohsync.trigger_sync('hold', 'group')");
	$f->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'flohsync run $hold'", timeout => 400);
	$f->await(hanging => 1, timeout_ms => 50000);
	my $pid = $f->sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'flohsync run $hold'");
	my ($peak) = PostgreSQL::Test::Utils::slurp_file("/proc/$pid/status") =~ /VmHWM:\s+(\d+)/;
	$f->up('release');
	$f->wait_run($hold, timeout => 50);
	# the next one begins with a process of its own
	$f->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'flohsync worker%'");
	$f->wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'flohsync worker%'");
	$peak = int($peak / 1024);
	my $row = $f->run_row($run);
	note("$name: $peak MB, $row->{status}" . ($row->{error} ? ": $row->{error}" : ''));
	return ($row, $peak);
}
my $base = 96;    # MB: the process itself, its share of shared memory, and what malloc does not give back
sub stays_within
{
	my ($peak, $limit, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	SKIP:
	{
		skip 'the sanitizers take memory of their own', 1 if $ENV{FLOHSYNC_SANITIZED};
		cmp_ok($peak, '<', $limit, $name);
	}
	return;
}
sub takes_too_much
{
	my ($name, %o) = @_;
	my $limit = $o{limit} // 256;
	my ($row, $peak) = measured($name);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is("$row->{status} " . ($row->{error_class} // ''), 'error page_memory', "$name: the run ends with an error of its own") or diag($row->{error});
	my $page = $o{page} // 1;
	like($row->{error}, qr/^page $page takes more than flohsync\.page_memory \(\d+ kB\)$/, "$name: which says what it is");
	stays_within($peak, $limit + $base, "$name: the process stays within it");
	cmp_ok($peak, '>', $o{least} // 60, "$name: and had begun to read");
	return $row;
}
sub fits
{
	my ($name, %o) = @_;
	my ($row, $peak) = measured($name);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is("$row->{status} " . ($row->{error} // ''), 'success ', "$name: the run succeeds");
	stays_within($peak, ($o{limit} // 256) + $base, "$name: the process stays within flohsync.page_memory");
	return $row;
}
sub set_aside { my ($row) = @_; return $f->sql("SELECT coalesce(string_agg(error_class || ' ' || coalesce(external_id, '-'), ', ' ORDER BY id), '') FROM (SELECT * FROM flohsync.sync_error WHERE run_id = $row->{id} ORDER BY id LIMIT 5) e") }

#
# The memory of a page: little on the wire, much when it is read
#
my $head = '{"success":true,"payload":{"resources":[{"externalId":"1","attributes":{"a":[';
my $tail = '1]}}]}}';
my $log = -s $f->node->logfile;
command();
answer(head => $head, unit => '[],', count => 21 * $mb, tail => $tail);
takes_too_much('21 million arrays');
is(asked(), 1, '21 million arrays: are not asked for again');
like(PostgreSQL::Test::Utils::slurp_file($f->node->logfile, $log), qr/failed: page 1 takes more than flohsync\.page_memory \(262144 kB\)\n.*?HINT:  Ask for fewer records at a time \(flohsync\.page_size/s, '21 million arrays: the server log says what helps');
{
	my ($ok, $r) = $f->sync($c, 'user');
	ok(!$ok && $r->{message} =~ /page 1 takes more than/ && ($r->{hint} // '') =~ /^Ask for fewer records at a time .*or raise flohsync\.page_memory/, 'and so does CALL sync') or diag($r->{text});
	my $test = $f->json("SELECT flohsync.test_connector('$c')");
	like($test->{types}{user}{error}, qr/takes more than flohsync\.page_memory/, 'and test_connector') or diag(json_text($test));
}
for ([ 'objects', $head, '{},', 21 * $mb, $tail ], [ 'numbers', $head, '0,', 30 * $mb, $tail ], [ 'members of one name', '{"success":true,"payload":{"resources":[{"externalId":"1","attributes":{', '"a":0,', 10 * $mb, '"a":1}}]}}' ],
	[ 'members beside the records', '{"success":true,"payload":{', '"a":0,', 10 * $mb, '"resources":[]}}' ], [ 'records of many values', '{"success":true,"payload":{"resources":[', '{"externalId":"u%d","attributes":{"a":[' . ('[],' x 2000) . '1]}},', 9999, '{"externalId":"z"}]}}' ])
{
	my ($name, $head, $unit, $count, $tail) = @$_;
	command();
	answer(head => $head, unit => $unit, count => $count, tail => $tail);
	takes_too_much("many $name");
}
command();
answer(head => $head, unit => '[],', count => 21 * $mb, tail => $tail);
$f->fault('gzip', type => 'user', times => -1);
takes_too_much('the same, compressed');

# Later pages are named by their number, and what came before them stays.
command();
$f->fault('page_size', type => 'user', count => 60, times => -1);
answer(head => $head, unit => '[],', count => 21 * $mb, tail => $tail, page => 2);
takes_too_much('a later page', page => 2);
is($f->counts($c, 'user'), '60 0', 'a later page: the one before is stored');

# A compressed bomb of blanks is just blanks; nesting takes next to nothing; a page of 60 MB is taken.
command();
$f->fault('gzip_bomb', type => 'user', bytes => 60 * $mb, times => -1);
fits('60 MB of blanks');
is($f->counts($c, 'user'), '130 0', '60 MB of blanks: the records around them are stored');
command();
page('{"success":true,"payload":{"resources":[{"externalId":"deep","attributes":{"a":' . ('[' x 3_000_000) . (']' x 3_000_000) . '}},{"externalId":"deeper","attributes":{"a":' . ('[' x 20_000_000) . (']' x 20_000_000) . '}}]}}', times => -1);
is(set_aside(fits('millions of levels')), 'nesting_too_deep deep, record_too_large deeper', 'millions of levels: are set aside');
command();
answer(head => '{"success":true,"payload":{"resources":[', unit => '{"externalId":"u%d","attributes":{"text":"' . ('x' x 6200) . '"}},', count => 9999, tail => '{"externalId":"z"}]}}');
fits('10000 records of 6 kB');
is($f->counts($c, 'user'), '10000 0', '10000 records of 6 kB: are stored');

# One record that jsonb would take too much for is set aside; others stay.
command();
answer(head => '{"success":true,"payload":{"resources":[{"externalId":"light"},{"externalId":"heavy","attributes":{"a":[', unit => '{},', count => 200_000, tail => '1]}}]}}');
my $row = fits('a record of 600 kB that is 200,000 objects');
is(set_aside($row), 'too_many_values heavy', 'a record of 600 kB that is 200,000 objects: is set aside');
is($f->sql("SELECT message FROM flohsync.sync_error WHERE run_id = $row->{id}"), 'the record has so many values that storing it would take more than half of flohsync.page_memory', 'a record of 600 kB that is 200,000 objects: it says why');
is($f->counts($c, 'user'), '1 0', 'a record of 600 kB that is 200,000 objects: the other is stored');
command();
answer(head => '{"success":true,"payload":{"resources":[{"externalId":"1","attributes":{', unit => '"a%d":0,', count => 300_000, tail => '"a":1}}]}}');
fits('a record with 300,000 members');
is($f->sql("SELECT count(*) FROM jsonb_object_keys((SELECT attributes " . $f->scope($c, 'user') . '))'), 300_001, 'a record with 300,000 members: is stored');

# memberOfSyncedGroups looks at all groups of a user, however many there are.
$f->up('heal');
$f->connector('grouped', types => [ 'group', 'user' ]);
$f->sync_ok('grouped', 'group', 'groups');
my $group = $f->sql("SELECT min(external_id) " . $f->scope('grouped', 'group'));
$f->configure('grouped', 'user', filterRules => { memberOfSyncedGroups => JSON::PP::true });
$c = 'grouped';
answer(head => '{"success":true,"payload":{"resources":[{"externalId":"out","attributes":{"groups":["x"]}},{"externalId":"in","attributes":{"groups":[', unit => '"g%d",', count => 300_000, tail => qq("$group"]}}]}}));
fits('a user in 300,000 groups');
is($f->sql("SELECT string_agg(external_id, ' ') " . $f->scope('grouped', 'user')), 'in', 'a user in 300,000 groups: the last of them counts');

#
# Kind rest: what PostgreSQL is to evaluate, what is not, and records that are asked for one by one
#
rest('next', list => { records => '$.** ? (@.externalId != null)' });
answer(head => '{"value":[{"externalId":"1","a":' . ('[{},' x 55), unit => '{"b":[]},', count => 100_000, tail => '1' . (']' x 55) . '}]}');
takes_too_much('a path for PostgreSQL over deep and many values', least => 20);
rest('next');
answer(head => '{"value":[{"externalId":"1","attributes":{"a":[', unit => '[],', count => 21 * $mb, tail => '1]}}]}');
takes_too_much('21 million arrays, kind rest');
rest('next', map => { externalId => '$.externalId', displayName => 'strict $.name.keyvalue().value', attributes => '$.** ? (@.deep == true)' });
answer(head => '{"value":[{"externalId":"light","name":{"a":"Light"},"in":{"deep":true}},{"externalId":"heavy","name":{"a":"Heavy"},"in":{"deep":true,"a":[', unit => '{},', count => 1_000_000, tail => '1]}}]}');
$row = fits('a heavy record for PostgreSQL');
is(set_aside($row) . ' ' . $f->sql("SELECT string_agg(external_id || display_name || attributes, ' ') " . $f->scope($c, 'user')), 'too_many_values heavy lightLight{"deep": true}', 'a heavy record for PostgreSQL: is set aside, and not evaluated');

my %delta = (strategy => 'incremental', list => { incremental => { type => 'delta_link', path => '$."@odata.deltaLink"', start_path => '/users/delta' } },
	map => { externalId => [ '$.id', '$.externalId' ], displayName => '$.name', attributes => '$.attributes' }, resource => { get => { path => '/users/{{external_id}}' } });
$f->fresh(user => 130, group => 5);
rest('delta', %delta);
page({ value => [ { id => '1', name => 'N1' } ], '@odata.deltaLink' => '/rest/delta/users/delta?nr=1' });
$f->sync_ok($c, 'user', 'records asked for one by one: a first run');
page({ value => [ map { { id => sprintf('user-%07d', $_), name => "N$_" } } 1 .. 100 ], '@odata.deltaLink' => '/rest/delta/users/delta?nr=2' });
$f->fault('huge_record', type => 'user', command => 'get', record => 'all', bytes => 7 * $mb, times => -1);
takes_too_much('a hundred records of 7 MB, asked for one by one');
page({ value => [ map { { id => sprintf('user-%07d', $_), name => "N$_" } } 1 .. 10 ], '@odata.deltaLink' => '/rest/delta/users/delta?nr=2' });
fits('ten of them');
is($f->sql("SELECT count(*) || ' ' || sum(length(attributes::text)) / (7 * $mb) " . $f->scope($c, 'user') . " AND external_id LIKE 'user-%'"), '10 10', 'ten of them: are stored whole');

# Parents are read without what is large in them.
rest('link', types => ['group'], resources => undef, definition => $f->definition('link', types => [ 'group', 'member' ],
		resources => { group => { list => Rest::list_of('link', 'group'), map => { externalId => '$.externalId', displayName => '$.displayName', attributes => '$.attributes' } },
			member => { for_each => { resource => 'group', path => '/groups/{{parent.attributes.short}}/members' }, list => Rest::list_of('link', 'member', path => undef), map => { externalId => '$.externalId' } } }));
$f->fault('more', type => 'group', record => 'all', body => '"short":"group-0000001","long":"' . ('x' x 4_000_000) . '","list":[' . ('[],' x 1000) . '1]', times => -1);
$f->configure($c, 'member');
$f->sync_ok($c, 'group', 'parents of 4 MB');
$f->up('heal');
$f->sync_ok($c, 'member', 'lists for parents of 4 MB');
is($f->sql("SELECT count(*) > 0 AND count(DISTINCT attributes ->> 'parentId') = 5 " . $f->scope($c, 'member')), 't', 'lists for parents of 4 MB: an attribute of the parent is in the address');

#
# Kind sql: rows larger than a record may be, many large ones, and a crowd of one id
#
my $columns = "NULL AS display_name, NULL AS email, jsonb_build_object('a', repeat('x', size)) AS attributes";
sub query
{
	my ($query) = @_;
	$c = 's' . ++$nr;
	$f->sql("SELECT flohsync.create_connector('$c', 'sql', " . literal(json_text({ queries => { user => $query } })) . "::jsonb)");
	$f->configure($c, 'user');
	return;
}
query("SELECT 'r' || i AS external_id, $columns FROM generate_series(1, 12) i, LATERAL (SELECT CASE i % 4 WHEN 0 THEN 10 ELSE 12000000 END AS size) s");
$row = fits('kind sql: 9 records of 12 MB');
is("$row->{stats}{added} $row->{stats}{errored} $row->{stats}{totalUpstreamRecords} " . set_aside($row), '3 9 12 ' . join(', ', map { "record_too_large r$_" } (sort grep { $_ % 4 } 1 .. 12)[ 0 .. 4 ]),
	'kind sql: 9 records of 12 MB are set aside by their ids');
is($row->{complete} ? 'complete' : $row->{incomplete_reason}, 'complete', 'kind sql: 9 records of 12 MB: none is missing');
query("SELECT 'r' || i AS external_id, $columns FROM generate_series(1, 20) i, (SELECT 6000000 AS size) s");
$row = fits('kind sql: 20 records of 6 MB', limit => 128);
is("$row->{stats}{added} $row->{stats}{errored}", '20 0', 'kind sql: 20 records of 6 MB are stored');
cmp_ok($row->{stats}{pagesProcessed}, '>', 5, 'kind sql: 20 records of 6 MB come in more pages than were asked for');
query("SELECT 'same' AS external_id, $columns FROM generate_series(1, 11000) i, (SELECT 10000 AS size) s");
$row = fits('kind sql: 11000 rows of one id');
is("$row->{stats}{added} $row->{status}", '1 success', 'kind sql: 11000 rows of one id are one record');
$f->sql("CREATE TABLE public.people (id text); ALTER TABLE public.people ALTER id SET STORAGE EXTERNAL; INSERT INTO public.people SELECT repeat('y', 1000000) || i FROM generate_series(1, 30) i; INSERT INTO public.people VALUES ('good'), ('z'); GRANT SELECT ON public.people TO PUBLIC");
query("SELECT id AS external_id, NULL AS display_name, NULL AS email, NULL::jsonb AS attributes FROM public.people");
$row = fits('kind sql: ids of a megabyte');
is("$row->{stats}{added} $row->{stats}{errored} " . set_aside($row), '2 30 ' . join(', ', ('external_id_too_long -') x 5), 'kind sql: ids of a megabyte are set aside');

#
# A small setting: what is smaller than that is too large as well
#
$f->sql('ALTER SYSTEM SET flohsync.page_memory = \'16MB\'');
$f->sql('SELECT pg_reload_conf()');
$f->wait_for("SELECT setting = '16384' FROM pg_settings WHERE name = 'flohsync.page_memory'");
command();
answer(head => $head, unit => '[],', count => $mb, tail => $tail);
takes_too_much('16 MB: three megabytes of arrays', limit => 16, least => 20);
command();
answer(head => '{"success":true,"payload":{"resources":[', unit => '{"externalId":"u%d","attributes":{"text":"' . ('x' x 6200) . '"}},', count => 9999, tail => '{"externalId":"z"}]}}');
takes_too_much('16 MB: an answer of 60 MB', limit => 16, least => 20);
command();
answer(head => '{"success":true,"payload":{"resources":[', unit => '{"externalId":"u%d","attributes":{"text":"' . ('x' x 6200) . '"}},', count => 500, tail => '{"externalId":"z"}]}}');
fits('16 MB: an answer of 3 MB', limit => 16);
query("SELECT 'r' || i AS external_id, $columns FROM generate_series(1, 300) i, (SELECT 100000 AS size) s");
$row = fits('16 MB: kind sql, 30 MB of records', limit => 16);
is("$row->{stats}{added}", 300, '16 MB: kind sql makes pages that fit');
$f->sql('ALTER SYSTEM RESET flohsync.page_memory');
$f->sql('SELECT pg_reload_conf()');
$f->wait_for("SELECT setting = '262144' FROM pg_settings WHERE name = 'flohsync.page_memory'");
is($f->try_sql("SET flohsync.page_memory = '20MB'")->{state}, '55P02', 'the setting is not for a session');

#
# Numbers and lengths
#
command();
answer(head => '{"success":true,"payload":{"resources":[', unit => '{"externalId":"u%d"},', count => 10_000, tail => '{"externalId":"z"}]}}');
limited('too_large', qr/the page has 10001 records, more than 10000/, '10001 records');
command();
answer(head => '{"success":true,"payload":{"resources":[],"deleted":[', unit => '"u%d",', count => 100_000, tail => '"z"]}}');
limited('too_large', qr/payload\.deleted has 100001 entries, more than 100000/, '100001 deleted ids');
command();
answer(head => '{"success":true,"payload":{"resources":[],"deleted":[', unit => '"user-%d",', count => 99_999, tail => '"z"]}}');
$f->sync_ok($c, 'user', '100000 deleted ids');
command();
answer(head => '{"success":true,"payload":{"resources":[],"deleted":["' . ('x' x 256) . '","', unit => 'x', count => 20 * $mb, tail => '"]}}');
$f->sync_ok($c, 'user', 'deleted ids that are too long');
is(set_aside($f->last_run($c, 'user')), 'external_id_too_long -, external_id_too_long -', 'deleted ids that are too long: are set aside');
$f->sql("SELECT flohsync.drop_connector('$c')");    # its errors are of no records
command();
answer(head => '{"success":true,"payload":{"resources":[],"nextCursor":"', unit => 'x', count => 16_385, tail => '"}}');
limited('too_large', qr/payload\.nextCursor has 16385 bytes, more than 16384/, 'a cursor of 16385 bytes');
command();
answer(head => '{"success":true,"payload":{"resources":[],"nextCursor":"', unit => '\u00e9', count => 10 * $mb, tail => '"}}');
limited('too_large', qr/payload\.nextCursor has 20971520 bytes, more than 16384/, 'a cursor of 60 MB');
command();
answer(head => '{"success":false,"error":"', unit => '\u0041', count => 10 * $mb, tail => '"}');
cmp_ok(length(limited('upstream', qr/upstream reported an error: A{500}/, 'a message of 10 MB')->{error}), '<=', 1100, 'a message of 10 MB: is cut');
command();
answer(code => 500, head => '{"error":"', unit => '[],', count => 20 * $mb, tail => '"}');
cmp_ok(length(limited('http_status', qr/status 500/, 'an error with 60 MB', 3)->{error}), '<=', 400, 'an error with 60 MB: is cut');

# Headers
sub headers { my ($n, $size) = @_; return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" . join('', map { "X-$_: " . ('x' x $size) . "\r\n" } 1 .. $n) . "Connection: close\r\n\r\n" . '{"success":true,"payload":{"resources":[]}}' }
command();
$f->fault('raw', type => 'user', times => -1, body => headers(480, 100));
$f->sync_ok($c, 'user', '480 headers');
command();
$f->fault('raw', type => 'user', times => -1, body => headers(501, 10));
limited('too_large', qr/the answer has more than 500 headers/, '501 headers');
command();
$f->fault('raw', type => 'user', times => -1, body => headers(70, 1000));
limited('too_large', qr/the headers of the answer are larger than 64 kB/, '70 kB of headers');

# Answers: the limit that was passed is the one that is named.
rest('next', http => { max_response_bytes => 70_000 });
answer(head => '{"value":[', unit => ' ', count => 80_000, tail => ']}');
limited('too_large', qr/the answer is larger than 70000 bytes/, 'an answer larger than the definition allows');
rest('next');
answer(head => '{"value":[', unit => ' ', count => 65 * $mb, tail => ']}');
limited('too_large', qr/larger than flohsync\.http_max_response_size \(65536 kB\)/, 'an answer larger than the setting allows');
rest('next');
answer(head => '{"value":[', unit => '{"externalId":"u%d"},', count => 10_000, tail => '{"externalId":"z"}]}');
limited('too_large', qr/the page has 10001 records, more than 10000/, '10001 records, kind rest');

# Links and cursors
my $ann = { externalId => '1', displayName => 'Ann' };
sub long { my ($n) = @_; return '/rest/next/users?p=' . ('x' x ($n - 19)) }
rest('next');
page({ value => [$ann], '@odata.nextLink' => long(7900) });
$f->sync($c, 'user');
is(asked() > 1 ? 'followed' : 'not', 'followed', 'a link of 7900 bytes: is followed');
rest('next');
page({ value => [$ann], '@odata.nextLink' => long(8001) }, times => -1);
limited('too_large', qr/link to the next page has 8001 bytes, more than 8000/, 'a link of 8001 bytes');
rest('next');
answer(head => '{"value":[],"@odata.nextLink":"/rest/next/users?p=', unit => 'x', count => 50 * $mb, tail => '"}');
limited('too_large', qr/at \$\."?\@odata\.nextLink"? that requests the next page has \d{8} bytes, more than 16384/, 'a link of 50 MB');
rest('link');
$f->fault('header', type => 'user', times => -1, name => 'Link', value => '<' . long(9000) . '>; rel="next"');
limited('too_large', qr/link to the next page has 9000 bytes, more than 8000/, 'a Link header of 9000 bytes', -1);
rest('delta', strategy => 'incremental', list => { incremental => { type => 'delta_link', path => '$."@odata.deltaLink"', start_path => '/users/delta' } });
page({ value => [$ann], '@odata.deltaLink' => long(8001) }, times => -1);
limited('too_large', qr/link to the next page has 8001 bytes, more than 8000/, 'a delta link of 8001 bytes');
rest('cursor');
page({ resources => [$ann], nextCursor => 'c' x 16_385 }, times => -1);
limited('too_large', qr/that requests the next page has 16387 bytes, more than 16384/, 'a cursor of 16385 bytes, kind rest');
rest('cursor');
page({ resources => [$ann], nextCursor => 'c' x 9000 }, times => -1);
limited('too_large', qr/the URL of the request has 90\d\d bytes with the upstream's cursor, more than 8000/, 'a cursor of 9000 bytes in an address');
rest('cursor;in=body', list => { method => 'POST', pagination => { type => 'cursor', path => '$.nextCursor', param => 'cursor', in => 'body' } });
page({ resources => [$ann], nextCursor => 'c' x 9000 });
$f->sync($c, 'user');
is(asked() > 1 ? 'sent' : 'not', 'sent', 'a cursor of 9000 bytes in a body: is sent');
rest('offset');
answer(head => '{"items":[{"externalId":"1"}],"total":"', unit => '7', count => 30 * $mb, tail => '"}', times => 1);
page('{"items":[]}', after => 1);
$row = fits('a total of 30 million digits');
is($f->sql("SELECT count(total_estimate) FROM flohsync.sync_run_page WHERE run_id = $row->{id}"), 0, 'a total of 30 million digits: is none');

# Tokens
my %oauth = (auth => { type => 'oauth2_client_credentials', token_url => 'http://{{config.host}}/oauth/token', client_id => 'client', client_secret => '{{secret.client_secret}}' }, secrets => { client_secret => 'not a secret' });
$f->up('auth', kind => 'none');
for ([ 16_384, 1 ], [ 16_385, 0 ])
{
	my ($n, $good) = @$_;
	rest('next', %oauth);
	$f->fault('body', type => 'token', times => -1, body => json_text({ access_token => 't' x $n, expires_in => 3600 }));
	$good ? ok($f->sync($c, 'user'), "an access token of $n bytes: is used") : limited('too_large', qr/the access token has 16385 bytes, more than 16384/, "an access token of $n bytes", 0);
}
rest('next', %oauth);
$f->fault('repeated', type => 'token', times => -1, head => '{"access_token":"x","more":"', unit => 'x', count => 70_000, tail => '"}');
limited('too_large', qr/token endpoint: the answer is larger than 65536 bytes/, 'a token endpoint that answers 70 kB', 0);
rest('next', %oauth);
$f->fault('body', type => 'token', times => -1, body => '{"access_token":"x","expires_in":"2037-01-01T999999999:999999999:999999999"}');
ok($f->sync($c, 'user'), 'a token that expires at no time that there is: is used');

#
# Deletions of a pass: what was listed again later is not gone, whichever page it was on
#
$f->fresh(user => 1000, group => 5);
command();
$f->configure($c, 'user', safeguards => undef);
$f->sync_ok($c, 'user', 'deletions: a first pass');
sub ids { return join ',', map { sprintf '"user-%07d"', $_ } @_ }
# of 20 a page: page 3 has 41 to 60
$f->fault('deleted', type => 'user', page => 3, json => '[' . ids(1 .. 5, 45 .. 50, 61 .. 65, 990 .. 1000) . ',"nobody"]', times => -1);
$f->fault('deleted', type => 'user', page => 20, json => '[' . ids(2, 995, 500) . ']', times => -1);
my $stats = $f->sync_ok($c, 'user', 'deletions: a pass with some');
# 1 to 5 were on page 1, 45 to 50 on the page itself, 500 on page 25, the others later
is($f->sql("SELECT string_agg(ltrim(right(external_id, 7), '0'), ' ' ORDER BY external_id) " . $f->scope($c, 'user') . ' AND stale_since IS NOT NULL'), '1 2 3 4 5 45 46 47 48 49 50', 'deletions: those that were not listed after it are stale');
is("$stats->{staled} $stats->{restored}", '11 0', 'deletions: and are counted');

$f->invariants;
$f->no_crash;
done_testing();
