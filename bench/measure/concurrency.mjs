// Passes over an upstream that takes its time: eight requests at a time against
// one, in turns. Each answer is held by the upstream, however many there are.
import { Database } from '../lib/database.mjs';
import { PAGE } from '../lib/upstream.mjs';

const LATENCY_MS = 100;

const map = { externalId: '$.externalId', displayName: '$.displayName', email: '$.email', attributes: '$.attributes' };

const definition = (concurrency) => ({
  version: 1,
  base_url: '{{config.url}}',
  concurrency,
  resources: {
    user: {
      list: {
        path: '/rest/offset/users', records: '$.items[*]', total: '$.total', page_size: { param: 'limit', default: PAGE },
        pagination: { type: 'offset', param: 'offset' },
      },
      map,
    },
    group: { list: { path: '/rest/link/groups', page_size: { param: 'limit', default: PAGE }, pagination: { type: 'link_header' } }, map },
    member: {
      for_each: { resource: 'group' },
      list: { path: '/rest/link/groups/{{parent.external_id}}/members', page_size: { param: 'limit', default: PAGE }, pagination: { type: 'link_header' } },
      map,
    },
  },
});

async function timed(db, connector, type) {
  const started = performance.now();
  await db.run(`call flohsync.sync('${connector}', '${type}')`);
  return (performance.now() - started) / 1000;
}

export async function concurrency(figures, { listing, records, groups, rounds }) {
  await listing.control('records', { user: records, group: groups });
  const db = await Database.create('concurrency', listing);
  for (const lanes of [1, 8]) {
    const name = `lanes${lanes}`;
    const d = definition(lanes);
    await db.rows(`select flohsync.create_connector($1, 'rest', jsonb_build_object('url', $2::text), $3::jsonb)`,
      [name, listing.url.replace(/\/$/, ''), JSON.stringify(d)]);
    for (const type of ['user', 'group', 'member']) await db.rows(`select flohsync.configure_sync($1, $2, '{}')`, [name, type]);
    // First loads are the same for both: here it is the waiting that is looked at.
    for (const type of ['user', 'group', 'member']) await timed(db, name, type);
  }
  await listing.control('fault', { kind: 'hang', ms: LATENCY_MS, page: '*', times: -1 });
  for (const [type, title, least] of [['member', `members of ${groups} groups`, 7.5], ['user', `${records} records by offset`, 7]]) {
    const measured = [];
    for (let i = 0; i < rounds; i++) {
      measured.push({ ours: await timed(db, 'lanes8', type), base: await timed(db, 'lanes1', type) });
    }
    figures.add(`${title} at ${LATENCY_MS} ms, eight requests at a time against one`, {
      unit: 's', rounds: measured, judge: (r) => r.base / r.ours, reach: (x) => x >= least, reachText: `>= ${least} times`,
    });
  }
  await listing.control('heal', {});
  await db.drop();
}
