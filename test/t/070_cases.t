# Connectors of kind rest against answers as vendors send them, byte by byte
# (test/data/cases): what is stored, what is stale, what was asked for.
#
# The upstream is one process that gives the answers of the case at hand in
# order, and after them the one that is its rest.
use strict;
use warnings;

use Digest::SHA qw(hmac_sha256);
use File::Basename qw(dirname);
use Flohsync;
use IO::Socket::INET;
use JSON::PP;
use MIME::Base64;
use PostgreSQL::Test::Utils ();
use Rest;
use Test::More;
use Time::HiRes ();

my $f = Rest->new(upstream => 0, conf => "flohsync.http_max_attempts = 2\n");
my $cases = dirname(__FILE__) . '/../data/cases';

#
# The upstream
#
my $dir = PostgreSQL::Test::Utils::tempdir();
my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 20, ReuseAddr => 1) or die "listen: $!";
my $port = $listen->sockport;

sub slurp { my $file = shift; open(my $in, '<:raw', $file) or return undef; local $/; my $text = <$in>; close $in; return $text }
sub spill { my ($file, $text) = @_; open(my $out, '>:raw', "$file.new") or die "$file: $!"; print $out $text; close $out; rename "$file.new", $file; return }
sub note_request { my ($line) = @_; open(my $log, '>>', "$dir/log") or die "log: $!"; print $log $line; close $log; return }

# One token at a time: each that is given makes those before it void.
my $token = 0;

sub token_answer
{
	my ($uri, $head) = @_;
	return raw(200, { access_token => 'T' . ++$token, expires_in => 3600 }) if $uri eq '/token';
	return raw(401, { error => 'invalid_token' }) if $head !~ /^authorization: bearer T$token\r?$/mi;
	my ($page) = $uri =~ /page=(\d+)/;
	return raw(200, { items => [ $page <= 20 ? record($page) : () ] });
}

sub serve
{
	my ($case, $n, $lists) = ('', 0, 0);
	local $SIG{CHLD} = 'IGNORE';
	while (my $socket = $listen->accept)
	{
		my $line = <$socket> // '';
		my $head = '';
		while (my $more = <$socket>) { last if $more =~ /^\r?\n$/; $head .= $more }
		read($socket, my $body, $1) if $head =~ /^content-length: (\d+)/mi;
		my ($method, $uri) = $line =~ /^(\S+) (\S+)/ or next;
		if ($uri eq '/idle')
		{
			print $socket "HTTP/1.1 204 X\r\n\r\n";
			close $socket;
			next;
		}
		my $now = slurp("$dir/now");
		($case, $n) = ($now, 0) if $now ne $case;
		note_request("$method $uri " . Time::HiRes::time() . ($head =~ /^accept-encoding:/mi ? '' : ' plain') . "\n");
		my $answer = slurp("$dir/$case/" . ++$n) // slurp("$dir/$case/rest");
		if ($answer eq 'tokens')
		{
			$answer = token_answer($uri, $head);
			if ($answer =~ m{^HTTP/1.1 200} && $uri =~ /page=1\b/)
			{
				# The first page waits for that of the other type: both runs are under way.
				spill("$dir/lists", ++$lists);
				my $both = $lists + $lists % 2;
				if (!fork())
				{
					for (1 .. 600) { last if slurp("$dir/lists") >= $both; Time::HiRes::sleep(0.1) }
					print $socket $answer;
					close $socket;
					require POSIX;
					POSIX::_exit(0);
				}
				close $socket;
				next;
			}
		}
		$answer =~ s/\r\n/\r\nConnection: close\r\n/;
		print $socket $answer;
		close $socket;
	}
	return;
}

sub raw
{
	my ($status, $body, @headers) = @_;
	$body = encode_json($body) if ref $body;
	return join("\r\n", "HTTP/1.1 $status X", 'Content-Type: application/json', 'Content-Length: ' . length($body), @headers) . "\r\n\r\n$body";
}
sub record { my $n = shift; return { id => "u$n", name => "User $n", email => "u$n\@x.org" } }
sub records { return [ map { record($_) } @_ ] }

my $server = fork() // die "fork: $!";
if ($server == 0)
{
	$SIG{TERM} = sub { require POSIX; POSIX::_exit(0) };
	serve();
	exit 0;
}
END { local $?; kill('TERM', $server), waitpid($server, 0) if $server }

# What the upstream answers from now on: texts, or [status, body, headers], then the rest
my $nr = 0;
sub answers
{
	my ($rest, @answers) = @_;
	my $case = 'c' . ++$nr;
	# What a run that failed had asked for beforehand must not take one of these: one connection is served after the other.
	my $idle = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 60) or die "no upstream: $@";
	print $idle "GET /idle HTTP/1.1\r\n\r\n";
	1 while <$idle>;
	close $idle;
	mkdir "$dir/$case" or die;
	my $n = 0;
	spill("$dir/$case/" . ++$n, ref $_ ? raw(@$_) : $_) for @answers;
	spill("$dir/$case/rest", ref $rest ? raw(@$rest) : $rest);
	spill("$dir/log", '');
	spill("$dir/now", $case);
	return;
}
sub asked { return map { (split / /)[1] } split /\n/, slurp("$dir/log") }

