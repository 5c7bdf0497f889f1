/**
 * The error answers of AWS KMS: a name, a status and, mostly, a sentence. The wording follows what AWS documents or
 * has been recorded to say, because people and programs match it.
 */

export class AwsError extends Error {
  /** What stands in `__type`, such as DisabledException. */
  readonly type: string;
  readonly status: number;
  readonly #text: string | undefined;
  /** Errors of the service say `message`, those of the layers in front of it `Message`. */
  readonly #field: 'message' | 'Message';

  constructor(
    type: string,
    text?: string,
    options: { readonly status?: number; readonly field?: 'message' | 'Message' } = {},
  ) {
    super(text === undefined ? type : `${type}: ${text}`);
    this.name = 'AwsError';
    this.type = type;
    this.status = options.status ?? 400;
    this.#text = text;
    this.#field = options.field ?? 'message';
  }

  body(): Record<string, string> {
    return { __type: this.type, ...(this.#text === undefined ? {} : { [this.#field]: this.#text }) };
  }
}

export function validation(text: string): AwsError {
  return new AwsError('ValidationException', text);
}

/** A member that breaks a rule of the model; `member` as in the request. */
export function constraint(member: string, rule: string, value?: string): AwsError {
  const subject = value === undefined ? 'Value' : `Value '${value}'`;
  return validation(
    `1 validation error detected: ${subject} at '${lowerFirst(member)}' failed to satisfy constraint: ${rule}`,
  );
}

/** Not JSON, or JSON of other types than the model says. */
export function serialization(text?: string): AwsError {
  return new AwsError('SerializationException', text, { field: 'Message' });
}

export function notFound(text: string): AwsError {
  return new AwsError('NotFoundException', text);
}

export function invalidState(text: string): AwsError {
  return new AwsError('KMSInvalidStateException', text);
}

export function notAuthorized(principal: string, action: string, resource: string): AwsError {
  const policy = resource === '*' ? 'identity-based' : 'resource-based';
  return new AwsError(
    'AccessDeniedException',
    `User: ${principal} is not authorized to perform: ${action} on resource: ${resource} ` +
      `because no ${policy} policy allows the ${action} action`,
    { field: 'Message' },
  );
}

function lowerFirst(name: string): string {
  return name.charAt(0).toLowerCase() + name.slice(1);
}
