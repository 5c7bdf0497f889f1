/** A volume of this process's daemon that is backed up, and what `key usage` says of that. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, vi } from 'vitest';
import type { JobInfo } from '../../src/admin/schemas.js';
import { STARTUP } from '../../src/daemon/volume-events.js';
import { FsStore } from '../../src/store/fs-store.js';
import { gate } from './hooked-store.js';
import { temporaryDirectory } from './key-fixtures.js';
import { until } from './until.js';
import {
  createVolume,
  fillVolume,
  type Watched,
  WatchedDirectory,
  type WatchedOptions,
} from './watched-volumes.js';

export async function ended(watched: Watched, { id }: JobInfo): Promise<JobInfo> {
  await until('the job has ended', () => watched.jobs.get(id).state !== 'running');
  return watched.jobs.get(id);
}

/** A volume `v` under scripted:a, and what backs it up. */
export async function scene(options: WatchedOptions = {}) {
  const directory = new WatchedDirectory();
  const watched = await directory.start(options);
  await fillVolume(await createVolume(watched.volumes, 'v', 'scripted:a'), 20, 1);
  const above = join(temporaryDirectory(), 'backups');
  mkdirSync(above);
  const path = join(above, 'b');
  const backUp = () => watched.backups.create('v', { path, salvage: false }, STARTUP);
  const made = async (): Promise<void> => {
    expect(await ended(watched, await backUp())).toMatchObject({ state: 'done', error: null });
  };
  return { directory, watched, above, path, backUp, made, file: join(directory.path, 'backups.json') };
}

/** Whether the key may go, and what is said of backups. */
export async function verdict({ keys }: Watched, keyUri: string) {
  const [{ safeToDelete, backups, caveats }] = await keys.usage(keyUri);
  const doubts = backups.map(({ present, doubt }) => (present ? 'there' : (doubt ?? 'gone')));
  return { safeToDelete, doubts, caveats };
}

/** Holds the making of files back of such a name until the gate opens. */
export function holdCreation(of: RegExp): { open(): void; reached: Promise<void> } {
  const [waiting, reached] = [gate(), gate()];
  const create = FsStore.prototype.create;
  const spy = vi.spyOn(FsStore.prototype, 'create');
  spy.mockImplementation(async function (this: FsStore, name: string, sizeBytes: number) {
    if (of.test(name)) {
      reached.open();
      await waiting.opened;
    }
    return create.call(this, name, sizeBytes);
  });
  onTestFinished(() => spy.mockRestore());
  return { open: waiting.open, reached: reached.opened };
}
