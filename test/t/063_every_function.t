# Every function and procedure of the extension, as every kind of role, with
# null, empty, short, huge, wrong and forged arguments: nothing of it brings the
# server down, goes on for ever, or ends with an internal error; and who was not
# given a function is told so.  Functions are taken from the catalog, so a new
# one is called as well.
#
# EVERY_FUNCTION_CALLS and EVERY_FUNCTION_SEED make it longer and another one:
# test/run every-function.  Also meant for a server built to find such faults.
use strict;
use warnings;
use utf8;

use Barrage;
use Digest::SHA qw(hmac_sha256_hex);
use Flohsync;
use JSON::PP ();
use RedisServer;
use Rest;
use Test::More;

my $calls = $ENV{EVERY_FUNCTION_CALLS} || 8000;
my $seed = $ENV{EVERY_FUNCTION_SEED} || 1;

# Internal errors that are right: none.
my @allowed = ();

#
# A cluster where there is something of everything
#

my $redis = RedisServer->new;
my $f = Rest->new(records => 'user=120,group=12', conf => "flohsync.redis_url = '" . $redis->url . "'\nflohsync.http_timeout = 5s\nflohsync.http_max_attempts = 1\nlog_line_prefix = '%m [%p] %b %e '\n");
$f->sql(<<'SQL');
CREATE ROLE manager LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE stranger LOGIN;
SELECT flohsync.grant_manager('manager'), flohsync.grant_reader('reader');
CREATE TABLE public.people AS SELECT 'p' || i AS id, 'Person ' || i AS name, 'p' || i || '@example.org' AS mail FROM generate_series(1, 50) i;
GRANT SELECT ON public.people TO flohsync_nobody, manager;
CREATE FUNCTION public.fetch(uuid, text, text) RETURNS jsonb LANGUAGE sql RETURN jsonb_build_object('externalId', $3);
CREATE FUNCTION public.fetch_nothing(uuid, text, text) RETURNS jsonb LANGUAGE sql RETURN NULL::jsonb;
CREATE FUNCTION public.fetch_fails(uuid, text, text) RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';
CREATE FUNCTION public.fetch_text(uuid, text, text) RETURNS text LANGUAGE sql RETURN 'x';
CREATE FUNCTION public.handle(uuid, jsonb) RETURNS boolean LANGUAGE sql RETURN true;
CREATE FUNCTION public.list(jsonb) RETURNS jsonb LANGUAGE sql RETURN '{"success": true, "payload": {"resources": [{"externalId": "f1"}]}}'::jsonb;
SELECT flohsync.configure_workflow('w');
INSERT INTO flohsync.floh_user (iss, sub, email, display_name, confirmed)
SELECT 'https://idp', 's' || i, 'user' || i || '@acme.com', 'User ' || i, true FROM generate_series(1, 40) i;
INSERT INTO flohsync.user_profile (user_id, title) SELECT id, 'Boss' FROM flohsync.floh_user ORDER BY sub LIMIT 5;
SQL
my $workflow = $f->sql("SELECT id FROM flohsync.workflow_definition");
my %people = (attributeMappings => [ { sourcePath => 'attributes.department', targetField => 'department' }, { sourcePath => 'displayName', targetField => 'x.own', writeMode => 'overwrite_always' } ],
	createUsers => JSON::PP::true, deactivateUsers => JSON::PP::true, createUserDefaults => { title => 'New' }, userMatchFallbackStrategies => ['external_id'],
	postSyncWorkflowId => $workflow, syncTriggerMode => 'per_record', safeguards => { maxStaleFraction => 0.05, minRecords => 1, maxDeactivateFraction => undef });
