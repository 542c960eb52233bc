# Text from outside that steers: control characters, ends of lines with a forged
# line behind, marks that turn the direction of writing.  It comes in answers,
# ids, names, cursors, replies of Redis and webhooks, and is in no line of the
# log and no message.
use strict;
use warnings;

use Digest::SHA qw(hmac_sha256_hex);
use Flohsync;
use RedisServer;
use Rest;
use PostgreSQL::Test::Utils;
use Test::More;

my $redis = RedisServer->new;
my $proxy = $redis->proxy;
my $f = Rest->new(records => 'user=40,group=5', conf => "flohsync.redis_url = '" . $proxy->url . "'\nflohsync.redis_timeout = 300ms\nlog_min_messages = debug1\n");

# Escape sequences, ends of lines with a line that looks like one of the log, C1 controls, marks of direction, ends of paragraphs
my $evil = "\x1b[31mred\x1b[0m\r\nLOG:  forged line\x08\x7f\t\xc2\x85\xc2\x9b2J\xe2\x80\xaeesrever\xe2\x81\xa6\xe2\x80\xa8LOG:  forged paragraph\xe2\x80\x8f";
# The same as a text of JSON, with and without escapes for what need none
my $evil_json = $evil =~ s/([\x00-\x1f])/sprintf '\u%04x', ord $1/ger;
my $evil_units = json_text(Encode::decode_utf8($evil)) =~ s/^"|"$//gr =~ s/([\xc2-\xf4][\x80-\xbf]+)/sprintf '\u%04x', ord Encode::decode_utf8(my $c = $1)/ger;
my $steers = qr/[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xaf]/;

