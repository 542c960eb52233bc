# A secret on its way to set_secret: what the server log, in each of its forms,
# and the statistics of statements keep of it, with everything logged that can be.
use strict;
use warnings;

use Flohsync;
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $libs = (PostgreSQL::Test::Cluster->new('probe'))->config_data('--pkglibdir');
my @libraries = grep { -e "$libs/$_.so" } qw(pg_stat_statements auto_explain);
open my $key, '>', "$dir/key" or die $!;
print $key join '', map { sprintf '%02x', int rand 256 } 1 .. 32;
close $key;
chmod 0600, "$dir/key";
my $explain = grep({ $_ eq 'auto_explain' } @libraries) ? <<'CONF' : '';
auto_explain.log_min_duration = 0
auto_explain.log_nested_statements = on
auto_explain.log_verbose = on
auto_explain.log_analyze = on
CONF
my $f = Flohsync->new(
	preload => 0, records => 'user=5', conf => <<CONF
shared_preload_libraries = '@{[ join ', ', @libraries, 'flohsync' ]}'
flohsync.encryption_key_file = '$dir/key'
logging_collector = on
log_destination = 'stderr, csvlog, jsonlog'
log_min_error_statement = debug5
log_error_verbosity = verbose
log_parameter_max_length = -1
log_parameter_max_length_on_error = -1
log_lock_waits = on
deadlock_timeout = 10ms
$explain
CONF
);
my $stats = grep { $_ eq 'pg_stat_statements' } @libraries;
$f->sql('CREATE EXTENSION pg_stat_statements') if $stats;
$f->sql('SET log_statement = none; CREATE ROLE visitor LOGIN');
$f->connector('acme');

my $canary = 'canary' . join '', map { ('a' .. 'z', 0 .. 9)[ rand 36 ] } 1 .. 26;
my %planted;
sub canary { my ($where) = @_; my $c = $canary . sprintf '%03d', scalar keys %planted; $planted{$c} = $where; return $c }
sub logged { return join "\n", map { slurp_file($_) } glob($f->node->data_dir . '/log/*') }

