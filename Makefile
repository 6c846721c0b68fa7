# Everything a developer or a CI needs. `make` alone says what there is.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
INSTALLED := .venv/.installed
TESTS := $(wildcard tests/unit tests/contract tests/simulation tests/integration tests/chaos tests/history)

# No notices about newer versions or unreachable mirrors between the lines that matter.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export PIP_QUIET := 2

.PHONY: help install services test test-fast matrix lint docs format demo bench chaos history beat clean

help:
	@echo "make install    .venv with celery_ha and everything to test and lint it"
	@echo "make test       all tests, then unit and contract tests on the oldest and newest Python and Celery"
	@echo "make test-fast  unit, contract and simulation tests on this Python"
	@echo "make lint       ruff, mypy --strict, import-linter"
	@echo "make docs       the pages as a site in build/docs, every link checked"
	@echo "make format     let ruff format the code and fix what it can"
	@echo "make demo       kill a worker and watch its tasks move   (BROKER=amqp://... STORE=zookeeper://... ARGS='...')"
	@echo "make bench      every figure beside plain Celery          (ARGS='...' are passed on)"
	@echo "make chaos      kill and freeze workers for a while      (ARGS='...' are passed on)"
	@echo "make history    judge what clients saw of their locks    (ARGS='...' are passed on)"
	@echo "make beat       kill and freeze beats for a while        (ARGS='...' are passed on)"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -e '.[demo,docs,lint,test]'
	@touch $@

services:
	@tools/services.sh

test: install services
	$(BIN)/python -m pytest -q $(TESTS) $(ARGS)
	@$(MAKE) --no-print-directory matrix

test-fast: install
	$(BIN)/python -m pytest -q $(filter-out tests/integration tests/chaos tests/history,$(TESTS)) $(ARGS)

matrix:
	$(BIN)/python tools/matrix.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

docs: install
	$(BIN)/python tools/settings.py --check
	$(BIN)/python -W ignore::DeprecationWarning -m mkdocs build --quiet --strict

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: install
	$(BIN)/python -m celery_ha.demo $(if $(BROKER),--broker '$(BROKER)') $(if $(STORE),--store '$(STORE)') $(ARGS)

bench: install services
	$(BIN)/python -m benchmarks $(ARGS)

chaos: install services
	$(BIN)/python -m tests.chaos $(ARGS)

history: install services
	$(BIN)/python -m tests.history $(ARGS)

beat: install services
	$(BIN)/python -m tests.beat $(ARGS)

clean:
	rm -rf .venv .venv-matrix build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
