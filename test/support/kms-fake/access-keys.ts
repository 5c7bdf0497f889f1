/** Access keys, and for whom they speak. */
import { randomBytes } from 'node:crypto';
import { AwsError } from './errors.js';

export interface AccessKey {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Set for temporary credentials: requests without this very token are refused. */
  readonly sessionToken: string | undefined;
  /** ARN of the user or the assumed role. */
  readonly principal: string;
  /** ms since the epoch */
  readonly expiresAtMs: number;
}

export interface AccessKeyOptions {
  readonly principal: string;
  /** Temporary credentials have a session token; those with an expiry always do. */
  readonly session?: boolean;
  readonly expiresAtMs?: number;
}

export class AccessKeys {
  readonly #keys = new Map<string, AccessKey>();

  add(options: AccessKeyOptions): AccessKey {
    const session = options.session === true || options.expiresAtMs !== undefined;
    const key: AccessKey = {
      accessKeyId: (session ? 'ASIA' : 'AKIA') + randomBytes(8).toString('hex').toUpperCase(),
      secretAccessKey: randomBytes(30).toString('base64url'),
      sessionToken: session ? randomBytes(120).toString('base64') : undefined,
      principal: options.principal,
      expiresAtMs: options.expiresAtMs ?? Number.POSITIVE_INFINITY,
    };
    this.#keys.set(key.accessKeyId, key);
    return key;
  }

  /** From now on the answer is ExpiredTokenException. */
  expire(accessKeyId: string): void {
    this.#keys.set(accessKeyId, { ...this.#known(accessKeyId), expiresAtMs: Number.NEGATIVE_INFINITY });
  }

  /** From now on the answer is UnrecognizedClientException. */
  remove(accessKeyId: string): void {
    this.#keys.delete(this.#known(accessKeyId).accessKeyId);
  }

  /** The key of a request; throws where it is unknown, its token is another, or it has expired. */
  find(accessKeyId: string, sessionToken: string | undefined, nowMs: number): AccessKey {
    const key = this.#keys.get(accessKeyId);
    if (key === undefined || key.sessionToken !== sessionToken) {
      throw new AwsError(
        'UnrecognizedClientException',
        'The security token included in the request is invalid.',
      );
    }
    if (nowMs >= key.expiresAtMs) {
      throw new AwsError('ExpiredTokenException', 'The security token included in the request is expired');
    }
    return key;
  }

  #known(accessKeyId: string): AccessKey {
    const key = this.#keys.get(accessKeyId);
    if (key === undefined) throw new Error(`there is no access key ${accessKeyId}`);
    return key;
  }
}
