/** The names that the command line, the configuration and the admin API give to suites. */
import { SUITE_CTR, SUITE_GCM, SUITE_NONE } from '../native/addon.js';
import type { Suite } from './superblock.js';

export const CIPHER_NAMES = ['aes-256-gcm', 'aes-256-ctr', 'none'] as const;
export type CipherName = (typeof CIPHER_NAMES)[number];

const NAME_OF: Record<Suite, CipherName> = {
  [SUITE_NONE]: 'none',
  [SUITE_CTR]: 'aes-256-ctr',
  [SUITE_GCM]: 'aes-256-gcm',
};

export function suiteName(suite: Suite): CipherName {
  return NAME_OF[suite];
}

export function suiteOf(name: CipherName): Suite {
  if (name === 'none') return SUITE_NONE;
  return name === 'aes-256-ctr' ? SUITE_CTR : SUITE_GCM;
}
