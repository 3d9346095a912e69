#!/usr/bin/env bash
# Installs Debian packages where what they bring is not found, and says so. Elsewhere it only says what the tests will miss.
#   packages.sh PACKAGE ...
set -euo pipefail

# found PACKAGE: does this machine have what we use of it?
found() {
  local tool
  case "$1" in
    libc6-dev) echo '#include <stdlib.h>' | cc -E - >/dev/null 2>&1; return ;;
    iproute2) tool=ip ;;
    nftables) tool=nft ;;
    *) tool=$1 ;;
  esac
  PATH="$PATH:/usr/sbin:/sbin" command -v "$tool" >/dev/null
}

missing=()
for package in "$@"; do found "$package" || missing+=("$package"); done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
  printf 'not found and not a Debian machine, so please install what brings: %s\n' "${missing[*]}" >&2
  [ "$(uname -s)" = Linux ] && exit 1
  exit 0 # strace, network namespaces and nftables exist on Linux only; the tests that need them are built for Linux only
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { printf 'run as root: apt-get install %s\n' "${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
printf 'installing Debian packages: %s\n' "${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -q >/dev/null
"${as_root[@]}" apt-get install -yq --no-install-recommends "${missing[@]}" >/dev/null 2> >(grep -v "^debconf:" >&2)
