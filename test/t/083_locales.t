# The locale of a database and the styles of a session: a database whose i has
# another capital, and sessions that write times, intervals and numbers otherwise.
use utf8;
use strict;
use warnings;

use Flohsync;
use JSON::PP;
use Test::More;

my $f = Flohsync->new;
my $made = $f->try_sql("create database turkish template template0 encoding 'UTF8' locale_provider icu icu_locale 'tr-TR' lc_collate 'C' lc_ctype 'C'");
SKIP:
{
	skip 'no database by ICU here', 18 unless $made->{ok} && $f->sql("select lower('I')", 'turkish') ne 'i';
	my $db = 'turkish';
	$f->sql('create extension flohsync', $db);
	is($f->sql("select _flohsync.list_command('{}', 'invoice')", $db), 'listInvoices', 'a type that begins with i has its command');
	my $definition = sub { my (%headers) = @_; return json_text({ version => 1, base_url => 'https://a.example', headers => \%headers, resources => { item => { list => { path => '/i', records => '$[*]' }, map => { externalId => '$.id' } } } }) };
	for my $header (qw(AUTHORIZATION Authorization COOKIE Transfer-Encoding CONTENT-LENGTH EXPECT TRAILER CONNECTION))
	{
		like($f->sql('select flohsync.validate_definition(' . literal($definition->($header => 'x')) . ')', $db), qr/"pointer": "\/headers/, "header $header is at fault");
	}
	$f->fails_like("select flohsync.create_connector('h', 'command', '{\"url\": \"https://a.example\", \"headers\": {\"CONTENT-LENGTH\": \"1\"}}')", '22023', qr/CONTENT-LENGTH/, 'also of kind command', $db);
	$f->fails_like("select flohsync.create_connector('h', 'command', '{\"url\": \"https://a.example\", \"HEADERS\": {}}')", '22023', qr/HEADERS/, 'keys are as they are written', $db);

	# A whole run, with people
	$f->sql("create table public.people (id text primary key, name text, mail text); grant select on public.people to flohsync_nobody; insert into people values ('I', 'İ I ı i', 'IRIS\@ISTANBUL.example'), ('i', 'x', 'info\@x.example')", $db);
	$f->sql("select flohsync.create_connector('c', 'sql', '{\"queries\": {\"user\": \"select id as external_id, name as display_name, mail as email, null::jsonb as attributes from public.people\", \"item\": \"select id as external_id, name as display_name, null::text as email, null::jsonb as attributes from public.people\"}}')", $db);
	$f->sql("insert into flohsync.floh_user (iss, sub, email, display_name, confirmed) values ('https://idp', 's', 'iris\@istanbul.example', 'U', true)", $db);
	$f->sql("select flohsync.configure_sync('c', '$_', '{}')", $db) for qw(user item);
	ok($f->try_sql("call flohsync.sync('c', '$_')", $db)->{ok}, "a run of type $_") for qw(user item);
	is($f->sql("select match_status from flohsync.connector_sync_match where external_id = 'I'", $db), 'matched', 'an address is the same in capitals');
	is($f->sql("select count(*) from flohsync.resource_record where external_id in ('I', 'i') and resource_type = 'item'", $db), 2, 'ids are not');
	is($f->json("select flohsync.get_resource('c', 'user', 'I')", $db)->{displayName}, 'İ I ı i', 'texts stay as they are');
	is(scalar @{ $f->json("select flohsync.list_resources('c', 'user', search => 'IRIS\@ist')", $db)->{data} }, 1, 'a search finds capitals');
	is($f->sql('select count(*) from flohsync.resource_record where sync_hash <> flohsync.resource_hash(external_id, display_name, email, attributes)', $db), 0, 'hashes are as anywhere');
	$f->disconnect($db);
}

#
# What functions answer does not depend on how a session writes times, intervals and numbers.
#
$f->fresh(user => 5);
$f->connector('c', types => ['user'], enabled => JSON::PP::false, cronSchedule => '0 0 1 1 *', staleRetention => '36h', overlap => '90s', safeguards => { maxStaleFraction => 0.1 });
$f->sync_ok('c', 'user', 'a run');
my @calls = ("flohsync.sync_config('c', 'user')", 'flohsync.list_sync_configs()', "flohsync.list_resources('c', 'user')", "flohsync.get_resource('c', 'user', 'user-0000001')", "flohsync.list_matches('c', 'user')",
	"flohsync.sync_status('c', 'user')", 'flohsync.metrics()', "flohsync.resource_hash('x', 'y', null, '{\"a\": 0.1, \"b\": 1e300}')", "flohsync.canonical_json('{\"a\": 0.1, \"b\": 1e21}')", "flohsync.match_stats('c', 'user')",
	"(select string_agg(remark, '') from flohsync.jobs)");
my @styles = ("DateStyle = 'German'", "DateStyle = 'SQL, MDY'", 'IntervalStyle = sql_standard', 'IntervalStyle = iso_8601', 'extra_float_digits = -15', "TimeZone = 'Asia/Kathmandu'", 'bytea_output = escape', "lc_numeric = 'C'");
# Some figures are of now
my $steady = sub { my ($text) = @_; $text =~ s/^flohsync_workers .*$//mg; return $text };
for my $call (@calls)
{
	my $plain = $steady->($f->sql("select coalesce($call\::text, '')"));
	my @other = grep { $steady->($f->sql("set $_; select coalesce($call\::text, ''); reset all")) ne $plain } @styles;
	is(join(', ', @other), '', "$call answers the same in every style");
}
is($f->sql("set IntervalStyle = iso_8601; set DateStyle = 'German'; select flohsync.configure_sync('c', 'user', '{\"overlap\": \"90s\", \"staleRetention\": \"36h\"}') ->> 'overlap'; reset all"), '00:01:30', 'and settings are understood the same');

$f->no_crash;
done_testing();
