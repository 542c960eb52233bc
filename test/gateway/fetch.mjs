// fetch.mjs: node's own fetch as a client; URL, MANAGER and READER (tokens) and UPSTREAM in the
// environment.
import { check, is } from './check.mjs';

const { URL: base, MANAGER, READER, UPSTREAM } = process.env;

async function ask(method, path, { token = MANAGER, body, headers = {} } = {}) {
  const answer = await fetch(base + path, {
    method,
    headers: {
      ...(token && { Authorization: `Bearer ${token}` }),
      ...(body && { 'Content-Type': 'application/json' }),
      ...headers,
    },
    body: body && JSON.stringify(body),
  });
  const text = await answer.text();
  return { status: answer.status, headers: answer.headers, json: text ? JSON.parse(text) : null };
}

let a = await ask('POST', '/api/connectors', {
  body: { name: 'fetched', kind: 'command', config: { url: UPSTREAM, commands: ['listUsers'] } },
});
is(a.status, 201, 'a connector is created');
const one = a.headers.get('Location');
is(one, `/api/connectors/${a.json.id}`, 'with its place');
is((await ask('PUT', `${one}/sync-config/user`, { body: {} })).status, 201, 'and configured');
a = await ask('POST', `${one}/sync-config/user/trigger`, { body: {} });
is([a.status, a.json.stats.added], [200, 60], 'a run is awaited');

// All records, page by page
const seen = new Set();
let next = '';
for (;;) {
  a = await ask('GET', `${one}/resources?pageSize=7${next && `&after=${encodeURIComponent(next)}`}`, { token: READER });
  a.json.data.forEach((r) => seen.add(r.externalId));
  next = a.json.nextAfter;
  if (next === null) break;
}
is(seen.size, 60, 'all records are read, page by page');

a = await ask('GET', one);
const etag = a.headers.get('ETag');
is((await ask('GET', one, { headers: { 'If-None-Match': etag } })).status, 304, 'what is known is not sent again');
is((await ask('PUT', one, { body: { description: 'é — 漢字 🙂' }, headers: { 'If-Match': etag } })).json.description,
  'é — 漢字 🙂', 'a change with an ETag');
is((await ask('PUT', one, { body: { description: 'b' }, headers: { 'If-Match': etag } })).status, 412, 'but not a second one with it');

// Many at once, on whatever connections
const many = await Promise.all(
  Array.from({ length: 100 }, (_, i) => ask('GET', `${one}/resources/user/user-${String((i % 60) + 1).padStart(7, '0')}`)),
);
check(many.every((r, i) => r.status === 200 && r.json.externalId.endsWith(String((i % 60) + 1).padStart(7, '0'))),
  'each of a hundred at once gets its own answer', many.map((r) => r.status));

// Errors
is([(await ask('GET', one, { token: null })).status, (await ask('GET', one, { token: `${READER}x` })).status], [401, 401], 'no token, a wrong one');
a = await ask('DELETE', one, { token: READER });
is([a.status, a.json.code, Object.keys(a.json).sort().join()], [403, '42501', 'code,details,hint,message'], 'a reader may not remove it');
a = await ask('GET', `${one}/resources?pageSize=many`);
check(a.status === 400 && a.json.message.includes('"pageSize"'), 'what is wrong is named', a);

// Events, by hand: what a client does that can set headers
const controller = new AbortController();
const stream = await fetch(`${base}/api/events`, { headers: { Authorization: `Bearer ${READER}` }, signal: controller.signal });
is(stream.headers.get('Content-Type'), 'text/event-stream', 'events are a stream');
const run = (await ask('POST', `${one}/sync-config/user/trigger?wait=false`)).json.runId;
let text = '';
try {
  for await (const piece of stream.body.pipeThrough(new TextDecoderStream())) {
    text += piece;
    if (text.includes(`event: run-end\ndata: {"id": ${run},`)) break;
  }
} finally {
  controller.abort();
}
check(text.includes(`"id": ${run},`), 'that tells of the end of a run', text);

is((await ask('DELETE', one)).status, 204, 'the connector is removed');
is((await ask('GET', one)).status, 404, 'and gone');
