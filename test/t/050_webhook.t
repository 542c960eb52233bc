# Webhooks that the caller trusts: what each action does to records, which of
# two events counts, what is refused, and whose rights are used.
use strict;
use warnings;
use utf8;

use Encode qw(decode_utf8);
use Flohsync;
use Test::More;

my $f = Flohsync->new(upstream => 0);
$f->sql("select flohsync.create_connector('acme', 'sql', '{\"queries\": {\"user\": \"select null::text as external_id, null::text as display_name, null::text as email, null::jsonb as attributes where false\"}}')");

# A webhook; its answer as "action changed", or the error.
sub hook
{
	my ($body, $connector) = @_;
	my $r = $f->try_sql('select flohsync.handle_webhook(' . literal($connector // 'acme') . ', ' . Flohsync::jsonb($body) . ')');
	return "$r->{state}: $r->{message}" unless $r->{ok};
	my $answer = decode_json_text($r->{out});
	return "answer: $r->{out}" if join(',', sort keys %$answer) ne 'accepted,action,changed' || !$answer->{accepted};
	return $answer->{action} . ' ' . ($answer->{changed} ? 'changed' : 'same');
}
sub event { my ($action, $id, $data, %more) = @_; return { action => $action, resourceId => $id, resourceType => 'user', defined $data ? (data => $data) : (), %more } }
sub row { return decode_utf8($f->sql("select concat_ws('|', display_name, email, attributes::text, case when stale_since is not null then 'stale' end) from flohsync.connector_resource where external_id = " . literal($_[0]))) }
sub count_of { return $f->sql("select count(*) from " . ($_[0] =~ /^(webhook_delivery|resource_tombstone|record_change)$/ ? '_' : '') . "flohsync.$_[0]") }
sub ago { my ($s) = @_; return $f->sql("select _flohsync.iso(clock_timestamp() - make_interval(secs => $s))") }

#
# Actions
#
is(hook(event('created', 'u-1', { displayName => 'Jane', email => 'jane@acme.com', attributes => { dept => 'R&D', level => 2 } })), 'created changed', 'a record is created');
is(row('u-1'), 'Jane|jane@acme.com|{"dept": "R&D", "level": 2}', 'as the data says');
is(hook(event('updated', 'u-1', { displayName => 'Jane Doe', email => 'jane@acme.com' })), 'updated changed', 'it is updated');
is(row('u-1'), 'Jane Doe|jane@acme.com|{"dept": "R&D", "level": 2}', 'and what the data does not name stays');
is(hook(event('updated', 'u-1', { attributes => { level => 3, boss => undef } })), 'updated changed', 'so it is within the attributes');
is(row('u-1'), 'Jane Doe|jane@acme.com|{"boss": null, "dept": "R&D", "level": 3}', 'key by key');
is(hook(event('updated', 'u-1', { displayName => 'Jane Doe', attributes => { level => 3 } })), 'updated same', 'the same again changes nothing');
is(hook(event('updated', 'u-1', {})), 'updated same', 'nor does no data');
is(hook(event('updated', 'u-1', { email => undef })), 'updated changed', 'null is a value');
is(row('u-1'), 'Jane Doe|{"boss": null, "dept": "R&D", "level": 3}', 'it takes the old one away');
is(hook(event('updated', 'u-1', { attributes => undef })), 'updated changed', 'for all attributes at once, too');
is(row('u-1'), 'Jane Doe', 'they are gone');
is(hook(event('updated', 'u-2', { displayName => 'Ümlaut "two" \\' })), 'updated changed', 'an update of an unknown record makes it');
is(row('u-2'), 'Ümlaut "two" \\', 'as it is');
is(hook(event('created', 'u-2', { email => 'two@acme.com' })), 'created changed', 'a creation of a known record updates it');
is(row('u-2'), 'Ümlaut "two" \\|two@acme.com', 'and only what it names');
is(hook({ %{ event('created', 7, { displayName => 'Seven' }) } }), 'created changed', 'an integer is an id');
is(row('7'), 'Seven', 'as its text');
is($f->sql('select count(*) from flohsync.connector_resource where sync_hash <> flohsync.resource_hash(external_id, display_name, email, attributes)'), 0, 'each hash is that of the whole record');
$f->sql("select flohsync.mark_stale('acme', 'user', 'infinity')");
is(hook(event('updated', 'u-2', {})), 'updated changed', 'a stale record is back');
is(row('u-2'), 'Ümlaut "two" \\|two@acme.com', 'as it was');
is(hook(event('deleted', 'u-2')), 'deleted changed', 'a record is deleted');
is(row('u-2'), '', 'and gone');
is($f->sql("select count(*) from _flohsync.resource_tombstone where external_id = 'u-2'"), 1, 'a tombstone is left');
is(hook(event('deleted', 'u-2')), 'deleted same', 'it cannot be deleted again');
is(hook(event('deleted', 'never-there', undef)), 'deleted same', 'nor one that is not known');
is($f->sql("select count(*) from _flohsync.resource_tombstone where external_id = 'never-there'"), 1, 'which leaves a tombstone all the same');
is($f->sql("select count(*) from flohsync.resource_record where external_id = 'never-there'"), 0, 'and nothing else');
is(hook(event('created', 'u-2', { displayName => 'back' })), 'created changed', 'a later creation is a new record');
is(row('u-2'), 'back', 'with nothing of the old one');
$f->sql("update _flohsync.resource_tombstone set deleted_at = '2099-01-01' where external_id = 'never-there'");
is($f->sql("select flohsync.upsert_resource('acme', 'user', '{\"externalId\": \"never-there\"}')"), 'added', 'a tombstone of a clock that was wrong keeps nothing out');
is(hook(event('deleted', 'never-there')), 'deleted changed', 'deleted again');
is($f->sql("select flohsync.upsert_resource('acme', 'user', '{\"externalId\": \"never-there\"}', now() - interval '1 second')"), 'ignored', 'it has a time that counts');
$f->sql("update _flohsync.resource_tombstone set deleted_at = '2099-01-01' where external_id = 'never-there'; select _flohsync.forget_webhooks('30 days')");
is($f->sql("select count(*) from _flohsync.resource_tombstone where external_id = 'never-there'"), 0, 'and such a one is not kept until then');
is(hook({ action => 'created', resourceId => 'g-1', resourceType => 'no.such-type_yet', data => { displayName => 'G' } }), 'created changed', 'a type without a configuration');
is(row('g-1'), 'G', 'is stored as well');

#
# Which of two events counts
#
my @t = map { ago(3600 - 60 * $_) } 0 .. 9;
is(hook(event('created', 'o', { displayName => 'at 1' }, timestamp => $t[1])), 'created changed', 'an event with its time');
is(hook(event('updated', 'o', { displayName => 'at 3' }, timestamp => $t[3])), 'updated changed', 'a later one');
is(hook(event('updated', 'o', { displayName => 'at 2' }, timestamp => $t[2])), 'ignored same', 'one from before is ignored');
is(row('o'), 'at 3', 'and changes nothing');
is(hook(event('updated', 'o', { displayName => 'at 3' }, timestamp => $t[2])), 'ignored same', 'also where it says the same');
is(hook(event('deleted', 'o', undef, timestamp => $t[2])), 'ignored same', 'so is a deletion');
is($f->sql("select count(*) from _flohsync.resource_tombstone where external_id = 'o'"), 0, 'which leaves no tombstone');
is(hook(event('updated', 'o', { displayName => 'at 3 too' }, occurredAt => $t[3])), 'updated changed', 'at the same time counts what came last');
is(hook(event('deleted', 'o', undef, occurredAt => $t[5])), 'deleted changed', 'a later deletion');
is(hook(event('created', 'o', { displayName => 'late' }, timestamp => $t[4])), 'ignored same', 'a creation from before it is ignored');
is(hook(event('updated', 'o', { displayName => 'late' }, timestamp => $t[4])), 'ignored same', 'and an update');
is(row('o'), '', 'it stays away');
is(hook(event('deleted', 'o', undef, timestamp => $t[4])), 'deleted same', 'an older deletion');
is(hook(event('created', 'o', { displayName => 'late' }, timestamp => $t[4])), 'ignored same', 'does not open the door');
is(hook(event('created', 'o', { displayName => 'anew' }, timestamp => $t[6])), 'created changed', 'a creation after it counts');
# Within the five minutes
my @m = map { ago(100 - 10 * $_) } 0 .. 5;
is(join(', ', map { hook(event($_->[0], 'm', { displayName => "at $_->[1]" }, timestamp => $m[ $_->[1] ])) } [ 'created', 1 ], [ 'updated', 3 ], [ 'updated', 2 ], [ 'deleted', 2 ], [ 'deleted', 4 ], [ 'created', 3 ], [ 'created', 5 ]),
	'created changed, updated changed, ignored same, ignored same, deleted changed, ignored same, created changed', 'so it is among events that just happened');
is(row('m'), 'at 5', 'the last one stays');
hook(event('deleted', 'm'));
# Against what somebody else has observed
is($f->sql("select flohsync.upsert_resource('acme', 'user', '{\"externalId\": \"o\", \"displayName\": \"by hand\"}')"), 'updated', 'an upsert now');
is(hook(event('updated', 'o', { displayName => 'an old story' }, timestamp => $t[7])), 'ignored same', 'an event of an hour ago that comes only now is older');
is(hook(event('updated', 'o', { displayName => 'just now' }, timestamp => ago(120))), 'updated changed', 'within five minutes, when it comes counts: clocks differ');
is(hook(event('updated', 'o', { displayName => 'without a time' })), 'updated changed', 'without a time, too');
is($f->sql("select flohsync.upsert_resource('acme', 'user', '{\"externalId\": \"o\", \"displayName\": \"older\"}', now() - interval '1 second')"), 'ignored', 'an upsert that is older than the webhook is ignored');
is(hook(event('deleted', 'o', undef, timestamp => $t[9])), 'ignored same', 'a deletion that is older than all that is ignored');
is(hook(event('updated', 'f', { displayName => 'from 2099' }, timestamp => '2099-01-01T00:00:00Z')), 'updated changed', 'a time in the future');
is(hook(event('updated', 'f', { displayName => 'now' }, timestamp => ago(0))), 'updated changed', 'does not lock out the present');
is($f->sql("select observed_at <= now() from flohsync.resource_record where external_id = 'f'"), 't', 'nor is it believed');
for ([ '2026-01-31T12:00:00Z', '2026-01-31 12:00:00+00' ], [ '2026-01-31t12:00:00.5+02:00', '2026-01-31 10:00:00.5+00' ], [ '2024-02-29 23:59:60-0530', '2024-03-01 05:30:00+00' ],
	[ '2026-01-31T12:00', '2026-01-31 12:00:00+00' ], [ 1767225600, '2026-01-01 00:00:00+00' ], [ 1767225600.9, '2026-01-01 00:00:00+00' ], [ '1767225600', '2026-01-01 00:00:00+00' ], [ 1767225600250, '2026-01-01 00:00:00.25+00' ])
{
	my $id = 'time ' . $_->[0];
	hook(event('updated', $id, {}, timestamp => $_->[0]));
	is($f->sql("set timezone = 'UTC'; select event_at from flohsync.resource_record where external_id = " . literal($id)), $_->[1], "the time $_->[0]");
}
for ('yesterday', 'infinity', '2026-02-29T00:00:00Z', '2026-13-01T00:00:00Z', '2026-01-01', '2026-01-01T24:00:00Z', '2026-01-01T00:00:00+25:00', '2026-01-01T00:00:00Zx', '', -5, { a => 1 }, [], JSON::PP::true, '9' x 30)
{
	like(hook(event('updated', 'bad-time', { displayName => 'x' }, timestamp => $_)), qr/^22023: .*"timestamp" is not a time/, 'no time: ' . json_text($_));
}

#
# What is refused
#
my $before = $f->sql("select hashtextextended(string_agg(r::text, '' order by r.record_no), 0)::text || (select count(*) from _flohsync.resource_tombstone) from flohsync.resource_record r");
like(hook($_->[0]), qr/^22023: .*$_->[1]/, "refused: $_->[1]")
  for [ event('frobbed', 'u-1', {}), '"action" is unknown' ], [ { %{ event('', 'u-1', {}) } }, '"action" is unknown' ],
  [ { resourceId => 'u-1', resourceType => 'user' }, '"action" is missing' ], [ event(5, 'u-1', {}), '"action" is not a string' ], [ event('UPDATED', 'u-1', {}), '"action" is unknown' ],
  [ event('updated', undef, {}), '"resourceId" is missing' ], [ event('deleted', ''), '"resourceId" is empty' ], [ event('updated', { a => 1 }, {}), '"resourceId" is neither' ],
  [ event('updated', 1.5, {}), '"resourceId" is neither' ], [ event('deleted', 'x' x 256), '"resourceId" is longer' ], [ event('created', "\x{20ac}" x 256, {}), '"resourceId" is longer' ],
  [ event('updated', 'u-1'), '"data" is missing' ], [ event('updated', 'u-1', []), '"data" is not an object' ], [ event('updated', 'u-1', 'text'), '"data" is not an object' ],
  [ event('created', 'new', 5), '"data" is not an object' ],
  [ event('updated', 'u-1', { displayName => 5 }), 'displayName is not a string' ], [ event('created', 'new', { displayName => JSON::PP::true }), 'displayName is not a string' ],
  [ event('updated', 'u-1', { email => [] }), 'email is not a string' ], [ event('created', 'new', { email => {} }), 'email is not a string' ],
  [ event('updated', 'u-1', { email => 'x' x 256 }), 'email is longer' ],
  [ event('updated', 'u-1', { attributes => [ 1 ] }), 'attributes is not an object' ], [ event('created', 'new', { attributes => 'x' }), 'attributes is not an object' ],
  [ event('updated', 'u-1', { externalId => 'u-2' }), '"data.externalId" is not the resourceId' ],
  [ event('updated', 'u-1', {}, resourceType => 'us er'), '"resourceType" is not a resource type' ], [ event('deleted', 'u-1', undef, resourceType => 'x' x 65), 'is not a resource type' ],
  [ event('updated', 'u-1', {}, resourceType => 5), '"resourceType" is not a string' ],
  [ event('updated', 'u-1', { attributes => { deep => eval { my $v = 1; $v = [$v] for 1 .. 70; $v } } }), 'nested' ],
  [ [ 1 ], 'the body is not a JSON object' ], [ 'text', 'the body is not a JSON object' ];
$f->fails_like("select flohsync.handle_webhook('acme', '{\"action\": \"created\", \"resourceId\": \"bomb\", \"resourceType\": \"user\", \"data\": {\"attributes\": {\"n\": 1e131071}}}')", '22023', qr/exponent over 400/, 'a number that goes off');
my $r = $f->try_sql("select flohsync.handle_webhook('acme', '{\"action\": \"x\", \"resourceType\": \"user\", \"resourceId\": \"1\"}')");
ok($r->{hint} =~ /created.*updated.*deleted.*resourceId.*resourceType/ && $r->{detail} eq 'Nothing was changed.', 'the hint shows what a body is');
$f->fails_like("select flohsync.handle_webhook('acme', null)", '22004', qr/null/, 'no body');
$f->fails_like("select flohsync.handle_webhook('nobody', '{}')", '42704', qr/acme/, 'no such connector');
$f->sql("select flohsync.update_connector('acme', '{\"enabled\": false}')");
$f->fails_like("select flohsync.handle_webhook('acme', '{\"action\": \"deleted\", \"resourceType\": \"user\", \"resourceId\": \"u-1\"}')", '55000', qr/disabled/, 'a disabled connector takes none');
$f->sql("select flohsync.update_connector('acme', '{\"enabled\": true}')");
is($f->sql("select hashtextextended(string_agg(r::text, '' order by r.record_no), 0)::text || (select count(*) from _flohsync.resource_tombstone) from flohsync.resource_record r"), $before, 'nothing of that changed anything');

#
# Filter rules
#
$f->configure('acme', 'user', filterRules => { emailDomains => ['acme.com'] });
is(hook(event('created', 'out', { email => 'x@other.org' })), 'ignored same', 'a record out of scope is ignored');
is(row('out'), '', 'it is not there');
is(hook(event('created', 'in', { email => 'in@acme.com', displayName => 'In' })), 'created changed', 'one in scope is not');
is(hook(event('updated', 'in', { displayName => 'Inn' })), 'updated changed', 'the rules look at the whole record, not at the data');
is(hook(event('updated', 'in', { email => 'in@other.org' }, timestamp => ago(86400))), 'ignored same', 'old news does not move it out');
is(hook(event('updated', 'in', { email => 'in@other.org' })), 'updated changed', 'an update moves it out of scope');
is(row('in'), 'Inn|in@acme.com|stale', 'it is stale, as after a pass');
is(hook(event('updated', 'in', { email => 'in@other.org' })), 'ignored same', 'once');
is(hook(event('updated', 'in', { email => 'in@acme.com' })), 'updated changed', 'and back');
is(row('in'), 'Inn|in@acme.com', 'it is there again');
is(hook(event('updated', 'in', { email => 'in@other.org' })), 'updated changed', 'out again');
is(hook(event('deleted', 'in')), 'deleted changed', 'a deletion does not ask for the scope');
$f->configure('acme', 'user', filterRules => { memberOfSyncedGroups => JSON::PP::true });
$f->sql("select flohsync.upsert_resource('acme', 'group', '{\"externalId\": \"g\"}')");
is(hook(event('created', 'm', { attributes => { groups => ['g'] } })), 'created changed', 'a member of a synced group');
is(hook(event('created', 'n', { attributes => { groups => ['h'] } })), 'ignored same', 'a member of none');
is(hook(event('updated', 'm', { attributes => { groups => [] } })), 'updated changed', 'no member any more');
like(row('m'), qr/stale/, 'is out of scope');
$f->configure('acme', 'user', filterRules => undef, hashIgnore => ['attributes.lastLogin']);
is(hook(event('created', 'h', { attributes => { lastLogin => 1, a => 1 } })), 'created changed', 'with an attribute that does not count');
is(hook(event('updated', 'h', { attributes => { lastLogin => 2 } })), 'updated same', 'its change is none');
hook(event('deleted', 'h'));

#
# Entitlements
#
is(hook({ action => 'granted', user => 'u-1', what => { role => 'admin' } }), 'entitlement changed', 'a body without a resource type');
is(hook({ resourceType => undef, x => 1 }), 'entitlement changed', 'null is none');
is($f->sql("select string_agg(body::text, ' ' order by id) from flohsync.entitlement_event"), '{"user": "u-1", "what": {"role": "admin"}, "action": "granted"} {"x": 1, "resourceType": null}', 'is recorded');
$f->sql(<<'SQL');
create schema app;
create role app_owner nologin;
grant usage, create on schema app to app_owner;
create table app.seen (who name, session name, connector uuid, body jsonb);
grant all on app.seen to app_owner;
create function app.handle(connector uuid, body jsonb) returns boolean language plpgsql as $$
begin
  insert into app.seen values (current_user, session_user, connector, body);
  if body ? 'fail' then raise exception 'no licence'; end if;
  return body ? 'grant';
end $$;
create function app.by_name(connector text, body jsonb) returns void language sql as $$ insert into app.seen values (current_user, session_user, connector::uuid, body) $$;
create function app.body_only(body jsonb) returns void language sql as $$ insert into app.seen values (current_user, session_user, null, body) $$;
create function app.set_of(connector uuid, body jsonb) returns setof int language sql as $$ select 1 $$;
revoke all on function app.handle(uuid, jsonb) from public;
alter function app.handle(uuid, jsonb) owner to app_owner;
grant usage on schema app to flohsync_worker, flohsync_nobody;
grant insert on app.seen to flohsync_worker, flohsync_nobody;
SQL
$f->fails_like("select flohsync.set_entitlement_handler('$_')", '22023', qr/cannot handle entitlement events/, "no handler: $_") for 'app.set_of(uuid, jsonb)', 'pg_catalog.now()', 'pg_catalog.max(int)', 'pg_catalog.jsonb_build_object()', 'pg_catalog.jsonb_concat(jsonb, jsonb)';
$f->sql("grant execute on function flohsync.set_entitlement_handler(regprocedure) to app_owner; grant usage on schema flohsync to app_owner");
$f->sql("set role app_owner; select flohsync.set_entitlement_handler('app.handle(uuid, jsonb)'); reset role");
is(hook({ grant => 1 }), 'entitlement changed', 'a handler takes it');
is(hook({ other => 1 }), 'entitlement same', 'and says whether it changed anything');
is($f->sql("select string_agg(concat_ws(' ', who, connector = (select id from flohsync.connector_definition where name = 'acme'), body), ', ') from app.seen"),
	'app_owner t {"grant": 1}, app_owner t {"other": 1}', 'with the rights of who set it');
is(count_of('entitlement_event'), 2, 'nothing is recorded then');
is(hook({ fail => 1 }), 'P0001: no licence', 'its error is the webhook\'s');
is($f->sql("select current_user || ' ' || count(*) from app.seen"), $f->superuser . ' 2', 'nothing of it stays, nor of its rights');
$f->sql("select flohsync.set_entitlement_handler('app.handle(uuid, jsonb)')");
is(hook({ b => 1 }), 'entitlement same', 'set by a superuser');
is($f->sql("select who from app.seen where body ? 'b'"), 'app_owner', 'it has the rights of its owner: who can change it gets no others by that');
$f->sql("select flohsync.set_entitlement_handler('app.by_name(text, jsonb)')");
is(hook({ a => 2 }), 'entitlement changed', 'one that takes the connector as a text');
$f->sql("select flohsync.set_entitlement_handler('app.body_only(jsonb)')");
is(hook({ a => 3 }), 'entitlement changed', 'or not at all');
is($f->sql("select string_agg(distinct who::text, ' ') from app.seen where body ? 'a'"), 'flohsync_nobody', 'one of a superuser runs as a role without rights');
$f->sql('drop function app.body_only(jsonb)');
like(hook({ a => 4 }), qr/^42704: the entitlement handler app.body_only\(jsonb\) of role "@{[ $f->superuser ]}" no longer exists/, 'one that is gone');
is(hook(event('created', 'still', {})), 'created changed', 'records are taken all the same');
$f->sql('select flohsync.set_entitlement_handler(null)');
is(hook({ a => 5 }), 'entitlement changed', 'none again');
is(count_of('entitlement_event'), 3, 'recorded again');

#
# Rights
#
$f->sql("create role hooks login; create role nobody login; grant usage on schema flohsync to hooks, nobody; grant execute on function flohsync.handle_webhook(text, jsonb) to hooks");
sub as_role { my ($role, $sql) = @_; return $f->try_sql("SET SESSION AUTHORIZATION $role; $sql") }
is(as_role('nobody', "select flohsync.handle_webhook('acme', '{}')")->{state}, '42501', 'nobody may call it');
my $done = as_role('hooks', "select flohsync.handle_webhook('acme', '{\"action\": \"created\", \"resourceType\": \"user\", \"resourceId\": \"by-hooks\", \"data\": {}}') ->> 'changed', current_user");
is($done->{out}, 'true|hooks', 'who is granted it may, and is himself again afterwards');
is(as_role('hooks', "select count(*) from $_")->{state}, '42501', "and sees nothing of $_") for qw(flohsync.resource_record _flohsync.webhook_delivery flohsync.entitlement_event flohsync.connector_definition);
is(as_role('hooks', "do \$\$ begin perform flohsync.handle_webhook('acme', '[]'); exception when others then perform count(*) from flohsync.resource_record; end \$\$")->{state}, '42501', 'nor after an error that he catches');
# A trap that the caller lays in his own schemas is not stepped into.
is(as_role('hooks', <<'SQL')->{out}, 'true', 'operators and functions of the caller are not found');
create temp table resource_record (x int);
create function pg_temp.evil(a jsonb, b jsonb) returns jsonb language plpgsql as $$ begin raise exception 'trapped as %', current_user; end $$;
create operator pg_temp.|| (leftarg = jsonb, rightarg = jsonb, function = pg_temp.evil);
set search_path = pg_temp, pg_catalog, flohsync;
select flohsync.handle_webhook('acme', '{"action": "updated", "resourceType": "user", "resourceId": "by-hooks", "data": {"attributes": {"a": 1}}}') ->> 'changed';
SQL
is($f->sql("select count(*) from information_schema.routine_privileges where specific_schema = 'flohsync' and grantee = 'PUBLIC'"), 0, 'nothing is granted to PUBLIC');
# An application's trigger must not get the rights of the extension's owner.
$f->sql(<<'SQL');
create function app.spy() returns trigger language plpgsql as $$ begin insert into app.seen values (current_user, session_user, null, '{"spy": 1}'); return null; end $$;
create trigger spy after insert on flohsync.resource_record for each statement execute function app.spy();
SQL
hook(event('created', 'spied', {}));
is($f->sql("select distinct who from app.seen where body ? 'spy'"), 'flohsync_worker', 'a superuser\'s webhook is handled as the workers do it');
$f->sql('drop trigger spy on flohsync.resource_record');
# Read-only, repeatable read, serializable
is($f->try_sql("BEGIN READ ONLY; select flohsync.handle_webhook('acme', '{\"a\": 1}')")->{state}, '25006', 'not in a read-only transaction');
for my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	is($f->try_sql("BEGIN ISOLATION LEVEL $level; select flohsync.handle_webhook('acme', " . Flohsync::jsonb(event('updated', 'u-1', { displayName => $level })) . ") ->> 'changed'; COMMIT")->{out}, 'true', "in a transaction of level $level");
}
# Many in one transaction, and one that fails among them
is($f->sql("select count(*) from generate_series(1, 300) i, flohsync.handle_webhook('acme', jsonb_build_object('action', 'created', 'resourceId', 'bulk-' || i % 100, 'resourceType', 'bulk', 'data', jsonb_build_object('displayName', i::text))) h where (h ->> 'changed')::boolean"), 300, 'three hundred in one statement');
is($f->sql("select count(*) || ' ' || min(display_name::int) from flohsync.connector_resource where resource_type = 'bulk'"), '100 201', 'the last of each counts');

$f->invariants;
#
# Many matches of one type, and a webhook about another
#
$f->sql('create database many');
$f->sql(<<'SQL', 'many');
create extension flohsync;
select flohsync.create_connector('acme', 'sql', '{"queries": {"user": "select null::text as external_id, null::text as display_name, null::text as email, null::jsonb as attributes where false"}}');
select flohsync.configure_sync('acme', 'user', '{}'), flohsync.configure_sync('acme', 'group', '{}');
select flohsync.upsert_resources('acme', 'user', (select jsonb_agg(jsonb_build_object('externalId', repeat('u', 100) || i)) from generate_series(1, 5000) i));
select flohsync.match_users('acme', 'user');
vacuum analyze;
SQL
sub blocks { return $f->sql("select pg_stat_force_next_flush(); select sum(idx_blks_hit + idx_blks_read) from pg_statio_user_indexes where relname = 'connector_sync_match'", 'many') =~ s/\s//gr }
is($f->sql('select count(*) from flohsync.connector_sync_match', 'many'), 5000, 'many matches');
my $blocks = blocks();
$f->sql("select flohsync.handle_webhook('acme', jsonb_build_object('action', 'updated', 'resourceType', 'group', 'resourceId', 'g', 'data', jsonb_build_object('displayName', i::text))) from generate_series(1, 20) i", 'many');
cmp_ok(blocks() - $blocks, '<=', 20 * 5, 'a webhook about a type that nobody matches does not read them');

$f->no_crash;
done_testing;
