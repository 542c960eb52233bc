// The cache of single records: a hit against a bare GET and against the record itself,
// what a miss adds to a fetch, and how fast invalidations are delivered.
import { execFileSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { Database } from '../lib/database.mjs';

const BATCH = 4000;
const BATCHES = 5;
const QUEUED = 100000;

// Microseconds for each call of an expression, in a loop in the server.
async function loop(db, expression, n) {
  await db.run(`create or replace function pg_temp.loop(n int) returns float8 language plpgsql as $$
    declare t timestamptz := clock_timestamp(); r jsonb;
    begin for i in 1 .. n loop r := ${expression}; end loop; return extract(epoch from clock_timestamp() - t) * 1e6 / n; end $$`);
  return (await db.one(`select pg_temp.loop($1) as us`, [n])).us;
}

async function until(db, sql, seconds = 60) {
  for (let i = 0; i < seconds * 500; i++) {
    if ((await db.one(sql)).done) return;
    await sleep(2);
  }
  throw new Error(`never true: ${sql}`);
}

export async function cache(figures, { listing, redis, get, rounds }) {
  const admin = await Database.connect('postgres');
  await admin.run(`alter system set flohsync.redis_url = 'unix://${redis}'`);
  await admin.run('select pg_reload_conf()');
  await admin.close();
  const db = await Database.create('cache', listing);
  await until(db, `select current_setting('flohsync.redis_url') <> '' as done`);
  await db.run(`create function public.empty(text, text, text) returns jsonb language sql as 'select null::jsonb'`);
  await db.run(`create function public.fetch(uuid, text, text) returns jsonb language sql as $$ select jsonb_build_object('externalId', $3) $$`);
  await db.run('create sequence public.nothing');
  // The first use switches the cache on, and what is being invalidated then is not stored, or goes again.
  const value = `{"externalId": "u-17", "displayName": "Ada Lovelace", "email": "ada@example.org", "attributes": {"department": "R&D", "title": "Engineer",
     "groups": ["g-1", "g-2"], "address": {"city": "London", "zip": "W1J"}, "active": true, "loginCount": 12}}`;
  // Again in each round: the invalidations of the one before take it away.
  const store = async () => {
    for (let attempt = 1; ; attempt++) {
      await db.run(`select flohsync.cache_put('upstream', 'user', 'u-17', $$${value}$$, '1 hour')`);
      await until(db, `select count(*) = 0 as done from pg_stat_activity where backend_type = 'flohsync invalidator'`);
      if ((await db.one(`select flohsync.cache_get('upstream', 'user', 'u-17') is not null as there`)).there) return;
      if (attempt === 10) throw new Error('the value was not stored');
    }
  };
  // What one would read without the cache.
  await db.rows(`select flohsync.upsert_resources('upstream', 'record', (select jsonb_agg(jsonb_set($1::jsonb, '{externalId}', to_jsonb('u-' || g))) from generate_series(1, 10000) g))`, [value]);
  await db.settle('flohsync.resource_record');
  const row = `(select to_jsonb(x) from flohsync.connector_resource x where x.connector_id = '${db.connector}' and x.resource_type = 'record' and x.external_id = 'u-17')`;
  if ((await db.one(`select ${row} ->> 'email' as email`)).email !== 'ada@example.org') throw new Error('the record is not there');
  const key = `cr:${db.connector}:user:u-17`;

  const hits = [];
  const misses = [];
  const drains = [];
  for (let i = 0; i < rounds; i++) {
    const sum = { ours: 0, get: 0, empty: 0, row: 0 };
    await store();
    for (let b = 0; b < BATCHES; b++) {
      sum.get += Number(execFileSync(get, [redis, key, String(BATCH)]).toString()) / BATCHES;
      sum.ours += (await loop(db, `flohsync.cache_get('upstream', 'user', 'u-17')`, BATCH)) / BATCHES;
      sum.row += (await loop(db, row, BATCH)) / BATCHES;
      sum.empty += (await loop(db, `public.empty('upstream', 'user', 'u-17')`, BATCH)) / BATCHES;
    }
    hits.push({ ours: sum.ours, base: sum.get + sum.empty, get: sum.get, empty: sum.empty, row: sum.row });
    const fetched = await loop(db, `public.fetch('${db.connector}', 'user', 'm-' || i)`, BATCH);
    const missed = await loop(db, `flohsync.cache_get_or_fetch('upstream', 'user', 'm${i}-' || i, 'public.fetch(uuid,text,text)')`, BATCH);
    misses.push({ ours: missed - fetched, base: sum.get });

    await db.run('begin');
    for (let n = 0; n < QUEUED; n += 10000) {
      await db.rows(`select _flohsync.invalidate($1, 'user', array(select 'u-' || g from generate_series($2::int, $2::int + 9999) g))`, [db.connector, n + 1]);
    }
    if ((await db.one('select count(*) as n from _flohsync.cache_outbox')).n !== QUEUED) throw new Error('the invalidations are not in the outbox');
    await db.run('commit');
    const started = performance.now();
    await until(db, 'select not exists (select from _flohsync.cache_outbox) as done');
    drains.push({ ours: (performance.now() - started) / 1000 });
    await db.run('vacuum _flohsync.cache_outbox');
    await db.run(`select flohsync.cache_put('upstream', 'user', 'u-17', '{"externalId": "u-17"}', '1 hour')`);
    await until(db, `select count(*) = 0 as done from pg_stat_activity where backend_type = 'flohsync invalidator'`);
  }
  figures.add('cache hit, against GET and an empty function', {
    unit: 'µs', rounds: hits, reach: (x) => x <= 1.5, reachText: '<= 1.5',
  });
  figures.add('cache hit, against reading the record in PostgreSQL', { unit: 'µs', rounds: hits.map(({ ours, row }) => ({ ours, base: row })) });
  figures.add('cache miss, without the fetch, against one GET', { unit: 'µs', rounds: misses });
  figures.add(`${QUEUED} invalidations, from commit to delivered`, {
    unit: 's', rounds: drains, reach: (x) => x < 5, reachText: '< 5',
  });
  await db.drop();
}
