# The model of rights (SECURITY.md), attacked: code of others gets no rights but
# those of one ordinary role and leaves nothing in the session that it runs in;
# who calls is who PostgreSQL asks EXECUTE of; what decides what runs cannot be
# moved under another's name.  Every guard of the model has an assertion here
# that fails without it.
use strict;
use warnings;

use Flohsync;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
open my $key, '>', "$dir/key" or die $!;
print $key '0123456789abcdef' x 4;
close $key;
chmod 0600, "$dir/key";
my $f = Flohsync->new(upstream => 0, conf => "flohsync.encryption_key_file = '$dir/key'\nflohsync.max_workers = 1\n");
my $superuser = $f->superuser;

# As a superuser, in the session of the test; a role that is set there is set for this alone.
sub sql { my ($sql, $db) = @_; my $out = $f->sql($sql, $db); $f->sql('reset role', $db) if $sql =~ /set role/; return $out }
# In a session of its own: what it leaves behind is gone with it.
sub session { my ($sql) = @_; return $f->try_sql("SET client_min_messages = notice; $sql") }
sub as { my ($role, $sql) = @_; return session("SET SESSION AUTHORIZATION $role; $sql") }
sub can { my ($role, $sql, $name) = @_; my $r = as($role, $sql); local $Test::Builder::Level = $Test::Builder::Level + 1; ok($r->{ok}, "$role: $name") || diag($r->{text}); return $r->{out} }

