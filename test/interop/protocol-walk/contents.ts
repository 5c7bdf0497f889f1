/** A well-behaved client of one export, which sets it back before a walk and reads all of it after one. */
import { Answers } from './answers.js';
import { ByteStream } from './byte-stream.js';
import { CMD, infoData, OPT, option, PAYLOAD_MAX, type RequestHeader, requestHeader, u32 } from './wire.js';

export class Contents {
  readonly #stream: ByteStream;
  readonly #answers: Answers;
  #cookie = 0n;

  private constructor(stream: ByteStream) {
    this.#stream = stream;
    this.#answers = new Answers(stream, true, undefined);
  }

  static async open(address: string, name: string): Promise<Contents> {
    const stream = await ByteStream.connect(address);
    await stream.must(18);
    await stream.send([
      u32(3),
      option(OPT.STRUCTURED_REPLY, Buffer.alloc(0)),
      option(OPT.GO, infoData(Buffer.from(name), [])),
    ]);
    for (let acknowledged = 0; acknowledged < 2; ) {
      const header = await stream.must(20);
      const reply = header.readUInt32BE(12);
      await stream.must(header.readUInt32BE(16));
      if (reply >= 2 ** 31) throw new Error(`option reply ${reply - 2 ** 31} at ${name}`);
      if (reply === 1) acknowledged += 1;
    }
    return new Contents(stream);
  }

  async clear(size: number): Promise<void> {
    await this.#call(CMD.WRITE_ZEROES, 0, size);
  }

  async write(offset: number, payload: Buffer): Promise<void> {
    await this.#call(CMD.WRITE, offset, payload.length, payload);
  }

  async read(size: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    for (let at = 0; at < size; at += PAYLOAD_MAX)
      parts.push(await this.#call(CMD.READ, at, Math.min(PAYLOAD_MAX, size - at)));
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  }

  close(): Promise<void> {
    return this.#stream.destroy();
  }

  async #call(type: number, offset: number, length: number, payload?: Buffer): Promise<Buffer> {
    const request: RequestHeader = { type, flags: 0, cookie: ++this.#cookie, offset: BigInt(offset), length };
    this.#answers.expect(request);
    await this.#stream.send(
      payload === undefined ? [requestHeader(request)] : [requestHeader(request), payload],
    );
    await this.#answers.collect();
    const answer = this.#answers.take(request.cookie);
    if (answer?.error !== 0) throw new Error(`command ${type} at ${offset}: ${answer?.error ?? 'closed'}`);
    return answer.data;
  }
}
