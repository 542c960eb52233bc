// pgbench: so many sessions, each of which calls a script so many times.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { childrenSeconds } from './process.mjs';

// Seconds of a call as one of the clients sees it, calls in a second, and seconds of processor time in the server.
export async function pgbench(db, script, { clients, calls, waiting = true }) {
  const postmaster = Number((await db.one(`select split_part(pg_read_file('postmaster.pid'), E'\\n', 1) as pid`)).pid);
  const before = childrenSeconds(postmaster);
  const { stdout } = await promisify(execFile)('pgbench', ['-n', '-M', 'prepared', '-c', String(clients), '-j', String(Math.min(clients, 2)),
    '-t', String(calls), '-f', script, db.name], { env: { ...process.env, PGOPTIONS: `-c synchronous_commit=${waiting ? 'on' : 'off'}` } });
  const number = (pattern) => Number(pattern.exec(stdout)?.[1]);
  const done = number(/processed: (\d+)\//);
  if (done !== clients * calls) throw new Error(`pgbench: ${stdout}`);
  // The sessions are gone once nobody sees them.
  while ((await db.rows(`select from pg_stat_activity where application_name = 'pgbench'`)).length) await new Promise((resolve) => setTimeout(resolve, 5));
  return {
    perSecond: number(/tps = ([\d.]+)/),
    seconds: number(/latency average = ([\d.]+) ms/) / 1000,
    cpu: (childrenSeconds(postmaster) - before) / done,
  };
}
