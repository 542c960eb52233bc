# Who reads, who manages: grant_reader, grant_manager, revoke_access.
use strict;
use warnings;

use Flohsync;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
open my $key, '>', "$dir/key" or die $!;
print $key join '', map { sprintf '%02x', int rand 256 } 1 .. 32;
close $key;
chmod 0600, "$dir/key";
my $f = Flohsync->new(conf => "flohsync.encryption_key_file = '$dir/key'\n");
my $superuser = $f->superuser;
$f->connector('c', types => ['user']);
$f->sql("insert into flohsync.floh_user (iss, sub, email, display_name, confirmed) values ('https://idp', 's', 'user1\@acme.com', 'U', true)");
$f->sync_ok('c', 'user', 'first pass');
$f->sql("select flohsync.set_secret('c', 'token', 'canary-of-the-secret')");
$f->sql('create role reader login; create role manager login; create role nobody login; create role other login');
$f->sql("select flohsync.grant_reader('reader'); select flohsync.grant_manager('manager')");

sub as { my ($role, $sql) = @_; return $f->try_sql("SET ROLE $role; $sql") }
sub can { my ($role, $sql, $name) = @_; my $r = as($role, $sql); local $Test::Builder::Level = $Test::Builder::Level + 1; return ok($r->{ok}, "$role: $name") || diag($r->{text}) }
sub cannot { my ($role, $sql, $name) = @_; my $r = as($role, $sql); local $Test::Builder::Level = $Test::Builder::Level + 1; return ok(!$r->{ok} && $r->{state} eq '42501', "$role cannot: $name") || diag($r->{ok} ? $r->{out} : $r->{text}) }

