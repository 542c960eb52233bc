# What others put on tables of ours (triggers, rules, keys, constraints, indexes,
# views) never leads to a silent wrong answer: it does no harm, or an error names it.
use strict;
use warnings;

use JSON::PP;
use People;
use Test::More;

People::start(upstream => 0, conf => "flohsync.launcher_naptime = 1s\n");
begin({ createUsers => JSON::PP::true, staleRetention => '0s', safeguards => undef });
person($_, "p$_\@acme.com") for 1 .. 20;
is(one_pass(), 'success', 'a pass');
$f->sql("create table public.audit (at timestamptz default now(), what text)");
$f->sql("create function public.note() returns trigger language plpgsql as 'begin insert into public.audit(what) values (tg_op); return null; end'");
$f->sql("create function public.swallow() returns trigger language plpgsql as 'begin return null; end'");

# How many active records there are, as counted by rows and by what lists say
sub active { return join ' ', $f->sql("select count(*) from only flohsync.resource_record r where stale_since is null and r.connector_id = " . $f->connector_id($c)), $f->json("select flohsync.list_resources('$c', 'user', stale => false)")->{total} }

# Nothing is done while it is there; afterwards all is as the upstream has it.
my $new = 100;
sub refused
{
	my ($what, $like, $make, $unmake) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = active();
	$f->sql($make);
	$new++;
	person($new, "p$new\@acme.com");
	person(1, "new$new\@acme.com");
	gone($new - 100 + 1);
	$f->fails_like("call flohsync.sync('$c', 'user')", '55000', $like, "$what: no run");
	$f->fails_like("select flohsync.upsert_resource('$c', 'user', '{\"externalId\": \"x\"}')", '55000', $like, "$what: no upsert");
	like($f->sql('select flohsync.hindrance()'), $like, "$what: hindrance() says so");
	$f->sql($unmake);
	is(active(), $before, "$what: nothing was done");
	is(one_pass(), 'success', "$what: without it a pass comes through");
	is(active(), $before, "$what: one came, one went");
	is($f->sql("select email " . $f->scope($c, 'user') . " and external_id = '1'"), "new$new\@acme.com", "$what: one changed");
	return;
}
refused('a rule', qr/table "flohsync.resource_record" has the rule "nothing"/,
	'create rule nothing as on delete to flohsync.resource_record do instead nothing', 'drop rule nothing on flohsync.resource_record');
refused('a disabled trigger of ours', qr/trigger "tally_row" of table "flohsync.resource_record" is disabled/,
	'alter table flohsync.resource_record disable trigger tally_row', 'alter table flohsync.resource_record enable trigger tally_row');
refused('all triggers disabled, also those of foreign keys', qr/trigger "[^"]+" of table "flohsync.connector_sync_match" is disabled/,
	'alter table flohsync.connector_sync_match disable trigger all', 'alter table flohsync.connector_sync_match enable trigger all');
refused('triggers of ours for replicas only', qr/trigger "tally_state" of table "flohsync.resource_record" is disabled/,
	'alter table flohsync.resource_record enable replica trigger tally_state', 'alter table flohsync.resource_record enable trigger tally_state');

