import { SealbdError } from '../base/errors.js';
import type { EngineVolume } from './engine.js';
import type { ManagedVolume } from './managed-volume.js';

/** What serves the volume. KEY_UNAVAILABLE or CONFLICT where nothing does. */
export function openDevice({ device, state, name }: ManagedVolume): EngineVolume {
  if (device !== undefined && device.state !== 'stopped') return device;
  const code = state === 'key-invalid' ? 'KEY_UNAVAILABLE' : 'CONFLICT';
  throw new SealbdError(code, `volume "${name}" is ${state}`);
}
