import { randomBytes } from 'node:crypto';
import { DecryptCommand, EncryptCommand, KMSClient } from '@aws-sdk/client-kms';
import { beforeEach, describe, expect, it } from 'vitest';
import { bodyWithKey, NO_KEY, receivingKey, sendingKey, takeKey } from '../../src/kms/aws/plaintext.js';
import { addon, type KeyHandle } from '../../src/native/addon.js';
import { secretBuffer } from '../../src/native/secret-buffer.js';
import { expectNoLeakedSlots } from '../support/key-fixtures.js';

const ZEROS = `${'A'.repeat(43)}=`;

function importKey(bytes: Buffer): KeyHandle {
  const copy = secretBuffer(bytes.length);
  copy.set(bytes);
  return addon.keyImport(copy);
}

function textOf(content: string): Buffer {
  const text = secretBuffer(Buffer.byteLength(content));
  text.write(content);
  return text;
}

describe('the request that carries a DEK', () => {
  beforeEach(expectNoLeakedSlots);

  it('is what the SDK wrote, with the key in place of the zeros', () => {
    const secret = randomBytes(32);
    const dek = importKey(secret);
    const written = Buffer.from(
      `{"KeyId":"alias/a","Plaintext":"${ZEROS}","EncryptionContext":{"a":"${ZEROS}"}}`,
    );
    const body = bodyWithKey(written, dek);
    addon.keyRelease(dek);
    expect(JSON.parse(body.toString())).toEqual({
      KeyId: 'alias/a',
      Plaintext: secret.toString('base64'),
      EncryptionContext: { a: ZEROS },
    });
    expect(JSON.parse(written.toString()).Plaintext).toBe(ZEROS);
  });

  it.each([
    ['no place for the key', '{"KeyId":"alias/a"}'],
    ['two places', `{"Plaintext":"${ZEROS}","X":{"Plaintext":"${ZEROS}"}}`],
    ['something else there', `{"Plaintext":"${'B'.repeat(43)}="}`],
  ])('is not sent with %s', (_what, text) => {
    const dek = addon.keyGenerate();
    expect(() => bodyWithKey(Buffer.from(text), dek)).toThrow(TypeError);
    expect(() => bodyWithKey(text, dek)).toThrow(TypeError);
    addon.keyRelease(dek);
  });
});

describe('the answer that carries a DEK', () => {
  beforeEach(expectNoLeakedSlots);

  it.each([
    ['as KMS writes it', (key: string) => `{"KeyId":"arn","Plaintext":"${key}","X":"Plaintext"}`],
    ['with spaces', (key: string) => `{ "Plaintext" :\n "${key}" }`],
    ['behind escapes', (key: string) => `{"X":"\\"Plaintext\\":\\"","Plaintext":"${key}"}`],
  ])('gives it up, %s, and holds zeros', (_what, write) => {
    const secret = randomBytes(32);
    const text = textOf(write(secret.toString('base64')));
    const key = takeKey(text);
    const same = importKey(secret);
    expect(addon.keyEquals(key, same)).toBe(true);
    for (const handle of [key, same]) addon.keyRelease(handle);
    expect(text.toString()).toBe(write(ZEROS));
  });

  const secret = randomBytes(32).toString('base64').replaceAll('/', 'x');
  const refused: [string, string, string][] = [
    ['none', '{"KeyId":"arn"}', 'SyntaxError'],
    ['two', `{"Plaintext":"${secret}","Plaintext":"${secret}"}`, 'SyntaxError'],
    ['a second one inside', `{"Plaintext":"${secret}","X":{"Plaintext":"${secret}"}}`, 'SyntaxError'],
    ['one that is cut off', `{"Plaintext":"${secret.slice(0, 30)}`, 'SyntaxError'],
    ['one that does not end', `{"Plaintext":"${secret}`, 'SyntaxError'],
    ['a name with an escape', `{"Pl\\u0061intext":"${secret}"}`, 'SyntaxError'],
    ['a value with an escape', `{"Plaintext":"\\u0041${secret.slice(1)}"}`, 'SyntaxError'],
    ['one that is no text', '{"Plaintext":null}', 'SyntaxError'],
    ['null before another text', `{"Plaintext":null,"KeyId":"${secret}"}`, 'SyntaxError'],
    ['an object', `{"Plaintext":{"KeyId":"${secret}"}}`, 'SyntaxError'],
    ['one that is not base64', `{"Plaintext":"!${secret.slice(1)}"}`, 'SyntaxError'],
    ['base64 that nobody writes', `{"Plaintext":"${ZEROS.replace('A=', 'B=')}"}`, 'SyntaxError'],
    ['three characters', '{"Plaintext":"AAA"}', 'SyntaxError'],
    ['padding in the middle', `{"Plaintext":"AA==${secret.slice(4)}"}`, 'SyntaxError'],
    ['3 bytes', '{"Plaintext":"AAAA"}', 'KmsError'],
    ['31 bytes', `{"Plaintext":"${randomBytes(31).toString('base64')}"}`, 'KmsError'],
    ['a page', `<html>${secret}</html>`, 'SyntaxError'],
    ['16 bytes', `{"Plaintext":"${randomBytes(16).toString('base64')}"}`, 'KmsError'],
    ['33 bytes', `{"Plaintext":"${randomBytes(33).toString('base64')}"}`, 'KmsError'],
    ['nothing', '{"Plaintext":""}', 'SyntaxError'],
  ];
  it.each(refused)('is wiped as a whole where it holds %s', (_what, content, name) => {
    const text = textOf(content);
    expect(() => takeKey(text)).toThrow(expect.objectContaining({ name }));
    expect(text.equals(Buffer.alloc(text.length))).toBe(true);
  });
});

