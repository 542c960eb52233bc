# What an installation looks like, and the calls that manage connectors and configurations.
use strict;
use warnings;

use Flohsync;
use Test::More;

my $f = Flohsync->new;
my $ISO_UTC = qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$/;

#
# The installation
#
is($f->sql("SELECT extrelocatable || ' ' || n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = 'flohsync'"),
	'false flohsync', 'the extension is in schema flohsync, which is fixed');
is($f->sql("SELECT trusted || ' ' || superuser FROM pg_available_extension_versions WHERE name = 'flohsync' AND installed"),
	'false true', 'the extension is not trusted');

my $members = "SELECT classid, objid FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'"
  . " AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'flohsync')";
is($f->sql("SELECT n.nspname FROM pg_namespace n WHERE nspname = 'flohsync' AND obj_description(oid, 'pg_namespace') IS NULL"),
	'', 'the schema has a comment');
is($f->sql("SELECT string_agg(c.oid::regclass::text, ' ' ORDER BY c.oid) FROM pg_class c JOIN ($members) m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid WHERE relkind IN ('r', 'v', 'm', 'p', 'f') AND obj_description(c.oid, 'pg_class') IS NULL"),
	'', 'every table and view has a comment');
is($f->sql("SELECT string_agg(c.oid::regclass || '.' || attname, ' ' ORDER BY c.oid, attnum) FROM pg_class c JOIN ($members) m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped WHERE relkind IN ('r', 'v', 'm', 'p', 'f') AND col_description(c.oid, attnum) IS NULL"),
	'', 'every column has a comment');
is($f->sql("SELECT string_agg(p.oid::regprocedure::text, ' ' ORDER BY p.oid) FROM pg_proc p JOIN ($members) m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid WHERE obj_description(p.oid, 'pg_proc') IS NULL"),
	'', 'every function has a comment');
cmp_ok($f->sql("SELECT count(*) FROM ($members) m WHERE classid = 'pg_proc'::regclass"), '>', 20, 'the extension has functions');

# An ACL that is null gives a function's EXECUTE to everybody.
is($f->sql("SELECT string_agg(p.oid::regprocedure::text, ' ') FROM pg_proc p JOIN ($members) m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid WHERE EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0)"),
	'', 'no function is granted to PUBLIC');
is($f->sql("SELECT string_agg(c.oid::regclass::text, ' ') FROM pg_class c JOIN ($members) m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid WHERE EXISTS (SELECT FROM aclexplode(relacl) WHERE grantee = 0)"),
	'', 'no relation is granted to PUBLIC');
is($f->sql("SELECT count(*) FROM pg_namespace, aclexplode(nspacl) WHERE nspname = 'flohsync' AND grantee = 0"),
	0, 'the schema is not granted to PUBLIC');
$f->sql('CREATE ROLE nobody');
$f->fails_like('SET ROLE nobody; SELECT * FROM flohsync.connector_resource', '42501', qr/permission denied/, 'a role without rights reads nothing');
$f->fails_like("SET ROLE nobody; SELECT flohsync.trigger_sync('a', 'user')", '42501', qr/permission denied/, 'a role without rights triggers nothing');

is($f->sql("SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'flohsync.connector_resource'::regclass AND attnum > 0"),
	'id uuid, connector_id uuid, resource_type character varying(64), external_id character varying(255), '
	  . 'display_name character varying(255), email character varying(255), attributes jsonb, sync_hash character varying(64), '
	  . 'stale_since timestamp with time zone, synced_at timestamp with time zone, created_at timestamp with time zone',
	'connector_resource has exactly the columns of the document');
is($f->sql("SELECT relkind FROM pg_class WHERE oid = 'flohsync.connector_resource'::regclass"), 'v', 'connector_resource is a view');

