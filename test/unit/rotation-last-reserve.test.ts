/** Re-encryption on a full disk with no more than one file of the reserve left. */
import { expect, it } from 'vitest';
import { FsStore } from '../../src/store/fs-store.js';
import { diskFull, HookedStore } from '../support/hooked-store.js';
import { RotatingVolume } from '../support/rotating-volume.js';
import { BLOCK } from '../support/volume-harness.js';

/** Stopped with 10 full segments, and opened on a full disk; an unmap and the switch take two files of the reserve. */
async function switchedOnFullDisk(): Promise<RotatingVolume> {
  const subject = await RotatingVolume.create({ tuning: { reserveSegments: 2, sparesMax: 0 } });
  await subject.fill(1, 0, 640);
  await subject.stop();
  const store = new HookedStore(await FsStore.open(subject.path));
  store.onCreate = async () => {
    throw diskFull();
  };
  await subject.open(store);
  await subject.volume.trim(0, BLOCK);
  await subject.volume.flush();
  subject.forget(0);
  await subject.rotate(true);
  return subject;
}

it('re-encryption takes the last file of the reserve where nothing else makes room, and gives it back', async () => {
  const subject = await switchedOnFullDisk();
  await subject.rewrite();
  expect(await subject.dropOld()).toEqual([1]);
  expect(subject.deks).toEqual(['2 active']);
  subject.expectAllUnder(2);
  await subject.expectData();
  await subject.volume.trim(BLOCK, BLOCK);
  await subject.volume.flush();
});
