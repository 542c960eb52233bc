// What the programs here share: what they find goes to standard output, one line
// each, for the test that runs them.
import { isDeepStrictEqual } from 'node:util';

export function check(ok, name, detail) {
  console.log(`${ok ? 'ok' : 'not ok'} ${name}`);
  if (!ok && detail !== undefined) console.log(`# ${JSON.stringify(detail)?.slice(0, 2000)}`);
  if (!ok) process.exitCode = 1;
}

export function is(found, wanted, name) {
  check(isDeepStrictEqual(found, wanted), name, { found, wanted });
}
