/** A daemon that is told to end while a file system that it reads a backup from answers no more. */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { DaemonProcess, sealbdProcess } from '../support/daemon-process.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { until } from '../support/until.js';

const canMount = existsSync('/dev/fuse') && process.getuid?.() === 0;

it.skipIf(!canMount)('ends by itself, its volumes stopped in order', { timeout: 90_000 }, async () => {
  const daemon = await DaemonProcess.start(temporaryDirectory(), ['--default-volume', 'default:64M']);
  const other = await DaemonProcess.start(temporaryDirectory(), ['--default-volume', 'default:64M']);
  const mount = join(temporaryDirectory(), 'mount');
  mkdirSync(mount);
  const fuse = spawn('nbdfuse', [mount, other.uri('default')], { stdio: 'ignore' });
  onTestFinished(async () => {
    fuse.kill('SIGKILL');
    execFileSync('umount', ['-l', mount]);
    await other.stop();
  });
  await until('the mount is there', () => existsSync(join(mount, 'nbd')));
  fuse.kill('SIGSTOP');
  const restoring = sealbdProcess(['restore', join(mount, 'x'), 'w', '--data', daemon.data]);
  await new Promise((resolve) => setTimeout(resolve, 1500));
  const { stderr } = await daemon.stop();
  expect(stderr).toContain('"msg":"stopped"');
  expect(stderr).toContain('I/O hangs: ending without it');
  await restoring.ended;
});
