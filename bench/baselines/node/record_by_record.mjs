// A sync as a service outside the database does it: fetch a page, and for each
// record compare its hash with the stored one; insert, update, or just note
// that it was seen.  One statement at a time, each its own transaction.
import { createHash } from 'node:crypto';
import { canonical } from './canonical.mjs';

const FIND = { name: 'find', text: `select id, sync_hash, stale_since from bench.node_record
  where external_id = $1 and resource_type = 'record' and connector_id = $2` };
const INSERT = { name: 'insert', text: `insert into bench.node_record
  (connector_id, resource_type, external_id, display_name, email, attributes, sync_hash, observed_at)
  values ($1, 'record', $2, $3, $4, $5, $6, now())` };
const UPDATE = { name: 'update', text: `update bench.node_record
  set display_name = $2, email = $3, attributes = $4, sync_hash = $5, observed_at = now(), stale_since = null where id = $1` };
const TOUCH = { name: 'touch', text: 'update bench.node_record set observed_at = now(), stale_since = null where id = $1' };

export async function recordByRecord(db, upstream, pages) {
  const { client, connector } = db;
  const outcome = { records: 0, added: 0, updated: 0, unchanged: 0 };
  const started = performance.now();
  await upstream.walk(async (body) => {
    for (const record of JSON.parse(body).payload.resources) {
      const { externalId, displayName, email } = record;
      const attributes = JSON.stringify(record.attributes);
      const hash = createHash('sha256').update(canonical(record)).digest('hex');
      const stored = (await client.query({ ...FIND, values: [externalId, connector] })).rows[0];
      outcome.records++;
      if (!stored) {
        await client.query({ ...INSERT, values: [connector, externalId, displayName, email, attributes, hash] });
        outcome.added++;
      } else if (stored.sync_hash !== hash) {
        await client.query({ ...UPDATE, values: [stored.id, displayName, email, attributes, hash] });
        outcome.updated++;
      } else {
        await client.query({ ...TOUCH, values: [stored.id] });
        outcome.unchanged++;
      }
    }
  }, pages);
  return { ...outcome, seconds: (performance.now() - started) / 1000 };
}
