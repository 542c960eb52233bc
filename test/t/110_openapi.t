# The OpenAPI document: it is valid, it has all routes, and each route answers as it says.
use strict;
use warnings;

use Cwd qw(abs_path);
use Digest::SHA qw(hmac_sha256_hex);
use File::Basename qw(dirname);
use Flohsync;
use Gateway;
use IPC::Open3;
use JSON::PP;
use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(time sleep);
use PostgreSQL::Test::Utils;

my $tools = abs_path(dirname(__FILE__) . '/../gateway');
my $dir = PostgreSQL::Test::Utils::tempdir();
open my $key, '>', "$dir/key" or die $!;
print $key '0123456789abcdef' x 4;
close $key;
chmod 0600, "$dir/key";
my $f = Flohsync->new(conf => "flohsync.encryption_key_file = '$dir/key'\n");
my $g = Gateway->new($f);
my $binary = Gateway::binary();

#
# The document
#

my $text = qx{"$binary" --openapi};
append_to_file("$dir/openapi.json", $text);
my $document = decode_json_text($text);
my $schemas = $document->{components}{schemas};
is($document->{openapi}, '3.1.0', 'its version is 3.1');
SKIP:
{
	skip 'the checkers are not installed: script/setup gateway', 2 unless -d "$tools/node_modules";
	is(qx{cd "$tools" && node lint.mjs "$dir/openapi.json" 2>&1}, '', 'Redocly finds nothing in it');
	append_to_file("$dir/wrong.json", $text =~ s{schemas/Connector"}{schemas/Connectors"}r);
	like(qx{cd "$tools" && node lint.mjs "$dir/wrong.json" 2>&1}, qr/no-unresolved-refs/, 'but it would');
}

