/** The addon with libFuzzer inside, and what instrumented JavaScript calls. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

/** Sets the global that instrumented code counts with; to be called before any of it is loaded. */
export function loadDriver(build) {
  const driver = createRequire(import.meta.url)(join(build, 'fuzz-addon.node'));
  // What is compared outside of a target's run says nothing about an input.
  const hand = { over: false };
  globalThis.__fuzz = {
    hits: new Uint8Array(driver.fuzzCounters(Number(readFileSync(join(build, 'js/counters'), 'utf8')))),
    compare(operator, a, b) {
      if (hand.over && a !== b && Number.isSafeInteger(a) && Number.isSafeInteger(b))
        driver.fuzzCompare(a, b);
      return compared(operator, a, b);
    },
  };
  return { ...driver, hand };
}

function compared(operator, a, b) {
  switch (operator) {
    case '===':
      return a === b;
    case '!==':
      return a !== b;
    case '<':
      return a < b;
    case '<=':
      return a <= b;
    case '>':
      return a > b;
    case '>=':
      return a >= b;
    default:
      throw new Error(`operator ${operator}`);
  }
}
