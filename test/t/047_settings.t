# Settings: a value that cannot be meant is refused however it is set, and what
# may hold a secret is not repeated; the password of Redis in a file.
use strict;
use warnings;

use Flohsync;
use RedisServer;
use Test::More;
use PostgreSQL::Test::Utils;

my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $canary = 'geh3imnis';
my $f = Flohsync->new(upstream => 0, conf => "flohsync.redis_timeout = 2s\nflohsync.redis_connect_timeout = 2s\n");
my $long = 'x' x 2000;

# Of each setting that is a text: values that are fine, and those that are not, with what is said of them.
my %cases = (
	acting_user => {
		good => [ '', '01908f4e-3d5c-7a61-8f5e-0123456789ab', '{01908F4E-3d5c-7a61-8f5e-0123456789ab}', '01908f4e3d5c7a618f5e0123456789ab' ],
		bad => [ map { [ $_, qr/must be the id of a user/ ] } 'x', '01908f4e-3d5c-7a61-8f5e-0123456789a', '01908f4e-3d5c-7a61-8f5e-0123456789abc', '0190-8f4e--3d5c-7a61-8f5e-0123456789ab', '{01908f4e3d5c7a618f5e0123456789ab', '01908f4e3d5c7a618f5e0123456789ab-', ' 01908f4e3d5c7a618f5e0123456789ab' ] },
	databases => {
		good => [ '*', '', 'postgres', 'a, b , "C d"', 'a,"b,c"' ],
		bad => [ (map { [ $_, qr/must be a comma-separated list of names/ ] } 'a,', ',a', 'a,,b', 'a b', '"a', '"a" b'), [ '""', qr/name in the list is empty/ ], [ "a,${\ substr $long, 0, 64}", qr/too long to be the name of a database/ ] ] },
	encryption_key_file => { good => [ '', '/etc/flohsync.key' ], bad => [ paths() ], secret => 1 },
	encryption_key_file_previous => { good => [ '', '/etc/flohsync.key' ], bad => [ paths() ], secret => 1 },
	redis_password_file => { good => [ '', '/etc/flohsync.redis' ], bad => [ paths() ], secret => 1 },
	redis_ca_file => { good => [ '', '/etc/ssl/certs/ca.pem' ], bad => [ paths() ] },
	http_allowed_networks => {
		good => [ '', ' ', '10.0.0.0/8', '10.1.2.3, 127.0.0.0/8,fd00::/8', '"10.0.0.0/8", "::1"', '0.0.0.0/0,::/0' ],
		bad => [
			(map { [ $_, qr/An element of the list is empty/ ] } ',', '10.0.0.0/8,', ',10.0.0.0/8', '10.0.0.0/8,,::1'),
			(map { [ $_, qr/is no network: it must be an address/ ] } 'localhost', '10.0.0.0/33', '10.0.0.0/', '10', '::/129', '10.0.0.0/8 127.0.0.1', '10.0.0.0-10.0.0.255', "10.0.0.0/8,$long"),
			[ '10.1.2.3/8', qr/"10\.1\.2\.3\/8" has bits set behind its prefix; the network is 10\.0\.0\.0\/8/ ],
			[ '127.0.0.0/8,fd12::1/16', qr/"fd12::1\/16" has bits set behind its prefix; the network is fd12::\/16/ ],
			[ '::ffff:10.0.0.0/104', qr/is an address of IPv4 and judged as such; write 10\.0\.0\.0\/8/ ] ] },
	redis_url => {
		good => [ '', 'redis://h', 'redis://user@h', "redis://user:$canary\@h:6380/1", 'unix://user@/a/b?db=2' ],
		bad => [
			(map { [ $_, qr/must begin with/ ] } "http://u:$canary\@h", "u:$canary\@h"),
			(map { [ $_, qr/port is not a number/ ] } "redis://u:$canary\@h:x", "redis://u:$canary\@h:0"),
			[ "redis://u:%zz$canary\@h", qr/not percent-encoded/ ], [ "redis://u:$canary\@", qr/There is no host/ ],
			[ "redis://\@h", qr/no user name before/ ], [ "unix://u:$canary\@relative", qr/must be absolute/ ], [ "redis://u:$canary\@h/x", qr/database is not a number/ ] ],
		secret => 1 },
	timezone => { good => [ 'UTC', 'Europe/Berlin' ], bad => [ [ 'Nowhere/Land', qr/is not known/ ], [ '', qr/is not known/ ] ] },
	worker_role => { good => [ 'flohsync_worker', 'other' ], bad => [ [ '', qr/must be the name of a role/ ], [ substr($long, 0, 64), qr/too long to be the name of a role/ ] ] },);

