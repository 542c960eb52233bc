# TLS, passwords and databases of Redis; rights on the functions of the cache.
use strict;
use warnings;

use Flohsync;
use RedisServer;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $password = 'p@ss:w/%rd';
my $encoded = 'p%40ss:w%2F%25rd';

# An authority, a certificate for localhost, and one of another authority.
for my $ca ('good', 'other')
{
	system("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=$ca' -keyout $dir/$ca.key -out $dir/$ca.crt >$dir/openssl.log 2>&1") == 0 or die "openssl: " . slurp_file("$dir/openssl.log");
}
append_to_file("$dir/ext", "subjectAltName = DNS:localhost\n");
for my $cmd ("req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout $dir/server.key -out $dir/server.csr",
	"x509 -req -in $dir/server.csr -CA $dir/good.crt -CAkey $dir/good.key -CAcreateserial -days 2 -extfile $dir/ext -out $dir/server.crt")
{
	system("openssl $cmd >$dir/openssl.log 2>&1") == 0 or die "openssl: " . slurp_file("$dir/openssl.log");
}
my $redis = RedisServer->new(args => [ '--tls-port', $port, '--bind', '127.0.0.1', '-::1', '--tls-cert-file', "$dir/server.crt", '--tls-key-file', "$dir/server.key",
	'--tls-ca-cert-file', "$dir/good.crt", '--tls-auth-clients', 'no' ]);
$redis->cmd('ACL', 'SETUSER', 'cache', 'on', ">$password", '~cr:*', '+get', '+set', '+del', '+eval', '+evalsha', '+info', '+select');
$redis->cmd('ACL', 'SETUSER', 'weak', 'on', '>weak', '~cr:*', '+get', '+set', '+info', '+select');

my $f = Flohsync->new(upstream => 0, conf => "flohsync.redis_timeout = 2s\nflohsync.redis_connect_timeout = 2s\n");
my $id = $f->sql("SELECT flohsync.create_connector('c', 'command', '{\"url\": \"https://directory.example.com/\", \"commands\": [\"listUsers\"]}')");

