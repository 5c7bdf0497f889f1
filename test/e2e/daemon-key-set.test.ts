/** Volumes that move from key to key while clients write, in real daemons. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { KeyReport, KeyStatus, KeyUsage, VolumeInfo } from '../../src/admin/schemas.js';
import { Command } from '../../src/nbd/wire/constants.js';
import { DaemonProcess, type RunOptions } from '../support/daemon-process.js';
import { History } from '../support/history.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { KmsFake } from '../support/kms-fake/kms-fake.js';
import { content, Traffic } from '../support/nbd-traffic.js';
import { PipelinedClient } from '../support/pipelined-client.js';
import { testSeed } from '../support/seeded-random.js';
import { BLOCK, seededRandom } from '../support/volume-harness.js';

const BLOCKS = 1024;
const DEADLINE_MS = 30_000;

const keyStatus = async (daemon: DaemonProcess, name = 'v') =>
  (await daemon.json<KeyStatus[]>(['key', 'status', name]))[0];
const usage = (daemon: DaemonProcess, ...uri: string[]) => daemon.json<KeyUsage[]>(['key', 'usage', ...uri]);
const stateOf = async (daemon: DaemonProcess) =>
  (await daemon.json<VolumeInfo>(['volume', 'info', 'v'])).state;

/** A daemon that asks for keys often. */
async function startDaemon(options: RunOptions = {}, data = join(temporaryDirectory(), 'data')) {
  const config = join(temporaryDirectory(), 'sealbd.toml');
  writeFileSync(config, '[watchdog]\npoll_interval = "500ms"\nconfirm_after = "200ms"\n');
  return DaemonProcess.start(data, ['--config', config], options);
}

async function createVolume(daemon: DaemonProcess, name: string, key: string): Promise<void> {
  await daemon.ok('volume', 'create', name, '--size', String(BLOCKS * BLOCK), '--key', key);
}

/** Clients that write to the volume v, and know what it must read as. */
class Load {
  readonly history = new History(BLOCKS);
  readonly #clients: PipelinedClient[];
  readonly #traffic: Traffic;
  readonly #done: Promise<void>;
  #failure: unknown;

