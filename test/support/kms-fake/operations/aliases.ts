/** Operations on aliases. An alias can be pointed at another key without a word to those who use it. */
import type { Call } from '../account.js';
import { AwsError, invalidState, notFound, validation } from '../errors.js';
import type { Action } from '../grants.js';
import type { FakeKey } from '../keys.js';
import { optional, required } from '../parameters.js';
import { operation } from './define.js';

const aliasName = required('string', { min: 1, max: 256, pattern: /^[a-zA-Z0-9:/_-]+$/ });
const model = { AliasName: aliasName, TargetKeyId: required('string', { min: 1, max: 2048 }) };

export const createAlias = operation(model, (call, input) => {
  checkName(input.AliasName);
  const key = target(call, input.TargetKeyId, 'kms:CreateAlias');
  if (call.account.keys.aliasTarget(input.AliasName) !== undefined) {
    const arn = call.account.keys.arnPrefix + input.AliasName;
    throw new AwsError('AlreadyExistsException', `An alias with the name ${arn} already exists`);
  }
  call.change(() => call.account.keys.setAlias(input.AliasName, key));
  return undefined;
});

export const updateAlias = operation(model, (call, input) => {
  checkName(input.AliasName);
  const key = target(call, input.TargetKeyId, 'kms:UpdateAlias');
  const old = existing(call, input.AliasName);
  call.authorize('kms:UpdateAlias', old.arn);
  call.change(() => call.account.keys.setAlias(input.AliasName, key));
  return undefined;
});

export const deleteAlias = operation({ AliasName: aliasName }, (call, input) => {
  checkName(input.AliasName);
  const key = existing(call, input.AliasName);
  call.record.key = key.arn;
  call.authorize('kms:DeleteAlias', key.arn);
  call.change(() => call.account.keys.deleteAlias(input.AliasName));
  return undefined;
});

/** All of them in one answer: it is never truncated. */
export const listAliases = operation({ KeyId: optional('string', { min: 1, max: 2048 }) }, (call, input) => {
  call.authorize('kms:ListAliases', '*');
  const key = input.KeyId === undefined ? undefined : call.account.keys.resolveKey(input.KeyId);
  const aliases = call.account.keys.aliases.filter(({ keyId }) => key === undefined || keyId === key.id);
  return {
    Aliases: aliases.map(({ name, arn, keyId }) => ({ AliasArn: arn, AliasName: name, TargetKeyId: keyId })),
    Truncated: false,
  };
});

function checkName(name: string): void {
  if (!name.startsWith('alias/')) {
    throw validation(
      'Alias must start with the prefix "alias/". Please see ' +
        'https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html',
    );
  }
  if (name.startsWith('alias/aws/')) throw new AwsError('NotAuthorizedException');
  if (name.includes(':')) throw validation(`${name} contains invalid characters for an alias`);
}

function target(call: Call, keyId: string, action: Action): FakeKey {
  call.record.key = keyId;
  if (/(^|:)alias\//.test(keyId)) throw validation('Aliases must refer to keys. Not aliases');
  const key = call.account.keys.resolveKey(keyId);
  call.record.key = key.arn;
  call.authorize(action, key.arn);
  if (key.state === 'PendingDeletion') throw invalidState(`${key.arn} is pending deletion.`);
  return key;
}

function existing(call: Call, name: string): FakeKey {
  const key = call.account.keys.aliasTarget(name);
  if (key === undefined) throw notFound(`Alias ${call.account.keys.arnPrefix}${name} is not found.`);
  return key;
}
