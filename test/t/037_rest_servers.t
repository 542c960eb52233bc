# Connectors of kind rest against servers nobody here wrote, from the npm registry (test/servers).
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use Flohsync;
use HTTP::Tiny;
use JSON::PP;
use Rest;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time sleep);

my $servers = abs_path(dirname(__FILE__) . '/../servers');
plan skip_all => 'the servers are not installed: script/setup servers' unless -d "$servers/node_modules";

my $f = Rest->new(upstream => 0);
my $http = HTTP::Tiny->new(timeout => 20);
my $dir = PostgreSQL::Test::Utils::tempdir();
my @started;

# A Node.js program that listens on the port; it goes when we go.
sub start_server
{
	my ($port, @command) = @_;
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		chdir $servers;
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', "$dir/servers.log";
		open STDERR, '>&', \*STDOUT;
		local %ENV = (%ENV, HOME => $dir, NODE_OPTIONS => "--require $servers/loopback.cjs");
		exec('setpriv', '--pdeathsig', 'TERM', 'node', @command) or POSIX::_exit(127);
	}
	push @started, $pid;
	return ($port, $pid);
}

sub wait_up
{
	my ($url, %headers) = @_;
	my $until = time + 30;
	my $answer;
	do
	{
		sleep 0.05 if $answer;
		$answer = $http->get($url, { headers => \%headers });
	} while ($answer->{status} != 200 && time < $until);
	die "$url: $answer->{status} $answer->{content}\n" . slurp_file("$dir/servers.log") if $answer->{status} != 200;
	return;
}

END
{
	my $status = $?;
	kill 'TERM', @started if @started;
	waitpid $_, 0 for @started;
	$? = $status;
}

sub write_file { my ($name, $text) = @_; open(my $h, '>', "$dir/$name") or die $!; print $h $text; close $h; return "$dir/$name" }
sub call
{
	my ($method, $url, $headers, $body) = @_;
	my %h = %$headers;
	$h{'Content-Type'} //= 'application/json' if defined $body;
	my $r = $http->request($method, $url, { headers => \%h, defined $body ? (content => json_text($body)) : () });
	die "$method $url: $r->{status} $r->{content}" unless $r->{success};
	return length $r->{content} ? decode_json_text($r->{content}) : undef;
}

# A template, pointed at a server on loopback
sub connect_template
{
	my ($name, $template, $base, $secrets, $config) = @_;
	my $definition = $f->json("SELECT flohsync.connector_template('$template')");
	$definition = $definition->{definition} if $definition->{definition};
	$definition->{base_url} = $base;
	$f->sql('SELECT flohsync.create_connector(' . literal($name) . ", 'rest', " . Flohsync::jsonb($config) . ', ' . Flohsync::jsonb($definition) . ')');
	$f->secret($name, $_, $secrets->{$_}) for sort keys %$secrets;
	return $definition;
}

# What is stored of a type, sorted lines "id|name|email"
sub stored
{
	my ($c, $type) = @_;
	return join "\n", sort split /\n/, $f->sql("SELECT concat_ws('|', external_id, display_name, email) " . $f->scope($c, $type) . ' AND stale_since IS NULL');
}

#
# Start them all: emulate (Okta, GitHub), SCIMMY, json-server
#
my @people = map { { login => "u$_\@acme.test", email => "u$_\@acme.test", first_name => "F$_", last_name => "L$_" } } 1 .. 250;
my $seed = write_file('seed.yaml', json_text({
	tokens => { test_token_admin => { login => 'admin', scopes => [ 'repo', 'user', 'admin:org' ] } },
	okta => { users => \@people, groups => [ map { { name => "Group $_", description => "number $_" } } 1 .. 40 ] },
	github => { users => [ map { { login => "dev$_", name => "Dev $_", email => "dev$_\@acme.test" } } 1 .. 70 ], orgs => [ { login => 'acme' } ] } }));
my $db = write_file('db.json', json_text({
	people => [ map { { id => $_, name => "Person $_", mail => "p$_\@acme.test", updatedAt => '2024-01-01T00:00:00.000Z' } } 1 .. 103 ] }));
