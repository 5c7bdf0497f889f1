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

// Snapshots. The checkpoint root names them all, and must fit in the space that is kept for it on a full disk.
export const SNAPSHOTS_MAX = 128;
export const SNAPSHOT_RUNS_MAX = 16;

// The block map (docs/FORMAT.md, map files).
/** Blocks of the largest volume: block numbers are below this. */
export const BLOCKS_MAX = VOLUME_BYTES_MAX / BLOCK_BYTES;
/** Slot addresses (segment index * SEGMENT_SLOTS + position) are below this. */
export const SLOT_ADDRESS_END = 2 ** 40 - 1;
/** Most payload bytes of one chunk of a map file. */
export const MAP_CHUNK_BYTES_MAX = 256 * KiB;

/** Syncs that one volume has under way: they hold threads of Node's pool, which writes need too. */
export const SYNCS_AT_ONCE_MAX = 2;

// NBD.
export const HANDSHAKE_TIMEOUT_MS = 10_000;
export const OPTION_BYTES_MAX = 64 * KiB;
export const OPTIONS_PER_HANDSHAKE_MAX = 256;
/** Of these at most so many: each walks all exports. */
export const LISTS_PER_HANDSHAKE_MAX = 8;
/** Exports that one turn of the event loop looks at for a LIST. */
export const LIST_ENTRIES_PER_TURN_MAX = 32;
/** Clients whose handshake goes on in one turn of the event loop, of those that have sent more than was answered. */
export const HANDSHAKES_PER_TURN_MAX = 8;
export const EXPORT_NAME_BYTES_MAX = 4096;
export const CONNECTIONS_MAX = 1024;
/** What one address may have of them, and what this machine may, whose users all have the same one; but always so many. */
export const CONNECTIONS_SHARE_OF_ADDRESS = 1 / 4;
export const CONNECTIONS_SHARE_OF_LOOPBACK = 3 / 4;
export const CONNECTIONS_PER_ADDRESS_MIN = 16;
export const REQUEST_BYTES_MAX = 32 * MiB;
export const REQUEST_BYTES_PREFERRED = 4096;
export const REQUESTS_IN_FLIGHT_PER_CONNECTION_MAX = 256;
export const BYTES_IN_FLIGHT_PER_CONNECTION_MAX = 64 * MiB;
export const BYTES_IN_FLIGHT_TOTAL_MAX = 256 * MiB;
/** Of a CACHE, which may ask for more: the rest of it is not read. */
export const CACHE_BYTES_MAX = 32 * MiB;
export const EXTENTS_PER_REPLY_MAX = 16_384;
/** Steps through maps that BLOCK_STATUS takes in one turn of the event loop, for all connections together: a millisecond or two. */
export const EXTENT_STEPS_PER_TURN_MAX = 16_384;
/** Blocks that count as one step more where they lie in one run, and the most that are looked at in a step. */
export const EXTENT_BLOCKS_PER_STEP = 32;
export const EXTENT_BLOCKS_AT_ONCE_MAX = 65_536;
export const META_CONTEXTS_PER_OPTION_MAX = 64;
/** Smallest unit of offset and length; what the device needs is made up by read-modify-write. */
export const REQUEST_BYTES_MIN = 1;
/** A refused WRITE with up to this much payload is read over; one with more costs the connection. */
export const PAYLOAD_DRAIN_BYTES_MAX = 2 * REQUEST_BYTES_MAX;
/** A connection with more than this unsent starts no further request. */
export const REPLY_BYTES_UNSENT_MAX = 4 * MiB;
/** In so long a client must take what is queued for it at SEND_BYTES_PER_SECOND_MIN or faster, or else all of it. */
export const SEND_STALL_MS = 30_000;
export const SEND_BYTES_PER_SECOND_MIN = 8 * KiB;
/** While others wait for memory it must take this part of it in so long, and at least so much, or else all of it. */
export const SEND_SHARE_SHORT_OF_MEMORY_MIN = 1 / 4;
export const SEND_BYTES_SHORT_OF_MEMORY_MIN = 256 * KiB;
export const SEND_STALL_SHORT_OF_MEMORY_MS = 5_000;
/** A client that sends nothing more of a request that it began is dropped after so long. */
export const RECEIVE_STALL_MS = 60_000;
/** While others wait for memory, who holds a large chunk for what it sends must send so much in so long. */
export const RECEIVE_BYTES_SHORT_OF_MEMORY_MIN = 256 * KiB;
export const RECEIVE_STALL_SHORT_OF_MEMORY_MS = 5_000;
/** How long a refused client gets to read the last answer. */
export const LINGER_MS = 1_000;
/** Pause of a listener after the process ran out of descriptors or memory. */
export const ACCEPT_PAUSE_MS = 100;
export const ACCEPT_BACKLOG = 1024;
/** Larger ones are slower: what waits in the kernel falls out of the cache before it is read. */
export const SOCKET_BUFFER_BYTES = 512 * KiB;
/** Longer reads are done in pieces, and one that meets a hole is told about it above the second number. */
export const READ_PIECE_BYTES = MiB;
export const HOLE_READ_BYTES_MIN = 64 * KiB;
/** Requests of so much on average have nothing to fear from each other. */
export const LARGE_REQUEST_BYTES_MIN = 128 * KiB;
/** What a connection may have under way and unsent, and what it moves in one turn, while others have requests too, some of
 *  them small. */
