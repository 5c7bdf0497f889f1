/** A client that waits for each answer is looked for before the loop sleeps; nobody else may have to wait for that. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MemoryDevice } from '../support/memory-device.js';
import { startTestServer, type TestServer } from '../support/nbd-test-server.js';
import { hasProgram, runProgram } from '../support/programs.js';

const SIZE = 1 << 20;
const REQUESTS = 5000;

describe.skipIf(!hasProgram('nbdsh'))('requests that come one by one (needs nbdsh)', () => {
  let test: TestServer;

  beforeAll(async () => {
    test = await startTestServer([new MemoryDevice({ name: 'disk', sizeBytes: SIZE })]);
  });
  afterAll(() => test.stop());

  /** nbdsh is a script of Debian's python, which must come before any other. */
  const inTurn = (code: string) =>
    runProgram('nbdsh', ['-u', `nbd://${test.address}/disk`, '-c', code], {
      env: { PATH: `/usr/bin:${process.env.PATH}` },
      timeoutMs: 60_000,
    });

  it('are all answered, while timers and other clients get their turn', async () => {
    let ticks = 0;
    const timer = setInterval(() => {
      ticks++;
    }, 1);
    const code = `
for i in range(${REQUESTS}):
    offset = (i * 4096) % ${SIZE}
    h.pwrite(bytes([i % 251]) * 4096, offset)
    assert h.pread(4096, offset) == bytes([i % 251]) * 4096`;
    const results = await Promise.all([inTurn(code), inTurn(`for i in range(${REQUESTS}): h.pread(512, i)`)]);
    clearInterval(timer);
    expect(results.map(({ code, stderr }) => ({ code, stderr }))).toEqual(
      results.map(() => ({ code: 0, stderr: '' })),
    );
    expect(ticks).toBeGreaterThan(10);
    expect(test.log.filter(({ level }) => level === 'error')).toEqual([]);
  });

  it('may stop at any time: the loop goes to sleep', async () => {
    const { code } = await inTurn(`for i in range(500): h.pread(4096, 0)\nimport time\ntime.sleep(0.2)`);
    expect(code).toBe(0);
    const [before, start] = [process.cpuUsage(), performance.now()];
    await new Promise((resolve) => setTimeout(resolve, 500));
    const { user, system } = process.cpuUsage(before);
    // A loop that goes on looking takes all of a thread.
    expect((user + system) / 1000).toBeLessThan((performance.now() - start) / 2);
  });
});
