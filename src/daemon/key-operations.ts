/** What an operator asks about keys: `key set`, `key rewrap`, `key check`, `key usage`. */
import type { KeyChange, KeyReport, KeyUsage } from '../admin/schemas.js';
import { type Clock, within } from '../base/clock.js';
import { messageOf, SealbdError } from '../base/errors.js';
import { LOOK_WAIT_MS } from '../base/limits.js';
import { formatDuration } from '../base/units.js';
import type { HeaderPins } from '../keys/header-unwrap.js';
import { ask } from '../keys/key-answer.js';
import { type BackupUse, type KeyUse, keysInUse, spellsOut } from '../keys/key-usage.js';
import { moveToKey, rewrapUnderSameKey } from '../keys/rewrap.js';
import { type DekRecord, newestDek, type Superblock } from '../keys/superblock.js';
import type { VolumeHeader } from '../keys/volume-header.js';
import type { Watchdog } from '../keys/watchdog.js';
import type { KeyProviders } from '../kms/registry.js';
import { takeInventory } from './key-inventory.js';
import type { KnownBackups } from './known-backups.js';
import type { Actor } from './volume-events.js';
import type { VolumeManager } from './volume-manager.js';

export interface KeyOperationsOptions {
  readonly volumes: VolumeManager;
  readonly watchdog: Watchdog;
  readonly providers: KeyProviders;
  readonly pins: ReadonlyMap<string, HeaderPins>;
  readonly clock: Clock;
  readonly known: KnownBackups;
}

const WAIT = formatDuration(LOOK_WAIT_MS);

/** True whatever the answer is, and so said with each. */
const CAVEATS = [
  'backups, header backups and copies of the data directory that were made earlier still need the keys of that time',
  'volumes in other data directories are not seen from here',
];

export class KeyOperations {
  readonly #options: KeyOperationsOptions;

  constructor(options: KeyOperationsOptions) {
    this.#options = options;
  }

  /** CONFLICT for a volume without a key, or where the configuration pins another one. */
  async set(name: string, keyUri: string, by: Actor): Promise<KeyChange> {
    const { volumes, providers, pins } = this.#options;
    providers.open(keyUri);
    volumes.get(name);
    assertPinned(name, pins.get(name), keyUri);
    return volumes.keysUnderWay.during({ volume: name, to: keyUri }, () => {
      return this.#change(name, by, (header) => moveToKey(header, keyUri, this.#options));
    });
  }

  rewrap(name: string, by: Actor): Promise<KeyChange> {
    return this.#change(name, by, (header) => rewrapUnderSameKey(header, this.#options));
  }

  async check(keyUri: string): Promise<KeyReport> {
    const { steps, resolvedKeyId, keyVersion, warnings } = await this.#options.providers.open(keyUri).probe();
    return {
      keyUri,
      resolvedKeyId: resolvedKeyId ?? null,
      keyVersion: keyVersion ?? null,
      ok: steps.every((step) => step.outcome === 'ok'),
      steps: [...steps],
      warnings: [...warnings],
    };
  }

  async usage(keyUri: string | undefined): Promise<KeyUsage[]> {
    const inventory = await takeInventory(this.#options.volumes, this.#options.clock);
    const backups = await this.#backups();
    const uses = keysInUse(inventory.volumes, backups.found);
    const unseen = [...inventory.doubts, ...backups.doubts];
    const caveats = [...unseen, ...CAVEATS];
    if (keyUri === undefined) return uses.map((use) => usageView(use, caveats, unseen.length === 0));
    const named = await this.#nameNow(keyUri);
    const isMeant = ({ keyUri: uri, resolvedKeyId }: KeyUse) => {
      return uri === keyUri || resolvedKeyId === named.resolvedKeyId || spellsOut(keyUri, resolvedKeyId);
    };
    const meant = uses.filter(isMeant);
    const doubts = named.doubt === undefined ? [] : [named.doubt];
    if (meant.some((use) => use.keyUri === keyUri && isRepointed(use, named.resolvedKeyId)))
      doubts.push(
        `${keyUri} names ${named.resolvedKeyId} now, another key than the one that wraps these DEKs`,
      );
    const isCertain = doubts.length === 0 && unseen.length === 0;
    if (meant.length > 0) return meant.map((use) => usageView(use, [...doubts, ...caveats], isCertain));
    const nobody = {
      keyUri,
      resolvedKeyId: named.resolvedKeyId ?? null,
      keyVersions: [],
      volumes: [],
      backups: [],
    };
    return [{ ...nobody, safeToDelete: isCertain, caveats: [...doubts, ...caveats] }];
  }

  /** The backups that are known here. A list that can't be read, or a place that does not answer, may be that of the key. */
  async #backups(): Promise<{ found: BackupUse[]; doubts: string[] }> {
    try {
      const { clock, known } = this.#options;
      const late = () => new SealbdError('FAILED', `where they are kept did not answer in ${WAIT}`);
      const { backups, forgotten } = await within(clock, LOOK_WAIT_MS, known.look(), late);
      const doubts = forgotten === 0 ? [] : [forgottenDoubt(forgotten)];
      return { found: [...backups], doubts };
    } catch (error) {
      return { found: [], doubts: [`a backup may need the key: ${messageOf(error)}`] };
    }
  }

