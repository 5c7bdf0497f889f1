/** `key rotate`, `volume encrypt`, and the rewriting of old data that goes on behind them, over restarts too. */
import type { JobInfo } from '../admin/schemas.js';
import { type CipherName, suiteOf } from '../base/ciphers.js';
import type { Clock, Timer } from '../base/clock.js';
import { isSealbdError, messageOf, SealbdError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { HeaderPins } from '../keys/header-unwrap.js';
import type { JobControl } from '../keys/job-keys.js';
import { type DekRecord, newestDek, type Superblock } from '../keys/superblock.js';
import type { AddDekOptions, VolumeHeader } from '../keys/volume-header.js';
import type { Watchdog } from '../keys/watchdog.js';
import type { KeyProviders } from '../kms/registry.js';
import { SUITE_NONE } from '../native/addon.js';
import { dropOld, goOn, rotate } from './dek-rotation.js';
import type { EngineVolume } from './engine.js';
import type { Jobs } from './jobs.js';
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
/** A rewrite that failed is tried again after this long, then after twice as long each time. */
const RETRY_MS_MIN = 5_000;
const RETRY_MS_MAX = 3_600_000;

export class Rotations {
  readonly #options: RotationsOptions;
  readonly #timers = new Set<Timer>();

  constructor(options: RotationsOptions) {
    this.#options = options;
  }

  /** A new DEK for what is written from now on; with `reencrypt`, a job rewrites what was written before. */
  async rotate(volumes: VolumeManager, name: string, reencrypt: boolean, by: Actor): Promise<Rotated> {
    const { providers, clock } = this.#options;
    this.#assertCanRotate(volumes, name);
    await this.#assertKeyValid(volumes, name);
    return this.#change(volumes, name, by, (header, device) => {
      // Once more, since other operations may have come before.
      this.#assertCanRotate(volumes, name);
      const { keyUri, resolvedKeyId } = newestDek(header.superblock)!;
      return rotate(header, device, { providers, clock, keyUri, resolvedKeyId, rewrite: reencrypt });
    });
  }

  #assertCanRotate(volumes: VolumeManager, name: string): void {
    const { superblock } = assertServing(volumes.get(name));
    if (superblock.suite === SUITE_NONE)
      throw new SealbdError('CONFLICT', `volume "${name}" has no key; "sealbd volume encrypt" gives it one`);
    this.#assertIdle(name);
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
    const options: AddDekOptions = { providers, clock, keyUri, rewrite: true, suite: suiteOf(cipher) };
    providers.open(keyUri);
    this.#assertCanEncrypt(volumes, name, keyUri);
    assertPinsAllow(name, pins.get(name), keyUri);
    if (newestDek(volumes.get(name).superblock!) !== undefined) await this.#assertKeyValid(volumes, name);
    return this.#change(volumes, name, by, async (header, device) => {
      this.#assertCanEncrypt(volumes, name, keyUri);
      if (newestDek(header.superblock) === undefined || header.pending !== undefined)
        await rotate(header, device, options);
      else await header.update({ rewriting: true });
    });
  }

  #assertCanEncrypt(volumes: VolumeManager, name: string, keyUri: string): void {
    const { superblock } = assertServing(volumes.get(name));
    this.#assertIdle(name);
    const newest = newestDek(superblock);
    if (newest !== undefined && (!superblock.plain || newest.keyUri !== keyUri))
      throw new SealbdError('CONFLICT', `volume "${name}" is encrypted already, under ${newest.keyUri}`);
  }

  /** The job begins before another operation can come between. */
  async #change(
    volumes: VolumeManager,
    name: string,
    by: Actor,
    change: (header: VolumeHeader, device: EngineVolume) => Promise<void>,
  ): Promise<Rotated> {
    let rotated: Rotated | undefined;
    await volumes.changeDeks(name, by, async (header, device) => {
      await change(header, device);
      const { superblock } = header;
      rotated = {
        superblock,
        job: superblock.rewriting ? this.#start(volumes, name, superblock, by) : undefined,
      };
    });
    return rotated!;
  }

  /** After `job cancel`: what is left is not rewritten until somebody asks for it. */
  async cancelled(volumes: VolumeManager, { kind, volume }: JobInfo, by: Actor): Promise<void> {
    if (!isRewriting(kind) || volumes.find(volume)?.device === undefined) return;
    await volumes.changeDeks(volume, by, async (header) => {
      // Another job may have been asked for since.
      if (this.#running(volume) !== undefined) return;
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
    if (opened === undefined || opened === before.opened || !isUnderWay(volume)) return;
    this.#resumeIn(0, RETRY_MS_MIN, name, opened, by, volumes);
  }

  /** Unless the volume was closed meanwhile. */
  #resumeIn(
    delayMs: number,
    retryMs: number,
    name: string,
    opened: number,
    by: Actor,
    volumes: VolumeManager,
  ): void {
    const { clock, log } = this.#options;
    const timer = clock.setTimeout(() => {
      this.#timers.delete(timer);
      this.#resume(retryMs, name, opened, by, volumes).catch((error: unknown) => {
        log.error({ volume: name, reason: messageOf(error) }, 're-encryption does not go on');
      });
    }, delayMs);
    this.#timers.add(timer);
  }

  async #resume(
    retryMs: number,
    name: string,
    opened: number,
    by: Actor,
    volumes: VolumeManager,
  ): Promise<void> {
    const { jobs, log } = this.#options;
    const isDue = (): boolean => {
      const volume = volumes.find(name);
      const due = isUnderWay(volume) || volume?.headerIsWhole === false;
      return snapshotOf(volume).opened === opened && volume?.device?.state === 'serving' && due;
    };
    // The job of the opening before may not have noticed its end yet.
    for (const kind of REWRITING) await jobs.ended(name, kind);
    if (!isDue()) return;
    try {
      if (pendingDek(volumes.get(name)) !== undefined)
        await volumes.changeDeks(name, by, (header, device) => goOn(header, device, false));
    } catch (error) {
      this.#resumeIn(retryMs, Math.min(RETRY_MS_MAX, retryMs * 2), name, opened, by, volumes);
      throw error;
    }
    if (!isDue()) return;
    log.info({ volume: name }, 're-encryption goes on');
    this.#start(volumes, name, volumes.get(name).superblock!, by, retryMs);
  }

  #start(
    volumes: VolumeManager,
    name: string,
    { plain }: Superblock,
    by: Actor,
    retryMs = RETRY_MS_MIN,
  ): JobInfo {
    const kind = plain ? 'encrypt' : 'reencrypt';
    const { opened } = snapshotOf(volumes.get(name));
    const work = async (control: JobControl): Promise<undefined> => {
      const { device } = assertServing(volumes.get(name));
      const drop = (): Promise<unknown> =>
        volumes.changeDeks(name, by, async (header, now) => {
          if (now !== device) throw new SealbdError('ESHUTDOWN', `volume "${name}" was closed`);
          await dropOld(header, device);
        });
      try {
        await device.rewrite(control);
        await drop();
      } catch (error) {
        if (control.signal.aborted) throw error;
        // What failed may work later. And what keeps one DEK need not keep the others.
        const next = Math.min(RETRY_MS_MAX, retryMs * 2);
        if (opened !== undefined) this.#resumeIn(retryMs, next, name, opened, by, volumes);
        if (isSealbdError(error, 'INTEGRITY')) await drop();
        throw error;
      }
    };
    // A job that was promised to a volume is not refused because others run.
    return this.#options.jobs.start(kind, name, work, { always: true });
  }

  /** Whether a job rewrites the data of this volume now. */
  isAtWork(name: string): boolean {
    return this.#running(name) !== undefined;
  }

  /** Nothing goes on by itself any more. */
  close(): void {
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
  }

  #running(name: string): JobInfo | undefined {
    return REWRITING.map((kind) => this.#options.jobs.running(name, kind)).find((job) => job !== undefined);
  }

  #assertIdle(name: string): void {
    const job = this.#running(name);
    if (job === undefined) return;
    const problem = `job ${job.id} rewrites the data of volume "${name}"`;
    throw new SealbdError('CONFLICT', `${problem}: wait for it, or cancel it first`);
  }

  /** A key that was withdrawn stops the volume here and now, as in every check. */
  async #assertKeyValid(volumes: VolumeManager, name: string): Promise<void> {
    await this.#options.watchdog.check(name);
    const { keyCheck } = volumes.get(name);
    // A refusal that is still to be confirmed counts here.
    if (keyCheck?.state === 'valid' && keyCheck.reason === undefined) return;
    const code = keyCheck?.state === 'damaged' ? 'INTEGRITY' : 'KEY_UNAVAILABLE';
    throw new SealbdError(code, `the key is ${keyCheck?.state ?? 'not known'}: ${keyCheck?.reason ?? ''}`);
  }
}

function pendingDek({ superblock }: ManagedVolume): DekRecord | undefined {
  return superblock?.deks.find((dek) => dek.state === 'pending');
}

/** A rotation, or the rewriting behind it, is not over. */
function isUnderWay(volume: ManagedVolume | undefined): boolean {
  return volume?.superblock?.rewriting === true || (volume !== undefined && pendingDek(volume) !== undefined);
}

export function isRewriting(kind: JobInfo['kind']): boolean {
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
