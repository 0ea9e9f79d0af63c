#!/bin/sh
# Lays the agent and its service, or a newer version of it: sudo deploy/install.sh [OPTIONS] [-- OPTIONS of its verb `install`]
#   --wheels DIR    take packages from this folder, and from nowhere else (made by: pip download -d DIR edge-agent-runtime)
#   --version V     this version (default: the newest that can be had)
#   --prefix DIR    where versions lie side by side (default: /opt/edge-agent)
#   --python FILE   the Python to build upon (default: python3)
#   --extras NAMES  comma-separated extras of the package, e.g. speech,signed
# The version that runs is replaced once the new one has said that it is ready; otherwise it runs on.
set -eu

name=edge-agent-runtime prefix=/opt/edge-agent python=python3 wheels='' version='' extras=''

fail() {
    echo "install.sh: $*" >&2
    exit "${code:-1}"
}

while [ $# -gt 0 ]; do
    case $1 in
        --) shift && break ;;
        -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && exit 0 ;;
        --wheels | --version | --prefix | --python | --extras)
            [ $# -gt 1 ] || code=2 fail "$1 wants a value"
            case $1 in
                --wheels) wheels=$2 ;;
                --version) version=$2 ;;
                --prefix) prefix=$2 ;;
                --python) python=$2 ;;
                --extras) extras=$2 ;;
            esac
            shift 2
            ;;
        *) code=2 fail "$1: no option; see $0 --help" ;;
    esac
done

[ "$(id -u)" = 0 ] || code=2 fail "only root may install a service; type: sudo $0"
command -v "$python" >/dev/null || fail "there is no $python; type: apt-get install python3 python3-venv"
"$python" -c 'import sys, struct; sys.exit(sys.version_info < (3, 10) or struct.calcsize("P") != 8)' ||
    fail "$("$python" --version) of $(uname -m): a 64-bit Python of 3.10 or later is needed"
"$python" -c 'import venv, ensurepip' 2>/dev/null || fail "$python makes no environments; type: apt-get install python3-venv"
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

# which version that is, and its file
"$python" -m venv "$building/tools"
pip "$building/tools" download -q --no-deps -d "$building" "$name${version:+==$version}" ||
    fail "no $name${version:+ $version} can be had; $([ -n "$wheels" ] && echo "look into $wheels" || echo 'is the network there? --wheels DIR works without')"
file=$(find "$building" -maxdepth 1 -type f | head -n 1)
version=$(basename "$file" | sed "s/^edge_agent_runtime-\([^-]*\).*/\1/; s/\.tar\.gz$//")

if [ -e "$prefix/$version/.complete" ]; then
    echo "edge-agent $version lies in $prefix/$version already"
else
    target=$prefix/$version
    rm -rf "$target"
    "$python" -m venv "$target"
    echo "installing edge-agent $version into $target"
    pip "$target" install -q "$file${extras:+[$extras]}" || fail "its packages could not be installed; see above"
    touch "$target/.complete"
fi
rm -rf "$building"
"$prefix/$version/bin/python" -I -m edge_agent install "$@"
