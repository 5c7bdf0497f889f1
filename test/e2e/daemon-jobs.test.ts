import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { JobInfo } from '../../src/admin/schemas.js';
import { DaemonProcess } from '../support/daemon-process.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { qemuIo } from '../support/nbd-io.js';

const MIB = 2 ** 20;
const SLOT_BYTES = 4128;
const dataDirectory = () => join(temporaryDirectory(), 'data');

/** Flips one byte of the block at `slot` in the first segment that has one. */
function tamper(data: string, slot: number): void {
  const directory = join(data, 'volumes/v');
  const [segment] = readdirSync(directory)
    .filter((name) => name.startsWith('seg-'))
    .sort();
  const path = join(directory, segment);
  const bytes = readFileSync(path);
  bytes[4096 + slot * SLOT_BYTES + 100] ^= 1;
  writeFileSync(path, bytes);
}

describe('volume verify', () => {
  it('checks every stored block, with progress, and is remembered', async () => {
    const daemon = await DaemonProcess.start(dataDirectory(), ['--default-volume', 'v:64M']);
    expect((await qemuIo(daemon.uri('v'), 'write -P 0x1 0 8M', 'flush')).code).toBe(0);
    const result = await daemon.run(['volume', 'verify', 'v']);
    expect(result.code, result.stderr).toBe(0);
    expect(result.stdout).toContain('2048 blocks checked');
    expect(result.stderr).toContain('verify v');
    const [job] = await daemon.json<JobInfo[]>(['job', 'list']);
    expect(job).toMatchObject({
      id: '1',
      kind: 'verify',
      volume: 'v',
      state: 'done',
      error: null,
      result: { checkedBlocks: 2048, lost: [], problems: [] },
    });
    expect(job.doneBytes).toBe(job.totalBytes);
  });

  it('ends with 5 and lists exactly what was tampered with; reads of it fail, others do not', async () => {
    const data = dataDirectory();
    const first = await DaemonProcess.start(data, ['--default-volume', 'v:64M']);
    expect((await qemuIo(first.uri('v'), 'write -P 0x1 0 8M', 'flush')).code).toBe(0);
    await first.stop();
    tamper(data, 5);
    const second = await DaemonProcess.start(data);
    const result = await second.run(['volume', 'verify', 'v', '--json']);
    expect(result.code).toBe(5);
    const job = JSON.parse(result.stdout) as JobInfo;
    expect(job.result?.lost).toEqual([{ offset: 5 * 4096, length: 4096 }]);
    expect((await qemuIo(second.uri('v'), 'read 20k 4k')).output).toContain('failed');
    expect((await qemuIo(second.uri('v'), 'read -P 1 0 20k', 'read -P 1 24k 64k')).output).not.toContain(
      'failed',
    );
  });

  it('--detach leaves the job to the daemon; cancel ends a running job only', async () => {
    const daemon = await DaemonProcess.start(dataDirectory(), ['--default-volume', 'v:1G']);
    expect((await qemuIo(daemon.uri('v'), 'write -P 0x1 0 32M', 'flush')).code).toBe(0);
    const started = JSON.parse(
      (await daemon.run(['volume', 'verify', 'v', '--detach', '--json'])).stdout,
    ) as JobInfo;
    expect(started.state).toBe('running');
    const cancelled = await daemon.run(['job', 'cancel', started.id]);
    const [job] = await daemon.json<JobInfo[]>(['job', 'list']);
    // A small volume may be done before the second command comes.
    expect([job.state, cancelled.code]).toEqual(job.state === 'cancelled' ? ['cancelled', 0] : ['done', 1]);
    expect((await daemon.run(['job', 'cancel', started.id])).code).toBe(1);
    expect((await daemon.run(['job', 'cancel', '99'])).code).toBe(1);
    await daemon.ok('volume', 'stop', 'v');
    expect(MIB).toBe(1_048_576);
  });
});
