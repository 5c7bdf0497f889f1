/** One walk: what is sent to both servers, in steps, and what is known of it. Made of a seed alone. */
import type { Dice } from '../../support/dice.js';
import type { Disk } from './disk.js';
import type { OptionFacts, RequestFacts } from './facts.js';

/** An export that sealbd and an nbdkit have in common. */
export interface Subject {
  readonly name: string;
  /** One that both know as well. */
  readonly other: string;
  /** The empty name means it too. */
  readonly isDefault: boolean;
  readonly readOnly: boolean;
  readonly disk: Disk;
  readonly listing: readonly string[];
}

export interface Step {
  /** Sent one by one. */
  readonly pieces: readonly Buffer[];
  /** In the order of their answers. */
  readonly options: readonly OptionFacts[];
  readonly requests: readonly RequestFacts[];
  /** The last option is EXPORT_NAME: no reply has a header then. */
  readonly exportName?: 'padded' | 'bare';
  /** The last option enters the transmission phase, in this way. */
  readonly enters?: { readonly structured: boolean };
  /**
   * Follows at once. nbdkit gets it when the rest is answered: on DISC, and on the end of the stream, it answers what is
   * still under way with ESHUTDOWN; and it does not wait for data of ABORT.
   */
  readonly tail?: Buffer;
}

export interface Cut {
  readonly offset: number;
  /** What was sent of the payload of a WRITE that never became whole. */
  readonly payload: Buffer;
}

export interface Walk {
  readonly steps: readonly Step[];
  /** The server must close by itself; else the client does, behind the last step. */
  readonly serverCloses: boolean;
  readonly cut?: Cut;
}

/** The same bytes, in up to eight pieces: half of the cuts are where the headers are. */
export function split(dice: Dice, bytes: Buffer): Buffer[] {
  const cuts = new Set<number>();
  for (let i = dice.one(0, 0, 1, 3, 7); i > 0; i--)
    cuts.add(dice.below(dice.chance(50) ? Math.min(bytes.length, 128) : bytes.length));
  const ends = [...cuts, bytes.length].filter((end) => end > 0).sort((a, b) => a - b);
  return ends.map((end, i) => bytes.subarray(ends[i - 1] ?? 0, end));
}

/** One step of two: the second is sent without waiting for the answers to the first. */
export function joined(first: Step, second: Step): Step {
  return {
    ...first,
    ...second,
    pieces: [...first.pieces, ...second.pieces],
    options: [...first.options, ...second.options],
    requests: [...first.requests, ...second.requests],
  };
}
