/** The storage engine as the daemon uses it, and how a volume's options become the engine's. */

import type { Suite } from '../base/ciphers.js';
import type { Clock } from '../base/clock.js';
import type { Logger } from '../base/log.js';
import type { BlockDevice } from '../device/block-device.js';
import type { VolumeStats } from '../device/volume-stats.js';
import type { KeyHandle } from '../native/addon.js';
import type { Store } from '../store/store.js';
import type { PinnedVolume } from '../volume/pin.js';
import type { SnapshotInfo } from '../volume/snapshot.js';

export interface EngineSnapshot extends SnapshotInfo {
  readonly clients: number;
}

export interface EngineVolume extends BlockDevice {
  readonly state: 'serving' | 'failed' | 'stopped';
  readonly failure: string | undefined;
  /** Attached NBD sessions. */
  readonly clients: number;
  stats(): VolumeStats;
  segmentsByDek(): Map<number, { segments: number; bytes: number }>;
  /** What is cut off is unmapped durably first. */
  resize(sizeBytes: number): Promise<void>;
  verify(options: {
    signal: AbortSignal;
    onProgress(doneBytes: number, totalBytes: number): void;
  }): Promise<{ checkedBlocks: number; lost: { offset: number; length: number }[]; problems: string[] }>;
  readonly snapshots: {
    /** Oldest first. */
    list(): EngineSnapshot[];
    /** What NBD may serve of one, read-only. */
    device(name: string): BlockDevice | undefined;
    /** Of each, oldest first. */
    devices(): BlockDevice[];
  };
  /** Resolves when it is durable. */
  createSnapshot(name: string): Promise<void>;
  deleteSnapshot(name: string): Promise<void>;
  /** What is acknowledged now, or what a snapshot has, for as long as it is not released. */
  pin(snapshot?: string): Promise<PinnedVolume>;
  /**
   * Closes the volume, whose files are as they were when the snapshot was made, the size in the root included. One that is
   * refused serves on. `prepare` runs before it closes, with a root that has the present size; what it rejects with refuses.
   */
  rollBack(name: string, deadlineMs: number, prepare?: () => Promise<void>): Promise<void>;
  /** Seals everything new under another DEK. Resolves when the superblock may call it active. */
  switchKey(id: number, key: KeyHandle, suite: Suite): Promise<void>;
  /** Whether the superblock may call the DEK that seals the active one. */
  readonly isSwitched: boolean;
  /** The superblock calls the sealing DEK active. */
  settleKey(): void;
  /** Rewrites what is under other DEKs; progress in bytes of the device. */
  rewrite(options: {
    signal: AbortSignal;
    onProgress(doneBytes: number, totalBytes: number): void;
  }): Promise<void>;
  rewritten(): { doneBytes: number; totalBytes: number };
  /** DEKs that something stored is under; 0 stands for plaintext. */
  deksInUse(): ReadonlySet<number>;
  /** The superblock names no DEK but these any more (0: plaintext is left), and nothing is under another one. */
  keepKeys(ids: readonly number[]): void;
  /** Refuses new requests, drains, syncs, checkpoints, closes. The caller then revokes the DEKs. */
  stop(deadlineMs: number): Promise<void>;
}

export interface EngineOpenOptions {
  readonly name: string;
  readonly uuid: Uint8Array;
  readonly sizeBytes: number;
  readonly suite: Suite;
  readonly deks: ReadonlyMap<number, KeyHandle>;
  readonly activeDek: number;
  readonly pendingDek: number | undefined;
  readonly sealPending: boolean;
  readonly plain: boolean;
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Logger;
  /** Just created: no checkpoint is expected. */
  readonly fresh: boolean;
}

export interface Engine {
  open(options: EngineOpenOptions): Promise<EngineVolume>;
}
