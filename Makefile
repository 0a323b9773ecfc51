# Paddock: every command a newcomer needs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup venv browser infra demo demo-fleet test check bench faults nightly golden histories wheels lock clean

# Caches need a home; some CI systems give an empty one.
ifeq ($(strip $(HOME)),)
export HOME := $(shell getent passwd "$$(id -u)" | cut -d: -f6)
endif

# Byte code stays out of the source folders: the demo's observer looks for every file that was not there before.
export PYTHONPYCACHEPREFIX := $(CURDIR)/build/pycache
PYTHON := .venv/bin/python
SECONDS_TEST ?= 4500

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: ## .venv with the hashed requirements; nothing to do when nothing changed
	@bash packaging/venv.sh

setup: venv ## everything this machine needs: packages, kernel, guest agent, image, Temporal server
	@.venv/bin/paddock setup

browser: ## a headless browser and Node for the tests of UI and examples, where they can be installed
	@bash packaging/browser.sh
	@bash packaging/node.sh

demo: setup ## a real agent in a real microVM, from policy to receipts (KEEP=1 leaves it running)
	@$(PYTHON) -m examples.demo

demo-fleet: setup ## a sandbox on each of four emulated clouds, from no host to the last receipt
	@$(PYTHON) -m examples.fleet

infra: ## Terraform and the checkers of infra/, where they can be installed
	@bash packaging/terraform.sh || test $$? = 3

test: setup browser infra ## the whole suite, on the same real parts
	@timeout --kill-after=60 $(SECONDS_TEST) $(PYTHON) -m pytest -m "not nightly" $(ARGS)

check: venv ## lint, format, types, import directions, golden files, Go vet: under two minutes
	@$(PYTHON) packaging/check.py

bench: setup ## the table of speed and size; writes build/bench/report.json
	@$(PYTHON) -m bench $(ARGS)

faults: setup ## seeded kills and stops on a real system: RUNS=40 SEED=... (docs/faults.md)
	@$(PYTHON) -m tests.faults --runs $(or $(RUNS),40) $(if $(SEED),--seed $(SEED)) $(ARGS)

nightly: setup browser ## the long loops: 500 fault runs, fuzzing, many sandboxes
	@PADDOCK_LOOPS=20 PADDOCK_FAULT_RUNS=500 PADDOCK_FAULT_JSON=build/faults.json $(PYTHON) -m pytest -m "nightly or kill" $(ARGS)

golden: venv ## rewrite the golden JSON Schemas; the diff is for the reviewer
	@$(PYTHON) -m tests.contracts.schemas

histories: setup ## record every workflow's history again on a real server; the diff of its commands is for the reviewer
	@$(PYTHON) -m tests.replay.record $(ARGS)

wheels: venv ## both wheels into build/wheels
	@$(PYTHON) packaging/wheels.py build/wheels

lock: venv ## compile pyproject.toml into requirements/*.txt again, with hashes
	@bash packaging/lock.sh

clean: ## remove what was made in this folder; the user's cache (~/.cache/paddock) stays
	rm -rf build dist .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
