# RedisServer.pm: a real Redis in a folder of the test, a client of it, and a
# proxy that stands in front of it and does what networks and other servers do.
package RedisServer;

use strict;
use warnings;

use IO::Select;
use IO::Socket::UNIX;
use POSIX ();
use Socket;
use Time::HiRes qw(time sleep);
use PostgreSQL::Test::Utils;

my @children;

END
{
	my $status = $?;
	kill 'KILL', @children if @children;
	waitpid $_, 0 for @children;
	$? = $status;
}

# new(args => [ '--requirepass', 'x' ], tls => 1)
sub new
{
	my ($class, %opt) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir_short();
	my $self = bless { dir => $dir, socket => "$dir/redis.sock", args => $opt{args} // [] }, $class;
	$self->start;
	return $self;
}

sub url { my ($self, $db) = @_; return "unix://$self->{socket}" . (defined $db ? "?db=$db" : '') }

sub start
{
	my ($self, @more) = @_;
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		open STDOUT, '>>', "$self->{dir}/log";
		open STDERR, '>&', \*STDOUT;
		exec('redis-server', '--port', '0', '--unixsocket', $self->{socket}, '--unixsocketperm', '700', '--dir', $self->{dir},
			'--save', '', '--appendonly', 'no', '--enable-debug-command', 'yes', '--stop-writes-on-bgsave-error', 'yes',
			@{ $self->{args} }, @more)
		  or POSIX::_exit(127);
	}
	push @children, $pid;
	$self->{pid} = $pid;
	my $until = time + 10;
	until (-S $self->{socket} && defined eval { $self->raw('PING') })
	{
		die "Redis did not start: " . slurp_file("$self->{dir}/log") if time > $until || waitpid($pid, POSIX::WNOHANG()) == $pid;
		sleep 0.01;
	}
	return;
}

sub end
{
	my ($self, $signal) = @_;
	kill $signal // 'TERM', $self->{pid};
	waitpid $self->{pid}, 0;
	@children = grep { $_ != $self->{pid} } @children;
	unlink $self->{socket};
	delete $self->{client};
	return;
}

sub restart { my ($self, @more) = @_; $self->end; $self->start(@more); return }
sub freeze { kill 'STOP', $_[0]->{pid}; return }
sub thaw { kill 'CONT', $_[0]->{pid}; return }

# One command: its value, undef for nil, a list as a reference; dies on an error.
sub cmd
{
	my ($self, @words) = @_;
	my ($type, $value) = $self->raw(@words);
	die "Redis: $value" if $type eq '-';
	return $value;
}

# The same, as (type, value).
sub raw
{
	my ($self, @words) = @_;
	my $s = $self->{client};
	if (!$s || !$s->connected)
	{
		$s = $self->{client} = IO::Socket::UNIX->new(Peer => $self->{socket}) // die "Redis: $!";
	}
	local $SIG{PIPE} = 'IGNORE';
	print {$s} '*' . @words . "\r\n" . join('', map { '$' . length($_) . "\r\n$_\r\n" } @words);
	$s->flush;
	my @reply = eval { read_reply($s) };
	delete $self->{client} unless @reply;
	die $@ unless @reply;
	return @reply;
}

sub read_reply
{
	my ($s) = @_;
	local $/ = "\n";
	my $line = <$s> // die 'Redis closed the connection';
	$line =~ s/\r\n\z//;
	my ($type, $rest) = (substr($line, 0, 1), substr($line, 1));
	return ($type, $rest) if $type =~ /[-+:]/;
	return ($type, undef) if $rest < 0;
	if ($type eq '$')
	{
		read $s, my $data, $rest + 2;
		return ($type, substr($data, 0, $rest));
	}
	return ($type, [ map { (read_reply($s))[1] } 1 .. $rest ]);
}

