/** The real daemon under TLS and real NBD clients: each way to prove oneself, in both versions, and each refusal. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { DaemonStatus } from '../../src/admin/schemas.js';
import { Authority } from '../../src/cli/tls/authority.js';
import { Option, Rep } from '../../src/nbd/wire/constants.js';
import { DaemonProcess, sealbd } from '../support/daemon-process.js';
import { RawClient } from '../support/nbd-raw-client.js';
import { hasProgram, mustRun, runProgram } from '../support/programs.js';
import {
  type ClientSecrets,
  gnutlsVersion,
  libnbdUri,
  PSK_FILE,
  qemuArguments,
} from '../support/tls-clients.js';

const MiB = 2 ** 20;
const CLIENTS = ['nbdinfo', 'nbdcopy', 'nbdsh', 'qemu-io', 'qemu-img', 'nbdkit', 'fio'];
const missing = CLIENTS.filter((program) => !hasProgram(program));
/** For titles: says why tests were skipped. */
const note = missing.length === 0 ? '' : ` (not installed: ${missing.join(', ')})`;

let directory: string;
const at = (...names: string[]) => join(directory, ...names);

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'sealbd-tls-e2e-'));
  for (const pki of ['pki', 'other']) {
    const made = await sealbd(['tls', 'init', at(pki), '--client', 'alice']);
    if (made.code !== 0) throw new Error(made.stderr);
  }
  mkdirSync(at('psk'));
  writeFileSync(at('psk', PSK_FILE), `alice:${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
});

afterAll(() => rmSync(directory, { recursive: true, force: true }));

const secretsOf = {
  certificates: (): ClientSecrets => ({ kind: 'certificates', directory: at('pki') }),
  psk: (): ClientSecrets => ({ kind: 'psk', directory: at('psk'), user: 'alice' }),
};

async function startDaemon(kind: keyof typeof secretsOf, ...args: string[]): Promise<DaemonProcess> {
  const source = kind === 'psk' ? ['--tls-psk-file', at('psk', PSK_FILE)] : ['--tls-certificates', at('pki')];
  const config = at(`${kind}.toml`);
  writeFileSync(config, '[log]\nlevel = "debug"\n');
  const data = mkdtempSync(at('data-'));
  return DaemonProcess.startShared(data, [
    '--config',
    config,
    '--default-volume',
    'v:64M',
    ...source,
    ...args,
  ]);
}

function nbdkitSecrets(secrets: ClientSecrets): string[] {
  if (secrets.kind === 'certificates') return [`tls-certificates=${secrets.directory}`];
  return [`tls-psk=${join(secrets.directory, PSK_FILE)}`, `tls-username=${secrets.user}`];
}

/** In a script, libnbd reads files that a URI names only where it is told that it may. */
function connecting(uri: string): string[] {
  return ['-c', 'h.set_uri_allow_local_file(True)', '-c', `h.connect_uri("${uri}")`];
}

/** Every way that TLS came up since the daemon started. */
function handshakes(daemon: DaemonProcess): Set<string> {
  const lines = daemon.log().filter(({ msg }) => msg === 'TLS is up');
  return new Set(lines.map(({ protocol, identity }) => `${protocol} ${identity}`));
}

describe.skipIf(missing.length > 0).each(['certificates', 'psk'] as const)(
  `real clients with %s${note}`,
  (kind) => {
    let daemon: DaemonProcess;
    const address = () => daemon.ready.listen[0];
    const identity = kind === 'psk' ? 'psk:alice' : 'CN=alice';

    beforeAll(async () => {
      daemon = await startDaemon(kind);
    });
    afterAll(async () => {
      expect((await daemon.stop()).code).toBe(0);
    });

    it.each(['TLSv1.2', 'TLSv1.3'] as const)(
      'nbdinfo, nbdcopy, nbdsh, nbdkit, fio, qemu-io and qemu-img, %s',
      async (version) => {
        const seen = handshakes(daemon);
        const secrets = secretsOf[kind]();
        const uri = libnbdUri(address(), 'v', secrets);
        const env = gnutlsVersion(directory, version);
        const info = JSON.parse(await mustRun('nbdinfo', ['--json', uri], env));
        expect(info).toMatchObject({ TLS: true, exports: [{ 'export-name': 'v', 'export-size': 64 * MiB }] });
        expect(await mustRun('nbdinfo', ['--list', libnbdUri(address(), '', secrets)], env)).toContain(
          'export="v"',
        );

        const image = at('image');
        writeFileSync(image, randomBytes(32 * MiB));
        await mustRun('nbdcopy', ['--connections=4', '--flush', image, uri], env);
        await mustRun('nbdcopy', ['--connections=4', uri, at('back')], env);
        truncateSync(at('back'), 32 * MiB);
        expect(readFileSync(at('back')).equals(readFileSync(image))).toBe(true);

        const script =
          'h.pwrite(b"x" * 5000, 3, nbd.CMD_FLAG_FUA); assert h.pread(5000, 3) == b"x" * 5000; h.flush()';
        await mustRun('nbdsh', [...connecting(uri), '-c', script], env);
        // fio lets no URI name a file, so nbdkit speaks TLS for it.
        const fio =
          '--name=v --ioengine=nbd --rw=randwrite --bs=4k --size=8M --iodepth=16 --verify=crc32c --verify_fatal=1';
        const run = `fio ${fio} --verify_state_save=0 --uri="nbd+unix:///v?socket=$unixsocket"`;
        const [host, port] = address().split(':');
        const remoteOf = [
          `hostname=${host}`,
          `port=${port}`,
          'export=v',
          'tls=require',
          ...nbdkitSecrets(secrets),
        ];
        await mustRun('nbdkit', ['-U', '-', 'nbd', ...remoteOf, '--run', run], env);

        const { objects, image: remote } = qemuArguments(address(), 'v', secrets);
        const commands = [
          'write -f -P 0x56 64k 4k',
          'write -z 128k 64k',
          'discard 256k 64k',
          'flush',
          'read -P 0x56 64k 4k',
        ];
        const opened = [...objects, '--image-opts', remote];
        const asked = commands.flatMap((command) => ['-c', command]);
        const output = await mustRun('qemu-io', [...opened, ...asked], env);
        expect(output).not.toMatch(/Pattern verification failed|error/i);
        const measured = await mustRun('qemu-img', ['info', ...opened, '--output=json'], env);
        expect(JSON.parse(measured)).toMatchObject({ 'virtual-size': 64 * MiB });
        await mustRun('qemu-img', ['convert', ...opened, '-O', 'raw', at('converted')], env);
        expect([...handshakes(daemon)].filter((one) => !seen.has(one))).toEqual([`${version} ${identity}`]);
      },
    );
  },
);

describe.skipIf(missing.length > 0)(`refused${note}`, () => {
  const refusal = async (uri: string, env: Record<string, string> = {}) => {
    const { code, stderr } = await runProgram('nbdinfo', ['--size', uri], { env });
    expect(code).not.toBe(0);
    return stderr;
  };

  it('with certificates: plaintext, no certificate, another CA, an expired one, a revoked one', async () => {
    const daemon = await startDaemon('certificates');
    try {
      const [address] = daemon.ready.listen;
      const uriOf = (name: string) => libnbdUri(address, 'v', { kind: 'certificates', directory: at(name) });
      const client = (name: string, from: string, cert = at(from, 'client-cert.pem')) => {
        mkdirSync(at(name));
        copyFileSync(at('pki', 'ca-cert.pem'), at(name, 'ca-cert.pem'));
        if (cert === '') return;
        copyFileSync(cert, at(name, 'client-cert.pem'));
        copyFileSync(at(from, 'client-key.pem'), at(name, 'client-key.pem'));
      };
      expect(await refusal(`nbd://${address}/v`)).toMatch(/TLS/i);
      client('nobody', 'pki', '');
      await refusal(uriOf('nobody'));
      client('stranger', 'other');
      await refusal(uriOf('stranger'));
      await expectExpiredRefused(refusal, uriOf);
      // The server of another CA is not trusted by the client.
      expect(await refusal(uriOf('other'))).toMatch(/certificate|trusted|issuer/i);
      // A client may know that it was refused before the daemon's log says so.
      const reasons = () =>
        daemon
          .log()
          .filter(({ msg }) => msg === 'a TLS handshake failed')
          .map(({ reason }) => String(reason))
          .join('\n');
      await expect.poll(reasons, { timeout: 5000 }).toMatch(/UNABLE_TO_(VERIFY|GET)/);
      await expect.poll(reasons, { timeout: 5000 }).toMatch(/CERT_HAS_EXPIRED/);

      // Revoked while the daemon runs: a list of revocations and SIGHUP.
      expect((await runProgram('nbdinfo', ['--size', uriOf('pki')])).code).toBe(0);
      await writeRevocations();
      process.kill(daemon.pid, 'SIGHUP');
      await expect.poll(() => daemon.logText, { timeout: 5000 }).toContain('were read anew');
      await refusal(uriOf('pki'));
      await expect.poll(() => daemon.logText, { timeout: 5000 }).toContain('CERT_REVOKED');
      rmSync(at('pki', 'ca-crl.pem'));
    } finally {
      await daemon.signal('SIGKILL');
    }
  });

  it('with pre-shared keys: plaintext, a wrong key, an unknown name', async () => {
    const daemon = await startDaemon('psk');
    try {
      const [address] = daemon.ready.listen;
      expect(await refusal(`nbd://${address}/v`)).toMatch(/TLS/i);
      mkdirSync(at('wrong'));
      writeFileSync(at('wrong', PSK_FILE), `alice:${'00'.repeat(32)}\nmallory:${'11'.repeat(32)}\n`);
      for (const user of ['alice', 'mallory']) {
        await refusal(libnbdUri(address, 'v', { kind: 'psk', directory: at('wrong'), user }));
      }
      const client = await RawClient.connect(address);
      await client.greet();
      expect((await client.option(Option.LIST))[0].reply).toBe(Rep.ERR_TLS_REQD);
      await client.close();
    } finally {
      await daemon.signal('SIGKILL');
    }
  });
});

