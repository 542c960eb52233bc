// What the operating system says about a process.
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const TICKS = 100; // per second: USER_HZ of Linux

// Processor time so far, of all threads that are there, in seconds; null when the process is gone.
export function cpuSeconds(pid) {
  try {
    let sum = 0;
    for (const thread of readdirSync(`/proc/${pid}/task`)) sum += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').split(' ')[0]);
    return sum / 1e9;
  } catch {
    return null;
  }
}

// Processor time of a process so far, with that of threads that have ended, in seconds; in steps of a hundredth.
export function processSeconds(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').replace(/^.*\) /s, '').split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}

// Processor time of the children of a process that have ended, in seconds.
export function childrenSeconds(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').replace(/^.*\) /s, '').split(' ');
  return (Number(fields[13]) + Number(fields[14])) / TICKS;
}

// The children of a process.
export const children = (pid) => readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').trim().split(' ');

// All memory that it uses, with what it shares, in bytes.
export function residentBytes(pid) {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))[1]) * 1024;
}

// Memory of its own, without what it shares with other processes, in bytes.
export function privateBytes(pid) {
  try {
    return Number(/^RssAnon:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))[1]) * 1024;
  } catch {
    return 0;
  }
}

// Watches the worker of a database's run while it goes on.
export class WorkerWatch {
  constructor(db) {
    this.db = db;
    this.peak = 0;
    this.cpu = 0;
    this.going = true;
    this.done = this.watch();
  }

  async watch() {
    let pid;
    while (this.going && !pid) {
      pid = (await this.db.one(
        `select pid from pg_stat_activity where application_name ~ '^flohsync run' and datname = current_database()`))?.pid;
      if (!pid) await sleep(2);
    }
    while (this.going) {
      this.peak = Math.max(this.peak, privateBytes(pid));
      this.cpu = cpuSeconds(pid) ?? this.cpu;
      await sleep(10);
    }
  }

  // Ends with the last worker, which reports its statistics as it goes.
  async stop() {
    this.going = false;
    await this.done;
    while ((await this.db.rows(
      `select from pg_stat_activity where backend_type = 'flohsync worker' and datname = current_database()`)).length) await sleep(5);
  }
}
