# Two commands for everybody: `make run` and `make test`. The rest is for those who change the code.
# Needs Python 3.11 or newer and make; everything else goes into .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
JOBS   ?= auto
ARGS   ?=

CORE_TESTS := $(foreach part,elections log membership options progress quorum reads replication snapshots stability \
  scenarios,$(wildcard tests/unit/test_raft_$(part).py)) raft/core

.PHONY: run test quick cover check format clean

run: $(VENV)/.run       ## a fault-injected run of the reference Raft in the simulator, checked
	$(BIN)/splitbrain run $(ARGS)

test: $(VENV)/.dev      ## the whole test suite; what the machine lacks is skipped and named
	$(BIN)/python -m pytest -n $(JOBS) -m "not system" $(ARGS)
	$(BIN)/python -m pytest -m system $(ARGS) tests/system

quick: $(VENV)/.dev     ## the tests that take seconds
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow and not system" $(ARGS)

cover: $(VENV)/.dev     ## the protocol core's own tests reach every branch of it
	$(BIN)/python -m pytest -n $(JOBS) -q -m "not slow" --cov=raft.core --cov-branch --cov-fail-under=100 \
	  --cov-report=term-missing:skip-covered $(CORE_TESTS)

check: $(VENV)/.dev     ## static checks: style, types, architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "splitbrain needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "python3 -m venv failed; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

$(VENV)/.run: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@ $(VENV)/.run
