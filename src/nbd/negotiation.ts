/**
 * What each option of the handshake means: option and data in, replies out. Knows nothing of sockets or framing.
 * Its state is what STARTTLS must throw away: after it there is a new one.
 */
import { SealbdError } from '../base/errors.js';
import {
  LIST_ENTRIES_PER_TURN_MAX,
  LISTS_PER_HANDSHAKE_MAX,
  META_CONTEXTS_PER_OPTION_MAX,
  REQUEST_BYTES_MAX,
  REQUEST_BYTES_MIN,
  REQUEST_BYTES_PREFERRED,
} from '../base/limits.js';
import type { BlockDevice } from '../device/block-device.js';
import { wireErrorOf } from './errno.js';
import type { ExportEntry, ExportSource } from './exports.js';
import { decodeString, encodeString } from './wire/bytes.js';
import { CONTEXT_ALLOCATION, Errno, Feature, Info, Option, Rep } from './wire/constants.js';
import {
  decodeInfoRequest,
  decodeMetaRequest,
  encodeExportNameReply,
  encodeInfoBlockSize,
  encodeInfoExport,
  encodeInfoText,
  encodeMetaContext,
  encodeOptionReply,
  encodeServerEntry,
  type MetaRequest,
} from './wire/option.js';

/** Id of `base:allocation` on every connection that selected it. */
export const ALLOCATION_CONTEXT_ID = 1;
const MESSAGE_BYTES_MAX = 1024;
const EMPTY = new Uint8Array(0);

export type TlsMode = 'off' | 'optional' | 'required';

export interface Negotiated {
  readonly device: BlockDevice;
  readonly features: number;
  readonly structured: boolean;
  /** `base:allocation` was selected for this export. */
  readonly allocation: boolean;
}

export type Outcome =
  | { readonly kind: 'more' }
  /** The answer has only begun: `goOn`, when others had their turn. */
  | { readonly kind: 'again' }
  | { readonly kind: 'transmit'; readonly negotiated: Negotiated }
  | { readonly kind: 'starttls' }
  /** Close after the replies are sent. */
  | { readonly kind: 'close' }
  /** Close without an answer: the protocol has none. */
  | { readonly kind: 'drop'; readonly reason: string };

export interface NegotiationHost {
  readonly exports: ExportSource;
  readonly tls: TlsMode;
  /** True once TLS is up on this connection. */
  readonly secured: boolean;
  readonly shuttingDown: boolean;
  /** Becomes a client of the device; throws where it may not. Called last, when all else has succeeded. */
  attach(device: BlockDevice): void;
  reply(bytes: Uint8Array): void;
  /** Counts memory for what arrives; less than 0 for what is given back. */
  lend(bytes: number): void;
}

const MORE: Outcome = { kind: 'more' };
const AGAIN: Outcome = { kind: 'again' };

export class Negotiation {
  readonly #host: NegotiationHost;
  readonly #noZeroes: boolean;
  #structured = false;
  #metaExport: string | undefined;
  #lists = 0;
  /** What the LIST under way has not come to. */
  #unlisted: Iterator<ExportEntry | undefined> | undefined;

  constructor(host: NegotiationHost, noZeroes: boolean) {
    this.#host = host;
    this.#noZeroes = noZeroes;
  }

