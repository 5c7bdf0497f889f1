import { describe, expect, it } from 'vitest';
import { nullLogger } from '../../src/base/log.js';
import { warnOfWeakPins } from '../../src/daemon/weak-pins.js';
import type { HeaderPins } from '../../src/keys/header-unwrap.js';
import { keyProviders, temporaryDirectory } from '../support/key-fixtures.js';

const KEY = 'awskms:///arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab';

function warningsOf(pin: HeaderPins): string[] {
  const said: string[] = [];
  const log = {
    ...nullLogger,
    warn: (fields: object, message: string) => void said.push(`${JSON.stringify(fields)} ${message}`),
  };
  warnOfWeakPins(new Map([['db', pin]]), keyProviders(temporaryDirectory()), log);
  return said;
}

describe('a pin', () => {
  it.each<[string, HeaderPins]>([
    ['of the ARN of a key', { keyUris: [KEY] }],
    ['of two of them and a uuid', { uuid: 'x', keyUris: [KEY, KEY.replace('us-east-1', 'eu-west-1')] }],
    ['of a cipher alone', { suite: 2 }],
  ])('%s goes without a warning', (_what, pin) => {
    expect(warningsOf(pin)).toEqual([]);
  });

  it.each([
    ['local:default', /local one.*can replace it/],
    ['awskms:///alias/main', /an alias, which any key fits that the daemon's principal may use/],
    [
      'awskms:///arn:aws:kms:us-east-1:111122223333:alias/main',
      /an alias, which any key fits that is in its region/,
    ],
    ['awskms:///1234abcd-12ab-34cd-56ef-1234567890ab', /key id without region and account: pin the ARN/],
    ['awskms://host/x', /no volume fits it/],
    ['vault:x', /no volume fits it/],
  ])('of %s is warned of, also beside one that holds', (keyUri, words) => {
    const said = warningsOf({ keyUris: [KEY, keyUri] });
    expect(said).toHaveLength(1);
    expect(said[0]).toContain(JSON.stringify({ volume: 'db', keyUri }));
    expect(said[0]).toMatch(words);
  });

  it('of a uuid without a key is warned of', () => {
    expect(warningsOf({ uuid: 'x' })).toEqual([expect.stringMatching(/the uuid is pinned without a key/)]);
  });
});
