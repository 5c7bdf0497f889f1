/** `[limits]` of the configuration, and all bounds of the product as `serve --print-limits` shows them. */
import { z } from 'zod';
import * as bounds from '../base/limits.js';
import { formatDuration, formatSize } from '../base/units.js';
import { DEFAULT_NBD_LIMITS, type NbdLimits, placeLimits } from '../nbd/nbd-limits.js';
import { durationWithin, sizeWithin } from './config-fields.js';

const MiB = 2 ** 20;
const HOUR_MS = 3_600_000;
/**
 * What a client takes shows only as the kernel makes room in the socket's buffer, in lumps of a third of it or so: seconds apart
 * for a client that takes 100 KiB/s all the time.
 */
const SEND_STALL_MS_MIN = 10_000;
/**
 * A READ of the largest length (34 MiB) must find room beside what may not come back before it is done: the small buffers (64 MiB),
 * and of the rest the third that is input, the quarter that is lent, 16 KiB more that TLS has received of each connection
 * (16 MiB), and the sixteenth for who wants one chunk.
 */
const TOTAL_BYTES_MIN = 208 * MiB;
const TOTAL_BYTES_MAX = 16 * 1024 * MiB;

export const limitsSchema = z.strictObject({
  connections: z.int().min(1).max(bounds.CONNECTIONS_MAX).optional(),
  connections_per_address: z.int().min(1).max(bounds.CONNECTIONS_MAX).optional(),
  handshake_timeout: durationWithin(1000, 600_000).optional(),
  send_stall: durationWithin(SEND_STALL_MS_MIN, 24 * HOUR_MS).optional(),
  /** A second; "0" for any. */
  send_rate: sizeWithin(0, MiB).optional(),
  receive_stall: durationWithin(1000, 24 * HOUR_MS).optional(),
  /** Never where it is not given: a mounted file system may ask for nothing for days. */
  idle_timeout: durationWithin(1000, 366 * 24 * HOUR_MS).optional(),
  requests_in_flight: z.int().min(1).max(bounds.REQUESTS_IN_FLIGHT_PER_CONNECTION_MAX).optional(),
  bytes_in_flight: sizeWithin(MiB, bounds.BYTES_IN_FLIGHT_PER_CONNECTION_MAX).optional(),
  bytes_in_flight_total: sizeWithin(TOTAL_BYTES_MIN, TOTAL_BYTES_MAX).optional(),
});

export function nbdLimits(file: z.infer<typeof limitsSchema> = {}): NbdLimits {
  return {
    connections: file.connections ?? DEFAULT_NBD_LIMITS.connections,
    connectionsPerAddress: file.connections_per_address ?? DEFAULT_NBD_LIMITS.connectionsPerAddress,
    handshakeMs: file.handshake_timeout ?? DEFAULT_NBD_LIMITS.handshakeMs,
    sendStallMs: file.send_stall ?? DEFAULT_NBD_LIMITS.sendStallMs,
    sendBytesPerSecond: file.send_rate ?? DEFAULT_NBD_LIMITS.sendBytesPerSecond,
    receiveStallMs: file.receive_stall ?? DEFAULT_NBD_LIMITS.receiveStallMs,
    idleMs: file.idle_timeout ?? DEFAULT_NBD_LIMITS.idleMs,
    requestsInFlight: file.requests_in_flight ?? DEFAULT_NBD_LIMITS.requestsInFlight,
    bytesInFlight: file.bytes_in_flight ?? DEFAULT_NBD_LIMITS.bytesInFlight,
    bytesInFlightTotal: file.bytes_in_flight_total ?? DEFAULT_NBD_LIMITS.bytesInFlightTotal,
  };
}

export interface LimitRow {
  /** What it bounds. */
  readonly limit: string;
  readonly value: string;
  /** The key of the configuration, or undefined where it is fixed. */
  readonly setting: string | undefined;
}

function fraction(share: number): string {
  return `1/${1 / share}`;
}

