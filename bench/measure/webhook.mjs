// A webhook, verified, stored and committed, against the bare upsert of the
// same row; and what matching and mapping the record adds.
import { createHmac, randomBytes } from 'node:crypto';
import { Database } from '../lib/database.mjs';

const RECORDS = 20000;
const CALLS = 400;

const query = `select null::text as external_id, null::text as display_name, null::text as email, null::jsonb as attributes where false`;
const record = (i, version) => ({
  displayName: `Person ${i}, version ${version}`, email: `person.${i}@acme.example`,
  attributes: { department: `D${i % 100}`, title: 'Engineer', employeeId: `E${i}`, address: { city: 'Zurich', zip: '8001' }, groups: ['g-1', 'g-2'], locale: 'de_CH', version },
});

async function prepare(secret) {
  const admin = await Database.connect('postgres');
  await admin.run('drop database if exists webhook with (force)');
  await admin.run('create database webhook');
  await admin.close();
  const db = await Database.connect('webhook');
  await db.run('create extension flohsync');
  await db.rows(`select flohsync.create_connector('hooks', 'sql', jsonb_build_object('queries', jsonb_build_object('record', $1::text)))`, [query]);
  await db.run(`select flohsync.configure_sync('hooks', 'record', '{}')`);
  await db.run(`select flohsync.configure_sync('hooks', 'user', '{"attributeMappings": [{"sourcePath": "attributes.version", "targetField": "title", "writeMode": "overwrite_always"}]}')`);
  await db.rows(`select flohsync.set_secret('hooks', 'webhook', $1)`, [`whsec_${secret.toString('base64')}`]);
  for (const type of ['record', 'user'])
    await db.rows('select flohsync.upsert_resources($1, $2, $3)', ['hooks', type,
      JSON.stringify(Array.from({ length: RECORDS }, (_, i) => ({ externalId: `u-${i}`, ...record(i, 0) })))]);
  await db.rows(`insert into flohsync.floh_user (iss, sub, email, display_name, confirmed)
    select 'https://idp.example', md5(g::text), 'person.' || g || '@acme.example', 'Person ' || g, true from generate_series(0, $1::int - 1) g`, [RECORDS]);
  await db.run(`select flohsync.match_users('hooks', 'user')`);
  await db.settle('flohsync.resource_record', 'flohsync.connector_sync_match', 'flohsync.floh_user');
  return db;
}

export async function webhook(figures, { rounds }) {
  const secret = randomBytes(32);
  const db = await prepare(secret);
  let sent = 0;
  const call = (name, text, values) => db.client.query({ name, text, values });
  const written = (i, version) => JSON.stringify({ externalId: `u-${i}`, ...record(i, version) });
  const upsert = (type, text) => call('upsert', 'select flohsync.upsert_resource($1, $2, $3) as outcome', ['hooks', type, text]);
  // What the sender does, who signs, is not part of it.
  const delivery = (type, i, version) => {
    const body = JSON.stringify({ action: 'updated', resourceId: `u-${i}`, resourceType: type, data: record(i, version) });
    const id = `msg_${++sent}`;
    const at = String(Math.floor(Date.now() / 1000));
    const headers = {
      'webhook-id': id, 'webhook-timestamp': at, 'content-type': 'application/json',
      'webhook-signature': `v1,${createHmac('sha256', secret).update(`${id}.${at}.${body}`).digest('base64')}`,
    };
    return [Buffer.from(body), JSON.stringify(headers)];
  };
  const receive = ([body, headers]) => call('receive', 'select flohsync.receive_webhook($1, $2, $3) as answer', ['hooks', body, headers]);
  // One after the other, row by row, so that what disturbs one disturbs the other.
  async function measure(type) {
    const seconds = { ours: 0, base: 0 };
    for (let n = 0; n < CALLS; n++) {
      const i = (n * 7919) % RECORDS;
      const text = written(i, ++sent);
      const message = delivery(type, i, ++sent);
      let from = performance.now();
      const base = await upsert(type, text);
      seconds.base += (performance.now() - from) / 1000;
      from = performance.now();
      const ours = await receive(message);
      seconds.ours += (performance.now() - from) / 1000;
      if (base.rows[0].outcome !== 'updated' || !ours.rows[0].answer.changed) throw new Error(`${base.rows[0].outcome}, ${JSON.stringify(ours.rows[0].answer)}`);
    }
    return { ours: (seconds.ours * 1e6) / CALLS, base: (seconds.base * 1e6) / CALLS };
  }
  await measure('record');
  const durable = [];
  const quick = [];
  const people = [];
  for (let i = 0; i < rounds; i++) {
    durable.push(await measure('record'));
    await db.run('set synchronous_commit = off');
    quick.push(await measure('record'));
    people.push(await measure('user'));
    await db.run('reset synchronous_commit');
  }
  figures.add('webhook, verified, stored and committed, against the bare upsert of the row', {
    unit: 'µs', rounds: durable, reach: (x) => x <= 1.3, reachText: '<= 1.3',
  });
  figures.add('  without waiting for the disk', { unit: 'µs', rounds: quick });
  figures.add('  matched and mapped as well, without waiting for the disk', { unit: 'µs', rounds: people });
  await db.drop();
}
