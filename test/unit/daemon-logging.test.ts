import { expect, it } from 'vitest';
import { createLogger } from '../../src/daemon/logging.js';

function logged(write: (log: ReturnType<typeof createLogger>) => void, level = 'info'): string {
  let text = '';
  const log = createLogger(level, {
    write: (line: string) => {
      text += line;
    },
  });
  write(log);
  return text;
}

it('a field that is named like a secret is hidden, two levels deep', () => {
  const text = logged((log) => {
    log.info({ passphrase: 'SECRET-1', body: { key: 'SECRET-2', inner: { token: 'SECRET-3' } } }, 'message');
    log.child({ dek: 'SECRET-4' }).error({ request: { authorization: 'SECRET-5' } }, 'message');
  });
  expect(text).not.toContain('SECRET');
  expect(text.match(/\[hidden\]/g)).toHaveLength(5);
});

it('what operators need stays readable', () => {
  const line = JSON.parse(logged((log) => log.warn({ keyUri: 'local:default', volume: 'v' }, 'message')));
  expect(line).toMatchObject({ keyUri: 'local:default', volume: 'v', msg: 'message', pid: process.pid });
});

it('lines below the level are not written', () => {
  expect(logged((log) => log.debug({}, 'quiet'))).toBe('');
  expect(logged((log) => log.debug({}, 'loud'), 'debug')).toContain('loud');
});
