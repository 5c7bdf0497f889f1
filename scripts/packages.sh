#!/usr/bin/env bash
# Installs the Debian packages that the tests and the benchmark drive sealbd with, where this user may; names them where not.
# Tests whose program is missing are skipped by name.
set -euo pipefail

declare -A package_of=(
  [nbdinfo]=libnbd-bin [nbdcopy]=libnbd-bin [nbdfuse]=nbdfuse [nbdsh]=python3-libnbd
  [qemu-io]=qemu-utils [qemu-img]=qemu-utils [qemu-nbd]=qemu-utils [fio]=fio [nbdkit]=nbdkit [mkfs.ext4]=e2fsprogs [mkfs.xfs]=xfsprogs
  [fusermount3]=fuse3 [losetup]=mount [gdb]=gdb [openssl]=openssl
)

missing=()
for program in "${!package_of[@]}"; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null || missing+=("${package_of[$program]}")
done
# libFuzzer comes with clang, in a package of its own, which must be of the same version.
[ -n "$(for clang in clang++ clang++-{14..19}; do "$clang" -print-file-name=libclang_rt.fuzzer-x86_64.a 2>/dev/null; done | grep ^/)" ] ||
  missing+=(clang-14 libclang-rt-14-dev)
# A second implementation of KMS, in Python, goes into an environment of its own.
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
[ ${#missing[@]} -eq 0 ] && exit 0
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
  echo "installing for the tests: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >/dev/null
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "to run every test, install: ${missing[*]}"
fi
