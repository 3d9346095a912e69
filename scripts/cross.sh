#!/usr/bin/env bash
# Compiles and vets what this machine does not run: the other platforms, the chaos build, and the benchmarks' module.
set -euo pipefail
cd "$(dirname "$0")/.."
for platform in linux/arm64 darwin/arm64 windows/amd64; do
  echo "go vet for $platform"
  CGO_ENABLED=0 GOOS=${platform%/*} GOARCH=${platform#*/} go vet ./...
done
for tags in chaos e2e,opencode,faults; do
  echo "go vet -tags $tags"
  go vet -tags "$tags" ./...
done
if [ -f bench/go.mod ]; then
  echo "go vet in bench"
  go -C bench vet ./...
fi
