/** What a process holds, as the kernel tells it. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { errnoOf } from '../../../src/base/errors.js';

export interface ProcessFacts {
  readonly sockets: number;
  /** Paths of open files. */
  readonly files: readonly string[];
  /** Pipes, event queues and the like, by what the kernel calls them. */
  readonly others: Readonly<Record<string, number>>;
  readonly lockedKiB: number;
  readonly residentKiB: number;
  readonly threads: number;
}

const LOOKS = 5;
const LOOK_MS = 100;

/** Of some looks the one with the fewest sockets: a question to the key service is over within moments. */
export async function steadyFacts(pid: number): Promise<ProcessFacts> {
  let fewest = processFacts(pid);
  for (let look = 1; look < LOOKS; look++) {
    await sleep(LOOK_MS);
    const facts = processFacts(pid);
    if (facts.sockets < fewest.sockets) fewest = facts;
  }
  return fewest;
}

function processFacts(pid: number): ProcessFacts {
  let sockets = 0;
  const files: string[] = [];
  const others: Record<string, number> = {};
  for (const target of descriptors(pid)) {
    const kind = target.split(':[')[0];
    if (kind === 'socket') sockets += 1;
    else if (target.startsWith('/') && !target.startsWith('/dev/')) files.push(target);
    else others[kind] = (others[kind] ?? 0) + 1;
  }
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const value = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1]);
  return {
    ...{ sockets, files: files.sort(), others },
    ...{ lockedKiB: value('VmLck'), residentKiB: value('VmRSS'), threads: value('Threads') },
  };
}

function descriptors(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch (error) {
      // Closed meanwhile.
      if (errnoOf(error) === 'ENOENT') return [];
      throw error;
    }
  });
}

/** Least-squares slope of `y` over `x`. */
export function slope(points: readonly (readonly [x: number, y: number])[]): number {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const x = mean(points.map(([at]) => at));
  const y = mean(points.map(([, value]) => value));
  const over = points.reduce((sum, [at, value]) => sum + (at - x) * (value - y), 0);
  return over / points.reduce((sum, [at]) => sum + (at - x) ** 2, 0);
}
