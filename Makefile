# make nano    the whole nano recipe, from an empty folder to a published release
# make test    format, lint, types, unit tests and an end-to-end run
# make sweep   the nano recipe with three seeds per student; what it shares with `make nano` is not made again
# All make .venv and install into it first. PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints/cpu.txt

.PHONY: nano sweep test format docs clean

nano: $(VENV)/installed
	$(BIN)/hubkit recipe run recipes/nano/recipe.yaml

sweep: $(VENV)/installed
	$(BIN)/hubkit recipe run recipes/nano/recipe.yaml --set students.seeds=[0,1,2]

test: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/installed-dev
	$(BIN)/python docs/make_cli_reference.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "hubkit needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The marker is newer than what it was installed from, so a changed dependency installs again.
$(VENV)/installed: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e '.[dev]'
	@touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) runs
