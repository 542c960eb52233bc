# Kept figures are what counting says: whatever is rolled back, crashes, is
# restored, truncated or removed, in every snapshot, and without anybody waiting.
use strict;
use warnings;

use Flohsync;
use PostgreSQL::Test::Utils;
use Test::More;

my $f = Flohsync->new(records => 'user=300,group=20');
$f->connector('c', types => [ 'user', 'group' ], safeguards => { maxStaleFraction => undef });
$f->connector($_) for qw(d e);
$f->sql(<<'SQL');
CREATE VIEW counted AS
  SELECT r.connector_id, r.resource_type, CASE WHEN r.stale_since IS NULL THEN 'live' ELSE 'stale' END AS state, NULL::text AS confidence, count(*) AS n FROM flohsync.resource_record r GROUP BY 1, 2, 3
  UNION ALL SELECT m.connector_id, m.resource_type, m.match_status, m.match_confidence, count(*) FROM flohsync.connector_sync_match m GROUP BY 1, 2, 3, 4;
CREATE VIEW wrong AS
  SELECT coalesce(k.resource_type, c.resource_type) AS type, coalesce(k.state, c.state) AS state, coalesce(k.confidence, c.confidence) AS confidence, k.n AS kept, c.n AS counted
    FROM (SELECT t.connector_id, t.resource_type, t.state, t.confidence, sum(t.n) AS n FROM _flohsync.tally t GROUP BY 1, 2, 3, 4 HAVING sum(t.n) <> 0) k
    FULL JOIN counted c ON (k.connector_id, k.resource_type, k.state) = (c.connector_id, c.resource_type, c.state) AND k.confidence IS NOT DISTINCT FROM c.confidence
   WHERE k.n IS DISTINCT FROM c.n;
