import { afterEach, expect, test, vi } from 'vitest';

const MISSING = '/nonexistent/sealbd.node';

afterEach(() => {
  vi.unstubAllEnvs();
  vi.resetModules();
});

/** Loads the module anew, with these variables. */
function load(environment: Readonly<Record<string, string>>): Promise<unknown> {
  for (const [name, value] of Object.entries(environment)) vi.stubEnv(name, value);
  vi.resetModules();
  return import('../../src/native/addon.js');
}

// Where a sanitized build is what runs, the released one need not exist.
test.skipIf(process.env.SEALBD_SANITIZED !== undefined)(
  'SEALBD_ADDON alone does not make sealbd load another addon',
  async () => {
    for (const testing of ['', '0', 'true']) {
      const loaded = await load({ SEALBD_TESTING: testing, SEALBD_ADDON: MISSING });
      expect(loaded).toHaveProperty('addon.sealRun');
    }
  },
);

test('SEALBD_ADDON names the addon where SEALBD_TESTING is 1', async () => {
  await expect(load({ SEALBD_TESTING: '1', SEALBD_ADDON: MISSING })).rejects.toThrow(MISSING);
});
