/** A socket that is read by the count, and written in given pieces. */
import net from 'node:net';
import { setImmediate } from 'node:timers/promises';

/** Far beyond what any answer takes. A server that says nothing for so long is cut, which the walk then reports. */
const SILENCE_MS = 30_000;

export class ByteStream {
  readonly #socket: net.Socket;
  /** Resolves when both sides are closed, in whatever way. */
  readonly closed: Promise<void>;
  /** The server was cut, since it said nothing. */
  silent = false;
  #received: Buffer[] = [];
  #bytes = 0;
  #ended = false;
  #wake: (() => void) | undefined;

  private constructor(socket: net.Socket) {
    this.#socket = socket;
    socket.on('data', (data) => {
      this.#received.push(data);
      this.#bytes += data.length;
      this.#wake?.();
    });
    const end = () => {
      this.#ended = true;
      this.#wake?.();
    };
    socket.on('end', end);
    // A reset is one of the ways to close; 'close' follows.
    socket.on('error', () => undefined);
    socket.on('timeout', () => {
      this.silent = true;
      socket.destroy();
    });
    this.closed = new Promise((resolve) => {
      socket.on('close', () => {
        end();
        resolve();
      });
    });
  }

  /** `address` is HOST:PORT, or the path of a unix socket. */
  static connect(address: string): Promise<ByteStream> {
    const [host, port] = address.split(':');
    const options =
      port === undefined ? { path: address } : { host: host!, port: Number(port), noDelay: true };
    return new Promise((resolve, reject) => {
      const socket = net.connect({ ...options, allowHalfOpen: true });
      socket.once('connect', () => resolve(new ByteStream(socket)));
      socket.once('error', reject);
    });
  }

  /** Each piece in a turn of its own. A server that went away has its say when it is read from. */
  async send(pieces: readonly Uint8Array[]): Promise<void> {
    for (const [i, piece] of pieces.entries()) {
      if (i > 0) await setImmediate();
      if (!this.#socket.writable) return;
      this.#socket.write(piece);
    }
  }

  end(): void {
    this.#socket.end();
  }

  destroy(): Promise<void> {
    this.#socket.destroy();
    return this.closed;
  }

  /** Undefined where the server closed before the first of them; rejects where it closed in the midst. */
  async take(count: number): Promise<Buffer | undefined> {
    this.#socket.setTimeout(SILENCE_MS);
    try {
      return await this.#take(count);
    } finally {
      // Between two walks nobody needs to say anything.
      this.#socket.setTimeout(0);
    }
  }

  /** The same, where more must come. */
  async must(count: number): Promise<Buffer> {
    const bytes = await this.take(count);
    if (bytes === undefined && count > 0) throw new Error('closed in the midst of a message');
    return bytes ?? Buffer.alloc(0);
  }

  async #take(count: number): Promise<Buffer | undefined> {
    while (this.#bytes < count) {
      if (this.#ended) {
        if (this.#bytes > 0)
          throw new Error(`closed ${count - this.#bytes} bytes before the end of a message`);
        return undefined;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const all = this.#received.length === 1 ? this.#received[0]! : Buffer.concat(this.#received);
    this.#received = all.length > count ? [all.subarray(count)] : [];
    this.#bytes -= count;
    return all.subarray(0, count);
  }
}
