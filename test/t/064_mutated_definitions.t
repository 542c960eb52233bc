# Definitions, configs and configurations that are nearly right: given to the
# functions that check them, and written to the tables directly, where nothing
# checks them, and then used.  Nothing of it brings the server down, takes its
# memory, goes on for ever, or ends with an internal error; what cannot be used
# is said to be so.
#
# MUTATED_DEFINITIONS and MUTATED_DEFINITIONS_SEED make it longer and another
# one: test/run mutated-definitions.  Also meant for a server built to find such faults.
use strict;
use warnings;

use Barrage;
use Flohsync;
use JSON::PP ();
use Rest;
use Test::More;

my $number = $ENV{MUTATED_DEFINITIONS} || 600;
my $seed = $ENV{MUTATED_DEFINITIONS_SEED} || 1;
my @allowed = ();

my $f = Rest->new(records => 'user=30,group=6', conf => <<CONF);
flohsync.http_timeout = 2s
flohsync.http_connect_timeout = 1s
flohsync.http_max_attempts = 1
flohsync.http_max_retry_wait = 1s
log_line_prefix = '%m [%p] %b %e '
CONF
my $host = "127.0.0.1:$f->{port}";
diag("seed $seed, $number definitions") if $ENV{MUTATED_DEFINITIONS};

# Whatever a definition makes of 3 GB, it is too much.
my $limited = -e '/proc/self/maps' && slurp('/proc/' . $f->node->{_pid} . '/maps') !~ /libasan/
  && system('prlimit', '--as=3221225472', '--pid', $f->node->{_pid}) == 0;
$f->disconnect('postgres');

sub slurp { my ($file) = @_; local (@ARGV, $/) = ($file); return scalar <> }

#
# Seeds: the templates, the definitions of the tests and of the manual, all with addresses of ours
#

