# Searches in lists of some size, by list_resources and list_matches: all pages
# together are what a plain query says, whichever way leads to them, and a total is
# exact up to 10,000 hits, and beyond that an estimate that is right at the end.
use strict;
use warnings;
use utf8;

use Flohsync;
use MIME::Base64;
use Test::More;

my $f = Flohsync->new(upstream => 0);
my $trgm = $f->sql("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm')") eq 't';
$f->sql(q(SELECT flohsync.create_connector(c, 'command', '{"url": "http://localhost:9/"}') FROM unnest(ARRAY['big', 'other']) c));

sub ask { my ($call) = @_; return $f->json("SELECT flohsync.$call") }

# "rare…" is in few records, "some…" in some, and so on; "early", "late" and "thick" are in stretches of the list or
# of the table.  Ids begin anyhow, so that the table is in another order than the list; those of "big" and "other" are mixed.
# A few names have letters and signs that others have not, next to each other in all ways.
my $n = 36000;
my $odd = q('éqé üqx xqü qx -q- ëqz._ zqë @@ -- jj_ o´j j''o q 王伟 王q伟 qñ. ñq. .qñ wq# #w øøø 7ø ø7 øq7 k-ø ø-k øk-ø øk.w -kø xq yq-ü');
$f->sql(<<SQL);
SELECT setseed(0.65);
CREATE FUNCTION some_word(g int, id text) RETURNS text LANGUAGE sql VOLATILE AS \$\$
  SELECT CASE WHEN g % 6000 = 7 THEN 'rare' WHEN g % 40 = 0 THEN 'some' WHEN g % 5 = 1 THEN 'many' WHEN g % 2 = 0 THEN 'most' ELSE 'else' END
      || CASE WHEN id > 'u-e' THEN ' late' WHEN id < 'u-3' THEN ' Early' ELSE '' END
      || CASE WHEN g % 600 = 0 THEN ' ' || (string_to_array($odd, ' '))[1 + g / 600 % cardinality(string_to_array($odd, ' '))] ELSE '' END
      || CASE WHEN g BETWEEN 18000 AND 25000 THEN ' thick' WHEN g > $n - 12000 THEN ' Wide' ELSE '' END || ' of all ' || substr(md5(g::text), 1, 3) \$\$;
SQL
for my $part (1 .. 6)
{
	my $numbers = sprintf 'generate_series(%d, %d) g', ($part - 1) * $n / 6 + 1, $part * $n / 6;
	$f->sql(<<SQL);
INSERT INTO flohsync.resource_record (connector_id, resource_type, external_id, display_name, email, sync_hash, observed_at, stale_since)
SELECT d.id, t.type, 'u-' || md5(g || 'id'), CASE WHEN g % 3 > 0 THEN some_word(g, 'u-' || md5(g || 'id')) END,
       CASE WHEN g % 3 < 2 THEN upper(some_word(g, 'u-' || md5(g || 'id'))) || '\@x' END, 'x', now(), CASE WHEN g % 7 = 0 THEN now() END
  FROM $numbers, flohsync.connector_definition d, unnest(ARRAY['user', 'group', 'Zone']) t(type)
 WHERE (d.name = 'big' AND (t.type = 'user' OR (t.type = 'group' AND g % 3 = 0) OR g % 20 = 0)) OR (t.type = 'user' AND g % 2 = 0);
INSERT INTO flohsync.connector_sync_match (connector_id, resource_type, connector_resource_id, external_id, external_display_name, external_email, match_status, match_confidence)
SELECT r.connector_id, r.resource_type, r.id, r.external_id, r.display_name, r.email, CASE WHEN g % 5 < 2 THEN 'unmatched' ELSE 'matched' END, 'none'
  FROM $numbers JOIN flohsync.resource_record r ON r.external_id = 'u-' || md5(g || 'id') JOIN flohsync.connector_definition d ON d.id = r.connector_id AND d.name = 'big'
SQL
}
# What is long, and in several lines, and empty
$f->sql(<<'SQL');
INSERT INTO flohsync.resource_record (connector_id, resource_type, external_id, display_name, email, sync_hash, observed_at)
SELECT d.id, 'user', i, n, e, 'x', now() FROM flohsync.connector_definition d,
  (VALUES ('u-' || repeat('Long', 60), repeat('ö', 200) || 'end', repeat('mail', 60) || 'END'), ('u-lines', E'Two\nLines of all', E'of\nall@x'), ('u-empty', '', ''),
          (repeat('w', 255), repeat('w', 254) || 'v', repeat('v', 255)), ('u-' || repeat('王', 250), repeat('é', 255), repeat('q', 254) || '伟')) v(i, n, e) WHERE d.name = 'big'
