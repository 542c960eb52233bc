# Row level security on a table of ours never leads to a silent wrong answer; on
# tables of an application it is as ever.
use strict;
use warnings;

use JSON::PP;
use People;
use Test::More;

People::start(upstream => 0, conf => "flohsync.launcher_naptime = 1s\n");
begin({ createUsers => JSON::PP::true, safeguards => undef });
person($_, "p$_\@acme.com") for 1 .. 20;
is(one_pass(), 'success', 'a pass');
gone(20);

for my $table (split /\n/, $f->sql("select oid::regclass from pg_class where relnamespace in ('flohsync'::regnamespace, '_flohsync'::regnamespace) and relkind = 'r' and relname !~ '^(?:home|cache_state|webhook_handler)\$' order by 1"))
{
	$f->sql("alter table $table enable row level security");
	$f->fails_like("call flohsync.sync('$c', 'user')", '55000', qr/row level security is on for table "\Q$table\E".*ALTER TABLE \Q$table\E DISABLE/s, "$table: no run");
	$f->fails_like("select flohsync.match_users('$c', 'user')", '55000', qr/row level security/, "$table: no matching");
	$f->sql("alter table $table disable row level security");
	# Also for the owner, as whom most functions read
	$f->sql("alter table $table enable row level security; alter table $table force row level security");
	for my $call ("list_resources('$c')", "upsert_resource('$c', 'user', '{\"externalId\": \"x\"}')", 'list_sync_configs()', "handle_webhook('$c', '{}')", "receive_webhook('$c', '{}', '{}')", 'claim_workflow_jobs(1)', "drop_connector('$c')", 'rotate_secrets()')
	{
		$f->fails_like("select flohsync.$call", '55000', qr/row level security/, "$table, forced: $call");
	}
	$f->sql("alter table $table no force row level security; alter table $table disable row level security");
}
is($f->counts($c, 'user'), '20 0', 'nothing was done');

# While a run is due
my $at = -s $f->node->logfile;
$f->sql(q(begin; update flohsync.connector_sync_config set enabled = true, cron_schedule = '* * * * * *', next_run_at = now(); alter table flohsync.resource_record enable row level security; commit; select _flohsync.wake()));
ok($f->node->wait_for_log(qr/flohsync does nothing in database "postgres": row level security is on for table "flohsync.resource_record"/, $at), 'the log says why nothing runs');
is($f->sql("select count(*) from flohsync.sync_run where trigger = 'schedule'"), 0, 'nothing does');
is($f->sql('select remark from flohsync.jobs'), 'row level security is on for table "flohsync.resource_record"', 'so does the view of jobs');
$f->sql('alter table flohsync.resource_record disable row level security');
$f->sql('select _flohsync.wake()');
$f->comes_true("select count(*) > 0 from flohsync.sync_run where trigger = 'schedule' and status = 'success'", 'and then it does', timeout => 60);
$f->configure($c, 'user', enabled => JSON::PP::false);
$f->wait_for("select count(*) = 0 from flohsync.sync_run where status in ('queued', 'running')");
is($f->counts($c, 'user'), '19 1', 'what is gone is gone');

# A table that a connector reads: its owner sees what the policy shows him.
$f->sql("create role owner login; select flohsync.grant_manager('owner'); create table public.rows (id text, who name); alter table public.rows enable row level security; create policy own on public.rows using (who = current_user); grant select on public.rows to owner; insert into public.rows values ('mine', 'owner'), ('other', 'x')");
$f->sql("set role owner; select flohsync.create_connector('rows', 'sql', '{\"queries\": {\"user\": \"select id as external_id, null::text as display_name, null::text as email, null::jsonb as attributes from public.rows\"}}'); select flohsync.configure_sync('rows', 'user', '{}'); reset role");
$f->sync_ok('rows', 'user', 'a connector of kind sql on a table with policies');
is($f->sql("select string_agg(external_id, ' ') " . $f->scope('rows', 'user')), 'mine', 'reads what its owner may see');

$f->no_crash;
done_testing();
