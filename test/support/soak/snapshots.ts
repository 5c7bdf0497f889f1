/** The snapshots of a volume, with what each block of each of them may be. */
import { PipelinedClient } from '../pipelined-client.js';
import { BLOCK } from '../volume-harness.js';
import type { Holding } from './holding.js';
import type { SoakVolume, World } from './world.js';

interface Expected {
  /** For each holding, for each of its blocks. */
  readonly versions: readonly Set<number>[][];
  readonly sizeBytes: number;
}

export class SoakSnapshots {
  readonly #world: World;
  readonly #volume: SoakVolume;
  readonly #holdings: readonly Holding[];
  readonly #expected = new Map<string, Expected>();
  /** A kill came before the answer: it is there, as it should be, or it is not. */
  #doubtful: string | undefined;
  #made = 0;

  constructor(world: World, volume: SoakVolume, holdings: readonly Holding[]) {
    this.#world = world;
    this.#volume = volume;
    this.#holdings = holdings;
  }

  get names(): string[] {
    return [...this.#expected.keys()];
  }

  /** It has what was acknowledged before the command, and of what came meanwhile what it will. */
  async create(sizeBytes: number): Promise<void> {
    const name = `s${++this.#made}`;
    const ends = this.#holdings.map(({ history }) => history.witness());
    this.#doubtful = name;
    try {
      await this.#world.admin.createSnapshot(this.#volume.name, name);
      this.#doubtful = undefined;
    } finally {
      this.#expected.set(name, { versions: ends.map((end) => end()), sizeBytes });
    }
  }

  async delete(name: string): Promise<void> {
    this.#doubtful = name;
    await this.#world.admin.deleteSnapshot(this.#volume.name, name);
    this.#doubtful = undefined;
    this.#expected.delete(name);
  }

  /** The list has those that it must have, after a kill too. */
  async checkList(): Promise<void> {
    const listed = await this.#world.admin.listSnapshots(this.#volume.name);
    const names = listed.map(({ name }) => name);
    if (this.#doubtful !== undefined && !names.includes(this.#doubtful))
      this.#expected.delete(this.#doubtful);
    this.#doubtful = undefined;
    if (names.sort().join() !== this.names.sort().join())
      throw new Error(`the snapshots of ${this.#volume.name} are ${names}, expected ${this.names}`);
    const problem = listed.find((snapshot) => snapshot.problem !== null);
    if (problem !== undefined) throw new Error(`snapshot ${problem.name}: ${problem.problem}`);
    for (const { name, sizeBytes } of listed) {
      const expected = this.#expected.get(name)!.sizeBytes;
      if (sizeBytes !== expected) throw new Error(`${name} has ${sizeBytes} bytes, expected ${expected}`);
    }
  }

  /** Every byte of it, over NBD. */
  async verify(name: string): Promise<void> {
    const { versions, sizeBytes } = this.#expected.get(name)!;
    const moment = this.#world.moment(this.#volume);
    const client = await PipelinedClient.connect(this.#world.address, `${this.#volume.name}@${name}`);
    try {
      for (const [i, holding] of this.#holdings.entries()) {
        const blocks = Math.min(holding.blocks, sizeBytes / BLOCK - holding.firstBlock);
        await holding.checkAgainst(client, versions[i], blocks);
      }
    } finally {
      await client.close();
    }
    // One that has clients is not deleted.
    await this.#world.departed(this.#volume, [client.raw.peer], moment);
  }
}
