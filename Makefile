# make demo and make test need Python 3.11 or newer and nothing else; both make .venv on their first call.
#
#   PYTHON=python3.12 make test          another interpreter
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu make demo
#                                        on Linux, the small CPU build of torch instead of the CUDA one

PYTHON ?= python3
DEMO ?= runs/demo
TASTE ?= runs/taste
BIN := .venv/bin
SOURCES := src tests tools examples benchmarks
# Python compiles what is imported, once, and keeps it, whatever the environment says; all of what is installed would take longer than installing it.
export PYTHONDONTWRITEBYTECODE =
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo rate test test-portable check format base-model bench clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/demo.stamp ## tune the embedded model on a CPU, in minutes, and write runs/demo/report.html
	@test -f $(DEMO)/run.toml || $(BIN)/d3po init $(DEMO) --recipe demo
	$(BIN)/d3po run $(DEMO)

rate: .venv/demo.stamp ## train the embedded model to your taste: rate its pictures in your browser, from the base model on, in runs/taste
	@test -f $(TASTE)/run.toml || $(BIN)/d3po init $(TASTE) --recipe demo --feedback human
	$(BIN)/d3po run $(TASTE) --serve

# One worker more than there are cores: tests wait for browsers and for processes of their own.
test: export PYTEST_XDIST_AUTO_NUM_WORKERS ?= $(shell $(PYTHON) -c 'import os; print(1 + (os.cpu_count() or 1))')
test: .venv/dev.stamp ## run the whole test suite
	$(BIN)/python -m tools.postgresql
	$(BIN)/python -m tools.chromium
	@# what all workers import is compiled once, before them
	$(BIN)/python -c 'import d3po.run.loop, d3po.models.stable_diffusion'
	$(BIN)/python -m pytest --numprocesses=auto --dist=worksteal

test-portable: export PYTEST_XDIST_AUTO_NUM_WORKERS ?= $(shell $(PYTHON) -c 'import os; print(1 + (os.cpu_count() or 1))')
test-portable: .venv/dev.stamp ## run it as other processors would, once as each
	$(BIN)/python -m tools.processors --numprocesses=auto --dist=worksteal

check: .venv/dev.stamp ## lint, formatting, types and import rules
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

format: .venv/dev.stamp ## format the code, mend what ruff can mend, and rewrite generated docs
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/python -m tools.docs

base-model: .venv/base-model.stamp ## train the next embedded model, of 64x64 pixels, into build/ (needs npm for the drawings; a night on a CPU)
	$(BIN)/python -m tools.base_model all

bench: .venv/demo.stamp ## measure speed and memory on this machine
	$(BIN)/python -m benchmarks

clean: ## remove caches and build products; .venv, runs/ and build/ are kept
	rm -rf .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov dist
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "d3po needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1)."; \
		echo "Name another interpreter, such as: PYTHON=python3.12 make ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
		echo "'$(PYTHON)' comes without venv; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv

HINT := $(if $(TORCH_INDEX)$(filter-out Linux,$(shell uname -s)),,; on Linux this fetches torch with CUDA unless TORCH_INDEX is set, see README)

# A stamp is newer than what it was installed from, so the second call of a target installs nothing.
.venv/demo.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing d3po into .venv, once$(HINT)"
	$(PIP_INSTALL) --editable .
	@touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing d3po and its development tools into .venv, once$(HINT)"
	$(PIP_INSTALL) --editable '.[dev]'
	@touch .venv/demo.stamp $@

.venv/base-model.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable '.[base-model]'
	@touch .venv/demo.stamp $@
