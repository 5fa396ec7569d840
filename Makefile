# Two commands matter: `make demo` and `make test`. Both install all they need into this checkout first.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9

.PHONY: install demo test test-slow check bench lab lab-node lock clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit("Crossload needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	@$(BIN)/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip install --quiet --no-deps --require-hashes --python $(BIN)/python -r requirements.lock
	@$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python -e .
	@touch $@

# Azurite comes from npm. It is optional: without npm the lab goes on without it and says so.
lab-node: install
	@scripts/install-node-servers.sh

demo: install lab-node
	@$(BIN)/crossload demo

test: install lab-node
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright --level error
	@$(BIN)/lint-imports
	@$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

test-slow: install lab-node
	@$(BIN)/pytest -m slow

check: install
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && $(BIN)/pytest -q tests/unit tests/house

lab: install lab-node
	@$(BIN)/crossload lab up

lock: install
	@scripts/lock.sh

clean:
	rm -rf $(VENV) .crossload .ruff_cache .pytest_cache src/crossload/lab/node/node_modules

# make bench NAME=mover: the figures in docs/benchmarks.md, each beside a peer that gets an environment of its own.
bench: install
	@$(BIN)/python benchmarks/$(NAME).py $(ARGS)
