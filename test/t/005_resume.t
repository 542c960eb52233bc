# A failed run keeps its place; the next one goes on from there as the same pass.
use strict;
use warnings;

use Flohsync;
use Test::More;

my $f = Flohsync->new(conf => "flohsync.page_size = 20\nflohsync.http_timeout = 1s\n");
my $nr = 0;
my $c;

# A new connector with 100 records in 5 pages, all synced; some of them gone and changed since.
sub begin
{
	my (%settings) = @_;
	$c = 'c' . ++$nr;
	$f->fresh(user => 100);
	$f->connector($c, %settings);
	$f->sync_ok($c, 'user', "$c: to begin with");
	$f->up('delete', type => 'user', ids => 'user-0000005,user-0000045,user-0000095');
	$f->up('change', type => 'user', ids => 'user-0000006,user-0000046,user-0000096', what => 'name');
	$f->clear_log;
	return;
}
sub config { return $f->json("SELECT flohsync.sync_config('$c', 'user')") }
sub stale { return $f->sql("SELECT coalesce(string_agg(external_id, ' ' ORDER BY external_id), '') " . $f->scope($c, 'user') . ' AND stale_since IS NOT NULL') }
my $gone = 'user-0000005 user-0000045 user-0000095';

# Fail on a page, and look at what is kept.
sub fail_on
{
	my ($page, @fault) = @_;
	@fault = ('status', code => 403) unless @fault;
	$f->fault(@fault, page => $page, times => -1);
	my ($ok) = $f->sync($c, 'user');
	$f->up('heal');
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(!$ok, "$c: a run fails on page $page");
	is(stale(), '', "$c: nothing is stale");
	$f->clear_log;
	return;
}

