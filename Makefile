# Everything goes into .venv, which each target makes when it is missing; nothing outside this folder changes.
# Another interpreter: make PYTHON=python3.12 VENV=.venv312 test

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
INSTALLED := $(VENV)/installed
PYTEST_ARGS ?=
GOLDENS ?=

# requirements.txt names the CUDA build of onnxruntime (300 MB) for every x86-64 machine, because a ComfyUI host may have
# it already; a .venv of our own takes the small CPU build unless there is an NVIDIA driver.
ONNXRUNTIME ?= $(if $(shell command -v nvidia-smi),onnxruntime-gpu,onnxruntime)

.DEFAULT_GOAL := help
.PHONY: help demo test host test-host test-install test-oldest smoke-full bench clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1: /p' $(firstword $(MAKEFILE_LIST))

demo: $(INSTALLED) ## animate the embedded tiny model: outputs/demo.mp4
	$(BIN)/choreo demo

test: $(INSTALLED) ## lint, unit tests, golden files, and the nodes where there is a ComfyUI
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest -rs $(PYTEST_ARGS)
	$(BIN)/python -m tests.host.environment test --quiet $(addprefix --ignore=tests/host/,test_server.py test_browser.py)

host: $(INSTALLED) ## an environment for ComfyUI's tests, in the user's cache folder (6.5 GB); COMFYUI_PATH names the host
	$(BIN)/python -m tests.host.environment make

test-host: host ## the nodes in every ComfyUI that COMFYUI_PATH names, a live server and a browser too
	$(BIN)/python -m tests.host.environment test $(PYTEST_ARGS)

test-install: $(INSTALLED) ## does requirements.txt leave three kinds of host as they were? (downloads gigabytes)
	$(BIN)/python -m tests.install hosts

test-oldest: $(INSTALLED) ## unit tests and golden files on the lowest versions that requirements.txt names
	$(BIN)/python -m tests.install oldest

smoke-full: $(INSTALLED) ## full-size random weights in the real layouts, a few frames on the CPU (7 GB of disk)
	$(BIN)/python -m tests.smoke_full

bench: $(INSTALLED) ## the published loops against ours: ratio, time per stage, peak memory
	$(BIN)/python -m benchmarks

clean: ## remove .venv, caches and build products; videos in outputs/ stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements.txt requirements-cli.txt requirements-train.txt requirements-dev.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || { \
	  echo "Choreo needs Python 3.10 to 3.13; name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo "Python's venv module is missing (Debian, Ubuntu: sudo apt install python3-venv), or name another Python: make PYTHON=..."; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	sed 's/^onnxruntime-gpu/$(ONNXRUNTIME)/' requirements.txt > $(VENV)/requirements.txt
	$(BIN)/pip install --quiet -c constraints.txt -r $(VENV)/requirements.txt -r requirements-cli.txt -r requirements-train.txt -r requirements-dev.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@
