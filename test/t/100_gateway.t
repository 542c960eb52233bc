# flohsync-http: it starts, answers, reads its settings and keys again, and stops.
use strict;
use warnings;

use Flohsync;
use Gateway;
use Test::More;

my $f = Flohsync->new;
$f->fresh(user => 30);
$f->connector('c');
my $g = Gateway->new($f);

#
# Who may what
#

my $a = $g->get('/api/me', token => $g->manager);
is($a->{status}, 200, 'a token of a manager is taken');
is_deeply($a->{json}, { subject => 'jane', role => 'app_manager', permissions => [ 'connector:read', 'connector:manage' ] },
	'and it is told who it is for');
is_deeply($g->get('/api/me', token => $g->reader)->{json}{permissions}, ['connector:read'], 'a reader only reads');

$a = $g->get('/api/me');
is($a->{status}, 401, 'without a token nothing is told');
is($a->{headers}{'www-authenticate'}, 'Bearer', 'but which kind is wanted');
is($a->{json}{code}, 'FLS01', 'in the form of all errors');

is($g->delete('/api/connectors/c', token => $g->reader)->{status}, 403, 'a reader may not remove a connector');
is($g->delete('/api/connectors/none', token => $g->reader)->{status}, 403, 'nor learn that there is none');
is($g->delete('/api/connectors/none', token => $g->manager)->{status}, 404, 'a manager does');
is($g->get('/api/connectors/c', token => $g->jwt({ role => 'postgres' }))->{status}, 403,
	'a role that is not among those of the settings is none');

#
# A trigger that waits
#

$a = $g->post('/api/connectors/c/sync-config/user/trigger', {}, token => $g->manager);
is($a->{status}, 200, 'a trigger answers when the run has ended');
is($a->{json}{message}, 'Sync completed', 'and says so');
is($a->{json}{stats}{added}, 30, 'with the statistics');
$a = $g->request('POST', '/api/connectors/c/sync-config/user/trigger?wait=false', token => $g->manager);
is($a->{status}, 202, 'or at once');
like($a->{headers}{location}, qr{^/api/connectors/[0-9a-f-]{36}/runs/\Q$a->{json}{runId}\E$}, 'with where the run is found');
$f->wait_for(qq{SELECT status = 'success' FROM flohsync.sync_run WHERE id = $a->{json}{runId}});
is($g->get($a->{headers}{location}, token => $g->reader)->{status}, 200, 'where a reader finds it');

#
# Reading again
#

$g->write_settings(roles => 'admin=app_manager', listen => '127.0.0.1:1');
$g->signal('HUP');
$g->log_has(qr/these settings change with a restart only: listen/, 'a reload says what it cannot change');
is($g->get('/api/me', token => $g->manager)->{status}, 403, 'and changes what it can');
is($g->get('/api/me', token => $g->jwt({ role => 'admin' }))->{json}{role}, 'app_manager', 'a claim can be another word than the role');
$g->write_settings(roles => undef);
$g->signal('HUP');
$g->log_has(qr/the settings are as before: setting roles is missing/, 'settings that are wrong change nothing');
is($g->get('/api/me', token => $g->jwt({ role => 'admin' }))->{status}, 200, 'so it goes on');

$g->write_secret('another secret, which is long enough, too');
$g->log_has(qr/(1 keys for JSON Web Tokens.*){3}/s, "keys are read again when their file changes");
is($g->get('/api/me', token => $g->jwt({ role => 'admin' }))->{status}, 401, 'what was signed with the former one is no good');
is($g->get('/api/me', token => $g->jwt({ role => 'admin' }, secret => 'another secret, which is long enough, too'))->{status},
	200, 'what is signed with the new one is');

#
# The end
#

is($g->stop, 0, 'it stops when it is asked to');
like($g->log_text, qr/stopped/, 'and says so');
unlike($g->log_text, qr/secret of more|eyJ/, 'no secret is in the log');

my $wrong = Gateway->new($f, roles => 0, start => 0, settings => { db => undef });
ok(!$wrong->start, 'without a database it does not start');
is($wrong->{status} >> 8, 1, 'with status 1');
like($wrong->log_text, qr/setting db is missing/, 'and says why');
$wrong = Gateway->new($f, roles => 0, start => 0,
	settings => { db => sprintf('host=%s port=%s dbname=postgres user=%s', $f->node->host, $f->node->port, getpwuid $>) });
ok(!$wrong->start, 'nor does it with a superuser');
like($wrong->log_text, qr/is a superuser/, 'and says why');

done_testing();
