/** The daemon under a service manager: what it is told, the sockets that it hands over, and the units. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Option, Rep } from '../../src/nbd/wire/constants.js';
import { DaemonProcess, type RunOptions, sealbdProcess } from '../support/daemon-process.js';
import { RawClient } from '../support/nbd-raw-client.js';
import { hasProgram, runProgram } from '../support/programs.js';

const PYTHON = '/usr/bin/python3';
let directory: string;
const children: ChildProcess[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'sealbd-service-'));
});

afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await new Promise((resolve) => child.once('close', resolve));
    }
  }
  rmSync(directory, { recursive: true, force: true });
});

/** Prints each datagram as a line. Node has no such sockets. */
async function listener(path: string): Promise<() => string[]> {
  const script = `
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(${JSON.stringify(path.replace(/^@/, '\0')).replace('\\u0000', '\\0')})
print("bound", flush=True)
while True: print(s.recv(4096).decode(), flush=True)
`;
  const child = spawn(PYTHON, ['-c', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  await expect.poll(() => text).toContain('bound');
  return () => text.split('\n').slice(1, -1);
}

/** Runs the command with listening sockets from descriptor 3 on, as systemd does: PATH, or HOST:PORT. */
function handingOver(...addresses: string[]): RunOptions {
  const script = `
import os, socket, sys
fd = 3
os.closerange(3, 64)
for address in sys.argv[1].split(","):
    unix = address.startswith("/")
    s = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
    host, _, port = address.rpartition(":")
    s.bind(address if unix else (host, int(port)))
    s.listen(16)
    assert s.fileno() == fd
    os.set_inheritable(s.detach(), True)
    fd += 1
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(fd - 3))
os.execvp(sys.argv[2], sys.argv[2:])
`;
  return { wrapper: [PYTHON, '-c', script, addresses.join(',')] };
}

function serve(options: RunOptions, ...args: string[]) {
  const process_ = sealbdProcess(['serve', '--data', join(directory, 'data'), ...args], options);
  children.push(process_.child);
  return process_;
}

async function answers(address: string): Promise<boolean> {
  const client = await RawClient.connect(address);
  await client.greet();
  const [{ reply }] = await client.option(Option.LIST);
  await client.close();
  return reply === Rep.ACK;
}

describe.skipIf(!existsSync(PYTHON))(`a service manager (by ${PYTHON})`, () => {
  it.each(['notify.sock', '@sealbd-test-notify'])(
    'hears on %s of readiness, of life, and of the stop',
    async (name) => {
      const path = name.startsWith('@') ? `${name}-${process.pid}` : join(directory, name);
      const heard = await listener(path);
      const env = { NOTIFY_SOCKET: path, WATCHDOG_USEC: '400000' };
      const daemon = await DaemonProcess.start(join(directory, 'data'), [], { env });
      await expect.poll(() => heard().filter((line) => line === 'WATCHDOG=1').length).toBeGreaterThan(2);
      expect(heard()[0]).toBe('READY=1');
      expect((await daemon.stop()).code).toBe(0);
      expect(heard()).toContain('STOPPING=1');
    },
  );

  it('that cannot be told is no reason to end, and a watchdog of another process is not kept', async () => {
    const gone = join(directory, 'gone.sock');
    const env = { NOTIFY_SOCKET: gone, WATCHDOG_USEC: '100000', WATCHDOG_PID: '1' };
    const daemon = await DaemonProcess.start(join(directory, 'data'), [], { env });
    await expect.poll(() => daemon.logText).toContain('"state":"READY=1","error":"ENOENT"');
    expect((await daemon.stop()).code).toBe(0);
    expect(daemon.logText).not.toContain('WATCHDOG');
  });

  it('hands over sockets, in place of the default address; their files are its own', async () => {
    const path = join(directory, 'nbd.sock');
    const daemon = serve(handingOver(path, '127.0.0.1:0'));
    await expect.poll(() => daemon.text.stderr, { timeout: 20_000 }).toContain('"ready: ');
    const { listen } = JSON.parse(daemon.text.stderr.split('\n').find((line) => line.includes('"ready: '))!);
    expect(listen).toEqual([`unix:${path}`, expect.stringMatching(/^127\.0\.0\.1:\d+$/)]);
    for (const address of listen) expect(await answers(address)).toBe(true);
    daemon.child.kill('SIGTERM');
    expect((await daemon.ended).code).toBe(0);
    expect(existsSync(path)).toBe(true);
  });

  it('that hands over an address of other machines needs TLS all the same', async () => {
    const { code, stderr } = await serve(handingOver('0.0.0.0:0')).ended;
    expect([code, stderr]).toEqual([
      2,
      expect.stringMatching(/0\.0\.0\.0:\d+ can be reached from other machines/),
    ]);
    const daemon = serve(handingOver('0.0.0.0:0'), '--insecure');
    await expect.poll(() => daemon.text.stderr, { timeout: 20_000 }).toContain('"ready: ');
    expect(daemon.text.stderr).toContain('whoever can connect can open every volume');
  });

  it('that hands over something else is told so', async () => {
    const env = { LISTEN_FDS: '1' };
    const wrapper = ['sh', '-c', 'exec 3</dev/null; LISTEN_PID=$$ exec "$0" "$@"'];
    const { code, stderr } = await serve({ env, wrapper }).ended;
    expect([code, stderr]).toEqual([1, expect.stringContaining('descriptor 3 is no listening socket')]);
  });
});

/** It looks for the program that the unit starts, too. */
const analyzes = hasProgram('systemd-analyze') && existsSync('/usr/bin/node');

describe.skipIf(!analyzes)('the units (by systemd-analyze, for /usr/bin/node)', () => {
  const unit = (name: string) => fileURLToPath(new URL(`../../systemd/${name}`, import.meta.url));

  it('hold up to systemd, and the sandbox is tight', async () => {
    const { code, stderr } = await runProgram('systemd-analyze', ['verify', unit('sealbd.socket')]);
    expect([code, stderr]).toEqual([0, '']);
    const args = ['security', '--offline=true', '--threshold=20', unit('sealbd.service')];
    const { code: exposed, stdout } = await runProgram('systemd-analyze', args);
    expect(exposed, stdout).toBe(0);
  });
});
