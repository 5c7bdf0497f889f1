/** `awskms:` keys on the fake, with the AWS settings of this process and none of the machine's. */
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { onTestFinished, vi } from 'vitest';
import { type Clock, systemClock } from '../../src/base/clock.js';
import { type KmsEnvironment, KmsError } from '../../src/kms/provider.js';
import { KeyProviders } from '../../src/kms/registry.js';
import { kmsEnvironment, temporaryDirectory } from './key-fixtures.js';
import { KmsFake } from './kms-fake/kms-fake.js';

/** Replaces every AWS_ variable until the test has finished. */
export function useAwsSettings(settings: Readonly<Record<string, string>>): void {
  for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) vi.stubEnv(name, undefined);
  for (const [name, value] of Object.entries(settings)) vi.stubEnv(name, value);
  onTestFinished(() => void vi.unstubAllEnvs());
}

export function awsProviders(changes: Partial<KmsEnvironment> = {}): KeyProviders {
  const providers = new KeyProviders({ ...kmsEnvironment(temporaryDirectory()), ...changes });
  onTestFinished(() => providers.close());
  return providers;
}

export async function fakeKms(changes: Partial<KmsEnvironment> = {}) {
  const kms = await KmsFake.start();
  onTestFinished(() => kms.stop());
  useAwsSettings(kms.environment());
  return { kms, providers: awsProviders(changes) };
}

/** Timers of the provider run out so many times sooner; those of the machine do not. */
export function hurriedClock(times: number): Clock {
  return { ...systemClock, setTimeout: (fn, delayMs) => systemClock.setTimeout(fn, delayMs / times) };
}

/** An HTTP server on loopback; resolves to its URL. */
export async function httpServer(listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** The error that the promise must reject with. */
export async function failureOf(promise: Promise<unknown>): Promise<KmsError> {
  const failure = await promise.then(
    (value) => new Error(`it succeeded: ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  );
  if (failure instanceof KmsError) return failure;
  throw failure;
}
