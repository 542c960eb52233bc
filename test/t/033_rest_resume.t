# Connectors of kind rest: a pass that failed, or whose worker was killed, goes on where it was, in every style.
use strict;
use warnings;

use Flohsync;
use Rest;
use Test::More;
use Time::HiRes qw(time);

# What hangs does so until it is released, or its worker is killed, however slow the machine is.
my $f = Rest->new(conf => "flohsync.http_timeout = 600s\n");
my $nr = 0;
my $c;

sub cursor_style { my %o = @_; return { type => 'cursor', path => '$.nextCursor', param => 'cursor', %o } }

my @styles = (
	[ 'link', 'link' ],
	[ 'link, relative', 'link;relative=query' ],
	[ 'next', 'next' ],
	[ 'cursor', 'cursor' ],
	[ 'cursor in the body', 'cursor;in=body', list => { method => 'POST', page_size => { param => 'pageSize', default => 20, in => 'body' }, pagination => cursor_style(in => 'body') } ],
	[ 'cursor alone', 'cursor;alone;cap=20', list => { pagination => cursor_style(keep_params => JSON::PP::false) } ],
	[ 'offset', 'offset;cap=20', list => { page_size => { param => 'limit', default => 90, max => 100 } } ],
	[ 'page', 'page' ],
	[ 'page to an empty one', 'page;array', list => { records => '$[*]', pagination => { type => 'page', param => 'page' } } ],
	[ 'SCIM', 'scim' ],
	[ 'RFC 9865', 'scim;cursor', list => { pagination => cursor_style(first => '') } ],);

# Pages that are asked for by position may have moved meanwhile: who goes on with them does not say what is gone.
my %by_position = map { $_ => 1 } 'offset', 'page', 'page to an empty one', 'SCIM';

# 105 records in six pages, synced; three of them changed since
sub begin
{
	my ($style, %o) = @_;
	$c = 'c' . ++$nr;
	$f->up('heal');
	$f->up('release');
	$f->fresh(user => 105);
	$f->rest($c, $style, %o);
	$f->sync_ok($c, 'user', "$c: to begin with ($style)");
	$f->up('change', ids => 'user-0000006,user-0000045,user-0000104', what => 'name');
	$f->clear_log;
	return;
}

sub right
{
	my ($name, $style) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $style =~ /^scim/ ? $f->matches_scim($c, 'user', $name) : $f->matches_upstream($c, 'user', $name);
}
sub stale { return $f->sql("SELECT coalesce(string_agg(external_id, ' ' ORDER BY external_id), '') " . $f->scope($c, 'user') . ' AND stale_since IS NOT NULL') }

