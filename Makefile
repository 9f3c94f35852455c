# byrote: everything runs in .venv, made on first use from constraints.txt. `make` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
LIBRARIES := $(VENV)/.libraries
FILES := $(VENV)/.files
STAMP := $(VENV)/.installed

.PHONY: help demo real real-training docs test test-browser test-processes test-ray test-all check bench torture install clean FORCE

help:
	@echo "make demo      train 20 small models on four kinds of data, measure and compare them, write the report (minutes)"
	@echo "make real      fetch SmolLM2-135M (90 MB), measure it, check the numbers without byrote, write docs/case-studies (25 minutes of one core)"
	@echo "make real-training  train it further on unique, repeated and self-written text, measured meanwhile (20 minutes of one core a seed: seeds=3)"
	@echo "make docs      the site of documents, in build/site; installs Sphinx on first use, then needs no network"
	@echo "make test      the default test suite"
	@echo "make test-browser  the dashboard in Debian's Chromium"
	@echo "make test-processes  the package installed, the notebooks, servers and sweeps that are killed"
	@echo "make test-ray  a Ray cluster of several nodes on this machine; installs Ray (80 MB to fetch, 240 MB on disk)"
	@echo "make test-all  the same, with the tests marked slow"
	@echo "make check     formatting, lint and types"
	@echo "make torture   power cuts, full disks and hostile files for two minutes; seconds=3600 for an hour (SECURITY.md)"
	@echo "make bench     speed, as ratios inside one run"
	@echo "make clean     remove the environment and what the demo wrote"

install: $(STAMP)

# The libraries, when a pin changes. torch first and alone, so that one variable chooses its build: PyPI's wheel for Linux
# brings CUDA libraries along (gigabytes); where an index serves a CPU wheel, name that index:
#   make install TORCH_INDEX=URL
# `make install LOCKED=1` takes no file whose hash is not in the locks, torch apart (Linux on x86-64).
$(LIBRARIES): pyproject.toml constraints.txt requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifdef LOCKED
	$(PIP) install -q --require-hashes --no-deps -r requirements-build.lock
	$(PIP) install -q --require-hashes --no-deps --no-build-isolation -r requirements.lock
	$(PIP) install -q -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(PIP) install -q --no-deps --no-build-isolation -e . -C editable_mode=strict
else
	$(PIP) install -q -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(PIP) install -q -c constraints.txt setuptools -e ".[dev]" -C editable_mode=strict
endif
	touch $@

# byrote itself, when a file was added, moved or removed: a strict editable install links every file by name.
$(STAMP): $(LIBRARIES) $(FILES)
	$(PIP) install -q --no-deps --no-build-isolation -e . -C editable_mode=strict
	touch $@

$(FILES): FORCE
	@mkdir -p $(VENV)
	@find app checkpoints interp probes -type f ! -name '*.pyc' | sort > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi
FORCE:

# Four arms, five seeds each (checkpoints/lab/grids/demo.toml). Ended at any moment, the same command resumes.
DEMO_PROBES := induction previous_token offset_profile composition repeat_loss held_out_loss inducible_loss mem_gap
demo: $(STAMP)
	$(BIN)/byrote lab train runs/demo --grid demo
	$(BIN)/byrote run 'runs/demo/*/d32/seed*' -o runs/demo/results --jobs 2 --save-attention $(DEMO_PROBES:%=-p %)
	$(BIN)/byrote report runs/demo/results --base control --figures -o reports/demo
	@echo
	@echo "The report: reports/demo/report.html  (open it in a browser; it needs no network)"
	@echo "Press play: $(BIN)/byrote dashboard runs/demo/results"

# A pretrained model from PyPI, through everything; the same command resumes where it was stopped. Probes are measured in steps
# of their own, the most expensive last, so that results can be viewed in the meantime.
REAL := runs/real
REAL_RUN = $(BIN)/byrote run $(REAL)/SmolLM2-135M-Instruct.Q4_1.gguf -o $(REAL)/results --sequences 16 --trace $(REAL)/trace.jsonl \
  --text $(REAL)/pages.txt --members $(REAL)/known_texts.txt --twins $(REAL)/new_texts.txt
