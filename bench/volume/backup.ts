/**
 * Backing up and restoring, beside `cp` of the very files: each round copies the segments of one volume with cp, backs it up,
 * copies the backup with cp, and restores it. Backups and restores are durable when they end, so cp is timed with and without
 * a sync of its target.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { openChain } from '../../src/backup/backup-directory.js';
import { chainDeks, openChainKeys } from '../../src/backup/chain-keys.js';
import { createBackup } from '../../src/backup/create.js';
import { restoreChain } from '../../src/backup/restore.js';
import { systemClock } from '../../src/base/clock.js';
import { nullLogger } from '../../src/base/log.js';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { median, rangeOf } from '../../src/cli/bench/statistics.js';
import { identityOf } from '../../src/daemon/dek-rotation.js';
import { systemRandom } from '../../src/keys/random.js';
import { writeRestoredHeader } from '../../src/keys/restored-header.js';
import { VolumeHeader } from '../../src/keys/volume-header.js';
import { KeyProviders } from '../../src/kms/registry.js';
import { addon } from '../../src/native/addon.js';
import { Arena } from '../../src/native/arena.js';
import { FsStore } from '../../src/store/fs-store.js';
import { Volume } from '../../src/volume/volume.js';
import { progress, runGroup } from '../group.js';
import type { Cell, GroupOptions, GroupResult, Table } from '../result.js';

const MIB = 2 ** 20;
const SIZE_BYTES = 1024 * MIB;
const QUICK_BYTES = 64 * MIB;
const PIECE_BYTES = 4 * MIB;

interface Trial extends Readonly<Record<string, Cell>> {
  readonly what: string;
  readonly round: number;
  readonly mibPerS: number;
  readonly cpMibPerS: number;
  readonly cpSyncedMibPerS: number;
}

class Subject {
  readonly directory: string;
  readonly providers: KeyProviders;
  readonly cipher = new CipherPool({ threads: 2 });
  readonly store: FsStore;
  header!: VolumeHeader;
  volume!: Volume;

  private constructor(directory: string, store: FsStore, providers: KeyProviders) {
    this.directory = directory;
    this.store = store;
    this.providers = providers;
  }

  static async create(directory: string, sizeBytes: number): Promise<Subject> {
    const environment = {
      dataDirectory: directory,
      clock: systemClock,
      random: systemRandom,
      log: nullLogger,
    };
    const providers = new KeyProviders(environment);
    const store = await FsStore.open(join(directory, 'volume'), { create: true });
    const subject = new Subject(directory, store, providers);
    subject.header = await VolumeHeader.create({
      ...{ store, providers, sizeBytes, clock: systemClock, random: systemRandom },
      ...{ suite: 2, keyUri: 'local:default' },
    });
    subject.volume = await Volume.open({
      ...{ name: 'bench', ...identityOf(subject.header), store, cipher: subject.cipher },
      ...{ clock: systemClock, log: nullLogger, fresh: true },
    });
    await subject.#fill(sizeBytes);
    return subject;
  }

  async #fill(sizeBytes: number): Promise<void> {
    const piece = new Arena(PIECE_BYTES);
    addon.randomFill(piece.bytes);
    for (let at = 0; at < sizeBytes; at += PIECE_BYTES) await this.volume.write(piece, 0, at, PIECE_BYTES);
    await this.volume.flush();
    await this.volume.checkpoint();
    piece.free();
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  async backUp(name: string): Promise<void> {
    const source = await this.volume.pin();
    const { superblock, deks } = this.header;
    await createBackup({
      ...{ source, from: this.store, to: await FsStore.open(this.path(name), { create: true }) },
      ...{ base: undefined, keys: deks, salvage: false, cipher: this.cipher, random: systemRandom },
      signal: new AbortController().signal,
      facts: async () => ({ ...superblock, name: 'bench', dekId: superblock.activeDek }),
      now: () => performance.now(),
      onProgress: () => undefined,
      pace: async () => undefined,
    });
    await source.release();
  }

  async restore(backup: string, name: string): Promise<void> {
    const store = await FsStore.open(this.path(name), { create: true });
    const chain = await openChain(this.path(backup), (path) => FsStore.at(path));
    const keys = await openChainKeys(chain, this.providers);
    const [{ manifest }] = chain;
    const header = await writeRestoredHeader({
      ...{ store, providers: this.providers, clock: systemClock, random: systemRandom },
      ...{ sizeBytes: manifest.sizeBytes, suite: manifest.suite, plain: false, from: manifest },
      ...{ deks: chainDeks(chain), handles: keys.handles },
    });
    const { uuid, activeDek: dekId } = header.superblock;
    await restoreChain({
      ...{ chain, keys: keys.handles, store, uuid, dekId, key: header.key, cipher: this.cipher },
      ...{ salvage: false, signal: new AbortController().signal, onProgress: () => undefined },
    });
    header.release();
    keys.release();
  }

  async close(): Promise<void> {
    await this.volume.stop(60_000);
    this.header.revoke();
    await this.cipher.destroy();
  }
}

function bytesOf(path: string, pattern: RegExp): number {
  const names = readdirSync(path).filter((name) => pattern.test(name));
  return names.reduce((sum, name) => sum + statSync(join(path, name)).size, 0);
}

/** Seconds for a cp of the files, and for that and a sync of what it wrote. */
function cp(from: string, pattern: RegExp, to: string): { plain: number; synced: number } {
  mkdirSync(to);
  const files = readdirSync(from).filter((name) => pattern.test(name));
  const started = performance.now();
  const copied = spawnSync('cp', [...files.map((name) => join(from, name)), to], { stdio: 'inherit' });
  const plain = (performance.now() - started) / 1000;
  const synced = spawnSync(
    'sync',
    files.map((name) => join(to, name)),
    { stdio: 'inherit' },
  );
  if (copied.status !== 0 || synced.status !== 0) throw new Error('cp failed');
  return { plain, synced: (performance.now() - started) / 1000 };
}

