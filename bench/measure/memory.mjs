// The worker's own memory over the large table, against a tenth of it: the
// peak of what it shares with nobody, in a first load and in an unchanged pass.
import { Database } from '../lib/database.mjs';
import { sync, syncUnchanged } from '../lib/sync.mjs';

const MB = 1024 * 1024;

// peaks are those of the large table.
export async function workerMemory(figures, { listing, large, peaks }) {
  await listing.resize(large / 10);
  const db = await Database.create('memory', listing);
  const load = (await sync(db)).memory;
  const pass = (await syncUnchanged(db)).memory;
  for (const [what, ours, base] of [['first load', peaks.load, load], ['unchanged pass', peaks.pass, pass]]) {
    figures.add(`worker memory, ${large} records against ${large / 10}, ${what}`, {
      unit: 'MB', rounds: [{ ours: ours / MB, base: base / MB }], judge: (r) => r.ours - r.base,
      reach: (x) => x <= 16, reachText: '<= 16 MB more',
    });
  }
  await db.drop();
}
