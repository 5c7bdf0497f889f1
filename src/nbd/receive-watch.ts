/** Watches that a client goes on with what it began, and perhaps that it asks for something at all. */
import { RECEIVE_BYTES_SHORT_OF_MEMORY_MIN, RECEIVE_STALL_SHORT_OF_MEMORY_MS } from '../base/limits.js';

export class ReceiveWatch {
  #since: number;
  #progressed = false;
  #headerSince: number;
  #requests = 0;
  #bytes = 0;
  #bytesSince: number;

  constructor(now: number) {
    this.#since = now;
    this.#headerSince = now;
    this.#bytesSince = now;
  }

  /** Some bytes came. Called often, so the clock is read by the others alone. */
  progress(bytes: number): void {
    this.#progressed = true;
    this.#bytes += bytes;
  }

  /** For how long nothing came, counted while the client is `awaited`: not while it waits for us. */
  silence(now: number, awaited: boolean): number {
    if (this.#progressed || !awaited) {
      this.#progressed = false;
      this.#since = now;
    }
    return now - this.#since;
  }

  /** For how long the header of one request is unfinished, however many bytes of it came; `requests` came before it. */
  headerAge(now: number, unfinished: boolean, requests: number): number {
    if (!unfinished || requests !== this.#requests) {
      this.#requests = requests;
      this.#headerSince = now;
    }
    return now - this.#headerSince;
  }

  /** True where a client that holds what others wait for (`inTheWay`, all the time) sent too little of what it began. */
  isSlow(now: number, inTheWay: boolean): boolean {
    if (!inTheWay || this.#bytes >= RECEIVE_BYTES_SHORT_OF_MEMORY_MIN) {
      this.#bytes = 0;
      this.#bytesSince = now;
    }
    return now - this.#bytesSince > RECEIVE_STALL_SHORT_OF_MEMORY_MS;
  }
}
