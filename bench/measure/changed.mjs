// A pass in which 1 % has changed, against an unchanged one just before it.  The
// two are so close that one round says little: their ratio is off by a fifth.
import { sync, syncUnchanged } from '../lib/sync.mjs';

const ROUNDS = 3; // for each round of the other figures

export async function changed(figures, { db, listing, records, rounds }) {
  const measured = [];
  for (let i = 0; i < rounds * ROUNDS; i++) {
    await db.settle('flohsync.resource_record');
    const before = await syncUnchanged(db);
    const count = await listing.alter('change', 0.01, 100 + i);
    await db.settle('flohsync.resource_record');
    const run = await sync(db);
    if (run.stats.updated !== count) throw new Error(`${count} were changed: ${JSON.stringify(run.stats)}`);
    measured.push({ before, run });
  }
  figures.add('1 % changed, against unchanged', {
    unit: 'µs/record',
    rounds: measured.map((r) => ({ ours: (r.run.seconds / records) * 1e6, base: (r.before.seconds / records) * 1e6 })),
    reach: (x) => x <= 1.2, reachText: '<= 1.2',
  });
  figures.add('1 % changed, processor time only', {
    unit: 'µs/record',
    rounds: measured.map((r) => ({ ours: (r.run.cpu / records) * 1e6, base: (r.before.cpu / records) * 1e6 })),
  });
  figures.add('1 % changed, WAL', { unit: 'B/record', rounds: measured.map((r) => ({ ours: r.run.wal / records })) });
  figures.stages('1 % changed', records, measured.map((r) => r.run));
}