  handle(option: number, data: Uint8Array): Outcome {
    if (option === Option.ABORT) {
      this.#reply(option, Rep.ACK);
      return { kind: 'close' };
    }
    if (option === Option.EXPORT_NAME) return this.#exportName(data);
    if (this.#barred && option !== Option.STARTTLS) return this.#requireTls(option);
    if (this.#host.shuttingDown) return this.#refuse(option, Rep.ERR_SHUTDOWN, 'the server is shutting down');
    switch (option) {
      case Option.LIST:
        return this.#list(data);
      case Option.STARTTLS:
        return this.#startTls(data);
      case Option.INFO:
      case Option.GO:
        return this.#info(option, data);
      case Option.STRUCTURED_REPLY:
        if (data.length !== 0) return this.#refuse(option, Rep.ERR_INVALID, 'this option takes no data');
        this.#structured = true;
        return this.#reply(option, Rep.ACK);
      case Option.LIST_META_CONTEXT:
      case Option.SET_META_CONTEXT:
        return this.#metaContext(option, data);
      default:
        return this.#refuse(option, Rep.ERR_UNSUP, 'unknown option');
    }
  }

  /** The answer to an option whose data passed OPTION_BYTES_MAX and was skipped. */
  handleOversized(option: number): Outcome {
    if (option === Option.EXPORT_NAME) return { kind: 'drop', reason: 'export name too long' };
    if (option === Option.ABORT) return this.handle(option, EMPTY);
    if (this.#barred && option !== Option.STARTTLS) return this.#requireTls(option);
    if (option === Option.SET_META_CONTEXT) this.#metaExport = undefined;
    return this.#refuse(option, Rep.ERR_TOO_BIG, 'the data of this option is too long');
  }

  get answering(): boolean {
    return this.#unlisted !== undefined;
  }

  /** The next part of a LIST, which fits into a small chunk. */
  goOn(): Outcome {
    for (let i = 0; i < LIST_ENTRIES_PER_TURN_MAX; i++) {
      const next = this.#unlisted?.next() ?? { done: true };
      if (next.done === true) {
        this.#unlisted = undefined;
        return this.#reply(Option.LIST, Rep.ACK);
      }
      if (next.value === undefined) continue;
      const { name, description } = next.value;
      this.#reply(Option.LIST, Rep.SERVER, encodeServerEntry(name, description));
    }
    return AGAIN;
  }

  /** Nothing may be negotiated in the clear. */
  get #barred(): boolean {
    return this.#host.tls === 'required' && !this.#host.secured;
  }

  #requireTls(option: number): Outcome {
    return this.#refuse(option, Rep.ERR_TLS_REQD, 'this server requires TLS');
  }

  #exportName(data: Uint8Array): Outcome {
    if (this.#barred) return { kind: 'drop', reason: 'TLS required' };
    if (this.#host.shuttingDown) return { kind: 'drop', reason: 'shutting down' };
    const name = decodeString(data);
    const device = name === undefined ? undefined : this.#lookup(name);
    if (name === undefined || device === undefined || device instanceof SealbdError) {
      return { kind: 'drop', reason: 'EXPORT_NAME of an export that is not available' };
    }
    try {
      this.#host.attach(device);
    } catch (error) {
      return { kind: 'drop', reason: wireErrorOf(error).message };
    }
    const features = this.#features(device);
    this.#host.reply(encodeExportNameReply(device.sizeBytes, features, !this.#noZeroes));
    return this.#transmit(name, device, features);
  }

  /** Only begins: what one client asks for must not make the others wait. */
  #list(data: Uint8Array): Outcome {
    if (data.length !== 0) return this.#refuse(Option.LIST, Rep.ERR_INVALID, 'this option takes no data');
    if (this.#lists === LISTS_PER_HANDSHAKE_MAX) {
      return this.#refuse(Option.LIST, Rep.ERR_POLICY, `more than ${LISTS_PER_HANDSHAKE_MAX} lists`);
    }
    this.#lists += 1;
    this.#unlisted = this.#host.exports.list()[Symbol.iterator]();
    return AGAIN;
  }

  #startTls(data: Uint8Array): Outcome {
    const option = Option.STARTTLS;
    if (data.length !== 0) return this.#refuse(option, Rep.ERR_INVALID, 'this option takes no data');
    if (this.#host.secured) return this.#refuse(option, Rep.ERR_INVALID, 'TLS is in use already');
    if (this.#host.tls === 'off') return this.#refuse(option, Rep.ERR_POLICY, 'TLS is not configured');
    this.#reply(option, Rep.ACK);
    return { kind: 'starttls' };
  }

  #info(option: number, data: Uint8Array): Outcome {
    const request = decodeInfoRequest(data);
    if (request === undefined) return this.#refuse(option, Rep.ERR_INVALID, 'malformed data');
    const device = this.#lookup(request.name);
    if (device === undefined) return this.#refuse(option, Rep.ERR_UNKNOWN, 'no such export');
    if (device instanceof SealbdError) return this.#unavailable(option, device);
    if (option === Option.GO) {
      try {
        this.#host.attach(device);
      } catch (error) {
        return this.#unavailable(option, error);
      }
    }
    const features = this.#features(device);
    this.#reply(option, Rep.INFO, encodeInfoExport(device.sizeBytes, features));
    for (const info of new Set(request.infos)) {
      if (info === Info.NAME) this.#reply(option, Rep.INFO, encodeInfoText(Info.NAME, device.name));
      if (info === Info.DESCRIPTION) {
        this.#reply(option, Rep.INFO, encodeInfoText(Info.DESCRIPTION, device.description));
      }
      if (info === Info.BLOCK_SIZE) {
        const sizes = encodeInfoBlockSize(REQUEST_BYTES_MIN, REQUEST_BYTES_PREFERRED, REQUEST_BYTES_MAX);
        this.#reply(option, Rep.INFO, sizes);
      }
    }
    this.#reply(option, Rep.ACK);
    return option === Option.GO ? this.#transmit(request.name, device, features) : MORE;
  }

  #metaContext(option: number, data: Uint8Array): Outcome {
    const set = option === Option.SET_META_CONTEXT;
    // A SET replaces what was selected before, even one that fails.
    if (set) this.#metaExport = undefined;
    if (!this.#structured) {
      return this.#refuse(option, Rep.ERR_INVALID, 'structured replies must be negotiated first');
    }
    const request = decodeMetaRequest(data, META_CONTEXTS_PER_OPTION_MAX);
    if (request === undefined) return this.#refuse(option, Rep.ERR_INVALID, 'malformed data');
    if (request === 'TOO_BIG') {
      return this.#refuse(option, Rep.ERR_TOO_BIG, `more than ${META_CONTEXTS_PER_OPTION_MAX} queries`);
    }
    const device = this.#lookup(request.name);
    if (device === undefined) return this.#refuse(option, Rep.ERR_UNKNOWN, 'no such export');
    if (device instanceof SealbdError) return this.#unavailable(option, device);
    if (request.queries.some((query) => query.indexOf(':') < 1)) {
      return this.#refuse(option, Rep.ERR_INVALID, 'a query has no namespace');
    }
    if (matchesAllocation(request, set)) {
      const id = set ? ALLOCATION_CONTEXT_ID : 0;
      this.#reply(option, Rep.META_CONTEXT, encodeMetaContext(id, CONTEXT_ALLOCATION));
      if (set) this.#metaExport = this.#resolve(request.name);
    }
    return this.#reply(option, Rep.ACK);
  }

