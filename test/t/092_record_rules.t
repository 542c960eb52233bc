# The rules by which a write of a record gives way are in src/record/write.h, for
# statements in C and for C itself, and in _flohsync.is_news, for functions in
# SQL.  Here they are asked the same, in every case there is.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

use Flohsync;

my $f = Flohsync->new(upstream => 0);
my $dir = PostgreSQL::Test::Utils::tempdir();

# A program that says the rules of the header, and judges by them tombstones (t), and
# records that are live (l) or stale (s).
PostgreSQL::Test::Utils::append_to_file("$dir/rules.c", <<'C');
#include "postgres.h"
#include "record/write.h"
#undef printf
#undef puts
int
main(void)
{
	long long	t[6];
	char		what;

	puts(RECORD_IS_OLDER("r", "n.observed_at", "n.event_at", "c.last_full_pass_at"));
	puts(RECORD_HAS_TOMBSTONE("x.connector_id", "x.resource_type", "x.external_id", "n.observed_at", "n.event_at"));
	while (scanf(" %c%lld %lld %lld %lld %lld %lld", &what, &t[0], &t[1], &t[2], &t[3], &t[4], &t[5]) == 7)
		puts((what == 't' ? record_tombstone_stands(t[0], t[1], t[2], t[3], t[4]) :
			  record_is_older(t[0], t[1], what == 's', t[2], t[3], t[5], t[4])) ? "t" : "f");
	return 0;
}
C
chomp(my $server = qx("$ENV{PG_CONFIG}" --includedir-server));
system($ENV{CC} // 'gcc', '-std=gnu11', '-O2', "-I$ENV{PWD}/src", "-I$server", '-o', "$dir/rules", "$dir/rules.c") == 0 or die "cannot compile";
sub rules { my ($cases) = @_; IPC::Run::run([ "$dir/rules" ], '<', \$cases, '>', \my $said) or die 'rules failed'; return split /\n/, $said }
my ($is_older, $has_tombstone) = rules('');

$f->sql("SELECT flohsync.create_connector('c', 'command', '{\"url\": \"http://localhost:9/\"}')");
$f->configure('c', $_) for qw(never early late);
$f->sql(<<'SQL');
CREATE TABLE public.moment (at timestamptz);
INSERT INTO public.moment SELECT now() + h * interval '1 hour' FROM unnest(ARRAY[-5, -4, -3, -2, 5]) h;
UPDATE flohsync.connector_sync_config SET last_full_pass_at = CASE resource_type WHEN 'early' THEN now() - interval '270 minutes' WHEN 'late' THEN now() - interval '150 minutes' END;
INSERT INTO flohsync.resource_record (connector_id, resource_type, external_id, sync_hash, observed_at, stale_since, event_at)
SELECT c.connector_id, c.resource_type, row_number() OVER (), '', o.at, s.at, e.at
  FROM flohsync.connector_sync_config c, public.moment o, (VALUES (NULL::timestamptz), (now())) s(at), (SELECT at FROM public.moment UNION ALL SELECT NULL) e;
INSERT INTO _flohsync.resource_tombstone (connector_id, resource_type, external_id, deleted_at, event_at)
SELECT c.connector_id, c.resource_type, row_number() OVER (), o.at, e.at
  FROM flohsync.connector_sync_config c, public.moment o, (SELECT at FROM public.moment UNION ALL SELECT NULL) e WHERE c.resource_type = 'never';
CREATE VIEW public.news AS SELECT o.at AS observed_at, e.at AS event_at FROM public.moment o, (SELECT at FROM public.moment UNION ALL SELECT NULL) e WHERE o.at < now();
SQL

# What is newer

my $judged = "FROM flohsync.resource_record r JOIN flohsync.connector_sync_config c USING (connector_id, resource_type) CROSS JOIN public.news n";
is($f->sql("SELECT count(*) $judged"), 3 * 5 * 2 * 6 * 4 * 6, 'all cases of a record and a piece of news');
is($f->sql("SELECT count(*) $judged WHERE ($is_older) IS DISTINCT FROM _flohsync.is_news(r, n.observed_at, n.event_at)"), 0, 'C and SQL judge them alike');
my $news = sub {
	my ($observed, $event, $stale, $confirmed, $new_observed, $new_event) = @_;
	my $at = sub { defined $_[0] ? "now() + interval '$_[0] hours'" : 'NULL::timestamptz' };
	return $f->sql("SELECT bool_and(v) FROM (SELECT ($is_older) FROM (SELECT " . $at->($observed) . ' AS observed_at, ' . $at->($event) . ' AS event_at, ' . $at->($stale) . ' AS stale_since) r, (SELECT '
		  . $at->($confirmed) . ' AS last_full_pass_at) c, (SELECT ' . $at->($new_observed) . ' AS observed_at, ' . $at->($new_event) . ' AS event_at) n) x(v)');
};
is($news->(-3, undef, undef, undef, -2, undef), 't', 'what was observed later is news');
is($news->(-3, undef, undef, undef, -3, undef), 't', 'so is what was observed at the same time');
is($news->(-2, undef, undef, undef, -3, undef), 'f', 'what was observed before is none');
is($news->(-4, undef, undef, -2, -3, undef), 'f', 'nor before the last complete full pass');
is($news->(-4, undef, -3.5, -2, -3, undef), 't', 'which did not confirm a stale record');
is($news->(5, undef, undef, undef, -3, undef), 't', 'a stored time in the future keeps nothing out');
is($news->(-4, -2, undef, undef, -1, -3), 'f', 'an older event is none, whenever it came');
is($news->(-4, -2, undef, undef, -1, -2), 't', 'one of the same time is');
is($news->(-4, -2, undef, undef, -1, undef), 't', 'as is what came by no event');

my $us = sub { "(extract(epoch FROM $_[0] - timestamptz '2000-01-01 00:00+00') * 1000000)::bigint" };
my $news_order = 'ORDER BY r.id, n.observed_at, n.event_at';
my @news = split /\n/, $f->sql("SELECT CASE WHEN r.stale_since IS NULL THEN 'l' ELSE 's' END || concat_ws(' ', " . join(', ', $us->('r.observed_at'), 'coalesce(' . $us->('r.event_at') . ", '-9223372036854775808')",
		$us->('n.observed_at'), 'coalesce(' . $us->('n.event_at') . ', 0)', $us->('clock_timestamp()'), 'coalesce(' . $us->('c.last_full_pass_at') . ', 0)') . ") $judged $news_order");
my (undef, undef, @older) = rules(join "\n", @news);
is_deeply(\@older, [ split /\n/, $f->sql("SELECT ($is_older) $judged $news_order") ], 'C itself judges them as its statements do');

# What a tombstone stands against

$judged = 'FROM _flohsync.resource_tombstone x CROSS JOIN public.news n';
my $order = 'ORDER BY x.external_id, n.observed_at, n.event_at';
my @cases = split /\n/, $f->sql('SELECT \'t\' || concat_ws(\' \', ' . join(', ', $us->('x.deleted_at'), 'coalesce(' . $us->('x.event_at') . ", '-9223372036854775808')", $us->('n.observed_at'),
		'coalesce(' . $us->('n.event_at') . ', 0)', $us->('clock_timestamp()')) . ", 0) $judged $order");
my @in_sql = split /\n/, $f->sql("SELECT coalesce(($has_tombstone), false) $judged $order");
my (undef, undef, @in_c) = rules(join "\n", @cases);
is(scalar(@in_sql), 5 * 6 * 4 * 6, 'all cases of a tombstone and a piece of news');
is_deeply(\@in_c, \@in_sql, 'C and statements judge them alike');
my %stands;
$stands{$_}++ for @in_sql;
cmp_ok($stands{$_}, '>', 100, "many are $_") for qw(t f);
my $stands = sub { my ($deleted, $event, $observed, $new_event) = @_; return (rules('t' . join ' ', $deleted, $event // '-9223372036854775808', $observed, $new_event // 0, 100, 0))[2] };
is($stands->(50, undef, 40, undef), 't', 'a deletion stands against what was observed before');
is($stands->(50, undef, 50, undef), 'f', 'not at the same time');
is($stands->(150, undef, 40, undef), 'f', 'one in the future against nothing');
is($stands->(50, 30, 60, 20), 't', 'one by an event against an older event that came later');
is($stands->(50, 30, 60, 30), 'f', 'not of the same time');
is($stands->(50, 30, 60, undef), 'f', 'nor against what came by no event');
is($stands->(50, undef, 60, 20), 'f', 'nor does one without an event');

$f->no_crash;
done_testing();
