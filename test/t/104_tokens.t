# flohsync-http: whose tokens are taken, for how long, and as which role; pages of
# other origins; ETags.
use strict;
use warnings;

use Flohsync;
use Gateway;
use JSON::PP;
use MIME::Base64 qw(encode_base64url encode_base64);
use Digest::SHA qw(hmac_sha256);
use IO::Select;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

my $f = Flohsync->new;
$f->fresh(user => 5);
$f->connector('c');
my $dir = PostgreSQL::Test::Utils::tempdir();
my $codec = JSON::PP->new->canonical;

sub run_openssl { system('openssl', @_) == 0 or die "openssl @_"; return }
sub slurp { return slurp_file($_[0]) }

# Keys as an identity provider has them.
run_openssl('genpkey', '-quiet', '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048', '-out', "$dir/$_.pem") for qw(rsa1 rsa2);
run_openssl('genpkey', '-quiet', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', "$dir/ec.pem");
run_openssl('pkey', '-in', "$dir/$_.pem", '-pubout', '-out', "$dir/$_.pub") for qw(rsa1 rsa2 ec);

sub jwk
{
	my ($name, %more) = @_;
	my $text = `openssl pkey -pubin -in $dir/$name.pub -noout -text`;
	my $hex = sub { my ($t) = @_; $t =~ s/[\s:]//g; $t =~ s/^00//; return encode_base64url(pack 'H*', $t) };
	return { kty => 'RSA', n => $hex->($1), e => 'AQAB', %more } if $text =~ /Modulus:\s*([0-9a-f:\s]+?)Exponent/s;
	$text =~ /pub:\s*04:([0-9a-f:\s]+?)ASN1/s or die $text;
	(my $point = $1) =~ s/[\s:]//g;
	return { kty => 'EC', crv => 'P-256', x => encode_base64url(pack 'H*', substr $point, 0, 64), y => encode_base64url(pack 'H*', substr $point, 64), %more };
}

# A token signed with a private key; ES256 has the two numbers as they are, not in DER.
my $number = 0;
sub signed
{
	my ($alg, $key, $claims, %header) = @_;
	my $text = join '.', map { encode_base64url($codec->encode($_)) } { alg => $alg, %header },
	  { aud => 'flohsync', exp => int(time) + 3600, sub => 'jane', role => 'app_reader', jti => ++$number, %$claims };
	open my $out, '>', "$dir/text" or die;
	print $out $text;
	close $out;
	run_openssl('dgst', '-sha256', '-sign', "$dir/$key.pem", '-out', "$dir/signature", "$dir/text");
	my $signature = slurp("$dir/signature");
	if ($alg eq 'ES256')
	{
		my @n = `openssl asn1parse -inform DER -in $dir/signature` =~ /INTEGER\s*:([0-9A-F]+)/g;
		$signature = join '', map { pack 'H*', substr('0' x 64 . $_, -64) } @n;
	}
	return "$text." . encode_base64url($signature);
}

sub put_keys
{
	my ($file, $text) = @_;
	my $mask = umask 077;
	unlink "$file.new";
	append_to_file("$file.new", $text);
	umask $mask;
	rename "$file.new", $file or die;
	return;
}

my $g = Gateway->new($f, settings => { jwt_issuer => 'https://idp.example', failures_per_second => 0 });
my %iss = (iss => 'https://idp.example');
sub me { my ($token, $gateway) = @_; return ($gateway // $g)->get('/api/me', token => $token)->{status} }
sub hs { my ($claims, %opt) = @_; return $g->jwt({ %iss, role => 'app_reader', jti => ++$number, %$claims }, %opt) }

#
# Claims
#

my $now = int time;
is(me(hs({})), 200, 'a good token');
is(me(hs({ exp => $now - 3600 })), 401, 'one that has expired');
is(me(hs({ exp => $now - 20 })), 200, 'a little while ago');
is(me(hs({ exp => $now - 31 })), 401, 'or a little more');
is(me(hs({ exp => undef })), 401, 'one that never does');
is(me(hs({ exp => "$now" })), 401, 'at a text');
is(me(hs({ exp => JSON::PP::true })), 401, 'or true');
is(me(hs({ nbf => $now + 3600 })), 401, 'one that is not valid yet');
is(me(hs({ nbf => $now + 10 })), 200, 'but nearly');
is(me(hs({ iat => $now + 3600 })), 401, 'one that was issued in the future');
is(me(hs({ iss => 'https://evil.example' })), 401, 'of another issuer');
is(me(hs({ iss => undef })), 401, 'of none');
is(me(hs({ iss => [ 'https://idp.example' ] })), 401, 'of a list of issuers');
is(me(hs({ aud => 'other' })), 401, 'for another audience');
is(me(hs({ aud => [ 'other', 'flohsync' ] })), 200, 'for several');
is(me(hs({ aud => [] })), 401, 'for nobody');
is(me(hs({ aud => 'Flohsync' })), 401, 'for one in another case');
is(me(hs({ role => $_ })), 403, 'role ' . ($_ // 'null')) for 'postgres', 'app_reader ', 'APP_READER', 'none', '', 'app_reader"', "app_reader'; --", 'flohsync_owner', undef;
is(me(hs({ role => [ 'x', 'app_reader' ] })), 200, 'a list with a role');
is(me(hs({ role => { app_reader => 1 } })), 403, 'an object is none');
is(me(hs({ role => 5 })), 403, 'nor is a number');

#
# Signatures
#

is(me(hs({}, secret => 'another secret of more than 32 bytes')), 401, 'signed with another secret');
my $good = hs({});
my @part = split /\./, $good;
is(me($_->[1]), 401, $_->[0])
  for [ 'no signature', "$part[0].$part[1]." ], [ 'two parts', "$part[0].$part[1]" ], [ 'four parts', "$good.x" ], [ 'padding', "$good=" ], [ 'another payload', "$part[0]." . encode_base64url('{"aud":"flohsync","exp":9999999999,"role":"app_manager","iss":"https://idp.example"}') . ".$part[2]" ],
	[ 'other bits at its end', substr($good, 0, -1) . ($good =~ /A\z/ ? 'B' : chr(ord(substr $good, -1) ^ 1) =~ s/[^\w-]/B/r) ], [ 'line feeds', "$part[0].$part[1]\t.$part[2]" ], [ 'a prefix', " x$good" ], [ 'too long', "$part[0].$part[1]." . 'A' x 7800 ];
for my $alg ('none', 'None', 'NONE', 'nOnE', '', 'HS512', 'hs256', 'RS256', undef)
{
	my $text = join '.', map { encode_base64url($codec->encode($_)) } { alg => $alg }, { %iss, aud => 'flohsync', exp => $now + 3600, role => 'app_reader' };
	is(me("$text."), 401, 'algorithm ' . ($alg // 'null') . ' without a signature');
	is(me("$text." . encode_base64url(hmac_sha256($text, $g->{secret}))), 401, 'and with that of the secret');
}
is(me(hs({}, header => $_)), 401, 'header ' . $codec->encode($_)) for { crit => ['exp'] }, { kid => 5 }, { crit => [] };
is(me(hs({}, header => $_)), 200, 'header ' . $codec->encode($_) . ', of which nothing is used')
  for { kid => '../../etc/passwd' }, { kid => "' OR 1=1 --" }, { jku => 'http://127.0.0.1:1/' }, { jwk => { kty => 'oct', k => encode_base64url('x' x 32) } }, { x5u => 'file:///etc/passwd' };
is(me(hs({}, secret => 'x' x 32, header => { jwk => { kty => 'oct', k => encode_base64url('x' x 32) } })), 401, 'a key in the header is none');

# A public key is no secret.
my $pem = slurp("$dir/rsa1.pub");
put_keys("$dir/pem", $pem);
my $rsa = Gateway->new($f, roles => 0, settings => { jwt_keys => "$dir/pem", failures_per_second => 0, jwt_issuer => undef });
is(me(signed('RS256', 'rsa1', {}), $rsa), 200, 'RS256 with a key in PEM');
is(me(signed('RS256', 'rsa2', {}), $rsa), 401, 'not with another one');
is(me($g->jwt({ role => 'app_manager' }, secret => $pem), $rsa), 401, 'the public key as the secret of HS256');
is(me($g->jwt({ role => 'app_manager' }, secret => $pem =~ s/\n\z//r), $rsa), 401, 'without the end of its last line');
is(me($g->jwt({ role => 'app_manager' }, secret => $pem, header => { alg => 'RS256' }), $rsa), 401, 'or as RS256');
$rsa->stop;

# Follows events; waits until they have begun.
sub follow
{
	my ($token, $gateway) = @_;
	my %stream = (socket => ($gateway // $g)->connect, text => '');

	$stream{socket}->print("GET /api/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $token\r\n\r\n");
	1 while $stream{text} !~ /: welcome/ && more(\%stream, 60);
	return \%stream;
}
# Reads what comes within so many seconds: false when nothing does, or it has ended.
sub more
{
	my ($stream, $seconds) = @_;
	return 0 if $stream->{text} =~ /\r\n0\r\n\r\n\z/ || !IO::Select->new($stream->{socket})->can_read($seconds);
	return sysread $stream->{socket}, $stream->{text}, 65536, length $stream->{text};
}
# Is it still open?
sub open_still { my ($stream) = @_; 1 while more($stream, 0); return $stream->{text} =~ /: welcome/ && $stream->{text} !~ /\r\n0\r\n\r\n\z/ }
# Waits for its end, by the rules of HTTP; when that was.
sub ended
{
	my ($stream) = @_;
	my $until = time + 60;

	1 while more($stream, 1) || (open_still($stream) && time < $until);
	return open_still($stream) ? undef : int time;
}

# A set of keys, which its issuer replaces.
put_keys("$dir/jwks", $codec->encode({ keys => [ jwk('rsa1', kid => 'one', alg => 'RS256'), jwk('ec', kid => 'ec') ] }));
my $set = Gateway->new($f, roles => 0, settings => { jwt_keys => "$dir/jwks", failures_per_second => 0 });
my $of_one = signed('RS256', 'rsa1', {}, kid => 'one');
my $of_two = signed('RS256', 'rsa2', {}, kid => 'two');
is(me($of_one, $set), 200, 'RS256 with a key of a set');
is(me(signed('ES256', 'ec', {}, kid => 'ec'), $set), 200, 'ES256');
is(me(signed('ES256', 'ec', {}, kid => 'one'), $set), 401, 'with the kid of another key');
is(me(signed('RS256', 'rsa1', {}, kid => 'ec'), $set), 401, 'the other way around');
is(me($of_two, $set), 401, 'a key that is not in the set');
my $zero = signed('ES256', 'ec', {}, kid => 'ec') =~ s/[^.]+\z//r;
is(me($zero . encode_base64url("\0" x 64), $set), 401, 'a signature of zeros');
put_keys("$dir/jwks", $codec->encode({ keys => [ jwk('rsa1', kid => 'one'), jwk('rsa2', kid => 'two') ] }));
my $until = time + 40;
sleep 0.1 until me($of_two, $set) == 200 || time > $until;
is(me($of_two, $set), 200, 'a key that comes to the set is used');
is(me($of_one, $set), 200, 'beside the former one');
my ($by_one, $by_two) = map { follow($_, $set) } $of_one, $of_two;
put_keys("$dir/jwks", '{"keys":[');
$set->log_has(qr/the keys that were read before stay/, 'half a file changes nothing');
is(me($of_two, $set), 200, 'so the keys stay');
ok(open_still($by_one), 'and events go on');
put_keys("$dir/jwks", $codec->encode({ keys => [ jwk('rsa2', kid => 'two') ] }));
$until = time + 40;
sleep 0.1 until me($of_one, $set) == 401 || time > $until;
is(me($of_one, $set), 401, 'what is signed with a key that has gone is not taken any more, though it was before');
is(me($of_two, $set), 200, 'the other one is');
ok(ended($by_one), 'events that are followed with the former one end');
ok(ended($by_two), 'those of the other one, too');
ok(open_still(follow($of_two, $set)), 'which may come back');
is($set->get('/api/events', token => $of_one)->{status}, 401, 'as the former one may not');
my $before = follow($of_two, $set);
$set->write_settings(jwt_audience => 'another');
$set->signal('HUP');
ok(ended($before), 'events end when the settings were read again');
is($set->get('/api/events', token => $of_two)->{status}, 401, 'a token that these do not permit does not come back');
$set->stop;

#
# While it is remembered
#

my $short = hs({ exp => int(time) - 25 });
is(me($short), 200, 'a token that is about to expire');
my ($to_end, $to_stay) = map { follow($_) } $short, $good;
ok(open_still($to_end), 'it may follow events');
$until = time + 40;
sleep 0.2 until me($short) == 401 || time > $until;
is(me($short), 401, 'is not taken any more when it has, though it is remembered');
ok(ended($to_end), 'and its events end');
ok(open_still($to_stay), 'those of another token go on');
is($g->get('/api/events', token => $short)->{status}, 401, 'it does not come back');

#
# API tokens
#

my $api = $f->sql(q{SELECT flohsync.create_api_token('one', 'app_reader')});
is($g->get('/api/me', token => $api)->{json}{role}, 'app_reader', 'an API token has its role');
is($g->get('/api/me', token => $api)->{json}{subject}, 'one', 'and its name');
is(me($_), 401, 'a token like it') for substr($api, 0, -1), "${api}x", uc $api, 'fls_', 'fls_' . 'x' x 43, 'fls_' . 'x' x 5000, "fls_'; --";
is($g->get('/api/me', headers => { Authorization => "bEaReR   $api" })->{status}, 200, 'Bearer in any case');
is($g->get('/api/me', headers => { Authorization => $_ })->{status}, 401, "Authorization: $_") for $api, "Basic $api", "Bearer$api", "Bearer $api x", 'Bearer', 'Bearer ';
my $followed = follow($api);
ok(open_still($followed), 'it may follow events');
ok($f->sql(q{SELECT flohsync.revoke_api_token('one')}), 'it is revoked');
$until = time + 40;
sleep 0.01 until me($api) == 401 || time > $until;
is(me($api), 401, 'and is not taken any more');
ok(ended($followed), 'its events end');
my @revoked = ();
for my $i (1 .. 10)
{
	my $token = $f->sql(qq{SELECT flohsync.create_api_token('t$i', 'app_reader')});
	push @revoked, me($token);
	$f->sql(qq{SELECT flohsync.revoke_api_token('t$i')});
	my $told = time + 40;
	sleep 0.005 until me($token) == 401 || time > $told;
	push @revoked, me($token);
}
is("@revoked", join(' ', (200, 401) x 10), 'each time');

my $expiring = $f->sql(q{SELECT flohsync.create_api_token('expiring', 'app_reader', now() + interval '3 s')});
is(me($expiring), 200, 'one that expires soon');
$followed = follow($expiring);
$until = time + 40;
sleep 0.1 until me($expiring) == 401 || time > $until;
is(me($expiring), 401, 'does');
ok(ended($followed), 'so do its events');
ok(open_still($to_stay), 'those of another token have gone on all the time');
close $to_stay->{socket};

# Nobody tells of it while nobody listens: it is known for seconds only.
my $unheard = $f->sql(q{SELECT flohsync.create_api_token('unheard', 'app_reader')});
is(me($unheard), 200, 'a token is used');
$f->sql(q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'flohsync_http' AND query LIKE '%LISTEN%'; SELECT flohsync.revoke_api_token('unheard')});
$until = time + 40;
sleep 0.1 until me($unheard) == 401 || time > $until;
is(me($unheard), 401, 'and revoked while nobody listens');
$f->wait_for(q{SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'flohsync_http' AND query LIKE '%LISTEN%'});

$f->sql(q{CREATE ROLE gone; SELECT flohsync.grant_reader('gone'); GRANT gone TO flohsync_http});
my $gone = $f->sql(q{SELECT flohsync.create_api_token('gone', 'gone')});
my $jwt_gone;
is(me($gone), 200, 'a token of another role');
$f->sql(q{SELECT flohsync.revoke_access('gone'); DROP OWNED BY gone; REVOKE gone FROM flohsync_http; DROP ROLE gone});
my $a = $g->get('/api/me', token => $gone);
ok($a->{status} == 401 || $a->{status} == 403, 'that is dropped: ' . $a->{status});
like($a->{content}, qr/\A\{"code"/, 'in the form of all errors');
unlike($a->{content}, qr/"gone"/, 'the role is not told');
$f->sql(q{CREATE ROLE stranger; SELECT flohsync.grant_reader('stranger')});
my $stranger = $f->sql(q{SELECT flohsync.create_api_token('stranger', 'stranger')});
$a = $g->get('/api/me', token => $stranger);
is($a->{status}, 403, 'a role that the user of the server may not take');
like($a->{json}{hint}, qr/granted to the user/, 'with a hint');
is(me($g->manager), 401, 'a manager of another issuer');
$f->sql(q{GRANT stranger TO flohsync_http});
is(me($stranger), 200, 'until it is granted');
is($g->delete('/api/connectors/c', token => $stranger)->{status}, 403, 'a reader of that role reads only');
$f->sql(q{REVOKE ALL ON SCHEMA flohsync_api FROM stranger});
$a = $g->get('/api/connectors', token => $stranger);
is($a->{status}, 403, 'without access to the schema');
unlike($a->{content}, qr/flohsync_api/, 'whose name is not told');
$f->sql(q{ALTER TABLE _flohsync.api_token RENAME TO away});
is(me('fls_' . 'y' x 43), 500, 'what is wrong inside');
unlike($g->get('/api/me', token => 'fls_' . 'y' x 43)->{content}, qr/api_token|flohsync|relation/, 'is not told');
$f->sql(q{ALTER TABLE _flohsync.away RENAME TO api_token});

#
# Who the server may be
#

$f->sql('CREATE ROLE strong LOGIN BYPASSRLS; CREATE ROLE super LOGIN SUPERUSER; CREATE ROLE plain LOGIN');
for my $user (qw(strong super))
{
	my $wrong = Gateway->new($f, roles => 0, start => 0, settings => { db => sprintf('host=%s port=%s dbname=postgres user=%s', $f->node->host, $f->node->port, $user) });
	ok(!$wrong->start, "$user is refused");
	like($wrong->log_text, qr/is a superuser, or bypasses row level security/, 'with the reason');
}
$f->sql('ALTER ROLE flohsync_http BYPASSRLS');
$f->sql(q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'flohsync_http'});
$g->log_has(qr/could not connect to the database: the user of setting db is a superuser, or bypasses/, 'one who becomes strong later is refused when it connects again');
is($g->get('/ready')->{status}, 503, 'so the server is not ready');
$f->sql('ALTER ROLE flohsync_http NOBYPASSRLS');
$until = time + 40;
sleep 0.1 until $g->get('/ready')->{status} == 200 || time > $until;
is(me(hs({})), 200, 'until that is taken back');
SKIP:
{
	# In a namespace of its own a process is root without being that outside.
	skip 'no user namespaces here', 2 if system('unshare --user --map-root-user true 2>/dev/null') != 0;
	my $text = `unshare --user --map-root-user $ENV{GATEWAY} --config $g->{config} 2>&1`;
	isnt($?, 0, 'root is refused');
	like($text, qr/must not run as root/, 'with the reason');
}

#
# Pages of other origins
#

my $origin = 'https://app.example';
$a = $g->get('/api/me', token => hs({}), headers => { Origin => $origin });
is($a->{status}, 200, 'a page of another origin is answered');
ok(!(grep { /^access-control/ } keys %{ $a->{headers} }), 'but its browser is not told to show it');
$a = $g->request('OPTIONS', '/api/connectors', headers => { Origin => $origin, 'Access-Control-Request-Method' => 'POST' });
ok(!(grep { /^access-control/ } keys %{ $a->{headers} }), 'nor that it may ask for more');
$g->write_settings(cors_origins => "$origin https://other.example");
$g->signal('HUP');
$g->log_has(qr/the settings were read/, 'with an origin in the settings');
$a = $g->get('/api/me', token => hs({}), headers => { Origin => $origin });
is($a->{headers}{'access-control-allow-origin'}, $origin, 'that is told');
is($a->{headers}{vary}, 'Origin', 'for that one alone');
ok(!exists $a->{headers}{'access-control-allow-credentials'}, 'without cookies');
for my $other ('https://app.example.evil', 'http://app.example', 'https://app.example:444', 'null', '*', 'https://APP.example', "$origin, https://x")
{
	$a = $g->get('/api/me', token => hs({}), headers => { Origin => $other });
	ok(!exists $a->{headers}{'access-control-allow-origin'}, "$other is another one");
}
$a = $g->request('OPTIONS', '/api/connectors/c', headers => { Origin => $origin, 'Access-Control-Request-Method' => 'PUT' });
is($a->{status}, 204, 'who asks before it asks');
is($a->{headers}{'access-control-allow-methods'}, 'GET, HEAD, PUT, DELETE', 'is told the methods');
like($a->{headers}{'access-control-allow-headers'}, qr/Authorization/, 'and the headers');
is($g->get('/api/me', headers => { Origin => $origin })->{headers}{'access-control-allow-origin'}, $origin, 'errors can be read, too');

#
# ETags and HEAD
#

my $manager = hs({ role => 'app_manager' });
for my $path ('/api/connectors/c', '/api/connectors/c/resources/user/user-1', '/api/connectors/c/sync-config/user', '/openapi.json')
{
	$f->sync_ok('c', 'user') if $path =~ /resources/;
	my ($id) = $path =~ /resources/ ? $f->sql('SELECT external_id FROM flohsync.connector_resource LIMIT 1') : '';
	(my $url = $path) =~ s/user-1/$id/;
	my $one = $g->get($url, token => $manager);
	my $tag = $one->{headers}{etag} // '';
	is($one->{status}, 200, $url);
	like($tag, qr/^"[^"]+"$/, 'has an ETag');
	my $same = $g->get($url, token => $manager, headers => { 'If-None-Match' => $tag });
	is($same->{status}, 304, 'and is not sent again');
	is($same->{content} // '', '', 'nothing of it');
	is($g->get($url, token => $manager, headers => { 'If-None-Match' => "\"x\", W/$tag" })->{status}, 304, 'nor where it is one of several, or weak');
	is($g->get($url, token => $manager, headers => { 'If-None-Match' => $_ })->{status}, 200, "but with $_ it is") for '"x"', '""', substr($tag, 1, -1), substr($tag, 0, -1), '"';
	is($g->get($url, token => $manager, headers => { 'If-None-Match' => '*' })->{status}, 304, 'whatever there is counts');
	my $head = $g->request('HEAD', $url, token => $manager);
	is($head->{status}, 200, 'HEAD');
	is($head->{headers}{etag}, $tag, 'has the ETag');
	is($head->{headers}{'content-length'}, length $one->{content}, 'and the length');
	is(length($head->{content} // ''), 0, 'and nothing else');
}
my $url = '/api/connectors/c/sync-config/user';
my $tag = $g->get($url, token => $manager)->{headers}{etag};
is($g->put($url, { staleRetention => '40 days' }, token => $manager, headers => { 'If-Match' => '"x"' })->{status}, 412, 'a change of what is not as it was is refused');
is($g->put($url, { staleRetention => '40 days' }, token => $manager, headers => { 'If-Match' => "W/$tag" })->{status}, 412, 'a weak tag does not say that it is');
$a = $g->put($url, { enabled => JSON::PP::true }, token => $manager, headers => { 'If-Match' => $tag });
is($a->{status}, 200, 'one of what is as it was is not');
isnt($a->{headers}{etag}, $tag, 'and has another tag');
is($g->put($url, { enabled => JSON::PP::false }, token => $manager, headers => { 'If-Match' => $tag })->{status}, 412, 'so that it happens once');
is($g->put($url, { enabled => JSON::PP::true }, token => $manager, headers => { 'If-Match' => '*' })->{status}, 200, 'anything there is');
is($g->put('/api/connectors/c/sync-config/group', {}, token => $manager, headers => { 'If-Match' => '*' })->{status}, 412, 'is not what there is not');

unlike($g->log_text, qr/eyJ|\Q$api\E/, 'no token is in the log');
ok($g->alive, 'flohsync-http is still the same process');
is($g->stop, 0, 'it stops');
done_testing();
