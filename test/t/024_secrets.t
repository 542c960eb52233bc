# Secrets: what is stored, what is sent, and that a clear text is nowhere else.
use strict;
use warnings;

use Digest::SHA qw(hmac_sha256_hex);
use Flohsync;
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Utils;
use POSIX qw(mkfifo);
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $libs = (PostgreSQL::Test::Cluster->new('probe'))->config_data('--pkglibdir');
my @libraries = grep { -e "$libs/$_.so" } qw(pg_stat_statements auto_explain);
my $f = Flohsync->new(
	preload => 0, records => 'user=30,group=5',
	conf => "shared_preload_libraries = '" . join(', ', 'flohsync', @libraries) . "'\nlog_parameter_max_length_on_error = -1\n");
my $key = join '', map { sprintf '%02x', int rand 256 } 1 .. 32;
my $next_key = join '', map { sprintf '%02x', int rand 256 } 1 .. 32;
my $canary = 'canary' . join '', map { ('a' .. 'z', 0 .. 9)[ rand 36 ] } 1 .. 26;
my @planted;    # every clear text that was ever given to the server

sub canary { my $c = $canary . @planted; push @planted, $c; return $c }

sub key_file
{
	my ($name, $content, $mode) = @_;
	unlink "$dir/$name";
	open my $out, '>', "$dir/$name" or die "$dir/$name: $!";
	print $out $content;
	close $out;
	chmod $mode // 0600, "$dir/$name";
	return "$dir/$name";
}

# Settings of the configuration file; waits until a session has them.
sub settings
{
	my %set = @_;
	for (sort keys %set)
	{
		$f->sql("ALTER SYSTEM SET flohsync.$_ = " . literal($set{$_}));
	}
	$f->sql('SELECT pg_reload_conf()');
	# A worker that is on its way out may hear of it later than we do.
	$f->wait_for("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type LIKE 'flohsync worker%')");
	$f->wait_for("SELECT current_setting('flohsync.$_') = " . literal($set{$_})) or die "$_ is not set" for keys %set;
	return;
}

sub set_secret { my ($connector, $name, $value) = @_; return 'SELECT flohsync.set_secret(' . join(', ', map { defined $_ ? literal($_) : 'NULL' } $connector, $name, $value) . ')' }

