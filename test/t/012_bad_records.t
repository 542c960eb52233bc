# Records that cannot be stored: set aside one by one, and the pass goes on.
use strict;
use warnings;

use Flohsync;
use Test::More;

my $f = Flohsync->new(conf => "flohsync.page_size = 50\nflohsync.log_runs = off\n");
$f->fresh(user => 150, group => 5);
$f->connector('c');
$f->sync_ok('c', 'user', 'to begin with');

#
# Records that are set aside.  The third record of page 2 is user-0000053.
#
sub set_aside
{
	my ($name, $fault, %opt) = @_;
	$f->prepare([ @$fault, record => 3 ]);
	my ($ok, $r) = $f->sync('c', 'user');
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(0, "$name: the pass goes on") || diag($r->{text}) unless $ok;
	is($r->{errored}, 1, "$name: one record is set aside");
	my $run = $f->last_run('c', 'user');
	my @errors = $f->errors_of($run->{id});
	my $e = $errors[0] // {};
	ok(@errors == 1 && $e->{page} == 2 && $e->{error_class} && $e->{message} && defined $e->{payload} && length($e->{payload}) <= 4096, "$name: sync_error says what and why")
	  or diag(json_text(\@errors));
	is($e->{external_id}, $opt{id}, "$name: and which") if exists $opt{id};
	is($f->changed, 3, "$name: the good records are stored");
	is($f->counts('c', 'user'), '150 0', "$name: nothing is stale, nothing new");
	return;
}
my $known = 'user-0000053';
for my $kind (qw(bad_utf8 nul_escape lone_surrogate))
{
	set_aside("$kind in $_", [ $kind, field => $_ ], $_ eq 'externalId' ? () : (id => $known)) for qw(displayName email externalId note);
}
set_aside("id: $_", [ 'id', value => $_ ]) for qw(missing empty null float bool object array);
set_aside('an id of 256 characters', [ 'long', field => 'externalId', chars => 256 ]);
set_aside('an e-mail address of 256 characters', [ 'long', field => 'email', chars => 256, wide => 1 ], id => $known);
set_aside("$_->[0]: $_->[1]", [ 'field', field => $_->[0], json => $_->[1] ], id => $known)
  for [ displayName => '5' ], [ displayName => '{}' ], [ displayName => '["x"]' ], [ displayName => 'true' ], [ email => '{}' ], [ email => '5' ], [ email => '[]' ],
  [ attributes => '"x"' ], [ attributes => '[]' ], [ attributes => '5' ];
set_aside('nesting of 100 arrays', [ 'deep', depth => 100 ], id => $known);
set_aside('nesting of 10000 objects', [ 'deep', depth => 10000, object => 1 ], id => $known);
set_aside("the number $_", [ 'huge_number', text => $_ ], id => $known) for '1e999', '-1E+131072', '1e-99999', '0.1e1000000000000000000000';
set_aside("$_ for a record", [ 'record', json => $_ ]) for '5', 'null', '"x"', '[]', '{}';

sub not_set_aside
{
	my ($name, $fault, %opt) = @_;
	$f->prepare([ @$fault, record => 3 ]);
	my $stats = $f->sync_ok('c', 'user', $name);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($stats->{errored}, 0, "$name: it is a record") or diag(json_text([ $f->errors_of($f->last_run('c', 'user')->{id}) ]));
	is($f->sql('SELECT ' . $opt{sql} . ' ' . $f->scope('c', 'user') . " AND external_id = '" . ($opt{id} // $known) . "'"), 't', "$name: it is stored") if $opt{sql};
	return;
}
not_set_aside('a name of 300 characters of 3 bytes', [ 'long', field => 'displayName', chars => 300, wide => 1 ], sql => "length(display_name) = 255 AND right(display_name, 1) = '\xe2\x82\xac'");
not_set_aside('an e-mail address of 255 characters', [ 'long', field => 'email', chars => 255, wide => 1 ], sql => 'length(email) = 255');
not_set_aside('nesting of 50', [ 'deep', depth => 50 ], sql => "attributes ? 'deep'");
not_set_aside('the number 1e300', [ 'huge_number', text => '1e300' ], sql => "(attributes->'number')::numeric = 1e300");
not_set_aside('a key twice in attributes', [ 'more', json => '"twice":1,"twice":2' ], sql => "attributes->>'twice' = '2'");
not_set_aside('20,000 keys', [ 'many_keys', count => 20000 ]);
$f->recovers('after odd records');

# An integer as id is the text of its digits.
for ([ number => '53' ], [ bigint => '9007199254740900053' ])
{
	$f->prepare([ 'id', value => $_->[0], record => 3 ]);
	my $stats = $f->sync_ok('c', 'user', "id: $_->[0]");
	is("$stats->{errored} $stats->{added} $stats->{staled} " . $f->sql("SELECT count(*) " . $f->scope('c', 'user') . " AND external_id = '$_->[1]' AND stale_since IS NULL"), '0 1 1 1', 'is taken as text');
	$f->sql("DELETE FROM flohsync.resource_record WHERE external_id = '$_->[1]'");
	$f->recovers("after id: $_->[0]");
}
$f->prepare([ 'dup_key', record => 3 ]);
$f->sync('c', 'user');
is($f->sql("SELECT count(*) " . $f->scope('c', 'user') . " AND external_id = 'shadowed'"), 0, 'a second externalId does not smuggle in the first');
$f->recovers('after a record with two ids');

# A raw control character is no JSON: the record or the page is refused, nothing else.
$f->prepare([ 'control_char', record => 3 ]);
$f->sync('c', 'user');
is($f->counts('c', 'user'), '150 0', 'a control character in a string: nothing is stale');
$f->recovers('after a control character');

# Everything in one page
$f->prepare([ 'bad_utf8', record => 1 ], [ 'nul_escape', record => 2 ], [ 'lone_surrogate', record => 3 ], [ 'id', value => 'missing', record => 4 ], [ 'id', value => 'empty', record => 5 ],
	[ 'id', value => 'null', record => 6 ], [ 'id', value => 'object', record => 7 ], [ 'long', field => 'externalId', chars => 300, record => 8 ], [ 'long', field => 'email', record => 9 ],
	[ 'field', field => 'email', json => '{}', record => 10 ], [ 'field', field => 'attributes', json => '"x"', record => 11 ], [ 'deep', record => 12 ], [ 'huge_number', text => '1e999', record => 13 ],
	[ 'record', json => '5', record => 14 ], [ 'dup_in_page', record => 20, same => 1 ]);
$f->up('change', type => 'user', ids => 'user-0000070', what => 'name');
my $stats = $f->sync_ok('c', 'user', 'all kinds of bad records in one page');
is("$stats->{errored} $stats->{duplicates} $stats->{totalUpstreamRecords} $stats->{staled}", '14 1 151 0', 'each is set aside by itself');
is(scalar(my @errors = $f->errors_of($f->last_run('c', 'user')->{id})), 14, 'and has its row in sync_error');
cmp_ok(scalar(keys %{ { map { $_->{error_class} => 1 } @errors } }), '>=', 5, 'the classes tell them apart') or diag(join ' ', map { $_->{error_class} } @errors);
is($f->sql("SELECT count(*) " . $f->scope('c', 'user') . " AND external_id = 'user-0000070' AND display_name ~ ' v1\$'"), 1, 'the good ones between them are stored');
$f->recovers('after all kinds of bad records');

# A huge record
set_aside('a record of 9 MB', ['huge_record'], id => $known);
$f->recovers('after a huge record');

$f->invariants;
$f->no_crash;
done_testing();
