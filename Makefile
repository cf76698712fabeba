# One command per job, the same on a laptop and in CI. Needs Python 3.11 or newer and nothing else that has to be
# installed first: the tools, and PostgreSQL itself, come as Python packages into .venv (and .venv-deploy).
#
#   PYTHON=/path/to/python3.13   another interpreter (default: the first on PATH that is new enough)
#   ARGS="-k assembler -x"       further arguments for test, demo, bench and chaos
#
# pip is left to its user's own settings (index, proxy, certificates): nothing here names a host.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
ifndef PYTHON
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	if $$python -c '$(NEW_ENOUGH)' 2>/dev/null; then echo $$python; break; fi; done)
endif

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEPLOY_VENV := .venv-deploy
DEPLOY_BIN := $(DEPLOY_VENV)/bin
DEPLOY_INSTALLED := $(DEPLOY_VENV)/.installed
PIP_INSTALL := -m pip --disable-pip-version-check install --quiet

# Makes the environment $(1). Debian's python3 lacks ensurepip unless python3-venv is installed; pip from elsewhere, or
# virtualenv, can stand in for it. A folder whose interpreter does not run (half made, moved, upgraded) is made anew.
define make_venv
	@if [ -z "$(PYTHON)" ]; then \
		echo "pgbridge needs Python 3.11 or newer, and none is on PATH; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; fi
	@if ! "$(PYTHON)" -c '$(NEW_ENOUGH)' 2>/dev/null; then \
		echo "pgbridge needs Python 3.11 or newer, and $(PYTHON) is not one; name another: make PYTHON=/path/to/python3" >&2; exit 1; fi
	@if ! $(1)/bin/python -m pip --version >/dev/null 2>&1; then \
		rm -rf $(1); \
		if "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null; then "$(PYTHON)" -m venv $(1); \
		elif "$(PYTHON)" -c 'import virtualenv' 2>/dev/null; then "$(PYTHON)" -m virtualenv --quiet $(1); \
		elif "$(PYTHON)" -c 'import pip, venv' 2>/dev/null; then \
			"$(PYTHON)" -m venv --without-pip $(1) && "$(PYTHON)" -m pip --python $(1)/bin/python install --quiet pip; \
		else echo "$(PYTHON) cannot make virtual environments: install its venv module (on Debian and Ubuntu: apt-get install python3-venv), then run make again" >&2; exit 1; fi; \
	fi
endef

$(INSTALLED): pyproject.toml setup.py constraints.txt $(wildcard bridge/*/*.pyx bridge/*/*.pxi)
	$(call make_venv,$(VENV))
	@echo "installing pgbridge and its tools into $(VENV)"
	@$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Apart from .venv, because aws-sam-cli pins dozens of packages that pgbridge uses in newer versions.
$(DEPLOY_INSTALLED): infra/requirements-deploy.txt
	$(call make_venv,$(DEPLOY_VENV))
	@echo "installing the deployment checks into $(DEPLOY_VENV)"
	@$(DEPLOY_BIN)/python $(PIP_INSTALL) --requirement infra/requirements-deploy.txt
	@touch $@

.PHONY: help
help: ## print this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1	\2/p' Makefile | while IFS='	' read -r target text; do \
		printf '%-20s %s\n' "$$target" "$$text"; done

.PHONY: install
install: $(INSTALLED) ## make .venv with pgbridge, its tools and PostgreSQL

.PHONY: demo
demo: $(INSTALLED) ## run the demo: inserts, a Lambda function, a webhook, a dead letter and its replay
	@$(BIN)/pgbridge demo $(ARGS)

.PHONY: test
test: $(INSTALLED) ## run the tests
	@$(BIN)/python -m pytest $(ARGS)

.PHONY: test-long
test-long: $(INSTALLED) ## run the tests that take minutes
	@$(BIN)/python -m pytest -m long $(ARGS)

.PHONY: fuzz
fuzz: $(INSTALLED) ## feed damaged streams to the decoder: make fuzz ARGS="--seconds 600"
	@$(BIN)/python tests/unit/pgoutput/fuzz.py $(ARGS)

.PHONY: check
check: $(INSTALLED) ## check format, lint and types
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m mypy

.PHONY: bench
bench: $(INSTALLED) ## measure throughput beside pg_recvlogical
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: chaos
chaos: $(INSTALLED) ## let everything go wrong for 20 minutes, and compare what was committed with what arrived
	@PYTHONPATH=tests/faults $(BIN)/python -m chaos $(ARGS)

.PHONY: deploy-check
deploy-check: $(DEPLOY_INSTALLED) $(INSTALLED) ## check template, Terraform module and image, without an AWS account
	@SAM_CLI_TELEMETRY=0 $(DEPLOY_BIN)/sam validate --lint --template template.yaml --region us-east-1
	@$(DEPLOY_BIN)/cfn-lint template.yaml
	@if command -v terraform >/dev/null; then CHECKPOINT_DISABLE=1 terraform fmt -check -diff -recursive infra/terraform; \
		else echo "terraform is not on PATH: the module's format was not checked"; fi
	@$(BIN)/python -m pytest --quiet tests/acceptance/test_deploy_files.py

.PHONY: dist
dist: $(INSTALLED) ## build the wheel into dist/
	@rm -rf build # setuptools packs whatever an earlier build left there
	@$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist .

.PHONY: clean
clean: ## remove the environments, caches and builds
	rm -rf $(VENV) $(DEPLOY_VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .aws-sam
	find bridge -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
