/**
 * A client that reads, writes, trims, zeroes and flushes its holding over some connections, leaves in one way or
 * another, looks at what is there, and comes again.
 */
import type tls from 'node:tls';
import { Command } from '../../../src/nbd/wire/constants.js';
import { Traffic } from '../nbd-traffic.js';
import { PipelinedClient } from '../pipelined-client.js';
import { within } from '../until.js';
import { Deck, int } from './chance.js';
import type { Holding } from './holding.js';
import { type Moment, PATIENCE_MS, type World } from './world.js';

const CONNECTIONS_MAX = 3;
const DEPTH_MAX = 4;
const LIFE_MS_MIN = 100;
const LIFE_MS_MAX = 1500;

/** The last two in the middle of requests. */
export const ENDINGS = ['disconnect', 'end of sending', 'cut'] as const;

export class Talker {
  readonly #world: World;
  readonly #holding: Holding;
  readonly #tls: tls.ConnectionOptions | undefined;
  readonly #pauseMs: number;
  readonly #random: () => number;
  readonly #endings: Deck<(typeof ENDINGS)[number]>;

  constructor(
    world: World,
    holding: Holding,
    tls: tls.ConnectionOptions | undefined,
    pauseMs: number,
    random: () => number,
  ) {
    this.#world = world;
    this.#pauseMs = pauseMs;
    this.#holding = holding;
    this.#tls = tls;
    this.#random = random;
    this.#endings = new Deck(ENDINGS, random);
  }

  /** Until it is time to rest; then everything is flushed and answered. */
  async run(): Promise<void> {
    const { volume } = this.#holding;
    while (!this.#world.resting && (await this.#world.serving(volume))) {
      const moment = this.#world.moment(volume);
      const clients: PipelinedClient[] = [];
      try {
        await this.#world.unlessGone(volume, moment, () => this.#live(moment, clients));
      } finally {
        await Promise.all(clients.map((client) => client.close()));
      }
      const peers = clients.map(({ raw }) => raw.peer);
      await this.#world.departed(volume, peers, moment);
    }
  }

  async #live(moment: Moment, clients: PipelinedClient[]): Promise<void> {
    const { volume, history, firstBlock } = this.#holding;
    for (let more = 1 + int(this.#random, CONNECTIONS_MAX); more > 0; more--)
      clients.push(await PipelinedClient.connect(this.#world.address, volume.name, this.#tls));
    await this.#holding.check(clients[0], moment);
    const traffic = new Traffic({
      ...{ clients, history, firstBlock, random: this.#random, mayStop: true, pauseMs: this.#pauseMs },
      ...{ depth: 1 + int(this.#random, DEPTH_MAX), lastVersion: this.#holding.lastVersion },
    });
    let over = false;
    const ended = traffic.run().then(
      () => undefined,
      (error: unknown) => error,
    );
    void ended.then(() => {
      over = true;
    });
    const lifeMs = LIFE_MS_MIN + int(this.#random, LIFE_MS_MAX - LIFE_MS_MIN);
    const end = Date.now() + lifeMs;
    while (!over && !this.#world.resting && Date.now() < end) await this.#world.pause(20);
    try {
      await this.#leave(over, traffic, ended, clients, moment);
    } finally {
      this.#holding.lastVersion = traffic.lastVersion;
      this.#world.count('requests', traffic.requests);
    }
  }

  async #leave(
    over: boolean,
    traffic: Traffic,
    ended: Promise<unknown>,
    clients: readonly PipelinedClient[],
    moment: Moment,
  ): Promise<void> {
    const how = this.#world.resting ? 'disconnect' : this.#endings.next();
    if (how === 'cut') for (const client of clients) void client.close();
    traffic.stop();
    if (how === 'end of sending') for (const { raw } of clients) raw.socket.end();
    const error = await within(PATIENCE_MS, 'answers to requests', ended);
    if (error !== undefined) throw error;
    if (over) throw new Error('the server closed the connection');
    if (how !== 'cut') await this.#leaveAnswered(how, clients, moment);
    this.#world.count(how);
  }

  /** What was under way has been answered; the server closes, without being left alone. */
  async #leaveAnswered(how: string, clients: readonly PipelinedClient[], moment: Moment): Promise<void> {
    if (how === 'disconnect') {
      await this.#holding.flush(clients[0]);
      for (const { raw } of clients) raw.send(Command.DISC, 0, 0);
    }
    await within(PATIENCE_MS, 'the server closes', Promise.all(clients.map(({ raw }) => raw.closed)));
    if (!this.#world.explains(this.#holding.volume, moment)) this.#holding.expectAnswered();
  }
}
