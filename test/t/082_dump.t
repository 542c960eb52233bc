# What a dump carries comes back row for row, in whatever way it is restored, and
# does not act before it is adopted.
use strict;
use warnings;

use JSON::PP;
use People;
use PostgreSQL::Test::Utils;
use Test::More;

People::start(upstream => 0, conf => "flohsync.launcher_naptime = 1s\nmax_connections = 60\n");
my $node = $f->node;

#
# Something in every table that a dump carries
#
$f->sql("insert into flohsync.workflow_definition (name, definition) values ('joiner', '{\"a\": 1}')");
my $workflow = $f->sql('select id from flohsync.workflow_definition');
begin({ enabled => JSON::PP::true, cronSchedule => '0 0 1 1 *', createUsers => JSON::PP::true, deactivateUsers => JSON::PP::true, syncTriggerMode => 'per_record', postSyncWorkflowId => $workflow,
	safeguards => { maxStaleFraction => undef, maxDeactivateFraction => undef }, attributeMappings => [ { sourcePath => 'attributes.title', targetField => 'title' } ] });
person($_, "p$_\@acme.com", title => "T $_") for 1 .. 60;
is(one_pass(), 'success', 'a pass');
gone(1 .. 5);
is(one_pass(), 'success', 'another one');
$f->sql("select flohsync.handle_webhook('$c', '{\"action\": \"deleted\", \"resourceType\": \"user\", \"resourceId\": \"p9\"}')");
$f->sql("select flohsync.handle_webhook('$c', '{\"action\": \"deleted\", \"resourceType\": \"user\", \"resourceId\": \"9\"}')");
my $match = $f->sql("select id from flohsync.connector_sync_match where external_id = '20'");
$f->sql("select flohsync.unlink_match('$match')");
$f->sql("select flohsync.resolve_match('$match', 'skip', null, 'by hand')");
$f->sql("select flohsync.handle_webhook('$c', '{\"entitlement\": 0}')");
$f->sql("create function public.handle(c uuid, b jsonb) returns void language sql as 'select'; grant execute on function public.handle(uuid, jsonb) to public; select flohsync.set_entitlement_handler('public.handle(uuid, jsonb)'); select flohsync.handle_webhook('$c', '{\"entitlement\": 1}')");
$f->sql("insert into flohsync.workflow_run (workflow_id, job_id, variables) select '$workflow', min(id), '{}' from flohsync.workflow_job");
$f->sql("insert into _flohsync.former_pass select id, 'device', now() from flohsync.connector_definition where name = '$c'");
# A run that is not carried, and a job of it
person(61, 'p61@acme.com', title => 'T');
$f->configure($c, 'user', safeguards => { maxStaleFraction => 0.01, minRecords => 1 });
gone(30 .. 50);
is(one_pass(), 'held', 'a run that waits for a decision');

# Each dumped table as one text, of what the dump carries of it
my @tables = split /\n/, $f->sql("select c.oid::regclass || '|' || x.condition from pg_extension e, unnest(e.extconfig, e.extcondition) x(relation, condition) join pg_class c on c.oid = x.relation where e.extname = 'flohsync' and c.relkind = 'r' order by 1");
my @sequences = split /\n/, $f->sql("select c.oid::regclass from pg_extension e, unnest(e.extconfig) x(relation) join pg_class c on c.oid = x.relation where e.extname = 'flohsync' and c.relkind = 'S' order by 1");
sub contents
{
	my ($db) = @_;
	my %of;
	for (@tables)
	{
		my ($table, $where) = split /\|/, $_, 2;
		$of{$table} = $f->sql("select count(*) || ' ' || coalesce(hashtextextended(string_agg(t::text, E'\\n' order by t::text collate \"C\"), 0)::text, '') from (select * from $table $where) t", $db);
	}
	$of{$_} = $f->sql("select last_value from $_", $db) for @sequences;
	return \%of;
}
my $before = contents();
my @empty = grep { $before->{$_} =~ /^0 / } sort keys %$before;
is(join(' ', @empty), '_flohsync.connector_secret', 'there is something in every table but that of secrets, which need a key');
cmp_ok(scalar(@sequences), '>', 2, 'and there are sequences');

