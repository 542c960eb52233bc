# Fingerprints and conditions of pages that are asked for before their turn: each request
# has the condition of its own page, and 304 counts only if the page can still be
# taken as it was when its turn comes.
use strict;
use warnings;

use Flohsync;
use JSON::PP ();
use Rest;
use Test::More;

my $f = Rest->new;
my @conditional = (conditional => JSON::PP::true);
my %kinds = (
	command => sub { $f->connector('command', config => { concurrency => 4, @conditional }) },
	offset => sub { $f->rest('offset', 'offset', concurrency => 4, list => {@conditional}) },
	pages => sub { $f->rest('pages', 'page', concurrency => 4, list => {@conditional}) });

# Pages of the last run: those that were not read, or, with what else holds of them, not even sent
sub pages_of
{
	my ($connector, $which) = @_;
	return $f->sql("SELECT coalesce(string_agg(p.page::text, ' ' ORDER BY p.page), '') FROM flohsync.sync_run_page p WHERE $which AND p.run_id = (SELECT max(r.id) FROM flohsync.sync_run r WHERE r.connector_id = "
		  . $f->connector_id($connector) . ')');
}

sub has_condition { return scalar grep { /^if-(?:none-match|modified-since)$/i } keys %{ $_[0]{headers} } }

# How each page was asked for, in the order in which it was: "?" with a condition, and the status
sub asked
{
	my %asked;
	push @{ $asked{ $_->{page} } }, (has_condition($_) ? '?' : '') . $_->{status} for grep { $_->{page} <= 12 } $f->requests(type => 'user');
	return { map { $_ => join ' ', @{ $asked{$_} } } keys %asked };
}

my $each = { map { $_ => '?304' } 1 .. 12 };

for my $kind (sort keys %kinds)
{
	$f->fresh(user => 235);
	$f->up('options', validator => 'etag');
	$kinds{$kind}->();
	$f->sync_ok($kind, 'user');
	$f->clear_log;
	$f->sync_ok($kind, 'user');
	is_deeply(asked(), $each, "$kind: each page is asked for once, and by what stands for it");
	is(pages_of($kind, 'p.print IS NOT NULL AND p.bytes = 0'), join(' ', 1 .. 12), "$kind: none is sent");

	# While four are on their way, a record of the last one of them is written.
	$f->clear_log;
	$f->fault('hang', page => '5-', times => -1);
	my $sync = $f->start_sql("CALL flohsync.sync('$kind', 'user')");
	$f->await(hanging => 4);
	$f->sql("SELECT flohsync.handle_webhook('$kind', "
		  . Flohsync::jsonb({ action => 'updated', resourceType => 'user', resourceId => 'user-0000145', data => { displayName => 'meanwhile' } }) . ')');
	$f->up('heal');
	$f->up('release');
	ok($f->finish($sync)->{ok}, "$kind: a pass during which a record is written");
	is_deeply(asked(), { %$each, 8 => '?304 200' }, "$kind: a page that cannot be taken any more is asked for again, and no other one");
	is(pages_of($kind, 'p.print IS NULL'), '8', "$kind: and read");
	$f->matches_upstream($kind, 'user', "$kind: with what the upstream has");

	for my $what ([ 'change', ids => 'user-0000145', what => 'name' ], [ 'delete', ids => 'user-0000033' ], [ 'add', count => 21 ])
	{
		my ($change, @how) = @$what;
		$f->up($change, @how);
		$f->sync_ok($kind, 'user') for 1 .. 2;
		$f->matches_upstream($kind, 'user', "$kind: $change");
	}
	$f->fault('status', code => 304, page => 4, times => -1);
	$f->sql("SELECT flohsync.configure_sync('$kind', 'user', '{\"hashIgnore\": [\"score\"]}')");
	$f->sync_fails($kind, 'user', qr/answered with status 304/, "$kind: 304 without a condition is an error");
	$f->up('heal');
	$f->sql("SELECT flohsync.drop_connector('$kind')");
}

# Each part of a split list has a length that is checked at its end.
$f->fresh(user => 235);
$f->up('options', validator => 'etag');
$f->rest('parts', 'cursor', concurrency => 4, list => { @conditional, split => { param => 'part', values => [ '1-of-2', '2-of-2' ] } });
$f->sync_ok('parts', 'user');
$f->clear_log;
$f->sync_ok('parts', 'user');
is(pages_of('parts', 'p.print IS NOT NULL') . grep({ has_condition($_) } $f->requests(type => 'user')), '0', 'pages of a split list are read, and asked for in any case');
$f->matches_upstream('parts', 'user', 'a split list');

$f->no_crash;
done_testing();
