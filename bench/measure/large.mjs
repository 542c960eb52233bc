// The large table: first load, the unchanged pass against SQL, and the step at the
// end of a pass that finds what is missing: with nothing changed, nothing missing
// and 1 % removed.
import { passStored, prepare } from '../lib/baseline.mjs';
import { Database } from '../lib/database.mjs';
import { sync, syncUnchanged } from '../lib/sync.mjs';
import { changed } from './changed.mjs';

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

// Each baseline with what is to be reached against it.
const AGAINST = [
  ['plain', 'plain upsert', 40],
  ['stage', 'one staged difference', 17],
  ['page_hash', 'page hashes in PL/pgSQL', 4],
];

export async function unchangedLarge(figures, { db, listing, large, rounds }) {
  await prepare(db, listing, ['plain', 'raw', 'stage', 'page_hash']);
  for (const [baseline] of AGAINST) await passStored(db, baseline);
  const measured = [];
  for (let i = 0; i < rounds; i++) {
    const round = {};
    await db.settle(RECORDS);
    round.ours = await syncUnchanged(db);
    for (const [baseline] of AGAINST) {
      await db.settle(`bench.${baseline}_record`);
      round[baseline] = await passStored(db, baseline);
    }
    measured.push(round);
  }
  await passStored(db, 'raw');
  await changed(figures, { db, listing, records: large, rounds: 1 });
  await db.run('drop schema bench cascade');
  const per = (seconds) => (seconds * 1e6) / large;
  const title = `unchanged pass, ${large} records`;
  figures.add(title, { unit: 'µs/record', rounds: measured.map((r) => ({ ours: per(r.ours.seconds) })), reach: (x) => x <= 0.7, reachText: '<= 0.7 µs' });
  for (const [baseline, what, factor] of AGAINST) {
    figures.add(`${title}, against ${what} of local pages`, {
      unit: 'records/s', rounds: measured.map((r) => ({ ours: large / r.ours.seconds, base: large / r[baseline].seconds })),
      reach: (x) => x >= factor, reachText: `>= ${factor}`,
    });
    figures.add(`  of that, processor time`, {
      unit: 'µs/record', rounds: measured.map((r) => ({ ours: per(r.ours.cpu), base: per(r[baseline].cpu) })),
    });
  }
  figures.stages(title, large, measured.map((r) => r.ours));
}

const share = (run) => ({ ours: (100 * run.timings.settleMs) / run.stats.durationMs });

export async function staleStep(figures, { db, listing, large, rounds }) {
  const still = [];
  for (let i = 0; i < rounds; i++) still.push(await syncUnchanged(db));
  const changed = [];
  for (let i = 0; i < rounds; i++) {
    await listing.alter('change', 0.01, 300 + i);
    await db.settle(RECORDS);
    changed.push(await sync(db));
  }
  const removed = [];
  for (let i = 0; i < rounds; i++) {
    const count = await listing.alter('delete', 0.01, 200 + i);
    await db.settle(RECORDS);
    const run = await sync(db);
    if (run.stats.staled !== count) throw new Error(`${count} were removed: ${JSON.stringify(run.stats)}`);
    removed.push(run);
  }
  figures.add(`stale step's share of the pass, ${large} records, nothing changed`, {
    unit: '%', rounds: still.map(share), reach: (x) => x < 1, reachText: '< 1 %',
  });
  figures.add(`stale step's share of the pass, ${large} records, 1 % changed, nothing stale`, {
    unit: '%', rounds: changed.map(share), reach: (x) => x <= 8, reachText: '<= 8 %',
  });
  figures.add(`stale step's share of the pass, ${large} records, 1 % removed`, {
    unit: '%', rounds: removed.map(share), reach: (x) => x <= 35, reachText: '<= 35 %',
  });
  figures.stages(`1 % removed, ${large} records`, large, removed);
}
