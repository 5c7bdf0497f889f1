/**
 * What nbdkit 1.32 remembers of SET_META_CONTEXT, option by option as its server does it: a selection outlives a SET that is
 * refused before its queries are looked at, and is gone after any look at an export by another name.
 */
import { ALLOCATION, STRING_MAX } from './wire.js';

export class ContextOfNbdkit {
  selected = false;
  /** How the last selection went that a look ended. */
  lost: 'by INFO' | 'by name' | undefined;
  #name: string | undefined;

  /** Data of a SET after structured replies were negotiated. */
  sets(data: Buffer): void {
    if (data.length < 8) return;
    const name = stringAt(data, 0, data.length - 8);
    if (name === undefined) return;
    this.#name = name.toString('latin1');
    this.selected = false;
    let at = 8 + name.length;
    for (let count = data.readUInt32BE(at - 4); count > 0; count--) {
      if (at + 4 > data.length) return;
      const query = stringAt(data, at, data.length - at - 4);
      if (query === undefined) return;
      if (query.toString('latin1') === ALLOCATION) this.selected = true;
      at += 4 + query.length;
    }
  }

  /** INFO, GO or EXPORT_NAME; `same` where it means the export of this walk. */
  looksAt(name: string, same: boolean): void {
    if (this.#name === undefined || this.#name === name) return;
    if (this.selected) this.lost = same ? 'by name' : 'by INFO';
    this.selected = false;
  }
}

function stringAt(data: Buffer, at: number, max: number): Buffer | undefined {
  const length = data.readUInt32BE(at);
  if (length > STRING_MAX || length > max) return undefined;
  const bytes = data.subarray(at + 4, at + 4 + length);
  return bytes.includes(0) ? undefined : bytes;
}
