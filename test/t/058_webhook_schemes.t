# Webhooks signed as a connector's config says: each scheme takes what its
# sender signs and nothing else, and answers what senders ask when they are set up.
use strict;
use warnings;

use Digest::SHA qw(hmac_sha256_hex);
use Flohsync;
use Hooks;
use PostgreSQL::Test::Utils;
use Test::More;

my $f = Hooks->new(upstream => 0);
my @schemes = qw(standard svix hmac_hex github okta graph slack);
my $no = '28000: webhook is not authentic';
my $nr = 0;

# Without a map a body is as flohsync has it; that of graph needs notifications beside.
sub body
{
	my ($scheme, %more) = @_;
	return json_text({ action => 'updated', resourceId => 'u-1', resourceType => 'user', data => { displayName => 'Name ' . ++$nr },
			$scheme eq 'graph' ? (value => [ { clientState => $Hooks::secret } ]) : (), %more });
}

$f->plain($_, { scheme => $_ }) for @schemes;
$f->plain('any', undef);

#
# What is taken
#
for my $scheme (@schemes)
{
	my $b = body($scheme);
	is($f->receive($scheme, $b, Hooks::signed($scheme, $b)), 'updated changed', "$scheme: what its sender signs is taken");
	is($f->receive($scheme, body($scheme), { map { (uc) => Hooks::signed($scheme, 'x')->{$_} } keys %{ Hooks::signed($scheme, 'x') } }), $scheme =~ /okta|graph/ ? 'updated changed' : $no,
		"$scheme: names of headers in any case, and not the signature of another body");
	$b = body($scheme);
	is($f->answer($scheme, 'POST', {}, Hooks::signed($scheme, $b), $b), '{"body":{"accepted":true,"action":"updated","changed":true},"contentType":"application/json","status":200}', "$scheme: by HTTP likewise");
}
is($f->sql("select count(*) from flohsync.connector_resource where external_id = 'u-1' and display_name ~ '^Name'"), scalar @schemes, 'each connector has its record');

