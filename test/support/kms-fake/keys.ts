/** The keys of the account and the aliases that point at them. */
import { randomUUID } from 'node:crypto';
import { type KeyMaterial, newMaterial } from './ciphertext.js';
import { AwsError, invalidState, notFound } from './errors.js';

/** As in DescribeKey. A deleted key is one that the table no longer has. */
export const KEY_STATES = ['Enabled', 'Disabled', 'PendingDeletion', 'PendingImport', 'Unavailable'] as const;
export type KeyState = (typeof KEY_STATES)[number];

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

export class FakeKey {
  readonly id = randomUUID();
  readonly arn: string;
  readonly description: string;
  readonly createdAtMs: number;
  state: KeyState = 'Enabled';
  /** Set while the state is PendingDeletion. */
  deletionAtMs: number | undefined;
  /** The last one encrypts; all of them decrypt. */
  readonly #materials: KeyMaterial[] = [newMaterial()];

  constructor(arnPrefix: string, description: string, createdAtMs: number) {
    this.arn = `${arnPrefix}key/${this.id}`;
    this.description = description;
    this.createdAtMs = createdAtMs;
  }

  get current(): KeyMaterial {
    return this.#materials[this.#materials.length - 1];
  }

  material(id: string): KeyMaterial | undefined {
    return this.#materials.find((material) => material.id === id);
  }

  rotate(): void {
    this.#materials.push(newMaterial());
  }

  setState(state: KeyState, deletionAtMs?: number): void {
    this.state = state;
    this.deletionAtMs = deletionAtMs;
  }

  /** Throws unless the key can be used. Keys pending deletion have been seen to give either error. */
  requireEnabled(pendingDeletionError: 'KMSInvalidStateException' | 'DisabledException'): void {
    switch (this.state) {
      case 'Enabled':
        return;
      case 'Disabled':
        throw new AwsError('DisabledException', `${this.arn} is disabled.`);
      case 'PendingDeletion':
        throw new AwsError(pendingDeletionError, `${this.arn} is pending deletion.`);
      case 'PendingImport':
        throw invalidState(`${this.arn} is pending import.`);
      case 'Unavailable':
        throw invalidState(`${this.arn} is unavailable.`);
    }
  }
}

export class KeyTable {
  readonly arnPrefix: string;
  readonly #keys = new Map<string, FakeKey>();
  /** alias/NAME to key id */
  readonly #aliases = new Map<string, string>();

  constructor(region: string, accountId: string) {
    this.arnPrefix = `arn:aws:kms:${region}:${accountId}:`;
  }

  get all(): FakeKey[] {
    return [...this.#keys.values()];
  }

  get aliases(): { name: string; arn: string; keyId: string }[] {
    return [...this.#aliases].map(([name, keyId]) => ({ name, arn: this.arnPrefix + name, keyId }));
  }

  create(description: string, nowMs: number): FakeKey {
    const key = new FakeKey(this.arnPrefix, description, nowMs);
    this.#keys.set(key.id, key);
    return key;
  }

  /** Aliases of a deleted key go with it. */
  delete(key: FakeKey): void {
    this.#keys.delete(key.id);
    for (const { name, keyId } of this.aliases) if (keyId === key.id) this.#aliases.delete(name);
  }

  setAlias(name: string, key: FakeKey): void {
    this.#aliases.set(name, key.id);
  }

  deleteAlias(name: string): void {
    this.#aliases.delete(name);
  }

  /** The key that an alias points at, or undefined. */
  aliasTarget(name: string): FakeKey | undefined {
    return this.#keys.get(this.#aliases.get(name) ?? '');
  }

  /** By the id inside a ciphertext. */
  byId(id: string): FakeKey | undefined {
    return this.#keys.get(id);
  }

  /** By key id, key ARN, alias name or alias ARN, as KMS does; throws NotFoundException. */
  resolve(keyId: string): FakeKey {
    const name = this.#localName(keyId);
    if (!name.startsWith('alias/')) return this.resolveKey(keyId);
    const key = this.aliasTarget(name);
    if (key === undefined) throw notFound(`Alias ${this.arnPrefix}${name} is not found.`);
    return key;
  }

  /** By key id or key ARN: what the operations that manage keys accept. */
  resolveKey(keyId: string): FakeKey {
    const id = this.#localName(keyId).replace(/^key\//, '');
    if (!UUID.test(id)) throw notFound(`Invalid keyId '${keyId}'`);
    const key = this.#keys.get(id);
    if (key === undefined) throw notFound(`Key '${this.arnPrefix}key/${id}' does not exist`);
    return key;
  }

  /** What follows the account in an ARN of here; anything that is no ARN as it is. */
  #localName(keyId: string): string {
    if (!keyId.startsWith('arn:')) return keyId;
    if (keyId.startsWith(this.arnPrefix)) return keyId.slice(this.arnPrefix.length);
    const region = keyId.split(':')[3];
    throw notFound(
      this.arnPrefix.split(':')[3] === region ? `Invalid keyId '${keyId}'` : `Invalid arn ${region}`,
    );
  }
}