my %operation;
for my $path (keys %{ $document->{paths} })
{
	$operation{ uc($_) . " $path" } = $document->{paths}{$path}{$_} for keys %{ $document->{paths}{$path} };
}
my @routes = map { /^\| ([A-Z]+) \| `([^`]+)`/ ? "$1 $2" : () } split /\n/, qx{"$binary" --routes};
cmp_ok(scalar @routes, '>', 40, 'there are routes');
is_deeply([ sort keys %operation ], [ sort @routes ], 'it has all of them, and no other');

# What it says twice, or after others
my $keys = $f->json("select jsonb_object_agg(key, nullable) from _flohsync.config_keys()");
is_deeply([ sort keys %{ $schemas->{SyncSettings}{properties} } ], [ sort keys %$keys ], 'it has all settings of a configuration, and no other');
is_deeply([ grep { !exists $schemas->{SyncConfig}{properties}{$_} } keys %$keys ], [], 'all of them are told');
is_deeply($schemas->{MatchStrategy}{enum}, $f->json('select to_jsonb(_flohsync.match_strategy_names())'), 'it has the match strategies');
is_deeply([ sort grep { exists $schemas->{RunStats}{properties}{$_} } @{ $f->json('select jsonb_agg(counter) from _flohsync.page_counters() where in_stats') } ],
	$f->json('select jsonb_agg(counter order by counter) from _flohsync.page_counters() where in_stats'), 'and the counters of runs');

#
# curl
#

my (%good, %bad);
my ($number, $nulls) = (0, 0);

sub operation_of
{
	my ($method, $path) = @_;
	$path =~ s/\?.*//;
	for my $route (sort { ($a =~ tr/{//) <=> ($b =~ tr/{//) || $a cmp $b } @routes)
	{
		my ($m, $pattern) = split / /, $route;
		$pattern =~ s/\{\w+\}/[^\/]+/g;
		return $route if $m eq $method && $path =~ /^$pattern$/;
	}
	die "no route: $method $path";
}

# A request by curl, judged by the document: curl('GET', '/api/me', expected status, token => ..., body => ..., headers => {...})
sub curl
{
	my ($method, $path, $status, %opt) = @_;
	my ($head, $out) = map { "$dir/$_" . ++$number } qw(head out);
	my @command = ('curl', '--silent', '--show-error', '--max-time', 180, '--request', $method, '--dump-header', $head, '--output', $out, '--globoff', $g->url($path));
	my $body = $opt{content} // (exists $opt{body} ? json_text($opt{body}) : undef);
	my $token = exists $opt{token} ? $opt{token} : $g->manager;
	push @command, '--header', "Authorization: Bearer $token" if defined $token;
	push @command, '--header', "$_: $opt{headers}{$_}" for keys %{ $opt{headers} // {} };
	if (defined $body)
	{
		append_to_file("$dir/body$number", $body);
		push @command, '--header', 'Content-Type: application/json', '--data-binary', "\@$dir/body$number";
	}
	my $failed = system(@command);
	my ($line, @lines) = split /\r\n/, (slurp_file($head) =~ s/\r\n\r\n\z//r =~ s/.*\r\n\r\n//sr);
	my %a = (status => $line =~ /^HTTP\/1\.1 (\d+)/, content => -e $out ? slurp_file($out) : '', headers => { map { /^([^:]+): *(.*)$/ ? (lc $1, $2) : () } @lines });
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @faults = Gateway::answer_faults($method, $path, \%a);
	unshift @faults, "curl ended with $failed" if $failed;
	unshift @faults, "status $a{status}, expected $status" if $a{status} != $status;
	ok(!@faults, "$method " . ($path =~ s/[0-9a-f-]{36}/ID/gr) . " -> $status") or diag(join("\n", @faults, substr $a{content}, 0, 1000));
	($status < 400 || $status == 503 && $path =~ /health|ready/ ? \%good : \%bad)->{ operation_of($method, $path) } = 1;
	$a{json} = eval { decode_json_text($a{content}) };
	return \%a;
}

# Without a token, with one that is wrong, and with one that may not
for my $route (sort @routes)
{
	my ($method, $pattern) = split / /, $route;
	my $path = $pattern =~ s/\{runId\}/1/r =~ s/\{matchId\}/00000000-0000-4000-8000-000000000000/r =~ s/\{\w+\}/x/gr;
	my $security = $operation{$route}{security};
	next unless @$security;
	curl($method, $path, 401, token => undef) unless @$security > 1;
	curl($method, $path, 401, token => 'x.y.z');
	next if $operation{$route}{'x-permission'} eq 'connector:read';
	curl($method, $path =~ s/x/none/r, 403, token => $g->reader, body => example($operation{$route}));
}

# A body that is taken as one
sub example
{
	my ($operation) = @_;
	my $schema = ($operation->{requestBody} // return {})->{content}{'application/json'}{schema};
	my %values = (matchIds => ['00000000-0000-4000-8000-000000000000'], action => 'skip', kind => 'command');
	return { map { ($_ => $values{$_} // 'x') } @{ $schema->{required} // [] } };
}

#
# Connectors
#

$f->fresh(user => 40, group => 5);
my $c = '/api/connectors';
my $config = { url => $f->url, commands => [qw(listUsers listGroups)] };
my $a = curl('POST', $c, 201, body => { name => 'acme', kind => 'command', config => $config, description => 'ours' });
my $id = $a->{json}{id};
is($a->{headers}{location}, "$c/$id", 'a new connector is where it says');
my $one = "$c/$id";
curl('POST', $c, 409, body => { name => 'acme', kind => 'command', config => $config });
curl('POST', $c, 400, body => { name => 'acme', kind => 'command', config => $config, none => 1 });
curl('POST', $c, 400, content => '{"name": ');
curl('POST', $c, 415, body => { name => 'x', kind => 'command' }, headers => { 'Content-Encoding' => 'gzip' });
curl('POST', $c, 413, content => '{"name": "' . 'x' x 1100000 . '"}');
curl('GET', "$c?search=AC&page=1&pageSize=1", 200);
curl('GET', "$c?pageSize=2001", 400);
$a = curl('GET', $one, 200);
curl('GET', $one, 200, token => $g->reader);
curl('GET', $one, 304, headers => { 'If-None-Match' => $a->{headers}{etag} });
curl('GET', "$c/none", 404);
curl('PUT', $one, 200, body => { enabled => JSON::PP::true }, headers => { 'If-Match' => $a->{headers}{etag} });
curl('PUT', $one, 412, body => { description => 'theirs' }, headers => { 'If-Match' => '"other"' });
curl('PUT', $one, 400, body => { none => 1 });
curl('POST', "$one/test", 200);
$f->fault('status', code => 403);
is(curl('POST', "$one/test", 200)->{json}{ok}, JSON::PP::false, 'a connector that cannot be read is an answer, too');
$f->up('heal');
curl('POST', "$c/none/test", 404);
curl('GET', "$c/templates", 200);
curl('POST', "$c/validate-definition", 200, body => {});
curl('POST', "$c/validate-definition", 400, content => '[]');
curl('PUT', "$one/secrets/webhook", 204, body => { value => 'the secret of webhooks' });
curl('PUT', "$one/secrets/token", 204, body => { value => 'a token' });
curl('PUT', "$one/secrets/token", 400, body => {});
curl('GET', "$one/secrets", 200);
curl('GET', "$c/none/secrets", 404);
curl('DELETE', "$one/secrets/token", 204);
curl('DELETE', "$one/secrets/token", 404);

#
# Configurations
#

my $of = "$one/sync-config/user";
curl('GET', $of, 404);
curl('PUT', $of, 201, body => { staleRetention => '3d', filterRules => { emailDomains => ['acme.com', 'example.org', 'corp.example'] },
		attributeMappings => [ { sourcePath => 'attributes.department', targetField => 'department' } ], userMatchFallbackStrategies => ['external_id'],
		createUserDefaults => { location => 'Ulm' }, hashIgnore => ['attributes.score'], cronSchedule => '0 0 1 1 *', safeguards => { maxStaleFraction => 0.2 } });
$a = curl('PUT', $of, 200, body => { createUsers => JSON::PP::false });
curl('PUT', $of, 200, body => { deactivateUsers => JSON::PP::false }, headers => { 'If-Match' => $a->{headers}{etag} });
curl('PUT', $of, 412, body => { overlap => '1m' }, headers => { 'If-Match' => '"other"' });
curl('PUT', $of, 400, body => { none => 1 });
# Where null is taken, and where not, is the same in the document.
for my $k (sort keys %$keys)
{
	my $null = grep { $_ eq 'null' } types_of($schemas->{SyncSettings}{properties}{$k});
	curl('PUT', "$one/sync-config/group", $null ? ($nulls++ ? 200 : 201) : 400, body => { $k => undef });
}
# So are the keys of what they are made of: an unknown one is answered with those that there are.
for (
	[ 'PUT', $one, {}, 'ConnectorChanges' ],
	[ 'PUT', $of, {}, 'SyncSettings' ],
	[ 'PUT', $of, 'filterRules', 'FilterRules' ],
	[ 'PUT', $of, 'safeguards', 'SafeguardChanges' ],
	[ 'PUT', $of, 'attributeMappings', 'AttributeMapping' ])
{
	my ($method, $path, $key, $schema) = @$_;
	my %unknown = (none => 1, sourcePath => 'attributes.a', targetField => 'a');
	my $answer = curl($method, $path, 400, body => ref $key ? { none => 1 } : { $key => $key eq 'attributeMappings' ? [ \%unknown ] : { none => 1 } });
	my ($known) = $answer->{json}{hint} =~ /Known keys are (.*)\./;
	is(join(', ', sort split /, /, $known // ''), join(', ', sort keys %{ $schemas->{$schema}{properties} }), "the document has the keys of $schema");
}
curl('GET', $of, 304, headers => { 'If-None-Match' => curl('GET', $of, 200)->{headers}{etag} });
curl('GET', "$one/sync-config", 200);
curl('GET', "$c/none/sync-config", 404);
curl('GET', "$of/status", 200);
curl('GET', "$one/sync-config/role/status", 404);

#
# Runs
#

# What an event carries has the schema that the document names for it.
sub event_ok
{
	my ($events, $name, $schema) = @_;
	my ($data) = $events->{text} =~ /^event: \Q$name\E\ndata: (.*)\n\n/m;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_deeply([ defined $data ? Gateway::value_faults($schema, decode_json_text($data)) : 'there is none' ], [], "event $name is a $schema");
	return;
}

sub types_of { my ($s) = @_; return map { ref $_->{type} ? @{ $_->{type} } : $_->{type} // () } $s, @{ $s->{anyOf} // [] } }
sub wait_run { my ($path) = @_; my ($run) = $path =~ /(\d+)$/; $f->wait_run($run); return $run }

is(curl('POST', "$of/trigger", 200, body => {})->{json}{stats}{added}, 40, 'a run adds the records');
$f->fault('hang', page => 1);
$a = curl('POST', "$of/trigger?wait=false", 202, body => { strategy => 'full' });
my $run = $a->{json}{runId};
$f->await(hanging => 1);
is(curl('POST', "$of/trigger", 409)->{json}{runId}, $run, 'a second one is told of the first');
curl('GET', "$of/status", 200);
is(curl('GET', "$one/runs/$run", 200)->{json}{progress}{runId}, $run, 'which has a progress');
my $events = follow('/api/events');
like($events->{text}, qr/event: run\n/, 'curl follows it');
is($events->{headers}{'content-type'}, 'text/event-stream', 'as events');
is_deeply([ Gateway::answer_faults('GET', '/api/events', $events) ], [], 'as the document says');
event_ok($events, 'run', 'Progress');
$good{'GET /api/events'} = 1;
curl('GET', '/api/events?none=1', 400);
curl('POST', "$one/runs/$run/cancel", 200, body => { notes => 'enough' });
$f->wait_run($run);
curl('POST', "$one/runs/$run/cancel", 409);
$f->up('heal');
$f->fault('status', code => 403, times => -1);
is(curl('POST', "$of/trigger", 502, body => {})->{json}{code}, '38000', 'one that fails is the failure of another server');
$f->up('heal');
curl('POST', "$one/sync-config/role/trigger", 404);
curl('POST', "$of/trigger?wait=maybe", 400);
for my $decision (qw(reject approve))
{
	$f->fresh(user => 10);
	$a = curl('POST', "$of/trigger", 200, body => { strategy => 'full' });
	ok($a->{json}{held}, 'a run that misses too many is held');
	$run = $a->{json}{runId};
	curl('GET', $of, 200);
	is(curl('GET', "$one/runs/$run/held-changes?pageSize=2", 200)->{json}{total}, 30, 'what it would do is told');
	curl('POST', "$one/runs/$run/$decision", 200, body => { notes => 'so be it' });
	curl('POST', "$one/runs/$run/$decision", 409);
	curl('GET', "$one/runs/$run/held-changes", 409);
}
$f->fresh(user => 40);
curl('GET', "$one/runs?type=user&status=success&mode=sync", 200);
curl('GET', "$one/runs?status=none", 400);
curl('GET', "$one/runs/99999", 404);
curl('GET', '/api/runs?connector=acme&pageSize=3', 200);
curl('GET', '/api/runs?connector=none', 404);
curl('GET', "$one/runs/$run/pages", 200);
curl('GET', "$one/runs/99999/pages", 404);
$f->sql("insert into flohsync.sync_error (run_id, page, external_id, error_class, message, payload) values ($run, 1, 'x', 'wrong_type', 'it is a number', '{\"a\": 1}')");
curl('GET', "$one/runs/$run/errors", 200);
curl('GET', "$one/runs/99999/errors", 404);
curl('GET', '/api/jobs', 200);
curl('GET', '/api/jobs?page=0', 400);

#
# Records and matches
#

$a = curl('GET', "$one/resources?type=user&pageSize=2&stale=false", 200);
curl('GET', "$one/resources?pageSize=2&after=$a->{json}{nextAfter}", 200);
curl('GET', "$one/resources?after=x", 400);
my ($first, $second, $third) = map { $_->{externalId} } @{ curl('GET', "$one/resources?type=user&stale=false", 200)->{json}{data} };
my $record = "$one/resources/user/$first";
curl('GET', $record, 304, headers => { 'If-None-Match' => curl('GET', $record, 200)->{headers}{etag} });
curl('GET', "$one/resources/user/none", 404);
$f->sql("insert into flohsync.floh_user (iss, sub, email, display_name, confirmed)
	select 'https://idp', n, case n when 'b' then upper(r.email) else r.email end, 'Someone', true from flohsync.connector_resource r, (values ('$first', 'a'), ('$second', 'a2'), ('$second', 'b')) v(id, n)
	where r.external_id = v.id and r.resource_type = 'user'");
$f->sql("select flohsync.match_users('acme', 'user')");
my $matches = curl('GET', "$one/sync-matches?type=user", 200)->{json};
my %match = map { ($_->{externalId} => $_) } @{ $matches->{data} };
is(join(' ', map { $match{$_}{matchStatus} } $first, $second, $third), 'matched ambiguous unmatched', 'records are matched');
curl('GET', "$one/sync-matches?type=user&status=matched&search=e", 200);
curl('GET', "$one/sync-matches", 400);
curl('GET', "$one/sync-matches/stats?type=user", 200);
curl('GET', "$one/sync-matches/stats", 400);
curl('GET', "$one/resources/user/$_/explain", 200) for $first, $second, $third;
curl('GET', "$one/resources/user/none/explain", 404);
my $user = $f->sql("select id from flohsync.floh_user where sub = 'b'");
my $m = "$one/sync-matches";
curl('POST', "$m/$match{$second}{id}/resolve", 200, body => { action => 'link', userId => $user, notes => 'by hand' });
curl('POST', "$m/$match{$second}{id}/resolve", 404, body => { action => 'link', userId => '00000000-0000-4000-8000-000000000000' });
curl('POST', "$m/$match{$third}{id}/resolve", 200, body => { action => 'create' });
curl('POST', "$m/$match{$third}{id}/resolve", 409, body => { action => 'create' });
curl('POST', "$m/x/resolve", 400, body => { action => 'create' });
curl('POST', "$m/$match{$third}{id}/unlink", 200);
curl('POST', "$m/00000000-0000-4000-8000-000000000000/unlink", 404);
curl('POST', "$m/bulk-resolve", 200, body => { matchIds => [ $match{$third}{id}, '00000000-0000-4000-8000-000000000000' ], action => 'skip' });
curl('POST', "$m/bulk-resolve", 400, body => { matchIds => [], action => 'skip' });
curl('POST', "$of/trigger", 200, body => {});
$events = follow('/api/events', qr/event: match-stats\ndata: .*\n\n/, 'Last-Event-ID: 1-0');
event_ok($events, 'run-end', 'Run');
event_ok($events, 'match-stats', 'MatchStats');
curl('POST', "$one/cache/clear", 204, body => { resourceType => 'user' });
curl('POST', "$c/none/cache/clear", 404);

#
# Webhooks
#

my $hook = json_text({ action => 'updated', resourceType => 'user', resourceId => 'hook', data => { displayName => 'Hook' } });
curl('POST', "/api/webhooks/$id", 200, token => undef, content => $hook, headers => { 'X-Webhook-Signature' => hmac_sha256_hex($hook, 'the secret of webhooks') });
curl('POST', "/api/webhooks/$id", 401, token => undef, content => $hook, headers => { 'X-Webhook-Signature' => 'a' x 64 });
curl('GET', "/api/webhooks/$id", 405, token => undef);

# Senders that ask first, and one that says several things at once
sub sender
{
	my ($scheme, $map) = @_;
	curl('PUT', $one, 200, body => { config => { webhook => { scheme => $scheme, $map ? (map => $map) : () } } });
	return;
}
my $url = "/api/webhooks/$id";
sender('okta');
is(curl('GET', $url, 200, token => undef, headers => { 'X-Okta-Verification-Challenge' => 'of Okta' })->{json}{verification}, 'of Okta', 'Okta gets its challenge back');
sender('graph');
$a = curl('POST', "$url?validationToken=of%20Graph", 200, token => undef, content => '');
is("$a->{headers}{'content-type'} $a->{content}", 'text/plain; charset=utf-8 of Graph', 'Microsoft Graph its token, as text');
sender('slack');
my $asked = json_text({ type => 'url_verification', challenge => 'of Slack' });
my $at = int time;
$a = curl('POST', $url, 200, token => undef, content => $asked,
	headers => { 'X-Slack-Request-Timestamp' => $at, 'X-Slack-Signature' => 'v0=' . hmac_sha256_hex("v0:$at:$asked", 'the secret of webhooks') });
is($a->{json}{challenge}, 'of Slack', 'Slack its challenge');
sender('hmac_hex', { events => '$.all[*]', action => 'updated', resourceType => 'user', resourceId => '$.id', data => { displayName => '$.name' } });
$hook = json_text({ all => [ map { { id => "of-$_", name => "Hook $_" } } 1, 2 ] });
$a = curl('POST', $url, 200, token => undef, content => $hook, headers => { 'X-Webhook-Signature' => hmac_sha256_hex($hook, 'the secret of webhooks') });
is($a->{json}{events}, 2, 'several events are one webhook');

#
# The server
#

curl('GET', '/api/me', 200);
curl('GET', '/metrics', 200, token => undef);
curl('GET', '/openapi.json', 304, token => undef, headers => { 'If-None-Match' => curl('GET', '/openapi.json', 200, token => undef)->{headers}{etag} });
is_deeply($g->get('/openapi.json')->{json}, $document, 'what it serves is what it prints');
curl('GET', "$_?none=1", 400, token => undef) for '/live', '/ready', '/openapi.json', '/api/health';
curl('GET', $_, 200, token => undef) for '/live', '/ready', '/api/health';
for (['GET', '/none', 404], ['GET', "$one/none", 404], ['DELETE', $c, 405], ['PATCH', $one, 405])
{
	my $answer = $g->request($_->[0], $_->[1], token => $g->manager);
	is($answer->{status}, $_->[2], "$_->[0] @{[ $_->[1] =~ s/[0-9a-f-]{36}/ID/r ]} -> $_->[2]");
}
is($g->request('HEAD', $one, token => $g->reader)->{status}, 200, 'HEAD is answered as GET is');
curl('DELETE', $of, 204);
curl('DELETE', $of, 404);
curl('DELETE', $one, 204);
curl('DELETE', $one, 404);
$f->node->stop('fast');
curl('GET', '/live', 200, token => undef);
until_down('/ready');
curl('GET', '/ready', 503, token => undef);
curl('GET', '/api/health', 503, token => undef);
curl('GET', "$c", 503);

is_deeply([ grep { !$good{$_} } sort @routes ], [], 'each route has answered');
is_deeply([ grep { !$bad{$_} } sort @routes ], [], 'and failed');

# Until the server has noticed that the database is away
sub until_down
{
	my ($path) = @_;
	for (my $until = time + 60; time < $until; sleep 0.05)
	{
		return if $g->get($path)->{status} == 503;
	}
	return;
}

# curl, while it follows what does not end: until there is an event
sub follow
{
	my ($path, $pattern, @headers) = @_;
	my $pid = open3(my $in, my $out, undef, 'curl', '--silent', '--no-buffer', '--include', map({ ('--header', $_) } 'Authorization: Bearer ' . $g->reader, @headers), $g->url($path));
	$pattern //= qr/event: .*\ndata: .*\n\n/;
	my $all = '';
	my $until = time + 180;
	while (time < $until && $all !~ $pattern && IO::Select->new($out)->can_read($until - time))
	{
		sysread($out, $all, 65536, length $all) or last;
	}
	kill 'TERM', $pid;
	waitpid $pid, 0;
	my ($head, $rest) = split /\r\n\r\n/, $all, 2;
	return { status => $head =~ /^HTTP\/1\.1 (\d+)/, headers => { map { /^([^:]+): *(.*)$/ ? (lc $1, $2) : () } split /\r\n/, $head }, content => $rest, text => $rest };
}

#
# What is compared can fail
#

my %answer = (status => 200, headers => { 'x-request-id' => 'x', etag => '"e"', 'content-type' => 'application/json' });
my %connector = (id => '00000000-0000-4000-8000-000000000000', name => 'x', kind => 'sql', description => undef, enabled => JSON::PP::true,
	createdAt => '2026-01-02T03:04:05.678Z', updatedAt => '2026-01-02T03:04:05.678Z', resourceTypes => ['user']);

sub judged
{
	my ($change, $answer, $method, $path) = @_;
	my %body = (%connector, %$change);
	delete @body{ grep { defined $body{$_} && $body{$_} eq 'absent' } keys %body };
	my %a = (%answer, content => json_text(\%body), %$answer);
	return join ' ', Gateway::answer_faults($method // 'GET', $path // '/api/connectors/x', \%a);
}
is(judged({}, {}), '', 'a good answer is good');
for (
	[ { name => 'absent' }, {}, qr/'name' is a required property/ ],
	[ { more => 1 }, {}, qr/'more' was unexpected/ ],
	[ { kind => 'other' }, {}, qr/is not one of/ ],
	[ { enabled => 'true' }, {}, qr/is not of type 'boolean'/ ],
	[ { name => undef }, {}, qr/is not of type 'string'/ ],
	[ { id => 'x' }, {}, qr/is not a 'uuid'/ ],
	[ { createdAt => '2026-01-02T03:04:05+01:00' }, {}, qr/is not a 'date-time'|does not match/ ],
	[ { resourceTypes => ['a type'] }, {}, qr/does not match/ ],
	[ {}, { status => 206 }, qr/status 206 is not in the document/ ],
	[ {}, { headers => { 'x-request-id' => 'x', 'content-type' => 'application/json' } }, qr/no header ETag/ ],
	[ {}, { headers => { %{ $answer{headers} }, 'content-type' => 'text/html' } }, qr/Content-Type is 'text\/html'/ ],
	[ {}, { content => '{' }, qr/is no JSON/ ],
	[ {}, {}, qr/has a body/, 'HEAD' ],
	[ {}, { status => 204 }, qr/has a body/, 'DELETE' ],
	[ {}, {}, qr/has no such operation/, 'GET', '/api/none' ],
	[ {}, { status => 500 }, qr/'code' is a required property/ ],
	[ {}, { status => 401, content => '{"code":"FLS01","message":"x","details":null,"hint":null}' }, qr/no header WWW-Authenticate/ ],
	[ {}, { status => 405, content => '{"code":"FLS05","message":"x","details":null,"hint":null}' }, qr/no header Allow/, 'PATCH' ])
{
	my ($change, $wrong, $like, @request) = @$_;
	like(judged($change, $wrong, @request), $like, "found: $like");
}

done_testing();