  async #change(
    name: string,
    by: Actor,
    operation: (header: VolumeHeader) => Promise<void>,
  ): Promise<KeyChange> {
    const { volumes, watchdog } = this.#options;
    let before: DekRecord | undefined;
    let after: Superblock | undefined;
    await volumes.changeKeys(name, by, async (header) => {
      before = keyOf(name, header.superblock);
      await operation(header);
      after = header.superblock;
    });
    // What `key status` shows is the answer of the key in force from now on, not of the one before.
    if (watchdog.watches(name)) await watchdog.check(name);
    else await volumes.checkKey(name, by);
    return changeView(name, before!, after!);
  }

  /** Which key a URI names at this moment. Where the service does not tell, an alias could name any. */
  async #nameNow(keyUri: string): Promise<{ resolvedKeyId?: string; doubt?: string }> {
    const { providers, clock } = this.#options;
    const provider = providers.open(keyUri);
    try {
      const { resolvedKeyId } = await ask(clock, provider.describe());
      return { resolvedKeyId };
    } catch (error) {
      return {
        doubt: `which key ${keyUri} names is not known, so it may be one in use: ${messageOf(error)}`,
      };
    }
  }
}

function forgottenDoubt(count: number): string {
  return `${count} older backups were dropped from the list of those that are known here, and may need any key: "sealbd backup forget --dropped" where none does`;
}

function isRepointed(use: KeyUse, namedNow: string | undefined): boolean {
  return namedNow !== undefined && use.resolvedKeyId !== namedNow;
}

function keyOf(name: string, superblock: Superblock): DekRecord {
  const dek = newestDek(superblock);
  if (dek !== undefined) return dek;
  throw new SealbdError('CONFLICT', `volume "${name}" has no key: its cipher is none`);
}

function assertPinned(name: string, pins: HeaderPins | undefined, keyUri: string): void {
  const pinned = pins?.keyUris;
  if (pinned === undefined || pinned.includes(keyUri)) return;
  const list = [...pinned, keyUri].map((uri) => JSON.stringify(uri)).join(', ');
  throw new SealbdError(
    'CONFLICT',
    `the configuration pins the key of "${name}" to ${pinned.join(' or ')}: put key = [${list}] into it and restart sealbd, then move, then leave out the old key`,
  );
}

function changeView(volume: string, before: DekRecord, superblock: Superblock): KeyChange {
  const { keyUri, resolvedKeyId, keyVersion } = newestDek(superblock)!;
  const from = { keyUri: before.keyUri, resolvedKeyId: before.resolvedKeyId };
  return {
    volume,
    moved: from.keyUri !== keyUri || from.resolvedKeyId !== resolvedKeyId,
    from,
    ...{ keyUri, resolvedKeyId, keyVersion },
    deks: superblock.deks.map((dek) => dek.id),
    exposed: superblock.deks.some((dek) => dek.exposed),
  };
}

/** One that only backups need which are gone from where they were is as safe to delete as it can be: the notes name them. */
function usageView(use: KeyUse, caveats: readonly string[], isCertain: boolean): KeyUsage {
  const volumes = use.volumes.map(({ volume, deks }) => {
    return { volume, deks: deks.map((dek) => ({ ...dek, sharedWith: [...dek.sharedWith] })) };
  });
  const backups = use.backups.map(({ deks, ...backup }) => {
    const needed = deks.filter((dek) => dek.keyUri === use.keyUri && dek.resolvedKeyId === use.resolvedKeyId);
    return { ...backup, deks: needed.map((dek) => dek.id) };
  });
  const isNeeded = volumes.length > 0 || backups.some(({ present, doubt }) => present || doubt !== null);
  const notFound = backups.filter(({ present }) => !present).map(caveatOf);
  return {
    ...{
      keyUri: use.keyUri,
      resolvedKeyId: use.resolvedKeyId,
      keyVersions: [...use.keyVersions],
      volumes,
      backups,
    },
    ...{ safeToDelete: isCertain && !isNeeded, caveats: [...notFound, ...caveats] },
  };
}

function caveatOf({ path, volume, doubt }: KeyUsage['backups'][number]): string {
  const which = `a backup of "${volume}"`;
  return doubt === null
    ? `${which} that was at ${path} needs it, wherever that is now`
    : `${which} needs it, and whether it is at ${path} is not known: ${doubt}; where it is gone for good, "sealbd backup forget ${path}" says so`;
}
