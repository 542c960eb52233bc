# Hashing, and records that are stored one by one or as a list.
use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use Flohsync;
use Test::More;

my $f = Flohsync->new(upstream => 0);

#
# canonical_json is RFC 8785
#
sub canonical { my $r = $f->try_sql('SELECT flohsync.canonical_json(' . literal($_[0]) . ')'); return $r->{ok} ? $r->{out} : $r->{text} }

is(canonical('{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001], "string": "\u20ac$\u000F\u000aA\'\u0042\u0022\u005c\\\\\"\/", "literals": [null, true, false]}'),
	'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA\'B\"\\\\\\\\\"/"}',
	'the example of RFC 8785, section 3.2.2');
is(canonical('{"\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh", "1": "One", "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control", "\u00f6": "Latin Small Letter O With Diaeresis"}'),
	"{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\xc2\x80\":\"Control\",\"\xc3\xb6\":\"Latin Small Letter O With Diaeresis\",\"\xe2\x82\xac\":\"Euro Sign\",\"\xf0\x9f\x98\x80\":\"Emoji: Grinning Face\",\"\xef\xac\xb3\":\"Hebrew Letter Dalet With Dagesh\"}",
	'keys are sorted by UTF-16 code units');
is(canonical('{"a": {"c": [], "b": {}}, "": [[], {"z": 1, "Z": 2, "aa": 3}]}'), '{"":[[],{"Z":2,"aa":3,"z":1}],"a":{"b":{},"c":[]}}', 'nested and empty containers');
is(canonical('"\u0001\b\t\n\u000b\f\r\u001f\u007f\"\\\\/"'), "\"\\u0001\\b\\t\\n\\u000b\\f\\r\\u001f\x7f\\\"\\\\/\"", 'escapes of control characters');
is(canonical($_), $_, "a scalar: $_") for 'null', 'true', 'false', '""';

# Appendix B of the RFC, and around it; [what is given, what is printed]
for ([ '0', '0' ], [ '-0', '0' ], [ '-0.0', '0' ], [ '1.0', '1' ], [ '1.00', '1' ], [ '1', '1' ], [ '10e-1', '1' ], [ '100', '100' ], [ '1e2', '100' ],
	[ '4.9406564584124654e-324', '5e-324' ], [ '-4.9406564584124654e-324', '-5e-324' ], [ '1.7976931348623157e308', '1.7976931348623157e+308' ],
	[ '-1.7976931348623157e308', '-1.7976931348623157e+308' ], [ '9007199254740992', '9007199254740992' ], [ '-9007199254740992', '-9007199254740992' ],
	[ '295147905179352830000', '295147905179352830000' ], [ '9.999999999999997e22', '9.999999999999997e+22' ], [ '1e23', '1e+23' ],
	[ '1.0000000000000001e23', '1.0000000000000001e+23' ], [ '999999999999999700000', '999999999999999700000' ], [ '999999999999999900000', '999999999999999900000' ],
	[ '1e21', '1e+21' ], [ '1000000000000000000000', '1e+21' ], [ '9.999999999999997e-7', '9.999999999999997e-7' ], [ '0.000001', '0.000001' ], [ '0.0000001', '1e-7' ],
	[ '333333333.3333332', '333333333.3333332' ], [ '333333333.33333325', '333333333.33333325' ], [ '333333333.3333333', '333333333.3333333' ],
	[ '333333333.3333334', '333333333.3333334' ], [ '333333333.33333343', '333333333.33333343' ], [ '-0.0000033333333333333333', '-0.0000033333333333333333' ],
	[ '1424953923781206.2', '1424953923781206.2' ], [ '0.1000000000000000055511151231257827', '0.1' ], [ '123.456', '123.456' ], [ '-1.5e-10', '-1.5e-10' ])
{
	is(canonical($_->[0]), $_->[1], "number $_->[0]");
}
# The stated exception: integers that a double would change, and what no double can hold.
is(canonical($_), $_, "the digits of $_ are kept") for '9007199254740993', '-9007199254740993', '12345678901234567890', '295147905179352825856', '9223372036854775807', '18446744073709551615';
isnt(canonical('9007199254740992'), canonical('9007199254740993'), 'two neighbouring 64-bit ids differ');
is(canonical('1e400'), '1' . '0' x 400, '1e400 keeps its digits');
isnt(canonical('1e-400'), canonical('0'), '1e-400 is not 0');
is($f->sql("SELECT flohsync.canonical_json(NULL) IS NULL"), 't', 'null in, null out');

