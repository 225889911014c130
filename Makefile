# Every recipe works in a fresh clone: it makes its own virtual environment first.
PYTHON ?= python3
VENV ?= .venv
ENGINE_VENV ?= .venv-engine
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-engine test-real lint fix golden bench clean

$(VENV)/.core: pyproject.toml constraints/core.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints/core.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.core constraints/dev.txt constraints/dev.in
	$(PIP) --constraint constraints/core.txt --constraint constraints/dev.txt --requirement constraints/dev.in
	touch $@

demo: $(VENV)/.core
	$(BIN)/python examples/demo.py

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not engine and not real and not gpu" $(ARGS)

$(ENGINE_VENV)/.engine: pyproject.toml $(wildcard constraints/*)
	test -x $(ENGINE_VENV)/bin/python || $(PYTHON) -m venv $(ENGINE_VENV)
	$(ENGINE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints/core.txt --constraint constraints/dev.txt --constraint constraints/engine.txt \
		--requirement constraints/dev.in --requirement constraints/engine.in --editable .
	touch $@

test-engine: $(ENGINE_VENV)/.engine
	$(ENGINE_VENV)/bin/python -m pytest -m engine $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: $(VENV)/.dev
	$(BIN)/python -m pytest tests/golden --golden-rewrite

bench: $(VENV)/.dev
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) $(ENGINE_VENV) demo .mypy_cache .ruff_cache .pytest_cache
