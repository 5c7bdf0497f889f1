/** `npm run kms-fake`: what it prints works as printed. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DescribeKeyCommand } from '@aws-sdk/client-kms';
import { beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { mustRun } from '../support/programs.js';
import { unwrap, wrap } from './fake-and-client.js';
import { errorNameOf, kmsClient } from './kms-client.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const PROGRAM = join(ROOT, 'build/kms-fake/main.js');
const COMPILE_TIMEOUT_MS = 120_000;
const WAIT_MS = 30_000;

async function startProgram() {
  const child = spawn(process.execPath, [PROGRAM, '--port', '0'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  onTestFinished(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  await vi.waitFor(() => expect(text).toContain('to show late.'), WAIT_MS);
  const settings = new Map(
    [...text.matchAll(/^ {2}export (\w+)=(.*)$/gm)].map(([, name, value]) => [name, value]),
  );
  const setting = (name: string): string => settings.get(name) ?? `${name} is not printed`;
  const client = kmsClient({
    endpoint: setting('AWS_ENDPOINT_URL_KMS'),
    region: setting('AWS_REGION'),
    credentials: {
      accessKeyId: setting('AWS_ACCESS_KEY_ID'),
      secretAccessKey: setting('AWS_SECRET_ACCESS_KEY'),
    },
  });
  onTestFinished(() => client.destroy());
  const [, url] = /curl -s (\S+) -d/.exec(text) ?? [];
  const printed = [...text.matchAll(/curl -s \S+ -d '(.*)'$/gm)].map(([, command]) => command);
  const post = async (body: string, headers: Record<string, string> = {}) => {
    const answer = await fetch(url!, { method: 'POST', body, headers });
    return { status: answer.status, body: (await answer.json()) as Record<string, unknown> };
  };
  const alias = /key awskms:\/\/\/(\S+)/.exec(text)?.[1] ?? 'no key is printed';
  return { child, ended, client, post, printed, alias };
}

describe('the program', () => {
  beforeAll(async () => {
    const compiler = join(ROOT, 'node_modules/typescript/bin/tsc');
    await mustRun(process.execPath, [compiler, '-p', join(ROOT, 'tsconfig.kms-fake.json')]);
  }, COMPILE_TIMEOUT_MS);

  it('serves a key under the alias and settings that it prints, and ends on SIGTERM', async () => {
    const { child, ended, client, alias } = await startProgram();
    await unwrap(client, await wrap(client, alias));
    child.kill('SIGTERM');
    expect(await ended).toBe(0);
  });

  it('takes the key away and gives it back, by the command lines that it prints', async () => {
    const { client, alias, post, printed } = await startProgram();
    const describeKey = () => client.send(new DescribeKeyCommand({ KeyId: alias }));
    const [disable, enable, deny, allow] = printed;
    const blob = await wrap(client, alias);
    await post(disable);
    expect(await errorNameOf(unwrap(client, blob))).toBe('DisabledException');
    await post(enable);
    await unwrap(client, blob);
    await post(deny);
    expect(await errorNameOf(unwrap(client, blob))).toBe('AccessDeniedException');
    expect((await describeKey()).KeyMetadata?.KeyState).toBe('Enabled');
    await post(allow);
    await unwrap(client, blob);
  });

  it('carries out every command line that it prints', async () => {
    const { post, printed } = await startProgram();
    expect(printed.length).toBeGreaterThan(10);
    const outages = printed.filter((command) => command.includes('"outage"'));
    for (const command of printed.filter((one) => !outages.includes(one))) {
      expect([command, (await post(command)).status]).toEqual([command, 200]);
    }
    expect(outages).toHaveLength(1);
  });

  it('is out for as long as it is told, and comes back', async () => {
    const { client, alias, post } = await startProgram();
    const blob = await wrap(client, alias);
    await post('{"do":"outage","forMs":300}');
    const outcome = () =>
      unwrap(client, blob).then(
        () => 'ok',
        (error: Error & { code?: string }) => error.code,
      );
    await vi.waitFor(async () => expect(await outcome()).toBe('ECONNREFUSED'), WAIT_MS);
    await vi.waitFor(async () => expect(await outcome()).toBe('ok'), WAIT_MS);
  });

  it('makes credentials, and withdraws them', async () => {
    const { post, alias } = await startProgram();
    const { body } = await post('{"do":"add-access-key","expiresInMs":3600000}');
    const temporary = kmsClient({
      endpoint: String(body.AWS_ENDPOINT_URL_KMS),
      region: String(body.AWS_REGION),
      credentials: {
        accessKeyId: String(body.AWS_ACCESS_KEY_ID),
        secretAccessKey: String(body.AWS_SECRET_ACCESS_KEY),
        sessionToken: String(body.AWS_SESSION_TOKEN),
      },
    });
    onTestFinished(() => temporary.destroy());
    await wrap(temporary, alias);
    await post(JSON.stringify({ do: 'expire-access-key', accessKeyId: body.AWS_ACCESS_KEY_ID }));
    expect(await errorNameOf(wrap(temporary, alias))).toBe('ExpiredTokenException');
  });

  it.each([
    ['no JSON', /JSON/],
    ['{"do":"disable"}', /do/],
    ['{"do":"set-state","key":"alias/demo","state":"Off"}', /state/],
    ['{"do":"set-state","key":"alias/demo","state":"Disabled","later":1}', /later/],
    ['{"do":"set-state","key":"alias/absent","state":"Disabled"}', /alias\/absent is not found/],
    ['{"do":"deny","actions":["kms:Everything"]}', /no action is called kms:Everything/],
    ['{"do":"inject","fault":"earthquake"}', /fault/],
  ])('refuses the command %s', async (command, reason) => {
    const { post } = await startProgram();
    const { status, body } = await post(command);
    expect(status).toBe(400);
    expect(body.error).toMatch(reason);
  });

  it('refuses commands from a page in a browser', async () => {
    const { post } = await startProgram();
    expect((await post('{"do":"requests"}', { origin: 'http://localhost' })).status).toBe(403);
  });
});
