#!/usr/bin/env bash
# Three nodes on this machine: run.sh [directory for their data, by default a new temporary one].
# Clients connect to tcp/127.0.0.1:7447, 7457 or 7467. Ctrl-C stops all three.
# ODGM names the program; by default it is built here.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [[ -z ${ODGM:-} ]]; then
    cargo build --release --locked -p odgm-node --manifest-path "$here/../../Cargo.toml"
    ODGM=${CARGO_TARGET_DIR:-$here/../../target}/release/odgm
fi
ODGM=$(realpath "$ODGM")
data=${1:-$(mktemp -d)}
mkdir -p "$data"
cd "$data"

pids=()
stop() {
    trap - EXIT
    trap '' INT TERM
    kill -TERM "${pids[@]}" 2>/dev/null || true
    wait "${pids[@]}" 2>/dev/null || true
    echo "stopped; the data is in $data"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

for n in 0 1 2; do
    "$ODGM" start --config "$here/odgm-$n.yaml" >"odgm-$n.log" 2>&1 &
    pids+=($!)
done

ready() { # over bash's own /dev/tcp, so that nothing needs to be installed
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
    read -r _ status _ <&3
    exec 3>&- 3<&-
    [[ $status == 200 ]]
} 2>/dev/null

for n in 0 1 2; do
    deadline=$((SECONDS + 60))
    until ready "809$n"; do
        kill -0 "${pids[n]}" 2>/dev/null || { echo "odgm-$n ended:" >&2; tail -n 20 "odgm-$n.log" >&2; exit 1; }
        ((SECONDS < deadline)) || { echo "odgm-$n is not ready:" >&2; tail -n 20 "odgm-$n.log" >&2; exit 1; }
        sleep 0.2
    done
done
echo "three nodes serve; data and logs are in $data"
wait -n "${pids[@]}" || true
echo "a node ended; logs are in $data" >&2
wait
