/** The troubles, by name. Each leaves blocks that the model knows, or none. */
import { setTimeout as sleep } from 'node:timers/promises';
import type tls from 'node:tls';
import { Command, Errno, Option, REQUEST_HEADER_BYTES, Rep } from '../../../src/nbd/wire/constants.js';
import { encodeInfoRequest, encodeOption } from '../../../src/nbd/wire/option.js';
import type { RawClient } from '../nbd-raw-client.js';
import { PipelinedClient } from '../pipelined-client.js';
import type { Trouble, Troublemaker } from './troublemaker.js';

const MiB = 2 ** 20;
/** More than the server and the kernel hold for a client that reads nothing. */
const STALLED_READS = 24;
/** Shorter than what the configuration of a soak allows. */
const STALL_MS_MIN = 100;
const STALL_MS_MAX = 1000;
/** The first bytes of a ClientHello: a record of 512 bytes, and its handshake header. */
const CLIENT_HELLO = Buffer.from([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]);
/** All clients together hold more than this. */
const SHARED_BYTES = 2 * MiB;

const stallMs = (maker: Troublemaker) => STALL_MS_MIN + maker.int(STALL_MS_MAX - STALL_MS_MIN);

/** What a client sends until it serves, as one piece. */
function handshakeOf(volume: string): Buffer {
  const go = encodeOption(Option.GO, encodeInfoRequest({ name: volume, infos: [] }));
  return Buffer.concat([
    Buffer.from([0, 0, 0, 3]),
    encodeOption(Option.STRUCTURED_REPLY, Buffer.alloc(0)),
    go,
  ]);
}

async function startedTls(maker: Troublemaker): Promise<RawClient> {
  const client = await maker.connect();
  await client.greet();
  const [{ reply }] = await client.option(Option.STARTTLS);
  if (reply !== Rep.ACK) throw new Error(`STARTTLS was answered with ${reply}`);
  return client;
}

/** Reads that nobody takes, so that replies queue. */
async function readsUntaken(maker: Troublemaker): Promise<{ raw: RawClient; reads: Promise<Outcome[]> }> {
  const raw = await maker.attach();
  const client = PipelinedClient.over(raw);
  raw.socket.pause();
  const reads = Array.from({ length: STALLED_READS }, async () => {
    const { error } = await maker.readAnywhere(client, MiB, SHARED_BYTES);
    if (error !== 0) throw new Error(`READ was answered with error ${error}`);
  });
  return { raw, reads: outcomes(reads) };
}

/** Of a request: how it failed. */
type Outcome = Error | undefined;

function outcomes(requests: readonly Promise<unknown>[]): Promise<Outcome[]> {
  const one = (request: Promise<unknown>) =>
    request.then(
      () => undefined,
      (error: unknown) => (error instanceof Error ? error : new Error(String(error))),
    );
  return Promise.all(requests.map(one));
}

/** Each was answered well, or, with `abandoned`, ended with the connection. */
function expectWell(all: readonly Outcome[], abandoned = false): void {
  for (const outcome of all) {
    if (outcome === undefined) continue;
    if (!abandoned || !outcome.message.includes('the server closed the connection')) throw outcome;
  }
}

