import { readFileSync, writeFileSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, type MockInstance, vi } from 'vitest';
import { systemClock } from '../../src/base/clock.js';
import { STOP_DEADLINE_MS } from '../../src/base/limits.js';
import { nullLogger } from '../../src/base/log.js';
import { AuditLog } from '../../src/daemon/audit-log.js';
import { keyView } from '../../src/daemon/volume-views.js';
import { addon } from '../../src/native/addon.js';
import { Arena } from '../../src/native/arena.js';
import { expectNoLeakedSlots, temporaryDirectory } from '../support/key-fixtures.js';
import { ManualClock } from '../support/manual-clock.js';
import { createVolume, type Watched, WatchedDirectory } from '../support/watched-volumes.js';

const CLI = { kind: 'cli', peer: 'unix' } as const;

async function fill(watched: Watched, name: string, byte: number): Promise<void> {
  const arena = new Arena(4096);
  try {
    arena.bytes.fill(byte);
    await watched.volumes.get(name).device!.write(arena, 0, 8192, 4096);
  } finally {
    arena.free();
  }
}

async function firstByte(watched: Watched, name: string): Promise<number> {
  const arena = new Arena(4096);
  try {
    await watched.volumes.get(name).device!.read(arena, 0, 8192, 4096);
    return arena.bytes[0];
  } finally {
    arena.free();
  }
}

