# rote: everything runs in .venv, made on first use from constraints.txt. `make` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_TRAIN := $(BIN)/rote lab train --seed 0 --threads 1 --progress plain

.PHONY: help demo demo-unique demo-repeated test test-browser test-all check bench install clean

help:
	@echo "make demo      train two small series, measure and compare them, write the report (minutes)"
	@echo "make test      the whole default test suite"
	@echo "make test-browser  the dashboard in Debian's Chromium"
	@echo "make test-all  the same, with the tests marked slow"
	@echo "make check     formatting and lint"
	@echo "make bench     speed, as ratios inside one run"
	@echo "make clean     remove the environment and what the demo wrote"

install: $(STAMP)

# torch first and alone: pip then finds it satisfied and never looks for a CUDA build.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

demo: $(STAMP)
	@$(MAKE) --no-print-directory -j2 demo-unique demo-repeated
	$(BIN)/rote run runs/unique runs/repeated -o results --save-attention
	$(BIN)/rote compare results/unique results/repeated --table
	$(BIN)/rote report results/unique results/repeated --base unique -o reports/demo
	@echo
	@echo "The report: reports/demo/report.html  (open it in a browser; it needs no network)"

demo-unique: $(STAMP)
	$(DEMO_TRAIN) runs/unique --arm unique

demo-repeated: $(STAMP)
	$(DEMO_TRAIN) runs/repeated --arm repeated --repeat-frac 0.5 --pool 64

test: $(STAMP)
	$(BIN)/python -m pytest -n 2

# A browser on a busy machine may miss a deadline: what failed is tried once more, alone.
test-browser: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m browser || $(BIN)/python -m pytest -m browser --last-failed --last-failed-no-failures none

test-all: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m "not bench"

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

bench: $(STAMP)
	for file in tests/bench/bench_*.py; do $(BIN)/python $$file || exit 1; done

clean:
	rm -rf $(VENV) runs results reports build *.egg-info
