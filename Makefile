# Everything sets itself up: a virtual environment in .venv from requirements.lock. Needs Python 3.11+.

.PHONY: demo test test-matrix check up bench lock setup clean

demo: setup  ## Collector, engine, dashboards and real agent runs; prints the dashboard's address and stays up
	.venv/bin/loopscope demo

test: setup  ## All tests, the browser's included
	scripts/test

test-matrix: setup  ## The instrumentation's tests against old and new anthropic SDKs: docs/coverage-versions.md
	.venv/bin/python scripts/test-matrix

check: setup  ## Format, lint, types (strict), layers
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/pyright --pythonpath .venv/bin/python
	.venv/bin/lint-imports

up: setup  ## Collector, engine and dashboards, as a user starts them
	.venv/bin/loopscope up

bench: setup  ## The figures of docs/performance.md; peers in environments of their own, below .venv-bench
	-scripts/bench-peers
	.venv/bin/python -m benchmarks

LOCK := uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet

lock:  ## Resolve both lock files anew (needs uv): for development, and for the container image
	$(LOCK) --group dev --output-file requirements.lock
	$(LOCK) --constraint requirements.lock --no-annotate --output-file requirements.runtime.lock

setup:
	@scripts/setup

clean:
	rm -rf .venv .venv-matrix build dist .pytest_cache .ruff_cache .hypothesis
