/** A whole handshake: however its bytes arrive, it ends in the same state with the same replies, and takes no byte twice. */
import { Handshake } from '../../../src/nbd/handshake.js';
import { exportsOf, MemoryDevice } from '../../support/memory-device.js';
import { requireSame, requireThat } from './oracle.js';

const DISK = new MemoryDevice({ name: 'disk' });
const ROM = new MemoryDevice({ name: 'rom', readOnly: true, description: 'read only' });
const TLS = ['off', 'optional', 'required'] as const;

interface Ending {
  readonly kind: string;
  readonly consumed: number;
  readonly replies: Buffer;
}

export function fuzz(data: Uint8Array): void {
  if (data.length < 2) return;
  const [how, crumb] = [data[0], data[1] + 1];
  const input = data.subarray(2);
  const whole = shakeHands(how, input, input.length);
  const crumbs = shakeHands(how, input, crumb);
  requireThat(
    whole.kind === crumbs.kind,
    `${whole.kind} in one piece is ${crumbs.kind} in crumbs of ${crumb}`,
  );
  requireThat(whole.consumed === crumbs.consumed, 'as many bytes are taken');
  requireSame(crumbs.replies, whole.replies, 'replies');
}

function shakeHands(how: number, input: Uint8Array, crumb: number): Ending {
  const replies: Uint8Array[] = [];
  const handshake = new Handshake({
    exports: exportsOf(DISK, ROM),
    tls: TLS[how % 3],
    secured: (how & 4) !== 0,
    shuttingDown: (how & 8) !== 0,
    attach: () => undefined,
    lend: () => undefined,
    reply: (bytes) => {
      replies.push(bytes.slice());
    },
  });
  let [kind, at]: [string, number] = ['more', 0];
  while (kind === 'again' || (kind === 'more' && at < input.length)) {
    const given = input.subarray(at, at + crumb);
    const { consumed, outcome } = handshake.feed(given);
    requireThat(consumed >= 0 && consumed <= given.length, 'nothing is taken that was not given');
    requireThat(
      kind === 'again' ? consumed === 0 : consumed > 0,
      'it takes bytes, or goes on with an answer',
    );
    requireThat((outcome.kind === 'again') === handshake.answering, 'it says whether it answers yet');
    at += consumed;
    kind = outcome.kind;
  }
  return { kind, consumed: at, replies: Buffer.concat(replies) };
}
