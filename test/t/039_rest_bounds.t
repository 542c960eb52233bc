# Connectors of kind rest: what an upstream cannot do to us, secrets that it sends back in links,
# the memory that paths take, and records that hold only what has changed.
use strict;
use warnings;

use Flohsync;
use JSON::PP;
use Rest;
use Test::More;

my $f = Rest->new(conf => "flohsync.http_max_attempts = 1\n");
my $nr = 0;
my $c;
my $dir = PostgreSQL::Test::Utils::tempdir();

sub page { my ($body, %o) = @_; $f->fault('body', type => 'user', times => 1, body => ref $body ? json_text($body) : $body, %o) }
sub begin { my ($style, %o) = @_; $c = 'b' . ++$nr; $f->up('heal'); $f->rest($c, $style, %o); return }

#
# Secrets in what an answer gives to go on with
#
$f->fresh(user => 30);
my $secret = 'Canary' . join('', map { ('a' .. 'z', 'A' .. 'Z', 0 .. 9)[ rand 62 ] } 1 .. 20);
my %key = (auth => { type => 'api_key', query => 'api_key', value => '{{secret.key}}' }, secrets => { key => $secret });
sub shown { return $f->sql("SELECT count(*) FROM (SELECT to_jsonb(r)::text FROM flohsync.sync_run r UNION ALL SELECT to_jsonb(p)::text FROM flohsync.sync_run_page p UNION ALL SELECT to_jsonb(c)::text FROM flohsync.connector_sync_config c) x(t) WHERE t ILIKE '%$secret%'") }
my $ann = { externalId => '1', displayName => 'Ann' };

for my $name (qw(api_key api%5Fkey %61pi_key API_KEY))
{
	begin('next', %key);
	page({ value => [$ann], '@odata.nextLink' => "/rest/next/users?p=2&$name=$secret&\$top=20" });
	$f->sync_ok($c, 'user', "a link with the key as $name");
	is($f->sql("SELECT next_cursor FROM flohsync.sync_run_page WHERE page = 1 ORDER BY run_id DESC LIMIT 1"), $f->origin . '/rest/next/users?p=2&$top=20', "a link with the key as $name: is followed without it");
}
for ([ 'next', '@odata.nextLink', "/rest/next/users?other=$secret" ], [ 'next', '@odata.nextLink', '/rest/next/users?o=' . join('', map { sprintf '%%%02x', ord } split //, $secret) ], [ 'cursor', 'nextCursor', "p2:$secret" ])
{
	my ($style, $member, $value) = @$_;
	begin($style, %key);
	page({ value => [$ann], resources => [$ann], $member => $value });
	$f->ends_with($c, 'user', 'bad_answer', qr/holds a secret/, "$style, the key elsewhere in it");
}
begin('delta', %key, strategy => 'incremental', list => { incremental => { type => 'delta_link', path => '$."@odata.deltaLink"', start_path => '/users/delta' } });
page({ value => [$ann], '@odata.deltaLink' => "/rest/delta/users/delta?x=$secret" });
$f->ends_with($c, 'user', 'bad_answer', qr/holds a secret/, 'a delta link with the key');

# ... and in messages
begin('next', %key);
page({ value => [$ann], '@odata.nextLink' => "http://$secret.example/" });
$f->ends_with($c, 'user', 'blocked_address', qr/leads to http:\/\/\*\*\*\.example/, 'a link to a host named like the key');
begin('next', %key);
$f->fault('redirect', type => 'user', times => 1, location => "http://$secret.example/");
$f->ends_with($c, 'user', 'http_status', qr/another origin, http:\/\/\*\*\*\.example/, 'a redirect to a host named like the key');
is(shown(), 0, 'the key is nowhere in runs, pages and configurations');

#
# Paths that PostgreSQL evaluates
#
{
	my @paths = map { "strict \$.nothing$_.type()" } 1 .. 9;
	begin('next', map => { externalId => '$.id', displayName => [ @paths, '$.name.keyvalue().value' ], email => [@paths], attributes => '$.** ? (@.deep == true)' });
	my $text = 'x' x 9000;
	page('{"value":[' . join(',', map { qq({"id":"$_","name":{"a":"N$_"},"in":{"deep":true,"nr":$_},"text":"$text"}) } 1 .. 2000) . ']}');
	my $run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
	my ($peak, $pid) = (0);
	until ($f->run_row($run)->{status} !~ /queued|running/)
	{
		$pid //= $f->worker_pid || undef;
		next unless $pid && open(my $s, '<', "/proc/$pid/status");
		my ($kb) = join('', <$s>) =~ /RssAnon:\s+(\d+)/;
		$peak = $kb if $kb && $kb > $peak;
	}
	is($f->run_row($run)->{status}, 'success', 'paths for PostgreSQL: the run succeeds') or diag($f->run_row($run)->{error});
	is($f->sql('SELECT count(*) ' . $f->scope($c, 'user') . " AND email IS NULL AND display_name = 'N' || external_id AND attributes = jsonb_build_object('deep', true, 'nr', external_id::int)"), 2000, 'paths for PostgreSQL: each record has its own values');
	cmp_ok($peak, '<', 250_000, 'paths for PostgreSQL: memory does not grow with records and paths') if $peak;
	note("peak $peak kB");
}

$f->invariants;
$f->no_crash;
done_testing();