describe('a volume whose key is watched', () => {
  beforeEach(expectNoLeakedSlots);

  it('stops when the key is refused twice: keys wiped, clients told, jobs cancelled, the other volume goes on', async () => {
    const directory = new WatchedDirectory();
    const slotsBefore = addon.secureMemory().slotsUsed;
    const watched = await directory.start();
    const { volumes, watchdog, jobs } = watched;
    await createVolume(volumes, 'v', 'scripted:a');
    await createVolume(volumes, 'w', 'other:b');
    const { device } = volumes.get('v');
    const told: string[] = [];
    device!.attach((reason) => told.push(reason));
    // Not flushed: a stop for the key's sake loses nothing either.
    await fill(watched, 'v', 0x5a);
    jobs.start('verify', 'v', ({ signal }) => {
      return new Promise((_, reject) => {
        signal.addEventListener('abort', () => reject(new Error('aborted')));
      });
    });
    directory.one.answer = 'refused';
    await watchdog.check('v');
    expect([volumes.get('v').state, volumes.get('v').keyCheck?.state]).toEqual(['serving', 'valid']);
    await watchdog.check('v');
    const volume = volumes.get('v');
    expect([volume.state, volume.keyCheck?.state]).toEqual(['key-invalid', 'invalid']);
    expect(volume.reason).toBe('the service is refused (scripted:a, as the script has it)');
    expect(told).toHaveLength(1);
    expect(() => device!.extents(0, 4096, 1)).toThrow(expect.objectContaining({ code: 'ESHUTDOWN' }));
    expect(jobs.list()[0].state).toBe('cancelled');
    // What is left is the key of the other volume alone.
    expect(addon.secureMemory().slotsUsed).toBe(slotsBefore + 1);
    expect(volumes.get('w').state).toBe('serving');
    await fill(watched, 'w', 1);

    await expect(volumes.start('v', CLI)).rejects.toMatchObject({ code: 'KEY_UNAVAILABLE' });
    directory.one.answer = 'yes';
    await watchdog.check('v');
    expect([volumes.get('v').state, volumes.get('v').keyCheck?.state]).toEqual(['key-invalid', 'valid']);
    await volumes.start('v', CLI);
    expect(await firstByte(watched, 'v')).toBe(0x5a);
    await watched.close();
  });

  it('is opened by the next good check with resume: auto', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start({ policy: { resume: 'auto' } });
    await createVolume(watched.volumes, 'v', 'scripted:a');
    await fill(watched, 'v', 7);
    directory.one.answer = 'refused';
    await watched.watchdog.check('v');
    await watched.watchdog.check('v');
    expect(watched.volumes.get('v').state).toBe('key-invalid');
    directory.one.answer = 'yes';
    await watched.watchdog.check('v');
    expect(watched.volumes.get('v').state).toBe('serving');
    expect(await firstByte(watched, 'v')).toBe(7);
    await watched.close();
  });

  it('is not opened by the watchdog after an operator stopped it', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start({ policy: { resume: 'auto' } });
    await createVolume(watched.volumes, 'v', 'scripted:a');
    await watched.volumes.stop('v', CLI);
    await watched.watchdog.check('v');
    expect([watched.watchdog.watches('v'), watched.volumes.get('v').state]).toEqual([false, 'stopped']);
    await watched.close();
  });

  it('is served through an outage, with the countdown in sight', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    const volume = await createVolume(watched.volumes, 'v', 'scripted:a');
    directory.one.answer = 'unreachable';
    await watched.watchdog.check('v');
    await fill(watched, 'v', 3);
    const view = keyView(volume, watched.watchdog.times('v'))!;
    expect(view).toMatchObject({ state: 'unreachable', reason: 'the service is unreachable' });
    expect(Date.parse(view.graceEndsAt!) - Date.now()).toBeGreaterThan(3_590_000);
    expect(Date.parse(view.nextCheck!)).toBeGreaterThan(Date.parse(view.lastCheck!));
    directory.one.answer = 'yes';
    await watched.watchdog.check('v');
    expect(keyView(volume, watched.watchdog.times('v'))).toMatchObject({
      ...{ state: 'valid', reason: null, graceEndsAt: null },
    });
    await watched.close();
  });

  it('stops at once for an unreachable service with a grace period of 0', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start({ policy: { graceMs: 0 } });
    const volume = await createVolume(watched.volumes, 'v', 'scripted:a');
    directory.one.answer = 'unreachable';
    await watched.watchdog.check('v');
    expect([volume.state, volume.keyCheck?.state]).toEqual(['key-invalid', 'unreachable']);
    await watched.close();
  });

  it('goes on with a damaged wrap, says so, and leaves the wrap as it is', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start({ policy: { graceMs: 0 } });
    const volume = await createVolume(watched.volumes, 'v', 'scripted:a');
    const superblock = join(directory.path, 'volumes/v/superblock');
    const before = readFileSync(superblock);
    directory.one.answer = 'damaged';
    for (let times = 0; times < 3; times += 1) await watched.watchdog.check('v');
    expect([volume.state, volume.keyCheck?.state]).toEqual(['serving', 'damaged']);
    await fill(watched, 'v', 9);
    expect(readFileSync(superblock)).toEqual(before);
    directory.one.answer = 'yes';
    await watched.watchdog.check('v');
    expect(volume.keyCheck).toMatchObject({ state: 'valid', reason: undefined });
    await watched.close();
  });

  it('that unwraps to another key than the one in its slot is damaged', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    const volume = await createVolume(watched.volumes, 'v', 'scripted:a');
    const { id, exposed } = volume.superblock!.deks[0];
    const context = { volumeUuid: volume.superblock!.uuid, dekId: id, exposed };
    const other = addon.keyGenerate();
    const wrapped = await directory.one.scheme.open('scripted:a', {} as never).wrap(other, context);
    addon.keyRelease(other);
    // A service that gives the other key for the same wrap.
    (volume.superblock!.deks[0] as { wrapped: Uint8Array }).wrapped = wrapped.blob;
    await watched.watchdog.check('v');
    expect(volume.keyCheck).toMatchObject({
      state: 'damaged',
      reason: expect.stringContaining('another key'),
    });
    expect(volume.state).toBe('serving');
    await watched.close();
  });

  it('has its keys wiped by the deadline though another operation on it hangs', async () => {
    const directory = new WatchedDirectory();
    const clock = new ManualClock();
    const watched = await directory.start({ watchClock: clock });
    const volume = await createVolume(watched.volumes, 'v', 'scripted:a');
    const used = addon.secureMemory().slotsUsed;
    let goOn = (): void => undefined;
    vi.spyOn(volume, 'resize').mockImplementation(() => {
      return new Promise((resolve) => {
        goOn = resolve;
      });
    });
    const resizing = watched.volumes.resize('v', 128 * 2 ** 20, false, CLI);
    directory.one.answer = 'refused';
    await watched.watchdog.check('v');
    const stopping = watched.watchdog.check('v');
    await vi.waitFor(() => expect(volume.keyCheck?.state).toBe('invalid'));
    clock.advance(STOP_DEADLINE_MS - 1);
    expect(addon.secureMemory().slotsUsed).toBe(used);
    clock.advance(1);
    expect(addon.secureMemory().slotsUsed).toBe(used - 1);
    goOn();
    await resizing;
    await stopping;
    expect(volume.state).toBe('key-invalid');
    await watched.close();
  });
});

