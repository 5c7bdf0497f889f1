import type { SealbdError } from '../base/errors.js';
import type { BlockDevice } from '../device/block-device.js';
import type { PeerIdentity } from './peer-identity.js';

export interface ExportEntry {
  readonly name: string;
  readonly description: string;
}

/** Who asks. */
export interface NbdClient {
  /** 'HOST:PORT', '[HOST]:PORT' or 'unix:PATH'. */
  readonly peer: string;
  readonly identity: PeerIdentity | undefined;
}

/** Which devices can be asked for by name. The server reads it anew for every option of every handshake. */
export interface ExportSource {
  /**
   * The device, or an error that says why this export cannot be used now (its message reaches the client), or
   * undefined where there is no such export. Must not open or change anything: a client that asks has proved
   * nothing yet.
   */
  lookup(name: string): BlockDevice | SealbdError | undefined;
  /** Walked in parts, over several turns of the event loop. Undefined stands for one that this client is not told about. */
  list(): Iterable<ExportEntry | undefined>;
  /** What the empty export name means; undefined where it means nothing. */
  readonly defaultName: string | undefined;
}
