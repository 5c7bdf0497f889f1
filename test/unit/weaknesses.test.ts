import { describe, expect, it } from 'vitest';
import { type MachineFacts, warnOfWeaknesses } from '../../src/daemon/weaknesses.js';
import { type LogLine, recordingLogger } from '../support/nbd-test-server.js';

const SOUND: MachineFacts = {
  lockedBytes: 64 * 2 ** 20,
  swaps: 'Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n',
  limits:
    'Max cpu time              unlimited            unlimited            seconds\nMax core file size        0                    unlimited            bytes\n',
  tls: true,
};

function warned(facts: Partial<MachineFacts>): unknown[] {
  const lines: LogLine[] = [];
  warnOfWeaknesses({ ...SOUND, ...facts }, recordingLogger(lines));
  return lines.map(({ fields }) => (fields as { weakness: string }).weakness);
}

describe('what weakens the protection of memory', () => {
  it('is not warned of where there is nothing', () => {
    expect(warned({})).toEqual([]);
    expect(warned({ lockedBytes: Number.POSITIVE_INFINITY, swaps: undefined, limits: undefined })).toEqual(
      [],
    );
  });

  it('is little lockable memory', () => {
    expect(warned({ lockedBytes: 64 * 1024 })).toEqual(['memlock']);
  });

  it('is swap', () => {
    expect(warned({ swaps: `${SOUND.swaps}/dev/sda2 partition 1000 0 -2\n` })).toEqual(['swap']);
  });

  it('is core dumps, where TLS is in use: without it nothing of worth is in one', () => {
    const limits = SOUND.limits?.replace(/size {8}0/, 'size        unlimited');
    expect(warned({ limits })).toEqual(['core']);
    expect(warned({ limits, tls: false })).toEqual([]);
  });
});
