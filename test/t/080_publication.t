# A publication of all tables refuses updates and deletions of tables whose rows
# cannot be told apart: under one, all that flohsync does still works.
use strict;
use warnings;

use JSON::PP;
use People;
use Test::More;

People::start(upstream => 0, conf => "wal_level = logical\nmax_wal_senders = 4\n");
$f->sql('create publication everything for all tables');

begin({ createUsers => JSON::PP::true, deactivateUsers => JSON::PP::true, staleRetention => '0s', safeguards => { maxStaleFraction => undef, maxDeactivateFraction => undef }, attributeMappings => [ { sourcePath => 'attributes.title', targetField => 'title', writeMode => 'overwrite_always' } ] });
person($_, "p$_\@acme.com", title => 'T') for 1 .. 20;
is(one_pass(), 'success', 'a first pass: users are made, profiles filled');
is($f->sql('select count(*) from flohsync.floh_user'), 20, 'all of them');
person(1, 'p1@acme.com', title => 'Chief');
gone(15 .. 20);
is(one_pass(), 'success', 'a pass with changes, departures and a purge');
is($f->counts($c, 'user'), '14 0', 'what is gone is removed');
is($f->sql('select count(*) from flohsync.floh_user where deleted_at is not null'), 6, 'and deactivated');
is(profile('p1@acme.com')->{title}, 'Chief', 'what changed is in the profile') or diag(explain profile('p1@acme.com'));
person(15, 'p15@acme.com', title => 'T');
is(one_pass(), 'success', 'a pass with somebody who is back');

$f->sql("update flohsync.floh_user set display_name = 'renamed' where email = 'p2\@acme.com'");
$f->sql("delete from flohsync.floh_user where email = 'p3\@acme.com'");
is(one_pass(), 'success', 'a pass after users were changed');

my $hook = sub { my ($action, $id, %data) = @_; return $f->json("select flohsync.handle_webhook('$c', " . Flohsync::jsonb({ action => $action, resourceType => 'user', resourceId => $id, data => \%data }) . ')') };
ok($hook->('created', 'w', displayName => 'W', email => 'w@acme.com')->{changed}, 'a webhook adds');
ok($hook->('updated', 'w', displayName => 'X')->{changed}, 'changes');
ok($hook->('deleted', 'w')->{changed}, 'and removes');
is($f->sql("select flohsync.upsert_resources('$c', 'user', '[{\"externalId\": \"u\"}, {}]') ->> 'added'"), 1, 'an upsert');
my $match = $f->sql("select id from flohsync.connector_sync_match where external_id = 'u'");
$f->sql("select flohsync.match_users('$c', 'user')");
$match = $f->sql("select id from flohsync.connector_sync_match where external_id = 'u'");
$f->sql("select flohsync.resolve_match('$match', 'skip')");
$f->sql("select flohsync.unlink_match('$match')");
ok($f->sql("select flohsync.mark_stale('$c', 'user', 'infinity')") > 10, 'mark_stale');
ok($f->sql("select flohsync.purge_stale('$c', 'user', '0')") > 10, 'purge_stale');
$f->sql("select flohsync.delete_sync_config('$c', 'user'); select flohsync.drop_connector('$c')");
is($f->sql('select count(*) from flohsync.connector_sync_match'), 0, 'drop_connector leaves nothing');
$f->sql('select _flohsync.forget_webhooks(interval \'1 second\')') if $f->sql("select to_regprocedure('_flohsync.forget_webhooks(interval)') is not null") eq 't';

# So do they who are not ours
$f->sql('drop publication everything; drop extension flohsync');
pass('the extension goes');

$f->no_crash;
done_testing();
