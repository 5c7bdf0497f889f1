/**
 * Who came and has not yet shown who it is, by address, and who of them has to go where a newcomer finds no room. It is one of the
 * address that has the most of them: so whoever wants to keep others out needs more addresses than those who come, and not
 * just more connections.
 */
export class Unproven<Entry> {
  /** Oldest first, and no address without any. What has no address has the name undefined. */
  readonly #byAddress = new Map<string | undefined, Set<Entry>>();
  /** Oldest first. */
  readonly #addresses = new Map<Entry, string | undefined>();

  get size(): number {
    return this.#addresses.size;
  }

  add(address: string | undefined, entry: Entry): void {
    this.#addresses.set(entry, address);
    const entries = this.#byAddress.get(address) ?? new Set();
    this.#byAddress.set(address, entries.add(entry));
  }

  /** False where it was not there, or no longer. */
  delete(entry: Entry): boolean {
    const address = this.#addresses.get(entry);
    if (!this.#addresses.delete(entry)) return false;
    const entries = this.#byAddress.get(address);
    entries?.delete(entry);
    if (entries?.size === 0) this.#byAddress.delete(address);
    return true;
  }

  of(address: string | undefined): ReadonlySet<Entry> {
    return this.#byAddress.get(address) ?? new Set();
  }

  /**
   * Who has to go: of the address with the most of them the one of the lowest `rank`, and the oldest of these. Addresses with as
   * many count as one. A rank that more than half of these have protects nobody: whoever got there and does nothing would keep
   * all others from it. Undefined where there is nobody.
   */
  next(rank: (entry: Entry) => number = () => 0): Entry | undefined {
    const most = this.most;
    const ranks = new Map<number, Entry[]>();
    let all = 0;
    for (const [entry, address] of this.#addresses) {
      if (this.of(address).size < most) continue;
      const own = rank(entry);
      const same = ranks.get(own);
      if (same === undefined) ranks.set(own, [entry]);
      else same.push(entry);
      all += 1;
    }
    const crowded = [...ranks.values()].find(({ length }) => length > all / 2);
    const [next] = crowded ?? ranks.get(Math.min(...ranks.keys())) ?? [];
    return next;
  }

  /** Of one address. */
  get most(): number {
    let most = 0;
    for (const { size } of this.#byAddress.values()) most = Math.max(most, size);
    return most;
  }
}
