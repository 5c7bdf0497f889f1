import { SUITE_CTR, SUITE_GCM, SUITE_NONE } from '../native/addon.js';

/** Names of the suites on the command line and in JSON, by their value on disk. */
export const SUITE_NAMES = {
  [SUITE_NONE]: 'none',
  [SUITE_CTR]: 'aes-256-ctr',
  [SUITE_GCM]: 'aes-256-gcm',
} as const;

export type SuiteName = (typeof SUITE_NAMES)[keyof typeof SUITE_NAMES];

export function suiteByName(name: string): 0 | 1 | 2 | undefined {
  if (name === 'none') return SUITE_NONE;
  if (name === 'aes-256-ctr') return SUITE_CTR;
  if (name === 'aes-256-gcm') return SUITE_GCM;
  return undefined;
}
