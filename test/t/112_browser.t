# A real browser as a client: pages of another origin that may call the server and that may
# not, and EventSource, which sees runs go on and end, also those that end while the server
# is away.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use Flohsync;
use Gateway;
use IPC::Open2;
use Test::More;
use Time::HiRes qw(time sleep);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

my $tools = abs_path(dirname(__FILE__) . '/../gateway');
my ($chromium) = grep { -x $_ } map { my $name = $_; map { "$_/$name" } split /:/, $ENV{PATH} } qw(chromium-headless-shell chromium);
plan skip_all => 'the clients are not installed: script/setup gateway' unless -d "$tools/node_modules";
plan skip_all => 'there is no browser: script/setup browser' unless $chromium;

my $f = Flohsync->new;
my $dir = PostgreSQL::Test::Utils::tempdir();
my @ports = map { PostgreSQL::Test::Cluster::get_free_port() } 1, 2;
my $g = Gateway->new($f, settings => { cors_origins => "http://127.0.0.1:$ports[0]" });

$ENV{HOME} = $dir;
$ENV{XDG_CONFIG_HOME} = $ENV{XDG_CACHE_HOME} = $dir;
my $pid = open2(my $from, my $to, 'node', "$tools/browser.mjs", $chromium, "$dir/profile", @ports);
$SIG{PIPE} = 'IGNORE';
END
{
	my $status = $?;
	if ($pid)
	{
		close $to;
		waitpid $pid, 0;
	}
	$? = $status;
}

sub answer
{
	my $line = readline $from;
	defined $line or die 'the browser has gone';
	return decode_json_text($line);
}

# What JavaScript in a page comes to
sub page
{
	my ($page, $code) = @_;
	print $to json_text({ page => $page, code => $code }), "\n";
	$to->flush;
	my $a = answer();
	diag($a->{error}) if defined $a->{error};
	return $a->{value};
}

# Until it comes to something true
sub page_until
{
	my ($page, $code, $name) = @_;
	my $value;
	for (my $until = time + 120; time < $until; sleep 0.05)
	{
		$value = page($page, $code);
		last if $value;
	}
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $value if ok($value, $name);
	diag(json_text(page($page, 'window.log ?? null')));
	die 'what follows needs that';
}

note('browser ' . answer()->{value});
$f->fresh(user => 30);
my ($base, $manager, $reader) = ($g->url(''), $g->manager, $g->reader);
my $made = json_text({ name => 'c', kind => 'command', config => { url => $f->url, commands => ['listUsers'] } });
my $ask = <<"JS";
window.ask = async (method, path, body, headers = {}) => {
	try {
		const answer = await fetch('$base' + path, { method, body, headers: { Authorization: 'Bearer $manager', ...(body && { 'Content-Type': 'application/json' }), ...headers } });
		const text = await answer.text();
		return { status: answer.status, location: answer.headers.get('Location'), etag: answer.headers.get('ETag'), id: answer.headers.get('X-Request-Id'), json: text ? JSON.parse(text) : null };
	} catch (error) {
		return { refused: error.name };
	}
};
window.log = [];
true
JS
page($_, $ask) for 0, 1;

#
# fetch
#

my $a = page(0, "ask('POST', '/api/connectors', " . json_text($made) . ", { 'X-Request-Id': 'of-a-page' })");
is($a->{status}, 201, 'a page whose origin is named may call');
is($a->{location}, "/api/connectors/$a->{json}{id}", 'and sees where what it made is');
is($a->{id}, 'of-a-page', 'and the id of its request');
my $one = $a->{location};
$a = page(0, "ask('GET', '$one')");
like($a->{etag}, qr/^"[0-9a-f-]{32,}"$/, 'and an ETag');
is(page(0, "ask('PUT', '$one', '{\"description\": \"d\"}', { 'If-Match': '\"x\"' })")->{status}, 412, 'which it may send');
is(page(0, "ask('PUT', '$one/sync-config/user', '{}')")->{status}, 201, 'it may PUT');
is(page(0, "ask('GET', '/api/connectors/none')")->{json}{code}, '42704', 'and reads errors');
is(page(0, "ask('PATCH', '$one', '{}')")->{refused}, 'TypeError', 'a method that there is not is refused before it is used');
is(page(1, "ask('GET', '$one')")->{refused}, 'TypeError', 'a page of another origin reads nothing');
is(page(1, "ask('DELETE', '$one')")->{refused}, 'TypeError', 'and does nothing');
is($g->get($one, token => $reader)->{status}, 200, 'as one sees');
is(page(1, "fetch('$base/live', { mode: 'no-cors' }).then((a) => a.type)"), 'opaque', 'what needs no token it may ask, and cannot read');

#
# EventSource
#

page($_, <<"JS") for 0, 1;
window.source = new EventSource('$base/api/events?access_token=$reader');
for (const name of ['run', 'run-end', 'match-stats'])
	source.addEventListener(name, (e) => log.push({ name, id: e.lastEventId, data: JSON.parse(e.data) }));
source.onerror = () => log.push({ name: 'error', state: source.readyState });
true
JS
page_until(0, 'source.readyState === EventSource.OPEN', 'events are open');
page_until(1, 'source.readyState === EventSource.CLOSED', 'but not to the other page');
$f->fault('hang', page => 1);
my $run = page(0, "ask('POST', '$one/sync-config/user/trigger?wait=false')")->{json}{runId};
my $seen = page_until(0, "log.find((e) => e.name === 'run' && e.data.runId === $run && e.data.status === 'running')", 'a run is seen to go on');
is($seen->{data}{connector}, 'c', 'which one');
$f->up('release');
$f->up('heal');
$seen = page_until(0, "log.find((e) => e.name === 'run-end' && e.data.id === $run)", 'and to end');
is("$seen->{data}{status} $seen->{data}{stats}{added}", 'success 30', 'how');
page_until(0, "log.find((e) => e.name === 'match-stats' && e.data.total === 30)", 'with the figures of matches');
$f->sync_ok('c', 'user');
my $before = $f->last_run('c', 'user')->{id};
page_until(0, "log.find((e) => e.name === 'run-end' && e.data.id === $before)", 'so is one that somebody else asked for');

# The server goes, and comes back
is($g->stop, 0, 'the server is stopped');
page_until(0, "log.some((e) => e.name === 'error')", 'which the page notices');
$f->sync_ok('c', 'user') for 1, 2;
my $last = $f->last_run('c', 'user')->{id};
ok($g->start, 'it is started again');
page_until(0, "log.find((e) => e.name === 'run-end' && e.data.id === $last)", 'the page hears of what ended meanwhile');
is(page(0, "log.filter((e) => e.name === 'run-end').map((e) => e.data.id).join()"), join(',', $run, $before .. $last), 'once each, in their order');
is(page(0, 'source.readyState'), 1, 'and of what comes');

# A token that is not good ends it for good
page(0, "source.close(); window.bad = new EventSource('$base/api/events?access_token=x.y.z'); true");
page_until(0, 'bad.readyState === EventSource.CLOSED', 'without a good token there are no events');
unlike($g->log_text, qr/eyJ/, 'the token of the query is not in the log');

done_testing();
