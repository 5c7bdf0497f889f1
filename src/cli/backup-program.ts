/** The grammar of `backup`, `restore` and `snapshot clone`. */
import type { Command } from 'commander';
import { backupCreate } from './commands/backup-create.js';
import { backupForget } from './commands/backup-forget.js';
import { restore } from './commands/restore.js';
import { snapshotClone } from './commands/snapshot-clone.js';
import { JSON_OPTION } from './context.js';

const DETACH = ['--detach', 'leave the job running in the daemon'] as const;

export function addBackupCommands(program: Command): void {
  const backup = program.command('backup').description('copies of volumes, as ciphertext, in directories');
  backup
    .command('create <name> <dest>')
    .description('back up what the volume holds now, while it serves')
    .option('--base <dest0>', 'only what changed since that backup')
    .option('--salvage', 'go on where the volume has lost blocks')
    .option(...DETACH)
    .option(...JSON_OPTION)
    .action(backupCreate);
  backup
    .command('verify <dest>')
    .description('check a backup and its chain; needs no daemon, and without its key checks checksums only')
    .option('--require-key', 'exit 4 where no key proves all of it')
    .option(...JSON_OPTION)
    .action(async (dest, options, command) => {
      // The addon comes along.
      const { backupVerify } = await import('./commands/backup-verify.js');
      await backupVerify(dest, options, command);
    });
  backup
    .command('info <dest>')
    .description('volume, date, chain, and which key it needs; needs no daemon')
    .option(...JSON_OPTION)
    .action(async (dest, options, command) => {
      const { backupInfo } = await import('./commands/backup-info.js');
      await backupInfo(dest, options, command);
    });
  backup
    .command('forget [dest]')
    .description('have "key usage" count a backup no more; touches no file of it')
    .option('--dropped', 'in place of DEST: those that were dropped from the list of known ones')
    .option('--force', 'though it is there, or its place does not answer')
    .option(...JSON_OPTION)
    .action(backupForget);
  program
    .command('restore <dest> <name>')
    .description('make a new volume of a backup, under the same KMS key')
    .option(
      '--salvage',
      'restore what authenticates; list what is lost, which reads as an error from then on',
    )
    .option(
      '--plaintext',
      'restore what is in plaintext too, of the cipher none or not all encrypted yet: it proves nothing',
    )
    .option(...DETACH)
    .option(...JSON_OPTION)
    .action(restore);
}

export function addCloneCommand(snapshot: Command): void {
  snapshot
    .command('clone <name> <snap> <newname>')
    .description('make a new volume of a snapshot')
    .option(...DETACH)
    .option(...JSON_OPTION)
    .action(snapshotClone);
}
