# flohsync-http: whatever is wrong with a request is told to its sender, with the
# name of what is wrong and nothing of how the database is made, and changes nothing;
# and what is secret gets into no log.
use strict;
use warnings;

use Flohsync;
use Gateway;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
append_to_file("$dir/key", 'ab' x 32);
chmod 0600, "$dir/key";
my $f = Flohsync->new(conf => <<CONF);
flohsync.encryption_key_file = '$dir/key'
log_statement = all
log_min_duration_statement = 0
log_parameter_max_length = -1
log_parameter_max_length_on_error = -1
log_min_error_statement = debug5
CONF
$f->fresh(user => 20);
$f->connector($_) for qw(c other);
$f->sync_ok($_, 'user') for qw(c other);
$f->sql(q{SELECT flohsync.set_secret('c', 'token', 'a value')});
my $g = Gateway->new($f, settings => { failures_per_second => 0 });
my $manager = $g->manager;
my $run = $f->last_run('c', 'user')->{id};
my $others = $f->last_run('other', 'user')->{id};

my @tables = split /\n/, $f->sql(<<'SQL');
SELECT c.oid::regclass FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace) ORDER BY 1::text
SQL
my $checksum = join ' UNION ALL ', map { "SELECT '$_', md5(string_agg(t::text, ',' ORDER BY t::text)) FROM $_ t" } @tables;
my $before = $f->sql($checksum);

#
# Every route, with everything that can be wrong
#

