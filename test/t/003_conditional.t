# Which pages a full pass does not read again, one case after the other; and pages
# that are asked for only if they have changed.  003_page_prints.t is the test at
# random that the result is the same.
use strict;
use warnings;

use Flohsync;
use JSON::PP ();
use Rest;
use Test::More;

my $f = Rest->new(conf => "flohsync.page_size = 20\n");

# The pages of the last run that were not read, and those that were not even sent
sub of_last_run
{
	my ($connector, $which) = @_;
	return $f->sql("SELECT coalesce(string_agg(p.page::text, ' ' ORDER BY p.page), '') FROM flohsync.sync_run_page p WHERE $which AND p.run_id = (SELECT max(r.id) FROM flohsync.sync_run r WHERE r.connector_id = "
		  . $f->connector_id($connector) . ')');
}
sub not_read { return of_last_run($_[0], 'p.print IS NOT NULL') }
sub not_sent { return of_last_run($_[0], 'p.bytes = 0') }
sub name_of { return $f->sql('SELECT display_name ' . $f->scope($_[0], 'user') . " AND external_id = '$_[1]'") }
sub webhook { return "SELECT flohsync.handle_webhook('$_[0]', " . Flohsync::jsonb({ action => 'updated', resourceType => 'user', resourceId => $_[1], data => { displayName => $_[2] } }) . ')' }

#
# What is read
#

$f->fresh(user => 100);
$f->connector('c');
$f->sync_ok('c', 'user');
is(not_read('c'), '', 'a first pass reads every page');
my $before = $f->sql('SELECT max(synced_at) ' . $f->scope('c', 'user'));
my $stats = $f->sync_ok('c', 'user');
is(not_read('c'), '1 2 3 4 5', 'the next one none');
is_deeply([ @$stats{qw(unchanged totalUpstreamRecords pagesProcessed complete)} ], [ 100, 100, 5, JSON::PP::true ], 'and counts all the same');
is($f->sql("SELECT count(*) FILTER (WHERE synced_at > '$before') " . $f->scope('c', 'user')), 100, 'every record was confirmed');

# Their rows are written without a statement, unless the table is more than ours.
sub ledger { return $f->sql("SELECT string_agg((to_jsonb(p) - ARRAY['run_id', 'fetched_at', 'fetch_ms', 'apply_ms'])::text, ' ' ORDER BY p.page) FROM flohsync.sync_run_page p WHERE p.run_id = (SELECT max(id) FROM flohsync.sync_run)") }
my $rows = ledger();
my %more = (
	'a constraint' => [ 'ADD CONSTRAINT theirs CHECK (page > 0)', 'DROP CONSTRAINT theirs' ],
	'a trigger' => [ 'CREATE TRIGGER theirs BEFORE INSERT ON flohsync.sync_run_page FOR EACH ROW EXECUTE FUNCTION public.theirs()', 'DROP TRIGGER theirs ON flohsync.sync_run_page' ],
);
$f->sql("CREATE FUNCTION public.theirs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'");
for my $what (sort keys %more)
{
	my ($add, $drop) = map { /^(?:CREATE|DROP) TRIGGER/ ? $_ : "ALTER TABLE flohsync.sync_run_page $_" } @{ $more{$what} };
	$f->sql($add);
	$f->sync_ok('c', 'user', "the ledger has $what of others");
	is(not_read('c'), '1 2 3 4 5', "$what: no page was read");
	is(ledger(), $rows, "$what: the same rows");
	$f->sql($drop);
}
is($f->try_sql("INSERT INTO flohsync.sync_run_page SELECT (jsonb_populate_record(p, '{\"run_id\": 0}')).* FROM flohsync.sync_run_page p LIMIT 1")->{state}, '23503', 'rows have a run');

# What is mostly looked up in indexes is asked for by statements where these are gone.
my %indexes = (sync_run_pkey => 'flohsync', connector_sync_config_connector_id_resource_type_key => 'flohsync', page_print_scope_pkey => '_flohsync', dirty_record_scope => '_flohsync');
$f->sql("ALTER INDEX $indexes{$_}.$_ RENAME TO theirs_$_") for sort keys %indexes;
$f->sync_ok('c', 'user', 'indexes have other names');
is(not_read('c'), '1 2 3 4 5', 'other names: no page was read');
$f->sql(webhook('c', 'user-0000045', 'by webhook'));
$f->sync_ok('c', 'user', 'a record was written');
is(not_read('c'), '1 2 4 5', 'other names: notes are seen');
$f->fault('hang', page => 3);
my $unwanted = $f->sql("SELECT flohsync.trigger_sync('c', 'user')");
$f->await(hanging => 1);
$f->sql("UPDATE flohsync.sync_run SET cancel_requested = true WHERE id = $unwanted");
$f->up('release');
$f->wait_run($unwanted);
is($f->sql("SELECT status FROM flohsync.sync_run WHERE id = $unwanted"), 'cancelled', 'other names: it is noticed that a run is not wanted any more');
$f->sql("ALTER INDEX $indexes{$_}.theirs_$_ RENAME TO $_") for sort keys %indexes;
$f->sync_ok('c', 'user') for 1 .. 2;
is(not_read('c'), '1 2 3 4 5', 'they have their names again');