-- Something of what can happen to records and matches.
CREATE FUNCTION happen(connector text, n int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE c uuid := (SELECT d.id FROM flohsync.connector_definition d WHERE d.name = connector); low int; t text; k int;
BEGIN
  FOR i IN 1 .. n LOOP
    low := (random() * 300)::int; t := (ARRAY['user', 'group'])[1 + (random())::int]; k := (random() * 9)::int;
    BEGIN
      CASE k
        WHEN 0 THEN PERFORM flohsync.upsert_resources(connector, t, (SELECT jsonb_agg(jsonb_build_object('externalId', g::text, 'displayName', random()::text)) FROM generate_series(low, low + 20) g));
        WHEN 1 THEN PERFORM flohsync.upsert_resource(connector, t, jsonb_build_object('externalId', low::text));
        WHEN 2 THEN DELETE FROM flohsync.resource_record r WHERE r.connector_id = c AND r.resource_type = t AND r.external_id IN (SELECT g::text FROM generate_series(low, low + 5) g);
        WHEN 3 THEN UPDATE flohsync.resource_record r SET stale_since = CASE WHEN r.stale_since IS NULL THEN now() END WHERE r.connector_id = c AND r.external_id IN (SELECT g::text FROM generate_series(low, low + 9) g);
        WHEN 4, 5 THEN INSERT INTO flohsync.connector_sync_match (connector_id, resource_type, connector_resource_id, external_id, match_status, match_confidence)
          SELECT c, t, r.id, r.external_id, (ARRAY['matched', 'unmatched', 'skipped'])[1 + (random() * 2)::int], (ARRAY['exact', 'none'])[1 + random()::int]
            FROM flohsync.resource_record r WHERE r.connector_id = c AND r.resource_type = t AND r.record_no % 7 = low % 7 ON CONFLICT DO NOTHING;
        WHEN 6 THEN UPDATE flohsync.connector_sync_match m SET match_status = 'ambiguous' WHERE m.connector_id = c AND m.external_id IN (SELECT g::text FROM generate_series(low, low + 50) g);
        WHEN 7 THEN UPDATE flohsync.connector_sync_match m SET external_email = random()::text, match_confidence = 'probable' WHERE m.connector_id = c AND m.external_id = low::text;
        -- Some rows are counted already when the statement fails.
        WHEN 8 THEN INSERT INTO flohsync.resource_record (connector_id, resource_type, external_id, sync_hash, observed_at) SELECT CASE WHEN g < low + 90 THEN c ELSE gen_random_uuid() END, t, 'x' || g, 'x', now() FROM generate_series(low, low + 99) g;
        ELSE PERFORM flohsync.purge_stale(connector, t, '0');
      END CASE;
      IF random() < 0.2 THEN RAISE division_by_zero; END IF;
    EXCEPTION WHEN division_by_zero OR foreign_key_violation OR unique_violation OR undefined_object OR deadlock_detected THEN NULL;
    END;
  END LOOP;
END $$;
SQL

sub right { my ($name, $db) = @_; local $Test::Builder::Level = $Test::Builder::Level + 1; return is($f->sql('SELECT * FROM wrong', $db), '', "$name: the figures are right") }
sub total { my ($type) = @_; return $f->json("SELECT flohsync.list_resources('c', '$type', page_size => 1)")->{total} }

$f->sql("SELECT happen('c', 60)") for 1 .. 5;
right('anything');
cmp_ok($f->sql('SELECT count(*) FROM counted'), '>', 8, 'there is something to count');
$f->sql("BEGIN; SELECT happen('c', 50); SAVEPOINT s; SELECT happen('c', 20); ROLLBACK TO s; SELECT happen('c', 20); COMMIT");
right('a savepoint');
my $before = $f->sql('SELECT * FROM counted ORDER BY 1, 2, 3, 4');
$f->sql("BEGIN; SELECT happen('c', 50); ROLLBACK");
is($f->sql('SELECT * FROM counted ORDER BY 1, 2, 3, 4'), $before, 'a rollback');
right('a rollback');
$f->sql("BEGIN; SELECT happen('c', 50)");
right('within the transaction');
$f->sql('COMMIT');

# Passes: added, staled, purged, restored
$f->sync_ok('c', 'user', 'a first load');
right('a first load');
cmp_ok(total('user'), '>=', 300, 'and the list shows it');
$f->up('delete', type => 'user', from => 1, to => 40);
$f->sync_ok('c', 'user', 'some are gone');
right('staled');
$f->up('restore', type => 'user', all => 1);
$f->sync_ok('c', 'user', 'they are back');
right('restored');

# Each snapshot has figures of its own.
$f->sql("SELECT pg_advisory_lock(1)");
my $reader = $f->start_sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM flohsync.resource_record; SELECT pg_advisory_xact_lock(1); SELECT 'then', flohsync.list_resources('c', page_size => 1) ->> 'total'; SELECT * FROM wrong; COMMIT");
$f->wait_for("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%BEGIN ISOLATION LEVEL REPEATABLE READ%' AND wait_event = 'advisory')");
my $then = $f->json("SELECT flohsync.list_resources('c', page_size => 1)")->{total};
$f->sql("SELECT flohsync.upsert_resource('c', 'user', jsonb_build_object('externalId', 'later ' || g)) FROM generate_series(1, 300) g");    # folds, too
$f->sql("SELECT pg_advisory_unlock(1)");
my $saw = $f->finish($reader);
like($saw->{out}, qr/then\|$then\n?$/, 'a snapshot sees the figures of its time, whatever is folded since') or diag($saw->{text});
right('a snapshot');

# Nobody waits for anybody, and nothing is lost.
$f->sql('SELECT pg_advisory_lock(2)');
my $holder = $f->start_sql("BEGIN; SELECT flohsync.upsert_resource('c', 'user', jsonb_build_object('externalId', 'held ' || g)) FROM generate_series(1, 200) g; SELECT pg_advisory_xact_lock_shared(2); ROLLBACK");
$f->wait_for("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 2)");
my $r = $f->try_sql("BEGIN; SET LOCAL lock_timeout = '20s'; SELECT flohsync.upsert_resource('c', 'user', jsonb_build_object('externalId', 'free ' || g)) FROM generate_series(1, 200) g; COMMIT");
ok($r->{ok}, 'while one transaction has counted, another one counts and folds') or diag($r->{text});
$f->sql('SELECT pg_advisory_unlock(2)');
ok($f->finish($holder)->{ok}, 'the first is rolled back');
right('one is rolled back');
$f->sql("SELECT happen('$_', 60)") for qw(c d e);
my @many = map { $f->start_sql("SELECT happen('" . (qw(c d e))[ $_ % 3 ] . "', 60)") } 1 .. 6;
$r = $f->finish($_, 120), ok($r->{ok}, 'many at once') || diag($r->{text}) for @many;
right('many at once');
$r = $f->try_sql("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT flohsync.upsert_resource('c', 'user', jsonb_build_object('externalId', 's ' || g)) FROM generate_series(1, 200) g; COMMIT");
ok($r->{ok}, 'a serializable transaction counts') or diag($r->{text});
right('serializable');
cmp_ok($f->sql('SELECT count(*) FROM _flohsync.tally'), '<', 1000, 'thousands of changes have left few rows');

# A crash
my $dying = $f->start_sql("BEGIN; SELECT happen('c', 30); SELECT pg_sleep(600)");
$f->wait_for("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')");
ok($f->crash($f->sql("SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'")), 'a crash');
$f->finish($dying);
right('a crash');

# A dump, restored as a whole and with triggers off
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$f->node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $f->node->connstr('postgres') ], 'pg_dump');
$f->sql('CREATE DATABASE restored');
$f->node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $f->node->connstr('restored'), $dump ], 'pg_restore');
right('a restored database', 'restored');
is($f->sql('SELECT count(*) > 5 FROM counted', 'restored'), 't', 'has something to count');
$f->sql("SET session_replication_role = replica; DELETE FROM flohsync.connector_sync_match WHERE match_status = 'matched'; RESET session_replication_role", 'restored');
isnt($f->sql('SELECT * FROM wrong', 'restored'), '', 'rows that are written with triggers off are not counted');
$f->sql('SELECT _flohsync.tally_recount()', 'restored');
right('a recount', 'restored');
$f->disconnect('restored');

# What goes as a whole
$f->sql("SELECT flohsync.drop_connector('d')");
right('a connector less');
is($f->sql("SELECT count(*) FROM _flohsync.tally t WHERE NOT EXISTS (SELECT FROM flohsync.connector_definition d WHERE d.id = t.connector_id)"), 0, 'nothing is left of it');
$f->sql('TRUNCATE flohsync.connector_sync_match');
right('no match left');
$f->sql("SELECT happen('c', 30)");
$f->sql('TRUNCATE flohsync.resource_record CASCADE');
right('no record left');
is($f->sql('SELECT count(*) FROM counted'), 0, 'nothing is there');
done_testing();