# Whatever the order of keys and the spelling of numbers, the text is the same, and it is valid.
for ('{"b": [1.50, {"y": "\u00e9", "x": null}], "a": 1e3}', '[0.1, 1e-7, 123456789012, "a\tb", {"k": {"k": {}}}, -12.75e2]')
{
	is(canonical($_), Encode::encode_utf8(jcs(decode_json_text($_))), "an own implementation agrees: $_");
	is(canonical(canonical($_)), canonical($_), 'and it is its own canonical form');
}

#
# resource_hash
#
is($f->sql("SELECT flohsync.resource_hash('u1', 'Ann', 'ann\@x.org', '{\"b\": 2.0, \"a\": [1, \"\xc3\xa9\"]}')"),
	sha256_hex("{\"attributes\":{\"a\":[1,\"\xc3\xa9\"],\"b\":2},\"displayName\":\"Ann\",\"email\":\"ann\@x.org\",\"externalId\":\"u1\"}"), 'resource_hash is SHA-256 of the canonical record');
is($f->sql("SELECT flohsync.resource_hash('u1', NULL, NULL, NULL)"),
	sha256_hex('{"attributes":null,"displayName":null,"email":null,"externalId":"u1"}'), 'what is absent is null');
is($f->sql("SELECT flohsync.resource_hash('a\"b', E'x\\ny', '', '{}')"),
	sha256_hex('{"attributes":{},"displayName":"x\ny","email":"","externalId":"a\"b"}'), 'escapes; empty is not absent');
is($f->sql("SELECT flohsync.resource_hash('u', 'n', 'e', '{\"id\": 9007199254740993}') = flohsync.resource_hash('u', 'n', 'e', '{\"id\": 9007199254740992}')"),
	'f', 'neighbouring 64-bit ids hash differently');
is($f->sql("SELECT flohsync.resource_hash('u', 'n', 'e', '{\"a\": 1.0, \"b\": 2}') = flohsync.resource_hash('u', 'n', 'e', '{\"b\": 2.00, \"a\": 1}')"),
	't', 'spelling and order do not matter');
for my $record ('{"externalId": "x", "displayName": "\ud83d\ude80 \u0001", "email": null, "attributes": {"n": [0.1, 1e21, 1e-9, 3.0], "\ue000": 1, "\ud800\udc00": 2}}',
	'{"externalId": "y", "displayName": null, "email": "y@x.org", "attributes": {"deep": {"er": {"": [true, false, null]}}}}')
{
	is($f->sql('SELECT flohsync.resource_hash(r->>\'externalId\', r->>\'displayName\', r->>\'email\', r->\'attributes\') FROM (SELECT ' . literal($record) . '::jsonb AS r) x'),
		record_hash(decode_json_text($record)), "an own implementation agrees: $record");
}

#
# upsert_resource
#
$f->sql("SELECT flohsync.create_connector('c', 'command', '{\"url\": \"http://127.0.0.1:1/\", \"commands\": []}')");
$f->sql("SELECT flohsync.create_connector('other', 'command', '{\"url\": \"http://127.0.0.1:1/\", \"commands\": []}')");
$f->configure('c', 'user');