# A trigger before the change that skips a row, or changes it: the run fails and names it.
sub watched
{
	my ($what, $like, $make, $unmake) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = active();
	$new++;
	person($new, "p$new\@acme.com");
	person(1, "new$new\@acme.com");
	gone($new - 100 + 1);
	$f->sql($make);
	$f->sync($c, 'user');
	my ($run, $errors) = ($f->last_run($c, 'user'), errors() // '');
	if ($run->{status} eq 'error') { like($run->{error}, $like, "$what: the run fails") }
	else { like($errors, $like, "$what: the run says so") }
	$f->sql($unmake);
	is(one_pass(), 'success', "$what: without it a pass comes through");
	is(active(), $before, "$what: one came, one went");
	is($f->sql("select email " . $f->scope($c, 'user') . " and external_id = '1'"), "new$new\@acme.com", "$what: one changed");
	return;
}
$f->sql("create function public.upper_name() returns trigger language plpgsql as 'begin new.display_name := upper(new.display_name); return new; end';
	create function public.same() returns trigger language plpgsql as 'begin new.display_name := new.display_name || ''''; return new; end'");
for my $event ('insert', 'update', 'delete')
{
	watched("a trigger before $event", qr/trigger "aa_swallow" skipped a row of table "flohsync\.resource_record"/,
		"create trigger aa_swallow before $event on flohsync.resource_record for each row execute function public.swallow()", 'drop trigger aa_swallow on flohsync.resource_record');
	next if $event eq 'delete';
	watched("a trigger that changes what an $event writes", qr/trigger "upper_name" changed column "display_name" of a row of table "flohsync\.resource_record"/,
		"create trigger upper_name before $event on flohsync.resource_record for each row execute function public.upper_name()", 'drop trigger upper_name on flohsync.resource_record');
}
watched('a trigger before a new match', qr/trigger "Mine" skipped a row of table "flohsync\.connector_sync_match"/,
	'create trigger "Mine" before insert on flohsync.connector_sync_match for each row execute function public.swallow()', 'drop trigger "Mine" on flohsync.connector_sync_match');
$f->sql('create trigger aa_swallow before insert or update on flohsync.resource_record for each row execute function public.swallow()');
$f->fails_like("select flohsync.upsert_resource('$c', 'user', '{\"externalId\": \"x\"}')", '27000', qr/trigger "aa_swallow" skipped a row/, 'also of an upsert');
is($f->sql("with written as (update flohsync.resource_record set display_name = 'x' where external_id = '1' returning 1) select count(*) from written"), 0, 'statements of others are left alone');
$f->sql('drop trigger aa_swallow on flohsync.resource_record');
$f->sql('create trigger same before insert or update on flohsync.resource_record for each row execute function public.same()');
$new++;
person($new, "p$new\@acme.com");
person(1, "new$new\@acme.com", name => 'Other');
is(one_pass(), 'success', 'one that returns the row as it is does no harm');
is($f->sql("select display_name " . $f->scope($c, 'user') . " and external_id = '1'"), 'Other', 'what was to be written is');
$f->sql('drop trigger same on flohsync.resource_record');

# Triggers after the change, and for statements, do their work; one that may not is named.
$f->sql("create trigger zz_note after insert or update or delete on flohsync.resource_record for each row execute function public.note();
	create trigger zz_statement before insert on flohsync.resource_record for each statement execute function public.note();
	create trigger zz_off before insert on flohsync.resource_record for each row execute function public.swallow(); alter table flohsync.resource_record disable trigger zz_off");
person(200, 'p200@acme.com');
$f->sync($c, 'user');
my $run = $f->last_run($c, 'user');
is($run->{status}, 'error', 'a trigger without rights fails the run');
like($run->{error}, qr/permission denied for table audit: PL\/pgSQL function public\.note\(\)/, 'whose error names its function');
$f->sql('grant insert on public.audit to flohsync_worker');
is(one_pass(), 'success', 'with them the run comes through');
is($f->sql("select string_agg(what, ' ' order by what) from public.audit"), 'INSERT INSERT', 'the triggers were called');
$f->sql('drop trigger zz_note on flohsync.resource_record; drop trigger zz_statement on flohsync.resource_record; drop trigger zz_off on flohsync.resource_record');

# Behind the seam an application has triggers as it likes.
$f->sql("create function public.lower_mail() returns trigger language plpgsql as 'begin new.email := lower(new.email); if new.iss = ''-'' then new.sub := new.email; end if; return new; end';
	create trigger lower_mail before insert or update on flohsync.floh_user for each row execute function public.lower_mail()");
person(201, 'Upper@acme.com');
is(one_pass(), 'success', 'a trigger of the table of users');
is($f->sql("select count(*) from flohsync.floh_user where email = 'upper\@acme.com'"), 1, 'changes what is written there');
like(matches(), qr/\b201 (?:auto_)?matched \S+ upper\@acme\.com/, 'and the new user is the record\'s');
$f->sql('drop trigger lower_mail on flohsync.floh_user');

# A foreign key to records: those that it holds stay, the others are purged.
for my $when ('', ' deferrable initially deferred')
{
	my ($held, @others) = map { $new++; person($new, "p$new\@acme.com"); $new } 1 .. 5;
	is(one_pass(), 'success', "records to purge$when");
	$f->sql("create table public.badge (record uuid references flohsync.resource_record(id)$when); insert into public.badge select id from flohsync.resource_record where external_id = '$held'");
	my $before = active();
	gone($held, @others);
	is(one_pass(), 'success', "a foreign key of others$when does not fail the run");
	like(errors(), qr/post_sync: purge: 1 records cannot be purged: .*violates foreign key constraint "badge_record_fkey" on table "badge"/, 'what it keeps from being purged is told, and why');
	is($f->sql("select string_agg(external_id, ' ') " . $f->scope($c, 'user') . ' and stale_since is not null'), $held, 'the record stays, stale; the others went');
	my ($rows, $listed) = split ' ', active();
	is($rows, (split ' ', $before)[0] - 5, 'five are gone');
	is($listed, $rows, 'lists agree');
	$f->fails_like("select flohsync.purge_stale('$c', 'user')", '23503', qr/badge_record_fkey/, 'purge_stale names the key') if $when eq '';
	$f->sql('drop table public.badge');
	is(one_pass(), 'success', 'without the key');
	is($f->sql("select count(*) " . $f->scope($c, 'user') . ' and stale_since is not null'), 0, 'it goes');
}
# One that goes along, and one that forgets
$f->sql("create table public.badge (record uuid references flohsync.resource_record(id) on delete cascade, person uuid references flohsync.floh_user(id) on delete set null);
	insert into public.badge select id from flohsync.resource_record where external_id = '200'");
gone(200);
is(one_pass(), 'success', 'a key on delete cascade');
is($f->sql('select count(*) from public.badge'), 0, 'its row went along');
$f->sql('drop table public.badge');

# Constraints and unique indexes of others are named.
$f->sql("alter table flohsync.resource_record add constraint acme_only check (email like '%acme.com')");
person(300, 'x@other.org');
$f->sync($c, 'user');
like($f->last_run($c, 'user')->{error}, qr/violates check constraint "acme_only"/, 'a constraint of others');
$f->sql('alter table flohsync.resource_record drop constraint acme_only; create unique index one_mail on flohsync.resource_record (lower(email))');
person(300, 'p201@acme.com');
person(301, 'P201@acme.com');
$f->sync($c, 'user');
like($f->last_run($c, 'user')->{error}, qr/violates unique constraint "one_mail"/, 'a unique index of others');
$f->fails_like("select flohsync.upsert_resource('$c', 'user', '{\"externalId\": \"x\", \"email\": \"p2\@acme.com\"}')", '23505', qr/one_mail/, 'also of an upsert')
  if $f->sql("select count(*) " . $f->scope($c, 'user') . " and email = 'p2\@acme.com'");
$f->sql('drop index flohsync.one_mail');

# Views and functions over our tables, inheritance and publications do no harm.
$f->sql('create view public.mine as select r.*, c.name from flohsync.resource_record r join flohsync.connector_definition c on c.id = r.connector_id; create materialized view public.counts as select count(*) from public.mine;
	create rule only_select as on insert to public.mine do instead nothing; create statistics public.of_records on connector_id, resource_type from flohsync.resource_record');
is(one_pass(), 'success', 'views of others');
is($f->sql('select count(*) from public.mine'), (split ' ', active())[0], 'show what there is');
$f->sql('create table public.child () inherits (flohsync.resource_record)');
is(one_pass(), 'success', 'a child table');
my ($rows, $listed) = split ' ', active();
is($listed, $rows, 'of others');

$f->no_crash;
done_testing();
