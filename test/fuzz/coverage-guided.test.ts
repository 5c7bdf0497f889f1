/**
 * Each target of the coverage-guided fuzzer (docs/FUZZING.md) replays its corpus and then looks for new ways, for a short
 * time. SEALBD_FUZZ_SECONDS makes it a long one. What is found is in a file that the failure names.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { beforeAll, describe, expect, it } from 'vitest';
import { runProgram } from '../support/programs.js';

const SECONDS = process.env.SEALBD_FUZZ_SECONDS;
/** So many inputs, whatever the machine's pace, and no more than so long. */
const SHORT = ['--runs', '1000', '--seconds', '2'];
const FUZZ = 'scripts/fuzz.mjs';
const TARGETS = execFileSync(process.execPath, [FUZZ, '--list'], { encoding: 'utf8' }).trim().split('\n');
const HAS_CLANG = spawnSync(process.execPath, [FUZZ, '--can']).status === 0;

describe.skipIf(!HAS_CLANG)(
  `coverage-guided fuzzing${HAS_CLANG ? '' : ' (needs clang with libFuzzer)'}`,
  () => {
    beforeAll(async () => {
      const { code, stdout, stderr } = await runProgram(process.execPath, [FUZZ, '--build']);
      expect(code, `${stdout}${stderr}`).toBe(0);
    }, 300_000);

    it.each(TARGETS)(
      'finds nothing in %s',
      async (target) => {
        const length = SECONDS === undefined ? SHORT : ['--seconds', SECONDS];
        const args = [FUZZ, '--built', '--seed', '1', ...length, target];
        const timeoutMs = (Number(SECONDS ?? 0) + 60) * 1000;
        const { code, stdout, stderr } = await runProgram(process.execPath, args, { timeoutMs });
        expect(code, `${stdout}${stderr}`.slice(-4000)).toBe(0);
        expect(stderr).toMatch(/^Done \d+ runs/m);
      },
      (Number(SECONDS ?? 0) + 60) * 1000,
    );
  },
);
