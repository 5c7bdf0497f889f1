/**
 * The transmission phase of one connection: parses requests where they were received, judges each once, and lets
 * the device do it. What the device does at once is answered at once; the rest is answered as it completes, in
 * whatever order that is.
 */
import { SealbdError } from '../base/errors.js';
import { PAYLOAD_DRAIN_BYTES_MAX } from '../base/limits.js';
import type { BlockDevice, MaybePromise, StepBudget } from '../device/block-device.js';
import { answerBlockStatus } from './block-status.js';
import { startCache } from './cache.js';
import type { Chunk, ChunkPool } from './chunk-pool.js';
import type { Counters } from './counters.js';
import { type WireError, wireErrorOf } from './errno.js';
import { IncomingWrite } from './incoming-write.js';
import type { NbdLimits, Share } from './nbd-limits.js';
import type { Negotiated } from './negotiation.js';
import { startRead } from './reads.js';
import type { ReceiveBuffer } from './receive-buffer.js';
import type { ReplyBuffer } from './reply-buffer.js';
import { ReplyWriter } from './reply-writer.js';
import { type RequestContext, validateRequest } from './validate.js';
import { Command, CommandFlag, Errno, REQUEST_HEADER_BYTES } from './wire/constants.js';
import { decodeRequest, emptyRequest, type Request } from './wire/request.js';

/** The connection as a session sees it. */
export interface SessionHost {
  readonly input: ReceiveBuffer;
  readonly output: ReplyBuffer;
  readonly counters: Counters;
  readonly pool: ChunkPool;
  readonly limits: NbdLimits;
  /** False once nobody can receive a reply any more. */
  readonly open: boolean;
  /** Sends what is queued, without waiting for the end of the batch. */
  flushEarly(): void;
  /** Something happened outside of `process`: send replies, go on parsing, or close. */
  kick(): void;
  /** Goes on once memory for so many large chunks at once is back. */
  waitForMemory(chunks: number): void;
  /** For looking at maps in this turn of the event loop; undefined where others come first: `waitForExtents`. */
  readonly extentSteps: StepBudget | undefined;
  waitForExtents(): void;
  /** What this connection may keep busy now. */
  readonly share: Share;
  /** Undefined where that is so now; else resolves when so much or less is unsent or being read, or the connection closed. */
  whenPendingAtMost(bytes: number): Promise<void> | undefined;
}

/**
 * 'more': waits for input. 'paused': must not read on before something completes.
 * 'disconnect': the client said good-bye. 'lost': the stream is out of step.
 */
export type Progress = 'more' | 'paused' | 'disconnect' | 'lost';

const REFUSED: WireError = {
  errno: Errno.ESHUTDOWN,
  message: 'the export is shutting down',
  deviceOffset: undefined,
};

export class Session {
  readonly device: BlockDevice;
  readonly input: ReceiveBuffer;
  readonly output: ReplyBuffer;
  readonly replies: ReplyWriter;
  readonly counters: Counters;
  readonly host: SessionHost;
  /** Every new request is answered with ESHUTDOWN. */
  refusing = false;
  /** That came so far, and the bytes that they are about. */
  requests = 0;
  requestedBytes = 0;
  readonly #context: { -readonly [K in keyof RequestContext]: RequestContext[K] };
  readonly #limits: NbdLimits;
  readonly #request: Request = emptyRequest();
  #write: IncomingWrite | undefined;
  #inFlight = 0;
  #bytesInFlight = 0;

