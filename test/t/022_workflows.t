# Workflow jobs: queued with the run, made into workflow runs, claimed, done, failed.
use strict;
use warnings;

use Flohsync;
use Test::More;

my $f = Flohsync->new(conf => "flohsync.page_size = 100\n");

sub count { return $f->sql("select count(*) from flohsync.$_[0]") }
sub clear { $f->sql('truncate flohsync.workflow_job, flohsync.workflow_run'); return }
sub kinds { return $f->sql("select coalesce(string_agg(k || ' ' || n, ', ' order by k), '') from (
	select e ->> 'change' as k, count(*) as n from flohsync.workflow_job j, jsonb_array_elements(j.data -> 'records') e group by 1) x") }

my $workflow = $f->sql("insert into flohsync.workflow_definition (name, definition) values ('onboard', '{\"steps\": []}') returning id");
$f->fresh(user => 1250);
$f->connector('c', types => ['user'], syncTriggerMode => 'per_record', postSyncWorkflowId => $workflow, staleRetention => '0s',
	safeguards => { maxStaleFraction => undef });
my $connector = $f->sql("select id from flohsync.connector_definition where name = 'c'");

#
# per_record
#

$f->sync_ok('c', 'user', 'first pass');
is($f->sql("select string_agg(jsonb_array_length(data -> 'records')::text, ' ' order by id) from flohsync.workflow_job"), '500 500 250',
	'changed records come in jobs of at most 500');
is(kinds(), 'added 1250', 'each once, as added');
my $job = $f->json('select to_jsonb(j) from flohsync.workflow_job j order by id limit 1');
is_deeply([ @{ $job->{data} }{qw(connectorId resourceType workflowId triggerMode runId)} ], [ $connector, 'user', $workflow, 'per_record', $job->{run_id} ],
	'a job says what it is about');
is_deeply([ sort keys %{ $job->{data}{records}[0] } ], [qw(change displayName email externalId matchStatus resourceId userId)], 'and so does each record');
is($job->{data}{records}[0]{matchStatus}, 'unmatched', 'records are told of as matching left them');
is($f->last_run('c', 'user')->{stats}{postSync}{workflowJobs}, 3, 'the statistics count the jobs');
my $run = $f->json('select to_jsonb(r) from flohsync.workflow_run r order by id limit 1');
is_deeply($run->{variables}, { map { $_ => $job->{data}{$_} } qw(connectorId resourceType workflowId triggerMode runId records) },
	'the handler made a workflow run of it, with its variables');
is(count('workflow_run') . " $run->{status}", '3 pending', 'of each job one, to be done');

clear();
$f->sync_ok('c', 'user', 'unchanged pass');
is(count('workflow_job'), 0, 'a pass without changes queues nothing');
$f->up('change', type => 'user', from => 1, to => 30);
$f->up('delete', type => 'user', from => 41, to => 50);
$f->sync_ok('c', 'user', 'pass with changes');
is(kinds(), 'removed 10, staled 10, updated 30', 'what was updated, staled and removed');
is($f->sql("select count(distinct e ->> 'externalId') from flohsync.workflow_job j, jsonb_array_elements(j.data -> 'records') e where e ->> 'change' = 'removed' and e ->> 'email' is not null"),
	10, 'removed records are told of in full');

# A run that fails tells nothing; the one that goes on tells all.
clear();
$f->up('change', type => 'user', from => 100, to => 600);
$f->fault('status', code => 400, type => 'user', page => 4);
$f->sync_fails('c', 'user', qr/400/, 'a pass breaks off');
is(count('workflow_job'), 0, 'nothing is queued');
$f->up('heal');
$f->sync_ok('c', 'user', 'and goes on');
is(kinds(), 'updated 501', 'then each change is told of, once');

# The upstream forgets its cursors: the pass begins again, and nothing of it is forgotten.
clear();
$f->up('change', type => 'user', from => 1, to => 20);
$f->fault('expired_cursor', type => 'user', page => 4);
$f->sync_ok('c', 'user', 'a pass that begins again in its middle');
is(kinds(), 'updated 20', 'what it had changed before counts');

# Nor does one that dies.
clear();
$f->up('change', type => 'user', from => 1, to => 20);
$f->fault('hang', type => 'user', page => 3);
my $id = $f->sql("select flohsync.trigger_sync('c', 'user')");
$f->await(hanging => 1);
$f->crash($f->worker_pid);
$f->up('release');
$f->up('heal');
$f->wait_run($id);
is(kinds(), 'updated 20', 'after a crash in the middle as well');

# The mode is of the configuration, and without a workflow there is nothing to trigger.
clear();
$f->configure('c', 'user', syncTriggerMode => 'none');
$f->up('change', type => 'user', from => 1, to => 5);
$f->sync_ok('c', 'user', 'mode none');
is(count('workflow_job'), 0, 'queues nothing');

#
# summary
#

$f->configure('c', 'user', syncTriggerMode => 'summary');
$f->up('change', type => 'user', from => 1, to => 7);
$f->sync_ok('c', 'user', 'mode summary');
my $stats = $f->json('select data from flohsync.workflow_job');
is_deeply([ $stats->{triggerMode}, $stats->{stats}{updated}, exists $stats->{records} ? 1 : 0 ], [ 'summary', 7, 0 ], 'queues one job with the statistics');
is($f->sql("select variables -> 'stats' ->> 'updated' from flohsync.workflow_run"), 7, 'of which the workflow run has them');
clear();
$f->sync_ok('c', 'user', 'unchanged pass, mode summary');
is(count('workflow_job'), 0, 'nothing changed: nothing queued');

# Held: what was added counts at once, the rest when it is approved.
$f->configure('c', 'user', safeguards => { maxStaleFraction => 0.1 });
$f->up('delete', type => 'user', from => 700, to => 1000);
$f->up('change', type => 'user', from => 1, to => 3);
$f->sync('c', 'user');
is($f->last_run('c', 'user')->{status} . ' ' . $f->sql("select string_agg(data -> 'stats' ->> 'updated', ' ') from flohsync.workflow_job"), 'held 3',
	'a held run tells of what it wrote');
clear();
$f->sql('select flohsync.approve_run(' . $f->last_run('c', 'user')->{id} . ')');
is($f->sql("select string_agg(data -> 'stats' ->> 'staled', ' ') from flohsync.workflow_job"), 301, 'and of the rest when it is approved');

#
# Claiming
#

sub job
{
	my (%more) = @_;
	my %data = (connectorId => $connector, resourceType => 'user', workflowId => $workflow, triggerMode => 'summary', stats => {}, %more);
	delete @data{ grep { !defined $data{$_} } keys %data };
	return $f->sql('insert into flohsync.workflow_job (workflow_id, data) values ((select id from flohsync.workflow_definition where id::text = '
		  . Flohsync::literal($data{workflowId} // '') . '), ' . Flohsync::jsonb(\%data) . ') returning id');
}
sub claim { return $f->sql("select coalesce(string_agg(id::text, ' '), '') from flohsync.claim_workflow_jobs($_[0])") }
sub state_of { return $f->sql("select j.status || ' ' || j.attempts || coalesce(' ' || r.status, '') from flohsync.workflow_job j left join flohsync.workflow_run r on r.job_id = j.id where j.id = $_[0]") }

clear();
my @jobs = map { job() } 1 .. 5;
is(claim(2), "@jobs[0,1]", 'the oldest jobs are claimed first');
is(claim(10), "@jobs[2..4]", 'none twice');
is(claim(10), '', 'until there are none');
is(state_of($jobs[0]), 'running 1 running', 'a claimed job is being worked on, and so is its workflow run');
$f->sql("select flohsync.complete_workflow_job($jobs[0])");
is(state_of($jobs[0]), 'done 1 done', 'done');
$f->fails_like("select flohsync.complete_workflow_job($jobs[0])", '55000', qr/is not claimed/, 'a job is done once');
$f->fails_like('select flohsync.complete_workflow_job(-1)', '42704', qr/workflow job -1 does not exist/, 'an unknown job');
$f->fails_like("select flohsync.fail_workflow_job(-1, 'x')", '42704', qr/does not exist/, 'an unknown job cannot fail either');
$f->fails_like('select * from flohsync.claim_workflow_jobs(0)', '22023', qr/at least 1/, 'nobody claims nothing');
my @delays;
for my $attempt (1 .. 3)
{
	my $what = $f->sql("select flohsync.fail_workflow_job($jobs[1], 'attempt $attempt')");
	push @delays, $what . ($what eq 'queued' ? ' ' . $f->sql("select round(extract(epoch from run_after - clock_timestamp())) from flohsync.workflow_job where id = $jobs[1]") : '');
	is(claim(10), '', 'a job that failed is not claimed before its time');
	$f->sql("update flohsync.workflow_job set run_after = now() where id = $jobs[1]");
	is(claim(10), $attempt < 3 ? $jobs[1] : '', $attempt < 3 ? 'and then it is' : 'after three attempts it is not claimed any more');
}
is("@delays", 'queued 5 queued 10 failed', 'delays of 5 and 10 seconds, then it is over');
is(state_of($jobs[1]) . ' ' . $f->sql("select error from flohsync.workflow_job where id = $jobs[1]"), 'failed 3 failed attempt 3', 'with the last error');
$f->sql("update flohsync.workflow_job set claimed_at = now() - interval '31 minutes' where id = $jobs[2]");
is(claim(10), $jobs[2], 'a job whose worker is gone is given out again');
is(state_of($jobs[2]), 'running 2 running', 'as its second attempt');

# Many at once
clear();
$f->sql("insert into flohsync.workflow_job (workflow_id, data) select '$workflow', jsonb_build_object('connectorId', '$connector', 'resourceType', 'user', 'workflowId', '$workflow', 'triggerMode', 'summary')
	from generate_series(1, 400)");
my @claimers = map {
	$f->start_sql("create temp table mine (id bigint); do \$\$ begin for i in 1 .. 40 loop perform pg_sleep(0.005); insert into mine select id from flohsync.claim_workflow_jobs(5); end loop; end \$\$;
		select string_agg(id::text, ' ') from mine") } 1 .. 4;
my %seen;
$seen{$_}++ for map { split ' ', $f->finish($_)->{out} // '' } @claimers;
is(scalar(keys %seen) . ' ' . scalar(grep { $_ > 1 } values %seen), '400 0', 'four claimers at once get each job once');

clear();
@jobs = map { job() } 1 .. 2;
my $claimer = $f->start_sql('begin; select id from flohsync.claim_workflow_jobs(1); select pg_sleep(4); commit');
$f->comes_true("select count(*) = 1 from pg_stat_activity where wait_event = 'PgSleep'", 'a claimer has not committed yet');
my $began = time;
is(claim(2), $jobs[1], 'another one gets the next job');
cmp_ok(time - $began, '<', 3, 'without waiting');
$f->finish($claimer);

# What cannot be used
clear();
my %bad = (
	connectorId => [ undef, qr/connectorId/ ],
	resourceType => [ 'no type', qr/resourceType/ ],
	triggerMode => [ 'sometimes', qr/triggerMode/ ],
	records => [ 'all', qr/records/ ],
	stats => [ [], qr/stats/ ],
	workflowId => [ '7e9a9a54-0000-4000-8000-000000000000', qr/workflow 7e9a9a54-0000-4000-8000-000000000000 does not exist/ ],
);
for my $key (sort keys %bad)
{
	my $bad = job($key => $bad{$key}[0]);
	is(claim(10), '', "a job without a usable $key is not given out");
	like($f->sql("select status || ': ' || error from flohsync.workflow_job where id = $bad"), qr/^failed: .*$bad{$key}[1]/, 'it fails, and says why');
}
is(count('workflow_run'), 0, 'no workflow is started by them');

# A workflow that is switched off, and one that goes
clear();
my $kept = job();
$f->sql("update flohsync.workflow_definition set enabled = false");
is(claim(10), '', 'jobs of a workflow that is switched off wait');
$f->sql("update flohsync.workflow_definition set enabled = true");
$f->configure('c', 'user', syncTriggerMode => 'per_record');
$f->up('change', type => 'user', from => 1, to => 3);
$f->sync_ok('c', 'user', 'pass with changes again');
$f->sql('delete from flohsync.workflow_definition');
is($f->sql("select (select count(workflow_id) from flohsync.workflow_job) || ' ' || (select count(workflow_id) from flohsync.workflow_run) || ' ' || count(post_sync_workflow_id) from flohsync.connector_sync_config"),
	'0 0 0', 'a workflow that is deleted leaves nulls behind');
is(claim(10), '', 'and its jobs are not given out');
clear();
$f->up('change', type => 'user', from => 1, to => 3);
$f->sync_ok('c', 'user', 'a pass without a workflow');
is(count('workflow_job'), 0, 'queues nothing');

# Told of in the run's transaction
my $again = $f->sql("insert into flohsync.workflow_definition (name) values ('again') returning id");
$f->configure('c', 'user', postSyncWorkflowId => $again);
$f->sql("create function public.no_jobs() returns trigger language plpgsql as 'begin raise exception ''no jobs today''; end';
	create trigger no_jobs before insert on flohsync.workflow_job for each row execute function public.no_jobs()");
$f->up('change', type => 'user', from => 1, to => 3);
$f->sync_ok('c', 'user', 'a pass whose jobs cannot be queued');
is($f->sql("select message from flohsync.sync_error where run_id = (select max(id) from flohsync.sync_run)"), 'workflow: no jobs today', 'says so, and the run is a success');
$f->sql('drop trigger no_jobs on flohsync.workflow_job');

$f->invariants;
done_testing();
