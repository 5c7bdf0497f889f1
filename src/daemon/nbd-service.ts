/** The NBD server on the configured addresses. */
import { messageOf, SealbdError } from '../base/errors.js';
import type { ExportSource, NbdClient } from '../nbd/exports.js';
import { describeIdentity } from '../nbd/peer-identity.js';
import { NbdServer, type NbdServerOptions, type NbdServerStats } from '../nbd/server.js';
import { type Address, formatAddress, parseAddress } from './addresses.js';

/** Only the daemon's user may connect: who can reach the socket can read the volumes. */
const SOCKET_MODE = 0o600;

export interface NbdClientView {
  readonly address: string;
  readonly volume: string;
  /** Who it proved to be; null where it proved nothing. */
  readonly identity: string | null;
}

export interface NbdService {
  /** With the ports that were taken. */
  readonly addresses: readonly string[];
  clients(): NbdClientView[];
  stats(): NbdServerStats;
  close(): Promise<void>;
}

/** Listening sockets that the service manager opened. */
export interface HandedOver {
  readonly descriptors: readonly number[];
  /** Throws where the address may not be served. */
  check(address: Address): void;
}

export async function listenNbd(
  listen: readonly Address[],
  sockets: HandedOver,
  exportsFor: (client: NbdClient) => ExportSource,
  dependencies: Pick<NbdServerOptions, 'clock' | 'log' | 'tls' | 'limits'>,
): Promise<NbdService> {
  const server = new NbdServer({ exportsFor, ...dependencies });
  try {
    for (const address of listen) await listenOn(server, address);
    for (const fd of sockets.descriptors) sockets.check(parseAddress(server.listenOn(fd), 'socket', '/'));
  } catch (error) {
    await server.stop();
    throw error;
  }
  return {
    addresses: server.addresses,
    // A client in the middle of its handshake has no volume yet.
    clients: () =>
      server.clients().flatMap(({ peer, exportName, identity }) => {
        const shown = identity === undefined ? null : describeIdentity(identity);
        return exportName === undefined ? [] : [{ address: peer, volume: exportName, identity: shown }];
      }),
    stats: () => server.stats(),
    close: () => server.stop(),
  };
}

async function listenOn(server: NbdServer, address: Address): Promise<void> {
  try {
    await server.listen(address.kind === 'unix' ? { ...address, mode: SOCKET_MODE } : address);
  } catch (error) {
    throw new SealbdError('FAILED', `cannot listen on ${formatAddress(address)}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}
