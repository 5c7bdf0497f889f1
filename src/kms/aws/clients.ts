/**
 * Clients of AWS KMS, one for each region, shared by every key of a daemon. Where they connect to and as whom follows
 * from the usual AWS settings alone: environment, profile files, role of the machine. The SDK is loaded with the
 * first key that needs it.
 */
import type { KMSClient } from '@aws-sdk/client-kms';
import { KMS_ATTEMPTS_MAX, KMS_OPERATION_TIMEOUT_MS } from '../../base/limits.js';
import type { Logger } from '../../base/log.js';
import type { KmsEnvironment } from '../provider.js';
import { AwsKmsError, awsErrorOf, credentialsErrorOf } from './errors.js';
import { SecretHttpHandler } from './http-handler.js';

type Sdk = typeof import('@aws-sdk/client-kms');

export interface Call {
  readonly sdk: Sdk;
  readonly client: KMSClient;
  /** Aborted when nobody waits any more. */
  readonly signal: AbortSignal;
}

const DEFAULT_REGION = '';

export class AwsClients {
  readonly #environment: KmsEnvironment;
  readonly #handler: SecretHttpHandler;
  readonly #clients = new Map<string, KMSClient>();
  readonly #closing = new AbortController();
  #sdk: Promise<Sdk> | undefined;

  constructor(environment: KmsEnvironment) {
    this.#environment = environment;
    this.#handler = new SecretHttpHandler(environment.clock);
  }

  /**
   * Runs `work` with the client of that region; undefined is the region of the settings. `action` names it in errors.
   * Rejects with an AwsKmsError, or with an error of the addon, after KMS_OPERATION_TIMEOUT_MS at the latest: a
   * credential source that hangs counts in, and so do all attempts and the pauses between them.
   */
  async call<T>(region: string | undefined, action: string, work: (call: Call) => Promise<T>): Promise<T> {
    const given = new AbortController();
    const timer = this.#environment.clock.setTimeout(() => given.abort(late()), KMS_OPERATION_TIMEOUT_MS);
    const signal = AbortSignal.any([given.signal, this.#closing.signal]);
    try {
      return await Promise.race([this.#run(region, signal, work), whenAborted(signal)]);
    } catch (error) {
      const typed = awsErrorOf(error, action);
      // Another set of credentials may be there when it is asked for again.
      if (typed instanceof AwsKmsError && typed.ofCredentials) this.#clients.delete(region ?? DEFAULT_REGION);
      throw typed;
    } finally {
      timer.cancel();
      // What still runs of it is of no use to anybody.
      given.abort();
    }
  }

  /** The region of the settings. */
  defaultRegion(): Promise<string> {
    return this.call(undefined, 'the AWS region', ({ client }) => client.config.region());
  }

  /** Ends what is under way. */
  close(): void {
    this.#closing.abort(new Error('the client was closed'));
    this.#handler.destroy();
    this.#clients.clear();
  }

  async #run<T>(
    region: string | undefined,
    signal: AbortSignal,
    work: (call: Call) => Promise<T>,
  ): Promise<T> {
    const sdk = await this.#load();
    const client = this.#clientOf(sdk, region);
    if (region === undefined) await client.config.region().catch(noRegion);
    await client.config.credentials().catch((error: unknown) => {
      throw credentialsErrorOf(error);
    });
    return work({ sdk, client, signal });
  }

  #load(): Promise<Sdk> {
    // Which Node is good enough is not for the SDK to say, least of all as text between the JSON lines of a log.
    process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true';
    this.#sdk ??= import('@aws-sdk/client-kms');
    return this.#sdk;
  }

  #clientOf(sdk: Sdk, region = DEFAULT_REGION): KMSClient {
    let client = this.#clients.get(region);
    if (client === undefined) {
      const config = {
        ...(region !== DEFAULT_REGION && { region }),
        requestHandler: this.#handler,
        logger: warningsTo(this.#environment.log),
        retryMode: 'standard' as const,
        maxAttempts: KMS_ATTEMPTS_MAX,
        // Of the sources of credentials: files are read again by a new client, so that new credentials need no restart.
        ignoreCache: true,
      };
      client = new sdk.KMSClient(config);
      this.#clients.set(region, client);
    }
    return client;
  }
}

/** The SDK would print them. */
function warningsTo(log: Logger) {
  const silent = (): void => undefined;
  const warn = (message: unknown): void => log.warn({ reason: String(message) }, 'the AWS SDK warns');
  return { debug: silent, info: silent, error: silent, warn };
}

function noRegion(error: unknown): never {
  const message = 'no AWS region: set AWS_REGION or the region of the profile, or name the key by its ARN';
  throw new AwsKmsError('unreachable', 'NoRegion', message, error);
}

function late(): Error {
  return Object.assign(new Error(`no answer in ${KMS_OPERATION_TIMEOUT_MS} ms`), { code: 'ETIMEDOUT' });
}

function whenAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const end = (): void => reject(signal.reason);
    if (signal.aborted) end();
    else signal.addEventListener('abort', end, { once: true });
  });
}

const clientsOf = new WeakMap<KmsEnvironment, AwsClients>();

/** One object for each daemon. */
export function awsClients(environment: KmsEnvironment): AwsClients {
  let clients = clientsOf.get(environment);
  if (clients === undefined) {
    clients = new AwsClients(environment);
    clientsOf.set(environment, clients);
  }
  return clients;
}

export function closeAwsClients(environment: KmsEnvironment): void {
  clientsOf.get(environment)?.close();
  clientsOf.delete(environment);
}
