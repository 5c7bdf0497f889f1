/** An NBD client with many requests under way on one connection, answered in whatever order. */
import type tls from 'node:tls';
import { type Message, RawClient, type SendOptions } from './nbd-raw-client.js';

export interface Reply {
  /** 0, or an NBD error. */
  readonly error: number;
  /** What a READ returned. */
  readonly data: Buffer;
}

interface Pending {
  readonly data: Buffer;
  readonly offset: number;
  error: number;
  resolve(reply: Reply): void;
  reject(error: Error): void;
}

export class PipelinedClient {
  readonly #client: RawClient;
  readonly #pending = new Map<number, Pending>();
  readonly #ended: Promise<void>;
  #gone: Error | undefined;

  private constructor(client: RawClient) {
    this.#client = client;
    this.#ended = this.#receive();
  }

  static async connect(address: string, name: string, tls?: tls.ConnectionOptions): Promise<PipelinedClient> {
    return new PipelinedClient(await RawClient.serving(address, name, { tls }));
  }

  /** On a connection in its transmission phase; what comes on it is read here from now on. */
  static over(client: RawClient): PipelinedClient {
    return new PipelinedClient(client);
  }

  get raw(): RawClient {
    return this.#client;
  }

  /** Rejects where the connection breaks before the answer. `length` is what a READ asks for. */
  call(
    type: number,
    offset: number,
    length: number,
    options: SendOptions = {},
    read = false,
  ): Promise<Reply> {
    if (this.#gone !== undefined) return Promise.reject(this.#gone);
    return new Promise((resolve, reject) => {
      const data = Buffer.alloc(read ? length : 0);
      const cookie = this.#client.send(type, offset, length, options);
      this.#pending.set(cookie, { data, offset, error: 0, resolve, reject });
    });
  }

  async close(): Promise<void> {
    await this.#client.close();
    await this.#ended;
  }

  async #receive(): Promise<void> {
    try {
      for (;;) this.#accept(await this.#client.message());
    } catch (error) {
      this.#gone = error instanceof Error ? error : new Error(String(error));
      for (const { reject } of this.#pending.values()) reject(this.#gone);
      this.#pending.clear();
    }
  }

  #accept(message: Message): void {
    const pending = this.#pending.get(message.cookie);
    if (pending === undefined) throw new Error(`an answer to ${message.cookie}, which nobody asked`);
    if (message.error !== 0) pending.error = message.error;
    // Holes need no copy: the buffer is zeros.
    if (message.data.length > 0) message.data.copy(pending.data, message.offset - pending.offset);
    if (!message.done) return;
    this.#pending.delete(message.cookie);
    pending.resolve({ error: pending.error, data: pending.data });
  }
}
