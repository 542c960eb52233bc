# Asking: list_resources, get_resource, list_matches, enable_search and
# list_sync_configs say what is there, and neither they nor the views read a
# whole table for it.  What is read is counted in pages of the buffer cache.
use strict;
use warnings;
use utf8;

use Flohsync;
use PostgreSQL::Test::Utils;
use Test::More;

my $f = Flohsync->new(upstream => 0);
my $icu = $f->sql("SELECT EXISTS (SELECT FROM pg_collation WHERE collname = 'und-x-icu')") eq 't';
my $trgm = $f->sql("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm')") eq 't';
my $nothing = '"url": "http://localhost:9/"';
$f->sql("SELECT flohsync.create_connector('$_', 'command', '{$nothing}')") for qw(few big other);
$f->sql('CREATE ROLE reader; CREATE ROLE manager; CREATE ROLE nobody');
$f->sql("SELECT flohsync.grant_reader('reader'), flohsync.grant_manager('manager')");

sub ask { my ($call) = @_; return $f->json("SELECT flohsync.$call") }
sub ids { return join ' ', map { $_->{externalId} } @{ $_[0]->{data} } }

#
# What a list looks like
#

$f->sql("SELECT flohsync.upsert_resource('few', '$$_[0]', " . Flohsync::jsonb({ externalId => $$_[1], displayName => $$_[2], email => $$_[3], attributes => { n => 1 } }) . ')')
  for [ 'user', 'b', 'Ada Lovelace', 'ada@acme.example' ], [ 'user', 'B', '100 %', undef ], [ 'user', 'a_b', 'Jürgen Groß', 'JG@acme.example' ], [ 'group', 'b', 'Löwen', undef ],
  [ 'user', 'axb', 'back\\slash', undef ], [ 'user', 'é', "two\nlines", undef ], [ 'role', 'z', undef, undef ];
my $all = ask("list_resources('few')");
is(ids($all), 'B a_b axb b b z é', 'all types, in the order of bytes');
is(join(' ', map { $_->{resourceType} } @{ $all->{data} }), 'user user user group user role user', 'and of types where the ids are the same');
is_deeply([ sort keys %$all ], [ sort qw(data total page pageSize totalPages nextAfter) ], 'a page object with nextAfter');
is_deeply([ @$all{qw(total page pageSize totalPages nextAfter)} ], [ 7, 1, 50, 1, undef ], 'with its figures');
my $one = $all->{data}[4];
is_deeply([ sort keys %$one ], [ sort qw(id connectorId resourceType externalId displayName email attributes syncHash staleSince syncedAt createdAt) ], 'a record');
is_deeply([ @$one{qw(resourceType externalId displayName email attributes staleSince)} ], [ 'user', 'b', 'Ada Lovelace', 'ada@acme.example', { n => 1 }, undef ], 'with what it says');
like($one->{syncedAt}, qr/^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/, 'times are ISO 8601 in UTC');
is_deeply(ask("get_resource('few', 'user', 'b')"), $one, 'get_resource gives the same');
is(ask("get_resource('few', 'user', '$_')"), undef, "get_resource of \"$_\": null") for 'c', '', 'B ';
is(ask("get_resource('few', 'user', null)"), undef, 'get_resource of null: null');
is(ids(ask("list_resources('few', 'group')")), 'b', 'one type');
is_deeply(ask("list_resources('few', 'printer')"), { data => [], total => 0, page => 1, pageSize => 50, totalPages => 0, nextAfter => undef }, 'no record');
is_deeply([ @{ ask("list_resources('few', page => 3, page_size => 3)") }{qw(total page pageSize totalPages nextAfter)} ], [ 7, 3, 3, 3, undef ], 'the last page');
is(ids(ask("list_resources('few', page => 2, page_size => 3)")), 'b b z', 'the second page');
is(ids(ask("list_resources('few', page => 99)")), '', 'a page behind the end is empty');
is(ids(ask("list_resources('few', search => $$_[0])")), $$_[1], "search: $$_[0]")
  for [ q('ADA'), 'b' ], [ q('acme'), 'a_b b' ], [ q('%'), 'B' ], [ q('_'), 'a_b' ], [ q('a_b'), 'a_b' ], [ q('\\'), 'axb' ], [ q(E'o\nl'), 'é' ], [ q(E'b\nback'), '' ], [ q(''), ids($all) ],
  [ q(repeat('x', 100000)), '' ], [ q('LOVE'), 'b' ], [ q('b'), 'B a_b axb b b' ];
