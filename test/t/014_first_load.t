# New records of a pass go into the table as COPY writes rows (src/record/insert.c),
# and as one statement where the table has more than the extension made.  Both leave
# the same rows, to the byte, and the same errors; this holds the two together.
use strict;
use warnings;

use Encode ();
use Flohsync;
use IO::Socket::INET;
use PostgreSQL::Test::Utils ();
use Test::More;

my $f = Flohsync->new(upstream => 0, conf => "wal_level = logical\nflohsync.log_runs = off\n");
$f->sql("create extension $_ schema public") for qw(pageinspect pg_walinspect pgrowlocks amcheck btree_gist);

#
# An upstream that gives a file as its only page
#
my $dir = PostgreSQL::Test::Utils::tempdir();
my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 20, ReuseAddr => 1) or die "listen: $!";
my $server = fork // die "fork: $!";
if ($server == 0)
{
	while (my $socket = $listen->accept)
	{
		my $head = '';
		while (my $line = <$socket>) { last if $line =~ /^\r?\n$/; $head .= $line }
		read($socket, my $body, $1) if $head =~ /^content-length: (\d+)/mi;
		open(my $in, '<:raw', "$dir/page") or die "page: $!";
		my $page = do { local $/; <$in> };
		print $socket "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: " . length($page) . "\r\n\r\n$page";
		close $socket;
	}
	exit 0;
}
END { local $?; kill 'KILL', $server if $server; }

my @feed;    # [external_id, display_name, email, attributes], each as JSON, or undef
sub give
{
	@feed = @_;
	my @names = qw(externalId displayName email attributes);
	my @records;
	for my $r (@feed) { push @records, '{' . join(',', map { defined $r->[$_] ? "\"$names[$_]\":$r->[$_]" : () } 0 .. 3) . '}' }
	open(my $out, '>:raw', "$dir/page.new") or die "page: $!";
	print $out '{"success":true,"payload":{"resources":[' . join(',', @records) . ']}}';
	close $out;
	rename "$dir/page.new", "$dir/page";
	return;
}

my $c = 'c';
$f->sql("select flohsync.create_connector('$c', 'command', '{\"url\": \"http://127.0.0.1:" . $listen->sockport . "/\", \"commandNames\": {\"record\": \"listRecords\"}}')");
$f->configure($c, 'record', safeguards => undef);

