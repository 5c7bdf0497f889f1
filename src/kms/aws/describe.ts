/** What AWS KMS knows about a key, in words, and what of it an operator should know beforehand. */
import type { KeyMetadata } from '@aws-sdk/client-kms';
import type { AwsKeyUri } from './key-uri.js';

const STATES: ReadonlyMap<string, string> = new Map(
  Object.entries({
    Enabled: 'is enabled',
    Disabled: 'is disabled',
    PendingDeletion: 'waits to be deleted',
    PendingReplicaDeletion: 'waits to be deleted once its replicas are',
    PendingImport: 'has no key material: it waits for an import',
    Unavailable: 'is unavailable: its key store is disconnected',
    Creating: 'is being created',
    Updating: 'is being updated',
  }),
);

/** "is disabled"; "waits to be deleted, on 2026-12-01T00:00:00.000Z". */
export function inWords({ KeyState: state, DeletionDate: deletion }: KeyMetadata): string {
  const words =
    state === undefined ? 'is in a state that AWS does not tell' : (STATES.get(state) ?? `is ${state}`);
  return deletion === undefined ? words : `${words}, on ${deletion.toISOString()}`;
}

export function warningsOf(uri: AwsKeyUri, metadata: KeyMetadata): string[] {
  const { KeyUsage: usage, KeySpec: spec, KeyState: state, KeyManager: manager, ValidTo: validTo } = metadata;
  const warnings: string[] = [];
  if (state !== undefined && state !== 'Enabled') warnings.push(`the key ${inWords(metadata)}`);
  if (usage !== undefined && usage !== 'ENCRYPT_DECRYPT') {
    warnings.push(`the key is for ${usage}; sealbd needs one for ENCRYPT_DECRYPT`);
  }
  if (spec !== undefined && spec !== 'SYMMETRIC_DEFAULT') {
    warnings.push(`the key is of the kind ${spec}; only SYMMETRIC_DEFAULT binds a wrap to its volume`);
  }
  if (manager === 'AWS') {
    warnings.push('the key is managed by AWS: you can neither disable it nor share it with another account');
  }
  if (validTo !== undefined) {
    warnings.push(`the key material was imported, and expires on ${validTo.toISOString()}`);
  }
  if (uri.isAlias) {
    warnings.push(
      'an alias can be pointed at another key: new wraps follow it, and as a pin it proves little; name a key ARN',
    );
  }
  return warnings;
}
