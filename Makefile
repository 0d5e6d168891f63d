# Everything runs in the active virtual environment, or else in .venv, which is made and filled on first use.
VENV ?= $(or $(VIRTUAL_ENV),.venv)
PYTHON ?= python3
# The build of torch that is installed where there is none; an environment's own torch is kept.
TORCH ?= torch==2.13.0
# Processes that run the tests side by side; one thread each, as numbers are compared to the bit.
JOBS ?= 2

PY := $(VENV)/bin/python
DEEPSPEED := $(VENV)-deepspeed
READY := $(VENV)/.trellis-ready
export OMP_NUM_THREADS = 1

.PHONY: check test deepspeed browser chromium wheel gpu fast docs bench demo format snapshot clean

check: $(READY)  ## format, lint, types and house rules
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m mypy --config-file tests/house/strict.ini
	$(PY) -m pytest -q tests/house tests/api

test: $(READY)  ## every test, the slow ones too
	$(PY) -m pytest -q -n $(JOBS) --dist worksteal --durations 40

fast: $(READY)  ## every test but the slow ones
	$(PY) -m pytest -q -n $(JOBS) --dist worksteal -m "not slow"

deepspeed: export DS_ACCELERATOR = cpu
deepspeed: $(DEEPSPEED)/.trellis-ready  ## training under DeepSpeed, which only an environment of its own has
	$(DEEPSPEED)/bin/python -m pytest -q tests/zero --durations 10

browser: $(READY) chromium  ## the pages that are written, in a headless Chromium
	$(PY) -m pytest -q tests/browser

chromium:  ## a browser of the system's packages, where there is none and a root may
	for name in chromium chromium-browser google-chrome; do command -v $$name && break; done \
		|| { apt-get update -q && apt-get install -q -y --no-install-recommends chromium; }

wheel: $(READY)  ## the wheel, installed into a fresh environment, trains
	$(PY) -m scripts.wheel $(TORCH)

gpu: $(READY)  ## numbers and memory on a GPU, where there is one; then how fast it trains
	$(PY) -m pytest -q tests/gpu --durations 10
	$(PY) -m benchmarks gpu

docs: export NO_MKDOCS_2_WARNING = 1
docs: $(READY)  ## the documentation, strictly
	$(PY) -m mkdocs build --strict --quiet

bench: $(READY)  ## everything of docs/performance.md into .bench/ and docs/curves.svg (hours; BENCH="CASE… --pairs N --minutes M")
	mkdir -p .bench
	$(PY) -m benchmarks | tee .bench/paths.txt
	$(PY) -m benchmarks rollout | tee .bench/rollout.md
	$(PY) -m benchmarks startup | tee .bench/startup.md
	$(PY) -m benchmarks curves | tee .bench/curves.md
	$(PY) -m benchmarks peers --profile $(BENCH)
	$(PY) -m benchmarks table .bench/results > .bench/table.md

demo: $(READY)  ## SFT → Reward → PPO on real text
	$(VENV)/bin/trellis demo

format: $(READY)
	$(PY) -m ruff check --fix-only .
	$(PY) -m ruff format .

snapshot: $(READY)  ## store the public surface and the reference pages after a wanted change
	$(PY) -m tests.api.snapshot
	$(PY) -m scripts.reference
	$(PY) -m scripts.guides
	$(PY) -m scripts.status

clean:
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -c "import torch" 2>/dev/null || $(PY) -m pip install -q "$(TORCH)"
	$(PY) -m pip install -q -e ".[dev,docs]"
	touch $@

$(DEEPSPEED)/.trellis-ready: $(READY)
	test -x $(DEEPSPEED)/bin/python || $(PY) -m venv $(DEEPSPEED)
	$(PY) -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
		$$($(DEEPSPEED)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/main.pth
	$(DEEPSPEED)/bin/python -m pip install -q -e ".[deepspeed]"
	touch $@
