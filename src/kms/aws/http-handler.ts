/**
 * What the AWS SDK sends its requests with: `node:http`, one connection for each request, and answers as one buffer
 * that can be wiped. A connection of its own costs a handshake, every few minutes; it leaves no idle socket that the
 * service closes under the next request, and nothing behind in a buffer that lives on.
 */
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { createSecureContext, type SecureContext } from 'node:tls';
import {
  KMS_ANSWER_BYTES_MAX,
  KMS_ATTEMPT_TIMEOUT_MS,
  KMS_CONNECT_TIMEOUT_MS,
  KMS_CONNECTIONS_MAX,
} from '../../base/limits.js';
import { addon } from '../../native/addon.js';
import { releaseSecret, secretBuffer } from '../../native/secret-buffer.js';
import type { KmsEnvironment } from '../provider.js';
import { AwsKmsError } from './errors.js';
import { isLoopback, SecretSocket } from './secret-socket.js';

/** SSL_OP_CLEANSE_PLAINTEXT of OpenSSL 3: what was decrypted is overwritten once it was read. Node has no name for it. */
const CLEANSE_PLAINTEXT = 2;

/** The parts of the SDK's HttpRequest that are used here. */
export interface OutgoingRequest {
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number | undefined;
  readonly method: string;
  readonly path: string;
  readonly query?: Readonly<Record<string, string | readonly string[] | null>> | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: unknown;
}

export interface Answer {
  readonly statusCode: number;
  readonly reason: string | undefined;
  readonly headers: Record<string, string>;
  /** secretBuffer memory, which whoever gets it releases. */
  readonly body: Buffer;
}

export class SecretHttpHandler {
  readonly metadata = { handlerProtocol: 'http/1.1' };
  readonly #environment: Pick<KmsEnvironment, 'clock' | 'log' | 'insecure'>;
  readonly #inTheClear = new Set<string>();
  readonly #open = new Set<SecretSocket>();
  readonly #waiting: (() => void)[] = [];
  #running = 0;
  #secureContext: SecureContext | undefined;

  constructor(environment: Pick<KmsEnvironment, 'clock' | 'log' | 'insecure'>) {
    this.#environment = environment;
  }

  /** Hosts that got a request without TLS over the network. */
  get inTheClear(): ReadonlySet<string> {
    return this.#inTheClear;
  }

  /** Rejects with errors whose names and codes the SDK's retry strategy knows. */
  async handle(
    request: OutgoingRequest,
    { abortSignal }: { abortSignal?: unknown } = {},
  ): Promise<{ response: Answer }> {
    const signal = abortSignal instanceof AbortSignal ? abortSignal : undefined;
    await this.#takePlace();
    try {
      return { response: await this.#exchange(request, signal) };
    } finally {
      this.#running -= 1;
      this.#waiting.shift()?.();
    }
  }

  /** Cuts the requests under way. */
  destroy(): void {
    for (const socket of this.#open) socket.destroy(new Error('the AWS KMS client was closed'));
  }

  /** Options of the SDK's own handler; this one has none. */
  updateHttpClientConfig(): void {}

  httpHandlerConfigs(): Record<string, never> {
    return {};
  }

  async #takePlace(): Promise<void> {
    while (this.#running >= KMS_CONNECTIONS_MAX) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    this.#running += 1;
  }

  async #exchange(request: OutgoingRequest, signal: AbortSignal | undefined): Promise<Answer> {
    if (signal?.aborted === true) throw aborted();
    const { hostname, port, secureContext, loopbackOnly } = this.#target(request);
    const socket = new SecretSocket({
      host: hostname,
      port,
      secureContext,
      loopbackOnly,
      receiveBytesMax: KMS_ANSWER_BYTES_MAX,
    });
    const abort = (): void => void socket.destroy(aborted());
    const timers = [
      this.#limit(socket, KMS_ATTEMPT_TIMEOUT_MS, 'no answer'),
      this.#limit(socket, KMS_CONNECT_TIMEOUT_MS, 'no connection'),
    ];
    this.#open.add(socket);
    signal?.addEventListener('abort', abort);
    void socket.connected.then(() => timers[1].cancel());
    try {
      return await answerOver(socket, hostname, port, request);
    } finally {
      for (const timer of timers) timer.cancel();
      signal?.removeEventListener('abort', abort);
      this.#open.delete(socket);
      socket.destroy();
      // Out of the call that read the socket: what it left on the stack is below us then.
      await new Promise((resolve) => setImmediate(resolve));
      addon.scrubStack();
    }
  }

  #target({ protocol, hostname, port }: OutgoingRequest) {
    const host = hostname.replace(/^\[(.*)\]$/, '$1');
    if (protocol === 'http:') {
      const loopbackOnly = this.#mayBeThisMachine(host);
      return { hostname: host, port: port ?? 80, secureContext: undefined, loopbackOnly };
    }
    // The roots of the process, NODE_EXTRA_CA_CERTS included.
    this.#secureContext ??= createSecureContext({ secureOptions: CLEANSE_PLAINTEXT });
    return { hostname: host, port: port ?? 443, secureContext: this.#secureContext, loopbackOnly: false };
  }

  /**
   * Without TLS a DEK goes to this machine alone, unless the operator said otherwise. The error counts as unreachable: it
   * says nothing about the key, and is as it is from the start of the daemon.
   */
  #mayBeThisMachine(host: string): boolean {
    if (isLoopback(host) || host.toLowerCase() === 'localhost') return true;
    if (this.#environment.insecure !== true) {
      const message = `the endpoint http://${host} is not used: a DEK would cross the network in the clear; name one of https:, or start the daemon with --insecure`;
      throw new AwsKmsError('unreachable', 'EndpointInTheClear', message, undefined);
    }
    if (!this.#inTheClear.has(host)) {
      this.#inTheClear.add(host);
      this.#environment.log.warn(
        { host },
        'DEKs cross the network in the clear: the endpoint is one of http:',
      );
    }
    return false;
  }

  #limit(socket: SecretSocket, ms: number, what: string) {
    return this.#environment.clock.setTimeout(() => {
      const error = new Error(`${what} in ${ms} ms`);
      socket.destroy(Object.assign(error, { name: 'TimeoutError', code: 'ETIMEDOUT' }));
    }, ms);
  }
}

