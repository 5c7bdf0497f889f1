/** A data directory, a key service of its own and a daemon between them, as tests of the key story need them. */
import { readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { AdminClient } from '../../src/admin/client.js';
import type { JobInfo, KeyStatus, VolumeInfo } from '../../src/admin/schemas.js';
import { adminSocket, DaemonProcess } from './daemon-process.js';
import { temporaryDirectory } from './key-fixtures.js';
import { KmsFake } from './kms-fake/kms-fake.js';
import { volumePath } from './sealed-volume.js';
import { until } from './until.js';

/** Small segments, so that a rewriting has many steps, and a watchdog that asks often. */
const CONFIG = `[tuning]
segment_slots = 1024
checkpoint_after = "64M"

[watchdog]
poll_interval = "500ms"
confirm_after = "200ms"
`;

export class KeyScene {
  readonly kms: KmsFake;
  readonly data: string;
  readonly #config: string;

  private constructor(kms: KmsFake, data: string, config: string) {
    this.kms = kms;
    this.data = data;
    this.#config = config;
  }

  /** Gone when the test has finished. `config` is what the configuration file says. */
  static async start(config = CONFIG, data = join(temporaryDirectory(), 'data')): Promise<KeyScene> {
    const kms = await KmsFake.start();
    onTestFinished(() => kms.stop());
    const path = join(temporaryDirectory(), 'sealbd.toml');
    writeFileSync(path, config);
    return new KeyScene(kms, data, path);
  }

  get volumePath(): string {
    return volumePath(this.data);
  }

  configure(config: string): void {
    writeFileSync(this.#config, config);
  }

  daemon(flags: readonly string[] = [], env = this.kms.environment()): Promise<DaemonProcess> {
    return DaemonProcess.start(this.data, ['--config', this.#config, ...flags], { env });
  }

  /** One line of the audit log for each entry. */
  audit(): Record<string, unknown>[] {
    return auditOf(this.data);
  }
}

export function auditOf(data: string): Record<string, unknown>[] {
  const lines = readFileSync(join(data, 'audit.jsonl'), 'utf8').split('\n').slice(0, -1);
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
}

/** Quicker than a command, for what is asked again and again. */
export function adminOf(daemon: DaemonProcess): AdminClient {
  return new AdminClient(adminSocket(daemon.data));
}

export async function keyStatus(daemon: DaemonProcess, name = 'v'): Promise<KeyStatus> {
  const all = await daemon.json<KeyStatus[]>(['key', 'status']);
  const found = all.find(({ volume }) => volume === name);
  if (found === undefined) throw new Error(`key status has no row for ${name}`);
  return found;
}

export function volumeInfo(daemon: DaemonProcess, name = 'v'): Promise<VolumeInfo> {
  return adminOf(daemon).volumeInfo(name);
}

export async function untilState(daemon: DaemonProcess, state: VolumeInfo['state'], name = 'v') {
  await until(`${name} is ${state}`, async () => (await volumeInfo(daemon, name)).state === state);
}

/** The last job of this kind; undefined where there is none. */
export async function lastJob(daemon: DaemonProcess, kind: JobInfo['kind']): Promise<JobInfo | undefined> {
  return (await adminOf(daemon).listJobs()).findLast((job) => job.kind === kind);
}

/** Resolves once nothing is left to rewrite. One that was cancelled by what went before is not waited for, but the next. */
export async function untilRewritten(daemon: DaemonProcess, kind: JobInfo['kind'], deadlineMs = 120_000) {
  const done = async (): Promise<boolean> => {
    const job = await lastJob(daemon, kind);
    if (job?.state === 'failed') throw new Error(`the ${kind} job: ${job.error?.message}`);
    return job?.state === 'done';
  };
  await until(`the ${kind} job is done`, done, { deadlineMs });
}

/**
 * Starts a rewriting and does `interrupt` while it is between `from` and `to`. A rewriting that was over before is begun
 * anew, with another DEK: a machine that is quick at the wrong moment proves nothing.
 */
export async function inTheMiddleOf(
  daemon: DaemonProcess,
  begin: () => Promise<JobInfo | null>,
  interrupt: (job: JobInfo) => Promise<void>,
  { from = 0.1, to = 0.9, attempts = 5 } = {},
): Promise<void> {
  const admin = adminOf(daemon);
  for (let attempt = 1; attempt <= attempts; attempt++) {
    let job = await begin();
    if (job === null) throw new Error('there is no job');
    const id = job.id;
    while (job.state === 'running') {
      const share = job.totalBytes === 0 ? 0 : job.doneBytes / job.totalBytes;
      if (share >= from && share <= to) return interrupt(job);
      await new Promise((resolve) => setTimeout(resolve, 2));
      job = await admin.job(id);
    }
    if (job.state !== 'done') throw new Error(`the job: ${job.state}, ${job.error?.message}`);
  }
  throw new Error(`${attempts} rewritings were over before they could be interrupted`);
}

export function metricsOf(daemon: DaemonProcess): Promise<string> {
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