#
# And nothing else: of another scheme, no scheme, another secret
#
my $before = $f->sql('select hashtextextended(string_agg(r::text, chr(10) order by record_no), 0) from flohsync.resource_record r');
for my $scheme (@schemes)
{
	for my $other (grep { $_ ne $scheme } @schemes)
	{
		my $b = body($other);
		$b = body('graph', value => [ { clientState => 'none' } ]) if $scheme eq 'graph';
		is($f->receive($scheme, $b, Hooks::signed($other, $b)), $no, "$scheme: not what $other signs");
	}
	next if $scheme eq 'graph';
	my $b = body($scheme);
	my $good = Hooks::signed($scheme, $b);
	is($f->receive($scheme, $b, {}), $no, "$scheme: not without headers");
	is($f->receive($scheme, $b, Hooks::signed($scheme, $b, secret => 'another secret of the sender')), $no, "$scheme: not by another secret");
	is($f->receive($scheme, $b, Hooks::signed($scheme, $b, secret => '')), $no, "$scheme: not by an empty one");
	for my $name (grep { $_ !~ /^x-github-(event|delivery)$/ } sort keys %$good)
	{
		is($f->receive($scheme, $b, { map { $_ eq $name ? () : ($_ => $good->{$_}) } keys %$good }), $no, "$scheme: not without $name");
		is($f->receive($scheme, $b, { %$good, $name => $good->{$name} . '0' }), $no, "$scheme: not with a longer $name");
		is($f->receive($scheme, $b, { %$good, $name => substr($good->{$name}, 0, -1) }), $no, "$scheme: nor a shorter one");
		is($f->receive($scheme, $b, { %$good, $name => [ $good->{$name} ] }), $no, "$scheme: nor a list of it");
		is($f->receive($scheme, $b, { %$good, uc $name => $good->{$name} }), $no, "$scheme: nor twice");
	}
	next unless $scheme =~ /standard|svix|slack/;
	is($f->receive($scheme, $b, Hooks::signed($scheme, $b, at => time - 310)), $no, "$scheme: not when it is old");
	is($f->receive($scheme, $b, Hooks::signed($scheme, $b, at => time + 310)), $no, "$scheme: nor from the future");
}
{
	my $b = body('github');
	my $hex = hmac_sha256_hex($b, $Hooks::secret);
	is($f->receive('github', $b, { 'x-hub-signature-256' => $_ }), $no, "github: not as $_") for $hex, "sha1=$hex", "v0=$hex", "sha256=sha256=$hex";
	is($f->receive('github', $b, { 'x-hub-signature' => "sha256=$hex", 'x-hub-signature-1' => "sha256=$hex" }), $no, 'github: not in the header of SHA-1');
	is($f->receive('github', $b, { 'x-hub-signature-256' => "sha256=$hex", 'x-github-delivery' => 'a b' }), $no, 'github: not with a malformed id');
	my $at = time;
	is($f->receive('slack', $b, { 'x-slack-request-timestamp' => "$at", 'x-slack-signature' => hmac_sha256_hex("v0:$at:$b", $Hooks::secret) }), $no, 'slack: not without its version');
	is($f->receive('slack', $b, { 'x-slack-request-timestamp' => $at - 1, 'x-slack-signature' => Hooks::signed('slack', $b, at => $at)->{'x-slack-signature'} }), $no, 'slack: not at another time');
	# What has many names in the absence of a scheme has one with it.
	is($f->receive('standard', $b, Hooks::signed('svix', $b)), $no, 'standard: not by the names of svix');
	my $both = { %{ Hooks::signed('hmac_hex', $b) }, %{ Hooks::signed('standard', $b, secret => 'x' x 30) } };
	is($f->receive('any', $b, $both), $no, 'without a scheme, a bad signature of Standard Webhooks makes all of it bad, as ever');
}
# Notifications of Graph carry the secret, each one
for ([ 'none', [] ], [ 'one without', [ {} ] ], [ 'one that is no object', ['x'] ], [ 'one of another', [ { clientState => 'x' } ] ], [ 'one with a number', [ { clientState => 1 } ] ], [ 'an empty one', [ { clientState => '' } ] ],
	[ 'the second without', [ { clientState => $Hooks::secret }, {} ] ], [ 'the first without', [ {}, { clientState => $Hooks::secret } ] ], [ 'a longer one', [ { clientState => "${Hooks::secret}x" } ] ], [ 'more than a thousand', [ map { { clientState => $Hooks::secret } } 1 .. 1001 ] ])
{
	is($f->receive('graph', body('graph', value => $_->[1]), {}), $no, "graph: not $_->[0]");
}
is($f->receive('graph', $_, {}), $no, 'graph: not a body that makes no sense: ' . substr $_, 0, 20) for '', '{', '[]', 'null', '{"value": 5}', '{"value": {"clientState": "x"}}', "{\"value\": \"\xff\"}", '[' x 100000;
is($f->sql('select hashtextextended(string_agg(r::text, chr(10) order by record_no), 0) from flohsync.resource_record r'), $before, 'none of these changed anything');

