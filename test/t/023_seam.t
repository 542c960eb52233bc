# An application with its own users replaces v_user and the four functions that
# write users, and nothing else: everything works on its table then.
use strict;
use warnings;

use Flohsync;
use Test::More;

my $f = Flohsync->new;

$f->sql(q{
create schema app;
create table app.member (
  key uuid primary key default gen_random_uuid(), mail text not null, full_name text, login text, idp text, idp_id text,
  verified boolean not null default true, blocked_by bigint, profile jsonb not null default '{}');
create table app.directory (id text primary key, name text, mail text, attrs jsonb);
grant usage on schema app to flohsync_worker, flohsync_nobody;
grant select on app.directory to flohsync_nobody;  -- the configuration is a superuser's
grant select, insert, update on app.member to flohsync_worker;

create or replace view flohsync.v_user as
select m.key as id, m.mail as email, m.full_name as display_name, m.idp as upstream_issuer, m.idp_id as upstream_id, m.login as sub,
       m.verified as confirmed, true as active
  from app.member m where m.blocked_by is null;

create or replace function flohsync._user_create(_emails text[], _display_names text[])
returns table ("position" integer, user_id uuid, problem text) language plpgsql as $$
#variable_conflict use_column
begin
  for i in 1 .. cardinality(_emails) loop
    position := i; user_id := null; problem := null;
    if exists (select from app.member m where lower(m.mail) = lower(_emails[i])) then
      problem := 'is a member already';
    else
      insert into app.member (mail, full_name, login, verified) values (_emails[i], _display_names[i], _emails[i], false) returning key into user_id;
    end if;
    return next;
  end loop;
end $$;

create or replace function flohsync._user_deactivate(_users uuid[], _run bigint) returns setof uuid language sql
begin atomic
  update app.member m set blocked_by = coalesce(_run, 0) where m.key = any (_users) and m.blocked_by is null returning m.key;
end;

create or replace function flohsync._user_reactivate(_users uuid[]) returns setof uuid language sql
begin atomic
  update app.member m set blocked_by = null where m.key = any (_users) and m.blocked_by is not null and m.blocked_by >= 0 returning m.key;
end;

create or replace function flohsync._profile_update(_users uuid[], _patches jsonb[], _source text) returns setof uuid language sql
begin atomic
  update app.member m set profile = n.profile
    from (select u.id, o.profile || jsonb_object_agg(e.key, jsonb_build_object('value', e.value -> 'value', 'by', _source)) as profile
            from unnest(_users, _patches) as u(id, patch) join app.member o on o.key = u.id cross join lateral jsonb_each(u.patch) e
           where case e.value ->> 'mode' when 'overwrite_always' then o.profile #> array[e.key, 'value'] is distinct from e.value -> 'value'
                                         else coalesce(o.profile #>> array[e.key, 'value'], '') = '' end
           group by u.id, o.profile) n
   where m.key = n.id returning m.key;
end;
});

$f->sql(q{insert into app.member (mail, full_name, login, idp, idp_id) values
  ('Ann@app.example', 'Ann', 'ann', 'https://one', 'x1'), ('bob@app.example', 'Bob', 'bob', 'https://one', 'x2'), ('bob@app.example', 'Bob', 'bob2', 'https://two', 'x3'),
  ('blocked@app.example', 'Blocked', 'bl', null, null)});
$f->sql("update app.member set blocked_by = -1 where login = 'bl'");
$f->sql("insert into app.directory select v.id, 'Name of ' || v.id, v.mail, '{\"department\": \"D\", \"identityIssuer\": \"https://two\"}' from (values
  ('ann', 'ann\@app.example'), ('bob', 'bob\@app.example'), ('new', 'new\@app.example'), ('blocked', 'blocked\@app.example')) v(id, mail)");
$f->sql(q{select flohsync.create_connector('d', 'sql', '{"queries": {"user": "select id as external_id, name as display_name, mail as email, attrs as attributes from app.directory order by id"}}')});
$f->configure('d', 'user', createUsers => \1, deactivateUsers => \1, safeguards => { maxDeactivateFraction => undef, maxStaleFraction => undef },
	createUserDefaults => { location => 'Remote' }, attributeMappings => [ { sourcePath => 'attributes.department', targetField => 'department', writeMode => 'overwrite_always' } ]);

sub matches { return $f->sql("select string_agg(concat_ws(' ', m.external_id, m.match_status, m.match_confidence, u.login), ', ' order by m.external_id)
	from flohsync.connector_sync_match m left join app.member u on u.key = m.user_id") }
sub match_of { return $f->sql("select id from flohsync.connector_sync_match where external_id = '$_[0]'") }
sub report { return $f->last_run('d', 'user')->{post_sync} }

$f->sync_ok('d', 'user', 'a pass on top of the application\'s users');
is(report()->{errors}, undef, 'no stage failed');
is(matches(), 'ann matched exact ann, blocked create_pending none, bob ambiguous ambiguous, new matched exact new@app.example', 'members are matched and made');
is($f->sql("select string_agg(external_id || ': ' || message, '; ') from flohsync.sync_error"), 'blocked: is a member already', 'what the application says about a row is recorded');
is_deeply($f->json("select profile from app.member where login = 'new\@app.example'"),
	{ location => { value => 'Remote', by => 'connector' }, department => { value => 'D', by => 'connector' } }, 'defaults and attributes arrive');
is($f->sql('select count(*) from flohsync.user_external_identity'), 2, 'identities are of members');

$f->sql("update app.member set mail = 'nobody\@app.example' where login = 'bob2'");
$f->sync_ok('d', 'user', 'a pass in which no record changed');
like(matches(), qr/bob matched exact bob,/, 'finds that a member has changed, without any trigger');
$f->configure('d', 'user', userMatchStrategy => 'email_and_issuer', userMatchFallbackStrategies => [ 'upstream_identity', 'external_id' ]);
$f->sql("update app.member set idp = 'https://TWO' where login = 'bob'");
$f->sync_ok('d', 'user', 'other strategies');
like(matches(), qr/^ann matched probable ann,.* bob matched exact bob,/, 'work on the members as well');
is($f->json("select flohsync.explain_match('d', 'user', 'bob')")->{outcome}{userId}, $f->sql("select key from app.member where login = 'bob'"), 'and are explained');

$f->sql("delete from app.directory where id in ('ann', 'new')");
$f->sync_ok('d', 'user', 'two leave');
is($f->sql("select string_agg(login, ' ' order by login) from app.member where blocked_by = (select max(id) from flohsync.sync_run)"), 'ann new@app.example', 'and are deactivated');
$f->sql("insert into app.directory values ('ann', 'Ann', 'ann\@app.example', '{}')");
$f->sync_ok('d', 'user', 'one comes back');
is($f->sql("select blocked_by is null from app.member where login = 'ann'"), 't', 'and is reactivated');
like(matches(), qr/^ann matched probable ann,/, 'and matched');

my $bob = $f->sql("select key from app.member where login = 'bob2'");
is($f->sql("select match_status from flohsync.resolve_match('" . match_of('bob') . "', 'link', '$bob')"), 'manual_override', 'an operator links to a member');
$f->fails_like("select flohsync.resolve_match('" . match_of('blocked') . "', 'create')", '23505', qr/is a member already/, 'a member who is there is not made again');
is($f->sql("select match_status from flohsync.unlink_match('" . match_of('bob') . "')"), 'unmatched', 'and unlinks');
$f->sql("insert into app.directory values ('made', 'Made', 'made\@app.example', '{}')");
$f->configure('d', 'user', createUsers => \0);
$f->sync_ok('d', 'user', 'somebody new, who is not made');
is($f->sql("select match_status from flohsync.resolve_match('" . match_of('made') . "', 'create')"), 'matched', 'but by an operator');
is($f->sql("select verified || ' ' || full_name from app.member where login = 'made\@app.example'"), 'false Made', 'as a member');
$f->sql("delete from app.member where login = 'made\@app.example'");
$f->json("select flohsync.match_users('d', 'user')");
like(matches(), qr/made unmatched none/, 'a member who is deleted leaves the match');
is($f->sql('select count(*) from flohsync.floh_user'), 0, 'nothing was written into the table of users that came with it');
is($f->sql('select count(*) from flohsync.user_profile'), 0, 'nor into its profiles');

$f->invariants;
$f->no_crash;
done_testing();
