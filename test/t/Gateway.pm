# Gateway.pm: flohsync-http in front of the cluster of a test.
#
#	my $f = Flohsync->new;
#	my $g = Gateway->new($f);          # roles app_reader and app_manager, and the server
#	my $a = $g->get('/api/me', token => $g->reader);
#	is($a->{status}, 200); is($a->{json}{subject}, 'jane');
#
# Each answer is compared with the OpenAPI document (test/lib/http_answers.py): one that is
# not as that says is a failed test.
package Gateway;

use strict;
use warnings;

use Digest::SHA qw(hmac_sha256);
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use HTTP::Tiny;
use IO::Select;
use IO::Socket::INET;
use IPC::Open2;
use JSON::PP;
use MIME::Base64 qw(encode_base64 encode_base64url);
use POSIX ();
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Test::More;
use Time::HiRes qw(time sleep);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

# HTTP::Tiny writes a head and its body apart: without this the body waits for an acknowledgement.
{
	no warnings 'redefine';
	my $connect = \&HTTP::Tiny::Handle::connect;
	*HTTP::Tiny::Handle::connect = sub {
		my $handle = $connect->(@_);
		setsockopt $handle->{fh}, IPPROTO_TCP, TCP_NODELAY, 1;
		return $handle;
	};
}

my $codec = JSON::PP->new->utf8->allow_nonref->canonical;
my @running;
my $number = 0;
my ($judge_in, $judge_out);

