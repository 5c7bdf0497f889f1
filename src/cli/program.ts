/** The grammar of the command line. Fixed: scripts depend on it. */
import { Command, Option } from 'commander';
import { CIPHER_NAMES } from '../base/ciphers.js';
import { packageVersion } from '../base/version.js';
import { addBackupCommands, addCloneCommand } from './backup-program.js';
import { bench } from './commands/bench.js';
import { jobCancel } from './commands/job-cancel.js';
import { jobList } from './commands/job-list.js';
import { keyCheck } from './commands/key-check.js';
import { keyExportLocal } from './commands/key-export-local.js';
import { keyImportLocal } from './commands/key-import-local.js';
import { keyRewrap } from './commands/key-rewrap.js';
import { keyRotate } from './commands/key-rotate.js';
import { keySet } from './commands/key-set.js';
import { keyStatus } from './commands/key-status.js';
import { keyUsage } from './commands/key-usage.js';
import { snapshotCreate } from './commands/snapshot-create.js';
import { snapshotDelete } from './commands/snapshot-delete.js';
import { snapshotList } from './commands/snapshot-list.js';
import { snapshotRollback } from './commands/snapshot-rollback.js';
import { status } from './commands/status.js';
import { tlsClient } from './commands/tls-client.js';
import { tlsInit } from './commands/tls-init.js';
import { volumeCreate } from './commands/volume-create.js';
import { volumeDelete } from './commands/volume-delete.js';
import { volumeEncrypt } from './commands/volume-encrypt.js';
import { volumeHeaderBackup } from './commands/volume-header-backup.js';
import { volumeHeaderRestore } from './commands/volume-header-restore.js';
import { volumeInfo } from './commands/volume-info.js';
import { volumeList } from './commands/volume-list.js';
import { volumeResize } from './commands/volume-resize.js';
import { volumeStart } from './commands/volume-start.js';
import { volumeStop } from './commands/volume-stop.js';
import { volumeVerify } from './commands/volume-verify.js';
import { JSON_OPTION } from './context.js';

const EXIT_CODES = `
Exit codes: 0 done, 1 failed, 2 bad usage, 3 the daemon is not reachable, 4 key unavailable, 5 integrity failure.`;
const PASSPHRASE_FILE = ['--passphrase-file <file>', 'else SEALBD_PASSPHRASE, else a prompt'] as const;

export function buildProgram(): Command {
  const program = new Command('sealbd')
    .description('Encrypted block volumes over NBD, under keys that you hold.')
    .version(packageVersion())
    .option('--data <dir>', 'data directory of the daemon (default: SEALBD_DATA, else ./sealbd-data)')
    .exitOverride()
    .configureHelp({ showGlobalOptions: true })
    .addHelpText('after', EXIT_CODES);
  addServe(program);
  program
    .command('status')
    .description('volumes, key states, attached clients, jobs under way')
    .option(...JSON_OPTION)
    .action(status);
  addVolumeCommands(program.command('volume').description('make, list and change volumes'));
  const snapshot = program.command('snapshot').description('volumes as they were');
  addSnapshotCommands(snapshot);
  addCloneCommand(snapshot);
  addBackupCommands(program);
  addKeyCommands(program.command('key').description('keys of volumes'));
  addJobCommands(program.command('job').description('long work in the daemon'));
  addTlsCommands(program.command('tls').description('certificates for NBD over TLS, for who has none'));
  addBench(program);
  return program;
}

function addBench(program: Command): void {
  program
    .command('bench [name]')
    .description(
      'measure what encryption costs here, on two temporary volumes (one under local:default or the pinned key, ' +
        'one in plaintext), or how fast a volume reads; needs fio',
    )
    .option('--seconds <n>', 'of each trial', '2')
    .option('--write', 'OVERWRITE the named volume: its data is lost')
    .option('--quick', 'only try that it works: the numbers mean nothing')
    .option(...JSON_OPTION)
    .action(bench);
}

const collect = (value: string, before: string[]): string[] => [...before, value];

function addServe(program: Command): void {
  program
    .command('serve')
    .description('run the daemon in the foreground')
    .option('--config <file>', 'configuration (TOML)')
    .option(
      '--listen <address>',
      'HOST:PORT or unix:PATH, repeatable (default: 127.0.0.1:10809)',
      collect,
      [],
    )
    .option('--admin <address>', 'admin API on unix:PATH or HOST:PORT, beside DIR/admin.sock')
    .option('--tls <mode>', 'off, allowed or required (default: required where one of the next two is given)')
    .option(
      '--tls-certificates <dir>',
      'ca-cert.pem, server-cert.pem and server-key.pem, as `tls init` makes them',
    )
    .option('--tls-psk-file <file>', 'pre-shared keys in place of certificates, as psktool writes them')
    .option('--poll-interval <time>', 'between two checks of a key, such as 30s (default: 10m)')
    .option('--unreachable-grace <time>', 'serve on for so long without the key service (default: 24h)')
    .option('--default-volume <name:size>', 'make this volume where it is missing')
    .option('--require-keys', 'exit 4 where a volume has no usable key')
    .option('--allow-unlocked-keys', 'run although key memory cannot be locked')
    .option(
      '--insecure',
      'allow addresses that other machines can reach, and a key service without TLS on one',
    )
    .option('--print-limits', 'show every limit with these settings, and end')
    .action(async (flags, command) => {
      // The daemon brings the addon along; no other command needs it.
      const { serve } = await import('./commands/serve.js');
      await serve(flags, command);
    });
}

