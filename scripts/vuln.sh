#!/usr/bin/env bash
# Scans the module for known vulnerabilities. The data is a pinned Go module (tools/vuln/go.mod) that is indexed here, so
# nothing but the module proxy is asked; fresher data is a commit that raises the pin.
set -euo pipefail
cd "$(dirname "$0")/.."
module=golang.org/x/vulndb index=build/vulndb
go mod download -modfile=tools/vuln/go.mod $module
read -r version dir < <(go list -m -modfile=tools/vuln/go.mod -f '{{.Version}} {{.Dir}}' $module)
stamp=${version#v0.0.0-} # a pseudo-version: v0.0.0-YYYYMMDDhhmmss-commit
printf 'vulnerability data of %s-%s-%s (%s)\n' "${stamp:0:4}" "${stamp:4:2}" "${stamp:6:2}" "$version"
if [ "$(cat $index.version 2>/dev/null)" != "$version" ]; then
  rm -rf $index && mkdir -p build
  go tool -modfile=tools/vuln/go.mod indexdb -vulns "$dir/data/osv" -out $index
  echo "$version" >$index.version
fi
go tool -modfile=tools/go.mod govulncheck -db "file://$PWD/$index" ./...
