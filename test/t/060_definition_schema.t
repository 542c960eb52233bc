# The installed JSON Schema, read by an implementation of JSON Schema that is
# not ours, against validate_definition: what one accepts the other does, as far
# as a schema can tell.
use strict;
use warnings;

use Encode qw(encode_utf8);
use File::Basename qw(dirname);
use IPC::Run;
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Utils;
use Test::More;

use Flohsync;

my $flohsync = Flohsync->new(upstream => 0);
my $tests = dirname(__FILE__) . '/..';
my $share = qx("$ENV{PG_CONFIG}" --sharedir);
chomp $share;
my $installed = "$share/extension/flohsync.definition.schema.json";

my $schema = do { local (@ARGV, $/) = ($installed); <> };
is($flohsync->sql("SELECT flohsync.definition_schema() = \$json\$$schema\$json\$::jsonb"),
	't', 'definition_schema() is the installed file');

# The corpus; then every value of the largest definition in it replaced by
# something else, or gone; then the templates.
my $rows = $flohsync->sql(<<SQL);
\\set QUIET on
SET client_min_messages = warning;
\\i $tests/definitions.sql
CREATE TEMP TABLE mutant AS
WITH RECURSIVE node(path, value) AS (
  SELECT '{}'::text[], definition FROM corpus WHERE label = 'everything'
  UNION ALL
  SELECT n.path || c.key, c.value
    FROM node n CROSS JOIN LATERAL (
      SELECT * FROM jsonb_each(CASE jsonb_typeof(n.value) WHEN 'object' THEN n.value ELSE '{}' END)
      UNION ALL
      SELECT (i - 1)::text, e FROM jsonb_array_elements(CASE jsonb_typeof(n.value) WHEN 'array' THEN n.value ELSE '[]' END) WITH ORDINALITY x(e, i)) c
), other(i, value) AS (VALUES (0, '""'::jsonb), (1, '5'), (2, '{}'), (3, '[]'), (4, 'true'), (5, 'null'), (6, '"{{secret.x}}"'), (7, '"POST"'), (8, '{"type": "none"}'), (9, NULL))
SELECT n.path, o.i, CASE WHEN o.value IS NULL THEN c.definition #- n.path ELSE jsonb_set(c.definition, n.path, o.value) END AS definition
  FROM (SELECT path, row_number() OVER (ORDER BY path COLLATE "C") AS n FROM node WHERE path <> '{}') n
  JOIN other o ON (n.n + o.i) % 10 = 0
 CROSS JOIN corpus c WHERE c.label = 'everything';
SELECT jsonb_build_object('label', c.label, 'in_schema', coalesce(c.in_schema, false), 'definition', c.definition) FROM corpus c
UNION ALL
SELECT jsonb_build_object('label', array_to_string(m.path, '/') || ' ' || m.i, 'faults', flohsync.validate_definition(m.definition),
                          'definition', m.definition) FROM mutant m;
SQL
my @lines = grep { /^\{/ } split /\n/, encode_utf8($rows);
cmp_ok(scalar(@lines), '>', 350, 'enough definitions to compare');
my ($out, $err) = ('', '');
ok(IPC::Run::run([ -x '/usr/bin/python3' ? '/usr/bin/python3' : 'python3', "$tests/lib/json_schema.py", $installed ], \join('', map { "$_\n" } @lines), \$out, \$err), 'the other implementation reads the schema')
  or diag $err;
my @accepted = split /\n/, $out;
is(scalar(@accepted), scalar(@lines), 'it judges every definition');

# What a schema cannot say: that a text is a jsonpath, or that two values fit.
my $beyond = qr/jsonpath|syntax error|there is no resource|it is (?:more|less) than "|neither it nor a parameter|is not a duration|is not allowed here/;
my @differences;
my $refused = 0;
for my $i (0 .. $#lines)
{
	my $case = decode_json($lines[$i]);
	my $schema_refuses = !$accepted[$i];
	my @faults = map { $_->{message} } @{ $case->{faults} // [] };

	$refused++ if $schema_refuses;
	if (exists $case->{in_schema})
	{
		push @differences, "$case->{label}: does the schema refuse it?" if $schema_refuses xor $case->{in_schema};
	}
	elsif ($schema_refuses && !@faults)
	{
		push @differences, "$case->{label}: only the schema refuses it";
	}
	elsif (!$schema_refuses && grep { !/$beyond/ } @faults)
	{
		push @differences, "$case->{label}: only validate_definition refuses it: @faults";
	}
}
is_deeply(\@differences, [], 'both say the same');
cmp_ok($refused, '>', 250, 'much of it is refused');

done_testing();
