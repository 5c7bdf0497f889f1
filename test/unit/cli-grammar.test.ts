import type { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import { SealbdError } from '../../src/base/errors.js';
import { exitCodeOfJob } from '../../src/cli/commands/volume-verify.js';
import { exitCodeOf } from '../../src/cli/exit-codes.js';
import { buildProgram } from '../../src/cli/program.js';
import { KmsError } from '../../src/kms/provider.js';

function usages(command: Command, path: string[] = []): string[] {
  const own = [...path, command.name()];
  if (command.commands.length > 0) return command.commands.flatMap((inner) => usages(inner, own));
  const operands = command.registeredArguments.map((operand) => {
    const name = operand.name().toUpperCase();
    return operand.required ? name : `[${name}]`;
  });
  const flags = command.options.map((option) => option.long);
  return [[...own, ...operands, ...flags].join(' ').replace('sealbd ', '')];
}

describe('the command line', () => {
  it('is the fixed one', () => {
    expect(usages(buildProgram())).toEqual([
      'serve --config --listen --admin --tls --tls-certificates --tls-psk-file --poll-interval --unreachable-grace --default-volume --require-keys --allow-unlocked-keys --insecure --print-limits',
      'status --json',
      'volume create NAME --size --key --cipher --json',
      'volume list --json',
      'volume info NAME --json',
      'volume encrypt NAME --key --cipher --detach --json',
      'volume resize NAME SIZE --shrink',
      'volume start NAME',
      'volume stop NAME',
      'volume delete NAME --yes',
      'volume verify NAME --detach --json',
      'volume header-backup NAME FILE',
      'volume header-restore NAME FILE --force',
      'snapshot create NAME SNAP --json',
      'snapshot list NAME --json',
      'snapshot delete NAME SNAP',
      'snapshot rollback NAME SNAP',
      'snapshot clone NAME SNAP NEWNAME --detach --json',
      'backup create NAME DEST --base --salvage --detach --json',
      'backup verify DEST --require-key --json',
      'backup info DEST --json',
      'backup forget [DEST] --dropped --force --json',
      'restore DEST NAME --salvage --plaintext --detach --json',
      'key status [NAME] --check --json',
      'key check URI --json',
      'key set NAME URI --reencrypt --detach',
      'key rotate NAME --reencrypt --detach --json',
      'key rewrap NAME',
      'key usage [URI] --json',
      'key export-local NAME FILE --passphrase-file',
      'key import-local NAME FILE --passphrase-file',
      'job list --json',
      'job cancel ID',
      'tls init DIR --host --client --days',
      'tls client DIR NAME OUT --days',
      'bench [NAME] --seconds --write --quick --json',
    ]);
  });
});

describe('exit codes', () => {
  it.each([
    [new SealbdError('USAGE', ''), 2],
    [new SealbdError('UNREACHABLE', ''), 3],
    [new SealbdError('KEY_UNAVAILABLE', ''), 4],
    [new KmsError('refused', ''), 4],
    [new KmsError('unreachable', ''), 4],
    [new SealbdError('INTEGRITY', ''), 5],
    [new KmsError('damaged', ''), 5],
    [new SealbdError('CONFLICT', ''), 1],
    [new SealbdError('NOT_FOUND', ''), 1],
    [new SealbdError('ENOSPC', ''), 1],
    [new Error('anything else'), 1],
  ])('%s ends with %i', (error, code) => {
    expect(exitCodeOf(error)).toBe(code);
  });

  it('of a verify job are 5 for anything lost, and those of its error where it failed', () => {
    const result = { checkedBlocks: 0, lost: [], problems: [] };
    const job = {
      id: '1',
      kind: 'verify',
      volume: 'v',
      doneBytes: 0,
      totalBytes: 0,
      startedAt: '',
      endedAt: '',
    } as const;
    expect(exitCodeOfJob({ ...job, state: 'done', error: null, result })).toBe(0);
    expect(
      exitCodeOfJob({ ...job, state: 'done', error: null, result: { ...result, problems: ['x'] } }),
    ).toBe(5);
    const lost = [{ offset: 0, length: 4096 }];
    expect(exitCodeOfJob({ ...job, state: 'done', error: null, result: { ...result, lost } })).toBe(5);
    expect(exitCodeOfJob({ ...job, state: 'cancelled', error: null, result: null })).toBe(1);
    const refused = { code: 'KEY_UNAVAILABLE', message: '' };
    expect(exitCodeOfJob({ ...job, state: 'failed', error: refused, result: null })).toBe(4);
  });
});