export const SHARED_BYTES_IN_FLIGHT_MAX = MiB;
export const SHARED_REPLY_BYTES_UNSENT_MAX = MiB;
export const SHARED_BYTES_PER_TURN = 256 * KiB;
/** Replies of a batch leave together, unless so much is waiting already. */
export const SEND_EARLY_BYTES = 256 * KiB;
/** A WRITE still arriving is handed on in pieces of at least so much, where memory allows. */
export const WRITE_PIECE_BYTES_MIN = 64 * KiB;
/** Most bytes that one read of a socket takes. */
export const RECEIVE_BYTES_MAX = 512 * KiB;
/** What one connection always gets for its input and its replies. */
export const SMALL_CHUNK_BYTES = 32 * KiB;
export const SMALL_CHUNKS_MAX = 2 * CONNECTIONS_MAX;
export const LARGE_CHUNKS_MAX =
  (BYTES_IN_FLIGHT_TOTAL_MAX - SMALL_CHUNKS_MAX * SMALL_CHUNK_BYTES) / (2 * MiB);
/** Of the memory for large chunks: what those who want one at a time have for themselves, and all that they have while
 *  others wait for many at once. At least one chunk. */
export const ONE_CHUNK_SHARE = 1 / 16;
/** The same, of what clients send. What one sent may lie there until there is memory for the READ before it: the rest must do for
 *  that, whoever waits, as the smallest `bytes_in_flight_total` sees to (src/daemon/config-limits.ts). */
export const INPUT_SHARE_MAX = 1 / 3;
/** Large chunks kept for reuse while nobody needs them. */
export const LARGE_CHUNKS_IDLE_MAX = 32;

// TLS.
/** What one connection may have on its way through TLS, each way, before it is not read from or written to. */
export const TLS_BYTES_MAX = 256 * KiB;
/** The same while memory is short: the payload of one record. */
export const TLS_BYTES_SHORT_MAX = 16 * KiB;
/** What all of them together may have before it is: this part of the memory for large chunks, out of which it comes. */
export const LENT_SHARE_MAX = 1 / 4;
/** What each record costs beside its bytes, in what is counted: a client may send them with a byte each. */
export const TLS_RECORD_COST_BYTES = 256;
/** Files of certificates, keys and pre-shared keys. */
export const TLS_FILE_BYTES_MAX = MiB;

// Memory.
export const ARENA_CHUNK_BYTES = 2 * MiB;
export const MAP_BYTES_MAX = 8 * 1024 * MiB;

// Keys and small files.
export const KEYRING_BYTES_MAX = MiB;
export const SUPERBLOCK_BYTES_MAX = MiB;
export const DEKS_PER_VOLUME_MAX = 1024;
/** Volumes that a volume descends from, one restored or cloned from another. */
export const ORIGINS_PER_VOLUME_MAX = 1024;
export const KEY_STRING_BYTES_MAX = 8192;
/** Bounds what the parameters of an imported key file can make scrypt allocate. */
export const SCRYPT_MEMORY_BYTES_MAX = 1024 * MiB;
export const CONFIG_BYTES_MAX = MiB;
/** Files of a store that are read and replaced as a whole. */
export const SMALL_FILE_BYTES_MAX = MiB;

