// An unchanged pass whose pages are asked for only if they have changed: the upstream answers
// 304 to each.  Against the unchanged pass just before it, to which it sends all of them.
import { sync, syncUnchanged } from '../lib/sync.mjs';

export async function notModified(figures, { db, listing, records, rounds }) {
  const conditional = (on) => db.rows('select flohsync.update_connector(\'upstream\', $1)', [{ config: { conditional: on } }]);
  const measured = [];

  await listing.control('options', { validator: 'etag' });
  await listing.warm();
  await conditional(true);
  await sync(db); // pages are read for the new settings, and what stands for them is kept
  for (let i = 0; i < rounds; i++) {
    await listing.control('options', { validator: '' });
    await db.settle('flohsync.resource_record');
    const sent = await syncUnchanged(db);
    await listing.control('options', { validator: 'etag' });
    await syncUnchanged(db); // which has the validators stored again
    await db.settle('flohsync.resource_record');
    measured.push({ ours: await syncUnchanged(db), sent });
  }
  await listing.control('options', { validator: '' });
  await conditional(false);
  const per = (what) => measured.map((r) => ({ ours: (r.ours[what] * 1e6) / records, base: (r.sent[what] * 1e6) / records }));
  figures.add(`unchanged pass of ${records} records, every page 304, against every page sent`, {
    unit: 'µs/record', rounds: per('seconds'), judge: (r) => r.ours, reach: (x) => x <= 0.25, reachText: '<= 0.25 µs',
  });
  figures.add('  of that, processor time', { unit: 'µs/record', rounds: per('cpu') });
  figures.add('  of that, bytes received', {
    unit: 'B/record', rounds: measured.map((r) => ({ ours: r.ours.stats.bytes / records, base: r.sent.stats.bytes / records })),
    reach: (x) => x <= 0.01, reachText: '<= 1 %',
  });
}
