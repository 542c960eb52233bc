# Pages that come as they came before are not read (src/run/prints.c), and nobody can
# tell: of two databases that sync from one upstream, one reads all of them.  In that one
# records are written by statements, in the other one without (src/record/stored_write.c).
# Between the passes, and while one is under way, whatever can write records does, at random,
# to both alike.  After each pass every table is compared.
# PAGE_PRINTS_ROUNDS, PAGE_PRINTS_SEED: how many rounds, and which.
use strict;
use warnings;

use Flohsync;
use JSON::PP ();
use Rest;
use Test::More;

my $rounds = $ENV{PAGE_PRINTS_ROUNDS} // 28;
my $seed = $ENV{PAGE_PRINTS_SEED} // 1 + int rand 1_000_000;
my $f = Rest->new(conf => "flohsync.page_size = 20\nflohsync.retry_delay = 0\n");
my @databases = qw(postgres plain);
my $plain = 'plain';

srand $seed;
diag("PAGE_PRINTS_SEED=$seed");
$f->sql("CREATE DATABASE $plain");
$f->sql("ALTER DATABASE $plain SET flohsync.page_fingerprints = off");
$f->sql('CREATE EXTENSION flohsync', $plain);
$f->sql('ALTER TABLE flohsync.resource_record ADD CHECK (record_no > 0)', $plain);

