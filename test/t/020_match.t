# The truth table of matching: strategies, fallbacks, statuses, confidences,
# candidates; and what operators do about the outcome.
use strict;
use warnings;
use utf8;

use Flohsync;
use Test::More;

my $f = Flohsync->new;

sub connector
{
	my ($name, %settings) = @_;
	$f->sql("select flohsync.create_connector('$name', 'sql', jsonb_build_object('queries', jsonb_build_object('user',
		'select null::text as external_id, null::text as display_name, null::text as email, null::jsonb as attributes where false')))");
	$f->configure($name, 'user', %settings);
	return;
}
my $users = 0;
# A user with a key of its own in every respect but those given; x => 1: soft-deleted.
sub user
{
	my (%given) = @_;
	my %row = (iss => 'https://login' . ++$users, sub => "sub$users", email => "nobody$users\@nowhere.example", display_name => "User $users", confirmed => 't', %given);
	$row{deleted_at} = '2026-01-01' if delete $row{x};
	($row{iss}, $row{sub}, $row{confirmed}) = ('-', $row{email}, 'f') if delete $row{unconfirmed};
	my @columns = sort keys %row;
	return $f->sql(sprintf 'insert into flohsync.floh_user (%s) values (%s) returning id', join(', ', @columns), join ', ', map { Flohsync::literal($row{$_}) } @columns);
}
sub match_of
{
	my ($connector, $id) = @_;
	return $f->json('select to_jsonb(m) from flohsync.connector_sync_match m where connector_id = ' . $f->connector_id($connector) . ' and external_id = ' . Flohsync::literal($id));
}

