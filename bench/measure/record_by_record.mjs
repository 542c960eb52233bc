// A program that syncs record by record (../baselines/node), against flohsync's
// unchanged pass.  It sees some of the records; its time is per record.
import { recordByRecord } from '../baselines/node/record_by_record.mjs';
import { PAGE } from '../lib/upstream.mjs';

// passes are flohsync's unchanged passes over all the records.
export async function againstRecordByRecord(figures, { db, listing, records, passes }) {
  const pages = Math.max(4, Math.round(records / 20 / PAGE));
  await db.run(`call bench.make_table('node_record', 95)`);
  const first = await recordByRecord(db, listing, pages);
  await db.settle('bench.node_record');
  const rounds = [];
  for (const pass of passes) {
    const run = await recordByRecord(db, listing, pages);
    if (run.unchanged !== run.records) throw new Error(`not an unchanged pass: ${JSON.stringify(run)}`);
    rounds.push({ ours: records / pass.seconds, base: run.records / run.seconds });
  }
  figures.add('unchanged pass, against Node.js record by record', {
    unit: 'records/s', rounds, reach: (x) => x >= 60, stretch: (x) => x >= 100, reachText: '>= 60 (100)',
  });
  figures.add('first load by Node.js record by record', { unit: 'records/s', rounds: [{ ours: first.records / first.seconds }] });
}
