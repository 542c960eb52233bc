# People, in the corners: what comes between, what fails half way, what many at
# once cost, and what nobody may lose by it.
use strict;
use warnings;

use Flohsync;
use People;
use Test::More;
use Time::HiRes qw(time);

People::start(upstream => 0, conf => "autovacuum = off\n");

my %free = (maxStaleFraction => undef, maxDeactivateFraction => undef);
my $GATE = 'flohsync test gate';

sub leavers { return { deactivateUsers => \1, safeguards => {%free}, @_ } }
sub match_id { return $f->sql("select id from flohsync.connector_sync_match where external_id = '$_[0]' and connector_id = " . $f->connector_id($c)) }
sub match_of { return $f->sql("select concat_ws(' ', match_status, match_confidence, candidate_user_ids -> 0 ->> 'reason') from flohsync.connector_sync_match
	where external_id = '$_[0]' and connector_id = " . $f->connector_id($c)) }
sub match_now { return $f->json("select flohsync.match_users('$c', 'user')") }

# A transaction that has done something and commits when it is told to.
sub held_open
{
	my ($sql) = @_;
	$f->sql("select pg_advisory_lock(hashtext('$GATE'))");
	my $h = $f->start_sql("begin; $sql; select pg_advisory_xact_lock(hashtext('$GATE')); commit");
	$f->wait_for("select exists (select from pg_locks where locktype = 'advisory' and not granted and pid <> pg_backend_pid())") or die 'it does not wait';
	return $h;
}
sub let_go
{
	my ($h) = @_;
	$f->sql("select pg_advisory_unlock(hashtext('$GATE'))");
	return $f->finish($h);
}
# Somebody waits for who waits for the gate.
sub waits_for_it { return $f->wait_for("select exists (select from pg_stat_activity a join pg_stat_activity h on h.pid = any (pg_blocking_pids(a.pid))
	where a.wait_event_type = 'Lock' and h.wait_event_type = 'Lock' and h.wait_event = 'advisory')") }

#
# Who leaves, and comes back
#

begin(leavers(createUsers => \1));
person(1, 'made@back.example');
person(2, 'other@back.example');
user('taken@back.example', deleted_at => '2026-01-01');
person(3, 'taken@back.example');
one_pass();
gone(1);
one_pass();
is(state_of('made@back.example'), 'deleted', 'a user made from a record leaves with it');
one_pass();
match_now();
person(1, 'made@back.example');
one_pass();
is(state_of('made@back.example') . ' ' . match_of(1), 'active matched exact', 'and is back with it, whatever was matched meanwhile');

begin(leavers());
user('soon@back.example');
person(1, 'soon@back.example');
one_pass();
gone(1);
one_pass();
$f->sql("select flohsync.upsert_resource('$c', 'user', '{\"externalId\": \"1\", \"email\": \"soon\@back.example\"}')");
is(match_now()->{usersReactivated}, 1, 'match_users brings him back whose record came back before it');
is(state_of('soon@back.example') . ' ' . match_of(1), 'active matched exact', 'as a pass would');

begin(leavers());
user('kept@restore.example');
person(1, 'kept@restore.example');
person(2, 'other@restore.example');
one_pass();
gone(1);
one_pass();
$f->sql("update flohsync.floh_user set deleted_at = null, active = true where email = 'kept\@restore.example'");
one_pass();
is(state_of('kept@restore.example'), 'active', 'whom somebody restores, the next pass leaves alone');
$f->configure($c, 'user', attributeMappings => [ { sourcePath => 'email', targetField => 'mail' } ]);
one_pass();
is(state_of('kept@restore.example'), 'active', 'and so does one that looks at everybody');
person(1, 'kept@restore.example');
one_pass();
gone(1);
one_pass();
is(state_of('kept@restore.example'), 'deleted', 'but when the record goes again, he leaves');

begin(leavers());
person(1, 'late@comer.example');
one_pass();
gone(1);
one_pass();
user('late@comer.example');
one_pass();
is(state_of('late@comer.example') . ' ' . match_of(1), 'active matched exact', 'a user who comes to a record that went before does not leave by it');

begin(leavers(safeguards => { minRecords => 1, maxStaleFraction => undef }));
user("r$_\@reject.example"), person($_, "r$_\@reject.example") for 1 .. 6;
one_pass();
gone(1 .. 3);
is(one_pass(), 'held', 'three of six would be deactivated');
$f->sql('select flohsync.reject_run(' . $f->last_run($c, 'user')->{id} . ')');
$f->configure($c, 'user', attributeMappings => [ { sourcePath => 'email', targetField => 'mail' } ]);
is(one_pass() . ' ' . state_of('r1@reject.example'), 'success active', 'once rejected, they are not asked about again, not even when everybody is looked at');

# He has a record here, which is stale, and another one, which goes in some other way than by staling.
my %ways = (
	'is skipped' => sub { $f->sql("select flohsync.resolve_match('" . match_id(1) . "', 'skip')") },
	'belongs to somebody else now' => sub { user('somebody@else.example'); person(1, 'somebody@else.example'); one_pass() },
	'goes with its connector' => sub { $f->sql("select flohsync.drop_connector('$c')") },
);
for my $way (sort keys %ways)
{
	begin(leavers());
	my $here = $c;
	user('two@ways.example');
	person(1, 'two@ways.example');
	person(2, 'other@ways.example');
	one_pass();
	begin({});
	person(1, 'two@ways.example');
	one_pass();
	my $there = $c;
	$c = $here;
	gone(1);
	one_pass();
	is(state_of('two@ways.example'), 'active', 'who has another record stays');
	$c = $there;
	$ways{$way}->();
	$c = $here;
	one_pass();
	is(state_of('two@ways.example'), 'deleted', "until the other one $way");
	$f->sql("delete from flohsync.floh_user where email like '%ways.example' or email = 'somebody\@else.example'; select flohsync.drop_connector('$here')");
	$f->try_sql("select flohsync.drop_connector('$there')");
}

# An id that is given to somebody else, after its record was purged.
begin(leavers(staleRetention => '0s'));
user("$_\@reuse.example") for qw(old new);
person(7, 'old@reuse.example');
person(8, 'other@reuse.example');
one_pass();
gone(7);
one_pass();
person(7, 'new@reuse.example');
one_pass();
is(state_of('old@reuse.example') . ' ' . matches(), 'deleted 7 matched exact new@reuse.example, 8 unmatched none', 'an id that is given to somebody else brings nobody back');

#
# What a pass does to users is seen by the other records
#

begin(leavers(userMatchStrategy => 'upstream_identity', userMatchFallbackStrategies => ['email']));
user('same@x.example', upstream_id => 'A');
user('same@x.example', iss => 'https://other', sub => 'other');
person('A', 'a@x.example');
person('C', 'same@x.example');
one_pass();
is(match_of('C'), 'ambiguous ambiguous email', 'two users have an address');
gone('A');
one_pass();
one_pass();
is(match_of('C'), 'matched probable', 'when one of them leaves, it is the other one\'s');

begin({ createUsers => \1, userMatchFallbackStrategies => ['external_id'] });
person(1, 'fresh@x.example');
person('fresh@x.example', undef);
one_pass();
one_pass();
is(match_of('fresh@x.example'), 'matched probable', 'a user who was created is found by other records, too');

#
# Records and matches that wait
#

begin({ createUsers => \1 });
my $jane = user('jane@wait.example');
person(1, 'jane@wait.example');
one_pass();
person(1, 'jane.new@wait.example');
one_pass();
is(match_of(1), 'create_pending none former_link', 'a record that was somebody\'s before waits');
$f->sql("delete from flohsync.floh_user where id = '$jane'");
one_pass();
is(match_of(1) . ' ' . state_of('jane.new@wait.example'), 'matched exact active', 'until that user is gone');
user('blocked@wait.example', deleted_at => '2026-01-01');
person(2, 'blocked@wait.example');
one_pass();
is(match_of(2), 'create_pending none', 'a record whose address is taken waits');
person(2, undef);
one_pass();
is(match_of(2), 'unmatched none', 'but not without an address');
person(2, 'blocked@wait.example');
one_pass();
$f->configure($c, 'user', createUsers => \0);
match_now();
is(match_of(2), 'unmatched none', 'nor where no users are created');

begin({ createUsers => \1, attributeMappings => [ { sourcePath => 'attributes.d', targetField => 'department', writeMode => 'overwrite_always' } ] });
$f->sql("select flohsync.upsert_resource('$c', 'user', '{\"externalId\": \"s\", \"email\": \"stale\@wait.example\"}'); select flohsync.mark_stale('$c', 'user', now() + interval '1 hour')");
user('mapped@wait.example');
person(1, 'mapped@wait.example', d => 'One');
one_pass();
is(match_of('s') . ' ' . ($f->sql("select count(*) from flohsync.floh_user where email = 'stale\@wait.example'")), 'unmatched none 0', 'nobody is made of a stale record');
$f->sql("update flohsync.resource_record set attributes = '{\"d\": \"Two\"}', stale_since = now() where external_id = '1' and connector_id = " . $f->connector_id($c)
	. "; select _flohsync.note_changes(" . $f->connector_id($c) . ", 'user', array(select id from flohsync.resource_record where external_id = '1' and connector_id = " . $f->connector_id($c) . "), 'recheck')");
$f->sql("delete from public.people where directory = '$c'");
one_pass();
is(profile('mapped@wait.example')->{department}, 'One', 'nor is a profile filled from one');
person(1, 'mapped@wait.example', d => 'x' x 4200);
one_pass();
like(errors(), qr/department: the value is larger than 4096 bytes/, 'a value may be too large');

#
# Two at a time
#

begin({ attributeMappings => [ map { { sourcePath => "attributes.$_", targetField => $_, writeMode => 'overwrite_if_empty' } } qw(title department) ] });
my $u = user('profile@race.example');
person(1, 'profile@race.example', title => 'Engineer', department => 'R&D');
my $h = held_open("insert into flohsync.user_profile (user_id, location) values ('$u', 'Bern')");
my $pass = $f->start_sql("call flohsync.sync('$c', 'user')");
ok(waits_for_it(), 'a pass waits for a profile that somebody makes');
let_go($h);
$f->finish($pass);
is(join(' ', map { $_ // '-' } @{ profile('profile@race.example') }{qw(title department location)}), 'Engineer R&D Bern', 'and fills what is empty in it');
$f->sql("update flohsync.user_profile set title = null where user_id = '$u'");
$h = held_open("update flohsync.user_profile set title = 'By hand', attribute_sources = attribute_sources || '{\"title\": \"manual\"}' where user_id = '$u'");
person(1, 'profile@race.example', title => 'Engineer', department => 'R&D', more => 1);
$pass = $f->start_sql("call flohsync.sync('$c', 'user')");
ok(waits_for_it(), 'or changes');
let_go($h);
$f->finish($pass);
is(profile('profile@race.example')->{title} . ' ' . profile('profile@race.example')->{attribute_sources}{title}, 'By hand manual', 'what is not empty by then stays');

begin({});
person(1, 'one@race.example');
one_pass();
$f->sql("select flohsync.resolve_match('" . match_id(1) . "', 'skip')");
person(1, 'other@race.example');
$h = held_open("select flohsync.unlink_match('" . match_id(1) . "')");
$pass = $f->start_sql("select flohsync.upsert_resource('$c', 'user', '{\"externalId\": \"1\", \"email\": \"third\@race.example\"}'); select flohsync.match_users('$c', 'user')");
ok(waits_for_it(), 'matching waits for an operator');
let_go($h);
$f->finish($pass);
is(match_of(1), 'unmatched none', 'whose unlinking it does not undo');

my $gone = user('gone@race.example');
$h = held_open("select flohsync.resolve_match('" . match_id(1) . "', 'link', '$gone')");
my $deletion = $f->start_sql("delete from flohsync.floh_user where id = '$gone'");
ok(waits_for_it(), 'who deletes a user waits for who links him');
let_go($h);
$f->finish($deletion);
is(match_of(1) . ' ' . $f->sql("select count(*) from flohsync.user_external_identity where user_id = '$gone'"), 'unmatched none 0', 'and the link goes with the user');

begin({});
my $first = $c;
person(1, 'Both@race.example');
one_pass();
my $one = match_id(1);
begin({});
person(1, 'both@race.example');
one_pass();
$h = held_open("select flohsync.resolve_match('$one', 'create')");
my $second = $f->start_sql("select flohsync.resolve_match('" . match_id(1) . "', 'create')");
$f->wait_for("select count(*) = 2 from pg_locks where locktype = 'advisory' and not granted");
let_go($h);
like($f->finish($second)->{text}, qr/23505.*belongs to user/s, 'two operators create a user for one address: one of them does');

# A change that comes while post-sync is at work is not lost with what it worked on.
$f->sql("select _flohsync.note_changes(" . $f->connector_id($c) . ", 'user', array(select id from flohsync.resource_record where connector_id = " . $f->connector_id($c) . "), 'updated')");
my $seq = $f->sql('select max(seq) from _flohsync.record_change');
$f->sql("select _flohsync.note_changes(" . $f->connector_id($c) . ", 'user', array(select id from flohsync.resource_record where connector_id = " . $f->connector_id($c) . "), 'updated')");
cmp_ok($f->sql('select max(seq) from _flohsync.record_change'), '>', $seq, 'a change noted again is another one');

#
# Failures that come again
#

begin({ createUsers => \1 });
$f->sql(q{create function public.refuse() returns trigger language plpgsql as $$ begin if new.email like 'refused%' then raise foreign_key_violation using message = 'not this one'; end if; return new; end $$;
	create trigger refuse before insert on flohsync.floh_user for each row execute function public.refuse()});
user('fine@fails.example');
person(1, 'refused@fails.example');
person(2, 'fine@fails.example');
is(one_pass(), 'success', 'a stage that cannot be done does not fail the run');
is_deeply([ map { "$_->{stage} $_->{sqlstate}" } @{ report()->{errors} } ], ['create 23503'], 'it alone is reported');
is(match_of(2), 'matched exact', 'what was done before it stays');
$f->sql('drop trigger refuse on flohsync.floh_user');
one_pass();
is(match_of(1), 'matched exact', 'and it is made up for');

my $workflow = $f->sql("insert into flohsync.workflow_definition (name, definition) values ('tell', '{}') returning id");
$f->sql(q{create function public.no_jobs() returns trigger language plpgsql as $$ begin raise foreign_key_violation using message = 'no jobs today'; end $$});
sub told { return $f->sql("select coalesce(string_agg((e ->> 'externalId') || ' ' || (e ->> 'change'), ', ' order by j.id, e ->> 'externalId'), '') from flohsync.workflow_job j, jsonb_array_elements(j.data -> 'records') e
	where j.data ->> 'connectorId' = " . $f->connector_id($c) . '::text') }
begin({ postSyncWorkflowId => $workflow, syncTriggerMode => 'per_record', safeguards => {%free} });
person($_, "p$_\@told.example") for 1 .. 3;
one_pass();
$f->sql('truncate flohsync.workflow_job, flohsync.workflow_run; create trigger no_jobs before insert on flohsync.workflow_job for each row execute function public.no_jobs()');
person(1, 'changed@told.example');
is(one_pass() . ' ' . told(), 'success ', 'a workflow that cannot be told');
$f->sql('drop trigger no_jobs on flohsync.workflow_job');
person(2, 'changed.too@told.example');
one_pass();
is(told(), '1 updated, 2 updated', 'is told later, of everything');
one_pass();
is(told(), '1 updated, 2 updated', 'and once');
$f->sql('truncate flohsync.workflow_job, flohsync.workflow_run');
$f->sql("select flohsync.mark_stale('$c', 'user', now() + interval '1 hour')");
person(3, 'late@told.example');
one_pass();
is(told(), '1 restored, 2 restored, 3 restored', 'of several changes it is told what they come to');

begin({ postSyncWorkflowId => $workflow, syncTriggerMode => 'summary' });
$f->sql('truncate flohsync.workflow_job, flohsync.workflow_run; create trigger no_jobs before insert on flohsync.workflow_job for each row execute function public.no_jobs()');
person(1, 'p1@summary.example');
is(one_pass() . ' ' . errors(), 'success : post_sync: workflow: no jobs today', 'nor does a summary that cannot be told fail the run');
$f->sql('drop trigger no_jobs on flohsync.workflow_job');

# Workflows: disabled, many, abandoned.
$f->sql("update flohsync.workflow_definition set enabled = false where id = '$workflow'");
person(1, 'p2@summary.example');
one_pass();
is($f->sql('select count(*) from flohsync.workflow_job') . ' ' . $f->sql('select count(*) from flohsync.workflow_run'), '1 0', 'a workflow that is disabled is not started');
is($f->sql('select count(*) from flohsync.claim_workflow_jobs(10)'), 0, 'and nobody gets its job');
like($f->finish($f->start_sql("listen flohsync_workflow; update flohsync.workflow_definition set enabled = false where id = '$workflow'; delete from flohsync.workflow_run;
	update flohsync.workflow_definition set enabled = true where id = '$workflow'; select 1"))->{out}, qr/Asynchronous notification "flohsync_workflow".*$workflow/s,
	'when it is enabled, it is, and says so');
is($f->sql('select count(*) from flohsync.workflow_run'), 1, 'once');
$f->sql("truncate flohsync.workflow_job, flohsync.workflow_run;
	with w as (insert into flohsync.workflow_definition (name, definition) select 'w' || g, '{}' from generate_series(1, 300) g returning id)
	insert into flohsync.workflow_job (workflow_id, data) select id, jsonb_build_object('connectorId', gen_random_uuid(), 'resourceType', 'user', 'workflowId', id, 'triggerMode', 'summary') from w");
is($f->sql('select count(*) from flohsync.claim_workflow_jobs(1000)'), 300, 'jobs of three hundred workflows at once');
$f->sql("update flohsync.workflow_job set claimed_at = now() - interval '31 minutes', attempts = 3");
is($f->sql('select count(*) from flohsync.claim_workflow_jobs(1000)') . ' ' . $f->sql("select string_agg(distinct status || ': ' || error, ', ') from flohsync.workflow_job"),
	'0 failed: the worker did not finish the job within 30 minutes', 'a job that three workers left is not given out again');

#
# What is shown
#

begin({ createUsers => \1 });
person($_, "shown$_\@x.example") for 1 .. 12;
one_pass();
is(join(' ', map { $_->{externalId} } @{ $f->json("select flohsync.list_matches('$c', 'user')")->{data} }), join(' ', sort { $a cmp $b } 1 .. 12), 'matches are listed in the order of their external ids');
is($f->json("select flohsync.explain_match('$c', 'user', '1')")->{stays}, 'the user was created from the record, or reactivated with it', 'explain_match says why a match stays');
$f->sql("select flohsync.resolve_match('" . match_id(2) . "', 'skip')");
is($f->json("select flohsync.explain_match('$c', 'user', '2')")->{stays}, 'an operator decided so', 'that of an operator, too');

#
# New profiles: who writes them finds and locks the users instead of the foreign key
#

my %title = (value => 'Clerk', mode => 'overwrite_always');
sub fill_in { return "select count(*) from flohsync.floh_user u, flohsync._profile_update(array[u.id], array[" . Flohsync::jsonb($_[1] // { title => \%title }) . "], 'manual') where u.email like '$_[0]'" }
my $orphans = 'select count(*) from flohsync.user_profile p where not exists (select from flohsync.floh_user u where u.id = p.user_id)';
user("$_\@new.example") for qw(leaves stays other third);
my $h = held_open("delete from flohsync.floh_user where email = 'leaves\@new.example'");
my $late = $f->start_sql(fill_in('leaves@new.example'));
ok(waits_for_it(), 'the profile of a user who is being deleted waits');
let_go($h);
$f->finish($late);
is($late->{err} . $late->{out}, "0", "and is not written");
$h = held_open(fill_in('stays@new.example'));
$late = $f->start_sql("delete from flohsync.floh_user where email = 'stays\@new.example'");
ok(waits_for_it(), 'a user whose profile is being written is not deleted meanwhile');
let_go($h);
$f->finish($late);
is($late->{err} . $f->sql($orphans), '0', 'and the profile goes with the user');
$f->fails_like("insert into flohsync.user_profile (user_id) values (gen_random_uuid())", '23503', qr/user_profile_user_id_fkey/, 'the foreign key looks at what others write, in the same session too');
$f->sql('alter table flohsync.user_profile add constraint managed foreign key (manager_id) references flohsync.floh_user');
$f->fails_like(fill_in('other@new.example', { managerId => { value => '00000000-0000-4000-8000-000000000000', mode => 'overwrite_always' } }),
	'23503', qr/managed/, 'and another foreign key at all of it');
$f->sql("alter table flohsync.user_profile drop constraint managed;
	create function public.somebody_else() returns trigger language plpgsql as \$\$ begin new.user_id := gen_random_uuid(); return new; end \$\$;
	create trigger somebody_else before insert on flohsync.user_profile for each row execute function public.somebody_else()");
$f->fails_like(fill_in('other@new.example'), '23503', qr/user_profile_user_id_fkey/, 'and its own at what a trigger has made of it');
$f->sql('drop function public.somebody_else cascade');
is($f->sql(fill_in('%@new.example')) . ' ' . profile('other@new.example')->{attribute_sources}{title}, '2 manual', 'and then they are written');

#
# Other mappings: everybody is mapped, but only who changed is matched
#

my @mappings = (attributeMappings => [ { sourcePath => 'attributes.dept', targetField => 'department', writeMode => 'overwrite_always' } ]);
begin({});
person(1, 'one@keep.example', dept => 'A');
person(2, 'two@keep.example', dept => 'B');
person(3, 'late@keep.example', dept => 'C');
person(4, 'nobody@keep.example', dept => 'D');
user("$_\@keep.example") for qw(one two three);
one_pass();
$f->sql("update flohsync.connector_sync_match set match_confidence = 'probable' where external_id = '1' and connector_id = " . $f->connector_id($c));
person(2, 'three@keep.example', dept => 'B');
user('late@keep.example');
$f->configure($c, 'user', @mappings);
one_pass();
is(join(' ', map { (profile("$_\@keep.example") // {})->{department} // '-' } qw(one two three late)), 'A - B C', 'everybody is mapped, by the matches of now');
is(match_of(1) . ', ' . matches(), 'matched probable, 1 matched probable one@keep.example, 2 matched exact three@keep.example, 3 matched exact late@keep.example, 4 unmatched none',
	'and who did not change is not matched again');
$f->configure($c, 'user', userMatchFallbackStrategies => ['external_id']);
one_pass();
is(match_of(1), 'matched exact', 'with other strategies everybody is');
# Those who are back while the mappings change
begin(leavers());
person($_, "back$_\@keep.example", dept => "D$_") for 1, 2;
user("back$_\@keep.example") for 1, 2;
one_pass();
gone(1);
one_pass();
is(state_of('back1@keep.example'), 'deleted', 'one has left');
person(1, 'back1@keep.example', dept => 'D1');
$f->configure($c, 'user', @mappings);
one_pass();
is(state_of('back1@keep.example') . ' ' . match_of(1) . ' ' . profile('back1@keep.example')->{department} . ' ' . profile('back2@keep.example')->{department}, 'active matched exact D1 D2', 'and is back, matched and mapped');
# A configuration that was not about users for a while
$f->sql("select flohsync.create_connector('things', 'sql', jsonb_build_object('queries', jsonb_build_object('thing',
	'select id as external_id, name as display_name, mail as email, attrs as attributes from public.people where directory = ''things'' order by id')))");
$c = 'things';
person(1, 'one@keep.example', dept => 'Thing');
$f->configure($c, 'thing', @mappings);
$f->sync($c, 'thing');
$f->configure($c, 'thing', attributeMappings => undef);
$f->sql('delete from flohsync.connector_sync_match where connector_id = ' . $f->connector_id($c));
person(2, 'two@keep.example', dept => 'Thing');
$f->sync($c, 'thing');
is(matches() // '', '', 'no users, no matches');
$f->configure($c, 'thing', @mappings);
$f->sync($c, 'thing');
is(matches(), '1 matched exact one@keep.example, 2 matched exact two@keep.example', 'and all of them when it is about users again');

#
# Many: nothing is analysed here, as after a first load
#

begin(leavers(createUsers => \1));
$f->sql("insert into public.people select '$c', g::text, 'Person ' || g, 'many' || g || '\@many.example', '{}' from generate_series(1, 20000) g");
my $began = time;
one_pass();
my $took = time - $began;
is(report()->{usersCreated}, 20000, 'twenty thousand users are created');
cmp_ok($took, '<', 40, sprintf 'in reasonable time (%.1f s)', $took);
one_pass();
$f->sql("delete from public.people where directory = '$c' and id::int <= 5000");
$began = time;
one_pass();
$took = time - $began;
is(report()->{usersDeactivated}, 5000, 'five thousand leave');
cmp_ok($took, '<', 20, sprintf 'in reasonable time (%.1f s)', $took);
$f->sql("update flohsync.floh_user set upstream_id = 'u' || id where sub in (select 'many' || g || '\@many.example' from generate_series(6000, 6099) g)");
$began = time;
one_pass();
$took = time - $began;
cmp_ok($took, '<', 5, sprintf 'a hundred changed users take no time (%.1f s)', $took);
$f->sql("update flohsync.floh_user set upstream_id = 'v' where sub = 'many7000\@many.example'");
$began = time;
$f->sql("update flohsync.floh_user set upstream_id = 'w' || id where sub like 'many%'");
$took = time - $began;
cmp_ok($took, '<', 20, sprintf 'nor does changing one user make changing twenty thousand slow (%.1f s)', $took);

$f->invariants;
$f->no_crash;
done_testing();
