/**
 * A strict fake of AWS KMS on 127.0.0.1, for tests and for trying sealbd without AWS. It speaks AWS JSON 1.1, verifies
 * signatures, really encrypts, and fails as told. Any client of KMS works with it:
 *
 *   const kms = await KmsFake.start();
 *   onTestFinished(() => kms.stop());
 *   const key = kms.createKey({ alias: 'alias/main' });
 *   ... { env: kms.environment() } ... `awskms:///${key.arn}` ...
 *
 *   kms.setState(key, 'Disabled');                       // Enabled, PendingDeletion, PendingImport, Unavailable
 *   kms.setState(key, 'Enabled', { afterRequests: 2 });  // the next two requests still see Disabled
 *   kms.deleteKey(key);                                  // NotFoundException; its ciphertexts are lost
 *   kms.deny(['kms:Decrypt'], { key });                  // the daemon's user; { principal } for another
 *   kms.allow(['kms:ReEncrypt*']);                       // on every key there is
 *   kms.rotate(key);                                     // new key material; old ciphertexts still decrypt
 *   kms.setAlias('alias/main', other);                   // repoints it without a word
 *   kms.inject('throttling', { operations: ['Decrypt'], times: 3 });   // kinds: faults.ts
 *   kms.clearFaults();
 *   await kms.stop(); await kms.start();                 // connection refused, then the same port and state
 *   kms.requests                                         // what was asked and answered, never a plaintext
 *   kms.addAccessKey({ expiresAtMs })                    // expireAccessKey, removeAccessKey
 *
 * A key is named by its object, key id, key ARN, alias or alias ARN. Two users exist: `daemonUser` may do on each key
 * what a customer's key policy grants (Encrypt, Decrypt, ReEncrypt*, DescribeKey); `administrator` all but generate
 * data keys, which nobody may.
 *
 * Different from AWS on purpose: members that an operation does not have are refused; one region, one account, and
 * symmetric keys only; no grants but those of allow() and deny(). What DescribeKey says and what takes effect change at
 * the same moment.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type AccessKey, AccessKeys } from './access-keys.js';
import { Account } from './account.js';
import { Changes, type Lag } from './changes.js';
import { CONTROL_PATH, handleControl } from './control.js';
import { type FaultKind, type FaultOptions, Faults } from './faults.js';
import { expandActions } from './grants.js';
import { type FakeKey, type KeyState, KeyTable } from './keys.js';
import { RequestLog, type RequestRecord } from './request-log.js';
import { KmsService } from './service.js';

export type KeyName = FakeKey | string;

export interface KmsFakeOptions {
  /** 0, the default, takes a free one. */
  readonly port?: number;
  /** ms since the epoch, for signatures, expiry and deletion. */
  readonly now?: () => number;
}

export interface GrantOptions {
  /** All keys that exist, where this is not given. */
  readonly key?: KeyName | undefined;
  /** ARN; the daemon's user where this is not given. */
  readonly principal?: string | undefined;
  readonly lag?: Lag;
}

const HOST = '127.0.0.1';
const REGION = 'us-east-1';
const ACCOUNT_ID = '111122223333';

export class KmsFake {
  readonly region = REGION;
  /** Credentials of the daemon's user, and of the administrator. */
  readonly daemonCredentials: AccessKey;
  readonly administratorCredentials: AccessKey;
  readonly #account: Account;
  readonly #faults = new Faults();
  readonly #log = new RequestLog();
  readonly #service: KmsService;
  #server: Server | undefined;
  #port: number;

