# Everything that a person or a CI types. `make help` lists it.
# Needs Python 3.11 or 3.12, make and git; all else is installed into .venv.

SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python; do \
	if $$p -c 'import sys; sys.exit(not ((3,11) <= sys.version_info[:2] <= (3,12)))' 2>/dev/null; then echo $$p; break; fi; done)
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test chaos fuzz check format bench lock audit compose-secrets clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 12

$(VENV)/.run: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; name it: make PYTHON=/path/to/python3.12 demo" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing what the demo needs into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	@echo "installing what the tests need into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

demo: $(VENV)/.run ## Watch a simulated company: embedded Kafka and ClickHouse, nothing leaves the machine
	@$(BIN)/tidegauge demo $(DEMO_ARGS)

test: $(VENV)/.dev ## Run all tests; those that need real servers start them where they can be had
	@$(BIN)/python -m pytest -n 2 $(TEST_ARGS)

chaos: $(VENV)/.dev ## Faults against real servers, the long form (hours); CHAOS_ARGS="--short crash" for less
	@$(BIN)/python -m tests.chaos $(CHAOS_ARGS)

fuzz: $(VENV)/.dev ## Search for inputs that break a decoder (ten minutes)
	@$(BIN)/python -m tests.fuzz --seconds 600 $(FUZZ_ARGS)

check: $(VENV)/.dev ## Format, lint, types, import contracts, known weaknesses of dependencies
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m grafana.build --check
	@$(BIN)/python deploy/audit.py

format: $(VENV)/.dev ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(VENV)/.dev ## Run the benchmarks (minutes)
	@for b in benchmarks/*.py; do name=$$(basename $$b .py); echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done

audit: $(VENV)/.dev ## Look for known weaknesses in the locked dependencies
	@$(BIN)/python deploy/audit.py

lock: ## Lock the dependencies anew, with hashes and without addresses
	@$(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/pip install --quiet "uv>=0.9,<1"
	@for extra in "" "-dev"; do $(VENV)/lock/bin/uv pip compile pyproject.toml --extra install $${extra:+--extra dev} --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-header --quiet --output-file requirements$$extra.lock; done

compose-secrets: ## Make passwords for docker compose (.env)
	@bash deploy/secrets.sh

clean: ## Remove what was installed and built
	rm -rf $(VENV) .cache .tidegauge .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