# A page behind one that was taken is asked for before it is known that it is wanted.
sub requests { return $f->up('log', last => 0)->{requests} }
my $asked = requests();
$f->sync_ok('c', 'user');
is(requests() - $asked, 5, 'each page is asked for once');
$f->up('set', id => 'user-0000045', body => '{"externalId":"user-0000045","displayName":"x"}');
$f->sync_ok('c', 'user') for 1 .. 2;
$f->up('set', id => 'user-0000045', body => '{"externalId":"user-0000045","displayName":"y"}');
$asked = requests();
$f->sync_ok('c', 'user');
is(requests() - $asked . ', ' . not_read('c'), '5, 1 2 4 5', 'also where one is of the same size, but another one');
is(name_of('c', 'user-0000045'), 'y', 'and what is read of it is stored');

# That is before the page at hand is compared: here, while it cannot be looked up whether somebody
# has written to its records.
$f->sync_ok('c', 'user') for 1 .. 2;
$f->fault('hang', page => 2);
$asked = requests();
my $early = $f->sql("SELECT flohsync.trigger_sync('c', 'user')");
$f->wait_for("SELECT count(*) = 1 FROM flohsync.sync_run_page WHERE run_id = $early");
my $holder = $f->with_node($f->node);
$holder->sql('BEGIN; LOCK TABLE _flohsync.dirty_record');
$f->up('release');
$f->wait_for("SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND relation = '_flohsync.dirty_record'::regclass");
is(requests() - $asked, 3, 'the page behind is asked for before that');
$holder->sql('COMMIT');
$f->wait_for("SELECT status = 'success' FROM flohsync.sync_run WHERE id = $early");
$f->up('heal');
is(not_read('c'), '1 2 3 4 5', 'and the pages are taken');

$f->up('change', ids => 'user-0000045', what => 'name');
$f->sync_ok('c', 'user');
is(not_read('c'), '1 2 4 5', 'a page that has changed is read');
$f->matches_upstream('c', 'user', 'and what has changed is stored');
$f->sync_ok('c', 'user');
is(not_read('c'), '1 2 3 4 5', 'once');

for my $write ("SELECT flohsync.upsert_resource('c', 'user', '{\"externalId\": \"user-0000030\", \"displayName\": \"by hand\"}')",
	webhook('c', 'user-0000030', 'by webhook'),
	"SELECT flohsync.handle_webhook('c', '{\"action\": \"deleted\", \"resourceType\": \"user\", \"resourceId\": \"user-0000030\"}')")
{
	my ($what) = $write =~ /(upsert|updated|deleted)/;
	$f->sql($write);
	$f->sync_ok('c', 'user');
	is(not_read('c'), '1 3 4 5', "$what: the page of the record is read");
	$f->matches_upstream('c', 'user', "$what: and has the record as it is");
	$f->sync_ok('c', 'user');
	is(not_read('c'), '1 2 3 4 5', "$what: once");
}

# In the middle of a pass in which nothing had been written until then.
$f->sync_ok('c', 'user');
$f->fault('hang', page => 3);
my $run = $f->sql("SELECT flohsync.trigger_sync('c', 'user')");
$f->wait_for("SELECT count(*) = 2 FROM flohsync.sync_run_page WHERE run_id = $run");
$f->sql(webhook('c', 'user-0000050', 'after it was asked for'));
$f->sql(webhook('c', 'user-0000090', 'before it was asked for'));
$f->up('release');
$f->wait_for("SELECT status = 'success' FROM flohsync.sync_run WHERE id = $run");
$f->up('heal');
is(not_read('c'), '1 2 4', 'written while a page is awaited: that page is read, and one behind it');
is(name_of('c', 'user-0000050'), 'after it was asked for', 'what was written after the page was asked for stays');
isnt(name_of('c', 'user-0000090'), 'before it was asked for', 'what was written before does not');
$f->sync_ok('c', 'user');
$f->matches_upstream('c', 'user', 'and the next pass has all as it is');
$f->sync_ok('c', 'user');

$f->sql("SELECT flohsync.mark_stale('c', 'user', now())");
$stats = $f->sync_ok('c', 'user');
is(not_read('c') . ", $stats->{restored}", ', 100', 'nor is a page taken as it was whose records went stale');

$f->sql("SELECT flohsync.upsert_resource('c', 'user', '{\"externalId\": \"stray\"}')");
$stats = $f->sync_ok('c', 'user');
is(not_read('c') . ", $stats->{staled}", '1 2 3 4 5, 1', 'a record of no page goes stale though every page is as it was');

