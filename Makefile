PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Sphinx and a driver of browsers: a hundred megabytes that only the web book needs.
SITE_READY := .venv/.site-ready
SITE := outputs/site
# A module or a chapter stays in one process, with what it trained for all of its tests.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=2 --dist=loadscope --no-loadscope-reorder
# A double-click on a chapter opens a notebook, and no news pop up.
LAB := JUPYTER_CONFIG_PATH="$(CURDIR)/book/tools/lab$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH}"
NBVAL := $(PYTEST) -p no:cacheprovider --nbval-lax --nbval-current-env --nbval-cell-timeout=300

.DEFAULT_GOAL := help
.PHONY: help install lab book site test test-site check bench torture fuzz notebooks executed clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(READY) ## set up .venv from the lock of exact versions

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' || \
	  { echo "Python 3.11.4 or newer is needed: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

lab: $(READY) ## open the book in JupyterLab
	$(LAB) $(BIN)/jupyter lab book --LabApp.default_url=/lab/tree/00_the_whole_game.py

book: $(READY) ## train all pairs on the embedded data and render Tables I to III
	$(BIN)/fusionkd run params/quick/*.yaml
	$(BIN)/fusionkd table
	$(BIN)/python -m fusionkd_book tables
	@test -e $(SITE)/index.html && echo "The book to read: $(CURDIR)/$(SITE)/index.html" || \
	  echo "The book to read, in a browser and without a network: make site"

site: $(SITE_READY) ## build the book as web pages, which open from their folder
	rm -rf $(SITE)
	$(BIN)/python -m fusionkd_book site
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --builder html \
	  --doctree-dir $(SITE)-source/.doctrees $(SITE)-source $(SITE)
	$(BIN)/python -m fusionkd_book listen
	@echo "$(CURDIR)/$(SITE)/index.html"

$(SITE_READY): requirements-site.lock $(READY)
	$(BIN)/pip install --quiet --constraint requirements.lock --requirement requirements-site.lock
	@touch $@

test: $(READY) ## what a change must pass: ruff, pytest, every executed chapter again with nbval
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST) -m "not slow"
	FUSIONKD_OUTPUTS=$$(mktemp -d) $(NBVAL) outputs/executed

test-site: site ## look at every page in headless Chromium, on a phone and on a desk
	$(PYTEST) -rs tests/test_site.py tests/test_listening.py

check: site ## what takes too long for every change: slow tests, the web book, killed grids, fuzz
	$(PYTEST) -rs -m slow
	$(BIN)/python -m bench.torture 3
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.crashes 40
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.small_disk 6
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.fuzz 1000

bench: $(READY) ## time ours and the peers side by side
	$(BIN)/python -m bench.benchmark
	$(BIN)/python -m bench.devices

torture: $(READY) ## kill a grid 30 times, stop another at every write, and compare their tables
	$(BIN)/python -m bench.torture 30
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.crashes all
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.small_disk 40 --keep

fuzz: $(READY) ## hand in 100,000 changed files, for an hour at most on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.fuzz 100000 --keep

notebooks: $(READY) ## write the chapters as .ipynb, for papermill
	$(BIN)/python -m fusionkd_book notebooks

executed: $(READY) ## execute every chapter and keep the copies that are committed
	$(BIN)/python -m fusionkd_book executed

clean: ## remove the environment and every run
	rm -rf .venv outputs/runs outputs/features outputs/notebooks outputs/book \
	  $(SITE) $(SITE)-source outputs/vendor
