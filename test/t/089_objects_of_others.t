use strict;
use warnings;
use JSON::PP;
use People;
use Test::More;
People::start(upstream => 0, conf => "flohsync.launcher_naptime = 1s\n");
begin({ createUsers => JSON::PP::true, staleRetention => '0s', safeguards => undef });
person($_, "p$_\@acme.com") for 1 .. 20;
is(one_pass(), 'success', 'a pass');
sub say_run { my $r = $f->last_run($c, 'user'); diag "$_[0]: ", join ' | ', map { "$_=" . ($r->{$_} // '-') } qw(status complete error_class error); diag $f->counts($c, 'user'); }
# foreign key of others
$f->sql("create table public.badge (id int, record uuid references flohsync.resource_record(id)); insert into public.badge select 1, id from flohsync.resource_record where external_id = '20'");
gone(20); gone(19);
one_pass(); say_run('fk');
$f->sql("drop table public.badge");
one_pass(); say_run('fk gone');
$f->sql("create table public.badge (id int, record uuid references flohsync.resource_record(id) deferrable initially deferred); insert into public.badge select 1, id from flohsync.resource_record where external_id = '18'");
gone(18); gone(17);
one_pass(); say_run('fk deferred');
$f->sql("drop table public.badge");
# fk on users
# check
$f->sql("alter table flohsync.resource_record add constraint acme_only check (email like '%acme.com')");
person(21, 'x@other.org'); person(22, 'y@acme.com');
one_pass(); say_run('check'); diag errors();
$f->sql("alter table flohsync.resource_record drop constraint acme_only");
$f->sql("create unique index one_mail on flohsync.resource_record (lower(email))");
person(23, 'y@acme.com'); person(24, 'z@acme.com');
one_pass(); say_run('unique'); diag errors();
$f->sql("drop index flohsync.one_mail");
gone(23);
# triggers
$f->sql("create table public.audit (at timestamptz default now(), what text); create function public.note() returns trigger language plpgsql as 'begin insert into public.audit(what) values (tg_op); return new; end'");
$f->sql("create trigger zz_note after insert or update or delete on flohsync.resource_record for each row execute function public.note()");
person(25, 'q@acme.com');
one_pass(); say_run('after trigger without rights');
$f->sql("grant insert on public.audit to flohsync_worker, flohsync_owner");
one_pass(); say_run('after trigger');
diag $f->sql("select count(*) from public.audit");
$f->sql("drop trigger zz_note on flohsync.resource_record");
$f->sql("create function public.eat() returns trigger language plpgsql as 'begin return null; end'");
for my $ev ('insert', 'update', 'delete') {
$f->sql("create trigger aa_eat before $ev on flohsync.resource_record for each row execute function public.eat()");
person(26 + length $ev, "$ev\@acme.com"); person(1, "new.$ev\@acme.com");gone(length($ev) + ord($ev) % 7);
one_pass(); say_run("before $ev");
$f->sql("drop trigger aa_eat on flohsync.resource_record");
}
$f->sql("create rule nothing as on insert to flohsync.resource_record do instead nothing");
person(40, "rule\@acme.com");
one_pass(); say_run("rule");
$f->sql("drop rule nothing on flohsync.resource_record");
$f->sql("alter table flohsync.resource_record disable trigger all");
person(41, "rule\@acme.com");
one_pass(); say_run("disabled");
diag $f->sql("select * from flohsync.jobs");
done_testing();