function addTlsCommands(tls: Command): void {
  const days = ['--days <n>', 'how long the certificate is valid', '825'] as const;
  tls
    .command('init <dir>')
    .description(
      'make a small CA, and files for a server and a client in the layout of libnbd and QEMU; makes what is missing, ' +
        'replaces nothing',
    )
    .option('--host <name>', 'host name or address of the server, repeatable (beside localhost)', collect, [])
    .option('--client <name>', 'CN of the client', 'client')
    .option(...days)
    .action(tlsInit);
  tls
    .command('client <dir> <name> <out>')
    .description('have the CA in DIR sign another client, into the directory OUT')
    .option(...days)
    .action(tlsClient);
}

function addVolumeCommands(volume: Command): void {
  volume
    .command('create <name>')
    .description('make a volume')
    .requiredOption('--size <size>', 'such as 512M, 10G or 1T')
    .option('--key <uri>', 'KMS key that wraps its DEK (default: local:default)')
    .addOption(new Option('--cipher <cipher>').choices(CIPHER_NAMES).default('aes-256-gcm'))
    .option(...JSON_OPTION)
    .action(volumeCreate);
  volume
    .command('list')
    .description('every volume')
    .option(...JSON_OPTION)
    .action(volumeList);
  volume
    .command('info <name>')
    .description('one volume')
    .option(...JSON_OPTION)
    .action(volumeInfo);
  volume
    .command('encrypt <name>')
    .description('convert a volume of the cipher none, in place and online')
    .requiredOption('--key <uri>', 'KMS key that wraps its DEK')
    .addOption(
      new Option('--cipher <cipher>')
        .choices(CIPHER_NAMES.filter((cipher) => cipher !== 'none'))
        .default('aes-256-gcm'),
    )
    .option('--detach', 'do not wait for the rewriting')
    .option(...JSON_OPTION)
    .action(volumeEncrypt);
  volume
    .command('resize <name> <size>')
    .description('change the size, online')
    .option('--shrink', 'allow a smaller size; what lies behind it is lost')
    .action(volumeResize);
  volume
    .command('start <name>')
    .description('open a stopped, failed or key-invalid volume')
    .action(volumeStart);
  volume
    .command('stop <name>')
    .description('stop serving and wipe its keys; lasts over a restart')
    .action(volumeStop);
  volume
    .command('delete <name>')
    .description('destroy its wrapped keys, then its data')
    .option('--yes', 'confirm')
    .action(volumeDelete);
  volume
    .command('verify <name>')
    .description('read and authenticate every stored block; list lost ranges')
    .option('--detach', 'leave the job running in the daemon')
    .option(...JSON_OPTION)
    .action(volumeVerify);
  volume
    .command('header-backup <name> <file>')
    .description('save the superblock, with the wrapped keys')
    .action(volumeHeaderBackup);
  volume
    .command('header-restore <name> <file>')
    .description('put a saved superblock back; the volume must not be serving')
    .option('--force', 'replace a newer one')
    .action(volumeHeaderRestore);
}

function addSnapshotCommands(snapshot: Command): void {
  snapshot
    .command('create <name> <snap>')
    .description('keep what the volume holds now; NBD serves it read-only as NAME@SNAP')
    .option(...JSON_OPTION)
    .action(snapshotCreate);
  snapshot
    .command('list <name>')
    .description('snapshots of a volume, oldest first')
    .option(...JSON_OPTION)
    .action(snapshotList);
  snapshot
    .command('delete <name> <snap>')
    .description('give up a snapshot, and the space that only it needs')
    .action(snapshotDelete);
  snapshot
    .command('rollback <name> <snap>')
    .description('make the volume what the snapshot is: everything since is lost; no client may be attached')
    .action(snapshotRollback);
}

function addKeyCommands(key: Command): void {
  key
    .command('status [name]')
    .description('state, reason, checks, every DEK')
    .option('--check', 'ask the key service now; what follows from a refusal follows')
    .option(...JSON_OPTION)
    .action(keyStatus);
  key
    .command('check <uri>')
    .description('dry run: exercise every permission that is needed, name the missing one')
    .option(...JSON_OPTION)
    .action(keyCheck);
  key
    .command('set <name> <uri>')
    .description('put a volume under another KMS key, online')
    .option('--reencrypt', 'then rewrite its data under a new DEK')
    .option('--detach', 'do not wait for the rewriting')
    .action(keySet);
  key
    .command('rotate <name>')
    .description('a new DEK for what is written from now on, online')
    .option('--reencrypt', 'rewrite the old data too, and destroy the old DEKs')
    .option('--detach', 'do not wait for the rewriting')
    .option(...JSON_OPTION)
    .action(keyRotate);
  key
    .command('rewrap <name>')
    .description('wrap its DEKs anew, under the newest version of the same KMS key')
    .action(keyRewrap);
  key
    .command('usage [uri]')
    .description('what still depends on which key: is it safe to delete?')
    .option(...JSON_OPTION)
    .action(keyUsage);
  key
    .command('export-local <name> <file>')
    .description('passphrase-protected copy of the key local:NAME (or of the key of volume NAME)')
    .option(...PASSPHRASE_FILE)
    .action(keyExportLocal);
  key
    .command('import-local <name> <file>')
    .description('put such a copy back into the keyring')
    .option(...PASSPHRASE_FILE)
    .action(keyImportLocal);
}

function addJobCommands(job: Command): void {
  job
    .command('list')
    .description('jobs under way and ended')
    .option(...JSON_OPTION)
    .action(jobList);
  job.command('cancel <id>').description('stop a job').action(jobCancel);
}
