# Flohsync.pm: what the TAP tests have in common.
#
# One object is one cluster with the extension, and one upstream server that
# the tests steer through its control URLs.  Nothing here waits a fixed time:
# wait_for polls a query, upstream's "wait" blocks until a request has come.
package Flohsync;

use strict;
use warnings;

use B;
use Digest::SHA qw(sha256_hex);
use Encode qw(encode_utf8 decode_utf8);
use File::Basename qw(dirname);
use Cwd qw(abs_path);
use HTTP::Tiny;
use IO::Select;
use IPC::Open3 ();
use IPC::Run;
use JSON::PP;
use POSIX ();
use Symbol ();
use Time::HiRes qw(time sleep);
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

use Exporter 'import';
our @EXPORT = qw(jcs record_hash decode_json_text json_text literal sorted_ids);

my $codec = JSON::PP->new->utf8->allow_nonref;
my @upstreams;
my %hash_of;    # of a record's JSON text: id and digest

#
# Start
#

# Flohsync->new(preload => 1, conf => "...", db => 'postgres', upstream => 1, init => { ... of the node })
sub new
{
	my ($class, %opt) = @_;
	my $self = bless { db => $opt{db} // 'postgres' }, $class;
	my $node = PostgreSQL::Test::Cluster->new($opt{name} // 'main');

	init_node($node, %opt);
	$node->start;
	$self->{node} = $node;
	$self->sql("CREATE DATABASE $self->{db}", 'postgres') if $self->{db} ne 'postgres';
	$self->sql('CREATE EXTENSION flohsync');
	$self->start_upstream(%opt) if $opt{upstream} // 1;
	return $self;
}

sub init_node
{
	my ($node, %opt) = @_;
	$node->init(extra => [ '--encoding=UTF8', '--locale=C' ], %{ $opt{init} // {} });
	$node->append_conf('postgresql.conf', <<CONF);
fsync = on
log_statement = none
restart_after_crash = on
flohsync.http_allowed_networks = '127.0.0.0/8'
flohsync.http_retry_delay = '20ms'
CONF
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'flohsync'\n")
	  if $opt{preload} // 1;
	$node->append_conf('postgresql.conf', $opt{conf}) if $opt{conf};
	return;
}

# The same upstream, and another cluster: a standby, a copy.
sub with_node
{
	my ($self, $node) = @_;
	return bless { db => $self->{db}, node => $node, port => $self->{port}, http => $self->{http} }, ref $self;
}

sub node { return $_[0]->{node} }

sub start_upstream
{
	my ($self, %opt) = @_;
	my $binary = $ENV{UPSTREAM} // dirname(abs_path(__FILE__)) . '/../upstream/upstream';
	my $port_file = PostgreSQL::Test::Utils::tempdir() . '/port';
	my @args = ('--port', '0', '--port-file', $port_file, '--die-with-parent',
		'--records', $opt{records} // 'user=200,group=20');

	-x $binary or die "no upstream server at $binary: build it, or set UPSTREAM";
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		exec($binary, @args) or POSIX::_exit(127);
	}
	push @upstreams, $pid;
	my $until = time + 10;
	sleep 0.01 until -e $port_file || time > $until;
	-e $port_file or die 'the upstream server did not start';
	chomp($self->{port} = slurp_file($port_file));
	$self->{http} = HTTP::Tiny->new(timeout => 60);
	return;
}

END
{
	my $status = $?;
	for my $pid (@upstreams)
	{
		kill 'TERM', $pid;
		waitpid $pid, 0;
	}
	$? = $status;
}

#
# The upstream
#

sub url { return "http://127.0.0.1:$_[0]->{port}/" }

# What it listens on, when no one does: a port of our own that is closed again.
sub closed_url { return 'http://127.0.0.1:' . PostgreSQL::Test::Cluster::get_free_port() . '/' }

# One control request: up('fault', kind => 'status', code => 503, body => '...')
sub up
{
	my ($self, $action, %args) = @_;
	my $body = delete $args{body};
	my $url = $self->url . "_control/$action";

	$url .= '?' . $self->{http}->www_form_urlencode(\%args) if %args;
	my $answer = $self->{http}->request(defined $body ? 'POST' : 'GET', $url,
		defined $body ? { content => $body } : {});
	return $answer->{content} if $action eq 'dump';
	die "upstream: $action: $answer->{status} $answer->{content}"
	  if !$answer->{success} && $action ne 'wait';
	return $codec->decode($answer->{content});
}

sub fault { my ($self, $kind, %args) = @_; return $self->up('fault', kind => $kind, %args)->{id} }

# All as at the start, with these records: fresh(user => 100)
sub fresh
{
	my ($self, %records) = @_;
	$self->up('reset');
	$self->up('records', %records) if %records;
	return;
}

# The requests since the log was cleared, oldest first, each with its command decoded.
sub requests
{
	my ($self, %only) = @_;
	my @entries = grep { !$only{type} || $_->{type} eq $only{type} }
	  @{ $self->up('log', last => 100000)->{entries} };
	$_->{asked} = eval { $codec->decode(encode_utf8($_->{body})) } for @entries;
	return @entries;
}

sub pages_asked { my ($self, $type) = @_; return join ' ', map { $_->{page} } $self->requests(type => $type) }

sub clear_log { $_[0]->up('log', clear => 1, last => 0); return }

# Wait for something at the upstream: await(hanging => 1), await(requests => 3)
sub await
{
	my ($self, %goal) = @_;
	my $answer = $self->up('wait', timeout_ms => 20000, %goal);
	die 'the upstream was not asked in time: ' . $codec->encode(\%goal) unless $answer->{ok};
	return;
}

#
# SQL
#

# A psql session per database is kept, for speed; it is made anew when it was lost.
sub session
{
	my ($self, $db) = @_;
	my $s = $self->{sessions}{$db} //= { out => '', err => '', in => '' };
	return $s if $s->{run};
	my @cmd = ('psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $self->node->connstr($db), '-f', '-');
	$s->{in} = $s->{out} = $s->{err} = '';
	my ($in, $out, $err);
	$s->{pid} = do
	{
		local %ENV = (%ENV, PGAPPNAME => 'test');
		IPC::Open3::open3($in, $out, $err = Symbol::gensym(), @cmd);
	};
	binmode $_ for $in, $out, $err;
	$in->autoflush(1);
	@$s{qw(run to from errors)} = (1, $in, $out, $err);
	return $s;
}

sub disconnect
{
	my ($self, $db) = @_;
	my $s = delete $self->{sessions}{$db} or return;
	return unless $s->{run};
	close $s->{to};
	waitpid $s->{pid}, 0;
	return;
}

# (1, output, messages), (0, output, messages) after an error, (undef, ...) when the session was lost.
sub query
{
	my ($self, $sql, $db) = @_;
	$db //= $self->{db};
	my $s = $self->session($db);
	my $mark = 'end of query ' . ++$self->{queries};
	my %got = (from => '', errors => '');
	my $select = IO::Select->new($s->{from}, $s->{errors});

	local $SIG{PIPE} = 'IGNORE';
	utf8::encode($sql) if utf8::is_utf8($sql);
	print { $s->{to} } "$sql\n;\n\\echo\n\\echo $mark\n\\warn $mark\n";
	my $until = time + 60;
	while ($got{from} !~ /^$mark\n/m || $got{errors} !~ /^$mark\n/m)
	{
		for my $h ($select->can_read(1))
		{
			my $which = $h == $s->{from} ? 'from' : 'errors';
			next if sysread $h, $got{$which}, 65536, length $got{$which};
			waitpid $s->{pid}, 0;
			delete $self->{sessions}{$db};
			return (undef, $got{from}, $got{errors});
		}
		die "no answer within a minute: $sql" if time > $until;
	}
	if ($got{errors} =~ /server closed the connection|connection to server was lost|terminating connection/)
	{
		$self->disconnect($db);
		return (undef, $got{from}, $got{errors});
	}
	$got{from} =~ s/\n?\n$mark\n\z//;
	$got{errors} =~ s/$mark\n\z//;
	return ($got{errors} !~ /(?:ERROR|FATAL):  / ? 1 : 0, @got{qw(from errors)});
}

# Run SQL and return what it prints; dies on an error.
sub sql
{
	my ($self, $sql, $db) = @_;
	my ($ok, $out, $err) = $self->query($sql, $db);
	($ok, $out, $err) = $self->query($sql, $db) unless defined $ok;    # the session was a dead one
	die "SQL failed: $err\n$sql" unless $ok;
	return $out;
}

# SQL that may fail: { ok, out, state, message, hint, detail, text }.  What sets
# something for its session gets a session of its own.
sub try_sql
{
	my ($self, $sql, $db) = @_;
	if ($sql !~ /^\s*(?:SET|BEGIN)\b/i)
	{
		my ($ok, $out, $err) = $self->query($sql, $db);
		return outcome($ok ? 0 : 1, $out, $err);
	}
	my ($rc, $out, $err) = $self->node->psql($db // $self->{db}, $sql,
		on_error_stop => 1, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return outcome($rc, $out, $err);
}

sub outcome
{
	my ($rc, $out, $err) = @_;
	my %r = (ok => $rc == 0, out => $out, text => $err, state => '', message => '');
	($r{state}, $r{message}) = ($1, $2) if $err =~ /(?:ERROR|FATAL):  (\w{5}): (.*)/;
	($r{hint}) = $err =~ /HINT:  (.*)/;
	($r{detail}) = $err =~ /DETAIL:  (.*)/;
	return \%r;
}

# SQL that must fail with this SQLSTATE and a text (message, detail or hint) that says this.
sub fails_like
{
	my ($self, $sql, $state, $like, $name) = @_;
	my $r = $self->try_sql($sql);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(!$r->{ok} && $r->{state} eq $state && $r->{text} =~ $like, $name)
	  || diag("expected $state and $like, got: " . ($r->{ok} ? "success: $r->{out}" : $r->{text}));
}

sub json { my ($self, $sql, $db) = @_; my $t = $self->sql($sql, $db); return $t eq '' ? undef : decode_json_text($t) }

# CALL sync: (1, the statistics) or (0, the outcome of try_sql)
sub sync
{
	my ($self, $connector, $type, $db) = @_;
	my $r = $self->try_sql('CALL flohsync.sync(' . literal($connector) . ', ' . literal($type) . ')', $db);
	return $r->{ok} ? (1, decode_json_text($r->{out})) : (0, $r);
}

# A sync that must succeed; returns the statistics.
sub sync_ok
{
	my ($self, $connector, $type, $name) = @_;
	my ($ok, $r) = $self->sync($connector, $type);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($ok, $name // "sync of $connector/$type") or diag($r->{text});
	return $ok ? $r : {};
}

# A sync that must fail with an error that says this.
sub sync_fails
{
	my ($self, $connector, $type, $like, $name) = @_;
	my ($ok, $r) = $self->sync($connector, $type);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(!$ok && $r->{message} =~ $like, $name)
	  || diag("expected an error like $like, got: " . ($ok ? json_text($r) : $r->{text}));
}

# SQL in a session of its own, without waiting: finish() waits for the end.
sub start_sql
{
	my ($self, $sql, $db) = @_;
	my %h = (out => '', err => '', begun => time);
	my @cmd = ('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose',
		'-d', $self->node->connstr($db // $self->{db}), '-c', $sql);
	$h{run} = IPC::Run::start(\@cmd, '<', \undef, '>', \$h{out}, '2>', \$h{err});
	return \%h;
}

sub finish
{
	my ($self, $h, $timeout) = @_;
	my $until = time + ($timeout // 30);
	while ($h->{run}->pumpable && time < $until)
	{
		$h->{run}->pump_nb;
		sleep 0.01;
	}
	if ($h->{run}->pumpable)
	{
		$h->{run}->kill_kill;
		return { ok => 0, out => '', text => 'timeout', state => 'timeout', message => 'timeout', seconds => time - $h->{begun} };
	}
	$h->{run}->finish;
	chomp $h->{out};
	my $r = outcome($h->{run}->full_result(0), $h->{out}, $h->{err});
	$r->{seconds} = time - $h->{begun};
	return $r;
}

# Poll until the query prints the expected text (default t).  Works across crashes.
sub wait_for
{
	my ($self, $sql, %opt) = @_;
	my $expected = $opt{is} // 't';
	my $until = time + ($opt{timeout} // 20);
	my ($ok, $out, $err);
	do
	{
		($ok, $out, $err) = $self->query($sql, $opt{db});
		return 1 if $ok && $out eq $expected;
		sleep($ok ? 0.01 : 0.05);
	} while (time < $until);
	diag("waited in vain for: $sql\n" . ($err || "it says: $out"));
	return 0;
}

# Kill a process, and wait until the server has noticed, restarted its processes and is up.
sub crash
{
	my ($self, $pid) = @_;
	my $until = time + 20;
	$self->sql('SELECT 1');
	kill 'KILL', $pid or return 0;
	while (defined(($self->query('SELECT 1'))[0]))
	{
		return 0 if time > $until;
		sleep 0.01;
	}
	return $self->wait_for('SELECT true');
}

# Wait until all that was committed so far is on disk; with a run and a page of
# it, that one included: a page is asked for before the one before it is applied.
sub wait_flushed
{
	my ($self, $run, $page) = @_;
	$self->wait_for("SELECT EXISTS (SELECT FROM flohsync.sync_run_page WHERE run_id = $run AND page = $page)")
	  or die "page $page of run $run is not applied"
	  if defined $page;
	my $lsn = $self->sql('SELECT pg_current_wal_insert_lsn()');
	return $self->wait_for("SELECT pg_current_wal_flush_lsn() >= '$lsn'");
}

# The same as an assertion.
# The superuser that the cluster was made with: of whatever name.
sub superuser { my ($self) = @_; return $self->{superuser} //= $self->sql('SELECT session_user') }

sub comes_true
{
	my ($self, $sql, $name, %opt) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($self->wait_for($sql, %opt), $name);
}

#
# Connectors and their records
#

# A connector of kind command at our upstream, configured for these types.
sub connector
{
	my ($self, $name, %settings) = @_;
	my %opt = (types => ['user'], url => $settings{url} // $self->url);
	for (qw(types url headers config))
	{
		$opt{$_} = delete $settings{$_} if exists $settings{$_};
	}
	my %config = (url => $opt{url}, commands => [qw(listUsers listGroups listRoles getUser)]);
	$config{headers} = $opt{headers} if $opt{headers};
	%config = (%config, %{ $opt{config} // {} });
	my $id = $self->sql('SELECT flohsync.create_connector(' . literal($name) . ", 'command', " . jsonb(\%config) . ')');
	$self->configure($name, $_, %settings) for @{ $opt{types} };
	return $id;
}

sub configure
{
	my ($self, $name, $type, %settings) = @_;
	return $self->json('SELECT flohsync.configure_sync(' . literal($name) . ', ' . literal($type) . ', ' . jsonb(\%settings) . ')');
}

sub jsonb { return literal(json_text($_[0])) . '::jsonb' }

# A connector's id, as SQL
sub connector_id { my ($self, $name) = @_; return '(select id from flohsync.connector_definition where name = ' . literal($name) . ')' }

# "FROM ... WHERE ..." for the records of a connector and type.
sub scope
{
	my ($self, $connector, $type) = @_;
	return 'FROM flohsync.connector_resource r JOIN flohsync.connector_definition d ON d.id = r.connector_id WHERE d.name = '
	  . literal($connector) . ' AND r.resource_type = ' . literal($type);
}

# "active stale", as one text
sub counts
{
	my ($self, $connector, $type) = @_;
	return $self->sql("SELECT count(*) FILTER (WHERE stale_since IS NULL) || ' ' || count(stale_since) " . $self->scope($connector, $type));
}

sub run_row
{
	my ($self, $id) = @_;
	return $self->json("SELECT to_jsonb(r) FROM flohsync.sync_run r WHERE id = $id");
}

sub last_run
{
	my ($self, $connector, $type) = @_;
	return $self->json('SELECT to_jsonb(r) FROM flohsync.sync_run r JOIN flohsync.connector_definition d ON d.id = r.connector_id WHERE d.name = '
		  . literal($connector) . ' AND r.resource_type = ' . literal($type) . ' ORDER BY r.id DESC LIMIT 1');
}

sub status
{
	my ($self, $connector, $type) = @_;
	return $self->json('SELECT flohsync.sync_status(' . literal($connector) . ', ' . literal($type) . ')');
}

sub errors_of
{
	my ($self, $run) = @_;
	return @{ $self->json("SELECT coalesce(jsonb_agg(to_jsonb(e) ORDER BY id), '[]') FROM flohsync.sync_error e WHERE run_id = $run") };
}

sub wait_run
{
	my ($self, $run, %opt) = @_;
	return $self->wait_for("SELECT status NOT IN ('queued', 'running') FROM flohsync.sync_run WHERE id = $run", %opt);
}

# A worker at work, rather than one that is about to leave
sub worker_pid
{
	my ($self, $db) = @_;
	$db //= $self->{db};
	my $query = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'flohsync worker%' AND datname = '$db' ORDER BY application_name LIKE 'flohsync run%' DESC LIMIT 1";
	my $until = time + 10;
	my $pid;
	do { $pid = $self->sql($query); } while ($pid eq '' && time < $until);
	return $pid;
}

#
# Oracles
#

# The table must be what the upstream says: every record, its hash made here, nothing else active.
sub matches_upstream
{
	my ($self, $connector, $type, $name, %opt) = @_;
	my %want;
	for my $line (split /\n/, $self->up('dump', type => $type))
	{
		my $known = $hash_of{$line} //= do { my $r = $codec->decode($line); [ $r->{externalId}, record_hash($r) ] };
		$want{ $known->[0] } = $known->[1];
	}
	my %have = map { split /\|/ } split /\n/,
	  $self->sql("SELECT external_id, sync_hash " . $self->scope($connector, $type) . ' AND stale_since IS NULL');
	my @wrong = grep { !defined $have{$_} || $have{$_} ne $want{$_} } sort keys %want;
	my @extra = grep { !defined $want{$_} } sort keys %have;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(%want && !@wrong && !@extra, $name // "records of $connector/$type are the upstream's")
	  || diag(scalar(@wrong) . " missing or different: @wrong[0 .. ($#wrong < 4 ? $#wrong : 4)]; "
		  . scalar(@extra) . " active that the upstream has not: @extra[0 .. ($#extra < 4 ? $#extra : 4)]");
}

# What must hold whenever nothing is going on.
sub invariants
{
	my ($self, $db) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($self->sql('SELECT count(*) FROM flohsync.connector_resource WHERE sync_hash <> flohsync.resource_hash(external_id, display_name, email, attributes)', $db),
		0, 'every sync_hash is the resource_hash of its row');
	is($self->sql('SELECT count(*) - count(DISTINCT (connector_id, resource_type, external_id)) FROM flohsync.resource_record', $db),
		0, 'no record is there twice');
	is($self->sql(<<'SQL', $db), '', 'the statistics of every successful run add up');
SELECT id, stats FROM flohsync.sync_run WHERE status = 'success'
   AND (stats->>'added')::int + (stats->>'updated')::int + (stats->>'unchanged')::int + (stats->>'restored')::int
     + (stats->>'filtered')::int + (stats->>'errored')::int + (stats->>'ignored')::int + (stats->>'duplicates')::int
     IS DISTINCT FROM (stats->>'totalUpstreamRecords')::int
SQL
	is($self->sql("SELECT count(*) FROM flohsync.sync_run WHERE status IN ('queued', 'running')", $db), 0, 'no run is left open');
	return;
}

# No process of the cluster crashed, from this offset in the log on.
sub no_crash
{
	my ($self) = @_;
	my @lines = grep { /PANIC|TRAP:|terminated by signal|exited with exit code [^01]|terminating connection because of crash/ }
	  split /\n/, slurp_file($self->node->logfile);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(join("\n", @lines), '', 'no process of the server crashed');
}

#
# Rounds of faults: connector c has the users of the upstream, in three pages of 50.
#

# Change two records of page 1 and one of page 3, then ask for faults, on page 2 unless they say otherwise.
sub prepare
{
	my ($self, @faults) = @_;
	$self->{round}++;
	$self->up('heal');
	$self->up('change', type => 'user', ids => 'user-0000001,user-0000002,user-0000101', what => 'name');
	for (@faults)
	{
		my ($kind, @args) = @$_;
		$self->fault($kind, page => 2, times => -1, @args);
	}
	$self->clear_log;
	return;
}

# How many of the changed records are stored
sub changed
{
	my ($self) = @_;
	return $self->sql('SELECT count(*) ' . $self->scope('c', 'user') . " AND display_name LIKE '% v$self->{round}'");
}

sub recovers
{
	my ($self, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$self->up('heal');
	$self->up('release');
	$self->sync_ok('c', 'user', "$name: the next run succeeds");
	$self->matches_upstream('c', 'user', "$name: and has everything");
	is($self->counts('c', 'user'), '150 0', "$name: nothing is stale");
	return;
}

#
# JSON
#

sub decode_json_text { my $t = shift; utf8::encode($t) if utf8::is_utf8($t); return $codec->decode($t) }
sub json_text { return JSON::PP->new->canonical->allow_nonref->utf8->encode($_[0]) }
sub literal { my $s = shift; $s =~ s/'/''/g; return $s =~ /\\/ ? ' E\'' . ($s =~ s/\\/\\\\/gr) . '\'' : "'$s'" }
sub sorted_ids { return join ' ', sort @_ }

# RFC 8785 for what JSON::PP decodes; an author's own, to hold the extension's against.
sub jcs
{
	my $v = shift;
	return 'null' unless defined $v;
	if (ref $v eq 'HASH')
	{
		my @keys = sort { Encode::encode('UTF-16BE', $a) cmp Encode::encode('UTF-16BE', $b) } keys %$v;
		return '{' . join(',', map { jcs_string($_) . ':' . jcs($v->{$_}) } @keys) . '}';
	}
	return '[' . join(',', map { jcs($_) } @$v) . ']' if ref $v eq 'ARRAY';
	return $v ? 'true' : 'false' if JSON::PP::is_bool($v);
	return jcs_number($v) unless B::svref_2object(\$v)->FLAGS & B::SVf_POK;
	return jcs_string($v);
}

sub jcs_string
{
	my $s = shift;
	my %short = ("\b" => '\b', "\t" => '\t', "\n" => '\n', "\f" => '\f', "\r" => '\r', '"' => '\"', '\\' => '\\\\');
	$s =~ s/([\x00-\x1f"\\])/$short{$1} \/\/ sprintf('\\u%04x', ord $1)/ge;
	return "\"$s\"";
}

sub jcs_number
{
	my $v = shift;
	return "$v" if B::svref_2object(\$v)->FLAGS & B::SVf_IOK;
	return '0' if $v == 0;
	my $text;
	for my $digits (1 .. 17)
	{
		$text = sprintf "%.*e", $digits - 1, $v;
		last if $text == $v;
	}
	my ($sign, $first, $rest, $exp) = $text =~ /^(-?)(\d)\.?(\d*)e([-+]\d+)$/;
	my $d = ($first . $rest) =~ s/0+$//r;
	my ($k, $n) = (length $d, $exp + 1);
	return $sign . $d . '0' x ($n - $k) if $k <= $n && $n <= 21;
	return $sign . substr($d, 0, $n) . '.' . substr($d, $n) if 0 < $n && $n <= 21;
	return $sign . '0.' . '0' x -$n . $d if -6 < $n && $n <= 0;
	my $e = $n - 1;
	return $sign . substr($d, 0, 1) . ($k > 1 ? '.' . substr($d, 1) : '') . 'e' . ($e < 0 ? '-' : '+') . abs $e;
}

# The digest that the contract defines, of a decoded record.
sub record_hash
{
	my $r = shift;
	return sha256_hex(encode_utf8(jcs({ map { $_ => $r->{$_} } qw(attributes displayName email externalId) })));
}

1;
