// What schedules cost: an idle server, the way from a trigger to the upstream,
// and a hundred configurations that fall due in the same second.
import { setTimeout as sleep } from 'node:timers/promises';
import { Database } from '../lib/database.mjs';
import { cpuSeconds, privateBytes } from '../lib/process.mjs';
import { Upstream } from '../lib/upstream.mjs';

const MB = 1024 * 1024;
const CONFIGURATIONS = 100;
const IDLE_SECONDS = 10;
const NEVER = '0 0 1 1 *';

const processOf = async (db, type) => (await db.one('select pid from pg_stat_activity where backend_type = $1', [type])).pid;

export async function addConnectors(db, upstream, count) {
  await db.rows(`select flohsync.create_connector('m' || i, 'command', jsonb_build_object('url', $1::text)) from generate_series(1, $2::int) i`,
    [upstream.url, count]);
  await db.rows(`select flohsync.configure_sync('m' || i, 'user', jsonb_build_object('enabled', true, 'cronSchedule', $1::text))
                   from generate_series(1, $2::int) i`, [NEVER, count]);
}

const workers = async (db) => (await db.one(`select count(*) as n from pg_stat_activity where backend_type = 'flohsync worker'`)).n;

// Resolves when there has been no worker for a while; says when the last one was seen.
export async function quiet(db) {
  let seen = performance.now();
  for (let free = 0; free < 20; await sleep(25)) {
    free = (await workers(db)) === 0 ? free + 1 : 0;
    if (free === 0) seen = performance.now();
  }
  return seen;
}

async function idle(figures, admin, name) {
  const launcher = await processOf(admin, 'flohsync launcher');
  const transactions = async () => (await admin.one(
    'select xact_commit + xact_rollback as n from pg_stat_database where datname = $1', [name])).n;
  await quiet(admin);
  await sleep(2000); // statistics arrive late
  const before = await transactions();
  const cpu = cpuSeconds(launcher);
  let connections = 0;
  for (const end = Date.now() + IDLE_SECONDS * 1000; Date.now() < end; await sleep(50)) {
    const { n } = await admin.one(`select count(*) as n from pg_stat_activity where backend_type like 'flohsync%' and datid is not null`);
    connections = Math.max(connections, n);
  }
  const spent = cpuSeconds(launcher) - cpu;
  await sleep(2000);
  const none = { reach: (x) => x === 0, reachText: '0' };
  figures.add(`idle ${IDLE_SECONDS} s, ${CONFIGURATIONS} configurations: processes connected to a database`, { unit: '', rounds: [{ ours: connections }], ...none });
  figures.add('idle: transactions in the database', { unit: '', rounds: [{ ours: (await transactions()) - before }], ...none });
  figures.add('idle: processor time of the launcher', { unit: 'ms', rounds: [{ ours: spent * 1000 }] });
  figures.add("launcher's own memory, against the logical replication launcher's", {
    unit: 'MB',
    rounds: [{ ours: privateBytes(launcher) / MB, base: privateBytes(await processOf(admin, 'logical replication launcher')) / MB }],
    judge: (r) => r.ours, reach: (x) => x < 5, reachText: '< 5 MB',
  });
}

// Milliseconds from a call until the upstream is asked for a page.
async function untilAsked(upstream, watcher, call) {
  const { requests } = await upstream.control('log', { last: 0 });
  const asked = watcher.control('wait', { requests: requests + 1, timeout_ms: 10000 }).then(() => performance.now());
  await sleep(20); // so that it waits by now
  const started = performance.now();
  await call();
  return (await asked) - started;
}

async function triggered(figures, db, upstream, rounds) {
  const watcher = new Upstream(new URL(upstream.url).port);
  const measured = [];
  for (let i = 0; i < rounds; i++) {
    await quiet(db);
    const ours = await untilAsked(upstream, watcher, () => db.rows(`select flohsync.trigger_sync('upstream', 'record')`));
    await quiet(db);
    const base = await untilAsked(upstream, watcher, async () => {
      const other = await Database.connect(db.name);
      await upstream.page();
      await other.close();
    });
    measured.push({ ours, base });
  }
  figures.add('trigger to the first request, against a new connection and a request', {
    unit: 'ms', rounds: measured, judge: (r) => r.ours, reach: (x) => x < 25, reachText: '< 25 ms',
  });
}

