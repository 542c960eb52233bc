# A webhook writes and reads its rows without statements where nothing speaks against it.
# Here something does: what others have put on the tables is minded as ever.  And what is
# known from the webhook before is no longer known when somebody has changed it.
use strict;
use warnings;

use Flohsync;
use Hooks;
use Test::More;

my $f = Hooks->new(upstream => 0);
$f->plain('c');
$f->configure('c', 'device');

my $nr = 0;

sub event { my ($id, %data) = @_; return json_text({ action => 'updated', resourceType => 'device', resourceId => $id, data => \%data }) }
sub deliver { my ($id, %data) = @_; my $body = event($id, %data); return $f->receive('c', $body, Hooks::signed('standard', $body)) }
sub name_of { return $f->sql('SELECT display_name FROM flohsync.resource_record WHERE external_id = ' . literal($_[0])) }
sub elsewhere { my ($sql) = @_; return $f->node->safe_psql('postgres', $sql) }

sub row_of { return $f->sql('SELECT to_jsonb(r) - ARRAY[\'id\', \'record_no\', \'external_id\', \'sync_hash\', \'observed_at\', \'created_at\', \'event_at\', \'event_keys\'] FROM flohsync.resource_record r WHERE external_id = ' . literal($_[0])) }

#
# What is written
#

