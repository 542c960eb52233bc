-- Pages that are as they were are not read at all: fifteen lines around baseline "raw".  What
-- the page held is kept with its digest.  Nothing tells it of writes from elsewhere: it is for a
-- table that nobody else writes.

call bench.make_table('page_hash_record', 90);

create table bench.page_hash (page int primary key, hash bytea not null, seen bigint[] not null);

-- "raw" over a table of its own.
do $$
declare
  f text;
begin
  foreach f in array array['raw_page', 'raw_finish'] loop
    execute replace(replace(pg_get_functiondef(('bench.' || f)::regproc), 'bench.raw_', 'bench.page_hash_raw_'),
                    'bench.page_hash_raw_record', 'bench.page_hash_record');
  end loop;
end
$$;
create table bench.page_hash_raw_ledger (like bench.raw_ledger);

create procedure bench.page_hash_page(connector uuid, page int, body text) language plpgsql as $$
declare
  digest bytea := sha256(convert_to(body, 'UTF8'));
begin
  insert into bench.page_hash_raw_ledger
  select h.page, h.seen from bench.page_hash h where h.page = page_hash_page.page and h.hash = digest;
  if not found then
    call bench.page_hash_raw_page(connector, page, body);
    insert into bench.page_hash as h
    select l.page, digest, l.seen from bench.page_hash_raw_ledger l where l.page = page_hash_page.page
    on conflict on constraint page_hash_pkey do update set hash = excluded.hash, seen = excluded.seen;
  end if;
end
$$;

create procedure bench.page_hash_finish(connector uuid) language sql as $$
  call bench.page_hash_raw_finish(connector)
$$;