async function expectExpiredRefused(
  refusal: (uri: string) => Promise<string>,
  uriOf: (name: string) => string,
): Promise<void> {
  const authority = await Authority.load({
    cert: readFileSync(at('pki', 'ca-cert.pem'), 'utf8'),
    key: readFileSync(at('pki', 'ca-key.pem'), 'utf8'),
  });
  const validity = { nowMs: Date.now() - 2 * 86_400_000, days: 1 };
  const { cert, key } = await authority.issue({ kind: 'client', name: 'alice' }, validity);
  mkdirSync(at('expired'));
  copyFileSync(at('pki', 'ca-cert.pem'), at('expired', 'ca-cert.pem'));
  writeFileSync(at('expired', 'client-cert.pem'), cert);
  writeFileSync(at('expired', 'client-key.pem'), key);
  await refusal(uriOf('expired'));
}

/** By openssl: the CA's list names the client's certificate. */
async function writeRevocations(): Promise<void> {
  const ca = at('openssl-ca');
  mkdirSync(ca);
  writeFileSync(join(ca, 'index.txt'), '');
  writeFileSync(
    join(ca, 'ca.cnf'),
    `[ca]\ndefault_ca = own\n[own]\ndatabase = ${ca}/index.txt\ndefault_md = sha256\ndefault_crl_days = 2\n`,
  );
  const own = [
    '-config',
    join(ca, 'ca.cnf'),
    '-keyfile',
    at('pki', 'ca-key.pem'),
    '-cert',
    at('pki', 'ca-cert.pem'),
  ];
  execFileSync('openssl', ['ca', ...own, '-revoke', at('pki', 'client-cert.pem')], { stdio: 'pipe' });
  execFileSync('openssl', ['ca', ...own, '-gencrl', '-out', at('pki', 'ca-crl.pem')], { stdio: 'pipe' });
}