// The configurations of addConnectors() fall due, the last one first.
export function makeDue(db) {
  return db.run(`update flohsync.connector_sync_config c set next_run_at = now() - make_interval(secs => substr(d.name, 2)::int * 0.001)
    from flohsync.connector_definition d where d.id = c.connector_id and d.name like 'm%'; select _flohsync.wake()`);
}

async function allAtOnce(figures, db, rounds) {
  const measured = [];
  for (let i = 0; i < rounds; i++) {
    await quiet(db);
    const { last } = await db.one('select coalesce(max(id), 0) as last from flohsync.sync_run');
    let started = performance.now();
    await makeDue(db);
    const done = () => db.one(`select count(*) filter (where status = 'success') as done, count(*) as runs,
        string_agg(substr(d.name, 2), ' ' order by r.id) as turns
      from flohsync.sync_run r join flohsync.connector_definition d on d.id = r.connector_id where r.id > $1`, [last]);
    let state = await done();
    while (state.done < CONFIGURATIONS && performance.now() - started < 60000) {
      await sleep(2);
      state = await done();
    }
    const ours = performance.now() - started;
    const wanted = Array.from({ length: CONFIGURATIONS }, (_, n) => CONFIGURATIONS - n).join(' ');
    if (state.runs !== CONFIGURATIONS || state.turns !== wanted) throw new Error(`due at once: ${JSON.stringify(state)}`);

    await quiet(db);
    const sessions = await Promise.all([1, 2, 3, 4].map(() => Database.connect(db.name)));
    started = performance.now();
    await Promise.all(sessions.map(async (session, n) => {
      for (let c = n + 1; c <= CONFIGURATIONS; c += 4) await session.rows(`call flohsync.sync('m${c}', 'user')`);
    }));
    measured.push({ ours, base: performance.now() - started });
    await Promise.all(sessions.map((session) => session.close()));
  }
  figures.add(`${CONFIGURATIONS} configurations due at once, against four sessions with CALL sync; none lost, in order`,
    { unit: 'ms', rounds: measured });
}

export async function processes(figures, { listing, rounds }) {
  await listing.resize(1000);
  const db = await Database.create('processes', listing);
  await addConnectors(db, listing, CONFIGURATIONS);
  const admin = await Database.connect('postgres');
  await db.close();
  await idle(figures, admin, 'processes');
  const again = await Database.connect('processes');
  await triggered(figures, again, listing, rounds * 10);
  await allAtOnce(figures, again, rounds);
  await again.drop();
  await admin.close();
}

// Milliseconds of processor time that the launcher takes for one look at its databases.
async function cycle(admin, seconds) {
  const launcher = await processOf(admin, 'flohsync launcher');
  const from = cpuSeconds(launcher);
  await sleep(seconds * 1000);
  return ((cpuSeconds(launcher) - from) * 1000) / seconds;
}

// A cluster of its own, whose launcher looks once a second.
export async function manyDatabases(figures, { host, listing, databases }) {
  process.env.PGHOST = host;
  const db = await Database.create('d0', listing);
  await addConnectors(db, listing, 10);
  await db.close();
  const admin = await Database.connect('postgres');
  await quiet(admin);
  for (let i = 1; i < databases; i++) await admin.run(`create database d${i} template d0`);
  await quiet(admin);
  figures.add(`launcher's cycle, ${databases} databases with 10 configurations each; processor time`, {
    unit: 'ms', rounds: [{ ours: await cycle(admin, 20) }], reach: (x) => x < 100, reachText: '< 100 ms',
  });

  // All of them due at once, as after a start.
  const launcher = await processOf(admin, 'flohsync launcher');
  await admin.run(`alter system set flohsync.enabled = off`);
  await admin.run('select pg_reload_conf()');
  await sleep(1500);
  await quiet(admin);
  const from = cpuSeconds(launcher);
  await admin.run(`alter system set flohsync.enabled = on`);
  await admin.run('select pg_reload_conf()');
  while ((await workers(admin)) === 0) await sleep(2);
  const started = performance.now();
  const seconds = ((await quiet(admin)) - started) / 1000;
  figures.add(`all ${databases} databases looked at, as after a start`, { unit: 's', rounds: [{ ours: seconds }] });
  figures.add('of that, processor time of the launcher', { unit: 'ms', rounds: [{ ours: (cpuSeconds(launcher) - from) * 1000 }] });
  await admin.close();
}
