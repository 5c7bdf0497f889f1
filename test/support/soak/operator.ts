/**
 * Somebody who administers one volume while its clients write: resizes it, makes, checks and deletes snapshots, changes its
 * keys, verifies it, stops it and starts it again. The blocks behind those of the clients are the operator's own.
 */
import { isSealbdError } from '../../../src/base/errors.js';
import { Command, Errno } from '../../../src/nbd/wire/constants.js';
import type { KmsFake } from '../kms-fake/kms-fake.js';
import { content } from '../nbd-traffic.js';
import { PipelinedClient } from '../pipelined-client.js';
import { until } from '../until.js';
import { BLOCK } from '../volume-harness.js';
import { Deck, int } from './chance.js';
import type { Holding } from './holding.js';
import { SoakSnapshots } from './snapshots.js';
import { isGone, type Moment, PATIENCE_MS, type SoakVolume, type World } from './world.js';

const SNAPSHOTS_MAX = 4;
const WRITE_BLOCKS_MAX = 64;

type Operation = (operator: Operator) => Promise<void>;

export class Operator {
  readonly world: World;
  readonly volume: SoakVolume;
  readonly snapshots: SoakSnapshots;
  readonly #clients: readonly Holding[];
  readonly #tail: Holding;
  readonly #random: () => number;
  readonly #deck: Deck<[string, Operation]>;
  readonly #kms: { fake: KmsFake; key: string } | undefined;
  /** Of the tail that is part of the volume now; two where a kill came before the answer. */
  #tailBlocks: number[];
  /** The command under way was not answered yet. */
  #moment: Moment;

