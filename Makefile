# Needs Python 3.11 or newer with its venv module, and make. Everything else goes into .venv.
PYTHON ?= python3
BIN = .venv/bin
INSTALLED = .venv/.installed
EXTRAS = demo,dashboard

.PHONY: help demo test storm storm-peers lint docs bench bench-check clean model audit

help:
	@echo "make demo   see streamq at work (starts a server of its own if none is named by REDIS_URL)"
	@echo "make test   run all tests"
	@echo "make storm  run the fault tests that give figures in their long form (half an hour), and keep them"
	@echo "make storm-peers  put other queues through the same storm, and keep what they lost (three quarters of an hour)"
	@echo "make model  run 50,000 random steps beside a plain model (about a quarter of an hour)"
	@echo "make audit  ask whether a dependency has a known weakness"
	@echo "make lint   check style, types, layers, the Lua scripts and the documentation's links"
	@echo "make docs   build the documentation as a site, into site/"
	@echo "make bench  measure everything and draw the plots (about a quarter of an hour)"
	@echo "make bench-check  compare with the committed baseline (half a minute)"
	@echo "make clean  remove the virtual environment and all caches"

demo: $(INSTALLED)
	@$(BIN)/python -m streamq.demo

# A machine that others use too may stall a process for seconds, and these tests watch real clocks: one that fails is run
# again, and told as RERUN in the summary.
test: $(INSTALLED)
	@echo "== tests of the parts, and of all parts together =="
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --ignore tests/faults --reruns 1
	@echo "== faults: real processes, killed, frozen and cut off (some ten minutes) =="
	@$(BIN)/python -m pytest -n 2 tests/faults --reruns 2

FIGURES = docs/reliability-figures.json
STORMS = storm stops freezes network states failover_losses clocks crash_points

# Half an hour or more of a machine of its own. Each prints its seed, the faults that it caused, the versions and what came of it; STREAMQ_SEED=… repeats the faults.
storm: $(INSTALLED)
	@STREAMQ_LONG=1 STREAMQ_FIGURES=$(FIGURES) $(BIN)/python -m pytest -s $(STORMS:%=tests/faults/test_%.py)
	@$(BIN)/python -m tests.faults.figures

# The same storm against ten other queues, each in an environment of its own: three quarters of an hour.
PEERS = .venv/peers
storm-peers: $(INSTALLED)
	@$(BIN)/python -m benchmarks.storm --cache $(PEERS) --write

# The state machine of tests/model at length: five to fifteen minutes. The short form runs in `make test`.
model: $(INSTALLED)
	@STREAMQ_MODEL_STEPS=$${STREAMQ_MODEL_STEPS:-50000} $(BIN)/python -m pytest tests/model

# Asks PyPI's advisories about all that is installed, and OSV's about what PyPI did not answer for (STREAMQ_OSV_URL: a mirror).
# Needs the network: what it could not ask about, it lists, and fails. Ends with 1 for a weakness, 2 for what was not asked.
audit: $(INSTALLED)
	@$(BIN)/python -m pip install -qq pip-audit
	@$(BIN)/python -m tests.audit

lint: $(INSTALLED)
	@echo "== ruff check =="
	@$(BIN)/ruff check .
	@echo "== ruff format =="
	@$(BIN)/ruff format --check .
	@echo "== mypy =="
	@$(BIN)/mypy
	@echo "== layers =="
	@$(BIN)/lint-imports
	@echo "== Lua =="
	@$(BIN)/python tests/lint_lua.py lua
	@$(MAKE) --no-print-directory docs

# --strict: a link or an anchor that leads nowhere fails.
docs: $(INSTALLED)
	@echo "== documentation =="
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(INSTALLED)
	@$(BIN)/python -m pip install -qq --group bench
	@$(BIN)/python -m benchmarks.suite --write

bench-check: $(INSTALLED)
	@$(BIN)/python -m benchmarks.check

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist build site

# Made anew when pyproject.toml changes. Each step that can fail ends with one sentence that says what to do.
$(INSTALLED): pyproject.toml
	@found=""; \
	for python in "$(PYTHON)" python3.14 python3.13 python3.12 python3.11; do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found="$$python"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "make: streamq needs Python 3.11 or newer, and neither $(PYTHON) nor python3.11 to python3.14 is one: install it, or run make PYTHON=/path/to/python." >&2; \
	    exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "make: $$found has no venv module: install it (on Debian and Ubuntu: apt install python3-venv)." >&2; \
	    exit 1; \
	fi; \
	if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "== making .venv with $$found =="; \
	    if ! "$$found" -m venv --clear .venv; then \
	        echo "make: $$found could not make the virtual environment .venv: see the lines above." >&2; \
	        exit 1; \
	    fi; \
	fi; \
	echo "== installing streamq and its tools into .venv (a minute or two the first time) =="; \
	if ! { $(BIN)/python -m pip install -qq --upgrade 'pip>=25.1' && \
	       $(BIN)/python -m pip install -qq -e '.[$(EXTRAS)]' --group dev --group docs; }; then \
	    echo "make: pip could not install streamq into .venv: see its lines above, mend that, and run make again." >&2; \
	    exit 1; \
	fi; \
	touch $@
