/** `[limits]` and the table of all limits. */
import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../src/daemon/config.js';
import { limitRows, limitsSchema, nbdLimits } from '../../src/daemon/config-limits.js';
import { DEFAULT_NBD_LIMITS } from '../../src/nbd/nbd-limits.js';

const resolved = (toml: string) => nbdLimits(parseConfig(toml, 'f.toml').limits);

describe('[limits]', () => {
  it('has the defaults where nothing is given', () => {
    expect(resolved('')).toEqual(DEFAULT_NBD_LIMITS);
    expect(resolved('[limits]')).toEqual(DEFAULT_NBD_LIMITS);
  });

  it('sets each of them, and nothing else', () => {
    const text = `[limits]
      connections = 10
      connections_per_address = 9
      handshake_timeout = "2s"
      send_stall = "12s"
      send_rate = "2K"
      receive_stall = "4s"
      idle_timeout = "5m"
      requests_in_flight = 6
      bytes_in_flight = "7M"
      bytes_in_flight_total = "512M"`;
    expect(resolved(text)).toEqual({
      connections: 10,
      connectionsPerAddress: 9,
      handshakeMs: 2000,
      sendStallMs: 12_000,
      sendBytesPerSecond: 2048,
      receiveStallMs: 4000,
      idleMs: 300_000,
      requestsInFlight: 6,
      bytesInFlight: 7 * 2 ** 20,
      bytesInFlightTotal: 512 * 2 ** 20,
    });
  });

  it('are shown, each with its key, in the values that are in force', () => {
    const rows = limitRows(resolved('[limits]\nconnections = 10\nidle_timeout = "90s"'), 2 ** 30);
    const shown = new Map(rows.map(({ setting, value }) => [setting, value]));
    expect(shown.get('limits.connections')).toBe('10');
    expect(shown.get('limits.idle_timeout')).toBe('90s');
    expect(shown.get('limits.bytes_in_flight_total')).toBe('256M');
    expect(shown.get('tuning.map_memory_max')).toBe('1G');
    for (const key of Object.keys(limitsSchema.shape)) expect(shown.has(`limits.${key}`), key).toBe(true);
    expect(rows.every(({ value }) => !/NaN|undefined/.test(value))).toBe(true);
  });

  it('of turns and of shares of memory are among them', () => {
    const shown = new Map(limitRows(DEFAULT_NBD_LIMITS, 2 ** 30).map(({ limit, value }) => [limit, value]));
    const expected = {
      'exports of a LIST in one turn': '32',
      'handshakes gone on with in one turn': '8',
      'steps for BLOCK_STATUS in one turn': '16384',
      'payload of a refused WRITE read over': '64M',
      'of that for who wants one chunk alone': '1/16',
      'of that for TLS and options': '1/4',
      'replies unsent, a connection': '4M',
      'bytes in one turn while others are at work': '256K',
      'lines of one kind in the log': '20 in 10s',
    };
    expect(Object.fromEntries(shown)).toMatchObject(expected);
  });
});
