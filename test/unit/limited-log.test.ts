/** What clients provoke does not fill the log. */
import { expect, it } from 'vitest';
import { limitLog } from '../../src/base/limited-log.js';
import { LOG_LINES_PER_KIND_MAX, LOG_SPAN_MS } from '../../src/base/limits.js';
import { ManualClock } from '../support/manual-clock.js';
import { type LogLine, recordingLogger } from '../support/nbd-test-server.js';

it('has so many lines of each kind in a span, says how many were left out, and goes on', () => {
  const lines: LogLine[] = [];
  const clock = new ManualClock();
  const log = limitLog(recordingLogger(lines), clock);
  for (let i = 0; i < 1000; i++) log.child({ i }).info({ i }, 'a client was dropped');
  log.warn({}, 'something else');
  expect(lines.length).toBe(LOG_LINES_PER_KIND_MAX + 1);
  expect(lines.at(-1)).toMatchObject({ level: 'warn', message: 'something else' });
  clock.advance(LOG_SPAN_MS);
  expect(lines.at(-1)).toMatchObject({
    level: 'info',
    fields: { leftOut: 1000 - LOG_LINES_PER_KIND_MAX, of: 'a client was dropped' },
  });
  log.info({}, 'a client was dropped');
  expect(lines.at(-1)).toMatchObject({ message: 'a client was dropped' });
  const before = lines.length;
  clock.advance(2 * LOG_SPAN_MS);
  expect(lines.length).toBe(before);
});
