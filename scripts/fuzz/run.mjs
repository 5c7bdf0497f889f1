/**
 * One process that fuzzes one target of test/fuzz/targets: node scripts/fuzz/run.mjs BUILD TARGET PROGRAM
 * LIBFUZZER-ARGS..., where PROGRAM is what libFuzzer starts to have one more such process.
 * Says what went wrong before libFuzzer writes the input; ends with libFuzzer's status.
 */
import { writeSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { format } from 'node:util';
import { loadDriver } from './driver.mjs';

const [build, name, ...args] = process.argv.slice(2);
const { fuzzStart, fuzzFinish, hand } = loadDriver(build);
const target = join(build, 'js/test/fuzz/targets', `${name}.js`);
const { fuzz } = await import(pathToFileURL(target).href);

function failed(error) {
  hand.over = false;
  writeSync(2, `\n${format(error)}\n`);
  fuzzFinish(false);
}

function succeeded() {
  hand.over = false;
  fuzzFinish(true);
}

fuzzStart(args, (data) => {
  hand.over = true;
  try {
    const result = fuzz(data);
    if (result instanceof Promise) result.then(succeeded, failed);
    else succeeded();
  } catch (error) {
    failed(error);
  }
});
