# How `sam build` makes a function's package; each function's Makefile includes this and is run from the project's root
# (BuildMethod: makefile, WorkingDirectory: . in template.yaml). Two installs rather than SAM's own single one, because
# a function needs bridge.handlers and not what the reader depends on: psycopg, aiohttp and boto3 stay out. Wheels are
# picked for Lambda's Python and processor, so that neither has to be that of the machine that builds.

PYTHON ?= python3
LAMBDA_PYTHON := 3.13
LAMBDA_PLATFORM := manylinux2014_aarch64
PIP_INSTALL := "$(PYTHON)" -m pip --disable-pip-version-check install --quiet --no-compile --target "$(ARTIFACTS_DIR)"

build-%:
	$(PIP_INSTALL) --only-binary :all: --implementation cp --python-version $(LAMBDA_PYTHON) \
		--platform $(LAMBDA_PLATFORM) --platform manylinux_2_28_aarch64 --requirement functions/$(FUNCTION)/requirements.txt
	$(PIP_INSTALL) --no-deps --upgrade .
	cp functions/$(FUNCTION)/handler.py "$(ARTIFACTS_DIR)"
