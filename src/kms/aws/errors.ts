/**
 * What an error of AWS KMS, of the credentials or of the network says about the key. By the name of the error, never by
 * its message: that is for people. One name of KMS says too little: KMSInvalidStateException (invalid-state.ts).
 *
 * An error that is not in the tables counts as unreachable: it says nothing that is understood here. The volume is then
 * served on for the grace period, with the reason and a countdown shown, and stopped at its end. So an unknown answer
 * neither stops a volume whose key is well, nor lets one run for ever whose key is not. Anything that cannot be parsed
 * counts likewise: it came from something between here and KMS.
 */
import { errnoOf, messageOf } from '../../base/errors.js';
import { KmsError, type KmsErrorKind } from '../provider.js';

const MESSAGE_CHARACTERS_MAX = 500;

/** AWS's errors of a key, and what each means. */
const OF_THE_KEY = tableOf<readonly [KmsErrorKind, string]>({
  AccessDeniedException: ['refused', "the daemon's AWS principal has no permission to do that with the key"],
  DisabledException: ['refused', 'the key is disabled, or waits to be deleted'],
  KMSInvalidStateException: [
    'refused',
    'the state of the key allows no use: it waits to be deleted, or has no key material',
  ],
  NotFoundException: ['refused', 'there is no such key in this account and region'],
  InvalidKeyUsageException: ['refused', 'the key is not one for symmetric encryption'],
  InvalidArnException: ['refused', 'AWS takes the name of the key for no key ARN'],
  InvalidCiphertextException: [
    'damaged',
    'the wrapped DEK, or what it is bound to (volume, DEK id, exposed mark), is not what the key wrapped',
  ],
  IncorrectKeyException: ['damaged', 'another key wrapped the DEK'],
  KeyUnavailableException: ['unreachable', 'KMS cannot use the key right now'],
  DependencyTimeoutException: ['unreachable', 'KMS waits for a part of its own'],
  KMSInternalException: ['unreachable', 'KMS has an internal fault'],
  ThrottlingException: ['unreachable', 'too many requests for this account'],
  LimitExceededException: ['unreachable', 'a quota of this account is used up'],
  ServiceUnavailableException: ['unreachable', 'KMS is not available'],
});

const EXPIRED = "the daemon's AWS credentials have expired";
const UNKNOWN = "AWS does not know the daemon's AWS credentials";
const WRONG =
  "the daemon's AWS credentials are wrong (the secret does not belong to the access key), or its clock is";
const MISSING = "the daemon's AWS credentials are missing";

/** Errors that prove something about who asks, by KMS and by what gives the credentials. All are refusals. */
const OF_THE_CREDENTIALS = tableOf<string>({
  ExpiredToken: EXPIRED,
  RequestExpired: WRONG,
  UnrecognizedClient: UNKNOWN,
  InvalidClientTokenId: UNKNOWN,
  InvalidSignature: WRONG,
  SignatureDoesNotMatch: WRONG,
  IncompleteSignature: WRONG,
  MissingAuthenticationToken: MISSING,
  OptInRequired: "the daemon's AWS credentials are of an account without KMS",
  NotAuthorized: "the daemon's AWS credentials are refused",
});

/** The same of what gives the credentials alone: from KMS, a denial is one of the key. */
const OF_THE_SOURCE = tableOf<string>({
  AccessDenied: 'the daemon may not have its AWS credentials',
  Unauthorized: 'the daemon may not have its AWS credentials',
  Forbidden: 'the daemon may not have its AWS credentials',
  InvalidIdentityToken: "AWS takes the daemon's web identity token for none",
  IDPRejectedClaim: "the identity provider rejects the daemon's web identity token",
});

/** Of single sign-on, whose errors have no names of their own. */
const SSO_EXPIRED =
  /SSO session associated with this profile has expired|^Token is expired|^(?:Unauthorized|Forbidden)Exception:/;

const OF_THE_NETWORK = tableOf<string>({
  ENOTFOUND: 'its name cannot be resolved (DNS)',
  EAI_AGAIN: 'its name cannot be resolved (DNS)',
  ECONNREFUSED: 'the connection is refused',
  ECONNRESET: 'the connection broke',
  EPIPE: 'the connection broke',
  ETIMEDOUT: 'there is no answer in time',
  EHOSTUNREACH: 'there is no route',
  ENETUNREACH: 'there is no route',
});

export class AwsKmsError extends KmsError {
  /** AWS's name of the error, or of what kept AWS from answering. */
  readonly awsName: string;
  /** True where who asks is the problem, not the key. */
  readonly ofCredentials: boolean;
  /** What AWS says, for people. */
  readonly awsMessage: string;

  constructor(kind: KmsErrorKind, name: string, message: string, cause: unknown, ofCredentials = false) {
    super(kind, message, cause);
    this.awsName = name;
    this.awsMessage = said(cause);
    this.ofCredentials = ofCredentials;
  }
}

