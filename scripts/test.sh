#!/usr/bin/env bash
# Builds sealbd and runs every test; ends with the line "N passed, N failed, N skipped".
# Arguments go to vitest. RESULTS names the JSON report.
set -euo pipefail
cd "$(dirname "$0")/.."

bash scripts/packages.sh
[ -d node_modules ] || npm ci
[ -f build/Release/sealbd.node ] || npm run build:native
npm run --silent build:ts

export PATH="$PATH:/usr/sbin:/sbin"
# npm puts node_modules/.bin first, where another Node lies: the one that runs npm is meant.
node="${npm_node_execpath:-node}"
echo "testing on Node $("$node" --version)"
results="${RESULTS:-build/test-results.json}"
status=0
"$node" node_modules/vitest/vitest.mjs run --reporter=default --reporter=json --outputFile="$results" "$@" || status=$?
node scripts/test-summary.mjs "$results"
exit "$status"
