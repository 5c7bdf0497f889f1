/** Curves, not points: what a larger volume, more requests, more clients and more age cost. */
import { runGroup } from '../group.js';
import { inPlace } from '../nbd/place.js';
import type { GroupOptions, GroupResult } from '../result.js';
import { curveTable, summaryTable } from './curve.js';
import { loadCurves, REST_MS } from './load-curves.js';
import { mapCurves } from './map-curves.js';
import { fullnessCurve, type Steady, steadyState, steadyTable, windowTable } from './steady-state.js';

const MIB = 2 ** 20;
const FULLNESS = [0.5, 0.75, 0.9];
const FULLNESS_QUICK = [0.5, 0.9];
const ROUNDS_MAX = 3;

async function measure(options: GroupOptions): Promise<GroupResult> {
  const { quick } = options;
  const sizeBytes = (quick ? 64 : 1024) * MIB;
  const windowMs = quick ? 200 : 3000;
  const windowsMax = quick ? 4 : 40;
  const rounds = quick ? 1 : Math.min(options.rounds, ROUNDS_MAX);
  const trialMs = quick ? 50 : 1000;
  return inPlace(options, sizeBytes, async (place) => {
    const maps = await mapCurves(place.programs, place.directory, quick);
    const load = await loadCurves(place, rounds, trialMs, quick);
    const steady: Steady[] = [];
    for (const fullness of quick ? FULLNESS_QUICK : FULLNESS) {
      steady.push(await steadyState({ place, fullness, windowMs, windowsMax }));
    }
    const fixedMib = (load.residentBytes - load.mapBytes) / MIB;
    const loadedMib = (load.loadedBytes - load.mapBytes) / MIB;
    const curves = [...maps.curves, ...load.curves, fullnessCurve(steady)];
    return {
      notes: [
        'A cost is fitted as x to the power of the exponent: 0 is constant, 1 linear. Steps above 1.15 are marked; where a machine is full, twice as many requests take twice as long each, which is 1.',
        'Volume size and mapped data: synthetic maps of single blocks all over the volume, opened by the engine itself, each in a process of its own; look-ups are answers to BLOCK_STATUS about one block, and a checkpoint follows 10,000 random writes.',
        `Queue depth, connections and request size: one daemon with its defaults and an aes-256-gcm volume of ${sizeBytes / MIB} MiB, full, ${rounds} round(s) of ${trialMs} ms, medians.`,
        `Steady state: 4 KiB random writes at QD32 in windows of ${windowMs} ms, at most ${windowsMax}, until four in a row differ by no more than 10 % and the data was overwritten twice; then three more, each followed by one on a volume just made. Write amplification is what compaction moved beside what was written.`,
        `Resident memory: the fixed part is that of the daemon ${REST_MS / 1000} s after all of the load above, less its map, and the line above it the same in the instant when the last request ended; the rest is the slope of a line through the processes with synthetic maps.`,
      ],
      tables: [
        summaryTable(curves),
        {
          title: 'Resident memory',
          columns: [
            { key: 'what', label: 'what' },
            { key: 'value', label: 'value', digits: 1 },
          ],
          rows: [
            { what: 'daemon with one empty volume, MiB', value: load.startedBytes / MIB },
            { what: 'with what requests under way need, MiB', value: loadedMib },
            { what: 'fixed part, MiB', value: fixedMib },
            { what: 'each mapped block of 4 KiB, bytes', value: maps.bytesPerBlock },
          ],
        },
        steadyTable(steady),
        ...curves.map(curveTable),
        windowTable(steady),
      ],
    };
  });
}

await runGroup(measure);
