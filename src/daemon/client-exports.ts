/**
 * The exports that one client may open. Any other one is to it what an export is that does not exist, in the list and in
 * each answer: whether a name is taken is nobody's to learn who may not open it.
 */
import { SealbdError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { BlockDevice } from '../device/block-device.js';
import { ReadOnlyDevice } from '../device/read-only-device.js';
import type { ExportEntry, ExportSource, NbdClient } from '../nbd/exports.js';
import { describeIdentity } from '../nbd/peer-identity.js';
import { AccessPolicy } from './access.js';
import type { DaemonConfig } from './config.js';

/** With rules each client has exports of its own. */
export function exportsFor(
  config: DaemonConfig,
  exports: ExportSource,
  log: Logger,
): (client: NbdClient) => ExportSource {
  if (config.access === undefined) return () => exports;
  const policy = new AccessPolicy(config.access);
  return (client) => new ClientExports(exports, policy, client, log);
}

export class ClientExports implements ExportSource {
  readonly #all: ExportSource;
  readonly #policy: AccessPolicy;
  readonly #client: NbdClient;
  readonly #log: Logger;
  /** Names that were reported: a client can ask often. */
  readonly #reported = new Set<string>();

  constructor(all: ExportSource, policy: AccessPolicy, client: NbdClient, log: Logger) {
    this.#all = all;
    this.#policy = policy;
    this.#client = client;
    this.#log = log;
  }

  lookup(name: string): BlockDevice | SealbdError | undefined {
    const mode = this.#policy.modeFor(this.#client, name);
    const found = this.#all.lookup(name);
    if (found === undefined) return undefined;
    if (mode === undefined) {
      this.#report(name);
      return undefined;
    }
    if (found instanceof SealbdError || found.readOnly || mode === 'read-write') return found;
    return new ReadOnlyDevice(found);
  }

  *list(): Iterable<ExportEntry | undefined> {
    for (const entry of this.#all.list()) {
      const shown = entry !== undefined && this.#policy.modeFor(this.#client, entry.name) !== undefined;
      yield shown ? entry : undefined;
    }
  }

  get defaultName(): string | undefined {
    const name = this.#all.defaultName;
    return name !== undefined && this.#policy.modeFor(this.#client, name) !== undefined ? name : undefined;
  }

  #report(name: string): void {
    if (this.#reported.has(name)) return;
    this.#reported.add(name);
    const { peer, identity } = this.#client;
    const shown = identity === undefined ? null : describeIdentity(identity);
    this.#log.info(
      { peer, identity: shown, export: name },
      'a client asked for an export that it may not open',
    );
  }
}
