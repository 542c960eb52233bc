# Locks that only the extension can take: what an ordinary role can lock stalls
# nothing, and what runs in a worker cannot take its locks from it.
use strict;
use warnings;

use Flohsync;
use Test::More;

my $f = Flohsync->new(upstream => 0);

$f->sql('create table public.people (id text primary key, mail text); grant select on public.people to flohsync_worker, flohsync_nobody;
	create role nobody_special login');
$f->sql(q{insert into public.people select 'p' || g, 'p' || g || '@lock.example' from generate_series(1, 30) g});
$f->sql(q{select flohsync.create_connector('c', 'sql', '{"queries": {"user": "select id as external_id, id as display_name, mail as email, null::jsonb as attributes from public.people"}}')});
$f->configure('c', 'user', createUsers => \1, deactivateUsers => \1, safeguards => { maxStaleFraction => undef, maxDeactivateFraction => undef });

#
# Somebody who can do nothing but connect holds what has ever been a key of
# ours, and every key that we use, in all the ways there are.
#
my $config = $f->sql('select id from flohsync.connector_sync_config');
my $connector = $f->sql('select id from flohsync.connector_definition');
my @texts = ("flohsync matching $config", 'flohsync user changes', $config, $connector, "$connector/user", '', 0 .. 15);
my @keys = (map({ "hashtextextended('$_', 0)" } @texts), map({ "hashtextextended('flohsync user creation', $_)" } 0 .. 15), 0 .. 2);
# the rest of the keys as they are seen in use
my $seen = $f->start_sql('begin; select ' . join(', ', "flohsync.match_users('c', 'user')",
		"flohsync.handle_webhook('c', '{\"action\": \"created\", \"resourceId\": \"seen\", \"resourceType\": \"user\", \"data\": {\"email\": \"seen\@lock.example\"}}')",
		"flohsync.trigger_sync('c', 'user')") . "; select pg_sleep(60)");
$f->comes_true("select count(*) > 5 from pg_locks where locktype = 'advisory' and objsubid > 2", 'the extension holds locks of its own');
push @keys, split /\n/, $f->sql("select distinct (classid::bigint << 32) | objid::bigint from pg_locks where locktype = 'advisory' and objsubid > 2");
$seen->{run}->kill_kill;
$f->sql("select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(60)%' and pid <> pg_backend_pid()");
$f->comes_true("select count(*) = 0 from pg_locks where locktype = 'advisory' and objsubid > 2", 'and lets go of them');

my $stranger = $f->start_sql('set role nobody_special; set search_path = pg_catalog; '
		. join('; ', map { "select pg_advisory_lock($_), pg_advisory_lock((($_)::bigint >> 32)::int, ((($_)::bigint << 32) >> 32)::int)" } @keys)
		. '; select pg_sleep(600)');
$f->comes_true("select count(*) = 1 from pg_stat_activity where wait_event = 'PgSleep'", 'a stranger holds whatever he can');
cmp_ok($f->sql("select count(*) from pg_locks where locktype = 'advisory' and granted and objsubid in (1, 2)"), '>=', 2 * @texts, 'which is a lot');

$f->sync_ok('c', 'user', 'a pass that matches and creates');
is($f->last_run('c', 'user')->{post_sync}{usersCreated}, 30, 'comes through');
$f->sql("delete from public.people where id in ('p1', 'p2')");
$f->sync_ok('c', 'user', 'one that deactivates');
is($f->last_run('c', 'user')->{post_sync}{usersDeactivated}, 2, 'does so');
for my $action ('created', 'updated', 'deleted')
{
	is($f->try_sql("set lock_timeout = '20s'; select flohsync.handle_webhook('c', jsonb_build_object('action', '$action', 'resourceId', 'h', 'resourceType', 'user',
		'data', jsonb_build_object('email', 'h\@lock.example', 'displayName', '$action'))) ->> 'changed'")->{out}, 'true', "a webhook: $action");
}
is($f->sql("select coalesce(string_agg(message, '; '), '') from flohsync.sync_error"), '', 'nothing of them had to be left for later');
ok($f->json("select flohsync.match_users('c', 'user')"), 'match_users');
$f->sql("select flohsync.upsert_resource('c', 'user', '{\"externalId\": \"late\", \"email\": \"late\@lock.example\"}')");
$f->configure('c', 'user', createUsers => \0);
$f->sync_ok('c', 'user');
$f->sql("select flohsync.upsert_resource('c', 'user', '{\"externalId\": \"late\", \"email\": \"late\@lock.example\"}'); select flohsync.match_users('c', 'user')");
is($f->sql("select r.match_status from flohsync.connector_sync_match m, flohsync.resolve_match(m.id, 'create') r where m.external_id = 'late'"), 'matched', 'an operator makes a user');
ok($f->try_sql("select flohsync.delete_sync_config('c', 'user'); select flohsync.drop_connector('c')")->{ok}, 'and all is removed');
$f->sql("select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'");
$f->finish($stranger);

# The functions that take them are not for him.
for my $call ("_flohsync.lock('matching', 'x', false)", "_flohsync.try_lock('matching', 'x', false)", "_flohsync.try_run_lock(gen_random_uuid(), 'user')")
{
	is($f->try_sql("set role nobody_special; select $call")->{state}, '42501', "nobody may call $call");
}
$f->fails_like("select _flohsync.lock('run', 'x', false)", '22023', qr/lock "run" does not exist/, 'nor does SQL take every lock');

#
# A function that a connector runs cannot let go of the advisory locks of its
# process.  The run keeps its own: nobody else can do it meanwhile.
#
$f->sql(q{create function public.pages(command jsonb) returns jsonb language plpgsql as $$
declare page int := coalesce((command ->> 'cursor')::int, 1);
begin
  if page = 2 then
    begin perform pg_advisory_unlock_all(); exception when others then null; end;
  end if;
  if page = 4 then perform pg_advisory_xact_lock_shared(4711); end if;
  return jsonb_build_object('success', true, 'payload', jsonb_build_object('resources', jsonb_build_array(jsonb_build_object('externalId', 'r' || page)))
    || case when page < 5 then jsonb_build_object('nextCursor', (page + 1)::text) else '{}' end);
end $$;
grant execute on function public.pages(jsonb) to flohsync_nobody});
$f->sql(q{select flohsync.create_connector('d', 'sql', '{"function": "public.pages"}')});
$f->configure('d', 'thing');
$f->sql('select pg_advisory_lock(4711)');
my $run = $f->sql("select flohsync.trigger_sync('d', 'thing')");
$f->comes_true("select count(*) = 1 from pg_locks where locktype = 'advisory' and objid = 4711 and not granted", 'a run waits on its fourth page');
is($f->sql("select count(*) from pg_locks l join pg_stat_activity a using (pid) where a.backend_type = 'flohsync worker' and l.locktype = 'advisory' and l.objsubid = 28940 and l.granted"), 1,
	'and has its lock, though the second tried to let go of it');
$f->sql('select pg_advisory_unlock(4711)');
$f->wait_run($run);
is($f->run_row($run)->{status}, 'success', 'it ends well');

$f->invariants;
$f->no_crash;
done_testing();
