// wrk, with requests that were made beforehand (wrk.lua).
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const script = fileURLToPath(new URL('wrk.lua', import.meta.url));

// A request as it goes over the wire.
export function raw(method, path, headers, body = '') {
  const lines = Object.entries({ Host: '127.0.0.1', ...headers, ...(body ? { 'Content-Length': Buffer.byteLength(body) } : {}) }).map(([k, v]) => `${k}: ${v}\r\n`);
  return `${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n${body}`;
}

// Writes requests for wrk().
export function store(file, requests) {
  writeFileSync(file, Buffer.concat(requests.flatMap((r) => [Buffer.from(`${Buffer.byteLength(r)}\n`), Buffer.from(r)])));
}

// The requests of a file, again and again (or once each), for so many seconds.  Latencies are in milliseconds.
// An answer that is no success ends the benchmark.
export async function wrk(port, file, { connections, seconds, once = false }) {
  const { stdout } = await promisify(execFile)('wrk', ['-t1', `-c${connections}`, `-d${seconds}s`, '--timeout', '30s', '-s', script,
    `http://127.0.0.1:${port}/`, '--', file, ...(once ? ['once'] : [])]);
  const result = JSON.parse(/^\{.*\}$/m.exec(stdout)[0]);
  if (result.statuses || result.errors || !result.requests) throw new Error(`wrk: ${stdout}`);
  return { ...result, perSecond: result.requests / result.seconds };
}
