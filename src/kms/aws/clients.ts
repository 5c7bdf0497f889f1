/**
 * Clients of AWS KMS, one for each region, shared by every key of a daemon. Where they connect to and as whom follows
 * from the usual AWS settings alone: environment, profile files, role of the machine. The SDK is loaded with the
 * first key that needs it.
 */
import type { KMSClient } from '@aws-sdk/client-kms';
import { type Timer, within } from '../../base/clock.js';
import {
  KMS_ATTEMPTS_MAX,
  KMS_CREDENTIALS_ABANDON_MS,
  KMS_CREDENTIALS_TIMEOUT_MS,
  KMS_OPERATION_TIMEOUT_MS,
} from '../../base/limits.js';
import type { Logger } from '../../base/log.js';
import type { KmsEnvironment } from '../provider.js';
import { releaseAnswers } from './answers.js';
import { credentialSources } from './credential-sources.js';
import { AwsKmsError, awsErrorOf, credentialsErrorOf, isOfCredentialSource } from './errors.js';
import { SecretHttpHandler } from './http-handler.js';

type Sdk = typeof import('@aws-sdk/client-kms');

export interface Call {
  readonly sdk: Sdk;
  readonly client: KMSClient;
  /** Aborted when nobody waits any more. */
  readonly signal: AbortSignal;
}

interface RegionClient {
  readonly client: KMSClient;
  /** Runs while region or credentials are awaited. */
  abandon: Timer | undefined;
}

const DEFAULT_REGION = '';

export class AwsClients {
  readonly #environment: KmsEnvironment;
  readonly #handler: SecretHttpHandler;
  readonly #clients = new Map<string, RegionClient>();
  readonly #closing = new AbortController();
  readonly #import: () => Promise<Sdk>;
  #sdk: Promise<Sdk> | undefined;
  #hadCredentials = false;

  constructor(
    environment: KmsEnvironment,
    importSdk: () => Promise<Sdk> = () => import('@aws-sdk/client-kms'),
  ) {
    this.#environment = environment;
    this.#import = importSdk;
    this.#handler = new SecretHttpHandler(environment);
  }

  /**
   * Runs `work` with the client of that region; undefined is the region of the settings. `action` names it in errors.
   * Rejects with an AwsKmsError, or with an error of the addon, after KMS_OPERATION_TIMEOUT_MS at the latest: the search
   * for credentials counts in, and so do all attempts and the pauses between them.
   */
  async call<T>(region: string | undefined, action: string, work: (call: Call) => Promise<T>): Promise<T> {
    const given = new AbortController();
    const timer = this.#environment.clock.setTimeout(() => given.abort(late()), KMS_OPERATION_TIMEOUT_MS);
    const signal = AbortSignal.any([given.signal, this.#closing.signal]);
    try {
      return await Promise.race([this.#run(region, signal, work), whenAborted(signal)]);
    } catch (error) {
      const typed = isOfCredentialSource(error)
        ? await this.#credentialsError(error)
        : awsErrorOf(error, action);
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

  /** Hosts that got a request without TLS over the network. */
  get inTheClear(): ReadonlySet<string> {
    return this.#handler.inTheClear;
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
    const { client } = await this.#readyClient(sdk, region ?? DEFAULT_REGION);
    return work({ sdk, client, signal });
  }

  /** A client whose region and credentials are known. */
  async #readyClient(sdk: Sdk, region: string): Promise<RegionClient> {
    const { clock } = this.#environment;
    const entry = this.#clientOf(sdk, region);
    const settled = (): void => {
      entry.abandon?.cancel();
      entry.abandon = undefined;
    };
    // The SDK asks once for all who wait, and again only after an answer: one that never comes would be waited for for ever.
    entry.abandon ??= clock.setTimeout(() => this.#abandon(region, entry), KMS_CREDENTIALS_ABANDON_MS);
    const ready = this.#settingsOf(entry.client, region);
    ready.then(settled, settled);
    await within(clock, KMS_CREDENTIALS_TIMEOUT_MS, ready, credentialsLate);
    return entry;
  }

  async #settingsOf(client: KMSClient, region: string): Promise<void> {
    if (region === DEFAULT_REGION) await client.config.region().catch(noRegion);
    try {
      await client.config.credentials();
      this.#hadCredentials = true;
    } catch (error) {
      throw await this.#credentialsError(error);
    }
  }

  async #credentialsError(error: unknown): Promise<AwsKmsError> {
    return credentialsErrorOf(error, { had: this.#hadCredentials, configured: await credentialSources() });
  }

  #abandon(region: string, entry: RegionClient): void {
    if (this.#clients.get(region) === entry) this.#clients.delete(region);
  }

  #load(): Promise<Sdk> {
    // Which Node is good enough is not for the SDK to say, least of all as text between the JSON lines of a log.
    process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true';
    this.#sdk ??= this.#import().catch((error: unknown) => {
      // Too many open files, say: the next who asks tries again.
      this.#sdk = undefined;
      throw error;
    });
    return this.#sdk;
  }

  #clientOf(sdk: Sdk, region: string): RegionClient {
    let entry = this.#clients.get(region);
    if (entry === undefined) {
      const config = {
        ...(region !== DEFAULT_REGION && { region }),
        requestHandler: this.#handler,
        logger: warningsTo(this.#environment.log),
        retryMode: 'standard' as const,
        maxAttempts: KMS_ATTEMPTS_MAX,
        // Of the sources of credentials: files are read again by a new client, so that new credentials need no restart.
        ignoreCache: true,
      };
      entry = { client: new sdk.KMSClient(config), abandon: undefined };
      releaseAnswers(entry.client);
      this.#clients.set(region, entry);
    }
    return entry;
  }
}

/** The SDK would print them. */
function warningsTo(log: Logger) {
  const silent = (): void => undefined;
  const warn = (...parts: unknown[]): void => log.warn({ reason: parts.join(' ') }, 'the AWS SDK warns');
  return { debug: silent, info: silent, error: silent, warn };
}

function noRegion(error: unknown): never {
  const message = 'no AWS region: set AWS_REGION or the region of the profile, or name the key by its ARN';
  throw new AwsKmsError('unreachable', 'NoRegion', message, error);
}

function credentialsLate(): Error {
  const message = `what gives the daemon's AWS credentials cannot be reached: there is no answer in ${KMS_CREDENTIALS_TIMEOUT_MS} ms`;
  return new AwsKmsError('unreachable', 'CredentialsOutage', message, undefined);
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
