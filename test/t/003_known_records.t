# Pages of which a part has changed: the other records are known by their text, and are not
# looked up (src/page/known.c).  003_page_prints.t is the test at random that the result is
# the same.
use strict;
use warnings;

use Flohsync;
use Rest;
use Test::More;

# Plans that read all records would hide which are looked up.
my $f = Rest->new(conf => "flohsync.page_size = 20\nautovacuum = off\n");
my $of_table = "FROM pg_stat_user_tables WHERE relid = 'flohsync.resource_record'::regclass";

# A pass, and how many stored rows it has looked at
sub rows_of_pass
{
	my ($c, $name) = @_;
	my $idle = "SELECT count(*) = 0 FROM flohsync.workers WHERE kind = 'flohsync worker'";
	# A worker tells what it has read when it ends, and this session when it is asked to.
	$f->wait_for($idle, timeout => 60);
	$f->sql($_) for 'SELECT pg_stat_force_next_flush()', 'SELECT pg_stat_reset()';
	my $stats = $f->sync_ok($c, 'user', $name);
	$f->wait_for($idle, timeout => 60);
	return ($f->sql("SELECT coalesce(idx_tup_fetch, 0) + seq_tup_read $of_table"), $stats);
}
sub lists { return $f->sql('SELECT string_agg(p.page::text, \' \' ORDER BY p.page) FROM _flohsync.page_print p JOIN flohsync.connector_sync_config c ON c.id = p.config_id WHERE p.list_id IS NOT NULL AND c.connector_id = ' . $f->connector_id($_[0])) }
sub without_digest { return $f->sql('SELECT coalesce(string_agg(p.page::text, \' \' ORDER BY p.page), \'\') FROM _flohsync.page_print p JOIN flohsync.connector_sync_config c ON c.id = p.config_id WHERE p.digest = \'\' AND c.connector_id = ' . $f->connector_id($_[0])) }
sub read_of { return $f->sql('SELECT coalesce(string_agg(p.page::text, \' \' ORDER BY p.page), \'\') FROM flohsync.sync_run_page p WHERE p.print IS NULL AND p.run_id = (SELECT max(r.id) FROM flohsync.sync_run r WHERE r.connector_id = ' . $f->connector_id($_[0]) . ')') }
sub webhook { return "SELECT flohsync.handle_webhook('$_[0]', " . Flohsync::jsonb({ action => 'updated', resourceType => 'user', resourceId => $_[1], data => { displayName => $_[2] } }) . ')' }

