/** Operations that make, show and change keys. */
import type { Account, Call } from '../account.js';
import { invalidState } from '../errors.js';
import type { Action } from '../grants.js';
import type { FakeKey, KeyState } from '../keys.js';
import { optional, required } from '../parameters.js';
import { operation } from './define.js';

const DAY_MS = 24 * 3_600_000;
const WINDOW_DAYS_DEFAULT = 30;
const model = { KeyId: required('string', { min: 1, max: 2048 }) };

/** Only the kind of key that the fake has: symmetric, with material made by KMS, of one region. */
export const createKey = operation(
  {
    Description: optional('string', { max: 8192 }),
    KeyUsage: optional('string', { oneOf: ['ENCRYPT_DECRYPT'] }),
    KeySpec: optional('string', { oneOf: ['SYMMETRIC_DEFAULT'] }),
    Origin: optional('string', { oneOf: ['AWS_KMS'] }),
  },
  (call, input) => {
    call.authorize('kms:CreateKey', '*');
    const key = call.account.createKey(input.Description ?? '');
    call.record.key = key.arn;
    return { KeyMetadata: metadata(call.account, key) };
  },
);

/** Answers in every state of a key. */
export const describeKey = operation(model, (call, input) => {
  call.record.key = input.KeyId;
  const key = call.account.keys.resolve(input.KeyId);
  call.record.key = key.arn;
  call.authorize('kms:DescribeKey', key.arn);
  return { KeyMetadata: metadata(call.account, key) };
});

export const enableKey = operation(model, (call, input) => {
  switchKey(call, input.KeyId, 'kms:EnableKey', 'Enabled');
  return undefined;
});

export const disableKey = operation(model, (call, input) => {
  switchKey(call, input.KeyId, 'kms:DisableKey', 'Disabled');
  return undefined;
});

export const scheduleKeyDeletion = operation(
  { ...model, PendingWindowInDays: optional('integer', { min: 7, max: 30 }) },
  (call, input) => {
    const { account } = call;
    const key = managedKey(call, input.KeyId, 'kms:ScheduleKeyDeletion');
    requireNotPendingDeletion(key);
    const windowDays = input.PendingWindowInDays ?? WINDOW_DAYS_DEFAULT;
    account.setState(key, 'PendingDeletion', account.changes.clientLag, windowDays);
    return {
      DeletionDate: (account.now() + windowDays * DAY_MS) / 1000,
      KeyId: key.arn,
      KeyState: 'PendingDeletion',
      PendingWindowInDays: windowDays,
    };
  },
);

export const cancelKeyDeletion = operation(model, (call, input) => {
  const { account } = call;
  const key = managedKey(call, input.KeyId, 'kms:CancelKeyDeletion');
  if (key.state !== 'PendingDeletion') throw invalidState(`${key.arn} is not pending deletion.`);
  account.setState(key, 'Disabled', account.changes.clientLag);
  return { KeyId: key.arn };
});

export const rotateKeyOnDemand = operation(model, (call, input) => {
  const key = managedKey(call, input.KeyId, 'kms:RotateKeyOnDemand');
  key.requireEnabled('KMSInvalidStateException');
  call.change(() => key.rotate());
  return { KeyId: key.arn };
});

function switchKey(call: Call, keyId: string, action: Action, state: KeyState): void {
  const key = managedKey(call, keyId, action);
  requireNotPendingDeletion(key);
  if (key.state === 'PendingImport') throw invalidState(`${key.arn} is pending import.`);
  call.account.setState(key, state, call.account.changes.clientLag);
}

function managedKey(call: Call, keyId: string, action: Action): FakeKey {
  call.record.key = keyId;
  const key = call.account.keys.resolveKey(keyId);
  call.record.key = key.arn;
  call.authorize(action, key.arn);
  return key;
}

function requireNotPendingDeletion(key: FakeKey): void {
  if (key.state === 'PendingDeletion') throw invalidState(`${key.arn} is pending deletion.`);
}

/** Only imported keys wait for an import, only those of a custom key store are unavailable. */
const ORIGINS: Readonly<Partial<Record<KeyState, string>>> = {
  PendingImport: 'EXTERNAL',
  Unavailable: 'AWS_CLOUDHSM',
};

function metadata(account: Account, key: FakeKey): Readonly<Record<string, unknown>> {
  return {
    AWSAccountId: account.accountId,
    Arn: key.arn,
    CreationDate: key.createdAtMs / 1000,
    CurrentKeyMaterialId: key.current.id,
    CustomerMasterKeySpec: 'SYMMETRIC_DEFAULT',
    ...(key.deletionAtMs === undefined ? {} : { DeletionDate: key.deletionAtMs / 1000 }),
    Description: key.description,
    Enabled: key.state === 'Enabled',
    EncryptionAlgorithms: ['SYMMETRIC_DEFAULT'],
    KeyId: key.id,
    KeyManager: 'CUSTOMER',
    KeySpec: 'SYMMETRIC_DEFAULT',
    KeyState: key.state,
    KeyUsage: 'ENCRYPT_DECRYPT',
    MultiRegion: false,
    Origin: ORIGINS[key.state] ?? 'AWS_KMS',
  };
}
