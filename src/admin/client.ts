/** The other end of the admin API, over the unix socket. Rejects with the daemon's own error, or UNREACHABLE. */
import { type IncomingMessage, request } from 'node:http';
import { z } from 'zod';
import { errnoOf, messageOf, SealbdError } from '../base/errors.js';
import { withSocketPath } from '../base/socket-path.js';
import { errorFrom } from './errors.js';
import {
  CLI_AGENT,
  type CreateVolume,
  forgottenBackupsSchema,
  headerFileSchema,
  importedKeySchema,
  jobInfoSchema,
  keyChangeSchema,
  keyFileSchema,
  keyReportSchema,
  keySetSchema,
  keyStatusSchema,
  keyUsageSchema,
  rotatedSchema,
  snapshotInfoSchema,
  statusSchema,
  volumeInfoSchema,
} from './schemas.js';

const RESPONSE_BYTES_MAX = 64 * 1024 * 1024;
type Method = 'GET' | 'POST' | 'PUT' | 'DELETE';

export class AdminClient {
  readonly #socketPath: string;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  status = () => this.#call('GET', '/v1/status', statusSchema);

  listVolumes = () => this.#call('GET', '/v1/volumes', z.array(volumeInfoSchema));
  createVolume = (body: CreateVolume) => this.#call('POST', '/v1/volumes', volumeInfoSchema, body);
  volumeInfo = (name: string) => this.#call('GET', volumePath(name), volumeInfoSchema);
  resizeVolume = (name: string, sizeBytes: number, shrink: boolean) =>
    this.#call('POST', volumePath(name, 'resize'), volumeInfoSchema, { sizeBytes, shrink });
  startVolume = (name: string) => this.#call('POST', volumePath(name, 'start'), volumeInfoSchema);
  stopVolume = (name: string) => this.#call('POST', volumePath(name, 'stop'), volumeInfoSchema);
  deleteVolume = (name: string) => this.#call('DELETE', volumePath(name), z.object({}));
  verifyVolume = (name: string) => this.#call('POST', volumePath(name, 'verify'), jobInfoSchema);

  async backUpHeader(name: string): Promise<Buffer> {
    const { file } = await this.#call('GET', volumePath(name, 'header'), headerFileSchema);
    return Buffer.from(file, 'base64');
  }

  restoreHeader = (name: string, file: Buffer, force: boolean) =>
    this.#call('PUT', volumePath(name, 'header'), volumeInfoSchema, { file: file.toString('base64'), force });

  listSnapshots = (name: string) =>
    this.#call('GET', volumePath(name, 'snapshots'), z.array(snapshotInfoSchema));
  createSnapshot = (name: string, snapshot: string) =>
    this.#call('POST', volumePath(name, 'snapshots'), snapshotInfoSchema, { name: snapshot });
  deleteSnapshot = (name: string, snapshot: string) =>
    this.#call('DELETE', snapshotPath(name, snapshot), z.object({}));
  rollBack = (name: string, snapshot: string) =>
    this.#call('POST', `${snapshotPath(name, snapshot)}/rollback`, volumeInfoSchema);

  cloneSnapshot = (name: string, snapshot: string, newName: string) =>
    this.#call('POST', `${snapshotPath(name, snapshot)}/clone`, jobInfoSchema, { name: newName });
  backUpVolume = (name: string, body: { path: string; base?: string | undefined; salvage: boolean }) =>
    this.#call('POST', volumePath(name, 'backup'), jobInfoSchema, body);
  restoreVolume = (name: string, body: { path: string; salvage: boolean; plaintext: boolean }) =>
    this.#call('POST', volumePath(name, 'restore'), jobInfoSchema, body);
  forgetBackups = (body: { path?: string; dropped: boolean; force: boolean }) =>
    this.#call('POST', '/v1/backup-forget', forgottenBackupsSchema, body);

