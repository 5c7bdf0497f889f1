/** Sizes and times as people write them: `10G`, `512MiB`, `10m`, `500ms`. Sizes are powers of 1024. */
import { SealbdError } from './errors.js';

const SIZE_PATTERN = /^(\d{1,16})(?:([KMGTP])(?:iB|B)?|B)?$/i;
const SIZE_POWERS = 'KMGTP';
const DURATION_PATTERN = /^(\d{1,12})(ms|s|m|h|d)$/;
const DURATION_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const SIZE_EXPECTED = 'a size such as 4096, 512M, 10G, 1T or 10GiB';
const DURATION_EXPECTED = 'a time such as 500ms, 10s, 10m or 24h';

/** Bytes. `what` names the flag or config key in the error. */
export function parseSize(text: string, what: string): number {
  const match = SIZE_PATTERN.exec(text.trim());
  if (match === null) throw new SealbdError('USAGE', `${what}: "${text}" is not ${SIZE_EXPECTED}`);
  const power = match[2] === undefined ? 0 : SIZE_POWERS.indexOf(match[2].toUpperCase()) + 1;
  const bytes = Number(match[1]) * 1024 ** power;
  if (!Number.isSafeInteger(bytes)) throw new SealbdError('USAGE', `${what}: "${text}" is too large`);
  return bytes;
}

/** Milliseconds. */
export function parseDuration(text: string, what: string): number {
  const match = DURATION_PATTERN.exec(text.trim());
  if (match === null) throw new SealbdError('USAGE', `${what}: "${text}" is not ${DURATION_EXPECTED}`);
  return Number(match[1]) * DURATION_MS[match[2] as keyof typeof DURATION_MS];
}

/** The shortest exact or three-digit form: `10G`, `1.5G`, `4096` as `4K`. */
export function formatSize(bytes: number): string {
  let value = bytes;
  let power = 0;
  while (value >= 1024 && power < SIZE_POWERS.length) {
    value /= 1024;
    power += 1;
  }
  const digits = Number.isInteger(value) ? String(value) : value.toFixed(value < 10 ? 2 : 1);
  return power === 0 ? `${bytes}` : `${digits}${SIZE_POWERS[power - 1]}`;
}

/** The largest unit that divides it: `90s`, `10m`, `24h`. */
export function formatDuration(ms: number): string {
  for (const unit of ['d', 'h', 'm', 's'] as const) {
    if (ms !== 0 && ms % DURATION_MS[unit] === 0) return `${ms / DURATION_MS[unit]}${unit}`;
  }
  return `${ms}ms`;
}
