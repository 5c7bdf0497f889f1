import { describe, expect, it } from 'vitest';
import { type Place, Places } from '../../src/nbd/places.js';

const LIMITS = { connections: 16, connectionsPerAddress: 4, connectionsOfLoopback: 12 };
const peer = (host: number): string => `192.0.2.${host}:1000`;

/** Clients that leave when they are told to, and note it. */
class Clients {
  readonly places = new Places(LIMITS);
  readonly pushedOut: string[] = [];

  come(name: string): Place | undefined {
    const place = this.places.take(name);
    if (place === undefined) return undefined;
    place.pushOut = () => {
      this.pushedOut.push(name);
      place.leave();
    };
    return place;
  }

  serve(name: string): void {
    this.come(name)?.settle();
  }
}

describe('where all places are taken', () => {
  it('a newcomer has that of a handshake of the address with the most', () => {
    const clients = new Clients();
    for (let host = 1; host <= 7; host++) {
      clients.come(peer(host));
      clients.come(peer(host));
    }
    clients.come(peer(8));
    clients.come(peer(9));
    expect(clients.pushedOut).toEqual([]);
    for (let host = 10; host < 14; host++) expect(clients.come(peer(host))).toBeDefined();
    expect(clients.pushedOut).toEqual([peer(1), peer(2), peer(3), peer(4)]);
  });

  it('a connection that is served keeps its own, and where all are the newcomer has none', () => {
    const clients = new Clients();
    for (let host = 1; host <= 4; host++) for (let i = 0; i < 4; i++) clients.serve(peer(host));
    expect([clients.come(peer(5)), clients.pushedOut]).toEqual([undefined, []]);
  });

  it('a newcomer of the same address has that of its oldest handshake, if it has its share', () => {
    const clients = new Clients();
    clients.serve(peer(1));
    clients.serve(peer(1));
    clients.serve(peer(1));
    const last = clients.come(peer(1));
    expect(clients.come(peer(1))).toBeDefined();
    expect(clients.pushedOut).toEqual([peer(1)]);
    // Told to leave, a connection closes as well.
    last?.leave();
    clients.serve('unix:/run/x');
    for (let host = 2; host < 13; host++) expect(clients.come(peer(host))).toBeDefined();
    expect(clients.pushedOut).toEqual([peer(1)]);
  });
});
