/** Entries of one chunk of a map file: refused, or exactly what would be written. */

import { integrityError } from '../../../src/volume/map-file/codec.js';
import { MapEntryDecoder, putMapEntry } from '../../../src/volume/map-file/entry-codec.js';
import { RunBatch } from '../../../src/volume/map-file/run-batch.js';
import { decoded, requireSame, requireThat } from './oracle.js';

/** Small, so that one chunk takes several. */
const BATCH_ENTRIES = 5;

export function fuzz(data: Uint8Array): void {
  if (data.length < 2) return;
  const payload = data.subarray(2);
  const tombstones = (data[0] & 1) === 1;
  const decoder = new MapEntryDecoder(payload, data[1], tombstones, (problem) => integrityError(1, problem));
  const batch = new RunBatch(BATCH_ENTRIES);
  const written = new Uint8Array(payload.length + 16);
  let [at, end] = [0, 0];
  const next = () => decoded(() => decoder.fill(batch));
  for (let more = next(); more; more = next()) {
    for (let i = 0; i < batch.count; i++) {
      requireThat(tombstones || batch.slot[i] >= 0, 'no tombstones where there may be none');
      at = putMapEntry(written, at, end, batch.lba[i], batch.blocks[i], batch.slot[i]);
      end = batch.lba[i] + batch.blocks[i];
    }
    requireThat(decoder.end === end && end >= data[1], 'entries are behind those of the chunk before');
    requireSame(written.subarray(0, at), payload.subarray(0, at), 'map entries');
  }
}