SKIP:
{
	skip 'no ICU, and a database of locale C', 4 unless $icu;
	is(ids(ask("list_resources('few', search => $$_[0])")), $$_[1], "search: $$_[0]") for [ q('JÜRG'), 'a_b' ], [ q('LÖW'), 'b' ], [ q('É'), 'é' ], [ q('groß'), 'a_b' ];
}

# By key instead of by page, while the list changes
my ($walked, $after) = ('', undef);
for my $turn (1 .. 20)
{
	my $page = ask("list_resources('few', page_size => 2, after => " . (defined $after ? "'$after'" : 'null') . ')');
	$walked .= ids($page) . ($turn == 2 ? '|' : ' ');
	$after = $page->{nextAfter} // last;
	$f->sql("SELECT flohsync.upsert_resource('few', 'user', '{\"externalId\": \"A$turn\"}')");    # before what has been shown
	$f->sql("DELETE FROM flohsync.resource_record WHERE external_id = 'axb'") if $turn == 2;
	$f->sql("SELECT flohsync.upsert_resource('few', 'user', '{\"externalId\": \"c\"}')") if $turn == 2;
}
is($walked, 'B a_b axb b|b c z é ', 'nextAfter leads on behind what was shown, whatever comes and goes');
for my $bad ("'x'", "'%%%'", "'bm8'", "'W10'", "'WzEsMl0'", "'____'", "repeat('A', 9999)", "'eyJhIjoxfQ'", "'$after" . "A'", "E'\\n'")
{
	next unless $bad =~ /./;
	$f->fails_like("SELECT flohsync.list_resources('few', after => $bad)", '22023', qr/"after"/, "after => $bad is refused");
}
$f->fails_like("SELECT flohsync.list_resources($$_[0])", $$_[1], $$_[2], "list_resources($$_[0])")
  for [ q('nowhere'), '42704', qr/nowhere/ ], [ 'null', '42704', qr/NULL/ ], [ q('few', 'no type'), '22023', qr/"resource_type"/ ], [ q('few', ''), '22023', qr/"resource_type"/ ],
  [ q('few', page => 0), '22023', qr/"page"/ ], [ q('few', page => null), '22023', qr/"page"/ ], [ q('few', page_size => 0), '22023', qr/"page_size"/ ], [ q('few', page_size => 2001), '22023', qr/"page_size"/ ];
$f->fails_like("SELECT flohsync.get_resource('few', 'no type', 'b')", '22023', qr/"resource_type"/, 'get_resource with a malformed type');
$f->fails_like("SELECT flohsync.get_resource('nowhere', 'user', 'b')", '42704', qr/nowhere/, 'get_resource of an unknown connector');

# Configurations
is_deeply(ask("list_sync_configs()"), [], 'no configuration');
$f->configure($$_[0], $$_[1]) for [ 'other', 'user' ], [ 'few', 'user' ], [ 'few', 'group' ];
is(join(' ', map { "$_->{resourceType}" } @{ ask('list_sync_configs()') }), 'group user user', 'all configurations');
is_deeply(ask("list_sync_configs('few')"), [ map { ask("sync_config('few', '$_')") } qw(group user) ], 'those of a connector, as sync_config() gives them');
$f->fails_like("SELECT flohsync.list_sync_configs('nowhere')", '42704', qr/nowhere/, 'of an unknown connector');

#
# Anything against what a plain query says
#

