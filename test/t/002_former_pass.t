# A configuration is deleted: its records keep the time at which its last complete full
# pass confirmed them, without being written, and whatever asks for that time goes on
# as before.
use strict;
use warnings;

use Flohsync;
use Test::More;

my $f = Flohsync->new;
my $n = 20_000;
$f->fresh(user => $n);
$f->connector('c');
$f->sync_ok('c', 'user');
$f->sql(q{select flohsync.upsert_resource('c', 'user', '{"externalId": "later"}')});
my $first = $f->sql(q{select min(synced_at) from flohsync.connector_resource});
$f->sync_ok('c', 'user');    # marks "later" stale
$f->sql(q{select flohsync.upsert_resource('c', 'user', '{"externalId": "last"}')});
my $pass = $f->sql('select last_full_pass_at from flohsync.connector_sync_config');

my $synced = q{select md5(string_agg(external_id || ' ' || synced_at || coalesce(stale_since::text, ''), ',' order by external_id)) from flohsync.connector_resource};
my $rows = q{select md5(string_agg(ctid || ' ' || xmin, ',' order by external_id)) from flohsync.resource_record};
sub answer { return $f->sql(q{select (flohsync.list_resources('c', 'user', page_size => 200))::text || flohsync.get_resource('c', 'user', 'later')::text || flohsync.get_resource('c', 'user', 'last')::text}) }
my ($times, $stored, $answer) = ($f->sql($synced), $f->sql($rows), answer());
isnt($first, $pass, 'a pass moves the time of all records');
like($answer, qr/"syncedAt"/, 'which applications get');

$f->sql('checkpoint');
my $wal = $f->sql(q{select pg_current_wal_insert_lsn()});
is($f->sql(q{select flohsync.delete_sync_config('c', 'user')}), 't', 'the configuration is deleted');
cmp_ok($f->sql("select pg_current_wal_insert_lsn() - '$wal'::pg_lsn"), '<', 1_000_000, "of $n records none is written into the WAL");
is($f->sql($rows), $stored, 'nor into the table');
is($f->sql($synced), $times, 'each record has the time that it had');
is(answer(), $answer, 'also where it is read by other ways than the view');

# What is older than that pass does not count.
my ($some) = $f->sql(q{select external_id from flohsync.resource_record where stale_since is null and external_id <> 'last' order by 1 limit 1});
my $upsert = sub { my ($id, $at) = @_; return $f->sql("select flohsync.upsert_resource('c', 'user', '{\"externalId\": \"$id\", \"displayName\": \"x\"}', $at)") };
is($upsert->($some, "timestamptz '$pass' - interval '1 microsecond'"), 'ignored', 'an observation before that pass is ignored');
is($upsert->($some, "timestamptz '$pass'"), 'updated', 'one after it is not');
is($f->sql("select _flohsync.is_news(r, timestamptz '$pass' - interval '1 microsecond', null), _flohsync.is_news(r, timestamptz '$pass', null) from flohsync.resource_record r where external_id = '$some'"), 'f|t', 'nor is an event');
is($f->sql("select flohsync.mark_stale('c', 'user', '$pass')"), 0, 'no record was last confirmed before it');
is($f->sql("select flohsync.mark_stale('c', 'user', timestamptz '$pass' + interval '1 microsecond')"), $n, 'all but the last one at it');
is($f->sql("select count(*) from flohsync.connector_resource where synced_at = '$pass' and stale_since is not null"), $n, 'and that stays their time');

# A later configuration
$f->sql(q{select flohsync.configure_sync('c', 'user', '{}')});
is($f->sql(q{select last_full_pass_at is null from flohsync.connector_sync_config}), 't', 'a new configuration has had no pass');
is($f->sql("select count(*) from flohsync.connector_resource where synced_at < '$pass' and external_id <> 'later'"), 0, 'the time of the former one still counts');
$f->sync_ok('c', 'user');
is($f->sql(q{select count(*) from flohsync.connector_resource r join flohsync.connector_sync_config c using (connector_id) where r.stale_since is null and r.synced_at < c.last_full_pass_at}), 0, 'until the new one has a pass');
$f->sql(q{delete from flohsync.connector_sync_config});
is($f->sql("select count(*), min(confirmed_at) > '$pass' from _flohsync.former_pass"), '1|t', 'of two that were deleted the later time is kept');

$f->sql(q{select flohsync.drop_connector('c')});
is($f->sql('select count(*) from _flohsync.former_pass'), 0, 'with the connector it goes');

$f->no_crash;
done_testing();
