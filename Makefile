# The words of this project. `make` alone prints what each does.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/installed
PINS   := deploy/constraints.txt
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test lint check format bench-ingest bench-inference bench-pages bench-results bench-replay soak fuzz

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv with the node, its workers and the tools, every version pinned

# The build backend comes first and pinned like the rest: pip would otherwise fetch its newest
# release into a place of its own, where no constraint reaches.
$(STAMP): pyproject.toml $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 …" >&2; exit 1; }
	@echo "Installing into $(VENV): a few minutes the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint $(PINS) hatchling editables
	$(BIN)/pip install --quiet --constraint $(PINS) --no-build-isolation --editable '.[dev,train,worker]'
	@touch $@

demo: install ## take the sample study the whole way; results in out/demo (ARGS="--study DIR" for yours)
	$(BIN)/dicomnode demo --out out/demo $(ARGS)

test: install ## run every test; those whose servers are missing say so and are skipped
	$(BIN)/python -m pytest $(ARGS)

lint: install ## style, format, types, layers: a minute
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint ## the same, then unit and property tests: a few minutes, no servers
	$(BIN)/python -m pytest --quiet tests/unit tests/property $(ARGS)

format: install ## rewrite the code as the formatter and the safe fixes of the linter want it
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench-ingest: install ## measure receiving beside storescp, pynetdicom and Orthanc (an hour; ARGS=--quick for minutes)
	$(BIN)/python tests/bench/ingest.py $(ARGS)

bench-inference: install ## measure what the node adds to a model on a CT of 300 slices (ARGS=--quick for seconds)
	$(BIN)/python tests/bench/inference.py $(ARGS)

bench-replay: install ## measure a changed rule over 10,000 studies that were seen (about two minutes)
	$(BIN)/python tests/bench/replay.py $(ARGS)

bench-results: install ## measure what a hundred segments on a CT of 300 slices cost (ARGS=--quick for seconds)
	$(BIN)/python tests/bench/segmentation.py $(ARGS)

bench-pages: install ## measure the page with 100,000 studies: some minutes (ARGS=--postgres for PostgreSQL)
	$(BIN)/python tests/bench/pages.py $(ARGS)

soak: install ## kill the receiver 200 times while senders send, and count what was lost (ARGS="--kills 20")
	$(BIN)/python tests/soak/kills.py $(ARGS)

fuzz: install ## put 100,000 spoilt conversations to the receiver: about five minutes (ARGS="--cases 1000")
	$(BIN)/python tests/soak/fuzz.py $(ARGS)
