/** AWS JSON 1.1 over HTTP: reads a request, authenticates it, runs its operation, answers, logs. */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { type Account, Call } from './account.js';
import { AwsError } from './errors.js';
import { FAULT_ERRORS, type FaultKind, type Faults } from './faults.js';
import { OPERATIONS } from './operations/table.js';
import type { RequestLog, RequestRecord } from './request-log.js';
import { verifySignature } from './sigv4.js';

const CONTENT_TYPE = 'application/x-amz-json-1.1';
const TARGET_PREFIX = 'TrentService.';

interface Answer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
}

export class KmsService {
  readonly #account: Account;
  readonly #region: string;
  readonly #faults: Faults;
  readonly #log: RequestLog;

  constructor(account: Account, region: string, faults: Faults, log: RequestLog) {
    this.#account = account;
    this.#region = region;
    this.#faults = faults;
    this.#log = log;
  }

  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await readBody(request);
    if (body === undefined) return;
    this.#account.changes.requestArrives();
    this.#account.deleteDueKeys();
    const target = request.headers['x-amz-target'];
    const operation = String(target ?? '').replace(TARGET_PREFIX, '');
    const fault = this.#faults.take(operation);
    const record: RequestRecord = {
      requestId: randomUUID(),
      timeMs: this.#account.now(),
      operation,
      ...(fault === undefined ? {} : { fault: fault.kind }),
      result: 'no answer',
    };
    this.#log.add(record);
    if (fault?.kind === 'hang') return;
    if (fault?.kind === 'reset') {
      request.socket.resetAndDestroy();
      return;
    }
    if (fault?.kind === 'slow') await delay(fault.delayMs, undefined, { ref: false });
    const answer = faultAnswer(fault?.kind, record) ?? this.#answer(request, body, record);
    response.sendDate = false;
    // Clients correct their clocks by this one.
    response.setHeader('Date', new Date(this.#account.now()).toUTCString());
    response.setHeader('x-amzn-RequestId', record.requestId);
    deliver(response, answer, fault?.kind);
  }

  #answer(request: IncomingMessage, body: Buffer, record: RequestRecord): Answer {
    try {
      const output = this.#run(request, body, record);
      record.result = 'ok';
      return json(200, output === undefined ? '' : JSON.stringify(output));
    } catch (error) {
      if (!(error instanceof AwsError)) throw error;
      record.result = error.type;
      return json(error.status, JSON.stringify(error.body()));
    }
  }

  #run(
    request: IncomingMessage,
    body: Buffer,
    record: RequestRecord,
  ): Readonly<Record<string, unknown>> | undefined {
    const { method = '', url = '', headers } = request;
    const target = headers['x-amz-target'];
    const run = target === TARGET_PREFIX + record.operation ? OPERATIONS.get(record.operation) : undefined;
    if (run === undefined || method !== 'POST' || url !== '/' || headers['content-type'] !== CONTENT_TYPE) {
      throw new AwsError('UnknownOperationException');
    }
    const accessKey = verifySignature(
      { method, url, headers, body },
      this.#account.accessKeys,
      this.#region,
      this.#account.now(),
    );
    record.principal = accessKey.principal;
    return run(new Call(this.#account, accessKey.principal, record), body);
  }
}

/** Undefined where the client left before it had sent everything. */
async function readBody(request: IncomingMessage): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of request) chunks.push(chunk as Buffer);
  } catch (error) {
    if (request.destroyed) return undefined;
    throw error;
  }
  return Buffer.concat(chunks);
}

function json(status: number, body: string): Answer {
  return { status, contentType: CONTENT_TYPE, body };
}

function html(status: number, title: string): Answer {
  const body = `<!DOCTYPE html>\n<html><head><title>${title}</title></head><body><h1>${title}</h1></body></html>\n`;
  return { status, contentType: 'text/html', body };
}

/** The answer that a fault gives in place of the operation's. */
function faultAnswer(kind: FaultKind | undefined, record: RequestRecord): Answer | undefined {
  if (kind === undefined) return undefined;
  const error = FAULT_ERRORS[kind];
  if (error !== undefined) {
    record.result = error.type;
    return json(error.status, JSON.stringify(error.body()));
  }
  if (kind !== 'unavailable' && kind !== 'html-page') return undefined;
  record.result = kind;
  return kind === 'unavailable' ? html(503, '503 Service Temporarily Unavailable') : html(200, 'Welcome');
}

function deliver(response: ServerResponse, answer: Answer, kind: FaultKind | undefined): void {
  const bytes = Buffer.from(answer.body);
  const half = bytes.subarray(0, Math.floor(bytes.length / 2));
  const sent = kind === 'truncated' ? half : bytes;
  response.writeHead(answer.status, {
    'Content-Type': kind === 'content-type' ? 'text/plain' : answer.contentType,
    'Content-Length': sent.length,
  });
  if (kind === 'torn') {
    response.write(half, () => response.socket?.resetAndDestroy());
    return;
  }
  response.end(sent);
}
