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
# What the address of CI's remote begins with, if it needs an extra.
EXTRAS ?= $(filter s3 ssh,$(firstword $(subst :, ,$(REMOTE))))
extra_stamp = $(if $(filter s3 ssh,$(1)),.venv/installed-$(1)-$(call checksum,requirements-$(1).lock),\
  $(error EXTRAS: got $(1), allowed: s3 ssh))
EXTRA_STAMPS := $(foreach extra,$(EXTRAS),$(call extra_stamp,$(extra)))
AUDIT_STAMP := .venv/installed-audit-$(call checksum,requirements-audit.lock)

# Where it is set, every process would compile all it imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install repro studies report docs push pull verify receipt test torture lint bench sweep \
  experiments lock audit sbom ci-restore ci-save ci-repro ci-report ci-comment

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) $(EXTRA_STAMPS)  ## Create .venv with what the pipeline needs, and EXTRAS='s3 ssh', as locked

$(STAMP):
	@$(PYTHON) tools/supported.py
	@test ! -L .venv || { echo '.venv: is a link, and what it leads to is not installed as locked here' >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	sed -n '/^uv==/,/^ *# via/p' requirements.lock > .venv/uv.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/python -m tools.plots_template
	@touch $@

# These hold what they need beside requirements.lock, and so change nothing of it.
$(DEV_STAMP) $(AUDIT_STAMP) $(EXTRA_STAMPS): $(STAMP)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes \
	  -r requirements-$(word 2,$(subst -, ,$(@F))).lock
	@touch $@

repro: install  ## Run the pipeline: whatever changed since the last run
	$(BIN)/dvc repro

studies: install  ## Run the studies and judge the claims: whatever changed since the last run
	$(BIN)/dvc repro evaluate
	$(BIN)/dvc --cd studies repro

register: install  ## Register the claims on STUDIES='groups l1': commit that, then run them
	@$(BIN)/python -m tools.register $(STUDIES)

# As in ci-repro below: what is not here and nothing needs stays away.
report: install  ## Write the report from what there is, and the README's headline
	$(BIN)/dvc repro --allow-missing reports/dvc.yaml || $(BIN)/dvc repro reports/dvc.yaml
	$(BIN)/python -m tools.headline
	@$(BIN)/python -m tools.stale

docs: install  ## Write docs/parameters.md from the models that validate the parameters
	$(BIN)/python -m tools.parameters

push: install  ## Send to DVC's remote whatever was run, here or elsewhere, and what came of it
	@$(BIN)/python -m tools.share push

pull: install  ## Fetch that, and check out the results of the present commit
	@$(BIN)/python -m tools.share pull

verify: install  ## Rebuild elsewhere and compare: BUDGET=small in seconds, PIPELINE=studies all of it
	@$(BIN)/python -m tools.verify $(PIPELINE) $(BUDGET)

receipt: install  ## Write what `make verify BUDGET=small` compares with
	@$(BIN)/python -m tools.verify small --write

# Many of them wait for something: one process more than there are cores.
test: $(DEV_STAMP) $(AUDIT_STAMP)  ## Run all tests
	$(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder \
	  --numprocesses $(shell $(PYTHON) -c 'import os; print(1 + (os.cpu_count() or 1))')

torture: $(DEV_STAMP)  ## Inject many faults of every kind, and print what came of them
	TORTURE=1 $(BIN)/python -m pytest --numprocesses auto tests/faults

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
# What another lock has is left out, with the remark that it has been.
MORE = $(COMPILE) --constraints requirements.lock \
  $$(sed -n 's/^\([^ =]*\)==.*/--no-emit-package \1/p' requirements.lock)
lock:  ## Resolve the newest versions that pyproject.toml allows, and verify the results with them
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(COMPILE) --group install --output-file requirements.lock pyproject.toml
	$(MORE) --group dev --output-file requirements-dev.lock
	for extra in s3 ssh audit; do $(MORE) --constraints requirements-dev.lock --group $$extra \
	  --output-file requirements-$$extra.lock || exit; done
	for more in dev s3 ssh audit; do sed -i.old '/^#/d' requirements-$$more.lock || exit; done
	rm requirements-*.lock.old
	$(MAKE) verify BUDGET=small

audit: $(AUDIT_STAMP)  ## Ask a database for known vulnerabilities of what the lock files hold
	@$(BIN)/python -m tools.audit

sbom: $(AUDIT_STAMP)  ## Write a bill of materials of requirements.lock, build/sbom.json (CycloneDX)
	@mkdir -p build
	@$(BIN)/cyclonedx-py requirements --output-reproducible --pyproject pyproject.toml \
	  --output-file build/sbom.json requirements.lock

# What CI does beside `lint`, `test`, `verify` and `repro`, a target a step.

# What does not come is made again.
ci-restore: install  ## Bring back committed results: from REMOTE where it is set, and DVC's cache
ifneq ($(REMOTE),)
	@$(BIN)/dvc remote add --local --force --default ci "$$REMOTE"
	@$(BIN)/dvc remote modify --local ci verify true
	-$(BIN)/python -m tools.share pull
endif
	$(BIN)/dvc checkout --allow-missing

ci-save: install  ## Send what has been run to REMOTE, where it is set
	$(if $(REMOTE),$(BIN)/python -m tools.share push)

# What is not in the cache and nothing needs stays away. If something does need it, the first try
# ends at that stage, and the second makes what is missing.
ci-repro: install  ## Run the stages that differ from the committed results, and no others
	$(BIN)/dvc repro --allow-missing || $(BIN)/dvc repro

ci-report: install  ## Write what differs from BASE (main) to build/report.md, and print it
	@$(BIN)/python -m tools.ci_report '$(BASE)'

ci-comment:  ## Put build/report.md below the pull request PR, in place of the one before
	gh pr comment '$(PR)' --body-file build/report.md --edit-last --create-if-none
