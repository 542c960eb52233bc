# An application's own rules refuse one user, one profile or one job: that one is
# noted and tried again, the others are done, and no run becomes slow by it.
use strict;
use warnings;

use Flohsync;
use People;
use Test::More;

People::start(upstream => 0, conf => "autovacuum = off\n");

my %free = (maxStaleFraction => undef, maxDeactivateFraction => undef);

# What a stage asked of the seam, also where it was refused: a sequence does not roll back.
$f->sql('create sequence public.calls; grant usage on sequence public.calls to flohsync_worker;
	create function public.count_call() returns trigger language plpgsql as $$ begin perform nextval(\'public.calls\'); return null; end $$;
	create trigger count_call before insert or update on flohsync.floh_user for each statement execute function public.count_call();
	create trigger count_call before insert or update on flohsync.user_profile for each statement execute function public.count_call();
	create trigger count_call before insert on flohsync.workflow_job for each statement execute function public.count_call()');
sub calls { my $n = $f->sql("select case when is_called then last_value else 0 end from public.calls"); $f->sql("select setval('public.calls', 1, false)"); return $n }
sub refused { return join ' ', sort map { "$_->{stage}:" . ($_->{externalId} // '-') } @{ report()->{errors} // [] } }
sub waiting { return $f->sql("select coalesce(string_agg(s.stage || ':' || r.external_id, ' ' order by s.stage, r.external_id), '') from _flohsync.setback s
	join flohsync.resource_record r on r.id = s.resource_id where r.connector_id = " . $f->connector_id($c)) }
sub statuses { return $f->sql("select string_agg(n || ' ' || match_status, ', ' order by match_status) from (select match_status, count(*) n from flohsync.connector_sync_match
	where connector_id = " . $f->connector_id($c) . ' group by 1) m') }
# Everything is looked at again by the next pass, or only what has to be.
sub looks_at_all { return $f->sql("select count(*) = 0 from _flohsync.match_progress p join flohsync.connector_sync_config c on c.id = p.config_id where c.connector_id = " . $f->connector_id($c)) eq 't' }

#
# A CHECK on the table of users
#
begin({ createUsers => \1, createUserDefaults => { location => 'Remote' } });
$f->sql("alter table flohsync.floh_user add constraint no_evil check (email not like 'evil%') not valid");
$f->sql("insert into public.people select '$c', to_char(g, 'FM0000'), 'Person ' || g, case when g in (7, 8, 500) then 'evil' else 'good' end || g || '\@check.example', '{}' from generate_series(1, 1000) g");
calls();
is(one_pass(), 'success', 'three of a thousand users are refused');
is(statuses(), '3 create_pending, 997 matched', 'the others are made');
cmp_ok(calls(), '<', 2 * (3 * 2 * 10 + 10), 'in few calls');
is(refused(), 'create:0007 create:0008 create:0500', 'the report names those that were refused');
is(report()->{rowsRefused} . ' ' . report()->{usersCreated} . ' ' . report()->{createPending}, '3 997 3', 'and has the figures');
is(errors(), join("\n", map { "$_: post_sync: create: new row for relation \"floh_user\" violates check constraint \"no_evil\"" } qw(0007 0008 0500)), 'each is an error of its own, with its record');
is($f->sql("select count(*) from flohsync.user_profile where location = 'Remote'"), 997, 'those who were made have their defaults');
ok(!looks_at_all(), 'the next run does not look at everybody');
is(waiting(), 'create:0007 create:0008 create:0500', 'but remembers the three');
calls();
is(one_pass(), 'success', 'a pass without changes');
is(refused() . ' ' . report()->{matchesChanged}, 'create:0007 create:0008 create:0500 0', 'tries them again');
cmp_ok(calls(), '<', 10, 'and only them');
person('new', 'new@check.example');
calls();
one_pass();
is(matches() =~ s/.*, //r . ' ' . report()->{usersCreated}, 'new matched exact new@check.example 1', 'somebody new is not kept waiting by them');
cmp_ok(calls(), '<', 13, 'nor does it take long');
person('0007', 'good7@check.example');
one_pass();
is(statuses() . ' ' . waiting(), '2 create_pending, 999 matched create:0008 create:0500', 'one whose record is mended is made');
$f->sql('alter table flohsync.floh_user drop constraint no_evil');
one_pass();
is(statuses() . ' ' . waiting() . refused(), '1001 matched ', 'when nothing is refused any more, so are the others, without a change of theirs');
$f->sql("delete from public.people where directory = '$c'");

# Twice as many as are tried again in one run: all of them get their turn.
begin({ createUsers => \1 });
$f->sql("alter table flohsync.floh_user add constraint no_evil check (email not like 'evil%') not valid");
$f->sql("insert into public.people select '$c', to_char(g, 'FM0000'), 'Person ' || g, case when g % 3 = 0 then 'evil' else 'good' end || g || '\@many.example', '{}' from generate_series(1, 600) g");
one_pass();
is(statuses(), '200 create_pending, 400 matched', 'every third one is refused');
calls();
one_pass();
is(report()->{rowsRefused}, 100, 'a run tries a hundred again');
cmp_ok(calls(), '<=', 2 * 100, 'which bounds what it costs');
$f->sql('alter table flohsync.floh_user drop constraint no_evil');
one_pass();
one_pass();
is(statuses(), '600 matched', 'and each of them comes to it');

# So many that a run gives up: what it has done stays, and the next one goes on.
begin({ createUsers => \1 });
$f->sql("alter table flohsync.floh_user add constraint no_evil check (email not like 'evil%') not valid");
$f->sql("insert into public.people select '$c', to_char(g, 'FM0000'), 'Person ' || g, case when g % 2 = 0 or g > 1700 then 'evil' else 'good' end || g || '\@lots.example', '{}' from generate_series(1, 2400) g");
one_pass();
like(errors(), qr/^: post_sync: create: too many rows failed: the others wait for the next run$/m, 'a thousand failures end a stage');
like(statuses(), qr/\d+ matched/, 'with what was done');
one_pass();
like(statuses(), qr/\b850 matched/, 'the next run does the rest');
calls();
one_pass();
cmp_ok(calls(), '<', 300, 'and those after it are not slow by what cannot be done');
$f->sql('alter table flohsync.floh_user drop constraint no_evil');

#
# Profiles
#
begin({ attributeMappings => [ { sourcePath => 'attributes.department', targetField => 'department', writeMode => 'overwrite_always' } ] });
$f->sql("alter table flohsync.user_profile add constraint no_secrets check (department <> 'Secret') not valid");
for my $n (1 .. 30)
{
	user("m$n\@map.example");
	person(sprintf('%02d', $n), "m$n\@map.example", department => $n == 13 ? 'Secret' : 'Open');
}
is(one_pass(), 'success', 'a profile is refused');
is(report()->{profilesUpdated} . ' ' . refused() . ' ' . waiting(), '29 map:13 map:13', 'the others are written');
calls();
one_pass();
is(refused(), 'map:13', 'it is tried again');
cmp_ok(calls(), '<=', 4, 'by itself');
person('01', 'm1@map.example', department => 'Sales');
one_pass();
is(profile('m1@map.example')->{department} . ' ' . refused(), 'Sales map:13', 'beside what changed');
$f->sql('alter table flohsync.user_profile drop constraint no_secrets');
one_pass();
is(profile('m13@map.example')->{department} . ' ' . waiting() . refused(), 'Secret ', 'and written at last');

# A new user whose profile cannot have its defaults is not made by halves.
begin({ createUsers => \1, createUserDefaults => { title => 'Trainee' } });
$f->sql(q{create function public.no_trainee() returns trigger language plpgsql as $$ begin
	if exists (select from flohsync.floh_user u where u.id = new.user_id and u.email like 'boss%') then raise check_violation using message = 'the boss is no trainee'; end if; return new; end $$;
	create trigger no_trainee before insert or update on flohsync.user_profile for each row execute function public.no_trainee()});
person($_, "$_\@default.example") for qw(a boss z);
one_pass();
is(matches() . '; ' . refused(), 'a matched exact a@default.example, boss create_pending none, z matched exact z@default.example; create:boss', 'a user is made with the defaults, or not at all');
is($f->sql("select count(*) from flohsync.floh_user where email = 'boss\@default.example'"), 0, 'the user is not there');
$f->sql('drop trigger no_trainee on flohsync.user_profile');
one_pass();
is(profile('boss@default.example')->{title}, 'Trainee', 'until both can be');

#
# Who leaves and who comes back
#
begin({ deactivateUsers => \1, staleRetention => '0s', safeguards => { maxStaleFraction => undef, maxDeactivateFraction => 0.5, minRecords => 2 } });
$f->sql("alter table flohsync.floh_user add constraint not_those check (active or email not like 'keep%') not valid");
my @ids = map { sprintf '%02d', $_ } 1 .. 12;
for my $id (@ids)
{
	my $email = ($id =~ /^0[34]$/ ? 'keep' : 'leaver') . "$id\@leave.example";
	user($email);
	person($id, $email);
}
one_pass();
gone('01' .. '06');
is(one_pass(), 'success', 'two of six who leave cannot be deactivated');
is(report()->{usersDeactivated} . ' ' . refused() . ' ' . waiting(), '4 deactivate:03 deactivate:04 deactivate:03 deactivate:04', 'the others are');
is($f->sql("select string_agg(external_id, ' ' order by external_id) from flohsync.resource_record where stale_since is not null and connector_id = " . $f->connector_id($c)), '03 04',
	'and their records purged, but not those that tell of the two');
gone('07', '08');
is(one_pass(), 'success', 'the two do not count against the safeguard again');
is(report()->{usersDeactivated} . ' ' . refused(), '2 deactivate:03 deactivate:04', 'while others leave');
$f->sql('alter table flohsync.floh_user drop constraint not_those');
is(one_pass(), 'success', 'when they can be');
is(join(' ', map { state_of("keep$_\@leave.example") } qw(03 04)) . ' ' . waiting(), 'deleted deleted ', 'they are');
is($f->sql("select count(*) from flohsync.resource_record where stale_since is not null and connector_id = " . $f->connector_id($c)), 0, 'and their records purged');

begin({ deactivateUsers => \1, createUsers => \1, safeguards => {%free} });
user("b$_\@back.example"), person($_, "b$_\@back.example") for 1 .. 6;
one_pass();
gone(1 .. 5);
one_pass();
$f->sql("alter table flohsync.floh_user add constraint stays_away check (not active or email <> 'b3\@back.example') not valid");
person($_, "b$_\@back.example") for 1 .. 5;
is(one_pass(), 'success', 'one of five who are back is refused');
is(report()->{usersReactivated} . ' ' . refused() . ' ' . join(' ', map { state_of("b$_\@back.example") } 1 .. 5), '4 reactivate:3 active active deleted active active', 'the others are there');
is($f->sql("select match_status || ' ' || (user_id is not null) from flohsync.connector_sync_match where external_id = '3' and connector_id = " . $f->connector_id($c)), 'matched true', 'his record stays his');
is(one_pass() . ' ' . refused(), 'success reactivate:3', 'he is tried again');
is($f->json("select flohsync.match_users('$c', 'user')")->{rowsRefused}, 1, 'also by match_users');
$f->sql('alter table flohsync.floh_user drop constraint stays_away');
one_pass();
is(state_of('b3@back.example') . ' ' . $f->sql("select count(*) from flohsync.floh_user where email = 'b3\@back.example'"), 'active 1', 'and comes back as who he was');

#
# Workflows
#
my $workflow = $f->sql("insert into flohsync.workflow_definition (name) values ('tell') returning id");
$f->sql(q{create function public.not_of_bad() returns trigger language plpgsql as $$ begin
	if new.data @? '$.records[*] ? (@.externalId starts with "bad")' then raise check_violation using message = 'not of that one'; end if; return new; end $$});
sub told { my $t = $f->sql("select coalesce(string_agg((e ->> 'externalId') || ' ' || (e ->> 'change'), ', ' order by e ->> 'externalId', e ->> 'change'), '') from flohsync.workflow_job j, jsonb_array_elements(j.data -> 'records') e
	where j.data ->> 'connectorId' = " . $f->connector_id($c) . '::text'); $f->sql('truncate flohsync.workflow_job, flohsync.workflow_run'); return $t }
begin({ postSyncWorkflowId => $workflow, syncTriggerMode => 'per_record', staleRetention => '0s', safeguards => {%free} });
$f->sql('create trigger not_of_bad before insert on flohsync.workflow_job for each row execute function public.not_of_bad()');
person($_, "$_\@told.example") for 'a' .. 'h', 'bad1';
is(one_pass() . ' ' . refused() . ' ' . waiting(), 'success workflow:bad1 workflow:bad1', 'a workflow cannot be told of one record');
is(told(), join(', ', map { "$_ added" } 'a' .. 'h'), 'and is told of the others');
person('a', 'changed@told.example');
calls();
one_pass();
is(told() . ' ' . refused(), 'a updated workflow:bad1', 'of later ones, too');
cmp_ok(calls(), '<=', 6, 'with little more to do');
person('bad1', 'changed.bad@told.example');
one_pass();
$f->sql('drop trigger not_of_bad on flohsync.workflow_job');
person('b', 'b.changed@told.example');
one_pass();
is(told() . waiting(), 'b updated, bad1 added', 'in the end of that one: what its changes come to');
one_pass();
is(told(), '', 'once');
$f->sql('create trigger not_of_bad before insert on flohsync.workflow_job for each row execute function public.not_of_bad()');
gone(qw(c bad1));
is(one_pass(), 'success', 'one that is gone, and is not told of');
is($f->sql("select string_agg(external_id, ' ' order by external_id) from flohsync.resource_record where connector_id = " . $f->connector_id($c)), 'a b d e f g h', 'is purged all the same');
like(told(), qr/^c removed, c staled$/, 'the workflow is told of the other one');
like(errors(), qr/^bad1: post_sync: workflow: not of that one$/m, 'and an error of it');
$f->sql('drop trigger not_of_bad on flohsync.workflow_job');

#
# What is not about rows
#
begin({ createUsers => \1 });
$f->sql(q{create function public.broken() returns trigger language plpgsql as $$ begin perform public.there_is_no_such_function(); return new; end $$;
	create trigger broken before insert on flohsync.floh_user for each row execute function public.broken()});
$f->sql("insert into public.people select '$c', g::text, 'Person ' || g, 'all' || g || '\@broken.example', '{}' from generate_series(1, 2000) g");
calls();
is(one_pass(), 'success', 'all rows are refused');
cmp_ok(calls(), '<', 60, 'which is seen early');
is($f->sql("select count(*) || ' ' || min(external_id is null::text || '') from flohsync.sync_error where run_id = (select max(id) from flohsync.sync_run)") =~ s/ .*//r, 1, 'it is one error');
is(refused() . ' ' . report()->{errors}[0]{sqlstate}, 'create:- 42883', 'of the stage');
is($f->sql("select count(*) from flohsync.connector_sync_match where match_status = 'unmatched' and connector_id = " . $f->connector_id($c)), 2000, 'and nothing was done');
$f->sql('drop trigger broken on flohsync.floh_user');
one_pass();
is(statuses(), '2000 matched', 'it is made up for');

# What passes by itself is not about rows either.
for my $what ('deadlock_detected', 'serialization_failure', 'lock_not_available', 'disk_full')
{
	begin({ createUsers => \1 });
	$f->sql("create sequence public.tries; grant usage on sequence public.tries to flohsync_worker;
		create function public.once() returns trigger language plpgsql as \$\$ begin if nextval('public.tries') = 1 then raise $what using message = 'not now'; end if; return new; end \$\$;
		create trigger once before insert on flohsync.floh_user for each row execute function public.once()");
	person($_, "$what$_\@passes.example") for 1 .. 8;
	calls();
	is(one_pass(), 'success', "$what: a stage that fails once");
	if ($what eq 'disk_full')
	{
		is(calls() . ' ' . refused(), '1 create:-', "$what: is not halved");
		one_pass();
		is(statuses(), '8 matched', "$what: and done by the next run");
	}
	else
	{
		is(statuses() . ' ' . refused(), '8 matched ', "$what: is done again");
		is(calls(), 2, "$what: and not halved");
	}
	$f->sql('drop function public.once() cascade; drop sequence public.tries');
}

#
# Webhooks
#
begin({ createUsers => \1 });
one_pass();
$f->sql("alter table flohsync.floh_user add constraint no_evil check (email not like 'evil%') not valid");
is($f->sql("select flohsync.handle_webhook('$c', '{\"action\": \"created\", \"resourceId\": \"w\", \"resourceType\": \"user\", \"data\": {\"email\": \"evil\@hook.example\"}}') ->> 'changed'"), 'true', 'a webhook whose user is refused is taken');
like($f->sql("select string_agg(external_id || ': ' || message, '; ') from flohsync.sync_error where connector_id = " . $f->connector_id($c)), qr/^w: create: new row .*no_evil"$/, 'and noted');
person('w', 'evil@hook.example');
one_pass();
is(refused(), 'create:w', 'the next run tries again');
$f->sql('alter table flohsync.floh_user drop constraint no_evil');
one_pass();
is(matches(), 'w matched exact evil@hook.example', 'until it comes through');

#
# Behind the seam: an application's own users, with rules of its own
#
$f->sql(q{
create schema app;
create table app.member (key uuid primary key default gen_random_uuid(), mail text not null check (mail not like 'banned%'), blocked_by bigint, protected boolean not null default false,
  profile jsonb not null default '{}' check (not profile @> '{"department": "Secret"}'), check (not (protected and blocked_by is not null)));
grant usage on schema app to flohsync_worker;
grant select, insert, update on app.member to flohsync_worker;
create or replace view flohsync.v_user as select m.key as id, m.mail as email, m.mail as display_name, null::text as upstream_issuer, null::text as upstream_id, null::text as sub, true as confirmed, true as active
  from app.member m where m.blocked_by is null;
create or replace function flohsync._user_create(_emails text[], _display_names text[]) returns table ("position" integer, user_id uuid, problem text) language sql as $$
  with made as (insert into app.member (mail) select unnest(_emails) returning key, mail)
  select e.i::int, m.key, null::text from unnest(_emails) with ordinality e(mail, i) join made m on m.mail = e.mail $$;
create or replace function flohsync._user_deactivate(_users uuid[], _run bigint) returns setof uuid language sql
begin atomic update app.member m set blocked_by = coalesce(_run, 0) where m.key = any (_users) and m.blocked_by is null returning m.key; end;
create or replace function flohsync._user_reactivate(_users uuid[]) returns setof uuid language sql
begin atomic update app.member m set blocked_by = null where m.key = any (_users) and m.blocked_by is not null returning m.key; end;
create or replace function flohsync._profile_update(_users uuid[], _patches jsonb[], _source text) returns setof uuid language sql
begin atomic
  update app.member m set profile = m.profile || jsonb_build_object('department', u.patch #> '{department,value}') from unnest(_users, _patches) as u(id, patch)
   where m.key = u.id and m.profile -> 'department' is distinct from u.patch #> '{department,value}' returning m.key;
end;
});
begin({ createUsers => \1, deactivateUsers => \1, safeguards => {%free}, attributeMappings => [ { sourcePath => 'attributes.department', targetField => 'department', writeMode => 'overwrite_always' } ] });
sub members { return $f->sql("select string_agg(mail || coalesce(' ' || (profile ->> 'department'), '') || case when blocked_by is not null then ' blocked' else '' end, ', ' order by mail) from app.member") }
person('1', 'a@app', department => 'D');
person('2', 'banned@app', department => 'D');
person('3', 'c@app', department => 'Secret');
person('4', 'd@app', department => 'D');
is(one_pass() . ' ' . refused(), 'success create:2 map:3', 'behind the seam: a member and a profile are refused');
is(members(), 'a@app D, c@app, d@app D', 'the others are there');
$f->sql("update app.member set protected = true where mail = 'd\@app'");
gone(1, 4);
is(one_pass() . ' ' . refused(), 'success create:2 deactivate:4 map:3', 'one who leaves cannot');
is(members(), 'a@app D blocked, c@app, d@app D', 'the other one can');
$f->sql("update app.member set protected = false; alter table app.member drop constraint member_mail_check, drop constraint member_profile_check");
is(one_pass() . ' ' . refused(), 'success ', 'when nothing is refused any more');
is(members(), 'a@app D blocked, banned@app D, c@app Secret, d@app D blocked', 'all of it is done');
$f->sql('revoke insert on app.member from flohsync_worker');
person("more$_", "more$_\@app") for 1 .. 30;
is(one_pass() . ' ' . refused() . ' ' . report()->{errors}[0]{message}, 'success create:- permission denied for table member', 'without the right to write them, the stage fails');
$f->sql('grant insert on app.member to flohsync_worker');
one_pass();
is($f->sql("select count(*) from app.member where mail like 'more%'"), 30, 'and is made up for');

$f->invariants;
$f->no_crash;
done_testing();
