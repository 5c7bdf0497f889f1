/** A rewriting that was cancelled does not go on by itself. The volume works, shows what is left, and can be rewritten later. */
import { describe, expect, it } from 'vitest';
import { inTheMiddleOf, keyStatus, lastJob } from '../support/key-scene.js';
import { hasProgram } from '../support/programs.js';
import { RewriteSubject } from '../support/rewrite-subject.js';

describe.skipIf(!hasProgram('qemu-io'))('a rewriting', () => {
  it.each(['reencrypt', 'encrypt'] as const)(
    '(%s) that was cancelled leaves a volume that works, says what is left, and ends when asked again',
    { timeout: 120_000 },
    async (kind) => {
      const subject = await RewriteSubject.start(kind);
      await inTheMiddleOf(
        subject.daemon,
        () => subject.begin(),
        async ({ id }) => {
          expect(await subject.daemon.ok('job', 'cancel', id)).toBe(`job ${id}: cancelled\n`);
        },
      );
      const { newest } = subject;
      const expectLeft = async (): Promise<void> => {
        expect(subject.superblock).toMatchObject({ rewriting: false, plain: kind === 'encrypt' });
        const { deks, rotation } = await keyStatus(subject.daemon);
        // What is left under the old DEK, or in plaintext, is to be seen.
        if (kind === 'encrypt') expect(rotation).toMatchObject({ phase: 'paused' });
        else expect(rotation).toBeNull();
        expect(deks.map(({ id, state }) => [id, state])).toEqual(
          kind === 'encrypt'
            ? [[newest, 'active']]
            : [
                [newest - 1, 'retired'],
                [newest, 'active'],
              ],
        );
        for (const { bytes } of deks) expect(bytes).toBeGreaterThan(0);
      };
      await expectLeft();
      await subject.load.goOn();
      await subject.load.detach();
      await subject.verify();
      expect((await subject.daemon.stop()).code).toBe(0);

      subject.daemon = await subject.scene.daemon();
      await subject.load.attach(subject.daemon);
      await subject.load.goOn();
      await expectLeft();
      expect(await lastJob(subject.daemon, kind)).toBeUndefined();
      if (kind === 'reencrypt') await subject.daemon.ok('key', 'rotate', 'v', '--reencrypt');
      else await subject.daemon.ok('volume', 'encrypt', 'v', '--key', subject.keyUri);
      await subject.load.goOn();
      await subject.expectRewritten(kind === 'reencrypt' ? newest + 1 : newest);
      await subject.load.detach();
      await subject.verify();
    },
  );
});
