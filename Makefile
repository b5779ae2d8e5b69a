# Two commands do all the set-up: `make demo` and `make test`. Each target creates what it needs in .venv, once.
# Another Python goes into another place: make test PYTHON=python3.12 VENV=.venv-3.12

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Twice quiet: errors only.
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check
WHEEL_PIP := $(VENV)-wheel/bin/python -m pip --quiet --quiet --disable-pip-version-check
# What the extension is compiled from.
COMPILED := setup.py src/unhang/_core/page.py src/unhang/_core/durations.py $(wildcard src/unhang/_worker/_block.c)

.PHONY: demo test test-pure test-wheel broken sanitize check bench chaos verdict docs peers clean

demo: $(VENV)/.base
	@$(BIN)/unhang demo

# Many tests wait for processes: a third one keeps two processors busy.
test: $(VENV)/.dev
	@$(BIN)/python -m pytest -n 3

# The same tests with the blocks in plain Python. PURE_TESTS="tests/worker tests/core" leaves out all others.
test-pure: $(VENV)/.dev
	@UNHANG_PURE=1 $(BIN)/python -m pytest -n 3 $(PURE_TESTS)

# The same tests of unhang as users install it: a wheel, in a place of its own, from where nothing of src/ is imported.
test-wheel: $(VENV)-wheel/.dev
	@$(VENV)-wheel/bin/python -m pytest -n 3

# Tests whose first assertion was made to fail: each fails in time, and leaves no process. See tests/broken.py.
broken: $(VENV)/.dev
	@$(BIN)/python tests/broken.py $(BROKEN_ARGS)

# The extension under AddressSanitizer, UndefinedBehaviorSanitizer and valgrind, which have to be there.
sanitize: $(VENV)/.dev
	@$(BIN)/python tests/sanitize/run.py

check: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.peers
	@$(BIN)/python benchmarks/bench.py --json bench.json

# CHAOS_ARGS=--without-torch leaves out torch's own timers.
chaos: $(VENV)/.peers
	@$(BIN)/python benchmarks/chaos.py --json chaos.json $(CHAOS_ARGS)

# Programs that hang, and what the report says of each.
verdict: $(VENV)/.peers
	@$(BIN)/python benchmarks/verdict.py --json verdict.json

# What needs a real peer: torch itself, in this process and in others; pip and a compiler.
peers: $(VENV)/.peers
	@$(BIN)/python -m pytest -n 2 tests/peers

docs: $(VENV)/.docs
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build

# Installing removes an extension that is out of date, also where a new one cannot be built.
$(VENV)/.base: pyproject.toml $(COMPILED)
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --editable .
	@$(BIN)/python -c "import unhang.cli.main"
	@env -u UNHANG_PURE $(BIN)/python -c "from unhang._worker.implementation import WHY as why; \
		why == 'compiled' or print(f'unhang: {why}; see docs/howto/install.md')"
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@$(PIP) install 'pip>=25.1'
	@$(PIP) install --group dev
	@$(BIN)/python -c "import pytest, hypothesis, sybil, mypy, xdist, setuptools"
	@touch $@

# What an earlier build has left would be in the wheel, too.
$(VENV)-wheel/.dev: pyproject.toml $(COMPILED) $(shell find src/unhang -name '*.py' -o -name '*.jinja')
	@$(PYTHON) -m venv --clear $(VENV)-wheel
	@$(WHEEL_PIP) install 'pip>=25.1'
	@rm -rf build
	@$(WHEEL_PIP) wheel --no-deps --wheel-dir $(VENV)-wheel/dist .
	@$(WHEEL_PIP) install $(VENV)-wheel/dist/*.whl
	@$(WHEEL_PIP) install --group dev
	@$(VENV)-wheel/bin/python -c "import unhang; assert 'site-packages' in unhang.__file__, unhang.__file__"
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
	@rm -rf $(VENV) .venv .venv-* build dist docs/_build src/unhang.egg-info
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@rm -f src/unhang/_worker/_block.*.so
