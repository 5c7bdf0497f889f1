/**
 * The places that connections take: so many in all, and of these so many of one address, no more than half of them in the
 * handshake. An address that has its share may still begin a handshake, in place of the oldest one that it has under way: what
 * holds places without proving anything does not keep those from theirs who share its address.
 *
 * Clients on a unix socket have no address. The mode of its file says who they are, and they share the whole.
 */
import { LOOPBACK, networkOf } from './peer-address.js';

export interface PlaceLimits {
  readonly connections: number;
  readonly connectionsPerAddress: number;
  readonly connectionsOfLoopback: number;
}

interface Share {
  readonly address: string;
  readonly connectionsMax: number;
  readonly handshakesMax: number;
  connections: number;
  /** Oldest first. */
  readonly handshakes: Set<Place>;
}

export class Place {
  /** For who has the place: called where somebody else is to have it. It must leave. */
  pushOut: () => void = () => undefined;
  readonly #places: Places;
  readonly share: Share | undefined;

  constructor(places: Places, share: Share | undefined) {
    this.#places = places;
    this.share = share;
    if (share === undefined) return;
    share.connections += 1;
    share.handshakes.add(this);
  }

  /** The handshake is over. */
  settle(): void {
    this.share?.handshakes.delete(this);
  }

  leave(): void {
    this.settle();
    if (this.share !== undefined) this.share.connections -= 1;
    this.#places.left(this);
  }
}

export class Places {
  readonly #limits: PlaceLimits;
  readonly #shares = new Map<string, Share>();
  #taken = 0;

  constructor(limits: PlaceLimits) {
    this.#limits = limits;
  }

  /** Undefined where there is none for a client of this name. */
  take(peer: string): Place | undefined {
    if (this.#taken >= this.#limits.connections) return undefined;
    const address = networkOf(peer);
    const share = address === undefined ? undefined : this.#shareOf(address);
    if (share !== undefined && isFull(share)) {
      const [oldest] = share.handshakes;
      if (oldest === undefined) return undefined;
      oldest.pushOut();
      if (isFull(share)) throw new Error('who was pushed out did not leave');
      // It may have been the last one of its address.
      this.#shares.set(share.address, share);
    }
    this.#taken += 1;
    return new Place(this, share);
  }

  /** For Place alone. */
  left({ share }: Place): void {
    this.#taken -= 1;
    if (share?.connections === 0) this.#shares.delete(share.address);
  }

  #shareOf(address: string): Share {
    const known = this.#shares.get(address);
    if (known !== undefined) return known;
    const { connectionsPerAddress, connectionsOfLoopback } = this.#limits;
    const connectionsMax = address === LOOPBACK ? connectionsOfLoopback : connectionsPerAddress;
    const handshakesMax = Math.ceil(connectionsMax / 2);
    const share = { address, connectionsMax, handshakesMax, connections: 0, handshakes: new Set<Place>() };
    this.#shares.set(address, share);
    return share;
  }
}

function isFull({ connections, connectionsMax, handshakes, handshakesMax }: Share): boolean {
  return connections >= connectionsMax || handshakes.size >= handshakesMax;
}
