/**
 * What the daemon runs with: flags, then environment (data directory and admin token only), then the file, then
 * defaults. Relative paths of the file are relative to it; those of flags, to the caller's directory. Errors name
 * the key, its value and what was expected.
 */
import { accessSync, constants, readFileSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parse, TomlError } from 'smol-toml';
import type { z } from 'zod';
import { suiteOf } from '../base/ciphers.js';
import { dataDirectory } from '../base/data-directory.js';
import { messageOf, SealbdError } from '../base/errors.js';
import {
  CONFIG_BYTES_MAX,
  HOOK_TIMEOUT_MS,
  NAME_PATTERN,
  POLL_INTERVAL_MS_MAX,
  POLL_INTERVAL_MS_MIN,
  UNREACHABLE_GRACE_MS_MAX,
} from '../base/limits.js';
import { parseDuration, parseSize } from '../base/units.js';
import type { HeaderPins } from '../keys/header-unwrap.js';
import { DEFAULT_WATCH, type WatchPolicy } from '../keys/watch-state.js';
import type { NbdLimits } from '../nbd/nbd-limits.js';
import type { AccessRule } from './access.js';
import { type Address, formatAddress, isLocalAddress, parseAddress } from './addresses.js';
import { accessRules } from './config-access.js';
import { expectDuration } from './config-fields.js';
import { nbdLimits } from './config-limits.js';
import {
  ADMIN_TOKEN_CHARACTERS_MIN,
  type ConfigFile,
  configSchema,
  type TuningConfig,
} from './config-schema.js';
import { type TlsConfig, type TlsFlags, tlsConfig } from './config-tls.js';

const DEFAULT_LISTEN = '127.0.0.1:10809';

export interface DaemonConfig {
  readonly dataDirectory: string;
  readonly listen: readonly Address[];
  /** Listening sockets beside these, as descriptors. */
  readonly sockets: readonly number[];
  /** An admin address beside DIR/admin.sock, which is always there. */
  readonly admin: Address | undefined;
  readonly adminToken: string | undefined;
  /** The file that it stands in, unless it came from the environment. */
  readonly adminTokenFile: string | undefined;
  readonly allowUnlockedKeys: boolean;
  readonly requireKeys: boolean;
  /** Traffic with other machines may go in the clear: of clients, and with a key service. */
  readonly insecure: boolean;
  /** Undefined where TLS is off. */
  readonly tls: TlsConfig | undefined;
  /** Undefined where everybody may open everything. */
  readonly access: readonly AccessRule[] | undefined;
  readonly limits: NbdLimits;
  readonly defaultVolume: { readonly name: string; readonly sizeBytes: number } | undefined;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error';
  readonly tuning: TuningConfig;
  readonly pins: ReadonlyMap<string, HeaderPins>;
  readonly watch: WatchPolicy;
  readonly hook: { readonly path: string; readonly timeoutMs: number } | undefined;
}

/** Flags of `serve`, as they came. */
export interface ServeFlags extends TlsFlags {
  readonly data?: string | undefined;
  readonly config?: string | undefined;
  readonly listen?: readonly string[] | undefined;
  /** What the service manager handed over: takes the place of the default address. */
  readonly sockets?: readonly number[] | undefined;
  readonly admin?: string | undefined;
  readonly pollInterval?: string | undefined;
  readonly unreachableGrace?: string | undefined;
  readonly defaultVolume?: string | undefined;
  readonly requireKeys?: boolean | undefined;
  readonly allowUnlockedKeys?: boolean | undefined;
  readonly insecure?: boolean | undefined;
}

