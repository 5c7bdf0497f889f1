/** What a process of map-point.ts prints. */
export interface MapPoint {
  readonly openSeconds: number;
  readonly lookupNs: number;
  readonly mapBytes: number;
  readonly residentBytes: number;
  readonly checkpointBytes: number;
  readonly checkpointMs: number;
}

/** Changed before the checkpoint that is measured. */
export const CHANGED_BLOCKS = 10_000;
