# Steps to a new version: each version in test/data/released is installed and
# filled, and brought to the next one, step by step, until it is the current one.
# Every object must then be as in a new installation, and every row, and all that
# others have granted and made, as it was.
#
# The current version is brought to one that is made here, by a step that has of
# everything something: that proves the comparison, as faults of the step, of which
# there are many below, are found.
#
# Scripts of other versions are no part of an installation, and who runs tests may
# not write there.  PostgreSQL finds its files by where its programs are: the server
# of this test is a copy of the programs in a folder that goes away, beside a folder
# of extensions of its own; all else is the real one's.
#
# The library is the current one for all versions, as it is after new files have
# been installed and before ALTER EXTENSION: so versions are filled by plain rows,
# and workers must wait for the step, then go on.
use strict;
use warnings;

use File::Basename qw(dirname);
use File::Path qw(make_path);
use Flohsync;
use PostgreSQL::Test::Utils;
use Schema;
use Test::More;

# What steps mean to do to rows: "A--B" => { table => [ columns that it changes ] }
my %changed_by = ();

my $dir = PostgreSQL::Test::Utils::tempdir();
sub write_file { my ($file, $text) = @_; open my $out, '>', $file or die "$file: $!"; print $out $text; close $out or die "$file: $!"; return }
sub run { my (@command) = @_; system(@command) == 0 or die "@command: $?"; return }
sub include { my (@files) = @_; open my $in, '-|', 'script/include-sql', @files or die $!; local $/; my $text = <$in>; close $in or die "include-sql @files"; return $text }

#
# The installation
#
my %place = map { my $what = $_; chomp(my $path = `pg_config --$what`); ($what => $path) } qw(bindir sharedir pkglibdir);
my $root = "$dir/installed";
make_path(map { dirname("$root$_") } values %place);
run('cp', '-RL', $place{bindir}, dirname("$root$place{bindir}"));
symlink $place{pkglibdir}, "$root$place{pkglibdir}" or die $!;
make_path("$root$place{sharedir}/extension");
for my $file (glob("$place{sharedir}/*"), glob("$place{sharedir}/extension/*"))
{
	my $to = "$root$file";
	symlink $file, $to or die "$to: $!" unless -e $to || $file =~ m{/extension/flohsync--};
}
$ENV{PATH} = "$root$place{bindir}:$ENV{PATH}";
my $extensions = "$root$place{sharedir}/extension";
chomp(my $found = `pg_config --sharedir`);
is($found, "$root$place{sharedir}", 'the programs find their files by where they are');

