import type { RandomSource } from '../base/random.js';
import { addon } from '../native/addon.js';

/** getrandom(2). */
export const systemRandom: RandomSource = {
  fill(bytes) {
    addon.randomFill(bytes);
    return bytes;
  },
};
