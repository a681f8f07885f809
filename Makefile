# make study   sets everything up and answers: how rarely can features be updated without loss?
# make test    sets everything up and passes the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TESTS_READY := $(VENV)/.tests-ready
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
LOCK = requirements/$$($(BIN)/python -c 'import sys; print("python3.11" if sys.version_info < (3, 12) else "python3.12")')
AS_SHIPPED = $$(grep -rl --include='test_*.py' mark.as_shipped tests)
# Tests start hundreds of processes, which find modules compiled, also where Python is told to keep none.
BYTECODE := PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX="$(CURDIR)/$(VENV)/bytecode"
PYTEST := $(BYTECODE) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: study test test-slow test-lowest test-nightly lint docs package bench results lock clean
.DEFAULT_GOAL := study

study: $(READY)
	$(BIN)/relin study frequency

test: $(TESTS_READY)
	sh tools/system-packages
	$(PYTEST) -m 'not as_shipped and not slow'
	$(PYTEST) -m 'as_shipped and not slow' --as-shipped $(AS_SHIPPED)

# What takes longest of the tests, for .ci/run.
test-slow: $(TESTS_READY)
	sh tools/system-packages
	$(PYTEST) -m 'slow and not as_shipped'
	$(PYTEST) -m 'slow and as_shipped' --as-shipped $(AS_SHIPPED)

# A part of the tests with the oldest versions that pyproject.toml declares, in an environment of their own.
test-lowest:
	sh tools/test-lowest $(PYTHON)

# The tests with JAX's nightly build, in an environment of their own. pip must know where JAX's builds are: its own
# settings or variables say so, as JAX's installation page tells.
test-nightly:
	$(MAKE) VENV=build/nightly build/nightly/.tests-ready
	build/nightly/bin/python -m pip install --quiet --pre --upgrade jax jaxlib
	@build/nightly/bin/python -c 'import jax, sys; sys.exit("dev" not in jax.__version__)' || \
	  { echo "pip found no nightly build of JAX; tell it where they are, as JAX's installation page says" >&2; exit 1; }
	build/nightly/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not as_shipped and not slow'

lint: $(TESTS_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(TESTS_READY)
	NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict

# The source distribution and the wheel, in dist/, and a study from the wheel in a bare environment.
package: $(TESTS_READY)
	sh tools/check-package $(BIN)/python $(LOCK).txt

bench: $(TESTS_READY)
	$(BIN)/python -m benchmarks

# Texts and tables about docs/results, from its records; with FIGURES=--figures its figures too, which takes minutes.
results: $(READY)
	$(BIN)/python -m tools.results $(FIGURES)

# One lock for Python 3.11, whose newest JAX is older, and one for later Pythons.
$(READY): pyproject.toml requirements/python3.11.txt requirements/python3.12.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "relin needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r $(LOCK).txt
	$(PIP) --no-build-isolation --no-deps -e .
	touch $@

# What the tests need beyond what a study needs: other frameworks, trackers, the documentation's tools.
$(TESTS_READY): $(READY) requirements/python3.11-tests.txt requirements/python3.12-tests.txt requirements/torch.txt \
  requirements/torch-networks.txt
	$(PIP) --require-hashes -r $(LOCK).txt -r $(LOCK)-tests.txt
	$(PIP) -r requirements/torch.txt
	$(PIP) --no-deps -r requirements/torch-networks.txt
	touch $@

lock:
	sh tools/lock

clean:
	rm -rf $(VENV) build dist src/*.egg-info