# Each table with the columns that the document and the contract name.
my %columns = (
	connector_definition => 'id uuid, name text, kind text, description, config jsonb, definition jsonb, enabled boolean, created_at, updated_at',
	connector_sync_config => 'id uuid, connector_id uuid, resource_type varchar64, enabled boolean, strategy varchar32, cron_schedule varchar64,'
	  . ' filter_rules jsonb, stale_retention varchar32, last_sync_at timestamptz, last_sync_cursor text, last_sync_status varchar32, last_sync_error text,'
	  . ' last_sync_stats jsonb, attribute_mappings jsonb, user_match_strategy varchar32, user_match_fallback_strategies jsonb, issuer_source_path text,'
	  . ' post_sync_workflow_id uuid, sync_trigger_mode varchar32, create_users boolean, deactivate_users boolean, create_user_defaults jsonb,'
	  . ' full_cron_schedule, timezone text, overlap interval, hash_ignore jsonb, safeguards jsonb, next_run_at timestamptz, next_full_run_at timestamptz, watermark timestamptz',
	connector_sync_match => 'id uuid, connector_id uuid, resource_type varchar64, connector_resource_id uuid, external_id varchar255, external_display_name varchar255,'
	  . ' external_email varchar255, user_id uuid, match_status varchar32, match_confidence varchar32, match_strategy varchar32, candidate_user_ids jsonb,'
	  . ' resolution_notes text, resolved_by uuid, resolved_at timestamptz, created_at timestamptz, updated_at timestamptz',
	sync_run => 'id bigint, connector_id uuid, resource_type, strategy, trigger, requested_by, requested_at timestamptz, started_at timestamptz,'
	  . ' finished_at timestamptz, status, cursor text, pages, complete boolean, incomplete_reason text, error text, error_class text, stats jsonb');
for my $table (sort keys %columns)
{
	my %type = map { split /=/, $_, 2 } split /\n/,
	  $f->sql("SELECT attname || '=' || replace(replace(replace(format_type(atttypid, atttypmod), 'character varying', 'varchar'), '(', ''), ')', '') FROM pg_attribute WHERE attrelid = 'flohsync.$table'::regclass AND attnum > 0 AND NOT attisdropped");
	my @wrong;
	for (split /,\s*/, $columns{$table})
	{
		my ($name, $type) = split ' ';
		my $is = $type{$name} // 'missing';
		$is =~ s/timestamp with time zone/timestamptz/;
		push @wrong, "$name is $is" . ($type ? ", not $type" : '') if $is eq 'missing' || ($type && $is ne $type);
	}
	is(join('; ', @wrong), '', "$table has the columns of the document");
}

# Settings
for ([ 'databases', '*' ], [ 'enabled', 'on' ], [ 'max_workers', '4' ], [ 'page_memory', '256MB' ], [ 'page_size', '500' ], [ 'run_retention', '30d' ],
	[ 'timezone', 'UTC' ], [ 'http_max_response_size', '64MB' ], [ 'http_connect_timeout', '5s' ], [ 'http_timeout', '1min' ],
	[ 'worker_role', undef ], [ 'log_runs', undef ])
{
	my ($name, $value) = @$_;
	my $r = $f->try_sql("SHOW flohsync.$name");
	ok($r->{ok} && (!defined $value || $r->{out} eq $value), "setting flohsync.$name" . (defined $value ? " is $value" : ' is there'))
	  or diag($r->{ok} ? "it is $r->{out}" : $r->{text});
}
is($f->sql("SELECT rolsuper FROM pg_roles WHERE rolname = current_setting('flohsync.worker_role')"), 'f', 'workers do not run as a superuser');
for ([ http_allowed_networks => '10.0.0.0/8' ], [ worker_role => 'postgres' ], [ databases => 'x' ], [ http_max_response_size => '1GB' ])
{
	my $r = $f->try_sql("SET ROLE nobody; SET flohsync.$_->[0] = '$_->[1]'");
	like($r->{state}, qr/^(42501|55P02)$/, "a plain role cannot set flohsync.$_->[0]");
}