my $none = '00000000-0000-4000-8000-000000000000';
my %in_path = (id => 'c', type => 'user', externalId => 'user-1', runId => $run, matchId => $none, name => 'token');
my $doc = $g->get('/openapi.json')->{json};
my $told = qr/flohsync_api|_flohsync|PL\/pgSQL|SELECT\b|\bapi_\w+\(|\.[ch]:\d|\/(?:tmp|usr|var|home)\/|a value|eyJ|pg_catalog|SQL state|LINE \d/;
my $requests = 0;
my @wrong;

# One request; what is not as it should be is noted: status, and what the message names.
sub probe
{
	my ($method, $path, $status, $names, $what, %opt) = @_;
	my $a = $g->request($method, $path, token => $manager, %opt);
	my $text = $a->{content} // '';
	my $json = $a->{json};
	my $said = join ' ', map { $_ // '' } @{ $json // {} }{qw(message details hint)} if ref $json eq 'HASH';

	$requests++;
	push @wrong, "$what: $a->{status} rather than @$status: $text" unless grep { $_ == $a->{status} } @$status;
	return if $a->{status} < 400 || $method eq 'HEAD';
	push @wrong, "$what: not in the form of errors: $text" unless ref $json eq 'HASH' && join(' ', sort keys %$json) eq 'code details hint message';
	push @wrong, "$what: $names is not named: $text" if defined $names && index($said // '', $names) < 0;
	push @wrong, "$what: it tells too much: $text" if $text =~ $told;
	return;
}

my %bad_value = (
	integer => [ 0, -1, '1e9', 'abc', '1.5', '99999999999999999999', '+1', '0x1', "1'", '%20', '1%20', '%D9%A1' ],
	boolean => [ 'yes', 'TRUE', '1', 'truefalse', "true'", 'null' ],
	uuid => [ 'abc', $none . '0', '{' . $none . '}', substr($none, 1), "' OR true--" ]);
my %bad_member = (
	string => [ 5, JSON::PP::true, [], {}, [ 'x' ] ], boolean => [ 'true', 1, [], {} ], object => [ 'x', 5, [], [ {} ] ],
	array => [ 'x', {}, [], [ 5 ], [ 'x' ], [ [] ] ]);
my @bodies = (
	[ 'half an object', '{' ], [ 'an array', '[]' ], [ 'null', 'null' ], [ 'a number', '5' ], [ 'a string', '"x"' ], [ 'two values', '{}{}' ],
	[ 'a comma at the end', '{"a":1,}' ], [ 'single quotes', "{'a':1}" ], [ 'a comment', '{}/**/' ], [ 'NaN', '{"a":NaN}' ], [ 'bytes', "\xff\xfe\x00" ],
	[ 'a byte order mark', "\xef\xbb\xbf{}" ], [ 'deep nesting', '{"a":' x 2000 . '1' . '}' x 2000 ], [ 'deep arrays', '{"a":' . '[' x 100_000 . ']' x 100_000 . '}' ],
	[ 'no UTF-8', "{\"a\":\"\xff\"}" ], [ 'overlong UTF-8', "{\"a\":\"\xc0\xaf\"}" ], [ 'a zero byte', "{\"a\":\"\x00\"}" ], [ 'an escaped zero', '{"a":"\u0000"}' ],
	[ 'a lone surrogate', '{"a":"\ud800"}' ], [ 'half a pair', '{"a":"\udc00\ud800"}' ], [ 'a control character', "{\"a\":\"\x01\"}" ],
	[ 'a number out of bounds', '{"a":1e131071}' ], [ 'a number beyond', '{"a":1e999999999}' ], [ 'a long number', '{"a":' . '9' x 10000 . '}' ],
	[ 'many values', '{"a":[' . '0,' x 500_000 . '0]}' ], [ 'many keys', '{' . join(',', map { "\"k$_\":0" } 1 .. 50_000) . '}' ], [ 'spaces', ' ' x 1000 ]);

for my $path (sort keys %{ $doc->{paths} })
{
	for my $method (sort grep { /^(?:get|post|put|delete)$/ } keys %{ $doc->{paths}{$path} })
	{
		my $o = $doc->{paths}{$path}{$method};
		my $m = uc $method;
		my @parameters = @{ $o->{parameters} // [] };
		(my $good = $path) =~ s/\{(\w+)\}/$in_path{$1} \/\/ die $1/ge;
		my @required = map { "$_->{name}=user" } grep { $_->{in} eq 'query' && $_->{required} } @parameters;
		my $with = sub { return "$good?" . join '&', @_ };
		my $webhook = $path =~ /webhooks/;
		my $json = $o->{requestBody} && !$webhook ? $o->{requestBody}{content}{'application/json'}{schema} : undef;
		my ($from, @content) = (scalar @wrong, $json ? (content => '{}', type => 'application/json') : ());
		$from = @wrong;
		my $n = $requests;

		probe($m, $with->(@required, 'nonsense=1'), [400], 'nonsense', "$m $path?nonsense", @content) unless $webhook;
		probe($m, $good, [400], $_->{name}, "$m $path without $_->{name}", @content) for grep { $_->{in} eq 'query' && $_->{required} } @parameters;
		probe($m, $with->(@required, "$required[0]"), [400], 'type', "$m $path twice", @content) if @required;
		for my $p (@parameters)
		{
			my $schema = $p->{schema} // {};
			my $type = ($schema->{format} // '') eq 'uuid' ? 'uuid' : $schema->{type} // 'string';
			my @bad = @{ $bad_value{$type} // [] };
			push @bad, $schema->{maximum} + 1 if $schema->{maximum};
			push @bad, 'nonsense', 'a,b', "'" if $schema->{enum};
			if ($p->{in} eq 'query')
			{
				my @others = grep { !/^\Q$p->{name}\E=/ } @required;
				probe($m, $with->(@others, "$p->{name}=$_"), [400], $p->{name}, "$m $path?$p->{name}=$_", @content) for @bad;
				my $value = $type eq 'integer' ? 1 : $type eq 'boolean' ? 'true' : $schema->{enum} ? $schema->{enum}[0] : 'user';
				probe($m, $with->(@others, ("$p->{name}=$value") x 2), [400], $p->{name}, "$m $path, $p->{name} twice", @content) unless $p->{name} eq 'access_token';
			}
			else
			{
				for my $bad (@bad)
				{
					(my $url = $path) =~ s/\{(\w+)\}/$1 eq $p->{name} ? $bad =~ s{([^%\w.~-])}{sprintf '%%%02X', ord $1}ger : $in_path{$1}/ge;
					probe($m, $url, [400], $p->{name}, "$m $path, $p->{name} = $bad", @content);
				}
			}
		}
		if ($json)
		{
			my $url = @required ? $with->(@required) : $good;
			my $properties = $json->{properties} // {};
			probe($m, $url, [ 400, 404, 409, $path =~ /validate/ && $_->[0] =~ /^many/ ? 200 : () ], undef, "$m $path, body: $_->[0]", content => $_->[1], type => 'application/json') for grep { length $_->[1] < 100_000 || $path =~ /secrets|validate/ } @bodies;
			probe($m, $url, [415], 'JSON', "$m $path, type $_", content => '{}', type => $_)
			  for 'text/plain', 'application/x-www-form-urlencoded', 'application/jsonx', 'application/xml', 'json', '';
			probe($m, $url, [415], undef, "$m $path, encoded", content => '{}', type => 'application/json', headers => { 'Content-Encoding' => 'gzip' });
			probe($m, $url, [413], undef, "$m $path, too large", content => '{"a":"' . 'x' x 1_048_600 . '"}', type => 'application/json') if $path =~ /secrets/;
			if (%$properties)
			{
				probe($m, $url, [400], 'nonsense', "$m $path, unknown key", body => { nonsense => 1 });
				for my $key (sort keys %$properties)
				{
					my $schema = $properties->{$key}{anyOf} ? $properties->{$key}{anyOf}[0] : $properties->{$key};
					my $type = ref $schema->{type} ? $schema->{type}[0] : $schema->{type} // 'string';
					probe($m, $url, [400], $key, "$m $path, $key = " . JSON::PP->new->allow_nonref->encode($_), body => { $key => $_ }) for grep { !(ref $_ eq 'HASH' && $type eq 'object') } @{ $bad_member{$type} // [] };
					my $value = { string => '"x"', boolean => 'true', object => '{}', array => "[\"$none\"]" }->{$type} // '"x"';
					$value = '"' . $schema->{enum}[0] . '"' if $schema->{enum};
					$value = "\"$none\"" if ($schema->{format} // '') eq 'uuid';
					probe($m, $url, [400], $key, "$m $path, $key twice", content => "{\"$key\":$value,\"$key\":$value}", type => 'application/json');
					probe($m, $url, [400], $key, "$m $path, $key of none", body => { $key => 'nonsense' }) if $schema->{enum} || ($schema->{format} // '') eq 'uuid';
				}
			}
			elsif ($path !~ /validate/)
			{
				probe($m, $url, [400], 'nonsense', "$m $path, unknown key", body => { nonsense => 1 });
				probe($m, $url, [400], 'enabled', "$m $path, a key twice", content => '{"enabled":true,"enabled":false}', type => 'application/json');
				probe($m, $url, [400], 'enabled', "$m $path, wrong type", body => { enabled => 'x' });
				probe($m, $url, [400], undef, "$m $path, no body");
			}
		}
		is(scalar(@wrong) - $from, 0, "$m $path: " . ($requests - $n) . ' bad requests') || diag(map { substr($_, 0, 400) . "\n" } grep { defined } @wrong[ $from .. ($#wrong < $from + 5 ? $#wrong : $from + 5) ]);
	}
}

#
# Names
#

my @names = ("'", '"', "'; DROP TABLE flohsync.sync_run; --", '%27%20OR%20true--', '%25', '%2F', '..%2F..%2Fetc%2Fpasswd', '%5C', '$1', '%24%24', '{}', 'a' x 256, 'a' x 3000, '%F0%9F%98%80', '%C3%A4' x 200,
	'%E2%80%AE', '%0A', '%0D%0AX:%20y', '%7F', '%20', '%E2%80%8B', '_', '%25s%25n', 'null', 'NULL', '-1', '0', $none, '[1]', '%3Cscript%3E');
my $from = @wrong;
for my $name (@names)
{
	(my $escaped = $name) =~ s{([^%\w.~-])}{sprintf '%%%02X', ord $1}ge;
	probe('GET', "/api/connectors/$escaped", [404], undef, "connector $name");
	probe('GET', "/api/connectors/$escaped/resources", [404], undef, "records of $name");
	probe('GET', "/api/connectors/c/resources?type=$escaped", [ 200, 400 ], undef, "records of type $name");
	probe('GET', "/api/connectors/c/resources?search=$escaped", [ 200, 400 ], undef, "search for $name");
	probe('GET', "/api/connectors?search=$escaped", [ 200, 400 ], undef, "search of connectors for $name");
	probe('GET', "/api/connectors/c/resources/user/$escaped", [ 400, 404 ], undef, "record $name");
	probe('GET', "/api/connectors/c/resources/$escaped/user-1", [ 400, 404 ], undef, "record of type $name");
	probe('GET', "/api/connectors/c/sync-config/$escaped", [ 400, 404 ], undef, "configuration of type $name");
	probe('DELETE', "/api/connectors/c/secrets/$escaped", [ 400, 404 ], undef, "secret $name");
	probe('PUT', "/api/connectors/$escaped/secrets/x", [404], undef, "secret of $name", body => { value => 'v' });
	probe('POST', "/api/webhooks/$escaped", [401], undef, "webhook of $name", content => '{}', type => 'application/json');
	probe('POST', '/api/connectors', [ 400, 409 ], undef, "kind $name", body => { name => 'x', kind => $name });
}
is(scalar(@wrong) - $from, 0, 'names of every kind') || diag(map { substr($_, 0, 300) . "\n" } grep { defined } @wrong[ $from .. ($#wrong < $from + 8 ? $#wrong : $from + 8) ]);

$from = @wrong;
probe('GET', "/api/connectors/c/runs/$others", [404], undef, 'the run of another connector');
probe('GET', "/api/connectors/c/runs/$others/$_", [404], undef, "its $_") for qw(errors pages held-changes);
probe('POST', "/api/connectors/c/runs/$others/$_", [404], undef, "to $_ it") for qw(approve reject cancel);
probe('GET', '/api/connectors/c/runs/9223372036854775807', [404], undef, 'the last of all runs');
probe('POST', "/api/connectors/c/runs/$run/$_", [409], undef, "to $_ one that has ended") for qw(approve reject cancel);
probe('GET', "/api/connectors/c/$_?page=2147483647&pageSize=2000", [200], undef, "the last of all pages of $_") for qw(runs resources);
is(scalar(@wrong) - $from, 0, 'what belongs to another connector is not found') || diag(@wrong[ $from .. $#wrong ]);
cmp_ok($requests, '>', 1000, 'these are many requests');
is($f->sql($checksum), $before, 'none of them changed anything');

#
# Secrets
#

my $server_log = sub { slurp_file($f->node->logfile) };
my $canary = 'canary' . join '', map { ('a' .. 'z')[ rand 26 ] } 1 .. 20;
my $api = $f->sql(q{SELECT flohsync.create_api_token('of a test', 'app_manager')});
is($g->put('/api/connectors/c/secrets/token', { value => "$canary-1" }, token => $manager)->{status}, 204, 'a secret is stored');
is($g->put('/api/connectors/none/secrets/token', { value => "$canary-2" }, token => $manager)->{status}, 404, 'one of no connector is not');
is($g->put('/api/connectors/c/secrets/a%20b', { value => "$canary-3" }, token => $manager)->{status}, 400, 'nor one of a bad name');
is($g->put('/api/connectors/c/secrets/token', { value => "$canary-4" . 'x' x 200_000 }, token => $manager)->{status}, 400, 'nor one that is too long');
is($g->put('/api/connectors/c/secrets/token', { value => "$canary-5" }, token => $g->reader)->{status}, 403, 'nor one from a reader');
is($g->put('/api/connectors/c/secrets/token', { valeu => "$canary-6" }, token => $manager)->{status}, 400, 'nor one of a wrong key');
is($g->request('PUT', '/api/connectors/c/secrets/token', content => "{\"value\":\"$canary-7\"", type => 'application/json', token => $manager)->{status}, 400, 'nor half a one');
is($g->get('/api/me', token => $api)->{status}, 200, 'an API token is used');
is($g->get("/api/me", token => "fls_$canary-8")->{status}, 401, 'and one that is none');
is($g->get("/api/me?access_token=$canary-9", token => $manager)->{status}, 400, 'and one in the wrong place');
is($g->request('POST', '/api/webhooks/c', content => '{}', type => 'application/json', headers => { 'X-Webhook-Signature' => "$canary-10" })->{status}, 401, 'and a signature');
is($g->get('/api/me', headers => { Authorization => "Bearer $manager", Cookie => "$canary-11" })->{status}, 200, 'and a cookie');
like($server_log->(), qr/flohsync_api\.webhook/, 'the server logs statements');
for (1 .. 11)
{
	unlike($g->log_text, qr/\Q$canary-$_\E(?!\d)/, "secret $_ is not in the log of flohsync-http");
	unlike($server_log->(), qr/\Q$canary-$_\E(?!\d)/, "nor in that of the server");
}
unlike($g->log_text, qr/\Q$api\E|eyJ/, 'no token is in the one');
unlike($server_log->(), qr/\Q$api\E(?!.*create_api_token)/, 'nor in the other');

# Without the right to keep parameters out of it they would be there, and it is said.
$f->sql('REVOKE SET ON PARAMETER log_parameter_max_length FROM flohsync_http');
my $bare = Gateway->new($f, roles => 0);
is($bare->request('POST', '/api/webhooks/c', content => '{}', headers => { 'X-Webhook-Signature' => "$canary-12" })->{status}, 401, 'without the right to keep it out');
like($server_log->(), qr/\Q$canary-12\E/, 'a signature gets into the log of the server');
$bare->log_has(qr/where the database logs statements, it logs secrets/, 'about which there is a warning');
is($bare->stop, 0, 'that server stops');

ok($g->alive, 'flohsync-http is still the same process');
is($g->stop, 0, 'it stops');
$f->no_crash;
done_testing();
