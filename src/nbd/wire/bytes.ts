/** Big-endian helpers of the codec. Unsigned 64-bit integers travel as numbers; above 2^53 they lose low bits,
 * which is harmless for offsets (they are out of range anyway) and avoided for cookies (two 32-bit words). */
const WORD = 0x1_0000_0000;

export function getUint64(view: DataView, at: number): number {
  return view.getUint32(at) * WORD + view.getUint32(at + 4);
}

export function setUint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / WORD));
  view.setUint32(at + 4, value % WORD);
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

/** A protocol string: UTF-8 without NUL. Undefined where the bytes are something else. */
export function decodeString(bytes: Uint8Array): string | undefined {
  if (bytes.includes(0)) return undefined;
  try {
    return strict.decode(bytes);
  } catch {
    return undefined;
  }
}

/** UTF-8, cut to at most `bytesMax` at a character's boundary; NUL becomes U+FFFD. */
export function encodeString(text: string, bytesMax: number): Uint8Array {
  const clean = text.replaceAll('\0', '\ufffd');
  const target = new Uint8Array(Math.min(bytesMax, clean.length * 3));
  const { written } = encoder.encodeInto(clean, target);
  return target.subarray(0, written);
}
