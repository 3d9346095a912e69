#!/usr/bin/env bash
# Runs one stage of a build: says what runs, keeps its output under build/log/, and prints how long it took.
#   stage.sh NAME COMMAND [ARG ...]
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 2 ] || { sed -n '2,3p' "$0" >&2; exit 2; }
name=$1; shift
mkdir -p build/log
printf '== %s: %s\n' "$name" "$*"
start=$SECONDS code=0
"$@" 2>&1 | tee "build/log/$name.log" || code=$?
took=$((SECONDS - start))
if [ $code -ne 0 ]; then
  printf '== %s failed after %d s (exit %d); its output is in build/log/%s.log\n' "$name" $took $code "$name" >&2
  exit $code
fi
printf '== %s: %d s\n' "$name" $took
