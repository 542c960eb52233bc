// From records to people: the first matching against a plain join that writes
// the same rows, passes after it in which little has changed, and what it is like
// right after a first load.
import { Database } from '../lib/database.mjs';
import { short } from '../lib/figures.mjs';
import { WorkerWatch } from '../lib/process.mjs';

const CHANGED = 100;

const RECORDS = `insert into directory select 'p-' || g, 'Person ' || g, 'Person.' || g || '@ACME.example',
    jsonb_build_object('department', 'D' || g % 100, 'title', 'Engineer') from generate_series($1::int, $2::int) g`;
const USERS = `insert into flohsync.floh_user (iss, sub, email, display_name, confirmed)
    select 'https://idp.example', md5(g::text), 'person.' || g || '@acme.example', 'Person ' || g, true
      from generate_series($1::int, $2::int) g order by md5(g::text)`;

const MB = 1024 * 1024;

async function pass(db) {
  const watch = new WorkerWatch(await db.aside());
  await db.run(`call flohsync.sync('people', 'user')`);
  await watch.stop();
  const { timings, stats } = await db.one('select timings, stats from flohsync.sync_run order by id desc limit 1');
  if (stats.postSync?.errors) throw new Error(JSON.stringify(stats.postSync));
  return { postSync: timings.postSyncMs / 1000, memory: watch.peak, stats };
}

async function people(records) {
  const admin = await Database.connect('postgres');
  await admin.run('drop database if exists people with (force)');
  await admin.run('create database people');
  await admin.close();
  const db = await Database.connect('people');
  await db.run('create extension flohsync');
  await db.run('create table directory (id text primary key, name text, email text, attributes jsonb); grant select on directory to flohsync_nobody');
  await db.rows(RECORDS, [1, records]);
  await db.rows(USERS, [1, records]);
  await db.run(`select flohsync.create_connector('people', 'sql', '{"queries": {"user": "select id as external_id, name as display_name, email, attributes from public.directory order by id"}}')`);
  await db.run(`select flohsync.configure_sync('people', 'user', '{}')`);
  return db;
}

// The worker's memory in a run of a few records; it is a matter of milliseconds, so that it may not be seen.
async function baseMemory(db) {
  await db.run(`select flohsync.create_connector('few', 'sql', '{"queries": {"record": "select id as external_id, name as display_name, email, attributes from public.directory order by id limit 10"}}')`);
  await db.run(`select flohsync.configure_sync('few', 'record', '{}')`);
  let peak = 0;
  for (let i = 0; i < 20 || peak === 0; i++) {
    const watch = new WorkerWatch(await db.aside());
    await db.run(`call flohsync.sync('few', 'record')`);
    await watch.stop();
    peak = Math.max(peak, watch.peak);
  }
  return peak;
}

// First loads with people who are there, in tables that nobody has analysed.
export async function neverAnalysed(figures, { records, large }) {
  const measured = {};
  let base;
  for (const n of [records, large]) {
    const db = await people(n);
    if (n === large) base = await baseMemory(db);
    measured[n] = await pass(db);
    if (measured[n].stats.postSync.matchesChanged !== n) throw new Error(`not all were matched: ${JSON.stringify(measured[n].stats)}`);
    await db.drop();
  }
  const per = (n) => (measured[n].postSync * 1e6) / n;
  figures.add(`first matching, never analysed, ${large} records against ${records}`, {
    unit: 'µs/record', rounds: [{ ours: per(large), base: per(records) }], reach: (x) => x <= 1.3, reachText: '<= 1.3',
  });
  figures.add(`worker memory, first load and matching of ${large} records, against a run of 10`, {
    unit: 'MB', rounds: [{ ours: measured[large].memory / MB, base: base / MB }], judge: (r) => r.ours - r.base, reach: (x) => x <= 64, reachText: '<= 64 MB more',
  });
}