sub paths { return map { [ $_, qr/must be an absolute path|too long for a path/ ] } 'key', './key', '../key', "$canary" . 'ab' x 32, '~/key', " /key", "/$long" }

is($f->sql("SELECT string_agg(substr(name, 10), ' ' ORDER BY name COLLATE \"C\") FROM pg_settings WHERE name LIKE 'flohsync.%' AND vartype = 'string'"),
	join(' ', sort keys %cases), 'each setting that is a text is tried here');

sub shown { return $f->sql("SELECT current_setting('flohsync.$_[0]')") }
sub log_from { return substr(slurp_file($f->node->logfile), $_[0]) }
sub log_size { return -s $f->node->logfile }

# What a session may set, and what only the file can
my %context = map { split /\|/ } split /\n/, $f->sql("SELECT substr(name, 10), context FROM pg_settings WHERE name LIKE 'flohsync.%'");
for my $name (sort keys %cases)
{
	my ($case, $before) = ($cases{$name}, shown($name));
	my @how = ("ALTER SYSTEM SET flohsync.$name = ", $context{$name} eq 'sighup' ? () : ("SET flohsync.$name = ", "ALTER DATABASE postgres SET flohsync.$name = ", "ALTER ROLE postgres SET flohsync.$name = "));
	$how[-1] =~ s/postgres/CURRENT_USER/ if @how > 1;
	for my $value (@{ $case->{good} })
	{
		for my $how (@how)
		{
			my $r = $f->try_sql($how . literal($value));
			ok($r->{ok}, "$how'$value'") or diag($r->{text});
		}
	}
	for my $bad (@{ $case->{bad} })
	{
		my ($value, $says) = @$bad;
		for my $how (@how)
		{
			my $r = $f->try_sql($how . literal($value));
			my $name = substr "$how'$value'", 0, 120;
			is($r->{state}, '22023', "$name is refused") or diag($r->{ok} ? 'it is taken' : $r->{text});
			like($r->{detail} // '', $says, 'and what is wrong is said');
			next unless $case->{secret};
			my $said = join "\n", map { $_ // '' } @$r{qw(message detail hint)};
			ok($value eq '' || length $value < 4 || index($said, $value) < 0, 'without repeating the value') or diag($said);
			unlike($said, qr/$canary/, 'or what may be a secret in it');
		}
	}
	$f->sql("ALTER SYSTEM RESET flohsync.$name");
	$f->sql("ALTER DATABASE postgres RESET flohsync.$name") if @how > 1;
	$f->sql("ALTER ROLE CURRENT_USER RESET flohsync.$name") if @how > 1;
	is(shown($name), $before, "flohsync.$name is as it was");
}

#
# The configuration file
#

# What is there stays, whatever is in the file, and the log says why.
my %kept = (databases => 'one, two', encryption_key_file => '/there/is/none', encryption_key_file_previous => '/nor/here', redis_password_file => '/nor/there',
	redis_ca_file => '/not/here', http_allowed_networks => '10.0.0.0/8', redis_url => 'redis://h', timezone => 'Europe/Berlin', worker_role => 'nobody',
	acting_user => '01908f4e-3d5c-7a61-8f5e-0123456789ab');
my $conf = slurp_file($f->node->data_dir . '/postgresql.conf');

sub conf
{
	my %set = @_;
	my $text = $conf . join '', map { "flohsync.$_ = " . ("'" . ($set{$_} =~ s/'/''/gr) . "'") . "\n" } sort keys %set;
	my $file = $f->node->data_dir . '/postgresql.conf';
	open my $out, '>', $file or die "$file: $!";
	print $out $text;
	close $out;
	return;
}

conf(%kept);
$f->node->reload;
$f->wait_for("SELECT current_setting('flohsync.$_') = " . literal($kept{$_})) or die $_ for sort keys %kept;
for my $name (sort keys %kept)
{
	my $from = log_size();
	my ($bad, $says) = @{ (grep({ $_->[0] =~ /$canary/ } @{ $cases{$name}{bad} }), @{ $cases{$name}{bad} })[0] };
	conf(%kept, $name => $bad, 'page_size' => 321);
	$f->node->reload;
	# Another setting of the same reload tells that it was done.
	$f->wait_for("SELECT current_setting('flohsync.page_size') = '321'") or die 'not reloaded';
	is(shown($name), $kept{$name}, "a reload with a wrong flohsync.$name leaves what was");
	my $log = log_from($from);
	like($log, qr/LOG: .*invalid value for parameter "flohsync\.$name"/, 'and says so in the log');
	like($log, $says, 'with the reason');
	unlike($log, qr/\Q$bad\E/, 'which does not repeat it') if $cases{$name}{secret};
	conf(%kept);
	$f->node->reload;
	$f->wait_for("SELECT current_setting('flohsync.page_size') = '500'") or die 'not reloaded';
}

# At the start there is nothing that could stay: the server starts with what is safe.
my $from = log_size();
conf(map { $_ => $cases{$_}{bad}[0][0] } grep { $_ ne 'databases' } keys %cases);
$f->disconnect('postgres');
$f->node->restart;
is(shown('http_allowed_networks') . shown('encryption_key_file') . shown('redis_url') . ' ' . shown('worker_role') . ' ' . shown('timezone'), ' flohsync_worker UTC', 'wrong values at the start of the server count as not set');
like(log_from($from), qr/WARNING: .*invalid value for parameter "flohsync\.$_"/, "the log tells of flohsync.$_") for grep { $_ ne 'databases' } sort keys %cases;
unlike(log_from($from), qr/$canary/, 'and repeats no secret');
conf();
$f->node->restart;

#
# A password in the address
#

$f->sql('CREATE ROLE low LOGIN');
$from = log_size();
my $r = $f->try_sql("SET flohsync.redis_url = 'redis://u:$canary\@h'; SHOW flohsync.redis_url");
like($r->{text}, qr/WARNING: .*flohsync\.redis_url holds a password.*DETAIL: .*SHOW.*HINT: .*flohsync\.redis_password_file/s, 'who puts a password into the address is told of the file');
is($r->{out}, "redis://u:$canary\@h", 'it is taken nevertheless');
like($f->try_sql("ALTER SYSTEM SET flohsync.redis_url = 'redis://u:$canary\@h'")->{text}, qr/WARNING: .*holds a password/, 'also by ALTER SYSTEM');
like($f->try_sql("ALTER DATABASE template1 SET flohsync.redis_url = 'redis://u:$canary\@h'")->{text}, qr/WARNING: .*holds a password/, 'and by ALTER DATABASE');
$f->sql('ALTER DATABASE template1 RESET flohsync.redis_url');
$r = $f->try_sql("ALTER SYSTEM SET flohsync.redis_url = 'redis://u\@h'");
is($r->{text}, '', 'not without one');
$f->sql('ALTER SYSTEM RESET flohsync.redis_url');
unlike(join("\n", grep { !/STATEMENT|^\s/ } split /\n/, log_from($from)), qr/$canary/, 'the password is in no message');

sub warnings { return scalar(() = log_from($_[0]) =~ /WARNING:  flohsync\.redis_url holds a password/g) }
my $g = Flohsync->new(name => 'plain', upstream => 0, preload => 0);
{
	# The log of a server that has the library from its start: once there, and once at each change
	$from = log_size();
	conf(redis_url => "redis://u:$canary\@h");
	$f->disconnect('postgres');
	$f->node->restart;
	is(warnings($from), 1, 'the log of the start tells of a password, once');
	conf(redis_url => "redis://u:$canary\@h", page_size => 321);
	$f->node->reload;
	$f->wait_for("SELECT current_setting('flohsync.page_size') = '321'") or die;
	is(warnings($from), 1, 'a reload without a change does not');
	conf(redis_url => "redis://u:2$canary\@h");
	$f->node->reload;
	$f->wait_for("SELECT current_setting('flohsync.redis_url') LIKE '%:2%'") or die;
	is(warnings($from), 2, 'a reload with another one does, once for all processes');
	is($f->try_sql('SET ROLE low; SHOW flohsync.redis_url')->{state}, '42501', 'nobody but superusers sees it');
	conf();
	$f->node->reload;
}
{
	# Without it, it is what the warning says.
	$g->sql('CREATE ROLE low LOGIN');
	$g->node->append_conf('postgresql.conf', "flohsync.redis_url = 'redis://u:$canary\@h'\n");
	$g->node->reload;
	my $show = "SET ROLE low; SHOW flohsync.redis_url";
	ok((sub { for (1 .. 1000) { my $s = $g->try_sql($show); return 1 if $s->{out} =~ /$canary/ } return 0 })->(), 'in a session without the library everybody sees the address');
	$from = -s $g->node->logfile;
	my $s = $g->try_sql("SET client_min_messages = debug1; LOAD 'flohsync'; $show");
	is($s->{state}, '42501', 'once it is loaded, nobody else does');
	unlike($s->{text}, qr/WARNING/, 'the client is not told of it');
	is(scalar(() = substr(slurp_file($g->node->logfile), $from) =~ /LOG:  flohsync\.redis_url holds a password/g), 1, 'the log is');
	$g->node->append_conf('postgresql.conf', "session_preload_libraries = 'flohsync'\n");
	$g->node->reload;
	ok((sub { for (1 .. 1000) { my $s = $g->try_sql($show); return 1 if $s->{state} eq '42501' } return 0 })->(), 'with session_preload_libraries nobody sees it either');
}

#
# The password in a file
#

my $password = 'p@ss:w/%rd %zz';
my $redis = RedisServer->new;
$redis->cmd('ACL', 'SETUSER', 'cache', 'on', ">$password", '~cr:*', '+get', '+set', '+del', '+eval', '+evalsha', '+info', '+select');
$redis->cmd('ACL', 'SETUSER', 'default', 'resetpass', '>all', 'on');
delete $redis->{client};
$redis->cmd('AUTH', 'all');
my $connector = "SELECT flohsync.create_connector('c', 'command', '{\"url\": \"https://directory.example.com/\", \"commands\": [\"listUsers\"]}')";

sub file
{
	my ($name, $content, $mode) = @_;
	unlink "$dir/$name";
	open my $out, '>', "$dir/$name" or die "$dir/$name: $!";
	print $out $content;
	close $out;
	chmod $mode // 0600, "$dir/$name";
	return "$dir/$name";
}

# In a database of its own each time: the breaker is of the database.
my $databases = 0;
sub works
{
	my ($url, $file) = @_;
	my $from = log_size();
	conf(redis_url => $url, redis_password_file => $file);
	$f->node->reload;
	$f->wait_for('SELECT current_setting(\'flohsync.redis_url\') = ' . literal($url) . ' AND current_setting(\'flohsync.redis_password_file\') = ' . literal($file)) or die;
	my $d = 'd' . ++$databases;
	$f->sql("CREATE DATABASE $d");
	$f->sql('CREATE EXTENSION flohsync', $d);
	$f->sql($connector, $d);
	my $put = $f->sql("SELECT flohsync.cache_put('c', 'user', 'k', '1')", $d);
	my $got = $f->sql("SELECT flohsync.cache_get('c', 'user', 'k')", $d);
	$f->sql("SELECT flohsync.cache_put('c', 'user', 'other', '1')", $d) for 1 .. 3;
	$f->disconnect($d);
	$f->sql("DROP DATABASE $d WITH (FORCE)");
	return $put eq 't' && $got eq '1' ? 'yes' : 'no' . (log_from($from) =~ /(redis_password_file (?:cannot|is not).*|WRONGPASS|NOAUTH|NOPERM)/ ? ": $1" : '');
}

my $with_user = "unix://cache\@$redis->{socket}?db=2";
my $without = "unix://$redis->{socket}";
is(works($with_user, file('p', "$password\n")), 'yes', 'a user in the address, and the password from the file');
is(works($with_user, file('p', $password)), 'yes', 'also without the end of its line');
is(works($with_user, file('p', "$password\r\nanything else\n")), 'yes', 'only the first line counts');
is(works($without, file('p', "all\n")), 'yes', 'no user in the address');
is(works("unix://cache:p%40ss:w%2F%25rd%20%25zz\@$redis->{socket}", file('p', "wrong\n")), 'yes', 'a password in the address goes before');
like(works($with_user, file('p', "wrong\n")), qr/^no: WRONGPASS/, 'a wrong one');
like(works($without, ''), qr/^no: NOAUTH/, 'none at all');
like(works($with_user, ''), qr/^no: redis_password_file is not set/, 'a user, and none');
for my $case (
	[ 'readable by the group', sub { file('k', "$password\n", 0640) }, qr/its mode must be 0600/ ],
	[ 'readable by all', sub { file('k', "$password\n", 0604) }, qr/its mode must be 0600/ ],
	[ 'a link', sub { symlink file('real', "$password\n"), "$dir/link" or die; "$dir/link" }, qr/it is a symbolic link/ ],
	[ 'a folder', sub { $dir }, qr/it is not a regular file/ ],
	[ 'a device', sub { '/dev/zero' }, qr/it is not a regular file/ ],
	[ 'not there', sub { "$dir/nothing" }, qr/No such file or directory/ ],
	[ 'not readable', sub { file('k', "$password\n", 0000) }, $> == 0 ? undef : qr/Permission denied/ ],
	[ 'somebody else\'s', sub { '/etc/hostname' }, qr/its mode must be 0600|is owned neither by/ ],
	[ 'empty', sub { file('k', '') }, qr/its first line is empty/ ],
	[ 'with an empty first line', sub { file('k', "\n$password\n") }, qr/its first line is empty/ ],
	[ 'with a long first line', sub { file('k', 'x' x 5000) }, qr/its first line is too long/ ],
	[ 'with a line just too long', sub { file('k', 'x' x 512 . "\n") }, qr/its first line is too long/ ],
	[ 'with a zero byte', sub { file('k', "a\0b\n") }, qr/its first line is not valid text/ ])
{
	my ($name, $make, $says) = @$case;
	next unless $says;
	my $came = works($with_user, $make->());
	like($came, qr/^no: redis_password_file cannot be used: /, "a file that is $name is not used");
	like($came, $says, 'and the log says why');
}

# Another password in Redis, and in the file
file('p', "$password\n");
is(works($with_user, "$dir/p"), 'yes', 'as it was');
$f->sql($connector);
is($f->sql("SELECT flohsync.cache_put('c', 'user', 'k', '1')"), 't', 'a session with a connection');
$redis->cmd('ACL', 'SETUSER', 'cache', 'resetpass', '>another one');
$redis->cmd('CLIENT', 'KILL', 'USER', 'cache');
file('p', "another one\n");
$f->comes_true("SELECT flohsync.cache_put('c', 'user', 'k', '2')", 'the file is read again for the next connection');
is($f->sql("SELECT flohsync.cache_get('c', 'user', 'k')"), '2', 'which works');
unlike(join("\n", grep { !/redis_url" changed to|STATEMENT|^\s/ } split /\n/, slurp_file($f->node->logfile)), qr/\Q$password\E|another one/, 'no password is in the log');

$_->no_crash for $f, $g;
done_testing();
