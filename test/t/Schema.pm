# Everything that the extension has in a database, and every row, as text that can
# be compared: 091_upgrade.t.
package Schema;
use strict;
use warnings;

use Exporter 'import';
our @EXPORT = qw(definitions rows expected_of differences);

# One line for each property of each object, without ids.  All that is in the
# schemas is looked at, so that what others have made there shows as well.
my $definitions = <<'SQL';
with ext as (select * from pg_extension where extname = 'flohsync'),
spaces as (select n.oid, n.nspname, n.nspowner, n.nspacl from pg_namespace n where n.nspname in ('flohsync', '_flohsync', 'flohsync_api')),
members as (select d.classid, d.objid, i.type || ' ' || i.identity as name
              from ext join pg_depend d on d.refclassid = 'pg_extension'::regclass and d.refobjid = ext.oid and d.deptype = 'e',
                   lateral pg_identify_object(d.classid, d.objid, 0) i),
relations as (select c.*, c.oid::regclass::text as name from pg_class c join spaces s on s.oid = c.relnamespace),
routines as (select p.*, p.oid::regprocedure::text as name from pg_proc p join spaces s on s.oid = p.pronamespace),
types as (select t.*, t.oid::regtype::text as name from pg_type t join spaces s on s.oid = t.typnamespace
           where t.typelem = 0 and not exists (select from pg_class c where c.oid = t.typrelid and c.relkind <> 'c')),
columns as (select a.*, r.name as relation, r.relowner, r.name || '.' || quote_ident(a.attname) as name,
                   row_number() over (partition by a.attrelid order by a.attnum) as place
              from relations r join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
             where r.relkind in ('r', 'p', 'v', 'm', 'c', 'f')),
owned as (select 'pg_class'::regclass as classid, oid as objid, 0 as sub, name, relowner as owner, relacl as acl,
                 case relkind when 'S' then 's' when 'i' then null when 'c' then null else 'r' end::"char" as what from relations
          union all select 'pg_attribute'::regclass, attrelid, attnum, 'column ' || name, relowner, attacl, 'c' from columns
          union all select 'pg_proc'::regclass, oid, 0, name, proowner, proacl, 'f' from routines
          union all select 'pg_type'::regclass, oid, 0, 'type ' || name, typowner, typacl, 'T' from types
          union all select 'pg_namespace'::regclass, oid, 0, 'schema ' || nspname, nspowner, nspacl, 'n' from spaces
          union all select 'pg_event_trigger'::regclass, t.oid, 0, 'event trigger ' || t.evtname, t.evtowner, null, null from pg_event_trigger t),
