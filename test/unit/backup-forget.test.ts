/** `backup forget`: a doubt that nothing else ends, ended by who knows better; and never by mistake. */
import { existsSync, mkdirSync, readFileSync, renameSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, it } from 'vitest';
import type { Caller } from '../../src/admin/backend.js';
import { LOOK_WAIT_MS } from '../../src/base/limits.js';
import { DaemonBackend, type DaemonFacts } from '../../src/daemon/admin-backend.js';
import { STARTUP } from '../../src/daemon/volume-events.js';
import { ended, holdCreation, scene, verdict } from '../support/backed-up.js';
import { gate } from '../support/hooked-store.js';
import { expectNoLeakedSlots } from '../support/key-fixtures.js';
import { ManualClock } from '../support/manual-clock.js';
import { until } from '../support/until.js';
import type { Watched } from '../support/watched-volumes.js';

const CLI: Caller = { kind: 'cli', peer: 'unix' };
const CONFLICT = { code: 'CONFLICT' };

beforeEach(expectNoLeakedSlots);

function forgetIn(watched: Watched) {
  const backend = new DaemonBackend({ ...watched, audit: watched.keyAudit, facts: {} as DaemonFacts });
  const forget = (path: string, force = false) => backend.forgetBackups({ path, dropped: false, force }, CLI);
  return { backend, forget, dropped: () => backend.forgetBackups({ dropped: true, force: false }, CLI) };
}

const aboutForgetting = async (watched: Watched) =>
  (await watched.audit()).filter((line) => [line.event, line.operation].includes('backup-forget'));

