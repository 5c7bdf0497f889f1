import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, test } from 'vitest';

const FOLDER = fileURLToPath(new URL('../../../shared/vectors/', import.meta.url));

/** A suite over one file of published vectors; where the file is absent, one skipped test says so by name. */
export function describeVectors(name: string, file: string, suite: (text: string) => void): void {
  const path = FOLDER + file;
  describe(name, () => {
    if (existsSync(path)) suite(readFileSync(path, 'utf8'));
    else test.skip(`${path} is absent`, () => undefined);
  });
}

/** Records of `name = value` (or `name: value`) lines, separated by empty lines; comments start with '#'. */
export function parseRecords(text: string): Map<string, string>[] {
  const records: Map<string, string>[] = [];
  let record = new Map<string, string>();
  for (const line of [...text.split('\n'), '']) {
    const match = /^(\w+)\s*[=:]\s*(.*?)\s*$/.exec(line);
    if (match !== null) record.set(match[1]!, match[2]!);
    else if (line.trim() === '' && record.size > 0) {
      records.push(record);
      record = new Map();
    }
  }
  return records;
}

export function hex(text: string): Buffer {
  const bytes = Buffer.from(text, 'hex');
  if (bytes.length * 2 !== text.length) throw new Error(`not hexadecimal: ${text}`);
  return bytes;
}