my ($okta, $github, $scim, $json) = map { PostgreSQL::Test::Cluster::get_free_port() } 1 .. 4;
start_server($okta, 'node_modules/emulate/dist/index.js', 'start', '--service', 'okta', '--port', $okta, '--seed', $seed);
start_server($github, 'node_modules/emulate/dist/index.js', 'start', '--service', 'github', '--port', $github, '--seed', $seed);
start_server($scim, 'scim.mjs', $scim, 250, 'scim-token');
start_server($json, 'node_modules/json-server/lib/cli/bin.js', '--quiet', '--host', '127.0.0.1', '--port', $json, $db);
my %ssws = (Authorization => 'SSWS test_token_admin');
my %bearer = (Authorization => 'Bearer test_token_admin');
my %scim_token = (Authorization => 'Bearer scim-token');
wait_up("http://127.0.0.1:$okta/api/v1/users?limit=1", %ssws);
wait_up("http://127.0.0.1:$github/orgs/acme", %bearer);
wait_up("http://127.0.0.1:$scim/scim/v2/Users?count=1", %scim_token);
wait_up("http://127.0.0.1:$json/people/1");

# All pages of a Link-paged list, by a client of our own
sub all_of
{
	my ($url, $headers) = @_;
	my @all;
	my $pages = 0;
	while ($url)
	{
		my $r = $http->get($url, { headers => $headers });
		die "$url: $r->{status}" unless $r->{success};
		push @all, @{ decode_json_text($r->{content}) };
		$pages++;
		($url) = ($r->{headers}{link} // '') =~ /<([^>]*)>; rel="next"/;
	}
	return ($pages, @all);
}

#
# Okta
#
connect_template('okta', 'okta', "http://127.0.0.1:$okta", { token => 'test_token_admin' }, { domain => 'acme.okta.example' });
$f->configure('okta', $_) for qw(user group);
my ($pages, @users) = all_of("http://127.0.0.1:$okta/api/v1/users?limit=200", \%ssws);
is($pages . ' ' . scalar(@users), '9 251', 'Okta: the server gives 251 users in 9 pages, whatever is asked for');
my $stats = $f->sync_ok('okta', 'user', 'Okta: users by template');
is("$stats->{pagesProcessed} $stats->{added} " . ($stats->{complete} ? 'complete' : 'not complete'), '9 251 complete', 'Okta: 9 pages, 251 users');
is(stored('okta', 'user'), join("\n", sort map { join '|', $_->{id}, $_->{profile}{displayName}, $_->{profile}{email} } @users), 'Okta: with id, name and e-mail');
is($f->sql("SELECT attributes->>'firstName' || ' ' || (attributes->>'lastName') " . $f->scope('okta', 'user') . " AND email = 'u17\@acme.test'"), 'F17 L17', 'Okta: and attributes');
$stats = $f->sync_ok('okta', 'user', 'Okta: again');
is($stats->{unchanged}, 251, 'Okta: nothing has changed');
my (undef, @groups) = all_of("http://127.0.0.1:$okta/api/v1/groups?limit=200", \%ssws);
$stats = $f->sync_ok('okta', 'group', 'Okta: groups');
is($stats->{added}, scalar(@groups), 'Okta: all groups');
is($f->sql("SELECT count(*) " . $f->scope('okta', 'group') . " AND display_name ~ '^Group \\d+\$'"), 40, 'Okta: with their names');
# changes: one new, one renamed, one deactivated
my ($someone) = grep { $_->{profile}{login} eq 'u17@acme.test' } @users;
my ($leaver) = grep { $_->{profile}{login} eq 'u18@acme.test' } @users;
call('POST', "http://127.0.0.1:$okta/api/v1/users/$someone->{id}", \%ssws, { profile => { lastName => 'Changed', displayName => 'F17 Changed' } });
call('POST', "http://127.0.0.1:$okta/api/v1/users/$leaver->{id}/lifecycle/deactivate", \%ssws);
call('POST', "http://127.0.0.1:$okta/api/v1/users?activate=true", \%ssws, { profile => { login => 'new@acme.test', email => 'new@acme.test', firstName => 'New', lastName => 'One' } });
$stats = $f->sync_ok('okta', 'user', 'Okta: after changes');
is($f->sql("SELECT display_name " . $f->scope('okta', 'user') . " AND external_id = '$someone->{id}'"), 'F17 Changed', 'Okta: one is renamed');
is($f->sql("SELECT stale_since IS NOT NULL " . $f->scope('okta', 'user') . " AND external_id = '$leaver->{id}'"), 't', 'Okta: one that is deprovisioned is stale');
is($stats->{added}, 1, 'Okta: one is new');
my $t = $f->json("SELECT flohsync.test_connector('okta')");
is($t->{ok}, JSON::PP::true, 'Okta: tested: ok') or diag(json_text($t));

#
# GitHub
#
call('POST', "http://127.0.0.1:$github/orgs/acme/teams", \%bearer, { name => "Team $_" }) for 1 .. 35;
call('PUT', "http://127.0.0.1:$github/orgs/acme/teams/team-1/memberships/admin", \%bearer, { role => 'maintainer' });
call('PUT', "http://127.0.0.1:$github/orgs/acme/memberships/dev$_", \%bearer, { role => 'member' }) for 1 .. 65;
my ($member_pages, @members) = all_of("http://127.0.0.1:$github/orgs/acme/members?per_page=100", \%bearer);
my (undef, @teams) = all_of("http://127.0.0.1:$github/orgs/acme/teams?per_page=30", \%bearer);
my $definition = connect_template('github', 'github', "http://127.0.0.1:$github", { token => 'test_token_admin' }, { org => 'acme' });
my ($team) = grep { $definition->{resources}{$_}{list}{path} // '' =~ m{/teams} && $definition->{resources}{$_}{list}{path} =~ m{/teams$} } sort keys %{ $definition->{resources} };
$f->configure('github', $_) for 'user', $team // ();
$stats = $f->sync_ok('github', 'user', 'GitHub: members by template');
is($stats->{added}, scalar(@members), 'GitHub: all ' . scalar(@members) . ' members');
is($f->sql("SELECT string_agg(external_id, ' ' ORDER BY external_id COLLATE \"C\") " . $f->scope('github', 'user')), join(' ', sort map { $_->{id} } @members), 'GitHub: their ids, which are numbers, are texts');
is($f->sql("SELECT count(*) " . $f->scope('github', 'user') . " AND display_name LIKE 'dev%'"), 65, 'GitHub: with their names');
ok($team, 'GitHub: the template has teams');
$stats = $f->sync_ok('github', $team, 'GitHub: teams');
is($stats->{added}, scalar(@teams), 'GitHub: all ' . scalar(@teams) . ' teams');
$http->delete("http://127.0.0.1:$github/orgs/acme/members/dev7", { headers => \%bearer });
$stats = $f->sync_ok('github', 'user', 'GitHub: after one left');
is("$stats->{staled} $stats->{unchanged}", '1 ' . (@members - 1), 'GitHub: one is stale, the others unchanged');
# small pages over the same data: the Link header is followed
$definition->{resources}{user}{list}{page_size} = { param => 'per_page', default => 10, max => 10 };
$f->sql("SELECT flohsync.update_connector('github', " . Flohsync::jsonb({ definition => $definition }) . ')');
$stats = $f->sync_ok('github', 'user', 'GitHub: in pages of ten');
is("$stats->{pagesProcessed} $stats->{unchanged}", int((@members + 8) / 10) . ' ' . (@members - 1), 'GitHub: in pages of ten, all the same');

#
# SCIM
#
connect_template('scim', 'scim', "http://127.0.0.1:$scim/scim/v2", { token => 'scim-token' }, { base_url => "http://127.0.0.1:$scim/scim/v2" });
$f->configure('scim', $_) for qw(user group);
$stats = $f->sync_ok('scim', 'user', 'SCIM: users by template');
is("$stats->{added} " . ($stats->{complete} ? 'complete' : 'not complete'), '250 complete', 'SCIM: 250 users');
is(stored('scim', 'user'), join("\n", sort map { "$_|User $_|u$_\@acme.test" } 1 .. 250), 'SCIM: with id, name and the primary e-mail, which is the second');
$stats = $f->sync_ok('scim', 'user', 'SCIM: again');
is("$stats->{unchanged} $stats->{totalUpstreamRecords}", '250 250', 'SCIM: nothing has changed, and nothing came twice');
$stats = $f->sync_ok('scim', 'group', 'SCIM: groups');
is($stats->{added}, 25, 'SCIM: all groups');
$f->configure('scim', 'user', strategy => 'incremental');
$stats = $f->sync_ok('scim', 'user', 'SCIM: an incremental run in which nothing has changed');
is($stats->{totalUpstreamRecords}, 0, 'SCIM: the server filters by meta.lastModified');
my %scim_type = ('Content-Type' => 'application/scim+json');
call('PATCH', "http://127.0.0.1:$scim/scim/v2/Users/17", { %scim_token, %scim_type },
	{ schemas => ['urn:ietf:params:scim:api:messages:2.0:PatchOp'], Operations => [ { op => 'replace', path => 'displayName', value => 'Changed' } ] });
call('POST', "http://127.0.0.1:$scim/scim/v2/Users", { %scim_token, %scim_type }, { schemas => ['urn:ietf:params:scim:schemas:core:2.0:User'], userName => 'new@acme.test', displayName => 'New' });
$http->delete("http://127.0.0.1:$scim/scim/v2/Users/18", { headers => \%scim_token });
$stats = $f->sync_ok('scim', 'user', 'SCIM: an incremental run after changes');
is("$stats->{totalUpstreamRecords} $stats->{updated} $stats->{added} $stats->{staled}", '2 1 1 0', 'SCIM: what changed and what is new');
is($f->sql("SELECT display_name " . $f->scope('scim', 'user') . " AND external_id = '17'"), 'Changed', 'SCIM: it is stored');
$f->configure('scim', 'user', strategy => 'full');
$stats = $f->sync_ok('scim', 'user', 'SCIM: a full run');
is("$stats->{staled} " . $f->sql("SELECT external_id " . $f->scope('scim', 'user') . ' AND stale_since IS NOT NULL'), '1 18', 'SCIM: finds what is gone');

$f->secret('scim', 'token', 'another');
$f->ends_with('scim', 'user', 'auth', qr/401/, 'SCIM: another token');
$t = $f->json("SELECT flohsync.test_connector('scim')");
is($t->{ok}, JSON::PP::false, 'SCIM: tested with another token: not ok');
$f->secret('scim', 'token', 'scim-token');
$t = $f->json("SELECT flohsync.test_connector('scim')");
is($t->{ok}, JSON::PP::true, 'SCIM: tested with the right one: ok') or diag(json_text($t));

#
# json-server: pages and offsets
#
sub json_definition
{
	my %list = @_;
	return { version => 1, base_url => 'http://{{config.host}}', resources => { person => {
		list => { path => '/people', records => '$[*]', %list },
		map => { externalId => '$.id', displayName => '$.name', email => '$.mail', attributes => '$' } } } };
}
my $want = join("\n", sort map { "$_|Person $_|p$_\@acme.test" } 1 .. 103);
my %json = (
	page => json_definition(page_size => { param => '_limit', default => 20 }, pagination => { type => 'page', param => '_page' }),
	link => json_definition(page_size => { param => '_limit', default => 20 }, params => { _page => 1 }, pagination => { type => 'link_header' }),
	offset => json_definition(page_size => { param => '_limit', default => 20 }, pagination => { type => 'offset', param => '_start' }, incremental => { type => 'param', param => 'updatedAt_gte' }));
for my $c (sort keys %json)
{
	$f->rest($c, '', definition => $json{$c}, types => ['person'], config => { host => "127.0.0.1:$json" });
	$stats = $f->sync_ok($c, 'person', "json-server, $c: a pass");
	is("$stats->{added} " . ($stats->{complete} ? 'complete' : 'not complete'), '103 complete', "json-server, $c: all are there");
	is(stored($c, 'person'), $want, "json-server, $c: and right");
}
call('PATCH', "http://127.0.0.1:$json/people/50", {}, { name => 'Changed', updatedAt => POSIX::strftime('%Y-%m-%dT%H:%M:%S.000Z', gmtime(time + 1)) });
$http->delete("http://127.0.0.1:$json/people/51");
for my $c (qw(page link))
{
	$stats = $f->sync_ok($c, 'person', "json-server, $c: after changes");
	is("$stats->{updated} $stats->{staled} $stats->{unchanged}", '1 1 101', "json-server, $c: they are found");
}
$f->configure('offset', 'person', strategy => 'incremental');
$stats = $f->sync_ok('offset', 'person', 'json-server, offset: an incremental run');
is("$stats->{totalUpstreamRecords} $stats->{updated} $stats->{staled}", '1 1 0', 'json-server, offset: gets what changed');

$f->invariants;
$f->no_crash;
done_testing();