export function resolveConfig(
  flags: ServeFlags,
  environment: NodeJS.ProcessEnv,
  workingDirectory: string,
): DaemonConfig {
  const path = flags.config === undefined ? undefined : resolve(workingDirectory, flags.config);
  const file = path === undefined ? {} : readConfigFile(path);
  const fileBase = path === undefined ? workingDirectory : dirname(path);
  const tls = tlsConfig(flags, workingDirectory, file, fileBase);
  const config: DaemonConfig = {
    dataDirectory: dataDirectory(flags.data, environment, workingDirectory, {
      value: file.data,
      directory: fileBase,
    }),
    listen: listenAddresses(flags, workingDirectory, file, fileBase),
    sockets: flags.sockets ?? [],
    admin: adminAddress(flags, workingDirectory, file, fileBase),
    ...adminToken(environment, file, path),
    allowUnlockedKeys: flags.allowUnlockedKeys ?? file.allow_unlocked_keys ?? false,
    requireKeys: flags.requireKeys ?? file.require_keys ?? false,
    insecure: flags.insecure ?? file.insecure ?? false,
    tls,
    access: accessRules(file.access, tls),
    limits: nbdLimits(file.limits),
    defaultVolume: parseDefaultVolume(flags.defaultVolume),
    logLevel: file.log?.level ?? 'info',
    tuning: file.tuning ?? {},
    pins: pinsOf(file),
    watch: watchPolicy(flags, file),
    hook: hookOf(file, fileBase),
  };
  assertSafe(config);
  return config;
}

export function readConfigFile(path: string): ConfigFile {
  let text: string;
  try {
    if (statSync(path).size > CONFIG_BYTES_MAX) throw new Error(`larger than ${CONFIG_BYTES_MAX} bytes`);
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new SealbdError('USAGE', `cannot read the configuration ${path}: ${messageOf(error)}`, {
      cause: error,
    });
  }
  return parseConfig(text, path);
}

/** `source` names the file in errors. */
export function parseConfig(text: string, source: string): ConfigFile {
  let raw: unknown;
  try {
    raw = parse(text);
  } catch (error) {
    const where = error instanceof TomlError ? `line ${error.line}: ` : '';
    const what = messageOf(error).split('\n')[0];
    throw new SealbdError('USAGE', `${source}: ${where}${what}`, { cause: error });
  }
  const result = configSchema.safeParse(raw);
  if (result.success) return result.data;
  const problems = result.error.issues.map((issue) => describeIssue(issue, raw));
  throw new SealbdError('USAGE', `${source}: ${problems.join('; ')}`);
}

function describeIssue(issue: z.core.$ZodIssue, raw: unknown): string {
  const key = issue.path.join('.');
  if (issue.code === 'unrecognized_keys') {
    return `unknown key ${issue.keys.map((name) => (key === '' ? name : `${key}.${name}`)).join(', ')}`;
  }
  const value = issue.path.reduce<unknown>(
    (at, part) => (at as Record<PropertyKey, unknown> | undefined)?.[part],
    raw,
  );
  // A secret must not be quoted back into a log.
  const shown = key === 'admin_token' ? '(hidden)' : JSON.stringify(value);
  const expectation = issue.code === 'invalid_key' ? 'expected a volume name' : issue.message;
  return `${key} = ${shown}: ${expectation}`;
}

function listenAddresses(flags: ServeFlags, cwd: string, file: ConfigFile, fileBase: string): Address[] {
  if (flags.listen !== undefined && flags.listen.length > 0) {
    return flags.listen.map((text) => parseAddress(text, '--listen', cwd));
  }
  const otherwise = flags.sockets === undefined || flags.sockets.length === 0 ? [DEFAULT_LISTEN] : [];
  const fromFile = file.listen === undefined ? otherwise : [file.listen].flat();
  return fromFile.map((text) => parseAddress(text, 'listen', fileBase));
}

function adminAddress(
  flags: ServeFlags,
  cwd: string,
  file: ConfigFile,
  fileBase: string,
): Address | undefined {
  if (flags.admin !== undefined) return parseAddress(flags.admin, '--admin', cwd);
  return file.admin === undefined ? undefined : parseAddress(file.admin, 'admin', fileBase);
}

function adminToken(
  environment: NodeJS.ProcessEnv,
  file: ConfigFile,
  path: string | undefined,
): Pick<DaemonConfig, 'adminToken' | 'adminTokenFile'> {
  const token = environmentToken(environment);
  if (token !== undefined) return { adminToken: token, adminTokenFile: undefined };
  return { adminToken: file.admin_token, adminTokenFile: file.admin_token === undefined ? undefined : path };
}

function environmentToken(environment: NodeJS.ProcessEnv): string | undefined {
  const token = environment.SEALBD_ADMIN_TOKEN;
  if (token === undefined || token === '') return undefined;
  if (token.length < ADMIN_TOKEN_CHARACTERS_MIN) {
    throw new SealbdError(
      'USAGE',
      `SEALBD_ADMIN_TOKEN: expected at least ${ADMIN_TOKEN_CHARACTERS_MIN} characters`,
    );
  }
  return token;
}

