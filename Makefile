# Two commands do all the set-up: `make demo` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
TARGETS := --target onnx --target tflite --target coreml
ASSETS := smartwatch fashion mobilenet pictures sentences minilm basic-pitch silero-vad tensorflow-lite litert-arm64 onnxruntime-arm64

# pyright's Python wrapper would ask the network for a newer version.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help setup assets demo check test proofs fuzz bench clean

help:
	@echo 'make demo     set up, fetch the smartwatch data, train, compress, export, validate; prints where the report is'
	@echo 'make test     set up and run all tests'
	@echo 'make proofs   run the many cases of what the tests show once'
	@echo 'make fuzz     open N damaged files (N=2000); the campaign is N=100000'
	@echo 'make check    formatting, lint, types, layers'
	@echo 'make bench    measure what README and docs claim'
	@echo 'make assets   fetch the data of all examples'
	@echo 'make setup    make .venv and install edgekit in it, editable'
	@echo 'make clean    remove runs and caches; keeps .venv and .assets'

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

assets: setup
	$(BIN)/python examples/assets.py $(ASSETS)

demo: setup
	$(BIN)/python examples/assets.py smartwatch
	$(BIN)/python examples/smartwatch/train.py
	$(BIN)/edgekit compress examples/smartwatch/task.py --recipe int8 --output runs/watch --force
	$(BIN)/edgekit export runs/watch $(TARGETS)
	$(BIN)/edgekit validate runs/watch --device host

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

# A test whose data cannot be fetched here says so and is skipped.
test: setup
	@for asset in $(ASSETS); do $(BIN)/python examples/assets.py $$asset || echo "tests that need $$asset will be skipped"; done
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(PYTEST)

# Many cases of what the tests show once.
proofs: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m proof $(PYTEST)

# Damaged files of every format: callers live, limits hold, nothing is written elsewhere. FUZZ='--work DIR' goes on where it stopped.
N ?= 2000
fuzz: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/fuzz.py --count $(N) $(FUZZ)

bench: setup
	@for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(BIN)/python "$$benchmark" || exit 1; done

clean:
	rm -rf runs build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
