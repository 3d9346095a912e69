#!/usr/bin/env bash
# Names the Go files that gofumpt would change, the scripts that do not parse, and requirements that nobody uses.
set -euo pipefail
cd "$(dirname "$0")/.."
wrong=$(git ls-files -z '*.go' | xargs -0r go tool -modfile=tools/go.mod gofumpt -l)
if [ -n "$wrong" ]; then
  printf 'gofumpt would change (go tool -modfile=tools/go.mod gofumpt -w FILE):\n%s\n' "$wrong" >&2
  exit 1
fi
for script in .ci/run $(git ls-files 'scripts/*.sh'); do bash -n "$script"; done
go mod tidy -diff
