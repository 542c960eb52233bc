# Every template against a server that answers as its vendor's manual says
# (test/lib/vendors.py): config and secrets as connector_templates() asks for
# them, a full run of each resource type, a second one that finds nothing new,
# and what changed.
use strict;
use warnings;

use Flohsync;
use IPC::Run;
use Rest;
use Test::More;

my $f = Rest->new(upstream => 0);

my ($out, $err) = ('', '');
my $server = IPC::Run::start([ 'python3', $ENV{PWD} . '/test/lib/vendors.py' ], \undef, \$out, \$err, IPC::Run::timeout(180));
IPC::Run::pump($server) until $out =~ /\n/;
END { local $?; $server->kill_kill if $server }
my ($port) = $out =~ /^(\d+)$/m or BAIL_OUT("no server: $err");

my $host = "127.0.0.1:$port";
my $key = qx(openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 2>/dev/null);

# Values that are easily given in another way
for my $domain ('https://acme.okta.com', 'http://acme.okta.com/', 'acme.okta.com:', 'https:acme.okta.com')
{
	$f->fails_like("SELECT flohsync.create_connector('typed', 'rest', " . literal(json_text({ domain => $domain })) . ", flohsync.connector_template('okta'))",
		'22023', qr/"base_url" becomes "https:\/\/\Q$domain\E": (?:its scheme is there twice.*such as acme\.okta\.com, without "https:\/\/"|it has a colon without a port)/s, "okta, domain $domain: is refused");
}

# Where the template's addresses are here, the values that it asks for, what the users look like, incremental or not.
my %vendors = (
	scim => { config => { base_url => "http://$host/scim/scim/v2" }, secret => 'scim-secret', id => 's3', email => 'u3@acme.example', incremental => '2 1 1 0' },
	okta => { from => 'https://{{config.domain}}', to => 'http://{{config.domain}}', config => { domain => "$host/okta" }, secret => 'okta-secret',
		id => '00u3', email => 'u3@acme.example', incremental => '3 1 1 1', member => '00g4/00u3' },
	entra => { config => { tenant_id => 'contoso', client_id => 'app' }, secret => 'entra-secret', from => 'https://graph.microsoft.com/v1.0', to => "http://$host/graph/v1.0",
		from2 => 'https://login.microsoftonline.com', to2 => "http://$host/graph_login", id => 'e3', email => 'u3@acme.example', incremental => '3 1 1 1', member => 'eg4/e3' },
	google_workspace => { config => { client_email => 'sync@p.iam.gserviceaccount.com', admin_email => 'admin@acme.example' }, secret => $key,
		from => 'https://admin.googleapis.com', to => "http://$host/google", from2 => 'https://oauth2.googleapis.com', to2 => "http://$host/google_login",
		id => '100000000000000000003', email => 'u3@acme.example', member => 'g4/100000000000000000003' },
	github => { config => { org => 'acme' }, secret => 'github-secret', from => 'https://api.github.com', to => "http://$host/github", id => '583003', name => 'u3', email => '', member => '4/583003' },
	keycloak => { config => { base_url => "http://$host/keycloak", realm => 'acme', client_id => 'flohsync' }, secret => 'keycloak-secret',
		id => 'k3', email => 'u3@acme.example', member => 'kg4/k3' },
	authifi => { config => { base_url => "http://$host/authifi" }, secret => 'authifi-secret', id => 'a3', email => 'u3@acme.example' },);

my @names = split /\n/, $f->sql('SELECT name FROM flohsync.connector_templates() ORDER BY 1');
is_deeply(\@names, [ sort keys %vendors ], 'every template has its server here');

sub one { my ($c, $type, $id, $what) = @_; return $f->sql("SELECT $what " . $f->scope($c, $type) . " AND external_id = '$id'") }

