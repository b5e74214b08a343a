# Every target sets itself up: Python 3.11 (or newer) and make are all that has to be there.
# Another interpreter: make test PYTHON=/path/to/python

PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
OUT ?= out/demo
VENV := .venv
PEER := .venv-peer
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist worksteal
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo lab reproductions test test-all lint format bench bench-peer notebooks docs screenshots clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## steer the bundled model: completions, success rates, plots (OUT=out/demo)
	@$(BIN)/actadd-lens demo --out $(OUT)

lab: $(VENV)/.installed-lab ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

reproductions: $(VENV)/.installed ## run the paper's experiments on the bundled model and keep their report in docs
	@$(BIN)/actadd-lens reproduce --all --out out/reproductions
	@cd out/reproductions && for figure in */figure.png; do \
		mkdir -p $(CURDIR)/docs/reproductions/$$(dirname $$figure); \
		cp $$figure $(CURDIR)/docs/reproductions/$$figure; done
	@cp out/reproductions/report.md docs/reproductions/report.md

test: lint ## format and lint check, strict types, the tests but the slow ones (two minutes, two processes)
	$(PYTEST)

# An int passes for a float, as it does for mypy.
test-all: lint ## the same with every test, on all architectures; shapes and types are checked at run time
	$(PYTEST) -m '' "--jaxtyping-packages=actadd_lens,beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"

lint: $(VENV)/.installed-dev ## format and lint check, strict types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev ## rewrite the sources as the format check wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed ## speed and memory, as ratios within one run
	$(BIN)/python -m benchmarks

bench-peer: $(VENV)/.installed $(PEER)/.installed ## the same sweeps by the package steering-vectors, in .venv-peer
	$(BIN)/python -m benchmarks --peer $(PEER)/bin/python

notebooks: $(VENV)/.installed-dev ## make the notebooks of their scripts, run them, and keep their output
	$(BIN)/jupytext --quiet --to ipynb --update notebooks/*.py
	HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TQDM_DISABLE=1 OMP_NUM_THREADS=1 $(BIN)/jupyter nbconvert \
		--log-level=ERROR --execute --inplace --ExecutePreprocessor.record_timing=False \
		--ExecutePreprocessor.store_widget_state=False notebooks/*.ipynb

docs: $(VENV)/.installed-docs ## build the documents into build/docs, and check the links inside
	$(BIN)/python -m sphinx -q -W --keep-going -j 2 -b html docs build/docs
	$(BIN)/python docs/check_links.py build/docs
	@echo "build/docs/index.html"

screenshots: $(VENV)/.installed-screenshots ## take the pictures of the explorer in docs/images
	$(BIN)/python docs/screenshots.py

clean: ## remove what the targets wrote, but not .venv and .venv-peer
	rm -rf build dist out docs/notebooks .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find actadd_lens tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove .venv and .venv-peer too
	rm -rf $(VENV) $(PEER)

# The stamps make a repeated target quick; a change of either file installs again.
$(BIN)/python:
	@echo "setting up $(VENV) with $(PYTHON)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(VENV)/etc/ipython  # a kernel on this machine may speak without encryption
	@echo 'c.IPKernelApp.log_level = "ERROR"' > $(VENV)/etc/ipython/ipython_kernel_config.py

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing actadd-lens (a few minutes the first time)"
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing actadd-lens[$*] (a few minutes the first time)"
	@$(INSTALL) -e '.[$*]'
	@touch $@ $(VENV)/.installed

$(PEER)/.installed: benchmarks/peer-requirements.txt
	@echo "setting up $(PEER) with $(PYTHON) (a few minutes the first time)"
	@$(PYTHON) -m venv --clear $(PEER)
	@$(PEER)/bin/python -m pip install -qq --disable-pip-version-check -r $<
	@touch $@