sub binary { return $ENV{GATEWAY} // die 'GATEWAY names no flohsync-http' }

# Gateway->new($f, roles => 0, start => 0, secret => '...', settings => { name => value })
sub new
{
	my ($class, $f, %opt) = @_;
	my $self = bless { f => $f, secret => $opt{secret} // 'a secret of more than thirty-two bytes', %opt }, $class;

	$self->{dir} = PostgreSQL::Test::Utils::tempdir();
	$self->{port} = $opt{port} // PostgreSQL::Test::Cluster::get_free_port();
	$self->{number} = ++$number;
	$f->sql(<<'SQL') if $opt{roles} // 1;
CREATE ROLE app_reader;
CREATE ROLE app_manager;
CREATE ROLE flohsync_http LOGIN NOINHERIT;
SELECT flohsync.grant_reader('app_reader');
SELECT flohsync.grant_manager('app_manager');
SELECT flohsync.grant_gateway('flohsync_http');
GRANT app_reader, app_manager TO flohsync_http;
SQL
	$self->{secret_file} = "$self->{dir}/secret";
	$self->write_secret($self->{secret});
	$self->{settings} = {
		db => sprintf(q{host=%s port=%s dbname=%s user=flohsync_http}, $f->node->host, $f->node->port, $f->{db}),
		listen => "127.0.0.1:$self->{port}",
		jwt_keys => $self->{secret_file},
		jwt_audience => 'flohsync',
		roles => 'app_manager app_reader',
		%{ $opt{settings} // {} } };
	$self->start if $opt{start} // 1;
	return $self;
}

sub write_secret
{
	my ($self, $secret) = @_;
	my $mask = umask 077;
	PostgreSQL::Test::Utils::append_to_file("$self->{secret_file}.new", $secret);
	umask $mask;
	rename "$self->{secret_file}.new", $self->{secret_file} or die "rename: $!";
	return;
}

# Writes the file of settings; undef leaves one out.
sub write_settings
{
	my ($self, %change) = @_;
	my $s = $self->{settings} = { %{ $self->{settings} }, %change };

	$self->{config} = "$self->{dir}/http.conf";
	unlink $self->{config};
	PostgreSQL::Test::Utils::append_to_file($self->{config},
		join '', map { defined $s->{$_} ? "$_ = $s->{$_}\n" : () } sort keys %$s);
	return;
}

# Starts it, and waits until it listens; false when it ended instead.
sub start
{
	my ($self) = @_;

	$self->write_settings;
	$self->{log} = "$self->{dir}/log";
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		open(STDERR, '>>', $self->{log}) or POSIX::_exit(127);
		open(STDIN, '<', '/dev/null') or POSIX::_exit(127);
		exec(binary(), '--config', $self->{config}) or POSIX::_exit(127);
	}
	$self->{pid} = $pid;
	push @running, $pid;
	for (my $until = time + 60; time < $until; sleep 0.02)
	{
		if (waitpid($pid, POSIX::WNOHANG()) == $pid)
		{
			$self->{status} = $?;
			delete $self->{pid};
			@running = grep { $_ != $pid } @running;
			return 0;
		}
		return 1 if $self->connect;
	}
	die 'flohsync-http did not start';
}

# Ends it; its exit status.
sub stop
{
	my ($self, $signal) = @_;
	my $pid = delete $self->{pid} // return;

	kill $signal // 'TERM', $pid;
	waitpid $pid, 0;
	$self->{status} = $?;
	@running = grep { $_ != $pid } @running;
	return $? >> 8;
}

sub signal { my ($self, $signal) = @_; return kill $signal, $self->{pid} }

# Is it still the process that was started?
sub alive { my ($self) = @_; return $self->{pid} && waitpid($self->{pid}, POSIX::WNOHANG()) == 0 }

END
{
	my $status = $?;
	for my $pid (@running)
	{
		kill 'KILL', $pid;
		waitpid $pid, 0;
	}
	$? = $status;
}

sub log_text { my ($self) = @_; return -e $self->{log} ? PostgreSQL::Test::Utils::slurp_file($self->{log}) : '' }

# Waits until the log has a line.
sub log_has
{
	my ($self, $pattern, $name) = @_;
	for (my $until = time + 60; time < $until; sleep 0.05)
	{
		return pass($name) if $self->log_text =~ $pattern;
	}
	return fail($name) || diag($self->log_text);
}

sub url { return "http://127.0.0.1:$_[0]->{port}$_[1]" }

# A JSON Web Token: jwt({ role => ... }, alg => 'HS256', secret => '...', header => {...})
sub jwt
{
	my ($self, $claims, %opt) = @_;
	my $head = { alg => 'HS256', typ => 'JWT', %{ $opt{header} // {} } };
	my $text = join '.', map { encode_base64url($codec->encode($_)) } $head,
	  { aud => 'flohsync', exp => time() + 3600 | 0, sub => 'jane', %$claims };
	return "$text." . encode_base64url(hmac_sha256($text, $opt{secret} // $self->{secret}));
}

sub reader { my ($self) = @_; return $self->{reader} //= $self->jwt({ role => 'app_reader' }) }
sub manager { my ($self) = @_; return $self->{manager} //= $self->jwt({ role => 'app_manager' }) }

# Asks for what is wrong with something, by the OpenAPI document.
sub judge
{
	my ($what) = @_;

	if (!$judge_in)
	{
		my $document = PostgreSQL::Test::Utils::tempdir() . '/openapi.json';
		PostgreSQL::Test::Utils::append_to_file($document, scalar qx{"@{[binary()]}" --openapi});
		push @running,
		  open2($judge_out, $judge_in, -x '/usr/bin/python3' ? '/usr/bin/python3' : 'python3', abs_path(dirname(__FILE__)) . '/../lib/http_answers.py', $document);
	}
	print $judge_in $codec->encode($what), "\n";
	$judge_in->flush;
	return @{ $codec->decode(scalar readline($judge_out) // die 'http_answers.py has ended') };
}

# What is wrong with an answer; with a value of a schema
sub answer_faults
{
	my ($method, $path, $a) = @_;
	return judge({ method => $method, path => $path, status => 0 + $a->{status}, headers => $a->{headers},
		body => encode_base64($a->{content} // '', '') });
}
sub value_faults { my ($schema, $value) = @_; return judge({ schema => $schema, value => $value }) }

# request('POST', '/api/...', token => ..., body => any JSON, content => raw, type => '...', headers => {...});
# unchecked => 1: an answer that is not compared with the document
sub request
{
	my ($self, $method, $path, %opt) = @_;
	my %headers = (%{ $opt{headers} // {} });
	my $content = $opt{content};

	$self->{http} //= HTTP::Tiny->new(timeout => 180, keep_alive => 1, max_redirect => 0);
	$headers{Authorization} = "Bearer $opt{token}" if defined $opt{token};
	if (exists $opt{body})
	{
		$content = $codec->encode($opt{body});
		$headers{'Content-Type'} = 'application/json';
	}
	$headers{'Content-Type'} = $opt{type} if defined $opt{type};
	my $a = $self->{http}->request($method, $self->url($path),
		{ headers => \%headers, defined $content ? (content => $content) : () });
	if (($a->{headers}{'content-type'} // '') =~ m{^application/json} && length $a->{content})
	{
		$a->{json} = eval { $codec->decode($a->{content}) };
		diag("no JSON: $a->{content}") if $@;
	}
	# 599: there was no answer.
	for my $fault ($a->{status} == 599 || $opt{unchecked} ? () : answer_faults($method, $path, $a))
	{
		fail("$method $path: the answer is as the OpenAPI document says");
		diag("$a->{status}: $fault");
	}
	return $a;
}

sub get { my ($self, $path, %opt) = @_; return $self->request('GET', $path, %opt) }
sub post { my ($self, $path, $body, %opt) = @_; return $self->request('POST', $path, body => $body, %opt) }
sub put { my ($self, $path, $body, %opt) = @_; return $self->request('PUT', $path, body => $body, %opt) }
sub delete { my ($self, $path, %opt) = @_; return $self->request('DELETE', $path, %opt) }

# A connection of its own, for bytes as they are.
sub connect
{
	my ($self) = @_;
	return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}, Proto => 'tcp', Timeout => 30);
}

# Sends bytes as they are, and reads until the other side closes:
# { text, closed, statuses => [...], answers => [{ status, head, body }] }
#
#	half => 1       closes the sending side behind them
#	answers => 2    does not wait for the end, but for so many answers
#	socket => $s    on this connection, which stays open
sub exchange
{
	my ($self, $bytes, %opt) = @_;
	my $socket = $opt{socket} // $self->connect;
	my %r = (text => '', closed => 0, answers => []);

	local $SIG{PIPE} = 'IGNORE';
	send_all($socket, $bytes, \%r);
	shutdown $socket, 1 if $opt{half};
	until ($opt{answers} && @{ answers_in(\%r) } >= $opt{answers})
	{
		if (!IO::Select->new($socket)->can_read(120))
		{
			$r{silent} = 1;
			last;
		}
		if (!sysread $socket, $r{text}, 65536, length $r{text})
		{
			$r{closed} = 1;
			last;
		}
	}
	close $socket unless $opt{socket};
	answers_in(\%r);
	$r{statuses} = [ map { $_->{status} } @{ $r{answers} } ];
	return \%r;
}

# Reads while it writes: who is refused early is told so before all is written.
sub send_all
{
	my ($socket, $bytes, $r) = @_;
	my $sent = 0;

	while ($sent < length $bytes)
	{
		my ($can_read, $can_write) = IO::Select->select(IO::Select->new($socket), IO::Select->new($socket), undef, 120);
		return unless $can_write || $can_read;
		if ($can_read && @$can_read)
		{
			sysread $socket, $r->{text}, 65536, length $r->{text} or return;
		}
		if ($can_write && @$can_write)
		{
			$sent += syswrite($socket, $bytes, 16384, $sent) || return;
		}
	}
	return;
}

# The whole answers of a text; "100 Continue" is none.
sub answers_in
{
	my ($r) = @_;
	my $text = $r->{text};

	$r->{answers} = [];
	while ($text =~ s{\AHTTP/1\.[01] (\d{3})(.*?\r\n)\r\n}{}s)
	{
		my ($status, $head) = ($1, $2);
		next if $status == 100;
		my ($length) = $head =~ /^Content-Length: (\d+)/mi;
		last if ($length // 0) > length $text;
		push @{ $r->{answers} }, { status => $status, head => $head, body => substr($text, 0, $length // 0, '') };
	}
	return $r->{answers};
}

# Sends bytes and reads until the other side closes, or there is nothing for so many seconds.
sub raw
{
	my ($self, $bytes, $seconds) = @_;
	my $socket = $self->connect or return '';
	my $answer = '';

	local $SIG{PIPE} = 'IGNORE';
	$socket->syswrite($bytes);
	while (IO::Select->new($socket)->can_read($seconds // 60))
	{
		sysread($socket, my $piece, 65536) or last;
		$answer .= $piece;
	}
	close $socket;
	return $answer;
}

1;