my $match = $f->sql('select id from flohsync.connector_sync_match order by external_id limit 1');
my %reading = (
	'records' => 'select count(*) from flohsync.connector_resource', 'jobs' => 'select * from flohsync.jobs', 'progress' => 'select * from flohsync.sync_progress',
	'workers' => 'select * from flohsync.workers', 'runs' => 'select * from flohsync.sync_run', 'errors' => 'select * from flohsync.sync_error',
	'sync_config' => "select flohsync.sync_config('c', 'user')", 'sync_status' => "select flohsync.sync_status('c', 'user')",
	'match_stats' => "select flohsync.match_stats('c', 'user')", 'list_matches' => "select flohsync.list_matches('c', 'user', 'matched', 'user')",
	'list_resources' => "select flohsync.list_resources('c', search => 'user')", 'get_resource' => "select flohsync.get_resource('c', 'user', 'user-0000001')",
	'list_sync_configs' => "select flohsync.list_sync_configs()",
	'explain_match' => "select flohsync.explain_match('c', 'user', 'user-0000001')", 'metrics' => 'select flohsync.metrics()',
	'cron_next' => "select flohsync.cron_next('0 2 * * MON#2', now(), 'Europe/Zurich')", 'resource_hash' => "select flohsync.resource_hash('a', null, null, '{}')",
	'validate_definition' => "select flohsync.validate_definition(flohsync.connector_template('okta'))", 'connector_templates' => 'select * from flohsync.connector_templates()',
	'cache_get_or_fetch' => "select flohsync.cache_get_or_fetch('c', 'user', 'user-0000001')",
);
my %managing = (
	'create_connector' => "select flohsync.create_connector('mine', 'sql', '{\"queries\": {\"user\": \"select null::text as external_id, null::text as display_name, null::text as email, null::jsonb as attributes where false\"}}')",
	'update_connector' => "select flohsync.update_connector('c', '{\"description\": \"changed\"}')", 'set_secret' => "select flohsync.set_secret('c', 'webhook', 'x')",
	'test_connector' => "select flohsync.test_connector('c')", 'configure_sync' => "select flohsync.configure_sync('c', 'group', '{}')",
	'delete_sync_config' => "select flohsync.delete_sync_config('c', 'role')", 'trigger_sync' => "select flohsync.trigger_sync('c', 'user')",
	'cancel_sync' => 'select flohsync.cancel_sync((select max(id) from flohsync.sync_run))', 'upsert_resource' => "select flohsync.upsert_resource('c', 'user', '{\"externalId\": \"x\"}')",
	'upsert_resources' => "select flohsync.upsert_resources('c', 'user', '[]')", 'mark_stale' => "select flohsync.mark_stale('c', 'user', '2001-01-01')",
	'purge_stale' => "select flohsync.purge_stale('c', 'user')", 'match_users' => "select flohsync.match_users('c', 'user')",
	'resolve_match' => "select flohsync.resolve_match('$match', 'skip')", 'unlink_match' => "select flohsync.unlink_match('$match')",
	'bulk_resolve_matches' => "select flohsync.bulk_resolve_matches('c', array['$match'::uuid], 'skip')", 'claim_workflow_jobs' => 'select * from flohsync.claim_workflow_jobs(1)',
	'handle_webhook' => "select flohsync.handle_webhook('c', '{\"action\": \"updated\", \"resourceId\": \"x\", \"resourceType\": \"user\", \"data\": {\"displayName\": \"X\"}}')",
	'cache_invalidate' => "select flohsync.cache_invalidate('c', 'user', 'x')", 'cache_clear' => "select flohsync.cache_clear('c')",
	'sync' => "call flohsync.sync('c', 'user')", 'drop_connector_in_parts' => "call flohsync.drop_connector_in_parts('mine', 10)", 'enable_search' => 'select flohsync.enable_search()',
);
for my $what (sort keys %reading)
{
	can('reader', $reading{$what}, $what);
	can('manager', $reading{$what}, $what);
	cannot('nobody', $reading{$what}, $what);
}
for my $what (sort keys %managing)
{
	cannot('reader', $managing{$what}, $what);
	can('manager', $managing{$what}, $what);
}
my %never = (
	'the config of a connector' => 'select config from flohsync.connector_definition', 'the ciphertext of secrets' => 'select * from _flohsync.connector_secret',
	'events' => 'select * from flohsync.entitlement_event', 'which secrets there are' => 'select * from flohsync.connector_secrets',
);
cannot('reader', $never{$_}, $_) for sort keys %never;
can('manager', $_, $_) for 'select config from flohsync.connector_definition', 'select * from flohsync.connector_secrets';
for my $role (qw(reader manager))
{
	cannot($role, "select flohsync.grant_manager('other')", 'granting');
	cannot($role, 'select flohsync.rotate_secrets()', 'rotating secrets');
	cannot($role, "select flohsync.set_entitlement_handler(null)", 'setting the entitlement handler');
	cannot($role, "select _flohsync.grant_worker('other')", 'granting what workers have');
	# No internal function, no internal table, no writing: asked of the catalog, and of the server.
	is($f->sql("select string_agg(p.oid::regprocedure::text, ', ') from pg_proc p where p.pronamespace = '_flohsync'::regnamespace and has_function_privilege('$role', p.oid, 'EXECUTE')"), '', "$role: no internal function");
	is($f->sql("select string_agg(c.oid::regclass::text, ', ') from pg_class c where c.relnamespace = '_flohsync'::regnamespace and c.relkind in ('r', 'v', 'S') and has_any_column_privilege('$role', c.oid, 'SELECT')"), '', "$role: no internal table");
	is($f->sql("select has_schema_privilege('$role', '_flohsync', 'USAGE')"), 'f', "$role: not the internal schema");
	is($f->sql("select string_agg(c.oid::regclass || ' ' || x.p, ', ') from pg_class c, unnest(array['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) x(p)
		where c.relnamespace in ('flohsync'::regnamespace, '_flohsync'::regnamespace) and c.relkind in ('r', 'v') and has_table_privilege('$role', c.oid, x.p)"), '', "$role: writes to no table");
	cannot($role, $_, $_) for 'delete from flohsync.sync_run', "update flohsync.resource_record set display_name = 'x'", "insert into flohsync.floh_user (iss, sub, email, display_name) values ('-', 'a', 'a', 'A')",
		'truncate flohsync.resource_record cascade', "update flohsync.connector_sync_config set owner = '$role'", 'create trigger t before insert on flohsync.sync_run for each row execute function pg_catalog.suppress_redundant_updates_trigger()';
}

# A manager does not act as another owner.
my $query = q(select current_user::text as external_id, null::text as display_name, null::text as email, null::jsonb as attributes);
sub query { return json_text({ queries => { user => $_[0] // $query } }) }
$f->sql("select flohsync.grant_manager('other')");
can('other', "select flohsync.create_connector('theirs', 'sql', " . literal(query()) . "); select flohsync.configure_sync('theirs', 'user', '{}')", 'a connector of its own');
$f->sync_ok('theirs', 'user', 'runs');
is($f->sql("select external_id " . $f->scope('theirs', 'user')), 'other', 'with its rights, whoever asks for the run');
cannot('manager', "select flohsync.update_connector('theirs', " . literal(json_text({ config => { queries => { user => 'select 1' } } })) . ')', 'changing what another role runs');
cannot('manager', "select flohsync.set_sync_owner('theirs', 'user')", 'taking what another role owns');
cannot('manager', "select flohsync.set_sync_owner('c', 'user', 'manager')", 'taking what a superuser owns');
can('manager', "select flohsync.create_connector('own', 'sql', " . literal(query()) . "); select flohsync.configure_sync('own', 'user', '{}')", 'a connector of its own');
cannot('manager', "select flohsync.set_sync_owner('own', 'user', 'other')", 'making another role the owner');
can('other', "select flohsync.update_connector('theirs', " . literal(json_text({ config => { queries => { user => $query . ' -- mine' } } })) . ')', 'changing its own');
can('manager', "select flohsync.configure_sync('theirs', 'user', '{\"staleRetention\": \"1d\"}')", 'what does not decide what runs');

# Nor by writing to the tables, if somebody granted that.
$f->sql('grant select, insert, update, delete on all tables in schema flohsync to manager');
cannot('manager', $_->[1], $_->[0]) for
  [ 'changing a query', "update flohsync.connector_definition set config = " . literal(query('select 2')) . " where name = 'theirs'" ],
  [ 'making another role the owner', "update flohsync.connector_sync_config set owner = 'other' where connector_id = (select id from flohsync.connector_definition where name = 'own')" ],
  [ 'making a superuser the owner', "update flohsync.connector_sync_config set owner = '$superuser' where connector_id = (select id from flohsync.connector_definition where name = 'own')" ],
  [ 'a configuration of a superuser', "insert into flohsync.connector_sync_config (connector_id, resource_type, owner) select id, 'x', '$superuser' from flohsync.connector_definition where name = 'own'" ],
  [ 'moving a configuration to its own connector', "update flohsync.connector_sync_config set connector_id = (select id from flohsync.connector_definition where name = 'own'), resource_type = 'moved' where connector_id = (select id from flohsync.connector_definition where name = 'theirs')" ],
  [ 'having it run another query', "update flohsync.connector_sync_config set resource_type = 'other' where connector_id = (select id from flohsync.connector_definition where name = 'theirs')" ],
  [ 'taking it', "update flohsync.connector_sync_config set owner = 'manager' where connector_id = (select id from flohsync.connector_definition where name = 'theirs')" ],
  [ 'another kind', "update flohsync.connector_definition set kind = 'command', config = '{\"url\": \"https://a.example\"}' where name = 'theirs'" ];
like($f->try_sql($_->[1])->{state}, qr/^22023$/, "$_->[0] is refused, also from a superuser") for
  [ 'a definition that makes no sense', "insert into flohsync.connector_definition (name, kind, config, definition) values ('bad', 'rest', '{}', '{\"version\": 1, \"resources\": 7}')" ],
  [ 'a connector of kind rest without a definition', "insert into flohsync.connector_definition (name, kind, config) values ('bad', 'rest', '{}')" ],
  [ 'a config that makes no sense', "update flohsync.connector_definition set config = '{\"url\": 7}' where name = 'c'" ];
$f->sql('revoke insert, update, delete on all tables in schema flohsync from manager');

# An owner is a role, not a name.
$f->sql('alter role other rename to renamed');
is($f->sql("select owner from flohsync.connector_sync_config where connector_id = (select id from flohsync.connector_definition where name = 'theirs')"), 'renamed', 'an owner follows its renaming');
$f->sync_ok('theirs', 'user', 'and goes on');
is($f->sql("select external_id " . $f->scope('theirs', 'user') . ' and stale_since is null'), 'renamed', 'as that role');
$f->sql('drop owned by renamed; drop role renamed; create role renamed login');
$f->sql("select flohsync.grant_manager('renamed')");
$f->sync_fails('theirs', 'user', qr/role "other", the owner of the configuration, no longer exists/, 'of an owner that was dropped nothing runs');
is($f->sql("select owner from flohsync.connector_sync_config where connector_id = (select id from flohsync.connector_definition where name = 'theirs')"), '?other', 'another role of that name is not the owner');
can('renamed', "select flohsync.set_sync_owner('theirs', 'user')", 'taking what nobody owns any more');
$f->sync_ok('theirs', 'user', 'which then runs');

# A superuser's and a predefined role's rights are never lent.
$f->sql("create role helper login in role pg_read_all_data; grant pg_read_all_data to manager");
for my $owner ($superuser, qw(pg_read_all_data flohsync_owner flohsync_worker))
{
	$f->sql("update flohsync.connector_sync_config set owner = '$owner' where connector_id = (select id from flohsync.connector_definition where name = 'own')");
	$f->sync_ok('own', 'user', "a configuration of $owner");
	is($f->sql("select external_id " . $f->scope('own', 'user') . ' and stale_since is null'), 'flohsync_nobody', 'runs as a role that has nothing');
}
is($f->sql("select count(*) from pg_class c, unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE']) x(p) where c.relnamespace in ('flohsync'::regnamespace, '_flohsync'::regnamespace) and c.relkind in ('r', 'v') and has_table_privilege('flohsync_nobody', c.oid, x.p)"), 0, 'no table');

# Taken back
my $said = $f->try_sql("select flohsync.revoke_access('renamed')");
like($said->{text}, qr/configurations that ran with the rights of role "renamed" no longer run.*"theirs", user/s, 'revoke_access names what it stops');
$f->sync_fails('theirs', 'user', qr/role "renamed".*may not run it/, 'which runs no more');
$f->sql("select flohsync.revoke_access('reader'); select flohsync.revoke_access('manager')");
cannot('reader', $reading{$_}, $_) for sort keys %reading;
cannot('manager', $managing{$_}, $_) for sort keys %managing;
is($f->sql("select count(*) from pg_shdepend d join pg_roles r on r.oid = d.refobjid where r.rolname in ('reader', 'manager') and d.deptype = 'a'"), 0, 'nothing is left of the rights');
$f->fails_like("select flohsync.$_('flohsync_worker')", '22023', qr/role of the workers/, "$_ leaves the workers' role alone") for qw(grant_reader grant_manager revoke_access);
$f->sync_ok('c', 'user', 'a run afterwards');

$f->invariants;
$f->no_crash;
done_testing();
