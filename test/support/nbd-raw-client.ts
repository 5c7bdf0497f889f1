/**
 * An NBD client that sends exactly what a test tells it to, polite or not. It decodes with the same codec as the
 * server, whose own tests pin it to bytes.
 */
import net from 'node:net';
import tls from 'node:tls';
import { viewOf } from '../../src/nbd/wire/bytes.js';
import {
  CHUNK_FLAG_DONE,
  CHUNK_HEADER_BYTES,
  Chunk,
  Command,
  GREETING_BYTES,
  MAGIC_SIMPLE_REPLY,
  OPTION_REPLY_HEADER_BYTES,
  Option,
  REQUEST_HEADER_BYTES,
  Rep,
  SIMPLE_REPLY_BYTES,
} from '../../src/nbd/wire/constants.js';
import {
  decodeOptionReplyHeader,
  encodeInfoRequest,
  encodeMetaRequest,
  encodeOption,
} from '../../src/nbd/wire/option.js';
import {
  decodeBlockStatus,
  decodeChunkHeader,
  decodeErrorChunk,
  decodeHole,
  decodeSimpleReply,
  type WireExtent,
} from '../../src/nbd/wire/reply.js';
import { encodeRequest } from '../../src/nbd/wire/request.js';

export interface OptionReply {
  readonly reply: number;
  readonly data: Buffer;
}

/** One message of the server: a simple reply, or one chunk. */
export interface Message {
  readonly simple: boolean;
  readonly cookie: number;
  readonly type: number;
  readonly done: boolean;
  readonly error: number;
  readonly errorOffset: number | undefined;
  readonly offset: number;
  readonly data: Buffer;
  readonly hole: number;
  readonly extents: WireExtent[];
}

/** All messages that answer one request. */
export interface Answer {
  readonly error: number;
  readonly messages: Message[];
  /** What a READ returned, holes filled in. */
  readonly data: Buffer;
}

export interface SendOptions {
  readonly flags?: number;
  readonly cookie?: number;
  readonly payload?: Uint8Array;
  /** In the header, where it is to differ from the payload's. */
  readonly length?: number;
}

const EMPTY = Buffer.alloc(0);

export class OptionRefused extends Error {
  readonly reply: number;

  constructor(option: string, reply: number) {
    super(`${option} was answered with ${reply}`);
    this.reply = reply;
  }
}

export class RawClient {
  socket: net.Socket;
  /** What carries `socket` where that is TLS; else the same. */
  readonly plain: net.Socket;
  /** As the server calls this client. */
  readonly peer: string;
  /** Resolves when the server closed the connection, in whatever way. */
  readonly closed: Promise<void>;
  structured = false;
  #received: Buffer[] = [];
  #bytes = 0;
  #isClosed = false;
  #wake: (() => void) | undefined;
  #cookie = 0;
  readonly #reads = new Map<number, { offset: number; length: number }>();

  private constructor(socket: net.Socket) {
    this.socket = socket;
    this.plain = socket;
    this.peer = `${socket.localAddress}:${socket.localPort}`;
    this.#listen(socket);
    // A reset is one of the ways to close; 'close' follows.
    socket.on('error', () => undefined);
    this.closed = new Promise((resolve) => {
      socket.on('close', () => {
        this.#isClosed = true;
        this.#wake?.();
        resolve();
      });
    });
  }

  /** `address` as the server tells it: 'HOST:PORT', '[HOST]:PORT' or 'unix:PATH'. */
  static connect(address: string): Promise<RawClient> {
    const path = address.startsWith('unix:') ? address.slice(5) : undefined;
    const colon = address.lastIndexOf(':');
    const host = address.slice(0, colon).replace(/^\[|\]$/g, '');
    const socket =
      path === undefined ? net.connect(Number(address.slice(colon + 1)), host) : net.connect(path);
    socket.setNoDelay(true);
    return new Promise((resolve, reject) => {
      socket.once('connect', () => resolve(new RawClient(socket)));
      socket.once('error', reject);
    });
  }

