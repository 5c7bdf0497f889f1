/**
 * One volume and its state. `serving` and `failed` at run time are the engine's word; `stopped` is a marker file;
 * `key-invalid` and `failed` at opening come with a reason. The manager runs operations one at a time.
 */
import type { VOLUME_STATES } from '../admin/schemas.js';
import type { Clock } from '../base/clock.js';
import { sleep } from '../base/clock.js';
import { isSealbdError, messageOf, SealbdError } from '../base/errors.js';
import { STOP_DEADLINE_MS } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { explainDisagreement, newestCopy, readHeaderCopies } from '../keys/header-copies.js';
import { type HeaderPins, unwrapHeader } from '../keys/header-unwrap.js';
import { answerOf, checkDeks, describe, type KeyAnswer } from '../keys/key-answer.js';
import { newestDek, type Superblock } from '../keys/superblock.js';
import { VolumeHeader } from '../keys/volume-header.js';
import type { KeyState } from '../keys/watch-state.js';
import { KmsError } from '../kms/provider.js';
import type { KeyProviders } from '../kms/registry.js';
import type { Store } from '../store/store.js';
import { finishSwitch, type KeyIdentity } from './dek-rotation.js';
import type { Engine, EngineVolume } from './engine.js';
import { openSized } from './open-sized.js';

export type VolumeState = (typeof VOLUME_STATES)[number];

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
const KEY_STATE_OF = {
  valid: 'valid',
  refused: 'invalid',
  unreachable: 'unreachable',
  damaged: 'damaged',
} as const;

export class ManagedVolume {
  readonly name: string;
  readonly #options: ManagedVolumeOptions;
  #state: Exclude<VolumeState, 'serving'> = 'stopped';
  #reason: string | undefined;
  #open: { readonly header: VolumeHeader; readonly device: EngineVolume } | undefined;
  #superblock: Superblock | undefined;
  #proven: Superblock | undefined;
  #keyCheck: KeyCheck | undefined;
  /** An engine that missed its deadline may still write to the files: no second one may read them. */
  #abandoned = false;
  #epoch = 0;
  #waiting = false;
  #rotatedDek: number | undefined;

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

  /** The last superblock in this run that an open volume had, or that a DEK authenticated. */
  get proven(): Superblock | undefined {
    return this.#open?.header.superblock ?? this.#proven;
  }

  get keyCheck(): KeyCheck | undefined {
    return this.#keyCheck;
  }

  /** Another number after each opening, stopping, and failure to open. */
  get epoch(): number {
    return this.#epoch;
  }

  /** At the daemon's start the key service could not be reached: the volume opens when it can. */
  get waiting(): boolean {
    return this.#waiting;
  }

  /** The DEK of a rotation that a crash had cut, and that the last opening ended. */
  get rotatedDek(): number | undefined {
    return this.#rotatedDek;
  }

  /** False while a copy of the superblock could not be brought up to date. */
  get headerIsWhole(): boolean {
    return this.#open?.header.whole ?? true;
  }

  waitForKey(): void {
    this.#waiting = true;
  }

  noteKey(state: KeyState, reason: string | undefined): void {
    this.#keyCheck = { state, reason, at: this.#options.clock.now() };
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
    this.#assertNotAbandoned();
    let header: VolumeHeader | undefined;
    try {
      await this.look();
      const { store, providers, pins, log } = this.#options;
      header = await VolumeHeader.open({ store, providers, pins, log });
      this.#noteProven(header.superblock);
      this.noteKey('valid', undefined);
      const device = await this.#openDevice(header);
      this.#rotatedDek = await this.#finishSwitch(header, device);
      this.#open = { header, device };
      this.#epoch += 1;
      this.#waiting = false;
    } catch (error) {
      header?.revoke();
      this.fail(error);
      throw error;
    }
  }

