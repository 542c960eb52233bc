// A webhook, verified, stored and committed, against an INSERT … ON CONFLICT of the
// same row into a table of the same kind, by one and by eight sessions; and what
// matching and mapping the record adds.
import { fileURLToPath } from 'node:url';
import { receiver, Sender } from '../lib/deliveries.mjs';
import { pgbench } from '../lib/pgbench.mjs';

const script = (name) => fileURLToPath(new URL(`../baselines/${name}.sql`, import.meta.url));
const CALLS = { 1: 4000, 8: 1500 };

export async function webhook(figures, { rounds, small }) {
  const sender = new Sender();
  const db = await receiver('webhook', sender);

  async function pair(type, clients, waiting) {
    const calls = small ? CALLS[clients] / 10 : CALLS[clients];
    const run = async (name) => {
      await sender.store(db, type, calls * clients);
      const result = await pgbench(db, script(name), { clients, calls, waiting });
      if ((await db.one('select last_value as n from bench.turn')).n !== calls * clients) throw new Error(`${name}: not each message was taken once`);
      return result;
    };
    const version = (table) => db.one(`select count(*) as n from ${table} where resource_type = $1 and (attributes ->> 'version')::int > $2`, [type, before]);
    let before = sender.sent;
    const base = await run('upsert');
    if (type === 'record' && (await version('bench.hook_record')).n === 0) throw new Error('the baseline wrote nothing');
    before = sender.sent;
    const ours = await run('receive');
    // Of two messages about one record that were under way at once, either may have been the last.
    const { n } = await version('flohsync.resource_record');
    if (n < Math.min(calls * clients, 20000) * 0.99) throw new Error(`only ${n} records have a new version`);
    return { ours, base };
  }

  const add = (title, pairs, goal = {}) => {
    figures.add(title, { unit: 'µs', rounds: pairs.map((p) => ({ ours: 1e6 / p.ours.perSecond, base: 1e6 / p.base.perSecond })), ...goal });
    figures.add('  of that, processor time', { unit: 'µs', rounds: pairs.map((p) => ({ ours: p.ours.cpu * 1e6, base: p.base.cpu * 1e6 })) });
  };
  const measured = { one: [], eight: [], quick: [], people: [] };
  for (let i = 0; i < rounds; i++) {
    measured.one.push(await pair('record', 1, true));
    measured.eight.push(await pair('record', 8, true));
    measured.quick.push(await pair('record', 8, false));
    measured.people.push(await pair('user', 8, false));
  }
  add('webhook, verified, stored and committed, against INSERT … ON CONFLICT, one session', measured.one);
  add('  eight sessions', measured.eight, { reach: (x) => x <= 1.8, reachText: '<= 1.8' });
  add('  eight sessions, without waiting for the disk', measured.quick);
  add('  eight sessions, matched and mapped as well, without waiting for the disk', measured.people);
  await db.drop();
}