#
# A failed run keeps its place
#
for (@styles)
{
	my ($name, $style, %o) = @$_;
	my $last = $style eq 'page;array' ? ' 7' : '';
	begin($style, %o);
	$f->up('delete', ids => 'user-0000105');    # the last one: nothing moves
	$f->fault('status', code => 403, page => 4, times => -1);
	my ($ok) = $f->sync($c, 'user');
	ok(!$ok, "$name: a run fails on page 4");
	ok(length($f->last_run($c, 'user')->{cursor} // ''), "$name: its cursor is kept");
	is(stale(), '', "$name: nothing is stale");
	$f->up('heal');
	$f->clear_log;
	my $stats = $f->sync_ok($c, 'user', "$name: the next run");
	is($f->pages_asked('user'), "4 5 6$last", "$name: asks for no page again");
	if ($by_position{$name})
	{
		is(stale(), '', "$name: nothing is stale");
		ok(!$stats->{complete}, "$name: the pass is not complete");
		like($f->last_run($c, 'user')->{incomplete_reason}, qr/by position/, "$name: and says why");
	}
	else
	{
		is(stale(), 'user-0000105', "$name: what is gone is stale, and nothing else");
		right("$name: all is there", $style);
		ok($stats->{complete}, "$name: the pass is complete");
	}
	$f->clear_log;
	$f->sync_ok($c, 'user', "$name: the run after that");
	is($f->pages_asked('user'), "1 2 3 4 5 6$last", "$name: begins at the front");
	is(stale(), 'user-0000105', "$name: then what is gone is stale, and nothing else");
	right("$name: then all is there", $style);
}

#
# A cursor that the upstream no longer takes
#
for ([ 'link', 'link', 410 ], [ 'next', 'next', 410 ], [ 'cursor', 'cursor', 400 ], [ 'RFC 9865', 'scim;cursor', 400, list => { pagination => cursor_style(first => '') } ])
{
	my ($name, $style, $code, %o) = @$_;
	begin($style, %o);
	$f->fault('status', code => 403, page => 4, times => -1);
	$f->sync($c, 'user');
	$f->up('heal');
	$f->up('expire', code => $code);
	$f->clear_log;
	$f->sync_ok($c, 'user', "$name, the cursor expired: the next run");
	is($f->pages_asked('user'), '4 1 2 3 4 5 6', "$name, the cursor expired: it begins again");
	right("$name, the cursor expired: all is there", $style);

	# in the middle of a run
	begin($style, %o);
	$f->fault('hang', page => 3);
	my $run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
	$f->await(hanging => 1);
	$f->up('expire', code => $code);
	$f->up('release');
	$f->wait_run($run);
	# what hung was answered before; the page after it is refused, and the pass begins again, once
	is($f->run_row($run)->{status}, 'success', "$name, the cursor expires within a run: it succeeds") or diag($f->run_row($run)->{error});
	right("$name, the cursor expires within a run: all is there", $style);
}

#
# Killed
#
for (@styles)
{
	my ($name, $style, %o) = @$_;
	my $last = $style eq 'page;array' ? ' 7' : '';
	begin($style, %o);
	$f->up('delete', ids => 'user-0000105');
	$f->fault('hang', page => 5);
	my $run = $f->sql("SELECT flohsync.trigger_sync('$c', 'user')");
	$f->await(hanging => 1);
	$f->wait_flushed($run, 4);
	ok($f->crash($f->worker_pid), "$name: the worker is killed on page 5, and the server is up again");
	my $begun = time;
	ok($f->wait_run($run, timeout => 30), "$name: the run goes on by itself");
	cmp_ok(time - $begun, '<', 12, "$name: within ten seconds");
	my $row = $f->run_row($run);
	is($row->{status}, 'success', "$name: the same run, to its end") or diag($row->{error});
	is($f->pages_asked('user'), "1 2 3 4 5 5 6$last", "$name: no page that is on disk is asked for again");
	is("$row->{crashes} $row->{crash_page}", '1 4', "$name: it was interrupted behind page 4");
	my $staled = $by_position{$name} ? 0 : 1;
	is("$row->{stats}{updated} $row->{stats}{staled}", "3 $staled", "$name: the statistics are those of the whole pass");
	$f->sync_ok($c, 'user', "$name: the run after it") if $by_position{$name};
	is(stale(), 'user-0000105', "$name: what is gone is stale, and nothing else");
	right("$name: nothing is lost", $style);
}

# A definition that was changed meanwhile begins the pass again.
begin('link');
$f->fault('status', code => 403, page => 4, times => -1);
$f->sync($c, 'user');
$f->up('heal');
$f->sql("SELECT flohsync.update_connector('$c', " . Flohsync::jsonb({ definition => $f->definition('next') }) . ')');
$f->clear_log;
$f->sync_ok($c, 'user', 'another definition: the next run');
is($f->pages_asked('user'), '1 2 3 4 5 6', 'another definition: it begins at the front');
right('another definition: all is there', 'next');

$f->invariants;
unlike(PostgreSQL::Test::Utils::slurp_file($f->node->logfile), qr/PANIC|signal 11|signal 6/, 'no process crashed by itself');
done_testing();
