# Foreign keys of others keep some records from being purged: the others go, all of them
# in the same run, and what is told of the rest is right.
use strict;
use warnings;

use Flohsync;
use Test::More;

my $f = Flohsync->new(upstream => 0);
my $n = 12_000;    # more than two batches

$f->sql(<<SQL);
create table public.source (id text primary key);
grant select on public.source to flohsync_nobody;
insert into public.source select 'r' || g from generate_series(1, $n) g;
select flohsync.create_connector('c', 'sql', '{"queries": {"thing": "select id as external_id, null as display_name, null as email, null::jsonb as attributes from public.source"}}');
select flohsync.configure_sync('c', 'thing', '{"safeguards": null, "staleRetention": "1d"}');
SQL
$f->sync_ok('c', 'thing');
$f->sql(q{delete from public.source where id <> 'r1'});
$f->sync_ok('c', 'thing');
is($f->sql('select count(*) from flohsync.resource_record where stale_since is not null'), $n - 1, 'records are stale');

# Those that can never go are the first that any scan comes to.
$f->sql(q{create table public.badge (record uuid references flohsync.resource_record (id));
	insert into public.badge select id from flohsync.resource_record where stale_since is not null order by ctid limit 7;
	update flohsync.resource_record set stale_since = stale_since - interval '2 days' where stale_since is not null});
$f->sync_ok('c', 'thing');
is($f->sql('select count(*) from flohsync.resource_record where stale_since is not null'), 7, 'all others are purged in one run');
is($f->sql('select removed from flohsync.sync_run order by id desc limit 1'), $n - 1 - 7, 'and counted');
my $errors = $f->sql(q{select string_agg(message, ' / ' order by id) from flohsync.sync_error where run_id = (select max(id) from flohsync.sync_run)});
like($errors, qr/purge: \d+ records cannot be purged: .*violates foreign key constraint/, 'why the rest stays is told');
unlike($errors, qr/purge: (?:[89]|\d\d+) records/, 'and of no more than that');

# A batch locks no more than a batch.
$f->sql(q{insert into public.source select 'r' || g from generate_series(2, 2000) g; truncate public.badge});
$f->sync_ok('c', 'thing');
$f->sql(q{delete from public.source where id <> 'r1'});
$f->sync_ok('c', 'thing');
$f->sql(q{insert into public.badge select id from flohsync.resource_record where stale_since is not null;
	update flohsync.resource_record set stale_since = stale_since - interval '2 days' where stale_since is not null});
is($f->sql(q{begin; select removed, refused > 0 from flohsync.connector_sync_config c, _flohsync.purge_in_halves(c, null, 100);
	select count(*) from flohsync.resource_record where stale_since is not null and xmax <> 0; rollback}) =~ s/\n/ /gr, "0|t 100", 'a hundred at a time are locked');

# Many that cannot go do not take for ever.
$f->sync_ok('c', 'thing');
is($f->sql('select count(*) from flohsync.resource_record where stale_since is not null'), 1999, 'none of them goes');
is($f->sql(q{select substring(message from 'purge: (\d+) records')::int <= 200 from flohsync.sync_error where run_id = (select max(id) from flohsync.sync_run)}), 't', 'not all are tried one by one');

$f->no_crash;
done_testing();
