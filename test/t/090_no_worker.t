# When no worker can come, the reason is in the log once, in jobs.remark and in what
# CALL sync says, and it goes on by itself when the reason is gone.
use strict;
use warnings;

use JSON::PP;
use People;
use Test::More;

People::start(upstream => 0, conf => "flohsync.launcher_naptime = 1s\nflohsync.log_runs = off\n");
begin({ safeguards => undef });
person(1, 'p@acme.com');
is(one_pass(), 'success', 'a pass');

sub log_from
{
	my ($at) = @_;
	open my $log, '<', $f->node->logfile or die;
	seek $log, $at, 0;
	local $/;
	return <$log>;
}
sub each_of { my ($text) = @_; $f->sql($_) for split /; /, $text; return }

# lasting: CALL is an error at once; else it waits, and a notice says why.
for my $case (
	[ 'its role is renamed', 1, qr/the role of flohsync\.worker_role does not exist/, 'alter role flohsync_worker rename to fw', 'alter role fw rename to flohsync_worker' ],
	[ 'its role may not log in', 1, qr/the role of flohsync\.worker_role may not log in/, 'alter role flohsync_worker nologin', 'alter role flohsync_worker login' ],
	[ 'its role is a superuser', 1, qr/the role of flohsync\.worker_role is a superuser/, 'alter role flohsync_worker superuser', 'alter role flohsync_worker nosuperuser' ],
	[ 'its role may not connect', 1, qr/the role of flohsync\.worker_role may not connect to this database/, 'revoke connect on database postgres from public', 'grant connect on database postgres to public' ],
	[ 'a rule is on a table', 1, qr/table "flohsync\.sync_error" has the rule "r"/, 'create rule r as on insert to flohsync.sync_error do instead nothing', 'drop rule r on flohsync.sync_error' ],
	[ 'flohsync is disabled', 1, qr/flohsync\.enabled(?: is |" changed to ")off/,
		'alter system set flohsync.enabled = off; select pg_reload_conf()', 'alter system reset flohsync.enabled; select pg_reload_conf()' ],
	[ 'a schema is closed to its role', 0, qr/permission denied for schema _flohsync/, 'revoke usage on schema _flohsync from flohsync_worker', 'grant usage on schema _flohsync to flohsync_worker' ],
	[ 'a table is closed to its role', 0, qr/permission denied for table sync_run/, 'revoke all on flohsync.sync_run from flohsync_worker', 'grant select, insert, update, delete on flohsync.sync_run to flohsync_worker' ])
{
	my ($what, $lasting, $why, $do, $undo) = @$case;
	my $at = -s $f->node->logfile;

	# A worker that is there already would do what is asked for.
	$f->sql('update flohsync.connector_sync_config set enabled = false');
	$f->wait_for("select count(*) = 0 from flohsync.workers where kind = 'flohsync worker'");
	each_of($do);
	$f->wait_for("select current_setting('flohsync.enabled') = 'off'") if $do =~ /enabled/;
	$f->sql("update flohsync.connector_sync_config set enabled = true, cron_schedule = '* * * * * *', next_run_at = now()");
	$f->wait_for("select remark is not null and remark <> '' from flohsync.jobs") if !$lasting;
	my $r = $f->try_sql("set statement_timeout = '5s'; call flohsync.sync('$c', 'user')");
	$f->sql('reset statement_timeout');
	if ($lasting)
	{
		is($r->{state}, '55000', "$what: CALL sync is an error");
		like($r->{message}, $why, 'that says why');
		like($r->{hint}, qr/cancel_sync\(\d+\)|DROP RULE/, 'and what to do');
	}
	else { like($r->{text}, qr/NOTICE: .*run \d+ waits for a worker: $why/, "$what: CALL sync says why it waits") }
	like($f->sql('select remark from flohsync.jobs'), $why, 'jobs.remark');
	like($f->sql('select flohsync.hindrance()'), $why, 'hindrance()');
	ok($f->node->wait_for_log(qr/(?:WARNING|LOG): .*$why/, $at), 'the log');
	sleep 3;
	is(scalar(() = log_from($at) =~ /(?:does nothing in database "postgres": |parameter ")$why/g), 1, 'has it once');
	each_of($undo);
	$f->comes_true("select count(*) > 0 from flohsync.sync_run where id = (select max(id) from flohsync.sync_run) and status = 'success'", 'afterwards runs are done', timeout => 90);
	$f->sql('update flohsync.connector_sync_config set enabled = false');
	$f->wait_for("select count(*) = 0 from flohsync.sync_run where status in ('queued', 'running')");
	is($f->sql('select flohsync.hindrance()'), '', 'and nothing is in the way');
}

# What a role or a database limits for clients does not concern workers.
each_of(q(alter role flohsync_worker connection limit 0; alter role flohsync_worker valid until '2001-01-01'; alter database postgres connection limit 1));
is(one_pass(), 'success', 'connection limits and the end of a password');

$f->no_crash;
done_testing();
