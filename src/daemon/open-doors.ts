/** Addresses under which strangers get to volumes. They are allowed, so this only says it. */
import { statSync } from 'node:fs';
import type { Logger } from '../base/log.js';
import { isLocalAddress, parseAddress } from './addresses.js';
import type { DaemonConfig } from './config.js';

/** Whoever reads the token is an administrator on TCP. */
export function warnOfOpenToken({ adminTokenFile: path }: DaemonConfig, log: Logger): void {
  if (path === undefined) return;
  const { mode } = statSync(path);
  if ((mode & 0o077) !== 0) {
    const shown = (mode & 0o777).toString(8);
    log.warn({ path, mode: shown }, 'the token of the admin address can be read by other users');
  }
}

/** `listen` has the addresses that were taken. */
export function warnOfOpenDoors(listen: readonly string[], { tls, access }: DaemonConfig, log: Logger): void {
  for (const address of listen.filter((one) => !isLocalAddress(parseAddress(one, 'listen', '/')))) {
    const where = { listen: address };
    if (tls?.required !== true) log.warn(where, 'data crosses the network in the clear');
    const verified = tls?.required === true && (tls.source.kind === 'psk' || tls.source.verifyClients);
    if (!verified && access === undefined) {
      log.warn(
        where,
        'whoever can connect can open every volume: clients prove nothing, and no access rule stands',
      );
    }
  }
}
