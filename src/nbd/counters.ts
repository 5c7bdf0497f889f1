/** What a server has done since it started. Plain numbers: the hot path only adds. */
const COMMANDS = ['read', 'write', 'disconnect', 'flush', 'trim', 'cache', 'zero', 'status'] as const;
export type CommandName = (typeof COMMANDS)[number] | 'unknown';

export class Counters {
  readonly #requests = new Array<number>(COMMANDS.length + 1).fill(0);
  bytesRead = 0;
  bytesWritten = 0;
  /** Requests that were answered with an error. */
  errors = 0;
  accepted = 0;
  /** Connections refused because there was no place for them. */
  refused = 0;
  /** Connections dropped for what the client did or failed to do. */
  dropped = 0;

  count(type: number): void {
    this.#requests[Math.min(type, COMMANDS.length)] += 1;
  }

  requests(): Record<CommandName, number> {
    const names: readonly CommandName[] = [...COMMANDS, 'unknown'];
    return Object.fromEntries(names.map((name, i) => [name, this.#requests[i]])) as Record<
      CommandName,
      number
    >;
  }
}
