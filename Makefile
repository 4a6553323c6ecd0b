# One command per verb. Each does the set-up it needs, once: `make serve` and `make test` work on a fresh machine.
# pip must find torch 2.13.0+cpu: either its configuration supplies it, or say where PyTorch's CPU index is with
#   make serve PIP_EXTRA_INDEX_URL=…
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
export PIP_EXTRA_INDEX_URL
# Modules are compiled as they are first imported; where that is not kept, every start would compile all of vLLM anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: serve chat check test lint postgresql proxies real-policy demo demo-eval distill-demo loop-demo bench bench-dials bench-distill bench-recording bench-ray clean help

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

serve: $(VENV)/ready  ## serve the demo models on 127.0.0.1:8000 (ARGS="--help" lists every setting)
	$(BIN)/winnow serve $(ARGS)

chat: $(VENV)/ready  ## talk to a running server (ARGS="--show" shows the candidates)
	$(BIN)/winnow chat $(ARGS)

check: $(VENV)/ready  ## compare the served rewards with transformers
	$(BIN)/winnow check $(ARGS)

test: $(VENV)/ready  ## run the tests, on the real engine
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/ready .types/winnow  ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Not part of `make test`: it changes the system, and needs its administrator. Without it those tests are skipped.
postgresql:  ## install PostgreSQL from the system's packages, for the tests of the store
	@if command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then \
		echo "PostgreSQL is installed"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install --yes -qq --no-install-recommends postgresql; \
	else \
		echo "PostgreSQL is not installed, and this user may not install it: its tests are skipped" >&2; \
	fi

# Likewise: the example files of docs/deploy are then run in front of servers.
proxies:  ## install HAProxy and nginx from the system's packages, for the tests of docs/deploy
	@if PATH="$$PATH:/usr/sbin" command -v haproxy >/dev/null && PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null; then \
		echo "HAProxy and nginx are installed"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install --yes -qq --no-install-recommends haproxy nginx; \
	else \
		echo "HAProxy and nginx are not installed, and this user may not install them: their tests are skipped" >&2; \
	fi

real-policy: $(VENV)/ready  ## convert SmolLM2-135M-Instruct, a real chat model, into .real-policy
	$(BIN)/python -m tests.models.real_policy

demo: $(VENV)/ready  ## train the demo models anew, from nothing (at most 90 minutes on 2 cores); writes docs/demo-rounds.*
	$(BIN)/python -m winnow.loadtests.benchmarks.demo_training $(ARGS)

demo-eval: $(VENV)/ready  ## measure the demo models on held-out prompts; writes docs/demo-eval.*
	$(BIN)/python -m winnow.loadtests.benchmarks.demo_eval $(ARGS)

distill-demo: $(VENV)/ready  ## distil the demo policy into itself, with a control; writes docs/distill-demo.*
	$(BIN)/python -m winnow.loadtests.benchmarks.distill_demo $(ARGS)

loop-demo: $(VENV)/ready  ## train a reward model on scripted choices, with a control (half an hour); writes docs/loop.*
	$(BIN)/python -m winnow.loadtests.benchmarks.loop_demo $(ARGS)

bench: $(VENV)/ready .peers/ready  ## compare speed with other best-of-K systems; writes docs/benchmarks.*
	$(BIN)/python -m winnow.loadtests.benchmarks.baselines.bench $(ARGS)

bench-dials: $(VENV)/ready  ## measure the savings of early stopping; writes docs/dials.*
	$(BIN)/python -m winnow.loadtests.benchmarks.early_stopping $(ARGS)

bench-distill: $(VENV)/ready  ## compare the candidates a second of winnow distill with the bare engine's
	$(BIN)/python -m winnow.loadtests.benchmarks.distill_throughput $(ARGS)

bench-recording: $(VENV)/ready  ## measure what recording costs a request, by turns
	$(BIN)/python -m winnow.loadtests.benchmarks.recording_cost $(ARGS)

bench-ray: $(VENV)/ready  ## scaling on Ray with engines that sleep: ARGS="actors", "replicas" or "front"
	$(BIN)/python -m winnow.loadtests.benchmarks.ray_scaling $(ARGS)

clean:  ## remove what the other commands made
	rm -rf $(VENV) .peers .types build *.egg-info

# The pins are complete, so nothing is resolved; modules are compiled as they are first imported.
# An empty PIP_EXTRA_INDEX_URL must not shadow pip's own configuration.
$(VENV)/ready: constraints/cpu.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"Winnow needs Python 3.11; try make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(PIP_EXTRA_INDEX_URL),,env -u PIP_EXTRA_INDEX_URL) $(BIN)/python -m pip install --quiet \
		--disable-pip-version-check --no-deps --no-compile -r constraints/cpu.txt \
		|| { echo "If torch 2.13.0+cpu was not found:" \
			"make … PIP_EXTRA_INDEX_URL=<the address of PyTorch's CPU wheel index>" >&2; exit 1; }
	$(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec 2>/dev/null || true
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# The baselines have an environment of their own, so that their pins do not affect ours. Winnow itself is installed
# there without its dependencies, for the driver of its_hub.
.peers/ready: constraints/peers.txt pyproject.toml
	test -x .peers/bin/python || $(PYTHON) -m venv .peers
	$(if $(PIP_EXTRA_INDEX_URL),,env -u PIP_EXTRA_INDEX_URL) .peers/bin/python -m pip install --quiet \
		--disable-pip-version-check --no-deps -r constraints/peers.txt
	.peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# mypy reads the sources under their import names through this tree of links.
.types/winnow:
	mkdir -p $@
	for part in models server clients loadtests; do ln -sfn ../../$$part $@/$$part; done
