# flohsync-http: where a request ends.  What two programs in a row could read
# differently is refused, its connection is closed, and what is hidden behind it
# is not a request.
use strict;
use warnings;

use Flohsync;
use Gateway;
use Test::More;

my $f = Flohsync->new(upstream => 0);
my $g = Gateway->new($f, settings => { webhooks_per_second => 0, webhooks_per_second_address => 0, body_timeout => 3 });
my $nl = "\r\n";
my $hidden = 0;

# A request that must not be answered, nor get into the log of requests.
sub hidden_request { $hidden++; return "GET /hidden-$hidden HTTP/1.1${nl}Host: x$nl$nl" }

# Heads, each with one line that is wrong, with a body or without; and a request behind it.
sub head { my ($method, $path, @lines) = @_; return join $nl, "$method $path HTTP/1.1", 'Host: x', @lines, '', '' }

my $number = 0;

sub refused
{
	my ($bytes, $status, $name, %opt) = @_;
	my @expected = ref $status ? @$status : ($status);
	my $r = $g->exchange($bytes . ($opt{alone} ? '' : hidden_request()), half => $opt{half});
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my $got = join ' ', @{ $r->{statuses} };
	return ok($r->{closed} && (grep { $_ eq $got } @expected), "$name: " . ($got || 'no answer') . ', and the end')
	  || diag("expected @expected and a closed connection, got $got" . ($r->{closed} ? '' : ', and it is open') . ": $r->{text}");
}

sub answered
{
	my ($bytes, $statuses, $name, %opt) = @_;
	my $r = $g->exchange($bytes, answers => scalar @$statuses, half => $opt{half});
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is("@{ $r->{statuses} }", "@$statuses", $name) || diag($r->{text});
}

# Proof that a request behind another one is seen where it should be.
answered(head('GET', '/live') . "GET /seen HTTP/1.1${nl}Host: x$nl$nl", [ 200, 404 ], 'a request behind another one is answered');
$g->log_has(qr{path=/seen }, 'and is in the log');

#
# The length of the body
#

my $body = hidden_request();
my $n = length $body;
refused(head('POST', '/api/webhooks/c', "Content-Length: $n", 'Content-Length: 0') . $body, 400, 'two lengths that differ');
refused(head('POST', '/api/webhooks/c', 'Content-Length: 0', "Content-Length: $n") . $body, 400, 'in the other order');
refused(head('POST', '/api/webhooks/c', "Content-Length: $n", "Content-Length: $n") . $body, 400, 'two lengths that are equal');
refused(head('POST', '/api/webhooks/c', "Content-Length: $n, $n") . $body, 400, 'a list of lengths');
refused(head('GET', '/live', "Content-Length: $n", 'content-length: 0') . $body, 400, 'with a method that has no body');
my $chunked = sprintf "%x$nl%s${nl}0$nl$nl", $n, $body;
for my $method (qw(POST GET DELETE))
{
	my $path = $method eq 'POST' ? '/api/webhooks/c' : '/live';
	refused(head($method, $path, "Content-Length: $n", 'Transfer-Encoding: chunked') . $chunked, 400, "$method with a length and Transfer-Encoding");
	refused(head($method, $path, 'Transfer-Encoding: chunked', 'Content-Length: 3') . $chunked, 400, "$method in the other order");
}
refused(head('POST', '/api/webhooks/c', "Content-Length: $_") . $body, 400, "length '$_'")
  for "+$n", "-$n", '-0', sprintf('0x%x', $n), "$n ", "$n x", "1 $n", '1e1', '5.0', 'abc', '', '"5"', "\xb2", "$n;", "$n\t", '9223372036854775808', '1' . '0' x 18, "\x0b$n";
refused(head('POST', '/api/webhooks/c', "Content-Length: $_") . $body, [ 400, 413 ], "length $_")
  for '18446744073709551615', '18446744073709551616', '18446744073709551621', '9' x 40;