  #openDevice(header: VolumeHeader): Promise<EngineVolume> {
    const { store, clock, log, engine } = this.#options;
    const shared = { name: this.name, store, clock, log, fresh: false };
    const open = (identity: KeyIdentity) => engine.open({ ...identity, ...shared });
    return openSized(header, { store, log, open });
  }

  /** Lends the header to an operation on the keys. That of a volume that is not open is unwrapped for it, then wiped. */
  async withHeader(operation: (header: VolumeHeader) => Promise<void>): Promise<void> {
    if (this.#open !== undefined) return operation(this.#open.header);
    this.#assertNotAbandoned();
    const { store, providers, pins, log } = this.#options;
    const header = await VolumeHeader.open({ store, providers, pins, log });
    try {
      await operation(header);
    } finally {
      this.#superblock = header.superblock;
      this.#noteProven(header.superblock);
      header.revoke();
    }
  }

  /** Anybody can make what the public key authenticates: that it was served proves it, and nothing else. */
  #noteProven(superblock: Superblock): void {
    if (superblock.activeDek !== 0) this.#proven = superblock;
  }

  #assertNotAbandoned(): void {
    if (!this.#abandoned) return;
    throw new SealbdError(
      'FAILED',
      `volume "${this.name}" did not stop in time; only a restart opens it again`,
    );
  }

  /** Stops the engine and wipes the DEKs, whatever the engine does, at the deadline: FAILED where that came first. */
  close(deadlineMs = STOP_DEADLINE_MS): Promise<void> {
    return this.#close('stopped', undefined, deadlineMs);
  }

  /** The same because the key was taken away; `reason` is shown from then on. */
  closeKeyInvalid(reason: string): Promise<void> {
    return this.#close('key-invalid', reason, STOP_DEADLINE_MS);
  }

  /** Wipes the DEKs of a volume that should have stopped by now. What it is doing fails. */
  wipeKeys(): void {
    this.#open?.header.revoke();
  }

  async #close(
    state: 'stopped' | 'key-invalid',
    reason: string | undefined,
    deadlineMs: number,
  ): Promise<void> {
    const open = this.#open;
    if (open === undefined) {
      this.#closed(state, reason);
      return;
    }
    const { clock } = this.#options;
    const started = clock.monotonic();
    const deadline = sleep(clock, deadlineMs + STOP_GRACE_MS);
    try {
      await Promise.race([open.device.stop(deadlineMs), deadline]);
      if (clock.monotonic() - started >= deadlineMs) {
        this.#abandoned = true;
        throw new SealbdError('FAILED', `volume "${this.name}" did not stop in ${STOP_DEADLINE_MS} ms`);
      }
    } finally {
      this.#superblock = open.header.superblock;
      this.#proven = open.header.superblock;
      open.header.revoke();
      this.#open = undefined;
      this.#closed(state, reason);
    }
  }

  #closed(state: 'stopped' | 'key-invalid', reason: string | undefined): void {
    this.#state = state;
    this.#reason = reason;
    this.#waiting = false;
    this.#epoch += 1;
  }

  /** Asks the key service and notes the answer. For a volume that is not open. */
  async checkKey(): Promise<void> {
    await this.look();
    this.#noteAnswer(await this.askKey());
  }

  /** A real unwrap of every DEK. Those of a volume that is not open are wiped again at once. Never rejects. */
  async askKey(): Promise<KeyAnswer> {
    const { store, providers, pins, clock } = this.#options;
    const open = this.#open;
    if (open !== undefined) {
      const { superblock, deks } = open.header;
      const answer = await checkDeks(superblock, deks, providers, clock);
      // An operation on the keys came between: what was asked about may not be there any more.
      const stale = this.#open === open && open.header.superblock.deks !== superblock.deks;
      return stale && answer.kind !== 'valid'
        ? checkDeks(open.header.superblock, deks, providers, clock)
        : answer;
    }
    const found = await readHeaderCopies(store);
    try {
      const { decoded } = newestCopy(found);
      const ring = await unwrapHeader(decoded, providers, pins);
      ring.revoke();
      this.#noteProven(decoded.superblock);
      return { kind: 'valid' };
    } catch (error) {
      const answer = answerOf(explainDisagreement(found, error));
      const dek = found.copies.map((copy) => newestDek(copy.decoded.superblock))[0];
      // Whom a pin keeps out is not asked about either.
      return error instanceof KmsError && dek !== undefined
        ? describe(answer, dek, providers, clock)
        : answer;
    }
  }

  /** Growing is in the superblock before the engine uses it; what shrinking cuts off is unmapped before it shrinks. */
  async resize(sizeBytes: number): Promise<void> {
    if (this.#open === undefined) throw new SealbdError('CONFLICT', `volume "${this.name}" is ${this.state}`);
    const { header, device } = this.#open;
    if (sizeBytes > header.superblock.sizeBytes) await header.update({ sizeBytes, sizeInRoot: false });
    await device.resize(sizeBytes);
    if (sizeBytes !== header.superblock.sizeBytes) await header.update({ sizeBytes, sizeInRoot: false });
  }

  /**
   * Makes the volume, and its size, what the snapshot has. It closes and opens again under the DEKs that it has; where that is
   * refused it serves on, and where it fails it opens as it was, or says why not.
   */
  async rollBack(snapshot: string): Promise<void> {
    if (this.#open === undefined) throw new SealbdError('CONFLICT', `volume "${this.name}" is ${this.state}`);
    const { header, device } = this.#open;
    if (header.pending !== undefined)
      throw new SealbdError('CONFLICT', `a rotation of the DEK of "${this.name}" is not over`);
    const before = header.superblock.sizeBytes;
    const sizeBytes = device.snapshots.list().find(({ name }) => name === snapshot)?.sizeBytes ?? before;
    const { clock } = this.#options;
    const started = clock.monotonic();
    const prepare = async (): Promise<void> => {
      if (sizeBytes !== before) await header.update({ sizeInRoot: true });
    };
    let failure: unknown;
    try {
      await device.rollBack(snapshot, STOP_DEADLINE_MS, prepare);
    } catch (error) {
      failure = error;
    }
    if (clock.monotonic() - started >= STOP_DEADLINE_MS && device.state === 'stopped') {
      const reason = `it did not close in ${STOP_DEADLINE_MS} ms to be rolled back`;
      await this.#close('stopped', reason, STOP_DEADLINE_MS);
      this.#abandoned = true;
    } else if (device.state === 'stopped') await this.#openAgain(header);
    else if (header.superblock.sizeInRoot) await this.#settleSize(header);
    if (failure !== undefined) throw failure;
  }

  /** After a rollback that was refused: the root has the size that the superblock has, so either may count for now. */
  async #settleSize(header: VolumeHeader): Promise<void> {
    await header.update({ sizeInRoot: false }).catch((error: unknown) => {
      this.#options.log.error({ reason: messageOf(error) }, 'the superblock still has a rollback under way');
    });
  }

  /** Under the header that it had open: no key service is asked. */
  async #openAgain(header: VolumeHeader): Promise<void> {
    try {
      this.#open = { header, device: await this.#openDevice(header) };
    } catch (error) {
      header.revoke();
      this.#open = undefined;
      this.fail(error);
      throw error;
    }
  }

  /** A volume that opened is served: where the superblock can't be written, the rotation goes on another time. */
  async #finishSwitch(header: VolumeHeader, device: EngineVolume): Promise<number | undefined> {
    const id = header.pending?.id;
    try {
      await finishSwitch(header, device);
      return header.pending === undefined ? id : undefined;
    } catch (error) {
      this.#options.log.error({ reason: messageOf(error) }, 'a rotation that was begun could not be ended');
      return undefined;
    }
  }

  /** Reads what the disk claims. For a volume that is not open. */
  async look(): Promise<void> {
    const { copies } = await readHeaderCopies(this.store);
    this.#superblock = copies[0]?.decoded.superblock;
  }

  /** Notes why the volume could not be opened. */
  fail(error: unknown): void {
    const ofKey = error instanceof KmsError;
    this.#state = ofKey ? 'key-invalid' : 'failed';
    this.#reason = messageOf(error);
    this.#epoch += 1;
    if (!ofKey || error.kind !== 'unreachable') this.#waiting = false;
    if (ofKey || (this.#keyCheck === undefined && isSealbdError(error, 'INTEGRITY')))
      this.#noteAnswer(answerOf(error));
  }

  #noteAnswer(answer: KeyAnswer): void {
    this.noteKey(KEY_STATE_OF[answer.kind], answer.kind === 'valid' ? undefined : answer.reason);
  }
}
