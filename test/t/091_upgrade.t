# Steps to a new version: each version in test/data/released is installed and
# filled, and brought to the next one, step by step, until it is the current one.
# Every object must then be as in a new installation, and every row, and all that
# others have granted and made, as it was.
#
# The current version is brought to one that is made here, by a step that has of
# everything something: that proves the comparison, as faults of the step, of which
# there are many below, are found.
#
# Steps are run by another superuser than who made the extension, with default
# privileges that must reach nothing.
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

# As another superuser than who installed it, whose default privileges take from the
# owner what it has, and give everything to everybody.
my $as_admin = 'SET SESSION AUTHORIZATION admin; ' . join ' ', map {
	my $what = $_;
	"alter default privileges revoke all on $what from admin, public; alter default privileges grant all on $what to upgrade_other;",
	  $what eq 'schemas' ? () : map { "alter default privileges in schema $_ grant all on $what to public, upgrade_other;" } qw(flohsync _flohsync)
} qw(tables sequences routines types schemas);
sub update { my ($db, $to) = @_; return $f->try_sql("$as_admin alter extension flohsync update to '$to'", $db) }

# One step, in a database of version $of: what is not as it should be.
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

$f->sql('create role upgrade_other');
my $filled = filled($version);
my ($rows) = rows($f, $filled);
is(join(' ', grep { !@{ $rows->{$_} } } sort keys %$rows), '', 'there is something in every table');
is($f->sql("select count(*) from flohsync.connector_resource where sync_hash <> flohsync.resource_hash(external_id, display_name, email, attributes)", $filled), 0, 'and it is right');
is(join("\n", differences(expected_of(plain($version), {}, {}), definitions($f, 'fresh'))), '', 'two installations of a version are the same');
$f->sql('create database of_admin', 'postgres');
my $r = $f->try_sql("$as_admin create extension flohsync" =~ s/alter default privileges in schema [^;]*;//gr, 'of_admin');
ok($r->{ok}, 'also one by a superuser with default privileges') or diag($r->{text});
is(join("\n", differences(plain($version), definitions($f, 'of_admin'))), '', 'is the same');
cmp_ok(scalar(keys %{ plain($version) }), '>', 2000, 'in all that is looked at');
my $of_others = () = differences(plain($version), definitions($f, $filled));
cmp_ok($of_others, '>', 50, 'others have granted and made a lot');

#
# From each released version to the current one
#
for my $first (0 .. $#versions - 1)
{
	my $db = filled($versions[$first]);
	for ($first + 1 .. $#versions)
	{
		my ($of, $to) = @versions[ $_ - 1, $_ ];
		is(join("\n", differs($db, $of, $to, $changed_by{"$of--$to"})), '', "$versions[$first]: the step from $of to $to");
	}
	drop($db);
}

#
# From the current version to one that is made here: what its topic files have is
# written down twice, as whoever changes them does, there and in the step.
#
my $next = "$version.1";
my $made = "$dir/made";
make_path($made);
run('cp', '-r', 'sql', 'script', $made);
my $new = <<'SQL';
CREATE TYPE _flohsync.urgency AS ENUM ('low', 'high');
COMMENT ON TYPE _flohsync.urgency IS 'How urgent a workflow is';

CREATE TABLE _flohsync.workflow_note (
  id          bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  workflow_id uuid NOT NULL REFERENCES flohsync.workflow_definition ON DELETE CASCADE,
  note        text COLLATE "C" NOT NULL DEFAULT '' CHECK (length(note) < 100),
  urgency     _flohsync.urgency
);
COMMENT ON TABLE _flohsync.workflow_note IS 'Notes on workflows';
COMMENT ON COLUMN _flohsync.workflow_note.note IS 'What is noted';
CREATE INDEX workflow_note_workflow ON _flohsync.workflow_note (workflow_id);
COMMENT ON INDEX _flohsync.workflow_note_workflow IS 'For the foreign key';
SELECT pg_catalog.pg_extension_config_dump('_flohsync.workflow_note', '');
SELECT pg_catalog.pg_extension_config_dump('_flohsync.workflow_note_id_seq', '');

CREATE FUNCTION _flohsync.workflow_noted() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$ BEGIN RETURN NULL; END $$;
COMMENT ON FUNCTION _flohsync.workflow_noted() IS 'Trigger of workflow_note';
CREATE TRIGGER workflow_noted AFTER INSERT ON _flohsync.workflow_note FOR EACH ROW EXECUTE FUNCTION _flohsync.workflow_noted();

CREATE FUNCTION flohsync.workflow_notes(workflow text) RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT n.note FROM _flohsync.workflow_note n JOIN flohsync.workflow_definition w ON w.id = n.workflow_id WHERE w.name = workflow;
END;
COMMENT ON FUNCTION flohsync.workflow_notes(text) IS 'What is noted on a workflow';
SELECT _flohsync.allow('reader', 'flohsync.workflow_notes(text)');

CREATE EVENT TRIGGER flohsync_noted ON ddl_command_end WHEN TAG IN ('CREATE RULE') EXECUTE FUNCTION _flohsync.seam_changed();
SQL

# Changes topic files of the version that is made
sub change
{
	my ($file, $old, $new) = @_;
	my $text = slurp_file("$made/sql/$file");
	$text =~ s/$old/$new->()/e or die "$file has no $old any more: the step made here needs something else";
	write_file("$made/sql/$file", $text);
	return $text;
}
my $comment = "COMMENT ON COLUMN flohsync.workflow_definition.priority IS 'Which comes first';\n";
write_file("$made/sql/87_made.sql", $new);
change('20_config.sql', qr/(?<=CREATE TABLE flohsync\.workflow_definition \()([^;]*)\n\);\n/, sub { "$1,\n  priority integer NOT NULL DEFAULT 5 CHECK (priority > 0)\n);\n$comment" });
my ($view) = change('80_status.sql', qr/(?<=CREATE VIEW flohsync\.workers AS\nSELECT )(p\.pid[^;]*;\n)/,
	sub { "p.kind = 'flohsync launcher' AS is_launcher, $1COMMENT ON COLUMN flohsync.workers.is_launcher IS 'Whether it is the launcher';\n" }) =~ /^(CREATE VIEW flohsync\.workers.*?)^SELECT _flohsync\.allow/ms;
my ($function) = change('88_access.sql', qr/there is no such role/, sub { 'there is none' }) =~ /^CREATE (FUNCTION _flohsync\.check_access_role.*?^\$\$;\n)/ms;
my ($worker) = change('88_access.sql', qr/flohsync\.entitlement_event TO %s/, sub { 'flohsync.entitlement_event, _flohsync.workflow_note TO %s' }) =~ /^CREATE (FUNCTION _flohsync\.grant_worker.*?^\$\$;\n)/ms;
$script{$next} = include(sort glob "$made/sql/[0-9][0-9]_*.sql");
install($next, $script{$next});
my $step = <<SQL;
--:include upgrade/begin.sql

ALTER TABLE flohsync.workflow_definition ADD COLUMN priority integer NOT NULL DEFAULT 5 CHECK (priority > 0);
$comment
$new
DROP VIEW flohsync.workers;
$view
CREATE OR REPLACE $function
CREATE OR REPLACE $worker
--:include upgrade/end.sql
SQL

# What is not as it should be after this step, from a filled database
sub made
{
	my ($text) = @_;
	write_file("$made/step.sql", $text);
	install("$version--$next", include("$made/step.sql"));
	my $db = copy($filled, 'stepped');
	my @differ = differs($db, $version, $next);
	drop($db);
	return @differ;
}
is(join("\n", made($step)), '', "a step from $version to $next, with something of everything");
cmp_ok(scalar(grep { !plain($next)->{$_} } keys %{ plain($version) }), '>', 5, 'it changes what was there, too');
is($f->try_sql("SET ROLE upgrade_other; alter extension flohsync update to '$next'", $filled)->{state}, '42501', 'is not for everybody');

# Faults of a step: each is found, and called by its name.
my @faults = (
	[ 'a forgotten declaration', sub { s/^SELECT _flohsync\.allow.*\n//m }, qr/^missing: declared: \("?flohsync\.workflow_notes\(text\)/m ],
	[ 'a forgotten grant to workers', sub { s/, _flohsync\.workflow_note TO %s/ TO %s/ }, qr/^missing: privilege on _flohsync\.workflow_note: INSERT to flohsync_worker/m ],
	[ 'a forgotten function', sub { s/^CREATE OR REPLACE FUNCTION _flohsync\.check_access_role.*?^\$\$;\n//ms }, qr/^missing: routine _flohsync\.check_access_role\(regrole\): .*there is none/m ],
	[ 'no rights at all', sub { s/^--:include upgrade\/end\.sql\n//m }, qr/^not expected: privilege on flohsync\.workflow_notes\(text\): EXECUTE to PUBLIC/m ],
	[ 'a wrong owner of a function', sub { $_ .= "ALTER FUNCTION flohsync.workflow_notes(text) OWNER TO upgrade_other;\n" }, qr/^not expected: owner of flohsync\.workflow_notes\(text\): upgrade_other/m ],
	[ 'a wrong owner of a table', sub { $_ .= "ALTER TABLE _flohsync.workflow_note OWNER TO upgrade_other;\n" }, qr/^not expected: owner of _flohsync\.workflow_note: upgrade_other/m ],
	[ 'a wrong owner of a type', sub { $_ .= "ALTER TYPE _flohsync.urgency OWNER TO CURRENT_USER;\n" }, qr/^not expected: owner of type _flohsync\.urgency: admin/m ],
	[ 'a forgotten comment on a column', sub { s/^COMMENT ON COLUMN flohsync\.workflow_definition.*\n//m }, qr/^missing: comment on column flohsync\.workflow_definition\.priority: /m ],
	[ 'on a function', sub { s/^COMMENT ON FUNCTION flohsync\.workflow_notes.*\n//m }, qr/^missing: comment on flohsync\.workflow_notes\(text\): /m ],
	[ 'on an index', sub { s/^COMMENT ON INDEX.*\n//m }, qr/^missing: comment on _flohsync\.workflow_note_workflow: /m ],
	[ 'on a view that was made anew', sub { s/^COMMENT ON VIEW flohsync\.workers.*\n//m }, qr/^missing: comment on flohsync\.workers: /m ],
	[ 'a missing default', sub { s/integer NOT NULL DEFAULT 5/integer DEFAULT 5/; s/DEFAULT 5/DEFAULT 5 NOT NULL/; s/(COMMENT ON COLUMN flohsync\.workflow_definition)/ALTER TABLE flohsync.workflow_definition ALTER COLUMN priority DROP DEFAULT;\n$1/ },
		qr/^not expected: column flohsync\.workflow_definition\.priority: .*not null t, default ,/m ],
	[ 'a missing NOT NULL', sub { s/integer NOT NULL DEFAULT 5/integer DEFAULT 5/ }, qr/^not expected: column flohsync\.workflow_definition\.priority: .*not null f/m ],
	[ 'a missing check', sub { s/ CHECK \(priority > 0\)// }, qr/^missing: constraint workflow_definition_priority_check of flohsync\.workflow_definition/m ],
	[ 'a missing collation', sub { s/ COLLATE "C" NOT NULL DEFAULT ''/ NOT NULL DEFAULT ''/ }, qr/^missing: column _flohsync\.workflow_note\.note: .*collation "C"/m ],
	[ 'a foreign key that does something else', sub { s/ ON DELETE CASCADE// }, qr/^missing: constraint workflow_note_workflow_id_fkey of .*ON DELETE CASCADE/m ],
	[ 'a forgotten index', sub { s/^(?:CREATE|COMMENT ON) INDEX.*\n//mg }, qr/^missing: index _flohsync\.workflow_note_workflow: /m ],
	[ 'a forgotten trigger', sub { s/^CREATE TRIGGER.*\n//m }, qr/^missing: trigger CREATE TRIGGER workflow_noted/m ],
	[ 'a forgotten event trigger', sub { s/^CREATE EVENT TRIGGER.*\n//m }, qr/^missing: event trigger flohsync_noted: /m ],
	[ 'a label of a type', sub { s/\('low', 'high'\)/('high', 'low')/ }, qr/^missing: type _flohsync\.urgency: .*"low", "high"/m ],
	[ 'a table that is not dumped', sub { s/^SELECT pg_catalog\.pg_extension_config_dump\('_flohsync\.workflow_note', ''\);\n//m }, qr/^missing: dumped: _flohsync\.workflow_note where/m ],
	[ 'a sequence that is not dumped', sub { s/^SELECT pg_catalog\.pg_extension_config_dump\('_flohsync\.workflow_note_id_seq', ''\);\n//m }, qr/^missing: dumped: _flohsync\.workflow_note_id_seq/m ],
	[ 'something that is left over', sub { s/^DROP VIEW/CREATE TABLE _flohsync.left_over ();\nDROP VIEW/m }, qr/^not expected: member: table _flohsync\.left_over/m ],
	[ 'an object that is no member', sub { $_ .= "ALTER EXTENSION flohsync DROP FUNCTION flohsync.workflow_notes(text);\n" }, qr/^missing: member: function flohsync\.workflow_notes/m ],
	[ 'a grant of others that is taken back', sub { $_ .= "REVOKE ALL ON flohsync.sync_run FROM upgrade_other;\n" }, qr/^missing: privilege on flohsync\.sync_run: SELECT to upgrade_other by \(owner\) with grant option/m ],
	[ 'one that goes with a view that is made anew', sub { s/^(--:include upgrade\/end\.sql)/SELECT set_config('flohsync_step.before', (SELECT jsonb_object_agg(k, v - 'granted') FROM jsonb_each(current_setting('flohsync_step.before')::jsonb) e(k, v))::text, true);\n$1/m },
		qr/^missing: privilege on flohsync\.workers: SELECT to upgrade_reader/m ],
	[ 'a grant of others that dumps would leave out', sub { $_ .= "GRANT SELECT ON flohsync.sync_run TO flohsync_worker;\n" }, qr/^not expected: initial privilege on flohsync\.sync_run: SELECT to upgrade_other/m ],
	[ 'a view of others that is set back', sub { s/^DROP VIEW/CREATE OR REPLACE VIEW flohsync.v_user WITH (security_barrier) AS SELECT u.id, u.email::text, u.display_name::text, u.upstream_issuer::text, u.upstream_id::text, u.sub::text, u.confirmed, u.active FROM flohsync.floh_user u;\nDROP VIEW/m },
		qr/^missing: view flohsync\.v_user: .*elsewhere/m ],
	[ 'an index of others that is dropped', sub { s/^DROP VIEW/DROP INDEX flohsync.names_of_others;\nDROP VIEW/m }, qr/^missing: index flohsync\.names_of_others/m ],
	[ 'a row that is lost', sub { s/^DROP VIEW/DELETE FROM _flohsync.connector_secret;\nDROP VIEW/m }, qr/^rows of _flohsync\.connector_secret: /m ],
	[ 'a row that is changed', sub { s/^DROP VIEW/UPDATE flohsync.sync_run SET status = 'cancelled' WHERE status = 'held';\nDROP VIEW/m }, qr/^rows of flohsync\.sync_run: /m ],
	[ 'a sequence that is moved', sub { s/^DROP VIEW/SELECT setval('flohsync.sync_run_id_seq', 1);\nDROP VIEW/m }, qr/^rows of flohsync\.sync_run_id_seq: /m ],
	[ 'a column that is dropped', sub { s/^DROP VIEW/ALTER TABLE _flohsync.cache_state DROP COLUMN changed_at;\nDROP VIEW/m }, qr/^rows: .*column "changed_at" does not exist/m ],
);
for (@faults)
{
	my ($what, $break, $like) = @$_;
	local $_ = $step;
	$break->();
	isnt($_, $step, "$what: it is in the step") or next;
	like(join("\n", made($_)), $like, "$what: is found");
}
drop($filled);

#
# The new library with the old version in a database, as it is after new files
# were installed: workers wait for the step, and then go on.  This one is empty.
#
my $old = "$version-old";
install($old, $script{$version});
write_file("$made/step.sql", "--:include upgrade/begin.sql\n--:include upgrade/end.sql\n");
install("$old--$version", include("$made/step.sql"));
my $db = filled($old, $version);
my $twin = copy($db, 'twin');
is(join("\n", differs($twin, $old, $version)), '', 'a step without anything in it changes nothing');
$f->disconnect($twin);
# Only this database is for workers.
$f->sql("alter system set flohsync.databases = '$db'", 'postgres');
$f->sql('alter system set flohsync.enabled = on', 'postgres');
$f->node->restart;
$f->disconnect($_) for 'postgres', $db;
$f->comes_true("select flohsync.hindrance() = 'the extension there has version $old, the library $version'", 'workers wait for the step', db => $db)
  or diag($f->sql('select flohsync.hindrance()', $db));
is($f->sql("select string_agg(status, ' ' order by id) from flohsync.sync_run", $db), 'success success error cancelled held queued running', 'and do nothing');
$r = update($db, $version);
ok($r->{ok}, 'the step') or diag($r->{text});
$f->comes_true("select string_agg(status, ' ' order by id) = 'held success success' from flohsync.sync_run where id > 4", 'then they go on, with the run that waited and the one that was interrupted', db => $db)
  or diag($f->sql("select string_agg(concat_ws(': ', status, error), ', ' order by id) from flohsync.sync_run", $db));
is($f->sql('select flohsync.hindrance()', $db), '', 'nothing keeps them');
is($f->sql("select string_agg(resource_type || ' ' || n, ', ' order by 1) from (select resource_type, count(*) n from flohsync.connector_resource where connector_id = '00000000-0000-4000-8000-000000000002' group by 1) t", $db), 'group 12, user 12', 'they bring what there is');
is($f->sql('select flohsync.rotate_secrets()', $db), 1, 'the secret can be read');
ok($f->try_sql("select flohsync.reject_run(5, 'after the step')", $db)->{ok}, 'a held run can be decided about');
$f->sql("insert into public.people select 'hr', n, 'Name of ' || n, 'p' || n || '\@acme.com', jsonb_build_object('title', 'T ' || n) from generate_series(7, 11) n", $db);
like($f->sql("call flohsync.sync('hr', 'user')", $db), qr/"unchanged": 11/, 'its directory is read again, and its records are known');
is($f->try_sql('SET ROLE upgrade_reader; select count(*) from flohsync.connector_resource', $db)->{out}, 36, 'a reader reads');
$f->invariants($db);

$f->no_crash;
done_testing();
