// Searches in a large list, with the index: by id, e-mail domain and name, for
// what nobody has up to what all have; right after the load, and with changes
// that the index has not sorted in.
import { Database } from '../lib/database.mjs';

const REACH = 30;

// A few domains have most people, and names are as uneven as names are: the number of a name
// is the square of a random one.
const RECORDS = `create table directory as
  select 'p-' || lpad(g::text, 7, '0') as id,
         initcap('f' || translate((r.a * r.a * 300)::int::text, '0123456789', 'aeioulnrst') || 'a') || ' ' ||
           initcap('m' || translate((r.b * r.b * 5000)::int::text, '0123456789', 'aeioulnrst') || 'er') as name,
         'mail' || md5(g::text) || '@' ||
           case when r.c < 0.5 then 'half.example' when r.c < 0.6 then 'tenth.example' when r.c < 0.65 then 'twentieth.example'
                when r.c < 0.66 then 'hundredth.example' when r.c < 0.6601 then 'few.example' else 'd' || (r.c * 10000)::int || '.example' end as email,
         '{"department": "Sales"}'::jsonb as attributes
    from generate_series(1, $1::int) g, lateral (select random() a, random() b, random() c where g > 0) r`;

const SEARCHES = {
  'nobody': ['nobody of this name', 'xqzxqz', 'p-99999999'],
  'one': ['p-0004242', 'p-0123456', 'P-0070707'],
  'one in 10,000': ['few.example'],
  '1 %': ['hundredth', '@hundredth.example'],
  '5 %': ['twentieth', '@TWENTIETH'],
  '10 %': ['tenth.ex', '@tenth.example'],
  'half': ['half.ex', '@half'],
  'all': ['example', 'p-0', 'mail'],
  'names': ['fena', 'funa', 'feia', 'mener', 'fena men', 'MUTER'],
  'two characters': ['fe', 'm.', 'p-', '@h'],
  'one or two that nobody has': ['qx', 'k', '#', 'é', '@k'],
  'far from the page': ['-09', 'p-095', '-0999'],
  'parts that many have': ['feia m', 'ena mer', 'a mut', 'ia mu'],
};

async function ask(db, search, page) {
  const before = performance.now();
  await db.rows(`select flohsync.list_resources('people', 'record', $1, page => $2)`, [search, page]);
  return performance.now() - before;
}

const p95 = (times) => times.sort((a, b) => a - b)[Math.floor(times.length * 0.95)];

// The 95th percentile of each kind of search, and of all of them.
async function measure(db, calls) {
  const kinds = {};
  const all = [];
  for (const [kind, searches] of Object.entries(SEARCHES)) {
    kinds[kind] = [];
    for (let i = 0; i < calls; i++) kinds[kind].push(await ask(db, searches[i % searches.length], i % 4 === 3 ? 20 : 1));
    all.push(...kinds[kind]);
    kinds[kind] = p95(kinds[kind]);
  }
  return { kinds, all: p95(all) };
}

export async function searches(figures, { large, rounds }) {
  const admin = await Database.connect('postgres');
  await admin.run('drop database if exists search with (force)');
  await admin.run('create database search');
  await admin.close();
  const db = await Database.connect('search');
  await db.run('create extension flohsync; create extension pg_trgm');
  await db.run('select setseed(0.5)');
  await db.run(RECORDS.replace('$1', large));
  await db.run('grant select on directory to flohsync_nobody');
  await db.run(`select flohsync.create_connector('people', 'sql', '{"queries": {"record": "select id as external_id, name as display_name, email, attributes from public.directory order by id"}}')`);
  await db.run(`select flohsync.configure_sync('people', 'record', '{}')`);
  await db.run(`call flohsync.sync('people', 'record')`);
  await db.run('select flohsync.enable_search()');
  await db.run('checkpoint');
  const figure = (title, measured) => figures.add(title, {
    unit: 'ms', rounds: measured.map((ours) => ({ ours })), reach: (x) => x < REACH, reachText: `< ${REACH} ms`,
  });
  await measure(db, 4);
  const measured = [];
  for (let i = 0; i < rounds; i++) measured.push(await measure(db, 40));
  figure(`searches in ${large} records, 95th percentile`, measured.map((m) => m.all));
  for (const kind of Object.keys(SEARCHES)) figure(`  of them ${kind}`, measured.map((m) => m.kinds[kind]));
  await db.run(`update directory set name = name || ' jr' where right(id, 2) = '42'`);
  await db.run(`call flohsync.sync('people', 'record')`);
  await measure(db, 4);
  figure('right after 1 % of them changed', [(await measure(db, 40)).all]);
  await db.drop();
}
