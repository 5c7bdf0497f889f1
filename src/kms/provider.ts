/**
 * What sealbd asks of a key service. A provider is one file that implements `KeyProvider`, and one line in
 * registry.ts. DEKs are generated here and only ever wrapped by the service; key bytes pass between the service
 * and a slot of the addon, never through a string.
 */
import type { Clock } from '../base/clock.js';
import { SealbdError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { RandomSource } from '../base/random.js';
import type { KeyHandle } from '../native/addon.js';

/** What every wrap is bound to: AAD for `local:`, the encryption context of a cloud service. */
export interface WrapContext {
  readonly volumeUuid: Uint8Array;
  readonly dekId: number;
  /** The DEK was once wrapped by `local:`. Bound, so that nobody can clear the mark without the key service. */
  readonly exposed: boolean;
}

export interface WrappedKey {
  readonly blob: Uint8Array;
  /** The key itself, not an alias that can be pointed elsewhere. */
  readonly resolvedKeyId: string;
  readonly keyVersion: string;
}

export interface KeyDescription {
  readonly resolvedKeyId: string;
  readonly keyVersion: string;
  /** What the service says about the key, for people. */
  readonly detail: string;
}

/** One step of a dry run. */
export interface ProbeStep {
  /** The right as the service calls it, `kms:Encrypt`; for `local:` what was tried. */
  readonly permission: string;
  /** denied: the right is missing. failed: anything else went wrong. skipped: not tried, `error` says why. */
  readonly outcome: 'ok' | 'denied' | 'failed' | 'skipped';
  readonly error?: string;
  /** What mends it: a statement for a policy, or a command. */
  readonly fix?: string;
}

export interface ProbeReport {
  /** In the order in which they were tried. */
  readonly steps: readonly ProbeStep[];
  readonly resolvedKeyId?: string;
  readonly keyVersion?: string;
  /** What works today and may not tomorrow. */
  readonly warnings: readonly string[];
}

/** All methods reject with a KmsError. */
export interface KeyProvider {
  readonly uri: string;
  /** Makes the key where the provider can and it is missing. Only creating a volume calls this. */
  ensure(): Promise<void>;
  /**
   * What the service knows about the key that the URI names now, or about the one that wrapped a DEK where `resolvedKeyId`
   * is given: an alias may have been pointed elsewhere since. Says nothing about permission to use it.
   */
  describe(resolvedKeyId?: string): Promise<KeyDescription>;
  wrap(dek: KeyHandle, context: WrapContext): Promise<WrappedKey>;
  /** The caller owns the handle that it gets. */
  unwrap(wrapped: WrappedKey, context: WrapContext): Promise<KeyHandle>;
  /** The same DEK under this provider's key, newest version, in `context`; `from` wrapped it in `fromContext`. */
  rewrap(
    wrapped: WrappedKey,
    from: KeyProvider,
    fromContext: WrapContext,
    context: WrapContext,
  ): Promise<WrappedKey>;
  /**
   * Proves that the key can be used now and opens the wrap to `dek`: a real unwrap, compared in the addon. Whether a wrap
   * opens at all, to what nobody knows yet, is what unwrap says.
   */
  check(wrapped: WrappedKey, context: WrapContext, dek: KeyHandle): Promise<void>;
  /** Tries everything that sealbd will ask of the key, with a DEK that is thrown away. A failed step is no error. */
  probe(): Promise<ProbeReport>;
}

/** What a provider gets from the daemon. */
export interface KmsEnvironment {
  readonly dataDirectory: string;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly log: Logger;
  /** The operator lets keys cross the network without TLS. */
  readonly insecure?: boolean;
}

export interface ProviderScheme {
  readonly scheme: string;
  /** The part after `scheme:`, for messages. */
  readonly syntax: string;
  /** Throws USAGE where the URI is malformed. Opening contacts nobody. */
  open(uri: string, environment: KmsEnvironment): KeyProvider;
  /** Why a pin of that key proves less than it seems to; undefined where it holds. Throws USAGE as `open` does. */
  weaknessAsPin(uri: string): string | undefined;
  /** A URI of the key itself, which no alias can lead elsewhere; undefined where there is none. */
  spell?(resolvedKeyId: string): string | undefined;
  /** Ends what the providers of that environment share: connections, and the requests on them. */
  close?(environment: KmsEnvironment): void;
  /** True where a copy of the data directory may contain the key, so that its DEKs count as exposed. */
  readonly exposes: boolean;
}

/**
 * refused: the service answered and said no; confirm, then stop.
 * unreachable: no answer, or one that says nothing about the key; keep trying.
 * damaged: the wrapped DEK does not belong to this key or context; never overwrite it.
 */
export type KmsErrorKind = 'refused' | 'unreachable' | 'damaged';

export class KmsError extends SealbdError {
  readonly kind: KmsErrorKind;

  constructor(kind: KmsErrorKind, message: string, cause?: unknown) {
    super(kind === 'damaged' ? 'INTEGRITY' : 'KEY_UNAVAILABLE', message, { cause });
    this.name = 'KmsError';
    this.kind = kind;
  }
}
