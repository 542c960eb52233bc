-- What one would write by hand: a join on the folded e-mail address into tables
-- like connector_sync_match and user_external_identity, with their indexes and
-- foreign key.
drop table if exists plain_match, plain_identity;
create table plain_match (like flohsync.connector_sync_match including all,
  foreign key (connector_resource_id) references flohsync.resource_record on delete cascade);
create table plain_identity (like flohsync.user_external_identity including all);

create or replace procedure plain_join(connector uuid) language sql as $$
  with matched as (
    insert into plain_match (connector_id, resource_type, connector_resource_id, external_id, external_display_name, external_email,
                             user_id, match_status, match_confidence, match_strategy)
    select x.connector_id, x.resource_type, x.id, x.external_id, x.display_name, x.email, u.id,
           case when u.id is null then 'unmatched' else 'matched' end, case when u.id is null then 'none' else 'exact' end, 'email'
      from flohsync.resource_record x
      left join flohsync.floh_user u on lower(u.email) = lower(x.email)
     where x.connector_id = connector and x.resource_type = 'user'
    returning user_id, connector_id, external_id, external_email, external_display_name)
  insert into plain_identity (user_id, connector_id, external_id, external_email, external_display_name, source, verified_at)
  select m.user_id, m.connector_id, m.external_id, m.external_email, m.external_display_name, 'connector_sync', now()
    from matched m where m.user_id is not null
$$;
