// Makes random (expression, start, zone) triples with the three next instants
// that npm's cron-parser gives.  One line each, on standard output:
//
//	expression|start|zone|next1|next2|next3
//
// usage: node generate.mjs [COUNT [SEED [strict]]]
//
// The same COUNT and SEED give the same lines.  Run it in a directory where
// "npm install cron-parser@5" was done.  Triples the README lists as
// deliberate differences are left out, unless "strict" is given.
import { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(join(process.cwd(), 'generate.mjs'));
const { CronExpressionParser } = require('cron-parser');
const { DateTime } = require('luxon');

const count = Number(process.argv[2] ?? 1500);
const seed = Number(process.argv[3] ?? 1);
const strict = process.argv[4] === 'strict';

const ZONES = [
  'UTC', 'Etc/GMT+7', 'Asia/Kolkata', 'Asia/Tokyo', 'Asia/Kathmandu',
  'Europe/Berlin', 'Europe/London', 'Europe/Dublin', 'Europe/Lisbon',
  'Atlantic/Azores', 'Africa/Casablanca', 'Africa/Cairo',
  'America/New_York', 'America/St_Johns', 'America/Havana',
  'America/Santiago', 'America/Sao_Paulo', 'America/Nuuk', 'America/Asuncion',
  'Asia/Beirut', 'Asia/Tehran', 'Asia/Jerusalem',
  'Australia/Lord_Howe', 'Australia/Sydney', 'Australia/Adelaide',
  'Pacific/Auckland', 'Pacific/Chatham', 'Pacific/Easter', 'Pacific/Apia',
];
// Past years only: the rules of later ones may still change.
const FIRST_YEAR = 2007;
const LAST_YEAR = 2024;
const HOUR = 3600 * 1000;

// Repeatable random numbers: a linear congruential generator's high bits.
let state = BigInt(seed);
function random(n) {
  state = BigInt.asUintN(64, state * 6364136223846793005n + 1442695040888963407n);
  return Number(state >> 33n) % n;
}
const pick = (list) => list[random(list.length)];
const chance = (percent) => random(100) < percent;

const offsetAt = (zone, ms) => DateTime.fromMillis(ms, { zone }).offset;

// Changes at which cron-parser loses or repeats runs; see the README.
function isOdd(at, before, by) {
  const gone = new Date(at + before * 60 * 1000);
  const come = new Date(at + (before + by) * 60 * 1000);
  const hours = by % 60 === 0 && gone.getUTCMinutes() === 0;
  const newDay = by > 0 && gone.getUTCDate() !== come.getUTCDate();
  const midnightAgain = by < 0 && come.getUTCHours() === 0;
  return !hours || newDay || midnightAgain;
}

// Instants where the zone's offset changes, and by how much.
const changes = new Map();
for (const zone of ZONES) {
  const found = [];
  let ms = Date.UTC(FIRST_YEAR - 1, 11, 1);
  for (const end = Date.UTC(LAST_YEAR + 2, 0, 1); ms < end; ms += 24 * HOUR) {
    const before = offsetAt(zone, ms);
    if (before === offsetAt(zone, ms + 24 * HOUR)) continue;
    let low = ms, high = ms + 24 * HOUR;
    while (high - low > 1000) {
      const middle = Math.floor((low + high) / 2000) * 1000;
      if (offsetAt(zone, middle) === before) low = middle; else high = middle;
    }
    const by = offsetAt(zone, high) - before;
    found.push({ at: high, by: Math.abs(by) * 60 * 1000, odd: isOdd(high, before, by) });
  }
  changes.set(zone, found);
}

function value(min, max, names) {
  const n = min + random(max - min + 1);
  const name = names?.[n - min];
  return name && chance(40) ? (chance(50) ? name : name.toUpperCase()) : String(n);
}

function item(min, max, names) {
  const kind = random(10);
  if (kind < 4) return value(min, max, names);
  if (kind < 6) return `*/${1 + random(max)}`;
  const low = min + random(max - min + 1);
  const high = low + random(max - low + 1);
  if (kind < 8) return `${low}-${high}`;
  if (kind < 9) return `${low}-${high}/${1 + random(7)}`;
  return `${low}/${1 + random(max)}`;
}

function field(min, max, names, star) {
  if (chance(star)) return chance(90) ? '*' : '?';
  const items = [item(min, max, names)];
  while (chance(25)) items.push(item(min, max, names));
  return items.join(',');
}

const MONTHS = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec'];
const DAYS = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'];

function dayOfMonth() {
  if (chance(10)) return 'L';
  if (chance(5)) return `${1 + random(28)},L`;
  return field(1, 31, null, 60);
}

function dayOfWeek() {
  if (chance(10)) return `${pick([...DAYS, 0, 1, 5, 7])}#${1 + random(5)}`;
  if (chance(10)) return `${random(8)}L`;
  if (chance(5)) return `${random(3)},${3 + random(4)}L`;
  if (chance(10)) return chance(50) ? '7' : `${random(6)}-7`;
  return field(0, 6, DAYS, 60);
}

function expression() {
  if (chance(2)) return pick(['@yearly', '@monthly', '@weekly', '@daily', '@hourly', '@minutely', '@weekdays', '@weekends']);
  const fields = [
    field(0, 59, null, 20),
    chance(30) ? String(random(5)) : field(0, 23, null, 40),
    dayOfMonth(),
    field(1, 12, MONTHS, 70),
    dayOfWeek(),
  ];
  if (chance(20)) fields.unshift(field(0, 59, null, 20));
  return fields.join(' ');
}

function start(zone) {
  const near = changes.get(zone).filter(({ at }) => at < Date.UTC(LAST_YEAR + 1, 0, 1));
  let ms;
  if (near.length > 0 && chance(70))
    ms = pick(near).at + (random(52 * 60) - 50 * 60) * 60 * 1000 + random(60) * 1000;
  else
    ms = Date.UTC(FIRST_YEAR, 0, 1) + random(((LAST_YEAR + 1 - FIRST_YEAR) * 365)) * 24 * HOUR + random(86400) * 1000;
  return chance(10) ? ms + random(1000) : ms;
}

const instant = (ms) => new Date(ms).toISOString().replace(/\.000Z$/, 'Z');

function deliberate(text, zone, from, until) {
  // A list may not repeat a day even where a single month drops it.
  const fields = text.split(' ');
  if (fields.length > 1) {
    fields[fields.length - 2] = '*';
    try { CronExpressionParser.parse(fields.join(' ')); } catch { return true; }
  }
  return changes.get(zone).some(({ at, by, odd }) =>
    (from >= at && from < at + by) ||
    (odd && at > from - 24 * HOUR && at < until + 24 * HOUR));
}

const lines = [];
while (lines.length < count) {
  const text = expression();
  const zone = pick(ZONES);
  const from = start(zone);
  const next = [];
  try {
    const parsed = CronExpressionParser.parse(text, { currentDate: new Date(from), tz: zone });
    for (let i = 0; i < 3; i++) next.push(parsed.next().getTime());
  } catch {
    continue;
  }
  if (Math.max(...next) > Date.UTC(LAST_YEAR + 1, 6, 1)) continue;
  if (!strict && deliberate(text, zone, from, Math.max(...next))) continue;
  lines.push([text, instant(from), zone, ...next.map(instant)].join('|'));
}
process.stdout.write(lines.join('\n') + '\n');
