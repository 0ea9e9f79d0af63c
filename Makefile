# `make demo` shows the main job, `make test` proves it. Both install into .venv and touch nothing else,
# but for the test tools below, which come through apt-get where that is allowed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow test-faults bench-faults lint clean

demo: .venv/.demo
	$(BIN)/edge-agent demo

test: .venv/.dev tools lint
	$(BIN)/python -m pytest

test-slow: .venv/.dev tools
	$(BIN)/python -m pytest -m slow

# a thousand kills, two hundred power cuts, five hundred damaged files: half an hour
test-faults: .venv/.dev tools
	$(BIN)/python -m pytest -m faults tests/faults

# the README's table of the same, beside what plain paho loses
bench-faults: .venv/.dev tools
	$(BIN)/python -m tests.faults.report

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/bin/python:
	$(PYTHON) -m venv .venv || (deploy/need python3-venv && $(PYTHON) -m venv .venv)
	$(BIN)/python -m pip install -q --upgrade pip

.venv/.demo: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install -q -e ".[demo]"
	@touch $@

.venv/.dev: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install -q -e ".[dev]"
	@touch $@ .venv/.demo

# a broker and a stream server for the tests; without them those tests are skipped and say so
.PHONY: tools
tools:
	@deploy/need mosquitto mosquitto-clients ffmpeg || true

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
