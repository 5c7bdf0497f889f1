import type { Store, StoreFile } from './store.js';

/** A new file that `fill` writes whole. Its bytes are durable when this resolves; its name is after `syncDirectory`. */
export async function createWhole<T>(
  store: Store,
  name: string,
  fill: (file: StoreFile) => Promise<T>,
): Promise<T> {
  const file = await store.create(name, 0);
  try {
    const result = await fill(file);
    await file.sync();
    return result;
  } finally {
    await file.close();
  }
}
