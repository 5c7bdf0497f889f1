/**
 * Opening the volumes when the daemon starts, before it is ready. A key service that does not answer is waited for once,
 * not for each of its volumes: the others are marked waiting, and the watchdog opens them when it answers.
 */
import { messageOf } from '../base/errors.js';
import { forEachLimited } from '../base/limited.js';
import type { Logger } from '../base/log.js';
import type { Superblock } from '../keys/superblock.js';
import { KmsError } from '../kms/provider.js';
import type { KeyProviders } from '../kms/registry.js';
import type { ManagedVolume } from './managed-volume.js';

const OPENED_AT_ONCE = 4;

/** Key services that left a question unanswered, by what stands in a key URI: its kind, and the region of an ARN. */
export class SilentServices {
  readonly #providers: KeyProviders;
  readonly #reasons = new Map<string, string>();

  constructor(providers: KeyProviders) {
    this.#providers = providers;
  }

  /** Why a volume need not ask; undefined where none of the services that it needs is known to be silent. */
  reasonFor(superblock: Superblock | undefined): string | undefined {
    const [reason] = this.#servicesOf(superblock).flatMap((service) => this.#reasons.get(service) ?? []);
    if (reason === undefined) return undefined;
    return `not asked yet, since its key service gave another volume no answer: ${reason}`;
  }

  /** Remembers the services of a volume that got no answer. */
  note(superblock: Superblock | undefined, reason: string): void {
    for (const service of this.#servicesOf(superblock))
      if (!this.#reasons.has(service)) this.#reasons.set(service, reason);
  }

  #servicesOf(superblock: Superblock | undefined): string[] {
    return urisOf(superblock)
      .filter((uri) => !isAtHand(uri, this.#providers))
      .map((uri) => `${uri.split(':', 1)[0]} ${/arn:[^:]*:[^:]*:([^:]*)/.exec(uri)?.[1] ?? ''}`);
  }
}

/** Opens them in lanes. Those that need no service outside of this machine do not queue behind those that do. */
export async function openInLanes(
  volumes: readonly ManagedVolume[],
  providers: KeyProviders,
  open: (volume: ManagedVolume) => Promise<void>,
): Promise<void> {
  const atHand = volumes.filter(({ superblock }) =>
    urisOf(superblock).every((uri) => isAtHand(uri, providers)),
  );
  const remote = volumes.filter((volume) => !atHand.includes(volume));
  await Promise.all([atHand, remote].map((lane) => forEachLimited(lane, OPENED_AT_ONCE, open)));
}

/** Opens one of them, or looks at the key of one that stays stopped. Never rejects. */
export async function openAtStart(volume: ManagedVolume, silent: SilentServices, log: Logger): Promise<void> {
  const { name, superblock } = volume;
  const silence = silent.reasonFor(superblock);
  try {
    if (await volume.isMarkedStopped()) {
      if (silence === undefined) await volume.checkKey();
      else volume.noteKey('unreachable', silence);
      log.info({ volume: name }, 'stays stopped');
    } else {
      if (silence !== undefined) throw new KmsError('unreachable', silence);
      await volume.open();
      log.info({ volume: name }, 'serving');
    }
  } catch (error) {
    volume.fail(error);
    if (volume.keyCheck?.state === 'unreachable') volume.waitForKey();
    log.error({ volume: name, state: volume.state, reason: messageOf(error) }, 'does not open');
  }
  const { state, reason } = volume.keyCheck ?? {};
  if (state === 'unreachable') silent.note(superblock, reason ?? '');
}

function urisOf(superblock: Superblock | undefined): string[] {
  return superblock === undefined ? [] : superblock.deks.map((dek) => dek.keyUri);
}

/** A URI of no known kind is nobody's to ask. */
function isAtHand(uri: string, providers: KeyProviders): boolean {
  return !providers.knows(uri) || providers.exposes(uri);
}
