# One virtual environment, one install. The book, the tests and the linters need nearly the same packages, torch is
# most of the download, and a single stamp is simple enough to be right.

PYTHON ?= python3
# Extra words for pip, for example an index of CPU-only torch wheels.
PIP_ARGS ?=
# Words for pytest: by default a process a core, four at most; or one module, as in PYTEST_ARGS=tests/functional/test_cmm.py.
PYTEST_ARGS ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
PORT ?= 8000

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STARTED := $(VENV)/.installing
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

.DELETE_ON_ERROR:
.PHONY: help book study test lint serve clean distclean

# A variable becomes a flag of `cmm run` only when it is set; its value is quoted, so paths may hold spaces.
quote = '$(subst ','\'',$(1))'
flag = $(if $(strip $(value $(1))),--$(2) $(call quote,$(value $(1))))
STUDY = $(strip $(call flag,DATASET,dataset) $(call flag,BACKBONE,backbone) $(call flag,PRETRAINED,pretrained) \
	$(call flag,TEMPLATES,templates) $(call flag,CLASS_NAMES,class-names) $(call flag,SEED,seed) $(call flag,OUT,out) $(ARGS))

help: ## this list
	@echo "make TARGET [DATASET=... BACKBONE=... PRETRAINED=... TEMPLATES=... CLASS_NAMES=... SEED=... OUT=... ARGS='--worst-k 5']"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

book: $(STAMP) ## run a study and build its book; the embedded world unless DATASET=... names another
	said=$$($(BIN)/cmm run $(STUDY)) && $(BIN)/cmm book "$$(printf '%s\n' "$$said" | tail -n 1)"

study: $(STAMP) ## run a study into runs/, without a book
	$(BIN)/cmm run $(STUDY)

test: $(STAMP) ## the tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP) ## ruff, pyright, and no output in the notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(if $(NOTEBOOKS),$(BIN)/nbstripout --verify --keep-id $(NOTEBOOKS))

serve: _build/html/index.html $(STAMP) ## show the book on localhost, PORT=8000
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

clean: ## remove the built book and the caches in this folder
	rm -rf _build book/chapters build dist .pytest_cache .ruff_cache .hypothesis
	find . \( -path ./$(VENV) -o -path ./.git -o -path ./runs \) -prune -o \
		\( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

distclean: clean ## clean, and remove runs/ and .venv too
	rm -rf runs $(VENV)

_build/html/index.html:
	@echo "no book here yet: make book" >&2; exit 1

# The stamp is written last, so a half-finished install does not count. An interrupted one leaves $(STARTED) behind,
# and the next begins from an empty environment.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else \
		f"$(PYTHON) is Python {v[0]}.{v[1]}, cmmlib needs 3.11 to 3.13: give make PYTHON=python3.11")'
	@if test -e $(STARTED) || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		$(PYTHON) -m venv --clear $(VENV); fi
	@rm -f $@ && touch $(STARTED) && echo "installing into $(VENV) (some minutes the first time)" >&2
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) -c constraints.txt -e '.[book,llm,sweep,dev]'
	@rm $(STARTED) && touch $@
