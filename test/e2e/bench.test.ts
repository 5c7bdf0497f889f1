/** `sealbd bench` against a real daemon, with a real fio. Its figures mean nothing here; what it leaves behind does. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { DaemonProcess, sealbdProcess } from '../support/daemon-process.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { hasProgram } from '../support/programs.js';
import { until } from '../support/until.js';

const TIMEOUT_MS = 300_000;
const READING = /read/;

interface Report {
  readonly quick: boolean;
  readonly subjects: { volume: string; cipher: string }[];
  readonly ratios: { workload: string; median: number; min: number; max: number }[];
  readonly figures: { workload: string; cipher: string; iops: number }[];
  readonly notes: string[];
}

async function volumesOf(daemon: DaemonProcess): Promise<string[]> {
  return (await daemon.json<{ name: string }[]>(['volume', 'list'])).map(({ name }) => name);
}

async function mappedBytes(daemon: DaemonProcess, name: string): Promise<number> {
  return (await daemon.json<{ mappedBytes: number }>(['volume', 'info', name])).mappedBytes;
}

const start = (): Promise<DaemonProcess> => DaemonProcess.start(join(temporaryDirectory(), 'data'));

describe.skipIf(!hasProgram('fio'))('sealbd bench', { timeout: TIMEOUT_MS }, () => {
  it('compares an encrypted with a plain temporary volume, and deletes both', async () => {
    const daemon = await start();
    const report = await daemon.json<Report>(['bench', '--quick']);
    expect(report.quick).toBe(true);
    expect(report.subjects.map(({ cipher }) => cipher)).toEqual(['aes-256-gcm', 'none']);
    expect(report.ratios.length).toBeGreaterThan(5);
    for (const { median, min, max } of report.ratios) {
      expect(min).toBeGreaterThan(0);
      expect(median).toBeGreaterThanOrEqual(min);
      expect(max).toBeGreaterThanOrEqual(median);
    }
    expect(report.figures).toHaveLength(2 * report.ratios.length);
    expect(await volumesOf(daemon)).toEqual([]);
  });

  it('deletes the temporary volumes when it is interrupted, and ends by the signal', async () => {
    const daemon = await start();
    const { child, ended } = sealbdProcess(['bench', '--data', daemon.data]);
    await until('fio is attached', async () => {
      const volumes = await daemon.json<{ clients: number }[]>(['volume', 'list']);
      return volumes.length === 2 && volumes.some(({ clients }) => clients > 0);
    });
    child.kill('SIGINT');
    expect(await ended).toMatchObject({ code: null, signal: 'SIGINT' });
    expect(await volumesOf(daemon)).toEqual([]);
  });

  it('only reads a volume that is named', async () => {
    const daemon = await start();
    await daemon.ok('volume', 'create', 'own', '--size', '64M');
    const report = await daemon.json<Report>(['bench', 'own', '--quick']);
    expect(report.ratios).toEqual([]);
    expect(report.figures.length).toBeGreaterThan(0);
    for (const { workload } of report.figures) expect(workload).toMatch(READING);
    expect(report.notes.join()).toContain('0 % of the volume is mapped');
    expect(await mappedBytes(daemon, 'own')).toBe(0);
  });

  it('writes a named volume with --write alone', async () => {
    const daemon = await start();
    await daemon.ok('volume', 'create', 'own', '--size', '16M');
    const report = await daemon.json<Report>(['bench', 'own', '--quick', '--write']);
    expect(report.figures.some(({ workload }) => workload.includes('write'))).toBe(true);
    expect(await mappedBytes(daemon, 'own')).toBe(16 * 1024 * 1024);
  });
});

describe('sealbd bench that can not run', { timeout: TIMEOUT_MS }, () => {
  it('says that fio is missing, and deletes what it made', async () => {
    const daemon = await start();
    const result = await daemon.run(['bench', '--quick'], { env: { PATH: '/nonexistent' } });
    expect(result.code).toBe(1);
    expect(result.stderr).toContain('fio is not installed');
    expect(await volumesOf(daemon)).toEqual([]);
  });

  it('exits 2 for bad usage, 1 for a volume that is not there or not serving, 3 without a daemon', async () => {
    const daemon = await start();
    for (const seconds of ['0', '-1', 'soon', '601']) {
      const result = await daemon.run(['bench', '--seconds', seconds]);
      expect(result, seconds).toMatchObject({ code: 2, stderr: expect.stringContaining('--seconds') });
    }
    const nameless = await daemon.run(['bench', '--write']);
    expect(nameless).toMatchObject({ code: 2, stderr: expect.stringContaining('--write') });
    expect((await daemon.run(['bench', 'missing'])).code).toBe(1);
    await daemon.ok('volume', 'create', 'own', '--size', '16M');
    await daemon.ok('volume', 'stop', 'own');
    const stopped = await daemon.run(['bench', 'own']);
    expect(stopped).toMatchObject({ code: 1, stderr: expect.stringContaining('stopped') });
    await daemon.stop();
    expect((await daemon.run(['bench'])).code).toBe(3);
  });
});
