/**
 * The composition root. Starting takes resources one by one and notes how to give each back; stopping, or a start
 * that fails, gives them back in reverse order. The admin socket is the last to come and the first to go.
 */

import { join } from 'node:path';
import { listenTcp, listenUnix } from '../admin/server.js';
import type { Clock } from '../base/clock.js';
import { errnoOf, messageOf, SealbdError } from '../base/errors.js';
import { limitLog } from '../base/limited-log.js';
import type { Logger } from '../base/log.js';
import type { RandomSource } from '../base/random.js';
import { packageVersion } from '../base/version.js';
import { Watchdog } from '../keys/watchdog.js';
import { keyringOf } from '../kms/local/provider.js';
import { KeyProviders } from '../kms/registry.js';
import { addon } from '../native/addon.js';
import type { Address } from './addresses.js';
import { DaemonBackend } from './admin-backend.js';
import { AuditLog } from './audit-log.js';
import { BackupFiles } from './backup-files.js';
import { exportsFor } from './client-exports.js';
import { assertSafeToServe, type DaemonConfig } from './config.js';
import { openCopies, openKnownBackups } from './copies.js';
import { DataDirectory } from './data-directory.js';
import { EventHook } from './event-hook.js';
import { VolumeExports } from './exports.js';
import { Jobs } from './jobs.js';
import { KeyAudit } from './key-audit.js';
import { KeyOperations } from './key-operations.js';
import { LocalKeys } from './local-keys.js';
import { listenNbd } from './nbd-service.js';
import { warnOfOpenDoors, warnOfOpenToken } from './open-doors.js';
import { Rotations } from './rotations.js';
import { SnapshotOperations } from './snapshot-operations.js';
import { DaemonTls } from './tls.js';
import { openEngine } from './volume-engine.js';
import { STARTUP } from './volume-events.js';
import { VolumeFiles } from './volume-files.js';
import { VolumeManager } from './volume-manager.js';
import { VolumeWatch } from './volume-watch.js';
import { warnOfWeakPins } from './weak-pins.js';
import { machineFacts, warnOfWeaknesses } from './weaknesses.js';

export interface DaemonDependencies {
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly log: Logger;
}

export interface Addresses {
  readonly listen: readonly string[];
  readonly admin: readonly string[];
}

type Undo = () => Promise<void>;

export class Daemon {
  readonly addresses: Addresses;
  /** Export names that can be attached now. */
  readonly exports: readonly string[];
  readonly #tls: DaemonTls | undefined;
  readonly #undo: Undo[];

  /** For `start` alone. */
  constructor(addresses: Addresses, exports: readonly string[], tls: DaemonTls | undefined, undo: Undo[]) {
    this.addresses = addresses;
    this.exports = exports;
    this.#tls = tls;
    this.#undo = undo;
  }

  static async start(config: DaemonConfig, dependencies: DaemonDependencies): Promise<Daemon> {
    const undo: Undo[] = [];
    try {
      return await start(config, dependencies, undo);
    } catch (error) {
      await unwind(undo, dependencies.log);
      throw error;
    }
  }

  /** True where there is something that `reload` reads anew. */
  get reloads(): boolean {
    return this.#tls !== undefined;
  }

  /** Reads certificates and pre-shared keys anew. */
  async reload(): Promise<void> {
    await this.#tls?.reload();
  }