function aborted(): Error {
  return Object.assign(new Error('the request was given up'), { name: 'AbortError' });
}

function answerOver(
  socket: SecretSocket,
  host: string,
  port: number,
  request: OutgoingRequest,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const { method, headers } = request;
    const path = request.path + queryString(request.query);
    // No TLS here: the socket does that.
    const outgoing = httpRequest({ createConnection: () => socket, host, port, method, path, headers });
    outgoing.on('error', reject);
    outgoing.on('response', (incoming) => collect(incoming).then(resolve, reject));
    outgoing.end(bodyOf(request));
  });
}

/** A buffer goes out as it is; what else the SDK makes holds no secret. */
function bodyOf({ body }: OutgoingRequest): Buffer | string | undefined {
  if (body === undefined || body === null || typeof body === 'string') return body ?? undefined;
  if (body instanceof Uint8Array) return Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  throw new TypeError('a request body that is neither text nor bytes');
}

function collect(incoming: IncomingMessage): Promise<Answer> {
  const body = secretBuffer(Math.min(declaredBytes(incoming), KMS_ANSWER_BYTES_MAX));
  let length = 0;
  return new Promise<Answer>((resolve, reject) => {
    // The socket's own bound is on head and body, so the body fits.
    incoming.on('data', (chunk: Buffer) => {
      const copied = chunk.copy(body, length);
      length += copied;
      if (copied < chunk.length) incoming.destroy(new Error('an answer longer than its head says'));
      addon.wipe(chunk);
    });
    incoming.on('error', reject);
    incoming.on('end', () => {
      const { statusCode, statusMessage: reason } = incoming;
      const answer = {
        statusCode: statusCode ?? 0,
        reason,
        headers: headersOf(incoming),
        body: body.subarray(0, length),
      };
      resolve(answer);
    });
  }).catch((error: unknown) => {
    releaseSecret(body);
    throw error;
  });
}

/** Infinity where the head does not say: it ends in chunks, or with the connection. */
function declaredBytes({ headers }: IncomingMessage): number {
  const length = headers['content-length'];
  return length !== undefined && /^[0-9]{1,9}$/.test(length) ? Number(length) : Number.POSITIVE_INFINITY;
}

function headersOf(incoming: IncomingMessage): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(incoming.headers)) {
    // The SDK would wait for as long as the header says.
    if (value !== undefined && !name.endsWith('retry-after')) headers[name] = [value].flat().join(', ');
  }
  return headers;
}

/** As SigV4 spells it, RFC 3986. KMS has none; services that give credentials do. */
function queryString(query: OutgoingRequest['query']): string {
  const pairs = Object.entries(query ?? {}).flatMap(([name, value]) => {
    return value === null
      ? [escapeUri(name)]
      : [value].flat().map((one) => `${escapeUri(name)}=${escapeUri(one)}`);
  });
  return pairs.length === 0 ? '' : `?${pairs.join('&')}`;
}

function escapeUri(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
