/**
 * `backup forget`: what is known here of backups, and `key usage` counts, is given up. Nothing is done to any file of a backup. A key
 * may be called safe to delete from then on, so each is a line of the audit log.
 */
import { isAbsolute, resolve } from 'node:path';
import type { ForgottenBackups } from '../admin/schemas.js';
import { type Clock, within } from '../base/clock.js';
import { isSealbdError, messageOf, SealbdError } from '../base/errors.js';
import { LOOK_WAIT_MS } from '../base/limits.js';
import { formatDuration } from '../base/units.js';
import type { KnownBackups } from './known-backups.js';
import type { KnownBackup } from './known-backups-file.js';
import type { Actor, VolumeEvent } from './volume-events.js';

export interface ForgettingOptions {
  readonly known: KnownBackups;
  readonly clock: Clock;
  record(event: VolumeEvent): void;
}

export interface ForgetRequest {
  /** Where the backup is, or was. */
  readonly path?: string | undefined;
  /** In its place: those that were dropped from the list. */
  readonly dropped: boolean;
  /** Forgets one that is there yet, or whose place does not answer. */
  readonly force: boolean;
}

export class Forgetting {
  readonly #options: ForgettingOptions;

  constructor(options: ForgettingOptions) {
    this.#options = options;
  }

  /**
   * NOT_FOUND where nothing is known there; CONFLICT where one is being made, and without `force` where it is there or its place
   * does not answer; FAILED where the list can't be read, or written.
   */
  async forget({ path, dropped, force }: ForgetRequest, by: Actor): Promise<ForgottenBackups> {
    if ((path === undefined) !== dropped)
      throw new SealbdError('USAGE', 'expected either the path of a backup, or `dropped`');
    try {
      return await (path === undefined ? this.#dropped(by) : this.#at(path, force, by));
    } catch (error) {
      if (isSealbdError(error)) throw error;
      const what = 'the list of known backups can not be read, or written';
      throw new SealbdError('FAILED', `${what}: ${messageOf(error)}`, { cause: error });
    }
  }

  async #at(given: string, force: boolean, by: Actor): Promise<ForgottenBackups> {
    if (!isAbsolute(given)) throw new SealbdError('USAGE', `${given}: expected an absolute path`);
    const path = resolve(given);
    const { known, record } = this.#options;
    const listed = force ? await known.listedAt(path) : await this.#notFound(path);
    if (listed.length === 0) throw new SealbdError('NOT_FOUND', `no backup at ${path} is known here`);
    await known.forget(listed);
    for (const event of listed.flatMap((backup) => eventsOf(backup, by))) record(event);
    const backups = listed.map(({ volume, createdAt, deks }) => {
      return { path, volume, createdAt, deks: deks.map(({ id }) => id) };
    });
    return { backups, dropped: 0 };
  }

  /** Those that are listed, none of which is there. */
  async #notFound(path: string): Promise<readonly KnownBackup[]> {
    const { known, clock } = this.#options;
    const after = formatDuration(LOOK_WAIT_MS);
    const late = () => {
      const unknown = `${path} did not answer in ${after}, so a backup may be there`;
      return new SealbdError('CONFLICT', `${unknown}: --force forgets it all the same`);
    };
    const { listed, found } = await within(clock, LOOK_WAIT_MS, known.lookAt(path), late);
    if (found === undefined) return listed;
    const needs = `${found}, and needs its keys`;
    throw new SealbdError(
      'CONFLICT',
      `${path} ${needs}: remove it first, or --force forgets it all the same`,
    );
  }

  async #dropped(by: Actor): Promise<ForgottenBackups> {
    const { known, record } = this.#options;
    const dropped = await known.forgetDropped();
    if (dropped > 0) record({ event: 'backup-forget', volume: null, uuid: null, by, dropped });
    return { backups: [], dropped };
  }
}

/** One for each key that is needed less; at least one. */
function eventsOf({ path, volume, volumeUuid, deks }: KnownBackup, by: Actor): VolumeEvent[] {
  const forgotten = { event: 'backup-forget', volume, uuid: volumeUuid, by, path } as const;
  const keys = new Map(
    deks.map(({ keyUri, resolvedKeyId }) => [`${keyUri} ${resolvedKeyId}`, { keyUri, resolvedKeyId }]),
  );
  return keys.size === 0 ? [forgotten] : [...keys.values()].map((key) => ({ ...forgotten, ...key }));
}
