/** What hangs behind a gate holds few threads, whatever is asked of it. */
import { expect, it } from 'vitest';
import { Gate } from '../../src/base/gate.js';
import { FsStore } from '../../src/store/fs-store.js';
import { GatedStore } from '../../src/store/gated-store.js';
import { HookedStore } from '../support/hooked-store.js';
import { temporaryDirectory } from '../support/key-fixtures.js';

async function gated(places: number) {
  const hooked = new HookedStore(await FsStore.open(temporaryDirectory()));
  return { hooked, store: new GatedStore(hooked, new Gate(places)) };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

it('does what the store behind it does', async () => {
  const { store } = await gated(1);
  const file = await store.create('a', 4096);
  await file.write(Buffer.from('hello'), 10);
  await file.sync();
  const bytes = Buffer.alloc(5);
  expect([await file.read(bytes, 10), bytes.toString()]).toEqual([5, 'hello']);
  await file.truncate(12);
  expect([await file.size(), await file.links()]).toEqual([12, 1]);
  await file.close();
  await store.replaceSmall('b', Buffer.from('small'));
  await store.rename('b', 'c');
  await store.syncDirectory();
  expect((await store.readSmall('c'))?.toString()).toBe('small');
  await store.remove('a');
  expect((await store.list()).sort()).toEqual(['c', 'reserve-small']);
});

it('has so many operations under way, however many are asked for, and the others in their order', async () => {
  const { hooked, store } = await gated(2);
  const waiting: { name: string; end: () => void }[] = [];
  hooked.onCreate = (name) => new Promise((resolve) => waiting.push({ name, end: resolve }));
  const names = ['a', 'b', 'c', 'd', 'e', 'f'];
  const made = names.map((name) => store.create(name, 0));
  const listed = store.list();
  const seen: string[] = [];
  for (const expected of [2, 2, 2, 2, 2, 1]) {
    await expect.poll(() => waiting.length).toBe(expected);
    const [first] = waiting.splice(0, 1);
    seen.push(first.name);
    first.end();
    await turn();
  }
  expect(seen).toEqual(names);
  for (const file of await Promise.all(made)) await file.close();
  // Its turn came when the last file but one was made.
  expect(await listed).toEqual(expect.arrayContaining(names.slice(0, -1)));
});

it('gives the place of what failed to the next one', async () => {
  const { hooked, store } = await gated(1);
  hooked.onCreate = (name) => (name === 'a' ? Promise.reject(new Error('gone')) : Promise.resolve());
  const failing = store.create('a', 0);
  const next = store.create('b', 0);
  await expect(failing).rejects.toThrow('gone');
  await (await next).close();
});

it('asks which file it is in its turn, too: what hangs holds no other thread', async () => {
  const { hooked, store } = await gated(1);
  const [one, same] = [await store.create('a', 0), await store.open('a', 'read')];
  const other = await store.create('b', 0);
  let end = (): void => undefined;
  hooked.onCreate = () =>
    new Promise((resolve) => {
      end = resolve;
    });
  const hanging = store.create('c', 0);
  let told = false;
  const identity = one.identity().then((found) => {
    told = true;
    return found;
  });
  for (let i = 0; i < 20; i++) await turn();
  expect(told).toBe(false);
  end();
  expect(await same.identity()).toEqual(await identity);
  expect(await other.identity()).not.toEqual(await identity);
  for (const file of [one, same, other, await hanging]) await file.close();
});
