/**
 * The places that connections take: so many in all, and of these so many of one address, no more than half of them in the
 * handshake. Who finds no place may still begin a handshake, in place of an older one: of its own address where that has its
 * share, and where all places are taken, of the address that has the most handshakes under way. What holds places without
 * proving anything does not keep others from theirs; connections that are served are never pushed out.
 *
 * Clients on a unix socket have no address. The mode of its file says who they are, and they share the whole.
 */
import { LOOPBACK, networkOf } from '../base/peer-address.js';
import { Unproven } from '../base/unproven.js';

export interface PlaceLimits {
  readonly connections: number;
  readonly connectionsPerAddress: number;
  readonly connectionsOfLoopback: number;
}

export class Place {
  /** For who has the place: called where somebody else is to have it. It must leave. */
  pushOut: () => void = () => undefined;
  readonly #places: Places;
  readonly address: string | undefined;
  #left = false;

  constructor(places: Places, address: string | undefined) {
    this.#places = places;
    this.address = address;
  }

  /** The handshake is over. */
  settle(): void {
    this.#places.settled(this);
  }

  /** As often as one likes. */
  leave(): void {
    if (this.#left) return;
    this.#left = true;
    this.#places.left(this);
  }
}

export class Places {
  readonly #limits: PlaceLimits;
  readonly #handshakes = new Unproven<Place>();
  /** Of each address that has any. */
  readonly #connections = new Map<string, number>();
  #taken = 0;

  constructor(limits: PlaceLimits) {
    this.#limits = limits;
  }

  /** Undefined where there is none for a client of this name. */
  take(peer: string): Place | undefined {
    const address = networkOf(peer);
    if (address !== undefined && this.#hasItsShare(address)) {
      const [oldest] = this.#handshakes.of(address);
      if (oldest === undefined) return undefined;
      this.#pushOut(oldest);
    }
    if (this.#taken >= this.#limits.connections) {
      // Not that of an address which has no more than this one would have: it came first.
      const own = this.#handshakes.of(address);
      const [victim] = this.#handshakes.most > own.size + 1 ? [this.#handshakes.next()] : own;
      if (victim === undefined) return undefined;
      this.#pushOut(victim);
    }
    this.#taken += 1;
    if (address !== undefined) this.#connections.set(address, (this.#connections.get(address) ?? 0) + 1);
    const place = new Place(this, address);
    this.#handshakes.add(address, place);
    return place;
  }

  #pushOut(place: Place): void {
    const taken = this.#taken;
    place.pushOut();
    if (this.#taken >= taken) throw new Error('who was pushed out did not leave');
  }

  #hasItsShare(address: string): boolean {
    const { connectionsPerAddress, connectionsOfLoopback } = this.#limits;
    const max = address === LOOPBACK ? connectionsOfLoopback : connectionsPerAddress;
    const connections = this.#connections.get(address) ?? 0;
    return connections >= max || this.#handshakes.of(address).size >= Math.ceil(max / 2);
  }

  /** For Place alone. */
  settled(place: Place): void {
    this.#handshakes.delete(place);
  }

  /** For Place alone. */
  left(place: Place): void {
    this.settled(place);
    this.#taken -= 1;
    if (place.address === undefined) return;
    const connections = (this.#connections.get(place.address) ?? 0) - 1;
    if (connections > 0) this.#connections.set(place.address, connections);
    else this.#connections.delete(place.address);
  }
}
