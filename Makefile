# make nano      the whole nano recipe, from an empty folder to a published release
# make test      format, lint, types, unit tests and an end-to-end run, on two cores
# make test-all  those and the slow tests. Beyond pip: apt install chromium bubblewrap slurm-wlm munge nodejs npm
# make sweep     the nano recipe with three seeds per student; what it shares with `make nano` is not made again
# make smol      a real model on real problems: fetches 100 MB, then some hours on two cores with AMX; 70 minutes with SEEDS=[0]
# make docs      the files of docs/ that are generated from the code: cli.md, keys.md, recipe.schema.json
# make picture   the pictures of README and docs/, from what `make sweep` made
# make site      the documentation as a website, in site/
# All make .venv and install into it first. PYTHON=python3.12 chooses another interpreter, WORKERS=4 the number of
# processes that tests run in.

PYTHON ?= python3
# One more than two cores: for a quarter of its time a process waits, for a server, a browser or a deadline.
WORKERS ?= 3
SEEDS ?= [0,1,2]
VENV := .venv
# What is compiled once is not compiled again by the hundreds of processes that tests start.
unexport PYTHONDONTWRITEBYTECODE
BIN := $(VENV)/bin
CONSTRAINTS := constraints/cpu.txt
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c $(CONSTRAINTS)
# The tests of a file run in one process; the longest files begin (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: nano sweep smol picture check test test-all format docs site clean

nano: $(VENV)/installed
	$(BIN)/hubkit recipe run recipes/nano/recipe.yaml

sweep: $(VENV)/installed
	$(BIN)/hubkit recipe run recipes/nano/recipe.yaml --set students.seeds=[0,1,2]

smol: $(VENV)/installed
	test -f recipes/smol/data/SmolLM2-135M-Instruct/tokenizer.json || $(BIN)/python recipes/smol/prepare.py
	test -f recipes/smol/data/compressor/tokenizer.json || $(BIN)/python recipes/smol/compressor.py
	$(BIN)/hubkit recipe run recipes/smol/recipe.yaml --set students.seeds=$(SEEDS)

picture: sweep $(VENV)/installed-dev
	$(BIN)/python docs/make_pictures.py

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --num-workers $(WORKERS)

test: check
	$(PYTEST)

test-all: check
	$(PYTEST) -m 'slow or not slow'

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/installed-dev
	$(BIN)/python docs/make_reference.py

site: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "hubkit needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The marker is newer than what it was installed from, so a changed dependency installs again.
$(VENV)/installed: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	@echo "Installing into $(VENV): PyTorch and some 140 other packages, several GB. pip says how far it is."
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	@echo "Installing into $(VENV): PyTorch and some 190 other packages, several GB. pip says how far it is."
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-docs: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(PIP_INSTALL) -e '.[docs]'
	@touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) runs site
