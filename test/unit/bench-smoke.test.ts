import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import type { BenchFile } from '../../bench/result.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { KERNELS } from '../support/native-kernels.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const TIMEOUT_MS = 120_000;

function bench(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  const program = join(ROOT, 'build/bench/bench/run.js');
  return spawnSync(process.execPath, [program, ...args], { encoding: 'utf8', timeout: TIMEOUT_MS });
}

describe('the benchmark', () => {
  beforeAll(() => {
    const tsc = join(ROOT, 'node_modules/.bin/tsc');
    const { status, stdout } = spawnSync(tsc, ['-p', join(ROOT, 'tsconfig.bench.json')], {
      encoding: 'utf8',
      timeout: TIMEOUT_MS,
    });
    expect(status, stdout).toBe(0);
  });

  it('keeps the figures of the kernels as JSON with their conditions', { timeout: TIMEOUT_MS }, () => {
    const out = join(temporaryDirectory(), 'kernels.json');
    const { status, stdout, stderr } = bench('--quick', '--group', 'kernels', '--out', out);
    expect(status, stderr).toBe(0);
    const result = JSON.parse(readFileSync(out, 'utf8')) as BenchFile;
    expect(result).toMatchObject({ format: 1, quick: true, conditions: { node: process.version } });
    expect(result.conditions.loadAverageBefore).toHaveLength(3);
    expect(Object.keys(result.groups)).toEqual(['kernels']);
    const [{ rows }] = result.groups.kernels.tables;
    for (const who of [...KERNELS, 'EVP', 'memcpy']) {
      const own = rows.filter((row) => row.who === who);
      expect(own.length, who).toBeGreaterThan(0);
      for (const row of own) expect(row.gbPerS).toBeGreaterThan(0);
    }
    expect(stdout).toContain('its numbers mean nothing');
  });

  it('times key derivation and the wire codec', { timeout: TIMEOUT_MS }, () => {
    const out = join(temporaryDirectory(), 'small.json');
    const { status, stderr } = bench('--quick', '--group', 'kdf', '--group', 'codec', '--out', out);
    expect(status, stderr).toBe(0);
    const result = JSON.parse(readFileSync(out, 'utf8')) as BenchFile;
    expect(result.command).toBe(`npm run bench -- --quick --group kdf --group codec --out ${out}`);
    for (const name of ['kdf', 'codec']) {
      const [{ rows }] = result.groups[name].tables;
      expect(rows.length, name).toBeGreaterThan(4);
      for (const row of rows) expect(row.nanoseconds, String(row.operation)).toBeGreaterThan(0);
    }
  });

  it('refuses what it does not know, with exit code 2', () => {
    expect(bench('--group', 'nothing')).toMatchObject({
      status: 2,
      stderr: expect.stringContaining('kernels'),
    });
    expect(bench('--rounds', '0').status).toBe(2);
    expect(bench('--fast').status).toBe(2);
    expect(bench('--quick', '--publish').status).toBe(2);
  });
});