is(deliver('d-1', displayName => 'One', email => 'one@acme.example', attributes => { n => 1.50, list => [ 1, { a => undef } ], text => "\x{e4}\\\"" }), 'updated changed', 'a record is made');
is(deliver('d-1', displayName => 'Two', email => undef, attributes => { n => 2 }), 'updated changed', 'and changed');
is(deliver('d-1', displayName => 'Two', attributes => { n => 2 }), 'updated same', 'not by the same');
is($f->sql("SELECT count(*) FROM flohsync.resource_record WHERE sync_hash <> flohsync.resource_hash(external_id, display_name, email, attributes)"), 0, 'its hash is that of the whole record');
my $body = event('d-1', displayName => 'Noted');
my $call = Hooks::receive_sql('c', $body, Hooks::signed('standard', $body));
is($f->sql("BEGIN; $call; SELECT count(*) FROM _flohsync.dirty_record d JOIN flohsync.resource_record r ON d.nums = _flohsync.ledger_encode(ARRAY[r.record_no]) WHERE d.xid = pg_current_xact_id() AND d.pass_id IS NULL AND d.resource_type = 'device'; ROLLBACK") =~ s/.*\n//sr, 1, 'it is noted');
is($f->sql("SELECT count(*) FROM _flohsync.webhook_delivery WHERE received_at <= clock_timestamp()"), 3, 'so is each delivery');

# The same changes, one way and the other.
my @changes = ({ displayName => 'A' }, { email => 'a@acme.example' }, { attributes => { x => 'y' x 3000, n => 1e3 } }, { displayName => undef, attributes => { x => undef } }, { attributes => undef }, { displayName => "\x{fc}" x 300 });
deliver('plain', displayName => 'start');
deliver('plain', %$_) for @changes;
$f->sql('CREATE TABLE public.seen (what text, name text)');
$f->sql("CREATE FUNCTION public.see() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN INSERT INTO public.seen VALUES (TG_NAME, CASE TG_LEVEL WHEN ''ROW'' THEN to_jsonb(NEW) ->> ''display_name'' END); RETURN NULL; END'");
$f->sql('CREATE TRIGGER theirs AFTER UPDATE ON flohsync.resource_record FOR EACH ROW EXECUTE FUNCTION public.see()');
deliver('watched', displayName => 'start');
deliver('watched', %$_) for @changes;
is(row_of('watched'), row_of('plain'), 'a row is the same, whichever way it was written');
is($f->sql("SELECT count(*) FROM public.seen WHERE what = 'theirs'"), scalar(@changes), 'a trigger of others is called for each change');
$f->sql('DROP TRIGGER theirs ON flohsync.resource_record; TRUNCATE public.seen');
$f->sql('CREATE TRIGGER theirs AFTER UPDATE ON flohsync.resource_record FOR EACH STATEMENT EXECUTE FUNCTION public.see()');
deliver('d-1', displayName => 'Three');
is($f->sql('SELECT count(*) FROM public.seen'), 1, 'one for statements, too');
$f->sql('DROP TRIGGER theirs ON flohsync.resource_record; TRUNCATE public.seen');
deliver('d-1', displayName => 'Four');
is($f->sql('SELECT count(*) FROM public.seen') . name_of('d-1'), '0Four', 'not when it is gone');
$f->sql("ALTER TABLE flohsync.resource_record ADD CONSTRAINT no_five CHECK (display_name <> 'Five')");
like(deliver('d-1', displayName => 'Five'), qr/^23514: /, 'a constraint of others is checked');
$f->sql('ALTER TABLE flohsync.resource_record DROP CONSTRAINT no_five');
deliver('d-1', email => 'one@acme.example');
$f->sql("UPDATE flohsync.resource_record SET email = 'x' WHERE email IS NULL; ALTER TABLE flohsync.resource_record ALTER email SET NOT NULL");
like(deliver('d-1', email => undef), qr/^23502: /, 'that a column is not null, too');
$f->sql('ALTER TABLE flohsync.resource_record ALTER email DROP NOT NULL');
$f->sql("ALTER TABLE flohsync.resource_record ADD COLUMN theirs text; UPDATE flohsync.resource_record SET theirs = 'kept'");
is(deliver('d-1', displayName => 'Six'), 'updated changed', 'a column of others is nothing to us');
is($f->sql("SELECT theirs FROM flohsync.resource_record WHERE external_id = 'd-1'"), 'kept', 'and stays');
$f->sql('ALTER TABLE flohsync.resource_record DROP COLUMN theirs');
is(deliver('d-1', displayName => 'Seven') . ' ' . name_of('d-1'), 'updated changed Seven', 'one that was dropped is passed over');
$f->sql('CREATE UNIQUE INDEX theirs ON flohsync.resource_record (lower(display_name)) WHERE external_id LIKE \'d-%\'');
deliver('d-2', displayName => 'Eight');
like(deliver('d-1', displayName => 'EIGHT'), qr/^23505: /, 'an index of others is written, and unique if it says so');
is($f->sql("SET enable_seqscan = off; SELECT string_agg(external_id, ' ') FROM flohsync.resource_record WHERE lower(display_name) = 'seven' AND external_id LIKE 'd-%'"), 'd-1', 'and finds');
$f->sql('RESET enable_seqscan; DROP INDEX flohsync.theirs');
$f->sql('CREATE PUBLICATION theirs FOR TABLE flohsync.resource_record');
deliver('d-1', displayName => 'Published');
is(name_of('d-1'), 'Published', 'the table may be published');
$f->sql('ALTER TABLE flohsync.resource_record REPLICA IDENTITY NOTHING');
like(deliver('d-1', displayName => 'Unknown'), qr/^55000: cannot update table/, 'if its rows have an identity');
$f->sql('ALTER TABLE flohsync.resource_record REPLICA IDENTITY DEFAULT; DROP PUBLICATION theirs');
$f->sql('CREATE TRIGGER theirs AFTER INSERT ON _flohsync.webhook_delivery FOR EACH ROW EXECUTE FUNCTION public.see()');
$f->sql('CREATE TRIGGER theirs AFTER INSERT ON _flohsync.dirty_record FOR EACH ROW EXECUTE FUNCTION public.see()');
deliver('d-1', displayName => 'Nine');
is($f->sql('SELECT count(*) FROM public.seen'), 2, 'triggers on the tables of deliveries and of notes are called');
$f->sql('DROP TRIGGER theirs ON _flohsync.webhook_delivery; DROP TRIGGER theirs ON _flohsync.dirty_record');
$body = event('d-1', displayName => 'Ten');
$call = Hooks::receive_sql('c', $body, Hooks::signed('standard', $body));
for my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	is($f->sql("BEGIN ISOLATION LEVEL $level; SELECT count(*) FROM flohsync.resource_record WHERE false; $call; ROLLBACK") =~ /"changed": true/ ? 'changed' : '', 'changed', "it can be in a transaction of level $level");
}
is($f->sql("BEGIN; $call; $call; COMMIT") =~ /"changed": true.*"duplicate"/s ? 'twice' : '', 'twice', 'a delivery counts once within a transaction');
is($f->sql("$call") =~ /"duplicate"/ ? 'known' : '', 'known', 'and after it');
$body = event('d-1', displayName => 'Eleven');
$call = Hooks::receive_sql('c', $body, Hooks::signed('standard', $body));
$f->sql("BEGIN; $call; ROLLBACK");
is(name_of('d-1'), 'Ten', 'one that was rolled back has not been');
is($f->sql($call) =~ /"changed": true/ ? name_of('d-1') : '', 'Eleven', 'and can come again');
is($f->sql("BEGIN; SELECT; SAVEPOINT s; " . Hooks::receive_sql('c', event('d-1', displayName => 'Twelve'), Hooks::signed('standard', event('d-1', displayName => 'Twelve'))) . "; ROLLBACK TO s; COMMIT; SELECT display_name FROM flohsync.resource_record WHERE external_id = 'd-1'") =~ /Eleven$/ ? 1 : 0, 1, 'nor has one of a savepoint');

