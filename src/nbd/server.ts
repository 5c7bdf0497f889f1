/** Listeners, connections and what they share. Drives devices that an ExportSource names, and nothing else. */
import type { Clock, Timer } from '../base/clock.js';
import { messageOf } from '../base/errors.js';
import { HANDSHAKES_PER_TURN_MAX, STOP_DEADLINE_MS } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { addon } from '../native/addon.js';
import { ChunkPool, type ChunkPoolStats } from './chunk-pool.js';
import { Connection } from './connection.js';
import type { ConnectionHost, TlsUpgrade } from './connection-host.js';
import { type CommandName, Counters } from './counters.js';
import type { ExportSource, NbdClient } from './exports.js';
import { ExtentTurns } from './extent-turns.js';
import { type ListenAddress, Listener } from './listener.js';
import { DEFAULT_NBD_LIMITS, type NbdLimits, placeLimits, type Share, shareOf } from './nbd-limits.js';
import type { PeerIdentity } from './peer-identity.js';
import { type Place, Places } from './places.js';
import type { Transport } from './transport.js';
import { Turns } from './turns.js';

const SWEEP_MS = 250;
/** How often memory that was not needed meanwhile is given back. */
const TRIM_MS = 1000;

export interface NbdServerOptions {
  /** What there is for each client. */
  readonly exportsFor: (client: NbdClient) => ExportSource;
  readonly clock: Clock;
  readonly log: Logger;
  readonly tls?: TlsUpgrade | undefined;
  /** The defaults where not given. */
  readonly limits?: Partial<NbdLimits> | undefined;
}

export interface NbdClientInfo {
  readonly id: number;
  readonly peer: string;
  /** Undefined while the handshake lasts. */
  readonly exportName: string | undefined;
  /** Who it proved to be. */
  readonly identity: PeerIdentity | undefined;
  readonly inFlight: number;
}

export interface NbdServerStats {
  readonly connections: number;
  readonly requests: Record<CommandName, number>;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly errors: number;
  readonly accepted: number;
  readonly refused: number;
  readonly dropped: number;
  readonly memory: ChunkPoolStats;
}

export class NbdServer implements ConnectionHost {
  readonly exportsFor: (client: NbdClient) => ExportSource;
  readonly limits: NbdLimits;
  readonly pool: ChunkPool;
  readonly counters = new Counters();
  readonly turns = new Turns(HANDSHAKES_PER_TURN_MAX);
  readonly extentTurns = new ExtentTurns();
  readonly log: Logger;
  readonly tls: TlsUpgrade | undefined;
  readonly #clock: Clock;
  readonly #listeners = new Set<Listener>();
  readonly #connections = new Map<Connection, Place>();
  readonly #places: Places;
  readonly #alone: Share;
  readonly #among: Share;
  #share: Share;
  #nextId = 1;
  #sweep: Timer | undefined;
  #trimAt = 0;
  /** Since malloc's memory was last trimmed, somebody has worked. */
  #worked = false;
  #stopping: Promise<void> | undefined;
  #onEmpty: (() => void) | undefined;
  #wipeScheduled = false;

  constructor(options: NbdServerOptions) {
    this.exportsFor = options.exportsFor;
    this.log = options.log;
    this.tls = options.tls;
    this.#clock = options.clock;
    this.limits = { ...DEFAULT_NBD_LIMITS, ...options.limits };
    this.pool = new ChunkPool(this.limits.bytesInFlightTotal);
    this.#places = new Places(placeLimits(this.limits));
    this.#alone = shareOf(this.limits, true);
    this.#among = shareOf(this.limits, false);
    this.#share = this.#alone;
  }

  /** Starts to accept connections; returns the address, with the port that was taken. */
  async listen(address: ListenAddress): Promise<string> {
    const listener = await Listener.open(address, this.#clock, this.log, (transport) =>
      this.#adopt(transport),
    );
    this.#listeners.add(listener);
    return listener.address;
  }

  /** The same on a listening socket that was handed over as a descriptor. */
  listenOn(fd: number): string {
    const listener = Listener.take(fd, this.#clock, this.log, (transport) => this.#adopt(transport));
    this.#listeners.add(listener);
    return listener.address;
  }

  get addresses(): string[] {
    return [...this.#listeners].map((listener) => listener.address);
  }

  clients(): NbdClientInfo[] {
    return [...this.#connections.keys()].map(({ id, peer, exportName, identity, inFlight }) => ({
      id,
      peer,
      exportName,
      identity,
      inFlight,
    }));
  }

