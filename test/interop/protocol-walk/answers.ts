/**
 * Replies of the transmission phase, one server's on one connection, joined into one answer for each request: chunks into
 * the bytes that were read, errors into a code, a block status into extents. Whatever doc/proto.md forbids is an error here.
 */
import type { ByteStream } from './byte-stream.js';
import { CHUNK_MAGIC, CMD, ERRORS, FLAG, type RequestHeader, SIMPLE_MAGIC, STRING_MAX } from './wire.js';

export interface Extent {
  readonly length: number;
  readonly state: number;
}

export interface Answer {
  readonly error: number;
  /** What a READ returned, holes filled in. */
  readonly data: Buffer;
  /** As they came: the last may pass the end of the request. */
  readonly extents: readonly Extent[];
}

const EMPTY = Buffer.alloc(0);
const DONE = 1;

interface Pending {
  readonly request: RequestHeader;
  /** From the first content on: a READ that is refused may ask for gigabytes. */
  data: Buffer;
  /** Ranges that content chunks told of, relative to the request. */
  readonly told: [number, number][];
  extents: Extent[];
  error: number;
}

export class Answers {
  readonly #stream: ByteStream;
  readonly #structured: boolean;
  /** Of the context that was selected, as this server named it. */
  readonly #contextId: number | undefined;
  readonly #pending = new Map<bigint, Pending>();
  readonly #answered = new Map<bigint, Answer>();

  constructor(stream: ByteStream, structured: boolean, contextId: number | undefined) {
    this.#stream = stream;
    this.#structured = structured;
    this.#contextId = contextId;
  }

  expect(request: RequestHeader): void {
    this.#pending.set(request.cookie, { request, data: EMPTY, told: [], extents: [], error: 0 });
  }

  /** Reads until every request is answered, or the server has closed. */
  async collect(): Promise<void> {
    while (this.#pending.size > 0) {
      const magic = await this.#stream.take(4);
      if (magic === undefined) return;
      if (magic.readUInt32BE() === SIMPLE_MAGIC) await this.#simple();
      else if (magic.readUInt32BE() === CHUNK_MAGIC) await this.#chunk();
      else throw new Error(`neither a reply nor a chunk: ${magic.toString('hex')}`);
    }
  }

  /** Undefined where the server closed without an answer. */
  take(cookie: bigint): Answer | undefined {
    const answer = this.#answered.get(cookie);
    this.#answered.delete(cookie);
    return answer;
  }

  async #simple(): Promise<void> {
    const bytes = await this.#stream.must(12);
    const pending = this.#of(bytes.readBigUInt64BE(4));
    const { type, length } = pending.request;
    if (this.#structured && type === CMD.READ) throw new Error('a simple reply to a READ, not chunks');
    this.#fail(pending, bytes.readUInt32BE());
    if (pending.error === 0 && type === CMD.READ) {
      pending.told.push([0, length]);
      pending.data = await this.#stream.must(length);
    }
    this.#finish(pending);
  }

  async #chunk(): Promise<void> {
    if (!this.#structured) throw new Error('a chunk, but structured replies were not negotiated');
    const header = await this.#stream.must(16);
    const flags = header.readUInt16BE();
    if ((flags & ~DONE) !== 0) throw new Error(`chunk flags ${flags}`);
    const pending = this.#of(header.readBigUInt64BE(4));
    const payload = await this.#stream.must(header.readUInt32BE(12));
    this.#content(pending, header.readUInt16BE(2), payload, flags === DONE);
    if (flags === DONE) this.#finish(pending);
  }

