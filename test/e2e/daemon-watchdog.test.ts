import { chmodSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { DaemonStatus, KeyStatus, VolumeInfo } from '../../src/admin/schemas.js';
import { adminSocket, DaemonProcess, sealbd } from '../support/daemon-process.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { qemuIo } from '../support/nbd-io.js';
import { RawClient } from '../support/nbd-raw-client.js';

const ESHUTDOWN = 108;
const INTERVAL_MS = 1000;
const CONFIRM_MS = 500;
/** One interval with its jitter, the confirmation, and what this machine takes to do it. */
const STOPPED_WITHIN_MS = 1.1 * INTERVAL_MS + CONFIRM_MS + 4000;

const status = async (daemon: DaemonProcess, name: string) =>
  (await daemon.json<KeyStatus[]>(['key', 'status', name]))[0];
const info = (daemon: DaemonProcess, name: string) => daemon.json<VolumeInfo>(['volume', 'info', name]);

function configFile(text: string): string {
  const path = join(temporaryDirectory(), 'sealbd.toml');
  writeFileSync(path, text);
  return path;
}

/** A daemon that polls every second, with volume v under local:v and volume w under local:w. */
async function twoVolumes(watchdog = ''): Promise<DaemonProcess> {
  const config = configFile(`[watchdog]\nconfirm_after = "${CONFIRM_MS}ms"\n${watchdog}`);
  const data = join(temporaryDirectory(), 'data');
  const daemon = await DaemonProcess.start(data, ['--config', config, '--poll-interval', `${INTERVAL_MS}ms`]);
  for (const name of ['v', 'w'])
    await daemon.ok('volume', 'create', name, '--size', '64M', '--key', `local:${name}`);
  return daemon;
}

/** Takes one key out of keyring.json, as its owner would; returns what puts the file back. */
function takeKey(daemon: DaemonProcess, name: string): () => void {
  const path = join(daemon.data, 'keyring.json');
  const before = readFileSync(path, 'utf8');
  const replace = (text: string): void => {
    writeFileSync(`${path}.new`, text, { mode: 0o600 });
    renameSync(`${path}.new`, path);
  };
  const keyring = JSON.parse(before) as { keys: { name: string }[] };
  keyring.keys = keyring.keys.filter((key) => key.name !== name);
  replace(JSON.stringify(keyring));
  return () => replace(before);
}

async function until(what: string, holds: () => Promise<boolean> | boolean, ms: number): Promise<void> {
  const deadline = Date.now() + ms;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`not in ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Writes one block after another until it is refused, cut off or asked to end, and tells how many it wrote. */
async function writeOn(client: RawClient, end?: AbortSignal): Promise<{ how: string; written: number }> {
  for (let written = 0; ; written += 1) {
    if (end?.aborted) return { how: 'asked to', written };
    try {
      const payload = Buffer.alloc(4096, (written % 250) + 1);
      const error = await client.writeAt((written % 4096) * 4096, payload);
      if (error !== 0) return { how: error === ESHUTDOWN ? 'ESHUTDOWN' : `errno ${error}`, written };
    } catch {
      return { how: 'closed', written };
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function metrics(daemon: DaemonProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    const where = { socketPath: adminSocket(daemon.data), path: '/metrics', agent: false };
    request(where, (incoming) => {
      let text = '';
      incoming.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      incoming.on('end', () => resolve(text));
    })
      .on('error', reject)
      .end();
  });
}

describe('when the key is taken out of the keyring', () => {
  it('the volume stops within an interval and a confirmation, the other one goes on, and nothing is lost', async () => {
    const daemon = await twoVolumes();
    const [address] = daemon.ready.listen;
    const [client, other] = [await RawClient.serving(address, 'v'), await RawClient.serving(address, 'w')];
    const enough = new AbortController();
    const [ending, going] = [writeOn(client), writeOn(other, enough.signal)];
    const putBack = takeKey(daemon, 'v');
    const taken = Date.now();
    const { how, written } = await ending;
    expect(Date.now() - taken).toBeLessThan(STOPPED_WITHIN_MS);
    expect(['ESHUTDOWN', 'closed']).toContain(how);
    await client.closed;

    await until('key-invalid', async () => (await info(daemon, 'v')).state === 'key-invalid', 5000);
    const reason = expect.stringContaining('has no key "v"');
    expect(await info(daemon, 'v')).toMatchObject({ state: 'key-invalid', reason });
    expect(await status(daemon, 'v')).toMatchObject({ state: 'invalid', reason, graceEndsAt: null });
    const all = await daemon.json<DaemonStatus>(['status']);
    expect(all.volumes.find((volume) => volume.name === 'v')).toMatchObject({ reason });
    expect(await daemon.ok('status')).toContain('has no key "v"');
    expect(daemon.log().some((line) => line.volume === 'v' && line.level === 50)).toBe(true);
    const text = await metrics(daemon);
    expect(text).toContain('sealbd_key_state{volume="v",state="invalid"} 1');
    expect(text).toContain('sealbd_key_state{volume="w",state="valid"} 1');
    expect(text).toMatch(/sealbd_key_problem\{volume="v",reason="[^"]*has no key/);
    expect((await qemuIo(daemon.uri('v'), 'read 0 4k')).code).not.toBe(0);
    expect((await daemon.run(['volume', 'start', 'v'])).code).toBe(4);

    enough.abort();
    expect(await going).toMatchObject({ how: 'asked to' });
    expect((await going).written).toBeGreaterThan(written);
    await other.close();

    putBack();
    await until('valid again', async () => (await status(daemon, 'v')).state === 'valid', 5000);
    expect((await info(daemon, 'v')).state).toBe('key-invalid');
    await daemon.ok('volume', 'start', 'v');
    const back = await RawClient.serving(address, 'v');
    for (let block = 0; block < Math.min(written, 4096); block += 1) {
      const { data } = await back.readAt(block * 4096, 4096);
      // The last round that came to this block wrote it, unless it was the write that was cut off.
      const last = written - 1 - ((written - 1 - block) % 4096);
      expect([(last % 250) + 1, ((last + 4096) % 250) + 1]).toContain(data[0]);
      expect(data.every((byte) => byte === data[0])).toBe(true);
    }
    await back.close();
    await daemon.ok('volume', 'verify', 'v');
  });

  it('the next good check opens the volume with resume = "auto", and the daemon keeps track of all of it', async () => {
    const daemon = await twoVolumes('resume = "auto"\n');
    expect((await qemuIo(daemon.uri('v'), 'write -P 0x77 0 1M')).code).toBe(0);
    const putBack = takeKey(daemon, 'v');
    const stateIs = async (state: string) => (await info(daemon, 'v')).state === state;
    await until('key-invalid', () => stateIs('key-invalid'), STOPPED_WITHIN_MS);
    putBack();
    await until('serving', () => stateIs('serving'), STOPPED_WITHIN_MS);
    expect((await qemuIo(daemon.uri('v'), 'read -P 0x77 0 1M')).output).not.toContain('failed');
    await daemon.ok('volume', 'stop', 'v');
    await daemon.stop();
    const audit = readFileSync(join(daemon.data, 'audit.jsonl'), 'utf8');
    const lines = audit
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    const ofV = lines.filter((line) => line.volume === 'v').map((line) => `${line.event} ${line.by.kind}`);
    expect(ofV).toEqual([
      ...['create', 'wrap', 'key-state', 'unwrap', 'start'].map((event) => `${event} cli`),
      ...['key-state', 'stop', 'key-state', 'unwrap', 'start'].map((event) => `${event} watchdog`),
      'stop cli',
    ]);
    const { keys } = JSON.parse(readFileSync(join(daemon.data, 'keyring.json'), 'utf8'));
    for (const { key } of keys) expect(audit).not.toContain(key);
  });

  it('a restart opens the volume too', async () => {
    const daemon = await twoVolumes();
    expect((await qemuIo(daemon.uri('v'), 'write -P 0x31 0 1M')).code).toBe(0);
    const putBack = takeKey(daemon, 'v');
    await until('stopped', async () => (await info(daemon, 'v')).state === 'key-invalid', STOPPED_WITHIN_MS);
    expect((await daemon.stop()).code).toBe(0);
    putBack();
    const again = await DaemonProcess.start(daemon.data);
    expect((await qemuIo(again.uri('v'), 'read -P 0x31 0 1M')).output).not.toContain('failed');
  });
});

describe('a check on demand', () => {
  it('stops a volume whose key was taken away as one of the poller does: at once confirmed by a second', async () => {
    const data = join(temporaryDirectory(), 'data');
    const config = configFile('[watchdog]\nconfirm_after = "10ms"\n');
    const daemon = await DaemonProcess.start(data, ['--config', config, '--poll-interval', '24h']);
    await daemon.ok('volume', 'create', 'v', '--size', '64M', '--key', 'local:v');
    const before = Date.parse((await status(daemon, 'v')).lastCheck!);
    const [checked] = await daemon.json<KeyStatus[]>(['key', 'status', 'v', '--check']);
    expect(checked.state).toBe('valid');
    expect(Date.parse(checked.lastCheck!)).toBeGreaterThan(before);
    takeKey(daemon, 'v');
    await daemon.run(['key', 'status', 'v', '--check']);
    await until('key-invalid', async () => (await info(daemon, 'v')).state === 'key-invalid', 30_000);
    expect((await daemon.run(['key', 'status', '--check'])).code).toBe(2);
  });
});

describe('when the keyring is damaged', () => {
  it('the volume goes on with the key in memory, and key status says so and exits 5', async () => {
    const daemon = await twoVolumes();
    const path = join(daemon.data, 'keyring.json');
    const before = readFileSync(path);
    writeFileSync(path, before.subarray(0, -20));
    const seen = async () => (await daemon.run(['key', 'status', 'v'])).code === 5;
    await until('damaged', seen, STOPPED_WITHIN_MS);
    await new Promise((resolve) => setTimeout(resolve, 2 * INTERVAL_MS + CONFIRM_MS));
    expect(await info(daemon, 'v')).toMatchObject({
      ...{ state: 'serving', reason: expect.stringContaining('keyring.json') },
    });
    expect((await qemuIo(daemon.uri('v'), 'write -P 2 0 1M')).code).toBe(0);
    writeFileSync(path, before);
    await until(
      'valid',
      async () => (await daemon.run(['key', 'status', 'v'])).code === 0,
      STOPPED_WITHIN_MS,
    );
  });
});

describe('when the keyring cannot be read', () => {
  /** A directory in its place opens, and fails to be read: no answer, which says nothing about the key. */
  function blockKeyring(daemon: DaemonProcess): () => void {
    const path = join(daemon.data, 'keyring.json');
    renameSync(path, `${path}.away`);
    mkdirSync(path, { mode: 0o700 });
    chmodSync(path, 0o700);
    return () => {
      renameSync(path, `${path}.blocked`);
      renameSync(`${path}.away`, path);
    };
  }

  it('the volume is served on through the grace period, with the countdown shown, and one outage leaves no trace', async () => {
    const daemon = await twoVolumes();
    const unblock = blockKeyring(daemon);
    await until('unreachable', async () => (await status(daemon, 'v')).state === 'unreachable', 5000);
    const { graceEndsAt } = await status(daemon, 'v');
    expect(Date.parse(graceEndsAt!) - Date.now()).toBeGreaterThan(23 * 3_600_000);
    expect(await metrics(daemon)).toMatch(/sealbd_key_grace_left_seconds\{volume="v"\} 86\d{3}/);
    expect((await qemuIo(daemon.uri('v'), 'write -P 1 0 1M')).code).toBe(0);
    unblock();
    await until('valid', async () => (await status(daemon, 'v')).state === 'valid', 5000);
    expect(await status(daemon, 'v')).toMatchObject({ reason: null, graceEndsAt: null });
    expect(await metrics(daemon)).not.toContain('sealbd_key_grace_left_seconds{volume="v"');
  });

  it('the volume stops when the grace period is over', async () => {
    const data = join(temporaryDirectory(), 'data');
    const flags = ['--poll-interval', '500ms', '--unreachable-grace', '3s', '--default-volume', 'v:64M'];
    const daemon = await DaemonProcess.start(data, flags);
    blockKeyring(daemon);
    const blocked = Date.now();
    await until('unreachable', async () => (await status(daemon, 'v')).state === 'unreachable', 5000);
    expect((await info(daemon, 'v')).state).toBe('serving');
    await until('stopped', async () => (await info(daemon, 'v')).state === 'key-invalid', 10_000);
    expect(Date.now() - blocked).toBeGreaterThan(3000);
    expect(await info(daemon, 'v')).toMatchObject({ reason: expect.stringContaining('grace period of 3s') });
    expect((await status(daemon, 'v')).state).toBe('unreachable');
  });
});

describe('serve', () => {
  it.each([
    [['--poll-interval', '10'], '--poll-interval: "10"'],
    [['--poll-interval', '1ms'], '--poll-interval: "1ms"'],
    [['--unreachable-grace', 'x'], '--unreachable-grace: "x"'],
  ])('with %j is bad usage', async (flags, expected) => {
    const result = await sealbd(['serve', '--data', join(temporaryDirectory(), 'data'), ...flags]);
    expect([result.code, result.stderr.includes(expected)]).toEqual([2, true]);
  });
});
