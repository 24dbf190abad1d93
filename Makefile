PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH_TEXT ?= time-machine
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

BUILD_INPUTS := pyproject.toml constraints.txt CMakeLists.txt $(wildcard src/gatewise/kernels/native/*)

.PHONY: setup demo test check docs sanitize bench clean

setup: $(VENV)/.ready

# Also rebuilds the native kernels when one of their sources has changed.
$(VENV)/.ready: $(BUILD_INPUTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	$(BIN)/gatewise doctor
	touch $@

demo: setup
	$(BIN)/gatewise train language-model python-topics --config examples/demo.toml --out runs/demo --overwrite $(DEMO_OPTIONS)
	$(BIN)/gatewise generate runs/demo --prompt "The " --length 400 --temperature 0.7 --seed 1

test: setup
	$(BIN)/pytest -n 2

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# The generated parts of the documentation.
docs: setup
	$(BIN)/python -m gatewise.interchange.conventions_page docs/conventions.md

# The native tests under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer; needs GCC or Clang only.
sanitize:
	$(MAKE) -j 2 -C tests/kernels/native sanitize

# Brings the peers first (extra `bench`).
bench: setup
	$(BIN)/pip install --quiet --editable '.[dev,bench]'
	$(BIN)/python bench/layers.py --precision float32 --threads 2
	$(BIN)/python bench/layers.py --precision float32 --threads 1
	$(BIN)/python bench/layers.py --precision bf16 --threads 2 --rounds 3
	$(BIN)/python bench/layers.py --cell lstm --precision float32 --threads 2 --rounds 3
	$(BIN)/python bench/layers.py --cell rnn --precision float32 --threads 2 --rounds 3
	$(BIN)/python bench/rows.py
	$(BIN)/python bench/streaming.py
	$(BIN)/python bench/neighbour.py
	$(BIN)/python bench/memory.py
	$(BIN)/python bench/growth.py
	$(BIN)/python bench/jobs.py --text $(BENCH_TEXT)
	$(BIN)/python bench/pictures.py

clean:
	rm -rf $(VENV) build dist runs .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