/** Of a daemon with these settings. */
export function limitRows(nbd: NbdLimits, mapBytesMax: number): LimitRow[] {
  const row = (limit: string, value: string, setting?: string): LimitRow => ({ limit, value, setting });
  const { idleMs } = nbd;
  const places = placeLimits(nbd);
  return [
    row('connections', String(nbd.connections), 'limits.connections'),
    row('connections of one address', String(places.connectionsPerAddress), 'limits.connections_per_address'),
    row('the same from this machine', String(places.connectionsOfLoopback), 'limits.connections_per_address'),
    row('handshakes of one address at once', 'half of that'),
    row('handshake, TLS included', formatDuration(nbd.handshakeMs), 'limits.handshake_timeout'),
    row('options of one handshake', String(bounds.OPTIONS_PER_HANDSHAKE_MAX)),
    row('lists of one handshake', String(bounds.LISTS_PER_HANDSHAKE_MAX)),
    row('exports of a LIST in one turn', String(bounds.LIST_ENTRIES_PER_TURN_MAX)),
    row('handshakes gone on with in one turn', String(bounds.HANDSHAKES_PER_TURN_MAX)),
    row('data of one option', formatSize(bounds.OPTION_BYTES_MAX)),
    row('an export name or query', formatSize(bounds.EXPORT_NAME_BYTES_MAX)),
    row('queries of one option', String(bounds.META_CONTEXTS_PER_OPTION_MAX)),
    row('a READ or WRITE', formatSize(bounds.REQUEST_BYTES_MAX)),
    row('extents of one reply', String(bounds.EXTENTS_PER_REPLY_MAX)),
    row('steps for BLOCK_STATUS in one turn', String(bounds.EXTENT_STEPS_PER_TURN_MAX)),
    row('payload of a refused WRITE read over', formatSize(bounds.PAYLOAD_DRAIN_BYTES_MAX)),
    row('requests in flight, a connection', String(nbd.requestsInFlight), 'limits.requests_in_flight'),
    row('bytes in flight, a connection', formatSize(nbd.bytesInFlight), 'limits.bytes_in_flight'),
    row(
      'the same while others are at work',
      formatSize(Math.min(nbd.bytesInFlight, bounds.SHARED_BYTES_IN_FLIGHT_MAX)),
    ),
    row(
      'bytes in flight, all connections',
      formatSize(nbd.bytesInFlightTotal),
      'limits.bytes_in_flight_total',
    ),
    row('of that for who wants one chunk alone', fraction(bounds.ONE_CHUNK_SHARE)),
    row('of that for TLS and options', fraction(bounds.LENT_SHARE_MAX)),
    row('replies unsent, a connection', formatSize(bounds.REPLY_BYTES_UNSENT_MAX)),
    row('the same while others are at work', formatSize(bounds.SHARED_REPLY_BYTES_UNSENT_MAX)),
    row('bytes in one turn while others are at work', formatSize(bounds.SHARED_BYTES_PER_TURN)),
    row('bytes within TLS, a connection and way', formatSize(bounds.TLS_BYTES_MAX)),
    row('the same while memory is short', formatSize(bounds.TLS_BYTES_SHORT_MAX)),
    row('replies not taken, or not at the rate', formatDuration(nbd.sendStallMs), 'limits.send_stall'),
    row('the rate, a second', formatSize(nbd.sendBytesPerSecond), 'limits.send_rate'),
    row(
      'less taken while memory is short',
      `a quarter, and ${formatSize(bounds.SEND_BYTES_SHORT_OF_MEMORY_MIN)}, in ${formatDuration(Math.min(nbd.sendStallMs, bounds.SEND_STALL_SHORT_OF_MEMORY_MS))}`,
    ),
    row('a request not gone on with', formatDuration(nbd.receiveStallMs), 'limits.receive_stall'),
    row('a header not finished', formatDuration(nbd.receiveStallMs), 'limits.receive_stall'),
    row(
      'less sent while memory is short',
      `${formatSize(bounds.RECEIVE_BYTES_SHORT_OF_MEMORY_MIN)} in ${formatDuration(bounds.RECEIVE_STALL_SHORT_OF_MEMORY_MS)}`,
    ),
    row('nothing asked for', idleMs === undefined ? 'never' : formatDuration(idleMs), 'limits.idle_timeout'),
    row('a volume', formatSize(bounds.VOLUME_BYTES_MAX)),
    row('volumes', String(bounds.VOLUMES_MAX)),
    row('snapshots of a volume', String(bounds.SNAPSHOTS_MAX)),
    row('a name', '64'),
    row('memory of one block map', formatSize(mapBytesMax), 'tuning.map_memory_max'),
    row('admin connections', String(bounds.ADMIN_CONNECTIONS_MAX)),
    row('the same without the token, on TCP', String(bounds.ADMIN_UNPROVEN_MAX)),
    row('time to show the token', formatDuration(bounds.ADMIN_TOKEN_TIMEOUT_MS)),
    row('an admin request', formatSize(bounds.ADMIN_BODY_BYTES_MAX)),
    row('time for an admin request', formatDuration(bounds.ADMIN_REQUEST_TIMEOUT_MS)),
    row(
      'lines of one kind in the log',
      `${bounds.LOG_LINES_PER_KIND_MAX} in ${formatDuration(bounds.LOG_SPAN_MS)}`,
    ),
    row('jobs at once', String(bounds.JOBS_RUNNING_MAX)),
    row('a stop, an export', formatDuration(bounds.STOP_DEADLINE_MS)),
    row('a stop, the daemon', formatDuration(bounds.SHUTDOWN_DEADLINE_MS)),
  ];
}
