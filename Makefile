# Set-up happens once, and again only when a lock file has other content: of a mark's name, its
# checksum is part. Times say nothing, since every checkout renews them.
PYTHON ?= python3
BASE ?= main

BIN := .venv/bin
checksum = $(word 1,$(shell cksum < $(1)))
STAMP := .venv/installed-$(call checksum,requirements.lock)
DEV_STAMP := .venv/installed-dev-$(call checksum,requirements-dev.lock)

# Where it is set, every process would compile all it imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install repro studies report verify receipt test lint bench lock ci-report

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP)  ## Create .venv with what the pipeline needs, as locked

$(STAMP):
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.version_info < (3, 11) and \
	  sys.exit("error: $(PYTHON) is Python " + v + ", allowed: 3.11 or later (make PYTHON=...)")'
	@$(PYTHON) -c 'import platform as p, sys; s = p.system() + " " + p.machine(); \
	  s in ("Linux x86_64", "Linux aarch64", "Darwin arm64") or \
	  sys.exit("error: got " + s + ", allowed: Linux x86_64, Linux aarch64 or Darwin arm64 (macOS)")'
	$(PYTHON) -m venv --clear .venv
	sed -n '/^uv==/,/^ *# via/p' requirements.lock > .venv/uv.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@touch $@

$(DEV_STAMP): $(STAMP)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.lock
	@touch $@

repro: install  ## Run the pipeline: whatever changed since the last run
	$(BIN)/dvc repro

studies: install  ## Run the studies and judge the claims: whatever changed since the last run
	$(BIN)/dvc repro studies/dvc.yaml

report: install  ## Bring everything up to date, write the report and the README's headline
	$(BIN)/dvc repro reports/dvc.yaml
	$(BIN)/python -m tools.headline

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

lock: COMPILE = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
  --generate-hashes --no-header
lock:  ## Resolve the newest versions that pyproject.toml allows into the lock files
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(COMPILE) --group install --output-file requirements.lock pyproject.toml
	$(COMPILE) --group dev --constraints requirements.lock --output-file requirements-dev.lock

ci-report: install  ## Print, as Markdown, how parameters and metrics differ from BASE (main)
	@printf '## Parameters, against %s\n\n' '$(BASE)'
	@$(call table,params)
	@printf '\n## Metrics, against %s\n\n' '$(BASE)'
	@$(call table,metrics)

# Where nothing has changed, DVC prints the two lines of a table's head, or nothing at all.
table = rows=$$($(BIN)/dvc $(1) diff --md '$(BASE)') && \
  if [ "$$(printf '%s\n' "$$rows" | grep -c '^|')" -gt 2 ]; then printf '%s\n' "$$rows"; \
  else echo 'no change'; fi