  keyStatus = (name?: string) =>
    this.#call('GET', name === undefined ? '/v1/keys' : keyPath(name), z.array(keyStatusSchema));
  checkVolumeKey = (name: string) => this.#call('POST', keyPath(name, 'check'), z.array(keyStatusSchema));
  setKey = (name: string, keyUri: string, reencrypt: boolean) =>
    this.#call('POST', keyPath(name, 'set'), keySetSchema, { keyUri, reencrypt });
  rotateKey = (name: string, reencrypt: boolean) =>
    this.#call('POST', keyPath(name, 'rotate'), rotatedSchema, { reencrypt });
  encryptVolume = (name: string, keyUri: string, cipher?: string) =>
    this.#call('POST', volumePath(name, 'encrypt'), rotatedSchema, { keyUri, cipher });
  rewrapKey = (name: string) => this.#call('POST', keyPath(name, 'rewrap'), keyChangeSchema);
  checkKey = (keyUri: string) => this.#call('POST', '/v1/key-check', keyReportSchema, { keyUri });
  keyUsage = (keyUri?: string) =>
    this.#call('POST', '/v1/key-usage', z.array(keyUsageSchema), keyUri === undefined ? {} : { keyUri });
  exportLocalKey = (name: string, passphrase: string) =>
    this.#call('POST', localKeyPath(name, 'export'), keyFileSchema, { passphrase });
  importLocalKey = (name: string, passphrase: string, file: string) =>
    this.#call('POST', localKeyPath(name, 'import'), importedKeySchema, { passphrase, file });

  listJobs = () => this.#call('GET', '/v1/jobs', z.array(jobInfoSchema));
  job = (id: string) => this.#call('GET', `/v1/jobs/${encodeURIComponent(id)}`, jobInfoSchema);
  cancelJob = (id: string) => this.#call('DELETE', `/v1/jobs/${encodeURIComponent(id)}`, jobInfoSchema);

  async #call<Answer extends z.ZodType>(
    method: Method,
    path: string,
    answer: Answer,
    body?: object,
  ): Promise<z.output<Answer>> {
    const { status, text } = await this.#send(method, path, body);
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch (error) {
      throw new SealbdError(
        'FAILED',
        `the daemon answered with something else than JSON (status ${status})`,
        { cause: error },
      );
    }
    if (status !== 200) throw errorFrom(status, json);
    const parsed = answer.safeParse(json);
    if (parsed.success) return parsed.data;
    throw new SealbdError(
      'FAILED',
      `unexpected answer of the daemon: ${parsed.error.issues[0].path.join('.')}`,
    );
  }

  async #send(
    method: Method,
    path: string,
    body: object | undefined,
  ): Promise<{ status: number; text: string }> {
    const payload = body === undefined ? undefined : JSON.stringify(body);
    const type = payload === undefined ? {} : { 'content-type': 'application/json' };
    const headers = { 'user-agent': CLI_AGENT, ...type };
    try {
      return await withSocketPath(this.#socketPath, (socketPath) => {
        return new Promise((resolve, reject) => {
          const outgoing = request({ socketPath, method, path, headers, agent: false }, (incoming) => {
            readText(incoming).then((text) => resolve({ status: incoming.statusCode ?? 0, text }), reject);
          });
          outgoing.on('error', reject);
          outgoing.end(payload);
        });
      });
    } catch (error) {
      throw new SealbdError('UNREACHABLE', `no daemon answers on ${this.#socketPath}: ${describe(error)}`, {
        cause: error,
      });
    }
  }
}

async function readText(incoming: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of incoming as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > RESPONSE_BYTES_MAX) throw new Error('the answer is too long');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function volumePath(name: string, action?: string): string {
  const path = `/v1/volumes/${encodeURIComponent(name)}`;
  return action === undefined ? path : `${path}/${action}`;
}

function snapshotPath(name: string, snapshot: string): string {
  return volumePath(name, `snapshots/${encodeURIComponent(snapshot)}`);
}

function keyPath(name: string, action?: string): string {
  const path = `/v1/keys/${encodeURIComponent(name)}`;
  return action === undefined ? path : `${path}/${action}`;
}

function localKeyPath(name: string, action: string): string {
  return `/v1/local-keys/${encodeURIComponent(name)}/${action}`;
}

function describe(error: unknown): string {
  if (errnoOf(error) === 'ENOENT') return 'there is no such socket; is the daemon running, with this --data?';
  if (errnoOf(error) === 'ECONNREFUSED') return 'nobody listens';
  return messageOf(error);
}
