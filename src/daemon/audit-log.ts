/**
 * DIR/audit.jsonl: one JSON line for each thing that happened to a key, with who asked for it. Append-only, synced
 * line by line; it never holds key material. What it records has happened and is not held up by a disk that takes no
 * more: such lines wait in memory, in order, and are written when it does; at the end, to the daemon's log.
 */
import { constants, promises as fs } from 'node:fs';
import { dirname } from 'node:path';
import type { Clock } from '../base/clock.js';
import { messageOf, SealbdError } from '../base/errors.js';
import { AUDIT_PENDING_BYTES_MAX } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { syncDirectory } from '../base/sync-directory.js';
import type { VolumeEvent } from './volume-events.js';

const LINE_END = 0x0a;

export class AuditLog {
  readonly #file: fs.FileHandle;
  readonly #clock: Clock;
  readonly #log: Logger;
  /** Written to the file up to some point in the middle, perhaps. */
  #pending = Buffer.alloc(0);
  #writing: Promise<void> | undefined;

  private constructor(file: fs.FileHandle, clock: Clock, log: Logger) {
    this.#file = file;
    this.#clock = clock;
    this.#log = log;
  }

  static async open(path: string, clock: Clock, log: Logger): Promise<AuditLog> {
    let file: fs.FileHandle | undefined;
    try {
      const flags = constants.O_RDWR | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW;
      file = await fs.open(path, flags, 0o600);
      if (!(await file.stat()).isFile()) throw new Error('it is not a file');
      await file.chmod(0o600);
      await syncDirectory(dirname(path));
      const audit = new AuditLog(file, clock, log);
      // A crash may have left half a line; the next one must not be glued to it.
      if (await endsInside(file)) audit.#pending = Buffer.from('\n');
      return audit;
    } catch (error) {
      await file?.close();
      throw new SealbdError('FAILED', `cannot use the audit log ${path}: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }

  /** Puts the event down; `flush` waits for it. */
  record(event: VolumeEvent): void {
    const time = new Date(this.#clock.now()).toISOString();
    const line = Buffer.from(`${JSON.stringify({ time, ...event })}\n`);
    if (this.#pending.length + line.length > AUDIT_PENDING_BYTES_MAX) {
      this.#log.error({ ...event }, 'the audit log takes no more lines; this one is in this log only');
      return;
    }
    this.#pending = Buffer.concat([this.#pending, line]);
    void this.flush();
  }

  /** Resolves when everything recorded is on the disk, or could not be written for now. */
  flush(): Promise<void> {
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
    });
    return this.#writing;
  }

  async close(): Promise<void> {
    await this.flush();
    await this.#file.close();
    if (this.#pending.length === 0) return;
    const lines = this.#pending.toString('utf8');
    this.#log.error({ lines }, 'the audit log could not be written to the end; the rest is here');
  }

  async #write(): Promise<void> {
    try {
      while (this.#pending.length > 0) {
        const { bytesWritten } = await this.#file.write(this.#pending);
        this.#pending = this.#pending.subarray(bytesWritten);
        if (this.#pending.length === 0) await this.#file.datasync();
      }
    } catch (error) {
      this.#log.error(
        { reason: messageOf(error), pendingBytes: this.#pending.length },
        'the audit log cannot be written; its lines wait',
      );
    }
  }
}

async function endsInside(file: fs.FileHandle): Promise<boolean> {
  const { size } = await file.stat();
  if (size === 0) return false;
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, size - 1);
  return buffer[0] !== LINE_END;
}
