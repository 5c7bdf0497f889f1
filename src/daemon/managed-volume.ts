/**
 * One volume and its state. `serving` and `failed` at run time are the engine's word; `stopped` is a marker file;
 * `key-invalid` and `failed` at opening come with a reason. The manager runs operations one at a time.
 */
import type { KEY_STATES, VOLUME_STATES } from '../admin/schemas.js';
import type { Clock } from '../base/clock.js';
import { sleep } from '../base/clock.js';
import { isSealbdError, messageOf, SealbdError } from '../base/errors.js';
import { STOP_DEADLINE_MS } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { newestCopy, readHeaderCopies } from '../keys/header-copies.js';
import { type HeaderPins, unwrapHeader } from '../keys/header-unwrap.js';
import type { Superblock } from '../keys/superblock.js';
import { VolumeHeader } from '../keys/volume-header.js';
import { KmsError } from '../kms/provider.js';
import type { KeyProviders } from '../kms/registry.js';
import type { Store } from '../store/store.js';
import type { Engine, EngineVolume } from './engine.js';

export type VolumeState = (typeof VOLUME_STATES)[number];
export type KeyState = (typeof KEY_STATES)[number];

export interface KeyCheck {
  readonly state: KeyState;
  readonly reason: string | undefined;
  /** Unix ms. */
  readonly at: number;
}

export interface ManagedVolumeOptions {
  readonly name: string;
  readonly store: Store;
  readonly engine: Engine;
  readonly providers: KeyProviders;
  readonly pins: HeaderPins;
  readonly clock: Clock;
  readonly log: Logger;
}

/** The engine counts the deadline itself; this much later it is not waited for any more. */
const STOP_GRACE_MS = 500;
const STOPPED_MARKER = 'stopped';
const KEY_STATE_OF = { refused: 'invalid', unreachable: 'unreachable', damaged: 'damaged' } as const;

export class ManagedVolume {
  readonly name: string;
  readonly #options: ManagedVolumeOptions;
  #state: Exclude<VolumeState, 'serving'> = 'stopped';
  #reason: string | undefined;
  #open: { readonly header: VolumeHeader; readonly device: EngineVolume } | undefined;
  #superblock: Superblock | undefined;
  #keyCheck: KeyCheck | undefined;
  /** An engine that missed its deadline may still write to the files: no second one may read them. */
  #abandoned = false;

  constructor(options: ManagedVolumeOptions) {
    this.name = options.name;
    this.#options = options;
  }

  get state(): VolumeState {
    if (this.#open === undefined) return this.#state;
    return this.#open.device.state;
  }

  get reason(): string | undefined {
    return this.#open === undefined ? this.#reason : this.#open.device.failure;
  }

  get store(): Store {
    return this.#options.store;
  }

  /** What NBD may serve: an engine that failed still reads. */
  get device(): EngineVolume | undefined {
    return this.#open?.device;
  }

  /** Proven where the volume is open; else what the disk claims, for display only. */
  get superblock(): Superblock | undefined {
    return this.#open?.header.superblock ?? this.#superblock;
  }

  get keyCheck(): KeyCheck | undefined {
    return this.#keyCheck;
  }

  isMarkedStopped(): Promise<boolean> {
    return this.store.readSmall(STOPPED_MARKER).then((bytes) => bytes !== undefined);
  }

  async setMarkedStopped(stopped: boolean): Promise<void> {
    if (stopped) return this.store.replaceSmall(STOPPED_MARKER, new Uint8Array(0));
    await this.store.remove(STOPPED_MARKER);
    await this.store.syncDirectory();
  }

  /** Opens and serves, or rejects with the reason that `state` and `reason` show from then on. */
  async open(): Promise<void> {
    if (this.#open !== undefined) return;
    if (this.#abandoned) {
      throw new SealbdError(
        'FAILED',
        `volume "${this.name}" did not stop in time; only a restart opens it again`,
      );
    }
    let header: VolumeHeader | undefined;
    try {
      await this.#readForDisplay();
      const { store, providers, pins, log, clock } = this.#options;
      header = await VolumeHeader.open({ store, providers, pins, log });
      this.#keyCheck = { state: 'valid', reason: undefined, at: clock.now() };
      const { uuid, sizeBytes, suite, activeDek } = header.superblock;
      const { deks } = header;
      const identity = { name: this.name, uuid, sizeBytes, suite, deks, activeDek };
      const device = await this.#options.engine.open({ ...identity, store, clock, log, fresh: false });
      this.#open = { header, device };
    } catch (error) {
      header?.revoke();
      this.fail(error);
      throw error;
    }
  }

  /** Stops the engine and wipes the DEKs, whatever the engine does, at the deadline. */
  async close(): Promise<void> {
    const open = this.#open;
    if (open === undefined) {
      this.#state = 'stopped';
      this.#reason = undefined;
      return;
    }
    const { clock } = this.#options;
    const started = clock.monotonic();
    const deadline = sleep(clock, STOP_DEADLINE_MS + STOP_GRACE_MS);
    try {
      await Promise.race([open.device.stop(STOP_DEADLINE_MS), deadline]);
      if (clock.monotonic() - started >= STOP_DEADLINE_MS) {
        this.#abandoned = true;
        throw new SealbdError('FAILED', `volume "${this.name}" did not stop in ${STOP_DEADLINE_MS} ms`);
      }
    } finally {
      this.#superblock = open.header.superblock;
      open.header.revoke();
      this.#open = undefined;
      this.#state = 'stopped';
      this.#reason = undefined;
    }
  }

  /** Asks the key service about a volume that is not open; the DEKs are wiped again at once. */
  async checkKey(): Promise<void> {
    const { store, providers, pins, clock } = this.#options;
    await this.#readForDisplay();
    try {
      const { decoded } = newestCopy(await readHeaderCopies(store));
      const ring = await unwrapHeader(decoded, providers, pins);
      ring.revoke();
      this.#keyCheck = { state: 'valid', reason: undefined, at: clock.now() };
    } catch (error) {
      this.#noteKeyError(error);
    }
  }

  /** Growing is in the superblock before the engine uses it; what shrinking cuts off is unmapped before it shrinks. */
  async resize(sizeBytes: number): Promise<void> {
    if (this.#open === undefined) throw new SealbdError('CONFLICT', `volume "${this.name}" is ${this.state}`);
    const { header, device } = this.#open;
    if (sizeBytes > header.superblock.sizeBytes) await header.update({ sizeBytes });
    await device.resize(sizeBytes);
    if (sizeBytes !== header.superblock.sizeBytes) await header.update({ sizeBytes });
  }

  async #readForDisplay(): Promise<void> {
    const { copies } = await readHeaderCopies(this.store);
    this.#superblock = copies[0]?.decoded.superblock;
  }

  /** Notes why the volume could not be opened. */
  fail(error: unknown): void {
    this.#state = error instanceof KmsError ? 'key-invalid' : 'failed';
    this.#reason = messageOf(error);
    this.#noteKeyError(error);
  }

  #noteKeyError(error: unknown): void {
    const at = this.#options.clock.now();
    if (error instanceof KmsError) {
      this.#keyCheck = { state: KEY_STATE_OF[error.kind], reason: error.message, at };
    } else if (this.#keyCheck === undefined && isSealbdError(error, 'INTEGRITY')) {
      this.#keyCheck = { state: 'damaged', reason: error.message, at };
    }
  }
}
