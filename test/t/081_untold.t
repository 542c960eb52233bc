# What nobody tells us of: rows that come with triggers off, as of a restore or of
# logical replication, and what a prepared transaction asked for.  A worker looks
# into every database now and then.
use strict;
use warnings;

use Flohsync;
use JSON::PP;
use Test::More;

my $f = Flohsync->new(conf => "flohsync.launcher_naptime = 1s\nmax_prepared_transactions = 2\n");
$f->fresh(user => 10);
$f->connector('c', enabled => JSON::PP::true, cronSchedule => '0 0 1 1 *');
$f->comes_true("SELECT count(*) = 0 FROM flohsync.workers WHERE kind = 'flohsync worker'", 'nothing is due');

# A run in a transaction that is committed by somebody else
my $asked = $f->try_sql("BEGIN; SELECT flohsync.trigger_sync('c', 'user'); PREPARE TRANSACTION 'asked'");
if ($asked->{ok})
{
	$f->node->restart;
	$f->comes_true("SELECT count(*) = 0 FROM flohsync.workers WHERE kind = 'flohsync worker'", 'nobody is there');
	$f->sql("COMMIT PREPARED 'asked'");
	$f->comes_true("SELECT count(*) = 1 FROM flohsync.sync_run WHERE status = 'success'", 'what a prepared transaction asked for is done', timeout => 90);
}
else
{
	like($asked->{text}, qr/PREPARE/, 'a run that is asked for is not prepared: PostgreSQL says why') or diag($asked->{text});
}

# A row that no trigger sees
my $n = $f->sql('SELECT count(*) FROM flohsync.sync_run');
$f->sql("SET session_replication_role = replica; UPDATE flohsync.connector_sync_config SET next_run_at = now() - interval '1 minute'; RESET session_replication_role");
$f->comes_true("SELECT count(*) = $n + 1 FROM flohsync.sync_run WHERE status = 'success'", 'what is due is noticed without being told', timeout => 90);

# And a run that was written like that
$f->sql("SET session_replication_role = replica; INSERT INTO flohsync.sync_run (connector_id, resource_type, strategy, trigger, status) SELECT id, 'user', 'full', 'manual', 'queued' FROM flohsync.connector_definition; RESET session_replication_role");
$f->comes_true("SELECT count(*) = $n + 2 FROM flohsync.sync_run WHERE status = 'success'", 'so is a run', timeout => 90);

$f->no_crash;
done_testing();
