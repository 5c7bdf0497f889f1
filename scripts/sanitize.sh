#!/usr/bin/env bash
# Runs the native test program as it is released (what it finds on stacks, the sanitizers would hide), then under the
# thread, address and undefined-behaviour sanitizers, then the addon's unit tests on a build with the last two. Any
# report fails the script.
set -euo pipefail
cd "$(dirname "$0")/.."

out=build-san
mkdir -p "$out"
sources=(native/test/*.cc native/aes/*.cc native/keys/*.cc native/io/arena.cc native/io/crc32c.cc)
common=(-std=c++20 -Wall -Wextra -Inative -pthread)
flags=("${common[@]}" -g -O1 -fno-omit-frame-pointer)

export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1

echo "== native test program"
g++ "${common[@]}" -O3 -fstack-protector-strong -Wl,-z,now "${sources[@]}" -o "$out/native-test"
"$out/native-test"

echo "== native test program, thread sanitizer"
g++ "${flags[@]}" -fsanitize=thread "${sources[@]}" -o "$out/native-test-tsan"
TSAN_OPTIONS=halt_on_error=1 "$out/native-test-tsan"

echo "== native test program, address and undefined-behaviour sanitizers"
g++ "${flags[@]}" -fsanitize=address,undefined -fno-sanitize-recover=undefined "${sources[@]}" -o "$out/native-test-asan"
"$out/native-test-asan"

echo "== addon under vitest, address and undefined-behaviour sanitizers"
npx cmake-js compile -O "$out" -B Debug --CDSANITIZE=ON
addon=$(find "$PWD/$out" -name sealbd.node | head -1)
# Node itself leaves memory at exit, so leaks are not looked for here; the program above looks for ours. Node is not
# instrumented, so the runtimes have to come first.
SEALBD_TESTING=1 SEALBD_ADDON=$addon SEALBD_SANITIZED=1 \
  LD_PRELOAD="$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0 \
  npx vitest run --no-file-parallelism "${@:-test/unit/native-}" test/property/native-differential.test.ts