my $dir = PostgreSQL::Test::Utils::tempdir();
my $from = $node->connstr('postgres');
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/custom", $from ], 'a dump in the custom format');
$node->command_ok([ 'pg_dump', '-Fd', '-j', 3, '-f', "$dir/folder", $from ], 'as a folder, parallel');
$node->command_ok([ 'pg_dump', '-Fp', '-f', "$dir/plain", $from ], 'as a script');
$node->command_ok([ 'pg_dump', '-Fc', '--data-only', '-f', "$dir/data", $from ], 'of the data alone');
$node->command_ok([ 'pg_dump', '-Fp', '--inserts', '-f', "$dir/inserts", $from ], 'with INSERT');

my $nr = 0;
my $db;
sub restored
{
	my ($name, $prepare, @command) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$db = 'r' . ++$nr;
	$f->sql("create database $db");
	$prepare->($db) if $prepare;
	$node->command_ok([ map { $_ eq 'DB' ? $node->connstr($db) : $_ } @command ], "$name: is restored");
	is_deeply(contents($db), $before, "$name: every row of every table is there") or diag(explain { now => contents($db), before => $before });
	is($f->sql('select sum(t.n) from _flohsync.tally t where t.state in (\'live\', \'stale\')', $db), $f->sql('select count(*) from flohsync.resource_record'), "$name: its records are counted");
	is($f->sql("select count(*) from pg_constraint k where k.contype = 'f' and not k.convalidated", $db), 0, "$name: no key is left unchecked");
	return;
}
sub put_aside { $f->disconnect($_[0]); $f->sql("drop database $_[0] with (force)"); return }
my $prior = sub { $f->sql('create extension flohsync', $_[0]); $f->sql("create table public.people (directory text, id text, name text, mail text, attrs jsonb, primary key (directory, id))", $_[0]); $f->sql("create function public.handle(c uuid, b jsonb) returns void language sql as 'select'", $_[0]) };

restored('custom', undef, 'pg_restore', '--exit-on-error', '-d', 'DB', "$dir/custom");
put_aside($db);
for my $jobs (2, 4)
{
	restored("custom, $jobs jobs", undef, 'pg_restore', '-j', $jobs, '--exit-on-error', '-d', 'DB', "$dir/custom");
	put_aside($db);
	restored("folder, $jobs jobs", undef, 'pg_restore', '-j', $jobs, '--exit-on-error', '-d', 'DB', "$dir/folder");
	put_aside($db);
}
restored('a script', undef, 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'DB', '-f', "$dir/plain");
put_aside($db);
restored('INSERT', undef, 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'DB', '-f', "$dir/inserts");
put_aside($db);
restored('data alone, into an extension that is there', $prior, 'pg_restore', '--exit-on-error', '-d', 'DB', "$dir/data");
put_aside($db);
restored('data alone, 3 jobs', $prior, 'pg_restore', '-j', 3, '--exit-on-error', '-d', 'DB', "$dir/data");
put_aside($db);
restored('in place of what is there', $prior, 'pg_restore', '--clean', '--if-exists', '-j', 2, '--exit-on-error', '-d', 'DB', "$dir/custom");
put_aside($db);
$f->sql('create role admin superuser login');
restored('as another superuser', undef, 'pg_restore', '-j', 2, '--exit-on-error', '-U', 'admin', '-d', 'DB', "$dir/custom");

