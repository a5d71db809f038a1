# Everything a contributor types. Needs make and Python >= 3.11; the rest goes into .venv.

PYTHON ?= python3
DEMO ?= demo
FROM ?= 5376c63
PY := .venv/bin/python
UPGRADE := build/upgrade
LOWEST := build/lowest
SITE := build/docs/env
S3 := build/s3
S3_SERVER := moto[server,s3]>=5.2

# Tests start hundreds of Python processes, which take twice as long where each compiles all modules again.
unexport PYTHONDONTWRITEBYTECODE

# Tests flush thousands of files to disk. Unless TMPDIR is set, they work in memory, if there are 4 GB of it.
SHM := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 4000000 { print "/dev/shm" }')
IN_MEMORY := $(if $(TMPDIR),,$(if $(SHM),TMPDIR=$(SHM)))

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-quick test-cluster coverage test-upgrade test-lowest test-s3 crash lint bench bench-quick rooms migrations pictures docs clean

help:  ## show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

# .venv/ready says for which folder and which pyproject.toml the environment was made, and is written last. If it says what
# it should and the environment's Python runs, nothing is installed and the network is not needed. Anything else
# (half-made, moved, emptied, a Python that is gone) is made anew; a changed pyproject.toml alone only installs again.
venv:  ## set up .venv, if it is not up to date
	@place="$$(pwd -P)"; ready="$$place $$(cksum < pyproject.toml)"; \
	said="$$(cat .venv/ready 2>/dev/null)"; \
	works() { $(PY) -c 'from importlib.util import find_spec as f; import pip; \
	  raise SystemExit(not all(map(f, ("cv2", "duckdb", "sklearn", "pytest", "mypy", "featurestore"))))' 2>/dev/null; }; \
	if works; then \
	  if [ "$$said" = "$$ready" ]; then exit 0; fi; \
	  case "$$said" in "$$place "*) fresh=no ;; *) fresh=yes ;; esac; \
	else fresh=yes; fi; \
	if [ $$fresh = yes ]; then \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "featurestore needs Python 3.11 or newer, and \"$(PYTHON)\" is not: name one, as in 'make PYTHON=python3.12 $(MAKECMDGOALS)'" >&2; \
	    exit 1; }; \
	  echo "setting up .venv (once; a few minutes the first time)"; \
	  rm -rf .venv && $(PYTHON) -m venv .venv || exit 1; \
	fi; \
	rm -f .venv/ready; \
	$(PY) -m pip install -qq --disable-pip-version-check --editable '.[dev]' && printf '%s\n' "$$ready" > .venv/ready

demo: venv  ## run the main job on images that come with the dependencies
	@$(PY) -m featurestore demo "$(DEMO)"

test: venv  ## run the tests (ARGS="-k name" to choose)
	@$(IN_MEMORY) $(PY) -m pytest -n auto --dist worksteal -m "not cluster and not browser" $(ARGS)

test-quick: venv  ## run the quick tests only, for the inner loop
	@$(IN_MEMORY) $(PY) -m pytest -n auto --dist worksteal -m "not slow and not cluster and not browser" $(ARGS)

test-cluster: venv  ## run on Dask clusters and as an array of jobs, with processes of this machine
	@$(IN_MEMORY) $(PY) -m pytest -n auto --dist worksteal -m cluster $(ARGS)

coverage: venv  ## run the tests, those of clusters and browsers too, and list the lines that they miss
	@$(IN_MEMORY) $(PY) -m pytest -n auto --dist worksteal --cov=featurestore --cov-report=term $(ARGS)

.PHONY: test-browser
test-browser: venv  ## look at the report and the viewer in Chromium, with the keyboard alone (AXE=axe.min.js: with axe-core too)
	@$(PY) -c "import playwright" 2>/dev/null || $(PY) -m pip install -qq --disable-pip-version-check playwright
	@FEATURESTORE_TEST_AXE="$(AXE)" $(IN_MEMORY) $(PY) -m pytest -rs -m browser tests/apps $(ARGS)

test-upgrade: venv  ## open, verify, rebuild and merge stores that an earlier commit made (FROM=commit)
	@PYTHON="$(PYTHON)" tests/upgrade/make-stores "$(FROM)" $(UPGRADE)
	@FEATURESTORE_EARLIER_STORES="$(CURDIR)/$(UPGRADE)/stores" $(IN_MEMORY) $(PY) -m pytest tests/upgrade $(ARGS)

