/** A superblock, alone or as a header backup holds it, decodes to nothing or to what encodes to the same bytes again. */
import { decodeHeaderBackup, encodeHeaderBackup } from '../../../src/keys/header-backup.js';
import { decodeSuperblock, encodeSuperblock, superblockAuthenticates } from '../../../src/keys/superblock.js';
import { addon } from '../../../src/native/addon.js';
import { copyOf, decoded, getUint32, KEY, requireSame, requireThat, setUint32 } from './oracle.js';

const HEAD_BYTES = 64;
const BODY_LENGTH_AT = 56;
const BACKUP_MAGIC = Buffer.from('SBDHDR1\n');

export function fuzz(data: Uint8Array): void {
  if (Buffer.from(data.subarray(0, 8)).equals(BACKUP_MAGIC)) {
    headerBackup(data);
    return;
  }
  superblock(data);
  superblock(withCrc(data));
}

/** The CRC is no obstacle to who means harm. */
function withCrc(data: Uint8Array): Uint8Array {
  const copy = copyOf(data);
  if (copy.length < HEAD_BYTES) return copy;
  const at = HEAD_BYTES + getUint32(copy, BODY_LENGTH_AT);
  if (at + 4 <= copy.length) setUint32(copy, at, addon.crc32c(copy.subarray(0, at), 0));
  return copy;
}

function superblock(bytes: Uint8Array): void {
  const found = decoded(() => decodeSuperblock(bytes));
  if (found === undefined) return;
  const back = encodeSuperblock(found.superblock, () => KEY);
  requireSame(back.subarray(0, found.covered.length), found.covered, 'superblock');
  requireThat(back.length === bytes.length, 'a superblock has as many MACs as DEKs that make it');
  requireThat(
    superblockAuthenticates(decodeSuperblock(back), () => KEY),
    'its MACs hold',
  );
}

function headerBackup(data: Uint8Array): void {
  const copy = copyOf(data);
  if (copy.length >= 20) setUint32(copy, copy.length - 4, addon.crc32c(copy.subarray(0, copy.length - 4), 0));
  const bytes = decoded(() => decodeHeaderBackup(copy));
  if (bytes === undefined) return;
  requireSame(encodeHeaderBackup(bytes), copy, 'header backup');
  superblock(bytes);
}
