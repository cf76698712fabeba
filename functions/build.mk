# How `sam build` makes a function's package; each function's Makefile includes this and is run from the project's root
# (BuildMethod: makefile, WorkingDirectory: . in template.yaml). Rather than SAM's own way, because a function needs
# bridge.handlers and not what the reader depends on: psycopg, aiohttp and boto3 stay out. Wheels are picked for Lambda's
# Python and processor, so that neither has to be that of the machine that builds.

PYTHON ?= python3
LAMBDA_PYTHON := 3.13
LAMBDA_PLATFORM := aarch64

build-%:
	"$(PYTHON)" -m pip --disable-pip-version-check install --quiet --no-compile --target "$(ARTIFACTS_DIR)" \
		--only-binary :all: --implementation cp --python-version $(LAMBDA_PYTHON) \
		--platform manylinux2014_$(LAMBDA_PLATFORM) --platform manylinux_2_28_$(LAMBDA_PLATFORM) \
		--requirement functions/$(FUNCTION)/requirements.txt
	mkdir -p "$(ARTIFACTS_DIR)/bridge/handlers"
	cp bridge/__init__.py bridge/py.typed "$(ARTIFACTS_DIR)/bridge"
	cp bridge/handlers/*.py "$(ARTIFACTS_DIR)/bridge/handlers"
	cp functions/$(FUNCTION)/handler.py "$(ARTIFACTS_DIR)"