refused(head('PATCH', '/live', 'Content-Length: 99999999') . $body, 405, 'a long body that nobody wants');
refused(head('POST', '/api/webhooks/c', 'Content-Length: 999999999999999999') . $body, 413, 'a length that is too large');

#
# Chunks.  Behind a chunked body no request is taken: what closes the connection here
# is that, where the library takes what is wrong.
#

my $te = head('POST', '/api/webhooks/c', 'Transfer-Encoding: chunked');
refused($te . "${_}$nl" . ('a' x 16) . "${nl}0$nl$nl", [ 400, 413, '' ], "size of a chunk '" . substr($_, 0, 20) . "'")
  for 'xyz', '-1', '-0', '+5', '0x5', ' 5', '', ' ', 'g', ';a', "\x005", '10000000000000000', 'f' x 16, 'F' x 400, '5,5', '5 5', "5\t;a";
refused($te . "5${nl}helloX${nl}0$nl$nl", 400, 'a chunk that is longer than it says');
refused($te . "5${nl}hell${nl}0$nl$nl", [ 400, 401 ], 'a chunk that is shorter than it says');
refused($te . "5${nl}hello0$nl$nl", 400, 'no end of line behind a chunk');
refused($te . "5;" . ('a' x 100_000) . "${nl}hello${nl}0$nl$nl", [ 400, 413, 431, '' ], 'an overlong extension of a chunk');
refused($te . "5\nhello\n0\n\n", [ 400, 401 ], 'chunks with bare line feeds');
refused($te . "5;a\n$nl" . hidden_request(), [ 400, 401, 413, '' ], 'a line feed in the extension of a chunk');
refused($te . "2;\nxx${nl}4d${nl}0$nl$nl" . hidden_request(), [ 400, 401, 413, '' ], 'a line of its own in it');
refused($te . "5\rhello${nl}0$nl$nl", 400, 'a bare carriage return behind the size of a chunk');
refused($te . "0${nl}Content-Length: $n$nl$nl$body", 401, 'a length in the trailer');
refused($te . "0${nl}Host: y${nl}Transfer-Encoding: chunked$nl$nl$body", 401, 'framing in the trailer');
refused($te . "0${nl}no colon$nl$nl$body", 400, 'a trailer without a colon');
refused($te . "0$nl" . join('', map { "X-$_: " . ('a' x 1000) . $nl } 1 .. 200) . $nl, [ 400, 413, 431, '' ], 'an endless trailer');
refused($te . "0$nl$nl$body", 401, 'a good body in chunks');
like($g->exchange($te . "3${nl}{ }${nl}0$nl$nl")->{text}, qr/^Connection: close/mi, 'whose answer says that the connection ends');

refused(head('POST', '/api/webhooks/c', 'Transfer-Encoding: chunked', 'Transfer-Encoding: chunked') . $chunked, 400, 'two Transfer-Encoding');
refused(head('POST', '/api/webhooks/c', "Transfer-Encoding: $_") . $chunked, [ 400, 501 ], "Transfer-Encoding '$_'")
  for 'gzip', 'gzip, chunked', 'chunked, chunked', 'chunked, identity', 'identity', 'xchunked', 'chunked;q=1', '"chunked"', "\x0bchunked", 'chunked,', ', chunked', "chunked\x00", 'chunkeD ';
is($g->exchange(head('POST', '/api/webhooks/c', 'Transfer-Encoding: gzip') . $chunked)->{statuses}[0], 501, 'of which an unknown one is 501');
refused(join($nl, 'POST /api/webhooks/c HTTP/1.0', 'Host: x', 'Transfer-Encoding: chunked', '', $chunked), 400, 'HTTP/1.0 with Transfer-Encoding');
refused(head('GET', '/live', 'Transfer_Encoding : chunked') . $chunked, 400, 'a space before the colon of something like it');

#
# Host
#

refused("GET /live HTTP/1.1$nl$nl", 400, 'no Host');
refused(head('GET', '/live', 'Host: y'), 400, 'two Host');
refused(head('GET', '/live', 'Host: x'), 400, 'two equal Host');
refused(head('GET', '/live', 'hOST: x'), 400, 'in another case');

