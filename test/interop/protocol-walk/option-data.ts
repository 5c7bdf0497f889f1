/** Data of options that name an export: good ones, and some with a name, a length or a count that is wrong. */
import type { Dice } from '../../support/dice.js';
import type { NameKind } from './facts.js';
import type { Subject } from './walk.js';
import { ALLOCATION, infoData, metaData, STRING_MAX } from './wire.js';

export interface NamedData {
  readonly data: Buffer;
  /** As nbdkit compares it. */
  readonly name: string;
  readonly kind: NameKind;
  readonly queries: readonly string[];
  readonly trailing: boolean;
}

/** Above what sealbd takes, and such that nbdkit finds it malformed where it looks. */
export function longOption(dice: Dice): Buffer {
  return Buffer.alloc(65_537 + dice.below(5000), 0xff);
}

function randomName(dice: Dice, subject: Subject, failing: boolean): { bytes: Buffer; kind: NameKind } {
  if (!failing && dice.chance(80)) {
    return { bytes: Buffer.from(subject.isDefault && dice.chance(25) ? '' : subject.name), kind: 'good' };
  }
  return dice.one<{ bytes: Buffer; kind: NameKind }>(
    { bytes: Buffer.from('nope'), kind: 'unknown' },
    { bytes: Buffer.from(`${subject.name}x`), kind: 'unknown' },
    { bytes: Buffer.alloc(STRING_MAX, 'x'), kind: 'unknown' },
    { bytes: Buffer.alloc(STRING_MAX + 1, 'x'), kind: 'malformed' },
    { bytes: Buffer.from(`${subject.name}\0`), kind: 'malformed' },
    { bytes: Buffer.from([0xff, 0xfe, 0x41]), kind: 'not UTF-8' },
  );
}

/** What makes no sense any more, whoever reads it. */
function broken(dice: Dice, data: Buffer): Buffer {
  const copy = Buffer.from(data);
  return dice.one(
    () => copy.subarray(0, dice.below(copy.length)),
    () => {
      copy.writeUInt32BE(dice.one(copy.length - 3, STRING_MAX + 1, 0x7fff_ffff, 0xffff_ffff), 0);
      return copy;
    },
  )();
}

/** For INFO and GO. `failing` ones are refused by both servers. */
export function namedInfo(dice: Dice, subject: Subject, failing: boolean, given?: Buffer): NamedData {
  const { bytes, kind } =
    given === undefined ? randomName(dice, subject, failing) : { bytes: given, kind: 'good' as const };
  const infos = Array.from({ length: dice.below(6) }, () => dice.one(0, 1, 2, 3, 4, 77));
  const data = infoData(bytes, infos);
  const common = { name: bytes.toString('latin1'), queries: [], trailing: false };
  if (given !== undefined || dice.chance(85)) return { data, kind, ...common };
  const wrong = dice.chance(50) ? broken(dice, data) : Buffer.concat([data, Buffer.alloc(1 + dice.below(4))]);
  return { data: wrong, kind: 'malformed', ...common };
}

/** For LIST_META_CONTEXT and SET_META_CONTEXT. */
export function namedMeta(dice: Dice, subject: Subject, given?: readonly string[]): NamedData {
  const { bytes, kind } = dice.chance(12)
    ? { bytes: Buffer.from(subject.other), kind: 'other' as const }
    : given === undefined
      ? randomName(dice, subject, false)
      : { bytes: Buffer.from(subject.name), kind: 'good' as const };
  const count = dice.chance(4) ? 65 + dice.below(8) : dice.below(4);
  const queries = given ?? Array.from({ length: count }, () => query(dice));
  const data = metaData(bytes, queries);
  const common = { name: bytes.toString('latin1'), queries };
  if (given !== undefined || dice.chance(80)) return { data, kind, trailing: false, ...common };
  return dice.one<() => NamedData>(
    () => ({ data: Buffer.concat([data, Buffer.alloc(1 + dice.below(4))]), kind, trailing: true, ...common }),
    () => ({ data: broken(dice, data), kind: 'malformed', trailing: false, ...common }),
    () => {
      // More queries are promised than there are.
      data.writeUInt32BE(queries.length + 1 + dice.below(3), 4 + bytes.length);
      return { data, kind: 'malformed', trailing: false, ...common };
    },
  )();
}

function query(dice: Dice): string {
  if (dice.chance(55)) return ALLOCATION;
  if (dice.chance(40)) return 'base:';
  return dice.one(
    'base:none',
    'base:none',
    'qemu:dirty-bitmap:x',
    'x-test:',
    'x'.repeat(4000),
    ':',
    '',
    'no-colon',
  );
}
