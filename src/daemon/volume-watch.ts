/** Ties volumes to the key watchdog, the audit log and the hook. */
import type { Clock } from '../base/clock.js';
import { STOP_DEADLINE_MS } from '../base/limits.js';
import type { WatchTarget } from '../keys/key-watch.js';
import type { Superblock } from '../keys/superblock.js';
import { firstState, type WatchPhase, type WatchState } from '../keys/watch-state.js';
import type { Watchdog, WatchSubject } from '../keys/watchdog.js';
import type { AuditLog } from './audit-log.js';
import type { EventHook } from './event-hook.js';
import type { ManagedVolume } from './managed-volume.js';
import {
  type Actor,
  dekEvents,
  eventsSince,
  type Snapshot,
  snapshotOf,
  type VolumeEvent,
  WATCHDOG,
} from './volume-events.js';
import type { VolumeManager, VolumeObserver } from './volume-manager.js';

export interface VolumeWatchOptions {
  readonly watchdog: Watchdog;
  readonly audit: AuditLog;
  /** Where one is configured. */
  readonly hook: EventHook | undefined;
  readonly clock: Clock;
}

export class VolumeWatch implements VolumeObserver {
  readonly #options: VolumeWatchOptions;

  constructor(options: VolumeWatchOptions) {
    this.#options = options;
  }

  settled(
    name: string,
    before: Snapshot,
    volume: ManagedVolume | undefined,
    by: Actor,
    volumes: VolumeManager,
  ): void {
    this.record(...eventsSince(name, before, volume, by));
    const subject = volume === undefined ? undefined : this.#subject(volume, volumes);
    this.#options.watchdog.follow(name, subject);
  }

  deksChanged(name: string, before: Superblock, after: Superblock, by: Actor): void {
    this.record(...dekEvents(name, before, after, by));
  }

  record(...events: VolumeEvent[]): void {
    for (const event of events) {
      this.#options.audit.record(event);
      if (alerts(event)) this.#options.hook?.send(event);
    }
  }

  #subject(volume: ManagedVolume, volumes: VolumeManager): WatchSubject | undefined {
    const phase = phaseOf(volume);
    const { epoch, keyCheck, superblock } = volume;
    if (phase === undefined || keyCheck === undefined || superblock === undefined) return undefined;
    if (superblock.deks.length === 0) return undefined;
    const state = firstState(phase, keyCheck.state, keyCheck.reason);
    return { epoch, state, target: this.#target(volume, epoch, volumes) };
  }

  #target(volume: ManagedVolume, epoch: number, volumes: VolumeManager): WatchTarget {
    return {
      ask: () => volume.askKey(),
      note: (state) => this.#note(volume, state),
      stop: (reason) => this.#stop(volume, epoch, reason, volumes),
      open: () => volumes.openForKey(volume.name, epoch),
    };
  }

  #note(volume: ManagedVolume, { key, reason }: WatchState): void {
    const before = snapshotOf(volume);
    volume.noteKey(key, reason);
    this.record(...eventsSince(volume.name, before, volume, WATCHDOG));
  }

  /** Should another operation hold the volume up, its keys do not wait for that longer than the deadline. */
  async #stop(volume: ManagedVolume, epoch: number, reason: string, volumes: VolumeManager): Promise<void> {
    const wipe = this.#options.clock.setTimeout(() => {
      if (volume.epoch === epoch) volume.wipeKeys();
    }, STOP_DEADLINE_MS);
    try {
      await volumes.closeForKey(volume.name, epoch, reason);
    } finally {
      wipe.cancel();
    }
  }
}

/** Undefined where no key is in use, nor to come back. */
function phaseOf(volume: ManagedVolume): WatchPhase | undefined {
  if (volume.device !== undefined) return 'serving';
  if (volume.state !== 'key-invalid') return undefined;
  return volume.waiting ? 'waiting' : 'stopped';
}

/** What an operator wants to be woken for: not what he did himself, nor that all is well at a start. */
function alerts(event: VolumeEvent): boolean {
  if (event.event === 'key-state') return !(event.from === null && event.to === 'valid');
  return (event.event === 'start' || event.event === 'stop') && event.by.kind === 'watchdog';
}