my %types;
for my $name (@names)
{
	my $v = $vendors{$name};
	my $definition = 'flohsync.connector_template(' . literal($name) . ')::text';
	$definition = "replace($definition, " . literal($v->{"from$_"}) . ', ' . literal($v->{"to$_"}) . ')' for grep { $v->{"from$_"} } '', '2';
	# 500.0 is a whole number.
	$definition = "replace($definition, '\"default\": 500', '\"default\": 500.0')";
	my ($secret, @more) = split /\n/, $f->sql("SELECT s ->> 'name' FROM flohsync.connector_templates() t, jsonb_array_elements(t.secrets) s WHERE t.name = '$name'");
	is(scalar(@more), 0, "$name: one secret");
	cmp_ok(scalar(keys %{ $v->{config} }), '<=', 3, "$name: at most three values of config");

	my $in_text = Flohsync::jsonb($v->{config});
	$f->sql("SELECT flohsync.create_connector('$name', 'rest', $in_text, ($definition)::jsonb)");
	my $tested = decode_json_text($f->sql("SELECT flohsync.test_connector('$name')"));
	ok(!$tested->{ok}, "$name: without its secret the test of the connector says so");
	$f->secret($name, $secret, $v->{secret});

	$types{$name} = [ split / /, $f->sql("SELECT array_to_string(resource_types, ' ') FROM flohsync.connector_templates() WHERE name = '$name'") ];
	my %expected = (user => 230, group => $name eq 'google_workspace' ? 8 : 7, member => 230, role => 1);
	for my $type (@{ $types{$name} })
	{
		$f->configure($name, $type);
		my $stats = $f->sync_ok($name, $type, "$name: $type");
		is("$stats->{added} $stats->{errored} " . ($stats->{complete} ? 'complete' : 'incomplete'), "$expected{$type} 0 complete", "$name: all of $type")
		  or diag(json_text($stats));
		next if $type ne 'user' && $type ne 'group';
		$stats = $f->sync_ok($name, $type, "$name: $type again");
		is("$stats->{unchanged} $stats->{updated}", "$expected{$type} 0", "$name: nothing of $type has changed");
	}
	is(one($name, 'user', $v->{id}, "display_name || ' ' || coalesce(email, '')"), ($v->{name} // 'User 3') . " $v->{email}", "$name: a user");
	like($f->sql("SELECT string_agg(display_name, ' ') " . $f->scope($name, 'group')), qr/Group 7/, "$name: groups have their names");
	is(one($name, 'member', $v->{member}, "attributes ->> 'parentId' || ' ' || (attributes ->> 'memberId')"), $v->{member} =~ tr{/}{ }r, "$name: a member") if $v->{member};
	$tested = decode_json_text($f->sql("SELECT flohsync.test_connector('$name')"));
	ok($tested->{ok}, "$name: the test of the connector is passed") or diag(json_text($tested));
	if ($v->{incremental})
	{
		$f->configure($name, $_, strategy => 'incremental', overlap => '0s') for qw(user group);
		# The first one makes the delta link, where that is how changes are told.
		$f->sync_ok($name, 'user', "$name: an incremental run");
	}
}

HTTP::Tiny->new->get("http://$host/change");
for my $name (@names)
{
	my $v = $vendors{$name};
	if ($v->{incremental})
	{
		my $stats = $f->sync_ok($name, 'user', "$name: an incremental run after changes");
		is("$stats->{totalUpstreamRecords} $stats->{updated} $stats->{added} $stats->{staled}", $v->{incremental}, "$name: gets what changed");
		is(one($name, 'user', $v->{id}, "display_name || ' ' || email"), "User 3 renamed $v->{email}", "$name: and nothing else is lost");
		$f->sync_ok($name, 'group', "$name: an incremental run of groups");
		$f->configure($name, 'user', strategy => 'full');
	}
	$f->sync_ok($name, 'user', "$name: a full run after changes");
	is($f->counts($name, 'user'), '230 1', "$name: one is new, one is gone");
}
done_testing();