export async function match(figures, { records, rounds }) {
  const db = await people(records);
  const { id } = await db.one('select id from flohsync.connector_definition');
  await db.load('match.sql');
  const first = await pass(db);
  if (first.stats.postSync.matchesChanged !== records) throw new Error(`not all were matched: ${JSON.stringify(first.stats)}`);

  const measured = [];
  for (let i = 0; i < rounds; i++) {
    await db.run('truncate flohsync.connector_sync_match, flohsync.user_external_identity, plain_match, plain_identity; delete from _flohsync.match_progress');
    await db.settle('flohsync.resource_record', 'flohsync.floh_user');
    const base = performance.now();
    await db.rows('call plain_join($1)', [id]);
    const baseSeconds = (performance.now() - base) / 1000;
    await db.run('checkpoint');
    const ours = await pass(db);
    if (ours.stats.postSync.matchesChanged !== records) throw new Error(`not all were matched: ${JSON.stringify(ours.stats)}`);
    await db.settle('flohsync.connector_sync_match', 'flohsync.user_external_identity');
    await db.rows(`update directory set name = name || '!' where id in (select id from directory order by md5(id || $1) limit ${CHANGED})`, [i]);
    const little = await pass(db);
    if (little.stats.updated !== CHANGED) throw new Error(`${CHANGED} were changed: ${JSON.stringify(little.stats)}`);
    await db.rows(`update flohsync.floh_user set email = 'moved.' || email where id in (select id from flohsync.floh_user order by md5(id::text || $1) limit ${CHANGED})`, [i]);
    const users = await pass(db);
    if (users.stats.postSync.matchesChanged !== CHANGED) throw new Error(`${CHANGED} users were changed: ${JSON.stringify(users.stats)}`);
    await db.run(`update flohsync.floh_user set email = substr(email, 7) where email like 'moved.%'`);
    measured.push({ ours: ours.postSync, base: baseSeconds, little: little.postSync, users: users.postSync });
  }
  const per = (seconds) => (seconds * 1e6) / records;
  figures.add('first matching, against a plain join', {
    unit: 'µs/record', rounds: measured.map((r) => ({ ours: per(r.ours), base: per(r.base) })), reach: (x) => x <= 1.5, reachText: '<= 1.5',
  });
  figures.add(`post-sync, ${CHANGED} records changed, against the first`, {
    unit: 'ms', rounds: measured.map((r) => ({ ours: r.little * 1000, base: r.ours * 1000 })), reach: (x) => x < 0.01, reachText: '< 0.01',
  });
  figures.add(`post-sync, ${CHANGED} users changed, against the first`, {
    unit: 'ms', rounds: measured.map((r) => ({ ours: r.users * 1000, base: r.ours * 1000 })), reach: (x) => x < 0.01, reachText: '< 0.01',
  });

  await db.run(`select flohsync.configure_sync('people', 'user', '{"attributeMappings": [
    {"sourcePath": "attributes.department", "targetField": "department", "writeMode": "overwrite_always"},
    {"sourcePath": "attributes.title", "targetField": "title", "writeMode": "overwrite_if_empty"}]}')`);
  const mapped = await pass(db);
  if (mapped.stats.postSync.profilesUpdated !== records) throw new Error(`not all were mapped: ${JSON.stringify(mapped.stats)}`);
  figures.add('two attributes into new profiles, all users', {
    unit: 'µs/record', rounds: [{ ours: per(mapped.postSync) }], reach: (x) => x <= 25, reachText: '<= 25 µs',
  });

  // Twice as many, all of them at once.
  await db.run(`select flohsync.configure_sync('people', 'user', '{"attributeMappings": null}')`);
  await db.rows(RECORDS, [records + 1, 2 * records]);
  await db.rows(USERS, [records + 1, 2 * records]);
  await pass(db);
  await db.run('truncate flohsync.connector_sync_match, flohsync.user_external_identity');
  await db.settle('flohsync.resource_record', 'flohsync.floh_user');
  const start = performance.now();
  const { matched } = (await db.one(`select flohsync.match_users('people', 'user') as stats`)).stats;
  if (matched !== 2 * records) throw new Error(`${matched} of ${2 * records} were matched`);
  figures.add(`match_users, ${short(2 * records)} records at once`, {
    unit: 'µs/record', rounds: [{ ours: ((performance.now() - start) * 1000) / (2 * records) }],
  });
  await db.drop();
}
