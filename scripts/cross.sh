#!/usr/bin/env bash
# Compiles and vets what this machine does not run: the other platforms, the chaos build, the tests behind build tags, and
# the benchmarks' module. Goes through all of them before it fails.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0

check() {
  printf 'vet: %s\n' "$1"
  shift
  "$@" || failed=1
}

for platform in linux/arm64 darwin/arm64 windows/amd64; do
  check "$platform" env CGO_ENABLED=0 GOOS="${platform%/*}" GOARCH="${platform#*/}" go vet ./...
done
for tags in chaos e2e,opencode,faults; do
  check "$tags" go vet -tags "$tags" ./...
done
[ ! -f bench/go.mod ] || check bench go -C bench vet ./...
exit $failed
