#!/usr/bin/env bash
# Builds .venv in this checkout and installs tomolab into it with the pins of constraints.txt.
#   scripts/environment.sh lab|test|check      (lab: what the notebooks need; test, check: with that extra)
# PYTHON names another interpreter (3.11 to 3.13). PIP_FIND_LINKS and PIP_INDEX_URL are honoured.
set -euo pipefail
cd "$(dirname "$0")/.."
group=${1:?usage: scripts/environment.sh lab|test|check}

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

if [ ! -x .venv/bin/python ]; then
    for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if fits "$python"; then break; fi
        python=
    done
    if [ -z "$python" ]; then
        echo "tomolab needs Python 3.11 to 3.13; found $(python3 --version 2>&1). Install one, or name it: make lab PYTHON=..." >&2
        exit 1
    fi
    echo "Building .venv with $("$python" --version)"
    if ! "$python" -m venv .venv; then
        rm -rf .venv
        echo "Python cannot make an environment. On Debian or Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
fi

.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
if [ -n "${PIP_FIND_LINKS:-}" ]; then export UV_FIND_LINKS=${PIP_FIND_LINKS// /,}; fi
if [ -n "${PIP_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX=$PIP_INDEX_URL; fi
extra=; if [ "$group" != lab ]; then extra="[$group]"; fi
# Compiling to bytecode now, once, keeps every later import quick.
.venv/bin/uv pip install --quiet --python .venv/bin/python --compile-bytecode --constraint constraints.txt --editable ".$extra"
touch ".venv/.tomolab-$group"
