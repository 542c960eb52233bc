# Tables that were never analysed, as after a restore or a first load: what is
# about one record reads a few rows, as it does with statistics.
use strict;
use warnings;

use JSON::PP;
use People;
use Test::More;

People::start(upstream => 0, conf => "autovacuum = off\n");
begin({ createUsers => JSON::PP::true, deactivateUsers => JSON::PP::true, safeguards => { maxStaleFraction => undef, maxDeactivateFraction => undef },
	attributeMappings => [ { sourcePath => 'displayName', targetField => 'title', writeMode => 'overwrite_always' } ] });
$f->sql("insert into public.people select '$c', 'p' || i, 'P ' || i, 'p' || i || '\@acme.com', '{}' from generate_series(1, 5000) i");
is(one_pass(), 'success', 'a first load');
is($f->sql("select string_agg(distinct reltuples::text, ' ') from pg_class where relname in ('resource_record', 'connector_sync_match', 'floh_user')"), '-1', 'nothing is known of the tables');

my $match = sub { return "'" . $f->sql("select id from flohsync.connector_sync_match where external_id = '$_[0]'") . "'" };
my $hook = sub { my ($action, $id, %data) = @_; return "flohsync.handle_webhook('$c', " . Flohsync::jsonb({ action => $action, resourceType => 'user', resourceId => $id, data => \%data }) . ')' };
my @calls = (
	[ 'a webhook that updates', $hook->('updated', 'p10', displayName => 'X') ], [ 'a webhook with another address', $hook->('updated', 'p11', email => 'p12@acme.com') ],
	[ 'a webhook that adds', $hook->('created', 'new', displayName => 'N', email => 'new@acme.com') ], [ 'a webhook that deletes', $hook->('deleted', 'p13') ],
	[ 'an upsert', "flohsync.upsert_resource('$c', 'user', '{\"externalId\": \"p14\", \"displayName\": \"Y\"}')" ],
	[ 'unlinking', 'flohsync.unlink_match(' . $match->('p15') . ')' ], [ 'skipping', 'flohsync.resolve_match(' . $match->('p16') . ", 'skip')" ],
	[ 'a single record', "flohsync.get_resource('$c', 'user', 'p17')" ], [ 'explaining', "flohsync.explain_match('$c', 'user', 'p18')" ],
	[ 'a fetch for the cache', "flohsync.cache_get_or_fetch('$c', 'user', 'p19')" ]);
for my $known ('without statistics', 'with them')
{
	for (@calls)
	{
		my ($name, $call) = @$_;
		my $sum = "select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) from pg_stat_xact_user_tables where schemaname in ('flohsync', '_flohsync')";
		my ($before, undef, $after) = split /\n/, $f->sql("begin; $sum; select ($call) is null; $sum; rollback");
		my $read = $after - $before;
		cmp_ok($read, '<', 500, "$name, $known: reads few rows");
	}
	$f->sql('analyze');
}

$f->no_crash;
done_testing();
