// One run of flohsync, measured from outside: CALL flohsync.sync.
import { WorkerWatch } from './process.mjs';

const TABLE = 'flohsync.resource_record';
const OWN_STAGES = ['readMs', 'lookupMs', 'writeMs', 'ledgerMs', 'commitMs', 'settleMs'];

// Runs a sync.  seconds is what the caller of CALL waited; own is the time of
// the stages without the waiting for the upstream; cpu is the worker's.
export async function sync(db) {
  const side = await db.aside();
  const before = await side.tableState(TABLE);
  const wal = await side.walPosition();
  const watch = new WorkerWatch(side);
  const started = performance.now();
  await db.run(`call flohsync.sync('upstream', 'record')`);
  const seconds = (performance.now() - started) / 1000;
  const walBytes = (await side.walPosition()) - wal;
  await watch.stop();
  const after = await side.tableState(TABLE);
  const { stats, timings } = await db.one('select stats, timings from flohsync.sync_run order by id desc limit 1');
  return {
    seconds,
    records: stats.totalUpstreamRecords,
    stats,
    timings,
    own: OWN_STAGES.reduce((sum, stage) => sum + timings[stage], 0) / 1000,
    cpu: watch.cpu,
    memory: watch.peak,
    wal: walBytes,
    written: after.written - before.written,
    dead: after.dead - before.dead,
    growth: after.bytes - before.bytes,
  };
}

// A run in which nothing may have changed.
export async function syncUnchanged(db) {
  const run = await sync(db);
  if (run.stats.unchanged !== run.records) throw new Error(`not an unchanged pass: ${JSON.stringify(run.stats)}`);
  return run;
}
