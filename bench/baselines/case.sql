-- The same with an eye on what is written: fields change only with the hash,
-- and the pages of the table have room for new versions of their rows.

call bench.make_table('case_record', 80);

create procedure bench.case_page(connector uuid, page int, body text) language plpgsql as $$
begin
  insert into bench.case_record as r
         (connector_id, resource_type, external_id, display_name, email, attributes, sync_hash, observed_at)
  select connector, 'record', u."externalId", u."displayName", u.email, u.attributes,
         encode(sha256(convert_to(concat_ws(E'\x1f', u."externalId", u."displayName", u.email, u.attributes::text), 'UTF8')), 'hex'),
         now()
    from jsonb_to_recordset(body::jsonb -> 'payload' -> 'resources')
           as u("externalId" text, "displayName" text, email text, attributes jsonb)
  on conflict (external_id, resource_type, connector_id) do update
     set display_name = case when r.sync_hash = excluded.sync_hash then r.display_name else excluded.display_name end,
         email = case when r.sync_hash = excluded.sync_hash then r.email else excluded.email end,
         attributes = case when r.sync_hash = excluded.sync_hash then r.attributes else excluded.attributes end,
         sync_hash = excluded.sync_hash, observed_at = excluded.observed_at, stale_since = null;
end
$$;
