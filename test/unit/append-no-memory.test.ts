/** Where there is no memory for an append buffer: they are given back after each load, and taken again. */
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { ARENA_CHUNK_BYTES } from '../../src/base/limits.js';
import { addon } from '../../src/native/addon.js';
import { BUFFER_SLOTS } from '../../src/segment/append-buffer.js';
import { BLOCK, VolumeHarness } from '../support/volume-harness.js';

const SEGMENT_SLOTS = 8192;
let harness: VolumeHarness;

beforeEach(async () => {
  harness = await VolumeHarness.create({
    tuning: { segmentSlots: SEGMENT_SLOTS, checkpointSlots: 100_000, poolSealBytes: BLOCK },
  });
});

afterEach(async () => {
  vi.restoreAllMocks();
  await harness.destroy();
});

/** Until the mock is restored. */
function takeMemory(): void {
  const create = addon.arenaCreate;
  vi.spyOn(addon, 'arenaCreate').mockImplementation((bytes) => {
    if (bytes < ARENA_CHUNK_BYTES) return create(bytes);
    throw Object.assign(new Error('no memory'), { code: 'ENOMEM' });
  });
}

it('a write fails with ENOMEM once all that it began is done, and the volume goes on', async () => {
  const { volume, io } = harness;
  const first = BUFFER_SLOTS - 100;
  io.bytes.fill(0x11, 0, first * BLOCK);
  await volume.write(io, 0, 0, first * BLOCK);
  takeMemory();
  io.bytes.fill(0xaa, 0, 200 * BLOCK);
  const offset = first * BLOCK;
  // The part that fits the buffer is sealed by a thread: until that is done the memory of the write is in use.
  const result = volume.write(io, 0, offset, 200 * BLOCK);
  expect(result).toBeInstanceOf(Promise);
  await expect(result).rejects.toMatchObject({ name: 'SealbdError', code: 'ENOMEM' });
  io.bytes.fill(0xbb, 0, 200 * BLOCK);
  vi.restoreAllMocks();
  await volume.flush();
  await volume.read(io, 0, offset, 200 * BLOCK);
  const seen = new Set(Array.from({ length: 200 }, (_, i) => io.bytes[i * BLOCK]));
  expect([...seen].sort()).toEqual([0, 0xaa]);
  await harness.write(offset, new Uint8Array(BLOCK).fill(0xcc));
  await harness.reopen();
  expect((await harness.read(offset, BLOCK))[0]).toBe(0xcc);
});
