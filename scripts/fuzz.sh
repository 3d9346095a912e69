#!/usr/bin/env bash
# Finds every Fuzz function of the tree and runs each for its share of FUZZ_SECONDS. A crasher stays in its package's
# testdata/fuzz, from where every later `go test` replays it.
set -euo pipefail
cd "$(dirname "$0")/.."
budget=${FUZZ_SECONDS:-90}

# One line each: FILE:FuzzName
mapfile -t found < <(git ls-files -co --exclude-standard -z '*_test.go' | xargs -0r grep -oE '^func Fuzz[A-Za-z0-9_]+' --with-filename | sed 's/func //' | sort)
[ ${#found[@]} -gt 0 ] || { echo 'no Fuzz function found' >&2; exit 1; }
share=$((budget / ${#found[@]}))
[ $share -ge 1 ] || share=1
printf '%d fuzzers, %d s each\n' ${#found[@]} $share
for line in "${found[@]}"; do
  package=./$(dirname "${line%%:*}") name=${line##*:}
  go test -run '^$' -fuzz "^$name\$" -fuzztime "${share}s" -fuzzminimizetime 1s "$package"
done