# Each case: settings of its connector, what it shows, the record's e-mail
# address (#: replaced by something of the case's own), its attributes, the
# users, and the outcome: status, confidence, strategy, positions of the users.
# An external id is "id" and the number of the case, or what is given with id.
my $EMAIL = {};
my $ISSUER = { userMatchStrategy => 'email_and_issuer' };
my $UPSTREAM = { userMatchStrategy => 'upstream_identity' };
my $SUBJECT = { userMatchStrategy => 'external_id' };
my $CHAIN = { userMatchStrategy => 'upstream_identity', userMatchFallbackStrategies => [ 'email_and_issuer', 'email' ] };
my $DOUBLED = { userMatchStrategy => 'email', userMatchFallbackStrategies => [ 'email', 'external_id', 'email', 'external_id' ] };
my $PATH = { userMatchStrategy => 'email_and_issuer', issuerSourcePath => 'attributes.origin.idp' };
my $NAME = { userMatchStrategy => 'email_and_issuer', issuerSourcePath => 'displayName' };
my @NONE = ('unmatched', 'none', undef);
my %idp = (identityIssuer => 'https://idp');
my @cases = (
	# email
	[ $EMAIL, 'nobody', 'a#@x', {}, [], @NONE ],
	[ $EMAIL, 'one user', 'a#@x', {}, [ { email => 'a#@x' } ], qw(matched exact email), 0 ],
	[ $EMAIL, 'one of several users', 'a#@x', {}, [ { email => 'b#@x' }, { email => 'a#@x' } ], qw(matched exact email), 1 ],
	[ $EMAIL, 'two issuers', 'a#@x', {}, [ { email => 'a#@x' }, { email => 'a#@x' } ], qw(ambiguous ambiguous email), 0, 1 ],
	[ $EMAIL, 'three issuers', 'a#@x', {}, [ ({ email => 'a#@x' }) x 3 ], qw(ambiguous ambiguous email), 0, 1, 2 ],
	[ $EMAIL, 'capitals in the record', 'A#@X.Example', {}, [ { email => 'a#@x.example' } ], qw(matched exact email), 0 ],
	[ $EMAIL, 'capitals in the user', 'a#@x.example', {}, [ { email => 'A#@X.EXAMPLE' } ], qw(matched exact email), 0 ],
	[ $EMAIL, 'two users who differ in case', 'a#@x', {}, [ { email => 'A#@x' }, { email => 'a#@X' } ], qw(ambiguous ambiguous email), 0, 1 ],
	[ $EMAIL, 'white space in the record', "\t a#\@x \n", {}, [ { email => 'a#@x' } ], qw(matched exact email), 0 ],
	[ $EMAIL, 'white space in the user', 'a#@x', {}, [ { email => ' a#@x  ' } ], qw(matched exact email), 0 ],
	[ $EMAIL, 'white space within', 'a #@x', {}, [ { email => 'a#@x' } ], @NONE ],
	[ $EMAIL, 'no e-mail address', undef, {}, [], @NONE ],
	[ $EMAIL, 'an empty one', '', {}, [ { email => '' } ], @NONE ],
	[ $EMAIL, 'a blank one', '   ', {}, [ { email => ' ' } ], @NONE ],
	[ $EMAIL, 'umlauts of another case', 'Ä#@x', {}, [ { email => 'ä#@x' } ], @NONE ],
	[ $EMAIL, 'umlauts of the same case', 'Ä#@x', {}, [ { email => 'Ä#@X' } ], qw(matched exact email), 0 ],
	[ $EMAIL, 'an i without a dot', "m\x{131}ke#\@x", {}, [ { email => 'mike#@x' } ], @NONE ],
	[ $EMAIL, 'a capital I with a dot', "M\x{130}KE#\@x", {}, [ { email => 'mike#@x' } ], @NONE ],
	[ $EMAIL, 'the sign of Kelvin', "\x{212a}im#\@x", {}, [ { email => 'kim#@x' } ], @NONE ],
	[ $EMAIL, 'a long s', "\x{17f}am#\@x", {}, [ { email => 'sam#@x' } ], @NONE ],
	[ $EMAIL, 'composed and decomposed', "e\x{301}#\@x", {}, [ { email => "\x{e9}#\@x" } ], @NONE ],
	[ $EMAIL, 'wide letters', "\x{ff21}#\@x", {}, [ { email => 'a#@x' } ], @NONE ],
	[ $EMAIL, 'a sharp s and two of them', "stra\x{df}e#\@x", {}, [ { email => 'strasse#@x' } ], @NONE ],
	[ $EMAIL, 'a soft-deleted user', 'a#@x', {}, [ { email => 'a#@x', x => 1 } ], @NONE ],
	[ $EMAIL, 'a soft-deleted user beside another', 'a#@x', {}, [ { email => 'a#@x', x => 1 }, { email => 'a#@x' } ], qw(matched exact email), 1 ],
	[ $EMAIL, 'an inactive user', 'a#@x', {}, [ { email => 'a#@x', active => 'f' } ], qw(matched exact email), 0 ],
	[ $EMAIL, 'an unconfirmed user', 'a#@x', {}, [ { email => 'a#@x', unconfirmed => 1 } ], qw(matched exact email), 0 ],
	[ $EMAIL, 'an unconfirmed user beside a confirmed one', 'a#@x', {}, [ { email => 'a#@x', unconfirmed => 1 }, { email => 'a#@x' } ], qw(ambiguous ambiguous email), 0, 1 ],
	[ $EMAIL, 'a plus and a percent sign', 'a+b%#@x', {}, [ { email => 'a+b%#@x' }, { email => 'a+bc#@x' } ], qw(matched exact email), 0 ],
	[ $EMAIL, 'an underscore is no wildcard', 'a_#@x', {}, [ { email => 'ab#@x' } ], @NONE ],
	[ $EMAIL, 'the other keys do not count', 'a#@x', {}, [ { sub => 'id#', upstream_id => 'id#' } ], @NONE ],
	# email_and_issuer
	[ $ISSUER, 'nobody', 'a#@x', {%idp}, [], @NONE ],
	[ $ISSUER, 'one user', 'a#@x', {%idp}, [ { email => 'a#@x', upstream_issuer => 'https://idp' } ], qw(matched exact email_and_issuer), 0 ],
	[ $ISSUER, 'the same address of two issuers', 'a#@x', {%idp}, [ { email => 'a#@x', upstream_issuer => 'https://other' }, { email => 'a#@x', upstream_issuer => 'https://idp' } ],
		qw(matched exact email_and_issuer), 1 ],
	[ $ISSUER, 'two users of the issuer', 'a#@x', {%idp}, [ ({ email => 'a#@x', upstream_issuer => 'https://idp' }) x 2 ], qw(ambiguous ambiguous email_and_issuer), 0, 1 ],
	[ $ISSUER, 'another issuer', 'a#@x', {%idp}, [ { email => 'a#@x', upstream_issuer => 'https://other' } ], @NONE ],
	[ $ISSUER, 'a user without an issuer', 'a#@x', {%idp}, [ { email => 'a#@x' } ], @NONE ],
	[ $ISSUER, 'a record without an issuer', 'a#@x', {}, [ { email => 'a#@x', upstream_issuer => 'https://idp' } ], @NONE ],
	[ $ISSUER, 'both without', 'a#@x', {}, [ { email => 'a#@x' } ], @NONE ],
	[ $ISSUER, 'an issuer that is null', 'a#@x', { identityIssuer => undef }, [ { email => 'a#@x', upstream_issuer => 'null' } ], @NONE ],
	[ $ISSUER, 'an issuer that is blank', 'a#@x', { identityIssuer => ' ' }, [ { email => 'a#@x', upstream_issuer => '' } ], @NONE ],
	[ $ISSUER, 'the case of the issuer', 'A#@x', { identityIssuer => 'HTTPS://IDP' }, [ { email => 'a#@X', upstream_issuer => 'https://Idp' } ], qw(matched exact email_and_issuer), 0 ],
	[ $ISSUER, 'white space around the issuer', 'a#@x', { identityIssuer => ' https://idp ' }, [ { email => 'a#@x', upstream_issuer => 'https://idp' } ], qw(matched exact email_and_issuer), 0 ],
	[ $ISSUER, 'letters outside ASCII in the issuer', 'a#@x', { identityIssuer => 'https://Ü' }, [ { email => 'a#@x', upstream_issuer => 'https://ü' } ], @NONE ],
	[ $ISSUER, 'no address', undef, {%idp}, [ { upstream_issuer => 'https://idp' } ], @NONE ],
	[ $ISSUER, 'a bar in address and issuer', 'a#@x|b', { identityIssuer => 'c' }, [ { email => 'a#@x', upstream_issuer => 'b|c' } ], @NONE ],
	[ $ISSUER, 'an issuer in another place', 'a#@x', { origin => { idp => 'https://idp' } }, [ { email => 'a#@x', upstream_issuer => 'https://idp' } ], @NONE ],
	[ $ISSUER, 'a soft-deleted user', 'a#@x', {%idp}, [ { email => 'a#@x', upstream_issuer => 'https://idp', x => 1 } ], @NONE ],
	[ $ISSUER, 'the login\'s own issuer does not count', 'a#@x', {%idp}, [ { email => 'a#@x', iss => 'https://idp' } ], @NONE ],
	[ $ISSUER, 'an issuer that is a number', 'a#@x', { identityIssuer => 7 }, [ { email => 'a#@x', upstream_issuer => '7' } ], qw(matched exact email_and_issuer), 0 ],
	[ $PATH, 'issuerSourcePath', 'a#@x', { origin => { idp => 'https://idp' } }, [ { email => 'a#@x', upstream_issuer => 'https://idp' } ], qw(matched exact email_and_issuer), 0 ],
	[ $PATH, 'issuerSourcePath through a list', 'a#@x', { origin => [ { idp => 'https://idp' } ] }, [ { email => 'a#@x', upstream_issuer => 'https://idp' } ], @NONE ],
	[ $PATH, 'issuerSourcePath through a text', 'a#@x', { origin => 'https://idp' }, [ { email => 'a#@x', upstream_issuer => 'https://idp' } ], @NONE ],
	[ $NAME, 'issuerSourcePath at the top', 'a#@x', {}, [ { email => 'a#@x', upstream_issuer => 'name of the record' } ], qw(matched exact email_and_issuer), 0 ],
	# upstream_identity
	[ $UPSTREAM, 'nobody', 'a#@x', {}, [ { email => 'a#@x' } ], @NONE ],
	[ $UPSTREAM, 'one user', undef, {}, [ { upstream_id => 'id#' } ], qw(matched exact upstream_identity), 0 ],
	[ $UPSTREAM, 'two users', undef, {}, [ ({ upstream_id => 'id#' }) x 2 ], qw(ambiguous ambiguous upstream_identity), 0, 1 ],
	[ $UPSTREAM, 'another case', undef, {}, [ { upstream_id => 'ID#' } ], @NONE ],
	[ $UPSTREAM, 'white space', undef, {}, [ { upstream_id => ' id#' } ], @NONE ],
	[ $UPSTREAM, 'the subject does not count', undef, {}, [ { sub => 'id#' } ], @NONE ],
	[ $UPSTREAM, 'a soft-deleted user', undef, {}, [ { upstream_id => 'id#', x => 1 } ], @NONE ],
	[ $UPSTREAM, 'numbers are texts', undef, { id => '007' }, [ { upstream_id => '7' } ], @NONE ],
	[ $UPSTREAM, 'a number with a zero', undef, { id => '00#' }, [ { upstream_id => '00#' } ], qw(matched exact upstream_identity), 0 ],
	# external_id
	[ $SUBJECT, 'nobody', 'a#@x', {}, [ { email => 'a#@x', upstream_id => 'id#' } ], @NONE ],
	[ $SUBJECT, 'one user', undef, {}, [ { sub => 'id#' } ], qw(matched exact external_id), 0 ],
	[ $SUBJECT, 'the same subject of two issuers', undef, {}, [ ({ sub => 'id#' }) x 2 ], qw(ambiguous ambiguous external_id), 0, 1 ],
	[ $SUBJECT, 'another case', undef, {}, [ { sub => 'Id#' } ], @NONE ],
	[ $SUBJECT, 'a soft-deleted user', undef, {}, [ { sub => 'id#', x => 1 } ], @NONE ],
	[ $SUBJECT, 'an address as external id finds an unconfirmed user', undef, { id => 'who#@x' }, [ { email => 'who#@x', unconfirmed => 1 } ], qw(matched exact external_id), 0 ],
	# fallbacks
	[ $CHAIN, 'all strategies find nobody', 'a#@x', {%idp}, [], @NONE ],
	[ $CHAIN, 'the first finds one', 'a#@x', {%idp}, [ { upstream_id => 'id#' }, { email => 'a#@x' } ], qw(matched exact upstream_identity), 0 ],
	[ $CHAIN, 'the second finds one', 'a#@x', {%idp}, [ { email => 'a#@x', upstream_issuer => 'https://idp' }, { email => 'a#@x' } ], qw(matched probable email_and_issuer), 0 ],
	[ $CHAIN, 'the third finds one', 'a#@x', {%idp}, [ { email => 'a#@x' } ], qw(matched probable email), 0 ],
	[ $CHAIN, 'the first finds two: the chain ends', 'a#@x', {%idp}, [ ({ upstream_id => 'id#' }) x 2, { email => 'a#@x' } ], qw(ambiguous ambiguous upstream_identity), 0, 1 ],
	[ $CHAIN, 'the second finds two: the chain ends', 'a#@x', {%idp}, [ ({ email => 'a#@x', upstream_issuer => 'https://idp' }) x 2 ], qw(ambiguous ambiguous email_and_issuer), 0, 1 ],
	[ $CHAIN, 'the third finds two', 'a#@x', {}, [ ({ email => 'a#@x' }) x 2 ], qw(ambiguous ambiguous email), 0, 1 ],
	[ $CHAIN, 'the first finds a deleted one: the chain goes on', 'a#@x', {}, [ { upstream_id => 'id#', x => 1 }, { email => 'a#@x' } ], qw(matched probable email), 1 ],
	[ $CHAIN, 'one user by all of them', 'a#@x', {%idp}, [ { upstream_id => 'id#', email => 'a#@x', upstream_issuer => 'https://idp' } ], qw(matched exact upstream_identity), 0 ],
	[ $CHAIN, 'no address at all', undef, {%idp}, [ { email => '' } ], @NONE ],
	[ $DOUBLED, 'the primary one again among the fallbacks', 'a#@x', {}, [ { email => 'a#@x' } ], qw(matched exact email), 0 ],
	[ $DOUBLED, 'a fallback named twice', 'a#@x', {}, [ { sub => 'id#' } ], qw(matched probable external_id), 0 ],
	[ $DOUBLED, 'none of them', 'a#@x', {}, [], @NONE ],
);

