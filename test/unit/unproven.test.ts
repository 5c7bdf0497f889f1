/** Who has to go where somebody finds no room, and that it is never who proved itself. */
import { describe, expect, it } from 'vitest';
import { Unproven } from '../../src/base/unproven.js';
import { Places } from '../../src/nbd/places.js';

describe('who has to go', () => {
  const of = (...entries: readonly (readonly [string | undefined, string])[]) => {
    const unproven = new Unproven<string>();
    for (const [address, name] of entries) unproven.add(address, name);
    return unproven;
  };

  it('is the oldest of the address with the most, or the oldest at all where several have as many', () => {
    expect(of().next()).toBeUndefined();
    expect(of(['a', 'a1'], ['b', 'b1'], ['b', 'b2']).next()).toBe('b1');
    expect(of(['a', 'a1'], ['b', 'b1'], ['b', 'b2'], ['a', 'a2']).next()).toBe('a1');
    expect(of(['a', 'a1'], [undefined, 'u1'], [undefined, 'u2']).next()).toBe('u1');
    const left = of(['a', 'a1'], ['b', 'b1'], ['b', 'b2']);
    expect([left.delete('b1'), left.delete('b1'), left.size]).toEqual([true, false, 2]);
    expect(left.next()).toBe('a1');
  });

  it('is who has shown least among these', () => {
    const shown: Record<string, number> = { a1: 0, b1: 2, b2: 1, b3: 1, c1: 0 };
    const rank = (name: string) => shown[name];
    const two = of(['a', 'a1'], ['b', 'b1'], ['b', 'b2'], ['b', 'b3'], ['c', 'c1']);
    expect(two.next(rank)).toBe('b2');
    expect(of(['b', 'b1'], ['c', 'c1']).next(rank)).toBe('c1');
  });

  it('is the oldest of those who showed as much where these are most, so that they keep nobody out', () => {
    const crowd = Array.from({ length: 5 }, (_, i) => ['a', `idle${i}`] as const);
    const all = of(...crowd, ['a', 'begun'], ['a', 'silent']);
    const rank = (name: string) => (name.startsWith('idle') ? 2 : name === 'begun' ? 1 : 0);
    expect(all.next(rank)).toBe('idle0');
    for (const name of ['idle0', 'idle1', 'idle2']) all.delete(name);
    expect(all.next(rank)).toBe('silent');
  });
});

describe('places', () => {
  /** Takes one, and says who left for it. */
  const room = (connections: number, connectionsPerAddress: number) => {
    const places = new Places({ connections, connectionsPerAddress, connectionsOfLoopback: connections });
    const gone: string[] = [];
    const take = (peer: string) => {
      const place = places.take(peer);
      if (place !== undefined) {
        place.pushOut = () => {
          gone.push(peer);
          place.leave();
        };
      }
      return place;
    };
    return { take, gone };
  };
  const LIMITS = [1024, 256] as const;

  it('all taken by handshakes of a few addresses are open to newcomers from others', () => {
    const { take, gone } = room(...LIMITS);
    for (let i = 0; i < 1024; i++) expect(take(`192.0.2.${i % 8}:${i}`)).toBeDefined();
    for (let i = 0; i < 100; i++) {
      const own = take(`198.51.100.1:${i}`);
      expect(own).toBeDefined();
      own?.settle();
    }
    // Each of the eight by turns, the oldest first.
    expect(gone).toEqual(Array.from({ length: 100 }, (_, i) => `192.0.2.${i % 8}:${i}`));
  });

  it("of who is served are nobody else's, and a newcomer is refused where all are", () => {
    const { take, gone } = room(4, 4);
    const first = take('192.0.2.1:1');
    for (const place of [first, take('192.0.2.1:2'), take('192.0.2.2:3')]) place?.settle();
    take('192.0.2.3:4');
    // The one handshake came first, and its address has no more than theirs would have.
    for (const peer of ['unix:/s', '198.51.100.1:5']) expect(take(peer)).toBeUndefined();
    expect(gone).toEqual([]);
    first?.leave();
    first?.leave();
    expect(take('198.51.100.1:5')).toBeDefined();
    expect(take('198.51.100.1:6')).toBeDefined();
    expect(gone).toEqual(['198.51.100.1:5']);
  });

  it("of an address that has its share go to nobody else's cost", () => {
    const { take, gone } = room(8, 4);
    for (let i = 0; i < 5; i++) expect(take(`192.0.2.1:${i}`)).toBeDefined();
    expect(gone).toEqual(['192.0.2.1:0', '192.0.2.1:1', '192.0.2.1:2']);
  });
});