SQL
$f->sql(<<'SQL');
CREATE TABLE needles AS SELECT w FROM unnest(ARRAY['nothing', 'rare', 'RARE late', 'some', 'some of all 0', 'many', 'most', 'else', 'all', 'u-', 'u-0', 'u-ff', 'late', 'many late',
  'early', 'early of', 'thick', 'wide', 'wide of all a', 'a', 'e', 'q', 'ra', 'of', 'zz', '@X', '%', ' of all 12', '   ', '-', 'q', 'qx', 'é', '--', 'j', 'ø']) w;
-- What is wrong with one list.  "By": its pages by number, from any one on; or from the first, by nextAfter.
CREATE FUNCTION wrong_search(fn text, t text, st boolean, status text, s text, by_number boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  c uuid := (SELECT d.id FROM flohsync.connector_definition d WHERE d.name = 'big');
  what text := format('%s(%L, %L, %L, %L) by %s', fn, t, st, status, s, CASE WHEN by_number THEN 'number' ELSE 'nextAfter' END);
  size int := (ARRAY[37, 500, 2000])[1 + (random() * 2)::int];
  want text[];
  got text[];
  n int;
  at int;
  p int := 1;
  page jsonb;
  mark text;
  total int;
BEGIN
  IF fn = 'list_resources' THEN
    SELECT coalesce(array_agg(r.external_id || ' ' || r.resource_type ORDER BY r.external_id, r.resource_type), '{}') INTO want FROM flohsync.resource_record r
     WHERE r.connector_id = c AND (t IS NULL OR r.resource_type = t) AND (st IS NULL OR (r.stale_since IS NOT NULL) = st)
       AND strpos(lower(r.external_id || E'\n' || coalesce(r.email, '') || E'\n' || coalesce(r.display_name, '')), lower(s)) > 0;
  ELSE
    SELECT coalesce(array_agg(m.external_id || ' ' || m.resource_type ORDER BY m.external_id), '{}') INTO want
      FROM flohsync.connector_sync_match m JOIN flohsync.resource_record r ON r.id = m.connector_resource_id
     WHERE m.connector_id = c AND m.resource_type = t AND (st IS NULL OR (r.stale_since IS NOT NULL) = st) AND (status IS NULL OR m.match_status = status)
       AND strpos(lower(m.external_id || E'\n' || coalesce(m.external_email, '') || E'\n' || coalesce(m.external_display_name, '')), lower(s)) > 0;
  END IF;
  n := cardinality(want);
  IF by_number THEN
    -- Some page, and the last two, and what is behind them.
    p := 1 + (random() * n / size)::int;
  END IF;
  FOR i IN 1 .. 1000 LOOP
    IF fn = 'list_matches' THEN
      page := flohsync.list_matches('big', t, status, s, p, size, st);
    ELSIF by_number THEN
      page := flohsync.list_resources('big', t, s, st, p, size);
    ELSE
      page := flohsync.list_resources('big', t, s, st, 1, size, mark);
      mark := page ->> 'nextAfter';
    END IF;
    at := (p - 1) * size;
    SELECT coalesce(array_agg(e ->> 'externalId' || ' ' || (e ->> 'resourceType') ORDER BY o), '{}') INTO got FROM jsonb_array_elements(page -> 'data') WITH ORDINALITY x(e, o);
    IF got <> want[at + 1 : at + size] THEN
      RETURN format('%s: page %s of %s', what, p, size);
    END IF;
    total := page -> 'total';
    IF coalesce((page -> 'totalIsEstimate')::boolean, false) THEN
      -- At the end nothing has to be guessed.
      IF n <= 10000 OR total <= 10000 OR at + size >= n THEN
        RETURN format('%s: total of page %s of %s is the estimate %s, and %s are right', what, p, size, total, n);
      ELSIF total NOT BETWEEN n / 3 AND n * 3 OR total < least(n, at + size + 1) THEN
        RETURN format('%s: estimate %s of %s, on page %s of %s', what, total, n, p, size);
      END IF;
    ELSIF total <> n THEN
      RETURN format('%s: total of page %s of %s is %s, not %s', what, p, size, total, n);
    END IF;
    IF (page -> 'totalPages')::int <> ceil(total::numeric / size) OR (fn = 'list_resources' AND (page ->> 'nextAfter' IS NULL) <> (at + size >= n)) THEN
      RETURN format('%s: %s', what, page - 'data');
    END IF;
    EXIT WHEN at > n OR (NOT by_number AND mark IS NULL);
    -- Small pages are not all read.
    p := CASE WHEN NOT by_number OR i > 2 THEN p + 1 ELSE greatest(p + 1, n / size) END;
    EXIT WHEN NOT by_number AND i >= 40 AND size < 2000;
  END LOOP;
  RETURN NULL;
END $$;
CREATE FUNCTION some_needle() RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT w FROM needles ORDER BY random() LIMIT 1 $$;
CREATE FUNCTION wrong_searches(rounds int) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT x FROM (SELECT wrong_search(CASE WHEN random() < 0.6 THEN 'list_resources' ELSE 'list_matches' END, (ARRAY['user', 'user', 'user', 'group', 'Zone'])[1 + (random() * 4)::int],
      (ARRAY[true, false, NULL, NULL])[1 + (random() * 3)::int], (ARRAY['matched', 'unmatched', NULL, NULL])[1 + (random() * 3)::int],
      some_needle(), random() < 0.6) FROM generate_series(1, rounds) i) w(x) WHERE x IS NOT NULL $$;
CREATE FUNCTION wrong_in_all_types(rounds int) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT x FROM (SELECT wrong_search('list_resources', NULL, (ARRAY[true, false, NULL, NULL])[1 + (random() * 3)::int], NULL,
      some_needle(), random() < 0.6) FROM generate_series(1, rounds) i) w(x) WHERE x IS NOT NULL $$;
SQL
# Any part of any text, found by any of its trigrams: within a word, over its end, at both ends of the text
$f->sql(<<'SQL');
CREATE FUNCTION wrong_parts(rounds int) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT x FROM (SELECT wrong_search(fn, 'user', NULL, NULL, CASE WHEN random() < 0.5 THEN upper(part) ELSE part END, true)
      FROM generate_series(1, rounds) i,
        LATERAL (SELECT CASE WHEN i % 4 > 0 THEN 'list_resources' ELSE 'list_matches' END, (ARRAY[external_id, email, display_name])[1 + (random() * 2)::int]
                   FROM (SELECT external_id, email, display_name FROM flohsync.resource_record WHERE resource_type = 'user' AND i > 0 OFFSET (random() * 50000)::int LIMIT 1) r) t(fn, value),
        LATERAL (SELECT substr(value, 1 + (random() * random() * length(value))::int, 3 + (random() * 17)::int)) p(part)
     WHERE part <> '') w(x) WHERE x IS NOT NULL $$;
SQL
# A few at a time: a query that takes a minute counts as one that hangs.
sub wrong
{
	my ($rounds) = @_;
	return join "\n", grep { $_ ne '' } map { ($f->sql('SELECT wrong_searches(4)'), $f->sql('SELECT wrong_in_all_types(2)')) } 1 .. $rounds / 6;
}

# What is longer than most, and lines; and what would be found if a text did not end where it ends
sub wrong_long
{
	my @long = ("repeat('ö', 100)", "repeat('Ö', 200) || 'end'", "repeat('ö', 201)", "repeat('longLONG', 15)", "'u-' || repeat('long', 60)", "'gmail'", "'longmail'", "'endmail'", "'u-longo'",
		"repeat('w', 255)", "repeat('w', 254) || 'v'", "'wwv'", "'wvv'", "repeat('w', 256)", "repeat('q', 254) || '伟'", "'qq伟'", "'伟é'", "'王é'", "repeat('é', 255)", "repeat('王', 240)", "repeat('x', 3000)",
		"E'two\\nlines'", "E'lines\\nof'", "E'of\\nall'", "E'\@x\\n'", "E'\\n'", "E'u-empty\\n'", "E'all\@x\\ntwo'", "'% of all'", "'of_all'", "'\\ of'");
	return join "\n", grep { $_ ne '' } map { $f->sql("SELECT s.x || ': ' || t.x FROM (SELECT (flohsync.list_resources('big', 'user', search => $_) -> 'total')::int) s(x), (SELECT count(*) FROM flohsync.resource_record r
			JOIN flohsync.connector_definition d ON d.id = r.connector_id WHERE d.name = 'big' AND r.resource_type = 'user' AND greatest(strpos(lower(r.external_id), lower(x)), strpos(lower(r.email), lower(x)), strpos(lower(r.display_name), lower(x))) > 0) t(x)
			WHERE s.x <> t.x" =~ s/lower\(x\)/replace(lower($_), 'Ö', 'ö')/gr) } @long;
}

is(wrong(36), '', 'without an index, whatever is known of the tables');
is(wrong_long(), '', 'long ones, and lines: a text ends where it ends');
my $estimate = ask("list_resources('big', 'user', search => 'of all', page_size => 2000)");
ok($estimate->{totalIsEstimate}, 'many hits are not counted');
is_deeply([ sort grep { !/^(?:data|nextAfter)$/ } keys %$estimate ], [ sort qw(total page pageSize totalPages totalIsEstimate) ], 'which the page object says');
ok(!exists ask("list_resources('big', 'user', search => 'some')")->{totalIsEstimate}, 'and not of a total that is exact');
ok(!exists ask("list_resources('big', 'user')")->{totalIsEstimate}, 'nor of the one without a search');
is(ask("list_resources('big', 'user', search => 'of all', after => '$estimate->{nextAfter}')")->{total}, $estimate->{total}, 'nextAfter takes an estimate along');

# What CREATE EXTENSION says
$f->sql('CREATE DATABASE fresh');
my $said = $f->try_sql('SET client_min_messages = notice; CREATE EXTENSION flohsync', 'fresh')->{text};
my $how = $trgm ? 'CREATE EXTENSION pg_trgm' : 'postgresql-contrib';
like($said, qr/extension pg_trgm is not installed.*\Q$how\E.*enable_search/s, 'CREATE EXTENSION says how to come to indexes');
if ($trgm)
{
	$said = $f->try_sql('DROP EXTENSION flohsync; CREATE EXTENSION pg_trgm; CREATE EXTENSION flohsync', 'fresh')->{text};
	like($said, qr/have no indexes yet.*SELECT flohsync\.enable_search/s, 'also where only they are missing');
}
$f->disconnect('fresh');

# Marks of others
sub mark { my ($json) = @_; my $text = encode_base64($json, ''); return $text =~ tr{+/=}{-_}dr }
my (@parts) = split /,\s*/, do { my $text = $estimate->{nextAfter} =~ tr{-_}{+/}r; decode_base64($text . '=' x (-length($text) % 4)) };
is(scalar @parts, 6, 'a mark has six parts');
my $page = ask("list_resources('big', 'user', search => 'of all', page_size => 2000, after => '" . mark(join(',', @parts[ 0 .. 3 ]) . ']') . "')");
is($page->{data}[0]{externalId}, ask("list_resources('big', 'user', search => 'of all', page => 2, page_size => 2000)")->{data}[0]{externalId}, 'one of version 0.2 leads on');
is($page->{total}, $estimate->{total}, 'with its total');
for my $forged ([ '-1', 1, 1 ], [ '1e9', 1, 1 ], [ '999999999999999', '999999999999999', 'true' ], [ 20000, '"x"', '"x"' ], [ 20000, '{}', 'null' ], [ 0, 0, 'false' ], [ 'null', '99999999999999999999', 7 ])
{
	my $page = ask("list_resources('big', 'user', search => 'of all', after => '" . mark(join(',', @parts[ 0 .. 2 ], @$forged) . ']') . "')");
	is($page->{data}[0]{externalId} // 'none', $f->sql("SELECT min(external_id) FROM flohsync.resource_record WHERE external_id > '" . ($parts[0] =~ s/[\["]//gr) . "' AND resource_type = 'user'"), "@$forged in a mark: the page is right");
}
$f->fails_like("SELECT flohsync.list_resources('big', 'user', search => 'of all', after => '" . mark(join(',', @parts[ 0 .. 2 ], '"x"', 1, 1) . ']') . "')", '22023', qr/"after"/, 'a total that is no number is refused');

SKIP:
{
	skip 'no pg_trgm', 20 unless $trgm;
	$f->sql('CREATE EXTENSION pg_trgm');
	$f->sql('SET client_min_messages = warning; SELECT flohsync.enable_search()');
	is(wrong(60), '', 'with the index');
	sub parts { return join "\n", grep { $_ ne '' } map { $f->sql('SELECT wrong_parts(8)') } 1 .. 5 }
	is(parts(), '', 'parts of what there is');
	is(wrong_long(), '', 'long ones, and lines');
	# One and two characters: all that there are in the odd words, and some that nobody has
	my @short = map { my $s = $_; $s =~ s/'/''/gr } grep { $_ ne '' } split /\n/, $f->sql(<<SQL);
		SELECT DISTINCT c FROM unnest(string_to_array($odd, ' ')) w, generate_series(1, length(w)) i, generate_series(1, 2) l, substr(w, i, l) c
		UNION SELECT unnest(ARRAY['q ', ' q', 'é ', ' é', 'qq', 'zz', 'ñ', '!', '!!', 'q!', '!q', '_q', 'q_', '.é', 'é.', 'µ', 'µµ', '0_', '@\@', '7', 'k-', '\@x', 'X\@', '\', '%', '_', 'q%', '_%']) ORDER BY 1
SQL
	is(join("\n", grep { $_ ne '' } map { $f->sql("SELECT wrong_search('list_resources', 'user', NULL, NULL, '$_', true)") } @short), '', 'one and two characters');
	is(join("\n", grep { $_ ne '' } map { $f->sql("SELECT wrong_search('list_matches', 'user', NULL, NULL, '$_', true)") } @short), '', 'also in matches');
	my $read = "SELECT pg_stat_force_next_flush(); SELECT seq_scan FROM pg_stat_user_tables WHERE relid = 'flohsync.resource_record'::regclass";
	for my $needle (grep { !/^(?:[-.@ 7]|u-|x\@|\@x)$/i } @short)
	{
		my $before = $f->sql($read);
		my $total = ask("list_resources('big', 'user', search => '$needle')")->{total};
		next if $total > 1000;    # found along the list, or by reading all
		is($f->sql($read), $before, "the index knows who has '$needle'");
	}
	# Rows that the index has not sorted in, dead ones, and others in their places
	$f->sql("UPDATE flohsync.resource_record SET display_name = 'fresh ' || display_name, external_id = external_id || 'x' WHERE record_no % 9 = 0;
		DELETE FROM flohsync.resource_record WHERE record_no % 13 = 0; INSERT INTO needles VALUES ('fresh'), ('fresh most');
		UPDATE flohsync.connector_sync_match m SET external_id = r.external_id FROM flohsync.resource_record r WHERE r.id = m.connector_resource_id AND r.external_id <> m.external_id");
	is(wrong(36), '', 'after a change of many, as it is');
	# With rows that are nowhere but in the pending list, and none
	my $clean = 'SELECT count(gin_clean_pending_list(c)) FROM unnest(ARRAY[$$flohsync.resource_record_search$$, $$flohsync.connector_sync_match_search$$]::regclass[]) c';
	for my $some (3, 5)
	{
		$f->sql($clean);
		$f->sql("UPDATE flohsync.resource_record SET display_name = left('pending$some ' || display_name, 250) WHERE record_no % 300 = $some; INSERT INTO needles VALUES ('pending$some'), ('pending$some most of')");
		for my $needle ("pending$some", "NDING$some", "g$some m")
		{
			is($f->sql("SELECT wrong_search('list_resources', 'user', NULL, NULL, '$needle', true)"), '', "'$needle' in the pending list");
		}
	}
	is($f->sql("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT wrong_searches(6); COMMIT"), '', 'in a transaction that is serializable');
	is(parts(), '', 'parts of what there is, and of what is pending');
	is($f->sql($clean), 2, 'the pending lists are empty');
	is($f->sql("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT wrong_searches(6); COMMIT"), '', 'serializable, without them');
	is(wrong(24), '', 'and anyhow');
	is(parts(), '', 'also parts');
	$f->sql('VACUUM ANALYZE');
	is(wrong(30), '', 'and vacuumed');
	is($f->sql("SET work_mem = '64kB'; SELECT wrong_searches(6)"), '', 'with little memory');
	# Indexes of version 0.2
	$f->sql('DROP INDEX flohsync.resource_record_search_marks, flohsync.connector_sync_match_search_marks');
	is($f->sql('SELECT wrong_searches(12)'), '', 'without the index of marks');
	is($f->sql('SET client_min_messages = warning; SELECT flohsync.enable_search(); SELECT _flohsync.search_marks_index(c) FROM unnest(ARRAY[$$flohsync.resource_record$$, $$flohsync.connector_sync_match$$]::regclass[]) c'),
		"t\nflohsync.resource_record_search_marks\nflohsync.connector_sync_match_search_marks", 'enable_search() makes what is missing');
	# What is named like an index of it, and is another
	my $marks = '(_flohsync.search_marks(external_id, email, display_name))';
	for my $other ("gin $marks", "gin $marks WHERE stale_since IS NULL", "gin (_flohsync.search_marks(external_id, display_name, email)) WHERE _flohsync.search_marks(external_id, display_name, email) IS NOT NULL", "btree $marks WHERE _flohsync.search_marks(external_id, email, display_name) IS NOT NULL")
	{
		$f->sql("DROP INDEX flohsync.resource_record_search_marks; CREATE INDEX resource_record_search_marks ON flohsync.resource_record USING $other");
		is($f->sql("SELECT _flohsync.search_marks_index('flohsync.resource_record')"), '', "not taken for the index of marks: $other");
	}
	for my $other ('gin (_flohsync.search_text(external_id, email, display_name) public.gin_trgm_ops) WHERE stale_since IS NULL', 'gin (_flohsync.search_text(external_id, NULL, display_name) public.gin_trgm_ops)',
		'btree (email)', 'gin (lower(email) public.gin_trgm_ops)', 'gist (_flohsync.search_text(external_id, email, display_name) public.gist_trgm_ops)')
	{
		$f->sql("DROP INDEX flohsync.resource_record_search; CREATE INDEX resource_record_search ON flohsync.resource_record USING $other");
		is($f->sql("SELECT _flohsync.search_index('flohsync.resource_record')"), '', "not taken for the index of enable_search(): $other");
	}
}

$f->no_crash;
done_testing();
