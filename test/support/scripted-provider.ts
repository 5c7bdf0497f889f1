/** A key service in this process: real wraps under a key of its own, and the answers that a test tells it to give. */
import {
  type KeyDescription,
  type KeyProvider,
  KmsError,
  type KmsErrorKind,
  type ProbeReport,
  type ProviderScheme,
  type WrapContext,
  type WrappedKey,
} from '../../src/kms/provider.js';
import { checkByUnwrapping, moveThroughMemory } from '../../src/kms/through-memory.js';
import { addon, type KeyHandle } from '../../src/native/addon.js';

export type ScriptedAnswer = 'yes' | KmsErrorKind | 'hangs';

export class ScriptedService {
  answer: ScriptedAnswer = 'yes';
  /** Answers given before `answer`, one for each question. */
  readonly queue: ScriptedAnswer[] = [];
  questions = 0;
  descriptions = 0;
  /** Which key a URI names. */
  resolve: (uri: string) => string = (uri) => uri;
  readonly #kek: KeyHandle = addon.keyGenerate();

  get scheme(): ProviderScheme {
    return {
      scheme: 'scripted',
      syntax: 'scripted:NAME',
      exposes: false,
      weaknessAsPin: () => undefined,
      spell: (resolvedKeyId) => resolvedKeyId,
      open: (uri) => new ScriptedProvider(uri, this),
    };
  }

  get kek(): KeyHandle {
    return this.#kek;
  }

  async ask(): Promise<void> {
    this.questions += 1;
    const answer = this.queue.shift() ?? this.answer;
    if (answer === 'hangs') return new Promise(() => undefined);
    if (answer !== 'yes') throw new KmsError(answer, `the service is ${answer}`);
  }

  end(): void {
    addon.keyRelease(this.#kek);
  }
}

class ScriptedProvider implements KeyProvider {
  readonly uri: string;
  readonly #service: ScriptedService;

  constructor(uri: string, service: ScriptedService) {
    this.uri = uri;
    this.#service = service;
  }

  async ensure(): Promise<void> {}

  async describe(resolvedKeyId = this.#service.resolve(this.uri)): Promise<KeyDescription> {
    this.#service.descriptions += 1;
    return {
      resolvedKeyId,
      keyVersion: '1',
      detail: `${resolvedKeyId}, as the script has it`,
    };
  }

  async wrap(dek: KeyHandle, context: WrapContext): Promise<WrappedKey> {
    await this.#service.ask();
    const blob = addon.keyWrap(this.#service.kek, dek, aad(context));
    return { blob, resolvedKeyId: this.#service.resolve(this.uri), keyVersion: '1' };
  }

  async unwrap(wrapped: WrappedKey, context: WrapContext): Promise<KeyHandle> {
    await this.#service.ask();
    return addon.keyUnwrap(this.#service.kek, wrapped.blob, aad(context));
  }

  rewrap(
    wrapped: WrappedKey,
    from: KeyProvider,
    fromContext: WrapContext,
    context: WrapContext,
  ): Promise<WrappedKey> {
    return moveThroughMemory(wrapped, { from, fromContext, to: this, context });
  }

  check(wrapped: WrappedKey, context: WrapContext, dek: KeyHandle): Promise<void> {
    return checkByUnwrapping(this, wrapped, context, dek);
  }

  async probe(): Promise<ProbeReport> {
    await this.#service.ask();
    return { steps: [{ permission: 'scripted', outcome: 'ok' }], resolvedKeyId: this.uri, warnings: [] };
  }
}

function aad({ volumeUuid, dekId, exposed }: WrapContext): Uint8Array {
  return Buffer.concat([volumeUuid, Buffer.from([dekId, exposed ? 1 : 0])]);
}