#
# What is known
#

# The second time, the session knows what the configuration says.
deliver('d-3', displayName => "Known $_") for 1 .. 2;
$f->configure('c', 'device', filterRules => { emailDomains => ['acme.example'] });
is(deliver('d-4', displayName => 'Out', email => 'out@other.example'), 'ignored same', 'a filter counts from the next webhook on');
elsewhere("SELECT flohsync.configure_sync('c', 'device', '{\"filterRules\": null}')");
is(deliver('d-4', displayName => 'In', email => 'out@other.example'), 'updated changed', 'also if another session has changed it');
deliver('d-3', displayName => "Known $_") for 3 .. 4;
elsewhere("INSERT INTO flohsync.workflow_definition (name, definition) VALUES ('w', '{}')");
my $workflow = $f->sql('SELECT id FROM flohsync.workflow_definition');
elsewhere("SELECT flohsync.configure_sync('c', 'device', '{\"syncTriggerMode\": \"per_record\", \"postSyncWorkflowId\": \"$workflow\"}')");
deliver('d-3', displayName => 'Told');
is($f->sql('SELECT count(*) FROM flohsync.workflow_job'), 1, 'so it is with workflows');
$f->sql("BEGIN; SELECT flohsync.configure_sync('c', 'device', '{\"syncTriggerMode\": \"none\"}')");
deliver('d-3', displayName => 'Not told');
$f->sql('ROLLBACK');
deliver('d-3', displayName => 'Told again');
is($f->sql('SELECT count(*) FROM flohsync.workflow_job'), 2, 'a change that is rolled back has been none');
elsewhere("SELECT flohsync.configure_sync('c', 'device', '{\"syncTriggerMode\": \"none\"}')");
deliver('d-3', displayName => "Known $_") for 5 .. 6;
elsewhere('VACUUM FULL flohsync.connector_sync_config');
is(deliver('d-3', displayName => 'Rewritten'), 'updated changed', 'the table of configurations may be written anew');
elsewhere("UPDATE flohsync.connector_sync_config SET last_full_pass_at = clock_timestamp() + interval '1 hour'");
is(deliver('d-3', displayName => 'Late'), 'ignored same', 'what a full pass has confirmed since is not changed by what is older');
elsewhere('UPDATE flohsync.connector_sync_config SET last_full_pass_at = NULL');
is(deliver('d-3', displayName => 'Not late'), 'updated changed', 'nor is that remembered');
elsewhere("INSERT INTO _flohsync.former_pass (connector_id, resource_type, confirmed_at) SELECT id, 'device', clock_timestamp() + interval '1 hour' FROM flohsync.connector_definition");
is(deliver('d-3', displayName => 'Late'), 'ignored same', 'a pass of a configuration that was deleted counts, too');
elsewhere('DELETE FROM _flohsync.former_pass');
elsewhere("INSERT INTO flohsync.connector_sync_match (connector_id, resource_type, external_id, connector_resource_id, match_status, match_confidence) SELECT connector_id, resource_type, external_id, id, 'unmatched', 'none' FROM flohsync.resource_record WHERE external_id = 'd-3'");
elsewhere("INSERT INTO flohsync.floh_user (iss, sub, email, display_name, confirmed) VALUES ('i', 's', 'three\@acme.example', 'Three', true)");
deliver('d-3', email => 'three@acme.example');
is($f->sql("SELECT match_status FROM flohsync.connector_sync_match"), 'matched', 'records are matched from when one of them is');
elsewhere('DROP INDEX flohsync.connector_sync_match_list');
is(deliver('d-3', displayName => 'By a statement'), 'updated changed', 'without an index it is looked up as it can be');

