/**
 * Random requests against one export, over several connections at once, with every promise that the answers make noted
 * in a history. Requests under way never overlap, so that the order of what happened to a block is known.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Command, CommandFlag, Errno } from '../../src/nbd/wire/constants.js';
import type { Change, History } from './history.js';
import type { PipelinedClient } from './pipelined-client.js';
import { BLOCK, patternBlock } from './volume-harness.js';

const BLOCKS_PER_REQUEST_MAX = 40;

export interface TrafficOptions {
  readonly clients: readonly PipelinedClient[];
  readonly history: History;
  readonly random: () => number;
  /** Requests under way on each connection. */
  readonly depth: number;
  /** Where on the device block 0 of the history lies; 0 where this is not given. */
  readonly firstBlock?: number;
  /** Versions are above this one. */
  readonly lastVersion: number;
  /** Longest time that one waits before its next request; none where this is not given. */
  readonly pauseMs?: number;
  /** Somebody may stop the export: who is told so asks for nothing more. */
  readonly mayStop?: boolean;
}

/** A request was answered with an error. */
class Refusal extends Error {
  readonly errno: number;

  constructor(what: string, errno: number) {
    super(`${what} was answered with error ${errno}`);
    this.errno = errno;
  }
}

export class Traffic {
  readonly #options: TrafficOptions;
  readonly #busy = new Set<number>();
  #stopped = false;
  lastVersion: number;
  requests = 0;

  constructor(options: TrafficOptions) {
    this.#options = options;
    this.lastVersion = options.lastVersion;
  }

  /** Runs until `stop`, or until every connection is gone. Rejects where an answer is wrong. */
  async run(): Promise<void> {
    const { clients, depth } = this.#options;
    const workers = clients.flatMap((client) => Array.from({ length: depth }, () => this.#work(client)));
    await Promise.all(workers);
  }

  stop(): void {
    this.#stopped = true;
  }

  async #work(client: PipelinedClient): Promise<void> {
    const { pauseMs = 0 } = this.#options;
    while (!this.#stopped) {
      if (pauseMs > 0) await sleep(this.#int(pauseMs));
      if (this.#stopped) return;
      const what = this.#options.random();
      this.requests++;
      try {
        if (what < 0.08) await this.#flush(client);
        else if (what < 0.2) await this.#withRange((lba, blocks) => this.#read(client, lba, blocks));
        else await this.#withRange((lba, blocks) => this.#change(client, lba, blocks, what));
      } catch (error) {
        if (error instanceof Error && error.message.includes('the server closed the connection')) return;
        if (this.#options.mayStop && error instanceof Refusal && error.errno === Errno.ESHUTDOWN) return;
        throw error;
      }
    }
  }

  #int(max: number): number {
    return Math.floor(this.#options.random() * max);
  }

  #at(lba: number): number {
    return ((this.#options.firstBlock ?? 0) + lba) * BLOCK;
  }

  async #withRange(use: (lba: number, blocks: number) => Promise<void>): Promise<void> {
    const lba = this.#int(this.#options.history.blocks);
    const most = 1 + this.#int(BLOCKS_PER_REQUEST_MAX);
    let blocks = 0;
    while (blocks < most && lba + blocks < this.#options.history.blocks && !this.#busy.has(lba + blocks)) {
      blocks++;
    }
    if (blocks === 0) return await new Promise((resolve) => setImmediate(resolve));
    for (let i = 0; i < blocks; i++) this.#busy.add(lba + i);
    // Where the connection breaks, nobody may claim to know these blocks: they stay taken.
    await use(lba, blocks);
    for (let i = 0; i < blocks; i++) this.#busy.delete(lba + i);
  }

  async #flush(client: PipelinedClient): Promise<void> {
    const done = this.#options.history.flushing();
    expectOk(await client.call(Command.FLUSH, 0, 0), 'FLUSH');
    done();
  }

  async #read(client: PipelinedClient, lba: number, blocks: number): Promise<void> {
    const reply = await client.call(Command.READ, this.#at(lba), blocks * BLOCK, {}, true);
    expectOk(reply, 'READ');
    for (let i = 0; i < blocks; i++) {
      const version = this.#options.history.current(lba + i);
      if (Buffer.compare(reply.data.subarray(i * BLOCK, (i + 1) * BLOCK), content(lba + i, version)) === 0)
        continue;
      throw new Error(`block ${lba + i} does not read as version ${version}, which was acknowledged`);
    }
  }

  async #change(client: PipelinedClient, lba: number, blocks: number, what: number): Promise<void> {
    const { history, random } = this.#options;
    const type = what < 0.8 ? Command.WRITE : what < 0.9 ? Command.TRIM : Command.WRITE_ZEROES;
    const version = type === Command.WRITE ? ++this.lastVersion : 0;
    const changes: Change[] = [];
    for (let i = 0; i < blocks; i++) changes.push(history.issue(lba + i, version, false));
    const payload = Buffer.concat(changes.map((_, i) => content(lba + i, version)));
    const fua = random() < 0.1;
    const reply = await client.call(type, this.#at(lba), blocks * BLOCK, {
      flags: fua ? CommandFlag.FUA : 0,
      ...(type === Command.WRITE ? { payload } : {}),
    });
    expectOk(reply, `command ${type}`);
    changes.forEach((change, i) => {
      change.acknowledged = true;
      if (fua) history.durable(lba + i, change);
    });
  }
}

/** What a block of this version holds; version 0 is zeros. */
export function content(lba: number, version: number): Uint8Array {
  return version === 0 ? new Uint8Array(BLOCK) : patternBlock(lba, version);
}

export function versionOf(block: Buffer): number {
  return block.readUInt32LE(4);
}

function expectOk(reply: { error: number }, what: string): void {
  if (reply.error !== 0) throw new Refusal(what, reply.error);
}
