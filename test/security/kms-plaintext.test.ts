/** The memory of a process that wrapped and unwrapped many DEKs by AWS KMS. Needs `npm run build`. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { type AddressInfo, connect } from 'node:net';
import { join } from 'node:path';
import { createServer } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { DecryptCommand, KMSClient } from '@aws-sdk/client-kms';
import { describe, expect, it, onTestFinished } from 'vitest';
import { encryptionContext } from '../../src/kms/aws/operations.js';
import { selfSignedCertificate } from '../support/certificates.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { KmsFake } from '../support/kms-fake/kms-fake.js';
import { formsOf, type Needle, scanProcess } from '../support/memory-scan.js';
import { hasProgram } from '../support/programs.js';

const DIST = fileURLToPath(new URL('../../dist', import.meta.url));
const DEKS = 40;
const KEPT = 3;
const VOLUME = new Uint8Array(16).fill(0x5b);

/** Prints one line with every wrapped DEK, when it is done with them, and stays. */
const OURS = `
  const { KeyProviders } = await import(process.env.DIST + '/kms/registry.js');
  const { addon } = await import(process.env.DIST + '/native/addon.js');
  const { systemClock: clock } = await import(process.env.DIST + '/base/clock.js');
  const { nullLogger: log } = await import(process.env.DIST + '/base/log.js');
  const { systemRandom: random } = await import(process.env.DIST + '/keys/random.js');
  const providers = new KeyProviders({ dataDirectory: '/nonexistent', clock, random, log });
  const provider = providers.open(process.env.KEY_URI);
  const wrappedKeys = [];
  let failures = 0;
  const untilDone = async (work) => {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        if (++failures > 10) throw error;
      }
    }
  };
  for (let dekId = 1; dekId <= ${DEKS}; dekId++) {
    const context = { volumeUuid: new Uint8Array(16).fill(${VOLUME[0]}), dekId, exposed: false };
    const dek = addon.keyGenerate();
    const wrapped = await untilDone(() => provider.wrap(dek, context));
    await untilDone(() => provider.check(wrapped, context, dek));
    if (dekId !== ${KEPT}) addon.keyRelease(dek);
    wrappedKeys.push(Buffer.from(wrapped.blob).toString('base64'));
  }
  console.log(JSON.stringify({ wrappedKeys, failures }));
  setInterval(() => undefined, 1000);
`;

/** Prints a DEK's wrap, waits for a line, and asks for another wrap of it. Ends with the outcome on a line, and stays. */
const ASKED_TWICE = `
  import { once } from 'node:events';
  const { KeyProviders } = await import(process.env.DIST + '/kms/registry.js');
  const { addon } = await import(process.env.DIST + '/native/addon.js');
  const { systemClock: clock } = await import(process.env.DIST + '/base/clock.js');
  const { nullLogger: log } = await import(process.env.DIST + '/base/log.js');
  const { systemRandom: random } = await import(process.env.DIST + '/keys/random.js');
  const providers = new KeyProviders({ dataDirectory: '/nonexistent', clock, random, log });
  const provider = providers.open(process.env.KEY_URI);
  const context = { volumeUuid: new Uint8Array(16).fill(${VOLUME[0]}), dekId: 1, exposed: false };
  const dek = addon.keyGenerate();
  const { blob } = await provider.wrap(dek, context);
  console.log(JSON.stringify(Buffer.from(blob).toString('base64')));
  await once(process.stdin, 'data');
  await provider.wrap(dek, context).then(() => console.log('"wrapped"'), () => console.log('"failed"'));
  setInterval(() => undefined, 1000);
`;

/** The same question, asked with the SDK alone. */
const SDK_ALONE = `
  const { KMSClient, DecryptCommand } = await import('@aws-sdk/client-kms');
  const { blob, context } = JSON.parse(process.env.QUESTION);
  const command = { CiphertextBlob: Buffer.from(blob, 'base64'), EncryptionContext: context };
  globalThis.answer = await new KMSClient({}).send(new DecryptCommand(command));
  console.log('{}');
  setInterval(() => undefined, 1000);
`;

async function run(
  script: string,
  env: Record<string, string>,
): Promise<{ child: ChildProcess; said: unknown }> {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('AWS_'));
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    cwd: join(DIST, '..'),
    env: { ...Object.fromEntries(inherited), ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  let text = '';
  const said = await new Promise<unknown>((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`the process ended with ${code}`)));
    child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      if (text.endsWith('\n')) resolve(JSON.parse(text));
    });
  });
  return { child, said };
}

/** Whole, and in parts: what was freed may have lost its beginning. */
function needlesOf(name: string, dek: Buffer): Needle[] {
  const text = dek.toString('base64');
  return [
    ...formsOf(name, dek),
    { name: `${name}, second half`, bytes: dek.subarray(16) },
    { name: `${name}, base64 of the first half`, bytes: Buffer.from(text.slice(0, 20)) },
    { name: `${name}, base64 of the second half`, bytes: Buffer.from(text.slice(24, 42)) },
  ];
}

async function unwrapHere(kms: KmsFake, wrappedKeys: readonly string[]): Promise<Buffer[]> {
  const { accessKeyId, secretAccessKey } = kms.administratorCredentials;
  const credentials = { accessKeyId, secretAccessKey };
  const client = new KMSClient({ endpoint: kms.endpoint, region: kms.region, credentials });
  const deks: Buffer[] = [];
  for (const [i, blob] of wrappedKeys.entries()) {
    const command = new DecryptCommand({
      CiphertextBlob: Buffer.from(blob, 'base64'),
      EncryptionContext: encryptionContext({ volumeUuid: VOLUME, dekId: i + 1, exposed: false }),
    });
    deks.push(Buffer.from((await client.send(command)).Plaintext!));
  }
  client.destroy();
  return deks;
}

