# Connectors of kind rest: every style of paging, to the end and equal to what the upstream has.
use strict;
use warnings;

use Flohsync;
use Rest;
use Test::More;

my $f = Rest->new;
my $nr = 0;

# A pass, one in which nothing changed, and one after changes: 103 records in pages of 20
sub walks
{
	my ($name, $style, %o) = @_;
	my $pages = delete $o{pages} // '1 2 3 4 5 6';
	my $c = 'c' . ++$nr;
	my $scim = $style =~ /^scim/;
	my $is = sub { $scim ? $f->matches_scim($c, 'user', $_[0]) : $f->matches_upstream($c, 'user', $_[0]) };

	$f->fresh(user => 105);
	$f->up('delete', ids => 'user-0000003,user-0000050');
	$f->rest($c, $style, %o);
	$f->clear_log;
	my $stats = $f->sync_ok($c, 'user', "$name: a pass");
	is($f->pages_asked('user'), $pages, "$name: each page is asked for once");
	$is->("$name: it has all records");
	is("$stats->{added} $stats->{totalUpstreamRecords} " . ($stats->{complete} ? 'complete' : 'not complete'), '103 103 complete', "$name: and says so");
	my @uris = $f->uris('user');

	$stats = $f->sync_ok($c, 'user', "$name: the next pass");
	is("$stats->{unchanged} $stats->{updated} $stats->{staled}", '103 0 0', "$name: finds nothing changed");
	$f->up('change', ids => 'user-0000004,user-0000104', what => 'name');
	$f->up('delete', ids => 'user-0000051');
	$stats = $f->sync_ok($c, 'user', "$name: a pass after changes");
	is("$stats->{updated} $stats->{staled} $stats->{added}", '2 1 0', "$name: finds them");
	$is->("$name: and has all records");
	return @uris;
}

sub cursor_style { my %o = @_; return { type => 'cursor', path => '$.nextCursor', param => 'cursor', %o } }
sub offset_style { my %o = @_; return { type => 'offset', param => 'offset', %o } }

#
# Links
#
my @uris = walks('link', 'link', list => { params => { x => 'a b&c' } });
is($uris[0], '/rest/link/users?x=a%20b%26c&limit=20', 'link: the first request has the parameters, escaped');
like($uris[1], qr{^/rest/link/users\?x=a%20b%26c&limit=20&after=}, 'link: the next ones are what the upstream gave');
walks("link, $_", "link;$_") for qw(relative relative=query relative=sibling many two);
walks('link, another rel', 'link;many', list => { pagination => { type => 'link_header', rel => 'section' } });
walks('next', 'next');
walks("next, $_", "next;$_") for qw(relative relative=query relative=sibling);

#
# Cursors.  The upstream's have characters that have to be escaped, and it checks them.
#
walks('cursor', 'cursor');
@uris = walks('cursor alone', 'cursor;alone;cap=20', list => { params => { x => 1 }, pagination => cursor_style(keep_params => JSON::PP::false) });
is($uris[0], '/rest/cursor;alone;cap=20/users?x=1&pageSize=20', 'cursor alone: the first request has all parameters');
unlike($uris[1], qr/pageSize|x=1/, 'cursor alone: later ones have none but the cursor');
@uris = walks('cursor with all', 'cursor;all', list => { params => { x => 1 } });
like($uris[1], qr/\?x=1&pageSize=20&cursor=/, 'cursor with all: in the order of the parameters');
@uris = walks('cursor, an empty first one', 'cursor;first', list => { pagination => cursor_style(first => '') });
like($uris[0], qr/cursor=$/, 'cursor, an empty first one: it is sent');
walks('cursor and has_more', 'cursor;more', list => { pagination => cursor_style(has_more => '$.hasMore') });
walks('cursor, null at the end', 'cursor;null');
walks('cursor, blank at the end', 'cursor;blank');
walks('cursor, no total', 'cursor;nototal', list => { total => undef });
walks('cursor in a header', 'cursor;in=header', list => { pagination => cursor_style(param => 'X-Cursor', in => 'header') });
walks('cursor in the body', 'cursor;in=body',
	list => {
		method => 'POST', body => { query => { active => JSON::PP::true } },
		page_size => { param => 'pageSize', default => 20, in => 'body' },
		pagination => cursor_style(in => 'body') });
