# A secret belongs to the address that it was set for: where it goes, and where
# it does not, once the address has changed.  The journals of two or three
# upstreams, each an origin of its own, tell.
use strict;
use warnings;

use Digest::SHA qw(hmac_sha256_hex);
use Flohsync;
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Utils ();
use Rest;
use Test::More;

my $f = Rest->new(records => 'user=5,group=2,role=2');
my $other = $f->another(records => 'user=5,group=2,role=2');
my $third = $f->another(records => 'user=5,group=2,role=2');
my ($A, $B, $C) = map { $_->origin } $f, $other, $third;
my %at = map { $_->origin => $_ } $f, $other, $third;
my $canaries = 0;

sub canary { return 'canary' . ++$canaries . join '', map { ('a' .. 'z', 0 .. 9)[ rand 36 ] } 1 .. 24 }
sub host { return $_[0] =~ s{^http://}{}r }
sub clear { $_->up('log', clear => 1, last => 0) for $f, $other, $third; return }
sub asked { my ($origin) = @_; return scalar $at{$origin}->requests }
# Whether the last request at an origin came with this text
sub came { my ($origin, $secret) = @_; my $last = ($at{$origin}->requests)[-1] // {}; return json_text($last) =~ /\Q$secret\E/ ? 1 : 0 }
sub set { my ($connector, $name, $value) = @_; return $f->sql('SELECT flohsync.set_secret(' . join(', ', map { literal($_) } $connector, $name, $value) . ')') }
sub update { my ($connector, %settings) = @_; return $f->try_sql('SELECT flohsync.update_connector(' . literal($connector) . ', ' . Flohsync::jsonb(\%settings) . ')') }
sub row { my ($connector, $name) = @_; return $f->sql('SELECT usable, array_to_string(origins, \' \') FROM flohsync.connector_secrets WHERE connector = ' . literal($connector) . ' AND name = ' . literal($name)) }

# A connector that must not send: a run, a test and a single record say why, and nobody is asked for anything.
sub refuses
{
	my ($connector, $why, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	clear();
	$f->ends_with($connector, 'user', 'configuration', $why, $name);
	my $t = $f->json('SELECT flohsync.test_connector(' . literal($connector) . ')');
	ok(!$t->{ok} && $t->{error} =~ $why, "$name: test_connector says so") or diag(json_text($t));
	my $r = $f->try_sql('SELECT flohsync.cache_get_or_fetch(' . literal($connector) . ", 'user', 'user-0000001')");
	ok(!$r->{ok} && $r->{text} =~ $why && ($r->{state} eq '22023' || $r->{text} =~ /Error class: configuration/), "$name: a single record says so") or diag($r->{text});
	is(join(' ', map { asked($_) } $A, $B, $C), '0 0 0', "$name: nothing is sent anywhere");
	return;
}
# One that sends its secret to an origin, in each of these three ways
sub sends
{
	my ($connector, $origin, $secret, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	clear();
	$f->sync_ok($connector, 'user', "$name: a run");
	is(came($origin, $secret), 1, "$name: it was sent");
	clear();
	ok($f->json('SELECT flohsync.test_connector(' . literal($connector) . ')')->{ok}, "$name: a test");
	is(came($origin, $secret), 1, "$name: the test sent it");
	clear();
	like($f->sql('SELECT flohsync.cache_get_or_fetch(' . literal($connector) . ", 'user', 'user-0000001')"), qr/user-0000001/, "$name: a single record");
	is(came($origin, $secret), 1, "$name: it was asked for with it");
	is(scalar(grep { $_ ne $origin && asked($_) } $A, $B, $C), 0, "$name: nobody else was asked");
	return;
}
sub moved { my ($from, $to, $name) = @_; return qr/secret "@{[ $name \/\/ 'token' ]}" must be set again with flohsync\.set_secret\(\): since it was set, the connector's address has changed from \Q$from\E to \Q$to\E/ }

#
# What an origin is
#
for (
	[ command => { url => 'HTTPS://Api.Example.COM:443/v1?x' }, undef, 'https://api.example.com' ],
	[ command => { url => 'http://example.com:80' }, undef, 'http://example.com' ],
	[ command => { url => 'http://example.com:443' }, undef, 'http://example.com:443' ],
	[ command => { url => 'https://example.com:80' }, undef, 'https://example.com:80' ],
	[ command => { url => 'http://xn--bcher-kva.example/' }, undef, 'http://xn--bcher-kva.example' ],
	[ command => { url => 'http://127.1:8080/' }, undef, 'http://127.0.0.1:8080' ],
	[ command => { url => 'http://[::1]:8080/' }, undef, 'http://[::1]:8080' ],
	[ command => { url => 'http://[fe80::1%25eth0]/' }, undef, 'http://[fe80::1%25eth0]' ],
	[ command => { url => 'http://api.dev./' }, undef, 'http://api.dev.' ],    # another host, where names are searched for
	[ command => { url => 'http://ex%61mple.com/' }, undef, 'http://example.com' ],
	[ command => { url => 'http://user@example.com/' }, undef, '' ],
	[ command => { url => 'ftp://example.com/' }, undef, '' ],
	[ command => { url => 5 }, undef, '' ],
	[ command => {}, undef, '' ],
	[ sql => { url => 'http://example.com/' }, undef, '' ],
	[ unknown => { url => 'http://example.com/' }, undef, '' ],
	[ rest => { host => 'Example.com' }, { base_url => 'https://{{config.host}}/x' }, 'https://example.com' ],
	[ rest => { port => 81 }, { base_url => 'https://a.example:{{config.port}}', auth => { token_url => 'https://b.example/t' } }, 'https://a.example:81 https://b.example' ],
	[ rest => {}, { base_url => 'https://a.example', auth => { token_url => 'https://A.example:443/t' } }, 'https://a.example' ],
	[ rest => {}, { base_url => 'https://b.example', http => { allow_hosts => [ 'a.example', 'C.example:8443', '[::1]:1', 'd.example:443' ] } }, 'https://[::1]:1 https://a.example https://b.example https://c.example:8443 https://d.example' ],
	[ rest => {}, { base_url => 'https://{{config.host}}/x' }, '' ],
	[ rest => {}, { base_url => 'https://{{secret.host}}/x' }, '' ],
	[ rest => {}, { base_url => [], auth => 5, http => { allow_hosts => { a => 1 } } }, '' ],
	[ rest => {}, { base_url => 'https://a.example', auth => [], http => [] }, 'https://a.example' ],
	[ rest => {}, undef, '' ],
	[ rest => [], { base_url => 'https://a.example' }, '' ])
{
	my ($kind, $config, $definition, $is) = @$_;
	is($f->sql("SELECT array_to_string(_flohsync.origins('$kind', " . Flohsync::jsonb($config) . ', ' . (defined $definition ? Flohsync::jsonb($definition) : 'NULL') . "), ' ')"), $is,
		"origins of $kind " . json_text($config) . ' ' . json_text($definition));
}
is($f->sql('SELECT array_length(_flohsync.origins(NULL, NULL, NULL), 1)'), '', 'of nothing: none');

#
# Both kinds that send: the address moves
#
my %get = (resource => { get => { path => '/users/{{external_id}}' } });
my %make = (
	command => sub { my ($name) = @_; $f->connector($name); return sub { my ($origin, $path) = @_; return (config => { url => "$origin/" . ($path // ''), commands => [qw(listUsers getUser)] }) } },
	rest => sub {
		my ($name) = @_;
		$f->rest($name, 'link', auth => { type => 'bearer', token => '{{secret.token}}' }, %get);
		return sub { my ($origin, $path) = @_; return (config => { host => host($origin) }, definition => $f->definition('link' . ($path ? ";$path" : ''), auth => { type => 'bearer', token => '{{secret.token}}' }, %get)) };
	});
for my $kind (sort keys %make)
{
	my $to = $make{$kind}->($kind);
	my $token = canary();

	set($kind, 'token', $token);
	is(row($kind, 'token'), "t|$A", "$kind: the view tells where the secret may go");
	sends($kind, $A, $token, "$kind, set for A");
	my $r = update($kind, $to->($A, 'many'));
	ok($r->{ok} && $r->{text} !~ /WARNING/, "$kind: another path is no other address") or diag($r->{text});
	sends($kind, $A, $token, "$kind, at another path");

	$r = update($kind, $to->($B));
	like($r->{text}, qr/WARNING:.*secrets of connector "$kind" must be set again: token.*DETAIL:.*an origin other than \Q$B\E.*HINT:.*set_secret/s, "$kind: update_connector warns when the origin changes");
	is(row($kind, 'token'), "f|$A", "$kind: the view says that it is not usable");
	refuses($kind, moved($A, $B), "$kind, moved to B");
	is(update($kind, description => 'x')->{text}, '', "$kind: a change of something else does not warn");

	set($kind, 'token', my $new = canary());
	is(row($kind, 'token'), "t|$B", "$kind: set again it is usable");
	sends($kind, $B, $new, "$kind, set for B");
	update($kind, $to->($A));
	refuses($kind, moved($B, $A), "$kind, back at A");
	update($kind, $to->($B));
	sends($kind, $B, $new, "$kind, at B again");

	# Whoever writes to the table gets no further.
	my %settings = $to->($C);
	$f->sql('UPDATE flohsync.connector_definition SET config = ' . Flohsync::jsonb($settings{config}) . " WHERE name = '$kind'");
	refuses($kind, moved($B, $C), "$kind, moved by a statement");
	is(row($kind, 'token'), "f|$B", "$kind, moved by a statement: the view tells");
	update($kind, $to->($B));

	update($kind, name => "$kind-2");
	sends("$kind-2", $B, $new, "$kind, renamed");
	update("$kind-2", name => $kind);
	# Rotation leaves it bound to what it was bound to.
	is($f->sql('SELECT flohsync.rotate_secrets() > 0'), 't', "$kind: rotated");
	sends($kind, $B, $new, "$kind, rotated");
	update($kind, $to->($A));
	$f->sql('SELECT flohsync.rotate_secrets()');
	refuses($kind, moved($B, $A), "$kind, rotated while void");
	is(row($kind, 'token'), "f|$B", "$kind, rotated while void: as before");
}

# Another kind at the same address
{
	my $token = canary();
	$f->connector('kinds');
	set('kinds', 'token', $token);
	$f->sql('UPDATE flohsync.connector_definition SET kind = \'rest\', config = \'{}\', definition = ' . Flohsync::jsonb($f->definition('link', base_url => "$A/rest/link", auth => { type => 'bearer', token => '{{secret.token}}' }, %get)) . " WHERE name = 'kinds'");
	refuses('kinds', qr/must be set again.*kind has changed from command to rest/, 'another kind');
	is(row('kinds', 'token'), "f|$A", 'another kind: the view tells');
	set('kinds', 'token', $token);
	sends('kinds', $A, $token, 'another kind, set again');
}

#
# Several origins: those of base_url and token_url, and what links may lead to
#
{
	my $secret = canary();
	my @auth = (client_id => 'client', client_secret => $secret);
	$other->up('auth', kind => 'token', @auth);
	my $definition = sub {
		my ($base, $token, @more) = @_;
		return $f->definition('link', base_url => "$base/rest/link", %get, @more,
			auth => { type => 'oauth2_client_credentials', token_url => "$token/oauth/token", client_id => 'client', client_secret => '{{secret.client_secret}}' });
	};
	$f->rest('oauth', '', definition => $definition->($A, $B));
	set('oauth', 'client_secret', $secret);
	is(row('oauth', 'client_secret'), join('|', 't', join ' ', sort $A, $B), 'two origins: bound to both');
	clear();
	$f->sync_ok('oauth', 'user', 'two origins: a run');
	like(json_text([ $other->requests ]), qr/Basic /, 'two origins: one gets the secret for a token');
	like(json_text([ $f->requests ]), qr/Bearer issued-/, 'two origins: the other gets the token');
	unlike(json_text([ $f->requests ]), qr/Basic|\Q$secret\E/, 'two origins: and not the secret');

	# The process that has a token kept must not hand it out either: test_connector is asked twice in one session.
	$f->sql("SELECT flohsync.test_connector('oauth')");
	update('oauth', definition => $definition->($C, $B));
	refuses('oauth', moved($A, $C, 'client_secret'), 'two origins, base_url moved');
	update('oauth', definition => $definition->($A, $C));
	refuses('oauth', moved($B, $C, 'client_secret'), 'two origins, token_url moved');
	my $r = update('oauth', definition => $definition->($A, $A));
	unlike($r->{text}, qr/WARNING/, 'two origins, one is gone: no warning');
	is((row('oauth', 'client_secret') =~ /^(.)/)[0], 't', 'two origins, one is gone: usable');
	$f->up('auth', kind => 'token', @auth);
	clear();
	$f->sync_ok('oauth', 'user', 'two origins, one is gone: a run');
	is(asked($B), 0, 'two origins, one is gone: it is not asked');
	$f->up('auth', kind => 'none');
	$r = update('oauth', definition => $definition->($A, $B, http => { allow_hosts => [ 'files.example', '127.0.0.1:1' ] }));
	like($r->{text}, qr/must be set again: client_secret/, 'a host that links may lead to is one more: a warning');
	refuses('oauth', qr/must be set again.*address has come to include https:\/\/127\.0\.0\.1:1, https:\/\/files\.example/, 'a host that links may lead to is one more');
	set('oauth', 'client_secret', $secret);
	clear();
	$f->sync_ok('oauth', 'user', 'set again with it: a run');
	update('oauth', definition => $definition->($A, $B));
	$f->sync_ok('oauth', 'user', 'and without it: a run');
	$other->up('auth', kind => 'none');
}

# Many of them: the message stays a message
{
	my $definition = sub { return $f->definition('link', base_url => "$A/rest/link", %get, auth => { type => 'bearer', token => '{{secret.token}}' }, http => { allow_hosts => [ map { ('a' x 50 . '.') x 4 . $_ . 'h.example' } 1 .. $_[0] ] }) };
	$f->rest('many', '', definition => $definition->(1), secrets => { token => canary() });
	update('many', definition => $definition->(20));
	refuses('many', qr/secret "token" must be set again with flohsync\.set_secret\(\).* and 18 more$/m, 'twenty origins');
}

# Links to the next page, and redirects, that lead to another origin
for my $auth ({ type => 'bearer', token => '{{secret.token}}' }, { type => 'api_key', query => 'key', value => '{{secret.token}}' }, { type => 'basic', username => 'u', password => '{{secret.token}}' })
{
	my $name = "link-$auth->{type}";
	$f->rest($name, 'link;other', auth => $auth, secrets => { token => canary() }, list => { page_size => { param => 'limit', default => 2 } });
	$f->up('options', origin => $B);
	clear();
	$f->ends_with($name, 'user', 'blocked_address', qr/neither the origin of base_url, http:\/\/127\.0\.0\.1:\d+, nor in http\.allow_hosts/, "$auth->{type}, a link to B");
	cmp_ok(asked($A), '>', 0, "$auth->{type}, a link to B: A was asked");
	is(asked($B), 0, "$auth->{type}, a link to B: B was not");
	$f->up('options', origin => '');
	$f->fault('redirect', type => 'user', code => $_, location => "$B/rest/link/users", times => -1), $f->sync($name, 'user'), $f->up('heal') for 302, 307;
	is(asked($B), 0, "$auth->{type}, redirected to B: B was not asked");
}

# Whatever config and definition seem to say, the address of the request counts: this one comes out of the secret itself.
{
	$f->rest('guard', 'link', auth => { type => 'bearer', token => '{{secret.token}}' }, %get, secrets => { token => host($B) });
	$f->sql('SET session_replication_role = replica; UPDATE flohsync.connector_definition SET definition = jsonb_set(definition, \'{base_url}\', \'"http://{{secret.token}}/rest/link"\') WHERE name = \'guard\'; RESET session_replication_role');
	is($f->sql("SELECT array_length(origins, 1) FROM flohsync.connector_definition WHERE name = 'guard'"), '', 'an address that nobody can tell: it has no origin');
	refuses('guard', qr/is not sent to http:\/\/\S+, for which it was not set|is not allowed t?here/, 'an address that nobody can tell');
}

#
# Rows that are not what they were
#
{
	my ($one, $two) = (canary(), canary());
	$f->connector('row1');
	$f->connector('row2');
	set('row1', 'token', $one);
	set('row1', 'spare', canary());
	set('row1', 'webhook', canary());
	set('row2', 'token', $two);
	$f->sql('CREATE TABLE public.kept AS SELECT * FROM _flohsync.connector_secret');
	my $id = $f->connector_id('row1');
	my $target = "s WHERE s.connector_id = $id AND s.name = 'token'";
	my $copied = "FROM public.kept k WHERE s.connector_id = $id AND s.name = 'token' AND k.connector_id =";
	my %change = (
		'the row of another connector' => "UPDATE _flohsync.connector_secret s SET ciphertext = k.ciphertext, kind = k.kind, origins = k.origins $copied " . $f->connector_id('row2') . " AND k.name = 'token'",
		'the row of another name' => "UPDATE _flohsync.connector_secret s SET ciphertext = k.ciphertext, kind = k.kind, origins = k.origins $copied $id AND k.name = 'spare'",
		'that of webhooks' => "UPDATE _flohsync.connector_secret s SET ciphertext = k.ciphertext, kind = k.kind, origins = k.origins $copied $id AND k.name = 'webhook'",
		map { ("the columns: $_" => "UPDATE _flohsync.connector_secret s SET $_ WHERE s.connector_id = $id AND s.name = 'token'") }
		  "origins = ARRAY['$B']", "origins = ARRAY['$A', '$B']", "origins = '{}'", "origins = ARRAY[NULL]", "origins = ARRAY['$A', NULL]", 'origins = NULL', "origins = ARRAY[ARRAY['$A']]",
		"kind = 'rest'", 'kind = NULL', "kind = '', origins = ARRAY['command', '$A']", "kind = 'command" . pack('C', length $A) . "$A'", 'kind = NULL, origins = NULL', "format = 1", "key_id = 'x'");
	for my $how (sort keys %change)
	{
		$f->sql($change{$how});
		for my $moved (0, 1)
		{
			# Where the changed row says that it may go
			$f->sql("UPDATE flohsync.connector_definition SET config = jsonb_set(config, '{url}', '\"$B/\"') WHERE name = 'row1'") if $moved;
			clear();
			my ($ok, $r) = $f->sync('row1', 'user');
			ok(!$ok && $r->{message} =~ /secret "token" cannot be decrypted/, "$how, " . ($moved ? 'moved to B' : 'at A') . ': no secret') or diag($ok ? 'it ran' : $r->{text});
			is($f->last_run('row1', 'user')->{error_class}, 'secret', "$how: its class");
			is(join(' ', map { asked($_) } $A, $B, $C), '0 0 0', "$how: nothing is sent");
		}
		$f->sql('DELETE FROM _flohsync.connector_secret; INSERT INTO _flohsync.connector_secret SELECT * FROM public.kept');
		$f->sql("UPDATE flohsync.connector_definition SET config = jsonb_set(config, '{url}', '\"$A/\"') WHERE name = 'row1'");
	}
	sends('row1', $A, $one, 'a row as it was');
}

#
# What verifies webhooks
#
{
	my ($hook, $before, $token) = map { canary() } 1 .. 3;
	$f->connector('hooks');
	set('hooks', 'webhook', $hook);
	set('hooks', 'webhook_previous', $before);
	set('hooks', 'token', $token);
	set('hooks', 'Webhook', my $capital = canary());
	my $body = '{"action": "updated", "resourceType": "user", "resourceId": "hook", "data": {"displayName": "X"}}';
	my $receive = sub { my ($secret) = @_; return $f->try_sql('SELECT flohsync.receive_webhook(\'hooks\', ' . literal($body) . ", '{\"X-Webhook-Signature\": \"" . hmac_sha256_hex($body, $secret) . "\"}')") };
	is(row('hooks', 'webhook'), 't|', 'the secret of webhooks is bound to no address');
	is($f->sql("SELECT origins IS NULL FROM flohsync.connector_secrets WHERE connector = 'hooks' AND name = 'webhook_previous'"), 't', 'nor is the one before');
	for my $when ('at A', 'at B')
	{
		ok($receive->($hook)->{ok}, "webhooks, $when: the one verifies");
		ok($receive->($before)->{ok}, "webhooks, $when: the one before verifies");
		is($receive->($_)->{state}, '28000', "webhooks, $when: another secret of the connector does not") for $token, $capital;
		my $r = update('hooks', config => { url => "$B/", commands => [qw(listUsers getUser)] });
		like($r->{text}, qr/must be set again: Webhook, token\n/, 'webhooks: the warning does not name them') if $when eq 'at A';
	}
	is(row('hooks', 'webhook'), 't|', 'the secret of webhooks is usable still');
	for my $from ('token', 'Webhook')
	{
		$f->sql('CREATE TABLE public.hooks AS SELECT * FROM _flohsync.connector_secret');
		$f->sql("DELETE FROM _flohsync.connector_secret WHERE name = 'webhook'; UPDATE _flohsync.connector_secret SET name = 'webhook' WHERE name = '$from' AND connector_id = " . $f->connector_id('hooks'));
		is($receive->($_)->{state}, '28000', "a row of $from under the name of that of webhooks verifies nothing") for $token, $capital;
		$f->sql('DELETE FROM _flohsync.connector_secret; INSERT INTO _flohsync.connector_secret SELECT * FROM public.hooks; DROP TABLE public.hooks');
	}

	for my $name (qw(webhook webhook_previous))
	{
		for my $auth ({ type => 'bearer', token => "{{secret.$name}}" }, { type => 'basic', username => "{{secret.$name}}", password => '{{secret.x}}' })
		{
			my $definition = $f->definition('link', auth => $auth);
			my $where = $auth->{token} ? 'token' : 'username';
			like($f->sql('SELECT flohsync.validate_definition(' . Flohsync::jsonb($definition) . ')'), qr/"message": "secret \\"$name\\" verifies webhooks, and is never sent", "pointer": "\/auth\/$where"/, "a definition with $name in $where is at fault");
			$f->fails_like("SELECT flohsync.create_connector('never', 'rest', '{\"host\": \"x.example\"}', " . Flohsync::jsonb($definition) . ')', '22023', qr/secret "$name" verifies webhooks/, "a connector with $name in $where is refused");
		}
		like($f->sql('SELECT flohsync.validate_definition(' . Flohsync::jsonb($f->definition('link', headers => { 'X-A' => "{{secret.$name}}" })) . ')'), qr/verifies webhooks/, "nor may a header have $name");
		is($f->sql('SELECT flohsync.validate_definition(' . Flohsync::jsonb($f->definition('link', headers => { 'X-A' => "{{secret.${name}s}}" })) . ')'), '[]', "a name like $name is one like any other");
		# Written past the checks
		$f->rest("never-$name", 'link', auth => { type => 'bearer', token => '{{secret.x}}' }, %get, secrets => { x => canary(), $name => canary() });
		$f->sql("SET session_replication_role = replica; UPDATE flohsync.connector_definition SET definition = replace(definition::text, 'secret.x', 'secret.$name')::jsonb WHERE name = 'never-$name'; RESET session_replication_role");
		refuses("never-$name", qr/secret "$name" verifies webhooks, and is never sent/, "$name in a definition that was not checked");
	}
	# kind command sends "token", and that alone
	clear();
	$f->sql("SELECT flohsync.set_secret('hooks', 'token', NULL)");
	$f->sync_ok('hooks', 'user', 'a connector of kind command without a token');
	unlike(json_text([ $other->requests ]), qr/canary/, 'sends none of its secrets for webhooks');
}

#
# What is left in memory when a secret was used, or was not: nothing
#
SKIP:
{
	# Its own memory, as the server sees it; the needle is not in the query.  It may move meanwhile.
	my $region = sub {
		my ($from, $to) = @_;
		my $r = $f->try_sql("SELECT encode(pg_read_binary_file('/proc/self/mem', x'$from'::bigint, x'$to'::bigint - x'$from'::bigint), 'hex')");
		return $r->{ok} ? pack 'H*', $r->{out} : undef;
	};
	my $memory = sub {
		for (1 .. 20)
		{
			my @regions = map { /^([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ \S+\s*(?!\[v)/ ? $region->($1, $2) : () } split /\n/, $f->sql("SELECT pg_read_file('/proc/self/maps')");
			return join '', @regions unless grep { !defined } @regions;
		}
		die 'the memory of the session moves all the time';
	};
	skip 'the sanitizers take memory of their own', 16 if $ENV{FLOHSYNC_SANITIZED};
	skip 'no /proc', 16 unless $^O eq 'linux' && -r '/proc/self/maps';
	my $secret = canary();
	$f->connector('memory');
	# From another session, which ends
	$f->node->safe_psql('postgres', 'SELECT flohsync.set_secret(\'memory\', \'token\', ' . literal("$secret not sendable") . ')');
	$f->disconnect('postgres');
	my $t = $f->json("SELECT flohsync.test_connector('memory')");
	like($t->{error}, qr/cannot be sent in a header/, 'a secret that cannot be sent');
	$f->try_sql("SELECT flohsync.cache_get_or_fetch('memory', 'user', 'x')");
	my $all = $memory->();
	ok(index($all, 'listUsers') >= 0, 'there is memory to look at, with what the session had to do with');
	is(index($all, $secret), -1, 'it is in no memory of the session afterwards');
	$f->sql("UPDATE flohsync.connector_definition SET config = jsonb_set(config, '{url}', '\"$B/\"') WHERE name = 'memory'");
	$f->sql("SELECT flohsync.test_connector('memory')");
	$f->sql('SELECT flohsync.rotate_secrets()');
	is(index($memory->(), $secret), -1, 'nor is one that was refused, or encrypted anew');

	my %oauth = (type => 'oauth2_client_credentials', token_url => "$A/oauth/token", client_id => 'u', client_secret => '{{secret.token}}');
	my %used = (
		command => undef, bearer => { type => 'bearer', token => '{{secret.token}}' }, basic => { type => 'basic', username => 'u', password => '{{secret.token}}' },
		query => { type => 'api_key', query => 'key', value => '{{secret.token}}' }, 'oauth-basic' => \%oauth, 'oauth-body' => { %oauth, client_auth => 'body' });
	for my $how (sort keys %used)
	{
		my $used = canary();
		my $name = "used-$how";
		$used{$how} ? $f->rest($name, 'link', auth => $used{$how}) : $f->connector($name);
		$f->up('auth', kind => 'token', client => $used{$how}{client_auth} // 'basic', client_id => 'u', client_secret => $used) if $how =~ /oauth/;
		$f->node->safe_psql('postgres', "SELECT flohsync.set_secret('$name', 'token', '$used')");
		$f->disconnect('postgres');
		$t = $f->json("SELECT flohsync.test_connector('$name')");
		ok($t->{ok}, "$how: a secret that was sent") or diag(json_text($t));
		$all = $memory->();
		my @forms = ($used, map { substr $_, 0, 24 } encode_base64("u:$used", ''));
		is(join(' ', grep { index($all, $_) >= 0 } @forms), '', "$how: it is in no memory of the session afterwards");
		$f->up('auth', kind => 'none');
	}
}

$f->sql("SELECT flohsync.drop_connector('$_')") for qw(rest row1);
is($f->sql("SELECT count(*) FROM flohsync.connector_secrets WHERE connector IN ('rest', 'row1')"), 0, 'secrets go with their connector');
$f->invariants;
$f->no_crash;
done_testing();
