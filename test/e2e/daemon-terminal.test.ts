import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { JobInfo } from '../../src/admin/schemas.js';
import { DaemonProcess, MAIN, sealbdProcess } from '../support/daemon-process.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { program, qemuIo } from '../support/nbd-io.js';

const dataDirectory = () => join(temporaryDirectory(), 'data');

it('Ctrl-C ends the watching of a job, as a signal, and the job goes on', async () => {
  const daemon = await DaemonProcess.start(dataDirectory(), ['--default-volume', 'v:512M']);
  expect((await qemuIo(daemon.uri('v'), 'write -P 1 0 64M', 'write -P 2 64M 64M', 'flush')).code).toBe(0);
  const { child, text, ended } = sealbdProcess(['volume', 'verify', 'v', '--data', daemon.data]);
  await expect.poll(() => text.stderr, { interval: 5, timeout: 10_000 }).toContain('verify v');
  child.kill('SIGINT');
  const { signal, stderr } = await ended;
  expect(signal).toBe('SIGINT');
  expect(stderr).toContain('job 1 goes on');
  const state = async () => (await daemon.json<JobInfo[]>(['job', 'list']))[0].state;
  await expect.poll(state, { timeout: 20_000 }).toBe('done');
});

it('a reader that closes the pipe does not make a command fail', async () => {
  const daemon = await DaemonProcess.start(dataDirectory());
  const listing = `"${process.execPath}" "${MAIN}" job list --json --data "${daemon.data}"`;
  const { code, output } = await program('bash', ['-c', `set -o pipefail; (sleep 1; ${listing}) | true`]);
  expect([code, output]).toEqual([0, '']);
});

it('a passphrase is asked for without echo, twice when a key is exported', async () => {
  const directory = temporaryDirectory();
  const daemon = await DaemonProcess.start(dataDirectory(), ['--default-volume', 'v:64M']);
  const file = join(directory, 'key.json');
  const typed = async (command: string, ...lines: string[]) => {
    const keys = lines.map((line) => `sleep 1.5; printf '%s\\r' '${line}';`).join(' ');
    const terminal = `"${process.execPath}" "${MAIN}" key ${command} --data "${daemon.data}"`;
    return program('bash', ['-c', `( ${keys} sleep 2 ) | script -qec '${terminal}' /dev/null`]);
  };
  const differ = await typed(`export-local default ${file}`, 'first passphrase', 'other passphrase');
  expect(differ.output).toContain('differ');
  expect(existsSync(file)).toBe(false);
  const exported = await typed(`export-local default ${file}`, 'first passphrase', 'first passphrase');
  expect(exported.output).toContain('Passphrase:');
  expect(exported.output).not.toContain('first passphrase');
  expect(existsSync(file)).toBe(true);
  const wrong = await typed(`import-local default ${file}`, 'other passphrase');
  expect(wrong.output).toContain('wrong passphrase');
  const imported = await typed(`import-local default ${file}`, 'first passphrase');
  expect(imported.output).toContain('there already');
});