$f->connector('c', types => [ 'user', 'group' ], %people);
$f->rest('r', 'cursor', types => ['user']);
$f->sql("SELECT flohsync.create_connector('s', 'sql', '{\"queries\": {\"user\": \"SELECT id AS external_id, name AS display_name, mail AS email, NULL::jsonb AS attributes FROM public.people\"}}');
	SELECT flohsync.create_connector('sf', 'sql', '{\"function\": \"public.list\"}');
	SELECT flohsync.configure_sync(c, 'user', '{}') FROM unnest(ARRAY['s', 'sf']) c;
	SELECT flohsync.set_secret('c', 'webhook', 'the secret of webhooks'), flohsync.set_secret('r', 'token', 'a token of some length')");
$f->sync($_->[0], $_->[1]) for [qw(c user)], [qw(c group)], [qw(r user)], [qw(s user)], [qw(sf user)];
# A failed pass, a held run, stale records; one run that waits.
$f->fault('status', code => 500, page => 3, times => -1);
$f->sync('r', 'user');
$f->up('heal');
$f->up('delete', ids => join ',', map { sprintf 'user-%07d', $_ } 1 .. 20);
$f->sync('c', 'user');
my $held = $f->sql("SELECT max(id) FROM flohsync.sync_run WHERE status = 'held'");
isnt($held, '', 'there is a held run');
$f->sql("SELECT flohsync.mark_stale('s', 'user', 'infinity'); SELECT flohsync.claim_workflow_jobs(1)");
$f->sql("SELECT flohsync.handle_webhook('c', '{\"some\": \"event\"}'), flohsync.cache_put('c', 'user', 'user-0000001', '{}')");

#
# Values
#

sub text_of { my ($t) = @_; return defined $t ? literal($t) =~ s/^\s+//r . '::text' : 'NULL::text' }
sub column { my ($sql) = @_; return split /\n/, $f->sql($sql) }

my %id = (
	connector => [ column('SELECT id FROM flohsync.connector_definition ORDER BY name') ],
	match => [ column('SELECT id FROM flohsync.connector_sync_match ORDER BY connector_id, external_id LIMIT 40') ],
	user => [ column('SELECT id FROM flohsync.floh_user ORDER BY sub LIMIT 20') ],
	record => [ column('SELECT id FROM flohsync.resource_record ORDER BY external_id LIMIT 40') ],
	run => [ column('SELECT id FROM flohsync.sync_run ORDER BY id') ],
	job => [ column('SELECT id FROM flohsync.workflow_job ORDER BY id LIMIT 5') ],
	external => [ qw(user-0000001 user-0000030 user-0000119 group-0000003 p1 p50 f1 nobody) ]);
my @templates = map { decode_json_text($_) } column('SELECT flohsync.connector_template(name) FROM flohsync.connector_templates()');
my @definitions = (@templates, map { $f->definition($_) } qw(link next cursor offset page scim));

my @statements = ('SELECT 1', 'SELECT NULL', "SELECT 'x'::text", "SELECT '{}'::uuid[]", "SELECT '{}'::uuid[], '{}'::uuid[]", "SELECT 'x'::text, 'y'::text", 'SELECT 1::bigint, 2::bigint', 'SELECT 1::int, 2::int',
	'SELECT $1', 'SELECT $2', 'SELECT $3, $3', 'SELECT $9', 'SELECT 1 WHERE false', 'SELECT generate_series(1, 3)', 'SELECT', 'VALUES (1, 2, 3)', 'SELECT ROW(1, 2)', 'TABLE flohsync.sync_run', "SELECT repeat('x', 1000000)",
	'UPDATE flohsync.floh_user SET id = id RETURNING id', 'DELETE FROM flohsync.floh_user', 'CREATE TABLE public.t ()', 'DROP SCHEMA _flohsync CASCADE', 'BEGIN', 'COMMIT', 'DO $$BEGIN END$$', 'COPY (SELECT 1) TO STDOUT',
	'EXPLAIN SELECT 1', 'FETCH ALL FROM x', 'NOTIFY x', 'SET ROLE postgres', 'DECLARE c CURSOR FOR SELECT 1', 'SELECT 1; SELECT 2', 'SELECT 1;', '/*', '--', 'SELECT 1 AS external_id FOR UPDATE', 'SELECT 1 INTO public.t',
	'SELECT ' . join('+', (1) x 3000), 'SELECT ' . '(' x 3000 . '1' . ')' x 3000, "SELECT 1/0", 'CALL flohsync.sync(NULL, NULL)');
# By the name of a parameter, texts that get further than others.
my @hints = (
	[ qr/connector/, [ qw(c c c r s sf none C), '', @{ $id{connector} } ] ],
	[ qr/type$/, [ qw(user user user group none User), '', 'a b', 'x' x 65 ] ],
	[ qr/external_id|resource_id|^_id$/, [ @{ $id{external} }, 'x' x 255, 'x' x 256, '€' x 255 ] ],
	[ qr/schedule/, [ '* * * * *', '0 2 * * MON#2', '@hourly', '30 seconds', '0 seconds', '86401 seconds', '* * 31 2 *', '0 0 29 2 *', '0 0 L * *', '*/0 * * * *', '0-59/99999999 * * * *', '1,1 * * * *', '99999999999999 * * * *', '* * * *',
		'* * * * * *', '* * * * * * *', '0 0 ? * 5L', '@', '@reboot', ',,,, * * * *', 'x' x 2000, '0 0 30 2 0#5', "*\t*\n* * *" ] ],
	[ qr/zone/, [ 'UTC', 'Europe/Zurich', 'Australia/Lord_Howe', 'PST8PDT', '<+05>5', 'AAA+200', 'AAA-24:59:59BBB', '../../../etc/passwd', '/etc/localtime', 'posixrules', 'right/UTC', 'utc', 'Nowhere/At_All' ] ],
	[ qr/sql$|query/, \@statements ],
	[ qr/handler|function/, [ 'public.handle(uuid, jsonb)', 'public.list', 'public.fetch', 'pg_catalog.jsonb_typeof(jsonb)', '"a.b".c(jsonb)', 'a.b.c.d', '"', '(jsonb)', 'x(jsonb)(jsonb)' ] ],
	[ qr/^_?name|template/, [ qw(c r w scim okta token webhook webhook_previous a), 'a' x 64, 'a' x 65 ] ],
	[ qr/strateg/, [ qw(full incremental email email_and_issuer upstream_identity external_id) ] ], [ qr/action/, [ qw(link skip create) ] ], [ qr/kind/, [ qw(command sql rest config secret) ] ],
	[ qr/status|^_state/, [ qw(matched unmatched ambiguous skipped create_pending success error cancelled held queued 40P01 40001 23505 XX000), '%' ] ],
	[ qr/change/, [ qw(added updated restored staled again) ] ], [ qr/level/, [ qw(reader manager) ] ], [ qr/class/, [ qw(network configuration pagination_loop crash_loop) ] ],
	[ qr/check|_key/, [ qw(jsonpath url path header header_value duration) ] ],
	[ qr/path/, [ '$.a', '$[*]', 'lax $.a ? (@ == 1)', 'attributes.department', 'attributes.a.b.c', 'externalId', 'displayName', "attributes.a'b", 'attributes."x"', 'attributes.__proto__', '$x' ] ],
	[ qr/url/, [ 'https://a.example/x', 'http://[::1]:8080/', 'http://127.0.0.1:1', 'https://u:p@a', 'http://a:0', 'https://%41', 'http://xn--80ak6aa92e/', 'gopher://x' ] ],
	[ qr/object/, [ 'flohsync.metrics()', 'flohsync.sync_run', 'nothing()', 'x' ] ],
	[ qr/mode|source/, [ qw(connector overwrite_always overwrite_if_empty manual none per_record summary) ] ],
	[ qr/text|value|message|error|notes|description|search|pointer|where|problem/, [ 'something', '{{config.x}} and {{secret.y}}', '100%', 'user_1', 'a~b/c' ] ]);
my @texts = (undef, '', ' ', 'a', 'null', 'NaN', '0', '-1', '1e400', '99999999999999999999', '%s%n%1$s', "\x{1}\x{2}\n\t", "\x{e9}\x{20ac}\x{1f600}", '{"a":', '[', '"', '\\', "'", ';--', '$1', '$$', '../../etc/passwd', '{{', '00000000-0000-0000-0000-000000000000',
	'x' x 256, '€' x 256, 'x' x 8192, @statements[ 0, 5 ]);

my @records = ({ externalId => 'new-1' }, { externalId => 'user-0000030', displayName => 'Name', email => 'a@b.example', attributes => { department => 'R&D', groups => ['group-0000003'] } }, { externalId => 7, attributes => {} });
my @bodies = ({ action => 'updated', resourceId => 'user-0000030', resourceType => 'user', data => { displayName => 'X', attributes => { a => 1 } } }, { action => 'deleted', resourceId => 'user-0000031', resourceType => 'user', timestamp => '2026-01-01T00:00:00Z' },
	{ action => 'created', resourceId => 99, resourceType => 'user', data => { email => 'new@acme.com' }, occurredAt => 1767225600 }, { entitlement => 'x' });
my @settings = ({ enabled => JSON::PP::true, cronSchedule => '@hourly', timezone => 'UTC', filterRules => { groupNamePattern => '*', groupIds => ['a'], emailDomains => ['x.example'], memberOfSyncedGroups => JSON::PP::true, maxRecords => 5 } }, \%people,
	{ staleRetention => '7d', overlap => '5m', hashIgnore => ['attributes.a'], strategy => 'incremental', fullCronSchedule => '0 2 * * *', issuerSourcePath => 'attributes.x' }, { description => 'd', enabled => JSON::PP::false },
	{ config => { url => $f->url }, name => 'other' }, { definition => $definitions[0] }, { enabled => JSON::PP::true, definition => {} });
my @configs = ({ url => $f->url, headers => { 'X-A' => 'b' }, commands => ['listUsers'], commandNames => { user => 'listUsers' }, limits => { requests_per_minute => 100 } }, { queries => { user => $statements[0] } }, { function => 'public.list' },
	{ host => '127.0.0.1', domain => 'a.example', base_url => $f->url, tenant_id => 'x' });
my @json_hints = ([ qr/definition|faults|_schema|_branches|properties|resources/, \@definitions ], [ qr/config|limits|headers/, \@configs ], [ qr/settings|_object|_given/, \@settings ], [ qr/^_?records?$/, [ @records, [@records] ] ], [ qr/body|data/, \@bodies ],
	[ qr/rules/, [ $settings[0]{filterRules} ] ], [ qr/mappings/, [ $people{attributeMappings} ] ], [ qr/patch/, [ { title => { mode => 'overwrite_always', value => 'x' }, 'x.own' => { mode => 'overwrite_if_empty', value => [1] } } ] ],
	[ qr/types|allowed/, [ [qw(string null)], 'string', [qw(config secret parent)] ] ], [ qr/./, [ @records, @bodies, { added => 1, postSync => { usersCreated => 2 } }, [ map { "a$_" } 1 .. 5 ] ] ]);

# An expression of a type, for a parameter of that name.
sub text_value
{
	my ($name) = @_;
	my ($hint) = map { $_->[1] } grep { $name =~ $_->[0] } @hints;
	return text_of(pick(@$hint)) if $hint && chance(65);
	return pick("repeat('x', 1048576)", "repeat('€', 349525)", "repeat('{\"a\":[', 100000)", "repeat('* ', 500000)", q(repeat('$.a', 300000))) if chance(4);
	return text_of(pick(chance(20) ? grep { !ref } Barrage::odd_values() : @texts)) =~ s/\@(?:HUGE|LONG|MANY|DEEP)\@/x/gr;
}

sub json_value
{
	my ($name) = @_;
	my ($hint) = map { $_->[1] } grep { $name =~ $_->[0] } @json_hints;
	return 'NULL::jsonb' if chance(8);
	my $doc = chance(15) ? pick(odd_values()) : pick(@$hint);
	return jsonb_of($doc) if chance(30);
	return pick("(repeat('[', 3000) || repeat(']', 3000))::jsonb", "(SELECT jsonb_object_agg(i::text, i) FROM generate_series(1, 20000) i)", "to_jsonb(repeat('x', 1048576))", "'1e131071'::jsonb", "jsonb_build_array(repeat('9', 100000)::numeric)",
		"(repeat('{\"a\":', 3000) || '1' || repeat('}', 3000))::jsonb") if chance(2);
	return jsonb_of(mutated($doc, @$hint));
}

my $webhook = json_text($bodies[0]);
my $pages = "(SELECT array_agg(seen ORDER BY run_id, page) FROM flohsync.sync_run_page WHERE seen IS NOT NULL)";
my %values = (
	text => \&text_value, jsonb => \&json_value, varchar => \&text_value, bpchar => \&text_value, name => sub { return 'left(' . text_value(@_) . ', 63)::name' },
	cstring => sub { return '(' . text_value(@_) . ')::cstring' },
	bool => sub { return pick('true', 'true', 'false', 'NULL::bool') },
	int8 => sub { my ($name) = @_; return pick('NULL::int8', (map { "$_\::int8" } @{ $id{ $name =~ /run|pass/ ? 'run' : 'job' } }, $held), map { "'$_'::int8" } 0, 1, -1, 1000000, '9223372036854775807', '-9223372036854775808') },
	int4 => sub { return pick('NULL::int4', map { "'$_'::int4" } 0, 1, 2, 3, 50, -1, 2000, 2147483647, -2147483648) },
	int2 => sub { return pick('NULL::int2', '0::int2', '32767::int2') }, numeric => sub { return pick('NULL::numeric', '0.5', "'NaN'::numeric", '1e400') }, float8 => sub { return pick('NULL::float8', "'NaN'::float8", '1e308') },
	interval => sub { return pick('NULL::interval', map { "'$_'::interval" } '0', '5 minutes', '-1 day', '1 microsecond', '178000000 years', '-178000000 years', '2147483647 days', '-2147483648 days -2147483648 months', '7 days') },
	timestamptz => sub { return pick('NULL::timestamptz', 'now()', map { "'$_'::timestamptz" } 'infinity', '-infinity', '4713-01-01 BC', '294276-12-31 23:59:59', '2026-03-29 00:30Z', '1970-01-01') },
	date => sub { return pick('NULL::date', "'infinity'::date", "'2026-01-01'::date") },
	uuid => sub { my ($name) = @_; return pick('NULL::uuid', "'00000000-0000-0000-0000-000000000000'::uuid", 'gen_random_uuid()', map { "'" . pick(@{ $id{$_} }) . "'::uuid" } qw(user record match), (($name =~ /connector/ ? 'connector' : $name =~ /match/ ? 'match' : 'user') x 4)) },
	bytea => sub { return pick('NULL::bytea', map({ "'\\x$_'::bytea" } '', '00', 'ff', '0000000000000000', '0000000000000001', 'ff' x 9, 'ff' x 24, '80' x 12 . '01', unpack 'H*', $webhook), "decode(repeat('ff', 500000), 'hex')", "decode(repeat('0103', 100000), 'hex')", "convert_to(repeat('[', 100000), 'UTF8')",
		"${pages}[1]", "substr(_flohsync.ledger_union($pages), " . int(rand 20) . ', ' . int(rand 60) . ')', "_flohsync.ledger_union($pages)", "overlay(${pages}[1] PLACING '\\xff80ff'::bytea FROM " . (1 + int rand 5) . ')', "set_byte(_flohsync.ledger_union($pages), " . int(rand 8) . ', 255)',
		"'\\x" . join('', map { sprintf '%02x', rand 256 } 1 .. pick(3, 8, 9, 24, 25, 100)) . "'::bytea") },
	regrole => sub { return pick('NULL::regrole', (map { "'$_'::regrole" } qw(manager manager reader stranger postgres flohsync_owner flohsync_worker flohsync_nobody pg_read_all_data)), map { "$_\::oid::regrole" } 0, 1, 10, 4294967295) },
	oid => sub { return pick('NULL::oid', "'manager'::regrole::oid", map { "$_\::oid" } 0, 1, 10, 1259, 4294967295) },
	regprocedure => sub { return pick('NULL::regprocedure', map({ "'$_'::regprocedure" } 'public.fetch(uuid,text,text)', 'public.fetch(uuid,text,text)', 'public.fetch_nothing(uuid,text,text)', 'public.fetch_fails(uuid,text,text)', 'public.fetch_text(uuid,text,text)', 'public.handle(uuid,jsonb)', 'pg_catalog.max(text)',
		'pg_catalog.jsonb_typeof(jsonb)', 'pg_catalog.textin(cstring)', 'flohsync.sync(text,text,jsonb)', '_flohsync.user_guard()', 'pg_catalog.jsonb_set(jsonb,text[],jsonb,boolean)'), '0::oid::regprocedure', '4294967295::oid::regprocedure', '1::oid::regprocedure') },
	xid8 => sub { return pick('NULL::xid8', "'0'::xid8", "'3'::xid8", 'pg_current_xact_id()', "'18446744073709551615'::xid8") },
	role => sub { return pick('NULL::_flohsync.role', map({ "'$_'::_flohsync.role" } qw(manager postgres ?gone nobody_of_that_name), '?' . 'x' x 62), "_flohsync.role('reader'::regrole::oid)") });

# Types by their id: name, kind, columns.
my %type;
for (column("SELECT t.oid, format_type(t.oid, NULL), t.typname, t.typtype, t.typelem, t.typlen, t.typrelid FROM pg_type t WHERE NOT t.typtype = 'p' OR t.typname = 'cstring'"))
{
	my ($oid, $sql, $name, $kind, $element, $length, $relation) = split /\|/;
	$type{$oid} = { sql => $sql, name => $name, kind => $kind, element => $length == -1 ? $element : 0, relation => $relation };
}
my %columns;
for (column("SELECT a.attrelid, a.attname, a.atttypid, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
	WHERE c.relnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum"))
{
	my ($relation, @column) = split /\|/;
	push @{ $columns{$relation} }, \@column;
}

sub value
{
	my ($oid, $name) = @_;
	my $t = $type{$oid};
	return $values{ $t->{name} }->($name) if $values{ $t->{name} };
	return array_value($t, $name) if $t->{element};
	return row_value($t) if $t->{kind} eq 'c';
	return pick("NULL::$t->{sql}", "NULLIF('', '')::$t->{sql}");
}

sub array_value
{
	my ($t, $name) = @_;
	my $one = sub { return value($t->{element}, $name) };
	return pick("NULL::$t->{sql}", "'{}'::$t->{sql}", "ARRAY[NULL, NULL]::$t->{sql}") if chance(25);
	return "ARRAY[[" . $one->() . ', ' . $one->() . '], [' . $one->() . ", NULL]]::$t->{sql}" if chance(10);
	return "array_fill(" . $one->() . ", ARRAY[" . pick(3, 300, 20000) . "]" . pick('', ', ARRAY[-5]') . ")" if chance(10);
	return $pages if $t->{name} eq '_bytea' && chance(50);
	return "ARRAY[" . join(', ', map { $one->() } 1 .. pick(1, 1, 2, 5)) . "]::$t->{sql}";
}

# Null, all nulls, a real row, or one with one to three of its columns changed.
sub row_value
{
	my ($t) = @_;
	my @columns = @{ $columns{ $t->{relation} } };
	return pick("NULL::$t->{sql}", "ROW(" . join(', ', ('NULL') x @columns) . ")::$t->{sql}") if chance(15);
	my $real = $t->{sql} =~ /\.fault$/ ? "NULL::$t->{sql}" : "(SELECT t FROM $t->{sql} t ORDER BY t::text OFFSET " . int(rand 4) . ' LIMIT 1)';
	return $real if chance(30);
	my %changed = map { $_->[0] => $_ } map { pick(@columns) } 1 .. pick(1, 1, 2, 3);
	return "jsonb_populate_record($real, jsonb_build_object(" . join(', ', map { literal($_->[0]) . ", to_jsonb(($_->[2])::$_->[1])" }
		map { my ($name, $oid, $sql) = @{ $changed{$_} }; [ $name, $sql, value($oid, $name) ] } sort keys %changed) . '))';
}

#
# Functions
#

my @functions;
for (column("SELECT p.oid, p.oid::regprocedure, p.prokind, p.prorettype::regtype, n.nspname, p.pronargs, l.lanname, p.proargtypes,
		coalesce(array_to_string(array(SELECT coalesce(a.name, '') FROM unnest(p.proargnames, p.proargmodes) a(name, mode) WHERE coalesce(a.mode, 'i') IN ('i', 'b', 'v')), ','), ''), format('%I.%I', n.nspname, p.proname),
		EXISTS (SELECT FROM _flohsync.access x WHERE x.object = p.oid::regprocedure::text AND x.level = 'reader'), EXISTS (SELECT FROM _flohsync.access x WHERE x.object = p.oid::regprocedure::text AND x.level IN ('reader', 'manager'))
	FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
	WHERE n.nspname IN ('flohsync', '_flohsync', 'flohsync_api') ORDER BY p.oid::regprocedure::text COLLATE \"C\""))
{
	my %fn;
	@fn{qw(oid signature kind returns schema nargs language types names name reader manager)} = split /\|/;
	$fn{types} = [ split / /, $fn{types} ];
	$fn{names} = [ split /,/, $fn{names} ];
	push @functions, \%fn;
}
cmp_ok(scalar(@functions), '>', 200, scalar(@functions) . ' functions and procedures');

my %become = (superuser => [''], worker => [ 'SET LOCAL ROLE flohsync_worker', 'SET LOCAL SESSION AUTHORIZATION flohsync_worker' ], map { $_ => [ "SET LOCAL ROLE $_", "SET LOCAL SESSION AUTHORIZATION $_" ] } qw(manager reader stranger));

# One call, looked up as the superuser and made as the role: then it is EXECUTE that decides, and not what can be named.
sub shot
{
	my ($fn, $role, @args) = @_;
	my $name = "$fn->{signature} as $role";
	my $become = pick(@{ $become{$role} });
	# An argument in a subselect is no constant: nothing is computed before rights are checked.
	my $call = "$fn->{name}(" . join(', ', map { "(SELECT $_)" } @args) . ')';
	return { name => $name, kind => $fn->{signature}, fn => $fn, role => $role, lines => [ $become || (), "CALL $fn->{name}(" . join(', ', @args) . ')' ] } if $fn->{kind} eq 'p';
	my $query = $fn->{returns} =~ /trigger$/ ? "SELECT $call IS NULL" : $fn->{returns} eq 'void' ? "SELECT count(*) FROM $call x" : "SELECT count(*), sum(octet_length(x::text)) FROM $call x";
	return { name => $name, kind => $fn->{signature}, fn => $fn, role => $role, prepares => 1, lines => [ "PREPARE q AS $query", $become || (), 'EXECUTE q' ] };
}

my @shots;
my $number = 0;
sub add { my ($fn, $role, $make) = @_; seeded($seed, ++$number); push @shots, shot($fn, $role, $make->()); return }

for my $fn (@functions)
{
	my @types = map { $type{$_}{sql} } @{ $fn->{types} };
	my @nulls = map { "NULL::$_" } @types;
	$fn->{callers} = [ 'superuser', ('worker') x ($f->sql("SELECT has_function_privilege('flohsync_worker', $fn->{oid}, 'EXECUTE')") eq 't'), ('manager') x ($fn->{manager} eq 't'), ('reader') x ($fn->{reader} eq 't') ];
	add($fn, $_, sub { @nulls }) for qw(superuser worker manager reader stranger);
	# One argument after the other is null.
	for my $i (0 .. $#types)
	{
		add($fn, 'superuser', sub { map { $_ == $i ? $nulls[$_] : value($fn->{types}[$_], $fn->{names}[$_] // '') } 0 .. $#types });
	}
}
my @random = map { my $fn = $_; ($fn) x (($fn->{nargs} ? 1 + ($fn->{language} eq 'c' ? 3 : 0) + ($fn->{schema} eq 'flohsync' ? 2 : 0) : 0)) } @functions;
while ($number < $calls)
{
	seeded($seed, $number + 1);
	my $fn = pick(@random);
	my $role = pick(@{ $fn->{callers} });
	add($fn, $role, sub { map { value($fn->{types}[$_], $fn->{names}[$_] // '') } 0 .. $#{ $fn->{types} } });
}
# Calls that are right, so that what lies behind the checks is reached; then with one argument that may not be.
sub good
{
	my ($name, @args) = @_;
	my ($fn) = grep { $_->{name} eq $name && $_->{nargs} == @args } @functions or die "there is no function $name of " . @args . ' arguments';
	push @shots, my $right = shot($fn, 'superuser', @args);
	$right->{right} = 1;
	for (1 .. 5 * $calls / 8000)
	{
		add($fn, pick(@{ $fn->{callers} }), sub { my $other = int rand @args; map { $_ == $other ? value($fn->{types}[$_], $fn->{names}[$_] // '') : $args[$_] } 0 .. $#args });
	}
	return;
}
my $match = "(SELECT id FROM flohsync.connector_sync_match WHERE match_status = 'matched' ORDER BY external_id LIMIT 1)";
my $unmatched = "(SELECT id FROM flohsync.connector_sync_match WHERE match_status = 'unmatched' AND external_email IS NOT NULL ORDER BY external_id LIMIT 1)";
my $config = "(SELECT t FROM flohsync.connector_sync_config t WHERE resource_type = 'user' AND attribute_mappings IS NOT NULL LIMIT 1)";
my $ids = "(SELECT array_agg(id) FROM (SELECT r.id FROM flohsync.resource_record r JOIN flohsync.connector_definition d ON d.id = r.connector_id AND d.name = 'c' WHERE r.resource_type = 'user' ORDER BY r.external_id LIMIT 5) x)";
my $page = "(SELECT t FROM flohsync.sync_run_page t ORDER BY run_id, page LIMIT 1)";
good('flohsync.create_connector', "'n'::text", "'$_->[0]'::text", jsonb_of($_->[1]), $_->[2] ? jsonb_of($_->[2]) : 'NULL::jsonb')
  for [ 'command', $configs[0] ], [ 'sql', { queries => { user => 'SELECT 1 AS external_id' } } ], [ 'sql', $configs[2] ], map { [ 'rest', { %{ $configs[3] }, realm => 'r', client_id => 'i', org => 'o', client_email => 'e', admin_email => 'a' }, $_ ] } @definitions;
good('flohsync.update_connector', "'c'::text", jsonb_of($_)) for { description => 'x', enabled => JSON::PP::false }, { config => $configs[0] };
good('flohsync.configure_sync', "'c'::text", "'user'::text", jsonb_of($_)) for grep { !grep { /config|name|definition|description/ } keys %$_ } @settings;
good('flohsync.upsert_resource', "'c'::text", "'user'::text", jsonb_of($_), 'now()') for @records;
good('flohsync.upsert_resources', "'c'::text", "'user'::text", jsonb_of([@records]));
good('flohsync.handle_webhook', "'c'::text", jsonb_of($_)) for @bodies;
good('flohsync.receive_webhook', "'c'::text", "convert_to(" . literal(json_text($_)) . ", 'UTF8')", jsonb_of({ 'X-Webhook-Signature' => hmac_sha256_hex(json_text($_), 'the secret of webhooks') })) for @bodies;
# Bodies that are signed, and nearly right.
for (1 .. 30 * $calls / 8000)
{
	seeded($seed, ++$number);
	my $body = json_of(mutated(pick(@bodies), @bodies));
	$body =~ s/\@DEEP\@/'[' x 2000 . ']' x 2000/ge;
	utf8::encode($body);
	my ($fn) = grep { $_->{name} eq 'flohsync.receive_webhook' } @functions;
	push @shots, shot($fn, 'superuser', "'c'::text", "'\\x" . unpack('H*', $body) . "'::bytea", jsonb_of({ 'X-Webhook-Signature' => hmac_sha256_hex($body, 'the secret of webhooks') }));
}
good('flohsync.resolve_match', $unmatched, "'$_->[0]'::text", $_->[1], "'note'::text") for [ 'link', "'$id{user}[3]'::uuid" ], [ 'skip', 'NULL::uuid' ], [ 'create', 'NULL::uuid' ];
good('flohsync.bulk_resolve_matches', "'c'::text", "ARRAY[$match, $unmatched]", "'skip'::text", 'NULL::uuid', 'NULL::text');
good('flohsync.unlink_match', $match);
good('flohsync.explain_match', "'c'::text", "'user'::text", "'user-0000030'::text");
good('flohsync.list_matches', "'c'::text", "'user'::text", "'matched'::text", "'user'::text", '1', '10', $_) for 'NULL::boolean', 'false';
good('flohsync.approve_run', "$held\::int8", "'well'::text", $_) for 'NULL::text[]', "ARRAY['user-0000002']";
good('flohsync.reject_run', "$held\::int8", "'no'::text");
good('flohsync.trigger_sync', "'r'::text", "'user'::text", "'full'::text", $_) for 'false', 'true';
good('flohsync.test_connector', "'$_'::text") for qw(c r s sf);
good('flohsync.set_secret', "'c'::text", "'token'::text", "'a new token'::text");
good('flohsync.cache_put', "'c'::text", "'user'::text", "'user-0000030'::text", jsonb_of($records[1]), "'1 minute'::interval");
good('flohsync.cache_get_or_fetch', "'c'::text", "'user'::text", "'user-0000030'::text", $_) for 'NULL::regprocedure', "'public.fetch(uuid,text,text)'::regprocedure";
good('flohsync.set_entitlement_handler', "'public.handle(uuid,jsonb)'::regprocedure");
good('flohsync.set_sync_owner', "'s'::text", "'user'::text", "'manager'::regrole");
good('flohsync.revoke_access', "'manager'::regrole");
good('_flohsync.match', $config, $ids, "'{}'::uuid[]", "'{}'::uuid[]");
good('_flohsync.map_attributes', $config, $ids, 'NULL::int8', 'NULL::flohsync.resource_record');
good('_flohsync.probes_sql', "array_fill('email'::text, ARRAY[20000])");
good('_flohsync.process_users', $config, $ids, $ids, "$held\::int8", 'false', 'true', 'true', 'false', 'NULL::flohsync.resource_record');
good('_flohsync.reached_by_users', $config, "'3'::xid8", 'NULL::xid8');
good('_flohsync.page_changes', $page);
good('_flohsync.fingerprint', "'full'::text", "(SELECT t FROM flohsync.connector_definition t WHERE name = 'c')", $config);
good("_flohsync.$_->[0]", "$held\::int8", @$_[1 .. $#$_]) for [ 'start_run', 'false' ], [ 'post_sync', 'false' ], [ 'settle_pass', 'true', "ARRAY['user-0000002']" ], [ 'purge_run', '10::int8' ], [ 'restart_pass', 'true' ], ['run_stats'], ['pass_overlap'];
good('_flohsync.follow_webhook', "(${ids})[1]", "'updated'::text", 'NULL::text');
good('_flohsync.delete_record', "(SELECT id FROM flohsync.connector_definition WHERE name = 'c')", "'user'::text", "'user-0000030'::text", 'now()', "'5 minutes'::interval", 'now()');
good('_flohsync.answer_webhook', "'c'::text", "'POST'::text", "'{}'::jsonb", jsonb_of({ 'x-webhook-signature' => hmac_sha256_hex(json_text($_), 'the secret of webhooks') }), "convert_to(" . literal(json_text($_)) . ", 'UTF8')") for @bodies;
good('_flohsync.webhook_events', "(SELECT webhook -> 'map' FROM flohsync.connector_templates() WHERE name = '$_->[0]')", jsonb_of($_->[1]))
  for [ 'okta', { data => { events => [ { eventType => 'user.lifecycle.create', target => [ { id => 'u', type => 'User' } ] } ] } } ], [ 'github', { action => 'created', team => { id => 5, name => 'T' } } ];
good('_flohsync.check_webhook', "(SELECT webhook FROM flohsync.connector_templates() WHERE name = '$_')") for qw(okta entra github keycloak);
good('_flohsync.hold_matchings', "(SELECT id FROM flohsync.connector_definition WHERE name = 'c')", "'{user,group}'::text[]");
good('flohsync._profile_update', "ARRAY['$id{user}[0]', '$id{user}[9]']::uuid[]", "ARRAY_FILL(" . jsonb_of({ title => { mode => 'overwrite_always', value => 'x' }, startDate => { mode => 'overwrite_if_empty', value => '2026-01-01' }, own => { mode => 'overwrite_always', value => { a => 1 } } }) . ', ARRAY[2])', "'connector'::text");

# A procedure that commits is called outside of a transaction, too.
my %calls_of = (
	'flohsync.sync' => [ [ "'c'", "'group'", 'NULL' ], [ "'r'", "'user'", "'{}'" ], [ "'none'", "'user'", 'NULL' ], [ 'NULL', 'NULL', 'NULL' ], [ "'c'", "repeat('x', 1048576)", 'NULL' ], [ "''", "''", "'[]'" ] ],
	'flohsync.drop_connector_in_parts' => [ [ "'none'", '10' ], ['NULL'], [ 'NULL', 'NULL' ], [ "'c'", '0' ], [ "'c'", '-2147483648' ], [ "repeat('x', 1048576)", '1' ], ["''"] ],
);
for my $fn (grep { $_->{kind} eq 'p' } @functions)
{
	for my $role (qw(manager reader))
	{
		push @shots, { name => "$fn->{signature} as $role, for itself", kind => $fn->{signature}, fn => $fn, role => $role, alone => 1, lines => [ "SET ROLE $role", "CALL $fn->{name}(" . join(', ', @$_) . ')' ] }
		  for @{ $calls_of{ $fn->{name} } // die "no calls of $fn->{name}" };
	}
}
# A trigger function finds itself on a table that is none of ours.
for my $fn (grep { $_->{returns} eq 'trigger' } @functions)
{
	push @shots, { name => "$fn->{signature} on a table of others", kind => $fn->{signature}, fn => $fn, role => 'superuser', lines => [ 'CREATE TEMP TABLE t (id int, owner text, name jsonb, kind bytea, config text)', "CREATE TRIGGER g BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION $fn->{name}($_->[0])",
			"INSERT INTO t VALUES (1, 'a', '{}', '\\x00', 'b'), (NULL, NULL, NULL, NULL, NULL)", 'UPDATE t SET id = 2', 'DELETE FROM t' ] } for [''], ["'pg_catalog.pg_class'"], ["'x', 'y'"];
	push @shots, { name => "$fn->{signature} for statements", kind => $fn->{signature}, fn => $fn, role => 'superuser', lines => [ 'CREATE TEMP TABLE t (id int)', "CREATE TRIGGER g AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION $fn->{name}()", 'INSERT INTO t VALUES (1)', 'TRUNCATE t' ] };
}

diag("seed $seed, " . scalar(@shots) . ' calls') if $ENV{EVERY_FUNCTION_CALLS};
my $barrage = Barrage->new($f);
$barrage->fire(@shots);
$barrage->survived(\@allowed, @shots);

# Who may call what.
my %refused = map { $_ => 0 } qw(manager reader stranger);
my @wrong;
for my $shot (grep { exists $refused{ $_->{role} } } @shots)
{
	my $fn = $shot->{fn};
	next if $shot->{role} ne 'stranger' && $fn->{ $shot->{role} } eq 't';
	$shot->{state} eq '42501' ? $refused{ $shot->{role} }++ : push @wrong, "$shot->{name}: $shot->{state} " . substr $shot->{message} // '', 0, 200;
}
is(join("\n", @wrong), '', 'who was not given a function gets 42501');
cmp_ok($refused{stranger}, '>=', @functions, 'a stranger was refused by every function');
cmp_ok($refused{$_}, '>', 100, "a $_ by many") for qw(manager reader);
is(join("\n", map { "$_->{name}: $_->{state} $_->{message}" } grep { $_->{right} && $_->{state} ne '00000' } @shots), '', 'what is right is done');

$f->no_crash;
done_testing();