real: $(STAMP)
	$(BIN)/python tests/real/fetch_smollm2.py $(REAL)
	$(REAL_RUN) -p induction -p repeat_loss -p held_out_loss
	$(REAL_RUN) -p extraction
	$(REAL_RUN) -p load_bearing
	$(REAL_RUN) -p default --save-attention
	$(REAL_RUN) -p pruned_memory -p pruned_heads
	$(BIN)/byrote report $(REAL)/results --figures -o reports/real
	$(BIN)/python tests/real/open_dashboard.py $(REAL)/results
	$(BIN)/python tests/real/check_smollm2.py $(REAL)
	$(BIN)/python tests/real/smollm2_page.py $(REAL)
	@echo
	@echo "What came out: docs/case-studies/smollm2.md. The report: reports/real/report.html"

# The same model trained further on three kinds of text, and measured by byrote.Monitor; stopped at any moment, the same command
# resumes. A processor without bfloat16 trains faster with options=--float32.
seeds ?= 1
real-training: $(STAMP)
	$(BIN)/python tests/real/fetch_smollm2.py $(REAL)
	$(BIN)/python tests/real/train_smollm2.py $(REAL) --seeds $(seeds) $(options)
	$(BIN)/python tests/real/training_page.py $(REAL)
	@echo
	@echo "What came out: docs/case-studies/training.md. The runs: $(BIN)/byrote dashboard $(REAL)/training/results"

# Sphinx is an extra of its own (70 MB on disk). Every warning is an error.
DOCS_TOOLS := $(VENV)/.docs
$(DOCS_TOOLS): $(LIBRARIES)
	$(PIP) install -q -c constraints.txt sphinx myst-parser furo
	touch $@
docs: $(STAMP) $(DOCS_TOOLS)
	$(BIN)/python -m sphinx -W --keep-going -q -b html -d build/doctrees docs build/site
	@echo "build/site/index.html"

# Tests start byrote in hundreds of processes: its bytecode is cached, whatever the environment says.
test test-browser test-processes test-ray test-all torture: export PYTHONDONTWRITEBYTECODE =

# A file stays with one process, which makes its fixtures once; tests/conftest.py puts the long files first.
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Processes and browsers on a busy machine may miss a deadline: what failed is tried once more, alone, and both tries are printed.

# What takes seconds to start, by the files it is in: the others need not be imported.
PROCESSES := -m processes $$(grep -rl --include='test_*.py' 'mark\.processes' tests)
test-processes: $(STAMP) $(DOCS_TOOLS)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PROCESSES) || $(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(PROCESSES)

# Ray takes 240 MB on disk, and one test file needs it: it is installed here alone, beside what the other tests need.
RAY := ray==2.60.0
test-ray: $(STAMP)
	$(PIP) install -q -c constraints.txt "$(RAY)"
	$(BIN)/python -m pytest -m processes tests/checkpoints/test_clusters.py

test-browser: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m browser || $(BIN)/python -m pytest -m browser --last-failed --last-failed-no-failures none

# Type checks at run time reach private functions too: tests/type_checks.py.
test-all: export CHECK_ALL = 1
test-all: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m "not bench and not torture"

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m mypy

# Bounded in time and drawn by a seed, which is printed: `make torture seconds=3600 seed=7`. One case of it again:
# `make torture seed=7 only=test_power_cut case=31`.
seconds ?= 120
seed ?= $(shell date +%s)
torture: $(STAMP)
	TORTURE_S=$(seconds) TORTURE_SEED=$(seed) TORTURE_CASE=$(case) \
	  $(BIN)/python -m pytest -n 2 --dist worksteal -m torture tests/torture tests/checkpoints/test_lint.py $(if $(only),-k "$(only)")

bench: $(STAMP)
	for file in tests/bench/bench_*.py; do $(BIN)/python $$file || exit 1; done

clean:
	rm -rf $(VENV) runs results reports build *.egg-info