#
# Connectors
#
my $id = $f->sql("SELECT flohsync.create_connector('acme', 'command', '{\"url\": \"http://127.0.0.1:1/\", \"commands\": [\"listUsers\"]}')");
like($id, qr/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, 'create_connector returns a uuid');
is($f->sql("SELECT kind || ' ' || enabled || ' ' || (config->>'url') FROM flohsync.connector_definition WHERE id = '$id' AND name = 'acme'"),
	'command true http://127.0.0.1:1/', 'the connector is stored, enabled');
$f->connector('globex');

my $twice = $f->try_sql("SELECT flohsync.create_connector('acme', 'command', '{\"url\": \"http://127.0.0.1:1/\"}')");
ok($twice->{state} =~ /^(23505|42710)$/ && $twice->{message} =~ /acme/, 'a name is taken once') or diag($twice->{text});
$f->fails_like("SELECT flohsync.create_connector('x', 'ftp', '{}')", '22023', qr/kind/, 'an unknown kind is refused');
$f->fails_like("SELECT flohsync.create_connector('x', 'command', '{}')", '22023', qr/url/, 'kind command needs a url');
$f->fails_like("SELECT flohsync.create_connector('x', 'command', '{\"url\": \"$_\"}')", '22023', qr/url/, "$_ is no url for a connector")
  for 'file:///etc/passwd', 'ftp://example.org/', 'gopher://127.0.0.1/', 'not a url', '';
$f->fails_like("SELECT flohsync.create_connector('x', 'sql', '{}')", '22023', qr/quer|function/, 'kind sql needs a function or queries');
is($f->sql('SELECT count(*) FROM flohsync.connector_definition'), 2, 'what was refused left nothing behind');

$f->sql("SELECT flohsync.update_connector('acme', '{\"description\": \"The directory\", \"enabled\": false}')");
is($f->sql("SELECT description || ' ' || enabled || ' ' || (config->>'url') FROM flohsync.connector_definition WHERE name = 'acme'"),
	'The directory false http://127.0.0.1:1/', 'update_connector changes what it is given and nothing else');
$f->sql("SELECT flohsync.update_connector('$id', '{\"enabled\": true}')");
is($f->sql("SELECT enabled FROM flohsync.connector_definition WHERE name = 'acme'"), 't', 'a connector can be named by its uuid');
$f->fails_like("SELECT flohsync.update_connector('acme', '{\"colour\": \"red\"}')", '22023', qr/colour/, 'update_connector refuses an unknown key');

for my $call ("SELECT flohsync.update_connector(%s, '{}')", 'SELECT flohsync.drop_connector(%s)', 'SELECT flohsync.test_connector(%s)',
	"SELECT flohsync.configure_sync(%s, 'user', '{}')", "SELECT flohsync.delete_sync_config(%s, 'user')", "SELECT flohsync.sync_config(%s, 'user')",
	"SELECT flohsync.sync_status(%s, 'user')", "SELECT flohsync.trigger_sync(%s, 'user')", "CALL flohsync.sync(%s, 'user')",
	"SELECT flohsync.upsert_resource(%s, 'user', '{\"externalId\": \"a\"}')", "SELECT flohsync.upsert_resources(%s, 'user', '[]')",
	"SELECT flohsync.mark_stale(%s, 'user', now())", "SELECT flohsync.purge_stale(%s, 'user')")
{
	my ($function) = $call =~ /flohsync\.(\w+)/;
	my $r = $f->try_sql(sprintf $call, "'initech'");
	ok($r->{state} eq '42704' && $r->{text} =~ /initech/ && $r->{text} =~ /acme/ && $r->{text} =~ /globex/,
		"$function names the unknown connector and those there are") or diag($r->{text} || $r->{out});
	is($f->try_sql(sprintf $call, "'00000000-0000-4000-8000-000000000000'")->{state}, '42704', "$function does not know another uuid");
}

