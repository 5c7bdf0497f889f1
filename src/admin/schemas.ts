/** The admin API's bodies. The JSON field names are part of the product's contract. */
import { z } from 'zod';
import { CIPHER_NAMES } from '../base/ciphers.js';
import { NAME_PATTERN } from '../base/limits.js';

/** How the command line calls itself, in the header User-Agent. */
export const CLI_AGENT = 'sealbd-cli';

export const nameSchema = z
  .string()
  .regex(NAME_PATTERN, `expected a name that matches ${NAME_PATTERN.source}`);
const time = z.iso.datetime();
const bytes = z.int().min(0);

export const VOLUME_STATES = ['serving', 'stopped', 'key-invalid', 'failed'] as const;
export const KEY_STATES = ['valid', 'unreachable', 'invalid', 'damaged'] as const;
export const JOB_STATES = ['running', 'done', 'failed', 'cancelled'] as const;
export const JOB_KINDS = ['verify'] as const;

/** Identity is null where no superblock can be read; `mappedBytes` where nothing tells. */
export const volumeInfoSchema = z.object({
  name: z.string(),
  uuid: z.string().nullable(),
  sizeBytes: bytes.nullable(),
  blockSize: bytes,
  cipher: z.enum(CIPHER_NAMES).nullable(),
  state: z.enum(VOLUME_STATES),
  reason: z.string().nullable(),
  keyUri: z.string().nullable(),
  mappedBytes: bytes.nullable(),
  storedBytes: bytes,
  segments: bytes,
  clients: bytes,
  createdAt: time.nullable(),
});
export type VolumeInfo = z.infer<typeof volumeInfoSchema>;

export const dekStatusSchema = z.object({
  id: z.int(),
  state: z.enum(['active', 'retired', 'pending']),
  exposed: z.boolean(),
  createdAt: time,
  wrappedBy: z.string(),
  segments: bytes.nullable(),
  bytes: bytes.nullable(),
});

export const keyStatusSchema = z.object({
  volume: z.string(),
  keyUri: z.string(),
  resolvedKeyId: z.string(),
  state: z.enum(KEY_STATES),
  reason: z.string().nullable(),
  lastCheck: time.nullable(),
  nextCheck: time.nullable(),
  graceEndsAt: time.nullable(),
  deks: z.array(dekStatusSchema),
  rotation: z.object({ phase: z.string(), doneBytes: bytes, totalBytes: bytes }).nullable(),
});
export type KeyStatus = z.infer<typeof keyStatusSchema>;

export const verifyResultSchema = z.object({
  checkedBlocks: bytes,
  /** Device ranges, bytes, that can't be read any more. */
  lost: z.array(z.object({ offset: bytes, length: bytes })),
  problems: z.array(z.string()),
});
export type VerifyResult = z.infer<typeof verifyResultSchema>;

export const jobInfoSchema = z.object({
  id: z.string(),
  kind: z.enum(JOB_KINDS),
  volume: z.string(),
  state: z.enum(JOB_STATES),
  doneBytes: bytes,
  totalBytes: bytes,
  startedAt: time,
  endedAt: time.nullable(),
  /** Why it failed: a code of the error body below, and a sentence. */
  error: z.object({ code: z.string(), message: z.string() }).nullable(),
  result: verifyResultSchema.nullable(),
});
export type JobInfo = z.infer<typeof jobInfoSchema>;

export const statusSchema = z.object({
  version: z.string(),
  pid: z.int(),
  startedAt: time,
  dataDirectory: z.string(),
  listen: z.array(z.string()),
  admin: z.array(z.string()),
  keysLocked: z.boolean(),
  volumes: z.array(volumeInfoSchema),
  keys: z.array(keyStatusSchema),
  clients: z.array(z.object({ address: z.string(), volume: z.string() })),
  jobs: z.array(jobInfoSchema),
});
export type DaemonStatus = z.infer<typeof statusSchema>;

export const createVolumeSchema = z.strictObject({
  name: nameSchema,
  sizeBytes: bytes,
  cipher: z.enum(CIPHER_NAMES).default('aes-256-gcm'),
  /** Not given: local:default, or the key that the configuration pins. */
  keyUri: z.string().optional(),
});
export type CreateVolume = z.input<typeof createVolumeSchema>;

export const resizeVolumeSchema = z.strictObject({ sizeBytes: bytes, shrink: z.boolean().default(false) });
export const headerFileSchema = z.strictObject({ file: z.base64() });
export const restoreHeaderSchema = z.strictObject({ file: z.base64(), force: z.boolean().default(false) });
export const passphraseSchema = z.strictObject({ passphrase: z.string().min(1) });
export const importKeySchema = z.strictObject({ passphrase: z.string().min(1), file: z.string() });
export const keyFileSchema = z.strictObject({ name: z.string(), file: z.string() });
export const importedKeySchema = z.strictObject({ name: z.string(), added: z.boolean() });
export const noBodySchema = z.undefined().or(z.null()).or(z.strictObject({}));

export const errorSchema = z.object({ error: z.object({ code: z.string(), message: z.string() }) });
