/** `[[access]]` of the configuration. */
import { z } from 'zod';
import { SealbdError } from '../base/errors.js';
import { type AccessRule, AddressSet, ExportPattern } from './access.js';
import type { TlsConfig } from './config-tls.js';

const RULES_MAX = 1024;
/** As OpenSSL writes the attributes of a subject. */
const ATTRIBUTES = ['CN', 'O', 'OU', 'C', 'ST', 'L', 'DC', 'UID', 'serialNumber', 'emailAddress'] as const;
const EXPORT_PATTERN = /^[A-Za-z0-9*][A-Za-z0-9._*-]*(?:@[A-Za-z0-9*][A-Za-z0-9._*-]*)?$/;

function oneOrMore(item: z.ZodString) {
  return z.union([item, z.array(item).min(1)]);
}

const accessRuleSchema = z.strictObject({
  /** Of the client's certificate, such as { CN = "db1", O = "Example" }. */
  subject: z
    .partialRecord(z.enum(ATTRIBUTES), z.string().min(1))
    .refine((subject) => Object.keys(subject).length > 0, `expected one of ${ATTRIBUTES.join(', ')}`)
    .optional(),
  /** Names of pre-shared keys. */
  psk: oneOrMore(z.string().min(1)).optional(),
  /** Addresses, networks (10.0.0.0/8, fd00::/8) and "unix". */
  address: oneOrMore(z.string()).optional(),
  /** Volumes, and snapshots as NAME@SNAP; `*` stands for any characters but `@`. */
  volumes: oneOrMore(
    z.string().regex(EXPORT_PATTERN, 'expected a volume name, NAME@SNAP, or a pattern with *'),
  ),
  mode: z.enum(['read-write', 'read-only']),
});

/** An empty list is a mistake: it looks like nobody, and no list at all means everybody. */
export const accessSchema = z.array(accessRuleSchema).min(1, 'expected at least one rule').max(RULES_MAX);
type AccessFile = z.infer<typeof accessSchema>;

/** Undefined where there is none: then everybody may open everything. USAGE where a rule could never hold. */
export function accessRules(
  file: AccessFile | undefined,
  tls: TlsConfig | undefined,
): AccessRule[] | undefined {
  if (file === undefined) return undefined;
  return file.map((rule, i) => {
    const refuse = (what: string) => new SealbdError('USAGE', `access.${i}.${what}`);
    const { source } = tls ?? {};
    if (rule.subject !== undefined && !(source?.kind === 'certificates' && source.verifyClients)) {
      throw refuse('subject: no client has a certificate: expected tls.certificates, with verify_clients');
    }
    if (rule.psk !== undefined && source?.kind !== 'psk') {
      throw refuse('psk: no client has a pre-shared key: expected tls.psk_file');
    }
    return {
      subject: rule.subject === undefined ? undefined : new Map(Object.entries(rule.subject)),
      pskNames: rule.psk === undefined ? undefined : new Set([rule.psk].flat()),
      addresses: rule.address === undefined ? undefined : addressSet([rule.address].flat(), refuse),
      exports: [rule.volumes].flat().map((text) => new ExportPattern(text)),
      mode: rule.mode,
    };
  });
}

function addressSet(texts: readonly string[], refuse: (what: string) => SealbdError): AddressSet {
  const set = new AddressSet();
  for (const text of texts) {
    if (!set.add(text)) {
      throw refuse(`address = ${JSON.stringify(text)}: expected an address, ADDRESS/PREFIX or "unix"`);
    }
  }
  return set;
}
