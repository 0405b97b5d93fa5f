# Needs Python 3.11 or newer and make. The environment is created once, and again when pyproject.toml changes.

# 3.11 first: local wheels for an air-gapped machine are most often built for the oldest supported version.
CANDIDATES := python3.11 python3.13 python3.12 python3 python
PYTHON ?= $(shell for each in $(CANDIDATES); do \
	$$each -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$each; break; }; \
	done)
VENV ?= .venv
BIN := $(VENV)/bin
# Constraints for reproducing CI: make test CONSTRAINTS=constraints.txt
CONSTRAINTS ?=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))

# What `make demo` installs, and where it writes. To test a wheel without the files of this folder:
# make demo PACKAGE=dist/cxrreport-0.1.0-py3-none-any.whl VENV=/tmp/wheel OUT=/tmp/demo-out
PACKAGE ?= --editable .
OUT ?= demo-out

# Small models on few cores: more threads than cores, or a pool per library, make them slower.
export OMP_NUM_THREADS ?= $(shell n=$$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2); [ $$n -lt 4 ] && echo $$n || echo 4)
export TOKENIZERS_PARALLELISM ?= false
export DO_NOT_TRACK = 1

.PHONY: help demo test test-all test-lowest lint bench docs upstream clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo      the whole pipeline on phantoms, into demo-out/'
	@echo 'make test      the tests, without the slow ones'
	@echo 'make test-all  all tests'
	@echo 'make test-lowest  the tests, with the lowest versions that pyproject.toml allows'
	@echo 'make lint      style, types, import contracts'
	@echo 'make bench     every benchmark, one table each'
	@echo 'make docs      the documentation, into site/'
	@echo 'make upstream  tests that compare with other libraries, on their newest releases'

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or newer, with venv, is needed: install it, or give PYTHON=/path/to/python'; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp for each set of extras; either can be made first.
$(VENV)/.installed: $(BIN)/python pyproject.toml
	@echo 'installing cxrreport into $(VENV)'
	$(PIP) $(PACKAGE)
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml
	@echo 'installing cxrreport and the dependencies of its tests into $(VENV)'
	$(PIP) --editable '.[dev,parity]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(BIN)/python pyproject.toml
	$(PIP) --editable '.[docs]'
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/cxrreport demo --out $(OUT)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m 'not slow'

test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

# In an environment of its own. Only some tests: make test-lowest TESTS=tests/test_cli.py
LOWEST ?= .venv-lowest
TESTS ?= tests
test-lowest: $(BIN)/python
	$(BIN)/python .ci/lowest.py --venv $(LOWEST) -q -m 'not slow' $(TESTS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev
	@set -e; for each in benchmarks/*.py; do echo "== $$each"; $(BIN)/python $$each; done

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

# Newest releases in an environment of its own, without constraints and upper bounds: not part of CI.
upstream: $(BIN)/python
	$(BIN)/python .ci/upstream.py

clean:
	rm -rf build dist site .mypy_cache .ruff_cache .pytest_cache
