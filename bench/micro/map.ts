/** The cases of block-map.ts, each in a process of its own. */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { progress, runGroup } from '../group.js';
import type { Cell, GroupOptions, GroupResult } from '../result.js';

const FILE = fileURLToPath(new URL('./block-map.js', import.meta.url));
const CASE_TIMEOUT_MS = 120_000;
const QUICK_CASES = ['in order, 256 blocks a request'];

function blockMap(...args: readonly string[]): unknown {
  return JSON.parse(
    execFileSync(process.execPath, [FILE, ...args], { encoding: 'utf8', timeout: CASE_TIMEOUT_MS }),
  );
}

async function measure({ quick }: GroupOptions): Promise<GroupResult> {
  const cases = blockMap() as string[];
  const rows: { case: string; figure: string; value: Cell }[] = [];
  for (const name of quick ? cases.filter((each) => QUICK_CASES.includes(each)) : cases) {
    progress(`map: ${name}`);
    for (const [figure, value] of Object.entries(blockMap(name) as Record<string, Cell>)) {
      rows.push({ case: name, figure, value: Number(value) });
    }
  }
  return {
    notes: [
      'Cases that touch blocks at random mostly wait for the machine’s memory: compare them with the first case.',
    ],
    tables: [
      {
        title: 'Block map, 13.1 million mapped blocks',
        columns: [
          { key: 'case', label: 'case' },
          { key: 'figure', label: 'figure' },
          { key: 'value', label: 'value', digits: 2 },
        ],
        rows,
      },
    ],
  };
}

await runGroup(measure);
