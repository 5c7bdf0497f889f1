import { fileURLToPath } from 'node:url';
import { addon } from '../../src/native/addon.js';

/** The kernels that this machine can run; every suite of the primitives runs on each. */
export const KERNELS: readonly string[] = addon
  .cpuKernels()
  .filter((kernel) => kernel.supported)
  .map((kernel) => kernel.name);

/** The addon's file, for workers and children written in plain JavaScript. */
export const ADDON_FILE =
  (process.env.SEALBD_TESTING === '1' ? process.env.SEALBD_ADDON : undefined) ??
  fileURLToPath(new URL('../../build/Release/sealbd.node', import.meta.url));
