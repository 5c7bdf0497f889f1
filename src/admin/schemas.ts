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
export const JOB_KINDS = ['verify', 'reencrypt', 'encrypt', 'backup', 'restore', 'clone'] as const;

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
  /** How many, and the stored bytes that they alone keep; null where the volume is not open. */
  snapshots: bytes.nullable(),
  snapshotBytes: bytes.nullable(),
  clients: bytes,
  createdAt: time.nullable(),
});
export type VolumeInfo = z.infer<typeof volumeInfoSchema>;

export const snapshotInfoSchema = z.object({
  volume: z.string(),
  name: z.string(),
  /** Under which it is read over NBD. */
  exportName: z.string(),
  createdAt: time,
  /** Of the device, when it was made. */
  sizeBytes: bytes,
  mappedBytes: bytes,
  /** Stored in segments that nothing else needs: what deleting it gives back at once. */
  uniqueBytes: bytes,
  clients: bytes,
  /** Why it can't be used, where that is so. */
  problem: z.string().nullable(),
});
export type SnapshotInfo = z.infer<typeof snapshotInfoSchema>;
export const createSnapshotSchema = z.strictObject({ name: nameSchema });

/** Paths are absolute: the daemon works in another directory. */
export const backUpVolumeSchema = z.strictObject({
  path: z.string(),
  base: z.string().optional(),
  salvage: z.boolean().default(false),
});
export const restoreVolumeSchema = z.strictObject({
  path: z.string(),
  salvage: z.boolean().default(false),
  /** Allows a backup that says that its volume was `none`, which anybody can make, or was not all encrypted yet. */
  plaintext: z.boolean().default(false),
});
/** Either the path of a backup, or those that were dropped from the list of known ones. */
export const forgetBackupsSchema = z.strictObject({
  path: z.string().optional(),
  dropped: z.boolean().default(false),
  /** Forgets one that is there yet, or whose place does not answer. */
  force: z.boolean().default(false),
});
export const forgottenBackupsSchema = z.object({
  backups: z.array(
    z.object({ path: z.string(), volume: z.string(), createdAt: time, deks: z.array(z.int()) }),
  ),
  /** How many of those that had been dropped count no more. */
  dropped: z.int().min(0),
});
export type ForgottenBackups = z.infer<typeof forgottenBackupsSchema>;
export const cloneSnapshotSchema = z.strictObject({ name: nameSchema });

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

export const setKeySchema = z.strictObject({ keyUri: z.string(), reencrypt: z.boolean().default(false) });
export const keyUriSchema = z.strictObject({ keyUri: z.string() });
export const usageOfSchema = z.strictObject({ keyUri: z.string().optional() });

/** What came of `key set` and `key rewrap`. */
export const keyChangeSchema = z.object({
  volume: z.string(),
  /** False where the DEKs are under the key that they were under before. */
  moved: z.boolean(),
  from: z.object({ keyUri: z.string(), resolvedKeyId: z.string() }),
  keyUri: z.string(),
  resolvedKeyId: z.string(),
  keyVersion: z.string(),
  /** Ids of the DEKs, all of which were wrapped anew. */
  deks: z.array(z.int()),
  /** One of them was once under `local:`. */
  exposed: z.boolean(),
});
export type KeyChange = z.infer<typeof keyChangeSchema>;

export const rotateKeySchema = z.strictObject({ reencrypt: z.boolean().default(false) });
export const encryptVolumeSchema = z.strictObject({
  keyUri: z.string(),
  cipher: z.enum(CIPHER_NAMES).exclude(['none']).default('aes-256-gcm'),
});
export type EncryptVolume = z.output<typeof encryptVolumeSchema>;

export const keyReportSchema = z.object({
  keyUri: z.string(),
  resolvedKeyId: z.string().nullable(),
  keyVersion: z.string().nullable(),
  ok: z.boolean(),
  steps: z.array(
    z.object({
      permission: z.string(),
      outcome: z.enum(['ok', 'denied', 'failed', 'skipped']),
      error: z.string().optional(),
      fix: z.string().optional(),
    }),
  ),
  warnings: z.array(z.string()),
});
export type KeyReport = z.infer<typeof keyReportSchema>;

export const keyUsageSchema = z.object({
  keyUri: z.string(),
  /** Null where the key service did not tell. */
  resolvedKeyId: z.string().nullable(),
  keyVersions: z.array(z.string()),
  volumes: z.array(
    z.object({
      volume: z.string(),
      deks: z.array(
        dekStatusSchema.pick({ id: true, state: true, exposed: true, segments: true, bytes: true }).extend({
          keyVersion: z.string(),
          /** The uuid of the volume that made it, and other volumes that have it too. */
          origin: z.string(),
          sharedWith: z.array(z.string()),
        }),
      ),
    }),
  ),
  /**
   * Those made or restored here; `present` where they still are where they were. Where one was not found and is not gone for sure
   * either, `doubt` says why.
   */
  backups: z.array(
    z.object({
      path: z.string(),
      volume: z.string(),
      createdAt: time,
      deks: z.array(z.int()),
      present: z.boolean(),
      doubt: z.string().nullable(),
    }),
  ),
  safeToDelete: z.boolean(),
  caveats: z.array(z.string()),
});
export type KeyUsage = z.infer<typeof keyUsageSchema>;

export const verifyResultSchema = z.object({
  checkedBlocks: bytes,
  /** Device ranges, bytes, that can't be read any more. */
  lost: z.array(z.object({ offset: bytes, length: bytes })),
  problems: z.array(z.string()),
  /** Of a restore: what the new volume is protected by. A backup that somebody put in place may name another cipher or key. */
  restored: z
    .object({
      cipher: z.enum(CIPHER_NAMES),
      keyUri: z.string().nullable(),
      resolvedKeyId: z.string().nullable(),
    })
    .optional(),
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
/** What came of `key set`: with --reencrypt a rotation follows, whose job rewrites the data. */
export const keySetSchema = keyChangeSchema.extend({ job: jobInfoSchema.nullable() });
export type KeySet = z.infer<typeof keySetSchema>;

/** What came of `key rotate` and `volume encrypt`. */
export const rotatedSchema = z.object({
  volume: z.string(),
  keyUri: z.string(),
  resolvedKeyId: z.string(),
  /** The DEK that seals what is new. */
  dekId: z.int(),
  exposed: z.boolean(),
  /** Rewrites the old data, where that was asked for. */
  job: jobInfoSchema.nullable(),
});
export type RotatedKey = z.infer<typeof rotatedSchema>;
export type JobInfo = z.infer<typeof jobInfoSchema>;

export const statusSchema = z.object({
  version: z.string(),
  pid: z.int(),
  startedAt: time,
  dataDirectory: z.string(),
  listen: z.array(z.string()),
  admin: z.array(z.string()),
  /** Of NBD: whether clients may, or must, start it. */
  tls: z.enum(['off', 'allowed', 'required']),
  keysLocked: z.boolean(),
  volumes: z.array(volumeInfoSchema),
  keys: z.array(keyStatusSchema),
  /** `identity` is the certificate's subject, or psk:NAME; null where the client proved nothing. */
  clients: z.array(z.object({ address: z.string(), volume: z.string(), identity: z.string().nullable() })),
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