sub upsert
{
	my ($record, $at, $connector) = @_;
	return $f->sql('SELECT flohsync.upsert_resource(' . literal($connector // 'c') . ", 'user', " . literal(json_text($record)) . ($at ? ", '$at'" : '') . ')');
}
sub row { my $id = shift; return $f->json('SELECT to_jsonb(r) ' . $f->scope('c', 'user') . ' AND external_id = ' . literal($id)) }

my $ann = { externalId => 'u1', displayName => 'Ann', email => 'ann@x.org', attributes => { a => 1 } };
is(upsert($ann, '2026-01-01 10:00Z'), 'added', 'a new record is added');
my $r = row('u1');
is(json_text([ @$r{qw(display_name email attributes stale_since)} ]), '["Ann","ann@x.org",{"a":1},null]', 'and stored as it is');
is($r->{sync_hash}, record_hash($ann), 'with its hash');
is($f->sql("SELECT synced_at = '2026-01-01 10:00Z' " . $f->scope('c', 'user')), 't', 'and the time of the observation');
is(upsert($ann, '2026-01-01 11:00Z'), 'unchanged', 'the same again is unchanged');
is($f->sql("SELECT synced_at = '2026-01-01 11:00Z' " . $f->scope('c', 'user')), 't', 'but it was confirmed later');
$ann->{attributes}{a} = 2;
is(upsert($ann, '2026-01-01 12:00Z'), 'updated', 'another value is an update');
is(row('u1')->{sync_hash}, record_hash($ann), 'the hash follows');
is(row('u1')->{id}, $r->{id}, 'the id stays');
is(row('u1')->{created_at}, $r->{created_at}, 'created_at stays');
is(upsert({ %$ann, displayName => 'Old' }, '2026-01-01 11:30Z'), 'ignored', 'an older observation is ignored');
is(row('u1')->{display_name}, 'Ann', 'and changes nothing');
is(upsert({ externalId => 'u1' }, '2026-01-01 13:00Z'), 'updated', 'what is not named is null');
is(json_text([ @{ row('u1') }{qw(display_name email attributes)} ]), '[null,null,null]', 'all three');
is(upsert({ externalId => 'u1', displayName => undef, email => undef, attributes => undef }, '2026-01-01 13:30Z'), 'unchanged', 'absent and null are the same');
is(upsert({ %$ann, attributes => { a => 2.0 } }, '2026-01-01 14:00Z'), 'updated', 'back');
is($f->sql("SELECT flohsync.upsert_resource('c', 'user', '{\"externalId\": \"u1\", \"displayName\": \"Ann\", \"email\": \"ann\@x.org\", \"attributes\": {\"a\": 2.00}}')"), 'unchanged', '2.00 is 2');
is(upsert({ externalId => 'u1' }, undef, 'other'), 'added', 'another connector has its own records');
is($f->sql("SELECT flohsync.upsert_resource('c', 'group', '{\"externalId\": \"u1\"}')"), 'added', 'and so has another type');
is($f->sql("SELECT flohsync.upsert_resource((SELECT id::text FROM flohsync.connector_definition WHERE name = 'c'), 'user', '{\"externalId\": \"u2\"}')"), 'added', 'the connector by its uuid');

# Ids
is($f->sql("SELECT flohsync.upsert_resource('c', 'user', '{\"externalId\": 42}')"), 'added', 'an integer id');
is(row('42')->{external_id}, '42', 'is taken as text');
is(row('42')->{sync_hash}, record_hash({ externalId => '42' }), 'and hashed as text');
is(upsert({ externalId => '42' }), 'unchanged', 'the same id as a text is the same record');
is($f->sql("SELECT flohsync.upsert_resource('c', 'user', '{\"externalId\": 90071992547409931234}')"), 'added', 'an integer of 20 digits');
ok(row('90071992547409931234'), 'keeps every digit');
is(upsert({ externalId => 'x' x 255 }), 'added', '255 characters are an id');
is($f->sql("SELECT flohsync.upsert_resource('c', 'user', jsonb_build_object('externalId', repeat('\xe2\x82\xac', 255), 'email', repeat('\xe2\x82\xac', 255)))"), 'added', 'of three bytes each as well');
is(upsert({ externalId => 'Case' }) . upsert({ externalId => 'case' }), 'addedadded', 'ids are case-sensitive');
is(upsert({ externalId => "o'brien; DROP TABLE x --" }), 'added', 'an id is never SQL');

# Names are cut
is($f->sql("SELECT flohsync.upsert_resource('c', 'user', jsonb_build_object('externalId', 'long', 'displayName', repeat('\xe2\x82\xac', 300)))"), 'added', 'a name of 300 characters');
is($f->sql("SELECT display_name = repeat('\xe2\x82\xac', 255) " . $f->scope('c', 'user') . " AND external_id = 'long'"), 't', 'is cut to 255 characters');
is($f->sql("SELECT flohsync.upsert_resource('c', 'user', jsonb_build_object('externalId', 'long', 'displayName', repeat('\xe2\x82\xac', 300)))"), 'unchanged', 'and is the same the next time');

# Restored
is($f->sql("SELECT flohsync.upsert_resource('c', 'role', '{\"externalId\": \"r1\"}', '2026-01-01 10:00Z')"), 'added', 'a role');
is($f->sql("SELECT flohsync.mark_stale('c', 'role', now())"), 1, 'that goes stale');
is($f->sql("SELECT flohsync.upsert_resource('c', 'role', '{\"externalId\": \"r1\"}', '2026-01-01 09:00Z')"), 'ignored', 'an older observation does not restore it');
is($f->counts('c', 'role'), '0 1', 'it is stale still');
is($f->sql("SELECT flohsync.upsert_resource('c', 'role', '{\"externalId\": \"r1\"}')"), 'restored', 'seen again unchanged: restored');
is($f->counts('c', 'role'), '1 0', 'and active');
$f->sql("SELECT flohsync.mark_stale('c', 'role', clock_timestamp())");
is($f->sql("SELECT flohsync.upsert_resource('c', 'role', '{\"externalId\": \"r1\", \"displayName\": \"new\"}')"), 'restored', 'seen again changed: restored as well');
is($f->sql("SELECT display_name " . $f->scope('c', 'role')), 'new', 'with what it is now');

# Tombstones
my $cid = $f->sql("SELECT id FROM flohsync.connector_definition WHERE name = 'c'");
$f->sql("INSERT INTO _flohsync.resource_tombstone (connector_id, resource_type, external_id, deleted_at) VALUES ('$cid', 'user', 'dead', '2026-06-01 12:00Z')");
is(upsert({ externalId => 'dead' }, '2026-06-01 11:59Z'), 'ignored', 'a record deleted later is not brought back');
is(row('dead'), undef, 'there is no row');
is(upsert({ externalId => 'dead' }, '2026-06-01 12:01Z'), 'added', 'one observed after its deletion is');

#
# Lists, and what is set aside
#
sub upserts { return $f->json("SELECT flohsync.upsert_resources('c', 'list', " . literal($_[0]) . ')') }
is(json_text(upserts('[{"externalId": "a", "displayName": "A"}, {"externalId": "b"}, {"externalId": "c"}]')),
	'{"added":3,"errored":0,"ignored":0,"restored":0,"unchanged":0,"updated":0}', 'upsert_resources counts by outcome');
my $aside = upserts('[{"externalId": "a", "displayName": "A2"}, {"externalId": "b"}, {"externalId": "d"}, {"displayName": "no id"}]');
my $told = delete $aside->{errors};
is(json_text($aside), '{"added":1,"errored":1,"ignored":0,"restored":0,"unchanged":1,"updated":1}', 'each outcome by itself');
is(scalar @$told, 1, 'what was set aside is told');
is(join(' ', map { $_ // 'null' } @{ $told->[0] }{qw(index externalId class)}), '3 null external_id_missing', 'which, and why');
like($told->[0]{message}, qr/externalId/, 'in words, too');
is($f->sql("SELECT concat_ws(' ', run_id IS NULL, connector_id = '$cid', resource_type, error_class, payload) FROM flohsync.sync_error ORDER BY id DESC LIMIT 1"),
	't t list external_id_missing {"displayName": "no id"}', 'and noted');
$aside = $f->json("SELECT flohsync.upsert_resources('c', 'list', (SELECT jsonb_agg(jsonb_build_object('externalId', repeat('é', 300) || i, 'email', 5)) FROM generate_series(1, 150) i))");
is("$aside->{errored} " . @{ $aside->{errors} }, '150 100', 'the first hundred are told');
is($aside->{errors}[99]{index}, 99, 'in their order');
is($f->sql("SELECT count(*) FROM flohsync.sync_error WHERE connector_id = '$cid' AND resource_type = 'list'"), 151, 'all of them are noted');
$f->sql("SELECT flohsync.upsert_resources('c', 'list', '[{\"externalId\": \"f\"}]')");
is($f->sql("SELECT count(*) FROM flohsync.sync_error WHERE connector_id = '$cid' AND resource_type = 'list'"), 151, 'and no more than them');
$f->sql("SELECT flohsync.mark_stale('c', 'list', clock_timestamp())");
is(json_text(upserts('[{"externalId": "a", "displayName": "A2"}]')), '{"added":0,"errored":0,"ignored":0,"restored":1,"unchanged":0,"updated":0}', 'restored');
is(json_text(upserts('[]')), '{"added":0,"errored":0,"ignored":0,"restored":0,"unchanged":0,"updated":0}', 'an empty list');
upserts('[{"externalId": "twice", "displayName": "first"}, {"externalId": "twice", "displayName": "last"}]');
is($f->sql("SELECT display_name " . $f->scope('c', 'list') . " AND external_id = 'twice'"), 'last', 'the same id twice: the last wins');
is($f->sql("SELECT count(*) " . $f->scope('c', 'list') . " AND external_id = 'twice'"), 1, 'and is there once');
$f->fails_like("SELECT flohsync.upsert_resources('c', 'list', '{\"externalId\": \"a\"}')", '22023', qr/array/, 'a list is an array');

my %bad = (
	'no id' => '{"displayName": "x"}', 'an empty id' => '{"externalId": ""}', 'a null id' => '{"externalId": null}', 'a fraction as id' => '{"externalId": 1.5}',
	'a boolean id' => '{"externalId": true}', 'an object as id' => '{"externalId": {"id": 1}}', 'an array as id' => '{"externalId": ["1"]}',
	'an id of 256 characters' => '{"externalId": "' . 'x' x 256 . '"}', 'an e-mail of 256 characters' => '{"externalId": "bad", "email": "' . 'x' x 256 . '"}',
	'a number as name' => '{"externalId": "bad", "displayName": 5}', 'an object as e-mail' => '{"externalId": "bad", "email": {}}', 'an array as e-mail' => '{"externalId": "bad", "email": []}',
	'an array as attributes' => '{"externalId": "bad", "attributes": []}', 'a text as attributes' => '{"externalId": "bad", "attributes": "x"}',
	'nesting of 100' => '{"externalId": "bad", "attributes": {"x": ' . '[' x 100 . ']' x 100 . '}}', 'an exponent of 1000' => '{"externalId": "bad", "attributes": {"x": 1e1000}}',
	'a text' => '"bad"', 'a number' => '5', 'null' => 'null', 'an array' => '["bad"]');
my $n = 0;
for (sort keys %bad)
{
	$n++;
	my $counts = eval { upserts("[{\"externalId\": \"good$n-1\"}, $bad{$_}, {\"externalId\": \"good$n-2\"}]") };
	ok($counts && $counts->{added} == 2 && $counts->{errored} == 1, "set aside: $_") or diag($counts ? json_text($counts) : $@);
	my $alone = $f->try_sql("SELECT flohsync.upsert_resource('c', 'list', " . literal($bad{$_}) . ')');
	ok(!$alone->{ok} && $alone->{state} =~ /^22/, 'by itself it is an error') or diag($alone->{ok} ? $alone->{out} : $alone->{text});
}
is($f->sql("SELECT count(*) " . $f->scope('c', 'list') . " AND external_id LIKE '%bad%'"), 0, 'nothing of them is stored');
my $big = $f->json("SELECT flohsync.upsert_resources('c', 'list', jsonb_build_array(jsonb_build_object('externalId', 'bad', 'attributes', jsonb_build_object('x', repeat('x', 9 * 1024 * 1024)))))");
is($big->{errored}, 1, 'set aside: a record of 9 MB');
$big = $f->json("SELECT flohsync.upsert_resources('c', 'list', jsonb_build_array(jsonb_build_object('externalId', 'big', 'attributes', jsonb_build_object('x', repeat('x', 7 * 1024 * 1024)))))");
is($big->{added}, 1, 'not set aside: one of 7 MB');
is(upserts('[{"externalId": "deep", "attributes": {"x": ' . '[' x 50 . ']' x 50 . '}}, {"externalId": "exp", "attributes": {"x": 1e300, "y": -1e-300}}]')->{added}, 2, 'nor nesting of 50, nor exponents of 300');

#
# mark_stale and purge_stale
#
$f->configure('c', 'thing', staleRetention => '7d');
$f->sql("SELECT flohsync.upsert_resource('c', 'thing', jsonb_build_object('externalId', 't' || i), '2026-01-01Z'::timestamptz + i * interval '1 hour') FROM generate_series(1, 5) i");
is($f->sql("SELECT flohsync.mark_stale('c', 'thing', '2026-01-01 03:00Z')"), 2, 'mark_stale: those seen before that time only');
is($f->sql("SELECT string_agg(external_id, ' ' ORDER BY external_id) " . $f->scope('c', 'thing') . ' AND stale_since IS NOT NULL'), 't1 t2', 'the right ones');
is($f->sql("SELECT bool_and(stale_since > now() - interval '1 minute') " . $f->scope('c', 'thing') . ' AND stale_since IS NOT NULL'), 't', 'from now on');
is($f->sql("SELECT bool_and(synced_at < '2026-01-01 03:00Z') " . $f->scope('c', 'thing') . ' AND stale_since IS NOT NULL'), 't', 'their synced_at stays');
my $since = $f->sql("SELECT stale_since " . $f->scope('c', 'thing') . " AND external_id = 't1'");
is($f->sql("SELECT flohsync.mark_stale('c', 'thing', '2026-01-01 03:00Z')"), 0, 'a second time none');
is($f->sql("SELECT stale_since " . $f->scope('c', 'thing') . " AND external_id = 't1'"), $since, 'and stale_since stays');
is($f->sql("SELECT flohsync.purge_stale('c', 'thing')"), 0, 'purge_stale: none is old enough');
is($f->sql("SELECT flohsync.purge_stale('c', 'thing', '0')"), 2, 'purge_stale with a retention of nothing');
is($f->counts('c', 'thing'), '3 0', 'what is not stale stays');

for ([ '7d', '7 days' ], [ '24h', '24 hours' ], [ '30m', '30 minutes' ], [ '90s', '90 seconds' ], [ '2w', '14 days' ], [ '1 month', '1 month' ], [ '1 day 2 hours', '26 hours' ])
{
	my ($text, $interval) = @$_;
	$f->configure('c', 'thing', staleRetention => $text);
	$f->sql("SELECT flohsync.upsert_resources('c', 'thing', '[{\"externalId\": \"young\"}, {\"externalId\": \"old\"}]'); SELECT flohsync.mark_stale('c', 'thing', clock_timestamp());"
		  . "UPDATE flohsync.resource_record SET stale_since = now() - interval '$interval' + CASE external_id WHEN 'old' THEN interval '-10 seconds' ELSE interval '30 seconds' END WHERE resource_type = 'thing'");
	is($f->sql("SELECT flohsync.purge_stale('c', 'thing')"), 1, "retention $text: one is old enough");
	is($f->sql("SELECT count(*) " . $f->scope('c', 'thing') . " AND external_id = 'old'"), 0, 'the right one');
	$f->sql("DELETE FROM flohsync.resource_record WHERE resource_type = 'thing'");
}
is($f->sql("SELECT flohsync.purge_stale('c', 'user', '0')"), 0, 'other types are left alone');

$f->invariants;
$f->no_crash;
done_testing();