/** TLS in front of the fake: its address, and what trusts it. */
async function tlsInFront(kms: KmsFake): Promise<Record<string, string>> {
  const { key, cert } = await selfSignedCertificate(temporaryDirectory());
  const server = createServer({ key: readFileSync(key), cert: readFileSync(cert) }, (client) => {
    const upstream = connect(Number(new URL(kms.endpoint).port), '127.0.0.1');
    client.pipe(upstream).pipe(client);
    client.on('error', () => upstream.destroy());
    upstream.on('error', () => client.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  const { port } = server.address() as AddressInfo;
  return { AWS_ENDPOINT_URL_KMS: `https://127.0.0.1:${port}`, NODE_EXTRA_CA_CERTS: cert };
}

describe('a process that uses AWS KMS', () => {
  for (const protocol of ['http', 'https'] as const) {
    const title = `keeps no DEK outside of its slots over ${protocol}, answers that were torn included`;
    it.skipIf(protocol === 'https' && !hasProgram('openssl'))(title, async () => {
      if (!existsSync(DIST)) throw new Error('dist/ is missing: run "npm run build" first');
      const kms = await KmsFake.start();
      onTestFinished(() => kms.stop());
      const key = kms.createKey();
      const settings = { ...kms.environment(), ...(protocol === 'https' ? await tlsInFront(kms) : {}) };
      for (const fault of ['torn', 'truncated', 'reset', 'internal'] as const) {
        kms.inject(fault, {
          operations: ['Encrypt', 'Decrypt'].slice(fault === 'truncated' ? 1 : 0),
          times: 2,
        });
      }
      const { child, said } = await run(OURS, { ...settings, DIST, KEY_URI: `awskms:///${key.arn}` });
      const { wrappedKeys, failures } = said as { wrappedKeys: string[]; failures: number };
      kms.clearFaults();
      const deks = await unwrapHere(kms, wrappedKeys);
      expect(deks).toHaveLength(DEKS);
      expect(failures).toBeGreaterThan(0);

      const kept = deks.splice(KEPT - 1, 1)[0];
      const hits = scanProcess(child.pid!, [
        ...needlesOf('the DEK in use', kept),
        ...deks.flatMap((dek, i) => needlesOf(`DEK ${i}`, dek)),
      ]);
      // The scan sees what is there: the one DEK in its slot.
      expect(hits.filter(({ flags }) => flags.includes('lo')).map(({ name }) => name)).toContain(
        'the DEK in use, raw',
      );
      expect(hits.filter(({ flags }) => !flags.includes('lo'))).toEqual([]);
      expect(hits.filter(({ name }) => !name.startsWith('the DEK in use'))).toEqual([]);
    });
  }

  for (const protocol of ['http', 'https'] as const) {
    const title = `has the DEK of a request under way in locked memory alone, and in its slot after that, over ${protocol}`;
    it.skipIf(protocol === 'https' && !hasProgram('openssl'))(title, async () => {
      const kms = await KmsFake.start();
      onTestFinished(() => kms.stop());
      const key = kms.createKey();
      const settings = { ...kms.environment(), ...(protocol === 'https' ? await tlsInFront(kms) : {}) };
      const { child, said } = await run(ASKED_TWICE, { ...settings, DIST, KEY_URI: `awskms:///${key.arn}` });
      const [dek] = await unwrapHere(kms, [said as string]);
      const scan = () => scanProcess(child.pid!, needlesOf('DEK', dek));
      const inSlot = scan();
      expect(inSlot.map(({ name }) => name)).toEqual(['DEK, raw', 'DEK, second half']);

      kms.inject('hang', { operations: ['Encrypt'] });
      kms.clearRequests();
      child.stdin!.write('go\n');
      await expect.poll(() => kms.requests.length, { timeout: 30_000 }).toBeGreaterThan(0);
      const underWay = scan();
      // The scan sees the request.
      expect(underWay.map(({ name }) => name)).toContain('DEK, base64');
      for (const { name, flags } of underWay) {
        expect(flags, name).toEqual(expect.arrayContaining(['lo', 'dd', 'wf']));
      }

      child.stdout!.removeAllListeners('data');
      const [outcome] = (await once(child.stdout!, 'data')) as [string];
      expect(outcome).toBe('"failed"\n');
      expect(scan()).toEqual(inSlot);
    });
  }

  it('with the SDK alone would keep it: the scan finds what it looks for', async () => {
    const kms = await KmsFake.start();
    onTestFinished(() => kms.stop());
    const key = kms.createKey();
    const env = { ...kms.environment(), DIST, KEY_URI: `awskms:///${key.arn}` };
    const { said } = await run(OURS, env);
    const [blob] = (said as { wrappedKeys: string[] }).wrappedKeys;
    const [dek] = await unwrapHere(kms, [blob]);
    const context = encryptionContext({ volumeUuid: VOLUME, dekId: 1, exposed: false });
    const { child } = await run(SDK_ALONE, {
      ...kms.environment(),
      QUESTION: JSON.stringify({ blob, context }),
    });
    const names = scanProcess(child.pid!, needlesOf('DEK', dek)).map(({ name }) => name);
    expect(names).toContain('DEK, raw');
    expect(names).toContain('DEK, base64');
  });
});
