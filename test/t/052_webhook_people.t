# What follows a webhook: its record is matched, mapped and told of in the same
# transaction, users come and go by it, and what fails there is made up for.
use strict;
use warnings;

use Flohsync;
use PostgreSQL::Test::Utils;
use Test::More;

my $f = Flohsync->new;
my $nr = 0;
my $c;

# A directory is a table of its own, which a connector of kind sql reads.
$f->sql('create table public.people (directory text, id text, name text, mail text, attrs jsonb, primary key (directory, id)); grant select on public.people to flohsync_nobody');
sub begin
{
	my (%settings) = @_;
	$c = 'hr' . ++$nr;
	$f->sql("select flohsync.create_connector('$c', 'sql', jsonb_build_object('queries', jsonb_build_object('user',
		'select id as external_id, name as display_name, mail as email, attrs as attributes from public.people where directory = ''$c'' order by id')))");
	$f->configure($c, 'user', %settings);
	return;
}
sub hook
{
	my ($action, $id, $data, %more) = @_;
	my $connector = delete $more{connector} // $c;
	my $r = $f->try_sql("select flohsync.handle_webhook('$connector', " . Flohsync::jsonb({ action => $action, resourceId => $id, resourceType => 'user', data => $data // {}, %more }) . ')');
	return "$r->{state}: $r->{message}" unless $r->{ok};
	my $answer = decode_json_text($r->{out});
	return $answer->{action} . ' ' . ($answer->{changed} ? 'changed' : 'same');
}
sub user { my ($email) = @_; return $f->sql("insert into flohsync.floh_user (iss, sub, email, display_name, confirmed) values ('https://idp', " . literal("sub of $email") . ', ' . literal($email) . ', ' . literal($email) . ', true) returning id') }
sub state_of { return $f->sql("select case when deleted_at is not null then 'deleted' when active then 'active' else 'inactive' end from flohsync.floh_user where email = '$_[0]'") }
sub match_of
{
	return $f->sql("select concat_ws(' ', m.match_status, m.match_confidence, u.email) from flohsync.connector_sync_match m left join flohsync.floh_user u on u.id = m.user_id
		where m.external_id = '$_[0]' and m.connector_id = " . $f->connector_id($c));
}
sub profile { return $f->json("select to_jsonb(p) from flohsync.user_profile p join flohsync.floh_user u on u.id = p.user_id where u.email = '$_[0]'") // {} }
sub errors { return $f->sql("select string_agg(concat_ws(': ', e.external_id, e.error_class, e.message), '; ' order by e.id) from flohsync.sync_error e where e.run_id is null and e.connector_id = " . $f->connector_id($c)) }
sub record { return $f->sql("select case when stale_since is null then 'active' else 'stale' end from flohsync.connector_resource where external_id = '$_[0]' and connector_id = " . $f->connector_id($c)) }
sub waiting { return $f->sql('select count(*) from _flohsync.record_change where connector_id = ' . $f->connector_id($c)) }
sub identities { return $f->sql("select count(*) from flohsync.user_external_identity where external_id = '$_[0]' and connector_id = " . $f->connector_id($c)) }
my @mapping = (attributeMappings => [ { sourcePath => 'attributes.dept', targetField => 'department', writeMode => 'overwrite_always' }, { sourcePath => 'attributes.boss', targetField => 'managerId' } ]);

#
# Matched and mapped
#
begin(@mapping, userMatchFallbackStrategies => ['external_id']);
user('ann@example.com');
user('bob@example.com');
is(hook('created', 'ann', { email => 'Ann@Example.com ', attributes => { dept => 'R&D' } }), 'created changed', 'a record of a known user');
is(match_of('ann'), 'matched exact ann@example.com', 'is matched in the same transaction');
is(profile('ann@example.com')->{department}, 'R&D', 'its profile is filled');
is(identities('ann'), 1, 'with the identity');
is(hook('updated', 'ann', { attributes => { dept => 'Sales' } }), 'updated changed', 'a change');
is(profile('ann@example.com')->{department}, 'Sales', 'is mapped');
is(hook('updated', 'ann', { email => 'bob@example.com' }), 'updated changed', 'another e-mail address');
is(match_of('ann'), 'matched exact bob@example.com', 'is another user');
is(hook('updated', 'ann', { email => 'nobody@example.com' }), 'updated changed', 'an address of nobody');
is(match_of('ann'), 'unmatched none', 'is no user');
is(hook('created', 'sub of ann@example.com', {}), 'created changed', 'a record that only the fallback finds');
is(match_of('sub of ann@example.com'), 'matched probable ann@example.com', 'is matched by it');
is(hook('updated', 'ann', { attributes => { boss => 'no such' }, email => 'bob@example.com' }), 'updated changed', 'a value that cannot be taken');
like(errors(), qr/^ann: mapping: managerId: 'no such' is no user$/, 'is noted');
is(waiting(), 0, 'nothing waits for the next run');
$f->sql("select flohsync.resolve_match(id, 'skip') from flohsync.connector_sync_match where external_id = 'ann'");
is(hook('updated', 'ann', { email => 'ann@example.com' }), 'updated changed', 'what an operator decided');
like(match_of('ann'), qr/^skipped/, 'stays');
is($f->try_sql('BEGIN; select flohsync.handle_webhook(' . literal($c) . ", '{\"action\": \"created\", \"resourceId\": \"bob\", \"resourceType\": \"user\", \"data\": {\"email\": \"bob\@example.com\", \"attributes\": {\"dept\": \"X\"}}}'); ROLLBACK")->{ok}, 1, 'a webhook that is rolled back');
is(match_of('bob') . ' ' . profile('bob@example.com')->{department}, ' Sales', 'leaves nothing');
is($f->sql("select count(*) from flohsync.connector_sync_match m where m.connector_id = " . $f->connector_id($c)), 2, 'no other record was looked at');

# A type that is none of users
$f->sql("select flohsync.configure_sync('$c', 'group', '{}')");
is($f->sql("select flohsync.handle_webhook('$c', '{\"action\": \"created\", \"resourceId\": \"g\", \"resourceType\": \"group\", \"data\": {\"email\": \"ann\@example.com\"}}') ->> 'changed'"), 'true', 'a group');
is($f->sql("select count(*) from flohsync.connector_sync_match where resource_type = 'group'"), 0, 'is matched to nobody');

#
# Created, deactivated, back
#
begin(@mapping, createUsers => JSON::PP::true, createUserDefaults => { location => 'Remote' }, deactivateUsers => JSON::PP::true);
is(hook('created', 'joe', { email => 'joe@example.com', displayName => 'Joe', attributes => { dept => 'Ops' } }), 'created changed', 'a record of nobody');
is(match_of('joe'), 'matched exact joe@example.com', 'makes a user');
is(join('|', @{ profile('joe@example.com') }{qw(department location)}), 'Ops|Remote', 'with a profile');
is($f->sql("select confirmed || ' ' || iss from flohsync.floh_user where email = 'joe\@example.com'"), 'false -', 'who is unconfirmed');
is(hook('created', 'joe2', { email => 'JOE@example.com' }), 'created changed', 'another record with his address');
is(match_of('joe2'), 'matched exact joe@example.com', 'is his as well');
is(hook('deleted', 'joe'), 'deleted changed', 'one of them is deleted');
is(state_of('joe@example.com'), 'active', 'he stays while the other one is there');
is(hook('deleted', 'joe2'), 'deleted changed', 'the other one, too');
is(state_of('joe@example.com'), 'deleted', 'he is deactivated');
is($f->sql("select deactivated_by_run from flohsync.floh_user where email = 'joe\@example.com'"), 0, 'by no run');
is(record('joe') . record('joe2') . match_of('joe'), '', 'records and matches are gone');
is(identities('joe2'), 1, 'by the identity he is known');
is(hook('created', 'joe2', { email => 'Joe@example.com' }), 'created changed', 'his record is back');
is(state_of('joe@example.com'), 'active', 'and so is he');
is(match_of('joe2'), 'matched exact joe@example.com', 'it is his');
$f->sql("update flohsync.floh_user set deleted_at = now(), active = false, deactivated_by_run = null where email = 'joe\@example.com'");
is(hook('updated', 'joe2', { displayName => 'J.' }), 'updated changed', 'of one whom somebody else deactivated');
is(state_of('joe@example.com'), 'deleted', 'nobody brings him back');
is(hook('created', 'taken', { email => 'joe@example.com' }), 'created changed', 'an address that belongs to a deleted user');
is(match_of('taken'), 'create_pending none', 'makes nobody');
like(errors(), qr/taken: create_user: the e-mail address belongs to user .* who is deleted/, 'and says why');
hook('created', 'two-a', { email => 'two@example.com' });
$f->sql("select flohsync.create_connector('other$nr', 'sql', '{\"queries\": {\"user\": \"select null::text as external_id, null::text as display_name, null::text as email, null::jsonb as attributes where false\"}}')");
$f->configure("other$nr", 'user', deactivateUsers => JSON::PP::true);
is(hook('created', 'two-b', { email => 'two@example.com' }, connector => "other$nr"), 'created changed', 'a user with records of two connectors');
is(hook('deleted', 'two-b', undef, connector => "other$nr"), 'deleted changed', 'one of which goes');
is(state_of('two@example.com'), 'active', 'stays');
$f->configure($c, 'user', deactivateUsers => JSON::PP::false);
hook('created', 'two-b', { email => 'two@example.com' }, connector => "other$nr");
is(hook('deleted', 'two-a'), 'deleted changed', 'where nobody is to be deactivated');
is(state_of('two@example.com'), 'active', 'he stays');
is(hook('deleted', 'two-b', undef, connector => "other$nr"), 'deleted changed', 'the last one of the other connector');
is(state_of('two@example.com'), 'deleted', 'deactivates him');
# Of two connectors: a stale one that waited for the other
$f->configure($c, 'user', deactivateUsers => JSON::PP::true);
hook('created', 'three-a', { email => 'three@example.com' });
hook('created', 'three-b', { email => 'three@example.com' }, connector => "other$nr");
$f->sql("select flohsync.mark_stale('$c', 'user', 'infinity')");
$f->sync($c, 'user');
is(state_of('three@example.com'), 'active', 'a stale record beside an active one');
$f->configure("other$nr", 'user', deactivateUsers => JSON::PP::false);
is(hook('deleted', 'three-b', undef, connector => "other$nr"), 'deleted changed', 'the active one is deleted where nobody is to be deactivated');
is(state_of('three@example.com'), 'active', 'the other configuration decides');
$f->sync($c, 'user');
is(state_of('three@example.com'), 'deleted', 'at its next run');

# However old the events are that come within a day.
begin(createUsers => JSON::PP::true, deactivateUsers => JSON::PP::true, safeguards => { maxDeactivateFraction => 0.5, minRecords => 2 });
hook('created', "late-$_", { email => "late-$_\@example.com" }) for 1 .. 8;
$f->sql("update flohsync.resource_record set observed_at = observed_at - interval '3 days', event_at = event_at - interval '3 days' where connector_id = " . $f->connector_id($c));
my $yesterday = $f->sql("select _flohsync.iso(now() - interval '25 hours')");
hook('deleted', "late-$_", undef, timestamp => $yesterday) for 1 .. 5;
is(join(' ', map { state_of("late-$_\@example.com") } 1 .. 5), 'deleted deleted deleted deleted active', 'old events count when they come');

# The safeguard counts the deactivations of a day.
begin(createUsers => JSON::PP::true, deactivateUsers => JSON::PP::true, safeguards => { maxDeactivateFraction => 0.5, minRecords => 2 });
hook('created', "many-$_", { email => "many-$_\@example.com" }) for 1 .. 8;
is(join(' ', map { hook('deleted', "many-$_") } 1 .. 4), join(' ', ('deleted changed') x 4), 'half of the users may go');
is(join(' ', map { state_of("many-$_\@example.com") } 1 .. 5), 'deleted deleted deleted deleted active', 'and are deactivated');
is(hook('deleted', 'many-5'), 'deleted changed', 'one more');
is(state_of('many-5@example.com') . ' ' . record('many-5'), 'active stale', 'is kept, with a stale record');
like(errors(), qr/many-5: safeguard: /, 'which is noted');
is(hook('updated', 'many-5', { displayName => 'x' }, timestamp => $f->sql("select _flohsync.iso(now() - interval '1 day')")), 'ignored same', 'an older event does not bring it back');
is(waiting(), 1, 'the next run decides');
$f->sql("insert into public.people select '$c', 'many-' || i, null, 'many-' || i || '\@example.com', null from generate_series(6, 8) i");
$f->sync($c, 'user');
is(state_of('many-5@example.com'), 'deleted', 'by its own safeguard: he is one of four');
hook('created', 'many-5', { email => 'many-5@example.com' });
is(state_of('many-5@example.com'), 'active', 'he is back');
$f->configure($c, 'user', safeguards => { maxDeactivateFraction => undef });
is(hook('deleted', 'many-5'), 'deleted changed', 'with the safeguard off');
is(state_of('many-5@example.com') . record('many-5'), 'deleted', 'he goes');
$f->sql("update _flohsync.resource_tombstone set deleted_at = deleted_at - interval '25 hours', made_at = made_at - interval '25 hours'");
$f->configure($c, 'user', safeguards => { maxDeactivateFraction => 0.5 });
is(hook('deleted', 'many-6') . state_of('many-6@example.com'), 'deleted changeddeleted', 'what was a day ago does not count');

# Moved out of scope
begin(createUsers => JSON::PP::true, deactivateUsers => JSON::PP::true, filterRules => { emailDomains => ['example.com'] });
hook('created', 'mover', { email => 'mover@example.com' });
is(hook('updated', 'mover', { email => 'mover@elsewhere.org' }), 'updated changed', 'out of scope');
is(record('mover') . ' ' . state_of('mover@example.com'), 'stale active', 'the record is stale, and the user waits for the next run');
$f->sync($c, 'user');
is(state_of('mover@example.com'), 'deleted', 'which deactivates him');

# While a run is held nobody is created.
begin(createUsers => JSON::PP::true, safeguards => { maxStaleFraction => 0.1, minRecords => 0 });
$f->sql("insert into public.people select '$c', 'held-' || i, null, 'held-' || i || '\@example.com', null from generate_series(1, 10) i");
$f->sync($c, 'user');
$f->sql("delete from public.people where directory = '$c' and id <> 'held-1'");
$f->sync($c, 'user');
is($f->last_run($c, 'user')->{status}, 'held', 'a run is held');
is(hook('created', 'newcomer', { email => 'newcomer@example.com' }), 'created changed', 'somebody new meanwhile');
is(match_of('newcomer'), 'create_pending none', 'waits');
is(hook('updated', 'held-3', { displayName => 'alive' }), 'updated changed', 'and one that the run misses is heard of');
$f->sql('select flohsync.approve_run(' . $f->last_run($c, 'user')->{id} . ')');
is(record('held-2') . ' ' . record('held-3') . ' ' . record('newcomer'), 'stale active active', 'when it is approved, what webhooks told since stays');
is(match_of('newcomer'), 'matched exact newcomer@example.com', 'and who waited is created');

#
# Workflows
#
begin(syncTriggerMode => 'per_record', postSyncWorkflowId => $f->sql("insert into flohsync.workflow_definition (name, definition) values ('hooks', '{}') returning id"));
sub told { return $f->sql("select string_agg(r ->> 'externalId' || ' ' || (r ->> 'change'), ', ' order by j.id) from flohsync.workflow_job j, jsonb_array_elements(j.data -> 'records') r where j.data ->> 'connectorId' = (select id::text from flohsync.connector_definition where name = '$c')") }
hook('created', 'w', { email => 'w@example.com' });
hook('updated', 'w', { displayName => 'W' });
hook('updated', 'w', { displayName => 'W' });
hook('deleted', 'w');
hook('deleted', 'w');
is(told(), 'w added, w updated, w removed', 'a workflow is told of each change, once');
is($f->sql("select string_agg(distinct status, ' ') || ' ' || bool_and(run_id is null) from flohsync.workflow_job"), 'queued true', 'in jobs of no run');
$f->sync($c, 'user');
is(told(), 'w added, w updated, w removed', 'the next run has nothing to add');

#
# A deletion waits for post-sync before it has the record, which post-sync wants:
# neither is ended for the other.
#
begin(createUsers => JSON::PP::true, deactivateUsers => JSON::PP::true, safeguards => undef);
$f->sql("insert into public.people values ('$c', 'stays', null, 'stays\@example.com', null), ('$c', 'leaves', null, 'leaves\@example.com', null)");
$f->sync_ok($c, 'user', 'two users');
$f->sql("delete from public.people where directory = '$c' and id = 'leaves'");
$f->sql('select pg_advisory_lock(52)');
my $holder = $f->start_sql("BEGIN; SELECT FROM flohsync.floh_user WHERE email = 'leaves\@example.com' FOR UPDATE; SELECT pg_advisory_xact_lock(52); ROLLBACK");
$f->comes_true("select count(*) = 1 from pg_locks where locktype = 'advisory' and objid = 52 and not granted", 'the user who leaves is held');
my $run = $f->sql("select flohsync.trigger_sync('$c', 'user')");
$f->comes_true("select count(*) = 1 from pg_stat_activity where backend_type like 'flohsync worker%' and wait_event_type = 'Lock'", 'post-sync waits for him');
my $deletion = $f->start_sql("select flohsync.handle_webhook('$c', '{\"action\": \"deleted\", \"resourceId\": \"leaves\", \"resourceType\": \"user\"}') ->> 'changed'");
$f->comes_true("select count(*) = 1 from pg_locks l join pg_stat_activity a using (pid) where a.query like '%handle_webhook%' and not l.granted
	and clock_timestamp() - l.waitstart > 1.5 * current_setting('deadlock_timeout')::interval", 'a deletion waits for post-sync, and has looked for a deadlock');
$f->sql('select pg_advisory_unlock(52)');
$f->finish($holder);
is($f->finish($deletion)->{out}, 'true', 'the deletion comes through');
$f->wait_run($run);
is($f->run_row($run)->{status}, 'success', 'so does the run');
is($f->sql("select post_sync -> 'errors' from flohsync.sync_run where id = $run"), '', 'and its post-sync');
is(errors(), '', 'nothing failed of the webhook');
is($f->sql("select count(*) from flohsync.sync_error where run_id = $run"), 0, 'nor of the run');
is(state_of('leaves@example.com') . ' ' . state_of('stays@example.com'), 'deleted active', 'who left is deactivated');
is($f->sql("select count(*) from flohsync.connector_resource where external_id = 'leaves'"), 0, 'his record is gone');
unlike(slurp_file($f->node->logfile), qr/deadlock detected/, 'there was no deadlock');

#
# What fails is recorded, fails nothing else, and is made up for
#
begin(@mapping, createUsers => JSON::PP::true, deactivateUsers => JSON::PP::true);
$f->sql(<<'SQL');
alter function flohsync._profile_update(uuid[], jsonb[], text) rename to profile_update_kept;
create function flohsync._profile_update(uuid[], jsonb[], text) returns setof uuid language plpgsql as $$ begin raise exception 'profiles are on fire'; end $$;
grant execute on function flohsync._profile_update(uuid[], jsonb[], text) to flohsync_worker;
SQL
is(hook('created', 'fire', { email => 'fire@example.com', attributes => { dept => 'Fire' } }), 'created changed', 'mapping fails, the webhook does not');
is(errors(), 'fire: post_sync: map: profiles are on fire', 'it is recorded');
is(match_of('fire'), 'matched exact fire@example.com', 'what came before stays');
$f->sql('drop function flohsync._profile_update(uuid[], jsonb[], text); alter function flohsync.profile_update_kept(uuid[], jsonb[], text) rename to _profile_update');
$f->sync($c, 'user');
is(profile('fire@example.com')->{department} // 'none', 'Fire', 'a pass that does not know him is held, and makes up for what failed');
hook('created', 'fire', {});
is(profile('fire@example.com')->{department}, 'Fire', 'back, he is mapped');
for my $what ('deadlock_detected', 'raise_exception', 'lock_not_available')
{
	$f->sql(<<SQL);
create function public.refuse() returns trigger language plpgsql as \$\$ begin raise $what using message = 'not today'; end \$\$;
create trigger refuse before insert or update or delete on flohsync.connector_sync_match for each row execute function public.refuse();
SQL
	is(hook('created', "refused $what", { email => 'refused@example.com' }), 'created changed', "matching fails with $what, the webhook does not");
	is(match_of("refused $what"), '', 'nobody is matched');
	like(errors(), qr/refused $what: post_sync: match: not today/, 'it is recorded');
	$f->sql('drop function public.refuse() cascade');
}
$f->sql("insert into public.people values ('$c', 'fire', null, 'fire\@example.com', null), ('$c', 'refused raise_exception', null, 'refused\@example.com', null)");
$f->sync($c, 'user');
is(match_of('refused raise_exception'), 'matched exact refused@example.com', 'the next run makes up for it');
# A matching of all goes on for longer than the caller waits.
$f->sql('select pg_advisory_lock(52)');
my $matching = $f->start_sql("BEGIN; SELECT flohsync.match_users('$c', 'user'); SELECT pg_advisory_xact_lock(52); COMMIT");
$f->comes_true("select count(*) = 1 from pg_locks where locktype = 'advisory' and objid = 52 and not granted", 'a matching of all goes on');
is($f->try_sql("BEGIN; SET LOCAL lock_timeout = '50ms'; select flohsync.handle_webhook('$c', '{\"action\": \"created\", \"resourceId\": \"late\", \"resourceType\": \"user\", \"data\": {\"email\": \"late\@example.com\"}}') ->> 'changed'; COMMIT")->{out}, 'true', 'a webhook that cannot wait is taken');
$f->sql('select pg_advisory_unlock(52)');
$f->finish($matching);
like(errors(), qr/late: post_sync: match: canceling statement due to lock timeout/, 'that nobody was matched is recorded');
is(match_of('late'), '', 'and so it is');
$f->sql("insert into public.people values ('$c', 'late', null, 'late\@example.com', null)");
$f->sync($c, 'user');
is(match_of('late'), 'matched exact late@example.com', 'the next run makes up for it');
# Deactivating fails: whoever has to leave is not forgotten with the record.
$f->sql(<<'SQL');
alter function flohsync._user_deactivate(uuid[], bigint) rename to user_deactivate_kept;
create function flohsync._user_deactivate(uuid[], bigint) returns setof uuid language plpgsql as $$ begin raise exception 'he has the keys'; end $$;
grant execute on function flohsync._user_deactivate(uuid[], bigint) to flohsync_worker;
SQL
is(hook('deleted', 'fire'), 'deleted changed', 'deactivating fails, the webhook does not');
is(record('fire') . ' ' . state_of('fire@example.com'), 'stale active', 'the record is kept, stale');
like(errors(), qr/fire: post_sync: deactivate: he has the keys/, 'it is recorded');
$f->sql('drop function flohsync._user_deactivate(uuid[], bigint); alter function flohsync.user_deactivate_kept(uuid[], bigint) rename to _user_deactivate');
$f->sql("delete from public.people where id = 'fire'");
$f->sync($c, 'user');
is(state_of('fire@example.com'), 'deleted', 'the next run deactivates him');
is($f->sql("select count(*) from flohsync.sync_error where (run_id is null) = (connector_id is null)"), 0, 'an error is a run\'s or a webhook\'s');

#
# Plans that a session keeps (src/entry/cached_plan.c): for each settings their own, more of
# them than it has places for, and one that is running when it is needed again.
#
begin();
user("kept$_\@example.com") for 1 .. 2;
hook('created', "k$_", { email => "kept$_\@example.com" }) for 1 .. 2;
my @wrong;
for my $i (1 .. 40, 1 .. 3)
{
	$f->configure($c, 'user', attributeMappings => [ { sourcePath => "attributes.a$i", targetField => 'title', writeMode => 'overwrite_always' } ],
		issuerSourcePath => "attributes.i$i");
	hook('updated', 'k1', { attributes => { "a$i" => "title $i", step => ++$nr } });
	push @wrong, $i if (profile('kept1@example.com')->{title} // '') ne "title $i";
}
is("@wrong", '', 'each of 40 settings does what it says, one after the other in one session');
$f->sql(<<SQL);
create function public.promote() returns trigger language plpgsql security definer as \$\$
begin
  if new.title = 'chief' then
    perform flohsync.handle_webhook('$c', '{"action": "updated", "resourceId": "k2", "resourceType": "user", "data": {"attributes": {"a3": "deputy"}}}');
  end if;
  return new;
end \$\$;
create trigger promote after update on flohsync.user_profile for each row execute function public.promote();
SQL
is(hook('updated', 'k1', { attributes => { a3 => 'chief' } }), 'updated changed', 'a webhook within a webhook');
is(join(' ', map { profile("kept$_\@example.com")->{title} } 1 .. 2), 'chief deputy', 'does the same for another record');
is(errors() // '', '', 'without an error');
$f->sql('drop function public.promote cascade');

# Whatever the settings of the session that makes the plan: few users, few rows.
$f->sql(<<'SQL');
insert into flohsync.floh_user (iss, sub, email, display_name, confirmed) select 'https://many', i, 'many' || i || '@example.com', 'x', true from generate_series(1, 3000) i;
insert into flohsync.user_profile (user_id, title) select id, 'x' from flohsync.floh_user where iss = 'https://many';
analyze flohsync.floh_user, flohsync.user_profile;
SQL
my $read = $f->try_sql(<<'SQL')->{out};
BEGIN;
SET LOCAL enable_nestloop = off;
SELECT count(*) FROM flohsync._profile_update(ARRAY(SELECT id FROM flohsync.floh_user WHERE iss = 'https://many' LIMIT 2),
  array_fill('{"title": {"value": "y", "mode": "overwrite_always"}}'::jsonb, ARRAY[2]), 'connector');
SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relid = 'flohsync.user_profile'::regclass;
COMMIT;
SQL
like($read, qr/^2\n\d\d?$/, 'two profiles are changed without reading all');

$f->invariants;
$f->no_crash;
done_testing;
