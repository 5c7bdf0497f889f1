/** Writes the inputs that targets begin with: node scripts/fuzz/seeds.mjs BUILD DIRECTORY, a folder for each target. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { loadDriver } from './driver.mjs';

const [build, directory] = process.argv.slice(2);
loadDriver(build);
const { seeds } = await import(pathToFileURL(join(build, 'js/test/fuzz/targets/seeds.js')).href);
for (const [target, inputs] of Object.entries(await seeds())) {
  mkdirSync(join(directory, target), { recursive: true });
  inputs.forEach((input, i) => {
    writeFileSync(join(directory, target, `seed-${i}`), input);
  });
}
