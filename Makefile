# Every target creates the virtual environment it needs. Set its folder with VENV=DIR and the interpreter with PYTHON=python3.12.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
DEMO = results/demo
DSTRUN_BROWSER ?= .browser

.DEFAULT_GOAL := help
.PHONY: help setup slurm browser demo docs evidence test test-all lint check bench gpu-kit clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## create the virtual environment with pinned versions (several minutes, 6 GB)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(READY)

slurm: ## install SLURM on Debian or Ubuntu, as root (without it, the SLURM tests are skipped)
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge

browser: ## install Chromium on Debian or Ubuntu, as root, and axe-core with npm, for tests of the HTML report
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium
	npm install --silent --no-audit --prefix $(DSTRUN_BROWSER) axe-core@4.14.1

demo: setup ## train a run and a small sweep on the digits, print the table, draw the figure, write the HTML report
	$(BIN)/dstrun model=resnet56 sparsity=0.98 grow=gse dataset=digits epochs=20 results=$(DEMO) experiment=main wandb=offline
	$(BIN)/dstrun -m model=mlp dataset=digits method=set,rigl,gse sparsity=0.8,0.9,0.95 seed=0,1,2 epochs=20 \
		optimizer.lr=0.05 optimizer.weight_decay=0.0005 batch_size=32 results=$(DEMO) experiment=sweep wandb=disabled
	$(BIN)/dstrun table $(DEMO)
	$(BIN)/dstrun plot sparsity $(DEMO)/sweep --out $(DEMO)/sparsity.png
	$(BIN)/dstrun report $(DEMO) --out $(DEMO)/report.html
	@echo; echo "Open the report, the figure and a run's record:"
	@echo "  xdg-open $(DEMO)/report.html        # macOS: open"
	@echo "  xdg-open $(DEMO)/sparsity.png"
	@echo "  ls $(DEMO)/sweep                    # dstrun status $(DEMO)"

docs: setup ## build the documentation website in build/site
	$(BIN)/mkdocs build --strict --quiet

evidence: setup ## make all tables and figures of the results again from their records; fail if one differs
	$(BIN)/python benchmarks/evidence.py

# Hundreds of processes import the same modules: without files of bytecode each of them would compile these anew.
unexport PYTHONDONTWRITEBYTECODE
PARALLEL = -n auto --dist loadfile --no-loadscope-reorder --durations=15

test: setup ## run the tests (some minutes on two cores)
	$(BIN)/python -m pytest $(PARALLEL)

test-all: setup ## run all tests, including slow ones
	$(BIN)/python -m pytest $(PARALLEL) -m "slow or not slow"

lint: setup ## check style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

check: lint test ## run lint and test; required before a commit

bench: setup ## compare FLOPs and sizes with published values, and time start-up
	$(BIN)/python benchmarks/check_values.py
	$(BIN)/python benchmarks/startup.py

WHEELS = hydra-core omegaconf antlr4-python3-runtime submitit hydra-submitit-launcher cloudpickle
DATA ?= data
RESUME ?=

gpu-kit: ## pack what benchmarks/gpu.py needs on a machine without network into .gpu/ (DATA=DIR with CIFAR-10, RESUME=DIR of earlier results)
	rm -rf .gpu/wheels .gpu/data .gpu/resume
	mkdir -p .gpu/resume
	$(PYTHON) -m pip wheel --quiet --no-deps -c constraints.txt --wheel-dir .gpu/wheels $(WHEELS)
	$(PYTHON) benchmarks/gpu_kit.py --data '$(DATA)' --resume '$(RESUME)'

clean: ## remove the virtual environment and build files; keep results
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
