# Hooks.pm: what tests of webhooks share that come as their senders send them:
# connectors with a scheme, signatures of each, and what came of a delivery.
package Hooks;

use strict;
use warnings;

use Digest::SHA qw(hmac_sha256 hmac_sha256_hex);
use Flohsync;
use MIME::Base64 qw(encode_base64);
use Rest;
use Test::More;

our @ISA = ('Rest');

our $secret = 'the secret of the sender, 24+ characters';
my $nr = 0;

# A connector of kind sql that lists nothing, with what its config says of webhooks.
sub plain
{
	my ($self, $name, $webhook) = @_;
	my $query = 'select null::text as external_id, null::text as display_name, null::text as email, null::jsonb as attributes where false';
	$self->sql('SELECT flohsync.create_connector(' . literal($name) . ", 'sql', " . Flohsync::jsonb({ queries => { user => $query }, $webhook ? (webhook => $webhook) : () }) . ')');
	$self->secret($name, 'webhook', $secret);
	return;
}

# The headers that a sender signs a body with; %o: secret, at, id
sub signed
{
	my ($scheme, $body, %o) = @_;
	my $key = $o{secret} // $secret;
	my $at = $o{at} // time;
	my $id = $o{id} // 'msg-' . ++$nr;
	my $standard = 'v1,' . encode_base64(hmac_sha256("$id.$at.$body", $key), '');
	return { 'webhook-id' => $id, 'webhook-timestamp' => "$at", 'webhook-signature' => $standard } if $scheme eq 'standard';
	return { 'svix-id' => $id, 'svix-timestamp' => "$at", 'svix-signature' => $standard } if $scheme eq 'svix';
	return { 'x-webhook-signature' => hmac_sha256_hex($body, $key) } if $scheme eq 'hmac_hex';
	return { 'x-hub-signature-256' => 'sha256=' . hmac_sha256_hex($body, $key), 'x-github-event' => $o{event} // 'organization', 'x-github-delivery' => $id } if $scheme eq 'github';
	return { 'x-slack-signature' => 'v0=' . hmac_sha256_hex("v0:$at:$body", $key), 'x-slack-request-timestamp' => "$at" } if $scheme eq 'slack';
	return { authorization => $key } if $scheme eq 'okta';
	return {} if $scheme eq 'graph';
	die "no scheme $scheme";
}

sub bytes { my ($body) = @_; return "'\\x" . unpack('H*', $body) . "'" }
sub receive_sql { my ($connector, $body, $headers) = @_; return 'SELECT flohsync.receive_webhook(' . literal($connector) . ', ' . bytes($body) . ', ' . Flohsync::jsonb($headers) . ')' }

# What came of a try: "action changed", "n events changed", or "SQLSTATE: message".
sub outcome
{
	my ($r) = @_;
	return "$r->{state}: $r->{message}" unless $r->{ok};
	my $answer = decode_json_text($r->{out});
	return "answer: $r->{out}" unless $answer->{accepted};
	return (defined $answer->{events} ? "$answer->{events} events" : $answer->{action}) . ' ' . ($answer->{changed} ? 'changed' : 'same');
}
sub receive { my ($self, $connector, $body, $headers) = @_; return outcome($self->try_sql(receive_sql($connector, $body, $headers))) }

# By the function of the HTTP layer: the answer, or "SQLSTATE: message".
sub answer_sql
{
	my ($connector, $method, $query, $headers, $body) = @_;
	return 'SELECT _flohsync.answer_webhook(' . join(', ', literal($connector), defined $method ? literal($method) : 'NULL', Flohsync::jsonb($query), Flohsync::jsonb($headers), defined $body ? bytes($body) : 'NULL') . ')';
}
sub answer
{
	my ($self, @request) = @_;
	my $r = $self->try_sql(answer_sql(@request));
	return $r->{ok} ? json_text(decode_json_text($r->{out})) : "$r->{state}: $r->{message}";
}

# "name|email|attributes", with "stale" behind it where it is
sub row { my ($self, $connector, $type, $id) = @_; return $self->sql("select concat_ws('|', display_name, email, attributes::text, case when stale_since is not null then 'stale' end) " . $self->scope($connector, $type) . ' and external_id = ' . literal($id)) }

1;
