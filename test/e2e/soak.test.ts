/**
 * Many clients of one daemon that read and write, leave in the middle of requests and handshakes, stall, send garbage and
 * try to renegotiate, while operators resize, make snapshots, change keys, stop and start, and somebody kills the daemon. No
 * flushed block is lost, every byte is verified in the end, and what the daemon holds without clients does not grow.
 * SEALBD_TEST_SEED gives the same choices again, not the same moments; the long run sets SEALBD_SOAK_CLIENTS=64
 * SEALBD_SOAK_SECONDS=3600.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type tls from 'node:tls';
import { expect, it, onTestFinished } from 'vitest';
import { type TestCertificates, testCertificates } from '../support/certificates.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { KmsFake } from '../support/kms-fake/kms-fake.js';
import { testSeed } from '../support/seeded-random.js';
import { int } from '../support/soak/chance.js';
import { Holding } from '../support/soak/holding.js';
import { OPERATIONS, Operator } from '../support/soak/operator.js';
import { type ProcessFacts, slope, steadyFacts } from '../support/soak/process-facts.js';
import { type QuietFacts, quiet } from '../support/soak/quiet.js';
import { ENDINGS, Talker } from '../support/soak/talker.js';
import { Troublemaker } from '../support/soak/troublemaker.js';
import { TROUBLES } from '../support/soak/troubles.js';
import { type SoakVolume, World } from '../support/soak/world.js';
import { BLOCK, seededRandom } from '../support/volume-harness.js';

const CLIENTS = Number(process.env.SEALBD_SOAK_CLIENTS ?? 16);
const SECONDS = Number(process.env.SEALBD_SOAK_SECONDS ?? 10);
/** Of the time: with kills, and until the daemon that lives to the end has warmed up. */
const KILLS_SHARE = 0.35;
const WARM_UP_SHARE = 0.2;
/** What the rest is cut into, with a look at what the daemon holds after each. */
const STRETCH_SECONDS = 20;
const STRETCHES_MAX = 20;
/** Everything that there is has to happen; a slow machine gets so many times the time. */
const LATE_FACTOR = 10;
/** Longest pause of a client between two requests, for each client that there is: daemon and clients share a machine. */
const PAUSE_MS = 5;
/** Of a handshake, and of who stalls: what the crowd itself takes must be far below. Of replies it is 10 at least. */
const LIMIT_SECONDS = CLIENTS > 16 ? 15 : 5;
const SEND_STALL_SECONDS = Math.max(10, LIMIT_SECONDS);
const CIPHERS = ['aes-256-gcm', 'aes-256-ctr', 'none'] as const;
const TRAFFIC_BLOCKS = 256;
const TROUBLE_BLOCKS = 64;
const TAIL_BLOCKS = 1024;
const VERSIONS_PER_HOLDING = 2 ** 23;
/** Of a short run: heap that was not collected and memory that the allocator keeps come and go. */
const GROWTH_MIB_MAX = 64;
/** Of a long one, from stretch to stretch, by the fitted line: some hundred connections each. */
const FITTED_GROWTH_MIB_MAX = 8;
/** Looks that a line is fitted to. */
const LOOKS_MIN = 5;

const CONFIG = `[tuning]
segment_slots = 1024
checkpoint_after = "16M"
checkpoint_interval = "1s"
spares = 4
reserve = 2

[limits]
handshake_timeout = "${LIMIT_SECONDS}s"
send_stall = "${SEND_STALL_SECONDS}s"
receive_stall = "${LIMIT_SECONDS}s"
bytes_in_flight_total = "208M"

[tls]
mode = "allowed"
certificates = "pki"

[watchdog]
poll_interval = "1s"
`;

interface Cast {
  readonly world: World;
  readonly clients: readonly { run(): Promise<void> }[];
  readonly operators: readonly Operator[];
  readonly random: () => number;
}

