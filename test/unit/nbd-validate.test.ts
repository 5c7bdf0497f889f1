import { describe, expect, it } from 'vitest';
import { SealbdError } from '../../src/base/errors.js';
import { REQUEST_BYTES_MAX } from '../../src/base/limits.js';
import { wireErrorOf } from '../../src/nbd/errno.js';
import { type RequestContext, validateRequest } from '../../src/nbd/validate.js';
import { Command, CommandFlag, Errno } from '../../src/nbd/wire/constants.js';

const SIZE = 64 * 1024 * 1024;
const usual: RequestContext = { sizeBytes: SIZE, readOnly: false, structured: true, allocation: true };

function judge(
  type: number,
  offset: number,
  length: number,
  flags = 0,
  context: Partial<RequestContext> = {},
) {
  const request = { type, offset, length, flags, cookieHigh: 0, cookieLow: 0 };
  return validateRequest(request, { ...usual, ...context });
}

const RANGED = [
  Command.READ,
  Command.WRITE,
  Command.TRIM,
  Command.CACHE,
  Command.WRITE_ZEROES,
  Command.BLOCK_STATUS,
];
const ALL = [...RANGED, Command.FLUSH];

describe('requests are judged once', () => {
  it('past the end: READ, TRIM, CACHE, BLOCK_STATUS give EINVAL; WRITE, WRITE_ZEROES give ENOSPC', () => {
    for (const type of RANGED) {
      const writes = type === Command.WRITE || type === Command.WRITE_ZEROES;
      const expected = writes ? Errno.ENOSPC : Errno.EINVAL;
      for (const [offset, length] of [
        [SIZE, 1],
        [SIZE - 1, 2],
        [2 ** 63, 512],
        [2 ** 64 - 512, 1024],
      ]) {
        expect(judge(type, offset, length), `${type} at ${offset}`).toBe(expected);
      }
      expect(judge(type, SIZE - 1, 1)).toBe(Errno.OK);
    }
  });

  it('read-only gives EPERM, in range or not', () => {
    for (const type of [Command.WRITE, Command.WRITE_ZEROES, Command.TRIM]) {
      expect(judge(type, 0, 512, 0, { readOnly: true })).toBe(Errno.EPERM);
      expect(judge(type, SIZE, 512, 0, { readOnly: true })).toBe(Errno.EPERM);
    }
    expect(judge(Command.READ, 0, 512, 0, { readOnly: true })).toBe(Errno.OK);
    expect(judge(Command.FLUSH, 0, 0, 0, { readOnly: true })).toBe(Errno.OK);
  });

  it('FUA is accepted on every command', () => {
    for (const type of ALL) {
      const length = type === Command.FLUSH ? 0 : 512;
      expect(judge(type, 0, length, CommandFlag.FUA)).toBe(Errno.OK);
    }
  });

  it('a flag that a command does not know gives EINVAL', () => {
    const known: Record<number, number> = {
      [Command.READ]: CommandFlag.DF,
      [Command.WRITE_ZEROES]: CommandFlag.NO_HOLE | CommandFlag.FAST_ZERO,
      [Command.BLOCK_STATUS]: CommandFlag.REQ_ONE,
    };
    for (const type of ALL) {
      for (let bit = 1; bit < 16; bit++) {
        const expected = ((known[type] ?? 0) & (1 << bit)) !== 0 ? Errno.OK : Errno.EINVAL;
        expect(judge(type, 0, type === Command.FLUSH ? 0 : 512, 1 << bit), `${type}, bit ${bit}`).toBe(
          expected,
        );
      }
    }
  });

  it('DF without structured replies gives EINVAL', () => {
    expect(judge(Command.READ, 0, 512, CommandFlag.DF, { structured: false })).toBe(Errno.EINVAL);
  });

  it('an unknown command gives EINVAL', () => {
    for (const type of [8, 9, 255, 65535]) expect(judge(type, 0, 512)).toBe(Errno.EINVAL);
  });

  it('BLOCK_STATUS without a selected context, or of nothing, gives EINVAL', () => {
    expect(judge(Command.BLOCK_STATUS, 0, 512, 0, { allocation: false })).toBe(Errno.EINVAL);
    expect(judge(Command.BLOCK_STATUS, 0, 0)).toBe(Errno.EINVAL);
  });

  it('payload above the limit gives EINVAL; TRIM and WRITE_ZEROES may go up to 32 bits', () => {
    const sizeBytes = 2 ** 41;
    for (const type of [Command.READ, Command.WRITE]) {
      expect(judge(type, 0, REQUEST_BYTES_MAX, 0, { sizeBytes })).toBe(Errno.OK);
      expect(judge(type, 0, REQUEST_BYTES_MAX + 1, 0, { sizeBytes })).toBe(Errno.EINVAL);
    }
    for (const type of [Command.TRIM, Command.WRITE_ZEROES, Command.CACHE, Command.BLOCK_STATUS]) {
      expect(judge(type, 2 ** 40, 0xffff_ffff, 0, { sizeBytes })).toBe(Errno.OK);
    }
  });

  it('FLUSH with a range gives EINVAL', () => {
    expect(judge(Command.FLUSH, 512, 0)).toBe(Errno.EINVAL);
    expect(judge(Command.FLUSH, 0, 512)).toBe(Errno.EINVAL);
  });
});

describe('the errno map', () => {
  it('maps every device code to its number, and anything else to EIO', () => {
    const codes = ['EIO', 'ENOSPC', 'EINVAL', 'EPERM', 'ENOTSUP', 'ENOMEM', 'ESHUTDOWN'] as const;
    for (const code of codes) expect(wireErrorOf(new SealbdError(code, 'x')).errno).toBe(Errno[code]);
    expect(wireErrorOf(new SealbdError('INTEGRITY', 'x')).errno).toBe(Errno.EIO);
    expect(wireErrorOf(new TypeError('oops'))).toEqual({
      errno: Errno.EIO,
      message: 'oops',
      deviceOffset: undefined,
    });
    expect(wireErrorOf(new SealbdError('EIO', 'bad', { deviceOffset: 8192 })).deviceOffset).toBe(8192);
  });
});
