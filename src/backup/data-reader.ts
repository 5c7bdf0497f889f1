/** Reads one data file front to back, window by window, and checks it against the index. */
import { messageOf } from '../base/errors.js';
import { SEGMENT_HEADER_BYTES, SLOT_BYTES } from '../base/limits.js';
import { addon, type KeyHandle } from '../native/addon.js';
import type { BackupDirectory } from './backup-directory.js';
import type { IndexEntry } from './index-codec.js';
import { dataFileName } from './names.js';
import { packedOffset, readFromData, type Window, windows } from './packed-slots.js';
import { isHeaderOf } from './segment-header.js';
import { type SlotWindow, withSegmentKey } from './slot-scan.js';

export interface DataVisitor {
  /** The header of the segment; undefined where it is damaged. */
  header?(bytes: Uint8Array | undefined): Promise<void>;
  /** Slots of a window, packed in the buffer; where keys are at hand, `valid` of the buffer says which authenticate. */
  window(window: Window, buffer: SlotWindow): Promise<void>;
}

export interface DataReadOptions {
  readonly backup: BackupDirectory;
  readonly entry: IndexEntry;
  readonly buffer: SlotWindow;
  /** Undefined: only the checksum is checked. */
  readonly keys: ReadonlyMap<number, KeyHandle> | undefined;
  readonly signal: AbortSignal;
}

/** What is wrong with the file, in words; undefined where nothing is. Goes on behind what is damaged. */
export async function readData(options: DataReadOptions, visitor: DataVisitor): Promise<string | undefined> {
  const { backup, entry } = options;
  const name = dataFileName(entry.id);
  let file: Awaited<ReturnType<BackupDirectory['openFile']>>;
  try {
    file = await backup.openFile(name);
  } catch (error) {
    return `${name}: ${messageOf(error)}`;
  }
  try {
    const read = new DataRead(options, file, visitor);
    await read.run();
    return read.problem === undefined ? undefined : `${name}: ${read.problem}`;
  } finally {
    await file.close();
  }
}

class DataRead {
  readonly #options: DataReadOptions;
  readonly #file: Awaited<ReturnType<BackupDirectory['openFile']>>;
  readonly #visitor: DataVisitor;
  #crc = 0;
  problem: string | undefined;

  constructor(
    options: DataReadOptions,
    file: Awaited<ReturnType<BackupDirectory['openFile']>>,
    visitor: DataVisitor,
  ) {
    this.#options = options;
    this.#file = file;
    this.#visitor = visitor;
  }

  async run(): Promise<void> {
    const { entry, keys } = this.#options;
    const expected = packedOffset(entry.slots.count);
    const size = await this.#file.size();
    if (size !== expected) this.problem = `${size} bytes instead of ${expected}`;
    await this.#header();
    if (keys === undefined) await this.#windows(undefined);
    else await withSegmentKey(entry, keys, (key) => this.#windows(key));
    if (this.#crc !== entry.crc) this.problem ??= 'wrong checksum';
  }

  async #header(): Promise<void> {
    const { entry, keys } = this.#options;
    const bytes = new Uint8Array(SEGMENT_HEADER_BYTES);
    const whole = await this.#readHeader(bytes);
    this.#crc = addon.crc32c(bytes, this.#crc);
    const sound = whole && (keys === undefined || isHeaderOf(bytes, entry, keys));
    if (!sound) this.problem ??= 'the header of the segment does not authenticate';
    await this.#visitor.header?.(sound ? bytes : undefined);
  }

  async #readHeader(bytes: Uint8Array): Promise<boolean> {
    try {
      return (await this.#file.read(bytes, 0)) === bytes.length;
    } catch (error) {
      this.problem ??= messageOf(error);
      return false;
    }
  }

  async #windows(key: Parameters<SlotWindow['check']>[0] | undefined): Promise<void> {
    const { entry, buffer, signal } = this.#options;
    for (const window of windows(entry.slots)) {
      signal.throwIfAborted();
      const bytes = buffer.bytes.subarray(0, window.count * SLOT_BYTES);
      if (!(await this.#read(window, buffer))) bytes.fill(0);
      this.#crc = addon.crc32c(bytes, this.#crc);
      if (key !== undefined && !(await buffer.check(key, window.runs)))
        this.problem ??= 'a slot does not authenticate';
      await this.#visitor.window(window, buffer);
    }
  }

  /** What can't be read counts as zeros, which authenticate as nothing. */
  async #read(window: Window, buffer: SlotWindow): Promise<boolean> {
    try {
      if (await readFromData(this.#file, window, buffer.bytes)) return true;
      this.problem ??= 'truncated';
    } catch (error) {
      this.problem ??= messageOf(error);
    }
    return false;
  }
}
