# make study   sets everything up and answers: how rarely can features be updated without loss?
# make test    sets everything up and passes the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: study test lint docs bench lock clean
.DEFAULT_GOAL := study

study: $(READY)
	$(BIN)/relin study frequency

test: $(READY)
	sh tools/system-packages
	$(BIN)/python -m pytest $(WORKERS) -m 'not as_shipped'
	$(BIN)/python -m pytest $(WORKERS) -m as_shipped --as-shipped

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(READY)
	NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict

bench: $(READY)
	$(BIN)/python -m benchmarks

# One lock for Python 3.11, whose newest JAX is older, and one for later Pythons.
$(READY): pyproject.toml requirements/python3.11.txt requirements/python3.12.txt requirements/torch.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "relin needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes \
	  -r requirements/$$($(BIN)/python -c 'import sys; print("python3.11" if sys.version_info < (3, 12) else "python3.12")').txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements/torch.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

lock:
	sh tools/lock

clean:
	rm -rf $(VENV) build dist src/*.egg-info
