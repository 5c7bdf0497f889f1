import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../src/daemon/config.js';
import { tuningOf } from '../../src/daemon/volume-engine.js';
import { defaultTuning } from '../../src/volume/tuning.js';

describe('the crossover between inline and pool', () => {
  it('is the one of the configuration', () => {
    const { tuning } = parseConfig('[tuning]\npool_seal_from = "256K"\npool_read_from = "4M"\n', 'test.toml');
    const merged = { ...defaultTuning(2 ** 30, 'vaes512'), ...tuningOf(tuning ?? {}) };
    expect(merged).toMatchObject({ poolSealBytes: 256 * 1024, poolReadBytes: 4 * 2 ** 20 });
  });

  it('is the default where the configuration says nothing', () => {
    expect({ ...defaultTuning(2 ** 30, 'vaes512'), ...tuningOf({}) }).toEqual(
      defaultTuning(2 ** 30, 'vaes512'),
    );
  });
});
