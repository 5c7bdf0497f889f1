/** What stands for one client among connections. */
import { describe, expect, it } from 'vitest';
import { addressOf, LOOPBACK, networkOf } from '../../src/base/peer-address.js';
import { DEFAULT_NBD_LIMITS, placeLimits } from '../../src/nbd/nbd-limits.js';

describe('the address of a peer', () => {
  it('is that of IPv4 where the socket speaks IPv6, and none for a unix socket', () => {
    expect(addressOf('192.0.2.7:10809')).toBe('192.0.2.7');
    expect(addressOf('[::ffff:192.0.2.7]:10809')).toBe('192.0.2.7');
    expect(addressOf('[2001:db8::1]:10809')).toBe('2001:db8::1');
    expect(addressOf('[fe80::1%eth0]:10809')).toBe('fe80::1');
    expect(addressOf('unix:/run/s:1')).toBeUndefined();
  });

  it('counts as its /64 under IPv6, and all of loopback as one', () => {
    expect(networkOf('192.0.2.7:1')).toBe('192.0.2.7');
    for (const host of ['127.0.0.1', '127.200.3.4', '[::1]', '[::ffff:127.0.0.9]'])
      expect(networkOf(`${host}:1`)).toBe(LOOPBACK);
    const one = networkOf('[2001:db8:1:2::1]:1');
    expect(networkOf('[2001:db8:1:2:ffff:3:4:5]:9')).toBe(one);
    expect(networkOf('[2001:db8:1:3::1]:1')).not.toBe(one);
    expect(networkOf('[2001:db8::1:0:0:1]:1')).toBe('2001:db8:0:0::/64');
    expect(networkOf('[::1.2.3.4]:1')).toBe('0:0:0:0::/64');
    expect(networkOf('unix:/run/s')).toBeUndefined();
  });
});

describe('the share of an address', () => {
  const of = (connections: number, connectionsPerAddress?: number) =>
    placeLimits({ ...DEFAULT_NBD_LIMITS, connections, connectionsPerAddress });

  it('is a quarter, for loopback three quarters, and never so little that a small limit means less than it says', () => {
    expect(of(1024)).toMatchObject({ connectionsPerAddress: 256, connectionsOfLoopback: 768 });
    expect(of(40)).toMatchObject({ connectionsPerAddress: 16, connectionsOfLoopback: 30 });
    expect(of(3)).toMatchObject({ connectionsPerAddress: 3, connectionsOfLoopback: 3 });
  });

  it('is what is configured, within the whole', () => {
    expect(of(100, 7)).toMatchObject({ connectionsPerAddress: 7, connectionsOfLoopback: 7 });
    expect(of(5, 7)).toMatchObject({ connectionsPerAddress: 5, connectionsOfLoopback: 5 });
  });
});
