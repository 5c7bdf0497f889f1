/** The admin API's side of the daemon: manager, jobs and keys behind one interface. */
import type { AdminBackend, Caller } from '../admin/backend.js';
import { type NbdMetrics, renderMetrics, type VolumeMetrics } from '../admin/metrics.js';
import type {
  DaemonStatus,
  EncryptVolume,
  ForgottenBackups,
  JobInfo,
  KeyChange,
  KeyReport,
  KeySet,
  KeyStatus,
  KeyUsage,
  RotatedKey,
  SnapshotInfo,
  VolumeInfo,
} from '../admin/schemas.js';
import { isSealbdError, SealbdError } from '../base/errors.js';
import { CANCEL_WAIT_MS } from '../base/limits.js';
import type { VolumeStats } from '../device/volume-stats.js';
import type { Watchdog } from '../keys/watchdog.js';
import type { NbdServerStats } from '../nbd/server.js';
import type { BackupRequest, Backups } from './backups.js';
import type { ForgetRequest, Forgetting } from './forgetting.js';
import type { Jobs } from './jobs.js';
import type { KeyAudit } from './key-audit.js';
import type { KeyOperations } from './key-operations.js';
import type { LocalKeys } from './local-keys.js';
import type { ManagedVolume } from './managed-volume.js';
import type { NbdService } from './nbd-service.js';
import type { RestoreRequest, Restores } from './restores.js';
import { isRewriting, type Rotations } from './rotations.js';
import type { SnapshotOperations } from './snapshot-operations.js';
import type { VolumeFiles } from './volume-files.js';
import type { VolumeManager } from './volume-manager.js';
import type { CreateVolumeRequest } from './volume-request.js';
import { keyView, rotatedView, snapshotView, volumeView } from './volume-views.js';

export interface DaemonFacts {
  readonly version: string;
  readonly pid: number;
  readonly startedAtMs: number;
  readonly dataDirectory: string;
  readonly tls: DaemonStatus['tls'];
  readonly keysLocked: boolean;
  nowMs(): number;
  keySlotsUsed(): number;
  cipherJobs(): { main: number; pool: number };
  listen(): string[];
  admin(): string[];
  readonly nbd: Pick<NbdService, 'clients' | 'stats'>;
}

export interface DaemonParts {
  readonly facts: DaemonFacts;
  readonly volumes: VolumeManager;
  readonly files: VolumeFiles;
  readonly jobs: Jobs;
  readonly keys: KeyOperations;
  readonly audit: KeyAudit;
  readonly rotations: Rotations;
  readonly snapshots: SnapshotOperations;
  readonly backups: Backups;
  readonly restores: Restores;
  readonly forgetting: Forgetting;
  readonly localKeys: LocalKeys;
  readonly watchdog: Watchdog;
}

export class DaemonBackend implements AdminBackend {
  readonly #parts: DaemonParts;

  constructor(parts: DaemonParts) {
    this.#parts = parts;
  }

  async status(): Promise<DaemonStatus> {
    const { facts, jobs } = this.#parts;
    return {
      version: facts.version,
      pid: facts.pid,
      startedAt: new Date(facts.startedAtMs).toISOString(),
      dataDirectory: facts.dataDirectory,
      listen: facts.listen(),
      admin: facts.admin(),
      tls: facts.tls,
      keysLocked: facts.keysLocked,
      volumes: await this.listVolumes(),
      keys: await this.keyStatus(),
      clients: facts.nbd.clients(),
      jobs: jobs.list().filter((job) => job.state === 'running'),
    };
  }

