# `make demo` and `make test` set themselves up: they make .venv and install what they need into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
CONSTRAINTS := .ci/constraints.txt
DEMO := build/demo
# Processes that run the tests, each with one torch thread (tests/conftest.py).
JOBS ?= 2
STATIC := $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/python tests/import_rules.py
# pytest cannot start where standard error is closed.
PYTEST := (: 3>&2) || exec 2>/dev/null; $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
# Types are checked beside the tests, and what mypy says is printed when both are done.
WITH_TYPES = said=$$(mktemp); $(BIN)/mypy >$$said 2>&1 & types=$$!; ( $(1) ); tests=$$?; \
	wait $$types; types=$$?; cat $$said; rm $$said; exit $$((tests + types > 0))

.PHONY: help demo check test lint types imports format bench clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*##/\t/' | expand -t 10

demo: $(VENV)/.installed  ## extract features from the speech files in the repository and show what was written
	@rm -rf $(DEMO)
	@echo "== fbank: Kaldi filter banks, no weights"
	@$(BIN)/hubcore extract tests/data/speech --upstream fbank --out $(DEMO)/fbank
	@echo
	@echo "== wav2vec2_tiny_prompts: every layer of a small bundled wav2vec 2.0, trained on two hours of speech"
	@$(BIN)/hubcore extract tests/data/speech --upstream wav2vec2_tiny_prompts --out $(DEMO)/wav2vec2_tiny_prompts
	@echo
	@echo "The features are in $(DEMO)/. Next: $(BIN)/hubcore list, $(BIN)/hubcore info wav2vec2, docs/quickstart.md"

check: $(VENV)/.installed-test  ## style, types, who may import whom, and the fast tests: under 90 seconds
	@$(STATIC)
	@$(call WITH_TYPES,$(PYTEST) -m "not slow")

test: $(VENV)/.installed-test  ## everything: check, and the slow tests: about 10 minutes on 2 cores
	@$(STATIC)
	@$(call WITH_TYPES,$(PYTEST))

lint: $(VENV)/.installed-test  ## style only
	@$(BIN)/ruff check .

types: $(VENV)/.installed-test  ## types only
	@$(BIN)/mypy

imports: $(VENV)/.installed-test  ## who may import whom only
	@$(BIN)/python tests/import_rules.py

format: $(VENV)/.installed-test  ## write the files in the project's style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.installed-test  ## speed and memory beside other systems, as docs/benchmarks.md: about two hours
	@$(BIN)/python -m tests.benchmarks

clean:  ## remove what make made
	rm -rf $(VENV) build dist

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit("hubcore needs Python 3.10 or newer: make PYTHON=python3.12 ..." if sys.version_info < (3, 10) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing hubcore into $(VENV) ..."
	@$(PIP) install --constraint $(CONSTRAINTS) --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "installing the test tools into $(VENV) ..."
	@$(PIP) install --constraint $(CONSTRAINTS) --editable '.[test]'
	@touch $@