for my $c (qw(command offset cursor page))
{
	$f->fresh(user => 400);
	$f->up('options', paging => 'index');
	$c eq 'command' ? $f->connector($c) : $f->rest($c, $c);
	$f->sync_ok($c, 'user', "$c: a first pass");
	is(lists($c), '', "$c: keeps no lists");
	$f->up('change', ids => 'user-0000045,user-0000250', what => 'name');
	my ($rows, $stats) = rows_of_pass($c, "$c: two pages have changed");
	cmp_ok($rows, '>=', 40, "$c: whose records are looked up");
	is(lists($c), '3 13', "$c: and lists of them are kept");
	is("$stats->{updated} $stats->{unchanged}", '2 398', "$c: with what has changed");

	$f->up('change', ids => 'user-0000042,user-0000060', what => 'attributes');
	($rows, $stats) = rows_of_pass($c, "$c: one has changed again");
	cmp_ok($rows, '<', 20, "$c: of which only what has changed is looked up");
	is("$stats->{updated} $stats->{unchanged}", '2 398', "$c: all records are counted");
	$f->matches_upstream($c, 'user', "$c: all is stored");

	# What changes pass after pass is not hashed as a whole, until it does not.
	is(without_digest($c), '3', "$c: it has no digest now");
	$stats = $f->sync_ok($c, 'user', "$c: nothing has changed");
	is(read_of($c) . ": $stats->{unchanged}", '3: 400', "$c: it is read once more");
	is(without_digest($c), '', "$c: and has one");
	$f->sync_ok($c, 'user', "$c: nothing has changed again");
	is(read_of($c), '', "$c: no page is read");

	# What is written by others is read; a text of long ago is no text of the last pass.
	$f->up('change', ids => 'user-0000051', what => 'name');
	$f->sql(webhook($c, 'user-0000052', 'by webhook'));
	$f->sql("SELECT flohsync.upsert_resource('$c', 'user', '{\"externalId\": \"user-0000053\", \"displayName\": \"by hand\"}')");
	$f->sql("SELECT flohsync.handle_webhook('$c', '{\"action\": \"deleted\", \"resourceType\": \"user\", \"resourceId\": \"user-0000054\"}')");
	$stats = $f->sync_ok($c, 'user', "$c: others have written");
	is("$stats->{updated} $stats->{added}", '3 1', "$c: what they wrote is compared");
	$f->matches_upstream($c, 'user', "$c: and as the upstream has it");
	for my $name ('one', 'other', 'one')
	{
		$f->up('set', id => 'user-0000055', body => "{\"externalId\":\"user-0000055\",\"displayName\":\"$name\"}");
		$stats = $f->sync_ok($c, 'user', "$c: the $name name");
		is($stats->{updated}, 1, "$c: is new");
		is($f->sql('SELECT display_name ' . $f->scope($c, 'user') . " AND external_id = 'user-0000055'"), $name, "$c: and stored");
	}
	$f->up('set', id => 'user-0000055');

	# Records move to other pages.
	$f->up('change', fraction => 1, what => 'attributes', seed => 7);
	$f->sync_ok($c, 'user', "$c: all have changed");
	is(lists($c), join(' ', 1 .. 20), "$c: so there are lists of all pages");
	$f->up('options', paging => 'position');
	$f->up('delete', ids => 'user-0000010,user-0000110,user-0000111');
	($rows, $stats) = rows_of_pass($c, "$c: three are gone");
	# Settling reads all when something is missing; a list by position says that it is not whole then.
	is("$stats->{updated} $stats->{unchanged}", '0 397', "$c: nobody else has changed");
	$f->sync_ok($c, 'user');
	$f->matches_upstream($c, 'user', "$c: the others are there");
	$f->up('add', count => 60);
	$stats = $f->sync_ok($c, 'user', "$c: sixty are new");
	is("$stats->{added} $stats->{updated}", '60 0', "$c: and nobody else is");
	$f->matches_upstream($c, 'user', "$c: and all are there");
	$f->up('restore', ids => 'user-0000010');
	$f->sync_ok($c, 'user') for 1 .. 2;
	$f->matches_upstream($c, 'user', "$c: one is back");

	# The same record twice on a page: the later one counts, whether it is known or not.
	$f->sync_ok($c, 'user');
	for my $same (0, 1)
	{
		$f->up('change', ids => 'user-0000025', what => 'attributes');
		$f->fault('dup_in_page', page => 2, record => 12, same => $same);
		$stats = $f->sync_ok($c, 'user', "$c: twice on a page");
		is($stats->{duplicates}, 1, "$c: is a duplicate");
		$f->up('heal');
		$f->sync_ok($c, 'user') for 1 .. 2;
		$f->matches_upstream($c, 'user', "$c: healed");
	}

	# A list that is damaged is of no use, and does no harm.
	for my $damage ("substr(came, 1, length(came) - 3)", "came || '\\x00'", "set_byte(came, 5, 255 - get_byte(came, 5))", "'\\x'", 'gone')
	{
		for my $table (qw(page_print page_list))
		{
			$f->up('change', fraction => 0.05, what => 'attributes', seed => 11);
			$f->sync_ok($c, 'user');
			$f->sql($damage eq 'gone' ? "DELETE FROM _flohsync.$table" : "UPDATE _flohsync.$table SET came = $damage WHERE length(came) > 5");
			$f->up('change', fraction => 0.05, what => 'attributes', seed => 12);
			$f->sync_ok($c, 'user', "$c: damaged lists");
			$f->matches_upstream($c, 'user', "$c: all is read");
		}
	}

	# Lists as a whole are kept as long as a page refers to them.
	$f->sql('DELETE FROM _flohsync.page_print_scope');
	$f->sync_ok($c, 'user');
	my @kept;
	for my $seed (1 .. 12)
	{
		$f->up('change', fraction => 0.05, what => 'attributes', seed => $seed);
		$f->sync_ok($c, 'user');
		push @kept, $f->sql('SELECT (SELECT count(*) FROM _flohsync.page_list l WHERE NOT EXISTS (SELECT FROM _flohsync.page_print p WHERE p.list_id = l.id)), (SELECT count(*) FROM _flohsync.page_print p WHERE p.list_id IS NOT NULL AND NOT EXISTS (SELECT FROM _flohsync.page_list l WHERE l.id = p.list_id))');
	}
	is("@kept", join(' ', ('0|0') x 12), "$c: no other list is kept, and none is missing");
	is($f->sql('SELECT count(*) > 0, bool_or(came IS NOT NULL) FROM _flohsync.page_print WHERE list_id IS NOT NULL'), 't|t', "$c: of most pages, what is different is kept");
	$f->matches_upstream($c, 'user', "$c: all is as it is upstream");
	$f->sql("SELECT flohsync.drop_connector('$c')");
	is($f->sql('SELECT (SELECT count(*) FROM _flohsync.page_print) + (SELECT count(*) FROM _flohsync.page_list)'), 0, "$c: dropped, with all lists");
}

