// What a run costs where there are many configurations, and where many runs have
// been before.
import { addConnectors, makeDue, quiet } from './processes.mjs';
import { Database } from '../lib/database.mjs';
import { median } from '../lib/figures.mjs';
import { childrenSeconds } from '../lib/process.mjs';

const FEW = 100;

// A database with so many configurations of 10 records each, all of which have run.
async function configurations(name, listing, count) {
  const db = await Database.create(name, listing);
  await addConnectors(db, listing, count);
  await allDue(db, count);
  await db.run('vacuum analyze');
  return db;
}

// Has all of them run once; processor time of the workers, seconds a run.
async function allDue(db, count) {
  const postmaster = Number((await db.one(`select split_part(pg_read_file('postmaster.pid'), E'\\n', 1) as pid`)).pid);
  await quiet(db);
  const { last } = await db.one('select coalesce(max(id), 0) as last from flohsync.sync_run');
  const before = childrenSeconds(postmaster);
  await makeDue(db);
  const state = () => db.one(`select count(*) filter (where status = 'success') as good, count(*) filter (where finished_at is not null) as done
    from flohsync.sync_run where id > $1`, [last]);
  for (let s = await state(); s.done < count; s = await state()) await new Promise((resolve) => setTimeout(resolve, 250));
  await quiet(db);
  const { good } = await state();
  if (good !== count) throw new Error(`${good} of ${count} runs were successful`);
  return (childrenSeconds(postmaster) - before) / count;
}

export async function manyConfigurations(figures, { listing, rounds, small }) {
  const many = small ? 300 : 1000;
  await listing.resize(10);
  const few = await configurations('few', listing, FEW);
  const lots = await configurations('many', listing, many);
  const measured = [];
  for (let i = 0; i < rounds; i++) measured.push({ base: (await allDue(few, FEW)) * 1000, ours: (await allDue(lots, many)) * 1000 });
  figures.add(`processor time of a run of 10 records, ${many} configurations against ${FEW}`, {
    unit: 'ms', rounds: measured, reach: (x) => x <= 1.1, reachText: '<= 1.1',
  });
  figures.add(`  of one with ${FEW}`, { unit: 'ms', rounds: measured.map((m) => ({ ours: m.base })), reach: (x) => x <= 6, reachText: '<= 6 ms' });
  await lots.drop();
  return few;
}

// Milliseconds of a query: the median of some.
async function time(db, query) {
  const times = [];
  for (let i = 0; i < 21; i++) {
    const started = performance.now();
    await db.rows(query);
    times.push(performance.now() - started);
  }
  return median(times.slice(1));
}

// What a worker does at its end, as src/run/queue.c has it.
const END = `select _flohsync.forget_history(k.r), _flohsync.forget_webhooks(k.r) from pg_catalog.make_interval(secs => 2592000) k(r)`;
const METRICS = 'select * from flohsync.metrics()';

// db has a few configurations, each of which has run.
export async function longHistory(figures, { db, small }) {
  const runs = small ? 100000 : 1000000;
  await quiet(db);
  const base = { end: await time(db, END), metrics: await time(db, METRICS) };
  // Runs like those that there are, over the last 29 days.
  const { columns, values } = await db.one(`
    select string_agg(quote_ident(attname), ', ') as columns,
           string_agg(case when attname in ('requested_at', 'started_at', 'finished_at', 'pass_started_at')
                           then format('now() - g * interval ''29 days'' / %s', $1::int) else quote_ident(attname) end, ', ') as values
      from pg_attribute where attrelid = 'flohsync.sync_run'::regclass and attnum > 0 and not attisdropped
       and attname not in ('id', 'pass_id')`, [runs]);
  await db.run(`insert into flohsync.sync_run (${columns})
    select ${values} from (select r.*, row_number() over (order by id desc) as k, count(*) over () as n from flohsync.sync_run r) r,
           generate_series(${runs}, 1, -1) g where g % r.n = r.k - 1`);
  const { n } = await db.one('select count(*) as n from flohsync.sync_run');
  if (n < runs) throw new Error(`there are ${n} runs`);
  await db.run('vacuum analyze flohsync.sync_run');
  const long = { end: await time(db, END), metrics: await time(db, METRICS) };
  if ((await db.one('select count(*) as n from flohsync.sync_run')).n !== n) throw new Error('runs were removed that are not old');
  figures.add(`end of a worker, ${runs} runs of history, against a few`, {
    unit: 'ms', rounds: [{ ours: long.end, base: base.end }], judge: (r) => r.ours, reach: (x) => x < 5, reachText: '< 5 ms',
  });
  figures.add(`metrics(), ${runs} runs of history, against a few`, {
    unit: 'ms', rounds: [{ ours: long.metrics, base: base.metrics }], judge: (r) => r.ours, reach: (x) => x < 20, reachText: '< 20 ms',
  });
  await db.drop();
}