# One line, and nothing that steers
sub is_clean
{
	my ($text, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$text //= '';
	return ok($text ne '' && $text !~ $steers && $text !~ /\n/, $name) || diag('it is: ' . ($text =~ s/([\x00-\x1f\x7f-\xff])/sprintf '<%02x>', ord $1/ger));
}

# As the client gets it: message, detail and hint, each on one line
sub error_is_clean
{
	my ($sql, $says, $name) = @_;
	my $r = $f->try_sql($sql);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(!$r->{ok} && $r->{text} =~ $says, "$name: it fails, and says why") or diag($r->{text});
	ok($r->{text} !~ $steers && $r->{text} !~ /^\s*LOG:/m, "$name: on lines of its own") or diag($r->{text} =~ s/([\x00-\x09\x0b-\x1f\x7f-\xff])/sprintf '<%02x>', ord $1/ger);
	return;
}

sub run_is_clean
{
	my ($connector, $says, $name) = @_;
	my ($ok, $r) = $f->sync($connector, 'user');
	my $run = $f->last_run($connector, 'user');
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(!$ok && $run->{error} =~ $says, "$name: the run fails, and says why") or diag($ok ? json_text($r) : $run->{error});
	is_clean($run->{error}, "$name: in a clean message");
	is_clean($f->sql("select last_sync_error from flohsync.connector_sync_config where connector_id = " . $f->connector_id($connector) . " and resource_type = 'user'"), "$name: as the status tells it");
	my $tested = $f->json('select flohsync.test_connector(' . literal($connector) . ')');
	is_clean(Encode::encode_utf8($tested->{error}), "$name: and test_connector") if !$tested->{ok};
	return $run;
}

#
# Answers of an upstream
#
$f->connector('c');
my $http = sub { my ($status, $reason, $type, $body) = @_; return "HTTP/1.1 $status $reason\r\nContent-Type: $type\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body" };
for my $case (
	[ 'an error in JSON', 'body', '{"success":false,"error":"' . $evil_json . '"}', qr/upstream reported an error: \?\[31mred/ ],
	[ 'an error in escapes', 'body', '{"success":false,"error":{"message":"' . $evil_units . '"}}', qr/upstream reported an error: \?\[31mred/ ],
	[ 'no JSON', 'body', $evil, qr/not JSON.*begins with: \?\[31mred/ ],
	[ 'no answer of the protocol', 'body', '{"' . $evil_json . '":1}', qr/begins with: \{"\\u001b\[31mred/ ],
	[ 'a status', 'body', $evil, qr/status 418.*red/, code => 418 ],
	[ 'bytes that are no UTF-8', 'body', "\xff\xfe\xc0\x80\xed\xa0\x80$evil", qr/status 500.*red/, code => 500 ],
	[ 'a reason', 'raw', $http->(403, "No\x1b[31m\x08\xe2\x80\xae", 'text/plain', $evil), qr/status 403/ ],
	[ 'a content type', 'raw', $http->(200, 'OK', "text/\x1b[31mhtml\xe2\x80\xae\xc2\x9b", $evil), qr/is text\/\?\[31mhtml\?\? and begins with/ ],
	[ 'a redirect', 'raw', "HTTP/1.1 302 Found\r\nLocation: http://evil\xe2\x80\xae\xc2\x9b.example/\r\nContent-Length: 0\r\n\r\n", qr/redirects/ ],
	[ 'a broken header', 'raw', "HTTP/1.1 200 OK\r\nNo\x1b[31m header\x08 at all\xe2\x80\xae\r\n\r\n{}", qr/./ ],
	[ 'another protocol', 'raw', "\x1b[31m220 $evil\r\n", qr/./ ],
	[ 'a broken length', 'raw', "HTTP/1.1 200 OK\r\nContent-Length: \x1b[31m\xe2\x80\xae\r\n\r\n{}", qr/./ ],
	[ 'a broken chunk', 'raw', "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\x1b[31m\xe2\x80\xae\r\n{}\r\n0\r\n\r\n", qr/./ ],
	[ 'an unknown encoding', 'raw', "HTTP/1.1 200 OK\r\nContent-Encoding: \x1b[31m\xe2\x80\xae\r\nContent-Length: 2\r\n\r\n{}", qr/./ ])
{
	my ($name, $kind, $body, $says, %more) = @$case;
	$f->up('heal');
	$f->fault($kind, times => -1, body => $body, $kind eq 'body' ? (code => 200, content_type => 'application/json') : (), %more);
	run_is_clean('c', $says, $name);
	$f->fault($kind, times => -1, command => 'any', body => $body, $kind eq 'body' ? (code => 200, content_type => 'application/json') : (), %more);
	error_is_clean("select flohsync.cache_get_or_fetch('c', 'user', 'user-0000001')", $says, "$name, for one record");
}
$f->up('heal');

#
# Records
#
$f->fault('record', times => -1, page => 1, record => 1, body => '{"externalId":"' . $evil_units . '","displayName":"' . $evil_json . '","email":7,"attributes":{"a":"' . $evil_json . '"}}');
$f->sync_ok('c', 'user', 'a record of such a name, which has another fault');
my $run = $f->last_run('c', 'user')->{id};
is_clean($f->sql("select message from flohsync.sync_error where run_id = $run"), 'it is set aside with a clean message');
my $payload = $f->sql("select payload from flohsync.sync_error where run_id = $run");
is_clean($payload, 'and a clean payload');
is_deeply(decode_json_text($payload), { externalId => Encode::decode_utf8($evil), displayName => Encode::decode_utf8($evil), email => 7, attributes => { a => Encode::decode_utf8($evil) } }, 'that says what the record said');
$f->up('heal');
$f->fault('status', code => 503, times => -1, command => 'any');
error_is_clean("select flohsync.cache_get_or_fetch('c', 'user', " . literal($evil) . ')', qr/could not fetch user "\?\[31mred/, 'one is asked for by such an id');
$f->up('heal');

#
# Kind rest
#
$f->rest('r', 'link', resource => { get => { path => '/users/{{external_id}}' } });
for my $case (
	[ 'no list', '{"ok":false,"error":"' . $evil_json . '"}', qr/no list of records at \$; the answer is application\/json and begins with: \{"ok":false,"error":"\\u001b|begins with: \{"ok"/ ],
	[ 'no JSON', $evil, qr/not JSON.*begins with: \?\[31mred/ ],
	[ 'a status', $evil, qr/status 418.*red/, code => 418 ])
{
	my ($name, $body, $says, %more) = @$case;
	$f->up('heal');
	$f->fault('body', times => -1, body => $body, code => 200, content_type => 'application/json', %more);
	run_is_clean('r', $says, "rest, $name");
	$f->fault('body', times => -1, command => 'any', body => $body, code => 200, content_type => 'application/json', %more);
	error_is_clean("select flohsync.cache_get_or_fetch('r', 'user', 'user-0000001')", qr/could not fetch/, "rest, $name, for one record");
}
$f->up('heal');
$f->fault('header', times => -1, name => 'Link', value => "<http://evil\xe2\x80\xae\xc2\x9b\x1b.example/>; rel=\"next\"");
run_is_clean('r', qr/link/, 'rest, a link to another host');
$f->up('heal');
$f->up('auth', kind => 'token', client_id => 'client', client_secret => 'another');
$f->rest('t', 'link', auth => { type => 'oauth2_client_credentials', token_url => 'http://{{config.host}}/oauth/token', client_id => 'client', client_secret => '{{secret.s}}' }, secrets => { s => 'a-secret' });
$f->fault('body', type => 'token', times => -1, command => 'any', code => 400, content_type => 'application/json', body => '{"error":"' . $evil_units . '","error_description":"' . $evil_json . '"}');
run_is_clean('t', qr/token endpoint answered with status 400: \?\[31mred.*: \?\[31mred/, 'rest, a token endpoint');
$f->up('heal');
$f->up('auth', kind => 'none');

#
# Kind sql
#
$f->sql("create function public.raises(request jsonb) returns jsonb language plpgsql as \$\$ begin raise exception '%', " . literal($evil) . " using detail = " . literal($evil) . '; end $$');
$f->sql("create function public.fails(request jsonb) returns jsonb language sql as \$\$ select jsonb_build_object('success', false, 'error', " . literal($evil) . '::text) $$');
$f->sql("create function public.loops(request jsonb) returns jsonb language sql as \$\$ select jsonb_build_object('success', true, 'payload', jsonb_build_object('resources', '[]'::jsonb, 'nextCursor', " . literal($evil) . '::text)) $$');
for my $function (qw(raises fails loops))
{
	$f->sql("select flohsync.create_connector('$function', 'sql', '{\"function\": \"public.$function\"}')");
	$f->configure($function, 'user');
	run_is_clean($function, qr/\?\[31mred/, "sql, a function that $function");
}

#
# What follows a pass
#
$f->sql('create table public.people (id text, name text, mail text, attrs jsonb); grant select on public.people to public');
$f->sql('insert into public.people values (' . join(', ', map { literal($_) } "a$evil", $evil, 'a@example.com', json_text({ start => Encode::decode_utf8($evil), boss => Encode::decode_utf8($evil) })) . ')');
$f->sql("select flohsync.create_connector('hr', 'sql', jsonb_build_object('queries', jsonb_build_object('user', 'select id as external_id, name as display_name, mail as email, attrs as attributes from public.people')))");
$f->configure('hr', 'user', createUsers => JSON::PP::true, attributeMappings => [
	{ sourcePath => 'attributes.start', targetField => 'startDate', writeMode => 'overwrite_always' }, { sourcePath => 'attributes.boss', targetField => 'managerId' } ]);
$f->sync_ok('hr', 'user', 'a person of such a name');
my @messages = split /\n/, $f->sql("select replace(message, E'\\n', '<end>') from flohsync.sync_error where run_id = " . $f->last_run('hr', 'user')->{id});
is(scalar(@messages), 2, 'whose start and boss are none');
is_clean($_, 'as is said') for @messages;
$f->sql("create function public.no_such_name() returns trigger language plpgsql as \$\$ begin raise exception 'nobody is called %', new.display_name; end \$\$; create trigger no_such_name before insert or update on flohsync.floh_user for each row execute function public.no_such_name()");
$f->sql('insert into public.people values (' . join(', ', map { literal($_) } "b$evil", $evil, 'b@example.com', '{}') . ')');
$f->sync('hr', 'user');
$run = $f->last_run('hr', 'user')->{id};
is_clean($f->sql("select string_agg(replace(message, E'\\n', '<end>'), '; ') from flohsync.sync_error where run_id = $run"), "an application's trigger that quotes the name");
like($f->sql("select string_agg(message, '; ') from flohsync.sync_error where run_id = $run"), qr/nobody is called \?\[31mred/, 'is quoted itself');

#
# Webhooks
#
my $hook = sub { my (%body) = @_; return Flohsync::jsonb({ action => 'created', resourceId => 'w', resourceType => 'user', data => { displayName => 'W', email => 'w@example.com' }, %body }) };
my $wide = Encode::decode_utf8($evil);
error_is_clean("select flohsync.handle_webhook('hr', " . $hook->(resourceType => $wide) . ')', qr/"resourceType" is not a resource type/, 'a webhook about such a type');
error_is_clean("select flohsync.handle_webhook('hr', " . $hook->(action => $wide) . ')', qr/"action" is unknown/, 'of such an action');
error_is_clean("select flohsync.handle_webhook('hr', " . $hook->(timestamp => $wide) . ')', qr/"timestamp" is not a time/, 'of such a time');
error_is_clean("select flohsync.handle_webhook('hr', " . $hook->(resourceId => $wide, data => { email => 7, displayName => $wide }) . ')', qr/"data" email is not a string/, 'about such an id');
error_is_clean('select flohsync.handle_webhook(' . literal($evil) . ', ' . $hook->() . ')', qr/connector "\?\[31mred.* does not exist/, 'for such a connector');
$f->secret('hr', 'webhook', 'a webhook secret');
my $receive = sub { my ($body, $headers, $connector) = @_; return 'select flohsync.receive_webhook(' . literal($connector // 'hr') . ", '\\x" . unpack('H*', $body) . "', " . Flohsync::jsonb($headers) . ')' };
my $signed = sub { my ($body) = @_; return $receive->($body, { 'X-Webhook-Signature' => hmac_sha256_hex($body, 'a webhook secret') }) };
error_is_clean($receive->('{}', { 'X-Webhook-Signature' => $wide, 'webhook-id' => $wide, $wide => $wide }, $_), qr/not authentic/, 'headers of such a webhook') for 'hr', $evil;
error_is_clean($signed->($evil), qr/must be JSON/, 'a body that is none');
error_is_clean($signed->("\xff$evil"), qr/must be in UTF-8/, 'nor UTF-8');
error_is_clean($signed->('{"action":"' . $evil_units . '","resourceId":"x","resourceType":"' . $evil_json . '"}'), qr/./, 'a body of such texts');
# The trigger raises in what follows the webhook: the record is stored all the same.
is($f->json("select flohsync.handle_webhook('hr', " . $hook->(resourceId => $wide, data => { displayName => $wide, email => 'w@example.com' }) . ')')->{accepted}, 1, 'a record of such an id and name');
is_clean($f->sql("select string_agg(replace(message, E'\\n', '<end>'), '; ') from flohsync.sync_error where run_id is null"), 'what failed then is clean');

#
# Redis
#
$f->sql("create function public.fetch(connector uuid, resource_type text, external_id text) returns jsonb language sql stable as 'select to_jsonb(1)'");
my $first = "ERR\x1b[31mred\x08\x7f\xc2\x85\xc2\x9b2J\xe2\x80\xaeesrever\xe2\x81\xa6\xe2\x80\xa8";
for my $command (qw(GET SET EVALSHA INFO))
{
	$f->disconnect('postgres');
	$proxy->mode('error', "$first and more: \x1b[31m\xe2\x80\xae", $command);
	is($f->sql("select flohsync.cache_get_or_fetch('hr', 'user', 'k$command', 'public.fetch(uuid,text,text)')"), 1, "a read while Redis answers $command with such an error") for 1 .. 6;
	$f->disconnect('postgres');
	$proxy->mode('reply', "+$first\r\n", $command);
	is($f->sql("select flohsync.cache_get_or_fetch('hr', 'user', 'k$command', 'public.fetch(uuid,text,text)')"), 1, "and with such a state") for 1 .. 6;
	$proxy->mode('reply', "\x1b[31m\xe2\x80\xae\r\n", $command);
	is($f->sql("select flohsync.cache_get_or_fetch('hr', 'user', 'k$command', 'public.fetch(uuid,text,text)')"), 1, "and with no reply at all") for 1 .. 6;
}
$f->sql("select flohsync.cache_invalidate('hr', 'user', 'kGET')");
$f->comes_true("select flohsync.metrics() ~ 'flohsync'", 'the invalidator meets it, too');
$proxy->mode('pass');

#
# Everywhere
#
my @lines = split /\n/, slurp_file($f->node->logfile);
# Statements are logged as they came, and errors of PostgreSQL's functions as they were raised.
my @ours = grep { !/^\t/ && !/ (?:STATEMENT|QUERY|CONTEXT):  / } @lines;
my $statement = 0;
my @of_message;
for (@lines)
{
	$statement = / (?:STATEMENT|QUERY):  / if !/^\t/;
	push @of_message, $_ unless $statement;
}
is(join("\n", grep { s/^\t//r =~ $steers } @of_message), '', 'no line of the log has anything that steers');
is(join("\n", grep { /^\s*LOG:  forged/ } @of_message), '', 'and none is forged');
cmp_ok(scalar(grep { /it replied with the error ERR\?\[31mred/ } @ours), '>', 0, 'Redis is told of');
cmp_ok(scalar(grep { /\bsync of c\/user: run \d+ error: .*\?\[31mred/ } @ours), '>', 0, 'and so are runs');

# Columns that say something, of all tables and views; not those that hold what was stored.
my @columns = split /\n/, $f->sql(<<'SQL');
SELECT c.table_schema || '.' || c.table_name || ' ' || c.column_name || ' ' || c.data_type FROM information_schema.columns c
 WHERE c.table_schema IN ('flohsync', '_flohsync') AND c.data_type IN ('text', 'jsonb')
   AND c.column_name ~ '(error|message|reason|notes|remark|incomplete|payload|stats|problem|status)'
 ORDER BY 1
SQL
cmp_ok(scalar(@columns), '>', 8, 'there are columns that tell of errors');
for (@columns)
{
	my ($table, $column, $type) = split / /;
	my $all = $f->sql("SELECT string_agg(replace($column\::text, E'\\n', E'\\x01'), '|') FROM $table");
	# An id is what it is.
	$all =~ s/"externalId": "(?:[^"\\]|\\.)*"//g if $type eq 'jsonb';
	ok($all !~ $steers && ($type eq 'text' || $all !~ /(?<!\\)\\(?:[nrtbf]|u00[01])/), "$table.$column is clean") or diag($all =~ s/([\x00-\x09\x0b-\x1f\x7f-\xff])/sprintf '<%02x>', ord $1/ger);
}
$f->invariants;
$f->no_crash;
done_testing();
