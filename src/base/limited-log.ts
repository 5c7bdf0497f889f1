/** A logger for what others can provoke: of each message so many lines in a span of time, then how many were left out. */
import type { Clock } from './clock.js';
import { LOG_LINES_PER_KIND_MAX, LOG_SPAN_MS } from './limits.js';
import type { Logger } from './log.js';

type Level = 'debug' | 'info' | 'warn' | 'error';

/** Of lines with one level and message. */
interface Kind {
  lines: number;
  leftOut: number;
}

/** Messages are the code's own sentences, so there are few of them; what clients send stands in the fields. */
export function limitLog(log: Logger, clock: Clock): Logger {
  return limited(log, clock, new Map());
}

function limited(log: Logger, clock: Clock, kinds: Map<string, Kind>): Logger {
  const write = (level: Level, fields: object, message: string): void => {
    const name = `${level} ${message}`;
    const kind = kinds.get(name) ?? begin(level, message, name);
    kind.lines += 1;
    if (kind.lines <= LOG_LINES_PER_KIND_MAX) log[level](fields, message);
    else kind.leftOut += 1;
  };
  const begin = (level: Level, message: string, name: string): Kind => {
    const kind = { lines: 0, leftOut: 0 };
    kinds.set(name, kind);
    clock.setTimeout(() => {
      kinds.delete(name);
      if (kind.leftOut > 0)
        log[level]({ leftOut: kind.leftOut, of: message }, 'more lines of a kind were left out');
    }, LOG_SPAN_MS);
    return kind;
  };
  return {
    debug: (fields, message) => write('debug', fields, message),
    info: (fields, message) => write('info', fields, message),
    warn: (fields, message) => write('warn', fields, message),
    error: (fields, message) => write('error', fields, message),
    child: (bindings) => limited(log.child(bindings), clock, kinds),
  };
}
