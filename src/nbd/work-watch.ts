/** Watches what the requests of a client are like: small ones wait behind large ones of others. */
import { LARGE_REQUEST_BYTES_MIN } from '../base/limits.js';

/** Requests of one client, small or large on average. */
export type Work = 'none' | 'small' | 'large';

/** So far, and the bytes that they are about. */
interface Asked {
  readonly requests: number;
  readonly requestedBytes: number;
  readonly inFlight: number;
}

export class WorkWatch {
  #requests = 0;
  #bytes = 0;
  #work: Work = 'none';

  /** What came since the last call, or is in flight yet. */
  sinceLast({ requests, requestedBytes, inFlight }: Asked): Work {
    const came = requests - this.#requests;
    if (came > 0) {
      const bytes = (requestedBytes - this.#bytes) / came;
      this.#work = bytes < LARGE_REQUEST_BYTES_MIN ? 'small' : 'large';
    } else if (inFlight === 0) this.#work = 'none';
    this.#requests = requests;
    this.#bytes = requestedBytes;
    return this.#work;
  }
}
