/**
 * The dry run of `key check`: every permission is used for real, on a DEK that nobody needs. What does not depend on
 * each other runs at once, so it takes no longer than two operations.
 */
import { messageOf } from '../../base/errors.js';
import { type RandomSource, randomUuid } from '../../base/random.js';
import { addon, type KeyHandle } from '../../native/addon.js';
import { KmsError, type ProbeReport, type ProbeStep, type WrapContext } from '../provider.js';
import { warningsOf } from './describe.js';
import { AwsKmsError } from './errors.js';
import { fixOf } from './fixes.js';
import { type AwsKeyUri, isKeyOf } from './key-uri.js';
import type { AwsOperations, Ciphertext, KeyFacts } from './operations.js';

const RE_ENCRYPT = ['kms:ReEncryptFrom', 'kms:ReEncryptTo'] as const;

export async function probeAwsKey(
  uri: AwsKeyUri,
  kms: AwsOperations,
  random: RandomSource,
): Promise<ProbeReport> {
  const dek = addon.keyGenerate();
  const context: WrapContext = { volumeUuid: randomUuid(random), dekId: 1, exposed: false };
  try {
    const [described, encrypted] = await Promise.all([
      tried(() => kms.describe(uri.region, uri.keyId)),
      tried(() => encrypt(uri, kms, dek, context)),
    ]);
    const target = encrypted.value?.key.arn ?? described.value?.key.arn ?? uri.keyId;
    const [decrypted, reEncrypted] =
      encrypted.value === undefined
        ? [undefined, undefined]
        : await Promise.all([
            tried(() => decrypt(kms, encrypted.value!, dek, context)),
            tried(() => reEncrypt(uri, kms, encrypted.value!, context)),
          ]);
    const steps = [
      stepOf('kms:DescribeKey', described, target),
      stepOf('kms:Encrypt', encrypted, target),
      stepOf('kms:Decrypt', decrypted, target),
      ...reEncryptSteps(reEncrypted, target),
    ];
    return {
      steps,
      ...facts(described.value, encrypted.value),
      warnings: warnings(uri, kms, described.value),
    };
  } finally {
    addon.keyRelease(dek);
  }
}

async function encrypt(
  uri: AwsKeyUri,
  kms: AwsOperations,
  dek: KeyHandle,
  context: WrapContext,
): Promise<Ciphertext> {
  const ciphertext = await kms.encrypt(uri.region, uri.keyId, dek, context);
  if (isKeyOf(uri, ciphertext.key)) return ciphertext;
  throw new KmsError('unreachable', `AWS KMS answers for another key, ${ciphertext.key.arn}`);
}

async function decrypt(
  kms: AwsOperations,
  { key, blob }: Ciphertext,
  dek: KeyHandle,
  context: WrapContext,
): Promise<void> {
  const unwrapped = await kms.decrypt(key, blob, context);
  try {
    if (!addon.keyEquals(unwrapped, dek)) throw new KmsError('damaged', 'what comes back is another DEK');
  } finally {
    addon.keyRelease(unwrapped);
  }
}

function reEncrypt(
  uri: AwsKeyUri,
  kms: AwsOperations,
  { key, blob }: Ciphertext,
  context: WrapContext,
): Promise<Ciphertext> {
  return kms.reEncrypt(uri.region, { key, blob, context }, { keyId: uri.keyId, context });
}

type Tried<T> =
  | { readonly value: T; readonly error?: never }
  | { readonly value?: never; readonly error: unknown };

async function tried<T>(work: () => Promise<T>): Promise<Tried<T>> {
  try {
    return { value: await work() };
  } catch (error) {
    return { error };
  }
}

function stepOf(permission: string, result: Tried<unknown> | undefined, target: string): ProbeStep {
  if (result === undefined) return { permission, outcome: 'skipped', error: 'needs what kms:Encrypt gives' };
  if (result.error === undefined) return { permission, outcome: 'ok' };
  const outcome = isDenied(result.error) ? 'denied' : 'failed';
  const fix = fixOf(permission, result.error, target);
  return { permission, outcome, error: messageOf(result.error), ...(fix !== undefined && { fix }) };
}

/** One operation needs both. Of two that are missing AWS names one, in its message alone. */
function reEncryptSteps(result: Tried<unknown> | undefined, target: string): ProbeStep[] {
  const error = result?.error;
  const named = isDenied(error) ? RE_ENCRYPT.find((name) => error.awsMessage.includes(name)) : undefined;
  return RE_ENCRYPT.map((permission) => {
    if (named === undefined || named === permission) return stepOf(permission, result, target);
    return { permission, outcome: 'skipped', error: `AWS refuses ${named} before it says anything of this` };
  });
}

function isDenied(error: unknown): error is AwsKmsError {
  return error instanceof AwsKmsError && error.awsName === 'AccessDeniedException';
}

function facts(described: KeyFacts | undefined, encrypted: Ciphertext | undefined) {
  const key = encrypted?.key ?? described?.key;
  const keyVersion = described?.materialId;
  return {
    ...(key !== undefined && { resolvedKeyId: key.arn }),
    ...(keyVersion !== undefined && { keyVersion }),
  };
}

function warnings(uri: AwsKeyUri, kms: AwsOperations, described: KeyFacts | undefined): string[] {
  const ofTheKey = described === undefined ? [] : warningsOf(uri, described.metadata);
  const ofTheWay = [...kms.inTheClear].map((host) => {
    return `DEKs cross the network to ${host} in the clear: the endpoint is one of http:`;
  });
  return [...ofTheKey, ...ofTheWay];
}