$f->sql("UPDATE flohsync.resource_record SET display_name = 'by a superuser', sync_hash = '' WHERE external_id = 'user-0000030'");
$f->sync_ok('c', 'user');
is(not_read('c'), '', 'what is written to the table itself voids all fingerprints');
$f->matches_upstream('c', 'user', 'so a full pass mends it');

$f->configure('c', 'user', hashIgnore => ['score']);
$f->sync_ok('c', 'user');
is(not_read('c'), '', 'with other settings every page is read');
$f->configure('c', 'user', filterRules => { maxRecords => 1000 });
$f->sync_ok('c', 'user') for 1 .. 2;
is(not_read('c'), '', 'so it is where records are counted');
$f->configure('c', 'user', filterRules => undef, hashIgnore => undef);
$f->sync_ok('c', 'user') for 1 .. 2;
is(not_read('c'), '1 2 3 4 5', 'not afterwards');

for ([ 'dup_in_page', record => 3 ], [ 'id', value => 'missing', record => 2 ])
{
	my ($kind, @args) = @$_;
	my $id = $f->fault($kind, page => 2, times => -1, @args);
	$f->sync_ok('c', 'user') for 1 .. 2;
	is(not_read('c'), '1 3 4 5', "$kind: such a page is always read");
	$f->up('heal');
	$f->sync_ok('c', 'user') for 1 .. 2;
}

# Another page of the same pass has changed a record of this one
$f->up('set', id => 'user-0000025', body => '{"externalId":"user-0000070","displayName":"elsewhere"}');
$f->sync_ok('c', 'user');
is(name_of('c', 'user-0000070') =~ /elsewhere/ ? 'the first' : 'the last', 'the last', 'a record of two pages is as the last one has it');
$stats = $f->sync_ok('c', 'user');
is(not_read('c') . ", $stats->{updated}", ', 2', 'and while it is on two, all pages are read');
$f->up('set', id => 'user-0000025');
$f->sync_ok('c', 'user') for 1 .. 2;
is(not_read('c'), '1 2 3 4 5', 'not afterwards');

# While a pass is under way
$f->fault('hang', page => 4);
my $run = $f->sql("SELECT flohsync.trigger_sync('c', 'user')");
$f->await(hanging => 1);
$f->wait_for("SELECT count(*) = 3 FROM flohsync.sync_run_page WHERE run_id = $run");
pass('what was taken is written while the upstream keeps us waiting');
$f->sql(webhook('c', "user-00000$_", 'meanwhile')) for 22, 72;
$f->up('release');
$f->wait_run($run);
is(name_of('c', 'user-0000022'), 'meanwhile', 'what was written behind its page stays');
is(not_read('c'), '1 2 3 5', 'what was written before its page is compared with it');
$f->sync_ok('c', 'user');
is(not_read('c'), '1 3 5', 'the next pass reads both');
$f->matches_upstream('c', 'user', 'and has everything');

# A worker keeps the settings that it began with.
sub anew
{
	$f->sql("ALTER DATABASE postgres $_[0]");
	return $f->wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'flohsync worker%'");
}
anew('SET flohsync.page_fingerprints = off');
$f->sync_ok('c', 'user');
is(not_read('c') . $f->sql('SELECT count(*) FROM _flohsync.page_print'), '0', 'disabled: there are none');
anew('RESET flohsync.page_fingerprints');

# Notes that nobody needs
$f->sql("DELETE FROM _flohsync.dirty_record; SELECT flohsync.create_connector('idle', 'command', '{\"url\": \"http://127.0.0.1:9/\"}')");
$f->sql("SELECT flohsync.upsert_resource('idle', 'user', jsonb_build_object('externalId', n)) FROM generate_series(1, 2100) n");
cmp_ok($f->sql('SELECT count(*) FROM _flohsync.dirty_record'), '<', 1100, 'notes of types without fingerprints go');
$f->sync_ok('c', 'user') for 1 .. 2;
$f->sql("INSERT INTO _flohsync.dirty_record (connector_id, resource_type, nums) SELECT id, 'user', '\\x02' FROM flohsync.connector_definition, generate_series(1, 10001) WHERE name = 'c'; SELECT _flohsync.forget_page_prints()");
is($f->sql('SELECT count(*) FROM _flohsync.page_print') . $f->sql('SELECT count(*) FROM _flohsync.dirty_record'), '00', 'where there are too many, the fingerprints go with them');
$f->sql("SELECT flohsync.drop_connector('c')");

#
# Asked for only if they have changed
#

# What the last run asked with, and how it was answered
sub asked
{
	return join ' ', map { ((grep { /^if-(?:none-match|modified-since)$/i } keys %{ $_->{headers} }) ? '?' : '') . $_->{status} } $f->requests(type => 'user');
}

