# make demo   sets everything up and shows a build held in its own session
# make test   sets everything up and runs all checks
PYTHON ?= python3
BIN := .venv/bin
# one more than there are cores: a third of a test is waiting
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(1 + (os.cpu_count() or 1))')

.PHONY: demo test lint bench clean

demo: .venv/installed
	@$(BIN)/python demo.py

test: .venv/developed lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: .venv/developed
	$(BIN)/python -m migrator.render --check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/python benchmarks/table.py
	$(BIN)/python benchmarks/shadow.py
	$(BIN)/python benchmarks/evidence.py
	$(BIN)/python benchmarks/server.py
	$(BIN)/python benchmarks/sessions.py

clean:
	rm -rf .venv .clients dist

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "instar-hooks needs Python 3.10 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "this Python has no venv module: install it (Debian: python3-venv)"; exit 1; }

.venv/installed: .venv/bin/python pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/developed: .venv/bin/python pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ .venv/installed
