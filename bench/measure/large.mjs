// The large table: first load, the unchanged pass against the plain upsert, and
// the step at the end of a pass that finds what is missing, with nothing
// missing and with 1 % removed.
import { passStored, storePages } from '../lib/baseline.mjs';
import { Database } from '../lib/database.mjs';
import { sync, syncUnchanged } from '../lib/sync.mjs';

const RECORDS = 'flohsync.resource_record';

export async function largeDatabase(figures, { listing, large }) {
  await listing.resize(large);
  const db = await Database.create('large', listing);
  await db.run('checkpoint');
  const load = await sync(db);
  figures.add(`first load, ${large} records`, { unit: 'records/s', rounds: [{ ours: large / load.seconds }] });
  figures.stages(`first load, ${large} records`, large, [load]);
  await db.settle(RECORDS);
  const pass = await syncUnchanged(db);
  return { db, memory: { load: load.memory, pass: pass.memory } };
}

export async function unchangedLarge(figures, { db, listing, large, rounds }) {
  await db.load('tables.sql');
  await db.load('plain.sql');
  await storePages(db, listing);
  await passStored(db, 'plain');
  const measured = [];
  for (let i = 0; i < rounds; i++) {
    await db.settle(RECORDS);
    const ours = await syncUnchanged(db);
    await db.settle('bench.plain_record');
    measured.push({ ours, base: await passStored(db, 'plain') });
  }
  await db.run('drop schema bench cascade');
  figures.add(`unchanged pass, ${large} records, against plain upsert of local pages`, {
    unit: 'records/s', rounds: measured.map((r) => ({ ours: large / r.ours.seconds, base: large / r.base.seconds })),
    reach: (x) => x >= 7, stretch: (x) => x >= 10, reachText: '>= 7 (10)',
  });
  figures.stages(`unchanged pass, ${large} records`, large, measured.map((r) => r.ours));
}

const share = (run) => ({ ours: (100 * run.timings.settleMs) / run.stats.durationMs });

export async function staleStep(figures, { db, listing, large, rounds }) {
  const still = [];
  for (let i = 0; i < rounds; i++) still.push(await syncUnchanged(db));
  const removed = [];
  for (let i = 0; i < rounds; i++) {
    const count = await listing.alter('delete', 0.01, 200 + i);
    await db.settle(RECORDS);
    const run = await sync(db);
    if (run.stats.staled !== count) throw new Error(`${count} were removed: ${JSON.stringify(run.stats)}`);
    removed.push(run);
  }
  figures.add(`stale step's share of the pass, ${large} records, nothing stale`, {
    unit: '%', rounds: still.map(share), reach: (x) => x <= 20, stretch: (x) => x <= 10, reachText: '<= 20 % (10)',
  });
  figures.add(`stale step's share of the pass, ${large} records, 1 % removed`, {
    unit: '%', rounds: removed.map(share), reach: (x) => x <= 35, reachText: '<= 35 %',
  });
  figures.stages(`1 % removed, ${large} records`, large, removed);
}
