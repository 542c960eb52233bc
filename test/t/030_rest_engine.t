# Connectors of kind rest: what hostile or odd answers do to the engine.
use strict;
use warnings;

use Flohsync;
use Rest;
use Test::More;

my $f = Rest->new;
my $nr = 0;
my $c;

sub begin
{
	my ($style, %o) = @_;
	$c = 'c' . ++$nr;
	$f->fresh(user => 105);
	$f->rest($c, $style, %o);
	$f->sync_ok($c, 'user', "$c: to begin with ($style)");
	return;
}

# A next cursor that is none must not pass for the end of the list.
begin('cursor', list => { total => undef }, retry => { max_attempts => 1 });
for my $cursor ('"\\ud800"', '"a\\u0000b"', '{"a": 1}', '[1]', 'true', 'false')
{
	$f->fault('next_cursor', page => 2, times => -1, json => $cursor);
	$f->ends_with($c, 'user', 'bad_answer', qr/next page/, 'cursor ' . ($cursor =~ s/[^ -~]/?/gr));
	$f->up('heal');
}
$f->sync_ok($c, 'user', 'cursor: afterwards all is well');

# An address that cannot be one
begin('link');
for my $link ("http://127.0.0.1:$f->{port}/\xff\xfe", 'http://127.0.0.1:1/', 'file:///etc/passwd', 'http://user:pw@127.0.0.1/', '//127.0.0.1:2/x', 'http://[::1', '//', 'javascript:x')
{
	my $name = $link =~ s/[^ -~]/?/gr;
	$f->fault('status', page => 2, times => -1, code => 403);
	$f->fault('header', page => 1, times => -1, name => 'Link', value => "<$link>; rel=\"next\", <x>; rel=\"prev\"");
	my ($ok, $r) = $f->sync($c, 'user');
	ok(!$ok, "link $name: the run fails");
	is((split ' ', $f->counts($c, 'user'))[1], 0, "link $name: nothing is stale");
	$f->up('heal');
}

# Many lists without a record in a row are no loop.
my $definition = $f->definition('link', types => [ 'user', 'group' ]);
$definition->{resources}{member} = {
	list => { page_size => { param => 'limit', default => 5 }, pagination => { type => 'link_header' } },
	map => { externalId => '$.externalId', displayName => '$.displayName', attributes => '$.attributes' },
	for_each => { resource => 'group', path => '/groups/{{parent.external_id}}/members' } };
$f->fresh(user => 1, group => 130);
$f->rest('each', 'link', definition => $definition, types => [ 'user', 'group', 'member' ]);
ok($f->json(q{SELECT flohsync.test_connector('each')})->{ok}, 'test_connector answers before there are parents') or diag($f->sql(q{SELECT flohsync.test_connector('each')}));
$f->sync_ok('each', 'group', 'many groups');
my $stats = $f->sync_ok('each', 'member', 'hardly any with a member');
ok($stats->{complete} && $stats->{pagesProcessed} == 130, 'each is asked for');

# No transaction, snapshot or lock of a table while the upstream is waited for: also between the lists.
$f->fault('hang', page => '1', after => 5);
my $run = $f->sql(q{SELECT flohsync.trigger_sync('each', 'member')});
$f->await(hanging => 1);
my $pid = $f->worker_pid;
# A page is asked for while the one before is still being stored.
$f->comes_true("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL OR xact_start IS NOT NULL)", 'waiting: no transaction');
is($f->sql("SELECT count(*) FROM pg_locks WHERE pid = $pid AND locktype = 'relation'"), 0, 'waiting: no table is locked');
$f->up('release');
ok($f->wait_run($run), 'and it goes on');

$f->invariants;
$f->no_crash;
done_testing();
