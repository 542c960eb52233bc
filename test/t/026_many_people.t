# Many records at once: they are matched and mapped in batches, and it must not show.
# What comes out is held against one join, and against the rules for profiles as SQL
# says them.  The tables have no statistics, as after a first load.
use strict;
use warnings;

use Flohsync;
use People;
use Test::More;

my $f = People::start(upstream => 0, conf => "autovacuum = off\n");
my $n = 23_000;    # more than two batches of matching, and more than four of mapping

$f->sql(<<SQL);
create table public.many (id text primary key, name text, email text, attributes jsonb);
grant select on public.many to flohsync_nobody;
insert into public.many select 'p' || g, 'Person ' || g, case when g % 50 <> 0 then 'P' || g % 20000 || '\@Acme.example' end,
    jsonb_build_object('department', case g % 7 when 0 then ' ' when 1 then '' else 'D' || g % 100 end, 'title', case when g % 3 = 0 then 'T' || g end,
      'start', case g % 11 when 0 then 'soon' else '2020-01-0' || g % 9 + 1 end, 'level', g % 5, 'tags', jsonb_build_array(g % 2))
  from generate_series(1, $n) g;
insert into flohsync.floh_user (iss, sub, email, display_name, confirmed, deleted_at)
select 'https://idp.example', 'p' || g, 'p' || g || '\@acme.example', 'Person ' || g, true, case when g % 13 = 0 then now() end from generate_series(1, 19000) g;
insert into flohsync.floh_user (iss, sub, email, display_name, confirmed)
select 'https://other.example', 'q' || g, 'p' || g || '\@acme.example', 'Twin ' || g, true from generate_series(1, 19000, 17) g;
select flohsync.create_connector('many', 'sql', '{"queries": {"user": "select id as external_id, name as display_name, email, attributes from public.many order by id"}}');
select flohsync.configure_sync('many', 'user', '{"userMatchStrategy": "email", "userMatchFallbackStrategies": ["external_id"]}');
SQL
$f->sync_ok('many', 'user');

# One join says the same.
my $expected = <<SQL;
select x.external_id, coalesce(e.status, s.status, 'unmatched') as status, coalesce(e.user_id, case when e.status is null then s.user_id end) as user_id,
       case when e.status is not null then 'email' when s.status is not null then 'external_id' end as strategy
  from flohsync.resource_record x
  left join (select lower(u.email) as key, case count(*) when 1 then 'matched' else 'ambiguous' end as status, case count(*) when 1 then (array_agg(u.id))[1] end as user_id
               from flohsync.v_user u group by 1) e on e.key = lower(x.email)
  left join (select u.sub as key, 'matched' as status, u.id as user_id from flohsync.v_user u) s on s.key = x.external_id collate "C"
