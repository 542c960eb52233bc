# What tests of people share: directories that are tables, users, and what
# became of both.  $f is the cluster, $c the connector of the directory begun last.
package People;
use strict;
use warnings;

use Exporter 'import';
use Flohsync;

our @EXPORT = qw($f $c begin person gone user one_pass report errors matches state_of profile versions);

our ($f, $c);
my $nr = 0;

sub start { return $f = Flohsync->new(@_) }

# A directory is a table of its own, which a connector of kind sql reads.
sub begin
{
	my ($settings, %opt) = @_;
	$c = 'hr' . ++$nr;
	$f->sql("create table if not exists public.people (directory text, id text, name text, mail text, attrs jsonb, primary key (directory, id));
		grant select on public.people to flohsync_nobody");
	$f->sql("select flohsync.create_connector('$c', 'sql', jsonb_build_object('queries', jsonb_build_object('user',
		'select id as external_id, name as display_name, mail as email, attrs as attributes from public.people where directory = ''$c'' order by id')))");
	$f->configure($c, 'user', %$settings);
	return;
}
sub person
{
	my ($id, $mail, %attrs) = @_;
	my $name = delete $attrs{name} // "Name of $id";
	$f->sql(sprintf 'insert into public.people values (%s, %s, %s, %s, %s) on conflict (directory, id) do update
			set name = excluded.name, mail = excluded.mail, attrs = excluded.attrs',
		map({ defined $_ ? Flohsync::literal($_) : 'null' } $c, $id, $name, $mail), Flohsync::jsonb(\%attrs));
	return;
}
sub gone { $f->sql("delete from public.people where directory = '$c' and id = '$_'") for @_; return }
sub user
{
	my ($email, %more) = @_;
	my %row = (iss => 'https://idp', sub => "sub of $email", email => $email, display_name => $email, confirmed => 't', %more);
	my @columns = sort keys %row;
	return $f->sql(sprintf 'insert into flohsync.floh_user (%s) values (%s) returning id',
		join(', ', @columns), join ', ', map { defined $row{$_} ? Flohsync::literal($row{$_}) : 'null' } @columns);
}
# One pass; of an empty list, with somebody's consent.
sub one_pass
{
	$f->sync($c, 'user');
	return allow_empty($c);
}
sub allow_empty
{
	my ($connector) = @_;
	my $run = $f->last_run($connector, 'user');
	return $run->{status} if $run->{status} ne 'held' || $run->{error} !~ /no record at all/;
	$f->sql("select flohsync.approve_run($run->{id})");
	return $f->last_run($connector, 'user')->{status};
}
sub report { return $f->json("select post_sync from flohsync.sync_run where id = (select max(id) from flohsync.sync_run)") // {} }
sub errors { return $f->sql("select string_agg(coalesce(external_id, '') || ': ' || error_class || ': ' || message, E'\\n' order by id) from flohsync.sync_error
	where run_id = (select max(id) from flohsync.sync_run)") }
# "id status confidence email-of-the-user" of each match
sub matches
{
	return $f->sql("select string_agg(concat_ws(' ', m.external_id, m.match_status, m.match_confidence, u.email), ', ' order by m.external_id)
		from flohsync.connector_sync_match m left join flohsync.floh_user u on u.id = m.user_id
		where m.connector_id = " . $f->connector_id($c));
}
sub state_of { return $f->sql("select case when deleted_at is not null then 'deleted' when active then 'active' else 'inactive' end from flohsync.floh_user where email = '$_[0]'") }
sub profile { return $f->json("select to_jsonb(p) - 'user_id' - 'updated_at' from flohsync.user_profile p join flohsync.floh_user u on u.id = p.user_id where u.email = '$_[0]'") }
# What a pass writes, by statistics of the rows themselves.
sub versions { return $f->sql("select hashtextextended(coalesce(string_agg(t.v, ',' order by t.v), ''), 0)::text from (
	select 'm' || id || xmin::text v from flohsync.connector_sync_match union all select 'u' || id || xmin::text from flohsync.floh_user
	union all select 'p' || user_id || xmin::text from flohsync.user_profile
	union all select 'i' || user_id || external_id || xmin::text from flohsync.user_external_identity) t") }

1;
