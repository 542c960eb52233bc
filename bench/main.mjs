// The benchmark's driver: measures one figure after the other, prints the
// table and writes results/latest.json.  bench/run starts it.
import { mkdirSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { parseArgs } from 'node:util';
import { Database } from './lib/database.mjs';
import { Figures } from './lib/figures.mjs';
import { Upstream } from './lib/upstream.mjs';
import { cache } from './measure/cache.mjs';
import { changed } from './measure/changed.mjs';
import { concurrency } from './measure/concurrency.mjs';
import { firstLoad } from './measure/first_load.mjs';
import { http } from './measure/http.mjs';
import { largeDatabase, staleStep, unchangedLarge } from './measure/large.mjs';
import { longHistory, manyConfigurations } from './measure/many.mjs';
import { match, neverAnalysed } from './measure/match.mjs';
import { workerMemory } from './measure/memory.mjs';
import { notModified } from './measure/not_modified.mjs';
import { manyDatabases, processes } from './measure/processes.mjs';
import { randomIds } from './measure/random_ids.mjs';
import { againstRecordByRecord } from './measure/record_by_record.mjs';
import { removal } from './measure/removal.mjs';
import { restAgainstCommand } from './measure/rest.mjs';
import { searches } from './measure/search.mjs';
import { loadedDatabase, unchanged } from './measure/unchanged.mjs';
import { webhook } from './measure/webhook.mjs';

const options = Object.fromEntries(['records', 'rounds', 'files', 'listing', 'random', 'many', 'databases', 'only', 'redis', 'get', 'programs', 'server'].map((name) => [name, { type: 'string' }]));
const { values } = parseArgs({ options });
const records = Number(values.records);
const large = records * 5;
const small = records < 200000;
const rounds = Number(values.rounds);
const listing = new Upstream(values.listing);
const random = new Upstream(values.random);
const wanted = (part) => !values.only || values.only.split(',').includes(part);

const figures = new Figures();
const started = new Date();
const loadBefore = os.loadavg();
const step = (text) => console.error(`${((Date.now() - started) / 1000).toFixed(0).padStart(5)} s  ${text}`);

if (wanted('first')) {
  step(`first load, ${records} records, ${rounds} rounds`);
  await firstLoad(figures, { listing, records, rounds, files: values.files });
}
if (wanted('pass')) {
  step('unchanged passes');
  const db = await loadedDatabase('main', listing, records);
  const passes = (await unchanged(figures, { db, listing, records, rounds })).map((round) => round.ours);
  step('Node.js record by record');
  await againstRecordByRecord(figures, { db, listing, records, passes });
  step('random ids');
  await randomIds(figures, { ordered: db, random, records, rounds });
  step('1 % changed');
  await changed(figures, { db, listing, records, rounds });
  step('pages that are not sent');
  await notModified(figures, { db, listing, records, rounds });
  await removal(figures, { db, records });
  await db.drop();
}
if (wanted('large')) {
  step(`${large} records`);
  const { db, memory } = await largeDatabase(figures, { listing, large });
  await unchangedLarge(figures, { db, listing, large, rounds: Math.min(rounds, 2) });
  await randomIds(figures, { ordered: db, random, records: large, rounds });
  step('pages that are not sent');
  await notModified(figures, { db, listing, records: large, rounds });
  step('the stale step');
  await staleStep(figures, { db, listing, large, rounds });
  await db.drop();
  step('worker memory');
  await workerMemory(figures, { listing, large, peaks: memory });
}
if (wanted('search')) {
  step(`searches in ${large} records`);
  await searches(figures, { large, rounds });
}
if (wanted('match')) {
  step(`matching ${records * 2.5} records and users`);
  await match(figures, { records: records * 2.5, rounds });
  step(`first loads of ${records} and ${large} people`);
  await neverAnalysed(figures, { records, large });
}
if (wanted('rest')) {
  step('kind rest');
  await restAgainstCommand(figures, { records, rounds });
}
if (wanted('concurrency')) {
  step('several requests at a time');
  await concurrency(figures, { listing, records: Math.min(records / 2, 100000), groups: Math.min(records / 100, 2000), rounds: 1 });
}
if (wanted('webhook')) {
  step('webhooks');
  await webhook(figures, { rounds, small });
}
if (wanted('cache')) {
  step('the cache');
  await cache(figures, { listing, redis: values.redis, get: values.get, rounds });
}
if (wanted('processes')) {
  step('processes');
  await processes(figures, { listing, rounds });
}
if (wanted('many')) {
  step('many configurations');
  const db = await manyConfigurations(figures, { listing, rounds, small });
  step('a long history');
  await longHistory(figures, { db, small });
}
if (wanted('http')) {
  step('HTTP');
  await http(figures, { listing, large, rounds, small, programs: values.programs, server: values.server });
}
if (wanted('databases')) {
  step(`${values.databases} databases`);
  await manyDatabases(figures, { host: values.many, listing, databases: Number(values.databases) });
}

const admin = await Database.connect('postgres');
const server = (await admin.one('show server_version')).server_version;
await admin.close();
const machine = {
  postgresql: server,
  node: process.version,
  processor: os.cpus()[0]?.model,
  cores: os.cpus().length,
  memoryGB: Math.round(os.totalmem() / 2 ** 30),
  loadBefore,
  loadAfter: os.loadavg(),
};
const results = new URL('results/', import.meta.url);
mkdirSync(results, { recursive: true });
writeFileSync(new URL('latest.json', results),
  JSON.stringify({ startedAt: started, seconds: (Date.now() - started) / 1000, records, large, rounds, machine,
    figures: figures.list, stages: figures.stageList }, null, 1) + '\n');

console.log(`PostgreSQL ${server}, ${machine.cores} cores (${machine.processor}), ${records} and ${large} records, ` +
  `medians of ${rounds} rounds\n`);
figures.print();
if (small) console.log('\nWhat is to be reached is meant for 200000 and 1000000 records: in small tables starting a run weighs more.');
step('done');
