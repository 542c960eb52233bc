-- What somebody writes who knows PostgreSQL well.  The digest is that of the record's text as
-- it came (json keeps it, jsonb would be made first); only differences are written; one row of a
-- ledger a page says which records were there, and an anti-join at the end which were not.
--
-- Ids are looked up by "= any": that takes the index of the key, once there are statistics.

call bench.make_table('raw_record', 90);

create table bench.raw_ledger (page int not null, seen bigint[] not null);

create procedure bench.raw_page(connector uuid, page int, body text) language plpgsql as $$
begin
  with upstream as materialized (
    select e ->> 'externalId' as external_id, encode(sha256(convert_to(e::text, 'UTF8')), 'hex') as hash, e as record
      from json_array_elements(body::json -> 'payload' -> 'resources') e
  ), stored as materialized (
    select record_no, external_id, sync_hash, stale_since
      from bench.raw_record
     where external_id = any (array(select external_id from upstream))
       and resource_type = 'record' and connector_id = connector
  ), written as (
    insert into bench.raw_record as r
           (connector_id, resource_type, external_id, display_name, email, attributes, sync_hash, observed_at)
    select connector, 'record', u.external_id, u.record ->> 'displayName', u.record ->> 'email',
           (u.record -> 'attributes')::jsonb, u.hash, now()
      from upstream u left join stored s on s.external_id = u.external_id
     where s.sync_hash is distinct from u.hash or s.stale_since is not null
    on conflict (external_id, resource_type, connector_id) do update
       set display_name = excluded.display_name, email = excluded.email, attributes = excluded.attributes,
           sync_hash = excluded.sync_hash, observed_at = excluded.observed_at, stale_since = null
    returning record_no
  )
  insert into bench.raw_ledger
  select page, array(select record_no from stored union select record_no from written);
end
$$;

-- After a first load nothing was analysed: as a nested loop this would take hours.
create procedure bench.raw_finish(connector uuid) language plpgsql set enable_nestloop = off as $$
begin
  with seen as materialized (select unnest(l.seen) as record_no from bench.raw_ledger l)
  update bench.raw_record r
     set stale_since = now(), observed_at = now()
   where r.connector_id = connector and r.resource_type = 'record' and r.stale_since is null
     and not exists (select from seen s where s.record_no = r.record_no);
  truncate bench.raw_ledger;
end
$$;
