# One target for each thing a developer does. `make demo` and `make test` set up everything they need in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.medalign-dev
DOCS := $(VENV)/.medalign-docs
LATEST := .venv-latest
LOWEST := .venv-lowest
BARE := .venv-bare
UV := .venv-lock
# Only the plugins that the tests need: pytest rewrites the assertions of every module of a package that has a plugin
# (zarr, anyio), in each of its processes, which takes seconds. And bytecode of medalign and of its tests is kept, whatever
# the environment says: the tests start many interpreters.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD := 1
export PYTHONDONTWRITEBYTECODE :=
PLUGINS := -p xdist -p pytest_cov -p hypothesispytest
PYTEST := -m pytest $(PLUGINS) --numprocesses auto --dist loadfile --no-loadscope-reorder

# $(call environment,FOLDER): an empty environment, in which mypy can follow medalign (pyproject.toml, tool.mypy).
environment = $(PYTHON) -m venv --clear $(1) && mkdir -p $(1)/typing && ln -sfn ../.. $(1)/typing/medalign
# $(call install,FOLDER,CONSTRAINTS): medalign with all that its tests need. The variables hold for packages that pip
# has to build, too, which the option --constraint does not.
install = PIP_CONSTRAINT=$(2) PIP_BUILD_CONSTRAINT=$(2) $(1)/bin/python -m pip install --quiet \
	--disable-pip-version-check --editable '.[dev]'

.PHONY: demo test test-fast slow-tests coverage mutants test-wheel test-gpu test-latest test-lowest dist lint format bench docs decodings lock clean

demo: $(READY)
	$(BIN)/medalign demo

test: $(READY)
	$(BIN)/python $(PYTEST) --disable-warnings

# All but the tests listed in tests/slow.txt.
test-fast: $(READY)
	$(BIN)/python $(PYTEST) --disable-warnings -m 'not slow'

# Renew tests/slow.txt; on a machine with nothing else to do.
slow-tests: $(READY)
	$(BIN)/python $(PYTEST) --disable-warnings --durations=0 --durations-min=0 | tee slow-tests.log
	$(BIN)/python scripts/slow_tests.py slow-tests.log

# The whole suite; lists the lines and branches that no test runs. htmlcov/index.html shows them in the code.
coverage: $(READY)
	$(BIN)/python $(PYTEST) --disable-warnings --cov --cov-report=term-missing:skip-covered --cov-report=html

# Small wrong changes to the code, one at a time: how many of them the tests notice (docs/results.md has the score).
# `MUTANTS="store --all"` passes options of scripts/mutants.py.
mutants: $(READY)
	$(BIN)/python scripts/mutants.py --json mutants.json $(MUTANTS)

# The wheel and the sdist: what is in them, and the wheel installed without extras in an empty environment.
test-wheel: dist
	$(BIN)/python tests/check_dist.py dist
	$(PYTHON) -m venv --clear $(BARE)
	PIP_CONSTRAINT=constraints.txt $(BARE)/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	$(BARE)/bin/python tests/bare_install.py

# The sdist, and the wheel built from it.
dist: $(READY)
	rm -rf dist
	PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt $(BIN)/python -m build --outdir dist .

# All checks on a pretended GPU, of which `make test` runs some (docs/environment.md).
test-gpu: $(READY)
	MEDALIGN_PRETENDED_GPU=all $(BIN)/python -m pytest tests/student/training/test_pretended_gpu.py --disable-warnings

# The suite on the newest releases that pyproject.toml allows: what changed since the lock, and which warnings other
# packages gave. (`make test` hides those; a warning of our own modules is an error everywhere.)
test-latest:
	$(call environment,$(LATEST))
	$(LATEST)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(LATEST)/bin/python scripts/changes.py
	$(LATEST)/bin/python $(PYTEST)

# The suite on the lowest versions that pyproject.toml allows.
test-lowest: $(UV)/bin/uv
	$(call environment,$(LOWEST))
	$(UV)/bin/python scripts/lock.py --lowest > $(LOWEST)/constraints.txt
	$(call install,$(LOWEST),$(LOWEST)/constraints.txt)
	$(LOWEST)/bin/python scripts/changes.py
	$(LOWEST)/bin/python $(PYTEST) --disable-warnings

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/python scripts/dead_code.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python benchmarks/extract.py
	$(BIN)/python benchmarks/store.py

# All pages with the API reference, as site/; needs no network once the tools are installed.
docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --clean

# Renew the descriptions that `medalign student decodings` prints, after a change to a method's settings.
decodings: $(READY)
	$(BIN)/python scripts/describe_decodings.py

# Renew constraints.txt with the newest versions; run `make test` before committing it.
lock: $(UV)/bin/uv
	$(UV)/bin/python scripts/lock.py

clean:
	rm -rf $(VENV) $(LATEST) $(LOWEST) $(BARE) $(UV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.coverage htmlcov slow-tests.log mutants.json

# The stamp is newer than pyproject.toml and constraints.txt exactly when the environment matches them.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || { $(call environment,$(VENV)); }
	$(call install,$(VENV),constraints.txt)
	touch $(READY)

$(DOCS): $(READY)
	PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet \
		--disable-pip-version-check --editable '.[docs]'
	touch $(DOCS)

$(UV)/bin/uv:
	$(PYTHON) -m venv --clear $(UV)
	$(UV)/bin/python -m pip install --quiet --disable-pip-version-check uv packaging