describe.skipIf(missing.length > 0)(`access rules${note}`, () => {
  it('by certificate: one client reads and writes, another one reads, each finds its own', async () => {
    for (const name of ['writer', 'reader', 'stranger-to-all']) {
      await sealbd(['tls', 'client', at('pki'), name, at(`as-${name}`)]);
    }
    const config = at('access.toml');
    const rule = (cn: string, volumes: string, mode: string) =>
      `[[access]]\nsubject = { CN = "${cn}" }\nvolumes = ${volumes}\nmode = "${mode}"\n`;
    const rules =
      rule('writer', '["v", "w"]', 'read-write') +
      rule('reader', '"v"', 'read-only') +
      rule('admin', '"*"', 'read-write');
    writeFileSync(config, `[tls]\ncertificates = "pki"\n${rules}`);
    const daemon = await DaemonProcess.startShared(at('access'), [
      '--config',
      config,
      '--default-volume',
      'v:64M',
    ]);
    try {
      await daemon.ok('volume', 'create', 'w', '--size', '64M');
      const [address] = daemon.ready.listen;
      const uriOf = (name: string, volume: string) =>
        libnbdUri(address, volume, { kind: 'certificates', directory: at(`as-${name}`) });
      const list = async (name: string) => {
        const { stdout } = await runProgram('nbdinfo', ['--list', '--json', uriOf(name, '')]);
        return [...stdout.matchAll(/"export-name": "([^"]*)"/g)].map(([, found]) => found);
      };
      expect(await list('writer')).toEqual(['v', 'w']);
      expect(await list('reader')).toEqual(['v']);
      expect(await list('stranger-to-all')).toEqual([]);
      const python = { PATH: `/usr/bin:/bin:${process.env.PATH ?? ''}` };
      const write = 'h.pwrite(b"x" * 512, 0)';
      const shell = (name: string, volume: string, script: string) =>
        runProgram('nbdsh', [...connecting(uriOf(name, volume)), '-c', script], { env: python });
      expect((await shell('writer', 'v', write)).code).toBe(0);
      expect(
        (await shell('reader', 'v', 'assert h.pread(512, 0) == b"x" * 512 and h.is_read_only()')).code,
      ).toBe(0);
      expect((await shell('reader', 'v', `h.set_strict_mode(0); ${write}`)).stderr).toContain(
        'Operation not permitted',
      );
      const refusal = async (volume: string) =>
        (await shell('reader', volume, '')).stderr.replace(`'${volume}'`, 'NAME');
      expect(await refusal('w')).toContain('server has no export named NAME');
      expect(await refusal('w')).toBe(await refusal('x'));
      expect(daemon.logText).toContain('"identity":"CN=reader","export":"w"');
    } finally {
      await daemon.signal('SIGKILL');
    }
  });
});

