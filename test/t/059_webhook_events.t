# Webhooks in the form of who sends them: what a map of the config finds in a
# body, several events in one, records that are asked for because the body has no
# data, and what the templates make of bodies as vendors send them.
use strict;
use warnings;

use Flohsync;
use Hooks;
use Test::More;

my $f = Hooks->new(records => 'user=30,group=3');
my $no = '28000: webhook is not authentic';
my ($true, $false) = (JSON::PP::true, JSON::PP::false);

# Sends a body to a connector, signed by its scheme.
my %scheme;
sub hook
{
	my ($c, $body, %o) = @_;
	my $text = ref $body ? json_text($body) : $body;
	return $f->receive($c, $text, Hooks::signed($scheme{$c}, $text, %o));
}
sub count_of { my ($c, $type) = @_; return $f->sql('select count(*) ' . $f->scope($c, $type)) }
sub ago { my ($s) = @_; return $f->sql("select _flohsync.iso(clock_timestamp() - make_interval(secs => $s))") }

#
# What a map finds
#
my %actions = (path => '$.event', values => { 'made' => 'created', 'edited' => 'updated', 'gone' => 'deleted', 5 => 'updated', 'true' => 'updated' });
sub mapped
{
	my ($name, %map) = @_;
	$scheme{$name} = 'hmac_hex';
	return $f->plain($name, { scheme => 'hmac_hex', map => { action => \%actions, resourceType => 'user', resourceId => '$.id', data => '$.record', %map } });
}
mapped('one');
is(hook('one', { event => 'made', id => 'a', record => { displayName => 'A' } }), 'created changed', 'an event is mapped');
is($f->row('one', 'user', 'a'), 'A', 'to its record');
is(hook('one', { event => 'edited', id => 'a', record => { attributes => { x => undef } } }), 'updated changed', 'null is a value of the data here, too');
is($f->row('one', 'user', 'a'), 'A|{"x": null}', 'and the rest stays');
is(hook('one', { event => 5, id => 'a', record => { email => 'a@b.c' } }), 'updated changed', 'a number is known by its text');
is(hook('one', { event => $true, id => 7, record => {} }), 'updated changed', 'so is a boolean, and a number is an id');
is($f->row('one', 'user', '7'), '', 'of a record with nothing');
is(hook('one', { event => 'gone', id => 'a' }), 'deleted changed', 'a deletion needs no data');
is(hook('one', json_text($_)), 'ignored same', 'what means nothing is ignored: ' . json_text($_)) for { event => 'other', id => 'a' }, { event => undef }, { event => {} }, { event => ['none'] }, {}, [], 'x', 5, undef;
is(hook('one', [ { event => 'edited', id => 'b', record => { displayName => 'B' } } ]), 'updated changed', 'paths are lax');
is(hook('one', $_->[0]), "22023: webhook rejected: $_->[1]", "refused: $_->[1]") for
  [ { event => 'made', record => {} }, '"resourceId" is missing' ], [ { event => 'made', id => undef, record => {} }, '"resourceId" is missing' ], [ { event => 'made', id => '', record => {} }, '"resourceId" is empty' ],
  [ { event => 'made', id => { a => 1 }, record => {} }, '"resourceId" is neither a string nor an integer' ], [ { event => 'made', id => 1.5, record => {} }, '"resourceId" is neither a string nor an integer' ],
  [ { event => 'gone', id => 'x' x 256 }, '"resourceId" is longer than 255 characters' ], [ { event => 'made', id => 'a', record => 5 }, '"data" is not an object' ], [ { event => 'made', id => 'a', record => { email => 5 } }, '"data" email is not a string' ];
is($f->try_sql(Hooks::receive_sql('one', '{', Hooks::signed('hmac_hex', '{')))->{state}, '22P02', 'a body that is no JSON');
is(count_of('one', 'user'), 2, 'nothing of these is there');

mapped('rich', id => '$.nr', at => '$.at', resourceType => { path => '$.kind', match => '^the (.*)$', values => { person => 'user', team => 'group' } }, resourceId => { path => [ '$.none', '$.path' ], match => '/([^/]+)$' },
	data => { displayName => [ '$.first', '$.second' ], email => '$.mail', attributes => { one => '$.a.one', two => '$.a.two[*]' } });
