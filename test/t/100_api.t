# Schema flohsync_api, as a program that serves it uses it: a login role that takes
# the role of each request.  Real runs, two requests at once, API tokens, a standby,
# and what a long history costs.  What each function answers is in test/sql/api.sql.
use strict;
use warnings;

use Digest::SHA qw(hmac_sha256_hex sha256_hex);
use Flohsync;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
open my $key, '>', "$dir/key" or die $!;
print $key '0123456789abcdef' x 4;
close $key;
chmod 0600, "$dir/key";
my $f = Flohsync->new(conf => "flohsync.encryption_key_file = '$dir/key'\n", init => { allows_streaming => 1 });
$f->sql(<<'SQL');
create role app_reader; create role app_manager; create role serving login noinherit;
select flohsync.grant_reader('app_reader'), flohsync.grant_manager('app_manager'), flohsync.grant_gateway('serving');
grant app_reader, app_manager to serving;
SQL

# The statements of a request: ROLE, CALL, header => value, ...
sub statements
{
	my ($role, $call, %headers) = @_;
	return 'set client_min_messages = error; set session authorization serving; begin; '
	  . "do \$do\$ begin perform set_config('role', " . literal($role) . ", true), set_config('request.headers', " . literal(json_text(\%headers)) . ', true); end $do$; '
	  . "select flohsync_api.$call; select current_setting('response.status', true); select current_setting('response.headers', true); ";
}