// Backups (docs/FORMAT.md).
export const MANIFEST_BYTES_MAX = MiB;
/** A full backup and the incremental ones on it. */
export const BACKUPS_PER_CHAIN_MAX = 1024;
/** The index of a backup: 2 KiB and some for each segment. */
export const BACKUP_INDEX_BYTES_MAX = 1024 * MiB;
/** Backups that a daemon remembers, for `key usage`; fewer where their file would be longer than SMALL_FILE_BYTES_MAX. */
export const KNOWN_BACKUPS_MAX = 1024;
/** Of the threads of Node's pool, four unless told otherwise: what the files of all backups may hold, however slow they are; those
 *  of one file system one alone. */
export const BACKUP_FILE_THREADS_MAX = 3;
/** Data files that are copied side by side. */
export const BACKUP_LANES = 2;

// The key watchdog.
export const POLL_INTERVAL_MS = 600_000;
export const POLL_INTERVAL_MS_MIN = 100;
export const POLL_INTERVAL_MS_MAX = 24 * 3_600_000;
export const UNREACHABLE_GRACE_MS = 24 * 3_600_000;
export const UNREACHABLE_GRACE_MS_MAX = 366 * 24 * 3_600_000;
/** Between a refusal and the check that confirms it: key services are eventually consistent. */
export const REFUSED_CONFIRM_MS = 5_000;
export const REFUSED_CONFIRM_MS_MAX = 60_000;
/** A refusal that no valid answer contradicts for so long stops the volume, whatever else is answered meanwhile. */
export const REFUSAL_STANDS_MS = 300_000;
/** A check without an answer for so long counts as unreachable. */
export const KEY_CHECK_TIMEOUT_MS = 10_000;
/** Questions about the DEKs of one volume that are under way together; after so many without an answer no more are asked. */
export const DEKS_ASKED_AT_ONCE = 8;
/** How long `key usage` waits for the operation that a volume is in. */
export const LOOK_WAIT_MS = 30_000;
/** How often the watchdog looks whether the machine was asleep, so that checks are overdue. */
export const SLEEP_LOOK_MS = 10_000;
export const KEY_RETRY_MIN_MS = 2_000;
export const KEY_RETRY_MAX_MS = 60_000;

// Key services over the network. All attempts together end before a check counts as unanswered.
export const KMS_OPERATION_TIMEOUT_MS = 9_000;
export const KMS_ATTEMPTS_MAX = 3;
export const KMS_ATTEMPT_TIMEOUT_MS = 4_000;
/** For region and credentials, of the time of an operation; what comes later is there for the next one. */
export const KMS_CREDENTIALS_TIMEOUT_MS = 3_000;
/** What gives credentials and has not answered for so long is asked anew. */
export const KMS_CREDENTIALS_ABANDON_MS = 10_000;
/** Until the connection stands, TLS included. */
export const KMS_CONNECT_TIMEOUT_MS = 3_000;
/** At once, for each daemon; what is more waits. */
export const KMS_CONNECTIONS_MAX = 32;
/** Head and body of one answer. */
export const KMS_ANSWER_BYTES_MAX = 64 * KiB;
/** What AWS KMS takes as a ciphertext. */
export const KMS_CIPHERTEXT_BYTES_MAX = 6144;

// The hook and the audit log.
export const HOOK_TIMEOUT_MS = 10_000;
export const HOOK_TIMEOUT_MS_MAX = 600_000;
/** Events that wait for the hook; more are dropped, and the log says so. */
export const HOOK_QUEUE_MAX = 256;
/** Audit lines kept in memory while their file can't be written; later ones are dropped, and the log says so. */
export const AUDIT_PENDING_BYTES_MAX = 4 * MiB;

// What clients can have logged: lines of one kind in a span; the rest is counted.
export const LOG_LINES_PER_KIND_MAX = 20;
export const LOG_SPAN_MS = 10_000;

// Administration.
export const ADMIN_BODY_BYTES_MAX = 4 * MiB;
export const ADMIN_CONNECTIONS_MAX = 64;
/** Of these, on TCP, that have not shown the token; and how long they have to. */
export const ADMIN_UNPROVEN_MAX = 16;
export const ADMIN_TOKEN_TIMEOUT_MS = 10_000;
export const ADMIN_REQUEST_TIMEOUT_MS = 10_000;
export const VOLUMES_MAX = 4096;
export const JOBS_RUNNING_MAX = 64;
export const JOBS_REMEMBERED_MAX = 256;
/** How long `job cancel` waits for the end of a job that may hang in I/O. */
export const CANCEL_WAIT_MS = 5_000;

// Shutdown.
export const STOP_DEADLINE_MS = 10_000;
/** From the signal to the end of the process, whatever hangs. */
export const SHUTDOWN_DEADLINE_MS = 60_000;
