// A pass in which 1 % has changed: against an unchanged one just before it, and
// against SQL that compares digests (../baselines/raw.sql) over the same pages.
// The first two are so close that one round says little: their ratio is off by a fifth.
// Then the next pass, in which another 1 % has: where there is always some change.
import { passStored, storePages } from '../lib/baseline.mjs';
import { sync, syncUnchanged } from '../lib/sync.mjs';

const ROUNDS = 3; // for each round of the other figures

export async function changed(figures, { db, listing, records, rounds }) {
  const measured = [];
  for (let i = 0; i < rounds * ROUNDS; i++) {
    await db.settle('flohsync.resource_record');
    const before = await syncUnchanged(db);
    const { run, raw } = await changeAndSync(db, listing, 100 + i);
    const { run: next, raw: nextRaw } = await changeAndSync(db, listing, 500 + i);
    measured.push({ before, run, raw, next, nextRaw });
  }
  const per = (seconds) => (seconds * 1e6) / records;
  const pairs = (base, what) => measured.map((r) => ({ ours: per(r.run[what]), base: per(r[base][what]) }));
  figures.add(`1 % of ${records} changed, against unchanged`, { unit: 'µs/record', rounds: pairs('before', 'seconds') });
  figures.add(`1 % of ${records} changed, against unchanged, processor time only`, { unit: 'µs/record', rounds: pairs('before', 'cpu') });
  figures.add(`1 % of ${records} changed, against digests of raw text, ledger and anti-join`, {
    unit: 'records/s', rounds: measured.map((r) => ({ ours: records / r.run.seconds, base: records / r.raw.seconds })),
    reach: (x) => x >= 9, reachText: '>= 9',
  });
  figures.add('  of that, processor time', { unit: 'µs/record', rounds: pairs('raw', 'cpu') });
  figures.add(`  another 1 % in the next pass, likewise`, {
    unit: 'records/s', rounds: measured.map((r) => ({ ours: records / r.next.seconds, base: records / r.nextRaw.seconds })),
    reach: (x) => x >= 9, reachText: '>= 9',
  });
  figures.add(`1 % of ${records} changed, WAL`, { unit: 'B/record', rounds: measured.map((r) => ({ ours: r.run.wal / records, base: r.raw.wal / records })) });
  figures.stages(`1 % of ${records} changed`, records, measured.map((r) => r.run));
}

// Changes 1 %, and has both take a pass.
async function changeAndSync(db, listing, seed) {
  const count = await listing.alter('change', 0.01, seed);
  await db.settle('flohsync.resource_record');
  const run = await sync(db);
  if (run.stats.updated !== count) throw new Error(`${count} were changed: ${JSON.stringify(run.stats)}`);
  await storePages(db, listing);
  await db.settle('bench.raw_record');
  const { written } = await db.tableState('bench.raw_record');
  const raw = await passStored(db, 'raw');
  const wrote = (await reported(db, written + count)).written - written;
  if (wrote !== count) throw new Error(`${count} were changed, the baseline wrote ${wrote}`);
  return { run, raw };
}

// A session reports what it has written when it has been idle for a while.
async function reported(db, written) {
  await db.rows('select pg_stat_force_next_flush()');
  for (let i = 0; ; i++) {
    const state = await db.tableState('bench.raw_record');
    if (state.written >= written || i === 1000) return state;
  }
}