is(hook('rich', { event => 'made', nr => 1, kind => 'the person', path => '/users/u-1', second => 'S', a => { one => { x => 1 }, two => [ 2, 3 ], three => 3 } }), 'created changed', 'a part of a text is an id');
is($f->row('rich', 'user', 'u-1'), 'S|{"one": {"x": 1}, "two": 2}', 'data is put together of what paths find');
is(hook('rich', { event => 'edited', nr => 1, kind => 'the person', path => '/users/u-1', second => 'again' }), 'duplicate same', 'an event whose id is known does not count again');
is(hook('rich', { event => 'edited', nr => '2', kind => 'the person', path => '/users/u-1', mail => 'm@x', at => ago(100) }), 'updated changed', 'only what is found changes');
is($f->row('rich', 'user', 'u-1'), 'S|m@x|{"one": {"x": 1}, "two": 2}', 'and the rest stays');
is(hook('rich', { event => 'edited', nr => '3', kind => 'the person', path => '/users/u-1', mail => 'older@x', at => ago(200) }), 'ignored same', 'the time of an event is the one that a path finds');
is(hook('rich', { event => 'edited', nr => '4', kind => 'the person', path => '/users/u-1', mail => 'x@x', at => 'soon' }), '22023: webhook rejected: "timestamp" is not a time', 'if it is one');
is(hook('rich', { event => 'made', nr => '5', kind => 'the team', path => 'u-1', first => 'F', second => 'S' }), '22023: webhook rejected: "resourceId" is missing', 'a text without that part is no id');
is(hook('rich', { event => 'made', nr => '5', kind => 'the team', path => '/u-1', first => 'F', second => 'S' }), 'created changed', 'what was refused may come again');
is($f->row('rich', 'group', 'u-1'), 'F', 'the first that is found counts');
is(hook('rich', { event => 'made', kind => $_, path => '/u-9', first => 'F' }), 'ignored same', 'a type that means nothing: ' . json_text($_)) for 'the robot', 'person', undef, ('the ' x 1000) . 'person', {};
is(hook('rich', { event => 'made', nr => 'x' x 100000, kind => 'the team', path => '/long', first => 'F' }), 'created changed', 'a very long id of an event');
is(hook('rich', { event => 'made', nr => 'x' x 100000, kind => 'the team', path => '/long', first => 'G' }), 'duplicate same', 'is known again');

#
# Several events in one body
#
mapped('many', events => '$.events[*]', id => '$.nr');
sub events { my (@e) = @_; return { events => [ map { my ($event, $id, $name, %more) = @$_; { event => $event, id => $id, defined $name ? (record => { displayName => $name }) : (), %more } } @e ] } }
is(hook('many', { events => [] }), 'ignored same', 'no event at all');
is(hook('many', {}), 'ignored same', 'not even a place for them');
is(hook('many', events([ 'made', 'b', 'B' ])), 'created changed', 'one of one');
is(hook('many', events([ 'made', 'c', 'C' ], [ 'made', 'a', 'A' ], [ 'gone', 'b' ], [ 'other', 'x' ], [ 'edited', 'c', 'C2' ])), '5 events changed', 'five, of all sorts');
is($f->sql("select string_agg(external_id || display_name, ' ' order by external_id) " . $f->scope('many', 'user')), 'aA cC2', 'each has its effect, those of one record in their order');
is(hook('many', events([ 'made', 'c', 'C2' ], [ 'made', 'a', 'A' ])), '2 events same', 'none that changes anything');
is(hook('many', events([ 'made', 'd', 'D' ], [ 'gone', 'd' ], [ 'made', 'd', 'D2' ])), '3 events changed', 'made, gone and made');
is($f->row('many', 'user', 'd'), 'D2', 'in this order');
is(hook('many', events([ 'made', 'e', 'E' ], [ 'made', undef, 'F' ])), '22023: webhook rejected: "resourceId" is missing', 'one of them makes no sense');
is($f->row('many', 'user', 'e'), '', 'so none counts');
is(hook('many', events([ 'made', 'e', 'E', nr => 'n1' ], [ 'made', 'e', 'E2', nr => 'n1' ])), '2 events changed', 'an id that is there twice');
is($f->row('many', 'user', 'e'), 'E', 'counts once');
is(hook('many', events([ 'edited', 'e', 'E3', nr => 'n1' ], [ 'edited', 'e', 'E4', nr => 'n2' ])), '2 events changed', 'of two events one is known');
is($f->row('many', 'user', 'e'), 'E4', 'the other counts');
is(hook('many', events(map { [ 'made', "k-$_", "K $_" ] } 1 .. 1000)), '1000 events changed', 'a thousand events');
is($f->sql("select count(*) " . $f->scope('many', 'user') . " and external_id ~ '^k-' and display_name = replace(external_id, 'k-', 'K ')"), 1000, 'are a thousand records');
is(hook('many', events(map { [ 'gone', "k-$_" ] } 1 .. 1001)), '54000: the body of a webhook has more than 1000 events', 'more are too many');
# People are matched, each of them
$f->configure('many', 'user', createUsers => $true, deactivateUsers => $true, safeguards => undef);
is(hook('many', { events => [ map { { event => 'made', id => "p-$_", record => { displayName => "P $_", email => "p$_\@acme.com" } } } 1 .. 5 ] }), '5 events changed', 'people');
is($f->sql("select count(*) from flohsync.floh_user where email ~ '^p[0-9]\@'"), 5, 'become users');
is(hook('many', events(map { [ 'gone', "p-$_" ] } 3, 1)), '2 events changed', 'some leave');
is($f->sql("select string_agg(email || ' ' || active, ' ' order by email) from flohsync.floh_user where email ~ '^p[0-9]\@'"), 'p1@acme.com false p2@acme.com true p3@acme.com false p4@acme.com true p5@acme.com true', 'and are deactivated');
# By HTTP
my $text = json_text(events([ 'made', 'h1', 'H' ], [ 'made', 'h2', 'H' ]));
is($f->answer('many', 'POST', {}, Hooks::signed('hmac_hex', $text), $text), '{"body":{"accepted":true,"changed":true,"events":2},"contentType":"application/json","status":200}', 'the answer tells how many there were');

