/** Who a peer proved to be. Nothing in it was merely claimed. */

export type PeerIdentity =
  | {
      readonly kind: 'certificate';
      /** Attributes of the subject by their short names (CN, O, OU, ...), each with all of its values. */
      readonly subject: ReadonlyMap<string, readonly string[]>;
    }
  | { readonly kind: 'psk'; readonly name: string };

/** What a terminal would act on. */
const CONTROLS = /\p{Cc}/gu;

/** For logs and listings, not for comparing. */
export function describeIdentity(identity: PeerIdentity): string {
  if (identity.kind === 'psk') return `psk:${identity.name}`.replace(CONTROLS, '?');
  const parts = [...identity.subject].flatMap(([name, values]) => values.map((value) => `${name}=${value}`));
  return parts.join(',').replace(CONTROLS, '?');
}
