/** The AWS client, as the contract tests use it: no retries, and errors by name. */
import { KMSClient, type KMSClientConfig, KMSServiceException } from '@aws-sdk/client-kms';

export interface KmsTarget {
  readonly endpoint: string;
  readonly region: string;
  readonly credentials: {
    readonly accessKeyId: string;
    readonly secretAccessKey: string;
    readonly sessionToken?: string | undefined;
  };
}

/** One attempt for each call. The caller destroys it. */
export function kmsClient(target: KmsTarget, config: KMSClientConfig = {}): KMSClient {
  const { accessKeyId, secretAccessKey, sessionToken } = target.credentials;
  return new KMSClient({
    endpoint: target.endpoint,
    region: target.region,
    credentials: { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) },
    maxAttempts: 1,
    ...config,
  });
}

export interface Alteration {
  /** Undefined takes the header away. */
  readonly headers?: Readonly<Record<string, string | undefined>>;
  readonly body?: string;
}

/** The same client, which changes each request `before` it signs it, or `after`. */
export function altering(client: KMSClient, when: 'before' | 'after', change: Alteration): KMSClient {
  const alter = (message: unknown): void => {
    const request = message as { headers: Record<string, string>; body: unknown };
    if (change.body !== undefined) {
      request.body = change.body;
      request.headers['content-length'] = String(Buffer.byteLength(change.body));
    }
    for (const [name, value] of Object.entries(change.headers ?? {})) {
      if (value === undefined) delete request.headers[name];
      else request.headers[name] = value;
    }
  };
  const middleware =
    <Arguments extends { request: unknown }, Result>(next: (args: Arguments) => Promise<Result>) =>
    (args: Arguments): Promise<Result> => {
      alter(args.request);
      return next(args);
    };
  // Signing is in the step between these two.
  if (when === 'before') client.middlewareStack.add(middleware, { step: 'build', priority: 'low' });
  else client.middlewareStack.add(middleware, { step: 'deserialize', priority: 'low' });
  return client;
}

/** The name of the service's error that a call rejects with; anything else fails the test. */
export async function errorNameOf(call: Promise<unknown>): Promise<string> {
  return (await serviceErrorOf(call)).name;
}

export async function serviceErrorOf(call: Promise<unknown>): Promise<KMSServiceException> {
  const outcome = await call.then(
    () => new Error('the call succeeded'),
    (error: unknown) => error,
  );
  if (outcome instanceof KMSServiceException) return outcome;
  throw outcome;
}
