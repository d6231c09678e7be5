# make run starts the bot, make test proves it; everything is installed into .venv first.
# TORCH_INDEX=URL takes torch from another index, for example a CPU-only build.

PYTHON ?= python3
PIP = .venv/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
ARGS ?=

.PHONY: run test check lint format bench clean

run: .venv/installed
	.venv/bin/python -m bot $(ARGS)

test: .venv/installed-dev
	.venv/bin/python -m pytest $(ARGS)

check: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

format: .venv/installed-dev
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: .venv/installed-dev
	.venv/bin/python -m benchmarks.pipeline $(ARGS)

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Quipbot needs Python 3.11 or newer; name one with make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing what Quipbot needs into .venv (torch is large: some minutes the first time) ..."
	$(PIP) -e .
	@touch $@

.venv/installed-dev: .venv/installed
	@echo "Installing what the tests need ..."
	$(PIP) -e '.[dev]'
	@touch $@
