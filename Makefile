# Everything that people and machines do with this repository. `make` alone shows the list.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo up down test test-unit lint format types imports bench simulate asyncapi settings lifecycle schema lock clean chaos test-kubernetes bench-bridge

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
BIN := .venv/bin
PACKAGES := libs/common libs/client libs/runtime libs/standalone \
	services/api services/engine services/scheduler-bridge services/log-relay
SOURCES := libs services tests benchmarks examples deploy
SEEDS ?= 100000
MINUTES ?= 15
WORKFLOWS ?= 200
PYTEST_ARGS ?=

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort \
	| awk -F ':.*## ' '{ printf "  \033[1m%-15s\033[0m %s\n", $$1, $$2 }'

setup: .venv/.ready ## Make .venv with everything that is needed, from hash-locked requirements

.venv/.ready: requirements/dev.txt requirements/uv.txt $(PACKAGES:%=%/pyproject.toml)
	@test -n "$(PYTHON)" || { echo "Cairn needs Python 3.11 or newer: install it, or name it with make PYTHON=/path/to/python"; exit 1; }
	@echo "Setting up .venv with $$($(PYTHON) --version) ..."
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv || { rm -rf .venv; \
	echo "Python cannot make virtual environments here: on Debian and Ubuntu install the package python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(PACKAGES:%=-e %)
	@touch $@

demo: setup ## Start the whole system, run a real workflow, show its logs and result
	@$(BIN)/python examples/demo.py

up: setup ## Start the whole system on this machine and stay in the foreground
	@$(BIN)/cairn up

down: setup ## Stop it
	@$(BIN)/cairn down

test: lint ## Check style, types and walls, then run all tests
	$(BIN)/pytest -n 3 --dist loadfile $(PYTEST_ARGS)

test-unit: setup ## The fast tests only
	$(BIN)/pytest tests/unit $(PYTEST_ARGS)

test-kubernetes: setup ## Build real Kubernetes control planes, once, and test on two of them, or on yours: KUBECONFIG=...
	@test -n "$(KUBECONFIG)" || PYTHONPATH=tests/kubernetes $(BIN)/python -m testcluster.build >/dev/null
	$(BIN)/pytest tests/kubernetes $(PYTEST_ARGS)

lint: setup ## Format check, lint, strict types, import walls
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/lint-imports

format: setup ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: setup ## Run the benchmarks; each prints a table and, last, a JSON line
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.peers

bench-bridge: setup ## What a simulated Kubernetes cluster with 1,000 nodes and 10,000 pods bears here
	PYTHONPATH=tests/kubernetes $(BIN)/python -m benchmarks.bridge

simulate: setup ## Tell many simulated stories of the engine's core: make simulate SEEDS=100000
	$(BIN)/pytest tests/simulation -n auto --seeds $(SEEDS) --timeout 0

chaos: setup ## Kill, pause and fill everything under load: make chaos MINUTES=15 WORKFLOWS=200 SEED=7
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) --workflows $(WORKFLOWS) $(if $(SEED),--seed $(SEED))

asyncapi: setup ## Write docs/asyncapi.yaml from the event catalogue
	$(BIN)/python -m cairn_common.asyncapi > docs/asyncapi.yaml

settings: setup ## Write docs/settings.md from the services' settings models
	$(BIN)/python deploy/settings_reference.py > docs/settings.md

lifecycle: setup ## Write docs/lifecycle.md from the engine's tables
	$(BIN)/python -m cairn_engine.lifecycle > docs/lifecycle.md

schema: setup ## Write docs/workflow.schema.json from the workflow language's models
	$(BIN)/python -m cairn_common.spec.schema docs/workflow.schema.json

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header $(foreach p,api bridge client common engine logs runtime standalone,--no-emit-package cairn-$(p))
lock: ## Renew the hash-locked requirements
	echo "uv==$$($(BIN)/uv --version | cut -d' ' -f2)" > requirements/uv.in
	$(LOCK) requirements/uv.in -o requirements/uv.txt
	$(LOCK) pyproject.toml -o requirements/runtime.txt
	$(LOCK) pyproject.toml --group dev -o requirements/dev.txt

clean: ## Remove what was built or cached here
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
