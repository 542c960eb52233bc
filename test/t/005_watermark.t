# How far the next incremental pass looks back: the watermark, and the link of a
# list of changes, follow what was read to its end, whether or not all of it could
# be used.  What could not is said.
use strict;
use warnings;

use Flohsync;
use Rest;
use Test::More;

my $f = Rest->new;
my $nr = 0;
my $c;
my $before;

sub mark { return $f->sql("SELECT watermark FROM flohsync.connector_sync_config c JOIN flohsync.connector_definition d ON d.id = c.connector_id WHERE d.name = '$c'") }
sub run { return $f->last_run($c, 'user') }
sub name_of { return $f->sql("SELECT display_name " . $f->scope($c, 'user') . " AND external_id = '$_[0]'") }

# A pass that succeeds without being complete, for this reason; the watermark moves with it, or stays.
sub incomplete_pass
{
	my ($moves, $reason, $name) = @_;
	my $was = mark();
	$f->sync_ok($c, 'user', "$name: the run is a success");
	my $run = run();
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(!$run->{complete} && ($run->{incomplete_reason} // '') =~ $reason, "$name: which says what is missing") or diag(json_text($run));
	my $now = mark();
	is($now ne $was ? 'moves' : 'stays', $moves ? 'moves' : 'stays', "$name: the watermark " . ($moves ? 'moves' : 'stays'));
	return;
}
sub begin
{
	my (%settings) = @_;
	$c = 'w' . ++$nr;
	$f->up('heal');
	$f->fresh(user => 100);
	$f->connector($c, strategy => 'incremental', %settings);
	$f->sync_ok($c, 'user', "$c: to begin with");
	isnt(mark(), '', "$c: a watermark");
	$f->up('change', type => 'user', ids => 'user-0000004,user-0000005,user-0000006', what => 'name');
	return;
}

#
# A record without an id
#
begin();
for my $what ([ 'id', value => 'missing' ], [ 'id', value => 'empty' ], [ 'record', json => '5' ])
{
	my ($kind, @args) = @$what;
	$f->up('change', type => 'user', ids => 'user-0000004,user-0000005,user-0000006', what => 'name');
	$f->fault($kind, @args, page => 1, record => 2, times => -1);
	incomplete_pass(1, qr/^1 records had no usable externalId/, "$kind @args");
	is(scalar($f->errors_of(run()->{id})), 1, 'the record is set aside');
	my $mark = mark();
	incomplete_pass(1, qr/no usable externalId/, 'the next run, with the same fault');
	is($f->sql("SELECT modified_since = '$mark'::timestamptz - interval '5 minutes' FROM flohsync.sync_run WHERE id = " . run()->{id}), 't', 'asks for what changed since');
	$f->up('heal');
}
is($f->counts($c, 'user'), '100 0', 'nothing is stale by it');
# and in a full pass
$f->fault('id', value => 'missing', page => 1, record => 2);
$f->configure($c, 'user', strategy => 'full');
incomplete_pass(1, qr/no usable externalId/, 'a full pass with such a record');
is($f->counts($c, 'user'), '100 0', 'stales nothing either');

#
# What was not read is asked for again
#
begin();
$f->configure($c, 'user', filterRules => { maxRecords => 2 });
incomplete_pass(0, qr/^maxRecords \(2\) was reached/, 'cut off by maxRecords');
$f->configure($c, 'user', filterRules => undef);
$f->sync_ok($c, 'user', 'without it');
like(name_of($_), qr/ v1$/, "$_ is not missed") for 'user-0000004', 'user-0000005', 'user-0000006';

begin();
my $was = mark();
$f->fault('hang', page => 1);
my $run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
$f->await(hanging => 1);
$f->configure($c, 'user', filterRules => { emailDomains => ['nowhere.example'] });
$f->up('release');
$f->wait_run($run);
like($f->run_row($run)->{incomplete_reason}, qr/filter rules were changed/, 'filter rules that were changed on the way');
is(mark(), $was, 'keep the watermark where it is');

begin();
$f->fault('status', code => 403, page => 1);
$was = mark();
$f->sync($c, 'user');
is(mark(), $was, 'so does a run that fails');

# A total is about the list where everything was asked for, and perhaps about something else where changes were.
begin();
$f->fault('total_estimate', json => '1000', times => -1);
incomplete_pass(1, qr/reported 1000 records but sent 3/, 'changes, with the total of everything');
$f->configure($c, 'user', strategy => 'full');
incomplete_pass(0, qr/reported 1000 records but sent 100/, 'everything, of which a part is missing');

# A pass that is resumed in the middle of a list by position has to be made again.
$f->up('heal');
$f->fresh(user => 100);
$c = 'position';
$f->rest($c, 'offset', list => { incremental => { type => 'param', param => 'filter', template => 'lastUpdated gt "{{since}}"' } }, strategy => 'incremental');
$f->sync_ok($c, 'user', 'pages by offset');
$f->up('change', all => 1, what => 'name');
$f->fault('status', code => 403, page => 3);
$f->sync($c, 'user');
incomplete_pass(0, qr/the pass was interrupted/, 'gone on with');
incomplete_pass(1, qr/no usable externalId/, 'and made again') if $f->fault('id', value => 'missing', page => 1, record => 2);

#
# Links of lists of changes
#
$f->up('heal');
$f->fresh(user => 105);
$c = 'delta';
$f->rest($c, 'delta', list => { incremental => { type => 'delta_link', path => '$."@odata.deltaLink"', start_path => '/users/delta' }, gone => '$."@removed"' }, strategy => 'incremental',
	resource => { get => { path => '/users/{{external_id}}' } });
$f->configure($c, 'user', strategy => 'full');
$f->sync_ok($c, 'user', 'delta: a full run');
$f->configure($c, 'user', strategy => 'incremental');
$f->sync_ok($c, 'user', 'delta: the first incremental run');
sub link_now { return $f->sql("SELECT delta_link FROM flohsync.connector_sync_config c JOIN flohsync.connector_definition d ON d.id = c.connector_id WHERE d.name = '$c'") }
my $link = link_now();
$f->up('change', ids => 'user-0000004,user-0000005,user-0000006', what => 'name');
$f->fault('id', value => 'missing', record => 2, page => 1);
incomplete_pass(1, qr/^1 records had no usable externalId/, 'delta: a changed record without an id');
isnt(link_now(), $link, 'delta: the link moves, too');
$f->up('change', ids => 'user-0000007', what => 'name');
$f->clear_log;
my $stats = $f->sync_ok($c, 'user', 'delta: the next run');
is(scalar($f->requests(type => 'user')) . " $stats->{totalUpstreamRecords} $stats->{updated}", '1 1 1', 'delta: gets what has changed since, once');
$link = link_now();
$f->up('change', ids => 'user-0000008', what => 'name');
$f->fault('body', body => '{"value": []}', times => 1);
incomplete_pass(0, qr/without a link for the next run/, 'delta: a list that ends without a link');
is(link_now(), $link, 'delta: keeps the one there is');
$f->sync_ok($c, 'user', 'delta: and with that');
like(name_of('user-0000008'), qr/ v1$/, 'delta: nothing is missed');

$f->invariants;
$f->no_crash;
done_testing();
