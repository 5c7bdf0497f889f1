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
results="${RESULTS:-build/test-results.json}"
status=0
npx vitest run --reporter=default --reporter=json --outputFile="$results" "$@" || status=$?
node scripts/test-summary.mjs "$results"
exit "$status"
