#!/usr/bin/env bash
# Fuzzes every parser for so many seconds, two at a time, beginning with the corpus of the repository.
#
#   tests/fuzz/run.sh [SECONDS [TARGET...]]      10 seconds each, all of them
#
# Needs a nightly compiler, C++ and cargo-fuzz (tests/deps/install.sh fuzz). New inputs are kept in
# tests/fuzz/found, failing ones in tests/fuzz/artifacts.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

seconds=${1:-10}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(ls corpus)

cp ../../Cargo.lock Cargo.lock # the versions that are tested are those that are fuzzed
fuzz() { cargo +nightly fuzz "$1" --fuzz-dir . --sanitizer none "${@:2}"; }
fuzz build

run() {
    local more=()
    case $1 in
        configuration) more=(../../deploy/examples) ;;
        dialect) more=(../../src/source/vendor) ;;
    esac
    mkdir -p "found/$1"
    fuzz run "$1" "found/$1" "corpus/$1" "${more[@]}" -- \
        -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        >"found/$1.log" 2>&1
}

failed=()
finish() {
    local target=$1 pid=$2
    if wait "$pid"; then
        echo "$target: no finding in $(sed -n 's/^stat::number_of_executed_units: *//p' "found/$target.log") runs"
    else
        failed+=("$target")
        tail -n 40 "found/$target.log"
    fi
}
running=()
for target in "${targets[@]}"; do
    run "$target" &
    running+=("$target=$!")
    if [ ${#running[@]} -eq 2 ]; then
        finish "${running[0]%=*}" "${running[0]#*=}"
        running=("${running[@]:1}")
    fi
done
for entry in "${running[@]}"; do finish "${entry%=*}" "${entry#*=}"; done
[ ${#failed[@]} -eq 0 ] || { echo "findings: ${failed[*]}, see tests/fuzz/artifacts"; exit 1; }
