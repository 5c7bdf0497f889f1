/**
 * The names that the command line, the configuration and the admin API give to suites. The numbers are those of
 * docs/FORMAT.md, written out so that a command that only talks to the daemon need not load the addon.
 */

/** Wire value of a suite. */
export type Suite = 0 | 1 | 2;

export const CIPHER_NAMES = ['aes-256-gcm', 'aes-256-ctr', 'none'] as const;
export type CipherName = (typeof CIPHER_NAMES)[number];

const SUITE_OF: Readonly<Record<CipherName, Suite>> = { none: 0, 'aes-256-ctr': 1, 'aes-256-gcm': 2 };

export function suiteOf(name: CipherName): Suite {
  return SUITE_OF[name];
}

export function suiteName(suite: Suite): CipherName {
  return CIPHER_NAMES.find((name) => SUITE_OF[name] === suite)!;
}
