/**
 * A TCP or TLS connection whose bytes can be wiped, for one exchange. `node:http` speaks over it as over any stream.
 *
 * Node's own sockets leave copies of what they carry in freed memory. Here the kernel (or TLS) reads into one buffer,
 * `onread`, which is wiped after each read; what is handed on are copies, wiped with the end of the connection. All of it
 * is memory such as keys have. To
 * write, one chunk goes at a time, and none before TLS is established: only then does Node encrypt a chunk where it
 * lies, else it makes a copy of its own.
 */
import { BlockList, connect as connectTcp, isIP, type OnReadOpts, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { type ConnectionOptions, connect as connectTls, type SecureContext } from 'node:tls';
import { addon } from '../../native/addon.js';
import { releaseSecret, secretBuffer } from '../../native/secret-buffer.js';

const READ_BYTES = 16_384;

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4');
LOOPBACK.addAddress('::1', 'ipv6');

/** Whether an address, not a name, is one of this machine alone. */
export function isLoopback(address: string): boolean {
  const version = isIP(address);
  return version !== 0 && LOOPBACK.check(address, version === 4 ? 'ipv4' : 'ipv6');
}

export interface SecretSocketOptions {
  readonly host: string;
  readonly port: number;
  /** Undefined for plain TCP. */
  readonly secureContext: SecureContext | undefined;
  /** Nothing is written to an address of another machine, whatever the name resolves to. */
  readonly loopbackOnly: boolean;
  /** More than so many bytes received are an error. */
  readonly receiveBytesMax: number;
}

export class SecretSocket extends Duplex {
  readonly #socket: Socket;
  readonly #connected: Promise<void>;
  readonly #readBuffer = secretBuffer(READ_BYTES);
  /** Copies of what arrived lie one after another in the last of these. */
  readonly #blocks: Buffer[] = [];
  #room = 0;
  readonly #receiveBytesMax: number;
  #receivedBytes = 0;

  constructor(options: SecretSocketOptions) {
    super();
    this.#receiveBytesMax = options.receiveBytesMax;
    const onread: OnReadOpts = { buffer: this.#readBuffer, callback: (bytes) => this.#receive(bytes) };
    this.#socket = connect(options, onread);
    const event = options.secureContext === undefined ? 'connect' : 'secureConnect';
    this.#connected = new Promise((resolve) => {
      this.#socket.once(event, () => {
        const { remoteAddress = '' } = this.#socket;
        if (!options.loopbackOnly || isLoopback(remoteAddress)) resolve();
        else this.destroy(new Error(`${options.host} is ${remoteAddress}, which is not this machine`));
      });
    });
    this.#socket.on('error', (error) => this.destroy(error));
    this.#socket.on('end', () => this.push(null));
    this.#socket.on('close', () => this.destroy());
    // An error after the exchange is nobody's; during it, http listens too.
    this.on('error', () => undefined);
  }

  /** Resolves when the connection stands, TLS included. Never rejects: an error is an event. */
  get connected(): Promise<void> {
    return this.#connected;
  }

  /** What arrives is bounded, so it is always taken. */
  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    void this.#connected.then(() => this.#socket.write(chunk, done));
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#socket.destroy();
    for (const block of this.#blocks) releaseSecret(block);
    addon.wipe(this.#readBuffer);
    // Until the handle is closed, Node has the address of this one.
    if (this.#socket.closed) releaseSecret(this.#readBuffer);
    else this.#socket.once('close', () => releaseSecret(this.#readBuffer));
    done(error);
  }

  #receive(bytes: number): boolean {
    const arrived = this.#readBuffer.subarray(0, bytes);
    this.#receivedBytes += bytes;
    if (this.#receivedBytes <= this.#receiveBytesMax && !this.destroyed) {
      const chunk = this.#copyOf(arrived);
      addon.wipe(arrived);
      this.push(chunk);
    } else {
      addon.wipe(arrived);
      this.destroy(new Error(`an answer of more than ${this.#receiveBytesMax} bytes`));
    }
    return true;
  }

  /** `READ_BYTES` are in a block, so one arrival fits into a new one. */
  #copyOf(arrived: Buffer): Buffer {
    if (this.#room < arrived.length) {
      this.#blocks.push(secretBuffer(READ_BYTES));
      this.#room = READ_BYTES;
    }
    const block = this.#blocks[this.#blocks.length - 1];
    const start = READ_BYTES - this.#room;
    block.set(arrived, start);
    this.#room -= arrived.length;
    return block.subarray(start, start + arrived.length);
  }
}

function connect({ host, port, secureContext }: SecretSocketOptions, onread: OnReadOpts): Socket {
  if (secureContext === undefined) return connectTcp({ host, port, onread });
  const options: ConnectionOptions & { onread: OnReadOpts } = {
    host,
    port,
    secureContext,
    servername: isIP(host) === 0 ? host : '',
    // Whatever NODE_TLS_REJECT_UNAUTHORIZED says: keys do not go to somebody unknown.
    rejectUnauthorized: true,
    ALPNProtocols: ['http/1.1'],
    onread,
  };
  return connectTls(options);
}