# Which of them a text shows, in any form that a log may give it
sub shown
{
	my ($text) = @_;
	my %found;
	while ($text =~ /(\Q$canary\E[0-9]{3})/g) { $found{$1} = 1 }
	for my $c (keys %planted)
	{
		# as the bytes of a constant in a tree, and in codes
		$found{$c} = 1 if index($text, join ' ', map { ord } split //, $c) >= 0 || index($text, substr(encode_base64($c, ''), 0, 40)) >= 0 || index($text, unpack 'H*', $c) >= 0;
	}
	return join "\n", map { $planted{$_} } sort keys %found;
}

my $all = "SET log_statement = 'all'; SET log_min_duration_statement = 0; SET log_duration = on; SET log_executor_stats = on; SET debug_print_parse = on; SET debug_print_rewritten = on; SET debug_print_plan = on; SET log_min_messages = debug1;";
# Before these, nobody can know what they will come to: doc/secrets.md says so.  What follows can.
my $errors = "SET log_min_duration_statement = 0; SET log_min_messages = debug1;";

$f->sql(<<'SQL');
SET log_statement = none;
CREATE FUNCTION public.wrapper(v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM flohsync.set_secret('acme', 'wrapped', v); END $$;
CREATE FUNCTION public.failing(v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM flohsync.set_secret('acme', 'wrapped', v); RAISE EXCEPTION 'so much for %', v USING DETAIL = v, HINT = v; END $$;
CREATE FUNCTION public.warning(v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM flohsync.set_secret('acme', 'wrapped', v); RAISE WARNING 'so much for %', v USING DETAIL = v, HINT = v; RAISE LOG 'and for %', v; END $$;
CREATE FUNCTION public.dynamic(v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE pg_catalog.format('SELECT flohsync.set_secret(''acme'', ''token'', %L)', v); END $$;
CREATE FUNCTION public.mistaken(v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE pg_catalog.format('SELECT flohsync.set_secret(''acme'', ''token'', %L x y)', v); END $$;
CREATE FUNCTION public.many(v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE pg_catalog.format('SELECT flohsync.set_secret(''acme'', ''token'', %L, 4, 5)', v); END $$;
CREATE FUNCTION public.in_sql(v text) RETURNS void LANGUAGE sql AS $$ SELECT flohsync.set_secret('nobody', 'token', v) $$;
CREATE PROCEDURE public.proc(v text) LANGUAGE plpgsql AS $$ BEGIN PERFORM flohsync.set_secret('nobody', 'token', v); END $$;
CREATE TABLE public.inbox (v text);
CREATE FUNCTION public.store() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM flohsync.set_secret('nobody', 'token', NEW.v); RETURN NULL; END $$;
CREATE TRIGGER store BEFORE INSERT ON public.inbox FOR EACH ROW EXECUTE FUNCTION public.store();
SQL

# Each in a session of its own, sent line by line: settings, then messages.
my @cases = (
	# names written in other ways
	[ 'quoted names', $all, 'SELECT "flohsync"."set_secret"(\'acme\', \'token\', \'%s\')' ],
	[ 'capitals and blanks', $all, "SELECT FlohSync\n.\tSET_SECRET ( 'acme', 'token', '%s' )" ],
	[ 'in the search path', $all, "SET search_path = flohsync, pg_catalog", "SELECT set_secret('acme', 'token', '%s')" ],
	[ 'named arguments', $all, "SELECT flohsync.set_secret(value => '%s', name => 'token', connector => 'acme')" ],
	[ 'named arguments of old', $all, "SELECT flohsync.set_secret(value := '%s', name := 'token', connector := 'nobody')" ],
	[ 'a name in codes', $all, 'SELECT flohsync.U&"\0073et\005fsecret"(\'acme\', \'token\', \'%s\')' ],
	[ 'a name in long codes', $all, 'SELECT flohsync.u&"s\+000065t_\0073\0065\0063\0072\0065\0074"(\'acme\', \'token\', \'%s\')' ],
	[ 'a name in codes of another escape', $all, 'SELECT flohsync.U&"!0073et_secret" UESCAPE \'!\' (\'acme\', \'token\', \'%s\')' ],
	[ 'a name in codes, in a mistake', $all, 'SELECT flohsync.U&"\0073et_secret"(\'acme\', \'token\' \'%s\')' ],
	[ 'a name in codes, with too many arguments', $all, 'SELECT flohsync.U&"\0073et_secret"(\'acme\', \'token\', \'%s\', 4)' ],
	[ 'a name in codes, not allowed', $all, 'SET ROLE visitor', 'SELECT flohsync.U&"\0073et_secret"(\'acme\', \'token\', \'%s\')' ],
	[ 'the arguments in disorder', $all, "SELECT flohsync.set_secret('%s', 'token', 'acme')" ],
	[ 'a dollar-quoted value', $all, 'SELECT flohsync.set_secret($a$acme$a$, $b$token$b$, $c$%s$c$)' ],
	# utility statements
	[ 'DO', $all, "DO \$\$ BEGIN PERFORM flohsync.set_secret('acme', 'token', '%s'); END \$\$" ],
	[ 'DO that fails', $all, "DO \$\$ BEGIN PERFORM flohsync.set_secret('nobody', 'token', '%s'); END \$\$" ],
	[ 'DO with EXECUTE', $all, "DO \$\$ BEGIN EXECUTE 'SELECT flohsync.set_secret(''acme'', ''token'', \$1)' USING '%s'; END \$\$" ],
	[ 'DO that is no PL/pgSQL', $all, "DO \$\$ BEGIN PERFORM flohsync.set_secret('acme', 'token', '%s') END \$\$" ],
	[ 'COPY TO', $all, "COPY (SELECT flohsync.set_secret('acme', 'token', '%s')) TO STDOUT" ],
	[ 'COPY TO that fails', $all, "COPY (SELECT flohsync.set_secret('nobody', 'token', '%s')) TO STDOUT" ],
	[ 'CREATE TABLE AS', $all, "CREATE TEMP TABLE t AS SELECT 1 AS n, flohsync.set_secret('acme', 'token', '%s')::text" ],
	[ 'EXPLAIN ANALYZE', $all, "EXPLAIN (ANALYZE, VERBOSE) SELECT flohsync.set_secret('acme', 'token', '%s')" ],
	[ 'DECLARE and FETCH', $all, 'BEGIN', "DECLARE c CURSOR FOR SELECT flohsync.set_secret('acme', 'token', '%s')", 'FETCH c', 'COMMIT' ],
	[ 'a view', $all, "CREATE TEMP VIEW v AS SELECT flohsync.set_secret('acme', 'token', '%s')", 'TABLE v' ],
	[ 'a function with the value in it', $all, "CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE sql AS \$\$ SELECT flohsync.set_secret('acme', 'token', '%s') \$\$" ],
	# prepared statements, each message by itself
	[ 'EXECUTE', $all, "PREPARE p (text) AS SELECT flohsync.set_secret('acme', 'token', \$1)", "EXECUTE p('%s')" ],
	[ 'EXECUTE that fails', $all, "PREPARE p (text) AS SELECT flohsync.set_secret('nobody', 'token', \$1)", "EXECUTE p('%s')" ],
	[ 'EXECUTE with too many parameters', $all, "PREPARE p (text) AS SELECT flohsync.set_secret('acme', 'token', \$1)", "EXECUTE p('%s', 2)" ],
	[ 'EXECUTE with a mistake', $all, "PREPARE p (text) AS SELECT flohsync.set_secret('acme', 'token', \$1)", "EXECUTE p('%s' x)" ],
	[ 'EXECUTE with a wrong type', $all, "PREPARE p (int) AS SELECT flohsync.set_secret('acme', 'token', \$1::text)", "EXECUTE p('%s')" ],
	[ 'EXPLAIN EXECUTE', $all, "PREPARE p (text) AS SELECT flohsync.set_secret('acme', 'token', \$1)", "EXPLAIN ANALYZE EXECUTE p('%s')" ],
	[ 'EXECUTE of a name in codes, with too many parameters', $all, 'PREPARE p (text) AS SELECT flohsync.U&"\0073et_secret"(\'acme\', \'token\', $1)', "EXECUTE p('%s', 2)" ],
	[ 'many in one message', $all, "SELECT 1\\; DO \$\$ BEGIN PERFORM flohsync.set_secret('acme', 'token', '%s'); END \$\$\\; COPY (SELECT flohsync.set_secret('acme', 'token', '%s')) TO STDOUT\\; SELECT 2" ],
	[ 'PREPARE with the value', $all, "PREPARE p AS SELECT flohsync.set_secret('acme', 'token', '%s')", 'EXECUTE p' ],
	# errors around it
	[ 'an error in the same message', $all, "SELECT flohsync.set_secret('acme', 'token', '%s'), 1/0" ],
	[ 'an error behind it', $all, "BEGIN", "SELECT flohsync.set_secret('acme', 'token', '%s'); SELECT 1/0" ],
	[ 'an error before it', $all, "SELECT 1/0, flohsync.set_secret('acme', 'token', '%s')" ],
	[ 'a value that is no number', $all, "SELECT flohsync.set_secret('acme', 'token', '%s'::int::text)" ],
	[ 'a column of that name', $all, "SELECT flohsync.set_secret('acme', 'token', %s)" ],
	[ 'a timeout', $all, "SET statement_timeout = '50ms'", "SELECT flohsync.set_secret('acme', 'token', '%s') FROM pg_sleep(30)" ],
	# functions around it: from where they call it on
	[ 'a wrapper', $errors, "SELECT public.wrapper('%s')" ],
	[ 'a wrapper that fails afterwards', $errors, "SELECT public.failing('%s')" ],
	[ 'a wrapper that warns afterwards', $errors, "SELECT public.warning('%s')" ],
	[ 'a wrapper in SQL that fails', $errors, "SELECT public.in_sql('%s')" ],
	[ 'a procedure that fails', $errors, "CALL public.proc('%s')" ],
	[ 'a trigger that fails', $errors, "INSERT INTO public.inbox VALUES ('%s')" ],
	[ 'a trigger of COPY that fails', $errors, "COPY public.inbox FROM STDIN\n;\n%s\n\\.\n" ],
	[ 'a wrapper with EXECUTE', $errors, "SELECT public.dynamic('%s')" ],
	[ 'a wrapper with EXECUTE and a mistake', $errors, "SELECT public.mistaken('%s')" ],
	[ 'a wrapper with EXECUTE and too many arguments', $errors, "SELECT public.many('%s')" ],
	[ 'a wrapper with EXECUTE that may not', $errors, 'GRANT USAGE ON SCHEMA flohsync TO visitor', 'SET ROLE visitor', "SELECT public.dynamic('%s')" ]);
for (@cases)
{
	my ($name, $settings, @messages) = @$_;
	my $c = canary($name);
	my $sql = join "\n;\n", split(/; */, $settings), map { sprintf '%s', s/%s/$c/gr } @messages;
	my ($rc, $out, $err) = $f->node->psql('postgres', $sql, on_error_stop => 0);
	is($err =~ /ERROR: / ? 'fails' : 'succeeds', $name =~ /fails|mistake|too many|wrong|error|allowed|may not|no number|column|disorder|timeout|no PL|view|of old/ ? 'fails' : 'succeeds', "$name: does what is meant")
	  or diag($err);
	is(shown($f->sql("SELECT string_agg(query, E'\\n') FROM pg_stat_activity WHERE pid <> pg_backend_pid()")), '', "$name: no session shows it afterwards");
}

# While another session waits for the table, and a third one, that looks on, has its wait logged.
{
	my $c = canary('a statement that waits');
	$f->sql('SELECT pg_advisory_lock(4711)');
	my $holder = $f->start_sql('BEGIN; LOCK TABLE _flohsync.connector_secret; SELECT pg_advisory_lock(4711); COMMIT');
	$f->wait_for("SELECT count(*) = 1 FROM pg_locks WHERE relation = '_flohsync.connector_secret'::regclass AND mode = 'AccessExclusiveLock' AND granted");
	my $setter = $f->start_sql("DO \$\$ BEGIN PERFORM flohsync.set_secret('acme', 'token', '$c'); END \$\$");
	$f->comes_true("SELECT count(*) = 1 FROM pg_stat_activity WHERE query = 'flohsync.set_secret(...)' AND wait_event_type = 'Lock'", 'a DO block that waits shows what it is');
	$f->wait_for('SELECT pg_sleep(0.05) IS NOT NULL');
	$f->sql('SELECT pg_advisory_unlock(4711)');
	ok($f->finish($_)->{ok}, 'it comes through') for $holder, $setter;
}
# In one message with many others, the first of which takes long
for my $sql ("SELECT pg_sleep(60); SELECT flohsync.set_secret('acme', 'token', '%s')", "SELECT pg_sleep(60); DO \$\$ BEGIN PERFORM flohsync.set_secret('acme', 'token', '%s'); END \$\$; SELECT 1")
{
	my $c = canary("behind another statement: $sql");
	my $setter = $f->start_sql($sql =~ s/%s/$c/r);
	$f->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
	is($f->sql("SELECT query FROM pg_stat_activity WHERE wait_event = 'PgSleep'"), 'flohsync.set_secret(...)', 'behind another statement of the message: it is not shown');
	$f->sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
	$f->finish($setter);
}
# Before the function is called: what was understood is not shown any more.
{
	my $c = canary('a statement that has not called it yet');
	my $setter = $f->start_sql("SELECT flohsync.set_secret('acme', 'token', (SELECT '$c' FROM pg_sleep(60)))");
	$f->wait_for("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
	is($f->sql("SELECT query FROM pg_stat_activity WHERE wait_event = 'PgSleep'"), 'flohsync.set_secret(...)', 'a statement that has not called it yet shows what it is');
	$f->sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
	$f->finish($setter);
}

# Parameters, as a driver sends them
my $pgbench = $f->node->config_data('--bindir') . '/pgbench';
for my $mode (-x $pgbench ? qw(extended prepared) : ())
{
	for (
		[ 'a parameter', $all, 'SELECT flohsync.set_secret(:c, :n, :v);' ], [ 'a parameter and an error', $all, 'SELECT flohsync.set_secret(:c, :v, :n);' ],
		[ 'a parameter of a name in codes', $all, 'SELECT flohsync.U&"\0073et_secret"(:v, :n, :c);' ],
		[ 'a parameter that is no number', $all, 'SELECT flohsync.set_secret(:c, :n, (:v)::int::text);' ])
	{
		my ($name, $settings, $sql) = @$_;
		my $c = canary("$name, protocol $mode");
		unlink "$dir/script";
		append_to_file("$dir/script", ($settings =~ s/; */;\n/gr) . "$sql\n");
		run_log([ $pgbench, '-n', '-t', 1, '-M', $mode, '-f', "$dir/script", '-D', 'c=acme', '-D', 'n=token', '-D', "v=$c", $f->node->connstr('postgres') ], '>', \my $out, '2>', \my $err);
	}
}

# The collector writes when it gets to it.
$f->sql("SET log_statement = 'all'; SELECT 'the last statement'");
my $log;
for (1 .. 600)
{
	$log = logged();
	last if (() = $log =~ /statement: [^\n]*the last statement/g) >= 3;
	select undef, undef, undef, 0.1;
}
cmp_ok(scalar(() = $log =~ /statement: [^\n]*the last statement/g), '>=', 3, 'the log is whole, in its three forms');
is(shown($log), '', 'the log has none of them, in no form');
like($log, qr/statement with flohsync\.set_secret\(\.\.\.\) failed, SQLSTATE 42601/, 'where an error in such a statement is told of');
like($log, qr/"message":"statement: \.\.\."/, 'also as JSON');
like($log, qr/,"statement: \.\.\.",/, 'and as CSV');
like($log, qr/PREPARE|relation "t"|SET log_statement|SELECT pg_advisory_lock/, 'and other statements are there');
SKIP:
{
	skip 'pg_stat_statements is not there', 2 unless $stats;
	is(shown($f->sql("SELECT string_agg(query, E'\\n') FROM pg_stat_statements")), '', 'pg_stat_statements has none of them');
	cmp_ok($f->sql('SELECT count(*) FROM pg_stat_statements'), '>', 10, 'though it has others');
}
$f->no_crash;
done_testing();