function writeCertificates(directory: string, pki: TestCertificates): tls.ConnectionOptions {
  mkdirSync(directory);
  const files = {
    'ca-cert.pem': pki.ca,
    'server-cert.pem': pki.server.cert,
    'server-key.pem': pki.server.key,
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
  return { ca: pki.ca, ...pki.client, servername: 'localhost' };
}

async function assemble(seed: number): Promise<Cast> {
  const directory = temporaryDirectory();
  const kms = await KmsFake.start();
  onTestFinished(() => kms.stop());
  const clientTls = writeCertificates(join(directory, 'pki'), await testCertificates());
  const config = join(directory, 'sealbd.toml');
  writeFileSync(config, CONFIG);
  const world = new World(join(directory, 'data'), ['--config', config], {
    ...kms.environment(),
    // As `npm start` has it: less of the young heap comes and goes.
    NODE_OPTIONS: '--max-semi-space-size=2',
  });
  onTestFinished(() => world.end());
  await world.start();

  const key = kms.createKey().arn;
  const keys = { 'aes-256-gcm': `awskms:///${key}`, 'aes-256-ctr': 'local:default', none: undefined };
  let holdings = 0;
  const hold = (volume: SoakVolume, first: number, blocks: number) =>
    new Holding(volume, first, blocks, holdings++ * VERSIONS_PER_HOLDING, world.epoch);
  const clients: { run(): Promise<void> }[] = [];
  const operators: Operator[] = [];
  for (const [i, cipher] of CIPHERS.entries()) {
    const volume: SoakVolume = { name: `v${i}`, cipher, down: false, outages: 0 };
    const own: Holding[] = [];
    let next = 0;
    for (let client = i; client < CLIENTS; client += CIPHERS.length) {
      const random = seededRandom(seed + client);
      const version = ([undefined, undefined, 'TLSv1.2', 'TLSv1.3'] as const)[int(random, 4)];
      const secure = version && { ...clientTls, minVersion: version, maxVersion: version };
      const traffic = hold(volume, next, TRAFFIC_BLOCKS);
      const trouble = hold(volume, next + TRAFFIC_BLOCKS, TROUBLE_BLOCKS);
      next += TRAFFIC_BLOCKS + TROUBLE_BLOCKS;
      own.push(traffic, trouble);
      clients.push(new Talker(world, traffic, secure, CLIENTS * PAUSE_MS, random));
      const connection = { secure: secure !== undefined, tls: clientTls };
      clients.push(new Troublemaker(world, trouble, connection, TROUBLES, random));
    }
    const tail = hold(volume, next, TAIL_BLOCKS);
    const sizeBytes = (next + TAIL_BLOCKS) * BLOCK;
    const keyUri = keys[cipher];
    await world.admin.createVolume({ name: volume.name, sizeBytes, cipher, ...(keyUri && { keyUri }) });
    const service = keyUri?.startsWith('awskms:') ? { fake: kms, key } : undefined;
    operators.push(new Operator(world, { clients: own, tail }, seededRandom(seed - 1 - i), service));
  }
  return { world, clients, operators, random: seededRandom(seed - 9) };
}

/** Everybody does what he does for so long, and until all of `wanted` has happened; then all have ended well. */
async function stretch(
  { world, clients, operators, random }: Cast,
  seconds: number,
  wanted: readonly string[],
  kills = false,
): Promise<void> {
  world.resting = false;
  const run = async (who: string, running: Promise<void>) => {
    await running.catch((error: unknown) => world.fail(who, error));
  };
  const running = [
    ...clients.map((client, i) => run(`client ${Math.floor(i / 2)}`, client.run())),
    ...operators.map((operator) => run(`operator of ${operator.volume.cipher}`, operator.run())),
    ...(kills ? [run('killer', killNowAndThen(world, random))] : []),
  ];
  const begin = Date.now();
  const missing = () => wanted.filter((what) => !world.counts.has(what));
  while (!world.resting) {
    const ms = Date.now() - begin;
    if (ms > seconds * 1000 && (missing().length === 0 || ms > seconds * 1000 * LATE_FACTOR)) break;
    await world.pause(100);
  }
  world.resting = true;
  await Promise.all(running);
  if (world.failure !== undefined) throw world.failure;
  expect(missing()).toEqual([]);
}

async function killNowAndThen(world: World, random: () => number): Promise<void> {
  while (!world.resting) {
    await world.pause(700 + int(random, 2500));
    const inRecovery = random() < 0.4 ? [100 + int(random, 600)] : [];
    if (!world.resting) await world.kill(inRecovery);
  }
}

/** The same daemon in the same state, before and after. */
function expectNoLeak(fresh: ProcessFacts, all: readonly QuietFacts[]): void {
  const [first] = all;
  const last = all[all.length - 1];
  for (const state of ['serving', 'stopped'] as const) {
    const [before, after] = [first[state], last[state]];
    expect(after.sockets, `sockets, ${state}`).toBe(fresh.sockets);
    expect(after.others, `descriptors, ${state}`).toEqual(before.others);
    expect(after.lockedKiB, `locked pages, ${state}`).toBe(before.lockedKiB);
    expect(after.threads, `threads, ${state}`).toBeLessThanOrEqual(before.threads);
  }
  expect(last.stopped.files).toEqual(first.stopped.files);
  const residentMiB = all.map(({ stopped }) => Math.round(stopped.residentKiB / 1024));
  console.log(`resident with no volume open, MiB: ${residentMiB.join(', ')}`);
  if (all.length < LOOKS_MIN) {
    expect(residentMiB[all.length - 1] - residentMiB[0], 'growth, MiB').toBeLessThan(GROWTH_MIB_MAX);
    return;
  }
  // The first look is at a heap that still grows to its size.
  const perStretch = slope(residentMiB.slice(1).map((value, i) => [i, value]));
  expect(perStretch, 'fitted growth, MiB a stretch').toBeLessThan(FITTED_GROWTH_MIB_MAX);
}

it(`${CLIENTS} clients for ${SECONDS} s lose no flushed block and leave nothing behind`, {
  timeout: SECONDS * 1000 * LATE_FACTOR + 600_000,
}, async () => {
  const seed = testSeed('soak');
  const cast = await assemble(seed);
  const { world, operators } = cast;
  try {
    await stretch(cast, SECONDS * KILLS_SHARE, ['kill', 'kill in recovery'], true);
    await world.kill();
    const fresh = await steadyFacts(world.daemon.pid);
    await stretch(cast, SECONDS * WARM_UP_SHARE, []);
    const looks = [await quiet(world, operators)];
    const left = SECONDS * (1 - KILLS_SHARE - WARM_UP_SHARE);
    const parts = Math.min(STRETCHES_MAX, Math.max(1, Math.round(left / STRETCH_SECONDS)));
    const wanted = [...Object.keys(TROUBLES), ...ENDINGS, ...OPERATIONS];
    for (let part = 1; part <= parts; part++) {
      await stretch(cast, left / parts, part === parts ? wanted : []);
      looks.push(await quiet(world, operators));
    }
    expectNoLeak(fresh, looks);
    // All of it is flushed: each block has one version that it may have.
    await world.kill();
    for (const operator of operators) await operator.verifyAll();
    await world.stop();
  } catch (error) {
    const log = world.up ? world.daemon.logText.slice(-4000) : '';
    throw new Error(`SEALBD_TEST_SEED=${seed}\n${log}`, { cause: error });
  } finally {
    console.log(Object.fromEntries(world.counts));
  }
});
