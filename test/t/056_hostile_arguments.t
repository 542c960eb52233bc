# C functions with arguments that make no sense: an error of ours or null, never a process that dies.
use strict;
use warnings;

use Flohsync;
use Test::More;

my $f = Flohsync->new(upstream => 0, conf => "flohsync.page_memory = 16MB\n");

sub fails { my ($sql, $state, $like, $name) = @_; local $Test::Builder::Level = $Test::Builder::Level + 1; return $f->fails_like("SELECT $sql", $state, $like, $name // $sql) }
sub gives { my ($sql, $want, $name) = @_; local $Test::Builder::Level = $Test::Builder::Level + 1; return is($f->sql("SELECT $sql"), $want, $name // $sql) }

#
# The ledger of a pass
#
sub hex_of { return "'\\x" . join('', map { sprintf '%02x', $_ } @_) . "'::bytea" }

fails("_flohsync.ledger_has($_, 0)", '22023', qr/invalid ledger/) for "''", "'\\x00'", "'\\x00000000000000'", "'\\x000000000000000000'", "decode(repeat('00', 100), 'hex')", "decode(repeat('ff', 8 + 17), 'hex')";
gives("_flohsync.ledger_has($_, 0)", 'f') for "_flohsync.ledger_union('{}')", "'\\x0000000000000000'", "decode(repeat('ff', 8 + 16), 'hex')";
gives('_flohsync.ledger_has(_flohsync.ledger_union(NULL), 0) IS NULL', 't');
# 5 alone; 7, 8 and 9: what a page of these writes
my $page = hex_of(5 << 1, (1 << 1) + 1, 1);
gives("string_agg(n::text, ' ') FROM generate_series(0, 12) n WHERE _flohsync.ledger_has(_flohsync.ledger_union(ARRAY[$page]), n)", '5 7 8 9');
gives("string_agg(n::text, ' ') FROM generate_series(0, 12) n WHERE _flohsync.ledger_has(_flohsync.ledger_union(ARRAY[$page, NULL, " . hex_of(6 << 1) . ", $page]), n)", '5 6 7 8 9');
# Cut, and too large: bytes that are lost would be records that were not seen.
fails('_flohsync.ledger_union(ARRAY[' . hex_of(@$_) . '])', '22023', qr/invalid ledger/)
  for [0x80], [ 0x0a, 0xff ], [3], [ 0x0a, 3 ], [ (0xff) x 9, 0x02 ], [ (0xff) x 9, 0xff, 0x01 ], [ (0x80) x 200 ];
my @most = ((0xff) x 9, 0x01);    # 2^64 - 1: a range from 2^63 - 1 on
fails('_flohsync.ledger_union(ARRAY[' . hex_of(@$_) . '])', '22023', qr/beyond the largest|too long/) for [ @most, 0 ], [ 0x01, @most ], [ (0xfe), (0xff) x 8, 0x01, 0x02 ], [ 0x01, (0xfe), (0xff) x 8, 0x00, 0xff ];
fails("_flohsync.ledger_union(ARRAY[decode(repeat('ff', 1000000), 'hex')])", '22023', qr/invalid ledger/, 'a million bytes of ff');
# Many ranges, in an order that is none: they are sorted, and merged
gives("count(*) FROM generate_series(1, 3000) n, (SELECT _flohsync.ledger_union(array_agg(decode(lpad(to_hex((((x * 7919) % 3000) << 1) & 127 | 128), 2, '0') || lpad(to_hex((((x * 7919) % 3000) << 1) >> 7), 2, '0'), 'hex') ORDER BY x)) AS seen FROM generate_series(0, 2999) x) s WHERE _flohsync.ledger_has(s.seen, n - 1)", 3000, '3000 pages of one number each');

gives("_flohsync.ledger_last(ARRAY[$page, " . hex_of(8 << 1) . ", NULL], ARRAY[1, 2, 3], ARRAY[4, 5, 8, 9, NULL, -7, 8]::bigint[])", '{0,1,2,1,0,0,2}');
gives("_flohsync.ledger_last('{}', '{}', '{}')", '{}');
gives("_flohsync.ledger_last('{}', '{}', '{7}')", '{0}');
gives("_flohsync.ledger_last(NULL, '{}', '{7}') IS NULL", 't');
fails("_flohsync.ledger_last(ARRAY[$page], '{1,2}', '{7}')", '2202E', qr/each page must have a number/);
fails('_flohsync.ledger_last(ARRAY[' . hex_of(0x80) . "], '{1}', '{7}')", '22023', qr/invalid ledger/);

#
# Statements whose plan is kept: what they return is not taken for granted
#
my $nil = '00000000-0000-0000-0000-000000000000';
my $few = sub { "_flohsync.back_cached(" . literal($_[0]) . ", '$nil', 'user', '{}')" };
gives($few->('SELECT NULL::uuid[], NULL::uuid[]'), '(,)', 'a statement of the right type');
gives($few->("SELECT ARRAY['$nil']::uuid[], NULL::uuid[]"), "({$nil},)", 'and its value');
my $profile = sub { "_flohsync.profile_cached(" . literal($_[0]) . ", '{}', '{}', 'x')" };
gives($profile->('SELECT NULL::uuid[]') . ' IS NULL', 't', 'a statement for one value');
for my $try ([ $few, 'SELECT 1, 2', 'types' ], [ $few, 'SELECT NULL, NULL', 'types' ], [ $few, 'SELECT NULL::uuid[]', 'number of columns' ], [ $few, 'SELECT NULL::uuid[], NULL::uuid[], 3', 'number of columns' ], [ $few, 'SELECT', 'number of columns' ],
	[ $few, 'SELECT NULL::uuid[], NULL::uuid[] LIMIT 0', 'one row' ], [ $few, 'SELECT NULL::uuid[], NULL::uuid[] FROM generate_series(1, 2)', 'one row' ],
	[ $profile, 'SELECT 1', 'types' ], [ $profile, "SELECT 'x'::text", 'types' ], [ $profile, 'SELECT 7::bigint', 'types' ], [ $profile, "SELECT '{}'::text[]", 'types' ], [ $profile, "SELECT ('{}'::uuid[], 1)", 'types' ],
	[ $profile, 'SELECT NULL::uuid[]; SELECT NULL::uuid[]', 'one statement' ], [ $profile, '', 'one statement' ], [ $profile, ';', 'one statement' ], [ $profile, '-- x', 'one statement' ],
	[ $profile, 'CREATE TABLE public.made ()', 'neither a SELECT' ], [ $profile, 'SET work_mem = 64', 'neither a SELECT' ], [ $profile, 'COMMIT', 'neither a SELECT' ], [ $profile, 'EXPLAIN SELECT 1', 'neither a SELECT' ],
	[ $profile, 'SELECT 1 AS x INTO public.made', 'INTO' ], [ $profile, "DELETE FROM flohsync.sync_run WHERE id = 0", 'no rows' ], [ $profile, 'SELECT 1 ' . (' ' x 1_100_000), 'too long' ])
{
	my ($call, $statement, $says) = @$try;
	fails($call->($statement), '22023', qr/cannot cache the plan of a statement: .*$says/, "kept: " . substr($statement, 0, 60));
}
fails($profile->('SELEC 1'), '42601', qr/syntax error/, 'a kept statement that is none');
# Again, now that the plan is there; and with a table that changes its type meanwhile
$f->sql('CREATE TABLE public.changing (x uuid[]); INSERT INTO public.changing VALUES (NULL)');
gives($profile->('SELECT x FROM public.changing') . ' IS NULL', 't', 'a kept statement over a table');
$f->sql('ALTER TABLE public.changing ALTER x TYPE bigint USING 7');
fails($profile->('SELECT x FROM public.changing'), '22023', qr/columns of different types/, 'and when the table has another type');
gives("to_regclass('public.made') IS NULL", 't', 'nothing was made');

#
# Nulls, one by one and all together, for every C function that takes them
#
my @functions = split /\n/, $f->sql(<<'SQL');
SELECT concat_ws('|', p.oid::regproc, p.prokind, (SELECT string_agg(format_type(t, NULL), ',' ORDER BY n) FROM unnest(p.proargtypes) WITH ORDINALITY AS a(t, n)))
  FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
 WHERE p.pronamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace, 'flohsync_api'::regnamespace) AND l.lanname = 'c' AND p.pronargs > 0
   AND NOT p.proisstrict AND p.prorettype <> 'trigger'::regtype
 ORDER BY 1
SQL
cmp_ok(scalar(@functions), '>=', 12, 'there are C functions that take nulls') or diag("@functions");
my %value = (text => "'x'", uuid => "'$nil'", jsonb => "'{}'", bytea => "''", 'text[]' => "'{}'", 'uuid[]' => "'{}'", 'jsonb[]' => "'{}'", 'timestamp with time zone' => 'now()');
for (@functions)
{
	my ($name, $kind, $types) = split /\|/;
	my @types = split /,/, $types;
	for my $null (0 .. @types)
	{
		# the last time all of them
		my @args = map { ($null == @types || $_ == $null ? 'NULL' : $value{ $types[$_] } // 'NULL') . "::$types[$_]" } 0 .. $#types;
		$f->try_sql(($kind eq 'p' ? 'CALL' : 'SELECT') . " $name(" . join(', ', @args) . ')');
	}
	is($f->sql('SELECT 1'), 1, "$name takes nulls");
}
gives("_flohsync.$_(NULL, 'user') IS NULL AND _flohsync.$_('$nil', NULL) IS NULL", 't') for qw(try_run_lock interrupt_run);

#
# Times without an end
#
$f->sql("SELECT flohsync.create_connector('c', 'command', '{\"url\": \"http://127.0.0.1:1/\"}')");
gives("flohsync.upsert_resource('c', 'user', '{\"externalId\": \"1\"}', '-infinity')", 'added', 'a record observed before all time');
like($f->sql("SELECT flohsync.handle_webhook('c', '{\"action\": \"updated\", \"resourceType\": \"user\", \"resourceId\": \"1\", \"data\": {\"displayName\": \"One\"}, \"timestamp\": \"2026-01-01T00:00:00Z\"}')"), qr/"changed": true/, 'takes an event of any time');
gives("flohsync.upsert_resource('c', 'user', '{\"externalId\": \"2\"}', 'infinity')", 'added', 'a record observed after all time');
gives("flohsync.cron_next('* * * * *', '$_') IS NULL OR true", 't', "a schedule after $_") for qw(infinity -infinity);

#
# More than may be taken
#
my $many = "(SELECT jsonb_build_array(jsonb_build_object('externalId', '1', 'attributes', jsonb_build_object('a', jsonb_agg('[]'::jsonb)))) FROM generate_series(1, 1000000))";
fails("flohsync.upsert_resources('c', 'user', $many)", '54000', qr/reading the records takes more than flohsync\.page_memory \(16384 kB\)/, 'records that take more than flohsync.page_memory');
$many = "(SELECT jsonb_build_object('externalId', '1', 'attributes', jsonb_build_object('a', jsonb_agg('{}'::jsonb))) FROM generate_series(1, 20000))";
fails("flohsync.upsert_resource('c', 'user', $many)", '22023', qr/so many values that storing it would take more than half of flohsync\.page_memory.*too_many_values/s, 'a record that jsonb would take too much for');
$many = "(SELECT jsonb_agg(0) FROM generate_series(1, 1000001))";
fails("flohsync.upsert_resources('c', 'user', $many)", '54000', qr/there are 1000001, more than 1000000|page_memory/, 'a million records in one call');

$f->no_crash;
done_testing();
