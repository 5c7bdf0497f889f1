/**
 * Malformed handshakes and requests against a live server and against the state machine alone, while a polite
 * client keeps verifying its data. `SEALBD_FUZZ_COUNT` messages are sent (100000 by default); the seed is printed
 * and `SEALBD_TEST_SEED` replays it.
 */
import net from 'node:net';
import { describe, expect, it } from 'vitest';
import { REQUEST_BYTES_MAX } from '../../src/base/limits.js';
import { addon } from '../../src/native/addon.js';
import { Handshake } from '../../src/nbd/handshake.js';
import { openSockets } from '../../src/nbd/poller.js';
import { viewOf } from '../../src/nbd/wire/bytes.js';
import { Command, Option, REQUEST_HEADER_BYTES } from '../../src/nbd/wire/constants.js';
import { encodeInfoRequest, encodeMetaRequest, encodeOption } from '../../src/nbd/wire/option.js';
import { encodeRequest } from '../../src/nbd/wire/request.js';
import { Dice } from '../support/dice.js';
import { exportsOf, MemoryDevice } from '../support/memory-device.js';
import { RawClient } from '../support/nbd-raw-client.js';
import { eventually, startTestServer } from '../support/nbd-test-server.js';
import { testSeed } from '../support/seeded-random.js';

const COUNT = Number(process.env.SEALBD_FUZZ_COUNT ?? 100_000);
const MiB = 1024 * 1024;
const SIZE = 64 * MiB;
const PARALLEL = 16;
const seed = testSeed('nbd-fuzz');

/** Changes a few bytes, cuts the end, or lets it be. */
function mutate(dice: Dice, bytes: Uint8Array): Buffer {
  const copy = Buffer.from(bytes);
  if (copy.length === 0 || dice.chance(20)) return copy;
  for (let i = dice.below(3); i >= 0; i--)
    copy[dice.below(copy.length)] = dice.one(0, 1, 0x7f, 0x80, 0xff, dice.below(256));
  return dice.chance(10) ? copy.subarray(0, dice.below(copy.length)) : copy;
}

function optionData(dice: Dice): Uint8Array {
  const name = dice.one('', 'disk', 'safe', 'nope', 'x'.repeat(dice.below(6000)));
  const queries = Array.from({ length: dice.below(4) }, () =>
    dice.one('base:allocation', 'base:', 'x', ':', 'qemu:z'),
  );
  return dice.one(
    () => encodeInfoRequest({ name, infos: Array.from({ length: dice.below(5) }, () => dice.below(6)) }),
    () => encodeMetaRequest({ name, queries }),
    () => dice.bytes(200),
    () => Buffer.alloc(0),
  )();
}

function badOption(dice: Dice): Buffer {
  const option = dice.chance(90) ? dice.below(13) : dice.word();
  const bytes = Buffer.from(encodeOption(option, mutate(dice, optionData(dice))));
  if (dice.chance(10)) bytes.writeUInt32BE(dice.word(), 12);
  return dice.chance(5) ? mutate(dice, bytes) : bytes;
}

function badRequest(dice: Dice): Buffer {
  let type = dice.chance(90) ? dice.below(8) : dice.word() & 0xffff;
  // A good-bye and what breaks the framing end a connection, so they must be rare for the rest to be reached.
  if (type === Command.DISC && dice.chance(90)) type = Command.READ;
  let length = dice.chance(85) ? dice.below(20_000) : dice.word();
  if (type === Command.WRITE && length > 40_000 && dice.chance(80)) length = 40_000;
  // Long reads that are allowed are answered in full; too many would only measure the loopback.
  if (type === Command.READ && length > 100_000 && length <= REQUEST_BYTES_MAX && dice.chance(95))
    length = 5000;
  const offset = dice.chance(80) ? dice.below(SIZE) : dice.word() * (dice.chance(50) ? 1 : 2 ** 20);
  const flags = dice.chance(70) ? 0 : dice.chance(80) ? 1 << dice.below(6) : dice.below(65_536);
  const header = Buffer.alloc(REQUEST_HEADER_BYTES);
  encodeRequest(viewOf(header), 0, {
    flags,
    type,
    cookieHigh: dice.word(),
    cookieLow: dice.word(),
    offset,
    length,
  });
  if (dice.chance(2)) return mutate(dice, header);
  if (type !== Command.WRITE) return header;
  const payload = Buffer.alloc(Math.min(length, 40_000), 0xfe);
  return Buffer.concat([
    header,
    dice.chance(97) ? payload : payload.subarray(0, dice.below(payload.length + 1)),
  ]);
}

/** One connection's worth of nonsense; returns how many messages it was. */
function nonsense(dice: Dice): { bytes: Buffer; messages: number } {
  const parts: Buffer[] = [];
  if (dice.chance(3)) return { bytes: dice.bytes(5000), messages: 1 };
  const flags = Buffer.alloc(4);
  flags.writeUInt32BE(dice.chance(97) ? dice.below(4) : dice.word());
  parts.push(flags);
  let messages = 1;
  for (let i = dice.chance(40) ? dice.below(6) : 0; i > 0; i--, messages++) parts.push(badOption(dice));
  if (dice.chance(90)) {
    if (dice.chance(70)) parts.push(Buffer.from(encodeOption(Option.STRUCTURED_REPLY, Buffer.alloc(0))));
    if (dice.chance(50)) {
      const data = encodeMetaRequest({ name: 'disk', queries: ['base:allocation'] });
      parts.push(Buffer.from(encodeOption(Option.SET_META_CONTEXT, data)));
    }
    parts.push(Buffer.from(encodeOption(Option.GO, encodeInfoRequest({ name: 'disk', infos: [] }))));
    for (let i = 1 + dice.below(30); i > 0; i--, messages++) parts.push(badRequest(dice));
  }
  return { bytes: Buffer.concat(parts), messages };
}

