/**
 * Where TLS goes in: the seam between handshake and transport. The transport put in place here only turns bits over,
 * which shows what the server itself does at the switch. TLS proper: nbd-tls.test.ts.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Chunk } from '../../src/nbd/chunk-pool.js';
import type { SendBatch, Transport, TransportEvents } from '../../src/nbd/transport.js';
import { Feature, Option, Rep } from '../../src/nbd/wire/constants.js';
import { encodeInfoRequest, encodeOption } from '../../src/nbd/wire/option.js';
import { MemoryDevice } from '../support/memory-device.js';
import { RawClient } from '../support/nbd-raw-client.js';
import { startTestServer, type TestServer } from '../support/nbd-test-server.js';

/** Turns every bit over, so that nothing that bypassed it can be taken for the real thing. */
class InvertingTransport implements Transport, TransportEvents {
  readonly identity = undefined;
  readonly unflushedBytes = 0;
  events: TransportEvents | undefined;
  readonly #inner: Transport;

  constructor(inner: Transport) {
    this.#inner = inner;
    inner.events = this;
  }

  get peer(): string {
    return this.#inner.peer;
  }

  onReady(mask: number): boolean {
    return this.events?.onReady(mask) ?? false;
  }

  receive(chunk: Chunk, offset: number, length: number): number {
    const count = this.#inner.receive(chunk, offset, length);
    if (count > 0) invert(chunk.arena.bytes.subarray(offset, offset + count));
    return count;
  }

  send(batch: SendBatch): number {
    for (let i = 0; i < batch.count; i++) invert(batch.bytesOf(i));
    const sent = this.#inner.send(batch);
    if (sent !== batch.bytes) throw new Error('these replies are small and fit');
    return sent;
  }

  setInterest(mask: number): void {
    this.#inner.setInterest(mask);
  }

  finish(): void {
    this.#inner.finish();
  }

  close(): void {
    this.#inner.close();
  }

  release(): number {
    return this.#inner.release();
  }
}

function invert<T extends Uint8Array>(bytes: T): T {
  for (let i = 0; i < bytes.length; i++) bytes[i] ^= 0xff;
  return bytes;
}

let test: TestServer;
let client: RawClient;

beforeEach(async () => {
  test = await startTestServer([new MemoryDevice({ name: 'disk', sizeBytes: 4096 })], {
    tls: { required: true, upgrade: (transport) => new InvertingTransport(transport) },
  });
  client = await RawClient.connect(test.address);
  await client.greet();
});

afterEach(async () => {
  await client.close();
  await test.stop();
});

const go = encodeInfoRequest({ name: 'disk', infos: [] });

/** An option sent and answered under the new transport; returns the bytes of its first reply's data. */
async function secured(option: number, data: Uint8Array): Promise<{ reply: number; data: Buffer }> {
  client.write(invert(encodeOption(option, data)));
  const header = invert(await client.read(20));
  const body = invert(await client.read(header.readUInt32BE(16)));
  return { reply: header.readUInt32BE(12), data: body };
}

describe('STARTTLS', () => {
  it('switches the transport after its acknowledgement, which is sent as before', async () => {
    expect((await client.option(Option.LIST)).map(({ reply }) => reply)).toEqual([Rep.ERR_TLS_REQD]);
    expect((await client.option(Option.STARTTLS)).map(({ reply }) => reply)).toEqual([Rep.ACK]);
    const info = await secured(Option.GO, go);
    expect(info.reply).toBe(Rep.INFO);
    expect(info.data.readUInt16BE(10) & Feature.HAS_FLAGS).toBe(Feature.HAS_FLAGS);
    expect(test.server.clients()[0].exportName).toBe('disk');
  });

  it('discards plaintext that came behind it (CVE-2021-3716)', async () => {
    const injected = encodeOption(Option.GO, go);
    client.write(Buffer.concat([encodeOption(Option.STARTTLS, Buffer.alloc(0)), injected]));
    expect((await client.optionReplies(Option.STARTTLS)).map(({ reply }) => reply)).toEqual([Rep.ACK]);
    // The next answer is to what was sent afterwards, not to the injected GO.
    expect((await secured(Option.STARTTLS, Buffer.alloc(0))).reply).toBe(Rep.ERR_INVALID);
    expect(test.server.clients()[0].exportName).toBeUndefined();
  });

  it('is not taken back: an option in the clear drops the connection', async () => {
    await client.option(Option.STARTTLS);
    client.write(encodeOption(Option.GO, go));
    await client.closed;
    expect(test.server.stats()).toMatchObject({ connections: 0, dropped: 1 });
  });
});