sub keys { my ($self, $pattern) = @_; return sort @{ $self->cmd('KEYS', $pattern // '*') } }

# How often commands were called since the last call: { get => 3, ... }
sub calls
{
	my ($self) = @_;
	my %calls = $self->cmd('INFO', 'commandstats') =~ /^cmdstat_(\S+?):calls=(\d+)/mg;
	$self->cmd('CONFIG', 'RESETSTAT');
	return \%calls;
}

#
# The proxy.  Modes: pass; delay MS; hold (until the next mode); drop (answers
# nothing any more); close (at each command); error TEXT and reply BYTES (instead
# of the answer to commands whose name matches "only"); stray BYTES (at once, to
# all, and then pass).
#
sub proxy
{
	my ($self) = @_;
	my $path = $self->{dir} . '/proxy' . ++$self->{proxies} . '.sock';
	my $listen = IO::Socket::UNIX->new(Local => $path, Listen => 64) // die "listen: $!";
	socketpair(my $ours, my $its, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die $!;
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		# Whatever else is open here belongs to the test: its psql would wait for us.
		my %keep = map { fileno($_) => 1 } $listen, $its;
		$keep{$_} or POSIX::close($_) for 3 .. 255;
		eval { proxy_run($listen, $its, $self->{socket}) };
		print STDERR "proxy: $@" if $@;
		POSIX::_exit(0);
	}
	push @children, $pid;
	close $its;
	$ours->autoflush(1);
	return bless { path => $path, control => $ours, pid => $pid }, 'RedisServer::Proxy';
}

sub proxy_run
{
	my ($listen, $control, $real) = @_;
	my $select = IO::Select->new($listen, $control);
	my ($mode, $arg, $only) = ('pass', '', '');
	my (%peer, %client, %buffer, @later);

	my $shut = sub {
		my ($h) = @_;
		for (grep { defined } $h, delete $peer{$h})
		{
			$select->remove($_);
			delete $peer{$_};
			delete $client{$_};
			delete $buffer{$_};
			close $_;
		}
	};
	my $send = sub { my ($h, $data) = @_; local $SIG{PIPE} = 'IGNORE'; syswrite $h, $data if $h->opened };
	while (1)
	{
		my $wait = @later && $later[0][0] ? $later[0][0] - time : 1;
		for my $h ($select->can_read($wait < 0 ? 0 : $wait))
		{
			if ($h == $listen)
			{
				my $c = $listen->accept;
				my $s = IO::Socket::UNIX->new(Peer => $real);
				if (!$s) { close $c; next }
				@peer{ $c, $s } = ($s, $c);
				$client{$c} = 1;
				$select->add($c, $s);
				next;
			}
			my $n = sysread $h, my $data, 65536;
			if ($h == $control)
			{
				return unless $n;
				$data =~ s/\n\z//;
				($mode, $arg, $only) = map { s/\\r/\r/gr =~ s/\\n/\n/gr } split /\t/, $data;
				if ($mode ne 'hold' && $mode ne 'delay')
				{
					$send->(@$_[ 1, 2 ]) for splice @later;
				}
				if ($mode eq 'stray')
				{
					$send->($_, $arg) for grep { $client{$_} } $select->handles;
					$mode = 'pass';
				}
				syswrite $control, "ok\n";
				next;
			}
			next unless $peer{$h};
			if (!$n) { $shut->($h); next }
			if (!$client{$h})
			{
				if ($mode eq 'delay') { push @later, [ time + $arg / 1000, $peer{$h}, $data ] }
				elsif ($mode eq 'hold') { push @later, [ 0, $peer{$h}, $data ] }
				elsif ($mode ne 'drop') { $send->($peer{$h}, $data) }
				next;
			}
			if ($mode eq 'close') { $shut->($h); next }
			if (($mode eq 'error' || $mode eq 'reply') && $data =~ /^\*\d+\r\n\$\d+\r\n(\w+)/ && uc($1) =~ /^(?:$only)$/)
			{
				my $count = () = $data =~ /^\*\d+\r\n/mg;
				$send->($h, ($mode eq 'error' ? "-$arg\r\n" : $arg) x ($mode eq 'error' ? $count : 1));
				next;
			}
			$send->($peer{$h}, $data);
		}
		while (@later && $later[0][0] && $later[0][0] <= time)
		{
			my $l = shift @later;
			$send->(@$l[ 1, 2 ]);
		}
	}
	return;
}

package RedisServer::Proxy;

sub url { return "unix://$_[0]->{path}" }

sub mode
{
	my ($self, @words) = @_;
	syswrite $self->{control}, join("\t", map { s/\r/\\r/gr =~ s/\n/\\n/gr } @words) . "\n";
	sysread $self->{control}, my $ok, 16;
	return;
}

1;
