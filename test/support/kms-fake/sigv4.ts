/**
 * Verifies AWS Signature Version 4 in the Authorization header, as KMS does: credentials first, then the clock, then
 * the signature over method, path, query, signed headers and body.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import type { AccessKey, AccessKeys } from './access-keys.js';
import { AwsError } from './errors.js';

const ALGORITHM = 'AWS4-HMAC-SHA256';
const SERVICE = 'kms';
const MINUTE_MS = 60_000;
const SKEW_MINUTES_MAX = 5;
/** A signature that leaves one of these open could be moved to another request. */
const SIGNED_ALWAYS = ['host', 'x-amz-date', 'x-amz-target', 'x-amz-security-token'];

export interface SignedRequest {
  readonly method: string;
  /** Path and query, as on the request line. */
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** The access key that signed the request; throws an AwsError where none did. */
export function verifySignature(
  request: SignedRequest,
  accessKeys: AccessKeys,
  region: string,
  nowMs: number,
): AccessKey {
  const { accessKeyId, scope, signedHeaders, signature } = parseAuthorization(request.headers.authorization);
  const sessionToken = headerOf(request.headers, 'x-amz-security-token');
  const accessKey = accessKeys.find(accessKeyId, sessionToken, nowMs);
  const date = headerOf(request.headers, 'x-amz-date') ?? '';
  checkClock(date, nowMs);
  checkScope(scope, date, region);
  for (const name of SIGNED_ALWAYS) {
    if (request.headers[name] !== undefined && signedHeaders.includes(name)) continue;
    if (name === 'x-amz-security-token' && sessionToken === undefined) continue;
    throw invalidSignature(`'${name}' must be a 'SignedHeader' in the AWS Authorization.`);
  }
  const expected = signatureOf(request, accessKey.secretAccessKey, scope, signedHeaders, date);
  const given = Buffer.from(signature, 'hex');
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) {
    throw invalidSignature(
      'The request signature we calculated does not match the signature you provided. Check your AWS Secret Access ' +
        'Key and signing method. Consult the service documentation for details.',
    );
  }
  return accessKey;
}

interface Authorization {
  readonly accessKeyId: string;
  /** date, region, service, terminator */
  readonly scope: readonly string[];
  readonly signedHeaders: readonly string[];
  readonly signature: string;
}

function parseAuthorization(header: string | undefined): Authorization {
  if (header === undefined) {
    throw new AwsError('MissingAuthenticationTokenException', 'Missing Authentication Token');
  }
  if (!header.startsWith(`${ALGORITHM} `)) {
    throw incomplete(`Unsupported AWS 'algorithm': '${header.split(' ')[0]}'.`);
  }
  const parts = new Map<string, string>();
  for (const part of header.slice(ALGORITHM.length + 1).split(',')) {
    const [name, value] = part.trim().split('=', 2);
    parts.set(name, value ?? '');
  }
  const of = (name: string): string => {
    const value = parts.get(name);
    if (value) return value;
    throw incomplete(`Authorization header requires '${name}' parameter.`);
  };
  const [accessKeyId, ...scope] = of('Credential').split('/');
  return {
    accessKeyId,
    scope,
    signedHeaders: of('SignedHeaders').split(';'),
    signature: of('Signature'),
  };
}

function checkClock(date: string, nowMs: number): void {
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(date);
  if (match === null) throw incomplete("Date must be in ISO-8601 'basic format'.");
  const [, year, month, day, hour, minute, second] = match;
  const signedMs = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
  const skewMs = SKEW_MINUTES_MAX * MINUTE_MS;
  const now = basicDate(nowMs);
  if (signedMs < nowMs - skewMs) {
    throw invalidSignature(
      `Signature expired: ${date} is now earlier than ${basicDate(nowMs - skewMs)} (${now} - ${SKEW_MINUTES_MAX} min.)`,
    );
  }
  if (signedMs > nowMs + skewMs) {
    throw invalidSignature(
      `Signature not yet current: ${date} is still later than ${basicDate(nowMs + skewMs)} ` +
        `(${now} + ${SKEW_MINUTES_MAX} min.)`,
    );
  }
}

function checkScope(scope: readonly string[], date: string, region: string): void {
  const [day, scopeRegion, service, terminator] = scope;
  if (scope.length !== 4 || terminator !== 'aws4_request') {
    throw incomplete('Credential must have exactly 5 slash-delimited elements.');
  }
  if (day !== date.slice(0, 8)) {
    throw invalidSignature(`Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date.`);
  }
  if (scopeRegion !== region) {
    throw invalidSignature(`Credential should be scoped to a valid region, not '${scopeRegion}'. `);
  }
  if (service !== SERVICE) {
    throw invalidSignature(`Credential should be scoped to correct service: '${SERVICE}'. `);
  }
}

function signatureOf(
  request: SignedRequest,
  secret: string,
  scope: readonly string[],
  signedHeaders: readonly string[],
  date: string,
): Buffer {
  const [path, query = ''] = request.url.split('?', 2);
  const headers = signedHeaders.map((name) => {
    const value = headerOf(request.headers, name) ?? '';
    return `${name}:${value.trim().replace(/ +/g, ' ')}\n`;
  });
  const canonical = [
    request.method,
    path,
    query.split('&').sort().join('&'),
    headers.join(''),
    signedHeaders.join(';'),
    sha256(request.body),
  ].join('\n');
  const toSign = [ALGORITHM, date, scope.join('/'), sha256(canonical)].join('\n');
  const key = scope.reduce<Buffer>(hmac, Buffer.from(`AWS4${secret}`));
  return hmac(key, toSign);
}

function headerOf(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[name];
  return Array.isArray(value) ? value.join(',') : value;
}

function sha256(data: string | Buffer): string {
  return createHash('sha256').update(data).digest('hex');
}

function hmac(key: Buffer, data: string): Buffer {
  return createHmac('sha256', key).update(data).digest();
}

/** 20261124T070924Z */
function basicDate(ms: number): string {
  return new Date(ms).toISOString().replace(/[-:]|\.\d+/g, '');
}

function incomplete(text: string): AwsError {
  return new AwsError('IncompleteSignatureException', text);
}

function invalidSignature(text: string): AwsError {
  return new AwsError('InvalidSignatureException', text);
}
