/**
 * `kill -9` of real daemons, under traffic on volumes of every suite, at random moments and at those that matter:
 * while a checkpoint is published, while a segment gets its name, while a daemon recovers from the kill before. The
 * directory lives through all rounds. Replay with SEALBD_SEED; the long run sets SEALBD_KILL_ROUNDS=200.
 */
import { type FSWatcher, watch, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { AdminClient } from '../../src/admin/client.js';
import { Command } from '../../src/nbd/wire/constants.js';
import { adminSocket, DaemonProcess, sealbdProcess } from '../support/daemon-process.js';
import { History } from '../support/history.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { content, Traffic, versionOf } from '../support/nbd-traffic.js';
import { PipelinedClient } from '../support/pipelined-client.js';
import { BLOCK, seededRandom } from '../support/volume-harness.js';

const ROUNDS = Number(process.env.SEALBD_KILL_ROUNDS ?? 10);
const SEED = Number(process.env.SEALBD_SEED ?? Date.now() % 1_000_000);
const ROUND_TIMEOUT_MS = 60_000;
const BLOCKS = 768;
const CIPHERS = ['aes-256-gcm', 'aes-256-ctr', 'none'] as const;
const CONNECTIONS = 3;
const LIFE_MS_MAX = 700;
/** Longest wait for a file to show up before the kill comes anyway. */
const EVENT_MS_MAX = 1500;
/** Files whose appearance marks a moment that is worth a kill. */
const MOMENTS = [
  /^map-/,
  /^checkpoint\.tmp$/,
  /^checkpoint\.bak\.tmp$/,
  /^checkpoint\.bak$/,
  /^seg-.*\.tmp$/,
  /^seg-[0-9a-f]+$/,
  /^(spare|reserve)-/,
];

interface VolumeUnderTest {
  readonly name: string;
  readonly history: History;
  lastVersion: number;
}

const int = (random: () => number, max: number): number => Math.floor(random() * max);

function writeConfig(path: string, random: () => number): void {
  const lines = [
    '[tuning]',
    `segment_slots = ${[32, 64, 200][int(random, 3)]}`,
    `checkpoint_after = "${[512, 1024, 4096][int(random, 3)]}K"`,
    `checkpoint_interval = "${[100, 300, 10_000][int(random, 3)]}ms"`,
    `buffer_age = "${[2, 10, 50][int(random, 3)]}ms"`,
    `garbage_ratio = ${random() < 0.7 ? 0.2 : 0.9}`,
    `spares = ${int(random, 4)}`,
    'reserve = 1',
  ];
  writeFileSync(path, `${lines.join('\n')}\n`);
}

/** Resolves when a file of a random kind has shown up in `directory` a random number of times, or after a while. */
async function momentIn(directory: string, random: () => number): Promise<string> {
  const moment = MOMENTS[int(random, MOMENTS.length)];
  let left = 1 + int(random, 4);
  let watcher: FSWatcher | undefined;
  const seen = new Promise<string>((resolve) => {
    watcher = watch(directory, (_event, name) => {
      if (name !== null && moment.test(name) && --left === 0) resolve(`at ${moment.source}`);
    });
  });
  const late = new AbortController();
  try {
    return await Promise.race([
      seen,
      sleep(EVENT_MS_MAX, 'waiting for a file', { signal: late.signal }).catch(() => ''),
    ]);
  } finally {
    late.abort();
    watcher?.close();
  }
}

/** Traffic on every volume until the daemon is killed. Returns when that was. */
async function liveAndDie(
  daemon: DaemonProcess,
  volumes: readonly VolumeUnderTest[],
  random: () => number,
): Promise<string> {
  const address = daemon.ready.listen[0];
  const clients: PipelinedClient[] = [];
  const traffics: Traffic[] = [];
  for (const volume of volumes) {
    const own: PipelinedClient[] = [];
    for (let i = 0; i < CONNECTIONS; i++) own.push(await PipelinedClient.connect(address, volume.name));
    clients.push(...own);
    const { history, lastVersion } = volume;
    traffics.push(new Traffic({ clients: own, history, random, depth: 1 + int(random, 6), lastVersion }));
  }
  const running = Promise.all(traffics.map((traffic) => traffic.run()));
  const volume = volumes[int(random, volumes.length)];
  const directory = join(daemon.data, 'volumes', volume.name);
  const moment =
    random() < 0.5
      ? sleep(int(random, LIFE_MS_MAX), 'at some time')
      : sleep(int(random, 100)).then(() => momentIn(directory, random));
  const when = await Promise.race([moment, running.then(() => 'never: the traffic ended first')]);
  await daemon.signal('SIGKILL');
  await running;
  traffics.forEach((traffic, i) => {
    volumes[i].lastVersion = traffic.lastVersion;
  });
  for (const client of clients) await client.close();
  return when;
}

/** Starts a daemon and kills it on its way to readiness, or as it gets there. */
async function killRecovery(data: string, config: string, random: () => number): Promise<string> {
  const { child, text, ended } = sealbdProcess(
    ['serve', '--data', data, '--config', config, '--listen', '127.0.0.1:0'],
    {},
  );
  const directory = join(data, 'volumes', CIPHERS[int(random, CIPHERS.length)]);
  const when = await Promise.race([
    random() < 0.5 ? sleep(100 + int(random, 500), 'at some time') : momentIn(directory, random),
    ended.then(() => 'never: it ended by itself'),
  ]);
  child.kill('SIGKILL');
  await ended;
  if (when.startsWith('never')) throw new Error(`the daemon does not start:\n${text.stderr}`);
  return `recovery ${when}`;
}

async function verify(admin: AdminClient, name: string): Promise<void> {
  let job = await admin.verifyVolume(name);
  while (job.state === 'running') {
    await sleep(10);
    job = await admin.job(job.id);
  }
  expect(job, name).toMatchObject({ state: 'done', result: { lost: [], problems: [] } });
}

async function check(daemon: DaemonProcess, volumes: readonly VolumeUnderTest[]): Promise<void> {
  const admin = new AdminClient(adminSocket(daemon.data));
  for (const { name, history } of volumes) {
    const client = await PipelinedClient.connect(daemon.ready.listen[0], name);
    const { error, data } = await client.call(Command.READ, 0, BLOCKS * BLOCK, {}, true);
    expect(error, `${name} reads`).toBe(0);
    for (let lba = 0; lba < BLOCKS; lba++) {
      const block = data.subarray(lba * BLOCK, (lba + 1) * BLOCK);
      const version = versionOf(block);
      expect(history.allowed(lba), `${name}, block ${lba}`).toContain(version);
      expect(Buffer.compare(block, content(lba, version)), `${name}, block ${lba} is whole`).toBe(0);
      history.settle(lba, version);
    }
    await client.close();
    await verify(admin, name);
  }
  // Recovery from a kill is no error, and must not look like one.
  expect(daemon.log().filter(({ level }) => level >= 50)).toEqual([]);
}

it(`kill -9 keeps every flushed block and tears none, over ${ROUNDS} kills, seed ${SEED}`, {
  timeout: ROUNDS * ROUND_TIMEOUT_MS,
}, async () => {
  const random = seededRandom(SEED);
  const directory = temporaryDirectory();
  const data = join(directory, 'data');
  const config = join(directory, 'sealbd.toml');
  const start = (): Promise<DaemonProcess> => DaemonProcess.start(data, ['--config', config]);
  const volumes = CIPHERS.map((name) => ({ name, history: new History(BLOCKS), lastVersion: 0 }));
  const kills = new Map<string, number>();
  const count = (when: string): Map<string, number> => kills.set(when, (kills.get(when) ?? 0) + 1);
  writeConfig(config, random);
  let daemon = await start();
  for (const name of CIPHERS) {
    await daemon.ok('volume', 'create', name, '--size', String(BLOCKS * BLOCK), '--cipher', name);
  }
  for (let round = 0; round < ROUNDS; round++) {
    try {
      count(await liveAndDie(daemon, volumes, random));
      writeConfig(config, random);
      for (let again = int(random, 6) - 2; again > 0; again--)
        count(await killRecovery(data, config, random));
      daemon = await start();
      await check(daemon, volumes);
    } catch (error) {
      throw new Error(`round ${round}, SEALBD_SEED=${SEED}`, { cause: error });
    }
  }
  expect((await daemon.stop()).code).toBe(0);
  console.log(Object.fromEntries(kills));
});
