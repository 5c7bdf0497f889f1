/** Volumes, engine, watchdog and audit log as the daemon ties them together, over a key service with a script. */
import { mkdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { ChainLimits } from '../../src/backup/chain-limits.js';
import { type Clock, systemClock } from '../../src/base/clock.js';
import { type Logger, nullLogger } from '../../src/base/log.js';
import { AuditLog } from '../../src/daemon/audit-log.js';
import { BackupFiles } from '../../src/daemon/backup-files.js';
import { type Copies, openCopies, openKnownBackups } from '../../src/daemon/copies.js';
import { EventHook } from '../../src/daemon/event-hook.js';
import { Jobs } from '../../src/daemon/jobs.js';
import { KeyAudit } from '../../src/daemon/key-audit.js';
import { KeyOperations } from '../../src/daemon/key-operations.js';
import { LocalKeys } from '../../src/daemon/local-keys.js';
import type { ManagedVolume } from '../../src/daemon/managed-volume.js';
import { Rotations } from '../../src/daemon/rotations.js';
import { SnapshotOperations } from '../../src/daemon/snapshot-operations.js';
import { openEngine } from '../../src/daemon/volume-engine.js';
import { STARTUP, type VolumeEvent } from '../../src/daemon/volume-events.js';
import { VolumeFiles } from '../../src/daemon/volume-files.js';
import { VolumeManager } from '../../src/daemon/volume-manager.js';
import { VolumeWatch } from '../../src/daemon/volume-watch.js';
import type { HeaderPins } from '../../src/keys/header-unwrap.js';
import { systemRandom } from '../../src/keys/random.js';
import type { WatchPolicy } from '../../src/keys/watch-state.js';
import { Watchdog } from '../../src/keys/watchdog.js';
import { keyringOf, localScheme } from '../../src/kms/local/provider.js';
import { KeyProviders } from '../../src/kms/registry.js';
import { Arena } from '../../src/native/arena.js';
import { kmsEnvironment, temporaryDirectory } from './key-fixtures.js';
import { ScriptedService } from './scripted-provider.js';
import { BLOCK, patternBlock } from './volume-harness.js';

/** Long enough that nothing happens by itself: tests check on demand. */
export const QUIET: WatchPolicy = {
  intervalMs: 3_600_000,
  graceMs: 3_600_000,
  confirmMs: 0,
  resume: 'manual',
};

export interface Watched {
  readonly volumes: VolumeManager;
  readonly rotations: Rotations;
  readonly watchdog: Watchdog;
  readonly jobs: Jobs;
  readonly keys: KeyOperations;
  readonly files: VolumeFiles;
  readonly localKeys: LocalKeys;
  readonly keyAudit: KeyAudit;
  readonly snapshots: SnapshotOperations;
  readonly backups: Copies['backups'];
  readonly restores: Copies['restores'];
  readonly forgetting: Copies['forgetting'];
  readonly backupFiles: BackupFiles;
  readonly providers: KeyProviders;
  audit(): Promise<(VolumeEvent & { time: string })[]>;
  close(): Promise<void>;
}

export interface WatchedOptions {
  readonly policy?: Partial<WatchPolicy>;
  readonly hook?: string;
  readonly log?: Logger;
  /** For the deadline of a stop. */
  readonly watchClock?: Clock;
  /** For the retries of a re-encryption. */
  readonly retryClock?: Clock;
  readonly pins?: ReadonlyMap<string, HeaderPins>;
  readonly chainLimits?: ChainLimits;
  /** Of all else. */
  readonly clock?: Clock;
}

export class WatchedDirectory {
  readonly path = temporaryDirectory();
  readonly one = new ScriptedService();
  readonly other = new ScriptedService();

  constructor() {
    mkdirSync(join(this.path, 'volumes'));
    onTestFinished(() => {
      this.one.end();
      this.other.end();
    });
  }

  get auditPath(): string {
    return join(this.path, 'audit.jsonl');
  }

  get auditMode(): number {
    return statSync(this.auditPath).mode & 0o777;
  }

  /** What a daemon's start does. */
  async start({
    policy = {},
    hook: path,
    log = nullLogger,
    watchClock = systemClock,
    retryClock = systemClock,
    pins = new Map(),
    chainLimits,
    clock = systemClock,
  }: WatchedOptions = {}): Promise<Watched> {
    const random = systemRandom;
    const providers = new KeyProviders(kmsEnvironment(this.path), [
      this.one.scheme,
      { ...this.other.scheme, scheme: 'other' },
      localScheme,
    ]);
    const audit = await AuditLog.open(this.auditPath, clock, log);
    const hook = path === undefined ? undefined : new EventHook({ path, timeoutMs: 500, clock, log });
    const watchdog = new Watchdog({ policy: { ...QUIET, ...policy }, clock, random, log });
    const observer = new VolumeWatch({ watchdog, audit, hook, clock: watchClock });
    const engine = openEngine({ pool_threads: 1 });
    const jobs = new Jobs(clock, log);
    const files = new VolumeFiles(join(this.path, 'volumes'), random);
    const parts = { files, engine, providers, jobs, pins, clock, random, log, observer };
    const rotations = new Rotations({ jobs, providers, watchdog, pins, clock: retryClock, log });
    const volumes = new VolumeManager({
      ...parts,
      observer: {
        record: (event) => observer.record(event),
        deksChanged: (...change) => observer.deksChanged(...change),
        settled: (...operation) => {
          observer.settled(...operation);
          rotations.settled(...operation);
        },
      },
    });
    const backupFiles = new BackupFiles();
    const known = openKnownBackups(this.path, backupFiles, log);
    await volumes.openAll();
    const close = async (): Promise<void> => {
      watchdog.close();
      rotations.close();
      await volumes.closeAll();
      await engine.close();
      await hook?.close();
      await audit.close();
    };
    return {
      ...{ volumes, rotations, watchdog, jobs, files, backupFiles, providers, close },
      snapshots: new SnapshotOperations({
        ...{ volumes, jobs, log: nullLogger },
        record: (event) => observer.record(event),
      }),
      ...openCopies(
        {
          ...{ volumes, files, jobs, providers, watchdog, pins, clock, random, log, cipher: engine.cipher },
          ...{
            reserveBytes: engine.reserveBytes,
            volumesPath: join(this.path, 'volumes'),
            chainLimits,
            record: (event) => observer.record(event),
          },
        },
        known,
        backupFiles,
      ),
      localKeys: new LocalKeys(keyringOf(this.path), volumes, random),
      keyAudit: new KeyAudit(volumes, (event) => observer.record(event)),
      keys: new KeyOperations({ volumes, watchdog, providers, pins, clock, known }),
      audit: async () => {
        await audit.flush();
        const lines = readFileSync(this.auditPath, 'utf8').split('\n').slice(0, -1);
        return lines.map((line) => JSON.parse(line));
      },
    };
  }
}

export function createVolume(volumes: VolumeManager, name: string, keyUri: string): Promise<ManagedVolume> {
  return volumes.create({ name, sizeBytes: 64 * 2 ** 20, cipher: 'aes-256-gcm', keyUri }, STARTUP);
}

/** The first blocks say that they are of this version, durably. */
export async function fillVolume(volume: ManagedVolume, blocks: number, version: number): Promise<void> {
  const io = new Arena(BLOCK);
  for (let lba = 0; lba < blocks; lba++) {
    io.bytes.set(patternBlock(lba, version));
    await volume.device!.write(io, 0, lba * BLOCK, BLOCK);
  }
  await volume.device!.flush();
  io.free();
}
