/**
 * The framing of the handshake: bytes in, whole options out. It never takes a byte that belongs to what comes
 * after (the transmission phase, or TLS), and holds at most one option.
 */
import { OPTION_BYTES_MAX, OPTIONS_PER_HANDSHAKE_MAX } from '../base/limits.js';
import { Negotiation, type NegotiationHost, type Outcome } from './negotiation.js';
import { viewOf } from './wire/bytes.js';
import {
  CLIENT_FLAGS_BYTES,
  HANDSHAKE_FLAGS,
  HANDSHAKE_NO_ZEROES,
  OPTION_HEADER_BYTES,
} from './wire/constants.js';
import { decodeOptionHeader, encodeGreeting } from './wire/option.js';

/** Most options fit. */
const OPTION_BYTES_AT_FIRST = 512;
const MORE: Outcome = { kind: 'more' };

type Phase = 'flags' | 'header' | 'data' | 'skip';

export class Handshake {
  readonly #host: NegotiationHost;
  #negotiation: Negotiation | undefined;
  #noZeroes = false;
  #phase: Phase = 'flags';
  /** Bytes that the phase waits for, and those that are there. */
  #wanted = CLIENT_FLAGS_BYTES;
  #data = new Uint8Array(CLIENT_FLAGS_BYTES);
  #filled = 0;
  /** Of `data`, what was taken from the memory of all clients. */
  #lent = 0;
  #skipBytes = 0;
  #option = 0;
  #options = 0;

  constructor(host: NegotiationHost) {
    this.#host = host;
    host.reply(encodeGreeting(HANDSHAKE_FLAGS));
  }

  /** The answer to the last option is not over: the next call of `feed` takes no bytes, and goes on with it. */
  get answering(): boolean {
    return this.#negotiation?.answering === true;
  }

  /**
   * Takes bytes up to the end of one option at most. Call again with the rest while `outcome` is 'more', and in another turn
   * of the event loop where it is 'again'.
   */
  feed(input: Uint8Array): { consumed: number; outcome: Outcome } {
    if (this.#negotiation?.answering) return { consumed: 0, outcome: this.#negotiation.goOn() };
    if (this.#phase === 'skip') return this.#skip(input.length);
    const consumed = Math.min(input.length, this.#wanted - this.#filled);
    this.#makeRoom(this.#filled + consumed);
    this.#data.set(input.subarray(0, consumed), this.#filled);
    this.#filled += consumed;
    if (this.#filled < this.#wanted) return { consumed, outcome: MORE };
    return { consumed, outcome: this.#complete(this.#data) };
  }

  /** Gives back what it holds. */
  end(): void {
    this.#hold(0);
    this.#data = new Uint8Array(0);
  }

  #complete(bytes: Uint8Array): Outcome {
    switch (this.#phase) {
      case 'flags':
        return this.#clientFlags(viewOf(bytes).getUint32(0));
      case 'header':
        return this.#header(bytes);
      default:
        return this.#finish(bytes);
    }
  }

  #clientFlags(flags: number): Outcome {
    if ((flags & ~HANDSHAKE_FLAGS) !== 0) return { kind: 'drop', reason: 'unknown client flags' };
    this.#noZeroes = (flags & HANDSHAKE_NO_ZEROES) !== 0;
    this.#negotiation = new Negotiation(this.#host, this.#noZeroes);
    this.#await('header', OPTION_HEADER_BYTES);
    return MORE;
  }

  #header(bytes: Uint8Array): Outcome {
    const header = decodeOptionHeader(bytes);
    if (header === undefined) return { kind: 'drop', reason: 'not an option' };
    this.#options += 1;
    if (this.#options > OPTIONS_PER_HANDSHAKE_MAX) return { kind: 'drop', reason: 'too many options' };
    this.#option = header.option;
    if (header.length > OPTION_BYTES_MAX) {
      this.#phase = 'skip';
      this.#skipBytes = header.length;
      return MORE;
    }
    this.#await('data', header.length);
    return header.length === 0 ? this.#finish(this.#data) : MORE;
  }

  #finish(data: Uint8Array): Outcome {
    const outcome = this.#negotiation?.handle(this.#option, data) ?? MORE;
    if (outcome.kind === 'starttls') this.#startAnew();
    this.#await('header', OPTION_HEADER_BYTES);
    return outcome;
  }

  /**
   * What came in the clear may be another's, and counts for nothing under TLS: of it the client's flags stand, since they are sent
   * once. STARTTLS is taken once, so options are bounded all the same.
   */
  #startAnew(): void {
    this.#negotiation = new Negotiation(this.#host, this.#noZeroes);
    this.#options = 0;
  }

  #skip(available: number): { consumed: number; outcome: Outcome } {
    const consumed = Math.min(available, this.#skipBytes);
    this.#skipBytes -= consumed;
    if (this.#skipBytes > 0) return { consumed, outcome: MORE };
    const outcome = this.#negotiation?.handleOversized(this.#option) ?? MORE;
    this.#await('header', OPTION_HEADER_BYTES);
    return { consumed, outcome };
  }

  #await(phase: Phase, bytes: number): void {
    this.#phase = phase;
    this.#wanted = bytes;
    this.#hold(0);
    this.#data = new Uint8Array(Math.min(bytes, OPTION_BYTES_AT_FIRST));
    this.#filled = 0;
  }

  /** Who announces much may send none of it: memory grows with what has come. */
  #makeRoom(bytes: number): void {
    if (bytes <= this.#data.length) return;
    const grown = new Uint8Array(Math.min(this.#wanted, Math.max(bytes, 2 * this.#data.length)));
    this.#hold(grown.length);
    grown.set(this.#data);
    this.#data = grown;
  }

  #hold(bytes: number): void {
    if (bytes === this.#lent) return;
    this.#host.lend(bytes - this.#lent);
    this.#lent = bytes;
  }
}
