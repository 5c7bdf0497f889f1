import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { describeOffline, verifyOffline } from '../../src/backup/offline.js';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { addon } from '../../src/native/addon.js';
import { BackupSubject } from '../support/backup-subject.js';

const CRC_BYTES = 4;
/** Behind the last wrapped DEK: the reserved field's length, and the MAC. */
const BEHIND_WRAP_BYTES = 2 + 16 + CRC_BYTES;

const cipher = new CipherPool({ threads: 1 });
afterAll(() => cipher.destroy());

const ignore = (): void => undefined;

it('verifying finds a wrapped DEK that was changed, though every checksum was mended', async () => {
  const subject = await BackupSubject.create(2, cipher, 9);
  await subject.change(10);
  await subject.backUp('b');
  const path = subject.directory('b');
  expect(await verifyOffline(path, subject.dataDirectory, ignore)).toMatchObject({
    authenticated: true,
    problems: [],
  });
  const file = join(path, 'manifest');
  const bytes = readFileSync(file);
  bytes[bytes.length - BEHIND_WRAP_BYTES - 5] ^= 1;
  bytes.writeUInt32LE(addon.crc32c(bytes.subarray(0, -CRC_BYTES), 0), bytes.length - CRC_BYTES);
  writeFileSync(file, bytes);
  const report = await verifyOffline(path, subject.dataDirectory, ignore);
  expect(report).toMatchObject({ authenticated: false, keyProblem: expect.any(String) });
  expect(report.problems).toContain(report.keyProblem);
  await subject.stop();
});

it('verifying a backup that claims to be of a volume without a cipher proves nothing, whatever was there before', async () => {
  const subject = await BackupSubject.create(2, cipher, 11);
  await subject.change(10);
  await subject.backUp('b');
  await subject.stop();
  // Anybody can make this one: the key of its MAC is public.
  const forger = await BackupSubject.create(0, cipher, 12);
  await forger.change(10);
  await forger.backUp('b');
  await forger.stop();
  rmSync(subject.directory('b'), { recursive: true });
  cpSync(forger.directory('b'), subject.directory('b'), { recursive: true });
  const report = await verifyOffline(subject.directory('b'), subject.dataDirectory, ignore);
  expect(report).toMatchObject({
    authenticated: false,
    keyProblem: expect.stringMatching(/cipher is none/),
    problems: [],
  });
  const info = await describeOffline(subject.directory('b'), subject.dataDirectory);
  expect(info).toMatchObject({ cipher: 'none', unproven: report.keyProblem });
});

it('verifying a backup of a volume that is being encrypted does not say that its plaintext authenticates', async () => {
  const subject = await BackupSubject.create(0, cipher, 13);
  await subject.change(10);
  await subject.beginEncryption();
  await subject.backUp('plain');
  await subject.rewrite();
  await subject.backUp('rewritten');
  await subject.stop();
  const verified = (name: string) => verifyOffline(subject.directory(name), subject.dataDirectory, ignore);
  expect(await verified('plain')).toMatchObject({ authenticated: false, problems: [] });
  expect(await verified('rewritten')).toMatchObject({ authenticated: true, keyProblem: null, problems: [] });
});

it('verifying without the key checks what it can, and calls that no problem', async () => {
  const subject = await BackupSubject.create(2, cipher, 10);
  await subject.change(10);
  await subject.backUp('b');
  const report = await verifyOffline(subject.directory('b'), subject.directory('elsewhere'), ignore);
  expect(report).toMatchObject({ authenticated: false, problems: [] });
  await subject.stop();
});