my ($first, $second) = ($f->requests(type => 'user'))[0, 1];
is("$first->{method} $first->{headers}{'content-type'}", 'POST application/json', 'cursor in the body: it is POSTed as JSON');
is_deeply($first->{asked}, { query => { active => JSON::PP::true }, pageSize => 20 }, 'cursor in the body: with the page size');
like($second->{asked}{cursor}, qr/~a\+b/, 'cursor in the body: and the cursor on later pages');
is_deeply($second->{asked}{query}, { active => JSON::PP::true }, 'cursor in the body: and what else there is');

#
# Positions
#
walks('offset', 'offset');
walks('offset, from 1', 'offset;base=1', list => { pagination => offset_style(base => 1) });
walks('offset, by page size', 'offset', list => { pagination => offset_style(step => 'page_size') });
walks('offset, a list alone', 'offset;array', pages => '1 2 3 4 5 6 6',
	list => { records => '$[*]', total => undef, pagination => offset_style() });
walks('offset, stop at an empty page', 'offset', pages => '1 2 3 4 5 6 6',
	list => { pagination => offset_style(stop => 'empty') });
@uris = walks('offset, the upstream gives fewer than asked for', 'offset;cap=30', pages => '1 2 3 4',
	list => { page_size => { param => 'limit', default => 90, max => 100 } });
is($uris[2], '/rest/offset;cap=30/users?limit=90&offset=60', 'offset, fewer: it goes on after those that came');
walks('page', 'page');
walks('page, from 0', 'page;base=0', list => { pagination => { type => 'page', param => 'page', base => 0, total_pages => '$.totalPages' } });
walks('page, a list alone', 'page;array', pages => '1 2 3 4 5 6 7',
	list => { records => '$[*]', pagination => { type => 'page', param => 'page' } });
walks('page, no total where one is expected', 'page;nototal', pages => '1 2 3 4 5 6 7');

#
# SCIM
#
walks('SCIM', 'scim');
walks('SCIM, a start past the end begins again', 'scim;over');
walks('SCIM, RFC 9865', 'scim;cursor', list => { pagination => cursor_style(first => '') });
walks('SCIM, RFC 9865 without a total', 'scim;cursor;nototal', list => { total => undef, pagination => cursor_style(first => '') });
is($f->sql("SELECT email FROM flohsync.connector_resource WHERE external_id = 'user-0000005' LIMIT 1"), 'user5@corp.example', 'SCIM: the primary e-mail, though it is the second one');

#
# One page, and paths that are no plain members
#
walks('a page of all', 'link', pages => '1', list => { page_size => { param => 'limit', default => 1000, max => 1000 }, pagination => undef });
walks('no page size asked for', 'link', pages => '1 2', list => { page_size => undef });
walks('records by a filter', 'next', list => { records => '$.value[*] ? (@.status == "ACTIVE")' });
walks('strict paths', 'next', list => { records => 'strict $.value[*]' });
walks('member paths in quotes', 'next', map => { externalId => '$."externalId"', displayName => ['$.nothing', '$."displayName"'], email => 'lax $.email', attributes => '$."attributes"' });

# Two types of one connector, at the same time
$f->fresh(user => 105, group => 30);
$f->rest('two', 'link', types => [qw(user group)]);
my @h = map { $f->start_sql("CALL flohsync.sync('two', '$_')") } qw(user group);
ok($f->finish($_)->{ok}, 'types of one connector run side by side') for @h;
$f->matches_upstream('two', $_) for qw(user group);

$f->invariants;
$f->no_crash;
done_testing();
