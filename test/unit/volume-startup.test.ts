import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { type Logger, nullLogger } from '../../src/base/log.js';
import { STARTUP } from '../../src/daemon/volume-events.js';
import { expectNoLeakedSlots } from '../support/key-fixtures.js';
import type { ScriptedService } from '../support/scripted-provider.js';
import { createVolume, type Watched, WatchedDirectory } from '../support/watched-volumes.js';

const names = (count: number): string[] => Array.from({ length: count }, (_, i) => `v${i}`);

/** `count` volumes under a remote key, two under other keys, one of the first stopped; all of it closed. */
async function filled(count: number): Promise<WatchedDirectory> {
  const directory = new WatchedDirectory();
  const watched = await directory.start();
  for (const name of names(count)) await createVolume(watched.volumes, name, 'scripted:a');
  await createVolume(watched.volumes, 'z-local', 'local:default');
  await createVolume(watched.volumes, 'z-other', 'other:b');
  await watched.close();
  directory.one.questions = 0;
  return directory;
}

/** The service answers nothing to questions until `release`, then `unreachable` to those; what is asked later it answers. */
function silence(service: ScriptedService): () => void {
  const before = service.ask.bind(service);
  let release = (): void => undefined;
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  service.answer = 'unreachable';
  service.ask = async () => {
    await released;
    return before();
  };
  onTestFinished(() => release());
  return release;
}

function states({ volumes }: Watched): string[] {
  return volumes.list().map((volume) => `${volume.name} ${volume.state}${volume.waiting ? ' waiting' : ''}`);
}

describe('when the daemon starts and a key service does not answer', () => {
  beforeEach(expectNoLeakedSlots);

  it('a few of its volumes wait for it, at the same time; the others are marked and opened by the watchdog', async () => {
    const directory = await filled(12);
    directory.one.answer = 'unreachable';
    const watched = await directory.start();
    expect(directory.one.questions).toBeLessThanOrEqual(4);
    expect(states(watched)).toEqual([
      ...names(12)
        .sort()
        .map((name) => `${name} key-invalid waiting`),
      'z-local serving',
      'z-other serving',
    ]);
    const asked = watched.volumes.list().filter(({ reason }) => reason === 'the service is unreachable');
    expect(asked.length).toBe(directory.one.questions);
    expect(watched.volumes.get('v9').reason).toBe(
      'not asked yet, since its key service gave another volume no answer: the service is unreachable',
    );
    for (const name of names(12)) expect(watched.watchdog.watches(name)).toBe(true);
    directory.one.answer = 'yes';
    for (const name of names(12)) await watched.watchdog.check(name);
    expect(states(watched).every((state) => state.endsWith('serving'))).toBe(true);
    await watched.close();
  });

  it('volumes under local: keys do not queue behind it', async () => {
    const directory = await filled(6);
    const release = silence(directory.one);
    const serving: string[] = [];
    const info = (fields: { volume?: string }, message: string): void => {
      if (message === 'serving') serving.push(fields.volume ?? '');
    };
    const log: Logger = { ...nullLogger, info };
    const starting = directory.start({ log });
    await vi.waitFor(() => expect(serving).toEqual(['z-local']), { timeout: 30_000 });
    release();
    const watched = await starting;
    expect(watched.volumes.get('z-other').state).toBe('serving');
    await watched.close();
  });

  it('a volume that stays stopped is not asked about either', async () => {
    const directory = new WatchedDirectory();
    const first = await directory.start();
    for (const name of names(8)) {
      await createVolume(first.volumes, name, 'scripted:a');
      await first.volumes.stop(name, STARTUP);
    }
    await first.close();
    directory.one.questions = 0;
    directory.one.answer = 'unreachable';
    const watched = await directory.start();
    expect(directory.one.questions).toBeLessThanOrEqual(4);
    expect(states(watched)).toEqual(names(8).map((name) => `${name} stopped`));
    for (const { keyCheck } of watched.volumes.list()) expect(keyCheck?.state).toBe('unreachable');
    await watched.close();
  });

  it('one that refuses is asked about every volume: that is an answer', async () => {
    const directory = await filled(6);
    directory.one.answer = 'refused';
    const watched = await directory.start();
    expect(directory.one.questions).toBe(6);
    expect(states(watched).filter((state) => state.includes('waiting'))).toEqual([]);
    await watched.close();
  });
});