#
# Lines and characters
#

my $post = "Content-Length: 0";
refused(head('GET', '/live', $_->[1]), [ 400, '' ], $_->[0])
  for [ 'a NUL in the name of a header', "X-\x00A: b" ], [ 'a NUL in a value', "X: a\x00b" ], [ 'a NUL at the end of a value', "X: a\x00" ],
	[ 'a NUL before the colon', "X\x00: a" ], [ 'a bare CR in a value', "X: a\rContent-Length: 5" ], [ 'a bare CR in a name', "X\rContent-Length: 5" ],
	[ 'a bare CR at the end of a value', "X: a\r" ], [ 'a folded line', "X: a$nl b" ], [ 'a folded line with a colon', "X: a$nl\tContent-Length: 5" ],
	[ 'a folded name', "Content-: 5$nl Length" ], [ 'a folded name with bare line feeds', "Content-:5\n Length" ],
	[ 'an empty folded line', "X: a$nl $nl\tb" ], [ 'a space before the colon', 'X : a' ], [ 'a tab before the colon', "X\t: a" ],
	[ 'a length with a space before the colon', "Content-Length : $n" ], [ 'a space before the name', ' X: a' ],
	[ 'a line without a colon', 'X' ], [ 'an empty name', ': a' ], [ 'control characters', "X: a\x01b" ], [ 'a DEL', "X: a\x7fb" ],
	[ 'a vertical tab', "X: a\x0bb" ], [ 'an escape', "X: \x1b[31m" ], [ 'parentheses in a name', 'X(a): b' ], [ 'a name that is no ASCII', "X\xc3\xa4: b" ],
	[ 'a header of more than 8 kB', 'X: ' . 'a' x 8200 ], [ 'a bare line feed', "X: a\nContent-Length: 5" ], [ 'a bare line feed that spaces make up for', "X:   a\nY: b" ],
	[ 'a comma and a line feed', "X: a\n\tY: b" ];
refused("GET /live HTTP/1.1\nHost: x\n\n", [ 400, '' ], 'line feeds alone');
refused("GET /live HTTP/1.1\nHost: x$nl$nl", [ 400, '' ], 'a line feed behind the request line');
refused("GET /live HTTP/1.1${nl}Host: x\n$nl", [ 400, '' ], 'a line feed behind Host');
refused("GET /live HTTP/1.1${nl}Host: x$nl\n", [ 400, '' ], 'a line feed at the end of the head');
refused("GET /live HTTP/1.1\rHost: x\r\r", [ 400, '' ], 'carriage returns alone', half => 1);
refused(head('GET', '/live', 'X: ' . 'a' x 100_000), [ 400, 431 ], 'a header of 100 kB');
refused(head('GET', '/live', map { "X-$_: a" } 1 .. 1000), [ 400, 431 ], '1000 headers');
refused(head('GET', '/live', map { "X-$_: a" } 1 .. 101), 400, 'more than 100 headers');
refused(head('GET', '/' . 'a' x 100_000), [ 400, 414, 431 ], 'a path of 100 kB');
refused(head('GET', '/live?' . join('&', map { "a$_=1" } 1 .. 1000)), [ 400, 413, 414, 431, '' ], '1000 parameters');
refused(head('GET', '/live?' . 'a' x 100_000), [ 400, 414, 431 ], 'a query of 100 kB');
answered(head('GET', '/live', "X:a", "Y:   b", "Z: \tc", 'Empty:', 'Comma: a, b', "Text: \xc3\xa4", 'Colon: a:b'), [200], 'optional spaces, and whatever else is good, are taken');
answered("GET /live HTTP/1.1${nl}hOsT:x$nl$nl", [200], 'names in any case');
answered("$nl${nl}GET /live HTTP/1.1${nl}Host: x$nl$nl", [200], 'empty lines before a request');

#
# The request line
#

