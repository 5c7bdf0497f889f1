/**
 * A key service that cannot be reached says nothing about the key: no volume stops before its grace period is over, every
 * one does then, and an outage that ended in time leaves no trace.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DaemonProcess } from '../support/daemon-process.js';
import { adminOf, auditOf, metricsOf, untilState, volumeInfo } from '../support/key-scene.js';
import type { FaultKind } from '../support/kms-fake/faults.js';
import { KmsFake } from '../support/kms-fake/kms-fake.js';
import { RawClient } from '../support/nbd-raw-client.js';
import { until } from '../support/until.js';

const MIB = 2 ** 20;
const BLOCK = 4096;
const SHORT_GRACE_MS = 3000;
const LONG_GRACE_MS = 3_600_000;
const CONFIG = '[watchdog]\npoll_interval = "500ms"\nconfirm_after = "200ms"\n';

const reads = async (client: RawClient) => (await client.readAt(0, BLOCK)).error;

interface Outage {
  readonly what: string;
  begin(kms: KmsFake): Promise<void>;
  end(kms: KmsFake): Promise<void>;
  /** What the reason says. */
  readonly named: RegExp;
}

function fault(what: string, kind: FaultKind, named: RegExp): Outage {
  return {
    ...{ what, named },
    begin: async (kms) => void kms.inject(kind),
    end: async (kms) => kms.clearFaults(),
  };
}

const OUTAGES: readonly Outage[] = [
  {
    what: 'refuses connections',
    begin: (kms) => kms.stop(),
    end: (kms) => kms.start(),
    named: /cannot be reached.*ECONNREFUSED/,
  },
  fault('does not answer', 'hang', /cannot be reached|no answer in/),
  fault('answers with status 500', 'internal', /KMSInternalException.*internal fault/),
  fault('answers with status 503 and a page', 'unavailable', /answers 503/),
  fault('throttles', 'throttling', /ThrottlingException.*too many requests/),
  fault('answers with half an answer', 'torn', /cannot be reached/),
  fault('answers with half a JSON text', 'truncated', /sends no JSON/),
];

/** A daemon with the volume v, and a client on it. */
class Subject {
  readonly daemon: DaemonProcess;
  readonly #graceMs: number;

  private constructor(daemon: DaemonProcess, graceMs: number) {
    this.daemon = daemon;
    this.#graceMs = graceMs;
  }

  static async start(directory: string, name: string, kms: KmsFake, keyUri: string, graceMs: number) {
    const config = join(directory, `${name}.toml`);
    writeFileSync(config, CONFIG);
    const flags = ['--config', config, '--unreachable-grace', `${graceMs}ms`];
    const options = { env: kms.environment() };
    const daemon = await DaemonProcess.startShared(join(directory, name), flags, options);
    await daemon.ok('volume', 'create', 'v', '--size', String(MIB), '--key', keyUri);
    return new Subject(daemon, graceMs);
  }

  async key() {
    return (await adminOf(this.daemon).status()).keys[0];
  }

  /** Log lines from the line after the first `from`, and audit lines likewise. */
  logSince(from: number) {
    return this.daemon.log().slice(from);
  }

  client(): Promise<RawClient> {
    return RawClient.serving(this.daemon.ready.listen[0], 'v');
  }

  untilKey(state: string): Promise<void> {
    return until(`the key is ${state}`, async () => (await this.key()).state === state);
  }