  /** Flushes, checkpoints, wipes keys. Returns false where something could not be done; the log has it. */
  stop(log: Logger): Promise<boolean> {
    return unwind(this.#undo, log);
  }
}

async function start(
  config: DaemonConfig,
  { clock, random, log }: DaemonDependencies,
  undo: Undo[],
): Promise<Daemon> {
  const startedAtMs = clock.now();
  const clientLog = limitLog(log, clock);
  const { lockedBytes } = addon.processLimits();
  warnOfWeaknesses(machineFacts(lockedBytes, config.tls !== undefined), log);
  const { handshakeMs } = config.limits;
  const tls =
    config.tls === undefined ? undefined : await DaemonTls.open(config.tls, handshakeMs, clock, clientLog);
  prepareKeyMemory(config.allowUnlockedKeys, log);
  const data = await DataDirectory.open(config.dataDirectory);
  undo.push(() => data.close());

  const files = new VolumeFiles(data.volumesPath, random);
  const { insecure } = config;
  const providers = new KeyProviders({ dataDirectory: data.path, clock, random, log, insecure });
  undo.push(async () => providers.close());
  warnOfWeakPins(config.pins, providers, log);
  const jobs = new Jobs(clock, log);
  const { observer, watchdog } = await openWatch(config, data, { clock, random, log }, undo);
  const engine = openEngine(config.tuning);
  undo.push(() => engine.close());
  const { pins } = config;
  const rotations = new Rotations({ jobs, providers, watchdog, pins, clock, log });
  const volumes = new VolumeManager({
    ...{ files, engine, providers, jobs, pins, clock, random, log },
    observer: {
      record: (event) => observer.record(event),
      deksChanged: (...change) => observer.deksChanged(...change),
      settled: (...operation) => {
        observer.settled(...operation);
        rotations.settled(...operation);
      },
    },
  });
  undo.push(() => volumes.closeAll());
  undo.push(async () => watchdog.close());
  undo.push(async () => rotations.close());
  await volumes.openAll();
  await createDefault(config, volumes);
  if (config.requireKeys) assertKeys(volumes);

  const backupFiles = new BackupFiles();
  const knownBackups = openKnownBackups(data.path, backupFiles, log);
  const exports = new VolumeExports(volumes);
  const shared = { clock, log: clientLog, tls: tls?.nbd, limits: config.limits };
  const sockets = {
    descriptors: config.sockets,
    check: (address: Address) => assertSafeToServe(address, config),
  };
  const nbd = await listenNbd(config.listen, sockets, exportsFor(config, exports, clientLog), shared);
  warnOfOpenDoors(nbd.addresses, config, log);
  warnOfOpenToken(config, log);
  undo.push(nbd.close);

  const admin: string[] = [];
  const listen = nbd.addresses;
  const backend = new DaemonBackend({
    facts: {
      version: packageVersion(),
      pid: process.pid,
      startedAtMs,
      dataDirectory: data.path,
      tls: tls?.mode ?? 'off',
      get keysLocked() {
        return addon.secureMemory().locked;
      },
      nowMs: () => clock.now(),
      keySlotsUsed: () => addon.secureMemory().slotsUsed,
      cipherJobs: () => {
        const { inlineJobs, jobs } = engine.cipher.stats();
        return { main: inlineJobs, pool: jobs };
      },
      listen: () => [...listen],
      admin: () => [...admin],
      nbd,
    },
    volumes,
    files,
    jobs,
    rotations,
    watchdog,
    keys: new KeyOperations({ volumes, watchdog, providers, pins, clock, known: knownBackups }),
    audit: new KeyAudit(volumes, (event) => observer.record(event)),
    ...openCopies(
      {
        ...{ volumes, files, jobs, providers, watchdog, pins, clock, random, log },
        ...{
          cipher: engine.cipher,
          reserveBytes: engine.reserveBytes,
          volumesPath: data.volumesPath,
          record: (event) => observer.record(event),
        },
      },
      knownBackups,
      backupFiles,
    ),
    snapshots: new SnapshotOperations({ volumes, jobs, log, record: (event) => observer.record(event) }),
    localKeys: new LocalKeys(keyringOf(data.path), volumes, random),
  });
  await listenAdmin(config, tls, backend, clientLog, admin, undo);
  return new Daemon(
    { listen, admin },
    Array.from(exports.list(), ({ name }) => name),
    tls,
    undo,
  );
}

/** The audit log and the hook outlive the volumes: they learn about their end. */
async function openWatch(
  config: DaemonConfig,
  data: DataDirectory,
  { clock, random, log }: DaemonDependencies,
  undo: Undo[],
): Promise<{ observer: VolumeWatch; watchdog: Watchdog }> {
  const audit = await AuditLog.open(join(data.path, 'audit.jsonl'), clock, log);
  undo.push(() => audit.close());
  const hook = config.hook === undefined ? undefined : new EventHook({ ...config.hook, clock, log });
  if (hook !== undefined) undo.push(() => hook.close());
  const watchdog = new Watchdog({ policy: config.watch, clock, random, log });
  return { observer: new VolumeWatch({ watchdog, audit, hook, clock }), watchdog };
}

/** From here on the addon takes no memory for keys that it cannot lock, now or later, unless that is allowed. */
function prepareKeyMemory(allowUnlocked: boolean, log: Logger): void {
  const problem = 'memory for keys cannot be locked (mlock refused), so keys could reach the swap';
  addon.secureMemoryRequireLocked(!allowUnlocked);
  try {
    if (addon.secureMemory().locked) return;
  } catch (error) {
    if (allowUnlocked || errnoOf(error) !== 'KEY_MEMORY') throw error;
  }
  if (!allowUnlocked) {
    throw new SealbdError(
      'FAILED',
      `${problem}: raise RLIMIT_MEMLOCK, or accept it with --allow-unlocked-keys`,
    );
  }
  log.warn({}, problem);
}

async function createDefault(config: DaemonConfig, volumes: VolumeManager): Promise<void> {
  const wanted = config.defaultVolume;
  if (wanted === undefined || volumes.find(wanted.name) !== undefined) return;
  await volumes.create({ ...wanted, cipher: 'aes-256-gcm' }, STARTUP);
}

/** A damaged key is an integrity failure, any other one is unavailable. */
function assertKeys(volumes: VolumeManager): void {
  const invalid = volumes.list().filter((volume) => volume.state === 'key-invalid');
  if (invalid.length === 0) return;
  const damaged = invalid.some((volume) => volume.keyCheck?.state === 'damaged');
  const reasons = invalid.map((volume) => `volume "${volume.name}": ${volume.reason}`);
  throw new SealbdError(damaged ? 'INTEGRITY' : 'KEY_UNAVAILABLE', reasons.join('; '));
}

async function listenAdmin(
  config: DaemonConfig,
  tls: DaemonTls | undefined,
  backend: DaemonBackend,
  log: Logger,
  addresses: string[],
  undo: Undo[],
): Promise<void> {
  const { admin, adminToken } = config;
  const own = join(config.dataDirectory, 'admin.sock');
  const peerUid = (fd: number) => addon.ioPeerUid(fd);
  // DIR/admin.sock comes last: its existence says that the daemon is ready.
  if (admin?.kind === 'tcp') {
    const listener = await listenTcp(admin.host, admin.port, adminToken!, tls?.admin, backend, log);
    undo.push(listener.close);
    tls?.onReload(listener.replaceTls);
    addresses.push(listener.address);
  } else if (admin !== undefined && admin.path !== own) {
    const listener = await listenUnix(admin.path, peerUid, backend, log);
    undo.push(listener.close);
    addresses.push(listener.address);
  }
  const listener = await listenUnix(own, peerUid, backend, log);
  undo.push(listener.close);
  addresses.unshift(listener.address);
}

async function unwind(undo: Undo[], log: Logger): Promise<boolean> {
  let clean = true;
  for (let step = undo.pop(); step !== undefined; step = undo.pop()) {
    try {
      await step();
    } catch (error) {
      clean = false;
      log.error({ reason: messageOf(error) }, 'not everything could be shut down in order');
    }
  }
  return clean;
}
