# Events that tell only what has changed, in another order than they happened:
# each key is as the last event that named it says, and nothing is taken from an
# event that the record was seen, or deleted, after.
use strict;
use warnings;

use Flohsync;
use List::Util qw(shuffle);
use RedisServer;
use Test::More;

my $redis = RedisServer->new;
my $f = Flohsync->new(upstream => 0, conf => "flohsync.redis_url = '" . $redis->url . "'\nflohsync.redis_timeout = 5s\nflohsync.redis_connect_timeout = 5s\n");
$f->sql("create table public.people (id text primary key, name text, email text, attributes jsonb); grant select on public.people to flohsync_nobody");
$f->sql("select flohsync.create_connector('acme', 'sql', '{\"queries\": {\"user\": \"select id as external_id, name as display_name, email, attributes from public.people\"}}')");
$f->configure('acme', 'user', createUsers => JSON::PP::true, safeguards => undef);

my $now = $f->sql('select extract(epoch from now())::bigint');
# An event so many seconds ago; its answer.
sub hook
{
	my ($ago, $id, $data, %more) = @_;
	my $answer = $f->json("select flohsync.handle_webhook('acme', " . Flohsync::jsonb({ action => 'updated', resourceId => $id, resourceType => 'user',
			defined $ago ? (timestamp => $now - $ago) : (), data => $data, %more }) . ')');
	return $answer->{action} . ' ' . ($answer->{changed} ? 'changed' : 'same');
}
sub row { return $f->sql("select concat_ws('|', display_name, email, attributes::text, case when stale_since is not null then 'stale' end) from flohsync.connector_resource where external_id = " . literal($_[0])) }
sub upstream { my ($id, $name, $attributes) = @_; return $f->sql('insert into public.people values (' . join(', ', map { literal($_) } $id, $name, "$id\@acme.com", json_text($attributes)) . ") on conflict (id) do update set name = excluded.name, attributes = excluded.attributes") }

#
# Late ones
#
is(hook(10, 'a', { displayName => 'newer', attributes => { dept => 'new' } }), 'updated changed', 'an event comes first');
is(hook(20, 'a', { displayName => 'older', email => 'a@acme.com', attributes => { dept => 'old', level => 1 } }), 'updated changed', 'one that happened before it comes late');
is(row('a'), 'newer|a@acme.com|{"dept": "new", "level": 1}', 'it counts for what the other did not name');
is($f->sql("select u.email from flohsync.connector_sync_match m join flohsync.floh_user u on u.id = m.user_id where m.external_id = 'a'"), 'a@acme.com', 'what it says is matched');
is(hook(20, 'a', { displayName => 'older', email => 'a@acme.com', attributes => { dept => 'old', level => 1 } }), 'updated same', 'once');
is(hook(15, 'a', { email => 'b@acme.com', attributes => { level => 2 } }), 'updated changed', 'one in between');
is(row('a'), 'newer|b@acme.com|{"dept": "new", "level": 2}', 'counts where it is the last');
is(hook(17, 'a', { email => 'c@acme.com', attributes => { level => 3 } }), 'ignored same', 'one with nothing that counts is ignored');
is(hook(5, 'a', { displayName => 'newest' }), 'updated changed', 'and then the next one');
is(row('a'), 'newest|b@acme.com|{"dept": "new", "level": 2}', 'in order');
is(hook(7, 'a', { displayName => 'too old', attributes => { level => undef } }), 'updated changed', 'null is a value here, too');
is(row('a'), 'newest|b@acme.com|{"dept": "new", "level": null}', 'and stored');
is($f->sql("select event_at = to_timestamp($now - 5) from flohsync.resource_record where external_id = 'a'"), 't', 'the last event is the last one that happened');
is($f->sql('select count(*) from flohsync.connector_resource where sync_hash <> flohsync.resource_hash(external_id, display_name, email, attributes)'), 0, 'each hash is that of the whole record');

hook(10, 'b', { displayName => 'B' });
is(hook(1000, 'b', { email => 'b@acme.com', attributes => { x => 1 } }, action => 'created'), 'created changed', 'a creation that comes a quarter of an hour late, behind the first update');
is(row('b'), 'B|b@acme.com|{"x": 1}', 'fills the record');

