/** Faults on command: answers that say nothing about the key, damaged answers, and none at all. */
import { AwsError } from './errors.js';

export const FAULT_KINDS = [
  // Errors of the service, in its own format.
  'throttling',
  'internal',
  'dependency-timeout',
  'key-unavailable',
  // Something in front of the service answers: status 503, or 200 and a page in place of JSON.
  'unavailable',
  'html-page',
  // The operation is carried out, and the answer comes late, cut off by a reset, cut off without one, mislabelled.
  'slow',
  'torn',
  'truncated',
  'content-type',
  // No answer.
  'reset',
  'hang',
] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];

export interface FaultOptions {
  /** Names of operations, such as Decrypt; all of them where this is not given. */
  readonly operations?: readonly string[] | undefined;
  /** How many requests are hit; all of them until the fault is cleared where this is not given. */
  readonly times?: number | undefined;
  /** slow: how late the answer comes. */
  readonly delayMs?: number | undefined;
}

export interface Fault extends FaultOptions {
  readonly kind: FaultKind;
  readonly delayMs: number;
}

const DELAY_MS_DEFAULT = 1_000;

/** What a fault of the first group says. */
export const FAULT_ERRORS: Readonly<Partial<Record<FaultKind, AwsError>>> = {
  throttling: new AwsError(
    'ThrottlingException',
    'You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.',
  ),
  internal: new AwsError('KMSInternalException', 'An internal error occurred.', { status: 500 }),
  'dependency-timeout': new AwsError(
    'DependencyTimeoutException',
    'The system timed out while trying to fulfill the request.',
    { status: 500 },
  ),
  'key-unavailable': new AwsError('KeyUnavailableException', 'The KMS key was not available.', {
    status: 500,
  }),
};

interface Injected {
  readonly fault: Fault;
  left: number;
}

export class Faults {
  #injected: Injected[] = [];

  /** Clears this one fault when called. */
  inject(kind: FaultKind, options: FaultOptions): () => void {
    const fault: Fault = { ...options, kind, delayMs: options.delayMs ?? DELAY_MS_DEFAULT };
    const injected = { fault, left: options.times ?? Number.POSITIVE_INFINITY };
    this.#injected.push(injected);
    return () => {
      this.#injected = this.#injected.filter((other) => other !== injected);
    };
  }

  clear(): void {
    this.#injected = [];
  }

  /** The fault that hits a request: of those that match, the one injected first. */
  take(operation: string): Fault | undefined {
    const hit = this.#injected.find(
      ({ fault }) => fault.operations === undefined || fault.operations.includes(operation),
    );
    if (hit === undefined) return undefined;
    hit.left -= 1;
    if (hit.left <= 0) this.#injected = this.#injected.filter((other) => other !== hit);
    return hit.fault;
  }
}