#
# It does nothing before it is told.
#
$f->sql('update flohsync.connector_sync_config set next_run_at = now()', $db);
my $runs = $f->sql('select count(*) from flohsync.sync_run', $db);
$f->sql('select _flohsync.enqueue_due()', $db);
is($f->sql('select count(*) from flohsync.sync_run', $db), $runs, 'what is due is not queued');
like($f->sql('select remark from flohsync.jobs', $db), qr/^the connector was restored from a dump of another database; call adopt\(\)/, 'the view of jobs says why');
is($f->sql('select next_run_at from flohsync.jobs', $db), '', 'and that nothing is due');
is($f->sql('select count(*) > 0 from flohsync.workflow_job where run_id not in (select id from flohsync.sync_run)', $db), 't', 'there are jobs of a run that a dump does not have');
$f->sql('select flohsync.adopt()', $db);
is($f->sql('select count(*) from flohsync.workflow_job where run_id not in (select id from flohsync.sync_run)', $db), 0, 'which say so no more');
$f->comes_true("select count(*) = 1 from flohsync.sync_run where id > (select last_value from flohsync.sync_run_id_seq) - 1 and status in ('success', 'held', 'error')", 'adopted, it is', db => $db, timeout => 60);
# Nor is a key less strict than before for who writes by hand.
$f->fails_like("insert into flohsync.resource_record (connector_id, resource_type, external_id, sync_hash, observed_at) values (gen_random_uuid(), 'user', 'x', 'x', now())", '23503', qr/foreign key/, 'a key still holds for what is inserted');
put_aside($db);

#
# The commands of the manual
#
my $manual = PostgreSQL::Test::Utils::slurp_file('doc/operations.md');
my %code = map { $_->[0] => [ @$_[ 1 .. $#$_ ] ] } map { my ($name, $rest) = /\A([^\n]*)\n(.*)/s; [ $name, $rest =~ /^```\w+\n(.*?)^```/msg ] } split /^## /m, $manual;
{
	local @ENV{qw(PGHOST PGPORT)} = ($node->host, $node->port);
	my @lines = split /\n/, $code{'Dump and restore'}[0];
	is(scalar @lines, 4, 'the manual has four lines for a dump and its restore');
	# The database of the test is another one, in a folder of its own.
	for my $line (@lines)
	{
		my $command = $line =~ s/\bapp\.dump\b/$dir\/manual/r =~ s/\bapp\b/postgres/r;
		is(system("$command >$dir/out 2>&1"), 0, $line) or diag(PostgreSQL::Test::Utils::slurp_file("$dir/out"));
	}
	my $now = contents('app_copy');
	my %adopted = (%$now, map { $_ => $before->{$_} } qw(flohsync.connector_definition flohsync.workflow_job flohsync.sync_run flohsync.connector_sync_config flohsync.sync_run_id_seq));
	is_deeply(\%adopted, $before, 'a copy as the manual makes it');
	put_aside('app_copy');
}
is(scalar(@{ $code{'Removing it'} }), 2, 'it tells how to remove the extension');
$f->sql('create database emptied');
$f->sql('create extension flohsync', 'emptied');
$f->sql($code{'Removing it'}[0], 'emptied');
is($f->sql("select count(*) from pg_namespace where nspname ~ 'flohsync'", 'emptied'), 0, 'nothing of it is left in the database');
is($f->sql("select (select count(*) from pg_shdepend d join pg_database b on b.oid = d.dbid where b.datname = current_database()) || ' ' || (select count(*) from pg_event_trigger)", 'emptied'), '0 0', 'no rights and no triggers');
$f->disconnect('emptied');
$f->sql('drop database emptied with (force); drop function public.handle(uuid, jsonb)');
$f->sql($code{'Removing it'}[0]);
$f->disconnect('postgres');
$f->comes_true("select count(*) = 0 from pg_stat_activity where backend_type like 'flohsync worker%'", 'workers have gone');
$f->sql("drop table public.people");
$f->sql($code{'Removing it'}[1]);
is($f->sql("select count(*) from pg_roles where rolname ~ 'flohsync'"), 0, 'nor of its roles in the cluster');

$f->no_crash;
done_testing();