# Nothing gives a secret out but a request that it is sent with: what came with the last one of a test.
sub sent
{
	my ($connector, $db) = @_;
	$f->clear_log;
	$f->sql('SELECT flohsync.test_connector(' . literal($connector) . ')', $db);
	my $headers = (($f->requests)[-1] // {})->{headers};
	return $headers->{'x-value'} // ($headers->{authorization} // '') =~ s/^Bearer //r;
}

$f->connector('acme', types => [ 'user', 'group' ]);
$f->connector('other');
# One whose secret may hold what no bearer token does
$f->sql("SELECT flohsync.create_connector('box', 'rest', '{}', '{\"version\": 1, \"base_url\": \"" . $f->url . "rest/link\", \"auth\": {\"type\": \"api_key\", \"header\": \"X-Value\", \"value\": \"{{secret.value}}\"}, \"resources\": {\"user\": {\"list\": {\"path\": \"/users\"}, \"map\": {\"externalId\": \"\$.externalId\"}}}}')");

#
# The key file
#

$f->fails_like(set_secret('acme', 'token', canary()), 'F0000', qr/flohsync\.encryption_key_file is not set.*HINT:.*openssl rand -hex 32/s, 'without a key file nothing is stored, and a hint says what to do');
for my $case (
	[ 'readable by the group', sub { key_file('k', "$key\n", 0640) }, qr/its mode must be 0600/ ],
	[ 'readable by all', sub { key_file('k', "$key\n", 0604) }, qr/its mode must be 0600/ ],
	[ 'writable by all', sub { key_file('k', "$key\n", 0602) }, qr/its mode must be 0600/ ],
	[ 'too short', sub { key_file('k', substr($key, 1) . "\n") }, qr/does not contain 64 hex digits/ ],
	[ 'too long', sub { key_file('k', "${key}0\n") }, qr/does not contain 64 hex digits/ ],
	[ 'much too long', sub { key_file('k', $key x 1000) }, qr/does not contain 64 hex digits/ ],
	[ 'no hex digits', sub { key_file('k', 'g' . substr($key, 1) . "\n") }, qr/does not contain 64 hex digits/ ],
	[ 'two lines', sub { key_file('k', substr($key, 0, 63) . "\n" . 'a') }, qr/does not contain 64 hex digits/ ],
	[ 'empty', sub { key_file('k', '') }, qr/does not contain 64 hex digits/ ],
	[ 'a link', sub { my $t = key_file('real', "$key\n"); unlink "$dir/k"; symlink $t, "$dir/k" or die; "$dir/k" }, qr/it is a symbolic link/ ],
	[ 'a folder', sub { unlink "$dir/k"; mkdir "$dir/d"; "$dir/d" }, qr/it is not a regular file/ ],
	[ 'a pipe', sub { mkfifo("$dir/p", 0600) or die; "$dir/p" }, qr/it is not a regular file/ ],
	[ 'a device', sub { '/dev/zero' }, qr/it is not a regular file/ ],
	[ 'not there', sub { "$dir/nothing" }, qr/No such file or directory/ ],
	[ 'not readable', sub { key_file('k', "$key\n", 0000) }, $> == 0 ? undef : qr/Permission denied/ ],
	[ 'somebody else\'s', sub { '/etc/hostname' }, qr/its mode must be 0600|is owned neither by/ ])
{
	my ($name, $make, $says) = @$case;
	next unless $says;
	settings(encryption_key_file => $make->());
	$f->fails_like(set_secret('acme', 'token', canary()), 'F0000', $says, "a key file that is $name is refused");
}
is($f->sql('SELECT count(*) FROM _flohsync.connector_secret'), 0, 'and nothing was stored');

settings(encryption_key_file => key_file('k', "$key\n"));
$f->sql(set_secret('acme', 'token', my $token = canary()));
is(sent('acme'), $token, 'with a key file a secret is stored, and read again');
key_file('k', uc $key);
is(sent('acme'), $token, 'the same key in other letters, without an end of line');

#
# set_secret
#

is($f->sql("SELECT connector || ' ' || name || ' ' || (updated_at <= now()) FROM flohsync.connector_secrets"), 'acme token true', 'the view tells which secrets there are');
my $before = $f->sql('SELECT encode(ciphertext, \'hex\') FROM _flohsync.connector_secret');
$f->sql(set_secret('acme', 'token', $token));
isnt($f->sql('SELECT encode(ciphertext, \'hex\') FROM _flohsync.connector_secret'), $before, 'the same secret again makes another ciphertext');
is($f->sql('SELECT length(ciphertext) FROM _flohsync.connector_secret'), 28 + length $token, 'of nonce, text and tag');
$f->sql(set_secret('acme', 'webhook', my $long = canary() . 'ü' x 30000));
my $event = '{"action": "updated", "resourceType": "user", "resourceId": "x", "data": {}}';
my $receive = "SELECT flohsync.receive_webhook('acme', '$event', '{\"X-Webhook-Signature\": \"" . hmac_sha256_hex($event, $long) . "\"}')";
like($f->sql($receive), qr/"accepted": true/, 'a long one with letters that are not ASCII');
# A name that the connector does not look for, or the secret in its place
{
	my $kept = $f->sql('SELECT count(*) FROM _flohsync.connector_secret');
	$f->sql("SELECT flohsync.create_connector('query', 'sql', '{\"queries\": {\"user\": \"SELECT NULL::text AS external_id, NULL::text AS display_name, NULL::text AS email, NULL::jsonb AS attributes\"}}')");
	for ([ 'acme', 'Token' ], [ 'acme', 'rather.secret' ], [ 'query', 'token' ])
	{
		my ($c, $name) = @$_;
		my $said = $f->try_sql('SET client_min_messages = notice; ' . set_secret($c, $name, 'x'));
		ok($said->{ok} && $said->{text} =~ /connector "$c" uses no secret of this name.*It looks for @{[ $c eq 'acme' ? 'token, ' : '' ]}webhook, webhook_previous/s, "$c: a name that it does not look for is remarked") or diag($said->{text});
		unlike($said->{text}, qr/\Q$name\E/, 'and not repeated');
		$f->sql(set_secret($c, $name, undef));
	}
	unlike($f->try_sql('SET client_min_messages = notice; ' . set_secret('acme', 'token', $token))->{text}, qr/NOTICE/, 'one that it looks for is not');
	$f->sql("SELECT flohsync.drop_connector('query')");
	is($f->sql('SELECT count(*) FROM _flohsync.connector_secret'), $kept, 'all is as it was');
}
$f->sql(set_secret('acme', 'webhook', undef));
is($f->sql("SELECT count(*) FROM flohsync.connector_secrets WHERE connector = 'acme' AND name = 'webhook'"), 0, 'null removes a secret');
$f->fails_like($receive, '28000', qr/not authentic/, 'which is of no use any more');
$f->sql(set_secret('acme', 'webhook', undef));
pass('and may do so twice');
is($f->sql("SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc WHERE pronamespace IN ('flohsync'::regnamespace, '_flohsync'::regnamespace) AND proname ~ 'secret' AND prorettype NOT IN ('void'::regtype, 'bigint'::regtype)"),
	'api_delete_secret api_secrets api_set_secret', 'no function gives a secret out, but for three that HTTP serves');
my $served = set_secret('acme', 'served', canary()) =~ s/flohsync\.set_secret/flohsync_api.set_secret/r;
is($f->sql($served), '', 'of which one answers nothing');
like($f->sql("SELECT flohsync_api.secrets('acme')"), qr/"name": "served"/, 'one has the names');
unlike($f->sql("SELECT flohsync_api.secrets('acme')"), qr/$canary/, 'without the values');
is($f->sql("SELECT flohsync_api.delete_secret('acme', 'served')"), '', 'and the third answers nothing, too');
$f->fails_like(set_secret('acme', 'token', ''), '22023', qr/1 to 65536 bytes.*null value removes/s, 'an empty one is refused');
$f->fails_like(set_secret('acme', 'token', canary() . 'x' x 65536), '22023', qr/1 to 65536 bytes/, 'a huge one is refused');
$f->fails_like(set_secret('acme', canary() . ' a', 'x'), '22023', qr/not a valid name of a secret/, 'a bad name is refused');
unlike($f->try_sql(set_secret('acme', "$canary a", 'x'))->{text}, qr/ERROR:.*$canary/, 'and not repeated');
$f->fails_like(set_secret('acme', undef, canary()), '22023', qr/"name".*null/, 'no name is refused');
$f->fails_like(set_secret('nobody', 'token', canary()), '42704', qr/connector does not exist.*in this order/s, 'an unknown connector is refused');
unlike($f->try_sql(set_secret(canary(), 'token', 'acme'))->{text}, qr/$canary/, 'and not repeated: it may be the secret');
is(sent('acme'), $token, 'none of it changed the secret');

$f->sql('CREATE ROLE visitor LOGIN');
for my $sql ("SELECT flohsync.set_secret('acme', 'token', 'x')", 'SELECT flohsync.rotate_secrets()',
	'SELECT * FROM _flohsync.connector_secret', 'SELECT * FROM flohsync.connector_secrets', 'SHOW flohsync.encryption_key_file', 'SHOW flohsync.encryption_key_file_previous')
{
	$f->fails_like("SET ROLE visitor; $sql", '42501', qr/permission denied|must be superuser/, "nobody else may: $sql");
}
$f->fails_like("SET flohsync.encryption_key_file = '/tmp/mine'", '55P02', qr/cannot be changed now/, 'no session names a key file');

#
# What is done with it
#

$f->up('options', token => $token);
$f->sync_ok('acme', 'user', 'the token is sent');
is(($f->requests)[-1]{headers}{authorization}, "Bearer $token", 'as a bearer token');
ok($f->json("SELECT flohsync.test_connector('acme')")->{types}{user}{ok}, 'test_connector sends it, too');
$f->sync_fails('other', 'user', qr/401/, 'another connector does not have it');
$f->clear_log;
$f->sync_fails('other', 'user', qr/401/, 'nor has it');
ok(!exists(($f->requests)[-1]{headers}{authorization}), 'any header of the kind');

$f->sql(set_secret('acme', 'token', my $wrong = canary()));
$f->sync_fails('acme', 'user', qr/401/, 'a wrong token fails the run');
unlike(json_text($f->last_run('acme', 'user')) . json_text($f->status('acme', 'user')), qr/$canary/, 'without telling the token');
like(json_text($f->json("SELECT flohsync.test_connector('acme')")), qr/"ok":false.*401/, 'test_connector tells of it');

# An upstream that sends back what it was sent, in all sorts of ways.
my %echo = (
	'as it is' => $wrong,
	'in JSON' => '{"success":false,"error":"no such token: ' . $wrong . '!"}',
	'escaped' => '{"error":"' . join('', map { sprintf '\u%04x', ord } split //, $wrong) . '"}',
	'percent-encoded' => join('', map { sprintf '%%%02X', ord } split //, $wrong),
	'cut by the message' => 'x' x 180 . $wrong,
	'cut by itself' => 'token ' . substr($wrong, 0, -9),
	'far behind' => ' ' x 3000 . $wrong);
$f->up('options', token => '');
for my $how (sort keys %echo)
{
	for my $code (401, 500, 200)
	{
		$f->up('heal');
		$f->fault('body', code => $code, times => -1, content_type => 'application/json', body => $echo{$how});
		my (undef, $r) = $f->sync('acme', 'user');
		my $run = $f->last_run('acme', 'user');
		like($run->{error}, qr/\*\*\*/, "status $code with the token $how: something is left out") if $code != 200 && $how !~ /behind|message/;
		unlike(json_text([ $run, $f->status('acme', 'user'), $f->json("SELECT flohsync.test_connector('acme')"), $r->{text} ]),
			qr/canary|\\\\u006[13]|%63%61/i, "status $code with the token $how: it is not in what is told");
	}
}
$f->up('heal');
$f->up('options', token => $token);

for my $bad ("line\nbreak", 'with blank', "tab\t", "\r\nX-Evil: 1", 'nicht-ascii-ü')
{
	$f->sql(set_secret('acme', 'token', $bad));
	$f->clear_log;
	$f->sync_fails('acme', 'user', qr/cannot be sent in a header/, 'a token that would break the header is not sent');
	is(scalar($f->requests), 0, 'nor is anything else');
}
is($f->last_run('acme', 'user')->{error_class}, 'secret', 'such an error has a class of its own');
$f->sql("SELECT flohsync.update_connector('acme', '{\"config\": " . json_text({ url => $f->url, commands => ['listUsers'], headers => { authorization => 'Basic x' } }) . "}')");
$f->sql(set_secret('acme', 'token', $token));
$f->clear_log;
$f->sync_ok('acme', 'user', 'a token takes the place of a configured header');
is(join(' ', map { "$_: " . ($f->requests)[-1]{headers}{$_} } grep { lc eq 'authorization' } keys %{ ($f->requests)[-1]{headers} }), "authorization: Bearer $token", 'there is one header');

#
# Ciphertexts that are not what they were
#

$f->sql(set_secret('other', 'token', my $others = canary()));
$f->sql(set_secret('acme', 'name2', canary()));
sub unreadable
{
	my ($connector, $name, $says, $what) = @_;
	return $f->fails_like('SELECT flohsync.cache_get_or_fetch(' . literal($connector) . ", 'user', 'user-0000001')", 'F0000', qr/secret "$name" cannot be decrypted: (?:.*)$says/, $what);
}
$f->sql('CREATE TABLE public.kept AS SELECT * FROM _flohsync.connector_secret');
my $restore = 'DELETE FROM _flohsync.connector_secret; INSERT INTO _flohsync.connector_secret SELECT * FROM public.kept';
my $changed = qr/changed, or copied from another connector, name or address/;
for my $byte (0, 11, 12, 20, length($token) + 27)
{
	$f->sql("UPDATE _flohsync.connector_secret SET ciphertext = set_byte(ciphertext, $byte, get_byte(ciphertext, $byte) # 1) WHERE name = 'token'");
	unreadable('acme', 'token', $changed, "a changed byte $byte is noticed");
	$f->sql($restore);
}
for my $set ('ciphertext = substr(ciphertext, 1, 20)', "ciphertext = ''", 'ciphertext = substr(ciphertext, 1, length(ciphertext) - 1)', "ciphertext = ciphertext || '\\x00'")
{
	$f->sql("UPDATE _flohsync.connector_secret SET $set WHERE name = 'token'");
	unreadable('acme', 'token', $changed, "noticed: $set");
	$f->sql($restore);
}
$f->sql("UPDATE _flohsync.connector_secret s SET ciphertext = k.ciphertext FROM public.kept k WHERE s.name = 'token' AND k.name = 'token' AND k.connector_id <> s.connector_id");
unreadable('acme', 'token', $changed, 'the secret of another connector is no secret');
$f->sync_fails('acme', 'user', qr/secret "token" cannot be decrypted: it was changed/, 'a run tells of it');
unlike($f->last_run('acme', 'user')->{error}, qr/$canary/, 'and not more');
like(json_text($f->json("SELECT flohsync.test_connector('acme')")), qr/cannot be decrypted/, 'and so does test_connector');
$f->sql($restore);
$f->sql("UPDATE _flohsync.connector_secret s SET ciphertext = k.ciphertext FROM public.kept k WHERE s.name = 'token' AND k.name = 'name2' AND k.connector_id = s.connector_id");
unreadable('acme', 'token', $changed, 'nor is that of another name');
$f->sql($restore);
$f->sql("UPDATE _flohsync.connector_secret SET format = 3 WHERE name = 'token'");
unreadable('acme', 'token', qr/of another version/, 'nor one of a format of the future');
$f->sql("UPDATE _flohsync.connector_secret SET format = 1, kind = NULL, origins = NULL WHERE name = 'token'");
unreadable('acme', 'token', qr/an earlier version.*set it again with flohsync\.set_secret/, 'nor one of the format that bound it to no address');
is($f->sql("SELECT usable FROM flohsync.connector_secrets WHERE connector = 'acme' AND name = 'token'"), 'f', 'which the view tells');
$f->sql($restore);
is(sent('acme'), $token, 'back in its place it is one');
$f->sql("SELECT flohsync.update_connector('acme', '{\"name\": \"acme2\"}')");
is(sent('acme2'), $token, 'a connector with another name has its secrets still');
$f->sql("SELECT flohsync.update_connector('acme2', '{\"name\": \"acme\"}')");

#
# Rotation
#

key_file('k', "$next_key\n");
unreadable('acme', 'token', qr/its key is [0-9a-f]{16}, that of flohsync.encryption_key_file is [0-9a-f]{16}, and flohsync.encryption_key_file_previous is not set/, 'with another key nothing is read');
$f->fails_like('SELECT flohsync.rotate_secrets()', 'F0000', qr/secret "\w+" of connector "\w+" cannot be decrypted.*HINT:.*encryption_key_file_previous/s, 'nor rotated');
$f->sync_fails('acme', 'user', qr/cannot be decrypted/, 'a run says why');
my $table = 'SELECT hashtextextended(string_agg(s::text, \'\' ORDER BY connector_id, name), 0)::text FROM _flohsync.connector_secret s';
my $as_was = $f->sql($table);
settings(encryption_key_file_previous => key_file('old', "$key\n"));
is(sent('acme'), $token, 'with the key before as the previous one all is read');
$f->sync_ok('acme', 'user', 'and used');
is($f->sql($table), $as_was, 'and stays as it is');
$f->sql(set_secret('acme', 'name3', canary()));
is($f->sql('SELECT count(DISTINCT key_id) FROM flohsync.connector_secrets'), 2, 'new secrets are of the new key');
is($f->sql('SELECT flohsync.rotate_secrets()'), 4, 'rotation takes all');
is($f->sql('SELECT count(DISTINCT key_id) FROM flohsync.connector_secrets'), 1, 'then all are of one key');
settings(encryption_key_file_previous => '');
is(sent('acme') . sent('other'), "$token$others", 'and read without the previous one');
unlink "$dir/k";
unreadable('acme', 'token', qr/No such file/, 'the file is read when it is needed');
$f->fails_like('SELECT flohsync.rotate_secrets()', 'F0000', qr/No such file/, 'also by rotation');
key_file('k', "$next_key\n");
$f->sql("BEGIN; UPDATE _flohsync.connector_secret SET ciphertext = '\\x00' WHERE name = 'name3'; COMMIT");
$as_was = $f->sql($table);
$f->fails_like('SELECT flohsync.rotate_secrets()', 'F0000', qr/secret "name3" of connector "acme"/, 'one that cannot be read stops a rotation');
is($f->sql($table), $as_was, 'and nothing is half rotated');
$f->sql(set_secret('acme', 'name3', undef));

#
# Where a clear text must not be
#

# Statements as they come, with everything logged that can be logged.
my $log_all = "SET log_statement = 'all'; SET log_min_duration_statement = 0; SET log_duration = on; SET log_min_error_statement = debug5; SET log_error_verbosity = verbose;"
  . (grep({ $_ eq 'auto_explain' } @libraries) ? "SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on; SET auto_explain.log_verbose = on; SET auto_explain.log_analyze = on;" : '');
$f->sql("CREATE FUNCTION public.wrapper(v text) RETURNS void LANGUAGE plpgsql AS \$\$ BEGIN PERFORM flohsync.set_secret('acme', 'wrapped', v); END \$\$");
my @statements = (
	sub { set_secret('acme', 'token', $_[0]) },
	sub { "select\n\tflohsync . \"set_secret\" ( 'acme', 'token', '$_[0]' )" },
	sub { "WITH v AS (SELECT '$_[0]' AS v) SELECT FLOHSYNC.SET_SECRET('acme', 'token', v) FROM v" },
	sub { "DO \$\$ DECLARE v text := '$_[0]'; BEGIN PERFORM flohsync.set_secret('acme', 'token', v); END \$\$" },
	sub { "PREPARE p (text) AS SELECT flohsync.set_secret('acme', 'token', \$1); EXECUTE p('$_[0]')" },
	# What the server logs before it runs a function of another name, nobody can know.
	sub { "SET log_statement = none;\nSELECT public.wrapper('$_[0]')" },
	sub { set_secret('acme', 'token', $_[0]) . '; SELECT 1/0' },
	sub { set_secret('nobody', 'token', $_[0]) },
	sub { set_secret($_[0], 'acme', 'token') },
	sub { set_secret('acme', "$_[0] ", 'token') },
	sub { "SELECT flohsync.set_secret('acme', 'token', '$_[0]'" },
	sub { "SELECT flohsync.set_secret('acme', 'token' '$_[0]')" },
	sub { "SELECT flohsync.set_secret(acme, token, $_[0])" },
	sub { "SELECT flohsync.set_secret('acme', 'token', '$_[0]', 1)" },
	sub { "SELECT flohsync.set_secret('acme', 'token', '$_[0]'::int::text)" },
	sub { "DO \$\$ BEGIN PERFORM flohsync.set_secret('acme', 'token', '$_[0]') x y z; END \$\$" },
	sub { "DO \$\$ BEGIN EXECUTE 'SELECT flohsync.set_secret(''acme'', ''token'', ''$_[0]'' x y)'; END \$\$" },
	sub { "SET ROLE visitor; " . set_secret('acme', 'token', $_[0]) });
for my $make (@statements)
{
	my $c = canary();
	$f->try_sql("$log_all " . $make->($c));    # one message
	$f->node->psql('postgres', "$log_all\n;\n" . $make->($c));
}

# From a file: the value is in no statement at all.
{
	my $c = canary();
	my $file = key_file('value', "$c\n");
	my $r = $f->try_sql("$log_all SELECT flohsync.set_secret('acme', 'token', rtrim(pg_read_file('$file'), E'\\n'))");
	is(sent('acme'), $c, 'a secret from a file') or diag($r->{text});
	unlink $file;
}

# With parameters, as a driver sends them.
my $pgbench = $f->node->config_data('--bindir') . '/pgbench';
for my $mode (-x $pgbench ? qw(extended prepared) : ())
{
	my $c = canary();
	append_to_file("$dir/script", ($log_all =~ s/; */;\n/gr) . "SELECT flohsync.set_secret(:c, :n, :v);\nSELECT flohsync.set_secret(:c, :v, :n);\n");
	run_log([ $pgbench, '-n', '-t', 1, '-M', $mode, '-f', "$dir/script", '-D', 'c=box', '-D', 'n=value', '-D', "v=$c a", $f->node->connstr('postgres') ], '>', \my $out, '2>', \my $err);
	like($err, qr/not a valid name of a secret/, "the client hears of an error, with protocol $mode");
	is(sent('box'), "$c a", 'and what was right is stored');
	unlink "$dir/script";
}

# Another session looks on while the statement runs: the table is locked.
{
	my $c = canary();
	$f->sql('SELECT pg_advisory_lock(4711)');
	my $holder = $f->start_sql('BEGIN; LOCK TABLE _flohsync.connector_secret; SELECT pg_advisory_lock(4711); COMMIT');
	$f->wait_for("SELECT count(*) = 1 FROM pg_locks WHERE relation = '_flohsync.connector_secret'::regclass AND mode = 'AccessExclusiveLock' AND granted");
	my $setter = $f->start_sql(set_secret('acme', 'token', $c));
	$f->comes_true("SELECT count(*) = 1 FROM pg_stat_activity WHERE query = 'flohsync.set_secret(...)' AND wait_event_type = 'Lock'", 'pg_stat_activity shows the statement without the secret');
	is($f->sql("SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%canary%'"), 0, 'in no session');
	$f->sql('SELECT pg_advisory_unlock(4711)');
	ok($f->finish($_)->{ok}, 'the statement succeeds') for $holder, $setter;
	is(sent('acme'), $c, 'and has stored the secret');
}
# The last statement of an idle session is shown as well, also one that could not be parsed.
for my $sql (set_secret('acme', 'token', canary()), "SELECT flohsync.set_secret('acme' '" . canary() . "')")
{
	$f->try_sql($sql);
	is($f->sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%canary%' AND pid <> pg_backend_pid()", 'template1'), 0, 'nor is it the last statement of a session');
}

# A process that dies in the middle of it: the postmaster tells what it was doing.
{
	my $c = canary();
	my $r = $f->start_sql("SELECT flohsync.set_secret('acme', 'token', (SELECT '$c' FROM pg_sleep(60)))");
	$f->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
	my $pid = $f->sql("SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
	ok($f->crash($pid), 'the server comes back');
	$f->finish($r);
}

if (grep { $_ eq 'pg_stat_statements' } @libraries)
{
	$f->sql('CREATE EXTENSION pg_stat_statements');
	my $c = canary();
	$f->sql(set_secret('acme', 'token', $c));
	$f->sync('acme', 'user');
	is($f->sql("SELECT count(*) FROM pg_stat_statements WHERE query LIKE '%$canary%'"), 0, 'pg_stat_statements does not have it');
	cmp_ok($f->sql('SELECT count(*) FROM pg_stat_statements'), '>', 0, 'though it has others');
}

$f->sql(set_secret('acme', 'token', my $last = canary()));
$f->up('options', token => $last);
$f->sync_ok('acme', 'user', 'a last run');
$f->sql('CHECKPOINT');

# A dump has the ciphertext, and with the key file it is of use.
my $dump = "$dir/dump.sql";
run_log([ 'pg_dump', '-f', $dump, '-d', $f->node->connstr('postgres') ]) or die 'pg_dump';
like(slurp_file($dump), qr/^COPY _flohsync\.connector_secret .*\n(?:.*\n)*?[^\n]+\ttoken\t/m, 'a dump has the secrets');
$f->sql('CREATE DATABASE copy');
$f->node->safe_psql('copy', slurp_file($dump));
is(sent('acme', 'copy'), $last, 'that are read in another database with the same key');
$f->disconnect('copy');

sub without_canary
{
	my ($what, @files) = @_;
	my @found;
	for my $file (@files)
	{
		my $content = slurp_file($file);
		push @found, "$file: $1" while $content =~ /([^\n]{0,60}\Q$canary\E[^\n]{0,40})/g && @found < 5;
		for my $text (@planted)
		{
			push @found, "$file: $text in base64" if index($content, substr(encode_base64($text, ''), 0, 32)) >= 0;
			push @found, "$file: $text in hex" if index($content, unpack 'H*', $text) >= 0;
		}
		push @found, "$file: the key" if index(lc $content, $key) >= 0 || index(lc $content, $next_key) >= 0;
	}
	return is(join("\n", @found), '', "no clear text and no key in $what");
}
my $data = $f->node->data_dir;
my $log = slurp_file($f->node->logfile);
without_canary('the server log', $f->node->logfile);
like($log, qr/statement with flohsync\.set_secret\(\.\.\.\) failed, SQLSTATE 42601/, 'where an error in such a statement is told of');
like($log, qr/LOG:  (?:00000: )?statement: \.\.\./, 'and so is a statement');
like($log, qr/duration: [0-9.]+ \.\.\./, 'and its duration');
like($log, qr/division by zero|SQLSTATE 22012/, 'as is another error in the same message');
without_canary('the WAL', glob "$data/pg_wal/0*");
without_canary('a dump', $dump);
$f->node->stop;
without_canary('the data folder', split /\n/, `find '$data' -type f ! -path '*/pg_wal/*'`);

$f->node->start;
is($f->sql("SELECT flohsync.drop_connector('acme')"), '', 'a connector is dropped');
is($f->sql("SELECT string_agg(connector, ' ' ORDER BY connector) FROM flohsync.connector_secrets"), 'box other', 'and its secrets with it');
$f->invariants;
done_testing();
