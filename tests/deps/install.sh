#!/usr/bin/env bash
# Installs what building, testing and measuring need beyond Rust, a C compiler, Node and Python.
#
#   tests/deps/install.sh [build|test|bench]...      all three unless told otherwise
#
# build: cmake (for pingora-core's zlib); test: build and the npm packages of tests/oidc;
# bench: build and the peers. It does nothing, silently, where nothing is missing.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PATH="$PATH:/usr/sbin:/sbin" # Debian keeps nginx and haproxy where only root looks

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

# Each program here is named like the Debian package that brings it.
debian() {
    local missing=() program
    for program in "$@"; do
        command -v "$program" >/dev/null || missing+=("$program")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || fail "no apt-get here; please install: ${missing[*]}"
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "no sudo here; as root: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    "${as_root[@]}" apt-get -qq update
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y --no-install-recommends install "${missing[@]}"
}

# npm writes node_modules/.package-lock.json last, so its date tells a finished installation.
npm_packages() {
    local directory=$1
    local installed=$directory/node_modules/.package-lock.json
    [ ! "$installed" -nt "$directory/package-lock.json" ] || return 0
    command -v npm >/dev/null || fail "npm is missing: it comes with Node"
    npm --prefix "$directory" ci --ignore-scripts --no-audit --no-fund
}

build() { debian cmake; }
tests() { build; npm_packages "$root/tests/oidc"; }
bench() { debian cmake nginx haproxy wrk; }

[ $# -gt 0 ] || set -- test bench
for group in "$@"; do
    case $group in
        build) build ;;
        test) tests ;;
        bench) bench ;;
        *) fail "unknown group '$group'; there are: build, test, bench" ;;
    esac
done
