/** nbdkit, brought as close to sealbd as its filters can: the same names, descriptions, sizes and limits. */
import { type ChildProcess, spawn } from 'node:child_process';
import net from 'node:net';
import { until } from '../../support/until.js';
import { PAYLOAD_MAX } from './wire.js';

export interface PeerExport {
  readonly name: string;
  readonly description: string;
}

export interface PeerOptions {
  /** Path of the unix socket. */
  readonly socket: string;
  /** What the empty name means; undefined where it means nothing. */
  readonly defaultExport: string | undefined;
  readonly exports: readonly PeerExport[];
  /** The plugin and its parameters: every export is this one. */
  readonly plugin: readonly string[];
  readonly readOnly: boolean;
}

export class Peer {
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;

  private constructor(child: ChildProcess, ended: Promise<void>) {
    this.#child = child;
    this.#ended = ended;
  }

  static async start(options: PeerOptions): Promise<Peer> {
    const { socket, exports, plugin, readOnly, defaultExport } = options;
    const descriptions = exports.map(({ name, description }) => `"${name}") printf %s "${description}" ;;`);
    const names = exports.map(({ name }) => `exportname=${name}`);
    const empty = exports.find(({ name }) => name === defaultExport);
    if (empty !== undefined) {
      names.push('exportname=', `default-export=${empty.name}`);
      descriptions.push(`"") printf %s "${empty.description}" ;;`);
    }
    const args = [
      ...['--foreground', '--exit-with-parent', '--unix', socket, ...(readOnly ? ['--readonly'] : [])],
      ...['--filter=exportname', '--filter=blocksize-policy', ...plugin],
      ...['exportname-strict=true', 'exportname-list=explicit', ...names],
      `exportdesc=script:case "$name" in ${descriptions.join(' ')} esac`,
      ...['blocksize-minimum=1', 'blocksize-preferred=4096', `blocksize-maximum=${PAYLOAD_MAX}`],
      'blocksize-error-policy=error',
    ];
    const child = spawn('nbdkit', args, { stdio: ['ignore', 'ignore', 'ignore'] });
    let gone = false;
    const ended = new Promise<void>((resolve) => {
      const end = () => {
        gone = true;
        resolve();
      };
      child.once('error', end);
      child.once('close', end);
    });
    await until('nbdkit listens', async () => {
      if (gone) throw new Error(`nbdkit did not start: ${args.join(' ')}`);
      return await listens(socket);
    });
    return new Peer(child, ended);
  }

  async stop(): Promise<void> {
    this.#child.kill('SIGTERM');
    await this.#ended;
  }
}

/** The file is there before anybody listens on it. */
function listens(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = net.connect(socket);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
}