refused($_->[1] . "${nl}Host: x$nl$nl", [ ref $_->[2] ? @{ $_->[2] } : $_->[2] ], $_->[0])
  for [ 'HTTP/2.0', 'GET /live HTTP/2.0', [ 400, 505 ] ], [ 'HTTP/3', 'GET /live HTTP/3', [ 400, 505 ] ], [ 'HTTP/1.10', 'GET /live HTTP/1.10', [ 400, 505 ] ],
	[ 'HTTP/0.9', 'GET /live HTTP/0.9', [ 400, 505 ] ], [ 'no version', 'GET /live', [ 400, 505, '' ] ], [ 'a version in small letters', 'GET /live http/1.1', [ 400, 505 ] ],
	[ 'HTTP/01.1', 'GET /live HTTP/01.1', [ 400, 505 ] ], [ 'something else', 'GET /live HTTPS/1.1', [ 400, 505 ] ], [ 'HTTP/1.1x', 'GET /live HTTP/1.1x', [ 400, 505 ] ],
	[ 'no path', 'GET HTTP/1.1', [ 400, 505, '' ] ], [ 'only a method', 'GET', [ 400, 505, '' ] ], [ 'garbage', "\x01\x02\x03\xff", [ 400, 505, '' ] ],
	[ 'a space in the path', 'GET /li ve HTTP/1.1', [ 400, '' ] ], [ 'two spaces', 'GET  /live HTTP/1.1', [ 400, '' ] ], [ 'a tab', "GET\t/live HTTP/1.1", [ 400, '' ] ],
	[ 'two spaces before the version', 'GET /live  HTTP/1.1', [ 400, '' ] ], [ 'a space at the end', 'GET /live HTTP/1.1 ', [ 400, 505, '' ] ],
	[ 'a space at the beginning', ' GET /live HTTP/1.1', [ 400, 405, '' ] ],
	[ 'a NUL in the path', "GET /li\x00ve HTTP/1.1", [ 400, '' ] ], [ 'a NUL behind it', "GET /live\x00 HTTP/1.1", [ 400, '' ] ], [ 'a NUL in the method', "GE\x00T /live HTTP/1.1", [ 400, '' ] ],
	[ 'a NUL in the version', "GET /live HTTP/1.1\x00", [ 400, 505, '' ] ], [ 'a bare CR in the path', "GET /live\rX HTTP/1.1", [ 400, '' ] ],
	[ 'a control character in the path', "GET /li\x01ve HTTP/1.1", 400 ], [ 'a DEL in the path', "GET /li\x7fve HTTP/1.1", 400 ], [ 'a control character in the query', "GET /live?a=\x01 HTTP/1.1", 400 ],
	[ 'a method that is no token', 'G@T /live HTTP/1.1', [ 400, '' ] ], [ 'the absolute form', 'GET http://x/live HTTP/1.1', 400 ], [ 'another host in it', 'GET http://y/live HTTP/1.1', 400 ],
	[ 'the asterisk form', 'GET * HTTP/1.1', 400 ], [ 'OPTIONS *', 'OPTIONS * HTTP/1.1', 400 ], [ 'CONNECT', 'CONNECT x:443 HTTP/1.1', [ 400, 501 ] ],
	[ 'a fragment', 'GET /live#x HTTP/1.1', 400 ], [ 'a backslash', 'GET \\live HTTP/1.1', 400 ];

