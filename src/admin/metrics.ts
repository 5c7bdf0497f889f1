/** Prometheus metrics, computed when they are scraped. */
import { Counter, Gauge, Registry } from 'prom-client';
import { KEY_STATES, VOLUME_STATES } from './schemas.js';

export interface VolumeMetrics {
  readonly volume: string;
  readonly state: (typeof VOLUME_STATES)[number];
  /** Undefined for a volume without a key. */
  readonly keyState: (typeof KEY_STATES)[number] | undefined;
  /** What is wrong with it. */
  readonly keyReason: string | undefined;
  readonly keyLastCheckMs: number | undefined;
  readonly keyNextCheckMs: number | undefined;
  /** When the grace period of an unreachable key service ends, and how long it still is. */
  readonly keyGraceEndsMs: number | undefined;
  readonly keyGraceLeftMs: number | undefined;
  readonly clients: number;
  /** Current amounts of the engine by name, in bytes or pieces. */
  readonly amounts: Readonly<Record<string, number>>;
  /** Totals since the volume was opened, by name. */
  readonly totals: Readonly<Record<string, number>>;
}

export interface DaemonMetrics {
  readonly version: string;
  readonly startedAtMs: number;
  readonly keysLocked: boolean;
  readonly keySlotsUsed: number;
  /** Calls of the ciphers since the start, by the thread that did them. */
  readonly cipherJobs: { readonly main: number; readonly pool: number };
  readonly jobsRunning: number;
  readonly nbd: NbdMetrics;
  readonly volumes: readonly VolumeMetrics[];
}

export interface NbdMetrics {
  readonly connections: number;
  readonly requests: Readonly<Record<string, number>>;
  /** Current amounts by name: memory for requests and replies, in bytes or chunks, and who waits for it. */
  readonly amounts: Readonly<Record<string, number>>;
  /** Totals since the start, by name. */
  readonly totals: Readonly<Record<string, number>>;
}

/** Renders one scrape. A fresh registry each time: a deleted volume leaves no series behind. */
export async function renderMetrics(daemon: DaemonMetrics): Promise<{ contentType: string; text: string }> {
  const registry = new Registry();
  const registers = [registry];
  const gauge = (name: string, help: string, labelNames: string[] = []) =>
    new Gauge({ name: `sealbd_${name}`, help, labelNames, registers });
  const counter = (name: string, help: string, labelNames: string[] = []) =>
    new Counter({ name: `sealbd_${name}`, help, labelNames, registers });
  gauge('info', 'Version, as a label.', ['version']).set({ version: daemon.version }, 1);
  gauge('start_time_seconds', 'Unix time of the start.').set(daemon.startedAtMs / 1000);
  gauge('keys_locked', '1 where key memory is locked.').set(daemon.keysLocked ? 1 : 0);
  gauge('key_slots_used', 'Keys that are in memory now: none but those of open volumes.').set(
    daemon.keySlotsUsed,
  );
  const ciphers = counter('cipher_jobs_total', 'Calls of the ciphers, by the thread that did them.', [
    'thread',
  ]);
  for (const [thread, value] of Object.entries(daemon.cipherJobs)) ciphers.inc({ thread }, value);
  gauge('jobs_running', 'Jobs under way.').set(daemon.jobsRunning);
  gauge('nbd_connections', 'Open NBD connections.').set(daemon.nbd.connections);
  for (const [name, value] of Object.entries(daemon.nbd.amounts)) {
    gauge(`nbd_${snake(name)}`, `NBD server: ${name} now.`).set(value);
  }
  const requests = counter('nbd_requests_total', 'NBD requests by command.', ['command']);
  for (const [command, value] of Object.entries(daemon.nbd.requests)) requests.inc({ command }, value);
  for (const [name, value] of Object.entries(daemon.nbd.totals)) {
    counter(`nbd_${snake(name)}_total`, `NBD server: ${name} since the start.`, []).inc(value);
  }
  addVolumes(daemon.volumes, gauge, counter);
  return { contentType: registry.contentType, text: await registry.metrics() };
}

type Make<T> = (name: string, help: string, labelNames?: string[]) => T;

function addVolumes(volumes: readonly VolumeMetrics[], gauge: Make<Gauge>, counter: Make<Counter>): void {
  const clients = gauge('volume_clients', 'Attached NBD clients.', ['volume']);
  const state = gauge('volume_state', '1 for the state that the volume is in.', ['volume', 'state']);
  const addKey = keyMetrics(gauge);
  const amounts = new Map<string, Gauge>();
  const totals = new Map<string, Counter>();
  for (const { volume, ...metrics } of volumes) {
    clients.set({ volume }, metrics.clients);
    for (const name of VOLUME_STATES) state.set({ volume, state: name }, name === metrics.state ? 1 : 0);
    addKey(volume, metrics);
    for (const [name, value] of Object.entries(metrics.amounts)) {
      if (!amounts.has(name))
        amounts.set(name, gauge(`volume_${snake(name)}`, `Engine: ${name}.`, ['volume']));
      amounts.get(name)!.set({ volume }, value);
    }
    for (const [name, value] of Object.entries(metrics.totals)) {
      if (!totals.has(name)) {
        const help = `Engine: ${name} since it was opened.`;
        totals.set(name, counter(`volume_${snake(name)}_total`, help, ['volume']));
      }
      totals.get(name)!.inc({ volume }, value);
    }
  }
}

function keyMetrics(gauge: Make<Gauge>): (volume: string, metrics: Omit<VolumeMetrics, 'volume'>) => void {
  const state = gauge('key_state', '1 for the state that the key is in.', ['volume', 'state']);
  const problem = gauge('key_problem', '1 where something is wrong with the key: what, as a label.', [
    'volume',
    'reason',
  ]);
  const times = {
    keyLastCheckMs: gauge('key_last_check_time_seconds', 'Unix time of the last check of the key.', [
      'volume',
    ]),
    keyNextCheckMs: gauge('key_next_check_time_seconds', 'Unix time of the next check.', ['volume']),
    keyGraceEndsMs: gauge('key_grace_ends_time_seconds', 'Unix time at which the grace period ends.', [
      'volume',
    ]),
    keyGraceLeftMs: gauge(
      'key_grace_left_seconds',
      'Until a volume stops whose key service is unreachable.',
      ['volume'],
    ),
  };
  return (volume, metrics) => {
    if (metrics.keyState === undefined) return;
    for (const name of KEY_STATES) state.set({ volume, state: name }, name === metrics.keyState ? 1 : 0);
    if (metrics.keyReason !== undefined) problem.set({ volume, reason: metrics.keyReason }, 1);
    for (const name of Object.keys(times) as (keyof typeof times)[]) {
      const ms = metrics[name];
      if (ms !== undefined) times[name].set({ volume }, ms / 1000);
    }
  };
}

/** mappedBytes -> mapped_bytes. */
function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
