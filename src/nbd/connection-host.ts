import type { Logger } from '../base/log.js';
import type { ChunkPool } from './chunk-pool.js';
import type { Connection } from './connection.js';
import type { Counters } from './counters.js';
import type { ExportSource, NbdClient } from './exports.js';
import type { ExtentTurns } from './extent-turns.js';
import type { NbdLimits, Share } from './nbd-limits.js';
import type { Transport } from './transport.js';
import type { Turns } from './turns.js';

/** How TLS is put under a connection: what the given transport was made of carries the records from then on. */
export interface TlsUpgrade {
  readonly required: boolean;
  upgrade(transport: Transport, pool: ChunkPool): Transport;
}

/** What connections share. */
export interface ConnectionHost {
  /** What there is for this client. Asked once it is known who it is. */
  exportsFor(client: NbdClient): ExportSource;
  readonly limits: NbdLimits;
  /** Of each connection. */
  readonly share: Share;
  readonly pool: ChunkPool;
  readonly counters: Counters;
  readonly log: Logger;
  readonly tls: TlsUpgrade | undefined;
  readonly shuttingDown: boolean;
  /** Of handshakes that have more to do. */
  readonly turns: Turns;
  readonly extentTurns: ExtentTurns;
  monotonic(): number;
  /** A client is gone from its device, and nothing is in flight for it any more. */
  departed(): void;
  /** The handshake is over. */
  served(connection: Connection): void;
  closed(connection: Connection): void;
}
