# What a webhook tells of is not read from the cache any more, whatever the
# webhook did to the tables; one that was rolled back leaves the cache alone.
use strict;
use warnings;

use Flohsync;
use RedisServer;
use Test::More;

my $redis = RedisServer->new;
my $f = Flohsync->new(upstream => 0, conf => "flohsync.redis_url = '" . $redis->url . "'\nflohsync.redis_timeout = 1s\n");
$f->sql("select flohsync.create_connector('acme', 'sql', '{\"queries\": {\"user\": \"select null::text as external_id, null::text as display_name, null::text as email, null::jsonb as attributes where false\"}}')");
$f->configure('acme', 'user', filterRules => { emailDomains => ['acme.com'] });

sub hook_sql { my ($action, $id, $data, %more) = @_; return "select flohsync.handle_webhook('acme', " . Flohsync::jsonb({ action => $action, resourceId => $id, resourceType => 'user', data => $data // {}, %more }) . ')' }
sub hook { my $a = decode_json_text($f->sql(hook_sql(@_))); return $a->{action} . ' ' . ($a->{changed} ? 'changed' : 'same') }
sub put { my ($id) = @_; return $f->wait_for("select flohsync.cache_put('acme', 'user', '$id', '\"old\"')") }
sub get { my ($id) = @_; return $f->sql("select flohsync.cache_get('acme', 'user', '$id')") }

for (
	[ 'a creation', 'a', 'created changed', 'created', 'a', { email => 'a@acme.com' } ],
	[ 'an update', 'a', 'updated changed', 'updated', 'a', { displayName => 'A' } ],
	[ 'an update that changes nothing here', 'a', 'updated same', 'updated', 'a', { displayName => 'A' } ],
	[ 'an update older than what is here', 'a', 'ignored same', 'updated', 'a', {}, timestamp => '2026-01-01T00:00:00Z' ],
	[ 'a record out of scope', 'o', 'ignored same', 'created', 'o', { email => 'o@other.org' } ],
	[ 'one that leaves it', 'a', 'updated changed', 'updated', 'a', { email => 'a@other.org' } ],
	[ 'one that is back', 'a', 'updated changed', 'updated', 'a', { email => 'a@acme.com' } ],
	[ 'a deletion', 'a', 'deleted changed', 'deleted', 'a' ],
	[ 'one of a record that is not here', 'o', 'deleted same', 'deleted', 'o' ])
{
	my ($name, $id, $answer, @hook) = @$_;
	ok(put($id) && put('other') && get($id) eq '"old"', "$name: a value is in the cache");
	is(hook(@hook), $answer, 'the webhook is taken');
	is(get($id), '', 'the next read does not find it');
	$f->comes_true('select count(*) = 0 from _flohsync.cache_outbox', 'nor when the cache has been told');
	is(get($id), '', 'it is gone');
	is(get('other'), '"old"', 'another one is there');
}
put('r');
$f->try_sql('BEGIN; ' . hook_sql('created', 'r', { email => 'r@acme.com' }) . '; ROLLBACK');
is(get('r'), '"old"', 'a webhook that was rolled back changes nothing');

# Whatever becomes of the record, the cache is told once.
hook('created', 'once', { email => 'once@acme.com' });
$f->comes_true('select count(*) = 0 from _flohsync.cache_outbox', 'the cache has been told');
for ([ 'an update', 'updated', 'once', { displayName => 'Once' } ], [ 'one that leaves the scope', 'updated', 'once', { email => 'once@other.org' } ],
	[ 'one that is old', 'updated', 'once', {}, timestamp => '2026-01-01T00:00:00Z' ], [ 'a deletion', 'deleted', 'once' ])
{
	my ($name, @hook) = @$_;
	is((split /\n/, $f->sql('BEGIN; ' . hook_sql(@hook) . '; SELECT count(*) FROM _flohsync.cache_outbox; ROLLBACK'))[-1], 1, "$name: the cache is told once");
}

# Redis away: no webhook fails for it, and what was invalidated meanwhile is when it is back.
put('down');
$redis->freeze;
is(hook('created', 'down', { email => 'down@acme.com' }), 'created changed', 'without Redis a webhook is taken');
is($f->sql('select count(*) from _flohsync.cache_outbox'), 1, 'the cache is to be told later');
$redis->thaw;
$f->comes_true('select count(*) = 0 from _flohsync.cache_outbox', 'which happens', timeout => 40);
is(get('down'), '', 'the value is gone');

$f->no_crash;
done_testing;