  stats(): NbdServerStats {
    const { bytesRead, bytesWritten, errors, accepted, refused, dropped } = this.counters;
    return {
      connections: this.#connections.size,
      requests: this.counters.requests(),
      bytesRead,
      bytesWritten,
      errors,
      accepted,
      refused,
      dropped,
      memory: this.pool.stats(),
    };
  }

  /**
   * Stops accepting, answers what is in flight, refuses what comes, closes. Connections that are not done at the
   * deadline are cut. Afterwards the server's memory is wiped and given back.
   */
  stop(deadlineMs: number = STOP_DEADLINE_MS): Promise<void> {
    this.#stopping ??= this.#stop(deadlineMs);
    return this.#stopping;
  }

  // For connections.

  /** Of one that works alone, until the sweep has seen another one at work beside which small requests wait. */
  get share(): Share {
    return this.#share;
  }

  get shuttingDown(): boolean {
    return this.#stopping !== undefined;
  }

  monotonic(): number {
    return this.#clock.monotonic();
  }

  /** Data of an export must not stay in buffers that wait for their next use: the export may be stopped any time. */
  departed(): void {
    if (this.#wipeScheduled) return;
    this.#wipeScheduled = true;
    queueMicrotask(() => {
      this.#wipeScheduled = false;
      this.pool.wipeUsed();
    });
  }

  served(connection: Connection): void {
    this.#connections.get(connection)?.settle();
  }

  closed(connection: Connection): void {
    this.#connections.get(connection)?.leave();
    this.#connections.delete(connection);
    if (this.#connections.size === 0) this.#onEmpty?.();
  }

  #adopt(transport: Transport): void {
    const place = this.shuttingDown ? undefined : this.#places.take(transport.peer);
    if (place === undefined) {
      this.counters.refused += 1;
      transport.close();
      return;
    }
    this.counters.accepted += 1;
    this.#sweep ??= this.#clock.setTimeout(() => this.#tick(), SWEEP_MS);
    try {
      const connection = new Connection(this, transport, this.#nextId++);
      place.pushOut = () => connection.makeRoom();
      this.#connections.set(connection, place);
      connection.start();
    } catch (error) {
      place.leave();
      // Out of memory, most likely: this client has to come again, and nobody else notices.
      this.log.error({ peer: transport.peer, error: messageOf(error) }, 'cannot serve a connection');
      transport.close();
    }
  }

  #tick(): void {
    const now = this.#clock.monotonic();
    const works = { none: 0, small: 0, large: 0 };
    for (const connection of [...this.#connections.keys()]) {
      works[connection.workSinceLast()] += 1;
      connection.tick(now);
    }
    this.#worked ||= works.small + works.large > 0;
    // Large requests among themselves wait for each other anyway.
    this.#share = works.small > 0 && works.small + works.large > 1 ? this.#among : this.#alone;
    if (now >= this.#trimAt) {
      this.pool.trim();
      this.#trimHeap(works.small + works.large === 0);
      this.#trimAt = now + TRIM_MS;
    }
    // What nobody uses now is given back by the second of two calls.
    const idle = this.#connections.size === 0 && this.pool.stats().bytes === 0;
    this.#sweep = idle ? undefined : this.#clock.setTimeout(() => this.#tick(), SWEEP_MS);
  }

  /** Once after each load, when nobody is there who would wait for it. */
  #trimHeap(quiet: boolean): void {
    if (!quiet || !this.#worked) return;
    addon.heapTrim();
    this.#worked = false;
  }

  async #stop(deadlineMs: number): Promise<void> {
    for (const listener of this.#listeners) listener.close();
    this.#listeners.clear();
    const empty = new Promise<void>((resolve) => {
      this.#onEmpty = resolve;
    });
    for (const connection of [...this.#connections.keys()]) connection.dismiss('the server is shutting down');
    if (this.#connections.size > 0) {
      const deadline = this.#clock.setTimeout(() => {
        for (const connection of [...this.#connections.keys()]) connection.close();
      }, deadlineMs);
      await empty;
      deadline.cancel();
    }
    this.#sweep?.cancel();
    this.#sweep = undefined;
    this.pool.close();
  }
}
