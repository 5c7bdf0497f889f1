/** Addresses of peers, from the names that transports have for them: 'HOST:PORT', '[HOST]:PORT' or 'unix:PATH'. */
import { isIP, isIPv4 } from 'node:net';

const MAPPED = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i;
const IPV6_GROUPS = 8;
/** Of the 64 bits that one host, or one site, has at least all the rest of. */
const NETWORK_GROUPS = 4;

/** What connections from this machine itself have for an address: anybody on it may use each of 127.0.0.0/8. */
export const LOOPBACK = 'loopback';

/** The address alone, an IPv4 one as such where the socket speaks IPv6; undefined for a unix socket. */
export function addressOf(peer: string): string | undefined {
  if (peer.startsWith('unix:')) return undefined;
  const host = peer.slice(0, peer.lastIndexOf(':')).replace(/^\[|\]$/g, '');
  const [address] = host.split('%');
  const plain = MAPPED.exec(address)?.[1] ?? address;
  return isIP(plain) === 0 ? undefined : plain;
}

/** What stands for one client, as far as an address can: an IPv4 address, the /64 of an IPv6 one, or LOOPBACK. */
export function networkOf(peer: string): string | undefined {
  const address = addressOf(peer);
  if (address === undefined) return undefined;
  if (address === '::1' || (isIPv4(address) && address.startsWith('127.'))) return LOOPBACK;
  if (isIPv4(address)) return address;
  const [head, tail] = address.split('::').map((part) => (part === '' ? [] : part.split(':')));
  // An IPv4 part stands at the end, and for two groups.
  const width = (groups: readonly string[]): number => groups.length + (groups.at(-1)?.includes('.') ? 1 : 0);
  const zeros = tail === undefined ? 0 : IPV6_GROUPS - width(head) - width(tail);
  const groups = [...head, ...new Array<string>(zeros).fill('0'), ...(tail ?? [])];
  return `${groups.slice(0, NETWORK_GROUPS).join(':')}::/64`;
}
