# Everything sets itself up: a virtual environment in .venv from requirements.lock. Needs Python 3.11+.

.PHONY: demo test test-claude-agent test-matrix check up bench lock setup clean

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

test-claude-agent: setup  ## Tests of claude-agent-sdk with its real CLI; installs 400 MB the first time
	.venv/bin/python -c "import claude_agent_sdk" 2>/dev/null || .venv/bin/python -m pip install "claude-agent-sdk>=0.2"
	.venv/bin/python -m pytest -q tests/instrumentation/test_claude_agent.py

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
