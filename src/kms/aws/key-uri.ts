/**
 * `awskms:///KEY` and key ARNs. Pure.
 *
 * A URI, and the ARN that is stored with a wrapped DEK, may come from a superblock that somebody tampered with. So
 * neither can name a host: of what they hold only an ARN's region reaches the address of a request, and only as one
 * label of KMS's own host names (`kms.REGION.amazonaws.com`, or the endpoint that the daemon's AWS settings give).
 * What a forged region can do is to have the daemon ask AWS KMS in another region, which says no. And the stored ARN
 * must be a key that the URI can mean (`isKeyOf`): a pinned URI would prove nothing if the DEK could be unwrapped with
 * any other key.
 */
import { SealbdError } from '../../base/errors.js';

const PARTITION = 'aws(?:-[a-z]{1,12}){0,3}';
const REGION = '[a-z]{2,8}(?:-[a-z]{2,12}){1,3}-[0-9]{1,2}';
const ACCOUNT = '[0-9]{12}';
/** A uuid, or the id of a multi-Region key. */
const KEY_ID = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|mrk-[0-9a-f]{32}';
const ALIAS = 'alias/[A-Za-z0-9/_-]{1,250}';

const ARN_PATTERN = new RegExp(
  `^arn:(${PARTITION}):kms:(${REGION}):(${ACCOUNT}):(?:key/(${KEY_ID})|(${ALIAS}))$`,
);
const KEY_ID_PATTERN = new RegExp(`^(?:${KEY_ID})$`);
const ALIAS_PATTERN = new RegExp(`^(?:${ALIAS})$`);

const PREFIX = 'awskms:///';
export const AWS_KEY_SYNTAX = 'awskms:///KEY';
const EXPECTED =
  'a key ARN (arn:aws:kms:REGION:ACCOUNT:key/ID), a key id, alias/NAME or an alias ARN after awskms:///';

/** A key, never an alias. */
export interface KeyArn {
  readonly arn: string;
  readonly partition: string;
  readonly region: string;
  readonly account: string;
  readonly id: string;
}

export interface AwsKeyUri {
  readonly uri: string;
  /** What KMS gets as KeyId. */
  readonly keyId: string;
  readonly isAlias: boolean;
  /** What the URI says about the key; undefined where it leaves that to the daemon's AWS settings, or to the alias. */
  readonly partition: string | undefined;
  readonly region: string | undefined;
  readonly account: string | undefined;
  readonly id: string | undefined;
}

/** Throws USAGE. */
export function parseAwsKeyUri(uri: string): AwsKeyUri {
  const keyId = uri.slice(PREFIX.length);
  if (uri.startsWith(PREFIX)) {
    const arn = ARN_PATTERN.exec(keyId);
    if (arn !== null) {
      const [, partition, region, account, id, alias] = arn;
      return { uri, keyId, isAlias: alias !== undefined, partition, region, account, id };
    }
    const unnamed = { partition: undefined, region: undefined, account: undefined };
    if (KEY_ID_PATTERN.test(keyId)) return { uri, keyId, isAlias: false, ...unnamed, id: keyId };
    if (ALIAS_PATTERN.test(keyId)) return { uri, keyId, isAlias: true, ...unnamed, id: undefined };
  }
  const host = /^awskms:\/\/[^/]/.test(uri)
    ? '; an endpoint comes from the AWS settings, not from the URI'
    : '';
  throw new SealbdError('USAGE', `key "${uri}" is not ${AWS_KEY_SYNTAX}: expected ${EXPECTED}${host}`);
}

export function parseKeyArn(text: string): KeyArn | undefined {
  const match = ARN_PATTERN.exec(text);
  if (match === null || match[4] === undefined) return undefined;
  const [arn, partition, region, account, id] = match;
  return { arn, partition, region, account, id };
}

/**
 * Whether the URI can mean that key. An alias can mean any key of its region and account, today's or an earlier one;
 * an alias without an ARN, any key at all that the daemon's principal may use. So pin ARNs of keys.
 */
export function isKeyOf(uri: AwsKeyUri, key: KeyArn): boolean {
  return (['partition', 'region', 'account', 'id'] as const).every((part) => {
    return uri[part] === undefined || uri[part] === key[part];
  });
}

/** A pin must mean one key: who writes the disk brings a wrap by another one that fits, if there is any. */
export function weaknessAsPin(uri: AwsKeyUri): string | undefined {
  if (uri.isAlias) {
    const where =
      uri.account === undefined ? "the daemon's principal may use" : 'is in its region and account';
    return `it is an alias, which any key fits that ${where}: pin the ARN of the key`;
  }
  return uri.account === undefined
    ? 'it is a key id without region and account: pin the ARN of the key'
    : undefined;
}
