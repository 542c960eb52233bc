// flohsync-http: lists and single records of a large table against PostgREST, both in
// front of the same database, with as many connections to it; memory; an honest client
// among slow ones; webhooks against the same function called through pgbench.
// The load comes from wrk; the processor time of all three tells who is the bottleneck.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Database } from '../lib/database.mjs';
import { receiver, Sender } from '../lib/deliveries.mjs';
import { gateway, hasPostgrest, postgrest, roles, token } from '../lib/http_server.mjs';
import { pgbench } from '../lib/pgbench.mjs';
import { cpuSeconds, processSeconds, residentBytes } from '../lib/process.mjs';
import { sync } from '../lib/sync.mjs';
import { raw, store, wrk } from '../lib/wrk.mjs';

const MB = 1024 * 1024;
const CONNECTIONS = 32;
const SLOW = 1000;
const SETTLE_MS = 4000;
const RECORDS = 10000; // of which single ones are asked for
const RECEIVE = fileURLToPath(new URL('../baselines/receive.sql', import.meta.url));

async function largeDatabase(listing, large) {
  await listing.resize(large);
  const db = await Database.create('http', listing);
  await sync(db);
  await db.settle('flohsync.resource_record');
  await roles(db);
  return db;
}

// wrk, and what a request costs in processor time: in the server, and in its sessions of the database; µs.
async function load(db, server, file, options) {
  const side = await db.aside();
  const sessions = (await side.rows(`select pid from pg_stat_activity where usename = 'flohsync_http' and datname = current_database()`)).map((r) => r.pid);
  const backends = () => sessions.reduce((sum, pid) => sum + (cpuSeconds(pid) ?? 0), 0);
  const before = { server: processSeconds(server.pid), backends: backends() };
  const result = await wrk(server.port, file, options);
  const per = (seconds) => (seconds * 1e6) / result.requests;
  return { ...result, server: per(processSeconds(server.pid) - before.server), backends: per(backends() - before.backends) };
}

const better = (one, other) => (one.perSecond >= other.perSecond ? one : other);

// The same page, and the same records, from both: PostgREST from the function and from the view, the better of the two.
async function againstPostgrest(figures, { db, ours, theirs, files, rounds, seconds }) {
  for (const [what, title, factor] of [['list', 'HTTP, list of 50', 4], ['single', 'HTTP, single record', 5]]) {
    const measured = [];
    for (let i = 0; i < rounds; i++) {
      const run = (server, file) => load(db, server, file, { connections: CONNECTIONS, seconds });
      if (i === 0) for (const [server, file] of [[ours, files.ours[what]], [theirs, files.function[what]], [theirs, files.view[what]]]) await wrk(server.port, file, { connections: CONNECTIONS, seconds: 1 });
      measured.push({ ours: await run(ours, files.ours[what]), base: better(await run(theirs, files.function[what]), await run(theirs, files.view[what])) });
    }
    const pairs = (key) => measured.map((m) => ({ ours: m.ours[key], base: m.base[key] }));
    figures.add(`${title}, against PostgREST`, { unit: 'requests/s', rounds: pairs('perSecond'), reach: (x) => x >= factor, reachText: `>= ${factor}` });
    figures.add('  99th percentile', { unit: 'ms', rounds: pairs('p99'), judge: (r) => r.ours, ...(what === 'list' ? { reach: (x) => x < 20, reachText: '< 20 ms' } : {}) });
    figures.add('  processor time of the HTTP server', { unit: 'µs', rounds: pairs('server') });
    figures.add('  processor time of its sessions in the database', { unit: 'µs', rounds: pairs('backends') });
    figures.add('  of both', { unit: 'µs', rounds: measured.map(({ ours, base }) => ({ ours: ours.server + ours.backends, base: base.server + base.backends })) });
  }
}

// After so many requests, of which a fifth came before the first look.
async function memory(figures, { server, file, requests }) {
  let sent = 0;
  const until = async (count) => {
    while (sent < count) sent += (await wrk(server.port, file, { connections: CONNECTIONS, seconds: 5 })).requests;
    return residentBytes(server.pid);
  };
  const early = await until(requests / 5);
  const late = await until(requests);
  figures.add(`HTTP, memory of the server after ${requests} requests`, { unit: 'MB', rounds: [{ ours: late / MB }], reach: (x) => x < 32, reachText: '< 32 MB' });
  figures.add('  of that, since the first fifth of them', { unit: 'MB', rounds: [{ ours: (late - early) / MB }], reach: (x) => x < 1, reachText: '< 1 MB' });
}

