/** Key providers by URI scheme. A new one is a file and a line in SCHEMES. */
import type { Clock } from '../base/clock.js';
import { SealbdError } from '../base/errors.js';
import { awsScheme } from './aws/provider.js';
import { localScheme } from './local/provider.js';
import type { KeyProvider, KmsEnvironment, ProviderScheme } from './provider.js';

const SCHEMES: readonly ProviderScheme[] = [localScheme, awsScheme];

export class KeyProviders {
  readonly #environment: KmsEnvironment;
  readonly #schemes: readonly ProviderScheme[];

  constructor(environment: KmsEnvironment, schemes = SCHEMES) {
    this.#environment = environment;
    this.#schemes = schemes;
  }

  open(uri: string): KeyProvider {
    return this.#schemeOf(uri).open(uri, this.#environment);
  }

  /** What bounds the answers. */
  get clock(): Clock {
    return this.#environment.clock;
  }

  /** False for a URI of no known kind. */
  knows(uri: string): boolean {
    return this.#schemes.some((candidate) => uri.startsWith(`${candidate.scheme}:`));
  }

  /** Questions still under way fail as unreachable. */
  close(): void {
    for (const scheme of this.#schemes) scheme.close?.(this.#environment);
  }

  /** Whether a copy of the data directory may hold the key that `uri` names. */
  exposes(uri: string): boolean {
    return this.#schemeOf(uri).exposes;
  }

  /** A URI of the key that wrapped something, whatever `uri` names now; `uri` itself where there is no other. */
  spelledOut(uri: string, resolvedKeyId: string): string {
    return this.#schemeOf(uri).spell?.(resolvedKeyId) ?? uri;
  }

  /** Why a pin of that key proves less than it seems to; undefined where it holds. Throws USAGE as `open` does. */
  weaknessAsPin(uri: string): string | undefined {
    return this.#schemeOf(uri).weaknessAsPin(uri);
  }

  #schemeOf(uri: string): ProviderScheme {
    const scheme = this.#schemes.find((candidate) => uri.startsWith(`${candidate.scheme}:`));
    if (scheme !== undefined) return scheme;
    const known = this.#schemes.map((candidate) => candidate.syntax).join(', ');
    throw new SealbdError('USAGE', `key "${uri}" is of no known kind; expected ${known}`);
  }
}
