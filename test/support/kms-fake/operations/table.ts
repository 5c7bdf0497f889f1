/** Operations by the name that follows `TrentService.` in the header x-amz-target. */
import type { Call } from '../account.js';
import { notAuthorized } from '../errors.js';
import { createAlias, deleteAlias, listAliases, updateAlias } from './aliases.js';
import { decrypt, encrypt, reEncrypt } from './cryptographic.js';
import type { Operation } from './define.js';
import {
  cancelKeyDeletion,
  createKey,
  describeKey,
  disableKey,
  enableKey,
  rotateKeyOnDemand,
  scheduleKeyDeletion,
} from './keys.js';

export const OPERATIONS: ReadonlyMap<string, Operation> = new Map<string, Operation>([
  ['CancelKeyDeletion', cancelKeyDeletion],
  ['CreateAlias', createAlias],
  ['CreateKey', createKey],
  ['Decrypt', decrypt],
  ['DeleteAlias', deleteAlias],
  ['DescribeKey', describeKey],
  ['DisableKey', disableKey],
  ['EnableKey', enableKey],
  ['Encrypt', encrypt],
  ['ListAliases', listAliases],
  ['ReEncrypt', reEncrypt],
  ['RotateKeyOnDemand', rotateKeyOnDemand],
  ['ScheduleKeyDeletion', scheduleKeyDeletion],
  ['UpdateAlias', updateAlias],
  // Key policies do not grant these to the daemon: whoever calls one is told so, whoever it is.
  ['GenerateDataKey', neverGranted('GenerateDataKey')],
  ['GenerateDataKeyPair', neverGranted('GenerateDataKeyPair')],
  ['GenerateDataKeyPairWithoutPlaintext', neverGranted('GenerateDataKeyPairWithoutPlaintext')],
  ['GenerateDataKeyWithoutPlaintext', neverGranted('GenerateDataKeyWithoutPlaintext')],
]);

function neverGranted(name: string): Operation {
  return (call: Call) => {
    const anyKey = `${call.account.keys.arnPrefix}key/*`;
    throw notAuthorized(call.principal, `kms:${name}`, anyKey);
  };
}