for my $kind (qw(command link cursor))
{
	$f->fresh(user => 90);
	$f->up('options', validator => $kind eq 'cursor' ? 'weak' : 'etag');
	if ($kind eq 'command')
	{
		$f->connector($kind);
		$f->sql("SELECT flohsync.update_connector('command', '{\"config\": {\"conditional\": true}}')");
	}
	else { $f->rest($kind, $kind, list => { conditional => JSON::PP::true }) }
	$f->sync_ok($kind, 'user');
	is(asked(), '200 200 200 200 200', "$kind: a first pass asks for every page");
	$f->clear_log;
	$stats = $f->sync_ok($kind, 'user');
	is(asked(), '?304 ?304 ?304 ?304 ?304', "$kind: the next one for what has changed");
	is(not_sent($kind) . ", $stats->{unchanged} $stats->{bytes}", '1 2 3 4 5, 90 0', "$kind: which is nothing");
	$f->up('change', ids => 'user-0000045', what => 'name');
	$f->sql(webhook($kind, 'user-0000070', 'by webhook'));
	$f->clear_log;
	$f->sync_ok($kind, 'user');
	is(asked(), '?304 ?304 ?200 200 ?304', "$kind: one that could not be taken as it was is asked for in any case");
	$f->matches_upstream($kind, 'user', "$kind: and has everything");

	$f->fault('hang', page => 2);
	$run = $f->sql("SELECT flohsync.trigger_sync('$kind', 'user')");
	$f->await(hanging => 1);
	$f->clear_log;
	$f->sql(webhook($kind, 'user-0000025', 'meanwhile'));
	$f->up('release');
	$f->wait_run($run);
	# Behind a 304, kind command has asked for the next one before it looked.
	like(asked(), $kind eq 'command' ? qr/^(?:\S+ )?200\b/ : qr/^200\b/, "$kind: as is one to whose records somebody has written since it was asked for");
	$f->matches_upstream($kind, 'user', "$kind: which is then as the upstream has it");
	$f->fault('status', code => 304, page => 1, times => -1);
	$f->sql("SELECT flohsync.configure_sync('$kind', 'user', '{\"hashIgnore\": [\"score\"]}')");
	$f->sync_fails($kind, 'user', qr/answered with status 304/, "$kind: 304 without a condition is an error");
}

# What stands for a page may change though the page does not.
$f->fresh(user => 40);
$f->connector('renamed');
$f->sql("SELECT flohsync.update_connector('renamed', '{\"config\": {\"conditional\": true}}')");
for my $validator (qw(etag weak))
{
	$f->up('options', validator => $validator);
	$f->sync_ok('renamed', 'user') for 1 .. 2;
	$f->clear_log;
	$f->sync_ok('renamed', 'user');
	is(asked(), '?304 ?304', "$validator: a page is asked for by what stands for it now");
}

# A page that is full stays the same when a link to another one comes to stand beside it.
$f->fresh(user => 40);
$f->up('options', validator => 'etag');
$f->rest('full', 'link', list => { conditional => JSON::PP::true });
$f->sync_ok('full', 'user') for 1 .. 2;
$f->clear_log;
$f->up('add', count => 1);
$f->sync_ok('full', 'user');
is(asked(), '?304 200 200', 'link: a last page that is full is asked for in any case');
$f->matches_upstream('full', 'user', 'link: so a page behind it is found');

# Last-Modified
$f->fresh(user => 40);
$f->up('options', validator => 'modified');
$f->up('clock', at => '2024-07-01T00:00:00Z');
$f->connector('dated');
$f->sql("SELECT flohsync.update_connector('dated', '{\"config\": {\"conditional\": true}}')");
$f->sync_ok('dated', 'user');
$f->clear_log;
$f->sync_ok('dated', 'user');
is(asked(), '?304 ?304', 'Last-Modified is of use where there is no ETag');
$f->up('change', ids => 'user-0000005', what => 'name');
$f->sync_ok('dated', 'user') for 1 .. 2;
$f->clear_log;
$f->up('change', ids => 'user-0000005', what => 'name');
$f->sync_ok('dated', 'user');
is(asked(), '200 200', 'not where the answer came in the minute of the change');
$f->matches_upstream('dated', 'user', 'so two changes in one second are two');

$f->fails_like("SELECT flohsync.create_connector('x', 'command', '{\"url\": \"http://127.0.0.1:9/\", \"conditional\": 1}')", '22023', qr/conditional/, 'conditional is true or false');
my $definition = $f->definition('link', list => { conditional => 'yes' });
like($f->sql('SELECT flohsync.validate_definition(' . Flohsync::jsonb($definition) . ')'), qr{/resources/user/list/conditional}, 'in a definition, too');

$f->no_crash;
done_testing();
