-- What the baselines stand on: the upstream's pages as they came over the
-- wire, and tables like flohsync.resource_record, with its columns, indexes
-- and foreign key.

create schema bench;

create table bench.page (n int primary key, body text not null);
-- Not compressed: a pass of the baseline must not pay for where we keep its input.
alter table bench.page alter column body set storage external;

create procedure bench.make_table(name text, fillfactor int) language plpgsql as $$
begin
  execute format('create table bench.%I (like flohsync.resource_record including all,
                    foreign key (connector_id) references flohsync.connector_definition on delete cascade)
                  with (fillfactor = %s)', name, fillfactor);
end
$$;

-- A pass over the stored pages: one call of a baseline, and one transaction, a page, none of
-- which waits for the disk, as flohsync's do not; then what the baseline does at the end, which
-- does wait, and so makes all of them durable.
create procedure bench.pass(baseline text, connector uuid) language plpgsql as $$
declare
  b text;
begin
  perform set_config('synchronous_commit', 'off', false);
  for i in 1 .. (select max(n) from bench.page) loop
    select body into b from bench.page where n = i;
    execute format('call bench.%I($1, $2, $3)', baseline || '_page') using connector, i, b;
    -- As autovacuum would, which is off: without statistics, a first load takes the wrong index.
    if i = 10 and not exists (select from pg_stats s where s.schemaname = 'bench' and s.tablename = baseline || '_record') then
      execute format('analyze bench.%I', baseline || '_record');
    end if;
    commit;
  end loop;
  perform set_config('synchronous_commit', 'on', false);
  call bench.finish(baseline, connector);
  commit;
end
$$;

-- The end of a pass, for those that have one.
create procedure bench.finish(baseline text, connector uuid) language plpgsql as $$
begin
  if to_regproc(format('bench.%I', baseline || '_finish')) is not null then
    execute format('call bench.%I($1)', baseline || '_finish') using connector;
  end if;
  -- So that there is something to wait for.
  perform pg_current_xact_id();
end
$$;