/** Sends it, in one go or in crumbs, and waits until the server has closed the connection. */
async function attack(dice: Dice, address: string, bytes: Buffer): Promise<void> {
  const socket = net.connect(Number(address.split(':')[1]), '127.0.0.1');
  socket.on('error', () => undefined);
  socket.resume();
  const closed = new Promise((resolve) => socket.once('close', resolve));
  if (dice.chance(10)) {
    for (let at = 0; at < bytes.length; ) {
      const crumb = 1 + dice.below(bytes.length);
      socket.write(bytes.subarray(at, at + crumb));
      at += crumb;
      await new Promise((resolve) => setImmediate(resolve));
    }
  } else {
    socket.write(bytes);
  }
  if (dice.chance(20)) socket.destroy();
  else socket.end();
  await closed;
}

describe('fuzzing', () => {
  it(`${COUNT} malformed handshakes leave the state machine in a defined state`, () => {
    const dice = new Dice(seed);
    const disk = new MemoryDevice({ name: 'disk' });
    const outcomes = { more: 0, again: 0, transmit: 0, close: 0, drop: 0, starttls: 0 };
    for (let i = 0; i < COUNT; i++) {
      let sent = 0;
      const handshake = new Handshake({
        exports: exportsOf(disk),
        tls: dice.one('off', 'optional', 'required'),
        secured: dice.chance(50),
        shuttingDown: dice.chance(10),
        attach: () => undefined,
        lend: () => undefined,
        reply: (bytes) => {
          sent += bytes.length;
        },
      });
      const input = Buffer.concat([Buffer.from([0, 0, 0, 3]), badOption(dice), badOption(dice)]);
      let outcome: keyof typeof outcomes = 'more';
      for (let at = 0; at < input.length && (outcome === 'more' || outcome === 'again'); ) {
        const step = handshake.feed(input.subarray(at, at + 1 + dice.below(input.length)));
        expect(step.consumed > 0).toBe(outcome === 'more');
        at += step.consumed;
        outcome = step.outcome.kind;
      }
      outcomes[outcome] += 1;
      expect(sent).toBeLessThan(100_000);
    }
    // Every way out was taken, or the generator is no good.
    for (const [kind, count] of Object.entries(outcomes)) expect(count, kind).toBeGreaterThan(0);
  });

  it(`${COUNT} malformed messages on live connections harm nobody else and leak nothing`, async () => {
    const disk = new MemoryDevice({ name: 'disk', sizeBytes: SIZE });
    const safe = new MemoryDevice({ name: 'safe', sizeBytes: 4 * MiB });
    // Some operations complete later, so that connections break while they are under way.
    const delays = new Dice(seed - 1);
    disk.delay = () =>
      delays.chance(20) ? new Promise((resolve) => setTimeout(resolve, delays.below(3))) : undefined;
    const test = await startTestServer([disk, safe]);
    const polite = await RawClient.serving(test.address, 'safe');
    let running = true;
    let verified = 0;
    const verifying = (async () => {
      const dice = new Dice(seed + 1);
      const shadow = Buffer.alloc(4 * MiB);
      while (running) {
        const payload = dice.bytes(30_000);
        const offset = dice.below(shadow.length - payload.length);
        payload.copy(shadow, offset);
        expect(await polite.writeAt(offset, payload)).toBe(0);
        const at = dice.below(shadow.length - 40_000);
        expect((await polite.readAt(at, 40_000)).data.equals(shadow.subarray(at, at + 40_000))).toBe(true);
        verified += 1;
      }
    })();
    let messages = 0;
    let rssMax = 0;
    const rssBefore = process.memoryUsage.rss();
    await Promise.all(
      Array.from({ length: PARALLEL }, async (_, worker) => {
        const dice = new Dice(seed + 2 + worker);
        while (messages < COUNT) {
          const { bytes, messages: count } = nonsense(dice);
          messages += count;
          await attack(dice, test.address, bytes);
          rssMax = Math.max(rssMax, process.memoryUsage.rss());
        }
      }),
    );
    running = false;
    await verifying;
    expect(verified).toBeGreaterThan(COUNT / 1000);
    await eventually(() => test.server.stats().connections === 1, 'every slot came back');
    await eventually(() => disk.clients === 0, 'the device has no client left');
    expect(test.log.filter(({ level }) => level === 'error')).toEqual([]);
    const { memory, requests, errors, dropped } = test.server.stats();
    // Much of it got as far as it was meant to, or the generator is no good.
    expect(Object.values(requests).every((count, i) => i === Command.DISC || count > COUNT / 1000)).toBe(
      true,
    );
    expect(errors).toBeGreaterThan(COUNT / 20);
    expect(dropped).toBeGreaterThan(COUNT / 1000);
    expect(memory).toMatchObject({ smallUsed: 0, largeUsed: 0, waiting: 0 });
    expect(memory.bytes).toBeLessThanOrEqual(128 * MiB);
    expect((rssMax - rssBefore) / MiB).toBeLessThan(600);
    await polite.close();
    await test.stop();
    expect(addon.arenaStats().arenas).toBe(0);
    expect(openSockets()).toBe(0);
  }, 300_000);
});
