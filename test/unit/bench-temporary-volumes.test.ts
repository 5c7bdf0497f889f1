/** Whatever happens during a benchmark, it deletes the volumes that it made, and no other. */
import { describe, expect, it } from 'vitest';
import type { VolumeInfo } from '../../src/admin/schemas.js';
import { SealbdError } from '../../src/base/errors.js';
import { type VolumeMaker, withTemporaryVolumes } from '../../src/cli/bench/temporary-volumes.js';

const CIPHERS = ['aes-256-gcm', 'none'] as const;
const SIZE_BYTES = 1 << 20;

/** A daemon's list of volumes. `onCreate` runs before the nth volume is there, `onCreated` after. */
class Volumes implements VolumeMaker {
  readonly names = new Set<string>(['own']);
  readonly deleted: string[] = [];
  #creations = 0;

  constructor(
    readonly onCreate: (nth: number, name: string) => void = () => undefined,
    readonly onCreated: (nth: number) => void = () => undefined,
  ) {}

  createVolume: VolumeMaker['createVolume'] = async ({ name }) => {
    const nth = ++this.#creations;
    this.onCreate(nth, name);
    if (this.names.has(name)) throw new SealbdError('CONFLICT', `volume "${name}" exists already`);
    this.names.add(name);
    this.onCreated(nth);
    return {} as VolumeInfo;
  };

  deleteVolume: VolumeMaker['deleteVolume'] = async (name) => {
    if (!this.names.delete(name)) throw new SealbdError('NOT_FOUND', `there is no volume "${name}"`);
    this.deleted.push(name);
    return {};
  };
}

const run = (volumes: Volumes, work: () => Promise<string> = async () => 'done') =>
  withTemporaryVolumes(volumes, CIPHERS, SIZE_BYTES, work);

describe('temporary volumes', () => {
  it('are there during the work, and not after it', async () => {
    const volumes = new Volumes();
    const during = await withTemporaryVolumes(volumes, CIPHERS, SIZE_BYTES, async (names) => {
      expect([...volumes.names].slice(1)).toEqual(names);
      return names;
    });
    expect(volumes.deleted).toEqual(during);
    expect([...volumes.names]).toEqual(['own']);
  });

  it('are deleted where the work fails, whose error is the one that counts', async () => {
    const volumes = new Volumes();
    const failure = new SealbdError('FAILED', 'fio is not installed');
    await expect(run(volumes, () => Promise.reject(failure))).rejects.toBe(failure);
    expect([...volumes.names]).toEqual(['own']);
  });

  it('are deleted where the second can not be made', async () => {
    const refusal = new SealbdError('ENOSPC', 'no room');
    const volumes = new Volumes((nth) => {
      if (nth === 2) throw refusal;
    });
    await expect(run(volumes)).rejects.toBe(refusal);
    expect(volumes.deleted).toHaveLength(1);
    expect([...volumes.names]).toEqual(['own']);
  });

  it('are deleted where they were made, but the answer was lost', async () => {
    const lost = new SealbdError('UNREACHABLE', 'the answer was lost');
    const volumes = new Volumes(undefined, () => {
      throw lost;
    });
    await expect(run(volumes)).rejects.toBe(lost);
    expect([...volumes.names]).toEqual(['own']);
  });

  it('are not deleted where somebody else made them', async () => {
    const volumes = new Volumes((_nth, name) => volumes.names.add(name));
    await expect(run(volumes)).rejects.toMatchObject({ code: 'CONFLICT' });
    expect(volumes.deleted).toEqual([]);
    expect(volumes.names.size).toBe(2);
  });

  it('that can not be deleted are named, beside the first error', async () => {
    const volumes = new Volumes();
    volumes.deleteVolume = () => Promise.reject(new SealbdError('UNREACHABLE', 'gone'));
    const names = /"sealbd-bench-[0-9a-f]+-aes-256-gcm".*"sealbd-bench-[0-9a-f]+-none"/;
    await expect(run(volumes)).rejects.toMatchObject({ message: expect.stringMatching(names) });
    const failure = new SealbdError('KEY_UNAVAILABLE', 'no key');
    await expect(run(volumes, () => Promise.reject(failure))).rejects.toMatchObject({
      code: 'KEY_UNAVAILABLE',
      message: expect.stringMatching(/^no key; .*could not be deleted/),
    });
  });
});
