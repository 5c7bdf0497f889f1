/** Superblocks made by who can write the disk, and has a retired DEK or no key at all. */
import { writeFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { formatUuid } from '../../src/base/random.js';
import {
  type DekState,
  decodeSuperblock,
  encodeSuperblock,
  type Superblock,
  superblockAuthenticates,
} from '../../src/keys/superblock.js';
import { addon, type KeyHandle } from '../../src/native/addon.js';
import { RotatingVolume, rejection } from '../support/rotating-volume.js';
import { SealedVolume } from '../support/sealed-volume.js';

const COPIES = ['superblock', 'superblock.bak'];

const publicKey = (): KeyHandle => addon.keyImport(new Uint8Array(32));

/** The same volume, one generation up, with the DEKs in other states. */
function changed(genuine: Superblock, states: readonly DekState[], change: Partial<Superblock>): Superblock {
  const deks = genuine.deks.map((dek, i) => ({ ...dek, state: states[i] }));
  return { ...genuine, generation: genuine.generation + 1, deks, ...change };
}

/** Everything that must be authenticated is, with the one key that the attacker has. */
const forge = (superblock: Superblock, key: KeyHandle): Buffer => encodeSuperblock(superblock, () => key);

/** All pins that a configuration can have are in place. */
async function opening(subject: RotatingVolume, genuine: Superblock) {
  const { dataDirectory, cipher, tuning, path } = subject;
  const pins = { uuid: formatUuid(genuine.uuid), suite: 2, keyUris: ['local:default'] } as const;
  return SealedVolume.open(path, { dataDirectory, cipher, tuning, pins });
}

it('a retired DEK does not become the active one again, for who knows it', async () => {
  const subject = await RotatingVolume.create();
  await subject.fill(1, 0, 40);
  await subject.rotate();
  const genuine = subject.header.superblock;
  const forged = forge(
    changed(genuine, ['active', 'pending'], { activeDek: 1 }),
    subject.header.deks.get(1)!,
  );
  await subject.stop();
  for (const name of COPIES) writeFileSync(subject.file(name), forged);
  expect(await rejection(opening(subject, genuine))).toMatchObject({ code: 'INTEGRITY' });
});

it('nor by dropping the newest DEK from the list', async () => {
  const subject = await RotatingVolume.create();
  await subject.rotate();
  const genuine = subject.header.superblock;
  const leaked = subject.header.deks.get(1)!;
  const newestIsRetired = changed(genuine, ['active', 'retired'], { activeDek: 1 });
  expect(() => forge(newestIsRetired, leaked)).toThrow(RangeError);
  const unnamed = { ...genuine, generation: genuine.generation + 1 };
  const forged = forge(unnamed, leaked);
  await subject.stop();
  for (const name of COPIES) writeFileSync(subject.file(name), forged);
  expect(await rejection(opening(subject, genuine))).toMatchObject({ code: 'INTEGRITY' });
});

it('an encrypted volume does not become one that was none, for who has no key at all', async () => {
  const subject = await RotatingVolume.create();
  await subject.fill(1, 0, 40);
  const genuine = subject.header.superblock;
  const known = publicKey();
  const forged = forge(changed(genuine, ['pending'], { activeDek: 0, plain: true }), known);
  addon.keyRelease(known);
  await subject.stop();
  for (const name of COPIES) writeFileSync(subject.file(name), forged);
  const { dataDirectory, cipher, tuning, path } = subject;
  const unpinned = SealedVolume.open(path, { dataDirectory, cipher, tuning });
  expect(await rejection(unpinned)).toMatchObject({ code: 'INTEGRITY' });
});

it('a superblock with a pending DEK needs the MACs of both, each in its place', async () => {
  const subject = await RotatingVolume.create();
  await subject.rotate();
  const [one, two] = [1, 2].map((id) => subject.header.deks.get(id)!);
  const superblock = changed(subject.header.superblock, ['active', 'pending'], { activeDek: 1 });
  const keyOf = (id: number): KeyHandle | undefined => subject.header.deks.get(id);
  const accepted = (macKeys: (id: number) => KeyHandle): boolean =>
    superblockAuthenticates(decodeSuperblock(encodeSuperblock(superblock, macKeys)), keyOf);
  expect([
    accepted((id) => keyOf(id)!),
    accepted(() => one),
    accepted(() => two),
    accepted((id) => (id === 1 ? two : one)),
  ]).toEqual([true, false, false, false]);
});
