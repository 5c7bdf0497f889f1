/**
 * What all of a soak share: the daemon in one life after another, its volumes, and the first thing that went wrong. It
 * knows when a connection may break: the daemon was killed, or the volume stopped. Any other end is a failure.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { AdminClient } from '../../../src/admin/client.js';
import type { DaemonStatus } from '../../../src/admin/schemas.js';
import { isSealbdError, messageOf } from '../../../src/base/errors.js';
import { Rep } from '../../../src/nbd/wire/constants.js';
import { adminSocket, DaemonProcess, sealbdProcess } from '../daemon-process.js';
import { OptionRefused } from '../nbd-raw-client.js';
import { until } from '../until.js';

/** What anything takes at most, whatever else the machine does. */
export const PATIENCE_MS = 120_000;
const LOG_ERROR = 50;

export interface SoakVolume {
  readonly name: string;
  readonly cipher: 'aes-256-gcm' | 'aes-256-ctr' | 'none';
  /** Somebody stops it, or has stopped it. */
  down: boolean;
  /** How often that was. */
  outages: number;
}

/** Since when a connection stands, to tell later whether it may have broken. */
export interface Moment {
  readonly epoch: number;
  readonly outages: number;
}

export class World {
  /** Lives of the daemon so far, and who lives now. */
  epoch = 0;
  address = '';
  readonly admin: AdminClient;
  /** Nobody begins anything new. */
  resting = true;
  failure: Error | undefined;
  /** What happened, and how often. */
  readonly counts = new Map<string, number>();
  readonly #data: string;
  readonly #args: readonly string[];
  readonly #env: Record<string, string>;
  #daemon: DaemonProcess | undefined;
  #status: Promise<DaemonStatus> | undefined;
  #nextStatus: Promise<DaemonStatus> | undefined;

  constructor(data: string, args: readonly string[], env: Record<string, string>) {
    this.#data = data;
    this.#args = args;
    this.#env = env;
    this.admin = new AdminClient(adminSocket(data));
  }

