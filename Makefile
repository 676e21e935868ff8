# ImplicitAtlas: everything runs in .venv, which the first target that needs it sets up.
#
#   make demo                   the whole job on synthetic organs; DATA=folder takes real masks
#   make test                   every check and every test
#   make bench                  timings against reference code, and docs/performance.md
#   make paper                  cells of a table of the paper: ORGAN=hippocampus TABLE=2 MINUTES=25
#                               (or TABLE=ideas, noise, amount or own)
#
# TORCH says what pip installs where .venv has no torch yet. Plain "torch==2.13.0" takes what your package index
# offers (on Linux usually the CUDA build); add pip's --index-url to choose another, for example the CPU build:
#   make setup TORCH="torch==2.13.0 --index-url ..."
# A torch that is already in .venv is kept: create .venv and install yours first, and nothing here replaces it.

PYTHON ?= python3
TORCH ?= torch==2.13.0
DATA ?=
JOBS ?= 2
ORGAN ?= hippocampus
TABLE ?= 2
MINUTES ?=
ARGS ?=

BIN := .venv/bin
SETUP := .venv/.setup-done

# pyright comes with its own JavaScript; without this it would also ask the network for newer versions.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: setup demo test lint bench paper clean

setup: $(SETUP)

$(SETUP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install $(TORCH)
	$(BIN)/python -m pip install -e ".[test]"
	touch $@

demo: setup
	$(BIN)/python -m implicit_atlas.demo $(if $(DATA),--data "$(DATA)") --output demo

lint: setup
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m pyright

# One thread a worker: the tests' arrays are small, and idle threads would compete for the cores.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

# Cells that were run are kept in experiments/results; MINUTES stops in time, and the next call goes on. ARGS takes
# further options: ARGS="--steps 1000 --seeds 2 --only conv implicit-atlas".
paper: setup
	$(BIN)/python -m experiments.$(if $(filter 2 3 4,$(TABLE)),table$(TABLE),$(TABLE)) --organ $(ORGAN) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(DATA),--data "$(DATA)") $(ARGS)
	$(BIN)/python -m experiments.report

bench: setup
	set -e; for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python "$$script"; done
	$(BIN)/python benchmarks/page.py

# Leaves .venv, which may hold a torch of the user's own choice.
clean:
	rm -rf demo build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