  /** Greeted, perhaps under TLS, structured and in the transmission phase of `name`. */
  static async serving(
    address: string,
    name: string,
    options: { structured?: boolean; meta?: boolean; tls?: tls.ConnectionOptions | undefined } = {},
  ): Promise<RawClient> {
    const client = await RawClient.connect(address);
    try {
      await client.greet();
      if (options.tls !== undefined) await client.startTls(options.tls);
      await client.#go(name, options.structured ?? true, options.meta ?? false);
    } catch (error) {
      await client.close();
      throw error;
    }
    return client;
  }

  async #go(name: string, structured: boolean, meta: boolean): Promise<void> {
    if (structured) {
      await this.option(Option.STRUCTURED_REPLY);
      this.structured = true;
    }
    if (meta) {
      const data = encodeMetaRequest({ name, queries: ['base:allocation'] });
      await this.option(Option.SET_META_CONTEXT, data);
    }
    const replies = await this.option(Option.GO, encodeInfoRequest({ name, infos: [] }));
    const last = replies.at(-1);
    if (last?.reply !== Rep.ACK) throw new OptionRefused('GO', last?.reply ?? 0);
  }

  #listen(socket: net.Socket): void {
    socket.on('data', (data) => {
      this.#received.push(data);
      this.#bytes += data.length;
      this.#wake?.();
    });
  }

  /** STARTTLS and the handshake; rejects where either is refused. */
  async startTls(options: tls.ConnectionOptions): Promise<void> {
    const [{ reply }] = await this.option(Option.STARTTLS);
    if (reply !== Rep.ACK) throw new Error(`STARTTLS was answered with ${reply}`);
    await this.secure(options);
  }

  /** The handshake alone. */
  async secure(options: tls.ConnectionOptions): Promise<void> {
    this.socket.removeAllListeners('data');
    const secured = tls.connect({ ...options, socket: this.socket });
    await new Promise<void>((resolve, reject) => {
      secured.once('secureConnect', resolve);
      secured.once('error', reject);
      secured.once('close', () => reject(new Error('closed during the TLS handshake')));
    });
    secured.on('error', () => undefined);
    this.socket = secured;
    this.#listen(secured);
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  write(bytes: Uint8Array): void {
    this.socket.write(bytes);
  }

  close(): Promise<void> {
    this.socket.destroy();
    return this.closed;
  }

  async read(count: number): Promise<Buffer> {
    while (this.#bytes < count) {
      if (this.#isClosed)
        throw new Error(`the server closed the connection, ${count - this.#bytes} bytes short`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const all = this.#received.length === 1 ? this.#received[0] : Buffer.concat(this.#received);
    this.#received = all.length > count ? [all.subarray(count)] : [];
    this.#bytes -= count;
    return all.subarray(0, count);
  }

  async greet(clientFlags = 3): Promise<Buffer> {
    const greeting = await this.read(GREETING_BYTES);
    const flags = Buffer.alloc(4);
    flags.writeUInt32BE(clientFlags);
    this.write(flags);
    return greeting;
  }

  /** Sends one option and reads its replies up to the final one. */
  option(option: number, data: Uint8Array = EMPTY): Promise<OptionReply[]> {
    this.write(encodeOption(option, data));
    return this.optionReplies(option);
  }

  async optionReplies(option: number): Promise<OptionReply[]> {
    const replies: OptionReply[] = [];
    for (;;) {
      const header = decodeOptionReplyHeader(await this.read(OPTION_REPLY_HEADER_BYTES));
      if (header === undefined) throw new Error('not an option reply');
      if (header.option !== option) throw new Error(`a reply to option ${header.option}, not ${option}`);
      replies.push({ reply: header.reply, data: await this.read(header.length) });
      if (header.reply === Rep.ACK || header.reply >= Rep.ERR_UNSUP) return replies;
    }
  }

  /** Sends a request; returns its cookie. */
  send(type: number, offset: number, length: number, options: SendOptions = {}): number {
    const cookie = options.cookie ?? ++this.#cookie;
    const header = Buffer.alloc(REQUEST_HEADER_BYTES);
    encodeRequest(viewOf(header), 0, {
      flags: options.flags ?? 0,
      type,
      cookieHigh: 0x5ea1bd,
      cookieLow: cookie,
      offset,
      length: options.length ?? length,
    });
    if (type === Command.READ) this.#reads.set(cookie, { offset, length });
    this.write(options.payload === undefined ? header : Buffer.concat([header, options.payload]));
    return cookie;
  }

  async message(): Promise<Message> {
    const magic = await this.read(4);
    if (magic.readUInt32BE() === MAGIC_SIMPLE_REPLY) return this.#simple(magic);
    const bytes = Buffer.concat([magic, await this.read(CHUNK_HEADER_BYTES - 4)]);
    const header = decodeChunkHeader(viewOf(bytes), 0);
    if (header === undefined) throw new Error(`neither a reply nor a chunk: ${bytes.toString('hex')}`);
    const payload = await this.read(header.length);
    const error = header.type >= Chunk.ERROR ? decodeErrorChunk(payload, header.type) : undefined;
    if (header.type >= Chunk.ERROR && error === undefined) throw new Error('a malformed error chunk');
    const hole = header.type === Chunk.OFFSET_HOLE ? decodeHole(viewOf(payload), 0) : undefined;
    const isData = header.type === Chunk.OFFSET_DATA;
    const status =
      header.type === Chunk.BLOCK_STATUS ? decodeBlockStatus(viewOf(payload), 0, payload.length) : undefined;
    return {
      simple: false,
      cookie: header.cookieLow,
      type: header.type,
      done: (header.flags & CHUNK_FLAG_DONE) !== 0,
      error: error?.error ?? 0,
      errorOffset: error?.offset,
      offset: hole?.offset ?? (isData ? Number(payload.readBigUInt64BE()) : 0),
      data: isData ? payload.subarray(8) : EMPTY,
      hole: hole?.length ?? 0,
      extents: status?.extents ?? [],
    };
  }

  async #simple(magic: Buffer): Promise<Message> {
    const bytes = Buffer.concat([magic, await this.read(SIMPLE_REPLY_BYTES - 4)]);
    const reply = decodeSimpleReply(viewOf(bytes), 0);
    if (reply === undefined) throw new Error('not a simple reply');
    const read = this.#reads.get(reply.cookieLow);
    const length = read !== undefined && reply.error === 0 && !this.structured ? read.length : 0;
    return {
      simple: true,
      cookie: reply.cookieLow,
      type: -1,
      done: true,
      error: reply.error,
      errorOffset: undefined,
      offset: read?.offset ?? 0,
      data: await this.read(length),
      hole: 0,
      extents: [],
    };
  }

  /** Reads the answer to `cookie`; fails where another request is answered first. */
  async answer(cookie: number): Promise<Answer> {
    const messages: Message[] = [];
    for (;;) {
      const message = await this.message();
      if (message.cookie !== cookie) throw new Error(`cookie ${message.cookie} was answered, not ${cookie}`);
      messages.push(message);
      if (message.done) break;
    }
    const read = this.#reads.get(cookie);
    this.#reads.delete(cookie);
    const error = messages.find((message) => message.error !== 0)?.error ?? 0;
    const data = Buffer.alloc(error === 0 && read !== undefined ? read.length : 0);
    if (data.length > 0 && read !== undefined) {
      for (const message of messages) message.data.copy(data, message.offset - read.offset);
    }
    return { error, messages, data };
  }

  async call(type: number, offset: number, length: number, options: SendOptions = {}): Promise<Answer> {
    return await this.answer(this.send(type, offset, length, options));
  }

  async readAt(offset: number, length: number, flags = 0): Promise<Answer> {
    return await this.call(Command.READ, offset, length, { flags });
  }

  async writeAt(offset: number, payload: Uint8Array, flags = 0): Promise<number> {
    return (await this.call(Command.WRITE, offset, payload.length, { payload, flags })).error;
  }
}