# Of the connector and its secrets nothing is remembered.
elsewhere("SELECT flohsync.update_connector('c', '{\"enabled\": false}')");
like(deliver('d-3'), qr/^55000: /, 'a connector that is disabled takes nothing any more');
elsewhere("SELECT flohsync.update_connector('c', '{\"enabled\": true}')");
elsewhere("SELECT flohsync.set_secret('c', 'webhook', 'another secret of 24 characters')");
like(deliver('d-3'), qr/^28000: /, 'nor does one with another secret');
elsewhere("SELECT flohsync.set_secret('c', 'webhook_previous', " . literal($Hooks::secret) . ')');
is(deliver('d-3', displayName => 'Rotated'), 'updated changed', 'but for the one before it');
my $id = $f->sql('SELECT id FROM flohsync.connector_definition');
$body = event('d-3', displayName => 'By id');
is($f->receive(uc $id, $body, Hooks::signed('standard', $body)), 'updated changed', 'a connector is found by its id');
like($f->receive($_, $body, Hooks::signed('standard', $body)), qr/^28000: webhook is not authentic/, "not by \"$_\"") for 'd', '', substr($id, 0, -1), "$id ", '00000000-0000-0000-0000-000000000000', "{$id}";

#
# What is forgotten
#

$f->sql("INSERT INTO _flohsync.webhook_delivery SELECT id, 'old ' || g, now() - interval '8 days' FROM flohsync.connector_definition, generate_series(1, 10) g");
$f->sql("INSERT INTO _flohsync.webhook_delivery SELECT id, 'young ' || g, now() - interval '6 days' FROM flohsync.connector_definition, generate_series(1, 20000) g");
sub read_rows { $f->sql('SELECT pg_stat_force_next_flush()'); return $f->sql("SELECT pg_stat_clear_snapshot(); SELECT sum(s.idx_tup_read) + (SELECT t.seq_tup_read FROM pg_stat_all_tables t WHERE t.relname = 'webhook_delivery') FROM pg_stat_all_indexes s WHERE s.relname = 'webhook_delivery'") =~ s/\s//gr }
my $before = read_rows();
$f->sql("SELECT _flohsync.forget_webhooks('1 day')");
my $read = read_rows() - $before;
is($f->sql("SELECT count(*) FILTER (WHERE webhook_id LIKE 'old%') || ' ' || count(*) FILTER (WHERE webhook_id LIKE 'young%') FROM _flohsync.webhook_delivery"), '0 20000', 'deliveries of more than a week ago are forgotten');
cmp_ok($read, '<', 1000, 'and the others are not looked at for it');

$f->no_crash;
done_testing();