$f->sql(<<'SQL');
SELECT setseed(0.4);
DELETE FROM flohsync.resource_record;
-- Few letters, so that searches find something; what has a meaning in patterns; other cases of other alphabets.
CREATE FUNCTION some_text(n int) RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT string_agg((ARRAY['a','A','b','%','_','\','Ü','ü','Σ','σ','ς','İ','.',' '])[1 + (random() * 13)::int], '') FROM generate_series(1, 1 + (random() * n)::int) $$;
INSERT INTO flohsync.resource_record (connector_id, resource_type, external_id, display_name, email, sync_hash, observed_at, stale_since)
SELECT (SELECT id FROM flohsync.connector_definition WHERE name = 'few'), (ARRAY['user', 'group', 'User', 'x.y-z'])[1 + (random() * 3)::int], some_text(12),
       CASE WHEN random() < 0.8 THEN some_text(20) END, CASE WHEN random() < 0.8 THEN some_text(15) END, 'x', now(), CASE WHEN random() < 0.3 THEN now() END
  FROM generate_series(1, 1000) ON CONFLICT DO NOTHING;
INSERT INTO flohsync.connector_sync_match (connector_id, resource_type, connector_resource_id, external_id, external_display_name, external_email, match_status, match_confidence)
SELECT r.connector_id, r.resource_type, r.id, r.external_id, r.display_name, r.email, s.status, 'none'
  FROM flohsync.resource_record r, LATERAL (SELECT (ARRAY['matched','unmatched','ambiguous','manual_override','skipped','create_pending'])[1 + (r.record_no % 6)]) s(status)
 WHERE random() < 0.9;
-- The folding that is promised: ICU's lower case, and a sigma is a sigma.
CREATE FUNCTION fold(t text) RETURNS text LANGUAGE sql AS $$ SELECT translate(lower(t), 'ς', 'σ') $$;
SQL
$f->sql(q(CREATE OR REPLACE FUNCTION fold(t text) RETURNS text LANGUAGE sql AS $$ SELECT translate(lower(t COLLATE "und-x-icu"), 'ς', 'σ') $$)) if $icu;
$f->sql(<<'SQL');
CREATE FUNCTION wrong_lists(rounds int) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE c uuid := (SELECT d.id FROM flohsync.connector_definition d WHERE d.name = 'few'); s text; t text; st boolean; status text; n int; want jsonb; got jsonb; walk jsonb; mark text;
BEGIN
  FOR i IN 1 .. rounds LOOP
    s := CASE WHEN random() < 0.7 THEN some_text((random() * 4)::int) WHEN random() < 0.3 THEN 'aaa' END;
    t := (ARRAY['user', 'group', 'User', NULL])[1 + (random() * 3)::int];
    st := (ARRAY[true, false, NULL])[1 + (random() * 2)::int];
    n := 1 + (random() * 40)::int;
    SELECT coalesce(jsonb_agg(jsonb_build_array(r.external_id, r.resource_type) ORDER BY r.external_id COLLATE "C", r.resource_type COLLATE "C"), '[]') INTO want
      FROM flohsync.resource_record r
     WHERE r.connector_id = c AND (t IS NULL OR r.resource_type = t) AND (st IS NULL OR (r.stale_since IS NOT NULL) = st)
       AND (coalesce(s, '') = '' OR strpos(fold(r.external_id), fold(s)) > 0 OR strpos(fold(r.email), fold(s)) > 0 OR strpos(fold(r.display_name), fold(s)) > 0);
    got := '[]';
    mark := NULL;
    FOR p IN 1 .. 10000 LOOP
      walk := CASE WHEN i % 2 = 0 THEN flohsync.list_resources('few', t, s, st, p, n * 10) ELSE flohsync.list_resources('few', t, s, st, 1, n * 10, mark) END;
      got := got || (SELECT coalesce(jsonb_agg(jsonb_build_array(e ->> 'externalId', e ->> 'resourceType') ORDER BY o), '[]') FROM jsonb_array_elements(walk -> 'data') WITH ORDINALITY x(e, o));
      mark := walk ->> 'nextAfter';
      IF (walk ->> 'total')::int <> jsonb_array_length(want) THEN
        RETURN NEXT format('total of (%L, %L, %L): %s, not %s', t, s, st, walk -> 'total', jsonb_array_length(want));
      END IF;
      EXIT WHEN mark IS NULL;
    END LOOP;
    IF got <> want THEN
      RETURN NEXT format('list_resources(%L, %L, %L) by %s', t, s, st, n);
    END IF;
    CONTINUE WHEN t IS NULL;
    status := (ARRAY['matched','unmatched','ambiguous','manual_override','skipped','create_pending', NULL, NULL, NULL, NULL])[1 + (random() * 9)::int];
    SELECT coalesce(jsonb_agg(jsonb_build_array(m.external_id, r.stale_since IS NOT NULL) ORDER BY m.external_id COLLATE "C"), '[]') INTO want
      FROM flohsync.connector_sync_match m JOIN flohsync.resource_record r ON r.id = m.connector_resource_id
     WHERE m.connector_id = c AND m.resource_type = t AND (st IS NULL OR (r.stale_since IS NOT NULL) = st) AND (status IS NULL OR m.match_status = status)
       AND (coalesce(s, '') = '' OR strpos(fold(m.external_id), fold(s)) > 0 OR strpos(fold(m.external_email), fold(s)) > 0 OR strpos(fold(m.external_display_name), fold(s)) > 0);
    got := '[]';
    FOR p IN 1 .. 10000 LOOP
      walk := flohsync.list_matches('few', t, status, s, p, n * 10, st);
      got := got || (SELECT coalesce(jsonb_agg(jsonb_build_array(e ->> 'externalId', e ->> 'staleSince' IS NOT NULL) ORDER BY o), '[]') FROM jsonb_array_elements(walk -> 'data') WITH ORDINALITY x(e, o));
      IF (walk ->> 'total')::int <> jsonb_array_length(want) OR (walk ->> 'totalPages')::int <> ceil(jsonb_array_length(want) / (n * 10.0)) THEN
        RETURN NEXT format('figures of list_matches(%L, %L, %L, %L): %s', t, status, s, st, walk - 'data');
      END IF;
      EXIT WHEN p >= (walk ->> 'totalPages')::int;
    END LOOP;
    IF got <> want THEN
      RETURN NEXT format('list_matches(%L, %L, %L, %L) by %s', t, status, s, st, n);
    END IF;
  END LOOP;
END $$;
CREATE FUNCTION stats(t text) RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_object('resourceType', t, 'total', count(*), 'stale', count(*) FILTER (WHERE stale AND m.match_status IN ('unmatched', 'ambiguous', 'create_pending')),
      'matched', count(*) FILTER (WHERE m.match_status = 'matched'), 'manualOverride', count(*) FILTER (WHERE m.match_status = 'manual_override'), 'skipped', count(*) FILTER (WHERE m.match_status = 'skipped'),
      'unmatched', count(*) FILTER (WHERE m.match_status = 'unmatched' AND NOT stale), 'ambiguous', count(*) FILTER (WHERE m.match_status = 'ambiguous' AND NOT stale),
      'createPending', count(*) FILTER (WHERE m.match_status = 'create_pending' AND NOT stale),
      'byConfidence', jsonb_build_object('exact', count(*) FILTER (WHERE m.match_confidence = 'exact'), 'probable', count(*) FILTER (WHERE m.match_confidence = 'probable'),
        'ambiguous', count(*) FILTER (WHERE m.match_confidence = 'ambiguous'), 'none', count(*) FILTER (WHERE m.match_confidence = 'none')))
    FROM flohsync.connector_sync_match m JOIN flohsync.resource_record r ON r.id = m.connector_resource_id CROSS JOIN LATERAL (SELECT r.stale_since IS NOT NULL) s(stale)
   WHERE m.resource_type = t AND m.connector_id = (SELECT d.id FROM flohsync.connector_definition d WHERE d.name = 'few') $$;
SQL
# A few at a time: a query that takes a minute counts as one that hangs.
sub wrong { my ($rounds, $db) = @_; return join "\n", grep { $_ ne '' } map { $f->sql('SELECT wrong_lists(10)', $db) } 1 .. $rounds / 10 }
is(wrong(150), '', 'pages of any list are what a plain query says');
$f->sql('VACUUM ANALYZE');
is(wrong(100), '', 'also with other statistics');
is_deeply(ask("match_stats('few', '$_')"), $f->json("SELECT stats('$_')"), "match_stats of $_") for qw(user group none);
cmp_ok(ask("match_stats('few', 'user')")->{stale}, '>', 10, 'among them stale ones, which nobody has to look at');

#
# Indexes for searches
#

SKIP:
{
	skip 'no pg_trgm', 13 unless $trgm;
	ok(!$f->try_sql('SET ROLE reader; SELECT flohsync.enable_search()')->{ok}, 'a reader makes no indexes');
	my $r = $f->try_sql("SET client_min_messages = notice; SET ROLE manager; SELECT flohsync.enable_search()");
	ok($r->{ok} && $r->{out} eq 'f' && $r->{text} =~ /pg_trgm.*CREATE EXTENSION/s, 'enable_search is false without pg_trgm, and says so') or diag($r->{text});
	# In a schema that nobody may use
	$f->sql('CREATE SCHEMA hidden; REVOKE ALL ON SCHEMA hidden FROM PUBLIC; CREATE EXTENSION pg_trgm SCHEMA hidden');
	# Two at once, while somebody writes
	my $writer = $f->start_sql("BEGIN; SELECT flohsync.upsert_resource('other', 'user', '{\"externalId\": \"w\"}'); SELECT pg_sleep(1); COMMIT");
	$f->wait_for("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1)%' AND wait_event = 'PgSleep')");
	my @both = map { $f->start_sql('SET ROLE manager; SELECT flohsync.enable_search()') } 1 .. 2;
	$r = $f->finish($_), ok($r->{ok} && $r->{out} eq 't', 'a manager makes them, two at once') || diag($r->{text}) for @both;
	ok($f->finish($writer)->{ok}, 'while somebody writes');
	is($f->sql("SELECT count(*) FROM pg_indexes WHERE schemaname = 'flohsync' AND indexdef LIKE '%hidden.gin_trgm_ops%'"), 2, 'there are two indexes');
	$r = $f->try_sql('SET ROLE manager; SELECT flohsync.enable_search()');
	is("$r->{out} $r->{text}", 't ', 'and they are there the next time');
	# Indexes of others, whatever their names
	$f->sql("CREATE INDEX my_search ON flohsync.resource_record (email); CREATE INDEX my_matches_search ON flohsync.connector_sync_match (external_email)");
	is(wrong(10), '', 'an index of somebody else with a name like theirs is none of them');
	$f->sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'flohsync.my_search'::regclass; DROP INDEX flohsync.connector_sync_match_search");
	is($f->sql("SET client_min_messages = warning; SELECT flohsync.enable_search()"), 't', 'nor is it taken for one that is missing');
	is($f->sql("SELECT string_agg(indexname, ' ' ORDER BY indexname) FROM pg_indexes WHERE schemaname = 'flohsync' AND indexname ~ '_search'"),
		'connector_sync_match_search connector_sync_match_search_marks my_matches_search my_search resource_record_search resource_record_search_marks', 'or dropped');
	$f->sql('DROP INDEX flohsync.my_search, flohsync.my_matches_search');
	is(wrong(150), '', 'with indexes, pages of any list are what a plain query says');
	$f->sql("UPDATE flohsync.resource_record SET display_name = some_text(10) WHERE random() < 0.2; DELETE FROM flohsync.resource_record WHERE random() < 0.1");
	is(wrong(100), '', 'also after changes');
	$f->sql('DROP EXTENSION pg_trgm CASCADE');
	is(wrong(30), '', 'and after the indexes went with pg_trgm');
	$f->sql('CREATE EXTENSION pg_trgm');
	is($f->sql("SET client_min_messages = warning; SELECT flohsync.enable_search()"), 't', 'pg_trgm is back, and so are they');
	is(wrong(30), '', 'and the lists as they are');
	# A dump does not carry them; what it carries can be searched.
	my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
	$f->node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $f->node->connstr('postgres') ], 'pg_dump');
	$f->sql('CREATE DATABASE restored');
	$f->node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $f->node->connstr('restored'), $dump ], 'pg_restore');
	is(wrong(30, 'restored'), '', 'a restored database has the same lists, with their totals');
	is($f->sql("SET client_min_messages = warning; SELECT flohsync.enable_search()", 'restored'), 't', 'and its indexes are made anew');
	is(wrong(30, 'restored'), '', 'they serve');
	$f->disconnect('restored');
}