async function secondsOf(work: () => Promise<void>): Promise<number> {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}

async function oneRound(subject: Subject, round: number): Promise<Trial[]> {
  const [segments, data] = [/^seg-/, /^data-/];
  const fresh = (name: string): string => {
    rmSync(subject.path(name), { recursive: true, force: true });
    spawnSync('sync');
    return subject.path(name);
  };
  const trial = (
    what: string,
    bytes: number,
    seconds: number,
    beside: { plain: number; synced: number },
  ): Trial => ({
    ...{ what, round, mibPerS: bytes / MIB / seconds },
    ...{ cpMibPerS: bytes / MIB / beside.plain, cpSyncedMibPerS: bytes / MIB / beside.synced },
  });
  const path = subject.store.path;
  const besideBackup = cp(path, segments, fresh('copy'));
  fresh('backup');
  const backup = await secondsOf(() => subject.backUp('backup'));
  const besideRestore = cp(subject.path('backup'), data, fresh('copy'));
  fresh('restored');
  const restore = await secondsOf(() => subject.restore('backup', 'restored'));
  const bytes = bytesOf(subject.path('backup'), data);
  fresh('copy');
  return [
    trial('backup create', bytes, backup, besideBackup),
    trial('restore', bytes, restore, besideRestore),
  ];
}

function table(trials: readonly Trial[]): Table {
  return {
    title: 'Backup and restore beside cp',
    columns: [
      { key: 'what', label: 'what' },
      { key: 'timesSynced', label: 'by cp and sync', digits: 2 },
      { key: 'range', label: 'range' },
      { key: 'timesCp', label: 'by cp', digits: 2 },
      { key: 'mibPerS', label: 'MiB/s', digits: 0 },
      { key: 'cpSyncedMibPerS', label: 'cp and sync MiB/s', digits: 0 },
      { key: 'cpMibPerS', label: 'cp MiB/s', digits: 0 },
    ],
    rows: ['backup create', 'restore'].map((what) => {
      const of = trials.filter((trial) => trial.what === what);
      const synced = of.map((trial) => trial.mibPerS / trial.cpSyncedMibPerS);
      const middle = (key: 'mibPerS' | 'cpSyncedMibPerS' | 'cpMibPerS'): number =>
        median(of.map((trial) => trial[key]));
      return {
        ...{ what, timesSynced: median(synced), range: rangeOf(synced, 2) },
        timesCp: median(of.map((trial) => trial.mibPerS / trial.cpMibPerS)),
        ...{
          mibPerS: middle('mibPerS'),
          cpSyncedMibPerS: middle('cpSyncedMibPerS'),
          cpMibPerS: middle('cpMibPerS'),
        },
      };
    }),
  };
}

async function measure({ quick, rounds, directory }: GroupOptions): Promise<GroupResult> {
  const path = mkdtempSync(join(directory, 'sealbd-bench-backup-'));
  const sizeBytes = quick ? QUICK_BYTES : SIZE_BYTES;
  try {
    const subject = await Subject.create(path, sizeBytes);
    const trials: Trial[] = [];
    try {
      for (let round = 0; round <= (quick ? 1 : rounds); round++) {
        progress(`backup: round ${round} of ${rounds}`);
        const measured = await oneRound(subject, round);
        if (round > 0) trials.push(...measured); // The first warms up.
      }
    } finally {
      await subject.close();
    }
    const columns = ['what', 'round', 'mibPerS', 'cpMibPerS', 'cpSyncedMibPerS'];
    const raw = columns.map((key) => ({ key, label: key, digits: 1 }));
    return {
      notes: [
        `A volume of ${sizeBytes / MIB} MiB, aes-256-gcm, written front to back, in the page cache; ratios of throughput, medians of ${rounds} rounds.`,
        'A backup and a restore end with everything synced, and a restore has authenticated every block; cp does neither by itself.',
      ],
      tables: [table(trials), { title: 'Backup and restore, trials', columns: raw, rows: trials, raw: true }],
    };
  } finally {
    rmSync(path, { recursive: true, force: true });
  }
}

await runGroup(measure);
