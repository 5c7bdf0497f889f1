/** Encrypt, Decrypt and ReEncrypt. */
import type { Call } from '../account.js';
import { type Ciphertext, type EncryptionContext, open, parse, seal } from '../ciphertext.js';
import { AwsError } from '../errors.js';
import type { Action } from '../grants.js';
import type { FakeKey } from '../keys.js';
import { optional, required } from '../parameters.js';
import { operation } from './define.js';

const ALGORITHM = 'SYMMETRIC_DEFAULT';
const keyId = { min: 1, max: 2048 };
const ciphertextBlob = required('blob', { min: 1, max: 6144 });
const algorithm = optional('string', { oneOf: [ALGORITHM] });
const common = { GrantTokens: optional('strings'), DryRun: optional('boolean') };

export const encrypt = operation(
  {
    KeyId: required('string', keyId),
    Plaintext: required('blob', { min: 1, max: 4096 }),
    EncryptionContext: optional('context'),
    EncryptionAlgorithm: algorithm,
    ...common,
  },
  (call, input) => {
    const context = input.EncryptionContext ?? {};
    call.record.key = input.KeyId;
    call.record.context = context;
    const key = call.account.keys.resolve(input.KeyId);
    call.record.key = key.arn;
    requireUsable(call, key, 'kms:Encrypt');
    finishChecks(input);
    return {
      CiphertextBlob: seal(key.id, key.current, input.Plaintext, context).toString('base64'),
      EncryptionAlgorithm: ALGORITHM,
      KeyId: key.arn,
    };
  },
);

export const decrypt = operation(
  {
    CiphertextBlob: ciphertextBlob,
    KeyId: optional('string', keyId),
    EncryptionContext: optional('context'),
    EncryptionAlgorithm: algorithm,
    ...common,
  },
  (call, input) => {
    const context = input.EncryptionContext ?? {};
    call.record.context = context;
    const { key, ciphertext } = source(call, input.CiphertextBlob, input.KeyId);
    requireUsable(call, key, 'kms:Decrypt');
    const plaintext = openOrThrow(key, ciphertext, context);
    finishChecks(input);
    return {
      EncryptionAlgorithm: ALGORITHM,
      KeyId: key.arn,
      KeyMaterialId: ciphertext.materialId,
      Plaintext: plaintext.toString('base64'),
    };
  },
);

export const reEncrypt = operation(
  {
    CiphertextBlob: ciphertextBlob,
    SourceKeyId: optional('string', keyId),
    SourceEncryptionContext: optional('context'),
    SourceEncryptionAlgorithm: algorithm,
    DestinationKeyId: required('string', keyId),
    DestinationEncryptionContext: optional('context'),
    DestinationEncryptionAlgorithm: algorithm,
    ...common,
  },
  (call, input) => {
    const sourceContext = input.SourceEncryptionContext ?? {};
    const context = input.DestinationEncryptionContext ?? {};
    call.record.context = sourceContext;
    call.record.destinationKey = input.DestinationKeyId;
    call.record.destinationContext = context;
    const from = source(call, input.CiphertextBlob, input.SourceKeyId);
    const to = call.account.keys.resolve(input.DestinationKeyId);
    call.record.destinationKey = to.arn;
    requireUsable(call, from.key, 'kms:ReEncryptFrom');
    requireUsable(call, to, 'kms:ReEncryptTo');
    const plaintext = openOrThrow(from.key, from.ciphertext, sourceContext);
    finishChecks(input);
    return {
      CiphertextBlob: seal(to.id, to.current, plaintext, context).toString('base64'),
      DestinationEncryptionAlgorithm: ALGORITHM,
      DestinationKeyMaterialId: to.current.id,
      KeyId: to.arn,
      SourceEncryptionAlgorithm: ALGORITHM,
      SourceKeyId: from.key.arn,
      SourceKeyMaterialId: from.ciphertext.materialId,
    };
  },
);

/** The key that wrapped a blob, which must be the one that the request names, where it names one. */
function source(
  call: Call,
  blob: Buffer,
  named: string | undefined,
): { key: FakeKey; ciphertext: Ciphertext } {
  if (named !== undefined) call.record.key = named;
  const ciphertext = parse(blob);
  if (ciphertext === undefined) throw invalidCiphertext();
  const expected = named === undefined ? undefined : call.account.keys.resolve(named);
  const key = call.account.keys.byId(ciphertext.keyId);
  call.record.key = (expected ?? key)?.arn ?? ciphertext.keyId;
  if (expected !== undefined && expected !== key) {
    throw new AwsError(
      'IncorrectKeyException',
      'The key ID in the request does not identify a CMK that can perform this operation.',
    );
  }
  if (key === undefined) {
    throw new AwsError(
      'AccessDeniedException',
      'The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are ' +
        'not allowed to access.',
    );
  }
  return { key, ciphertext };
}

function requireUsable(call: Call, key: FakeKey, action: Action): void {
  call.authorize(action, key.arn);
  key.requireEnabled(call.account.pendingDeletionError);
}

function openOrThrow(key: FakeKey, ciphertext: Ciphertext, context: EncryptionContext): Buffer {
  const material = key.material(ciphertext.materialId);
  const plaintext = material === undefined ? undefined : open(ciphertext, material, context);
  if (plaintext === undefined) throw invalidCiphertext();
  return plaintext;
}

/** AWS says nothing about the reason. */
function invalidCiphertext(): AwsError {
  return new AwsError('InvalidCiphertextException');
}

function finishChecks(input: {
  readonly GrantTokens: readonly string[] | undefined;
  readonly DryRun: boolean | undefined;
}): void {
  if (input.GrantTokens !== undefined && input.GrantTokens.length > 0) {
    throw new AwsError('InvalidGrantTokenException', 'The grant token is not valid');
  }
  if (input.DryRun === true) {
    throw new AwsError(
      'DryRunOperationException',
      'The request would have succeeded, but the DryRun option is set.',
    );
  }
}
