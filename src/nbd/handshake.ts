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

const MORE: Outcome = { kind: 'more' };

type Phase = 'flags' | 'header' | 'data' | 'skip';

export class Handshake {
  readonly #host: NegotiationHost;
  #negotiation: Negotiation | undefined;
  #phase: Phase = 'flags';
  /** What the phase waits for, and how much of it is there. */
  #wanted = new Uint8Array(CLIENT_FLAGS_BYTES);
  #filled = 0;
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
    const consumed = Math.min(input.length, this.#wanted.length - this.#filled);
    this.#wanted.set(input.subarray(0, consumed), this.#filled);
    this.#filled += consumed;
    if (this.#filled < this.#wanted.length) return { consumed, outcome: MORE };
    return { consumed, outcome: this.#complete(this.#wanted) };
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
    this.#negotiation = new Negotiation(this.#host, (flags & HANDSHAKE_NO_ZEROES) !== 0);
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
    return header.length === 0 ? this.#finish(this.#wanted) : MORE;
  }

  #finish(data: Uint8Array): Outcome {
    const outcome = this.#negotiation?.handle(this.#option, data) ?? MORE;
    this.#await('header', OPTION_HEADER_BYTES);
    return outcome;
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
    this.#wanted = new Uint8Array(bytes);
    this.#filled = 0;
  }
}