my %connector;
my @expected;
for my $n (0 .. $#cases)
{
	my ($settings, $what, $email, $attributes, $users, $status, $confidence, $strategy, @which) = @{ $cases[$n] };
	my $own = sub { my ($text) = @_; utf8::upgrade($text) if defined $text; $text =~ s/#/-$n-/g if defined $text; return $text };
	my $c = $connector{$settings} //= do { my $name = 'c' . keys %connector; connector($name, %$settings); $name };
	my $id = $own->(delete $attributes->{id} // 'id#');
	my @ids = map { my %u = %$_; user(map { $_ => $own->($u{$_}) } keys %u) } @$users;
	$f->sql("select flohsync.upsert_resource('$c', 'user', " . Flohsync::jsonb({ externalId => $id, displayName => 'Name of the record', email => $own->($email), attributes => $attributes }) . ')');
	push @expected, [ $c, $id, $what, $status, $confidence, $strategy, map { $ids[$_] } @which ];
}
$f->json("select flohsync.match_users('$_', 'user')") for sort values %connector;
for my $e (@expected)
{
	my ($c, $id, $what, $status, $confidence, $strategy, @ids) = @$e;
	my $m = match_of($c, $id);
	my %email = map { $_ => $f->sql("select email from flohsync.v_user where id = '$_'") } @ids;
	is_deeply([ @{$m}{qw(match_status match_confidence match_strategy user_id candidate_user_ids)} ],
		[ $status, $confidence, $strategy, $status eq 'matched' ? $ids[0] : undef,
		  $status eq 'ambiguous' ? [ map { { userId => $_, email => $email{$_}, confidence => 'ambiguous', reason => $strategy } } sort @ids ] : undef ],
		($strategy // $status) . ": $what") or diag(explain($m));
	my $explained = $f->json("select flohsync.explain_match('$c', 'user', " . Flohsync::literal($id) . ')')->{outcome};
	is_deeply([ @{$explained}{qw(status confidence strategy)} ], [ $status, $confidence, $strategy ], '  and explain_match comes to the same');
}
is($f->sql("select count(*) from flohsync.user_external_identity i where source = 'connector_sync' and exists (
		select from flohsync.connector_sync_match m where m.user_id = i.user_id and m.connector_id = i.connector_id and m.external_id = i.external_id)"),
	$f->sql("select count(*) from flohsync.connector_sync_match where match_status = 'matched'"), 'each matched record is an identity of its user');
is($f->sql('select count(*) from flohsync.user_external_identity'), $f->sql("select count(*) from flohsync.connector_sync_match where match_status = 'matched'"), 'and no other is');
my $versions = 'select hashtextextended(string_agg(xmin::text || id, \',\' order by id), 0)::text from flohsync.connector_sync_match';
my $before = $f->sql($versions);
is($f->json("select flohsync.match_users('$_', 'user')")->{changed}, 0, "matching $_ again changes nothing") for sort values %connector;
is($f->sql($versions), $before, 'and writes nothing');

#
# What operators do
#

connector('op');
connector('elsewhere');
my @user = map { user(email => "op$_\@x") } 0 .. 3;
sub put { my ($id, $email, $name) = @_; $f->sql("select flohsync.upsert_resource('op', 'user', " . Flohsync::jsonb({ externalId => $id, email => $email, displayName => $name }) . ')'); return }
put($_, "op$_\@x", "Operator's case $_") for 0 .. 2;
put('none', undef, '100% none');
put('new', 'New@x', 'new_one');
put('taken', 'TAKEN@x');
put('left', 'left@x');
user(email => 'taken@X', upstream_issuer => 'https://elsewhere') for 1 .. 2;
user(email => 'left@x', x => 1);
$f->json("select flohsync.match_users('op', 'user')");
sub id_of { return match_of('op', $_[0])->{id} }
sub resolve { my ($id, @args) = @_; return 'select to_jsonb(r) from flohsync.resolve_match(' . join(', ', map { defined $_ ? Flohsync::literal($_) : 'null' } $id, @args) . ') r' }
sub identities { return $f->sql("select coalesce(string_agg(user_id::text, ' ' order by user_id), '') from flohsync.user_external_identity where external_id = '$_[0]' and connector_id = " . $f->connector_id('op')) }

my $nobody = '7e9a9a54-0000-4000-8000-000000000000';
my $all = "select hashtextextended(string_agg(m::text, ',' order by id), 0)::text || (select count(*) from flohsync.floh_user) || (select count(*) from flohsync.user_external_identity) from flohsync.connector_sync_match m";
$before = $f->sql($all);
$f->fails_like(resolve(id_of(0), 'destroy'), '22023', qr/'destroy' is not an action/, 'an unknown action');
$f->fails_like(resolve(id_of(0), undef), '22023', qr/action/, 'no action');
$f->fails_like(resolve(id_of(0), 'link'), '22023', qr/userId/, 'link without a user');
$f->fails_like(resolve(id_of(0), 'skip', $user[1]), '22023', qr/userId/, 'skip with a user');
$f->fails_like(resolve(id_of(0), 'link', $nobody), '42704', qr/user $nobody does not exist, or is deleted/, 'link to a user who does not exist');
$f->fails_like(resolve(id_of(0), 'link', $f->sql("select id from flohsync.floh_user where email = 'left\@x'")), '42704', qr/does not exist/, 'link to a soft-deleted user');
$f->fails_like(resolve($nobody, 'skip'), '42704', qr/match $nobody does not exist/, 'a match that does not exist');
$f->fails_like(resolve(undef, 'skip'), '42704', qr/match NULL does not exist/, 'no match');
$f->fails_like(resolve(id_of('none'), 'create'), '22023', qr/email/, 'create without an e-mail address');
$f->fails_like(resolve(id_of('taken'), 'create'), '23505', qr/TAKEN\@x/, 'create with the address of a user of another issuer, in another case');
$f->fails_like(resolve(id_of('left'), 'create'), '23505', qr/deleted/, 'create with the address of a soft-deleted user');
$f->fails_like("select flohsync.unlink_match('$nobody')", '42704', qr/does not exist/, 'unlink a match that does not exist');
$f->fails_like("select flohsync.bulk_resolve_matches('op', array['$nobody']::uuid[], 'create')", '22023', qr/'create' is not an action/, 'nothing is created in bulk');
$f->fails_like("select flohsync.bulk_resolve_matches('op', '{}', 'skip')", '22023', qr/matchIds/, 'bulk of nothing');
$f->fails_like("select flohsync.bulk_resolve_matches('op', null, 'skip')", '22023', qr/matchIds/, 'bulk of null');
$f->fails_like("select flohsync.bulk_resolve_matches('op', array['$nobody']::uuid[], 'link')", '22023', qr/userId/, 'bulk link without a user');
$f->fails_like("select flohsync.bulk_resolve_matches('op', array['$nobody']::uuid[], 'link', '$nobody')", '42704', qr/does not exist/, 'bulk link to nobody');
$f->fails_like("select flohsync.bulk_resolve_matches('nowhere', array['$nobody']::uuid[], 'skip')", '42704', qr/connector "nowhere" does not exist/, 'bulk of an unknown connector');
$f->fails_like("select flohsync.match_users('op', 'group')", '42704', qr/has no configuration/, 'matching what is not configured');
$f->fails_like("select flohsync.explain_match('op', 'user', 'nobody')", '42704', qr/has no record "nobody"/, 'explaining what is not there');
is($f->sql($all), $before, 'none of these changed anything');

my $m = $f->json(resolve(id_of(0), 'link', $user[3], 'verified with HR'));
is_deeply([ @{$m}{qw(match_status match_confidence user_id resolution_notes candidate_user_ids)} ], [ 'manual_override', 'exact', $user[3], 'verified with HR', undef ], 'link');
ok(defined $m->{resolved_at}, 'is dated');
is(identities(0), $user[3], 'the identity moves to that user');
$f->sql("set flohsync.acting_user = '$user[2]'");
$m = $f->json(resolve(id_of(1), 'skip'));
is_deeply([ @{$m}{qw(match_status match_confidence user_id resolved_by)} ], [ 'skipped', 'none', undef, $user[2] ], 'skip, on behalf of a user');
$f->sql('reset flohsync.acting_user');
is(identities(1), '', 'takes the identity away');
put($_, 'op2@x', 'Renamed') for 0, 1;
$f->sql("update flohsync.floh_user set email = 'moved\@x' where id = '$user[3]'");
$f->json("select flohsync.match_users('op', 'user')");
$f->sync('op', 'user');
$f->sql('select flohsync.reject_run(' . $f->last_run('op', 'user')->{id} . ')');
is_deeply([ map { [ @{ match_of('op', $_) }{qw(match_status user_id external_display_name external_email)} ] } 0, 1 ],
	[ [ 'manual_override', $user[3], 'Renamed', 'op2@x' ], [ 'skipped', undef, 'Renamed', 'op2@x' ] ], 'both survive matching, whatever record and user become');
$m = $f->json("select to_jsonb(r) from flohsync.unlink_match('" . id_of(0) . "') r");
is_deeply([ @{$m}{qw(match_status match_confidence match_strategy user_id resolution_notes resolved_by resolved_at candidate_user_ids)} ], [ 'unmatched', 'none', (undef) x 6 ], 'unlink');
is(identities(0), '', 'takes the identity away as well');
$f->json("select flohsync.match_users('op', 'user')");
is(match_of('op', 0)->{user_id}, $user[2], 'and the record is matched again');
$m = $f->json(resolve(id_of('new'), 'create', undef, 'asked for'));
is_deeply([ @{$m}{qw(match_status match_confidence resolution_notes)}, $f->sql("select iss || sub || confirmed || display_name from flohsync.floh_user where id = '$m->{user_id}'") ],
	[ 'matched', 'exact', 'asked for', '-New@xfalsenew_one' ], 'create makes an unconfirmed user');
is(identities('new'), $m->{user_id}, 'with an identity');

$f->sql("select flohsync.upsert_resource('elsewhere', 'user', '{\"externalId\": \"other\"}')");
$f->json("select flohsync.match_users('elsewhere', 'user')");
my $other = match_of('elsewhere', 'other')->{id};
is_deeply($f->json("select flohsync.bulk_resolve_matches('op', array['" . join("', '", id_of(2), id_of('none'), $other, $nobody, id_of(2)) . "']::uuid[], 'link', '$user[1]', 'in bulk')"),
	{ updated => 2, notFound => [ sort $other, $nobody ], failed => [] }, 'bulk link, of this connector only');
is_deeply([ map { match_of('op', $_)->{user_id} } 2, 'none' ], [ @user[1, 1] ], 'links them');
is(match_of('elsewhere', 'other')->{match_status}, 'unmatched', 'and leaves those of another connector');
is_deeply($f->json("select flohsync.bulk_resolve_matches('op', array['" . id_of(2) . "']::uuid[], 'skip')"), { updated => 1, notFound => [], failed => [] }, 'bulk skip');

#
# Looking
#

is_deeply($f->json("select flohsync.match_stats('op', 'user')"),
	{ resourceType => 'user', total => 7, stale => 0, matched => 2, unmatched => 1, ambiguous => 1, manualOverride => 1, skipped => 2, createPending => 0,
	  byConfidence => { exact => 3, probable => 0, ambiguous => 1, none => 3 } }, 'match_stats');
sub list { return $f->json("select flohsync.list_matches('op', 'user', $_[0])") }
my $page = list('page_size => 3, page => 3');
is_deeply([ @{$page}{qw(total page pageSize totalPages)}, scalar @{ $page->{data} } ], [ 7, 3, 3, 3, 1 ], 'list_matches: the last page');
is(scalar @{ list('page => 9')->{data} }, 0, 'a page behind the last one is empty');
is(join(' ', map { $_->{externalId} } @{ list("'skipped'")->{data} }), '1 2', 'of one status, in order');
is(join(' ', map { $_->{externalId} } @{ list("search => '100%'")->{data} }), 'none', 'a percent sign is only that');
is(join(' ', map { $_->{externalId} } @{ list("search => 'W_O'")->{data} }), 'new', 'and so is an underscore; case does not count');
is(join(' ', map { $_->{externalId} } @{ list("search => 'TAKEN\@'")->{data} }), 'taken', 'e-mail addresses are searched');
is_deeply([ sort keys %{ list("search => 'taken'")->{data}[0] } ],
	[ sort qw(id connectorId resourceType connectorResourceId externalId externalDisplayName externalEmail userId matchStatus matchConfidence matchStrategy
		candidateUserIds resolutionNotes resolvedBy resolvedAt createdAt updatedAt staleSince) ], 'an item has every key');
$f->fails_like("select flohsync.list_matches('op', 'user', $_)", '22023', qr/page|status/, "list_matches($_)")
  for 'page => 0', 'page_size => 0', 'page_size => 2001', "'lost'", 'page => null';
my $explained = $f->json("select flohsync.explain_match('op', 'user', 'taken')");
is_deeply([ $explained->{strategies}[0]{strategy}, $explained->{strategies}[0]{key}, $explained->{strategies}[0]{hitCount} ], [ 'email', { email => 'taken@x' }, 2 ], 'explain_match shows key and hits');

#
# Records that go, and many of them
#

$f->sql("delete from flohsync.resource_record where external_id = 'new'");
is(match_of('op', 'new'), undef, 'the match of a record that is deleted goes with it');
$f->sql("select flohsync.drop_connector('op')");
is($f->sql("select count(*) from flohsync.user_external_identity i where not exists (select from flohsync.connector_definition d where d.id = i.connector_id)"), 0, 'and with a connector all of it');

connector('many');
$f->sql("insert into flohsync.floh_user (iss, sub, email, display_name, confirmed) select 'https://many', g::text, 'Many' || g || '\@x', 'Many', true from generate_series(1, 70000) g");
$f->sql("select flohsync.upsert_resources('many', 'user', (select jsonb_agg(jsonb_build_object('externalId', 'm' || g, 'email', 'many' || g || '\@x')) from generate_series(b * 10000 + 1, b * 10000 + 10000) g))
	from generate_series(0, 6) b");
is_deeply([ @{ $f->json("select flohsync.match_users('many', 'user')") }{qw(total matched changed)} ], [ (70000) x 3 ], '70,000 keys at once');

$f->invariants;
$f->no_crash;
done_testing();