hook(10, 'wiped', { attributes => undef });
is(hook(20, 'wiped', { displayName => 'W', attributes => { x => 1 } }), 'updated changed', 'before all attributes were taken away');
is(row('wiped'), 'W', 'there were others');
hook(10, 'wipes', { attributes => { x => 1 } });
hook(30, 'wipes', { attributes => { y => 1 } });
is(hook(20, 'wipes', { attributes => undef }), 'updated changed', 'late news that all were taken away');
is(row('wipes'), '{"x": 1}', 'leaves those that came afterwards');
hook(10, 'wipes', { attributes => { '' => 1, displayName => 2, '.x' => 3 } });
is(hook(20, 'wipes', { displayName => 'W', attributes => { x => 2, '' => 2, displayName => 3, '.x' => 2 } }), 'updated changed', 'attributes with the names of other things');
is(row('wipes'), 'W|{"": 1, "x": 1, ".x": 3, "displayName": 2}', 'are none of them');
hook(10, 'timeless', { displayName => 'T' });
hook(undef, 'timeless', { email => 't@acme.com' });
is(hook(20, 'timeless', { displayName => 'U', email => 'u@acme.com', attributes => { x => 1 } }), 'updated changed', 'an event without a time happened when it came');
is(row('timeless'), 'T|t@acme.com|{"x": 1}', 'and is newer');

#
# What is seen as a whole after an event is as it is seen
#
hook(10, 'seen', { displayName => 'S' });
upstream('seen', 'upstream', { dept => 'upstream' });
$f->sync_ok('acme', 'user', 'a pass');
is(row('seen'), 'upstream|seen@acme.com|{"dept": "upstream"}', 'sees the record');
is(hook(20, 'seen', { attributes => { dept => 'old' } }), 'ignored same', 'an older event tells nothing new');
hook(5, 'seen', { displayName => 'later' });
is(hook(20, 'seen', { attributes => { dept => 'old' } }), 'ignored same', 'nor does it after another event');
is(hook(7, 'seen', { attributes => { dept => 'seven' } }), 'updated changed', 'but one that happened between these');
hook(10, 'put', { displayName => 'P' });
$f->sql("select flohsync.upsert_resource('acme', 'user', '{\"externalId\": \"put\", \"displayName\": \"P\"}')");
is(hook(20, 'put', { email => 'old@acme.com' }), 'ignored same', 'an upsert is the whole record, too, also where it changes nothing');
upstream('same', 'same', { x => 1 });
$f->sync_ok('acme', 'user', 'another pass');
hook(10, 'same', { displayName => 'same' });
$f->sql("update flohsync.connector_sync_config set last_full_pass_at = now() - interval '1 minute'; update flohsync.resource_record set observed_at = now() - interval '1 day', event_keys = event_keys - '' where external_id = 'same'");
is(hook(400, 'same', { attributes => { x => 2 } }), 'ignored same', 'a pass that changes nothing has seen it as well');
is(hook(300, 'same', { attributes => { x => 2 } }), 'updated changed', 'five minutes are between the clocks');

hook(10, 'gone', { displayName => 'G' });
$f->sql("select flohsync.mark_stale('acme', 'user', 'infinity')");
is(hook(20, 'gone', { email => 'g@acme.com' }), 'ignored same', 'nothing comes late to a stale record');
like(row('gone'), qr/^G\|stale$/, 'which stays so');
hook(5, 'gone', { attributes => { x => 1 } });
is(hook(20, 'gone', { email => 'g@acme.com' }), 'ignored same', 'nor to what it is when it is back');

# Another life
for my $timed (1, 0)
{
	my $id = "born $timed";
	hook(30, $id, { displayName => 'first', email => 'first@acme.com' });
	is(hook($timed ? 20 : undef, $id, undef, action => 'deleted'), 'deleted changed', 'a record is deleted');
	is(hook($timed ? 10 : -2, $id, { displayName => 'second' }), 'updated changed', 'there is another one of that name');
	is(hook(25, $id, { attributes => { of => 'the first' } }), 'ignored same', 'what comes late of the first');
	is(row($id), 'second', 'is nothing to the second');
	is(hook(15, $id, undef, action => 'deleted'), 'ignored same', 'nor is a late deletion') if $timed;
}

