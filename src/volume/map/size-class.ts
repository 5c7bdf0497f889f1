/**
 * Sizes of the chunks that hold one leaf of the block map, in 4-byte words.
 *
 *   sparse, capacity c:  header (1 word), low 32 bits of c slots, c keys of 16 bits, high 8 bits of c slots
 *   dense:               header (1 word), low 32 bits of 4096 slots, high 8 bits of 4096 slots
 *
 * Capacities grow by an eighth, so about 6 % of a sparse leaf is spare, and a leaf that grows one entry at a
 * time copies each entry about nine times.
 */
export const LEAF_BLOCKS = 4096;

/** A sparse leaf of more entries than this would cost 8 bytes a block and up; a dense one costs 20 KiB flat. */
export const SPARSE_ENTRIES_MAX = 2560;

function capacities(): number[] {
  const result = [1];
  for (;;) {
    const last = result[result.length - 1] as number;
    if (last === SPARSE_ENTRIES_MAX) return result;
    result.push(Math.min(SPARSE_ENTRIES_MAX, Math.max(last + 1, Math.floor(last * 1.125))));
  }
}

export const CLASS_CAPACITY = Uint16Array.from(capacities());
/** The class after the sparse ones. */
export const DENSE_CLASS = CLASS_CAPACITY.length;
export const CLASS_WORDS = Uint16Array.from([
  ...Array.from(CLASS_CAPACITY, (c) => 1 + c + Math.ceil((3 * c) / 4)),
  1 + LEAF_BLOCKS + LEAF_BLOCKS / 4,
]);
export const DENSE_WORDS = CLASS_WORDS[DENSE_CLASS] as number;

/** CLASS_FOR[n] is the smallest class with room for n entries. */
export const CLASS_FOR = Uint8Array.from({ length: SPARSE_ENTRIES_MAX + 1 }, (_, n) =>
  CLASS_CAPACITY.findIndex((c) => c >= n),
);
