-- The same without writing unchanged rows at all.  It does less than flohsync:
-- nothing tells afterwards which rows the pass has seen, so nothing can be
-- found missing.

call bench.make_table('where_record', 95);

create procedure bench.where_page(connector uuid, page int, body text) language plpgsql as $$
begin
  insert into bench.where_record as r
         (connector_id, resource_type, external_id, display_name, email, attributes, sync_hash, observed_at)
  select connector, 'record', u."externalId", u."displayName", u.email, u.attributes,
         encode(sha256(convert_to(concat_ws(E'\x1f', u."externalId", u."displayName", u.email, u.attributes::text), 'UTF8')), 'hex'),
         now()
    from jsonb_to_recordset(body::jsonb -> 'payload' -> 'resources')
           as u("externalId" text, "displayName" text, email text, attributes jsonb)
  on conflict (external_id, resource_type, connector_id) do update
     set display_name = excluded.display_name, email = excluded.email, attributes = excluded.attributes,
         sync_hash = excluded.sync_hash, observed_at = excluded.observed_at, stale_since = null
   where r.sync_hash <> excluded.sync_hash or r.stale_since is not null;
end
$$;
