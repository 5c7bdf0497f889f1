/** `[tls]` of the configuration, and the flags that stand before it. */
import { resolve } from 'node:path';
import { SealbdError } from '../base/errors.js';
import type { TlsVersion } from '../nbd/tls-server.js';
import type { ConfigFile } from './config-schema.js';

export const TLS_MODES = ['off', 'allowed', 'required'] as const;
type TlsMode = (typeof TLS_MODES)[number];

/** Where certificates, or pre-shared keys, are read from: at the start, and again for each SIGHUP. */
export type TlsSource =
  | { readonly kind: 'certificates'; readonly directory: string; readonly verifyClients: boolean }
  | { readonly kind: 'psk'; readonly path: string };

export interface TlsConfig {
  /** Plaintext is refused. */
  readonly required: boolean;
  readonly minVersion: TlsVersion;
  readonly source: TlsSource;
}

export interface TlsFlags {
  readonly tls?: string | undefined;
  readonly tlsCertificates?: string | undefined;
  readonly tlsPskFile?: string | undefined;
}

/** Undefined where TLS is off: nothing names a source, or the mode says so. */
export function tlsConfig(
  flags: TlsFlags,
  workingDirectory: string,
  { tls: file = {} }: ConfigFile,
  fileBase: string,
): TlsConfig | undefined {
  const source = tlsSource(flags, workingDirectory, file, fileBase);
  const mode = modeOf(flags) ?? file.mode ?? (source === undefined ? 'off' : 'required');
  if (mode === 'off') return undefined;
  if (source === undefined) {
    throw new SealbdError(
      'USAGE',
      `TLS is ${mode}, but nothing says with what: expected --tls-certificates, --tls-psk-file, or one of these in [tls]`,
    );
  }
  const minVersion = `TLSv${file.min_version ?? '1.2'}` as const;
  return { required: mode === 'required', minVersion, source };
}

function modeOf({ tls }: TlsFlags): TlsMode | undefined {
  if (tls === undefined) return undefined;
  const mode = TLS_MODES.find((one) => one === tls);
  if (mode !== undefined) return mode;
  throw new SealbdError('USAGE', `--tls: "${tls}": expected one of ${TLS_MODES.join(', ')}`);
}

function tlsSource(
  flags: TlsFlags,
  cwd: string,
  file: NonNullable<ConfigFile['tls']>,
  fileBase: string,
): TlsSource | undefined {
  const byFlag = flags.tlsCertificates !== undefined || flags.tlsPskFile !== undefined;
  const base = byFlag ? cwd : fileBase;
  const directory = byFlag ? flags.tlsCertificates : file.certificates;
  const path = byFlag ? flags.tlsPskFile : file.psk_file;
  if (directory !== undefined && path !== undefined) {
    throw new SealbdError('USAGE', 'TLS: expected certificates or a PSK file, and not both');
  }
  const verifyClients = file.verify_clients ?? true;
  if (directory !== undefined) {
    return { kind: 'certificates', directory: resolve(base, directory), verifyClients };
  }
  return path === undefined ? undefined : { kind: 'psk', path: resolve(base, path) };
}