# The same in both databases; what differs is a failure.
sub both
{
	my ($sql, @run) = @_;
	my $i = 0;
	my @answers = map { my $r = $f->try_sql($sql =~ s/\$/$run[$i++]/r, $_); $r->{ok} ? $r->{out} : "$r->{state} $r->{message}" } @databases;
	s/[0-9a-f]{8}-[0-9a-f-]{27}|\b\d{4}-\d\d-\d\dT[0-9:.]+Z?/*/g for @answers;
	return $answers[0] if $answers[0] eq $answers[1];
	fail("the same answer to $sql");
	diag("with fingerprints: $answers[0]\nwithout: $answers[1]");
	return $answers[0];
}

sub one_of { return $_[ int rand @_ ] }
sub chance { return rand() < $_[0] }

#
# What is compared
#

# Ids of rows and times differ; a time is compared by the passes of its configuration that began before it.
my $rank = sub { my ($time, $t) = @_; return "(SELECT count(*) FROM flohsync.sync_run x WHERE x.connector_id = $t.connector_id AND x.resource_type = $t.resource_type AND x.pass_started_at <= $time)" };
# A crash makes the numbers of runs jump.
my $nr = sub { return "(SELECT count(*) FROM flohsync.sync_run x WHERE x.id <= $_[0])" };
my $named = 'JOIN flohsync.connector_definition d ON d.id =';
my %tables = (
	records => "SELECT d.name, r.resource_type, r.external_id, r.display_name, r.email, r.attributes, r.sync_hash, r.stale_since IS NULL, "
	  . $rank->('r.observed_at', 'r') . ', ' . $rank->('v.synced_at', 'r') . ", r.event_at IS NULL FROM flohsync.resource_record r $named r.connector_id JOIN flohsync.connector_resource v ON v.id = r.id",
	runs => "SELECT d.name, r.resource_type, " . $nr->('r.id') . ", r.strategy, r.trigger, r.status, r.cursor, r.pages, r.complete, r.incomplete_reason, r.error, r.error_class, r.stats - 'durationMs' - 'bytes', " . $nr->('r.pass_id') . ", r.pass_pages, r.staled, r.removed, r.post_sync, regexp_replace(r.notes, 'run \\d+', 'run') FROM flohsync.sync_run r $named r.connector_id",
	pages => "SELECT " . $nr->('p.run_id') . ", p.page, p.cursor, p.next_cursor, p.records, p.added, p.updated, p.unchanged, p.restored, p.filtered, p.errored, p.ignored, p.duplicates, p.truncated, p.unidentified, p.total_estimate, p.deleted, cardinality(p.changed), p.incomplete, p.link, p.unread, p.seen IS NULL, (SELECT string_agg(r.external_id, ' ' ORDER BY r.external_id) FROM flohsync.sync_run u JOIN flohsync.resource_record r USING (connector_id, resource_type) WHERE u.id = p.run_id AND p.seen IS NOT NULL AND _flohsync.ledger_has(_flohsync.ledger_union(ARRAY[p.seen]), r.record_no)) FROM flohsync.sync_run_page p",
	errors => "SELECT " . $nr->('e.run_id') . ", e.page, e.external_id, e.error_class, e.message, e.payload, e.resource_type FROM flohsync.sync_error e",
	configurations => "SELECT d.name, c.resource_type, c.last_sync_status, c.last_sync_error, c.last_sync_stats - 'durationMs' - 'bytes', c.incomplete_reason, c.full_incomplete_reason, c.totals - 'durationMs' - 'bytes', c.retries, c.watermark IS NULL, " . $rank->('c.last_full_pass_at', 'c') . ", c.last_complete_at IS NULL FROM flohsync.connector_sync_config c $named c.connector_id",
	matches => "SELECT d.name, m.resource_type, m.external_id, m.match_status, m.match_confidence, u.email FROM flohsync.connector_sync_match m $named m.connector_id LEFT JOIN flohsync.floh_user u ON u.id = m.user_id",
	changes => "SELECT d.name, q.resource_type, r.external_id, q.change FROM _flohsync.record_change q $named q.connector_id LEFT JOIN flohsync.resource_record r ON r.id = q.resource_id",
	tombstones => "SELECT d.name, t.resource_type, t.external_id FROM _flohsync.resource_tombstone t $named t.connector_id",
	users => 'SELECT u.email, u.display_name, u.active FROM flohsync.floh_user u',
	tally => "SELECT l.kind, l.n FROM (SELECT 'active' AS kind, count(*) AS n FROM flohsync.connector_resource WHERE stale_since IS NULL) l");

sub same
{
	my ($round, $story) = @_;
	my $differ = 0;
	for my $table (sort keys %tables)
	{
		my ($fast, $plain) = map { { map { $_ => 1 } split /\n/, $f->sql("SELECT to_jsonb(t) FROM ($tables{$table}) t", $_) } } @databases;
		my @fast = grep { !$plain->{$_} } sort keys %$fast;
		my @plain = grep { !$fast->{$_} } sort keys %$plain;
		next unless @fast || @plain;
		fail("round $round: $table are the same");
		diag("what was done: $story\nonly with fingerprints: " . join("\n", @fast[ 0 .. ($#fast < 5 ? $#fast : 5) ])
			  . "\nonly without: " . join("\n", @plain[ 0 .. ($#plain < 5 ? $#plain : 5) ]));
		$differ = 1;
	}
	return !$differ;
}

#
# What is done
#

my @connectors = qw(command link cursor offset pages ahead_command ahead_offset);
my $f_record = sub { return sprintf 'user-%07d', 1 + int rand 230 };

# At the upstream
my %upstream = (
	nothing => sub { },
	change => sub { $f->up('change', count => 1 + int rand 3, what => one_of(qw(attributes name email groups)), seed => int rand 1e6) },
	much => sub { $f->up('change', fraction => 0.3, what => 'attributes', seed => int rand 1e6) },
	remove => sub { $f->up('delete', count => 1 + int rand 4, seed => int rand 1e6) },
	return => sub { $f->up('restore', count => 1 + int rand 8, seed => int rand 1e6) },
	add => sub { $f->up('add', count => 1 + int rand 3) },
	shift => sub { $f->up('options', paging => one_of(qw(index position))) },);

# In the databases: statements
sub webhook
{
	my ($connector, $action) = @_;
	my %body = (action => $action, resourceType => 'user', resourceId => $f_record->());
	$body{data} = { displayName => 'by webhook ' . int rand 1000 } if $action ne 'deleted';
	return 'SELECT flohsync.handle_webhook(' . literal($connector) . ', ' . Flohsync::jsonb(\%body) . ')';
}
sub settings { my ($connector, @json) = @_; return "SELECT flohsync.configure_sync('$connector', 'user', '" . one_of(@json) . "') IS NULL" }
sub guarded { return settings($_[0], '{"safeguards": {"maxStaleFraction": 0.1, "minRecords": 3}, "staleRetention": "0s"}') }

my %writing = (
	created => sub { webhook($_[0], 'created') },
	updated => sub { webhook($_[0], 'updated') },
	deleted => sub { webhook($_[0], 'deleted') },
	upsert => sub { "SELECT flohsync.upsert_resource('$_[0]', 'user', '" . Flohsync::json_text({ externalId => $f_record->(), displayName => 'by hand' }) . "')" },
	upserts => sub { "SELECT flohsync.upsert_resources('$_[0]', 'user', '" . Flohsync::json_text([ map { { externalId => $f_record->(), displayName => "by hand $_" } } 1 .. 5 ]) . "')" },
	stray => sub { "SELECT flohsync.upsert_resource('$_[0]', 'user', '{\"externalId\": \"stray-" . int(rand 20) . "\"}')" },
	stale => sub { "SELECT flohsync.mark_stale('$_[0]', 'user', now())" },
	purge => sub { "SELECT flohsync.purge_stale('$_[0]', 'user', '0')" },);
my %changing = (
	filter => sub { settings($_[0], '{"filterRules": {"emailDomains": ["acme.com", "example.org"]}}', '{"filterRules": null}', '{"filterRules": {"maxRecords": 100}}') },
	ignore => sub { settings($_[0], '{"hashIgnore": ["loginCount", "score"]}', '{"hashIgnore": null}') },
	anew => sub { ("SELECT flohsync.delete_sync_config('$_[0]', 'user')", guarded($_[0])) },);

# What an upstream does wrong; armed for each database by itself
my @faults = (
	[ 'status', code => 403 ], [ 'status', code => 503, times => 2 ], [ 'dup_in_page', record => 3 ], [ 'dup_across', count => 2 ], [ 'dup_across', count => 2, changed => 1 ],
	[ 'id', value => 'missing', record => 2 ], [ 'field', field => 'email', json => '17', record => 4 ], [ 'long', field => 'displayName', chars => 300, record => 1 ],
	[ 'cursor_repeat' ], [ 'truncate' ], [ 'empty_page' ], [ 'no_next' ]);

# A pass of each database; while it waits for a page, the same is written to it, or its worker is killed.
# Where that page is answered with 304, and what was written is one of its records, it is asked for
# anew, and so newer than what was written (003_conditional.t); in the other database it is older.
# So no page is answered with 304 then.
sub walk
{
	my ($connector, %how) = @_;
	my @runs;
	for my $db (@databases)
	{
		$f->up('heal');
		$f->fault(@{ $how{fault} }, page => $how{page}) if $how{fault};
		$f->fault('hang', page => $how{held_page}) if $how{held};
		$f->up('options', validator => ref $how{held} ? '' : 'etag');
		my $strategy = $how{strategy} ? literal($how{strategy}) : 'NULL';
		my $run = $f->sql("SELECT flohsync.trigger_sync('$connector', 'user', $strategy, " . ($how{restart} ? 'true' : 'false') . ')', $db);
		my $ended = "SELECT status NOT IN ('queued', 'running') FROM flohsync.sync_run WHERE id = $run";
		if ($how{held})
		{
			# Where the pass has fewer pages, there is nothing to wait for.
			my $until = time + 30;
			1 while !$f->up('log', last => 0)->{hanging} && $f->sql($ended, $db) ne 't' && time < $until;
			if ($f->up('log', last => 0)->{hanging})
			{
				my $before = $how{held_page} - 1;
				$f->wait_for("SELECT $before = 0 OR EXISTS (SELECT FROM flohsync.sync_run r, _flohsync.pass_pages(r.pass_id) p WHERE r.id = $run AND p.page = $before)", db => $db);
				$f->sql('CHECKPOINT', $db) if $how{held} eq 'crash';	# pages do not wait for the disk
				$f->crash($f->worker_pid($db)) if $how{held} eq 'crash';
				$f->try_sql($_, $db) for ref $how{held} ? @{ $how{held} } : ();
			}
			$f->up('release');
		}
		$f->wait_for($ended, db => $db, timeout => 60);
		push @runs, $run;
	}
	$f->up('heal');
	return @runs;
}

#
# Rounds
#

# Some are asked for pages if they have changed, and some for several pages at a time.
my %conditional = map { $_ => 1 } qw(command link offset ahead_command ahead_offset);
sub ahead { return $_[0] =~ /^ahead_/ }
$f->fresh(user => 205);
for my $connector (@connectors)
{
	my $style = $connector =~ s/^ahead_//r =~ s/^pages$/page/r;
	my @ahead = ahead($connector) ? (concurrency => 4) : ();
	if ($style eq 'command') { $f->connector($connector, config => { conditional => JSON::PP::true, @ahead }) }
	else { $f->rest($connector, $style, @ahead, $conditional{$connector} ? (list => { conditional => JSON::PP::true }) : ()) }
}
for my $connector (@connectors)
{
	my $made = $f->json("SELECT to_jsonb(d) FROM flohsync.connector_definition d WHERE name = '$connector'");
	$f->sql("SELECT flohsync.create_connector('$connector', '$made->{kind}', " . Flohsync::jsonb($made->{config}) . ', '
		  . ($made->{definition} ? Flohsync::jsonb($made->{definition}) : 'NULL') . ')', $plain);
	both(guarded($connector));
}

my %taken;
my %spared;
my $good = 0;
for my $round (1 .. $rounds)
{
	my $connector = one_of(@connectors);
	my @story = ($connector);
	my $note = sub { push @story, @_ };
	my $what = chance(0.5) ? 'nothing' : one_of(sort keys %upstream);
	$upstream{$what}->();
	$note->("upstream: $what");
	if (chance(0.5))
	{
		for (1 .. 1 + int rand 2)
		{
			$what = chance(0.8) ? one_of(sort keys %writing) : one_of(sort keys %changing);
			$note->("$_ => " . both($_)) for ($writing{$what} // $changing{$what})->($connector);
		}
	}
	my %how;
	$how{strategy} = 'incremental' if $connector eq 'command' && chance(0.15);
	$how{restart} = 1 if chance(0.1);
	@how{qw(fault page)} = (one_of(@faults), 1 + int rand 11) if chance(0.25);
	# An ETag of the body says nothing of a link beside it.
	delete $how{fault} if $connector eq 'link' && ($how{fault} // ['none'])->[0] =~ /^(?:cursor_repeat|no_next)$/;
	# What was written while a page is held is older or newer than the next ones, as these were asked for.
	if (!ahead($connector) && chance(0.2))
	{
		$how{held} = chance(0.2) ? 'crash' : [ map { $writing{ one_of(sort keys %writing) }->($connector) } 1 .. 2 ];
		$how{held_page} = 1 + int rand 11;
	}
	$note->('pass ' . Flohsync::json_text(\%how));
	my @run = walk($connector, %how);
	my $held = $f->sql("SELECT status FROM flohsync.sync_run WHERE id = $run[0]") eq 'held';
	$note->(both(one_of('SELECT flohsync.approve_run($) IS NULL', 'SELECT flohsync.reject_run($)', 'SELECT flohsync.approve_run($, except_ids => ARRAY[\'user-0000007\']) IS NULL'), @run))
	  if $held && chance(0.7);
	$taken{$connector} += $f->sql("SELECT count(print) FROM flohsync.sync_run_page WHERE run_id = $run[0]");
	$spared{$connector} += $f->sql("SELECT count(*) FROM flohsync.sync_run_page WHERE run_id = $run[0] AND print IS NOT NULL AND bytes = 0");
	$good++ if same($round, join "\n", @story);
	last if $good < $round;	# what is different stays so
}
# Chance may have it that no page was taken: three passes in peace.
for my $connector (@connectors)
{
	both("SELECT flohsync.configure_sync('$connector', 'user', '{\"filterRules\": null, \"hashIgnore\": null, \"safeguards\": {\"maxStaleFraction\": null}}') IS NULL");
	for (1 .. 3)
	{
		my @run = walk($connector, restart => 1);
		$taken{$connector} += $f->sql("SELECT count(print) FROM flohsync.sync_run_page WHERE run_id = $run[0]");
		$spared{$connector} += $f->sql("SELECT count(*) FROM flohsync.sync_run_page WHERE run_id = $run[0] AND print IS NOT NULL AND bytes = 0");
	}
	ok(same("$connector at last", 'three passes'), "$connector: the same in peace");
	$f->matches_upstream($connector, 'user', "$connector: and as the upstream is");
}
is($good, $rounds, "after each of $rounds passes both databases are the same");
cmp_ok($taken{$_} // 0, '>', 0, "$_: pages were not read") for @connectors;
cmp_ok($spared{$_} // 0, '>', 0, "$_: pages were not even sent") for sort keys %conditional;
is(join(' ', grep { $spared{$_} && !$conditional{$_} } @connectors), '', 'only of those that are asked so');
is($f->sql('SELECT count(print) FROM flohsync.sync_run_page', $plain), 0, 'in the other database all were');
my @panics = grep { /PANIC|TRAP:|signal (?!9)\d+/ } split /\n/, PostgreSQL::Test::Utils::slurp_file($f->node->logfile);
is(join("\n", @panics), '', 'no process died of anything but our kills');
done_testing();
