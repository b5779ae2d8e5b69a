# Two commands do all the set-up: `make demo` and `make test`. Each target creates what it needs in .venv, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Twice quiet: errors only.
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check

.PHONY: demo test check bench chaos verdict docs peers clean

demo: $(VENV)/.base
	@$(BIN)/unhang demo

test: $(VENV)/.dev
	@$(BIN)/python -m pytest -n 2

check: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.peers
	@$(BIN)/python benchmarks/bench.py --json bench.json

chaos: $(VENV)/.peers
	@$(BIN)/python benchmarks/chaos.py --json chaos.json

# Programs that hang, and what the report says of each.
verdict: $(VENV)/.peers
	@$(BIN)/python benchmarks/verdict.py --json verdict.json

# What needs a real peer: torch itself, in this process and in others.
peers: $(VENV)/.peers
	@$(BIN)/python -m pytest -n 2 tests/peers

docs: $(VENV)/.docs
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build

$(VENV)/.base: pyproject.toml
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --editable .
	@$(BIN)/python -c "import unhang.cli.main"
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@$(PIP) install 'pip>=25.1'
	@$(PIP) install --group dev
	@$(BIN)/python -c "import pytest, hypothesis, sybil, mypy, xdist"
	@touch $@

$(VENV)/.peers: $(VENV)/.dev
	@$(PIP) install --group peers --group bench
	@$(BIN)/python -c "import torch, pyperf"
	@touch $@

$(VENV)/.docs: $(VENV)/.dev
	@$(PIP) install --group docs
	@$(BIN)/python -c "import sphinx, furo, myst_parser"
	@touch $@

clean:
	@rm -rf $(VENV) build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
