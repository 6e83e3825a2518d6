#!/usr/bin/env bash
# Builds .venv in this checkout and installs tomolab into it with the pins of constraints.txt.
#   scripts/environment.sh lab|test|check      (lab: what the notebooks need; test, check: with that extra)
# Or an environment of its own, without pins, to try the ranges of pyproject.toml:
#   scripts/environment.sh oldest|newest       (.venv-oldest, .venv-newest: the oldest or newest versions, with the extra test)
# PYTHON names another interpreter (3.11 to 3.13). PIP_FIND_LINKS and PIP_INDEX_URL are honoured. TORCH=2.13.0 holds torch at
# this version in the last two, for machines where another one would bring gigabytes of CUDA along.
set -euo pipefail
cd "$(dirname "$0")/.."
usage="usage: scripts/environment.sh lab|test|check|oldest|newest"
group=${1:?$usage}
case $group in
    lab) folder=.venv extra= pythons="python3 python3.13 python3.12 python3.11" ;;
    test | check) folder=.venv extra="[$group]" pythons="python3 python3.13 python3.12 python3.11" ;;
    oldest) folder=.venv-oldest extra="[test]" pythons="python3.11 python3.12 python3.13" ;;
    newest) folder=.venv-newest extra="[test]" pythons="python3.13 python3.12 python3.11" ;;
    *) echo "$usage" >&2; exit 1 ;;
esac

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

if [ ! -x $folder/bin/python ]; then
    for python in ${PYTHON:-$pythons}; do
        if fits "$python"; then break; fi
        python=
    done
    if [ -z "$python" ]; then
        echo "tomolab needs Python 3.11 to 3.13; found $(python3 --version 2>&1). Install one, or name it: make lab PYTHON=..." >&2
        exit 1
    fi
    echo "Building $folder with $("$python" --version)"
    if ! "$python" -m venv $folder; then
        rm -rf $folder
        echo "Python cannot make an environment. On Debian or Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
fi

$folder/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
if [ -n "${PIP_FIND_LINKS:-}" ]; then export UV_FIND_LINKS=${PIP_FIND_LINKS// /,}; fi
if [ -n "${PIP_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX=$PIP_INDEX_URL; fi
# Compiling to bytecode now, once, keeps every later import quick.
install() { $folder/bin/uv pip install --quiet --python $folder/bin/python --compile-bytecode "$@"; }

if [ $folder = .venv ]; then
    install --constraint constraints.txt --editable ".$extra"
else
    held=()
    if [ -n "${TORCH:-}" ]; then
        echo "torch==$TORCH" >$folder/torch.txt
        held=(--constraint $folder/torch.txt)
        # By itself first: the lowest of equal versions would be the one with CUDA, and what is installed is kept.
        install "torch==$TORCH"
    fi
    if [ $group = oldest ]; then wanted=(--resolution lowest-direct); else wanted=(--upgrade); fi
    install "${wanted[@]}" "${held[@]}" --editable ".$extra"
fi
touch "$folder/.tomolab-$group"
