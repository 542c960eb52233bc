// The figures: collected by the measurements, printed as one table, kept as JSON.

// Stages of a run, as sync_run.timings has them; "read" is parsing, canonical form and hash.
const STAGES = ['fetch', 'read', 'lookup', 'write', 'ledger', 'commit', 'settle'];

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

// A number as a reader wants it: three digits, thousands apart.
export function short(value) {
  if (value === null || value === undefined) return '';
  const magnitude = Math.abs(value);
  const digits = magnitude >= 100 || Number.isInteger(value) ? 0 : magnitude >= 10 ? 1 : magnitude >= 0.1 ? 2 : 4;
  return value.toFixed(digits).replace(/\B(?=(\d{3})+(\.|$))(?<!\.\d*)/g, ',');
}

export class Figures {
  list = [];
  stageList = [];

  // A figure with its rounds: each has ours and mostly base, in unit.  What
  // reach and stretch judge is the median of judge(round): by default of ours
  // against base, or of ours alone.  reachText says it in words.
  add(title, { unit, rounds, judge, reach, stretch, reachText }) {
    const paired = rounds[0].base !== undefined;
    const ratio = (r) => r.ours / r.base;
    const judged = median(rounds.map(judge ?? (paired ? ratio : (r) => r.ours)));
    const figure = {
      title,
      unit,
      flohsync: median(rounds.map((r) => r.ours)),
      baseline: paired ? median(rounds.map((r) => r.base)) : null,
      ratio: paired ? median(rounds.map(ratio)) : null,
      reach: reachText ?? null,
      reached: reach ? reach(judged) : null,
      stretchReached: stretch ? stretch(judged) : null,
      rounds,
    };
    this.list.push(figure);
    console.error(`         ${title}: ${short(figure.flohsync)} ${unit}` +
      (paired ? `, baseline ${short(figure.baseline)}, ratio ${short(figure.ratio)}` : ''));
  }

  // Where the time of runs went, in µs per record; "other" is what no stage counts.
  stages(title, records, runs) {
    const perRecord = (ms) => (ms * 1000) / records;
    const split = {};
    for (const stage of STAGES) split[stage] = median(runs.map((run) => perRecord(run.timings[`${stage}Ms`])));
    const sum = STAGES.reduce((total, stage) => total + split[stage], 0);
    const whole = median(runs.map((run) => perRecord(run.seconds * 1000)));
    this.stageList.push({ title, ...split, other: Math.max(0, whole - sum), whole });
  }

  print() {
    const rows = [['figure', 'unit', 'flohsync', 'baseline', 'ratio', 'reach', '']];
    for (const f of this.list) {
      rows.push([f.title, f.unit, short(f.flohsync), short(f.baseline), short(f.ratio), f.reach ?? '',
        f.reached === null ? '' : f.stretchReached ? 'stretch' : f.reached ? 'yes' : 'NO']);
    }
    table(rows, [2, 3, 4]);
    if (!this.stageList.length) return;
    console.log('\nStages, µs/record (read is parsing, canonical form and hash; other is starting and ending the run):');
    const names = [...STAGES, 'other', 'whole'];
    table([['', ...names], ...this.stageList.map((s) => [s.title, ...names.map((name) => s[name].toFixed(2))])],
      names.map((_, i) => i + 1));
  }
}

// Prints rows under their head; the columns in `right` are numbers.
function table(rows, right) {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const line = (row) => row.map((cell, column) =>
    right.includes(column) ? cell.padStart(widths[column]) : cell.padEnd(widths[column])).join('  ').trimEnd();
  console.log(line(rows[0]));
  console.log(widths.map((width) => '-'.repeat(width)).join('  '));
  for (const row of rows.slice(1)) console.log(line(row));
}
