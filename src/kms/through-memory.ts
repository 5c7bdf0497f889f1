/** What every provider can do with a wrap by unwrapping it: the DEK is in a slot of the addon meanwhile, and nowhere else. */
import { addon, type KeyHandle } from '../native/addon.js';
import { type KeyProvider, KmsError, type WrapContext, type WrappedKey } from './provider.js';

export interface Move {
  readonly from: KeyProvider;
  readonly fromContext: WrapContext;
  readonly to: KeyProvider;
  readonly context: WrapContext;
}

/** `KeyProvider.rewrap` where the service can not do it by itself. */
export async function moveThroughMemory(
  wrapped: WrappedKey,
  { from, fromContext, to, context }: Move,
): Promise<WrappedKey> {
  const dek = await from.unwrap(wrapped, fromContext);
  try {
    return await to.wrap(dek, context);
  } finally {
    addon.keyRelease(dek);
  }
}

/** `KeyProvider.check`. */
export async function checkByUnwrapping(
  provider: KeyProvider,
  wrapped: WrappedKey,
  context: WrapContext,
  dek: KeyHandle,
): Promise<void> {
  const unwrapped = await provider.unwrap(wrapped, context);
  try {
    if (addon.keyEquals(unwrapped, dek)) return;
    throw new KmsError(
      'damaged',
      `${provider.uri} unwraps DEK ${context.dekId} to another key than the one in use`,
    );
  } finally {
    addon.keyRelease(unwrapped);
  }
}
