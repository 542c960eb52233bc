// A directory of SCIM-shaped users, served twice from memory: as SCIM lists it,
// and in the command protocol, with as many bytes a record.
import http from 'node:http';

const PAGE = 500;
const RECORD_BYTES = 700;

const padded = (make) => make('x'.repeat(RECORD_BYTES - Buffer.byteLength(make(''))));

function user(i) {
  const id = `2819c223-7f76-453a-919d-${String(i).padStart(12, '0')}`;
  const name = `user${i}`;
  return {
    id, userName: `${name}@example.org`,
    name: { formatted: `Ms. Barbara ${name} Jensen III`, familyName: 'Jensen', givenName: `Barbara ${name}` },
    active: i % 20 !== 0,
    emails: [{ value: `${name}@home.example`, type: 'home' }, { value: `${name}@example.org`, type: 'work', primary: true }],
    phoneNumbers: [{ value: `tel:+1-201-555-${i % 10000}`, type: 'work' }],
    groups: [{ value: `e9e30dba-f08f-4109-8486-${String(i % 97).padStart(12, '0')}`, display: `Group ${i % 97}` }],
    meta: { resourceType: 'User', created: '2024-01-23T04:56:22Z', lastModified: '2024-05-13T04:42:34Z' },
  };
}

const scimRecord = (i) => padded((title) => JSON.stringify({ ...user(i), title }));
const commandRecord = (i) => {
  const { id, userName, emails, ...attributes } = user(i);
  return padded((title) => JSON.stringify({
    externalId: id, displayName: userName, email: emails[1].value, attributes: { emails, ...attributes, title },
  }));
};

export class Directory {
  static async start(records) {
    const directory = new Directory();
    directory.pages = { scim: [], command: [] };
    for (let from = 0; from < records; from += PAGE) {
      const to = Math.min(from + PAGE, records);
      const list = (make) => Array.from({ length: to - from }, (_, i) => make(from + i)).join(',');
      directory.pages.scim.push(Buffer.from(
        `{"schemas":["urn:ietf:params:scim:api:messages:2.0:ListResponse"],"totalResults":${records},"startIndex":${from + 1},` +
        `"itemsPerPage":${to - from},"Resources":[${list(scimRecord)}]}`));
      directory.pages.command.push(Buffer.from(
        `{"success":true,"payload":{"resources":[${list(commandRecord)}]${to < records ? `,"nextCursor":"${to}"` : ''},"totalEstimate":${records}}}`));
    }
    // Whoever doubts the total asks for the page behind the end.
    directory.behind = Buffer.from(`{"schemas":[],"totalResults":${records},"startIndex":${records + 1},"itemsPerPage":0,"Resources":[]}`);
    directory.server = http.createServer((request, response) => directory.answer(request, response));
    await new Promise((resolve) => directory.server.listen(0, '127.0.0.1', resolve));
    directory.url = `http://127.0.0.1:${directory.server.address().port}/`;
    return directory;
  }

  answer(request, response) {
    const send = (page) => {
      response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': page.length });
      response.end(page);
    };
    if (request.method === 'GET') {
      const start = Number(new URL(request.url, this.url).searchParams.get('startIndex'));
      return send(this.pages.scim[(start - 1) / PAGE] ?? this.behind);
    }
    let body = '';
    request.on('data', (part) => { body += part; });
    request.on('end', () => send(this.pages.command[Number(JSON.parse(body).cursor ?? 0) / PAGE]));
  }

  stop() {
    this.server.closeAllConnections();
    return new Promise((resolve) => this.server.close(resolve));
  }
}

export const definition = {
  version: 1,
  base_url: '{{config.url}}',
  resources: {
    record: {
      list: {
        path: '/Users', records: '$.Resources[*]', total: '$.totalResults', page_size: { param: 'count', default: PAGE, max: PAGE },
        pagination: { type: 'offset', param: 'startIndex', base: 1 },
      },
      map: {
        externalId: '$.id', displayName: ['$.displayName', '$.userName'],
        email: ['$.emails[*] ? (@.primary == true).value', '$.emails[0].value'],
        attributes: '$', exclude: ['schemas', 'id', 'userName', 'meta'],
      },
    },
  },
};