#
# How much is read
#

my $n = 80000;
$f->sql('DELETE FROM flohsync.resource_record');
for my $part (1 .. 5)
{
	my $numbers = sprintf 'generate_series(%d, %d) g', ($part - 1) * $n / 5 + 1, $part * $n / 5;
	$f->sql($_) for <<RECORDS, <<MATCHES, <<USERS, <<RUNS;
INSERT INTO flohsync.resource_record (connector_id, resource_type, external_id, display_name, email, attributes, sync_hash, observed_at, stale_since)
SELECT d.id, 'user', 'u-' || lpad(g::text, 6, '0'), 'Name of ' || md5(g::text), md5(g::text) || '\@acme.example', '{"department": "R&D"}', md5(g::text) || md5(g::text), now(), CASE WHEN g % 50 = 0 THEN now() END
  FROM $numbers, flohsync.connector_definition d WHERE d.name = 'big' OR (d.name = 'other' AND g % 10 = 0)
RECORDS
INSERT INTO flohsync.connector_sync_match (connector_id, resource_type, connector_resource_id, external_id, external_display_name, external_email, match_status, match_confidence, user_id)
SELECT r.connector_id, r.resource_type, r.id, r.external_id, r.display_name, r.email, CASE WHEN r.external_id > 'u-079000' THEN 'unmatched' ELSE 'matched' END, 'exact', gen_random_uuid()
  FROM $numbers JOIN flohsync.resource_record r ON r.external_id = 'u-' || lpad(g::text, 6, '0') AND r.resource_type = 'user'
MATCHES
INSERT INTO flohsync.floh_user (iss, sub, email, display_name, confirmed, upstream_id)
SELECT 'https://idp.example', 's-' || g, md5(g::text) || '\@acme.example', 'Name of ' || g, true, 'up-' || g FROM $numbers
USERS
WITH run AS (INSERT INTO flohsync.sync_run (connector_id, resource_type, strategy, trigger, status, pass_id, finished_at)
  SELECT d.id, 'user', 'full', 'manual', 'success', g, now() FROM $numbers, flohsync.connector_definition d WHERE d.name = 'big' RETURNING id)
INSERT INTO flohsync.sync_run_page (run_id, page, records, bytes, fetched_at, fetch_ms, apply_ms, added, updated, unchanged, restored, filtered, errored, ignored, duplicates, truncated, unidentified)
SELECT r.id, 1, 1, 1, now(), 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0 FROM run r
RUNS
}
$f->sql(<<SQL);
INSERT INTO flohsync.resource_record (connector_id, resource_type, external_id, sync_hash, observed_at)
SELECT d.id, t, t || g, md5(g::text) || md5(g::text), now() FROM generate_series(1, 500) g, flohsync.connector_definition d, unnest(ARRAY['group', 'zone']) t WHERE d.name = 'big';
INSERT INTO flohsync.sync_run (connector_id, resource_type, strategy, trigger, status, pass_id) SELECT d.id, 'user', 'full', 'manual', 'running', $n FROM flohsync.connector_definition d WHERE d.name = 'big';
CREATE TABLE some_records AS SELECT r.id, r.external_id::text, r.email::text, m.user_id FROM flohsync.resource_record r JOIN flohsync.connector_sync_match m ON m.connector_resource_id = r.id ORDER BY random() LIMIT 5;
CREATE TABLE some_runs AS SELECT r.id FROM flohsync.sync_run r ORDER BY r.id DESC LIMIT 5;
GRANT SELECT ON some_records, some_runs TO reader;
SQL
$f->configure('big', 'user');
$f->sql('VACUUM ANALYZE');
my $big = $f->sql("SELECT id FROM flohsync.connector_definition WHERE name = 'big'");
my $id = $f->sql("SELECT id FROM flohsync.resource_record WHERE external_id = 'u-012345' LIMIT 1");
my $user = $f->sql("SELECT id FROM flohsync.floh_user WHERE sub = 's-777'");