  listVolumes(): Promise<VolumeInfo[]> {
    return Promise.all(this.#parts.volumes.list().map((volume) => this.#view(volume)));
  }

  async volumeInfo(name: string): Promise<VolumeInfo> {
    return this.#view(this.#parts.volumes.get(name));
  }

  async createVolume(request: CreateVolumeRequest, caller: Caller): Promise<VolumeInfo> {
    return this.#view(await this.#parts.volumes.create(request, caller));
  }

  async resizeVolume(name: string, sizeBytes: number, shrink: boolean, caller: Caller): Promise<VolumeInfo> {
    return this.#view(await this.#parts.volumes.resize(name, sizeBytes, shrink, caller));
  }

  async startVolume(name: string, caller: Caller): Promise<VolumeInfo> {
    return this.#view(await this.#parts.volumes.start(name, caller));
  }

  async stopVolume(name: string, caller: Caller): Promise<VolumeInfo> {
    return this.#view(await this.#parts.volumes.stop(name, caller));
  }

  deleteVolume(name: string, caller: Caller): Promise<void> {
    return this.#parts.volumes.delete(name, caller);
  }

  backUpHeader(name: string): Promise<Uint8Array> {
    return this.#parts.volumes.backUpHeader(name);
  }

  async restoreHeader(name: string, file: Uint8Array, force: boolean, caller: Caller): Promise<VolumeInfo> {
    const { audit, volumes } = this.#parts;
    const restore = () => volumes.restoreHeader(name, file, force, caller);
    return this.#view(await audit.ofVolume('header-restore', name, undefined, caller, restore));
  }

  async verifyVolume(name: string): Promise<JobInfo> {
    const { device, state } = this.#parts.volumes.get(name);
    if (device === undefined) {
      const code = state === 'key-invalid' ? 'KEY_UNAVAILABLE' : 'CONFLICT';
      throw new SealbdError(code, `volume "${name}" is ${state}`);
    }
    return this.#parts.jobs.start('verify', name, (control) => device.verify(control));
  }

  async listSnapshots(name: string): Promise<SnapshotInfo[]> {
    return this.#parts.snapshots.list(name).map((snapshot) => snapshotView(name, snapshot));
  }

  async createSnapshot(name: string, snapshot: string, caller: Caller): Promise<SnapshotInfo> {
    return snapshotView(name, await this.#parts.snapshots.create(name, snapshot, caller));
  }

  deleteSnapshot(name: string, snapshot: string, caller: Caller): Promise<void> {
    return this.#parts.snapshots.delete(name, snapshot, caller);
  }

  async rollBack(name: string, snapshot: string, caller: Caller): Promise<VolumeInfo> {
    await this.#parts.snapshots.rollBack(name, snapshot, caller);
    return this.volumeInfo(name);
  }

  cloneSnapshot(name: string, snapshot: string, newName: string, caller: Caller): Promise<JobInfo> {
    return this.#parts.restores.clone(name, snapshot, newName, caller);
  }

  backUpVolume(name: string, request: BackupRequest, caller: Caller): Promise<JobInfo> {
    return this.#parts.backups.create(name, request, caller);
  }

  restoreVolume(name: string, request: RestoreRequest, caller: Caller): Promise<JobInfo> {
    return this.#parts.restores.restore(name, request, caller);
  }

  forgetBackups(request: ForgetRequest, caller: Caller): Promise<ForgottenBackups> {
    const { audit, forgetting } = this.#parts;
    const forget = () => forgetting.forget(request, caller);
    return audit.ofKnownBackups('backup-forget', request.path, caller, forget);
  }

  async keyStatus(): Promise<KeyStatus[]> {
    return this.#parts.volumes.list().flatMap((volume) => this.#keyView(volume));
  }

  async keyStatusOf(name: string, caller: Caller): Promise<KeyStatus[]> {
    const volume = this.#parts.volumes.get(name);
    return volume.device === undefined ? this.checkVolumeKey(name, caller) : this.#keyView(volume);
  }

  async checkVolumeKey(name: string, caller: Caller): Promise<KeyStatus[]> {
    const { volumes, watchdog } = this.#parts;
    volumes.get(name);
    if (watchdog.watches(name)) await watchdog.check(name);
    else await volumes.checkKey(name, caller);
    return this.#keyView(volumes.get(name));
  }

  #keyView(volume: ManagedVolume): KeyStatus[] {
    const { rotations, watchdog } = this.#parts;
    const view = keyView(volume, watchdog.times(volume.name), rotations.isAtWork(volume.name));
    return view === undefined ? [] : [view];
  }

  async setKey(name: string, keyUri: string, reencrypt: boolean, caller: Caller): Promise<KeySet> {
    const { audit, keys } = this.#parts;
    const set = () => keys.set(name, keyUri, caller);
    const change = await audit.ofVolume('key-set', name, keyUri, caller, set);
    if (!reencrypt) return { ...change, job: null };
    try {
      const { job } = await this.rotateKey(name, true, caller);
      return { ...change, job };
    } catch (error) {
      if (!isSealbdError(error)) throw error;
      const message = `"${name}" is under ${keyUri} now, but is not re-encrypted: ${error.message}`;
      throw new SealbdError(error.code, message, { cause: error });
    }
  }

  async rotateKey(name: string, reencrypt: boolean, caller: Caller): Promise<RotatedKey> {
    const { audit, rotations, volumes } = this.#parts;
    const rotate = () => rotations.rotate(volumes, name, reencrypt, caller);
    return rotatedView(name, await audit.ofVolume('rotate', name, undefined, caller, rotate));
  }

  async encryptVolume(name: string, { keyUri, cipher }: EncryptVolume, caller: Caller): Promise<RotatedKey> {
    const { audit, rotations, volumes } = this.#parts;
    const encrypt = () =>
      volumes.keysUnderWay.during({ volume: name, to: keyUri }, () => {
        return rotations.encrypt(volumes, name, keyUri, cipher, caller);
      });
    return rotatedView(name, await audit.ofVolume('encrypt', name, keyUri, caller, encrypt));
  }

  rewrapKey(name: string, caller: Caller): Promise<KeyChange> {
    const { audit, keys } = this.#parts;
    return audit.ofVolume('key-rewrap', name, undefined, caller, () => keys.rewrap(name, caller));
  }

  checkKey(keyUri: string): Promise<KeyReport> {
    return this.#parts.keys.check(keyUri);
  }

  keyUsage(keyUri: string | undefined): Promise<KeyUsage[]> {
    return this.#parts.keys.usage(keyUri);
  }

  exportLocalKey(name: string, passphrase: string, caller: Caller): Promise<{ name: string; file: string }> {
    const { audit, localKeys } = this.#parts;
    return audit.ofLocalKey('export-local', `local:${name}`, caller, async () => {
      const exported = await localKeys.exportKey(name, passphrase);
      const keyUri = `local:${exported.name}`;
      audit.record({ event: 'export-local', volume: null, uuid: null, by: caller, keyUri });
      return exported;
    });
  }

  importLocalKey(
    name: string,
    passphrase: string,
    file: string,
    caller: Caller,
  ): Promise<{ name: string; added: boolean }> {
    const { audit, localKeys } = this.#parts;
    return audit.ofLocalKey('import-local', `local:${name}`, caller, async () => {
      const imported = await localKeys.importKey(name, passphrase, file);
      const keyUri = `local:${imported.name}`;
      if (imported.added)
        audit.record({ event: 'import-local', volume: null, uuid: null, by: caller, keyUri });
      return imported;
    });
  }

  listJobs(): JobInfo[] {
    return this.#parts.jobs.list();
  }

  job(id: string): JobInfo {
    return this.#parts.jobs.get(id);
  }

  async cancelJob(id: string, caller: Caller): Promise<JobInfo> {
    const { jobs, rotations, volumes } = this.#parts;
    // What is to be noted of a rewriting is so when it has ended; its volume is not served either where its disk hangs.
    const limitMs = isRewriting(jobs.get(id).kind) ? undefined : CANCEL_WAIT_MS;
    const job = await jobs.cancel(id, limitMs);
    await rotations.cancelled(volumes, job, caller);
    return job;
  }

  metrics(): Promise<{ contentType: string; text: string }> {
    const { facts, jobs, volumes } = this.#parts;
    return renderMetrics({
      version: facts.version,
      startedAtMs: facts.startedAtMs,
      keysLocked: facts.keysLocked,
      keySlotsUsed: facts.keySlotsUsed(),
      cipherJobs: facts.cipherJobs(),
      jobsRunning: jobs.list().filter((job) => job.state === 'running').length,
      nbd: nbdMetrics(facts.nbd.stats()),
      volumes: volumes.list().map((volume) => this.#metricsOf(volume)),
    });
  }

  async #view(volume: ManagedVolume): Promise<VolumeInfo> {
    const usage = volume.device === undefined ? await this.#parts.files.usage(volume.name) : undefined;
    return volumeView(volume, usage);
  }

  #metricsOf(volume: ManagedVolume): VolumeMetrics {
    const { name, state, keyCheck, device } = volume;
    const sizeBytes = volume.superblock?.sizeBytes ?? 0;
    const stats = device?.stats();
    const times = this.#parts.watchdog.times(name);
    const key = keyView(volume, times, this.#parts.rotations.isAtWork(name));
    return {
      volume: name,
      state,
      keyState: key?.state,
      keyReason: key?.reason ?? undefined,
      keyLastCheckMs: keyCheck?.at,
      keyNextCheckMs: times?.nextCheckAt,
      keyGraceEndsMs: times?.graceEndsAt,
      keyGraceLeftMs:
        times?.graceEndsAt === undefined
          ? undefined
          : Math.max(0, times.graceEndsAt - this.#parts.facts.nowMs()),
      clients: device?.clients ?? 0,
      ...engineMetrics({ sizeBytes, ...rotationMetrics(key) }, stats),
    };
  }
}

function rotationMetrics(key: KeyStatus | undefined): Record<string, number> {
  if (key === undefined || key.rotation === null) return {};
  const { doneBytes, totalBytes } = key.rotation;
  return { rotationDoneBytes: doneBytes, rotationTotalBytes: totalBytes };
}

function engineMetrics(
  given: Readonly<Record<string, number>>,
  stats: VolumeStats | undefined,
): Pick<VolumeMetrics, 'amounts' | 'totals'> {
  if (stats === undefined) return { amounts: given, totals: {} };
  const {
    mappedBytes,
    storedBytes,
    snapshots,
    snapshotBytes,
    segments,
    mapMemoryBytes,
    tailBytes,
    ...totals
  } = stats;
  const stored = { mappedBytes, storedBytes, snapshots, snapshotBytes, segments };
  const amounts = { ...given, ...stored, mapMemoryBytes, tailBytes };
  return { amounts, totals };
}

function nbdMetrics(stats: NbdServerStats): NbdMetrics {
  const { connections, requests, bytesRead, bytesWritten, errors, accepted, refused, dropped, memory } =
    stats;
  const totals = { bytesRead, bytesWritten, errors, accepted, refused, dropped };
  const amounts = {
    memoryBytes: memory.bytes,
    tlsMemoryBytes: memory.lentBytes,
    smallChunksUsed: memory.smallUsed,
    largeChunksUsed: memory.largeUsed,
    waitingForMemory: memory.waiting,
  };
  return { connections, requests, amounts, totals };
}
