#!/usr/bin/env bash
# Finds every Fuzz function of the tree and runs each for its share of FUZZ_SECONDS. A crasher stays in its package's
# testdata/fuzz, from where every later `go test` replays it.
set -euo pipefail
cd "$(dirname "$0")/.."
# Beside this each fuzzer takes some three seconds to link.
budget=${FUZZ_SECONDS:-60}

# One line each: FILE:FuzzName
found=$(git ls-files -co --exclude-standard -z '*_test.go' | xargs -0 grep -HoE '^func Fuzz[A-Za-z0-9_]+' | sed 's/func //' | sort) || { echo 'no Fuzz function found' >&2; exit 1; }
count=$(wc -l <<<"$found")
share=$((budget / count))
[ $share -ge 1 ] || share=1
printf '%d fuzzers, %d s each\n' "$count" $share
for line in $found; do
  package=./$(dirname "${line%%:*}") name=${line##*:}
  go test -run '^$' -fuzz "^$name\$" -fuzztime "${share}s" -fuzzminimizetime 1s "$package"
done
