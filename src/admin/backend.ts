/** What the admin API asks of the daemon. Everything rejects with a SealbdError. */
import type { z } from 'zod';
import type {
  backUpVolumeSchema,
  createVolumeSchema,
  DaemonStatus,
  EncryptVolume,
  ForgottenBackups,
  forgetBackupsSchema,
  JobInfo,
  KeyChange,
  KeyReport,
  KeySet,
  KeyStatus,
  KeyUsage,
  RotatedKey,
  restoreVolumeSchema,
  SnapshotInfo,
  VolumeInfo,
} from './schemas.js';

/** Who asked: the command line (as it says of itself) or another client, and from where. */
export interface Caller {
  readonly kind: 'cli' | 'admin';
  /** `unix`, or the address of a TCP client. */
  readonly peer: string;
}

export interface AdminBackend {
  status(): Promise<DaemonStatus>;

  listVolumes(): Promise<VolumeInfo[]>;
  volumeInfo(name: string): Promise<VolumeInfo>;
  createVolume(request: z.output<typeof createVolumeSchema>, caller: Caller): Promise<VolumeInfo>;
  resizeVolume(name: string, sizeBytes: number, shrink: boolean, caller: Caller): Promise<VolumeInfo>;
  startVolume(name: string, caller: Caller): Promise<VolumeInfo>;
  stopVolume(name: string, caller: Caller): Promise<VolumeInfo>;
  deleteVolume(name: string, caller: Caller): Promise<void>;
  backUpHeader(name: string): Promise<Uint8Array>;
  restoreHeader(name: string, file: Uint8Array, force: boolean, caller: Caller): Promise<VolumeInfo>;
  verifyVolume(name: string): Promise<JobInfo>;
  encryptVolume(name: string, request: EncryptVolume, caller: Caller): Promise<RotatedKey>;

  /** Oldest first. */
  listSnapshots(name: string): Promise<SnapshotInfo[]>;
  createSnapshot(name: string, snapshot: string, caller: Caller): Promise<SnapshotInfo>;
  deleteSnapshot(name: string, snapshot: string, caller: Caller): Promise<void>;
  /** Makes the volume what the snapshot is. */
  rollBack(name: string, snapshot: string, caller: Caller): Promise<VolumeInfo>;
  /** Makes another volume of it. */
  cloneSnapshot(name: string, snapshot: string, newName: string, caller: Caller): Promise<JobInfo>;
  backUpVolume(name: string, request: z.output<typeof backUpVolumeSchema>, caller: Caller): Promise<JobInfo>;
  restoreVolume(
    name: string,
    request: z.output<typeof restoreVolumeSchema>,
    caller: Caller,
  ): Promise<JobInfo>;

  /** Gives up what is known of backups; nothing is done to their files. */
  forgetBackups(request: z.output<typeof forgetBackupsSchema>, caller: Caller): Promise<ForgottenBackups>;

  /** Every volume that has a key. */
  keyStatus(): Promise<KeyStatus[]>;
  /** The same of one volume; where it is not open its key is checked first. */
  keyStatusOf(name: string, caller: Caller): Promise<KeyStatus[]>;
  /** The same after a check of this moment, with all that follows from its answer. */
  checkVolumeKey(name: string, caller: Caller): Promise<KeyStatus[]>;
  /** Puts the DEKs of a volume under another key; with `reencrypt` a rotation follows that rewrites the data. */
  setKey(name: string, keyUri: string, reencrypt: boolean, caller: Caller): Promise<KeySet>;
  rotateKey(name: string, reencrypt: boolean, caller: Caller): Promise<RotatedKey>;
  rewrapKey(name: string, caller: Caller): Promise<KeyChange>;
  /** A dry run of everything that is asked of a key. */
  checkKey(keyUri: string): Promise<KeyReport>;
  /** Of every key that a volume depends on, or of one. */
  keyUsage(keyUri: string | undefined): Promise<KeyUsage[]>;
  /** `name` is that of a local: key, or of a volume under one. */
  exportLocalKey(name: string, passphrase: string, caller: Caller): Promise<{ name: string; file: string }>;
  importLocalKey(
    name: string,
    passphrase: string,
    file: string,
    caller: Caller,
  ): Promise<{ name: string; added: boolean }>;

  listJobs(): JobInfo[];
  job(id: string): JobInfo;
  cancelJob(id: string, caller: Caller): Promise<JobInfo>;

  /** Prometheus text, and its content type. */
  metrics(): Promise<{ contentType: string; text: string }>;
}
