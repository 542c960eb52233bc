// The unchanged pass: against the SQL baselines on stored pages and over HTTP,
// and what it writes.
import { BASELINES, passFetched, passStored, prepare } from '../lib/baseline.mjs';
import { Database } from '../lib/database.mjs';
import { sync, syncUnchanged } from '../lib/sync.mjs';

const RECORDS = 'flohsync.resource_record';

// A database with the first load of flohsync and of every baseline behind it.
export async function loadedDatabase(name, upstream, records) {
  await upstream.resize(records);
  const db = await Database.create(name, upstream);
  await prepare(db, upstream);
  await sync(db);
  for (const baseline of BASELINES) await passStored(db, baseline);
  await db.settle(RECORDS, ...BASELINES.map((b) => `bench.${b}_record`));
  await syncUnchanged(db); // the steady state: a pass before the one that is measured
  return db;
}

export async function unchanged(figures, { db, listing, records, rounds }) {
  const measured = [];
  for (let i = 0; i < rounds; i++) {
    const round = {};
    await db.settle(RECORDS);
    round.ours = await syncUnchanged(db);
    for (const baseline of BASELINES) {
      await db.settle(`bench.${baseline}_record`);
      round[baseline] = await passStored(db, baseline);
    }
    await db.settle('bench.plain_record');
    round.fetched = await passFetched(db, 'plain', listing);
    measured.push(round);
  }

  const rate = (seconds) => records / seconds;
  const against = (baseline, seconds = (run) => run.seconds) =>
    measured.map((r) => ({ ours: rate(seconds(r.ours)), base: rate(r[baseline].seconds) }));
  figures.add('unchanged pass over HTTP, against plain upsert of local pages', {
    unit: 'records/s', rounds: against('plain'), reach: (x) => x >= 40, reachText: '>= 40',
  });
  figures.add('unchanged pass over HTTP, against upsert with CASE', {
    unit: 'records/s', rounds: against('case'), reach: (x) => x >= 7, stretch: (x) => x >= 10, reachText: '>= 7 (10)',
  });
  figures.add('unchanged pass over HTTP, against upsert with WHERE (does less)', { unit: 'records/s', rounds: against('where') });
  figures.add('unchanged pass over HTTP, against digests of raw text, ledger and anti-join', { unit: 'records/s', rounds: against('raw') });
  figures.add('unchanged pass over HTTP, against one staged difference', {
    unit: 'records/s', rounds: against('stage'), reach: (x) => x >= 17, reachText: '>= 17',
  });
  figures.add('unchanged pass over HTTP, against page hashes in PL/pgSQL', {
    unit: 'records/s', rounds: against('page_hash'), reach: (x) => x >= 4, reachText: '>= 4',
  });
  figures.add('unchanged pass without its fetching, against plain upsert', { unit: 'records/s', rounds: against('plain', (run) => run.own) });
  for (const [baseline, what] of [['plain', 'plain upsert'], ['raw', 'digests of raw text'], ['stage', 'one staged difference'], ['page_hash', 'page hashes']]) {
    figures.add(`unchanged pass, processor time only, against ${what}`, {
      unit: 'µs/record', rounds: measured.map((r) => ({ ours: (r.ours.cpu / records) * 1e6, base: (r[baseline].cpu / records) * 1e6 })),
    });
  }
  figures.add('unchanged pass over HTTP, against plain upsert that fetches too', {
    unit: 'records/s', rounds: against('fetched'), judge: (r) => r.ours, reach: (x) => x >= 150000, stretch: (x) => x >= 250000,
    reachText: '>= 150,000/s (250,000)',
  });
  figures.add('unchanged pass, WAL', {
    unit: 'B/record', rounds: measured.map((r) => ({ ours: r.ours.wal / records, base: r.plain.wal / records })),
    judge: (r) => r.ours, reach: (x) => x <= 2, reachText: '<= 2 B',
  });
  for (const [key, what] of [['written', 'tuples written'], ['dead', 'dead tuples'], ['growth', 'bytes of table growth']]) {
    figures.add(`unchanged pass, ${what}`, {
      unit: '', rounds: measured.map((r) => ({ ours: r.ours[key] })), reach: (x) => x === 0, reachText: '0',
    });
  }
  figures.stages('unchanged pass', records, measured.map((r) => r.ours));
  return measured;
}