SQL
sub same
{
	my ($what) = @_;
	is($f->sql("select count(*) from ($expected) e full join flohsync.connector_sync_match m using (external_id)
	             where (e.status, e.user_id, e.strategy) is distinct from (m.match_status::text, m.user_id, m.match_strategy::text)"), 0, $what);
	return;
}
is($f->sql("select count(*), count(*) filter (where match_strategy = 'external_id') > 100, count(*) filter (where match_status = 'ambiguous') > 100, count(*) filter (where match_status = 'unmatched') > 100
              from flohsync.connector_sync_match"), "$n|t|t|t", 'of each outcome there are many');
same('each record has the match that a join finds for it');
is($f->sql(q{select count(*) from (select connector_id, external_id, user_id from flohsync.connector_sync_match where user_id is not null
               except select connector_id, external_id, user_id from flohsync.user_external_identity where source = 'connector_sync') d}), 0, 'and its identity');

# More have changed than a batch has.
$f->sql(q{update public.many set email = 'p' || (substr(id, 2)::int * 7) % 20000 || '@acme.example', name = name || '!' where substr(id, 2)::int % 2 = 0});
$f->sync_ok('many', 'user');
same('so it has after half of them have changed');
$f->sql(q{update flohsync.floh_user set email = 'moved.' || email where sub like 'p%5'});
$f->sync_ok('many', 'user');
same('and after many users have');

# Profiles, against the rules in SQL.  The last record of a user that always writes
# has the last word; else the first one that has something for an empty field.
$f->sql(q{insert into flohsync.user_profile (user_id, department, title) select u.id, case when random() < 0.5 then 'old' else ' ' end, 'old' from flohsync.floh_user u where u.sub like '%3'});
$f->sql(q{create table public.before as select * from flohsync.user_profile});
$f->sql(q{select flohsync.configure_sync('many', 'user', '{"attributeMappings": [
  {"sourcePath": "attributes.department", "targetField": "department", "writeMode": "overwrite_if_empty"},
  {"sourcePath": "attributes.title", "targetField": "title", "writeMode": "overwrite_always"},
  {"sourcePath": "attributes.start", "targetField": "startDate", "writeMode": "overwrite_always"},
  {"sourcePath": "attributes.tags", "targetField": "tags", "writeMode": "overwrite_always"},
  {"sourcePath": "attributes.level", "targetField": "level", "writeMode": "overwrite_if_empty"}]}')});
$f->sync_ok('many', 'user');
my $wanted = <<'SQL';
select u.id, case when coalesce(b.department, '') ~ '\S' then b.department else coalesce((r.departments)[1], b.department) end as department, coalesce(r.titles[cardinality(r.titles)], b.title) as title,
       r.starts[cardinality(r.starts)] as start_date, r.tags[cardinality(r.tags)] as tags, r.levels[1] as level
  from flohsync.v_user u
  join (select m.user_id, array_agg(x.attributes ->> 'department' order by x.external_id) filter (where x.attributes ->> 'department' ~ '\S') as departments,
               array_agg(x.attributes ->> 'title' order by x.external_id) filter (where x.attributes ->> 'title' is not null) as titles,
               array_agg((x.attributes ->> 'start')::date order by x.external_id) filter (where x.attributes ->> 'start' <> 'soon') as starts,
               array_agg(x.attributes -> 'tags' order by x.external_id) as tags, array_agg(x.attributes -> 'level' order by x.external_id) as levels
          from flohsync.resource_record x join flohsync.connector_sync_match m on m.connector_resource_id = x.id where m.match_status = 'matched' group by 1) r on r.user_id = u.id
  left join public.before b on b.user_id = u.id
SQL
my $differ = "select count(*) from ($wanted) w left join flohsync.user_profile p on p.user_id = w.id
  where (p.department, p.title, p.start_date, p.custom_attributes -> 'tags', p.custom_attributes -> 'level') is distinct from (w.department, w.title, w.start_date, w.tags, w.level)";
is($f->sql($differ), 0, 'each profile has what the rules say');
is($f->sql(q{select count(*) from flohsync.user_profile p where p.user_id not in (select user_id from public.before) and p.user_id not in (select user_id from flohsync.connector_sync_match where match_status = 'matched')}), 0, 'and there are no others');
is($f->sql(q{select count(*) from flohsync.sync_error where error_class = 'mapping'}), $f->sql(q{select count(*) from flohsync.resource_record x join flohsync.connector_sync_match m on m.connector_resource_id = x.id where m.match_status = 'matched' and x.attributes ->> 'start' = 'soon'}),
	'each value that is invalid is noted once');
is($f->sql(q{select count(*) from flohsync.user_profile p join public.before b using (user_id) where p.attribute_sources ->> 'department' = 'connector' and b.department ~ '\S'}), 0, 'the source of what was not written stays');

$f->sql(q{update public.many set attributes = attributes || jsonb_build_object('title', 'New ' || id) where substr(id, 2)::int % 2 = 1});
$f->sync_ok('many', 'user');
is($f->sql($differ), 0, 'so it has after half of the records have changed');

# Records of a user that are not read by one call, in three of which a call ends.
my $read = <<'SQL';
do $do$ declare found refcursor; b record; c flohsync.connector_sync_config; begin
  select * into c from flohsync.connector_sync_config;
  open found no scroll for %s;
  loop
    b := _flohsync.profile_map(found, '{title,department}', '{overwrite_always,overwrite_if_empty}', c, 1);
    exit when b.users is null;
    insert into public.patches select * from unnest(b.users, b.patches);
  end loop;
end $do$
SQL
$f->sql('create table public.patches (id uuid, patch jsonb)');
$f->sql(sprintf $read, q{select md5((g / 3)::text)::uuid, g::text, array[to_jsonb(g::text), case when g % 3 = 0 then to_jsonb('first of ' || g / 3) end] from generate_series(0, 5999) g});
is($f->sql(q{select count(*), count(distinct id), count(p.id) filter (where patch -> 'title' ->> 'value' = (3 * g + 2)::text and patch -> 'department' ->> 'value' = 'first of ' || g)
	from public.patches p join generate_series(0, 1999) g on md5(g::text)::uuid = p.id}), '2000|2000|2000', 'each user has one patch, of all records');
$f->fails_like(sprintf($read, 'select 1, 2, 3'), '42804', qr/rows of records must have/, 'rows of another kind are an error');
$f->fails_like(sprintf($read, q{select gen_random_uuid(), 'x'::text, array['1'::jsonb]}), 'XX000', qr/values of 1 rules instead of 2/, 'so are values of other rules');

$f->no_crash;
done_testing();
