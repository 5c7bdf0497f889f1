import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { httpServer } from '../support/aws-kms.js';
import { adminSocket, DaemonProcess, sealbd } from '../support/daemon-process.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { program, qemuIo } from '../support/nbd-io.js';

const dataDirectory = () => join(temporaryDirectory(), 'data');

describe('serve', () => {
  it('says ready with every address, port 0 resolved, and how to attach', async () => {
    const data = dataDirectory();
    const socket = join(temporaryDirectory(), 'nbd.sock');
    const args = ['--listen', '127.0.0.1:0', '--listen', `unix:${socket}`, '--default-volume', 'default:64M'];
    const daemon = await DaemonProcess.start(data, args);
    const { msg, listen, admin } = daemon.ready;
    expect(listen).toHaveLength(2);
    expect(listen[0]).toMatch(/^127\.0\.0\.1:[1-9]\d*$/);
    expect(listen[1]).toBe(`unix:${socket}`);
    expect(admin).toEqual([`unix:${adminSocket(data)}`]);
    for (const address of [...listen, ...admin]) expect(msg).toContain(address);
    // This line follows the one that says ready.
    await expect.poll(() => daemon.logText).toContain(`nbd://${listen[0]}/default`);
    expect((await program('nbdinfo', ['--size', daemon.uri('default')])).output.trim()).toBe(
      String(64 * 2 ** 20),
    );
    const overUnix = await program('nbdinfo', ['--size', `nbd+unix:///default?socket=${socket}`]);
    expect(overUnix.output.trim()).toBe(String(64 * 2 ** 20));
  });

  it('keeps its files to itself, and its socket only while it is ready', async () => {
    const data = dataDirectory();
    const daemon = await DaemonProcess.start(data, ['--default-volume', 'default:64M']);
    expect(statSync(adminSocket(data)).mode & 0o777).toBe(0o600);
    expect(statSync(data).mode & 0o777).toBe(0o700);
    expect(statSync(join(data, 'keyring.json')).mode & 0o777).toBe(0o600);
    const files = readdirSync(join(data, 'volumes/default'));
    for (const file of files) expect(statSync(join(data, 'volumes/default', file)).mode & 0o077).toBe(0);
    expect((await daemon.stop()).code).toBe(0);
    expect(existsSync(adminSocket(data))).toBe(false);
    expect(readdirSync(data).sort()).toEqual(['audit.jsonl', 'keyring.json', 'lock', 'volumes']);
    expect((await daemon.run(['status'])).code).toBe(3);
  });

  it('works in a directory whose path is too long for a socket', async () => {
    const data = join(temporaryDirectory(), 'a'.repeat(100), 'b'.repeat(100));
    const daemon = await DaemonProcess.start(data);
    expect((await daemon.run(['volume', 'list'])).code).toBe(0);
    expect((await daemon.stop()).code).toBe(0);
  });

  it('refuses a directory that another daemon has', async () => {
    const data = dataDirectory();
    const daemon = await DaemonProcess.start(data);
    const second = await sealbd(['serve', '--data', data, '--listen', '127.0.0.1:0']);
    expect(second.code).toBe(1);
    expect(second.stderr).toContain('another daemon');
    expect((await daemon.run(['volume', 'list'])).code).toBe(0);
  });

  it('keeps what was written over an orderly stop, and what was flushed over kill -9', async () => {
    const data = dataDirectory();
    const first = await DaemonProcess.start(data, ['--default-volume', 'default:64M']);
    expect((await qemuIo(first.uri('default'), 'write -P 0x11 0 1M', 'flush')).code).toBe(0);
    expect((await first.signal('SIGKILL')).signal).toBe('SIGKILL');
    expect(existsSync(adminSocket(data))).toBe(true);
    expect((await first.run(['status'])).code).toBe(3);
    const second = await DaemonProcess.start(data, ['--default-volume', 'default:64M']);
    expect((await qemuIo(second.uri('default'), 'read -P 0x11 0 1M', 'write -P 0x22 1M 1M')).code).toBe(0);
    expect((await second.stop()).code).toBe(0);
    const third = await DaemonProcess.start(data);
    const read = await qemuIo(
      third.uri('default'),
      'read -P 0x11 0 1M',
      'read -P 0x22 1M 1M',
      'read -P 0 2M 62M',
    );
    expect(read.output).not.toContain('failed');
    expect(read.code).toBe(0);
  });

  it.each(['SIGTERM', 'SIGINT'] as const)(
    'ends with 0 on %s, with a client attached that does not move',
    async (signal) => {
      const daemon = await DaemonProcess.start(dataDirectory(), ['--default-volume', 'default:64M']);
      const [host, port] = daemon.ready.listen[0].split(':');
      const client = createConnection({ host, port: Number(port) });
      client.on('error', () => undefined);
      await new Promise((resolve) => client.once('connect', resolve));
      const { code, stderr } = await daemon.signal(signal);
      client.destroy();
      expect(code).toBe(0);
      expect(stderr).toContain('"msg":"stopped"');
    },
  );

  it('erases what a crash left unfinished', async () => {
    const data = dataDirectory();
    mkdirSync(join(data, 'volumes/.create-x-0011'), { recursive: true });
    writeFileSync(join(data, 'volumes/.create-x-0011/superblock'), 'half');
    const daemon = await DaemonProcess.start(data);
    expect(readdirSync(join(data, 'volumes'))).toEqual([]);
    expect(await daemon.json(['volume', 'list'])).toEqual([]);
  });

  it.each([
    [['--listen', '0.0.0.0:0'], 2, '--insecure'],
    [['--listen', 'nonsense'], 2, '--listen: "nonsense"'],
    [['--admin', '127.0.0.1:0'], 2, 'SEALBD_ADMIN_TOKEN'],
    [['--config', '/does/not/exist.toml'], 2, '/does/not/exist.toml'],
    [['--default-volume', 'x'], 2, '--default-volume: "x"'],
    [['--default-volume', 'x:1000'], 2, '1000'],
    [['--bogus'], 2, '--bogus'],
    [['--listen', '127.0.0.1:1', '--listen', 'unix:/does/not/exist/s'], 1, 'cannot listen'],
  ])('%j ends with %i and says %s', async (args, code, said) => {
    const data = dataDirectory();
    const listen = args.includes('--listen') ? [] : ['--listen', '127.0.0.1:0'];
    const result = await sealbd(['serve', '--data', data, ...listen, ...args]);
    expect(result.code).toBe(code);
    expect(result.stderr).toContain(said);
    expect(existsSync(adminSocket(data))).toBe(false);
  });

  it('refuses to run where key memory cannot be locked, unless told to', async () => {
    const data = dataDirectory();
    // The second is enough for the keys of volumes, but not for those of their segments.
    for (const bytes of [0, 256 * 1024]) {
      const wrapper = [
        'prlimit',
        `--memlock=${bytes}:${bytes}`,
        'setpriv',
        '--bounding-set=-ipc_lock',
        '--inh-caps=-ipc_lock',
      ];
      const refused = await sealbd(['serve', '--data', data, '--listen', '127.0.0.1:0'], { wrapper });
      expect(refused.code).toBe(1);
      expect(refused.stderr).toContain('--allow-unlocked-keys');
      const daemon = await DaemonProcess.start(data, ['--allow-unlocked-keys'], { wrapper });
      expect(await daemon.json(['status'])).toMatchObject({ keysLocked: false });
      await daemon.stop();
    }
  });

  it('finds its directory through SEALBD_DATA, and ./sealbd-data without it', async () => {
    const cwd = temporaryDirectory();
    const daemon = await DaemonProcess.start(join(cwd, 'sealbd-data'));
    expect((await sealbd(['volume', 'list'], { cwd })).code).toBe(0);
    expect((await sealbd(['volume', 'list'], { env: { SEALBD_DATA: daemon.data } })).code).toBe(0);
    expect((await sealbd(['volume', 'list'], { env: { SEALBD_DATA: cwd } })).code).toBe(3);
  });

  it('writes a log that is JSON line by line', async () => {
    const daemon = await DaemonProcess.start(dataDirectory(), ['--default-volume', 'default:64M']);
    await daemon.stop();
    const lines = daemon.logText.trim().split('\n');
    for (const line of lines) expect(JSON.parse(line)).toHaveProperty('msg');
    expect(readFileSync(join(daemon.data, 'keyring.json'), 'utf8')).toContain('NOT protected');
  });

  it('has in its log, as JSON, what libraries would print: of credentials that do not come', async () => {
    const AWS_CONTAINER_CREDENTIALS_FULL_URI = await httpServer(() => undefined);
    const daemon = await DaemonProcess.start(dataDirectory(), [], {
      env: {
        AWS_REGION: 'us-east-1',
        AWS_CONFIG_FILE: '/dev/null',
        AWS_SHARED_CREDENTIALS_FILE: '/dev/null',
        AWS_CONTAINER_CREDENTIALS_FULL_URI,
      },
    });
    expect((await daemon.run(['key', 'check', 'awskms:///alias/a'])).code).toBe(4);
    const warned = (): boolean => daemon.log().some(({ msg }) => msg === 'a library warns');
    await expect.poll(warned, { timeout: 30_000 }).toBe(true);
  });
});