describe('the attempts of a request', () => {
  beforeEach(expectNoLeakedSlots);

  /** A client whose attempts `answer` answers; an attempt that it throws in is made again. */
  function clientWith(answer: (request: { body: Buffer }, attempt: number) => Buffer): KMSClient {
    let attempts = 0;
    return new KMSClient({
      region: 'us-east-1',
      credentials: { accessKeyId: 'a', secretAccessKey: 'b' },
      maxAttempts: 3,
      requestHandler: {
        handle: async (request: { body: Buffer }) => {
          attempts += 1;
          const headers = { 'content-type': 'application/x-amz-json-1.1' };
          return { response: { statusCode: 200, headers, body: answer(request, attempts) } };
        },
      } as never,
    });
  }
  const lost = (): Error => Object.assign(new Error('no answer'), { name: 'TimeoutError' });
  const wrapping = () => new EncryptCommand({ KeyId: 'alias/a', Plaintext: NO_KEY });

  it('have a body each, which is gone when the next one is made', async () => {
    const secret = randomBytes(32);
    const dek = importKey(secret);
    const bodies: Buffer[] = [];
    const client = clientWith(({ body }, attempt) => {
      for (const earlier of bodies) expect(earlier.length).toBe(0);
      expect(JSON.parse(body.toString()).Plaintext).toBe(secret.toString('base64'));
      bodies.push(body);
      if (attempt < 3) throw lost();
      return Buffer.from('{"CiphertextBlob":"AAAA"}');
    });
    const command = wrapping();
    const { signal } = new AbortController();
    await sendingKey(command, dek, signal, () => client.send(command, { abortSignal: signal }));
    expect(bodies.map(({ length }) => length)).toEqual([0, 0, 0]);
    addon.keyRelease(dek);
  });

  it('leave no body behind while the next one is waited for, which ends with the wish for it', async () => {
    const dek = addon.keyGenerate();
    const bodies: Buffer[] = [];
    const given = new AbortController();
    const client = clientWith(({ body }) => {
      bodies.push(body);
      // In the pause before the second attempt.
      setImmediate(() => {
        expect(body.length).toBe(0);
        given.abort();
      });
      throw lost();
    });
    const command = wrapping();
    const send = () => client.send(command, { abortSignal: given.signal });
    await expect(sendingKey(command, dek, given.signal, send)).rejects.toThrow();
    expect(bodies.map(({ length }) => length)).toEqual([0]);
    addon.keyRelease(dek);
  });

  it('are not made with a key once nobody waits', async () => {
    const dek = addon.keyGenerate();
    const client = clientWith(() => expect.unreachable());
    const command = wrapping();
    const send = () => client.send(command);
    await expect(sendingKey(command, dek, AbortSignal.abort(), send)).rejects.toThrow(/abort/);
    addon.keyRelease(dek);
  });

  it('give one key, though each has brought one', async () => {
    const keys = [randomBytes(32), randomBytes(32)];
    const client = clientWith((_request, attempt) => {
      return textOf(`{"KeyId":"arn","Plaintext":"${keys[attempt - 1].toString('base64')}"}`);
    });
    const command = new DecryptCommand({ CiphertextBlob: new Uint8Array(8) });
    let first = true;
    command.middlewareStack.add(
      (next) => async (args) => {
        const result = await next(args);
        if (first) {
          first = false;
          throw lost();
        }
        return result;
      },
      { step: 'deserialize', priority: 'high' },
    );
    const { signal } = new AbortController();
    const { key } = await receivingKey(command, signal, () => client.send(command));
    const second = importKey(keys[1]);
    expect(addon.keyEquals(key, second)).toBe(true);
    for (const handle of [key, second]) addon.keyRelease(handle);
  });
});
