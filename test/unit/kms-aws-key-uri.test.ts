import { describe, expect, it } from 'vitest';
import { isKeyOf, parseAwsKeyUri, parseKeyArn } from '../../src/kms/aws/key-uri.js';
import { keyProviders } from '../support/key-fixtures.js';

const ID = '1234abcd-12ab-34cd-56ef-1234567890ab';
const MRK = `mrk-${'0123456789abcdef'.repeat(2)}`;
const ARN = `arn:aws:kms:eu-central-1:111122223333:key/${ID}`;
const ALIAS_ARN = 'arn:aws:kms:eu-central-1:111122223333:alias/team/volumes';

describe('an awskms: URI', () => {
  const good: [string, object][] = [
    [ARN, { keyId: ARN, isAlias: false, region: 'eu-central-1', account: '111122223333', id: ID }],
    [`arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/${MRK}`, { region: 'us-gov-west-1', id: MRK }],
    [`arn:aws-cn:kms:cn-north-1:111122223333:key/${ID}`, { partition: 'aws-cn', region: 'cn-north-1' }],
    [`arn:aws-eusc:kms:eusc-de-east-1:111122223333:key/${ID}`, { region: 'eusc-de-east-1' }],
    [ALIAS_ARN, { keyId: ALIAS_ARN, isAlias: true, region: 'eu-central-1', id: undefined }],
    ['alias/team/volumes', { keyId: 'alias/team/volumes', isAlias: true, region: undefined, id: undefined }],
    [ID, { keyId: ID, isAlias: false, region: undefined, id: ID }],
    [MRK, { keyId: MRK, isAlias: false, id: MRK }],
  ];
  it.each(good)('takes %s', (key, expected) => {
    expect(parseAwsKeyUri(`awskms:///${key}`)).toMatchObject(expected);
  });

  const bad = [
    'awskms:',
    'awskms:///',
    `awskms://${ARN}`,
    `awskms:${ARN}`,
    `awskms:////${ARN}`,
    `awskms:///${ARN}/`,
    `awskms:///${ARN}\n`,
    `awskms:///${ARN}?endpoint=http://evil.example`,
    `awskms:///${ID.toUpperCase()}`,
    `awskms:///${ID.slice(1)}`,
    'awskms:///key/default',
    'awskms:///alias/',
    'awskms:///alias/with space',
    'awskms:///alias/ü',
    `awskms:///alias/${'a'.repeat(251)}`,
    `awskms:///arn:aws:s3:eu-central-1:111122223333:key/${ID}`,
    `awskms:///arn:aws:kms::111122223333:key/${ID}`,
    `awskms:///arn:aws:kms:eu-central-1:1111:key/${ID}`,
    `awskms:///arn:aws:kms:evil.example/:111122223333:key/${ID}`,
    `awskms:///arn:aws:kms:evil.example:111122223333:key/${ID}`,
    `awskms:///arn:aws:kms:x@evil-1:111122223333:key/${ID}`,
    `awskms:///arn:evil:kms:eu-central-1:111122223333:key/${ID}`,
  ];
  it.each(bad)('%j is bad usage', (uri) => {
    expect(() => keyProviders('/nonexistent').open(uri)).toThrow(
      expect.objectContaining({ code: 'USAGE', message: expect.stringContaining(uri) }),
    );
  });

  it('that names a host is told where endpoints come from', () => {
    const uri = `awskms://kms.example/${ID}`;
    expect(() => parseAwsKeyUri(uri)).toThrow(
      /expected a key ARN .* an endpoint comes from the AWS settings/,
    );
  });
});

describe('the ARN that is stored with a wrap', () => {
  const key = parseKeyArn(ARN)!;

  it('is that of a key, never of an alias', () => {
    expect(key).toEqual({
      arn: ARN,
      partition: 'aws',
      region: 'eu-central-1',
      account: '111122223333',
      id: ID,
    });
    expect(parseKeyArn(ALIAS_ARN)).toBeUndefined();
    expect(parseKeyArn(ID)).toBeUndefined();
  });

  const of: [string, string, boolean][] = [
    ['the same ARN', ARN, true],
    ['another key', ARN.replace('1234abcd', 'ffffffff'), false],
    ['another account', ARN.replace('111122223333', '444455556666'), false],
    ['another region', ARN.replace('eu-central-1', 'us-east-1'), false],
    ['another partition', ARN.replace('arn:aws:', 'arn:aws-cn:'), false],
    ['the key id', ID, true],
    ['another key id', ID.replace('1234abcd', 'ffffffff'), false],
    ['an alias', 'alias/any', true],
    ['an alias of the same account and region', ALIAS_ARN, true],
    ['an alias of another account', ALIAS_ARN.replace('111122223333', '444455556666'), false],
    ['an alias of another region', ALIAS_ARN.replace('eu-central-1', 'us-east-1'), false],
  ];
  it.each(of)('against a URI of %s', (_what, uri, expected) => {
    expect(isKeyOf(parseAwsKeyUri(`awskms:///${uri}`), key)).toBe(expected);
  });
});
