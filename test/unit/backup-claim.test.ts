import { existsSync } from 'node:fs';
import { expect, it } from 'vitest';
import { claimDirectory, finishDirectory } from '../../src/backup/claim.js';
import { FsStore } from '../../src/store/fs-store.js';
import { temporaryDirectory } from '../support/key-fixtures.js';

it('a lock on a marker that another backup has removed, and made anew, is no claim', async () => {
  const store = FsStore.at(temporaryDirectory());
  const first = await claimDirectory(store);
  const late = FsStore.at(store.path);
  const open = late.open.bind(late);
  let third: Awaited<ReturnType<typeof claimDirectory>> | undefined;
  // Between opening the marker and locking it: the first one ends, and a third one begins.
  late.open = async (name, access) => {
    const file = await open(name, access);
    if (third === undefined) {
      await finishDirectory(store);
      await first.close();
      third = await claimDirectory(store);
    }
    return file;
  };
  await expect(claimDirectory(late)).rejects.toMatchObject({ code: 'CONFLICT' });
  expect(existsSync(`${store.path}/incomplete`)).toBe(true);
  await expect(claimDirectory(store)).rejects.toMatchObject({ code: 'CONFLICT' });
  await third!.close();
  await (await claimDirectory(store)).close();
});
