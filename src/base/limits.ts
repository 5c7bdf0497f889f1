/**
 * Every bound of the product, by name. Sizes are in bytes, times in milliseconds, unless the name says more.
 */
const KiB = 1024;
const MiB = 1024 * KiB;
const TiB = 1024 * 1024 * MiB;

// The device.
export const BLOCK_BYTES = 4096;
export const VOLUME_BYTES_MAX = 64 * TiB;
export const VOLUME_BYTES_MIN = BLOCK_BYTES;
export const NAME_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

// Segments (docs/FORMAT.md).
export const SLOT_BYTES = 4128;
export const SEGMENT_SLOTS = 16384;
export const SEGMENT_HEADER_BYTES = 4096;
/** Slots at the end of each segment that only TRIM, ZERO and moves made by the engine itself may use. */
export const SEGMENT_RESERVED_SLOTS = 128;
export const SEQUENCE_MAX = Number.MAX_SAFE_INTEGER;
/** Most segments one volume can hold at once. */
export const SEGMENTS_MAX = 1 << 24;

// The block map (docs/FORMAT.md, map files).
/** Blocks of the largest volume: block numbers are below this. */
export const BLOCKS_MAX = VOLUME_BYTES_MAX / BLOCK_BYTES;
/** Slot addresses (segment index * SEGMENT_SLOTS + position) are below this. */
export const SLOT_ADDRESS_END = 2 ** 40 - 1;
/** Most payload bytes of one chunk of a map file. */
export const MAP_CHUNK_BYTES_MAX = 256 * KiB;

// NBD.
export const HANDSHAKE_TIMEOUT_MS = 10_000;
export const OPTION_BYTES_MAX = 64 * KiB;
export const OPTIONS_PER_HANDSHAKE_MAX = 256;
export const EXPORT_NAME_BYTES_MAX = 4096;
export const CONNECTIONS_MAX = 1024;
export const REQUEST_BYTES_MAX = 32 * MiB;
export const REQUEST_BYTES_PREFERRED = 4096;
export const REQUESTS_IN_FLIGHT_PER_CONNECTION_MAX = 256;
export const BYTES_IN_FLIGHT_PER_CONNECTION_MAX = 64 * MiB;
export const BYTES_IN_FLIGHT_TOTAL_MAX = 256 * MiB;
export const EXTENTS_PER_REPLY_MAX = 16_384;
export const META_CONTEXTS_PER_OPTION_MAX = 64;

// Memory.
export const ARENA_CHUNK_BYTES = 2 * MiB;
export const MAP_BYTES_MAX = 8 * 1024 * MiB;

// Keys and small files.
export const KEYRING_BYTES_MAX = MiB;
export const SUPERBLOCK_BYTES_MAX = MiB;
export const DEKS_PER_VOLUME_MAX = 1024;
export const KEY_STRING_BYTES_MAX = 8192;
/** Bounds what the parameters of an imported key file can make scrypt allocate. */
export const SCRYPT_MEMORY_BYTES_MAX = 1024 * MiB;
export const CONFIG_BYTES_MAX = MiB;

// Administration.
export const ADMIN_BODY_BYTES_MAX = 4 * MiB;
export const VOLUMES_MAX = 4096;
export const JOBS_RUNNING_MAX = 64;
export const JOBS_REMEMBERED_MAX = 256;

// Shutdown.
export const STOP_DEADLINE_MS = 10_000;
