# shellcheck shell=bash
# Sourced by `toolchain` and `emulator/build`: which functions the CUDA bindings of cudarc declare.

CUDARC_VERSION=0.9.15

# Prints the folder of cudarc's source in cargo's registry.
cudarc_source() {
    local root
    for root in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/cudarc-"$CUDARC_VERSION"; do
        if [[ -d $root ]]; then
            echo "$root"
            return
        fi
    done
    echo "error: the source of cudarc $CUDARC_VERSION is not in cargo's registry; run \`cargo fetch\`" >&2
    return 1
}

# Prints the functions of one module (driver, nvrtc, nccl), sorted.
cudarc_functions() {
    local source
    source=$(cudarc_source)
    sed -nE "s/^ *pub fn ((cu|nvrtc|nccl)[A-Za-z0-9_]+) *\(.*/\1/p" "$source/src/$1/sys.rs" | LC_ALL=C sort -u
}
