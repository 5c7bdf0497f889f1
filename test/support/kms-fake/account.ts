/** What the operations work on: keys, who may use them, and the clock. */
import type { AccessKeys } from './access-keys.js';
import type { Changes, Lag } from './changes.js';
import { notAuthorized } from './errors.js';
import { ACTIONS, type Action, DAEMON_ACTIONS, Grants } from './grants.js';
import type { FakeKey, KeyState, KeyTable } from './keys.js';
import type { RequestRecord } from './request-log.js';

const DAY_MS = 24 * 3_600_000;

export interface AccountOptions {
  readonly accountId: string;
  readonly keys: KeyTable;
  readonly accessKeys: AccessKeys;
  readonly changes: Changes;
  readonly now: () => number;
}

export class Account {
  readonly accountId: string;
  readonly keys: KeyTable;
  readonly accessKeys: AccessKeys;
  readonly changes: Changes;
  readonly grants = new Grants();
  readonly now: () => number;
  /** The user that key policies grant what a daemon needs, and nothing else. */
  readonly daemon: string;
  /** The user that may do everything but generate data keys. */
  readonly administrator: string;
  pendingDeletionError: 'KMSInvalidStateException' | 'DisabledException' = 'KMSInvalidStateException';

  constructor(options: AccountOptions) {
    this.accountId = options.accountId;
    this.keys = options.keys;
    this.accessKeys = options.accessKeys;
    this.changes = options.changes;
    this.now = options.now;
    this.daemon = `arn:aws:iam::${options.accountId}:user/sealbd`;
    this.administrator = `arn:aws:iam::${options.accountId}:user/administrator`;
    this.grants.allow(this.administrator, '*', ACTIONS);
  }

  createKey(description: string): FakeKey {
    const key = this.keys.create(description, this.now());
    this.grants.allow(this.daemon, key.arn, DAEMON_ACTIONS);
    this.grants.allow(this.administrator, key.arn, ACTIONS);
    return key;
  }

  setState(key: FakeKey, state: KeyState, lag: Lag, windowDays = 30): void {
    const deletionAtMs = state === 'PendingDeletion' ? this.now() + windowDays * DAY_MS : undefined;
    this.changes.schedule(() => key.setState(state, deletionAtMs), lag);
  }

  /** Keys whose waiting period is over are gone. */
  deleteDueKeys(): void {
    const now = this.now();
    for (const key of this.keys.all) {
      if (key.deletionAtMs !== undefined && key.deletionAtMs <= now) this.keys.delete(key);
    }
  }
}

/** One authenticated request on its way through an operation, which notes in `record` what the log shall show. */
export class Call {
  readonly account: Account;
  readonly principal: string;
  readonly record: RequestRecord;

  constructor(account: Account, principal: string, record: RequestRecord) {
    this.account = account;
    this.principal = principal;
    this.record = record;
  }

  /** Throws AccessDeniedException. `resource` is an ARN, or `*` for what concerns no key. */
  authorize(action: Action, resource: string): void {
    if (!this.account.grants.allows(this.principal, resource, action)) {
      throw notAuthorized(this.principal, action, resource);
    }
  }

  /** A change that the client asked for: it shows when the account's lag is over. */
  change(apply: () => void): void {
    this.account.changes.schedule(apply, this.account.changes.clientLag);
  }
}
