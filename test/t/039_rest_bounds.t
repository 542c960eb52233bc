# Connectors of kind rest: what an upstream cannot do to us, secrets that it sends back in links,
# the memory that paths take, and records that hold only what has changed.
use strict;
use warnings;

use Flohsync;
use JSON::PP;
use Rest;
use Test::More;

my $f = Rest->new(conf => "flohsync.http_max_attempts = 1\nlog_min_messages = debug1\n");
my $nr = 0;
my $c;
my $dir = PostgreSQL::Test::Utils::tempdir();

sub page { my ($body, %o) = @_; $f->fault('body', type => 'user', times => 1, body => ref $body ? json_text($body) : $body, %o) }
sub begin { my ($style, %o) = @_; $c = 'b' . ++$nr; $f->up('heal'); $f->rest($c, $style, %o); return }

#
# Secrets in what an answer gives to go on with
#
$f->fresh(user => 30);
my $secret = 'Canary' . join('', map { ('a' .. 'z', 'A' .. 'Z', 0 .. 9)[ rand 62 ] } 1 .. 20);
my %key = (auth => { type => 'api_key', query => 'api_key', value => '{{secret.key}}' }, secrets => { key => $secret });
sub shown { return $f->sql("SELECT count(*) FROM (SELECT to_jsonb(r)::text FROM flohsync.sync_run r UNION ALL SELECT to_jsonb(p)::text FROM flohsync.sync_run_page p UNION ALL SELECT to_jsonb(c)::text FROM flohsync.connector_sync_config c) x(t) WHERE t ILIKE '%$secret%'") }
my $ann = { externalId => '1', displayName => 'Ann' };

