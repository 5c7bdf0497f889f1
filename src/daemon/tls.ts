/** TLS of the daemon: one set of credentials for NBD and for the admin API, read anew when asked to. */
import type { SecureContextOptions } from 'node:tls';
import type { AdminTls } from '../admin/server.js';
import type { Clock } from '../base/clock.js';
import { messageOf, SealbdError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { secureContextOptions, type TlsCredentials, TlsServer } from '../nbd/tls-server.js';
import type { TlsConfig } from './config-tls.js';
import { loadCredentials } from './tls-files.js';

export class DaemonTls {
  readonly nbd: TlsServer;
  readonly #config: TlsConfig;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #onReload: ((context: SecureContextOptions) => void)[] = [];
  #credentials: TlsCredentials;

  private constructor(
    config: TlsConfig,
    handshakeMs: number,
    credentials: TlsCredentials,
    clock: Clock,
    log: Logger,
  ) {
    const { required, minVersion } = config;
    this.nbd = new TlsServer({ required, minVersion, credentials, handshakeMs, log });
    this.#config = config;
    this.#credentials = credentials;
    this.#clock = clock;
    this.#log = log;
  }

  /** `handshakeMs` is the limit of NBD clients. */
  static async open(config: TlsConfig, handshakeMs: number, clock: Clock, log: Logger): Promise<DaemonTls> {
    return new DaemonTls(config, handshakeMs, await loadCredentials(config.source, clock, log), clock, log);
  }

  get mode(): 'allowed' | 'required' {
    return this.#config.required ? 'required' : 'allowed';
  }

  /** What the admin API has of it; undefined for pre-shared keys, which HTTP clients do not speak. */
  get admin(): AdminTls | undefined {
    if (this.#credentials.kind === 'psk') return undefined;
    const { verifyClients } = this.#credentials;
    return { context: secureContextOptions(this.#credentials, this.#config.minVersion), verifyClients };
  }

  onReload(take: (context: SecureContextOptions) => void): void {
    this.#onReload.push(take);
  }

  /** For connections to come. What cannot be used changes nothing, and the log says so. */
  async reload(): Promise<void> {
    const { source, minVersion } = this.#config;
    try {
      const credentials = await loadCredentials(source, this.#clock, this.#log);
      assertStillRevoked(this.#credentials, credentials);
      const context = secureContextOptions(credentials, minVersion);
      this.nbd.replace(credentials);
      this.#credentials = credentials;
      for (const take of this.#onReload) take(context);
      this.#log.info({ source }, 'TLS: certificates and keys were read anew');
    } catch (error) {
      this.#log.error({ source, reason: messageOf(error) }, 'TLS: nothing was read anew, the old ones stay');
    }
  }
}

/** A list that is not there any more would make every certificate on it good again, and nobody would have said so. */
function assertStillRevoked(before: TlsCredentials, after: TlsCredentials): void {
  if (before.kind !== 'certificates' || after.kind !== 'certificates') return;
  if (before.crl === undefined || after.crl !== undefined) return;
  throw new SealbdError(
    'FAILED',
    'ca-crl.pem is gone, and what it revoked would be taken again: put one there that revokes nothing, or start the daemon anew',
  );
}