  private constructor(clients: PipelinedClient[], random: () => number) {
    this.#clients = clients;
    this.#traffic = new Traffic({ clients, history: this.history, random, depth: 4, lastVersion: 0 });
    this.#done = this.#traffic.run().catch((error: unknown) => {
      this.#failure = error;
    });
  }

  static async start(daemon: DaemonProcess, seed: number): Promise<Load> {
    const address = daemon.ready.listen[0];
    const clients = [
      await PipelinedClient.connect(address, 'v'),
      await PipelinedClient.connect(address, 'v'),
    ];
    return new Load(clients, seededRandom(seed));
  }

  /** Waits until so many more requests were answered; rejects where one was answered wrong. */
  async goOn(requests = 200): Promise<void> {
    const wanted = this.#traffic.requests + requests;
    await until(`${requests} more requests`, () => {
      if (this.#failure !== undefined) throw this.#failure;
      return this.#traffic.requests >= wanted;
    });
  }

  /** Ends it with a flush. */
  async end(): Promise<void> {
    this.#traffic.stop();
    await this.#done;
    if (this.#failure !== undefined) throw this.#failure;
    const flushed = this.history.flushing();
    expect((await this.#clients[0].call(Command.FLUSH, 0, 0)).error).toBe(0);
    flushed();
    for (const client of this.#clients) await client.close();
  }

  /** Every block reads as what was written last. */
  async verify(daemon: DaemonProcess): Promise<void> {
    const client = await PipelinedClient.connect(daemon.ready.listen[0], 'v');
    const { error, data } = await client.call(Command.READ, 0, BLOCKS * BLOCK, {}, true);
    expect(error).toBe(0);
    for (let lba = 0; lba < BLOCKS; lba += 1) {
      const found = data.subarray(lba * BLOCK, (lba + 1) * BLOCK);
      const wanted = content(lba, this.history.current(lba));
      expect([lba, Buffer.compare(found, wanted)]).toEqual([lba, 0]);
    }
    await client.close();
  }
}

async function until(what: string, holds: () => Promise<boolean> | boolean): Promise<void> {
  const deadline = Date.now() + DEADLINE_MS;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`not in ${DEADLINE_MS} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Resolves when the watchdog has asked for the key of v again, twice from now, and found it valid. */
async function checkedAgain(daemon: DaemonProcess): Promise<void> {
  const seen = new Set<string | null>();
  await until('two more checks', async () => {
    const { state, lastCheck } = await keyStatus(daemon);
    expect(state).toBe('valid');
    seen.add(lastCheck);
    return seen.size > 2;
  });
}

function replaceKeyring(daemon: DaemonProcess, text: string): void {
  const path = join(daemon.data, 'keyring.json');
  writeFileSync(`${path}.tmp`, text, { mode: 0o600 });
  renameSync(`${path}.tmp`, path);
}

function deleteLocalKey(daemon: DaemonProcess, name: string): void {
  const keyring = JSON.parse(readFileSync(join(daemon.data, 'keyring.json'), 'utf8')) as {
    keys: { name: string }[];
  };
  keyring.keys = keyring.keys.filter((key) => key.name !== name);
  replaceKeyring(daemon, JSON.stringify(keyring));
}

function auditOf(daemon: DaemonProcess): Record<string, unknown>[] {
  const lines = readFileSync(join(daemon.data, 'audit.jsonl'), 'utf8').split('\n').slice(0, -1);
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
}

async function startKms(): Promise<KmsFake> {
  const kms = await KmsFake.start();
  onTestFinished(() => kms.stop());
  return kms;
}

describe('key set and key rewrap', () => {
  it('move a volume from local key to local key while it is written to; the old key is not missed', async () => {
    const daemon = await startDaemon();
    await createVolume(daemon, 'v', 'local:a');
    await createVolume(daemon, 'other', 'local:b');
    const load = await Load.start(daemon, testSeed('key set'));
    await load.goOn();
    expect(await daemon.ok('key', 'set', 'v', 'local:b')).toMatch(
      /^v: 1 DEK moved from local:a \(local:a#.*\) to local:b \(local:b#.*\)\n$/,
    );
    await load.goOn();
    expect(await daemon.ok('key', 'set', 'v', 'local:b')).toMatch(
      /^v: was under local:b .* already; 1 DEK rewrapped/,
    );
    expect(await daemon.ok('key', 'rewrap', 'v')).toMatch(/^v: DEK 1 rewrapped under local:b/);
    expect(await usage(daemon, 'local:a')).toMatchObject([{ volumes: [], safeToDelete: true }]);
    deleteLocalKey(daemon, 'a');
    await checkedAgain(daemon);
    await load.goOn();
    await load.end();
    expect(await keyStatus(daemon)).toMatchObject({
      ...{ keyUri: 'local:b', state: 'valid', deks: [{ id: 1, state: 'active', exposed: true }] },
    });
    const changes = auditOf(daemon).filter(({ event, by }) => {
      return (by as { kind: string }).kind === 'cli' && ['key-set', 'key-rewrap'].includes(event as string);
    });
    expect(changes.map(({ event, volume, from, to }) => [event, volume, from, to])).toEqual([
      ['key-set', 'v', 'local:a', 'local:b'],
      ['key-rewrap', 'v', 'local:b', 'local:b'],
      ['key-rewrap', 'v', 'local:b', 'local:b'],
    ]);
    await daemon.stop();
    const again = await startDaemon({}, daemon.data);
    await load.verify(again);
    expect((await again.run(['volume', 'verify', 'v'])).code).toBe(0);
  });

  it('say by their exit code why they changed nothing', async () => {
    const daemon = await startDaemon();
    await createVolume(daemon, 'v', 'local:a');
    await createVolume(daemon, 'other', 'local:b');
    const codeOf = async (...args: string[]) => (await daemon.run(['key', ...args])).code;
    expect(await codeOf('set', 'v', 'local:missing')).toBe(4);
    expect(await codeOf('set', 'v', 'nonsense')).toBe(2);
    expect(await codeOf('set', 'nobody', 'local:b')).toBe(1);
    expect(await codeOf('check', 'local:a')).toBe(0);
    expect(await codeOf('check', 'local:missing')).toBe(4);
    expect(await codeOf('check', 'nonsense')).toBe(2);
    const whole = readFileSync(join(daemon.data, 'keyring.json'), 'utf8');
    replaceKeyring(daemon, whole.slice(0, -10));
    expect(await codeOf('rewrap', 'v')).toBe(5);
    replaceKeyring(daemon, whole);
    deleteLocalKey(daemon, 'a');
    // Its key was taken away: nobody moves it to a key that is there.
    const moved = await daemon.run(['key', 'set', 'v', 'local:b']);
    // The poller may have stopped it by now: then it says what the key lacks.
    expect(moved.code).toBe(4);
    expect(moved.stderr).toMatch(/must be usable|has no key "a"/);
    await until('the volume stops', async () => (await stateOf(daemon)) === 'key-invalid');
    expect(await codeOf('set', 'v', 'local:b')).toBe(4);
    replaceKeyring(daemon, whole);
    expect(await codeOf('set', 'v', 'local:b')).toBe(0);
    await daemon.ok('volume', 'start', 'v');
  });

  it('move a volume from local: to AWS KMS and from key to key there, written to all the time', async () => {
    const kms = await startKms();
    const [first, second] = [kms.createKey({ alias: 'alias/first' }), kms.createKey()];
    const [firstUri, secondUri] = ['awskms:///alias/first', `awskms:///${second.arn}`];
    const env = kms.environment();
    const daemon = await startDaemon({ env });
    await createVolume(daemon, 'v', 'local:a');
    const load = await Load.start(daemon, testSeed('key set aws'));
    await load.goOn();

    const out = await daemon.run(['key', 'set', 'v', firstUri]);
    expect([out.code, out.stdout]).toEqual([0, expect.stringContaining(`${firstUri} (${first.arn})`)]);
    expect(out.stderr).toContain('"sealbd key rotate v --reencrypt" ends that');
    expect(await keyStatus(daemon)).toMatchObject({
      ...{ keyUri: firstUri, resolvedKeyId: first.arn, deks: [{ exposed: true }] },
    });
    deleteLocalKey(daemon, 'a');
    await load.goOn();

    await daemon.ok('key', 'set', 'v', secondUri);
    const moved = kms.requests.find(({ operation }) => operation === 'ReEncrypt');
    expect(moved).toMatchObject({ key: first.arn, destinationKey: second.arn, result: 'ok' });
    expect(await usage(daemon, firstUri)).toMatchObject([
      { resolvedKeyId: first.arn, volumes: [], safeToDelete: true },
    ]);
    expect(await usage(daemon)).toMatchObject([
      { keyUri: secondUri, resolvedKeyId: second.arn, volumes: [{ volume: 'v' }], safeToDelete: false },
    ]);
    kms.deleteKey(first);
    await checkedAgain(daemon);
    await load.goOn();
    await load.end();
    expect(new Set(kms.requests.map(({ operation }) => operation))).toEqual(
      new Set(['Encrypt', 'Decrypt', 'ReEncrypt', 'DescribeKey']),
    );
    await daemon.stop();
    const again = await startDaemon({ env }, daemon.data);
    await load.verify(again);
  });

  it('follow a rotated AWS key, but not an alias that names another key by now', async () => {
    const kms = await startKms();
    const [first, second] = [kms.createKey({ alias: 'alias/main' }), kms.createKey()];
    const daemon = await startDaemon({ env: kms.environment() });
    await createVolume(daemon, 'v', 'awskms:///alias/main');
    const wrappedBy = async () => (await keyStatus(daemon)).deks[0].wrappedBy;
    const before = await wrappedBy();
    kms.rotate(first);
    await daemon.ok('key', 'rewrap', 'v');
    const after = await wrappedBy();
    expect(before.startsWith(first.arn) && after.startsWith(first.arn)).toBe(true);
    expect(after).not.toBe(before);

    kms.setAlias('alias/main', second);
    const refused = await daemon.run(['key', 'rewrap', 'v']);
    expect([refused.code, refused.stderr]).toEqual([
      1,
      expect.stringContaining(`now names ${second.arn}, and the DEKs are wrapped by ${first.arn}`),
    ]);
    expect(await wrappedBy()).toBe(after);
    const [row] = await usage(daemon, 'awskms:///alias/main');
    expect(row).toMatchObject({ resolvedKeyId: first.arn, safeToDelete: false });
    await daemon.ok('key', 'set', 'v', 'awskms:///alias/main');
    expect(await keyStatus(daemon)).toMatchObject({ resolvedKeyId: second.arn });
  });

  it('do not move a volume whose AWS key is disabled', async () => {
    const kms = await startKms();
    const [first, second] = [kms.createKey(), kms.createKey()];
    const daemon = await startDaemon({ env: kms.environment() });
    await createVolume(daemon, 'v', `awskms:///${first.arn}`);
    kms.setState(first, 'Disabled');
    const moved = await daemon.run(['key', 'set', 'v', `awskms:///${second.arn}`]);
    expect([moved.code, moved.stderr]).toEqual([4, expect.stringContaining('DisabledException')]);
    expect(await daemon.json<VolumeInfo>(['volume', 'info', 'v'])).toMatchObject({
      keyUri: `awskms:///${first.arn}`,
    });
    expect(kms.requests.filter(({ key }) => key === second.arn)).toEqual([]);
  });
});

describe('key check', () => {
  it('names the permission that is missing and how to give it, and exits 4', async () => {
    const kms = await startKms();
    const key = kms.createKey({ alias: 'alias/candidate' });
    const daemon = await startDaemon({ env: kms.environment() });
    const uri = 'awskms:///alias/candidate';
    expect(await daemon.json<KeyReport>(['key', 'check', uri])).toMatchObject({
      ...{ keyUri: uri, resolvedKeyId: key.arn, ok: true },
    });
    kms.deny(['kms:Decrypt'], { key });
    const report = await daemon.json<KeyReport>(['key', 'check', uri], 4);
    expect(report.ok).toBe(false);
    const denied = report.steps.filter((step) => step.outcome === 'denied');
    expect(denied.map((step) => step.permission)).toEqual(['kms:Decrypt']);
    expect(denied[0].fix).toContain('kms:Decrypt');
    const shown = await daemon.run(['key', 'check', uri]);
    expect([shown.code, shown.stdout]).toEqual([4, expect.stringMatching(/kms:Decrypt +denied/)]);
    expect(shown.stdout).toContain(`fix: ${denied[0].fix}`);
    expect(shown.stdout).toContain('can NOT be used');
  });
});

describe('key usage', () => {
  it('prints a table with the volumes, and what is true whatever it says', async () => {
    const daemon = await startDaemon();
    expect(await daemon.ok('key', 'usage')).toBe('no volume or backup depends on a key\n');
    await createVolume(daemon, 'v', 'local:a');
    await daemon.ok('volume', 'stop', 'v');
    const table = await daemon.ok('key', 'usage');
    expect(table).toMatch(/local:a +local:a#\S+ +v +1 active exposed +1 +- +- +no/);
    expect(table).toContain('note: backups, header backups and copies');
    expect(await daemon.ok('key', 'usage', 'local:a')).toBe(table);
  });
});