async function amongSlowClients(figures, { server, file, programs, rounds, seconds }) {
  const measured = [];
  for (let i = 0; i < rounds; i++) {
    const base = (await wrk(server.port, file, { connections: 1, seconds })).p99;
    const slow = spawn(`${programs}/slow_clients`, [String(server.port), String(SLOW)], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(slow.stdout, 'data');
    await sleep(SETTLE_MS); // a thousand that come at once are not slow
    const ours = (await wrk(server.port, file, { connections: 1, seconds })).p99;
    if (slow.exitCode !== null) throw new Error('the slow clients have ended');
    slow.kill();
    measured.push({ ours, base });
  }
  figures.add(`HTTP, an honest client among ${SLOW} slow ones, 99th percentile, against alone`, {
    unit: 'ms', rounds: measured, judge: (r) => r.ours, reach: (x) => x < 100, reachText: '< 100 ms',
  });
}

async function webhooks(figures, { where, rounds, small }) {
  const sender = new Sender();
  const db = await receiver('http_hooks', sender);
  await roles(db);
  const server = await gateway(where, 'http_hooks', { pool_size: CONNECTIONS, webhooks_per_second: 0, webhooks_per_second_address: 0 });
  const file = `${where.programs}/webhooks`;
  const seconds = small ? 4 : 8;
  const calls = small ? 200 : 500;
  const received = async () => (await db.one(`select n_tup_ins + n_tup_upd as n from pg_stat_all_tables where relid = 'flohsync.resource_record'::regclass`)).n;
  const measured = [];
  const deliveries = (count) => store(file, Array.from({ length: count }, () => {
    const { body, headers } = sender.delivery('record');
    return raw('POST', '/api/webhooks/hooks', headers, body);
  }));
  // Until all its connections to the database are there.
  deliveries(16000);
  await wrk(server.port, file, { connections: CONNECTIONS, seconds: 2, once: true });
  for (let i = 0; i < rounds; i++) {
    await sender.store(db, 'record', calls * CONNECTIONS);
    const base = await pgbench(db, RECEIVE, { clients: CONNECTIONS, calls });
    deliveries(seconds * 8000);
    await db.settle('flohsync.resource_record');
    const before = await received();
    const ours = await load(db, server, file, { connections: CONNECTIONS, seconds, once: true });
    // Sessions report what they have written when they have been idle for a while.
    for (let t = 0; (await received()) - before < ours.requests && t < 1000; t++) await sleep(10);
    if ((await received()) - before < ours.requests) throw new Error(`${ours.requests} were taken, ${(await received()) - before} were stored`);
    measured.push({ ours, base });
  }
  figures.add(`HTTP, webhooks committed, ${CONNECTIONS} senders`, {
    unit: 'per s', rounds: measured.map((m) => ({ ours: m.ours.perSecond })), reach: (x) => x >= 2000, reachText: '>= 2,000/s',
  });
  figures.add('  against receive_webhook through pgbench, as many sessions', {
    unit: 'µs', rounds: measured.map((m) => ({ ours: 1e6 / m.ours.perSecond, base: 1e6 / m.base.perSecond })), reach: (x) => x <= 1.3, reachText: '<= 1.3',
  });
  figures.add('  99th percentile', { unit: 'ms', rounds: measured.map((m) => ({ ours: m.ours.p99 })) });
  figures.add('  processor time of the HTTP server', { unit: 'µs', rounds: measured.map((m) => ({ ours: m.ours.server })) });
  figures.add('  processor time of the sessions in the database, against those of pgbench', {
    unit: 'µs', rounds: measured.map((m) => ({ ours: m.ours.backends, base: m.base.cpu * 1e6 })),
  });
  await server.stop();
  await db.drop();
}

export async function http(figures, { listing, large, rounds, small, programs, server }) {
  const where = { programs, server };
  const db = await largeDatabase(listing, large);
  const ours = await gateway(where, 'http');
  const authorization = `Bearer ${token('app_reader')}`;
  const seconds = small ? 2 : 8;
  const ids = (await db.rows('select external_id as id from flohsync.resource_record order by md5(external_id) limit $1', [RECORDS])).map((r) => r.id);
  const list = '/api/connectors/upstream/resources?type=record&pageSize=50';
  const requests = {
    ours: { list: [list], single: ids.map((id) => `/api/connectors/upstream/resources/record/${id}`) },
    function: {
      list: ['/rpc/resources?connector=upstream&resource_type=record&page_size=50'],
      single: ids.map((id) => `/rpc/resource?connector=upstream&resource_type=record&external_id=${id}`),
    },
    view: {
      list: [`/connector_resource?connector_id=eq.${db.connector}&resource_type=eq.record&order=external_id&limit=50`],
      single: ids.map((id) => `/connector_resource?connector_id=eq.${db.connector}&resource_type=eq.record&external_id=eq.${id}`),
    },
  };
  const files = {};
  for (const [from, kinds] of Object.entries(requests)) {
    files[from] = {};
    for (const [kind, paths] of Object.entries(kinds)) {
      files[from][kind] = `${programs}/${from}_${kind}`;
      store(files[from][kind], paths.map((path) => raw('GET', path, { Authorization: authorization, ...(from === 'view' ? { 'Accept-Profile': 'flohsync' } : {}) })));
    }
  }
  if (hasPostgrest(where)) {
    const theirs = await postgrest(where, 'http');
    await againstPostgrest(figures, { db, ours, theirs, files, rounds, seconds });
    await theirs.stop();
  } else console.error('PostgREST is not there: no comparison');
  await memory(figures, { server: ours, file: files.ours.single, requests: small ? 50000 : 1000000 });
  await amongSlowClients(figures, { server: ours, file: files.ours.single, programs, rounds, seconds });
  await ours.stop();
  await db.drop();
  await webhooks(figures, { where, rounds, small });
}
