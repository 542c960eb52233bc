# Passes whose pages all come as before: what else they have to do, and that nobody can tell from the
# result, as a second database without fingerprints shows.  And what becomes of such a pass that is cut
# short: its ledger is in the fingerprints until then.  And pages that are asked for early.
use strict;
use warnings;

use Flohsync;
use JSON::PP ();
use Rest;
use Test::More;

my $f = Rest->new(conf => "flohsync.page_size = 20\nflohsync.retry_delay = 0\n");
my $plain = 'plain';
my @databases = ('postgres', $plain);
my $true = JSON::PP::true;
$f->sql("CREATE DATABASE $plain");
$f->sql("ALTER DATABASE $plain SET flohsync.page_fingerprints = off");
$f->sql('CREATE EXTENSION flohsync', $plain);
my $p = $f->with_node($f->node);
$p->{db} = $plain;

sub last_id { return "(SELECT max(r.id) FROM flohsync.sync_run r WHERE r.connector_id = " . $f->connector_id($_[0]) . ')' }
sub not_read { return $f->sql("SELECT coalesce(string_agg(p.page::text, ' ' ORDER BY p.page), '') FROM flohsync.sync_run_page p WHERE p.print IS NOT NULL AND p.run_id = " . last_id($_[0])) }
sub both { my ($sql) = @_; return map { $f->sql($sql, $_) } @databases }

