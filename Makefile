# Everything a developer does here, one command each. The environment lives in .venv and follows the lock files.

PYTHON ?= python3
COMFYUI ?=
LOCK_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --no-input --disable-pip-version-check install --no-compile --no-deps
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate --no-header

# Each stamp is written last: an install that was interrupted is done again.
WORKER := $(VENV)/.worker
PROJECT := $(VENV)/.project
DEV := $(PROJECT) $(VENV)/.dev

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test lint types bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(PROJECT) ## run two jobs on the rehearsal engine, or on a real one: make demo COMFYUI=http://127.0.0.1:8188
	@$(BIN)/python scripts/demo.py $(if $(COMFYUI),--comfyui '$(COMFYUI)')

test: lint types ## lint, types and all tests
	$(BIN)/python -m pytest

lint: $(DEV) ## style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV) ## mypy, strict
	$(BIN)/mypy

bench: $(DEV) ## run the benchmarks and print their tables
	@$(BIN)/python benchmarks/run.py

lock: $(DEV) ## write the lock files anew; LOCK_FLAGS=--upgrade moves the pins
	$(LOCK) $(LOCK_FLAGS) --group build --extra postgres --output-file requirements.lock pyproject.toml
	$(LOCK) $(LOCK_FLAGS) --group dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml

clean: ## remove the environment and everything that tools left behind
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(WORKER): requirements.lock
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "This needs Python 3.11 or newer, and '$(PYTHON)' is missing or older; name another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up $(VENV) from requirements.lock, once; it takes about half a minute."
	@"$(PYTHON)" -m venv --clear $(VENV) || \
		{ echo "'$(PYTHON)' cannot make a virtual environment; on Debian and Ubuntu, install the package python3-venv." >&2; exit 1; }
	@$(PIP) --require-hashes --requirement requirements.lock
	@touch $@

$(PROJECT): $(WORKER) pyproject.toml
	@$(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(WORKER) requirements-dev.lock
	@echo "Adding the development tools from requirements-dev.lock."
	@$(PIP) --require-hashes --requirement requirements-dev.lock
	@touch $@
