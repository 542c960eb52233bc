# Webhooks over HTTP, as their senders send them: each scheme, what senders ask when
# they are set up, packed bodies, and headers that come twice.
use strict;
use warnings;

use Flohsync;
use Gateway;
use Hooks;
use IO::Compress::Gzip qw(gzip);
use Test::More;

my $f = Hooks->new(upstream => 0);
my $g = Gateway->new($f);
my @schemes = qw(standard svix hmac_hex github okta graph slack);
my $nr = 0;

$f->plain($_, { scheme => $_ }) for @schemes;
$f->plain('any', undef);

sub body
{
	my ($scheme) = @_;
	return json_text({ action => 'updated', resourceId => 'u-1', resourceType => 'user', data => { displayName => 'Name ' . ++$nr },
			$scheme eq 'graph' ? (value => [ { clientState => $Hooks::secret } ]) : () });
}

sub send_it
{
	my ($connector, $body, $headers) = @_;
	return $g->request('POST', "/api/webhooks/$connector", content => $body, type => 'application/json', headers => $headers);
}

for my $scheme (@schemes)
{
	my $b = body($scheme);
	my $a = send_it($scheme, $b, Hooks::signed($scheme, $b));
	is($a->{status}, 200, "$scheme: what its sender signs is taken");
	is_deeply($a->{json}, { accepted => JSON::PP::true, action => 'updated', changed => JSON::PP::true }, 'and answered');
	$b = body('standard');
	$a = send_it($scheme, $b, $scheme eq 'graph' || $scheme eq 'okta' ? {} : Hooks::signed($scheme, 'another body'));
	is($a->{status}, 401, 'what is not authentic is not');
	is($a->{json}{code}, '28000', 'and said so');
}
my $unknown = send_it('nobody', body('github'), Hooks::signed('github', 'x'));
my $forged = send_it('github', body('github'), Hooks::signed('github', 'x'));
is("$unknown->{status} $unknown->{content}", "$forged->{status} $forged->{content}", 'a connector that is not there is answered as one is');
is($f->sql("select count(*) from flohsync.connector_resource where external_id = 'u-1'"), scalar @schemes, 'each connector has its record');

# Packed: the signature is that of what was packed.
my $b = body('github');
gzip(\$b, \my $packed);
is(send_it('github', $packed, { %{ Hooks::signed('github', $b) }, 'Content-Encoding' => 'gzip' })->{json}{changed}, JSON::PP::true, 'a packed body is taken');

# The same delivery again does nothing.
my $signed = Hooks::signed('svix', $b = body('svix'));
is(send_it('svix', $b, $signed)->{json}{changed}, JSON::PP::true, 'a delivery counts');
my $again = send_it('svix', $b, $signed);
is("$again->{status} $again->{json}{changed}", '200 0', 'once');

# What senders ask.
my $a = $g->get('/api/webhooks/okta', headers => { 'X-Okta-Verification-Challenge' => 'a-challenge' });
is("$a->{status} $a->{content}", '200 {"verification": "a-challenge"}', 'the challenge of Okta is answered');
is($g->get('/api/webhooks/github', headers => { 'X-Okta-Verification-Challenge' => 'a-challenge' })->{status}, 405, 'for a connector of another scheme it is not');
$a = $g->request('POST', '/api/webhooks/graph?validationToken=Validation%3A%20Testing%20client');
is("$a->{status} $a->{content}", '200 Validation: Testing client', 'so is that of Microsoft Graph');
like($a->{headers}{'content-type'}, qr{^text/plain}, 'as text');
my $ping = json_text({ zen => 'Keep it logically awesome.', hook_id => 1 });
is(send_it('github', $ping, Hooks::signed('github', $ping, event => 'ping'))->{json}{action}, 'ping', 'a ping of GitHub is answered');
my $hello = json_text({ type => 'url_verification', challenge => 'slack-challenge' });
is_deeply(send_it('slack', $hello, Hooks::signed('slack', $hello))->{json}, { challenge => 'slack-challenge' }, 'and what Slack asks');
is($g->get('/api/webhooks/any')->{status}, 405, 'anything else must be POST');

# A header that comes twice is one with both values: no signature.
$b = body('github');
$signed = Hooks::signed('github', $b);
like($g->raw("POST /api/webhooks/github HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: " . length($b)
		. "\r\nX-Hub-Signature-256: sha256=00\r\nX-Hub-Signature-256: $signed->{'x-hub-signature-256'}\r\n\r\n$b"), qr{^HTTP/1\.1 401 }, 'one of two signatures is none');

is(send_it('any', '{', Hooks::signed('hmac_hex', '{'))->{status}, 400, 'a body that is signed and no JSON is refused');
$f->sql("select flohsync.update_connector('any', '{\"enabled\": false}')");
is(send_it('any', $b, Hooks::signed('hmac_hex', $b))->{status}, 409, 'a disabled connector says so');
unlike($g->log_text, qr/\Q$Hooks::secret\E/, 'no secret is in the log');

done_testing();
