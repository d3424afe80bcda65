# The commands for every day. All run in .venv, which the first one creates.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help demo up down test test-slow test-stack lint format bench clean

help:
	@echo "make demo       draw a small synthetic COIN; collect, embed, train, compare, register, predict"
	@echo "make up         start Prefect, MLflow and workers in the background (make down: stop them)"
	@echo "make test       the test suite (make test-slow: the tests over a minute)"
	@echo "make test-stack the tests with commands, servers, workers and a browser as real processes"
	@echo "make lint       ruff, mypy, import-linter"
	@echo "make bench      the benchmarks (that of a GPU is benchmarks/gpu.py)"
	@echo "make clean      remove .venv and caches; collected data stays"

# A second call finds the stamp newer than its prerequisites, and installs nothing.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { \
	  echo "no python3.11 on the PATH; name one with: make PYTHON=... $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@echo "installing into .venv (a few minutes, once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,postgres,s3]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/coinml run --dataset mini

up: $(STAMP)
	@$(BIN)/coinml up

down: $(STAMP)
	@$(BIN)/coinml down

# With a new worker in the place of one that died, a run by files waits for ever (pytest-xdist 3.8).
test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist loadfile --max-worker-restart 0

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

test-stack: $(STAMP)
	$(BIN)/python -m pytest -m 'stack and not slow'

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	@for script in $(filter-out benchmarks/gpu.py,$(wildcard benchmarks/[a-z]*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