# What comes of one: { status, headers, body } or { state, message }
sub result
{
	my ($r) = @_;
	return $r unless $r->{ok};
	my ($body, $status, $headers) = map { $_ // '' } (split /\n/, $r->{out}, -1)[ 0 .. 2 ];
	return { ok => 1, status => $status || 200, headers => { map { %$_ } @{ decode_json_text($headers || '[]') } }, body => $body eq '' ? undef : decode_json_text($body) };
}
sub request { return result($f->try_sql(statements(@_) . 'commit')) }
sub body { my ($r) = @_; diag($r->{text}) unless $r->{ok}; return $r->{body} // {} }

#
# From a new connector to a held run
#
$f->fresh(user => 100);
$f->connector('noise');
$f->sync_ok('noise', 'user');
my $r = request('app_manager', "create_connector('c', 'command', " . Flohsync::jsonb({ url => $f->url, commands => ['listUsers'] }) . ')');
is($r->{status}, 201, 'a connector is created');
my $id = $r->{body}{id};
is($r->{headers}{Location}, "/api/connectors/$id", 'with its place');
is(request('app_manager', "put_sync_config('c', 'user', '{}')")->{status}, 201, 'so is a configuration');
$r = request('app_manager', "trigger_sync('c', 'user')");
is($r->{status}, 202, 'a run is asked for');
my $run = body($r)->{runId};
is($r->{headers}{Location}, "/api/connectors/$id/runs/$run", 'with its place');
$f->wait_run($run);
$r = request('app_manager', "trigger_result('c', $run)");
is(body($r)->{message}, 'Sync completed', 'it has ended');
is($r->{body}{stats}{added}, 100, 'with its statistics');
is($r->{body}{stats}{totalUpstreamRecords}, 100, 'all of them');
is(request('app_reader', "run('$id', $run)")->{body}{requestedBy}, 'app_manager', 'who asked for it is the role of the request');
is(request('app_reader', "run('noise', $run)")->{state}, '42704', 'it is no run of another connector');

# One that goes on: its progress, and who is turned away
$f->fault('hang', page => 1);
$run = body(request('app_manager', "trigger_sync('c', 'user')"))->{runId};
$f->await(hanging => 1);
$f->comes_true("select status = 'running' from flohsync.sync_run where id = $run", 'a run goes on');
$r = request('app_manager', "trigger_sync('c', 'user', 'full')");
is("$r->{status} $r->{body}{runId} $r->{body}{code}", "409 $run 55006", 'another one is not asked for');
is(request('app_manager', "trigger_result('c', $run)")->{status}, 202, 'and it has no result yet');
my ($live) = @{ body(request('serving', 'events()'))->{runs} };
is("$live->{runId} $live->{connectorId} $live->{status} $live->{stage}", "$run $id running fetching", 'events show it');
is(body(request('app_reader', "run('c', $run)"))->{progress}{stage}, 'fetching', 'so does the run');
$r = request('app_manager', "cancel_run('c', $run, 'enough')");
ok($r->{ok}, 'it is cancelled') or diag($r->{text});
$f->comes_true("select status = 'cancelled' from flohsync.sync_run where id = $run", 'and ends');
is($f->sql("select notes from flohsync.sync_run where id = $run"), 'enough', 'why is noted');
is(request('app_manager', "trigger_result('c', $run)")->{status}, 409, 'that is its result');
$r = request('app_manager', "cancel_run('c', $run)");
is($r->{state}, '55000', 'once') or diag($r->{text});
$f->up('heal');

# One that fails, one that is held
$f->fault('status', code => 403);
$run = body(request('app_manager', "trigger_sync('c', 'user')"))->{runId};
$f->wait_run($run);
$r = request('app_manager', "trigger_result('c', $run)");
is("$r->{status} $r->{body}{code}", '502 38000', 'a run that fails');
like($r->{body}{message}, qr/^run $run failed: .*403/, 'says why');
$f->up('heal');
$f->fresh(user => 50);
$run = body(request('app_manager', "trigger_sync('c', 'user', 'full')"))->{runId};
$f->wait_run($run);
$r = request('app_manager', "trigger_result('c', $run)");
ok($r->{body}{held}, 'a run that is held');
like($r->{body}{message}, qr/^Sync held: would mark 50 of 100/, 'says so');
is(body(request('app_reader', "held_changes('c', $run, page_size => 1)"))->{total}, 50, 'and what it would do');
is(body(request('serving', 'health()'))->{heldRuns}, 1, 'health counts it');
is(request('app_reader', "approve_run('c', $run)")->{state}, '42501', 'a reader does not approve it');
$r = request('app_manager', "approve_run('c', $run, 'they have left')");
is(body($r)->{status}, 'success', 'a manager does');
is($f->sql("select resolved_by from flohsync.sync_run where id = $run"), 'app_manager', 'in the name of the role of the request');
is(body(request('app_reader', "resources('c', stale => true)"))->{total}, 50, 'which marks the records');

# The ends of all of them
my $ended = body(request('serving', "events('2020-01-01')"))->{ended};
is(join(' ', map { $_->{run}{status} } grep { $_->{run}{connectorId} eq $id } @$ended), 'success cancelled error success', 'events have the ends of runs');
is(join(' ', map { $_->{id} } @$ended), join(' ', map { $_->[0] } sort { $a->[1] <=> $b->[1] || $a->[2] <=> $b->[2] } map { [ $_->{id}, split /-/, $_->{id} ] } @$ended), 'in their order');
my ($before_last) = $ended->[-2]{id} =~ /^(\d+)-/;
is(join(' ', map { $_->{id} } @{ body(request('serving', "events(to_timestamp(0) + $before_last * interval '1 microsecond')"))->{ended} }), $ended->[-1]{id}, 'after the one before the last comes the last');
is($ended->[-1]{matchStats}{total}, 100, 'with the figures of matches');

#
# Two requests at once
#
# A session that keeps what it has done uncommitted until the other one waits for it.
sub both
{
	my ($end, $first, $second, %headers) = @_;
	my $one = $f->start_sql(statements('app_manager', $first, %headers)
		  . "reset role; reset session authorization; set application_name = 'first'; do \$\$ begin while not exists (select from pg_stat_activity where wait_event_type = 'Lock' and application_name = 'second') loop perform pg_sleep(0.01), pg_stat_clear_snapshot(); end loop; end \$\$; $end");
	$f->wait_for("select count(*) = 1 from pg_stat_activity where application_name = 'first'");
	my $two = $f->start_sql("set application_name = 'second'; " . statements('app_manager', $second, %headers) . 'commit');
	return map { result($f->finish($_)) } $one, $two;
}
my $etag = request('app_reader', "sync_config('c', 'user')")->{headers}{ETag};
my ($one, $two) = both('commit', "put_sync_config('c', 'user', '{\"staleRetention\": \"1d\"}')", "put_sync_config('c', 'user', '{\"staleRetention\": \"2d\"}')", 'if-match' => $etag);
is("$one->{status} $two->{state}", '200 FLS12', 'of two changes with one ETag the second is refused') or diag($one->{text}, $two->{text});
is(body(request('app_reader', "sync_config('c', 'user')"))->{staleRetention}, '1d', 'and changes nothing');
isnt(request('app_reader', "sync_config('c', 'user')")->{headers}{ETag}, $etag, 'there is another one now');
$etag = request('app_reader', "sync_config('c', 'user')")->{headers}{ETag};
$f->sync_ok('c', 'user');
my $after = request('app_reader', "sync_config('c', 'user')")->{headers}{ETag};
isnt($after, $etag, 'a run changes it, as it changes what is answered');
is($after =~ s/-.*//r, $etag =~ s/-.*//r, 'but not the part of the settings');
is(request('app_manager', "put_sync_config('c', 'user', '{\"staleRetention\": \"1d\"}')", 'if-match' => $etag)->{state} // '', '',
	'so that a setting can be changed all the same');
$etag = request('app_manager', "connector('c')")->{headers}{ETag};
($one, $two) = both('commit', "update_connector('c', '{\"description\": \"one\"}')", "update_connector('c', '{\"name\": \"two\"}')", 'if-match' => $etag);
is("$one->{status} $two->{state}", '200 FLS12', 'so with a connector') or diag($one->{text}, $two->{text});
is($f->sql("select description from flohsync.connector_definition where name = 'c'"), 'one', 'the first one counts');
$f->sql("alter system set flohsync.enabled = off; select pg_reload_conf()");
$f->wait_for("select current_setting('flohsync.enabled') = 'off'");
($one, $two) = both('rollback', "trigger_sync('c', 'user')", "trigger_sync('c', 'user')");
is("$one->{status} $two->{status}", '202 202', 'a run that is asked for and taken back is no run');
isnt($one->{body}{runId}, $two->{body}{runId}, 'for who asks meanwhile');
body(request('app_manager', "cancel_run('c', $two->{body}{runId})"));
($one, $two) = both('commit', "trigger_sync('c', 'user')", "trigger_sync('c', 'user')");
is("$one->{status} $two->{status}", '202 409', 'of two who ask at once the second is told of the run of the first');
is($one->{body}{runId}, $two->{body}{runId}, 'which it is');
$r = body(request('serving', 'health()'));
is("$r->{status} $r->{hindrance}", 'degraded flohsync.enabled is off', 'health says what hinders workers');
is("$r->{oldestDueJob}{connector} $r->{oldestDueJob}{resourceType}", 'c user', 'and what waits for one');
$f->sql("alter system reset flohsync.enabled; select pg_reload_conf()");
$f->wait_run($one->{body}{runId});
$r = body(request('serving', 'health()'));
is("$r->{status} $r->{database}", 'ok primary', 'health is well again');
ok(!defined $r->{oldestDueJob}, 'nothing waits');
# What has waited for long, as a schedule that nobody takes: workers are kept away from the row meanwhile
$f->sql("update flohsync.connector_sync_config set enabled = true, cron_schedule = '0 0 1 1 *' where connector_id = '$id'");
$r = $f->json("begin; update flohsync.connector_sync_config set next_run_at = clock_timestamp() - interval '10 minutes' where connector_id = '$id'; select flohsync_api.health(); rollback");
is($r->{status}, 'degraded', 'what has been due for ten minutes is not well');
cmp_ok($r->{oldestDueJob}{lateSeconds}, '>=', 600, 'so late it is');
$r = $f->json("begin; update flohsync.connector_sync_config set next_run_at = clock_timestamp() - interval '1 minute' where connector_id = '$id'; select flohsync_api.health(); rollback");
is($r->{status}, 'ok', 'for one minute it may be');
$f->sql("update flohsync.connector_sync_config set enabled = false where connector_id = '$id'");

#
# Tokens
#
my $told = qr/\n?Asynchronous notification "flohsync_api_token" received.*/s;
$f->sql('listen flohsync_api_token');
my $token = $f->sql("select flohsync.create_api_token('t', 'app_reader')");
ok($token =~ s/$told//, 'a token is told of');
like($token, qr/^fls_[A-Za-z0-9_-]{43}$/, 'it looks like one');
my $hash = sha256_hex($token);
is(body(request('serving', "api_token('\\x$hash')"))->{role}, 'app_reader', 'the program that serves finds its role');
is(request('app_manager', "api_token('\\x$hash')")->{state}, '42501', 'nobody else looks it up');
is(`grep -rl '$token' @{[ $f->node->data_dir ]} 2>/dev/null | wc -l` + 0, 0, 'it is in no file');
my $dump = $f->node->connstr('postgres');
unlike(`pg_dump --inserts -d '$dump'`, qr/$hash/, 'nor is its digest in a dump');
like($f->sql("select flohsync.revoke_api_token('t')"), qr/^t$told/, 'it is revoked, which is told of, too');
unlike($f->sql("select flohsync.revoke_api_token('t')"), $told, 'once');
is(request('serving', "api_token('\\x$hash')")->{body}, undef, 'and known no more');
# The role's name is not the role.
$f->sql("create role passing; grant passing to app_manager");
$hash = sha256_hex($f->sql("select flohsync.create_api_token('p', 'passing')") =~ s/\n.*//sr);
$f->sql('drop role passing; create role passing');
is(request('serving', "api_token('\\x$hash')")->{body}, undef, 'a role of the same name is another one');

#
# Secrets and webhooks
#
is(request('app_manager', "set_secret('c', 'webhook', 'the secret of webhooks')")->{status}, 204, 'a secret is set');
is(join(' ', map { "$_->{name} $_->{usable}" } @{ body(request('app_manager', "secrets('c')")) }), 'webhook 1', 'and listed');
my $hook = json_text({ action => 'updated', resourceType => 'user', resourceId => 'u-hook', data => { displayName => 'Hook' } });
my $signed = json_text({ 'x-webhook-signature' => hmac_sha256_hex($hook, 'the secret of webhooks') });
$r = request('serving', "webhook('c', 'POST', '{}', " . literal($signed) . ", convert_to(" . literal($hook) . ", 'UTF8'))");
is(json_text(body($r)), '{"body":{"accepted":true,"action":"updated","changed":true},"contentType":"application/json","status":200}', 'a webhook is taken');
is(body(request('app_reader', "resource('c', 'user', 'u-hook')"))->{displayName}, 'Hook', 'and applied');
$r = request('serving', "webhook('c', 'POST', '{}', " . literal($signed) . ", convert_to(" . literal("$hook ") . ", 'UTF8'))");
is($r->{state}, '28000', 'another body is not authentic');
is(request('app_manager', "webhook('c', 'POST', '{}', " . literal($signed) . ", convert_to(" . literal($hook) . ", 'UTF8'))")->{state}, '42501', 'nor is it for anybody to hand in');
is(request('app_manager', "delete_secret('c', 'webhook')")->{status}, 204, 'the secret is removed');
is(request('app_manager', "delete_secret('c', 'webhook')")->{state}, '42704', 'once');

#
# With a long history events cost what is new.
#
my $question = "explain (analyze, buffers, timing off, format json) select flohsync_api.events(now() - interval '1 hour')";
sub blocks { $f->sql($question); my $plan = decode_json_text($f->sql($question)); return $plan->[0]{Plan}{'Shared Hit Blocks'} + $plan->[0]{Plan}{'Shared Read Blocks'} }
my $before = blocks();
$f->sql("insert into flohsync.sync_run (connector_id, resource_type, trigger, status, requested_at, started_at, finished_at, stats) select '$id', 'user', 'manual', 'success', x, x, x, '{\"added\": 1}' from generate_series(now() - interval '20 days', now() - interval '1 day', interval '20 seconds') x; analyze flohsync.sync_run");
cmp_ok($f->sql('select count(*) from flohsync.sync_run'), '>', 80000, 'a long history');
my $blocks = blocks();
cmp_ok($blocks, '<', $before + 500, "events read $blocks blocks, as before ($before)");
cmp_ok($f->sql("select pg_relation_size('flohsync.sync_run') / 8192"), '>', 2000, 'of many');

#
# A standby serves what reads
#
$f->node->backup('base');
my $node = PostgreSQL::Test::Cluster->new('standby');
$node->init_from_backup($f->node, 'base', has_streaming => 1);
$node->start;
$f->node->wait_for_catchup($node);
my $s = $f->with_node($node);
for my $call ("connector('c')", 'connectors()', "resources('c', page_size => 1)", "resource('c', 'user', 'u-hook')", "sync_configs('c')", "sync_config('c', 'user')", "sync_status('c', 'user')", "runs('c', page_size => 1)",
	"run('c', $run)", "run_pages('c', $run)", "run_errors('c', $run)", "matches('c', 'user', page_size => 1)", "match_stats('c', 'user')", "explain('c', 'user', 'u-hook')", 'jobs()', 'me()', 'templates()', "validate_definition('{}')", 'events(now())', 'health()')
{
	my $got = result($s->try_sql(statements('app_reader', $call) =~ s/begin;/begin read only;/r . 'commit'));
	ok($got->{ok}, "on the standby: $call") or diag($got->{text});
	is("$got->{body}{status} $got->{body}{database}", 'ok standby', 'which is well') if $call eq 'health()';
}
is(result($s->try_sql(statements('app_manager', "trigger_sync('c', 'user')") . 'commit'))->{state}, '25006', 'and no more');
$node->stop;

#
# A schema of that name that somebody made first
#
$f->sql('create database taken');
$f->sql('create schema flohsync_api', 'taken');
is($f->try_sql('create extension flohsync', 'taken')->{state}, '42P06', 'a schema of that name is not taken over');

$f->no_crash;
done_testing();
