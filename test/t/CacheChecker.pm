# CacheChecker.pm: readers and writers, each with a history, and an offline check
# of it.
#
# The truth is a table of keys and versions.  A writer commits a new version of a
# key together with its invalidation and notes when the commit was answered; a
# reader notes when he asks, and the version that he gets.  A read is stale if
# it was asked after a commit was answered and got an older version of the key.
# All run on one machine and one clock.
package CacheChecker;

use strict;
use warnings;

use IO::Select;
use IPC::Open3 ();
use Symbol ();
use Time::HiRes qw(time sleep);
use Test::More;

# run($f, $redis, id => connector id, operations => n, keys => 20, readers => 4, writers => 2, setting => "SET ...", faults => [ sub, ... ])
sub run
{
	my ($f, %opt) = @_;
	my ($readers, $writers, $keys) = map { $opt{$_} } qw(readers writers keys);
	my $each = int($opt{operations} / $readers);
	my @sessions;

	# One statement is one transaction: psql sends them one by one, the clock is the server's.
	# A reader asks in rounds, in a procedure that commits after each read.
	push @sessions, start($f, "$opt{setting} CALL public.read_all($_, $each, $keys);") for 1 .. $readers;
	push @sessions, start($f, "$opt{setting} CALL public.write_all($_, $keys);") for 1 .. $writers;
	my $fault = 0;
	my $next = time + ($opt{every} // 1);
	while ($f->sql('SELECT count(*) FROM public.done') < $readers)
	{
		sleep 0.05;
		die "a session ended: $_->{errors}" for grep { lost($_) } @sessions;
		next if !$opt{faults} || time < $next;
		$opt{faults}[ $fault++ % @{ $opt{faults} } ]->();
		$next = time + ($opt{every} // 1);
	}
	$f->sql('TRUNCATE public.going');
	waitpid $_->{pid}, 0 for @sessions;
	# For each read, the newest version of the key whose commit was answered before it was asked.
	my ($reads, $stale, $writes) = split /\|/, $f->sql(<<'SQL');
SELECT count(*) FILTER (WHERE NOT e.written), count(*) FILTER (WHERE NOT e.written AND e.version < e.newest), count(*) FILTER (WHERE e.written)
  FROM (SELECT x.written, x.version, max(x.version) FILTER (WHERE x.written) OVER (PARTITION BY x.key ORDER BY x.at, x.written ROWS UNBOUNDED PRECEDING) AS newest
          FROM (SELECT w.key, w.version, w.answered AS at, true AS written FROM public.wrote w
                UNION ALL SELECT r.key, r.version, r.asked, false FROM public.was_read r) x) e
SQL
	return ($reads, $stale, $writes, $fault);
}

sub start
{
	my ($f, $sql) = @_;
	my %s = (errors => '');
	my ($in, $out);
	$s{pid} = IPC::Open3::open3($in, $out, $s{err} = Symbol::gensym(), 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $f->node->connstr('postgres'), '-c', $sql =~ s/;.*//sr, '-c', $sql =~ s/^.*?;//sr);
	close $in;
	$s{err}->blocking(0);
	return \%s;
}

sub lost
{
	my ($s) = @_;
	sysread $s->{err}, $s->{errors}, 65536, length $s->{errors};
	return $s->{errors} =~ /ERROR|FATAL/;
}

# Before each run
sub prepare
{
	my ($f, $keys) = @_;
	$f->sql(<<"SQL");
DROP TABLE IF EXISTS public.truth, public.wrote, public.was_read, public.done, public.going;
CREATE TABLE public.truth (key text PRIMARY KEY, version bigint NOT NULL) WITH (fillfactor = 20);
INSERT INTO public.truth SELECT 'k' || n, 0 FROM generate_series(1, $keys) n;
CREATE UNLOGGED TABLE public.wrote (key text, version bigint, answered timestamptz);
CREATE UNLOGGED TABLE public.was_read (key text, version bigint, asked timestamptz);
CREATE TABLE public.done (reader int);
CREATE TABLE public.going (n int);
INSERT INTO public.going VALUES (1);
CREATE OR REPLACE FUNCTION public.fetch(connector uuid, resource_type text, external_id text) RETURNS jsonb LANGUAGE plpgsql AS \$\$
DECLARE v bigint;
BEGIN
  SELECT t.version INTO v FROM public.truth t WHERE t.key = external_id;
  -- An upstream takes its time, now and then a long one.
  IF random() < 0.2 THEN PERFORM pg_sleep(random() * 0.02); END IF;
  RETURN to_jsonb(v);
END \$\$;
CREATE OR REPLACE PROCEDURE public.read_all(reader int, n int, keys int) LANGUAGE plpgsql AS \$\$
DECLARE k text; a timestamptz; v bigint; ks text[] := '{}'; vs bigint[] := '{}'; asks timestamptz[] := '{}';
BEGIN
  FOR i IN 1 .. n LOOP
    k := 'k' || 1 + floor(random() * random() * keys);
    a := clock_timestamp();
    v := flohsync.cache_get_or_fetch('c', 'user', k, 'public.fetch(uuid,text,text)');
    COMMIT;
    ks := ks || k; vs := vs || v; asks := asks || a;
    IF i % 500 = 0 OR i = n THEN
      INSERT INTO public.was_read SELECT * FROM unnest(ks, vs, asks);
      COMMIT;
      ks := '{}'; vs := '{}'; asks := '{}';
    END IF;
  END LOOP;
  INSERT INTO public.done VALUES (reader);
END \$\$;
CREATE OR REPLACE PROCEDURE public.write_all(writer int, keys int) LANGUAGE plpgsql AS \$\$
DECLARE k text; v bigint; a timestamptz;
BEGIN
  WHILE EXISTS (SELECT FROM public.going) LOOP
    k := 'k' || 1 + floor(random() * keys);
    UPDATE public.truth t SET version = t.version + 1 WHERE t.key = k RETURNING t.version INTO v;
    IF random() < 0.02 THEN
      PERFORM flohsync.cache_clear('c', CASE WHEN random() < 0.5 THEN 'user' END);
    ELSE
      PERFORM flohsync.cache_invalidate('c', 'user', k);
    END IF;
    IF random() < 0.1 THEN
      ROLLBACK;
    ELSE
      COMMIT;
      a := clock_timestamp();
      INSERT INTO public.wrote VALUES (k, v, a);
      COMMIT;
    END IF;
    PERFORM pg_sleep(random() * 0.004);
  END LOOP;
END \$\$;
SQL
	return;
}

1;
