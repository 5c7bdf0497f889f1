import { describe, expect, it } from 'vitest';
import { formatDuration, formatSize, parseDuration, parseSize } from '../../src/base/units.js';

describe('sizes', () => {
  it.each([
    ['4096', 4096],
    ['512M', 512 * 2 ** 20],
    ['10G', 10 * 2 ** 30],
    ['10GiB', 10 * 2 ** 30],
    ['10gb', 10 * 2 ** 30],
    ['1T', 2 ** 40],
    ['64k', 65_536],
    ['0', 0],
  ])('%s is %i bytes', (text, bytes) => {
    expect(parseSize(text, '--size')).toBe(bytes);
  });

  it.each(['', '-1', '1.5G', 'G', '10 G', '10X', '1e3', '0x10', '10GiBs', '9007199254740993', '9000P'])(
    '"%s" is bad usage that names the flag and the value',
    (text) => {
      expect(() => parseSize(text, '--size')).toThrow(expect.objectContaining({ code: 'USAGE' }));
      expect(() => parseSize(text, '--size')).toThrow(`--size: "${text}"`);
    },
  );

  it('are shown short', () => {
    expect([0, 512, 4096, 10 * 2 ** 30, 1.5 * 2 ** 30, 2 ** 40].map(formatSize)).toEqual([
      '0',
      '512',
      '4K',
      '10G',
      '1.50G',
      '1T',
    ]);
  });
});

describe('times', () => {
  it.each([
    ['500ms', 500],
    ['10s', 10_000],
    ['10m', 600_000],
    ['24h', 86_400_000],
  ])('%s is %i ms', (text, ms) => {
    expect(parseDuration(text, 'buffer_age')).toBe(ms);
    expect(parseDuration(formatDuration(ms), 'again')).toBe(ms);
  });

  it.each(['', '10', '10 s', '-1s', '1.5h', '10M', 's'])('"%s" is bad usage', (text) => {
    expect(() => parseDuration(text, 'buffer_age')).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });
});
