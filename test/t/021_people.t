# What follows a pass: users are created, deactivated and reactivated, profiles
# are filled, and each looks only at what it has to.
use strict;
use warnings;

use Flohsync;
use People;
use Test::More;

People::start();

#
# Creating
#

begin({ createUsers => \1, createUserDefaults => { location => 'Remote', startDate => '2024-02-29', badge => 7 } });
user('Taken@other.example', iss => 'https://elsewhere');
user('left@example.com', deleted_at => '2026-01-01');
person('1', ' New@Example.com ', name => 'New One');
person('2', 'taken@OTHER.example');
person('3', 'left@example.com');
person('4', undef);
person('5', '');
person('6', 'twin@example.com');
person('7', 'TWIN@example.com');
is(one_pass(), 'success', 'users are created');
is(matches(),
	'1 matched exact New@Example.com, 2 matched exact Taken@other.example, 3 create_pending none, 4 unmatched none, 5 unmatched none, 6 matched exact twin@example.com, 7 create_pending none',
	'each record has what is due to it; a soft-deleted user is neither matched nor made again');
is_deeply([ @{ report() }{qw(usersCreated createPending)} ], [ 2, 2 ], 'and the report says so');
like(errors(), qr/^3: create_user: the e-mail address belongs to user \S+ of issuer \S+, who is deleted\n7: create_user: another record has the same e-mail address$/,
	'the rows that could not be done are errors of their own');
is($f->sql("select iss || ' ' || sub || ' ' || confirmed || ' ' || display_name from flohsync.floh_user where email = 'New\@Example.com'"),
	'- New@Example.com false New One', 'a user who was created is not confirmed');
is_deeply(profile('New@Example.com'),
	{ title => undef, department => undef, phone_number => undef, location => 'Remote', employee_id => undef, cost_center => undef,
	  start_date => '2024-02-29', manager_id => undef, custom_attributes => { badge => 7 },
	  attribute_sources => { location => 'connector', startDate => 'connector', badge => 'connector' } },
	'createUserDefaults are in the profile, with their source');
is($f->sql("select count(*) from flohsync.user_profile p join flohsync.floh_user u on u.id = p.user_id where u.email = 'Taken\@other.example'"), 0,
	'but only in that of users who were created');
one_pass();
is($f->sql("select match_status || ' ' || coalesce(match_strategy, '-') from flohsync.connector_sync_match where external_id = '7' and connector_id = " . $f->connector_id($c)),
	'matched email', 'the second record of a new user is matched to him after the next pass');
$f->sql("update flohsync.user_profile set location = 'Berlin' where location = 'Remote'");
my $before = versions();
one_pass();
is(versions(), $before, 'a pass without changes writes nothing');
is(profile('New@Example.com')->{location}, 'Berlin', 'createUserDefaults are written once');

# A record that was somebody's before is not made into a second person.
begin({ createUsers => \1 });
user('jane.doe@example.com');
person('1', 'jane.doe@example.com');
one_pass();
person('1', 'jane.smith@example.com');
one_pass();
is(matches(), '1 create_pending none', 'a record whose e-mail address does not find its user any more waits for an operator');
like(errors(), qr/^1: create_user: the record was linked to user \S+ before$/, 'who is told whose it was');
is($f->sql("select count(*) from flohsync.floh_user where email like 'jane.%'"), 1, 'and no second user is made of it');

# The external id says nothing about a user who was created from the record, and yet the link holds.
begin({ createUsers => \1, userMatchStrategy => 'external_id' });
person('abc', 'abc@example.com');
one_pass();
is(matches(), 'abc matched exact abc@example.com', 'strategy external_id: a user is created');
person('abc', 'abc@example.com', title => 'changed');
one_pass();
$f->json("select flohsync.match_users('$c', 'user')");
is(matches(), 'abc matched exact abc@example.com', 'and his link outlives the next passes');

#
# Users who change
#

