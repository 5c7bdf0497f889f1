/** A data directory in /tmp with the real key provider, store and randomness. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { systemClock } from '../../src/base/clock.js';
import { nullLogger } from '../../src/base/log.js';
import { systemRandom } from '../../src/keys/random.js';
import type { KmsEnvironment } from '../../src/kms/provider.js';
import { KeyProviders } from '../../src/kms/registry.js';
import { addon } from '../../src/native/addon.js';

/** Removed when the test has finished. */
export function temporaryDirectory(): string {
  const path = mkdtempSync(join(tmpdir(), 'sealbd-test-'));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** The same in memory where the machine has such a file system: for tests of bytes that need no fsync. */
export function memoryDirectory(): string {
  const path = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'sealbd-test-'));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

export function kmsEnvironment(dataDirectory: string): KmsEnvironment {
  return { dataDirectory, clock: systemClock, random: systemRandom, log: nullLogger };
}

export function keyProviders(dataDirectory: string): KeyProviders {
  return new KeyProviders(kmsEnvironment(dataDirectory));
}

/** Fails the test where it leaves more key slots taken than it found. */
export function expectNoLeakedSlots(): void {
  const before = addon.secureMemory().slotsUsed;
  onTestFinished(() => {
    const after = addon.secureMemory().slotsUsed;
    if (after !== before) throw new Error(`${after - before} key slots leaked`);
  });
}