function parseDefaultVolume(text: string | undefined): DaemonConfig['defaultVolume'] {
  if (text === undefined) return undefined;
  const colon = text.indexOf(':');
  const name = text.slice(0, colon);
  if (colon < 0 || !NAME_PATTERN.test(name)) {
    throw new SealbdError('USAGE', `--default-volume: "${text}" is not NAME:SIZE, such as default:10G`);
  }
  return { name, sizeBytes: parseSize(text.slice(colon + 1), '--default-volume') };
}

function watchPolicy(flags: ServeFlags, { watchdog = {} }: ConfigFile): WatchPolicy {
  const { pollInterval, unreachableGrace } = flags;
  return {
    intervalMs:
      flagDuration(pollInterval, '--poll-interval', POLL_INTERVAL_MS_MIN, POLL_INTERVAL_MS_MAX) ??
      watchdog.poll_interval ??
      DEFAULT_WATCH.intervalMs,
    graceMs:
      flagDuration(unreachableGrace, '--unreachable-grace', 0, UNREACHABLE_GRACE_MS_MAX) ??
      watchdog.unreachable_grace ??
      DEFAULT_WATCH.graceMs,
    confirmMs: watchdog.confirm_after ?? DEFAULT_WATCH.confirmMs,
    resume: watchdog.resume ?? DEFAULT_WATCH.resume,
  };
}

/** `0` needs no unit. */
function flagDuration(
  text: string | undefined,
  flag: string,
  minMs: number,
  maxMs: number,
): number | undefined {
  if (text === undefined) return undefined;
  const ms = text === '0' ? 0 : parseDuration(text, flag);
  if (ms >= minMs && ms <= maxMs) return ms;
  throw new SealbdError('USAGE', `${flag}: "${text}": ${expectDuration(minMs, maxMs)}`);
}

/** A hook that can't be started should be known before the day that it is needed. */
function hookOf({ watchdog }: ConfigFile, fileBase: string): DaemonConfig['hook'] {
  if (watchdog?.hook === undefined) return undefined;
  const path = resolve(fileBase, watchdog.hook);
  try {
    if (!statSync(path).isFile()) throw new Error('not a file');
    accessSync(path, constants.X_OK);
  } catch (error) {
    throw new SealbdError(
      'USAGE',
      `watchdog.hook = ${JSON.stringify(watchdog.hook)}: expected a program: ${messageOf(error)}`,
      { cause: error },
    );
  }
  return { path, timeoutMs: watchdog.hook_timeout ?? HOOK_TIMEOUT_MS };
}

function pinsOf(file: ConfigFile): Map<string, HeaderPins> {
  const pins = new Map<string, HeaderPins>();
  for (const [name, pin] of Object.entries(file.volumes ?? {})) {
    pins.set(name, {
      uuid: pin.uuid?.toLowerCase(),
      suite: pin.cipher === undefined ? undefined : suiteOf(pin.cipher),
      keyUris: pin.key === undefined ? undefined : [pin.key].flat(),
    });
  }
  return pins;
}

function assertSafe(config: DaemonConfig): void {
  const { admin, adminToken, insecure, tls } = config;
  if (admin?.kind === 'tcp' && adminToken === undefined) {
    throw new SealbdError(
      'USAGE',
      `admin address ${formatAddress(admin)} needs a token: set SEALBD_ADMIN_TOKEN or admin_token in the configuration`,
    );
  }
  if (insecure) return;
  // The token crosses the wire with each request, and who listens on loopback may be any user.
  if (admin?.kind === 'tcp' && tls?.source.kind !== 'certificates') {
    throw new SealbdError(
      'USAGE',
      `admin address ${formatAddress(admin)} needs TLS: give --tls-certificates, or take --insecure`,
    );
  }
  for (const address of config.listen) assertSafeToServe(address, config);
}

/** Data does not cross a network in the clear unless somebody said that it may. */
export function assertSafeToServe(address: Address, { insecure, tls }: DaemonConfig): void {
  if (insecure || isLocalAddress(address) || tls?.required) return;
  throw new SealbdError(
    'USAGE',
    `${formatAddress(address)} can be reached from other machines and traffic would not be encrypted: ` +
      'give --tls-certificates or --tls-psk-file, or take --insecure',
  );
}
