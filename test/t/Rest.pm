# Rest.pm: what the tests of connector kind "rest" have in common.
#
# The upstream lists the same records in several styles (test/upstream, /rest);
# a definition for each is made here, and a test changes parts of it.
package Rest;

use strict;
use warnings;

use Flohsync;
use HTTP::Tiny;
use Test::More;
use PostgreSQL::Test::Utils ();

our @ISA = ('Flohsync');

my $key_file;

# Flohsync->new with a key for secrets, and a page of 20 records
sub new
{
	my ($class, %opt) = @_;
	$key_file //= PostgreSQL::Test::Utils::tempdir() . '/key';
	open(my $key, '>', $key_file) or die "$key_file: $!";
	print $key join('', map { sprintf '%02x', int rand 256 } 1 .. 32), "\n";
	close $key;
	chmod 0600, $key_file;
	$opt{conf} = "flohsync.encryption_key_file = '$key_file'\nflohsync.page_size = 20\n" . ($opt{conf} // '');
	return $class->SUPER::new(%opt);
}

# Another upstream: for links that lead elsewhere
sub another
{
	my ($self, %opt) = @_;
	my $other = bless {%$self}, ref $self;
	$other->start_upstream(%opt);
	return $other;
}

sub origin { return "http://127.0.0.1:$_[0]->{port}" }

#
# Definitions
#

my %flat = (externalId => '$.externalId', displayName => '$.displayName', email => '$.email', attributes => '$.attributes');
my %scim = (
	externalId => '$.id', displayName => '$.displayName',
	email => '$.emails[*] ? (@.primary == true).value', attributes => '$');

my %styles = (
	link => { records => '$[*]', size => 'limit', pagination => { type => 'link_header' } },
	next => {
		records => '$.value[*]', size => '$top', total => '$."@odata.count"',
		pagination => { type => 'next_url', path => '$."@odata.nextLink"' } },
	cursor => {
		records => '$.resources[*]', size => 'pageSize', total => '$.totalEstimate',
		pagination => { type => 'cursor', path => '$.nextCursor', param => 'cursor' } },
	offset => {
		records => '$.items[*]', size => 'limit', total => '$.total',
		pagination => { type => 'offset', param => 'offset' } },
	page => {
		records => '$.data[*]', size => 'per_page',
		pagination => { type => 'page', param => 'page', total_pages => '$.totalPages' } },
	scim => {
		records => '$.Resources[*]', size => 'count', total => '$.totalResults',
		pagination => { type => 'offset', param => 'startIndex', base => 1 } },
	delta => {
		records => '$.value[*]', size => '$top',
		pagination => { type => 'next_url', path => '$."@odata.nextLink"' } },);

# The list part of a definition; what is undef in %change is left out.
sub list_of
{
	my ($style, $type, %change) = @_;
	my ($name) = $style =~ /^(\w+)/;
	my %s = %{ $styles{$name} };
	my %list = (
		path => '/' . ($name eq 'scim' ? ucfirst($type) : $type) . 's',
		records => $s{records}, total => $s{total}, pagination => $s{pagination},
		page_size => { param => $s{size}, default => 20, max => 100 }, %change);
	delete @list{ grep { !defined $list{$_} } keys %list };
	return \%list;
}

# definition(STYLE, list => {...}, map => {...}, resource => {...}, types => [...], anything for the top level)
sub definition
{
	my ($self, $style, %o) = @_;
	my $list = delete $o{list} // {};
	my $map = delete $o{map} // ($style =~ /^scim/ ? \%scim : \%flat);
	my $resource = delete $o{resource} // {};
	my $types = delete $o{types} // ['user'];
	return {
		version => 1,
		base_url => "http://{{config.host}}/rest/$style",
		resources => { map { $_ => { list => list_of($style, $_, %$list), map => $map, %$resource } } @$types },
		%o };
}

my @own = qw(list map resource types auth headers http limits retry resources concurrency);

# A connector of kind rest, configured: rest(NAME, STYLE, parts of the definition, config => {}, secrets => {}, settings)
sub rest
{
	my ($self, $name, $style, %o) = @_;
	my %config = (host => "127.0.0.1:$self->{port}", %{ delete $o{config} // {} });
	my %secrets = %{ delete $o{secrets} // {} };
	my $definition = delete $o{definition};
	my %parts = map { exists $o{$_} ? ($_ => delete $o{$_}) : () } @own;
	my $types = $parts{types} // ['user'];

	$definition //= $self->definition($style, %parts);
	$self->sql('SELECT flohsync.create_connector(' . literal($name) . ", 'rest', "
		  . Flohsync::jsonb(\%config) . ', ' . Flohsync::jsonb($definition) . ')');
	$self->secret($name, $_, $secrets{$_}) for sort keys %secrets;
	$self->configure($name, $_, %o) for @$types;
	return;
}

sub secret
{
	my ($self, $connector, $name, $value) = @_;
	$self->sql('SELECT flohsync.set_secret(' . join(', ', map { literal($_) } $connector, $name, $value) . ')');
	return;
}

#
# Oracles
#

# What a SCIM resource becomes
sub of_scim
{
	my $r = shift;
	my ($email) = map { $_->{value} } grep { $_->{primary} } @{ $r->{emails} // [] };
	return { externalId => $r->{id}, displayName => $r->{displayName}, email => $email, attributes => $r };
}

# The table must be what these records (id => record) say, hashed here, and nothing else active.
sub holds
{
	my ($self, $connector, $type, $records, $name) = @_;
	my %have = map { split /\|/ } split /\n/,
	  $self->sql('SELECT external_id, sync_hash ' . $self->scope($connector, $type) . ' AND stale_since IS NULL');
	my @wrong = grep { !defined $have{$_} || $have{$_} ne record_hash($records->{$_}) } sort keys %$records;
	my @extra = grep { !$records->{$_} } sort keys %have;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(%$records && !@wrong && !@extra, $name)
	  || diag(scalar(@wrong) . " missing or different: @wrong[0 .. ($#wrong < 4 ? $#wrong : 4)]; "
		  . scalar(@extra) . " active that should not be: @extra[0 .. ($#extra < 4 ? $#extra : 4)]");
}

# The upstream's records of a type, by id: as commands give them, or as SCIM resources, made into records
sub dump_of
{
	my ($self, $type, $shape) = @_;
	my @items = map { decode_json_text($_) } split /\n/, $self->up('dump', type => $type, $shape ? (shape => $shape) : ());
	@items = map { of_scim($_) } @items if ($shape // '') eq 'scim';
	return { map { $_->{externalId} => $_ } @items };
}

sub matches_scim
{
	my ($self, $connector, $type, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $self->holds($connector, $type, $self->dump_of($type, 'scim'), $name);
}

# A run that must fail with this class and message, and leave all as it was.
sub ends_with
{
	my ($self, $connector, $type, $class, $like, $name) = @_;
	my $before = $self->counts($connector, $type);
	my ($ok, $r) = $self->sync($connector, $type);
	my $run = $self->last_run($connector, $type);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(!$ok && $r->{message} =~ $like, "$name: the run fails")
	  or diag("expected an error like $like, got: " . ($ok ? json_text($r) : $r->{text}));
	is($run->{error_class}, $class, "$name: its class is $class");
	is($run->{status}, 'error', "$name: its status is error");
	is((split ' ', $self->counts($connector, $type))[1], (split ' ', $before)[1], "$name: nothing became stale");
	return $run;
}

# The paths and queries that were asked for
sub uris { my ($self, $type) = @_; return map { $_->{uri} } $self->requests($type ? (type => $type) : ()) }

1;