describe('the daemon', () => {
  it('shows in its status who a client proved to be, and tells how to attach', async () => {
    const daemon = await startDaemon('psk');
    try {
      const uri = libnbdUri(daemon.ready.listen[0], 'v', secretsOf.psk());
      const holding = runProgram('nbdsh', [...connecting(uri), '-c', 'import time; time.sleep(3)'], {
        env: { PATH: `/usr/bin:/bin:${process.env.PATH ?? ''}` },
      });
      const clients = async () => (await daemon.json<DaemonStatus>(['status'])).clients;
      await expect.poll(clients, { timeout: 10_000 }).toMatchObject([{ volume: 'v', identity: 'psk:alice' }]);
      expect(await daemon.json<DaemonStatus>(['status'])).toMatchObject({ tls: 'required' });
      expect((await holding).code).toBe(0);
      expect((await daemon.run(['bench', 'v'])).stderr).toContain('the daemon requires TLS');
      expect(daemon.logText).toContain(`nbdinfo 'nbds://${daemon.ready.listen[0]}/v?tls-psk-file=FILE'`);
    } finally {
      await daemon.signal('SIGKILL');
    }
  });

  it('does not start with files that it cannot use', async () => {
    const data = at('no-start');
    const { code, stderr } = await sealbd([
      'serve',
      '--data',
      data,
      '--listen',
      '127.0.0.1:0',
      '--tls-certificates',
      data,
    ]);
    expect([code, stderr]).toEqual([2, expect.stringMatching(/cannot read .*\.pem/)]);
  });
});
