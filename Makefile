# Few verbs; each works on a fresh machine. `make serve` needs nothing but Python 3.11 and this folder.

PYTHON ?= python3
BIN := .venv/bin
DATA ?= data
LISTEN ?= 127.0.0.1:11112
WORKERS ?= 0
BENCH ?= --quick
# As root on a Debian-like machine, a missing system package is installed; else the command says which.
APT := .ci/apt-install

.PHONY: install serve test check bench crash clean
.DELETE_ON_ERROR:

install: .venv/installed

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(APT) python3-venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install -qq --disable-pip-version-check --editable . --group dev
	@touch $@

serve: install
	$(BIN)/dicom-ingest serve --data $(DATA) --listen $(LISTEN) --workers $(WORKERS)

test: install
	@command -v dcmsend >/dev/null || $(APT) dcmtk
	$(BIN)/pytest --numprocesses 2 --dist loadgroup -m 'not long'

crash: install
	@command -v dcmsend >/dev/null || $(APT) dcmtk
	$(BIN)/pytest -m long

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	@command -v storescp >/dev/null || $(APT) dcmtk
	$(BIN)/python -m benchmarks $(BENCH)

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
