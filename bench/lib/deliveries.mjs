// Webhooks as their senders make them: signed as Standard Webhooks wants it, and made
// beforehand, since signing is not what is measured.
import { createHmac, randomBytes } from 'node:crypto';
import { Database } from './database.mjs';

export const RECORDS = 20000;

export const record = (i, version) => ({
  displayName: `Person ${i}, version ${version}`, email: `person.${i}@acme.example`,
  attributes: { department: `D${i % 100}`, title: 'Engineer', employeeId: `E${i}`, address: { city: 'Zurich', zip: '8001' }, groups: ['g-1', 'g-2'], locale: 'de_CH', version },
});

export class Sender {
  constructor() {
    this.key = randomBytes(32);
    this.secret = `whsec_${this.key.toString('base64')}`;
    this.sent = 0;
    this.run = randomBytes(6).toString('hex');
  }

  // One change of one of the records, each time of another one.
  delivery(type) {
    const version = ++this.sent;
    const i = (version * 7919) % RECORDS;
    const body = JSON.stringify({ action: 'updated', resourceId: `u-${i}`, resourceType: type, data: record(i, version) });
    const id = `msg_${this.run}_${version}`;
    const at = String(Math.floor(Date.now() / 1000));
    const headers = {
      'webhook-id': id, 'webhook-timestamp': at, 'content-type': 'application/json',
      'webhook-signature': `v1,${createHmac('sha256', this.key).update(`${id}.${at}.${body}`).digest('base64')}`,
    };
    return { body, headers };
  }

  // Keeps so many deliveries in table bench.message, numbered from 1, and starts counting anew.
  async store(db, type, count) {
    await db.run('truncate bench.message');
    for (let n = 0; n < count; n += 1000) {
      const some = Array.from({ length: Math.min(1000, count - n) }, () => this.delivery(type));
      await db.rows('insert into bench.message select $1::int + row_number() over (), convert_to(b, \'UTF8\'), h from unnest($2::text[], $3::jsonb[]) as m(b, h)',
        [n, some.map((s) => s.body), some.map((s) => JSON.stringify(s.headers))]);
    }
    await db.run(`select setval('bench.turn', 1, false)`);
    await db.settle('bench.message');
  }
}

// A database "name" with a connector that takes these webhooks for RECORDS records and as many people, and
// table bench.hook_record, of the kind of flohsync.resource_record and with the same rows.
export async function receiver(name, sender) {
  const admin = await Database.connect('postgres');
  await admin.run(`drop database if exists ${name} with (force)`);
  await admin.run(`create database ${name}`);
  await admin.close();
  const db = await Database.connect(name);
  await db.run('create extension flohsync');
  const query = 'select null::text as external_id, null::text as display_name, null::text as email, null::jsonb as attributes where false';
  await db.rows(`select flohsync.create_connector('hooks', 'sql', jsonb_build_object('queries', jsonb_build_object('record', $1::text)))`, [query]);
  db.connector = (await db.one('select id from flohsync.connector_definition')).id;
  await db.run(`select flohsync.configure_sync('hooks', 'record', '{}')`);
  await db.run(`select flohsync.configure_sync('hooks', 'user', '{"attributeMappings": [{"sourcePath": "attributes.version", "targetField": "title", "writeMode": "overwrite_always"}]}')`);
  await db.rows(`select flohsync.set_secret('hooks', 'webhook', $1)`, [sender.secret]);
  for (const type of ['record', 'user'])
    await db.rows('select flohsync.upsert_resources($1, $2, $3)', ['hooks', type,
      JSON.stringify(Array.from({ length: RECORDS }, (_, i) => ({ externalId: `u-${i}`, ...record(i, 0) })))]);
  await db.rows(`insert into flohsync.floh_user (iss, sub, email, display_name, confirmed)
    select 'https://idp.example', md5(g::text), 'person.' || g || '@acme.example', 'Person ' || g, true from generate_series(0, $1::int - 1) g`, [RECORDS]);
  await db.run(`select flohsync.match_users('hooks', 'user')`);
  await db.load('tables.sql');
  await db.run(`call bench.make_table('hook_record', 90);
    insert into bench.hook_record select * from flohsync.resource_record where resource_type = 'record';
    create table bench.message (n int primary key, body bytea not null, headers jsonb not null);
    create sequence bench.turn`);
  await db.settle('flohsync.resource_record', 'flohsync.connector_sync_match', 'flohsync.floh_user', 'bench.hook_record');
  return db;
}
