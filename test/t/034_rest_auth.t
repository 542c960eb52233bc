# Connectors of kind rest: logging in, tokens, and secrets that are seen nowhere.
use strict;
use warnings;

use Flohsync;
use Rest;
use Test::More;
use PostgreSQL::Test::Utils ();

my $f = Rest->new(conf => "log_min_messages = debug1\nlog_error_verbosity = verbose\n");
my $nr = 0;
my $c;
my @canaries;

# A secret that is looked for everywhere at the end
sub canary { my $s = 'canary-' . join('', map { ('a' .. 'z', 0 .. 9)[ rand 36 ] } 1 .. 24) . ($_[0] // ''); push @canaries, $s; return $s }

sub connect_with
{
	my ($auth, $secrets, %o) = @_;
	$c = 'c' . ++$nr;
	$f->up('heal');
	$f->rest($c, 'link', auth => $auth, secrets => $secrets, %o);
	$f->clear_log;
	return;
}
sub works
{
	my $name = shift;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$f->sync_ok($c, 'user', "$name: a pass");
	$f->matches_upstream($c, 'user', "$name: has all records");
	return;
}
# 401 to every request: the run ends at once, with class auth
sub refused
{
	my ($name, $requests) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$f->clear_log;
	my $run = $f->ends_with($c, 'user', 'auth', qr/./, $name);
	cmp_ok(scalar($f->requests), '<=', $requests // 1, "$name: it is not tried again and again");
	return $run;
}
sub token_requests { return scalar $f->requests(type => 'token') }

#
# Credentials
#
$f->fresh(user => 105);
my $secret = canary(" \"\x{e4}:&%+");
utf8::upgrade($secret);
my $plain = canary();
$f->up('auth', kind => 'bearer', value => $plain);
connect_with({ type => 'bearer', token => '{{secret.token}}' }, { token => $plain });
works('bearer');
$f->secret($c, 'token', canary());
refused('bearer, another one');
$f->secret($c, 'token', $plain);
works('bearer, the right one again');

$f->up('auth', kind => 'basic', user => 'sync@acme', password => $secret);
connect_with({ type => 'basic', username => '{{config.login}}', password => '{{secret.password}}' }, { password => $secret }, config => { login => 'sync@acme' });
works('basic');
$f->secret($c, 'password', canary());
refused('basic, another password');

$f->up('auth', kind => 'header', name => 'Authorization', value => "SSWS $plain");
connect_with({ type => 'api_key', header => 'Authorization', prefix => 'SSWS ', value => '{{secret.key}}' }, { key => $plain });
works('a key with a prefix');
$f->up('auth', kind => 'header', name => 'X-Api-Key', value => $plain);
connect_with({ type => 'api_key', header => 'X-Api-Key', value => '{{secret.key}}' }, { key => $plain });
works('a key in a header');

my $query = canary('&=/ +');
$f->up('auth', kind => 'query', name => 'key', value => $query);
for my $style (qw(link next cursor))
{
	$c = 'c' . ++$nr;
	$f->rest($c, $style, auth => { type => 'api_key', query => 'key', value => '{{secret.key}}' }, secrets => { key => $query });
	works("a key in the URL, $style");
}
$f->secret($c, 'key', canary());
my $run = refused('a key in the URL, another one');
is($f->sql("SELECT count(*) FROM flohsync.sync_run WHERE id = $run->{id} AND to_jsonb(sync_run)::text LIKE '%canary%'"), 0, 'a key in the URL: it is not in the run');
$f->up('auth', kind => 'none');

# A secret that is missing is said to be missing.
connect_with({ type => 'bearer', token => '{{secret.token}}' }, {});
$run = $f->ends_with($c, 'user', 'configuration', qr/token/, 'a secret that was not set');
is(scalar($f->requests), 0, 'a secret that was not set: nothing was sent');

#
# Client credentials
#
my $client_secret = canary('&:+%');
my %oauth = (type => 'oauth2_client_credentials', token_url => 'http://{{config.host}}/oauth/token', client_id => '{{config.client}}');
for my $how (qw(basic body))
{
	$f->up('auth', kind => 'token', client => $how, client_id => 'the:client' x ($how eq 'body') || 'client', client_secret => $client_secret, scope => 'users.read groups.read', extra => 'audience=https://api.example/');
	connect_with({ %oauth, client_auth => $how, client_secret => '{{secret.client_secret}}', scope => 'users.read groups.read', extra => { audience => '{{config.audience}}' } },
		{ client_secret => $client_secret }, config => { client => $how eq 'body' ? 'the:client' : 'client', audience => 'https://api.example/' });
	works("client credentials, $how");
	is(token_requests(), 1, "client credentials, $how: one token for all pages");
	$f->secret($c, 'client_secret', canary());
	refused("client credentials, $how, another secret", 1);
}

# A token that expires within a pass, by the upstream's word alone: one 401, one new token, and on
$f->up('auth', kind => 'token', client_id => 'client', client_secret => $client_secret);
connect_with({ %oauth, client_secret => '{{secret.client_secret}}' }, { client_secret => $client_secret }, config => { client => 'client' });
$f->fault('hang', type => 'user', page => 3);
$run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
$f->await(hanging => 1);
$f->up('auth', revoke => 1);
$f->up('release');
$f->wait_run($run);
is($f->run_row($run)->{status}, 'success', 'a token is revoked within a pass: the run succeeds') or diag($f->run_row($run)->{error});
is(token_requests(), 2, 'a token is revoked: one new one is asked for');
is(join(' ', map { "$_->{page}:$_->{status}" } $f->requests(type => 'user')), '1:200 2:200 3:200 0:401 4:200 5:200 6:200', 'a token is revoked: the refused page is asked for again, and no other');
$f->matches_upstream($c, 'user', 'a token is revoked: all is there');

# One that is refused a second time ends the run.
$f->fault('status', code => 401, type => 'user', page => 4, times => -1);
$f->clear_log;
$run = $f->ends_with($c, 'user', 'auth', qr/401/, 'a new token is refused as well');
# A worker that has just done a run may have one to begin with.
my @kinds = map { $_->{type} eq 'token' ? 'token' : $_->{page} == 4 ? 'refused' : () } $f->requests;
shift @kinds if $kinds[0] eq 'token';
is("@kinds", 'refused token refused', 'a new token is refused as well: no third one is asked for');
is(scalar(grep { $_->{page} == 4 } $f->requests(type => 'user')), 2, 'a new token is refused as well: two attempts');
$f->up('heal');
works('and the next run goes on');

# A token that is about to expire is not used.
$f->up('auth', kind => 'token', client_id => 'client', client_secret => $client_secret, expires => 50);
# the worker may still know one of before
works('the tokens are others now');
$f->clear_log;
works('tokens of 50 seconds');
is(scalar(grep { $_->{status} == 401 } $f->requests), 0, 'tokens of 50 seconds: none was used too late');

# Nor are all of them kept
$f->fresh(user => 300);
$f->up('auth', kind => 'token', client_id => 'client', client_secret => $client_secret, expires => 50);
connect_with({ %oauth, client_secret => '{{secret.client_secret}}' }, { client_secret => $client_secret }, config => { client => 'client' }, list => { page_size => { param => 'limit', default => 1 } });
$f->fault('hang', type => 'user', page => $_) for 40, 290;
$run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
my @used;
for my $n (1, 2)
{
	$f->await(hanging => 1, fired => $n);
	my $from = -s $f->node->logfile;
	$f->sql('SELECT pg_log_backend_memory_contexts(' . $f->worker_pid . ')');
	for (1 .. 100)
	{
		last if PostgreSQL::Test::Utils::slurp_file($f->node->logfile, $from) =~ /Grand total/;
		select(undef, undef, undef, 0.1);
	}
	push @used, PostgreSQL::Test::Utils::slurp_file($f->node->logfile, $from) =~ /flohsync source: (\d+) total/ ? $1 : 0;
	$f->up('release');
}
$f->wait_run($run);
is($f->run_row($run)->{status}, 'success', '300 tokens: the run succeeds');
cmp_ok(token_requests(), '>=', 300, '300 tokens: one for each request');
ok($used[0] > 0 && $used[1] <= $used[0], '300 tokens: memory does not grow with them') or diag("@used");
$f->fresh(user => 105);
connect_with({ %oauth, client_secret => '{{secret.client_secret}}' }, { client_secret => $client_secret }, config => { client => 'client' });

# The token endpoint fails: like a page, it is asked again
$f->up('auth', kind => 'token', client_id => 'client', client_secret => $client_secret);
$f->fault('status', type => 'token', code => 503, times => 2);
$f->clear_log;
works('a token endpoint that is not available twice');
is(token_requests(), 3, 'a token endpoint that is not available twice: three attempts');
$f->fault('throttle', type => 'token', style => 'graph', seconds => 1);
works('a token endpoint that is asked too often');
for ([ 'no token in the answer', 'body', body => '{"token_type": "Bearer"}' ], [ 'no JSON', 'html' ], [ 'a token that is no text', 'body', body => '{"access_token": 5}' ], [ 'a token with a line break', 'body', body => '{"access_token": "a\r\nX-Evil: 1"}' ], [ 'a list', 'body', body => '[]' ])
{
	my ($name, $kind, @args) = @$_;
	$f->fault($kind, type => 'token', times => -1, @args);
	$f->ends_with($c, 'user', $name eq 'no JSON' ? 'bad_answer' : 'auth', qr/./, "token endpoint: $name");
	$f->up('heal');
}
my $other = $f->another(records => 'user=5');
for my $code (302, 307)
{
	$f->fault('redirect', type => 'token', code => $code, location => $other->origin . '/oauth/token', times => -1);
	my ($ok) = $f->sync($c, 'user');
	ok(!$ok, "token endpoint: a redirect ($code) to another origin ends the run");
	is($other->up('log')->{requests}, 0, "token endpoint: it ($code) is not followed");
	$f->up('heal');
}
$f->up('heal');

# Several runs of a connector, each with a token of its own or one for all: never more tokens than runs
$f->up('auth', kind => 'token', client_id => 'client', client_secret => $client_secret);
connect_with({ %oauth, client_secret => '{{secret.client_secret}}' }, { client_secret => $client_secret }, config => { client => 'client' });
$f->sync_ok($c, 'user', "run $_ of three") for 1 .. 3;
cmp_ok(token_requests(), '<=', 3, 'three runs: no more than three tokens');

#
# Signed assertions, verified by the upstream with OpenSSL
#
my $dir = PostgreSQL::Test::Utils::tempdir();
my %make = (
	RS256 => "openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048",
	ES256 => "openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256");
my (%private, %public);
for my $alg (qw(RS256 ES256))
{
	system("$make{$alg} -out '$dir/$alg' 2>/dev/null || " . ($make{$alg} =~ s/-quiet //r) . " -out '$dir/$alg' 2>/dev/null") == 0 or die 'openssl';
	system("openssl pkey -in '$dir/$alg' -pubout -out '$dir/$alg.pub'") == 0 or die 'openssl';
	$private{$alg} = PostgreSQL::Test::Utils::slurp_file("$dir/$alg");
	$public{$alg} = PostgreSQL::Test::Utils::slurp_file("$dir/$alg.pub");
	push @canaries, (split /\n/, $private{$alg})[1];
}
@private{'PS256'} = $private{RS256};
@public{'PS256'} = $public{RS256};
for my $alg (qw(RS256 PS256 ES256))
{
	$f->up('auth', kind => 'token', client => 'private_key_jwt', client_id => 'app', alg => $alg, kid => 'key-1', body => $public{$alg});
	connect_with({ %oauth, client_auth => 'private_key_jwt', key => '{{secret.key}}', alg => $alg, kid => '{{config.kid}}' }, { key => $private{$alg} }, config => { client => 'app', kid => 'key-1' });
	works("private_key_jwt, $alg");
	$f->up('auth', revoke => 1);
	works("private_key_jwt, $alg, another assertion");
}
# as vendors put it into JSON files, and what is no key
$f->up('auth', kind => 'token', client => 'private_key_jwt', client_id => 'app', body => $public{RS256});
connect_with({ %oauth, client_auth => 'private_key_jwt', key => '{{secret.key}}' }, { key => $private{RS256} =~ s/\n/\\n/gr }, config => { client => 'app' });
works('a key with \n written out');
for ([ 'a key that is none', 'no key ' . canary() ], [ 'a key for another algorithm', $private{ES256} ])
{
	$f->secret($c, 'key', $_->[1]);
	$f->clear_log;
	my ($ok, $r) = $f->sync($c, 'user');
	ok(!$ok, "$_->[0]: the run fails");
	is(scalar($f->requests), 0, "$_->[0]: nothing is sent");
	unlike($r->{text}, qr/canary|BEGIN/, "$_->[0]: the error does not show it");
}
# another key than the upstream knows
system("openssl genpkey -algorithm RSA -out '$dir/other' 2>/dev/null");
$f->secret($c, 'key', PostgreSQL::Test::Utils::slurp_file("$dir/other"));
refused('a key that the upstream does not know');

#
# JWTs for tokens
#
my %google = (type => 'jwt_exchange', token_url => 'http://{{config.host}}/oauth/token', iss => '{{config.account}}', sub => '{{config.admin}}', scope => 'directory.readonly', key => '{{secret.key}}');
$f->up('auth', kind => 'token', form => 'grant', iss => 'svc@project', sub => 'admin@acme', scope => 'directory.readonly', body => $public{RS256});
connect_with({%google}, { key => $private{RS256} }, config => { account => 'svc@project', admin => 'admin@acme' });
works('a service account');
is(token_requests(), 1, 'a service account: one token');
$f->up('auth', kind => 'token', form => 'grant', iss => 'svc@project', aud => 'https://aud.example/', alg => 'ES256', life => 'text', body => $public{ES256});
connect_with({ %google, aud => 'https://aud.example/', alg => 'ES256' }, { key => $private{ES256} }, config => { account => 'svc@project', admin => 'admin@acme' });
works('a service account with another audience, and a life that is a text');
# One is kept under all that it was got by, and found by.
{
	my %exchange = (type => 'jwt_exchange', token_url => 'http://{{config.host}}/oauth/token', iss => '{{config.client}}', key => '{{secret.key}}');
	my @rest = ({ key => $private{RS256} }, config => { client => 'app' });
	$f->up('auth', kind => 'token', form => 'grant', iss => 'app', body => $public{RS256});
	connect_with(\%exchange, @rest);
	my $t = $f->json("SELECT flohsync.test_connector('$c')");
	ok($t->{ok}, 'a token of a JWT') or diag(json_text($t));
	connect_with({ %exchange, token_path => '$.nothing' }, @rest);
	$t = $f->json("SELECT flohsync.test_connector('$c')");
	like($t->{error} // 'ok', qr/contains no token/, 'a token that is looked for elsewhere is not the one before');
}
$f->up('auth', kind => 'token', form => 'bearer', iss => '12345', aud => '', body => $public{RS256});
connect_with({ type => 'jwt_exchange', token_url => 'http://{{config.host}}/oauth/app/installations/7/access_tokens', iss => '{{config.app}}', key => '{{secret.key}}', body => 'bearer' },
	{ key => $private{RS256} }, config => { app => 12345 });
works('an app that exchanges its JWT');
my ($asked) = $f->requests(type => 'token');
is("$asked->{method} $asked->{body}", 'POST ', 'an app: a POST without a body');
is(token_requests(), 1, 'an app: one token');
$f->fault('hang', type => 'user', page => 2);
$f->clear_log;
$run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
$f->await(hanging => 1);
$f->up('auth', revoke => 1);
$f->up('release');
$f->wait_run($run);
is($f->run_row($run)->{status}, 'success', 'an app, its token is revoked within a pass: the run succeeds') or diag($f->run_row($run)->{error});

#
# Seen nowhere
#
# Upstreams that send our credentials back to us
$f->up('auth', kind => 'none');
connect_with({ type => 'bearer', token => '{{secret.token}}' }, { token => $plain });
$f->fault('status', code => 403, body => qq({"error": "bad token $plain"}), times => -1);
$f->ends_with($c, 'user', 'auth', qr/403/, 'an error of the upstream that shows our token');
$f->up('heal');
$f->fault('body', body => qq({"error": "bad token $plain"}), times => -1);
$f->ends_with($c, 'user', 'bad_answer', qr/./, 'an answer that shows our token');
$f->up('heal');
$f->fault('redirect', location => $other->origin . "/?token=$plain", times => -1);
$f->ends_with($c, 'user', 'http_status', qr/./, 'a redirect that shows our token');
$f->up('heal');
$f->sql('CHECKPOINT');
my $log = PostgreSQL::Test::Utils::slurp_file($f->node->logfile);
my $dump = `pg_dump -d '@{[ $f->node->connstr('postgres') ]}' 2>&1`;
like($dump, qr/COPY|CREATE EXTENSION/, 'there is a dump');
my $tables = $f->sql("SELECT string_agg(t, E'\\n') FROM (SELECT to_jsonb(r)::text FROM flohsync.sync_run r UNION ALL SELECT to_jsonb(e)::text FROM flohsync.sync_error e UNION ALL SELECT to_jsonb(p)::text FROM flohsync.sync_run_page p UNION ALL SELECT to_jsonb(c)::text FROM flohsync.connector_definition c UNION ALL SELECT to_jsonb(a)::text FROM pg_stat_activity a) x(t)");
my $wal = join '', map { PostgreSQL::Test::Utils::slurp_file($_) } glob($f->node->data_dir . '/pg_wal/0*');
my $hits = 0;
for my $canary (@canaries)
{
	my $like = substr $canary, 0, 31;
	$hits++ if index($log, $like) >= 0;
	$hits++ if index($dump, $like) >= 0;
	$hits++ if index($tables, $like) >= 0;
	$hits++ if index($wal, $like) >= 0;
}
cmp_ok(scalar(@canaries), '>', 10, 'there are secrets to be looked for');
is($hits, 0, 'none is in the log, a dump, our tables, pg_stat_activity or the WAL');
like($log, qr/flohsync/, '... where there is something');
unlike("$log$tables$dump", qr/issued-\d+-[0-9a-f]{8}/, 'no token either');

$f->invariants;
$f->no_crash;
done_testing();
