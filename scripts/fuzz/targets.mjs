/** What there is to fuzz. */

/** native/fuzz: below the addon's boundary. */
export const NATIVE = ['kernels', 'runs', 'keys', 'arenas'];
/** test/fuzz/targets: what reads bytes that others wrote, and the addon as JavaScript sees it. */
export const JAVASCRIPT = [
  'nbd-wire',
  'nbd-handshake',
  'superblock',
  'checkpoint',
  'segment',
  'map-file',
  'map-entries',
  'manifest',
  'backup-index',
  'texts',
  'addon',
];
export const TARGETS = [...NATIVE, ...JAVASCRIPT];