sub cannot
{
	my ($role, $sql, $name, $state, $like) = @_;
	my $r = as($role, $sql);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(!$r->{ok} && $r->{state} eq ($state // '42501') && (!$like || $r->{text} =~ $like), "$role cannot: $name") || diag($r->{ok} ? "it can: $r->{out}" : $r->{text});
}
sub of_connector { my ($name) = @_; return '(select id from flohsync.connector_definition where name = ' . literal($name) . ')' }
sub owner_of { my ($name) = @_; return sql("select string_agg(owner::text, ' ' order by resource_type) from flohsync.connector_sync_config where connector_id = " . of_connector($name)) }
sub query { my ($from, $id, $type) = @_; return json_text({ queries => { $type // 'user' => "select $id as external_id, null::text as display_name, null::text as email, null::jsonb as attributes$from" } }) }
sub connector { my ($name, $config) = @_; return "select flohsync.create_connector('$name', 'sql', " . literal($config) . ')' }

#
# Roles: one without rights, a reader, two managers, a sender of webhooks, the
# owner of a handler, an application behind the seam, somebody with data
#
sql(<<'SQL');
create role nobody_at_all login; create role reader login; create role alice login; create role mallory login; create role sender login;
create role handler login; create role app login; create role rich login; create role boss superuser login;
select flohsync.grant_reader('reader'), flohsync.grant_manager('alice'), flohsync.grant_manager('mallory');
grant usage on schema flohsync to sender, handler;
grant execute on function flohsync.receive_webhook(text, bytea, jsonb) to sender;
grant execute on function flohsync.set_entitlement_handler(regprocedure), flohsync.trigger_sync(text, text, text, boolean) to handler;
grant create on database postgres to alice, mallory, app, handler, rich;
set role rich; create schema rich; grant usage on schema rich to public;
create table rich.secret (x text); insert into rich.secret values ('data of the rich');
set role alice; create schema alice; grant usage on schema alice to public; create table alice.secret (x text); insert into alice.secret values ('data of alice');
SQL

#
# 1. Code of others: what it tries, and what it leaves
#
# The statements are tried by one function, of whoever owns the code; what comes
# of each is told by a table of theirs.
my %refused = (
	'SET ROLE' => 'set role alice', 'RESET ROLE' => 'reset role', 'SET SESSION AUTHORIZATION' => 'set session authorization alice',
	'set_config of the role' => qq(select set_config('role', '$superuser', true)), 'a temporary table' => 'create temp table left_behind (x int)',
	'a temporary view' => 'create temp view left_behind as select 1', 'a function in pg_temp' => 'create function pg_temp.left_behind() returns int language sql as $$ select 1 $$',
	'a type in pg_temp' => "create type pg_temp.left_behind as enum ('a')", 'a function in pg_temp by the search path' => 'set local search_path = pg_temp; create function left_behind() returns int language sql as $$ select 1 $$',
	'PREPARE' => 'prepare left_behind as select 1', 'a cursor WITH HOLD' => 'declare left_behind cursor with hold for select 1', 'LISTEN' => 'listen left_behind',
	'UNLISTEN' => 'unlisten *', 'DISCARD' => 'discard all', 'DEALLOCATE' => 'deallocate all', 'CLOSE' => 'close of_the_session', 'SET CONSTRAINTS' => 'set constraints all deferred',
	'an advisory lock of the session' => 'select pg_advisory_lock(1)', 'another' => 'select pg_try_advisory_lock_shared(1, 2)', 'through an operator' => 'select 7::bigint operator(mischief.!!!) 7::bigint',
	'releasing those of the session' => 'select pg_advisory_unlock_all()', 'releasing one' => 'select pg_advisory_unlock(4711)', 'setseed' => 'select setseed(0)',
	'a deferred trigger' => 'insert into mischief.deferred values (1)',
	'tables of the session' => 'select * from public.of_the_session', 'files' => q(select pg_read_file('/etc/passwd')), 'programs' => q(copy mischief.deferred to program 'true'),
	'history' => 'delete from flohsync.sync_run', 'records' => q(update flohsync.resource_record set display_name = 'x'), 'internal functions' => 'select _flohsync.wake()',
	'the owner of a configuration' => q(update flohsync.connector_sync_config set owner = 'rich'), 'triggers of tables' => 'alter table flohsync.connector_sync_config disable trigger all',
	'becoming a superuser' => 'alter role handler superuser', 'becoming the owner' => 'grant flohsync_owner to handler', 'ending the session' => 'select 1/(pg_terminate_backend(pg_backend_pid())::int)',
	'COMMIT' => 'do $x$ begin commit; end $x$',
);
my %allowed = (
	'its own tables' => 'insert into mischief.deferred select 1 where false', 'settings, for as long as it runs' => q(set search_path = mischief; set standard_conforming_strings = off; set flohsync.acting_user = '00000000-0000-0000-0000-000000000001'; set mischief.was = 'here'),
	'locks of the transaction' => 'select pg_advisory_xact_lock(77)', 'NOTIFY' => 'notify mischief',
	'a cursor of its own' => q(declare its_own cursor for select mischief.whoami(); do $x$ declare c refcursor := 'its_own'; r record; begin fetch c into r; end $x$),
);
sql(<<'SQL');
create schema mischief authorization handler; grant usage on schema mischief to public;
set role handler;
create table mischief.deferred (x int);
create function mischief.fire() returns trigger language plpgsql as $$ begin raise notice 'FIRED as %', current_user; return null; end $$;
create constraint trigger fire after insert on mischief.deferred deferrable initially deferred for each row execute function mischief.fire();
create table mischief.statement (what text primary key, sql text, refuse boolean);
create table mischief.seen (place text, who name, path text, what text, outcome text);
grant select on mischief.statement to public; grant insert on mischief.seen, mischief.deferred to public;
create function mischief.whoami() returns text language plpgsql as $$ begin raise notice 'RAN as %', current_user; return current_user; end $$;
create function mischief.lock(bigint, bigint) returns boolean language sql as $$ select pg_try_advisory_lock($1) $$;
create operator mischief.!!! (leftarg = bigint, rightarg = bigint, function = mischief.lock);
create function mischief.try(place text) returns text language plpgsql as $$
declare s record; path text := current_setting('search_path');
begin
  for s in select * from mischief.statement loop
    begin
      execute s.sql;
      insert into mischief.seen values (place, current_user, path, s.what, 'done');
    exception when others then
      insert into mischief.seen values (place, current_user, path, s.what, sqlstate || ' ' || sqlerrm);
    end;
  end loop;
  perform set_config('search_path', 'mischief', false), set_config('mischief.was', 'here', false), set_config('transaction_read_only', 'on', false);
  return place;
end $$;
create function mischief.handle(connector uuid, body jsonb) returns void language plpgsql as $$
declare c refcursor := 'left_open';
begin
  if body ? 'sync' then perform flohsync.trigger_sync('alices', 'user'); return; end if;
  perform mischief.try('handler');
  open c for select mischief.whoami();
end $$;
create function mischief.list(command jsonb) returns jsonb language plpgsql as $$
begin return jsonb_build_object('success', true, 'payload', jsonb_build_object('resources', jsonb_build_array(jsonb_build_object('externalId', mischief.try('function'))))); end $$;
create function mischief.fetch(connector uuid, type text, id text) returns jsonb language plpgsql as $$ begin return to_jsonb(mischief.try('fetcher')); end $$;
SQL
my $n = 0;
for my $refuse (1, 0)
{
	my $set = $refuse ? \%refused : \%allowed;
	for (sort keys %$set)
	{
		sql('insert into mischief.statement values (' . literal(sprintf '%02d %s', $n++, $_) . ', ' . literal($set->{$_}) . ', ' . ($refuse ? 'true' : 'false') . ')');
	}
}
sql("set role handler; select flohsync.set_entitlement_handler('mischief.handle(uuid, jsonb)')");
can('alice', connector('alices', json_text({ queries => { user => "select mischief.try('query') as external_id, null::text as display_name, null::text as email, null::jsonb as attributes" } })) . "; select flohsync.configure_sync('alices', 'user', '{}')", 'a query');
can('alice', connector('functions', json_text({ function => 'mischief.list' })) . "; select flohsync.configure_sync('functions', 'user', '{}')", 'a function');
# Of a user that an application shows by its view
sql(<<'SQL');
create schema app authorization app; grant usage on schema app to public;
set role app;
create table app.member (id uuid primary key default gen_random_uuid(), email text, display_name text, upstream_issuer text, upstream_id text, sub text, confirmed boolean default true, active boolean default true);
grant select, insert, update on app.member to flohsync_worker;
create table app.seen (who name, restricted boolean, done text); grant insert on app.seen to public;
create function app.looked_at(m app.member) returns text language plpgsql as $$
declare restricted boolean := false;
begin
  begin execute 'create temp table probe (x int)'; drop table probe; exception when insufficient_privilege then restricted := true; end;
  insert into app.seen values (current_user, restricted, current_setting('app.doing', true));
  return m.email;
end $$;
SQL
my @ways = (
	[ 'handler', 'handler', "select flohsync.handle_webhook('alices', '{}')" ],
	[ 'query', 'alice', "select flohsync.test_connector('alices')" ],
	[ 'function', 'alice', "select flohsync.test_connector('functions')" ],
	[ 'fetcher', 'handler', "select flohsync.cache_get_or_fetch('alices', 'user', 'x', 'mischief.fetch(uuid, text, text)')" ],
);
sql("create table public.of_the_session (x text); insert into public.of_the_session values ('rows of the session')");
for (@ways)
{
	my ($place, $role, $sql) = @$_;
	sql('truncate mischief.seen');
	my $r = session(<<SQL);
select pg_advisory_lock(4711);
prepare of_the_session as select 'prepared';
listen of_the_session;
set search_path = mischief, pg_catalog; set mischief.was = 'not here';
begin;
declare of_the_session cursor for select x from public.of_the_session;
$sql;
select 'role', current_user, 'path', current_setting('search_path'), 'setting', current_setting('mischief.was'), current_setting('standard_conforming_strings'),
  'locks', (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() and objsubid in (1, 2) and objid <> 77), 'prepared', (select string_agg(name, ' ') from pg_prepared_statements),
  'listens', (select string_agg(c, ' ') from pg_listening_channels() c), 'held', (select string_agg(name, ' ') from pg_cursors where is_holdable),
  'temporary', (select count(*) from pg_proc where pronamespace = pg_my_temp_schema()) + (select count(*) from pg_class where relnamespace = pg_my_temp_schema()) + (select count(*) from pg_type where typnamespace = pg_my_temp_schema()),
  'read only', current_setting('transaction_read_only');
fetch of_the_session;
commit;
SQL
	ok($r->{ok}, "$place: goes on") or diag($r->{text});
	like($r->{out}, qr/^role\|\Q$superuser\E\|path\|mischief, pg_catalog\|setting\|not here\|on\|locks\|1\|prepared\|of_the_session\|listens\|of_the_session\|held\|\|temporary\|0\|read only\|off$/m, "$place: leaves nothing in the session");
	like($r->{out}, qr/^rows of the session$/m, "$place: nor takes anything from it");
	unlike($r->{text}, qr/(?:FIRED|RAN) as (?!$role\b)/, "$place: nothing of it runs as anybody else");
	is(sql("select string_agg(distinct who || ' ' || path, ', ') from mischief.seen"), "$role pg_catalog, pg_temp", "$place: runs as $role, with a search path of ours");
	is(sql("select string_agg(s.what, ', ') from mischief.statement s left join mischief.seen x on x.what = s.what where s.refuse and coalesce(x.outcome, 'done') = 'done'"), '', "$place: what is refused");
	is(sql("select string_agg(s.what || ': ' || coalesce(x.outcome, 'not tried'), ', ') from mischief.statement s left join mischief.seen x on x.what = s.what where not s.refuse and x.outcome is distinct from 'done'"), '', "$place: what is not");
}
# With HINTs of the reason
is(sql("select string_agg(distinct substr(outcome, 1, 5), ' ') from mischief.seen where what ~ 'advisory|pg_temp|releasing|SET CONSTRAINTS|setseed'"), '42501', 'as PostgreSQL refuses such things');
# A cursor that a handler leaves open runs with nobody's rights any more.
my $left = session("begin; select flohsync.handle_webhook('alices', '{}'); fetch left_open");
ok(!$left->{ok} && $left->{message} =~ /cursor "left_open" cannot be used here/, 'a cursor that is left open is of no use to who finds it') or diag($left->{text});
unlike($left->{text}, qr/RAN as \Q$superuser\E/, 'and runs nothing');
# Nor does code of others see what the session reads by a cursor.
sql('set role handler; create function mischief.peek(c uuid, t text, i text) returns jsonb language plpgsql as $$ declare c refcursor := \'of_the_session\'; r record; begin fetch c into r; return to_jsonb(r); end $$');
my $peeked = session("begin; declare of_the_session cursor for select x from public.of_the_session; select flohsync.cache_get_or_fetch('alices', 'user', 'x', 'mischief.peek(uuid, text, text)')");
ok(!$peeked->{ok} && $peeked->{message} =~ /cursor "of_the_session" cannot be used here/, 'a cursor of the session is not for code of others') or diag($peeked->{out} . $peeked->{text});
# In the worker's own session, which holds the lock of the run
sql("truncate mischief.seen");
$f->sync_ok('alices', 'user', 'the same query in a worker');
is(sql("select string_agg(s.what, ', ') from mischief.statement s left join mischief.seen x on x.what = s.what where s.refuse and s.sql !~ 'of_the_session' and coalesce(x.outcome, 'done') = 'done'"), '', 'is refused the same');
is(sql('select string_agg(distinct who, $$ $$) from mischief.seen'), 'alice', 'and runs as the same role');
# Nobody else is changed by that: the same statements by somebody who calls nothing of ours
is(session("select pg_advisory_lock(1), pg_advisory_unlock_all(); create function pg_temp.x() returns int language sql as 'select 1'; select pg_temp.x(); begin; set constraints all deferred; declare c cursor for select 2; fetch c; commit")->{text}, '', 'all of it is allowed elsewhere');

# The text of a query is one SELECT, of whatever shape, and what it is put into cannot be left.
cannot('alice', connector('trick', json_text({ queries => { user => $_ } })), "store: $_", '22023') for 'select 1; drop table alice.secret', 'select 1;', "select 1) q; delete from flohsync.sync_run; --", 'select 1 /*', 'delete from alice.secret', 'copy alice.secret to program $$true$$',
  'do $$ begin end $$', 'select x into alice.copied from alice.secret', 'select x from alice.secret for update', 'call flohsync.sync($$a$$, $$b$$)', "set role $superuser", '', '-- nothing', 'explain select 1', 'values (1), (2) for share', "select 'open";
can('alice', 'create table alice.written (x text)', 'a table');
for ("with w as (insert into alice.written values ('x') returning x) select x as external_id, x as display_name, x as email, null::jsonb as attributes from w",
	"select 'a' as external_id, 'b' as display_name, 'c' as email, null::jsonb as attributes) q union all (select x, x, x, null from alice.written", "select a.*, 1 as more from (values ('a', 'b', 'c', null::jsonb)) a(external_id, display_name, email, attributes) -- ) q where false")
{
	my $name = 'trick ' . ++$n;
	my $made = as('alice', connector($name, json_text({ queries => { user => $_ } })) . "; select flohsync.configure_sync('$name', 'user', '{}')");
	my ($ok, $r) = $made->{ok} ? $f->sync($name, 'user') : (0, $made);
	is($ok ? 'runs' : 'does not', / -- / ? 'runs' : 'does not', substr $_, 0, 60) or diag($ok ? '' : $r->{text});
}
is(sql('select count(*) from alice.written'), 0, 'nothing is written by a query');
# A superuser's, a predefined role's and our own roles' rights are lent to nobody.
sql('truncate mischief.seen; update mischief.statement set sql = $$select 1$$');
session("select flohsync.cache_get_or_fetch('alices', 'user', 'x', 'mischief.fetch(uuid, text, text)'); set role boss; select flohsync.cache_get_or_fetch('alices', 'user', 'x', 'mischief.fetch(uuid, text, text)')");
sql("set role boss; select flohsync.set_entitlement_handler('mischief.handle(uuid, jsonb)'); select flohsync.handle_webhook('alices', '{}')");
is(sql("select string_agg(distinct place || ' ' || who, ', ' order by place || ' ' || who) from mischief.seen"), 'fetcher handler, handler handler', 'of a superuser, code runs with the rights of its owner');
sql('create schema super; grant usage on schema super to public; create table super.seen (who name); grant insert on super.seen to public; create function super.handle(c uuid, b jsonb) returns void language sql as $$ insert into super.seen values (current_user) $$');
sql("select flohsync.set_entitlement_handler('super.handle(uuid, jsonb)'); select flohsync.handle_webhook('alices', '{}')");
is(sql('select who from super.seen'), 'flohsync_nobody', 'where that is a superuser, too, with none');
for my $owner ($superuser, qw(boss pg_read_all_data flohsync_owner flohsync_worker flohsync_nobody))
{
	sql("truncate mischief.seen; update flohsync.connector_sync_config set owner = '$owner' where connector_id = " . of_connector('alices'));
	$f->sync_ok('alices', 'user', "a configuration of $owner");
	is(sql('select distinct who from mischief.seen'), 'flohsync_nobody', 'runs with no rights');
}
sql("update flohsync.connector_sync_config set owner = 'alice' where connector_id = " . of_connector('alices'));
# EXECUTE is asked of who has it run.
can('mallory', "create schema mallory; create function mallory.closed(c uuid, t text, i text) returns jsonb language sql as 'select null::jsonb'; create function mallory.closed(c jsonb) returns jsonb language sql as 'select null::jsonb'; create function mallory.closed(c uuid, b jsonb) returns void language sql as 'select'; grant usage on schema mallory to public; revoke all on all functions in schema mallory from public", 'functions for nobody else');
cannot('reader', "select flohsync.cache_get_or_fetch('alices', 'user', 'x', 'mallory.closed(uuid, text, text)')", 'fetch by what it may not call', '42501', qr/permission denied for function closed/);
sql('select flohsync.set_entitlement_handler(null)');
cannot('handler', "select flohsync.set_entitlement_handler('mallory.closed(uuid, jsonb)')", 'set a handler that it may not call', '42501', qr/permission denied for function/);
sql("grant execute on function mallory.closed(uuid, jsonb) to handler; set role handler; select flohsync.set_entitlement_handler('mallory.closed(uuid, jsonb)'); reset role; revoke execute on function mallory.closed(uuid, jsonb) from handler");
is(session("select flohsync.handle_webhook('alices', '{}')")->{state}, '42501', 'nor is one called that who set it may not call any more');
can('alice', connector('closed', json_text({ function => 'mallory.closed' })) . "; select flohsync.configure_sync('closed', 'user', '{}')", 'a function that is there');
$f->sync_fails('closed', 'user', qr/permission denied for function closed/, 'is not run for who may not call it');
# Code that calls itself ends as an error, not as a crash.
sql("select flohsync.set_entitlement_handler(null); set role handler; create or replace function mischief.again(c uuid, b jsonb) returns void language plpgsql as 'begin perform flohsync.cache_get_or_fetch(''alices'', ''user'', ''x'', ''mischief.again''); end'; create function mischief.again(c uuid, t text, i text) returns jsonb language plpgsql as \$\$ begin return flohsync.cache_get_or_fetch(c::text, t, i, 'mischief.again(uuid, text, text)'); end \$\$; reset role; select flohsync.grant_reader('handler')");
is(as('handler', "select flohsync.cache_get_or_fetch('alices', 'user', 'x', 'mischief.again(uuid, text, text)')")->{state}, '54001', 'a fetcher that fetches by itself');

#
# 2. Who calls
#
# Alice deletes rows of hers; a foreign key's trigger runs code of Mallory's, as
# Mallory, in Alice's session.
my $steal = query(' from alice.secret', 'x');
can('alice', 'create table alice.item (id int primary key); insert into alice.item select generate_series(1, 9); grant references, select on alice.item to mallory', 'a table that others refer to');
can('mallory', connector('stolen', $steal) . ';' . <<'SQL', 'code that runs when somebody else deletes');
create table mallory.child (id int references alice.item on delete cascade); insert into mallory.child select generate_series(1, 9);
create function mallory.deleted() returns trigger language plpgsql as $$
begin perform flohsync.configure_sync('stolen', 'user', '{}'); return old; end $$;
create trigger deleted before delete on mallory.child for each row execute function mallory.deleted();
SQL
can('alice', 'delete from alice.item where id = 1', 'deletes');
is(owner_of('stolen'), 'mallory', 'and owns nothing by that');
$f->sync_fails('stolen', 'user', qr/permission denied/, 'her data are hers');
sql("select flohsync.delete_sync_config('stolen', 'user')");
can('mallory', q(create function mallory.lend() returns text security definer language sql as $$ select flohsync.configure_sync('stolen', 'user', '{}') ->> 'id' || current_user $$; grant execute on function mallory.lend() to public), 'lends the right to configure');
can($_, 'select mallory.lend()', 'uses it') for qw(alice rich);
is(owner_of('stolen'), 'mallory', 'what is made by a SECURITY DEFINER function is its owner\'s');
can('mallory', 'create function mallory.take() returns void security definer language sql as $$ select flohsync.set_sync_owner($q$stolen$q$, $q$user$q$, $q$alice$q$) $$; grant execute on function mallory.take() to public', 'another one');
cannot('alice', 'select mallory.take()', 'gives itself away by it', '42501', qr/role "alice" cannot be made the owner/);
cannot('alice', "create function alice.lend() returns void language sql as \$\$ select flohsync.update_connector('stolen', '{\"config\": {\"queries\": {\"user\": \"select 1\"}}}') \$\$; alter function alice.lend() security definer; set role mallory; select alice.lend()", 'become another by SET ROLE', '42501', qr/permission denied to set role/);
# Alice's own function, called by Mallory, acts as Alice.
can('alice', 'create function alice.own() returns void security definer language sql as $$ select flohsync.set_sync_owner($q$alices$q$, $q$user$q$) $$; grant execute on function alice.own() to public', 'a function of hers');
can('mallory', 'select alice.own()', 'calls it');
is(owner_of('alices'), 'alice', 'which acts as its owner');
# A function in an index, which a superuser's ANALYZE evaluates as the table's owner, restricted
can('mallory', <<'SQL', 'an expression index');
create table mallory.trap (x int); insert into mallory.trap values (1);
create function mallory.act(int) returns int language plpgsql immutable as $$
begin
  perform flohsync.set_sync_owner('stolen', 'user', 'rich');
  return $1;
exception when insufficient_privilege then raise notice 'refused: %', sqlerrm; return $1;
end $$;
create index trapped on mallory.trap (mallory.act(x));
SQL
like(session('analyze mallory.trap')->{text}, qr/refused: role "rich" cannot be made the owner/, 'ANALYZE by a superuser: the table\'s owner is who asks');
is(owner_of('stolen'), 'mallory', 'and nothing comes of it');
# So can a handler ask for a run, with its own rights.
sql("set role handler; select flohsync.set_entitlement_handler('mischief.handle(uuid, jsonb)')");
my $asked = session("select flohsync.handle_webhook('alices', '{\"sync\": 1}')");
ok($asked->{ok}, 'a handler asks for a run') or diag($asked->{text});
is(sql('select requested_by from flohsync.sync_run order by id desc limit 1'), 'handler', 'as itself');
$f->wait_run(sql('select max(id) from flohsync.sync_run'));
sql("set role alice; select flohsync.trigger_sync('alices', 'user')");
is(sql('select requested_by from flohsync.sync_run order by id desc limit 1'), 'alice', 'and who takes a role, as that');
$f->wait_run(sql('select max(id) from flohsync.sync_run'));
for (qw(caller caller_name))
{
	my $stale = session("select flohsync.update_connector('alices', '{}'); set role flohsync_owner; select _flohsync.$_()");
	is($stale->{state}, '42501', "$_: who called is forgotten when the call has ended") or diag($stale->{out});
}
is(sql("select string_agg(p.oid::regprocedure::text, ', ') from pg_proc p where p.pronamespace = '_flohsync'::regnamespace and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where pg_get_userbyid(a.grantee) not in ('flohsync_owner', 'flohsync_worker'))"), '', 'nothing of _flohsync is for anybody else');

#
# 3. What decides what runs
#
cannot('mallory', $_->[1], $_->[0], '42501', $_->[2]) for
  [ 'change a query of another\'s', "select flohsync.update_connector('alices', " . literal(json_text({ config => { queries => { user => 'select 1' } } })) . ')', qr/connector "alices" runs with the rights of role "alice"/ ],
  [ 'take a configuration', "select flohsync.set_sync_owner('alices', 'user')", qr/runs with the rights of role "alice"/ ],
  [ 'make another the owner', "select flohsync.set_sync_owner('stolen', 'user', 'alice')", qr/role "alice" cannot be made the owner/ ],
  [ 'make a superuser the owner', "select flohsync.set_sync_owner('stolen', 'user', '$superuser')", qr/cannot be made the owner/ ],
  [ 'make a predefined role the owner', "select flohsync.set_sync_owner('stolen', 'user', 'pg_read_all_data')", qr/cannot be made the owner/ ],
  [ 'make the owner of tables the owner', "select flohsync.set_sync_owner('stolen', 'user', 'flohsync_owner')", qr/cannot be made the owner/ ];
sql('grant execute on function flohsync.set_entitlement_handler(regprocedure) to mallory; grant alice to handler');
sql("set role handler; select flohsync.set_entitlement_handler('mischief.handle(uuid, jsonb)')");
cannot('mallory', "select flohsync.set_entitlement_handler($_)", 'change another\'s handler', '42501', qr/runs with the rights of role "handler"/) for "'mallory.closed(uuid, jsonb)'", 'null';
# Who configures what another wrote is told so.
can('mallory', connector('swapped', query('', '1')), 'a connector');
is(as('mallory', "select flohsync.configure_sync('swapped', 'user', '{}')")->{text}, '', 'configures it');
like(as('alice', "select flohsync.configure_sync('swapped', 'more', '{}')")->{text}, qr/WARNING: .*role "mallory" decided what connector "swapped" runs.*"more" runs with the rights of role "alice"/s, 'alice lends her rights to it, and is told');
# Somebody else's function under the same name
can('app', 'create schema shared; grant usage, create on schema shared to public', 'a schema for all');
my $list = sub { my ($what) = @_; return "create function shared.list(c jsonb) returns jsonb language sql as \$\$ select jsonb_build_object('success', true, 'payload', jsonb_build_object('resources', jsonb_build_array(jsonb_build_object('externalId', $what)))) \$\$" };
can('alice', $list->('current_user') . ';' . connector('shared', json_text({ function => 'shared.list' })) . "; select flohsync.configure_sync('shared', 'user', '{}')", 'a function in it');
$f->sync_ok('shared', 'user', 'runs');
can('app', 'drop function shared.list(jsonb); set check_function_bodies = off; ' . $list->('(select x from alice.secret)'), 'replaces it');
$f->sync_fails('shared', 'user', qr/the owner of function shared\.list has changed since/, 'somebody else\'s is not run in its place');
is($f->json("select flohsync.test_connector('shared')")->{ok}, JSON::PP::false, 'nor is it tested');
cannot('mallory', "select flohsync.update_connector('shared', '{\"config\": {\"function\": \"shared.list\"}}')", 'accept it for her');
$f->sync_fails('shared', 'user', qr/the owner of function .* has changed/, 'still not');
is(sql('select count(*) from flohsync.resource_record where external_id ~ $$alice.$$'), 0, 'her data are hers');
can('alice', "select flohsync.update_connector('shared', '{\"config\": {\"function\": \"shared.list\"}}')", 'accepts it');
$f->sync_ok('shared', 'user', 'then it runs');
sql("update flohsync.connector_definition set config = '{\"function\": \"mischief.list\"}' where name = 'shared'");
is(sql("select author || ' ' || code_owner from flohsync.connector_definition where name = 'shared'"), "$superuser handler", 'and by a statement: whose it is is noted');
sql("select flohsync.set_entitlement_handler(null); set role handler; create function shared.handle(c uuid, b jsonb) returns void language sql as 'select'; select flohsync.set_entitlement_handler('shared.handle(uuid, jsonb)'); set role app; drop function shared.handle(uuid, jsonb); create function shared.handle(c uuid, b jsonb) returns void language sql as 'select'");
is(session("select flohsync.handle_webhook('alices', '{}')")->{state}, '55000', 'nor another\'s handler');
sql('select flohsync.set_entitlement_handler(null)');
# A type that nobody has configured runs with the rights of who wrote the query, and not of who asks.
can('mallory', 'create table mallory.loot (who name); grant insert on mallory.loot to public; create function mallory.grab() returns text language plpgsql as $$ begin insert into mallory.loot values (current_user); return $q$x$q$; end $$;' . connector('unconfigured', query('', 'mallory.grab()', 'thing')), 'a connector');
can($_->[0], $_->[1], 'asks for what nobody has configured') for [ 'reader', "select flohsync.cache_get_or_fetch('unconfigured', 'thing', 'x')" ], [ 'alice', "select flohsync.test_connector('unconfigured')" ], [ $superuser, "select flohsync.test_connector('unconfigured')" ];
is(sql("select string_agg(distinct who, ' ') from mallory.loot"), 'mallory', 'and lends no rights');
can('alice', "select flohsync.update_connector('unconfigured', " . literal(json_text({ config => decode_json_text(query('', 'mallory.grab()', 'thing')) })) . '); select flohsync.update_connector($$unconfigured$$, $${"description": "by alice"}$$)', 'looks at it');
is(sql('select author from flohsync.connector_definition where name = $$unconfigured$$'), 'mallory', 'who writes the same has written nothing');
can('alice', "select flohsync.update_connector('unconfigured', " . literal(json_text({ config => decode_json_text(query(' limit 1', 'mallory.grab()', 'thing')) })) . ')', 'writes another');
is(sql('select author from flohsync.connector_definition where name = $$unconfigured$$'), 'alice', 'which is hers');
# Statements, where somebody granted that
sql('grant select, insert, update, delete on all tables in schema flohsync, _flohsync to mallory; grant usage on schema _flohsync to mallory; grant execute on all functions in schema _flohsync to mallory');
cannot('mallory', $_->[1], $_->[0] . ', by a statement', '42501', $_->[2] // qr/role "alice"/) for
  [ 'change a query', 'update flohsync.connector_definition set config = ' . literal(query('', '1')) . " where name = 'alices'" ],
  [ 'change the kind', "update flohsync.connector_definition set kind = 'command', config = '{\"url\": \"https://a.example\"}' where name = 'alices'" ],
  [ 'accept a function', "update flohsync.connector_definition set code_owner = 'mallory' where name = 'shared'" ],
  [ 'be the author', "update flohsync.connector_definition set author = 'mallory' where name = 'shared'" ],
  [ 'make another the author', "insert into flohsync.connector_definition (name, kind, config, author) values ('forged', 'sql', " . literal($steal) . ", 'alice')" ],
  [ 'make another the owner', "insert into flohsync.connector_sync_config (connector_id, resource_type, owner) values (" . of_connector('stolen') . ", 'x', 'alice')" ],
  [ 'move a configuration to another connector', 'update flohsync.connector_sync_config set connector_id = ' . of_connector('unconfigured') . ' where connector_id = ' . of_connector('alices') ],
  [ 'move it to another type', "update flohsync.connector_sync_config set resource_type = 'moved' where connector_id = " . of_connector('alices') ],
  [ 'take a configuration', "update flohsync.connector_sync_config set owner = 'mallory' where connector_id = " . of_connector('alices') ],
  [ 'set a handler for another', "insert into _flohsync.webhook_handler (handler, owner, code_owner) values ('mallory.closed(uuid, jsonb)', 'alice', 'mallory')" ];
sql('revoke all on all tables in schema flohsync, _flohsync from mallory; revoke all on schema _flohsync from mallory; revoke all on all functions in schema _flohsync from mallory');
sql("select flohsync.grant_manager('mallory')");
# One door for config and definition
my $rest = $f->json("select flohsync.connector_template('scim')");
can('alice', "select flohsync.create_connector('rest', 'rest', '{\"base_url\": \"https://a.example\"}', flohsync.connector_template('scim'))", 'a definition');
cannot('alice', 'select flohsync.update_connector($$rest$$, ' . literal(json_text({ definition => { %$rest, resources => 7 } })) . ')', 'store one that makes no sense', '22023');
is($f->try_sql($_)->{state}, '22023', 'nor a superuser by a statement') for "insert into flohsync.connector_definition (name, kind, config, definition) values ('bad', 'rest', '{}', '{\"version\": 1, \"resources\": 7}')",
  "update flohsync.connector_definition set definition = '{}' where name = 'rest'", "update flohsync.connector_definition set config = '{\"queries\": 7}' where name = 'alices'";

#
# 4. The seam: an application's code has the rights of the workers alone, whatever is called
#
sql(<<'SQL');
insert into app.member (email, display_name) values ('a@example.com', 'A'), ('b@example.com', 'B');
create or replace view flohsync.v_user with (security_barrier) as
select m.id, app.looked_at(m) as email, m.display_name, m.upstream_issuer, m.upstream_id, m.sub, m.confirmed, m.active from app.member m where app.looked_at(m) is not null;
SQL
is(sql("select pg_get_viewdef('_flohsync.app_user'::regclass) ~ 'looked_at'"), 't', 'our own view follows');
cannot('mallory', 'create or replace view flohsync.v_user as select 1', 'replace the view of users');
can('mallory', qq(create view mallory."flohsync.v_user" as select 1 as "v_user"; create view mallory.v_user as select 2 as x; create view mallory."v_user;drop" as select 3 as x; create temp view v_user as select 4 as x), 'views of such names');
is(sql("select pg_get_viewdef('_flohsync.app_user'::regclass) ~ 'looked_at'"), 't', 'are no concern of ours');
my $people = json_text({ queries => { user => q(select x as external_id, x as display_name, x || '@example.com' as email, null::jsonb as attributes from unnest('{a,b,c}'::text[]) x) } });
can('alice', connector('people', $people) . q(; select flohsync.configure_sync('people', 'user', '{"deactivateUsers": true, "safeguards": {"minRecords": 0}}')), 'people');
$f->sync_ok('people', 'user', 'matched to them');
my $member = sql("select id from app.member where email = 'a\@example.com'");
my $match = sql("select id from flohsync.connector_sync_match where external_id = 'c'");
sql("insert into flohsync.sync_run (connector_id, resource_type, strategy, trigger, status, complete, pass_id, pass_started_at) values (" . of_connector('people') . ", 'user', 'full', 'manual', 'held', true, currval('flohsync.sync_run_id_seq') + 1, now())") for 1, 2;
sql("update flohsync.sync_run r set pass_id = r.id, decided_under = _flohsync.decided_under(d, c) from flohsync.connector_sync_config c join flohsync.connector_definition d on d.id = c.connector_id where r.status = 'held' and c.connector_id = r.connector_id and c.resource_type = r.resource_type");
my @held = split /\n/, sql("select id from flohsync.sync_run where status = 'held' order by id");
my $record = '{"externalId": "d", "email": "d@example.com"}';
my %calls = (
	configure_sync => qq(select flohsync.configure_sync('people', 'user', '{"createUserDefaults": {"managerId": "$member"}}')), match_users => "select flohsync.match_users('people', 'user')",
	explain_match => "select flohsync.explain_match('people', 'user', 'a')", list_matches => "select flohsync.list_matches('people', 'user')", match_stats => "select flohsync.match_stats('people', 'user')",
	resolve_match => "select flohsync.resolve_match('$match', 'link', '$member')", bulk_resolve_matches => "select flohsync.bulk_resolve_matches('people', array['$match'::uuid], 'link', '$member')",
	unlink_match => "select flohsync.unlink_match('$match')", mark_stale => "select flohsync.mark_stale('people', 'user', clock_timestamp())",
	'reject_run' => "select flohsync.reject_run($held[0])", 'approve_run' => "select flohsync.approve_run($held[1])", purge_stale => "select flohsync.purge_stale('people', 'user', '1 second')",
	upsert_resource => "select flohsync.upsert_resource('people', 'user', '$record')", upsert_resources => "select flohsync.upsert_resources('people', 'user', '[$record]')",
	handle_webhook => q(select flohsync.handle_webhook('people', '{"action": "updated", "resourceId": "a", "resourceType": "user", "data": {"displayName": "AA"}}'), flohsync.handle_webhook('people', '{"action": "deleted", "resourceId": "b", "resourceType": "user"}')),
	sync_status => "select flohsync.sync_status('people', 'user'), flohsync.sync_config('people', 'user')", metrics => 'select flohsync.metrics()', claim_workflow_jobs => 'select * from flohsync.claim_workflow_jobs(1)',
	cancel_sync => "select flohsync.cancel_sync($held[0])", test_connector => "select flohsync.test_connector('people')", cache => "select flohsync.cache_get_or_fetch('people', 'user', 'a'), flohsync.cache_get('people', 'user', 'a'), flohsync.cache_invalidate('people', 'user', 'a'), flohsync.cache_clear('people')",
	update_connector => "select flohsync.update_connector('people', '{\"description\": \"x\"}')", set_secret => "select flohsync.set_secret('people', 'token', 'x')", delete_sync_config => "select flohsync.delete_sync_config('people', 'user')", drop_connector => "select flohsync.drop_connector('people')",
);
my @order = (qw(match_users explain_match list_matches match_stats resolve_match bulk_resolve_matches unlink_match handle_webhook configure_sync upsert_resource upsert_resources mark_stale reject_run approve_run purge_stale sync_status metrics claim_workflow_jobs cancel_sync test_connector cache update_connector set_secret delete_sync_config drop_connector));
is(join(' ', sort @order), join(' ', sort keys %calls), 'all of them');
# Traps in a search path, and in the temporary schema, that nobody steps into
sql(<<'SQL');
create schema trap; grant usage on schema trap to public;
create function trap.eq(text, text) returns boolean language plpgsql as $$ begin raise notice 'TRAPPED as %', current_user; return $1 operator(pg_catalog.=) $2; end $$;
create function trap.eq(uuid, uuid) returns boolean language plpgsql as $$ begin raise notice 'TRAPPED as %', current_user; return $1 operator(pg_catalog.=) $2; end $$;
create function trap.eq(jsonb, jsonb) returns boolean language plpgsql as $$ begin raise notice 'TRAPPED as %', current_user; return $1 operator(pg_catalog.=) $2; end $$;
create operator trap.= (leftarg = text, rightarg = text, function = trap.eq); create operator trap.= (leftarg = uuid, rightarg = uuid, function = trap.eq); create operator trap.= (leftarg = jsonb, rightarg = jsonb, function = trap.eq);
create function trap.clock_timestamp() returns timestamptz language plpgsql as $$ begin raise notice 'TRAPPED as %', current_user; return pg_catalog.clock_timestamp(); end $$;
create function trap.now() returns timestamptz language plpgsql as $$ begin raise notice 'TRAPPED as %', current_user; return pg_catalog.now(); end $$;
create function trap.length(text) returns int language plpgsql as $$ begin raise notice 'TRAPPED as %', current_user; return pg_catalog.length($1); end $$;
create function trap.jsonb_typeof(jsonb) returns text language plpgsql as $$ begin raise notice 'TRAPPED as %', current_user; return pg_catalog.jsonb_typeof($1); end $$;
create function trap.cardinality(anyarray) returns int language plpgsql as $$ begin raise notice 'TRAPPED as %', current_user; return pg_catalog.cardinality($1); end $$;
SQL
my $trap = 'create temp table connector_definition (id uuid, name text); create temp table connector_sync_config (id int); create temp table pg_proc (oid int); create function pg_temp.length(text) returns int language sql as $$ select 0 $$; set search_path = pg_temp, trap, pg_catalog, flohsync, _flohsync;';
sql('truncate app.seen');
my %trapped;
for (@order)
{
	(my $call = $calls{$_}) =~ s/clock_timestamp\(\)/pg_catalog.clock_timestamp()/;
	my $r = as('alice', "$trap set app.doing = '$_'; $call");
	ok($r->{ok}, "alice: $_") or diag($r->{text});
	$trapped{$_} = 1 if $r->{text} =~ /TRAPPED/;
}
is(join(' ', sort keys %trapped), '', 'no operator and no function of a caller\'s search path is called');
is(sql("select string_agg(distinct done || ' as ' || who || case when restricted then '' else ', not restricted' end, '; ') from app.seen where who <> 'flohsync_worker' or not restricted"), '', 'an application\'s view is looked at as the workers, restricted');
cmp_ok(sql("select count(distinct done) from app.seen"), '>=', 8, 'often enough to say so');
is(sql("select string_agg(distinct done, ' ' order by done) from app.seen where done in ('configure_sync', 'reject_run', 'approve_run', 'resolve_match')"), 'approve_run configure_sync reject_run resolve_match', 'also by those that do little else with users');
# That code tries to act for whoever calls.
sql(<<'SQL');
set role app;
create table app.tried (what text, outcome text); grant insert on app.tried to public;
create function app.steal(c uuid, t text, i text) returns jsonb language plpgsql as $$ begin insert into app.tried values ('ran as ' || current_user, 'done'); return null; end $$;
create or replace function app.looked_at(m app.member) returns text language plpgsql as $$
declare s text;
begin
  foreach s in array array[
    'select _flohsync.caller()', 'select _flohsync.acting_role()', 'select flohsync.cache_get_or_fetch(''alices'', ''user'', ''x'', ''app.steal(uuid, text, text)'')',
    'select _flohsync.cache_get_or_fetch(''alices'', ''user'', ''x'', ''app.steal(uuid, text, text)'')', 'select _flohsync.set_sync_owner(''alices'', ''user'', ''app'')',
    'select _flohsync.configure_sync(''stolen'', ''more'', ''{}'')', 'select _flohsync.update_connector(''alices'', ''{"config": {"queries": {"user": "select 1"}}}'')', 'select _flohsync.set_entitlement_handler(null)',
    'select flohsync.set_sync_owner(''alices'', ''user'', ''app'')', 'update flohsync.connector_sync_config set owner = ''app''', 'update flohsync.connector_definition set author = ''app''',
    'delete from _flohsync.webhook_handler', 'set role alice', 'select _flohsync.grant_worker(''app'')', 'select flohsync.grant_manager(''app'')', 'grant flohsync_worker to app'] loop
    begin
      execute s;
      insert into app.tried values (s, 'done');
    exception when others then
      insert into app.tried values (s, sqlstate);
    end;
  end loop;
  return m.email;
end $$;
SQL
can('alice', connector('people1', $people) . "; select flohsync.configure_sync('people1', 'user', '{}'); select flohsync.upsert_resource('people1', 'user', '{\"externalId\": \"a\", \"email\": \"a\@example.com\"}'); select flohsync.match_users('people1', 'user')", 'looks at the users of an application');
cmp_ok(sql('select count(distinct what) from app.tried'), '>', 10, 'whose code tries to act for her');
is(sql("select string_agg(distinct what, '; ') from app.tried where outcome = 'done' or what like 'ran as%'"), '', 'and cannot');
# In a worker: what it sets is not there for others' queries.
sql(<<'SQL');
set role app; create or replace function app.looked_at(m app.member) returns text language plpgsql as $$ begin perform set_config('TimeZone', 'Asia/Tokyo', false), set_config('app.poison', 'yes', false); return m.email; end $$;
SQL
my $settings = query('', q(current_setting('TimeZone') || coalesce(current_setting('app.poison', true), '')), 'thing');
can('alice', connector('people2', $people) . "; select flohsync.configure_sync('people2', 'user', '{}'); " . connector('settings', $settings) . "; select flohsync.configure_sync('settings', 'thing', '{}')", 'two connectors');
sql("begin; select flohsync.trigger_sync('people2', 'user'); select flohsync.trigger_sync('settings', 'thing'); commit");
$f->wait_run(sql('select max(id) from flohsync.sync_run'));
is(sql("select external_id from flohsync.resource_record where resource_type = 'thing'"), 'UTC', 'what an application sets in a worker is gone in the next transaction');

#
# 5. Senders, readers, and who has nothing
#
sql("select flohsync.set_secret('alices', 'webhook', 'secret of alice')");
for my $role (qw(nobody_at_all sender reader))
{
	my $may = sql("select string_agg(p.oid::regprocedure::text, ' ' order by p.proname) from pg_proc p where p.pronamespace = 'flohsync'::regnamespace and has_function_privilege('$role', p.oid, 'EXECUTE') and p.proname !~ '^(canonical|resource_hash|cron)'");
	is($may // '', { nobody_at_all => '', sender => 'flohsync.receive_webhook(text,bytea,jsonb)' }->{$role}, "$role: its functions") if $role ne 'reader';
	unlike($may, qr/set_|create_|update_|drop_|delete_|grant_|revoke_|trigger|cancel|approve|reject|resolve|upsert|purge|webhook|rotate|put|invalidate|clear/, "$role: none that changes anything") if $role eq 'reader';
	is(sql("select count(*) from pg_class c where c.relnamespace in ('flohsync'::regnamespace, '_flohsync'::regnamespace) and c.relkind in ('r', 'v', 'S') and (has_any_column_privilege('$role', c.oid, 'INSERT, UPDATE, REFERENCES') or has_table_privilege('$role', c.oid, 'DELETE, TRUNCATE, TRIGGER'))") || sql("select count(*) from pg_class c where c.relnamespace = '_flohsync'::regnamespace and c.relkind in ('r', 'v') and has_any_column_privilege('$role', c.oid, 'SELECT')"), 0, "$role: no table to write, none of ours to read");
}
my ($known, $unknown) = map { as('sender', "select flohsync.receive_webhook('$_', '{}', '{\"X-Webhook-Signature\": \"00\"}')") } 'alices', 'no such connector';
is("$known->{state} $known->{message}", '28000 webhook is not authentic', 'a sender is told nothing');
is($known->{text} =~ s/LOCATION.*//sr, $unknown->{text} =~ s/LOCATION.*//sr, 'whether there is such a connector');
is(sql("select string_agg(c.column_name, ' ') from information_schema.columns c where c.table_schema = 'flohsync' and c.table_name = 'connector_definition' and has_column_privilege('reader', 'flohsync.connector_definition', c.column_name, 'SELECT') and c.column_name in ('config', 'definition')"), '', 'a reader sees no config');

#
# 6. Roles that go, come back, and lose their access
#
is(sql("select '?x'::_flohsync.role || ' ' || '=?x'::_flohsync.role || ' ' || '10'::_flohsync.role || ' ' || 'alice'::_flohsync.role || ' ' || '=alice'::_flohsync.role || ' ' || coalesce(_flohsync.role_oid('?alice'), 0)"), '?x ??x ?10 alice alice 0', 'roles as text');
sql('create role "?x"');
is(sql("select '=?x'::_flohsync.role || ' ' || '??x'::_flohsync.role || ' ' || ('=?x'::_flohsync.role::text::_flohsync.role)::text || ' ' || (_flohsync.role_oid('??x') is null)"), '=?x ??x =?x true', 'one that is called so, and one that was');
is($f->try_sql("select '$_'::_flohsync.role")->{state}, '42602', 'no role: ' . substr $_, 0, 3) for '', '?', '=', 'x' x 64, '?' . 'x' x 64;
sql('create role temporary login; select flohsync.grant_manager($$temporary$$)');
can('temporary', connector('theirs', query('', 'current_user')) . "; select flohsync.configure_sync('theirs', 'user', '{}')", 'makes a connector');
sql('drop owned by temporary; drop role temporary; create role temporary login; select flohsync.grant_manager($$temporary$$)');
$f->sync_fails('theirs', 'user', qr/role "temporary".*no longer exists/, 'of a role that is dropped nothing runs, also where one has its name');
is($f->json("select flohsync.test_connector('theirs')")->{ok}, JSON::PP::false, 'nor is it tested');
sql('create role team; select flohsync.grant_manager($$team$$); create role member login in role team');
can('member', connector('team', query('', 'current_user')) . "; select flohsync.configure_sync('team', 'user', '{}')", 'of a team');
$f->sync_ok('team', 'user', 'runs');
like($f->try_sql("select flohsync.revoke_access('team')")->{text}, qr/1 configurations that ran with the rights of role "team" or of its members no longer run.*"team", user/s, 'revoke_access names what a member of the role ran');
$f->sync_fails('team', 'user', qr/role "member".*may not run it/, 'which runs no more');
is(sql("select owner || ' ' || author from flohsync.connector_sync_config c join flohsync.connector_definition d on d.id = c.connector_id where d.name = 'team'"), '?member ?member', 'nor does what is not configured');

#
# 7. A dump, a second database, and CREATE EXTENSION where somebody was before
#
sql("select flohsync.set_entitlement_handler(null); set role handler; select flohsync.set_entitlement_handler('mischief.handle(uuid, jsonb)'); reset role; revoke execute on function flohsync.trigger_sync(text, text, text, boolean) from handler");
my $state = "select (select jsonb_agg(jsonb_build_array(d.name, c.resource_type, c.owner, d.author, d.code_owner) order by d.name, c.resource_type) from flohsync.connector_sync_config c join flohsync.connector_definition d on d.id = c.connector_id)
  || (select jsonb_agg(jsonb_build_array(h.handler, h.owner, h.code_owner)) from _flohsync.webhook_handler h)
  || (select jsonb_agg(jsonb_build_array(p.oid::regprocedure, a.grantee::regrole) order by p.oid::regprocedure::text, a.grantee) from pg_proc p, aclexplode(p.proacl) a where p.pronamespace in ('flohsync'::regnamespace, '_flohsync'::regnamespace))
  || (select jsonb_agg(jsonb_build_array(c.oid::regclass, a.grantee::regrole, a.privilege_type) order by c.oid::regclass::text, a.grantee, a.privilege_type) from pg_class c, aclexplode(c.relacl) a where c.relnamespace in ('flohsync'::regnamespace, '_flohsync'::regnamespace))";
my $before = sql($state);
my $dump = "$dir/dump";
$f->node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $f->node->connstr('postgres') ], 'a dump');
unlike((run_command([ 'pg_restore', '-f', '-', $dump ]))[0], qr/(?:GRANT|REVOKE) [^;]* (?:FROM|TO) (?:\Q$superuser\E|flohsync_owner)\b/, 'which grants nothing to who made the extension');
sql('create role admin superuser login; create database copy owner admin');
$f->node->command_ok([ 'pg_restore', '-e', '-U', 'admin', '-d', $f->node->connstr('copy'), $dump ], 'is restored by another superuser');
is(sql($state, 'copy'), $before, 'with the same owners and rights');
sql('drop extension flohsync cascade; create extension flohsync', 'copy');
is(sql('select count(*) from pg_proc p, aclexplode(p.proacl) a where p.pronamespace = $$flohsync$$::regnamespace and a.grantee::regrole::text in ($$alice$$, $$mallory$$, $$reader$$)', 'copy'), 0, 'dropped and made again, nothing is granted');
$f->disconnect('copy');
# Default privileges
sql('create database second');
is(sql(<<'SQL', 'second'), '0|0|0', 'default privileges reach nothing');
alter default privileges grant all on tables to mallory; alter default privileges grant all on functions to mallory; alter default privileges grant all on schemas to mallory; alter default privileges grant all on types to mallory;
create extension flohsync;
select (select count(*) from pg_class c, aclexplode(c.relacl) a where c.relnamespace::regnamespace::text in ('flohsync', '_flohsync') and a.grantee = 'mallory'::regrole),
  (select count(*) from pg_proc c, aclexplode(c.proacl) a where c.pronamespace::regnamespace::text in ('flohsync', '_flohsync') and a.grantee in (0, 'mallory'::regrole)),
  (select count(*) from pg_namespace n, aclexplode(n.nspacl) a where n.nspname in ('flohsync', '_flohsync') and a.grantee in (0, 'mallory'::regrole));
SQL
# Who owns the database, and is no superuser
sql('create role dbo login; create database owned owner dbo; create role lent admin dbo');
sql('create extension flohsync', 'owned');
my $db = sub { my ($sql) = @_; return $f->try_sql("SET SESSION AUTHORIZATION dbo; $sql", 'owned') };
is($db->($_)->{state}, '42501', "the owner of the database cannot: $_") for 'drop extension flohsync', 'drop schema flohsync cascade', 'alter schema _flohsync rename to x', 'create table flohsync.x (x int)', 'alter table flohsync.sync_run disable trigger all',
  'select * from flohsync.sync_run', "select flohsync.grant_manager('dbo')", 'create event trigger x on ddl_command_end execute function pg_catalog.now()', 'alter function flohsync.metrics() owner to dbo', 'alter event trigger flohsync_seam disable',
  'alter database owned set flohsync.enabled = off', "alter database owned set flohsync.http_allowed_networks = '0.0.0.0/0'", 'truncate flohsync.sync_run cascade', 'reassign owned by flohsync_owner to dbo';
ok($db->($_)->{ok}, "but: $_") for 'grant lent to flohsync_worker', 'alter database owned set role = lent', "alter database owned set search_path = 'public'", 'alter database owned set standard_conforming_strings = off', 'alter database owned set row_security = off',
  "alter database owned set default_transaction_isolation = 'serializable'", 'alter database owned set default_transaction_read_only = on';
sql("set default_transaction_read_only = off; set transaction read write; select flohsync.grant_manager('alice')", 'owned');
my $ran = $f->try_sql("SET default_transaction_read_only = off; set statement_timeout = '60s'; set session authorization alice; set default_transaction_read_only = off; " . connector('mine', query('', q(session_user || ' ' || current_user || ' ' || current_setting('standard_conforming_strings')))) . "; select flohsync.configure_sync('mine', 'user', '{}'); call flohsync.sync('mine', 'user')", 'owned');
ok($ran->{ok}, 'what the owner of a database sets for it does not keep workers from their work') or diag($ran->{text});
is(sql('select external_id from flohsync.resource_record', 'owned'), 'flohsync_worker alice on', 'nor changes whose it is');
sql('revoke lent from flohsync_worker; drop role lent');
$f->disconnect('owned');
# A view that hides rows is a barrier.
sql("insert into flohsync.floh_user (iss, sub, email, display_name, confirmed, deleted_at) values ('i', 's1', 'here\@example.com', 'H', true, null), ('i', 's2', 'deleted\@example.com', 'D', true, now()); create role looker; grant usage on schema flohsync to looker; grant select on flohsync.v_user to looker; create schema looker authorization looker", 'second');
my $looked = $f->try_sql("SET ROLE looker; create function looker.leak(text) returns boolean language plpgsql cost 0.0001 as \$\$ begin raise notice 'leaked %', \$1; return true; end \$\$; select count(*) from flohsync.v_user where looker.leak(email)", 'second');
is(sql("select 'security_barrier=true' = any (c.reloptions) from pg_class c where c.oid = 'flohsync.v_user'::regclass", 'second'), 't', 'v_user is a security barrier');
like($looked->{text}, qr/leaked here/, 'a function sees the users that there are');
unlike($looked->{text}, qr/leaked deleted/, 'and not those that are deleted');
$f->disconnect('second');
# Somebody was there before.
sql('create database third; alter default privileges revoke all on functions from mallory');
my @traps = (
	[ 'a schema with an operator in it', 'create schema flohsync; create function public.trap(oid, regnamespace) returns boolean language plpgsql as $$ begin raise exception $q$trapped$q$; end $$; create operator flohsync.= (leftarg = oid, rightarg = regnamespace, function = public.trap)', 'drop schema flohsync cascade', '55000', qr/exists and is not empty/ ],
	[ 'a schema of another', 'create schema flohsync authorization mallory', 'drop schema flohsync', '55000', qr/does not belong to a superuser/ ],
	[ 'an internal schema', 'create schema _flohsync', 'drop schema _flohsync', '42P06', qr/already exists/ ],
	[ 'a member of the owner', 'grant flohsync_owner to mallory', 'revoke flohsync_owner from mallory', '0P000', qr/role "flohsync_owner" exists with privileges/ ],
	[ 'an owner with more rights', 'grant pg_write_server_files to flohsync_owner', 'revoke pg_write_server_files from flohsync_owner', '0P000', qr/role "flohsync_owner"/ ],
	[ 'an owner who logs in', 'alter role flohsync_owner login', 'alter role flohsync_owner nologin', '0P000', qr/role "flohsync_owner"/ ],
	[ 'a nobody with rights', 'grant pg_read_all_data to flohsync_nobody', 'revoke pg_read_all_data from flohsync_nobody', '0P000', qr/role "flohsync_nobody"/ ],
	[ 'a worker who logs in', 'alter role flohsync_worker connection limit 5', 'alter role flohsync_worker connection limit 0', '0P000', qr/role "flohsync_worker" exists, and others can use it/ ],
	[ 'a member of the workers', 'grant flohsync_worker to mallory', 'revoke flohsync_worker from mallory', '0P000', qr/role "flohsync_worker" exists, and others can use it/ ],
	[ 'a worker with the server\'s files', 'grant pg_execute_server_program to flohsync_worker', 'revoke pg_execute_server_program from flohsync_worker', '0P000', qr/cannot be the role of the flohsync workers/ ],
);
for (@traps)
{
	my ($what, $set, $undo, $stateof, $like) = @$_;
	sql($set, 'third');
	my $r = $f->try_sql('create extension flohsync', 'third');
	ok(!$r->{ok} && $r->{state} eq $stateof && $r->{text} =~ $like, "CREATE EXTENSION refuses $what") or diag($r->{ok} ? 'it does not' : $r->{text});
	sql('drop extension if exists flohsync', 'third');
	sql($undo, 'third');
}
ok($f->try_sql('create extension flohsync', 'third')->{ok}, 'and takes the roles as they are otherwise');

$f->no_crash;
done_testing();
