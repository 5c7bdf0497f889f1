/**
 * The members of a request, checked against the model of its operation. Stricter than AWS in one thing: a member that
 * the operation does not have is refused, where AWS ignores it, so that a misspelt one cannot pass a test.
 */
import type { EncryptionContext } from './ciphertext.js';
import { constraint, serialization, validation } from './errors.js';

const CONTEXT_CHARACTERS_MAX = 8192;

interface Values {
  string: string;
  /** Base64 in the request. */
  blob: Buffer;
  context: EncryptionContext;
  boolean: boolean;
  integer: number;
  strings: readonly string[];
}

export interface Member<Kind extends keyof Values = keyof Values, Required extends boolean = boolean> {
  readonly kind: Kind;
  readonly required: Required;
  /** Length of strings (characters) and blobs (bytes), value of integers. */
  readonly min?: number;
  readonly max?: number;
  readonly pattern?: RegExp;
  readonly oneOf?: readonly string[];
}

export type Model = Readonly<Record<string, Member>>;

export type Input<M extends Model> = {
  readonly [N in keyof M]: Values[M[N]['kind']] | (M[N]['required'] extends true ? never : undefined);
};

type Rules = Omit<Member, 'kind' | 'required'>;

export function required<Kind extends keyof Values>(kind: Kind, rules: Rules = {}): Member<Kind, true> {
  return { ...rules, kind, required: true };
}

export function optional<Kind extends keyof Values>(kind: Kind, rules: Rules = {}): Member<Kind, false> {
  return { ...rules, kind, required: false };
}

/** Throws SerializationException for wrong types, then ValidationException for broken rules. */
export function readInput<M extends Model>(model: M, body: Buffer): Input<M> {
  const object = parseObject(body);
  for (const name of Object.keys(object)) {
    if (!Object.hasOwn(model, name)) throw validation(`The fake knows no parameter '${name}' here`);
  }
  const input: Record<string, unknown> = {};
  for (const [name, member] of Object.entries(model)) {
    const value = object[name];
    input[name] = value === undefined || value === null ? undefined : READERS[member.kind](value);
  }
  for (const [name, member] of Object.entries(model)) checkRules(name, member, input[name]);
  return input as Input<M>;
}

function parseObject(body: Buffer): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(body.toString('utf8'));
  } catch {
    throw serialization();
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw serialization();
  return value as Record<string, unknown>;
}

function checkRules(name: string, member: Member, value: unknown): void {
  if (value === undefined) {
    if (member.required) throw constraint(name, 'Member must not be null');
    return;
  }
  const { min, max, pattern, oneOf } = member;
  const size = typeof value === 'number' ? value : (value as { length?: number }).length;
  const what = typeof value === 'number' ? 'value' : 'length';
  const shown = typeof value === 'number' ? String(value) : undefined;
  if (size !== undefined && min !== undefined && size < min) {
    throw constraint(name, `Member must have ${what} greater than or equal to ${min}`, shown);
  }
  if (size !== undefined && max !== undefined && size > max) {
    throw constraint(name, `Member must have ${what} less than or equal to ${max}`, shown);
  }
  if (typeof value !== 'string') return;
  if (pattern !== undefined && !pattern.test(value)) {
    throw constraint(name, `Member must satisfy regular expression pattern: ${pattern.source}`, value);
  }
  if (oneOf !== undefined && !oneOf.includes(value)) {
    throw constraint(name, `Member must satisfy enum value set: [${oneOf.join(', ')}]`, value);
  }
}

const READERS: { readonly [Kind in keyof Values]: (value: unknown) => Values[Kind] } = {
  string: (value) => {
    if (typeof value !== 'string') throw unconvertible(value, 'a String');
    return value;
  },
  blob: (value) => {
    if (typeof value !== 'string') throw unconvertible(value, 'a Blob');
    const bytes = Buffer.from(value, 'base64');
    // Buffer skips what is not base64; the service does not.
    if (bytes.toString('base64') !== value) throw serialization('Invalid base64 in a Blob');
    return bytes;
  },
  boolean: (value) => {
    if (typeof value !== 'boolean') throw unconvertible(value, 'a Boolean');
    return value;
  },
  integer: (value) => {
    if (typeof value !== 'number' || !Number.isInteger(value)) throw unconvertible(value, 'an Integer');
    return value;
  },
  strings: (value) => {
    if (!Array.isArray(value)) throw unconvertible(value, 'a List');
    return value.map(READERS.string);
  },
  context: (value) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw unconvertible(value, 'a Map');
    }
    const pairs = Object.entries(value).map(([name, text]) => [name, READERS.string(text)] as const);
    const characters = pairs.reduce((sum, [name, text]) => sum + name.length + text.length, 0);
    if (characters > CONTEXT_CHARACTERS_MAX) throw validation('The encryption context is too long');
    return Object.fromEntries(pairs);
  },
};

function unconvertible(value: unknown, type: string): Error {
  const found = Array.isArray(value) ? 'ARRAY' : value === null ? 'NULL' : typeof value;
  return serialization(`${found.toUpperCase()}_VALUE can not be converted to ${type}`);
}
