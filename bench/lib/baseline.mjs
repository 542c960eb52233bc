// Running the SQL baselines (../baselines), measured as flohsync is.
import { cpuSeconds } from './process.mjs';

// What people write, and (EXPERT) what somebody writes who knows PostgreSQL well; page_hash stands on raw.
export const PLAIN = ['plain', 'case', 'where'];
export const EXPERT = ['raw', 'stage', 'page_hash'];
export const BASELINES = [...PLAIN, ...EXPERT];

// Makes tables of the baselines and stores the upstream's pages.
export async function prepare(db, upstream, names = BASELINES) {
  await db.load('tables.sql');
  for (const name of names) await db.load(`${name}.sql`);
  await storePages(db, upstream);
}

export async function storePages(db, upstream) {
  await db.run('truncate bench.page');
  await upstream.walk((body, n) => db.rows('insert into bench.page values ($1, $2)', [n, body.toString()]));
  await db.run('vacuum analyze bench.page');
}

async function measured(db, work) {
  const side = await db.aside();
  const wal = await side.walPosition();
  const cpu = cpuSeconds(db.pid);
  const started = performance.now();
  await work();
  return {
    seconds: (performance.now() - started) / 1000,
    cpu: cpuSeconds(db.pid) - cpu,
    wal: (await side.walPosition()) - wal,
  };
}

// A pass over the stored pages.
export function passStored(db, name) {
  return measured(db, () => db.rows('call bench.pass($1, $2)', [name, db.connector]));
}

// A pass that fetches the pages over HTTP, the next one while one is applied, with the same commits.
export function passFetched(db, name, upstream) {
  return measured(db, async () => {
    await db.run('set synchronous_commit = off');
    await upstream.walk((body, n) =>
      db.client.query({ name: `${name}_page`, text: `call bench.${name}_page($1, $2, $3)`, values: [db.connector, n, body.toString()] }));
    await db.run('set synchronous_commit = on');
    await db.rows('call bench.finish($1, $2)', [name, db.connector]);
  });
}

// COPY of the stored records into a table of their kind.
export async function copy(db, dir) {
  const file = `'${dir}/${db.name}.copy'`;
  await db.load('tables.sql');
  await db.run(`call bench.make_table('copy_record', 90)`);
  await db.run(`copy flohsync.resource_record to ${file}`);
  await db.run('checkpoint');
  return measured(db, () => db.run(`copy bench.copy_record from ${file}`));
}