lines as (
  select format('member: %s', name) as line from members
  union all select format('extension: version %s, schema %s, relocatable %s', extversion, extnamespace::regnamespace, extrelocatable) from ext
  union all select format('dumped: %s where %L', x.relation::regclass, x.condition) from ext, unnest(ext.extconfig, ext.extcondition) x(relation, condition)
  union all select format('owner of %s: %s', o.name, case o.owner when (select extowner from ext) then '(installer)' else o.owner::regrole::text end) from owned o where o.sub = 0
  union all select format('privilege on %s: %s to %s by %s%s', o.name, a.privilege_type, case a.grantee when 0 then 'PUBLIC' when o.owner then '(owner)' else a.grantee::regrole::text end,
      case a.grantor when o.owner then '(owner)' else a.grantor::regrole::text end, case when a.is_grantable then ' with grant option' end)
    from owned o, aclexplode(coalesce(o.acl, acldefault(o.what, o.owner))) a where o.what is not null
  -- What pg_dump takes for the privileges that a new installation has
  union all select format('initial privilege on %s: %s to %s%s', o.name, a.privilege_type, case a.grantee when 0 then 'PUBLIC' when o.owner then '(owner)' else a.grantee::regrole::text end,
      case when a.is_grantable then ' with grant option' end)
    from owned o left join pg_init_privs p on p.classoid = case o.classid when 'pg_attribute'::regclass then 'pg_class'::regclass else o.classid end and p.objoid = o.objid and p.objsubid = o.sub,
         aclexplode(coalesce(p.initprivs, acldefault(o.what, o.owner))) a where o.what is not null
  union all select format('comment on %s: %s', o.name, d.description)
    from owned o join pg_description d on d.classoid = case o.classid when 'pg_attribute'::regclass then 'pg_class'::regclass else o.classid end and d.objoid = o.objid and d.objsubid = o.sub
  union all select format('comment on %s: %s', i.type || ' ' || i.identity, d.description)
    from pg_description d, lateral pg_identify_object(d.classoid, d.objoid, d.objsubid) i
   where d.classoid in ('pg_constraint'::regclass, 'pg_trigger'::regclass, 'pg_rewrite'::regclass, 'pg_policy'::regclass) and i.identity ~ 'flohsync'
  union all select format('routine %s: %s', name, case when prokind in ('f', 'p') then pg_get_functiondef(oid) else to_jsonb(routines)::text end) from routines
  union all select format('relation %s: kind %s, %s, options %s, access %s, replica identity %s, row security %s %s', name, relkind, relpersistence, reloptions,
      (select amname from pg_am m where m.oid = relam), relreplident, relrowsecurity, relforcerowsecurity) from relations
  union all select format('view %s: %s', name, pg_get_viewdef(oid)) from relations where relkind in ('v', 'm')
  union all select format('sequence %s: %s', r.name, to_jsonb(s) - 'seqrelid') from relations r join pg_sequence s on s.seqrelid = r.oid
  union all select format('column %s: place %s, %s, collation %s, not null %s, default %s, identity %s, generated %s, storage %s %s, target %s, options %s', a.name, a.place,
      format_type(a.atttypid, a.atttypmod), nullif(a.attcollation, 0)::regcollation, a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated, a.attstorage, a.attcompression,
      to_jsonb(a)->'attstattarget',
      -- one that a server notes for itself
      (select array_agg(o order by o) from unnest(a.attoptions) o where o !~ '^pg_attver='))
    from columns a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  union all select format('constraint %s of %s: %s, validated %s', k.conname, coalesce(r.name, k.contypid::regtype::text), pg_get_constraintdef(k.oid), k.convalidated)
    from pg_constraint k left join relations r on r.oid = k.conrelid where r.oid is not null or k.contypid in (select oid from types)
  union all select format('index %s: %s, valid %s, clustered %s, replica identity %s', r.name, pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisclustered, i.indisreplident)
    from relations r join pg_index i on i.indexrelid = r.oid
  union all select format('trigger %s, enabled %s', pg_get_triggerdef(t.oid), t.tgenabled) from relations r join pg_trigger t on t.tgrelid = r.oid where not t.tgisinternal
  union all select format('rule %s, enabled %s', pg_get_ruledef(w.oid), w.ev_enabled) from relations r join pg_rewrite w on w.ev_class = r.oid where w.rulename <> '_RETURN'
  union all select format('policy %s', to_jsonb(p)) from pg_policies p where p.schemaname in ('flohsync', '_flohsync', 'flohsync_api')
  union all select format('statistics %s: %s', x.stxname, pg_get_statisticsobjdef(x.oid)) from relations r join pg_statistic_ext x on x.stxrelid = r.oid
  union all select format('type %s: %s', t.name, jsonb_build_object('kind', t.typtype, 'length', t.typlen, 'by value', t.typbyval, 'align', t.typalign, 'storage', t.typstorage, 'category', t.typcategory,
      'delimiter', t.typdelim, 'input', t.typinput, 'output', t.typoutput, 'send', t.typsend, 'receive', t.typreceive, 'base', format_type(t.typbasetype, t.typtypmod), 'not null', t.typnotnull,
      'default', t.typdefault, 'labels', (select jsonb_agg(e.enumlabel order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid))) from types t
  union all select format('event trigger %s: %s %s %s, enabled %s', t.evtname, t.evtevent, t.evttags, t.evtfoid::regprocedure, t.evtenabled) from pg_event_trigger t
  -- Declared, and granted by grant_reader() and grant_manager()
  union all select format('declared: %s', a) from _flohsync.access a)
select replace(replace(line, E'\\', E'\\\\'), E'\n', E'\\n') from lines order by line collate "C"
SQL

# A set of lines
sub definitions
{
	my ($f, $db) = @_;
	return { map { $_ => 1 } split /\n/, $f->sql($definitions, $db) };
}

# What there has to be after an update: what a new installation of the new version
# has, and what others had added to the old one (before: with it, plain: without)
# and taken from it.
sub expected_of
{
	my ($fresh, $before, $plain) = @_;
	my %expected = %$fresh;
	delete @expected{ grep { !$before->{$_} } keys %$plain };
	$expected{$_} = 1 for grep { !$plain->{$_} } keys %$before;
	return \%expected;
}

# Sorted, each with what it is
sub differences
{
	my ($expected, $found) = @_;
	return sort((map { "missing: $_" } grep { !$found->{$_} } keys %$expected), (map { "not expected: $_" } grep { !$expected->{$_} } keys %$found));
}

# Every row of every table but that of declarations, which is looked at above; of
# the columns that are given: rows($f, $db) gives them, for the next call.
sub rows
{
	my ($f, $db, $columns) = @_;
	$columns //= { map { split /\|/, $_, 2 } split /\n/, $f->sql(<<'SQL', $db) };
select c.oid::regclass, string_agg(quote_ident(a.attname), ', ' order by a.attname)
  from pg_extension e join pg_depend d on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid and d.deptype = 'e' and d.classid = 'pg_class'::regclass
  join pg_class c on c.oid = d.objid and c.relkind in ('r', 'S')
  join pg_attribute a on a.attrelid = c.oid and (a.attnum > 0 and c.relkind = 'r' or a.attname in ('last_value', 'is_called')) and not a.attisdropped
 where e.extname = 'flohsync' and c.oid <> '_flohsync.access'::regclass
 group by c.oid
SQL
	my %rows = map { $_ => [ split /\n/, $f->sql("select to_jsonb(t) from (select $columns->{$_} from $_) t order by to_jsonb(t)::text collate \"C\"", $db) ] } keys %$columns;
	return (\%rows, $columns);
}

1;
