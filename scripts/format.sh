#!/usr/bin/env bash
# Names the Go files that gofumpt would change (with --write: changes them), the scripts that do not parse, and requirements
# that nobody uses.
#   format.sh [--write]
set -euo pipefail
cd "$(dirname "$0")/.."
gofumpt() { git ls-files -z '*.go' | xargs -0r go tool -modfile=tools/go.mod gofumpt "$@"; }
if [ "${1:-}" = --write ]; then
  gofumpt -l -w
  exit
fi
wrong=$(gofumpt -l)
if [ -n "$wrong" ]; then
  printf 'gofumpt would change (make format does it):\n%s\n' "$wrong" >&2
  exit 1
fi
for script in .ci/run $(git ls-files 'scripts/*.sh'); do bash -n "$script"; done
go mod tidy -diff
