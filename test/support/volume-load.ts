/**
 * Clients that write to a part of a volume without a pause, and the oracle of what it must read as. The load outlives
 * connections and daemons: detach it, or let the daemon go; verify; attach it again.
 */
import { expect } from 'vitest';
import { Command } from '../../src/nbd/wire/constants.js';
import type { DaemonProcess } from './daemon-process.js';
import { History } from './history.js';
import { content, Traffic, versionOf } from './nbd-traffic.js';
import { PipelinedClient } from './pipelined-client.js';
import { until } from './until.js';
import { BLOCK } from './volume-harness.js';

const CONNECTIONS = 2;
const DEPTH = 4;
const READ_BLOCKS = 1024;

export interface VolumeLoadOptions {
  readonly volume: string;
  /** Block of the device at which the part of the load begins. */
  readonly firstBlock?: number;
  readonly blocks: number;
  readonly random: () => number;
}

interface Attached {
  readonly clients: readonly PipelinedClient[];
  readonly traffic: Traffic;
  /** How it ended: 'asked to', 'closed' or what was answered. */
  readonly ended: Promise<string>;
}

export class VolumeLoad {
  readonly history: History;
  readonly #options: VolumeLoadOptions;
  #attached: Attached | undefined;
  #asked = false;
  #lastVersion = 0;

  constructor(options: VolumeLoadOptions) {
    this.#options = options;
    this.history = new History(options.blocks);
  }

  /** Writes on until `detach`, or until the daemon ends it. */
  async attach(daemon: DaemonProcess): Promise<void> {
    const { volume, random, firstBlock = 0 } = this.#options;
    const clients: PipelinedClient[] = [];
    for (let i = 0; i < CONNECTIONS; i++)
      clients.push(await PipelinedClient.connect(daemon.ready.listen[0], volume));
    const { history } = this;
    const traffic = new Traffic({
      ...{ clients, history, random, firstBlock },
      ...{ depth: DEPTH, lastVersion: this.#lastVersion },
    });
    this.#asked = false;
    const ended = traffic.run().then(
      () => (this.#asked ? 'asked to' : 'closed'),
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
    this.#attached = { clients, traffic, ended };
  }

  /** Waits until so many more requests were answered. */
  async goOn(requests = 200): Promise<void> {
    const { traffic, ended } = this.#now();
    const wanted = traffic.requests + requests;
    let end: string | undefined;
    void ended.then((how) => {
      end = how;
    });
    await until(`${requests} more requests are answered`, () => {
      if (end !== undefined) throw new Error(`the load ended: ${end}`);
      return traffic.requests >= wanted;
    });
  }

  /** Flushes, and ends it. */
  async detach(): Promise<void> {
    const { clients, traffic, ended } = this.#now();
    this.#asked = true;
    traffic.stop();
    expect(await ended).toBe('asked to');
    const flushed = this.history.flushing();
    expect((await clients[0].call(Command.FLUSH, 0, 0)).error).toBe(0);
    flushed();
    await this.#close();
  }

  /** The daemon ends it, or was killed. Resolves with how that looked: 'closed', or what a request was answered. */
  async cutOff(): Promise<string> {
    const how = await this.#now().ended;
    await this.#close();
    return how;
  }

  /** The daemon stopped the volume in good order: what was acknowledged is as good as flushed. */
  settleAcknowledged(): void {
    this.history.flushing()();
  }

  /** Every block reads as something that it may be, whole; from here on just that. */
  async verify(daemon: DaemonProcess): Promise<void> {
    if (this.#attached !== undefined) throw new Error('detach it first');
    const { volume, blocks, firstBlock = 0 } = this.#options;
    const client = await PipelinedClient.connect(daemon.ready.listen[0], volume);
    for (let from = 0; from < blocks; from += READ_BLOCKS) {
      const count = Math.min(READ_BLOCKS, blocks - from);
      const at = (firstBlock + from) * BLOCK;
      const { error, data } = await client.call(Command.READ, at, count * BLOCK, {}, true);
      expect(error, `READ of block ${from}`).toBe(0);
      for (let i = 0; i < count; i++) this.#check(from + i, data.subarray(i * BLOCK, (i + 1) * BLOCK));
    }
    await client.close();
  }

  #check(lba: number, block: Buffer): void {
    const version = versionOf(block);
    expect(this.history.allowed(lba), `block ${lba}`).toContain(version);
    expect(Buffer.compare(block, content(lba, version)), `block ${lba} is whole`).toBe(0);
    this.history.settle(lba, version);
  }

  #now(): Attached {
    if (this.#attached === undefined) throw new Error('not attached');
    return this.#attached;
  }

  async #close(): Promise<void> {
    const { clients, traffic } = this.#now();
    for (const client of clients) await client.close();
    this.#lastVersion = traffic.lastVersion;
    this.#attached = undefined;
  }
}
