#!/bin/sh
# Prints the path of a usable OpenCode on stdout, and says on stderr what it does.
#
#   1. $OPENCODE_BIN, when set;
#   2. the pinned version under .tools/opencode, installed there with npm at first use;
#   3. an `opencode` on PATH;
# else one line says what to install, and the exit code is 1.
set -eu

version=1.18.33
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
tools=$root/.tools/opencode/$version

say() { printf 'opencode: %s\n' "$*" >&2; }

# usable PATH: the file is there and starts. `--version` makes no connection.
usable() { [ -x "$1" ] && "$1" --version >/dev/null 2>&1; }

# flags_have NAME: the processor states the feature (Linux and macOS).
flags_have() {
	if [ -r /proc/cpuinfo ]; then
		grep -qw "$1" /proc/cpuinfo
	else
		sysctl -n machdep.cpu.leaf7_features 2>/dev/null | grep -qiw "$1"
	fi
}

# platform prints the suffix of the package for this machine: linux-x64, linux-x64-baseline-musl ...
platform() {
	case $(uname -s) in
	Linux) os=linux ;;
	Darwin) os=darwin ;;
	*) return 1 ;;
	esac
	case $(uname -m) in
	x86_64 | amd64) arch=x64 ;;
	aarch64 | arm64) arch=arm64 ;;
	*) return 1 ;;
	esac
	name=$os-$arch
	if [ "$arch" = x64 ] && ! flags_have avx2; then name=$name-baseline; fi
	if [ "$os" = linux ] && ls /lib/ld-musl-*.so.1 >/dev/null 2>&1; then name=$name-musl; fi
	printf '%s\n' "$name"
}

if [ -n "${OPENCODE_BIN:-}" ]; then
	if usable "$OPENCODE_BIN"; then
		say "using OPENCODE_BIN ($OPENCODE_BIN)"
		printf '%s\n' "$OPENCODE_BIN"
		exit 0
	fi
	say "OPENCODE_BIN=$OPENCODE_BIN does not start; correct or unset it"
	exit 1
fi

if name=$(platform); then
	bin=$tools/node_modules/opencode-$name/bin/opencode
	if usable "$bin"; then
		say "using the pinned $version"
		printf '%s\n' "$bin"
		exit 0
	fi
	if command -v npm >/dev/null 2>&1; then
		say "installing opencode-$name@$version into .tools (about 60 MB to fetch, 180 MB on disk)"
		mkdir -p "$tools"
		# The platform package needs no install script, so none may run.
		if npm install --ignore-scripts --no-audit --no-fund --no-save --loglevel=error \
			--prefix "$tools" "opencode-$name@$version" >&2 && usable "$bin"; then
			printf '%s\n' "$bin"
			exit 0
		fi
		say "opencode-$name@$version could not be installed"
	else
		say "npm was not found, so the pinned $version cannot be installed"
	fi
fi

if onpath=$(command -v opencode) && usable "$onpath"; then
	found=$("$onpath" --version 2>/dev/null | head -n 1)
	say "using $onpath (version $found; tested with $version)"
	printf '%s\n' "$onpath"
	exit 0
fi

say "install OpenCode $version and put it on PATH, or set OPENCODE_BIN to it"
exit 1
