/** What is said at the start about ways in that stand open. */
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { resolveConfig } from '../../src/daemon/config.js';
import { warnOfOpenToken } from '../../src/daemon/open-doors.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { type LogLine, recordingLogger } from '../support/nbd-test-server.js';

it('a file with the token of the admin address that others can read is warned of', () => {
  const directory = temporaryDirectory();
  const config = join(directory, 'f.toml');
  writeFileSync(config, 'admin_token = "a-token-of-some-length"\n');
  const warned = (mode: number, environment: NodeJS.ProcessEnv = {}): LogLine[] => {
    const log: LogLine[] = [];
    chmodSync(config, mode);
    warnOfOpenToken(resolveConfig({ config }, environment, directory), recordingLogger(log));
    return log;
  };
  expect(warned(0o600)).toEqual([]);
  for (const mode of [0o640, 0o604])
    expect(warned(mode)).toMatchObject([{ level: 'warn', fields: { path: config, mode: mode.toString(8) } }]);
  expect(warned(0o644, { SEALBD_ADMIN_TOKEN: 'another-token-of-some-length' })).toEqual([]);
  writeFileSync(config, '');
  expect(warned(0o644)).toEqual([]);
});
