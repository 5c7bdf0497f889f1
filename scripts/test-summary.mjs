// Names the failed and the skipped tests of vitest's JSON reports and sums up: "N passed, N failed, N skipped".
import { readFileSync } from 'node:fs';

const counts = { passed: 0, failed: 0, skipped: 0 };
const skipped = new Set();
const failed = [];

function fail(name, message = '') {
  counts.failed += 1;
  failed.push(`failed: ${name}: ${message.split('\n', 6).join(' ').slice(0, 600)}`);
}

for (const path of process.argv.slice(2)) {
  const report = JSON.parse(readFileSync(path, 'utf8'));
  for (const file of report.testResults) {
    if (file.status === 'failed' && file.assertionResults.length === 0) fail(file.name, file.message);
    for (const test of file.assertionResults) {
      if (test.status === 'passed') counts.passed += 1;
      else if (test.status === 'failed') fail(test.fullName, test.failureMessages?.[0]);
      else {
        counts.skipped += 1;
        skipped.add(test.fullName);
      }
    }
  }
}
for (const line of failed) console.log(line);
for (const name of skipped) console.log(`skipped: ${name}`);
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
process.exitCode = counts.failed > 0 || counts.passed === 0 ? 1 : 0;