describe('at the start', () => {
  beforeEach(expectNoLeakedSlots);

  async function withVolume(): Promise<WatchedDirectory> {
    const directory = new WatchedDirectory();
    const first = await directory.start();
    await createVolume(first.volumes, 'v', 'scripted:a');
    await first.close();
    return directory;
  }

  it('a refused key is polled, and opens its volume with resume: auto only', async () => {
    for (const resume of ['manual', 'auto'] as const) {
      const directory = await withVolume();
      directory.one.answer = 'refused';
      const watched = await directory.start({ policy: { resume } });
      expect(watched.volumes.get('v').state).toBe('key-invalid');
      expect(watched.watchdog.times('v')).toBeDefined();
      directory.one.answer = 'yes';
      await watched.watchdog.check('v');
      expect(watched.volumes.get('v').state).toBe(resume === 'auto' ? 'serving' : 'key-invalid');
      await watched.close();
    }
  });

  it('an unreachable key service holds a volume up only as long as it is unreachable', async () => {
    const directory = await withVolume();
    directory.one.answer = 'unreachable';
    const watched = await directory.start();
    const volume = watched.volumes.get('v');
    expect([volume.state, volume.keyCheck?.state]).toEqual(['key-invalid', 'unreachable']);
    await watched.watchdog.check('v');
    directory.one.answer = 'yes';
    await watched.watchdog.check('v');
    expect(volume.state).toBe('serving');
    await watched.close();
  });

  it('what was unreachable and is then refused waits for an operator', async () => {
    const directory = await withVolume();
    directory.one.answer = 'unreachable';
    const watched = await directory.start();
    directory.one.answer = 'refused';
    await watched.watchdog.check('v');
    directory.one.answer = 'yes';
    await watched.watchdog.check('v');
    expect(watched.volumes.get('v')).toMatchObject({ state: 'key-invalid' });
    await watched.close();
  });

  it('a damaged wrap is not opened', async () => {
    const directory = await withVolume();
    directory.one.answer = 'damaged';
    const watched = await directory.start();
    expect(watched.volumes.get('v')).toMatchObject({ state: 'key-invalid', keyCheck: { state: 'damaged' } });
    await watched.close();
  });
});

describe('the audit log', () => {
  beforeEach(expectNoLeakedSlots);
  const short = (events: readonly { event: string; by: { kind: string } }[]) =>
    events.map(({ event, by }) => `${event} by ${by.kind}`);

  it('has one line for every wrap, unwrap, start, stop and change of state, and who asked', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    await createVolume(watched.volumes, 'v', 'scripted:a');
    directory.one.answer = 'refused';
    for (let times = 0; times < 4; times += 1) await watched.watchdog.check('v');
    directory.one.answer = 'yes';
    await watched.volumes.start('v', CLI);
    await watched.volumes.stop('v', CLI);
    await watched.volumes.start('v', { kind: 'admin', peer: '127.0.0.1' });
    await watched.close();
    const again = await directory.start();
    await again.volumes.delete('v', CLI);
    const lines = await again.audit();
    expect(short(lines)).toEqual([
      ...['create', 'wrap', 'key-state', 'unwrap', 'start'].map((event) => `${event} by startup`),
      ...['key-state', 'stop'].map((event) => `${event} by watchdog`),
      ...['key-state', 'unwrap', 'start', 'stop'].map((event) => `${event} by cli`),
      ...['unwrap', 'start'].map((event) => `${event} by admin`),
      'stop by shutdown',
      ...['key-state', 'unwrap', 'start'].map((event) => `${event} by startup`),
      ...['stop', 'delete'].map((event) => `${event} by cli`),
    ]);
    const lost = lines.find((line) => line.by.kind === 'watchdog')!;
    expect(lost).toMatchObject({
      ...{ event: 'key-state', volume: 'v', from: 'valid', to: 'invalid', keyUri: 'scripted:a' },
      reason: expect.stringContaining('refused'),
      time: expect.stringMatching(/Z$/),
      uuid: expect.stringMatching(/^[0-9a-f-]{36}$/),
    });
    expect(directory.auditMode).toBe(0o600);
    await again.close();
  });

  it('begins a new line where a crash left half of one', async () => {
    const directory = new WatchedDirectory();
    writeFileSync(directory.auditPath, '{"event":"half a li', { mode: 0o644 });
    const watched = await directory.start();
    await createVolume(watched.volumes, 'v', 'scripted:a');
    await watched.close();
    const [half, second] = readFileSync(directory.auditPath, 'utf8').split('\n');
    expect(half).toBe('{"event":"half a li');
    expect(JSON.parse(second)).toMatchObject({ event: 'create' });
    expect(directory.auditMode).toBe(0o600);
  });

  it('keeps its lines, whole and in order, while the disk takes no more', async () => {
    const directory = new WatchedDirectory();
    const errors: string[] = [];
    const log = { ...nullLogger, error: (_: object, message: string) => void errors.push(message) };
    const audit = await AuditLog.open(directory.auditPath, systemClock, log);
    const some = await open(directory.auditPath);
    const prototype = Object.getPrototypeOf(some) as FileHandle;
    await some.close();
    const real = prototype.write as (bytes: Buffer) => Promise<unknown>;
    const write = vi.spyOn(prototype, 'write') as unknown as MockInstance<
      (bytes: Buffer) => Promise<unknown>
    >;
    // A short write, then a full disk, then room again.
    write.mockImplementationOnce(function (this: FileHandle, bytes) {
      return real.call(this, bytes.subarray(0, 10));
    });
    write.mockRejectedValueOnce(new Error('ENOSPC'));
    try {
      audit.record({ event: 'start', volume: 'one', uuid: null, by: CLI });
      await audit.flush();
      expect(errors).toEqual(['the audit log cannot be written; its lines wait']);
      expect(readFileSync(directory.auditPath)).toHaveLength(10);
      audit.record({ event: 'start', volume: 'two', uuid: null, by: CLI });
      await audit.close();
    } finally {
      write.mockRestore();
    }
    expect(errors).toHaveLength(1);
    const lines = readFileSync(directory.auditPath, 'utf8').trimEnd().split('\n');
    expect(lines.map((line) => JSON.parse(line).volume)).toEqual(['one', 'two']);
  });
});