#
# Trying a connector out
#
$f->fresh(user => 20, group => 5, role => 3);
my $try = $f->json("SELECT flohsync.test_connector('globex')");
ok($try->{ok}, 'test_connector: the upstream is fine') or diag(json_text($try));
my @asked = map { "$_->{asked}{command} $_->{asked}{pageSize}" } $f->requests;
ok((grep { $_ eq 'listUsers 1' } @asked) && (grep { $_ eq 'listGroups 1' } @asked), 'it lists one record per type') or diag("@asked");
is($f->sql('SELECT count(*) FROM flohsync.resource_record'), 0, 'and stores none');
for ([ 'status', code => 401 ], [ 'status', code => 503 ], ['html'], ['success_false'], [ 'reset', bytes => -1 ])
{
	my ($kind, @args) = @$_;
	$f->fault($kind, @args, times => -1);
	my $r = $f->json("SELECT flohsync.test_connector('globex')");
	ok($r && !$r->{ok} && length($r->{error} // ''), "test_connector: @$_ is reported, not thrown") or diag(json_text($r));
	$f->up('heal');
}
$try = $f->json("SELECT flohsync.test_connector('acme')");
ok(!$try->{ok} && length($try->{error} // ''), 'test_connector: nobody there is reported, not thrown');

#
# Configurations: keys, defaults, what changes
#
my $dto = $f->json("SELECT flohsync.configure_sync('acme', 'user', '{}')");
my %default = (enabled => 0, strategy => 'full', cronSchedule => undef, filterRules => undef, staleRetention => '7d', attributeMappings => undef,
	userMatchStrategy => 'email', userMatchFallbackStrategies => undef, issuerSourcePath => undef, postSyncWorkflowId => undef,
	syncTriggerMode => 'none', createUsers => 0, deactivateUsers => 0, createUserDefaults => undef,
	fullCronSchedule => undef, timezone => 'UTC', hashIgnore => undef, connectorId => $id, resourceType => 'user',
	lastSyncAt => undef, lastSyncCursor => undef, lastSyncStatus => 'idle', lastSyncError => undef, lastSyncStats => undef, nextRunAt => undef);
is(join(' ', grep { !exists $dto->{$_} } sort keys %default, qw(id overlap safeguards)), '', 'the configuration has every key');
for (sort keys %default)
{
	is(ref $dto->{$_} ? $dto->{$_} + 0 : $dto->{$_}, $default{$_}, "default of $_");
}
is(json_text($dto->{safeguards}), '{"maxDeactivateFraction":0.05,"maxStaleFraction":0.2,"minRecords":10}', 'default of safeguards');
is($f->sql("SELECT overlap FROM flohsync.connector_sync_config WHERE id = '$dto->{id}'"), '00:05:00', 'default of overlap');
is(json_text($f->json("SELECT flohsync.sync_config('acme', 'user')")), json_text($dto), 'sync_config gives the same');

my $put = {
	enabled => JSON::PP::false, strategy => 'incremental', cronSchedule => '0 */6 * * *', fullCronSchedule => '0 3 * * 0', timezone => 'Europe/Zurich',
	filterRules => { groupNamePattern => 'proj-*' }, staleRetention => '24h', userMatchStrategy => 'email_and_issuer',
	issuerSourcePath => 'attributes.identityIssuer', userMatchFallbackStrategies => ['email'],
	attributeMappings => [ { sourcePath => 'attributes.department', targetField => 'department', writeMode => 'overwrite_if_empty', enabled => JSON::PP::true },
		{ sourcePath => 'displayName', targetField => 'title', writeMode => 'overwrite_always', enabled => JSON::PP::true } ],
	createUsers => JSON::PP::true, deactivateUsers => JSON::PP::true, createUserDefaults => { location => 'Remote' }, postSyncWorkflowId => undef, syncTriggerMode => 'summary',
	hashIgnore => ['attributes.lastLogin'], safeguards => { maxStaleFraction => 0.5, minRecords => undef } };
my $after = $f->configure('acme', 'user', %$put);
for (grep { $_ ne 'safeguards' } sort keys %$put)
{
	is(json_text($after->{$_}), json_text($put->{$_}), "$_ is stored and returned as given");
}
is(json_text($after->{safeguards}), '{"maxDeactivateFraction":0.05,"maxStaleFraction":0.5,"minRecords":null}', 'safeguards change only where given');
is($after->{id}, $dto->{id}, 'a second configure_sync updates');
my $one = $f->configure('acme', 'user', staleRetention => '2w');
$after->{staleRetention} = '2w';
delete $_->{updatedAt} for $one, $after;
is(json_text($one), json_text($after), 'only the keys given change');
$one = $f->configure('acme', 'user', cronSchedule => undef, filterRules => undef, attributeMappings => undef, fullCronSchedule => undef);
is(join(' ', map { json_text($one->{$_}) } qw(cronSchedule filterRules attributeMappings fullCronSchedule)), 'null null null null', 'null clears');
is($f->configure('acme', 'user', overlap => '90 seconds')->{id}, $dto->{id}, 'overlap is an interval');
is($f->sql("SELECT overlap FROM flohsync.connector_sync_config WHERE resource_type = 'user' AND strategy = 'incremental'"), '00:01:30', 'and is stored');

# What is wrong is refused, with the key, a hint, and no effect.
my @refused = (
	[ bogus => '{"bogus": 1}' ], [ cron_schedule => '{"cron_schedule": "0 0 * * *"}' ], [ identity => '{"identity": "x"}' ],
	(map { [ cronSchedule => "{\"cronSchedule\": \"$_\"}" ] } 'often', '* * *', '* * * *', '* * * * * * *', '61 * * * *', '0 24 * * *', '0 0 32 * *', '0 0 * 13 *',
		'0 0 * * 9', '*/0 * * * *', 'a-b * * * *', '', '@fortnightly', '0 seconds', '-5 seconds', '0 0 * * MON#6', '1,,2 * * * *', '5- * * * *'),
	[ cronSchedule => '{"cronSchedule": 5}' ], [ fullCronSchedule => '{"fullCronSchedule": "often"}' ],
	[ timezone => '{"timezone": "Mars/Olympus"}' ], [ timezone => '{"timezone": ""}' ], [ timezone => '{"timezone": 1}' ],
	(map { [ staleRetention => "{\"staleRetention\": $_}" ] } '"soon"', '"7x"', '"-1d"', '""', '7', 'true'),
	[ overlap => '{"overlap": "later"}' ], [ overlap => '{"overlap": "-5 minutes"}' ],
	[ strategy => '{"strategy": "partial"}' ], [ strategy => '{"strategy": 1}' ], [ enabled => '{"enabled": "yes"}' ],
	[ userMatchStrategy => '{"userMatchStrategy": "shoe_size"}' ], [ userMatchFallbackStrategies => '{"userMatchFallbackStrategies": "email"}' ],
	[ userMatchFallbackStrategies => '{"userMatchFallbackStrategies": ["email", "shoe_size"]}' ],
	[ syncTriggerMode => '{"syncTriggerMode": "always"}' ], [ createUsers => '{"createUsers": "maybe"}' ], [ deactivateUsers => '{"deactivateUsers": 1}' ],
	[ createUserDefaults => '{"createUserDefaults": 5}' ], [ postSyncWorkflowId => '{"postSyncWorkflowId": "nope"}' ],
	[ groupNamePattern => '{"filterRules": {"groupNamePattern": 5}}' ], [ groupIds => '{"filterRules": {"groupIds": "a"}}' ],
	[ emailDomains => '{"filterRules": {"emailDomains": [1]}}' ], [ memberOfSyncedGroups => '{"filterRules": {"memberOfSyncedGroups": "yes"}}' ],
	[ maxRecords => '{"filterRules": {"maxRecords": -1}}' ], [ maxRecords => '{"filterRules": {"maxRecords": 1.5}}' ], [ maxRecords => '{"filterRules": {"maxRecords": "ten"}}' ],
	[ colour => '{"filterRules": {"colour": "red"}}' ], [ filterRules => '{"filterRules": []}' ], [ filterRules => '{"filterRules": "x"}' ],
	[ attributeMappings => '{"attributeMappings": {}}' ], [ attributeMappings => '{"attributeMappings": [1]}' ],
	[ targetField => '{"attributeMappings": [{"sourcePath": "email", "writeMode": "overwrite_always"}]}' ],
	[ sourcePath => '{"attributeMappings": [{"targetField": "title", "writeMode": "overwrite_always"}]}' ],
	[ sourcePath => '{"attributeMappings": [{"sourcePath": "attributes.__proto__.x", "targetField": "title", "writeMode": "overwrite_always"}]}' ],
	[ writeMode => '{"attributeMappings": [{"sourcePath": "email", "targetField": "title", "writeMode": "sometimes"}]}' ],
	[ colour => '{"attributeMappings": [{"sourcePath": "email", "targetField": "title", "colour": 1}]}' ],
	[ hashIgnore => '{"hashIgnore": "x"}' ], [ hashIgnore => '{"hashIgnore": [5]}' ],
	[ maxStaleFraction => '{"safeguards": {"maxStaleFraction": 2}}' ], [ maxStaleFraction => '{"safeguards": {"maxStaleFraction": -0.1}}' ],
	[ maxDeactivateFraction => '{"safeguards": {"maxDeactivateFraction": "5%"}}' ], [ minRecords => '{"safeguards": {"minRecords": -1}}' ],
	[ colour => '{"safeguards": {"colour": 1}}' ], [ safeguards => '{"safeguards": "off"}' ]);
my $settings_now = "SELECT to_jsonb(c) - 'updated_at' FROM flohsync.connector_sync_config c WHERE id = '$dto->{id}'";
my $before = $f->sql($settings_now);
my @hintless;
for (@refused)
{
	my ($key, $settings) = @$_;
	my $r = $f->try_sql("SELECT flohsync.configure_sync('acme', 'user', " . literal($settings) . ')');
	ok(!$r->{ok} && $r->{state} eq '22023' && $r->{text} =~ /\b\Q$key\E\b/, "refused: $settings") or diag($r->{ok} ? 'accepted' : "$r->{state} $r->{message}");
	push @hintless, $settings unless $r->{hint};
}
is(join("\n", @hintless), '', 'and each time a hint says what would be right');
is($f->sql($settings_now), $before, 'what was refused changed nothing');
$f->fails_like("SELECT flohsync.configure_sync('acme', 'role', '{\"strategy\": \"full\", \"bogus\": 1}')", '22023', qr/bogus/, 'one wrong key refuses all');
is($f->sql("SELECT count(*) FROM flohsync.connector_sync_config WHERE resource_type = 'role'"), 0, 'and creates nothing');
is($f->try_sql("SELECT flohsync.configure_sync('acme', $_, '{}')")->{state}, '22023', "no resource type: $_")
  for "''", "'9lives'", "'has space'", "'a:b'", "repeat('x', 65)", "E'a\\nb'";
ok($f->try_sql("SELECT flohsync.configure_sync('acme', $_, '{}')")->{ok}, "a resource type: $_") for "'A.b_c-9'", "repeat('x', 64)";

# What is right is taken.
for my $cron ('0 */6 * * *', '*/5 * * * * *', '0 0 L * *', '0 0 * * 5L', '0 0 * * MON#2', '0 0 ? * MON-FRI', '0 9 1,15 JAN,JUL *', '10-50/10 * * * *',
	'@hourly', '@daily', '@weekly', '@monthly', '@yearly', '90 seconds')
{
	my $r = $f->try_sql("SELECT flohsync.configure_sync('acme', 'user', " . literal(json_text({ cronSchedule => $cron })) . ')');
	ok($r->{ok}, "a schedule: $cron") or diag($r->{text});
}
for my $retention ('7d', '24h', '30m', '90s', '2w', '1 month', '1 day 2 hours')
{
	is($f->configure('acme', 'user', staleRetention => $retention)->{staleRetention}, $retention, "a retention: $retention");
}

# When it is due
$one = $f->configure('acme', 'user', enabled => JSON::PP::true, cronSchedule => '0 3 1 1 *', timezone => 'America/New_York');
like($one->{nextRunAt}, $ISO_UTC, 'nextRunAt is in ISO 8601 and UTC');
is($f->sql("SELECT '$one->{nextRunAt}'::timestamptz = flohsync.cron_next('0 3 1 1 *', now(), 'America/New_York')"), 't', 'and is what cron_next says');
is($f->configure('acme', 'user', enabled => JSON::PP::false)->{nextRunAt}, undef, 'a disabled configuration is never due');

#
# Status
#
my $status = $f->json("SELECT flohsync.sync_status('acme', 'user')");
is(join(' ', sort keys %$status), 'heldRun incompleteReason lastCompletePassAt lastSyncAt lastSyncError lastSyncStats lastSyncStatus nextRunAt resourceType running', 'sync_status has exactly these keys');
is(json_text([ @$status{qw(resourceType lastSyncStatus lastSyncAt running)} ]), '["user","idle",null,null]', 'before the first run');
$f->fresh(user => 20);
$f->configure('globex', 'user', enabled => JSON::PP::false);
$f->sync_ok('globex', 'user');
$status = $f->json("SELECT flohsync.sync_status('globex', 'user')");
is($status->{lastSyncStatus}, 'success', 'after a run: success');
like($status->{lastSyncAt}, $ISO_UTC, 'lastSyncAt is in ISO 8601 and UTC');
is($status->{lastSyncStats}{added}, 20, 'lastSyncStats are there');
$f->fault('hang', page => 1);
my $run = $f->sql("SELECT flohsync.trigger_sync('globex', 'user')");
$f->await(hanging => 1);
$status = $f->json("SELECT flohsync.sync_status('globex', 'user')");
is(join(' ', sort keys %{ $status->{running} // {} }), 'page records runId startedAt totalEstimate', 'running has exactly these keys');
is($status->{running}{runId}, $run, 'and names the run');
is($status->{lastSyncStatus}, 'running', 'status while a run goes on');
is($f->sql("SELECT count(*) FROM flohsync.sync_progress"), 1, 'sync_progress shows the live run');
$f->up('release');
$f->wait_run($run);
is($f->sql("SELECT count(*) FROM flohsync.sync_progress"), 0, 'and no finished one');

#
# Deleting
#
is($f->sql("SELECT flohsync.delete_sync_config('globex', 'user')"), 't', 'delete_sync_config');
is($f->sql("SELECT flohsync.delete_sync_config('globex', 'user')"), 'f', 'a second time there is nothing');
is($f->counts('globex', 'user'), '20 0', 'the records stay');
is($f->sql('SELECT count(*) ' . $f->scope('globex', 'user') . ' AND synced_at IS NULL'), 0, 'and keep their synced_at');
$f->fails_like("SELECT flohsync.trigger_sync('globex', 'user')", '42704', qr/user/, 'what is not configured cannot be triggered');
$f->sql("SELECT flohsync.drop_connector('globex')");
is($f->sql("SELECT count(*) FROM flohsync.connector_definition WHERE name = 'globex'"), 0, 'drop_connector');
is($f->sql('SELECT count(*) FROM flohsync.resource_record'), 0, 'takes its records with it');

$f->invariants;
$f->no_crash;
done_testing();
