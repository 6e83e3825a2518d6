#!/usr/bin/env bash
# Builds .venv in this checkout and installs tomolab with all its extras into it, with the pins of constraints.txt.
#   scripts/environment.sh lab|test|docs|check     (lab: what the notebooks need; the others: with that dependency group)
# Or an environment of its own, without pins, to try the ranges of pyproject.toml:
#   scripts/environment.sh oldest|newest       (.venv-oldest, .venv-newest: the oldest or newest versions, with the group test)
# PYTHON names another interpreter (3.11 to 3.13), and no other is taken then. PIP_FIND_LINKS and PIP_INDEX_URL are honoured.
# TORCH=2.13.0 holds torch at this version in the last two, for machines where another one would bring gigabytes of CUDA along.
set -euo pipefail
cd "$(dirname "$0")/.."
usage="usage: scripts/environment.sh lab|test|docs|check|oldest|newest"
group=${1:?$usage}
parts=(--editable ".[all]")
case $group in
    lab) folder=.venv pythons=(python3 python3.13 python3.12 python3.11) ;;
    test | docs | check) folder=.venv pythons=(python3 python3.13 python3.12 python3.11) parts+=(--group "$group") ;;
    oldest) folder=.venv-oldest pythons=(python3.11 python3.12 python3.13) parts+=(--group test) ;;
    newest) folder=.venv-newest pythons=(python3.13 python3.12 python3.11) parts+=(--group test) ;;
    *) echo "$usage" >&2; exit 1 ;;
esac
if [ -n "${PYTHON:-}" ]; then pythons=("$PYTHON"); fi

fail() { printf '%s\n' "$@" >&2; exit 1; }
# A name in PATH need not be a Python that runs: the stand-ins of pyenv, for instance, only say that it is not there.
fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }
version() { "$1" -c 'import platform; print("Python", platform.python_version())'; }
says() { { "$1" --version 2>&1 || true; } | { head -n 1 | grep . || echo nothing; }; }

if [ -x $folder/bin/python ]; then
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" || fail "PYTHON=$PYTHON is not Python 3.11 to 3.13, which tomolab needs; it says: $(says "$PYTHON")"
        if [ "$(version "$PYTHON")" != "$(version $folder/bin/python)" ]; then
            fail "$folder was built with $(version $folder/bin/python), and PYTHON=$PYTHON is $(version "$PYTHON")." \
                "Remove $folder to build it anew."
        fi
    fi
else
    passed=()
    for python in "${pythons[@]}"; do
        if fits "$python"; then break; fi
        passed+=("$python says: $(says "$python")")
        python=
    done
    if [ -z "$python" ]; then
        fail "tomolab needs Python 3.11 to 3.13:" "${passed[@]/#/    }" "Install one, or name it: make lab PYTHON=..."
    fi
    if [ ${#passed[@]} != 0 ]; then printf '%s\n' "Not Python 3.11 to 3.13:" "${passed[@]/#/    }" "Taking $python instead." >&2; fi
    echo "Building $folder with $(version "$python")"
    if ! "$python" -m venv $folder; then
        rm -rf $folder
        fail "Python cannot make an environment. On Debian or Ubuntu: apt-get install python3-venv"
    fi
fi

$folder/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
if [ -n "${PIP_FIND_LINKS:-}" ]; then export UV_FIND_LINKS=${PIP_FIND_LINKS// /,}; fi
if [ -n "${PIP_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX=$PIP_INDEX_URL; fi
# Compiling to bytecode now, once, keeps every later import quick.
install() { $folder/bin/uv pip install --quiet --python $folder/bin/python --compile-bytecode "$@"; }

if [ $folder = .venv ]; then
    install --constraint constraints.txt "${parts[@]}"
else
    held=()
    if [ -n "${TORCH:-}" ]; then
        echo "torch==$TORCH" >$folder/torch.txt
        held=(--constraint $folder/torch.txt)
        # By itself first: the lowest of equal versions would be the one with CUDA, and what is installed is kept.
        install "torch==$TORCH"
    fi
    if [ $group = oldest ]; then wanted=(--resolution lowest-direct); else wanted=(--upgrade); fi
    install "${wanted[@]}" "${held[@]}" "${parts[@]}"
fi
touch "$folder/.tomolab-$group"