# The same sync in both; of the first, that no page was read.
sub settled
{
	my ($c, $pages, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$_->sync_ok($c, 'user', "$name: a pass") for $f, $p;
	return is(not_read($c), $pages, "$name: no page is read");
}

# The same answer in both, and this one
sub alike
{
	my ($sql, $expected, $name) = @_;
	my @answers = both($sql);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(join(' / ', @answers), "$expected / $expected", $name);
}

my $nr = 0;
sub begin
{
	my (%settings) = @_;
	my $c = 'c' . ++$nr;
	$f->fresh(user => 40);
	for my $db ($f, $p)
	{
		$db->connector($c, %settings);
		$db->sync_ok($c, 'user', "$c: to begin with") for 1 .. 2;
	}
	return $c;
}

# A workflow, in both with the same id
my $workflow = '5e771ed0-0000-4000-8000-000000000001';
both("INSERT INTO flohsync.workflow_definition (id, name) VALUES ('$workflow', 'told')");
my $jobs = "SELECT coalesce(string_agg(concat_ws(' ', data ->> 'triggerMode', data -> 'stats' ->> 'removed', (SELECT string_agg(concat_ws(' ', e ->> 'change', e ->> 'externalId'), ',') FROM jsonb_array_elements(data -> 'records') e)), '; ' ORDER BY id), '') FROM flohsync.workflow_job";
sub user_row { my ($mail) = @_; return "INSERT INTO flohsync.floh_user (iss, sub, email, display_name, confirmed) VALUES ('https://idp', 'sub of $mail', '$mail', '$mail', true)" }
sub matched { my ($c) = @_; return "SELECT coalesce(string_agg(concat_ws(' ', m.external_id, m.match_status), ', ' ORDER BY m.external_id), '') FROM flohsync.connector_sync_match m WHERE m.match_status <> 'unmatched' AND m.connector_id = " . $f->connector_id($c) }
sub mail_of { my ($c, $id) = @_; return $f->sql('SELECT email ' . $f->scope($c, 'user') . " AND external_id = '$id'") }

#
# What a pass without changes has to do besides
#

# Nothing, mostly: then none of what follows a pass is called.
my $c = begin();
my %idle = (settle_pass => 'bigint, boolean, text[]', post_sync => 'bigint, boolean', purge_run => 'bigint, bigint');
$f->sql("ALTER FUNCTION _flohsync.$_($idle{$_}) RENAME TO ${_}_away") for sort keys %idle;
$f->sync_ok($c, 'user', 'nothing to do: the pass is a success');
is(not_read($c), '1 2', 'and no page was read');
$f->sql("ALTER FUNCTION _flohsync.${_}_away($idle{$_}) RENAME TO $_") for sort keys %idle;
alike("SELECT c.last_full_pass_at = r.pass_started_at FROM flohsync.connector_sync_config c, flohsync.sync_run r WHERE r.id = " . last_id($c) . ' AND c.connector_id = r.connector_id', 't', 'it confirms every record');
alike("SELECT count(*) FROM flohsync.sync_run_page p WHERE p.seen IS NOT NULL", 0, 'and leaves no ledger');

# Asked directly: each by itself
my $last = $f->sql('SELECT ' . last_id($c));
my $of = "SELECT c.connector_id, c.resource_type FROM flohsync.connector_sync_config c WHERE c.connector_id = " . $f->connector_id($c);
my %by_itself = (
	nothing => [ 'SELECT', 't' ],
	'no fingerprints any more' => [ 'DELETE FROM _flohsync.page_print_scope', 'f' ],
	'fingerprints of another pass' => [ 'UPDATE _flohsync.page_print_scope SET open_pass = open_pass + 1', 'f' ],
	'fingerprints that cannot be used' => [ 'UPDATE _flohsync.page_print_scope SET pass_id = NULL', 'f' ],
	'a note of a record' => [ "INSERT INTO _flohsync.dirty_record (connector_id, resource_type, nums) SELECT x.*, _flohsync.ledger_encode('{1}') FROM ($of) x", 'f' ],
	'a note of the pass' => [ "INSERT INTO _flohsync.dirty_record (connector_id, resource_type, nums, pass_id) SELECT x.*, _flohsync.ledger_encode('{1}'), $last FROM ($of) x", 'f' ],
	'a held run' => [ "UPDATE flohsync.sync_run SET status = 'held' WHERE id = (SELECT min(id) FROM flohsync.sync_run)", 'f' ],
	'a change that waits' => [ "INSERT INTO _flohsync.record_change (resource_id, connector_id, resource_type, change) SELECT r.id, r.connector_id, r.resource_type, 'recheck' FROM flohsync.resource_record r LIMIT 1", 'f' ],
	'a change of a page' => [ "UPDATE flohsync.sync_run_page SET changed = '{}' WHERE run_id = (SELECT min(id) FROM flohsync.sync_run) AND page = 1", 'f' ],
	'a change of a page of others' => [ "INSERT INTO flohsync.sync_run (connector_id, resource_type, trigger, status) SELECT x.connector_id, 'other', 'api', 'error' FROM ($of) x; INSERT INTO flohsync.sync_run_page SELECT (jsonb_populate_record(p, jsonb_build_object('run_id', (SELECT max(id) FROM flohsync.sync_run), 'changed', '{}'::uuid[]))).* FROM flohsync.sync_run_page p LIMIT 1", 't' ],
	'a setback' => [ "INSERT INTO _flohsync.setback (config_id, stage, resource_id, tried_at) SELECT c.id, 'map', r.id, now() FROM flohsync.connector_sync_config c, flohsync.resource_record r LIMIT 1", 'f' ],
	'an old stale record' => [ "UPDATE flohsync.resource_record SET stale_since = now() - interval '10 years' WHERE external_id = 'user-0000001'; DELETE FROM _flohsync.dirty_record", 'f' ],
	'a new stale record' => [ "UPDATE flohsync.resource_record SET stale_since = now() WHERE external_id = 'user-0000001'; DELETE FROM _flohsync.dirty_record", 't' ],
	'nobody was matched' => [ 'DELETE FROM _flohsync.match_progress', 'f' ],
	'users seen by another cluster' => [ "UPDATE _flohsync.match_progress SET users_seen = '9000000000000000'", 'f' ],
	'other rules' => [ "UPDATE _flohsync.match_progress SET rules = 'x'", 'f' ],
	'a user of long ago' => [ "INSERT INTO _flohsync.user_change (xid, user_id) SELECT (m.users_seen::text::bigint - 1)::text::xid8, gen_random_uuid() FROM _flohsync.match_progress m", 't' ],
	'a new user' => [ 'INSERT INTO _flohsync.user_change (user_id) VALUES (gen_random_uuid())', 'f' ],
	'users of an application' => [ "CREATE OR REPLACE VIEW flohsync.v_user AS SELECT gen_random_uuid() AS id, 'x\@y.z' AS email, 'x' AS display_name, NULL::text AS upstream_issuer, NULL::text AS upstream_id, NULL::text AS sub, true AS confirmed, true AS active", 'f' ],
	'no configuration' => [ 'DELETE FROM flohsync.connector_sync_config', 'f' ],
);
for my $what (sort keys %by_itself)
{
	my $r = $f->try_sql("BEGIN; $by_itself{$what}[0]; SELECT _flohsync.settle_as_before($last); ROLLBACK");
	is($r->{out}, $by_itself{$what}[1], "by itself: $what") or diag($r->{text});
}

# An older run that is held
$c = begin(safeguards => { maxStaleFraction => 0.1, minRecords => 1 });
$f->up('delete', from => 11, to => 20);
$_->sync($c, 'user') for $f, $p;
alike('SELECT status FROM flohsync.sync_run WHERE id = ' . last_id($c), 'held', 'held: as many are gone');
my @held = both('SELECT ' . last_id($c));
$f->up('restore', all => 1);
settled($c, '1 2', 'held');
is_deeply([ map { $f->sql("SELECT status || ' ' || (notes = 'superseded by run ' || " . last_id($c) . ") FROM flohsync.sync_run WHERE id = $held[$_]", $databases[$_]) } 0, 1 ], [ ('cancelled true') x 2 ], 'held: the older run is superseded');
alike('SELECT last_sync_status FROM flohsync.connector_sync_config WHERE connector_id = ' . $f->connector_id($c), 'success', 'held: the configuration tells of the last one');

# What an operator has decided waits for the next pass.
$c = begin(attributeMappings => [ { sourcePath => 'externalId', targetField => 'employeeId', writeMode => 'overwrite_always' } ]);
both(user_row('somebody@else.example'));
both("SELECT flohsync.resolve_match(m.id, 'link', u.id) FROM flohsync.connector_sync_match m, flohsync.floh_user u WHERE u.email = 'somebody\@else.example' AND m.external_id = 'user-0000007' AND m.connector_id = " . $f->connector_id($c));
both('DELETE FROM _flohsync.user_change');	# of others
my $profile = "SELECT coalesce(max(p.employee_id), 'none') FROM flohsync.user_profile p JOIN flohsync.floh_user u ON u.id = p.user_id WHERE u.email = 'somebody\@else.example'";
alike($profile, 'none', 'resolved: no profile yet');
settled($c, '1 2', 'resolved');
alike($profile, 'user-0000007', 'resolved: the profile is filled');

# Another configuration's records tell that somebody may have left.
my $here = begin(deactivateUsers => $true, safeguards => {});
my $there = begin(safeguards => {});
both(user_row(mail_of($here, 'user-0000003')));
for my $one ($here, $there) { $_->sync_ok($one, 'user') for $f, $p }
$f->up('delete', ids => 'user-0000003');
my $active = "SELECT active FROM flohsync.floh_user WHERE email = '" . mail_of($here, 'user-0000003') . "'";
for my $one ($here, $there) { $_->sync_ok($one, 'user') for $f, $p }
alike($active, 't', 'left: not while the other one was there, and that one does not deactivate');
settled($here, '1 2', 'left');
alike($active, 'f', 'left: deactivated');
$f->sql("SELECT flohsync.drop_connector('$there')");
$p->sql("SELECT flohsync.drop_connector('$there')");

# Post-sync failed as a whole.  Of groups nobody is matched: what changed is with the pages.
$f->fresh(user => 1, group => 20);
for my $db ($f, $p)
{
	$db->connector('groups', types => ['group'], syncTriggerMode => 'per_record', postSyncWorkflowId => $workflow);
	$db->sql('ALTER FUNCTION _flohsync.lock_matching RENAME TO lock_away');
	$db->sync_ok('groups', 'group', 'post-sync fails');
	$db->sql('ALTER FUNCTION _flohsync.lock_away RENAME TO lock_matching');
}
alike('SELECT count(*) FROM flohsync.sync_run_page WHERE changed IS NOT NULL', 1, 'post-sync failed: what was added waits');
$_->sync_ok('groups', 'group', 'post-sync failed: a pass without changes') for $f, $p;
is(not_read('groups'), '1', 'post-sync failed: no page is read');
alike("SELECT count(*) FROM flohsync.workflow_job j, jsonb_array_elements(j.data -> 'records') e WHERE e ->> 'change' = 'added'", 20, 'post-sync failed: the workflow is told');
both('DELETE FROM flohsync.workflow_job');
$_->sync_ok('groups', 'group', 'and again') for $f, $p;
alike($jobs, '', 'post-sync failed: once');

# A group does not concern users any more, and none was matched.
$_->configure('groups', 'group', syncTriggerMode => 'none', filterRules => { groupNamePattern => '^nothing$' }, attributeMappings => [ { sourcePath => 'externalId', targetField => 'employeeId', writeMode => 'overwrite_always' } ], safeguards => { maxStaleFraction => undef }, staleRetention => '0s') for $f, $p;
for my $db ($f, $p)
{
	my ($ok) = $db->sync('groups', 'group');
	$db->sql('SELECT flohsync.approve_run(' . last_id('groups') . ')') if $db->last_run('groups', 'group')->{status} eq 'held';
	$db->sync_ok('groups', 'group') for 1 .. 3;
}
my $progress = 'SELECT count(*) FROM _flohsync.match_progress m JOIN flohsync.connector_sync_config c ON c.id = m.config_id WHERE c.connector_id = ' . $f->connector_id('groups');
alike($progress, 1, 'no users: there were');
$_->configure('groups', 'group', attributeMappings => undef) for $f, $p;
$_->sync_ok('groups', 'group') for $f, $p;
is(not_read('groups'), '1', 'no users: no page is read');
alike($progress, 0, 'no users: nothing is noted of users any more');
for my $db ($f, $p) { $db->sql("SELECT flohsync.drop_connector('groups')") }

# A row that the application refused
$c = begin(attributeMappings => [ { sourcePath => 'externalId', targetField => 'employeeId', writeMode => 'overwrite_always' } ]);
both("CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF new.employee_id = ''user-0000009'' THEN RAISE EXCEPTION ''not this one''; END IF; RETURN new; END';
	CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON flohsync.user_profile FOR EACH ROW EXECUTE FUNCTION public.refuse()");
both(user_row(mail_of($c, $_))) for qw(user-0000008 user-0000009);
settled($c, '1 2', 'new users');
alike(matched($c), 'user-0000008 matched, user-0000009 matched', 'new users: matched');
my $setbacks = 'SELECT count(*) FROM _flohsync.setback';
alike($setbacks, 1, 'refused: one is to be tried again');
settled($c, '1 2', 'refused');
alike('SELECT error_class FROM flohsync.sync_error WHERE run_id = ' . last_id($c), 'post_sync', 'refused: it is, and each run says so');
both('DROP TRIGGER refuse ON flohsync.user_profile');
settled($c, '1 2', 'refused no more');
alike($setbacks, 0, 'refused no more: done');
alike("SELECT count(*) FROM flohsync.user_profile WHERE employee_id = 'user-0000009'", 1, 'refused no more: the profile is there');

# Users who changed, also in a transaction that ends later than the pass
both("UPDATE flohsync.floh_user SET email = 'moved\@x.example' WHERE email = '" . mail_of($c, 'user-0000009') . "'");
settled($c, '1 2', 'a user moved');
alike("SELECT user_id IS NULL FROM flohsync.connector_sync_match WHERE external_id = 'user-0000009' AND connector_id = " . $f->connector_id($c), 't', 'a user moved: no match');
my @late = map { $_->with_node($f->node) } $f, $p;
$_->sql('BEGIN; ' . user_row(mail_of($c, 'user-0000010'))) for @late;
settled($c, '1 2', 'a user not committed');
alike(matched($c) =~ s/WHERE/WHERE m.external_id = 'user-0000010' AND/r, '', 'a user not committed: not seen');
$_->sql('COMMIT') for @late;
settled($c, '1 2', 'a user committed late');
alike(matched($c) =~ s/WHERE/WHERE m.external_id = 'user-0000010' AND/r, 'user-0000010 matched', 'a user committed late: matched');

# Other rules
$_->configure($c, 'user', attributeMappings => [ { sourcePath => 'displayName', targetField => 'title', writeMode => 'overwrite_always' } ]) for $f, $p;
settled($c, '1 2', 'other mappings');
alike("SELECT count(*) FROM flohsync.user_profile p WHERE p.title IS NOT NULL", 2, 'other mappings: everybody is mapped');
both("UPDATE flohsync.floh_user SET sub = 'user-0000030' WHERE email = 'moved\@x.example'");
settled($c, '1 2', 'a subject');
$_->configure($c, 'user', userMatchStrategy => 'external_id') for $f, $p;
settled($c, '1 2', 'another strategy');
like(join(' / ', both(matched($c))), qr{user-0000030 matched.* / .*user-0000030 matched}, 'another strategy: everybody is matched again');

# Users of an application are not watched.
my $view = $f->sql("SELECT pg_get_viewdef('flohsync.v_user'::regclass)");
$_->configure($c, 'user', userMatchStrategy => 'email') for $f, $p;
both('CREATE TABLE public.member (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), mail text); GRANT SELECT ON public.member TO PUBLIC');
both('CREATE OR REPLACE VIEW flohsync.v_user AS SELECT m.id, m.mail AS email, m.mail AS display_name, NULL::text AS upstream_issuer, NULL::text AS upstream_id, NULL::text AS sub, true AS confirmed, true AS active FROM public.member m');
settled($c, '1 2', 'their own users');
both("INSERT INTO public.member (mail) VALUES ('" . mail_of($c, 'user-0000020') . "')");
settled($c, '1 2', 'one more of their own users');
alike(matched($c) =~ s/WHERE/WHERE m.external_id = 'user-0000020' AND/r, 'user-0000020 matched', 'one more of their own users: matched');
both("CREATE OR REPLACE VIEW flohsync.v_user WITH (security_barrier) AS $view");

# Nobody is matched yet, by the rules of today: many users have changed, say.
settled($c, '1 2', 'our own users again');
both(user_row(mail_of($c, 'user-0000021')));
both('DELETE FROM _flohsync.match_progress; DELETE FROM _flohsync.user_change');
settled($c, '1 2', 'no progress');
alike(matched($c) =~ s/WHERE/WHERE m.external_id = 'user-0000021' AND/r, 'user-0000021 matched', 'no progress: all are matched again');

# Stale records that are due, of which a workflow is told
$c = begin(safeguards => {}, syncTriggerMode => 'summary', postSyncWorkflowId => $workflow);
$f->up('delete', ids => 'user-0000005,user-0000025');
$_->sync_ok($c, 'user') for $f, $p;
both('DELETE FROM flohsync.workflow_job');
settled($c, '1 2', 'not due');
is(join(' ', map { $_->counts($c, 'user') } $f, $p), '38 2 38 2', 'not due: they stay');
alike($jobs, '', 'not due: nobody is told of a pass in which nothing changed');
$_->configure($c, 'user', staleRetention => '0s') for $f, $p;
settled($c, '1 2', 'due');
is(join(' ', map { $_->counts($c, 'user') } $f, $p), '38 0 38 0', 'due: they are purged');
alike($jobs, 'summary 2', 'due: that is told');
alike("SELECT removed || ' ' || (stats ->> 'removed') FROM flohsync.sync_run WHERE id = " . last_id($c), '2 2', 'due: and counted');

# A record that is on no page
both("SELECT flohsync.upsert_resource('$c', 'user', '{\"externalId\": \"stray\"}')");
settled($c, '1 2', 'a stray record');
alike("SELECT staled || ' ' || removed FROM flohsync.sync_run WHERE id = " . last_id($c), '1 1', 'a stray record: stale and gone');
$_->invariants for $f, $p;

# A page without a record that was on it: nothing is written with it, and the others are as before.
$f->fresh(user => 95);
for my $db ($f, $p)
{
	$db->rest('shorter', 'link');
	$db->sync_ok('shorter', 'user') for 1 .. 2;
}
$f->up('delete', ids => 'user-0000095');
settled('shorter', '1 2 3 4', 'a shorter page: only the others');
alike('SELECT staled FROM flohsync.sync_run WHERE id = ' . last_id('shorter'), 1, 'a shorter page: what is gone is stale');
settled('shorter', '1 2 3 4 5', 'a shorter page: once');

#
# A pass that is cut short
#

# A new connector with 100 records, known by their fingerprints
sub known
{
	my (%settings) = @_;
	my $name = 'c' . ++$nr;
	$f->up('heal');
	$f->up('release');
	$f->fresh(user => 100);
	$f->connector($name, safeguards => { maxStaleFraction => 0.2, minRecords => 1 }, %settings);
	$f->sync_ok($name, 'user', "$name: to begin with") for 1 .. 2;
	return $name;
}

# A pass that waits for a page; what was taken until then is written, and on disk.
sub under_way
{
	my ($name, $page) = @_;
	$f->fault('hang', page => $page);
	my $run = $f->sql("SELECT flohsync.trigger_sync('$name', 'user')");
	$f->await(hanging => 1);
	$f->wait_flushed($run, $page - 1);
	return $run;
}
sub ledger { my ($run) = @_; return $f->sql("SELECT string_agg(p.page || CASE WHEN p.print IS NULL THEN '' ELSE '=' END || CASE WHEN p.seen IS NULL THEN '' ELSE '+' END, ' ' ORDER BY p.page) FROM flohsync.sync_run_page p WHERE p.run_id = $run") }
sub stale { my ($name) = @_; return $f->sql("SELECT coalesce(string_agg(r.external_id, ' ' ORDER BY r.external_id), '') " . $f->scope($name, 'user') . ' AND stale_since IS NOT NULL') }
sub goes_on
{
	my ($run, $name, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$f->up('release');
	ok($f->wait_run($run), "$what: the run ends");
	my $row = $f->run_row($run);
	is($row->{status} . ($row->{complete} ? ' complete' : ''), 'success complete', "$what: complete") or diag($row->{error} // $row->{incomplete_reason});
	$f->up('heal');
	$f->matches_upstream($name, 'user', "$what: nothing is missing");
	is($row->{stats}{totalUpstreamRecords}, 100, "$what: all records are counted");
	return is(stale($name), 'stray 1', "$what: and what was gone is stale, nothing else");
}
sub stray { my ($name, $n) = @_; return $f->sql("SELECT count(flohsync.upsert_resource('$name', 'user', jsonb_build_object('externalId', 'stray ' || i))) FROM generate_series(1, $n) i") }
sub setting { $f->sql("ALTER DATABASE postgres $_[0]") }

my %before_it_goes_on = (
	nothing => sub { '1= 2= 3= 4= 5=' },
	'fingerprints off' => sub { setting('SET flohsync.page_fingerprints = off'); '1= 2= 3= 4 5' },
	'another configuration' => sub { $f->configure($_[0], 'user', hashIgnore => ['nothing']); '1 2 3 4 5' },
	'other filters' => sub { $f->configure($_[0], 'user', filterRules => { emailDomains => [ qw(acme.com example.org corp.example) ] }); '1 2 3 4 5' },
);
for my $what (sort keys %before_it_goes_on)
{
	$c = known();
	stray($c, 1);
	my $run = under_way($c, 4);
	is(ledger($run), '1= 2= 3=', "crash, $what: what the pages have seen is not in the ledger");
	my $pages = $before_it_goes_on{$what}->($c);
	ok($f->crash($f->worker_pid), "crash, $what: the server is up again");
	goes_on($run, $c, "crash, $what");
	is(ledger($run), $pages, "crash, $what: it goes on, or begins again");
	setting('RESET flohsync.page_fingerprints');
}

$c = known();
stray($c, 1);
my $run = under_way($c, 4);
$f->node->stop('immediate');
$f->node->start;
goes_on($run, $c, 'immediate');

# What such pages have seen counts while the pass is under way.
$c = known();
my $time = $f->sql('SELECT clock_timestamp()');
$run = under_way($c, 4);
is($f->sql("SELECT flohsync.mark_stale('$c', 'user', '$time')"), 40, 'mark_stale: what the pages have seen is there');
is($f->sql("SELECT min(r.external_id) || ' ' || max(r.external_id) " . $f->scope($c, 'user') . ' AND stale_since IS NOT NULL'), 'user-0000061 user-0000100', 'mark_stale: the others are stale');
$f->up('release');
$f->wait_run($run);
is($f->run_row($run)->{stats}{restored}, 40, 'mark_stale: the pass finds them again');
$f->matches_upstream($c, 'user', 'mark_stale: all of them');

$c = known();
$f->up('delete', from => 1, to => 15);
$f->up('delete', from => 81, to => 95);
$f->sync($c, 'user');
my $held = $f->sql('SELECT ' . last_id($c));
is($f->run_row($held)->{status}, 'held', 'held: many are gone');
$f->up('restore', all => 1);
$f->fault('status', code => 403, page => 4, times => -1);
$run = under_way($c, 4);
is(ledger($run), '1= 2= 3=', 'held: the next pass takes pages');
my $changes = $f->json("SELECT flohsync.held_changes($held)");
is(join(' ', $changes->{total}, map { $_->{externalId} } @{ $changes->{data} }[ 0, -1 ]), '15 user-0000081 user-0000095', 'held: what these have seen is not among the changes');
$f->fails_like("SELECT flohsync.approve_run($held)", '55006', qr/in progress/, 'held: nobody decides meanwhile');

# That pass fails, with the ledger written; another one without fingerprints, which fails, too.
$f->up('release');
$f->wait_run($run);
$f->sync($c, 'user');
is($f->last_run($c, 'user')->{status}, 'error', 'held: a later pass fails');
$run = $f->last_run($c, 'user')->{pass_id};
like(ledger($run), qr/^1=\+ 2=\+ 3=\+/, 'held: its ledger is written');
setting('SET flohsync.page_fingerprints = off');
$f->wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'flohsync worker%'");
$f->fault('status', code => 403, page => 1, times => -1);
$f->sql("SELECT flohsync.trigger_sync('$c', 'user', 'full', true)");
$f->wait_for("SELECT status = 'error' FROM flohsync.sync_run WHERE id = " . last_id($c));
is($f->sql('SELECT count(*) FROM _flohsync.page_print WHERE config_id = (SELECT id FROM flohsync.connector_sync_config WHERE connector_id = ' . $f->connector_id($c) . ')'), 0, 'held: the fingerprints are gone');
$f->up('heal');
is($f->json("SELECT flohsync.approve_run($held)")->{staled}, 15, 'held: it is approved without them');
is($f->sql("SELECT min(r.external_id) || ' ' || max(r.external_id) " . $f->scope($c, 'user') . ' AND stale_since IS NOT NULL'), 'user-0000081 user-0000095', 'held: what a later pass has seen stays');
setting('RESET flohsync.page_fingerprints');
$f->wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'flohsync worker%'");

# A pass that fails is gone on with.
$c = known();
stray($c, 1);
$f->fault('status', code => 403, page => 4);
$f->sync_fails($c, 'user', qr/403/, 'failed: a page is refused');
$run = $f->sql('SELECT ' . last_id($c));
is(ledger($run), '1=+ 2=+ 3=+', 'failed: what the pages have seen is written then');
$f->clear_log;
$f->sync_ok($c, 'user', 'failed: the next run');
is($f->pages_asked('user'), '4 5', 'failed: goes on');
is($f->sql('SELECT pass_id = ' . $run . ' AND complete AND staled = 1 FROM flohsync.sync_run WHERE id = ' . last_id($c)), 't', 'failed: and completes the pass');
is(stale($c), 'stray 1', 'failed: nothing is stale that is there');
is($f->sql("SELECT count(*) FROM flohsync.sync_run_page p JOIN flohsync.sync_run r ON r.id = p.run_id WHERE p.seen IS NOT NULL AND r.connector_id = " . $f->connector_id($c)), 0, 'failed: no ledger is left');

# Held after pages that were taken
$c = known();
stray($c, 35);
$f->sync($c, 'user');
$held = $f->sql('SELECT ' . last_id($c));
is($f->run_row($held)->{status} . ' ' . ledger($held), 'held 1=+ 2=+ 3=+ 4=+ 5=+', 'held itself: the ledger is written');
$f->sql("UPDATE _flohsync.page_print SET seen = _flohsync.ledger_encode('{}'); DELETE FROM _flohsync.page_print_scope");
is($f->json("SELECT flohsync.approve_run($held)")->{staled}, 35, 'held itself: approved without fingerprints');
$f->matches_upstream($c, 'user', 'held itself: the others are there');
$f->sync_ok($c, 'user') for 1 .. 2;
is(not_read($c), '1 2 3 4 5', 'held itself: afterwards there are new ones');

# What is stopped, and what becomes of what its pages have seen
my %stops = (
	cancel => [ sub { $f->sql("SELECT flohsync.cancel_sync($_[1])") }, 'cancelled' ],
	disable => [ sub { $f->sql("SELECT flohsync.update_connector('$_[0]', '{\"enabled\": false}')"); $f->up('release') }, 'success' ],
	update => [ sub { $f->sql("SELECT flohsync.update_connector('$_[0]', '{\"config\": {\"conditional\": true}}')"); $f->up('release') }, 'success' ],
	delete => [ sub { $f->sql("SELECT flohsync.delete_sync_config('$_[0]', 'user')") }, 'cancelled' ],
	drop => [ sub { $f->sql("SELECT flohsync.drop_connector('$_[0]')") }, undef ],
);
for my $what (sort keys %stops)
{
	my ($stop, $status) = @{ $stops{$what} };
	$c = known();
	$time = $f->sql('SELECT clock_timestamp()');
	$run = under_way($c, 4);
	$stop->($c, $run);
	if (!defined $status)
	{
		$f->comes_true("SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name LIKE 'flohsync run%'", "$what: the worker lets go");
		is($f->sql("SELECT count(*) FROM flohsync.sync_run_page WHERE run_id = $run"), 0, "$what: nothing is left");
		next;
	}
	ok($f->wait_run($run), "$what: the run ends");
	$f->up('release');
	$f->up('heal');
	is($f->run_row($run)->{status}, $status, "$what: it is $status");
	is(ledger($run), $status eq 'success' ? '1= 2= 3= 4= 5=' : '1=+ 2=+ 3=+', "$what: the ledger");
	is($f->sql("SELECT flohsync.mark_stale('$c', 'user', '$time')"), $status eq 'success' ? 0 : 40, "$what: what its pages have seen was seen");
	$f->configure($c, 'user', safeguards => { maxStaleFraction => 0.2, minRecords => 1 });
	$f->sql("SELECT flohsync.update_connector('$c', '{\"enabled\": true}')");
	$f->sync_ok($c, 'user', "$what: the next pass");
	$f->matches_upstream($c, 'user', "$what: has everything");
	is($f->counts($c, 'user'), '100 0', "$what: nothing is stale");
	$f->sync_ok($c, 'user', "$what: the one after");
	is(not_read($c), '1 2 3 4 5', "$what: takes all pages");
}

#
# Pages that are asked for early
#

# "page:status" of each request, a question mark before it where it was conditional
sub asked
{
	return join ' ', map { ((grep { /^if-(?:none-match|modified-since)$/i } keys %{ $_->{headers} }) ? '?' : '') . "$_->{page}:$_->{status}" } $f->requests(type => 'user');
}

# What the last run says of each page
sub pages { my ($name) = @_; return $f->sql("SELECT string_agg(p.page || ': ' || concat_ws(' ', p.records, p.updated, p.unchanged), ', ' ORDER BY p.page) FROM flohsync.sync_run_page p WHERE p.run_id = " . last_id($name)) }
sub one_updated { my ($at) = @_; return join ', ', map { $_ == $at ? "$_: 20 1 19" : "$_: 20 0 20" } 1 .. 5 }
my $as_before = one_updated(0);
sub conditional
{
	my (%settings) = @_;
	my $name = known(config => { conditional => $true, %{ $settings{config} // {} } });
	$f->up('options', validator => 'etag');
	$f->sync_ok($name, 'user', "$name: with validators") for 1 .. 2;
	$f->clear_log;
	return $name;
}
sub webhook { return "SELECT flohsync.handle_webhook('$_[0]', " . Flohsync::jsonb({ action => 'updated', resourceType => 'user', resourceId => $_[1], data => { displayName => $_[2] } }) . ')' }

# The list goes on elsewhere, on an answer of the same size.  With a secret, whatever is sent
# anew wipes what was received.
$c = known();
$f->sql("SELECT flohsync.set_secret('$c', 'token', 'sesame')");
$f->up('set', id => 'user-0000025', body => '{"externalId":"user-0000025","displayName":"x"}');
$f->sync_ok($c, 'user') for 1 .. 2;
$f->clear_log;
$f->sync_ok($c, 'user');
my ($cursor) = map { $_->{asked}{cursor} } grep { $_->{page} == 3 } $f->requests(type => 'user');
$f->up('set', id => 'user-0000025', body => '{"externalId":"user-0000025","displayName":"y"}');
$f->fault('next_cursor', page => 2, json => '"' . $cursor =~ s/^o:40(.*)3$/o:60${1}4/r . '"');
$f->clear_log;
$f->sync($c, 'user');
is(asked(), '1:200 2:200 3:200 4:200 5:200', 'elsewhere: a page is asked for in vain');
is(pages($c), '1: 20 0 20, 2: 20 1 19, 3: 20 0 20, 4: 20 0 20', 'elsewhere: each page is what was sent');
is($f->sql('SELECT display_name ' . $f->scope($c, 'user') . " AND external_id = 'user-0000025'"), 'y', 'elsewhere: and what it says is stored');
is($f->counts($c, 'user'), '100 0', 'elsewhere: there is no other record');
$f->sync_ok($c, 'user');
$f->matches_upstream($c, 'user', 'elsewhere: the next pass has everything');

# Somebody writes to a page that has not changed, when the one behind it is on its way.
$c = conditional();
$f->fault('hang', page => 2);
$run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
$f->await(hanging => 1);
$f->up('change', ids => 'user-0000050', what => 'name');
$f->sql(webhook($c, 'user-0000025', 'meanwhile'));
$f->up('release');
$f->wait_run($run);
like(asked(), qr/^\?1:304 \?2:304 (?:\?3:200 )?2:200 \??3:200 \?4:304 \?5:304$/, 'dirty: the page is asked for again, and the one behind it');
is(pages($c), '1: 20 0 20, 2: 20 1 19, 3: 20 1 19, 4: 20 0 20, 5: 20 0 20', 'dirty: each page is what was sent');
$f->matches_upstream($c, 'user', 'dirty: and has everything');

# And the answer is then another one, of another size: the one behind it was not asked for again by that.
$c = conditional();
$f->fault('hang', page => 2);
$run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
$f->await(hanging => 1);
$f->up('set', id => 'user-0000030', body => '{"externalId":"user-0000030","displayName":"much shorter"}');
$f->sql(webhook($c, 'user-0000025', 'meanwhile'));
$f->up('release');
$f->wait_run($run);
is(pages($c), '1: 20 0 20, 2: 20 2 18, 3: 20 0 20, 4: 20 0 20, 5: 20 0 20', 'dirty and changed: each page is what was sent') or diag(asked());
$f->matches_upstream($c, 'user', 'dirty and changed: and has everything');

# What the way does to a request that is early
my %ways = (
	'closed behind each page' => [ [ 'close', times => -1 ] ],
	'closed behind page 2' => [ [ 'close', page => 2 ] ],
	'no answer' => [ [ 'no_answer', page => 3 ] ],
	'not served' => [ [ 'status', page => 3, code => 503 ] ],
	'served late' => [ [ 'status', page => 3, code => 429, retry_after => 0 ] ],
	'moved' => [ [ 'redirect', page => 3, code => 307, location => '/elsewhere', times => 1 ] ],
	'slow' => [ [ 'hang', page => 3, ms => 100 ] ],
);
for my $way (sort keys %ways)
{
	$c = conditional();
	$f->fault(@$_) for @{ $ways{$way} };
	$f->sync_ok($c, 'user', "$way: a pass without changes");
	is(pages($c), $as_before, "$way: each page is counted");
	is(not_read($c), '1 2 3 4 5', "$way: and not read") or diag(asked());
	$f->up('heal');
	$f->up('change', ids => 'user-0000045', what => 'name');
	$f->fault(@$_) for @{ $ways{$way} };
	$f->sync_ok($c, 'user', "$way: a page changes");
	is(pages($c), one_updated(3), "$way: and is read");
	$f->matches_upstream($c, 'user', "$way: which has everything");
}

# Cancelled while the early one is open
$c = conditional();
$run = under_way($c, 3);
$f->sql("SELECT flohsync.cancel_sync($run)");
$f->wait_run($run);
is($f->run_row($run)->{status} . ' ' . ledger($run), 'cancelled 1=+ 2=+', 'cancelled: with its ledger');
$f->up('release');
$f->up('heal');
$f->sync_ok($c, 'user', 'cancelled: the next pass');
is(pages($c) . ' ' . not_read($c), "$as_before 1 2 3 4 5", 'cancelled: begins again');

# A limit holds for them, too.
$c = conditional(config => { limits => { requests_per_minute => 600 } });
my $gaps = 'SELECT min(g) >= interval \'90 ms\' FROM (SELECT p.fetched_at - lag(p.fetched_at) OVER (ORDER BY p.page) AS g FROM flohsync.sync_run_page p WHERE p.run_id = ' . last_id($c) . ') x';
$f->sync_ok($c, 'user', 'limited: a pass without changes');
is(asked() . ' ' . $f->sql($gaps), '?1:304 ?2:304 ?3:304 ?4:304 ?5:304 t', 'limited: no request comes before its time');
$f->clear_log;
$f->fault('hang', page => 2);
$run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
$f->await(hanging => 1);
$f->sql(webhook($c, 'user-0000025', 'meanwhile'));
$f->up('release');
$f->wait_run($run);
is($f->sql($gaps), 't', 'limited: nor where one is asked for again');
cmp_ok($f->sql("SELECT extract(epoch FROM finished_at - started_at) * 1000 FROM flohsync.sync_run WHERE id = $run"), '>=', 95 * (scalar($f->requests(type => 'user')) - 1), 'limited: in all');
is(pages($c), one_updated(2), 'limited: each page is what was sent');

$f->up('heal');
$_->invariants for $f, $p;
my @panics = grep { /PANIC|TRAP:|signal (?!9)\d+|ledger of .* incomplete/ } split /\n/, PostgreSQL::Test::Utils::slurp_file($f->node->logfile);
is(join("\n", @panics), '', 'no process died of anything but our kills, and no ledger was incomplete');
done_testing();