# Buffers that a query, and the functions that it calls, look at; the second time, when catalogs are known.
sub reads
{
	my ($role, $sql) = @_;
	my @json = $f->sql("SET ROLE $role; SET jit = off; EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) $sql; EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) $sql; RESET ROLE; RESET jit") =~ /^(\[.*?^\])/msg;
	my $plan = decode_json_text($json[-1])->[0]{Plan};
	return $plan->{'Shared Hit Blocks'} + $plan->{'Shared Read Blocks'};
}
sub reads_little
{
	my ($most, $sql) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	cmp_ok(reads($_, $sql), '<=', $most, "$_: $sql") for $f->superuser, 'reader';
}
cmp_ok(reads('reader', "SELECT count(*) FROM flohsync.connector_resource WHERE display_name = 'x'"), '>', 2000, 'reading a table looks at thousands of buffers');
reads_little(60, $_) for (
	"SELECT * FROM flohsync.connector_resource WHERE connector_id = '$big' AND resource_type = 'user' AND external_id = 'u-012345'",
	"SELECT * FROM flohsync.connector_resource WHERE external_id = 'u-012345'",
	"SELECT * FROM flohsync.connector_resource WHERE id = '$id'",
	"SELECT * FROM flohsync.connector_resource WHERE email = md5('777') || '\@acme.example'",
	"SELECT * FROM flohsync.connector_resource WHERE external_id LIKE 'u-01234%'",
	"SELECT * FROM flohsync.connector_resource WHERE connector_id = '$big' AND resource_type = 'user' ORDER BY external_id LIMIT 50",
	"SELECT * FROM flohsync.connector_resource WHERE connector_id = '$big' AND resource_type = 'zone' ORDER BY external_id LIMIT 10",
	"SELECT * FROM flohsync.connector_resource WHERE connector_id = '$big' AND resource_type = 'user' AND external_id > 'u-060000' ORDER BY external_id LIMIT 50",
	'SELECT * FROM some_records s JOIN flohsync.connector_resource r ON r.id = s.id',
	'SELECT * FROM some_records s JOIN flohsync.connector_resource r ON r.external_id = s.external_id',
	"SELECT * FROM some_records s JOIN flohsync.connector_resource r ON r.connector_id = '$big' AND r.resource_type = 'user' AND r.external_id = s.external_id",
	'SELECT * FROM some_records s JOIN flohsync.connector_resource r ON r.email = s.email',
	"SELECT * FROM flohsync.v_user WHERE id = '$user'",
	"SELECT * FROM flohsync.v_user WHERE email = md5('777') || '\@acme.example'",
	"SELECT * FROM flohsync.v_user WHERE sub = 's-777'",
	"SELECT * FROM flohsync.v_user WHERE upstream_id = 'up-777'",
	'SELECT * FROM flohsync.sync_progress',
	"SELECT * FROM flohsync.sync_progress WHERE connector = 'big'",
	'SELECT * FROM some_runs s JOIN flohsync.sync_progress p ON p.run_id = s.id',
	'SELECT * FROM flohsync.jobs',
	"SELECT * FROM flohsync.jobs WHERE connector = 'big' AND resource_type = 'user'",
	'SELECT * FROM flohsync.workers',
);
cmp_ok(reads('manager', $_), '<=', 60, "manager: $_") for 'SELECT * FROM flohsync.connector_secrets', "SELECT * FROM flohsync.connector_secrets WHERE connector = 'big'";

