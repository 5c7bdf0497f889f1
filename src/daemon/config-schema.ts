/** The configuration file, as TOML spells it. Every key is optional; an unknown one is an error. */
import { z } from 'zod';
import { CIPHER_NAMES } from '../base/ciphers.js';
import {
  HOOK_TIMEOUT_MS_MAX,
  NAME_PATTERN,
  POLL_INTERVAL_MS_MAX,
  POLL_INTERVAL_MS_MIN,
  REFUSED_CONFIRM_MS_MAX,
  SEGMENT_SLOTS,
  UNREACHABLE_GRACE_MS_MAX,
} from '../base/limits.js';
import { accessSchema } from './config-access.js';
import { duration, durationWithin, size } from './config-fields.js';
import { limitsSchema } from './config-limits.js';

export const ADMIN_TOKEN_CHARACTERS_MIN = 16;
/** Shorter segments leave no slots for the trims of a full one. */
const SEGMENT_SLOTS_MIN = 16;
const SPARES_MAX = 1024;
const KEY_URI_PATTERN = /^[a-z]+:.+$/;
const KEY_URI_EXPECTED = 'expected a key URI such as local:NAME, or a list of them';

const addressList = z.union([z.string(), z.array(z.string()).min(1)]);

const tlsSchema = z.strictObject({
  mode: z.enum(['off', 'allowed', 'required']).optional(),
  /** A directory with ca-cert.pem, server-cert.pem, server-key.pem and perhaps ca-crl.pem. */
  certificates: z.string().min(1).optional(),
  /** Ask clients for a certificate that the CA signed. */
  verify_clients: z.boolean().optional(),
  /** In place of certificates: a file of lines NAME:HEXKEY. */
  psk_file: z.string().min(1).optional(),
  min_version: z.enum(['1.2', '1.3']).optional(),
});

const keyUri = z.string().regex(KEY_URI_PATTERN, KEY_URI_EXPECTED);

export const volumePinSchema = z.strictObject({
  uuid: z.uuid().optional(),
  cipher: z.enum(CIPHER_NAMES).optional(),
  /** A list while the volume moves from key to key. */
  key: z.union([keyUri, z.array(keyUri).min(1)], KEY_URI_EXPECTED).optional(),
});

export const configSchema = z.strictObject({
  data: z.string().min(1).optional(),
  listen: addressList.optional(),
  admin: z.string().optional(),
  admin_token: z
    .string()
    .min(ADMIN_TOKEN_CHARACTERS_MIN, `expected at least ${ADMIN_TOKEN_CHARACTERS_MIN} characters`)
    .optional(),
  insecure: z.boolean().optional(),
  allow_unlocked_keys: z.boolean().optional(),
  require_keys: z.boolean().optional(),
  tls: tlsSchema.optional(),
  /** Who may open what over NBD; what no rule allows is denied. */
  access: accessSchema.optional(),
  limits: limitsSchema.optional(),
  log: z.strictObject({ level: z.enum(['debug', 'info', 'warn', 'error']).optional() }).optional(),
  tuning: z
    .strictObject({
      /** Threads of the cipher pool. */
      pool_threads: z.int().min(1).max(64).optional(),
      /** Written runs of at least this many bytes are sealed by the pool, shorter ones inline. */
      pool_seal_from: size.optional(),
      /** The same for reads. */
      pool_read_from: size.optional(),
      /** Longest time that an acknowledged write stays in memory alone. */
      buffer_age: duration.optional(),
      /** Bytes written since the last checkpoint that start the next one. */
      checkpoint_after: size.optional(),
      /** A volume that changed is checkpointed at least this often. */
      checkpoint_interval: duration.optional(),
      /** Memory for the block map of one volume. */
      map_memory_max: size.optional(),
      /** Blocks in a new segment file. */
      segment_slots: z.int().min(SEGMENT_SLOTS_MIN).max(SEGMENT_SLOTS).optional(),
      /** Dead share of the stored blocks above which compaction runs. */
      garbage_ratio: z.number().min(0.01).max(0.99).optional(),
      /** Preallocated segment files kept for reuse. */
      spares: z.int().min(0).max(SPARES_MAX).optional(),
      /** Preallocated segment files kept for what must go on when the disk is full. */
      reserve: z.int().min(1).max(SPARES_MAX).optional(),
    })
    .optional(),
  watchdog: z
    .strictObject({
      /** Time between two checks of a key, give or take a tenth. */
      poll_interval: durationWithin(POLL_INTERVAL_MS_MIN, POLL_INTERVAL_MS_MAX).optional(),
      /** How long a volume is served while its key service cannot be reached. */
      unreachable_grace: durationWithin(0, UNREACHABLE_GRACE_MS_MAX).optional(),
      /** After a refusal, the time to the check that confirms it. */
      confirm_after: durationWithin(0, REFUSED_CONFIRM_MS_MAX).optional(),
      /** What opens a volume again whose key came back: `volume start` or a restart, or the next good check. */
      resume: z.enum(['manual', 'auto']).optional(),
      /** A program that gets events as JSON on stdin. */
      hook: z.string().min(1).optional(),
      hook_timeout: durationWithin(1, HOOK_TIMEOUT_MS_MAX).optional(),
    })
    .optional(),
  volumes: z.record(z.string().regex(NAME_PATTERN, 'expected a volume name'), volumePinSchema).optional(),
});

export type ConfigFile = z.infer<typeof configSchema>;
export type TuningConfig = NonNullable<ConfigFile['tuning']>;
