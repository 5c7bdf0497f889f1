/** What this processor can do at most with the instructions of the fastest kernel (vector-limit.cc, compiled on the spot). */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const SOURCE = fileURLToPath(new URL('../../../../bench/micro/vector-limit.cc', import.meta.url));
const FLAGS = ['-O2', '-std=c++20', '-mavx512f', '-mvaes', '-mvpclmulqdq'];
const TIMEOUT_MS = 60_000;

/** GB/s. */
export interface VectorLimit {
  readonly ctr: number;
  readonly gcm: number;
}

/** Undefined where there is no compiler. The processor must have the instructions. */
export function measureVectorLimit(): VectorLimit | undefined {
  const directory = mkdtempSync(join(tmpdir(), 'sealbd-bench-'));
  try {
    const program = join(directory, 'vector-limit');
    const options = { encoding: 'utf8', timeout: TIMEOUT_MS } as const;
    const { status, error } = spawnSync('c++', [...FLAGS, SOURCE, '-o', program], options);
    if (error !== undefined || status !== 0) return undefined;
    const { stdout } = spawnSync(program, options);
    const [ctr, gcm] = stdout.trim().split(' ').map(Number);
    if (!(ctr > 0 && gcm > 0)) throw new Error(`vector-limit printed '${stdout}'`);
    return { ctr, gcm };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