#
# Two bodies that meet the same people in two orders
#
mapped('other', events => '$.events[*]');
$f->configure('other', 'user', createUsers => $true, deactivateUsers => $true, safeguards => undef);
{
	# What pg_locks calls the locks: the turn of such bodies, and the matches of a configuration
	my ($turn, $matches) = (0x7113, 0x7110);
	sub waits_for { my ($class) = @_; return $f->comes_true("select count(*) = 1 from pg_locks where locktype = 'advisory' and not granted and objsubid = $class", sprintf 'it waits for lock %x', $class) }
	sub people { my ($c, @ids) = @_; my $body = json_text({ events => [ map { { event => 'made', id => "p-$_", record => { displayName => "at $c", email => "p$_\@acme.com" } } } @ids ] }); return Hooks::receive_sql($c, $body, Hooks::signed('hmac_hex', $body)) }
	$f->sql('select pg_advisory_lock(4711)');
	my @runs = $f->start_sql('BEGIN; ' . people('many', 2, 4) . '; SELECT pg_advisory_xact_lock(4711); COMMIT');
	$f->comes_true("select count(*) = 1 from pg_locks where locktype = 'advisory' and not granted and objid = 4711", 'a body with two events is stored, and not committed');
	push @runs, $f->start_sql(people('other', 4, 2));
	waits_for($turn);
	push @runs, $f->start_sql(people('many', 5));
	waits_for($matches);
	is(Hooks::outcome($f->try_sql(people('other', 5))), 'created changed', 'one event of another connector does not wait');
	$f->sql('select pg_advisory_unlock(4711)');
	is(join(', ', map { Hooks::outcome($f->finish($_)) } @runs), '2 events changed, 2 events changed, created changed', 'all are stored');
	is($f->sql("select count(*) from flohsync.sync_error where message ~ 'deadlock'"), 0, 'and none got in the way of another');
}

