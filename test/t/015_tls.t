# TLS that is not good enough: no record goes over it, and the run says why.
use strict;
use warnings;

use Flohsync;
use PostgreSQL::Test::Utils;
use Test::More;

my $f = Flohsync->new(upstream => 0);
my $dir = PostgreSQL::Test::Utils::tempdir();
my %pid;

sub openssl { my @args = @_; run_log([ 'openssl', @args ], '>', "$dir/openssl.log", '2>&1') or die "openssl @args: " . slurp_file("$dir/openssl.log"); return }

# An authority nobody knows, and a certificate by it; a certificate by itself; one that has expired.
openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', "$dir/ca.key", '-out', "$dir/ca.pem", '-subj', '/CN=unknown authority', '-days', '30');
openssl('req', '-newkey', 'rsa:2048', '-nodes', '-keyout', "$dir/server.key", '-out', "$dir/server.csr", '-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1');
openssl('x509', '-req', '-in', "$dir/server.csr", '-CA', "$dir/ca.pem", '-CAkey', "$dir/ca.key", '-CAcreateserial', '-out', "$dir/by_ca.pem", '-days', '30', '-copy_extensions', 'copy');
openssl('req', '-x509', '-key', "$dir/server.key", '-out', "$dir/by_itself.pem", '-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1', '-days', '30');
openssl('x509', '-req', '-in', "$dir/server.csr", '-CA', "$dir/ca.pem", '-CAkey', "$dir/ca.key", '-CAcreateserial', '-out', "$dir/expired.pem", '-days', '0');

# A server that would answer anything with a page of records.
sub serve
{
	my ($name, @args) = @_;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $log = "$dir/$name.log";
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', $log;
		open STDERR, '>&', \*STDOUT;
		exec('openssl', 's_server', '-accept', "127.0.0.1:$port", '-key', "$dir/server.key", '-www', @args) or POSIX::_exit(127);
	}
	$pid{$name} = $pid;
	my $until = time + 10;
	sleep 0.02 until (-e $log && slurp_file($log) =~ /ACCEPT/) || time > $until;
	return "https://127.0.0.1:$port/";
}
END { my $status = $?; for my $pid (values %pid) { kill 'TERM', $pid; waitpid $pid, 0 } $? = $status }

for my $case (
	[ 'by_itself', [ '-cert', "$dir/by_itself.pem" ], qr/certificate/i ],
	[ 'unknown_authority', [ '-cert', "$dir/by_ca.pem" ], qr/certificate/i ],
	[ 'expired', [ '-cert', "$dir/expired.pem" ], qr/certificate/i ],
	[ 'tls_1_1', [ '-cert', "$dir/by_ca.pem", '-tls1_1', '-cipher', 'ALL:@SECLEVEL=0' ], qr/TLS|SSL|version|protocol/i ])
{
	my ($name, $args, $says) = @$case;
	$f->connector($name, url => serve($name, @$args));
	$f->sync_fails($name, 'user', $says, "$name: the run fails and names the cause");
	my $run = $f->last_run($name, 'user');
	is($run->{error_class}, 'tls', "$name: as a matter of TLS");
	unlike($run->{error}, qr/attempts/, "$name: it is not tried again");
	is($f->counts($name, 'user'), '0 0', "$name: nothing is stored");
	unlike(slurp_file("$dir/$name.log"), qr/listUsers|GET|POST/, "$name: nothing was sent");
}

$f->invariants;
$f->no_crash;
done_testing();
