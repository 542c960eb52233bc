# Barrage.pm: thousands of statements at a server that must survive them all,
# and JSON that is nearly right.
#
# A shot is { name => ..., kind => ..., lines => [ SQL, ... ] }: one statement each; they run in a
# transaction of their own, which is rolled back, after those of before => [ ... ], which are
# line -1; with alone => 1, outside of any; with impatient => 1, that
# they take too long is no fault.  What is made at random
# is made of a seed and the number of the shot, so that each can be had again.
package Barrage;

use strict;
use warnings;

use B;
use Digest::MD5 qw(md5);
use Exporter 'import';
use Flohsync;
use JSON::PP ();
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(time sleep);

our @EXPORT = qw(chance pick seeded json_of jsonb_of mutated raw odd_values);

# Perl's own generator is the same everywhere; neighbours shall have nothing in common.
sub seeded { my ($seed, $n) = @_; srand(unpack 'N', md5("$seed $n")); return }
sub pick { return $_[ int rand @_ ] }
sub chance { return rand(100) < $_[0] }

#
# Shooting
#

# new($flohsync, timeout => seconds for one shot)
sub new
{
	my ($class, $f, %opt) = @_;
	my $log = -s $f->node->logfile;
	return bless { f => $f, timeout => $opt{timeout} // 10, from => $log, fatal => {},
		started => $f->sql('SELECT pg_postmaster_start_time()') }, $class;
}

