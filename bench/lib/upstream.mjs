// The test server as the benchmark uses it (test/upstream): how many records it
// has, changes, and the walk over its pages.
import http from 'node:http';

export const PAGE = 500;

export class Upstream {
  constructor(port) {
    this.url = `http://127.0.0.1:${port}/`;
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  }

  // One request; the answer's body as a Buffer.
  request(path, body) {
    return new Promise((resolve, reject) => {
      const request = http.request(this.url + path, { method: 'POST', agent: this.agent }, (response) => {
        const parts = [];
        response.on('data', (part) => parts.push(part));
        response.on('error', reject);
        response.on('end', () => {
          const whole = Buffer.concat(parts);
          if (response.statusCode === 200) resolve(whole);
          else reject(new Error(`upstream answers ${response.statusCode}: ${whole.toString().slice(0, 200)}`));
        });
      });
      request.on('error', reject);
      request.end(body);
    });
  }

  async control(action, args) {
    return JSON.parse(await this.request(`_control/${action}?${new URLSearchParams(args)}`));
  }

  // The next page's cursor, read from the end of a page: quicker than parsing it all.
  static nextCursor(body) {
    return /"nextCursor":"([^"]*)"/.exec(body.subarray(-200).toString())?.[1];
  }

  page(cursor) {
    return this.request('', JSON.stringify({ command: 'listUsers', pageSize: PAGE, cursor }));
  }

  // Calls visit(body) for the first `limit` pages, each asked for while the one before is visited.
  async walk(visit, limit = Infinity) {
    let next = this.page();
    for (let n = 1; next; n++) {
      const body = await next;
      const cursor = Upstream.nextCursor(body);
      next = cursor && n < limit ? this.page(cursor) : null;
      await visit(body, n);
    }
  }

  // Has the server render and keep all pages, so that no pass pays for that.
  warm() {
    return this.walk(() => {});
  }

  async resize(records) {
    await this.control('records', { user: records });
    await this.warm();
  }

  // "change" or "delete": does that to a fraction of the records; which, the seed says.
  async alter(action, fraction, seed) {
    const { count } = await this.control(action, { type: 'user', fraction, seed, list: 0 });
    await this.warm();
    return count;
  }
}