#
# Filters, names that are cut
#
$f->fresh(user => 100);
$f->connector('c');
$f->configure('c', 'user', filterRules => { emailDomains => ['acme.com'] });
$f->up('set', id => 'user-0000007', body => '{"externalId":"user-0000007","email":"x@acme.com","displayName":"' . 'n' x 300 . '"}');
$f->sync_ok('c', 'user');
my @counts;
for my $seed (1 .. 3)
{
	$f->up('change', fraction => 0.1, what => 'attributes', seed => $seed);
	my $stats = $f->sync_ok('c', 'user');
	push @counts, "$stats->{filtered} $stats->{truncated}";
}
is($counts[$_], $counts[0], 'what is out of scope, or cut, is counted each time') for 1 .. 2;
like($counts[0], qr/^[1-9]\d* 1$/, 'there is some');

#
# While a pass is under way, and after one that was cut short
#
$f->fresh(user => 300);
$f->connector('d');
$f->sync_ok('d', 'user');
$f->up('change', fraction => 0.2, what => 'attributes', seed => 21);
$f->sync_ok('d', 'user');
$f->up('change', fraction => 0.2, what => 'attributes', seed => 22);
$f->fault('hang', page => 8);
my $run = $f->sql("SELECT flohsync.trigger_sync('d', 'user')");
$f->await(hanging => 1);
$f->sql(webhook('d', "user-0000$_", 'meanwhile')) for 165, 240;
ok($f->crash($f->worker_pid), 'a worker is killed in the middle');
$f->up('heal');
ok($f->wait_run($run, timeout => 60), 'its run goes on');
is($f->run_row($run)->{status}, 'success', 'to the end');
$f->sync_ok('d', 'user');
$f->matches_upstream('d', 'user', 'and nothing that others wrote meanwhile is taken as it was');

# A record that an earlier page of the pass has written comes again as it was.
$f->up('set', id => 'user-0000020', body => '{"externalId":"user-0000120","displayName":"elsewhere"}');
$f->up('change', ids => 'user-0000130', what => 'name');
$f->sync_ok('d', 'user');
is($f->sql('SELECT display_name <> \'elsewhere\' ' . $f->scope('d', 'user') . " AND external_id = 'user-0000120'"), 't', 'of two pages with a record the last one counts, though its text is that of the pass before');

# So it is if the worker was killed between the two.
$f->up('set', id => 'user-0000020');
$f->sync_ok('d', 'user') for 1 .. 2;
$f->up('change', fraction => 1, what => 'attributes', seed => 23);
$f->sync_ok('d', 'user');
is(lists('d'), join(' ', 1 .. 15), 'there are lists of all pages');
$f->up('set', id => 'user-0000020', body => '{"externalId":"user-0000120","displayName":"elsewhere"}');
$f->up('change', ids => 'user-0000130', what => 'name');
$f->fault('hang', page => 4);
$run = $f->sql("SELECT flohsync.trigger_sync('d', 'user')");
$f->await(hanging => 1);
$f->wait_flushed($run, 3);
ok($f->crash($f->worker_pid), 'a worker is killed between two pages with a record');
$f->up('heal');
ok($f->wait_run($run, timeout => 60), 'its run goes on');
is($f->sql('SELECT display_name <> \'elsewhere\' ' . $f->scope('d', 'user') . " AND external_id = 'user-0000120'"), 't', 'the last one counts');
$f->up('set', id => 'user-0000020');
$f->sync_ok('d', 'user') for 1 .. 2;
$f->matches_upstream('d', 'user', 'healed');

# As many records are live as the pass has seen, but not the same.
$f->up('delete', ids => 'user-0000290');
$f->fault('hang', page => 9);
$run = $f->sql("SELECT flohsync.trigger_sync('d', 'user')");
$f->await(hanging => 1);
$f->wait_for("SELECT count(*) = 8 FROM flohsync.sync_run_page WHERE run_id = $run");
$f->sql("SELECT flohsync.handle_webhook('d', '{\"action\": \"deleted\", \"resourceType\": \"user\", \"resourceId\": \"user-0000030\"}')");
$f->up('release');
$f->wait_run($run);
is($f->run_row($run)->{stats}{staled}, 1, 'what is missing goes stale though somebody else has removed another one meanwhile');

$f->invariants;
unlike(PostgreSQL::Test::Utils::slurp_file($f->node->logfile), qr/PANIC|signal 11|signal 6/, 'no process crashed by itself');
done_testing();
