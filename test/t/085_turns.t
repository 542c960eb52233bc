# Databases take turns: one that always has something to do does not keep the
# others waiting when there are fewer workers than databases.
use strict;
use warnings;

use Flohsync;
use JSON::PP;
use Test::More;

my $f = Flohsync->new(upstream => 0, conf => "flohsync.max_workers = 1\nflohsync.launcher_naptime = 1s\nflohsync.log_runs = off\n");
my @quiet = qw(one two);
sub directory
{
	my ($db, $n, $wait) = @_;
	$f->sql("create table public.people (id text primary key); grant select on public.people to flohsync_nobody; insert into people values ('a')", $db);
	$f->sql("select flohsync.create_connector('c' || i, 'sql', '{\"queries\": {\"user\": \"select id as external_id, null::text as display_name, null::text as email, null::jsonb as attributes from public.people, pg_sleep($wait)\"}}'),
		flohsync.configure_sync('c' || i, 'user', '{\"enabled\": true, \"cronSchedule\": \"* * * * * *\"}') from generate_series(1, $n) i", $db);
	return;
}
for my $db (@quiet)
{
	$f->sql("create database $db");
	$f->sql('create extension flohsync', $db);
}
# Ten schedules that are due each second, of runs that take half of one
directory('postgres', 10, 0.5);
$f->comes_true("select count(*) >= 3 from flohsync.sync_run where status = 'success'", 'one database is busy', timeout => 60);
directory($_, 1, 0) for @quiet;
for my $db (@quiet)
{
	$f->comes_true("select count(*) >= 4 from flohsync.sync_run where status = 'success'", "schedules of database $db get their turns", db => $db, timeout => 120);
}
my $n = $f->sql("select count(*) from flohsync.sync_run where status = 'success'");
$f->comes_true("select count(*) >= $n + 3 from flohsync.sync_run where status = 'success'", 'and those of the busy one go on', timeout => 60);
$f->comes_true("select coalesce(bool_or(remark ~ 'waiting for a worker \\(1 of 1 busy\\)'), false) from flohsync.jobs", 'the view of jobs says what waits for a worker', timeout => 60);

$f->no_crash;
done_testing();