# In the manual one shows what faults look like.
sub at_home { my ($text) = @_; $text =~ s{https?://\{\{}{http://\{\{}g; $text =~ s{https?://[a-z][^/"\{]*}{http://$host}g; return $text }
my @texts = split /\n/, $f->sql('SELECT flohsync.connector_template(name) FROM flohsync.connector_templates()');
my $corpus = slurp($ENV{PWD} . '/test/definitions.sql');
push @texts, $corpus =~ /\$json\$\s*(\{.*?\})\s*\$json\$/sg;
push @texts, map { s/''/'/gr } slurp($ENV{PWD} . '/doc/definition.md') =~ /'(\{\s*"version": 1,.*?\})'\);/sg;
cmp_ok(scalar(@texts), '>=', 10, 'templates, tests and the manual have definitions');
my @definitions = map { decode_json_text(at_home($_)) } grep { !/"baseUrl"/ } @texts;
my %auth = (bearer => { type => 'bearer', token => '{{secret.token}}' }, basic => { type => 'basic', username => '{{config.user}}', password => '{{secret.password}}' },
	key => { type => 'api_key', query => 'key', value => '{{secret.token}}' }, header => { type => 'api_key', header => 'X-Key', prefix => 'K ', value => '{{secret.token}}' },
	oauth => { type => 'oauth2_client_credentials', token_url => 'http://{{config.host}}/rest/token', client_id => 'c', client_secret => '{{secret.client_secret}}', extra => { a => 'b' } },
	jwt => { type => 'jwt_exchange', token_url => 'http://{{config.host}}/rest/token', iss => 'i', key => '{{secret.private_key}}', alg => 'RS256' });
push @definitions, map { $f->definition($_) } qw(link next cursor offset page scim);
push @definitions, map { $f->definition('cursor', auth => $auth{$_}) } sort keys %auth;
push @definitions, $f->definition('delta', list => { incremental => { type => 'delta_link', path => '$."@odata.deltaLink"' } }, resource => { get => { path => '/users/{{external_id}}' } }),
  $f->definition('scim', list => { method => 'POST', path => '/Users/.search', body => { a => [ '{{config.host}}', { b => undef } ] }, page_size => { param => 'count', in => 'body' }, pagination => { type => 'offset', param => 'startIndex', in => 'body', base => 1 } }),
  $f->definition('cursor', types => [ 'user', 'group' ], resource => { get => { path => '/users/{{external_id}}', params => { a => 1 } } }, headers => { 'X-A' => '{{config.user}}' }, limits => { max_pages => 50 }, retry => { max_attempts => 2, base_ms => 10 });
my %config = (host => $host, base_url => "http://$host/rest/scim", domain => $host, (map { $_ => 'x' } qw(tenant tenant_id client_id realm org user x base iss admin bind client_email admin_email)), port => $f->{port}, scheme => 'http');
my $key = qx(openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 2>/dev/null);
$f->sql('CREATE FUNCTION public.secrets(connector text) RETURNS void LANGUAGE sql AS ' . literal("SELECT " . join ', ', map { "flohsync.set_secret(connector, '$_->[0]', " . literal($_->[1]) . ')' }
	[ token => 'a token of ours' ], [ password => 'a password' ], [ client_secret => 'a client secret' ], [ private_key => $key ], [ key => $key ]));

# Nothing is sent to another address than ours, or one that is refused.
sub stays
{
	my ($doc, $config) = @_;
	return 0 unless ref $doc eq 'HASH' && ref $config eq 'HASH';
	my @urls = ($doc->{base_url}, ref $doc->{auth} eq 'HASH' ? scalar $doc->{auth}{token_url} : ());
	for my $url (@urls)
	{
		next if !defined $url || ref $url;
		my $filled = $url =~ s/\{\{config\.(\w+)\}\}/my $v = $config->{$1}; defined $v && !ref $v ? $v : ''/ger;
		next unless $filled =~ m{//}s;
		return 0 unless $filled =~ m{^https?://(?:127\.0\.0\.1|192\.0\.2\.1|10\.0\.0\.1)(?::\d+)?(?:/|$)}s || $filled =~ m{^http://\[::1$};
	}
	return 1;
}

my $barrage = Barrage->new($f, timeout => 15);
my @all;    # shots, for the last judgement
sub fire { my (@shots) = @_; $barrage->fire(@shots); push @all, @shots; return }

#
# What the functions say
#

$f->sql('CREATE TABLE public.doc (i int PRIMARY KEY, definition jsonb, config jsonb, faults int, said jsonb)');
my (@docs, @shots);
for my $i (1 .. $number)
{
	seeded($seed, $i);
	my $doc = $i <= @definitions ? $definitions[ $i - 1 ] : mutated(pick(@definitions), pick(@definitions));
	my $config = chance(85) ? \%config : mutated(\%config);
	$docs[$i] = { doc => $doc, config => $config, stays => stays($doc, $config) };
	push @shots, { name => "definition $i", kind => 'validate_definition', alone => 1, lines => [ "INSERT INTO public.doc VALUES ($i, " . jsonb_of($doc) . ', ' . jsonb_of($config) . ')',
		"UPDATE public.doc SET said = flohsync.validate_definition(definition) WHERE i = $i", "UPDATE public.doc SET faults = jsonb_array_length(said) WHERE i = $i" ] };
}
fire(@shots);
my @raised = grep { $_->{state} ne '00000' && $_->{line} > 0 } @shots;
is(join("\n", map { "$_->{name}: $_->{state} $_->{message}" } @raised), '', 'validate_definition never raises an error');
for (split /\n/, $f->sql('SELECT i, faults FROM public.doc'))
{
	my ($i, $faults) = split /\|/;
	$docs[$i]{faults} = $faults;
}
my @there = grep { defined $docs[$_]{faults} } 1 .. $number;
my @valid = grep { $docs[$_]{faults} == 0 } @there;
cmp_ok(scalar(@there), '>', $number * 0.8, scalar(@there) . ' are JSON');
cmp_ok(scalar(@valid), '>', $number / 20, scalar(@valid) . ' are taken');
cmp_ok(scalar(@valid), '<', $number / 2, 'and most are not');
is(join(' ', grep { $docs[$_]{faults} } 1 .. @definitions), '', 'the seeds are good') or diag $f->sql('SELECT said FROM public.doc WHERE faults > 0 AND i <= ' . @definitions);

# Those that are taken are made connectors; so are some of the others, or not.
sub doc { my ($i, $what) = @_; return "(SELECT $what FROM public.doc WHERE i = $i)" }
@shots = ();
for my $i (grep { $docs[$_]{faults} == 0 ? $docs[$_]{stays} && ($_ % 2 || $_ <= @definitions) : $_ % 10 == 0 } @there)
{
	push @shots, { name => "definition $i", kind => 'create_connector', i => $i, lines => [ "SELECT flohsync.create_connector('m', 'rest', " . doc($i, 'config') . ', ' . doc($i, 'definition') . ')', "SELECT public.secrets('m')",
			"SELECT flohsync.configure_sync('m', t, '{}'), flohsync.trigger_sync('m', t) FROM jsonb_object_keys(" . doc($i, "definition -> 'resources'") . ') t',
			"SELECT flohsync.test_connector('m')", $i % 3 ? () : "SELECT flohsync.update_connector('m', jsonb_build_object('definition', " . doc($i % $number + 1, 'definition') . '))' ] };
}
fire(@shots);
my @wrong;
for my $shot (@shots)
{
	my $valid = $docs[ $shot->{i} ]{faults} == 0;
	my $done = $shot->{state} eq '00000' || $shot->{line} == 4;    # another definition need not fit
	push @wrong, "$shot->{name}, " . ($valid ? 'good' : 'bad') . ", line $shot->{line}: $shot->{state} $shot->{message}"
	  unless ($done && $valid) || ($shot->{line} == 0 && $shot->{state} eq '22023' && (!$valid || $shot->{message} =~ /^invalid value for/));
	push @wrong, "$shot->{name}: updated: $shot->{state} $shot->{message}" if $shot->{state} ne '00000' && $shot->{line} == 4 && $shot->{state} ne '22023';
}
is(join("\n", @wrong[ 0 .. ($#wrong < 9 ? $#wrong : 9) ]), '', 'create_connector takes what validate_definition finds no fault with, with its config, and nothing else; then it can be configured and tested');

#
# Written directly, where no trigger looks at it
#

# Statements that no trigger sees.
sub unseen { return ('SET LOCAL session_replication_role = replica', @_, 'SET LOCAL session_replication_role = origin') }
sub settings_of { my ($connector, $strategy, @types) = @_; return "INSERT INTO flohsync.connector_sync_config (connector_id, resource_type, owner, strategy) SELECT d.id, t, 'postgres', '$strategy' FROM flohsync.connector_definition d, unnest('{" . join(',', @types) . "}'::text[]) t WHERE d.name = '$connector'" }
@shots = ();
for my $i (grep { $docs[$_]{stays} && ($_ % 2 == 0 || $docs[$_]{faults}) } @there)
{
	push @shots, { name => "definition $i, written directly", kind => 'direct', i => $i, 
		before => [ unseen("INSERT INTO flohsync.connector_definition (name, kind, author, config, definition) SELECT 'm', 'rest', 'postgres', config, definition FROM public.doc WHERE i = $i", settings_of('m', $i % 3 ? 'full' : 'incremental', qw(user group member))), "SELECT public.secrets('m')" ],
		lines => [ "SELECT flohsync.test_connector('m')", "SELECT flohsync.sync_config('m', 'user')", "SELECT flohsync.cache_get_or_fetch('m', '" . ($i % 7 ? 'user' : 'group') . "', 'user-0000001')" ] };
}
fire(@shots);
my %said;
$said{"line $_->{line}: $_->{state}"}++ for @shots;
is(join(', ', grep { !/^line (?:-1: 23514|\d: (?:00000|22023|38000))$/ } sort keys %said), '', 'used, it gives what was asked for, or says what it is that cannot be used') or diag explain \%said;

# Runs of such.
my $runs = int $number / 30;
$f->sql("SELECT flohsync.create_connector('m', 'rest', config, definition) FROM public.doc WHERE i = " . (grep { $docs[$_]{faults} == 0 && $docs[$_]{stays} && ref $docs[$_]{doc}{resources}{user} } @there)[0]);
$f->sql(join '; ', 'BEGIN', unseen(settings_of('m', 'full', qw(user group member))), 'COMMIT', "SELECT public.secrets('m')");
$f->sql("CREATE TABLE public.outcome (i int, what text, run bigint, status text, class text, error text); INSERT INTO public.outcome VALUES (0, 'none', 0, 'success')");

# A call of sync, patient for a while; then the run is told to stop.
sub sync_lines
{
	my ($i, $what, $connector, $type) = @_;
	return ("SET statement_timeout = '3s'", "CALL flohsync.sync('$connector', '$type')", "SET statement_timeout = '60s'", "SELECT flohsync.cancel_sync(id) FROM flohsync.sync_run WHERE status IN ('queued', 'running')",
		"INSERT INTO public.outcome SELECT $i, '$what', id, status, error_class, error FROM flohsync.sync_run WHERE id = (SELECT max(id) FROM flohsync.sync_run) AND id > (SELECT max(run) FROM public.outcome)");
}
@shots = ();
for my $i ((grep { $docs[$_]{stays} } @there)[ 0 .. $runs - 1 ])
{
	my $type = $i % 5 ? 'user' : $i % 2 ? 'group' : 'member';
	push @shots, { name => "run of definition $i, written directly", kind => 'direct run', i => $i, alone => 1, impatient => 1, 
		before => [ 'BEGIN', unseen("UPDATE flohsync.connector_definition m SET config = o.config, definition = o.definition FROM public.doc o WHERE m.name = 'm' AND o.i = $i", "UPDATE flohsync.connector_sync_config SET strategy = '" . ($i % 3 ? 'full' : 'incremental') . "'"), 'COMMIT' ],
		lines => [ sync_lines($i, 'definition', 'm', $type) ] };
}
fire(@shots);

#
# Configs of the other kinds, and the settings of configurations
#

my @configs = ([ command => { url => $f->url, headers => { 'X-A' => 'b' }, commands => ['listUsers'], commandNames => { group => 'listGroups' }, limits => { requests_per_minute => 60000 } } ],
	[ sql => { queries => { user => 'SELECT 1 AS external_id, NULL AS display_name, NULL AS email, NULL::jsonb AS attributes', group => 'SELECT 2 AS external_id' } } ], [ sql => { function => 'pg_catalog.jsonb_strip_nulls' } ]);
my @odd = grep { !ref && defined } odd_values();
@shots = ();
for my $i (1 .. $number / 8)
{
	seeded($seed, 1_000_000 + $i);
	my ($kind, $config) = @{ pick(@configs) };
	my $odd = mutated($config, map { $_->[1] } @configs);
	next unless ref $odd eq 'HASH' && (!defined $odd->{url} || ref $odd->{url} || $odd->{url} !~ m{//} || $odd->{url} =~ m{^https?://(?:127\.0\.0\.1|192\.0\.2\.1|10\.0\.0\.1)(?::\d+)?(?:/|$)});
	my @insert = unseen("INSERT INTO flohsync.connector_definition (name, kind, author, config) VALUES ('k', '$kind', 'postgres', " . jsonb_of($odd) . ')', settings_of('k', 'full', 'user'));
	push @shots, { name => "config $i of kind $kind, written directly", kind => "config of $kind", before => [@insert], lines => [ "SELECT flohsync.test_connector('k')", "SELECT flohsync.cache_get_or_fetch('k', 'user', '1')" ] },
	  { name => "config $i of kind $kind", kind => 'create_connector', lines => [ "SELECT flohsync.create_connector('k', '$kind', " . jsonb_of($odd) . ')', "SELECT flohsync.test_connector('k')" ] };
	push @shots, { name => "run of config $i of kind $kind", kind => "run of $kind", alone => 1, impatient => 1, before => [ "DELETE FROM flohsync.connector_definition WHERE name = 'k$i'", 'BEGIN', (map { s/'k'/'k$i'/gr } @insert), 'COMMIT' ], lines => [ sync_lines($i, 'config', "k$i", 'user') ] } if $i <= $runs / 2;
}

my %columns = (filter_rules => { groupNamePattern => 'a*', groupIds => [ 'a', 'b' ], emailDomains => ['acme.com'], memberOfSyncedGroups => JSON::PP::true, maxRecords => 100 }, hash_ignore => [ 'attributes.a', 'attributes.b.c' ],
	attribute_mappings => [ { sourcePath => 'attributes.department', targetField => 'department', writeMode => 'overwrite_always' }, { sourcePath => 'displayName', targetField => 'own', enabled => JSON::PP::true } ],
	user_match_fallback_strategies => [ 'external_id', 'upstream_identity', 'email_and_issuer' ], create_user_defaults => { title => 'x', startDate => '2026-01-01', own => { a => 1 } },
	safeguards => { maxStaleFraction => 0.2, maxDeactivateFraction => 0.05, minRecords => 10 }, totals => { success => 3, added => 5 }, last_sync_stats => { added => 1 });
my %texts = (cron_schedule => 64, full_cron_schedule => 64, timezone => 0, stale_retention => 32, issuer_source_path => 0, delta_link => 0, delta_fingerprint => 0, last_sync_cursor => 0, last_sync_error => 0);
my %numbers = (retries => [ 0, 5, 2147483647, -2147483648 ], watermark => [ map { "'$_'" } 'infinity', '-infinity', '294276-12-31', '4713-01-01 BC' ], next_run_at => [ "'-infinity'", "'infinity'" ], last_full_pass_at => [ "'infinity'", "'4713-01-01 BC'" ],
	last_sync_at => [ "'infinity'", "'294276-12-31'" ], overlap => [ "'178000000 years'", "'0'", "'2147483647 days'" ], post_sync_workflow_id => ["'00000000-0000-0000-0000-000000000001'"]);
$f->sql("INSERT INTO flohsync.floh_user (iss, sub, email, display_name, confirmed) SELECT 'https://idp', 's' || i, 'user' || i || '\@acme.com', 'U', true FROM generate_series(1, 10) i");
$f->connector('c', types => ['user'], attributeMappings => $columns{attribute_mappings});
$f->sync_ok('c', 'user', 'a first run');
for my $i (1 .. $number / 6)
{
	seeded($seed, 2_000_000 + $i);
	my @set = ("create_users = $_->[0], deactivate_users = $_->[1], sync_trigger_mode = '$_->[2]', strategy = '$_->[3]', enabled = true, user_match_strategy = '" . pick(qw(email email_and_issuer external_id)) . "'") for [ pick('true', 'false'), pick('true', 'false'), pick('none', 'per_record', 'summary'), pick('full', 'full', 'incremental') ];
	for (1 .. pick(1, 1, 2, 3))
	{
		my $column = pick(sort(keys %columns), sort(keys %columns), sort(keys %columns), sort(keys %texts), sort keys %numbers);
		push @set, "$column = " . ($columns{$column} ? jsonb_of(mutated($columns{$column}, values %columns)) : $numbers{$column} ? pick(@{ $numbers{$column} }) : do { my $t = literal(pick(@odd) =~ s/\@(?:LONG|HUGE)\@/'long ' x 2000/er); utf8::encode($t); $texts{$column} ? "left($t, $texts{$column})" : $t });
	}
	my %once;
	my $set = 'UPDATE flohsync.connector_sync_config c SET ' . join(', ', grep { my ($name) = /^(\w+)/; !$once{$name}++ } @set) . " FROM flohsync.connector_definition d WHERE d.id = c.connector_id AND d.name = 'c' AND c.resource_type = 'user'";
	push @shots, map { { name => "configuration $i, written directly", kind => 'configuration', before => [ unseen($set) ], lines => [@$_] } }
	  pick([ "SELECT flohsync.sync_config('c', 'user')", "SELECT flohsync.sync_status('c', 'user')", 'TABLE flohsync.jobs', 'SELECT flohsync.metrics()' ], [ 'SELECT _flohsync.enqueue_due()', 'TABLE flohsync.jobs' ], ["SELECT flohsync.match_users('c', 'user')"], ["SELECT flohsync.explain_match('c', 'user', 'user-0000001')"],
		["SELECT flohsync.configure_sync('c', 'user', '{\"enabled\": false}')"], ["SELECT flohsync.upsert_resource('c', 'user', '{\"externalId\": \"new\", \"attributes\": {\"a\": 1}}')"], ["SELECT flohsync.purge_stale('c', 'user')"], ["SELECT flohsync.trigger_sync('c', 'user')"], ["SELECT flohsync.test_connector('c')"]),
	  ["SELECT flohsync.handle_webhook('c', '{\"action\": \"updated\", \"resourceId\": \"user-0000001\", \"resourceType\": \"user\", \"data\": {\"displayName\": \"N\", \"attributes\": {\"department\": \"D$i\"}}}')"];
	push @shots, { name => "run of configuration $i", kind => 'run of a configuration', alone => 1, impatient => 1, before => [ 'BEGIN', unseen("UPDATE flohsync.connector_sync_config c SET (filter_rules, hash_ignore, attribute_mappings, user_match_fallback_strategies, create_user_defaults, safeguards, totals, cron_schedule, full_cron_schedule, timezone, stale_retention, issuer_source_path, delta_link, delta_fingerprint, retries, watermark, overlap, post_sync_workflow_id, next_run_at, last_full_pass_at, last_sync_at) =
			(SELECT NULL, NULL, NULL, NULL, NULL, '{}', '{}', NULL, NULL, 'UTC', '7d', NULL, NULL, NULL, 0, NULL, '5 minutes'::interval, NULL, NULL, NULL, NULL)", $set), 'COMMIT' ], lines => [ sync_lines($i, 'configuration', 'c', 'user') ] } if $i <= $runs / 2;
}
fire(@shots);
my %others;
$others{"$_->{kind}, line $_->{line}: $_->{state}"}++ for grep { !$_->{impatient} } @shots;
is(join(', ', grep { !/line -1: 2(?:2\w{3}|3514)$|line \d: (?:00000|22\w{3}|23\w{3}|38000|42\w{3}|54001|55000|P0001)$/ } sort keys %others), '', 'so it is with configs and configurations') or diag explain \%others;

#
# Where a pass goes on from
#

my @styles = ([ link => {} ], [ next => {} ], [ cursor => {} ], [ offset => {} ], [ page => {} ], [ cursor => { types => [ 'group', 'user' ] } ],
	[ delta => { list => { incremental => { type => 'delta_link', path => '$."@odata.deltaLink"' } } } ]);
for my $i (0 .. $#styles)
{
	$f->rest("go$i", $styles[$i][0], %{ $styles[$i][1] });
}
$f->sql("UPDATE flohsync.connector_definition SET definition = jsonb_set(definition, '{resources,user,for_each}', '{\"resource\": \"group\", \"path\": \"/users?group={{parent.external_id}}\"}') #- '{resources,user,list,path}' WHERE name = 'go5'");
$f->sync_ok('go5', 'group', 'the parents of a list');
my @cursors = (@odd, '[]', '[null]', '[null,null]', '["group-0000001",null]', '["group-0000003","x"]', '["group-0000006","2",true,true]', '["zzz",null]', '[[["a"]]]', '{"a":1}', '0', '-5', '20', '9223372036854775807', '-9223372036854775808', '99999999999999999999999', '1e5', '2:20', '5:9223372036854775807', ':', '2:', '0x10',
	"http://$host/rest/link/users?page=2", "http://$host/", '/x', 'http://192.0.2.1/x', "http://$host\@192.0.2.1/");
@shots = ();
for my $i (1 .. $runs)
{
	seeded($seed, 3_000_000 + $i);
	my $c = 'go' . int rand @styles;
	my $cursor = literal(pick(@cursors) =~ s/\@(?:LONG|HUGE)\@/'long ' x 2000/er) =~ s/^\s+//r;
	utf8::encode($cursor);
	my $last = "(SELECT max(r.id) FROM flohsync.sync_run r JOIN flohsync.connector_definition d ON d.id = r.connector_id WHERE d.name = '$c' AND r.resource_type = 'user')";
	push @shots, { name => "run of $c that goes on from $cursor", kind => "cursor of $c", alone => 1, impatient => 1, before => [ 'BEGIN', unseen("UPDATE flohsync.connector_sync_config c SET strategy = '" . ($c eq 'go6' && $i % 2 ? 'incremental' : 'full') . "', delta_link = $cursor, delta_fingerprint = (SELECT fingerprint FROM flohsync.sync_run WHERE id = $last)
			FROM flohsync.connector_definition d WHERE d.id = c.connector_id AND d.name = '$c'", "UPDATE flohsync.sync_run SET status = 'error', cursor = $cursor, pass_pages = 1 WHERE id = $last", "DELETE FROM flohsync.sync_run_page WHERE page > 1 AND run_id = $last", "UPDATE flohsync.sync_run_page SET seen = '', next_cursor = $cursor WHERE run_id = $last"), 'COMMIT' ],
		lines => [ sync_lines($i, 'cursor', $c, 'user') ] };
}
fire(map({ { name => "a first run of go$_", kind => 'first', alone => 1, lines => [ sync_lines($_, 'first', "go$_", 'user') ] } } 0 .. $#styles), @shots);

#
# What became of the runs
#

$f->comes_true("SELECT count(*) = 0 FROM flohsync.sync_run WHERE status IN ('queued', 'running')", 'no run is left open', timeout => 120);
my (%ends, %went_on);
my @bad;
for (split /\n/, $f->sql("SELECT o.what, o.i, coalesce(r.status, o.status), coalesce(r.error_class, o.class, ''), left(replace(coalesce(r.error, o.error, ''), E'\\n', ' '), 200), coalesce(d.faults > 0, false) FROM public.outcome o LEFT JOIN flohsync.sync_run r ON r.id = o.run AND o.status = 'running' LEFT JOIN public.doc d ON d.i = o.i AND o.what = 'definition'"))
{
	my ($what, $i, $status, $class, $error, $faulty) = split /\|/;
	$ends{ $class || $status }++;
	push @{ $went_on{ $class || $status } }, "$i: $error" if $what eq 'cursor';
	push @bad, "$what $i: $status: $class: $error" if $class =~ /^(?:internal|database|crash_loop|)$/ && $status !~ /^(?:success|held|cancelled)$/ || $faulty eq 't' && $class ne 'configuration' && $status ne 'cancelled';
}
is(join("\n", @bad[ 0 .. ($#bad < 14 ? $#bad : 14) ]), '', 'every run ends with what it should; what cannot be used is of class configuration');
cmp_ok($ends{configuration} // 0, '>', $runs / 5, 'much of it was of class configuration') or diag explain \%ends;
cmp_ok($ends{success} // 0, '>', 2, 'some runs succeeded') or diag explain \%ends;
is(join(' ', grep { !/^(?:success|cancelled)$/ } sort keys %went_on), '', 'where a pass goes on from cannot be used, it begins again') or diag explain { map { $_ => $went_on{$_} } grep { $_ ne 'success' } keys %went_on };

$barrage->survived(\@allowed, @all);
note($limited ? 'within 3 GB' : 'without a limit of memory');
$f->no_crash;
done_testing();
