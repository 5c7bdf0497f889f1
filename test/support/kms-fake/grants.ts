/** Who may do what to which key, as the key policies say: nothing is allowed that was not granted. */

export const ACTIONS = [
  'kms:CancelKeyDeletion',
  'kms:CreateAlias',
  'kms:CreateKey',
  'kms:Decrypt',
  'kms:DeleteAlias',
  'kms:DescribeKey',
  'kms:DisableKey',
  'kms:EnableKey',
  'kms:Encrypt',
  'kms:ListAliases',
  'kms:ReEncryptFrom',
  'kms:ReEncryptTo',
  'kms:RotateKeyOnDemand',
  'kms:ScheduleKeyDeletion',
  'kms:UpdateAlias',
] as const;

/** kms:GenerateDataKey and its kin are not among them: nobody is ever allowed to. */
export type Action = (typeof ACTIONS)[number];

/** All that a customer's key policy grants to the daemon. */
export const DAEMON_ACTIONS: readonly Action[] = [
  'kms:Encrypt',
  'kms:Decrypt',
  'kms:ReEncryptFrom',
  'kms:ReEncryptTo',
  'kms:DescribeKey',
];

/** The actions that a policy's pattern stands for: a name, or a beginning of names and `*`. */
export function expandActions(patterns: readonly string[]): Action[] {
  return patterns.flatMap((pattern) => {
    const matching = ACTIONS.filter((action) =>
      pattern.endsWith('*') ? action.startsWith(pattern.slice(0, -1)) : action === pattern,
    );
    if (matching.length === 0) throw new Error(`no action is called ${pattern}`);
    return matching;
  });
}

export class Grants {
  readonly #granted = new Set<string>();

  /** `resource` is a key's ARN, or `*` for what concerns no key. */
  allow(principal: string, resource: string, actions: readonly Action[]): void {
    for (const action of actions) this.#granted.add(entry(principal, resource, action));
  }

  deny(principal: string, resource: string, actions: readonly Action[]): void {
    for (const action of actions) this.#granted.delete(entry(principal, resource, action));
  }

  allows(principal: string, resource: string, action: string): boolean {
    return this.#granted.has(entry(principal, resource, action));
  }
}

function entry(principal: string, resource: string, action: string): string {
  return `${principal} ${action} ${resource}`;
}
