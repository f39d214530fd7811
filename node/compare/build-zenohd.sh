#!/usr/bin/env bash
# Builds zenohd with its storage manager and two persistent backends: build-zenohd.sh DIRECTORY.
#
# A plugin must be built with the compiler, versions and features of the zenohd that loads it: so all four are members of
# one workspace, made in DIRECTORY from the sources that crates.io has. Needs a C++ compiler and libclang.
# ROCKSDB=system links the system's RocksDB, 7.8 or newer, instead of building 9.9 from C++, which takes two processors half
# an hour or more (Debian: apt-get install g++ libclang-dev librocksdb-dev); the sources of the backends are the same.
# JOBS is how many to run at a time, 2 unless it is set. At the end DIRECTORY/target/release has zenohd and the plugins.
set -euo pipefail
version=1.10.2
crates=(zenohd zenoh-plugin-storage-manager zenoh-backend-rocksdb zenoh-backend-filesystem)

dir=$(mkdir -p "${1:?a directory for sources and results, some 2 GB}" && cd "$1" && pwd)
sources=${CARGO_HOME:-$HOME/.cargo}/registry/src

mkdir -p "$dir/fetch/src" "$dir/members"
{
    printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[dependencies]\n'
    printf "%s = \"=$version\"\n" "${crates[@]}"
} >"$dir/fetch/Cargo.toml"
: >"$dir/fetch/src/lib.rs"
cargo fetch --manifest-path "$dir/fetch/Cargo.toml"

for crate in "${crates[@]}"; do
    rm -rf "${dir:?}/members/$crate"
    cp -r "$sources"/*/"$crate-$version" "$dir/members/$crate"
    rm -f "$dir/members/$crate/rust-toolchain.toml"
done
if [[ ${ROCKSDB:-} == system ]]; then
    # Bindings that ask for no function that is newer than Debian 12's library.
    for backend in zenoh-backend-rocksdb zenoh-backend-filesystem; do
        python3 - "$dir/members/$backend/Cargo.toml" <<'PY'
import pathlib, re, sys
manifest = pathlib.Path(sys.argv[1])
text = re.sub(r'(?ms)^\[dependencies\.librocksdb-sys\].*?(?=^\[)', '', manifest.read_text())
text = re.sub(r'(?ms)^\[dependencies\.rocksdb\].*?(?=^\[)',
              '[dependencies.rocksdb]\nversion = "0.19"\ndefault-features = false\n\n', text)
manifest.write_text(text)
PY
    done
    export ROCKSDB_LIB_DIR=${ROCKSDB_LIB_DIR:-/usr/lib/$(uname -m)-linux-gnu} ROCKSDB_INCLUDE_DIR=${ROCKSDB_INCLUDE_DIR:-/usr/include}
fi
# The versions with which the backend was published: newer ones of zenoh's dependencies are not what it was tested with.
[[ -e $dir/Cargo.lock ]] || cp "$dir/members/zenoh-backend-rocksdb/Cargo.lock" "$dir/Cargo.lock"
cat >"$dir/Cargo.toml" <<'TOML'
[workspace]
resolver = "2"
members = ["members/*"]

[profile.release]
opt-level = 3
debug = 0
lto = false
codegen-units = 16
panic = "abort"
TOML

cd "$dir"
CARGO_TARGET_DIR=$dir/target cargo build --release --workspace --lib --bins -j "${JOBS:-2}"
ls -l target/release/zenohd target/release/libzenoh_*.so
