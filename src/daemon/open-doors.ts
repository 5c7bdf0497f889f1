/** Addresses under which strangers get to volumes. They are allowed, so this only says it. */
import type { Logger } from '../base/log.js';
import { isLocalAddress, parseAddress } from './addresses.js';
import type { DaemonConfig } from './config.js';

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