  #transmit(name: string, device: BlockDevice, features: number): Outcome {
    const allocation = this.#metaExport !== undefined && this.#metaExport === this.#resolve(name);
    return { kind: 'transmit', negotiated: { device, features, structured: this.#structured, allocation } };
  }

  #features(device: BlockDevice): number {
    const common =
      Feature.HAS_FLAGS |
      Feature.FLUSH |
      Feature.FUA |
      Feature.MULTI_CONN |
      Feature.CACHE |
      (this.#structured ? Feature.DF : 0);
    if (device.readOnly) return common | Feature.READ_ONLY;
    return common | Feature.TRIM | Feature.WRITE_ZEROES | Feature.FAST_ZERO;
  }

  #resolve(name: string): string | undefined {
    return name === '' ? this.#host.exports.defaultName : name;
  }

  #lookup(name: string): BlockDevice | SealbdError | undefined {
    const resolved = this.#resolve(name);
    return resolved === undefined ? undefined : this.#host.exports.lookup(resolved);
  }

  #unavailable(option: number, error: unknown): Outcome {
    const { errno, message } = wireErrorOf(error);
    if (errno === Errno.ESHUTDOWN) return this.#refuse(option, Rep.ERR_POLICY, message);
    return this.#refuse(option, errno === Errno.EPERM ? Rep.ERR_POLICY : Rep.ERR_UNKNOWN, message);
  }

  #reply(option: number, reply: number, data: Uint8Array = EMPTY): Outcome {
    this.#host.reply(encodeOptionReply(option, reply, data));
    return MORE;
  }

  #refuse(option: number, reply: number, message: string): Outcome {
    return this.#reply(option, reply, encodeString(message, MESSAGE_BYTES_MAX));
  }
}

/** In a LIST no query at all, and plain `base:`, stand for everything; in a SET they select nothing. */
function matchesAllocation({ queries }: MetaRequest, set: boolean): boolean {
  if (queries.includes(CONTEXT_ALLOCATION)) return true;
  return !set && (queries.length === 0 || queries.includes('base:'));
}
