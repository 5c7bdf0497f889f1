/**
 * Who may open what. A rule says who (by certificate or pre-shared key, by address, by both, or anybody), which exports,
 * and how. What no rule allows is denied; of several that allow it the widest counts. Without any rule everybody may
 * open everything.
 */
import { BlockList, isIP, isIPv4 } from 'node:net';
import { NAME_PATTERN } from '../base/limits.js';
import { addressOf } from '../base/peer-address.js';
import type { NbdClient } from '../nbd/exports.js';
import type { PeerIdentity } from '../nbd/peer-identity.js';
import { parseExportName } from './exports.js';

export type AccessMode = 'read-write' | 'read-only';

export interface AccessRule {
  /** Each attribute stands in the certificate's subject once, with this value. */
  readonly subject: ReadonlyMap<string, string> | undefined;
  readonly pskNames: ReadonlySet<string> | undefined;
  readonly addresses: AddressSet | undefined;
  readonly exports: readonly ExportPattern[];
  readonly mode: AccessMode;
}

export class AccessPolicy {
  readonly #rules: readonly AccessRule[];

  constructor(rules: readonly AccessRule[]) {
    this.#rules = rules;
  }

  /** Undefined where the client may not open it. Knows nothing of whether it exists. */
  modeFor(client: NbdClient, exportName: string): AccessMode | undefined {
    // Before any rule: a name that nothing can have costs nothing, however long it is.
    if (!isExportName(exportName)) return undefined;
    let mode: AccessMode | undefined;
    for (const rule of this.#rules) {
      if (!isMeant(rule, client) || !rule.exports.some((pattern) => pattern.matches(exportName))) continue;
      if (rule.mode === 'read-write') return rule.mode;
      mode = rule.mode;
    }
    return mode;
  }
}

/** NAME or NAME@SNAP. */
function isExportName(name: string): boolean {
  const { volumeName, snapshotName } = parseExportName(name);
  return NAME_PATTERN.test(volumeName) && (snapshotName === undefined || NAME_PATTERN.test(snapshotName));
}

function isMeant({ subject, pskNames, addresses }: AccessRule, { peer, identity }: NbdClient): boolean {
  if (subject !== undefined && !hasSubject(identity, subject)) return false;
  if (pskNames !== undefined && !(identity?.kind === 'psk' && pskNames.has(identity.name))) return false;
  return addresses === undefined || addresses.has(peer);
}

/** An attribute that stands there twice fits nothing: which one a reader of the certificate means is his choice. */
function hasSubject(identity: PeerIdentity | undefined, wanted: ReadonlyMap<string, string>): boolean {
  if (identity?.kind !== 'certificate') return false;
  return [...wanted].every(([name, value]) => {
    const values = identity.subject.get(name);
    return values?.length === 1 && values[0] === value;
  });
}

/** `*` stands for any characters but `@`: a volume's snapshots are named on purpose (`db@*`), or not meant. */
export class ExportPattern {
  readonly #pattern: string;

  constructor(text: string) {
    this.#pattern = text;
  }

  /**
   * In at most name times pattern steps: what follows a `*` is looked for at the first place that it fits, and only the
   * last `*` is ever tried with more, since no earlier one can take in an `@` that it stopped before.
   */
  matches(name: string): boolean {
    const pattern = this.#pattern;
    let at = 0;
    let next = 0;
    let star = -1;
    let starEnd = 0;
    while (at < name.length) {
      if (pattern[next] === '*') {
        star = next;
        starEnd = at;
        next += 1;
      } else if (pattern[next] === name[at]) {
        at += 1;
        next += 1;
      } else {
        if (star < 0 || name[starEnd] === '@') return false;
        starEnd += 1;
        at = starEnd;
        next = star + 1;
      }
    }
    while (pattern[next] === '*') next += 1;
    return next === pattern.length;
  }
}

/** Networks and single addresses, and perhaps unix sockets. */
export class AddressSet {
  /** Apart: to a list of both, an IPv4 address is part of ::/0. */
  readonly #ipv4 = new BlockList();
  readonly #ipv6 = new BlockList();
  #unix = false;

  /** `unix`, `ADDRESS` or `ADDRESS/PREFIX`; false where `text` is none of them. */
  add(text: string): boolean {
    if (text === 'unix') {
      this.#unix = true;
      return true;
    }
    const [, address = '', prefix] = /^([0-9a-fA-F.:]+)(?:\/(\d{1,3}))?$/.exec(text) ?? [];
    const version = isIP(address);
    const bits = version === 4 ? 32 : 128;
    if (version === 0 || Number(prefix ?? 0) > bits) return false;
    if (version === 4) this.#ipv4.addSubnet(address, Number(prefix ?? bits), 'ipv4');
    else this.#ipv6.addSubnet(address, Number(prefix ?? bits), 'ipv6');
    return true;
  }

  /** `peer` as a transport names it. */
  has(peer: string): boolean {
    if (peer.startsWith('unix:')) return this.#unix;
    const address = addressOf(peer);
    if (address === undefined) return false;
    return isIPv4(address) ? this.#ipv4.check(address, 'ipv4') : this.#ipv6.check(address, 'ipv6');
  }
}