test-lowest: venv  ## run the tests with the lowest versions that pyproject.toml allows
	@ready="$$(pwd -P) $$(cksum < pyproject.toml)"; \
	if [ "$$(cat $(LOWEST)/ready 2>/dev/null)" != "$$ready" ]; then \
	  echo "setting up $(LOWEST) (once; a minute or two)"; \
	  rm -rf $(LOWEST) && $(PY) -m uv venv --quiet --python "$(PYTHON)" $(LOWEST) && \
	  $(PY) -m uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable '.[dev]' && \
	  printf '%s\n' "$$ready" > $(LOWEST)/ready || exit 1; \
	fi
	@$(IN_MEMORY) $(LOWEST)/bin/python -m pytest -n auto --dist worksteal $(ARGS)

# The server is not in .venv, whose resolution its dependencies would change.
test-s3: venv  ## images and partitions in an S3 server, through a proxy that spoils answers
	@ready="$$(pwd -P) $(S3_SERVER)"; \
	if [ "$$(cat $(S3)/ready 2>/dev/null)" != "$$ready" ]; then \
	  echo "setting up $(S3) (once; a minute or less)"; \
	  rm -rf $(S3) && $(PY) -m uv venv --quiet --python "$(PYTHON)" $(S3) && \
	  $(PY) -m uv pip install --quiet --python $(S3)/bin/python "$(S3_SERVER)" && \
	  printf '%s\n' "$$ready" > $(S3)/ready || exit 1; \
	fi
	@FEATURESTORE_S3_SERVER="$(CURDIR)/$(S3)/bin/moto_server" $(IN_MEMORY) $(PY) -m pytest -n auto --dist worksteal tests/s3 $(ARGS)

crash: venv  ## kill more than a hundred runs, at other moments each time (FEATURESTORE_KILLS=500 for more)
	@export FEATURESTORE_KILLS="$${FEATURESTORE_KILLS:-100}" FEATURESTORE_KILL_SEED="$${FEATURESTORE_KILL_SEED:-$$(date +%s)}"; \
	$(IN_MEMORY) $(PY) -m pytest -s tests/crash $(ARGS)

lint: venv  ## ruff, import-linter and mypy --strict
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@.venv/bin/lint-imports --no-logo --no-cache
	@$(PY) -m mypy

bench: venv  ## measure, and write docs/benchmarks.md (ARGS="pca start" to choose)
	@$(PY) -m benchmarks.run $(ARGS)

bench-quick: venv  ## see that the benchmarks run, in a minute
	@$(PY) -m benchmarks.run --quick $(ARGS)

rooms: venv  ## draw the rooms in docs/architecture.md from the imports
	@$(PY) -m docs.draw_rooms

migrations: venv  ## write the SQL of a new catalog, after a new revision
	@$(PY) -c "from alembic import command; from featurestore.catalog import revisions as r; \
	  lines = map(str.rstrip, r.migration_sql(command.upgrade, 'base:head').strip().splitlines()); \
	  r.new_catalog().write_text(''.join(line + '\n' for line in lines), encoding='utf-8')"

pictures: venv  ## draw the pictures in docs/images from the sample images
	@$(PY) -m docs.draw_pictures

docs: venv  ## make the documentation site in build/site; broken links fail
	@ready="$$(pwd -P) $$(cksum < pyproject.toml)"; \
	if [ "$$(cat $(SITE)/ready 2>/dev/null)" != "$$ready" ]; then \
	  echo "setting up $(SITE) (once; a few seconds)"; \
	  rm -rf $(SITE) && $(PY) -m uv venv --quiet --python "$(PYTHON)" $(SITE) && \
	  $(PY) -m uv pip install --quiet --python $(SITE)/bin/python --group docs && \
	  printf '%s\n' "$$ready" > $(SITE)/ready || exit 1; \
	fi
	@$(PY) -m docs.make_site

clean:  ## remove what was made: .venv, the demo, caches, builds
	rm -rf .venv demo build dist *.egg-info .coverage .coverage.* htmlcov .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
