// Unchanged passes over random ids, against ids in listing order, pair by pair.
import { Database } from '../lib/database.mjs';
import { sync, syncUnchanged } from '../lib/sync.mjs';

// ordered is a database with as many records in listing order.
export async function randomIds(figures, { ordered, random, records, rounds }) {
  await random.resize(records);
  const db = await Database.create('random_ids', random);
  await sync(db);
  await db.settle('flohsync.resource_record');
  await syncUnchanged(db);
  const measured = [];
  for (let i = 0; i < rounds; i++) measured.push({ ours: await syncUnchanged(db), base: await syncUnchanged(ordered) });
  figures.add(`unchanged pass, random ids against listing order, ${records} records`, {
    unit: 'µs/record',
    rounds: measured.map((r) => ({ ours: (r.ours.seconds / records) * 1e6, base: (r.base.seconds / records) * 1e6 })),
    reach: (x) => x <= 2, reachText: '<= 2',
  });
  figures.stages(`unchanged pass, random ids, ${records} records`, records, measured.map((r) => r.ours));
  await db.drop();
}
