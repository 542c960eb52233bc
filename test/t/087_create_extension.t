# CREATE EXTENSION: in many databases at once, where the roles are not there yet,
# and in a database that is not in UTF8.
use strict;
use warnings;

use Flohsync;
use Test::More;

my $f = Flohsync->new(upstream => 0);
my @databases = map { "d$_" } 1 .. 8;
$f->sql("create database $_") for @databases;
for my $round (1 .. 2)
{
	$f->sql('drop extension if exists flohsync; drop schema if exists flohsync');
	$f->sql('drop extension if exists flohsync; drop schema if exists flohsync', $_) for @databases;
	$f->disconnect($_) for 'postgres', @databases;
	$f->comes_true("select count(*) = 0 from pg_stat_activity where backend_type like 'flohsync worker%'", 'workers have gone');
	$f->sql('drop role flohsync_owner, flohsync_nobody, flohsync_worker');
	my @all = map { $f->start_sql('create extension flohsync', $_) } @databases;
	my @said = map { $f->finish($_) } @all;
	is(join("\n", map { $_->{text} } grep { !$_->{ok} } @said), '', 'in eight databases at once');
	is(join(' ', map { $f->sql('select count(*) from flohsync.connector_definition', $_) } @databases), '0 0 0 0 0 0 0 0', 'it is there in each');
	is($f->sql("select string_agg(rolname || ' ' || rolsuper, ', ' order by rolname) from pg_roles where rolname ~ 'flohsync'"), 'flohsync_nobody false, flohsync_owner false, flohsync_worker false', 'with three roles');
}

$f->sql("create database latin encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0");
my $refused = $f->try_sql('create extension flohsync', 'latin');
like("$refused->{state} $refused->{text}", qr/^0A000 .*flohsync requires a database with encoding UTF8.*The encoding of this database is LATIN1\..*ENCODING 'UTF8' TEMPLATE template0/s, 'not in a database of another encoding');
unlike($refused->{text}, qr/[^\x00-\x7f]/, 'which is said in ASCII');
is($f->sql("select count(*) from pg_namespace where nspname ~ 'flohsync'", 'latin'), 0, 'where it leaves nothing');

$f->no_crash;
done_testing();
