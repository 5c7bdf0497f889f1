/**
 * What sealbd is compared with. In plaintext: nbdkit's file plugin and qemu-nbd. Encrypted: a LUKS1 image, as nbdkit's
 * luks filter and qemu-nbd serve it. Every one is started with its defaults, with one file on the same medium.
 */
import { existsSync, mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../src/base/errors.js';
import { run, until } from './processes.js';
import { freePort, isInstalled, type Place, type Server, serverOf } from './servers.js';

const READY_TIMEOUT_MS = 30_000;
const FORMAT_TIMEOUT_MS = 60_000;
const FORMAT_ATTEMPTS = 5;
/** How long LUKS stretches its passphrase, which is no part of what is measured. */
const LUKS_ITERATION_MS = 10;
/** qemu-nbd serves one client unless told otherwise. */
const QEMU_CLIENTS = 8;

export interface Peer {
  readonly name: string;
  readonly encrypted: boolean;
  readonly programs: readonly string[];
  start(place: Place): Promise<Server>;
}

export const PLAIN_BAR = 'nbdkit file';
export const NBDKIT_LUKS = 'nbdkit luks';
export const QEMU_RAW = 'qemu-nbd raw';
export const QEMU_LUKS = 'qemu-nbd luks';

export const PEERS: readonly Peer[] = [
  {
    name: PLAIN_BAR,
    encrypted: false,
    programs: ['nbdkit'],
    start: (place) => nbdkit(place, PLAIN_BAR, [], ['file', rawFile(directoryOf(place, PLAIN_BAR), place)]),
  },
  {
    name: QEMU_RAW,
    encrypted: false,
    programs: ['qemu-nbd'],
    start: (place) => qemu(place, QEMU_RAW, ['-f', 'raw', rawFile(directoryOf(place, QEMU_RAW), place)]),
  },
  {
    name: NBDKIT_LUKS,
    encrypted: true,
    programs: ['nbdkit', 'qemu-img'],
    async start(place) {
      const { image, secret } = await luksImage(directoryOf(place, NBDKIT_LUKS), place);
      return nbdkit(place, NBDKIT_LUKS, ['--filter=luks'], ['file', image, `passphrase=+${secret}`]);
    },
  },
  {
    name: QEMU_LUKS,
    encrypted: true,
    programs: ['qemu-nbd', 'qemu-img'],
    async start(place) {
      const { image, secret } = await luksImage(directoryOf(place, QEMU_LUKS), place);
      const object = ['--object', `secret,id=key,file=${secret}`];
      return qemu(place, QEMU_LUKS, [
        ...object,
        '--image-opts',
        `driver=luks,key-secret=key,file.filename=${image}`,
      ]);
    },
  },
];

/** Those that can run here, and for each of the others a sentence that names what is missing. */
export function availablePeers(): { readonly peers: readonly Peer[]; readonly missing: readonly string[] } {
  const lacks = ({ programs }: Peer): readonly string[] => programs.filter((name) => !isInstalled(name));
  return {
    peers: PEERS.filter((peer) => lacks(peer).length === 0),
    missing: PEERS.filter((peer) => lacks(peer).length > 0).map(
      (peer) => `**${peer.name} is missing** from the comparison: not installed: ${lacks(peer).join(', ')}.`,
    ),
  };
}

function directoryOf(place: Place, name: string): string {
  const directory = join(place.directory, name.replace(' ', '-'));
  mkdirSync(directory, { recursive: true });
  return directory;
}

function rawFile(directory: string, { sizeBytes }: Place): string {
  const file = join(directory, 'disk');
  writeFileSync(file, '');
  truncateSync(file, sizeBytes);
  return file;
}

async function luksImage(directory: string, place: Place): Promise<{ image: string; secret: string }> {
  const secret = join(directory, 'passphrase');
  writeFileSync(secret, 'benchmark', { mode: 0o600 });
  const image = join(directory, 'disk.luks');
  const args = ['create', '-q', '-f', 'luks', '--object', `secret,id=key,file=${secret}`];
  const options = `key-secret=key,iter-time=${LUKS_ITERATION_MS}`;
  const create = [...args, '-o', options, image, String(place.sizeBytes)];
  for (let attempt = 1; ; attempt++) {
    try {
      await run(place.programs, 'qemu-img', create, FORMAT_TIMEOUT_MS);
      return { image, secret };
    } catch (error) {
      // It times its key derivation by the processor time of a thread, and gives up where that clock steps back.
      if (attempt === FORMAT_ATTEMPTS || !messageOf(error).includes('accurate CPU usage')) throw error;
    }
  }
}

async function nbdkit(
  place: Place,
  name: string,
  flags: readonly string[],
  plugin: readonly string[],
): Promise<Server> {
  const pidFile = join(directoryOf(place, name), 'pid');
  const port = await freePort();
  const where = ['-i', '127.0.0.1', '-p', String(port), '-P', pidFile];
  const args = ['-f', '--exit-with-parent', ...where, ...flags, ...plugin];
  return listening(place, name, 'nbdkit', args, port, pidFile);
}

async function qemu(place: Place, name: string, image: readonly string[]): Promise<Server> {
  const pidFile = join(directoryOf(place, name), 'pid');
  const port = await freePort();
  const where = ['-b', '127.0.0.1', '-p', String(port), `--pid-file=${pidFile}`];
  const args = ['-t', `--shared=${QEMU_CLIENTS}`, '--cache=writeback', ...where, ...image];
  return listening(place, name, 'qemu-nbd', args, port, pidFile);
}

/** Both programs write their pid file once they listen. */
async function listening(
  place: Place,
  name: string,
  program: string,
  args: readonly string[],
  port: number,
  pidFile: string,
): Promise<Server> {
  const child = place.programs.spawn(program, args, 'ignore');
  await until(child, name, READY_TIMEOUT_MS, () => (existsSync(pidFile) ? true : undefined));
  return serverOf(name, `nbd://127.0.0.1:${port}`, child);
}