  #content(pending: Pending, type: number, payload: Buffer, done: boolean): void {
    switch (type) {
      case 0:
        if (payload.length !== 0 || !done) throw new Error('a chunk NONE that is not the empty end');
        return;
      case 1:
        if (payload.length < 9) throw new Error('a chunk of no data');
        this.#data(pending, payload);
        return;
      case 2:
        if (payload.length !== 12) throw new Error(`a hole of ${payload.length} bytes`);
        this.#tell(pending, payload.readBigUInt64BE(), payload.readUInt32BE(8));
        return;
      case 5:
        this.#status(pending, payload);
        return;
      case 0x8001:
      case 0x8002:
        this.#error(pending, payload, type === 0x8002);
        return;
      default:
        throw new Error(`a chunk of type ${type}`);
    }
  }

  #data(pending: Pending, payload: Buffer): void {
    const at = this.#tell(pending, payload.readBigUInt64BE(), payload.length - 8);
    payload.copy(pending.data, at, 8);
  }

  /** Where in the request it lies; each byte is told of once, by one chunk alone where DF asks for it. */
  #tell(pending: Pending, offset: bigint, length: number): number {
    const { request, told } = pending;
    const at = Number(offset - request.offset);
    if (request.type !== CMD.READ) throw new Error('content for what is no READ');
    if (length === 0 || at < 0 || at + length > request.length)
      throw new Error('content outside the request');
    if (told.some(([from, to]) => at < to && from < at + length)) throw new Error('content told twice');
    if ((request.flags & FLAG.DF) !== 0 && told.length > 0) throw new Error('two content chunks, despite DF');
    told.push([at, at + length]);
    if (pending.data.length === 0) pending.data = Buffer.alloc(request.length);
    return at;
  }

  #status(pending: Pending, payload: Buffer): void {
    const { request } = pending;
    if (request.type !== CMD.BLOCK_STATUS || pending.extents.length > 0)
      throw new Error('a second block status');
    if (payload.readUInt32BE() !== this.#contextId) throw new Error('a block status of another context');
    if (payload.length < 12 || payload.length % 8 !== 4)
      throw new Error(`a block status of ${payload.length} bytes`);
    for (let at = 4; at < payload.length; at += 8)
      pending.extents.push({ length: payload.readUInt32BE(at), state: payload.readUInt32BE(at + 4) });
    const lengths = pending.extents.map(({ length }) => length);
    const beforeLast = lengths.slice(0, -1).reduce((sum, length) => sum + length, 0);
    if (lengths.includes(0) || beforeLast >= request.length) throw new Error('extents of no use');
    const one = (request.flags & FLAG.REQ_ONE) !== 0;
    if (one && (lengths.length > 1 || lengths[0]! > request.length))
      throw new Error('more than REQ_ONE asks for');
  }

  #error(pending: Pending, payload: Buffer, withOffset: boolean): void {
    const messageBytes = payload.readUInt16BE(4);
    if (messageBytes > STRING_MAX) throw new Error(`an error's message of ${messageBytes} bytes`);
    if (payload.length !== 6 + messageBytes + (withOffset ? 8 : 0))
      throw new Error('an error of another length');
    new TextDecoder('utf-8', { fatal: true }).decode(payload.subarray(6, 6 + messageBytes));
    this.#fail(pending, payload.readUInt32BE());
    if (pending.error === 0) throw new Error('an error chunk without an error');
    if (!withOffset) return;
    const at = Number(payload.readBigUInt64BE(6 + messageBytes) - pending.request.offset);
    if (at < 0 || at >= pending.request.length) throw new Error('an error outside the request');
  }

  #fail(pending: Pending, error: number): void {
    if (!ERRORS.has(error)) throw new Error(`error ${error}, which the protocol does not know`);
    pending.error = error;
  }

  #of(cookie: bigint): Pending {
    const pending = this.#pending.get(cookie);
    if (pending === undefined) throw new Error(`an answer to ${cookie}, which nobody asked`);
    return pending;
  }

  #finish({ request, data, told, extents, error }: Pending): void {
    if (error === 0 && request.type === CMD.READ) {
      const bytes = told.reduce((sum, [from, to]) => sum + to - from, 0);
      if (bytes !== request.length) throw new Error(`${bytes} bytes of ${request.length} were told`);
    }
    if (error === 0 && request.type === CMD.BLOCK_STATUS && extents.length === 0)
      throw new Error('no block status');
    this.#pending.delete(request.cookie);
    this.#answered.set(request.cookie, { error, data: error === 0 ? data : EMPTY, extents });
  }
}
