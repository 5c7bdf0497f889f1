/** `key rotate`, `volume encrypt`, and the rewriting of old data that goes on behind them, over restarts too. */
import type { JobInfo } from '../admin/schemas.js';
import { type CipherName, suiteOf } from '../base/ciphers.js';
import type { Clock } from '../base/clock.js';
import { messageOf, SealbdError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { HeaderPins } from '../keys/header-unwrap.js';
import { newestDek, type Superblock } from '../keys/superblock.js';
import type { AddDekOptions } from '../keys/volume-header.js';
import type { Watchdog } from '../keys/watchdog.js';
import type { KeyProviders } from '../kms/registry.js';
import { SUITE_NONE } from '../native/addon.js';
import { dropOld, rotate } from './dek-rotation.js';
import type { JobControl, Jobs } from './jobs.js';
import type { ManagedVolume } from './managed-volume.js';
import { type Actor, type Snapshot, snapshotOf } from './volume-events.js';
import type { VolumeManager } from './volume-manager.js';

export interface RotationsOptions {
  readonly jobs: Jobs;
  readonly providers: KeyProviders;
  readonly watchdog: Watchdog;
  readonly pins: ReadonlyMap<string, HeaderPins>;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface Rotated {
  readonly superblock: Superblock;
  /** Rewrites the old data, where that was asked for. */
  readonly job: JobInfo | undefined;
}

const REWRITING = ['reencrypt', 'encrypt'] as const;

export class Rotations {
  readonly #options: RotationsOptions;

  constructor(options: RotationsOptions) {
    this.#options = options;
  }

  /** A new DEK for what is written from now on; with `reencrypt`, a job rewrites what was written before. */
  async rotate(volumes: VolumeManager, name: string, reencrypt: boolean, by: Actor): Promise<Rotated> {
    const { providers, clock } = this.#options;
    const { superblock } = assertServing(volumes.get(name));
    if (superblock.suite === SUITE_NONE)
      throw new SealbdError('CONFLICT', `volume "${name}" has no key; "sealbd volume encrypt" gives it one`);
    this.#assertIdle(name);
    await this.#assertKeyValid(volumes, name);
    await volumes.changeDeks(name, by, (header, device) => {
      const { keyUri, resolvedKeyId } = newestDek(header.superblock)!;
      return rotate(header, device, { providers, clock, keyUri, resolvedKeyId, rewrite: reencrypt });
    });
    return this.#rotated(volumes, name, by);
  }

  /** Converts a `none` volume, or goes on with a conversion that was cancelled. */
  async encrypt(
    volumes: VolumeManager,
    name: string,
    keyUri: string,
    cipher: Exclude<CipherName, 'none'>,
    by: Actor,
  ): Promise<Rotated> {
    const { providers, clock, pins } = this.#options;
    const { superblock } = assertServing(volumes.get(name));
    providers.open(keyUri);
    this.#assertIdle(name);
    const newest = newestDek(superblock);
    if (newest !== undefined && (!superblock.plain || newest.keyUri !== keyUri))
      throw new SealbdError('CONFLICT', `volume "${name}" is encrypted already, under ${newest.keyUri}`);
    assertPinsAllow(name, pins.get(name), keyUri);
    const options: AddDekOptions = { providers, clock, keyUri, rewrite: true, suite: suiteOf(cipher) };
    await volumes.changeDeks(name, by, async (header, device) => {
      if (newest === undefined || header.pending !== undefined) await rotate(header, device, options);
      else await header.update({ rewriting: true });
    });
    return this.#rotated(volumes, name, by);
  }

  /** After `job cancel`: what is left is not rewritten until somebody asks for it. */
  async cancelled(volumes: VolumeManager, { kind, volume }: JobInfo, by: Actor): Promise<void> {
    if (!isRewriting(kind) || volumes.find(volume)?.device === undefined) return;
    await volumes.changeDeks(volume, by, async (header) => {
      if (header.superblock.rewriting) await header.update({ rewriting: false });
    });
  }

  /** A volume that was opened goes on with what was under way when it was closed. */
  settled(
    name: string,
    before: Snapshot,
    volume: ManagedVolume | undefined,
    by: Actor,
    volumes: VolumeManager,
  ): void {
    const { opened } = snapshotOf(volume);
    if (opened === undefined || opened === before.opened || volume?.superblock?.rewriting !== true) return;
    this.#resume(name, by, volumes).catch((error: unknown) => {
      this.#options.log.error({ volume: name, reason: messageOf(error) }, 're-encryption does not go on');
    });
  }

  async #resume(name: string, by: Actor, volumes: VolumeManager): Promise<void> {
    const { jobs, log } = this.#options;
    // The job of the opening before may not have noticed its end yet.
    for (const kind of REWRITING) await jobs.ended(name, kind);
    const superblock = volumes.find(name)?.superblock;
    if (volumes.find(name)?.device?.state !== 'serving' || superblock?.rewriting !== true) return;
    log.info({ volume: name }, 're-encryption goes on');
    this.#start(volumes, name, superblock, by);
  }

  #rotated(volumes: VolumeManager, name: string, by: Actor): Rotated {
    const superblock = volumes.get(name).superblock!;
    const job = superblock.rewriting ? this.#start(volumes, name, superblock, by) : undefined;
    return { superblock, job };
  }

  #start(volumes: VolumeManager, name: string, { plain }: Superblock, by: Actor): JobInfo {
    const kind = plain ? 'encrypt' : 'reencrypt';
    const work = async (control: JobControl): Promise<undefined> => {
      const { device } = assertServing(volumes.get(name));
      await device.rewrite(control);
      await volumes.changeDeks(name, by, async (header, now) => {
        if (now !== device) throw new SealbdError('ESHUTDOWN', `volume "${name}" was closed`);
        await dropOld(header, device);
      });
    };
    // A job that was promised to a volume is not refused because others run.
    return this.#options.jobs.start(kind, name, work, { always: true });
  }

  #assertIdle(name: string): void {
    for (const kind of REWRITING) {
      const job = this.#options.jobs.running(name, kind);
      if (job === undefined) continue;
      const problem = `job ${job.id} rewrites the data of volume "${name}"`;
      throw new SealbdError('CONFLICT', `${problem}: wait for it, or cancel it first`);
    }
  }

  /** A key that was withdrawn stops the volume here and now, as in every check. */
  async #assertKeyValid(volumes: VolumeManager, name: string): Promise<void> {
    await this.#options.watchdog.check(name);
    const { keyCheck } = volumes.get(name);
    if (keyCheck?.state === 'valid') return;
    const code = keyCheck?.state === 'damaged' ? 'INTEGRITY' : 'KEY_UNAVAILABLE';
    throw new SealbdError(code, `the key is ${keyCheck?.state ?? 'not known'}: ${keyCheck?.reason ?? ''}`);
  }
}

function isRewriting(kind: JobInfo['kind']): boolean {
  return REWRITING.some((rewriting) => rewriting === kind);
}

function assertServing(volume: ManagedVolume) {
  const { device, superblock, state, name } = volume;
  if (device !== undefined && superblock !== undefined && state === 'serving') return { device, superblock };
  const code = state === 'key-invalid' ? 'KEY_UNAVAILABLE' : 'CONFLICT';
  throw new SealbdError(code, `volume "${name}" is ${state}`);
}

/** A volume that pins forbid would not open at the next start. */
function assertPinsAllow(name: string, pins: HeaderPins | undefined, keyUri: string): void {
  if (pins?.suite === SUITE_NONE)
    throw new SealbdError(
      'CONFLICT',
      `the configuration pins the cipher of "${name}" to none: take it out first`,
    );
  if (pins?.keyUris !== undefined && !pins.keyUris.includes(keyUri))
    throw new SealbdError(
      'CONFLICT',
      `the configuration pins the key of "${name}": ${pins.keyUris.join(' or ')}`,
    );
}
