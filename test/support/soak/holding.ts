/** Blocks of a volume that one client alone changes, so that what they must be is known. */
import { Command } from '../../../src/nbd/wire/constants.js';
import { History } from '../history.js';
import { content, versionOf } from '../nbd-traffic.js';
import type { PipelinedClient } from '../pipelined-client.js';
import { BLOCK } from '../volume-harness.js';
import type { Moment, SoakVolume } from './world.js';

const READ_BLOCKS = 256;

export class Holding {
  readonly volume: SoakVolume;
  readonly firstBlock: number;
  readonly history: History;
  /** The next version is above it. No two holdings have one in common, so none passes for another. */
  lastVersion: number;
  /** The life of the daemon in which every block was looked at, so that what a kill left is known. */
  #epoch: number;

  constructor(volume: SoakVolume, firstBlock: number, blocks: number, lastVersion: number, epoch: number) {
    this.volume = volume;
    this.firstBlock = firstBlock;
    this.history = new History(blocks);
    this.lastVersion = lastVersion;
    this.#epoch = epoch;
  }

  get blocks(): number {
    return this.history.blocks;
  }

  /** What the kills so far left of it is known. */
  isSettled(epoch: number): boolean {
    return this.#epoch === epoch;
  }

  /** Byte offset on the device. */
  at(lba: number): number {
    return (this.firstBlock + lba) * BLOCK;
  }

  /**
   * Reads the first `blocks` while nothing of them is under way. After a kill each is something that was there since the last
   * flush; else what was acknowledged last, or a request that was never answered.
   */
  async check(client: PipelinedClient, { epoch }: Moment, blocks = this.blocks): Promise<void> {
    const crashed = this.#epoch !== epoch;
    await this.#forEach(client, blocks, (lba, block) => {
      const allowed = crashed ? this.history.allowed(lba) : this.history.possible(lba);
      const version = this.#expectOne(lba, block, new Set(allowed), crashed ? 'after a kill' : '');
      if (crashed) this.history.settle(lba, version);
      else this.history.observe(lba, version);
    });
    this.#epoch = epoch;
  }

  /** The same of a snapshot, in which each block has one of these versions; what it has is all that stays possible. */
  async checkAgainst(
    client: PipelinedClient,
    versions: readonly Set<number>[],
    blocks: number,
  ): Promise<void> {
    await this.#forEach(client, blocks, (lba, block) => {
      const version = this.#expectOne(lba, block, versions[lba], 'in a snapshot');
      versions[lba].clear();
      versions[lba].add(version);
    });
  }

  async flush(client: PipelinedClient): Promise<void> {
    const done = this.history.flushing();
    const { error } = await client.call(Command.FLUSH, 0, 0);
    if (error !== 0) throw new Error(`FLUSH was answered with error ${error}`);
    done();
  }

  /** Throws where something was asked for that was not answered. */
  expectAnswered(): void {
    for (let lba = 0; lba < this.blocks; lba++) {
      if (this.history.possible(lba).length > 1)
        throw new Error(`a request of block ${this.firstBlock + lba} of ${this.volume.name} has no answer`);
    }
  }

  /** Throws where a kill could still leave more than one version. */
  expectFlushed(): void {
    for (let lba = 0; lba < this.blocks; lba++) {
      if (this.history.allowed(lba).length > 1)
        throw new Error(`block ${this.firstBlock + lba} of ${this.volume.name} is not flushed`);
    }
  }

  #expectOne(lba: number, block: Buffer, allowed: ReadonlySet<number>, when: string): number {
    const version = versionOf(block);
    const whole = Buffer.compare(block, content(lba, version)) === 0;
    if (whole && allowed.has(version)) return version;
    const found = whole ? `version ${version}` : `no version (${block.toString('hex', 0, 16)}...)`;
    const where = `block ${this.firstBlock + lba} of ${this.volume.name}`;
    throw new Error(`${where} reads as ${found} ${when}, expected ${[...allowed].join(' or ')}`);
  }

  async #forEach(client: PipelinedClient, blocks: number, look: (lba: number, block: Buffer) => void) {
    for (let from = 0; from < blocks; from += READ_BLOCKS) {
      const count = Math.min(READ_BLOCKS, blocks - from);
      const { error, data } = await client.call(Command.READ, this.at(from), count * BLOCK, {}, true);
      if (error !== 0)
        throw new Error(`READ of block ${this.firstBlock + from} was answered with error ${error}`);
      for (let i = 0; i < count; i++) look(from + i, data.subarray(i * BLOCK, (i + 1) * BLOCK));
    }
  }
}
