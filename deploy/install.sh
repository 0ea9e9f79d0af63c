#!/bin/sh
# Lays the agent and its service, or a newer version of it: sudo deploy/install.sh [OPTIONS] [-- OPTIONS of its verb `install`]
#   --wheels DIR    take packages from this folder, and from nowhere else (made by: pip download -d DIR edge-agent-runtime)
#   --version V     this version (default: the newest that can be had)
#   --prefix DIR    where versions lie side by side (default: /opt/edge-agent)
#   --python FILE   the Python to build upon (default: python3)
#   --extras NAMES  comma-separated extras of the package, e.g. speech,signed; none (default: those of the version that serves)
#   --runtime FILE  a wheel that owns the module onnxruntime, such as NVIDIA's for a Jetson, in place of onnxruntime of the
#                   package index; none: no ONNX models, TFLite alone; index: that of the index, as without
# The version that runs is replaced once the new one has said that it is ready; otherwise it runs on.
set -eu

name=edge-agent-runtime prefix=/opt/edge-agent python=python3 wheels='' version='' extras='' runtime=''

fail() {
    echo "install.sh: $*" >&2
    exit "${code:-1}"
}

while [ $# -gt 0 ]; do
    case $1 in
        --) shift && break ;;
        -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && exit 0 ;;
        --wheels | --version | --prefix | --python | --extras | --runtime)
            [ $# -gt 1 ] || code=2 fail "$1 wants a value"
            case $1 in
                --wheels) wheels=$2 ;;
                --version) version=$2 ;;
                --prefix) prefix=$2 ;;
                --python) python=$2 ;;
                --extras) extras=$2 ;;
                --runtime) runtime=$2 ;;
            esac
            shift 2
            ;;
        *) code=2 fail "$1: no option; see $0 --help" ;;
    esac
done

# what there are no wheels for is said here: pip would only find nothing that fits
if command -v getconf >/dev/null; then
    [ "$(getconf LONG_BIT)" = 64 ] || fail "this system is $(getconf LONG_BIT)-bit; the runtimes have no wheels for that: install a 64-bit one"
    getconf GNU_LIBC_VERSION 2>/dev/null | grep -q glibc ||
        fail "the C library is not glibc (musl?); the runtimes have no wheels for it: take Debian, or an image based on it"
fi
[ "$(id -u)" = 0 ] || code=2 fail "only root may install a service; type: sudo $0"
command -v "$python" >/dev/null || fail "there is no $python; type: apt-get install python3 python3-venv"
"$python" -c 'import sys, struct; sys.exit(sys.version_info < (3, 10) or struct.calcsize("P") != 8)' ||
    fail "$("$python" --version) of $(uname -m): a 64-bit Python of 3.10 or later is needed"
"$python" -c 'import venv, ensurepip' 2>/dev/null || fail "$python makes no environments; type: apt-get install python3-venv"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    echo "install.sh: on Python 3.10 ONNX Runtime stays at 1.23.2, in which holes are known: serve only models that you trust" >&2
case $runtime in
    '' | none | index) ;;
    *.whl) [ -f "$runtime" ] || code=2 fail "--runtime $runtime: is no file" ;;
    *) code=2 fail "--runtime $runtime: give a wheel (FILE.whl), none or index" ;;
esac
[ -z "$wheels" ] || [ -d "$wheels" ] || code=2 fail "--wheels $wheels: is no folder"

umask 022
mkdir -p "$prefix"
touch "$prefix/.edge-agent-versions"
building=$(mktemp -d "$prefix/.building.XXXXXX")
target=
trap 'rm -rf "$building"; [ -z "$target" ] || [ -e "$target/.complete" ] || rm -rf "$target"' EXIT

pip() { # ENVIRONMENT ARGUMENTS
    at=$1
    shift
    if [ -n "$wheels" ]; then
        set -- "$@" --no-index --find-links "$wheels"
    fi
    "$at/bin/python" -m pip --disable-pip-version-check --no-input "$@"
}

without_runtime() { # all that the package names but onnxruntime, whose files would lie over those of the wheel
    pip "$building/tools" install -q --no-deps "$file" || return # to be read, and last: pip would call it a conflict
    "$building/tools/bin/python" - "$extras" >"$building/needs" <<'END' || return
import sys
from importlib.metadata import requires
from pip._vendor.packaging.requirements import Requirement

asked = ["", *sys.argv[1].replace(" ", "").split(",")]
for extra in asked:  # which grows by the extras that an extra names
    for need in map(Requirement, requires("edge-agent-runtime")):
        if need.marker and not need.marker.evaluate({"extra": extra}):
            continue
        need.marker = None
        if need.name == "edge-agent-runtime":
            asked += need.extras - {*asked}
        elif need.name != "onnxruntime":
            print(need)
END
    [ "$runtime" = none ] || echo "$runtime" >>"$building/needs"
    pip "$target" install -q -r "$building/needs" && pip "$target" install -q --no-deps "$file" || return
    if [ "$runtime" != none ] && "$target/bin/python" -m pip show -q onnxruntime 2>/dev/null; then
        "$target/bin/python" -m pip list | grep -i onnxruntime >&2
        fail "another package asks for onnxruntime, which would lie over $runtime: leave out that extra"
    fi
}

# which version that is, and its file
"$python" -m venv "$building/tools"
pip "$building/tools" download -q --no-deps -d "$building" "$name${version:+==$version}" ||
    fail "no $name${version:+ $version} can be had; $([ -n "$wheels" ] && echo "look into $wheels" || echo 'is the network there? --wheels DIR works without')"
file=$(find "$building" -maxdepth 1 -type f | head -n 1)
version=$(basename "$file" | sed "s/^edge_agent_runtime-\([^-]*\).*/\1/; s/\.tar\.gz$//")

had=$(cat "$prefix/current/.runtime" 2>/dev/null || true)
[ -z "$had" ] || [ -n "$runtime" ] ||
    fail "the version that serves was laid with --runtime $had; give it again, or --runtime index for that of the package index"
[ "$runtime" != index ] || runtime=
[ -n "$extras" ] || extras=$(cat "$prefix/current/.extras" 2>/dev/null || true)
[ "$extras" != none ] || extras=
if [ -e "$prefix/$version/.complete" ]; then
    [ "$(cat "$prefix/$version/.runtime" 2>/dev/null || true)" = "${runtime##*/}" ] ||
        fail "$prefix/$version is there with another runtime; sudo edge-agent uninstall, which keeps config and data, and lay it again"
    echo "edge-agent $version lies in $prefix/$version already"
else
    target=$prefix/$version
    rm -rf "$target"
    "$python" -m venv "$target"
    echo "installing edge-agent $version into $target"
    echo "${runtime##*/}" >"$target/.runtime"
    echo "$extras" >"$target/.extras"
    if [ -z "$runtime" ]; then
        pip "$target" install -q "$file${extras:+[$extras]}"
    else
        without_runtime
    fi || fail "its packages could not be installed; see above"
    touch "$target/.complete"
fi
rm -rf "$building"
"$prefix/$version/bin/python" -I -m edge_agent install "$@"