/** `action` says what was asked for: "kms:Decrypt under ARN". An error that is nobody's out there comes back as it is. */
export function awsErrorOf(error: unknown, action: string): unknown {
  if (error instanceof KmsError || isOwn(error)) return error;
  const name = nameOf(error);
  const quoted = said(error) === '' ? '' : ` (AWS says: ${said(error)})`;
  const ofCredentials = OF_THE_CREDENTIALS.get(withoutSuffix(name));
  if (ofCredentials !== undefined) {
    return new AwsKmsError('refused', name, `${action}: ${name}: ${ofCredentials}${quoted}`, error, true);
  }
  const known = OF_THE_KEY.get(name);
  if (known !== undefined) {
    return new AwsKmsError(known[0], name, `${action}: ${name}: ${known[1]}${quoted}`, error);
  }
  return new AwsKmsError('unreachable', name, `${action}: AWS KMS ${unanswered(error, name)}`, error);
}

/** What is known of where credentials come from, when they can't be had. */
export interface CredentialSources {
  /** This process had credentials before. */
  readonly had: boolean;
  /** What is to give them: each can be out of order. Settings that hold them as text are none. */
  readonly configured: readonly string[];
}

/**
 * The same for what goes wrong before KMS is asked. refused only where something says no, or where nothing is there to
 * ask and never was: the SDK tries one source after another, and tells of most failures no more than that none gave
 * any. An outage of what gives credentials must not count as a key that was taken away.
 */
export function credentialsErrorOf(error: unknown, { had, configured }: CredentialSources): AwsKmsError {
  if (error instanceof AwsKmsError) return error;
  const name = nameOf(error);
  const quoted = said(error) === '' ? '' : ` (${said(error)})`;
  const outage = (why: string): AwsKmsError => {
    const message = `what gives the daemon's AWS credentials cannot be reached: ${why}${quoted}`;
    return new AwsKmsError('unreachable', 'CredentialsOutage', message, error);
  };
  const status = statusOf(error);
  const network = OF_THE_NETWORK.get(errnoOf(error) ?? '');
  if (network !== undefined) return outage(network);
  if (status >= 500 || status === 429) return outage(`it answers ${status}`);
  const no =
    OF_THE_CREDENTIALS.get(withoutSuffix(name)) ??
    OF_THE_SOURCE.get(withoutSuffix(name)) ??
    (SSO_EXPIRED.test(said(error)) ? EXPIRED : undefined) ??
    (isOfCredentialSource(error) && !had && configured.length === 0 ? MISSING : undefined);
  if (no !== undefined) {
    return new AwsKmsError('refused', name, `${name}: ${no}${quoted}`, error, true);
  }
  const asked = configured.length === 0 ? '' : `; asked: ${configured.join(', ')}`;
  return outage(`${name === '' ? 'there is no answer of use' : name}${asked}`);
}

/** Whether it comes from the SDK's search for credentials. */
export function isOfCredentialSource(error: unknown): boolean {
  return error instanceof Error && 'tryNextLink' in error;
}

function unanswered(error: unknown, name: string): string {
  const status = statusOf(error);
  if (status >= 500) return `answers ${status}, ${name}${detail(error)}`;
  const code = errnoOf(error) ?? '';
  const network = OF_THE_NETWORK.get(code);
  if (network !== undefined) return `cannot be reached: ${network}${detail(error)}`;
  if (
    /^(CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|ERR_TLS_|ERR_SSL_|EPROTO$|HOSTNAME_MISMATCH$)/.test(code)
  ) {
    return `cannot be reached: TLS fails, ${code}${detail(error)}`;
  }
  if (error instanceof SyntaxError) return `does not answer; what does sends no JSON${detail(error)}`;
  if (status >= 400) return `answers ${name}, which is not known here (status ${status})${detail(error)}`;
  return `gives no answer of use: ${name}${detail(error)}`;
}

/** Of the addon, whose keys have states of their own. */
function isOwn(error: unknown): boolean {
  return /^(KEY_|EINVAL$)/.test(errnoOf(error) ?? '');
}

/** A name that somebody sends must not find what every object has. */
function tableOf<T>(entries: Readonly<Record<string, T>>): ReadonlyMap<string, T> {
  return new Map(Object.entries(entries));
}

/** Services spell the same error with and without it. */
function withoutSuffix(name: string): string {
  return name.replace(/Exception$/, '');
}

function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : '';
}

function statusOf(error: unknown): number {
  const metadata = (error as { $metadata?: { httpStatusCode?: unknown } } | undefined)?.$metadata;
  return typeof metadata?.httpStatusCode === 'number' ? metadata.httpStatusCode : 0;
}

function detail(error: unknown): string {
  return said(error) === '' ? '' : `: ${said(error)}`;
}

/** One printable line, the first. Whoever answers chooses this text. */
function said(error: unknown): string {
  const [line] = messageOf(error).trim().split('\n');
  const text = line.replace(/[^\x20-\x7e]+/g, ' ').trim();
  return text.length > MESSAGE_CHARACTERS_MAX ? `${text.slice(0, MESSAGE_CHARACTERS_MAX)}...` : text;
}
