/** What a volume counts while it is open. */
export interface VolumeStats {
  readonly mappedBytes: number;
  /** Bytes of the segment files in use, dead slots included. */
  readonly storedBytes: number;
  readonly snapshots: number;
  /** Bytes of the segment files that only snapshots, and who reads one, keep. */
  readonly snapshotBytes: number;
  readonly segments: number;
  readonly mapMemoryBytes: number;
  readonly tailBytes: number;
  readonly commits: number;
  readonly checkpoints: number;
  readonly checkpointBytes: number;
  readonly movedBytes: number;
  readonly requests: number;
  readonly damagedReads: number;
}
