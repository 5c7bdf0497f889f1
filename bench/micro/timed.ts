/** Small operations on tinybench, many in each sample: a clock does not resolve one of them. */
import { Bench } from 'tinybench';

export interface Operation {
  readonly name: string;
  readonly run: () => void;
}

const BATCH = 1000;

/** Median nanoseconds of one operation, in the order given. */
export async function timeOperations(operations: readonly Operation[], timeMs: number): Promise<number[]> {
  const bench = new Bench({ time: timeMs, warmupTime: timeMs / 4, iterations: 5, warmupIterations: 1 });
  for (const { name, run } of operations) {
    bench.add(name, () => {
      for (let i = 0; i < BATCH; i++) run();
    });
  }
  await bench.run();
  return bench.tasks.map(({ name, result }) => {
    if (result.state !== 'completed') throw new Error(`${name}: ${result.state}`);
    return (result.latency.p50 * 1e6) / BATCH;
  });
}
