/** What the admin API asks of the daemon. Everything rejects with a SealbdError. */
import type { z } from 'zod';
import type { createVolumeSchema, DaemonStatus, JobInfo, KeyStatus, VolumeInfo } from './schemas.js';

export interface AdminBackend {
  status(): Promise<DaemonStatus>;

  listVolumes(): Promise<VolumeInfo[]>;
  volumeInfo(name: string): Promise<VolumeInfo>;
  createVolume(request: z.output<typeof createVolumeSchema>): Promise<VolumeInfo>;
  resizeVolume(name: string, sizeBytes: number, shrink: boolean): Promise<VolumeInfo>;
  startVolume(name: string): Promise<VolumeInfo>;
  stopVolume(name: string): Promise<VolumeInfo>;
  deleteVolume(name: string): Promise<void>;
  backUpHeader(name: string): Promise<Uint8Array>;
  restoreHeader(name: string, file: Uint8Array, force: boolean): Promise<VolumeInfo>;
  verifyVolume(name: string): Promise<JobInfo>;

  /** Every volume that has a key, or the named one. */
  keyStatus(name?: string): Promise<KeyStatus[]>;
  /** `name` is that of a local: key, or of a volume under one. */
  exportLocalKey(name: string, passphrase: string): Promise<{ name: string; file: string }>;
  importLocalKey(name: string, passphrase: string, file: string): Promise<{ name: string; added: boolean }>;

  listJobs(): JobInfo[];
  job(id: string): JobInfo;
  cancelJob(id: string): Promise<JobInfo>;

  /** Prometheus text, and its content type. */
  metrics(): Promise<{ contentType: string; text: string }>;
}