# What is only a bad path or query is answered, and the connection goes on.
for ([ '%00 in the path', '/li%00ve', 400 ], [ '%00 in the query', '/live?a=%00', 400 ], [ '%XX', '/live%XX', 400 ], [ 'half an escape', '/live%4', 400 ], [ 'half an escape in the query', '/live?a=%', 400 ],
	[ 'bytes that are no UTF-8', "/\xff\xfe", 400 ], [ 'escaped bytes that are no UTF-8', '/%ff%fe', 400 ], [ 'overlong UTF-8', '/%c0%af', 400 ], [ 'overlong UTF-8 in a query', '/live?a=%e0%80%af', 400 ],
	[ 'a surrogate', '/%ed%a0%80', 400 ], [ 'beyond Unicode', '/%f4%90%80%80', 400 ], [ 'overlong as bytes', "/\xc0\xaf", 400 ], [ 'a half character', '/%e2%82', 400 ],
	[ 'dots', '/api/../live', 404 ], [ 'escaped dots', '/%2e%2e/live', 404 ], [ 'an escaped slash', '/api%2Fme', 404 ], [ 'a double slash', '//live', 404 ], [ 'a path parameter', '/live;a=b', 404 ],
	[ 'many segments', '/a' x 500, 404 ], [ 'many parameters', '/live?' . join('&', map { "a$_=1" } 1 .. 40), 400 ], [ 'an unknown parameter', '/live?a=1', 400 ])
{
	my ($name, $path, $status) = @$_;
	answered(head('GET', $path) . head('GET', '/live'), [ $status, 200 ], "$name: $status, and the connection goes on");
}
answered(head('GET', '/live', "X: \xff\xfe", "Y: \xc0\xaf"), [200], 'a header that is no UTF-8');
answered(head('GET', '/api/me', "Authorization: Bearer \xff\xfe"), [401], 'a token that is no UTF-8');
answered(head('GET', '/api/me', 'Authorization: Bearer ' . 'a' x 8000), [401], 'a long one');

#
# Methods
#