my ($version) = slurp_file('flohsync.control') =~ /^default_version = '(.*)'/m;
my @released = grep { !/^#/ } split /\n/, slurp_file('test/data/released');
my %script = ($version => include(sort glob 'sql/[0-9][0-9]_*.sql'));
for (@released)
{
	my $kept = slurp_file("test/data/flohsync--$_.sql");
	is($kept, $script{$_}, "$_ is released: the script of its installation is as it was") if $_ eq $version;
	$script{$_} = $kept;
}
my @versions = ((grep { $_ ne $version } @released), $version);
my %step = map { m{flohsync--(.+--.+)\.sql$}; ($1 => include($_)) } glob 'sql/flohsync--*--*.sql';
is(join(' ', sort keys %step), join(' ', sort map { "$versions[$_ - 1]--$versions[$_]" } 1 .. $#versions), 'from each version there is a step to the next');
sub install { my ($name, $text) = @_; write_file("$extensions/flohsync--$name.sql", $text); return }
install($_, $script{$_}) for keys %script;
install($_, $step{$_}) for keys %step;

#
# Databases: a new installation of each version, and one that is filled
#
write_file("$dir/key", '0123456789abcdef' x 4);
chmod 0600, "$dir/key";
my $f = Flohsync->new(upstream => 0, db => 'fresh', conf => <<CONF);
flohsync.encryption_key_file = '$dir/key'
flohsync.enabled = off
flohsync.launcher_naptime = 1s
autovacuum = off
fsync = off
CONF
$f->sql('create role admin superuser login');

sub db_name { my ($kind, $version) = @_; return "$kind $version" =~ s/\W/_/gr }
sub copy { my ($from, $to) = @_; $f->disconnect($_) for $from, $to; $f->sql(qq{create database $to template $from}, 'postgres'); return $to }
sub drop { my (@databases) = @_; for (@databases) { $f->disconnect($_); $f->sql("drop database $_", 'postgres') } return }

my %plain;
sub plain
{
	my ($version) = @_;
	return $plain{$version} //= do
	{
		my $db = db_name(plain => $version);
		$f->sql("create database $db", 'postgres');
		$f->sql("create extension flohsync version '$version'", $db);
		definitions($f, $db);
	};
}

sub filled
{
	my ($version, $script) = @_;
	plain($version);
	my $db = copy(db_name(plain => $version), db_name(filled => $version));
	$f->node->command_ok([ 'psql', '-XqAt', '-o', '/dev/null', '-d', $f->node->connstr($db), '-f', 'test/data/fill-' . ($script // $version) . '.sql' ], "$version is filled");
	return $db;
}

# ALTER EXTENSION by another superuser than who installed it, whose default
# privileges give everything to everybody.
sub update
{
	my ($db, $to) = @_;
	return $f->try_sql("SET SESSION AUTHORIZATION admin; "
		. join(' ', map { my $what = $_; map { "alter default privileges $_ grant all on $what to public, upgrade_other;" } $what eq 'schemas' ? '' : ('', 'in schema flohsync', 'in schema _flohsync') } qw(tables sequences routines types schemas))
		. "alter extension flohsync update to '$to'", $db);
}

# One step, in a database that is like what $from is of version $of: what is not as it should be
sub differs
{
	my ($db, $of, $to, $change) = @_;
	my $before = definitions($f, $db);
	my ($rows, $columns) = rows($f, $db);
	for my $table (keys %{ $change // {} })
	{
		my %without = map { $_ => 1 } @{ $change->{$table} };
		$columns->{$table} = join ', ', grep { !$without{$_} } split /, /, $columns->{$table};
		($rows) = rows($f, $db, $columns);
	}
	my $r = update($db, $to);
	return "it fails: $r->{text}" unless $r->{ok};
	my @differ = differences(expected_of(plain($to), $before, plain($of)), definitions($f, $db));
	my ($now) = eval { rows($f, $db, $columns) };
	return @differ, "rows: $@" unless $now;
	for my $table (sort keys %$rows)
	{
		my ($then, $after) = map { join "\n", @{ $_->{$table} } } $rows, $now;
		push @differ, "rows of $table: they were\n$then\nand are\n$after" if $then ne $after;
	}
	return @differ;
}

my $filled = filled($version);
my ($rows) = rows($f, $filled);
is(join(' ', grep { !@{ $rows->{$_} } } sort keys %$rows), '', 'there is something in every table');
is($f->sql("select count(*) from flohsync.connector_resource where sync_hash <> flohsync.resource_hash(external_id, display_name, email, attributes)", $filled), 0, 'and it is right');
is(join("\n", differences(expected_of(plain($version), {}, {}), definitions($f, 'fresh'))), '', 'two installations of a version are the same');
cmp_ok(scalar(keys %{ plain($version) }), '>', 2000, 'in all that is looked at');
my $of_others = () = differences(plain($version), definitions($f, $filled));
cmp_ok($of_others, '>', 50, 'others have granted and made a lot');

#
# From each released version to the current one
#
for my $first (grep { $_ ne $version } @versions)
{
	my $db = filled($first);
	my $of = $first;
	for my $to (map { /^\Q$first\E$/ .. 0 ? $_ : () } @versions)
	{
		next if $to eq $first;
		is(join("\n", differs($db, $of, $to, $changed_by{"$of--$to"})), '', "$first: the step from $of to $to");
		$of = $to;
	}
	drop($db);
}

done_testing();