  /** It serves, and status, metrics and log count down to the end of the grace period. */
  async expectCountdown(named: RegExp, logFrom: number): Promise<void> {
    const { graceEndsAt, reason } = await this.key();
    expect(reason).toMatch(named);
    const left = Date.parse(graceEndsAt!) - Date.now();
    expect(left).toBeLessThan(this.#graceMs);
    expect(left).toBeGreaterThan(this.#graceMs - 60_000);
    const text = await metricsOf(this.daemon);
    expect(text).toContain('sealbd_key_state{volume="v",state="unreachable"} 1');
    const shown = Number(/^sealbd_key_grace_left_seconds\{volume="v"\} (.*)$/m.exec(text)?.[1]);
    expect(shown * 1000).toBeLessThan(this.#graceMs);
    expect(shown * 1000).toBeGreaterThan(this.#graceMs - 60_000);
    const told = this.logSince(logFrom).find(({ msg }) => msg === 'the key service cannot be reached');
    expect(told).toMatchObject({ reason: expect.stringMatching(named), level: 40 });
    expect(Math.abs(Date.parse(String(told?.graceEndsAt)) - Date.parse(graceEndsAt!))).toBeLessThan(100);
  }

  /** The state before the outage, and nothing that remembers it but the record of it. */
  async expectNoTrace(): Promise<void> {
    expect(await this.key()).toMatchObject({ state: 'valid', reason: null, graceEndsAt: null });
    expect(await volumeInfo(this.daemon)).toMatchObject({ state: 'serving', reason: null });
    const text = await metricsOf(this.daemon);
    expect(text).toContain('sealbd_key_state{volume="v",state="valid"} 1');
    expect(text).not.toMatch(/sealbd_key_grace_(left|ends).*\{volume/);
    expect(text).not.toMatch(/sealbd_key_problem\{/);
  }
}

/** ms from the log line that the service cannot be reached to the one that the volume stops. */
function servedFor(lines: readonly { msg: string; [field: string]: unknown }[]): number {
  const timeOf = (start: string) => {
    const line = lines.find(({ msg }) => msg.startsWith(start));
    if (line === undefined) throw new Error(`the log does not say "${start}"`);
    return Date.parse(String(line.time));
  };
  return timeOf('the key is not to be used any more') - timeOf('the key service cannot be reached');
}

describe('when the key service', () => {
  let directory: string;
  let kms: KmsFake;
  let patient: Subject;
  let impatient: Subject;

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'sealbd-outages-'));
    kms = await KmsFake.start();
    const uri = `awskms:///${kms.createKey().arn}`;
    patient = await Subject.start(directory, 'patient', kms, uri, LONG_GRACE_MS);
    impatient = await Subject.start(directory, 'impatient', kms, uri, SHORT_GRACE_MS);
  });

  afterAll(async () => {
    for (const subject of [patient, impatient]) await subject.daemon.signal('SIGKILL');
    await kms.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  it.each(OUTAGES)(
    '$what, a volume is served through the grace period and stopped after it',
    async ({ begin, end, named }) => {
      const client = await patient.client();
      const cutOff = await impatient.client();
      const [patientLog, impatientLog] = [patient.daemon.log().length, impatient.daemon.log().length];
      const auditFrom = auditOf(impatient.daemon.data).length;
      let audited: unknown[] = [];
      await begin(kms);
      try {
        await patient.untilKey('unreachable');
        await untilState(impatient.daemon, 'key-invalid');
        await cutOff.closed;
        // Before the end of the outage, which is audited too.
        await until('the stop is put down', () => {
          audited = auditOf(impatient.daemon.data).slice(auditFrom);
          return audited.length > 1;
        });
        await patient.expectCountdown(named, patientLog);
        expect(await client.writeAt(0, Buffer.alloc(BLOCK, 7))).toBe(0);
      } finally {
        await end(kms);
      }
      // The log's times are whole milliseconds of a clock that can be set; the watchdog counts on one that can't.
      const lines = impatient.logSince(impatientLog);
      expect(servedFor(lines)).toBeGreaterThan(SHORT_GRACE_MS - 50);
      const reason = expect.stringMatching(/not reachable for the grace period of 3s: /);
      expect(await volumeInfo(impatient.daemon)).toMatchObject({ reason });
      expect(audited).toEqual([
        expect.objectContaining({ event: 'key-state', to: 'unreachable' }),
        expect.objectContaining({ event: 'stop', by: { kind: 'watchdog' }, reason }),
      ]);

      await patient.untilKey('valid');
      await patient.expectNoTrace();
      expect(await reads(client)).toBe(0);
      expect(await client.writeAt(0, Buffer.alloc(BLOCK, 8))).toBe(0);
      await client.close();
      await impatient.untilKey('valid');
      await impatient.daemon.ok('volume', 'start', 'v');
      await impatient.expectNoTrace();
    },
  );
});