refused(head($_, '/live', 'Connection: close'), 405, $_, alone => 1) for qw(PATCH TRACE PROPFIND POST PUT DELETE QUERY X get);
my $r = $g->exchange(head('PATCH', '/live', 'Content-Length: 3') . 'abc' . head('GET', '/live'), answers => 2);
is("@{ $r->{statuses} }", '405 200', 'a body that nobody wants is none of the requests');
like($r->{text}, qr/^Allow: GET, HEAD\r$/mi, 'the methods that there are, are told');
$r = $g->exchange(head('OPTIONS', '/api/connectors', 'Connection: close'));
is($r->{statuses}[0], 204, 'OPTIONS');
like($r->{text}, qr/^Allow: GET, HEAD, POST\r$/mi, 'tells them, too');
$r = $g->exchange(head('HEAD', '/openapi.json', 'Connection: close'));
is($r->{statuses}[0] // ($r->{text} =~ /^HTTP\S* (\d+)/)[0], 200, 'HEAD is answered');
like($r->{text}, qr/\r\n\r\n\z/, 'with a head alone');

#
# Several requests, and what surrounds them
#

my @paths = map { $_ % 3 ? "/none-$_" : '/live' } 1 .. 100;
$r = $g->exchange(join('', map { head('GET', $_, "X-Request-Id: " . s{\W}{}gr) } @paths), answers => 100);
is("@{ $r->{statuses} }", join(' ', map { $_ eq '/live' ? 200 : 404 } @paths), 'requests in a row are answered in their order');
is(join(' ', map { $_->{head} =~ /^X-Request-Id: (\w+)/mi } @{ $r->{answers} }), join(' ', map { s{\W}{}gr } @paths), 'each its own, and no other');
my $json = '{"action":"skip"}';
my $token = $g->reader;
my $match = '/api/connectors/c/sync-matches/00000000-0000-4000-8000-000000000000/resolve';
my @auth = ("Authorization: Bearer $token", 'Content-Type: application/json', 'Content-Length: ' . length $json);
$r = $g->exchange((head('POST', $match, @auth) . $json) x 5 . head('GET', '/live'), answers => 6);
is("@{ $r->{statuses} }", '403 403 403 403 403 200', 'with bodies, too');
$r = $g->exchange(head('POST', $match, @auth, 'Expect: 100-continue') . $json, answers => 1);
like($r->{text}, qr{\AHTTP/1\.1 100 Continue\r\n\r\nHTTP/1\.1 403 }, 'who asks whether to go on is told so');
$r = $g->exchange(head('POST', '/none', @auth, 'Expect: 100-continue'));
unlike($r->{text}, qr/100 Continue/, 'but not when the answer is known');
is("@{ $r->{statuses} }", 404, 'and is told that');
$r = $g->exchange(head('POST', '/api/webhooks/c', 'Content-Length: 99999999', 'Expect: 100-continue'));
is("@{ $r->{statuses} }", 413, 'such as that a body is too large');
answered(head('GET', '/live', 'Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA') . head('GET', '/live'), [ 200, 200 ], 'no other protocol is spoken: h2c');
answered(head('GET', '/live', 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==') . head('GET', '/live'), [ 200, 200 ], 'websocket');
refused("PRI * HTTP/2.0$nl${nl}SM$nl$nl", [ 400, 505, '' ], 'HTTP/2 at once');
refused(pack('H*', '16030100c8010000c40303') . join('', map { chr($_ * 7 % 256) } 1 .. 200), [ 400, '' ], 'TLS', half => 1);
answered("GET /live HTTP/1.0$nl$nl", [200], 'HTTP/1.0 needs no Host');
refused("GET /live HTTP/1.0$nl$nl", 200, 'and the connection ends');
answered("GET /live HTTP/1.0${nl}Connection: keep-alive$nl$nl" . "GET /live HTTP/1.0$nl$nl", [ 200, 200 ], 'unless it is kept');

#
# What ends too early
#

my $whole = head('PUT', '/api/connectors/c/secrets/s', 'Authorization: Bearer ' . $g->manager, 'Content-Type: application/json', 'Content-Length: 13') . '{"value":"v"}';
my $in_chunks = head('PUT', '/api/connectors/c/secrets/s', 'Authorization: Bearer ' . $g->manager, 'Content-Type: application/json', 'Transfer-Encoding: chunked') . "5$nl\{\"val${nl}8;x=y${nl}ue\":\"v\"}${nl}0${nl}X: y$nl$nl";
my $impatient = Gateway->new($f, roles => 0, settings => { header_timeout => 2, body_timeout => 2, idle_timeout => 2 });
for my $case ([ 'a request', $whole ], [ 'a request in chunks', $in_chunks ])
{
	my ($name, $bytes) = @$case;
	my %seen;
	my @sockets = map { my $s = $impatient->connect; syswrite $s, substr($bytes, 0, $_); shutdown $s, 1 if $_ % 2; $s } 0 .. length($bytes) - 1;
	for my $s (@sockets)
	{
		my $r = $impatient->exchange('', socket => $s);
		$seen{ join(' ', @{ $r->{statuses} }, $r->{closed} ? () : 'open') || 'nothing' }++;
	}
	is_deeply([ grep { !/^(?:nothing|4\d\d)$/ } sort keys %seen ], [], "$name that ends at any byte does nothing") || diag(explain(\%seen));
	is("@{ $impatient->exchange($bytes, answers => 1)->{statuses} }", 404, 'and whole it is carried out');
}
unlike($impatient->log_text, qr/PUT.*status=(?!0 |404)/, 'nothing else came of it');
is($impatient->stop, 0, 'that server stops, too');
my $slow = $g->connect;
syswrite $slow, $_ for split //, $in_chunks;
is("@{ $g->exchange('', socket => $slow, answers => 1)->{statuses} }", 404, 'byte by byte it is carried out, too');

#
# Afterwards
#

is($g->get('/live')->{status}, 200, 'the server runs');
ok($g->alive, 'and is the same');
my $metrics = $g->get("/metrics")->{content};
is(($metrics =~ /^flohsync_http_requests_active (\d+)/m)[0], 1, 'no request is left');
cmp_ok(($metrics =~ /^flohsync_http_connections (\d+)/m)[0], '<=', 3, 'nor a connection');
my @found = $g->log_text =~ m{path=(/hidden-\d+)}g;
is("@found", '', "none of $hidden hidden requests was one");
is($g->stop, 0, 'it stops');

done_testing();