# A session of its own with an address that everybody has
sub with
{
	my ($url, $ca) = @_;
	$f->sql('ALTER SYSTEM SET flohsync.redis_url = ' . Flohsync::literal($url));
	$f->sql('ALTER SYSTEM SET flohsync.redis_ca_file = ' . Flohsync::literal($ca // ''));
	$f->sql('SELECT pg_reload_conf()');
	$f->wait_for('SELECT current_setting(\'flohsync.redis_url\') = ' . Flohsync::literal($url) . ' AND current_setting(\'flohsync.redis_ca_file\') = ' . Flohsync::literal($ca // ''));
	# The breaker is of the database.
	$f->sql('DROP DATABASE IF EXISTS d');
	$f->sql('CREATE DATABASE d');
	$f->sql('CREATE EXTENSION flohsync', 'd');
	$f->sql("SELECT flohsync.create_connector('c', 'command', '{\"url\": \"https://directory.example.com/\", \"commands\": [\"listUsers\"]}')", 'd');
	my $works = $f->sql("SELECT flohsync.cache_put('c', 'user', 'k', '1')", 'd');
	my $got = $f->sql("SELECT flohsync.cache_get('c', 'user', 'k')", 'd');
	$f->sql("SELECT flohsync.cache_put('c', 'user', 'other', '1')", 'd') for 1 .. 3;
	$f->disconnect('d');
	return "$works $got";
}

is(with("rediss://localhost:$port", "$dir/good.crt"), 't 1', 'TLS, with a certificate that is checked');
is(with("rediss://127.0.0.1:$port", "$dir/good.crt"), 'f ', 'not for another name');
is(with("rediss://localhost:$port", "$dir/other.crt"), 'f ', 'not of another authority');
is(with("rediss://localhost:$port"), 'f ', 'nor of one that the system does not know');
is(with("redis://localhost:$port", "$dir/good.crt"), 'f ', 'no TLS where there must be');
is(with("rediss://cache:$encoded\@localhost:$port/3", "$dir/good.crt"), 't 1', 'TLS, user and password, with no more rights than needed');
is(scalar(grep { /:user:k$/ } do { $redis->cmd('SELECT', 3); my @k = $redis->keys; $redis->cmd('SELECT', 0); @k }), 1, 'in the database of the address');
is(with("unix://cache:$encoded\@$redis->{socket}?db=2"), 't 1', 'the same through a socket');
symlink $redis->{socket}, "$redis->{dir}/a\@b.sock" or die $!;
is(with("unix://cache:$encoded\@$redis->{dir}/a\@b.sock"), 't 1', 'one whose name has a sign that ends logins');
is(with("unix://$redis->{dir}/a\@b.sock"), 't 1', 'also without a login');
is(with("unix://cache:wrong\@$redis->{socket}"), 'f ', 'a wrong password');
is(with("unix://weak:weak\@$redis->{socket}"), 'f ', 'a user without the rights');
is(with("redis://localhost:1"), 'f ', 'nobody there');
SKIP:
{
	skip 'a name is looked up in a network of its own only', 1 unless $ENV{FLOHSYNC_ALONE};
	is(with("redis://no-such-host.invalid"), 'f ', 'no such host');
}

my $log = slurp_file($f->node->logfile);
like($log, qr/flohsync cache disabled temporarily.*(?:WRONGPASS|NOPERM)/, 'the log says what is wrong');
like($log, qr/flohsync cache disabled temporarily.*certificate/, 'also of certificates');
# PostgreSQL itself logs settings that a reload has changed; nobody else may.
is(scalar(grep { /\Q$password\E|\Q$encoded\E/ && !/parameter "flohsync.redis_url" changed to|STATEMENT|^\s|ALTER SYSTEM/ } split /\n/, $log), 0, 'no password is in the log');

#
# Rights
#
with("unix://$redis->{socket}");
$f->sql('CREATE ROLE reader LOGIN');
$f->sql('CREATE ROLE fetcher LOGIN');
is($f->try_sql("SET ROLE reader; SELECT flohsync.cache_get('c', 'user', 'k')")->{state}, '42501', 'nobody may use the cache');
$f->sql(<<'SQL');
GRANT USAGE ON SCHEMA flohsync TO reader;
GRANT EXECUTE ON FUNCTION flohsync.cache_get(text, text, text), flohsync.cache_get_or_fetch(text, text, text, regprocedure) TO reader;
CREATE TABLE public.hidden (v int);
INSERT INTO public.hidden VALUES (42);
CREATE FUNCTION public.who(uuid, text, text) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(current_user::text) $$;
CREATE FUNCTION public.peek(uuid, text, text) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(v) FROM public.hidden $$;
CREATE FUNCTION public.private(uuid, text, text) RETURNS jsonb LANGUAGE sql AS 'SELECT null::jsonb';
REVOKE ALL ON FUNCTION public.private(uuid, text, text) FROM PUBLIC;
CREATE SCHEMA trap AUTHORIZATION reader;
SQL
$f->sql("SELECT flohsync.upsert_resource('c', 'group', '{\"externalId\": \"g\", \"displayName\": \"Group\"}')");
is($f->try_sql("SET ROLE reader; SELECT flohsync.cache_get_or_fetch('c', 'group', 'g') ->> 'displayName'")->{out}, 'Group', 'who may, needs no right on the tables');
is($f->try_sql("SET ROLE reader; SELECT flohsync.cache_get_or_fetch('nobody', 'group', 'g')")->{state}, '42704', 'and is told of mistakes');
is($f->try_sql("SET ROLE reader; SELECT flohsync.cache_get_or_fetch('c', 'group', 'w', 'public.who(uuid,text,text)')")->{out}, '"reader"', 'a fetcher has the rights of the caller');
is($f->try_sql("SET ROLE reader; SELECT flohsync.cache_get_or_fetch('c', 'group', 'p', 'public.peek(uuid,text,text)')")->{state}, '42501', 'and no others');
is($f->try_sql("SET ROLE reader; SELECT flohsync.cache_get_or_fetch('c', 'group', 'q', 'public.private(uuid,text,text)')")->{state}, '42501', 'and must be one that he may call');
is($f->try_sql("SET ROLE reader; SELECT flohsync.cache_put('c', 'group', 'q', '1')")->{state}, '42501', 'reading is not writing');
# His search path is not the one of what runs with the owner's rights.
$f->sql(<<'SQL');
CREATE FUNCTION trap.eq(uuid, uuid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped as %', current_user; END $$;
CREATE OPERATOR trap.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = trap.eq);
SQL
is($f->try_sql("SET ROLE reader; SET search_path = trap, pg_catalog; SELECT flohsync.cache_get_or_fetch('c', 'group', 'g2') IS NULL")->{out}, 't', 'a search path with traps catches nobody');
$f->no_crash;
done_testing();