  get daemon(): DaemonProcess {
    if (this.#daemon === undefined) throw new Error('no daemon runs');
    return this.#daemon;
  }

  get up(): boolean {
    return this.#daemon !== undefined;
  }

  async start(): Promise<void> {
    const daemon = await DaemonProcess.startShared(this.#data, this.#args, { env: this.#env });
    this.address = daemon.ready.listen[0];
    this.#daemon = daemon;
  }

  /** `kill -9` now, so many times more on its way up, and another life. */
  async kill(inRecovery: readonly number[] = []): Promise<void> {
    const { daemon } = this;
    this.epoch += 1;
    this.#daemon = undefined;
    await daemon.signal('SIGKILL');
    expectNoErrors(daemon);
    this.count('kill');
    for (const afterMs of inRecovery) {
      const args = ['serve', '--data', this.#data, '--listen', '127.0.0.1:0', ...this.#args];
      const { child, ended } = sealbdProcess(args, { env: this.#env });
      await sleep(afterMs);
      child.kill('SIGKILL');
      const { signal, stderr } = await ended;
      if (signal !== 'SIGKILL') throw new Error(`the daemon does not start:\n${stderr}`);
      this.count('kill in recovery');
    }
    await this.start();
  }

  /** SIGTERM: everything goes in good order. */
  async stop(): Promise<void> {
    const { daemon } = this;
    const { code } = await daemon.stop();
    this.#daemon = undefined;
    if (code !== 0) throw new Error(`the daemon exited with ${code}:\n${daemon.logText.slice(-4000)}`);
    expectNoErrors(daemon);
  }

  /** After a failure. */
  async end(): Promise<void> {
    await this.#daemon?.signal('SIGKILL');
  }

  /** Only the first failure counts: others follow from it. */
  fail(who: string, error: unknown): void {
    this.failure ??= new Error(`${who}: ${messageOf(error)}`, { cause: error });
    this.resting = true;
  }

  count(what: string, times = 1): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + times);
  }

  moment({ outages }: SoakVolume): Moment {
    return { epoch: this.epoch, outages };
  }

  /** Whether a connection to the volume that stood at `moment` may be broken now. */
  explains(volume: SoakVolume, moment: Moment): boolean {
    return !this.up || volume.down || this.epoch !== moment.epoch || volume.outages !== moment.outages;
  }

  /** Undefined instead of a rejection where a kill or a stop came between. */
  async unlessGone<T>(volume: SoakVolume, moment: Moment, use: () => Promise<T>): Promise<T | undefined> {
    try {
      return await use();
    } catch (error) {
      if (!isGone(error)) throw error;
      if (this.explains(volume, moment)) return undefined;
      throw new Error(`nobody ended a connection to ${volume.name}: ${messageOf(error)}`, { cause: error });
    }
  }

  /** The daemon is there and serves the volume; false where it is time to rest before that. */
  async serving(volume: SoakVolume): Promise<boolean> {
    const there = () => this.failure !== undefined || (this.up && (this.resting || !volume.down));
    await until(`${volume.name} is served`, there, { deadlineMs: PATIENCE_MS });
    return this.up && !volume.down;
  }

  /**
   * The server has noticed that these clients of the volume are gone, and all that they asked for is over: so many
   * are attached to the device as there are connections to it.
   */
  async departed(volume: SoakVolume, peers: readonly string[], moment: Moment): Promise<void> {
    const gone = async (): Promise<boolean> => {
      // Then it is over in any case.
      if (this.epoch !== moment.epoch || this.failure !== undefined) return true;
      if (!this.up || volume.down) return false;
      if (volume.outages !== moment.outages) return true;
      const status = await this.freshStatus().catch(() => undefined);
      if (status === undefined || status.volumes.some(({ state }) => state !== 'serving')) return false;
      if (status.clients.some(({ address }) => peers.includes(address))) return false;
      const connected = status.clients.filter((client) => client.volume === volume.name).length;
      return status.volumes.find(({ name }) => name === volume.name)?.clients === connected;
    };
    await until(`${peers.join(', ')} are gone`, gone, { deadlineMs: PATIENCE_MS, everyMs: 50 });
  }

  /** The server still has this connection. */
  async knows(peer: string): Promise<boolean> {
    const { clients } = await this.freshStatus();
    return clients.some(({ address }) => address === peer);
  }

  /** Asked for after this call; those who ask meanwhile share one answer. */
  freshStatus(): Promise<DaemonStatus> {
    if (this.#status === undefined) {
      this.#status = this.admin.status().finally(() => {
        this.#status = undefined;
      });
      return this.#status;
    }
    this.#nextStatus ??= this.#status
      .catch(() => undefined)
      .then(() => {
        this.#nextStatus = undefined;
        return this.freshStatus();
      });
    return this.#nextStatus;
  }

  /** Sleeps so long, or until it is time to rest. */
  async pause(ms: number): Promise<void> {
    const end = Date.now() + ms;
    while (!this.resting && Date.now() < end) await sleep(Math.min(20, Math.max(1, end - Date.now())));
  }
}

/** So a client learns that the daemon was killed or the volume is stopped. */
export function isGone(error: unknown): boolean {
  if (error instanceof OptionRefused) return error.reply === Rep.ERR_POLICY;
  if (isSealbdError(error)) return error.code === 'UNREACHABLE';
  return /the server closed the connection|ECONN|EPIPE|closed during the TLS|before secure TLS|with error 108$/.test(
    messageOf(error),
  );
}

/** Neither kills nor bad clients are errors of the daemon. */
export function expectNoErrors(daemon: DaemonProcess): void {
  const errors = daemon.log().filter(({ level }) => level >= LOG_ERROR);
  if (errors.length > 0) throw new Error(`errors in the log: ${JSON.stringify(errors.slice(0, 5))}`);
}