my $deep = ask("list_resources('big', 'user', page => 1440)")->{nextAfter};
my %few = (
	'first page, all types' => "list_resources('big')", 'first page of a type' => "list_resources('big', 'user')", 'a small type' => "list_resources('big', 'zone')",
	'far behind by key' => "list_resources('big', 'user', after => '$deep')", 'far behind, all types' => "list_resources('big', after => '$deep')",
	'stale ones' => "list_resources('big', 'user', stale => true)", 'those that are not' => "list_resources('big', 'user', stale => false)",
	'one record' => "get_resource('big', 'user', 'u-012345')", 'matches' => "list_matches('big', 'user')", 'those to look at' => "list_matches('big', 'user', 'unmatched')",
);
cmp_ok(reads('reader', "SELECT flohsync.$few{$_}"), '<=', 600, "$_: $few{$_}") for sort keys %few;
my %some = ('stale matches' => "list_matches('big', 'user', 'unmatched', stale => true)", 'all but them' => "list_matches('big', 'user', 'unmatched', stale => false)", 'figures' => "match_stats('big', 'user')");
cmp_ok(reads('reader', "SELECT flohsync.$some{$_}"), '<=', 1000, "$_: $some{$_}") for sort keys %some;
my $stats = ask("match_stats('big', 'user')");
is_deeply([ @$stats{qw(total matched unmatched stale)} ], [ $n, $n - 1000, 980, 20 ], 'match_stats is right');
is(ask($_->[0])->{total}, $_->[1], "the total of $_->[0]")
  for [ "list_resources('big')", $n + 1000 ], [ "list_resources('big', 'user', stale => true)", $n / 50 ], [ "list_resources('big', 'user', search => 'acme')", $n ], [ "list_matches('big', 'user', search => 'ACME')", $n ],
  [ "list_matches('big', 'user', 'unmatched', stale => true)", 20 ], [ "list_matches('big', 'user', 'unmatched', 'acme', stale => false)", 980 ], [ "list_resources('big', 'user', search => 'u-07')", 10000 ];
