# An upstream that sends back what it was sent: in whatever way it writes that
# down, and whoever asked (a run, a test, a single record, the rest of a partial
# one, a token, a webhook), no message, no table and no line of the log has it.
# And what an answer is that cannot be used is said all the same.
use strict;
use warnings;

use Digest::SHA qw(hmac_sha256_hex);
use Encode qw(encode_utf8 decode_utf8);
use Flohsync;
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Utils;
use Rest;
use Test::More;

my $f = Rest->new(records => 'user=45,group=5', conf => "log_min_messages = debug1\nlog_error_verbosity = verbose\n");
my @tails;

# Secrets look like escapes themselves, and end with what nothing else has.
sub tail { my $t = join '', map { ('a' .. 'z', 'A' .. 'Z', 2 .. 9)[ rand 60 ] } 1 .. 18; push @tails, $t; return $t }
sub ascii { return '%25-%41%5c\\u0041\\\\"</&amp;+=%zz-' . tail() }
sub wide { return "%25 %41\\n\\\\\"</&amp;+ \x{fc}\x{20ac}\x{1f600}%-" . tail() }

#
# How a text is written down
#
sub by_char { my ($how) = @_; return sub { return join '', map { $how->($_) } split //, $_[0] } }
sub units { my ($c, $format) = @_; my $n = ord $c; return join '', map { sprintf $format, $_ } $n < 0x10000 ? $n : (0xd800 + (($n - 0x10000) >> 10), 0xdc00 + (($n - 0x10000) & 0x3ff)) }
sub json { return json_text($_[0]) =~ s/^"|"$//gr }
sub percent { my ($c, $format) = @_; return join '', map { sprintf $format, ord } split //, encode_utf8($c) }
my %html = ('&' => '&amp;', '<' => '&lt;', '>' => '&gt;', '"' => '&quot;');
my %written = (
	'as it is' => sub { encode_utf8($_[0]) },
	'in JSON' => sub { json($_[0]) },
	'in JSON with slashes' => sub { json($_[0]) =~ s{/}{\\/}gr },
	'in JSON twice' => sub { json(decode_utf8(json($_[0]))) },
	'in units' => by_char(sub { units($_[0], '\u%04x') }),
	'in large units' => by_char(sub { units($_[0], '\u%04X') }),
	'percent-encoded' => by_char(sub { $_[0] =~ /[A-Za-z0-9._~-]/ ? $_[0] : percent($_[0], '%%%02X') }),
	'percent-encoded in small letters' => by_char(sub { $_[0] =~ /[A-Za-z0-9._~-]/ ? $_[0] : percent($_[0], '%%%02x') }),
	'percent-encoded as a whole' => by_char(sub { percent($_[0], '%%%02X') }),
	'as a form' => by_char(sub { $_[0] eq ' ' ? '+' : $_[0] =~ /[A-Za-z0-9._~-]/ ? $_[0] : percent($_[0], '%%%02X') }),
	'in HTML' => by_char(sub { encode_utf8($html{ $_[0] } // $_[0]) }),
	'in HTML by numbers' => by_char(sub { sprintf '&#%d;', ord $_[0] }),
	'in base64' => sub { encode_base64('user:' . encode_utf8($_[0]), '') },
	'in upper case' => sub { uc encode_utf8($_[0]) });

# Is the end of one of them in a text, however it is written?
sub shown
{
	my ($text) = @_;
	my @found;
	my $read = $text =~ s/%(?:25)+/%/gr =~ s/%([0-9a-f]{2})/chr hex $1/gier =~ s/\\+u00([0-9a-f]{2})/chr hex $1/gier
	  =~ s/&#x0*([0-9a-f]{2});/chr hex $1/gier =~ s/&#(\d{2,3});/chr $1/ger;
	for my $tail (@tails)
	{
		my $at = index lc $read, lc $tail;
		push @found, substr $read, $at < 60 ? 0 : $at - 60, 100 if $at >= 0;
		for my $before (0 .. 2)
		{
			$at = index $text, substr encode_base64(('x' x $before) . $tail, ''), $before + 1, 18;
			push @found, 'base64: ' . substr $text, $at < 60 ? 0 : $at - 60, 100 if $at >= 0;
		}
	}
	return join "\n", @found;
}
sub hides
{
	my ($text, $name, $says) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(shown($text), '', "$name: is not told");
	like($text, $says // qr/\*\*\*/, "$name: though it was said");
	return;
}

# Everybody who asks an upstream for something
sub asked
{
	my ($connector, $name, %o) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my (undef, $r) = $f->sync($connector, 'user');
	my $run = $f->last_run($connector, 'user');
	hides(json_text([ $run, $f->status($connector, 'user'), $r ]), "$name, a run", $o{says});
	hides(json_text($f->json('select flohsync.test_connector(' . literal($connector) . ')')), "$name, a test", $o{says});
	my $one = $f->try_sql('select flohsync.cache_get_or_fetch(' . literal($connector) . ", 'user', 'user-0000001')");
	hides($one->{text}, "$name, one record", $o{says});
	like($one->{text}, qr/DETAIL:  Error class: $run->{error_class}\./, "$name: with the class that a run has");
	return $run;
}
sub answers { my ($body, %o) = @_; $f->up('heal'); $f->fault('body', times => -1, command => 'any', code => 200, content_type => 'application/json', %o, body => $body); return }

#
# Kind command
#
my $token = ascii();
$f->connector('c', headers => { 'X-Tenant' => 'acme', 'X-Api-Key' => my $key = ascii() });
$f->secret('c', 'token', $token);
for my $how (sort keys %written)
{
	my $echo = $written{$how}->($token);

	answers("no such token: $echo", code => 401);
	is(asked('c', "401, $how")->{error_class}, 'auth', 'is a matter of auth') if $how eq 'as it is' || $how =~ /base64|JSON|HTML/;
	answers(qq({"success":false,"error":{"message":"no such token: $echo!"}})) if $how !~ /as it is|HTML$|base64|upper/;
	answers("no such token: $echo!") if $how =~ /as it is|HTML$|base64|upper/;
	asked('c', "200, $how");
	answers("<html>$echo</html>", content_type => 'text/html');
	asked('c', "a page, $how");
}
answers('key ' . $written{'in JSON'}->($key), code => 403);
asked('c', 'a header of the configuration');
answers('cut: ' . substr($token, 0, -9), code => 403);
asked('c', 'the beginning of a token');
$f->up('heal');
$f->fault('redirect', times => -1, command => 'any', code => 302, location => "http://$tails[0].example/$tails[0]");
$f->secret('c', 'host', $tails[0]);
asked('c', 'a redirect to a host of that name');
answers('{}', content_type => "text/$tails[0]");
asked('c', 'a content type of that name');

# What is set aside is kept, without it.
$f->up('heal');
$f->fault('record', times => -1, page => 1, record => 1, body => '{"externalId":"e","email":7,"displayName":"' . $written{'in JSON'}->($token) . '"}');
$f->sync_ok('c', 'user', 'a pass with a record that has the token in it');
hides($f->sql('select payload from flohsync.sync_error where run_id = ' . $f->last_run('c', 'user')->{id}), 'a record that was set aside', qr/"displayName":"\*\*\*"/);

#
# Kind rest
#
$f->up('heal');
my %get = (resource => { get => { path => '/users/{{external_id}}' } });
my $bearer = ascii();
my $password = wide();
my $parameter = wide();
$f->rest('bearer', 'link', %get, auth => { type => 'bearer', token => '{{secret.t}}' }, secrets => { t => $bearer });
$f->rest('basic', 'link', %get, auth => { type => 'basic', username => 'user', password => '{{secret.p}}' }, secrets => { p => $password });
$f->rest('query', 'link', %get, auth => { type => 'api_key', query => 'key', value => '{{secret.k}}' }, secrets => { k => $parameter });
for my $how (sort keys %written)
{
	for my $case ([ bearer => $bearer ], [ basic => $password ], [ query => $parameter ])
	{
		my ($name, $secret) = @$case;
		next if $how =~ /upper/ && $secret ne $bearer;    # of what is not ASCII
		answers('got ' . $written{$how}->($secret), code => 400);
		asked($name, "$name, 400, $how");
	}
	answers('{"ok":false,"error":"' . $written{$how}->($bearer) . '"}');
	asked('bearer', "bearer, no list, $how");
}
$f->up('heal');
$f->fault('header', times => -1, name => 'Link', value => "<http://$tails[0].example/>; rel=\"next\"");
$f->secret('bearer', 'host', $tails[0]);
$f->sync('bearer', 'user');
hides(json_text($f->last_run('bearer', 'user')), 'a link to a host of that name');

# Records that are asked for because only what has changed came
$f->up('heal');
$f->rest('delta', 'delta', %get, auth => { type => 'bearer', token => '{{secret.t}}' }, secrets => { t => $bearer }, list => {
	incremental => { type => 'delta_link', path => '$."@odata.deltaLink"', start_path => '/users/delta' }, gone => '$."@removed"' });
$f->sync_ok('delta', 'user', 'delta: a full run');
$f->configure('delta', 'user', strategy => 'incremental');
$f->sync_ok('delta', 'user', 'delta: from the start');
for my $case ([ 'an error', 403, "no: $bearer" ], [ 'no JSON', 200, "no: $bearer" ])
{
	my ($name, $code, $body) = @$case;
	$f->up('heal');
	$f->sync_ok('delta', 'user', "delta, $name: a run that leaves a link");
	my $from = -s $f->node->logfile;
	$f->up('add', count => 1);
	$f->fault('body', times => -1, command => 'get', code => $code, body => $body);
	$f->sync('delta', 'user');
	hides(slurp_file($f->node->logfile, $from), "delta, $name", qr/could not fetch a full record: .*\*\*\*/);
}
$f->up('heal');

#
# Token endpoints
#
my $client_secret = wide();
my %oauth = (type => 'oauth2_client_credentials', token_url => 'http://{{config.host}}/oauth/token', client_id => 'client', client_secret => '{{secret.s}}');
$f->rest("t$_", 'link', %get, auth => { %oauth, client_auth => $_ }, secrets => { s => $client_secret }) for qw(basic body);
sub token_answers { my ($body, %o) = @_; $f->up('heal'); $f->fault('body', type => 'token', times => -1, command => 'any', content_type => 'application/json', code => 400, %o, body => $body); return }
for my $how (sort keys %written)
{
	next if $how =~ /upper/;
	my $echo = $written{$how}->($client_secret);
	my $in_json = $how =~ /as it is|HTML$/ ? $written{'in JSON'}->(decode_utf8($echo)) : $echo;

	token_answers(qq({"error":"invalid_client","error_description":"who is $in_json?"}));
	asked($_, "token endpoint, $_, $how", says => qr/status 400: invalid_client: who is .*\*\*\*/) for qw(tbasic tbody);
	is($f->last_run('tbody', 'user')->{error_class}, 'auth', "token endpoint, $how: is a matter of auth");
	token_answers("got $echo", content_type => 'text/plain', code => 403);
	asked('tbasic', "token endpoint, plain text, $how", says => qr/status 403 \(text\/plain\): got .*\*\*\*/);
	token_answers("<html>got $echo</html>", content_type => 'text/html', code => 200);
	asked('tbody', "token endpoint, a page, $how", says => qr/no token at .*text\/html and begins with: <html>got .*\*\*\*/);
}
token_answers(encode_base64(join(':', map { $written{'percent-encoded'}->($_) } 'client', $client_secret), ''), content_type => 'text/plain');
asked('tbasic', 'token endpoint, the very header');
token_answers('{"error":"bad_verification_code","error_description":"It has expired."}', code => 200);
asked('tbody', 'token endpoint, an error with status 200', says => qr/no token at \$\.access_token: bad_verification_code: It has expired\./);
# A token where none is looked for is one all the same.
my $stray = tail();
token_answers(qq({"accessToken":"$stray","expiresIn":3600}), code => 200);
asked('tbody', 'token endpoint, a token elsewhere', says => qr/no token at \$\.access_token, but \\?"accessToken\\?", \\?"expiresIn\\?"/);
token_answers("access_token=$stray&expires_in=1", code => 200, content_type => 'application/x-www-form-urlencoded');
asked('tbody', 'token endpoint, a token in a form', says => qr/it is not JSON, but application\/x-www-form-urlencoded/);
token_answers(json_text($stray), code => 200);
asked('tbody', 'token endpoint, a token alone', says => qr/contains no token at/);

# The token itself, and the JWT that it is got for
token_answers(qq({"access_token":"$stray","expires_in":3600}), code => 200);
$f->fault('body', type => 'user', times => -1, command => 'any', code => 403, body => "what is $stray?");
asked('tbody', 'an access token');
my $dir = PostgreSQL::Test::Utils::tempdir();
run_log([ 'openssl', 'genrsa', '-out', "$dir/key.pem", '2048' ], '>', "$dir/openssl.log", '2>&1') or die 'openssl';
my $pem = slurp_file("$dir/key.pem");
push @tails, substr((split /\n/, $pem)[3], 4, 18);
$f->rest('jwt', 'link', %get, auth => { type => 'jwt_exchange', token_url => 'http://{{config.host}}/oauth/token', alg => 'RS256', key => '{{secret.key}}', iss => 'me', scope => 'all' }, secrets => { key => $pem });
token_answers(json_text({ error => 'bad_key', error_description => "not $pem" }));
asked('jwt', 'token endpoint, a private key', says => qr/bad_key: not \*\*\*/);

token_answers(qq({"access_token":"$stray and more"}), code => 200);
asked('tbasic', 'token endpoint, a token with a blank', says => qr/contains a token that cannot be sent in a header/);

# Whatever was sent, as it was sent
$f->rest('tnew', 'link', %get, auth => { %oauth, client_auth => 'body', client_id => 'another' }, secrets => { s => $client_secret });
for my $case (
	[ c => 'authorization' ], [ c => 'x-api-key' ], [ bearer => 'authorization' ], [ basic => 'authorization' ], [ query => 'uri' ],
	[ tbasic => 'authorization', type => 'token' ], [ tnew => 'body', type => 'token' ], [ jwt => 'body', type => 'token' ])
{
	my ($name, $of, %o) = @$case;
	for my $as ([ code => 401, json => 0 ], [ code => 401 ], [ code => 200 ], [ code => 200, json => 0, content_type => 'text/html' ])
	{
		my $from = -s $f->node->logfile;
		$f->up('heal');
		$f->fault('echo', times => -1, command => 'any', of => $of, @$as, %o);
		# A message has too little room for all of a JWT.
		asked($name, "$name sees its $of again, @$as", says => $name eq 'jwt' ? qr/assertion=/ : qr/\*\*\*/);
		# That of a JWT is made anew each time: its last part alone is of use to others.
		unlike(slurp_file($f->node->logfile, $from), qr/eyJ[\w-]+\.[\w-]+\.[\w-]{8}/, "$name: no signed JWT is told");
	}
}

#
# Webhooks: what they say is not repeated, whoever said it.
#
$f->secret('c', 'webhook', my $hook_secret = wide());
for my $what (qw(resourceType action timestamp resourceId))
{
	for my $text ($token, $hook_secret)
	{
		my $body = json_text({ action => 'updated', resourceId => 'x', resourceType => 'user', data => { email => 7 }, $what => $text });
		my $r = $f->try_sql("select flohsync.receive_webhook('c', '\\x" . unpack('H*', $body) . "', " . Flohsync::jsonb({ 'X-Webhook-Signature' => hmac_sha256_hex($body, encode_utf8($hook_secret)) }) . ')');
		hides($r->{text}, "a webhook with a secret as $what", qr/webhook rejected/);
	}
}

#
# What an answer is that cannot be used
#
$f->up('heal');
$f->rest('plain', 'link', %get, list => { records => '$.members[*]' });
my $page = '<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in</body></html>';
for my $case (
	[ 'an error with status 200', '{"ok": false, "error": "invalid_auth"}', {}, qr/^the answer has no list of records at \$\.members; the answer is application\/json and begins with: \{"ok": false, "error": "invalid_auth"\}$/ ],
	[ 'a login page', $page, { content_type => 'text/html; charset=utf-8' }, qr/^upstream's answer cannot be read: the answer is not JSON: .*; the answer is text\/html; charset=utf-8 and begins with: \Q$page\E/ ],
	[ 'nothing', '', {}, qr/; the answer is application\/json and is empty/ ],
	[ 'a text', '"maintenance"', { content_type => 'text/plain' }, qr/neither a JSON object nor an array; the answer is text\/plain and begins with: "maintenance"$/ ],
	[ 'something else', '{"members":{"error":"no"}}', {}, qr/begins with: \{"members":\{"error":"no"\}\}$/ ],
	[ 'a long one', '{"x":"' . encode_utf8("\x{20ac}" x 500) . '"}', {}, qr/begins with: \{"x":"(?:\xe2\x82\xac){194}$/ ])
{
	my ($name, $body, $o, $says) = @$case;
	answers($body, %$o);
	$f->sync('plain', 'user');
	my $run = $f->last_run('plain', 'user');
	is($run->{error_class}, 'bad_answer', "$name is a bad answer");
	like(encode_utf8($run->{error}), $says, "$name is shown");
}
answers($page, content_type => 'text/html');
$f->sync('c', 'user');
like($f->last_run('c', 'user')->{error}, qr/cannot be read: .*; the answer is text\/html and begins with: <!DOCTYPE html>/, 'kind command shows it, too');
answers('{"ok":false,"error":{"code":7}}');
$f->sync('c', 'user');
like($f->last_run('c', 'user')->{error}, qr/does not say "success": true; the answer is application\/json and begins with: \{"ok":false,"error":\{"code":7\}\}/, 'and what gives no reason');

#
# Everywhere
#
is(shown(slurp_file($f->node->logfile)), '', 'no line of the log has a secret');
run_log([ 'pg_dump', '--inserts', '-f', "$dir/dump.sql", '-d', $f->node->connstr('postgres') ]) or die 'pg_dump';
# What stands in a configuration is there in clear text, and readers do not see it.
my $dump = join "\n", grep { !/^INSERT INTO flohsync\.connector_definition / } split /\n/, slurp_file("$dir/dump.sql");
is(shown($dump), '', 'and no table');
isnt(shown($dump . $written{$_}->($token)), '', "they would be found $_") for sort keys %written;
$f->invariants;
$f->no_crash;
done_testing();
