# Webhooks that come from anywhere: both schemes of signing, rotation, replay,
# and that whatever is wrong is refused in one and the same way.
use strict;
use warnings;

use Digest::SHA qw(hmac_sha256 hmac_sha256_hex);
use Flohsync;
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
open my $key, '>', "$dir/key" or die $!;
print $key join '', map { sprintf '%02x', int rand 256 } 1 .. 32;
close $key;
chmod 0600, "$dir/key";
my $f = Flohsync->new(upstream => 0, conf => "flohsync.encryption_key_file = '$dir/key'\n");

my $raw = join '', map { chr int rand 256 } 1 .. 24;
my $plain = 'a secret phrase, with blanks';
my $whsec = 'whsec_' . encode_base64($raw, '');
my $query = "'{\"queries\": {\"user\": \"select null::text as external_id, null::text as display_name, null::text as email, null::jsonb as attributes where false\"}}'";
my $acme = $f->sql("select flohsync.create_connector('acme', 'sql', $query)");
$f->sql("select flohsync.create_connector('bare', 'sql', $query)");
sub secret { my ($name, $value, $connector) = @_; $f->sql("select flohsync.set_secret('" . ($connector // 'acme') . "', '$name', " . (defined $value ? literal($value) : 'null') . ')'); return }
secret(webhook => $plain);

# The unprivileged role that a web server has.
$f->sql('create role web login; grant usage on schema flohsync to web; grant execute on function flohsync.receive_webhook(text, bytea, jsonb) to web');

my $nr = 0;
sub body { my (%more) = @_; return json_text({ action => 'updated', resourceId => 'u-1', resourceType => 'user', data => { displayName => 'Name ' . ++$nr }, %more }) }
sub call_sql
{
	my ($body, $headers, $connector) = @_;
	return 'select flohsync.receive_webhook(' . literal($connector // 'acme') . ", '\\x" . unpack('H*', $body) . "', " . (ref $headers ? Flohsync::jsonb($headers) : "'$headers'") . ')';
}
sub short
{
	my ($r) = @_;
	return "$r->{state}: $r->{message}" unless $r->{ok};
	my $answer = decode_json_text($r->{out});
	return $answer->{action} . ' ' . ($answer->{changed} ? 'changed' : 'same');
}
sub receive { return short($f->try_sql(call_sql(@_))) }
sub hex_of { my ($body, $secret) = @_; return { 'X-Webhook-Signature' => hmac_sha256_hex($body, $secret // $plain) } }
sub standard
{
	my ($body, %opt) = @_;
	my $id = $opt{id} // 'msg_' . ++$nr;
	my $at = $opt{at} // time;
	return { 'webhook-id' => $id, 'webhook-timestamp' => "$at", 'webhook-signature' => 'v1,' . encode_base64(hmac_sha256("$id.$at.$body", $opt{secret} // $plain), '') };
}
my $no = '28000: webhook is not authentic';

#
# What is taken
#
my $b = body();
is(receive($b, hex_of($b)), 'updated changed', 'the HMAC in hex');
$b = body();
is(receive($b, { 'x-WEBHOOK-signature' => 'sha256=' . uc hmac_sha256_hex($b, $plain) }), 'updated changed', 'with a prefix, in capitals, and names in any case');
$b = body();
is(receive($b, { 'X-Webhook-Signature' => " \tSHA256=" . hmac_sha256_hex($b, $plain) . ' ', 'X-Other' => [ 1, { a => 2 } ], 'Content-Type' => 'application/json' }), 'updated changed', 'with blanks, and with headers that do not matter');
$b = body();
is(receive($b, hex_of($b), $acme), 'updated changed', 'by the id of the connector');
$b = body();
is(receive($b, standard($b)), 'updated changed', 'Standard Webhooks');
$b = body();
my $numeric = standard($b);
$numeric->{'webhook-timestamp'} += 0;
is(receive($b, $numeric), 'updated changed', 'the timestamp as a number');
$b = body();
my $h = standard($b);
$h->{'webhook-signature'} = 'v1a,' . encode_base64('x' x 64, '') . ' v1,' . encode_base64('y' x 32, '') . "  $h->{'webhook-signature'} v2,zz";
is(receive($b, $h), 'updated changed', 'several signatures, one of them ours');
$b = "\n " . body() . "\r\n\t";
is(receive($b, hex_of($b)), 'updated changed', 'what is signed is the body as it came');
is($f->sql("select display_name from flohsync.connector_resource where external_id = 'u-1'"), "Name $nr", 'and it is stored');
secret(webhook => $whsec);
$b = body();
is(receive($b, standard($b, secret => $raw)), 'updated changed', 'a secret as whsec_ and base64');
$b = body();
is(receive($b, hex_of($b, $whsec)), 'updated changed', 'taken as it is by the other scheme');
secret(webhook => encode_base64($raw, ''));
$b = body();
is(receive($b, standard($b, secret => $raw)), 'updated changed', 'base64 without a prefix');
$b = body();
is(receive($b, standard($b, secret => encode_base64($raw, ''))), 'updated changed', 'which may be the key itself');
# Rotation
secret(webhook => $plain);
secret(webhook_previous => $whsec);
for ([ 'the new secret', hex_of($b = body()), $b ], [ 'the one before', standard($b = body(), secret => $raw), $b ])
{
	is(receive($_->[2], $_->[1]), 'updated changed', $_->[0]);
}
secret('webhook_previous');
$b = body();
is(receive($b, standard($b, secret => $raw)), $no, 'until it is taken away');

#
# Once
#
$b = body();
$h = standard($b, id => 'once');
is(receive($b, $h), 'updated changed', 'a delivery');
is(receive($b, $h), 'duplicate same', 'the same once more');
my $other = body();
is(receive($other, standard($other, id => 'once', at => time + 5)), 'duplicate same', 'tried again later, whatever it says');
is($f->sql("select count(*) from _flohsync.webhook_delivery where webhook_id = 'once'"), 1, 'its id is known');
is(receive($b, standard($b, id => 'once', secret => 'wrong')), $no, 'a duplicate has to be signed as well');
secret(webhook => $plain, 'bare');
is(receive($b, $h, 'bare'), 'updated changed', 'another connector knows nothing of it');
$b = body(action => 'broken');
$h = standard($b, id => 'failed');
like(receive($b, $h), qr/^22023/, 'a delivery that fails');
is($f->sql("select count(*) from _flohsync.webhook_delivery where webhook_id = 'failed'"), 0, 'does not count as seen');
$b = body();
is(receive($b, standard($b, id => 'failed')), 'updated changed', 'and may come again');
$b = body();
$f->try_sql('BEGIN; ' . call_sql($b, $h = standard($b, id => 'rolled-back')) . '; ROLLBACK');
is(receive($b, $h), 'updated changed', 'so may one whose transaction was rolled back');
$b = body();
is(receive($b, { %{ hex_of($b) }, 'Webhook-Id' => 'given' }), 'updated changed', 'the other scheme may give an id as well');
is(receive($b, { %{ hex_of($b) }, 'Webhook-Id' => 'given' }), 'duplicate same', 'it counts once');
is(receive($b, hex_of($b)), 'updated same', 'without one, the same again changes nothing');
$other = body();
is(receive($other, { %{ hex_of($other) }, 'Webhook-Id' => 'given' }), 'updated changed', 'but takes nothing from another body: the id is not signed');
$b = body(occurredAt => '2026-01-01T00:00:00Z', resourceId => 'replayed');
is(receive($b, hex_of($b)), 'updated changed', 'an event with a time');
is(receive(body(occurredAt => '2026-01-02T00:00:00Z', resourceId => 'replayed'), hex_of(body())), $no, 'a signature is that of one body');
$other = body(occurredAt => '2026-01-02T00:00:00Z', resourceId => 'replayed');
receive($other, hex_of($other));
is(receive($b, hex_of($b)), 'ignored same', 'replayed after a later one, it is ignored');
$b = json_text({ grant => 'x' });
is(receive($b, $h = standard($b)), 'entitlement changed', 'an entitlement');
is(receive($b, $h), 'duplicate same', 'once as well');
is($f->sql('select count(*) from flohsync.entitlement_event'), 1, 'is recorded once');
# Sent later, arrived earlier
my $now = time;
$other = body(resourceId => 'order');
$b = body(resourceId => 'order');
is(receive($other, standard($other, at => $now)), 'updated changed', 'of two deliveries');
is(receive($b, standard($b, at => $now - 10)), 'ignored same', 'the one that was sent before and comes after is ignored');
# Two at once: one waits for the other.
for my $end ('COMMIT', 'ROLLBACK')
{
	$b = body(resourceId => "twins $end");
	$h = standard($b);
	$f->sql('select pg_advisory_lock(4711)');
	my $first = $f->start_sql('BEGIN; ' . call_sql($b, $h) . "; SELECT pg_advisory_xact_lock(4711); $end");
	$f->wait_for("select count(*) = 1 from pg_locks where locktype = 'advisory' and not granted") or die 'the first one does not wait';
	my $second = $f->start_sql(call_sql($b, $h));
	$f->comes_true("select count(*) = 1 from pg_locks where locktype = 'transactionid' and not granted", 'two at once: one waits for the other');
	$f->sql('select pg_advisory_unlock(4711)');
	$f->finish($first);
	is(short($f->finish($second)), $end eq 'COMMIT' ? 'duplicate same' : 'updated changed', "which ends with $end");
}

#
# What is not
#
$b = body();
my $good = hex_of($b);
my $sig = $good->{'X-Webhook-Signature'};
my $std = standard($b);
my %bad = (
	'no headers' => {}, 'other headers' => { Authorization => 'Bearer x' }, 'an empty signature' => { 'X-Webhook-Signature' => '' },
	'a prefix alone' => { 'X-Webhook-Signature' => 'sha256=' }, 'another hash' => { 'X-Webhook-Signature' => "sha1=$sig" },
	'one digit less' => { 'X-Webhook-Signature' => substr($sig, 1) }, 'one more' => { 'X-Webhook-Signature' => "${sig}0" },
	'a wrong digit' => { 'X-Webhook-Signature' => substr($sig, 0, 63) . (substr($sig, 63) eq '0' ? '1' : '0') },
	'no hex' => { 'X-Webhook-Signature' => 'g' x 64 }, 'twice' => { %$good, 'x-webhook-signature' => $sig }, 'a list' => { 'X-Webhook-Signature' => [$sig] },
	'a number' => { 'X-Webhook-Signature' => 5 }, 'null' => { 'X-Webhook-Signature' => undef },
	'an id that is none' => { %$good, 'webhook-id' => 'a.b' }, 'an empty id' => { %$good, 'webhook-id' => '' }, 'a long id' => { %$good, 'webhook-id' => 'x' x 256 },
	'another secret' => hex_of($b, 'other'), 'the signature of another body' => hex_of("$b "), 'an empty secret' => hex_of($b, ''),
	'no id' => { %$std, 'webhook-id' => undef }, 'an id with a dot' => standard($b, id => 'a.b'), 'another id' => { %$std, 'webhook-id' => 'other' },
	'no timestamp' => { 'webhook-id' => 'x', 'webhook-signature' => $std->{'webhook-signature'} }, 'another timestamp' => { %$std, 'webhook-timestamp' => $std->{'webhook-timestamp'} + 1 },
	'a timestamp with a sign' => standard($b, at => '+' . time), 'with blanks' => standard($b, at => time . ' 1'), 'a fraction' => standard($b, at => time . '.5'),
	'a word' => standard($b, at => 'now'), 'too old' => standard($b, at => time - 302), 'too new' => standard($b, at => time + 303), 'in milliseconds' => standard($b, at => time . '000'),
	'without a version' => { %$std, 'webhook-signature' => substr($std->{'webhook-signature'}, 3) }, 'of another version' => { %$std, 'webhook-signature' => $std->{'webhook-signature'} =~ s/v1/v2/r },
	'base64 cut' => { %$std, 'webhook-signature' => substr($std->{'webhook-signature'}, 0, -1) }, 'separated by commas' => { %$std, 'webhook-signature' => "v1,x,$std->{'webhook-signature'}" },
	'the seventeenth of a list' => { %$std, 'webhook-signature' => 'v1,x ' x 16 . $std->{'webhook-signature'} },
	'a good one of the other scheme beside a bad one' => { %$good, %$std, 'webhook-signature' => 'v1,' . encode_base64('x' x 32, '') },
	'hex in the other header' => { %$std, 'webhook-signature' => "v1,$sig" },
);
my $before = $f->sql('select hashtextextended(string_agg(r::text, $$$$ order by record_no), 0)::text from flohsync.resource_record r');
is(receive($b, $bad{$_}), $no, "not taken: $_") for sort keys %bad;
is(receive($b, $good, 'nobody'), $no, 'no such connector');
is(receive($b, $good, '00000000-0000-0000-0000-000000000000'), $no, 'nor by id');
secret(webhook => undef, 'bare');
is(receive($b, $good, 'bare'), $no, 'no secret');
is(receive($b, hex_of($b, ''), 'bare'), $no, 'and that is not an empty one');
is($f->try_sql("select flohsync.receive_webhook($_)")->{state}, '28000', "null: $_") for "null, '{}', '{}'", "'acme', null, '{}'", "'acme', '{}', null";
is($f->sql('select hashtextextended(string_agg(r::text, $$$$ order by record_no), 0)::text from flohsync.resource_record r'), $before, 'none of these changed anything');
# Who asks learns nothing from the answer; the log tells why.
my %texts = map { (($f->try_sql($_)->{text} =~ s/^psql:<stdin>:\d+: //r =~ s/LOCATION: .*//sr) => 1) }
  call_sql($b, $bad{'a wrong digit'}), call_sql($b, $good, 'nobody'), call_sql($b, $good, 'bare'), call_sql($b, $bad{'no headers'}), call_sql($b, $bad{'too old'}), call_sql($b, $bad{'an id with a dot'}, 'nobody');
is(scalar(keys %texts), 1, 'all are refused in the same words');
my $log = slurp_file($f->node->logfile);
like($log, qr/Reason: .*$_/, "the log says: $_") for 'there is no such connector, or it has no secret', 'no secret of the connector has made', 'more than five minutes off', 'occurs more than once';
unlike($log, qr/\Q$_\E/, 'and no secret') for $plain, $whsec;
for my $off (-297, 297)
{
	$b = body(resourceId => "off $off");
	is(receive($b, standard($b, at => time + $off)), 'updated changed', "$off seconds off");
}

#
# Bodies that are signed and nonsense
#
sub signed { my ($body) = @_; return $f->try_sql(call_sql($body, hex_of($body))) }
for (
	[ '', '22P02', 'nothing' ], [ '{', '22P02', 'half of it' ], [ body() . '{}', '22P02', 'two of it' ], [ 'null', '22023', 'null' ], [ '[]', '22023', 'a list' ], [ '"x"', '22023', 'a text' ],
	[ "{\"a\": \"\xff\"}", '22021', 'bytes that are no UTF-8' ], [ "{\"a\": \"\xed\xa0\x80\"}", '22021', 'half of a surrogate pair in UTF-8' ], [ "{\"a\": \"\0\"}", '22021', 'a NUL' ],
	[ '{"a": "\u0000"}', '22023', 'an escaped NUL' ], [ '{"a": "\ud800"}', '22023', 'half of an escaped surrogate pair' ], [ '{"a": 1e131071}', '22023', 'a bomb' ],
	[ '{"a": ' . '9' x 5000 . '}', '22023', 'a number of 5000 digits' ], [ '{"a": ' . '[' x 100 . ']' x 100 . '}', '22023', 'a deep one' ], [ '{"a": ' . '[' x 200000 . ']' x 200000 . '}', '22023', 'a very deep one' ],
	[ '[' x 500000, '22P02', 'a very deep one without an end' ], [ '{"a": NaN}', '22P02', 'what is no number' ], [ "{'a': 1}", '22P02', 'no JSON' ],
	[ body() . ' ' x (1024 * 1024), '54000', 'more than a megabyte' ])
{
	is(signed($_->[0])->{state}, $_->[1], "signed, but $_->[2]");
}
is($f->try_sql(call_sql('x' x (1024 * 1024 + 1), {}, 'nobody'))->{state}, '54000', 'what is too large is not even verified');
is($f->try_sql(call_sql($b, { map { ("x-$_" => 'y' x 1000) } 1 .. 70 }))->{state}, '54000', 'too many headers');
is($f->try_sql(call_sql($b, $_))->{state}, '22023', "headers that are no object: $_") for '[]', '"x"', 'null';
$b = json_text({ action => 'updated', resourceId => 'large', resourceType => 'user', data => { attributes => { text => 'x' x 1000000 } } });
is(short(signed($b)), 'updated changed', 'almost a megabyte');
$b = json_text({ action => 'updated', resourceId => 'many', resourceType => 'user', data => { attributes => { map { ("k$_" => $_) } 1 .. 50000 } } });
is(short(signed($b)), 'updated changed', 'fifty thousand attributes');
is(short(signed("\xef\xbb\xbf" . body())), 'updated changed', 'a byte order mark before it is skipped');
# What is made of a body is what jsonb makes of the same text.
$f->sql(q{create table public.bodies (body jsonb); grant insert on public.bodies to flohsync_nobody;
	create function public.keep(jsonb) returns boolean language sql as 'insert into public.bodies values ($1) returning true'; select flohsync.set_entitlement_handler('public.keep(jsonb)')});
srand 5;
my @plain = ('null', 'true', 'false', '{}', '[]', '""', '0', '-0', '-0.0', '1.0', '1.50', '12E3', '1e-5', '-1.5e+2', '0e0', '0.000', '1e400', '1e-300', '999999999999999999', '-999999999999999999',
	'-99999999999999999', '1000000000000000000', '9223372036854775808', '12345678901234567890.123', '"\\u0001\\b\\f\\n\\r\\t\\/\\\\\\""', '"\\u00e4\\u20AC\\uD83D\\ude00"', "\"\xc3\xa4\xe2\x82\xac\"", '"' . 'x' x 70000 . '"', '{"a": 1, "a": 2, "\\u0061": [3]}', '{"b": 1, "": 2, "aa": 3, "a": {"z": [], "y": {}}}');
sub any_json
{
	my ($depth) = @_;
	my $kind = $depth > 4 ? 0 : int rand 4;
	my $gap = ('', ' ', "\n\t")[ rand 3 ];
	return $plain[ rand @plain ] if $kind < 2;
	return "[$gap" . join("$gap,", map { any_json($depth + 1) } 1 .. rand 5) . ']' if $kind == 2;
	return '{' . join(",$gap", map { '"' . (qw(a b aa \\u0062 \\n key), '')[ rand 7 ] . "\"$gap:" . any_json($depth + 1) } 1 .. rand 6) . "$gap}";
}
my $alike = 0;
my @texts = (@plain, map { any_json(0) } 1 .. 200);
for my $text (@texts)
{
	my $body = "{\"a body\": $text}";
	$f->sql('truncate public.bodies');
	my $answer = short(signed($body));
	my $same = $f->sql('select count(*) from public.bodies where jsonb_send(body) = jsonb_send(' . literal($body) . '::jsonb) and body = ' . literal($body) . '::jsonb');
	$alike++ if $answer eq 'entitlement changed' && $same == 1;
	diag("$answer $same: " . substr($body, 0, 300)) if $answer ne 'entitlement changed' || $same != 1;
}
is($alike, scalar @texts, 'a body becomes the jsonb of its text');
$f->sql('select flohsync.set_entitlement_handler(null)');
# Spoilt at random: nothing but a clean answer, whatever comes.
srand 4;
my %outcome;
for my $round (1 .. 600)
{
	my $body = json_text({ action => (qw(created updated deleted))[ rand 3 ], resourceId => 'fuzz-' . int(rand 5), resourceType => 'user', timestamp => '2026-01-31T12:00:00Z',
			data => { displayName => "N\\u00e4me \\n", email => 'x@y', attributes => { a => [ 1.5e3, -0, undef, { b => JSON::PP::true } ] } } });
	for (1 .. 1 + rand 3)
	{
		my $at = int rand length $body;
		my $what = rand;
		if ($what < 0.4) { substr($body, $at, 1) = chr int rand 256 }
		elsif ($what < 0.6) { substr($body, $at, 1 + rand 8) = '' }
		elsif ($what < 0.8) { substr($body, $at, 0) = ('{', '}', '[', ']', '"', '\\u0000', '\\ud800', '1e999', ':', ',', 'null', "\0", "\xff")[ rand 13 ] }
		else { substr($body, $at, 0) = substr($body, int rand length $body, 1 + rand 20) }
		$body = ' ' if $body eq '';
	}
	my $r = signed($body);
	$outcome{ $r->{ok} ? 'taken' : $r->{state} }++;
}
is(join(' ', grep { !/^(taken|22023|22P02|22021)$/ } sort keys %outcome), '', 'six hundred spoilt bodies: taken, or refused for what they are: ' . join ', ', map { "$_ $outcome{$_}" } sort keys %outcome);
for my $round (1 .. 300)
{
	my $body = body();
	my %headers = (%{ hex_of($body) }, %{ standard($body) });
	for (1 .. 1 + rand 3)
	{
		my $name = (keys %headers)[ rand keys %headers ];
		my $at = int rand 1 + length $headers{$name};
		substr($headers{$name}, $at, rand 3) = (',', ' ', '.', '=', 'v1', '0', "\x{7f}", "\n", 'z' x 50)[ rand 9 ];
	}
	my $r = $f->try_sql(call_sql($body, \%headers));
	$outcome{h}{ $r->{ok} ? 'taken' : $r->{state} }++;
}
is(join(' ', grep { !/^(taken|28000)$/ } sort keys %{ $outcome{h} }), '', 'three hundred spoilt signatures: taken, or not');

#
# Rights
#
sub as_web { my ($sql) = @_; return $f->try_sql("SET SESSION AUTHORIZATION web; $sql") }
$b = body();
is(as_web(call_sql($b, hex_of($b)) . " ->> 'changed', current_user")->{out}, 'true|web', 'a role that may nothing else can hand webhooks over');
is(as_web($_)->{state}, '42501', "but not: $_") for 'select * from _flohsync.connector_secret', "select flohsync.handle_webhook('acme', '{}')",
  "select flohsync.upsert_resource('acme', 'user', '{}')", 'select * from flohsync.connector_resource', 'select * from _flohsync.webhook_delivery', 'set role flohsync_worker',
  'do $$ begin perform ' . (call_sql($b, {}) =~ s/^select //r) . '; exception when others then perform 1 from _flohsync.connector_secret; end $$';
is(as_web(call_sql($b, {}))->{state}, '28000', 'nor without a signature');
$f->sql("select flohsync.update_connector('acme', '{\"enabled\": false}')");
is(receive($b = body(), $bad{'no headers'}), $no, 'of a disabled connector nobody learns anything without a signature');
is($f->try_sql(call_sql($b, hex_of($b)))->{state}, '55000', 'with one it is told');
$f->sql("select flohsync.update_connector('acme', '{\"enabled\": true}')");

# A key file that is gone
rename "$dir/key", "$dir/gone";
is(receive($b = body(), hex_of($b)), $no, 'a secret that cannot be decrypted makes nothing authentic');
like(slurp_file($f->node->logfile), qr/Reason: secret "webhook" cannot be decrypted/, 'the log says so');
rename "$dir/gone", "$dir/key";
is(receive($b = body(), hex_of($b)), 'updated changed', 'there again');

# What is old is forgotten
$f->sql("update _flohsync.webhook_delivery set received_at = now() - interval '8 days' where webhook_id = 'once';
	insert into _flohsync.resource_tombstone (external_id, resource_type, connector_id, deleted_at) select x, 'user', '$acme', now() - y from (values ('old', interval '8 days'), ('young', interval '6 days')) v(x, y)");
$f->configure('acme', 'user', staleRetention => '7d');
$f->sql("select _flohsync.forget_webhooks('30 days')");
# a worker that was woken may be doing the same
$f->comes_true("select count(*) filter (where webhook_id = 'once') = 0 and count(*) > 10 from _flohsync.webhook_delivery", 'ids after a week');
is($f->sql("select string_agg(external_id, ' ' order by external_id) from _flohsync.resource_tombstone where external_id ~ '^(old|young)\$'"), 'young', 'tombstones after the retention');
$f->configure('acme', 'user', staleRetention => '1h');
$f->sql("select _flohsync.forget_webhooks('30 days')");
is($f->sql("select count(*) from _flohsync.resource_tombstone where external_id = 'young'"), 1, 'but no less than a week');

# A connector takes them with it, without a foreign key.
$f->sql("select flohsync.drop_connector('acme')");
is($f->sql("select count(*) from _flohsync.webhook_delivery where connector_id = '$acme'"), 0, 'a connector that is deleted leaves no ids behind');

$f->no_crash;
done_testing;