# Whether a sync has written rows of the table many at a time; the sync must succeed.
my $table = 'flohsync.resource_record';
sub load
{
	my ($name, %opt) = @_;
	my $from = $f->sql('select pg_current_wal_insert_lsn()');
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $stats = $f->sync_ok($c, 'record', $name);
	$f->sql('checkpoint');
	return ($stats, $f->sql("select count(*) > 0 from public.pg_get_wal_records_info('$from', pg_current_wal_flush_lsn())
		where record_type ~ '^MULTI_INSERT' and block_ref ~ ('/' || pg_relation_filenode('$table') || '[ ;]')") eq 't');
}

#
# Whatever is listed, both ways store the same
#
my $seed = $ENV{FIRST_LOAD_SEED} // time;
note "FIRST_LOAD_SEED=$seed";
srand $seed;
sub one_of { return $_[ rand @_ ] }
my @pieces = ('a', 'B', '9', ' ', "\x{e9}", "\x{20ac}", "\x{1f600}", '\\n', '\\"', '\\\\', '\\/', '\\u0041', '\\u20AC', '\\ud83d\\ude00', '\\u001f', 'value', 'department');
sub chars { return Encode::encode('UTF-8', join '', map { one_of(@pieces) } 1 .. $_[0]) }
sub text { return '"' . chars($_[0]) . '"' }
sub number { return one_of(0, -0.0, '-0', '0.0', 1, -1, 42, 9999, 10000, 100000000, '1.50', '1e3', '-2.5E-7', '1E+20', '123456789012345678', '1234567890123456789', '-999999999999999999999', '0.1000', '12e0', int rand 1e9) }
my $left = 0;    # so many values a record may still have
sub space { return rand() < 0.05 ? one_of(' ', "\n", "\t ") : '' }
sub value
{
	my ($depth) = @_;
	my $kind = $left-- > 0 ? rand 10 : rand 7.5;
	return text(one_of(0, 1, 5, 5, 5, 30, 126, 127, 300)) if $kind < 3;
	return number() if $kind < 5;
	return one_of('true', 'false', 'null') if $kind < 7;
	return one_of('""', '[]', '{}') if $kind < 7.5 || $depth <= 0 || $left <= 0;
	return '[' . join(',', map { space() . value($depth - 1) . space() } 1 .. one_of(1, 2, 3, 31, 32, 33, 64, 70)) . ']' if $kind < 8.7;
	return object($depth - 1);
}
sub object
{
	my ($depth) = @_;
	$left = 200 if $depth >= 2;
	my @keys = map { text(one_of(0, 1, 1, 2, 3, 8)) } 1 .. one_of(0, 1, 5, 12, 16, 31, 32, 33, 40, 100);
	# The same key again, also written otherwise
	push @keys, $keys[ rand @keys ], '"a"', '"\\u0061"' if @keys && rand() < 0.3;
	return '{' . join(',', map { space() . $_ . space() . ':' . space() . value($depth) } @keys) . '}';
}
my @random = map {
	my $noise = join '', map { chr(97 + rand 26) } 1 .. 6000;
	[ "\"" . sprintf('%04d', $_) . (rand() < 0.2 ? chars(one_of(1, 20, 80)) : '') . '"',
		one_of(undef, 'null', '""', text(10), text(254)), one_of(undef, 'null', '"a@b.example"', text(20), '"' . "\xc3\xa9" x 255 . '"'),
		one_of(undef, 'null', '{}', (map { object($_) } 0, 1, 1, 2, 2, 3), "{\"long\": \"$noise\"}", '{"long": "' . 'x' x 9000 . '"}', '{"deep": ' . '[' x 50 . number() . ']' x 50 . '}') ]
} 1 .. 600;

# All that a row is, less what no two loads share; record_no, id, observed_at, created_at come first.
my $snapshot = "select r.external_id, md5(concat_ws('|', r.connector_id, r.resource_type, r.display_name, r.email, r.attributes::text, r.sync_hash, r.event_at, r.event_keys, r.stale_since)) as text,
	pg_column_size(r.attributes) as size, pg_column_compression(r.attributes) as compression, pg_column_size(r.*) as row_size,
	t.t_infomask & 15 as mask, t.t_infomask2 & 2047 as columns, t.t_hoff, t.t_bits,
	case when t.t_infomask & 4 = 0 then md5(substr(t.t_data, 41)) end as bytes
	from $table r cross join lateral (select * from public.heap_page_items(public.get_raw_page('$table', (r.ctid::text::point)[0]::bigint)) i where i.lp = (r.ctid::text::point)[1]) t";

give(@random);
my ($stats, $many) = load('a load of any records');
ok($many, 'writes rows many at a time');
is($stats->{added}, 600, 'all are new') or diag(Flohsync::json_text([ $f->errors_of($f->last_run($c, 'record')->{id}) ]));
is($stats->{errored}, 0, 'none is set aside');
is($f->sql('select sum(n) from _flohsync.tally'), 600, 'and counted');
# Since PostgreSQL 16 a table that is written many rows at a time may have an empty page at its end.
my $filled = "select count(distinct (ctid::text::point)[0]) from $table";
my $size = $f->sql($filled);

# jsonb as PostgreSQL makes it of the text.  By bytes: an image has what = passes over.
$f->sql('create table public.given (nr int, attributes text)');
{
	open(my $out, '>:raw', "$dir/given") or die "given: $!";
	for my $i (0 .. $#random) { my $text = $random[$i][3] // 'null'; print $out $text =~ s/\\/\\\\/gr =~ s/\n/\\n/gr =~ s/\t/\\t/gr, "\t", $i + 1, "\n" }
	close $out;
	chmod 0644, "$dir/given";
	chmod 0755, $dir;
	$f->sql("copy public.given (attributes, nr) from '$dir/given'");
}
is($f->sql("select count(*) filter (where record_image_eq(row(r.attributes), row(nullif(g.attributes::jsonb, 'null')))) || ' of ' || count(*) from $table r join public.given g on left(r.external_id, 4)::int = g.nr"), '600 of 600', 'attributes are what PostgreSQL makes of the text');

$f->sql("create table public.fast as $snapshot");
$f->sql("truncate $table cascade; select flohsync.configure_sync('$c', 'record', '{\"hashIgnore\": []}')");
is($f->sql('select coalesce(sum(n), 0) from _flohsync.tally'), 0, 'the table is empty again');
$f->sql("create function public.nothing() returns trigger language plpgsql as 'begin return null; end'; create trigger zz_nothing after insert on $table for each row execute function public.nothing()");
($stats, $many) = load('the same with a trigger of others');
ok(!$many, 'is done by the statement');
is($stats->{added}, 600, 'all are new again');
is($f->sql($filled), $size, 'as many pages have rows: as much room is left on each page');
$f->sql("create table public.slow as $snapshot");
is($f->sql('select count(*) from (table public.fast except table public.slow) x'), 0, 'every row is the same, to the byte');
is($f->sql('select count(*) from (table public.slow except table public.fast) x'), 0, 'and the other way round');
cmp_ok($f->sql("select count(*) from public.fast where $_"), '>', 10, "many rows with $_") for 'compression is not null', 'bytes is null', 'bytes is not null', 't_bits is not null';
is($f->sql('select sum(n) from _flohsync.tally'), 600, 'and counted the same');
$f->sql("drop trigger zz_nothing on $table");

#
# What others have put on the table works as ever
#
my $next = 1000;
# Some new records with something on the table: whether they may go many at a time, and what is true afterwards
sub with
{
	my ($what, $make, $unmake, $may, %expect) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$f->sql("delete from $table");
	$f->sql($make);
	give(map { my $n = $next++; [ "\"n$n\"", "\"N $n\"", "\"n$n\@acme.com\"", "{\"n\": $n}" ] } 1 .. 20);
	if (my $error = $expect{error})
	{
		$f->sync_fails($c, 'record', $error, "$what: the run says so");
		is($f->sql("select count(*) from $table"), 0, "$what: nothing is written");
	}
	else
	{
		my ($got, $fast) = load("$what: a pass");
		is($got->{added}, 20, "$what: all are added");
		is($f->sql("select count(*), sum((attributes ->> 'n')::int), max(email), count(distinct id), count(distinct record_no) from $table"),
			join('|', 20, 20 * ($next - 10.5), 'n' . ($next - 1) . '@acme.com', 20, 20), "$what: and there");
		is($fast ? 'many' : 'statement', $may ? 'many' : 'statement', "$what: written as is right for it");
		is($f->sql($expect{sql}), $expect{is}, "$what: has its effect") if $expect{sql};
		$f->sql('select public.bt_index_check(indexrelid, true) from pg_index i join pg_class k on k.oid = indexrelid join pg_am a on a.oid = k.relam where indrelid = \'flohsync.resource_record\'::regclass and amname = \'btree\'');
	}
	$f->sql($unmake);
	return;
}
$f->sql("create table public.note (what text); grant insert on public.note to flohsync_worker;
	create function public.note() returns trigger language plpgsql as 'begin insert into public.note values (tg_name); return null; end';
	create function public.note_rows() returns trigger language plpgsql as 'begin insert into public.note select tg_name from added; return null; end';
	create function public.keep() returns trigger language plpgsql as 'begin return new; end'; grant execute on all functions in schema public to public");
my $notes = "select count(*) from public.note";
my $forget = "; truncate public.note";
with('nothing', 'select', 'select', 1);
with('a trigger after each row', "create trigger a_row after insert on $table for each row execute function public.note()", "drop trigger a_row on $table$forget", 0, sql => $notes, is => 20);
with('a trigger before each row', "create trigger b_row before insert on $table for each row execute function public.keep()", "drop trigger b_row on $table", 0);
with('triggers of the statement', "create trigger b_all before insert on $table for each statement execute function public.note(); create trigger a_all after insert on $table for each statement execute function public.note()",
	"drop trigger b_all on $table; drop trigger a_all on $table$forget", 0, sql => $notes, is => 2);
with('a trigger with a table of the rows', "create trigger a_new after insert on $table referencing new table as added for each statement execute function public.note_rows()", "drop trigger a_new on $table$forget", 0, sql => $notes, is => 20);
with('a constraint trigger', "create constraint trigger a_late after insert on $table deferrable initially deferred for each row execute function public.note()", "drop trigger a_late on $table$forget", 0, sql => $notes, is => 20);
with('a constraint', "alter table $table add constraint short check (length(external_id) < 20)", "alter table $table drop constraint short", 0);
with('a constraint that is broken', "alter table $table add constraint short check (length(external_id) < 2) not valid", "alter table $table drop constraint short", 0, error => qr/violates check constraint "short"/);
with('a column', "alter table $table add column extra text; alter table $table alter extra set default 'x'", "alter table $table drop column extra", 0, sql => "select count(*) from $table where extra = 'x'", is => 20);
with('a column that was dropped', 'select', 'select', 1);
with('another default', "alter table $table alter created_at set default '2001-02-03 04:05:06+00'", "alter table $table alter created_at set default now()", 1, sql => "select count(*) from $table where created_at = '2001-02-03 04:05:06+00'", is => 20);
# ALTER TABLE would refuse it, as functions have arguments of this type.
my $shorter = sub { return "update pg_attribute set atttypmod = 4 + $_[0] where attrelid = '$table'::regclass and attname = 'display_name'" };
with('a shorter column', $shorter->(3), $shorter->(255), 0, error => qr/value too long for type character varying\(3\)/);
with('a column that is long enough', $shorter->(6), $shorter->(255), 1);
with('a column that must not be null', "alter table $table alter event_at set not null", "alter table $table alter event_at drop not null", 1, error => qr/null value in column "event_at" of relation "resource_record" violates not-null constraint/);
with('indexes', "create index i_expr on $table (lower(email)); create index i_part on $table (display_name) where email like '%5\@acme.com'; create unique index i_uniq on $table ((attributes ->> 'n')); create index i_gin on $table using gin (attributes)",
	'drop index flohsync.i_expr, flohsync.i_part, flohsync.i_uniq, flohsync.i_gin', 1,
	sql => "set enable_seqscan = off; select count(*) from $table where attributes \@> '{\"n\": " . ($next + 3) . "}'", is => 1);
with('a unique index that is broken', "create unique index i_uniq on $table (length(email))", 'drop index flohsync.i_uniq', 1, error => qr/violates unique constraint "i_uniq"/);
with('an exclusion that is broken', "alter table $table add constraint apart exclude using gist ((length(email)) with =)", "alter table $table drop constraint apart", 1, error => qr/violates exclusion constraint "apart"/);
with('a deferred unique constraint', "alter table $table add constraint late unique (email) deferrable initially deferred", "alter table $table drop constraint late", 0);
my $types = 'create table public.type (t varchar(64) collate "C" primary key); grant select, update on public.type to public';
my $to_type = "alter table $table add constraint to_type foreign key (resource_type) references public.type";
my $drop_type = "alter table $table drop constraint to_type; drop table public.type";
with('a foreign key', "$types; insert into public.type values ('record'); $to_type", $drop_type, 0);
with('a foreign key that is broken', "$types; $to_type not valid", $drop_type, 0, error => qr/violates foreign key constraint "to_type"/);
with('a deferred key to the connector', "alter table $table alter constraint resource_record_connector_id_fkey deferrable initially deferred", "alter table $table alter constraint resource_record_connector_id_fkey not deferrable", 0);
with('another isolation, which a worker does not take', 'alter database postgres set default_transaction_isolation = serializable', 'alter database postgres reset all', 1);
with('a child table', "create table public.child () inherits ($table)", 'drop table public.child', 1, sql => 'select count(*) from public.child', is => 0);
with('a publication', "create publication p for table $table; select pg_create_logical_replication_slot('s', 'test_decoding')", "select pg_drop_replication_slot('s'); drop publication p", 1,
	sql => "select count(*) from pg_logical_slot_get_changes('s', null, null) where data ~ '^table flohsync.resource_record: INSERT: '", is => 20);
with('nothing again', 'select', 'select', 1);
is($f->sql("select convalidated, condeferrable from pg_constraint where contype = 'f' and conrelid = '$table'::regclass"), 't|f', 'the key to the connector is there');

#
# What others do meanwhile
#

# A page that has inserted waits for its row in the ledger.
give(map { [ "\"m$_\"", undef, undef, undef ] } 1 .. 3);
my $other = $f->with_node($f->node);    # a session of its own
$other->sql('begin; lock table flohsync.sync_run_page in share mode');
my $sync = $f->start_sql("call flohsync.sync('$c', 'record')");
$f->wait_for("select count(*) > 0 from pg_locks where relation = 'flohsync.sync_run_page'::regclass and not granted");
is($f->sql("select modes from public.pgrowlocks('flohsync.connector_definition')"), '{"For Key Share"}', 'a page keeps the connector');
$other->sql('commit');
ok($f->finish($sync)->{ok}, 'and is written');

# The same record by others
give([ '"same"', '"of the page"', undef, undef ], [ '"zz"', undef, undef, undef ]);
$other->sql("begin; insert into $table (connector_id, resource_type, external_id, display_name, sync_hash, observed_at) select id, 'record', 'same', 'of others', '', clock_timestamp() + interval '1 s' from flohsync.connector_definition where name = '$c'");
$sync = $f->start_sql("call flohsync.sync('$c', 'record')");
$f->wait_for("select count(*) > 0 from pg_locks where locktype = 'transactionid' and not granted");
$other->sql('commit');
ok($f->finish($sync)->{ok}, 'a record that others insert meanwhile does not fail the pass');
is($f->sql("select string_agg(external_id, ' ' order by external_id) from $table where stale_since is null"), 'same zz', 'each is there once');
is($f->sql("select sum(n) filter (where state = 'live') from _flohsync.tally"), 2, 'and counts once');

# One that was deleted after the page was asked for, and before it is written
$f->sql("delete from $table; insert into _flohsync.resource_tombstone (connector_id, resource_type, external_id, deleted_at) select d.id, 'record', t, clock_timestamp() - interval '1 hour' from flohsync.connector_definition d, unnest(array['dead', 'old']) t where name = '$c'");
give(map { [ "\"$_\"", undef, undef, undef ] } qw(dead live old));
$other->sql("begin; lock table $table in access exclusive mode");
$sync = $f->start_sql("call flohsync.sync('$c', 'record')");
$f->wait_for("select count(*) > 0 from pg_locks where relation = '$table'::regclass and not granted");
$other->sql("update _flohsync.resource_tombstone set deleted_at = clock_timestamp() where external_id = 'dead'; commit");
ok($f->finish($sync)->{ok}, 'a pass over records of which one was deleted meanwhile');
is($f->sql("select string_agg(external_id, ' ' order by external_id) from $table"), 'live old', 'leaves that one out');
is($f->sql("select stats ->> 'ignored' from flohsync.sync_run order by id desc limit 1"), 1, 'and says so');

unlike(PostgreSQL::Test::Utils::slurp_file($f->node->logfile), qr/WARNING/, 'nothing is left open');
$f->no_crash;
done_testing();
