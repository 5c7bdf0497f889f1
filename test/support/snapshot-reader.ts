/** Reads a snapshot as an NBD session does: attached, through its device. */
import type { Arena } from '../../src/native/arena.js';
import type { Volume } from '../../src/volume/volume.js';

export async function readSnapshot(volume: Volume, name: string, io: Arena): Promise<Uint8Array> {
  const device = volume.snapshots.device(name);
  if (device === undefined) throw new Error(`no snapshot ${name}`);
  const detach = device.attach(() => undefined);
  try {
    const bytes = new Uint8Array(device.sizeBytes);
    for (let at = 0; at < bytes.length; at += io.sizeBytes) {
      const length = Math.min(io.sizeBytes, bytes.length - at);
      await device.read(io, 0, at, length);
      bytes.set(io.bytes.subarray(0, length), at);
    }
    return bytes;
  } finally {
    detach();
  }
}