  constructor(host: SessionHost, negotiated: Negotiated) {
    this.host = host;
    this.#limits = host.limits;
    this.device = negotiated.device;
    this.input = host.input;
    this.output = host.output;
    this.counters = host.counters;
    const { structured, allocation } = negotiated;
    this.#context = { sizeBytes: 0, readOnly: this.device.readOnly, structured, allocation };
    this.replies = new ReplyWriter(host.output, negotiated.structured);
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** The client began a request, and more of it must come. */
  get awaitsMore(): boolean {
    return this.#write !== undefined || this.input.available > 0;
  }

  /** What began is not even a whole header yet. */
  get awaitsHeader(): boolean {
    return (
      this.#write === undefined && this.input.available > 0 && this.input.available < REQUEST_HEADER_BYTES
    );
  }

  /** Room for one more request. */
  get roomy(): boolean {
    const { bytesInFlight, bytesUnsent } = this.host.share;
    return (
      this.#inFlight < this.#limits.requestsInFlight &&
      this.#bytesInFlight < bytesInFlight &&
      this.output.unsentBytes < bytesUnsent
    );
  }

  process(): Progress {
    const { input } = this;
    for (;;) {
      if (this.#write !== undefined) {
        if (!this.roomy) return 'paused';
        if (!this.#write.advance()) return 'more';
        this.#write = undefined;
      }
      if (input.available < REQUEST_HEADER_BYTES) return 'more';
      if (!this.roomy) return 'paused';
      if (!decodeRequest(input.chunk.arena.view, input.start, this.#request)) return 'lost';
      if (this.#request.type === Command.DISC) return 'disconnect';
      const started = this.#start(this.#request);
      if (started !== undefined) return started;
    }
  }

  /** Waits for the device. `chunk` stays pinned until it is done; `done` gets the error, if there is one. */
  track(
    result: Promise<void>,
    bytes: number,
    chunk: Chunk | undefined,
    done: (error: WireError | undefined) => void,
  ): void {
    this.#inFlight += 1;
    this.#bytesInFlight += bytes;
    chunk?.retain();
    const settle = (error: WireError | undefined) => {
      this.#inFlight -= 1;
      this.#bytesInFlight -= bytes;
      done(error);
      chunk?.release();
      this.host.kick();
    };
    result.then(
      () => settle(undefined),
      (error: unknown) => settle(wireErrorOf(error)),
    );
  }

  fail(request: Request, error: WireError): void {
    this.counters.errors += 1;
    if (this.host.open) this.replies.error(request, error);
  }

  /** The command took effect; with `durable` it is answered after a flush. */
  succeed(request: Request, durable: boolean): void {
    if (!this.host.open) return;
    if (!durable) {
      this.replies.ok(request);
      return;
    }
    this.#flush(request);
  }

  /** Consumes the header and starts the request; undefined where parsing goes on. */
  #start(request: Request): Progress | undefined {
    this.#context.sizeBytes = this.device.sizeBytes;
    let errno = validateRequest(request, this.#context);
    if (this.refusing) errno = Errno.ESHUTDOWN;
    const error = errno === Errno.OK ? undefined : refusal(errno);
    if (request.type === Command.WRITE) return this.#startWrite(request, error);
    if (error !== undefined) this.fail(request, error);
    // Else the header stays where it is and is judged again.
    else if (!this.#execute(request)) return 'paused';
    this.#count(request);
    return undefined;
  }

  #count(request: Request): void {
    this.requests += 1;
    this.requestedBytes += request.length;
    this.counters.count(request.type);
    // An early reply may have found out that the client is gone: its input went with it.
    if (this.host.open) this.input.consume(REQUEST_HEADER_BYTES);
  }

  #startWrite(request: Request, error: WireError | undefined): Progress | undefined {
    this.#count(request);
    if (request.length > PAYLOAD_DRAIN_BYTES_MAX) {
      this.fail(request, refusal(Errno.EINVAL));
      return 'lost';
    }
    this.#write = new IncomingWrite(this, request, error);
    return undefined;
  }

  /** False where it waits for memory or its turn: nothing was done. */
  #execute(request: Request): boolean {
    const { device } = this;
    const { offset, length } = request;
    switch (request.type) {
      case Command.READ:
        return startRead(this, request);
      case Command.BLOCK_STATUS:
        return answerBlockStatus(this, request);
      case Command.FLUSH:
        this.#flush({ ...request });
        return true;
      case Command.TRIM:
        this.#effect(request, () => device.trim(offset, length));
        return true;
      case Command.WRITE_ZEROES:
        this.#effect(request, () => device.zero(offset, length));
        return true;
      case Command.CACHE:
        return startCache(this, request);
      default:
        throw new SealbdError('EINVAL', `command ${request.type} was validated but is not known`);
    }
  }

  #effect(shared: Request, operation: () => MaybePromise<void>): void {
    const request = { ...shared };
    const durable = (request.flags & CommandFlag.FUA) !== 0;
    try {
      const result = request.length === 0 ? undefined : operation();
      if (result === undefined) {
        this.succeed(request, durable);
        return;
      }
      this.track(result, 0, undefined, (error) => {
        if (error === undefined) this.succeed(request, durable);
        else this.fail(request, error);
      });
    } catch (error) {
      this.fail(request, wireErrorOf(error));
    }
  }

  #flush(request: Request): void {
    try {
      this.track(this.device.flush(), 0, undefined, (error) => {
        if (error === undefined) this.succeed(request, false);
        else this.fail(request, error);
      });
    } catch (error) {
      this.fail(request, wireErrorOf(error));
    }
  }
}

function refusal(errno: Errno): WireError {
  if (errno === Errno.ESHUTDOWN) return REFUSED;
  const messages: Partial<Record<Errno, string>> = {
    [Errno.EPERM]: 'the export is read-only',
    [Errno.ENOSPC]: 'the request passes the end of the export',
    [Errno.EINVAL]: 'the request is not valid for this export',
  };
  return { errno, message: messages[errno] ?? '', deviceOffset: undefined };
}
