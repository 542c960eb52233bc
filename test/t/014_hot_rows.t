# A run writes its configuration's row several times.  Settings may be long, and they
# are not written with it; what changes no due time is written without indexes.
use strict;
use warnings;

use Flohsync;
use Test::More;

my $configs = 100;
my $f = Flohsync->new(upstream => 0, conf => "flohsync.max_workers = 1\nflohsync.log_runs = off\nflohsync.launcher_naptime = 1h\nautovacuum = off\nfsync = off\n");

# Of some 3 kB; compressed it would have room in the row.
my @names = qw(department costCenter location phoneNumber employeeNumber managerId startDate title division building floor company);
my $mappings = json_text([ map { { sourcePath => "attributes.$names[$_ % @names].value$_", targetField => "custom.$names[$_ * 5 % @names]$_", writeMode => 'overwrite_always' } } 1 .. 30 ]);
is($f->sql("SELECT length('$mappings') BETWEEN 2500 AND 4000"), 't', 'mappings of about 3 kB') or diag(length $mappings);
$f->sql('CREATE TABLE public.people (id text PRIMARY KEY); INSERT INTO people SELECT generate_series(1, 20)::text; GRANT SELECT ON people TO flohsync_nobody');
my $config = literal(json_text({ queries => { thing => 'select id as external_id, null::text as display_name, null::text as email, null::jsonb as attributes from public.people' } }));
my $settings = literal(json_text({ enabled => JSON::PP::true, cronSchedule => '0 0 1 1 *' }));
$f->sql("SELECT count(flohsync.create_connector('c' || i, 'sql', $config)), count(flohsync.configure_sync('c' || i, 'thing', $settings)) FROM generate_series(1, $configs) i");
$f->sql("UPDATE flohsync.connector_sync_config SET attribute_mappings = '$mappings'");
$f->sql('VACUUM FULL flohsync.connector_sync_config');

my $toast = $f->sql("SELECT reltoastrelid::regclass FROM pg_class WHERE oid = 'flohsync.connector_sync_config'::regclass");
sub size { return $f->sql("SELECT pg_relation_size('$_[0]')") }
sub counted
{
	my ($what, $relation) = @_;
	$f->sql('SELECT pg_stat_force_next_flush()');
	return $f->sql("SELECT $what FROM pg_stat_all_tables WHERE relid = '$relation'::regclass");
}
sub no_worker { return $f->wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'flohsync worker'") }

# What is asked of each configuration, and how many updates that was: all, and those that wrote no index.
sub all_run
{
	my ($how) = @_;
	my @before = map { counted($_, 'flohsync.connector_sync_config') } qw(n_tup_upd n_tup_hot_upd);
	my $last = $f->sql('SELECT coalesce(max(id), 0) FROM flohsync.sync_run');
	$f->sql($how);
	$f->sql('SELECT _flohsync.wake()');
	$f->wait_for("SELECT count(*) >= $configs FROM flohsync.sync_run WHERE id > $last AND status = 'success'", timeout => 120);
	no_worker();
	my @now = map { counted($_, 'flohsync.connector_sync_config') } qw(n_tup_upd n_tup_hot_upd);
	return map { $now[$_] - $before[$_] } 0, 1;
}
my $asked = "SELECT count(flohsync.trigger_sync('c' || i, 'thing')) FROM generate_series(1, $configs) i";
my $due = "UPDATE flohsync.connector_sync_config SET next_run_at = now() - interval '1 second'";

my $apart = size($toast);
cmp_ok($apart, '>', 500 * $configs, 'the mappings are apart');
is($f->sql("SELECT max(pg_column_size(c) - pg_column_size(c.attribute_mappings)) < 1000 FROM flohsync.connector_sync_config c"), 't', 'the rest of a row is short');
my ($updates, $hot) = all_run($asked);
cmp_ok($updates, '>=', 3 * $configs, 'a first run writes each row several times');
all_run($due);

# Without a vacuum
my $rows = size('flohsync.connector_sync_config');
cmp_ok($rows, '<', 4500 * $configs, 'rows that have been written ten times take little room');
for (1 .. 3)
{
	($updates, $hot) = all_run($due);
	is($updates, 5 * $configs, 'a run that is due: five updates, one of which is by this test');
	cmp_ok($hot, '>', 2.9 * $configs, 'all but those that move the due time write no index');
	($updates, $hot) = all_run($asked);
	is($updates, 3 * $configs, 'a run that is asked for: three updates');
	cmp_ok($hot, '>', 0.97 * $updates, 'none of them writes an index');
}
cmp_ok(size('flohsync.connector_sync_config'), '<', 1.1 * $rows, 'twenty-four updates more: the table has not grown');
is(size($toast), $apart, 'nor what is apart, ever');

# What is apart is read a few times a run, and not for each page.
$f->sql('ALTER SYSTEM SET flohsync.page_size = 1');
$f->sql('SELECT pg_reload_conf()');
$f->wait_for('SHOW flohsync.page_size', is => 1);
$f->sql("INSERT INTO people SELECT 'new ' || generate_series(1, 10)");
my $before = counted('idx_scan', $toast);
is($f->sync_ok('c1', 'thing')->{pagesProcessed}, 30, 'a run of many pages');
no_worker();
cmp_ok(counted('idx_scan', $toast) - $before, '<', 10, 'what is apart is read a few times');

$f->no_crash;
done_testing();
