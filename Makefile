# Set-up happens once, and again only when the Python or a lock file's content is another: of a
# mark's name, both are part. Times say nothing, since every checkout renews them.
# Whatever Python an environment has been made with stays, until PYTHON names another.
PYTHON ?= $(shell command -v $(BIN)/python || echo python3)
BASE ?= main

BIN := .venv/bin
version := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
checksum = $(word 1,$(shell cksum < $(1)))
STAMP := .venv/installed-$(version)-$(call checksum,requirements.lock)
DEV_STAMP := .venv/installed-dev-$(call checksum,requirements-dev.lock)

# Where it is set, every process would compile all it imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install repro studies report docs verify receipt test lint bench sweep \
  experiments lock ci-restore ci-repro ci-report ci-comment

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP)  ## Create .venv with what the pipeline needs, as locked

$(STAMP):
	@$(PYTHON) tools/supported.py
	@test ! -L .venv || { echo '.venv: is a link, and what it leads to is not installed as locked here' >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	sed -n '/^uv==/,/^ *# via/p' requirements.lock > .venv/uv.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/python -m tools.plots_template
	@touch $@

$(DEV_STAMP): $(STAMP)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.lock
	@touch $@

repro: install  ## Run the pipeline: whatever changed since the last run
	$(BIN)/dvc repro

studies: install  ## Run the studies and judge the claims: whatever changed since the last run
	$(BIN)/dvc repro evaluate
	$(BIN)/dvc --cd studies repro

# As in ci-repro below: what is not here and nothing needs stays away.
report: install  ## Write the report from what there is, and the README's headline
	$(BIN)/dvc repro --allow-missing reports/dvc.yaml || $(BIN)/dvc repro reports/dvc.yaml
	$(BIN)/python -m tools.headline
	@$(BIN)/python -m tools.stale

docs: install  ## Write docs/parameters.md from the models that validate the parameters
	$(BIN)/python -m tools.parameters

verify: install  ## Rebuild elsewhere and compare: BUDGET=small in seconds, PIPELINE=studies all of it
	@$(BIN)/python -m tools.verify $(PIPELINE) $(BUDGET)

receipt: install  ## Write what `make verify BUDGET=small` compares with
	@$(BIN)/python -m tools.verify small --write

test: $(DEV_STAMP)  ## Run all tests
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: $(DEV_STAMP)  ## Check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: install  ## Measure training's speed and print the tables
	$(BIN)/dvc repro --quiet download
	$(BIN)/python -m benchmarks.bench

sweep: install  ## Run an experiment for each value: S='l1_lambda=1e-5,1e-4 gn_groups=1,2'
	@$(BIN)/python -m tools.sweep '$(S)'

# DVC has a column for each file that a stage depends on, and no setting that leaves them out.
experiments: install  ## Compare experiments: the parameters and metrics in which they differ
	@$(BIN)/dvc exp show --only-changed --drop '[^:]*(/[^:]*|\.(lock|yaml)|models)$$'

lock: COMPILE = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
  --generate-hashes --no-header
lock:  ## Resolve the newest versions that pyproject.toml allows into the lock files
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(COMPILE) --group install --output-file requirements.lock pyproject.toml
	$(COMPILE) --group dev --constraints requirements.lock --output-file requirements-dev.lock

# What CI does beside `lint`, `test`, `verify` and `repro`, a target a step.

ci-restore: install  ## Bring back from DVC's cache what it has of the committed results
	$(BIN)/dvc checkout --allow-missing

# What is not in the cache and nothing needs stays away. If something does need it, the first try
# ends at that stage, and the second makes what is missing.
ci-repro: install  ## Run the stages that differ from the committed results, and no others
	$(BIN)/dvc repro --allow-missing || $(BIN)/dvc repro

ci-report: install  ## Write what differs from BASE (main) to build/report.md, and print it
	@$(BIN)/python -m tools.ci_report '$(BASE)'

ci-comment:  ## Put build/report.md below the pull request PR, in place of the one before
	gh pr comment '$(PR)' --body-file build/report.md --edit-last --create-if-none