# A search that finds much counts once; going on by key does not count again.
my $first = ask("list_resources('big', 'user', search => 'acme')");
cmp_ok(reads('reader', "SELECT flohsync.list_resources('big', 'user', search => 'acme', after => '$first->{nextAfter}')"), '<=', 600, 'a large search is gone on with');
is(ask("list_resources('big', 'user', search => 'acme', after => '$first->{nextAfter}')")->{total}, $n, 'with its total');
isnt(ask("list_resources('big', 'user', search => 'u-07', after => '$first->{nextAfter}')")->{total}, $n, 'which belongs to that list alone');
is(ids(ask("list_resources('big', 'user', search => 'u-0799', page_size => 2, page => 50)")), 'u-079998 u-079999', 'what is far behind is found');

SKIP:
{
	skip 'no pg_trgm', 5 unless $trgm;
	$f->sql("SET client_min_messages = warning; SELECT flohsync.enable_search()");
	$f->sql('VACUUM ANALYZE');
	my $rare = $f->sql("SELECT substr(md5('4242'), 5, 12)");
	my %little = (
		'a search in records' => "list_resources('big', 'user', search => '$rare')", 'in all types' => "list_resources('big', search => upper('$rare'))",
		'in matches' => "list_matches('big', 'user', search => '$rare')", 'for nothing' => "list_matches('big', 'user', search => 'nobody of this name')",
		'of a status' => "list_matches('big', 'user', 'unmatched', 'u-079876', stale => false)",
	);
	cmp_ok(reads('reader', "SELECT flohsync.$little{$_}"), '<=', 1500, "$_: $little{$_}") for sort keys %little;
}

$f->no_crash;
done_testing();
