/** Addresses as people write them: `HOST:PORT`, `[::1]:PORT`, `unix:PATH`. */
import { isIPv4, isIPv6 } from 'node:net';
import { resolve } from 'node:path';
import { SealbdError } from '../base/errors.js';

export type Address =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

/** `what` names the flag or key, `base` is the directory of relative socket paths. */
export function parseAddress(text: string, what: string, base: string): Address {
  if (text.startsWith('unix:')) {
    const path = text.slice('unix:'.length);
    if (path === '') throw new SealbdError('USAGE', `${what}: "${text}" has no path; expected unix:PATH`);
    return { kind: 'unix', path: resolve(base, path) };
  }
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined || port > 65_535 || (match?.[1] !== undefined && !isIPv6(match[1]))) {
    throw new SealbdError('USAGE', `${what}: "${text}" is not HOST:PORT, [IPV6]:PORT or unix:PATH`);
  }
  return { kind: 'tcp', host, port };
}

export function formatAddress(address: Address): string {
  if (address.kind === 'unix') return `unix:${address.path}`;
  return `${isIPv6(address.host) ? `[${address.host}]` : address.host}:${address.port}`;
}

/** What NBD clients take, from an address as `formatAddress` writes it. */
export function nbdUri(address: string, exportName: string, tls = false): string {
  const name = encodeURIComponent(exportName);
  const scheme = tls ? 'nbds' : 'nbd';
  if (!address.startsWith('unix:')) return `${scheme}://${address}/${name}`;
  return `${scheme}+unix:///${name}?socket=${encodeURI(address.slice('unix:'.length))}`;
}

/** True where nobody on another machine can connect. A name other than localhost may resolve to anything. */
export function isLocalAddress(address: Address): boolean {
  if (address.kind === 'unix') return true;
  if (isIPv4(address.host)) return address.host.startsWith('127.');
  return address.host === '::1' || address.host.toLowerCase() === 'localhost';
}
