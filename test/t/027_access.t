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
	'sync' => "call flohsync.sync('c', 'user')",
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
	'users beyond v_user' => 'select * from flohsync.floh_user', 'writing records' => "update flohsync.resource_record set display_name = 'x'",
);
cannot('reader', $never{$_}, $_) for sort keys %never;
for my $role (qw(reader manager))
{
	cannot($role, "select flohsync.grant_manager('other')", 'granting');
	cannot($role, 'select flohsync.rotate_secrets()', 'rotating secrets');
	cannot($role, "select _flohsync.grant_worker('other')", 'granting what workers have');
}

# A manager does not act as another owner.
$f->sql("set role other; reset role; select flohsync.grant_manager('other')");
$f->try_sql("SET ROLE other; select flohsync.create_connector('theirs', 'sql', '{\"queries\": {\"user\": \"select current_user::text as external_id, null::text as display_name, null::text as email, null::jsonb as attributes\"}}'); select flohsync.configure_sync('theirs', 'user', '{}')");
cannot('manager', "update flohsync.connector_definition set config = jsonb_set(config, '{queries,user}', '\"select 1\"') where name = 'theirs'", 'changing what another role runs by writing to the table');
cannot('manager', "update flohsync.connector_sync_config set owner = 'other' where resource_type = 'user'", 'making another role the owner');
cannot('manager', "insert into flohsync.connector_sync_config (connector_id, resource_type, owner) select id, 'x', 'postgres' from flohsync.connector_definition where name = 'mine'", 'nor a superuser');
can('other', "update flohsync.connector_definition set config = jsonb_set(config, '{queries,user}', '\"select current_user::text as external_id, null::text as display_name, null::text as email, null::jsonb as attributes\"') where name = 'theirs'", 'its own');

# Taken back
$f->sql("select flohsync.revoke_access('reader'); select flohsync.revoke_access('manager'); select flohsync.revoke_access('other')");
cannot('reader', $reading{$_}, $_) for sort keys %reading;
cannot('manager', $managing{$_}, $_) for sort keys %managing;
is($f->sql("select count(*) from pg_shdepend d join pg_roles r on r.oid = d.refobjid where r.rolname in ('reader', 'manager') and d.deptype = 'a'"), 0, 'nothing is left of the rights');
$f->fails_like("select flohsync.$_('flohsync_worker')", '22023', qr/role of the workers/, "$_ leaves the workers' role alone") for qw(grant_reader grant_manager revoke_access);
$f->sync_ok('c', 'user', 'a run afterwards');

$f->invariants;
$f->no_crash;
done_testing();