# The saved answers of a case
sub saved
{
	my ($case) = @_;
	my @answers;
	for my $file (sort glob "$cases/$case/response-*.http")
	{
		my $text = slurp($file);
		$text =~ s/PPPPP/$port/g;
		$text =~ s/^(HTTP\S+ 204 X)\r\n/$1\r\nContent-Length: 0\r\n/ if $text !~ /^content-length:/mi && $text !~ / 204 /;
		push @answers, $text;
	}
	return @answers;
}

my $c;
my @types;

# The connector of a case, its definition perhaps changed
sub connector
{
	my ($case, %o) = @_;
	my $text = slurp("$cases/$case/definition.json");
	my $config = slurp("$cases/$case/config.json") // '{}';
	s/PPPPP/$port/g, s/\@\@URL\@\@/http:\/\/127.0.0.1:$port/g for $text, $config;
	my $definition = decode_json($text);
	$o{change}->($definition) if $o{change};
	$c = "case $case " . ++$nr;
	$f->rest($c, 'x', definition => $definition, config => decode_json($config), types => $o{types} // ['user'],
		secrets => { map { $_ => 't0ken' } $text =~ /secret\.(\w+)/g }, safeguards => { maxStaleFraction => undef });
	return;
}

# A run: what it must come to, "live stale", the reason or error, how many requests
sub run_is
{
	my ($name, $want, $counts, $like, $asked, $type) = @_;
	$type //= 'user';
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($ok, $r) = $f->sync($c, $type);
	my $run = $f->last_run($c, $type);
	my $is = $run->{status} eq 'success' ? ($run->{complete} ? 'complete' : 'incomplete') : $run->{error_class} // $run->{status};
	is($is, $want, "$name: is $want") or diag($run->{incomplete_reason} // $run->{error} // '');
	is($f->counts($c, $type), $counts, "$name: what is stored");
	like($run->{error} // $run->{incomplete_reason} // '', $like, "$name: says why") if $like;
	is(scalar(my @all = asked()), $asked, "$name: so many requests") or diag(join "\n", asked()) if defined $asked;
	return $run;
}

my $scim = sub { my ($total, $start, @n) = @_; return [ 200, { totalResults => $total, startIndex => $start, itemsPerPage => scalar(@n),
	Resources => [ map { { id => sprintf('s%04d', $_), userName => "u$_\@example.org", displayName => "User $_" } } @n ] } ] };
my $end = [ 404, {} ];
my %nothing = (results => []);

#
# Totals are claims
#
{
	my ($page) = saved('01');
	connector('01');
	answers($end, $page =~ s/"totalResults": 100/"totalResults": 105/r, $scim->(105, 101, 101 .. 105));
	run_is('01, with the right total', 'complete', '105 0', undef, 2);
	answers($scim->(0, 1), $page, $scim->(5, 101, 101 .. 105));
	run_is('01, the total of a page', 'incomplete', '105 0', qr/said there are 100 records/, 3);
	is((asked())[1], '/scim/v2/Users?count=100&startIndex=101', '01: the page behind is asked for');
	# The page behind, however it is answered
	for my $behind ([ 404, {} ], [ 400, {} ], [ 204, '' ], $scim->(100, 101))
	{
		answers($behind, $page);
		run_is("01, and nothing behind, said by $behind->[0]", 'complete', '100 5', undef, 2);
	}
	# Fewer than were asked for may be all that the upstream sends at a time.
	connector('01', change => sub { $_[0]{resources}{user}{list}{page_size}{default} = 200; $_[0]{resources}{user}{list}{page_size}{max} = 200 });
	answers($end, $page =~ s/"totalResults": 100/"totalResults": 105/r, $scim->(105, 101, 101 .. 105));
	run_is('01, a page has fewer than were asked for', 'complete', '105 0', undef, 2);
	answers($scim->(0, 1), $page, $scim->(5, 101, 101 .. 105));
	run_is('01, and the total is that of a page', 'incomplete', '105 0', qr/said there are 100 records/, 3);
	answers([ 200, { totalResults => 100, startIndex => 101, itemsPerPage => 0 } ], $page);
	run_is('01, and the page behind has no list', 'complete', '100 5', undef, 2);
	answers($scim->(0, 1), $scim->(12, 1, 1 .. 12), $scim->(12, 13, 13 .. 20));
	run_is('01, a page of twelve', 'incomplete', '100 5', qr/said there are 12 records/, 3);
	connector('01');
	answers($end, $page =~ s/"totalResults": 100/"totalResults": 105/r, $scim->(105, 101, 101 .. 105));
	run_is('01, once more', 'complete', '105 0', undef, 2);
	answers($end, $page);
	run_is('01, and gone', 'complete', '100 5', undef, 2);
	for my $status (407, 408, 423, 451)
	{
		answers([ $status, {} ], $page);
		run_is("01, and no answer behind, $status", 'incomplete', '100 5', qr/not sure that there is none/);
	}
	answers([ 500, {} ], $page);
	run_is('01, and an error behind', 'incomplete', '100 5', qr/not sure that there is none/, 3);
	answers($page, $page);
	run_is('01, the same page again', 'complete', '100 5', undef, 2);

	connector('03');
	answers($scim->(0, 4), saved('03'), $scim->(0, 3, 3));
	run_is('03', 'incomplete', '3 0', qr/said there are 0 records, and (then|sent)/);

	connector('54');
	my @pages = saved('54');
	my @whole = @pages;
	$whole[4] = [ 200, { total => 1000, items => records(401 .. 500) } ];
	answers([ 200, { total => 1000, items => [] } ], @whole);
	run_is('54, all', 'complete', '1000 0', undef, 11);
	answers([ 200, { total => 1000, items => [] } ], @pages);
	run_is('54, part of a page', 'incomplete', '1000 0', qr/said there are 1000 records, and sent 940/, 11);
	connector('54', change => sub { $_[0]{resources}{user}{list}{total_estimate} = JSON::PP::true });
	answers([ 200, { total => 1000, items => [] } ], @whole);
	run_is('54, an estimate', 'complete', '1000 0', undef, 11);
	answers([ 200, { total => 1000, items => [] } ], @pages);
	run_is('54, an estimate, and 6 % fewer', 'complete', '940 60', undef, 11);
	answers([ 200, { total => 1000, items => [] } ], @pages[0 .. 7]);
	run_is('54, an estimate, and 20 % fewer', 'incomplete', '940 60', qr/said there are 1000 records, and sent 740/);

	# With cursors, too
	my $cursor = sub { $_[0]{resources}{user}{list} = { path => '/u', records => '$.items[*]', total => '$.total', pagination => { type => 'cursor', path => '$.c', param => 'c' } } };
	connector('54', change => $cursor);
	answers($end, [ 200, { items => records(1 .. 5), total => 5, c => 'x' } ], [ 200, { items => records(6 .. 7), total => 5 } ]);
	run_is('more than the total, with cursors', 'incomplete', '7 0', qr/5 records, and sent more: 7/, 2);
}

#
# Links
#
{
	connector('04');
	my ($page) = saved('04');
	answers($end, $page, [ 200, records(21, 22), "Link: <http://127.0.0.1:$port/api/u?page=3>; rel='next last'" ], [ 200, records(31, 32) ]);
	run_is('04', 'complete', '6 0', undef, 3);

	for my $link ("\xe2\x80\xb9http://127.0.0.1:$port/api/u?page=2\xe2\x80\xba; rel=\xe2\x80\x9cnext\xe2\x80\x9d", "<http://127.0.0.1:$port/api/u?page=2>; rel=\xe2\x80\x9cnext\xe2\x80\x9d")
	{
		answers($page =~ s/^Link:.*$/Link: $link/mri);
		run_is('04, typographic', 'bad_answer', '6 0');
	}

	connector('05');
	answers($end, saved('05'));
	run_is('05', 'complete', '2 0', undef, 1);

	my $results = sub { my ($next, @n) = @_; return [ 200, { results => records(@n), next => $next } ] };
	connector('07');
	answers($end, saved('07'));
	run_is('07, by default', 'blocked_address', '0 0', qr/by https only/);
	connector('07', change => sub { $_[0]{resources}{user}{list}{pagination}{origin} = 'base_url' });
	answers($end, saved('07'), [ 200, { count => 6, results => records(21, 22), next => 'https://other.internal/api/u?page=3' } ], [ 200, { count => 6, results => records(31, 32) } ]);
	run_is('07, with the origin of base_url', 'complete', '6 0', undef, 3);
	is_deeply([ asked() ], [ '/api/u', '/api/u?page=2', '/api/u?page=3' ], '07: path and query are the link\'s');

	connector('08');
	answers($end, saved('08'), $results->(undef, 12));
	run_is('08', 'complete', '2 0', undef, 2);
	is((asked())[1], q{/api/u?where=status%20eq%20'Active'&page=2}, '08: blanks are encoded');
	answers($end, $results->(" /api/u?q=J\xc3\xb6rg|\"x\"&page=2 ", 11), $results->(undef, 12));
	run_is('08, beyond ASCII', 'complete', '2 0', undef, 2);
	like((asked())[1], qr{^/api/u\?q=J(%C3%83%C2%B6|%C3%B6)rg%7C%22x%22&page=2$}, '08: that is encoded, too');
	for my $bad ("/api/u?a\tb", "/api/u?a\nb", '\\\\evil.example\\u')
	{
		answers($end, $results->($bad, 11));
		run_is('08, ' . encode_json([$bad]), 'bad_answer', '2 0', qr/cannot be used/);
	}
}

#
# Answers that are none
#
{
	connector('10');
	answers($end, saved('10'));
	run_is('10', 'complete', '0 0', undef, 1);
	connector('10', change => sub { delete $_[0]{resources}{user}{list}{missing} });
	answers($end, saved('10'));
	run_is('10, a list that may not be missing', 'bad_answer', '0 0', qr/status 204/);

	connector('12', change => sub { $_[0]{resources}{user}{list}{error} = '$.error' });
	my @pages = saved('12');
	my $row = sub { my $n = shift; return { sys_id => sprintf('%032x', $n), name => "U $n", email => "u$n\@example.org", active => 'true', error => 'false' } };
	my @whole = map { my $p = $_; [ 200, { result => [ map { $row->(100 * $p + $_) } 0 .. 99 ] } ] } 0 .. 2;
	answers([ 200, { result => [] } ], @whole);
	run_is('12, all', 'complete', '300 0', undef, 4);
	answers([ 200, { result => [] } ], @whole[ 0, 1 ], (grep { /"error"/ } @pages) x 2);
	my $failed = run_is('12, a page that failed', 'upstream', '300 0', qr/says that it failed, at \$\.error: .*maximum execution time/);
	unlike($failed->{error}, qr/sys_id|example\.org/, '12: and nothing else of the answer');
	answers([ 200, { result => [] } ], $whole[0], (grep { /"error"/ } @pages), @whole[ 1, 2 ]);
	run_is('12, and is whole at the second attempt', 'incomplete', '300 0', qr/./);

	connector('14');
	answers($end, [ 200, { users => { 1001 => { name => 'A' }, 1002 => { name => 'B' } } } ]);
	run_is('14, a map', 'complete', '2 0', undef, 1);
	answers($end, saved('14'));
	run_is('14', 'bad_answer', '2 0', qr/something else where the list/);
	answers($end, [ 200, { users => 7 } ]);
	run_is('14, a number', 'bad_answer', '2 0', qr/something else where the list/);
	answers($end, [ 200, { users => { code => 401, message => 'no' } } ]);
	run_is('14, an error object where a map should be', 'bad_answer', '2 0', qr/something else where the list/);
	answers($end, [ 200, { users => { 1001 => { name => 'A' }, 1002 => undef } } ]);
	run_is('14, a map in which one is null', 'complete', '2 0', undef, 1);
	answers($end, [ 200, { users => {} } ]);
	run_is('14, an empty map', 'safeguard', '2 0', qr/no record at all/, 1);
	connector('14', change => sub { $_[0]{resources}{user} = { list => { path => '/u', records => '$.items ? (@.kind == "x")' }, map => { externalId => '$.id' } } });
	answers($end, [ 200, { items => [ { id => 1, kind => 'x' } ] } ]);
	run_is('14, a filter', 'complete', '1 0', undef, 1);
	answers($end, [ 200, { items => { error => 'x' } } ]);
	run_is('14, an error object where a filter looks for a list', 'bad_answer', '1 0', qr/something else where the list/);

	# As in the template
	my $google = sub { $_[0]{resources}{group}{list}{error} = '$.error' };
	connector('16', types => ['group'], change => $google);
	answers($end, [ 200, { groups => [ { id => 'g1', name => 'G', email => 'g@x.org' } ] } ]);
	run_is('16, a group', 'complete', '1 0', undef, 1, 'group');
	answers((saved('16'))[0]);
	run_is('16', 'upstream', '1 0', qr/says that it failed/, undef, 'group');
	for my $no ('false', '0', '""', 'null', '{}', '[]', '"false"', '"No"')
	{
		answers($end, [ 200, qq({"groups": [{"id": "g1"}], "error": $no}) ]);
		run_is("16, an error that says $no", 'complete', '1 0', undef, 1, 'group');
	}
	is($f->sql("SELECT string_agg(t || ':' || r || ':' || coalesce(flohsync.connector_template(t) #>> ARRAY['resources', r, 'list', 'error'], ''), ' ' ORDER BY t, r)
		FROM unnest('{google_workspace,entra}'::text[]) t, unnest('{user,group,member}'::text[]) r"),
		'entra:group:$.error entra:member:$.error entra:user:$.error google_workspace:group:$.error google_workspace:member:$.error google_workspace:user:$.error', 'the templates say where an error is');

	connector('17');
	answers($end, [ 200, { items => [ { id => '1', name => 'A' }, { id => '2', name => 'B' } ] } ]);
	run_is('17, two', 'complete', '2 0', undef, 1);
	answers($end, saved('17'));
	run_is('17', 'complete', '2 0', undef, 1);
	for my $no ('0', '"0"', '"no"', '""', 'false', 'null', '[]', '0.0', '"F"')
	{
		answers($end, [ 200, qq({"items": [{"id": "1", "name": "A", "deleted": $no}, {"id": "2", "name": "B"}]}) ]);
		run_is("17, $no", 'complete', '2 0', undef, 1);
	}
	for my $yes ('true', '1', '"true"', '"2026-01-01T00:00:00Z"', '{"reason": "changed"}', '0.5')
	{
		answers($end, [ 200, { items => [ { id => '1', name => 'A' }, { id => '2', name => 'B' } ] } ], [ 200, qq({"items": [{"id": "1", "name": "A", "deleted": $yes}, {"id": "2", "name": "B"}]}) ]);
		$f->sync_ok($c, 'user', "17, before $yes");
		run_is("17, $yes", 'complete', '1 1', undef, 2);
	}

	connector('53');
	answers($end, [ 200, { items => records(1, 2) } ]);
	run_is('53, ready', 'complete', '2 0', undef, 1);
	answers((saved('53'))[0]);
	run_is('53', 'http_status', '2 0', qr/status 202/, 2);
	answers([ 200, { items => records(1 .. 3) } ], saved('53'));
	run_is('53, ready at the second attempt', 'complete', '3 0', undef, 2);
	answers([ 206, { items => records(1) } ]);
	run_is('53, a part', 'incomplete', '3 0', qr/status 206/, 1);

	connector('43');
	answers((saved('43'))[0]);
	run_is('43', 'bad_answer', '0 0', qr/invalid_auth/);
	connector('44');
	answers((saved('44'))[0]);
	run_is('44', 'bad_answer', '0 0', qr/text\/html.*Sign in/);
	connector('50');
	answers((saved('50'))[0]);
	run_is('50', 'complete', '1 0', undef, 2);
	like(slurp("$dir/log"), qr/ plain\n\z/, '50: no encoding is offered the second time');
}

#
# The end of a list
#
{
	connector('22', change => sub { $_[0]{resources}{user}{list}{pagination}{end_status} = [ 404, 500 ] });
	my @pages = saved('22');
	answers($end, @pages[ 1 .. 4 ]);
	run_is('22', 'complete', '7 0', undef, 4);
	answers([ 500, {} ], @pages[ 1 .. 3 ]);
	run_is('22, with 500', 'complete', '7 0', undef, 5);
	answers($end);
	run_is('22, not the first page', 'not_found', '7 0', qr/404/);
	answers([ 400, {} ], @pages[ 1 .. 3 ]);
	run_is('22, another status', 'http_status', '7 0', qr/400/);

	connector('24');
	my @jira = saved('24');
	answers([ 200, { total => 7, values => [] } ], @jira, [ 200, { startAt => 6, total => 7, values => records(7) } ]);
	run_is('24', 'incomplete', '4 0', qr/7 records, and sent 4/, 3);

	connector('31');
	my @same = saved('31');
	answers($end, map { my $s = 2 * $_; $same[0] =~ s/start=2/sprintf 'start=%d', $s/er =~ s/Content-Length: \d+/'Content-Length: ' . (188 + length $s)/er } 1 .. 40);
	my $run = run_is('31', 'pagination_loop', '2 0', qr/\d pages in a row without a record/);
	cmp_ok(scalar(my @all = asked()), '<=', 10, '31: after a few pages');
	my $next = sub { my ($n, @n) = @_; return [ 200, { results => records(@n), _links => { next => $n ? "/api/u?start=$n" : undef } } ] };
	answers($end, (map { $next->($_, $_ % 3 * 2 + 1, $_ % 3 * 2 + 2) } 1 .. 40));
	run_is('31, pages that come again', 'pagination_loop', '6 0', qr/without a record/);
	answers($end, $next->(1, 1 .. 4), $next->(2, 1 .. 4), $next->(3, 3 .. 6), $next->(4, 1 .. 4), $next->(5, 1 .. 4), $next->(undef, 7));
	run_is('31, a list that moves', 'complete', '7 0', undef, 6);

	connector('55');
	answers($end, saved('55'));
	run_is('55', 'incomplete', '100 0', qr/nothing in it tells of another/, 1);
	my $data = sub { my ($n, $next) = @_; return [ 200, { data => records(1 .. $n), %$next } ] };
	answers($end, $data->(100, { paging => { nextCursor => undef } }));
	run_is('55, an end that is told', 'complete', '100 0', undef, 1);
	answers($end, $data->(99, {}));
	run_is('55, a page that is not full', 'complete', '99 1', undef, 1);
	answers($end, [ 200, { data => records(1 .. 100), paging => { nextCursor => 'x' } } ], [ 200, { data => records(101) } ]);
	run_is('55, a second page', 'complete', '101 0', undef, 2);
	answers($end, saved('55'));
	run_is('55, where there has been a second page', 'complete', '100 1', undef, 1);
	connector('55', change => sub { $_[0]{resources}{user}{list}{pagination} = { type => 'link_header' } });
	answers($end, saved('55'));
	run_is('55, no Link header', 'incomplete', '100 0', qr/nothing in it tells of another/, 1);

	connector('65');
	answers($end, saved('65'));
	run_is('65', 'complete', '7 0', undef, 4);
	connector('67');
	answers($end, map { [ 200, '[]', "Link: </api/u?page_token=$_>; rel=\"next\"" ] } 2 .. 120);
	run_is('67', 'pagination_loop', '0 0', qr/101 empty pages/);
}

#
# Log in
#
{
	connector('25');
	answers($end, [ 200, { access_token => 'T', expires_in => 3600 } ], [ 200, { items => records(1) } ]);
	run_is('25', 'complete', '1 0', undef, 2);
	is((asked())[0], '/o/token/', '25: token_url is used as it is written');

	# The end of a token's life, as a time: what is over is not used for the next page.
	my $end_at = sub {
		my ($seconds, $offset) = @_;
		my @t = gmtime(time + $seconds + $offset * 3600);
		return sprintf('%04d-%02d-%02dT%02d:%02d:%02d%s%02d:00', $t[5] + 1900, $t[4] + 1, @t[ 3, 2, 1, 0 ], $offset < 0 ? '-' : '+', abs $offset);
	};
	for my $life ([ 'west of Greenwich', $end_at->(3600, -8), 1 ], [ 'east of it', $end_at->(20, 9), 3 ], [ 'since 1970', time + 20, 3 ], [ 'later since 1970', time + 3600, 1 ])
	{
		my ($name, $text, $times) = @$life;
		connector('25', change => sub { $_[0]{resources}{user}{list}{pagination} = { type => 'page', param => 'page' } });
		my $token = [ 200, { access_token => 'T', expires_in => $text } ];
		my @again = $times > 1 ? $token : ();
		answers($end, $token, [ 200, { items => records(1 .. 100) } ], @again, [ 200, { items => records(101) } ], @again, [ 200, { items => [] } ]);
		run_is("25, an end $name", 'complete', '101 0');
		is(scalar(grep { $_ eq '/o/token/' } asked()), $times, "25, an end $name: so many tokens");
	}

	connector('25', types => [ 'user', 'group' ], change => sub {
		$_[0]{auth}{token_url} =~ s{/o/token/}{/token};
		my $list = { path => '/u', records => '$.items[*]', pagination => { type => 'page', param => 'page' } };
		$_[0]{resources}{$_} = { list => $list, map => { externalId => '$.id' } } for qw(user group) });
	answers('tokens');
	my @runs;
	for (1 .. 4)
	{
		my @two = map { $f->sql("SELECT flohsync.trigger_sync('$c', '$_')") } qw(user group);
		$f->wait_run($_, timeout => 60) for @two;
		push @runs, @two;
	}
	is($f->sql('SELECT string_agg(DISTINCT status, \' \') FROM flohsync.sync_run WHERE id IN (' . join(', ', @runs) . ')'), 'success', '29: one token at a time for two types at a time');
	my $tokens = grep { $_ eq '/token' } asked();
	cmp_ok($tokens, '<=', 4, "29: two runs at a time share one token ($tokens were got)") or diag(slurp("$dir/log"));
}

#
# Changes
#
{
	my @link = map { '@odata.' . $_ } qw(deltaLink);
	for my $status (400, 404, 405, 406, 409, 410, 412, 414, 416, 422)
	{
		connector('30');
		$f->configure($c, 'user', strategy => 'incremental');
		my $list = sub { my ($token, @n) = @_; return [ 200, { value => [ map { { id => "g$_", displayName => "User $_" } } @n ], '@odata.deltaLink' => "http://127.0.0.1:$port/v1.0/users/delta?\$deltatoken=$token" } ] };
		answers($end, $list->('d1', 1, 2), [ $status, { error => { code => 'BadRequest' } } ], $list->('d3', 1 .. 3));
		run_is("30, $status, the first", 'complete', '2 0', undef, 1);
		run_is("30, $status", 'complete', '3 0', undef, 3);
		is_deeply([ map { s/\?.*(deltatoken)/?$1/r =~ s/\?%24select.*//r } asked() ], [ '/v1.0/users/delta', '/v1.0/users/delta?deltatoken=d1', '/v1.0/users/delta' ], "30, $status: begins at the start");
		answers([ $status, {} ]);
		my $run = run_is("30, $status, at the start, too", $status == 404 || $status == 410 ? 'not_found' : 'http_status', '3 0', qr/$status/);
		cmp_ok(scalar(my @all = asked()), '<=', 4, "30, $status: once is enough");
	}
}

#
# Lists for each record of another type
#
{
	my $items = sub { return [ 200, { items => [ map { { id => $_ } } @_ ] } ] };
	for my $answer ((saved('33'))[0], [ 400, {} ], [ 204, '' ], [ 500, {} ], [ 200, '<html>' ], [ 200, { error => 'x' } ])
	{
		my $what = ref $answer ? "$answer->[0] " . (ref $answer->[1] ? encode_json($answer->[1]) : $answer->[1]) : 403;
		connector('33', types => [ 'group', 'member' ]);
		answers($end, $items->(qw(a b c)));
		run_is("33, $what, groups", 'complete', '3 0', undef, 1, 'group');
		answers($end, $items->(qw(u1 u2)), $items->(qw(u1 u3)), $items->(qw(u1 u2)));
		run_is("33, $what, members", 'complete', '6 0', undef, 3, 'member');
		answers($end, $items->(qw(u1 u2)), $answer =~ /403/ ? $answer : ($answer) x ($what =~ /^500|html/ ? 2 : 1), $items->(qw(u1 u9)));
		my $run = run_is("33, $what", 'incomplete', '7 0', qr/the list of 1 parent record could not be had, and what is stored of it stays: "b" \(/, undef, 'member');
	}
	# A list that goes in circles, or elsewhere
	for ([ 'in circles', "</api/groups/b/members>; rel=\"next\"", 'pagination_loop' ], [ 'elsewhere', '<http://127.0.0.2:1/x>; rel="next"', 'blocked_address' ])
	{
		my ($what, $link, $class) = @$_;
		connector('33', types => [ 'group', 'member' ], change => sub { $_[0]{resources}{member}{list}{pagination} = { type => 'link_header' } });
		answers($end, $items->(qw(a b c)));
		run_is("33, $what, groups", 'complete', '3 0', undef, 1, 'group');
		answers($end, $items->(qw(u1 u2)), $items->(qw(u1 u3)), $items->(qw(u1 u2)));
		run_is("33, $what, members", 'complete', '6 0', undef, 3, 'member');
		answers($end, $items->(qw(u1 u2)), [ 200, $items->('u1')->[1], "Link: $link" ], $items->(qw(u1 u9)));
		run_is("33, $what", 'incomplete', '7 0', qr/the list of 1 parent record could not be had, and what is stored of it stays: "b" \($class\)/, 3, 'member');
	}
	# Lists that are as long as was asked for, and have no sign of another page
	connector('33', types => [ 'group', 'member' ], change => sub { $_[0]{resources}{member}{list}{pagination} = { type => 'link_header' }; $_[0]{resources}{member}{list}{page_size} = { param => 'n', default => 2 } });
	answers($end, $items->(qw(a b c)));
	run_is('33, groups', 'complete', '3 0', undef, 1, 'group');
	answers($end, $items->(qw(u1 u2)), $items->(qw(u1)), $items->(qw(u1 u2)));
	run_is('33, two lists of just so many', 'complete', '5 0', undef, 3, 'member');
	answers($end, $items->(qw(u1 u2)), $items->(qw(u1 u2)), $items->(qw(u1 u2)));
	run_is('33, three of them', 'incomplete', '6 0', qr/nothing in it tells of another/, 3, 'member');
	# Many of them are another thing.
	connector('33', types => [ 'group', 'member' ]);
	my @groups = map { sprintf 'g%02d', $_ } 1 .. 30;
	answers($end, $items->(@groups));
	run_is('33, thirty groups', 'complete', '30 0', undef, 1, 'group');
	answers($items->('u1'), map { [ 403, {} ] } 1 .. 15);
	run_is('33, half of them', 'incomplete', '15 0', qr/lists of 15 parent records could not be had.*"g01" \(status 403\), "g02" \(status 403\), "g03" \(status 403\) and 12 more/, 30, 'member');
	answers($items->('u1'), map { [ 403, {} ] } 1 .. 16);
	run_is('33, more than half of them', 'auth', '15 0', qr/403/, 16, 'member');
	answers($end, [ 401, {} ]);
	run_is('33, no right at all', 'auth', '15 0', qr/401/, 1, 'member');
}

#
# Values
#
{
	my $email = sub { return $f->sql("SELECT coalesce(email, 'none') " . $f->scope($c, 'user')) };
	my $template = $f->json("SELECT flohsync.connector_template('scim')");
	my $scim_map = sub { $_[0]{resources}{user}{map} = $template->{resources}{user}{map} };
	connector('19', change => $scim_map);
	answers($end, saved('19'));
	run_is('19', 'complete', '1 0', undef, 2);
	is($email->(), 'new@example.org', '19: the primary address');
	for ([ '"TRUE"', '"FALSE"' ], [ 1, 0 ], [ 'true', 'false' ])
	{
		my ($yes, $no) = @$_;
		connector('19', change => $scim_map);
		answers($end, map { s/"True"/$yes/gr =~ s/"False"/$no/gr =~ s/^Content-Length:.*\r\n//mir } saved('19'));
		run_is("19, $yes", 'complete', '1 0', undef, 2);
		is($email->(), 'new@example.org', "19, $yes: the primary address");
	}
	connector('21', change => $scim_map);
	answers($end, saved('21'));
	run_is('21', 'complete', '1 0', undef, 2);
	is($email->(), 'second@example.org', '21: the first that is not empty');
	# Also where PostgreSQL looks for it
	connector('21', change => sub { $_[0]{resources}{user}{map}{email} = '$.emails[*].value ? (@ like_regex "^")' });
	answers($end, saved('21'));
	run_is('21, by PostgreSQL', 'complete', '1 0', undef, 2);
	is($email->(), 'second@example.org', '21, by PostgreSQL: the first that is not empty');

	connector('39');
	answers($end, saved('39'));
	run_is('39', 'complete', '1 0', undef, 2);
	my @times = map { (split / /)[2] } split /\n/, slurp("$dir/log");
	cmp_ok($times[1] - $times[0], '>=', 1.4, '39: waits for as long as it was asked to');
}

#
# Where a page keeps failing
#
{
	connector('22');
	my @pages = saved('22');
	answers([ 400, {} ], $pages[1]);
	run_is('a page that fails', 'http_status', '3 0', qr/400/, 2);
	my @firsts;
	for my $n (1 .. 8)
	{
		answers([ 503, {} ]);
		$f->sync($c, 'user');
		push @firsts, (asked())[0];
	}
	is(scalar(grep { $_ eq '/api/u?page=1' } @firsts[ 0 .. 4 ]), 0, 'a page that fails: the run goes on from it');
	is($firsts[5], '/api/u?page=1', 'a page that fails: after some resumes without new ground the pass begins anew');
	answers([ 503, {} ], $pages[1]);
	$f->sync($c, 'user');
	$f->sql("UPDATE flohsync.sync_run SET pass_started_at = pass_started_at - interval '8 days'");
	answers([ 503, {} ]);
	$f->sync($c, 'user');
	is((asked())[0], '/api/u?page=1', 'a page that fails: also after a week since the pass began');
}

#
# The test of a connector
#
{
	my $test = sub { return $f->json("SELECT flohsync.test_connector('$c')") };
	connector('55');
	answers([ 200, { data => records(1) } ]);
	my $said = $test->();
	ok($said->{ok}, 'test_connector: a record');
	like($said->{types}{user}{remark} // '', qr/nothing in it tells of another/, 'test_connector, 55: remarks that nothing tells of a next page');
	is_deeply($said->{types}{user}{record}, { externalId => 'u1', displayName => 'User 1', email => 'u1@x.org', attributes => record(1) }, 'test_connector: shows what the record becomes');
	answers([ 200, { data => records(1), paging => { nextCursor => 'x' } } ]);
	is($test->()->{types}{user}{remark}, undef, 'test_connector: no remark where there is one');
	answers([ 200, { data => [ { name => 'no id' } ], paging => { nextCursor => 'x' } } ]);
	$said = $test->();
	ok(!$said->{ok}, 'test_connector: is not ok when no record could be stored');
	like($said->{error}, qr/no record could be stored/, 'test_connector: says so');
	is($said->{types}{user}{faults}[0]{class}, 'external_id_missing', 'test_connector: says why a record is set aside');
	connector('03');
	answers([ 200, { totalResults => 1, Resources => [ { id => '1', displayName => 'It is t0ken', note => 't0ken' } ] } ]);
	unlike(json_text($test->()), qr/t0ken/, 'test_connector: shows no secret');
}

#
# A definition's paths
#
for ([ 'id', '$.id' ], [ 'profile.email', '$.profile.email' ], [ 'items[*].id', '$.items[*].id' ])
{
	my ($faults) = $f->json("SELECT flohsync.validate_definition(jsonb_build_object('version', 1, 'base_url', 'https://x.example', 'resources',
		jsonb_build_object('user', jsonb_build_object('list', '{\"path\": \"/u\"}'::jsonb, 'map', jsonb_build_object('externalId', " . literal($_->[0]) . '::text)))))');
	like($faults->[0]{hint} // '', qr/begins with "\$": write "\Q$_->[1]\E"/, "a path without \$: $_->[0]");
}
like(json_text($f->json(q{SELECT flohsync.validate_definition('{"version": 1, "base_url": "https://x.example", "resources": {"user": {"list": {"path": "/u"}, "map": {"externalId": "\"id\""}}}}')})),
	qr/names nothing in an answer/, 'a path that is a constant');

#
# Webhooks
#
{
	my $key = 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
	connector('04');
	$f->secret($c, 'webhook', "whsec_$key");
	my $n = 0;
	my $send = sub {
		my ($names, %more) = @_;
		my ($id, $at, $body) = ('msg_' . ++$n, time, json_text({ action => 'updated', resourceId => 'u' . ++$n, resourceType => 'user', data => { displayName => 'W' } }));
		my @values = ($id, "$at", 'v1,' . encode_base64(hmac_sha256("$id.$at.$body", decode_base64($key)), ''));
		my %headers = map { my $prefix = $_; map { ("$prefix-" . (qw(id timestamp signature))[$_] => $values[$_]) } 0 .. 2 } @$names;
		return $f->try_sql('SELECT flohsync.receive_webhook(' . literal($c) . ", '\\x" . unpack('H*', $body) . "', " . Flohsync::jsonb({ %headers, %more }) . ')');
	};
	ok($send->(['svix'])->{ok}, '56: the names svix-*');
	ok($send->(['SVIX'])->{ok}, '56: in any case');
	ok($send->([ 'svix', 'webhook' ])->{ok}, '56: both names, with the same values');
	my $r = $send->([ 'svix', 'webhook' ], 'webhook-timestamp' => '1');
	is($r->{state}, '28000', '56: both names, with different values');
	$r = $send->(['svix'], 'svix-signature' => 'v1,AAAA');
	is($r->{state}, '28000', '56: a signature that is none');
}

#
# Kind command
#
{
	$c = 'command';
	my $make = sub {
		my ($name, %config) = @_;
		$f->sql("SELECT flohsync.create_connector('$name', 'command', " . Flohsync::jsonb({ url => "http://127.0.0.1:$port/", %config }) . ')');
		$f->configure($name, 'user', safeguards => { maxStaleFraction => undef });
		$c = $name;
	};
	my $list = sub { my ($more, @n) = @_; return [ 200, { success => JSON::PP::true, payload => { resources => [ map { { externalId => "u$_" } } @n ], %$more } } ] };
	$make->('command');
	answers($end, $list->({ totalEstimate => 20 }, 1 .. 19));
	run_is('a command, 5 % fewer', 'complete', '19 0', undef, 1);
	# Of a success with an error, nobody knows what is missing.
	for my $error ('partial result', { code => 5 }, JSON::PP::true, 1)
	{
		my $page = $list->({}, 1 .. 5);
		$page->[1]{error} = $error;
		answers($page);
		run_is('a command, success with an error: ' . json_text($error), 'upstream', '19 0', ref $error eq '' && $error eq 'partial result' ? qr/partial result/ : qr/reason|success/);
	}
	for my $error (undef, '', JSON::PP::false, 0, {}, [], 'false')
	{
		my $page = $list->({}, 1 .. 19);
		$page->[1]{error} = $error;
		answers($end, $page);
		run_is('a command, success without one: ' . json_text($error), 'complete', '19 0', undef, 1);
	}
	$make->('strict command', limits => { total_tolerance => 0 });
	answers($end, $list->({ totalEstimate => 20 }, 1 .. 19));
	run_is('a command, 5 % fewer, and none are tolerated', 'incomplete', '19 0', qr/20 records, and sent 19/, 1);
	answers($end, $list->({ totalEstimate => 18 }, 1 .. 19));
	run_is('a command, more, and none are tolerated', 'incomplete', '19 0', qr/18 records, and sent more/, 1);
	answers([ 202, { success => JSON::PP::true, payload => { resources => [] } } ]);
	run_is('a command, not ready', 'http_status', '19 0', qr/status 202/, 2);
	answers($end, map { $list->({ nextCursor => "c$_" }, 1, 2) } 1 .. 40);
	run_is('a command, the same records with new cursors', 'pagination_loop', '19 0', qr/without a record/);
	$f->fails_like("SELECT flohsync.create_connector('x', 'command', '{\"url\": \"http://127.0.0.1:1/\", \"limits\": {\"total_tolerance\": 2}}')", '22023', qr/total_tolerance/, 'a tolerance that is none');
}

$f->invariants;
done_testing();
