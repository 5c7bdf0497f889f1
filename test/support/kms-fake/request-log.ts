/** What was asked and answered. Never holds plaintext, ciphertext or secrets. */
import type { EncryptionContext } from './ciphertext.js';

export interface RequestRecord {
  readonly requestId: string;
  /** ms since the epoch */
  readonly timeMs: number;
  /** 'Decrypt', or what the client sent in its place. */
  readonly operation: string;
  /** ARN; undefined until the request is authenticated. */
  principal?: string;
  /** The key's ARN, or what the client sent where that is no key. For ReEncrypt, the source. */
  key?: string;
  context?: EncryptionContext;
  /** ReEncrypt only. */
  destinationKey?: string;
  destinationContext?: EncryptionContext;
  /** The fault that was injected. */
  fault?: string;
  /** 'ok', the name of an error, or 'no answer'. */
  result: string;
}

/** Older records are dropped. */
const RECORDS_MAX = 10_000;

export class RequestLog {
  readonly #records: RequestRecord[] = [];

  /** In the order of arrival, those still under way included. */
  get records(): readonly Readonly<RequestRecord>[] {
    return this.#records;
  }

  add(record: RequestRecord): void {
    this.#records.push(record);
    if (this.#records.length > RECORDS_MAX) this.#records.shift();
  }

  clear(): void {
    this.#records.length = 0;
  }
}
