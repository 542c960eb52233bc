-- One difference a pass: pages go into an unlogged table, as ids and digests; at the end one
-- statement compares that with what is stored.  The pages themselves are where the pass has
-- read them; those with a difference are read a second time.  Until the end nothing is written,
-- so a pass that fails on its last page has done nothing.

call bench.make_table('stage_record', 90);

create unlogged table bench.stage (external_id text collate "C" not null, hash text collate "C" not null, page int not null);

create procedure bench.stage_page(connector uuid, page int, body text) language sql as $$
  insert into bench.stage
  select e ->> 'externalId', encode(sha256(convert_to(e::text, 'UTF8')), 'hex'), page
    from json_array_elements(body::json -> 'payload' -> 'resources') e
$$;

create procedure bench.stage_finish(connector uuid) language plpgsql as $$
begin
  analyze bench.stage;
  create temp table difference on commit drop as
  select s.external_id, s.hash, s.page, r.record_no
    from bench.stage s
    full join (select record_no, external_id, sync_hash, stale_since from bench.stage_record
                where connector_id = connector and resource_type = 'record') r
      on r.external_id = s.external_id
   where case when s.external_id is null then r.stale_since is null
              else r.sync_hash is distinct from s.hash or r.stale_since is not null end;
  analyze difference;
  insert into bench.stage_record as r
         (connector_id, resource_type, external_id, display_name, email, attributes, sync_hash, observed_at)
  select connector, 'record', d.external_id, e ->> 'displayName', e ->> 'email', (e -> 'attributes')::jsonb, d.hash, now()
    from bench.page p
   cross join json_array_elements(p.body::json -> 'payload' -> 'resources') e
    join difference d on d.external_id = e ->> 'externalId' and d.page = p.n
   where p.n in (select page from difference)
  on conflict (external_id, resource_type, connector_id) do update
     set display_name = excluded.display_name, email = excluded.email, attributes = excluded.attributes,
         sync_hash = excluded.sync_hash, observed_at = excluded.observed_at, stale_since = null;
  update bench.stage_record r
     set stale_since = now(), observed_at = now()
    from difference d
   where d.external_id is null and r.record_no = d.record_no;
  truncate bench.stage;
end
$$;