#
# The same pass goes on
#
begin();
fail_on(3);
my $cursor = config()->{lastSyncCursor};
ok(length($cursor // ''), 'the cursor is kept');
is($f->last_run($c, 'user')->{cursor}, $cursor, 'in the run as well');
is($f->sql("SELECT next_cursor FROM flohsync.sync_run_page p JOIN flohsync.sync_run r ON r.id = run_id JOIN flohsync.connector_definition d ON d.id = r.connector_id WHERE d.name = '$c' ORDER BY run_id DESC, page DESC LIMIT 1"),
	$cursor, 'and is that of the last page stored');
is($f->sql("SELECT string_agg(external_id, ' ' ORDER BY external_id) " . $f->scope($c, 'user') . " AND display_name LIKE '% v1'"), 'user-0000006', 'pages 1 and 2 are stored');
my $stats = $f->sync_ok($c, 'user', 'the next run');
is($f->pages_asked('user'), '3 4 5', 'asks for no page a second time');
is(stale(), $gone, 'what was gone in either part is stale, and nothing else');
$f->matches_upstream($c, 'user');
is(config()->{lastSyncCursor}, undef, 'no cursor is left');
ok($stats->{complete}, 'the pass is complete');
is($stats->{staled}, 3, 'three went stale');
is($f->sql("SELECT count(*) " . $f->scope($c, 'user') . " AND stale_since IS NULL AND synced_at < now() - interval '1 minute'"), 0, 'synced_at is recent everywhere');
$f->clear_log;
$f->sync_ok($c, 'user');
is($f->pages_asked('user'), '1 2 3 4 5', 'the run after that starts from the front');

# Several failures in a row, network errors among them
begin();
fail_on(2, 'status', code => 503);
fail_on(2, 'reset', bytes => -1);
fail_on(4, 'html');
fail_on(5, 'hang');
$f->sync_ok($c, 'user', 'after four failures');
is($f->pages_asked('user'), '5', 'one page was left');
is(stale(), $gone, 'the pass knows what its first part saw');
$f->matches_upstream($c, 'user');

# Failing on the first page: there is nothing to go on from
begin();
fail_on(1);
is(config()->{lastSyncCursor}, undef, 'no cursor');
$f->sync_ok($c, 'user', 'after a failure on page 1');
is($f->pages_asked('user'), '1 2 3 4 5', 'all pages are asked for');
is(stale(), $gone, 'and the pass is complete');

# What changes upstream between the parts
begin();
fail_on(3);
$f->up('restore', type => 'user', ids => 'user-0000005');    # page 1, which was read already
$f->up('delete', type => 'user', ids => 'user-0000050');      # page 3, which was not
$f->sync_ok($c, 'user', 'the upstream changed between the parts');
is(stale(), 'user-0000005 user-0000045 user-0000050 user-0000095', 'the pass is true to what it saw');
$f->sync_ok($c, 'user', 'the next pass');
is(stale(), 'user-0000045 user-0000050 user-0000095', 'corrects it');
$f->matches_upstream($c, 'user');

# A record that is upserted between the parts is there.
begin();
fail_on(3);
$f->sql("SELECT flohsync.upsert_resource('$c', 'user', '{\"externalId\": \"user-0000005\", \"displayName\": \"by webhook\"}')");
$f->sync_ok($c, 'user', 'a record came in by itself between the parts');
is(stale(), 'user-0000045 user-0000095', 'it does not go stale');

# A failed pass with records set aside, and with duplicates of an earlier part
begin();
$f->fault('id', value => 'missing', page => 1, record => 4);
fail_on(3);
$stats = $f->sync_ok($c, 'user', 'a record of the first part had no id');
is(stale(), '', 'so nothing can be told to be gone');
ok(!$stats->{complete}, 'the pass is not complete');

# A run that was cancelled goes on, too, or starts anew; either way the pass is right.
begin();
$f->fault('hang', page => 4);
my $run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
$f->await(hanging => 1);
is($f->sql("SELECT flohsync.cancel_sync($run)"), 't', 'a run is cancelled on page 4');
$f->wait_run($run);
is($f->run_row($run)->{status}, 'cancelled', 'it says so');
is(stale(), '', 'nothing is stale');
$f->up('heal');
$f->sync_ok($c, 'user', 'the run after it');
is(stale(), $gone, 'knows what is gone');
$f->matches_upstream($c, 'user');

#
# The pass starts again
#
begin();
fail_on(3);
$f->up('expire');
$f->sync_ok($c, 'user', 'the upstream no longer knows the cursor (410)');
is($f->pages_asked('user'), '3 1 2 3 4 5', 'the pass starts again');
is(stale(), $gone, 'and is right');
$f->matches_upstream($c, 'user');

begin();
fail_on(3);
$f->up('expire', code => 400);
$f->sync_ok($c, 'user', 'the upstream no longer knows the cursor (400)');
is($f->pages_asked('user'), '3 1 2 3 4 5', 'the pass starts again');
is(stale(), $gone, 'and is right');

# A cursor that expires in the middle of a run
begin();
$f->fault('expired_cursor', page => 4);
$f->sync_ok($c, 'user', 'a cursor expires within a run');
is($f->pages_asked('user'), '1 2 3 4 1 2 3 4 5', 'the pass starts again');
is(stale(), $gone, 'and is right');
begin();
$f->fault('expired_cursor', page => 4, times => -1);
my ($ok) = $f->sync($c, 'user');
ok(!$ok, 'a cursor that expires each time ends the run');
cmp_ok(scalar(my @all = $f->requests), '<', 40, 'and not after many attempts');
is(stale(), '', 'with nothing stale');
$f->up('heal');
$f->sync_ok($c, 'user', 'the next run');
is(stale(), $gone, 'is right');

# Other filters
begin(safeguards => { maxStaleFraction => undef });
fail_on(3);
$f->configure($c, 'user', filterRules => { emailDomains => ['acme.com'] });
$f->sync_ok($c, 'user', 'the filters have changed');
is($f->pages_asked('user'), '1 2 3 4 5', 'the pass starts again');
is($f->sql("SELECT count(*) " . $f->scope($c, 'user') . " AND stale_since IS NULL AND email NOT LIKE '%\@acme.com'"), 0, 'under the new filters as a whole');
cmp_ok($f->sql("SELECT count(*) " . $f->scope($c, 'user') . ' AND stale_since IS NULL'), '>', 20, 'and keeps what passes them');

# Another address
begin();
fail_on(3);
$f->sql("SELECT flohsync.update_connector('$c', '{\"config\": {\"url\": \"" . $f->url . "v2/\"}}')");
$f->sync_ok($c, 'user', 'the connector points elsewhere');
is($f->pages_asked('user'), '1 2 3 4 5', "another upstream's cursor is not used");

# Another strategy
begin();
fail_on(3);
$run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user', 'incremental')");
$f->wait_run($run);
is($f->run_row($run)->{status}, 'success', 'an incremental run after a failed full one');
unlike($f->pages_asked('user'), qr/^3/, 'does not go on with its cursor');
is(stale(), '', 'and stales nothing');

# An old cursor: whatever says how old it is, is made older
begin();
fail_on(3);
$f->sql("UPDATE flohsync.sync_run SET requested_at = requested_at - $_, started_at = started_at - $_, finished_at = finished_at - $_, pass_started_at = pass_started_at - $_") for "interval '6 days 20 hours'";
$f->sql("UPDATE flohsync.sync_run_page SET fetched_at = fetched_at - interval '6 days 20 hours'");
$f->sync_ok($c, 'user', 'a cursor of almost 7 days');
is($f->pages_asked('user'), '3 4 5', 'is used');
begin();
fail_on(3);
$f->sql("UPDATE flohsync.sync_run SET requested_at = requested_at - $_, started_at = started_at - $_, finished_at = finished_at - $_, pass_started_at = pass_started_at - $_") for "interval '7 days 1 hour'";
$f->sql("UPDATE flohsync.sync_run_page SET fetched_at = fetched_at - interval '7 days 1 hour'");
$f->sync_ok($c, 'user', 'a cursor of more than 7 days');
is($f->pages_asked('user'), '1 2 3 4 5', 'is not');
is(stale(), $gone, 'the pass is right');

#
# A page and its cursor are stored together, or not at all.
#
begin();
$f->sql(<<'SQL');
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.external_id = 'user-0000046' AND NEW.display_name LIKE '% v1' THEN RAISE 'refused by a trigger'; END IF;
  RETURN NEW; END $$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON flohsync.resource_record FOR EACH ROW EXECUTE FUNCTION public.refuse();
GRANT EXECUTE ON FUNCTION public.refuse() TO PUBLIC;
SQL
$f->up('change', type => 'user', ids => 'user-0000047', what => 'name');
$f->sync_fails($c, 'user', qr/refused by a trigger/, 'page 3 cannot be stored');
is($f->sql("SELECT string_agg(external_id, ' ' ORDER BY external_id) " . $f->scope($c, 'user') . " AND display_name LIKE '% v1'"), 'user-0000006', 'nothing of it is stored, and all of the pages before it');
is($f->sql("SELECT max(page) FROM flohsync.sync_run_page WHERE run_id = " . $f->last_run($c, 'user')->{id}), 2, 'the ledger ends with page 2');
is($f->status($c, 'user')->{lastSyncStatus}, 'error', 'the run failed');
$f->sql('DROP TRIGGER refuse ON flohsync.resource_record');
$f->clear_log;
$f->sync_ok($c, 'user', 'when it can');
is($f->pages_asked('user'), '3 4 5', 'the run goes on with that page');
is(stale(), $gone, 'the pass is right');
$f->matches_upstream($c, 'user');

# Incremental runs go on, too, and ask since the same time.
begin(strategy => 'incremental', overlap => '0 seconds');
$f->up('change', type => 'user', from => 1, to => 100, what => 'attributes');
$f->clear_log;
fail_on(3);
$f->sync_ok($c, 'user', 'an incremental run goes on');
unlike($f->pages_asked('user'), qr/^1/, 'from where the failed one was');
$f->up('restore', type => 'user', all => 1);
$f->sync_ok($c, 'user', 'the three that had gone are back');
$f->matches_upstream($c, 'user', 'nothing is lost');

$f->invariants;
$f->no_crash;
done_testing();
