/** The bounds of the server that an operator may set. The others are fixed: the protocol or the format knows them. */
import {
  BYTES_IN_FLIGHT_PER_CONNECTION_MAX,
  BYTES_IN_FLIGHT_TOTAL_MAX,
  CONNECTIONS_MAX,
  HANDSHAKE_TIMEOUT_MS,
  RECEIVE_STALL_MS,
  REQUESTS_IN_FLIGHT_PER_CONNECTION_MAX,
  SEND_STALL_MS,
} from '../base/limits.js';

export interface NbdLimits {
  /** At once; one more is closed. */
  readonly connections: number;
  /** From the connection to the end of the negotiation, TLS included. */
  readonly handshakeMs: number;
  /** A client that takes nothing of its replies for so long is dropped. */
  readonly sendStallMs: number;
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
  handshakeMs: HANDSHAKE_TIMEOUT_MS,
  sendStallMs: SEND_STALL_MS,
  receiveStallMs: RECEIVE_STALL_MS,
  idleMs: undefined,
  requestsInFlight: REQUESTS_IN_FLIGHT_PER_CONNECTION_MAX,
  bytesInFlight: BYTES_IN_FLIGHT_PER_CONNECTION_MAX,
  bytesInFlightTotal: BYTES_IN_FLIGHT_TOTAL_MAX,
};