it('ends the doubt about a backup whose place is never mounted again, for good, and leaves its files alone', async () => {
  const { directory, watched, above, path, made } = await scene();
  await made();
  const { uuid } = watched.volumes.get('v').superblock!;
  await watched.volumes.delete('v', STARTUP);
  renameSync(above, `${above}.away`);
  expect(await verdict(watched, 'scripted:a')).toMatchObject({
    safeToDelete: false,
    caveats: expect.arrayContaining([expect.stringContaining(`"sealbd backup forget ${path}"`)]),
  });
  const { forget } = forgetIn(watched);
  expect(await forget(path)).toEqual({
    backups: [{ path, volume: 'v', createdAt: expect.any(String), deks: [1] }],
    dropped: 0,
  });
  expect(await verdict(watched, 'scripted:a')).toMatchObject({ safeToDelete: true, doubts: [] });
  expect(existsSync(join(`${above}.away`, 'b', 'manifest'))).toBe(true);
  await expect(forget(path)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  const plainUuid = Buffer.from(uuid).toString('hex');
  const [done, failed] = await aboutForgetting(watched);
  expect(done).toMatchObject({
    ...{ event: 'backup-forget', volume: 'v', path, by: CLI },
    ...{ keyUri: 'scripted:a', resolvedKeyId: 'scripted:a' },
  });
  expect(done.uuid?.replaceAll('-', '')).toBe(plainUuid);
  expect(failed).toMatchObject({ event: 'failed', operation: 'backup-forget', path, by: CLI });
  await watched.close();

  const again = await directory.start();
  expect(await verdict(again, 'scripted:a')).toMatchObject({ safeToDelete: true, doubts: [] });
  await again.close();
});

it('refuses for a backup that is there, unless by force; restoring it makes it known again', async () => {
  const { watched, path, made } = await scene();
  await made();
  const { forget } = forgetIn(watched);
  await expect(forget(path)).rejects.toMatchObject({
    ...CONFLICT,
    message: expect.stringContaining('--force'),
  });
  expect((await verdict(watched, 'scripted:a')).doubts).toEqual(['there']);
  expect((await forget(path, true)).backups).toHaveLength(1);
  expect((await verdict(watched, 'scripted:a')).doubts).toEqual([]);
  const restored = await watched.restores.restore('w', { path, salvage: false }, STARTUP);
  expect(await ended(watched, restored)).toMatchObject({ state: 'done' });
  expect((await verdict(watched, 'scripted:a')).doubts).toEqual(['there']);
  await watched.close();
});

it('does not wait for a place that hangs, and forgets what is there by force alone', async () => {
  const clock = new ManualClock();
  const { watched, path, made } = await scene({ clock });
  await made();
  const hanging = gate();
  void watched.backupFiles.run(path, () => hanging.opened);
  const { forget } = forgetIn(watched);
  let answer: unknown;
  forget(path).catch((error: unknown) => {
    answer = error;
  });
  await until('the answer', () => {
    clock.advance(LOOK_WAIT_MS);
    return answer !== undefined;
  });
  expect(answer).toMatchObject({ ...CONFLICT, message: expect.stringContaining('did not answer') });
  expect((await forget(path, true)).backups).toHaveLength(1);
  hanging.open();
  await watched.close();
});

it('refuses for a backup that is being made, by force too', async () => {
  const { watched, path, backUp } = await scene();
  const held = holdCreation(/^index$/);
  const job = await backUp();
  await held.reached;
  for (const force of [false, true])
    await expect(forgetIn(watched).forget(path, force)).rejects.toMatchObject({
      ...CONFLICT,
      message: expect.stringContaining('being made'),
    });
  held.open();
  expect(await ended(watched, job)).toMatchObject({ state: 'done' });
  expect((await verdict(watched, 'scripted:a')).doubts).toEqual(['there']);
  await watched.close();
});

it('ends the doubt of those that were dropped from the list, and of none that is in it', async () => {
  const { watched, made, file } = await scene();
  await made();
  const known = JSON.parse(readFileSync(file, 'utf8'));
  writeFileSync(file, JSON.stringify({ ...known, forgotten: 3 }));
  const other = () => verdict(watched, 'other:unheard-of');
  expect(await other()).toMatchObject({
    safeToDelete: false,
    caveats: expect.arrayContaining([expect.stringContaining('backup forget --dropped')]),
  });
  const { dropped } = forgetIn(watched);
  expect(await dropped()).toEqual({ backups: [], dropped: 3 });
  expect(await other()).toMatchObject({ safeToDelete: true });
  expect((await verdict(watched, 'scripted:a')).doubts).toEqual(['there']);
  expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({ forgotten: 0, backups: [{}] });
  expect(await dropped()).toEqual({ backups: [], dropped: 0 });
  // What changed nothing is no event.
  expect(await aboutForgetting(watched)).toMatchObject([
    { event: 'backup-forget', volume: null, dropped: 3 },
  ]);
  await watched.close();
});

it('fails, and forgets nothing, where the list can not be written or read', async () => {
  const { watched, path, made, file } = await scene();
  await made();
  rmSync(path, { recursive: true });
  const { forget, dropped } = forgetIn(watched);
  mkdirSync(`${file}.tmp`);
  await expect(forget(path)).rejects.toMatchObject({ code: 'FAILED' });
  rmdirSync(`${file}.tmp`);
  expect((await verdict(watched, 'scripted:a')).doubts).toEqual(['gone']);
  const whole = readFileSync(file);
  writeFileSync(file, '{');
  for (const attempt of [forget(path), dropped()])
    await expect(attempt).rejects.toMatchObject({ code: 'FAILED', message: expect.stringContaining('list') });
  writeFileSync(file, whole);
  expect((await forget(path)).backups).toHaveLength(1);
  await watched.close();
});

it('asks for one of both', async () => {
  const { watched, path } = await scene();
  const { backend } = forgetIn(watched);
  const usage = { code: 'USAGE' };
  await expect(backend.forgetBackups({ dropped: false, force: false }, CLI)).rejects.toMatchObject(usage);
  await expect(backend.forgetBackups({ path, dropped: true, force: false }, CLI)).rejects.toMatchObject(
    usage,
  );
  await expect(forgetIn(watched).forget('b')).rejects.toMatchObject(usage);
  await watched.close();
});

it('refuses one that is damaged, and whose data is there', async () => {
  const { watched, path, made } = await scene();
  await made();
  writeFileSync(join(path, 'manifest'), 'not any more');
  const { forget } = forgetIn(watched);
  const refused = expect.stringContaining('can not be read, or is damaged');
  await expect(forget(path)).rejects.toMatchObject({ ...CONFLICT, message: refused });
  expect((await forget(path, true)).backups).toHaveLength(1);
  await watched.close();
});