# Who asks learns nothing: not which scheme, nor whether there is a connector
my %texts = map { (($_->{text} =~ s/^psql:<stdin>:\d+: //r =~ s/LOCATION: .*//sr) => 1) } map { my $c = $_; map { $f->try_sql(Hooks::receive_sql($c, body('x'), $_)) } {}, Hooks::signed('github', 'x', secret => 'x'), Hooks::signed('hmac_hex', 'x', secret => 'x'), { authorization => 'x' } } @schemes, 'nobody';
is(scalar(keys %texts), 1, 'all are refused in the same words');
my $log = slurp_file($f->node->logfile) =~ s/^.* STATEMENT: .*//mgr;
like($log, qr/Reason: .*$_/, "the log says: $_") for 'a clientState is missing', 'what came is no secret', 'no secret of the connector has made', 'the timestamp is more than five minutes off', 'there is no such connector';
unlike($log, qr/\Q$Hooks::secret\E/, 'and no secret');

#
# Once
#
for my $scheme (qw(standard svix github slack))
{
	my $b = body($scheme);
	my $h = Hooks::signed($scheme, $b);
	is($f->receive($scheme, $b, $h), 'updated changed', "$scheme: a delivery");
	is($f->receive($scheme, $b, $h), 'duplicate same', "$scheme: counts once");
}
{
	my $b = body('github');
	my $h = Hooks::signed('github', $b);
	$f->receive('github', $b, $h);
	my $other = body('github');
	is($f->receive('github', $other, { %{ Hooks::signed('github', $other) }, 'x-github-delivery' => $h->{'x-github-delivery'} }), 'updated changed', 'github: an id, which is not signed, takes nothing from another body');
}

#
# Another header, and a rotation
#
$f->plain('custom', { scheme => 'hmac_hex', header => 'X-Keycloak-Signature' });
$f->plain('basic', { scheme => 'okta', header => 'X-Api-Key' });
{
	my $b = body('x');
	is($f->receive('custom', $b, { 'x-keycloak-signature' => hmac_sha256_hex($b, $Hooks::secret) }), 'updated changed', 'a header of the config');
	is($f->receive('custom', $b, Hooks::signed('hmac_hex', $b)), $no, 'is the only one');
	is($f->receive('basic', $b, { 'X-API-KEY' => $Hooks::secret }), 'updated changed', 'likewise for a secret');
	is($f->receive('basic', $b, { authorization => $Hooks::secret }), $no, 'and no other');
}
for my $scheme (@schemes)
{
	$f->secret($scheme, 'webhook_previous', $Hooks::secret);
	$f->secret($scheme, 'webhook', 'the next secret of that sender');
	my $b = body($scheme);
	is($f->receive($scheme, $b, Hooks::signed($scheme, $b)), 'updated changed', "$scheme: the secret before is taken");
	$b = body($scheme, $scheme eq 'graph' ? (value => [ { clientState => 'the next secret of that sender' } ]) : ());
	is($f->receive($scheme, $b, Hooks::signed($scheme, $b, secret => 'the next secret of that sender')), 'updated changed', "$scheme: and the new one");
	$f->sql("select flohsync.set_secret('$scheme', 'webhook_previous', null)");
	$f->secret($scheme, 'webhook', $Hooks::secret);
}
# A secret that looks like base64 is for GitHub and Slack the text that it is
{
	my $coded = 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqr';
	for my $scheme (qw(github slack hmac_hex))
	{
		$f->secret($scheme, 'webhook', $coded);
		my $b = body($scheme);
		is($f->receive($scheme, $b, Hooks::signed($scheme, $b, secret => $coded)), 'updated changed', "$scheme: a secret in base64 is a text");
		$b = body($scheme);
		is($f->receive($scheme, $b, Hooks::signed($scheme, $b, secret => MIME::Base64::decode_base64($coded))), $scheme eq 'hmac_hex' ? 'updated changed' : $no, "$scheme: or what is behind it");
		$f->secret($scheme, 'webhook', $Hooks::secret);
	}
}

#
# What senders ask when they are set up
#
is($f->answer('okta', 'GET', {}, { 'x-okta-verification-challenge' => 'ch"allenge' }), '{"body":{"verification":"ch\\"allenge"},"contentType":"application/json","status":200}', 'okta: the challenge comes back');
is($f->answer('okta', 'GET', {}, { 'x-okta-verification-challenge' => 'c', authorization => $Hooks::secret }), '{"body":{"verification":"c"},"contentType":"application/json","status":200}', 'okta: with the secret');
is($f->answer('okta', 'GET', {}, { 'x-okta-verification-challenge' => 'c', authorization => 'wrong' }), $no, 'okta: not with another one');
is($f->answer('okta', 'GET', {}, { 'x-okta-verification-challenge' => $_->[1] }), "22023: webhook rejected: \"x-okta-verification-challenge\" $_->[2]", "okta: no challenge: $_->[0]")
  for [ 'empty', '', 'is empty' ], [ 'long', 'x' x 1025, 'is longer than 1024 characters' ], [ 'a list', ['x'], 'is not a string' ], [ 'a line', "a\nb", 'has control characters' ];
is($f->answer('graph', 'POST', { validationToken => 'Validation: <b>token</b>' }, {}), '{"body":"Validation: <b>token</b>","contentType":"text/plain","status":200}', 'graph: the token comes back as text');
is($f->answer('graph', 'POST', { validationToken => 'x' x 1025 }, {}), '22023: webhook rejected: "validationToken" is longer than 1024 characters', 'graph: if it is one');
my $deliveries = $f->sql('select count(*) from _flohsync.webhook_delivery');
my $ping = json_text({ zen => 'Keep it logically awesome.', hook_id => 1, hook => { type => 'Organization', active => JSON::PP::true, events => ['organization'] } });
is($f->answer('github', 'POST', {}, Hooks::signed('github', $ping, event => 'ping'), $ping), '{"body":{"accepted":true,"action":"ping","changed":false},"contentType":"application/json","status":200}', 'github: a ping is answered');
is($f->receive('github', $ping, Hooks::signed('github', $ping, event => 'ping')), 'ping same', 'github: by receive_webhook, too');
is($f->receive('github', $ping, Hooks::signed('github', $ping, event => 'ping', secret => 'x')), $no, 'github: if it is signed');
my $url = json_text({ type => 'url_verification', token => 'legacy', challenge => '3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P' });
is($f->answer('slack', 'POST', {}, Hooks::signed('slack', $url), $url), '{"body":{"challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"},"contentType":"application/json","status":200}', 'slack: the challenge comes back');
is($f->try_sql(Hooks::receive_sql('slack', $url, Hooks::signed('slack', $url)))->{out}, '{"action": "url_verification", "changed": false, "accepted": true, "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}', 'slack: by receive_webhook, too');
is($f->answer('slack', 'POST', {}, Hooks::signed('slack', $url, secret => 'x'), $url), $no, 'slack: if it is signed');
is($f->sql('select count(*) from _flohsync.webhook_delivery'), $deliveries, 'nothing of this is kept');
# Not for whom it is not meant
for my $scheme (@schemes, 'any', 'nobody')
{
	my $get = $f->try_sql(Hooks::answer_sql($scheme, 'GET', {}, { 'x-okta-verification-challenge' => 'c' }));
	is("$get->{state} $get->{message} " . ($get->{hint} // ''), 'FLS05 method not allowed Webhooks are sent by POST.', "$scheme: no challenge is answered") if $scheme ne 'okta';
	is($f->answer($scheme, 'POST', { validationToken => 't' }, {}, ''), $no, "$scheme: no token is") if $scheme ne 'graph';
	is($f->answer($scheme, $_, { validationToken => 't' }, {}), 'FLS05: method not allowed', "$scheme: nothing is sent by " . ($_ // 'nothing')) for 'GET', 'PUT', 'post', '', undef;
}
# A hostile question
is($f->answer('graph', 'POST', $_, {}, '{}'), $no, 'a query that is none: ' . json_text($_)) for [], 'x', { validationToken => undef }, { other => 'x' };
is($f->try_sql(Hooks::answer_sql('okta', 'POST', {}, [], ''))->{state}, '22023', 'headers that are none');
is($f->try_sql("select _flohsync.answer_webhook(null, null, null, null, null)")->{state}, '28000', 'nothing at all');
is($f->try_sql("select _flohsync.answer_webhook('okta', 'POST', null, '{}', null)")->{state}, '28000', 'nor a body');

# A role that may nothing else
$f->sql('create role web login; grant usage on schema _flohsync to web; grant execute on function _flohsync.answer_webhook(text, text, jsonb, jsonb, bytea) to web');
{
	my $b = body('okta');
	is($f->try_sql('SET SESSION AUTHORIZATION web; ' . Hooks::answer_sql('okta', 'POST', {}, Hooks::signed('okta', $b), $b) . " -> 'body' ->> 'action', current_user")->{out}, 'updated|web', 'a role that may nothing else can hand webhooks over');
	is($f->try_sql("SET SESSION AUTHORIZATION web; $_")->{state}, '42501', "but not: $_") for "select _flohsync.webhook_events('{}', '{}')", "select _flohsync.hold_matchings(null, null)", 'select * from _flohsync.webhook_delivery';
}
$f->sql('grant usage on schema flohsync to web');
is($f->try_sql('SET SESSION AUTHORIZATION web; ' . Hooks::receive_sql('okta', '{}', { authorization => 'x' }))->{state}, '42501', 'nor the public function');

# A connector that is disabled
$f->sql("select flohsync.update_connector('github', '{\"enabled\": false}')");
is($f->try_sql(Hooks::answer_sql('github', 'POST', {}, Hooks::signed('github', $ping, event => 'ping'), $ping))->{state}, '55000', 'a disabled connector says so to who signs');
is($f->answer('github', 'POST', {}, {}, $ping), $no, 'and to nobody else');

#
# What a config may say
#
sub config_fails
{
	my ($webhook, $like, $name) = @_;
	$f->fails_like("SELECT flohsync.update_connector('any', jsonb_build_object('config', jsonb_build_object('webhook', " . Flohsync::jsonb($webhook) . ')))', '22023', $like, "refused: $name");
}
my %map = (action => 'updated', resourceType => 'user', resourceId => '$.id');
config_fails([], qr/"webhook": it must be a JSON object/, 'a list');
config_fails('github', qr/"webhook": it must be a JSON object/, 'a text');
config_fails({}, qr/"webhook\.scheme": it must be one of standard, /, 'no scheme');
config_fails({ scheme => 'none' }, qr/"webhook\.scheme"/, 'another scheme');
config_fails({ scheme => undef }, qr/"webhook\.scheme"/, 'null');
config_fails({ scheme => 'okta', secret => 'x' }, qr/unknown key "secret" in webhook/, 'another key');
config_fails({ scheme => 'github', header => 'X' }, qr/"webhook\.header": scheme github has its own/, 'a header where there is one');
config_fails({ scheme => 'okta', header => $_ }, qr/"webhook\.header"/, 'header ' . json_text($_)) for 'a b', '', 'x' x 101, 5, 'Webhook-Id', 'Host';
config_fails({ scheme => 'okta', map => $_->[0] }, $_->[1], 'map ' . substr json_text($_->[0]), 0, 80)
  for [ 'x', qr/"webhook\.map": it must be a JSON object/ ], [ {}, qr/"webhook\.map\.action": it is required/ ], [ { %map, more => 1 }, qr/unknown key "more" in webhook\.map/ ],
  [ { %map, resourceId => undef }, qr/"webhook\.map\.resourceId": it is required/ ], [ { %map, action => 'gone' }, qr/"webhook\.map\.action"/ ], [ { %map, action => { path => '$.a' } }, qr/"webhook\.map\.action"/ ],
  [ { %map, action => { path => '$.a', values => { x => 'gone' } } }, qr/"webhook\.map\.action\.values": "x" means/ ], [ { %map, action => { path => '$.a', values => {} } }, qr/action\.values/ ],
  [ { %map, action => { values => { x => 'created' } } }, qr/"webhook\.map\.action\.path"/ ], [ { %map, resourceType => '$.type' }, qr/"webhook\.map\.resourceType"/ ], [ { %map, resourceType => ['$.x'] }, qr/"webhook\.map\.resourceType"/ ],
  [ { %map, resourceType => { path => '$.a', values => { x => '1' } } }, qr/resourceType\.values/ ], [ { %map, resourceId => '' }, qr/resourceId/ ], [ { %map, resourceId => [] }, qr/resourceId/ ],
  [ { %map, resourceId => [ map { '$.a' } 1 .. 9 ] }, qr/resourceId": it must be a jsonpath, or an array/ ], [ { %map, resourceId => [5] }, qr/resourceId": a path must be a string/ ],
  [ { %map, resourceId => '$.' }, qr/resourceId": / ], [ { %map, resourceId => 'x' }, qr/resourceId": / ], [ { %map, resourceId => '$x' }, qr/resourceId": a jsonpath cannot use variables/ ],
  [ { %map, resourceId => '$.**.id' }, qr/cannot search all levels/ ], [ { %map, resourceId => '$.**{2 to 4}.id' }, qr/cannot search all levels/ ], [ { %map, events => '$.a[*] ? (@.b == $.c)' }, qr/one "\$"/ ],
  [ { %map, events => '$.a[*] ? (@.b == @.c)' }, qr/compare only with a constant/ ], [ { %map, events => '$.a[*] ? (1 < @.c + 1 && @.d == 5)' }, qr/compare only with a constant/ ],
  [ { %map, resourceId => '$.a' . '.a' x 600 }, qr/at most 1000/ ], [ { %map, at => '$.a.datetime()' }, qr/cannot read times/ ], [ { %map, resourceId => { path => '$.a', match => '(' } }, qr/"webhook\.map\.resourceId\.match"/ ],
  [ { %map, resourceId => { path => '$.a', match => 'x' x 201 } }, qr/resourceId\.match/ ], [ { %map, resourceId => { path => '$.a', values => { a => 'b' } } }, qr/unknown key "values"/ ],
  [ { %map, data => { name => '$.x' } }, qr/unknown key "name" in webhook\.map\.data/ ], [ { %map, data => { attributes => { map { ("a$_" => '$.a') } 1 .. 101 } } }, qr/attributes": it has more than 100 names/ ], [ { %map, data => { attributes => { a => 5 } } }, qr/"webhook\.map\.data\.attributes"/ ], [ { %map, data => 5 }, qr/"webhook\.map\.data"/ ],
  [ { %map, events => ['$'] }, qr/"webhook\.map\.events"/ ];
# Paths that are fine
for my $path ('$', '$.a[*] ? (@.b == "**$" && !(@.c.d == "@")).id', '$."a b"[0 to 2]', 'lax $.x ? (exists (@.y)).z', '$.a ? (@.type == "User" || @.type == "UserGroup").id', '$.x ? (@ like_regex "^a$")', 'strict $.x')
{
	ok($f->try_sql("SELECT flohsync.update_connector('any', jsonb_build_object('config', jsonb_build_object('webhook', " . Flohsync::jsonb({ scheme => 'okta', map => { %map, resourceId => $path } }) . ')))')->{ok}, "taken: $path");
}
$f->sql("SELECT flohsync.update_connector('any', '{\"config\": {\"webhook\": null}}')");
{
	my $b = body('x');
	is($f->receive('any', $b, Hooks::signed('hmac_hex', $b)), 'updated changed', 'without its key a connector is as before');
}
# Every kind has it
$f->sql("SELECT flohsync.create_connector('cmd', 'command', '{\"url\": \"https://a.example\", \"webhook\": {\"scheme\": \"slack\"}}')");
$f->sql("SELECT flohsync.create_connector('rst', 'rest', '{\"domain\": \"acme.okta.com\", \"webhook\": {\"scheme\": \"okta\"}}', flohsync.connector_template('okta'))");
is($f->try_sql("SELECT flohsync.create_connector('no', '$_->[0]', '$_->[1]', $_->[2])")->{state}, '22023', "kind $_->[0] checks it")
  for [ 'command', '{"url": "https://a.example", "webhook": {"scheme": "x"}}', 'null' ], [ 'rest', '{"domain": "acme.okta.com", "webhook": "okta"}', "flohsync.connector_template('okta')" ], [ 'sql', '{"queries": {"user": "select 1"}, "webhook": 1}', 'null' ];
# A definition may have a value of that name
my $named = Flohsync::jsonb({ version => 1, base_url => 'https://{{config.webhook}}', resources => { user => { list => { path => '/u', records => '$[*]' }, map => { externalId => '$.id' } } } });
$f->sql("SELECT flohsync.create_connector('named', 'rest', '{\"webhook\": \"a.example\"}', $named)");
$f->secret('named', 'webhook', $Hooks::secret);
{
	my $b = body('x');
	is($f->receive('named', $b, Hooks::signed('hmac_hex', $b)), 'updated changed', 'which says nothing of its webhooks');
}
# What was stored past the checks verifies nothing
for my $stored ('{"scheme": "none"}', '{}', '{"scheme": 5}', '{"scheme": "okta", "header": 5}', '{"scheme": "okta", "map": 5}')
{
	$f->sql("begin; set local session_replication_role = replica; update flohsync.connector_definition set config = config || jsonb_build_object('webhook', '$stored'::jsonb) where name = 'any'; commit");
	my $b = body('x');
	is($f->receive('any', $b, { %{ Hooks::signed('hmac_hex', $b) }, authorization => $Hooks::secret }), $no, "stored without a check: $stored");
}

$f->no_crash;
done_testing;
