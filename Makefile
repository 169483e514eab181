# Everything a person calls. The work is done by the programs named here; make only orders it.
SHELL := /bin/bash
PYTHON := .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help venv spark extension built-extension install demo lab test test-all bench lint format lock clean programs

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv:
	@.ci/venv

# To call make is to approve the code in this checkout: `sealbook install` writes the policy that
# admits it, and says so when that replaces another.
install: venv
	@$(PYTHON) -m sealbook install --quiet

demo: install ## install sealbook and run the quickstart notebook on an attested (simulated) kernel
	@$(PYTHON) -m sealbook demo notebooks/01-quickstart.ipynb --output notebooks/executed/01-quickstart.ipynb

lab: install built-extension ## open JupyterLab on the notebooks
	@$(PYTHON) -m sealbook lab notebooks $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

spark: venv ## add Spark and sealbook's Java part, and approve them
	@.ci/spark
	@$(PYTHON) -m sealbook install --quiet

built-extension: venv
	@.ci/extension

extension: venv ## build the JupyterLab extension, and again whenever a source of it changes
	@.ci/extension watch

programs: venv
	@.ci/programs

test: spark built-extension programs ## run the tests
	@$(PYTHON) -m pytest -n 2 --dist loadgroup -m "not slow" $(ARGS)

test-all: spark built-extension programs ## run the tests, also those that take minutes
	@$(PYTHON) -m pytest -n 2 --dist loadgroup $(ARGS)

bench: spark ## measure everything the README gives as a ratio
	@$(PYTHON) tests/benchmarks/run.py $(ARGS)

lint: venv built-extension ## ruff, mypy, the TypeScript compiler and the lock files' agreement
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy

format: venv ## let ruff format and fix
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .

lock: venv ## resolve pyproject.toml again into the lock files
	@$(PYTHON) .ci/lock

clean: ## remove what make and the notebooks made
	rm -rf extension/build extension/lib extension/node_modules extension/*.tsbuildinfo
	rm -rf .venv notebooks/executed notebooks/sealed .pytest_cache .mypy_cache .ruff_cache .hypothesis
