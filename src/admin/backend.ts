/** What the admin API asks of the daemon. Everything rejects with a SealbdError. */
import type { z } from 'zod';
import type { createVolumeSchema, DaemonStatus, JobInfo, KeyStatus, VolumeInfo } from './schemas.js';

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

  /** Every volume that has a key. */
  keyStatus(): Promise<KeyStatus[]>;
  /** The same of one volume; where it is not open its key is checked first. */
  keyStatusOf(name: string, caller: Caller): Promise<KeyStatus[]>;
  /** `name` is that of a local: key, or of a volume under one. */
  exportLocalKey(name: string, passphrase: string): Promise<{ name: string; file: string }>;
  importLocalKey(name: string, passphrase: string, file: string): Promise<{ name: string; added: boolean }>;

  listJobs(): JobInfo[];
  job(id: string): JobInfo;
  cancelJob(id: string): Promise<JobInfo>;

  /** Prometheus text, and its content type. */
  metrics(): Promise<{ contentType: string; text: string }>;
}
