# Finding what is stored, wherever the rows lie: whatever way the lookup goes
# (neighbours in the table, along the index, key by key), it must find each
# record and no other.
use strict;
use warnings;

use Flohsync;
use Test::More;

my $f = Flohsync->new(upstream => 0);

# The state of a record ahead of an upsert says what must become of it.
$f->sql(<<'SQL');
SELECT setseed(0.42);
CREATE TABLE expected (outcome text, n bigint);
-- Ids that are prefixes of each other, of any length, with bytes above 127.
CREATE FUNCTION some_id(i int) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT CASE i % 5 WHEN 0 THEN repeat('a', i / 5 % 150 + 1) || repeat('b', i / 750) WHEN 1 THEN md5(i::text) WHEN 2 THEN 'u-' || lpad(i::text, 7, '0')
	WHEN 3 THEN 'é' || md5(i::text) || repeat('ü', i % 60) ELSE i::text END $$;
-- A list of records: a stretch of ids, or ids from all over; some of them changed.
CREATE FUNCTION some_records(n int, stretch boolean, changed float) RETURNS jsonb LANGUAGE sql VOLATILE AS
$$ SELECT jsonb_agg(jsonb_build_object('externalId', some_id(i), 'displayName', CASE WHEN random() < changed THEN random()::text ELSE 'same' END))
	FROM (SELECT DISTINCT CASE WHEN stretch THEN s + k ELSE (random() * 3000)::int END AS i
		FROM (SELECT (random() * 2500)::int AS s) x, generate_series(1, n) k) y $$;
CREATE FUNCTION check_round(connector text, type text, records jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE want jsonb; got jsonb;
BEGIN
	SELECT jsonb_object_agg(o.outcome, coalesce(c.n, 0)) INTO want
	FROM unnest(array['added', 'updated', 'unchanged', 'restored', 'ignored', 'errored']) o(outcome)
	LEFT JOIN (SELECT CASE WHEN r.id IS NULL THEN 'added' WHEN r.stale_since IS NOT NULL THEN 'restored'
			WHEN r.sync_hash <> flohsync.resource_hash(e ->> 'externalId', e ->> 'displayName', NULL, NULL) THEN 'updated' ELSE 'unchanged' END AS outcome, count(*) AS n
		FROM jsonb_array_elements(records) e
		LEFT JOIN flohsync.resource_record r ON r.external_id = (e ->> 'externalId') COLLATE "C" AND r.resource_type = type
			AND r.connector_id = (SELECT id FROM flohsync.connector_definition d WHERE d.name = connector)
		GROUP BY 1) c USING (outcome);
	INSERT INTO expected SELECT key, value::bigint FROM jsonb_each_text(want);
	got := flohsync.upsert_resources(connector, type, records);
	RETURN CASE WHEN got = want THEN 'ok' ELSE format('wanted %s, got %s for %s/%s', want, got, connector, type) END;
END $$;
SQL
$f->sql("SELECT flohsync.create_connector('c$_', 'command', '{\"url\": \"http://localhost:9/\"}')") for 1 .. 3;

sub rounds
{
	my ($n, $isolation, $name) = @_;
	my $wrong = '';
	for my $round (1 .. $n)
	{
		my $size = (1, 2, 7, 40, 300)[ $round % 5 ];
		my $stretch = $round % 3 ? 'true' : 'false';
		my $changed = (0, 0.01, 0.5)[ $round % 3 ];
		my $r = $f->sql("BEGIN ISOLATION LEVEL $isolation; SELECT check_round('c' || 1 + (random() * 2)::int, (array['user', 'group'])[1 + (random() * 1.2)::int], some_records($size, $stretch, $changed)); COMMIT");
		$wrong .= "$r\n" if $r ne 'ok';
		if ($round % 10 == 0)
		{
			$f->sql("DELETE FROM flohsync.resource_record WHERE random() < 0.05");
			$f->sql("UPDATE flohsync.resource_record SET stale_since = now() WHERE random() < 0.05");
		}
		$f->sql('VACUUM flohsync.resource_record') if $round % 25 == 0;
	}
	is($wrong, '', $name);
	return;
}

rounds(150, 'READ COMMITTED', 'rows all over the table');
$f->sql('CLUSTER flohsync.resource_record USING resource_record_key');
rounds(50, 'READ COMMITTED', 'the table in the order of the key');
$f->sql("CREATE INDEX by_hash ON flohsync.resource_record (sync_hash); CLUSTER flohsync.resource_record USING by_hash; DROP INDEX flohsync.by_hash");
rounds(50, 'READ COMMITTED', 'the table in no order at all');
rounds(30, 'SERIALIZABLE', 'in serializable transactions');
ok($f->sql("SELECT min(n) > 200 FROM (SELECT sum(n) AS n FROM expected WHERE outcome NOT IN ('ignored', 'errored') GROUP BY outcome) x") eq 't', 'every outcome came up often');
is($f->sql('SELECT count(*) - count(DISTINCT (connector_id, resource_type, external_id)) FROM flohsync.resource_record'), 0, 'no record is there twice');

# In one transaction: what it has written itself is found too.
my $twice = $f->sql(<<'SQL');
BEGIN;
SELECT flohsync.upsert_resources('c1', 'own', (SELECT jsonb_agg(jsonb_build_object('externalId', md5(i::text))) FROM generate_series(1, 500) i)) ->> 'added';
UPDATE flohsync.resource_record SET display_name = repeat('x', 200) WHERE resource_type = 'own';
SELECT flohsync.upsert_resources('c1', 'own', (SELECT jsonb_agg(jsonb_build_object('externalId', md5(i::text))) FROM generate_series(1, 510) i)) -> 'added';
COMMIT;
SQL
is($twice, "500\n10", 'rows of the same transaction, moved about, are found');

$f->no_crash;
done_testing();