begin({});
person($_, "$_\@change.example") for qw(a b c);
one_pass();
is(matches(), 'a unmatched none, b unmatched none, c unmatched none', 'nobody is there yet');
my $a = user('a@change.example');
user('x@change.example');
one_pass();
is($f->last_run($c, 'user')->{stats}{unchanged}, 3, 'the records did not change');
is(matches(), 'a matched exact a@change.example, b unmatched none, c unmatched none', 'a user who appears is matched after an unchanged pass');
$f->sql("update flohsync.floh_user set email = 'B\@change.example' where email = 'x\@change.example'");
one_pass();
is(matches(), 'a matched exact a@change.example, b matched exact B@change.example, c unmatched none', 'so is one who changes');
$f->sql("update flohsync.floh_user set email = 'C\@change.example' where email = 'B\@change.example'");
one_pass();
is(matches(), 'a matched exact a@change.example, b unmatched none, c matched exact C@change.example', 'he leaves one record and gets another');
is($f->sql("select string_agg(external_id, ' ' order by external_id) from flohsync.user_external_identity where connector_id = " . $f->connector_id($c)),
	'a c', 'identities are kept in step');
user('c@change.example', iss => 'https://second');
one_pass();
like(matches(), qr/c ambiguous ambiguous$/, 'a second user with the address makes it ambiguous');
$f->sql("update flohsync.floh_user set deleted_at = now() where email = 'c\@change.example'");
one_pass();
like(matches(), qr/c matched exact C\@change\.example$/, 'until he is soft-deleted');
$f->sql("delete from flohsync.floh_user where id = '$a'");
is(matches() =~ s/,.*//r, 'a unmatched none', 'a user who is deleted leaves his match at once');
is($f->sql("select count(*) from flohsync.user_external_identity where user_id = '$a'"), 0, 'and his identity');

# A user's transaction that is open while a pass goes by is not missed.
my $s = $f->start_sql("begin; insert into flohsync.floh_user (iss, sub, email, display_name, confirmed) values ('https://slow', 's', 'b\@change.example', 'B', true); select pg_sleep(3); commit");
$f->comes_true("select count(*) = 1 from pg_stat_activity where wait_event = 'PgSleep'", 'a transaction that adds a user is open');
person('d', 'd@change.example');
one_pass();
like(matches(), qr/b unmatched none/, 'a pass does not see it');
$f->finish($s);
one_pass();
like(matches(), qr/b matched exact b\@change\.example/, 'the next one does');

# Upserted singly, a record is matched by the next pass.
user('single@change.example');
$f->sql("select flohsync.upsert_resource('$c', 'user', '{\"externalId\": \"e\", \"email\": \"single\@change.example\"}')");
person('e', 'single@change.example', name => undef);
one_pass();
like(matches(), qr/e matched exact single\@change\.example/, 'a record that was upserted before the pass is matched');

# Other rules count for all records.
$f->configure($c, 'user', userMatchStrategy => 'upstream_identity', userMatchFallbackStrategies => ['email']);
one_pass();
like(matches(), qr/^a unmatched none, b matched probable b\@change\.example/, 'after a change of strategy an unchanged pass matches all of them anew');

#
# Leaving and coming back
#

begin({ deactivateUsers => \1, safeguards => { minRecords => 3, maxStaleFraction => undef } });
my $other = $c;
begin({ deactivateUsers => \1, safeguards => { minRecords => 3, maxStaleFraction => undef }, staleRetention => '0s' });
for my $n (1 .. 20)
{
	user("p$n\@leave.example");
	person($n, "p$n\@leave.example");
}
$f->sql("insert into public.people select '$other', id, name, mail, attrs from public.people where directory = '$c' and id = '2'");
one_pass();
$f->sync($other, 'user');
$f->sql("update flohsync.floh_user set active = false where email = 'p3\@leave.example'");
gone(1, 2, 3);
is(one_pass(), 'success', 'three people leave');
is(join(' ', map { state_of("p$_\@leave.example") } 1 .. 4), 'deleted active inactive active',
	'who has left is soft-deleted; who is in another directory is not, and who was inactive already stays as he is');
is($f->sql("select deactivated_by_run = (select max(id) from flohsync.sync_run) from flohsync.floh_user where email = 'p1\@leave.example'"), 't', 'by this run');
is($f->sql("select count(*) from flohsync.resource_record where connector_id = " . $f->connector_id($c)), 17,
	'though their records were purged in the same run');
$f->sql("delete from public.people where directory = '$other'");
$f->sync($other, 'user');
People::allow_empty($other);
is(state_of('p2@leave.example'), 'deleted', 'who leaves the last directory is deactivated');
person(1, 'p1@leave.example');
$f->sql("insert into public.people values ('$other', '2', 'Second', 'p2\@leave.example', '{}')");
$f->sql("update flohsync.floh_user set deleted_at = now(), active = false where email = 'p4\@leave.example'");
one_pass();
$f->sync($other, 'user');
is(join(' ', map { state_of("p$_\@leave.example") } 1, 2, 4), 'active active deleted',
	'who comes back is reactivated, even after his record was purged; whom somebody else deleted is not');
like(matches(), qr/^1 matched exact p1\@leave\.example/, 'and is matched again');
like(matches(), qr/, 4 unmatched none/, 'a record whose user was deleted by hand is unmatched');

# A human's word: restored and deleted again by hand, he is not ours any more.
gone(1);
one_pass();
is(state_of('p1@leave.example'), 'deleted', 'left again');
$f->sql("update flohsync.floh_user set deleted_at = null, active = true where email = 'p1\@leave.example'");
is($f->sql("select deactivated_by_run is null from flohsync.floh_user where email = 'p1\@leave.example'"), 't', 'restored by hand, the run is forgotten');
$f->sql("update flohsync.floh_user set deleted_at = now(), active = false where email = 'p1\@leave.example'");
person(1, 'p1@leave.example');
one_pass();
is(state_of('p1@leave.example'), 'deleted', 'whom somebody deleted by hand no sync brings back');

# The safeguard
gone(5 .. 10);
is(one_pass(), 'held', 'too many would be deactivated: the run is held');
like($f->last_run($c, 'user')->{error}, qr/^would deactivate 6 of 1\d active users \(\d+\.\d %\), more than the safeguard of 5\.0 % allows$/, 'with the figures');
is($f->json("select flohsync.sync_config('$c', 'user')")->{lastSyncStatus}, 'error', 'the configuration says error');
is(join(' ', map { state_of("p$_\@leave.example") } 5 .. 10), join(' ', ('active') x 6), 'nobody was');
is($f->sql("select count(*) from flohsync.resource_record where stale_since is not null and connector_id = " . $f->connector_id($c)), 6,
	'and the records that tell it are still there, retention or not');
is(one_pass(), 'held', 'the next pass, in which nothing changed, is held as well');
my $run = $f->last_run($c, 'user')->{id};
person(5, 'p5@leave.example');
my $answer = $f->json("select flohsync.approve_run($run)");
is($answer->{status}, 'success', 'approved');
is(join(' ', map { state_of("p$_\@leave.example") } 5 .. 10), join(' ', ('deleted') x 6), 'they are deactivated');
is($answer->{stats}{postSync}{usersDeactivated}, 6, 'as the answer says');
is(one_pass(), 'success', 'the next pass is not held');
{
	my $stats = $f->json("select flohsync.match_stats('$c', 'user')");
	my $told = $f->last_run($c, 'user')->{stats}{postSync}{matches};
	delete $stats->{resourceType};
	cmp_ok($told->{matched}, '>', 3, 'the statistics of the run tell how the matches stand');
	is(json_text($told), json_text($stats), 'as match_stats does');
}
is(state_of('p5@leave.example'), 'active', 'and brings back who is there again');
gone(11 .. 15);
is(one_pass(), 'held', 'held again');
$run = $f->last_run($c, 'user')->{id};
$f->sql("select flohsync.reject_run($run, 'the directory is wrong')");
is(one_pass(), 'success', 'rejected: the next pass does not ask again');
is(join(' ', map { state_of("p$_\@leave.example") } 11 .. 15), join(' ', ('active') x 5), 'and leaves them');

# Held for staling: nobody is created or deactivated before somebody has looked.
begin({ createUsers => \1, deactivateUsers => \1, safeguards => { minRecords => 2, maxDeactivateFraction => undef } });
person($_, "old$_\@renumber.example") for 1 .. 5;
one_pass();
gone(1 .. 5);
person($_, "new$_\@renumber.example") for 6 .. 8;
is(one_pass(), 'held', 'every id is new: held');
like($f->last_run($c, 'user')->{error}, qr/; 5 users have such a record$/, 'the message says how many people it is about');
like(matches(), qr/6 create_pending none, 7 create_pending none, 8 create_pending none/, 'users are not created meanwhile');
is(state_of('old1@renumber.example'), 'active', 'nor deactivated');
$run = $f->last_run($c, 'user')->{id};
$f->json("select flohsync.approve_run($run)");
is(state_of('old1@renumber.example') . ' ' . state_of('new6@renumber.example'), 'deleted active', 'approved: both');
like(matches(), qr/6 matched exact new6\@renumber\.example/, 'and linked');

# Two directories, of which one does not deactivate: the other one does when the last record goes.
begin({});
my $quiet = $c;
begin({ deactivateUsers => \1, safeguards => { maxStaleFraction => undef, maxDeactivateFraction => undef } });
user('both@two.example');
person(1, 'both@two.example');
person(2, 'other@two.example');
$f->sql("insert into public.people select '$quiet', id, name, mail, attrs from public.people where directory = '$c'");
one_pass();
$f->sync($quiet, 'user');
gone(1);
one_pass();
is(state_of('both@two.example'), 'active', 'who is still in another directory stays');
$f->sql("delete from public.people where directory = '$quiet' and id = '1'");
$f->sync($quiet, 'user');
one_pass();
is(state_of('both@two.example'), 'deleted', 'until he leaves that one, though it does not deactivate by itself');

# A deactivation that waits is not lost while another run is held for staling.
begin({ deactivateUsers => \1, safeguards => { minRecords => 2, maxStaleFraction => undef } });
user("w$_\@wait.example"), person($_, "w$_\@wait.example") for 1 .. 10;
one_pass();
gone(1 .. 3);
is(one_pass(), 'held', 'three of ten would be deactivated');
$f->configure($c, 'user', safeguards => { maxStaleFraction => 0.2 });
gone(4 .. 7);
is(one_pass(), 'held', 'then four more would be marked stale');
$f->json('select flohsync.approve_run(' . $f->last_run($c, 'user')->{id} . ')');
is(join(' ', map { state_of("w$_\@wait.example") } 1 .. 8), join(' ', ('deleted') x 7, 'active'), 'approved: all seven have left');

# deactivateUsers switched on later looks at who has left before.
begin({});
user('early@leaver.example');
person(1, 'early@leaver.example');
person(2, 'stays@leaver.example');
one_pass();
gone(1);
one_pass();
$f->configure($c, 'user', deactivateUsers => \1);
one_pass();
is(state_of('early@leaver.example'), 'deleted', 'deactivateUsers counts for those who left before it was switched on');

#
# Attributes
#

my @rules = (
	{ sourcePath => 'attributes.department', targetField => 'department', writeMode => 'overwrite_always' },
	{ sourcePath => 'attributes.job.title', targetField => 'title', writeMode => 'overwrite_if_empty' },
	{ sourcePath => 'attributes.phone', targetField => 'phoneNumber', writeMode => 'overwrite_always' },
	{ sourcePath => 'attributes.site', targetField => 'location', writeMode => 'never_overwrite' },
	{ sourcePath => 'externalId', targetField => 'employeeId', writeMode => 'overwrite_always' },
	{ sourcePath => 'attributes.cost', targetField => 'costCenter', writeMode => 'overwrite_always' },
	{ sourcePath => 'attributes.start', targetField => 'startDate', writeMode => 'overwrite_always' },
	{ sourcePath => 'attributes.manager', targetField => 'managerId', writeMode => 'overwrite_always' },
	{ sourcePath => 'displayName', targetField => 'nickName', writeMode => 'overwrite_always' },
	{ sourcePath => 'attributes.tags', targetField => 'tags', writeMode => 'overwrite_always' },
	{ sourcePath => 'attributes.off', targetField => 'off', writeMode => 'overwrite_always', enabled => \0 },
	{ sourcePath => 'attributes.off', targetField => 'shouted', writeMode => 'overwrite_always', transform => 'upper' },
	{ sourcePath => 'attributes.off', targetField => 'plain', writeMode => 'overwrite_always', transform => '' },
	{ sourcePath => 'attributes.first', targetField => 'twice', writeMode => 'overwrite_if_empty' },
	{ sourcePath => 'attributes.second', targetField => 'twice', writeMode => 'overwrite_if_empty' });
begin({ attributeMappings => \@rules });
my $boss = user('boss@map.example');
my $jane = user('jane@map.example');
user('empty@map.example');
person('boss', 'boss@map.example');
person('jane', 'jane@map.example', name => 'Jane', department => 'R&D', job => { title => 'Engineer' }, phone => 41, site => 'Bern', cost => 'CC "7" \\',
	start => '2024-02-29T08:00:00Z', manager => 'boss', tags => [ 'a', { b => 1 } ], off => 'x', first => ' ', second => 'two');
person('empty', 'empty@map.example', name => undef, department => undef, start => '');
one_pass();
is_deeply(profile('jane@map.example'),
	{ title => 'Engineer', department => 'R&D', phone_number => '41', location => undef, employee_id => 'jane', cost_center => 'CC "7" \\',
	  start_date => '2024-02-29', manager_id => $boss, custom_attributes => { nickName => 'Jane', tags => [ 'a', { b => 1 } ], plain => 'x', twice => 'two' },
	  attribute_sources => { map { $_ => 'connector' } qw(title department phoneNumber employeeId costCenter startDate managerId nickName tags plain twice) } },
	'every field, with its source; disabled, transforming and never-writing rules write nothing');
is(errors(), '', 'without an error');
is_deeply([ @{ profile('empty@map.example') }{qw(department start_date employee_id)} ], [ undef, undef, 'empty' ], 'what a record does not have is not written');
$f->sql("update flohsync.user_profile set title = 'Boss of all', department = 'Marketing', attribute_sources = attribute_sources || '{\"title\": \"manual\", \"department\": \"manual\"}'
	where user_id = '$jane'");
$before = versions();
one_pass();
is(versions(), $before, 'an unchanged pass writes no profile');
person('jane', 'jane@map.example', name => 'Jane', department => 'Sales', job => { title => 'Manager' }, start => '2024-02-30', phone => { no => 'text' }, manager => 'nobody');
one_pass();
is_deeply([ @{ profile('jane@map.example') }{qw(title department start_date manager_id phone_number)} ], [ 'Boss of all', 'Sales', '2024-02-29', $boss, '41' ],
	'overwrite_always overwrites, overwrite_if_empty does not, and what is of the wrong type is left out');
is_deeply([ @{ profile('jane@map.example')->{attribute_sources} }{qw(title department)} ], [ 'manual', 'connector' ], 'the sources tell who wrote what');
is(join("\n", sort split /\n/, errors()), "jane: mapping: managerId: 'nobody' is no user\njane: mapping: phoneNumber: a object is not a string\njane: mapping: startDate: '2024-02-30' is not a date",
	'each value that was refused is an error of its own');
$f->sql("update flohsync.user_profile set title = '  ' where user_id = '$jane'");
$f->configure($c, 'user', attributeMappings => [ $rules[1] ]);
one_pass();
is(profile('jane@map.example')->{title}, 'Manager', 'a blank value counts as empty, and new rules count for records that did not change');
my $match = $f->sql("select id from flohsync.connector_sync_match where external_id = 'jane' and connector_id = " . $f->connector_id($c));
$f->sql("select flohsync.resolve_match('$match', 'link', '$boss')");
one_pass();
is(profile('boss@map.example')->{title}, 'Manager', 'who is linked by an operator gets the attributes with the next pass');

#
# Failures
#

begin({ createUsers => \1, attributeMappings => [ $rules[0] ] });
one_pass();
$f->sql("alter function flohsync._profile_update(uuid[], jsonb[], text) rename to profile_update_kept;
	create function flohsync._profile_update(uuid[], jsonb[], text) returns setof uuid language plpgsql as 'begin raise exception ''profiles are on fire''; end'");
person(1, 'fire@fail.example', department => 'Fire');
is(one_pass(), 'success', 'a stage that fails does not fail the run');
is($f->sql("select count(*) from flohsync.sync_error where error_class = 'post_sync' and message = 'map: profiles are on fire'"), 1, 'it is recorded');
is(report()->{errors}[0]{stage}, 'map', 'and in the statistics');
is(matches(), '1 matched exact fire@fail.example', 'the other stages are done');
$f->sql("drop function flohsync._profile_update(uuid[], jsonb[], text); alter function flohsync.profile_update_kept(uuid[], jsonb[], text) rename to _profile_update");
one_pass();
is(profile('fire@fail.example')->{department}, 'Fire', 'what failed is done after the next pass, though nothing changed');

begin({ deactivateUsers => \1, staleRetention => '0s', safeguards => { maxStaleFraction => undef, maxDeactivateFraction => undef } });
user('gone@fail.example');
person(1, 'gone@fail.example');
one_pass();
gone(1);
$f->sql("alter function flohsync._user_deactivate(uuid[], bigint) rename to user_deactivate_kept;
	create function flohsync._user_deactivate(uuid[], bigint) returns setof uuid language plpgsql as 'begin raise exception ''not today''; end'");
is(one_pass(), 'success', 'a deactivation that fails does not fail the run');
is(state_of('gone@fail.example') . ' ' . matches(), 'active 1 matched exact gone@fail.example', 'the record that tells of it is kept, whatever the retention');
$f->sql("drop function flohsync._user_deactivate(uuid[], bigint); alter function flohsync.user_deactivate_kept(uuid[], bigint) rename to _user_deactivate");
one_pass();
is(state_of('gone@fail.example') . ' ' . (matches() || 'no record'), 'deleted no record', 'after the next pass he is deactivated, and the record purged');

# Bad settings
my %bad = (
	'an unknown mode' => [ { attributeMappings => [ { sourcePath => 'email', targetField => 'mail', writeMode => 'sometimes' } ] }, qr/attributeMappings\[0\]\.writeMode/ ],
	'an unsafe path' => [ { attributeMappings => [ { sourcePath => 'attributes.__proto__.x', targetField => 'mail' } ] }, qr/unsafe segment/ ],
	'a path into an array' => [ { attributeMappings => [ { sourcePath => 'attributes.list.-1', targetField => 'mail' } ] }, qr/counts in an array/ ],
	'a path of nothing' => [ { attributeMappings => [ { sourcePath => 'password', targetField => 'mail' } ] }, qr/does not start at/ ],
	'a path for the issuer' => [ { issuerSourcePath => 'attributes.constructor' }, qr/issuerSourcePath.*unsafe segment/ ],
	'a target that is no profile field' => [ { attributeMappings => [ { sourcePath => 'email', targetField => 'email' } ] }, qr/targetField.*not a profile field/ ],
	'a target in the wrong spelling' => [ { attributeMappings => [ { sourcePath => 'email', targetField => 'phone_number' } ] }, qr/"phoneNumber"/ ],
	'a default of the wrong type' => [ { createUserDefaults => { startDate => 'soon' } }, qr/createUserDefaults\.startDate.*not a date/ ],
	'a workflow that does not exist' => [ { postSyncWorkflowId => '7e9a9a54-0000-4000-8000-000000000000' }, qr/postSyncWorkflowId/ ],
);
my $config = $f->sql("select flohsync.sync_config('$c', 'user')");
for my $what (sort keys %bad)
{
	my ($settings, $message) = @{ $bad{$what} };
	$f->fails_like("select flohsync.configure_sync('$c', 'user', " . Flohsync::jsonb($settings) . ')', '22023', $message, "$what is refused");
}
is($f->sql("select flohsync.sync_config('$c', 'user')"), $config, 'and nothing was changed by it');

# Other types are not matched, unless their settings are about users.
$f->sql("select flohsync.update_connector('$c', jsonb_build_object('config', jsonb_build_object('queries', jsonb_build_object('group', 'select ''g'' as external_id, null as display_name, ''fire\@fail.example'' as email, null::jsonb as attributes'))))");
$f->configure($c, 'group');
$f->sync($c, 'group');
is($f->sql("select count(*) from flohsync.connector_sync_match where resource_type = 'group'"), 0, 'groups are not matched');
$f->configure($c, 'group', userMatchStrategy => 'email_and_issuer', userMatchFallbackStrategies => ['email']);
$f->sync($c, 'group');
is($f->sql("select match_status from flohsync.connector_sync_match where resource_type = 'group'"), 'matched', 'but where the settings say so, any type is');

$f->invariants;
$f->no_crash;
done_testing();
