/** A rewriting whose volume is closed in the middle of it, by whoever it may be, goes on when the volume opens again. */
import { describe, expect, it } from 'vitest';
import { inTheMiddleOf, keyStatus, untilRewritten, untilState } from '../support/key-scene.js';
import { hasProgram } from '../support/programs.js';
import { type Kind, RewriteSubject } from '../support/rewrite-subject.js';
import { until } from '../support/until.js';

const ATTEMPTS = 5;

interface Closing {
  readonly how: string;
  /** Closes the volume in the middle of the rewriting. */
  close(subject: RewriteSubject): Promise<void>;
  reopen(subject: RewriteSubject): Promise<void>;
}

const CLOSINGS: readonly Closing[] = [
  {
    how: 'the key is taken away',
    close: async ({ scene, key, daemon, load }) => {
      scene.kms.setState(key, 'Disabled');
      expect(await load.cutOff()).toMatch(/^closed$|error 108/);
      await untilState(daemon, 'key-invalid');
    },
    reopen: async ({ scene, key, daemon }) => {
      scene.kms.setState(key, 'Enabled');
      await until('the key is valid', async () => (await keyStatus(daemon)).state === 'valid');
      await daemon.ok('volume', 'start', 'v');
    },
  },
  {
    how: 'the volume is stopped',
    close: async ({ daemon, load }) => {
      await daemon.ok('volume', 'stop', 'v');
      expect(await load.cutOff()).toMatch(/^closed$|error 108/);
    },
    reopen: async ({ daemon }) => void (await daemon.ok('volume', 'start', 'v')),
  },
  {
    how: 'the daemon is told to go',
    close: async ({ daemon, load }) => {
      expect((await daemon.stop()).code).toBe(0);
      expect(await load.cutOff()).toMatch(/^closed$|error 108/);
    },
    reopen: async (subject) => {
      subject.daemon = await subject.scene.daemon();
    },
  },
];

const CASES: readonly (Closing & { readonly kind: Kind })[] = [
  ...CLOSINGS.map((closing) => ({ ...closing, kind: 'reencrypt' as const })),
  { ...CLOSINGS[0], kind: 'encrypt' },
];

describe.skipIf(!hasProgram('qemu-io'))('a rewriting', () => {
  it.each(CASES)(
    '($kind) goes on and ends after $how in the middle of it',
    { timeout: 120_000 },
    async ({ kind, close, reopen }) => {
      const subject = await RewriteSubject.start(kind);
      for (let attempt = 1; ; attempt++) {
        await inTheMiddleOf(
          subject.daemon,
          () => subject.begin(),
          () => close(subject),
          { to: 0.6 },
        );
        subject.load.settleAcknowledged();
        if (subject.superblock.rewriting) break;
        // It was over before the volume was closed: that proves nothing. Another conversion is not to be had.
        if (attempt === ATTEMPTS || kind === 'encrypt') throw new Error('the rewriting was over too soon');
        await reopen(subject);
        await subject.verify();
        await subject.load.attach(subject.daemon);
      }
      const { newest } = subject;
      expect(subject.superblock.plain).toBe(kind === 'encrypt');
      await reopen(subject);
      await subject.verify();
      await subject.load.attach(subject.daemon);
      await untilRewritten(subject.daemon, kind);
      await subject.load.goOn();
      await subject.expectRewritten(newest);
      await subject.load.detach();
      await subject.verify();
    },
  );
});