#
# No data: the record is asked for
#
$f->connector('up', createUsers => $true);
$f->sql("select flohsync.update_connector('up', jsonb_build_object('config', jsonb_build_object('webhook', " . Flohsync::jsonb({ scheme => 'hmac_hex', map => { events => '$.events[*]', id => '$.nr', action => \%actions, resourceType => { path => '$.type', values => { user => 'user', group => 'group' } }, resourceId => '$.id', data => undef } }) . ')))');
$scheme{up} = 'hmac_hex';
$f->secret('up', 'webhook', $Hooks::secret);
sub gets { return scalar grep { ($_->{asked}{command} // '') eq 'getUser' } $f->requests }
sub about { my (@ids) = @_; return { events => [ map { { event => 'edited', type => 'user', id => $_ } } @ids ] } }
my @id = map { sprintf 'user-%07d', $_ } 0 .. 29;
$f->clear_log;
is(hook('up', about($id[3])), 'updated changed', 'a record that the body only names');
like($f->row('up', 'user', $id[3]), qr/^.+\|user3\@.+\|\{.*"department"/, 'is fetched, whole');
is(gets(), 1, 'by one request');
is($f->sql("select count(*) from flohsync.floh_user"), $f->sql("select count(*) from flohsync.floh_user where email !~ '^user3\@'") + 1, 'and its user is created');
is(hook('up', about($id[3])), 'updated same', 'again, it is as it was');
$f->up('change', ids => $id[3], what => 'name');
is(hook('up', about($id[3])), 'updated changed', 'until it changes');
$f->clear_log;
is(hook('up', about(@id[ 5, 4, 5, 4, 5 ])), '5 events changed', 'several, some of them more than once');
is(gets(), 2, 'are asked for once each');
$f->sync_ok('up', 'user', 'a full run');
is($f->last_run('up', 'user')->{stats}{unchanged} // decode_json_text($f->sql("select stats::text from flohsync.sync_run order by id desc limit 1"))->{unchanged}, 3, 'finds them as it would have stored them');
$f->up('delete', ids => $id[4]);
is(hook('up', about($id[4])), 'deleted changed', 'a record that is not there any more is deleted');
is($f->row('up', 'user', $id[4]), '', 'and gone');
is(hook('up', about($id[4])), 'deleted same', 'once');
is($f->sql("select count(*) from _flohsync.resource_tombstone where external_id = '$id[4]'"), 1, 'with a tombstone');
$f->up('restore', ids => $id[4]);
is(hook('up', about($id[4])), 'updated changed', 'it is back when the upstream has it again');
is(hook('up', { events => [ { event => 'gone', type => 'user', id => $id[4] } ] }), 'deleted changed', 'a deletion is believed');
$f->clear_log;
is(gets(), 0, 'without a question');
# Replayed: nothing is asked again
$f->up('change', ids => $id[6], what => 'name');
my $once = { events => [ { event => 'edited', type => 'user', id => $id[6], nr => 'once' } ] };
is(hook('up', $once), 'updated changed', 'an event with an id');
$f->clear_log;
is(hook('up', $once), 'duplicate same', 'sent again');
is(gets(), 0, 'does not have the upstream asked');
# Filters
$f->configure('up', 'user', filterRules => { emailDomains => ['nobody.example'] });
$f->up('add', type => 'user', count => 1);
is(hook('up', about('user-0000031')), 'ignored same', 'a record out of scope is not stored');
is(hook('up', about($id[6])), 'updated changed', 'one that leaves the scope becomes stale');
like($f->row('up', 'user', $id[6]), qr/stale$/, 'as a pass would make it');
$f->configure('up', 'user', filterRules => undef);
# The upstream fails
$f->up('change', ids => $id[3], what => 'name');
my $before = $f->row('up', 'user', $id[3]);
for ([ '503', 'status', 'http_status', code => 503 ], [ '403', 'status', 'auth', code => 403 ], [ 'a closed connection', 'no_answer', 'network' ], [ 'nonsense', 'body', 'protocol', body => 'nonsense' ], [ 'no success', 'success_false', 'upstream', message => 'down' ])
{
	my ($name, $kind, $class, %args) = @$_;
	my $body = json_text({ events => [ { event => 'edited', type => 'user', id => $id[8], nr => "before $name" }, { event => 'edited', type => 'user', id => $id[3], nr => "fails $name" } ] });
	$f->fault($kind, command => 'get', times => 2, %args);
	my $r = $f->try_sql(Hooks::receive_sql('up', $body, Hooks::signed('hmac_hex', $body)));
	like("$r->{state} $r->{message} " . ($r->{detail} // ''), qr/^08006 could not fetch user "user-0000003": .* Error class: $class\. Nothing was changed\./, "the upstream fails: $name");
	is($f->row('up', 'user', $id[3]), $before, 'nothing is changed');
	is($f->sql("select count(*) from _flohsync.webhook_delivery where webhook_id ~ '(before|fails) $name'"), 0, 'nor noted');
	$f->up('heal');
}
is(hook('up', { events => [ { event => 'edited', type => 'user', id => $id[3], nr => 'fails 503' } ] }), 'updated changed', 'so it may be sent again');
$f->fault('field', command => 'get', field => 'email', json => '5');
is(hook('up', about($id[9])), '22023: webhook rejected: "data" email is not a string', 'a record that cannot be stored');
$f->up('heal');
my $group = json_text({ events => [ { event => 'edited', type => 'group', id => 'group-0000001' } ] });
my $unasked = $f->try_sql(Hooks::receive_sql('up', $group, Hooks::signed('hmac_hex', $group)));
is("$unasked->{state}: $unasked->{message}", '55000: the webhook has no data, and the connector cannot be asked for one record of type "group"', 'a type of which no record can be asked for');
like($unasked->{hint}, qr/^Say in "data" of config\.webhook\.map where the data is/, 'with a hint');
mapped('ask', data => undef);
is(hook('ask', { event => 'made', id => 'a' }), 'deleted same', 'kind sql is asked by its query');

# While the upstream is asked nothing is locked, and what was observed meanwhile is newer
sub hanging
{
	my ($external_id, $meanwhile) = @_;
	my $body = json_text(about($external_id));
	$f->fault('hang', command => 'get');
	my $run = $f->start_sql('SET application_name = asks; ' . Hooks::receive_sql('up', $body, Hooks::signed('hmac_hex', $body)));
	$f->await(hanging => 1);
	is($f->sql("select string_agg(l.locktype || ' ' || l.mode, ', ') from pg_locks l join pg_stat_activity a using (pid) where a.application_name = 'asks'
		and (l.locktype in ('advisory', 'transactionid', 'tuple') or l.mode in ('RowShareLock', 'RowExclusiveLock'))"), '', 'it waits for the upstream, and nobody for it');
	$meanwhile->();
	$f->up('release');
	return Hooks::outcome($f->finish($run));
}
is(hanging($id[10], sub { $f->sql("select flohsync.upsert_resource('up', 'user', '{\"externalId\": \"$id[10]\", \"displayName\": \"newer\"}')") }), 'ignored same', 'a record that came another way meanwhile is newer');
is($f->row('up', 'user', $id[10]), 'newer', 'it stays');
is(hanging($id[10], sub { $f->sql("select flohsync.handle_webhook('up', '{\"action\": \"deleted\", \"resourceType\": \"user\", \"resourceId\": \"$id[10]\"}')") }), 'ignored same', 'so is a deletion');
is($f->row('up', 'user', $id[10]), '', 'which stays deleted');
$f->up('delete', ids => $id[11]);
is(hanging($id[11], sub { $f->sql("select flohsync.upsert_resource('up', 'user', '{\"externalId\": \"$id[11]\", \"displayName\": \"made\"}')") }), 'ignored same', 'a record that was not there, and is meanwhile');
is($f->row('up', 'user', $id[11]), 'made', 'stays');
$f->up('change', ids => $id[12], what => 'name');
is(hanging($id[12], sub { $f->sql("select flohsync.update_connector('up', '{\"description\": \"changed\"}')") }), 'updated changed', 'the connector may be changed');

#
# Bodies as vendors send them, by their templates.  Records come from an upstream of ours.
#
sub vendor
{
	my ($name, $scheme, $from) = @_;
	my $webhook = $f->sql("select webhook from flohsync.connector_templates() where name = '$name'");
	$scheme{$name} = $scheme;
	$f->rest($name, 'link', types => [qw(user group)], resource => { get => { path => '/users/{{external_id}}' } });
	$f->sql("select flohsync.update_connector('$name', jsonb_build_object('config', jsonb_build_object('webhook', " . literal($webhook) . '::jsonb)))');
	$f->secret($name, 'webhook', $Hooks::secret);
	return;
}
$f->up('reset');
$f->up('records', user => 30, group => 3);

# Okta
vendor('okta', 'okta');
sub okta_event
{
	my ($type, $id, %more) = @_;
	return { uuid => $more{uuid} // 'b0a2c0a8-' . ++$more{nr} . int(rand 1e9), published => $more{published} // ago(1), eventType => $type, version => '0', displayMessage => 'Create Okta user', severity => 'INFO', client => { userAgent => undef, ipAddress => '1.2.3.4' },
		actor => { id => '00uadmin', type => 'User', alternateId => 'admin@acme.com', displayName => 'Admin' }, outcome => { result => $more{result} // 'SUCCESS', reason => undef },
		target => [ @{ $more{before} // [] }, { id => $id, type => $more{type} // 'User', alternateId => 'jane@acme.com', displayName => 'Jane', detailEntry => undef } ], debugContext => { debugData => { requestUri => '/api/v1/users' } } };
}
sub okta { my (@events) = @_; return { eventType => 'com.okta.event_hook', eventTypeVersion => '1.0', cloudEventsVersion => '0.1', source => 'https://acme.okta.com/api/v1/eventHooks/whoql0HfiLGPWc8Jx0g3', eventId => 'f0d8-1', data => { events => [@events] }, eventTime => ago(0), contentType => 'application/json' } }
my $created = okta_event('user.lifecycle.create', $id[1]);
is(hook('okta', okta($created)), 'created changed', 'okta: a user is created');
like($f->row('okta', 'user', $id[1]), qr/^.+\|user1\@/, 'okta: as the upstream has it');
is(hook('okta', okta($created)), 'duplicate same', 'okta: an event counts once');
is(hook('okta', okta(okta_event('user.lifecycle.deactivate', $id[1]), okta_event('user.account.update_profile', $id[2]), okta_event('group.user_membership.add', $id[3]))), '3 events changed', 'okta: several');
is($f->sql("select string_agg(external_id, ' ') " . $f->scope('okta', 'user')), $id[2], 'okta: one is gone, one is there');
is(hook('okta', okta(okta_event('user.lifecycle.deactivate', $id[2], result => 'FAILURE'))), 'ignored same', 'okta: what failed is nothing');
is(hook('okta', okta(okta_event('user.session.start', $id[2]))), 'ignored same', 'okta: nor is a session');
is(hook('okta', okta(okta_event('group.lifecycle.create', $id[4], type => 'UserGroup'))), 'created changed', 'okta: a group');
is(hook('okta', okta(okta_event('user.lifecycle.create', 'x', type => 'AppUser'))), '22023: webhook rejected: "resourceId" is missing', 'okta: an event without its user');

# Microsoft Graph
vendor('entra', 'graph');
sub graph { my (@n) = @_; return { value => [ map { my ($change, $resource, $id, %more) = @$_; { subscriptionId => '76222963-cc7b-42d2-882d-8aaa69cb2ba3', clientState => $Hooks::secret, changeType => $change, resource => "$resource/$id", subscriptionExpirationDateTime => '2026-12-31T00:00:00Z',
		tenantId => 'bdf1d1b9', resourceData => { '@odata.type' => '#Microsoft.Graph.User', '@odata.id' => "$resource/$id", id => $id, organizationId => 'bdf1d1b9' }, %more } } @n ] } }
is(hook('entra', graph([ 'updated', 'Users', $id[1] ])), 'updated changed', 'graph: a user');
like($f->row('entra', 'user', $id[1]), qr/user1\@/, 'graph: is fetched');
is(hook('entra', graph([ 'updated', 'Users', $id[2] ], [ 'deleted', 'users', $id[1] ], [ 'updated', 'Groups', $id[3] ], [ 'created', 'Devices', 'd' ])), '4 events changed', 'graph: several notifications');
is($f->sql("select string_agg(resource_type || ' ' || external_id, ', ' order by 1) from flohsync.connector_resource where connector_id = " . $f->connector_id('entra')), "group $id[3], user $id[2]", 'graph: users and groups');
is(hook('entra', graph([ 'updated', 'Users', $id[4], clientState => 'wrong' ])), $no, 'graph: not with another clientState');
is(hook('entra', graph([ 'updated', 'Users', $id[4] ], [ 'updated', 'Users', $id[5], clientState => undef ])), $no, 'graph: nor one without');
is(hook('entra', { value => [ { clientState => $Hooks::secret, lifecycleEvent => 'reauthorizationRequired', subscriptionId => 's', resource => 'Users' } ] }), 'ignored same', 'graph: a lifecycle notification is nothing');

# GitHub
vendor('github', 'github');
my %org = (organization => { login => 'acme', id => 9 }, sender => { login => 'admin', id => 1, type => 'User' });
my %octo = (login => 'octocat', id => 583231, node_id => 'MDQ6VXNlcjU4MzIzMQ==', avatar_url => 'https://avatars.example/u/583231', gravatar_id => '', url => 'https://api.github.com/users/octocat', html_url => 'https://github.com/octocat', type => 'User', site_admin => $false);
my %team = (name => 'Crew', id => 7, node_id => 'T', slug => 'crew', description => undef, privacy => 'closed', url => 'https://api.github.com/organizations/9/team/7', html_url => 'https://github.com/orgs/acme/teams/crew', members_url => 'x', repositories_url => 'x', permission => 'pull', parent => undef);
my %joined = (action => 'member_added', membership => { url => 'https://api.github.com/orgs/acme/memberships/octocat', state => 'pending', role => 'member', organization_url => 'x', user => \%octo }, %org);
is(hook('github', \%joined, event => 'organization'), 'created changed', 'github: somebody joins');
like($f->row('github', 'user', '583231'), qr/^octocat\|\{"id": 583231, .*"login": "octocat"/, 'github: the body has the data');
unlike($f->row('github', 'user', '583231'), qr/gravatar/, 'github: without what the list leaves out');
is(hook('github', { action => 'created', team => \%team, %org }, event => 'team'), 'created changed', 'github: a team');
like($f->row('github', 'group', '7'), qr/^Crew\|.*"slug": "crew"/, 'github: is a group');
is(hook('github', { action => 'edited', changes => { name => { from => 'Crew' } }, team => { %team, name => 'Team' }, %org }, event => 'team'), 'updated changed', 'github: renamed');
is(hook('github', $_->[1], event => $_->[0]), 'ignored same', "github: nothing to us: $_->[0] $_->[1]{action}")
  for [ 'membership', { action => 'added', scope => 'team', member => \%octo, team => \%team, %org } ], [ 'member', { action => 'added', member => \%octo, repository => { id => 5 }, %org } ], [ 'organization', { action => 'deleted', membership => { user => \%octo }, %org } ],
  [ 'team', { action => 'added_to_repository', team => \%team, repository => { id => 5 }, %org } ], [ 'organization', { action => 'member_invited', invitation => { id => 3 }, user => \%octo, %org } ];
is(hook('github', { %joined, action => 'member_removed' }, event => 'organization'), 'deleted changed', 'github: somebody leaves');
is(hook('github', { action => 'deleted', team => \%team, %org }, event => 'team'), 'deleted changed', 'github: a team is dissolved');

# Keycloak
vendor('keycloak', 'hmac_hex');
sub keycloak
{
	my ($operation, $path, %more) = @_;
	my $body = json_text({ '@type' => 'admin', uid => 'e-' . int(rand 1e9), time => int($f->sql('select extract(epoch from clock_timestamp()) * 1000')), realmId => 'acme', type => "admin.USER-$operation", resourceType => 'USER', operationType => $operation, resourcePath => $path,
			authDetails => { realmId => 'master', clientId => 'c', userId => 'u', ipAddress => '10.0.0.1' }, representation => '{"username":"jane"}', %more });
	return $f->receive('keycloak', $body, { 'X-Keycloak-Signature' => Hooks::signed('hmac_hex', $body)->{'x-webhook-signature'} });
}
is(keycloak('CREATE', "users/$id[1]"), 'created changed', 'keycloak: a user');
like($f->row('keycloak', 'user', $id[1]), qr/user1\@/, 'keycloak: is fetched');
is(keycloak('UPDATE', "groups/$id[2]", resourceType => 'GROUP'), 'updated changed', 'keycloak: a group');
is(keycloak('CREATE', "users/$id[1]/groups/x", resourceType => 'GROUP_MEMBERSHIP'), 'ignored same', 'keycloak: a membership is nothing');
is(keycloak('ACTION', "users/$id[1]/execute-actions-email"), 'ignored same', 'keycloak: nor is an action');
is(keycloak('UPDATE', "users/$id[1]/reset-password"), '22023: webhook rejected: "resourceId" is missing', 'keycloak: a path that is another');
is(keycloak('DELETE', "users/$id[1]"), 'deleted changed', 'keycloak: a user is gone');
is(keycloak('LOGIN', undef, resourceType => undef, operationType => undef, type => 'access.LOGIN', userId => $id[1]), 'ignored same', 'keycloak: an event of a user is nothing');

#
# Hostile bodies
#
mapped('evil', events => '$.events[*] ? (@.kind like_regex "^(a+)+$")', resourceId => { path => '$.a.b.c[*] ? (@.d == 5).e', match => '^(?:x+)+y$' });
for my $hostile ('{"events": ' . '[' x 50 . ']' x 50 . '}', '{"events": [' . join(',', ('{"kind": "' . 'a' x 3000 . 'b"}') x 300) . ']}', '{"events": [' . join(',', ('{"kind": "aaa", "event": "made", "a": {"b": {"c": ' . '[' . join(',', ('{"d": 5, "e": "' . 'x' x 900 . '"}') x 50) . ']}}}') x 10) . ']}',
	'{"events": [' . '1,' x 500000 . '1]}', '{"events": {"kind": "a", "event": "made", "a": ' . '[' x 60 . ']' x 60 . '}}')
{
	my $r = $f->try_sql(Hooks::receive_sql('evil', $hostile, Hooks::signed('hmac_hex', $hostile)));
	ok($r->{ok} || $r->{state} =~ /^(22023|54000)$/, 'a hostile body is answered: ' . ($r->{ok} ? $r->{out} : $r->{state}));
}
# Spoilt at random: nothing but a clean answer, whatever comes.
srand 7;
my %seen;
for my $round (1 .. 300)
{
	my ($c, $body) = @{ ([ 'okta', json_text(okta(okta_event('user.lifecycle.deactivate', 'fuzz'))) ], [ 'entra', json_text(graph([ 'deleted', 'Users', 'fuzz' ], [ 'deleted', 'Groups', 'fuzz' ])) ], [ 'github', json_text({ action => 'created', team => \%team, %org }) ])[ rand 3 ] };
	for (1 .. 1 + rand 3)
	{
		my $at = int rand length $body;
		my $what = rand;
		if ($what < 0.3) { substr($body, $at, 1) = chr int rand 256 }
		elsif ($what < 0.6) { substr($body, $at, 1 + rand 8) = '' }
		else { substr($body, $at, 0) = ('{', '}', '[', ']', '"', '\\u0000', '\\ud800', '1e999', ':', ',', 'null', "\xff", '[{}]')[ rand 13 ] }
	}
	my $r = $f->try_sql(Hooks::receive_sql($c, $body, Hooks::signed($scheme{$c}, $body)));
	$seen{ $r->{ok} ? 'taken' : $r->{state} }++;
}
is(join(' ', grep { !/^(taken|22023|22P02|22021|28000)$/ } sort keys %seen), '', 'three hundred spoilt bodies: taken, or refused for what they are: ' . join ', ', map { "$_ $seen{$_}" } sort keys %seen);

# Maps that are nearly right: refused, or of use; and then no body does harm.
my @maps = map { decode_json_text($_) } split /\n/, $f->sql("select webhook from flohsync.connector_templates() where webhook is not null order by name");
my @odd = (undef, $true, 5, '', '$', '$.**', 'lax $.a', '$.value[*]', '$.a[100 to last]', '$.a ? (@ like_regex "(a|b)*c")', '$ ? (@.a == @.b)', '-$.a', '$.a + 1', '$.keyvalue()', '$.x.double()', '"a"', 'x', [], ['$'], ['$.a', '$'], {}, { path => '$' }, { path => '$', match => '(?=a)' },
	{ path => '$.action', values => { a => 'created' } }, { path => [ '$.a', '$.action' ], values => { created => 'updated' } }, { displayName => '$' }, { attributes => '$' }, { attributes => { a => '$', '' => '$.a' } }, 'created', 'user');
sub spoil
{
	my ($value, $chance) = @_;
	return $odd[ rand @odd ] if rand() < $chance;
	return { map { $_ => spoil($value->{$_}, 0.05) } grep { rand() < 0.98 } sort keys %$value } if ref $value eq 'HASH';
	return [ map { spoil($_, 0.05) } @$value ] if ref $value eq 'ARRAY';
	return $value;
}
my @bodies = (json_text(okta(okta_event('user.lifecycle.deactivate', 'fuzz'))), json_text(graph([ 'deleted', 'Users', 'fuzz' ])), json_text({ action => 'created', team => \%team, %org }), '[]', '5', json_text({ a => [ 'created', {}, [] ], action => 'created' }));
my (%maps, %of_map);
$f->plain('maps', undef);
for my $round (1 .. 400)
{
	my $map = spoil($maps[ rand @maps ]{map}, 0);
	my $r = $f->try_sql("select flohsync.update_connector('maps', jsonb_build_object('config', jsonb_build_object('webhook', " . Flohsync::jsonb({ scheme => 'hmac_hex', map => $map }) . ')))');
	$maps{ $r->{ok} ? 'taken' : $r->{state} }++;
	diag(json_text($map) . ": $r->{text}") if !$r->{ok} && $r->{state} ne '22023';
	next unless $r->{ok};
	my $body = $bodies[ rand @bodies ];
	$r = $f->try_sql(Hooks::receive_sql('maps', $body, Hooks::signed('hmac_hex', $body)));
	$of_map{ $r->{ok} ? 'taken' : $r->{state} }++;
	diag(json_text($map) . " $body: $r->{text}") if !$r->{ok} && $r->{state} !~ /^(?:22023|55000)$/;
}
is(join(' ', grep { !/^(taken|22023)$/ } sort keys %maps), '', 'four hundred spoilt maps: taken, or refused: ' . join ', ', map { "$_ $maps{$_}" } sort keys %maps);
# 55000: a map without "data", where the connector cannot be asked for one record
is(join(' ', grep { !/^(taken|22023|55000)$/ } sort keys %of_map), '', 'and what comes by those that are taken: ' . join ', ', map { "$_ $of_map{$_}" } sort keys %of_map);

$f->no_crash;
done_testing;
