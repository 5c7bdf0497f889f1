/** The daemon with nobody attached: everything verified, and what it still holds. */
import { existsSync } from 'node:fs';
import { metricsOf } from '../key-scene.js';
import { until } from '../until.js';
import type { Operator } from './operator.js';
import { type ProcessFacts, steadyFacts } from './process-facts.js';
import type { World } from './world.js';

export interface QuietFacts {
  /** Every volume open, under one DEK each, without snapshots. */
  readonly serving: ProcessFacts;
  /** Every volume stopped. */
  readonly stopped: ProcessFacts;
}

const NOTHING = [
  'nbd_connections',
  'nbd_memory_bytes',
  'nbd_small_chunks_used',
  'nbd_large_chunks_used',
  'nbd_tls_memory_bytes',
  'nbd_waiting_for_memory',
  'jobs_running',
] as const;

export async function quiet(world: World, operators: readonly Operator[]): Promise<QuietFacts> {
  for (const operator of operators) {
    await operator.verifyAll();
    for (const name of operator.snapshots.names) await operator.snapshots.delete(name);
    await operator.reencrypted();
  }
  const names = operators.map(({ volume }) => volume.name);
  const clients = names.map((name) => `volume_clients{volume="${name}"}`);
  await untilZero(world, [...NOTHING, ...clients]);
  const serving = await steadyFacts(world.daemon.pid);
  const deleted = serving.files.filter((path) => !existsSync(path));
  if (deleted.length > 0) throw new Error(`open, and not there any more: ${deleted.join(', ')}`);
  if (new Set(serving.files).size < serving.files.length)
    throw new Error(`open more than once: ${serving.files.join(', ')}`);
  for (const name of names) await world.admin.stopVolume(name);
  await untilZero(world, [...NOTHING, 'key_slots_used']);
  const stopped = await steadyFacts(world.daemon.pid);
  for (const name of names) await world.admin.startVolume(name);
  return { serving, stopped };
}

async function untilZero(world: World, names: readonly string[]): Promise<void> {
  let left: string[] = [];
  const none = async (): Promise<boolean> => {
    const lines = (await metricsOf(world.daemon)).split('\n');
    left = names.flatMap((name) => {
      const line = lines.find((one) => one.startsWith(`sealbd_${name} `));
      if (line === undefined) throw new Error(`there is no metric sealbd_${name}`);
      return line.endsWith(' 0') ? [] : [line];
    });
    return left.length === 0;
  };
  await until('nothing is left of the clients', none, { everyMs: 100 }).catch((error: unknown) => {
    throw new Error(`left behind: ${left.join(', ')}`, { cause: error });
  });
}