  private constructor(options: KmsFakeOptions) {
    const now = options.now ?? Date.now;
    this.#account = new Account({
      accountId: ACCOUNT_ID,
      keys: new KeyTable(REGION, ACCOUNT_ID),
      accessKeys: new AccessKeys(),
      changes: new Changes(now),
      now,
    });
    this.#service = new KmsService(this.#account, REGION, this.#faults, this.#log);
    this.#port = options.port ?? 0;
    this.daemonCredentials = this.addAccessKey();
    this.administratorCredentials = this.addAccessKey({ principal: this.administrator });
  }

  static async start(options: KmsFakeOptions = {}): Promise<KmsFake> {
    const fake = new KmsFake(options);
    await fake.start();
    return fake;
  }

  /** After stop(): on the same port, with the same state. */
  async start(): Promise<void> {
    if (this.#server !== undefined) throw new Error('the fake runs already');
    const server = createServer((request, response) => {
      void this.#handle(request, response);
    });
    // A connection that the server ends just as a client uses it again would look like a fault.
    server.keepAliveTimeout = 0;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(this.#port, HOST, resolve);
    });
    this.#server = server;
    this.#port = (server.address() as AddressInfo).port;
  }

  /** Breaks what is under way; from then on connections are refused. */
  async stop(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeAllConnections();
    await closed;
  }

  get endpoint(): string {
    return `http://${HOST}:${this.#port}`;
  }

  get daemonUser(): string {
    return this.#account.daemon;
  }

  get administrator(): string {
    return this.#account.administrator;
  }

  /** For a process that shall use this fake and no other settings of the machine's. */
  environment(credentials: AccessKey = this.daemonCredentials): Record<string, string> {
    return {
      AWS_ENDPOINT_URL_KMS: this.endpoint,
      AWS_REGION: REGION,
      AWS_ACCESS_KEY_ID: credentials.accessKeyId,
      AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey,
      AWS_SESSION_TOKEN: credentials.sessionToken ?? '',
      AWS_PROFILE: '',
      AWS_CONFIG_FILE: '/dev/null',
      AWS_SHARED_CREDENTIALS_FILE: '/dev/null',
      AWS_EC2_METADATA_DISABLED: 'true',
    };
  }

  // Keys

  createKey(options: { readonly description?: string; readonly alias?: string } = {}): FakeKey {
    const key = this.#account.createKey(options.description ?? '');
    if (options.alias !== undefined) this.setAlias(options.alias, key);
    return key;
  }

  key(name: KeyName): FakeKey {
    return typeof name === 'string' ? this.#account.keys.resolve(name) : name;
  }

  setState(name: KeyName, state: KeyState, lag: Lag = {}): void {
    this.#account.setState(this.key(name), state, lag);
  }

  deleteKey(name: KeyName, lag: Lag = {}): void {
    const key = this.key(name);
    this.#account.changes.schedule(() => this.#account.keys.delete(key), lag);
  }

  rotate(name: KeyName, lag: Lag = {}): void {
    const key = this.key(name);
    this.#account.changes.schedule(() => key.rotate(), lag);
  }

  /** Makes the alias, or points it at another key. */
  setAlias(alias: string, name: KeyName, lag: Lag = {}): void {
    if (!alias.startsWith('alias/')) throw new Error(`"${alias}" does not start with alias/`);
    const key = this.key(name);
    this.#account.changes.schedule(() => this.#account.keys.setAlias(alias, key), lag);
  }

  deleteAlias(alias: string, lag: Lag = {}): void {
    this.#account.changes.schedule(() => this.#account.keys.deleteAlias(alias), lag);
  }

  /** What use of a key that is pending deletion gives: AWS has been seen to give either. */
  set pendingDeletionError(type: 'KMSInvalidStateException' | 'DisabledException') {
    this.#account.pendingDeletionError = type;
  }

  // Permissions

  /** `actions` as in a policy: kms:Decrypt, kms:ReEncrypt*, kms:*. */
  allow(actions: readonly string[], options: GrantOptions = {}): void {
    const { principal, keys, expanded } = this.#grant(actions, options);
    this.#account.changes.schedule(() => {
      for (const key of keys) this.#account.grants.allow(principal, key.arn, expanded);
    }, options.lag ?? {});
  }

  deny(actions: readonly string[], options: GrantOptions = {}): void {
    const { principal, keys, expanded } = this.#grant(actions, options);
    this.#account.changes.schedule(() => {
      for (const key of keys) this.#account.grants.deny(principal, key.arn, expanded);
    }, options.lag ?? {});
  }

  addAccessKey(
    options: { readonly principal?: string; readonly session?: boolean; readonly expiresAtMs?: number } = {},
  ): AccessKey {
    return this.#account.accessKeys.add({ principal: this.daemonUser, ...options });
  }

  expireAccessKey(accessKeyId: string): void {
    this.#account.accessKeys.expire(accessKeyId);
  }

  removeAccessKey(accessKeyId: string): void {
    this.#account.accessKeys.remove(accessKeyId);
  }

  // Time

  /** When changes that clients make, such as DisableKey, take effect. */
  set clientLag(lag: Lag) {
    this.#account.changes.clientLag = lag;
  }

  /** Changes that wait take effect now. */
  settle(): void {
    this.#account.changes.settle();
  }

  // Faults and the log

  /** Returns what clears this fault again. */
  inject(kind: FaultKind, options: FaultOptions = {}): () => void {
    return this.#faults.inject(kind, options);
  }

  clearFaults(): void {
    this.#faults.clear();
  }

  get requests(): readonly Readonly<RequestRecord>[] {
    return this.#log.records;
  }

  clearRequests(): void {
    this.#log.clear();
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      if (request.url === CONTROL_PATH) await handleControl(this, request, response);
      else await this.#service.handle(request, response);
    } catch (error) {
      // A mistake of the fake's own. It must not look like an answer of KMS, and must fail the test run.
      response.destroy();
      throw error;
    }
  }

  #grant(actions: readonly string[], options: GrantOptions) {
    return {
      principal: options.principal ?? this.daemonUser,
      keys: options.key === undefined ? this.#account.keys.all : [this.key(options.key)],
      expanded: expandActions(actions),
    };
  }
}