# As fast as psql can.  A shot gets its outcome: state ('00000'), message, line; state is
# 'crash' when the server went down and 'hang' when it could not be interrupted.  Of
# shots of one kind that have crashed it twice the rest is left out ('skipped').
sub fire
{
	my ($self, @shots) = @_;
	my @left = @shots;
	while (@left)
	{
		unshift @left, $self->volley($self->{timeout}, splice @left, 0, 500);
		$_->{state} = 'skipped' for grep { ($self->{fatal}{ $_->{kind} } // 0) >= 2 } @left;
		@left = grep { ($_->{state} // '') ne 'skipped' } @left;
	}
	# A loaded machine is slow: only who takes ten times as long has not come to an end, or who is like two of those.
	my %late;
	for my $shot (grep { $_->{state} eq '57014' && !$_->{impatient} } @shots)
	{
		$self->volley($self->{timeout} * 10, $shot) if ($late{ $shot->{kind} } // 0) < 2;
		$late{ $shot->{kind} }++ if $shot->{late} = $shot->{state} eq '57014';
	}
	return;
}

# One session; returns the shots that it did not come to.
sub volley
{
	my ($self, $timeout, @shots) = @_;
	delete $_->{state} for @shots;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	open my $script, '>', "$dir/script" or die $!;
	print $script "\\set VERBOSITY sqlstate\nSET client_min_messages = error;\nSET log_min_messages = fatal;\n";
	for my $i (0 .. $#shots)
	{
		my $shot = $shots[$i];
		my $line = 0;
		print $script "\\warn \@$i\n";
		print $script $shot->{alone} ? "SET statement_timeout = '${timeout}s';\n" : "BEGIN;\nSET LOCAL statement_timeout = '${timeout}s';\n";
		my $before = @{ $shot->{before} // [] };
		for my $sql (@{ $shot->{before} // [] }, @{ $shot->{lines} })
		{
			my $bytes = $sql;
			utf8::encode($bytes) if utf8::is_utf8($bytes);
			print $script "$bytes;\n\\warn \@$i " . ($before-- > 0 ? -1 : $line++) . " :SQLSTATE :LAST_ERROR_MESSAGE\n";
		}
		print $script $shot->{alone} ? "RESET statement_timeout; RESET ROLE;\n" : "ROLLBACK;\n";
		print $script "DEALLOCATE ALL;\n" if $shot->{prepares};
	}
	print $script "\\warn \@end\n";
	close $script;

	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		open STDERR, '>', "$dir/told";
		open STDOUT, '>', '/dev/null';
		local $ENV{PGAPPNAME} = 'barrage';
		exec('psql', '-XAtq', '-o', '/dev/null', '-d', $self->{f}->node->connstr($self->{f}{db}), '-f', "$dir/script") or POSIX::_exit(127);
	}
	$self->watch($pid, "$dir/told", $timeout);

	my $told = PostgreSQL::Test::Utils::slurp_file("$dir/told");
	my $at = 0;
	while ($told =~ /^\@(\d+|end)(?: (-?\d+) (\w{5}) ([^\n]*))?/mg)
	{
		my ($i, $line, $state, $message) = ($1, $2, $3, $4);
		$at = $i eq 'end' ? @shots : $i;
		next unless defined $state;
		my $shot = $shots[$i];
		@$shot{qw(state message line)} = ($state, $message, $line) if ($shot->{state} // '00000') eq '00000';
	}
	return if $at == @shots;
	my $shot = $shots[$at];
	@$shot{qw(state message line)} = ($self->{hung} ? 'hang' : 'crash', $told =~ /([^\n]*(?:connection|terminat)[^\n]*)/ ? $1 : '', 0);
	$self->{fatal}{ $shot->{kind} }++;
	$self->{f}->wait_for('SELECT true', timeout => 60) or die "the server does not come back\n";
	return @shots[ $at + 1 .. $#shots ];
}

# Waits for psql, as long as it gets on.
sub watch
{
	my ($self, $pid, $told, $timeout) = @_;
	my ($size, $since) = (-1, time);
	$self->{hung} = 0;
	until (waitpid($pid, POSIX::WNOHANG()) == $pid)
	{
		my $now = -s $told // 0;
		($size, $since) = ($now, time) if $now != $size;
		if (time - $since > $timeout * 3 + 240)
		{
			$self->{hung} = 1;
			my $backend = $self->{f}->sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'barrage'");
			kill 'KILL', $backend if $backend;
		}
		sleep 0.02;
	}
	return;
}

# What may never be, wherever it shows: in outcomes, or in the log of any process.
my $never = qr/invalid memory alloc request size|cache lookup failed|unrecognized |could not find tuple|stack smashing|out of memory/;

# The faults among the outcomes: shots, each with why.
sub faults
{
	my ($self, $allowed, @shots) = @_;
	my @faults;
	for my $shot (@shots)
	{
		my $said = "$shot->{state} " . ($shot->{message} // '');
		my $why = $shot->{state} eq 'crash' ? 'the server crashed'
		  : $shot->{state} eq 'hang' ? 'it could not be interrupted'
		  : $shot->{late} ? 'it does not come to an end'
		  : $said =~ /^XX|^53200/ ? 'an internal error'
		  : $said =~ $never ? 'a message from inside' : next;
		push @faults, { %$shot, why => $why } unless grep { $said =~ $_ } @$allowed;
	}
	return @faults;
}

# Tests of what must hold whatever was fired.
sub survived
{
	my ($self, $allowed, @shots) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @faults = $self->faults($allowed, @shots);
	is(scalar(@faults), 0, 'no shot crashes the server, goes on for ever, or shows what is inside');
	diag("$_->{why}: $_->{name}: $_->{state} " . substr($_->{message} // '', 0, 300) . "\n  " . substr(join(";\n  ", @{ $_->{before} // [] }, @{ $_->{lines} }), 0, 3000)) for splice @faults, 0, 10;
	is($self->{f}->sql('SELECT pg_postmaster_start_time()'), $self->{started}, 'the server is the one that was started');
	my $log = substr PostgreSQL::Test::Utils::slurp_file($self->{f}->node->logfile), $self->{from};
	my @bad = grep { my $line = $_; $line =~ /PANIC|TRAP:|terminated by signal|was terminated|crash of another server process|(?:Address|Undefined\w*|Leak)Sanitizer|runtime error:|\bXX\d\d\d\b/
		  || ($line =~ $never && $line =~ /ERROR|FATAL|LOG/) and !grep { $line =~ $_ } @$allowed } split /\n/, $log;
	is(scalar(@bad), 0, 'and nothing of the kind is in its log') or diag join "\n", map { substr $_, 0, 500 } splice @bad, 0, 20;
	return;
}

#
# JSON: as Perl has it, and raw('...') for what Perl cannot say
#

sub raw { my ($text) = @_; return \$text }

my $coder = JSON::PP->new->allow_nonref;

sub json_of
{
	my ($v) = @_;
	return 'null' unless defined $v;
	return '{' . join(',', map { $coder->encode($_) . ':' . json_of($v->{$_}) } sort keys %$v) . '}' if ref $v eq 'HASH';
	return '[' . join(',', map { json_of($_) } @$v) . ']' if ref $v eq 'ARRAY';
	return $$v if ref $v eq 'SCALAR';
	return $v ? 'true' : 'false' if JSON::PP::is_bool($v);
	return B::svref_2object(\$v)->FLAGS & B::SVf_POK ? $coder->encode("$v") : "$v";
}

# An expression; what would make the statement long is made by the server.
sub jsonb_of
{
	my $text = json_of($_[0]);
	my $sql = Flohsync::literal($text);
	$sql = "replace($sql, '\@HUGE\@', repeat('x', 1048576))" if $text =~ /\@HUGE\@/;
	$sql = "replace($sql, '\@LONG\@', repeat('long ', 2000))" if $text =~ /\@LONG\@/;
	$sql = "replace($sql, '\@DEEP\@', repeat('[', 2000) || repeat(']', 2000))" if $text =~ /\@DEEP\@/;
	$sql = "replace($sql, '\@MANY\@', (SELECT string_agg(format('\"%s\":%s', i, i), ',') FROM generate_series(1, 5000) i))" if $text =~ /\@MANY\@/;
	return "($sql)::jsonb";
}

# Values that are seldom thought of.
sub odd_values
{
	return (undef, JSON::PP::true, JSON::PP::false, 0, 1, -1, 0.5, 2147483647, 2147483648, -2147483649,
		map({ raw($_) } qw(9223372036854775807 9223372036854775808 18446744073709551616 1e100 1e400 -1e400 1e-400 1e20000 -0 10.0 1.5e3)),
		'', ' ', "\t\n", "\x{1}", "\x{7f}", "\x{e9}\x{20ac}\x{1f600}", 'a' x 64, 'a' x 65, 'a' x 256, '@LONG@', '@HUGE@', "'", '"', '\\', '%s%n', ';', "\r\nX-Injected: 1",
		'{{', '}}', '{{}}', '{{config.}}', '{{config.host', '{{config.nothing}}', '{{secret.token}}', '{{since}}', '{{since|epoch}}', '{{parent.external_id}}', '{{parent.attributes.a}}',
		'{{external_id}}', '{{config.host}}{{config.host}}', '{{ config.host }}', '{{config.{{config.host}}}}', ('{{config.host}}') x 2,
		'$', '$.', '$[*]', '$.a', '$.a[', '$[9999999999]', '$[-1]', '$[last]', '$[0 to 5]', '$.**', '$.**{1000000}.a', '$."a\\u0000"', '$x', '@', 'lax $', 'strict $.a', '$.a.size()', '$.a.datetime()',
		'$ ? (@.a == 1)', '$ ? (@ like_regex "(a+)+b")', '$ ? (' . join(' && ', ('@.a == "b"') x 40) . ')', '$' . '.a' x 40, '$' . '[*]' x 40, '(' x 200 . '$' . ')' x 200, '-' x 300 . '1',
		'$ ? ' . '(@.a ? ' x 9 . '(@.b == "c")' . ')' x 9, '.', '..', '/', '//', '/../x', '/a b', 'http://', 'https://192.0.2.1', 'ftp://192.0.2.1', 'http://[::1', 'http://10.0.0.1:99999/', 'GET', 'POST',
		'5m', '-1 day', '99999999999 years', 'P1Y', '2026-01-31', [], {}, [ [] ], [ undef ], [ 1, 'a', {} ], { '' => 1 }, { a => { a => { a => {} } } }, { type => 'none' }, { type => 'cursor' }, { type => undef },
		raw('{"a":1,"a":"b"}'), raw('{@MANY@}'), raw('[' . join(',', ('"$.a"') x 300) . ']'), raw('[' . join(',', (403) x 500) . ']'), raw('@DEEP@'), raw('{"a":@DEEP@}'), raw('"\\ud83d\\ude00"'));
}

# A copy with one to three changes, somewhere.
sub mutated
{
	my ($doc, @others) = @_;
	my $copy = [ copy($doc) ];
	for (1 .. pick(1, 1, 1, 2, 3))
	{
		my @places = places($copy);
		my ($in, $key) = @{ $places[ int rand @places ] };
		change($in, $key, \@places, @others);
	}
	return $copy->[0];
}

sub copy
{
	my ($v) = @_;
	return ref $v eq 'HASH' ? { map { $_ => copy($v->{$_}) } keys %$v } : ref $v eq 'ARRAY' ? [ map { copy($_) } @$v ] : $v;
}

# [ container, key ] of every value
sub places
{
	my ($v) = @_;
	my @all;
	my @left = ($v);
	while (my $in = shift @left)
	{
		for my $key (ref $in eq 'HASH' ? sort keys %$in : 0 .. $#$in)
		{
			my $value = ref $in eq 'HASH' ? $in->{$key} : $in->[$key];
			push @all, [ $in, $key ];
			push @left, $value if ref $value eq 'HASH' || ref $value eq 'ARRAY';
		}
	}
	return @all;
}

sub at { my ($in, $key) = @_; return ref $in eq 'HASH' ? \$in->{$key} : \$in->[$key] }

sub change
{
	my ($in, $key, $places, @others) = @_;
	my $hash = ref $in eq 'HASH';
	my $value = at($in, $key);
	my $how = pick(qw(odd odd odd odd odd odd remove rename copy swap other wrap unwrap add type));
	if ($how eq 'odd') { $$value = pick(odd_values()) }
	elsif ($how eq 'remove') { $hash ? delete $in->{$key} : @$in > 1 ? splice(@$in, $key, 1) : ($$value = undef) }
	elsif ($how eq 'rename' && $hash) { $in->{ pick($key . 'x', ucfirst $key, '', 'a/b~c', 'A' x 65, '@LONG@', pick(map { $_->[1] } @$places)) } = delete $in->{$key} }
	elsif ($how eq 'copy' && $hash) { $in->{"$key copy"} = copy($$value) }
	elsif ($how eq 'copy') { push @$in, copy($$value) }
	elsif ($how eq 'swap') { my ($i, $k) = @{ pick(@$places) }; my $there = at($i, $k); my ($a, $b) = (copy($$value), copy($$there)); ($$value, $$there) = ($b, $a) }
	elsif ($how eq 'other' && @others) { my ($i, $k) = @{ pick(places([ pick(@others) ])) }; $$value = copy(${ at($i, $k) }) }
	elsif ($how eq 'wrap') { $$value = pick([ $$value ], { a => $$value }, { type => $$value }, [ $$value, $$value ]) }
	elsif ($how eq 'unwrap') { $$value = ref $$value eq 'HASH' ? (sort { json_of($a) cmp json_of($b) } values %$$value)[0] : ref $$value eq 'ARRAY' ? $$value->[0] : $$value }
	elsif ($how eq 'add' && $hash) { $in->{ pick('type', 'path', 'in', 'total', 'stop', 'extra', 'null') } = pick(odd_values()) }
	elsif ($how eq 'type') { my $was = ref $$value ? json_of($$value) : $$value; $$value = pick("" . ($was // ''), 0 + length($was // ''), [ $was ], raw(length($was // ''))) }
	return;
}

1;
