// Unchanged passes over a SCIM-shaped list, kind rest against kind command, pair
// by pair, with the same bytes a record.
import { Database } from '../lib/database.mjs';
import { definition, Directory } from '../lib/directory.mjs';
import { sync, syncUnchanged } from '../lib/sync.mjs';

async function loaded(name, directory, kind) {
  const db = await Database.create(name, directory);
  if (kind === 'rest') {
    await db.run(`select flohsync.drop_connector('upstream')`);
    await db.rows(`select flohsync.create_connector('upstream', 'rest', jsonb_build_object('url', $1::text), $2::jsonb)`,
      [directory.url, JSON.stringify(definition)]);
    await db.rows(`select flohsync.configure_sync('upstream', 'record', '{}')`);
  }
  const first = await sync(db);
  await db.settle('flohsync.resource_record');
  await syncUnchanged(db);
  return { db, first };
}

export async function restAgainstCommand(figures, { records, rounds }) {
  const directory = await Directory.start(records);
  const rest = await loaded('rest', directory, 'rest');
  const command = await loaded('command', directory, 'command');
  const measured = [];
  for (let i = 0; i < rounds; i++) measured.push({ rest: await syncUnchanged(rest.db), command: await syncUnchanged(command.db) });
  const rate = (run) => records / run.seconds;
  figures.add('SCIM-shaped pass, kind rest against command, same bytes', {
    unit: 'records/s', rounds: measured.map((r) => ({ ours: rate(r.rest), base: rate(r.command) })),
    reach: (x) => x >= 0.6, reachText: '>= 0.6',
  });
  figures.add('the same, processor time', {
    unit: 'µs/record', rounds: measured.map((r) => ({ ours: (r.rest.cpu / records) * 1e6, base: (r.command.cpu / records) * 1e6 })),
  });
  figures.add('SCIM-shaped first load, kind rest against command', {
    unit: 'records/s', rounds: [{ ours: rate(rest.first), base: rate(command.first) }],
  });
  figures.stages('SCIM-shaped pass, kind rest', records, measured.map((r) => r.rest));
  figures.stages('SCIM-shaped pass, kind command', records, measured.map((r) => r.command));
  await rest.db.drop();
  await command.db.drop();
  await directory.stop();
}
