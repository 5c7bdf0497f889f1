/** A client that does what no client should, time after time, and looks each time at what that did to its blocks. */
import type tls from 'node:tls';
import { Command, CommandFlag } from '../../../src/nbd/wire/constants.js';
import type { Change } from '../history.js';
import { RawClient } from '../nbd-raw-client.js';
import { content } from '../nbd-traffic.js';
import { PipelinedClient } from '../pipelined-client.js';
import { within } from '../until.js';
import { BLOCK } from '../volume-harness.js';
import { Deck, int } from './chance.js';
import type { Holding } from './holding.js';
import { type Moment, PATIENCE_MS, type World } from './world.js';

/** A WRITE of own blocks: the model knows of it from the moment that it is made. */
export interface PreparedWrite {
  readonly offset: number;
  readonly payload: Buffer;
  readonly flags: number;
  /** It was answered with success. */
  done(): void;
}

/** Does one thing. Every connection that it makes is closed for it in the end. */
export type Trouble = (maker: Troublemaker) => Promise<void>;

export class Troublemaker {
  readonly world: World;
  readonly holding: Holding;
  readonly tls: tls.ConnectionOptions;
  readonly random: () => number;
  /** Whether this one uses TLS where the trouble does not ask for it. */
  readonly #secure: boolean;
  readonly #deck: Deck<[string, Trouble]>;
  readonly #clients: RawClient[] = [];
  #moment: Moment;

  constructor(
    world: World,
    holding: Holding,
    connection: { secure: boolean; tls: tls.ConnectionOptions },
    troubles: Readonly<Record<string, Trouble>>,
    random: () => number,
  ) {
    this.world = world;
    this.holding = holding;
    this.tls = connection.tls;
    this.random = random;
    this.#secure = connection.secure;
    this.#deck = new Deck(Object.entries(troubles), random);
    this.#moment = world.moment(holding.volume);
  }

  /** Until it is time to rest; then everything is flushed. */
  async run(): Promise<void> {
    const { volume } = this.holding;
    while (!this.world.resting && (await this.world.serving(volume))) {
      // Others wait until everybody has seen what a kill left.
      if (this.holding.isSettled(this.world.epoch)) {
        await this.#during(async () => {
          const [name, trouble] = this.#deck.next();
          await trouble(this);
          if (!this.world.resting) this.world.count(name);
        });
        if (!(await this.world.serving(volume))) return;
      }
      await this.#during(() => this.#look());
      await this.world.pause(int(this.random, 300));
    }
  }

  async #during(use: () => Promise<void>): Promise<void> {
    const { volume } = this.holding;
    this.#moment = this.world.moment(volume);
    const moment = this.#moment;
    await this.world.unlessGone(volume, moment, use);
    const clients = this.#clients.splice(0);
    await Promise.all(clients.map((client) => client.close()));
    await this.world.departed(
      volume,
      clients.map(({ peer }) => peer),
      moment,
    );
  }

  /** Whatever was done to the connection, the blocks are what they may be. */
  async #look(): Promise<void> {
    const client = PipelinedClient.over(await this.attach());
    await this.holding.check(client, this.#moment);
    if (this.random() < 0.5 || this.world.resting) await this.holding.flush(client);
  }

  /** Not greeted. */
  async connect(): Promise<RawClient> {
    const client = await RawClient.connect(this.world.address);
    this.#clients.push(client);
    return client;
  }

  /** In the transmission phase of the volume. */
  async attach(options: tls.ConnectionOptions | undefined = this.#secure ? this.tls : undefined) {
    const client = await RawClient.serving(this.world.address, this.holding.volume.name, { tls: options });
    this.#clients.push(client);
    return client;
  }

  int(below: number): number {
    return int(this.random, below);
  }

  bytes(count: number): Buffer {
    return Buffer.from(Array.from({ length: count }, () => this.int(256)));
  }

  /** Of `blocks` blocks, from `lba` of the holding on. Nothing of them may be under way. */
  prepare(lba: number, blocks: number): PreparedWrite {
    const { history } = this.holding;
    const version = ++this.holding.lastVersion;
    const changes: Change[] = [];
    for (let i = 0; i < blocks; i++) changes.push(history.issue(lba + i, version, false));
    return {
      offset: this.holding.at(lba),
      payload: Buffer.concat(changes.map((_, i) => content(lba + i, version))),
      flags: this.random() < 0.3 ? CommandFlag.FUA : 0,
      done() {
        for (const change of changes) change.acknowledged = true;
        if (this.flags === CommandFlag.FUA)
          changes.forEach((change, i) => {
            history.durable(lba + i, change);
          });
      },
    };
  }

  /** Sends it whole; resolves when it was answered. */
  async write(client: PipelinedClient, write: PreparedWrite): Promise<void> {
    const { offset, payload, flags } = write;
    const { error } = await client.call(Command.WRITE, offset, payload.length, { payload, flags });
    if (error !== 0) throw new Error(`WRITE was answered with error ${error}`);
    write.done();
  }

  /** Writes side by side, each of some blocks, over all of the holding. */
  prepareAll(): PreparedWrite[] {
    const writes: PreparedWrite[] = [];
    for (let lba = 0; lba < this.holding.blocks; ) {
      const blocks = Math.min(1 + this.int(16), this.holding.blocks - lba);
      writes.push(this.prepare(lba, blocks));
      lba += blocks;
    }
    return writes;
  }

  /** Sends a part of it, so long that the server has begun with it or so short that it has not. */
  sendPart(client: RawClient, { offset, payload, flags }: PreparedWrite): { rest: Buffer; cookie: number } {
    const sent = this.int(payload.length);
    const options = { payload: payload.subarray(0, sent), length: payload.length, flags };
    const cookie = client.send(Command.WRITE, offset, payload.length, options);
    return { rest: payload.subarray(sent), cookie };
  }

  /** The server ends the connection by itself; false where it is time to rest before. */
  async untilDropped(client: RawClient): Promise<boolean> {
    const end = Date.now() + PATIENCE_MS;
    while (!this.world.resting && Date.now() < end) {
      // A client that reads nothing does not see the end.
      if (client.isClosed) return true;
      await this.world.pause(200);
      if (client.socket.isPaused() && this.world.up && !(await this.world.knows(client.peer))) return true;
    }
    if (!this.world.resting) throw new Error(`${client.peer} is not dropped in ${PATIENCE_MS} ms`);
    return false;
  }

  closed(client: RawClient): Promise<void> {
    return within(PATIENCE_MS, 'the server closes', client.closed);
  }

  get blocks(): number {
    return this.holding.blocks;
  }

  /** Bytes of the volume that all clients share. */
  readAnywhere(client: PipelinedClient, bytes: number, below: number): Promise<{ error: number }> {
    const offset = this.int(Math.floor(below / BLOCK)) * BLOCK;
    return client.call(Command.READ, Math.min(offset, below - bytes), bytes, {}, true);
  }
}
