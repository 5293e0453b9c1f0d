# Two commands for users: `make demo` and `make test`. Needs python3 (>= 3.11), make and the package registry.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints/dev.txt
# Both sets are tested with this torch. It goes first and alone: installed as a dependency of something else,
# pip may pick another build of it.
TORCH ?= torch==2.13.0
# A worker takes up to 2.5 GB.
WORKERS ?= 2
# Of pytest, for the tests that only compute.
CHOICE ?=
BIN := $(VENV)/bin
SHARED = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(CHOICE) \
	-m "not (network or browser or alone or slow)"
READY := $(VENV)/.ready-$(notdir $(CONSTRAINTS))

.PHONY: demo test test-fast fuzz soak check format bench-small clean

demo: $(READY)
	$(BIN)/scope-ltx serve --model small

# Two processes share the tests that only compute, with one thread of PyTorch's each. Tests that measure have the machine
# for themselves afterwards, and a process whose memory no show on the network has stirred; then those that pace
# themselves by the wall clock.
test: test-fast
	$(BIN)/python -m pytest -m "(network or browser) and not slow"

# Without those that need a network or a browser.
test-fast: $(READY)
	$(SHARED)
	$(BIN)/python -m pytest $(CHOICE) -m "alone and not (network or browser or slow)"

# The property tests with examples that no run has had before.
fuzz: $(READY)
	$(SHARED) --hypothesis-profile=explore -m "hypothesis and not (network or browser or alone or slow)"

# A show of three minutes with a camera, prompts and viewers that come and go; half an hour of it with
# SCOPE_LTX_SOAK_SECONDS=1800. docs/reliability.md has the result.
soak: $(READY)
	$(BIN)/python -m pytest -m slow -s tests/test_soak.py

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-small: $(READY)
	$(BIN)/python -m benchmarks.small

clean:
	rm -rf $(VENV) build dist

$(READY): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "scope-ltx needs Python 3.11 or newer, this is " + sys.version'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev]'
	touch $@
