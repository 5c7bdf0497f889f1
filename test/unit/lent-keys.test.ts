import { expect, it } from 'vitest';
import { DekRing, lendKeys } from '../../src/keys/dek-ring.js';
import { addon } from '../../src/native/addon.js';
import { expectNoLeakedSlots } from '../support/key-fixtures.js';

it.each([true, false])('lent keys are those that the volume has at the moment, plain: %s', (plain) => {
  expectNoLeakedSlots();
  const [first, second] = [addon.keyGenerate(), addon.keyGenerate()];
  const ring = new DekRing(new Map([[1, first]]));
  const { handles, release } = lendKeys(ring.handles, plain);
  ring.add(2, second);
  expect([handles.get(1), handles.get(2), handles.has(0)]).toEqual([first, second, plain]);
  ring.drop(1);
  expect([handles.get(1), [...handles.keys()].sort(), handles.size]).toEqual([
    undefined,
    plain ? [0, 2] : [2],
    plain ? 2 : 1,
  ]);
  const seen: number[] = [];
  handles.forEach((_, id) => {
    seen.push(id);
  });
  expect(seen.sort()).toEqual(plain ? [0, 2] : [2]);
  release();
  ring.revoke();
});
