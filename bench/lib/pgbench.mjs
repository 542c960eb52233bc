// pgbench: so many sessions, each of which calls a script so many times.
import { execFile } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { children, childrenSeconds } from './process.mjs';

// Seconds of a call as one of the clients sees it, calls in a second, and seconds of processor time in the server.
export async function pgbench(db, script, { clients, calls, waiting = true }) {
  const postmaster = Number((await db.one(`select split_part(pg_read_file('postmaster.pid'), E'\\n', 1) as pid`)).pid);
  const there = new Set(children(postmaster));
  const before = childrenSeconds(postmaster);
  const { stdout } = await promisify(execFile)('pgbench', ['-n', '-M', 'prepared', '-c', String(clients), '-j', String(Math.min(clients, 2)),
    '-t', String(calls), '-f', script, db.name], { env: { ...process.env, PGOPTIONS: `-c synchronous_commit=${waiting ? 'on' : 'off'}` } });
  const number = (pattern) => Number(pattern.exec(stdout)?.[1]);
  const done = number(/processed: (\d+)\//);
  if (done !== clients * calls) throw new Error(`pgbench: ${stdout}`);
  // Its sessions have ended when the postmaster has no children but those of before.
  while (children(postmaster).some((pid) => !there.has(pid))) await sleep(5);
  return {
    perSecond: number(/tps = ([\d.]+)/),
    seconds: number(/latency average = ([\d.]+) ms/) / 1000,
    cpu: (childrenSeconds(postmaster) - before) / done,
  };
}
