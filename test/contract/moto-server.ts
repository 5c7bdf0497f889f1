/**
 * moto's server: KMS as somebody else wrote it, in Python. It is installed once, into build/, from wherever pip gets its
 * packages on this machine.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runProgram } from '../support/programs.js';
import type { KmsTarget } from './kms-client.js';

const MOTO_VERSION = '5.2.5';
/** What the extra `server` would bring is several times as much, for services other than KMS. */
const REQUIREMENTS = [`moto==${MOTO_VERSION}`, 'flask==3.1.3', 'flask-cors==6.0.5'];
const DIRECTORY = fileURLToPath(new URL(`../../build/moto-${MOTO_VERSION}`, import.meta.url));
const PYTHON = join(DIRECTORY, 'bin/python');
/** Written last: without it the directory is what an installation left that did not come to its end. */
const DONE = join(DIRECTORY, 'installed');
const INSTALL_TIMEOUT_MS = 180_000;
const START_TIMEOUT_MS = 60_000;

/** Undefined where moto is ready to start; the reason where it cannot be installed here. */
export async function installMoto(): Promise<string | undefined> {
  if (existsSync(DONE)) return undefined;
  rmSync(DIRECTORY, { recursive: true, force: true });
  const steps: [what: string, program: string, args: string[]][] = [
    ['python3 -m venv', 'python3', ['-m', 'venv', DIRECTORY]],
    ['pip install', PYTHON, ['-m', 'pip', 'install', '--quiet', '--no-input', ...REQUIREMENTS]],
    ['import moto.server', PYTHON, ['-c', 'import moto.server']],
  ];
  for (const [what, program, args] of steps) {
    const { code, stderr } = await runProgram(program, args, { timeoutMs: INSTALL_TIMEOUT_MS });
    if (code !== 0) return `"${what}" failed: ${stderr.trim().split('\n').at(-1)}`;
  }
  writeFileSync(DONE, `${REQUIREMENTS.join('\n')}\n`);
  return undefined;
}

export async function startMoto(): Promise<{ target: KmsTarget; stop: () => Promise<void> }> {
  const child = spawn(PYTHON, ['-m', 'moto.server', '-H', '127.0.0.1', '-p', '0'], {
    env: { ...process.env, PYTHONUNBUFFERED: '1', AWS_EC2_METADATA_DISABLED: 'true' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const endpoint = await addressOf(child);
  return {
    // It looks at no signature; the account is its own.
    target: {
      endpoint,
      region: 'us-east-1',
      credentials: { accessKeyId: 'any', secretAccessKey: 'any' },
    },
    stop: async () => {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

/** The address that the server prints. Rejects, and ends the server, where it prints none in time. */
function addressOf(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    const fail = (reason: string): void => {
      child.kill('SIGKILL');
      reject(new Error(`moto's server ${reason}:\n${text}`));
    };
    const timer = setTimeout(() => fail('is not ready'), START_TIMEOUT_MS);
    child.once('error', (error) => fail(`did not start: ${error.message}`));
    child.once('exit', () => fail('has ended'));
    for (const stream of [child.stdout!, child.stderr!]) {
      stream.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
        const [, endpoint] = /Running on (http:\/\/127\.0\.0\.1:\d+)/.exec(text) ?? [];
        if (endpoint === undefined) return;
        clearTimeout(timer);
        resolve(endpoint);
      });
    }
  });
}
