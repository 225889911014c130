# Every recipe works in a fresh clone: it makes its own virtual environment first.
PYTHON ?= python3
VENV ?= .venv
ENGINE_VENV ?= .venv-engine
REAL_VENV ?= .venv-real
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# What $(1) is, said before anything is made with it.
define new_enough
@$(1) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "Reelwright needs Python 3.11 or \
newer; $(1) is $$($(1) --version 2>&1 || echo not there). Name another one: make PYTHON=python3.12"; exit 1; }
endef

.PHONY: demo test test-engine test-real lint fix tree pictures golden house mutants bench clean

$(VENV)/.core: pyproject.toml constraints/core.txt
	$(call new_enough,$(PYTHON))
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints/core.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.core constraints/dev.txt constraints/dev.in
	$(PIP) --constraint constraints/core.txt --constraint constraints/dev.txt --requirement constraints/dev.in
	touch $@

demo: $(VENV)/.core
	$(BIN)/python examples/demo.py

# The tests run in half as many processes again as there are cores, because many wait for other processes; one that has no
# more takes tests from another. In one process: ARGS="-n 0".
SPREAD ?= -n $(shell echo $$((($$(nproc) * 3 + 1) / 2))) --dist worksteal

# tests/conftest.py says how much of the source the tests must cover. Without this measurement: make test COVERAGE=
COVERAGE ?= --cov --cov-report=

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(SPREAD) $(COVERAGE) -m "not engine and not real and not gpu" $(ARGS)

$(ENGINE_VENV)/.engine: pyproject.toml $(wildcard constraints/*)
	$(call new_enough,$(PYTHON))
	test -x $(ENGINE_VENV)/bin/python || $(PYTHON) -m venv $(ENGINE_VENV)
	$(ENGINE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints/core.txt --constraint constraints/dev.txt --constraint constraints/engine.txt \
		--requirement constraints/dev.in --requirement constraints/engine.in --editable .
	touch $@

test-engine: $(ENGINE_VENV)/.engine
	$(ENGINE_VENV)/bin/python -m pytest -m engine $(ARGS)

$(REAL_VENV)/.real: constraints/real.in constraints/real.txt
	test -x $(REAL_VENV)/bin/python || $(PYTHON) -m venv $(REAL_VENV)
	$(REAL_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints/real.txt --requirement constraints/real.in
	touch $@

# The official checkouts, as far as they are named: WAN21_DIR, HUNYUAN_DIR, HUNYUAN_I2V_DIR, HUNYUAN15_DIR.
REAL_NAMES := WAN21_DIR HUNYUAN_DIR HUNYUAN_I2V_DIR HUNYUAN15_DIR HUNYUAN_PYTHON
REAL_DIRS := $(strip $(foreach name,$(REAL_NAMES),$(if $($(name)),$(name)="$(abspath $($(name)))")))

test-real: $(VENV)/.dev $(if $(WAN21_DIR),$(REAL_VENV)/.real)
	@test -n '$(REAL_DIRS)' || { echo "Give an official checkout: make test-real WAN21_DIR=path/to/Wan2.1"; exit 2; }
	test -z "$(WAN21_DIR)" || tests/real/setup.sh "$(WAN21_DIR)" $(REAL_VENV)
	$(REAL_DIRS) $(BIN)/python -m pytest -m real $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What is made from the source: the list of files in docs/architecture.md, the tables of cards in README.md and docs/engine.md,
# the table of settings in docs/configuration.md.
tree: $(VENV)/.core
	$(BIN)/python -m tools.tree
	$(BIN)/python -m tools.cards
	$(BIN)/python -m tools.settings

# The moving pictures of README.md; a minute on two cores.
pictures: $(VENV)/.core
	$(BIN)/python tools/moving_picture.py
	$(BIN)/python tools/terminal.py

golden: $(VENV)/.dev
	$(BIN)/python -m pytest tests/golden --golden-rewrite

# Sizes of the source and imports between its rooms. Beside another checkout: make house TREES="../older ."
house:
	@$(PYTHON) tools/house.py $(TREES)

# Not a part of the tests: an hour. WORDS names areas or mistakes of tests/mutants/table.py.
mutants: $(VENV)/.dev
	$(BIN)/python -m tests.mutants $(WORDS)

bench: $(VENV)/.dev
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) $(ENGINE_VENV) $(REAL_VENV) demo .mypy_cache .ruff_cache .pytest_cache