# Out of scope
$f->configure('acme', 'user', filterRules => { emailDomains => ['acme.com'] });
hook(20, 'scope', { displayName => 'in', email => 'in@acme.com' });
is(hook(10, 'scope', { attributes => { x => 1 } }), 'updated changed', 'a record in scope');
is(hook(15, 'scope', { email => 'x@other.org' }), 'updated changed', 'leaves it by late news');
is(row('scope'), 'in|in@acme.com|{"x": 1}|stale', 'it is stale');
is(hook(12, 'scope', { displayName => 'late' }), 'ignored same', 'and then as any stale record');
is(hook(5, 'scope', { email => 'in@acme.com' }), 'updated changed', 'until it is back');
$f->configure('acme', 'user', filterRules => undef);

#
# A clock that is ahead keeps out none that come later
#
for my $ahead (200, 3, 1)
{
	my $id = "ahead $ahead";
	is(hook(-$ahead - time + $now, $id, { displayName => 'ahead' }), 'updated changed', "an event of a clock that is $ahead seconds ahead");
	is($f->sql("select event_at <= now() from flohsync.resource_record where external_id = '$id'"), 't', 'happened no later than it came');
	is(hook($now - time, $id, { displayName => 'right' }), 'updated changed', 'one of a clock that is right comes after it');
	is(row($id), 'right', 'and is newer');
	is(hook(-$ahead - time + $now, $id, undef, action => 'deleted'), 'deleted changed', 'a deletion of the first clock');
	is(hook($now - time, $id, { displayName => 'again' }), 'updated changed', 'keeps nothing out, either');
}

#
# Very many keys are not remembered: older events do not count then, as long as nothing is known.
#
hook(10, 'many', { attributes => { map { ("k$_" => 1) } 1 .. 63 } });
is(hook(20, 'many', { displayName => 'M' }), 'updated changed', 'sixty-three attributes are remembered');
hook(9, 'many', { attributes => { map { ("j$_" => 1) } 1 .. 63 } });
is(hook(20, 'many', { email => 'm@acme.com' }), 'ignored same', 'twice as many are not');
hook(8, 'many', { attributes => { k1 => 2 } });
is(hook(9.5, 'many', { attributes => { k2 => 9 } }), 'ignored same', 'and what happened before is not guessed at');
is($f->sql("select event_keys - '' from flohsync.resource_record where external_id = 'many'") =~ /^\{"\.k1": \d+\}$/, 1, 'it begins anew');

#
# The cache is told of late news, too.
#
hook(10, 'cached', { displayName => 'C' });
$f->wait_for("select flohsync.cache_put('acme', 'user', 'cached', '\"old\"')");
is(hook(15, 'cached', { attributes => { cached => 1 } }), 'updated changed', 'late news');
is($f->sql("select flohsync.cache_get('acme', 'user', 'cached')"), '', 'of what is cached');

#
# Any events in any order are what they are in theirs.
#
srand 7;
my $differ = 0;
for my $round (1 .. 60)
{
	my @events = map {
		my %data;
		$data{displayName} = "name $_" if rand() < 0.3;
		$data{email} = rand() < 0.2 ? undef : "e$_\@acme.com" if rand() < 0.3;
		my %attributes = map { ("k$_" => int rand 1000) } grep { rand() < 0.3 } 1 .. 4;
		$data{attributes} = \%attributes if %attributes;
		$data{attributes} = undef if rand() < 0.1;
		[ 200 - $_ * 10, \%data ]
	} 1 .. 7;
	hook($_->[0], "in-$round", $_->[1], resourceType => 'thing') for @events;
	hook($_->[0], "out-$round", $_->[1], resourceType => 'thing') for shuffle @events;
	my @rows = map { row($_) } "in-$round", "out-$round";
	next if $rows[0] eq $rows[1];
	$differ++;
	diag("$rows[0]\n$rows[1]\n" . json_text(\@events));
}
is($differ, 0, 'sixty times seven events in any order');
is($f->sql('select count(*) from flohsync.connector_resource where sync_hash <> flohsync.resource_hash(external_id, display_name, email, attributes)'), 0, 'each hash is that of the whole record');
is($f->sql("select count(*) from flohsync.sync_error where error_class = 'post_sync'"), 0, 'nothing failed');

$f->no_crash;
done_testing;
