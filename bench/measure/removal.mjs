// What it takes to remove a configuration whose records stay.

const MB = 1024 * 1024;

export async function removal(figures, { db, records }) {
  const { n } = await db.one('select count(*) as n from flohsync.connector_resource');
  await db.settle('flohsync.resource_record');
  const wal = await db.walPosition();
  const started = performance.now();
  await db.run(`select flohsync.delete_sync_config('upstream', 'record')`);
  const seconds = (performance.now() - started) / 1000;
  const bytes = (await db.walPosition()) - wal;
  if ((await db.one('select count(*) as n from flohsync.connector_resource')).n !== n) throw new Error('records have gone');
  figures.add(`delete_sync_config, ${records} records, WAL`, { unit: 'MB', rounds: [{ ours: bytes / MB }], reach: (x) => x < 1, reachText: '< 1 MB' });
  figures.add('  time', { unit: 's', rounds: [{ ours: seconds }] });
}
