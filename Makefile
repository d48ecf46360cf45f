# Everything is installed below this folder: .uv/ (the installer, only where none is on the PATH)
# and .venv/ (the environment that requirements.lock describes).
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup run test test-quick test-browser lab check lint docs lock audit wheel clean clean-runs

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
# The first interpreter that is new enough; PYTHON=/path/to/python chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
# Not in requirements.lock: which build is right depends on the machine. torch.lock names the version
# of all builds, and the hashes of the usual index's.
TORCH ?= $(shell sed -n 's/^\(torch[a-z]*==[0-9.]*\).*/\1/p' torch.lock)
NOTEBOOKS := $(wildcard notebooks/*.ipynb notebooks/pipelines/*/*.ipynb)

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(STAMP)  ## make .venv with everything in it (fast when nothing changed)

run: $(STAMP)  ## run every curated notebook in batch and write an HTML report
	$(BIN)/workbench run --all --preset standard --report report

# As many tests at a time; tests/conftest.py says which of them keep together.
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder

test: $(STAMP)  ## run the tests
	$(PYTEST)

test-quick: $(STAMP)  ## run those tests that start no kernel, no MongoDB and no browser, in 2 minutes
	$(PYTEST) -m "not kernel and not browser and not long and not slow"

test-browser: $(STAMP)  ## run all tests that drive a real browser (minutes; needs chromium)
	$(BIN)/python -m pytest tests/browser -m ''

lab: $(STAMP)  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --notebook-dir=notebooks $(if $(filter 0,$(shell id -u)),--allow-root)

check: $(STAMP)  ## what CI checks before the tests: style, types, imports, clean notebooks
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/structure.py
	$(BIN)/nbstripout --verify --keep-id $(NOTEBOOKS)

lint: $(STAMP)  ## format the code, strip the notebooks, renew their badges
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/python tests/notebook_contract.py --fix
	$(if $(NOTEBOOKS),$(BIN)/nbstripout --keep-id $(NOTEBOOKS))

docs: $(STAMP)  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

# torch is resolved away here (see TORCH) and with it 3 GB of CUDA packages.
lock: | $(UV)  ## resolve the locks from pyproject.toml (UPGRADE=--upgrade: newest versions)
	printf "%s ; sys_platform == 'never'\n" torch torchvision | $(COMPILE) pyproject.toml --override - --all-extras --group dev \
		--no-emit-package pixel-workbench --no-emit-package torch --no-emit-package torchvision --output-file requirements.lock
	printf "%s\n" torch torchvision | $(COMPILE) - --constraint requirements.lock --output-file torch.lock

COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes $(UPGRADE) --no-header --no-annotate --no-emit-index-url

audit: $(STAMP)  ## look the locks up in the database of known holes (asks the index)
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock --requirement torch.lock

wheel: $(STAMP)  ## build the package into dist/
	$(UV) build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir dist
	@ls dist/*.whl

clean:  ## remove the environment, caches and what is built; run folders stay
	rm -rf .venv .uv dist report screenshots site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

clean-runs:  ## remove the run folders in runs/, with everything that they recorded
	rm -rf runs

# $(call system-package,NAME): on Debian and Ubuntu, install it where we may, else say what to do.
define system-package
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get -qq update && apt-get -qq install -y --no-install-recommends $(1) >/dev/null; \
	else echo "$(1) is missing: sudo apt-get install $(1), or your system's like." >&2; false; fi
endef

INSTALL := $(UV) pip install --quiet --compile-bytecode --python $(BIN)/python
# Builds from two places that do not fit each other install without a word and fail here.
IMPORT_TORCH := $(BIN)/python -c "import torch, torchvision; torchvision.ops.nms"
TORCH_FROM_USUAL_INDEX := $(if $(filter file,$(origin TORCH)),--require-hashes --requirement torch.lock,$(TORCH))

$(STAMP): requirements.lock torch.lock pyproject.toml | $(UV)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; PYTHON=/path/to/python names one." >&2; exit 1; }
	test -x $(BIN)/python || $(UV) venv --quiet --python "$(PYTHON)" $(VENV)
	$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@# PyTorch's own index has small builds for machines without a GPU and the right one for each GPU,
	@# each with a hash of its own: there, only the version is pinned.
	@$(INSTALL) --torch-backend=auto $(TORCH) && $(IMPORT_TORCH) || { \
		echo "Taking torch and torchvision from the usual index instead (with CUDA, 4.6 GB on Linux)." >&2; \
		$(INSTALL) --reinstall-package torch --reinstall-package torchvision $(TORCH_FROM_USUAL_INDEX) && $(IMPORT_TORCH); }
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@# The MongoDB under FiftyOne is linked with libcurl, which a minimal system lacks; without it
	@# everything else works, and FiftyOne's part of a notebook says that it is left out.
	@if ldd $(VENV)/lib/python3*/site-packages/fiftyone/db/bin/mongod 2>/dev/null | grep -q 'libcurl.*not found'; \
	then $(call system-package,libcurl4) || true; fi
	@touch $@

# Debian's python3 has venv without ensurepip until python3-venv is installed.
.uv/bin/uv:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; PYTHON=/path/to/python names one." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { $(call system-package,python3-venv); }
	$(PYTHON) -m venv --clear .uv
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock >.uv/uv.lock
	.uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement .uv/uv.lock
