# Clients that others wrote: fetch of Node.js, and one that is generated from the OpenAPI
# document (openapi-typescript, openapi-fetch), whose types must fit.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Copy qw(copy);
use Flohsync;
use Gateway;
use Test::More;
use PostgreSQL::Test::Utils;

my $tools = abs_path(dirname(__FILE__) . '/../gateway');
plan skip_all => 'the clients are not installed: script/setup gateway' unless -d "$tools/node_modules";

my $f = Flohsync->new;
my $g = Gateway->new($f);
my $dir = PostgreSQL::Test::Utils::tempdir();

$f->fresh(user => 60);
my $user = $f->sql("insert into flohsync.floh_user (iss, sub, email, display_name, confirmed) values ('https://idp', 's', 'someone\@else.example', 'Someone', true) returning id");

# A program whose lines are "ok" or "not ok", with a name
sub run_program
{
	my ($name, @command) = @_;
	local @ENV{qw(URL MANAGER READER UPSTREAM USER HOME)} = ($g->url(''), $g->manager, $g->reader, $f->url, $user, $dir);
	open(my $out, '-|', @command) or die "$command[0]: $!";
	my $lines = 0;
	while (my $line = <$out>)
	{
		chomp $line;
		$line =~ s/^(not )?ok // ? ok(!$1, "$name: $line") && $lines++ : diag($line);
	}
	ok(close $out, "$name has ended well");
	cmp_ok($lines, '>', 5, 'and did something');
	return;
}

run_program('fetch', 'node', "$tools/fetch.mjs");

# The types are made of what the server serves.
copy("$tools/$_", "$dir/$_") or die "$_: $!" for qw(client.ts check.mjs check.d.mts package.json);
symlink("$tools/node_modules", "$dir/node_modules") or die "symlink: $!";
chdir $dir or die $!;
is(system("node node_modules/openapi-typescript/bin/cli.js '" . $g->url('/openapi.json') . "' --output api.d.ts >types.log 2>&1"), 0, 'types are generated')
  or diag(slurp_file("$dir/types.log"));
my @compile = (qw(node node_modules/typescript/bin/tsc --strict --noEmitOnError --skipLibCheck --target es2022 --module nodenext --moduleResolution nodenext --lib), "es2022,dom");
append_to_file("$dir/process.d.ts", "declare const process: { env: Record<string, string | undefined> };\n");
is(qx{@compile client.ts process.d.ts}, '', 'right calls compile, wrong ones do not');
run_program('client', 'node', 'client.js');
chdir '/';

done_testing();