for my $name (qw(api_key api%5Fkey %61pi_key API_KEY))
{
	begin('next', %key);
	page({ value => [$ann], '@odata.nextLink' => "/rest/next/users?p=2&$name=$secret&\$top=20" });
	$f->sync_ok($c, 'user', "a link with the key as $name");
	is($f->sql("SELECT next_cursor FROM flohsync.sync_run_page WHERE page = 1 ORDER BY run_id DESC LIMIT 1"), $f->origin . '/rest/next/users?p=2&$top=20', "a link with the key as $name: is followed without it");
}
for ([ 'next', '@odata.nextLink', "/rest/next/users?other=$secret" ], [ 'next', '@odata.nextLink', '/rest/next/users?o=' . join('', map { sprintf '%%%02x', ord } split //, $secret) ], [ 'cursor', 'nextCursor', "p2:$secret" ])
{
	my ($style, $member, $value) = @$_;
	begin($style, %key);
	page({ value => [$ann], resources => [$ann], $member => $value });
	$f->ends_with($c, 'user', 'bad_answer', qr/contains a secret/, "$style, the key elsewhere in it");
}
begin('delta', %key, strategy => 'incremental', list => { incremental => { type => 'delta_link', path => '$."@odata.deltaLink"', start_path => '/users/delta' } });
page({ value => [$ann], '@odata.deltaLink' => "/rest/delta/users/delta?x=$secret" });
$f->ends_with($c, 'user', 'bad_answer', qr/contains a secret/, 'a delta link with the key');

# ... and in messages
begin('next', %key);
page({ value => [$ann], '@odata.nextLink' => "http://$secret.example/" });
$f->ends_with($c, 'user', 'blocked_address', qr/leads to http:\/\/\*\*\*\.example/, 'a link to a host named like the key');
begin('next', %key);
$f->fault('redirect', type => 'user', times => 1, location => "http://$secret.example/");
$f->ends_with($c, 'user', 'http_status', qr/another origin, http:\/\/\*\*\*\.example/, 'a redirect to a host named like the key');
is(shown(), 0, 'the key is nowhere in runs, pages and configurations');

# A run, and the most memory in kB that its worker was seen to use; 0 where that cannot be told
sub peak_of_run
{
	my $run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
	my ($peak, $pid) = (0);
	until ($f->run_row($run)->{status} !~ /queued|running/)
	{
		$pid ||= $f->sql("SELECT coalesce(min(pid), 0) FROM pg_stat_activity WHERE application_name = 'flohsync run $run'");
		next unless $pid && open(my $s, '<', "/proc/$pid/status");
		my ($kb) = join('', <$s>) =~ /RssAnon:\s+(\d+)/;
		$peak = $kb if $kb && $kb > $peak;
	}
	note("run $run: at most $peak kB");
	return ($run, $peak);
}

#
# Paths that PostgreSQL evaluates
#
{
	my @paths = map { "strict \$.nothing$_.type()" } 1 .. 9;
	begin('next', map => { externalId => '$.id', displayName => [ @paths, '$.name.keyvalue().value' ], email => [@paths], attributes => '$.** ? (@.deep == true)' });
	my $text = 'x' x 9000;
	page('{"value":[' . join(',', map { qq({"id":"$_","name":{"a":"N$_"},"in":{"deep":true,"nr":$_},"text":"$text"}) } 1 .. 2000) . ']}');
	my ($run, $peak) = peak_of_run();
	is($f->run_row($run)->{status}, 'success', 'paths for PostgreSQL: the run succeeds') or diag($f->run_row($run)->{error});
	is($f->sql('SELECT count(*) ' . $f->scope($c, 'user') . " AND email IS NULL AND display_name = 'N' || external_id AND attributes = jsonb_build_object('deep', true, 'nr', external_id::int)"), 2000, 'paths for PostgreSQL: each record has its own values');
	cmp_ok($peak, '<', 250_000, 'paths for PostgreSQL: memory does not grow with records and paths') if $peak && !$ENV{FLOHSYNC_SANITIZED};
}

#
# Records that hold only what has changed
#
my %delta = (strategy => 'incremental', list => { incremental => { type => 'delta_link', path => '$."@odata.deltaLink"', start_path => '/users/delta' } },
	map => { externalId => '$.id', displayName => '$.name', email => '$.mail', attributes => '$.a' });
my $token = 0;
sub changes { my ($records, %o) = @_; page({ value => $records, '@odata.deltaLink' => '/rest/delta/users/delta?nr=' . ++$token }, %o); return }
sub rows { return $f->sql("SELECT coalesce(string_agg(concat_ws(':', external_id, coalesce(display_name, '-'), coalesce(email, '-'), attributes), ' ' ORDER BY external_id), '') " . $f->scope($c, 'user')) }

# What was out of scope until now did not come whole.
begin('delta', %delta, filterRules => { emailDomains => ['it.org'] });
my @whole = ({ id => 1, name => 'Ann', mail => 'ann@x.org', a => { d => 'HR' } }, { id => 2, name => 'Bob', mail => 'bob@it.org', a => { d => 'IT' } });
changes(\@whole);
$f->sync_ok($c, 'user', 'a filter: the first run');
is(rows(), '2:Bob:bob@it.org:{"d": "IT"}', 'a filter: stores what is in scope');
changes([ { id => 1, mail => 'ann@it.org' }, { id => 2, name => 'Rob' } ]);
my $stats = $f->sync_ok($c, 'user', 'a filter: one comes into scope');
is("$stats->{updated} $stats->{added} $stats->{errored}", '1 0 1', 'a filter: it is set aside, the other is changed');
is(rows(), '2:Rob:bob@it.org:{"d": "IT"}', 'a filter: and there is no half of a record');
is($f->sql("SELECT string_agg(external_id, ' ') FROM flohsync.sync_error WHERE error_class = 'partial_unknown'"), '1', 'a filter: what was set aside is listed');
ok(!$f->last_run($c, 'user')->{complete}, 'a filter: the run is not complete');
$whole[0]{mail} = 'ann@it.org';
$whole[1]{name} = 'Rob';
$f->clear_log;
changes(\@whole);
$f->sync_ok($c, 'user', 'a filter: the run after it');
is(join(' ', $f->uris('user')), '/rest/delta/users/delta', 'a filter: begins anew');
is(rows(), '1:Ann:ann@it.org:{"d": "HR"} 2:Rob:bob@it.org:{"d": "IT"}', 'a filter: and has it whole');
$f->clear_log;
changes([ { id => 1, a => { e => 1 } } ]);
$f->sync_ok($c, 'user', 'a filter: one more run');
is(join(' ', $f->uris('user')), '/rest/delta/users/delta?nr=3', 'a filter: follows the link again');
is(rows(), '1:Ann:ann@it.org:{"d": "HR", "e": 1} 2:Rob:bob@it.org:{"d": "IT"}', 'a filter: changes are merged');

# A write that is committed while the page waits for it stays.
$f->sql('SELECT pg_advisory_lock(4711)');
my $data = json_text({ action => 'updated', resourceId => '1', resourceType => 'user', data => { displayName => 'Anna', attributes => { w => 1 } } });
my $holder = $f->start_sql("BEGIN; SELECT flohsync.handle_webhook('$c', '$data'); SELECT pg_advisory_xact_lock(4711); COMMIT");
ok($f->wait_for("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted)"), 'a webhook under way: its transaction is open');
changes([ { id => 1, a => { e => 2 } }, { id => 2, mail => 'rob@it.org' } ]);
my $waiting = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
ok($f->wait_for("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'flohsync run $waiting' AND wait_event_type = 'Lock')"), 'a webhook under way: the page waits for it');
$f->sql('SELECT pg_advisory_unlock(4711)');
$f->finish($holder);
$f->wait_run($waiting);
is(rows(), '1:Anna:ann@it.org:{"d": "HR", "e": 2, "w": 1} 2:Rob:rob@it.org:{"d": "IT"}', 'a webhook under way: what it wrote stays');

# What a change takes out of scope becomes stale: what changes of it later is not all of it.
begin('delta', %delta, filterRules => { emailDomains => ['it.org'] }, safeguards => undef);
sub active { return $f->sql("SELECT coalesce(string_agg(concat_ws(':', external_id, coalesce(display_name, '-'), coalesce(email, '-'), attributes), ' ' ORDER BY external_id), '') " . $f->scope($c, 'user') . ' AND stale_since IS NULL') }
@whole = map { { id => "$_", name => "N$_", mail => "n$_\@it.org", a => { d => 'IT' } } } 1 .. 3;
changes(\@whole);
$f->sync_ok($c, 'user', 'out of scope: the first run');
changes([ { id => '1', mail => 'n1@x.org' }, { id => '2', name => 'Two' } ]);
$stats = $f->sync_ok($c, 'user', 'out of scope: one leaves');
is("$stats->{updated} $stats->{filtered} $stats->{staled}", '1 1 1', 'out of scope: it is filtered, and stale');
is(active(), '2:Two:n2@it.org:{"d": "IT"} 3:N3:n3@it.org:{"d": "IT"}', 'out of scope: the others are not');
changes([ { id => '1', a => { t => 'Boss' } }, { id => '3', a => { t => 'CFO' } } ]);
$stats = $f->sync_ok($c, 'user', 'out of scope: something else of it changes');
is(active(), '2:Two:n2@it.org:{"d": "IT"} 3:N3:n3@it.org:{"d": "IT", "t": "CFO"}', 'out of scope: it does not come back with the address that it had');
@whole = ({ id => '1', name => 'N1', mail => 'n1@x.org', a => { d => 'IT', t => 'Boss' } }, { id => '2', name => 'Two', mail => 'n2@it.org', a => { d => 'IT' } }, { id => '3', name => 'N3', mail => 'n3@it.org', a => { d => 'IT', t => 'CFO' } });
changes(\@whole);
$f->sync_ok($c, 'user', 'out of scope: a run that begins anew');
ok($f->last_run($c, 'user')->{complete}, 'out of scope: that one is complete');
is(active(), '2:Two:n2@it.org:{"d": "IT"} 3:N3:n3@it.org:{"d": "IT", "t": "CFO"}', 'out of scope: and brings nothing back');
changes([ { id => '1', mail => 'one@it.org' } ]);
$f->sync_ok($c, 'user', 'out of scope: it comes back');
$whole[0]{mail} = 'one@it.org';
changes(\@whole);
$stats = $f->sync_ok($c, 'user', 'out of scope: a run that begins anew');
is("$stats->{restored} " . active(), '1 1:N1:one@it.org:{"d": "IT", "t": "Boss"} 2:Two:n2@it.org:{"d": "IT"} 3:N3:n3@it.org:{"d": "IT", "t": "CFO"}', 'out of scope: and is there, as it is now');

# What is not stored: half a record, or a new one?  Nobody can tell.
sub forget { $f->sql("DELETE FROM flohsync.resource_record r USING flohsync.connector_definition d WHERE d.id = r.connector_id AND d.name = '$c' AND r.external_id IN (" . join(', ', map { "'$_'" } @_) . ')'); return }
sub half
{
	my ($name, %o) = @_;
	begin('delta', %delta, safeguards => undef, %o);
	@whole = map { { id => "$_", name => "N$_", mail => "n$_\@x.org", a => { d => 'HR' } } } 1 .. 3;
	changes(\@whole);
	$f->sync_ok($c, 'user', "$name: the first run");
	forget(2);
	$f->clear_log;
	changes([ { id => '2', a => { t => 'Boss' } }, { id => '3', name => 'Three' }, { id => '2', name => 'Two' } ]);
	return;
}
my $others = '1:N1:n1@x.org:{"d": "HR"}';
half('half a record');
$stats = $f->sync_ok($c, 'user', 'half a record: a run after changes');
is(active(), "$others 3:Three:n3\@x.org:{\"d\": \"HR\"}", 'half a record: is not stored');
is("$stats->{updated} $stats->{added} $stats->{errored} $stats->{duplicates}", '1 0 1 1', 'half a record: is counted');
is($f->sql("SELECT string_agg(e.external_id || ' ' || e.error_class, ' ') FROM flohsync.sync_error e WHERE run_id = " . $f->last_run($c, 'user')->{id}), '2 partial_unknown', 'half a record: and listed');
ok(!$f->last_run($c, 'user')->{complete}, 'half a record: the run is not complete');
@whole[ 1, 2 ] = ({ id => '2', name => 'Two', mail => 'n2@x.org', a => { d => 'HR', t => 'Boss' } }, { id => '3', name => 'Three', mail => 'n3@x.org', a => { d => 'HR' } });
my $all = "$others 2:Two:n2\@x.org:{\"d\": \"HR\", \"t\": \"Boss\"} 3:Three:n3\@x.org:{\"d\": \"HR\"}";
$f->clear_log;
changes(\@whole);
$f->sync_ok($c, 'user', 'half a record: the next run');
is(join(' ', $f->uris('user')), '/rest/delta/users/delta', 'half a record: the next run begins anew');
is(active(), $all, 'half a record: and has it whole');
# so does the one after, as there may have been others
ok($f->last_run($c, 'user')->{complete}, 'half a record: and is complete');

# A definition that can ask for one record does so.
my %get = (resource => { get => { path => '/users/{{external_id}}' } });
for my $filter (undef, { emailDomains => ['x.org'] })
{
	my $name = 'asked for' . ($filter ? ', with a filter' : '');
	half($name, %get, $filter ? (filterRules => $filter) : ());
	page($whole[1] = { id => '2', name => 'Two', mail => 'n2@x.org', a => { d => 'HR', t => 'Boss' } }, command => 'get');
	$stats = $f->sync_ok($c, 'user', "$name: a run after changes");
	is(active(), $all, "$name: it is there, whole");
	is("$stats->{updated} $stats->{added} $stats->{errored} $stats->{duplicates}", '1 1 0 1', "$name: and counted");
	ok($f->last_run($c, 'user')->{complete}, "$name: the run is complete");
	is(join(' ', map { s/\?.*//r } $f->uris('user')), '/rest/delta/users/delta /rest/delta/users/2', "$name: it was asked for once, and nothing else was");
}
# What is out of scope is not stored, whole or not; nor is what is not to be had, or what is asked for and is another.
half('asked for, out of scope', %get, filterRules => { emailDomains => ['x.org'] });
page({ id => '2', name => 'Two', mail => 'n2@y.org', a => {} }, command => 'get');
$stats = $f->sync_ok($c, 'user', 'asked for, out of scope: a run after changes');
is("$stats->{filtered} $stats->{errored} " . active(), "1 0 $others 3:Three:n3\@x.org:{\"d\": \"HR\"}", 'asked for, out of scope: it is left out');
ok($f->last_run($c, 'user')->{complete}, 'asked for, out of scope: the run is complete');
for ([ 'gone, or not there yet', 'status', code => 404 ], [ 'refused', 'status', code => 403 ], [ 'not to be had', 'status', code => 503 ],
	[ 'another', 'body', body => '{"id": "4", "name": "Four", "a": {}}' ], [ 'no JSON', 'html' ], [ 'a bad one', 'body', body => '{"id": "2", "name": 5, "a": {}}' ])
{
	my ($name, $kind, @args) = @$_;
	half("asked for, $name", %get);
	$f->fault($kind, command => 'get', times => -1, type => 'user', @args);
	$stats = $f->sync_ok($c, 'user', "asked for, $name: a run after changes");
	is(active(), "$others 3:Three:n3\@x.org:{\"d\": \"HR\"}", "asked for, $name: it is not stored");
	is($stats->{errored} . ($f->last_run($c, 'user')->{complete} ? ' complete' : ' not complete'), '1 not complete', "asked for, $name: and the run says so");
}
# Once one cannot be had, nobody waits for the others.
half('asked for, one after the other', %get);
$f->up('heal');
$f->clear_log;
$f->fault('status', code => 503, command => 'get', times => -1, type => 'user');
changes([ map { { id => "n$_" } } 1 .. 5 ]);
$stats = $f->sync_ok($c, 'user', 'asked for, one after the other: a run after changes');
is("$stats->{errored} " . scalar($f->requests), '5 2', 'asked for, one after the other: it ends with the first that cannot be had');
$f->up('heal');
# Pages in which there are more of them than can be asked for one by one
half('too many', %get, map => { externalId => [ '$.id', '$.externalId' ] });
$f->up('heal');
$f->clear_log;
$f->fresh(user => 130);
changes([ map { { id => sprintf('user-%07d', $_), a => { nr => $_ } } } 1 .. 130 ]);
$stats = $f->sync_ok($c, 'user', 'too many: a run after changes');
is("$stats->{added} $stats->{errored} " . scalar($f->requests), '100 30 101', 'too many: a hundred are asked for, the others set aside');
ok(!$f->last_run($c, 'user')->{complete}, 'too many: the run is not complete');

# A walk that began anew and was interrupted is gone on with as such: what comes is whole.
begin('delta', %delta, safeguards => undef);
changes([ { id => '1', name => 'N1' } ]);
$f->sync_ok($c, 'user', 'begun anew: the first run');
$f->fault('status', code => 410, times => 1);
page({ value => [ { id => '2', name => 'N2' } ], '@odata.nextLink' => '/rest/delta/users/delta?p=2' }, after => 1);
$f->fault('status', code => 403, times => 1, after => 2);
my ($ok) = $f->sync($c, 'user');
ok(!$ok, 'begun anew: the link is refused, and the second page as well');
$f->clear_log;
changes([ { id => '3', name => 'N3' } ]);
$stats = $f->sync_ok($c, 'user', 'begun anew: the next run');
is(join(' ', $f->uris('user')), '/rest/delta/users/delta?p=2', 'begun anew: goes on where it was');
is("$stats->{errored} " . rows(), '0 1:N1:-: 2:N2:-: 3:N3:-:' =~ s/:( |$)/$1/gr, 'begun anew: and takes what comes as whole');
ok($f->last_run($c, 'user')->{complete}, 'begun anew: it is complete');

# More than is put together at a time
begin('delta', %delta);
my $big = 'x' x 6_000_000;
changes([ (map { { id => "$_", name => "N$_", a => { big => $big, nr => $_ } } } 1 .. 7), { id => '8', name => 'N8', a => { nr => 8 } } ]);
$f->sync_ok($c, 'user', 'large records: the first run');
changes([ (map { { id => "$_", a => { new => $_ } } } 1 .. 8), { id => '3', name => 'three' } ]);
my $log = -s $f->node->logfile;
$stats = $f->sync_ok($c, 'user', 'large records: changes of a few bytes');
is(join(' ', PostgreSQL::Test::Utils::slurp_file($f->node->logfile, $log) =~ /merging (\d+) records/g), '1 1 1 1 1 1 2', 'large records: are put together one by one');
is("$stats->{updated} $stats->{added} $stats->{duplicates} $stats->{errored}", '8 0 1 0', 'large records: all are there');
is($f->sql("SELECT string_agg(concat_ws(':', external_id, display_name, length(attributes ->> 'big'), attributes -> 'nr', attributes -> 'new'), ' ' ORDER BY external_id) " . $f->scope($c, 'user')),
	join(' ', (map { "$_:" . ($_ == 3 ? 'three' : "N$_") . ":6000000:$_:$_" } 1 .. 7), '8:N8:8:8'), 'large records: each is merged with its own');

$f->invariants;
$f->no_crash;
done_testing();