  constructor(
    world: World,
    holdings: { clients: readonly Holding[]; tail: Holding },
    random: () => number,
    kms: { fake: KmsFake; key: string } | undefined,
  ) {
    this.world = world;
    this.volume = holdings.tail.volume;
    this.#clients = holdings.clients;
    this.#tail = holdings.tail;
    this.#random = random;
    this.#kms = kms;
    this.#tailBlocks = [holdings.tail.blocks];
    this.#moment = world.moment(this.volume);
    this.snapshots = new SoakSnapshots(world, this.volume, [...this.#clients, this.#tail]);
    const { cipher } = this.volume;
    this.#deck = new Deck(cipher === 'none' ? PLAIN : ENCRYPTED, random);
  }

  async run(): Promise<void> {
    while (!this.world.resting) {
      await this.#during(async () => {
        await this.recover();
        if (this.world.resting) return;
        const [name, operation] = this.#deck.next();
        await operation(this);
        this.world.count(name);
      });
      await this.world.pause(int(this.#random, 200));
    }
    // In the state that the next one expects, whatever a kill has left.
    while (this.world.failure === undefined && (await this.#during(() => this.recover())) === undefined);
  }

  /** True where it was done; undefined where a kill came between. */
  async #during(use: () => Promise<void>): Promise<true | undefined> {
    await until('a daemon runs', () => this.world.up || this.world.failure !== undefined, {
      deadlineMs: PATIENCE_MS,
    });
    if (this.world.failure !== undefined) return true;
    const { epoch } = this.world;
    try {
      await use();
      return true;
    } catch (error) {
      // The next daemon knows nothing of what was begun with this one.
      if (this.world.epoch === epoch || !(isGone(error) || isSealbdError(error))) throw error;
      return undefined;
    }
  }

  /** After a kill: serving again, and what was under way happened or did not. */
  async recover(): Promise<void> {
    const { admin } = this.world;
    const { name } = this.volume;
    let info = await admin.volumeInfo(name);
    if (info.state === 'stopped') info = await admin.startVolume(name);
    if (info.state !== 'serving') throw new Error(`${name} is ${info.state}: ${info.reason}`);
    this.volume.down = false;
    const { epoch } = this.world;
    this.#moment = this.world.moment(this.volume);
    const sizes = this.#tailBlocks.map((blocks) => (this.#tail.firstBlock + blocks) * BLOCK);
    if (!sizes.includes(info.sizeBytes ?? 0))
      throw new Error(`${name} has ${info.sizeBytes} bytes, expected ${sizes.join(' or ')}`);
    this.#tailBlocks = [info.sizeBytes! / BLOCK - this.#tail.firstBlock];
    // Whatever was there: what grows back reads as zeros.
    for (let lba = this.#tailBlocks[0]; lba < this.#tail.blocks; lba++) this.#tail.history.settle(lba, 0);
    await this.#attached((client) => this.#tail.check(client, this.#moment, this.#tailBlocks[0]));
    await this.snapshots.checkList();
    const settled = () =>
      this.world.resting ||
      this.world.epoch !== epoch ||
      this.#clients.every((holding) => holding.isSettled(epoch));
    await until('clients have looked at what the kill left', settled, { deadlineMs: PATIENCE_MS });
  }

  async #attached<T>(use: (client: PipelinedClient) => Promise<T>): Promise<T> {
    const client = await PipelinedClient.connect(this.world.address, this.volume.name);
    try {
      return await use(client);
    } finally {
      await client.close();
    }
  }

  /** To another size; what was cut off reads as zeros when it grows back. */
  async resize(): Promise<void> {
    const [before] = this.#tailBlocks;
    const { history, firstBlock } = this.#tail;
    const blocks = int(this.#random, this.#tail.blocks + 1);
    const cut = [];
    for (let lba = blocks; lba < before; lba++) cut.push({ lba, change: history.issue(lba, 0, false) });
    this.#tailBlocks = [before, blocks];
    await this.world.admin.resizeVolume(this.volume.name, (firstBlock + blocks) * BLOCK, blocks < before);
    this.#tailBlocks = [blocks];
    for (const { lba, change } of cut) {
      change.acknowledged = true;
      history.durable(lba, change);
    }
    await this.#attached(async (client) => {
      const end = (firstBlock + blocks) * BLOCK;
      const payload = Buffer.alloc(BLOCK);
      const beyond = [
        await client.call(Command.READ, end, BLOCK),
        await client.call(Command.WRITE, end, BLOCK, { payload }),
      ].map(({ error }) => error);
      if (beyond.join() !== [Errno.EINVAL, Errno.ENOSPC].join())
        throw new Error(`past the end ${beyond.join()} was answered`);
      await this.#tail.check(client, this.#moment, blocks);
      await this.#write(client, blocks);
    });
  }

  /** Some of the tail, flushed or not. */
  async #write(client: PipelinedClient, below: number): Promise<void> {
    const count = Math.min(below, 1 + int(this.#random, WRITE_BLOCKS_MAX));
    if (count === 0) return;
    const { history } = this.#tail;
    const lba = int(this.#random, below - count + 1);
    const version = ++this.#tail.lastVersion;
    const changes = Array.from({ length: count }, (_, i) => history.issue(lba + i, version, false));
    const payload = Buffer.concat(changes.map((_, i) => content(lba + i, version)));
    const { error } = await client.call(Command.WRITE, this.#tail.at(lba), payload.length, { payload });
    if (error !== 0) throw new Error(`WRITE was answered with error ${error}`);
    for (const change of changes) change.acknowledged = true;
    if (this.#random() < 0.5) await this.#tail.flush(client);
  }

  async createSnapshot(): Promise<void> {
    const { names } = this.snapshots;
    if (names.length >= SNAPSHOTS_MAX) await this.snapshots.delete(names[int(this.#random, names.length)]);
    await this.snapshots.create((this.#tail.firstBlock + this.#tailBlocks[0]) * BLOCK);
  }

  async verifySnapshot(): Promise<void> {
    const { names } = this.snapshots;
    if (names.length > 0) await this.snapshots.verify(names[int(this.#random, names.length)]);
  }

  async deleteSnapshot(): Promise<void> {
    const { names } = this.snapshots;
    if (names.length > 0) await this.snapshots.delete(names[int(this.#random, names.length)]);
  }

  /** Nothing is left to rewrite, and no other job runs on the volume. */
  async #untilIdle(): Promise<void> {
    const { admin } = this.world;
    const { name } = this.volume;
    const idle = async (): Promise<boolean> => {
      const mine = (await admin.listJobs()).filter(({ volume }) => volume === name);
      const failed = mine.find(({ state }) => state === 'failed');
      if (failed !== undefined) throw new Error(`${failed.kind} of ${name}: ${failed.error?.message}`);
      const [key] = await admin.keyStatus(name);
      return !mine.some(({ state }) => state === 'running') && (key?.rotation ?? null) === null;
    };
    await until(`no job runs on ${name}`, idle, { deadlineMs: PATIENCE_MS, everyMs: 50 });
  }

  /** A new DEK; with `reencrypt` the one that is left in the end, unless a kill comes before. */
  async rotate(reencrypt: boolean): Promise<void> {
    await this.#untilIdle();
    await this.world.admin.rotateKey(this.volume.name, reencrypt);
  }

  /** One DEK is left. */
  async reencrypted(): Promise<void> {
    if (this.volume.cipher === 'none') return;
    await this.rotate(true);
    await this.#untilIdle();
    const [{ deks }] = await this.world.admin.keyStatus(this.volume.name);
    if (deks.length !== 1) throw new Error(`${deks.length} DEKs are left`);
  }

  async rewrap(): Promise<void> {
    await this.#untilIdle();
    if (this.#kms !== undefined) this.#kms.fake.rotate(this.#kms.key);
    await this.world.admin.rewrapKey(this.volume.name);
  }

  /** Every stored block authenticates. */
  async verify(): Promise<void> {
    const { admin } = this.world;
    const { id } = await admin.verifyVolume(this.volume.name);
    await until('the verification is over', async () => (await admin.job(id)).state !== 'running', {
      deadlineMs: PATIENCE_MS,
    });
    const { state, error, result } = await admin.job(id);
    if (state === 'done' && result?.lost.length === 0 && result.problems.length === 0) return;
    throw new Error(`verify of ${this.volume.name}: ${state} ${error?.message} ${JSON.stringify(result)}`);
  }

  /** Clients come again by themselves. */
  async stopAndStart(pauseMs = int(this.#random, 200)): Promise<void> {
    const { admin } = this.world;
    this.volume.down = true;
    this.volume.outages += 1;
    await admin.stopVolume(this.volume.name);
    await this.world.pause(pauseMs);
    await admin.startVolume(this.volume.name);
    this.volume.down = false;
  }

  /** While nobody else is attached: everything is flushed, and every byte of the volume and of its snapshots is right. */
  async verifyAll(): Promise<void> {
    await this.recover();
    await this.#attached(async (client) => {
      for (const holding of this.#clients) {
        await holding.check(client, this.#moment);
        await holding.flush(client);
        holding.expectFlushed();
      }
      await this.#tail.flush(client);
      this.#tail.expectFlushed();
    });
    for (const name of this.snapshots.names) await this.snapshots.verify(name);
    await this.verify();
  }
}

/** What belongs together comes more often. */
const PLAIN: readonly [string, Operation][] = [
  ['resize', (operator) => operator.resize()],
  ['resize', (operator) => operator.resize()],
  ['snapshot create', (operator) => operator.createSnapshot()],
  ['snapshot create', (operator) => operator.createSnapshot()],
  ['snapshot verify', (operator) => operator.verifySnapshot()],
  ['snapshot verify', (operator) => operator.verifySnapshot()],
  ['snapshot delete', (operator) => operator.deleteSnapshot()],
  ['volume verify', (operator) => operator.verify()],
  ['volume stop and start', (operator) => operator.stopAndStart()],
];

const ENCRYPTED: typeof PLAIN = [
  ...PLAIN,
  ['key rotate', (operator) => operator.rotate(false)],
  ['key rotate --reencrypt', (operator) => operator.rotate(true)],
  ['key rewrap', (operator) => operator.rewrap()],
];

export const OPERATIONS = ENCRYPTED.map(([name]) => name);
