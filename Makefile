# tomolab: everything one does with a checkout. `make` alone lists the commands.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

PYTHON_BIN := .venv/bin
DISPLAY_RUN := xvfb-run --auto-servernum --server-args="-screen 0 1400x900x24"
# Seconds for one cell: enough to catch a cell that hangs, not one that is slow beside other work.
NOTEBOOK_TIMEOUT := 1800
LAB_OPTIONS ?= $(if $(filter 0,$(shell id -u)),--allow-root)

# Threads of OpenMP that wait for each other sleep instead of keeping the cores from other processes.
lab test-notebooks test-browser demo: export OMP_WAIT_POLICY := passive

# Warnings are errors, so links that lead nowhere are.
SPHINX := $(PYTHON_BIN)/python -m sphinx -M html docs docs/_build --fail-on-warning --keep-going --quiet

# Where a Python is named, the script has to see whether the environment is of that one.
ASKED := $(if $(PYTHON),asked)

.PHONY: asked help install lab test test-unit test-notebooks test-browser test-oldest test-newest check release-check docs demo bench constraints clean

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name text; do printf '  make %-15s %s\n' "$$name" "$$text"; done

.venv/.tomolab-%: pyproject.toml constraints.txt scripts/environment.sh $(ASKED)
	@scripts/environment.sh $*

install: .venv/.tomolab-lab  ## build the environment in .venv/; then call .venv/bin/tomolab
	@scripts/libraries.sh lab

lab: install  ## build the environment and open JupyterLab on the tour
	$(PYTHON_BIN)/jupyter-lab --ServerApp.root_dir='$(CURDIR)' --LabApp.default_url=/lab/tree/notebooks/00_tour.ipynb $(LAB_OPTIONS)

test: test-unit test-notebooks test-browser  ## build what the tests need and run them all

# Qt must use the virtual display, whatever the user's desktop asks for. Small tests gain nothing from threads, which wait for
# each other where others work too, and much from a second process.
test-unit: export QT_QPA_PLATFORM := xcb
test-unit: export MPLBACKEND := Agg
test-unit: export OMP_NUM_THREADS := 1
test-unit: .venv/.tomolab-test  ## the modules, under a virtual display
	@scripts/libraries.sh test
	$(DISPLAY_RUN) $(PYTHON_BIN)/python -m pytest -n 2 --dist loadfile -m "not browser and not network" tests

test-notebooks: export QT_QPA_PLATFORM := xcb
test-notebooks: export TOMOLAB_SCALE := tiny
# Entering Qt's loop in a kernel that nobody watches can hang it.
test-notebooks: export NAPARI_APPLICATION_IPY_INTERACTIVE := 0
test-notebooks: .venv/.tomolab-test  ## every notebook at its smallest scale, in a folder of its own
	@scripts/libraries.sh test
	runs=$$(mktemp -d) && trap 'rm -rf "$$runs"' EXIT && unset MPLBACKEND && TOMOLAB_RUNS=$$runs $(DISPLAY_RUN) \
	    $(PYTHON_BIN)/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=$(NOTEBOOK_TIMEOUT) notebooks

test-browser: .venv/.tomolab-test  ## the tour in JupyterLab, driven through Chromium
	@scripts/libraries.sh test
	$(PYTHON_BIN)/python -m pytest -m browser tests

# Deprecations by old packages in newer ones that they use are not ours to mend; with the newest versions they are errors.
test-oldest: OLDER := -W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning
test-oldest test-newest: export QT_QPA_PLATFORM := xcb
test-oldest test-newest: export MPLBACKEND := Agg
test-oldest test-newest: export OMP_NUM_THREADS := 1
test-oldest: .venv-oldest/.tomolab-oldest  ## the modules with the oldest versions that pyproject.toml admits (TORCH=2.13.0 holds torch)
	@scripts/libraries.sh test
	$(DISPLAY_RUN) .venv-oldest/bin/python -m pytest -n 2 --dist loadfile $(OLDER) -m "not browser and not network" tests

test-newest:  ## the modules with the newest versions of today (TORCH=2.13.0 holds torch)
	@scripts/environment.sh newest
	@scripts/libraries.sh test
	$(DISPLAY_RUN) .venv-newest/bin/python -m pytest -n 2 --dist loadfile -m "not browser and not network" tests

check: .venv/.tomolab-check .venv/.tomolab-docs  ## format, lint, types, layers, clean notebooks, documentation, licences, known vulnerabilities
	$(PYTHON_BIN)/ruff format --check .
	$(PYTHON_BIN)/ruff check .
	$(PYTHON_BIN)/mypy
	$(PYTHON_BIN)/lint-imports --no-logo
	$(PYTHON_BIN)/nbstripout --verify --keep-id notebooks/*.ipynb
	DOCS_NOTEBOOKS=off $(SPHINX)
	$(PYTHON_BIN)/python scripts/licences.py
	@$(PYTHON_BIN)/python scripts/audit.py $(AUDIT)

# All checks come first, so the last line is that of the audit.
release-check: AUDIT := --release
release-check: check  ## the same before a release: it fails where known vulnerabilities cannot be asked for

.venv-oldest/.tomolab-oldest: pyproject.toml scripts/environment.sh $(ASKED)
	@scripts/environment.sh oldest

docs: export QT_QPA_PLATFORM := xcb
docs: export OMP_WAIT_POLICY := passive
docs: .venv/.tomolab-docs  ## build the documentation in docs/_build/html; DOCS_NOTEBOOKS=off: notebooks are shown and not executed
	@scripts/libraries.sh lab
	$(if $(shell command -v xvfb-run),$(DISPLAY_RUN)) $(SPHINX)

demo: .venv/.tomolab-lab  ## execute the notebooks in order and leave a report with pictures in runs/demo
	@scripts/libraries.sh lab
	QT_QPA_PLATFORM=xcb $(if $(shell command -v xvfb-run),$(DISPLAY_RUN)) $(PYTHON_BIN)/python scripts/demo.py

bench: .venv/.tomolab-test  ## run the benchmarks, each of which writes JSON, and print one table of all
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(if $(shell command -v xvfb-run),$(DISPLAY_RUN)) $(PYTHON_BIN)/python "$$script"; done
	@$(PYTHON_BIN)/python benchmarks/summary.py

constraints: .venv/.tomolab-check  ## write constraints.txt again, keeping pins that still fit
	$(PYTHON_BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --group test --group docs --group check --no-annotate \
	    --custom-compile-command "make constraints" --output-file constraints.txt pyproject.toml

clean:  ## remove the environments and everything that tools leave behind; runs/ stays
	rm -rf .venv .venv-oldest .venv-newest .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist docs/_build docs/api docs/notebooks
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
