// First load: flohsync into an empty, never analysed table, COPY of the same
// rows into a table of the same kind, and the same for a tenth of the records.
// Every load has a database of its own.
import { copy } from '../lib/baseline.mjs';
import { Database } from '../lib/database.mjs';
import { sync } from '../lib/sync.mjs';

async function load(name, upstream, records) {
  const db = await Database.create(name, upstream);
  await db.run('checkpoint');
  const run = await sync(db);
  if (run.stats.added !== records) throw new Error(`not a first load: ${JSON.stringify(run.stats)}`);
  return { db, run };
}

export async function firstLoad(figures, { listing, records, rounds, files }) {
  const small = records / 10;
  const loads = [];
  await listing.resize(small);
  const smallRuns = [];
  for (let i = 0; i < rounds; i++) {
    const { db, run } = await load('first', listing, small);
    await db.drop();
    smallRuns.push(run);
  }
  await listing.resize(records);
  for (let i = 0; i < rounds; i++) {
    const { db, run } = await load('first', listing, records);
    const copied = await copy(db, files);
    await db.drop();
    loads.push({ run, copied, small: smallRuns[i] });
  }

  figures.add('first load, against COPY', {
    unit: 'µs/record',
    rounds: loads.map((r) => ({ ours: (r.run.seconds / records) * 1e6, base: (r.copied.seconds / records) * 1e6 })),
    reach: (x) => x <= 0.8, reachText: '<= 0.8',
  });
  figures.add('first load, processor time only', {
    unit: 'µs/record',
    rounds: loads.map((r) => ({ ours: (r.run.cpu / records) * 1e6, base: (r.copied.cpu / records) * 1e6 })),
  });
  figures.add('first load, WAL', {
    unit: 'B/record',
    rounds: loads.map((r) => ({ ours: r.run.wal / records, base: r.copied.wal / records })),
  });
  figures.add(`first load, ${records} against ${small} records`, {
    unit: 'µs/record',
    rounds: loads.map((r) => ({ ours: (r.run.seconds / records) * 1e6, base: (r.small.seconds / small) * 1e6 })),
    reach: (x) => x <= 1.3, reachText: '<= 1.3',
  });
  figures.stages('first load', records, loads.map((r) => r.run));
}