describe('the end of the audit log', () => {
  it('puts what could not be written into the log of the daemon', async () => {
    const errors: object[] = [];
    const log = { ...nullLogger, error: (fields: object) => void errors.push(fields) };
    const audit = await AuditLog.open(new WatchedDirectory().auditPath, systemClock, log);
    const some = await open(new WatchedDirectory().path);
    const write = vi.spyOn(Object.getPrototypeOf(some), 'write').mockRejectedValue(new Error('ENOSPC'));
    await some.close();
    try {
      audit.record({ event: 'stop', volume: 'last', uuid: null, by: CLI });
      await audit.close();
    } finally {
      write.mockRestore();
    }
    expect(errors.at(-1)).toEqual({ lines: expect.stringContaining('"volume":"last"') });
  });
});

describe('the hook', () => {
  beforeEach(expectNoLeakedSlots);

  function hook(script: string): { path: string; out: string } {
    const directory = temporaryDirectory();
    const [path, out] = [join(directory, 'a hook; true'), join(directory, 'out')];
    writeFileSync(path, `#!/bin/sh\nOUT='${out}'\n${script}\n`, { mode: 0o755 });
    return { path, out };
  }

  async function loseKey(directory: WatchedDirectory, path: string): Promise<void> {
    const watched = await directory.start({ hook: path });
    await createVolume(watched.volumes, 'v', 'scripted:a');
    directory.one.answer = 'refused';
    await watched.watchdog.check('v');
    await watched.watchdog.check('v');
    await watched.close();
  }

  it('gets what happened to a key as JSON on stdin, in order, and none of the environment', async () => {
    const { path, out } = hook(`cat >> "$OUT"; echo "token=$SEALBD_ADMIN_TOKEN" >> "$OUT"`);
    process.env.SEALBD_ADMIN_TOKEN = 'a-secret-of-some-length';
    try {
      await loseKey(new WatchedDirectory(), path);
    } finally {
      delete process.env.SEALBD_ADMIN_TOKEN;
    }
    const [state, token, stop] = readFileSync(out, 'utf8').split('\n');
    expect(JSON.parse(state)).toMatchObject({ event: 'key-state', volume: 'v', to: 'invalid' });
    expect(JSON.parse(stop)).toMatchObject({ event: 'stop', volume: 'v', by: { kind: 'watchdog' } });
    expect(token).toBe('token=');
  });

  it('is killed with its children when it takes too long, and never delays a stop', async () => {
    const { path, out } = hook(`sleep 1.5 && echo alive >> "$OUT"`);
    const directory = new WatchedDirectory();
    const watched = await directory.start({ hook: path });
    await createVolume(watched.volumes, 'v', 'scripted:a');
    directory.one.answer = 'refused';
    await watched.watchdog.check('v');
    const began = Date.now();
    await watched.watchdog.check('v');
    expect(Date.now() - began).toBeLessThan(450);
    expect(watched.volumes.get('v').state).toBe('key-invalid');
    await new Promise((resolve) => setTimeout(resolve, 2000));
    await watched.close();
    expect(() => readFileSync(out)).toThrow();
  });

  it('that fails, or does not read, changes nothing', async () => {
    await loseKey(new WatchedDirectory(), hook('exit 3').path);
    await loseKey(new WatchedDirectory(), '/nonexistent/hook');
  });
});
