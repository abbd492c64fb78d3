# Every target sets up what it needs; `make demo` and `make test` work on a fresh machine with Python 3.11+.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# PyTorch's own index of CPU builds: without an NVIDIA GPU, the default build on Linux is several GB for nothing.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := torch>=2.7,<2.14
PYTEST = $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder
PARTS := $(addprefix tests/,analysis data envs model planners remote training)

.PHONY: demo test test-slow test-full-disk test-lowest lint format docs dist audit clean

demo: $(VENV)/.installed ## learn cartpole-swingup from nothing and show it on a page
	$(BIN)/worldmodel demo

test: $(VENV)/.installed-dev ## all tests but the slow ones
	$(PYTEST) $(PARTS)
	@# Of whole commands, without the checks of shapes and types at every call: they take longer than what they check.
	$(PYTEST) --jaxtyping-packages= $(PARTS:%=--ignore=%)

test-slow: $(VENV)/.installed-dev ## the slow tests
	$(BIN)/pytest -m slow

MARK ?= not slow
test-full-disk: $(VENV)/.installed-dev ## the tests of full and read-only disks (MARK=slow: the slow ones), which are mounted: as root
	RELIABILITY_MUST_MOUNT=1 $(BIN)/pytest -p no:cacheprovider -m "$(MARK)" tests/reliability/test_full_disk.py

test-lowest: ## the tests on the lowest versions of all dependencies that pyproject.toml allows
	mkdir -p $(VENV)-lowest
	$(PYTHON) .ci/lowest_versions.py > $(VENV)-lowest/constraints.txt
	PIP_CONSTRAINT=$(CURDIR)/$(VENV)-lowest/constraints.txt $(MAKE) test VENV=$(VENV)-lowest \
		TORCH="$$(grep ^torch== $(VENV)-lowest/constraints.txt)"

lint: $(VENV)/.installed-dev ## format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev ## mend format and style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.torch ## the pages as a site, in site/
	$(BIN)/pip install --quiet --editable ".[docs]"
	$(BIN)/mkdocs build --strict

dist: $(VENV)/.installed-dev ## the wheel and the source archive, in dist/, tried from another folder
	rm -rf dist
	$(BIN)/hatchling build -d dist
	$(BIN)/pytest -m "slow or not slow" tests/test_distribution.py

audit: $(VENV)/.installed ## known weaknesses of what an installation brings; asks PyPI
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/pip install --quiet "pip-audit>=2.9,<3"
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' > $(VENV)-audit/installed.txt
	$(VENV)-audit/bin/pip-audit --strict --no-deps --disable-pip -r $(VENV)-audit/installed.txt

clean: ## remove virtual environments, what was built, and caches; runs/ and data/ stay
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-audit dist site .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.torch:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	@# A CPU build that pip finds locally first; then, on Linux without an NVIDIA GPU, PyTorch's CPU index.
	$(BIN)/pip install --quiet --no-index --no-deps "$(TORCH)" 2>/dev/null \
	|| if [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null && [ -n "$(TORCH_CPU_INDEX)" ]; then \
		$(BIN)/pip install --quiet --no-deps --index-url $(TORCH_CPU_INDEX) "$(TORCH)" \
		|| { echo "no CPU build of torch at $(TORCH_CPU_INDEX): give make TORCH_CPU_INDEX=<a mirror of it>, or" \
		     "TORCH_CPU_INDEX= for pip's default build (several GB on Linux)" >&2; exit 1; }; \
	else $(BIN)/pip install --quiet "$(TORCH)"; fi
	touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@ $(VENV)/.installed
