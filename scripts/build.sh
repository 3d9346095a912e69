#!/usr/bin/env bash
# Builds every program of cmd/ into bin/ (or, with the argument chaos, into bin/chaos/ with the build tag of the fault
# tests): static, without paths of this machine, stripped, and refused when it grew over the size gate.
#   build.sh [chaos]
set -euo pipefail
cd "$(dirname "$0")/.."
limit=35000000 # bytes, one stripped program

tag=${1:-} out=bin
case "$tag" in
  "") ;;
  chaos) out=bin/chaos ;;
  *) sed -n '2,4p' "$0" >&2; exit 2 ;;
esac
version=$(git describe --tags --always --dirty 2>/dev/null || echo unknown)
mkdir -p "$out"
for main in cmd/*/main.go; do
  dir=$(dirname "$main") name=$(basename "$(dirname "$main")")
  CGO_ENABLED=0 go build -trimpath -tags "$tag" -o "$out/$name" \
    -ldflags "-s -w -X cowork.example.com/broker/internal/telemetry.version=$version" "./$dir"
  size=$(wc -c <"$out/$name")
  printf 'built %s, %d.%d MB\n' "$out/$name" $((size / 1000000)) $((size / 100000 % 10))
  [ "$size" -le $limit ] || { printf '%s is larger than %d bytes: find what came in with it\n' "$out/$name" $limit >&2; exit 1; }
done
