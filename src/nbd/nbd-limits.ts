/** The bounds of the server that an operator may set. The others are fixed: the protocol or the format knows them. */
import {
  BYTES_IN_FLIGHT_PER_CONNECTION_MAX,
  BYTES_IN_FLIGHT_TOTAL_MAX,
  CONNECTIONS_MAX,
  CONNECTIONS_PER_ADDRESS_MIN,
  CONNECTIONS_SHARE_OF_ADDRESS,
  CONNECTIONS_SHARE_OF_LOOPBACK,
  HANDSHAKE_TIMEOUT_MS,
  READ_PIECE_BYTES,
  RECEIVE_STALL_MS,
  REPLY_BYTES_UNSENT_MAX,
  REQUESTS_IN_FLIGHT_PER_CONNECTION_MAX,
  SEND_BYTES_PER_SECOND_MIN,
  SEND_STALL_MS,
  SHARED_BYTES_IN_FLIGHT_MAX,
  SHARED_BYTES_PER_TURN,
  SHARED_REPLY_BYTES_UNSENT_MAX,
} from '../base/limits.js';
import type { PlaceLimits } from './places.js';

export interface NbdLimits {
  /** At once; one more is closed. */
  readonly connections: number;
  /** Of one address; undefined for a share of `connections`, which is larger for loopback. */
  readonly connectionsPerAddress: number | undefined;
  /** From the connection to the end of the negotiation, TLS included. */
  readonly handshakeMs: number;
  /** A client that takes its replies slower than `sendBytesPerSecond` for so long is dropped. */
  readonly sendStallMs: number;
  /** 0 for at all. */
  readonly sendBytesPerSecond: number;
  /** A client that sends nothing more of a request that it began is dropped. */
  readonly receiveStallMs: number;
  /** A client that asks for nothing is let go after so long; undefined for never. */
  readonly idleMs: number | undefined;
  /** Of one connection. */
  readonly requestsInFlight: number;
  /** Of one connection; a request that is let in may pass it. */
  readonly bytesInFlight: number;
  /** Buffers of all connections together. */
  readonly bytesInFlightTotal: number;
}

export const DEFAULT_NBD_LIMITS: NbdLimits = {
  connections: CONNECTIONS_MAX,
  connectionsPerAddress: undefined,
  handshakeMs: HANDSHAKE_TIMEOUT_MS,
  sendStallMs: SEND_STALL_MS,
  sendBytesPerSecond: SEND_BYTES_PER_SECOND_MIN,
  receiveStallMs: RECEIVE_STALL_MS,
  idleMs: undefined,
  requestsInFlight: REQUESTS_IN_FLIGHT_PER_CONNECTION_MAX,
  bytesInFlight: BYTES_IN_FLIGHT_PER_CONNECTION_MAX,
  bytesInFlightTotal: BYTES_IN_FLIGHT_TOTAL_MAX,
};

export function placeLimits({ connections, connectionsPerAddress }: NbdLimits): PlaceLimits {
  const share = (of: number): number =>
    Math.min(
      connections,
      connectionsPerAddress ?? Math.max(CONNECTIONS_PER_ADDRESS_MIN, Math.ceil(connections * of)),
    );
  return {
    connections,
    connectionsPerAddress: share(CONNECTIONS_SHARE_OF_ADDRESS),
    connectionsOfLoopback: share(CONNECTIONS_SHARE_OF_LOOPBACK),
  };
}

/** How much of the server one connection may keep busy at a time: what others wait for when they ask for little. */
export interface Share {
  /** A request that is let in may pass it. */
  readonly bytesInFlight: number;
  /** Of replies, beyond which no request and no piece of one is begun. */
  readonly bytesUnsent: number;
  /** Longer READs are done in pieces. */
  readonly pieceBytes: number;
  /** Received, or sent, before others have their turn. */
  readonly bytesPerTurn: number;
}

export function shareOf(limits: NbdLimits, alone: boolean): Share {
  if (alone) {
    const { bytesInFlight } = limits;
    const bytesPerTurn = Number.POSITIVE_INFINITY;
    return { bytesInFlight, bytesUnsent: REPLY_BYTES_UNSENT_MAX, pieceBytes: READ_PIECE_BYTES, bytesPerTurn };
  }
  return {
    bytesInFlight: Math.min(limits.bytesInFlight, SHARED_BYTES_IN_FLIGHT_MAX),
    bytesUnsent: SHARED_REPLY_BYTES_UNSENT_MAX,
    pieceBytes: SHARED_BYTES_PER_TURN,
    bytesPerTurn: SHARED_BYTES_PER_TURN,
  };
}
