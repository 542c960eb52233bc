-- What one would write by hand, without asking who the sender is, whether the message is an
-- old one or came twice, and without telling anybody.
insert into bench.hook_record as r
       (connector_id, resource_type, external_id, display_name, email, attributes, sync_hash, observed_at)
select (select id from flohsync.connector_definition where name = 'hooks'), 'record', m.b ->> 'resourceId',
       m.b #>> '{data,displayName}', m.b #>> '{data,email}', m.b #> '{data,attributes}', m.hash, now()
  from (select convert_from(body, 'UTF8')::jsonb as b, encode(sha256(body), 'hex') as hash
          from bench.message where n = (select nextval('bench.turn'))) m
on conflict (external_id, resource_type, connector_id) do update
   set display_name = excluded.display_name, email = excluded.email, attributes = excluded.attributes,
       sync_hash = excluded.sync_hash, observed_at = excluded.observed_at, stale_since = null;