export const TROUBLES: Readonly<Record<string, Trouble>> = {
  'leaves in the handshake': async (maker) => {
    const client = await maker.connect();
    const bytes = handshakeOf(maker.holding.volume.name);
    client.write(bytes.subarray(0, maker.int(bytes.length)));
    if (maker.random() < 0.5) client.socket.end();
    await sleep(maker.int(20));
  },

  'leaves in the TLS handshake': async (maker) => {
    const client = await startedTls(maker);
    client.write(CLIENT_HELLO.subarray(0, maker.int(CLIENT_HELLO.length)));
    if (maker.random() < 0.5) client.socket.end();
    await sleep(maker.int(20));
  },

  'is silent in the handshake': async (maker) => {
    const client = maker.random() < 0.5 ? await maker.connect() : await startedTls(maker);
    await maker.untilDropped(client);
  },

  'garbage for a handshake': async (maker) => {
    const client = maker.random() < 0.5 ? await maker.connect() : await startedTls(maker);
    // Flags that no client may have, or no record of TLS.
    client.write(Buffer.concat([Buffer.from([0xff]), maker.bytes(200)]));
    await maker.closed(client);
  },

  'garbage for a request': async (maker) => {
    const client = await maker.attach();
    client.write(Buffer.concat([Buffer.from([0xff]), maker.bytes(REQUEST_HEADER_BYTES * 4)]));
    await maker.closed(client);
  },

  'garbage under TLS': async (maker) => {
    const client = await maker.attach(maker.tls);
    client.plain.write(Buffer.concat([Buffer.from([23, 3, 3, 0, 64]), maker.bytes(64)]));
    await maker.closed(client);
  },

  'nonsense between requests': async (maker) => {
    const client = PipelinedClient.over(await maker.attach());
    const end = 2 ** 50;
    const payload = maker.bytes(5000);
    const answers = await Promise.all([
      client.call(Command.READ, end, 4096),
      client.call(Command.WRITE, end, payload.length, { payload }),
      client.call(99, 0, 0),
      client.call(Command.FLUSH, 4096, 4096),
      maker.readAnywhere(client, 64 * 1024, SHARED_BYTES),
    ]);
    const errors = answers.map(({ error }) => error);
    const expected = [Errno.EINVAL, Errno.ENOSPC, Errno.EINVAL, Errno.EINVAL, Errno.OK];
    if (errors.join() !== expected.join()) {
      if (errors.includes(Errno.ESHUTDOWN))
        throw new Error(`READ was answered with error ${Errno.ESHUTDOWN}`);
      throw new Error(`answered with ${errors.join()}, expected ${expected.join()}`);
    }
  },

  'leaves in the middle of a header': async (maker) => {
    const client = await maker.attach();
    const header = Buffer.alloc(REQUEST_HEADER_BYTES);
    header.writeUInt32BE(0x25609513);
    client.write(header.subarray(0, 1 + maker.int(header.length - 1)));
    await sleep(maker.int(20));
  },

  'leaves in the middle of a payload': async (maker) => {
    const client = await maker.attach();
    maker.sendPart(client, maker.prepare(0, maker.blocks));
    await sleep(maker.int(20));
  },

  'leaves without its answers': async (maker) => {
    const client = PipelinedClient.over(await maker.attach());
    const writes = maker.prepareAll().map((write) => maker.write(client, write));
    const reads = [1, 2, 3].map(() => maker.readAnywhere(client, MiB, SHARED_BYTES));
    const all = outcomes([...writes, ...reads, maker.holding.flush(client)]);
    await sleep(maker.int(10));
    await client.raw.close();
    expectWell(await all, true);
  },

  'takes no replies for a while': async (maker) => {
    const { raw, reads } = await readsUntaken(maker);
    await sleep(stallMs(maker));
    raw.socket.resume();
    expectWell(await reads);
  },

  'takes no replies any more': async (maker) => {
    const { raw, reads } = await readsUntaken(maker);
    await maker.untilDropped(raw);
    await raw.close();
    expectWell(await reads, true);
  },

  'pauses in the middle of a payload': async (maker) => {
    const client = await maker.attach();
    const write = maker.prepare(0, maker.blocks);
    const { rest, cookie } = maker.sendPart(client, write);
    await sleep(stallMs(maker));
    client.write(rest);
    const { error } = await client.answer(cookie);
    if (error !== 0) throw new Error(`WRITE was answered with error ${error}`);
    write.done();
  },

  'stops in the middle of a payload': async (maker) => {
    const client = await maker.attach();
    maker.sendPart(client, maker.prepare(0, maker.blocks));
    await maker.untilDropped(client);
  },

  'renegotiates in the middle of requests': async (maker) => {
    const raw = await maker.attach({ ...maker.tls, maxVersion: 'TLSv1.2' });
    const client = PipelinedClient.over(raw);
    const writes = outcomes(maker.prepareAll().map((write) => maker.write(client, write)));
    const socket = raw.socket as tls.TLSSocket;
    const error = await new Promise<Error | null>((resolve) => {
      socket.once('error', resolve);
      socket.once('close', () => resolve(new Error('the server closed the connection')));
      socket.renegotiate({}, resolve);
    });
    if (error === null) throw new Error('TLS was renegotiated');
    await raw.close();
    expectWell(await writes, true);
  },
};
